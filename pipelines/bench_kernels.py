"""The GPU benchmark of kernels: each is checked and timed against its reference implementation."""

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mhnet_video.engines.triton.autotune import event_milliseconds
from mhnet_video.engines.triton.cuda_graph import record
from mhnet_video.engines.triton.engine import best_dtype
from mhnet_video.kernels import dispatch
from mhnet_video.pipelines.bench_cases import kernel_cases

LEAST_DECIBELS = 40.0
"""Least signal-to-error ratio of a result whose time is reported, against float32, in dB (see
`decibels`). PyTorch's own operations in bfloat16 have 45 to 51."""


_CALLS = 10
"""Calls that are timed as one, so that starting them counts little."""
_ROTATED_BYTES = 1 << 27
"""Bytes of the inputs that calls in turn have: more than the caches of a GPU hold."""


class DeviceTimer:
    """Times work on a GPU by its own clock.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def captured(self, work: Callable[[], Any]) -> Callable[[], Any] | None:
        """A CUDA graph of work that has run before; None if it cannot be recorded."""
        stream: torch.cuda.Stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            return record(work, stream)
        except RuntimeError:  # what waits, or replays a graph itself
            return None

    def milliseconds(self, work: Callable[[], Any]) -> float:
        """See `event_milliseconds`."""
        return event_milliseconds(work)


class Clock:
    """Times work on a device.

    Args:
        device: A GPU, or the CPU.
        seconds: How long a measurement takes.
        timer: Measures on a GPU; None for its own clock.
    """

    def __init__(
        self, device: torch.device, seconds: float, timer: DeviceTimer | None = None
    ) -> None:
        self.device, self.seconds = device, seconds
        self._timer = timer or (DeviceTimer(device) if device.type == "cuda" else None)

    def wait(self) -> None:
        """Wait until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, *works: Callable[[], Any]) -> dict[str, float]:
        """Median and 20th and 80th percentile of a call.

        On a GPU ten calls are one CUDA graph, or follow one another where they cannot be recorded,
        and the GPU's clock times all ten.

        Args:
            works: The call; of several, which do the same on other memory, each in turn.
        """
        if self._timer is None:
            return self.host_milliseconds(works[0])
        timer = self._timer

        def calls() -> None:
            for index in range(_CALLS):
                works[index % len(works)]()

        for _ in range(2):  # compiles, and fills the caches of allocators
            calls()
        run = timer.captured(calls) or calls
        timer.milliseconds(run)
        return self._spread(lambda: timer.milliseconds(run) / _CALLS)

    def host_milliseconds(self, work: Callable[[], Any]) -> dict[str, float]:
        """The same by the host's clock, of a call that ends with its result."""

        def one() -> float:
            begin = time.perf_counter()
            work()
            return 1000 * (time.perf_counter() - begin)

        return self._spread(one)

    def _spread(self, measure: Callable[[], float]) -> dict[str, float]:
        times: list[float] = []
        end = time.monotonic() + self.seconds
        while len(times) < 2 or (time.monotonic() < end and len(times) < 100):
            times.append(measure())
        tenths = statistics.quantiles(times, n=10, method="inclusive")
        return {"median": tenths[4], "low": tenths[1], "high": tenths[7]}


def rotated(inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """Inputs and copies of them, together larger than a GPU's caches, but no more than ten."""
    size = max(1, sum(map(dispatch.num_bytes, inputs)))
    copies = min(_CALLS, -(-_ROTATED_BYTES // size)) if inputs and inputs[0].is_cuda else 1
    return [list(inputs), *([each.clone() for each in inputs] for _ in range(copies - 1))]


def decibels(found: Any, expected: Any) -> float:
    """Ratio of the expected result's standard deviation to the error's RMS, in dB.

    Args:
        found: A tensor, or several.
        expected: The expected tensor, or several; the worst ratio counts.
    """
    if not isinstance(expected, Tensor):
        return min(map(decibels, found, expected))
    error = (found.double() - expected.double()).square().mean().sqrt()
    peak = float(expected.double().std()) or 1.0
    # JSON has no NaN, and max returns the first argument for it
    return max(-300.0, float(20 * torch.log10(peak / error.clamp_min(1e-12))))


def checked(
    clock: Clock,
    work: Callable[[], Any],
    expected: Any,
    least: float = LEAST_DECIBELS,
    others: Sequence[Callable[[], Any]] = (),
) -> dict[str, Any]:
    """Check the result of a call, and time the call if it is right.

    Args:
        clock: Clock of the device.
        work: The call.
        expected: Its expected result, before rounding.
        least: Least `decibels` of a right result.
        others: The same call on other memory, timed in turn with it.

    Returns:
        `decibels` and `ms`; or `failed`, the reason why there is no time.
    """
    try:
        near = decibels(work(), expected)
        if near < least:
            return {"decibels": near, "failed": "wrong result"}
        return {"decibels": near, "ms": clock.milliseconds(work, *others)}
    except Exception as error:  # any error of a compiler or a driver must not end the other rows
        return {"failed": describe(error)}


def describe(error: Exception) -> str:
    """The type and the first line of an error, up to 200 characters."""
    first = [line.strip() for line in str(error).splitlines() if line.strip()][:1]
    return ": ".join([type(error).__name__, *first])[:200]


def add(row: dict[str, Any], name: str, figures: dict[str, Any]) -> None:
    """Add the figures of another implementation to a row, and the ratio of the times."""
    row |= {f"{name}_{key}": value for key, value in figures.items()}
    if "ms" in figures:
        row[f"against_{name}"] = figures["ms"]["median"] / row["ms"]["median"]


def measure_machine(clock: Clock, small: bool) -> dict[str, Any]:
    """Versions, device, and its measured peak rates."""
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
    dtype = best_dtype(device)
    elements = 1 << (12 if small else 29)
    # not zeros, with which some devices are faster
    source = torch.rand(elements, device=device).to(dtype)
    target = torch.empty_like(source)
    copy = clock.milliseconds(lambda: target.copy_(source))["median"]
    found["copy_gbs"] = 2 * elements * dtype.itemsize / copy / 1e6
    side = 64 if small else 8192
    a = torch.randn(side, side, device=device).to(dtype)
    product = clock.milliseconds(lambda: a @ a)["median"]
    found["product_tflops"] = 2 * side**3 / product / 1e9
    return found


def measure_kernels(
    clock: Clock, sizes: list[tuple[int, int, int]], machine: dict[str, Any], deadline: float
) -> Iterator[dict[str, Any]]:
    """Measure every kernel against eager PyTorch in the same type, until the deadline.

    Args:
        clock: Times them.
        sizes: Channels, height and width, as for `kernel_cases`.
        machine: From `measure_machine`.
        deadline: When to begin nothing more, in seconds of `time.monotonic`.
    """
    dtype = best_dtype(clock.device)
    for size in sizes:
        for case in kernel_cases(*size, dtype, clock.device):
            if time.monotonic() > deadline:
                return
            row: dict[str, Any] = {"kernel": case.name, "op": case.op}
            row |= {"channels": size[0], "size": [size[2], size[1]]}
            expected = case.expected()
            kernel, *others = (partial(case.kernel, *each) for each in rotated(case.inputs))
            row |= checked(clock, kernel, expected, others=others)
            if "ms" in row:
                with dispatch.recording() as launches:
                    kernel()
                moved = case.moved or sum(each.num_bytes for each in launches)
                row["gbs"] = moved / row["ms"]["median"] / 1e6
                row["of_copy"] = row["gbs"] / machine["copy_gbs"]
                add(row, "eager", checked(clock, case.plain(dtype), expected))
            yield row
