"""The CPU engine's kernels for planes: pictures to planes, and 3x3 convolutions.

llvm_product.py says what planes and maps are.
"""

from collections.abc import Sequence

from mhnet_video.kernels.llvm_ir import Emitter, Machine
from mhnet_video.kernels.llvm_product import (
    Tile,
    Values,
    each_output,
    plane_steps,
    product,
    tile_product,
)


def fold(machine: Machine, name: str, patch: int) -> Emitter:
    """Pixel unshuffle: rows y0 to y1 of the planes of one picture channel (or of two, see below).

    At patch 2 with bfloat16, an element is two neighbours of a row, which need no shuffle at all:
    planes are `[dy]`; with float32 `[dy, dx]`. At patch 1 with bfloat16, an element holds this
    channel and `other`; with float32 this channel alone.
    """
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # [H, W] float32, W a multiple of patch * L
            ("other", "ptr"),  # [H, W] float32
            ("out", "ptr"),  # first plane, at its first row
            ("width", "i64"),  # W
            ("plane", "i64"),  # elements of a row of a plane
            ("row", "i64"),  # elements of a row of all planes
            ("row_blocks", "i64"),
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes = machine.lanes

    def at_row(row: str, _: list[str]) -> list[str]:
        out = e.at("%out", e.add(e.mul(e.add(row, 1), "%row"), lanes))

        def at_block(j: str, _: list[str]) -> list[str]:
            place = e.at(out, e.mul(j, lanes))
            for dy in range(patch):
                source = e.mul(e.add(e.mul(row, patch), dy), "%width")
                offset = e.add(source, e.mul(j, patch * lanes))
                first = e.load(e.at("%x", offset))
                if patch == 1:
                    channels = [first]
                    if machine.bfloat16:
                        channels.append(e.load(e.at("%other", offset)))
                    e.store_elements(e.pack(channels), place)
                    continue
                second = e.load(e.at("%x", e.add(offset, lanes)))
                if machine.bfloat16:
                    there = e.at(place, e.mul("%plane", dy))
                    e.store_elements(e.pack_neighbours(first, second), there)
                    continue
                for dx, value in enumerate(e.deinterleave(first, second, "float")):
                    e.store(value, e.at(place, e.mul("%plane", 2 * dy + dx)))
            return []

        e.loop(0, "%row_blocks", 1, [], at_block)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


def _convolve(
    e: Emitter, tile: Tile, inputs: int, planes: str, weights: str, bias: str = ""
) -> Values:
    """A 3x3 convolution.

    Args:
        e: Where to write it.
        tile: Its tile.
        inputs: Planes.
        planes: Address of the first plane above the tile, at its first pixel.
        weights: Address of the weights of these outputs.
        bias: Address of what is added to each of these outputs, if anything is.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    if e.machine.tiles:
        # the planes of three rows follow each other
        step, steps = plane_steps(3 * inputs)
        row = e.mul("%plane", 4)
        sources = [(e.at(planes, dx), steps * step, lanes, row) for dx in (-1, 0, 1)]
        return tile_product(e, tile, sources, weights, step, bias)

    def at_plane(k: str, values: list[str]) -> list[str]:
        values = list(values)
        x = e.at(planes, e.mul(k, "%plane"))
        w0 = e.at(weights, e.mul(k, 3 * outputs))
        for dx in range(3):
            xs = [e.load_elements(e.at(x, t * lanes + dx - 1)) for t in range(blocks)]
            for m in range(outputs):
                w = e.broadcast_element(e.at(w0, dx * outputs + m))
                for t in range(blocks):
                    values[m * blocks + t] = e.dot(values[m * blocks + t], xs[t], w)
        return values

    totals = ["zeroinitializer"] * outputs
    if bias:
        totals = [e.broadcast(e.at(bias, m)) for m in range(outputs)]
    carried = [(e.vector, total) for total in totals for _ in range(blocks)]
    return Values(e, tile, registers=e.loop(0, 3 * inputs, 1, carried, at_plane))


def _weights_of_outputs(machine: Machine, inputs: int) -> int:
    """Elements of an output's weights."""
    if not machine.tiles:
        return 9 * inputs
    step, steps = plane_steps(3 * inputs)
    return 3 * step * steps


def convolve_to_maps(
    machine: Machine, name: str, inputs: int, channels: int, tile: Tile
) -> Emitter:
    """A 3x3 convolution of planes to two maps of C: rows y0 to y1.

    Args:
        machine: What it is made for.
        name: The function's.
        inputs: Planes.
        channels: C of each map.
        tile: The tile.
    """
    e = Emitter(
        machine,
        name,
        [
            ("planes", "ptr"),
            ("w", "ptr"),  # [2C, 3, inputs, 3]: outputs, dy, plane, dx; for tiles dx, dy, plane
            ("bias", "ptr"),  # [2C] float32
            ("first", "ptr"),  # map of C
            ("second", "ptr"),  # map of C
            ("plane", "i64"),  # elements of a row of a plane
            ("row_blocks", "i64"),
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    size = channels // group * lanes
    row_size = e.mul("%plane", inputs)

    def at_row(row: str, _: list[str]) -> list[str]:
        source_row = e.at("%planes", e.add(e.mul(row, row_size), lanes))

        def at_tile(start: str, _: list[str]) -> list[str]:
            source = e.at(source_row, e.mul(start, lanes))
            place = e.mul(e.add(e.mul(row, "%row_blocks"), start), size)

            def at_outputs(m0: str, _: list[str]) -> list[str]:
                w = e.at("%w", e.mul(m0, _weights_of_outputs(machine, inputs)))
                values = _convolve(e, tile, inputs, source, w, e.at("%bias", m0))

                def give(pair: str | int, _: list[str]) -> list[str]:
                    m = e.add(m0, e.mul(pair, group))
                    is_first = e.op(f"icmp slt i64 {m}, {channels}")
                    base = e.op(f"select i1 {is_first}, ptr %first, ptr %second")
                    less = e.op(f"select i1 {is_first}, i64 0, i64 {channels}")
                    element = e.op(f"udiv exact i64 {e.op(f'sub i64 {m}, {less}')}, {group}")
                    out = e.at(base, e.add(place, e.mul(element, lanes)))
                    rows = [values.row(e.add(e.mul(pair, group), g)) for g in range(group)]
                    for t, both in enumerate(zip(*rows, strict=True)):
                        inside = e.op(f"icmp slt i64 {e.add(start, t)}, %row_blocks")
                        there = e.at(out, t * size)
                        e.store_when(inside, e.pack(both), there)
                    return []

                each_output(e, tile, outputs // group, [], give)
                return []

            e.loop(0, 2 * channels, outputs, [], at_outputs)
            return []

        e.loop(0, "%row_blocks", blocks, [], at_tile)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


WINOGRAD = 6
"""Side of a transformed tile: 4x4 results of a 3x3 convolution need 6x6 products, not 144."""


def winograd_to_maps(
    machine: Machine, name: str, inputs: int, channels: int, tile: Tile
) -> Emitter:
    """`convolve_to_maps` of float32 with a quarter of the products: rows 4 y0 to 4 y1.

    Args:
        machine: What it is made for; its elements are single channels.
        name: The function's.
        inputs: Planes.
        channels: C of each map.
        tile: The tile; its blocks are of L squares of 4x4 pixels.

    Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
    """
    e = Emitter(
        machine,
        name,
        [
            ("planes", "ptr"),
            ("w", "ptr"),  # [36, 2C / B, inputs, B] float32, transformed
            ("bias", "ptr"),  # [2C] float32
            ("first", "ptr"),  # map of C
            ("second", "ptr"),  # map of C
            ("spare", "ptr"),  # [36, T, inputs + 2C, L] float32
            ("plane", "i64"),  # elements of a row of a plane
            ("row_blocks", "i64"),
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes, blocks, outputs, v = machine.lanes, tile.blocks, tile.outputs, e.vector
    count = WINOGRAD**2
    size = channels * lanes
    row_size = e.mul("%plane", inputs)
    part = blocks * inputs * lanes  # of a transformed component, [T, inputs, L]
    result = 2 * channels * blocks * lanes  # of a product, [2C, T, L]
    products = e.at("%spare", count * part)

    def minus(a: str, b: str) -> str:
        return e.op(f"fsub {v} {a}, {b}")

    def to_products(d: Sequence[str]) -> list[str]:
        """The input's transform, in one direction."""
        even, odd = (e.fma(d[n], e.constant(-4), d[n + 2]) for n in (2, 1))
        near, far = minus(d[4], d[2]), minus(d[3], d[1])
        ends = [
            e.fma(d[n], e.constant(4), e.fma(d[n + 2], e.constant(-5), d[n + 4])) for n in (0, 1)
        ]
        return [
            ends[0],
            e.fadd(even, odd),
            minus(even, odd),
            e.fma(far, e.constant(2), near),
            e.fma(far, e.constant(-2), near),
            ends[1],
        ]

    def to_pixels(m: Sequence[str]) -> list[str]:
        """The output's transform, in one direction."""
        one, other = e.fadd(m[1], m[2]), minus(m[1], m[2])
        two, twin = e.fadd(m[3], m[4]), minus(m[3], m[4])
        return [
            e.fadd(e.fadd(m[0], one), two),
            e.fma(twin, e.constant(2), other),
            e.fma(two, e.constant(4), one),
            e.fma(twin, e.constant(8), e.fadd(other, m[5])),
        ]

    def columns(row: str) -> list[str]:
        """Six columns of L tiles, each of which begins four pixels after the one before."""
        found: list[str] = []
        for shift in (-1, 3):
            loaded = [e.load(e.at(row, shift + h * lanes)) for h in range(4)]
            pairs = [e.deinterleave(loaded[h], loaded[h + 1], "float") for h in (0, 2)]
            even, odd = zip(*pairs, strict=True)
            (c0, c2), (c1, c3) = (e.deinterleave(a, b, "float") for a, b in (even, odd))
            found += [c0, c1, c2, c3] if not found else [c0, c1]
        return found

    def at_tiles(tiles: str, _: list[str]) -> list[str]:
        # the first of six rows: planes begin with one above the picture
        source_row = e.at("%planes", e.add(e.mul(e.mul(tiles, 4), row_size), lanes))

        def at_strip(start: str, _: list[str]) -> list[str]:
            source = e.at(source_row, e.mul(start, lanes))

            def transform(k: str, _: list[str]) -> list[str]:
                plane = e.at(source, e.mul(k, "%plane"))

                def at_block(t: str, _: list[str]) -> list[str]:
                    there = e.at("%spare", e.mul(e.add(e.mul(t, inputs), k), lanes))
                    rows = []
                    for dy in range(WINOGRAD):
                        row = e.at(e.at(plane, e.mul(row_size, dy)), e.mul(t, 4 * lanes))
                        rows.append(to_products(columns(row)))
                    for dx in range(WINOGRAD):
                        for dy, value in enumerate(to_products([row[dx] for row in rows])):
                            e.store(value, e.at(there, (WINOGRAD * dy + dx) * part))
                    return []

                e.loop(0, blocks, 1, [], at_block)
                return []

            e.loop(0, inputs, 1, [], transform)

            def multiply(component: str, _: list[str]) -> list[str]:
                x = e.at("%spare", e.mul(component, part))
                weights = e.at("%w", e.mul(component, 2 * channels * inputs))
                out = e.at(products, e.mul(component, result))

                def at_outputs(m0: str, _: list[str]) -> list[str]:
                    w = e.at(weights, e.mul(m0, inputs))
                    values = product(e, tile, [(x, inputs, inputs * lanes)], w)
                    there = e.at(out, e.mul(m0, blocks * lanes))
                    for m in range(outputs):
                        for t, value in enumerate(values.row(m)):
                            e.store(value, e.at(there, (m * blocks + t) * lanes))
                    return []

                e.loop(0, 2 * channels, outputs, [], at_outputs)
                return []

            e.loop(0, count, 1, [], multiply)

            def give(m: str, _: list[str]) -> list[str]:
                """One output of all blocks."""
                bias = e.broadcast(e.at("%bias", m))
                is_first = e.op(f"icmp slt i64 {m}, {channels}")
                base = e.op(f"select i1 {is_first}, ptr %first, ptr %second")
                less = e.op(f"select i1 {is_first}, i64 0, i64 {channels}")
                channel = e.mul(e.op(f"sub i64 {m}, {less}"), lanes)

                def at_block(t: str, _: list[str]) -> list[str]:
                    at = e.at(products, e.mul(e.add(e.mul(m, blocks), t), lanes))
                    rows = [
                        to_pixels(
                            [
                                e.load(e.at(at, (WINOGRAD * dy + dx) * result))
                                for dy in range(WINOGRAD)
                            ]
                        )
                        for dx in range(WINOGRAD)
                    ]
                    for dy in range(4):
                        four = [e.fadd(x, bias) for x in to_pixels([row[dy] for row in rows])]
                        even = e.interleave(four[0], four[2], "float")
                        odd = e.interleave(four[1], four[3], "float")
                        mixed = [
                            vector
                            for half in (0, 1)
                            for vector in e.interleave(even[half], odd[half], "float")
                        ]
                        row = e.add(e.mul(tiles, 4), dy)
                        for h in range(4):
                            column = e.add(e.add(start, e.mul(t, 4)), h)
                            block = e.add(e.mul(row, "%row_blocks"), column)
                            there = e.at(base, e.add(e.mul(block, size), channel))
                            inside = e.op(f"icmp slt i64 {column}, %row_blocks")

                            def write(vector: str = mixed[h], there: str = there) -> None:
                                e.store(vector, there)

                            e.when(inside, write)
                    return []

                e.loop(0, blocks, 1, [], at_block)
                return []

            e.loop(0, 2 * channels, 1, [], give)
            return []

        e.loop(0, "%row_blocks", 4 * blocks, [], at_strip)
        return []

    e.loop("%y0", "%y1", 1, [], at_tiles)
    return e


def convolve_to_picture(
    machine: Machine, name: str, inputs: int, patch: int, tile: Tile
) -> Emitter:
    """A 3x3 convolution of planes to 3 * patch**2 channels, shuffled into RGB: rows y0 to y1.

    At patch 1 a tile's outputs are 4, of which the last is thrown away.
    """
    e = Emitter(
        machine,
        name,
        [
            ("planes", "ptr"),
            ("w", "ptr"),  # as in convolve_to_maps
            ("out", "ptr"),  # [3, height, width] float32
            ("plane", "i64"),  # elements of a row of a plane
            ("row_blocks", "i64"),
            ("height", "i64"),
            ("width", "i64"),  # a multiple of patch * L
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes, blocks, outputs = machine.lanes, tile.blocks, tile.outputs
    row_size = e.mul("%plane", inputs)
    picture = e.mul("%height", "%width")

    def at_row(row: str, _: list[str]) -> list[str]:
        source_row = e.at("%planes", e.add(e.mul(row, row_size), lanes))

        def at_tile(start: str, _: list[str]) -> list[str]:
            source = e.at(source_row, e.mul(start, lanes))

            def at_outputs(m0: str, _: list[str]) -> list[str]:
                w = e.at("%w", e.mul(m0, _weights_of_outputs(machine, inputs)))
                values = _convolve(e, tile, inputs, source, w)

                def give(u: str | int, _: list[str]) -> list[str]:
                    rows = [values.row(e.add(e.mul(u, patch), dx)) for dx in range(patch)]
                    # at patch 2, two outputs are two neighbours in a row; rows go first
                    number = e.add(e.op(f"udiv exact i64 {m0}, {patch}"), u)
                    colour = e.op(f"udiv i64 {number}, {patch}")
                    dy = e.op(f"urem i64 {number}, {patch}")
                    line = e.mul(e.add(e.mul(row, patch), dy), "%width")
                    out = e.at("%out", e.add(e.mul(colour, picture), line))
                    for t in range(blocks):
                        column = e.add(start, t)
                        inside = e.op(f"icmp slt i64 {column}, %row_blocks")
                        there = e.at(out, e.mul(column, patch * lanes))
                        given = [row[t] for row in rows]
                        if patch == 2:
                            given = list(e.interleave(given[0], given[1], "float"))

                        def write(given: list[str] = given, there: str = there) -> None:
                            for number, value in enumerate(given):
                                e.store(value, e.at(there, number * lanes))

                        e.when(inside, write)
                    return []

                each_output(e, tile, 3 if patch == 1 else outputs // 2, [], give)
                return []

            e.loop(0, 4 if patch == 1 else 12, outputs, [], at_outputs)
            return []

        e.loop(0, "%row_blocks", blocks, [], at_tile)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e
