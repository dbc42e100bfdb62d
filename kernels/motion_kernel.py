"""The motion between frames: sampling and squares on small planes, each pass one kernel.

The planes are a sixteenth of a frame and smaller, so that they stay in the caches, and squares are
summed where they are wanted: what counts is how few kernels there are, because dozens of them
follow one another.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start

_BLOCK = 128


@triton.jit
def _pixels(height, width, BLOCK: tl.constexpr):
    """The indices of BLOCK pixels of a plane, their rows and columns, and whether they exist."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return index, index // width, index % width, index < height * width


@triton.jit
def _between(x, last):
    """An integer, held between 0 and the last one."""
    return tl.minimum(tl.maximum(x, 0), last)


@triton.jit
def _mean(ptr, y, x, height, width, mask, REACH: tl.constexpr):
    """The mean over the square around each pixel."""
    total = tl.zeros_like(y).to(tl.float32)
    for dy in range(2 * REACH + 1):
        line = ptr + _between(y + dy - REACH, height - 1) * width
        for dx in range(2 * REACH + 1):
            total += tl.load(line + _between(x + dx - REACH, width - 1), mask=mask, other=0.0)
    return total / ((2 * REACH + 1) * (2 * REACH + 1))


@triton.jit
def _sampled(ptr, y, x, right, down, height, width, mask):
    """A plane where a motion leads, bilinearly."""
    from_x = tl.minimum(tl.maximum(x.to(tl.float32) + right, 0.0), width - 1.0)
    from_y = tl.minimum(tl.maximum(y.to(tl.float32) + down, 0.0), height - 1.0)
    left = from_x.to(tl.int32)
    top = from_y.to(tl.int32)
    across = from_x - left.to(tl.float32)
    below = from_y - top.to(tl.float32)
    beside = tl.minimum(left + 1, width - 1)
    above_row = ptr + top * width
    under_row = ptr + tl.minimum(top + 1, height - 1) * width
    a = tl.load(above_row + left, mask=mask, other=0.0)
    b = tl.load(above_row + beside, mask=mask, other=0.0)
    c = tl.load(under_row + left, mask=mask, other=0.0)
    d = tl.load(under_row + beside, mask=mask, other=0.0)
    above = a + across * (b - a)
    under = c + across * (d - c)
    return above + below * (under - above)


@triton.jit
def gradients_kernel(
    x_ptr,  # [N, h, w]
    out_ptr,  # [N, 2, h, w]
    height,
    width,
    BLOCK: tl.constexpr,
):
    """How BLOCK pixels of one picture grow."""
    picture = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    x_ptr += picture * size
    out_ptr += picture * 2 * size
    after = tl.load(x_ptr + y * width + _between(x + 1, width - 1), mask=mask, other=0.0)
    before = tl.load(x_ptr + y * width + _between(x - 1, width - 1), mask=mask, other=0.0)
    tl.store(out_ptr + index, (after - before) / 2, mask=mask)
    after = tl.load(x_ptr + _between(y + 1, height - 1) * width + x, mask=mask, other=0.0)
    before = tl.load(x_ptr + _between(y - 1, height - 1) * width + x, mask=mask, other=0.0)
    tl.store(out_ptr + size + index, (after - before) / 2, mask=mask)


@triton.jit
def inverse_kernel(
    gradients_ptr,  # [N, 2, h, w]
    out_ptr,  # [N, 3, h, w]
    height,
    width,
    damping,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The inverses of the matrices of BLOCK squares of one picture."""
    picture = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    gradients_ptr += picture * 2 * size
    a = tl.zeros([BLOCK], tl.float32)
    b = tl.zeros([BLOCK], tl.float32)
    c = tl.zeros([BLOCK], tl.float32)
    for dy in range(2 * REACH + 1):
        line = gradients_ptr + _between(y + dy - REACH, height - 1) * width
        for dx in range(2 * REACH + 1):
            place = line + _between(x + dx - REACH, width - 1)
            right = tl.load(place, mask=mask, other=0.0)
            down = tl.load(place + size, mask=mask, other=0.0)
            a += right * right
            b += right * down
            c += down * down
    area = (2 * REACH + 1) * (2 * REACH + 1)
    a = a / area + damping
    b = b / area
    c = c / area + damping
    determinant = a * c - b * b
    out_ptr += picture * 3 * size + index
    tl.store(out_ptr, c / determinant, mask=mask)
    tl.store(out_ptr + size, -b / determinant, mask=mask)
    tl.store(out_ptr + 2 * size, a / determinant, mask=mask)


@triton.jit
def slopes_kernel(
    fixed_ptr,  # [N, h, w]
    moving_ptr,  # [N, K, h, w]
    motion_ptr,  # [N, K, 2, h, w]
    gradients_ptr,  # [N, 2, h, w]
    out_ptr,  # [N, K, 2, h, w]
    count,  # K
    height,
    width,
    clip,
    BLOCK: tl.constexpr,
):
    """The errors of BLOCK pixels of one neighbour, times the gradients."""
    neighbour = tl.program_id(1).to(tl.int64)
    picture = neighbour // count
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    motion_ptr += neighbour * 2 * size + index
    right = tl.load(motion_ptr, mask=mask, other=0.0)
    down = tl.load(motion_ptr + size, mask=mask, other=0.0)
    value = _sampled(moving_ptr + neighbour * size, y, x, right, down, height, width, mask)
    error = value - tl.load(fixed_ptr + picture * size + index, mask=mask, other=0.0)
    error = tl.minimum(tl.maximum(error, -clip), clip)
    gradients_ptr += picture * 2 * size + index
    out_ptr += neighbour * 2 * size + index
    tl.store(out_ptr, error * tl.load(gradients_ptr, mask=mask, other=0.0), mask=mask)
    down = error * tl.load(gradients_ptr + size, mask=mask, other=0.0)
    tl.store(out_ptr + size, down, mask=mask)


@triton.jit
def improved_kernel(
    motion_ptr,  # [N, K, 2, h, w]
    slopes_ptr,  # [N, K, 2, h, w]
    inverse_ptr,  # [N, 3, h, w]
    out_ptr,  # [N, K, 2, h, w]
    count,  # K
    height,
    width,
    stride,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The motion of BLOCK pixels of one neighbour after a step."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    slopes_ptr += neighbour * 2 * size
    right = _mean(slopes_ptr, y, x, height, width, mask, REACH)
    down = _mean(slopes_ptr + size, y, x, height, width, mask, REACH)
    inverse_ptr += neighbour // count * 3 * size + index
    p = tl.load(inverse_ptr, mask=mask, other=0.0)
    q = tl.load(inverse_ptr + size, mask=mask, other=0.0)
    r = tl.load(inverse_ptr + 2 * size, mask=mask, other=0.0)
    step_x = tl.minimum(tl.maximum(p * right + q * down, -stride), stride)
    step_y = tl.minimum(tl.maximum(q * right + r * down, -stride), stride)
    place = neighbour * 2 * size + index
    old = tl.load(motion_ptr + place, mask=mask, other=0.0)
    tl.store(out_ptr + place, old - step_x, mask=mask)
    old = tl.load(motion_ptr + place + size, mask=mask, other=0.0)
    tl.store(out_ptr + place + size, old - step_y, mask=mask)


@triton.jit
def smoothed_kernel(
    motion_ptr,  # [N * K * 2, h, w]
    out_ptr,  # [N * K * 2, h, w]
    height,
    width,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The means over BLOCK squares of one plane."""
    plane = tl.program_id(1).to(tl.int64) * height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    value = _mean(motion_ptr + plane, y, x, height, width, mask, REACH)
    tl.store(out_ptr + plane + index, value, mask=mask)


@triton.jit
def errors_kernel(
    fixed_ptr,  # [N, h, w]
    moving_ptr,  # [N, K, h, w]
    motion_ptr,  # [N, K, 2, h, w]
    out_ptr,  # [N, K, 2, h, w]
    count,  # K
    height,
    width,
    clip,
    BLOCK: tl.constexpr,
):
    """The errors of BLOCK pixels of one neighbour, without the motion and with it."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    fixed = tl.load(fixed_ptr + neighbour // count * size + index, mask=mask, other=0.0)
    motion_ptr += neighbour * 2 * size + index
    right = tl.load(motion_ptr, mask=mask, other=0.0)
    down = tl.load(motion_ptr + size, mask=mask, other=0.0)
    moving_ptr += neighbour * size
    value = _sampled(moving_ptr, y, x, right, down, height, width, mask)
    still = tl.load(moving_ptr + index, mask=mask, other=0.0)
    out_ptr += neighbour * 2 * size + index
    tl.store(out_ptr, tl.minimum(tl.abs(still - fixed), clip), mask=mask)
    tl.store(out_ptr + size, tl.minimum(tl.abs(value - fixed), clip), mask=mask)


@triton.jit
def chosen_kernel(
    motion_ptr,  # [N, K, 2, h, w]
    errors_ptr,  # [N, K, 2, h, w]
    out_ptr,  # [N, K, 2, h, w]
    height,
    width,
    gain,
    slope,
    floor,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The motion of BLOCK pixels of one neighbour, as far as it explains more than none does."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    errors_ptr += neighbour * 2 * size
    without = _mean(errors_ptr, y, x, height, width, mask, REACH) + floor
    having = _mean(errors_ptr + size, y, x, height, width, mask, REACH)
    kept = (gain * without - having) / (slope * without)
    kept = tl.minimum(tl.maximum(kept, 0.0), 1.0)
    place = neighbour * 2 * size + index
    right = tl.load(motion_ptr + place, mask=mask, other=0.0)
    tl.store(out_ptr + place, kept * right, mask=mask)
    down = tl.load(motion_ptr + place + size, mask=mask, other=0.0)
    tl.store(out_ptr + place + size, kept * down, mask=mask)


def _start(
    kernel: object,
    planes: int,
    tensors: dict[str, Tensor],
    numbers: dict[str, int | float],
    **constants: int,
) -> None:
    """Run a kernel on BLOCK pixels of each plane at a time."""
    height, width = next(iter(tensors.values())).shape[-2:]
    start(
        Launch(
            kernel=kernel,
            grid=(triton.cdiv(height * width, _BLOCK), planes),
            arguments={**tensors, "height": height, "width": width, **numbers},
            constants={**constants, "BLOCK": _BLOCK},
            num_warps=4,
        )
    )


def launch_gradients(x: Tensor) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = x.new_empty(len(x), 2, *x.shape[1:])
    _start(gradients_kernel, len(x), {"x_ptr": x.contiguous(), "out_ptr": out}, {})
    return out


def launch_inverse(gradients: Tensor, reach: int, damping: float) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = gradients.new_empty(len(gradients), 3, *gradients.shape[2:])
    tensors = {"gradients_ptr": gradients.contiguous(), "out_ptr": out}
    _start(inverse_kernel, len(out), tensors, {"damping": damping}, REACH=reach)
    return out


def launch_slopes(
    fixed: Tensor, moving: Tensor, motion: Tensor, gradients: Tensor, clip: float
) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(motion, memory_format=torch.contiguous_format)
    tensors = {
        "fixed_ptr": fixed.contiguous(),
        "moving_ptr": moving.contiguous(),
        "motion_ptr": motion.contiguous(),
        "gradients_ptr": gradients.contiguous(),
        "out_ptr": out,
    }
    batch, count = moving.shape[:2]
    _start(slopes_kernel, batch * count, tensors, {"count": count, "clip": clip})
    return out


def launch_improved(
    motion: Tensor, slopes: Tensor, inverse: Tensor, reach: int, stride: float
) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(motion, memory_format=torch.contiguous_format)
    tensors = {
        "motion_ptr": motion.contiguous(),
        "slopes_ptr": slopes.contiguous(),
        "inverse_ptr": inverse.contiguous(),
        "out_ptr": out,
    }
    batch, count = motion.shape[:2]
    numbers = {"count": count, "stride": stride}
    _start(improved_kernel, batch * count, tensors, numbers, REACH=reach)
    return out


def launch_smoothed(motion: Tensor, reach: int) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(motion, memory_format=torch.contiguous_format)
    planes = motion.shape[0] * motion.shape[1] * 2
    tensors = {"motion_ptr": motion.contiguous(), "out_ptr": out}
    _start(smoothed_kernel, planes, tensors, {}, REACH=reach)
    return out


def launch_errors(fixed: Tensor, moving: Tensor, motion: Tensor, clip: float) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(motion, memory_format=torch.contiguous_format)
    tensors = {
        "fixed_ptr": fixed.contiguous(),
        "moving_ptr": moving.contiguous(),
        "motion_ptr": motion.contiguous(),
        "out_ptr": out,
    }
    batch, count = moving.shape[:2]
    _start(errors_kernel, batch * count, tensors, {"count": count, "clip": clip})
    return out


def launch_chosen(
    motion: Tensor, errors: Tensor, reach: int, gain: float, slope: float, floor: float
) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(motion, memory_format=torch.contiguous_format)
    tensors = {
        "motion_ptr": motion.contiguous(),
        "errors_ptr": errors.contiguous(),
        "out_ptr": out,
    }
    planes = motion.shape[0] * motion.shape[1]
    numbers = {"gain": gain, "slope": slope, "floor": floor}
    _start(chosen_kernel, planes, tensors, numbers, REACH=reach)
    return out
