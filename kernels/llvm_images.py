"""The CPU engine's kernels for planes: pictures to planes, and 3x3 convolutions.

llvm_product.py says what planes and maps are.
"""

from collections.abc import Callable

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, F32, FLOATS, INDEX, Type
from mhnet_video.kernels.llvm_product import (
    Source,
    Tile,
    Values,
    each_output,
    plane_steps,
    tile_product,
)
from mhnet_video.kernels.llvm_values import Value


def fold(machine: Machine, name: str, patch: int) -> Emitter:
    """Pixel unshuffle: rows of the planes of one picture channel (or of two, see below).

    At patch 2 with bfloat16, an element is two neighbours of a row, which need no shuffle at all:
    planes are `[dy]`; with float32 `[dy, dx]`. At patch 1 with bfloat16, an element holds this
    channel and `other`; with float32 this channel alone.
    """
    e = Emitter(
        machine,
        name,
        x=FLOATS,  # [H, W] float32, W a multiple of patch * L
        other=FLOATS,  # [H, W] float32
        out=ELEMENTS,  # first plane, at its first row
        width=INDEX,  # W
        plane=INDEX,  # elements of a row of a plane
        row=INDEX,  # elements of a row of all planes
        row_blocks=INDEX,
        first=INDEX,  # row
        end=INDEX,
    )
    p, lanes = e.parameters, machine.lanes
    for row in e.loop(p.first, p.end):
        out = p.out + ((row + 1) * p.row + lanes)
        for j in e.loop(0, p.row_blocks):
            position = out + j * lanes
            for dy in range(patch):
                source = (row * patch + dy) * p.width
                offset = source + j * (patch * lanes)
                first = e.load(p.x + offset)
                if patch == 1:
                    channels = [first]
                    if machine.bfloat16:
                        channels.append(e.load(p.other + offset))
                    e.store(e.pack(channels), position)
                    continue
                second = e.load(p.x + (offset + lanes))
                if machine.bfloat16:
                    e.store(e.pack_neighbours(first, second), position + p.plane * dy)
                    continue
                for dx, value in enumerate(e.deinterleave(first, second)):
                    e.store(value, (position + p.plane * (2 * dy + dx)).leading_to(F32))
    return e


def _convolve(
    e: Emitter, tile: Tile, inputs: int, planes: Value, weights: Value, bias: Value | None = None
) -> Values:
    """A 3x3 convolution.

    Args:
        e: The kernel.
        tile: Its tile.
        inputs: Planes.
        planes: Address of the first plane above the tile, at its first pixel.
        weights: Address of the weights of these outputs.
        bias: Address of the bias of each of these outputs; None for none.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    plane = e.parameters.plane
    if e.machine.tiles:
        # the planes of three rows follow each other
        step, steps = plane_steps(3 * inputs)
        row_bytes = plane * 4
        sources = [Source(planes + dx, steps * step, lanes) for dx in (-1, 0, 1)]
        return tile_product(e, tile, sources, weights, step, row_bytes, bias)
    each = [e.zero()] * outputs
    if bias is not None:
        each = [e.broadcast(bias + m) for m in range(outputs)]
    totals = [total for total in each for _ in range(blocks)]
    for k in e.loop(0, 3 * inputs, carry=totals):
        x = planes + k * plane
        w0 = weights + k * (3 * outputs)
        for dx in range(3):
            xs = [e.load(x + (t * lanes + dx - 1)) for t in range(blocks)]
            for m in range(outputs):
                w = e.broadcast(w0 + (dx * outputs + m))
                for t in range(blocks):
                    totals[m * blocks + t] = e.dot(totals[m * blocks + t], xs[t], w)
    return Values(e, tile, registers=totals)


def _weights_of_outputs(machine: Machine, inputs: int) -> int:
    """Elements of an output's weights."""
    if not machine.tiles:
        return 9 * inputs
    step, steps = plane_steps(3 * inputs)
    return 3 * step * steps


def of_two(e: Emitter, output: Value, channels: int) -> tuple[Value, Value]:
    """Of two maps that have outputs one after the other: the output's map, and its channel."""
    p = e.parameters
    is_first = output < channels
    base = e.select(is_first, p.out, p.side)
    less = e.select(is_first, e.constant(INDEX, 0), channels)
    return base, output - less


def each_convolved(
    e: Emitter, tile: Tile, inputs: int, channels: int, convolve: Callable[[Value, Value], Values]
) -> None:
    """Emit the loops of a 3x3 convolution of planes to two maps, row by row.

    Args:
        e: The kernel, with the parameters of `convolve_to_maps`.
        tile: Its tile.
        inputs: Planes.
        channels: C of each map.
        convolve: Emits the outputs of a tile, by the address of the first plane above it, at its
            first pixel, and the number of the first output.
    """
    p, lanes, group, blocks = e.parameters, e.machine.lanes, e.machine.group, tile.blocks
    size = channels // group * lanes
    row_size = p.plane * inputs
    for row in e.loop(p.first, p.end):
        source_row = p.planes + (row * row_size + lanes)
        for start in e.loop(0, p.row_blocks, blocks):
            source = source_row + start * lanes
            position = (row * p.row_blocks + start) * size
            for m0 in e.loop(0, 2 * channels, tile.outputs):
                values = convolve(source, m0)
                for pair in each_output(e, tile, tile.outputs // group):
                    base, channel = of_two(e, m0 + pair * group, channels)
                    out = base + (position + channel.exact_div(group) * lanes)
                    rows = [values.row(pair * group + g) for g in range(group)]
                    for t, both in enumerate(zip(*rows, strict=True)):
                        inside = start + t < p.row_blocks
                        there = out + t * size
                        packed = e.pack(both)
                        with e.when(inside):
                            e.store(packed, there)


CONVOLVED: dict[str, Type] = {
    "bias": FLOATS,  # [2C] float32
    "out": ELEMENTS,  # map of C: the first C outputs
    "side": ELEMENTS,  # map of C: the others
    "plane": INDEX,  # elements of a row of a plane
    "row_blocks": INDEX,
    "first": INDEX,  # row
    "end": INDEX,
}
"""Parameters of what convolves planes to two maps."""


def convolve_to_maps(
    machine: Machine, name: str, inputs: int, channels: int, tile: Tile
) -> Emitter:
    """A 3x3 convolution of planes to two maps of C, row by row.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        inputs: Planes.
        channels: C of each map.
        tile: The tile.
    """
    e = Emitter(
        machine,
        name,
        planes=ELEMENTS,
        w=ELEMENTS,  # [2C, 3, inputs, 3]: outputs, dy, plane, dx; for tiles dx, dy, plane
        **CONVOLVED,
    )
    p = e.parameters

    def convolve(source: Value, m0: Value) -> Values:
        w = p.w + m0 * _weights_of_outputs(machine, inputs)
        return _convolve(e, tile, inputs, source, w, p.bias + m0)

    each_convolved(e, tile, inputs, channels, convolve)
    return e


def convolve_to_picture(
    machine: Machine, name: str, inputs: int, patch: int, tile: Tile
) -> Emitter:
    """A 3x3 convolution of planes to 3 * patch**2 channels, shuffled into RGB, row by row.

    At patch 1 a tile has 4 outputs, and the last one is dropped.
    """
    e = Emitter(
        machine,
        name,
        planes=ELEMENTS,
        w=ELEMENTS,  # as in convolve_to_maps
        out=FLOATS,  # [3, height, width] float32
        plane=INDEX,  # elements of a row of a plane
        row_blocks=INDEX,
        height=INDEX,
        width=INDEX,  # a multiple of patch * L
        first=INDEX,  # row
        end=INDEX,
    )
    p = e.parameters
    lanes, blocks, outputs = machine.lanes, tile.blocks, tile.outputs
    row_size = p.plane * inputs
    picture = p.height * p.width
    for row in e.loop(p.first, p.end):
        source_row = p.planes + (row * row_size + lanes)
        for start in e.loop(0, p.row_blocks, blocks):
            source = source_row + start * lanes
            for m0 in e.loop(0, 4 if patch == 1 else 12, outputs):
                w = p.w + m0 * _weights_of_outputs(machine, inputs)
                values = _convolve(e, tile, inputs, source, w)
                for u in each_output(e, tile, 3 if patch == 1 else outputs // 2):
                    rows = [values.row(u * patch + dx) for dx in range(patch)]
                    # at patch 2, two outputs are two neighbours in a row; rows go first
                    number = m0.exact_div(patch) + u
                    color, dy = number.udiv(patch), number.urem(patch)
                    line = (row * patch + dy) * p.width
                    out = p.out + (color * picture + line)
                    for t in range(blocks):
                        column = start + t
                        inside = column < p.row_blocks
                        there = out + column * (patch * lanes)
                        vectors = [each[t] for each in rows]
                        if patch == 2:
                            vectors = list(e.interleave(*vectors))
                        with e.when(inside):
                            for n, value in enumerate(vectors):
                                e.store(value, there + n * lanes)
    return e
