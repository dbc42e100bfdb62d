"""Kernels for CPUs between YUV planes and RGB; color.py is the reference implementation.

Chunks of a row lie one after the other, but for the last one, which ends where the row does and
computes some of its pixels once more. Rows are as far apart as the caller says.
"""

from collections.abc import Sequence

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import BYTES, FLOATS, I8, I16, I32, INDEX
from mhnet_video.kernels.llvm_values import Value


class _IntegerSamples:
    """Rows of whole numbers of 8 or 16 bits, as float32.

    Args:
        e: The kernel.
        sample_bytes: 1 or 2.
    """

    def __init__(self, e: Emitter, sample_bytes: int) -> None:
        self._e = e
        self._type = I8 if sample_bytes == 1 else I16

    def row(self, plane: Value, number: Value, row_bytes: Value) -> Value:
        """Address of a row."""
        return (plane + number * row_bytes).leading_to(self._type)

    def load(self, row: Value, column: Value) -> Value:
        """A vector of samples."""
        return self._e.load(row + column).widen_unsigned(I32).to_float()

    def store(self, value: Value, top: Value, row: Value, column: Value) -> None:
        """Round a vector, to even where it is between two, and clamp it to what samples hold."""
        e = self._e
        whole = e.clamp(e.round(value), 0.0, top).to_integer()
        e.store(whole.narrow(self._type), row + column)


def _chunk(e: Emitter, start: Value, length: Value, size: int) -> Value:
    """Where a chunk begins so that it ends in the row at the latest."""
    last = length - size
    return e.select(start < last, start, last)


def _constants(e: Emitter, count: int) -> list[Value]:
    return [e.broadcast(e.parameters.constants + number) for number in range(count)]


RGB_CONSTANTS = 9
"""Constants of `planes_to_rgb`.

Factor and offset of luma, the middle of chroma, and the factors of both chroma planes for red,
green and blue.
"""


def planes_to_rgb(
    machine: Machine, name: str, sample_bytes: int, shift_x: int, shift_y: int
) -> Emitter:
    """Rows of the picture as RGB in [0, 1].

    Args:
        machine: What it is made for.
        name: The kernel's name.
        sample_bytes: 1 or 2.
        shift_x: 1 where two columns share a sample of chroma, else 0.
        shift_y: The same for rows.
    """
    e = Emitter(
        machine,
        name,
        luma=BYTES,  # [H, W] samples
        cb=BYTES,  # [H >> shift_y, W >> shift_x] samples
        cr=BYTES,
        luma_row=INDEX,  # bytes from a row to the next
        cb_row=INDEX,
        cr_row=INDEX,
        constants=FLOATS,  # [RGB_CONSTANTS] float32
        spare=FLOATS,  # [2, L + (W >> shift_x) + L] float32
        out=FLOATS,  # [3, H, W] float32
        color_size=INDEX,  # elements from a color of it to the next
        row_size=INDEX,  # elements from a row of it to the next
        width=INDEX,  # a multiple of 1 << shift_x, of L << shift_x at least
        height=INDEX,
        first=INDEX,  # row
        end=INDEX,
    )
    p, lanes = e.parameters, machine.lanes
    samples = _IntegerSamples(e, sample_bytes)
    factor, black, middle, *gains = _constants(e, RGB_CONSTANTS)
    chroma_width = p.width >> shift_x
    last_row = (p.height >> shift_y) - 1
    spare_row = chroma_width + 2 * lanes

    def interpolate(plane: Value, row_bytes: Value, rows: Sequence[Value], spare: Value) -> None:
        """A row of chroma between two, with its edges repeated."""
        lines = [samples.row(plane, row, row_bytes) for row in rows]
        for start in e.loop(0, chroma_width, lanes):
            column = _chunk(e, start, chroma_width, lanes)
            value = samples.load(lines[0], column)
            if len(lines) == 2:
                far = samples.load(lines[1], column) * 0.25
                value = e.fma(value, 0.75, far)
            e.store(value - middle, spare + (column + lanes))
        end = chroma_width + lanes
        for to, of in ((lanes - 1, lanes), (end, end - 1)):
            edge = e.load_scalar(spare + of)
            e.store(edge, spare + to)

    for row in e.loop(p.first, p.end):
        rows = [row >> shift_y]
        if shift_y:
            side = (row & 1) * 2 - 1
            rows.append(e.clamp(rows[0] + side, 0, last_row))
        spares = [p.spare, p.spare + spare_row]
        interpolate(p.cb, p.cb_row, rows, spares[0])
        interpolate(p.cr, p.cr_row, rows, spares[1])
        luma = samples.row(p.luma, row, p.luma_row)
        out = p.out + row * p.row_size
        for start in e.loop(0, p.width, lanes << shift_x):
            column = _chunk(e, start, p.width, lanes << shift_x)
            position = (column >> shift_x) + lanes
            both = []
            for spare in spares:
                here = e.load(spare + position)
                if not shift_x:
                    both.append([here])
                    continue
                near = here * 0.75
                sides = [e.load(spare + (position + step)) for step in (-1, 1)]
                even, odd = (e.fma(each, 0.25, near) for each in sides)
                both.append(list(e.interleave(even, odd)))
            for part in range(1 << shift_x):
                at = column + part * lanes
                value = e.fma(samples.load(luma, at), factor, black)
                for color in range(3):
                    total = value
                    for chroma in (0, 1):
                        total = e.fma(both[chroma][part], gains[2 * color + chroma], total)
                    total = e.clamp(total, 0.0, 1.0)
                    e.store(total, out + (p.color_size * color + at))
    return e


RESIDUAL_CONSTANTS = 10
"""Constants of `residual_to_planes`.

The largest sample, and for luma and both chroma the factors of red, green and blue.
"""


def residual_to_planes(
    machine: Machine, name: str, sample_bytes: int, shift_x: int, shift_y: int
) -> Emitter:
    """Rows of chroma, and those of luma that belong to them, with a residual.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        sample_bytes: 1 or 2.
        shift_x: 1 where two columns share a sample of chroma, else 0.
        shift_y: The same for rows.
    """
    e = Emitter(
        machine,
        name,
        luma=BYTES,  # [H, W] samples
        cb=BYTES,  # [H >> shift_y, W >> shift_x] samples
        cr=BYTES,
        luma_row=INDEX,  # bytes from a row to the next
        cb_row=INDEX,
        cr_row=INDEX,
        luma_out=BYTES,  # the same of what is written
        cb_out=BYTES,
        cr_out=BYTES,
        luma_out_row=INDEX,
        cb_out_row=INDEX,
        cr_out_row=INDEX,
        residual=FLOATS,  # [3, H, W] float32
        color_size=INDEX,  # elements from a color of it to the next
        row_size=INDEX,  # elements from a row of it to the next
        constants=FLOATS,  # [RESIDUAL_CONSTANTS] float32
        width=INDEX,  # a multiple of 1 << shift_x, of L << shift_x at least
        first=INDEX,  # row of chroma
        end=INDEX,
    )
    p, lanes = e.parameters, machine.lanes
    samples = _IntegerSamples(e, sample_bytes)
    top, *gains = _constants(e, RESIDUAL_CONSTANTS)
    share = 1 / (1 << (shift_x + shift_y))

    def add(number: int, colors: Sequence[Value], rows: tuple[Value, Value], column: Value) -> None:
        """Add a vector of each color to a vector of a plane's."""
        total = colors[0] * gains[3 * number]
        for color in (1, 2):
            total = e.fma(colors[color], gains[3 * number + color], total)
        total = samples.load(rows[0], column) + total
        samples.store(total, top, rows[1], column)

    planes = (
        (p.luma, p.luma_row, p.luma_out, p.luma_out_row),
        (p.cb, p.cb_row, p.cb_out, p.cb_out_row),
        (p.cr, p.cr_row, p.cr_out, p.cr_out_row),
    )

    def rows_of(number: int, row: Value) -> tuple[Value, Value]:
        source, source_row, out, out_row = planes[number]
        return samples.row(source, row, source_row), samples.row(out, row, out_row)

    for row in e.loop(p.first, p.end):
        lines = [row * (1 << shift_y) + dy for dy in range(1 << shift_y)]
        luma_rows = [rows_of(0, line) for line in lines]
        chroma_rows = [rows_of(number, row) for number in (1, 2)]
        residuals = [
            [p.residual + (p.color_size * color + line * p.row_size) for color in range(3)]
            for line in lines
        ]
        for start in e.loop(0, p.width, lanes << shift_x):
            column = _chunk(e, start, p.width, lanes << shift_x)
            sums: list[Value] = []
            for of_color, of_line in zip(residuals, luma_rows, strict=True):
                found = []
                for part in range(1 << shift_x):
                    here = column + part * lanes
                    colors = [e.load(each + here) for each in of_color]
                    add(0, colors, of_line, here)
                    found += colors
                sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
            means = []
            for color in range(3):
                total = sums[color]
                if shift_x:
                    even, odd = e.deinterleave(total, sums[3 + color])
                    total = even + odd
                means.append(total * share)
            position = column >> shift_x
            for number in (1, 2):
                add(number, means, chroma_rows[number - 1], position)
    return e
