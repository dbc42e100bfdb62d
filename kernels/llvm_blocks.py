"""The engine's kernels for CPUs: each covers what it can of the network in one pass over a map.

A map of C channels is stored as `[rows, blocks, C / G, L]` 32-bit elements: blocks of L pixels of
a row, G channels to an element (llvm_ir.Machine). A row's last block may hold pixels beyond the
picture: what they hold is never mixed with others. Weights of a matrix product are
`[M / B, K / G, B]` elements, so that B outputs of T blocks stay in registers while their inputs
pass by. The planes of a 3x3 convolution are `[rows + 2, K / G, margin + row + margin]`, zero around
the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mhnet_video.kernels.llvm_ir import Emitter, Machine


@dataclass(frozen=True)
class Tile:
    """How a matrix product is cut."""

    blocks: int
    """Blocks of L pixels at a time, T."""
    outputs: int
    """Outputs at a time, B."""


def choose_tile(machine: Machine, row_blocks: int, *, group_outputs: int) -> Tile:
    """The tile that fits the registers and wastes least at the end of rows.

    Args:
        machine: What the kernel is made for.
        row_blocks: Blocks of a row.
        group_outputs: What the outputs of a tile must be a multiple of.
    """
    many = machine.registers > 16
    candidates = ((3, 8), (4, 4), (5, 4), (2, 8)) if many else ((3, 4), (2, 4))
    if many and not machine.bfloat16:
        # elements of one channel are twice as many: a small tile stays in the first cache
        candidates = ((2, 8), (3, 8), (4, 4), (5, 4))
    fitting = [Tile(*each) for each in candidates if each[1] % group_outputs == 0]
    return min(fitting, key=lambda tile: -(-row_blocks // tile.blocks) * tile.blocks)


def product(
    e: Emitter,
    tile: Tile,
    sources: Sequence[tuple[str, int, int]],
    weights: str,
    totals: Sequence[str],
) -> list[str]:
    """Add a matrix product.

    Args:
        e: Where to write it.
        tile: Its tile.
        sources: Where the inputs are: address of the first block, elements of a pixel, and how
            many elements lie between blocks.
        weights: Address of the weights of these outputs.
        totals: What to add to, output by output, block by block.

    Returns:
        The new totals.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    done = 0
    current = list(totals)
    for base, inputs, stride in sources:
        unroll = inputs if inputs <= 8 else next(u for u in (4, 3, 2, 1) if inputs % u == 0)

        def step(
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
            current = step(0, current)
        else:
            current = e.loop(0, inputs, unroll, [(e.vector, v) for v in current], step)
        done += inputs
    return current


def _statistics(e: Emitter, x: str, totals: Sequence[str]) -> list[str]:
    """Add an element's channels to the sum and to the sum of squares."""
    return [e.dot(totals[0], x, e.ones()), e.dot(totals[1], x, x)]


def _deviation(e: Emitter, totals: Sequence[str], channels: int) -> tuple[str, str]:
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


def block_front(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """LayerNorm, 1x1 to 2C, depthwise 3x3, gate: rows y0 to y1 of a NAFBlock's first half.

    The rows of the 1x1 convolution stay in a ring of three. LayerNorm's gain, shift and centring
    are in the weights; only its division is left to do.
    """
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # map of C
            ("w1", "ptr"),  # [2C, C]
            ("b1", "ptr"),  # [2C] float32
            ("wd", "ptr"),  # [C, 2, 10] float32: 3x3 and bias of a channel of both halves
            ("ring", "ptr"),  # [3, 2C, row_blocks + T, L] float32
            ("spare", "ptr"),  # [row_blocks, L] float32
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
    stride = e.mul(e.add("%row_blocks", blocks), lanes)  # of a channel of the ring
    slot = e.mul(stride, 2 * channels)
    tail = e.load_elements("%tail")
    last = e.add("%row_blocks", -1)
    limit = e.add("%row_blocks", -blocks)
    some = e.op(f"icmp sgt i64 {limit}, 0")
    limit = e.op(f"select i1 {some}, i64 {limit}, i64 0")

    def ring_row(row: str) -> str:
        return e.at("%ring", e.mul(e.op(f"urem i64 {e.add(row, 3)}, 3"), slot))

    def produce(row: str, target: str) -> None:
        def at_tile(start: str, _: list[str]) -> list[str]:
            small = e.op(f"icmp slt i64 {start}, {limit}")
            first = e.op(f"select i1 {small}, i64 {start}, i64 {limit}")
            block = e.add(e.mul(row, "%row_blocks"), first)
            x = e.at("%x", e.mul(block, inputs * lanes))
            totals = [["zeroinitializer"] * 2 for _ in range(blocks)]
            for k in range(inputs) if inputs <= 16 else ():
                for t in range(blocks):
                    value = e.load_elements(e.at(x, (t * inputs + k) * lanes))
                    totals[t] = _statistics(e, value, totals[t])
            if inputs > 16:

                def more(k: str, values: list[str]) -> list[str]:
                    at = e.at(x, e.mul(k, lanes))
                    result = []
                    for t in range(blocks):
                        value = e.load_elements(e.at(at, t * inputs * lanes))
                        result += _statistics(e, value, values[2 * t : 2 * t + 2])
                    return result

                flat = e.loop(0, inputs, 1, [(e.vector, "zeroinitializer")] * 2 * blocks, more)
                totals = [flat[2 * t : 2 * t + 2] for t in range(blocks)]
            scales = [_deviation(e, total, channels)[1] for total in totals]
            place = e.at(target, e.mul(first, lanes))

            def at_outputs(m0: str, _: list[str]) -> list[str]:
                w = e.at("%w1", e.mul(m0, inputs))
                values = product(
                    e,
                    tile,
                    [(x, inputs, inputs * lanes)],
                    w,
                    ["zeroinitializer"] * (outputs * blocks),
                )
                for m in range(outputs):
                    bias = e.broadcast(e.at("%b1", e.add(m0, m)))
                    there = e.at(place, e.mul(e.add(m0, m), stride))
                    for t in range(blocks):
                        value = e.fma(values[m * blocks + t], scales[t], bias)
                        e.store(value, e.at(there, t * lanes))
                return []

            e.loop(0, 2 * channels, outputs, [], at_outputs)
            return []

        e.loop(0, "%row_blocks", blocks, [], at_tile)

    def mask_tail(target: str) -> None:
        def at_channel(m: str, _: list[str]) -> list[str]:
            there = e.at(target, e.add(e.mul(m, stride), e.mul(last, lanes)))
            e.store(e.keep(e.load(there), tail), there)
            return []

        e.loop(0, 2 * channels, 1, [], at_channel)

    def consume(row: str) -> None:
        above, here, below = (ring_row(e.add(row, offset)) for offset in (-1, 0, 1))
        out_row = e.at("%out", e.mul(e.mul(row, "%row_blocks"), inputs * lanes))
        previous = [lanes - 1 + lane for lane in range(lanes)]
        following = [1 + lane for lane in range(lanes)]

        def at_element(kk: str, _: list[str]) -> list[str]:
            def at_channel(g: int) -> None:
                k = e.add(e.mul(kk, group), g)
                weights = [
                    [
                        e.broadcast(e.at("%wd", e.add(e.mul(k, 20), half * 10 + tap)))
                        for tap in range(10)
                    ]
                    for half in (0, 1)
                ]
                planes = [
                    [
                        e.at(base, e.mul(e.add(k, half * channels), stride))
                        for base in (above, here, below)
                    ]
                    for half in (0, 1)
                ]
                out_column = e.at(out_row, e.mul(kk, lanes))

                def columns(j: str | int, half: int, carried: Sequence[str]) -> list[str]:
                    """Left sums, whole but for the right ones, and right sums of a block."""
                    rows = [
                        e.load(e.at(plane, e.mul(j, lanes) if j != 0 else 0))
                        for plane in planes[half]
                    ]
                    w = weights[half]
                    left, middle, right = w[9], "", ""
                    for dy in range(3):
                        left = e.fma(rows[dy], w[3 * dy], left)
                        right = (
                            e.fma(rows[dy], w[3 * dy + 2], right) if dy else e.fmul(rows[dy], w[2])
                        )
                    middle = e.shuffle(carried[0], left, previous, "float")
                    for dy in range(3):
                        middle = e.fma(rows[dy], w[3 * dy + 1], middle)
                    return [left, middle, right]

                def give(j: str, first: str, second: str, total: str, is_last: bool = False) -> str:
                    product = e.fmul(first, second)
                    if is_last:
                        product = e.keep(product, tail)
                    spare = e.at("%spare", e.mul(j, lanes))
                    if g < group - 1:
                        e.store(product, spare)
                    else:
                        channels_of = [product] if group == 1 else [e.load(spare), product]
                        place = e.at(out_column, e.mul(j, inputs * lanes))
                        e.store_elements(e.pack(channels_of), place)
                    return e.fadd(total, product)

                def finish(carried: Sequence[str], right: str) -> str:
                    return e.fadd(carried[1], e.shuffle(carried[2], right, following, "float"))

                firsts = []
                for half in (0, 1):
                    firsts += columns(0, half, [weights[half][9]])

                def at_block(j: str, values: list[str]) -> list[str]:
                    result, both = [], []
                    for half in (0, 1):
                        old = values[3 * half : 3 * half + 3]
                        new = columns(j, half, old)
                        both.append(finish(old, new[2]))
                        result += new
                    return [*result, give(e.add(j, -1), both[0], both[1], values[6])]

                sums = e.at("%sums", e.mul(k, lanes))
                carried = [(e.vector, value) for value in [*firsts, e.load(sums)]]
                final = e.loop(1, "%row_blocks", 1, carried, at_block)
                both = [finish(final[3 * h : 3 * h + 3], "zeroinitializer") for h in (0, 1)]
                e.store(give(last, both[0], both[1], final[6], True), sums)

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
        ready = e.op(f"icmp sgt i64 {row}, %y0")
        e.when(ready, lambda: consume(e.add(row, -1)))
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
    zeros = ["zeroinitializer"] * (outputs * blocks)

    def at_tile(block: str, _: list[str]) -> list[str]:
        offset = e.mul(block, size)
        gated, x, out = e.at("%gated", offset), e.at("%x", offset), e.at("%out", offset)
        more = e.at("%more", offset)

        def attend(m0: str, totals: list[str]) -> list[str]:
            values = product(
                e, tile, [(gated, inputs, size)], e.at("%w3", e.mul(m0, inputs)), zeros
            )
            result = list(totals)
            element = e.op(f"udiv exact i64 {m0}, {group}")
            for pair in range(outputs // group):
                bias = [e.broadcast(e.at("%b3", e.add(m0, pair * group + g))) for g in range(group)]
                place = e.mul(e.add(element, pair), lanes)
                for t in range(blocks):
                    residual = e.unpack(e.load_elements(e.at(e.at(x, place), t * size)))
                    both = []
                    for g in range(group):
                        value = e.fadd(values[(pair * group + g) * blocks + t], bias[g])
                        both.append(e.fadd(value, residual[g]))
                        m = e.mul(e.add(m0, pair * group + g), lanes * blocks)
                        e.store(both[g], e.at(e.at(wide, m), t * lanes))
                    packed = e.pack(both)
                    e.store_elements(packed, e.at(e.at(narrow, place), t * size))
                    result[2 * t : 2 * t + 2] = _statistics(e, packed, result[2 * t : 2 * t + 2])
            return result

        nothing = [(e.vector, "zeroinitializer")] * (2 * blocks)
        totals = e.loop(0, channels, outputs, nothing, attend)
        scales = [_deviation(e, totals[2 * t : 2 * t + 2], channels)[1] for t in range(blocks)]
        half = outputs // 2

        def gate(k0: str, _: list[str]) -> list[str]:
            values = product(
                e,
                tile,
                [(narrow, inputs, size)],
                e.at("%w4", e.mul(k0, 2 * inputs)),
                zeros,
            )
            element = e.op(f"udiv exact i64 {k0}, {group}")
            for pair in range(half // group):
                place = e.mul(e.add(element, pair), lanes)
                channel = [e.add(k0, pair * group + g) for g in range(group)]
                first = [e.broadcast(e.at("%b4", k)) for k in channel]
                second = [e.broadcast(e.at("%b4", e.add(k, channels))) for k in channel]
                for t in range(blocks):
                    both = []
                    for g in range(group):
                        m = pair * group + g
                        left = e.fma(values[m * blocks + t], scales[t], first[g])
                        right = e.fma(values[(half + m) * blocks + t], scales[t], second[g])
                        both.append(e.fmul(left, right))
                    e.store_elements(e.pack(both), e.at(e.at(mixed, place), t * size))
            return []

        e.loop(0, channels, half, [], gate)
        masks = [
            e.load_elements(e.at("%mask", e.add(e.mul(block, lanes), t * lanes)))
            for t in range(blocks)
        ]

        def add(m0: str, _: list[str]) -> list[str]:
            values = product(
                e, tile, [(mixed, inputs, size)], e.at("%w5", e.mul(m0, inputs)), zeros
            )
            element = e.op(f"udiv exact i64 {m0}, {group}")
            for pair in range(outputs // group):
                place = e.mul(e.add(element, pair), lanes)
                channel = [e.add(m0, pair * group + g) for g in range(group)]
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
                        value = e.fadd(value, values[(pair * group + g) * blocks + t])
                        pooled[g] = e.fadd(pooled[g], e.keep(value, masks[t]))
                        both.append(value)
                    e.store_elements(e.pack(both), e.at(e.at(out, place), t * size))
                for g in range(group):
                    e.store(pooled[g], sums[g])
            return []

        e.loop(0, channels, outputs, [], add)
        return []

    e.loop("%first", "%end", blocks, [], at_tile)
    return e


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
                bias = [e.broadcast(e.at("%bias", e.add(m0, m))) for m in range(outputs)]
                values = product(
                    e,
                    tile,
                    [(gathered, 4 * inputs, scratch_size)],
                    e.at("%w", e.mul(m0, 4 * inputs)),
                    [bias[m] for m in range(outputs) for _ in range(blocks)],
                )
                element = e.op(f"udiv exact i64 {m0}, {group}")
                for pair in range(outputs // group):
                    place = e.mul(e.add(element, pair), lanes)
                    for t in range(blocks):
                        both = [values[(pair * group + g) * blocks + t] for g in range(group)]
                        packed = e.pack(both)
                        inside = e.op(f"icmp slt i64 {e.add(start, t)}, %small_blocks")
                        there = e.at(e.at(out, place), t * size)
                        e.store_when(inside, packed, there)
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
                values = product(
                    e,
                    tile,
                    [(x, inputs, inputs * lanes)],
                    e.at("%w", e.mul(m0, inputs)),
                    ["zeroinitializer"] * (outputs * blocks),
                )
                unit0 = e.op(f"udiv exact i64 {m0}, {unit}")
                for u in range(outputs // unit):
                    number = e.add(unit0, u)
                    element = e.op(f"lshr i64 {number}, 1")
                    dy = e.op(f"and i64 {number}, 1")
                    above = e.mul(e.add(e.mul(row, 2), dy), "%large_blocks")
                    offset = e.add(
                        e.mul(e.add(above, e.mul(start, 2)), large_size), e.mul(element, lanes)
                    )
                    for t in range(blocks):
                        here = [e.add(offset, (2 * t + dx) * large_size) for dx in (0, 1)]
                        both = [
                            [values[(u * unit + dx * group + g) * blocks + t] for g in range(group)]
                            for dx in (0, 1)
                        ]
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
            values = product(
                e,
                tile,
                [(a, inputs, size), (b, inputs, size)],
                e.at("%w", e.mul(m0, 2 * inputs)),
                ["zeroinitializer"] * (outputs * blocks),
            )
            result = list(totals)
            element = e.op(f"udiv exact i64 {m0}, {group}")
            for pair in range(outputs // group):
                share = [
                    e.broadcast(e.at("%share", e.add(m0, pair * group + g))) for g in range(group)
                ]
                place = e.mul(e.add(element, pair), lanes)
                for t in range(blocks):
                    old = e.unpack(e.load_elements(e.at(e.at(x, place), t * size)))
                    for g in range(group):
                        m = pair * group + g
                        value = e.fma(old[g], share[g], values[m * blocks + t])
                        row = e.at(wide, e.mul(e.add(m0, m), lanes * blocks))
                        e.store(value, e.at(row, t * lanes))
                        result[2 * t] = e.fadd(result[2 * t], value)
                        result[2 * t + 1] = e.fma(value, value, result[2 * t + 1])
            return result

        nothing = [(e.vector, "zeroinitializer")] * (2 * blocks)
        totals = e.loop(0, channels, outputs, nothing, at_outputs)
        norms = [_deviation(e, totals[2 * t : 2 * t + 2], channels) for t in range(blocks)]

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
            values = product(
                e,
                tile,
                [(a, inputs, small_size), (b, inputs, small_size)],
                w,
                ["zeroinitializer"] * (outputs * blocks),
            )
            result = list(totals)
            element0 = e.op(f"udiv exact i64 {m0}, {unit}")
            for u in range(outputs // unit):
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
                            m = u * unit + dx * group + g
                            value = e.fma(unpacked[g], share[g], values[m * blocks + t])
                            place = e.at(wide, e.mul(channel[g], 2 * lanes * blocks))
                            e.store(value, e.at(place, (2 * t + dx) * lanes))
                            if not last:
                                result[i] = e.fadd(result[i], value)
                                result[i + 1] = e.fma(value, value, result[i + 1])
            return result

        nothing = [(e.vector, "zeroinitializer")] * (0 if last else 4 * blocks)
        totals = e.loop(0, 2 * channels, outputs, nothing, at_outputs)
        norms = [
            _deviation(e, totals[2 * i : 2 * i + 2], channels)
            for i in range(0 if last else 2 * blocks)
        ]

        def give(element: str, _: list[str]) -> list[str]:
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

        e.loop(0, elements, 1, [], give)

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
