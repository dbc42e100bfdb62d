"""Bring the neighbours of a frame to where the frame shows the same things.

Rain is in a pixel for a frame or two, so the neighbours show what is behind it, but only where the
network finds it: before a moving car a pillar is fifty pixels further on in the next frame, beyond
what convolutions follow. So the neighbours are moved first, and the network compares.

Motion is estimated on luma by least squares (Lucas and Kanade), in windows, from coarse to fine, up
to a quarter of the resolution: streaks are narrow, and what is in one frame only must not count as
motion. Errors are therefore clipped, the windows are large, and a motion that does not explain
the neighbour clearly better than none does is dropped: the picture of a fixed camera stays as it
is. The estimate may be wrong where things are hidden; networks are trained with these errors.

Source: Lucas and Kanade, "An Iterative Image Registration Technique", IJCAI 1981; the gradients
are the middle frame's, as in Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.kernels import map_ops

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in what motion is estimated on."""
SHRINK = 4
"""Pixels of a side of the squares whose mean luma the estimate sees."""
_LEAST_SIDE = 5
"""Of the coarsest pictures, in pixels."""
_STEPS, _COARSE_STEPS = 2, 6
"""Improvements at the finest resolution, and at each coarser one."""
_REACH, _GATE_REACH, _SMOOTH_REACH = 5, 5, 4
"""Pixels from the middle of a window to its edge: of those that share a motion, of those in which
two motions are compared, and of those in which motions are averaged."""
_CLIP, _MOST_CLIP = 0.1, 0.4
"""Where errors are clipped, at the finest resolution, and at most: it doubles with each halving."""
_DAMPING = 1e-3
"""Added to the squares of gradients: where there are hardly any, the coarser estimate stays."""
_STRIDE = 1.5
"""Longest step of an improvement, in pixels."""
_GAIN, _SLOPE, _FLOOR = 0.95, 0.2, 0.002
"""A motion counts wholly where its error is below 75 % of that without it, not at all where it is
above 95 %. Errors of a camera's noise, below the floor, do not tell."""


def align(window: Tensor) -> Tensor:
    """Move the neighbours to where the middle frame shows the same things.

    Args:
        window: `[N, T, 3, H, W]`, RGB in [0, 1].

    Returns:
        A window of that shape, float32, its middle frames as they were.
    """
    aligned = window.float().clone()
    middle = window.shape[1] // 2
    neighbours = [index for index in range(window.shape[1]) if index != middle]
    for one in aligned if neighbours else ():
        one[neighbours] = align_to(one[middle], one[neighbours])
    return aligned


@torch.inference_mode()
def align_maps(x: Tensor, frames: int, patch: int, out: Tensor) -> None:
    """Do the same with frames that are folded into channels, as kernels for GPUs have them.

    Args:
        x: `[N, H / patch, W / patch, 3 * frames * patch**2]`, H and W multiples of `SHRINK`.
        frames: T.
        patch: Side of the blocks that are folded.
        out: Another map like `x`.
    """
    luma = map_ops.shrunken_luma(x, frames, patch, SHRINK, LUMA)
    before, middle, after = torch.split(luma, [frames // 2, 1, frames // 2], 1)
    motion = estimate(middle[:, 0], torch.cat([before, after], 1))
    map_ops.move(x, motion, patch, SHRINK, out=out)


def align_frames(frames: Sequence[Tensor]) -> list[Tensor]:
    """Do the same with the frames of one window.

    Args:
        frames: T of `[3, H, W]` float32, RGB in [0, 1].

    Returns:
        As many. The middle frame, and where it stands for others that are missing, is that one.
    """
    middle = frames[len(frames) // 2]
    moving = [index for index, frame in enumerate(frames) if frame is not middle]
    aligned = list(frames)
    if moving:
        found = align_to(middle, torch.stack([frames[index] for index in moving]))
        for index, frame in zip(moving, found, strict=True):
            aligned[index] = frame
    return aligned


def align_to(middle: Tensor, neighbours: Tensor) -> Tensor:
    """Move neighbours to where another frame shows the same things.

    Args:
        middle: `[3, H, W]` float32, RGB in [0, 1].
        neighbours: `[K, 3, H, W]`, likewise.

    Returns:
        `[K, 3, H, W]`.
    """
    motion = estimate(shrunken_luma(middle[None]), shrunken_luma(neighbours)[None])[0]
    return move(neighbours, SHRINK * motion)


def shrunken_luma(pictures: Tensor) -> Tensor:
    """The mean luma of squares of `SHRINK` by `SHRINK` pixels, those at the edges cut.

    Args:
        pictures: `[N, 3, H, W]` float32, RGB in [0, 1].

    Returns:
        `[N, ceil(H / SHRINK), ceil(W / SHRINK)]`, in [0, 1].
    """
    pixels = F.avg_pool2d(pictures, SHRINK, ceil_mode=True)
    return torch.tensordot(pixels, pixels.new_tensor(LUMA), ([1], [0]))


def estimate(middle: Tensor, neighbours: Tensor) -> Tensor:
    """Where the neighbours show what the middle frames show.

    Args:
        middle: `[N, h, w]`, from `shrunken_luma`.
        neighbours: `[N, K, h, w]`, likewise.

    Returns:
        `[N, K, 2, h, w]`, right and down, in pixels of h and w.
    """
    count = neighbours.shape[1]
    levels = [(middle[:, None], neighbours)]
    while min(levels[-1][0].shape[-2:]) >= 2 * _LEAST_SIDE:
        fixed, moving = levels[-1]
        levels.append((F.avg_pool2d(fixed, 2), F.avg_pool2d(moving, 2)))
    coarsest = levels[-1][1]
    motion = coarsest.new_zeros(coarsest.shape[0] * count, 2, *coarsest.shape[-2:])
    for number, (fixed, moving) in reversed(list(enumerate(levels))):
        size = fixed.shape[-2:]
        if motion.shape[-2:] != size:
            motion = 2 * F.interpolate(motion, size, mode="bilinear", align_corners=False)
        clip = min(_MOST_CLIP, _CLIP * 2**number)
        steps = _COARSE_STEPS if number else _STEPS
        motion = _improved(fixed, moving.flatten(0, 1)[:, None], motion, clip, steps)
    return motion.view(-1, count, *motion.shape[1:])


def _improved(middle: Tensor, moving: Tensor, motion: Tensor, clip: float, steps: int) -> Tensor:
    """A better estimate at one resolution.

    Args:
        middle: `[N, 1, h, w]`.
        moving: `[N * K, 1, h, w]`, the neighbours.
        motion: `[N * K, 2, h, w]`, in pixels.
        clip: Largest error that counts.
        steps: How many improvements.
    """
    around = F.pad(middle, (1, 1, 1, 1), mode="replicate")
    right = (around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2]) / 2
    down = (around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1]) / 2
    products = _mean(torch.cat([right * right, right * down, down * down], 1), _REACH)
    a, b, c = products[:, 0] + _DAMPING, products[:, 1], products[:, 2] + _DAMPING
    # [N, 2, 2, h, w]: the inverse of each window's matrix
    inverse = torch.stack([c, -b, -b, a], 1).div_((a * c - b * b)[:, None])
    inverse = inverse.view(-1, 2, 2, *inverse.shape[2:])
    gradient = torch.cat([right, down], 1)
    count = len(moving) // len(middle)
    fixed, inverse, gradient = (
        each.repeat_interleave(count, 0) for each in (middle, inverse, gradient)
    )
    for _ in range(steps):
        error = (move(moving, motion) - fixed).clamp_(-clip, clip)
        slope = _mean(gradient * error, _REACH)
        motion = motion - (inverse * slope[:, None]).sum(2).clamp_(-_STRIDE, _STRIDE)
    motion = _mean(motion, _SMOOTH_REACH)
    without, having = (
        _mean((each - fixed).abs_().clamp_(max=clip), _GATE_REACH)
        for each in (moving, move(moving, motion))
    )
    without = without + _FLOOR
    return motion * ((_GAIN * without - having) / (_SLOPE * without)).clamp_(0, 1)


def move(pictures: Tensor, motion: Tensor) -> Tensor:
    """Sample pictures where a motion says, bilinearly; beyond their edges the edge.

    Args:
        pictures: `[N, C, H, W]`.
        motion: `[N, 2, h, w]`, right and down, in pixels of H and W; enlarged to their size.

    Returns:
        `[N, C, H, W]`.
    """
    height, width = pictures.shape[-2:]
    if motion.shape[-2:] != (height, width):
        motion = F.interpolate(motion, (height, width), mode="bilinear", align_corners=False)
    # grid_sample counts from -1 to 1, over the pixels' outer edges
    x = torch.arange(width, device=motion.device, dtype=motion.dtype)
    y = torch.arange(height, device=motion.device, dtype=motion.dtype)
    place = torch.empty(len(motion), height, width, 2, device=motion.device, dtype=motion.dtype)
    torch.add(x, motion[:, 0], out=place[..., 0]).add_(0.5).mul_(2 / width).sub_(1)
    torch.add(y[:, None], motion[:, 1], out=place[..., 1]).add_(0.5).mul_(2 / height).sub_(1)
    return F.grid_sample(pictures, place, padding_mode="border", align_corners=False)


def _mean(x: Tensor, reach: int) -> Tensor:
    """The mean of the square around each pixel, the edge repeated beyond."""
    side = 2 * reach + 1
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(x, (side, 1), 1), (1, side), 1)
