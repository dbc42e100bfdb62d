"""A second pass over smaller pictures, for drops that are larger than what the network sees.

A drop far out of focus leaves a veil of a hundred pixels: at full size the network takes out its
edge and part of the rest. In a smaller picture it is one of the drops that the network knows. So
what comes out of the first pass goes through the network once more, smaller, and the enlarged
residual takes out what was left. Streaks and small drops are gone by then.

A small picture of a sticker looks like a drop too. Therefore the second pass counts only around
what the first one takes out of the same place all the time, as it does with drops and not with
streaks; where there is nothing of that kind frames do not go through it at all.

The limits were measured with `tests/measure_coarse_pass.py`; `docs/training.md` has the table.
"""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.frame import Frame, Pair
from mhnet_video.media.frames.device_frames import on_host
from mhnet_video.model.window import is_alone
from mhnet_video.restoration.executors import Counts
from mhnet_video.restoration.frame_chain import Chain, ChainsInTurn, FrameChain
from mhnet_video.restoration.scene_changes import CutDetector
from mhnet_video.restoration.temporal_window import FrameWindow

SHRINK = 2.5
"""How many times smaller than at the working scale the pictures of the second pass are: of 2, 2.5
and 3 the best for drops far out of focus. It takes a sixth of the time of the first one."""
_LEAST_LEVELS = 2
"""Change of a sample that counts, in levels of 8 bits: what the glass reflects changes by less."""
_MEMORY = 8
"""Frames of which is known where each was changed."""
_STANDING = 7
"""In so many of these a pixel that stands still was changed."""
_STANDS = np.array([bits.bit_count() >= _STANDING for bits in range(1 << _MEMORY)])
"""The same by the bits of `StandingChange`."""
_CELLS = 60
"""Cells of the coarse map along the shorter side of the picture."""
_REACH = 4
"""Cells around one whose changes count."""
_LEAST_SHARE, _WHOLE_SHARE = 0.01, 0.2
"""Shares of the pixels around a cell whose change stands still: up to the first the second pass
does not count, from the other on it counts as a whole."""


class StandingChange:
    """Where the first pass takes something out of the same place all the time."""

    def __init__(self) -> None:
        self._changed: NDArray[np.uint8] | None = None
        """A bit for each of the latest frames, by pixel: whether it was changed."""
        self._cuts = CutDetector()
        self.frames = 0
        """Frames of this scene so far."""

    def push(self, source: Frame, restored: Frame) -> Tensor | None:
        """Take the next frame.

        Args:
            source: As it came.
            restored: What the first pass has made of it, of the same layout.

        Returns:
            How much the second pass counts, `[1, 1, rows, columns]` in [0, 1], coarse; None where
            it counts nowhere.
        """
        first, second = (frame.planes[0].astype(np.int32) for frame in (source, restored))
        has_changed = np.abs(first - second) >= _LEAST_LEVELS << (source.layout.bits - 8)
        is_cut = self._cuts.push(source)
        if is_cut or self._changed is None or self._changed.shape != has_changed.shape:
            self._changed, self.frames = np.zeros(has_changed.shape, np.uint8), 0
        self.frames += 1
        self._changed = (self._changed << 1) | has_changed
        stands = torch.from_numpy(_STANDS[self._changed].astype(np.float32))[None, None]
        cell = max(1, round(min(stands.shape[2:]) / _CELLS))
        cells = F.avg_pool2d(stands, cell, ceil_mode=True)
        around = F.avg_pool2d(cells, 2 * _REACH + 1, 1, _REACH, count_include_pad=False)
        weight = ((around - _LEAST_SHARE) / (_WHOLE_SHARE - _LEAST_SHARE)).clamp(0, 1)
        return weight if bool(weight.any()) else None


@dataclass(eq=False)
class _Noted:
    """A frame between the passes, and how much the second one counts."""

    frame: Frame
    weight: Tensor | None


class StandingDrops:
    """What stands between both passes: where the second one counts, frame by frame."""

    def __init__(self) -> None:
        self._change = StandingChange()
        self._noted: deque[_Noted] = deque()
        self._first: list[_Noted] = []
        """The first frames of a scene, of which nothing can be said yet."""

    def note(self, pair: Pair) -> None:
        """Take the next pair of the first pass."""
        weight = self._change.push(on_host(pair.source), on_host(pair.restored))
        noted = _Noted(pair.restored, weight)
        self._noted.append(noted)
        if self._change.frames == 1:
            self._first = []
        if self._change.frames < _STANDING:
            self._first.append(noted)
        elif self._first:  # what stands by now has stood since then
            for each in self._first:
                each.weight = weight
            self._first = []

    def marked(self, window: FrameWindow) -> FrameWindow:
        """The next window of the second pass, marked as dry where it counts nowhere.

        It does not where a frame has no neighbours: the self-ensemble has seen that smaller.
        """
        weight = next(each.weight for each in self._noted if each.frame is window.frame)
        if weight is None or is_alone(window.images):
            return replace(window, is_dry=True)
        return window

    def of_both(self, first: Frame, second: Frame) -> Frame:
        """A frame restored by both passes.

        Args:
            first: As the first pass has left it. Those that were noted before it are forgotten.
            second: As the second one has made it of that.
        """
        noted = self._noted.popleft()
        while noted.frame is not first:
            noted = self._noted.popleft()
        # a copy of the frame before was restored as that was, whatever its own weight is
        return first if noted.weight is None else _blended(first, second, noted.weight)


def _blended(first: Frame, second: Frame, weight: Tensor) -> Frame:
    """The first frame where the weight is 0, the second one where it is 1."""
    first = on_host(first)
    planes = []
    for before, after in zip(first.planes, second.planes, strict=True):
        if before is after or np.array_equal(before, after):  # such as alpha
            planes.append(before)
            continue
        share = F.interpolate(weight, before.shape, mode="bilinear")[0, 0].numpy()
        change = share * (after.astype(np.float32) - before)
        planes.append(np.rint(before + change).astype(before.dtype))
    return replace(first, planes=tuple(planes))


class CoarseAfter(ChainsInTurn):
    """The way of frames through both passes.

    Args:
        first: The first one.
        second: The one over smaller pictures, whose look is `drops`.
        drops: Of this clip.
    """

    def __init__(self, first: Chain, second: FrameChain, drops: StandingDrops) -> None:
        super().__init__(first, second)
        self._drops = drops

    @property
    def counts(self) -> Counts:
        """The statistics of the first pass: what the second one leaves is restored already."""
        return self._first.counts

    def _note(self, first: Pair) -> None:
        self._drops.note(first)

    def _of_both(self, first: Pair, second: Pair) -> Pair:
        return Pair(first.source, self._drops.of_both(first.restored, second.restored))
