"""The weights of the CPU engine's first convolution, rounded to eight bits.

Each weight for itself, they would be too coarse: the errors of neighbouring pixels' weights add up,
as these pixels resemble one another. So an error is taken out again by the weights that are rounded
after it, as far as their pixels resemble its own. What is left of the errors of a picture's sums is
less than bfloat16 leaves.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.kernels.llvm_int8_product import MOST

_MEAN = 0.45
"""Mean of pictures' samples, in [0, 1]."""
_VARIANCE = 0.05
"""Variance of their samples."""
_OF_NEIGHBOURS = 0.95
"""Correlation of samples one pixel apart; that of others is its power."""
_OF_FRAMES = 0.9
"""Correlation of a frame's sample with that of a neighbour."""
_OF_COLORS = 0.95
"""Correlation of the channels of a pixel."""
_NOISE = 1e-4
"""Variance of what resembles nothing."""
MOST_DIFFERENCE = 2.0
"""The largest sample of the picture of differences that a byte holds, see `glass_statistics`: half
the range of pictures. Larger ones are seldom."""
_MEAN_DIFFERENCE = 0.1
"""Mean of that picture's samples, as shares of the largest."""


@cache
def error_shares(pictures: int, patch: int, *, glass: bool) -> NDArray[np.float64]:
    """How much of the errors of earlier weights each weight of a 3x3 convolution has to take out.

    Args:
        pictures: T.
        patch: Side of the blocks folded into channels.
        glass: Whether the last picture is that of differences on the glass.

    Returns:
        `[K, K]`, where K counts `[T, 3, dy, dx, 3, 3]` as the convolution's weights do: in column i
        the shares of the errors of weights 0 to i - 1.
    """
    # errors e add e @ moments @ e to the sums' mean square, which is the square of e @ factor; so
    # each weight is to make its own element of that as small as it can
    found = torch.from_numpy(_moments(pictures, patch, glass))
    factor = torch.linalg.cholesky(found.flip(0, 1)).flip(0, 1).numpy()
    shares: NDArray[np.float64] = factor / factor.diagonal()
    return shares


def _moments(pictures: int, patch: int, glass: bool) -> NDArray[np.float64]:
    """The mean products of samples that a 3x3 convolution of unshuffled pictures sees, `[K, K]`."""
    picture, color, dy, dx, block_y, block_x = (
        each.ravel() for each in np.indices((pictures, 3, patch, patch, 3, 3))
    )
    y, x = block_y * patch + dy, block_x * patch + dx
    distances = np.hypot(np.subtract.outer(y, y), np.subtract.outer(x, x))
    likeness = _OF_NEIGHBOURS**distances
    likeness *= np.where(np.equal.outer(picture, picture), 1.0, _OF_FRAMES)
    likeness *= np.where(np.equal.outer(color, color), 1.0, _OF_COLORS)
    means = np.full(len(y), _MEAN)
    if glass:  # differences do not resemble pictures
        is_difference = picture == pictures - 1
        means[is_difference] = _MEAN_DIFFERENCE
        likeness[np.not_equal.outer(is_difference, is_difference)] = 0
        likeness[np.logical_and.outer(is_difference, is_difference)] *= _MEAN_DIFFERENCE
    found: NDArray[np.float64] = np.outer(means, means) + _VARIANCE * likeness
    found += _NOISE * np.eye(len(y))
    return found


def _units(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, what one is worth; rows of zeros have a unit, too."""
    units: NDArray[np.float64] = np.maximum(np.abs(matrix).max(1), 1e-30) / MOST
    return units


def round_each(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights `[M, K]` to the nearest whole numbers, in units of each output; returns both.

    That is enough where inputs do not resemble one another.
    """
    units = torch.from_numpy(_units(matrix.detach().double().numpy()))
    return (matrix.double() / units[:, None]).round(), units


def round_weights(weight: Tensor, shares: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Round a convolution's weights to whole numbers, in units of each output.

    Args:
        weight: `[M, C, 3, 3]`.
        shares: Those of `error_shares`, `[K, K]`; K is 9 * C.

    Returns:
        Whole numbers from -127 to 127, `[M, C, 3, 3]`, and the units, `[M]`, all float64.
    """
    exact: NDArray[np.float64] = weight.detach().double().flatten(1).numpy()
    units = _units(exact)
    rounded, errors = np.empty_like(exact), np.empty_like(exact)
    for i in range(exact.shape[1]):
        # not by a product of matrices, whose threads would take longer to start
        wanted = exact[:, i] - (errors[:, :i] * shares[:i, i]).sum(1)
        rounded[:, i] = np.clip(np.rint(wanted / units), -MOST, MOST)
        errors[:, i] = rounded[:, i] * units - exact[:, i]
    return torch.from_numpy(rounded).reshape(weight.shape), torch.from_numpy(units)
