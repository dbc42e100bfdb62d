"""The CPU engine's kernels between levels: a step down, a step up, and the fusion of hierarchies.

llvm_product.py says how maps and weights are stored.
"""

from collections.abc import Sequence

from mhnet_video.kernels.llvm_int8_product import product_of, quantize_map
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, F32, FLOATS, I32, INDEX
from mhnet_video.kernels.llvm_product import Source, Tile, deviation, each_output, product
from mhnet_video.kernels.llvm_values import Value


def halve(machine: Machine, name: str, channels: int, tile: Tile, *, int8: bool) -> Emitter:
    """The 2x2 convolution with stride 2, from C to 2C: rows of the smaller map.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        channels: C.
        tile: The tile.
        int8: Whether the convolution is in int8.
    """
    e = Emitter(
        machine,
        name,
        x=ELEMENTS,  # map of C
        w=ELEMENTS,  # [2C, 4C], inputs row by row, column by column
        **({"levels": FLOATS} if int8 else {}),  # [2C, 2] float32, see product_int8
        bias=FLOATS,  # [2C] float32
        out=ELEMENTS,  # map of 2C
        large_blocks=INDEX,  # of a row of x
        small_blocks=INDEX,  # of a row of out
        first=INDEX,  # row
        end=INDEX,
    )
    p = e.parameters
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    gathered = e.scratch(I32, 4 * inputs * lanes * blocks)  # [T, 2, 2, C / G, L]
    size = 2 * inputs * lanes  # of a block of the smaller map
    scratch_size = 4 * inputs * lanes
    for row in e.loop(p.first, p.end):
        for start in e.loop(0, p.small_blocks, blocks):
            for dy in (0, 1):
                above = (row * 2 + dy) * p.large_blocks
                source = p.x + (above + start * 2) * (inputs * lanes)
                for k in e.loop(0, inputs):
                    at, to = source + k * lanes, gathered + k * lanes
                    for t in range(blocks):
                        a, b = (e.load(at + (2 * t + n) * inputs * lanes) for n in (0, 1))
                        for dx, value in enumerate(e.deinterleave(a, b)):
                            offset = t * scratch_size + (2 * dy + dx) * inputs * lanes
                            e.store(value, to + offset)
            block = row * p.small_blocks + start
            out = p.out + block * size
            square, units = Source(gathered, 4 * inputs, scratch_size), None
            if int8:
                square, units = quantize_map(e, tile, 4 * channels, gathered)
            for m0 in e.loop(0, 2 * channels, outputs):
                values = product_of(e, tile, square, units, m0, p.bias)
                element = m0.exact_div(group)
                for pair in each_output(e, tile, outputs // group):
                    position = (element + pair) * lanes
                    rows = [values.row(pair * group + g) for g in range(group)]
                    for t, both in enumerate(zip(*rows, strict=True)):
                        packed = e.pack(both)
                        inside = start + t < p.small_blocks
                        there = out + position + t * size
                        with e.when(inside):
                            e.store(packed, there)
    return e


def double(
    machine: Machine, name: str, channels: int, tile: Tile, *, skip: bool, int8: bool
) -> Emitter:
    """The 1x1 convolution from C to 2C, shuffled to twice the sides: rows of the smaller map.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        channels: C, a multiple of 16.
        tile: The tile.
        skip: Whether a map is added to the result.
        int8: Whether the convolution is in int8.
    """
    e = Emitter(
        machine,
        name,
        x=ELEMENTS,  # map of C
        w=ELEMENTS,  # [2C, C], outputs ordered [C / 2 / G, dy, dx, G]
        **({"levels": FLOATS} if int8 else {}),  # [2C, 2] float32, see product_int8
        skip=ELEMENTS,  # map of C / 2
        out=ELEMENTS,  # map of C / 2
        small_blocks=INDEX,
        large_blocks=INDEX,
        first=INDEX,  # row
        end=INDEX,
    )
    p = e.parameters
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    large_size = inputs // 2 * lanes  # of a block of the larger map
    unit = 2 * group

    def write(
        unit0: Value, u: Value | int, rows: list[list[Value]], row: Value, start: Value
    ) -> None:
        number = unit0 + u
        element, dy = number.lshr(1), number & 1
        above = (row * 2 + dy) * p.large_blocks
        offset = (above + start * 2) * large_size + element * lanes
        for t in range(blocks):
            here = [offset + (2 * t + dx) * large_size for dx in (0, 1)]
            both = [[rows[dx * group + g][t] for g in range(group)] for dx in (0, 1)]
            if skip:
                old = e.deinterleave(*(e.load(p.skip + at) for at in here))
                both = [
                    [a + b for a, b in zip(both[dx], e.unpack(old[dx]), strict=True)]
                    for dx in (0, 1)
                ]
            mixed = e.interleave(e.pack(both[0]), e.pack(both[1]))
            for dx in (0, 1):
                inside = start * 2 + (2 * t + dx) < p.large_blocks
                there = p.out + here[dx]
                with e.when(inside):
                    e.store(mixed[dx], there)

    for row in e.loop(p.first, p.end):
        for start in e.loop(0, p.small_blocks, blocks):
            block = row * p.small_blocks + start
            source, units = Source(p.x + block * (inputs * lanes), inputs, inputs * lanes), None
            if int8:
                source, units = quantize_map(e, tile, channels, source.base)
            for m0 in e.loop(0, 2 * channels, outputs):
                values = product_of(e, tile, source, units, m0)
                unit0 = m0.exact_div(unit)
                for u in each_output(e, tile, outputs // unit):
                    rows = [values.row(u * unit + n) for n in range(unit)]
                    write(unit0, u, rows, row, start)
    return e


def _normalized(e: Emitter, channel: Value, value: Value, scale: Value, mean: Value) -> Value:
    """LayerNorm of a channel, with its gain and shift."""
    centred = (value - mean) * scale
    gain = e.broadcast(e.parameters.gain + channel)
    return e.fma(centred, gain, e.broadcast(e.parameters.shift + channel))


def fuse(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """A weighted map plus a 1x1 convolution of two others, all of C, then LayerNorm."""
    e = Emitter(
        machine,
        name,
        x=ELEMENTS,  # map of C
        share=FLOATS,  # [C] float32, of x
        a=ELEMENTS,  # map of C
        b=ELEMENTS,  # map of C
        w=ELEMENTS,  # [C, 2C]
        gain=FLOATS,  # [C] float32
        shift=FLOATS,  # [C] float32
        out=ELEMENTS,  # map of C
        first=INDEX,  # block
        end=INDEX,
    )
    p = e.parameters
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    size = inputs * lanes
    wide = e.scratch(F32, channels * lanes * blocks)  # [C, T, L] float32
    for block in e.loop(p.first, p.end, blocks):
        offset = block * size
        x, a, b, out = (base + offset for base in (p.x, p.a, p.b, p.out))
        totals = [e.zero()] * (2 * blocks)
        for m0 in e.loop(0, channels, outputs, totals):
            w = p.w + m0 * (2 * inputs)
            sources = [Source(a, inputs, size), Source(b, inputs, size)]
            values = product(e, tile, sources, w)
            element = m0.exact_div(group)
            for pair in each_output(e, tile, outputs // group, totals):
                members = [pair * group + g for g in range(group)]
                rows = [values.row(m) for m in members]
                channel = [m0 + m for m in members]
                share = [e.broadcast(p.share + m) for m in channel]
                position = (element + pair) * lanes
                for t in range(blocks):
                    old = e.unpack(e.load(x + position + t * size))
                    for g in range(group):
                        value = e.fma(old[g], share[g], rows[g][t])
                        row = wide + channel[g] * (lanes * blocks)
                        e.store(value, row + t * lanes)
                        totals[2 * t] = totals[2 * t] + value
                        totals[2 * t + 1] = e.fma(value, value, totals[2 * t + 1])
        norms = [deviation(e, totals[2 * t : 2 * t + 2], channels) for t in range(blocks)]
        for element in e.loop(0, inputs):
            for t, (mean, scale) in enumerate(norms):
                both = []
                for g in range(group):
                    m = element * group + g
                    value = e.load(wide + m * (lanes * blocks) + t * lanes)
                    both.append(_normalized(e, m, value, scale, mean))
                e.store(e.pack(both), out + element * lanes + t * size)
    return e


def fuse_double(machine: Machine, name: str, channels: int, tile: Tile, *, last: bool) -> Emitter:
    """`fuse`, with the two maps, of 2C, at half the sides: rows of those.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        channels: C.
        tile: The tile.
        last: Whether to leave LayerNorm out, and to write the planes of a 3x3 convolution.
    """
    e = Emitter(
        machine,
        name,
        x=ELEMENTS,  # map of C
        share=FLOATS,  # [C] float32, of x
        a=ELEMENTS,  # map of 2C at half the sides
        b=ELEMENTS,  # map of 2C at half the sides
        w=ELEMENTS,  # [4C, 4C], outputs ordered [dy, C / G, dx, G]
        gain=FLOATS,  # [C] float32
        shift=FLOATS,  # [C] float32
        tail=ELEMENTS,  # [L] all ones where a row's last block is inside the picture
        out=ELEMENTS,  # map of C, or planes
        plane=INDEX,  # elements of a row of a plane
        small_blocks=INDEX,
        large_blocks=INDEX,
        first=INDEX,  # row
        end=INDEX,
    )
    p = e.parameters
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs, elements = 2 * channels // group, channels // group
    small_size, size = inputs * lanes, elements * lanes
    unit = 2 * group
    wide = e.scratch(F32, 2 * channels * lanes * blocks)  # [C, T, dx, L] float32
    tail = e.load(p.tail) if last else None
    edge = p.large_blocks - 1

    def add(x: Value, element: Value, rows: list[list[Value]], totals: list[Value]) -> None:
        """Add an element of the larger map to what the convolution gives for it."""
        channel = [element * group + g for g in range(group)]
        share = [e.broadcast(p.share + each) for each in channel]
        at = x + element * lanes
        for t in range(blocks):
            old = e.deinterleave(*(e.load(at + (2 * t + dx) * size) for dx in (0, 1)))
            for dx in (0, 1):
                unpacked = e.unpack(old[dx])
                i = 2 * (2 * t + dx)
                for g in range(group):
                    value = e.fma(unpacked[g], share[g], rows[dx * group + g][t])
                    position = wide + channel[g] * (2 * lanes * blocks)
                    e.store(value, position + (2 * t + dx) * lanes)
                    if not last:
                        totals[i] = totals[i] + value
                        totals[i + 1] = e.fma(value, value, totals[i + 1])

    def finish(element: Value, norms: Sequence[tuple[Value, Value]], i: int) -> Value:
        """An element of one of a tile's `2 * T` vectors, normalized unless this is the last."""
        both = []
        for g in range(group):
            channel = element * group + g
            value = e.load(wide + channel * (2 * lanes * blocks) + i * lanes)
            if not last:
                mean, scale = norms[i]
                value = _normalized(e, channel, value, scale, mean)
            both.append(value)
        return e.pack(both)

    def at_tile(row: Value, dy: Value, start: Value) -> None:
        block = row * p.small_blocks + start
        a, b = (base + block * small_size for base in (p.a, p.b))
        large_row = row * 2 + dy
        large = large_row * p.large_blocks + start * 2
        x, out = p.x + large * size, p.out + large * size
        totals = [e.zero()] * (0 if last else 4 * blocks)
        for m0 in e.loop(0, 2 * channels, outputs, totals):
            w = p.w + (dy * (2 * channels) + m0) * (2 * inputs)
            sources = [Source(a, inputs, small_size), Source(b, inputs, small_size)]
            values = product(e, tile, sources, w)
            element0 = m0.exact_div(unit)
            for u in each_output(e, tile, outputs // unit, totals):
                rows = [values.row(u * unit + n) for n in range(unit)]
                add(x, element0 + u, rows, totals)
        norms = [
            deviation(e, totals[2 * i : 2 * i + 2], channels)
            for i in range(0 if last else 2 * blocks)
        ]
        for element in e.loop(0, elements):
            for t in range(blocks):
                packed = [finish(element, norms, 2 * t + dx) for dx in (0, 1)]
                for dx, mixed in enumerate(e.interleave(*packed)):
                    column = start * 2 + (2 * t + dx)
                    inside = column < p.large_blocks
                    if tail is None:
                        there = out + element * lanes + (2 * t + dx) * size
                    else:
                        plane = (large_row + 1) * elements + element
                        there = p.out + (plane * p.plane + (column + 1) * lanes)
                        is_edge = column.equals(edge)
                        mixed = e.select(is_edge, mixed & tail, mixed)
                    with e.when(inside):
                        e.store(mixed, there)

    for row in e.loop(p.first, p.end):
        for dy in e.loop(0, 2):
            for start in e.loop(0, p.small_blocks, blocks):
                at_tile(row, dy, start)
    return e
