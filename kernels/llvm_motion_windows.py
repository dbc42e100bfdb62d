"""The CPU engine's kernels for the motion of windows, by least squares (Lucas and Kanade)."""

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_motion_maps import (
    ROWS,
    SIZES,
    blend,
    each_vector,
    each_window,
    edges,
    maps,
    table_line,
)
from mhnet_video.kernels.llvm_motion_sampling import sampled
from mhnet_video.kernels.llvm_operations import ELEMENTS, FLOATS, INDEX


def invert(machine: Machine, name: str, reach: int, damping: float) -> Emitter:
    """Rows of the inverse of each window's matrix, from the gradients' products."""
    e = Emitter(machine, name, **maps("a", "b", "c", "p", "q", "r"), **SIZES, **ROWS)
    p = e.parameters
    for (a, b, c), position in each_window(e, [p.a, p.b, p.c], reach):
        first, last = a + damping, c + damping
        scale = 1.0 / (first * last - b * b)
        values = (last * scale, e.zero() - b * scale, first * scale)
        for out, value in zip((p.p, p.q, p.r), values, strict=True):
            e.store(value, out + position)
    return e


def slopes(machine: Machine, name: str, clip: float) -> Emitter:
    """Rows of the errors that a motion leaves, times the picture's gradients."""
    names = ("fixed", "moving", "motion_x", "motion_y", "right", "down", "out_x", "out_y")
    e = Emitter(machine, name, **maps(*names), **SIZES, **ROWS)
    p = e.parameters
    last = edges(e)
    for row, x, position in each_vector(e):
        motion = [e.load(axis + position) for axis in (p.motion_x, p.motion_y)]
        value = sampled(e, row, x, motion, last)
        error = e.clamp(value - e.load(p.fixed + position), -clip, clip)
        for out, side in ((p.out_x, p.right), (p.out_y, p.down)):
            product = error * e.load(side + position)
            e.store(product, out + position)
    return e


def improve(machine: Machine, name: str, reach: int, stride: float) -> Emitter:
    """Rows of a motion, changed by what the slopes say."""
    names = ("slope_x", "slope_y", "p", "q", "r", "motion_x", "motion_y")
    e = Emitter(machine, name, **maps(*names), **SIZES, **ROWS)
    p = e.parameters
    for slope, position in each_window(e, [p.slope_x, p.slope_y], reach):
        first, both, second = (e.load(each + position) for each in (p.p, p.q, p.r))
        for motion, near, far in ((p.motion_x, first, both), (p.motion_y, both, second)):
            step = e.fma(near, slope[0], far * slope[1])
            here = motion + position
            e.store(e.load(here) - e.clamp(step, -stride, stride), here)
    return e


def smooth(machine: Machine, name: str, reach: int) -> Emitter:
    """Rows of the means of a motion over windows."""
    e = Emitter(machine, name, **maps("motion_x", "motion_y", "out_x", "out_y"), **SIZES, **ROWS)
    p = e.parameters
    for means, position in each_window(e, [p.motion_x, p.motion_y], reach):
        for out, value in zip((p.out_x, p.out_y), means, strict=True):
            e.store(value, out + position)
    return e


def errors(machine: Machine, name: str, clip: float) -> Emitter:
    """Rows of the absolute errors with one motion and with another."""
    motions = ("old_x", "old_y", "new_x", "new_y")
    e = Emitter(
        machine,
        name,
        **maps("fixed", "moving", *motions, "out_old", "out_new"),
        **SIZES,
        **ROWS,
    )
    p = e.parameters
    last = edges(e)
    for row, x, position in each_vector(e):
        fixed = e.load(p.fixed + position)
        for axes, out in (((p.old_x, p.old_y), p.out_old), ((p.new_x, p.new_y), p.out_new)):
            motion = [e.load(axis + position) for axis in axes]
            error = e.absolute(sampled(e, row, x, motion, last) - fixed)
            e.store(e.minimum(error, clip), out + position)
    return e


def choose(
    machine: Machine, name: str, reach: int, gain: float, slope: float, floor: float
) -> Emitter:
    """Rows of the second of two motions, as far as its errors are less."""
    motions = ("old_x", "old_y", "new_x", "new_y", "out_x", "out_y")
    e = Emitter(machine, name, **maps("old_errors", "new_errors", *motions), **SIZES, **ROWS)
    p = e.parameters
    for (old, new), position in each_window(e, [p.old_errors, p.new_errors], reach):
        ratio = new / (old + floor)
        kept = e.clamp(e.fma(ratio, -1 / slope, gain / slope), 0.0, 1.0)
        for out, axes in ((p.out_x, (p.old_x, p.new_x)), (p.out_y, (p.old_y, p.new_y))):
            before, after = (e.load(axis + position) for axis in axes)
            e.store(blend(e, before, after, kept), out + position)
    return e


def enlarge(machine: Machine, name: str, factor: float) -> Emitter:
    """Rows of a map, enlarged bilinearly and multiplied.

    Between which rows and columns of the smaller one those of the larger one lie is in tables.
    """
    e = Emitter(
        machine,
        name,
        x=FLOATS,  # [its height, x_stride]
        x_stride=INDEX,
        rows=ELEMENTS,  # [2, h] int32: the one before and the one behind
        row_shares=FLOATS,  # [h] float32: how much of the one behind
        columns=ELEMENTS,  # [2, S] int32
        column_shares=FLOATS,  # [S] float32
        out=FLOATS,  # [h, S]
        spare=FLOATS,  # [x_stride + 2 PAD]
        height=INDEX,
        stride=INDEX,
        **ROWS,
    )
    p, lanes = e.parameters, machine.lanes
    for row in e.loop(p.first, p.end):
        lines = [table_line(e, table, row, p.x_stride) for table in (0, 1)]
        share = e.broadcast(p.row_shares + row)
        for x in e.loop(0, p.x_stride, lanes):
            above, below = (e.load(p.x + (line + x)) for line in lines)
            e.store(blend(e, above, below, share) * factor, p.spare + x)
        line = row * p.stride
        for x in e.loop(0, p.stride, lanes):
            left, right = (
                e.gather(p.spare, e.load(p.columns + position)) for position in (x, p.stride + x)
            )
            value = blend(e, left, right, e.load(p.column_shares + x))
            e.store(value, p.out + (line + x))
    return e
