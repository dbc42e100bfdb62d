"""What the kernels on motion between frames share: sampling, squares, planes and launches."""

import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start

BLOCK_PIXELS = 128
"""Pixels of a program."""
SUM_PIXELS = 512
"""Pixels of a program that sums: the last one reads a row for each of these."""


@triton.jit
def pixels_of(block, height, width, BLOCK: tl.constexpr):
    """The indices of BLOCK pixels of a plane, their rows and columns, and whether they exist."""
    index = block * BLOCK + tl.arange(0, BLOCK)
    return index, index // width, index % width, index < height * width


@triton.jit
def between(x, last):
    """An integer, held between 0 and the last one."""
    return tl.minimum(tl.maximum(x, 0), last)


@triton.jit
def square_mean(ptr, y, x, height, width, mask, REACH: tl.constexpr):
    """The mean over the square around each pixel."""
    total = tl.zeros_like(y).to(tl.float32)
    for dy in range(2 * REACH + 1):
        line = ptr + between(y + dy - REACH, height - 1) * width
        for dx in range(2 * REACH + 1):
            total += tl.load(line + between(x + dx - REACH, width - 1), mask=mask, other=0.0)
    return total / ((2 * REACH + 1) * (2 * REACH + 1))


@triton.jit
def bilinear(ptr, from_y, from_x, height, width, mask):
    """A plane at positions inside it, between its pixels."""
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
def error_of(fixed, moving_ptr, y, x, right, down, height, width, mask):
    """What a motion leaves between a neighbour and the fixed picture."""
    from_x = tl.minimum(tl.maximum(x.to(tl.float32) + right, 0.0), width - 1.0)
    from_y = tl.minimum(tl.maximum(y.to(tl.float32) + down, 0.0), height - 1.0)
    return bilinear(moving_ptr, from_y, from_x, height, width, mask) - fixed


@triton.jit
def clipped(x, limit):
    """A number, held between a limit and its negative."""
    return tl.minimum(tl.maximum(x, -limit), limit)


@triton.jit
def basis_of(y, x, height, width):
    """The column and the row of pixels, from -1 to 1."""
    column = (2.0 * x.to(tl.float32) + 1.0) / width - 1.0
    row = (2.0 * y.to(tl.float32) + 1.0) / height - 1.0
    return column, row


@triton.jit
def number_of(values, index):
    """One of eight values."""
    return tl.sum(tl.where(tl.arange(0, 8) == index, values, 0.0), axis=0)


@triton.jit
def spread_of(plane, y, x, height, width):
    """The motion of pixels by a plane, which is six of eight values."""
    column, row = basis_of(y, x, height, width)
    right = number_of(plane, 0) + number_of(plane, 1) * column + number_of(plane, 2) * row
    down = number_of(plane, 3) + number_of(plane, 4) * column + number_of(plane, 5) * row
    return right, down


@triton.jit
def plane_of(plane_ptr, scale):
    """A plane times a number, as eight values of which two are zero."""
    numbers = tl.arange(0, 8)
    return tl.load(plane_ptr + numbers, mask=numbers < 6, other=0.0) * scale


def start_kernel(
    kernel: object,
    grid: tuple[int, ...],
    tensors: dict[str, Tensor | None],
    numbers: dict[str, int | float],
    *,
    block: int = BLOCK_PIXELS,
    **constants: int,
) -> None:
    """Run a kernel, of which every pointer is to one contiguous tensor."""
    inputs = {key: None if each is None else each.contiguous() for key, each in tensors.items()}
    start(
        Launch(
            kernel=kernel,
            grid=grid,
            arguments={**inputs, **numbers},
            constants={**constants, "BLOCK": block},
            num_warps=4,
        )
    )


def grid_of(luma: Tensor, block: int = BLOCK_PIXELS) -> tuple[int, int]:
    """A program for each block of pixels of each neighbour."""
    batch, frames, height, width = luma.shape
    return triton.cdiv(height * width, block), batch * (frames - 1)


def size_of(luma: Tensor) -> dict[str, int | float]:
    """The numbers that every kernel of one level wants."""
    _, frames, height, width = luma.shape
    return {"count": frames - 1, "height": height, "width": width}
