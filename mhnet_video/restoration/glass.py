"""What stands still on the glass before the camera, and how far apart frames are to see past it.

A drop stays where it is in the picture while the scene moves. So a network that takes out drops
sees two more pictures, the mean of many frames as they are and their mean difference from the one
to restore (`glass_statistics`), and neighbours so far apart that the scene has moved by more than a
drop in between.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.frame import DeviceFrame, Frame
from mhnet_video.model.align import estimate
from mhnet_video.model.window import DIFFERENCE_GAIN, glass_statistics
from mhnet_video.restoration.resize import opencv

MEMORY_FRAMES = 8
"""Frames of a run, besides those of the window, from which the pictures of the glass are made. In
training there are up to 12; each takes a third of a millisecond at 640x480."""
MEMORY_STEP = 6
"""One frame of so many is remembered."""
_BLOCK_ROWS = 64
"""Rows of all frames that are summed at a time, so that they stay in a processor's cache."""
MOST_DISTANCE = 10
"""Most frames from one neighbour to the next, as in training."""
LIVE_DISTANCE = 6
"""The same in live mode, where all neighbours are frames of before."""
MOST_WINDOW_BYTES = 600 << 20
"""Bytes of float32 RGB that the frames from the first to the last neighbour may take; in larger
pictures the neighbours are less far apart."""
WANTED_MOTION = 0.01
"""How far half of the scene is to move from one neighbour to the next, in widths of the picture:
about a drop. What is near moves by several times as much."""
LEAST_MOTION = 1e-4
"""Motion from frame to frame, in widths, below which the camera stands still."""
DISTANCE_AT_REST = 4
"""Frames from one neighbour to the next where the camera stands still: nothing is seen past a drop
then, and things that move by themselves are not to be far away."""
MEASURED_STEP = 8
"""Motion is measured at one frame of so many, as it changes slowly."""
MEASURED_COLUMNS = 160
"""Columns of the pictures on which it is measured."""
_MEASURED = 3
"""Measurements whose median tells."""


@dataclass(eq=False, slots=True)
class GlassImage:
    """What is remembered of a frame, or of several with equal samples, for the glass."""

    levels: Tensor | None = None
    """8-bit RGB as large as the network sees it, `[3, H, W]` uint8; None until it is needed."""

    def remember(self, rgb: Tensor) -> None:
        """Take the frame's RGB, `[3, H, W]` float32 in [0, 1]."""
        if self.levels is None:
            self.levels = _levels(rgb)


class GlassMemory:
    """The frames of a run that are remembered for the pictures of the glass."""

    def __init__(self) -> None:
        self._images: deque[GlassImage] = deque(maxlen=MEMORY_FRAMES)
        self._pushed = 0

    @property
    def images(self) -> tuple[GlassImage, ...]:
        """Those that are remembered, the oldest first."""
        return tuple(self._images)

    def push(self, image: GlassImage) -> None:
        """Take the next frame of the run; one of `MEMORY_STEP` is remembered."""
        if self._pushed % MEMORY_STEP == 0:
            self._images.append(image)
        self._pushed += 1

    def clear(self) -> None:
        """Begin another run: after a cut the glass may be another one."""
        self._images.clear()
        self._pushed = 0


def pictures_of_glass(rgb: Tensor, seen: Sequence[GlassImage]) -> tuple[Tensor, Tensor]:
    """The two pictures of `glass_statistics`, of frames that are kept as 8-bit levels.

    Args:
        rgb: The frame to restore, `[3, H, W]` float32, RGB in [0, 1].
        seen: The others, and the frame itself, of that size and on that device.

    Returns:
        The mean, and the mean difference, `[3, H, W]` float32 each.
    """
    levels = [each.levels for each in seen if each.levels is not None]
    cv2 = opencv() if rgb.device.type == "cpu" else None
    if cv2 is None:
        mean, difference = glass_statistics(torch.stack(levels).float() / 255, rgb)
        return mean, difference
    middle = _levels(rgb).flatten(0, 1).numpy()
    planes = [each.flatten(0, 1).numpy() for each in levels]
    mean, difference = torch.empty_like(rgb), torch.empty_like(rgb)
    means, differences = (each.view(middle.shape).numpy() for each in (mean, difference))
    share = 1 / (255 * len(levels))
    for top in range(0, len(middle), _BLOCK_ROWS):
        rows = slice(top, top + _BLOCK_ROWS)
        sums = np.zeros((2, *middle[rows].shape), np.float32)
        for plane in planes:
            cv2.accumulate(plane[rows], sums[0])
            cv2.accumulate(cv2.absdiff(plane[rows], middle[rows]), sums[1])
        np.multiply(sums[0], share, out=means[rows])
        np.multiply(sums[1], DIFFERENCE_GAIN * share, out=differences[rows])
    return mean, difference


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
        self._pushed = 0

    def push(self, before: Frame, frame: Frame) -> None:
        """Take the next frame of a run, and the one before it."""
        if self._pushed % MEASURED_STEP == 0:
            self._speeds.append(_speed(_coarse(frame), _coarse(before)))
        self._pushed += 1

    def clear(self) -> None:
        """Begin another run."""
        self._speeds.clear()
        self._pushed = 0

    @property
    def distance(self) -> int:
        """Frames from one neighbour to the next, 1 to `MOST_DISTANCE`."""
        if not self._speeds:
            return DISTANCE_AT_REST
        speed = median(self._speeds)
        if speed < LEAST_MOTION:
            return DISTANCE_AT_REST
        return min(MOST_DISTANCE, max(1, round(WANTED_MOTION / speed)))


def most_distance(height: int, width: int, frames: int) -> int:
    """Most frames from one neighbour to the next in pictures of a size.

    Args:
        height: Rows as the network sees them.
        width: Columns likewise.
        frames: Frames of a window, T.
    """
    held = MOST_WINDOW_BYTES // (12 * height * width)
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
