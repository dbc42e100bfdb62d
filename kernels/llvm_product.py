"""Matrix products in registers, of which most of the CPU engine's kernels are made.

A map of C channels is stored as `[rows, blocks, C / G, L]` 32-bit elements: blocks of L pixels of
a row, G channels to an element (llvm_ir.Machine). A row's last block may hold pixels beyond the
picture: what they hold is never mixed with others. Weights of a matrix product are
`[M / B, K / G, B]` elements, so that B outputs of T blocks stay in registers while their inputs
pass by. The planes of a 3x3 convolution are `[rows + 2, K / G, margin + row + margin]`, zero around
the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mhnet_video.kernels.llvm_ir import Emitter, Machine


@dataclass(frozen=True)
class Tile:
    """How a matrix product is cut."""

    blocks: int
    """Blocks of L pixels at a time, T."""
    outputs: int
    """Outputs at a time, B."""


def choose_tile(machine: Machine, row_blocks: int, *, group_outputs: int) -> Tile:
    """The tile that fits the registers and wastes least at the end of rows.

    Args:
        machine: What the kernel is made for.
        row_blocks: Blocks of a row.
        group_outputs: What the outputs of a tile must be a multiple of.
    """
    many = machine.registers > 16
    candidates = ((3, 8), (4, 4), (5, 4), (2, 8)) if many else ((3, 4),)
    if many and not machine.bfloat16:
        # elements of one channel are twice as many: a small tile stays in the first cache
        candidates = ((2, 8), (3, 8), (4, 4), (5, 4))
    fitting = [Tile(*each) for each in candidates if each[1] % group_outputs == 0]
    return min(fitting, key=lambda tile: -(-row_blocks // tile.blocks) * tile.blocks)


def choose_winograd_tile(machine: Machine, row_blocks: int) -> Tile:
    """The same for a convolution whose blocks are of L squares of 4x4 pixels."""
    many = machine.registers > 16
    candidates = ((5, 4), (3, 8), (4, 4), (2, 8)) if many else ((5, 2), (3, 4), (4, 2), (2, 4))
    fitting = [Tile(*each) for each in candidates]
    return min(fitting, key=lambda tile: -(-row_blocks // (4 * tile.blocks)) * tile.blocks)


def product(
    e: Emitter,
    tile: Tile,
    sources: Sequence[tuple[str, int, int]],
    weights: str,
    totals: Sequence[str],
) -> list[str]:
    """Add a matrix product.

    Args:
        e: Where to write it.
        tile: Its tile.
        sources: Where the inputs are: address of the first block, elements of a pixel, and how
            many elements lie between blocks.
        weights: Address of the weights of these outputs.
        totals: What to add to, output by output, block by block.

    Returns:
        The new totals.
    """
    lanes, blocks, outputs = e.machine.lanes, tile.blocks, tile.outputs
    done = 0
    current = list(totals)
    for base, inputs, stride in sources:
        unroll = inputs if inputs <= 8 else next(u for u in (4, 3, 2, 1) if inputs % u == 0)

        def step(
            first: str | int,
            values: Sequence[str],
            base: str = base,
            stride: int = stride,
            done: int = done,
            unroll: int = unroll,
        ) -> list[str]:
            values = list(values)
            x0 = base if first == 0 else e.at(base, e.mul(first, lanes))
            w0 = e.at(weights, done * outputs)
            if first != 0:
                w0 = e.at(w0, e.mul(first, outputs))
            for k in range(unroll):
                xs = [e.load_elements(e.at(x0, t * stride + k * lanes)) for t in range(blocks)]
                for m in range(outputs):
                    w = e.broadcast_element(e.at(w0, k * outputs + m))
                    for t in range(blocks):
                        values[m * blocks + t] = e.dot(values[m * blocks + t], xs[t], w)
            return values

        if unroll == inputs:
            current = step(0, current)
        else:
            current = e.loop(0, inputs, unroll, [(e.vector, v) for v in current], step)
        done += inputs
    return current


def statistics(e: Emitter, x: str, totals: Sequence[str]) -> list[str]:
    """Add an element's channels to the sum and to the sum of squares."""
    return [e.dot(totals[0], x, e.ones()), e.dot(totals[1], x, x)]


def deviation(e: Emitter, totals: Sequence[str], channels: int) -> tuple[str, str]:
    """The mean, and one over the standard deviation."""
    mean = e.fmul(totals[0], e.constant(1 / channels))
    square = e.fmul(mean, mean)
    power = e.fma(totals[1], e.constant(1 / channels), e.constant(1e-6))
    variance = e.op(f"fsub {e.vector} {power}, {square}")
    # rounding may leave less than nothing where all channels are alike
    floor = e.constant(1e-6)
    test = e.op(f"fcmp ogt {e.vector} {variance}, {floor}")
    mask = f"<{e.machine.lanes} x i1>"
    variance = e.op(f"select {mask} {test}, {e.vector} {variance}, {e.vector} {floor}")
    return mean, e.inverse_root(variance)
