"""The CPU engine's kernels that move pictures by a motion."""

from collections.abc import Iterator

from mhnet_video.kernels.llvm_int8 import byte_pairs
from mhnet_video.kernels.llvm_ir import Emitter, Index
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_motion_maps import (
    PAD,
    ROWS,
    blend,
    edges,
    integers,
    table_line,
)
from mhnet_video.kernels.llvm_motion_sampling import Samples
from mhnet_video.kernels.llvm_operations import ELEMENTS, F32, FLOATS, INDEX, Type
from mhnet_video.kernels.llvm_values import Value

_MOVED: dict[str, Type] = {
    "x": FLOATS,  # [3, H, W]
    "fixed": FLOATS,  # [3, H, W], the middle frame
    "motion_x": FLOATS,  # [h, S], in pixels of h and w
    "motion_y": FLOATS,
    "spare": FLOATS,  # two spare rows
}
"""Parameters of the inputs."""

_MOVE_SIZES: dict[str, Type] = {
    "rows": ELEMENTS,  # [2, H] int32: the one before and the one behind
    "row_shares": FLOATS,  # [H] float32: how much of the one behind
    "height": INDEX,  # H
    "width": INDEX,  # W, a multiple of L and of the side of the squares
    "stride": INDEX,  # S
}
"""Parameters for shapes."""


def move(machine: Machine, name: str, same: float, unlike: float, shrink: int) -> Emitter:
    """Rows of a picture, sampled where a motion says, but for still pixels.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        same: See align.SAME.
        unlike: See align.UNLIKE.
        shrink: Pixels of a side of the squares that have a motion.
    """
    e = Emitter(
        machine,
        name,
        **_MOVED,
        out=FLOATS,  # [3, H, W]
        **_MOVE_SIZES,
        **ROWS,
    )
    p = e.parameters
    picture = p.height * p.width
    for moving, row, x in _each_moved(e, (same, unlike), shrink, machine.lanes):
        position = row * p.width + x
        for color, value in enumerate(moving.colors(x)):
            e.store(value, p.out + (picture * color + position))
    return e


def move_folded(
    machine: Machine, name: str, same: float, unlike: float, shrink: int, *, int8: bool
) -> Emitter:
    """`move`, written as `llvm_images.fold` writes pictures at patch 2.

    In int8 it writes them as `llvm_int8.fold_int8` does; the first row must be an even one then.
    """
    e = Emitter(
        machine,
        name,
        **_MOVED,
        out=ELEMENTS,  # the picture's first plane, at its first row
        **_MOVE_SIZES,
        plane=INDEX,  # elements of a row of a plane
        planes_row=INDEX,  # elements of a row of all planes
        **ROWS,
    )
    p, lanes = e.parameters, machine.lanes
    rows = 1 if int8 else 2  # of pixels, in planes of their own
    each = rows if machine.bfloat16 else 2 * rows  # planes of a channel
    for moving, row, x in _each_moved(e, (same, unlike), shrink, 2 * lanes):
        above, below = row.lshr(1), row & 1
        position = (above + 1) * p.planes_row + lanes
        position = position + x.lshr(1)
        if int8:
            is_below = integers(e, below)
            kept, shift = is_below * 0xFFFF, is_below << 4
        else:
            position = position + p.plane * (each // 2) * below
        pairs = zip(moving.colors(x), moving.colors(x + lanes), strict=True)
        for color, (first, second) in enumerate(pairs):
            there = p.out + (position + p.plane * (each * color))
            if int8:
                # the row above has written its half, and zero to this one's
                before = e.load(there) & kept
                e.store(before | byte_pairs(e, first, second) << shift, there)
                continue
            if machine.bfloat16:
                e.store(e.pack_neighbours(first, second), there)
                continue
            for dx, value in enumerate(e.deinterleave(first, second)):
                e.store(value, (there + p.plane * dx).leading_to(F32))
    return e


class _Moving:
    """A row of a picture that is moved.

    Args:
        e: The kernel.
        row: The row.
        limits: See align.SAME and align.UNLIKE.
        shrink: Pixels of a side of the squares that have a motion.
        last: The last column and row in all lanes.
    """

    def __init__(
        self,
        e: Emitter,
        row: Value,
        limits: tuple[float, float],
        shrink: int,
        last: tuple[Value, Value],
    ) -> None:
        self._e, self._row, self._limits = e, row, limits
        self._shrink, self._last = shrink, last
        p = e.parameters
        length = p.stride + 2 * PAD
        self._spares = [p.spare + PAD, p.spare + (length + PAD)]
        lines = [table_line(e, table, row, p.stride) for table in (0, 1)]
        share = e.broadcast(p.row_shares + row)
        for x in e.loop(0, p.stride, e.machine.lanes):
            for motion, spare in zip((p.motion_x, p.motion_y), self._spares, strict=True):
                above, below = (e.load(motion + (line + x)) for line in lines)
                e.store(blend(e, above, below, share) * float(shrink), spare + x)
        # beyond the edges as at the edges
        end = p.width.sdiv(shrink)
        for spare in self._spares:
            sides: list[tuple[Index, Index]] = [(-1, 0), (end, end - 1)]
            for to, of in sides:
                value = e.load_scalar(spare + of)
                e.store(value, spare + to)

    def _motion(self, x: Value) -> list[Value]:
        """The motion of a vector of pixels, between those of the squares around them."""
        e, lanes = self._e, self._e.machine.lanes
        first = x.sdiv(self._shrink) - 1
        positions = [(lane + 0.5) / self._shrink + 0.5 for lane in range(lanes)]
        before = [int(position) for position in positions]
        behind = [number + 1 for number in before]
        share = e.lanes_of(
            [position - number for position, number in zip(positions, before, strict=True)]
        )
        found = []
        for spare in self._spares:
            squares = e.load(spare + first)
            left, right = (e.shuffle(squares, squares, order) for order in (before, behind))
            found.append(blend(e, left, right, share))
        return found

    def colors(self, x: Value) -> list[Value]:
        """A vector of pixels, moved."""
        e, p = self._e, self._e.parameters
        picture = p.height * p.width
        position = self._row * p.width + x
        planes = [picture * color for color in range(3)]
        here = [e.load(p.x + (plane + position)) for plane in planes]
        unlikeness = e.zero()
        for value, plane in zip(here, planes, strict=True):
            shown = e.load(p.fixed + (plane + position))
            unlikeness = e.maximum(unlikeness, e.absolute(value - shown))
        same, unlike = self._limits
        slope, start = 1 / (unlike - same), -same / (unlike - same)
        kept = e.clamp(e.fma(unlikeness, slope, start), 0.0, 1.0)

        def moved() -> list[Value]:
            first_end = p.width - e.machine.lanes
            motion = self._motion(x)
            samples = Samples(e, self._row, x, motion, self._last, p.width, first_end)
            values = samples.values([p.x + plane for plane in planes])
            return [blend(e, a, b, kept) for a, b in zip(here, values, strict=True)]

        # before a fixed camera hardly any vector has a pixel that moves
        return e.either(e.reduce("or", kept > 0.0), moved, lambda: here)


def _each_moved(
    e: Emitter, limits: tuple[float, float], shrink: int, step: int
) -> Iterator[tuple[_Moving, Value, Value]]:
    """For each so many pixels of the rows: the row that is moved, its number, and the column."""
    p = e.parameters
    last = edges(e)
    for row in e.loop(p.first, p.end):
        moving = _Moving(e, row, limits, shrink, last)
        for x in e.loop(0, p.width, step):
            yield moving, row, x
