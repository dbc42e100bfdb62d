"""The CPU engine's kernels between levels: a step down, a step up, and the fusion of hierarchies.

llvm_product.py says how maps and weights are stored.
"""

from collections.abc import Callable, Sequence

from mhnet_video.kernels.llvm_ir import Emitter, Machine
from mhnet_video.kernels.llvm_product import Tile, deviation, each_output, product


def halve(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """The 2x2 convolution with stride 2, from C to 2C: rows y0 to y1 of the smaller map."""
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # map of C
            ("w", "ptr"),  # [2C, 4C], inputs row by row, column by column
            ("bias", "ptr"),  # [2C] float32
            ("out", "ptr"),  # map of 2C
            ("large_blocks", "i64"),  # of a row of x
            ("small_blocks", "i64"),  # of a row of out
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    gathered = e.scratch(4 * inputs * lanes * blocks)  # [T, 2, 2, C / G, L]
    size = 2 * inputs * lanes  # of a block of the smaller map
    scratch_size = 4 * inputs * lanes

    def at_row(row: str, _: list[str]) -> list[str]:
        def at_tile(start: str, _: list[str]) -> list[str]:

            def gather_row(dy: int) -> None:
                above = e.mul(e.add(e.mul(row, 2), dy), "%large_blocks")
                source = e.at("%x", e.mul(e.add(above, e.mul(start, 2)), inputs * lanes))

                def gather(k: str, _: list[str]) -> list[str]:
                    at = e.at(source, e.mul(k, lanes))
                    to = e.at(gathered, e.mul(k, lanes))
                    for t in range(blocks):
                        a = e.load_elements(e.at(at, 2 * t * inputs * lanes))
                        b = e.load_elements(e.at(at, (2 * t + 1) * inputs * lanes))
                        for dx, value in enumerate(e.deinterleave(a, b)):
                            place = t * scratch_size + (2 * dy + dx) * inputs * lanes
                            e.store_elements(value, e.at(to, place))
                    return []

                e.loop(0, inputs, 1, [], gather)

            for dy in (0, 1):
                gather_row(dy)
            block = e.add(e.mul(row, "%small_blocks"), start)
            out = e.at("%out", e.mul(block, size))

            def at_outputs(m0: str, _: list[str]) -> list[str]:
                values = product(
                    e,
                    tile,
                    [(gathered, 4 * inputs, scratch_size)],
                    e.at("%w", e.mul(m0, 4 * inputs)),
                    e.at("%bias", m0),
                )
                element = e.op(f"udiv exact i64 {m0}, {group}")

                def give(pair: str | int, _: list[str]) -> list[str]:
                    place = e.mul(e.add(element, pair), lanes)
                    rows = [values.row(e.add(e.mul(pair, group), g)) for g in range(group)]
                    for t, both in enumerate(zip(*rows, strict=True)):
                        packed = e.pack(both)
                        inside = e.op(f"icmp slt i64 {e.add(start, t)}, %small_blocks")
                        there = e.at(e.at(out, place), t * size)
                        e.store_when(inside, packed, there)
                    return []

                each_output(e, tile, outputs // group, [], give)
                return []

            e.loop(0, 2 * channels, outputs, [], at_outputs)
            return []

        e.loop(0, "%small_blocks", blocks, [], at_tile)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


def double(machine: Machine, name: str, channels: int, tile: Tile, *, skip: bool) -> Emitter:
    """The 1x1 convolution from C to 2C, shuffled to twice the sides: rows y0 to y1 of the smaller.

    Args:
        machine: What it is made for.
        name: The function's.
        channels: C, a multiple of 16.
        tile: The tile.
        skip: Whether a map is added to the result.
    """
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # map of C
            ("w", "ptr"),  # [2C, C], outputs ordered [C / 2 / G, dy, dx, G]
            ("skip", "ptr"),  # map of C / 2
            ("out", "ptr"),  # map of C / 2
            ("small_blocks", "i64"),
            ("large_blocks", "i64"),
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    large_size = inputs // 2 * lanes  # of a block of the larger map
    unit = 2 * group

    def at_row(row: str, _: list[str]) -> list[str]:
        def at_tile(start: str, _: list[str]) -> list[str]:
            block = e.add(e.mul(row, "%small_blocks"), start)
            x = e.at("%x", e.mul(block, inputs * lanes))

            def at_outputs(m0: str, _: list[str]) -> list[str]:
                w = e.at("%w", e.mul(m0, inputs))
                values = product(e, tile, [(x, inputs, inputs * lanes)], w)
                unit0 = e.op(f"udiv exact i64 {m0}, {unit}")

                def give(u: str | int, _: list[str]) -> list[str]:
                    rows = [values.row(e.add(e.mul(u, unit), n)) for n in range(unit)]
                    number = e.add(unit0, u)
                    element = e.op(f"lshr i64 {number}, 1")
                    dy = e.op(f"and i64 {number}, 1")
                    above = e.mul(e.add(e.mul(row, 2), dy), "%large_blocks")
                    offset = e.add(
                        e.mul(e.add(above, e.mul(start, 2)), large_size), e.mul(element, lanes)
                    )
                    for t in range(blocks):
                        here = [e.add(offset, (2 * t + dx) * large_size) for dx in (0, 1)]
                        both = [[rows[dx * group + g][t] for g in range(group)] for dx in (0, 1)]
                        if skip:
                            old = e.deinterleave(
                                *(e.load_elements(e.at("%skip", at)) for at in here)
                            )
                            both = [
                                [
                                    e.fadd(a, b)
                                    for a, b in zip(both[dx], e.unpack(old[dx]), strict=True)
                                ]
                                for dx in (0, 1)
                            ]
                        mixed = e.interleave(e.pack(both[0]), e.pack(both[1]))
                        for dx in (0, 1):
                            column = e.add(e.mul(start, 2), 2 * t + dx)
                            inside = e.op(f"icmp slt i64 {column}, %large_blocks")
                            there = e.at("%out", here[dx])
                            e.store_when(inside, mixed[dx], there)
                    return []

                each_output(e, tile, outputs // unit, [], give)
                return []

            e.loop(0, 2 * channels, outputs, [], at_outputs)
            return []

        e.loop(0, "%small_blocks", blocks, [], at_tile)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


def _normalized(
    e: Emitter, values: Callable[[int], Sequence[str]], scale: str, mean: str, element: str
) -> str:
    """LayerNorm of an element's channels, with its gain and shift."""
    group = e.machine.group
    both = []
    for g in range(group):
        channel = e.add(e.mul(element, group), g)
        centred = e.fmul(e.op(f"fsub {e.vector} {values(g)}, {mean}"), scale)
        gain = e.broadcast(e.at("%gain", channel))
        both.append(e.fma(centred, gain, e.broadcast(e.at("%shift", channel))))
    return e.pack(both)


def fuse(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """A weighted map plus a 1x1 convolution of two others, all of C, then LayerNorm."""
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # map of C
            ("share", "ptr"),  # [C] float32, of x
            ("a", "ptr"),  # map of C
            ("b", "ptr"),  # map of C
            ("w", "ptr"),  # [C, 2C]
            ("gain", "ptr"),  # [C] float32
            ("shift", "ptr"),  # [C] float32
            ("out", "ptr"),  # map of C
            ("first", "i64"),  # block
            ("end", "i64"),
        ],
    )
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    size = inputs * lanes
    wide = e.scratch(channels * lanes * blocks)  # [C, T, L] float32

    def at_tile(block: str, _: list[str]) -> list[str]:
        offset = e.mul(block, size)
        x, a, b, out = (e.at(base, offset) for base in ("%x", "%a", "%b", "%out"))

        def at_outputs(m0: str, totals: list[str]) -> list[str]:
            w = e.at("%w", e.mul(m0, 2 * inputs))
            values = product(e, tile, [(a, inputs, size), (b, inputs, size)], w)
            element = e.op(f"udiv exact i64 {m0}, {group}")

            def give(pair: str | int, totals: list[str]) -> list[str]:
                result = list(totals)
                members = [e.add(e.mul(pair, group), g) for g in range(group)]
                rows = [values.row(m) for m in members]
                channel = [e.add(m0, m) for m in members]
                share = [e.broadcast(e.at("%share", m)) for m in channel]
                place = e.mul(e.add(element, pair), lanes)
                for t in range(blocks):
                    old = e.unpack(e.load_elements(e.at(e.at(x, place), t * size)))
                    for g in range(group):
                        value = e.fma(old[g], share[g], rows[g][t])
                        row = e.at(wide, e.mul(channel[g], lanes * blocks))
                        e.store(value, e.at(row, t * lanes))
                        result[2 * t] = e.fadd(result[2 * t], value)
                        result[2 * t + 1] = e.fma(value, value, result[2 * t + 1])
                return result

            return each_output(e, tile, outputs // group, totals, give)

        nothing = [(e.vector, "zeroinitializer")] * (2 * blocks)
        totals = e.loop(0, channels, outputs, nothing, at_outputs)
        norms = [deviation(e, totals[2 * t : 2 * t + 2], channels) for t in range(blocks)]

        def normalize(element: str, _: list[str]) -> list[str]:
            for t in range(blocks):

                def value(g: int, t: int = t) -> str:
                    m = e.add(e.mul(element, group), g)
                    return e.load(e.at(e.at(wide, e.mul(m, lanes * blocks)), t * lanes))

                packed = _normalized(e, value, norms[t][1], norms[t][0], element)
                e.store_elements(packed, e.at(e.at(out, e.mul(element, lanes)), t * size))
            return []

        e.loop(0, inputs, 1, [], normalize)
        return []

    e.loop("%first", "%end", blocks, [], at_tile)
    return e


def fuse_double(machine: Machine, name: str, channels: int, tile: Tile, *, last: bool) -> Emitter:
    """`fuse`, with the two maps, of 2C, at half the sides: rows y0 to y1 of those.

    Args:
        machine: What it is made for.
        name: The function's.
        channels: C.
        tile: The tile.
        last: Whether to leave LayerNorm out, and to write the planes of a 3x3 convolution.
    """
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # map of C
            ("share", "ptr"),  # [C] float32, of x
            ("a", "ptr"),  # map of 2C at half the sides
            ("b", "ptr"),  # map of 2C at half the sides
            ("w", "ptr"),  # [4C, 4C], outputs ordered [dy, C / G, dx, G]
            ("gain", "ptr"),  # [C] float32
            ("shift", "ptr"),  # [C] float32
            ("tail", "ptr"),  # [L] all ones where a row's last block is inside the picture
            ("out", "ptr"),  # map of C, or planes
            ("plane", "i64"),  # elements of a row of a plane
            ("small_blocks", "i64"),
            ("large_blocks", "i64"),
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs, elements = 2 * channels // group, channels // group
    small_size, size = inputs * lanes, elements * lanes
    unit = 2 * group
    wide = e.scratch(2 * channels * lanes * blocks)  # [C, T, dx, L] float32
    tail = e.load_elements("%tail") if last else ""
    edge = e.add("%large_blocks", -1)

    def at_tile(row: str, dy: str, start: str) -> None:
        block = e.add(e.mul(row, "%small_blocks"), start)
        a, b = (e.at(base, e.mul(block, small_size)) for base in ("%a", "%b"))
        large_row = e.add(e.mul(row, 2), dy)
        large = e.add(e.mul(large_row, "%large_blocks"), e.mul(start, 2))
        x, out = e.at("%x", e.mul(large, size)), e.at("%out", e.mul(large, size))

        def at_outputs(m0: str, totals: list[str]) -> list[str]:
            w = e.at("%w", e.mul(e.add(e.mul(dy, 2 * channels), m0), 2 * inputs))
            values = product(e, tile, [(a, inputs, small_size), (b, inputs, small_size)], w)
            element0 = e.op(f"udiv exact i64 {m0}, {unit}")

            def give(u: str | int, totals: list[str]) -> list[str]:
                result = list(totals)
                rows = [values.row(e.add(e.mul(u, unit), n)) for n in range(unit)]
                element = e.add(element0, u)
                channel = [e.add(e.mul(element, group), g) for g in range(group)]
                share = [e.broadcast(e.at("%share", each)) for each in channel]
                at = e.at(x, e.mul(element, lanes))
                for t in range(blocks):
                    old = e.deinterleave(
                        *(e.load_elements(e.at(at, (2 * t + dx) * size)) for dx in (0, 1))
                    )
                    for dx in (0, 1):
                        unpacked = e.unpack(old[dx])
                        i = 2 * (2 * t + dx)
                        for g in range(group):
                            value = e.fma(unpacked[g], share[g], rows[dx * group + g][t])
                            place = e.at(wide, e.mul(channel[g], 2 * lanes * blocks))
                            e.store(value, e.at(place, (2 * t + dx) * lanes))
                            if not last:
                                result[i] = e.fadd(result[i], value)
                                result[i + 1] = e.fma(value, value, result[i + 1])
                return result

            return each_output(e, tile, outputs // unit, totals, give)

        nothing = [(e.vector, "zeroinitializer")] * (0 if last else 4 * blocks)
        totals = e.loop(0, 2 * channels, outputs, nothing, at_outputs)
        norms = [
            deviation(e, totals[2 * i : 2 * i + 2], channels)
            for i in range(0 if last else 2 * blocks)
        ]

        def write(element: str, _: list[str]) -> list[str]:
            for t in range(blocks):
                packed = []
                for dx in (0, 1):
                    i = 2 * t + dx

                    def value(g: int, i: int = i) -> str:
                        channel = e.add(e.mul(element, group), g)
                        place = e.at(wide, e.mul(channel, 2 * lanes * blocks))
                        return e.load(e.at(place, i * lanes))

                    if last:
                        packed.append(e.pack([value(g) for g in range(group)]))
                    else:
                        packed.append(_normalized(e, value, norms[i][1], norms[i][0], element))
                for dx, mixed in enumerate(e.interleave(*packed)):
                    column = e.add(e.mul(start, 2), 2 * t + dx)
                    inside = e.op(f"icmp slt i64 {column}, %large_blocks")
                    if last:
                        plane = e.add(e.mul(e.add(large_row, 1), elements), element)
                        at = e.add(e.mul(plane, "%plane"), e.mul(e.add(column, 1), lanes))
                        there = e.at("%out", at)
                        cut = e.op(f"icmp eq i64 {column}, {edge}")
                        kept = e.op(f"and {e.elements} {mixed}, {tail}")
                        mixed = e.op(f"select i1 {cut}, {e.elements} {kept}, {e.elements} {mixed}")
                    else:
                        there = e.at(e.at(out, e.mul(element, lanes)), (2 * t + dx) * size)
                    e.store_when(inside, mixed, there)
            return []

        e.loop(0, elements, 1, [], write)

    def at_row(row: str, _: list[str]) -> list[str]:
        def at_half(dy: str, _: list[str]) -> list[str]:
            def at_start(start: str, _: list[str]) -> list[str]:
                at_tile(row, dy, start)
                return []

            e.loop(0, "%small_blocks", blocks, [], at_start)
            return []

        e.loop(0, 2, 1, [], at_half)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e
