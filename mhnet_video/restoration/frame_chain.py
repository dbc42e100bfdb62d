"""The one way of a frame: what it is to the one before, its window, the network, temporal filter.

Each link knows nothing of the others. What travels is a pair (source, restored).
"""

from collections.abc import Iterator

import torch

from mhnet_video.config import Settings
from mhnet_video.frame import Frame, Pair
from mhnet_video.restoration.executors import Counts, Executor
from mhnet_video.restoration.scene_changes import Transition, TransitionDetector
from mhnet_video.restoration.temporal_filter import TemporalFilter
from mhnet_video.restoration.temporal_window import WindowAssembler
from mhnet_video.restoration.window_network import check_size, working_scale


class FrameChain:
    """Restores the frames of one clip in order, one out for each one in.

    Args:
        frames: Frames that the network looks at, T.
        executor: What restores windows.
        device: Where the network runs.
        is_filtered: Whether restored frames go through the temporal filter.
    """

    def __init__(
        self, frames: int, executor: Executor, device: torch.device, *, is_filtered: bool = True
    ) -> None:
        self._device = device
        self._transitions = TransitionDetector()
        self._windows = WindowAssembler(frames)
        self._executor = executor
        self._filter = TemporalFilter(device) if is_filtered else None

    @property
    def counts(self) -> Counts:
        """What the executor has done so far."""
        return self._executor.counts

    def push(self, frame: Frame, settings: Settings) -> Iterator[Pair]:
        """Take the next frame.

        Args:
            frame: The frame.
            settings: How it is to be restored.

        Yields:
            The pairs that are ready, in order.

        Raises:
            ConfigError: The picture is too large.
            ShortageError: The device has too little memory even for small tiles.
        """
        check_size(frame.height, frame.width)
        for known in self._transitions.push(frame, settings):
            yield from self._filtered(self._restored(*known), settings)

    def flush(self, settings: Settings) -> Iterator[Pair]:
        """End the clip; the pairs that are missing."""
        for known in self._transitions.flush():
            yield from self._filtered(self._restored(*known), settings)
        yield from self._filtered(self._drained(), settings)
        yield from self.release(settings)

    def release(self, settings: Settings) -> Iterator[Pair]:
        """The pair that the temporal filter holds, where a later link has failed."""
        if self._filter is not None:
            yield from self._filter.flush(settings)

    def close(self) -> None:
        """Wait for what is being worked on, and drop the rest."""
        self._executor.close()

    def _restored(self, frame: Frame, settings: Settings, step: Transition) -> Iterator[Pair]:
        if settings.strength == 0:
            yield from self._drained()
            yield Pair(frame, frame)
            return
        scale = working_scale(settings.scale, frame.height, frame.width, self._device)
        for window in self._windows.push(frame, settings, step, scale):
            yield from self._executor.push(window)

    def _drained(self) -> Iterator[Pair]:
        for window in self._windows.flush():
            yield from self._executor.push(window)
        yield from self._executor.flush()

    def _filtered(self, pairs: Iterator[Pair], settings: Settings) -> Iterator[Pair]:
        if self._filter is None:
            yield from pairs
            return
        for pair in pairs:
            yield from self._filter.push(pair, settings)
