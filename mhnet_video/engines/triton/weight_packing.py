"""A network's weights as the kernels on channels-last maps take them.

Whatever is linear and stands between two products is folded into one of them in float64: the
LayerNorm's weight and bias, the block's own gains, chains of 1x1 convolutions and pixel shuffles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.kernels.map_ops import linear_weight_sums
from mhnet_video.model.network import (
    FeatureFusion,
    MHNet,
    NAFBlock,
    SelectiveAttention,
    structure_obstacle,
)

Front = Literal["dense", "rows", "split"]
"""How the first half of a block is done: in one pass as a dense 3x3 convolution, in one pass down
the rows, or in two passes."""

DENSE_CHANNELS = {torch.float16: 32, torch.bfloat16: 32, torch.float32: 16}
"""Most channels for which the first half of a block is `dense` without a measurement.

It costs nine times the arithmetic of the 1x1, 36 C**2 operations for each pixel, and saves the
traffic of a map twice as wide, 4 C elements: worth it while the first takes less time.
"""


def padded_channels(channels: int) -> int:
    """Channels of a map of which the last ones are zero, so that its loads have 16 bytes.

    Tensor cores take 16 inputs at a time anyway.
    """
    return channels + -channels % 16


def usual_front(channels: int, dtype: torch.dtype) -> Front:
    """Variant of the first half of a block without a measurement."""
    return "dense" if channels <= DENSE_CHANNELS[dtype] else "split"


@dataclass(frozen=True)
class MapType:
    """Type and device of maps and weights."""

    dtype: torch.dtype
    device: torch.device

    def maps(self, values: Tensor) -> Tensor:
        """Weights of large products, in the maps' type."""
        return values.detach().to(self.device, self.dtype).contiguous()

    def exact(self, values: Tensor) -> Tensor:
        """Everything else, float32."""
        return values.detach().to(self.device, torch.float32).contiguous()


def _matrix(convolution: Any) -> Tensor:
    """The weights of a 1x1 convolution, `[M, K]` float64."""
    return convolution.weight.detach().double().flatten(1)


def _vector(values: Any) -> Tensor:
    return values.detach().double().flatten()


def _taps(convolution: Any) -> Tensor:
    """The weights of a depthwise 3x3 convolution, `[9, C]` float64."""
    return convolution.weight.detach().double().flatten(1).t()


def nine_matrices(weight: Tensor) -> Tensor:
    """The weights of a 3x3 convolution, from `[M, K, 3, 3]` to `[9, M, K]`."""
    return weight.detach().double().flatten(2).permute(2, 0, 1)


def _normed(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution with the weight and the bias of the LayerNorm before it."""
    matrix = _matrix(convolution)
    return matrix * _vector(norm.weight), _vector(convolution.bias) + matrix @ _vector(norm.bias)


@dataclass(frozen=True)
class BlockMaps:
    """A NAFBlock's weights; see `kernels.map_ops` for their order."""

    front: Front
    """How the first half is done."""
    dense: tuple[Tensor, Tensor, Tensor] | None
    """Of `block_front`; None where that is not how."""
    first: tuple[Tensor, Tensor]
    first_sums: Tensor
    """Of `linear`, for the LayerNorm before the first convolution."""
    depthwise: tuple[Tensor, Tensor]
    attention: tuple[Tensor, Tensor]
    back: tuple[Tensor, ...]
    """Of `block_back`."""
    fourth_sums: Tensor
    """Of `linear`, for the LayerNorm before the fourth convolution."""


def pack_block(block: NAFBlock, map_type: MapType, front: Front | None = None) -> BlockMaps:
    """Fold a block's weights.

    Args:
        block: The block.
        map_type: Where they go.
        front: How the first half is to be done; the usual way if None.
    """
    channels = block.conv3.weight.shape[0]
    weight, bias = _normed(block.conv1, block.norm1)
    taps = _taps(block.conv2)
    front = front or usual_front(channels, map_type.dtype)
    dense = None
    if front == "dense":
        dense = (
            map_type.maps(taps[:, :, None] * weight),
            map_type.exact(taps * bias),
            map_type.exact(_vector(block.conv2.bias)),
        )
    fourth, fourth_bias = _normed(block.conv4, block.norm2)
    first_maps, fourth_maps = map_type.maps(weight), map_type.maps(fourth)
    beta, gamma = _vector(block.beta), _vector(block.gamma)
    return BlockMaps(
        front=front,
        dense=dense,
        first=(first_maps, map_type.exact(bias)),
        first_sums=linear_weight_sums(first_maps),
        depthwise=(map_type.exact(taps), map_type.exact(_vector(block.conv2.bias))),
        attention=(
            map_type.exact(_matrix(block.sca[1])),
            map_type.exact(_vector(block.sca[1].bias)),
        ),
        back=(
            map_type.maps(_matrix(block.conv3) * beta[:, None]),
            map_type.exact(_vector(block.conv3.bias) * beta),
            fourth_maps,
            map_type.exact(fourth_bias),
            map_type.maps(_matrix(block.conv5) * gamma[:, None]),
            map_type.exact(_vector(block.conv5.bias) * gamma),
        ),
        fourth_sums=linear_weight_sums(fourth_maps),
    )


def shuffled(matrix: Tensor) -> Tensor:
    """The rows of a matrix before a pixel shuffle by 2, one of the four positions at a time."""
    rows, inputs = matrix.shape
    return matrix.reshape(rows // 4, 4, inputs).transpose(0, 1).reshape(rows, inputs)


def pack_double(convolution: Any, map_type: MapType) -> Tensor:
    """A 1x1 convolution before a pixel shuffle by 2."""
    return map_type.maps(shuffled(_matrix(convolution)))


def pack_halve(convolution: Any, map_type: MapType) -> tuple[Tensor, Tensor]:
    """A 2x2 convolution with stride 2."""
    matrix = convolution.weight.detach().double().permute(0, 2, 3, 1).flatten(1)
    return map_type.maps(matrix), map_type.exact(_vector(convolution.bias))


@dataclass(frozen=True)
class AttentionMaps:
    """The weights of the selective attention."""

    projection: Tensor
    taps: Tensor
    temperature: Tensor
    gains: Tensor
    last: Tensor
    """Of the last convolution, the columns of each head, `[heads, C, C / heads]` float32."""


def pack_attention(module: SelectiveAttention, map_type: MapType) -> AttentionMaps:
    """Fold the weights of the selective attention."""
    matrix = _matrix(module.project_out)
    channels = matrix.shape[0]
    gains = (module.attn1, module.attn2, module.attn3, module.attn4)
    return AttentionMaps(
        projection=map_type.maps(_matrix(module.qkv)),
        taps=map_type.exact(_taps(module.qkv_dwconv)),
        temperature=map_type.exact(_vector(module.temperature)),
        gains=map_type.exact(torch.cat([_vector(gain) for gain in gains])),
        last=map_type.exact(matrix.reshape(channels, module.heads, -1).transpose(0, 1)),
    )


@dataclass(frozen=True)
class FusionMaps:
    """The weights of one fusion, and of the convolutions before it."""

    doubles: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
    """For both maps, the upsampling steps that run at their own size."""
    weights: tuple[Tensor, Tensor]
    """For both maps, the product of the remaining convolutions, for `fuse`."""
    means: tuple[Tensor, Tensor]
    squeeze: Tensor
    expand: Tensor


def pack_fusion(
    fusion: FeatureFusion, low: Sequence[Any], high: Sequence[Any], map_type: MapType
) -> FusionMaps:
    """Fold the weights of one fusion.

    Args:
        fusion: The AFFM.
        low: The convolutions of its second map: those before a pixel shuffle, then the last.
        high: The same of its third map.
        map_type: Where they go.
    """
    doubles, weights, means = [], [], []
    for chain in (low, high):
        mean = torch.eye(_matrix(chain[0]).shape[1], dtype=torch.float64)
        mean = mean.to(_matrix(chain[0]).device)
        for each in chain[:-1]:
            mean = _matrix(each).reshape(-1, 4, mean.shape[0]).mean(1) @ mean
        means.append(map_type.exact(_matrix(chain[-1]) @ mean))
        last = _matrix(chain[-1])
        if len(chain) > 1:
            # the last convolution is done before the last shuffle, at a quarter of the pixels
            before = shuffled(_matrix(chain[-2]))
            parts = before.reshape(4, -1, before.shape[1])
            last = (last @ parts).reshape(-1, before.shape[1])
        weights.append(map_type.maps(last))
        doubles.append(tuple(pack_double(each, map_type) for each in chain[:-2]))
    return FusionMaps(
        doubles=(doubles[0], doubles[1]),
        weights=(weights[0], weights[1]),
        means=(means[0], means[1]),
        squeeze=map_type.exact(_matrix(fusion.conv_du[0])),
        expand=map_type.exact(torch.stack([_matrix(each) for each in fusion.fcs])),
    )


class NetworkMaps:
    """All weights of a network, folded once."""

    def __init__(
        self, network: MHNet, map_type: MapType, fronts: Mapping[int, Front] | None = None
    ) -> None:
        """Fold.

        Args:
            network: Any that `obstacle` has nothing against.
            map_type: Where the weights go.
            fronts: How the first halves of blocks are done, by their channels; the usual way for
                those that are not in it.
        """
        fronts = fronts or {}

        def packed(blocks: Any) -> list[BlockMaps]:
            return [
                pack_block(block, map_type, fronts.get(block.conv3.weight.shape[0]))
                for block in blocks
            ]

        self.config = config = network.config
        self.map_type = map_type
        stage: Any = network.stage1
        side = _matrix(network.concat12)[:, : config.width]
        intro2 = network.intro2.weight.detach().double()
        other = torch.einsum("mk,kcyx->mcyx", side, intro2)
        intro = stage.intro.weight.detach().double()
        both = nine_matrices(torch.cat([intro, other]))
        self.input_channels = padded_channels(both.shape[2])
        self.intro = map_type.maps(F.pad(both, (0, self.input_channels - both.shape[2])))
        bias = _vector(stage.intro.bias)
        self.intro_bias = map_type.exact(torch.cat([bias, torch.zeros_like(bias)]))
        self.encoders = [packed(level) for level in stage.encoders]
        self.downs = [pack_halve(each, map_type) for each in stage.downs]
        self.attention = pack_attention(stage.middle_blks[0], map_type)
        self.ups = [pack_double(each[0], map_type) for each in stage.ups]
        self.decoders = [packed(level) for level in stage.decoders]
        self.join = map_type.maps(_matrix(network.concat12)[:, config.width :])
        refine: Any = network.stage2
        self.norms, self.groups, self.fusions = [], [], []
        for number in range(1, len(config.group_blocks) + 1):
            norm = refine.get_submodule(f"norm{number}")
            self.norms.append(
                (map_type.exact(_vector(norm.weight)), map_type.exact(_vector(norm.bias)))
            )
            blocks = refine.get_submodule(f"CABG{number}")
            self.groups.append(packed(blocks))
            chains = [refine.chain(side, number) for side in ("enc", "dec")]
            fusion = refine.get_submodule(f"skff{number}")
            self.fusions.append(pack_fusion(fusion, chains[0], chains[1], map_type))
        self.ending = map_type.maps(nine_matrices(network.ending.weight))


def obstacle(network: MHNet) -> str:
    """Why the kernels cannot run a network; empty if they can."""
    config = network.config
    if config.width % 4:
        return f"width {config.width} is no multiple of 4"
    if config.glass:
        return "the network sees what stands still on the glass, which the GPU's windows lack"
    return structure_obstacle(network)
