"""Executors that restore windows on a CPU: inline, or in several lanes at a time.

An executor takes windows and yields pairs (source, restored) in the order of their frames. The
executor for GPUs is in `gpu_executor.py`.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Protocol

from mhnet_video.engines.base import Engine
from mhnet_video.frame import Frame, Pair, Plane
from mhnet_video.model.window import middle_of
from mhnet_video.restoration.temporal_window import FrameWindow
from mhnet_video.restoration.window_network import WindowNetwork
from mhnet_video.restoration.working_scale import WorkingScale

Planes = tuple[Plane, ...] | None


@dataclass
class Counts:
    """What an executor has done so far."""

    passed_through: int = 0
    """Frames left unchanged, because the network returned numbers that are not finite."""
    repeated: int = 0
    """Frames that reused the result of an equal frame before them."""
    dry: int = 0
    """Frames that passed as they are, because a cheap look showed nothing to take out."""
    scales: Counter[WorkingScale] = field(default_factory=Counter)
    """Frames at each working scale."""


class Executor(Protocol):
    """Restores the frames of windows, in order."""

    @property
    def counts(self) -> Counts:
        """What it has done so far."""

    @property
    def has_failed(self) -> bool:
        """Whether its engine has failed, so that PyTorch runs the network instead."""

    def push(self, window: FrameWindow) -> Iterator[Pair]:
        """Take the next window.

        Yields:
            The pairs that are done, and those for which the queue has no capacity left.

        Raises:
            ShortageError: The device has too little memory even for small tiles.
        """

    def flush(self) -> Iterator[Pair]:
        """The pairs of all frames in flight."""

    def close(self) -> None:
        """Wait for running work, and drop the rest."""


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
        self._last: tuple[FrameWindow, Planes] | None = None

    def push(self, window: FrameWindow) -> Iterator[Pair]:
        """Restore the frame of a window."""
        last, self._last = self._last, None
        if last is not None and window.is_restored_as(last[0]):
            planes = last[1]
            self.counts.repeated += planes is not None
        elif window.is_dry:
            planes = window.host_frame.planes
            self.counts.dry += 1
        else:
            planes = self._network.planes(self._engine, window, self._network.prepare(window))
        self._last = window, planes
        if planes is None:
            self.counts.passed_through += 1
            yield Pair(window.frame, window.frame)
        else:
            yield Pair(window.frame, replace(window.host_frame, planes=planes))

    def flush(self) -> Iterator[Pair]:
        """Nothing: every pair was yielded at once."""
        return iter(())

    def close(self) -> None:
        """Do nothing: no frame is in flight."""


class Lanes:
    """Engines that may run at the same time, lent to one thread each.

    Results depend on how many threads share a picture, in their last bits. So where engines have
    unlike numbers of threads, which one restores a frame follows from its place in the clip, and
    the same clip has the same result in every run.

    Args:
        engines: The engines.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = engines
        threads = [int(getattr(engine, "threads", 1)) for engine in engines]
        are_alike = len(set(threads)) == 1
        self.threads = [sum(threads)] if are_alike else threads
        """Threads of each of `idle`."""
        self.idle: list[SimpleQueue[Engine]] = [SimpleQueue() for _ in self.threads]
        """Engines without work: those of one kind in one queue, or each in its own. Whoever takes
        one puts it back."""
        for index, engine in enumerate(engines):
            self.idle[index % len(self.idle)].put(engine)


class EnginePool:
    """The lanes of an engine for pictures of a size.

    Args:
        engine: The engine whose `lanes` share its threads.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lanes = Lanes(())

    def prepare(self, pixels: int) -> Lanes:
        """The lanes for pictures of a size."""
        engines = self.engine.lanes(pixels)
        if engines is not self._lanes.engines:
            self._lanes = Lanes(engines)
        return self._lanes


class LaneExecutor:
    """Restores several frames at a time, by engines that share the processor.

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
        self._lanes: Lanes | None = None
        self._given: list[float] = []
        """Work that each of the queues of idle engines was given, by its threads."""
        self._last: tuple[FrameWindow, Future[Planes]] | None = None
        # each frame as it came and on the host, its result, and whether that is the result of the
        # frame before
        self._waiting: deque[tuple[Frame, Frame, Future[Planes], bool]] = deque()

    def push(self, window: FrameWindow) -> Iterator[Pair]:
        """Take the next window; yield the pairs for which the queue has no capacity left."""
        last = self._last
        is_known = last is not None and window.is_restored_as(last[0])
        if last is None or not is_known:
            self._last = last = window, self._submit(window)
        self._waiting.append((window.frame, window.host_frame, last[1], is_known))
        # one more than there are lanes, so that none is without work while a frame is written
        count = 1 if self._lanes is None else len(self._lanes.engines)
        most = count + 1 if count > 1 else 0
        while len(self._waiting) > most:
            yield self._take()

    def flush(self) -> Iterator[Pair]:
        """The pairs of all frames in flight."""
        while self._waiting:
            yield self._take()

    def close(self) -> None:
        """Wait for running work, and drop the rest."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _submit(self, window: FrameWindow) -> "Future[Planes]":
        done: Future[Planes] = Future()
        if window.is_dry:
            done.set_result(window.host_frame.planes)
            return done
        seen = self._network.prepare(window)
        lanes = self._pool.prepare(middle_of(seen)[0].numel())
        if lanes is not self._lanes:
            self._lanes, self._given = lanes, [0.0] * len(lanes.idle)
        number = min(range(len(lanes.idle)), key=self._given.__getitem__)
        self._given[number] += 1 / lanes.threads[number]
        idle = lanes.idle[number]

        def work() -> Planes:
            engine = idle.get()
            try:
                return self._network.planes(engine, window, seen)
            finally:
                idle.put(engine)

        if len(lanes.engines) == 1:
            done.set_result(work())
            return done
        if self._threads is None:
            # the number of threads is bounded by that of frames in flight
            self._threads = ThreadPoolExecutor(thread_name_prefix="mhnet-video lane")
        return self._threads.submit(work)

    def _take(self) -> Pair:
        source, on_host, future, is_known = self._waiting.popleft()
        planes = future.result()
        if planes is None:
            self.counts.passed_through += 1
            return Pair(source, source)
        if is_known:
            self.counts.repeated += 1
        elif planes is on_host.planes:
            self.counts.dry += 1
        return Pair(source, replace(on_host, planes=planes))
