"""The CPU engine: the whole network from kernels made for this processor when it starts.

The plain network is the meaning. Here its passes are merged so that every map is written once and
read once or twice: LayerNorm, 1x1, depthwise and gate of a block are one pass and the rest of it
another; convolutions that follow each other without anything between them are one; the fusion's
weights are known before its maps are computed, because means pass through linear layers, so that
those maps are never stored at full resolution.
"""

import ctypes
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.kernels import llvm_blocks, llvm_images
from mhnet_video.kernels.llvm_blocks import Tile, choose_tile
from mhnet_video.kernels.llvm_ir import Emitter, Library, Machine
from mhnet_video.network import LEVELS, MHNet, SelectiveAttention
from mhnet_video.packing import (
    BlockWeights,
    FusionWeights,
    matrix_of,
    narrow,
    pack,
    pack_block,
    pack_double,
    pack_halve,
    pack_planes,
    picture_channels,
)

_SPARE_BLOCKS = 16
"""Blocks behind the end of every map that the last tile may touch."""


_PLANS = 2
"""Sizes of pictures for which maps are kept."""


class _Map:
    """Room for a map of C channels."""

    def __init__(self, machine: Machine, channels: int, height: int, width: int) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.lanes, self.group = machine.lanes, machine.group
        self.row_blocks = -(-width // machine.lanes)
        self.blocks = height * self.row_blocks
        size = channels // machine.group * machine.lanes
        self.data = torch.zeros((self.blocks + _SPARE_BLOCKS) * size, dtype=torch.int32)

    def _view(self) -> Tensor:
        """`[rows, blocks, C / G, L, G]`."""
        kind = torch.bfloat16 if self.group == 2 else torch.float32
        size = self.channels // self.group * self.lanes
        used = self.data[: self.blocks * size].view(kind)
        return used.view(self.height, self.row_blocks, -1, self.lanes, self.group)

    def write_rows(self, rows: Tensor) -> None:
        """Take `[C, H * blocks * L]`, what lies beyond the picture included."""
        shape = (-1, self.group, self.height, self.row_blocks, self.lanes)
        self._view().copy_(rows.reshape(shape).permute(2, 3, 0, 4, 1))

    def mask(self) -> Tensor:
        """All ones at the elements inside the picture."""
        lanes = torch.arange(self.row_blocks * self.lanes) < self.width
        inside = torch.zeros((self.blocks + _SPARE_BLOCKS) * self.lanes, dtype=torch.int32)
        inside[: self.blocks * self.lanes] = -lanes.int().repeat(self.height)
        return inside


class _Step:
    """A kernel with its arguments, run on parts of a map by several threads."""

    def __init__(
        self,
        function: Callable[..., None],
        arguments: Sequence[Tensor | int],
        parts: Sequence[tuple[int, int]],
        private: Sequence[dict[int, Tensor]] = (),
    ) -> None:
        """Freeze the arguments.

        Args:
            function: The kernel; its last two arguments are the part's first and its end.
            arguments: The others.
            parts: Parts that may run at the same time.
            private: For each part, arguments of its own, by their index.
        """
        self.function = function
        self.held = (arguments, private)
        self.calls = []
        for index, (first, end) in enumerate(parts):
            given = list(arguments)
            for place, value in private[index].items() if private else ():
                given[place] = value
            frozen: list[object] = [
                ctypes.c_void_p(each.data_ptr())
                if isinstance(each, Tensor)
                else ctypes.c_int64(each)
                for each in (*given, first, end)
            ]
            self.calls.append(frozen)

    def run(self, pool: ThreadPoolExecutor | None) -> None:
        """Run all parts."""
        if pool is None or len(self.calls) == 1:
            for call in self.calls:
                self.function(*call)
            return
        waiting = [pool.submit(self.function, *call) for call in self.calls[1:]]
        self.function(*self.calls[0])
        for each in waiting:
            each.result()


class _Launch(NamedTuple):
    """A kernel that is not compiled yet, and what `_Step` wants."""

    name: str
    arguments: Sequence[Tensor | int]
    parts: list[tuple[int, int]]
    private: Sequence[dict[int, Tensor]]


def _nothing(pool: ThreadPoolExecutor | None) -> None:
    """Stand in for a step to come."""


class _Plan:
    """Everything for one size of picture: kernels, maps, and the steps in their order."""

    def __init__(
        self,
        network: MHNet,
        machine: Machine,
        height: int,
        width: int,
        threads: int,
        functions: dict[str, Callable[..., None]],
    ) -> None:
        """Plan.

        Args:
            network: The network.
            machine: What the kernels are made for.
            height: Of the pictures, in pixels; a multiple of the network's.
            width: Likewise.
            threads: How many parts every map is cut into.
            functions: The kernels that are compiled already; new ones are added.
        """
        self.network, self.machine, self.threads = network, machine, threads
        self.config = config = network.config
        self.emitters: dict[str, Emitter] = {}
        self.steps: list[Callable[[ThreadPoolExecutor | None], None]] = []
        self.functions = functions
        self.folds: list[_Step] = []
        """The steps that read the pictures."""
        self._later: dict[int, _Launch] = {}
        self._folds: set[int] = set()
        patch = config.patch
        self.sizes = [
            (height // patch // 2**level, width // patch // 2**level) for level in range(LEVELS + 1)
        ]
        self.widths = [config.width * 2**level for level in range(LEVELS + 1)]
        self.row_blocks = [-(-w // machine.lanes) for _, w in self.sizes]
        self.tiles = [
            choose_tile(machine, blocks, group_outputs=2 * machine.group)
            for blocks in self.row_blocks
        ]
        self._masks = [self._map(level, machine.group).mask() for level in range(LEVELS)]
        self.tail = [self._tail(level) for level in range(LEVELS)]
        self._spare_maps = [
            [self._map(level, self.widths[level]) for _ in range(3)] for level in range(LEVELS)
        ]
        self._build(height, width)
        if self.emitters:
            functions.update(Library(machine, list(self.emitters.values())).functions)
        for index, launch in self._later.items():
            step = _Step(functions[launch.name], launch.arguments, launch.parts, launch.private)
            if index in self._folds:
                self.folds.append(step)
            self.steps[index] = step.run
        self._later.clear()

    # -- plumbing

    def _map(self, level: int, channels: int) -> _Map:
        return _Map(self.machine, channels, *self.sizes[level])

    def _tail(self, level: int) -> Tensor:
        lanes = self.machine.lanes
        inside = self.sizes[level][1] - (self.row_blocks[level] - 1) * lanes
        return -(torch.arange(lanes) < inside).int()

    def _kernel(self, make: Callable[..., Emitter], *arguments: object, **options: object) -> str:
        name = "_".join(
            [make.__name__]
            + [
                f"{each.blocks}x{each.outputs}" if isinstance(each, Tile) else str(each)
                for each in (*arguments, *(int(bool(value)) for value in options.values()))
            ]
        )
        if name not in self.emitters and name not in self.functions:
            self.emitters[name] = make(self.machine, name, *arguments, **options)
        return name

    def _launch(
        self,
        name: str,
        arguments: Sequence[Tensor | int],
        parts: list[tuple[int, int]],
        private: Sequence[dict[int, Tensor]] = (),
    ) -> None:
        """Add a kernel to the steps; it is compiled when all are known."""
        self._later[len(self.steps)] = _Launch(name, arguments, parts, private)
        self.steps.append(_nothing)

    def _rows(self, count: int) -> list[tuple[int, int]]:
        parts = min(self.threads, count)
        edges = [count * part // parts for part in range(parts + 1)]
        return list(itertools.pairwise(edges))

    def _flat(self, level: int) -> list[tuple[int, int]]:
        """Parts of all blocks of a level, cut between tiles."""
        blocks = self.sizes[level][0] * self.row_blocks[level]
        tile = self.tiles[level].blocks
        return [
            (first * tile, min(end * tile, blocks)) for first, end in self._rows(-(-blocks // tile))
        ]

    def _sums(self, level: int, parts: int) -> Tensor:
        return torch.zeros(parts, self.widths[level], self.machine.lanes)

    # -- parts of the network

    def _block(
        self, level: int, weights: BlockWeights, x: _Map, out: _Map, more: _Map | None
    ) -> Tensor:
        """Add a NAFBlock; gives its result's sums."""
        machine, tile = self.machine, self.tiles[level]
        channels, row_blocks = self.widths[level], self.row_blocks[level]
        height = self.sizes[level][0]
        gated = self._spare_maps[level][2]
        parts = self._rows(height)
        sums = self._sums(level, len(parts))
        ring = torch.zeros(
            len(parts), 3 * 2 * channels * (row_blocks + tile.blocks) * machine.lanes
        )
        spare = torch.zeros(len(parts), row_blocks * machine.lanes)
        w = weights
        self._launch(
            self._kernel(llvm_blocks.block_front, channels, tile),
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
        num_pixels = height * self.sizes[level][1]
        self.steps.append(lambda pool: w.attend(sums, num_pixels))
        flat = self._flat(level)
        totals = self._sums(level, len(flat))
        self._launch(
            self._kernel(llvm_blocks.block_back, channels, tile, twice=more is not None),
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
        return totals

    def _blocks(
        self,
        level: int,
        blocks: Sequence[Any],
        x: _Map,
        out: _Map,
        more: _Map | None = None,
    ) -> Tensor:
        """Add NAFBlocks, and at the end another map; gives the result's mean."""
        mean = torch.zeros(self.widths[level])
        for index, block in enumerate(blocks):
            is_last = index == len(blocks) - 1
            target = out if is_last else self._spare_maps[level][index % 2]
            weights = pack_block(block, self.tiles[level].outputs, self.machine.group)
            totals = self._block(level, weights, x, target, more if is_last else None)
            x = target
        self._average(totals, level, mean)
        return mean

    def _average(self, totals: Tensor, level: int, mean: Tensor) -> None:
        """Add the step from the sums of a map to its mean."""
        num_pixels = self.sizes[level][0] * self.sizes[level][1]

        def average(pool: ThreadPoolExecutor | None) -> None:
            torch.sum(totals, (0, 2), out=mean)
            mean.div_(num_pixels)
            totals.zero_()

        self.steps.append(average)

    def _double(
        self, level: int, convolution: torch.nn.Module, x: _Map, out: _Map, skip: _Map | None
    ) -> None:
        """Add a step up from a level."""
        tile = self.tiles[level]
        name = self._kernel(llvm_blocks.double, self.widths[level], tile, skip=skip is not None)
        weights = pack_double(convolution, tile.outputs, self.machine.group)
        self._launch(
            name,
            [
                x.data,
                weights,
                (skip or out).data,
                out.data,
                self.row_blocks[level],
                self.row_blocks[level - 1],
            ],
            self._rows(self.sizes[level][0]),
        )

    def _halve(self, level: int, convolution: Any, x: _Map, out: _Map) -> None:
        """Add a step down from a level."""
        tile = self.tiles[level + 1]
        self._launch(
            self._kernel(llvm_blocks.halve, self.widths[level], tile),
            [
                x.data,
                pack_halve(convolution, tile.outputs, self.machine.group),
                convolution.bias.detach().float().contiguous(),
                out.data,
                self.row_blocks[level],
                self.row_blocks[level + 1],
            ],
            self._rows(self.sizes[level + 1][0]),
        )

    # -- the network

    def _build(self, height: int, width: int) -> None:
        network = self.network
        first, side = self._begin(height, width)
        encoded: list[_Map] = []
        decoded: list[_Map] = []
        low_means: list[Tensor] = []
        high_means: list[Tensor] = []
        x = first
        stage: Any = network.stage1
        for level in range(LEVELS):
            out = self._map(level, self.widths[level])
            mean = self._blocks(level, list(stage.encoders[level]), x, out)
            encoded.append(out)
            low_means.append(mean)
            x = self._map(level + 1, self.widths[level + 1])
            self._halve(level, stage.downs[level], out, x)
        x = self._attend(stage.middle_blks, x)
        for index in range(LEVELS):
            level = LEVELS - 1 - index
            # the last spare map is the blocks' own, the first the first block's result
            up = self._spare_maps[level][1]
            self._double(level + 1, stage.ups[index][0], x, up, encoded[level])
            x = self._map(level, self.widths[level])
            mean = self._blocks(level, list(stage.decoders[index]), up, x)
            decoded.insert(0, x)
            high_means.insert(0, mean)
        self._refine(side, encoded, decoded, low_means, high_means)

    def _attend(self, attention: Any, x: _Map) -> _Map:
        """Add the selective attention at the bottom, which has few pixels and many channels."""
        if [type(each) for each in attention] != [SelectiveAttention]:
            raise ValueError(f"expected one attention, got {attention}")
        module, machine = attention[0], self.machine
        channels, group = x.channels, machine.group
        tile = self.tiles[LEVELS]
        plane = (x.blocks + tile.blocks) * machine.lanes
        projected, mixed = (torch.zeros(3 * channels, plane) for _ in range(2))
        weights = narrow(pack(matrix_of(module.qkv), tile.outputs, group), group)
        self._launch(
            self._kernel(llvm_images.project, channels, tile),
            [x.data, weights, projected, 3 * channels, plane],
            self._flat(LEVELS),
        )
        parts = self._rows(3 * channels)
        spare = torch.zeros(len(parts), (x.height + 2) * (x.row_blocks + 2) * machine.lanes)
        self._launch(
            self._kernel(llvm_images.depthwise),
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
        out = self._map(LEVELS, channels)
        queries, keys, values = mixed[:, : x.blocks * machine.lanes].chunk(3)
        heads = module.heads
        split = (heads, channels // heads, -1)
        last = matrix_of(module.project_out).float().reshape(channels, heads, -1).transpose(0, 1)
        kind = torch.bfloat16 if group == 2 else torch.float32

        def attend(pool: ThreadPoolExecutor | None) -> None:
            # zero beyond the picture, so that sums over all elements are those over its pixels
            q = F.normalize(queries.reshape(split), dim=-1)
            k = F.normalize(keys.reshape(split), dim=-1)
            combined = module.combine(torch.bmm(q, k.transpose(1, 2))[None] * module.temperature)
            # what the values go through is linear: one matrix
            matrix = torch.bmm(last, combined[0]).transpose(0, 1).reshape(channels, channels)
            out.write_rows(torch.mm(matrix.to(kind), values.to(kind)))

        self.steps.append(attend)
        return out

    def _begin(self, height: int, width: int) -> tuple[_Map, _Map]:
        """Add the pictures' way to the encoder's first map, and to the other hierarchy's."""
        network, machine, config = self.network, self.machine, self.config
        tile, patch, group = self.tiles[0], config.patch, machine.group
        rows, row_blocks = self.sizes[0][0], self.row_blocks[0]
        pictures = 3 * config.frames
        per_picture = patch * patch // group if patch == 2 else 1
        planes = pictures * per_picture if patch == 2 else -(-pictures // group)
        self.padded_width = row_blocks * machine.lanes * patch
        self.window = torch.zeros(pictures + 1, height, self.padded_width)
        plane = (row_blocks + tile.blocks + 2) * machine.lanes
        folded = torch.zeros((rows + 2) * planes * plane, dtype=torch.int32)
        name = self._kernel(llvm_images.fold, patch)
        for index in range(0, pictures, group if patch == 1 else 1):
            self._folds.add(len(self.steps))
            self._launch(
                name,
                [
                    self.window[index],
                    self.window[index + 1],
                    folded[index // (group if patch == 1 else 1) * per_picture * plane :],
                    self.padded_width,
                    plane,
                    planes * plane,
                    row_blocks,
                ],
                self._rows(rows),
            )
        side = matrix_of(network.concat12)[:, : config.width]
        other = torch.einsum("mk,kcyx->mcyx", side, network.intro2.weight.double())
        weight = torch.cat([network.stage1.intro.weight.double(), other])
        weight = picture_channels(weight, patch, group)
        intro: Any = network.stage1.intro
        bias = torch.zeros(2 * config.width)
        bias[: config.width] = intro.bias.detach()
        first, second = (self._map(0, config.width) for _ in range(2))
        self._launch(
            self._kernel(llvm_images.convolve_to_maps, planes, config.width, tile),
            [
                folded,
                pack_planes(weight, tile.outputs, group),
                bias,
                first.data,
                second.data,
                plane,
                row_blocks,
            ],
            self._rows(rows),
        )
        return first, second

    def _refine(
        self,
        side: _Map,
        encoded: list[_Map],
        decoded: list[_Map],
        low_means: list[Tensor],
        high_means: list[Tensor],
    ) -> None:
        """Add the full-resolution net and the last convolution."""
        network, machine, config = self.network, self.machine, self.config
        group, width, tile = machine.group, config.width, self.tiles[0]
        stage: Any = network.stage2
        matrix = matrix_of(network.concat12)[:, width:]
        start = narrow(
            pack(torch.cat([matrix, torch.zeros_like(matrix)], 1), tile.outputs, group), group
        )
        x, out = (self._map(0, width) for _ in range(2))
        self._fuse(1, side, torch.ones(width), decoded[0], decoded[0], start, x)
        tail = self.tail[0]
        plane = (self.row_blocks[0] + tile.blocks + 2) * machine.lanes
        rows = self.sizes[0][0]
        planes = torch.zeros((rows + 2) * width // group * plane, dtype=torch.int32)
        for number in range(1, LEVELS + 1):
            blocks = list(stage.get_submodule(f"CABG{number}").children())
            mean = self._blocks(0, blocks, x, out, more=x)
            steps = number - 1
            chains, maps = [], []
            for side_name, source, last in (
                ("enc", encoded[number - 1], stage.get_submodule(f"conv_enc{number}")),
                ("dec", decoded[number - 1], stage.conv_dnc1),
            ):
                ups: list[Any] = []
                if steps == 1:
                    ups = [stage.get_submodule(f"up_{side_name}1").up[0]]
                elif steps > 1:
                    chain = stage.get_submodule(f"up_{side_name}{steps}")
                    ups = [each.up[0] for each in chain.children()]
                for level, up in zip(range(steps, 1, -1), ups, strict=False):
                    target = self._map(level - 1, self.widths[level - 1])
                    self._double(level, up, source, target, None)
                    source = target
                chains.append([*ups, last])
                maps.append(source)
            used = self.tiles[0 if number == 1 else 1]
            fusion = FusionWeights(
                stage.get_submodule(f"skff{number}"),
                chains[0],
                chains[1],
                used.outputs,
                group,
            )
            self._weigh(fusion, mean, low_means[number - 1], high_means[number - 1])
            if number == 1:
                self._fuse(2, out, fusion.share, maps[0], maps[1], fusion.weights, x)
                continue
            is_last = number == LEVELS
            norm = stage.get_submodule(f"norm{min(number + 1, LEVELS)}")
            self._launch(
                self._kernel(llvm_blocks.fuse_double, width, used, last=is_last),
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
                self._rows(self.sizes[1][0]),
            )
        self._end(planes, plane)

    def _weigh(self, fusion: FusionWeights, mean: Tensor, low: Tensor, high: Tensor) -> None:
        self.steps.append(lambda pool: fusion.weigh(mean, low, high))

    def _fuse(
        self, number: int, x: _Map, share: Tensor, a: _Map, b: _Map, weights: Tensor, out: _Map
    ) -> None:
        """Add a fusion at full resolution, with the LayerNorm of a group."""
        norm: Any = self.network.stage2.get_submodule(f"norm{number}")
        self._launch(
            self._kernel(llvm_blocks.fuse, self.config.width, self.tiles[0]),
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
        blocks = min(
            (5, 4, 3) if machine.registers > 16 else (2, 3), key=lambda t: -(-row_blocks // t) * t
        )
        tile = Tile(min(blocks, self.tiles[0].blocks), outputs)
        self.residual = torch.zeros(3, rows * patch, self.padded_width)
        self._launch(
            self._kernel(
                llvm_images.convolve_to_picture, config.width // machine.group, patch, tile
            ),
            [
                planes,
                pack_planes(weight, outputs, machine.group),
                self.residual,
                plane,
                row_blocks,
                rows * patch,
                self.padded_width,
            ],
            self._rows(rows),
        )

    def run(self, window: Tensor, pool: ThreadPoolExecutor | None) -> Tensor:
        """The residual of a window of this size or smaller, valid until the next run.

        Args:
            window: `[3 * frames, H, W]`.
            pool: Threads besides this one.

        Returns:
            `[3, H, W]` with rows and columns beyond the picture.
        """
        source = window.contiguous()
        direct = source.shape[1:] == self.window.shape[1:] and source.dtype == torch.float32
        if not direct:
            self.window[:-1, : window.shape[1], : window.shape[2]] = window
            source = self.window
        size = source[0].numel() * source.element_size()
        step_size = len(window) // len(self.folds) if len(window) == len(self.folds) else 2
        for number, step in enumerate(self.folds):
            index = number * step_size
            # beyond the last picture stands one of zeros
            other = source[index + 1] if index + 1 < len(window) else self.window[-1]
            for call in step.calls:
                call[0] = ctypes.c_void_p(source.data_ptr() + index * size)
                call[1] = ctypes.c_void_p(other.data_ptr())
        for each in self.steps:
            each(pool)
        return self.residual


class LLVMEngine:
    """The network on this processor. Not for several threads at once.

    Args:
        network: An MHNet on the CPU, which must not change any more.
        machine: What to make kernels for.
        threads: How many threads work; PyTorch's number if None.
    """

    def __init__(self, network: MHNet, machine: Machine, threads: int | None = None) -> None:
        self.network, self.machine = network, machine
        self.threads = threads or torch.get_num_threads()
        self._functions: dict[str, Callable[..., None]] = {}
        self._plans: dict[tuple[int, int], _Plan] = {}
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    @torch.inference_mode()
    def residual(self, window: Tensor) -> Tensor:
        """What is to be added to the middle picture, as `MHNet.residual` gives it.

        Args:
            window: `[1, 3 * frames, H, W]` float32.

        Returns:
            `[1, 3, H, W]` float32.
        """
        height, width = window.shape[-2:]
        plan = self._plans.pop((height, width), None)
        if plan is None:
            while len(self._plans) >= _PLANS:
                self._plans.pop(next(iter(self._plans)))
            multiple = self.network.config.multiple
            plan = _Plan(
                self.network,
                self.machine,
                height + -height % multiple,
                width + -width % multiple,
                self.threads,
                self._functions,
            )
        self._plans[height, width] = plan
        result = plan.run(window[0], self._pool)
        return result[None, :, :height, :width].clone()
