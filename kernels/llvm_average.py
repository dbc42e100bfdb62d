"""Kernels for CPUs of the temporal average; temporal_average.py is the reference implementation.

They give the same bits: sums of levels are exact, and products are not fused with sums.
"""

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import BYTES, FLOATS, I8, I32, I64, INDEX, Type, pointer
from mhnet_video.kernels.llvm_values import Value

BLOCK = 4
"""Side in pixels of the blocks of `taken_out`."""


def running_mean(machine: Machine, name: str) -> Emitter:
    """Rows of a running mean after the next picture, and what is shown of it.

    Maps are as wide as the picture, and between two of their rows they are linear. Each comes with
    the row of it above each row of the picture, and with the weight of the row below that one.

    Args:
        machine: What it is made for.
        name: The kernel's name.
    """
    return _running_mean(machine, name, is_shown=True)


def mean_unseen(machine: Machine, name: str) -> Emitter:
    """The same where nothing of the mean is shown."""
    return _running_mean(machine, name, is_shown=False)


def _running_mean(machine: Machine, name: str, *, is_shown: bool) -> Emitter:
    result: dict[str, Type] = {
        "shown": FLOATS,  # [h, W] float32: weight of the mean in the result
        "shown_above": pointer(I64),  # [H]
        "shown_share": FLOATS,  # [H]
        "out": BYTES,  # [H, W] levels
    }
    e = Emitter(
        machine,
        name,
        picture=BYTES,  # [H, W] levels
        mean=FLOATS,  # [H, W] float32, changed in place
        weight=FLOATS,  # [h, W] float32: weight of the picture in the mean
        weight_above=pointer(I64),  # [H]
        weight_share=FLOATS,  # [H]
        **(result if is_shown else {}),
        width=INDEX,  # L at least
        height=INDEX,
    )
    p, lanes = e.parameters, machine.lanes
    last = p.width - lanes

    for row in e.loop(0, p.height):
        line = _AveragedRow(e, row, is_shown=is_shown)
        # of the last vector, which may overlap the one before it, before that one changes the mean
        tail = line.past(last)
        for column in e.loop(0, last, lanes):
            line.write(column, line.past(column))
        line.write(last, tail)
    return e


class _AveragedRow:
    """A row of the picture and of what is made of it, with the parameters of `_running_mean`."""

    def __init__(self, e: Emitter, row: Value, *, is_shown: bool) -> None:
        p, offset = e.parameters, row * e.parameters.width
        self._e = e
        self._picture, self._mean = p.picture + offset, p.mean + offset
        self._weight = _MapLine(e, p.weight, p.weight_above, p.weight_share, row)
        self._result: tuple[_MapLine, Value] | None = None
        if is_shown:
            shown = _MapLine(e, p.shown, p.shown_above, p.shown_share, row)
            self._result = shown, p.out + offset

    def past(self, column: Value) -> Value:
        """A vector of the mean."""
        return self._e.load(self._mean + column)

    def write(self, column: Value, past: Value) -> None:
        """Take a vector of the picture into that of the mean, and write the result's."""
        e = self._e
        new = e.load(self._picture + column).widen_unsigned(I32).to_float()
        mean = past + (new - past) * self._weight.at(column)
        e.store(mean, self._mean + column)
        if self._result is not None:
            shown, out = self._result
            value = (mean - new) * shown.at(column) + new
            whole = e.clamp(value + 0.5, 0.0, 255.0).to_integer()
            e.store(whole.narrow(I8), out + column)


class _MapLine:
    """A row of a map, between two of its own rows."""

    def __init__(self, e: Emitter, map_: Value, above: Value, share: Value, row: Value) -> None:
        self._e, self._width = e, e.parameters.width
        self._line = map_ + e.load_scalar(above + row) * self._width
        self._share = e.broadcast(share + row)

    def at(self, column: Value) -> Value:
        """A vector of it."""
        low = self._e.load(self._line + column)
        high = self._e.load(self._line + self._width + column)
        return (high - low) * self._share + low


def taken_out(machine: Machine, name: str) -> Emitter:
    """How much of each block of a picture was changed, by every other row.

    Args:
        machine: What it is made for.
        name: The kernel's name.
    """
    e = Emitter(
        machine,
        name,
        before=BYTES,  # [H, W] levels
        after=BYTES,  # [H, W] levels
        out=FLOATS,  # [H / 4, W / 4] float32: the mean change
        width=INDEX,
        columns=INDEX,  # W / 4, L at least
        rows=INDEX,  # H / 4
    )
    p, lanes = e.parameters, machine.lanes
    last = p.columns - lanes
    for row in e.loop(0, p.rows):
        line = row * p.width * BLOCK
        out = p.out + row * p.columns
        for start in e.loop(0, p.columns, lanes):
            column = e.minimum(start, last)
            sums = []
            for part in range(BLOCK):
                total = e.zero()
                for below in range(0, BLOCK, 2):
                    at = line + p.width * below + (column * BLOCK + part * lanes)
                    old, new = (
                        e.load(each + at).widen_unsigned(I32).to_float()
                        for each in (p.before, p.after)
                    )
                    total = total + e.absolute(old - new)
                sums.append(total)
            while len(sums) > 1:
                pairs = zip(sums[::2], sums[1::2], strict=True)
                sums = [even + odd for even, odd in (e.deinterleave(*pair) for pair in pairs)]
            e.store(sums[0] * (1 / (BLOCK * BLOCK // 2)), out + column)
    return e
