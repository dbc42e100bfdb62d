"""Assembles the windows of frames that the network takes: cuts, copies and neighbours."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from mhnet_video.config import Settings
from mhnet_video.frame import DeviceFrame, Frame
from mhnet_video.media.frames.device_frames import on_host
from mhnet_video.model.window import window_indices, window_of
from mhnet_video.restoration.glass import GlassImage, GlassMemory, MotionMeter, most_distance
from mhnet_video.restoration.scene_changes import CutDetector, Transition

T = TypeVar("T")

MAX_COPIES = 8
"""Most copies that wait together, so that a frozen picture does not wait for ever."""


@dataclass(eq=False, slots=True)
class NetworkImage:
    """What the network takes of a frame. Frames with equal samples share one, and its result."""

    frame: Frame
    """The first frame with these samples."""
    scale: float
    """Working scale of the network for it, see `WorkingScale`."""
    rgb: Tensor | None = None
    """RGB at the working scale, `[3, H, W]`; None until it has been computed."""
    looks: dict[int, Tensor] = field(default_factory=dict)
    """RGB for the looks of `DryLook`, `[3, H, W]` each, by the factor of rows."""
    glass: GlassImage = field(default_factory=GlassImage)
    """What is remembered of it for the pictures of the glass."""
    _host_frame: Frame | None = field(default=None, init=False)

    @property
    def host_frame(self) -> Frame:
        """The frame with its samples in the host's memory, downloaded once."""
        if self._host_frame is None:
            self._host_frame = on_host(self.frame)
        return self._host_frame


@dataclass(frozen=True, eq=False, slots=True)
class FrameWindow:
    """A frame to restore, and the images that the network takes for it."""

    frame: Frame
    settings: Settings
    """How it is to be restored."""
    images: list[NetworkImage | None]
    """T of them, that of `frame` in the middle; None for each neighbour where there are none."""
    seen: tuple[GlassImage, ...] = ()
    """What is remembered of further frames of the run, for networks that see the glass."""
    is_dry: bool = False
    """Whether the frame shows nothing to take out, so that it passes as it is."""

    @property
    def middle(self) -> NetworkImage:
        """The picture of the frame to restore."""
        middle = self.images[len(self.images) // 2]
        if middle is None:
            raise ValueError("expected a frame in the middle")
        return middle

    @property
    def host_frame(self) -> Frame:
        """The frame to restore, with its samples in the host's memory."""
        middle = self.middle
        return middle.host_frame if middle.frame is self.frame else on_host(self.frame)

    def is_restored_as(self, other: "FrameWindow") -> bool:
        """Whether both hold the very same images and settings."""
        is_same = self.settings == other.settings and self.seen == other.seen
        return is_same and all(map(is_, self.images, other.images))


class Neighbours(Generic[T]):
    """The windows of successive items; `window_indices` chooses them at the ends of a run.

    An item that is a copy waits with the one before, and gets the same neighbours. A copy is no
    neighbour itself: its rain, unchanged, would look like scenery.

    Args:
        frames: Items of a window, T, odd.
        furthest: Most items from one of a window to the next.
    """

    def __init__(self, frames: int, furthest: int = 1) -> None:
        self._frames = frames
        self._furthest = self._distance = furthest
        self._reach = frames // 2 * furthest
        self._span = (frames - 1) * furthest + 1
        # each item with those that repeat it
        self._held: deque[list[T]] = deque(maxlen=self._span)
        self._pushed = 0

    def set_distance(self, distance: int) -> None:
        """Have the next windows' items so far apart, at most `furthest`."""
        self._distance = min(distance, self._furthest)

    @property
    def last(self) -> T | None:
        """The item that was pushed last in this run; None if there is none."""
        return self._held[-1][-1] if self._held else None

    def push(self, item: T, transition: Transition = Transition.NEXT) -> list[list[T]]:
        """Take the next item.

        Args:
            item: What the windows are made of.
            transition: How it relates to the one before; a cut begins another run.

        Returns:
            The windows that are complete now, in the order of their middle items.
        """
        is_copy = transition is Transition.COPY and self._frames > 1 and self._held
        if is_copy and len(self._held[-1]) < MAX_COPIES:
            self._held[-1].append(item)
            return []
        windows = self.flush() if transition is Transition.CUT else []
        self._held.append([item])
        self._pushed += 1
        if self._pushed >= self._span:  # the first ones look further ahead
            first = 0 if self._pushed == self._span else self._pushed - 1 - self._reach
            windows += self._windows(first, self._pushed - self._reach)
        return windows

    def flush(self) -> list[list[T]]:
        """End the run, and return the windows that are missing."""
        begin = self._pushed - self._reach if self._pushed >= self._span else 0
        windows = self._windows(begin, self._pushed)
        self._held.clear()
        self._pushed = 0
        return windows

    def _windows(self, begin: int, end: int) -> list[list[T]]:
        """Those of some items and of the ones that repeat them."""
        first = self._pushed - len(self._held)
        windows = []
        for centre in range(begin, end):
            indices = window_indices(centre, self._pushed, self._frames, self._distance)
            groups = [self._held[index - first] for index in indices]
            middle = self._held[centre - first]
            windows += [[item if each is middle else each[0] for each in groups] for item in middle]
            del middle[1:]  # no later window needs them, and they may be large
        return windows


class WindowAssembler:
    """Makes windows of successive frames, in runs of one size, scale and scene.

    Args:
        frames: Frames of a window, T, odd.
        sees_glass: Whether the network sees what stands still on the glass: neighbours are then as
            far apart as the motion asks for.
    """

    def __init__(self, frames: int, *, sees_glass: bool = False) -> None:
        self._frames, self._sees_glass = frames, sees_glass
        self._neighbours: Neighbours[_PreparedFrame] = Neighbours(frames)
        self._last: NetworkImage | None = None
        self._memory, self._meter = GlassMemory(), MotionMeter()
        self._number = 0

    def push(
        self,
        frame: Frame,
        settings: Settings,
        transition: Transition,
        scale: float,
        *,
        is_other: bool = False,
    ) -> Iterator[FrameWindow]:
        """Take the next frame.

        A frame whose samples are those of the one before is a copy, whatever `transition` says.

        Args:
            frame: The frame; where its size as it is shown changes, another run begins.
            settings: How it is to be restored.
            transition: How it relates to the one before.
            scale: Working scale for it, above 0 to 1; where it changes, another run begins.
            is_other: Whether it is known to be no copy, which then is not looked for: on a GPU that
                waits for all samples.

        Yields:
            The windows that are complete now, in the order of their frames.
        """
        last = self._last
        if last is not None and (last.scale, last.frame.upright_size) != (
            scale,
            frame.upright_size,
        ):
            yield from self.flush()
            last = None
        if last is not None and not is_other and have_equal_samples(last.frame, frame):
            picture, transition = (
                last,
                Transition.COPY if self._neighbours.last is not None else transition,
            )
        else:
            picture = NetworkImage(frame, scale)
        seen = self._memory.images
        if self._sees_glass:
            self._see_glass(picture, transition)
        self._number += 1
        self._last = picture
        windows = self._neighbours.push(_PreparedFrame(frame, settings, picture), transition)
        self._neighbours.set_distance(self._meter.distance)
        # those that a cut completes are of the run before it
        seen = seen if transition is Transition.CUT else self._memory.images
        yield from (_window(window, seen) for window in windows)

    def _see_glass(self, picture: NetworkImage, transition: Transition) -> None:
        """Remember a frame's glass, and measure how fast the scene moves."""
        if self._neighbours.last is None:
            rows, columns = _sides(picture)
            furthest = most_distance(rows, columns, self._frames, picture.frame.num_bytes)
            self._neighbours = Neighbours(self._frames, furthest)
        if transition is Transition.CUT:
            self._memory.clear()
            self._meter.clear()
        elif transition is Transition.NEXT and self._last is not None:
            self._meter.push(self._last.frame, picture.frame, self._number)
        if transition is not Transition.COPY:
            self._memory.push(picture.glass, self._number)

    def flush(self) -> Iterator[FrameWindow]:
        """End the run, and return the windows that are missing."""
        windows, seen = self._neighbours.flush(), self._memory.images
        self._memory.clear()
        self._meter.clear()
        yield from (_window(window, seen) for window in windows)


class WindowPicker:
    """Windows of some frames of a clip, where not every frame is restored.

    Args:
        frames: Frames of a window, T, odd.
        sees_glass: As of `WindowAssembler`.
    """

    def __init__(self, frames: int, *, sees_glass: bool = False) -> None:
        self._frames, self._sees_glass = frames, sees_glass
        self._seen: list[tuple[Frame, NetworkImage]] = []
        self._memory, self._meter, self._cuts = GlassMemory(), MotionMeter(), CutDetector()
        self._first: Frame | None = None
        self._number = 0

    def window(
        self, frames: Sequence[Frame], index: int, settings: Settings, scale: float
    ) -> FrameWindow:
        """The window of one of some successive frames of one size.

        Args:
            frames: The frames.
            index: Which of them to restore.
            settings: How.
            scale: Working scale, above 0 to 1.
        """
        if self._sees_glass:
            frames, index = self._measure(frames, index, scale)
        indices = window_indices(index, len(frames), self._frames, self._distance(frames, scale))
        first = min(indices)
        seen: list[tuple[Frame, NetworkImage]] = []
        for frame in frames[first : max(indices) + 1]:
            known = (p for old, p in self._seen if old is frame and p.scale == scale)
            picture = next(known, None)
            if picture is None and seen and have_equal_samples(seen[-1][1].frame, frame):
                picture = seen[-1][1]
            seen.append((frame, picture or NetworkImage(frame, scale)))
        self._seen = seen
        pictures = window_of([seen[index - first][1] for index in indices])
        if self._sees_glass:
            self._memory.push(seen[index - first][1].glass, self._number)
            self._number += 1
        return FrameWindow(frames[index], settings, pictures, self._memory.images)

    def _distance(self, frames: Sequence[Frame], scale: float) -> int:
        if not self._sees_glass:
            return 1
        furthest = most_distance(*_sides(NetworkImage(frames[0], scale)), self._frames)
        return min(self._meter.distance, furthest)

    def _measure(
        self, frames: Sequence[Frame], index: int, scale: float
    ) -> tuple[Sequence[Frame], int]:
        """Measure how fast the scene moves; the frames that belong to that of a frame."""
        frame = frames[index]
        known = self._seen[-1][1] if self._seen else None
        is_other = known is not None and (known.scale, known.frame.upright_size) != (
            scale,
            frame.upright_size,
        )
        if self._cuts.push(frame) or is_other:
            self._memory.clear()
            self._meter.clear()
            self._first = frame
        if index:
            self._meter.push(frames[index - 1], frame, self._number)
        begin = next((i for i, each in enumerate(frames) if each is self._first), 0)
        begin = min(begin, index)
        return frames[begin:], index - begin


class _PreparedFrame(NamedTuple):
    frame: Frame
    settings: Settings
    picture: NetworkImage


def _window(items: list[_PreparedFrame], seen: tuple[GlassImage, ...]) -> FrameWindow:
    middle = items[len(items) // 2]
    pictures = window_of([item.picture for item in items])
    return FrameWindow(middle.frame, middle.settings, pictures, seen)


def _sides(picture: NetworkImage) -> tuple[int, int]:
    """About the rows and columns that the network sees of a picture."""
    width, height = picture.frame.upright_size
    return max(1, round(height * picture.scale)), max(1, round(width * picture.scale))


def have_equal_samples(a: Frame, b: Frame) -> bool:
    """Whether two frames are the same picture, sample by sample."""
    if (a.layout, a.matrix, a.full_range, a.rotation) != (
        b.layout,
        b.matrix,
        b.full_range,
        b.rotation,
    ):
        return False
    if isinstance(a, DeviceFrame) or isinstance(b, DeviceFrame):
        return (
            isinstance(a, DeviceFrame)
            and isinstance(b, DeviceFrame)
            and torch.equal(a.luma, b.luma)
            and torch.equal(a.chroma, b.chroma)
        )
    return all(map(np.array_equal, a.planes, b.planes))
