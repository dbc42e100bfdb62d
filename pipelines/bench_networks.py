"""The GPU benchmark's networks: the engine checked against plain PyTorch, then timed against it."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mhnet_video.engines.triton.engine import Forward, TritonEngine, best_dtype
from mhnet_video.engines.triton.memory_traffic import count, memory, symbolic_graph
from mhnet_video.kernels import dispatch
from mhnet_video.model.cost import count_macs
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.weights import list_models, load_model
from mhnet_video.pipelines.bench_kernels import Clock, add, checked, decibels

NETWORK_DECIBELS = 28.0
"""Least signal-to-error ratio of a residual whose time is reported, against float32, in dB.
Rounding to bfloat16 gives some 38."""
NetworkCase = tuple[str, int, int]
"""A network's name, height and width."""


def networks() -> dict[str, NetworkConfig]:
    """The networks to measure, the smallest first: those that Triton runs, and the paper's."""
    shipped = [model for model in list_models() if not model.config.glass]
    models = sorted(shipped, key=lambda model: model.size_bytes)
    return {**{model.name: model.config for model in models}, "paper": NetworkConfig()}


def network_of(name: str, device: torch.device) -> MHNet:
    """A shipped model, or a network whose every block matters; fresh ones pass their input."""
    if name in {model.name for model in list_models()}:
        return load_model(name, device)
    generator = torch.Generator().manual_seed(0)
    network = MHNet(networks()[name]).eval().requires_grad_(False)
    for parameter_name, parameter in network.named_parameters():
        if parameter_name.endswith(("beta", "gamma")):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    return network.to(device)


def measure_networks(
    clock: Clock, cases: list[NetworkCase], machine: dict[str, Any], deadline: float
) -> Iterator[dict[str, Any]]:
    """Measure networks without alignment: the engine's graph against eager PyTorch."""
    device, dtype = clock.device, best_dtype(clock.device)
    for name, height, width in cases:
        if time.monotonic() > deadline:
            return
        network = network_of(name, device)
        config = network.config
        window = torch.rand(1, 3 * config.frames, height, width, device=device)
        row: dict[str, Any] = {"network": name, "size": [width, height], "dtype": str(dtype)}
        with dispatch.off():
            expected = network.residual(window)
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        engine = TritonEngine(network, dtype)
        begin = time.monotonic()
        row["decibels"] = decibels(engine.residuals(window), expected)
        row["ready_seconds"] = time.monotonic() - begin
        row["fronts"] = [level[0].front for level in engine.maps.encoders]
        graph = symbolic_graph(config, height, width, dtype, fronts=engine.fronts)
        row["bytes"] = sum(each.moved for each in count(graph))
        row["macs"] = count_macs(config, height, width)
        row["planned_memory"] = memory(graph)
        if row["decibels"] >= NETWORK_DECIBELS:
            forward: Forward = next(iter(engine._forwards.values()))
            if device.type == "cuda":
                row["memory"] = torch.cuda.memory_allocated(device) - before
            row["ms"] = clock.milliseconds(forward.run)
            seconds = row["ms"]["median"] / 1000
            row["of_copy"] = row["bytes"] / seconds / 1e9 / machine["copy_gbs"]
            row["of_product"] = 2 * row["macs"] / seconds / 1e12 / machine["product_tflops"]
            del forward
            engine.release()
            eager = plain(network_of(name, device), window, dtype)
            with dispatch.off():
                add(row, "eager", checked(clock, eager, expected, NETWORK_DECIBELS))
            del eager
        yield row


def measure_parts(clock: Clock, case: NetworkCase) -> Iterator[dict[str, Any]]:
    """Measure each part of a network by itself: what its steps take one after the other."""
    name, height, width = case
    engine = TritonEngine(network_of(name, clock.device))
    graph = engine.graph(1, height, width)
    graph.run()
    parts: dict[str, list[partial[Any]]] = {}
    for part, step in graph.parts():
        parts.setdefault(part, []).append(step)
    for part, steps in parts.items():

        def run(steps: list[partial[Any]] = steps) -> None:
            for step in steps:
                step()

        row: dict[str, Any] = {"network": name, "size": [width, height], "part": part}
        yield row | {"launches": len(steps), "ms": clock.milliseconds(run)}


def measure_programs(clock: Clock, case: NetworkCase, runs: int = 10) -> Iterator[dict[str, Any]]:
    """What each kernel of a network takes within its graph, by PyTorch's profiler.

    Args:
        clock: Has the device; on a CPU the operations of PyTorch are listed.
        case: The network and the size of its pictures.
        runs: Runs of the graph, over which times are averaged.
    """
    name, height, width = case
    row: dict[str, Any] = {"network": name, "size": [width, height], "part": "by kernel"}
    on_gpu = clock.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    forward = Forward(TritonEngine(network_of(name, clock.device)).graph(1, height, width))
    forward.run()
    clock.wait()
    with torch.profiler.profile(activities=[kind], acc_events=True) as profile:
        for _ in range(runs):
            forward.run()
        clock.wait()
    found: dict[str, dict[str, float]] = {}
    for event in profile.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent:
            found[event.key] = {"ms": spent / 1000 / runs, "launches": event.count / runs}
    if not found:
        yield row | {"failed": "the profiler saw no kernel"}
        return
    by_time = sorted(found.items(), key=lambda item: -item[1]["ms"])
    yield row | {"by_kernel": dict(by_time), "sum_ms": sum(each["ms"] for each in found.values())}


def plain(
    network: MHNet,
    window: Tensor,
    dtype: torch.dtype,
    compiled: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda call: call,
) -> Callable[[], Tensor]:
    """The network in PyTorch's fastest form: in the maps' type, channels last.

    Args:
        network: Is changed.
        window: `[N, 3 * frames, H, W]` float32.
        dtype: Type of the maps.
        compiled: Makes another function of the network's.
    """
    network.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = window.to(dtype).contiguous(memory_format=torch.channels_last)
    return partial(compiled(network.residual), inputs)
