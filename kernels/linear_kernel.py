"""1x1 convolutions of channels-last maps, with what stands before and after them.

A 1x1 convolution is a matrix product over pixels. LayerNorm or a gain before it, and bias, gate,
residuals and sums after it, cost no traffic when they are done in its registers; a 2x2 convolution
with stride 2 and a pixel shuffle by 2 are the same product with other addresses.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES, product

PLAIN, HALVE, DOUBLE = 0, 1, 2
"""Mapping of input pixels to output pixels: one to one, four to one, one to four."""

_HALVE = tl.constexpr(HALVE)
_DOUBLE = tl.constexpr(DOUBLE)


@triton.jit
def _statistics(value, mask, count):
    """The mean of each row and the sum of the squares around it."""
    mean = tl.sum(tl.where(mask, value, 0.0), axis=1) / count
    centered = tl.where(mask, value - mean[:, None], 0.0)
    return mean, tl.sum(centered * centered, axis=1)


@triton.jit
def _joined(mean, squares, before, part, part_squares, count):
    """Statistics of `before` values and of `count` more."""
    total = before + count
    delta = part - mean
    squares += part_squares + delta * delta * (before * count / total)
    return mean + delta * (count / total), squares


@triton.jit(do_not_specialize=SIZES)
def linear_kernel(
    x_ptr,  # [N, P, K], pixels x_stride apart; HALVE: [N, 2H, 2W, K / 4]
    weight_ptr,  # [M or 2M, K], pictures weight_stride apart
    weight_sums_ptr,  # [M or 2M] float32
    bias_ptr,  # [M or 2M] float32
    gain_ptr,  # [N, K] float32
    first_ptr,  # like out
    second_ptr,  # like out
    out_ptr,  # [N, P, M]; DOUBLE: [N, 2H, 2W, M / 4]
    sums_ptr,  # [N, pixel_blocks, M] float32
    statistics_ptr,  # [N, K / PART, 2, P] float32, of x
    out_statistics_ptr,  # [N, M / PART, 2, P] float32
    num_pixels,  # P = H * W
    num_inputs,  # K
    num_outputs,  # M
    row_width,  # W
    x_stride,
    x_picture_stride,
    weight_stride,
    pixel_blocks,
    eps,
    MODE: tl.constexpr,
    NORM: tl.constexpr,
    KNOWN: tl.constexpr,  # whether statistics of x are there, for NORM
    STATISTICS: tl.constexpr,  # whether those of the result are wanted
    PART: tl.constexpr,  # channels of which statistics are
    GAIN: tl.constexpr,
    BIAS: tl.constexpr,
    GATE: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK_P: tl.constexpr,  # powers of two, at least 16
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute BLOCK_M outputs of BLOCK_P pixels of one picture."""
    output_blocks = tl.cdiv(num_outputs, BLOCK_M)
    # neighbours share their pixels, which then come from the cache
    block = tl.program_id(0) // output_blocks
    outputs = (tl.program_id(0) % output_blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    picture = tl.program_id(1).to(tl.int64)
    # offsets inside a picture fit 32 bits, which saves half of the registers for them
    pixels = block * BLOCK_P + tl.arange(0, BLOCK_P)
    pixel_mask = pixels < num_pixels
    output_mask = outputs < num_outputs
    element = out_ptr.dtype.element_ty
    weight_ptr += picture * weight_stride
    rows = pixels // row_width
    columns = pixels % row_width

    if MODE == _HALVE:
        # two pixels of a row lie together: K / 2 values from each of two rows
        half = num_inputs // 2
        x_ptr += picture * num_pixels * num_inputs
        starts = 2 * rows * row_width * half + columns * half
        down = row_width * half
    else:
        half = num_inputs
        x_ptr += picture * x_picture_stride
        starts = pixels * x_stride
        down = 0

    inputs = tl.arange(0, BLOCK_K)
    mean = tl.zeros([BLOCK_P], tl.float32)
    squares = tl.zeros([BLOCK_P], tl.float32)
    acc = tl.zeros([BLOCK_P, BLOCK_M], tl.float32)
    other = tl.zeros([BLOCK_P, BLOCK_M], tl.float32)
    for first in range(0, num_inputs, BLOCK_K):
        here = first + inputs
        input_mask = here < num_inputs
        mask = pixel_mask[:, None] & input_mask[None, :]
        positions = here
        if MODE == _HALVE:
            positions = (here // half) * down + here % half
        x = tl.load(x_ptr + starts[:, None] + positions[None, :], mask=mask, other=0.0)
        if NORM and not KNOWN:
            # means and squares of parts are joined, so that nothing cancels and x is read once
            count = tl.minimum(num_inputs - first, BLOCK_K).to(tl.float32)
            part, part_squares = _statistics(x.to(tl.float32), mask, count)
            mean, squares = _joined(mean, squares, first, part, part_squares, count)
        if GAIN:
            gain = tl.load(gain_ptr + picture * num_inputs + here, mask=input_mask, other=0.0)
            x = (x.to(tl.float32) * gain[None, :]).to(element)
        weight_mask = input_mask[:, None] & output_mask[None, :]
        offsets = outputs[None, :] * num_inputs + here[:, None]
        weight = tl.load(weight_ptr + offsets, mask=weight_mask, other=0.0)
        acc = product(x, weight, acc)
        if GATE:
            offsets += num_outputs * num_inputs
            weight = tl.load(weight_ptr + offsets, mask=weight_mask, other=0.0)
            other = product(x, weight, other)

    if NORM and KNOWN:
        statistics_ptr += picture * tl.cdiv(num_inputs, PART) * 2 * num_pixels + pixels
        for first in range(0, num_inputs, PART):
            count = tl.minimum(num_inputs - first, PART).to(tl.float32)
            part = tl.load(statistics_ptr, mask=pixel_mask, other=0.0)
            part_squares = tl.load(statistics_ptr + num_pixels, mask=pixel_mask, other=0.0)
            mean, squares = _joined(mean, squares, first, part, part_squares, count)
            statistics_ptr += 2 * num_pixels
    if NORM:
        # linear, so that it may follow the product, whose factors stay as they are in memory
        deviation = (1.0 / tl.sqrt(squares / num_inputs + eps))[:, None]
        weight_sums = tl.load(weight_sums_ptr + outputs, mask=output_mask, other=0.0)
        acc = (acc - mean[:, None] * weight_sums[None, :]) * deviation
        if GATE:
            weight_sums_ptr += num_outputs
            weight_sums = tl.load(weight_sums_ptr + outputs, mask=output_mask, other=0.0)
            other = (other - mean[:, None] * weight_sums[None, :]) * deviation
    if BIAS:
        acc += tl.load(bias_ptr + outputs, mask=output_mask, other=0.0)[None, :]
    if GATE:
        if BIAS:
            bias = tl.load(bias_ptr + num_outputs + outputs, mask=output_mask, other=0.0)
            other += bias[None, :]
        acc *= other
    out_mask = pixel_mask[:, None] & output_mask[None, :]
    if MODE == _DOUBLE:
        half_out = num_outputs // 2
        out_places = (outputs // half_out) * row_width * half_out + outputs % half_out
        out_starts = 2 * rows * row_width * half_out + columns * half_out
    else:
        out_places = outputs
        out_starts = pixels * num_outputs
    out_offsets = out_starts[:, None] + out_places[None, :]
    out_start = picture * num_pixels * num_outputs
    if FIRST:
        acc += tl.load(first_ptr + out_start + out_offsets, mask=out_mask, other=0.0).to(tl.float32)
    if SECOND:
        acc += tl.load(second_ptr + out_start + out_offsets, mask=out_mask, other=0.0).to(
            tl.float32
        )
    tl.store(out_ptr + out_start + out_offsets, acc.to(element), mask=out_mask)
    if STATISTICS:
        # of what is stored, so that the product of the mean cancels exactly
        number = tl.program_id(0) % output_blocks
        count = tl.minimum(num_outputs - number * BLOCK_M, BLOCK_M).to(tl.float32)
        part, part_squares = _statistics(acc.to(element).to(tl.float32), out_mask, count)
        out_statistics_ptr += (picture * output_blocks + number) * 2 * num_pixels + pixels
        tl.store(out_statistics_ptr, part, mask=pixel_mask)
        tl.store(out_statistics_ptr + num_pixels, part_squares, mask=pixel_mask)
    if SUMS:
        total = tl.sum(tl.where(out_mask, acc, 0.0), axis=0)
        sums_offsets = (picture * pixel_blocks + block) * num_outputs + outputs
        tl.store(sums_ptr + sums_offsets, total, mask=output_mask)


def part_channels(itemsize: int) -> int:
    """Channels of which a program that stores statistics has them all, if there are so many."""
    return 32 if itemsize == 4 else 64


def _tile(
    num_inputs: int,
    num_outputs: int,
    itemsize: int,
    gate: bool,
    norm: bool,
    statistics: bool = False,
) -> dict[str, int]:
    """Sizes that fill the tensor cores, with several blocks on a multiprocessor.

    Args:
        num_inputs: K.
        num_outputs: M.
        itemsize: Bytes of an element.
        gate: As for the kernel.
        norm: Whether statistics of the inputs are computed.
        statistics: Whether those of the outputs are stored.
    """
    wide = itemsize == 4
    # unaligned rows need more registers for their addresses
    is_large = gate or num_inputs > 128 or num_inputs % 16 != 0
    most = part_channels(itemsize) if wide or is_large or statistics else 128
    block_m = min(max(16, triton.next_power_of_2(num_outputs)), most)
    block_k = min(max(16, triton.next_power_of_2(num_inputs)), 32 if wide else 64)
    # statistics of all inputs at once need registers: three blocks instead of one
    is_small = wide or (norm and num_inputs <= block_k)
    return {"BLOCK_P": 64 if is_small else 128, "BLOCK_M": block_m, "BLOCK_K": block_k}


def pixel_blocks(num_pixels: int, itemsize: int) -> int:
    """Partial sums of a picture that `launch_linear` writes."""
    return triton.cdiv(num_pixels, _tile(16, 16, itemsize, False, False)["BLOCK_P"])


def launch_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    mode: int = PLAIN,
    weight_sums: Tensor | None = None,
    eps: float = 1e-6,
    gate: bool = False,
    gain: Tensor | None = None,
    residuals: tuple[Tensor, ...] = (),
    sums: Tensor | None = None,
    statistics: Tensor | None = None,
    statistics_out: Tensor | None = None,
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, height, width, _channels = out.shape if mode != DOUBLE else x.shape
    num_inputs = weight.shape[-1]
    num_outputs = weight.shape[-2] // (2 if gate else 1)
    num_pixels = height * width
    norm = weight_sums is not None
    known = statistics is not None
    tile = _tile(
        num_inputs,
        num_outputs,
        x.element_size(),
        gate,
        norm and not known,
        statistics_out is not None,
    )
    blocks = triton.cdiv(num_pixels, tile["BLOCK_P"])
    first, second = (*residuals, None, None)[:2]
    arguments: dict[str, Any] = {
        "x_ptr": x,
        "weight_ptr": weight,
        "weight_sums_ptr": weight_sums,
        "bias_ptr": bias,
        "gain_ptr": gain,
        "first_ptr": first,
        "second_ptr": second,
        "out_ptr": out,
        "sums_ptr": sums,
        "statistics_ptr": statistics,
        "out_statistics_ptr": statistics_out,
        "num_pixels": num_pixels,
        "num_inputs": num_inputs,
        "num_outputs": num_outputs,
        "row_width": width,
        "x_stride": x.stride(2),
        "x_picture_stride": x.stride(0),
        "weight_stride": weight.stride(0) if weight.ndim == 3 else 0,
        "pixel_blocks": blocks,
        "eps": eps,
    }
    start(
        Launch(
            kernel=linear_kernel,
            grid=(blocks * triton.cdiv(num_outputs, tile["BLOCK_M"]), batch),
            arguments=arguments,
            constants={
                "MODE": mode,
                "NORM": norm,
                "KNOWN": known,
                "STATISTICS": statistics_out is not None,
                # zero where it does not matter, so that one program does for both
                "PART": part_channels(x.element_size()) if known else 0,
                "GAIN": gain is not None,
                "BIAS": bias is not None,
                "GATE": gate,
                "FIRST": first is not None,
                "SECOND": second is not None,
                "SUMS": sums is not None,
                **tile,
            },
            num_warps=4 if tile["BLOCK_P"] == 64 or tile["BLOCK_M"] <= 32 else 8,
            num_stages=1 if tile["BLOCK_K"] >= num_inputs else 3,
        )
    )


def empty_statistics(out: Tensor) -> Tensor:
    """Room for the statistics of a map, `[N, parts, 2, H, W]` float32."""
    batch, height, width, channels = out.shape
    parts = triton.cdiv(channels, part_channels(out.element_size()))
    size = (batch, parts, 2, height, width)
    return torch.empty(size, dtype=torch.float32, device=out.device)


def empty_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a map, `[N, blocks, C]` float32."""
    blocks = pixel_blocks(out.shape[1] * out.shape[2], out.element_size())
    return torch.empty(out.shape[0], blocks, out.shape[3], dtype=torch.float32, device=out.device)
