"""The engine's kernels between maps: means, and the weights that depend on them.

Vectors and matrices here are float32, padded with zeros to whole vectors of L. Matrices are stored
transposed, `[inputs, outputs]`, so that a product needs no sums over lanes.
"""

from mhnet_video.kernels.llvm_ir import Emitter, Machine


def _mean(e: Emitter, sums: str, parts: str, size: int, channel: str, scale: str) -> str:
    """A channel's mean, a scalar, from `sums`, `[parts, C, L]` (zero afterwards)."""

    def at_part(p: str, values: list[str]) -> list[str]:
        there = e.at(sums, e.add(e.mul(p, size), e.mul(channel, e.machine.lanes)))
        value = e.fadd(values[0], e.load(there))
        e.store("zeroinitializer", there)
        return [value]

    (total,) = e.loop(0, parts, 1, [(e.vector, "zeroinitializer")], at_part)
    return e.op(f"fmul float {e.sum_lanes(total)}, {scale}")


def _means(e: Emitter, channels: int) -> None:
    """Write `%mean` from `%sums`."""
    scale = e.op("load float, ptr %scale")

    def at_channel(c: str, _: list[str]) -> list[str]:
        value = _mean(e, "%sums", "%parts", channels * e.machine.lanes, c, scale)
        e.do(f"store float {value}, ptr {e.at('%mean', c)}")
        return []

    e.loop(0, channels, 1, [], at_channel)


_SUMS = [
    ("sums", "ptr"),  # [parts, C, L], zero afterwards
    ("parts", "i64"),
    ("scale", "ptr"),  # one over the number of pixels
    ("mean", "ptr"),  # [C]
]


def average(machine: Machine, name: str, channels: int) -> Emitter:
    """The mean of a map of C from the sums of its parts."""
    e = Emitter(machine, name, [*_SUMS, ("first", "i64"), ("end", "i64")])
    _means(e, channels)
    return e


def _matvec(
    e: Emitter, matrix: str, x: str, inputs: str | int, outputs: int, begin: str, out: str
) -> None:
    """`out = begin + x @ matrix`."""
    lanes = e.machine.lanes

    def at_outputs(o: str, _: list[str]) -> list[str]:
        def at_input(i: str, values: list[str]) -> list[str]:
            row = e.load(e.at(matrix, e.add(e.mul(i, outputs), o)))
            return [e.fma(e.broadcast(e.at(x, i)), row, values[0])]

        first = e.load(e.at(begin, o)) if begin else "zeroinitializer"
        (total,) = e.loop(0, inputs, 1, [(e.vector, first)], at_input)
        e.store(total, e.at(out, o))
        return []

    e.loop(0, outputs, lanes, [], at_outputs)


def _scale(e: Emitter, gains: str) -> None:
    """Write `%out`, the weights as elements: `%plain` times the gains at `%rows`."""
    lanes, group = e.machine.lanes, e.machine.group

    def at_weights(i: str, _: list[str]) -> list[str]:
        values = []
        for half in range(group):
            offset = e.add(i, half * lanes)
            gain = e.gather(gains, e.load_elements(e.at("%rows", offset)))
            values.append(e.fmul(e.load(e.at("%plain", offset)), gain))
        packed = e.pack_neighbours(*values) if group == 2 else e.pack(values)
        e.store_elements(packed, e.at("%out", e.op(f"udiv exact i64 {i}, {group}")))
        return []

    e.loop(0, "%count", group * lanes, [], at_weights)


_SCALED = [
    ("plain", "ptr"),  # [count] float32
    ("rows", "ptr"),  # [count] int32: which gain multiplies each
    ("out", "ptr"),  # [count / G] elements
    ("count", "i64"),  # a multiple of G * L
    ("first", "i64"),
    ("end", "i64"),
]


def padded(machine: Machine, count: int) -> int:
    """A number of values padded to whole vectors."""
    return -(-count // machine.lanes) * machine.lanes


def attend(machine: Machine, name: str, channels: int) -> Emitter:
    """Simplified channel attention of a NAFBlock: put it into the 1x1 convolution behind it."""
    e = Emitter(
        machine,
        name,
        [
            *_SUMS,
            ("matrix", "ptr"),  # [C, C]
            ("bias", "ptr"),  # [C]
            *_SCALED,
        ],
    )
    outputs = padded(machine, channels)
    gains = e.scratch(outputs)
    _means(e, channels)
    _matvec(e, "%matrix", "%mean", channels, outputs, "%bias", gains)
    _scale(e, gains)
    return e


def _softmax(e: Emitter, x: str, size: int) -> None:
    """Softmax of a padded vector in place; padding must be far below the rest."""
    lanes = e.machine.lanes
    places = [e.at(x, i) for i in range(0, size, lanes)]
    values = [e.load(place) for place in places]
    peak = values[0]
    for value in values[1:]:
        peak = e.call(e.vector, f"llvm.maxnum.v{lanes}f32", [(e.vector, peak), (e.vector, value)])
    peak = e.splat(e.reduce_max(peak))
    powers = [e.exponential(e.op(f"fsub {e.vector} {value}, {peak}")) for value in values]
    total = powers[0]
    for power in powers[1:]:
        total = e.fadd(total, power)
    inverse = e.splat(e.op(f"fdiv float 1.0, {e.sum_lanes(total)}"))
    for place, power in zip(places, powers, strict=True):
        e.store(e.fmul(power, inverse), place)


def weigh(machine: Machine, name: str, channels: int, reduced: int) -> Emitter:
    """AFFM: the weights of its three maps, put into the convolutions that make two of them.

    Args:
        machine: What it is made for.
        name: The function's.
        channels: C.
        reduced: R, channels of the summary.
    """
    e = Emitter(
        machine,
        name,
        [
            ("mean", "ptr"),  # [C], of the first map
            ("low", "ptr"),  # [low_count], of what the second map is made from
            ("high", "ptr"),  # [high_count], of what the third is made from
            ("low_matrix", "ptr"),  # [low_count, C]
            ("high_matrix", "ptr"),  # [high_count, C]
            ("squeeze", "ptr"),  # [2, C, R]: the two halves that the gate multiplies
            ("expand", "ptr"),  # [3, R, C]
            ("floor", "ptr"),  # [C]: zero, and far below zero in the padding
            ("share", "ptr"),  # [C]: the first map's weights go there
            ("low_count", "i64"),
            ("high_count", "i64"),
            *_SCALED,
        ],
    )
    lanes = machine.lanes
    wide, small = padded(machine, channels), padded(machine, reduced)
    total, first, second, gains = (e.scratch(n) for n in (wide, small, small, 3 * wide))
    _matvec(e, "%low_matrix", "%low", "%low_count", wide, "%mean", total)
    _matvec(e, "%high_matrix", "%high", "%high_count", wide, total, total)
    _matvec(e, "%squeeze", total, channels, small, "", first)
    _matvec(e, e.at("%squeeze", channels * small), total, channels, small, "", second)
    for i in range(0, small, lanes):
        product = e.fmul(e.load(e.at(first, i)), e.load(e.at(second, i)))
        e.store(product, e.at(first, i))
    for number in range(3):
        matrix = e.at("%expand", number * reduced * wide)
        logits = e.at(gains, number * wide)
        _matvec(e, matrix, first, reduced, wide, "%floor", logits)
        _softmax(e, logits, wide)
    for i in range(0, wide, lanes):
        e.store(e.load(e.at(gains, i)), e.at("%share", i))
    _scale(e, gains)
    return e
