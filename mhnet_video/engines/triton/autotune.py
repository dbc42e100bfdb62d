"""Which of several ways is the fastest on this GPU: found by trying them, once in a process."""

import logging
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mhnet_video.engines.triton.programs import compile_programs
from mhnet_video.engines.triton.weight_packing import Front, MapType, usual_front
from mhnet_video.kernels import map_ops
from mhnet_video.kernels.dispatch import recording

_log = logging.getLogger(__name__)

_ROWS = 544
"""Rows of the measured map: half of 1080. It fills a large GPU, and exceeds its caches."""
_COLUMNS = 960
"""Columns of the measured map: half of 1920."""
_RUNS = 7
"""Timed runs of each variant."""
_MOST_CHANNELS = 64
"""Most channels for which variants in one pass are tried."""
_MAX_ERROR = 0.03
"""Largest relative RMS error of a variant against two passes. Rounding causes about 0.01."""
_known: dict[tuple[int, torch.dtype, str], Front] = {}


def fastest_front(
    channels: int,
    map_type: MapType,
    milliseconds: Callable[[Callable[[], object]], float] | None = None,
) -> Front:
    """The fastest way to do the first half of a block on a device.

    Args:
        channels: Of the block.
        map_type: Type of the maps, and the device.
        milliseconds: Measures a call; by the GPU's own clock if None.
    """
    key = channels, map_type.dtype, str(map_type.device)
    if key not in _known:
        try:
            with torch.inference_mode(), _current(map_type.device):
                _known[key] = _fastest(channels, map_type, milliseconds or _on_cuda)
        except Exception as error:
            # the usual way may do where another one fails
            _log.warning("kernels could not be compared (%s)", error)
            _known[key] = usual_front(channels, map_type.dtype)
    return _known[key]


def _fastest(
    channels: int, map_type: MapType, milliseconds: Callable[[Callable[[], object]], float]
) -> Front:
    if channels > _MOST_CHANNELS:
        return "split"
    times = measure_fronts(channels, map_type, milliseconds, _ROWS, _COLUMNS)
    return min(times, key=times.__getitem__)


def measure_fronts(
    channels: int,
    map_type: MapType,
    milliseconds: Callable[[Callable[[], object]], float],
    height: int,
    width: int,
) -> dict[Front, float]:
    """The time of each variant whose result is right.

    Args:
        channels: Of the block.
        map_type: Type of the maps, and the device.
        milliseconds: Measures a call.
        height: Of the map, in pixels.
        width: Likewise.
    """
    ways = _ways(channels, map_type, height, width)
    with recording() as launches:
        for way in ways.values():
            way()
    if map_type.device.type == "cuda":
        compile_programs(launches)
    expected = ways["split"]().clone().float()
    times: dict[Front, float] = {}
    for name, way in ways.items():
        error = (way().float() - expected).square().mean() / expected.square().mean()
        if bool(error.sqrt() < _MAX_ERROR):
            times[name] = milliseconds(way)
    return times


def _ways(
    channels: int, map_type: MapType, height: int, width: int
) -> dict[Front, Callable[[], Tensor]]:
    """Every way that takes that many channels, on one and the same block."""
    generator = torch.Generator(map_type.device).manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=map_type.device)

    weight, taps = draw(2 * channels, channels) * channels**-0.5, draw(9, 2 * channels) / 3
    weight_bias, bias = draw(2 * channels) / 4, draw(2 * channels) / 4
    x = map_type.maps(draw(1, height, width, channels))
    first = map_type.maps(weight), map_type.exact(weight_bias)
    weight_sums = map_ops.linear_weight_sums(first[0])
    depthwise = map_type.exact(taps), map_type.exact(bias)
    dense = (
        map_type.maps(taps[:, :, None] * weight),
        map_type.exact(taps * weight_bias),
        map_type.exact(bias),
    )
    wide, out = x.new_empty(1, height, width, 2 * channels), torch.empty_like(x)
    sums = {
        "dense": map_ops.block_front_sums(out),
        "split": map_ops.depthwise_sums(out),
        "rows": map_ops.block_front_rows_sums(out),
    }

    def split() -> Tensor:
        map_ops.linear(x, *first, norm=True, weight_sums=weight_sums, out=wide)
        return map_ops.depthwise(wide, *depthwise, gate=True, sums=sums["split"], out=out)

    ways: dict[Front, Callable[[], Tensor]] = {
        "split": split,
        "dense": lambda: map_ops.block_front(x, *dense, sums=sums["dense"], out=out),
    }
    if map_ops.block_front_rows_fits(channels, map_type.dtype):
        ways["rows"] = lambda: map_ops.block_front_rows(
            x, *first, *depthwise, sums=sums["rows"], out=out
        )
    return ways


def _current(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def event_milliseconds(work: Callable[[], object]) -> float:
    """Between two events on the current stream of a GPU, one before and one behind the work."""
    begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def _on_cuda(work: Callable[[], object]) -> float:
    """The median of a few runs, in milliseconds, on the current stream."""
    return statistics.median(event_milliseconds(work) for _ in range(_RUNS))
