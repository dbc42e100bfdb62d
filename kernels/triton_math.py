"""What several kernels do to values in registers."""

import triton
import triton.language as tl

from mhnet_video.kernels.dispatch import IS_INTERPRETED

_INTERPRETED = tl.constexpr(IS_INTERPRETED)
# added to and taken from a float32, it rounds to a whole number, halves to the even one
_ROUNDER = tl.constexpr(12582912.0)

SIZES = (
    *("height", "width", "out_height", "out_width", "shown_height", "shown_width"),
    *("chroma_height", "chroma_width", "plane_height", "plane_width"),
    *("num_pixels", "row_width", "pixels", "rows", "blocks", "pixel_blocks", "column_blocks"),
    *("parts", "split_parts", "splits", "split_pixels", "planes", "levels", "steps"),
    *("coarse_height", "coarse_width", "pictures"),
)
"""Parameters of kernels that depend on a picture's size. Programs are not specialized on them, so
that another size needs no other programs. Distances of values in memory are not among them: loads
of 16 bytes depend on what divides those."""

LEVELS = (
    "luma_ptr",
    "gradients_ptr",
    "moments_ptr",
    "inverse_ptr",
    "coarse_ptr",
    "x_ptr",
    "out_ptr",
)
"""Parameters that point to one of several levels, which lie one behind the other in memory.
Programs are not made for an alignment of theirs, because it depends on the sizes."""


@triton.jit
def product(a, b, acc):
    """`acc + a @ b` with float32 sums; float32 factors keep their precision."""
    if _INTERPRETED:  # which keeps bfloat16 as its bits, and would multiply those
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc)
    if a.dtype == tl.float32:
        return tl.dot(a, b, acc, input_precision="tf32x3")
    return tl.dot(a, b, acc)


@triton.jit
def is_last(done_ptr, programs):
    """Whether all other programs of a group have stored what they are to; for one of them only.

    The last one sees what the others have stored if it reads with `cache_modifier=".cg"`. It leaves
    the count at zero, for the next launch.

    Args:
        done_ptr: An int32 of the group, zero before the first one.
        programs: Of the group.
    """
    # all threads have stored before one of them counts: the atomic releases and acquires
    tl.debug_barrier()
    result = tl.atomic_add(done_ptr, 1, sem="acq_rel", scope="gpu") == programs - 1
    if result:
        tl.store(done_ptr, 0)
    return result


@triton.jit
def added(ptr, rows, stride, columns, mask, BLOCK: tl.constexpr):
    """The sum of rows that other programs have stored, BLOCK at a time, `[columns]` float32."""
    total = tl.zeros_like(columns).to(tl.float32)
    for first in range(0, rows, BLOCK):
        row = first + tl.arange(0, BLOCK)
        offsets = row[:, None] * stride + columns[None, :]
        both = (row < rows)[:, None] & mask[None, :]
        total += tl.sum(tl.load(ptr + offsets, mask=both, other=0.0, cache_modifier=".cg"), axis=0)
    return total


@triton.jit
def normalize(x, mask, count, eps):
    """Remove the mean of each row of `x` `[P, C]` float32 and divide by its deviation."""
    mean = tl.sum(x, axis=1) / count
    centered = tl.where(mask, x - mean[:, None], 0.0)
    variance = tl.sum(centered * centered, axis=1) / count
    return centered * (1.0 / tl.sqrt(variance + eps))[:, None]


@triton.jit
def round_half_even(x):
    """The nearest whole number; `x` is float32 between -2**22 and 2**22."""
    return (x + _ROUNDER) - _ROUNDER
