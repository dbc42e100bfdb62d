"""Selective attention: products of channels over all pixels, and the four softmaxes as one matrix.

The maps of q and k are read once, for the products and the norms alike; everything after that is
as small as the square of a head's channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES, product

_BLOCK_P = 64
_MAX_BLOCK_C = 64


@triton.jit(do_not_specialize=SIZES)
def gram_kernel(
    maps_ptr,  # [N, P, 3C]: q, k, v
    gram_ptr,  # [N * heads, splits, c, c] float32, c = C / heads
    squares_ptr,  # [N * heads, splits, 2, c] float32
    num_pixels,
    channels,  # C
    head_channels,  # c
    heads,
    splits,
    split_pixels,  # of a split
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum q k^T and the squares of both over the pixels of one split, for one tile of channels."""
    blocks = tl.cdiv(head_channels, BLOCK_C)
    row_block = tl.program_id(0) // blocks
    column_block = tl.program_id(0) % blocks
    split = tl.program_id(1)
    picture = (tl.program_id(2) // heads).to(tl.int64)
    head = tl.program_id(2) % heads
    rows = row_block * BLOCK_C + tl.arange(0, BLOCK_C)
    columns = column_block * BLOCK_C + tl.arange(0, BLOCK_C)
    maps_ptr += picture * num_pixels * channels * 3 + head * head_channels
    row_mask = rows < head_channels
    column_mask = columns < head_channels
    begin = split * split_pixels
    end = tl.minimum(begin + split_pixels, num_pixels)
    acc = tl.zeros([BLOCK_C, BLOCK_C], tl.float32)
    row_squares = tl.zeros([BLOCK_C], tl.float32)
    column_squares = tl.zeros([BLOCK_C], tl.float32)
    for first in range(begin, end, BLOCK_P):
        pixels = first + tl.arange(0, BLOCK_P)
        starts = pixels * channels * 3
        inside = (pixels < end)[:, None]
        q = tl.load(
            maps_ptr + starts[:, None] + rows[None, :], mask=inside & row_mask[None, :], other=0.0
        )
        k = tl.load(
            maps_ptr + channels + starts[:, None] + columns[None, :],
            mask=inside & column_mask[None, :],
            other=0.0,
        )
        acc = product(tl.trans(q), k, acc)
        row_squares += tl.sum(q.to(tl.float32) * q.to(tl.float32), axis=0)
        column_squares += tl.sum(k.to(tl.float32) * k.to(tl.float32), axis=0)
    matrix = tl.program_id(2).to(tl.int64) * splits + split
    offsets = (matrix * head_channels + rows)[:, None] * head_channels + columns[None, :]
    tl.store(gram_ptr + offsets, acc, mask=row_mask[:, None] & column_mask[None, :])
    squares_ptr += matrix * 2 * head_channels
    tl.store(squares_ptr + rows, row_squares, mask=row_mask & (column_block == 0))
    tl.store(
        squares_ptr + head_channels + columns, column_squares, mask=column_mask & (row_block == 0)
    )


@triton.jit(do_not_specialize=SIZES)
def scores_kernel(
    gram_ptr,  # [N * heads, splits, c, c] float32
    squares_ptr,  # [N * heads, splits, 2, c] float32
    temperature_ptr,  # [heads] float32
    scores_ptr,  # [N * heads, c, c] float32
    head_channels,  # c
    heads,
    splits,
    BLOCK_C: tl.constexpr,  # power of two, at least c
):
    """Divide one row of the products by the norms."""
    row = tl.program_id(0)
    matrix = tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, BLOCK_C)
    mask = columns < head_channels
    total = tl.zeros([BLOCK_C], tl.float32)
    k_squares = tl.zeros([BLOCK_C], tl.float32)
    q_square = tl.zeros([BLOCK_C], tl.float32)
    for split in range(splits):
        position = matrix * splits + split
        line = gram_ptr + (position * head_channels + row) * head_channels
        total += tl.load(line + columns, mask=mask, other=0.0)
        squares = squares_ptr + position * 2 * head_channels
        k_squares += tl.load(squares + head_channels + columns, mask=mask, other=0.0)
        q_square += tl.load(squares + row)
    # the least norm is that of F.normalize
    norms = tl.maximum(tl.sqrt(q_square), 1e-12) * tl.maximum(tl.sqrt(k_squares), 1e-12)
    scores = total / norms * tl.load(temperature_ptr + matrix % heads)
    tl.store(scores_ptr + (matrix * head_channels + row) * head_channels + columns, scores, mask)


@triton.jit(do_not_specialize=SIZES)
def combine_kernel(
    scores_ptr,  # [N * heads, c, c] float32
    gains_ptr,  # [4] float32, of the shares 1/2, 2/3, 3/4 and 4/5
    out_ptr,  # [N * heads, c, c] float32
    head_channels,  # c
    BLOCK_C: tl.constexpr,  # power of two, at least c
    CHUNK: tl.constexpr,
):
    """Sum the softmaxes of one row over its largest 1/2, 2/3, 3/4 and 4/5."""
    line = (tl.program_id(1).to(tl.int64) * head_channels + tl.program_id(0)) * head_channels
    columns = tl.arange(0, BLOCK_C)
    mask = columns < head_channels
    scores = tl.load(scores_ptr + line + columns, mask=mask, other=-float("inf"))
    # how many are larger; of equals, the first is the largest
    rank = tl.zeros([BLOCK_C], tl.int32)
    for first in range(0, head_channels, CHUNK):
        rivals = first + tl.arange(0, CHUNK)
        there = rivals < head_channels
        rival = tl.load(scores_ptr + line + rivals, mask=there, other=-float("inf"))
        is_larger = rival[None, :] > scores[:, None]
        is_equal = rival[None, :] == scores[:, None]
        is_before = is_equal & (rivals[None, :] < columns[:, None])
        wins = (is_larger | is_before) & there[None, :]
        rank += tl.sum(wins.to(tl.int32), axis=1)
    exponential = tl.where(mask, tl.exp(scores - tl.max(scores, axis=0)), 0.0)
    result = tl.zeros([BLOCK_C], tl.float32)
    for share in tl.static_range(4):
        # 1/2, 2/3, 3/4, 4/5 of the channels, rounded down
        kept = head_channels * (share + 1) // (share + 2)
        chosen = tl.where(rank < kept, exponential, 0.0)
        total = tl.sum(chosen, axis=0)
        gain = tl.load(gains_ptr + share)
        # none is kept where a head has one channel
        result += chosen * (gain / tl.where(kept > 0, total, 1.0))
    tl.store(out_ptr + line + columns, result, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def project_kernel(
    combined_ptr,  # [N * heads, c, c] float32
    last_ptr,  # [heads, C, c] float32
    out_ptr,  # [N, C, C]
    channels,  # C
    head_channels,  # c
    heads,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,  # powers of two, at least 16
    BLOCK_K: tl.constexpr,
):
    """Multiply one head's columns of a matrix by its attention, BLOCK_R rows of one tile."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    picture = (tl.program_id(2) // heads).to(tl.int64)
    head = tl.program_id(2) % heads
    row_mask = rows < channels
    column_mask = columns < head_channels
    combined_ptr += (picture * heads + head) * head_channels * head_channels
    last_ptr += head * channels * head_channels
    acc = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for first in range(0, head_channels, BLOCK_K):
        inputs = first + tl.arange(0, BLOCK_K)
        input_mask = inputs < head_channels
        last = tl.load(
            last_ptr + rows[:, None] * head_channels + inputs[None, :],
            mask=row_mask[:, None] & input_mask[None, :],
            other=0.0,
        )
        combined = tl.load(
            combined_ptr + inputs[:, None] * head_channels + columns[None, :],
            mask=input_mask[:, None] & column_mask[None, :],
            other=0.0,
        )
        acc = product(last, combined, acc)
    out_ptr += picture * channels * channels + head * head_channels
    tl.store(
        out_ptr + rows[:, None] * channels + columns[None, :],
        acc.to(out_ptr.dtype.element_ty),
        mask=row_mask[:, None] & column_mask[None, :],
    )


def splits_of(num_pixels: int, head_channels: int, matrices: int) -> int:
    """In how many parts pixels are summed: enough to keep every multiprocessor busy."""
    blocks = triton.cdiv(head_channels, _block_c(head_channels)) ** 2 * matrices
    return max(1, min(512 // blocks, triton.cdiv(num_pixels, 4 * _BLOCK_P)))


def _block_c(head_channels: int) -> int:
    return min(max(16, triton.next_power_of_2(head_channels)), _MAX_BLOCK_C)


def launch_attention(
    maps: Tensor,
    temperature: Tensor,
    gains: Tensor,
    out: Tensor,
    gram: Tensor,
    squares: Tensor,
    scores: Tensor,
) -> None:
    """Run the kernels on arguments that map_ops has checked; see there.

    Args:
        maps: See map_ops.
        temperature: See map_ops.
        gains: See map_ops.
        out: See map_ops.
        gram: Room for `[N, heads, splits, c, c]` float32.
        squares: Room for `[N, heads, splits, 2, c]` float32.
        scores: Room for `[N, heads, c, c]` float32.
    """
    batch, heads, splits, size = gram.shape[:4]
    num_pixels = maps.shape[1] * maps.shape[2]
    block = _block_c(size)
    row = triton.next_power_of_2(size)
    blocks = triton.cdiv(size, block)
    start(
        Launch(
            kernel=gram_kernel,
            grid=(blocks * blocks, splits, batch * heads),
            arguments={
                "maps_ptr": maps,
                "gram_ptr": gram,
                "squares_ptr": squares,
                "num_pixels": num_pixels,
                "channels": size * heads,
                "head_channels": size,
                "heads": heads,
                "splits": splits,
                "split_pixels": triton.cdiv(triton.cdiv(num_pixels, splits), _BLOCK_P) * _BLOCK_P,
            },
            constants={"BLOCK_P": _BLOCK_P, "BLOCK_C": block},
            num_warps=4,
        )
    )
    start(
        Launch(
            kernel=scores_kernel,
            grid=(size, batch * heads),
            arguments={
                "gram_ptr": gram,
                "squares_ptr": squares,
                "temperature_ptr": temperature,
                "scores_ptr": scores,
                "head_channels": size,
                "heads": heads,
                "splits": splits,
            },
            constants={"BLOCK_C": row},
            num_warps=1 if row <= 64 else 4,
        )
    )
    start(
        Launch(
            kernel=combine_kernel,
            grid=(size, batch * heads),
            arguments={
                "scores_ptr": scores,
                "gains_ptr": gains,
                "out_ptr": out,
                "head_channels": size,
            },
            constants={"BLOCK_C": row, "CHUNK": min(row, 32)},
            num_warps=1 if row <= 64 else 4,
        )
    )


def attention_buffers(maps: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """The last three arguments of `launch_attention`."""
    batch, height, width, channels = maps.shape
    size = channels // 3 // heads
    splits = splits_of(height * width, size, batch * heads)
    sizes = ((splits, size, size), (splits, 2, size), (size, size))
    gram, squares, scores = (
        torch.empty((batch, heads, *rest), dtype=torch.float32, device=maps.device)
        for rest in sizes
    )
    return gram, squares, scores


def launch_project(combined: Tensor, last: Tensor, out: Tensor) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, channels = out.shape[:2]
    heads, size = combined.shape[1:3]
    block = min(max(16, triton.next_power_of_2(size)), 32)
    start(
        Launch(
            kernel=project_kernel,
            grid=(triton.cdiv(channels, 32), triton.cdiv(size, block), batch * heads),
            arguments={
                "combined_ptr": combined,
                "last_ptr": last,
                "out_ptr": out,
                "channels": channels,
                "head_channels": size,
                "heads": heads,
            },
            constants={"BLOCK_R": 32, "BLOCK_C": block, "BLOCK_K": block},
            num_warps=4,
        )
    )
