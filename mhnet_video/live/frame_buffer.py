"""The last frames of a live source, from which the next one to restore is selected.

Plain logic, without threads or clocks.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from mhnet_video.frame import Frame

_MAX_BYTES = 256 << 20
"""Bytes of samples that are kept for a slow consumer."""
_MAX_BACKLOG = 2
"""Frames that may wait to be restored in turn; of more, the newest is taken.

One more than the next frame, so that a little unevenness drops nothing.
"""


@dataclass(frozen=True, eq=False)
class Captured:
    """A frame of a source, and where it is in the stream."""

    frame: Frame
    """Its pts is in `TIME_BASE` since the source was first opened."""
    number: int
    """Counts all frames of the source, from 0."""
    run: int
    """Differs between frames that are no neighbours: of two connections, sizes or visitors."""
    arrival: float
    """When its packet was read, on the clock of `time.monotonic`, in seconds."""


@dataclass(frozen=True, eq=False)
class Selection:
    """A frame to restore, its neighbours, and the frames that were skipped for it."""

    frames: tuple[Frame, ...]
    """The frame and its neighbours, in order; fewer at the ends of a run."""
    index: int
    """Index in `frames` of the frame to restore."""
    captured: Captured
    """The frame to restore."""
    skipped: int
    """Number of frames between the frame selected before and this one."""
    skipped_frames: tuple[Frame, ...]
    """Those frames, in order; the first of them are missing where more than 256 MiB came."""


class FrameBuffer:
    """Keeps frames until they are selected, or no longer needed as neighbours.

    Args:
        ahead: Frames after the one to restore that are waited for.
        behind: Frames before it that are returned with it.
    """

    def __init__(self, *, ahead: int, behind: int) -> None:
        self._ahead, self._behind = ahead, behind
        self._kept: deque[Captured] = deque()
        self._num_bytes = 0
        self._run = 0
        self._selected = -1
        self.count = 0
        """Frames added so far."""

    def __len__(self) -> int:
        """Frames that are kept now."""
        return len(self._kept)

    def add(self, frame: Frame, arrival: float, *, is_new_run: bool = False) -> None:
        """Append a frame; the oldest are dropped where the memory does not suffice.

        Args:
            frame: The frame.
            arrival: When it arrived, in seconds.
            is_new_run: Whether the frames before are no neighbours of it. Frames of another size
                or layout never are.
        """
        is_other = bool(self._kept) and _kind(self._kept[-1].frame) != _kind(frame)
        self._run += is_new_run or is_other
        self._kept.append(Captured(frame, self.count, self._run, arrival))
        self.count += 1
        self._num_bytes += frame.num_bytes
        least = self._behind + _MAX_BACKLOG + self._ahead
        while self._num_bytes > _MAX_BYTES and len(self._kept) > least:
            self._drop()

    def select(self, *, is_complete: bool) -> Selection | None:
        """The next frame to restore, or the newest where the consumer is behind; None for none yet.

        Args:
            is_complete: Whether the neighbours that are not there will not come.
        """
        kept = list(self._kept)
        ready = [
            index
            for index, each in enumerate(kept)
            if each.number > self._selected and (is_complete or self._has_neighbours(kept, index))
        ]
        if not ready:
            return None
        index = ready[0] if len(ready) <= _MAX_BACKLOG else ready[-1]
        chosen = kept[index]
        around = kept[max(0, index - self._behind) : index + self._ahead + 1]
        near = [each for each in around if each.run == chosen.run]
        skipped = chosen.number - self._selected - 1
        passed = tuple(each.frame for each in kept[:index] if each.number > self._selected)
        self._selected = chosen.number
        while self._kept[0].number < min(chosen.number, chosen.number + 1 - self._behind):
            self._drop()  # no later frame has it as a neighbour
        frames = tuple(each.frame for each in near)
        return Selection(frames, near.index(chosen), chosen, skipped, passed)

    def _has_neighbours(self, kept: Sequence[Captured], index: int) -> bool:
        """Whether the frames after one have come, or belong to another run."""
        return kept[-1].run != kept[index].run or index + self._ahead < len(kept)

    def _drop(self) -> None:
        self._num_bytes -= self._kept.popleft().frame.num_bytes


def _kind(frame: Frame) -> tuple[object, ...]:
    """What neighbours have in common."""
    return frame.width, frame.height, frame.rotation, frame.layout
