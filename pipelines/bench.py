"""Benchmark of this machine: engines side by side, the stages of the pipeline, and file to file.

Each measurement runs in a process of its own (`measure.py`). Instruction sets can then be disabled
before PyTorch loads, and memory is counted separately.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

from mhnet_video import errors
from mhnet_video.errors import ConfigError, MHNetVideoError

ISAS = ("avx2",)
"""Values of `isa`."""
DEFAULT_SIZE = (640, 480)
"""Width and height of the pictures, in pixels."""
DEFAULT_FRAMES = 150
"""Frames of the synthetic clips."""
LEAST_PSNR = 50.0
"""Lowest PSNR of a result whose time is reported, against float32, in dB with a peak of 1.
Rounding to bfloat16 gives 70 dB, rounding to 8 bits 59."""

_ENVIRONMENTS = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "MHNET_CPU_ISA": "avx2",
    }
}
"""Environment variables that hold PyTorch, oneDNN, MKL and the CPU engine to an instruction set."""
_STAGES = ("decode", "restore", "encode")
"""The stages of a run from file to file, which overlap."""
_RUNS = 3
"""Runs from file to file."""
_MOST_SECONDS = 3600.0
"""Timeout of a measurement, in seconds. Minutes are usual."""
_MIN_FRAMES = 10
"""Fewest frames of a clip."""


class Spread(NamedTuple):
    """The median of repeated measurements, and their 20th and 80th percentile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        tenths = quantiles(values, n=10, method="inclusive")
        return cls(tenths[4], tenths[1], tenths[7])


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Measured peak rates of this machine."""

    threads: int
    gflops: dict[str, float]
    """GFLOP/s of a large 3x3 convolution in PyTorch, by element type; a multiply-add counts as
    two operations."""
    copy_gbs: float
    """GB/s that a large copy reads and writes."""


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """The network in one engine, with alignment."""

    engine: str
    detail: str
    """The instructions it uses, or why there are no times."""
    device: str
    threads: int
    psnr: float | None
    """PSNR against `torch float32`, in dB; None for equal results or without a result."""
    ms: Spread | None
    """Milliseconds a frame; None for a wrong result or without a result."""
    speedup: float | None
    """Speedup over `torch float32` on as many threads."""
    of_peak: float | None
    """Share of the arithmetic peak for its element type."""
    of_copy: float | None
    """Share of the copy rate, counting the fewest bytes that must be moved."""


@dataclass(frozen=True, kw_only=True)
class RuntimeRow:
    """The network in one runtime, without alignment, with all threads."""

    runtime: str
    detail: str
    """Element type or instructions, or why there are no times."""
    concurrency: int
    """Windows in flight at once."""
    psnr: float | None
    """Lowest PSNR against `torch float32`, in dB; None for equal results or without a result."""
    ms: Spread | None
    """Milliseconds a frame; None for a wrong result."""
    speedup: float | None
    """Speedup over `torch float32`, one frame at a time."""
    of_llvm: float | None
    """Time as a multiple of the llvm engine's fastest; None where that does not run."""


@dataclass(frozen=True, kw_only=True)
class WholeRow:
    """File to file, H.264 in and out, with the automatic engine."""

    cores: int
    engine: str
    fps: Spread
    """Frames a second, from the first one written on."""
    first_frame_seconds: float
    """From the start of the process to the first frame written; the median."""
    peak_bytes: int | None
    """Peak resident memory, in bytes; None where the system does not report it."""
    overlap: float | None
    """Time of the slowest of `_STAGES` alone over that of the whole pipeline, at most about 1. A
    separate stage has all cores, which the pipeline's stages share; None with fewer cores."""


@dataclass(frozen=True, kw_only=True)
class SizeResult:
    """Everything about one size of picture."""

    width: int
    height: int
    macs: int
    """Multiply-adds of the network for a frame."""
    engines: tuple[EngineRow, ...]
    runtimes: tuple[RuntimeRow, ...]
    runtimes_obstacle: str
    """Why there are no `runtimes`; empty if there are."""
    stages: dict[str, Spread]
    """Milliseconds a frame of each separate stage, with all cores."""
    whole: tuple[WholeRow, ...]


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A run of the benchmark."""

    model: str
    machine: dict[str, str]
    """Versions, processor and instructions, in words."""
    frames: int
    """Length of the clips."""
    peaks: tuple[Peak, ...]
    sizes: tuple[SizeResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; a spread is its median, its low and its high value."""
        return {**asdict(self), "least_psnr": LEAST_PSNR}


def bench(
    *,
    model: str = "auto",
    weights: str | None = None,
    sizes: Iterable[tuple[int, int]] = (DEFAULT_SIZE,),
    frames: int = DEFAULT_FRAMES,
    isa: str | None = None,
    on_log: Callable[[str], None] = lambda text: None,
) -> BenchResult:
    """Benchmark the CPU. It takes a minute or two for each size up to 1280x720.

    Args:
        model: A shipped model's name; `auto` for the CPU's.
        weights: A weights file to use instead.
        sizes: Width and height of the pictures, in pixels.
        frames: Length of the synthetic clips that are restored.
        isa: `avx2` disables all instructions beyond AVX2; None uses all of the processor's.
        on_log: Called with the name of the next measurement.

    Raises:
        ConfigError: A setting is out of range.
        WeightsError: The weights cannot be loaded.
        MHNetVideoError: A measurement fails.
    """
    sizes = tuple(sizes)
    if isa is not None and isa not in ISAS:
        raise ConfigError(f"isa must be one of {', '.join(ISAS)}, not {isa}")
    if frames < _MIN_FRAMES:
        raise ConfigError(f"frames must be at least {_MIN_FRAMES}, not {frames}")
    for width, height in sizes:
        if min(width, height) < 16 or width % 2 or height % 2:
            raise ConfigError(f"sides must be even and at least 16, not {width}x{height}")
    environment = {**os.environ, **_ENVIRONMENTS.get(isa or "", {})}
    with tempfile.TemporaryDirectory(prefix="mhnet-video-bench-") as folder:
        on_log("peak rates of this machine")
        reply = _child("machine", environment, model=model, weights=weights)
        results = []
        for width, height in sizes:
            size = f"{width}x{height}"
            clip = str(Path(folder) / f"{size}.mp4")
            of_clip = {"clip": clip, "name": reply["model"]}
            on_log(f"{size}: a clip of {frames} frames")
            _child("clip", environment, clip=clip, width=width, height=height, frames=frames)
            on_log(f"{size}: the network")
            network = _child("network", environment, peaks=reply["peaks"], **of_clip)
            on_log(f"{size}: other runtimes")
            runtimes = _child("runtimes", environment, **of_clip)
            on_log(f"{size}: the stages")
            told_stages = _child("stages", environment, **of_clip)
            stages = {stage: Spread.of(times) for stage, times in told_stages.items()}
            on_log(f"{size}: from file to file")
            cores = [peak["threads"] for peak in reply["peaks"]]
            results.append(
                SizeResult(
                    width=width,
                    height=height,
                    macs=network["macs"],
                    engines=tuple(_engine_row(row) for row in network["rows"]),
                    runtimes=tuple(_runtime_rows(runtimes["rows"])),
                    runtimes_obstacle=runtimes["obstacle"],
                    stages=stages,
                    whole=tuple(_measure_whole(environment, of_clip, cores, stages)),
                )
            )
    return BenchResult(
        model=reply["model"],
        machine=reply["machine"],
        frames=frames,
        peaks=tuple(Peak(**peak) for peak in reply["peaks"]),
        sizes=tuple(results),
    )


def _engine_row(row: dict[str, Any]) -> EngineRow:
    times = row.pop("times")
    return EngineRow(**row, ms=Spread.of(times) if times else None)


def _runtime_rows(rows: list[dict[str, Any]]) -> Iterable[RuntimeRow]:
    """Add the ratios between medians that were measured in turns."""
    spreads = [Spread.of(times) if (times := row.pop("times")) else None for row in rows]
    medians: dict[str, list[float]] = {}
    for row, ms in zip(rows, spreads, strict=True):
        if ms is not None:
            medians.setdefault(row["runtime"], []).append(ms.median)
    if not medians:
        return  # none is installed, and the report says so
    eager, llvm = medians["torch"][0], min(medians.get("llvm", []), default=None)
    for row, ms in zip(rows, spreads, strict=True):
        yield RuntimeRow(
            **row,
            ms=ms,
            speedup=None if ms is None else eager / ms.median,
            of_llvm=None if ms is None or llvm is None else ms.median / llvm,
        )


def _measure_whole(
    environment: dict[str, str],
    of_clip: dict[str, Any],
    numbers: list[int],
    stages: dict[str, Spread],
) -> Iterable[WholeRow]:
    # the other rows are parts of a stage, or other ways through it
    slowest_ms = max(stages[name].median for name in _STAGES)
    runs: dict[int, list[dict[str, Any]]] = {cores: [] for cores in numbers}
    for _ in range(_RUNS):  # in turns, so that a slower machine slows all of them
        for cores, reply in runs.items():
            began = time.monotonic()
            reply.append(_child("whole", environment, cores=cores, began=began, **of_clip))
    for cores, reply in runs.items():
        fps = Spread.of([run["fps"] for run in reply])
        yield WholeRow(
            cores=cores,
            engine=reply[0]["engine"],
            fps=fps,
            first_frame_seconds=Spread.of([run["first_frame_seconds"] for run in reply]).median,
            peak_bytes=max((run["peak_bytes"] for run in reply if run["peak_bytes"]), default=None),
            overlap=slowest_ms * fps.median / 1e3 if cores == max(numbers) else None,
        )


def _child(job: str, environment: dict[str, str], **arguments: Any) -> Any:
    """Run a job of `measure.py` in a new process, and return its result.

    Raises:
        MHNetVideoError: The job fails or exceeds its time; an error of the job keeps its type.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from mhnet_video.pipelines.measure import work; work()"],
            input=json.dumps({"job": job, **arguments}),
            # so that the process finds the package where this one did
            env={**environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            text=True,
            capture_output=True,
            check=False,
            timeout=_MOST_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise MHNetVideoError(
            f"measuring ({job}) was not done after {_MOST_SECONDS:.0f} s; take a smaller --size"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise MHNetVideoError(f"measuring ({job}) failed: {last}")
    reply = json.loads(done.stdout.splitlines()[-1])
    if "error" in reply:
        raise getattr(errors, reply["error_type"])(reply["error"])
    return reply


def to_lines(result: BenchResult) -> list[str]:
    """The result as Markdown, for a terminal and for a document."""
    lines = [f"{result.model} on {', '.join(result.machine.values())}", ""]
    for peak in result.peaks:
        threads = f"{peak.threads} thread{'' if peak.threads == 1 else 's'}"
        rates = [f"{dtype} {rate:.0f} GFLOP/s" for dtype, rate in peak.gflops.items()]
        rates.append(f"copy {peak.copy_gbs:.0f} GB/s")
        lines.append(f"- peak of {threads}: {', '.join(rates)}")
    for size in result.sizes:
        lines += ["", f"{size.width}x{size.height}, {size.macs / 1e9:.2f} GMAC a frame:", ""]
        names = "network, threads, ms a frame, 20 to 80 %, times eager, of peak, of copy, result"
        lines += _table(names, [_engine_cells(row) for row in size.engines])
        if size.runtimes:
            names = "runtime, frames at once, ms a frame, 20 to 80 %, times eager, of llvm, result"
            lines += ["", *_table(names, [_runtime_cells(row) for row in size.runtimes])]
        else:
            lines += ["", f"no other runtimes: {size.runtimes_obstacle}"]
        rows = [[name, f"{ms.median:.1f}", _range(ms)] for name, ms in size.stages.items()]
        lines += ["", *_table("stage alone, ms a frame, 20 to 80 %", rows)]
        names = "file to file, cores, frames a second, 20 to 80 %, first frame, memory, overlap"
        lines += ["", *_table(names, [_whole_cells(row) for row in size.whole])]
    return lines


def _engine_cells(row: EngineRow) -> list[str]:
    name = f"{row.engine} ({row.detail})"
    if row.ms is None:
        return [name, str(row.threads), *[""] * 6]
    return [
        name,
        str(row.threads),
        f"{row.ms.median:.1f}",
        _range(row.ms),
        f"{row.speedup:.1f}",
        f"{row.of_peak:.0%}",
        f"{row.of_copy:.0%}",
        _nearness(row.psnr),
    ]


def _runtime_cells(row: RuntimeRow) -> list[str]:
    name = f"{row.runtime} ({row.detail})"
    if row.ms is None:
        return [name, str(row.concurrency), *[""] * 5]
    return [
        name,
        str(row.concurrency),
        f"{row.ms.median:.1f}",
        _range(row.ms),
        f"{row.speedup:.1f}",
        "" if row.of_llvm is None else f"{row.of_llvm:.2f}",
        _nearness(row.psnr),
    ]


def _nearness(psnr: float | None) -> str:
    return f"{psnr:.0f} dB" if psnr is not None and psnr < 100 else "equal"


def _whole_cells(row: WholeRow) -> list[str]:
    return [
        row.engine,
        str(row.cores),
        f"{row.fps.median:.1f}",
        _range(row.fps),
        f"{row.first_frame_seconds:.1f} s",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f} MB",
        "" if row.overlap is None else f"{row.overlap:.2f}",
    ]


def _table(names: str, rows: list[list[str]]) -> list[str]:
    """A Markdown table, the first column to the left and the others to the right."""
    cells = [names.split(", "), *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return [
        f"| {first.ljust(widths[0])} | "
        + " | ".join(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        + " |"
        for first, *rest in cells
    ]


def _range(spread: Spread) -> str:
    return f"{spread.low:.1f} to {spread.high:.1f}"
