"""The CPU engine's kernels for NAFBlocks: each half of a block in one pass over its map.

llvm_product.py says how maps and weights are stored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from mhnet_video.kernels.llvm_ir import Emitter, Index
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import ELEMENTS, F32, FLOATS, I32, INDEX, Type
from mhnet_video.kernels.llvm_product import (
    Source,
    Tile,
    Values,
    deviation,
    each_output,
    product,
    product_to,
    statistics,
)
from mhnet_video.kernels.llvm_values import Value

RING_ROWS = 4
"""Rows of a 1x1 convolution that `block_front` keeps, a power of two."""


def block_front(machine: Machine, name: str, channels: int, tile: Tile) -> Emitter:
    """LayerNorm, 1x1 to 2C, depthwise 3x3, gate: rows of a NAFBlock's first half.

    The rows of the 1x1 convolution stay in a ring of four, from which two at a time are made: their
    number is even. LayerNorm's gain, shift and centring are in the weights; only its division is
    left to do: behind the product, or before it where that comes out of tiles, which can go to the
    ring as they are then.
    """
    return BlockFront(machine, name, channels, tile).emitter


class BlockFront:
    """Writes `block_front`.

    Args:
        machine: What it is made for.
        name: The kernel's name.
        channels: C.
        tile: The tile.
    """

    more: ClassVar[Mapping[str, Type]] = {}
    """Further parameters."""

    def __init__(self, machine: Machine, name: str, channels: int, tile: Tile) -> None:
        self.emitter = e = Emitter(
            machine,
            name,
            x=ELEMENTS,  # map of C
            w1=ELEMENTS,  # [2C, C]
            b1=FLOATS,  # [2C] float32; with tiles [2C, L]
            wd=FLOATS,  # [C, 2, 10] float32: 3x3 and bias of a channel of both halves
            ring=FLOATS,  # [4, 2C, row_blocks + T, L] float32
            spare=FLOATS,  # [4, row_blocks, L] float32, or elements [row_blocks + T, C / G, L]
            tail=ELEMENTS,  # [L] all ones where the last block is inside the picture
            out=ELEMENTS,  # map of C
            sums=FLOATS,  # [C, L] float32, added to
            row_blocks=INDEX,
            rows=INDEX,
            **self.more,
            first=INDEX,  # row
            end=INDEX,
        )
        self.machine, self.channels, self.tile = machine, channels, tile
        self.p = p = e.parameters
        self.lanes, self.blocks = machine.lanes, tile.blocks
        self.inputs = channels // machine.group
        self.size = self.inputs * self.lanes
        self.stride = (p.row_blocks + tile.blocks) * self.lanes  # of a channel of the ring
        self.slot = self.stride * (2 * channels)
        self.tail = e.load(p.tail)
        self.last = p.row_blocks - 1
        limit = p.row_blocks - tile.blocks
        self.limit = e.select(limit > 0, limit, 0)
        for row in e.loop(p.first - 1, p.end + 1):
            self._at_row(row)

    def _at_row(self, row: Value) -> None:
        """Make a row of the ring, and with every second one two rows of the result."""
        e, p = self.emitter, self.p
        target = self._ring_row(row)
        inside = row.below(p.rows)
        outside = ~inside
        with e.when(inside):
            self._produce(row, target)
            for m in e.loop(0, 2 * self.channels):
                there = target + (m * self.stride + self.last * self.lanes)
                e.store(e.keep(e.load(there), self.tail), there)
        with e.when(outside):
            for offset in e.loop(0, self.slot, self.lanes):
                e.store(e.zero(), target + offset)
        # with the second row below the first one, and every other one
        number = row - p.first
        later = number > 0
        is_even = (number & 1).equals(0)
        with e.when(later & is_even):
            self._consume(row - 2)

    def _ring_row(self, row: Value) -> Value:
        return self.p.ring + (row & (RING_ROWS - 1)) * self.slot

    # -- the 1x1 convolution

    def _produce(self, row: Value, target: Value) -> None:
        """A row of the 1x1 convolution."""
        e, p = self.emitter, self.p
        line = p.x + row * p.row_blocks * self.size
        if not self.machine.tiles:
            for first in self._tiles():
                self._multiply(line + first * self.size, target, first)
            return
        normal = p.spare.leading_to(I32)
        for first in self._tiles():
            offset = first * self.size
            self._normalize(line + offset, normal + offset)
        for first in self._tiles():
            source = Source(normal + first * self.size, self.inputs, self.size)
            position = target + first * self.lanes
            for m0 in e.loop(0, 2 * self.channels, self.tile.outputs):
                w, begin = p.w1 + m0 * self.inputs, p.b1 + m0 * self.lanes
                there, distance = position + m0 * self.stride, self.stride * 4
                product_to(e, self.tile, [source], w, begin, there, distance)

    def _tiles(self) -> Iterator[Value]:
        """The first block of each tile of a row."""
        e = self.emitter
        for start in e.loop(0, self.p.row_blocks, self.blocks):
            yield e.select(start < self.limit, start, self.limit)

    def _multiply(self, x: Value, target: Value, first: Value) -> None:
        """The product of a tile, divided afterwards."""
        e, p = self.emitter, self.p
        scales = self._scales(x)
        position = target + first * self.lanes
        for m0 in e.loop(0, 2 * self.channels, self.tile.outputs):
            source = Source(x, self.inputs, self.size)
            values = product(e, self.tile, [source], p.w1 + m0 * self.inputs)
            self._write(values, scales, position, m0)

    def _write(self, values: Values, scales: Sequence[Value], position: Value, m0: Value) -> None:
        """Write outputs from `m0` on to the ring, divided."""
        e = self.emitter
        for m in range(self.tile.outputs):
            bias = e.broadcast(self.p.b1 + (m0 + m))
            there = position + (m0 + m) * self.stride
            for t, (value, scale) in enumerate(zip(values.row(m), scales, strict=True)):
                e.store(e.fma(value, scale, bias), there + t * self.lanes)

    def _normalize(self, x: Value, normal: Value) -> None:
        """Divide a tile before the products of all tiles, which then find it in memory."""
        e, inputs = self.emitter, self.inputs
        scales = self._scales(x)
        for k in e.loop(0, inputs) if inputs > 8 else range(inputs):
            position = k * self.lanes
            for t in range(self.blocks):
                values = e.unpack(e.load(x + position + t * self.size))
                scaled = [value * scales[t] for value in values]
                e.store(e.pack(scaled), normal + position + t * self.size)

    def _scales(self, x: Value) -> list[Value]:
        """One over the standard deviation of each pixel of a tile."""
        e, inputs = self.emitter, self.inputs
        totals = [e.zero()] * (2 * self.blocks)
        for k in e.loop(0, inputs, carry=totals) if inputs > 16 else range(inputs):
            at = x + k * self.lanes
            for t in range(self.blocks):
                both = slice(2 * t, 2 * t + 2)
                totals[both] = statistics(e, e.load(at + t * self.size), totals[both])
        return [
            deviation(e, totals[2 * t : 2 * t + 2], self.channels)[1] for t in range(self.blocks)
        ]

    # -- the depthwise convolution and the gate

    def _consume(self, row: Value) -> None:
        """Two rows of the result, which share what they read."""
        e, p, lanes, group = self.emitter, self.p, self.lanes, self.machine.group
        lines = [self._ring_row(row + offset) for offset in range(-1, 3)]
        row_size = p.row_blocks * self.size
        out_row = p.out + row * row_size
        spare_row = p.row_blocks * lanes
        # of the first half, and of a pair's first channel: `[2, row_blocks, L]` each
        spares = [p.spare, p.spare + spare_row * 2]

        def spare(number: int, r: int, j: Value) -> Value:
            return spares[number] + (spare_row * r + j * lanes)

        def keep(j: Value, values: list[Value], total: Value, _: bool) -> Value:
            """Keep both rows of the first half."""
            for r in (0, 1):
                e.store(values[r], spare(0, r, j))
            return total

        def gate_of(g: int, out_column: Value) -> "_Consumer":
            def gate(j: Value, values: list[Value], total: Value, is_last: bool) -> Value:
                """Multiply the second half with the first."""
                for r in (0, 1):
                    value = e.load(spare(0, r, j)) * values[r]
                    if is_last:
                        value = e.keep(value, self.tail)
                    total = total + value
                    if g < group - 1:
                        e.store(value, spare(1, r, j))
                        continue
                    both = [value] if group == 1 else [e.load(spare(1, r, j)), value]
                    position = row_size * r + j * self.size
                    e.store(e.pack(both), out_column + position)
                return total

            return gate

        for element in e.loop(0, self.inputs):
            out_column = out_row + element * lanes
            for g in range(group):
                channel = element * group + g
                self._convolve(lines, channel, 0, e.zero(), keep)
                sums = p.sums + channel * lanes
                gate = gate_of(g, out_column)
                e.store(self._convolve(lines, channel, 1, e.load(sums), gate), sums)

    def _convolve(
        self,
        lines: Sequence[Value],
        channel: Value,
        half: int,
        carried: Value,
        consume: "_Consumer",
    ) -> Value:
        """A channel of both rows; `consume` takes a block's results, and carries a vector."""
        e, lanes = self.emitter, self.lanes
        at_weights = channel * 20 + half * 10
        w = [e.broadcast(self.p.wd + (at_weights + tap)) for tap in range(10)]
        offset = (channel + half * self.channels) * self.stride
        planes = [line + offset for line in lines]
        previous = [lanes - 1 + lane for lane in range(lanes)]
        following = [1 + lane for lane in range(lanes)]

        def columns(j: Index, before: Sequence[Value]) -> list[Value]:
            """Of each row: left sums, whole ones but for the right, and right sums."""
            inputs_of = [e.load(plane + j * lanes) for plane in planes]
            result = []
            for r in (0, 1):
                left = w[9]
                rights: list[Value] = []
                for dy in range(3):
                    value = inputs_of[r + dy]
                    left = e.fma(value, w[3 * dy], left)
                    after = w[3 * dy + 2]
                    rights = [e.fma(value, after, *rights) if rights else value * after]
                middle = e.shuffle(before[r], left, previous)
                for dy in range(3):
                    middle = e.fma(inputs_of[r + dy], w[3 * dy + 1], middle)
                result += [left, middle, *rights]
            return result

        def finish(old: Sequence[Value], rights: Sequence[Value]) -> list[Value]:
            return [
                old[3 * r + 1] + e.shuffle(old[3 * r + 2], rights[r], following) for r in (0, 1)
            ]

        state = [*columns(0, [w[9]] * 2), carried]
        for j in e.loop(1, self.p.row_blocks, carry=state):
            new = columns(j, state[:6:3])
            both = finish(state, new[2::3])
            state[:] = [*new, consume(j - 1, both, state[6], False)]
        both = finish(state, [e.zero()] * 2)
        return consume(self.last, both, state[6], True)


_Consumer = Callable[[Value, list[Value], Value, bool], Value]
"""A block's column, its results, a carried vector and whether it is the last: the new vector."""


def block_back(machine: Machine, name: str, channels: int, tile: Tile, *, twice: bool) -> Emitter:
    """1x1 and residual, LayerNorm, 1x1 to 2C, gate, 1x1 and residual; sums of the result.

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
        w3=ELEMENTS,  # [C, C], the attention in it
        b3=FLOATS,  # [C] float32
        w4=ELEMENTS,  # [2C, C], outputs i and C + i in one tile
        b4=FLOATS,  # [2C] float32
        w5=ELEMENTS,  # [C, C]
        b5=FLOATS,  # [C] float32
        mask=ELEMENTS,  # [blocks, L] all ones where a pixel is inside the picture
        out=ELEMENTS,  # map of C
        sums=FLOATS,  # [C, L] float32, added to
        first=INDEX,  # block
        end=INDEX,
    )
    p = e.parameters
    lanes, group, blocks, outputs = machine.lanes, machine.group, tile.blocks, tile.outputs
    inputs = channels // group
    size = inputs * lanes
    wide = e.scratch(F32, channels * lanes * blocks)  # [C, T, L] float32
    narrow = e.scratch(I32, size * blocks)  # [T, C / G, L]
    mixed = e.scratch(I32, size * blocks)
    half = outputs // 2

    def attend(gated: Value, x: Value) -> list[Value]:
        """The first 1x1 and residual; returns one over the standard deviation of each pixel."""
        totals = [e.zero()] * (2 * blocks)
        for m0 in e.loop(0, channels, outputs, totals):
            source = Source(gated, inputs, size)
            values = product(e, tile, [source], p.w3 + m0 * inputs)
            element = m0.exact_div(group)
            for pair in each_output(e, tile, outputs // group, totals):
                members = [pair * group + g for g in range(group)]
                rows = [values.row(m) for m in members]
                channel = [m0 + m for m in members]
                bias = [e.broadcast(p.b3 + m) for m in channel]
                position = (element + pair) * lanes
                for t in range(blocks):
                    residual = e.unpack(e.load(x + position + t * size))
                    both = []
                    for g in range(group):
                        both.append(rows[g][t] + bias[g] + residual[g])
                        there = wide + channel[g] * (lanes * blocks)
                        e.store(both[g], there + t * lanes)
                    packed = e.pack(both)
                    e.store(packed, narrow + position + t * size)
                    of_block = slice(2 * t, 2 * t + 2)
                    totals[of_block] = statistics(e, packed, totals[of_block])
        return [deviation(e, totals[2 * t : 2 * t + 2], channels)[1] for t in range(blocks)]

    def gate(scales: Sequence[Value]) -> None:
        """LayerNorm, 1x1 to 2C, and the product of its halves."""
        for k0 in e.loop(0, channels, half):
            source = Source(narrow, inputs, size)
            values = product(e, tile, [source], p.w4 + k0 * (2 * inputs))
            element = k0.exact_div(group)
            for pair in each_output(e, tile, half // group):
                position = (element + pair) * lanes
                members = [pair * group + g for g in range(group)]
                channel = [k0 + m for m in members]
                first = [e.broadcast(p.b4 + k) for k in channel]
                second = [e.broadcast(p.b4 + (k + channels)) for k in channel]
                left = [values.row(m) for m in members]
                right = [values.row(m + half) for m in members]
                for t in range(blocks):
                    both = []
                    for g in range(group):
                        one = e.fma(left[g][t], scales[t], first[g])
                        other = e.fma(right[g][t], scales[t], second[g])
                        both.append(one * other)
                    e.store(e.pack(both), mixed + position + t * size)

    def add(more: Value, out: Value, masks: Sequence[Value]) -> None:
        """The last 1x1 and residual, and the result's sums."""
        for m0 in e.loop(0, channels, outputs):
            source = Source(mixed, inputs, size)
            values = product(e, tile, [source], p.w5 + m0 * inputs)
            element = m0.exact_div(group)
            for pair in each_output(e, tile, outputs // group):
                position = (element + pair) * lanes
                members = [pair * group + g for g in range(group)]
                rows = [values.row(m) for m in members]
                channel = [m0 + m for m in members]
                bias = [e.broadcast(p.b5 + m) for m in channel]
                sums = [p.sums + m * lanes for m in channel]
                pooled = [e.load(each) for each in sums]
                for t in range(blocks):
                    both = []
                    again = e.unpack(e.load(more + position + t * size)) if twice else []
                    for g in range(group):
                        row = wide + channel[g] * (lanes * blocks)
                        value = e.load(row + t * lanes) + bias[g]
                        if twice:
                            value = value + again[g]
                        value = value + rows[g][t]
                        pooled[g] = pooled[g] + e.keep(value, masks[t])
                        both.append(value)
                    e.store(e.pack(both), out + position + t * size)
                for g in range(group):
                    e.store(pooled[g], sums[g])

    for block in e.loop(p.first, p.end, blocks):
        offset = block * size
        gated, x, out, more = (base + offset for base in (p.gated, p.x, p.out, p.more))
        gate(attend(gated, x))
        masks = [e.load(p.mask + (block * lanes + t * lanes)) for t in range(blocks)]
        add(more, out, masks)
    return e
