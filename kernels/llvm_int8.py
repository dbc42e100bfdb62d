"""The CPU engine's first convolution in int8: pictures to planes of bytes, and these to maps.

A picture that the network sees has eight bits a sample, or hardly more information than that:
bfloat16 has no more. An element is then a square of 2x2 pixels of one channel, four unsigned bytes
`[dy, dx]`, so that planes are half as many as those of bfloat16. llvm_product.py says what planes
and maps are.
"""

from mhnet_video.kernels.llvm_images import CONVOLVED, each_convolved
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, FLOATS, INDEX
from mhnet_video.kernels.llvm_product import Tile, Values
from mhnet_video.kernels.llvm_values import Value

LEVELS = 255
"""The byte of a sample of a frame that is 1."""


def byte_pairs(
    e: Emitter, first: Value, second: Value, one: Value | float = float(LEVELS)
) -> Value:
    """Samples of a row as bytes, `[dx]` in the lower half of an element.

    Args:
        e: The kernel.
        first: L samples, float32. Those that bytes do not hold are clamped.
        second: The L samples after these.
        one: The byte of a sample that is 1.
    """
    left, right = (
        e.round(e.clamp(each * one, 0.0, float(LEVELS))).to_integer()
        for each in e.deinterleave(first, second)
    )
    return left | right << 8


def fold_int8(machine: Machine, name: str) -> Emitter:
    """Pixel unshuffle at patch 2: rows of the plane of one picture channel."""
    e = Emitter(
        machine,
        name,
        x=FLOATS,  # [H, W] float32, W a multiple of 2 * L
        one=FLOATS,  # [1] float32: the byte of a sample that is 1
        out=ELEMENTS,  # the plane, at its first row
        width=INDEX,  # W
        row=INDEX,  # elements of a row of all planes
        row_blocks=INDEX,
        first=INDEX,  # row
        end=INDEX,
    )
    p, lanes = e.parameters, machine.lanes
    one = e.broadcast(p.one)
    for row in e.loop(p.first, p.end):
        out = p.out + ((row + 1) * p.row + lanes)
        above = p.x + row * 2 * p.width
        for j in e.loop(0, p.row_blocks):
            pairs = []
            for line in (above, above + p.width):
                there = line + j * (2 * lanes)
                pairs.append(byte_pairs(e, e.load(there), e.load(there + lanes), one))
            e.store(pairs[0] | pairs[1] << 16, out + j * lanes)
    return e


def convolve_int8_to_maps(
    machine: Machine, name: str, inputs: int, channels: int, tile: Tile
) -> Emitter:
    """`llvm_images.convolve_to_maps` of planes of bytes.

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
        w=ELEMENTS,  # [2C, 3, inputs, 3], four signed bytes each: outputs, dy, plane, dx
        scales=FLOATS,  # [2C] float32: what one is worth in the sums of each output
        **CONVOLVED,
    )
    p, blocks = e.parameters, tile.blocks

    def convolve(source: Value, m0: Value) -> Values:
        totals = _sums(e, tile, inputs, source, p.w + m0 * (9 * inputs))
        for m in range(tile.outputs):
            scale, bias = (e.broadcast(each + (m0 + m)) for each in (p.scales, p.bias))
            for i in range(m * blocks, (m + 1) * blocks):
                totals[i] = e.fma(totals[i].to_float(), scale, bias)
        return Values(e, tile, registers=totals)

    each_convolved(e, tile, inputs, channels, convolve)
    return e


def _sums(e: Emitter, tile: Tile, inputs: int, planes: Value, weights: Value) -> list[Value]:
    """The sums of a 3x3 convolution in 32 bits, output by output, block by block.

    Args:
        e: The kernel.
        tile: Its tile.
        inputs: Planes.
        planes: Address of the first plane above the tile, at its first pixel.
        weights: Address of the weights of these outputs.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    totals = [e.zero(e.integers)] * (outputs * blocks)
    for k in e.loop(0, 3 * inputs, carry=totals):
        x = planes + k * e.parameters.plane
        for dx in range(3):
            xs = [e.load(x + (t * lanes + dx - 1)) for t in range(blocks)]
            there = weights + (k * (3 * outputs) + dx * outputs)
            for m in range(outputs):
                w = e.broadcast(there + m)
                for t in range(blocks):
                    totals[m * blocks + t] = e.dot_int8(totals[m * blocks + t], xs[t], w)
    return totals
