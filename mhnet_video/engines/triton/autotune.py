"""Which of several ways is the fastest on this GPU: found by trying them, once in a process."""

import logging
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mhnet_video.engines.triton.weight_packing import Front, MapType, usual_front
from mhnet_video.kernels import map_ops

_log = logging.getLogger(__name__)

# a 1080p picture at half its sides: it fills a large GPU, and wide maps of it no cache
_ROWS = 544
_COLUMNS = 960
_RUNS = 7
# more than that, and one pass is out of the question
_MOST_CHANNELS = 64
# a way whose result is farther from that of two passes is none: rounding leaves a hundredth
_MAX_ERROR = 0.03
_known: dict[tuple[int, torch.dtype, str], Front] = {}


def fastest_front(
    channels: int,
    kind: MapType,
    milliseconds: Callable[[Callable[[], object]], float] | None = None,
) -> Front:
    """The fastest way to do the first half of a block on a device.

    Args:
        channels: Of the block.
        kind: Type of the maps, and the device.
        milliseconds: Measures a call; by the GPU's own clock if None.
    """
    key = channels, kind.kind, str(kind.device)
    if key not in _known:
        try:
            with torch.inference_mode(), _current(kind.device):
                _known[key] = _fastest(channels, kind, milliseconds or _on_cuda)
        except Exception as error:
            # the usual way may do where another one fails
            _log.warning("kernels could not be compared (%s)", error)
            _known[key] = usual_front(channels, kind.kind)
    return _known[key]


def _fastest(
    channels: int, kind: MapType, milliseconds: Callable[[Callable[[], object]], float]
) -> Front:
    if channels > _MOST_CHANNELS:
        return "split"
    ways = _ways(channels, kind)
    expected = ways["split"]().clone().float()
    times: dict[Front, float] = {}
    for name, way in ways.items():
        error = (way().float() - expected).square().mean() / expected.square().mean()
        if bool(error.sqrt() < _MAX_ERROR):
            times[name] = milliseconds(way)
    return min(times, key=times.__getitem__)


def _ways(channels: int, kind: MapType) -> dict[Front, Callable[[], Tensor]]:
    """Every way that takes that many channels, on one and the same block."""
    generator = torch.Generator(kind.device).manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=kind.device)

    weight, taps = draw(2 * channels, channels) * channels**-0.5, draw(9, 2 * channels) / 3
    weight_bias, bias = draw(2 * channels) / 4, draw(2 * channels) / 4
    x = kind.maps(draw(1, _ROWS, _COLUMNS, channels))
    first = kind.maps(weight), kind.exact(weight_bias)
    depthwise = kind.exact(taps), kind.exact(bias)
    dense = kind.maps(taps[:, :, None] * weight), kind.exact(taps * weight_bias), kind.exact(bias)
    wide, out = x.new_empty(1, _ROWS, _COLUMNS, 2 * channels), torch.empty_like(x)
    sums = {
        "dense": map_ops.block_front_sums(out),
        "split": map_ops.depthwise_sums(out),
        "rows": map_ops.block_front_rows_sums(out),
    }

    def split() -> Tensor:
        map_ops.linear(x, *first, norm=True, out=wide)
        return map_ops.depthwise(wide, *depthwise, gate=True, sums=sums["split"], out=out)

    ways: dict[Front, Callable[[], Tensor]] = {
        "split": split,
        "dense": lambda: map_ops.block_front(x, *dense, sums=sums["dense"], out=out),
    }
    if map_ops.block_front_rows_fits(channels, kind.kind):
        ways["rows"] = lambda: map_ops.block_front_rows(
            x, *first, *depthwise, sums=sums["rows"], out=out
        )
    return ways


def _current(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _on_cuda(work: Callable[[], object]) -> float:
    """The median of a few runs, in milliseconds, on the current stream."""
    times = []
    for _ in range(_RUNS):
        begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)
