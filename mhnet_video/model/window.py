"""The frames that a network sees at once: the one to restore and its neighbours in time."""

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

Window = Sequence[Tensor | None]
"""The frames that the network looks at, `[3, H, W]` each, the one to restore in the middle. At a
clip's ends frames of the other side stand for those that are missing. A picture without any
neighbour has None in their places, which are black to the network: what is there again and again is
a scene at rest to it, and a picture on its own must not look like one."""


def window_of(frames: Sequence[T], is_same: Callable[[T, T], bool] = is_) -> list[T | None]:
    """The window of frames, or of what stands for them.

    Args:
        frames: T of them; where a run has fewer, edge ones more than once.
        is_same: Whether two are one picture.
    """
    half = len(frames) // 2
    middle = frames[half]
    if all(is_same(frame, middle) for frame in frames):
        return [*[None] * half, middle, *[None] * half]
    return list(frames)


def is_alone(window: Sequence[Any]) -> bool:
    """Whether a picture has no neighbours, where the network could look at some."""
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


def window_indices(centre: int, count: int, frames: int) -> list[int]:
    """Where the items of a window are in a run.

    Those beside the middle one, as many before as behind. Where there is none any more, the next
    one on the other side is in its place: what it shows is moved to where the middle one shows it,
    and it has other rain. Where the run has no more items, the edge one is.

    Args:
        centre: Place of the middle item.
        count: Items of the run.
        frames: Items of a window, T, odd.

    Returns:
        T places from 0 to `count - 1`, the middle one in the middle.
    """
    half = frames // 2
    places = []
    for place in range(centre - half, centre + half + 1):
        missing = -place if place < 0 else place - count + 1
        if missing > 0:
            beyond = half + missing
            other = centre + beyond if place < 0 else centre - beyond
            place = other if 0 <= other < count else min(max(place, 0), count - 1)
        places.append(place)
    return places
