"""PSNR, SSIM and flicker of 8-bit pictures, on Y and on RGB, as deraining papers report them.

Y is that of Matlab's `rgb2ycbcr`: BT.601, 16 to 235, rounded to 8 bits. SSIM is the original
one: an 11x11 Gaussian window of sigma 1.5, without padding and without downsampling.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""`[H, W]` or `[H, W, 3]` (RGB), 0 to 255."""

_MEDIAN_FRAMES = 7
"""Frames of the temporal median."""
_REST_LEVELS = 4
"""Change of the temporal median, in levels of Y, below which a pixel counts as static."""
_WINDOW_SIZE = 11
"""Side of SSIM's window, in pixels."""
_SIGMA = 1.5
"""Standard deviation of SSIM's Gaussian window, in pixels."""
_PEAK = 255.0
"""Largest value of 8-bit samples."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics of a picture against its clean reference; PSNR and SSIM are better if higher."""

    psnr_y: float
    """PSNR of Y, in dB; infinite for equal pictures."""
    ssim_y: float
    """SSIM of Y, at most 1."""
    psnr_rgb: float
    """PSNR of RGB, in dB; infinite for equal pictures."""
    ssim_rgb: float
    """Mean SSIM of the three channels, at most 1."""
    flicker: float | None = None
    """Flicker in levels of Y, better if lower; None for pictures and for a clip's first frame."""
    psnr_inside: float | None = None
    """PSNR of Y inside of a mask, in dB; None without a mask, and where nothing is inside."""
    psnr_outside: float | None = None
    """The same outside of it."""


def score(picture: Image, clean: Image, mask: NDArray[np.bool_] | None = None) -> Scores:
    """Compute PSNR and SSIM of a picture against its clean reference.

    Args:
        picture: RGB, `[H, W, 3]` uint8.
        clean: The clean reference, of the same shape.
        mask: Pixels whose PSNR, and that of all others, is computed too, `[H, W]`; None for none.

    Raises:
        ValueError: The shapes differ, or are smaller than SSIM's window of 11x11 pixels.
    """
    y, clean_y = luma(picture), luma(clean)
    inside = outside = None
    if mask is not None:
        if mask.shape != y.shape:
            raise ValueError(f"expected a mask of {_size(y)} pixels, got {_size(mask)}")
        inside, outside = (
            psnr(y[part], clean_y[part]) if part.any() else None for part in (mask, ~mask)
        )
    return Scores(
        psnr_inside=inside,
        psnr_outside=outside,
        psnr_y=psnr(y, clean_y),
        ssim_y=ssim(y, clean_y),
        psnr_rgb=psnr(picture, clean),
        ssim_rgb=ssim(picture, clean),
    )


def flicker(before: Image, clean_before: Image, after: Image, clean_after: Image) -> float:
    """Mean absolute change of the error from one frame to the next.

    The error is the difference from the clean reference, which moves as the clip does. So neither
    scene motion nor camera motion counts.

    Args:
        before: Y of a frame, `[H, W]`.
        clean_before: Y of its clean reference.
        after: Y of the next frame.
        clean_after: Y of its clean reference.

    Returns:
        Flicker in levels of 8 bits; 0 where the error does not change.
    """
    change = after.astype(np.int16) - clean_after - (before.astype(np.int16) - clean_before)
    return float(np.abs(change).mean())


class Flicker:
    """Frame-to-frame change of a fixed camera's clip, in the static parts of the scene.

    A streak covers a pixel for too short a time to change its temporal median. So a constant
    median marks a static pixel, and samples brighter than the median may be rain. Clipped to the
    median, a clip keeps its noise and its ripples; the median itself has neither.

    Args:
        versions: Number of versions of the clip to compare; the first one defines what is static.
    """

    def __init__(self, versions: int) -> None:
        self._seen: deque[Sequence[Image]] = deque(maxlen=_MEDIAN_FRAMES + 1)
        self._median: Image | None = None
        self._totals = np.zeros(versions + 2)
        self._pixels = self._static = 0

    def push(self, lumas: Sequence[Image]) -> None:
        """Add the next frame: its Y, `[H, W]`, in each version."""
        seen = self._seen
        if seen and seen[-1][0].shape != lumas[0].shape:
            seen.clear()
            self._median = None
        seen.append(lumas)
        half = _MEDIAN_FRAMES // 2
        if len(seen) < _MEDIAN_FRAMES:
            return
        first = [each[0] for each in seen][-_MEDIAN_FRAMES:]
        before, self._median = self._median, np.partition(first, half, 0)[half]
        if before is None:
            return
        change = _change(before, self._median)
        is_static = change < _REST_LEVELS
        pair = seen[half], seen[half + 1]
        changes = [_change(*each) for each in zip(*pair, strict=True)]
        # rain only brightens
        clipped = np.minimum(pair[0][0], before), np.minimum(pair[1][0], self._median)
        changes += [_change(*clipped), change]
        self._totals += [each[is_static].sum() for each in changes]
        self._pixels += change.size
        self._static += int(is_static.sum())

    @property
    def share(self) -> float:
        """Static share of the clip's pixels, 0 to 1; 0 for fewer than eight frames."""
        return self._static / self._pixels if self._pixels else 0.0

    @property
    def levels(self) -> tuple[float, ...]:
        """Mean absolute change of static pixels, in levels of Y; NaN if there are none.

        One entry for each version, one for the first version clipped to its median, and one for
        that median.
        """
        if not self._static:
            return (math.nan,) * len(self._totals)
        return tuple(float(total) / self._static for total in self._totals)


def _change(before: Image, after: Image) -> NDArray[np.int16]:
    return np.abs(after.astype(np.int16) - before)


def luma(picture: Image) -> Image:
    """Convert RGB to Y: `[H, W, 3]` to `[H, W]`, 16 to 235.

    Source: ITU-R BT.601, scaled and rounded as in Matlab's `rgb2ycbcr`.

    Raises:
        ValueError: The picture is not `[H, W, 3]`.
    """
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected a picture [H, W, 3], got {list(picture.shape)}")
    y = picture @ (np.array([65.481, 128.553, 24.966]) / _PEAK) + 16
    return np.rint(y).astype(np.uint8)


def psnr(picture: Image, clean: Image) -> float:
    """Peak signal-to-noise ratio in dB, over all channels; infinite for equal pictures.

    Raises:
        ValueError: The pictures differ in shape, or are not uint8.
    """
    _check(picture, clean)
    error = picture.astype(np.float64) - clean
    mean_square = float(np.mean(error * error))
    return float(10 * np.log10(_PEAK**2 / mean_square)) if mean_square else float("inf")


def ssim(picture: Image, clean: Image) -> float:
    """Structural similarity, averaged over windows and channels, at most 1.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", 2004, equations 13 to 17, with K1 = 0.01 and K2 = 0.03.

    Raises:
        ValueError: The pictures differ in shape, are not uint8, or are smaller than 11x11 pixels.
    """
    _check(picture, clean)
    if min(picture.shape[:2]) < _WINDOW_SIZE:
        raise ValueError(
            f"SSIM needs at least {_WINDOW_SIZE}x{_WINDOW_SIZE} pixels, got {_size(picture)}"
        )
    x, y = picture.astype(np.float64), clean.astype(np.float64)
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(similarity.mean())


def mean_scores(scores: list[Scores]) -> Scores:
    """Average each metric over several pictures.

    Pictures equal to their reference have an infinite PSNR, and are left out of its mean. Pictures
    without flicker are left out of that of the flicker, and pictures of which nothing is inside of
    a mask, or nothing outside, of the mean of that PSNR.
    """
    flickers = [s.flicker for s in scores if s.flicker is not None]
    inside = [s.psnr_inside for s in scores if s.psnr_inside is not None]
    outside = [s.psnr_outside for s in scores if s.psnr_outside is not None]
    return Scores(
        psnr_inside=_finite_mean(inside) if inside else None,
        psnr_outside=_finite_mean(outside) if outside else None,
        psnr_y=_finite_mean([s.psnr_y for s in scores]),
        ssim_y=float(np.mean([s.ssim_y for s in scores])),
        psnr_rgb=_finite_mean([s.psnr_rgb for s in scores]),
        ssim_rgb=float(np.mean([s.ssim_rgb for s in scores])),
        flicker=float(np.mean(flickers)) if flickers else None,
    )


def _finite_mean(values: list[float]) -> float:
    finite = [value for value in values if value != math.inf]
    return float(np.mean(finite)) if finite else math.inf


def _blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolve with SSIM's Gaussian, unpadded: `[H, W, ...]` to `[H - 10, W - 10, ...]`."""
    distance = np.arange(_WINDOW_SIZE) - _WINDOW_SIZE // 2
    weights = np.exp(-(distance**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        size = x.shape[axis] - _WINDOW_SIZE + 1
        rows = (x.take(range(i, i + size), axis=axis) * w for i, w in enumerate(weights))
        total = next(rows)
        for row in rows:
            total += row
        x = total
    return x


def _check(picture: Image, clean: Image) -> None:
    for each in (picture, clean):
        if each.dtype != np.uint8:
            raise ValueError(f"expected uint8 pictures, got {each.dtype}")
    if picture.shape != clean.shape:
        raise ValueError(f"expected pictures of one size, got {_size(picture)} and {_size(clean)}")


def _size(picture: NDArray[Any]) -> str:
    height, width = picture.shape[:2]
    return f"{width}x{height}"
