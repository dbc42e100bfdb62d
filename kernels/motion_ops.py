"""The operations that find the motion between frames: their contracts, and kernel or reference.

`luma` is in [0, 1], `[N, 1 + K, h, w]`: the fixed pictures, then the K neighbours of each. Motions
are `[N, K, 2, h, w]`, to the right and down, in pixels. Slopes have that shape too: a motion's
errors, clipped, times the gradients of the fixed pictures. All are float32. A square has its pixel
in the middle, and the picture's edge repeated beyond the picture. See align.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mhnet_video.kernels import motion_reference as reference
from mhnet_video.kernels.dispatch import expect, use_triton


class MotionLevel(NamedTuple):
    """One resolution of the pictures between which motion is wanted."""

    luma: Tensor
    """`[N, 1 + K, h, w]`."""
    gradients: Tensor
    """`[N, 2, h, w]`: how the fixed pictures grow to the right and down, from both sides."""
    moments: Tensor
    """`[N, 3, 6]`, the means of the gradients' products times 1, x, y, x², xy and y², both from -1
    to 1."""
    inverse: Tensor
    """`[N, 3, h, w]`, of the matrix of these products' means over a square: upper left, both
    others, lower right."""


def done_room(luma: Tensor, levels: int) -> Tensor:
    """What the programs of several operations count, one operation after the other: zeros.

    Args:
        luma: `[N, 1 + K, h, w]`.
        levels: As for `prepared`.

    Returns:
        `[N * max(K, levels)]` int32.
    """
    number = len(luma) * max(levels, luma.shape[1] - 1)
    return torch.zeros(number, dtype=torch.int32, device=luma.device)


def prepared(
    luma: Tensor, levels: int, reach: int, damping: float, *, done: Tensor | None = None
) -> list[MotionLevel]:
    """Halve pictures several times, and do what depends on them alone.

    Args:
        luma: `[N, 1 + K, h, w]`.
        levels: Resolutions wanted, the whole one among them; the smallest has a pixel or more.
        reach: Pixels from a square's middle to its edge, for the inverses.
        damping: Added to the mean squares of gradients, for the inverses.
        done: From `done_room`; new in every call if None.

    Returns:
        The levels, the finest first.

    Raises:
        ValueError: The shape does not fit.
    """
    fits = luma.ndim == 4 and levels >= 1 and min(luma.shape[2:]) >> (levels - 1) >= 1
    expect(fits, "luma [N, 1 + K, h, w]", luma)
    if not use_triton(luma):
        return [MotionLevel(*each) for each in reference.prepared(luma, levels, reach, damping)]
    from mhnet_video.kernels.motion_levels_kernel import launch_prepared

    done = done_room(luma, levels) if done is None else done
    found = launch_prepared(luma, levels, reach, damping, done)
    return [MotionLevel(*each) for each in zip(*found, strict=True)]


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
    *,
    done: Tensor | None = None,
) -> Tensor:
    """A plane after steps of least squares over the whole picture.

    Args:
        luma: `[N, 1 + K, h, w]`.
        gradients: `[N, 2, h, w]`, from `prepared`.
        moments: `[N, 3, 6]`, likewise.
        plane: `[N, K, 2, 3]`: of the motion to the right and of that down, its value in the middle
            of the picture, and by how much it grows from there to the right edge and to the lower
            one, in pixels.
        scale: The plane is multiplied by it first.
        clip: Largest error that counts.
        terms: 1 where only the values in the middle are changed, else 3.
        steps: Their number.
        damping: Added to the mean squares.
        stride: Largest change of each number in a step.
        done: From `done_room`; new in every call if None.

    Returns:
        `[N, K, 2, 3]`.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(luma, gradients=gradients, plane=plane)
    fits = moments.shape == (len(luma), 3, 6) and terms in (1, 3) and steps >= 1
    expect(fits, "moments [N, 3, 6]", moments)
    inputs = (luma, gradients, moments, plane)
    if not use_triton(*inputs):
        return reference.fitted(*inputs, scale, clip, terms, steps, damping, stride)
    from mhnet_video.kernels.motion_plane_kernel import launch_fitted

    done = done_room(luma, 1) if done is None else done
    return launch_fitted(*inputs, scale, clip, terms, steps, damping, stride, done)


def kept(
    luma: Tensor,
    plane: Tensor,
    clip: float,
    gain: float,
    floor: float,
    *,
    done: Tensor | None = None,
) -> Tensor:
    """A plane where its motion explains the neighbour better than none does, else zeros.

    Args:
        luma: `[N, 1 + K, h, w]`.
        plane: `[N, K, 2, 3]`, from `fitted`.
        clip: What larger errors count as.
        gain: It is kept where it leaves less than this share of the mean error without it.
        floor: Added to the error without it.
        done: From `done_room`; new in every call if None.

    Returns:
        `[N, K, 2, 3]`.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(luma, plane=plane)
    if not use_triton(luma, plane):
        return reference.kept(luma, plane, clip, gain, floor)
    from mhnet_video.kernels.motion_plane_kernel import launch_kept

    done = done_room(luma, 1) if done is None else done
    return launch_kept(luma, plane, clip, gain, floor, done)


def begun(
    luma: Tensor,
    gradients: Tensor,
    plane: Tensor,
    coarse: Tensor | None,
    scale: float,
    clip: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The motions with which a level begins.

    Args:
        luma: `[N, 1 + K, h, w]`.
        gradients: `[N, 2, h, w]`, from `prepared`.
        plane: `[N, K, 2, 3]`, see `fitted`.
        coarse: The motion of the level of half the size, in pixels of that; None at the coarsest.
        scale: Of the plane.
        clip: Largest error that counts.

    Returns:
        The plane's motion; the coarser level's, or the plane's if there is none; its slopes.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(luma, gradients=gradients, plane=plane)
    if coarse is not None:
        wanted = (len(luma), luma.shape[1] - 1, 2)
        expect(coarse.ndim == 5 and coarse.shape[:3] == wanted, "coarse [N, K, 2, _, _]", coarse)
    if not use_triton(luma, gradients, plane, coarse):
        return reference.begun(luma, gradients, plane, coarse, scale, clip)
    from mhnet_video.kernels.motion_kernel import launch_begun

    return launch_begun(luma, gradients, plane, coarse, scale, clip)


def improved(
    luma: Tensor,
    gradients: Tensor,
    inverse: Tensor,
    motion: Tensor,
    slopes: Tensor,
    clip: float,
    reach: int,
    stride: float,
    continues: bool,
) -> tuple[Tensor, Tensor]:
    """The motion after a step of least squares over each square.

    Args:
        luma: `[N, 1 + K, h, w]`.
        gradients: `[N, 2, h, w]`, from `prepared`.
        inverse: `[N, 3, h, w]`, likewise.
        motion: `[N, K, 2, h, w]`.
        slopes: Likewise.
        clip: Largest error that counts.
        reach: Pixels from a square's middle to its edge.
        stride: Longest step in each direction, in pixels.
        continues: Whether another step follows.

    Returns:
        The motion, and its slopes if another step follows; else those that it was made from.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(luma, gradients=gradients, inverse=inverse, motion=motion, slopes=slopes)
    inputs = (luma, gradients, inverse, motion, slopes)
    if not use_triton(*inputs):
        return reference.improved(*inputs, clip, reach, stride, continues)
    from mhnet_video.kernels.motion_kernel import launch_improved

    return launch_improved(*inputs, clip, reach, stride, continues)


def smoothed(
    luma: Tensor, before: Tensor, motion: Tensor, clip: float, reach: int
) -> tuple[Tensor, Tensor]:
    """The mean of a motion over each square, and how it compares with another motion.

    Args:
        luma: `[N, 1 + K, h, w]`.
        before: The other motion, `[N, K, 2, h, w]`.
        motion: Likewise.
        clip: What larger errors count as.
        reach: Pixels from a square's middle to its edge.

    Returns:
        The motion, and the size of the errors with `before` and with it, `[N, K, 2, h, w]` both.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(luma, motion=motion, before=before)
    if not use_triton(luma, before, motion):
        return reference.smoothed(luma, before, motion, clip, reach)
    from mhnet_video.kernels.motion_kernel import launch_smoothed

    return launch_smoothed(luma, before, motion, clip, reach)


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
    """The second of two motions as far as it explains the neighbour better than the first does.

    It counts wholly where its mean error over the square is below `gain - slope` of the first
    one's, not at all where it is above `gain` of that, and partly between.

    Args:
        luma: `[N, 1 + K, h, w]`.
        before: `[N, K, 2, h, w]`; none if None.
        after: `[N, K, 2, h, w]`.
        errors: The size of the errors with the first and with the second, `[N, K, 2, h, w]`.
        reach: Pixels from a square's middle to its edge.
        gain: See above.
        slope: See above.
        floor: Added to the first one's error.
        clip: What larger errors of the result count as; None where they are not wanted.

    Returns:
        The motion, and the size of the errors without any and with it; `errors` if not wanted.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(luma, motion=after, errors=errors, **({} if before is None else {"before": before}))
    constants = (reach, gain, slope, floor, clip)
    if not use_triton(luma, before, after, errors):
        return reference.chosen(luma, before, after, errors, *constants)
    from mhnet_video.kernels.motion_kernel import launch_chosen

    return launch_chosen(luma, before, after, errors, *constants)


def _check(luma: Tensor, **others: Tensor) -> None:
    """Compare shapes with what their names want.

    Raises:
        ValueError: One does not fit.
    """
    expect(luma.ndim == 4 and luma.shape[1] > 1, "luma [N, 1 + K, h, w]", luma)
    batch, frames, *size = luma.shape
    for name, each in others.items():
        wanted: tuple[int, ...]
        if name == "plane":
            wanted, text = (batch, frames - 1, 2, 3), "[N, K, 2, 3]"
        elif name in ("gradients", "inverse"):
            planes = 2 if name == "gradients" else 3
            wanted, text = (batch, planes, *size), f"[N, {planes}, h, w]"
        else:
            wanted, text = (batch, frames - 1, 2, *size), "[N, K, 2, h, w]"
        expect(each.shape == wanted, f"luma [N, 1 + K, h, w], {name} {text}", luma, each)
