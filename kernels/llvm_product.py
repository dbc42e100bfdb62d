"""Matrix products in registers, of which most of the CPU engine's kernels are made.

A map of C channels is stored as `[rows, blocks, C / G, L]` 32-bit elements: blocks of L pixels of
a row, G channels to an element (llvm_ir.Machine). A row's last block may hold pixels beyond the
picture: what they hold is never mixed with others. Weights of a matrix product are
`[M / B, K / G / S, B, S]` elements, so that B outputs of T blocks stay in registers while their
inputs pass by, S elements at a time. S is 1 for vectors. The planes of a 3x3 convolution are
`[rows + 2, K / G, margin + row + margin]`, zero around the picture.

Elements of 16 pixels one below the other are also what AMX takes as a tile of inputs, and its tiles
of totals are B outputs of a block. They cannot be worked on but in memory, so there they go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mhnet_video.kernels.llvm_ir import Emitter, Machine, TileShape

_TILE_ROWS = 16
"""Rows of AMX's tiles at the most."""

_UNROLLED_STEPS = 8
"""Steps of tiles that are written out one after the other."""


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
    """What a product gives: of each output, a vector for each block."""

    def __init__(
        self,
        e: Emitter,
        tile: Tile,
        *,
        registers: Sequence[str] = (),
        room: str = "",
        bias: str = "",
    ) -> None:
        """Tell where it is.

        Args:
            e: Where it is used.
            tile: Its tile.
            registers: The vectors, output by output, block by block.
            room: Or their address, in the same order.
            bias: Address of what is still to be added, float32 of each output.
        """
        self._e, self._tile, self._registers, self._room = e, tile, registers, room
        self._bias = bias

    def row(self, output: str | int) -> list[str]:
        """An output's vectors; its number is a constant unless `each_output` gave it."""
        e, blocks = self._e, self._tile.blocks
        if self._registers:
            return list(self._registers[int(output) * blocks : (int(output) + 1) * blocks])
        lanes = e.machine.lanes
        there = e.at(self._room, e.mul(output, blocks * lanes))
        values = [e.load(e.at(there, t * lanes)) for t in range(blocks)]
        if self._bias:
            bias = e.broadcast(e.at(self._bias, output))
            values = [e.fadd(value, bias) for value in values]
        return values


def each_output(
    e: Emitter,
    tile: Tile,
    count: int,
    carried: Sequence[str],
    body: Callable[[str | int, list[str]], Sequence[str]],
) -> list[str]:
    """Do something with each output of a tile, or with each few of them, carrying vectors.

    Args:
        e: Where to write it.
        tile: The tile.
        count: How many times.
        carried: First values of what is carried.
        body: From the number and the carried values to the new ones.
    """
    if e.machine.tiles:
        return e.loop(0, count, 1, [(e.vector, value) for value in carried], body)
    values = list(carried)
    for number in range(count):
        values = list(body(number, values))
    return values


def product(
    e: Emitter,
    tile: Tile,
    sources: Sequence[tuple[str, int, int]],
    weights: str,
    bias: str = "",
) -> Values:
    """A matrix product.

    Args:
        e: Where to write it.
        tile: Its tile.
        sources: Where the inputs are: address of the first block, elements of a pixel, and how
            many elements lie between blocks.
        weights: Address of the weights of these outputs.
        bias: Address of what is added to each of these outputs, if anything is.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    if e.machine.tiles:
        steps = [(base, count, stride, 4 * lanes) for base, count, stride in sources]
        step = step_elements(e.machine, sources[0][1])
        return tile_product(e, tile, steps, weights, step, bias)
    current = ["zeroinitializer"] * (outputs * blocks)
    if bias:
        all_bias = [e.broadcast(e.at(bias, m)) for m in range(outputs)]
        current = [all_bias[m] for m in range(outputs) for _ in range(blocks)]
    done = 0
    for base, inputs, stride in sources:
        unroll = inputs if inputs <= 8 else next(u for u in (4, 3, 2, 1) if inputs % u == 0)

        def step_of(
            first: str | int,
            values: Sequence[str],
            base: str = base,
            stride: int = stride,
            done: int = done,
            unroll: int = unroll,
        ) -> list[str]:
            values = list(values)
            x0 = base if first == 0 else e.at(base, e.mul(first, lanes))
            w0 = e.at(weights, done * outputs)
            if first != 0:
                w0 = e.at(w0, e.mul(first, outputs))
            for k in range(unroll):
                xs = [e.load_elements(e.at(x0, t * stride + k * lanes)) for t in range(blocks)]
                for m in range(outputs):
                    w = e.broadcast_element(e.at(w0, k * outputs + m))
                    for t in range(blocks):
                        values[m * blocks + t] = e.dot(values[m * blocks + t], xs[t], w)
            return values

        if unroll == inputs:
            current = step_of(0, current)
        else:
            current = e.loop(0, inputs, unroll, [(e.vector, v) for v in current], step_of)
        done += inputs
    return Values(e, tile, registers=current)


def tile_product(
    e: Emitter,
    tile: Tile,
    sources: Sequence[tuple[str, int, int, str | int]],
    weights: str,
    step: int,
    bias: str = "",
) -> Values:
    """A matrix product in AMX's tiles.

    Args:
        e: Where to write it.
        tile: Its tile.
        sources: Where the inputs are: address of the first block, elements of a pixel (a multiple
            of `step`), how many elements lie between blocks, and how many bytes between the
            elements of a pixel.
        weights: Address of the weights of these outputs.
        step: S.
        bias: Address of what is added to each of these outputs, if anything is.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    room = e.room("product", outputs * blocks * lanes)
    for number in range(_shape(e, tile, step).totals):
        e.zero_tile(number)
    _add_products(e, tile, sources, weights, step)
    _store_totals(e, tile, room, 4 * blocks * lanes)
    return Values(e, tile, room=room, bias=bias)


def product_to(
    e: Emitter,
    tile: Tile,
    sources: Sequence[tuple[str, int, int]],
    weights: str,
    begin: str,
    out: str,
    row: str | int,
) -> None:
    """A matrix product in AMX's tiles, from memory to memory.

    Args:
        e: Where to write it.
        tile: Its tile.
        sources: As in `product`.
        weights: Likewise.
        begin: Address of what is added to these outputs, `[outputs, L]` float32.
        out: Address of the first output of the first block, float32.
        row: Bytes from an output to the next.
    """
    lanes, blocks = e.machine.lanes, tile.blocks
    step = step_elements(e.machine, sources[0][1])
    shape = _shape(e, tile, step)
    for part in range(shape.weights):
        for t in range(blocks):
            place = e.at(begin, part * shape.outputs * lanes)
            e.load_tile(part * blocks + t, place, 4 * lanes)
    steps = [(base, count, stride, 4 * lanes) for base, count, stride in sources]
    _add_products(e, tile, steps, weights, step)
    _store_totals(e, tile, out, row)


def _shape(e: Emitter, tile: Tile, step: int) -> TileShape:
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
    sources: Sequence[tuple[str, int, int, str | int]],
    weights: str,
    step: int,
) -> None:
    """Add the products of all steps to the tiles of totals."""
    shape, blocks, outputs = _shape(e, tile, step), tile.blocks, tile.outputs
    first_input = shape.totals + shape.weights
    spare = 8 - first_input
    done = 0
    for base, count, stride, row in sources:
        here = e.at(weights, done * outputs)

        def take(
            number: str | int,
            base: str = base,
            here: str = here,
            stride: int = stride,
            row: str | int = row,
        ) -> None:
            bytes_on = e.mul(e.mul(number, step), row)
            x = e.at(base, 0)
            if bytes_on != "0":
                x = e.op(f"getelementptr i8, ptr {base}, i64 {bytes_on}")
            w = e.at(here, e.mul(number, step * outputs))
            for part in range(shape.weights):
                weight = e.at(w, part * shape.outputs * step)
                e.load_tile(shape.totals + part, weight, 4 * step)
            for t in range(blocks):
                place = first_input + t % spare
                e.load_tile(place, e.at(x, t * stride), row)
                for part in range(shape.weights):
                    e.dot_tiles(part * blocks + t, shape.totals + part, place)

        def at_step(number: str, _: list[str], take: Callable[..., None] = take) -> list[str]:
            take(number)
            return []

        steps = count // step
        if steps > _UNROLLED_STEPS:
            e.loop(0, steps, 1, [], at_step)
        else:
            for number in range(steps):
                take(number)
        done += count


def _store_totals(e: Emitter, tile: Tile, out: str, row: str | int) -> None:
    """Store the tiles of totals, output by output, block by block."""
    lanes, blocks = e.machine.lanes, tile.blocks
    assert e.shape is not None
    for part in range(e.shape.weights):
        offset = e.mul(part * e.shape.outputs, row)
        base = out if offset == "0" else e.op(f"getelementptr i8, ptr {out}, i64 {offset}")
        for t in range(blocks):
            e.store_tile(part * blocks + t, e.at(base, t * lanes), row)


def statistics(e: Emitter, x: str, totals: Sequence[str]) -> list[str]:
    """Add an element's channels to the sum and to the sum of squares."""
    return [e.dot(totals[0], x, e.ones()), e.dot(totals[1], x, x)]


def deviation(e: Emitter, totals: Sequence[str], channels: int) -> tuple[str, str]:
    """The mean, and one over the standard deviation."""
    mean = e.fmul(totals[0], e.constant(1 / channels))
    square = e.fmul(mean, mean)
    power = e.fma(totals[1], e.constant(1 / channels), e.constant(1e-6))
    variance = e.op(f"fsub {e.vector} {power}, {square}")
    # rounding may leave less than nothing where all channels are alike
    floor = e.constant(1e-6)
    test = e.op(f"fcmp ogt {e.vector} {variance}, {floor}")
    mask = f"<{e.machine.lanes} x i1>"
    variance = e.op(f"select {mask} {test}, {e.vector} {variance}, {e.vector} {floor}")
    return mean, e.inverse_root(variance)
