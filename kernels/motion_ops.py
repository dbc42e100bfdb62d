"""The operations that find the motion between frames: their contracts, and kernel or reference.

Pictures are luma in [0, 1]: the fixed ones `[N, h, w]`, the neighbours of each `[N, K, h, w]`.
Motions are `[N, K, 2, h, w]`, to the right and down, in pixels. All are float32; a square has its
pixel in the middle, and the picture's edge repeated beyond the picture. See align.py.
"""

from torch import Tensor

from mhnet_video.kernels import motion_reference as reference
from mhnet_video.kernels.dispatch import expect, use_triton


def gradients(x: Tensor) -> Tensor:
    """How pictures grow to the right and down, from the pixels on both sides.

    Args:
        x: `[N, h, w]`.

    Returns:
        `[N, 2, h, w]`.

    Raises:
        ValueError: The shape does not fit.
    """
    expect(x.ndim == 3, "x [N, h, w]", x)
    if not use_triton(x):
        return reference.gradients(x)
    from mhnet_video.kernels.motion_kernel import launch_gradients

    return launch_gradients(x)


def inverse(gradients: Tensor, reach: int, damping: float) -> Tensor:
    """The inverse of the matrix of the gradients' mean products over each square.

    Args:
        gradients: `[N, 2, h, w]`.
        reach: Pixels from a square's middle to its edge.
        damping: Added to the mean squares.

    Returns:
        `[N, 3, h, w]`: upper left, both others, lower right.

    Raises:
        ValueError: The shape does not fit.
    """
    expect(gradients.ndim == 4 and gradients.shape[1] == 2, "gradients [N, 2, h, w]", gradients)
    if not use_triton(gradients):
        return reference.inverse(gradients, reach, damping)
    from mhnet_video.kernels.motion_kernel import launch_inverse

    return launch_inverse(gradients, reach, damping)


def slopes(fixed: Tensor, moving: Tensor, motion: Tensor, gradients: Tensor, clip: float) -> Tensor:
    """The errors that a motion leaves, clipped, times the fixed pictures' gradients.

    Args:
        fixed: `[N, h, w]`.
        moving: `[N, K, h, w]`.
        motion: `[N, K, 2, h, w]`.
        gradients: `[N, 2, h, w]`.
        clip: Largest error that counts.

    Returns:
        `[N, K, 2, h, w]`.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(fixed, moving, motion)
    expect(
        gradients.shape == (len(fixed), 2, *fixed.shape[1:]), "gradients [N, 2, h, w]", gradients
    )
    if not use_triton(fixed, moving, motion, gradients):
        return reference.slopes(fixed, moving, motion, gradients, clip)
    from mhnet_video.kernels.motion_kernel import launch_slopes

    return launch_slopes(fixed, moving, motion, gradients, clip)


def improved(motion: Tensor, slopes: Tensor, inverse: Tensor, reach: int, stride: float) -> Tensor:
    """The motion after a step of least squares over each square.

    Args:
        motion: `[N, K, 2, h, w]`.
        slopes: Likewise.
        inverse: `[N, 3, h, w]`.
        reach: Pixels from a square's middle to its edge.
        stride: Longest step in each direction, in pixels.

    Returns:
        `[N, K, 2, h, w]`.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = motion.ndim == 5 and slopes.shape == motion.shape
    fits &= inverse.shape == (len(motion), 3, *motion.shape[3:])
    expect(fits, "motion and slopes [N, K, 2, h, w], inverse [N, 3, h, w]", motion, slopes, inverse)
    if not use_triton(motion, slopes, inverse):
        return reference.improved(motion, slopes, inverse, reach, stride)
    from mhnet_video.kernels.motion_kernel import launch_improved

    return launch_improved(motion, slopes, inverse, reach, stride)


def smoothed(motion: Tensor, reach: int) -> Tensor:
    """The mean of a motion over each square.

    Args:
        motion: `[N, K, 2, h, w]`.
        reach: Pixels from a square's middle to its edge.

    Raises:
        ValueError: The shape does not fit.
    """
    expect(motion.ndim == 5 and motion.shape[2] == 2, "motion [N, K, 2, h, w]", motion)
    if not use_triton(motion):
        return reference.smoothed(motion, reach)
    from mhnet_video.kernels.motion_kernel import launch_smoothed

    return launch_smoothed(motion, reach)


def errors(fixed: Tensor, moving: Tensor, before: Tensor, after: Tensor, clip: float) -> Tensor:
    """The size of the errors with one motion and with another.

    Args:
        fixed: `[N, h, w]`.
        moving: `[N, K, h, w]`.
        before: `[N, K, 2, h, w]`.
        after: Likewise.
        clip: What larger errors count as.

    Returns:
        `[N, K, 2, h, w]`.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(fixed, moving, before)
    _check(fixed, moving, after)
    if not use_triton(fixed, moving, before, after):
        return reference.errors(fixed, moving, before, after, clip)
    from mhnet_video.kernels.motion_kernel import launch_errors

    return launch_errors(fixed, moving, before, after, clip)


def chosen(
    before: Tensor,
    after: Tensor,
    errors: Tensor,
    reach: int,
    gain: float,
    slope: float,
    floor: float,
) -> Tensor:
    """The second of two motions as far as it explains the neighbour better than the first does.

    It counts wholly where its mean error over the square is below `gain - slope` of the first
    one's, not at all where it is above `gain` of that, and partly between.

    Args:
        before: `[N, K, 2, h, w]`.
        after: Likewise.
        errors: Likewise, from `errors`.
        reach: Pixels from a square's middle to its edge.
        gain: See above.
        slope: See above.
        floor: Added to the first one's error.

    Returns:
        `[N, K, 2, h, w]`.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = before.ndim == 5 and before.shape == after.shape == errors.shape
    expect(fits, "both motions and errors [N, K, 2, h, w]", before, after, errors)
    if not use_triton(before, after, errors):
        return reference.chosen(before, after, errors, reach, gain, slope, floor)
    from mhnet_video.kernels.motion_kernel import launch_chosen

    return launch_chosen(before, after, errors, reach, gain, slope, floor)


def spread(plane: Tensor, height: int, width: int) -> Tensor:
    """The motion of each pixel by a plane.

    Args:
        plane: `[N, K, 2, 3]`: of the motion to the right and of that down, its value in the middle
            of the picture, and by how much it grows from there to the right edge and to the lower
            one, in pixels.
        height: h.
        width: w.

    Returns:
        `[N, K, 2, h, w]`.

    Raises:
        ValueError: The shape does not fit.
    """
    expect(plane.ndim == 4 and plane.shape[2:] == (2, 3), "plane [N, K, 2, 3]", plane)
    if not use_triton(plane):
        return reference.spread(plane, height, width)
    from mhnet_video.kernels.motion_kernel import launch_spread

    return launch_spread(plane, height, width)


def moments(gradients: Tensor) -> Tensor:
    """What a step of `fitted` must know of the gradients.

    Args:
        gradients: `[N, 2, h, w]`.

    Returns:
        `[N, 3, 6]`, the means of their products times 1, x, y, x², xy and y², both from -1 to 1.

    Raises:
        ValueError: The shape does not fit.
    """
    expect(gradients.ndim == 4 and gradients.shape[1] == 2, "gradients [N, 2, h, w]", gradients)
    if not use_triton(gradients):
        return reference.moments(gradients)
    from mhnet_video.kernels.motion_kernel import launch_moments

    return launch_moments(gradients)


def fitted(
    fixed: Tensor,
    moving: Tensor,
    plane: Tensor,
    gradients: Tensor,
    moments: Tensor,
    clip: float,
    terms: int,
    damping: float,
    stride: float,
) -> Tensor:
    """A plane after a step of least squares over the whole picture.

    Args:
        fixed: `[N, h, w]`.
        moving: `[N, K, h, w]`.
        plane: `[N, K, 2, 3]`, see `spread`.
        gradients: `[N, 2, h, w]`.
        moments: `[N, 3, 6]`, from `moments`.
        clip: Largest error that counts.
        terms: 1 where only the values in the middle are changed, else 3.
        damping: Added to the mean squares.
        stride: Largest change of each number.

    Returns:
        `[N, K, 2, 3]`.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = plane.shape == (*moving.shape[:2], 2, 3) and moments.shape == (len(fixed), 3, 6)
    fits &= gradients.shape == (len(fixed), 2, *fixed.shape[1:]) and terms in (1, 3)
    text = "plane [N, K, 2, 3], gradients [N, 2, h, w], moments [N, 3, 6]"
    expect(fits, text, plane, gradients, moments)
    inputs = (fixed, moving, plane, gradients, moments)
    if not use_triton(*inputs):
        return reference.fitted(*inputs, clip, terms, damping, stride)
    from mhnet_video.kernels.motion_kernel import launch_fitted

    return launch_fitted(*inputs, clip, terms, damping, stride)


def _check(fixed: Tensor, moving: Tensor, motion: Tensor) -> None:
    fits = moving.ndim == 4 and moving[:, 0].shape == fixed.shape
    fits &= motion.shape == (*moving.shape[:2], 2, *moving.shape[2:])
    text = "fixed [N, h, w], moving [N, K, h, w], motion [N, K, 2, h, w]"
    expect(fits, text, fixed, moving, motion)
