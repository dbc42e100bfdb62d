"""From the samples of frames to the network's input, and the residual's way back into them.

Only samples cross the bus between host and device. The input kernel reads the frames of a window
where they lie in a ring, so that a frame is uploaded once whatever the window's length.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES, round_half_even

YUV, GRAY, RGB = 0, 1, 2
"""What the planes are; RGB stands as G, B, R, as FFmpeg has it."""

_GRAY = tl.constexpr(GRAY)
_RGB = tl.constexpr(RGB)

_BLOCK = 256


@triton.jit
def _sample(ring_ptr, offsets, mask, BITS_DOWN: tl.constexpr):
    """Samples as float32; of 16-bit rings int16 holds the bits of uint16."""
    value = tl.load(ring_ptr + offsets, mask=mask, other=0).to(tl.int32) & 0xFFFF
    return (value >> BITS_DOWN).to(tl.float32)


@triton.jit
def _chroma(ring_ptr, start, y, x, height, width, row, step, mask, DOWN, SY, SX):
    """Chroma at luma positions, between samples as F.interpolate's bilinear has it."""
    place_y = tl.maximum((y.to(tl.float32) + 0.5) / (1 << SY) - 0.5, 0.0)
    place_x = tl.maximum((x.to(tl.float32) + 0.5) / (1 << SX) - 0.5, 0.0)
    top = place_y.to(tl.int32)
    left = place_x.to(tl.int32)
    bottom = tl.minimum(top + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    down = place_y - top.to(tl.float32)
    across = place_x - left.to(tl.float32)
    a = _sample(ring_ptr, start + top * row + left * step, mask, DOWN)
    b = _sample(ring_ptr, start + top * row + right * step, mask, DOWN)
    c = _sample(ring_ptr, start + bottom * row + left * step, mask, DOWN)
    d = _sample(ring_ptr, start + bottom * row + right * step, mask, DOWN)
    above = a * (1.0 - across) + b * across
    below = c * (1.0 - across) + d * across
    return above * (1.0 - down) + below * down


@triton.jit(do_not_specialize=SIZES)
def frames_to_input_kernel(
    ring_ptr,  # [slots, slot_size] uint8, or int16 with the bits of uint16
    slots_ptr,  # [N, T] int32, the slots of a window's frames; negative for black ones
    colors_ptr,  # [slots, 24] float32, see FrameColors
    out_ptr,  # [N, H / PATCH, W / PATCH, out_channels], H and W the padded picture's
    out_channels,  # at least 3 * T * PATCH ** 2
    slot_size,
    frames,  # T
    shown_height,  # of the picture as it is shown: turned by ROTATION
    shown_width,
    out_height,  # H / PATCH
    out_width,  # W / PATCH
    luma_row,  # samples from one row of a plane to the next
    first_chroma,  # where the second plane begins, in samples
    second_chroma,
    chroma_row,
    chroma_step,  # samples from one column to the next: 2 where U and V share a plane
    chroma_height,
    chroma_width,
    KIND: tl.constexpr,
    BITS_DOWN: tl.constexpr,  # unused bits below a sample's
    SHIFT_Y: tl.constexpr,
    SHIFT_X: tl.constexpr,
    ROTATION: tl.constexpr,
    PATCH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Convert BLOCK pixels of one frame of one window."""
    frame = tl.program_id(1)
    picture = (frame // frames).to(tl.int64)
    number = frame % frames
    slot = tl.load(slots_ptr + frame).to(tl.int64)
    is_there = slot >= 0
    slot = tl.maximum(slot, 0)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wide = out_width * PATCH
    mask = index < out_height * PATCH * wide
    out_y = index // wide
    out_x = index % wide
    # beyond the picture its edge goes on
    shown_y = tl.minimum(out_y, shown_height - 1)
    shown_x = tl.minimum(out_x, shown_width - 1)
    if ROTATION == 90:
        y = shown_width - 1 - shown_x
        x = shown_y
    elif ROTATION == 180:
        y = shown_height - 1 - shown_y
        x = shown_width - 1 - shown_x
    elif ROTATION == 270:
        y = shown_x
        x = shown_height - 1 - shown_y
    else:
        y = shown_y
        x = shown_x
    ring_ptr += slot * slot_size
    colors = colors_ptr + slot * 24
    luma = _sample(ring_ptr, y * luma_row + x, mask, BITS_DOWN)
    luma = (luma - tl.load(colors)) / tl.load(colors + 1)
    if KIND == _GRAY:
        red = luma
        green = luma
        blue = luma
    elif KIND == _RGB:
        span = tl.load(colors + 1)
        offset = y * luma_row + x
        green = luma
        blue = _sample(ring_ptr, first_chroma + offset, mask, BITS_DOWN) / span
        red = _sample(ring_ptr, second_chroma + offset, mask, BITS_DOWN) / span
    else:
        middle = tl.load(colors + 2)
        span = tl.load(colors + 3)
        u = _chroma(
            ring_ptr,
            first_chroma,
            y,
            x,
            chroma_height,
            chroma_width,
            chroma_row,
            chroma_step,
            mask,
            BITS_DOWN,
            SHIFT_Y,
            SHIFT_X,
        )
        v = _chroma(
            ring_ptr,
            second_chroma,
            y,
            x,
            chroma_height,
            chroma_width,
            chroma_row,
            chroma_step,
            mask,
            BITS_DOWN,
            SHIFT_Y,
            SHIFT_X,
        )
        u = (u - middle) / span
        v = (v - middle) / span
        red = luma + tl.load(colors + 4) * u + tl.load(colors + 5) * v
        green = luma + tl.load(colors + 6) * u + tl.load(colors + 7) * v
        blue = luma + tl.load(colors + 8) * u + tl.load(colors + 9) * v
    if KIND != _RGB:
        red = tl.minimum(tl.maximum(red, 0.0), 1.0)
        green = tl.minimum(tl.maximum(green, 0.0), 1.0)
        blue = tl.minimum(tl.maximum(blue, 0.0), 1.0)
    red = tl.where(is_there, red, 0.0)
    green = tl.where(is_there, green, 0.0)
    blue = tl.where(is_there, blue, 0.0)
    area = PATCH * PATCH
    position = (picture * out_height + out_y // PATCH) * out_width + out_x // PATCH
    position = position * out_channels + number * 3 * area
    position += out_y % PATCH * PATCH + out_x % PATCH
    element = out_ptr.dtype.element_ty
    tl.store(out_ptr + position, red.to(element), mask=mask)
    tl.store(out_ptr + position + area, green.to(element), mask=mask)
    tl.store(out_ptr + position + 2 * area, blue.to(element), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def residual_to_frames_kernel(
    ring_ptr,  # [slots, slot_size] uint8, or int16 with the bits of uint16
    slots_ptr,  # [N, T] int32; the frame in the middle of its window is restored
    colors_ptr,  # [slots, 24] float32, see FrameColors
    residual_ptr,  # [N, 3, H, W] float32
    out_ptr,  # [N, slot_size], like the ring
    flags_ptr,  # [N] int32, set where a residual is not finite
    slot_size,
    frames,  # T
    plane_start,  # where the plane begins, in samples
    plane_height,
    plane_width,
    plane_row,
    plane_step,
    height,  # of the picture as it lies in memory
    width,
    residual_row,  # values from one row of the residual to the next
    residual_plane,  # from one colour to the next
    top,  # largest sample
    coefficients,  # index of the first of this plane's three in colors
    BITS_DOWN: tl.constexpr,
    SHIFT_Y: tl.constexpr,
    SHIFT_X: tl.constexpr,
    ROTATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the residual to BLOCK samples of one plane of one frame."""
    picture = tl.program_id(1)
    slot = tl.load(slots_ptr + picture * frames + frames // 2).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < plane_height * plane_width
    plane_y = index // plane_width
    plane_x = index % plane_width
    residual_ptr += picture.to(tl.int64) * 3 * residual_plane
    red = tl.zeros([BLOCK], tl.float32)
    green = tl.zeros([BLOCK], tl.float32)
    blue = tl.zeros([BLOCK], tl.float32)
    count = tl.zeros([BLOCK], tl.float32)
    for dy in tl.static_range(1 << SHIFT_Y):
        for dx in tl.static_range(1 << SHIFT_X):
            y = (plane_y << SHIFT_Y) + dy
            x = (plane_x << SHIFT_X) + dx
            inside = mask & (y < height) & (x < width)
            if ROTATION == 90:
                position = x.to(tl.int64) * residual_row + (height - 1 - y)
            elif ROTATION == 180:
                position = (height - 1 - y).to(tl.int64) * residual_row + (width - 1 - x)
            elif ROTATION == 270:
                position = (width - 1 - x).to(tl.int64) * residual_row + y
            else:
                position = y.to(tl.int64) * residual_row + x
            red += tl.load(residual_ptr + position, mask=inside, other=0.0)
            green += tl.load(residual_ptr + residual_plane + position, mask=inside, other=0.0)
            blue += tl.load(residual_ptr + 2 * residual_plane + position, mask=inside, other=0.0)
            count += inside.to(tl.float32)
    # the last blocks are cut: their means are those of the pixels that exist
    count = tl.maximum(count, 1.0)
    factors = colors_ptr + slot * 24 + coefficients
    change = tl.load(factors) * (red / count)
    change += tl.load(factors + 1) * (green / count)
    change += tl.load(factors + 2) * (blue / count)
    # neither infinite nor, as all comparisons with it are false, not a number
    is_finite = tl.abs(change) < 3e38
    broken = tl.sum((mask & (is_finite == 0)).to(tl.int32), axis=0)
    tl.store(flags_ptr + picture, 1, mask=broken > 0)
    offsets = plane_start + plane_y * plane_row + plane_x * plane_step
    sample = _sample(ring_ptr + slot * slot_size, offsets, mask, BITS_DOWN)
    # no change reaches across the whole range twice
    change = tl.where(is_finite, change, 0.0)
    change = tl.minimum(tl.maximum(change, -2.0 * top), 2.0 * top)
    value = tl.minimum(tl.maximum(round_half_even(sample + change), 0.0), top)
    value = value.to(tl.int32) << BITS_DOWN
    out = out_ptr + picture.to(tl.int64) * slot_size + offsets
    tl.store(out, value.to(out_ptr.dtype.element_ty), mask=mask)


def launch_frames_to_input(
    ring: Tensor,
    slots: Tensor,
    colors: Tensor,
    out: Tensor,
    *,
    patch: int,
    geometry: dict[str, Any],
    constants: dict[str, Any],
) -> None:
    """Run the kernel on arguments that frame_ops has made; see there."""
    batch, out_height, out_width, out_channels = out.shape
    start(
        Launch(
            kernel=frames_to_input_kernel,
            grid=(
                triton.cdiv(out_height * out_width * patch * patch, _BLOCK),
                batch * slots.shape[1],
            ),
            arguments={
                "ring_ptr": ring,
                "slots_ptr": slots,
                "colors_ptr": colors,
                "out_ptr": out,
                "out_channels": out_channels,
                "slot_size": ring.shape[1],
                "frames": slots.shape[1],
                "out_height": out_height,
                "out_width": out_width,
                **geometry,
            },
            constants={**constants, "PATCH": patch, "BLOCK": _BLOCK},
            num_warps=4,
        )
    )


def launch_residual_to_frames(
    ring: Tensor,
    slots: Tensor,
    colors: Tensor,
    residual: Tensor,
    out: Tensor,
    flags: Tensor,
    *,
    geometry: dict[str, Any],
    constants: dict[str, Any],
) -> None:
    """Run the kernel on arguments that frame_ops has made; see there."""
    num_samples = geometry["plane_height"] * geometry["plane_width"]
    start(
        Launch(
            kernel=residual_to_frames_kernel,
            grid=(triton.cdiv(num_samples, _BLOCK), slots.shape[0]),
            arguments={
                "ring_ptr": ring,
                "slots_ptr": slots,
                "colors_ptr": colors,
                "residual_ptr": residual,
                "out_ptr": out,
                "flags_ptr": flags,
                "slot_size": ring.shape[1],
                "frames": slots.shape[1],
                "residual_row": residual.stride(2),
                "residual_plane": residual.stride(1),
                **geometry,
            },
            constants={**constants, "BLOCK": _BLOCK},
            num_warps=4,
        )
    )
