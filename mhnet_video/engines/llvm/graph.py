"""The execution graph of the CPU engine: the whole network for one size of picture, as steps.

The plain network is the reference implementation. Here its passes are merged so that every map is
written once and read once or twice: LayerNorm, 1x1, depthwise and gate of a block are one pass and
the rest of it another; convolutions that follow each other without anything between them are one;
the fusion's weights are known before its maps are computed, because means pass through linear
layers, so that those maps are never stored at full resolution.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.engines.llvm.arena import Map, Resolution
from mhnet_video.engines.llvm.inputs import Inputs
from mhnet_video.engines.llvm.int8_weights import MOST_DIFFERENCE, error_shares, round_weights
from mhnet_video.engines.llvm.layers import Layers
from mhnet_video.engines.llvm.scheduler import Kernels, Program
from mhnet_video.engines.llvm.weight_packing import (
    Layout,
    matrix_of,
    pack_fusion,
    pack_int8,
    pack_planes,
    pack_winograd,
    picture_channels,
)
from mhnet_video.kernels import llvm_images, llvm_int8, llvm_levels, llvm_winograd
from mhnet_video.kernels.llvm_product import Tile, choose_winograd_tile
from mhnet_video.model.network import LEVELS, MHNet
from mhnet_video.model.window import Window


class Graph:
    """Everything for one size of picture: maps, and the program.

    Args:
        network: The network.
        kernels: The engine's kernels.
        height: Of the pictures, in pixels; a multiple of the network's.
        width: Likewise.
        threads: How many threads will run it.
    """

    def __init__(
        self, network: MHNet, kernels: Kernels, height: int, width: int, threads: int
    ) -> None:
        self._network, self._kernels, self._machine = network, kernels, kernels.machine
        self._config = config = network.config
        self.program = Program(kernels, threads)
        """What is run after `prepare`."""
        self._levels = [
            Resolution(
                self._machine,
                config.width * 2**level,
                height // config.patch // 2**level,
                width // config.patch // 2**level,
                int8=level > 0,  # at the highest resolution dry pictures would suffer
            )
            for level in range(LEVELS + 1)
        ]
        self._layers = Layers(self.program, kernels)
        self.inputs = Inputs(self.program, kernels, config, self._levels[0])
        self._turned: list[Tensor]
        """The first convolution's weights, by the number of slots that frames are rotated."""
        self._beginning: NDArray[np.void]
        """The calls of the first convolution."""
        self._ending: NDArray[np.void]
        """The calls of the last convolution."""
        self._build()
        self.program.finish()

    def prepare(self, window: Window, *, are_folded: bool = False) -> Tensor:
        """Set what the next run of the program reads.

        Args:
            window: `[3, H, W]` each, of this size or smaller, see `LLVMEngine.residual`.
            are_folded: Whether motion kernels fold the neighbours, without rotation.

        Returns:
            Where the residual will be, `[3, H, W]` with rows and columns beyond the picture.
        """
        # first: without memory for it nothing is run, and no frame is known
        result = torch.empty_like(self.inputs.window[0])
        self._ending["out"] = result.data_ptr()
        turn = self.inputs.prepare(window, are_folded=are_folded)
        self._beginning["w"] = self._turned[turn].data_ptr()
        return result

    def run(self, window: Window, pool: ThreadPoolExecutor | None) -> Tensor:
        """The residual of a window, `[3, H, W]` with rows and columns beyond the picture."""
        result = self.prepare(window)
        self.program.run(pool)
        return result

    # -- the network

    def _build(self) -> None:
        layers, levels = self._layers, self._levels
        stage: Any = self._network.stage1
        encoded: list[Map] = []
        decoded: list[Map] = []
        low_means: list[Tensor] = []
        high_means: list[Tensor] = []
        x, side = self._begin()
        for number in range(LEVELS):
            level, below = levels[number : number + 2]
            out, mean = layers.naf_blocks(level, list(stage.encoders[number]), x)
            level.release(x)
            encoded.append(out)
            low_means.append(mean)
            x = below.take()
            layers.halve(level, below, stage.downs[number], out, x)
        x = layers.attention(levels[LEVELS], stage.middle_blks, x)
        for index in range(LEVELS):
            number = LEVELS - 1 - index
            level, below = levels[number : number + 2]
            up = level.take()
            layers.double(below, level, stage.ups[index][0], x, up, encoded[number])
            x, mean = layers.naf_blocks(level, list(stage.decoders[index]), up)
            level.release(up)
            decoded.insert(0, x)
            high_means.insert(0, mean)
        x = self._fuse_first(side, decoded[0])
        self._refine(x, (encoded, decoded), (low_means, high_means))

    def _begin(self) -> tuple[Map, Map]:
        """Add the way from planes to the encoder's first map, and to the other hierarchy's."""
        network, machine, config = self._network, self._machine, self._config
        first, planes = self._levels[0], self.inputs.planes
        side = matrix_of(network.concat12)[:, : config.width]
        other = torch.einsum("mk,kcyx->mcyx", side, network.intro2.weight.double())
        weight = torch.cat([network.stage1.intro.weight.double(), other])
        patch, units = config.patch, torch.ones(len(weight))
        if self.inputs.are_int8:  # rounded once, so that frames look the same in every slot
            if config.glass:
                weight[:, -3 * patch * patch :] *= MOST_DIFFERENCE
            shares = error_shares(config.pictures, patch, glass=config.glass)
            weight, units = round_weights(weight, shares)
        turned = [
            picture_channels(weight.roll(3 * patch * patch * turn, 1), patch, machine.group)
            for turn in range(self.inputs.turns)
        ]
        intro: Any = network.stage1.intro
        bias = torch.zeros(2 * config.width)
        bias[: config.width] = intro.bias.detach()
        maps = first.take(), first.take()
        arguments: dict[str, Any] = {
            "planes": self.inputs.folded,
            "bias": bias,
            "out": maps[0].data,
            "side": maps[1].data,
            "plane": self.inputs.plane,
            "row_blocks": first.row_blocks,
        }
        if self.inputs.are_int8:
            tile, parts = first.tile, self._layers.rows(first)
            layout = Layout(machine, tile.outputs)
            self._turned = [pack_int8(each, layout) for each in turned]
            arguments["scales"] = (units / llvm_int8.LEVELS).float()
            make = llvm_int8.convolve_int8_to_maps
        elif machine.group == 1:  # in pairs of bfloat16 the transformed values would lose precision
            tile = choose_winograd_tile(machine, first.row_blocks)
            parts = self.program.parts(first.height // 4)
            each = 36 * tile.blocks * (planes + 2 * config.width) * machine.lanes
            self._turned = [pack_winograd(weight, tile.outputs) for weight in turned]
            arguments["spare"] = torch.zeros(len(parts), each).unbind()
            make = llvm_winograd.winograd_to_maps
        else:
            tile, parts = first.tile, self._layers.rows(first)
            if machine.tiles:
                # rows one pixel off are loaded in halves: two tiles of weights share them
                tile = Tile(2, 2 * tile.outputs)
            layout = Layout(machine, tile.outputs)
            self._turned = [pack_planes(weight, layout) for weight in turned]
            make = llvm_images.convolve_to_maps
        kernel = self._kernels.kernel(make, planes, config.width, tile)
        self._beginning = self.program.add(kernel, parts, w=self._turned[0], **arguments)
        return maps

    def _fuse_first(self, side: Map, decoded: Map) -> Map:
        """Add the full-resolution net's first convolution."""
        level, width = self._levels[0], self._config.width
        stage: Any = self._network.stage2
        matrix = matrix_of(self._network.concat12)[:, width:]
        halves = [level.layout.pack(each) for each in (matrix, torch.zeros_like(matrix))]
        weights = level.layout.narrow(torch.cat(halves, 1))
        x = level.take()
        maps = decoded, decoded
        self._layers.fuse(level, stage.norm1, side, torch.ones(width), maps, weights, x)
        level.release(side)
        return x

    def _refine(
        self,
        x: Map,
        hierarchies: tuple[list[Map], list[Map]],
        means: tuple[list[Tensor], list[Tensor]],
    ) -> None:
        """Add the full-resolution net and the last convolution.

        Args:
            x: Its first map.
            hierarchies: The encoder's and the decoder's maps, from the highest resolution on.
            means: Their means.
        """
        layers, level = self._layers, self._levels[0]
        stage: Any = self._network.stage2
        plane = self.inputs.plane
        inputs = self._config.width // self._machine.group
        beyond = 16 * plane  # that a last step of planes may read
        planes = torch.zeros((level.height + 2) * inputs * plane + beyond, dtype=torch.int32)
        for number in range(1, LEVELS + 1):
            blocks = list(stage.get_submodule(f"CABG{number}").children())
            out, mean = layers.naf_blocks(level, blocks, x, more=x)
            level.release(x)
            chains = [stage.chain(side, number) for side in ("enc", "dec")]
            maps = [
                self._rise(chain, number, each[number - 1])
                for chain, each in zip(chains, hierarchies, strict=True)
            ]
            used = self._levels[0 if number == 1 else 1]
            module: Any = stage.get_submodule(f"skff{number}")
            fusion = pack_fusion(module, chains[0], chains[1], used.layout)
            layers.weigh(level, fusion, mean, *(each[number - 1] for each in means))
            norm = stage.get_submodule(f"norm{min(number + 1, LEVELS)}")
            x = level.take()
            if number == 1:
                layers.fuse(level, norm, out, fusion.share, maps, fusion.weights, x)
                level.release(out, *maps)
                continue
            is_last = number == LEVELS
            self.program.add(
                self._kernels.kernel(
                    llvm_levels.fuse_double, level.channels, used.tile, last=is_last
                ),
                layers.rows(used),
                x=out.data,
                share=fusion.share,
                a=maps[0].data,
                b=maps[1].data,
                w=fusion.weights,
                gain=norm.weight.detach().float(),
                shift=norm.bias.detach().float(),
                tail=level.tail,
                out=planes if is_last else x.data,
                plane=plane,
                small_blocks=used.row_blocks,
                large_blocks=level.row_blocks,
            )
            level.release(out)
            used.release(*maps)
        self._end(planes)

    def _rise(self, chain: Any, number: int, source: Map) -> Map:
        """Add a map's way up to the resolution at which it is fused."""
        # the last step up is one with the fusion
        for at, up in zip(range(number - 1, 1, -1), chain[:-1], strict=False):
            level, above = self._levels[at], self._levels[at - 1]
            target = above.take()
            self._layers.double(level, above, up, source, target, None)
            level.release(source)
            source = target
        return source

    def _end(self, planes: Tensor) -> None:
        """Add the last convolution."""
        machine, config, level = self._machine, self._config, self._levels[0]
        patch = config.patch
        weight = self._network.ending.weight.detach()
        outputs = 4
        if patch == 1:
            weight = torch.cat([weight, torch.zeros_like(weight[:1])])
        elif machine.tiles:
            outputs = 12
        blocks = min(
            (5, 4, 3) if machine.registers > 16 else (3,),
            key=lambda t: -(-level.row_blocks // t) * t,
        )
        tile = Tile(min(blocks, level.tile.blocks), outputs)
        inputs = config.width // machine.group
        self._ending = self.program.add(
            self._kernels.kernel(llvm_images.convolve_to_picture, inputs, patch, tile),
            self._layers.rows(level),
            planes=planes,
            w=pack_planes(weight, Layout(machine, outputs)),
            out=0,
            plane=self.inputs.plane,
            row_blocks=level.row_blocks,
            height=level.height * patch,
            width=self.inputs.padded_width,
        )
