"""The temporal filter: the last link of the chain, which averages restored frames."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import torch

from mhnet_video.config import Settings
from mhnet_video.frame import Frame, Pair
from mhnet_video.restoration.gpu_backend import CudaBackend
from mhnet_video.restoration.graph_average import GraphAverage
from mhnet_video.restoration.temporal_average import Averaged, FrameAverage


class TemporalFilter:
    """The filter as the last link of a chain: it delays each pair until the next is known.

    On a GPU one more pair is on its way, so that nobody waits for the frame that is at work.

    Args:
        device: Where to compute; None for a CPU.
        average: What computes there; None for what is fastest.
    """

    def __init__(
        self, device: torch.device | None = None, average: FrameAverage | None = None
    ) -> None:
        is_on_gpu = device is not None and device.type == "cuda"
        self._average = average or _average_on(device)
        self._most = 1 if is_on_gpu else 0
        self._held: tuple[Pair, Settings] | None = None
        self._running: deque[tuple[Frame, Averaged]] = deque()

    def push(self, pair: Pair, settings: Settings) -> Iterator[Pair]:
        """Take the next pair; yield those before it that are done."""
        held, self._held = self._held, (pair, settings)
        if held is not None:
            self._start(*held, pair.restored)
        while len(self._running) > self._most:
            yield self._done()

    def flush(self) -> Iterator[Pair]:
        """The pairs that are still held."""
        held, self._held = self._held, None
        if held is not None:
            self._start(*held, None)
        while self._running:
            yield self._done()

    def close(self) -> None:
        """Wait for what is at work, and drop it: a GPU changes samples in place."""
        while self._running:
            with suppress(RuntimeError):  # of a GPU that has failed, which is known by now
                self._done()

    def _start(self, pair: Pair, settings: Settings, ahead: Frame | None) -> None:
        source, restored = pair
        averaged = self._average.start(
            source, restored, ahead, share=settings.strength, keep=settings.keep
        )
        self._running.append((source, averaged))

    def _done(self) -> Pair:
        source, averaged = self._running.popleft()
        return Pair(source, averaged.result())


def _average_on(device: torch.device | None) -> FrameAverage:
    """What averages on a device."""
    if device is None or device.type != "cuda":
        return FrameAverage(device)
    return GraphAverage(CudaBackend(device))
