"""The CPU engine's kernels between maps: means, and the weights that depend on them.

Vectors and matrices here are float32, padded with zeros to whole vectors of L. Matrices are stored
transposed, `[inputs, outputs]`, so that a product needs no sums over lanes.
"""

from mhnet_video.kernels.llvm_ir import Emitter, Index
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, F32, FLOATS, INDEX, Type
from mhnet_video.kernels.llvm_values import Value


def _mean(e: Emitter, sums: Value, parts: Value, size: int, channel: Value, scale: Value) -> Value:
    """A channel's mean, a scalar, from `sums`, `[parts, C, L]` (zero afterwards)."""
    total = [e.zero()]
    for part in e.loop(0, parts, carry=total):
        there = sums + (part * size + channel * e.machine.lanes)
        total[0] = total[0] + e.load(there)
        e.store(e.zero(), there)
    return e.sum_lanes(total[0]) * scale


def _means(e: Emitter, channels: int) -> None:
    """Write `mean` from `sums`."""
    p = e.parameters
    scale = e.load_scalar(p.scale)
    for channel in e.loop(0, channels):
        value = _mean(e, p.sums, p.parts, channels * e.machine.lanes, channel, scale)
        e.store(value, p.mean + channel)


_SUMS: dict[str, Type] = {
    "sums": FLOATS,  # [parts, C, L], zero afterwards
    "parts": INDEX,
    "scale": FLOATS,  # one over the number of pixels
    "mean": FLOATS,  # [C]
}
"""Parameters of what computes means."""
_ATTENTION: dict[str, Type] = {
    **_SUMS,
    "matrix": FLOATS,  # [C, C]
    "bias": FLOATS,  # [C]
}
"""Parameters of simplified channel attention."""


def average(machine: Machine, name: str, channels: int) -> Emitter:
    """The mean of a map of C from the sums of its parts."""
    e = Emitter(machine, name, **_SUMS, first=INDEX, end=INDEX)
    _means(e, channels)
    return e


def _matvec(
    e: Emitter,
    matrix: Value,
    x: Value,
    inputs: Index,
    outputs: int,
    begin: Value | None,
    out: Value,
) -> None:
    """`out = begin + x @ matrix`."""
    for output in e.loop(0, outputs, e.machine.lanes):
        total = [e.zero() if begin is None else e.load(begin + output)]
        for i in e.loop(0, inputs, carry=total):
            row = e.load(matrix + (i * outputs + output))
            total[0] = e.fma(e.broadcast(x + i), row, total[0])
        e.store(total[0], out + output)


def _scale(e: Emitter, gains: Value) -> None:
    """Write `out`, the weights as elements: `plain` times the gains at `rows`."""
    p, lanes, group = e.parameters, e.machine.lanes, e.machine.group
    for i in e.loop(0, p.count, group * lanes):
        values = []
        for half in range(group):
            offset = i + half * lanes
            gain = e.gather(gains, e.load(p.rows + offset))
            values.append(e.load(p.plain + offset) * gain)
        packed = e.pack_neighbours(*values) if group == 2 else e.pack(values)
        e.store(packed, p.out + i.exact_div(group))


_SCALED: dict[str, Type] = {
    "plain": FLOATS,  # [count] float32
    "rows": ELEMENTS,  # [count] int32: which gain multiplies each
    "out": ELEMENTS,  # [count / G] elements
    "count": INDEX,  # a multiple of G * L
    "first": INDEX,
    "end": INDEX,
}
"""Parameters of what multiplies weights with gains."""


def padded(machine: Machine, count: int) -> int:
    """A number of values padded to whole vectors."""
    return -(-count // machine.lanes) * machine.lanes


def attend(machine: Machine, name: str, channels: int) -> Emitter:
    """Simplified channel attention of a NAFBlock: put it into the 1x1 convolution behind it."""
    e = Emitter(
        machine,
        name,
        **_ATTENTION,
        **_SCALED,
    )
    p = e.parameters
    outputs = padded(machine, channels)
    gains = e.scratch(F32, outputs)
    _means(e, channels)
    _matvec(e, p.matrix, p.mean, channels, outputs, p.bias, gains)
    _scale(e, gains)
    return e


def attend_apart(machine: Machine, name: str, channels: int) -> Emitter:
    """Simplified channel attention of a NAFBlock: what each channel is multiplied with."""
    e = Emitter(
        machine,
        name,
        **_ATTENTION,
        gains=FLOATS,  # [C]
        first=INDEX,
        end=INDEX,
    )
    p = e.parameters
    _means(e, channels)
    _matvec(e, p.matrix, p.mean, channels, padded(machine, channels), p.bias, p.gains)
    return e


def softmax_powers(e: Emitter, values: list[Value]) -> list[Value]:
    """The exponential function of values less the largest of all of their lanes."""
    peak = values[0]
    for value in values[1:]:
        peak = e.maximum(peak, value)
    peak = e.splat(e.reduce("fmax", peak))
    return [e.exponential(value - peak) for value in values]


def _softmax(e: Emitter, x: Value, size: int) -> None:
    """Softmax of a padded vector in place; padding must be far below the rest."""
    positions = [x + i for i in range(0, size, e.machine.lanes)]
    powers = softmax_powers(e, [e.load(position) for position in positions])
    total = powers[0]
    for power in powers[1:]:
        total = total + power
    inverse = e.splat(1.0 / e.sum_lanes(total))
    for position, power in zip(positions, powers, strict=True):
        e.store(power * inverse, position)


def weigh(machine: Machine, name: str, channels: int, reduced: int) -> Emitter:
    """AFFM: the weights of its three maps, put into the convolutions that make two of them.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        channels: C.
        reduced: R, channels of the summary.
    """
    e = Emitter(
        machine,
        name,
        mean=FLOATS,  # [C], of the first map
        low=FLOATS,  # [low_count], of what the second map is made from
        high=FLOATS,  # [high_count], of what the third is made from
        low_matrix=FLOATS,  # [low_count, C]
        high_matrix=FLOATS,  # [high_count, C]
        squeeze=FLOATS,  # [2, C, R]: the two halves that the gate multiplies
        expand=FLOATS,  # [3, R, C]
        floor=FLOATS,  # [C]: zero, and far below zero in the padding
        share=FLOATS,  # [C]: the first map's weights go there
        low_count=INDEX,
        high_count=INDEX,
        **_SCALED,
    )
    p, lanes = e.parameters, machine.lanes
    wide, small = padded(machine, channels), padded(machine, reduced)
    total, first, second, gains = (e.scratch(F32, n) for n in (wide, small, small, 3 * wide))
    _matvec(e, p.low_matrix, p.low, p.low_count, wide, p.mean, total)
    _matvec(e, p.high_matrix, p.high, p.high_count, wide, total, total)
    _matvec(e, p.squeeze, total, channels, small, None, first)
    _matvec(e, p.squeeze + channels * small, total, channels, small, None, second)
    for i in range(0, small, lanes):
        product = e.load(first + i) * e.load(second + i)
        e.store(product, first + i)
    for number in range(3):
        matrix = p.expand + number * reduced * wide
        logits = gains + number * wide
        _matvec(e, matrix, first, reduced, wide, p.floor, logits)
        _softmax(e, logits, wide)
    for i in range(0, wide, lanes):
        e.store(e.load(gains + i), p.share + i)
    _scale(e, gains)
    return e
