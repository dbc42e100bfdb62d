"""A network's weights as the CPU engine's kernels take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.engines.llvm.int8_weights import round_each
from mhnet_video.kernels.llvm_int8_product import MIDDLE
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_product import plane_steps, step_elements
from mhnet_video.model.network import (
    FeatureFusion,
    MHNet,
    NAFBlock,
    NetworkConfig,
    structure_obstacle,
)


@dataclass(frozen=True)
class Layout:
    """How a map's weights lie in memory, see llvm_product.py."""

    machine: Machine
    outputs: int
    """Outputs of a tile."""

    def pack(self, matrix: Tensor, step: int | None = None) -> Tensor:
        """Lay a matrix out in tiles, `[M / outputs, K / step, outputs, step]` float32.

        Args:
            matrix: `[M, K]`.
            step: Channels at a time; None for what suits K.
        """
        rows, columns = matrix.shape
        group = self.machine.group
        step = step or group * step_elements(self.machine, columns // group)
        tiles = matrix.reshape(rows // self.outputs, self.outputs, columns // step, step)
        return tiles.permute(0, 2, 1, 3).contiguous().float()

    def spread(self, values: Tensor) -> Tensor:
        """What products begin with, float32: `[M]`, for tiles `[M, L]`."""
        if self.machine.tiles:
            values = values[:, None].expand(-1, self.machine.lanes)
        return values.float().contiguous()

    def narrow(self, weights: Tensor) -> Tensor:
        """Weights as elements: bfloat16 where those are pairs."""
        return weights.bfloat16() if self.machine.bfloat16 else weights.float().contiguous()


def matrix_of(convolution: Any) -> Tensor:
    """The weights of a 1x1 convolution, `[M, K]` float64."""
    return convolution.weight.detach().double().flatten(1)


def _vector(values: Any) -> Tensor:
    return values.detach().double().flatten()


def _normed(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution with the LayerNorm before it, but for that one's division.

    Removing the mean of the channels is linear, so it goes into the weights too.
    """
    matrix = matrix_of(convolution)
    bias = _vector(convolution.bias) + matrix @ _vector(norm.bias)
    scaled = matrix * _vector(norm.weight)
    return scaled - scaled.mean(1, keepdim=True), bias


def _padded(values: Tensor, lanes: int) -> Tensor:
    """The last dimension padded with zeros to whole vectors, float32."""
    return F.pad(values, (0, -values.shape[-1] % lanes)).float().contiguous()


def _by_inputs(matrix: Tensor, lanes: int) -> Tensor:
    """A matrix `[..., M, K]` as the kernels for vectors take it."""
    return _padded(matrix.transpose(-2, -1), lanes)


@dataclass(frozen=True)
class BlockWeights:
    """A NAFBlock's weights, by the names of its kernels' parameters."""

    front: dict[str, Tensor]
    """Of its first half."""
    attend: dict[str, Any]
    """Of its attention; what that writes is among those of the second half."""
    back: dict[str, Tensor]
    """Of its second half."""


def pack_block(block: NAFBlock, layout: Layout, *, int8: bool) -> BlockWeights:
    """Lay a block's weights out.

    Args:
        block: The block.
        layout: Of its maps' weights.
        int8: Whether its 1x1 convolutions are in int8. Then the attention multiplies their inputs,
            as weights cannot be rounded anew for each frame.
    """
    channels, lanes = block.conv3.weight.shape[0], layout.machine.lanes
    first, first_bias = _normed(block.conv1, block.norm1)
    fourth, fourth_bias = _normed(block.conv4, block.norm2)
    half = layout.outputs // 2
    # output i and output channels + i are multiplied, so they share a tile
    pairs = torch.arange(2 * channels).reshape(2, channels // half, half)
    order = pairs.transpose(0, 1).flatten()
    depthwise = torch.cat([block.conv2.weight.flatten(1), _vector(block.conv2.bias)[:, None]], 1)
    beta, gamma = _vector(block.beta), _vector(block.gamma)
    third = matrix_of(block.conv3) * beta[:, None]
    front = {
        **_named(first, layout, int8, "1"),
        "b1": layout.spread(first_bias),
        "wd": depthwise.reshape(2, channels, 10).transpose(0, 1).float().contiguous(),
    }
    attention = block.sca[1]
    attend: dict[str, Any] = {
        "matrix": _by_inputs(matrix_of(attention), lanes),
        "bias": _padded(_vector(attention.bias), lanes),
    }
    back = {
        "b3": (_vector(block.conv3.bias) * beta).float(),
        **_named(fourth[order], layout, int8, "4"),
        "b4": fourth_bias.float(),
        **_named(matrix_of(block.conv5) * gamma[:, None], layout, int8, "5"),
        "b5": (_vector(block.conv5.bias) * gamma).float(),
    }
    if int8:
        back |= _named(third, layout, int8, "3")
        back["gains"] = attend["gains"] = torch.zeros_like(attend["bias"])
    else:
        plain = layout.pack(third)
        rows = torch.arange(channels, dtype=torch.int32).reshape(-1, 1, plain.shape[-1])
        rows = rows.expand_as(plain[0]).expand_as(plain).contiguous()
        back["w3"] = attend["out"] = layout.narrow(plain).clone()
        attend |= {"plain": plain, "rows": rows, "count": plain.numel()}
    return BlockWeights(front, attend, back)


def pack_double(convolution: torch.nn.Module, layout: Layout, *, int8: bool) -> dict[str, Tensor]:
    """A 1x1 convolution before a pixel shuffle by 2, by the names of the kernel's parameters."""
    matrix, group = matrix_of(convolution), layout.machine.group
    inputs = matrix.shape[1]
    ordered = matrix.reshape(-1, group, 2, 2, inputs).permute(0, 2, 3, 1, 4)
    return _named(ordered.reshape(-1, inputs), layout, int8)


def pack_halve(convolution: torch.nn.Conv2d, layout: Layout, *, int8: bool) -> dict[str, Tensor]:
    """A 2x2 convolution with stride 2, by the names of the kernel's parameters."""
    matrix = convolution.weight.detach().double().permute(0, 2, 3, 1).flatten(1)
    return _named(matrix, layout, int8)


def _named(matrix: Tensor, layout: Layout, int8: bool, number: str = "") -> dict[str, Tensor]:
    """A matrix `[M, K]` by the names of a kernel's parameters, which may end in a number."""
    if not int8:
        return {f"w{number}": layout.narrow(layout.pack(matrix))}
    rounded, units = round_each(matrix)
    levels = torch.stack([units, -MIDDLE * units * rounded.sum(1)], 1)
    return {
        f"w{number}": layout.pack(rounded, 4).to(torch.int8),
        f"levels{number}": levels.float().contiguous(),
    }


def pack_planes(weight: Tensor, layout: Layout) -> Tensor:
    """A 3x3 convolution of planes.

    Args:
        weight: `[M, K, 3, 3]`, K in the order of the planes' channels.
        layout: Of the outputs.
    """
    rows, inputs = weight.shape[:2]
    group = layout.machine.group
    planes = weight.detach().double().reshape(rows, inputs // group, group, 3, 3)
    if not layout.machine.tiles:
        return layout.narrow(layout.pack(planes.permute(0, 3, 1, 4, 2).reshape(rows, -1)))
    # by columns, so that planes at one distance follow each other, and whole steps of them
    columns = planes.permute(0, 4, 3, 1, 2).reshape(rows, 3, -1)
    step, steps = plane_steps(3 * inputs // group)
    columns = F.pad(columns, (0, group * step * steps - columns.shape[2]))
    return layout.narrow(layout.pack(columns.reshape(rows, -1), group * step))


def pack_int8(weight: Tensor, layout: Layout) -> Tensor:
    """A 3x3 convolution of planes of bytes.

    Args:
        weight: `[M, K, 3, 3]` whole numbers from -127 to 127, K in the order of the pictures'
            channels `[pictures, 3, dy, dx]`.
        layout: Of the outputs.
    """
    rows, inputs = weight.shape[:2]
    planes = weight.reshape(rows, inputs // 4, 4, 3, 3)
    return layout.pack(planes.permute(0, 3, 1, 4, 2).reshape(rows, -1), 4).to(torch.int8)


def pack_winograd(weight: Tensor, outputs: int) -> Tensor:
    """A 3x3 convolution of planes, transformed for `winograd_to_maps`.

    Args:
        weight: `[M, K, 3, 3]`.
        outputs: Outputs of a tile.
    """
    rows, inputs = weight.shape[:2]
    spread = torch.tensor(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        dtype=torch.float64,
    )
    spread_weight = torch.einsum("ay,bx,mkyx->abmk", spread, spread, weight.detach().double())
    tiles = spread_weight.reshape(36, rows // outputs, outputs, inputs)
    return tiles.permute(0, 1, 3, 2).float().contiguous()


def picture_channels(weight: Tensor, patch: int, group: int) -> Tensor:
    """The weights of a convolution of the unshuffled picture, in the order of its planes.

    Args:
        weight: `[M, K, 3, 3]`.
        patch: Side of the blocks folded into channels.
        group: Channels of an element.
    """
    if patch == 1 and weight.shape[1] % group:
        weight = torch.cat([weight, torch.zeros_like(weight[:, :1])], dim=1)
    return weight


@dataclass(frozen=True)
class FusionWeights:
    """What one AFFM does to its three maps, with the convolutions before it."""

    low_matrix: Tensor
    """From the mean of what the second map is made from to its own mean, by inputs."""
    high_matrix: Tensor
    """The same of the third map."""
    squeeze: Tensor
    """`[2, C, R]`: the two halves of the summary that the gate multiplies."""
    expand: Tensor
    """`[3, R, C]`: from the summary to each map's weights."""
    floor: Tensor
    """`[C]`: zero, and far below zero in the padding."""
    plain: Tensor
    """Weights of the convolutions of the second and third map, float32."""
    rows: Tensor
    """Of each of `plain`, which of the `[3, C]` weights multiplies it, int32."""
    share: Tensor
    """`[C]`: memory for the first map's weights."""
    weights: Tensor
    """Memory for the weighted convolutions, as elements."""


def pack_fusion(
    fusion: FeatureFusion,
    low: Sequence[torch.nn.Module],
    high: Sequence[torch.nn.Module],
    layout: Layout,
) -> FusionWeights:
    """Lay an AFFM's weights out.

    Args:
        fusion: The AFFM.
        low: The convolutions of its second map: those before a pixel shuffle, then the last.
        high: The same of its third map.
        layout: Of the outputs.
    """
    group, lanes = layout.machine.group, layout.machine.lanes
    expand = torch.stack([matrix_of(fc) for fc in fusion.fcs])
    channels = expand.shape[1]
    wide = channels + -channels % lanes
    means, plain = [], []
    for chain in (low, high):
        mean = torch.eye(matrix_of(chain[0]).shape[1], dtype=torch.float64)
        for each in chain[:-1]:
            mean = matrix_of(each).reshape(-1, 4, mean.shape[0]).mean(1) @ mean
        means.append(_by_inputs(matrix_of(chain[-1]) @ mean, lanes))
        merged = matrix_of(chain[-1])
        if len(chain) > 1:
            # the last convolution is done before the last shuffle, at a quarter of the pixels
            before = matrix_of(chain[-2])
            inputs = before.shape[1]
            before = before.reshape(channels, 4 * inputs)
            merged = (merged @ before).reshape(channels // group, group, 2, 2, inputs)
            merged = merged.permute(2, 0, 3, 1, 4).reshape(-1, inputs)
        plain.append(layout.pack(merged))
    index = torch.arange(channels, dtype=torch.int32)
    if len(low) > 1:
        grouped = index.reshape(1, channels // group, 1, group)
        index = grouped.expand(2, -1, 2, -1).flatten()
    rows = [
        (index + number * wide).reshape(len(each), 1, layout.outputs, 1).expand_as(each)
        for number, each in enumerate(plain, start=1)
    ]
    together = torch.cat(plain, dim=1)
    floor = torch.zeros(wide)
    floor[channels:] = -1e30
    return FusionWeights(
        low_matrix=means[0],
        high_matrix=means[1],
        squeeze=_by_inputs(torch.stack(matrix_of(fusion.conv_du[0]).chunk(2)), lanes),
        expand=_by_inputs(expand, lanes),
        floor=floor,
        plain=together,
        rows=torch.cat(rows, dim=1),
        share=torch.zeros(wide),
        weights=layout.narrow(together).clone(),
    )


def starts_in_int8(machine: Machine, config: NetworkConfig) -> bool:
    """Whether a network's first convolution is done in int8."""
    return machine.int8 and config.patch == 2


def check(network: MHNet) -> str:
    """Why the engine cannot run a network; empty if it can."""
    config = network.config
    if config.width % 8:
        return f"width {config.width} is no multiple of 8"
    if config.patch not in (1, 2):
        return f"patch {config.patch} is neither 1 nor 2"
    if 16 * config.width // config.heads % 16:
        return f"{config.heads} heads do not share the channels in sixteens"
    return structure_obstacle(network)
