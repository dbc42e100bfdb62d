"""Self-ensemble (test-time augmentation) for pictures without neighbours.

Without neighbours the network recognizes streaks by their appearance alone, and errs. An error is
often absent from the mirrored or resized picture: thin streaks are easier to see in a larger one,
drops and motion blur in a smaller one. So the residuals of several transforms are averaged, and
attenuated where they disagree, as by a Wiener filter. The residuals are not independent: the share
of their variance that is noise was measured.

Source: Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR
2016, for the transforms; Lim, "Two-Dimensional Signal and Image Processing", 1990, 9.2, for the
attenuation.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.model.window import Window, middle_of

TRANSFORMS: tuple[tuple[tuple[int, ...], float], ...] = (
    ((), 1.0),
    ((2,), 1.0),
    ((1, 2), 1.25),
    ((1,), 1.25),
    ((), 1.5),
    ((2,), 1.5),
)
"""Flipped dimensions and scale of each transform: identity, horizontal flip, rotation by 180
degrees, vertical flip, and the first two again. Rotated by 90 degrees rain would be horizontal."""
COARSE_TRANSFORMS: tuple[tuple[tuple[int, ...], float], ...] = tuple(
    (flips, scale) for scale in (1.0, 0.75, 0.5) for flips in ((), (2,))
)
"""The transforms for drops and motion blur, which are larger than streaks: a network recognizes
them in smaller pictures. Upside down a drop, in which the sky is below, is none."""
NOISE = 0.5
"""Share of the residuals' variance that counts as noise of their mean."""
MOST_PIXELS = 1920 * 1088
"""Largest picture that is enlarged, in pixels; in larger ones streaks are large enough."""
_SIDE = 15
"""Side of the window in which residuals are compared, in pixels."""


def ensemble_residual(
    window: Window,
    residual_of: Callable[[Window], Tensor],
    multiple: int = 1,
    *,
    transforms: Sequence[tuple[tuple[int, ...], float]] = TRANSFORMS,
) -> Tensor:
    """The residual on which several transforms of a window agree.

    Args:
        window: `[3, H, W]` each, as for an engine; H and W multiples of `multiple`.
        residual_of: Computes the residual of a window, `[3, H, W]`.
        multiple: What the sides of a resized picture are multiples of.
        transforms: Flipped dimensions and scale of each.

    Returns:
        `[3, H, W]`: the mean of the residuals, times m / (m + v * NOISE), m being the square of
        the mean and v the variance of the residuals, both averaged around each pixel.
    """
    size = tuple(middle_of(window).shape[1:])
    total, squares = torch.zeros(()), torch.zeros(())
    enlarges = math.prod(size) <= MOST_PIXELS
    # without enlarging, some transforms are equal
    chosen = dict.fromkeys(
        (flips, scale if enlarges else min(scale, 1.0)) for flips, scale in transforms
    )
    for flips, scale in chosen:
        other = tuple(max(1, round(side * scale / multiple)) * multiple for side in size)
        seen = [
            None
            if frame is None
            else _resized(frame.flip(flips), other, is_smaller=scale < 1).contiguous()
            for frame in window
        ]
        residual = _resized(residual_of(seen), size).flip(flips)
        total, squares = total + residual, squares + residual.square().mean(0)
    mean = total / len(chosen)
    # m, and m + v
    agreed, all_there = (
        F.avg_pool2d(each[None, None], _SIDE, 1, _SIDE // 2)[0]
        for each in (mean.square().mean(0), squares / len(chosen))
    )
    both = NOISE * all_there + (1 - NOISE) * agreed
    return mean * (agreed / both.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)


def _resized(picture: Tensor, size: tuple[int, ...], *, is_smaller: bool = False) -> Tensor:
    """`[3, H, W]` at another size, by cubic interpolation; a smaller one without aliasing."""
    if picture.shape[1:] == size:
        return picture
    return F.interpolate(
        picture[None], size, mode="bicubic", align_corners=False, antialias=is_smaller
    )[0]
