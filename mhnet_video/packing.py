"""A network's weights as the CPU engine's kernels take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mhnet_video.network import FeatureFusion, MHNet, NAFBlock


def pack(matrix: Tensor, outputs: int, group: int) -> Tensor:
    """Lay a matrix out in tiles, `[M / outputs, K / group, outputs, group]` float32.

    Args:
        matrix: `[M, K]`.
        outputs: Outputs of a tile.
        group: Channels of an element.
    """
    rows, columns = matrix.shape
    tiles = matrix.reshape(rows // outputs, outputs, columns // group, group)
    return tiles.permute(0, 2, 1, 3).contiguous().float()


def narrow(weights: Tensor, group: int) -> Tensor:
    """Weights as elements: bfloat16 where those are pairs."""
    return weights.bfloat16() if group == 2 else weights.float().contiguous()


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


@dataclass(frozen=True)
class BlockWeights:
    """A NAFBlock's weights."""

    w1: Tensor
    b1: Tensor
    wd: Tensor
    w3: Tensor
    """As the kernel reads it: what `attend` writes."""
    b3: Tensor
    w4: Tensor
    b4: Tensor
    w5: Tensor
    b5: Tensor
    plain_w3: Tensor
    """Without attention, float32, in the same order, `[M / outputs, K * outputs]`."""
    inputs: Tensor
    """Of each of a tile's weights, the input that it belongs to."""
    scaled_w3: Tensor
    """Room for `attend`."""
    attention: Tensor
    attention_bias: Tensor

    def attend(self, sums: Tensor, num_pixels: int) -> None:
        """Put the channel attention into `w3`.

        Args:
            sums: `[parts, C, L]` of the gated map; zero afterwards.
            num_pixels: How many were summed.
        """
        mean = sums.sum((0, 2))
        sums.zero_()
        gain = torch.addmv(self.attention_bias, self.attention, mean, alpha=1 / num_pixels)
        torch.mul(self.plain_w3, gain.index_select(0, self.inputs), out=self.scaled_w3)
        self.w3.copy_(self.scaled_w3)


def pack_block(block: NAFBlock, outputs: int, group: int) -> BlockWeights:
    """Lay a block's weights out."""
    channels = block.conv3.weight.shape[0]
    first, first_bias = _normed(block.conv1, block.norm1)
    fourth, fourth_bias = _normed(block.conv4, block.norm2)
    half = outputs // 2
    # output i and output channels + i are multiplied, so they share a tile
    pairs = torch.arange(2 * channels).reshape(2, channels // half, half)
    order = pairs.transpose(0, 1).flatten()
    depthwise = torch.cat([block.conv2.weight.flatten(1), _vector(block.conv2.bias)[:, None]], 1)
    beta, gamma = _vector(block.beta), _vector(block.gamma)
    plain = pack(matrix_of(block.conv3) * beta[:, None], outputs, group)
    inputs = torch.arange(channels).reshape(-1, 1, group).expand(-1, outputs, -1).flatten()
    plain = plain.flatten(1)
    attention = block.sca[1]
    return BlockWeights(
        w1=narrow(pack(first, outputs, group), group),
        b1=first_bias.float(),
        wd=depthwise.reshape(2, channels, 10).transpose(0, 1).float().contiguous(),
        w3=narrow(plain, group).clone(),
        b3=(_vector(block.conv3.bias) * beta).float(),
        w4=narrow(pack(fourth[order], outputs, group), group),
        b4=fourth_bias.float(),
        w5=narrow(pack(matrix_of(block.conv5) * gamma[:, None], outputs, group), group),
        b5=(_vector(block.conv5.bias) * gamma).float(),
        plain_w3=plain,
        inputs=inputs,
        scaled_w3=torch.empty_like(plain),
        attention=matrix_of(attention).float(),
        attention_bias=_vector(attention.bias).float(),
    )


def pack_double(convolution: torch.nn.Module, outputs: int, group: int) -> Tensor:
    """A 1x1 convolution before a pixel shuffle by 2."""
    matrix = matrix_of(convolution)
    inputs = matrix.shape[1]
    ordered = matrix.reshape(-1, group, 2, 2, inputs).permute(0, 2, 3, 1, 4)
    return narrow(pack(ordered.reshape(-1, inputs), outputs, group), group)


def pack_halve(convolution: torch.nn.Conv2d, outputs: int, group: int) -> Tensor:
    """A 2x2 convolution with stride 2."""
    matrix = convolution.weight.detach().double().permute(0, 2, 3, 1).flatten(1)
    return narrow(pack(matrix, outputs, group), group)


def pack_planes(weight: Tensor, outputs: int, group: int) -> Tensor:
    """A 3x3 convolution of planes.

    Args:
        weight: `[M, K, 3, 3]`, K in the order of the planes' channels.
        outputs: Outputs of a tile.
        group: Channels of an element.
    """
    rows, inputs = weight.shape[:2]
    planes = weight.detach().double().reshape(rows, inputs // group, group, 3, 3)
    return narrow(pack(planes.permute(0, 3, 1, 4, 2).reshape(rows, -1), outputs, group), group)


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


class FusionWeights:
    """What one AFFM does to its three maps, with the convolutions before it."""

    def __init__(
        self,
        fusion: FeatureFusion,
        low: Sequence[torch.nn.Module],
        high: Sequence[torch.nn.Module],
        outputs: int,
        group: int,
    ) -> None:
        """Lay the weights out.

        Args:
            fusion: The AFFM.
            low: The convolutions of its second map: those before a pixel shuffle, then the last.
            high: The same of its third map.
            outputs: Outputs of a tile.
            group: Channels of an element.
        """
        self.fusion = fusion
        self.du = matrix_of(fusion.conv_du[0]).float()
        self.fcs = torch.stack([matrix_of(fc).float() for fc in fusion.fcs])
        self.means, self.plain = [], []
        channels = self.fcs.shape[1]
        for chain in (low, high):
            mean = torch.eye(matrix_of(chain[0]).shape[1], dtype=torch.float64)
            for each in chain[:-1]:
                mean = matrix_of(each).reshape(-1, 4, mean.shape[0]).mean(1) @ mean
            self.means.append((matrix_of(chain[-1]) @ mean).float())
            merged = matrix_of(chain[-1])
            if len(chain) > 1:
                # the last convolution is done before the last shuffle, at a quarter of the pixels
                before = matrix_of(chain[-2])
                inputs = before.shape[1]
                before = before.reshape(channels, 4 * inputs)
                merged = (merged @ before).reshape(channels // group, group, 2, 2, inputs)
                merged = merged.permute(2, 0, 3, 1, 4).reshape(-1, inputs)
            self.plain.append(pack(merged, outputs, group))
        index = torch.arange(channels)
        if len(low) > 1:
            grouped = index.reshape(1, channels // group, 1, group)
            index = grouped.expand(2, -1, 2, -1).flatten()
        # of each weight, the share that multiplies it
        rows = [
            (index + number * channels).reshape(len(plain), 1, outputs, 1).expand_as(plain)
            for number, plain in enumerate(self.plain, start=1)
        ]
        self.rows = torch.cat(rows, dim=1).flatten()
        self.plain_weights = torch.cat(self.plain, dim=1).flatten()
        self.scaled = torch.empty_like(self.plain_weights)
        self.share = torch.ones(channels)
        self.weights = narrow(self.plain_weights, group).clone()

    def weigh(self, mean: Tensor, low: Tensor, high: Tensor) -> None:
        """Put the weights of the three maps into `share` and `weights`.

        Args:
            mean: `[C]`, of the first map.
            low: Mean of what the second map is made from.
            high: Mean of what the third is made from.
        """
        total = torch.addmv(mean, self.means[0], low).addmv_(self.means[1], high)
        first, second = (self.du @ total).chunk(2)
        shares = torch.softmax(self.fcs @ (first * second), dim=1)
        self.share.copy_(shares[0])
        gains = shares.flatten().index_select(0, self.rows)
        torch.mul(self.plain_weights, gains, out=self.scaled)
        self.weights.copy_(self.scaled)


def check(network: MHNet) -> str:
    """Why the engine cannot run a network; empty if it can."""
    config = network.config
    if config.width % 8:
        return f"width {config.width} is no multiple of 8"
    if config.patch not in (1, 2):
        return f"patch {config.patch} is neither 1 nor 2"
    counts = (*config.encoder_blocks, *config.decoder_blocks, *config.group_blocks)
    if min(counts) < 1:
        return "a level or a group has no blocks"
    if type(network).residual is not MHNet.residual:
        return "the network is not a plain MHNet"
    return ""
