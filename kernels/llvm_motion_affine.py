"""The CPU engine's kernels for the motion that the whole picture shares, an affine one.

A plane is an affine motion: for each axis its value in the middle, how much it grows
from the middle to the right edge, and how much to the bottom, `[2, 3]`.
"""

from collections.abc import Sequence

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_motion_maps import (
    ROWS,
    SHAPE,
    SIZES,
    columns,
    each_vector,
    edges,
    in_all_lanes,
    maps,
)
from mhnet_video.kernels.llvm_motion_sampling import sampled
from mhnet_video.kernels.llvm_operations import F32, FLOATS, INDEX
from mhnet_video.kernels.llvm_values import Value

MOMENTS = 18
"""Sums that `moments` computes."""

SLOPES = 6
"""Sums that `fit` computes."""

_PAIRS = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
"""Where the products of two of the basis are among the six."""


class _Basis:
    """One, the column and the row of pixels, both from -1 to 1.

    Args:
        e: The kernel.
    """

    def __init__(self, e: Emitter) -> None:
        self._e = e
        self._width, height = (
            in_all_lanes(e, side) for side in (e.parameters.width, e.parameters.height)
        )
        self._steps = [1.0 / each for each in (self._width, height)]

    def _from(self, number: Value, step: Value) -> Value:
        return self._e.fma(self._e.fma(number, 2.0, 1.0), step, -1.0)

    def column(self, x: Value) -> Value:
        """Of a vector of pixels."""
        return self._from(columns(self._e, x), self._steps[0])

    def row(self, y: Value) -> Value:
        """Of a row, in all lanes."""
        return self._from(in_all_lanes(self._e, y), self._steps[1])

    def inside(self, value: Value, x: Value) -> Value:
        """A vector, zero beyond the picture."""
        return self._e.select(columns(self._e, x) < self._width, value, 0.0)


def _store_sums(e: Emitter, totals: Sequence[Value]) -> None:
    for number, total in enumerate(totals):
        position = e.parameters.out + number
        e.store(e.sum_lanes(total), position)


def moments(machine: Machine, name: str) -> Emitter:
    """Sums over rows of the gradients' products times 1, x, y, x², xy and y²."""
    e = Emitter(
        machine,
        name,
        **maps("a", "b", "c"),  # [h, S]
        out=FLOATS,  # [3, 6]
        **SHAPE,
        **ROWS,
    )
    p = e.parameters
    basis = _Basis(e)
    totals = [e.zero()] * MOMENTS
    for row in e.loop(p.first, p.end, carry=totals):
        line, y = row * p.stride, basis.row(row)
        sums = [e.zero()] * 9
        for x in e.loop(0, p.stride, machine.lanes, sums):
            column = basis.column(x)
            for number, each in enumerate((p.a, p.b, p.c)):
                value = basis.inside(e.load(each + (line + x)), x)
                own = slice(3 * number, 3 * number + 3)
                old = sums[own]
                first = value * column
                sums[own] = [old[0] + value, old[1] + first, e.fma(first, column, old[2])]
        for number in range(3):
            one, by_x, by_xx = sums[3 * number : 3 * number + 3]
            own = slice(6 * number, 6 * number + 6)
            old = totals[own]
            by_y = one * y
            totals[own] = [
                old[0] + one,
                old[1] + by_x,
                old[2] + by_y,
                old[3] + by_xx,
                e.fma(by_x, y, old[4]),
                e.fma(by_y, y, old[5]),
            ]
    _store_sums(e, totals)
    return e


def fit(machine: Machine, name: str, clip: float) -> Emitter:
    """Sums over rows of the errors that a plane leaves, times gradients and basis."""
    e = Emitter(
        machine,
        name,
        **maps("fixed", "moving", "right", "down"),
        plane=FLOATS,  # [2, 3]
        out=FLOATS,  # [2, 3]
        **SHAPE,
        **ROWS,
    )
    p = e.parameters
    basis, last = _Basis(e), edges(e)
    plane = [e.broadcast(p.plane + number) for number in range(6)]
    totals = [e.zero()] * SLOPES
    for row in e.loop(p.first, p.end, carry=totals):
        line, y = row * p.stride, basis.row(row)
        starts = [e.fma(plane[3 * axis + 2], y, plane[3 * axis]) for axis in (0, 1)]
        sums = [e.zero()] * 4
        for x in e.loop(0, p.stride, machine.lanes, sums):
            column, position = basis.column(x), line + x
            motion = [e.fma(plane[3 * axis + 1], column, starts[axis]) for axis in (0, 1)]
            value = sampled(e, row, x, motion, last)
            error = e.clamp(value - e.load(p.fixed + position), -clip, clip)
            for axis, side in enumerate((p.right, p.down)):
                slope = basis.inside(error * e.load(side + position), x)
                own = slice(2 * axis, 2 * axis + 2)
                old = sums[own]
                sums[own] = [old[0] + slope, e.fma(slope, column, old[1])]
        for axis in (0, 1):
            one, by_x = sums[2 * axis : 2 * axis + 2]
            own = slice(3 * axis, 3 * axis + 3)
            old = totals[own]
            totals[own] = [old[0] + one, old[1] + by_x, e.fma(one, y, old[2])]
    _store_sums(e, totals)
    return e


def solve(
    machine: Machine, name: str, terms: int, damping: float, stride: float, factor: float
) -> Emitter:
    """A plane after a step of least squares, times a factor.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        terms: 1 where only the values in the middle are changed, else 3.
        damping: Added to the mean squares.
        stride: Largest change of each number.
        factor: What the plane is multiplied by then.
    """
    e = Emitter(
        machine,
        name,
        moments=FLOATS,  # [parts, MOMENTS]
        slopes=FLOATS,  # [parts, SLOPES]
        plane=FLOATS,  # [2, 3]
        parts=INDEX,
        pixels=INDEX,
        **ROWS,
    )
    p = e.parameters

    def mean(sums: Value, count: int) -> list[Value]:
        """The sums of all parts over the number of pixels."""
        totals = [e.constant(F32, 0.0)] * count
        for part in e.loop(0, p.parts, carry=totals):
            here = sums + part * count
            totals[:] = [
                total + e.load_scalar(here + number) for number, total in enumerate(totals)
            ]
        return [total / pixels for total in totals]

    pixels = p.pixels.to_float()
    means, right = mean(p.moments, MOMENTS), mean(p.slopes, SLOPES)
    unknown = [(axis, term) for axis in (0, 1) for term in range(terms)]
    rows = []
    for axis, term in unknown:
        row = [means[6 * (axis + other) + _PAIRS[term][of]] for other, of in unknown]
        rows.append([*row, right[3 * axis + term]])
    for number, row in enumerate(rows):
        row[number] = row[number] + damping
    changes = dict(zip(unknown, _solved(rows), strict=True))
    for axis in (0, 1):
        for term in range(3):
            position = p.plane + (3 * axis + term)
            value = e.load_scalar(position)
            if (axis, term) in changes:
                value = value - e.clamp(changes[axis, term], -stride, stride)
            e.store(value * factor, position)
    return e


def _solved(rows: list[list[Value]]) -> list[Value]:
    """The solution of linear equations, their matrix and right side in rows, which change."""
    # positive definite: no row need be chosen
    for number, row in enumerate(rows):
        for below in rows[number + 1 :]:
            share = below[number] / row[number]
            for column in range(number + 1, len(row)):
                below[column] = below[column] - share * row[column]
    found: list[Value] = []
    for number in reversed(range(len(rows))):
        value = rows[number][-1]
        for column, known in enumerate(found, start=number + 1):
            value = value - rows[number][column] * known
        found.insert(0, value / rows[number][number])
    return found


def accept(machine: Machine, name: str, gain: float, floor: float) -> Emitter:
    """A plane, or none where its mean error is no less than a share of that without it."""
    e = Emitter(
        machine,
        name,
        old=FLOATS,  # [h, S], errors without the plane
        new=FLOATS,  # [h, S], errors with the plane
        plane=FLOATS,  # [2, 3]
        **SHAPE,
        **ROWS,
    )
    p = e.parameters
    basis = _Basis(e)
    totals = [e.zero()] * 2
    for row in e.loop(0, p.height, carry=totals):
        line = row * p.stride
        for x in e.loop(0, p.stride, machine.lanes, totals):
            totals[:] = [
                total + basis.inside(e.load(each + (line + x)), x)
                for total, each in zip(totals, (p.old, p.new), strict=True)
            ]
    old, new = (e.sum_lanes(each) for each in totals)
    pixels = (p.width * p.height).to_float()
    least = pixels * floor
    is_better = new < (old + least) * gain
    for number in range(6):
        position = p.plane + number
        e.store(e.select(is_better, e.load_scalar(position), 0.0), position)
    return e


def spread(machine: Machine, name: str, factor: float) -> Emitter:
    """Rows of the motion of each pixel by a plane, times a factor."""
    e = Emitter(
        machine,
        name,
        plane=FLOATS,  # [2, 3]
        **maps("out_x", "out_y"),
        **SIZES,
        **ROWS,
    )
    p = e.parameters
    basis = _Basis(e)
    plane = [e.broadcast(p.plane + number) * factor for number in range(6)]
    for row, x, position in each_vector(e):
        column, y = basis.column(x), basis.row(row)
        for axis, out in enumerate((p.out_x, p.out_y)):
            value, by_column, by_row = plane[3 * axis : 3 * axis + 3]
            value = e.fma(by_row, y, e.fma(by_column, column, value))
            e.store(value, out + position)
    return e
