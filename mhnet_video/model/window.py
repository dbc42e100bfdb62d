"""The frames that a network sees at once: the one to restore and its neighbours in time."""

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

Window = Sequence[Tensor | None]
"""What the network sees, `[3, H, W]` each, the frame to restore in the middle. At a clip's ends,
frames of the other side replace missing ones. A picture without neighbours has None instead, which
is black to the network. Repeated, it would look like a static scene. Where the network sees the
glass, the frames stand between the two pictures of `glass_statistics`."""


def window_of(frames: Sequence[T], is_same: Callable[[T, T], bool] = is_) -> list[T | None]:
    """The window of frames, or of what represents them.

    Args:
        frames: T of them; edge ones repeated where a run has fewer.
        is_same: Whether two are one picture.

    Returns:
        The frames; None for each neighbour where all are one picture.
    """
    half = len(frames) // 2
    middle = frames[half]
    if all(is_same(frame, middle) for frame in frames):
        return [*[None] * half, middle, *[None] * half]
    return list(frames)


def is_alone(window: Sequence[Any]) -> bool:
    """Whether a picture has no neighbours although the network takes several frames."""
    return len(window) > 1 and sum(frame is not None for frame in window) == 1


def middle_of(window: Window) -> Tensor:
    """The frame to restore.

    Raises:
        ValueError: It is missing, or the frames are not of one size.
    """
    middle = window[len(window) // 2]
    if middle is None:
        raise ValueError("expected a frame in the middle")
    if len({frame.shape for frame in window if frame is not None}) > 1:
        raise ValueError("expected frames of one size")
    return middle


def stacked(window: Window) -> Tensor:
    """The frames of a window as the network sees them, `[T, 3, H, W]`.

    Raises:
        ValueError: As for `middle_of`.
    """
    middle = middle_of(window)
    return torch.stack([torch.zeros_like(middle) if f is None else f for f in window])


def window_indices(centre: int, count: int, frames: int, distance: int = 1) -> list[int]:
    """Indices of a window's items in a run.

    The window has as many items before the middle one as after it. Beyond an end of the run, the
    next item of the other side replaces a missing one: it has other rain, and is aligned like any
    neighbour. Where the run has too few items, its edge item is repeated.

    Args:
        centre: Index of the middle item.
        count: Items of the run.
        frames: Items of a window, T, odd.
        distance: Items from one of the window to the next; less where the run is too short.

    Returns:
        T indices from 0 to `count - 1`, `centre` in the middle.
    """
    distance = max(1, min(distance, (count - 1) // max(1, frames - 1)))
    if distance > 1:
        every = range(centre % distance, count, distance)
        return [every[i] for i in window_indices(centre // distance, len(every), frames)]
    half = frames // 2
    indices = []
    for index in range(centre - half, centre + half + 1):
        missing = -index if index < 0 else index - count + 1
        if missing > 0:
            beyond = half + missing
            other = centre + beyond if index < 0 else centre - beyond
            index = other if 0 <= other < count else min(max(index, 0), count - 1)
        indices.append(index)
    return indices


DIFFERENCE_GAIN = 4.0
"""Factor on the mean difference from the middle frame: it is small where a drop stands still and
seldom large elsewhere, and a network learns sooner from a picture as strong as the others."""


def glass_statistics(frames: Tensor, middle: Tensor) -> Tensor:
    """What stands still on the glass, as two pictures.

    Args:
        frames: `[N, 3, H, W]` as they are, not aligned: more than those of the window, or just
            these.
        middle: `[3, H, W]`, the frame to restore.

    Returns:
        Their mean, in [0, 1]; and `DIFFERENCE_GAIN` times the mean of their absolute differences
        from the middle one: `[2, 3, H, W]`.
    """
    return torch.stack([frames.mean(0), DIFFERENCE_GAIN * (frames - middle).abs().mean(0)])


def between(statistics: Tensor, frames: Tensor) -> Tensor:
    """The frames `[T, 3, H, W]` of a window between the pictures of its glass, `[2, 3, H, W]`."""
    return torch.cat([statistics[:1], frames, statistics[1:]])
