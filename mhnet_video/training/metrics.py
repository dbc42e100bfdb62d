"""PSNR and SSIM of 8-bit pictures, on Y and on RGB, as deraining papers report them; flicker.

Y is Matlab's `rgb2ycbcr` (BT.601, 16 to 235, rounded to 8 bits). SSIM is the first published
one: an 11x11 Gaussian window of sigma 1.5, only where it fits whole, no downsampling.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""`[H, W]` or `[H, W, 3]` (RGB), 0 to 255."""

_MEDIAN = 7
"""Frames of the temporal median."""
_REST = 4
"""Where nothing moves, the temporal median changes by fewer levels than this."""
_WINDOW_SIZE = 11
_SIGMA = 1.5
_PEAK = 255.0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How near a picture is to its clean twin; more is better in each."""

    psnr_y: float
    """In dB; infinite where the two are equal."""
    ssim_y: float
    """At most 1."""
    psnr_rgb: float
    """In dB; infinite where the two are equal."""
    ssim_rgb: float
    """At most 1; the mean over the three channels."""
    flicker: float | None = None
    """In levels of Y, less is better; None for pictures, and for a clip's first frame."""


def score(picture: Image, clean: Image) -> Scores:
    """All four figures of a picture `[H, W, 3]` against its clean twin.

    Raises:
        ValueError: The shapes differ, or are smaller than SSIM's window of 11x11.
    """
    y, clean_y = luma(picture), luma(clean)
    return Scores(
        psnr_y=psnr(y, clean_y),
        ssim_y=ssim(y, clean_y),
        psnr_rgb=psnr(picture, clean),
        ssim_rgb=ssim(picture, clean),
    )


def flicker(before: Image, clean_before: Image, after: Image, clean_after: Image) -> float:
    """What comes and goes from one frame to the next that does not in the clean clip.

    The mean absolute change of the difference from the clean twin. The twin moves as the clip
    does, so that neither the scene's motion nor the camera's is counted.

    Args:
        before: Y of a frame, `[H, W]`.
        clean_before: Y of its clean twin.
        after: Y of the next frame.
        clean_after: Y of its clean twin.

    Returns:
        In levels of 8 bits; 0 where the difference stays as it is.
    """
    change = after.astype(np.int16) - clean_after - (before.astype(np.int16) - clean_before)
    return float(np.abs(change).mean())


class Flicker:
    """How much a clip of a fixed camera changes from frame to frame where the scene is at rest.

    Rain is gone before a pixel's median over time changes, so that one tells where nothing moves,
    and what rain is: brighter. A clip without that still has noise and ripples, the median has not.

    Args:
        versions: How many versions of the clip are compared; the first one tells what is at rest.
    """

    def __init__(self, versions: int) -> None:
        self._seen: deque[Sequence[Image]] = deque(maxlen=_MEDIAN + 1)
        self._median: Image | None = None
        self._totals = np.zeros(versions + 2)
        self._pixels = self._at_rest = 0

    def push(self, lumas: Sequence[Image]) -> None:
        """Take Y of the next frame, `[H, W]`, in each version."""
        seen = self._seen
        if seen and seen[-1][0].shape != lumas[0].shape:
            seen.clear()
            self._median = None
        seen.append(lumas)
        if len(seen) < _MEDIAN:
            return
        first = [each[0] for each in seen][-_MEDIAN:]
        before, self._median = self._median, np.partition(first, _MEDIAN // 2, 0)[_MEDIAN // 2]
        if before is None:
            return
        change = _change(before, self._median)
        is_at_rest = change < _REST
        pair = seen[_MEDIAN // 2], seen[_MEDIAN // 2 + 1]
        changes = [_change(*each) for each in zip(*pair, strict=True)]
        # rain makes nothing darker
        cut = np.minimum(pair[0][0], before), np.minimum(pair[1][0], self._median)
        changes += [_change(*cut), change]
        self._totals += [each[is_at_rest].sum() for each in changes]
        self._pixels += change.size
        self._at_rest += int(is_at_rest.sum())

    @property
    def share(self) -> float:
        """Part of the clip that is at rest, 0 to 1; 0 of fewer than eight frames."""
        return self._at_rest / self._pixels if self._pixels else 0.0

    @property
    def levels(self) -> tuple[float, ...]:
        """Mean absolute change there, in levels of Y; NaN where nothing is at rest.

        Of each version, of the first one without what is brighter than its median, and of that
        median.
        """
        if not self._at_rest:
            return (math.nan,) * len(self._totals)
        return tuple(float(total) / self._at_rest for total in self._totals)


def _change(before: Image, after: Image) -> NDArray[np.int16]:
    return np.abs(after.astype(np.int16) - before)


def luma(picture: Image) -> Image:
    """Y of an RGB picture: `[H, W, 3]` to `[H, W]`, 16 to 235.

    Source: ITU-R BT.601, as Matlab's rgb2ycbcr scales and rounds it.
    """
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"expected a picture [H, W, 3], got {list(picture.shape)}")
    y = picture @ (np.array([65.481, 128.553, 24.966]) / _PEAK) + 16
    return np.rint(y).astype(np.uint8)


def psnr(picture: Image, clean: Image) -> float:
    """Peak signal to noise ratio in dB, the error averaged over all channels."""
    _check(picture, clean)
    error = picture.astype(np.float64) - clean
    mean_square = float(np.mean(error * error))
    return float(10 * np.log10(_PEAK**2 / mean_square)) if mean_square else float("inf")


def ssim(picture: Image, clean: Image) -> float:
    """Structural similarity, averaged over the windows and the channels.

    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural
    Similarity, 2004, equations 13 to 17, K1 = 0.01 and K2 = 0.03.
    """
    _check(picture, clean)
    if min(picture.shape[:2]) < _WINDOW_SIZE:
        raise ValueError(
            f"SSIM needs at least {_WINDOW_SIZE}x{_WINDOW_SIZE} pixels, "
            f"got {picture.shape[1]}x{picture.shape[0]}"
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
    """The mean of each figure over several pictures; of the flicker, over those that have one.

    Pictures that are equal have no PSNR that a mean could hold: it is that of the others.
    """
    flickers = [s.flicker for s in scores if s.flicker is not None]
    return Scores(
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
    """Weigh every whole 11x11 window by the Gaussian: `[H, W, ...]` to `[H - 10, W - 10, ...]`."""
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
        raise ValueError(f"expected pictures of one size, got {picture.shape} and {clean.shape}")
