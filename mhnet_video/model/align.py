"""Alignment: the neighbours of a frame are warped onto it by motion compensation.

Rain covers a pixel for a frame or two, so that the neighbours show the background. Convolutions
find it only nearby. From a moving car a pillar moves by fifty pixels a frame, beyond their reach.

Motion is estimated on luma by least squares (Lucas and Kanade), from coarse to fine, up to a
quarter of the resolution. The affine motion of the whole picture comes first, which rain hardly
disturbs. The motion of a window replaces it where it explains the neighbour clearly better. Zero
motion replaces both where it does as well, so that fixed cameras and burnt-in text stay unchanged.
Networks that see the glass are the exception: what does not move would be the drops, and what is
behind them is wanted.

Streaks must not count as motion: errors are clipped, and windows are large. The estimate may be
wrong in occluded areas; networks are trained with these errors.

Source: Lucas and Kanade, "An Iterative Image Registration Technique", IJCAI 1981; the gradients
are the middle frame's, as in Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.color_spaces import LUMA_WEIGHTS
from mhnet_video.kernels import map_ops, motion_ops
from mhnet_video.kernels.motion_reference import sampled
from mhnet_video.model.window import Window, middle_of, stacked

LUMA = LUMA_WEIGHTS["bt601"]
"""Weights of red, green and blue in the luma on which motion is estimated."""
SHRINK = 4
"""Side in pixels of the blocks whose mean luma the estimate sees."""
LEAST_SIDE = 5
"""Smallest side of the coarsest pyramid level, in pixels."""
SHIFT_LEVELS = 3
"""Number of coarsest pyramid levels whose global motion is a translation only."""
SHIFT_STEPS = 4
"""Iterations of the global motion at each of these levels."""
PLANE_STEPS = 2
"""Iterations of the global motion at each finer level, where it is affine."""
PLANE_DAMPING = 1e-7
"""Added to the mean squared gradients of the whole picture."""
PLANE_STRIDE = 2.0
"""Longest step of the global motion, in pixels at the edge of the picture."""
PLANE_GAIN = 0.98
"""Global motion is kept where it leaves less than this share of the error without it."""
STEPS = 2
"""Iterations of the motion of windows at the finest pyramid level."""
COARSE_STEPS = 3
"""Iterations of the motion of windows at each coarser level."""
REACH = 5
"""Radius in pixels of the window whose pixels share a motion."""
GATE_REACH = 5
"""Radius in pixels of the window in which the errors of two motions are compared."""
SMOOTH_REACH = 4
"""Radius in pixels of the window in which motion is averaged."""
CLIP = 0.1
"""Where errors are clipped at the finest pyramid level; each halving of the size doubles it."""
MOST_CLIP = 0.4
"""Where errors are clipped at most, at any level."""
DAMPING = 1e-3
"""Added to the squared gradients of a window: without texture the coarser estimate stays."""
STRIDE = 1.5
"""Longest step of the motion of a window, in pixels."""
GAIN = 0.95
"""A window's motion is dropped where it leaves more than this share of the other motion's error."""
SLOPE = 0.2
"""Range of that share, below `GAIN`, in which a window's motion replaces the global one by
degrees."""
STILL_SLOPE = 0.1
"""The same where motion is compared with none."""
FLOOR = 0.002
"""Added to errors that are compared, so that camera noise decides nothing."""
SAME = 0.02
"""A neighbour's pixel within this difference from the middle frame stays where it is, whatever
moves around it, as a burnt-in clock's does. The difference is that of the strongest channel."""
UNLIKE = 0.04
"""A neighbour's pixel beyond this difference moves; between `SAME` and this it is blended."""


def align(window: Tensor, *, moves_all: bool = False) -> Tensor:
    """Move the neighbours to where the middle frame shows the same things.

    Args:
        window: `[N, T, 3, H, W]`, RGB in [0, 1].
        moves_all: Whether what looks alike at the same place moves too, as before a network that
            sees the glass.

    Returns:
        A window of that shape, float32, its middle frames as they were.
    """
    return torch.stack([stacked(_aligned(list(each), moves_all)) for each in window.float()])


@torch.inference_mode()
def align_maps(x: Tensor, frames: int, patch: int, out: Tensor) -> None:
    """Do the same with frames that are folded into channels, as kernels for GPUs have them.

    Args:
        x: `[N, H / patch, W / patch, 3 * frames * patch**2]`, H and W multiples of `SHRINK`; more
            channels do not matter.
        frames: T.
        patch: Side of the blocks that are folded.
        out: Another map like `x`; what channels it has beyond those of frames stay as they are.
    """
    luma = map_ops.shrunken_luma(x, frames, patch, SHRINK, LUMA)
    map_ops.move(x, _motion(luma), patch, SHRINK, SAME, UNLIKE, out=out)


def align_frames(frames: Window, *, glass: bool = False) -> list[Tensor | None]:
    """Do the same with the frames of one window.

    Args:
        frames: T of `[3, H, W]` float32, RGB in [0, 1].
        glass: Whether they stand between the pictures of the glass. These stay as they are, and all
            of a neighbour moves.

    Returns:
        As many. The middle frame, and where it stands for others that are missing, is that one.

    Raises:
        ValueError: As for `middle_of`.
    """
    end = len(frames) - glass
    return [*frames[:glass], *_aligned(frames[glass:end], glass), *frames[end:]]


def _aligned(frames: Window, moves_all: bool) -> list[Tensor | None]:
    middle = middle_of(frames)
    moving = {
        index: frame
        for index, frame in enumerate(frames)
        if frame is not None and frame is not middle
    }
    aligned = list(frames)
    if not moving:
        return aligned
    lumas = torch.cat([shrunken_luma(frame[None]) for frame in moving.values()])
    motion = estimate(shrunken_luma(middle[None]), lumas[None], moves_all=moves_all)[0]
    # the move one after the other: large pictures take much memory
    for (index, frame), each in zip(moving.items(), motion, strict=True):
        moved = move(frame[None], SHRINK * each[None])[0]
        if moves_all:
            aligned[index] = moved
            continue
        unlike = (frame - middle).abs().amax(0)
        share = ((unlike - SAME) / (UNLIKE - SAME)).clamp(0, 1)
        aligned[index] = frame + share * (moved - frame)
    return aligned


def shrunken_luma(pictures: Tensor) -> Tensor:
    """The mean luma of squares of `SHRINK` by `SHRINK` pixels, those at the edges cut.

    Args:
        pictures: `[N, 3, H, W]` float32, RGB in [0, 1].

    Returns:
        `[N, ceil(H / SHRINK), ceil(W / SHRINK)]`, in [0, 1].
    """
    pixels = F.avg_pool2d(pictures, SHRINK, ceil_mode=True)
    return torch.tensordot(pixels, pixels.new_tensor(LUMA), ([1], [0]))


def estimate(middle: Tensor, neighbours: Tensor, *, moves_all: bool = False) -> Tensor:
    """Where the neighbours show what the middle frames show.

    Args:
        middle: `[N, h, w]`, from `shrunken_luma`.
        neighbours: `[N, K, h, w]`, likewise.
        moves_all: Whether a motion is kept also where none explains the neighbour as well.

    Returns:
        `[N, K, 2, h, w]`, right and down, in pixels of h and w.
    """
    return _motion(torch.cat([middle[:, None], neighbours], 1), moves_all=moves_all)


def _motion(luma: Tensor, *, moves_all: bool = False) -> Tensor:
    """Do the same with the middle frames and their neighbours in one, `[N, 1 + K, h, w]`."""
    count = _number_of_levels(*luma.shape[2:])
    done = motion_ops.done_room(luma, count)
    levels = motion_ops.prepared(luma, count, REACH, DAMPING, done=done)
    plane = _plane(levels, done)
    motion: Tensor | None = None
    for number, (seen, gradients, _, inverse) in reversed(list(enumerate(levels))):
        clip = _clip(number)
        begun = motion_ops.begun(seen, gradients, plane, motion, 0.5**number, clip)
        common, motion, slopes = begun
        steps = COARSE_STEPS if number else STEPS
        for step in range(steps):
            inputs = (seen, gradients, inverse, motion, slopes)
            continues = step < steps - 1
            motion, slopes = motion_ops.improved(*inputs, clip, REACH, STRIDE, continues)
        motion, errors = motion_ops.smoothed(seen, common, motion, clip, SMOOTH_REACH)
        # at the end its errors are compared with those of no motion
        next_clip = None if number or moves_all else CLIP
        constants = (GATE_REACH, GAIN, SLOPE, FLOOR, next_clip)
        motion, errors = motion_ops.chosen(seen, common, motion, errors, *constants)
    assert motion is not None
    if moves_all:
        return motion
    constants = (GATE_REACH, GAIN, STILL_SLOPE, FLOOR, None)
    return motion_ops.chosen(levels[0].luma, None, motion, errors, *constants)[0]


def _number_of_levels(height: int, width: int) -> int:
    """Resolutions at which motion is estimated, each half of the one before."""
    number = 1
    while min(height, width) >> (number - 1) >= 2 * LEAST_SIDE:
        number += 1
    return number


def _clip(level: int) -> float:
    """Where errors are clipped at a level; 0 is the finest."""
    return min(MOST_CLIP, CLIP * 2**level)


def _plane(levels: Sequence[motion_ops.MotionLevel], done: Tensor) -> Tensor:
    """The motion that all of a picture shares.

    Args:
        levels: The pictures at each resolution.
        done: See `motion_ops.done_room`.

    Returns:
        `[N, K, 2, 3]`, see `motion_ops.fitted`.
    """
    luma = levels[0].luma
    plane = luma.new_zeros(len(luma), luma.shape[1] - 1, 2, 3)
    for number, (seen, gradients, moments, _) in reversed(list(enumerate(levels))):
        is_coarse = number >= len(levels) - SHIFT_LEVELS
        steps, terms = (SHIFT_STEPS, 1) if is_coarse else (PLANE_STEPS, 3)
        constants = (2.0, _clip(number), terms, steps, PLANE_DAMPING, PLANE_STRIDE)
        plane = motion_ops.fitted(seen, gradients, moments, plane, *constants, done=done)
    return motion_ops.kept(luma, plane, CLIP, PLANE_GAIN, FLOOR, done=done)


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
