"""The measurements of the benchmark; `bench.py` runs each in a process of its own.

Measurements that are compared are taken in turns. A machine that slows down then slows all of them.
"""

import itertools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video import __version__
from mhnet_video.config import ENGINES, RestoreConfig
from mhnet_video.engines.base import Engine, TorchEngine
from mhnet_video.engines.select import llvm_machine, llvm_obstacle, resolve_engine
from mhnet_video.errors import ConfigError, MHNetVideoError
from mhnet_video.frame import Frame
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.writer import VideoWriter
from mhnet_video.model.cost import count_bytes, count_macs
from mhnet_video.model.network import MHNet
from mhnet_video.model.weights import load_model, models_of
from mhnet_video.model.window import Window, between, glass_statistics
from mhnet_video.pipelines.bench import LEAST_PSNR
from mhnet_video.pipelines.bench_runtimes import (
    WINDOWS,
    Runtime,
    jobs,
    runtimes,
    runtimes_obstacle,
)
from mhnet_video.pipelines.bench_scene import make_frames
from mhnet_video.pipelines.restore import Progress, restore_video
from mhnet_video.restoration.color import add_residual, to_rgb
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.training.rain import Storm, StreakLayer, fall, render_streaks

_MIN_ROUNDS = 5
"""Fewest rounds of the engines."""
_MAX_ROUNDS = 15
"""Most rounds of the engines."""
_SECONDS = 60.0
"""Time for the rounds of the engines, in seconds, within the limits above."""
_STAGE_ROUNDS = 7
"""Rounds of the stages."""
_STAGE_FRAMES = 30
"""Frames of each stage in a round."""
_RESTORED_FRAMES = 10
"""Fewest frames that a round restores."""
_RAINS = 8
"""Rendered layers of rain in a clip, which repeat with an offset."""


def work() -> None:
    """Do the job that standard input describes as JSON, and write its result to standard output."""
    arguments = json.load(sys.stdin)
    try:
        reply = _JOBS[arguments.pop("job")](**arguments)
    except MHNetVideoError as error:
        reply = {"error": str(error), "error_type": type(error).__name__}
    sys.stdout.write(json.dumps(reply) + "\n")


# the machine


def _describe_machine(model: str, weights: str | None) -> dict[str, Any]:
    """Versions and processor, measured peaks, and the network's name."""
    (name,) = models_of(None, model, weights)
    load_model(name)  # fails on wrong weights before the long measurements
    capability = torch.backends.cpu.get_cpu_capability()
    machine = {
        "mhnet-video": f"mhnet-video {__version__}",
        "processor": f"{_processor()} with {len(_cores())} cores",
        "torch": f"PyTorch {torch.__version__} ({capability})",
        "llvm": f"LLVM ({llvm_obstacle() or llvm_machine()})",
    }
    return {"machine": machine, "peaks": _peaks(), "model": name}


def _processor() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _thread_counts() -> list[int]:
    """One thread, and PyTorch's default number of threads."""
    return sorted({1, torch.get_num_threads()})


def _has_bfloat16() -> bool:
    """Whether PyTorch multiplies bfloat16 by instructions of the processor."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return bool(supported() and "AVX512" in torch.backends.cpu.get_cpu_capability())


@torch.inference_mode()
def _peaks() -> list[dict[str, Any]]:
    """Highest arithmetic and copy rates of several runs, for one thread and for all."""
    # a 3x3 convolution, because PyTorch multiplies float32 matrices without oneDNN, at half the
    # rate on some processors
    channels, side = 256, 64
    operations = 2 * 9 * channels**2 * side**2
    dtypes = [torch.float32, torch.bfloat16] if _has_bfloat16() else [torch.float32]
    source, target = torch.zeros(64 << 20), torch.ones(64 << 20)
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "copy": (2 * source.nbytes, lambda: target.copy_(source))
    }
    for dtype in dtypes:
        x = torch.rand(1, channels, side, side, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.rand(channels, channels, 3, 3, dtype=dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)

        def convolve(x: Tensor = x, weight: Tensor = weight) -> Tensor:
            return F.conv2d(x, weight, padding=1)

        runs[str(dtype).removeprefix("torch.")] = (operations, convolve)
    counts = _thread_counts()
    best = {(threads, name): 0.0 for threads in counts for name in runs}
    for _, threads, (name, (amount, run)) in itertools.product(
        range(_MAX_ROUNDS), counts, runs.items()
    ):
        torch.set_num_threads(threads)
        begin = time.perf_counter()
        run()
        rate = amount / (time.perf_counter() - begin) / 1e9
        best[threads, name] = max(rate, best[threads, name])
    return [
        {
            "threads": threads,
            "gflops": {name: best[threads, name] for name in runs if name != "copy"},
            "copy_gbs": best[threads, "copy"],
        }
        for threads in counts
    ]


# the clip


def _make_clip(clip: str, width: int, height: int, frames: int) -> dict[str, Any]:
    """Encode a deterministic clip: a scene that moves by a pixel a frame, in rain."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.zeros(1, 3, height, width + frames)
    for octave in range(8):
        rows, columns = 2 + (height << octave >> 8), 2 + (width << octave >> 8)
        grid = torch.rand(1, 3, rows, columns, generator=generator)
        scene += F.interpolate(grid, scene.shape[-2:], mode="bicubic") * 0.6**octave
    scene = 0.1 + 0.7 * (scene - scene.min()) / (scene.max() - scene.min())
    scale = height / 480
    thin = StreakLayer(
        density=1.5e-3 / scale**2,
        length=18 * scale,
        sigma=0.7 * scale,
        taper=0.1,
        angle=0.1,
        opacity=0.6,
        spread=0.7,
    )
    wide = replace(thin, density=2e-4 / scale**2, length=50 * scale, sigma=1.8 * scale, opacity=0.3)
    storm = Storm(layers=(thin, wide), gust=0.01, light=(0.9, 0.9, 0.9))
    rains = [
        render_streaks(storm, generator, frames=1, height=height, width=width)
        for _ in range(min(frames, _RAINS))
    ]
    av.logging.set_level(None)
    with av.open(clip, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            # the field of rain wraps round, so that it can be shifted
            turn = index // _RAINS
            cover = rains[index % _RAINS].roll((37 * turn, 53 * turn), (2, 3))
            rainy = fall(scene[..., index : index + width], cover, storm)[0]
            samples = (rainy * 255).round_().to(torch.uint8).permute(1, 2, 0).contiguous()
            frame = av.VideoFrame.from_ndarray(samples.numpy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return {}


def _frames_of(clip: str, count: int) -> list[Frame]:
    """The first frames of a clip."""
    with VideoReader(clip) as reader:
        return [item for item in itertools.islice(reader, count) if isinstance(item, Frame)]


def _of_fixed_camera(number: int, height: int, width: int) -> list[Frame]:
    """Frames of a dry scene in which nothing moves; they differ by a level of noise."""
    random = np.random.default_rng(0)
    (first,) = make_frames(1, height, width)
    luma, *chroma = first.planes
    noise = (random.integers(0, 2, luma.shape, np.uint8) for _ in range(number))
    return [
        replace(first, planes=(luma + each, *chroma), pts=index) for index, each in enumerate(noise)
    ]


def _padded(frames: Sequence[Frame], multiple: int) -> list[Tensor]:
    """Frames as inputs of the network, `[3, H, W]` each, H and W padded to a multiple."""
    height, width = frames[0].height, frames[0].width
    padding = (0, -width % multiple, 0, -height % multiple)
    pictures = (to_rgb(frame, torch.device("cpu"))[None] for frame in frames)
    return [F.pad(picture, padding, mode="replicate")[0] for picture in pictures]


def _window_of(network: MHNet, frames: Sequence[Tensor]) -> list[Tensor]:
    """What a network sees of successive frames: some see the pictures of the glass, too."""
    if not network.config.glass:
        return list(frames)
    film = torch.stack(list(frames))
    return list(between(glass_statistics(film, film[len(film) // 2]), film))


# the network


class _Contender(NamedTuple):
    """An engine to be measured."""

    name: str
    detail: str
    threads: int
    element: str
    engine: Engine | None


def _contenders(network: MHNet, counts: list[int]) -> Iterator[_Contender]:
    """Each engine with each number of threads, PyTorch in float32 first."""
    capability = torch.backends.cpu.get_cpu_capability()
    for threads in counts:
        torch.set_num_threads(threads)
        eager = TorchEngine(network)
        yield _Contender("torch float32", capability, threads, "float32", eager)
        if _has_bfloat16():
            eager = TorchEngine(network, bfloat16=True)
            yield _Contender("torch bfloat16", capability, threads, "bfloat16", eager)
        for name in ENGINES:
            if name in ("auto", "torch", "triton"):
                continue
            try:
                choice = resolve_engine(network, name)
            except ConfigError as error:
                yield _Contender(name, str(error), threads, "float32", None)
                continue
            if os.environ.get("MHNET_CPU_ISA") == "avx2" and "AVX2" not in choice.reason:
                yield _Contender(name, "cannot be held to AVX2", threads, "float32", None)
                continue
            element = "bfloat16" if "bfloat16" in choice.reason else "float32"
            yield _Contender(name, choice.reason, threads, element, choice.engine)


@torch.inference_mode()
def _measure_network(clip: str, name: str, peaks: list[dict[str, Any]]) -> dict[str, Any]:
    """Time the network with alignment, in each engine, on the first frames of the clip."""
    network = load_model(name)
    config = network.config
    frames = _frames_of(clip, config.frames)
    height, width = frames[0].height, frames[0].width
    film = _padded(frames, config.multiple)
    window = _window_of(network, film)
    following = _window_of(network, [*film[1:], film[0].clone()])  # one frame of it is new

    def residual(engine: Engine, frames: Sequence[Tensor]) -> Tensor:
        return engine.aligned_residual(frames) if config.align else engine.residual(frames)

    def milliseconds(contender: _Contender, engine: Engine) -> float:
        torch.set_num_threads(contender.threads)
        # warms caches and threads, as the frame before does in a video
        residual(engine, window)
        begin = time.perf_counter()
        residual(engine, following)
        return (time.perf_counter() - begin) * 1e3

    contenders = list(_contenders(network, _thread_counts()))
    expected: Tensor | None = None
    psnr: dict[_Contender, float] = {}
    right: list[tuple[_Contender, Engine]] = []
    for contender in contenders:
        if contender.engine is not None:
            torch.set_num_threads(contender.threads)
            result = residual(contender.engine, window)
            expected = result if expected is None else expected
            psnr[contender] = psnr_of(result, expected)
            if psnr[contender] >= LEAST_PSNR:
                right.append((contender, contender.engine))
    round_seconds = sum(milliseconds(*each) for each in right) / 1e3
    rounds = max(_MIN_ROUNDS, min(_MAX_ROUNDS, round(_SECONDS / round_seconds)))
    times: dict[_Contender, list[float]] = {contender: [] for contender, _ in right}
    for _, (contender, engine) in itertools.product(range(rounds), right):
        times[contender].append(milliseconds(contender, engine))

    macs = count_macs(config, height, width)
    peak_of = {peak["threads"]: peak for peak in peaks}
    eager_ms = {
        contender.threads: _median(of_it)
        for contender, of_it in times.items()
        if contender.name == "torch float32"
    }
    rows = []
    for contender in contenders:
        near = psnr.get(contender)
        row: dict[str, Any] = {
            "engine": contender.name,
            "detail": contender.detail,
            "device": "cpu",
            "threads": contender.threads,
            "psnr": None if near is None or math.isinf(near) else near,
            "times": times.get(contender, []),
            "speedup": None,
            "of_peak": None,
            "of_copy": None,
        }
        if contender in times:
            ms = _median(times[contender])
            peak = peak_of[contender.threads]
            element_bytes = 2 if contender.element == "bfloat16" else 4
            moved = count_bytes(config, height, width, element_bytes)
            row["speedup"] = eager_ms[contender.threads] / ms
            row["of_peak"] = 2 * macs / (ms * 1e6) / peak["gflops"][contender.element]
            row["of_copy"] = moved / (ms * 1e6) / peak["copy_gbs"]
        elif near is not None:
            row["detail"] = f"wrong result: less than {LEAST_PSNR:.0f} dB"
        rows.append(row)
    return {"macs": macs, "rows": rows}


def psnr_of(result: Tensor, expected: Tensor) -> float:
    """PSNR of a result in dB with a peak of 1; -inf for NaN, inf for equal tensors."""
    error = float((result.double() - expected.double()).square().mean())
    if math.isnan(error):
        return -math.inf
    return -10 * math.log10(error) if error else math.inf


def _median(values: list[float]) -> float:
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


# other runtimes


@torch.inference_mode()
def _measure_runtimes(clip: str, name: str) -> dict[str, Any]:
    """Time the network without alignment, in each runtime, with all threads."""
    obstacle = runtimes_obstacle()
    if obstacle:
        return {"obstacle": obstacle, "rows": []}
    network = load_model(name)
    length = network.config.frames
    film = _padded(_frames_of(clip, WINDOWS + length - 1), network.config.multiple)
    windows = [
        _window_of(network, [each.clone() for each in film[first : first + length]])
        for first in range(WINDOWS)
    ]
    expected = [TorchEngine(network).residual(window) for window in windows]

    def milliseconds(runtime: Runtime) -> float:
        begin = time.perf_counter()
        count = len(runtime.run())
        return (time.perf_counter() - begin) * 1e3 / count

    rows: list[dict[str, Any]] = []
    right: list[tuple[dict[str, Any], Runtime]] = []
    for runtime in runtimes(network, windows, torch.get_num_threads()):
        order = jobs(runtime.concurrency)
        pairs = zip(runtime.run(), order, strict=True)
        near = min(psnr_of(result, expected[index]) for result, index in pairs)
        row: dict[str, Any] = {
            "runtime": runtime.name,
            "detail": runtime.detail,
            "concurrency": runtime.concurrency,
            "psnr": near if math.isfinite(near) else None,
            "times": [],
        }
        rows.append(row)
        if near >= LEAST_PSNR:
            right.append((row, runtime))
        else:
            row["detail"] = f"wrong result: less than {LEAST_PSNR:.0f} dB"
    round_seconds = sum(milliseconds(runtime) * 2 * runtime.concurrency for _, runtime in right)
    rounds = max(_MIN_ROUNDS, min(_MAX_ROUNDS, round(_SECONDS * 1e3 / round_seconds)))
    for _, (row, runtime) in itertools.product(range(rounds), right):
        row["times"].append(milliseconds(runtime))
    return {"obstacle": "", "rows": rows}


# the stages


@torch.inference_mode()
def _measure_stages(clip: str, name: str) -> dict[str, list[float]]:
    """Time each stage of the pipeline separately, and parts of the restoration.

    Restoring is also timed at half of the rows, as of a soft picture, and where a fixed camera
    shows nothing to take out. The parts are the conversions, and the network with and without
    alignment, frame by frame on the threads of one lane. Times are milliseconds a frame.
    """
    device = torch.device("cpu")
    frames = _frames_of(clip, _STAGE_FRAMES)
    restorer = Restorer(name, device="cpu")
    shape = (3, frames[0].height, frames[0].width)
    residual = 0.05 * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    lanes = restorer.engine.engine.lanes(shape[1] * shape[2])
    length = max(_RESTORED_FRAMES, 4 * len(lanes))

    def decode() -> int:
        with VideoReader(clip) as reader:
            return sum(1 for _ in reader)

    def convert() -> int:
        for frame in frames:
            to_rgb(frame, device)
            add_residual(frame, residual)
        return len(frames)

    def restore(source: Sequence[Frame], scale: float | None) -> int:
        # to the end: lanes work ahead, so that most frames are ready before they are requested
        restorer.scale = scale
        film = itertools.islice(itertools.cycle(source), length)
        return sum(1 for _ in restorer.stream(film))

    def encode() -> int:
        with VideoReader(clip) as reader, VideoWriter(f"{clip}.mp4", reader, overwrite=True) as out:
            for frame in frames:
                out.write(frame)
            out.finish()
        return len(frames)

    stages: dict[str, Callable[[], int]] = {
        "decode": decode,
        "to RGB, and the residual": convert,
        "restore": partial(restore, frames, None),
        "restore at half scale": partial(restore, frames, 0.5),
        "restore, dry": partial(restore, _of_fixed_camera(length, *shape[1:]), None),
        "encode": encode,
    }
    config, engine = restorer.network.config, lanes[0]
    if config.align:
        film = _padded(
            [*itertools.islice(itertools.cycle(frames), _RESTORED_FRAMES)], config.multiple
        )
        firsts = range(1 + len(film) - config.frames)
        windows = [
            _window_of(restorer.network, film[first : first + config.frames]) for first in firsts
        ]

        def residuals(of: Callable[[Window], Tensor]) -> int:
            for window in windows:
                of(window)
            return len(windows)

        stages["network, frames as they are"] = partial(residuals, engine.residual)
        stages["network, frames aligned"] = partial(residuals, engine.aligned_residual)
    times: dict[str, list[float]] = {name: [] for name in stages}
    for index in range(1 + _STAGE_ROUNDS):
        for name, run in stages.items():
            begin = time.perf_counter()
            count = run()
            if index:  # the first round warms up
                times[name].append((time.perf_counter() - begin) * 1e3 / count)
    return times


# the whole


def _measure_whole(clip: str, name: str, cores: int, began: float) -> dict[str, Any]:
    """Restore the clip from file to file, on some of the cores."""
    if cores < len(_cores()) and hasattr(os, "sched_setaffinity"):
        for task in os.listdir("/proc/self/task"):  # PyTorch may have started threads by now
            os.sched_setaffinity(int(task), _cores()[:cores])
    torch.set_num_threads(cores)
    reports: list[tuple[int, float]] = []

    def listen(progress: Progress) -> None:
        reports.append((progress.frames, time.monotonic()))

    restorer = Restorer(name, device="cpu")
    config = RestoreConfig(overwrite=True)
    opened = time.monotonic()
    report = restore_video(clip, f"{clip}.mp4", config, restorer=restorer, on_progress=listen)
    (first, start), (last, end) = reports[0], reports[-1]
    # a few tiny frames can all be written before the first report
    fps = (last - first) / (end - start) if last > first else last / (end - opened)
    engine = f"{restorer.engine.name}, {restorer.engine.reason}"
    return {
        "engine": engine if report.scale == 1 else f"{engine}; at {report.scale:.0%} scale",
        "fps": fps,
        "first_frame_seconds": start - began,
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int | None:
    """Peak resident memory of this process, in bytes; None where the system does not report it."""
    # the figure of `getrusage` includes the process that started this one
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


_JOBS: dict[str, Callable[..., Any]] = {
    "machine": _describe_machine,
    "clip": _make_clip,
    "network": _measure_network,
    "runtimes": _measure_runtimes,
    "stages": _measure_stages,
    "whole": _measure_whole,
}
"""The jobs of `work` by name."""
