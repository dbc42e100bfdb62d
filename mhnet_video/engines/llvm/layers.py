"""The layers of the network as steps of the CPU engine."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mhnet_video.engines.llvm.arena import Map, Resolution
from mhnet_video.engines.llvm.scheduler import Kernels, Program
from mhnet_video.engines.llvm.weight_packing import (
    FusionWeights,
    matrix_of,
    pack_block,
    pack_double,
    pack_halve,
)
from mhnet_video.kernels import (
    llvm_attention,
    llvm_blocks,
    llvm_int8_blocks,
    llvm_levels,
    llvm_weights,
)
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.model.network import NAFBlock, SelectiveAttention


class _BlockKernels(NamedTuple):
    """What writes the kernels of a NAFBlock."""

    front: Callable[..., Emitter]
    attend: Callable[..., Emitter]
    back: Callable[..., Emitter]


_BLOCK = _BlockKernels(llvm_blocks.block_front, llvm_weights.attend, llvm_blocks.block_back)
_INT8_BLOCK = _BlockKernels(
    llvm_int8_blocks.block_front_int8, llvm_weights.attend_apart, llvm_int8_blocks.block_back_int8
)
"""With 1x1 convolutions in int8."""


class _Scratch:
    """Memory that the parts of a block's first half need; no two blocks run at the same time."""

    def __init__(self, at: Resolution, parts: int) -> None:
        padded_row = at.row_blocks + at.tile.blocks
        ring_row = 2 * at.channels * padded_row
        normal = at.channels // at.machine.group * padded_row
        lanes = at.machine.lanes
        self.ring = torch.zeros(parts, llvm_blocks.RING_ROWS * ring_row * lanes)
        self.spare = torch.zeros(parts, max(4 * at.row_blocks, normal) * lanes)


class Layers:
    """Adds layers to a program.

    Args:
        program: The program.
        kernels: The engine's kernels.
    """

    def __init__(self, program: Program, kernels: Kernels) -> None:
        self._program, self._kernels = program, kernels
        self._scratch: dict[Resolution, _Scratch] = {}

    def rows(self, at: Resolution) -> list[tuple[int, int]]:
        """Parts of the rows of a map."""
        return self._program.parts(at.height)

    def blocks(self, at: Resolution) -> list[tuple[int, int]]:
        """Parts of all blocks of a map, cut between tiles."""
        return self._program.parts(at.height * at.row_blocks, at.tile.blocks)

    def _vector(self, count: int) -> Tensor:
        return torch.zeros(llvm_weights.padded(self._kernels.machine, count))

    # -- NAFBlocks

    def naf_blocks(
        self, at: Resolution, blocks: Sequence[Any], x: Map, more: Map | None = None
    ) -> tuple[Map, Tensor]:
        """Add NAFBlocks, and at the end another map; returns the result and its mean."""
        source = x
        for index, block in enumerate(blocks):
            is_last = index == len(blocks) - 1
            target = at.take()
            totals = self._naf_block(at, block, source, target, more if is_last else None)
            if source is not x:
                at.release(source)
            source = target
        mean = self._vector(at.channels)
        self._program.add(
            self._kernels.kernel(llvm_weights.average, at.channels),
            sums=totals,
            parts=len(totals),
            scale=at.scale,
            mean=mean,
        )
        return source, mean

    def _naf_block(
        self, at: Resolution, block: NAFBlock, x: Map, out: Map, more: Map | None
    ) -> Tensor:
        """Add a NAFBlock; returns the sums of its result."""
        weights, gated = pack_block(block, at.layout, int8=at.is_int8), at.take()
        kernels = _INT8_BLOCK if at.is_int8 else _BLOCK
        # rows are made in pairs, and every part computes some outside its own as well
        parts = self._program.parts(at.height, 2, each=1)
        sums = at.sums(len(parts))
        if at not in self._scratch:
            self._scratch[at] = _Scratch(at, len(parts))
        scratch = self._scratch[at]
        self._program.add(
            self._kernels.kernel(kernels.front, at.channels, at.tile),
            parts,
            x=x.data,
            ring=scratch.ring.unbind(),
            spare=scratch.spare.unbind(),
            tail=at.tail,
            out=gated.data,
            sums=sums.unbind(),
            row_blocks=at.row_blocks,
            rows=at.height,
            **weights.front,
        )
        self._program.add(
            self._kernels.kernel(kernels.attend, at.channels),
            sums=sums,
            parts=len(parts),
            scale=at.scale,
            mean=self._vector(at.channels),
            **weights.attend,
        )
        parts = self.blocks(at)
        totals = at.sums(len(parts))
        self._program.add(
            self._kernels.kernel(kernels.back, at.channels, at.tile, twice=more is not None),
            parts,
            gated=gated.data,
            x=x.data,
            more=(more or x).data,
            mask=at.mask,
            out=out.data,
            sums=totals.unbind(),
            **weights.back,
        )
        at.release(gated)
        return totals

    # -- between resolutions

    def double(
        self,
        at: Resolution,
        above: Resolution,
        convolution: torch.nn.Module,
        x: Map,
        out: Map,
        skip: Map | None,
    ) -> None:
        """Add a step up, with a map added to its result."""
        options = {"skip": skip is not None, "int8": at.is_int8}
        self._program.add(
            self._kernels.kernel(llvm_levels.double, at.channels, at.tile, **options),
            self.rows(at),
            x=x.data,
            **pack_double(convolution, at.layout, int8=at.is_int8),
            skip=(skip or out).data,
            out=out.data,
            small_blocks=at.row_blocks,
            large_blocks=above.row_blocks,
        )

    def halve(self, at: Resolution, below: Resolution, convolution: Any, x: Map, out: Map) -> None:
        """Add a step down."""
        self._program.add(
            self._kernels.kernel(llvm_levels.halve, at.channels, below.tile, int8=at.is_int8),
            self.rows(below),
            x=x.data,
            **pack_halve(convolution, below.layout, int8=at.is_int8),
            bias=convolution.bias.detach().float().contiguous(),
            out=out.data,
            large_blocks=at.row_blocks,
            small_blocks=below.row_blocks,
        )

    # -- the selective attention

    def attention(self, at: Resolution, attention: Any, x: Map) -> Map:
        """Add the selective attention, which has few pixels and many channels.

        Raises:
            ValueError: There is something else.
        """
        if [type(each) for each in attention] != [SelectiveAttention]:
            raise ValueError(f"expected one attention, got {attention}")
        module, lanes, program = attention[0], at.machine.lanes, self._program
        channels, heads = x.channels, module.heads
        plane = (x.blocks + max(at.tile.blocks, 4)) * lanes
        projected, mixed = (torch.zeros(3 * channels, plane) for _ in range(2))
        program.add(
            self._kernels.kernel(llvm_attention.project, channels, at.tile),
            self.blocks(at),
            x=x.data,
            w=at.layout.narrow(at.layout.pack(matrix_of(module.qkv))),
            out=projected,
            count=3 * channels,
            plane=plane,
        )
        parts = program.parts(3 * channels)
        spare = torch.zeros(len(parts), (x.height + 2) * (x.row_blocks + 2) * lanes)
        # zero beyond the picture, so that sums over all elements are those over its pixels
        program.add(
            self._kernels.kernel(llvm_attention.depthwise),
            parts,
            x=projected,
            w=module.qkv_dwconv.weight.detach().float().contiguous(),
            mask=at.mask,
            spare=spare.unbind(),
            out=mixed,
            plane=plane,
            rows=x.height,
            row_blocks=x.row_blocks,
        )
        queries, keys, values = mixed.chunk(3)
        each = channels // heads
        every = [(head, head + 1) for head in range(heads)]
        scores = torch.zeros(heads, each, each)
        program.add(
            self._kernels.kernel(llvm_attention.gram, each),
            every,
            queries=queries,
            keys=keys,
            temperature=module.temperature.detach().float().contiguous(),
            scores=scores,
            plane=plane,
            used=x.blocks * lanes,
        )
        gains = torch.cat([module.attn1, module.attn2, module.attn3, module.attn4])
        kept = tuple(each * part // whole for part, whole in module.SHARES)
        matrix = torch.zeros(channels, channels)
        # what the values go through is linear: one matrix
        program.add(
            self._kernels.kernel(llvm_attention.select, each, heads, kept),
            every,
            scores=scores,
            gains=gains.detach().float(),
            project=matrix_of(module.project_out).float().t().contiguous(),
            matrix=matrix,
        )
        at.release(x)
        out = at.take()
        program.add(
            self._kernels.kernel(llvm_attention.mix, channels),
            self.blocks(at),
            values=values,
            matrix=matrix,
            out=out.data,
            plane=plane,
        )
        return out

    # -- the fusion of hierarchies

    def weigh(
        self, at: Resolution, f: FusionWeights, mean: Tensor, low: Tensor, high: Tensor
    ) -> None:
        """Add the step that makes a fusion's weights from the means of its maps."""
        self._program.add(
            self._kernels.kernel(llvm_weights.weigh, at.channels, f.expand.shape[1]),
            mean=mean,
            low=low,
            high=high,
            low_matrix=f.low_matrix,
            high_matrix=f.high_matrix,
            squeeze=f.squeeze,
            expand=f.expand,
            floor=f.floor,
            share=f.share,
            low_count=len(f.low_matrix),
            high_count=len(f.high_matrix),
            plain=f.plain,
            rows=f.rows,
            out=f.weights,
            count=f.plain.numel(),
        )

    def fuse(
        self,
        at: Resolution,
        norm: Any,
        x: Map,
        share: Tensor,
        maps: Sequence[Map],
        weights: Tensor,
        out: Map,
    ) -> None:
        """Add a fusion of maps of one resolution, and LayerNorm."""
        first, second = maps
        self._program.add(
            self._kernels.kernel(llvm_levels.fuse, at.channels, at.tile),
            self.blocks(at),
            x=x.data,
            share=share,
            a=first.data,
            b=second.data,
            w=weights,
            gain=norm.weight.detach().float(),
            shift=norm.bias.detach().float(),
            out=out.data,
        )
