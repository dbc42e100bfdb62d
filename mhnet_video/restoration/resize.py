"""Pictures at another size, by OpenCV where it is quicker and there.

Large pictures are resized strip by strip. Their float32, a hundred megabytes at 3840x2160, would be
fresh memory at every frame, which the system clears first.
"""

import importlib
import math
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_ROWS = 4
"""Rows of a strip are a multiple of this, so that no chroma sample is split."""
_STRIP_PIXELS = 1 << 19
"""About the most pixels of a strip at the larger size. OpenCV makes tables for each strip: at a
quarter of this, enlarging takes twice the time."""
_CUBIC_HALO = 2
"""Rows of the smaller picture on either side of a strip that cubic convolution reads."""


def shrunk(picture: Tensor, height: int, width: int) -> Tensor:
    """`[C, H, W]` as the mean of what each of fewer pixels covers."""
    out = picture.new_empty(len(picture), height, width)
    shrink(picture, out)
    return out


def shrink(picture: Tensor, out: Tensor) -> None:
    """Write what `shrunk` returns.

    By more than two, and not by a whole number, the picture is halved first: OpenCV has a quick way
    for that, and its way for fractions takes three times as long for the whole picture as for half.
    """
    (rows, columns), (height, width) = picture.shape[1:], out.shape[1:]
    is_whole = rows % height == 0 and columns % width == 0
    is_even = rows % 2 == 0 and columns % 2 == 0
    if rows > 2 * height and columns > 2 * width and is_even and not is_whole:
        halves = picture.new_empty(len(picture), rows // 2, columns // 2)
        _resize(picture, halves, "area", "INTER_AREA")
        picture = halves
    _resize(picture, out, "area", "INTER_AREA")


def enlarged_strips(picture: Tensor, height: int, width: int) -> Iterator[tuple[slice, Tensor]]:
    """A picture of more pixels, by cubic convolution; itself where it has that size.

    Args:
        picture: `[C, h, w]`.
        height: Rows of the larger picture.
        width: Columns of it.

    Yields:
        Rows of the larger picture, and these, `[C, rows, W]`, until the next are made.
    """
    if picture.shape[1:] == (height, width):
        yield slice(0, height), picture
        return
    rows = picture.shape[1]
    divisor = math.gcd(height, rows)
    unit = rows // divisor
    halo = -(-_CUBIC_HALO // unit) * unit
    spare: Tensor | None = None
    for large, small in scaled_strips(height, width, rows, picture.device):
        above, below = min(small.start, halo), min(rows - small.stop, halo)
        seen = picture[:, small.start - above : small.stop + below]
        length = seen.shape[1] * height // rows
        if spare is None or spare.shape[1] < length:
            spare = picture.new_empty(len(picture), length, width)
        out = spare[:, :length]
        _resize(seen, out, "bicubic", "INTER_CUBIC")
        first = above * height // rows
        yield large, out[:, first : first + large.stop - large.start]


def scaled_strips(
    height: int, width: int, rows: int, device: torch.device
) -> Iterator[tuple[slice, slice]]:
    """Strips of a picture that are as high as strips of a smaller one, to the pixel.

    Args:
        height: Rows of the larger picture.
        width: Columns of it.
        rows: Rows of the smaller one.
        device: Where they are resized; only for a CPU, and with OpenCV, is there more than one.

    Yields:
        Rows of the larger picture, multiples of `STRIP_ROWS` but for its last ones, and rows of the
        smaller one.
    """
    divisor = math.gcd(height, rows)
    step, unit = height // divisor, rows // divisor
    even = math.lcm(step, STRIP_ROWS) // step
    count = divisor
    if device.type == "cpu" and opencv() is not None:
        count = max(_STRIP_PIXELS // (width * step * even), 1) * even
    for first in range(0, divisor, count):
        end = min(first + count, divisor)
        yield slice(first * step, end * step), slice(first * unit, end * unit)


def _resize(picture: Tensor, out: Tensor, mode: str, flag: str) -> None:
    """As PyTorch does it in a mode, on a CPU by OpenCV in a sixth of the time."""
    cv2 = opencv() if picture.device.type == "cpu" else None
    height, width = out.shape[1:]
    if cv2 is None:
        if mode == "area" and picture.device.type == "mps":
            picture = picture.cpu()  # PyTorch refuses areas there that are not of whole pixels
        out.copy_(F.interpolate(picture[None], (height, width), mode=mode)[0])
        return
    interpolation = getattr(cv2, flag)
    for source, target in zip(picture, out, strict=True):
        cv2.resize(source.numpy(), (width, height), dst=target.numpy(), interpolation=interpolation)


@cache
def opencv() -> ModuleType | None:
    """OpenCV, which takes a while to load; None where libraries of the screen are missing."""
    try:
        return importlib.import_module("cv2")
    except ImportError:
        return None
