"""The CPU engine: the whole network from kernels made for this processor when it starts.

The plain network is the meaning. Here its passes are merged so that every map is written once and
read once or twice: LayerNorm, 1x1, depthwise and gate of a block are one pass and the rest of it
another; convolutions that follow each other without anything between them are one; the fusion's
weights are known before its maps are computed, because means pass through linear layers, so that
those maps are never stored at full resolution.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.align import align_frames
from mhnet_video.frame_window import Window, middle_of
from mhnet_video.kernels import (
    llvm_attention,
    llvm_blocks,
    llvm_images,
    llvm_levels,
    llvm_weights,
)
from mhnet_video.kernels.llvm_ir import Machine
from mhnet_video.kernels.llvm_product import Tile, choose_tile, choose_winograd_tile
from mhnet_video.motion import Folds, Motion, fits
from mhnet_video.network import LEVELS, MHNet, SelectiveAttention
from mhnet_video.packing import (
    BlockWeights,
    FusionWeights,
    Layout,
    matrix_of,
    pack_block,
    pack_double,
    pack_fusion,
    pack_halve,
    pack_planes,
    pack_winograd,
    picture_channels,
)
from mhnet_video.program import Kernels, Map, Program, nothing

_MAX_PIXELS = 4096 * 2304
"""Largest picture in one piece where elements are pairs; its maps take some 1.5 GB."""

_LANE_THREADS, _LANE_THREADS_OF_A_MILLION = 2, 3
"""Threads that share a picture without waiting much for each other, and how many more of them for
each million pixels: with twice as many a tenth of the time is waiting. Small maps have few rows."""

_MAX_PAIR_PIXELS, _MAX_LANES_PIXELS = 1280 * 736, 2 * 1920 * 1088
"""Largest picture of which two are worked on at the same time however few the threads are, and
pixels of all of which maps are kept: some 200 bytes each."""

_PLANS = 2
"""Sizes of pictures for which maps are kept."""


class _Plan:
    """Everything for one size of picture: maps, and the program."""

    def __init__(
        self, network: MHNet, kernels: Kernels, height: int, width: int, threads: int
    ) -> None:
        """Plan.

        Args:
            network: The network.
            kernels: The engine's.
            height: Of the pictures, in pixels; a multiple of the network's.
            width: Likewise.
            threads: How many threads will run it.
        """
        self.network, self.kernels, self.machine = network, kernels, kernels.machine
        self.config = config = network.config
        self.program = Program(kernels, threads)
        self.folds: NDArray[np.int64]
        """The arguments of the step that reads the pictures."""
        self.start: NDArray[np.int64]
        """The arguments of the first convolution."""
        self.ending: NDArray[np.int64]
        """The arguments of the step that writes the residual."""
        lanes, patch = self.machine.lanes, config.patch
        self.sizes = [
            (height // patch // 2**level, width // patch // 2**level) for level in range(LEVELS + 1)
        ]
        self.widths = [config.width * 2**level for level in range(LEVELS + 1)]
        self.row_blocks = [-(-w // lanes) for _, w in self.sizes]
        self.tiles = [
            choose_tile(self.machine, blocks, channels)
            for blocks, channels in zip(self.row_blocks, self.widths, strict=True)
        ]
        self.layouts = [Layout(self.machine, tile.outputs) for tile in self.tiles]
        self._masks = [
            Map(self.machine, self.machine.group, *size).mask() for size in self.sizes[:LEVELS]
        ]
        self.tail = [self._tail(level) for level in range(LEVELS)]
        self._scales = [torch.tensor([1 / (h * w)]) for h, w in self.sizes]
        self._free: list[list[Map]] = [[] for _ in self.sizes]
        self._rings = [self._ring(level) for level in range(LEVELS)]
        self._build(height, width)
        self.program.finish()

    # -- plumbing

    def _take(self, level: int) -> Map:
        """A map of a level, to be given back after the last step that reads it is added."""
        if self._free[level]:
            return self._free[level].pop()
        return Map(self.machine, self.widths[level], *self.sizes[level])

    def _give(self, level: int, *maps: Map) -> None:
        """Let later steps write over maps."""
        self._free[level] += maps

    def _ring(self, level: int) -> tuple[Tensor, Tensor]:
        """What the parts of a block's first half need for themselves; no two blocks run at once."""
        parts, row = len(self._few_rows(level)), self.row_blocks[level]
        ring_row = 2 * self.widths[level] * (row + self.tiles[level].blocks)
        normal = self.widths[level] // self.machine.group * (row + self.tiles[level].blocks)
        return (
            torch.zeros(parts, llvm_blocks.RING_ROWS * ring_row * self.machine.lanes),
            torch.zeros(parts, max(4 * row, normal) * self.machine.lanes),
        )

    def _tail(self, level: int) -> Tensor:
        lanes = self.machine.lanes
        inside = self.sizes[level][1] - (self.row_blocks[level] - 1) * lanes
        return -(torch.arange(lanes) < inside).int()

    def _rows(self, level: int) -> list[tuple[int, int]]:
        return self.program.parts(self.sizes[level][0])

    def _few_rows(self, level: int) -> list[tuple[int, int]]:
        """Parts of a step that makes rows in pairs, and computes some outside its own as well."""
        return self.program.parts(self.sizes[level][0], 2, each=1)

    def _flat(self, level: int) -> list[tuple[int, int]]:
        """Parts of all blocks of a level, cut between tiles."""
        blocks = self.sizes[level][0] * self.row_blocks[level]
        return self.program.parts(blocks, self.tiles[level].blocks)

    def _sums(self, level: int, parts: int) -> Tensor:
        return torch.zeros(parts, self.widths[level], self.machine.lanes)

    def _vector(self, count: int) -> Tensor:
        return torch.zeros(llvm_weights.padded(self.machine, count))

    # -- parts of the network

    def _block(
        self, level: int, weights: BlockWeights, x: Map, out: Map, more: Map | None
    ) -> Tensor:
        """Add a NAFBlock; gives its result's sums."""
        tile = self.tiles[level]
        channels, row_blocks = self.widths[level], self.row_blocks[level]
        height = self.sizes[level][0]
        gated = self._take(level)
        parts = self._few_rows(level)
        sums = self._sums(level, len(parts))
        ring, spare = self._rings[level]
        w = weights
        self.program.add(
            self.kernels.name(llvm_blocks.block_front, channels, tile),
            [
                x.data,
                w.w1,
                w.b1,
                w.wd,
                ring,
                spare,
                self.tail[level],
                gated.data,
                sums,
                row_blocks,
                height,
            ],
            parts,
            [{4: ring[i], 5: spare[i], 8: sums[i]} for i in range(len(parts))],
        )
        self.program.add(
            self.kernels.name(llvm_weights.attend, channels),
            [
                sums,
                len(parts),
                self._scales[level],
                self._vector(channels),
                w.attention,
                w.attention_bias,
                w.plain_w3,
                w.rows,
                w.w3,
                w.plain_w3.numel(),
            ],
        )
        flat = self._flat(level)
        totals = self._sums(level, len(flat))
        self.program.add(
            self.kernels.name(llvm_blocks.block_back, channels, tile, twice=more is not None),
            [
                gated.data,
                x.data,
                (more or x).data,
                w.w3,
                w.b3,
                w.w4,
                w.b4,
                w.w5,
                w.b5,
                self._masks[level],
                out.data,
                totals,
            ],
            flat,
            [{11: totals[i]} for i in range(len(flat))],
        )
        self._give(level, gated)
        return totals

    def _blocks(
        self, level: int, blocks: Sequence[Any], x: Map, more: Map | None = None
    ) -> tuple[Map, Tensor]:
        """Add NAFBlocks, and at the end another map; gives the result and its mean."""
        source = x
        for index, block in enumerate(blocks):
            is_last = index == len(blocks) - 1
            target = self._take(level)
            weights = pack_block(block, self.layouts[level])
            totals = self._block(level, weights, source, target, more if is_last else None)
            if source is not x:
                self._give(level, source)
            source = target
        mean = self._vector(self.widths[level])
        self.program.add(
            self.kernels.name(llvm_weights.average, self.widths[level]),
            [totals, len(totals), self._scales[level], mean],
        )
        return source, mean

    def _double(
        self, level: int, convolution: torch.nn.Module, x: Map, out: Map, skip: Map | None
    ) -> None:
        """Add a step up from a level."""
        tile = self.tiles[level]
        name = self.kernels.name(
            llvm_levels.double, self.widths[level], tile, skip=skip is not None
        )
        weights = pack_double(convolution, self.layouts[level])
        self.program.add(
            name,
            [
                x.data,
                weights,
                (skip or out).data,
                out.data,
                self.row_blocks[level],
                self.row_blocks[level - 1],
            ],
            self._rows(level),
        )

    def _halve(self, level: int, convolution: Any, x: Map, out: Map) -> None:
        """Add a step down from a level."""
        tile = self.tiles[level + 1]
        self.program.add(
            self.kernels.name(llvm_levels.halve, self.widths[level], tile),
            [
                x.data,
                pack_halve(convolution, self.layouts[level + 1]),
                convolution.bias.detach().float().contiguous(),
                out.data,
                self.row_blocks[level],
                self.row_blocks[level + 1],
            ],
            self._rows(level + 1),
        )

    # -- the network

    def _build(self, height: int, width: int) -> None:
        network = self.network
        first, side = self._begin(height)
        encoded: list[Map] = []
        decoded: list[Map] = []
        low_means: list[Tensor] = []
        high_means: list[Tensor] = []
        x = first
        stage: Any = network.stage1
        for level in range(LEVELS):
            out, mean = self._blocks(level, list(stage.encoders[level]), x)
            self._give(level, x)
            encoded.append(out)
            low_means.append(mean)
            x = self._take(level + 1)
            self._halve(level, stage.downs[level], out, x)
        x = self._attend(stage.middle_blks, x)
        for index in range(LEVELS):
            level = LEVELS - 1 - index
            up = self._take(level)
            self._double(level + 1, stage.ups[index][0], x, up, encoded[level])
            x, mean = self._blocks(level, list(stage.decoders[index]), up)
            self._give(level, up)
            decoded.insert(0, x)
            high_means.insert(0, mean)
        self._refine(side, encoded, decoded, low_means, high_means)

    def _attend(self, attention: Any, x: Map) -> Map:
        """Add the selective attention at the bottom, which has few pixels and many channels."""
        if [type(each) for each in attention] != [SelectiveAttention]:
            raise ValueError(f"expected one attention, got {attention}")
        module, machine = attention[0], self.machine
        channels, heads = x.channels, module.heads
        tile, layout = self.tiles[LEVELS], self.layouts[LEVELS]
        plane = (x.blocks + max(tile.blocks, 4)) * machine.lanes
        projected, mixed = (torch.zeros(3 * channels, plane) for _ in range(2))
        weights = layout.narrow(layout.pack(matrix_of(module.qkv)))
        self.program.add(
            self.kernels.name(llvm_attention.project, channels, tile),
            [x.data, weights, projected, 3 * channels, plane],
            self._flat(LEVELS),
        )
        parts = self.program.parts(3 * channels)
        spare = torch.zeros(len(parts), (x.height + 2) * (x.row_blocks + 2) * machine.lanes)
        # zero beyond the picture, so that sums over all elements are those over its pixels
        self.program.add(
            self.kernels.name(llvm_attention.depthwise),
            [
                projected,
                module.qkv_dwconv.weight.detach().float().contiguous(),
                x.mask(),
                spare,
                mixed,
                plane,
                x.height,
                x.row_blocks,
            ],
            parts,
            [{3: spare[i]} for i in range(len(parts))],
        )
        queries, keys, values = mixed.chunk(3)
        each = channels // heads
        every = [(head, head + 1) for head in range(heads)]
        scores = torch.zeros(heads, each, each)
        self.program.add(
            self.kernels.name(llvm_attention.gram, each),
            [
                queries,
                keys,
                module.temperature.detach().float().contiguous(),
                scores,
                plane,
                x.blocks * machine.lanes,
            ],
            every,
        )
        gains = torch.cat([module.attn1, module.attn2, module.attn3, module.attn4])
        kept = tuple(each * part // whole for part, whole in module.SHARES)
        matrix = torch.zeros(channels, channels)
        # what the values go through is linear: one matrix
        self.program.add(
            self.kernels.name(llvm_attention.select, each, heads, kept),
            [
                scores,
                gains.detach().float(),
                matrix_of(module.project_out).float().t().contiguous(),
                matrix,
            ],
            every,
        )
        self._give(LEVELS, x)
        out = self._take(LEVELS)
        self.program.add(
            self.kernels.name(llvm_attention.mix, channels),
            [values, matrix, out.data, plane],
            self._flat(LEVELS),
        )
        return out

    def _begin(self, height: int) -> tuple[Map, Map]:
        """Add the pictures' way to the encoder's first map, and to the other hierarchy's."""
        network, machine, config = self.network, self.machine, self.config
        tile, patch, group = self.tiles[0], config.patch, machine.group
        rows, row_blocks = self.sizes[0][0], self.row_blocks[0]
        pictures = 3 * config.frames
        per_picture = patch * patch // group if patch == 2 else 1
        planes = pictures * per_picture if patch == 2 else -(-pictures // group)
        self.padded_width = row_blocks * machine.lanes * patch
        self.window = torch.zeros(config.frames, 3, height, self.padded_width)
        self.black = torch.zeros(3, height, self.padded_width)
        plane = (row_blocks + tile.blocks + 2) * machine.lanes
        # that the last tile of the last row may read, and a last step of planes
        beyond = 4 * 6 * machine.lanes + 16 * plane
        folded = torch.zeros((rows + 2) * planes * plane + beyond, dtype=torch.int32)
        self.folded: Folds | None = None
        """Where the frames are folded to, if motion kernels can do that."""
        if patch == 2:
            firsts = [folded[3 * i * per_picture * plane :] for i in range(config.frames)]
            places = [first.data_ptr() for first in firsts]
            self.folded = Folds(places, plane, planes * plane)
        # at patch 1 the channels of a pair are two pictures, at patch 2 two neighbours of one
        self.fold_pictures = group if patch == 1 else 1
        folds = -(-pictures // self.fold_pictures)
        self.folds = self.program.add(
            self.kernels.name(llvm_images.fold, patch),
            [0, 0, 0, self.padded_width, plane, planes * plane, row_blocks],
            [(0, rows)] * folds,
            [{2: folded[index * per_picture * plane :]} for index in range(folds)],
        )
        side = matrix_of(network.concat12)[:, : config.width]
        other = torch.einsum("mk,kcyx->mcyx", side, network.intro2.weight.double())
        weight = torch.cat([network.stage1.intro.weight.double(), other])
        # a frame that was there before stays where it was: the weights turn, not the frames
        turned = [
            picture_channels(weight.roll(3 * patch * patch * turn, 1), patch, group)
            for turn in range(config.frames if self.fold_pictures == 1 else 1)
        ]
        self.known: list[Callable[[], Tensor | None]] = [nothing] * config.frames
        intro: Any = network.stage1.intro
        bias = torch.zeros(2 * config.width)
        bias[: config.width] = intro.bias.detach()
        first, second = self._take(0), self._take(0)
        maps = [bias, first.data, second.data]
        if group == 1:  # in pairs of bfloat16 the transformed values would lose precision
            wide = choose_winograd_tile(machine, row_blocks)
            parts = self.program.parts(rows // 4)
            each = 36 * wide.blocks * (planes + 2 * config.width) * machine.lanes
            spare = torch.zeros(len(parts), each)
            self.turns = [pack_winograd(weight, wide.outputs) for weight in turned]
            self.start = self.program.add(
                self.kernels.name(llvm_images.winograd_to_maps, planes, config.width, wide),
                [folded, self.turns[0], *maps, spare, plane, row_blocks],
                parts,
                [{5: spare[index]} for index in range(len(parts))],
            )
            return first, second
        if machine.tiles:
            # rows one pixel off are loaded in halves: two tiles of weights share them
            tile = Tile(2, 2 * tile.outputs)
        self.turns = [pack_planes(weight, Layout(machine, tile.outputs)) for weight in turned]
        self.start = self.program.add(
            self.kernels.name(llvm_images.convolve_to_maps, planes, config.width, tile),
            [folded, self.turns[0], *maps, plane, row_blocks],
            self._rows(0),
        )
        return first, second

    def _refine(
        self,
        side: Map,
        encoded: list[Map],
        decoded: list[Map],
        low_means: list[Tensor],
        high_means: list[Tensor],
    ) -> None:
        """Add the full-resolution net and the last convolution."""
        network, machine, config = self.network, self.machine, self.config
        group, width, tile = machine.group, config.width, self.tiles[0]
        stage: Any = network.stage2
        matrix = matrix_of(network.concat12)[:, width:]
        layout = self.layouts[0]
        halves = [layout.pack(each) for each in (matrix, torch.zeros_like(matrix))]
        start = layout.narrow(torch.cat(halves, 1))
        x = self._take(0)
        self._fuse(1, side, torch.ones(width), decoded[0], decoded[0], start, x)
        self._give(0, side)
        tail = self.tail[0]
        plane = (self.row_blocks[0] + tile.blocks + 2) * machine.lanes
        rows = self.sizes[0][0]
        beyond = 16 * plane  # that a last step of planes may read
        planes = torch.zeros((rows + 2) * width // group * plane + beyond, dtype=torch.int32)
        for number in range(1, LEVELS + 1):
            blocks = list(stage.get_submodule(f"CABG{number}").children())
            out, mean = self._blocks(0, blocks, x, more=x)
            self._give(0, x)
            chains = [stage.chain(side_name, number) for side_name in ("enc", "dec")]
            maps = []
            for chain, source in zip(
                chains, (encoded[number - 1], decoded[number - 1]), strict=True
            ):
                # the last step up is one with the fusion
                for level, up in zip(range(number - 1, 1, -1), chain[:-1], strict=False):
                    target = self._take(level - 1)
                    self._double(level, up, source, target, None)
                    self._give(level, source)
                    source = target
                maps.append(source)
            used = self.tiles[0 if number == 1 else 1]
            module: Any = stage.get_submodule(f"skff{number}")
            layout = self.layouts[0 if number == 1 else 1]
            fusion = pack_fusion(module, chains[0], chains[1], layout)
            self._weigh(fusion, mean, low_means[number - 1], high_means[number - 1])
            x = self._take(0)
            if number == 1:
                self._fuse(2, out, fusion.share, maps[0], maps[1], fusion.weights, x)
                self._give(0, out, *maps)
                continue
            is_last = number == LEVELS
            norm = stage.get_submodule(f"norm{min(number + 1, LEVELS)}")
            self.program.add(
                self.kernels.name(llvm_levels.fuse_double, width, used, last=is_last),
                [
                    out.data,
                    fusion.share,
                    maps[0].data,
                    maps[1].data,
                    fusion.weights,
                    norm.weight.detach().float(),
                    norm.bias.detach().float(),
                    tail,
                    planes if is_last else x.data,
                    plane,
                    self.row_blocks[1],
                    self.row_blocks[0],
                ],
                self._rows(1),
            )
            self._give(0, out)
            self._give(1, *maps)
        self._end(planes, plane)

    def _weigh(self, fusion: FusionWeights, mean: Tensor, low: Tensor, high: Tensor) -> None:
        """Add the step that makes a fusion's weights from the means of its maps."""
        f = fusion
        self.program.add(
            self.kernels.name(llvm_weights.weigh, self.config.width, f.expand.shape[1]),
            [
                mean,
                low,
                high,
                f.low_matrix,
                f.high_matrix,
                f.squeeze,
                f.expand,
                f.floor,
                f.share,
                len(f.low_matrix),
                len(f.high_matrix),
                f.plain,
                f.rows,
                f.weights,
                f.plain.numel(),
            ],
        )

    def _fuse(
        self, number: int, x: Map, share: Tensor, a: Map, b: Map, weights: Tensor, out: Map
    ) -> None:
        """Add a fusion at full resolution, with the LayerNorm of a group."""
        norm: Any = self.network.stage2.get_submodule(f"norm{number}")
        self.program.add(
            self.kernels.name(llvm_levels.fuse, self.config.width, self.tiles[0]),
            [
                x.data,
                share,
                a.data,
                b.data,
                weights,
                norm.weight.detach().float(),
                norm.bias.detach().float(),
                out.data,
            ],
            self._flat(0),
        )

    def _end(self, planes: Tensor, plane: int) -> None:
        machine, config = self.machine, self.config
        rows, row_blocks = self.sizes[0][0], self.row_blocks[0]
        patch = config.patch
        weight = self.network.ending.weight.detach()
        outputs = 4
        if patch == 1:
            weight = torch.cat([weight, torch.zeros_like(weight[:1])])
        elif machine.tiles:
            outputs = 12
        blocks = min(
            (5, 4, 3) if machine.registers > 16 else (3,), key=lambda t: -(-row_blocks // t) * t
        )
        tile = Tile(min(blocks, self.tiles[0].blocks), outputs)
        self.ending = self.program.add(
            self.kernels.name(
                llvm_images.convolve_to_picture, config.width // machine.group, patch, tile
            ),
            [
                planes,
                pack_planes(weight, Layout(machine, outputs)),
                0,
                plane,
                row_blocks,
                rows * patch,
                self.padded_width,
            ],
            self._rows(0),
        )

    def prepare(self, window: Window, *, are_folded: bool = False) -> Tensor:
        """Set what the next run of the program reads.

        Args:
            window: `[3, H, W]` each, of this size or smaller, see `LLVMEngine.residual`.
            are_folded: Whether the neighbours will be in their places, in their order.

        Returns:
            Where the residual will be, `[3, H, W]` with rows and columns beyond the picture.
        """
        frames = [self.black if frame is None else frame for frame in window]
        if are_folded:
            turn, slots = 0, self._place_middle(frames)
        else:
            turn, slots = self._place(frames)
        self.start[:, 1] = self.turns[turn].data_ptr()
        # beyond the last picture stands a black one
        pictures = [channel.data_ptr() for each in [*slots, self.black] for channel in each]
        self.folds[:, 0] = pictures[0 : 3 * len(slots) : self.fold_pictures]
        self.folds[:, 1] = pictures[1 : 3 * len(slots) + 1 : self.fold_pictures]
        result = torch.empty_like(self.window[0])
        self.ending[:, 2] = result.data_ptr()
        for index, frame in enumerate(frames):
            if not are_folded:
                self.known[(index + turn) % len(frames)] = weakref.ref(frame)
        return result

    def _place_middle(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Have the middle frame folded, and black ones; gives what is at each place.

        The others will be there, moved: no frame that comes will be one of them.
        """
        middle = frames[len(frames) // 2]
        self.known = [nothing] * len(frames)
        for index, frame in enumerate(frames):
            is_read = frame is middle or frame is self.black
            self.folds[3 * index : 3 * index + 3, -1] = self.sizes[0][0] if is_read else 0
        # what is not read is anything of that size
        return [
            self._room(index, frame if frame is self.black else middle)
            for index, frame in enumerate(frames)
        ]

    def _room(self, slot: int, frame: Tensor) -> Tensor:
        """A frame as the kernels read it: itself, or a copy of this plan's size."""
        room = self.window[slot]
        if frame.shape == room.shape and frame.dtype == torch.float32 and frame.is_contiguous():
            return frame
        room[:, : frame.shape[1], : frame.shape[2]] = frame
        return room

    def _place(self, frames: Sequence[Tensor]) -> tuple[int, list[Tensor]]:
        """Find places for frames among those of the last run; have only the new ones folded.

        Returns:
            By how many places the frames are turned, and what is at each place, `[3, H, W]`
            float32 of this plan's size (of those that are there already, anything of that kind).
        """
        count = len(frames)

        def known(turn: int) -> int:
            return sum(self.known[(i + turn) % count]() is each for i, each in enumerate(frames))

        turn = max(range(len(self.turns)), key=known)
        slots = list(self.window[:count])
        for index, frame in enumerate(frames):
            slot = (index + turn) % count
            is_new = self.known[slot]() is not frame or self.fold_pictures > 1
            if self.fold_pictures == 1:
                self.folds[3 * slot : 3 * slot + 3, -1] = self.sizes[0][0] if is_new else 0
            if not is_new:
                continue
            self.known[slot] = nothing  # until it is there
            slots[slot] = self._room(slot, frame)
        return turn, slots


def lane_count(threads: int, pixels: int) -> int:
    """How many pictures of a size are best worked on at the same time."""
    enough = _LANE_THREADS + _LANE_THREADS_OF_A_MILLION * pixels / 1e6
    least = min(2, threads) if pixels <= _MAX_PAIR_PIXELS else 1
    return max(least, min(math.ceil(threads / enough), _MAX_LANES_PIXELS // pixels))


class LLVMEngine:
    """The network on this processor. Not for several threads at once.

    Args:
        network: An MHNet on the CPU, which must not change any more.
        machine: What to make kernels for.
        threads: How many threads work; PyTorch's number if None.
        kernels: Those of an engine for that machine, to go on with.
    """

    def __init__(
        self,
        network: MHNet,
        machine: Machine,
        threads: int | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.network = network
        self.threads = threads or torch.get_num_threads()
        self.max_pixels = _MAX_PIXELS * machine.group // 2
        self._kernels = kernels or Kernels(machine)
        self._lanes: list[LLVMEngine] = []
        self._plans: dict[tuple[int, int], _Plan] = {}
        self._motions: dict[tuple[int, int], Motion] = {}
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def lanes(self, pixels: int) -> Sequence["LLVMEngine"]:
        """Engines that share this one's threads, each for a picture; this one where one is best.

        Threads that share a picture wait for each other after each of some 200 steps, and where a
        decoder or an encoder holds one up, all do: several pictures at a time take less time than
        one after the other, and more memory.
        """
        count = lane_count(self.threads, pixels)
        if count == 1:
            return (self,)
        if len(self._lanes) != count:
            share, more = divmod(self.threads, count)
            self._lanes = [
                LLVMEngine(
                    self.network, self._kernels.machine, share + (index < more), self._kernels
                )
                for index in range(count)
            ]
        return self._lanes

    @torch.inference_mode()
    def align(self, frames: Window) -> Window:
        """Move the neighbours to where the middle frame shows the same things.

        Args:
            frames: As for `residual`.

        Returns:
            As many, to be read before the next call; the middle frame is that one.

        Raises:
            ValueError: As for `align.middle_of`.
        """
        motion = self._motion(frames)
        return align_frames(frames) if motion is None else motion.run(frames, self._pool)

    @torch.inference_mode()
    def aligned_residual(self, frames: Window) -> Tensor:
        """The residual of frames that are aligned first.

        Args:
            frames: As for `residual`, as they are.

        Returns:
            `[3, H, W]` float32.

        Raises:
            ValueError: As for `align.middle_of`.
        """
        size = middle_of(frames).shape
        motion, plan = self._motion(frames), self._plan(*size[1:])
        is_whole = size == plan.window.shape[1:]
        if motion is None or not motion.folds or plan.folded is None or not is_whole:
            return self.residual(self.align(frames))
        # what is moved is needed nowhere else: it is folded where it is made
        residual = plan.prepare(frames, are_folded=True)
        held = motion.prepare(frames, plan.folded)
        motion.program.run_with(plan.program, self._pool)
        del held
        return residual

    def _motion(self, frames: Window) -> Motion | None:
        """The kernels for a window; None where there are none for its size, or nothing moves.

        Raises:
            ValueError: As for `align.middle_of`.
        """
        middle = middle_of(frames)
        height, width = middle.shape[1:]
        is_still = all(frame is None or frame is middle for frame in frames)
        if is_still or not fits(height, width, self._kernels.machine.lanes):
            return None
        motion = self._motions.pop((height, width), None)
        if motion is None:
            while len(self._motions) >= _PLANS:
                self._motions.pop(next(iter(self._motions)))
            with self._kernels.lock:
                motion = Motion(self._kernels, height, width, len(frames), self.threads)
        self._motions[height, width] = motion
        return motion

    @torch.inference_mode()
    def residual(self, frames: Window) -> Tensor:
        """What is to be added to the middle frame, as `MHNet.residual` gives it.

        Args:
            frames: As many as the network looks at, `[3, H, W]` float32 each; those whose sides
                are multiples of `network.config.multiple` are read where they are. A tensor that
                was given the last time must not have changed since: it is not read again.

        Returns:
            `[3, H, W]` float32.
        """
        height, width = middle_of(frames).shape[1:]
        plan = self._plan(height, width)
        residual = plan.prepare(frames)
        plan.program.run(self._pool)
        return residual[:, :height, :width]

    def _plan(self, height: int, width: int) -> _Plan:
        """The plan for pictures of a size."""
        plan = self._plans.pop((height, width), None)
        if plan is None:
            while len(self._plans) >= _PLANS:
                self._plans.pop(next(iter(self._plans)))
            multiple = self.network.config.multiple
            rows, columns = height + -height % multiple, width + -width % multiple
            with self._kernels.lock:
                plan = _Plan(self.network, self._kernels, rows, columns, self.threads)
        self._plans[height, width] = plan
        return plan
