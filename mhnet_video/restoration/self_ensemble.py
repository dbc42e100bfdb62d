"""A picture on its own, looked at from several sides and distances: what the looks agree on.

No neighbour shows what is behind the rain, so the network judges by what a streak looks like, and
errs: what it takes for one it often does not in the mirror, or in a larger picture, in which thin
streaks are easier to see. The mean of several answers is surer than each, and where they differ it
is made less, as by a Wiener filter. How much of their variance is noise of the mean is a matter of
measuring, as the answers are not independent of each other.

Source: Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR
2016, for the looks; for the share, Lim, "Two-Dimensional Signal and Image Processing", 1990, 9.2.
"""

import math
from collections.abc import Callable

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
"""The dimensions that are turned round, and how much larger the picture is: as it is and mirrored,
turned by 180 degrees and upside down, and again the first two. Turned by 90 rain would lie."""
NOISE = 0.5
"""Share of the answers' variance that counts as noise of their mean."""
MOST_PIXELS = 1920 * 1088
"""Of pictures that are enlarged. In larger ones streaks are large enough, and time is short."""
_SIDE = 15
"""Of the squares in which answers are compared, in pixels."""


def ensemble_residual(
    window: Window, residual_of: Callable[[Window], Tensor], multiple: int = 1
) -> Tensor:
    """The residual that several looks agree on.

    Args:
        window: `[3, H, W]` each, as for an engine; H and W multiples of `multiple`.
        residual_of: Gives a window's residual, `[3, H, W]`.
        multiple: What the sides of an enlarged picture are multiples of.

    Returns:
        `[3, H, W]`: the mean of the residuals, times m / (m + v * NOISE), m being the square of
        the mean and v the variance of the residuals, both averaged around each pixel.
    """
    size = tuple(middle_of(window).shape[1:])
    total, squares = torch.zeros(()), torch.zeros(())
    enlarges = math.prod(size) <= MOST_PIXELS
    # no look twice where none is enlarged
    looks = dict.fromkeys((flips, scale if enlarges else 1.0) for flips, scale in TRANSFORMS)
    for flips, scale in looks:
        larger = tuple(round(side * scale / multiple) * multiple for side in size)
        seen = [
            None if frame is None else _resized(frame.flip(flips), larger).contiguous()
            for frame in window
        ]
        residual = _resized(residual_of(seen), size).flip(flips)
        total, squares = total + residual, squares + residual.square().mean(0)
    mean = total / len(looks)
    # m, and m + v
    agreed, all_there = (
        F.avg_pool2d(each[None, None], _SIDE, 1, _SIDE // 2)[0]
        for each in (mean.square().mean(0), squares / len(looks))
    )
    both = NOISE * all_there + (1 - NOISE) * agreed
    return mean * (agreed / both.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)


def _resized(picture: Tensor, size: tuple[int, ...]) -> Tensor:
    """`[3, H, W]` at another size, by cubic interpolation."""
    if picture.shape[1:] == size:
        return picture
    return F.interpolate(picture[None], size, mode="bicubic", align_corners=False)[0]
