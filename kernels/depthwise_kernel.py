"""Depthwise 3x3 convolution of channels-last maps, with SimpleGate and the pooled sums.

Every program walks down its columns and adds each row to the three rows of results that it
belongs to, so that a row is read once and not three times; the gate's product is all that is
written.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES


@triton.jit
def _row_of_taps(ptr, stride, mask):
    """Left, middle and right tap of each channel."""
    return (
        tl.load(ptr, mask=mask, other=0.0),
        tl.load(ptr + stride, mask=mask, other=0.0),
        tl.load(ptr + 2 * stride, mask=mask, other=0.0),
    )


@triton.jit(do_not_specialize=SIZES)
def depthwise_kernel(
    x_ptr,  # [N, H, W, C or 2C]
    weight_ptr,  # [9, C or 2C] float32
    bias_ptr,  # [C or 2C] float32
    out_ptr,  # [N, H, W, C]
    sums_ptr,  # [N, parts, C] float32
    height,
    width,
    channels,  # C
    rows,  # of a program
    column_blocks,
    parts,  # programs of a picture and a block of channels
    GATE: tl.constexpr,
    BIAS: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Compute BLOCK_C channels of `rows` x BLOCK_X pixels of one picture."""
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    part = tl.program_id(0) // channel_blocks
    here = (tl.program_id(0) % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    picture = tl.program_id(1).to(tl.int64)
    columns = (part % column_blocks) * BLOCK_X + tl.arange(0, BLOCK_X)
    first = (part // column_blocks) * rows
    end = tl.minimum(first + rows, height)
    channel_mask = here < channels
    mask = (columns < width)[:, None] & channel_mask[None, :]
    element = out_ptr.dtype.element_ty
    all_channels = channels * 2 if GATE else channels
    bias = tl.zeros([BLOCK_C], tl.float32)
    bias_other = tl.zeros([BLOCK_C], tl.float32)
    if BIAS:
        bias = tl.load(bias_ptr + here, mask=channel_mask, other=0.0)
        if GATE:
            bias_other = tl.load(bias_ptr + channels + here, mask=channel_mask, other=0.0)

    # the taps of every row are the same: they stay in registers
    down = 3 * all_channels
    taps = (
        _row_of_taps(weight_ptr + here, all_channels, channel_mask),
        _row_of_taps(weight_ptr + down + here, all_channels, channel_mask),
        _row_of_taps(weight_ptr + 2 * down + here, all_channels, channel_mask),
    )
    other_ptr = weight_ptr + (channels if GATE else 0)
    other_taps = (
        _row_of_taps(other_ptr + here, all_channels, channel_mask),
        _row_of_taps(other_ptr + down + here, all_channels, channel_mask),
        _row_of_taps(other_ptr + 2 * down + here, all_channels, channel_mask),
    )
    # partial results of the row before and of this one
    before = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    current = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    before_other = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    current_other = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    total = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    for y in range(first - 1, end + 1):
        following = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
        following_other = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
        row = x_ptr + (picture * height + y) * width * all_channels  # 64 bits, once a row
        is_row = (y >= 0) & (y < height)
        for dx in tl.static_range(3):
            x = columns + dx - 1
            inside = is_row & (x >= 0) & (x < width)
            position = row + (x[:, None] * all_channels + here[None, :])
            in_mask = inside[:, None] & channel_mask[None, :]
            value = tl.load(position, mask=in_mask, other=0.0).to(tl.float32)
            following += value * taps[0][dx][None, :]
            current += value * taps[1][dx][None, :]
            before += value * taps[2][dx][None, :]
            if GATE:
                value = tl.load(position + channels, mask=in_mask, other=0.0).to(tl.float32)
                following_other += value * other_taps[0][dx][None, :]
                current_other += value * other_taps[1][dx][None, :]
                before_other += value * other_taps[2][dx][None, :]
        result = before + bias[None, :]
        if GATE:
            result *= before_other + bias_other[None, :]
        # the first two rows belong to results of the program above
        done = mask & (y > first)
        line = out_ptr + (picture * height + y - 1) * width * channels
        position = columns[:, None] * channels + here[None, :]
        tl.store(line + position, result.to(element), mask=done)
        if SUMS:
            total += tl.where(done, result, 0.0)
        before = current
        current = following
        before_other = current_other
        current_other = following_other
    if SUMS:
        position = sums_ptr + (picture * parts + part) * channels + here
        tl.store(position, tl.sum(total, axis=0), mask=channel_mask)


def _tile(channels: int) -> tuple[int, int]:
    """Columns and channels of a program: 16 bytes for a load, few values for a thread."""
    block_c = min(max(8, triton.next_power_of_2(channels)), 64)
    return max(8, 512 // block_c), block_c


def parts_of(height: int, width: int, channels: int) -> tuple[int, int, int]:
    """Rows of a program, blocks of columns, and programs of a picture.

    Long columns read little twice; enough programs keep every multiprocessor busy.
    """
    block_x, block_c = _tile(channels)
    column_blocks = triton.cdiv(width, block_x)
    blocks = column_blocks * triton.cdiv(channels, block_c)
    rows = max(4, min(64, height * blocks // 1024))
    return rows, column_blocks, column_blocks * triton.cdiv(height, rows)


def empty_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a gated map, `[N, parts, C]` float32."""
    batch, height, width, channels = out.shape
    parts = parts_of(height, width, channels)[2]
    return torch.empty(batch, parts, channels, dtype=torch.float32, device=out.device)


def launch_depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    gate: bool = False,
    sums: Tensor | None = None,
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, height, width, channels = out.shape
    rows, column_blocks, parts = parts_of(height, width, channels)
    block_x, block_c = _tile(channels)
    start(
        Launch(
            kernel=depthwise_kernel,
            grid=(parts * triton.cdiv(channels, block_c), batch),
            arguments={
                "x_ptr": x,
                "weight_ptr": weight,
                "bias_ptr": bias,
                "out_ptr": out,
                "sums_ptr": sums,
                "height": height,
                "width": width,
                "channels": channels,
                "rows": rows,
                "column_blocks": column_blocks,
                "parts": parts,
            },
            constants={
                "GATE": gate,
                "BIAS": bias is not None,
                "SUMS": sums is not None,
                "BLOCK_X": block_x,
                "BLOCK_C": block_c,
            },
            num_warps=4,
        )
    )
