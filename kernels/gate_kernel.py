"""SimpleGate with the sums that the channel attention wants, and the residual with a gain.

Both are bound by memory: the gate reads its 2C maps once and never reads its C products again for
their mean; the residual reads two maps and writes one, where PyTorch writes the product as well.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start

BLOCK_PIXELS = 2048


@triton.jit
def gate_pool_kernel(
    x_ptr,  # [N, 2C, P]
    out_ptr,  # [N, C, P]
    sums_ptr,  # [N * C, num_blocks] float32
    num_channels,  # C
    num_pixels,  # P = H * W
    num_blocks,
    BLOCK_P: tl.constexpr,
):
    """Multiply BLOCK_P pixels of one channel of both halves, and sum the products."""
    # maps take axis 0 of the grid: axis 1 ends at 65535, and batches have many channels
    index = tl.program_id(0).to(tl.int64)  # picture * C + channel
    block = tl.program_id(1)
    picture = index // num_channels
    channel = index % num_channels
    pixels = block.to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask = pixels < num_pixels
    first = (picture * 2 * num_channels + channel) * num_pixels
    second = (picture * 2 * num_channels + num_channels + channel) * num_pixels

    left = tl.load(x_ptr + first + pixels, mask=mask, other=0.0).to(tl.float32)
    right = tl.load(x_ptr + second + pixels, mask=mask, other=0.0).to(tl.float32)
    product = left * right  # zero where masked
    tl.store(out_ptr + index * num_pixels + pixels, product.to(out_ptr.dtype.element_ty), mask=mask)
    # a partial sum for each block, not an atomic: the result is the same in every run
    tl.store(sums_ptr + index * num_blocks + block, tl.sum(product, axis=0))


@triton.jit
def scaled_residual_kernel(
    x_ptr,  # [N, C, P]
    branch_ptr,  # [N, C, P]
    scale_ptr,  # [C]
    out_ptr,  # [N, C, P]
    num_channels,  # C
    num_pixels,  # P = H * W
    BLOCK_P: tl.constexpr,
):
    """Add BLOCK_P pixels of one channel of the branch."""
    index = tl.program_id(0).to(tl.int64)
    pixels = tl.program_id(1).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    mask = pixels < num_pixels
    offsets = index * num_pixels + pixels
    scale = tl.load(scale_ptr + index % num_channels).to(tl.float32)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    branch = tl.load(branch_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + offsets, (x + branch * scale).to(out_ptr.dtype.element_ty), mask=mask)


def launch_gate_pool(
    x: Tensor, out: Tensor | None = None, sums: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the kernel on an argument that ops.gate_pool has checked; `x` is contiguous.

    Args:
        x: `[N, 2C, H, W]`.
        out: Where to write the product, `[N, C, H, W]`; a new tensor if None.
        sums: Where to write partial sums, `[N * C, ceil(H * W / BLOCK_PIXELS)]` float32.

    Returns:
        `out`, and its mean `[N, C, 1, 1]`.
    """
    batch, num_channels, height, width = x.shape[0], x.shape[1] // 2, *x.shape[2:]
    num_pixels = height * width
    num_blocks = triton.cdiv(num_pixels, BLOCK_PIXELS)
    maps = batch * num_channels
    out = x.new_empty(batch, num_channels, height, width) if out is None else out
    if sums is None:
        sums = torch.empty(maps, num_blocks, dtype=torch.float32, device=x.device)
    start(
        Launch(
            kernel=gate_pool_kernel,
            grid=(maps, num_blocks),
            arguments={
                "x_ptr": x,
                "out_ptr": out,
                "sums_ptr": sums,
                "num_channels": num_channels,
                "num_pixels": num_pixels,
                "num_blocks": num_blocks,
            },
            constants={"BLOCK_P": BLOCK_PIXELS},
            num_warps=4,
        )
    )
    mean = (sums.sum(dim=1) / num_pixels).to(x.dtype)
    return out, mean.reshape(batch, num_channels, 1, 1)


def launch_scaled_residual(
    x: Tensor, branch: Tensor, scale: Tensor, out: Tensor | None = None
) -> Tensor:
    """Run the kernel on arguments that ops.scaled_residual has checked; the maps are contiguous.

    Args:
        x: `[N, C, H, W]`.
        branch: `[N, C, H, W]`.
        scale: `[1, C, 1, 1]`.
        out: Where to write, like `x`; a new tensor if None.

    Returns:
        `out`.
    """
    batch, num_channels, height, width = x.shape
    num_pixels = height * width
    out = torch.empty_like(x) if out is None else out
    start(
        Launch(
            kernel=scaled_residual_kernel,
            grid=(batch * num_channels, triton.cdiv(num_pixels, BLOCK_PIXELS)),
            arguments={
                "x_ptr": x,
                "branch_ptr": branch,
                "scale_ptr": scale,
                "out_ptr": out,
                "num_channels": num_channels,
                "num_pixels": num_pixels,
            },
            constants={"BLOCK_P": BLOCK_PIXELS},
            num_warps=4,
        )
    )
    return out
