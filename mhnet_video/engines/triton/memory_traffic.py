"""How many bytes a forward pass moves, counted from its graph without running it.

At full resolution the network is bound by memory traffic, so that this, over the memory's speed, is
the time to expect. Counted on the `meta` device, which has shapes and no memory: for any GPU, on
none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mhnet_video.engines.triton.engine import ExecutionGraph, TritonEngine
from mhnet_video.engines.triton.weight_packing import Front
from mhnet_video.kernels.dispatch import Launch, num_bytes, recording
from mhnet_video.model.network import LEVELS, MHNet, NetworkConfig


@dataclass(frozen=True)
class Traffic:
    """What one part of a network moves."""

    part: str
    kernels: int
    """Launches."""
    moved: int
    """Bytes, every tensor that a kernel touches counted once for it."""
    ideal: int
    """Bytes if each NAFBlock moved five maps (its input twice, its gated map out and in, its
    result) and everything between the blocks were one pass: read what comes in, write what goes
    out."""


def symbolic_graph(
    config: NetworkConfig,
    height: int,
    width: int,
    dtype: torch.dtype,
    batch: int = 1,
    fronts: Mapping[int, Front] | None = None,
) -> ExecutionGraph:
    """An execution graph on the `meta` device, without memory."""
    with torch.device("meta"):
        network = MHNet(config).eval().requires_grad_(False)
    with recording():
        return TritonEngine(network, dtype, fronts).graph(batch, height, width)


def launches(graph: ExecutionGraph) -> list[tuple[str, Launch]]:
    """The kernels of a graph, in their order, each with its part of the network."""
    found = []
    with torch.inference_mode():
        for part, step in graph.parts():
            with recording() as launched:
                step()
            found += [(part, launch) for launch in launched]
    return found


def count(graph: ExecutionGraph) -> list[Traffic]:
    """What each part of a graph's network moves, in their order."""
    moved: dict[str, int] = {}
    kernels: dict[str, int] = {}
    with torch.inference_mode():
        for part, step in graph.parts():
            with recording() as launched:
                step()
            size = sum(launch.num_bytes for launch in launched)
            moved[part] = moved.get(part, 0) + size
            kernels[part] = kernels.get(part, 0) + len(launched)
    ideal = _ideal(graph)
    return [Traffic(part, kernels[part], moved[part], ideal[part]) for part in moved]


def _ideal(graph: ExecutionGraph) -> dict[str, int]:
    config = graph.maps.config
    item = graph.map_type.dtype.itemsize
    maps = [
        graph.batch * rows * columns * channels * item
        for (rows, columns), channels in zip(graph.sizes, graph.widths, strict=True)
    ]
    seen = num_bytes(graph.input[..., : 3 * config.pictures * config.patch**2])
    result = {"first convolutions": seen + 2 * maps[0]}
    for level in range(LEVELS):
        result[f"encoder {level + 1}"] = (
            5 * config.encoder_blocks[level] * maps[level] + maps[level] + maps[level + 1]
        )
    # q, k and v out; q and k in; v in and the result out
    result["attention"] = (1 + 3 + 2 + 2) * maps[LEVELS]
    for index in range(LEVELS):
        level = LEVELS - 1 - index
        blocks = config.decoder_blocks[index]
        result[f"decoder {level + 1}"] = (
            maps[level + 1] + 2 * maps[level] + 5 * blocks * maps[level]
        )
    result["join"] = 3 * maps[0]
    for index, blocks in enumerate(config.group_blocks):
        # the group's input is added at its end
        result[f"group {index + 1}"] = (5 * blocks + 1) * maps[0]
        result[f"fusion {index + 1}"] = 2 * maps[0] + 2 * maps[index]
    result["last convolution"] = maps[0] + num_bytes(graph.residual)
    return result


def memory(graph: ExecutionGraph) -> int:
    """Bytes of all buffers and weights of a graph."""
    seen: dict[int, Tensor] = {}
    for _, step in graph.parts():
        for value in [*step.args, *step.keywords.values()]:
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, Tensor):
                    # a view counts as what it views
                    base = each if each._base is None else each._base
                    seen[id(base)] = base
    return sum(map(num_bytes, seen.values()))
