"""The same network in other runtimes, for the benchmark: OpenVINO and ONNX Runtime.

All of them get windows that are not aligned, because the network alone is compared. Every window
has frames of its own, so that no runtime can reuse what it did before. The packages are those of
the extra `compare`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mhnet_video.engines.base import Engine, TorchEngine
from mhnet_video.engines.select import resolve_engine
from mhnet_video.errors import ConfigError
from mhnet_video.model.network import MHNet
from mhnet_video.model.window import Window, stacked
from mhnet_video.pipelines.onnx_graph import PACKAGES, missing_packages, to_onnx

WINDOWS = 4
"""Windows that are measured, in turn."""


class Runtime(NamedTuple):
    """A runtime, ready to run the network on the measured windows."""

    name: str
    detail: str
    """Element type or instructions."""
    concurrency: int
    """Windows in flight at once; 1 if each waits for the one before."""
    run: Callable[[], list[Tensor]]
    """Computes the residuals of `jobs(concurrency)`, `[3, H, W]` float32 each."""


def jobs(concurrency: int) -> list[int]:
    """The windows of one measurement by their index, two for each that is in flight.

    No two in succession are the same in what is in flight, so that nothing can be reused.
    """
    return [(job % concurrency + job // concurrency) % WINDOWS for job in range(2 * concurrency)]


def runtimes_obstacle() -> str:
    """Why the comparison cannot run on this machine; empty if it can."""
    if missing := missing_packages((*PACKAGES, "openvino")):
        return f"{missing} not installed; pip install 'mhnet-video[compare]'"
    if os.environ.get("MHNET_CPU_ISA") == "avx2":
        return "OpenVINO and ONNX Runtime cannot be held to AVX2"
    return ""


def runtimes(network: MHNet, windows: Sequence[Window], threads: int) -> Iterator[Runtime]:
    """Every way to run the network with so many threads, PyTorch's float32 first.

    Args:
        network: In evaluation mode, on the CPU.
        windows: `WINDOWS` of them, of one size.
        threads: That each runtime may use.
    """
    torch.set_num_threads(threads)
    height, width = windows[0][0].shape[1:]  # type: ignore[union-attr]
    yield Runtime("torch", "float32", 1, partial(_in_lanes, [TorchEngine(network)], windows))
    try:
        choice = resolve_engine(network, "llvm")
    except ConfigError:
        pass  # the table of engines says why
    else:
        lanes = choice.engine.lanes(height * width)
        for engines in ([choice.engine], lanes) if len(lanes) > 1 else ([choice.engine],):
            run = partial(_in_lanes, engines, windows)
            yield Runtime("llvm", choice.reason, len(engines), run)
    model = to_onnx(network, (width, height), aligns=False)
    arrays = [stacked(window).flatten(0, 1)[None].contiguous().numpy() for window in windows]
    yield from _openvino(model, arrays, threads)
    yield _onnxruntime(model, arrays, threads)


def _in_lanes(lanes: Sequence[Engine], windows: Sequence[Window]) -> list[Tensor]:
    """Each lane in a thread of its own."""
    order, count = jobs(len(lanes)), len(lanes)

    def work(lane: int) -> list[Tensor]:
        return [lanes[lane].residual(windows[index]) for index in order[lane::count]]

    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(work, range(count))) if count > 1 else [work(0)]
    return [results[job % count][job // count] for job in range(len(order))]


def _openvino(model: bytes, arrays: Sequence[Any], threads: int) -> Iterator[Runtime]:
    """OpenVINO with its hints for latency and for throughput, in every precision of this CPU."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in ("f32", "bf16") if has_bfloat16 else ("f32",):
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
        for hint in ("LATENCY", "THROUGHPUT"):
            compiled = core.compile_model(network, "CPU", {**settings, "PERFORMANCE_HINT": hint})
            requests = 1
            if hint == "THROUGHPUT":
                optimal = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
                requests = min(optimal, threads)
                if requests == 1:
                    continue  # it is what the hint for latency does
            queue = openvino.AsyncInferQueue(compiled, requests)
            run = partial(_in_queue, queue, arrays, requests)
            yield Runtime("OpenVINO", precision, requests, run)


def _in_queue(queue: Any, arrays: Sequence[Any], requests: int) -> list[Tensor]:
    """As many requests at once as the queue holds."""
    results: dict[int, Tensor] = {}

    def keep(request: Any, job: int) -> None:
        results[job] = torch.from_numpy(request.get_output_tensor(0).data[0].copy())

    queue.set_callback(keep)
    for job, index in enumerate(jobs(requests)):
        queue.start_async({0: arrays[index]}, job, share_inputs=True)
    queue.wait_all()
    return [results[job] for job in sorted(results)]


def _onnxruntime(model: bytes, arrays: Sequence[Any], threads: int) -> Runtime:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run() -> list[Tensor]:
        outputs = [session.run(["residual"], {"window": arrays[index]})[0] for index in jobs(1)]
        return [torch.from_numpy(output[0]) for output in outputs]

    return Runtime("ONNX Runtime", "float32", 1, run)
