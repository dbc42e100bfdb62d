"""The CPU engine's kernels for the luma of frames at all resolutions, and its gradients."""

from mhnet_video.kernels.llvm_ir import Emitter, Index
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_motion_maps import PAD, ROWS, SHAPE, SIZES, each_vector, maps
from mhnet_video.kernels.llvm_operations import FLOATS, INDEX
from mhnet_video.kernels.llvm_values import Value


def _sum_pairs(e: Emitter, low: Value, high: Value) -> Value:
    """The sums of neighbours in two vectors that follow each other."""
    even, odd = e.deinterleave(low, high)
    return even + odd


def shrink(machine: Machine, name: str) -> Emitter:
    """Rows of the mean luma of squares of 4 by 4 pixels."""
    e = Emitter(
        machine,
        name,
        x=FLOATS,  # [3, 4h, 4w], w at least L
        out=FLOATS,  # [h, S]
        shares=FLOATS,  # [3], of the colors in luma, over 16
        **SHAPE,
        **ROWS,
    )
    p, lanes = e.parameters, machine.lanes
    shares = [e.broadcast(p.shares + color) for color in range(3)]
    line = p.width * 4
    picture = p.height * 4 * line
    last = p.width - lanes
    for row in e.loop(p.first, p.end):
        first = row * 4 * line
        for start in e.loop(0, p.width, lanes):
            # the last vector ends where the row does
            x = e.minimum(start, last)
            parts = []
            for part in range(4):
                total = e.zero()
                for color, share in enumerate(shares):
                    position = picture * color + (first + x * 4) + part * lanes
                    column = e.load(p.x + position)
                    for dy in (1, 2, 3):
                        column = column + e.load(p.x + (position + line * dy))
                    total = e.fma(column, share, total) if color else column * share
                parts.append(total)
            left, right = _sum_pairs(e, *parts[:2]), _sum_pairs(e, *parts[2:])
            mean = _sum_pairs(e, left, right)
            e.store(mean, p.out + (row * p.stride + x))
    return e


def halve(machine: Machine, name: str) -> Emitter:
    """Rows of the means of squares of 2 by 2."""
    e = Emitter(
        machine,
        name,
        x=FLOATS,  # [2h and more, its stride], with two vectors beyond its end
        x_stride=INDEX,
        out=FLOATS,  # [h, S]
        stride=INDEX,
        **ROWS,
    )
    p = e.parameters
    for row, x, position in each_vector(e):
        source = row * 2 * p.x_stride + x * 2
        sums = []
        for part in (0, 1):
            here = source + part * machine.lanes
            below = e.load(p.x + (here + p.x_stride))
            sums.append(e.load(p.x + here) + below)
        e.store(_sum_pairs(e, *sums) * 0.25, p.out + position)
    return e


def copy(machine: Machine, name: str) -> Emitter:
    """Elements from the first to the end, whole vectors."""
    e = Emitter(machine, name, x=FLOATS, out=FLOATS, **ROWS)
    p = e.parameters
    for x in e.loop(p.first, p.end, machine.lanes):
        e.store(e.load(p.x + x), p.out + x)
    return e


def gradients(machine: Machine, name: str) -> Emitter:
    """Rows of a picture's gradients to the right and down, and of their products."""
    e = Emitter(machine, name, **maps("x", "right", "down", "a", "b", "c"), **SIZES, **ROWS)
    p, lanes = e.parameters, machine.lanes
    last = p.height - 1
    line = p.spare + PAD
    for row in e.loop(p.first, p.end):
        source = row * p.stride
        above, below = (e.clamp(row + step, 0, last) * p.stride for step in (-1, 1))
        for x in e.loop(0, p.stride, lanes):
            e.store(e.load(p.x + (source + x)), line + x)
        sides: list[tuple[Index, Index]] = [(-1, 0), (p.width, p.width - 1)]
        for to, of in sides:
            edge = e.load_scalar(line + of)
            e.store(edge, line + to)
        for x in e.loop(0, p.stride, lanes):
            after, before = (e.load(line + (x + step)) for step in (1, -1))
            right = (after - before) * 0.5
            after, before = (e.load(p.x + (each + x)) for each in (below, above))
            down = (after - before) * 0.5
            values = (right, down, right * right, right * down, down * down)
            for out, value in zip((p.right, p.down, p.a, p.b, p.c), values, strict=True):
                e.store(value, out + (source + x))
    return e
