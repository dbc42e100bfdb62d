"""Measure the GPU path: kernels, networks, streams and files, each checked before it is timed.

`python -m mhnet_video.pipelines.bench_gpu FILE` writes all figures to one JSON file, again after
every row, so that a run that is cut short leaves what it had; `--seconds` says when to begin
nothing more. `--dry` runs the same code on tiny sizes in Triton's interpreter, on no GPU at all;
its times mean nothing.
"""

import argparse
import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mhnet_video.config import RestoreConfig, Settings
from mhnet_video.engines.triton.engine import TritonEngine
from mhnet_video.frame import Frame, Plane
from mhnet_video.kernels import dispatch
from mhnet_video.media.encoders.encoder import working_encoders
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.writer import VideoWriter
from mhnet_video.memory import give_back_device_memory
from mhnet_video.model.network import MHNet
from mhnet_video.pipelines.bench_cases import PICTURE
from mhnet_video.pipelines.bench_compile import add_compiled, compiler
from mhnet_video.pipelines.bench_kernels import Clock, measure_kernels, measure_machine
from mhnet_video.pipelines.bench_networks import NetworkCase, measure_networks, network_of, networks
from mhnet_video.pipelines.bench_scene import make_frames, write_clip
from mhnet_video.pipelines.bench_table import to_lines
from mhnet_video.pipelines.restore import Progress, restore_video
from mhnet_video.pipelines.stage_runner import write_json
from mhnet_video.restoration.gpu_backend import CudaBackend, HostBackend
from mhnet_video.restoration.gpu_executor import batch_of, network_step
from mhnet_video.restoration.gpu_layout import format_of
from mhnet_video.restoration.gpu_pipeline import FramePipeline
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.temporal_window import FrameWindow, Neighbours, NetworkImage

SECONDS = 540.0
"""Seconds after which no row begins. The last third is for compiled references."""
KERNEL_SIZES = [
    (PICTURE, 1080, 1920),
    (16, 544, 960),
    (32, 544, 960),
    (64, 1088, 1920),
    (512, 136, 240),
]
"""Channels, height and width of the maps of each kernel's row."""
_DRY_SIZES = [(PICTURE, 6, 10), (16, 4, 6)]
"""Those of a dry run."""
_STAGE_FRAMES = 60
"""Frames in memory for the measurement of a separate stage."""
_RESULT_SECONDS = 20.0
"""Seconds that one frame may take on its way through the pipeline."""
_CHECKED = 2
"""Index of the frame whose result is checked before a time is reported."""


def kernel_sizes(dry: bool) -> list[tuple[int, int, int]]:
    """Channels, height and width of the maps of the kernels' rows."""
    return _DRY_SIZES if dry else KERNEL_SIZES


def is_right(
    planes: Sequence[Plane] | None, frames: Sequence[Frame], index: int, network: MHNet
) -> bool:
    """Whether a restored frame equals that of PyTorch in float32, except for rounding.

    Args:
        planes: Of the frame; None if there was no result.
        frames: The film.
        index: The frame's place in it.
        network: What restores.
    """
    if planes is None:
        return False
    device = next(network.parameters()).device
    with dispatch.off():
        plain = Restorer(network, device=str(device), engine="torch").restore_frame(frames, index)
    for found, expected, source in zip(planes, plain.planes, frames[index].planes, strict=True):
        error, change = (
            np.sqrt(np.mean((each.astype(float) - expected) ** 2)) for each in (found, source)
        )
        # a sample's own rounding, or what bfloat16 leaves of a large change, with room
        if error > max(1.0, change / 10):
            return False
    return True


def measure_streams(
    clock: Clock, cases: list[NetworkCase], num_frames: int, deadline: float
) -> Iterator[dict[str, Any]]:
    """Measure frames in host memory to frames in host memory: everything but the codec.

    Args:
        clock: Has the device; without a GPU the streams are the host's.
        cases: Networks, and sizes of the frames.
        num_frames: Frames of each measurement.
        deadline: When to begin nothing more, in seconds of `time.monotonic`.
    """
    on_gpu = clock.device.type == "cuda"
    # Triton's interpreter takes a minute for a network
    with nullcontext() if on_gpu else dispatch.off():
        for case in cases:
            if time.monotonic() > deadline:
                return
            yield from _stream_rows(clock, case, num_frames)


def _stream_rows(clock: Clock, case: NetworkCase, num_frames: int) -> Iterator[dict[str, Any]]:
    """The row of one network and size."""
    name, height, width = case
    on_gpu = clock.device.type == "cuda"
    row: dict[str, Any] = {"network": name, "size": [width, height]}
    network = network_of(name, clock.device)
    engine = TritonEngine(network)
    seen = engine.config.frames
    frames = make_frames(16 if on_gpu else seen + 1, height, width)
    form = format_of(frames[0])
    batch = batch_of(form, engine.config.patch) if on_gpu else 1
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(clock.device)
    pipeline = FramePipeline(
        CudaBackend(clock.device) if on_gpu else HostBackend(),
        form,
        seen,
        partial(network_step, engine, form),
        batch=batch,
    )
    first = [each for window in _windows(frames, seen) for each in pipeline.push(window)]
    first += pipeline.flush()
    if not is_right(first[_CHECKED].planes, frames, _CHECKED, network):
        yield row | {"failed": "wrong result"}
        return
    begin = time.perf_counter()
    done = 0
    for window in _windows(itertools.islice(itertools.cycle(frames), num_frames), seen):
        done += len(pipeline.push(window))
    done += len(pipeline.flush())
    seconds = time.perf_counter() - begin
    alone = clock.milliseconds(pipeline._step)["median"] / batch
    row |= {
        "batch": batch,
        "fps": done / seconds,
        "network_ms": alone,
        "overlap": alone * done / seconds / 1000,
    }
    if on_gpu:
        row["peak_memory"] = torch.cuda.max_memory_allocated(clock.device)
    if batch == 1:
        try:
            row["latency_ms"] = _latency(clock, pipeline, frames, seen)
        except TimeoutError as error:
            row["failed"] = str(error)
    yield row


def _windows(frames: Iterable[Frame], width: int) -> Iterator[FrameWindow]:
    """Windows of new frames, of which none is in the ring; incomplete ones are omitted."""
    neighbours: Neighbours[NetworkImage] = Neighbours(width)
    for frame in frames:
        for pictures in neighbours.push(NetworkImage(frame, 1.0)):
            yield FrameWindow(pictures[width // 2].frame, Settings(), list(pictures))


def _latency(
    clock: Clock, pipeline: FramePipeline, frames: list[Frame], width: int
) -> dict[str, float]:
    """From the last frame that a result needs to that result, nothing else under way."""
    windows = _windows(itertools.cycle(frames), width)
    for window in itertools.islice(windows, len(frames)):
        pipeline.push(window)
    clock.wait()
    pipeline._ready()

    def one() -> None:
        results = pipeline.push(next(windows))
        end = time.monotonic() + _RESULT_SECONDS
        while not results:
            if time.monotonic() > end:
                raise TimeoutError(f"no frame came back within {_RESULT_SECONDS:.0f} s")
            results = pipeline._ready()

    return clock.host_milliseconds(one)


class _Log(logging.Handler):
    """Collects log messages, such as that no decoder on the GPU is available."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def measure_files(
    clock: Clock, cases: list[NetworkCase], num_frames: int, deadline: float
) -> Iterator[dict[str, Any]]:
    """Measure file to file, each separate stage, and all without the network.

    Args:
        clock: Has the device.
        cases: Networks, and sizes of the clips that are written for them.
        num_frames: Of each clip.
        deadline: When to begin nothing more, in seconds of `time.monotonic`.
    """
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
            network = network_of(name, clock.device)
            restorer = Restorer(network, device=clock.device.type)
            frames = _frames_of(clip)
            found = list(itertools.islice(restorer.stream(frames), _CHECKED + 1))[-1]
            if not is_right(found.planes, frames, _CHECKED, network):
                yield {"network": name, "size": [width, height], "failed": "wrong result"}
                continue
            log.lines.clear()
            alone = {
                "decode_fps": _decode_fps(clip, restorer.gpu),
                "restore_fps": restore_fps(frames, restorer),
            }
            said = list(log.lines)
            for encoder in encoders:
                log.lines[:] = said
                row: dict[str, Any] = {"network": name, "size": [width, height]}
                row |= {"encoder": encoder, "engine": restorer.engine.name}
                config = RestoreConfig(encoder=encoder, overwrite=True)
                row |= alone | {"encode_fps": _encode_fps(frames, clip, out, encoder)}
                for key, strength in (("fps", 1.0), ("codecs_fps", 0.0)):
                    restorer.strength = strength
                    row[key] = _steady_fps(clip, out, config, restorer)
                restorer.strength = 1.0
                # the time of the slowest stage over that of all of them together
                row["overlap"] = row["fps"] / min(*alone.values(), row["encode_fps"])
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


def _frames_of(clip: Path) -> list[Frame]:
    with VideoReader(clip) as reader:
        frames = (item for item in reader if isinstance(item, Frame))
        return list(itertools.islice(frames, _STAGE_FRAMES))


def restore_fps(frames: list[Frame], restorer: Restorer) -> float:
    """Frames a second from host memory to host memory, in the middle of a film."""
    restored = restorer.stream(itertools.cycle(frames))
    for _ in frames:  # compiles, records graphs, and fills the pipeline
        next(restored)
    begin = time.perf_counter()
    for _ in frames:
        next(restored)
    return len(frames) / (time.perf_counter() - begin)


def _encode_fps(frames: list[Frame], clip: Path, out: Path, encoder: str) -> float:
    """From host memory to the complete file."""
    with (
        VideoReader(clip) as reader,
        VideoWriter(out, reader, encoder=encoder, overwrite=True) as writer,
    ):
        begin = time.perf_counter()
        for frame in frames:
            writer.write(frame)
        writer.finish()
        return len(frames) / (time.perf_counter() - begin)


def _steady_fps(clip: Path, out: Path, config: RestoreConfig, restorer: Restorer) -> float:
    """Frames a second from when a part of them is written: without compilers and graphs."""
    progress: list[Progress] = []
    report = restore_video(clip, out, config, on_progress=progress.append, restorer=restorer)
    begin = next((each for each in progress if each.frames > report.frames // 8), None)
    if begin is None or begin.frames >= report.frames:
        return report.frames / report.seconds
    return (report.frames - begin.frames) / (progress[-1].seconds - begin.seconds)


@torch.inference_mode()
def bench_gpu(path: Path | None, *, dry: bool = False, seconds: float = SECONDS) -> dict[str, Any]:
    """Run the benchmark, and write its file after every row.

    Args:
        path: The JSON file; None for none.
        dry: Whether to run tiny sizes on the CPU instead.
        seconds: When to begin nothing more; what is under way ends by itself, but for what is
            compiled, which is ended.
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
            write_json(path, figures)

    machine = measure_machine(clock, dry)
    save("machine", machine)
    names = list(networks())
    if dry:
        # no smaller film: such frames are aligned by the interpreter, which takes a minute
        cases, files = [(names[0], 5, 33)], [(names[0], 64, 64)]
    else:
        cases = [(name, 1080, 1920) for name in reversed(names)]
        files = cases
        cases = cases + [(name, 2160, 3840) for name in names[:-1]]
    # compiling takes an unknown time, so that it comes last and has a share of its own
    part = deadline - seconds / 3
    sections: list[tuple[str, Iterator[dict[str, Any]]]] = [
        ("networks", measure_networks(clock, cases, machine, part)),
        ("streams", measure_streams(clock, cases, 6 if dry else 300, part)),
        ("files", measure_files(clock, files, _CHECKED + 1 if dry else 240, part)),
        ("kernels", measure_kernels(clock, kernel_sizes(dry), machine, part)),
    ]
    for section, rows in sections:
        found: list[dict[str, Any]] = []
        save(section, found)
        for row in rows:
            found.append(row)
            save(section, found)
    if not dry:
        give_back_device_memory()
    # of the networks the smallest and the largest: the others lie between
    few: list[dict[str, Any]] = [
        next((row for row in figures["networks"] if row["network"] == name), {})
        for name in (names[0], names[-1])
    ]
    with closing(compiler(dry)) as asked:
        for _ in add_compiled(figures["kernels"], asked, 0.25, deadline - seconds / 6):
            save("kernels", figures["kernels"])
        for _ in add_compiled(few, asked, 0.75, deadline):
            save("networks", figures["networks"])
    return figures


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the status to exit with."""
    parser = argparse.ArgumentParser(prog="bench_gpu", description=__doc__)
    parser.add_argument("file", type=Path, help="where the figures go")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="when to begin nothing more")
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        sys.stderr.write("bench_gpu: there is no GPU that PyTorch can use; --dry needs none\n")
        return 1
    if options.dry:
        torch.set_num_threads(1)  # Triton's interpreter is nothing for two frames at a time
    with dispatch.on_cpu() if options.dry else nullcontext():
        figures = bench_gpu(options.file, dry=options.dry, seconds=options.seconds)
    sys.stdout.write("\n".join(to_lines(figures)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
