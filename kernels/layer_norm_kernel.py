"""LayerNorm over the channels of each pixel, in one pass over the picture.

The reference reads the picture for the mean, again for the variance and again to scale it;
this reads it once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mhnet_video.kernels.dispatch import Launch, start

BLOCK_ELEMENTS = 4096  # of one program: all the channels of a few pixels


@triton.jit
def layer_norm_2d_kernel(
    x_ptr,  # [N, C, P]
    weight_ptr,  # [C]
    bias_ptr,  # [C]
    out_ptr,  # [N, C, P]
    num_channels,  # C
    num_pixels,  # P = H * W
    eps,
    BLOCK_C: tl.constexpr,  # power of two, at least C
    BLOCK_P: tl.constexpr,  # power of two
):
    """Normalize BLOCK_P pixels of one picture."""
    # pixels take axis 0 of the grid: axis 1 ends at 65535 blocks, too few for 4K
    pixels = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    picture = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, BLOCK_C)
    channel_mask = channels < num_channels
    mask = channel_mask[:, None] & (pixels < num_pixels)[None, :]  # [BLOCK_C, BLOCK_P]
    offsets = (picture * num_channels + channels)[:, None] * num_pixels + pixels[None, :]

    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / num_channels  # [BLOCK_P]
    centered = tl.where(mask, x - mean[None, :], 0.0)
    variance = tl.sum(centered * centered, axis=0) / num_channels
    normalized = centered / tl.sqrt(variance + eps)[None, :]

    weight = tl.load(weight_ptr + channels, mask=channel_mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channels, mask=channel_mask, other=0.0).to(tl.float32)
    out = normalized * weight[:, None] + bias[:, None]
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)


def launch_layer_norm_2d(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, out: Tensor | None = None
) -> Tensor:
    """Run the kernel on arguments that ops.layer_norm_2d has checked; `x` is contiguous.

    Args:
        x: `[N, C, H, W]`.
        weight: `[C]`.
        bias: `[C]`.
        eps: Added to the variance.
        out: Where to write, of the shape and type of `x`; a new tensor if None.

    Returns:
        `out`.
    """
    batch, num_channels, height, width = x.shape
    num_pixels = height * width
    out = torch.empty_like(x) if out is None else out
    block_c = triton.next_power_of_2(num_channels)
    block_p = max(1, BLOCK_ELEMENTS // block_c)
    start(
        Launch(
            kernel=layer_norm_2d_kernel,
            grid=(triton.cdiv(num_pixels, block_p), batch),
            arguments={
                "x_ptr": x,
                "weight_ptr": weight,
                "bias_ptr": bias,
                "out_ptr": out,
                "num_channels": num_channels,
                "num_pixels": num_pixels,
                "eps": eps,
            },
            constants={"BLOCK_C": block_c, "BLOCK_P": block_p},
            num_warps=4,
        )
    )
    return out
