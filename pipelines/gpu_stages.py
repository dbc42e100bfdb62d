"""What the stages of `gpu_check` measure: each a generator of rows, run in a process of its own.

`python -m mhnet_video.pipelines.gpu_stages NAME --rows FILE` appends a line of JSON for each row.
"""

import argparse
import ctypes
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from mhnet_video.engines.triton.autotune import measure_fronts
from mhnet_video.engines.triton.engine import TritonEngine, best_dtype
from mhnet_video.engines.triton.memory_traffic import launches, symbolic_graph
from mhnet_video.engines.triton.programs import distinct
from mhnet_video.engines.triton.weight_packing import MapType
from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.kernels.dispatch import Launch
from mhnet_video.media.frames.pixel_formats import layout_of
from mhnet_video.model.align import align_maps
from mhnet_video.pipelines.bench_gpu import (
    is_right,
    kernel_sizes,
    measure_files,
    measure_streams,
    restore_fps,
)
from mhnet_video.pipelines.bench_kernels import Clock, describe, measure_kernels, measure_machine
from mhnet_video.pipelines.bench_networks import (
    NetworkCase,
    measure_networks,
    measure_parts,
    measure_programs,
    network_of,
    networks,
)
from mhnet_video.pipelines.bench_scene import make_frames
from mhnet_video.pipelines.stage_runner import part_of
from mhnet_video.restoration.gpu_layout import NUM_COLORS, FrameFormat
from mhnet_video.restoration.restorer import Restorer

RUNS = 20
"""Runs of one window whose results must be equal in every bit."""
_CHECKED = 2
"""Index of the frame whose result is checked."""
_LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1")
"""Libraries of the driver: CUDA, the decoder and the encoder."""


class StageContext:
    """What a stage measures, and its settings.

    Args:
        is_dry: Whether tiny sizes run on the CPU instead.
        part: Which part of the work this process does, from 1 on, and of how many.
        seconds: When to begin nothing more.
    """

    def __init__(self, is_dry: bool, part: tuple[int, int], seconds: float) -> None:
        self.is_dry, self.part = is_dry, part
        self.device = torch.device("cpu" if is_dry else "cuda")
        self.clock = Clock(self.device, 0.0 if is_dry else 0.3)
        self.deadline = time.monotonic() + seconds

    def machine(self) -> dict[str, Any]:
        """Rates of this machine, measured again: each process is on its own."""
        return measure_machine(self.clock, self.is_dry)

    def cases(self, *heights: int) -> list[NetworkCase]:
        """Every network at every size, the largest network first."""
        names = list(reversed(networks()))
        if self.is_dry:
            return [(names[-1], 5, 33)]
        return [(name, height, height * 16 // 9) for height in heights for name in names]


def _machine(context: StageContext) -> Iterator[dict[str, Any]]:
    """Versions, libraries and rates."""
    yield context.machine() | {"threads": os.cpu_count(), "torch_cuda": torch.version.cuda}
    yield {"ptxas": _said([_ptxas(), "--version"])}
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm"
    yield {"nvidia-smi": _said(["nvidia-smi", query, "--format=csv,noheader"])}
    import av

    yield {"av": av.__version__, "ffmpeg": str(av.library_versions["libavcodec"])}
    for name in _LIBRARIES:
        try:
            ctypes.CDLL(name)
            yield {"library": name, "is_there": True}
        except OSError:
            yield {"library": name, "is_there": False}


def _ptxas() -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas")


def _said(command: list[str]) -> str:
    """The last line of a command's output, or why there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return describe(error)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def network_launches(name: str, height: int, width: int, dtype: torch.dtype) -> list[Launch]:
    """The launches of a network's frames and of every variant of its blocks' first halves."""
    config = networks()[name]
    found: list[Launch] = []
    widths = [config.width * 2**level for level in range(4)]
    for front in (None, "split", "dense", "rows"):
        fronts: dict[int, Any] = {
            each: front
            for each in widths
            if front and (front == "split" or each <= 64)
            if front != "rows" or map_ops.block_front_rows_fits(each, dtype)
        }
        graph = symbolic_graph(config, height, width, dtype, fronts=fronts or None)
        found += [launch for _, launch in launches(graph)]
    with dispatch.recording() as launched:
        for name in ("yuv420p", "yuv420p10le"):
            layout = layout_of(name)
            assert layout is not None
            form = FrameFormat.planar(layout, height, width)
            ring = torch.empty(5, form.size, dtype=form.sample_dtype, device="meta")
            colors = torch.empty(5, NUM_COLORS, device="meta")
            slots = torch.empty(1, config.frames, dtype=torch.int32, device="meta")
            flags = torch.empty(1, dtype=torch.int32, device="meta")
            form.read(ring, slots, colors, graph.input, config.patch)
            form.apply(ring, slots, colors, graph.residual, ring[:1], flags)
            if config.align:
                align_maps(torch.empty_like(graph.input), config.frames, config.patch, graph.input)
    return found + launched


def _programs(context: StageContext) -> Iterator[dict[str, Any]]:
    """Compile a part of all programs into the cache of all stages."""
    dtype = torch.bfloat16 if context.is_dry else best_dtype(context.device)
    sizes = [(96, 128)] if context.is_dry else [(1080, 1920), (2160, 3840)]
    every = [
        launch
        for name, (height, width) in itertools.product(networks(), sizes)
        for launch in network_launches(name, height, width, dtype)
    ]
    for launch in part_of(*context.part, distinct(every)):
        row: dict[str, Any] = {"program": launch.name, "warps": launch.num_warps}
        row["constants"] = {key: str(value) for key, value in launch.constants.items()}
        begin = time.monotonic()
        try:
            if not context.is_dry:
                launch.compile()
        except Exception as error:  # the others may compile
            row["failed"] = describe(error)
        yield row | {"seconds": time.monotonic() - begin}


def _networks(context: StageContext, *heights: int) -> Iterator[dict[str, Any]]:
    """Each network against float32, its graph's time, and that of its parts."""
    machine = context.machine()
    for case in context.cases(*heights):
        yield from measure_networks(context.clock, [case], machine, context.deadline)
        if time.monotonic() < context.deadline:
            yield from measure_programs(context.clock, case, runs=1 if context.is_dry else 10)
        if not context.is_dry and time.monotonic() < context.deadline:
            yield from measure_parts(context.clock, case)


def _same(context: StageContext) -> Iterator[dict[str, Any]]:
    """One window several times: all results must be equal in every bit."""
    for name, height, width in context.cases(1080):
        network = network_of(name, context.device)
        engine = TritonEngine(network)
        window = torch.rand(1, 3 * engine.config.frames, height, width, device=context.device)
        first = engine.residuals(window)
        runs = 1 if context.is_dry else RUNS
        differ = sum(not torch.equal(first, engine.residuals(window)) for _ in range(runs))
        row: dict[str, Any] = {"network": name, "size": [width, height], "runs": runs}
        yield row | ({"failed": f"{differ} of {runs} runs differ"} if differ else {})


def _restorers(context: StageContext, *heights: int) -> Iterator[dict[str, Any]]:
    """`Restorer` from host memory to host memory, with and without its temporal filter."""
    names = [name for name in networks() if name != "paper"]
    sizes = [(48, 64)] if context.is_dry else [(height, height * 16 // 9) for height in heights]
    for name, (height, width) in itertools.product(names[:1] if context.is_dry else names, sizes):
        frames = make_frames(4 if context.is_dry else 60, height, width)
        for is_filtered in (False, True):
            row: dict[str, Any] = {"network": name, "size": [width, height]}
            row["temporal_filter"] = is_filtered
            network = network_of(name, context.device)
            device = context.device.type
            restorer = Restorer(network, device=device, is_filtered=is_filtered)
            row["engine"] = restorer.engine.name
            if not is_filtered:
                found = list(itertools.islice(restorer.stream(frames), _CHECKED + 1))[-1]
                if not is_right(found.planes, frames, _CHECKED, network):
                    yield row | {"failed": "wrong result"}
                    continue
            yield row | {"fps": restore_fps(frames, restorer)}


def _fronts(context: StageContext) -> Iterator[dict[str, Any]]:
    """Every variant of a block's first half at every size that its channels occur at."""
    map_type = MapType(best_dtype(context.device), context.device)
    sizes = [(6, 10)] if context.is_dry else [(1088, 1920), (544, 960), (272, 480)]
    for channels, (height, width) in itertools.product((16, 32, 64), sizes):
        times = measure_fronts(
            channels,
            map_type,
            lambda work: context.clock.milliseconds(work)["median"],
            height,
            width,
        )
        yield {"fronts": times, "channels": channels, "size": [width, height]}


def _streams(context: StageContext) -> Iterator[dict[str, Any]]:
    """The frame pipeline from host memory to host memory."""
    count = 8 if context.is_dry else 300
    yield from measure_streams(context.clock, context.cases(1080, 2160), count, context.deadline)


def _files(context: StageContext) -> Iterator[dict[str, Any]]:
    """File to file."""
    cases = [case for case in context.cases(1080, 2160) if case[0] != "paper"]
    if context.is_dry:
        cases = [(cases[0][0], 64, 64)]
    count = 3 if context.is_dry else 240
    yield from measure_files(context.clock, cases, count, context.deadline)


def _kernels(context: StageContext) -> Iterator[dict[str, Any]]:
    """Every operation against PyTorch's."""
    yield from measure_kernels(
        context.clock, kernel_sizes(context.is_dry), context.machine(), context.deadline
    )


STAGES: Mapping[str, Callable[[StageContext], Iterator[dict[str, Any]]]] = {
    "machine": _machine,
    "programs": _programs,
    "networks": lambda context: _networks(context, 1080),
    "networks-4k": lambda context: _networks(context, 2160),
    "same": _same,
    "restorers": lambda context: _restorers(context, 1080),
    "restorers-4k": lambda context: _restorers(context, 2160),
    "fronts": _fronts,
    "streams": _streams,
    "files": _files,
    "kernels": _kernels,
}
"""The stages by name."""


@torch.inference_mode()
def run_stage(name: str, context: StageContext, rows: Path) -> bool:
    """Append the rows of a stage to a file, each as soon as it is measured; whether none failed."""
    is_good = True
    with rows.open("a", encoding="utf-8") as file:
        for row in STAGES[name](context):
            is_good &= "failed" not in row
            file.write(json.dumps(row) + "\n")
            file.flush()
    return is_good


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the status to exit with."""
    parser = argparse.ArgumentParser(prog="gpu_stages", description=__doc__)
    parser.add_argument("name", choices=list(STAGES))
    parser.add_argument("--rows", type=Path, required=True, help="where the rows go")
    parser.add_argument("--part", default="1/1", help="which part of the work to do, as in 2/6")
    parser.add_argument("--seconds", type=float, default=600.0, help="when to begin nothing more")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, on the CPU")
    options = parser.parse_args(arguments)
    number, _, count = options.part.partition("/")
    torch.backends.cudnn.allow_tf32 = False  # float32 is what results are judged by
    if options.dry:
        torch.set_num_threads(1)  # Triton's interpreter is nothing for two frames at a time
    context = StageContext(options.dry, (int(number), int(count)), options.seconds)
    with dispatch.on_cpu() if options.dry else nullcontext():
        return 0 if run_stage(options.name, context, options.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
