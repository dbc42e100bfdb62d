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
from mhnet_video.kernels.triton_math import SIZES

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


@triton.jit(do_not_specialize=SIZES)
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


@triton.jit(do_not_specialize=SIZES)
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
            position = line + _between(x + dx - REACH, width - 1)
            right = tl.load(position, mask=mask, other=0.0)
            down = tl.load(position + size, mask=mask, other=0.0)
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


@triton.jit(do_not_specialize=SIZES)
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


@triton.jit(do_not_specialize=SIZES)
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
    position = neighbour * 2 * size + index
    old = tl.load(motion_ptr + position, mask=mask, other=0.0)
    tl.store(out_ptr + position, old - step_x, mask=mask)
    old = tl.load(motion_ptr + position + size, mask=mask, other=0.0)
    tl.store(out_ptr + position + size, old - step_y, mask=mask)


@triton.jit(do_not_specialize=SIZES)
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


@triton.jit(do_not_specialize=SIZES)
def errors_kernel(
    fixed_ptr,  # [N, h, w]
    moving_ptr,  # [N, K, h, w]
    before_ptr,  # [N, K, 2, h, w]
    after_ptr,  # [N, K, 2, h, w]
    out_ptr,  # [N, K, 2, h, w]
    count,  # K
    height,
    width,
    clip,
    BLOCK: tl.constexpr,
):
    """The errors of BLOCK pixels of one neighbour, with one motion and with another."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    fixed = tl.load(fixed_ptr + neighbour // count * size + index, mask=mask, other=0.0)
    moving_ptr += neighbour * size
    position = neighbour * 2 * size + index
    right = tl.load(before_ptr + position, mask=mask, other=0.0)
    down = tl.load(before_ptr + position + size, mask=mask, other=0.0)
    value = _sampled(moving_ptr, y, x, right, down, height, width, mask)
    tl.store(out_ptr + position, tl.minimum(tl.abs(value - fixed), clip), mask=mask)
    right = tl.load(after_ptr + position, mask=mask, other=0.0)
    down = tl.load(after_ptr + position + size, mask=mask, other=0.0)
    value = _sampled(moving_ptr, y, x, right, down, height, width, mask)
    tl.store(out_ptr + position + size, tl.minimum(tl.abs(value - fixed), clip), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def chosen_kernel(
    before_ptr,  # [N, K, 2, h, w]
    after_ptr,  # [N, K, 2, h, w]
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
    """The second motion of BLOCK pixels of one neighbour, as far as it explains more."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    errors_ptr += neighbour * 2 * size
    old = _mean(errors_ptr, y, x, height, width, mask, REACH) + floor
    new = _mean(errors_ptr + size, y, x, height, width, mask, REACH)
    share = (gain * old - new) / (slope * old)
    share = tl.minimum(tl.maximum(share, 0.0), 1.0)
    position = neighbour * 2 * size + index
    for axis in tl.static_range(2):
        before = tl.load(before_ptr + position + axis * size, mask=mask, other=0.0)
        after = tl.load(after_ptr + position + axis * size, mask=mask, other=0.0)
        value = before + share * (after - before)
        tl.store(out_ptr + position + axis * size, value, mask=mask)


@triton.jit
def _basis(y, x, height, width):
    """The column and the row of pixels, from -1 to 1."""
    column = (2.0 * x.to(tl.float32) + 1.0) / width - 1.0
    row = (2.0 * y.to(tl.float32) + 1.0) / height - 1.0
    return column, row


@triton.jit(do_not_specialize=SIZES)
def spread_kernel(
    plane_ptr,  # [N, K, 2, 3]
    out_ptr,  # [N, K, 2, h, w]
    height,
    width,
    BLOCK: tl.constexpr,
):
    """The motion of BLOCK pixels of one neighbour by a plane."""
    neighbour = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    column, row = _basis(y, x, height, width)
    for axis in tl.static_range(2):
        plane = plane_ptr + neighbour * 6 + 3 * axis
        value = tl.load(plane) + tl.load(plane + 1) * column + tl.load(plane + 2) * row
        tl.store(out_ptr + (neighbour * 2 + axis) * size + index, value, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def moments_kernel(
    gradients_ptr,  # [N, 2, h, w]
    out_ptr,  # [N, blocks, 3, 6]
    blocks,
    height,
    width,
    BLOCK: tl.constexpr,
):
    """Sums of products of gradients and basis over BLOCK pixels of one picture."""
    picture = tl.program_id(1).to(tl.int64)
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    column, row = _basis(y, x, height, width)
    gradients_ptr += picture * 2 * size + index
    right = tl.load(gradients_ptr, mask=mask, other=0.0)
    down = tl.load(gradients_ptr + size, mask=mask, other=0.0)
    out_ptr += (picture * blocks + tl.program_id(0)) * 18
    for number in tl.static_range(3):
        product = right * right
        if number == 1:
            product = right * down
        if number == 2:
            product = down * down
        position = out_ptr + 6 * number
        tl.store(position, tl.sum(product, axis=0))
        tl.store(position + 1, tl.sum(product * column, axis=0))
        tl.store(position + 2, tl.sum(product * row, axis=0))
        tl.store(position + 3, tl.sum(product * column * column, axis=0))
        tl.store(position + 4, tl.sum(product * column * row, axis=0))
        tl.store(position + 5, tl.sum(product * row * row, axis=0))


@triton.jit(do_not_specialize=SIZES)
def fit_kernel(
    fixed_ptr,  # [N, h, w]
    moving_ptr,  # [N, K, h, w]
    plane_ptr,  # [N, K, 2, 3]
    gradients_ptr,  # [N, 2, h, w]
    out_ptr,  # [N, K, blocks, 2, 3]
    count,  # K
    blocks,
    height,
    width,
    clip,
    BLOCK: tl.constexpr,
):
    """Sums of errors, gradients and basis over BLOCK pixels of one neighbour."""
    neighbour = tl.program_id(1).to(tl.int64)
    picture = neighbour // count
    size = height * width
    index, y, x, mask = _pixels(height, width, BLOCK)
    column, row = _basis(y, x, height, width)
    plane = plane_ptr + neighbour * 6
    right = tl.load(plane) + tl.load(plane + 1) * column + tl.load(plane + 2) * row
    down = tl.load(plane + 3) + tl.load(plane + 4) * column + tl.load(plane + 5) * row
    value = _sampled(moving_ptr + neighbour * size, y, x, right, down, height, width, mask)
    error = value - tl.load(fixed_ptr + picture * size + index, mask=mask, other=0.0)
    error = tl.minimum(tl.maximum(error, -clip), clip)
    out_ptr += (neighbour * blocks + tl.program_id(0)) * 6
    for axis in tl.static_range(2):
        position = gradients_ptr + (picture * 2 + axis) * size + index
        slope = error * tl.load(position, mask=mask, other=0.0)
        tl.store(out_ptr + 3 * axis, tl.sum(slope, axis=0))
        tl.store(out_ptr + 3 * axis + 1, tl.sum(slope * column, axis=0))
        tl.store(out_ptr + 3 * axis + 2, tl.sum(slope * row, axis=0))


@triton.jit(do_not_specialize=SIZES)
def solve_kernel(
    moments_ptr,  # [N, 3, 6]
    sums_ptr,  # [N, K, blocks, 2, 3]
    plane_ptr,  # [N, K, 2, 3]
    out_ptr,  # [N, K, 2, 3]
    count,  # K
    blocks,
    pixels,
    damping,
    stride,
    TERMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A step of one neighbour's plane, by elimination."""
    neighbour = tl.program_id(0).to(tl.int64)
    unknown = tl.arange(0, 8)
    axis = unknown // TERMS
    term = unknown % TERMS
    exists = unknown < 2 * TERMS
    # the sums of all blocks
    right = tl.zeros([8], tl.float32)
    for first in range(0, blocks, BLOCK):
        block = first + tl.arange(0, BLOCK)
        position = (neighbour * blocks + block)[:, None] * 6 + (3 * axis + term)[None, :]
        mask = (block < blocks)[:, None] & exists[None, :]
        right += tl.sum(tl.load(sums_ptr + position, mask=mask, other=0.0), axis=0)
    right = right / pixels
    # where the products of two of the basis are among the six
    low = tl.minimum(term[:, None], term[None, :])
    high = tl.maximum(term[:, None], term[None, :])
    pair = low * (5 - low) // 2 + high
    position = moments_ptr + neighbour // count * 18 + (axis[:, None] + axis[None, :]) * 6 + pair
    both = exists[:, None] & exists[None, :]
    diagonal = unknown[:, None] == unknown[None, :]
    left = tl.load(position, mask=both, other=0.0)
    left += tl.where(diagonal, tl.where(both, damping, 1.0), 0.0)
    # positive definite: no row need be chosen
    for number in tl.static_range(2 * TERMS):
        is_row = (unknown == number)[:, None]
        is_column = (unknown == number)[None, :]
        pivot = tl.sum(tl.sum(tl.where(is_row & is_column, left, 0.0), axis=1), axis=0)
        row = tl.sum(tl.where(is_row, left, 0.0), axis=0) / pivot
        column = tl.sum(tl.where(is_column, left, 0.0), axis=1)
        value = tl.sum(tl.where(unknown == number, right, 0.0), axis=0) / pivot
        right = tl.where(unknown == number, value, right - column * value)
        left = tl.where(is_row, row[None, :], left - column[:, None] * row[None, :])
    step = tl.minimum(tl.maximum(right, -stride), stride)
    target = tl.where(exists, 3 * axis + term, -1)
    change = tl.sum(tl.where(target[:, None] == unknown[None, :], step[:, None], 0.0), axis=0)
    mask = unknown < 6
    old = tl.load(plane_ptr + neighbour * 6 + unknown, mask=mask, other=0.0)
    tl.store(out_ptr + neighbour * 6 + unknown, old - change, mask=mask)


def _start(
    kernel: object,
    planes: int,
    tensors: dict[str, Tensor],
    numbers: dict[str, int | float],
    **constants: int,
) -> None:
    """Run a kernel on BLOCK pixels of each plane at a time."""
    height, width = next(iter(tensors.values())).shape[-2:]
    inputs = {name: tensor.contiguous() for name, tensor in tensors.items()}
    start(
        Launch(
            kernel=kernel,
            grid=(triton.cdiv(height * width, _BLOCK), planes),
            arguments={**inputs, "height": height, "width": width, **numbers},
            constants={**constants, "BLOCK": _BLOCK},
            num_warps=4,
        )
    )


def launch_gradients(x: Tensor) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = x.new_empty(len(x), 2, *x.shape[1:])
    _start(gradients_kernel, len(x), {"x_ptr": x, "out_ptr": out}, {})
    return out


def launch_inverse(gradients: Tensor, reach: int, damping: float) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = gradients.new_empty(len(gradients), 3, *gradients.shape[2:])
    tensors = {"gradients_ptr": gradients, "out_ptr": out}
    _start(inverse_kernel, len(out), tensors, {"damping": damping}, REACH=reach)
    return out


def launch_slopes(
    fixed: Tensor, moving: Tensor, motion: Tensor, gradients: Tensor, clip: float
) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(motion, memory_format=torch.contiguous_format)
    tensors = {
        "fixed_ptr": fixed,
        "moving_ptr": moving,
        "motion_ptr": motion,
        "gradients_ptr": gradients,
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
        "motion_ptr": motion,
        "slopes_ptr": slopes,
        "inverse_ptr": inverse,
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
    tensors = {"motion_ptr": motion, "out_ptr": out}
    _start(smoothed_kernel, planes, tensors, {}, REACH=reach)
    return out


def launch_errors(
    fixed: Tensor, moving: Tensor, before: Tensor, after: Tensor, clip: float
) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(before, memory_format=torch.contiguous_format)
    tensors = {
        "fixed_ptr": fixed,
        "moving_ptr": moving,
        "before_ptr": before,
        "after_ptr": after,
        "out_ptr": out,
    }
    batch, count = moving.shape[:2]
    _start(errors_kernel, batch * count, tensors, {"count": count, "clip": clip})
    return out


def launch_chosen(
    before: Tensor,
    after: Tensor,
    errors: Tensor,
    reach: int,
    gain: float,
    slope: float,
    floor: float,
) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(before, memory_format=torch.contiguous_format)
    tensors = {
        "before_ptr": before,
        "after_ptr": after,
        "errors_ptr": errors,
        "out_ptr": out,
    }
    planes = before.shape[0] * before.shape[1]
    numbers = {"gain": gain, "slope": slope, "floor": floor}
    _start(chosen_kernel, planes, tensors, numbers, REACH=reach)
    return out


def launch_spread(plane: Tensor, height: int, width: int) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = plane.new_empty(*plane.shape[:2], 2, height, width)
    tensors = {"out_ptr": out, "plane_ptr": plane}
    _start(spread_kernel, plane.shape[0] * plane.shape[1], tensors, {})
    return out


def launch_moments(gradients: Tensor) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    batch, _, height, width = gradients.shape
    blocks = triton.cdiv(height * width, _BLOCK)
    sums = gradients.new_empty(batch, blocks, 3, 6)
    tensors = {"gradients_ptr": gradients, "out_ptr": sums}
    _start(moments_kernel, batch, tensors, {"blocks": blocks})
    return sums.sum(1) / (height * width)


def launch_fitted(
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
    """Run the kernels on arguments that motion_ops has checked; see there."""
    batch, count, height, width = moving.shape
    blocks = triton.cdiv(height * width, _BLOCK)
    sums = plane.new_empty(batch, count, blocks, 2, 3)
    tensors = {
        "fixed_ptr": fixed,
        "moving_ptr": moving,
        "plane_ptr": plane,
        "gradients_ptr": gradients,
        "out_ptr": sums,
    }
    numbers = {"count": count, "blocks": blocks, "clip": clip}
    _start(fit_kernel, batch * count, tensors, numbers)
    out = torch.empty_like(plane, memory_format=torch.contiguous_format)
    start(
        Launch(
            kernel=solve_kernel,
            grid=(batch * count,),
            arguments={
                "moments_ptr": moments.contiguous(),
                "sums_ptr": sums,
                "plane_ptr": plane.contiguous(),
                "out_ptr": out,
                "count": count,
                "blocks": blocks,
                "pixels": height * width,
                "damping": damping,
                "stride": stride,
            },
            constants={"TERMS": terms, "BLOCK": 64},
            num_warps=1,
        )
    )
    return out
