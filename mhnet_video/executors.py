"""Ways from windows to restored frames on a CPU: one at a time, or several side by side.

An executor takes windows and gives pairs (source, restored) in the order of their frames. That of a
GPU is in `gpu_pipeline.py`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from mhnet_video.config import Box
from mhnet_video.engines import Engine
from mhnet_video.frame import Frame, Pair, Plane
from mhnet_video.hardware import on_host
from mhnet_video.temporal_window import FrameWindow
from mhnet_video.window_network import WindowNetwork

Planes = tuple[Plane, ...] | None


class Settings(NamedTuple):
    """How frames are restored; may change from frame to frame."""

    strength: float = 1.0
    """Share of the restoration that is applied, 0 to 1."""
    keep: tuple[Box, ...] = ()
    """Boxes left as they are."""
    scale: float | None = None
    """Working scale of the network, above 0 to 1; None for what suits each picture's size."""


@dataclass
class Counts:
    """What an executor has done so far."""

    passed_through: int = 0
    """Frames left as they were, because the network gave no finite numbers for them."""
    repeated: int = 0
    """Frames that took no time: they were the ones before them again."""


class Executor(Protocol):
    """Restores the frames of windows, in order."""

    counts: Counts
    has_failed: bool
    """Whether its engine cannot run here, so that PyTorch runs the network instead."""

    def push(self, window: FrameWindow, settings: Settings) -> Iterator[Pair]:
        """Take the next window.

        Yields:
            The pairs that are done, or for which there is no room any more.

        Raises:
            ShortageError: The device has too little memory even for small tiles.
        """

    def flush(self) -> Iterator[Pair]:
        """All that are still on their way."""

    def close(self) -> None:
        """Wait for what is being worked on, and drop the rest."""


class InlineExecutor:
    """Restores each frame at once, on the caller's thread.

    Args:
        network: The network.
        engine: What runs it.
    """

    has_failed = False

    def __init__(self, network: WindowNetwork, engine: Engine) -> None:
        self.counts = Counts()
        self._network = network
        self._engine = engine
        self._last: tuple[FrameWindow, Settings, Planes] | None = None

    def push(self, window: FrameWindow, settings: Settings) -> Iterator[Pair]:
        """Restore the frame of a window."""
        last, self._last = self._last, None
        frame = on_host(window.frame)
        if last is not None and last[1] == settings and window.shows_the_same_as(last[0]):
            planes = last[2]
            self.counts.repeated += planes is not None
        else:
            planes = self._network.planes(
                self._engine,
                frame,
                self._network.prepare(window),
                window.middle.scale,
                strength=settings.strength,
                keep=settings.keep,
            )
        self._last = window, settings, planes
        if planes is None:
            self.counts.passed_through += 1
            yield Pair(window.frame, window.frame)
        else:
            yield Pair(window.frame, replace(frame, planes=planes))

    def flush(self) -> Iterator[Pair]:
        """Nothing: all was given at once."""
        return iter(())

    def close(self) -> None:
        """Do nothing: nothing is on its way."""


class EnginePool:
    """Engines that may run at the same time, lent to one thread each.

    Args:
        engine: What shares its threads between them.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._engines: Sequence[Engine] = ()
        self._idle: SimpleQueue[Engine] = SimpleQueue()

    def prepare(self, pixels: int) -> "tuple[int, SimpleQueue[Engine]]":
        """How many engines there are for pictures of a size, and those that are idle.

        An engine that is taken from the queue is to be put back.
        """
        engines = self.engine.lanes(pixels)
        if engines is not self._engines:
            self._engines, self._idle = engines, SimpleQueue()
            for engine in engines:
                self._idle.put(engine)
        return len(engines), self._idle


class LaneExecutor:
    """Restores several frames at a time, by engines that share the processor between them.

    Args:
        network: The network.
        pool: What runs it.
        counts: Where to count; a new one if None.
    """

    has_failed = False

    def __init__(
        self, network: WindowNetwork, pool: EnginePool, counts: Counts | None = None
    ) -> None:
        self.counts = counts or Counts()
        self._network = network
        self._pool = pool
        self._threads: ThreadPoolExecutor | None = None
        self._lanes = 1
        self._last: tuple[FrameWindow, Settings, Future[Planes]] | None = None
        # each frame, what becomes of it, and whether that was made for the one before
        self._waiting: deque[tuple[Frame, Frame, Future[Planes], bool]] = deque()

    def push(self, window: FrameWindow, settings: Settings) -> Iterator[Pair]:
        """Take the next window; give the pairs for which there is no room any more."""
        last = self._last
        frame = on_host(window.frame)
        is_known = last is not None and last[1] == settings and window.shows_the_same_as(last[0])
        if last is None or not is_known:
            self._last = last = window, settings, self._submit(window, frame, settings)
        self._waiting.append((window.frame, frame, last[2], is_known))
        # one more than there are lanes, so that none is without work while a frame is written
        most = self._lanes + 1 if self._lanes > 1 else 0
        while len(self._waiting) > most:
            yield self._take()

    def flush(self) -> Iterator[Pair]:
        """All that are still on their way."""
        while self._waiting:
            yield self._take()

    def close(self) -> None:
        """Wait for what is being worked on, and drop the rest."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _submit(self, window: FrameWindow, frame: Frame, settings: Settings) -> "Future[Planes]":
        seen, scale = self._network.prepare(window), window.middle.scale
        rgb = window.middle.rgb
        pixels = 0 if rgb is None else rgb[0].numel()
        self._lanes, idle = self._pool.prepare(pixels)

        def work() -> Planes:
            engine = idle.get()
            try:
                return self._network.planes(
                    engine, frame, seen, scale, strength=settings.strength, keep=settings.keep
                )
            finally:
                idle.put(engine)

        if self._lanes == 1:
            done: Future[Planes] = Future()
            done.set_result(work())
            return done
        if self._threads is None:
            # no more are started than there are frames on their way
            self._threads = ThreadPoolExecutor(thread_name_prefix="mhnet-video lane")
        return self._threads.submit(work)

    def _take(self) -> Pair:
        source, frame, future, is_known = self._waiting.popleft()
        planes = future.result()
        if planes is None:
            self.counts.passed_through += 1
            return Pair(source, source)
        self.counts.repeated += is_known
        return Pair(source, replace(frame, planes=planes))
