"""The engine's kernels for planes: pictures to planes, 3x3 convolutions, and the attention's.

llvm_blocks.py says what planes and maps are.
"""

from collections.abc import Callable

from mhnet_video.kernels.llvm_blocks import Tile, product
from mhnet_video.kernels.llvm_ir import Emitter, Machine


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
    e: Emitter, tile: Tile, inputs: int, planes: str, weights: str, totals: list[str]
) -> list[str]:
    """Add a 3x3 convolution; `planes` is the first plane above the tile, at its first pixel."""
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs

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

    return e.loop(0, 3 * inputs, 1, [(e.vector, total) for total in totals], at_plane)


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
            ("w", "ptr"),  # [2C, 3, inputs, 3]: outputs in tiles, dy, plane, dx
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
                bias = [e.broadcast(e.at("%bias", e.add(m0, m))) for m in range(outputs)]
                values = _convolve(
                    e,
                    tile,
                    inputs,
                    source,
                    e.at("%w", e.mul(m0, 9 * inputs)),
                    [bias[m] for m in range(outputs) for _ in range(blocks)],
                )
                is_first = e.op(f"icmp slt i64 {m0}, {channels}")
                base = e.op(f"select i1 {is_first}, ptr %first, ptr %second")
                less = e.op(f"select i1 {is_first}, i64 0, i64 {channels}")
                element = e.op(f"udiv exact i64 {e.op(f'sub i64 {m0}, {less}')}, {group}")
                for pair in range(outputs // group):
                    out = e.at(base, e.add(place, e.mul(e.add(element, pair), lanes)))
                    for t in range(blocks):
                        both = [values[(pair * group + g) * blocks + t] for g in range(group)]
                        inside = e.op(f"icmp slt i64 {e.add(start, t)}, %row_blocks")
                        there = e.at(out, t * size)
                        e.store_when(inside, e.pack(both), there)
                return []

            e.loop(0, 2 * channels, outputs, [], at_outputs)
            return []

        e.loop(0, "%row_blocks", blocks, [], at_tile)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
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
                values = _convolve(
                    e,
                    tile,
                    inputs,
                    source,
                    e.at("%w", e.mul(m0, 9 * inputs)),
                    ["zeroinitializer"] * (outputs * blocks),
                )
                for u in range(3 if patch == 1 else outputs // 2):
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
                        given = [values[u * blocks + t]]
                        if patch == 2:
                            left, right = (values[(2 * u + dx) * blocks + t] for dx in (0, 1))
                            given = list(e.interleave(left, right, "float"))

                        def write(given: list[str] = given, there: str = there) -> None:
                            for number, value in enumerate(given):
                                e.store(value, e.at(there, number * lanes))

                        e.when(inside, write)
                return []

            e.loop(0, 4 if patch == 1 else 12, outputs, [], at_outputs)
            return []

        e.loop(0, "%row_blocks", blocks, [], at_tile)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


def project(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """A 1x1 convolution of a map of C to float32 planes `[M, blocks * L]`: blocks first to end."""
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # map of C
            ("w", "ptr"),  # [M, C]
            ("out", "ptr"),  # [M, plane] float32
            ("count", "i64"),  # M
            ("plane", "i64"),
            ("first", "i64"),
            ("end", "i64"),
        ],
    )
    lanes, blocks, outputs = machine.lanes, tile.blocks, tile.outputs
    inputs = channels // machine.group
    size = inputs * lanes

    def at_tile(block: str, _: list[str]) -> list[str]:
        x = e.at("%x", e.mul(block, size))

        def at_outputs(m0: str, _: list[str]) -> list[str]:
            values = product(
                e,
                tile,
                [(x, inputs, size)],
                e.at("%w", e.mul(m0, inputs)),
                ["zeroinitializer"] * (outputs * blocks),
            )
            for m in range(outputs):
                row = e.at("%out", e.add(e.mul(e.add(m0, m), "%plane"), e.mul(block, lanes)))
                for t in range(blocks):
                    e.store(values[m * blocks + t], e.at(row, t * lanes))
            return []

        e.loop(0, "%count", outputs, [], at_outputs)
        return []

    e.loop("%first", "%end", blocks, [], at_tile)
    return e


def depthwise(machine: Machine, name: str) -> Emitter:
    """A depthwise 3x3 convolution of planes `[M, rows, row_blocks, L]`: planes first to end.

    What lies beyond the picture counts as zero, and is written as zero.
    """
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # [M, plane] float32
            ("w", "ptr"),  # [M, 3, 3] float32
            ("mask", "ptr"),  # [row_blocks, L] all ones inside the picture
            ("spare", "ptr"),  # [rows + 2, row_blocks + 2, L] float32, zero at its edges
            ("out", "ptr"),  # [M, plane] float32
            ("plane", "i64"),
            ("rows", "i64"),
            ("row_blocks", "i64"),
            ("first", "i64"),
            ("end", "i64"),
        ],
    )
    lanes = machine.lanes
    wide = e.mul(e.add("%row_blocks", 2), lanes)

    def at_plane(m: str, _: list[str]) -> list[str]:
        x, out = (e.at(base, e.mul(m, "%plane")) for base in ("%x", "%out"))
        weights = [e.broadcast(e.at("%w", e.add(e.mul(m, 9), tap))) for tap in range(9)]

        def visit(each: Callable[[str, str, str], None]) -> None:
            def at_row(row: str, _: list[str]) -> list[str]:
                def at_block(j: str, _: list[str]) -> list[str]:
                    block = e.add(e.mul(row, "%row_blocks"), j)
                    offset = e.add(e.mul(row, wide), e.mul(j, lanes))
                    each(e.mul(block, lanes), e.at("%spare", offset), e.mul(j, lanes))
                    return []

                e.loop(0, "%row_blocks", 1, [], at_block)
                return []

            e.loop(0, "%rows", 1, [], at_row)

        def copy(offset: str, place: str, column: str) -> None:
            mask = e.load_elements(e.at("%mask", column))
            inside = e.at(place, e.add(wide, lanes))
            e.store(e.keep(e.load(e.at(x, offset)), mask), inside)

        def convolve(offset: str, place: str, column: str) -> None:
            total = "zeroinitializer"
            for dy in range(3):
                row = e.at(e.at(place, e.mul(wide, dy)), lanes)
                for dx in range(3):
                    total = e.fma(e.load(e.at(row, dx - 1)), weights[3 * dy + dx], total)
            mask = e.load_elements(e.at("%mask", column))
            e.store(e.keep(total, mask), e.at(out, offset))

        visit(copy)
        visit(convolve)
        return []

    e.loop("%first", "%end", 1, [], at_plane)
    return e
