"""Matrix products in int8, of pixels whose channels share a unit.

Of each pixel the largest channel becomes 127 of its units, so that no range has to be known before.
Channels are rounded to whole numbers, four to an element, 128 above what they are: unsigned bytes
are what the processor multiplies with signed ones. llvm_product.py says how weights are stored;
here an element has four.
"""

from collections.abc import Callable, Sequence

from mhnet_video.kernels.llvm_ir import Emitter, Index
from mhnet_video.kernels.llvm_operations import I16, I32
from mhnet_video.kernels.llvm_product import Source, Tile, Values, add_dots, product
from mhnet_video.kernels.llvm_values import Value

MIDDLE = 128
"""The byte that is zero."""
MOST = 127
"""The largest whole number of a channel or of a weight."""

_WHOLE = 2.0**23
"""Float32 from here on are whole numbers, and the lowest bits are how far they are from here."""


Fetch = Callable[[Value, int], Sequence[Value]]
"""The float32 vectors of four channels, by a fourth of the first one's number, and the block's."""


def peaks_of_elements(e: Emitter, elements: Value, peaks: Value) -> Value:
    """The largest magnitudes of pairs of bfloat16 and of those before, as 16-bit integers."""
    magnitudes = (elements & 0x7FFF7FFF).bits_as(peaks.type)
    return e.maximum(peaks, magnitudes)


def no_peaks(e: Emitter) -> Value:
    """What `peaks_of_elements` begins with."""
    return e.zero(I16.vector(2 * e.machine.lanes))


def peak_of_pairs(e: Emitter, peaks: Value) -> Value:
    """The largest magnitude of each pixel, float32, from those of pairs."""
    pairs = peaks.bits_as(e.integers)
    return e.maximum(pairs << 16, pairs & -65536).bits_as(e.floats)


def peak_with(e: Emitter, peak: Value, value: Value) -> Value:
    """The larger magnitude of two vectors of float32, the first of which has no signs.

    Their bits are compared: what is no number is larger than all that are, and is not lost.
    """
    magnitude = value.bits_as(e.integers) & 0x7FFFFFFF
    return e.maximum(peak.bits_as(e.integers), magnitude).bits_as(e.floats)


def quantize(
    e: Emitter,
    tile: Tile,
    channels: int,
    fetch: Fetch,
    peaks: Sequence[Value],
    out: Value,
) -> list[Value]:
    """Write a tile's pixels as bytes.

    Args:
        e: The kernel.
        tile: Its tile.
        channels: C, a multiple of 4.
        fetch: Reads the pixels.
        peaks: The largest magnitude of each pixel, a vector for each block.
        out: Where they are written, `[T, C / 4, L]` elements.

    Returns:
        The unit of each pixel, a vector for each block.
    """
    # a pixel of zeros has a unit, too; that of a pixel with what is no number is none
    least = e.splat_constant(1e-30)
    held = [e.select(peak < least, least, peak) for peak in peaks]
    inverses = [float(MOST) / peak for peak in held]
    for k in e.loop(0, channels // 4):
        for t in range(tile.blocks):
            first, *others = (
                e.fma(value, inverses[t], _WHOLE + MIDDLE).bits_as(e.integers)
                for value in fetch(k, t)
            )
            # what is above the lowest byte is shifted out of the others
            packed = first & 0xFF
            for number, each in enumerate(others, start=1):
                packed = packed | each << (8 * number)
            e.store(packed, out + (k + t * (channels // 4)) * e.machine.lanes)
    return [peak * (1 / MOST) for peak in held]


def quantize_map(e: Emitter, tile: Tile, channels: int, x: Value) -> tuple[Source, list[Value]]:
    """Write a tile of a map as bytes.

    Args:
        e: The kernel.
        tile: Its tile.
        channels: C, a multiple of 4.
        x: The tile's first block.

    Returns:
        The bytes, and the unit of each pixel, a vector for each block.
    """
    lanes, inputs = e.machine.lanes, channels // 2
    source = scratch_int8(e, tile, channels)
    peaks = [no_peaks(e)] * tile.blocks
    for k in e.loop(0, inputs, carry=peaks):
        for t in range(tile.blocks):
            elements = e.load(x + (k + t * inputs) * lanes)
            peaks[t] = peaks_of_elements(e, elements, peaks[t])
    found = [peak_of_pairs(e, each) for each in peaks]
    fetch = fetch_of_map(e, channels, x)
    return source, quantize(e, tile, channels, fetch, found, source.base)


def fetch_of_map(e: Emitter, channels: int, x: Value) -> Fetch:
    """How `quantize` reads a tile of a map of C channels, whose first block is at `x`."""
    lanes = e.machine.lanes

    def fetch(k: Value, t: int) -> list[Value]:
        at = x + (k * 2 + t * (channels // 2)) * lanes
        return [*e.unpack(e.load(at)), *e.unpack(e.load(at + lanes))]

    return fetch


def product_int8(
    e: Emitter, tile: Tile, source: Source, weights: Value, levels: Value, first: Index
) -> Values:
    """A matrix product, in units of each pixel.

    Args:
        e: The kernel.
        tile: Its tile.
        source: Its inputs, as `quantize` writes them.
        weights: Address of the weights of these outputs.
        levels: Address of `[M, 2]` float32: of each output what one is worth in the sums, and what
            is added because zero is `MIDDLE`.
        first: The first output.
    """
    blocks = tile.blocks
    totals = [e.zero(e.integers)] * (tile.outputs * blocks)
    add_dots(e, tile, source, weights, totals, e.dot_int8)
    rows = []
    for m in range(tile.outputs):
        there = levels + (first + m) * 2
        scale, shift = e.broadcast(there), e.broadcast(there + 1)
        rows += [
            e.fma(total.to_float(), scale, shift) for total in totals[m * blocks : (m + 1) * blocks]
        ]
    return Values(e, tile, registers=rows)


def scratch_int8(e: Emitter, tile: Tile, channels: int) -> Source:
    """Memory for a tile's pixels as bytes."""
    size = channels // 4 * e.machine.lanes
    return Source(e.scratch(I32, size * tile.blocks), channels // 4, size)


def product_of(
    e: Emitter,
    tile: Tile,
    source: Source,
    units: Sequence[Value] | None,
    first: Index,
    bias: Value | None = None,
) -> Values:
    """A matrix product in the elements of maps, or of what `quantize_map` gives.

    Args:
        e: The kernel, with parameters `w` and, in int8, `levels`.
        tile: Its tile.
        source: The inputs.
        units: The unit of each pixel; None where they are not in int8.
        first: The first output.
        bias: Address of the bias of all outputs; None for none.
    """
    p = e.parameters
    weights, begin = p.w + first * source.elements, None if bias is None else bias + first
    if units is None:
        return product(e, tile, [source], weights, begin)
    return product_int8(e, tile, source, weights, p.levels, first).times(units, begin)
