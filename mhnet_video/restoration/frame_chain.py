"""The way of a frame: transition, working scale, window, look, network, temporal filter.

No link knows another. Pairs (source, restored) travel between them. `FrameChain` goes as far as the
network; `ChainsInTurn` and `FilteredChain` are made of chains, and are chains themselves.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import torch

from mhnet_video.config import Settings
from mhnet_video.frame import Frame, Pair
from mhnet_video.restoration.executors import Counts, Executor
from mhnet_video.restoration.scene_changes import SeenFrame, Transition, TransitionDetector
from mhnet_video.restoration.temporal_filter import TemporalFilter
from mhnet_video.restoration.temporal_window import FrameWindow, WindowAssembler
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
        scales: Chooses the working scale of each scene.
        look: Marks windows whose frame passes as it is; None where every frame is restored.
        sees_glass: Whether the network sees what stands still on the glass.
    """

    def __init__(
        self,
        frames: int,
        executor: Executor,
        scales: ScaleChooser,
        look: Look | None = None,
        *,
        sees_glass: bool = False,
    ) -> None:
        self._scales = scales
        self._transitions = TransitionDetector()
        self._windows = WindowAssembler(frames, sees_glass=sees_glass)
        self._look = look
        self._executor = executor

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
            ShortageError: The device has too little memory even for small tiles.
        """
        yield from self._all_restored(list(self._transitions.push(frame, settings)))

    def flush(self) -> Iterator[Pair]:
        """End the clip, and yield the pairs that are still in flight."""
        yield from self._all_restored(list(self._transitions.flush()))
        yield from self._drained()

    def release(self) -> Iterator[Pair]:
        """What is restored already, after another link has failed: nothing is kept here."""
        return iter(())

    def close(self) -> None:
        """Wait for running work, and drop the rest."""
        self._executor.close()

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
        self._between: deque[Pair] = deque()
        """Pairs of the first way whose restored frame is in the second one."""
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
        yield from map(self._joined, self._second.flush())

    def release(self) -> Iterator[Pair]:
        """What is restored already, after another link has failed.

        The second way restores what it still can. The rest is as the first one has left it.
        """
        with suppress(Exception):  # it may be what has failed, which the caller knows
            for pair in itertools.chain(self._second.flush(), self._second.release()):
                while self._between[0].restored is not pair.source:
                    yield self._between.popleft()
                yield self._joined(pair)
        yield from self._between
        self._between.clear()
        yield from self._first.release()

    def close(self) -> None:
        """Wait for running work, and drop the rest."""
        self._first.close()
        self._second.close()

    def _through(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            self._between.append(pair)
            self._note(pair)
            settings = self._settings.popleft()
            yield from map(self._joined, self._second.push(pair.restored, settings))

    def _joined(self, second: Pair) -> Pair:
        """The pair of a frame that has gone both ways; they come in order."""
        return self._of_both(self._between.popleft(), second)

    def _note(self, first: Pair) -> None:
        """Called with each pair of the first way before the second one takes its frame."""

    def _of_both(self, first: Pair, second: Pair) -> Pair:
        """What comes out for a pair of each way."""
        return Pair(first.source, second.restored)


class FilteredChain:
    """A way with the temporal filter at its end.

    Args:
        chain: The way.
        device: Where the network runs.
    """

    def __init__(self, chain: "Chain", device: torch.device) -> None:
        self._chain, self._filter = chain, TemporalFilter(device)
        self._settings: deque[Settings] = deque()
        """Of the frames that the filter has not seen yet, as they were when each was pushed."""

    @property
    def counts(self) -> Counts:
        """The statistics of the way."""
        return self._chain.counts

    def push(self, frame: Frame, settings: Settings) -> Iterator[Pair]:
        """Take the next frame; as that of `FrameChain`."""
        self._settings.append(settings)
        yield from self._filtered(self._chain.push(frame, settings))

    def flush(self) -> Iterator[Pair]:
        """End the clip, and yield the pairs that are still in flight."""
        yield from self._filtered(self._chain.flush())
        yield from self._filter.flush()

    def release(self) -> Iterator[Pair]:
        """What is restored already, after another link has failed."""
        yield from self._filtered(self._chain.release())
        yield from self._filter.flush()

    def close(self) -> None:
        """Wait for running work, and drop the rest."""
        self._chain.close()
        self._filter.close()

    def _filtered(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            yield from self._filter.push(pair, self._settings.popleft())


Chain = FrameChain | ChainsInTurn | FilteredChain
"""The way of the frames of a clip."""
