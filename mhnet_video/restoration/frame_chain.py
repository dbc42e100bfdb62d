"""The way of a frame: transition, working scale, window, look, network, temporal filter.

No link knows another. Pairs (source, restored) travel between them.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch

from mhnet_video.config import Settings
from mhnet_video.frame import Frame, Pair
from mhnet_video.restoration.executors import Counts, Executor
from mhnet_video.restoration.scene_changes import SeenFrame, Transition, TransitionDetector
from mhnet_video.restoration.temporal_filter import TemporalFilter
from mhnet_video.restoration.temporal_window import FrameWindow, WindowAssembler
from mhnet_video.restoration.window_network import check_size
from mhnet_video.restoration.working_scale import ScaleChooser


class Look(Protocol):
    """Finds windows whose frame is not worth the network's time."""

    def marked(self, window: FrameWindow) -> FrameWindow:
        """The next window, marked as dry where its frame passes as it is."""


class FrameChain:
    """Restores the frames of a clip in order, one out for each one in.

    Args:
        frames: Input frames of the network, T.
        executor: What restores windows.
        device: Where the network runs.
        scales: Chooses the working scale of each scene.
        look: Marks windows whose frame passes as it is; None where every frame is restored.
        is_filtered: Whether restored frames go through the temporal filter.
        sees_glass: Whether the network sees what stands still on the glass.
    """

    def __init__(
        self,
        frames: int,
        executor: Executor,
        device: torch.device,
        scales: ScaleChooser,
        look: Look | None = None,
        *,
        is_filtered: bool = True,
        sees_glass: bool = False,
    ) -> None:
        self._scales = scales
        self._transitions = TransitionDetector()
        self._windows = WindowAssembler(frames, sees_glass=sees_glass)
        self._look = look
        self._executor = executor
        self._filter = TemporalFilter(device) if is_filtered else None
        self._settings: deque[Settings] = deque()
        """Of the frames that the filter has not seen yet, as they were when each was pushed."""

    @property
    def counts(self) -> Counts:
        """The statistics of the executor."""
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
        self._settings.append(settings)
        known = list(self._transitions.push(frame, settings))
        yield from self._filtered(self._all_restored(known))

    def flush(self) -> Iterator[Pair]:
        """End the clip, and yield the pairs that are still in flight."""
        known = list(self._transitions.flush())
        yield from self._filtered(self._all_restored(known))
        yield from self._filtered(self._drained())
        yield from self.release()

    def release(self) -> Iterator[Pair]:
        """The pair that the temporal filter holds, after another link has failed."""
        if self._filter is not None:
            yield from self._filter.flush()

    def close(self) -> None:
        """Wait for running work, and drop the rest."""
        self._executor.close()
        if self._filter is not None:
            self._filter.close()

    def _all_restored(self, known: Sequence[SeenFrame]) -> Iterator[Pair]:
        for index, (frame, settings, transition, is_other) in enumerate(known):
            if settings.strength == 0:
                yield from self._drained()
                yield Pair(frame, frame)
                continue
            is_cut = transition is Transition.CUT
            scale = self._scales.choose(_scene(known[index:]), settings.scale, is_cut=is_cut)
            self.counts.scales[scale] += 1
            windows = self._windows.push(
                frame, settings, transition, scale.scale, is_other=is_other
            )
            for window in windows:
                yield from self._executed(window)

    def _drained(self) -> Iterator[Pair]:
        for window in self._windows.flush():
            yield from self._executed(window)
        yield from self._executor.flush()

    def _executed(self, window: FrameWindow) -> Iterator[Pair]:
        return self._executor.push(window if self._look is None else self._look.marked(window))

    def _filtered(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            settings = self._settings.popleft()
            if self._filter is None:
                yield pair
            else:
                yield from self._filter.push(pair, settings)


def first_scene_scale(frames: Iterable[Frame], device: torch.device) -> float:
    """How much smaller than by their size the pictures of a clip's first scene are restored.

    Args:
        frames: The clip; no more than a dozen of its frames are asked for.
        device: Device of the network.
    """
    transitions, chooser = TransitionDetector(), ScaleChooser(device)
    pushed = (transitions.push(frame, Settings()) for frame in frames)
    known = next(filter(None, map(list, pushed)), None) or list(transitions.flush())
    if known:
        chooser.choose(_scene(known), None, is_cut=False)
    return chooser.scene_scale


def _scene(known: Sequence[SeenFrame]) -> list[Frame]:
    """The first of some frames, and those of its scene after it."""
    first, *others = known
    later = itertools.takewhile(lambda each: each.transition is not Transition.CUT, others)
    return [first.frame, *(each.frame for each in later)]


class ChainsInTurn:
    """Two ways in turn: what the first has restored is restored by the second.

    Args:
        first: The way of the frames.
        second: The way of those that come out of it.
    """

    def __init__(self, first: "Chain", second: "Chain") -> None:
        self._first, self._second = first, second
        self._sources: deque[Frame] = deque()
        self._settings: deque[Settings] = deque()
        """Of the frames in the first way."""

    @property
    def counts(self) -> Counts:
        """The statistics of both executors, with the working scales of the first one.

        A frame counts as repeated, or as passed by a look, where it was in both.
        """
        first, second = self._first.counts, self._second.counts
        return Counts(
            passed_through=first.passed_through + second.passed_through,
            repeated=min(first.repeated, second.repeated),
            dry=min(first.dry, second.dry),
            scales=first.scales,
        )

    def push(self, frame: Frame, settings: Settings) -> Iterator[Pair]:
        """Take the next frame; as that of `FrameChain`."""
        self._settings.append(settings)
        yield from self._through(self._first.push(frame, settings))

    def flush(self) -> Iterator[Pair]:
        """End the clip, and yield the pairs that are still in flight."""
        yield from self._through(self._first.flush())
        yield from self._with_sources(self._second.flush())

    def release(self) -> Iterator[Pair]:
        """The pair that the last temporal filter holds, after another link has failed."""
        yield from self._with_sources(self._second.release())

    def close(self) -> None:
        """Wait for running work, and drop the rest."""
        self._first.close()
        self._second.close()

    def _through(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            self._sources.append(pair.source)
            settings = self._settings.popleft()
            yield from self._with_sources(self._second.push(pair.restored, settings))

    def _with_sources(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        """One pair comes out for each that goes in, in the same order."""
        for pair in pairs:
            yield Pair(self._sources.popleft(), pair.restored)


Chain = FrameChain | ChainsInTurn
"""The way of the frames of a clip."""
