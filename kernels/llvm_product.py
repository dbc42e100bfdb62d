"""Matrix products in registers, the core of most of the CPU engine's kernels.

A map of C channels is stored as `[rows, blocks, C / G, L]` 32-bit elements: blocks of L pixels of
a row, G channels to an element (`Machine.group`). A row's last block may hold pixels beyond the
picture, whose values never reach others. Weights of a matrix product are
`[M / B, K / G / S, B, S]` elements, so that B outputs of T blocks stay in registers while their
inputs pass by, S elements at a time. S is 1 for vectors. The planes of a 3x3 convolution are
`[rows + 2, K / G, margin + row + margin]`, zero around the picture.

Elements of 16 pixels one below the other are also what AMX takes as a tile of inputs, and its tiles
of totals are B outputs of a block. They cannot be worked on but in memory, so there they go.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mhnet_video.kernels.llvm_ir import Emitter, Index
from mhnet_video.kernels.llvm_machine import Machine, TileShape
from mhnet_video.kernels.llvm_operations import F32, I8
from mhnet_video.kernels.llvm_values import Value

_TILE_ROWS = 16
"""The most rows of one of AMX's tiles."""

_UNROLLED_STEPS = 8
"""The most steps of tiles that are unrolled."""


@dataclass(frozen=True)
class Tile:
    """How a matrix product is cut."""

    blocks: int
    """Blocks of L pixels at a time, T."""
    outputs: int
    """Outputs at a time, B."""


def choose_tile(machine: Machine, row_blocks: int, channels: int) -> Tile:
    """The tile that fits the registers and wastes least at the end of rows.

    Args:
        machine: What the kernel is made for.
        row_blocks: Blocks of a row.
        channels: Of the map, a multiple of 8; the number of outputs is a multiple of it.
    """
    if machine.tiles:
        outputs = next(n for n in (16, 12, 8) if channels % n == 0)
        # loading the weights' tile takes about half as long as a product
        blocks = min((4, 5, 3, 2), key=lambda n: -(-row_blocks // n) * (n + 0.5))
        return Tile(blocks, outputs)
    many = machine.registers > 16
    candidates = ((3, 8), (4, 4), (5, 4), (2, 8)) if many else ((3, 4),)
    if many and not machine.bfloat16:
        # elements of one channel are twice as many: a small tile stays in the first cache
        candidates = ((2, 8), (3, 8), (4, 4), (5, 4))
    fitting = [Tile(*each) for each in candidates]
    return min(fitting, key=lambda tile: -(-row_blocks // tile.blocks) * tile.blocks)


def choose_winograd_tile(machine: Machine, row_blocks: int) -> Tile:
    """The same for a convolution whose blocks are of L squares of 4x4 pixels."""
    many = machine.registers > 16
    candidates = ((5, 4), (3, 8), (4, 4), (2, 8)) if many else ((5, 2), (3, 4), (4, 2), (2, 4))
    fitting = [Tile(*each) for each in candidates]
    return min(fitting, key=lambda tile: -(-row_blocks // (4 * tile.blocks)) * tile.blocks)


def step_elements(machine: Machine, elements: int) -> int:
    """Elements of a pixel that a product takes at a time, S.

    Args:
        machine: What the kernel is made for.
        elements: All of them.
    """
    if not machine.tiles:
        return 1
    return next(n for n in range(min(elements, _TILE_ROWS), 0, -1) if elements % n == 0)


def plane_steps(planes: int) -> tuple[int, int]:
    """Planes that a 3x3 convolution in tiles takes at a time, and how often."""
    steps = -(-planes // _TILE_ROWS)
    return -(-planes // steps), steps


class Values:
    """The result of a product: of each output, a vector for each block."""

    def __init__(
        self,
        e: Emitter,
        tile: Tile,
        *,
        registers: Sequence[Value] = (),
        memory: Value | None = None,
        bias: Value | None = None,
    ) -> None:
        """Keep where the result is.

        Args:
            e: The kernel.
            tile: The product's tile.
            registers: The vectors, output by output, block by block.
            memory: Or their address, in the same order.
            bias: Address of the bias, float32 for each output.
        """
        self._e, self._tile, self._registers, self._memory = e, tile, registers, memory
        self._bias = bias

    def row(self, output: Index) -> list[Value]:
        """An output's vectors; its number is Python's unless `each_output` gave it."""
        e, blocks = self._e, self._tile.blocks
        if self._memory is None:
            if not isinstance(output, int):
                raise TypeError(f"registers have numbers of Python, not {output!r}")
            return list(self._registers[output * blocks : (output + 1) * blocks])
        lanes = e.machine.lanes
        there = self._memory + output * (blocks * lanes)
        values = [e.load(there + t * lanes) for t in range(blocks)]
        if self._bias is not None:
            bias = e.broadcast(self._bias + output)
            values = [value + bias for value in values]
        return values

    def times(self, factors: Sequence[Value], bias: Value | None = None) -> "Values":
        """The same in registers, with each block multiplied by a vector.

        Args:
            factors: The vectors.
            bias: Address of what is added to each output then; None for nothing.
        """
        e, registers = self._e, []
        for m in range(self._tile.outputs):
            added = None if bias is None else e.broadcast(bias + m)
            for value, factor in zip(self.row(m), factors, strict=True):
                registers.append(value * factor if added is None else e.fma(value, factor, added))
        return Values(e, self._tile, registers=registers)


def each_output(
    e: Emitter, tile: Tile, count: int, carry: list[Value] | None = None
) -> Iterator[Index]:
    """A loop over the outputs of a tile, or over groups of them.

    Outputs in registers are unrolled by Python; those in memory are an emitted loop.

    Args:
        e: The kernel.
        tile: The tile.
        count: How many times.
        carry: Values that the loop changes, as in `Emitter.loop`.
    """
    yield from e.loop(0, count, carry=carry) if e.machine.tiles else range(count)


class Source(NamedTuple):
    """Inputs of a product."""

    base: Value
    """Address of the first block."""
    elements: int
    """Elements of a pixel."""
    stride: int
    """Elements from a block to the next."""


def product(
    e: Emitter,
    tile: Tile,
    sources: Sequence[Source],
    weights: Value,
    bias: Value | None = None,
) -> Values:
    """A matrix product.

    Args:
        e: The kernel.
        tile: Its tile.
        sources: Its inputs.
        weights: Address of the weights of these outputs.
        bias: Address of the bias of each of these outputs; None for none.
    """
    blocks, outputs = tile.blocks, tile.outputs
    if e.machine.tiles:
        lanes = e.machine.lanes
        step = step_elements(e.machine, sources[0].elements)
        return tile_product(e, tile, sources, weights, step, 4 * lanes, bias)
    totals = [e.zero()] * (outputs * blocks)
    if bias is not None:
        each = [e.broadcast(bias + m) for m in range(outputs)]
        totals = [each[m] for m in range(outputs) for _ in range(blocks)]
    done = 0
    for source in sources:
        add_dots(e, tile, source, weights + done * outputs, totals, e.dot)
        done += source.elements
    return Values(e, tile, registers=totals)


def add_dots(
    e: Emitter,
    tile: Tile,
    source: Source,
    weights: Value,
    totals: list[Value],
    dot: Callable[[Value, Value, Value], Value],
) -> None:
    """Add the products of a source to totals in registers.

    Args:
        e: The kernel.
        tile: Its tile.
        source: The inputs.
        weights: Address of their weights.
        totals: Output by output, block by block.
        dot: A total plus the product of an element with its weight.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    inputs = source.elements
    unroll = inputs if inputs <= 8 else next(u for u in (4, 3, 2, 1) if inputs % u == 0)
    is_loop = unroll != inputs
    for first in e.loop(0, inputs, unroll, totals) if is_loop else range(1):
        x0 = source.base + first * lanes
        w0 = weights + first * outputs
        for k in range(unroll):
            xs = [e.load(x0 + (t * source.stride + k * lanes)) for t in range(blocks)]
            for m in range(outputs):
                w = e.broadcast(w0 + (k * outputs + m))
                for t in range(blocks):
                    totals[m * blocks + t] = dot(totals[m * blocks + t], xs[t], w)


def tile_product(
    e: Emitter,
    tile: Tile,
    sources: Sequence[Source],
    weights: Value,
    step: int,
    row_bytes: Index,
    bias: Value | None = None,
) -> Values:
    """A matrix product in AMX's tiles.

    Args:
        e: The kernel.
        tile: Its tile.
        sources: Its inputs, whose elements are multiples of `step`.
        weights: Address of the weights of these outputs.
        step: S.
        row_bytes: Bytes between the elements of a pixel.
        bias: Address of the bias of each of these outputs; None for none.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    memory = e.shared_scratch("product", F32, outputs * blocks * lanes)
    for number in range(_shape(e, tile, step).totals):
        e.zero_tile(number)
    _add_products(e, tile, sources, weights, step, row_bytes)
    _store_totals(e, tile, memory, 4 * blocks * lanes)
    return Values(e, tile, memory=memory, bias=bias)


def product_to(
    e: Emitter,
    tile: Tile,
    sources: Sequence[Source],
    weights: Value,
    begin: Value,
    out: Value,
    row_bytes: Index,
) -> None:
    """A matrix product in AMX's tiles, from memory to memory.

    Args:
        e: The kernel.
        tile: Its tile.
        sources: Its inputs.
        weights: Address of the weights of these outputs.
        begin: Address of the initial sums of these outputs, `[outputs, L]` float32.
        out: Address of the first output of the first block, float32.
        row_bytes: Bytes from an output to the next.
    """
    lanes, blocks = e.machine.lanes, tile.blocks
    step = step_elements(e.machine, sources[0].elements)
    shape = _shape(e, tile, step)
    for part in range(shape.weights):
        for t in range(blocks):
            address = begin + part * shape.outputs * lanes
            e.load_tile(part * blocks + t, address, 4 * lanes)
    _add_products(e, tile, sources, weights, step, 4 * lanes)
    _store_totals(e, tile, out, row_bytes)


def _shape(e: Emitter, tile: Tile, step: int) -> TileShape:
    """How the tiles of a product are configured."""
    outputs = tile.outputs
    rows = next(n for n in range(min(outputs, _TILE_ROWS), 0, -1) if outputs % n == 0)
    parts = outputs // rows
    shape = TileShape(tile.blocks * parts, parts, rows, step)
    spare = 8 - shape.totals - parts
    if spare < 1 or (parts > 1 and spare < tile.blocks):
        raise ValueError(f"{tile} does not fit into eight tiles")
    e.shape_tiles(shape)
    return shape


def _add_products(
    e: Emitter,
    tile: Tile,
    sources: Sequence[Source],
    weights: Value,
    step: int,
    row_bytes: Index,
) -> None:
    """Add the products of all steps to the tiles of totals."""
    shape, blocks, outputs = _shape(e, tile, step), tile.blocks, tile.outputs
    first_input = shape.totals + shape.weights
    spare = 8 - first_input
    done = 0
    for source in sources:
        here = weights + done * outputs
        steps = source.elements // step
        is_loop = steps > _UNROLLED_STEPS
        for number in e.loop(0, steps) if is_loop else range(steps):
            x = advance(source.base, number * step * row_bytes)
            w = here + number * (step * outputs)
            for part in range(shape.weights):
                e.load_tile(shape.totals + part, w + part * shape.outputs * step, 4 * step)
            for t in range(blocks):
                slot = first_input + t % spare
                e.load_tile(slot, x + t * source.stride, row_bytes)
                for part in range(shape.weights):
                    e.dot_tiles(part * blocks + t, shape.totals + part, slot)
        done += source.elements


def advance(address: Value, count: Index) -> Value:
    """The address so many bytes further on."""
    target = address.type.target
    if target is None:
        raise TypeError(f"{address!r} is no pointer")
    return (address.leading_to(I8) + count).leading_to(target)


def _store_totals(e: Emitter, tile: Tile, out: Value, row_bytes: Index) -> None:
    """Store the tiles of totals, output by output, block by block."""
    lanes, blocks = e.machine.lanes, tile.blocks
    assert e.shape is not None
    for part in range(e.shape.weights):
        base = advance(out, part * e.shape.outputs * row_bytes)
        for t in range(blocks):
            e.store_tile(part * blocks + t, base + t * lanes, row_bytes)


def statistics(e: Emitter, x: Value, totals: Sequence[Value]) -> list[Value]:
    """Add an element's channels to the sum and to the sum of squares."""
    return [e.dot(totals[0], x, e.ones()), e.dot(totals[1], x, x)]


def deviation(e: Emitter, totals: Sequence[Value], channels: int) -> tuple[Value, Value]:
    """The mean, and one over the standard deviation."""
    mean = totals[0] * (1 / channels)
    square = mean * mean
    variance = e.fma(totals[1], 1 / channels, 1e-6) - square
    # rounding may leave less than nothing where all channels are alike
    variance = e.select(variance > 1e-6, variance, 1e-6)
    return mean, e.inverse_root(variance)
