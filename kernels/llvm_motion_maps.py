"""What the CPU engine's kernels for motion between frames share; align.py is the reference.

All maps are float32 `[h, S]`, S the width w rounded up to whole vectors: what stands beyond w is
never used for what stands before it. A window's sums are made row by row: first of columns, into a
spare row whose edges are repeated, then along that row.
"""

from collections.abc import Iterator, Sequence

from mhnet_video.kernels.llvm_ir import Emitter, Index
from mhnet_video.kernels.llvm_operations import F32, FLOATS, I32, INDEX, Type
from mhnet_video.kernels.llvm_values import Value

PAD = 16
"""Elements before and behind a spare row; at least the reach of a window."""

ROWS: dict[str, Type] = {"first": INDEX, "end": INDEX}
"""Parameters of every kernel that works row by row."""

SHAPE: dict[str, Type] = {"width": INDEX, "height": INDEX, "stride": INDEX}
"""Parameters for the shape of maps."""

SIZES: dict[str, Type] = {"spare": FLOATS, **SHAPE}
"""The same, with spare rows."""


def spare_size(stride: int, count: int) -> int:
    """Elements of so many spare rows."""
    return count * (stride + 2 * PAD)


def maps(*names: str) -> dict[str, Type]:
    """Parameters that are maps."""
    return dict.fromkeys(names, FLOATS)


def in_all_lanes(e: Emitter, number: Value) -> Value:
    """An index in all lanes, as float32."""
    return e.splat(number.to_float())


def integers(e: Emitter, number: Value) -> Value:
    """An index in all lanes, in 32 bits."""
    return e.splat(number.narrow(I32))


def columns(e: Emitter, start: Value) -> Value:
    """The columns of a vector of pixels, as float32."""
    return in_all_lanes(e, start) + e.lanes_of(range(e.machine.lanes), F32)


def blend(e: Emitter, a: Value, b: Value, share: Value) -> Value:
    """From `a` to `b` by a share."""
    return e.fma(b - a, share, a)


def edges(e: Emitter) -> tuple[Value, Value]:
    """The last column and the last row in all lanes, float32."""
    p = e.parameters
    column, row = (in_all_lanes(e, side - 1) for side in (p.width, p.height))
    return column, row


def table_line(e: Emitter, table: int, row: Value, stride: Value) -> Value:
    """Where a row of the smaller map begins that `rows` names for a row of the larger one.

    Args:
        e: The kernel; `rows` is `[2, height]` int32.
        table: 0 for the row before, 1 for the row behind.
        row: Of the larger map.
        stride: Elements from a row of the smaller map to the next.
    """
    p = e.parameters
    number = e.load_scalar(p.rows + (p.height * table + row)).widen(INDEX)
    return number * stride


def each_vector(e: Emitter) -> Iterator[tuple[Value, Value, Value]]:
    """For each vector of the rows: its row, its first column and its offset in a map."""
    p = e.parameters
    for row in e.loop(p.first, p.end):
        line = row * p.stride
        for x in e.loop(0, p.stride, e.machine.lanes):
            yield row, x, line + x


def each_window(
    e: Emitter, sources: Sequence[Value], reach: int
) -> Iterator[tuple[list[Value], Value]]:
    """For each vector of the rows: the means of maps over its windows, and its offset in a map.

    Args:
        e: The kernel.
        sources: The maps.
        reach: Pixels from a window's middle to its edge.
    """
    p = e.parameters
    share = 1 / (2 * reach + 1) ** 2
    for row in e.loop(p.first, p.end):
        spares = _columns_of_windows(e, sources, row, reach)
        line = row * p.stride
        for x in e.loop(0, p.stride, e.machine.lanes):
            means = []
            for spare in spares:
                total = e.load(spare + (x + (PAD - reach)))
                for offset in range(1 - reach, reach + 1):
                    total = total + e.load(spare + (x + (PAD + offset)))
                means.append(total * share)
            yield means, line + x


def _columns_of_windows(
    e: Emitter, sources: Sequence[Value], row: Value, reach: int
) -> list[Value]:
    """The sums of the columns of a row's windows, in spare rows whose edges are repeated."""
    p = e.parameters
    last = p.height - 1
    rows = [e.clamp(row + offset, 0, last) * p.stride for offset in range(-reach, reach + 1)]
    length = p.stride + 2 * PAD
    spares = [p.spare + length * number for number in range(len(sources))]
    for x in e.loop(0, p.stride, e.machine.lanes):
        for source, spare in zip(sources, spares, strict=True):
            total = e.load(source + (rows[0] + x))
            for line in rows[1:]:
                total = total + e.load(source + (line + x))
            e.store(total, spare + (x + PAD))
    for spare in spares:
        sides: list[tuple[Index, int]] = [(PAD, -1), (p.width + (PAD - 1), 1)]
        for edge, step in sides:
            value = e.load_scalar(spare + edge)
            for away in range(1, reach + 1):
                e.store(value, spare + (edge + step * away))
    return spares
