"""The GPU engine: the whole network in Triton kernels, with one execution graph for each size.

`MHNet` is the reference implementation. Here its passes are fused as on the CPU. A block is two or
three kernels, and successive convolutions are one. The fusion's weights come from the means of its
maps' inputs, so that those maps are never stored at full resolution. On a GPU the kernels of a size
are recorded in a CUDA graph, because launching them one by one takes longer than running them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mhnet_video.engines.triton.autotune import fastest_front
from mhnet_video.engines.triton.cuda_graph import recorded
from mhnet_video.engines.triton.programs import compile_programs
from mhnet_video.engines.triton.weight_packing import (
    BlockMaps,
    Front,
    FusionMaps,
    MapType,
    NetworkMaps,
)
from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.memory import give_back_device_memory
from mhnet_video.model.align import align_frames
from mhnet_video.model.network import LEVELS, MHNet
from mhnet_video.model.window import Window, stacked

MAX_ELEMENTS = 2**31 - 1
"""Most elements of one picture's map: kernels count them in 32 bits."""

_MAX_GRAPHS = 3
"""Sizes of pictures for which graphs are kept: the self-ensemble uses as many."""


class ExecutionGraph:
    """Execution graph for pictures of one size: buffers, and the steps in their order.

    Args:
        maps: The network's weights.
        batch: Windows at once.
        height: Of the pictures, in pixels; a multiple of the network's.
        width: Likewise.

    Raises:
        torch.OutOfMemoryError: The buffers do not fit the device, or the kernels.
    """

    input: Tensor
    """`[batch, height / patch, width / patch, maps.input_channels]`, to be filled before a run. Its
    channels stand as those of `F.pixel_unshuffle`; those behind them are zero and stay so."""
    residual: Tensor
    """`[batch, 3, height, width]` float32, the result of a run."""

    def __init__(self, maps: NetworkMaps, batch: int, height: int, width: int) -> None:
        self.maps, self.batch = maps, batch
        self.map_type = maps.map_type
        config = maps.config
        self.sizes = [
            (height // config.patch // 2**level, width // config.patch // 2**level)
            for level in range(LEVELS + 1)
        ]
        self.widths = [config.width * 2**level for level in range(LEVELS + 1)]
        channels = maps.input_channels
        rows, columns = self.sizes[0]
        if rows * columns * max(channels, 2 * config.width) > MAX_ELEMENTS:
            raise torch.OutOfMemoryError(f"pictures of {width}x{height} are too large for a map")
        self._steps: list[tuple[str, partial[Any]]] = []
        self._part = ""
        self._free: dict[tuple[int, ...], list[Tensor]] = {}
        self._sums: dict[tuple[int, ...], Tensor] = {}
        self._partial: dict[tuple[int, ...], Tensor] = {}
        self._statistics: dict[tuple[int, int], Tensor] = {}
        # every step that counts its programs leaves zeros to the next one
        self._done = torch.zeros(batch, dtype=torch.int32, device=maps.map_type.device)
        self.input = self._new(0, channels).zero_()
        self.residual = self._exact(batch, 3, height, width)
        self._build()

    @torch.inference_mode()
    def run(self) -> None:
        """Compute `residual` from `input`."""
        for _, step in self._steps:
            step()

    def parts(self) -> list[tuple[str, partial[Any]]]:
        """The steps in their order, each with the part of the network that it belongs to."""
        return list(self._steps)

    # -- buffers

    def _new(self, level: int, channels: int) -> Tensor:
        size = (self.batch, *self.sizes[level], channels)
        return torch.empty(size, dtype=self.map_type.dtype, device=self.map_type.device)

    def _exact(self, *size: int) -> Tensor:
        return torch.empty(size, dtype=torch.float32, device=self.map_type.device)

    def _take(self, level: int, channels: int) -> Tensor:
        """A map that no later step reads."""
        free = self._free.get((*self.sizes[level], channels))
        return free.pop() if free else self._new(level, channels)

    def _statistics_of(self, level: int, number: int, out: Tensor) -> Tensor:
        """A buffer for statistics of maps of a level, which are read before the next are there."""
        made = self._statistics.get((level, number))
        if made is None:
            made = self._statistics[level, number] = map_ops.linear_statistics_room(out)
        return made

    def _give(self, used: Tensor) -> None:
        """Release a map to the steps that follow."""
        self._free.setdefault(tuple(used.shape[1:]), []).append(used)

    def _sums_for(self, make: Callable[[Tensor], Tensor], out: Tensor) -> Tensor:
        """A buffer for partial sums, which are reduced before the next ones are written."""
        sums = make(out)
        return self._sums.setdefault(tuple(sums.shape), sums)

    def _add(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self._steps.append((self._part, partial(operation, *arguments, **options)))

    def _mean(self, sums: Tensor, level: int) -> Tensor:
        """Add the step from partial sums of a map to its mean, `[batch, C]`."""
        mean = self._exact(self.batch, sums.shape[2])
        room = self._room(map_ops.mean_room, sums)
        self._add(map_ops.mean, sums, self._pixels(level), room=room, out=mean)
        return mean

    def _room(
        self, make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], sums: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Room for the step that reduces partial sums."""
        partial_sums, done = make(sums, self._done)
        return self._partial.setdefault(tuple(partial_sums.shape), partial_sums), done

    def _pixels(self, level: int) -> int:
        """Pixels of a level's maps."""
        rows, columns = self.sizes[level]
        return rows * columns

    # -- parts of the network

    def _block(
        self,
        level: int,
        weights: BlockMaps,
        x: Tensor,
        out: Tensor,
        more: Tensor | None,
        is_summed: bool,
        statistics: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Add a NAFBlock.

        Args:
            level: The level.
            weights: The block's.
            x: Its input.
            out: Where its result goes.
            more: A map to add to it.
            is_summed: Whether partial sums of the result are wanted.
            statistics: Of the input, for its LayerNorm; None if no step has put them there.

        Returns:
            The partial sums of the result if they are wanted; its statistics if they are not, and
            the block has more channels than `block_back` takes.
        """
        channels = self.widths[level]
        gated = self._take(level, channels)
        if weights.front == "dense" and weights.dense is not None:
            sums = self._sums_for(map_ops.block_front_sums, gated)
            self._add(map_ops.block_front, x, *weights.dense, sums=sums, out=gated)
        elif weights.front == "rows":
            sums = self._sums_for(map_ops.block_front_rows_sums, gated)
            given = (*weights.first, *weights.depthwise)
            self._add(map_ops.block_front_rows, x, *given, sums=sums, out=gated)
        else:
            expanded = self._take(level, 2 * channels)
            self._add(
                map_ops.linear,
                x,
                *weights.first,
                norm=True,
                weight_sums=weights.first_sums,
                statistics=statistics,
                out=expanded,
            )
            sums = self._sums_for(map_ops.depthwise_sums, gated)
            self._add(
                map_ops.depthwise, expanded, *weights.depthwise, gate=True, sums=sums, out=gated
            )
            self._give(expanded)
        gain = self._exact(self.batch, channels)
        room = self._room(map_ops.attend_room, sums)
        self._add(
            map_ops.attend, sums, self._pixels(level), *weights.attention, room=room, out=gain
        )
        if map_ops.block_back_fits(channels, self.map_type.dtype):
            total = self._sums_for(map_ops.block_back_sums, out) if is_summed else None
            self._add(
                map_ops.block_back, gated, x, gain, weights.back, more=more, sums=total, out=out
            )
            self._give(gated)
            return total, None
        w3, b3, w4, b4, w5, b5 = weights.back
        middle = self._take(level, channels)
        described = self._statistics_of(level, 0, middle)
        self._add(
            map_ops.linear,
            gated,
            w3,
            b3,
            gain=gain,
            residuals=(x,),
            statistics_out=described,
            out=middle,
        )
        self._add(
            map_ops.linear,
            middle,
            w4,
            b4,
            norm=True,
            weight_sums=weights.fourth_sums,
            statistics=described,
            gate=True,
            out=gated,
        )
        residuals = (middle,) if more is None else (middle, more)
        total = self._sums_for(map_ops.linear_sums, out) if is_summed else None
        told = None if is_summed else self._statistics_of(level, 1, out)
        self._add(
            map_ops.linear,
            gated,
            w5,
            b5,
            residuals=residuals,
            sums=total,
            statistics_out=told,
            out=out,
        )
        self._give(middle)
        self._give(gated)
        return total, told

    def _blocks(
        self,
        level: int,
        blocks: Sequence[BlockMaps],
        x: Tensor,
        *,
        is_group: bool = False,
        statistics: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Add NAFBlocks; returns their result, in a map of its own, and its mean.

        A group adds its input at the end, and releases that map.

        Args:
            level: The level.
            blocks: Their weights.
            x: The first one's input.
            is_group: See above.
            statistics: Of `x`, as for `_block`.
        """
        more = x if is_group else None
        total: Tensor | None = None
        for index, weights in enumerate(blocks):
            is_last = index == len(blocks) - 1
            keeps = is_group and index == 0
            out = self._take(level, self.widths[level]) if keeps else x
            total, statistics = self._block(
                level, weights, x, out, more if is_last else None, is_last, statistics
            )
            x = out
        if total is None:
            raise ValueError("a level without blocks")
        mean = self._mean(total, level)
        if more is not None:
            self._give(more)
        return x, mean

    def _attend(self, x: Tensor) -> Tensor:
        """Add the selective attention at the bottom."""
        weights, channels = self.maps.attention, self.widths[LEVELS]
        projected, mixed = self._take(LEVELS, 3 * channels), self._take(LEVELS, 3 * channels)
        self._add(map_ops.linear, x, weights.projection, out=projected)
        self._add(map_ops.depthwise, projected, weights.taps, out=mixed)
        heads, size = weights.last.shape[0], weights.last.shape[2]
        combined = self._exact(self.batch, heads, size, size)
        self._add(map_ops.attention, mixed, weights.temperature, weights.gains, out=combined)
        # what v goes through is linear: one matrix
        matrix = torch.empty(
            (self.batch, channels, channels), dtype=self.map_type.dtype, device=self.map_type.device
        )
        self._add(map_ops.project, combined, weights.last, matrix.dtype, out=matrix)
        self._add(map_ops.linear, mixed[..., 2 * channels :], matrix, out=x)
        self._give(projected)
        self._give(mixed)
        return x

    # -- the network

    def _build(self) -> None:
        maps = self.maps
        self._part = "first convolutions"
        x, side = self._take(0, self.widths[0]), self._take(0, self.widths[0])
        self._add(map_ops.conv_to_maps, self.input, maps.intro, maps.intro_bias, out=(x, side))
        encoded: list[tuple[Tensor, Tensor]] = []
        decoded: list[tuple[Tensor, Tensor]] = []
        statistics: Tensor | None = None
        for level in range(LEVELS):
            self._part = f"encoder {level + 1}"
            encoded.append(self._blocks(level, maps.encoders[level], x, statistics=statistics))
            x = self._take(level + 1, self.widths[level + 1])
            wants = level + 1 < LEVELS and not map_ops.block_back_fits(
                self.widths[level + 1], self.map_type.dtype
            )
            statistics = self._statistics_of(level + 1, 1, x) if wants else None
            halved = encoded[-1][0]
            self._add(map_ops.halve, halved, *maps.downs[level], statistics_out=statistics, out=x)
        self._part = "attention"
        x = self._attend(x)
        for index in range(LEVELS):
            level = LEVELS - 1 - index
            self._part = f"decoder {level + 1}"
            up = self._take(level, self.widths[level])
            self._add(map_ops.double, x, maps.ups[index], encoded[level][0], out=up)
            if index == 0:
                self._give(x)
            decoded.insert(0, self._blocks(level, maps.decoders[index], up))
            x = up
        self._part = "join"
        scale, shift = maps.norms[0]
        self._add(
            map_ops.fuse,
            side,
            decoded[0][0],
            None,
            maps.join,
            None,
            scale=scale,
            shift=shift,
            out=side,
        )
        x = side
        for index, blocks in enumerate(maps.groups):
            self._part = f"group {index + 1}"
            x, mean = self._blocks(0, blocks, x, is_group=True)
            self._part = f"fusion {index + 1}"
            self._fuse(index, maps.fusions[index], x, mean, encoded[index], decoded[index])
        self._part = "last convolution"
        self._add(map_ops.conv_to_picture, x, maps.ending, maps.config.patch, out=self.residual)

    def _fuse(
        self,
        index: int,
        weights: FusionMaps,
        x: Tensor,
        mean: Tensor,
        low: tuple[Tensor, Tensor],
        high: tuple[Tensor, Tensor],
    ) -> None:
        """Add one fusion, which overwrites its first map."""
        shares = self._exact(self.batch, 3, self.widths[0])
        self._add(
            map_ops.shares,
            mean,
            low[1],
            high[1],
            *weights.means,
            weights.squeeze,
            weights.expand,
            out=shares,
        )
        sources = []
        for (source, _), doubles in zip((low, high), weights.doubles, strict=True):
            for step, matrix in enumerate(doubles):
                level = index - 1 - step
                up = self._take(level, self.widths[level])
                self._add(map_ops.double, source, matrix, out=up)
                # the encoder's and the decoder's maps are not needed after their fusion
                self._give(source)
                source = up
            sources.append(source)
        scale, shift = self.maps.norms[index + 1] if index + 1 < LEVELS else (None, None)
        self._add(
            map_ops.fuse,
            x,
            *sources,
            *weights.weights,
            shares=shares,
            scale=scale,
            shift=shift,
            out=x,
        )
        for source in sources:
            self._give(source)


class Forward:
    """Runs an execution graph, recorded as a CUDA graph where there is CUDA.

    Args:
        graph: The execution graph.
        before: Steps that are recorded too, ahead of the graph's.
        after: The same behind it.

    Raises:
        torch.OutOfMemoryError: The CUDA graph does not fit the device.
        RuntimeError: Likewise, or a kernel fails.
    """

    def __init__(
        self,
        graph: ExecutionGraph,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        self.graph = graph
        self._before, self._after = before, after
        self._replay: Callable[[], None] | None = None
        if graph.map_type.device.type == "cuda":
            self._replay = recorded(self._run, graph.map_type.device, self._compile)

    def _run(self) -> None:
        if self._before is not None:
            self._before()
        self.graph.run()
        if self._after is not None:
            self._after()

    def _compile(self) -> None:
        """Compile the kernels that are not there yet, beside one another."""
        with dispatch.recording() as launches:
            self._run()  # starts PyTorch's own kernels only
        compile_programs(launches)

    def run(self) -> None:
        """Compute the graph's `residual` from its `input`, on the current stream."""
        (self._replay or self._run)()


class TritonEngine:
    """The network on a GPU. Not for several threads at once.

    It runs wherever Triton does: the tests run it in Triton's interpreter, on the CPU.

    Args:
        network: An MHNet, which must not change any more.
        dtype: Type of the maps. None for bfloat16 where the GPU supports it, else float16.
        fronts: Variant of the first half of blocks, by their channels. None for the fastest on this
            GPU; measuring it takes some seconds the first time, to compile the kernels.
    """

    max_pixels = MAX_ELEMENTS
    """Largest picture without tiles, in pixels; reduced if the device's memory is too small."""

    def __init__(
        self,
        network: MHNet,
        dtype: torch.dtype | None = None,
        fronts: Mapping[int, Front] | None = None,
    ) -> None:
        device = next(network.parameters()).device
        self.network = network
        self.config = network.config
        self.map_type = MapType(dtype or best_dtype(device), device)
        if fronts is None and device.type == "cuda":
            widths = [self.config.width * 2**level for level in range(LEVELS)]
            fronts = {width: fastest_front(width, self.map_type) for width in widths}
        self.fronts = dict(fronts or {})
        self.maps = NetworkMaps(network, self.map_type, fronts)
        self._forwards: dict[tuple[int, int, int], Forward] = {}

    def graph(self, batch: int, height: int, width: int) -> ExecutionGraph:
        """Build the execution graph for pictures of a size.

        Args:
            batch: Windows at once.
            height: In pixels; padded to the network's multiple.
            width: Likewise.

        Raises:
            torch.OutOfMemoryError: The buffers do not fit.
        """
        multiple = self.config.multiple
        return ExecutionGraph(
            self.maps, batch, height + -height % multiple, width + -width % multiple
        )

    def lanes(self, pixels: int) -> Sequence["TritonEngine"]:
        """Only this engine: its streams overlap."""
        return (self,)

    def free(self) -> None:
        """Nothing of the host's is kept."""

    def residual(self, frames: Window) -> Tensor:
        """What is to be added to the middle frame, `[3, H, W]` float32.

        Args:
            frames: The input frames of the network, `[3, H, W]` float32 each, RGB in [0, 1].

        Raises:
            torch.OutOfMemoryError: The buffers do not fit.
        """
        return self.residuals(stacked(frames).flatten(0, 1)[None])[0]

    @torch.inference_mode()
    def align(self, frames: Window) -> Window:
        """Move the neighbours to where the middle frame shows the same things."""
        return align_frames(frames, glass=self.config.glass)

    def aligned_residual(self, frames: Window) -> Tensor:
        """The residual of frames that are aligned first, `[3, H, W]` float32.

        Raises:
            torch.OutOfMemoryError: The buffers do not fit.
        """
        return self.residual(self.align(frames))

    @torch.inference_mode()
    def residuals(self, window: Tensor) -> Tensor:
        """Compute the residuals of the middle frames, as `MHNet.residual` does.

        Args:
            window: `[N, 3 * frames, H, W]` float32, on the engine's device.

        Returns:
            `[N, 3, H, W]` float32.

        Raises:
            torch.OutOfMemoryError: The buffers do not fit.
        """
        batch, _channels, height, width = window.shape
        key = (batch, height, width)
        forward = self._forwards.pop(key, None)
        if forward is None:
            while len(self._forwards) >= _MAX_GRAPHS:
                self._forwards.pop(next(iter(self._forwards)))
            forward = Forward(self.graph(batch, height, width))
        self._forwards[key] = forward
        self._fill(forward.graph.input, window)
        forward.run()
        return forward.graph.residual[..., :height, :width].clone()

    def _fill(self, buffer: Tensor, window: Tensor) -> None:
        """Fold the pictures into a buffer; the padding around them stays zero."""
        _batch, channels, _height, _width = window.shape
        patch = self.config.patch
        folded = buffer[..., : channels * patch**2]
        blocks = folded.view(*buffer.shape[:3], channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
        for y in range(patch):
            for x in range(patch):
                part = window[:, :, y::patch, x::patch]
                blocks[:, :, : part.shape[2], y, : part.shape[3], x].copy_(part)

    def release(self) -> None:
        """Drop all graphs and their memory."""
        self._forwards.clear()
        if self.map_type.device.type == "cuda":
            give_back_device_memory()


def best_dtype(device: torch.device) -> torch.dtype:
    """The type of maps that a device is fastest with."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
