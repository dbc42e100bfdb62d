"""The CPU engine's kernels for NAFBlocks: each half of a block in one pass over its map.

llvm_product.py says how maps and weights are stored.
"""

from collections.abc import Callable, Sequence

from mhnet_video.kernels.llvm_ir import Emitter, Machine
from mhnet_video.kernels.llvm_product import (
    Tile,
    deviation,
    each_output,
    product,
    product_to,
    statistics,
)

RING_ROWS = 4
"""Rows of a 1x1 convolution that `block_front` keeps, a power of two."""


def block_front(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """LayerNorm, 1x1 to 2C, depthwise 3x3, gate: rows y0 to y1 of a NAFBlock's first half.

    The rows of the 1x1 convolution stay in a ring of four, from which two at a time are made: their
    number is even. LayerNorm's gain, shift and centring are in the weights; only its division is
    left to do: behind the product, or before it where that comes out of tiles, which can go to the
    ring as they are then.
    """
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # map of C
            ("w1", "ptr"),  # [2C, C]
            ("b1", "ptr"),  # [2C] float32; with tiles [2C, L]
            ("wd", "ptr"),  # [C, 2, 10] float32: 3x3 and bias of a channel of both halves
            ("ring", "ptr"),  # [4, 2C, row_blocks + T, L] float32
            ("spare", "ptr"),  # [4, row_blocks, L] float32, or [row_blocks + T, C / G, L]
            ("tail", "ptr"),  # [L] all ones where the last block is inside the picture
            ("out", "ptr"),  # map of C
            ("sums", "ptr"),  # [C, L] float32, added to
            ("row_blocks", "i64"),
            ("rows", "i64"),
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    size = inputs * lanes
    stride = e.mul(e.add("%row_blocks", blocks), lanes)  # of a channel of the ring
    slot = e.mul(stride, 2 * channels)
    tail = e.load_elements("%tail")
    last = e.add("%row_blocks", -1)
    limit = e.add("%row_blocks", -blocks)
    some = e.op(f"icmp sgt i64 {limit}, 0")
    limit = e.op(f"select i1 {some}, i64 {limit}, i64 0")

    def ring_row(row: str) -> str:
        return e.at("%ring", e.mul(e.op(f"and i64 {row}, {RING_ROWS - 1}"), slot))

    def scales_of(x: str) -> list[str]:
        """One over the standard deviation of each pixel of a tile."""
        totals = [["zeroinitializer"] * 2 for _ in range(blocks)]
        for k in range(inputs) if inputs <= 16 else ():
            for t in range(blocks):
                value = e.load_elements(e.at(x, (t * inputs + k) * lanes))
                totals[t] = statistics(e, value, totals[t])
        if inputs > 16:

            def more(k: str, values: list[str]) -> list[str]:
                at = e.at(x, e.mul(k, lanes))
                result = []
                for t in range(blocks):
                    value = e.load_elements(e.at(at, t * size))
                    result += statistics(e, value, values[2 * t : 2 * t + 2])
                return result

            flat = e.loop(0, inputs, 1, [(e.vector, "zeroinitializer")] * 2 * blocks, more)
            totals = [flat[2 * t : 2 * t + 2] for t in range(blocks)]
        return [deviation(e, total, channels)[1] for total in totals]

    def at_tiles(body: Callable[[str], None]) -> None:
        """Do something for the first block of each tile of a row."""

        def at_tile(start: str, _: list[str]) -> list[str]:
            small = e.op(f"icmp slt i64 {start}, {limit}")
            body(e.op(f"select i1 {small}, i64 {start}, i64 {limit}"))
            return []

        e.loop(0, "%row_blocks", blocks, [], at_tile)

    def produce(row: str, target: str) -> None:
        line = e.at("%x", e.mul(e.mul(row, "%row_blocks"), size))

        def normalize(first: str) -> None:
            """Before the products of all tiles, which then find it in memory."""
            offset = e.mul(first, size)
            x, normal = e.at(line, offset), e.at("%spare", offset)
            scales = scales_of(x)

            def at_element(k: str | int) -> None:
                place = e.mul(k, lanes)
                for t in range(blocks):
                    values = e.unpack(e.load_elements(e.at(e.at(x, place), t * size)))
                    scaled = [e.fmul(value, scales[t]) for value in values]
                    e.store_elements(e.pack(scaled), e.at(e.at(normal, place), t * size))

            def at(k: str, _: list[str]) -> list[str]:
                at_element(k)
                return []

            if inputs > 8:
                e.loop(0, inputs, 1, [], at)
            else:
                for k in range(inputs):
                    at_element(k)

        def multiply_tiles(first: str) -> None:
            normal = e.at("%spare", e.mul(first, size))
            place = e.at(target, e.mul(first, lanes))

            def at_outputs(m0: str, _: list[str]) -> list[str]:
                w, begin = e.at("%w1", e.mul(m0, inputs)), e.at("%b1", e.mul(m0, lanes))
                there, distance = e.at(place, e.mul(m0, stride)), e.mul(stride, 4)
                product_to(e, tile, [(normal, inputs, size)], w, begin, there, distance)
                return []

            e.loop(0, 2 * channels, outputs, [], at_outputs)

        def multiply(first: str) -> None:
            x = e.at(line, e.mul(first, size))
            scales = scales_of(x)
            place = e.at(target, e.mul(first, lanes))

            def at_outputs(m0: str, _: list[str]) -> list[str]:
                values = product(e, tile, [(x, inputs, size)], e.at("%w1", e.mul(m0, inputs)))
                for m in range(outputs):
                    bias = e.broadcast(e.at("%b1", e.add(m0, m)))
                    there = e.at(place, e.mul(e.add(m0, m), stride))
                    for t, (value, scale) in enumerate(zip(values.row(m), scales, strict=True)):
                        e.store(e.fma(value, scale, bias), e.at(there, t * lanes))
                return []

            e.loop(0, 2 * channels, outputs, [], at_outputs)

        if machine.tiles:
            at_tiles(normalize)
            at_tiles(multiply_tiles)
        else:
            at_tiles(multiply)

    def mask_tail(target: str) -> None:
        def at_channel(m: str, _: list[str]) -> list[str]:
            there = e.at(target, e.add(e.mul(m, stride), e.mul(last, lanes)))
            e.store(e.keep(e.load(there), tail), there)
            return []

        e.loop(0, 2 * channels, 1, [], at_channel)

    def consume(row: str) -> None:
        """Two rows, which share what they read."""
        lines = [ring_row(e.add(row, offset)) for offset in range(-1, 3)]
        row_size = e.mul("%row_blocks", size)
        out_row = e.at("%out", e.mul(row, row_size))
        spare_row = e.mul("%row_blocks", lanes)
        # of the first half, and of a pair's first channel: `[2, row_blocks, L]` each
        spares = ["%spare", e.at("%spare", e.mul(spare_row, 2))]
        previous = [lanes - 1 + lane for lane in range(lanes)]
        following = [1 + lane for lane in range(lanes)]

        def convolve(
            k: str, half: int, carried: str, give: Callable[[str, list[str], str, bool], str]
        ) -> str:
            """A channel of both rows; `give` takes a block's results, and carries a vector."""
            at_weights = e.add(e.mul(k, 20), half * 10)
            w = [e.broadcast(e.at("%wd", e.add(at_weights, tap))) for tap in range(10)]
            offset = e.mul(e.add(k, half * channels), stride)
            planes = [e.at(line, offset) for line in lines]

            def columns(j: str | int, before: Sequence[str]) -> list[str]:
                """Of each row: left sums, whole ones but for the right, and right sums."""
                inputs_of = [e.load(e.at(plane, e.mul(j, lanes))) for plane in planes]
                result = []
                for r in (0, 1):
                    left, right = w[9], ""
                    for dy in range(3):
                        value = inputs_of[r + dy]
                        left = e.fma(value, w[3 * dy], left)
                        after = w[3 * dy + 2]
                        right = e.fma(value, after, right) if dy else e.fmul(value, after)
                    middle = e.shuffle(before[r], left, previous, "float")
                    for dy in range(3):
                        middle = e.fma(inputs_of[r + dy], w[3 * dy + 1], middle)
                    result += [left, middle, right]
                return result

            def finish(old: Sequence[str], rights: Sequence[str]) -> list[str]:
                return [
                    e.fadd(old[3 * r + 1], e.shuffle(old[3 * r + 2], rights[r], following, "float"))
                    for r in (0, 1)
                ]

            def at_block(j: str, values: list[str]) -> list[str]:
                old = values[:6]
                new = columns(j, old[::3])
                both = finish(old, new[2::3])
                return [*new, give(e.add(j, -1), both, values[6], False)]

            firsts = [(e.vector, value) for value in [*columns(0, [w[9]] * 2), carried]]
            final = e.loop(1, "%row_blocks", 1, firsts, at_block)
            both = finish(final[:6], ["zeroinitializer"] * 2)
            return give(last, both, final[6], True)

        def at_element(kk: str, _: list[str]) -> list[str]:
            out_column = e.at(out_row, e.mul(kk, lanes))

            def spare(number: int, r: int, j: str) -> str:
                return e.at(spares[number], e.add(e.mul(spare_row, r), e.mul(j, lanes)))

            def keep_first(j: str, values: list[str], total: str, _: bool) -> str:
                for r in (0, 1):
                    e.store(values[r], spare(0, r, j))
                return total

            def at_channel(g: int) -> None:
                k = e.add(e.mul(kk, group), g)

                def gate(j: str, values: list[str], total: str, is_last: bool) -> str:
                    for r in (0, 1):
                        value = e.fmul(e.load(spare(0, r, j)), values[r])
                        if is_last:
                            value = e.keep(value, tail)
                        total = e.fadd(total, value)
                        if g < group - 1:
                            e.store(value, spare(1, r, j))
                            continue
                        channels_of = [value] if group == 1 else [e.load(spare(1, r, j)), value]
                        place = e.add(e.mul(row_size, r), e.mul(j, size))
                        e.store_elements(e.pack(channels_of), e.at(out_column, place))
                    return total

                convolve(k, 0, "zeroinitializer", keep_first)
                sums = e.at("%sums", e.mul(k, lanes))
                e.store(convolve(k, 1, e.load(sums), gate), sums)

            for g in range(group):
                at_channel(g)
            return []

        e.loop(0, inputs, 1, [], at_element)

    def at_row(row: str, _: list[str]) -> list[str]:
        target = ring_row(row)
        inside = e.op(f"icmp ult i64 {row}, %rows")
        outside = e.op(f"xor i1 {inside}, true")

        def clear() -> None:
            def at(offset: str, _: list[str]) -> list[str]:
                e.store("zeroinitializer", e.at(target, offset))
                return []

            e.loop(0, slot, lanes, [], at)

        def fill() -> None:
            produce(row, target)
            mask_tail(target)

        e.when(inside, fill)
        e.when(outside, clear)
        # with the second row below %y0, and every other one
        number = e.op(f"sub i64 {row}, %y0")
        later = e.op(f"icmp sgt i64 {number}, 0")
        parity = e.op(f"and i64 {number}, 1")
        is_even = e.op(f"icmp eq i64 {parity}, 0")
        ready = e.op(f"and i1 {later}, {is_even}")
        e.when(ready, lambda: consume(e.add(row, -2)))
        return []

    e.loop(e.add("%y0", -1), e.add("%y1", 1), 1, [], at_row)
    return e


def block_back(machine: Machine, name: str, channels: int, tile: Tile, *, twice: bool) -> Emitter:
    """1x1 and residual, LayerNorm, 1x1 to 2C, gate, 1x1 and residual; sums of the result.

    Args:
        machine: What it is made for.
        name: The function's.
        channels: C, a multiple of 8.
        tile: The tile.
        twice: Whether `more` is added as well.
    """
    e = Emitter(
        machine,
        name,
        [
            ("gated", "ptr"),  # map of C
            ("x", "ptr"),  # map of C
            ("more", "ptr"),  # map of C
            ("w3", "ptr"),  # [C, C], the attention in it
            ("b3", "ptr"),  # [C] float32
            ("w4", "ptr"),  # [2C, C], outputs i and C + i in one tile
            ("b4", "ptr"),  # [2C] float32
            ("w5", "ptr"),  # [C, C]
            ("b5", "ptr"),  # [C] float32
            ("mask", "ptr"),  # [blocks, L] all ones where a pixel is inside the picture
            ("out", "ptr"),  # map of C
            ("sums", "ptr"),  # [C, L] float32, added to
            ("first", "i64"),  # block
            ("end", "i64"),
        ],
    )
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    size = inputs * lanes
    wide = e.scratch(channels * lanes * blocks)  # [C, T, L] float32
    narrow = e.scratch(size * blocks)  # [T, C / G, L]
    mixed = e.scratch(size * blocks)

    def at_tile(block: str, _: list[str]) -> list[str]:
        offset = e.mul(block, size)
        gated, x, out = e.at("%gated", offset), e.at("%x", offset), e.at("%out", offset)
        more = e.at("%more", offset)

        def attend(m0: str, totals: list[str]) -> list[str]:
            values = product(e, tile, [(gated, inputs, size)], e.at("%w3", e.mul(m0, inputs)))
            element = e.op(f"udiv exact i64 {m0}, {group}")

            def give(pair: str | int, totals: list[str]) -> list[str]:
                result = list(totals)
                members = [e.add(e.mul(pair, group), g) for g in range(group)]
                rows = [values.row(m) for m in members]
                channel = [e.add(m0, m) for m in members]
                bias = [e.broadcast(e.at("%b3", m)) for m in channel]
                place = e.mul(e.add(element, pair), lanes)
                for t in range(blocks):
                    residual = e.unpack(e.load_elements(e.at(e.at(x, place), t * size)))
                    both = []
                    for g in range(group):
                        value = e.fadd(rows[g][t], bias[g])
                        both.append(e.fadd(value, residual[g]))
                        there = e.at(wide, e.mul(channel[g], lanes * blocks))
                        e.store(both[g], e.at(there, t * lanes))
                    packed = e.pack(both)
                    e.store_elements(packed, e.at(e.at(narrow, place), t * size))
                    result[2 * t : 2 * t + 2] = statistics(e, packed, result[2 * t : 2 * t + 2])
                return result

            return each_output(e, tile, outputs // group, totals, give)

        nothing = [(e.vector, "zeroinitializer")] * (2 * blocks)
        totals = e.loop(0, channels, outputs, nothing, attend)
        scales = [deviation(e, totals[2 * t : 2 * t + 2], channels)[1] for t in range(blocks)]
        half = outputs // 2

        def gate(k0: str, _: list[str]) -> list[str]:
            values = product(e, tile, [(narrow, inputs, size)], e.at("%w4", e.mul(k0, 2 * inputs)))
            element = e.op(f"udiv exact i64 {k0}, {group}")

            def give(pair: str | int, _: list[str]) -> list[str]:
                place = e.mul(e.add(element, pair), lanes)
                members = [e.add(e.mul(pair, group), g) for g in range(group)]
                channel = [e.add(k0, m) for m in members]
                first = [e.broadcast(e.at("%b4", k)) for k in channel]
                second = [e.broadcast(e.at("%b4", e.add(k, channels))) for k in channel]
                left = [values.row(m) for m in members]
                right = [values.row(e.add(m, half)) for m in members]
                for t in range(blocks):
                    both = []
                    for g in range(group):
                        one = e.fma(left[g][t], scales[t], first[g])
                        other = e.fma(right[g][t], scales[t], second[g])
                        both.append(e.fmul(one, other))
                    e.store_elements(e.pack(both), e.at(e.at(mixed, place), t * size))
                return []

            each_output(e, tile, half // group, [], give)
            return []

        e.loop(0, channels, half, [], gate)
        masks = [
            e.load_elements(e.at("%mask", e.add(e.mul(block, lanes), t * lanes)))
            for t in range(blocks)
        ]

        def add(m0: str, _: list[str]) -> list[str]:
            values = product(e, tile, [(mixed, inputs, size)], e.at("%w5", e.mul(m0, inputs)))
            element = e.op(f"udiv exact i64 {m0}, {group}")

            def give(pair: str | int, _: list[str]) -> list[str]:
                place = e.mul(e.add(element, pair), lanes)
                members = [e.add(e.mul(pair, group), g) for g in range(group)]
                rows = [values.row(m) for m in members]
                channel = [e.add(m0, m) for m in members]
                bias = [e.broadcast(e.at("%b5", m)) for m in channel]
                sums = [e.at("%sums", e.mul(m, lanes)) for m in channel]
                pooled = [e.load(each) for each in sums]
                for t in range(blocks):
                    both = []
                    again = ["zeroinitializer"] * group
                    if twice:
                        again = e.unpack(e.load_elements(e.at(e.at(more, place), t * size)))
                    for g in range(group):
                        row = e.at(wide, e.mul(channel[g], lanes * blocks))
                        value = e.fadd(e.load(e.at(row, t * lanes)), bias[g])
                        if twice:
                            value = e.fadd(value, again[g])
                        value = e.fadd(value, rows[g][t])
                        pooled[g] = e.fadd(pooled[g], e.keep(value, masks[t]))
                        both.append(value)
                    e.store_elements(e.pack(both), e.at(e.at(out, place), t * size))
                for g in range(group):
                    e.store(pooled[g], sums[g])
                return []

            each_output(e, tile, outputs // group, [], give)
            return []

        e.loop(0, channels, outputs, [], add)
        return []

    e.loop("%first", "%end", blocks, [], at_tile)
    return e
