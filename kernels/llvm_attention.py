"""The CPU engine's kernels for the selective attention, which sees few pixels of many channels.

llvm_product.py says what maps are. Planes here are float32 `[C, blocks * L]`.
"""

from collections.abc import Sequence

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, FLOATS, I32, INDEX
from mhnet_video.kernels.llvm_product import Source, Tile, each_output, product
from mhnet_video.kernels.llvm_values import Value
from mhnet_video.kernels.llvm_weights import softmax_powers

_SIDE = 4
"""Queries, and keys, whose products `gram` computes at a time."""


def project(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """A 1x1 convolution of a map of C to float32 planes `[M, blocks * L]`, block by block."""
    e = Emitter(
        machine,
        name,
        x=ELEMENTS,  # map of C
        w=ELEMENTS,  # [M, C]
        out=FLOATS,  # [M, plane] float32
        count=INDEX,  # M
        plane=INDEX,
        first=INDEX,  # block
        end=INDEX,
    )
    p = e.parameters
    lanes, blocks, outputs = machine.lanes, tile.blocks, tile.outputs
    inputs = channels // machine.group
    size = inputs * lanes
    for block in e.loop(p.first, p.end, blocks):
        x = p.x + block * size
        for m0 in e.loop(0, p.count, outputs):
            values = product(e, tile, [Source(x, inputs, size)], p.w + m0 * inputs)
            for m in each_output(e, tile, outputs):
                row = p.out + ((m0 + m) * p.plane + block * lanes)
                for t, value in enumerate(values.row(m)):
                    e.store(value, row + t * lanes)
    return e


def depthwise(machine: Machine, name: str) -> Emitter:
    """A depthwise 3x3 convolution of planes `[M, rows, row_blocks, L]`, plane by plane.

    What lies beyond the picture counts as zero, and is written as zero.
    """
    e = Emitter(
        machine,
        name,
        x=FLOATS,  # [M, plane] float32
        w=FLOATS,  # [M, 3, 3] float32
        mask=ELEMENTS,  # [row_blocks, L] all ones inside the picture
        spare=FLOATS,  # [rows + 2, row_blocks + 2, L] float32, zero at its edges
        out=FLOATS,  # [M, plane] float32
        plane=INDEX,
        rows=INDEX,
        row_blocks=INDEX,
        first=INDEX,  # plane
        end=INDEX,
    )
    p, lanes = e.parameters, machine.lanes
    wide = (p.row_blocks + 2) * lanes
    for m in e.loop(p.first, p.end):
        x, out = (base + m * p.plane for base in (p.x, p.out))
        weights = [e.broadcast(p.w + (m * 9 + tap)) for tap in range(9)]
        for row in e.loop(0, p.rows):
            for j in e.loop(0, p.row_blocks):
                offset, position, column = _position(e, row, j, wide)
                mask = e.load(p.mask + column)
                inside = position + (wide + lanes)
                e.store(e.keep(e.load(x + offset), mask), inside)
        for row in e.loop(0, p.rows):
            for j in e.loop(0, p.row_blocks):
                offset, position, column = _position(e, row, j, wide)
                total = e.zero()
                for dy in range(3):
                    line = position + wide * dy + lanes
                    for dx in range(3):
                        total = e.fma(e.load(line + (dx - 1)), weights[3 * dy + dx], total)
                mask = e.load(p.mask + column)
                e.store(e.keep(total, mask), out + offset)
    return e


def _position(e: Emitter, row: Value, j: Value, wide: Value) -> tuple[Value, Value, Value]:
    """A block's offset in a plane, its place in `spare`, and its column."""
    p, lanes = e.parameters, e.machine.lanes
    block = row * p.row_blocks + j
    offset = row * wide + j * lanes
    return block * lanes, p.spare + offset, j * lanes


def gram(machine: Machine, name: str, channels: int) -> Emitter:
    """Cosines between queries and keys, times the temperature, head by head.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        channels: c, of a head; a multiple of 4.
    """
    e = Emitter(
        machine,
        name,
        queries=FLOATS,  # [heads * c, plane] float32, zero beyond the picture; normalized
        keys=FLOATS,  # likewise
        temperature=FLOATS,  # [heads] float32
        scores=FLOATS,  # [heads, c, c] float32
        plane=INDEX,
        used=INDEX,  # numbers of a plane that count, a multiple of L
        first=INDEX,  # head
        end=INDEX,
    )
    p, lanes = e.parameters, machine.lanes
    for head in e.loop(p.first, p.end):
        offset = head * channels * p.plane
        bases = [base + offset for base in (p.queries, p.keys)]
        temperature = e.load_scalar(p.temperature + head)
        for i in e.loop(0, channels):
            _normalize_rows(e, [base + i * p.plane for base in bases])
        scores = p.scores + head * (channels * channels)
        for i0 in e.loop(0, channels, _SIDE):
            for j0 in e.loop(0, channels, _SIDE):
                starts = [
                    [base + (index + n) * p.plane for n in range(_SIDE)]
                    for base, index in zip(bases, (i0, j0), strict=True)
                ]
                totals = [e.zero()] * (_SIDE * _SIDE)
                for at in e.loop(0, p.used, lanes, totals):
                    q, k = ([e.load(row + at) for row in rows] for rows in starts)
                    for n, total in enumerate(totals):
                        totals[n] = e.fma(q[n // _SIDE], k[n % _SIDE], total)
                for n, total in enumerate(totals):
                    i, j = i0 + n // _SIDE, j0 + n % _SIDE
                    value = e.sum_lanes(total) * temperature
                    e.store(value, scores + (i * channels + j))
    return e


def _normalize_rows(e: Emitter, rows: Sequence[Value]) -> None:
    """Divide each row by its norm."""
    p, lanes = e.parameters, e.machine.lanes
    totals = [e.zero()] * len(rows)
    for at in e.loop(0, p.used, lanes, totals):
        values = [e.load(row + at) for row in rows]
        totals[:] = [e.fma(x, x, total) for x, total in zip(values, totals, strict=True)]
    norms = [e.splat(e.maximum(e.sqrt(e.sum_lanes(total)), 1e-12)) for total in totals]
    for at in e.loop(0, p.used, lanes):
        for row, norm in zip(rows, norms, strict=True):
            there = row + at
            e.store(e.load(there) / norm, there)


def select(machine: Machine, name: str, channels: int, heads: int, kept: Sequence[int]) -> Emitter:
    """SMAM: the four softmaxes of each head, summed, and with the output's convolution.

    An entry's rank in its row says which of the softmaxes keep it.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        channels: c, of a head; a multiple of L.
        heads: How many.
        kept: How many of a row's largest entries each softmax keeps.
    """
    e = Emitter(
        machine,
        name,
        scores=FLOATS,  # [heads, c, c] float32; scratch afterwards
        gains=FLOATS,  # [softmaxes] float32
        project=FLOATS,  # [heads * c, heads * c] float32, by inputs
        matrix=FLOATS,  # likewise: what the values are multiplied with
        first=INDEX,  # head
        end=INDEX,
    )
    p, lanes = e.parameters, machine.lanes
    total = heads * channels
    several = next(n for n in (8, 4, 2, 1) if total % (n * lanes) == 0)
    for head in e.loop(p.first, p.end):
        scores = p.scores + head * (channels * channels)
        for i in e.loop(0, channels):
            _softmaxes(e, scores + i * channels, channels, kept)
        offset = head * channels * total
        project, matrix = p.project + offset, p.matrix + offset
        for j in e.loop(0, channels):
            for output in e.loop(0, total, several * lanes):
                out = matrix + (j * total + output)
                values = [e.zero()] * several
                for i in e.loop(0, channels, carry=values):
                    factor = e.broadcast(scores + (i * channels + j))
                    row = project + (i * total + output)
                    for n, value in enumerate(values):
                        values[n] = e.fma(factor, e.load(row + n * lanes), value)
                for n, value in enumerate(values):
                    e.store(value, out + n * lanes)
    return e


def _softmaxes(e: Emitter, row: Value, channels: int, kept: Sequence[int]) -> None:
    """The sum of the softmaxes of a row, in place."""
    positions = range(0, channels, e.machine.lanes)
    values = [e.load(row + start) for start in positions]
    numbers = [e.ramp(start) for start in positions]
    ranks = [e.zero(e.integers)] * len(values)
    for j in e.loop(0, channels, carry=ranks):
        other = e.broadcast(row + j)
        index = e.splat(j.narrow(I32))
        for n, (value, own) in enumerate(zip(values, numbers, strict=True)):
            above = other > value
            same = other.equals(value)
            ahead = above | (same & (index < own))
            ranks[n] = ranks[n] + ahead.widen_unsigned(I32)
    powers = softmax_powers(e, values)
    weights = [e.zero()] * len(values)
    for number, count in enumerate(kept):
        if not count:
            continue
        shares = [
            e.select(rank < count, power, 0.0) for rank, power in zip(ranks, powers, strict=True)
        ]
        together = shares[0]
        for share in shares[1:]:
            together = together + share
        gain = e.load_scalar(e.parameters.gains + number)
        gain = e.splat(gain / e.sum_lanes(together))
        weights = [e.fma(share, gain, old) for share, old in zip(shares, weights, strict=True)]
    for start, weight in zip(positions, weights, strict=True):
        e.store(weight, row + start)


def mix(machine: Machine, name: str, channels: int) -> Emitter:
    """The product of planes with a float32 matrix, to a map of C, block by block."""
    e = Emitter(
        machine,
        name,
        values=FLOATS,  # [C, plane] float32
        matrix=FLOATS,  # [C, C] float32, by inputs
        out=ELEMENTS,  # map of C
        plane=INDEX,
        first=INDEX,  # block
        end=INDEX,
    )
    p, lanes, group = e.parameters, machine.lanes, machine.group
    blocks, outputs = (4, 4) if machine.registers > 16 else (2, 4)
    size = channels // group * lanes
    last = p.end - blocks
    for start in e.loop(p.first, p.end, blocks):
        block = e.select(start < last, start, last)
        block = e.select(block < p.first, p.first, block)
        x, out = p.values + block * lanes, p.out + block * size
        for m0 in e.loop(0, channels, outputs):
            totals = [e.zero()] * (outputs * blocks)
            for c in e.loop(0, channels, carry=totals):
                row = x + c * p.plane
                xs = [e.load(row + t * lanes) for t in range(blocks)]
                factors = p.matrix + (c * channels + m0)
                for m in range(outputs):
                    factor = e.broadcast(factors + m)
                    for t in range(blocks):
                        totals[m * blocks + t] = e.fma(xs[t], factor, totals[m * blocks + t])
            element = m0.exact_div(group)
            for pair in range(outputs // group):
                position = out + (element + pair) * lanes
                for t in range(blocks):
                    both = [totals[(pair * group + g) * blocks + t] for g in range(group)]
                    e.store(e.pack(both), position + t * size)
    return e
