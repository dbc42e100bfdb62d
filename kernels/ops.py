"""The operations: their contracts, and the choice between kernel and reference.

Triton is imported where it is used: it is optional, and slow to load.
"""

from torch import Tensor

from mhnet_video.kernels import reference
from mhnet_video.kernels.dispatch import use_triton


def layer_norm_2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalize each pixel over its channels, then scale and shift.

    Statistics are computed in float32, whatever the type of `x`.

    Args:
        x: `[N, C, H, W]`, float16, bfloat16 or float32.
        weight: `[C]`.
        bias: `[C]`.
        eps: Added to the variance.

    Returns:
        `[N, C, H, W]`, of the type of `x`.

    Raises:
        ValueError: A shape does not fit.
    """
    if x.ndim != 4 or weight.shape != x.shape[1:2] or bias.shape != weight.shape:
        raise ValueError(
            f"expected x [N, C, H, W], weight [C], bias [C], got {list(x.shape)}, "
            f"{list(weight.shape)}, {list(bias.shape)}"
        )
    if use_triton(x, weight, bias):
        from mhnet_video.kernels.layer_norm_kernel import launch_layer_norm_2d

        return launch_layer_norm_2d(x.contiguous(), weight, bias, eps)
    return reference.layer_norm_2d(x, weight, bias, eps)


def gate_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply the two halves of the channels, and average the product over the picture.

    One pass computes SimpleGate and the input of the channel attention after it.

    Args:
        x: `[N, 2C, H, W]`, float16, bfloat16 or float32.

    Returns:
        The product, `[N, C, H, W]`, and its mean, `[N, C, 1, 1]`, both of the type of `x`;
        sums are kept in float32.

    Raises:
        ValueError: The shape is not `[N, 2C, H, W]`.
    """
    if x.ndim != 4 or x.shape[1] % 2:
        raise ValueError(f"expected x [N, 2C, H, W], got {list(x.shape)}")
    if use_triton(x):
        from mhnet_video.kernels.gate_kernel import launch_gate_pool

        return launch_gate_pool(x.contiguous())
    return reference.gate_pool(x)


def scaled_residual(x: Tensor, branch: Tensor, scale: Tensor) -> Tensor:
    """Add `branch`, multiplied by a gain per channel, to `x`.

    Args:
        x: `[N, C, H, W]`, float16, bfloat16 or float32.
        branch: `[N, C, H, W]`, of the type of `x`.
        scale: `[1, C, 1, 1]`.

    Returns:
        `x + branch * scale`, `[N, C, H, W]`, of the type of `x`.

    Raises:
        ValueError: A shape does not fit.
    """
    if branch.shape != x.shape or scale.shape != (1, x.shape[1], 1, 1):
        raise ValueError(
            f"expected x and branch [N, C, H, W], scale [1, C, 1, 1], got {list(x.shape)}, "
            f"{list(branch.shape)}, {list(scale.shape)}"
        )
    if use_triton(x, branch, scale):
        from mhnet_video.kernels.gate_kernel import launch_scaled_residual

        return launch_scaled_residual(x.contiguous(), branch.contiguous(), scale)
    return reference.scaled_residual(x, branch, scale)
