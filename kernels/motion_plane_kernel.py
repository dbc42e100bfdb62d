"""The motion that a whole picture shares: least squares for six numbers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.motion_math import (
    SUM_PIXELS,
    basis_of,
    clipped,
    error_of,
    grid_of,
    number_of,
    pixels_of,
    plane_of,
    size_of,
    spread_of,
    start_kernel,
)
from mhnet_video.kernels.triton_math import LEVELS, SIZES, added, is_last

_SMALL_PIXELS = 2048
"""A level of so many pixels is fitted by one program a neighbour, in all of its steps."""


@triton.jit
def _fit_sums(
    luma_ptr,
    gradients_ptr,
    plane,
    neighbour,
    count,
    block,
    height,
    width,
    clip,
    BLOCK: tl.constexpr,
):
    """Sums of errors, gradients and basis over BLOCK pixels: six of eight values."""
    picture = neighbour // count
    size = height * width
    index, y, x, mask = pixels_of(block, height, width, BLOCK)
    right, down = spread_of(plane, y, x, height, width)
    fixed_ptr = luma_ptr + picture * (count + 1) * size
    fixed = tl.load(fixed_ptr + index, mask=mask, other=0.0)
    moving_ptr = fixed_ptr + (1 + neighbour % count) * size
    error = error_of(fixed, moving_ptr, y, x, right, down, height, width, mask)
    error = tl.where(mask, clipped(error, clip), 0.0)
    column, row = basis_of(y, x, height, width)
    numbers = tl.arange(0, 8)
    sums = tl.zeros([8], tl.float32)
    for axis in tl.static_range(2):
        position = gradients_ptr + (picture * 2 + axis) * size + index
        slope = error * tl.load(position, mask=mask, other=0.0)
        sums += tl.where(numbers == 3 * axis, tl.sum(slope, axis=0), 0.0)
        sums += tl.where(numbers == 3 * axis + 1, tl.sum(slope * column, axis=0), 0.0)
        sums += tl.where(numbers == 3 * axis + 2, tl.sum(slope * row, axis=0), 0.0)
    return sums


@triton.jit
def _solved(moments_ptr, sums, plane, pixels, damping, stride, TERMS: tl.constexpr):
    """A plane after a step, by elimination; sums and planes are six of eight values."""
    unknown = tl.arange(0, 8)
    axis = unknown // TERMS
    term = unknown % TERMS
    exists = unknown < 2 * TERMS
    target = tl.where(exists, 3 * axis + term, -1)
    leads = target[:, None] == unknown[None, :]
    right = tl.sum(tl.where(leads, sums[None, :], 0.0), axis=1) / pixels
    # where the products of two of the basis are among the six
    low = tl.minimum(term[:, None], term[None, :])
    high = tl.maximum(term[:, None], term[None, :])
    pair = low * (5 - low) // 2 + high
    position = moments_ptr + (axis[:, None] + axis[None, :]) * 6 + pair
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
    step = clipped(right, stride)
    return plane - tl.sum(tl.where(leads, step[:, None], 0.0), axis=0)


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def fit_kernel(
    luma_ptr,  # [N, 1 + K, h, w]
    gradients_ptr,  # [N, 2, h, w]
    moments_ptr,  # [N, 3, 6]
    plane_ptr,  # [N, K, 2, 3]
    partial_ptr,  # [N * K, blocks, 8] float32
    done_ptr,  # [N * K] int32, zero before and after
    out_ptr,  # [N, K, 2, 3]
    count,  # K
    height,
    width,
    scale,  # of the plane before the step
    clip,
    damping,
    stride,
    TERMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum over BLOCK pixels of one neighbour; its last program makes the step."""
    neighbour = tl.program_id(1).to(tl.int64)
    blocks = tl.num_programs(0)
    plane = plane_of(plane_ptr + neighbour * 6, scale)
    sums = _fit_sums(
        luma_ptr,
        gradients_ptr,
        plane,
        neighbour,
        count,
        tl.program_id(0),
        height,
        width,
        clip,
        BLOCK,
    )
    numbers = tl.arange(0, 8)
    partial_ptr += neighbour * blocks * 8
    tl.store(partial_ptr + tl.program_id(0) * 8 + numbers, sums)
    if is_last(done_ptr + neighbour, blocks):
        sums = added(partial_ptr, blocks, 8, numbers, numbers < 8, 64)
        moments_ptr += neighbour // count * 18
        pixels = (height * width).to(tl.float32)
        result = _solved(moments_ptr, sums, plane, pixels, damping, stride, TERMS)
        tl.store(out_ptr + neighbour * 6 + numbers, result, mask=numbers < 6)


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def fit_steps_kernel(
    luma_ptr,  # [N, 1 + K, h, w]
    gradients_ptr,  # [N, 2, h, w]
    moments_ptr,  # [N, 3, 6]
    plane_ptr,  # [N, K, 2, 3]
    out_ptr,  # [N, K, 2, 3]
    count,  # K
    height,
    width,
    steps,
    scale,  # of the plane before the first step
    clip,
    damping,
    stride,
    TERMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All steps of one neighbour, of a level that is small."""
    neighbour = tl.program_id(0).to(tl.int64)
    plane = plane_of(plane_ptr + neighbour * 6, scale)
    moments_ptr += neighbour // count * 18
    pixels = (height * width).to(tl.float32)
    for _ in range(steps):
        sums = tl.zeros([8], tl.float32)
        for block in range(tl.cdiv(height * width, BLOCK)):
            sums += _fit_sums(
                luma_ptr,
                gradients_ptr,
                plane,
                neighbour,
                count,
                block,
                height,
                width,
                clip,
                BLOCK,
            )
        plane = _solved(moments_ptr, sums, plane, pixels, damping, stride, TERMS)
    numbers = tl.arange(0, 8)
    tl.store(out_ptr + neighbour * 6 + numbers, plane, mask=numbers < 6)


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def kept_kernel(
    luma_ptr,  # [N, 1 + K, h, w]
    plane_ptr,  # [N, K, 2, 3]
    partial_ptr,  # [N * K, blocks, 8] float32
    done_ptr,  # [N * K] int32, zero before and after
    out_ptr,  # [N, K, 2, 3]
    count,  # K
    height,
    width,
    clip,
    gain,
    floor,
    BLOCK: tl.constexpr,
):
    """Sum the errors of BLOCK pixels with and without a motion; the last program compares them."""
    neighbour = tl.program_id(1).to(tl.int64)
    blocks = tl.num_programs(0)
    size = height * width
    plane = plane_of(plane_ptr + neighbour * 6, 1.0)
    index, y, x, mask = pixels_of(tl.program_id(0), height, width, BLOCK)
    fixed_ptr = luma_ptr + neighbour // count * (count + 1) * size
    moving_ptr = fixed_ptr + (1 + neighbour % count) * size
    fixed = tl.load(fixed_ptr + index, mask=mask, other=0.0)
    right, down = spread_of(plane, y, x, height, width)
    error = error_of(fixed, moving_ptr, y, x, right, down, height, width, mask)
    having = tl.sum(tl.where(mask, tl.minimum(tl.abs(error), clip), 0.0), axis=0)
    error = tl.load(moving_ptr + index, mask=mask, other=0.0) - fixed
    without = tl.sum(tl.where(mask, tl.minimum(tl.abs(error), clip), 0.0), axis=0)
    numbers = tl.arange(0, 8)
    sums = tl.where(numbers == 0, having, tl.where(numbers == 1, without, 0.0))
    partial_ptr += neighbour * blocks * 8
    tl.store(partial_ptr + tl.program_id(0) * 8 + numbers, sums)
    if is_last(done_ptr + neighbour, blocks):
        means = added(partial_ptr, blocks, 8, numbers, numbers < 8, 64) / size.to(tl.float32)
        is_kept = number_of(means, 0) < gain * (number_of(means, 1) + floor)
        result = tl.where(is_kept, plane, 0.0)
        tl.store(out_ptr + neighbour * 6 + numbers, result, mask=numbers < 6)


def launch_fitted(
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
    done: Tensor,
) -> Tensor:
    """Run the kernels on arguments that motion_ops has checked; see there."""
    batch, frames, height, width = luma.shape
    tensors = {"luma_ptr": luma, "gradients_ptr": gradients, "moments_ptr": moments}
    numbers = {**size_of(luma), "clip": clip, "damping": damping, "stride": stride}
    if height * width <= _SMALL_PIXELS:
        out = torch.empty_like(plane, memory_format=torch.contiguous_format)
        start_kernel(
            fit_steps_kernel,
            (batch * (frames - 1),),
            {**tensors, "plane_ptr": plane, "out_ptr": out},
            {**numbers, "steps": steps, "scale": scale},
            block=SUM_PIXELS,
            TERMS=terms,
        )
        return out
    grid = grid_of(luma, SUM_PIXELS)
    partial = luma.new_empty(grid[1], grid[0], 8)
    for step in range(steps):
        out = torch.empty_like(plane, memory_format=torch.contiguous_format)
        start_kernel(
            fit_kernel,
            grid,
            {
                **tensors,
                "plane_ptr": plane,
                "partial_ptr": partial,
                "done_ptr": done,
                "out_ptr": out,
            },
            {**numbers, "scale": 1.0 if step else scale},
            block=SUM_PIXELS,
            TERMS=terms,
        )
        plane = out
    return plane


def launch_kept(
    luma: Tensor, plane: Tensor, clip: float, gain: float, floor: float, done: Tensor
) -> Tensor:
    """Run the kernel on arguments that motion_ops has checked; see there."""
    out = torch.empty_like(plane, memory_format=torch.contiguous_format)
    grid = grid_of(luma, SUM_PIXELS)
    start_kernel(
        kept_kernel,
        grid,
        {
            "luma_ptr": luma,
            "plane_ptr": plane,
            "partial_ptr": luma.new_empty(grid[1], grid[0], 8),
            "done_ptr": done,
            "out_ptr": out,
        },
        {**size_of(luma), "clip": clip, "gain": gain, "floor": floor},
        block=SUM_PIXELS,
    )
    return out
