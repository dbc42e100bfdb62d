"""The working scale of the network for a scene: smaller where the picture is softer than its size.

Much footage of 1080 rows is as soft as if it had been enlarged. Its streaks are wide then, and the
network, which knows streaks of a few pixels, does better on a smaller picture, in less time. On a
sharp picture it does worse. What tells both apart is how far the spectrum falls off. Fine streaks
before a soft scene keep it up, as any fine texture does.

The limits were measured with `tests/measure_scales.py`; `docs/training.md` has the table.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.frame import Frame
from mhnet_video.restoration.resize import shrunk

MOST_ROWS = 1200
"""Length of a picture's shorter side, in pixels, above which a CPU restores it at a scale below
1."""
WORKING_ROWS = 1080
"""Shorter side of these pictures at the working scale, in pixels. At 3840x2160 it takes a quarter
of the time, and streaks have the size that the network knows from training."""
LEAST_ROWS = 480
"""Shorter side of a picture, in pixels, from which on its sharpness is measured."""
ENLARGED_ROWS = 400
"""Shorter side that smaller pictures are enlarged to where a network takes out motion blur, in
pixels. In them blur is a few pixels wide, which are few blocks of the network."""
MOST_ENLARGED = 1.75
"""Largest scale of these pictures. At 2 sharp ones change."""
SOFT_SCALES = ((0.348, 0.75), (0.313, 0.5))
"""Sharpness up to which a picture is soft, and the scale for it. At 0.375 no picture gained."""

_TILE = 64
"""Side in pixels of the tiles whose spectra are taken."""
_COARSE = slice(4, 7)
"""Frequencies that any picture with contrast has, in periods a tile."""
_FALL = 18.0
"""How much less power a frequency has where detail ends, in decibels: compared with the coarse
ones, and smoothed over three. Sharp pictures of nature lose 8 to 14 up to their finest."""
_TEXTURE = slice(3, 9)
"""Frequencies by whose power the tiles are chosen, in periods a tile."""
_MOST_TILES = 128
"""About the number of tiles, spread over the picture."""
_TILES_SHARE = 0.25
"""Share of the tiles that count: sky and asphalt say nothing about sharpness."""
_LEAST_POWER = 1e-3
"""Added to powers, in squared levels of 8 bits, so that a black picture is not soft."""
_MARGIN = 0.01
"""Sharpness beyond a limit that a scene needs for another scale than the one before had."""
_SHARPER = 0.05
"""Sharpness beyond a limit from which on a part of a clip is not of the scene that it should be."""
_LOOKS = 3
"""Frames of a scene that are looked at, at most; the sharpest counts."""


class ScaleReason(Enum):
    """Why a working scale is what it is."""

    SET = "set"
    """It was asked for."""
    FULL = "full size"
    """Nothing speaks for a smaller one."""
    LARGE = "large picture"
    """The picture has more rows than a CPU restores at full scale."""
    SOFT = "soft picture"
    """The picture is softer than its size."""
    SMALL = "small picture"
    """The picture has so few rows that a network for motion blur does better on a larger one."""


class WorkingScale(NamedTuple):
    """A working scale, and why."""

    scale: float
    """Above 0 to 1; of small pictures with motion blur up to `MOST_ENLARGED`."""
    reason: ScaleReason


def scale_by_size(
    scale: float | None, height: int, width: int, device: torch.device, *, enlarges: bool = False
) -> WorkingScale:
    """Working scale for pictures of a size, the largest that is ever chosen for them.

    Args:
        scale: Requested scale; None to choose it.
        height: Rows of the picture.
        width: Columns of the picture.
        device: Device of the network.
        enlarges: Whether small pictures are enlarged, for a network that takes out motion blur.
    """
    if scale is not None:
        return WorkingScale(scale, ScaleReason.SET)
    rows = min(height, width)
    if enlarges and rows < ENLARGED_ROWS:
        return WorkingScale(min(ENLARGED_ROWS / rows, MOST_ENLARGED), ScaleReason.SMALL)
    if device.type == "cpu" and rows > MOST_ROWS:
        return WorkingScale(WORKING_ROWS / rows, ScaleReason.LARGE)
    return WorkingScale(1.0, ScaleReason.FULL)


class ScaleChooser:
    """Chooses the working scale of each scene of a clip, once for each.

    Args:
        device: Device of the network; only a CPU gains from a smaller scale.
        measures: Whether the sharpness counts, and not the size alone.
        scene_scale: How much smaller than by their size the pictures of the scene are restored in
            which a part of a clip begins, above 0 to 1. Another scene, which is much sharper, gets
            its own scale. None where a clip begins with a scene.
        enlarges: See `scale_by_size`.
        shrink: How many times smaller than that the pictures are to be, from 1 on.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        measures: bool = True,
        scene_scale: float | None = None,
        enlarges: bool = False,
        shrink: float = 1.0,
    ) -> None:
        self._device = device
        self._shrink = shrink
        self._enlarges = enlarges
        self._scene_scale = scene_scale
        self._measures = measures and device.type == "cpu"
        self._size: tuple[int, int] | None = None
        self._factor: float | None = None
        self._chosen = WorkingScale(1.0, ScaleReason.FULL)

    def choose(
        self, frames: Sequence[Frame], requested: float | None, *, is_cut: bool
    ) -> WorkingScale:
        """The working scale for the next frame.

        Args:
            frames: The frame, and those of the same scene after it that are known.
            requested: The only scale; None to choose it.
            is_cut: Whether the frame begins another scene, as one of another size does too.
        """
        chosen = self._choose(frames, requested, is_cut=is_cut)
        return chosen if self._shrink == 1 else chosen._replace(scale=chosen.scale / self._shrink)

    def _choose(
        self, frames: Sequence[Frame], requested: float | None, *, is_cut: bool
    ) -> WorkingScale:
        size = frames[0].upright_size
        by_size = scale_by_size(requested, size[1], size[0], self._device, enlarges=self._enlarges)
        if requested is not None or not self._measures:
            return by_size
        if is_cut or size != self._size:
            self._factor = self._measured(frames, by_size.scale, is_cut=is_cut)
            is_soft = self._factor < 1
            scale = by_size.scale * self._factor
            self._chosen = WorkingScale(scale, ScaleReason.SOFT) if is_soft else by_size
        self._size = size
        return self._chosen

    @property
    def scene_scale(self) -> float:
        """How much smaller than by their size the scene's pictures are restored, above 0 to 1."""
        return 1.0 if self._factor is None else self._factor

    def _measured(self, frames: Sequence[Frame], scale: float, *, is_cut: bool) -> float:
        """How much smaller a scene's pictures may become than by their size, above 0 to 1."""
        if scale * min(frames[0].upright_size) < LEAST_ROWS:
            return 1.0
        chosen = frames[:: max(1, -(-len(frames) // _LOOKS))]
        sharpest = max(sharpness(luma_of(frame, scale)) for frame in chosen)
        if self._factor is None and self._scene_scale is not None and not is_cut:
            return max(self._scene_scale, soft_scale(sharpest - _SHARPER))
        return soft_scale(sharpest, self._factor)


def soft_scale(sharpness: float, before: float | None = None) -> float:
    """How much smaller a picture may become, above 0 to 1.

    Args:
        sharpness: The picture's, 0 to 1.
        before: Result for the scene before; None if there is none.
    """
    for limit, scale in reversed(SOFT_SCALES):
        margin = 0.0 if before is None else _MARGIN if before <= scale else -_MARGIN
        if sharpness <= limit + margin:
            return scale
    return 1.0


@torch.inference_mode()
def sharpness(luma: Tensor) -> float:
    """Frequency up to which a picture has detail, as a share of the highest, 0 to 1.

    A sharp picture has 0.5 and more; after enlargement to three times its size it has 0.3.

    Args:
        luma: `[H, W]`, levels of 8 bits, both sides at least 64.
    """
    height, width = (side // _TILE * _TILE for side in luma.shape)
    tiles = luma[:height, :width].unfold(0, _TILE, _TILE).unfold(1, _TILE, _TILE)
    tiles = tiles.flatten(0, 1)
    tiles = tiles[:: max(1, len(tiles) // _MOST_TILES)]
    window = torch.hann_window(_TILE, periodic=False)
    tiles = (tiles - tiles.mean((1, 2), keepdim=True)) * (window[:, None] * window)
    power = torch.fft.rfft2(tiles).abs().square() / window.square().sum() ** 2
    rows = torch.fft.fftfreq(_TILE).abs()[:, None] * _TILE
    columns = torch.arange(_TILE // 2 + 1)
    rings = F.one_hot(torch.maximum(rows, columns).long().flatten()).float()
    powers = power.flatten(1) @ (rings / rings.sum(0))
    count = max(1, round(_TILES_SHARE * len(powers)))
    best = powers[powers[:, _TEXTURE].sum(1).topk(count).indices].mean(0)
    levels = 10 * torch.log10(best + _LEAST_POWER)
    smooth = F.avg_pool1d(levels[None], 3, 1)[0]  # from the frequency 1 on
    above = (smooth - levels[_COARSE].mean() + _FALL).tolist()
    for end in range(_COARSE.stop, len(above)):
        if above[end] < 0:
            before = max(0.0, above[end - 1])
            # between the frequencies `end` and `end` + 1
            return (end + before / (before - above[end])) / (_TILE // 2)
    return 1.0


def luma_of(frame: Frame, scale: float) -> Tensor:
    """The first plane of a frame on the host at a scale, `[H, W]` float32, in levels of 8 bits."""
    plane = torch.from_numpy(frame.planes[0].astype(np.float32))
    plane /= 1 << (frame.layout.bits - 8)
    if scale == 1:
        return plane
    height, width = (max(1, round(side * scale)) for side in plane.shape)
    return shrunk(plane[None], height, width)[0]
