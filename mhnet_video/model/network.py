"""MHNet, the mixed-hierarchy network for image restoration, and its blocks.

Parameters carry the names of the authors' checkpoints, so that theirs load as they are. Source of
the structure: Gao and Dang, "Mixed Hierarchy Network for Image Restoration", arXiv 2302.09554.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhnet_video import kernels
from mhnet_video.model.align import align

LEVELS = 4
"""Times that the encoder halves the picture; its sides are padded to a multiple of 2**LEVELS."""

UNUSED = re.compile(r"intro\.weight|stage1\.ending\.(weight|bias)|stage2\.conv_dnc[234]\.weight")
"""Tensors of the published checkpoints that the published network never uses."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The sizes of an MHNet. The defaults are the paper's."""

    width: int = 64
    """Channels at full resolution; level i of the encoder has width * 2**i."""
    encoder_blocks: tuple[int, ...] = (1, 1, 1, 28)
    """NAFBlocks of each encoder level, from full resolution down."""
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    """NAFBlocks of each decoder level, from the lowest resolution up."""
    group_blocks: tuple[int, ...] = (8, 8, 8, 8)
    """NAFBlocks of each group of the full-resolution net."""
    heads: int = 8
    """Heads of the selective attention; 16 * width must be a multiple of it."""
    frames: int = 1
    """Frames that the network sees at once, odd; the middle one is restored."""
    patch: int = 1
    """Side of the pixel blocks that are folded into channels before the first convolutions."""
    align: bool = False
    """Whether neighbours are moved first to where the middle frame shows the same, by align.py."""
    glass: bool = False
    """Whether the frames stand between two pictures of what stands still on the glass before the
    camera, see `window.glass_statistics`."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        for name in ("encoder_blocks", "decoder_blocks", "group_blocks"):
            blocks = tuple(getattr(self, name))
            object.__setattr__(self, name, blocks)
            if len(blocks) != LEVELS or min(blocks) < 0:
                raise ValueError(f"{name} takes {LEVELS} counts, got {blocks}")
        if self.width < 1 or self.patch < 1 or self.heads < 1 or 16 * self.width % self.heads:
            raise ValueError(f"no network of these sizes: {self}")
        if self.frames < 1 or self.frames % 2 == 0:
            raise ValueError(f"frames must be odd, got {self.frames}")

    @property
    def pictures(self) -> int:
        """Pictures that the network sees: the frames, and those of the glass, if it sees these."""
        return self.frames + 2 * self.glass

    @property
    def multiple(self) -> int:
        """The multiple of pixels to which the sides of a picture are padded."""
        return self.patch * 2**LEVELS

    def to_dict(self) -> dict[str, Any]:
        """The sizes as plain values, for metadata; `NetworkConfig(**...)` reads them back."""
        return asdict(self)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "NetworkConfig":
        """Read the sizes off a checkpoint.

        Args:
            shapes: The shape of every tensor, by name.

        Raises:
            KeyError: A tensor that every MHNet has is missing.
            ValueError: The shapes are no MHNet's.
        """

        def count(prefix: str) -> int:
            found = {
                name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)
            }
            return len(found)

        patch = round((shapes["ending.weight"][0] / 3) ** 0.5)
        return cls(
            width=shapes["ending.weight"][1],
            encoder_blocks=tuple(count(f"stage1.encoders.{i}.") for i in range(LEVELS)),
            decoder_blocks=tuple(count(f"stage1.decoders.{i}.") for i in range(LEVELS)),
            group_blocks=tuple(count(f"stage2.CABG{i}.") for i in range(1, LEVELS + 1)),
            heads=shapes["stage1.middle_blks.0.temperature"][0],
            frames=shapes["intro2.weight"][1] // max(1, 3 * patch**2),
            patch=patch,
        )


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of each pixel.

    Shape:
        - Input: `[N, C, H, W]`
        - Output: `[N, C, H, W]`
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `x`."""
        return kernels.layer_norm_2d(x, self.weight, self.bias, self.eps)


class SimpleGate(nn.Module):
    """The product of the two halves of the channels.

    Shape:
        - Input: `[N, 2C, H, W]`
        - Output: `[N, C, H, W]`
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the halves."""
        first, second = x.chunk(2, dim=1)
        return first * second


class NAFBlock(nn.Module):
    """A block without activation functions: gated convolution with channel attention, gated mix.

    Shape:
        - Input: `[N, C, H, W]`
        - Output: `[N, C, H, W]`

    Source: Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, figure 2c.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        c = num_channels
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.conv3 = nn.Conv2d(c, c, 1)
        # index 0 stands for the pooling, which the gate's pass does; the checkpoints say sca.1
        self.sca = nn.Sequential(nn.Identity(), nn.Conv2d(c, c, 1))
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.norm1 = LayerNorm2d(c)
        self.norm2 = LayerNorm2d(c)
        self.gate = SimpleGate()
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Transform `x`."""
        gated, mean = kernels.gate_pool(self.conv2(self.conv1(self.norm1(x))))
        x = kernels.scaled_residual(x, self.conv3(gated * self.sca(mean)), self.beta)
        mixed = self.conv5(self.gate(self.conv4(self.norm2(x))))
        return kernels.scaled_residual(x, mixed, self.gamma)


class SelectiveAttention(nn.Module):
    """SMAM: channel attention over heads that keeps the largest shares of every row.

    Shape:
        - Input: `[N, C, H, W]`
        - Output: `[N, C, H, W]`
    """

    SHARES = ((1, 2), (2, 3), (3, 4), (4, 5))

    def __init__(self, num_channels: int, heads: int) -> None:
        super().__init__()
        c = num_channels
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.attn1 = nn.Parameter(torch.tensor([0.2]))
        self.attn2 = nn.Parameter(torch.tensor([0.2]))
        self.attn3 = nn.Parameter(torch.tensor([0.2]))
        self.attn4 = nn.Parameter(torch.tensor([0.2]))
        self.qkv = nn.Conv2d(c, 3 * c, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * c, 3 * c, 3, padding=1, groups=3 * c, bias=False)
        self.project_out = nn.Conv2d(c, c, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        batch, _, height, width = x.shape
        q, k, v = (
            part.reshape(batch, self.heads, -1, height * width)  # [N, heads, C / heads, P]
            for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        mixed = self.combine(scores * self.temperature) @ v
        return self.project_out(mixed.reshape(batch, -1, height, width))

    def combine(self, scores: Tensor) -> Tensor:
        """The four softmaxes over the kept shares, weighted and summed, `[N, heads, c, c]`.

        Sorted, the kept entries of every share are the first ones, so that one exponential and
        its running sum serve all four.
        """
        ordered, index = scores.sort(dim=-1, descending=True)
        exponential = (ordered - ordered[..., :1]).exp()
        running = exponential.cumsum(dim=-1)
        size = scores.shape[-1]
        combined = torch.zeros_like(ordered)
        gains = (self.attn1, self.attn2, self.attn3, self.attn4)
        for (part, whole), gain in zip(self.SHARES, gains, strict=True):
            kept = size * part // whole
            if kept:
                share = exponential[..., :kept] / running[..., kept - 1 : kept] * gain
                combined = combined + F.pad(share, (0, size - kept))
        return torch.zeros_like(scores).scatter(-1, index, combined)


class EncoderDecoder(nn.Module):
    """The low hierarchy: context, from four halvings of the picture.

    Shape:
        - Input: `[N, channels, H, W]`, sides multiples of 16
        - Output: the encoder's maps E1..E4 and the decoder's D1..D4; Ei and Di are
          `[N, width * 2**(i - 1), H / 2**(i - 1), W / 2**(i - 1)]`
    """

    def __init__(self, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        widths = [config.width * 2**level for level in range(LEVELS + 1)]
        self.intro = nn.Conv2d(channels, config.width, 3, padding=1)
        self.encoders = nn.ModuleList(
            nn.Sequential(*(NAFBlock(c) for _ in range(blocks)))
            for c, blocks in zip(widths, config.encoder_blocks, strict=False)
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle_blks = nn.Sequential(SelectiveAttention(widths[-1], config.heads))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2))
            for c in reversed(widths[1:])
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(*(NAFBlock(c) for _ in range(blocks)))
            for c, blocks in zip(reversed(widths[:-1]), config.decoder_blocks, strict=True)
        )

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Encode and decode."""
        x = self.intro(x)
        encoded: list[Tensor] = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            encoded.append(blocks(x))
            x = down(encoded[-1])
        x = self.middle_blks(x)
        decoded: list[Tensor] = []
        for up, blocks, skip in zip(self.ups, self.decoders, reversed(encoded), strict=True):
            x = blocks(up(x) + skip)
            decoded.append(x)
        return encoded, decoded[::-1]


class FeatureFusion(nn.Module):
    """AFFM: three maps, weighted by channels and summed.

    Shape:
        - Input: three of `[N, C, H, W]`
        - Output: `[N, C, H, W]`
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        reduced = max(num_channels // 8, 4)
        self.conv_du = nn.Sequential(nn.Conv2d(num_channels, reduced, 1, bias=False), SimpleGate())
        self.fcs = nn.ModuleList(
            nn.Conv2d(reduced // 2, num_channels, 1, bias=False) for _ in range(3)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Fuse the features."""
        first, second, third = features
        summary = self.conv_du((first + second + third).mean(dim=(2, 3), keepdim=True))
        weights = [fc(summary).softmax(dim=1) for fc in self.fcs]
        return first * weights[0] + second * weights[1] + third * weights[2]


class _Up(nn.Module):
    """Twice the sides, half the channels."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Conv2d(num_channels, 2 * num_channels, 1, bias=False), nn.PixelShuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class FullResolutionNet(nn.Module):
    """FRSNet, the high hierarchy: detail at full resolution, fed with the maps of the low one.

    Shape:
        - Input: `[N, width, H, W]`, and the maps of `EncoderDecoder`
        - Output: `[N, width, H, W]`
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        for group, blocks in enumerate(config.group_blocks, start=1):
            setattr(self, f"norm{group}", LayerNorm2d(width))
            self.add_module(
                f"CABG{group}", nn.Sequential(*(NAFBlock(width) for _ in range(blocks)))
            )
            setattr(self, f"skff{group}", FeatureFusion(width))
            setattr(self, f"conv_enc{group}", nn.Conv2d(width, width, 1, bias=False))
        # level 2 has one step up, levels 3 and 4 a chain of them
        self.up_enc1, self.up_dec1 = _Up(2 * width), _Up(2 * width)
        for steps in range(2, LEVELS):
            for side in ("enc", "dec"):
                chain = (_Up(width * 2**step) for step in range(steps, 0, -1))
                self.add_module(f"up_{side}{steps}", nn.Sequential(*chain))
        # one convolution serves the decoder's maps of all levels, as in the published code
        self.conv_dnc1 = nn.Conv2d(width, width, 1, bias=False)

    def chain(self, side: str, group: int) -> list[nn.Module]:
        """The 1x1 convolutions that bring a level's map to a fusion, a pixel shuffle between them.

        Args:
            side: `enc` or `dec`.
            group: Number of the group, from 1; its level is the same.
        """
        ups: list[Any] = []
        if group > 1:
            steps = self.get_submodule(f"up_{side}{group - 1}")
            ups = [steps] if group == 2 else list(steps.children())
        last = self.get_submodule(f"conv_enc{group}") if side == "enc" else self.conv_dnc1
        return [*(step.up[0] for step in ups), last]

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        """Refine `x`."""
        for group in range(1, LEVELS + 1):
            x = self.get_submodule(f"norm{group}")(x)
            x = x + self.get_submodule(f"CABG{group}")(x)
            low, high = encoded[group - 1], decoded[group - 1]
            if group > 1:
                low = self.get_submodule(f"up_enc{group - 1}")(low)
                high = self.get_submodule(f"up_dec{group - 1}")(high)
            low = self.get_submodule(f"conv_enc{group}")(low)
            x = self.get_submodule(f"skff{group}")([x, low, self.conv_dnc1(high)])
        return x


class MHNet(nn.Module):
    """The whole network: the middle frame plus a learned residual.

    Any height and width from 1 on: the picture is padded on the right and at the bottom with
    zeros to a multiple of 16 * patch, and the result is cropped back.

    Args:
        config: The sizes; the paper's if None.

    Shape:
        - Input: `[N, 3 * pictures, H, W]`, the RGB frames one after another, in [0, 1]; black ones
          around a picture without neighbours; between the pictures of the glass, if it sees these
        - Output: `[N, 3, H, W]`, in about [0, 1], not clamped
    """

    task: str
    """What it is trained to take out, one of `tasks.TRAINED`; loading and training set it."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        self.task = self.usual_task(config)
        channels = 3 * config.pictures * config.patch**2
        self.intro2 = nn.Conv2d(channels, config.width, 3, padding=1, bias=False)
        self.stage1 = EncoderDecoder(channels, config)
        self.concat12 = nn.Conv2d(2 * config.width, config.width, 1, bias=False)
        self.stage2 = FullResolutionNet(config)
        self.ending = nn.Conv2d(config.width, 3 * config.patch**2, 3, padding=1, bias=False)

    @staticmethod
    def usual_task(config: NetworkConfig) -> str:
        """The task of networks of these sizes, where nothing else is known of them."""
        return "raindrop" if config.glass else "derain"

    def forward(self, x: Tensor) -> Tensor:
        """Restore the middle frame of each window.

        Raises:
            ValueError: The input has another number of channels, or no pixels.
        """
        channels = 3 * self.config.pictures
        if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape:
            raise ValueError(f"expected x [N, {channels}, H, W], got {list(x.shape)}")
        if self.config.align:
            edge = 3 * self.config.glass
            frames = x[:, edge : channels - edge]
            window = frames.reshape(len(x), self.config.frames, 3, *x.shape[2:])
            moved = align(window, moves_all=self.config.glass).flatten(1, 2).to(x.dtype)
            x = torch.cat([x[:, :edge], moved, x[:, channels - edge :]], 1)
        middle = 3 * (self.config.pictures // 2)
        return x[:, middle : middle + 3] + self.residual(x)

    def residual(self, x: Tensor) -> Tensor:
        """What is to be added to the middle frame, `[N, 3, H, W]`.

        Of frames that are aligned already, where the network wants them so.
        """
        height, width = x.shape[-2:]
        multiple = self.config.multiple
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple))
        x = F.pixel_unshuffle(x, self.config.patch)
        encoded, decoded = self.stage1(x)
        x = self.concat12(torch.cat([self.intro2(x), decoded[0]], dim=1))
        x = self.ending(self.stage2(x, encoded, decoded))
        return F.pixel_shuffle(x, self.config.patch)[..., :height, :width]


def structure_obstacle(network: MHNet) -> str:
    """Why an engine that merges the network's passes cannot run it; empty if it can."""
    config = network.config
    counts = (*config.encoder_blocks, *config.decoder_blocks, *config.group_blocks)
    if min(counts) < 1:
        return "a level or a group has no blocks"
    if type(network).residual is not MHNet.residual:
        return "the network is not a plain MHNet"
    return ""
