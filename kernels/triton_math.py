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
    *("parts", "split_parts", "splits", "split_pixels"),
)
"""Parameters of kernels that depend on a picture's size. Programs are not specialized on them, so
that another size needs no other programs. Distances of values in memory are not among them: loads
of 16 bytes depend on what divides those."""


@triton.jit
def product(a, b, acc):
    """`acc + a @ b` with float32 sums; float32 factors keep their precision."""
    if _INTERPRETED:  # which keeps bfloat16 as its bits, and would multiply those
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc)
    if a.dtype == tl.float32:
        return tl.dot(a, b, acc, input_precision="tf32x3")
    return tl.dot(a, b, acc)


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
