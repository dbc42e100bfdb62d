"""The CPU engine's kernels for the selective attention, which sees few pixels of many channels.

llvm_product.py says what maps are. Planes here are float32 `[C, blocks * L]`.
"""

from collections.abc import Callable, Sequence

from mhnet_video.kernels.llvm_ir import Emitter, Machine
from mhnet_video.kernels.llvm_product import Tile, each_output, product


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
            values = product(e, tile, [(x, inputs, size)], e.at("%w", e.mul(m0, inputs)))

            def give(m: str | int, _: list[str]) -> list[str]:
                row = e.at("%out", e.add(e.mul(e.add(m0, m), "%plane"), e.mul(block, lanes)))
                for t, value in enumerate(values.row(m)):
                    e.store(value, e.at(row, t * lanes))
                return []

            each_output(e, tile, outputs, [], give)
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


def gram(machine: Machine, name: str, channels: int) -> Emitter:
    """Cosines between the queries and the keys of heads first to end, times the temperature.

    Args:
        machine: What it is made for.
        name: The function's.
        channels: c, of a head; a multiple of 4.
    """
    e = Emitter(
        machine,
        name,
        [
            ("queries", "ptr"),  # [heads * c, plane] float32, zero beyond the picture; normalized
            ("keys", "ptr"),  # likewise
            ("temperature", "ptr"),  # [heads] float32
            ("scores", "ptr"),  # [heads, c, c] float32
            ("plane", "i64"),
            ("used", "i64"),  # numbers of a plane that count, a multiple of L
            ("first", "i64"),
            ("end", "i64"),
        ],
    )
    lanes = machine.lanes
    side = 4

    def at_head(head: str, _: list[str]) -> list[str]:
        offset = e.mul(e.mul(head, channels), "%plane")
        bases = [e.at(base, offset) for base in ("%queries", "%keys")]
        temperature = e.op(f"load float, ptr {e.at('%temperature', head)}")

        def at_row(i: str, _: list[str]) -> list[str]:
            rows = [e.at(base, e.mul(i, "%plane")) for base in bases]

            def at(p: str, values: list[str]) -> list[str]:
                both = [e.load(e.at(row, p)) for row in rows]
                return [e.fma(x, x, total) for x, total in zip(both, values, strict=True)]

            zero = [(e.vector, "zeroinitializer")] * 2
            norms = []
            for total in e.loop(0, "%used", lanes, zero, at):
                norm = e.call("float", "llvm.sqrt.f32", [("float", e.sum_lanes(total))])
                least = e.scalar(1e-12)
                norm = e.call("float", "llvm.maxnum.f32", [("float", norm), ("float", least)])
                norms.append(e.splat(norm))

            def divide(p: str, _: list[str]) -> list[str]:
                for row, norm in zip(rows, norms, strict=True):
                    there = e.at(row, p)
                    e.store(e.op(f"fdiv {e.vector} {e.load(there)}, {norm}"), there)
                return []

            e.loop(0, "%used", lanes, [], divide)
            return []

        e.loop(0, channels, 1, [], at_row)
        scores = e.at("%scores", e.mul(head, channels * channels))

        def at_queries(i0: str, _: list[str]) -> list[str]:
            def at_keys(j0: str, _: list[str]) -> list[str]:
                starts = [
                    [e.at(base, e.mul(e.add(index, n), "%plane")) for n in range(side)]
                    for base, index in zip(bases, (i0, j0), strict=True)
                ]

                def at(p: str, values: list[str]) -> list[str]:
                    q, k = ([e.load(e.at(row, p)) for row in rows] for rows in starts)
                    return [e.fma(q[n // side], k[n % side], values[n]) for n in range(side * side)]

                zero = [(e.vector, "zeroinitializer")] * (side * side)
                for n, total in enumerate(e.loop(0, "%used", lanes, zero, at)):
                    i, j = e.add(i0, n // side), e.add(j0, n % side)
                    value = e.op(f"fmul float {e.sum_lanes(total)}, {temperature}")
                    there = e.at(scores, e.add(e.mul(i, channels), j))
                    e.do(f"store float {value}, ptr {there}")
                return []

            e.loop(0, channels, side, [], at_keys)
            return []

        e.loop(0, channels, side, [], at_queries)
        return []

    e.loop("%first", "%end", 1, [], at_head)
    return e


def select(machine: Machine, name: str, channels: int, heads: int, kept: Sequence[int]) -> Emitter:
    """SMAM: the four softmaxes of heads first to end, summed, and with the output's convolution.

    An entry's rank in its row says which of the softmaxes keep it.

    Args:
        machine: What it is made for.
        name: The function's.
        channels: c, of a head; a multiple of L.
        heads: How many.
        kept: How many of a row's largest entries each softmax keeps.
    """
    e = Emitter(
        machine,
        name,
        [
            ("scores", "ptr"),  # [heads, c, c] float32; scratch afterwards
            ("gains", "ptr"),  # [softmaxes] float32
            ("project", "ptr"),  # [heads * c, heads * c] float32, by inputs
            ("matrix", "ptr"),  # likewise: what the values are multiplied with
            ("first", "i64"),
            ("end", "i64"),
        ],
    )
    lanes, v = machine.lanes, e.vector
    total = heads * channels
    places = range(0, channels, lanes)
    booleans = f"<{lanes} x i1>"
    numbers = [
        "<" + ", ".join(f"i32 {start + lane}" for lane in range(lanes)) + ">" for start in places
    ]

    def at_head(head: str, _: list[str]) -> list[str]:
        scores = e.at("%scores", e.mul(head, channels * channels))

        def at_row(i: str, _: list[str]) -> list[str]:
            row = e.at(scores, e.mul(i, channels))
            values = [e.load(e.at(row, start)) for start in places]

            def compare(j: str, ranks: list[str]) -> list[str]:
                other = e.broadcast(e.at(row, j))
                narrow = e.op(f"trunc i64 {j} to i32")
                index = e.splat(narrow, "i32")
                result = []
                for value, own, rank in zip(values, numbers, ranks, strict=True):
                    above = e.op(f"fcmp ogt {v} {other}, {value}")
                    same = e.op(f"fcmp oeq {v} {other}, {value}")
                    before = e.op(f"icmp slt {e.elements} {index}, {own}")
                    tied = e.op(f"and {booleans} {same}, {before}")
                    ahead = e.op(f"or {booleans} {above}, {tied}")
                    step = e.op(f"zext {booleans} {ahead} to {e.elements}")
                    result.append(e.op(f"add {e.elements} {rank}, {step}"))
                return result

            zero = [(e.elements, "zeroinitializer")] * len(values)
            ranks = e.loop(0, channels, 1, zero, compare)
            peak = values[0]
            for value in values[1:]:
                peak = e.call(v, f"llvm.maxnum.v{lanes}f32", [(v, peak), (v, value)])
            peak = e.splat(e.reduce_max(peak))
            powers = [e.exponential(e.op(f"fsub {v} {value}, {peak}")) for value in values]
            weights = ["zeroinitializer"] * len(values)
            for number, count in enumerate(kept):
                if not count:
                    continue
                limit = "<" + ", ".join([f"i32 {count}"] * lanes) + ">"
                shares = []
                for rank, power in zip(ranks, powers, strict=True):
                    test = e.op(f"icmp slt {e.elements} {rank}, {limit}")
                    shares.append(
                        e.op(f"select {booleans} {test}, {v} {power}, {v} zeroinitializer")
                    )
                together = shares[0]
                for share in shares[1:]:
                    together = e.fadd(together, share)
                gain = e.op(f"load float, ptr {e.at('%gains', number)}")
                gain = e.splat(e.op(f"fdiv float {gain}, {e.sum_lanes(together)}"))
                weights = [
                    e.fma(share, gain, old) for share, old in zip(shares, weights, strict=True)
                ]
            for start, weight in zip(places, weights, strict=True):
                e.store(weight, e.at(row, start))
            return []

        e.loop(0, channels, 1, [], at_row)
        offset = e.mul(e.mul(head, channels), total)
        project, matrix = e.at("%project", offset), e.at("%matrix", offset)

        def at_input(j: str, _: list[str]) -> list[str]:
            def at_outputs(o: str, _: list[str]) -> list[str]:
                def at(i: str, values: list[str]) -> list[str]:
                    factor = e.broadcast(e.at(scores, e.add(e.mul(i, channels), j)))
                    row = e.at(project, e.add(e.mul(i, total), o))
                    return [
                        e.fma(factor, e.load(e.at(row, n * lanes)), value)
                        for n, value in enumerate(values)
                    ]

                several = next(n for n in (8, 4, 2, 1) if total % (n * lanes) == 0)
                zero = [(v, "zeroinitializer")] * several
                out = e.at(matrix, e.add(e.mul(j, total), o))
                for n, value in enumerate(e.loop(0, channels, 1, zero, at)):
                    e.store(value, e.at(out, n * lanes))
                return []

            step = next(n for n in (8, 4, 2, 1) if total % (n * lanes) == 0) * lanes
            e.loop(0, total, step, [], at_outputs)
            return []

        e.loop(0, channels, 1, [], at_input)
        return []

    e.loop("%first", "%end", 1, [], at_head)
    return e


def mix(machine: Machine, name: str, channels: int) -> Emitter:
    """The product of planes with a float32 matrix, to blocks first to end of a map of C."""
    e = Emitter(
        machine,
        name,
        [
            ("values", "ptr"),  # [C, plane] float32
            ("matrix", "ptr"),  # [C, C] float32, by inputs
            ("out", "ptr"),  # map of C
            ("plane", "i64"),
            ("first", "i64"),
            ("end", "i64"),
        ],
    )
    lanes, group = machine.lanes, machine.group
    blocks, outputs = (4, 4) if machine.registers > 16 else (2, 4)
    size = channels // group * lanes
    last = e.op(f"sub i64 %end, {blocks}")

    def at_tile(start: str, _: list[str]) -> list[str]:
        small = e.op(f"icmp slt i64 {start}, {last}")
        block = e.op(f"select i1 {small}, i64 {start}, i64 {last}")
        few = e.op(f"icmp slt i64 {block}, %first")
        block = e.op(f"select i1 {few}, i64 %first, i64 {block}")
        x, out = e.at("%values", e.mul(block, lanes)), e.at("%out", e.mul(block, size))

        def at_outputs(m0: str, _: list[str]) -> list[str]:
            def at_input(c: str, values: list[str]) -> list[str]:
                row = e.at(x, e.mul(c, "%plane"))
                xs = [e.load(e.at(row, t * lanes)) for t in range(blocks)]
                factors = e.at("%matrix", e.add(e.mul(c, channels), m0))
                result = []
                for m in range(outputs):
                    factor = e.broadcast(e.at(factors, m))
                    for t in range(blocks):
                        result.append(e.fma(xs[t], factor, values[m * blocks + t]))
                return result

            zero = [(e.vector, "zeroinitializer")] * (outputs * blocks)
            values = e.loop(0, channels, 1, zero, at_input)
            element = e.op(f"udiv exact i64 {m0}, {group}")
            for pair in range(outputs // group):
                place = e.at(out, e.mul(e.add(element, pair), lanes))
                for t in range(blocks):
                    both = [values[(pair * group + g) * blocks + t] for g in range(group)]
                    e.store_elements(e.pack(both), e.at(place, t * size))
            return []

        e.loop(0, channels, outputs, [], at_outputs)
        return []

    e.loop("%first", "%end", blocks, [], at_tile)
    return e
