"""What each operation on motion between frames means, in plain PyTorch. Simple and right.

Nothing here imports another module of this folder: kernels are judged by this file.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sampled(pictures: Tensor, motion: Tensor) -> Tensor:
    """Pictures where a motion leads, bilinearly; beyond their edges the edge.

    Args:
        pictures: `[N, C, h, w]`.
        motion: `[N, 2, h, w]`, right and down, in pixels.
    """
    height, width = pictures.shape[-2:]
    # grid_sample counts from -1 to 1, over the pixels' outer edges
    x = torch.arange(width, device=motion.device, dtype=motion.dtype)
    y = torch.arange(height, device=motion.device, dtype=motion.dtype)
    place = torch.empty(len(motion), height, width, 2, device=motion.device, dtype=motion.dtype)
    torch.add(x, motion[:, 0], out=place[..., 0]).add_(0.5).mul_(2 / width).sub_(1)
    torch.add(y[:, None], motion[:, 1], out=place[..., 1]).add_(0.5).mul_(2 / height).sub_(1)
    return F.grid_sample(pictures, place, padding_mode="border", align_corners=False)


def mean(x: Tensor, reach: int) -> Tensor:
    """The mean of the square around each pixel, the edge repeated beyond, `[N, C, h, w]`."""
    side = 2 * reach + 1
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(x, (side, 1), 1), (1, side), 1)


def gradients(x: Tensor) -> Tensor:
    """How pictures grow to the right and down, `[N, 2, h, w]`."""
    around = F.pad(x[:, None], (1, 1, 1, 1), mode="replicate")
    right = around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2]
    down = around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1]
    return torch.cat([right, down], 1) / 2


def inverse(gradients: Tensor, reach: int, damping: float) -> Tensor:
    """The inverse of each square's matrix of products: upper left, both others, lower right."""
    right, down = gradients.unbind(1)
    a, b, c = mean(torch.stack([right * right, right * down, down * down], 1), reach).unbind(1)
    a, c = a + damping, c + damping
    return torch.stack([c, -b, a], 1) / (a * c - b * b)[:, None]


def _moved(moving: Tensor, motion: Tensor) -> Tensor:
    """The neighbours where their motion leads, `[N, K, h, w]`."""
    return sampled(moving.flatten(0, 1)[:, None], motion.flatten(0, 1)).view(moving.shape)


def slopes(fixed: Tensor, moving: Tensor, motion: Tensor, gradients: Tensor, clip: float) -> Tensor:
    """The errors that a motion leaves, clipped, times the gradients."""
    error = (_moved(moving, motion) - fixed[:, None]).clamp(-clip, clip)
    return error[:, :, None] * gradients[:, None]


def improved(motion: Tensor, slopes: Tensor, inverse: Tensor, reach: int, stride: float) -> Tensor:
    """The motion after a step of least squares over each square."""
    right, down = mean(slopes.flatten(0, 1), reach).view(slopes.shape).unbind(2)
    p, q, r = (each[:, None] for each in inverse.unbind(1))
    step = torch.stack([p * right + q * down, q * right + r * down], 2)
    return motion - step.clamp(-stride, stride)


def smoothed(motion: Tensor, reach: int) -> Tensor:
    """The mean of a motion over each square."""
    return mean(motion.flatten(0, 1), reach).view(motion.shape)


def errors(fixed: Tensor, moving: Tensor, motion: Tensor, clip: float) -> Tensor:
    """The size of the errors without a motion and with it, clipped."""
    both = torch.stack([moving, _moved(moving, motion)], 2)
    return (both - fixed[:, None, None]).abs().clamp(max=clip)


def chosen(
    motion: Tensor, errors: Tensor, reach: int, gain: float, slope: float, floor: float
) -> Tensor:
    """A motion, as far as its error over each square is less than that without it."""
    without, having = mean(errors.flatten(0, 1), reach).view(errors.shape).unbind(2)
    without = without + floor
    return motion * ((gain * without - having) / (slope * without)).clamp(0, 1)[:, :, None]
