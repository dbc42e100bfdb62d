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

from mhnet_video.kernels import map_ops, motion_ops
from mhnet_video.kernels.motion_reference import sampled

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in what motion is estimated on."""
SHRINK = 4
"""Pixels of a side of the squares whose mean luma the estimate sees."""
LEAST_SIDE = 5
"""Of the coarsest pictures, in pixels."""
STEPS, COARSE_STEPS = 2, 6
"""Improvements at the finest resolution, and at each coarser one."""
REACH, GATE_REACH, SMOOTH_REACH = 5, 5, 4
"""Pixels from the middle of a window to its edge: of those that share a motion, of those in which
two motions are compared, and of those in which motions are averaged."""
CLIP, MOST_CLIP = 0.1, 0.4
"""Where errors are clipped, at the finest resolution, and at most: it doubles with each halving."""
DAMPING = 1e-3
"""Added to the squares of gradients: where there are hardly any, the coarser estimate stays."""
STRIDE = 1.5
"""Longest step of an improvement, in pixels."""
GAIN, SLOPE, FLOOR = 0.95, 0.2, 0.002
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
    levels = [(middle, neighbours)]
    while min(levels[-1][0].shape[-2:]) >= 2 * LEAST_SIDE:
        fixed, moving = levels[-1]
        levels.append((F.avg_pool2d(fixed, 2), F.avg_pool2d(moving, 2)))
    coarsest = levels[-1][1]
    motion = coarsest.new_zeros(*coarsest.shape[:2], 2, *coarsest.shape[2:])
    for number, (fixed, moving) in reversed(list(enumerate(levels))):
        size = fixed.shape[-2:]
        if motion.shape[-2:] != size:
            larger = F.interpolate(motion.flatten(0, 1), size, mode="bilinear", align_corners=False)
            motion = 2 * larger.view(*motion.shape[:3], *size)
        clip = min(MOST_CLIP, CLIP * 2**number)
        steps = COARSE_STEPS if number else STEPS
        motion = _improved(fixed, moving, motion, clip, steps)
    return motion


def _improved(fixed: Tensor, moving: Tensor, motion: Tensor, clip: float, steps: int) -> Tensor:
    """A better estimate at one resolution.

    Args:
        fixed: `[N, h, w]`.
        moving: `[N, K, h, w]`.
        motion: `[N, K, 2, h, w]`, in pixels.
        clip: Largest error that counts.
        steps: How many improvements.
    """
    gradients = motion_ops.gradients(fixed)
    inverse = motion_ops.inverse(gradients, REACH, DAMPING)
    for _ in range(steps):
        slopes = motion_ops.slopes(fixed, moving, motion, gradients, clip)
        motion = motion_ops.improved(motion, slopes, inverse, REACH, STRIDE)
    motion = motion_ops.smoothed(motion, SMOOTH_REACH)
    errors = motion_ops.errors(fixed, moving, motion, clip)
    return motion_ops.chosen(motion, errors, GATE_REACH, GAIN, SLOPE, FLOOR)


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
    return sampled(pictures, motion)
