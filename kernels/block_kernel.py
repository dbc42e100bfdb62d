"""The second half of a NAFBlock in one kernel: everything after the gate of the first.

A pixel's result depends only on that pixel. So three matrix products, with LayerNorm and gate
between them, are computed in registers. The kernel reads the gated map and the block's input, and
writes its output.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start
from mhnet_video.kernels.triton_math import SIZES, normalize, product

MAX_CHANNELS = {2: 128, 4: 64}
"""Most channels, by bytes of an element, whose weights and sums fit a multiprocessor."""


@triton.jit(do_not_specialize=SIZES)
def block_back_kernel(
    gated_ptr,  # [N, P, C]
    x_ptr,  # [N, P, C]
    more_ptr,  # [N, P, C]
    gain_ptr,  # [N, C] float32
    w3_ptr,  # [C, C]
    b3_ptr,  # [C] float32
    w4_ptr,  # [2C, C]
    b4_ptr,  # [2C] float32
    w5_ptr,  # [C, C]
    b5_ptr,  # [C] float32
    out_ptr,  # [N, P, C]
    sums_ptr,  # [N, pixel_blocks, C] float32
    num_pixels,  # P
    num_channels,  # C
    pixel_blocks,
    eps,
    MORE: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,  # power of two, at least C and 16
):
    """Compute all channels of BLOCK_P pixels of one picture."""
    block = tl.program_id(0)
    picture = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, BLOCK_C)
    channel_mask = channels < num_channels
    square_mask = channel_mask[:, None] & channel_mask[None, :]
    square = channels[None, :] * num_channels + channels[:, None]  # [inputs, outputs]
    element = out_ptr.dtype.element_ty
    gain = tl.load(gain_ptr + picture * num_channels + channels, mask=channel_mask, other=0.0)
    # no loop over pixels, because it would keep the weights in registers and spill others
    start = picture * num_pixels * num_channels
    pixels = block * BLOCK_P + tl.arange(0, BLOCK_P)
    mask = (pixels < num_pixels)[:, None] & channel_mask[None, :]
    offsets = pixels[:, None] * num_channels + channels[None, :]
    gated = tl.load(gated_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(b3_ptr + channels, mask=channel_mask, other=0.0)
    weight = tl.load(w3_ptr + square, mask=square_mask, other=0.0)
    x = product((gated * gain[None, :]).to(element), weight, x + bias[None, :])
    normed = normalize(x, mask, num_channels, eps).to(element)
    weight = tl.load(w4_ptr + square, mask=square_mask, other=0.0)
    bias = tl.load(b4_ptr + channels, mask=channel_mask, other=0.0)
    zero = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    first = product(normed, weight, zero) + bias[None, :]
    weight = tl.load(w4_ptr + num_channels * num_channels + square, mask=square_mask, other=0.0)
    bias = tl.load(b4_ptr + num_channels + channels, mask=channel_mask, other=0.0)
    second = product(normed, weight, zero) + bias[None, :]
    weight = tl.load(w5_ptr + square, mask=square_mask, other=0.0)
    bias = tl.load(b5_ptr + channels, mask=channel_mask, other=0.0)
    x = product((first * second).to(element), weight, x + bias[None, :])
    if MORE:
        x += tl.load(more_ptr + start + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + start + offsets, x.to(element), mask=mask)
    if SUMS:
        total = tl.sum(tl.where(mask, x, 0.0), axis=0)
        position = sums_ptr + (picture * pixel_blocks + block) * num_channels + channels
        tl.store(position, total, mask=channel_mask)


def _tiling(channels: int, itemsize: int) -> tuple[int, int]:
    """Pixels and warps of a program, such that no value is spilled.

    Compiled for sm_80, sm_89 and sm_90 without a spill: tests/kernels/test_aot.py.
    """
    if channels <= 32:
        return (64, 8) if itemsize == 4 else (128, 8)
    if channels <= 64:
        return (32, 8) if itemsize == 4 else (64, 4)
    return 32, 8


def fits(channels: int, itemsize: int) -> bool:
    """Whether the kernel takes that many channels."""
    return channels <= MAX_CHANNELS[itemsize]


def empty_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a map, `[N, blocks, C]` float32."""
    batch, height, width, channels = out.shape
    blocks = triton.cdiv(height * width, _tiling(channels, out.element_size())[0])
    return torch.empty(batch, blocks, channels, dtype=torch.float32, device=out.device)


def launch_block_back(
    gated: Tensor,
    x: Tensor,
    gain: Tensor,
    weights: tuple[Tensor, ...],
    out: Tensor,
    *,
    more: Tensor | None = None,
    sums: Tensor | None = None,
    eps: float = 1e-6,
) -> None:
    """Run the kernel on arguments that map_ops has checked; see there."""
    batch, height, width, channels = x.shape
    block_p, num_warps = _tiling(channels, x.element_size())
    blocks = triton.cdiv(height * width, block_p)
    names = ("w3_ptr", "b3_ptr", "w4_ptr", "b4_ptr", "w5_ptr", "b5_ptr")
    block_c = max(16, triton.next_power_of_2(channels))
    start(
        Launch(
            kernel=block_back_kernel,
            grid=(blocks, batch),
            arguments={
                "gated_ptr": gated,
                "x_ptr": x,
                "more_ptr": more,
                "gain_ptr": gain,
                **dict(zip(names, weights, strict=True)),
                "out_ptr": out,
                "sums_ptr": sums,
                "num_pixels": height * width,
                "num_channels": channels,
                "pixel_blocks": blocks,
                "eps": eps,
            },
            constants={
                "MORE": more is not None,
                "SUMS": sums is not None,
                "BLOCK_P": block_p,
                "BLOCK_C": block_c,
            },
            num_warps=num_warps,
            num_stages=1,
        )
    )
