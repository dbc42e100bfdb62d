"""What each operation means, in plain PyTorch. Simple and right.

Nothing here imports another module of this folder: a kernel is judged by this file. On a CPU,
and wherever a gradient is wanted, this is also what runs.
"""

import torch.nn.functional as F
from torch import Tensor


def layer_norm_2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize each pixel over its channels. Source: Chen et al., ECCV 2022, section 3.2."""
    channels_last = x.permute(0, 2, 3, 1)
    return F.layer_norm(channels_last, weight.shape, weight, bias, eps).permute(0, 3, 1, 2)


def gate_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """SimpleGate, and the mean of its output. Source: Chen et al., ECCV 2022, equations 4, 7."""
    first, second = x.chunk(2, dim=1)
    gated = first * second
    return gated, gated.mean(dim=(2, 3), keepdim=True)


def scaled_residual(x: Tensor, branch: Tensor, scale: Tensor) -> Tensor:
    """Add a branch with a learned gain per channel."""
    return x + branch * scale
