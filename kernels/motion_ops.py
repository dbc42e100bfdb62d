"""The operations that find the motion between frames: their contracts, and kernel or reference.

Pictures are luma in [0, 1]: the fixed ones `[N, h, w]`, the neighbours of each `[N, K, h, w]`.
Motions are `[N, K, 2, h, w]`, to the right and down, in pixels. All are float32; a square has its
pixel in the middle, and the picture's edge repeated beyond the picture. See align.py.
"""

from torch import Tensor

from mhnet_video.kernels import motion_reference as reference
from mhnet_video.kernels.dispatch import use_triton


def _expect(condition: bool, text: str, *tensors: Tensor) -> None:
    if not condition:
        shapes = ", ".join(str(list(each.shape)) for each in tensors)
        raise ValueError(f"expected {text}, got {shapes}")


def gradients(x: Tensor) -> Tensor:
    """How pictures grow to the right and down, from the pixels on both sides.

    Args:
        x: `[N, h, w]`.

    Returns:
        `[N, 2, h, w]`.

    Raises:
        ValueError: The shape does not fit.
    """
    _expect(x.ndim == 3, "x [N, h, w]", x)
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
    _expect(gradients.ndim == 4 and gradients.shape[1] == 2, "gradients [N, 2, h, w]", gradients)
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
    _expect(
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
    _expect(
        fits, "motion and slopes [N, K, 2, h, w], inverse [N, 3, h, w]", motion, slopes, inverse
    )
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
    _expect(motion.ndim == 5 and motion.shape[2] == 2, "motion [N, K, 2, h, w]", motion)
    if not use_triton(motion):
        return reference.smoothed(motion, reach)
    from mhnet_video.kernels.motion_kernel import launch_smoothed

    return launch_smoothed(motion, reach)


def errors(fixed: Tensor, moving: Tensor, motion: Tensor, clip: float) -> Tensor:
    """The size of the errors without a motion and with it.

    Args:
        fixed: `[N, h, w]`.
        moving: `[N, K, h, w]`.
        motion: `[N, K, 2, h, w]`.
        clip: What larger errors count as.

    Returns:
        `[N, K, 2, h, w]`.

    Raises:
        ValueError: A shape does not fit.
    """
    _check(fixed, moving, motion)
    if not use_triton(fixed, moving, motion):
        return reference.errors(fixed, moving, motion, clip)
    from mhnet_video.kernels.motion_kernel import launch_errors

    return launch_errors(fixed, moving, motion, clip)


def chosen(
    motion: Tensor, errors: Tensor, reach: int, gain: float, slope: float, floor: float
) -> Tensor:
    """A motion, as far as it explains the neighbour better than none does.

    It counts wholly where its mean error over the square is below `gain - slope` of that without
    it, not at all where it is above `gain` of that, and partly between.

    Args:
        motion: `[N, K, 2, h, w]`.
        errors: Likewise, from `errors`.
        reach: Pixels from a square's middle to its edge.
        gain: See above.
        slope: See above.
        floor: Added to the error without the motion.

    Returns:
        `[N, K, 2, h, w]`.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = motion.ndim == 5 and errors.shape == motion.shape
    _expect(fits, "motion and errors [N, K, 2, h, w]", motion, errors)
    if not use_triton(motion, errors):
        return reference.chosen(motion, errors, reach, gain, slope, floor)
    from mhnet_video.kernels.motion_kernel import launch_chosen

    return launch_chosen(motion, errors, reach, gain, slope, floor)


def _check(fixed: Tensor, moving: Tensor, motion: Tensor) -> None:
    fits = moving.ndim == 4 and moving[:, 0].shape == fixed.shape
    fits &= motion.shape == (*moving.shape[:2], 2, *moving.shape[2:])
    text = "fixed [N, h, w], moving [N, K, h, w], motion [N, K, 2, h, w]"
    _expect(fits, text, fixed, moving, motion)
