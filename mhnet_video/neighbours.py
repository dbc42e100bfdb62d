"""Which frames a frame is compared with: those beside it that show something new."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from mhnet_video.frame import DeviceFrame, Frame

T = TypeVar("T")

MAX_COPIES = 8
"""How many items may wait as one, so that a still picture does not wait for ever."""

MAX_RUN = 3
"""Copies of a frame in a row where the frame rate was raised, at most."""

_RHYTHM, _LEAST, _PART = 12, 6, 3
"""Changes from frame to frame by which a raised rate is known; how many there must be at least, and
one of how many must be a copy's."""
_MOST_HELD = 64 << 20
"""Bytes of a clip's first frames that may wait until it is known."""
_YARDSTICK, _SHARE = 3, 0.3
"""The change that copies are measured by is the third largest, as a cut or what an encoder codes
anew may be larger; a copy changes by less than this share of it."""


class Neighbours(Generic[T]):
    """The windows of successive items, the edge ones repeated at both ends of a run.

    An item that repeats the one before waits with that one, and gets the same neighbours: a copy is
    none, and would tell the network that the rain stands still.

    Args:
        frames: Items of a window, T, odd.
    """

    def __init__(self, frames: int) -> None:
        self._half = frames // 2
        # each item with those that repeat it
        self._held: deque[list[T]] = deque(maxlen=frames)
        self._pushed = 0

    @property
    def last(self) -> T | None:
        """The item that was pushed last in this run; None if there is none."""
        return self._held[-1][-1] if self._held else None

    def push(self, item: T, *, is_copy: bool = False) -> list[list[T]]:
        """Take the next item.

        Args:
            item: What the windows are made of.
            is_copy: Whether it repeats the one before.

        Returns:
            The windows that are complete now, in the order of their middle items.
        """
        if is_copy and self._half and self._held and len(self._held[-1]) < MAX_COPIES:
            self._held[-1].append(item)
            return []
        self._held.append([item])
        self._pushed += 1
        return self._windows(self._pushed - 1 - self._half) if self._pushed > self._half else []

    def flush(self) -> list[list[T]]:
        """End the run; the windows that are missing."""
        begin = max(0, self._pushed - self._half)
        windows = [each for centre in range(begin, self._pushed) for each in self._windows(centre)]
        self._held.clear()
        self._pushed = 0
        return windows

    def _windows(self, centre: int) -> list[list[T]]:
        """Those of an item and of the ones that repeat it."""
        first = self._pushed - len(self._held)
        places = range(centre - self._half, centre + self._half + 1)
        groups = [self._held[min(max(place, 0), self._pushed - 1) - first] for place in places]
        middle = groups[self._half]
        windows = [[item if each is middle else each[0] for each in groups] for item in middle]
        del middle[1:]  # no later window needs them, and they may be large
        return windows


def with_copies(items: Iterable[Frame | T]) -> Iterator[tuple[Frame | T, bool]]:
    """Find frames that repeat the one before but for what an encoder has made of them.

    Where the frame rate was raised, copies change little and the others much, again and again.
    Before a fixed camera all change alike. That is known after a dozen changes, which the first
    frames wait for; those that are in a GPU's memory do not, as a decoder has few places there.

    Args:
        items: Frames of a stream, and anything else, which passes through at once.

    Yields:
        Each item, and whether it is such a copy. What an error leaves is still given before it.
    """
    rhythm = _Rhythm()
    held: deque[Frame] = deque()
    iterator, error = iter(items), None
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            break
        except Exception as caught:
            error = caught
            break
        if not isinstance(item, Frame):
            yield item, False
            continue
        sample = _some_luma(item)
        if not rhythm.fits(sample):
            while held:
                yield held.popleft(), rhythm.is_copy(len(held))
        rhythm.push(sample)
        held.append(item)
        waits = not isinstance(item, DeviceFrame) and not rhythm.is_full
        if not waits or sum(_bytes(frame) for frame in held) > _MOST_HELD:
            while held:
                yield held.popleft(), rhythm.is_copy(len(held))
    while held:
        yield held.popleft(), rhythm.is_copy(len(held))
    if error is not None:
        raise error


class _Rhythm:
    """The last changes from frame to frame."""

    def __init__(self) -> None:
        self._changes: deque[float] = deque(maxlen=_RHYTHM)
        self._last: Tensor | None = None

    @property
    def is_full(self) -> bool:
        """Whether there are as many changes as are ever looked at."""
        return len(self._changes) == _RHYTHM

    def fits(self, sample: Tensor) -> bool:
        """Whether a frame is of the size and at the place of the ones before."""
        last = self._last
        return last is not None and (last.shape, last.device) == (sample.shape, sample.device)

    def push(self, sample: Tensor) -> None:
        """Take the next frame; one that does not fit begins anew."""
        if self._last is not None and self.fits(sample):
            self._changes.append(float((sample - self._last).abs().float().mean()))
        else:
            self._changes.clear()
        self._last = sample

    def is_copy(self, age: int = 0) -> bool:
        """Whether the frame that was pushed so many frames ago is a copy."""
        if not max(age + 1, _LEAST) <= len(self._changes):
            return False
        least = _SHARE * sorted(self._changes)[-_YARDSTICK]
        are_copies = [change < least for change in self._changes]
        longest = max(len(list(run)) * key for key, run in itertools.groupby(are_copies))
        are_many = _PART * sum(are_copies) >= len(are_copies)
        return are_copies[-1 - age] and are_many and longest <= MAX_RUN


def _bytes(frame: Frame) -> int:
    """What its planes take."""
    return sum(plane.nbytes for plane in frame.planes)


def _some_luma(frame: Frame) -> Tensor:
    """One sample of sixteen of the first plane, int32, where the frame is."""
    if isinstance(frame, DeviceFrame):
        return torch.as_tensor(frame.luma[::4, ::4]).int() & 0xFFFF
    return torch.from_numpy(frame.planes[0][::4, ::4].astype(np.int32))
