"""Measure the GPU path: kernels, networks, streams and files, each checked before it is timed.

`python -m mhnet_video.pipelines.bench_gpu FILE` writes all figures to one JSON file, again after
every row, so that a run that is cut short leaves what it had; `--seconds` says when to begin
nothing more. `--dry` runs the same code on tiny sizes in Triton's interpreter, on no GPU at all;
its times mean nothing.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mhnet_video.config import RestoreConfig
from mhnet_video.cost import count_macs
from mhnet_video.cuda_engine import Forward, TritonEngine, best_kind
from mhnet_video.cuda_frames import format_of
from mhnet_video.cuda_stream import CudaMachine, FramePipeline, batch_of, network_step
from mhnet_video.encoder import working_encoders
from mhnet_video.frame import Frame
from mhnet_video.kernels import dispatch
from mhnet_video.network import MHNet, NetworkConfig
from mhnet_video.pipelines.bench_kernels import (
    Clock,
    decibels,
    measure_kernels,
    measure_machine,
)
from mhnet_video.pipelines.bench_scene import make_frames, write_clip
from mhnet_video.pipelines.bench_table import to_lines
from mhnet_video.pipelines.restore import Progress, restore_video
from mhnet_video.reader import VideoReader
from mhnet_video.restorer import Restorer
from mhnet_video.traffic import count, memory, planned
from mhnet_video.weights import list_models, load_model

LEAST_DECIBELS = 28.0
"""How near a residual must be to float32's for its time to be told, in dB below its own deviation:
rounding to bfloat16 leaves some 38."""
_LARGER = NetworkConfig(
    width=32, patch=2, frames=5, encoder_blocks=(1, 2, 2, 6), group_blocks=(1, 1, 1, 1)
)
"""Stands for a larger model where none is shipped."""
Case = tuple[str, int, int]
"""A network's name, height and width."""


def networks() -> dict[str, NetworkConfig]:
    """The networks to measure: all that are shipped, a larger one, and the paper's."""
    found = {model.name: model.config for model in list_models()}
    if all(config.width < _LARGER.width for config in found.values()):
        found["larger"] = _LARGER
    return {**found, "paper": NetworkConfig()}


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


def _networks(
    clock: Clock, cases: list[Case], machine: dict[str, Any], deadline: float
) -> Iterator[dict[str, Any]]:
    """Networks alone: the engine's graph against eager PyTorch."""
    device, kind = clock.device, best_kind(clock.device)
    for name, height, width in cases:
        if time.monotonic() > deadline:
            return
        network = network_of(name, device)
        config = network.config
        window = torch.rand(1, 3 * config.frames, height, width, device=device)
        row: dict[str, Any] = {"network": name, "size": [width, height], "kind": str(kind)}
        with dispatch.off():
            expected = network.residual(window)
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        engine = TritonEngine(network, kind)
        begin = time.monotonic()
        row["decibels"] = decibels(engine.residuals(window), expected, float(expected.std()))
        row["ready_seconds"] = time.monotonic() - begin
        row["fronts"] = [level[0].front for level in engine.maps.encoders]
        del expected
        plan = planned(config, height, width, kind, fronts=engine.fronts)
        row["bytes"] = sum(each.moved for each in count(plan))
        row["macs"] = count_macs(config, height, width)
        row["planned_memory"] = memory(plan)
        if row["decibels"] >= LEAST_DECIBELS:
            forward: Forward = next(iter(engine._forwards.values()))
            if device.type == "cuda":
                row["memory"] = torch.cuda.memory_allocated(device) - before
            row["ms"] = clock.milliseconds(forward.run)
            seconds = row["ms"]["median"] / 1000
            row["of_copy"] = row["bytes"] / seconds / 1e9 / machine["copy_gbs"]
            row["of_product"] = 2 * row["macs"] / seconds / 1e12 / machine["product_tflops"]
            del forward
            engine.release()
            narrow = network_of(name, device).to(kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
            given = window.to(kind).contiguous(memory_format=torch.channels_last)
            with dispatch.off():
                row["eager_ms"] = clock.milliseconds(partial(narrow.residual, given))
            row["against_eager"] = row["eager_ms"]["median"] / row["ms"]["median"]
            del narrow
        yield row


def compile_and_time(name: str, height: int, width: int, *, seconds: float) -> dict[str, Any]:
    """`torch.compile(mode="max-autotune")` on one network; prints nothing.

    Args:
        name: Of the network.
        height: In pixels.
        width: In pixels.
        seconds: How long to time it.
    """
    clock = Clock(torch.device("cuda"), seconds)
    kind = best_kind(clock.device)
    network = network_of(name, clock.device).to(kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(network.residual, mode="max-autotune")
    window = torch.rand(1, 3 * network.config.frames, height, width, device=clock.device)
    given = window.to(kind).contiguous(memory_format=torch.channels_last)
    begin = time.monotonic()
    with dispatch.off():
        compiled(given)  # type: ignore[no-untyped-call]
        clock.wait()
        took = time.monotonic() - begin
        return {"compile_seconds": took, "ms": clock.milliseconds(partial(compiled, given))}


def _compiled(cases: list[Case], deadline: float) -> Iterator[dict[str, Any]]:
    """`torch.compile` in processes of their own, which the deadline ends."""
    for index, (name, height, width) in enumerate(cases):
        row: dict[str, Any] = {"network": name, "size": [width, height]}
        # the last one has all that is left, the others most of it
        left = (deadline - time.monotonic()) * (1 if index == len(cases) - 1 else 0.75)
        if left < 10:
            return
        command = [sys.executable, "-m", __spec__.name, "-", "--compiled", name]
        command += [str(height), str(width)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left)
            said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
            row |= json.loads(done.stdout) if done.returncode == 0 else {"failed": said[0]}
        except subprocess.TimeoutExpired:
            row["failed"] = f"not compiled after {left:.0f} s"
        yield row


def _streams(
    clock: Clock, cases: list[Case], num_frames: int, deadline: float
) -> Iterator[dict[str, Any]]:
    """Frames in host memory to frames in host memory: everything but the codec."""
    for name, height, width in cases:
        if time.monotonic() > deadline or clock.device.type != "cuda":
            return
        engine = TritonEngine(network_of(name, clock.device))
        frames = make_frames(16, height, width)
        form = format_of(frames[0])
        batch = batch_of(form, engine.config.patch)

        def pipeline_of(batch: int, engine: TritonEngine = engine, form: Any = form) -> Any:
            return FramePipeline(
                CudaMachine(clock.device),
                form,
                engine.config.frames,
                1.0,
                partial(network_step, engine, form),
                batch=batch,
            )

        torch.cuda.reset_peak_memory_stats(clock.device)
        pipeline = pipeline_of(batch)
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
        row = {
            "network": name,
            "size": [width, height],
            "batch": batch,
            "fps": done / seconds,
            "network_ms": alone,
            "overlap": alone * done / seconds / 1000,
            "peak_memory": torch.cuda.max_memory_allocated(clock.device),
        }
        if batch == 1:
            row["latency_ms"] = _latency(clock, pipeline, frames)
        yield row


def _latency(clock: Clock, pipeline: FramePipeline, frames: list[Frame]) -> dict[str, float]:
    """From the last frame that a result needs to that result, nothing else under way."""
    for frame in frames:
        pipeline.push(frame)
    clock.wait()
    pipeline._ready()

    def one() -> None:
        results = pipeline.push(frames[0])
        while not results:
            results = pipeline._ready()

    return clock.milliseconds(one)


class _Log(logging.Handler):
    """Keeps what is said, such as that a decoder on the GPU is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _files(
    clock: Clock, cases: list[Case], num_frames: int, deadline: float
) -> Iterator[dict[str, Any]]:
    """From file to file, and decoding alone, and decoding and encoding without a network."""
    on_gpu = clock.device.type == "cuda"
    encoders = ["libx264", *(e for e in working_encoders() if e.endswith("_nvenc") and on_gpu)]
    log = _Log()
    logging.getLogger("mhnet_video").addHandler(log)
    with tempfile.TemporaryDirectory() as folder:
        for name, height, width in cases:
            if time.monotonic() > deadline:
                break
            clip, out = Path(folder, f"{width}.mp4"), Path(folder, "out.mp4")
            if not clip.exists():
                write_clip(clip, num_frames, height, width)
            restorer = Restorer(network_of(name, clock.device), device=clock.device.type)
            for encoder in encoders:
                log.lines.clear()
                row: dict[str, Any] = {"network": name, "size": [width, height]}
                row |= {"encoder": encoder, "engine": restorer.engine.name}
                config = RestoreConfig(encoder=encoder, overwrite=True)
                row["decode_fps"] = _decode_fps(clip, restorer.gpu)
                for key, strength in (("fps", 1.0), ("codecs_fps", 0.0)):
                    restorer.strength = strength
                    row[key] = _steady_fps(clip, out, config, restorer)
                row["log"] = list(log.lines)
                yield row
    logging.getLogger("mhnet_video").removeHandler(log)


def _decode_fps(clip: Path, gpu: int | None) -> float:
    with VideoReader(clip) as reader:
        if gpu is not None:
            reader.decode_on_gpu(gpu)
        begin = time.perf_counter()
        done = sum(isinstance(item, Frame) for item in reader)
        return done / (time.perf_counter() - begin)


def _steady_fps(clip: Path, out: Path, config: RestoreConfig, restorer: Restorer) -> float:
    """Frames a second from when a part of them is written: without compilers and graphs."""
    told: list[Progress] = []
    report = restore_video(clip, out, config, on_progress=told.append, restorer=restorer)
    begin = next((each for each in told if each.frames > report.frames // 8), None)
    if begin is None or begin.frames >= report.frames:
        return report.frames / report.seconds
    return (report.frames - begin.frames) / (told[-1].seconds - begin.seconds)


@torch.inference_mode()
def bench_gpu(path: Path | None, *, dry: bool = False, seconds: float = 420.0) -> dict[str, Any]:
    """Measure everything and write it down.

    Args:
        path: The JSON file; None for none.
        dry: Whether to run tiny sizes on the CPU instead.
        seconds: When to begin nothing more; what is under way ends by itself.
    """
    begin = time.monotonic()
    device = torch.device("cpu" if dry else "cuda")
    clock = Clock(device, 0.0 if dry else 0.5)
    deadline = begin + seconds
    figures: dict[str, Any] = {"dry": dry}
    # float32 is what results are judged by, and keeps its precision
    torch.backends.cudnn.allow_tf32 = False

    def save(section: str, rows: Any) -> None:
        figures[section] = rows
        figures["seconds"] = time.monotonic() - begin
        if path is not None:
            path.write_text(json.dumps(figures, indent=1))

    machine = measure_machine(clock, dry)
    save("machine", machine)
    names = list(networks())
    if dry:
        kernels: list[tuple[int, int, int]] = [(16, 4, 6)]
        cases, files = [(names[0], 5, 33)], [(names[0], 16, 16)]
        compiled: list[Case] = []
    else:
        kernels = [(16, 544, 960), (32, 544, 960), (64, 1088, 1920), (512, 136, 240)]
        cases = [(name, 1080, 1920) for name in reversed(names)]
        files = cases
        cases = cases + [(name, 2160, 3840) for name in names[:-1]]
        compiled = [("paper", 1080, 1920), (names[0], 1080, 1920)]
    # what is compiled may take as long as it likes, so that it is last and has a part for itself
    part = deadline - seconds / 3
    sections: list[tuple[str, Iterator[dict[str, Any]]]] = [
        ("networks", _networks(clock, cases, machine, part)),
        ("streams", _streams(clock, cases, 300, part)),
        ("files", _files(clock, files, 4 if dry else 240, part)),
        ("kernels", measure_kernels(clock, kernels, part)),
        ("compiled", _compiled(compiled, deadline)),
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
    parser.add_argument("--seconds", type=float, default=420.0, help="when to begin nothing more")
    parser.add_argument("--compiled", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not given.dry and not torch.cuda.is_available():
        sys.stderr.write("bench_gpu: there is no GPU that PyTorch can use; --dry needs none\n")
        return 1
    if given.compiled:
        name, height, width = given.compiled
        with torch.inference_mode():
            row = compile_and_time(name, int(height), int(width), seconds=0.5)
        sys.stdout.write(json.dumps(row))
        return 0
    if given.dry:
        with dispatch.on_cpu():
            figures = bench_gpu(given.file, dry=True)
    else:
        figures = bench_gpu(given.file, seconds=given.seconds)
    sys.stdout.write("\n".join(to_lines(figures)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
