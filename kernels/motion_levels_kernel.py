"""What the motion between frames is found from, of all resolutions at once.

The levels of a pyramid lie one behind the other in memory, so that one launch does for all of them:
a program finds its level by its number.
"""

import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.motion_math import (
    BLOCK_PIXELS,
    SUM_PIXELS,
    basis_of,
    between,
    pixels_of,
    start_kernel,
)
from mhnet_video.kernels.triton_math import LEVELS, SIZES, added, is_last

_HALVINGS = 3
"""Most levels that are made from one: the last of them is the mean of 64 pixels."""


@triton.jit
def _level_of(block, height, width, levels, BLOCK: tl.constexpr):
    """Which level a block is of, its number there, and how many pixels are before that level."""
    level = block * 0
    before = block * 0
    for number in range(levels - 1):
        pixels = (height >> number) * (width >> number)
        blocks = tl.cdiv(pixels, BLOCK)
        is_beyond = (level == number) & (block >= blocks)
        block = tl.where(is_beyond, block - blocks, block)
        before = tl.where(is_beyond, before + pixels, before)
        level = tl.where(is_beyond, number + 1, level)
    return level, block, before


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def pyramid_kernel(
    x_ptr,  # [N, h, w]
    out_ptr,  # [N, h / 2, w / 2], behind it [N, h / 4, w / 4], and so on
    planes,  # N
    height,
    width,
    levels,  # to be made
    BLOCK: tl.constexpr,
):
    """The means of squares for BLOCK pixels of one plane of one level."""
    level, block, before = _level_of(tl.program_id(0), height // 2, width // 2, levels, BLOCK)
    side = 2 << level
    plane = tl.program_id(1).to(tl.int64)
    rows = height // side
    columns = width // side
    index, y, x, mask = pixels_of(block, rows, columns, BLOCK)
    x_ptr += plane * height * width
    total = tl.zeros([BLOCK], tl.float32)
    for dy in range(side):
        line = x_ptr + (y * side + dy) * width + x * side
        for dx in range(side):
            total += tl.load(line + dx, mask=mask, other=0.0)
    out_ptr += planes.to(tl.int64) * before + plane * rows * columns
    tl.store(out_ptr + index, total / (side * side).to(tl.float32), mask=mask)


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def gradients_kernel(
    luma_ptr,  # [N, 1 + K, h, w], of the finest level
    coarse_ptr,  # the same of all others, one behind the other
    out_ptr,  # [N, 2, h, w] of each level, one behind the other
    partial_ptr,  # [N, blocks, 18] float32
    done_ptr,  # [N, levels] int32, zero before and after
    moments_ptr,  # [levels, N, 18] float32
    pictures,  # N
    frames,  # 1 + K
    height,
    width,
    levels,
    BLOCK: tl.constexpr,
):
    """How BLOCK pixels of one fixed picture grow; the last program of a level adds the products."""
    level, block, before = _level_of(tl.program_id(0), height, width, levels, BLOCK)
    picture = tl.program_id(1).to(tl.int64)
    finest = height * width
    height = height >> level
    width = width >> level
    size = height * width
    index, y, x, mask = pixels_of(block, height, width, BLOCK)
    x_ptr = luma_ptr + picture * frames * size
    if level > 0:
        x_ptr = coarse_ptr + pictures.to(tl.int64) * frames * (before - finest)
        x_ptr += picture * frames * size
    out_ptr += pictures.to(tl.int64) * 2 * before + picture * 2 * size
    after = tl.load(x_ptr + y * width + between(x + 1, width - 1), mask=mask, other=0.0)
    earlier = tl.load(x_ptr + y * width + between(x - 1, width - 1), mask=mask, other=0.0)
    right = (after - earlier) / 2
    tl.store(out_ptr + index, right, mask=mask)
    after = tl.load(x_ptr + between(y + 1, height - 1) * width + x, mask=mask, other=0.0)
    earlier = tl.load(x_ptr + between(y - 1, height - 1) * width + x, mask=mask, other=0.0)
    down = (after - earlier) / 2
    tl.store(out_ptr + size + index, down, mask=mask)

    column, row = basis_of(y, x, height, width)
    place = partial_ptr + (picture * tl.num_programs(0) + tl.program_id(0)) * 18
    for number in tl.static_range(3):
        product = right * right
        if number == 1:
            product = right * down
        if number == 2:
            product = down * down
        position = place + 6 * number
        tl.store(position, tl.sum(product, axis=0))
        tl.store(position + 1, tl.sum(product * column, axis=0))
        tl.store(position + 2, tl.sum(product * row, axis=0))
        tl.store(position + 3, tl.sum(product * column * column, axis=0))
        tl.store(position + 4, tl.sum(product * column * row, axis=0))
        tl.store(position + 5, tl.sum(product * row * row, axis=0))
    blocks = tl.cdiv(size, BLOCK)
    if is_last(done_ptr + picture * levels + level, blocks):
        numbers = tl.arange(0, 32)
        there = numbers < 18
        place -= block * 18
        total = added(place, blocks, 18, numbers, there, 64) / size.to(tl.float32)
        tl.store(moments_ptr + (level * pictures + picture) * 18 + numbers, total, mask=there)


@triton.jit(do_not_specialize=[*SIZES, *LEVELS])
def inverse_kernel(
    gradients_ptr,  # [N, 2, h, w] of each level, one behind the other
    out_ptr,  # [N, 3, h, w] of each level, one behind the other
    pictures,  # N
    height,
    width,
    levels,
    damping,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The inverses of the matrices of BLOCK squares of one picture."""
    level, block, before = _level_of(tl.program_id(0), height, width, levels, BLOCK)
    picture = tl.program_id(1).to(tl.int64)
    height = height >> level
    width = width >> level
    size = height * width
    index, y, x, mask = pixels_of(block, height, width, BLOCK)
    gradients_ptr += pictures.to(tl.int64) * 2 * before + picture * 2 * size
    a = tl.zeros([BLOCK], tl.float32)
    b = tl.zeros([BLOCK], tl.float32)
    c = tl.zeros([BLOCK], tl.float32)
    for dy in range(2 * REACH + 1):
        line = gradients_ptr + between(y + dy - REACH, height - 1) * width
        for dx in range(2 * REACH + 1):
            position = line + between(x + dx - REACH, width - 1)
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
    out_ptr += pictures.to(tl.int64) * 3 * before + picture * 3 * size + index
    tl.store(out_ptr, c / determinant, mask=mask)
    tl.store(out_ptr + size, -b / determinant, mask=mask)
    tl.store(out_ptr + 2 * size, a / determinant, mask=mask)


def _levels(batch: int, planes: int, sizes: list[tuple[int, int]], like: Tensor) -> list[Tensor]:
    """Tensors `[batch, planes, h, w]` float32, one behind the other in memory."""
    count = batch * planes
    room = like.new_empty(count * sum(height * width for height, width in sizes))
    parts = room.split([count * height * width for height, width in sizes])
    return [part.view(batch, planes, *size) for part, size in zip(parts, sizes, strict=True)]


def _blocks(sizes: list[tuple[int, int]], block: int) -> int:
    return sum(triton.cdiv(height * width, block) for height, width in sizes)


def launch_prepared(
    luma: Tensor, levels: int, reach: int, damping: float, done: Tensor
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Run the kernels on arguments that motion_ops has checked; see there."""
    batch, frames, height, width = luma.shape
    luma = luma.contiguous()
    sizes = [(height >> level, width >> level) for level in range(levels)]
    lumas = [luma, *_levels(batch, frames, sizes[1:], luma)] if levels > 1 else [luma]
    for first in range(0, levels - 1, _HALVINGS):
        made = sizes[first + 1 : first + 1 + _HALVINGS]
        rows, columns = sizes[first]
        start_kernel(
            pyramid_kernel,
            (_blocks(made, BLOCK_PIXELS), batch * frames),
            {"x_ptr": lumas[first], "out_ptr": lumas[first + 1]},
            {"planes": batch * frames, "height": rows, "width": columns, "levels": len(made)},
        )
    gradients = _levels(batch, 2, sizes, luma)
    inverses = _levels(batch, 3, sizes, luma)
    moments = luma.new_empty(levels, batch, 3, 6)
    blocks = _blocks(sizes, SUM_PIXELS)
    numbers = {"pictures": batch, "height": height, "width": width, "levels": levels}
    start_kernel(
        gradients_kernel,
        (blocks, batch),
        {
            "luma_ptr": luma,
            "coarse_ptr": lumas[1] if levels > 1 else luma,
            "out_ptr": gradients[0],
            "partial_ptr": luma.new_empty(batch, blocks, 18),
            "done_ptr": done,
            "moments_ptr": moments,
        },
        {**numbers, "frames": frames},
        block=SUM_PIXELS,
    )
    start_kernel(
        inverse_kernel,
        (_blocks(sizes, BLOCK_PIXELS), batch),
        {"gradients_ptr": gradients[0], "out_ptr": inverses[0]},
        {**numbers, "damping": damping},
        REACH=reach,
    )
    return lumas, gradients, list(moments), inverses
