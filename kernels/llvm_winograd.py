"""The CPU engine's first convolution by Winograd's method, where elements are single channels.

llvm_product.py says what planes and maps are.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from collections.abc import Sequence

from mhnet_video.kernels.llvm_images import of_two
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, F32, FLOATS, I32, INDEX
from mhnet_video.kernels.llvm_product import Source, Tile, product
from mhnet_video.kernels.llvm_values import Value

SIDE = 6
"""Side of a transformed tile: 4x4 results of a 3x3 convolution need 6x6 products, not 144."""


def winograd_to_maps(
    machine: Machine, name: str, inputs: int, channels: int, tile: Tile
) -> Emitter:
    """`convolve_to_maps` of float32 with a quarter of the products, four rows at a time.

    Args:
        machine: What it is made for; its elements are single channels.
        name: The kernel's name.
        inputs: Planes.
        channels: C of each map.
        tile: The tile; its blocks are of L squares of 4x4 pixels.
    """
    e = Emitter(
        machine,
        name,
        planes=ELEMENTS,
        w=ELEMENTS,  # [36, 2C / B, inputs, B] float32, transformed
        bias=FLOATS,  # [2C] float32
        out=ELEMENTS,  # map of C: the first C outputs
        side=ELEMENTS,  # map of C: the others
        spare=FLOATS,  # [36, T, inputs + 2C, L] float32
        plane=INDEX,  # elements of a row of a plane
        row_blocks=INDEX,
        first=INDEX,  # four rows
        end=INDEX,
    )
    p = e.parameters
    lanes, blocks, outputs = machine.lanes, tile.blocks, tile.outputs
    size = channels * lanes
    row_size = p.plane * inputs
    part = blocks * inputs * lanes  # of a transformed component, [T, inputs, L]
    result = 2 * channels * blocks * lanes  # of a product, [2C, T, L]
    products = p.spare + SIDE**2 * part

    def transform(plane: Value, there: Value, t: Value) -> None:
        """The inputs of L squares."""
        rows = []
        for dy in range(SIDE):
            row = plane + row_size * dy + t * (4 * lanes)
            rows.append(_to_products(e, _columns(e, row)))
        for dx in range(SIDE):
            for dy, value in enumerate(_to_products(e, [row[dx] for row in rows])):
                e.store(value, there + (SIDE * dy + dx) * part)

    def multiply(component: Value) -> None:
        """The products of one of the 36 components."""
        x = (p.spare + component * part).leading_to(I32)
        weights = p.w + component * (2 * channels * inputs)
        out = products + component * result
        for m0 in e.loop(0, 2 * channels, outputs):
            w = weights + m0 * inputs
            values = product(e, tile, [Source(x, inputs, inputs * lanes)], w)
            there = out + m0 * (blocks * lanes)
            for m in range(outputs):
                for t, value in enumerate(values.row(m)):
                    e.store(value, there + (m * blocks + t) * lanes)

    def write(m: Value, tiles: Value, start: Value) -> None:
        """One output of all squares of a strip."""
        bias = e.broadcast(p.bias + m)
        base, number = of_two(e, m, channels)
        channel = number * lanes
        for t in e.loop(0, blocks):
            at = products + (m * blocks + t) * lanes
            rows = []
            for dx in range(SIDE):
                column = [e.load(at + (SIDE * dy + dx) * result) for dy in range(SIDE)]
                rows.append(_to_pixels(e, column))
            for dy in range(4):
                four = [x + bias for x in _to_pixels(e, [row[dy] for row in rows])]
                vectors = _row_of(e, four)
                row = tiles * 4 + dy
                for h, vector in enumerate(vectors):
                    position = start + t * 4 + h
                    block = row * p.row_blocks + position
                    there = (base + (block * size + channel)).leading_to(F32)
                    with e.when(position < p.row_blocks):
                        e.store(vector, there)

    for tiles in e.loop(p.first, p.end):
        # the first of six rows: planes begin with one above the picture
        source_row = p.planes + (tiles * 4 * row_size + lanes)
        for start in e.loop(0, p.row_blocks, 4 * blocks):
            source = (source_row + start * lanes).leading_to(F32)
            for k in e.loop(0, inputs):
                plane = source + k * p.plane
                for t in e.loop(0, blocks):
                    transform(plane, p.spare + (t * inputs + k) * lanes, t)
            for component in e.loop(0, SIDE**2):
                multiply(component)
            for m in e.loop(0, 2 * channels):
                write(m, tiles, start)
    return e


def _to_products(e: Emitter, d: Sequence[Value]) -> list[Value]:
    """The transform of inputs, in one direction."""
    even, odd = (e.fma(d[n], -4, d[n + 2]) for n in (2, 1))
    near, far = d[4] - d[2], d[3] - d[1]
    ends = [e.fma(d[n], 4, e.fma(d[n + 2], -5, d[n + 4])) for n in (0, 1)]
    return [ends[0], even + odd, even - odd, e.fma(far, 2, near), e.fma(far, -2, near), ends[1]]


def _to_pixels(e: Emitter, m: Sequence[Value]) -> list[Value]:
    """The transform of outputs, in one direction."""
    one, other = m[1] + m[2], m[1] - m[2]
    two, twin = m[3] + m[4], m[3] - m[4]
    return [
        m[0] + one + two,
        e.fma(twin, 2, other),
        e.fma(two, 4, one),
        e.fma(twin, 8, other + m[5]),
    ]


def _columns(e: Emitter, row: Value) -> list[Value]:
    """Six columns of L squares, each of which begins four pixels after the one before."""
    found: list[Value] = []
    for shift in (-1, 3):
        loaded = [e.load(row + (shift + h * e.machine.lanes)) for h in range(4)]
        pairs = [e.deinterleave(loaded[h], loaded[h + 1]) for h in (0, 2)]
        even, odd = zip(*pairs, strict=True)
        (c0, c2), (c1, c3) = (e.deinterleave(a, b) for a, b in (even, odd))
        found += [c0, c1, c2, c3] if not found else [c0, c1]
    return found


def _row_of(e: Emitter, columns: Sequence[Value]) -> list[Value]:
    """Four vectors of a row, from the columns of its squares."""
    even = e.interleave(columns[0], columns[2])
    odd = e.interleave(columns[1], columns[3])
    return [vector for half in (0, 1) for vector in e.interleave(even[half], odd[half])]
