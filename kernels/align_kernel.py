"""Kernels for frames in folded maps: the luma for motion estimation, and motion compensation.

Both work on the network's input, in which every frame's colours are folded into channels. No
picture is unfolded in memory. Motion compensation is a gather in which neighbouring pixels read
neighbouring addresses, mostly from caches.
"""

import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES

_BLOCK = 256


@triton.jit
def _position(y, x, width, channels, number, PATCH: tl.constexpr):
    """Index of a pixel's red in the folded map; green and blue follow at steps of PATCH**2."""
    area = PATCH * PATCH
    cell = y // PATCH * (width // PATCH) + x // PATCH
    return cell * channels + number * 3 * area + y % PATCH * PATCH + x % PATCH


@triton.jit(do_not_specialize=SIZES)
def shrunken_luma_kernel(
    x_ptr,  # [N, H / PATCH, W / PATCH, channels]
    out_ptr,  # [N, T, H / SHRINK, W / SHRINK] float32, the middle frame first
    frames,  # T
    channels,  # at least 3 * T * PATCH ** 2
    height,  # H
    width,
    red,  # shares of the colours in luma
    green,
    blue,
    PATCH: tl.constexpr,
    SHRINK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The mean luma of BLOCK squares of one frame."""
    frame = tl.program_id(1)
    number = frame % frames
    x_ptr += (frame // frames).to(tl.int64) * (height * width // (PATCH * PATCH)) * channels
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    small = width // SHRINK
    mask = index < height // SHRINK * small
    total = tl.zeros([BLOCK], tl.float32)
    for dy in tl.static_range(SHRINK):
        for dx in tl.static_range(SHRINK):
            y = index // small * SHRINK + dy
            x = index % small * SHRINK + dx
            position = x_ptr + _position(y, x, width, channels, number, PATCH)
            total += red * tl.load(position, mask=mask, other=0.0).to(tl.float32)
            total += green * tl.load(position + PATCH * PATCH, mask=mask, other=0.0).to(tl.float32)
            total += blue * tl.load(position + 2 * PATCH * PATCH, mask=mask, other=0.0).to(
                tl.float32
            )
    place = tl.where(number == frames // 2, 0, number + (number < frames // 2).to(tl.int32))
    out_ptr += (frame - number + place).to(tl.int64) * (height // SHRINK) * small
    tl.store(out_ptr + index, total / (SHRINK * SHRINK), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def move_kernel(
    x_ptr,  # [N, H / PATCH, W / PATCH, channels]
    motion_ptr,  # [N, T - 1, 2, H / SHRINK, W / SHRINK] float32, in its own pixels
    out_ptr,  # like x
    frames,  # T
    channels,  # at least 3 * T * PATCH ** 2
    height,  # H
    width,
    same,
    unlike,
    PATCH: tl.constexpr,
    SHRINK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sample BLOCK pixels of one frame; those of the middle frame, and static ones, are copied."""
    frame = tl.program_id(1)
    picture = (frame // frames).to(tl.int64)
    number = frame % frames
    middle = frames // 2
    x_ptr += picture * (height * width // (PATCH * PATCH)) * channels
    out_ptr += picture * (height * width // (PATCH * PATCH)) * channels
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < height * width
    y = index // width
    x = index % width
    # the motion between its pixels, as F.interpolate's bilinear has it
    rows = height // SHRINK
    columns = width // SHRINK
    place_y = tl.maximum((y.to(tl.float32) + 0.5) / SHRINK - 0.5, 0.0)
    place_x = tl.maximum((x.to(tl.float32) + 0.5) / SHRINK - 0.5, 0.0)
    top = place_y.to(tl.int32)
    left = place_x.to(tl.int32)
    down = place_y - top.to(tl.float32)
    across = place_x - left.to(tl.float32)
    below = tl.minimum(top + 1, rows - 1)
    beside = tl.minimum(left + 1, columns - 1)
    moves = mask & (number != middle)
    neighbour = number - (number > middle).to(tl.int32)
    right_ptr = motion_ptr + (picture * (frames - 1) + neighbour) * 2 * rows * columns
    down_ptr = right_ptr + rows * columns
    a = (1.0 - down) * (1.0 - across)
    b = (1.0 - down) * across
    c = down * (1.0 - across)
    d = down * across
    dx = a * tl.load(right_ptr + top * columns + left, mask=moves, other=0.0)
    dx += b * tl.load(right_ptr + top * columns + beside, mask=moves, other=0.0)
    dx += c * tl.load(right_ptr + below * columns + left, mask=moves, other=0.0)
    dx += d * tl.load(right_ptr + below * columns + beside, mask=moves, other=0.0)
    dy = a * tl.load(down_ptr + top * columns + left, mask=moves, other=0.0)
    dy += b * tl.load(down_ptr + top * columns + beside, mask=moves, other=0.0)
    dy += c * tl.load(down_ptr + below * columns + left, mask=moves, other=0.0)
    dy += d * tl.load(down_ptr + below * columns + beside, mask=moves, other=0.0)
    # beyond the picture its edge goes on
    from_y = tl.minimum(tl.maximum(y.to(tl.float32) + SHRINK * dy, 0.0), height - 1.0)
    from_x = tl.minimum(tl.maximum(x.to(tl.float32) + SHRINK * dx, 0.0), width - 1.0)
    top = from_y.to(tl.int32)
    left = from_x.to(tl.int32)
    down = from_y - top.to(tl.float32)
    across = from_x - left.to(tl.float32)
    below = tl.minimum(top + 1, height - 1)
    beside = tl.minimum(left + 1, width - 1)
    place_a = x_ptr + _position(top, left, width, channels, number, PATCH)
    place_b = x_ptr + _position(top, beside, width, channels, number, PATCH)
    place_c = x_ptr + _position(below, left, width, channels, number, PATCH)
    place_d = x_ptr + _position(below, beside, width, channels, number, PATCH)
    position = _position(y, x, width, channels, number, PATCH)
    fixed = _position(y, x, width, channels, middle, PATCH)
    difference = tl.zeros([BLOCK], tl.float32)
    for color in tl.static_range(3):
        offset = color * PATCH * PATCH
        here = tl.load(x_ptr + position + offset, mask=mask, other=0.0).to(tl.float32)
        shown = tl.load(x_ptr + fixed + offset, mask=mask, other=0.0).to(tl.float32)
        difference = tl.maximum(difference, tl.abs(here - shown))
    share = tl.minimum(tl.maximum((difference - same) / (unlike - same), 0.0), 1.0)
    for color in tl.static_range(3):
        offset = color * PATCH * PATCH
        above = (1.0 - across) * tl.load(place_a + offset, mask=mask, other=0.0).to(tl.float32)
        above += across * tl.load(place_b + offset, mask=mask, other=0.0).to(tl.float32)
        under = (1.0 - across) * tl.load(place_c + offset, mask=mask, other=0.0).to(tl.float32)
        under += across * tl.load(place_d + offset, mask=mask, other=0.0).to(tl.float32)
        value = (1.0 - down) * above + down * under
        here = tl.load(x_ptr + position + offset, mask=mask, other=0.0).to(tl.float32)
        value = here + share * (value - here)
        tl.store(out_ptr + position + offset, value.to(out_ptr.dtype.element_ty), mask=mask)


def launch_shrunken_luma(
    x: Tensor, out: Tensor, *, patch: int, shrink: int, luma: tuple[float, float, float]
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, frames, rows, columns = out.shape
    start(
        Launch(
            kernel=shrunken_luma_kernel,
            grid=(triton.cdiv(rows * columns, _BLOCK), batch * frames),
            arguments={
                "x_ptr": x,
                "out_ptr": out,
                "frames": frames,
                "channels": x.shape[3],
                "height": rows * shrink,
                "width": columns * shrink,
                "red": luma[0],
                "green": luma[1],
                "blue": luma[2],
            },
            constants={"PATCH": patch, "SHRINK": shrink, "BLOCK": _BLOCK},
            num_warps=4,
        )
    )


def launch_move(
    x: Tensor,
    motion: Tensor,
    out: Tensor,
    *,
    patch: int,
    shrink: int,
    limits: tuple[float, float],
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, height, width, _ = x.shape
    frames = motion.shape[1] + 1
    start(
        Launch(
            kernel=move_kernel,
            grid=(triton.cdiv(height * width * patch * patch, _BLOCK), batch * frames),
            arguments={
                "x_ptr": x,
                "motion_ptr": motion,
                "out_ptr": out,
                "frames": frames,
                "channels": x.shape[3],
                "height": height * patch,
                "width": width * patch,
                "same": limits[0],
                "unlike": limits[1],
            },
            constants={"PATCH": patch, "SHRINK": shrink, "BLOCK": _BLOCK},
            num_warps=4,
        )
    )
