"""Adaptive feature fusion, and the small sums and products between the large maps.

Means pass through linear layers, so the shares of the fusion are known from the means of what its
maps are made from. The fusion itself is then one pass: the convolutions of two of its maps, their
pixel shuffle, the weighted sum of three and the LayerNorm of the next group.
"""

import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES, added, is_last, normalize, product

_BLOCK_PARTS = 128
"""Parts that a program adds at once; the same for pictures of every size."""
_SPLIT_PARTS = 256
"""Fewest parts of a program, where there are more."""
_MAX_SPLITS = 64
_BLOCK_CHANNELS = 16


@triton.jit
def _mean_of_split(
    sums_ptr,
    channels_here,
    mask,
    split,
    parts,
    split_parts,
    channels,
    num_pixels,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """What the parts of one split add to the means of some channels, `[BLOCK_K]`."""
    total = tl.zeros([BLOCK_B, BLOCK_K], tl.float32)
    begin = split * split_parts
    end = tl.minimum(begin + split_parts, parts)
    for first in range(begin, end, BLOCK_B):
        rows = first + tl.arange(0, BLOCK_B)
        offsets = rows[:, None] * channels + channels_here[None, :]
        total += tl.load(sums_ptr + offsets, mask=(rows < end)[:, None] & mask[None, :], other=0.0)
    return tl.sum(total, axis=0) / num_pixels


@triton.jit(do_not_specialize=SIZES)
def mean_kernel(
    sums_ptr,  # [N, parts, C] float32
    partial_ptr,  # [N, splits, C] float32
    done_ptr,  # [N] int32, zero before and after
    out_ptr,  # [N, C] float32
    parts,
    splits,
    split_parts,  # of a split
    channels,  # C
    num_pixels,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Add one split's parts of BLOCK_K channels; the last program adds the splits."""
    picture = tl.program_id(1).to(tl.int64)
    blocks = tl.cdiv(channels, BLOCK_K)
    split = tl.program_id(0) // blocks
    here = (tl.program_id(0) % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask = here < channels
    sums_ptr += picture * parts * channels
    mean = _mean_of_split(
        sums_ptr, here, mask, split, parts, split_parts, channels, num_pixels, BLOCK_B, BLOCK_K
    )
    partial_ptr += picture * splits * channels
    tl.store(partial_ptr + split * channels + here, mean, mask=mask)
    if is_last(done_ptr + picture, tl.num_programs(0)):
        for first in range(0, channels, BLOCK_K):
            here = first + tl.arange(0, BLOCK_K)
            mask = here < channels
            total = added(partial_ptr, splits, channels, here, mask, 64)
            tl.store(out_ptr + picture * channels + here, total, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def attend_kernel(
    sums_ptr,  # [N, parts, C] float32
    matrix_ptr,  # [C, C] float32
    bias_ptr,  # [C] float32
    partial_ptr,  # [N, programs, C] float32
    done_ptr,  # [N] int32, zero before and after
    gain_ptr,  # [N, C] float32
    parts,
    split_parts,  # of a split
    channels,  # C
    num_pixels,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Multiply one split's share of BLOCK_K means by the matrix; the last program adds them all.

    The product is linear, so that it need not wait for the means, and every program reads a part
    of the matrix.
    """
    picture = tl.program_id(1).to(tl.int64)
    programs = tl.num_programs(0)
    blocks = tl.cdiv(channels, BLOCK_K)
    split = tl.program_id(0) // blocks
    here = (tl.program_id(0) % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask = here < channels
    sums_ptr += picture * parts * channels
    mean = _mean_of_split(
        sums_ptr, here, mask, split, parts, split_parts, channels, num_pixels, BLOCK_B, BLOCK_K
    )
    partial_ptr += picture * programs * channels
    for first in range(0, channels, BLOCK_M):
        outputs = first + tl.arange(0, BLOCK_M)
        there = outputs < channels
        offsets = outputs[:, None] * channels + here[None, :]
        weight = tl.load(matrix_ptr + offsets, mask=there[:, None] & mask[None, :], other=0.0)
        share = tl.sum(weight * mean[None, :], axis=1)
        tl.store(partial_ptr + tl.program_id(0) * channels + outputs, share, mask=there)
    if is_last(done_ptr + picture, programs):
        for first in range(0, channels, BLOCK_M):
            outputs = first + tl.arange(0, BLOCK_M)
            there = outputs < channels
            gain = added(partial_ptr, programs, channels, outputs, there, 64)
            gain += tl.load(bias_ptr + outputs, mask=there, other=0.0)
            tl.store(gain_ptr + picture * channels + outputs, gain, mask=there)


@triton.jit(do_not_specialize=SIZES)
def shares_kernel(
    mean_ptr,  # [N, C] float32
    low_ptr,  # [N, A] float32
    high_ptr,  # [N, B] float32
    low_matrix_ptr,  # [C, A] float32
    high_matrix_ptr,  # [C, B] float32
    squeeze_ptr,  # [2R, C] float32
    expand_ptr,  # [3, C, R] float32
    shares_ptr,  # [N, 3, C] float32
    channels,  # C
    low_channels,  # A
    high_channels,  # B
    reduced,  # R
    BLOCK_C: tl.constexpr,  # power of two, at least C
    BLOCK_R: tl.constexpr,  # power of two, at least R
    BLOCK_K: tl.constexpr,
):
    """Compute the three shares of every channel of one picture."""
    picture = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK_C)
    mask = rows < channels
    total = tl.load(mean_ptr + picture * channels + rows, mask=mask, other=0.0)
    for first in range(0, low_channels, BLOCK_K):
        here = first + tl.arange(0, BLOCK_K)
        there = here < low_channels
        mean = tl.load(low_ptr + picture * low_channels + here, mask=there, other=0.0)
        offsets = rows[:, None] * low_channels + here[None, :]
        weight = tl.load(low_matrix_ptr + offsets, mask=mask[:, None] & there[None, :], other=0.0)
        total += tl.sum(weight * mean[None, :], axis=1)
    for first in range(0, high_channels, BLOCK_K):
        here = first + tl.arange(0, BLOCK_K)
        there = here < high_channels
        mean = tl.load(high_ptr + picture * high_channels + here, mask=there, other=0.0)
        offsets = rows[:, None] * high_channels + here[None, :]
        weight = tl.load(high_matrix_ptr + offsets, mask=mask[:, None] & there[None, :], other=0.0)
        total += tl.sum(weight * mean[None, :], axis=1)
    units = tl.arange(0, BLOCK_R)
    unit_mask = units < reduced
    offsets = units[:, None] * channels + rows[None, :]
    squeeze_mask = unit_mask[:, None] & mask[None, :]
    first_half = tl.load(squeeze_ptr + offsets, mask=squeeze_mask, other=0.0)
    second_half = tl.load(squeeze_ptr + reduced * channels + offsets, mask=squeeze_mask, other=0.0)
    summary = tl.sum(first_half * total[None, :], axis=1)
    summary *= tl.sum(second_half * total[None, :], axis=1)
    for number in tl.static_range(3):
        offsets = (number * channels + rows)[:, None] * reduced + units[None, :]
        weight = tl.load(expand_ptr + offsets, mask=mask[:, None] & unit_mask[None, :], other=0.0)
        logits = tl.sum(weight * summary[None, :], axis=1)
        logits = tl.where(mask, logits, -float("inf"))
        exponential = tl.exp(logits - tl.max(logits, axis=0))
        share = exponential / tl.sum(exponential, axis=0)
        tl.store(shares_ptr + (picture * 3 + number) * channels + rows, share, mask=mask)


@triton.jit(do_not_specialize=SIZES)
def fuse_kernel(
    x_ptr,  # [N, P, C], or [N, 2H, 2W, C] if DOUBLE
    low_ptr,  # [N, P, A], P = H * W
    high_ptr,  # [N, P, A]
    low_weight_ptr,  # [C, A], or [4C, A] if DOUBLE: top left, top right, bottom left, bottom right
    high_weight_ptr,  # like the other
    shares_ptr,  # [N, 3, C] float32
    scale_ptr,  # [C] float32
    shift_ptr,  # [C] float32
    out_ptr,  # like x
    num_pixels,  # P
    row_width,  # W
    channels,  # C
    num_inputs,  # A
    eps,
    DOUBLE: tl.constexpr,
    HIGH: tl.constexpr,
    SHARES: tl.constexpr,
    NORM: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,  # power of two, at least C and 16
    BLOCK_K: tl.constexpr,
):
    """Compute what BLOCK_P pixels of the two maps contribute to, all channels."""
    picture = tl.program_id(1).to(tl.int64)
    pixels = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    pixel_mask = pixels < num_pixels
    here = tl.arange(0, BLOCK_C)
    channel_mask = here < channels
    mask = pixel_mask[:, None] & channel_mask[None, :]
    element = out_ptr.dtype.element_ty
    starts = pixels * num_inputs
    low_ptr += picture * num_pixels * num_inputs
    if HIGH:
        high_ptr += picture * num_pixels * num_inputs
    start = picture * num_pixels * channels * (4 if DOUBLE else 1)
    # one of four positions after the other: what they share comes from the cache
    for quarter in range(4 if DOUBLE else 1):
        if DOUBLE:
            rows = 2 * (pixels // row_width) + quarter // 2
            columns = 2 * (pixels % row_width) + quarter % 2
            positions = rows * (2 * row_width) + columns
        else:
            positions = pixels
        offsets = positions[:, None] * channels + here[None, :]
        low = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
        high = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
        for first in range(0, num_inputs, BLOCK_K):
            inputs = first + tl.arange(0, BLOCK_K)
            input_mask = inputs < num_inputs
            map_mask = pixel_mask[:, None] & input_mask[None, :]
            weight_mask = input_mask[:, None] & channel_mask[None, :]
            weights = (quarter * channels + here)[None, :] * num_inputs + inputs[:, None]
            value = tl.load(low_ptr + starts[:, None] + inputs[None, :], mask=map_mask, other=0.0)
            weight = tl.load(low_weight_ptr + weights, mask=weight_mask, other=0.0)
            low = product(value, weight, low)
            if HIGH:
                value = tl.load(
                    high_ptr + starts[:, None] + inputs[None, :], mask=map_mask, other=0.0
                )
                weight = tl.load(high_weight_ptr + weights, mask=weight_mask, other=0.0)
                high = product(value, weight, high)
        x = tl.load(x_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
        if SHARES:
            share = shares_ptr + picture * 3 * channels + here
            x *= tl.load(share, mask=channel_mask, other=0.0)[None, :]
            low *= tl.load(share + channels, mask=channel_mask, other=0.0)[None, :]
            high *= tl.load(share + 2 * channels, mask=channel_mask, other=0.0)[None, :]
        x += low + high
        if NORM:
            x = normalize(x, mask, channels, eps)
            x *= tl.load(scale_ptr + here, mask=channel_mask, other=0.0)[None, :]
            x += tl.load(shift_ptr + here, mask=channel_mask, other=0.0)[None, :]
        tl.store(out_ptr + start + offsets, x.to(element), mask=mask)


def _splits(parts: int) -> tuple[int, int]:
    """Number of splits, and the parts of each."""
    splits = min(_MAX_SPLITS, triton.cdiv(parts, _SPLIT_PARTS))
    split_parts = triton.cdiv(triton.cdiv(parts, splits), _BLOCK_PARTS) * _BLOCK_PARTS
    return triton.cdiv(parts, split_parts), split_parts


def empty_mean_partial(sums: Tensor) -> Tensor:
    """Room for what the programs of `launch_mean` add, `[N, splits, C]` float32."""
    return sums.new_empty(len(sums), _splits(sums.shape[1])[0], sums.shape[2])


def empty_attend_partial(sums: Tensor) -> Tensor:
    """Room for what the programs of `launch_attend` add, `[N, programs, C]` float32."""
    batch, parts, channels = sums.shape
    programs = _splits(parts)[0] * triton.cdiv(channels, _BLOCK_CHANNELS)
    return sums.new_empty(batch, programs, channels)


def launch_mean(sums: Tensor, num_pixels: int, partial: Tensor, done: Tensor, out: Tensor) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, parts, channels = sums.shape
    splits, split_parts = _splits(parts)
    start(
        Launch(
            kernel=mean_kernel,
            grid=(splits * triton.cdiv(channels, _BLOCK_CHANNELS), batch),
            arguments={
                "sums_ptr": sums,
                "partial_ptr": partial,
                "done_ptr": done,
                "out_ptr": out,
                "parts": parts,
                "splits": splits,
                "split_parts": split_parts,
                "channels": channels,
                "num_pixels": num_pixels,
            },
            constants={"BLOCK_B": _BLOCK_PARTS, "BLOCK_K": _BLOCK_CHANNELS},
            num_warps=4,
        )
    )


def launch_attend(
    sums: Tensor,
    num_pixels: int,
    matrix: Tensor,
    bias: Tensor,
    partial: Tensor,
    done: Tensor,
    out: Tensor,
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, parts, channels = sums.shape
    start(
        Launch(
            kernel=attend_kernel,
            grid=(partial.shape[1], batch),
            arguments={
                "sums_ptr": sums,
                "matrix_ptr": matrix,
                "bias_ptr": bias,
                "partial_ptr": partial,
                "done_ptr": done,
                "gain_ptr": out,
                "parts": parts,
                "split_parts": _splits(parts)[1],
                "channels": channels,
                "num_pixels": num_pixels,
            },
            constants={
                "BLOCK_B": _BLOCK_PARTS,
                "BLOCK_K": _BLOCK_CHANNELS,
                "BLOCK_M": min(128, max(16, triton.next_power_of_2(channels))),
            },
            num_warps=4,
        )
    )


def launch_shares(
    mean: Tensor,
    low: Tensor,
    high: Tensor,
    low_matrix: Tensor,
    high_matrix: Tensor,
    squeeze: Tensor,
    expand: Tensor,
    out: Tensor,
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, channels = mean.shape
    reduced = expand.shape[2]
    start(
        Launch(
            kernel=shares_kernel,
            grid=(batch,),
            arguments={
                "mean_ptr": mean,
                "low_ptr": low,
                "high_ptr": high,
                "low_matrix_ptr": low_matrix,
                "high_matrix_ptr": high_matrix,
                "squeeze_ptr": squeeze,
                "expand_ptr": expand,
                "shares_ptr": out,
                "channels": channels,
                "low_channels": low.shape[1],
                "high_channels": high.shape[1],
                "reduced": reduced,
            },
            constants={
                "BLOCK_C": triton.next_power_of_2(channels),
                "BLOCK_R": triton.next_power_of_2(reduced),
                "BLOCK_K": 32,
            },
            num_warps=4,
        )
    )


def launch_fuse(
    x: Tensor,
    low: Tensor,
    high: Tensor | None,
    low_weight: Tensor,
    high_weight: Tensor | None,
    shares: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    out: Tensor,
    eps: float,
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, height, width, num_inputs = low.shape
    channels = x.shape[3]
    wide = x.element_size() == 4
    block_c = max(16, triton.next_power_of_2(channels))
    block_p = min(64, (2048 if wide else 4096) // block_c) if wide or block_c > 16 else 128
    block_p = max(16, block_p)
    start(
        Launch(
            kernel=fuse_kernel,
            grid=(triton.cdiv(height * width, block_p), batch),
            arguments={
                "x_ptr": x,
                "low_ptr": low,
                "high_ptr": high,
                "low_weight_ptr": low_weight,
                "high_weight_ptr": high_weight,
                "shares_ptr": shares,
                "scale_ptr": scale,
                "shift_ptr": shift,
                "out_ptr": out,
                "num_pixels": height * width,
                "row_width": width,
                "channels": channels,
                "num_inputs": num_inputs,
                "eps": eps,
            },
            constants={
                "DOUBLE": x.shape[1] != height,
                "HIGH": high is not None,
                "SHARES": shares is not None,
                "NORM": scale is not None,
                "BLOCK_P": block_p,
                "BLOCK_C": block_c,
                "BLOCK_K": min(max(16, triton.next_power_of_2(num_inputs)), 32 if wide else 64),
            },
            num_warps=8,
            num_stages=2,
        )
    )
