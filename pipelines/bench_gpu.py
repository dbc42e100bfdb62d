"""Measure the GPU path: kernels, networks and streams, each checked before it is timed.

`python -m mhnet_video.pipelines.bench_gpu FILE` writes all figures to one JSON file, again after
every section, so that a run that is cut short leaves what it had. `--dry` runs the same code on
tiny sizes in Triton's interpreter, on no GPU at all; its times mean nothing.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mhnet_video.cuda_engine import Forward, TritonEngine, best_kind
from mhnet_video.cuda_frames import format_of
from mhnet_video.cuda_stream import CudaMachine, FramePipeline, batch_of, network_step
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.kernels import map_reference as reference
from mhnet_video.network import MHNet, NetworkConfig
from mhnet_video.traffic import count, memory, planned

LEAST_DECIBELS = 28.0
"""How near a residual must be to float32's for its time to be told, in dB below its own deviation:
rounding to bfloat16 leaves some 38."""
_LEAST_KERNEL_DECIBELS = 40.0
_LAYOUT = PixelLayout("yuv420p", "yuv", 8, 1, 1)

NETWORKS = {
    "realtime": NetworkConfig(
        width=16, patch=2, frames=3, encoder_blocks=(1, 1, 1, 4), group_blocks=(1, 1, 1, 1)
    ),
    "middle": NetworkConfig(
        width=32, patch=2, frames=3, encoder_blocks=(1, 1, 1, 8), group_blocks=(2, 2, 2, 2)
    ),
    "paper": NetworkConfig(),
}
"""The real-time model's sizes, ones between, and the paper's."""


class _Clock:
    """Times work on a device."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds = device, seconds

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, work: Callable[[], Any]) -> dict[str, float]:
        """Median and 20th and 80th percentile of a call."""
        for _ in range(3 if self.device.type == "cuda" else 0):
            work()
        self.wait()
        times: list[float] = []
        end = time.monotonic() + self.seconds
        while len(times) < 2 or (time.monotonic() < end and len(times) < 100):
            self.wait()
            begin = time.perf_counter()
            work()
            self.wait()
            times.append(1000 * (time.perf_counter() - begin))
        tenths = statistics.quantiles(times, n=10, method="inclusive")
        return {"median": tenths[4], "low": tenths[1], "high": tenths[7]}


def _decibels(found: Tensor, expected: Tensor, peak: float) -> float:
    error = (found.double() - expected.double()).square().mean().sqrt()
    return float(20 * torch.log10(peak / error.clamp_min(1e-12)))


def network_of(config: NetworkConfig, device: torch.device) -> MHNet:
    """A network whose every block matters; fresh ones pass their input through."""
    generator = torch.Generator().manual_seed(0)
    network = MHNet(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    return network.to(device)


def _machine(clock: _Clock, small: bool) -> dict[str, Any]:
    device = clock.device
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": platform.processor() or platform.machine(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = properties.name
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["memory_gb"] = properties.total_memory / 1e9
    import triton

    found["triton"] = triton.__version__
    kind = best_kind(device)
    elements = 1 << (12 if small else 29)
    source = torch.zeros(elements, dtype=kind, device=device)
    target = torch.empty_like(source)
    copy = clock.milliseconds(lambda: target.copy_(source))["median"]
    found["copy_gbs"] = 2 * elements * kind.itemsize / copy / 1e6
    side = 64 if small else 8192
    a = torch.zeros(side, side, dtype=kind, device=device)
    product = clock.milliseconds(lambda: a @ a)["median"]
    found["product_tflops"] = 2 * side**3 / product / 1e9
    return found


def _kernel_cases(
    channels: int, height: int, width: int, kind: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any], list[Any]]]:
    """Name, kernel, meaning, and the arguments of both."""
    generator = torch.Generator().manual_seed(1)

    def maps(*size: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(size, generator=generator) * scale).to(device, kind)

    def exact(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device)

    c, spread = channels, channels**-0.5
    x = maps(1, height, width, c)
    weight, bias = maps(2 * c, c, scale=spread), exact(2 * c)
    yield (
        "LayerNorm + 1x1",
        partial(map_ops.linear, norm=True),
        lambda x, w, b: reference.linear(x, w, b, True, False, None, [], 1e-6),
        [x, weight, bias],
    )
    yield (
        "depthwise 3x3 + gate",
        partial(map_ops.depthwise, gate=True),
        lambda x, w, b: reference.depthwise(x, w, b, True),
        [maps(1, height, width, 2 * c), exact(9, 2 * c) / 3, bias],
    )
    if c <= 64:
        yield (
            "first half of a block in one pass",
            map_ops.block_front,
            partial(reference.block_front, eps=1e-6),
            [x, maps(9, 2 * c, c, scale=spread / 3), exact(9, 2 * c), bias],
        )
    if map_ops.block_back_fits(c, kind):
        weights = [w for rows in (c, 2 * c, c) for w in (maps(rows, c, scale=spread), exact(rows))]
        yield (
            "second half of a block",
            lambda gated, x, gain, *w: map_ops.block_back(gated, x, gain, w),
            lambda gated, x, gain, *w: reference.block_back(gated, x, gain, w, None, 1e-6),
            [maps(1, height, width, c), x, exact(1, c), *weights],
        )
    half = [maps(1, height // 2, width // 2, 2 * c) for _ in range(2)]
    matrices = [maps(4 * c, 2 * c, scale=spread) for _ in range(2)]
    yield (
        "fusion",
        lambda x, low, high, a, b, shares, scale, shift: map_ops.fuse(
            x, low, high, a, b, shares=shares, scale=scale, shift=shift
        ),
        partial(reference.fuse, eps=1e-6),
        [x, *half, *matrices, exact(1, 3, c), exact(c), exact(c)],
    )
    if c > 64:  # not at full resolution, from which the attention is four steps down
        return
    yield (
        "attention",
        map_ops.attention,
        reference.attention,
        [maps(1, max(1, height // 16), max(1, width // 16), 48 * c), exact(8), exact(4)],
    )


def _kernels(clock: _Clock, sizes: list[tuple[int, int, int]]) -> Iterator[dict[str, Any]]:
    """Every kernel against eager PyTorch in the same type."""
    kind = best_kind(clock.device)
    for channels, height, width in sizes:
        for name, kernel, meaning, given in _kernel_cases(
            channels, height, width, kind, clock.device
        ):
            row: dict[str, Any] = {"kernel": name, "channels": channels, "size": [width, height]}
            floats = [each.float() if isinstance(each, Tensor) else each for each in given]
            expected = meaning(*floats)
            peak = float(expected.float().std()) or 1.0
            row["decibels"] = _decibels(kernel(*given), expected, peak)
            del floats, expected
            if row["decibels"] >= _LEAST_KERNEL_DECIBELS:
                with dispatch.recording() as launches:
                    kernel(*given)
                row["ms"] = clock.milliseconds(partial(kernel, *given))
                row["gbs"] = sum(each.num_bytes for each in launches) / row["ms"]["median"] / 1e6
                same = [
                    each.to(kind) if isinstance(each, Tensor) and name != "attention" else each
                    for each in given
                ]
                if name == "attention":
                    same[0] = same[0].float()
                row["eager_ms"] = clock.milliseconds(partial(meaning, *same))
            yield row


def _networks(
    clock: _Clock, cases: list[tuple[str, int, int]], deadline: float
) -> Iterator[dict[str, Any]]:
    """Networks alone: the engine's graph against eager PyTorch."""
    device, kind = clock.device, best_kind(clock.device)
    for name, height, width in cases:
        if time.monotonic() > deadline:
            return
        config = NETWORKS[name]
        network = network_of(config, device)
        channels = 3 * config.frames
        window = torch.rand(1, channels, height, width, device=device)
        row: dict[str, Any] = {"network": name, "size": [width, height], "kind": str(kind)}
        with dispatch.off():
            expected = network.residual(window)
        engine = TritonEngine(network, kind)
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        row["decibels"] = _decibels(engine.residuals(window), expected, float(expected.std()))
        traffic = count(planned(config, height, width, kind))
        row["bytes"] = sum(each.moved for each in traffic)
        row["planned_memory"] = memory(planned(config, height, width, kind))
        if row["decibels"] >= LEAST_DECIBELS:
            forward: Forward = next(iter(engine._forwards.values()))
            if device.type == "cuda":
                row["memory"] = torch.cuda.memory_allocated(device) - before
            row["ms"] = clock.milliseconds(forward.run)
            row["gbs"] = row["bytes"] / row["ms"]["median"] / 1e6
            engine.release()
            narrow = network_of(config, device).to(kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
            given = window.to(kind).contiguous(memory_format=torch.channels_last)
            with dispatch.off():
                row["eager_ms"] = clock.milliseconds(partial(narrow.residual, given))
            del narrow
        yield row


def _compiled(
    clock: _Clock, cases: list[tuple[str, int, int]], deadline: float
) -> Iterator[dict[str, Any]]:
    """`torch.compile(mode="max-autotune")` on the same networks, as time is left."""
    kind = best_kind(clock.device)
    for name, height, width in cases:
        if time.monotonic() > deadline:
            return
        config = NETWORKS[name]
        network = network_of(config, clock.device).to(kind)
        compiled = torch.compile(network.residual, mode="max-autotune")
        window = torch.rand(1, 3 * config.frames, height, width, device=clock.device)
        given = window.to(kind)
        begin = time.monotonic()
        with dispatch.off():
            compiled(given)
            row = {
                "network": name,
                "size": [width, height],
                "compile_seconds": time.monotonic() - begin,
                "ms": clock.milliseconds(partial(compiled, given)),
            }
        yield row


def _frames(count: int, height: int, width: int) -> list[Frame]:
    rng = np.random.default_rng(0)
    sizes = [(height, width)] + [(-(-height // 2), -(-width // 2))] * 2
    planes = [rng.integers(16, 235, size, dtype=np.uint8) for size in sizes]
    first = Frame(tuple(planes), _LAYOUT, pts=0, time_base=Fraction(1, 25))
    return [
        replace(first, planes=tuple(np.roll(plane, index, 1) for plane in planes), pts=index)
        for index in range(count)
    ]


def _streams(
    clock: _Clock, cases: list[tuple[str, int, int]], num_frames: int, deadline: float
) -> Iterator[dict[str, Any]]:
    """Frames in host memory to frames in host memory: everything but the codec."""
    for name, height, width in cases:
        if time.monotonic() > deadline or clock.device.type != "cuda":
            return
        config = NETWORKS[name]
        engine = TritonEngine(network_of(config, clock.device))
        frames = _frames(16, height, width)
        form = format_of(frames[0])
        batch = batch_of(form, config.patch)
        pipeline = FramePipeline(
            CudaMachine(clock.device),
            form,
            config.frames,
            1.0,
            partial(network_step, engine, form),
            batch=batch,
        )
        for frame in frames:
            pipeline.push(frame)
        pipeline.flush()
        begin = time.perf_counter()
        done = 0
        for index in range(num_frames):
            done += len(pipeline.push(frames[index % len(frames)]))
        done += len(pipeline.flush())
        seconds = time.perf_counter() - begin
        alone = clock.milliseconds(pipeline._step)["median"] / batch
        yield {
            "network": name,
            "size": [width, height],
            "batch": batch,
            "fps": done / seconds,
            "network_ms": alone,
            "overlap": alone * done / seconds / 1000,
        }


def bench_gpu(path: Path, *, dry: bool = False, seconds: float = 420.0) -> dict[str, Any]:
    """Measure everything and write it down.

    Args:
        path: The JSON file.
        dry: Whether to run tiny sizes on the CPU instead.
        seconds: When to begin nothing more; what is under way ends by itself.
    """
    begin = time.monotonic()
    device = torch.device("cpu" if dry else "cuda")
    clock = _Clock(device, 0.0 if dry else 0.5)
    deadline = begin + seconds
    figures: dict[str, Any] = {"dry": dry}

    def save(section: str, rows: Any) -> None:
        figures[section] = rows
        figures["seconds"] = time.monotonic() - begin
        path.write_text(json.dumps(figures, indent=1))

    save("machine", _machine(clock, dry))
    if dry:
        kernels, networks = [(16, 4, 6)], [("realtime", 5, 33)]
        compiled: list[tuple[str, int, int]] = []
    else:
        kernels = [(16, 544, 960), (32, 544, 960), (64, 1088, 1920), (512, 136, 240)]
        networks = [
            ("realtime", 1080, 1920),
            ("middle", 1080, 1920),
            ("paper", 1080, 1920),
            ("realtime", 2160, 3840),
            ("middle", 2160, 3840),
        ]
        compiled = networks[:1] + networks[2:3]
    sections: list[tuple[str, Iterator[dict[str, Any]]]] = [
        ("kernels", _kernels(clock, kernels)),
        ("networks", _networks(clock, networks, deadline)),
        ("streams", _streams(clock, networks, 300, deadline)),
        ("compiled", _compiled(clock, compiled, deadline)),
    ]
    for section, rows in sections:
        found: list[dict[str, Any]] = []
        save(section, found)
        for row in rows:
            found.append(row)
            save(section, found)
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the status to exit with."""
    parser = argparse.ArgumentParser(prog="bench_gpu", description=__doc__)
    parser.add_argument("file", type=Path, help="where the figures go")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    given = parser.parse_args(arguments)
    if not given.dry and not torch.cuda.is_available():
        sys.stderr.write("bench_gpu: there is no GPU that PyTorch can use; --dry needs none\n")
        return 1
    with torch.inference_mode():
        if given.dry:
            with dispatch.on_cpu():
                bench_gpu(given.file, dry=True)
        else:
            bench_gpu(given.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
