"""3x3 convolutions of channels-last maps as nine matrix products, with a zero border.

The first convolution of the network writes two maps in one pass; the last one writes pictures.
With LayerNorm before and SimpleGate after it, the same kernel is the first half of a NAFBlock in
one pass: a 1x1 convolution followed by a depthwise one is a dense 3x3 convolution. That is nine
times the arithmetic of the 1x1 for a map of twice the width that is neither written nor read.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES, normalize, product


@triton.jit(do_not_specialize=SIZES)
def conv_kernel(
    x_ptr,  # [N, H, W, K]
    weight_ptr,  # [9, M or 2M, K]
    bias_ptr,  # [M or 2M] float32
    tap_bias_ptr,  # [9, M or 2M] float32, added for each pixel inside the picture
    out_ptr,  # [N, H, W, M], or [N, H, W, M / 2] if SPLIT, or [N, 3, H * PATCH, W * PATCH]
    second_ptr,  # [N, H, W, M / 2]
    sums_ptr,  # [N, pixel_blocks, M] float32
    height,
    width,
    num_inputs,  # K
    num_outputs,  # M
    pixel_blocks,
    eps,
    NORM: tl.constexpr,
    GATE: tl.constexpr,
    BIAS: tl.constexpr,
    SPLIT: tl.constexpr,
    SUMS: tl.constexpr,
    PATCH: tl.constexpr,  # of the pictures written; 0 for maps
    BLOCK_P: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute BLOCK_M outputs of BLOCK_P pixels of one picture."""
    output_blocks = tl.cdiv(num_outputs, BLOCK_M)
    block = tl.program_id(0) // output_blocks
    outputs = (tl.program_id(0) % output_blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    picture = tl.program_id(1).to(tl.int64)
    num_pixels = height * width
    pixels = block * BLOCK_P + tl.arange(0, BLOCK_P)
    rows = pixels // width
    columns = pixels % width
    pixel_mask = pixels < num_pixels
    output_mask = outputs < num_outputs
    inputs = tl.arange(0, BLOCK_K)
    x_ptr += picture * num_pixels * num_inputs
    all_outputs = num_outputs * 2 if GATE else num_outputs
    input_blocks = tl.cdiv(num_inputs, BLOCK_K)

    acc = tl.zeros([BLOCK_P, BLOCK_M], tl.float32)
    other = tl.zeros([BLOCK_P, BLOCK_M], tl.float32)
    for step in range(9 * input_blocks):
        tap = step // input_blocks
        here = (step % input_blocks) * BLOCK_K + inputs
        y = rows + tap // 3 - 1
        x = columns + tap % 3 - 1
        inside = pixel_mask & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        input_mask = here < num_inputs
        mask = inside[:, None] & input_mask[None, :]
        positions = (y * width + x)[:, None] * num_inputs + here[None, :]
        value = tl.load(x_ptr + positions, mask=mask, other=0.0)
        if NORM:
            value = normalize(value.to(tl.float32), mask, num_inputs, eps)
            value = value.to(x_ptr.dtype.element_ty)
        weight_mask = input_mask[:, None] & output_mask[None, :]
        offsets = (tap * all_outputs + outputs)[None, :] * num_inputs + here[:, None]
        weight = tl.load(weight_ptr + offsets, mask=weight_mask, other=0.0)
        acc = product(value, weight, acc)
        if GATE:
            offsets += num_outputs * num_inputs
            weight = tl.load(weight_ptr + offsets, mask=weight_mask, other=0.0)
            other = product(value, weight, other)
        if NORM:
            # the bias before a depthwise convolution ends where the picture does
            taps = tap_bias_ptr + tap * all_outputs + outputs
            there = inside.to(tl.float32)[:, None]
            acc += there * tl.load(taps, mask=output_mask, other=0.0)[None, :]
            if GATE:
                bias = tl.load(taps + num_outputs, mask=output_mask, other=0.0)
                other += there * bias[None, :]

    if BIAS:
        acc += tl.load(bias_ptr + outputs, mask=output_mask, other=0.0)[None, :]
        if GATE:
            bias = tl.load(bias_ptr + num_outputs + outputs, mask=output_mask, other=0.0)
            other += bias[None, :]
    if GATE:
        acc *= other
    out_mask = pixel_mask[:, None] & output_mask[None, :]
    if PATCH > 0:
        area = PATCH * PATCH
        out_ptr += picture * 3 * num_pixels * area
        colour = outputs // area
        down = outputs % area // PATCH
        right = outputs % PATCH
        line = (colour * height)[None, :] + rows[:, None]
        line = line * PATCH + down[None, :]
        offsets = line * (width * PATCH) + columns[:, None] * PATCH + right[None, :]
        tl.store(out_ptr + offsets, acc.to(out_ptr.dtype.element_ty), mask=out_mask)
    elif SPLIT:
        half = num_outputs // 2
        out_ptr += picture * num_pixels * half
        second_ptr += picture * num_pixels * half
        offsets = pixels[:, None] * half
        result = acc.to(out_ptr.dtype.element_ty)
        is_first = (outputs < half)[None, :]
        tl.store(out_ptr + offsets + outputs[None, :], result, mask=out_mask & is_first)
        tl.store(
            second_ptr + offsets + (outputs - half)[None, :],
            result,
            mask=out_mask & (outputs >= half)[None, :],
        )
    else:
        out_ptr += picture * num_pixels * num_outputs
        offsets = pixels[:, None] * num_outputs + outputs[None, :]
        tl.store(out_ptr + offsets, acc.to(out_ptr.dtype.element_ty), mask=out_mask)
    if SUMS:
        total = tl.sum(tl.where(out_mask, acc, 0.0), axis=0)
        offsets = (picture * pixel_blocks + block) * num_outputs + outputs
        tl.store(sums_ptr + offsets, total, mask=output_mask)


def _block_p(itemsize: int) -> int:
    return 64 if itemsize == 4 else 128


def launch_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    second: Tensor | None = None,
    *,
    patch: int = 0,
    gate: bool = False,
    tap_bias: Tensor | None = None,
    eps: float = 1e-6,
    sums: Tensor | None = None,
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, height, width, num_inputs = x.shape
    num_outputs = weight.shape[1] // (2 if gate else 1)
    wide = x.element_size() == 4
    norm = tap_bias is not None
    block_p = _block_p(x.element_size())
    block_m = min(max(16, triton.next_power_of_2(num_outputs)), 64)
    block_k = max(16, triton.next_power_of_2(num_inputs))
    if not norm:
        block_k = min(block_k, 32 if wide else 64)
    blocks = triton.cdiv(height * width, block_p)
    start(
        Launch(
            kernel=conv_kernel,
            grid=(blocks * triton.cdiv(num_outputs, block_m), batch),
            arguments={
                "x_ptr": x,
                "weight_ptr": weight,
                "bias_ptr": bias,
                "tap_bias_ptr": tap_bias,
                "out_ptr": out,
                "second_ptr": second,
                "sums_ptr": sums,
                "height": height,
                "width": width,
                "num_inputs": num_inputs,
                "num_outputs": num_outputs,
                "pixel_blocks": blocks,
                "eps": eps,
            },
            constants={
                "NORM": norm,
                "GATE": gate,
                "BIAS": bias is not None,
                "SPLIT": second is not None,
                "SUMS": sums is not None,
                "PATCH": patch,
                "BLOCK_P": block_p,
                "BLOCK_M": block_m,
                "BLOCK_K": block_k,
            },
            num_warps=4 if max(block_m, block_k) <= 16 else 8,
            num_stages=2,
        )
    )


def empty_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a map, `[N, blocks, C]` float32."""
    batch, height, width, channels = out.shape
    blocks = triton.cdiv(height * width, _block_p(out.element_size()))
    return torch.empty(batch, blocks, channels, dtype=torch.float32, device=out.device)
