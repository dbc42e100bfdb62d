"""The CPU engine's kernels for NAFBlocks of many channels, whose 1x1 convolutions are in int8.

llvm_blocks.py has the kernels in the elements of maps, and says what the halves of a block are.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from mhnet_video.kernels.llvm_blocks import BlockFront
from mhnet_video.kernels.llvm_int8_product import (
    fetch_of_map,
    no_peaks,
    peak_of_pairs,
    peak_with,
    peaks_of_elements,
    product_int8,
    quantize,
    scratch_int8,
)
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, F32, FLOATS, INDEX, Type
from mhnet_video.kernels.llvm_product import Tile, deviation, statistics
from mhnet_video.kernels.llvm_values import Value


def block_front_int8(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """`llvm_blocks.block_front` with its 1x1 convolution in int8."""
    return _BlockFrontInt8(machine, name, channels, tile).emitter


class _BlockFrontInt8(BlockFront):
    """Writes `block_front_int8`."""

    more: ClassVar[Mapping[str, Type]] = {"levels1": FLOATS}  # [2C, 2] float32, see product_int8

    def _multiply(self, x: Value, target: Value, first: Value) -> None:
        """The product of a tile, divided afterwards."""
        e, p, lanes = self.emitter, self.p, self.lanes
        totals = [e.zero()] * (2 * self.blocks) + [no_peaks(e)] * self.blocks
        for k in e.loop(0, self.inputs, carry=totals):
            for t in range(self.blocks):
                elements = e.load(x + k * lanes + t * self.size)
                of_block = slice(2 * t, 2 * t + 2)
                totals[of_block] = statistics(e, elements, totals[of_block])
                peak = 2 * self.blocks + t
                totals[peak] = peaks_of_elements(e, elements, totals[peak])

        source = scratch_int8(e, self.tile, self.channels)
        peaks = [peak_of_pairs(e, each) for each in totals[2 * self.blocks :]]
        fetch = fetch_of_map(e, self.channels, x)
        units = quantize(e, self.tile, self.channels, fetch, peaks, source.base)
        scales = [
            deviation(e, totals[2 * t : 2 * t + 2], self.channels)[1] * unit
            for t, unit in enumerate(units)
        ]
        position = target + first * lanes
        for m0 in e.loop(0, 2 * self.channels, self.tile.outputs):
            w = p.w1 + m0 * source.elements
            values = product_int8(e, self.tile, source, w, p.levels1, m0)
            self._write(values, scales, position, m0)


def block_back_int8(
    machine: Machine, name: str, channels: int, tile: Tile, *, twice: bool
) -> Emitter:
    """`llvm_blocks.block_back` with its 1x1 convolutions in int8.

    The attention multiplies what comes in, not the weights.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        channels: C, a multiple of 8.
        tile: The tile.
        twice: Whether `more` is added as well.
    """
    e = Emitter(
        machine,
        name,
        gated=ELEMENTS,  # map of C
        x=ELEMENTS,  # map of C
        more=ELEMENTS,  # map of C
        gains=FLOATS,  # [C] float32, the attention
        w3=ELEMENTS,  # [C, C], four signed bytes to an element
        levels3=FLOATS,  # [C, 2] float32, see product_int8
        b3=FLOATS,  # [C] float32
        w4=ELEMENTS,  # [2C, C], outputs i and C + i in one tile
        levels4=FLOATS,  # [2C, 2] float32, in the same order
        b4=FLOATS,  # [2C] float32
        w5=ELEMENTS,  # [C, C]
        levels5=FLOATS,  # [C, 2] float32
        b5=FLOATS,  # [C] float32
        mask=ELEMENTS,  # [blocks, L] all ones where a pixel is inside the picture
        out=ELEMENTS,  # map of C
        sums=FLOATS,  # [C, L] float32, added to
        first=INDEX,  # block
        end=INDEX,
    )
    p, lanes, blocks, outputs = e.parameters, machine.lanes, tile.blocks, tile.outputs
    inputs, half = channels // machine.group, outputs // 2
    size = inputs * lanes
    row_size = lanes * blocks
    wide, mixed = (e.scratch(F32, channels * row_size) for _ in range(2))  # [C, T, L] each
    source = scratch_int8(e, tile, channels)

    def quantized(values: Value, peaks: Sequence[Value]) -> list[Value]:
        """Write values `[C, T, L]` as bytes; returns their units."""

        def fetch(k: Value, t: int) -> list[Value]:
            at = values + k * (4 * row_size) + t * lanes
            return [e.load(at + n * row_size) for n in range(4)]

        return quantize(e, tile, channels, fetch, peaks, source.base)

    def weigh(gated: Value) -> list[Value]:
        """Multiply with the attention; returns the units."""
        peaks = [e.zero()] * blocks
        for k in e.loop(0, inputs, carry=peaks):
            gains = [e.broadcast(p.gains + (k * 2 + g)) for g in range(2)]
            for t in range(blocks):
                for g, value in enumerate(e.unpack(e.load(gated + k * lanes + t * size))):
                    weighed = value * gains[g]
                    e.store(weighed, mixed + (k * 2 + g) * row_size + t * lanes)
                    peaks[t] = peak_with(e, peaks[t], weighed)
        return quantized(mixed, peaks)

    def attend(x: Value, units: Sequence[Value]) -> list[Value]:
        """The first 1x1 and residual; returns what the next product's pixels are multiplied with.

        That is their unit, divided by the standard deviation.
        """
        state = [e.zero()] * (3 * blocks)  # sum, sum of squares and peak of each block
        for m0 in e.loop(0, channels, outputs, state):
            w = p.w3 + m0 * source.elements
            values = product_int8(e, tile, source, w, p.levels3, m0)
            element = m0.exact_div(2)
            for pair in range(outputs // 2):
                position = x + (element + pair) * lanes
                for t in range(blocks):
                    old = e.unpack(e.load(position + t * size))
                    for g in range(2):
                        m = 2 * pair + g
                        bias = e.broadcast(p.b3 + (m0 + m))
                        value = e.fma(values.row(m)[t], units[t], old[g] + bias)
                        e.store(value, wide + (m0 + m) * row_size + t * lanes)
                        total, square, peak = state[3 * t : 3 * t + 3]
                        state[3 * t : 3 * t + 3] = [
                            total + value,
                            e.fma(value, value, square),
                            peak_with(e, peak, value),
                        ]
        found = quantized(wide, state[2::3])
        return [
            unit * deviation(e, state[3 * t : 3 * t + 2], channels)[1]
            for t, unit in enumerate(found)
        ]

    def gate(scales: Sequence[Value]) -> list[Value]:
        """LayerNorm, 1x1 to 2C, and the product of its halves; returns its units."""
        peaks = [e.zero()] * blocks
        for k0 in e.loop(0, channels, half, peaks):
            w = p.w4 + k0 * (2 * source.elements)
            values = product_int8(e, tile, source, w, p.levels4, k0 * 2)
            for m in range(half):
                channel = k0 + m
                first, second = (e.broadcast(p.b4 + (channel + n)) for n in (0, channels))
                rows = zip(values.row(m), values.row(m + half), strict=True)
                for t, (left, right) in enumerate(rows):
                    one, other = e.fma(left, scales[t], first), e.fma(right, scales[t], second)
                    value = one * other
                    e.store(value, mixed + channel * row_size + t * lanes)
                    peaks[t] = peak_with(e, peaks[t], value)
        return quantized(mixed, peaks)

    def add(more: Value, out: Value, masks: Sequence[Value], units: Sequence[Value]) -> None:
        """The last 1x1 and residual, and the result's sums."""
        for m0 in e.loop(0, channels, outputs):
            w = p.w5 + m0 * source.elements
            values = product_int8(e, tile, source, w, p.levels5, m0)
            element = m0.exact_div(2)
            for pair in range(outputs // 2):
                position = (element + pair) * lanes
                channel = [m0 + (2 * pair + g) for g in range(2)]
                pooled = [e.load(p.sums + m * lanes) for m in channel]
                for t in range(blocks):
                    again = e.unpack(e.load(more + position + t * size)) if twice else []
                    both = []
                    for g, m in enumerate(channel):
                        value = e.load(wide + m * row_size + t * lanes) + e.broadcast(p.b5 + m)
                        if twice:
                            value = value + again[g]
                        value = e.fma(values.row(2 * pair + g)[t], units[t], value)
                        pooled[g] = pooled[g] + e.keep(value, masks[t])
                        both.append(value)
                    e.store(e.pack(both), out + position + t * size)
                for g, m in enumerate(channel):
                    e.store(pooled[g], p.sums + m * lanes)

    for block in e.loop(p.first, p.end, blocks):
        offset = block * size
        gated, x, out, more = (base + offset for base in (p.gated, p.x, p.out, p.more))
        units = gate(attend(x, weigh(gated)))
        masks = [e.load(p.mask + (block * lanes + t * lanes)) for t in range(blocks)]
        add(more, out, masks, units)
    return e
