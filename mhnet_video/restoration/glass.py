"""What stands still on the glass before the camera, and how far apart frames are to see past it.

A drop stays where it is in the picture while the scene moves. So a network that takes out drops
sees two more pictures, the mean of many frames as they are and their mean difference from the one
to restore (`glass_statistics`), and neighbours so far apart that the scene has moved by more than a
drop in between.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.frame import DeviceFrame, Frame
from mhnet_video.model.align import estimate
from mhnet_video.model.window import DIFFERENCE_GAIN, glass_statistics
from mhnet_video.restoration.host_kernels import HostKernel, compiled
from mhnet_video.restoration.resize import opencv

MEMORY_FRAMES = 8
"""Frames of a run, besides those of the window, from which the pictures of the glass are made. In
training there are up to 12."""
MEMORY_STEP = 6
"""One frame of so many is remembered."""
MOST_DISTANCE = 10
"""Most frames from one neighbour to the next, as in training."""
LIVE_DISTANCE = 6
"""The same in live mode, where all neighbours are frames of before."""
MOST_WINDOW_BYTES = 600 << 20
"""Bytes that the frames from the first to the last neighbour may take, as float32 RGB or as they
came and are restored; in larger pictures the neighbours are less far apart."""
WANTED_MOTION = 0.01
"""How far half of the scene is to move from one neighbour to the next, in widths of the picture:
about a drop. What is near moves by several times as much."""
LEAST_MOTION = 1e-4
"""Motion from frame to frame, in widths, below which the camera stands still."""
DISTANCE_AT_REST = 4
"""Frames from one neighbour to the next where the camera stands still: nothing is seen past a drop
then, and things that move by themselves are not to be far away."""
MEASURED_STEP = 24
"""Motion is measured at one frame of so many, as it changes slowly: a measurement takes half of
the time that the network takes for a frame of 640x480."""
MEASURED_COLUMNS = 160
"""Columns of the pictures on which it is measured."""
_MEASURED = 3
"""Measurements whose median tells."""
GLASS_PERIOD = math.lcm(MEMORY_STEP, MEASURED_STEP)
"""Which frames are remembered and measured repeats after so many."""
_PASSES = 2
"""Passes that frames go through in turn, each with a memory of its own."""
GLASS_LEAD = MEASURED_STEP * (_PASSES * _MEASURED + 2)
"""Frames before one that decide about it: those that each pass measures, and then as many as the
temporal filter's memory takes to fade. It is a multiple of `GLASS_PERIOD`."""
GLASS_LEAST_DIFFERENT = MEASURED_STEP * _PASSES * _MEASURED
"""Frames among these that must differ from the one before."""


@dataclass(eq=False, slots=True)
class GlassImage:
    """What is remembered of a frame, or of several with equal samples, for the glass."""

    levels: Tensor | None = None
    """8-bit RGB as large as the network sees it, `[3, H, W]` uint8; None until it is needed."""

    def remember(self, rgb: Tensor) -> None:
        """Take the frame's RGB, `[3, H, W]` float32 in [0, 1]."""
        if self.levels is None:
            self.levels = _levels(rgb)


class _Due:
    """Chooses the first frame of every so many, counted from a clip's beginning.

    They are the same ones where only a part of the clip is restored.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._last: int | None = None

    def at(self, number: int) -> bool:
        """Whether a frame is the first one."""
        before, self._last = self._last, number // self._step
        return self._last != before

    def clear(self) -> None:
        """Choose the next frame, whatever its number."""
        self._last = None


class GlassMemory:
    """The frames of a run that are remembered for the pictures of the glass."""

    def __init__(self) -> None:
        self._images: deque[GlassImage] = deque(maxlen=MEMORY_FRAMES)
        self._due = _Due(MEMORY_STEP)

    @property
    def images(self) -> tuple[GlassImage, ...]:
        """Those that are remembered, the oldest first."""
        return tuple(self._images)

    def push(self, image: GlassImage, number: int) -> None:
        """Take the next frame of the run; one of `MEMORY_STEP` is remembered.

        Args:
            image: The frame.
            number: Its number in the clip, that of copies before it included.
        """
        if self._due.at(number):
            self._images.append(image)

    def clear(self) -> None:
        """Begin another run: after a cut the glass may be another one."""
        self._images.clear()
        self._due.clear()


def pictures_of_glass(middle: GlassImage, seen: Sequence[GlassImage]) -> tuple[Tensor, Tensor]:
    """The two pictures of `glass_statistics`, of frames that are kept as 8-bit levels.

    Args:
        middle: The frame to restore, which is remembered.
        seen: That one and others of its size and on its device; those that nobody has remembered
            yet are left out.

    Returns:
        The mean, and the mean difference, `[3, H, W]` float32 each.
    """
    fixed = middle.levels
    assert fixed is not None
    levels = [each.levels for each in seen if each.levels is not None]
    kernel = _kernel() if fixed.device.type == "cpu" else None
    if kernel is None or fixed.numel() < kernel.least or len(levels) > kernel.most:
        mean, difference = glass_statistics(torch.stack(levels).float() / 255, fixed.float() / 255)
        return mean, difference
    mean, difference = (torch.empty(fixed.shape) for _ in range(2))
    offsets = np.array([each.data_ptr() - fixed.data_ptr() for each in levels], np.int64)
    share = 1 / (255 * len(levels))
    shares = np.array([share, DIFFERENCE_GAIN * share], np.float32)
    kernel.function(
        middle=fixed.data_ptr(),
        offsets=offsets.ctypes.data,
        count=len(levels),
        shares=shares.ctypes.data,
        mean=mean.data_ptr(),
        difference=difference.data_ptr(),
        samples=fixed.numel(),
    )
    return mean, difference


class _Kernel(NamedTuple):
    """The kernel of both pictures."""

    function: HostKernel
    least: int
    """Fewest samples of a frame, `3 * H * W`."""
    most: int
    """Most frames."""


@cache
def _kernel() -> _Kernel | None:
    """The kernel; None where there is none for this processor."""
    found = compiled(_makers)
    if found is None:
        return None
    from mhnet_video.kernels.llvm_glass import MOST_IMAGES, step_samples

    return _Kernel(found.kernels[0], step_samples(found.lanes), MOST_IMAGES)


def _makers() -> Sequence[Callable[..., Any]]:
    from mhnet_video.kernels import llvm_glass

    return (llvm_glass.glass_statistics,)


def _levels(rgb: Tensor) -> Tensor:
    """RGB in [0, 1] as 8-bit levels."""
    cv2 = opencv() if rgb.device.type == "cpu" else None
    if cv2 is None:
        return (rgb * 255).round_().to(torch.uint8)
    levels = torch.empty(rgb.shape, dtype=torch.uint8)
    rows = rgb.shape[0] * rgb.shape[1]
    cv2.convertScaleAbs(rgb.reshape(rows, -1).numpy(), levels.view(rows, -1).numpy(), 255)
    return levels


class MotionMeter:
    """Chooses how far apart neighbours are by how fast the scene moves.

    What counts is the motion that half of the picture exceeds, from one frame to the next: before a
    car that drives straight on there is none that all of it shares, and cars that pass a fixed
    camera do not count. Drops hold it back by up to a third.
    """

    def __init__(self) -> None:
        self._speeds: deque[float] = deque(maxlen=_MEASURED)
        self._due = _Due(MEASURED_STEP)

    def push(self, before: Frame, frame: Frame, number: int) -> None:
        """Take the next frame of a run, the one before it, and its number in the clip."""
        if self._due.at(number):
            self._speeds.append(_speed(_coarse(frame), _coarse(before)))

    def clear(self) -> None:
        """Begin another run."""
        self._speeds.clear()
        self._due.clear()

    @property
    def distance(self) -> int:
        """Frames from one neighbour to the next, 1 to `MOST_DISTANCE`."""
        if not self._speeds:
            return DISTANCE_AT_REST
        speed = median(self._speeds)
        if speed < LEAST_MOTION:
            return DISTANCE_AT_REST
        return min(MOST_DISTANCE, max(1, round(WANTED_MOTION / speed)))


def most_distance(height: int, width: int, frames: int, frame_bytes: int = 0) -> int:
    """Most frames from one neighbour to the next in pictures of a size.

    Args:
        height: Rows as the network sees them.
        width: Columns likewise.
        frames: Frames of a window, T.
        frame_bytes: Size of a frame's planes, in bytes.
    """
    held = MOST_WINDOW_BYTES // max(12 * height * width, 2 * frame_bytes)
    return min(MOST_DISTANCE, max(1, (held - 1) // max(1, frames - 1)))


def _coarse(frame: Frame) -> Tensor:
    """The first plane of a frame, shrunk, `[1, h, w]` in about [0, 1]."""
    bits = frame.layout.bits
    if isinstance(frame, DeviceFrame):
        plane, bits = torch.as_tensor(frame.luma).int() & 0xFFFF, bits + frame.bits_down
    else:
        plane = torch.from_numpy(frame.planes[0].astype(np.int32))
    factor = max(1, plane.shape[1] // MEASURED_COLUMNS)
    small = F.avg_pool2d(plane[None].float(), factor, ceil_mode=True)
    return small / (2**bits - 1)


def _speed(middle: Tensor, neighbour: Tensor) -> float:
    """How far half of the picture has moved at least, in widths."""
    if middle.shape != neighbour.shape or min(middle.shape[1:]) < 2:
        return 0.0
    motion = estimate(middle, neighbour[:, None], moves_all=True)
    return float(motion[0, 0].norm(dim=0).median()) / middle.shape[-1]
