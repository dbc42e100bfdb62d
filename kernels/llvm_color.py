"""Kernels for CPUs between YUV planes and RGB; color.py says what they mean.

Chunks of a row lie one after the other, but for the last one, which ends where the row does and
does some of its pixels once more. Rows are as far apart as the caller says.
"""

from collections.abc import Sequence

from mhnet_video.kernels.llvm_ir import Emitter, Machine


class _Samples:
    """Rows of whole numbers of 8 or 16 bits, as float32.

    Args:
        e: Where to write it.
        sample_bytes: 1 or 2.
    """

    def __init__(self, e: Emitter, sample_bytes: int) -> None:
        self._e, self._bytes = e, sample_bytes
        self._kind = f"<{e.machine.lanes} x i{8 * sample_bytes}>"

    def row(self, plane: str, number: str, row_bytes: str) -> str:
        """Address of a row."""
        offset = self._e.mul(number, row_bytes)
        return self._e.op(f"getelementptr i8, ptr {plane}, i64 {offset}")

    def _at(self, row: str, column: str) -> str:
        offset = self._e.mul(column, self._bytes)
        return self._e.op(f"getelementptr i8, ptr {row}, i64 {offset}")

    def load(self, row: str, column: str) -> str:
        """A vector of samples."""
        e = self._e
        value = e.op(f"load {self._kind}, ptr {self._at(row, column)}, align {self._bytes}")
        whole = e.op(f"zext {self._kind} {value} to {e.elements}")
        return e.op(f"sitofp {e.elements} {whole} to {e.vector}")

    def store(self, value: str, top: str, row: str, column: str) -> None:
        """Round a vector, to even where it is between two, and cut it to what samples hold."""
        e, lanes, v = self._e, self._e.machine.lanes, self._e.vector
        value = e.call(v, f"llvm.rint.v{lanes}f32", [(v, value)])
        value = e.call(v, f"llvm.maxnum.v{lanes}f32", [(v, value), (v, "zeroinitializer")])
        value = e.call(v, f"llvm.minnum.v{lanes}f32", [(v, value), (v, top)])
        whole = e.op(f"fptosi {v} {value} to {e.elements}")
        narrow = e.op(f"trunc {e.elements} {whole} to {self._kind}")
        e.do(f"store {self._kind} {narrow}, ptr {self._at(row, column)}, align {self._bytes}")


def _chunk(e: Emitter, start: str, length: str, size: int) -> str:
    """Where a chunk begins so that it ends in the row at the latest."""
    last = e.op(f"sub i64 {length}, {size}")
    fits = e.op(f"icmp slt i64 {start}, {last}")
    return e.op(f"select i1 {fits}, i64 {start}, i64 {last}")


def _constants(e: Emitter, count: int) -> list[str]:
    return [e.broadcast(e.at("%constants", number)) for number in range(count)]


RGB_CONSTANTS = 9
"""Of `planes_to_rgb`: luma's factor and what is added to it, the middle of chroma, and for red,
green and blue the factors of both chroma."""


def planes_to_rgb(
    machine: Machine, name: str, sample_bytes: int, shift_x: int, shift_y: int
) -> Emitter:
    """Rows y0 to y1 of the picture as RGB in [0, 1].

    Args:
        machine: What it is made for.
        name: The function's.
        sample_bytes: 1 or 2.
        shift_x: 1 where two columns share a sample of chroma, else 0.
        shift_y: The same for rows.
    """
    e = Emitter(
        machine,
        name,
        [
            ("luma", "ptr"),  # [H, W] samples
            ("cb", "ptr"),  # [H >> shift_y, W >> shift_x] samples
            ("cr", "ptr"),
            ("luma_row", "i64"),  # bytes from a row to the next
            ("cb_row", "i64"),
            ("cr_row", "i64"),
            ("constants", "ptr"),  # [RGB_CONSTANTS] float32
            ("spare", "ptr"),  # [2, L + (W >> shift_x) + L] float32
            ("out", "ptr"),  # [3, H, W] float32
            ("width", "i64"),  # a multiple of 1 << shift_x, of L << shift_x at least
            ("height", "i64"),
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes, v = machine.lanes, e.vector
    samples = _Samples(e, sample_bytes)
    factor, black, middle, *gains = _constants(e, RGB_CONSTANTS)
    quarter, rest, one = e.constant(0.25), e.constant(0.75), e.constant(1.0)
    chroma_width = e.op(f"ashr i64 %width, {shift_x}")
    last_row = e.add(e.op(f"ashr i64 %height, {shift_y}"), -1)
    spare_row = e.add(chroma_width, 2 * lanes)
    picture = e.mul("%height", "%width")

    def interpolate(plane: str, row_bytes: str, rows: Sequence[str], spare: str) -> None:
        """A row of chroma between two, with its edges repeated."""
        lines = [samples.row(plane, row, row_bytes) for row in rows]

        def at(start: str, _: list[str]) -> list[str]:
            column = _chunk(e, start, chroma_width, lanes)
            value = samples.load(lines[0], column)
            if len(lines) == 2:
                far = e.fmul(samples.load(lines[1], column), quarter)
                value = e.fma(value, rest, far)
            e.store(e.op(f"fsub {v} {value}, {middle}"), e.at(spare, e.add(column, lanes)))
            return []

        e.loop(0, chroma_width, lanes, [], at)
        end = e.add(chroma_width, lanes)
        for to, of in ((lanes - 1, lanes), (end, e.add(end, -1))):
            edge = e.op(f"load float, ptr {e.at(spare, of)}, align 4")
            e.do(f"store float {edge}, ptr {e.at(spare, to)}, align 4")

    def at_row(row: str, _: list[str]) -> list[str]:
        rows = [e.op(f"ashr i64 {row}, {shift_y}")]
        if shift_y:
            side = e.add(e.mul(e.op(f"and i64 {row}, 1"), 2), -1)
            limits = [("i64", e.add(rows[0], side)), ("i64", "0")]
            far = e.call("i64", "llvm.smax.i64", limits)
            rows.append(e.call("i64", "llvm.smin.i64", [("i64", far), ("i64", last_row)]))
        spares = ["%spare", e.at("%spare", spare_row)]
        interpolate("%cb", "%cb_row", rows, spares[0])
        interpolate("%cr", "%cr_row", rows, spares[1])
        luma = samples.row("%luma", row, "%luma_row")
        out = e.at("%out", e.mul(row, "%width"))

        def at(start: str, _: list[str]) -> list[str]:
            column = _chunk(e, start, "%width", lanes << shift_x)
            place = e.add(e.op(f"ashr i64 {column}, {shift_x}"), lanes)
            both = []
            for spare in spares:
                here = e.load(e.at(spare, place))
                if not shift_x:
                    both.append([here])
                    continue
                near = e.fmul(here, rest)
                sides = [e.load(e.at(spare, e.add(place, side))) for side in (-1, 1)]
                even, odd = (e.fma(side, quarter, near) for side in sides)
                both.append(list(e.interleave(even, odd, "float")))
            for part in range(1 << shift_x):
                here = e.add(column, part * lanes)
                value = e.fma(samples.load(luma, here), factor, black)
                for colour in range(3):
                    total = value
                    for chroma in (0, 1):
                        total = e.fma(both[chroma][part], gains[2 * colour + chroma], total)
                    bounds = [(v, total), (v, "zeroinitializer")]
                    total = e.call(v, f"llvm.maxnum.v{lanes}f32", bounds)
                    total = e.call(v, f"llvm.minnum.v{lanes}f32", [(v, total), (v, one)])
                    e.store(total, e.at(out, e.add(e.mul(picture, colour), here)))
            return []

        e.loop(0, "%width", lanes << shift_x, [], at)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e


RESIDUAL_CONSTANTS = 10
"""Of `residual_to_planes`: the largest sample, and for luma and both chroma the factors of red,
green and blue."""


def residual_to_planes(
    machine: Machine, name: str, sample_bytes: int, shift_x: int, shift_y: int
) -> Emitter:
    """Rows y0 to y1 of chroma, and those of luma that belong to them, with a residual.

    Args:
        machine: What it is made for.
        name: The function's.
        sample_bytes: 1 or 2.
        shift_x: 1 where two columns share a sample of chroma, else 0.
        shift_y: The same for rows.
    """
    planes = ("luma", "cb", "cr")
    e = Emitter(
        machine,
        name,
        [
            *((plane, "ptr") for plane in planes),  # samples, `[H, W]`, and of chroma
            *((f"{plane}_row", "i64") for plane in planes),  # bytes from a row to the next
            *((f"{plane}_out", "ptr") for plane in planes),  # the same of what is written
            *((f"{plane}_out_row", "i64") for plane in planes),
            ("residual", "ptr"),  # [3, H, W] float32
            ("colour_size", "i64"),  # elements from a colour of it to the next
            ("row_size", "i64"),  # elements from a row of it to the next
            ("constants", "ptr"),  # [RESIDUAL_CONSTANTS] float32
            ("width", "i64"),  # a multiple of 1 << shift_x, of L << shift_x at least
            ("y0", "i64"),
            ("y1", "i64"),
        ],
    )
    lanes = machine.lanes
    samples = _Samples(e, sample_bytes)
    top, *gains = _constants(e, RESIDUAL_CONSTANTS)
    share = e.constant(1 / (1 << (shift_x + shift_y)))

    def give(number: int, colours: Sequence[str], rows: tuple[str, str], column: str) -> None:
        """Add a vector of each colour to a vector of a plane's."""
        total = e.fmul(colours[0], gains[3 * number])
        for colour in (1, 2):
            total = e.fma(colours[colour], gains[3 * number + colour], total)
        total = e.fadd(samples.load(rows[0], column), total)
        samples.store(total, top, rows[1], column)

    def rows_of(number: int, row: str) -> tuple[str, str]:
        plane = planes[number]
        return (
            samples.row(f"%{plane}", row, f"%{plane}_row"),
            samples.row(f"%{plane}_out", row, f"%{plane}_out_row"),
        )

    def at_row(row: str, _: list[str]) -> list[str]:
        lines = [e.add(e.mul(row, 1 << shift_y), dy) for dy in range(1 << shift_y)]
        luma_rows = [rows_of(0, line) for line in lines]
        chroma_rows = [rows_of(number, row) for number in (1, 2)]
        residuals = [
            [
                e.at("%residual", e.add(e.mul("%colour_size", c), e.mul(line, "%row_size")))
                for c in range(3)
            ]
            for line in lines
        ]

        def at(start: str, _: list[str]) -> list[str]:
            column = _chunk(e, start, "%width", lanes << shift_x)
            sums: list[list[str]] = []
            for line, rows in zip(residuals, luma_rows, strict=True):
                parts = []
                for part in range(1 << shift_x):
                    here = e.add(column, part * lanes)
                    colours = [e.load(e.at(each, here)) for each in line]
                    give(0, colours, rows, here)
                    parts.append(colours)
                flat = [value for colours in parts for value in colours]
                old = sums[0] if sums else None
                sums = [flat if old is None else list(map(e.fadd, old, flat))]
            means = []
            for colour in range(3):
                total = sums[0][colour]
                if shift_x:
                    total = e.fadd(*e.deinterleave(total, sums[0][3 + colour], "float"))
                means.append(e.fmul(total, share))
            place = e.op(f"ashr i64 {column}, {shift_x}")
            for number in (1, 2):
                give(number, means, chroma_rows[number - 1], place)
            return []

        e.loop(0, "%width", lanes << shift_x, [], at)
        return []

    e.loop("%y0", "%y1", 1, [], at_row)
    return e
