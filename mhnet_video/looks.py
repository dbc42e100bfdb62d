"""A picture on its own, looked at from four sides: what the looks agree on.

No neighbour shows what is behind the rain, so the network judges by what a streak looks like, and
errs: what it takes for one it often does not in the mirror. The mean of several answers is surer
than each, and where they differ it is made less, as by a Wiener filter. The mean's noise is taken
to be half of their variance, as the answers are not independent of each other.

Source: Timofte et al., "Seven ways to improve example-based single image super resolution", CVPR
2016, for the looks; for the share, Lim, "Two-Dimensional Signal and Image Processing", 1990, 9.2.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.align import Window

_FLIPS = ((), (1, 2), (2,), (1,))
"""As it is, turned by 180 degrees, mirrored, upside down. Turned by 90 rain would lie."""
_SIDE = 15
"""Of the squares in which answers are compared, in pixels."""


def agreed_residual(window: Window, residual_of: Callable[[Window], Tensor]) -> Tensor:
    """The residual that several looks agree on.

    Args:
        window: `[3, H, W]` each, as for an engine.
        residual_of: Gives a window's residual, `[3, H, W]`.

    Returns:
        `[3, H, W]`: the mean of the residuals, times m / (m + v / 2), m being the square of the
        mean and v the variance of the residuals, both averaged around each pixel.
    """
    total, squares = torch.zeros(()), torch.zeros(())
    for flips in _FLIPS:
        seen = [None if frame is None else frame.flip(flips).contiguous() for frame in window]
        residual = residual_of(seen).flip(flips)
        total, squares = total + residual, squares + residual.square().mean(0)
    mean = total / len(_FLIPS)
    # m, and m + v
    agreed, all_there = (
        F.avg_pool2d(each[None, None], _SIDE, 1, _SIDE // 2)[0]
        for each in (mean.square().mean(0), squares / len(_FLIPS))
    )
    both = (agreed + all_there).clamp(min=torch.finfo(torch.float32).tiny)
    return mean * (2 * agreed / both).clamp(max=1)
