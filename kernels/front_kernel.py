"""The first half of a NAFBlock in one pass down the rows: LayerNorm, 1x1, depthwise 3x3 and gate.

Every program walks down its columns, as the depthwise kernel does, and makes each row of the wide
map in registers instead of reading it: three times, once for each neighbour in a row, because
values cannot be moved between pixels there. That is three times the arithmetic of the 1x1, a third
of that of the dense convolution, for a map of twice the width that is neither written nor read.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES, normalize, product

MAX_CHANNELS = {2: 64, 4: 32}
"""Most channels of a program, by bytes of an element."""
_BLOCK_X, _BLOCK_C = 64, 16


@triton.jit(do_not_specialize=SIZES)
def front_kernel(
    x_ptr,  # [N, H, W, C]
    weight_ptr,  # [2C, C]
    weight_bias_ptr,  # [2C] float32
    taps_ptr,  # [9, 2C] float32
    bias_ptr,  # [2C] float32
    out_ptr,  # [N, H, W, C]
    sums_ptr,  # [N, parts, C] float32
    height,
    width,
    channels,  # C
    rows,  # of a program
    column_blocks,
    parts,  # programs of a picture and a block of channels
    eps,
    SUMS: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,  # power of two, at least C and 16
):
    """Compute BLOCK_C channels of `rows` x BLOCK_X pixels of one picture."""
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    part = tl.program_id(0) // channel_blocks
    here = (tl.program_id(0) % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    picture = tl.program_id(1).to(tl.int64)
    columns = (part % column_blocks) * BLOCK_X + tl.arange(0, BLOCK_X)
    first = (part // column_blocks) * rows
    end = tl.minimum(first + rows, height)
    inputs = tl.arange(0, BLOCK_K)
    input_mask = inputs < channels
    channel_mask = here < channels
    mask = (columns < width)[:, None] & channel_mask[None, :]
    element = out_ptr.dtype.element_ty
    both = channels * 2

    weight_mask = input_mask[:, None] & channel_mask[None, :]
    offsets = here[None, :] * channels + inputs[:, None]
    left = tl.load(weight_ptr + offsets, mask=weight_mask, other=0.0)
    right = tl.load(weight_ptr + channels * channels + offsets, mask=weight_mask, other=0.0)
    left_bias = tl.load(weight_bias_ptr + here, mask=channel_mask, other=0.0)[None, :]
    right_bias = tl.load(weight_bias_ptr + channels + here, mask=channel_mask, other=0.0)[None, :]
    bias = tl.load(bias_ptr + here, mask=channel_mask, other=0.0)[None, :]
    other_bias = tl.load(bias_ptr + channels + here, mask=channel_mask, other=0.0)[None, :]

    zero = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    # partial results of the row before and of this one
    before = zero
    current = zero
    other_before = zero
    other_current = zero
    total = tl.zeros([BLOCK_C], tl.float32)
    for y in range(first - 1, end + 1):
        following = zero
        other_following = zero
        row = x_ptr + (picture * height + y) * width * channels  # 64 bits, once a row
        is_row = (y >= 0) & (y < height)
        # a loop: unrolled, all taps would want registers at once
        for dx in range(3):
            x = columns + dx - 1
            inside = is_row & (x >= 0) & (x < width)
            in_mask = inside[:, None] & input_mask[None, :]
            value = tl.load(row + x[:, None] * channels + inputs[None, :], mask=in_mask, other=0.0)
            value = normalize(value.to(tl.float32), in_mask, channels, eps).to(element)
            # beyond the picture the wide map is zero, whatever the bias
            there = inside.to(tl.float32)[:, None]
            wide = (product(value, left, zero) + left_bias) * there
            taps = taps_ptr + dx * both + here
            down = 3 * both
            following += wide * tl.load(taps, mask=channel_mask, other=0.0)[None, :]
            current += wide * tl.load(taps + down, mask=channel_mask, other=0.0)[None, :]
            before += wide * tl.load(taps + 2 * down, mask=channel_mask, other=0.0)[None, :]
            wide = (product(value, right, zero) + right_bias) * there
            taps += channels
            other_following += wide * tl.load(taps, mask=channel_mask, other=0.0)[None, :]
            other_current += wide * tl.load(taps + down, mask=channel_mask, other=0.0)[None, :]
            other_before += wide * tl.load(taps + 2 * down, mask=channel_mask, other=0.0)[None, :]
        result = (before + bias) * (other_before + other_bias)
        # the first two rows belong to results of the program above
        done = mask & (y > first)
        line = out_ptr + (picture * height + y - 1) * width * channels
        tl.store(line + columns[:, None] * channels + here[None, :], result.to(element), mask=done)
        if SUMS:
            total += tl.sum(tl.where(done, result, 0.0), axis=0)
        before = current
        current = following
        other_before = other_current
        other_current = other_following
    if SUMS:
        position = sums_ptr + (picture * parts + part) * channels + here
        tl.store(position, total, mask=channel_mask)


def fits(channels: int, itemsize: int) -> bool:
    """Whether the kernel supports a number of channels.

    Unaligned rows need more registers for their addresses than there are.
    """
    return channels <= MAX_CHANNELS[itemsize] and channels % 16 == 0


def parts_of(height: int, width: int, channels: int) -> tuple[int, int, int]:
    """Rows of a program, blocks of columns, and programs of a picture.

    Long columns make few rows twice; enough programs keep every multiprocessor busy.
    """
    column_blocks = triton.cdiv(width, _BLOCK_X)
    blocks = column_blocks * triton.cdiv(channels, _BLOCK_C)
    rows = max(8, min(64, height * blocks // 1024))
    return rows, column_blocks, column_blocks * triton.cdiv(height, rows)


def empty_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a map, `[N, parts, C]` float32."""
    batch, height, width, channels = out.shape
    parts = parts_of(height, width, channels)[2]
    return torch.empty(batch, parts, channels, dtype=torch.float32, device=out.device)


def launch_front(
    x: Tensor,
    weight: Tensor,
    weight_bias: Tensor,
    taps: Tensor,
    bias: Tensor,
    out: Tensor,
    *,
    sums: Tensor | None = None,
    eps: float = 1e-6,
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, height, width, channels = x.shape
    rows, column_blocks, parts = parts_of(height, width, channels)
    start(
        Launch(
            kernel=front_kernel,
            grid=(parts * triton.cdiv(channels, _BLOCK_C), batch),
            arguments={
                "x_ptr": x,
                "weight_ptr": weight,
                "weight_bias_ptr": weight_bias,
                "taps_ptr": taps,
                "bias_ptr": bias,
                "out_ptr": out,
                "sums_ptr": sums,
                "height": height,
                "width": width,
                "channels": channels,
                "rows": rows,
                "column_blocks": column_blocks,
                "parts": parts,
                "eps": eps,
            },
            constants={
                "SUMS": sums is not None,
                "BLOCK_X": _BLOCK_X,
                "BLOCK_C": _BLOCK_C,
                "BLOCK_K": max(16, triton.next_power_of_2(channels)),
            },
            num_warps=8,
            num_stages=1,
        )
    )
