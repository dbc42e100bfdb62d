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
    across = (motion[:, 0] + x + 0.5) * (2 / width) - 1
    down = (motion[:, 1] + y[:, None] + 0.5) * (2 / height) - 1
    position = torch.stack([across, down], -1)
    return F.grid_sample(pictures, position, padding_mode="border", align_corners=False)


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


def errors(luma: Tensor, motion: Tensor) -> Tensor:
    """What motions leave between the neighbours and the fixed pictures, `[N, K, h, w]`."""
    moving = luma[:, 1:]
    moved = sampled(moving.flatten(0, 1)[:, None], motion.flatten(0, 1)).view(moving.shape)
    return moved - luma[:, :1]


def slopes(luma: Tensor, gradients: Tensor, motion: Tensor, clip: float) -> Tensor:
    """The errors that a motion leaves, clipped, times the gradients."""
    return errors(luma, motion).clamp(-clip, clip)[:, :, None] * gradients[:, None]


def both_errors(luma: Tensor, before: Tensor, after: Tensor, clip: float) -> Tensor:
    """The size of the errors with one motion and with another, clipped, `[N, K, 2, h, w]`."""
    both = torch.stack([errors(luma, before), errors(luma, after)], 2)
    return both.abs().clamp(max=clip)


def basis(height: int, width: int, device: torch.device) -> Tensor:
    """One, the column and the row of each pixel, both from -1 to 1, `[3, h, w]`."""
    y = (2 * torch.arange(height, device=device) + 1) / height - 1
    x = (2 * torch.arange(width, device=device) + 1) / width - 1
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([torch.ones_like(rows), columns, rows])


def spread(plane: Tensor, height: int, width: int) -> Tensor:
    """The motion of each pixel by a plane, `[N, K, 2, h, w]`."""
    each = basis(height, width, plane.device).to(plane.dtype)
    return torch.einsum("nkai,iyx->nkayx", plane, each)


def moments(gradients: Tensor) -> Tensor:
    """The means of the gradients' products, times those of the basis, `[N, 3, 6]`."""
    right, down = gradients.unbind(1)
    products = torch.stack([right * right, right * down, down * down], 1)
    height, width = gradients.shape[2:]
    one, x, y = basis(height, width, gradients.device).to(gradients.dtype)
    pairs = torch.stack([one, x, y, x * x, x * y, y * y])
    return torch.einsum("nayx,byx->nab", products, pairs) / (height * width)


_PAIRS = ((0, 1, 2), (1, 3, 4), (2, 4, 5))


def prepared(
    luma: Tensor, levels: int, reach: int, damping: float
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Luma at halved sizes, with its gradients, their moments and their inverses."""
    found = []
    for level in range(levels):
        luma = F.avg_pool2d(luma, 2) if level else luma
        growth = gradients(luma[:, 0])
        found.append((luma, growth, moments(growth), inverse(growth, reach, damping)))
    return found


def fitted(
    luma: Tensor,
    gradients: Tensor,
    moments: Tensor,
    plane: Tensor,
    scale: float,
    clip: float,
    terms: int,
    steps: int,
    damping: float,
    stride: float,
) -> Tensor:
    """A plane after steps of least squares over the whole picture."""
    height, width = luma.shape[2:]
    each = basis(height, width, luma.device).to(luma.dtype)[:terms]
    a, b, c = moments[:, :, list(_PAIRS)][..., :terms, :terms].unbind(1)
    left = torch.cat([torch.cat([a, b], 2), torch.cat([b, c], 2)], 1)
    left = left + damping * torch.eye(2 * terms, device=left.device, dtype=left.dtype)
    plane = scale * plane
    for _ in range(steps):
        slope = slopes(luma, gradients, spread(plane, height, width), clip)
        right = torch.einsum("nkayx,iyx->nkai", slope, each).flatten(2) / (height * width)
        step = torch.linalg.solve_ex(left[:, None], right[..., None])[0][..., 0]
        step = step.unflatten(2, (2, terms)).clamp(-stride, stride)
        plane = plane - F.pad(step, (0, 3 - terms))
    return plane


def kept(luma: Tensor, plane: Tensor, clip: float, gain: float, floor: float) -> Tensor:
    """A plane where its motion explains the neighbour better than none does, else zeros."""
    motion = spread(plane, *luma.shape[2:])
    means = both_errors(luma, torch.zeros_like(motion), motion, clip).mean((3, 4))
    without, having = means.unbind(2)
    return plane * (having < gain * (without + floor))[..., None, None]


def begun(
    luma: Tensor,
    gradients: Tensor,
    plane: Tensor,
    coarse: Tensor | None,
    scale: float,
    clip: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The motion of a plane, that of a coarser level in its place, and the slopes of this one."""
    size = luma.shape[2:]
    motion = common = spread(plane * scale, *size)
    if coarse is not None:
        larger = F.interpolate(coarse.flatten(0, 1), size, mode="bilinear", align_corners=False)
        motion = 2 * larger.view(common.shape)
    return common, motion, slopes(luma, gradients, motion, clip)


def improved(
    luma: Tensor,
    gradients: Tensor,
    inverse: Tensor,
    motion: Tensor,
    slope: Tensor,
    clip: float,
    reach: int,
    stride: float,
    continues: bool,
) -> tuple[Tensor, Tensor]:
    """The motion after a step of least squares over each square, and its slopes."""
    right, down = mean(slope.flatten(0, 1), reach).view(slope.shape).unbind(2)
    p, q, r = (each[:, None] for each in inverse.unbind(1))
    step = torch.stack([p * right + q * down, q * right + r * down], 2)
    motion = motion - step.clamp(-stride, stride)
    return motion, slopes(luma, gradients, motion, clip) if continues else slope


def smoothed(
    luma: Tensor, before: Tensor, motion: Tensor, clip: float, reach: int
) -> tuple[Tensor, Tensor]:
    """The mean of a motion over each square, and the errors with another motion and with it."""
    motion = mean(motion.flatten(0, 1), reach).view(motion.shape)
    return motion, both_errors(luma, before, motion, clip)


def chosen(
    luma: Tensor,
    before: Tensor | None,
    after: Tensor,
    errors: Tensor,
    reach: int,
    gain: float,
    slope: float,
    floor: float,
    clip: float | None,
) -> tuple[Tensor, Tensor]:
    """The second motion as far as its error over each square is less, and its own errors."""
    before = torch.zeros_like(after) if before is None else before
    old, new = mean(errors.flatten(0, 1), reach).view(errors.shape).unbind(2)
    old = old + floor
    share = ((gain * old - new) / (slope * old)).clamp(0, 1)[:, :, None]
    motion = before + share * (after - before)
    if clip is None:
        return motion, errors
    return motion, both_errors(luma, torch.zeros_like(motion), motion, clip)
