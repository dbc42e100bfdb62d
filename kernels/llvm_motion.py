"""The CPU engine's kernels for motion between frames, and the move by it; align.py is the meaning.

All maps are float32 `[h, S]`, S the width w rounded up to whole vectors: what stands beyond w is
never used for what stands before it. A square's sums are made row by row: first of columns, into a
spare row whose edges are repeated, then along that row.
"""

from collections.abc import Callable, Sequence

from mhnet_video.kernels.llvm_ir import Emitter, Machine

PAD = 16
"""Elements before and behind a spare row; at least what a square reaches."""


def spare_size(stride: int, count: int) -> int:
    """Elements of so many spare rows."""
    return count * (stride + 2 * PAD)


class _Vectors:
    """What the kernels here say often.

    Args:
        e: Where to write it.
    """

    def __init__(self, e: Emitter) -> None:
        self._e = e
        self._lanes = e.machine.lanes

    def sub(self, a: str, b: str) -> str:
        return self._e.op(f"fsub {self._e.vector} {a}, {b}")

    def div(self, a: str, b: str) -> str:
        return self._e.op(f"fdiv {self._e.vector} {a}, {b}")

    def least(self, a: str, b: str) -> str:
        v = self._e.vector
        return self._e.call(v, f"llvm.minnum.v{self._lanes}f32", [(v, a), (v, b)])

    def most(self, a: str, b: str) -> str:
        v = self._e.vector
        return self._e.call(v, f"llvm.maxnum.v{self._lanes}f32", [(v, a), (v, b)])

    def clip(self, x: str, low: str, high: str) -> str:
        return self.least(self.most(x, low), high)

    def size(self, x: str) -> str:
        """The absolute value."""
        v = self._e.vector
        return self._e.call(v, f"llvm.fabs.v{self._lanes}f32", [(v, x)])

    def whole(self, x: str) -> str:
        """A vector of numbers that are not negative, cut to integers."""
        return self._e.op(f"fptosi {self._e.vector} {x} to {self._e.elements}")

    def number(self, x: str) -> str:
        """A vector of integers as float32."""
        return self._e.op(f"sitofp {self._e.elements} {x} to {self._e.vector}")

    def scalar_number(self, x: str) -> str:
        """An integer in all lanes, as float32."""
        return self._e.splat(self._e.op(f"sitofp i64 {x} to float"))

    def columns(self, start: str) -> str:
        """The columns of a vector, as float32."""
        lanes = ", ".join(f"float {self._e.scalar(float(lane))}" for lane in range(self._lanes))
        return self._e.fadd(self.scalar_number(start), f"<{lanes}>")

    def integers(self, x: str) -> str:
        """A 64-bit integer in all lanes, in 32 bits."""
        return self._e.splat(self._e.op(f"trunc i64 {x} to i32"), "i32")

    def extreme(self, which: str, x: str) -> str:
        """The smallest (`smin`) or largest (`smax`) of a vector of integers, in 64 bits."""
        name = f"llvm.vector.reduce.{which}.v{self._lanes}i32"
        return self._e.op(f"sext i32 {self._e.call('i32', name, [(self._e.elements, x)])} to i64")

    def holds(self, how: str, lanes: str) -> str:
        """Whether a comparison holds in all lanes (`and`) or in any (`or`)."""
        given = [(f"<{self._lanes} x i1>", lanes)]
        return self._e.call("i1", f"llvm.vector.reduce.{how}.v{self._lanes}i1", given)

    def blend(self, a: str, b: str, share: str) -> str:
        """From `a` to `b` by a share."""
        return self._e.fma(self.sub(b, a), share, a)


def _clamped(e: Emitter, row: str, last: str) -> str:
    """A row's number, held between 0 and the last one."""
    row = e.call("i64", "llvm.smax.i64", [("i64", row), ("i64", "0")])
    return e.call("i64", "llvm.smin.i64", [("i64", row), ("i64", last)])


class _Squares:
    """Means over squares of maps, for one row.

    Args:
        e: Where to write it.
        maps: The maps.
        row: The row.
        reach: From a square's middle to its edge.
    """

    def __init__(self, e: Emitter, maps: Sequence[str], row: str, reach: int) -> None:
        self._e, self._reach = e, reach
        last = e.add("%height", -1)
        rows = [
            e.mul(_clamped(e, e.add(row, offset), last), "%stride")
            for offset in range(-reach, reach + 1)
        ]
        length = e.add("%stride", 2 * PAD)
        self._spares = [e.at("%spare", e.mul(length, number)) for number in range(len(maps))]

        def at(x: str, _: list[str]) -> list[str]:
            for source, spare in zip(maps, self._spares, strict=True):
                total = e.load(e.at(source, e.add(rows[0], x)))
                for line in rows[1:]:
                    total = e.fadd(total, e.load(e.at(source, e.add(line, x))))
                e.store(total, e.at(spare, e.add(x, PAD)))
            return []

        e.loop(0, "%stride", e.machine.lanes, [], at)
        for spare in self._spares:
            for edge, step in ((str(PAD), -1), (e.add("%width", PAD - 1), 1)):
                value = e.op(f"load float, ptr {e.at(spare, edge)}, align 4")
                for away in range(1, reach + 1):
                    place = e.at(spare, e.add(edge, step * away))
                    e.do(f"store float {value}, ptr {place}, align 4")

    def means(self, x: str) -> list[str]:
        """The means of a vector of pixels, by maps."""
        e, reach = self._e, self._reach
        share = e.constant(1 / (2 * reach + 1) ** 2)
        found = []
        for spare in self._spares:
            total = e.load(e.at(spare, e.add(x, PAD - reach)))
            for offset in range(1 - reach, reach + 1):
                total = e.fadd(total, e.load(e.at(spare, e.add(x, PAD + offset))))
            found.append(e.fmul(total, share))
        return found


def _each_square(
    e: Emitter, maps: Sequence[str], reach: int, body: Callable[[list[str], str], None]
) -> None:
    """For each vector of the rows: the means of its squares, by maps, and its place in a map."""

    def at_row(row: str, _: list[str]) -> list[str]:
        squares = _Squares(e, maps, row, reach)
        line = e.mul(row, "%stride")

        def at(x: str, _: list[str]) -> list[str]:
            body(squares.means(x), e.add(line, x))
            return []

        e.loop(0, "%stride", e.machine.lanes, [], at)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)


_SIZES = (("spare", "ptr"), ("width", "i64"), ("height", "i64"), ("stride", "i64"))
_ROWS = (("y0", "i64"), ("y1", "i64"))


def _each(e: Emitter, body: Callable[[str, str, str], None]) -> None:
    """For each vector of the rows: its row, its first column and its place in a map."""

    def at_row(row: str, _: list[str]) -> list[str]:
        line = e.mul(row, "%stride")

        def at(x: str, _: list[str]) -> list[str]:
            body(row, x, e.add(line, x))
            return []

        e.loop(0, "%stride", e.machine.lanes, [], at)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)


def shrink(machine: Machine, name: str) -> Emitter:
    """Rows y0 to y1 of the mean luma of squares of 4 by 4 pixels."""
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # [3, 4h, 4w], w at least L
            ("out", "ptr"),  # [h, S]
            ("shares", "ptr"),  # [3], of the colours in luma, over 16
            ("width", "i64"),
            ("height", "i64"),
            ("stride", "i64"),
            *_ROWS,
        ],
    )
    lanes = machine.lanes
    shares = [e.broadcast(e.at("%shares", colour)) for colour in range(3)]
    line = e.mul("%width", 4)
    picture = e.mul(e.mul("%height", 4), line)
    last = e.add("%width", -lanes)

    def at_row(row: str, _: list[str]) -> list[str]:
        first = e.mul(e.mul(row, 4), line)

        def at(x: str, _: list[str]) -> list[str]:
            # the last vector ends where the row does
            x = e.call("i64", "llvm.smin.i64", [("i64", x), ("i64", last)])
            parts = []
            for part in range(4):
                total = ""
                for colour in range(3):
                    place = e.add(e.mul(picture, colour), e.add(first, e.mul(x, 4)))
                    place = e.add(place, part * lanes)
                    column = e.load(e.at("%x", place))
                    for dy in (1, 2, 3):
                        below = e.load(e.at("%x", e.add(place, e.mul(line, dy))))
                        column = e.fadd(column, below)
                    if colour:
                        total = e.fma(column, shares[colour], total)
                    else:
                        total = e.fmul(column, shares[0])
                parts.append(total)
            left = e.fadd(*e.deinterleave(parts[0], parts[1], "float"))
            right = e.fadd(*e.deinterleave(parts[2], parts[3], "float"))
            mean = e.fadd(*e.deinterleave(left, right, "float"))
            e.store(mean, e.at("%out", e.add(e.mul(row, "%stride"), x)))
            return []

        e.loop(0, "%width", lanes, [], at)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


def halve(machine: Machine, name: str) -> Emitter:
    """Rows y0 to y1 of the means of squares of 2 by 2."""
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # [2h and more, its stride], with two vectors beyond its end
            ("x_stride", "i64"),
            ("out", "ptr"),  # [h, S]
            ("stride", "i64"),
            *_ROWS,
        ],
    )

    def body(row: str, x: str, place: str) -> None:
        source = e.add(e.mul(e.mul(row, 2), "%x_stride"), e.mul(x, 2))
        sums = []
        for part in (0, 1):
            here = e.add(source, part * machine.lanes)
            below = e.load(e.at("%x", e.add(here, "%x_stride")))
            sums.append(e.fadd(e.load(e.at("%x", here)), below))
        total = e.fadd(*e.deinterleave(sums[0], sums[1], "float"))
        e.store(e.fmul(total, e.constant(0.25)), e.at("%out", place))

    _each(e, body)
    return e


def copy(machine: Machine, name: str) -> Emitter:
    """So many elements, from the first to the end, whole vectors."""
    e = Emitter(machine, name, [("x", "ptr"), ("out", "ptr"), ("first", "i64"), ("end", "i64")])

    def at(x: str, _: list[str]) -> list[str]:
        e.store(e.load(e.at("%x", x)), e.at("%out", x))
        return []

    e.loop("%first", "%end", machine.lanes, [], at)
    return e


def gradients(machine: Machine, name: str) -> Emitter:
    """Rows y0 to y1 of how a picture grows to the right and down, and of their products."""
    maps = ("right", "down", "a", "b", "c")
    e = Emitter(
        machine,
        name,
        [("x", "ptr"), *((each, "ptr") for each in maps), *_SIZES, *_ROWS],
    )
    vectors, half = _Vectors(e), e.constant(0.5)
    last = e.add("%height", -1)
    line = e.at("%spare", PAD)

    def at_row(row: str, _: list[str]) -> list[str]:
        source = e.mul(row, "%stride")
        above, below = (e.mul(_clamped(e, e.add(row, step), last), "%stride") for step in (-1, 1))

        def copy(x: str, _: list[str]) -> list[str]:
            e.store(e.load(e.at("%x", e.add(source, x))), e.at(line, x))
            return []

        e.loop(0, "%stride", machine.lanes, [], copy)
        for to, of in (("-1", "0"), ("%width", e.add("%width", -1))):
            edge = e.op(f"load float, ptr {e.at(line, of)}, align 4")
            e.do(f"store float {edge}, ptr {e.at(line, to)}, align 4")

        def at(x: str, _: list[str]) -> list[str]:
            sides = [e.load(e.at(line, e.add(x, step))) for step in (1, -1)]
            right = e.fmul(vectors.sub(*sides), half)
            sides = [e.load(e.at("%x", e.add(each, x))) for each in (below, above)]
            down = e.fmul(vectors.sub(*sides), half)
            products = (e.fmul(right, right), e.fmul(right, down), e.fmul(down, down))
            for each, value in zip(maps, (right, down, *products), strict=True):
                e.store(value, e.at(f"%{each}", e.add(source, x)))
            return []

        e.loop(0, "%stride", machine.lanes, [], at)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


def invert(machine: Machine, name: str, reach: int, damping: float) -> Emitter:
    """Rows y0 to y1 of the inverse of each square's matrix, from the gradients' products."""
    products, inverse = ("a", "b", "c"), ("p", "q", "r")
    e = Emitter(
        machine,
        name,
        [*((each, "ptr") for each in (*products, *inverse)), *_SIZES, *_ROWS],
    )
    vectors, more, zero = _Vectors(e), e.constant(damping), "zeroinitializer"

    def body(means: list[str], place: str) -> None:
        a, b, c = means
        a, c = e.fadd(a, more), e.fadd(c, more)
        scale = vectors.div(e.constant(1.0), vectors.sub(e.fmul(a, c), e.fmul(b, b)))
        values = (e.fmul(c, scale), vectors.sub(zero, e.fmul(b, scale)), e.fmul(a, scale))
        for each, value in zip(inverse, values, strict=True):
            e.store(value, e.at(f"%{each}", place))

    _each_square(e, [f"%{each}" for each in products], reach, body)
    return e


class _Sources:
    """Where a motion leads from a vector of pixels, and what maps show there, bilinearly.

    Many vectors of pixels come from places that lie side by side: these are loaded. Nearly all
    others come from few rows, and from columns that two vectors hold: in pictures these are looked
    up in them, in a small part of the time for which a processor gathers. In the estimate's small
    maps that would not save what it takes to compile, at every start.

    Args:
        e: Where to write it.
        row: The pixels' row.
        x: Their first column.
        motion: To the right and down.
        last: The last column and row in all lanes, float32.
        stride: Elements from a row of the maps to the next.
        first_end: Of pictures, beyond whose last row is no memory of theirs: from which column on
            no vector and the element behind it may be loaded; at least a vector. Empty for maps.
    """

    def __init__(
        self,
        e: Emitter,
        row: str,
        x: str,
        motion: Sequence[str],
        last: tuple[str, str],
        stride: str = "%stride",
        first_end: str = "",
    ) -> None:
        self._e, self._vectors, self._last, self._stride = e, _Vectors(e), last, stride
        lanes, vectors, zero = e.machine.lanes, self._vectors, "zeroinitializer"
        from_x = vectors.clip(e.fadd(vectors.columns(x), motion[0]), zero, last[0])
        from_y = vectors.clip(e.fadd(vectors.scalar_number(row), motion[1]), zero, last[1])
        self._left, self._top = vectors.whole(from_x), vectors.whole(from_y)
        self._across = vectors.sub(from_x, vectors.number(self._left))
        self._down = vectors.sub(from_y, vectors.number(self._top))
        ramp = "<" + ", ".join(f"i32 {lane}" for lane in range(lanes)) + ">"
        offsets = e.op(f"sub {e.elements} {self._left}, {ramp}")
        # a column beyond the last one may be loaded, and counts nothing
        are_alike, firsts = [], []
        for each in (offsets, self._top):
            first = e.op(f"extractelement {e.elements} {each}, i32 0")
            alike = e.op(f"icmp eq {e.elements} {each}, {e.splat(first, 'i32')}")
            are_alike.append(vectors.holds("and", alike))
            firsts.append(e.op(f"sext i32 {first} to i64"))
        self._side_by_side = e.op(f"and i1 {are_alike[0]}, {are_alike[1]}")
        self._begin, self._row = firsts
        self._first_end = first_end
        if first_end:
            is_inside = e.op(f"icmp slt i64 {self._begin}, {first_end}")
            self._side_by_side = e.op(f"and i1 {self._side_by_side}, {is_inside}")

    def values(self, maps: Sequence[str]) -> list[str]:
        """What maps show, each a vector."""
        e, vectors = self._e, self._vectors

        def load() -> list[str]:
            next_row = _clamped(e, e.add(self._row, 1), e.add("%height", -1))
            places = [
                e.add(e.mul(each, self._stride), self._begin) for each in (self._row, next_row)
            ]
            return [
                self._between(
                    [e.load(e.at(x, e.add(place, step))) for place in places for step in (0, 1)]
                )
                for x in maps
            ]

        def after(place: str, end: str) -> str:
            return vectors.whole(vectors.least(e.fadd(vectors.number(place), e.constant(1.0)), end))

        def find() -> list[str]:
            right = after(self._left, self._last[0])
            if not (self._first_end and e.machine.looks_up):
                return gather(right)
            most = e.add(self._first_end, -e.machine.lanes)
            begin = vectors.extreme("smin", self._left)
            begin = e.call("i64", "llvm.smin.i64", [("i64", begin), ("i64", most)])
            reach = e.op(f"sub nsw i64 {vectors.extreme('smax', right)}, {begin}")
            is_near = e.op(f"icmp slt i64 {reach}, {2 * e.machine.lanes}")
            return e.either(is_near, e.vector, lambda: look_up(begin, right), lambda: gather(right))

        def look_up(begin: str, right: str) -> list[str]:
            first, final = (vectors.extreme(which, self._top) for which in ("smin", "smax"))
            begins, last_row = vectors.integers(begin), e.add("%height", -1)
            left, right = (
                e.op(f"sub {e.elements} {each}, {begins}") for each in (self._left, right)
            )

            def at(row: str, found: list[str]) -> list[str]:
                line = e.add(e.mul(_clamped(e, row, last_row), self._stride), begin)
                is_above, is_under = (
                    e.op(f"icmp eq {e.elements} {self._top}, {vectors.integers(each)}")
                    for each in (row, e.add(row, -1))
                )
                results = []
                for x, above, under in zip(maps, found[::2], found[1::2], strict=True):
                    low, high = (e.load(e.at(x, e.add(line, n))) for n in (0, e.machine.lanes))
                    near, far = (e.look_up(low, high, index) for index in (left, right))
                    value = vectors.blend(near, far, self._across)
                    results += [e.choose(is_above, value, above), e.choose(is_under, value, under)]
                return results

            none = [(e.vector, "zeroinitializer")] * 2 * len(maps)
            found = e.loop(first, e.add(final, 2), 1, none, at)
            rows = zip(found[::2], found[1::2], strict=True)
            return [vectors.blend(above, under, self._down) for above, under in rows]

        def gather(right: str) -> list[str]:
            below = after(self._top, self._last[1])
            stride = vectors.integers(self._stride)
            lines = [e.op(f"mul {e.elements} {each}, {stride}") for each in (self._top, below)]
            corners = [
                e.op(f"add {e.elements} {line}, {column}")
                for line in lines
                for column in (self._left, right)
            ]
            return [self._between([e.gather(x, corner) for corner in corners]) for x in maps]

        return e.either(self._side_by_side, e.vector, load, find)

    def _between(self, corners: Sequence[str]) -> str:
        vectors = self._vectors
        above = vectors.blend(corners[0], corners[1], self._across)
        under = vectors.blend(corners[2], corners[3], self._across)
        return vectors.blend(above, under, self._down)


def _sampled(e: Emitter, row: str, x: str, motion: Sequence[str], last: tuple[str, str]) -> str:
    """What the neighbour shows where a motion leads from a vector of pixels."""
    return _Sources(e, row, x, motion, last).values(["%moving"])[0]


def _edges(e: Emitter, vectors: _Vectors) -> tuple[str, str]:
    """The last column and the last row in all lanes."""
    column, row = (vectors.scalar_number(e.add(f"%{side}", -1)) for side in ("width", "height"))
    return column, row


def slopes(machine: Machine, name: str, clip: float) -> Emitter:
    """Rows y0 to y1 of the errors that a motion leaves, times the picture's gradients."""
    names = ("fixed", "moving", "motion_x", "motion_y", "right", "down", "out_x", "out_y")
    e = Emitter(machine, name, [*((each, "ptr") for each in names), *_SIZES, *_ROWS])
    vectors = _Vectors(e)
    last = _edges(e, vectors)
    low, high = e.constant(-clip), e.constant(clip)

    def body(row: str, x: str, place: str) -> None:
        motion = [e.load(e.at(f"%motion_{axis}", place)) for axis in "xy"]
        value = _sampled(e, row, x, motion, last)
        error = vectors.clip(vectors.sub(value, e.load(e.at("%fixed", place))), low, high)
        for axis, side in (("x", "right"), ("y", "down")):
            product = e.fmul(error, e.load(e.at(f"%{side}", place)))
            e.store(product, e.at(f"%out_{axis}", place))

    _each(e, body)
    return e


def improve(machine: Machine, name: str, reach: int, stride: float) -> Emitter:
    """Rows y0 to y1 of a motion, changed by what the slopes say."""
    names = ("slope_x", "slope_y", "p", "q", "r", "motion_x", "motion_y")
    e = Emitter(machine, name, [*((each, "ptr") for each in names), *_SIZES, *_ROWS])
    vectors = _Vectors(e)
    low, high = e.constant(-stride), e.constant(stride)

    def body(slope: list[str], place: str) -> None:
        p, q, r = (e.load(e.at(f"%{each}", place)) for each in "pqr")
        for axis, (near, far) in (("x", (p, q)), ("y", (q, r))):
            step = e.fma(near, slope[0], e.fmul(far, slope[1]))
            here = e.at(f"%motion_{axis}", place)
            e.store(vectors.sub(e.load(here), vectors.clip(step, low, high)), here)

    _each_square(e, ["%slope_x", "%slope_y"], reach, body)
    return e


def smooth(machine: Machine, name: str, reach: int) -> Emitter:
    """Rows y0 to y1 of the means of a motion over squares."""
    names = ("motion_x", "motion_y", "out_x", "out_y")
    e = Emitter(machine, name, [*((each, "ptr") for each in names), *_SIZES, *_ROWS])

    def body(means: list[str], place: str) -> None:
        for axis, value in zip("xy", means, strict=True):
            e.store(value, e.at(f"%out_{axis}", place))

    _each_square(e, ["%motion_x", "%motion_y"], reach, body)
    return e


def errors(machine: Machine, name: str, clip: float) -> Emitter:
    """Rows y0 to y1 of the size of the errors with one motion and with another."""
    motions = tuple(f"{which}_{axis}" for which in ("old", "new") for axis in "xy")
    names = ("fixed", "moving", *motions, "out_old", "out_new")
    e = Emitter(machine, name, [*((each, "ptr") for each in names), *_SIZES, *_ROWS])
    vectors = _Vectors(e)
    last = _edges(e, vectors)
    high = e.constant(clip)

    def body(row: str, x: str, place: str) -> None:
        fixed = e.load(e.at("%fixed", place))
        for which in ("old", "new"):
            motion = [e.load(e.at(f"%{which}_{axis}", place)) for axis in "xy"]
            value = _sampled(e, row, x, motion, last)
            error = vectors.size(vectors.sub(value, fixed))
            e.store(vectors.least(error, high), e.at(f"%out_{which}", place))

    _each(e, body)
    return e


def choose(
    machine: Machine, name: str, reach: int, gain: float, slope: float, floor: float
) -> Emitter:
    """Rows y0 to y1 of the second of two motions, as far as its errors are less."""
    motions = tuple(f"{which}_{axis}" for which in ("old", "new", "out") for axis in "xy")
    names = ("old_errors", "new_errors", *motions)
    e = Emitter(machine, name, [*((each, "ptr") for each in names), *_SIZES, *_ROWS])
    vectors = _Vectors(e)
    share, least, one = e.constant(gain / slope), e.constant(floor), e.constant(1.0)
    steep = e.constant(-1 / slope)

    def body(means: list[str], place: str) -> None:
        old, new = means
        ratio = vectors.div(new, e.fadd(old, least))
        kept = vectors.clip(e.fma(ratio, steep, share), "zeroinitializer", one)
        for axis in "xy":
            before, after = (e.load(e.at(f"%{each}_{axis}", place)) for each in ("old", "new"))
            e.store(vectors.blend(before, after, kept), e.at(f"%out_{axis}", place))

    _each_square(e, ["%old_errors", "%new_errors"], reach, body)
    return e


MOMENTS, SLOPES = 18, 6
"""Sums that `moments` and `fit` give."""


class _Basis:
    """One, the column and the row of pixels, both from -1 to 1.

    Args:
        e: Where to write it.
        vectors: Its helper.
    """

    def __init__(self, e: Emitter, vectors: _Vectors) -> None:
        self._e, self._vectors = e, vectors
        self._width, height = (vectors.scalar_number(f"%{side}") for side in ("width", "height"))
        one = e.constant(1.0)
        self._steps = [vectors.div(one, each) for each in (self._width, height)]

    def _from(self, number: str, step: str) -> str:
        odd = self._e.fma(number, self._e.constant(2.0), self._e.constant(1.0))
        return self._e.fma(odd, step, self._e.constant(-1.0))

    def column(self, x: str) -> str:
        """Of a vector of pixels."""
        return self._from(self._vectors.columns(x), self._steps[0])

    def row(self, y: str) -> str:
        """Of a row, in all lanes."""
        return self._from(self._vectors.scalar_number(y), self._steps[1])

    def inside(self, value: str, x: str) -> str:
        """A vector, zero beyond the picture."""
        e, v = self._e, self._e.vector
        mask = e.op(f"fcmp olt {v} {self._vectors.columns(x)}, {self._width}")
        return e.op(f"select <{e.machine.lanes} x i1> {mask}, {v} {value}, {v} zeroinitializer")


def moments(machine: Machine, name: str) -> Emitter:
    """Sums over rows y0 to y1 of the gradients' products times 1, x, y, x², xy and y²."""
    e = Emitter(
        machine,
        name,
        [
            *((each, "ptr") for each in "abc"),  # [h, S]
            ("out", "ptr"),  # [3, 6]
            ("width", "i64"),
            ("height", "i64"),
            ("stride", "i64"),
            *_ROWS,
        ],
    )
    v, zero = e.vector, "zeroinitializer"
    vectors = _Vectors(e)
    basis = _Basis(e, vectors)

    def at_row(row: str, totals: list[str]) -> list[str]:
        line, y = e.mul(row, "%stride"), basis.row(row)

        def at(x: str, sums: list[str]) -> list[str]:
            column = basis.column(x)
            found = []
            for number, each in enumerate("abc"):
                value = basis.inside(e.load(e.at(f"%{each}", e.add(line, x))), x)
                old = sums[3 * number : 3 * number + 3]
                first = e.fmul(value, column)
                found += [e.fadd(old[0], value), e.fadd(old[1], first)]
                found.append(e.fma(first, column, old[2]))
            return found

        sums = e.loop(0, "%stride", machine.lanes, [(v, zero)] * 9, at)
        found = []
        for number in range(3):
            one, x, xx = sums[3 * number : 3 * number + 3]
            old = totals[6 * number : 6 * number + 6]
            below = e.fmul(one, y)
            found += [e.fadd(old[0], one), e.fadd(old[1], x), e.fadd(old[2], below)]
            found += [e.fadd(old[3], xx), e.fma(x, y, old[4]), e.fma(below, y, old[5])]
        return found

    totals = e.loop("%y0", "%y1", 1, [(v, zero)] * MOMENTS, at_row)
    _store_sums(e, totals)
    return e


def _store_sums(e: Emitter, totals: Sequence[str]) -> None:
    for number, total in enumerate(totals):
        place = e.at("%out", number)
        e.do(f"store float {e.sum_lanes(total)}, ptr {place}, align 4")


def fit(machine: Machine, name: str, clip: float) -> Emitter:
    """Sums over rows y0 to y1 of the errors that a plane leaves, times gradients and basis."""
    names = ("fixed", "moving", "right", "down", "plane", "out")  # plane [2, 3], out [2, 3]
    e = Emitter(
        machine,
        name,
        [
            *((each, "ptr") for each in names),
            ("width", "i64"),
            ("height", "i64"),
            ("stride", "i64"),
            *_ROWS,
        ],
    )
    v, zero = e.vector, "zeroinitializer"
    vectors = _Vectors(e)
    basis, last = _Basis(e, vectors), _edges(e, vectors)
    low, high = e.constant(-clip), e.constant(clip)
    plane = [e.broadcast(e.at("%plane", number)) for number in range(6)]

    def at_row(row: str, totals: list[str]) -> list[str]:
        line, y = e.mul(row, "%stride"), basis.row(row)
        starts = [e.fma(plane[3 * axis + 2], y, plane[3 * axis]) for axis in (0, 1)]

        def at(x: str, sums: list[str]) -> list[str]:
            column, place = basis.column(x), e.add(line, x)
            motion = [e.fma(plane[3 * axis + 1], column, starts[axis]) for axis in (0, 1)]
            value = _sampled(e, row, x, motion, last)
            error = vectors.clip(vectors.sub(value, e.load(e.at("%fixed", place))), low, high)
            found = []
            for axis, side in enumerate(("right", "down")):
                slope = e.fmul(error, e.load(e.at(f"%{side}", place)))
                slope = basis.inside(slope, x)
                old = sums[2 * axis : 2 * axis + 2]
                found += [e.fadd(old[0], slope), e.fma(slope, column, old[1])]
            return found

        sums = e.loop(0, "%stride", machine.lanes, [(v, zero)] * 4, at)
        found = []
        for axis in (0, 1):
            one, x = sums[2 * axis : 2 * axis + 2]
            old = totals[3 * axis : 3 * axis + 3]
            found += [e.fadd(old[0], one), e.fadd(old[1], x), e.fma(one, y, old[2])]
        return found

    totals = e.loop("%y0", "%y1", 1, [(v, zero)] * SLOPES, at_row)
    _store_sums(e, totals)
    return e


_PAIRS = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
"""Where the products of two of the basis are among the six."""


def solve(
    machine: Machine, name: str, terms: int, damping: float, stride: float, factor: float
) -> Emitter:
    """A plane after a step of least squares, times a factor.

    Args:
        machine: What it is made for.
        name: The function's.
        terms: 1 where only the values in the middle are changed, else 3.
        damping: Added to the mean squares.
        stride: Largest change of each number.
        factor: What the plane is multiplied by then.
    """
    e = Emitter(
        machine,
        name,
        [
            ("moments", "ptr"),  # [parts, MOMENTS]
            ("slopes", "ptr"),  # [parts, SLOPES]
            ("plane", "ptr"),  # [2, 3]
            ("parts", "i64"),
            ("pixels", "i64"),
            ("first", "i64"),
            ("end", "i64"),
        ],
    )

    def total(pointer: str, size: int) -> list[str]:
        def at(part: str, sums: list[str]) -> list[str]:
            here = e.at(pointer, e.mul(part, size))
            return [
                e.op(f"fadd float {old}, {_scalar(e, e.at(here, number))}")
                for number, old in enumerate(sums)
            ]

        sums = e.loop(0, "%parts", 1, [("float", "0.0")] * size, at)
        return [e.op(f"fdiv float {each}, {pixels}") for each in sums]

    pixels = e.op("sitofp i64 %pixels to float")
    moments, right = total("%moments", MOMENTS), total("%slopes", SLOPES)
    unknown = [(axis, term) for axis in (0, 1) for term in range(terms)]
    rows = []
    for axis, term in unknown:
        row = [moments[6 * (axis + other) + _PAIRS[term][of]] for other, of in unknown]
        rows.append([*row, right[3 * axis + term]])
    for number, row in enumerate(rows):
        row[number] = e.op(f"fadd float {row[number]}, {e.scalar(damping)}")
    # positive definite: no row need be chosen
    for number, row in enumerate(rows):
        for below in range(number + 1, len(rows)):
            share = e.op(f"fdiv float {rows[below][number]}, {row[number]}")
            for column in range(number + 1, len(row)):
                part = e.op(f"fmul float {share}, {row[column]}")
                rows[below][column] = e.op(f"fsub float {rows[below][column]}, {part}")
    steps: list[str] = []
    for number in reversed(range(len(rows))):
        value = rows[number][-1]
        for step, column in zip(reversed(steps), range(number + 1, len(rows)), strict=True):
            part = e.op(f"fmul float {rows[number][column]}, {step}")
            value = e.op(f"fsub float {value}, {part}")
        steps.append(e.op(f"fdiv float {value}, {rows[number][number]}"))
    changes = dict(zip(unknown, reversed(steps), strict=True))
    for axis in (0, 1):
        for term in range(3):
            place = e.at("%plane", 3 * axis + term)
            value = _scalar(e, place)
            if (axis, term) in changes:
                bounds = [("float", changes[axis, term]), ("float", e.scalar(-stride))]
                step = e.call("float", "llvm.maxnum.f32", bounds)
                bounds = [("float", step), ("float", e.scalar(stride))]
                step = e.call("float", "llvm.minnum.f32", bounds)
                value = e.op(f"fsub float {value}, {step}")
            value = e.op(f"fmul float {value}, {e.scalar(factor)}")
            e.do(f"store float {value}, ptr {place}, align 4")
    return e


def accept(machine: Machine, name: str, gain: float, floor: float) -> Emitter:
    """A plane, or none where its mean error is no less than a share of that without it."""
    e = Emitter(
        machine,
        name,
        [
            ("old", "ptr"),  # [h, S], errors without the plane
            ("new", "ptr"),
            ("plane", "ptr"),  # [2, 3]
            ("width", "i64"),
            ("height", "i64"),
            ("stride", "i64"),
            ("first", "i64"),
            ("end", "i64"),
        ],
    )
    v, zero = e.vector, "zeroinitializer"
    basis = _Basis(e, _Vectors(e))

    def at_row(row: str, totals: list[str]) -> list[str]:
        line = e.mul(row, "%stride")

        def at(x: str, sums: list[str]) -> list[str]:
            return [
                e.fadd(total, basis.inside(e.load(e.at(f"%{each}", e.add(line, x))), x))
                for total, each in zip(sums, ("old", "new"), strict=True)
            ]

        return e.loop(0, "%stride", machine.lanes, [(v, total) for total in totals], at)

    old, new = (e.sum_lanes(each) for each in e.loop(0, "%height", 1, [(v, zero)] * 2, at_row))
    pixels = e.op(f"sitofp i64 {e.mul('%width', '%height')} to float")
    least = e.op(f"fmul float {pixels}, {e.scalar(floor)}")
    limit = e.op(f"fmul float {e.op(f'fadd float {old}, {least}')}, {e.scalar(gain)}")
    is_better = e.op(f"fcmp olt float {new}, {limit}")
    for number in range(6):
        place = e.at("%plane", number)
        value = e.op(f"select i1 {is_better}, float {_scalar(e, place)}, float 0.0")
        e.do(f"store float {value}, ptr {place}, align 4")
    return e


def _scalar(e: Emitter, pointer: str) -> str:
    return e.op(f"load float, ptr {pointer}, align 4")


def spread(machine: Machine, name: str, factor: float) -> Emitter:
    """Rows y0 to y1 of the motion of each pixel by a plane, times a factor."""
    e = Emitter(
        machine,
        name,
        [
            ("plane", "ptr"),  # [2, 3]
            ("out_x", "ptr"),
            ("out_y", "ptr"),
            *_SIZES,
            *_ROWS,
        ],
    )
    vectors = _Vectors(e)
    basis = _Basis(e, vectors)
    plane = [e.fmul(e.broadcast(e.at("%plane", n)), e.constant(factor)) for n in range(6)]

    def body(row: str, x: str, place: str) -> None:
        column, y = basis.column(x), basis.row(row)
        for axis, which in enumerate("xy"):
            value, by_column, by_row = plane[3 * axis : 3 * axis + 3]
            value = e.fma(by_row, y, e.fma(by_column, column, value))
            e.store(value, e.at(f"%out_{which}", place))

    _each(e, body)
    return e


def enlarge(machine: Machine, name: str, factor: float) -> Emitter:
    """Rows y0 to y1 of a map, enlarged bilinearly and multiplied.

    Between which rows and columns of the smaller one those of the larger one lie is in tables.
    """
    e = Emitter(
        machine,
        name,
        [
            ("x", "ptr"),  # [its height, x_stride]
            ("x_stride", "i64"),
            ("rows", "ptr"),  # [2, h] int32: the one before and the one behind
            ("row_shares", "ptr"),  # [h] float32: how much of the one behind
            ("columns", "ptr"),  # [2, S] int32
            ("column_shares", "ptr"),  # [S] float32
            ("out", "ptr"),  # [h, S]
            ("spare", "ptr"),  # [x_stride + 2 PAD]
            ("height", "i64"),
            ("stride", "i64"),
            *_ROWS,
        ],
    )
    vectors, times = _Vectors(e), e.constant(factor)

    def at_row(row: str, _: list[str]) -> list[str]:
        lines = []
        for table in (0, 1):
            place = e.at("%rows", e.add(e.mul("%height", table), row))
            number = e.op(f"sext i32 {e.op(f'load i32, ptr {place}, align 4')} to i64")
            lines.append(e.mul(number, "%x_stride"))
        share = e.broadcast(e.at("%row_shares", row))

        def between(x: str, _: list[str]) -> list[str]:
            above, below = (e.load(e.at("%x", e.add(line, x))) for line in lines)
            value = e.fmul(vectors.blend(above, below, share), times)
            e.store(value, e.at("%spare", x))
            return []

        e.loop(0, "%x_stride", machine.lanes, [], between)
        line = e.mul(row, "%stride")

        def at(x: str, _: list[str]) -> list[str]:
            left, right = (
                e.gather("%spare", e.load_elements(e.at("%columns", place)))
                for place in (x, e.add("%stride", x))
            )
            value = vectors.blend(left, right, e.load(e.at("%column_shares", x)))
            e.store(value, e.at("%out", e.add(line, x)))
            return []

        e.loop(0, "%stride", machine.lanes, [], at)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


def move(machine: Machine, name: str, same: float, unlike: float, shrink: int) -> Emitter:
    """Rows y0 to y1 of a picture, sampled where a motion says, but for still pixels."""
    e = Emitter(
        machine,
        name,
        [*_MOVED, ("out", "ptr"), *_MOVE_SIZES, *_ROWS],  # out [3, H, W]
    )
    picture = e.mul("%height", "%width")

    def at(moving: "_Moving", row: str, x: str) -> None:
        place = e.add(e.mul(row, "%width"), x)
        for color, value in enumerate(moving.colors(x)):
            e.store(value, e.at("%out", e.add(e.mul(picture, color), place)))

    _each_moved(e, same, unlike, shrink, machine.lanes, at)
    return e


def move_folded(machine: Machine, name: str, same: float, unlike: float, shrink: int) -> Emitter:
    """The same, written as `llvm_images.fold` writes pictures at patch 2."""
    e = Emitter(
        machine,
        name,
        [
            *_MOVED,
            ("out", "ptr"),  # the picture's first plane, at its first row
            *_MOVE_SIZES,
            ("plane", "i64"),  # elements of a row of a plane
            ("planes_row", "i64"),  # elements of a row of all planes
            *_ROWS,
        ],
    )
    lanes = machine.lanes
    each = 1 if machine.bfloat16 else 2  # planes of a row of pixels

    def at(moving: "_Moving", row: str, x: str) -> None:
        above, below = e.op(f"lshr i64 {row}, 1"), e.op(f"and i64 {row}, 1")
        place = e.add(e.mul(e.add(above, 1), "%planes_row"), lanes)
        place = e.add(place, e.op(f"lshr i64 {x}, 1"))
        place = e.add(place, e.mul(e.mul("%plane", each), below))
        pairs = zip(moving.colors(x), moving.colors(e.add(x, lanes)), strict=True)
        for color, (first, second) in enumerate(pairs):
            there = e.at("%out", e.add(place, e.mul("%plane", 2 * each * color)))
            if machine.bfloat16:
                e.store_elements(e.pack_neighbours(first, second), there)
                continue
            for dx, value in enumerate(e.deinterleave(first, second, "float")):
                e.store(value, e.at(there, e.mul("%plane", dx)))

    _each_moved(e, same, unlike, shrink, 2 * lanes, at)
    return e


_MOVED = (
    ("x", "ptr"),  # [3, H, W]
    ("fixed", "ptr"),  # [3, H, W], the middle frame
    ("motion_x", "ptr"),  # [h, S], in pixels of h and w
    ("motion_y", "ptr"),
    ("spare", "ptr"),  # two spare rows
)
_MOVE_SIZES = (
    ("rows", "ptr"),  # [2, H] int32: the one before and the one behind
    ("row_shares", "ptr"),  # [H] float32: how much of the one behind
    ("height", "i64"),  # H
    ("width", "i64"),  # W, a multiple of L and of the side of the squares
    ("stride", "i64"),  # S
)


class _Moving:
    """What is moved of a row.

    Args:
        e: Where to write it.
        row: The row.
        limits: See align.SAME and align.UNLIKE.
        shrink: Pixels of a side of the squares that have a motion.
        last: The last column and row in all lanes.
    """

    def __init__(
        self, e: Emitter, row: str, limits: tuple[float, float], shrink: int, last: tuple[str, str]
    ) -> None:
        self._e, self._row, self._limits = e, row, limits
        self._shrink, self._last = shrink, last
        length = e.add("%stride", 2 * PAD)
        self._spares = [e.at("%spare", PAD), e.at("%spare", e.add(length, PAD))]
        vectors = _Vectors(e)
        lines = []
        for table in (0, 1):
            place = e.at("%rows", e.add(e.mul("%height", table), row))
            number = e.op(f"sext i32 {e.op(f'load i32, ptr {place}, align 4')} to i64")
            lines.append(e.mul(number, "%stride"))
        share, factor = e.broadcast(e.at("%row_shares", row)), e.constant(float(shrink))

        def between(x: str, _: list[str]) -> list[str]:
            for axis, spare in zip("xy", self._spares, strict=True):
                above, below = (e.load(e.at(f"%motion_{axis}", e.add(line, x))) for line in lines)
                value = e.fmul(vectors.blend(above, below, share), factor)
                e.store(value, e.at(spare, x))
            return []

        e.loop(0, "%stride", e.machine.lanes, [], between)
        # beyond the edges as at the edges
        end = e.op(f"sdiv i64 %width, {shrink}")
        for spare in self._spares:
            for to, of in (("-1", "0"), (end, e.add(end, -1))):
                value = e.op(f"load i32, ptr {e.at(spare, of)}, align 4")
                e.do(f"store i32 {value}, ptr {e.at(spare, to)}, align 4")

    def _motion(self, x: str) -> list[str]:
        """The motion of a vector of pixels, between those of the squares around them."""
        e, lanes = self._e, self._e.machine.lanes
        first = e.add(e.op(f"sdiv i64 {x}, {self._shrink}"), -1)
        places = [(lane + 0.5) / self._shrink + 0.5 for lane in range(lanes)]
        before = [int(place) for place in places]
        shares = [place - number for place, number in zip(places, before, strict=True)]
        share = "<" + ", ".join(f"float {e.scalar(each)}" for each in shares) + ">"
        found = []
        for spare in self._spares:
            squares = e.load(e.at(spare, first))
            left, right = (
                e.shuffle(squares, squares, [number + step for number in before], "float")
                for step in (0, 1)
            )
            found.append(_Vectors(e).blend(left, right, share))
        return found

    def colors(self, x: str) -> list[str]:
        """A vector of pixels, moved."""
        e, vectors = self._e, _Vectors(self._e)
        picture = e.mul("%height", "%width")
        place = e.add(e.mul(self._row, "%width"), x)
        planes = [e.mul(picture, color) for color in range(3)]
        here = [e.load(e.at("%x", e.add(plane, place))) for plane in planes]
        unlikeness = zero = "zeroinitializer"
        for value, plane in zip(here, planes, strict=True):
            shown = e.load(e.at("%fixed", e.add(plane, place)))
            unlikeness = vectors.most(unlikeness, vectors.size(vectors.sub(value, shown)))
        same, unlike = self._limits
        slope, start = e.constant(1 / (unlike - same)), e.constant(-same / (unlike - same))
        kept = vectors.clip(e.fma(unlikeness, slope, start), zero, e.constant(1.0))

        def there() -> list[str]:
            first_end = e.add("%width", -e.machine.lanes)
            given = self._row, x, self._motion(x), self._last
            sources = _Sources(e, *given, stride="%width", first_end=first_end)
            values = sources.values([e.at("%x", plane) for plane in planes])
            return [vectors.blend(a, b, kept) for a, b in zip(here, values, strict=True)]

        # before a fixed camera hardly any vector has a pixel that moves
        moves = e.op(f"fcmp ogt {e.vector} {kept}, {zero}")
        return e.either(vectors.holds("or", moves), e.vector, there, lambda: here)


def _each_moved(
    e: Emitter,
    same: float,
    unlike: float,
    shrink: int,
    step: int,
    body: Callable[[_Moving, str, str], None],
) -> None:
    """For each so many pixels of the rows: what is moved of the row, the row and the column."""
    last = _edges(e, _Vectors(e))

    def at_row(row: str, _: list[str]) -> list[str]:
        moving = _Moving(e, row, (same, unlike), shrink, last)

        def at(x: str, _: list[str]) -> list[str]:
            body(moving, row, x)
            return []

        e.loop(0, "%width", step, [], at)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
