"""Bilinear sampling of maps and pictures where a motion leads, for the CPU engine's kernels."""

from collections.abc import Sequence

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_motion_maps import blend, columns, in_all_lanes, integers
from mhnet_video.kernels.llvm_operations import INDEX
from mhnet_video.kernels.llvm_values import Value


class Samples:
    """Bilinear samples of maps at a vector of pixels, displaced by a motion.

    Many vectors sample contiguous pixels, which are loaded. Nearly all others sample few rows, and
    columns within two vectors. In pictures a permutation of these vectors looks them up, much
    faster than a gather. In the estimate's small maps it would not save its compile time at every
    start.

    Args:
        e: The kernel.
        row: The pixels' row.
        x: Their first column.
        motion: To the right and down.
        last: The last column and row in all lanes, float32.
        stride: Elements from a row of the maps to the next.
        first_end: Of pictures, beyond whose last row is no memory of theirs: from which column on
            no vector and the element behind it may be loaded; at least a vector. None for maps.
    """

    def __init__(
        self,
        e: Emitter,
        row: Value,
        x: Value,
        motion: Sequence[Value],
        last: tuple[Value, Value],
        stride: Value,
        first_end: Value | None = None,
    ) -> None:
        self._e, self._last, self._stride = e, last, stride
        from_x = e.clamp(columns(e, x) + motion[0], 0.0, last[0])
        from_y = e.clamp(in_all_lanes(e, row) + motion[1], 0.0, last[1])
        self._left, self._top = from_x.to_integer(), from_y.to_integer()
        self._across = from_x - self._left.to_float()
        self._down = from_y - self._top.to_float()
        offsets = self._left - e.ramp()
        # a column beyond the last one may be loaded, and counts nothing
        are_alike, firsts = [], []
        for each in (offsets, self._top):
            first = each.lane(0)
            alike = each.equals(e.splat(first))
            are_alike.append(e.reduce("and", alike))
            firsts.append(first.widen(INDEX))
        self._side_by_side = are_alike[0] & are_alike[1]
        self._begin, self._row = firsts
        self._first_end = first_end
        if first_end is not None:
            self._side_by_side = self._side_by_side & (self._begin < first_end)

    def values(self, maps: Sequence[Value]) -> list[Value]:
        """What maps show, each a vector."""
        return self._e.either(
            self._side_by_side, lambda: self._load(maps), lambda: self._find(maps)
        )

    def _last_row(self) -> Value:
        return self._e.parameters.height - 1

    def _load(self, maps: Sequence[Value]) -> list[Value]:
        """Sample contiguous pixels by loads."""
        e = self._e
        next_row = e.clamp(self._row + 1, 0, self._last_row())
        positions = [each * self._stride + self._begin for each in (self._row, next_row)]
        return [
            self._between(
                [e.load(x + (position + step)) for position in positions for step in (0, 1)]
            )
            for x in maps
        ]

    def _find(self, maps: Sequence[Value]) -> list[Value]:
        """Sample arbitrary pixels: by lookups if they are near, else by gathers."""
        e = self._e
        right = self._after(self._left, self._last[0])
        if self._first_end is None or not e.machine.looks_up:
            return self._gather(maps, right)
        most = self._first_end - e.machine.lanes
        begin = e.minimum(self._extreme("smin", self._left), most)
        reach = self._extreme("smax", right) - begin
        is_near = reach < 2 * e.machine.lanes
        return e.either(
            is_near,
            lambda: self._look_up(maps, begin, right),
            lambda: self._gather(maps, right),
        )

    def _after(self, position: Value, end: Value) -> Value:
        """The next columns or rows, clamped to the last one."""
        return self._e.minimum(position.to_float() + 1.0, end).to_integer()

    def _extreme(self, which: str, x: Value) -> Value:
        """The smallest (`smin`) or largest (`smax`) of a vector of integers, in 64 bits."""
        return self._e.reduce(which, x).widen(INDEX)

    def _look_up(self, maps: Sequence[Value], begin: Value, right: Value) -> list[Value]:
        """Sample few rows, and columns within two vectors, by permutations."""
        e = self._e
        first, final = (self._extreme(which, self._top) for which in ("smin", "smax"))
        begins, last_row = integers(e, begin), self._last_row()
        left, right = (each - begins for each in (self._left, right))
        found = [e.zero()] * (2 * len(maps))
        for row in e.loop(first, final + 2, carry=found):
            line = e.clamp(row, 0, last_row) * self._stride + begin
            is_above, is_under = (self._top.equals(integers(e, each)) for each in (row, row - 1))
            for number, x in enumerate(maps):
                above, under = found[2 * number : 2 * number + 2]
                low, high = (e.load(x + (line + n)) for n in (0, e.machine.lanes))
                near, far = (e.look_up(low, high, index) for index in (left, right))
                value = blend(e, near, far, self._across)
                found[2 * number] = e.select(is_above, value, above)
                found[2 * number + 1] = e.select(is_under, value, under)
        rows = zip(found[::2], found[1::2], strict=True)
        return [blend(e, above, under, self._down) for above, under in rows]

    def _gather(self, maps: Sequence[Value], right: Value) -> list[Value]:
        e = self._e
        below = self._after(self._top, self._last[1])
        stride = integers(e, self._stride)
        lines = [each * stride for each in (self._top, below)]
        corners = [line + column for line in lines for column in (self._left, right)]
        return [self._between([e.gather(x, corner) for corner in corners]) for x in maps]

    def _between(self, corners: Sequence[Value]) -> Value:
        """Between the four corners of each pixel."""
        above = blend(self._e, corners[0], corners[1], self._across)
        under = blend(self._e, corners[2], corners[3], self._across)
        return blend(self._e, above, under, self._down)


def sampled(
    e: Emitter, row: Value, x: Value, motion: Sequence[Value], last: tuple[Value, Value]
) -> Value:
    """What the map `moving` shows where a motion leads from a vector of pixels."""
    p = e.parameters
    return Samples(e, row, x, motion, last, p.stride).values([p.moving])[0]
