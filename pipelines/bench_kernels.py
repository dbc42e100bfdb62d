"""The GPU benchmark's kernels: each checked against its meaning, then timed against it."""

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mhnet_video.cuda_engine import best_kind
from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.kernels import map_reference as reference

_LEAST_DECIBELS = 40.0


class Clock:
    """Times work on a device."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds = device, seconds

    def wait(self) -> None:
        """Wait until the device is done."""
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


def decibels(found: Tensor, expected: Tensor, peak: float) -> float:
    """How far a result lies below a peak, in decibels of its error."""
    error = (found.double() - expected.double()).square().mean().sqrt()
    return float(20 * torch.log10(peak / error.clamp_min(1e-12)))


def measure_machine(clock: Clock, small: bool) -> dict[str, Any]:
    """What the device is, and what it can do at the most."""
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
    # not zeros, with which some devices are faster
    source = torch.rand(elements, device=device).to(kind)
    target = torch.empty_like(source)
    copy = clock.milliseconds(lambda: target.copy_(source))["median"]
    found["copy_gbs"] = 2 * elements * kind.itemsize / copy / 1e6
    side = 64 if small else 8192
    a = torch.randn(side, side, device=device).to(kind)
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
            "first half of a block, dense",
            map_ops.block_front,
            partial(reference.block_front, eps=1e-6),
            [x, maps(9, 2 * c, c, scale=spread / 3), exact(9, 2 * c), bias],
        )
    if map_ops.block_front_rows_fits(c, kind):
        yield (
            "first half of a block, rows",
            map_ops.block_front_rows,
            lambda x, w, b, taps, bias: reference.depthwise(
                reference.linear(x, w, b, True, False, None, [], 1e-6), taps, bias, True
            ),
            [x, weight, bias, exact(9, 2 * c) / 3, exact(2 * c)],
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


def measure_kernels(
    clock: Clock, sizes: list[tuple[int, int, int]], deadline: float
) -> Iterator[dict[str, Any]]:
    """Every kernel against eager PyTorch in the same type, until the deadline."""
    kind = best_kind(clock.device)
    for channels, height, width in sizes:
        if time.monotonic() > deadline:
            return
        for name, kernel, meaning, given in _kernel_cases(
            channels, height, width, kind, clock.device
        ):
            row: dict[str, Any] = {"kernel": name, "channels": channels, "size": [width, height]}
            floats = [each.float() if isinstance(each, Tensor) else each for each in given]
            expected = meaning(*floats)
            peak = float(expected.float().std()) or 1.0
            row["decibels"] = decibels(kernel(*given), expected, peak)
            del floats, expected
            if row["decibels"] >= _LEAST_DECIBELS:
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
