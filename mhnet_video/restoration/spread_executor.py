"""Restores the windows of one clip on several devices, each on a thread of its own.

Windows go to the devices in turn, and pairs come out in the order of the windows. What follows,
such as the temporal filter, sees one clip.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from queue import Queue, SimpleQueue
from threading import Thread

import torch

from mhnet_video.errors import MHNetVideoError, first_line
from mhnet_video.frame import Pair
from mhnet_video.restoration.executors import Counts, Executor
from mhnet_video.restoration.temporal_window import MAX_COPIES, FrameWindow, NetworkImage

_QUEUED = 2
"""Windows that wait for a device beside those in its executor; more hold the caller back."""


class _Order(Enum):
    """What a device is to do beside restoring windows."""

    FLUSH = "flush"
    END = "end"


@dataclass(frozen=True)
class _Failure:
    """The end of a device's results."""

    error: Exception


class _DeviceThread:
    """A device with its executor, and the thread that works for it.

    Args:
        device: The device.
        executor: What restores windows there.
    """

    def __init__(self, device: torch.device, executor: Executor) -> None:
        self.device, self.executor = device, executor
        self._inbox: Queue[FrameWindow | _Order] = Queue(_QUEUED)
        self._outbox: SimpleQueue[Pair | _Failure] = SimpleQueue()
        self._is_dropping = False
        self._images: dict[NetworkImage, NetworkImage] = {}
        self._thread: Thread | None = None

    def push(self, window: FrameWindow) -> None:
        """Hand over a window, once there is room for it."""
        if self._thread is None:
            name = f"mhnet-video {self.device}"
            self._thread = Thread(target=self._work, name=name, daemon=True)
            self._thread.start()
        # what is kept of a picture lies in the memory of one device
        known = self._images
        self._images = {
            image: known.get(image) or NetworkImage(image.frame, image.scale)
            for image in window.images
            if image is not None
        }
        images = [None if image is None else self._images[image] for image in window.images]
        self._inbox.put(replace(window, images=images))

    def flush(self) -> None:
        """Have it finish all that it has."""
        if self._thread is not None:
            self._inbox.put(_Order.FLUSH)

    def has_result(self) -> bool:
        """Whether `take` does not wait."""
        return not self._outbox.empty()

    def take(self) -> Pair:
        """The next pair.

        Raises:
            MHNetVideoError: The device has failed before it.
        """
        found = self._outbox.get()
        if isinstance(found, Pair):
            return found
        self._outbox.put(found)  # nothing else will come
        if isinstance(found.error, MHNetVideoError):
            raise found.error
        raise MHNetVideoError(
            f"{self.device} failed ({first_line(found.error)}); leave it out of --device."
        ) from found.error

    def close(self) -> None:
        """Drop what waits, and wait for what runs."""
        self._is_dropping = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(_Order.END)
            thread.join()
        self.executor.close()

    def _work(self) -> None:
        with _current(self.device):
            while (item := self._inbox.get()) is not _Order.END:
                # after an error, too, so that nobody waits for room
                if self._is_dropping:
                    continue
                try:
                    done = self.executor.push(item) if isinstance(item, FrameWindow) else None
                    for pair in self.executor.flush() if done is None else done:
                        self._outbox.put(pair)
                except Exception as error:
                    self._is_dropping = True
                    self._outbox.put(_Failure(error))


class SpreadExecutor:
    """Executors of several devices as one: of N, each restores every N-th window.

    Every device has all frames of its windows, so that results are those of one device.

    Args:
        executors: One for each device, in the order in which they take turns.
    """

    def __init__(self, executors: Sequence[tuple[torch.device, Executor]]) -> None:
        self._executors = [executor for _, executor in executors]
        self._counts = Counts()
        self._threads = [_DeviceThread(*each) for each in executors]
        self._order: deque[_DeviceThread] = deque()
        self._turn = -1
        self._last: FrameWindow | None = None
        self._repeats = 0

    @property
    def counts(self) -> Counts:
        """What all devices have done so far."""
        parts = [executor.counts for executor in self._executors]
        self._counts.passed_through = sum(each.passed_through for each in parts)
        self._counts.repeated = sum(each.repeated for each in parts)
        self._counts.dry = sum(each.dry for each in parts)
        return self._counts

    @property
    def has_failed(self) -> bool:
        """Whether the engine of any device has failed, so that PyTorch runs its network."""
        return any(executor.has_failed for executor in self._executors)

    def push(self, window: FrameWindow) -> Iterator[Pair]:
        """Take the next window; yield the pairs that are done.

        Raises:
            MHNetVideoError: A device has failed.
        """
        last, self._last = self._last, window
        # a frame that is restored as the one before goes where that one is
        if last is None or not window.is_restored_as(last):
            self._turn, self._repeats = (self._turn + 1) % len(self._threads), 0
        else:
            self._repeats += 1
        thread = self._threads[self._turn]
        if self._repeats == MAX_COPIES:
            # a picture that stands still; the others get nothing more that would end their batches
            for other in self._threads:
                if other is not thread:
                    other.flush()
        thread.push(window)
        self._order.append(thread)
        while self._order and self._order[0].has_result():
            yield self._take()

    def flush(self) -> Iterator[Pair]:
        """The pairs of all frames in flight."""
        for thread in self._threads:
            thread.flush()
        while self._order:
            yield self._take()

    def close(self) -> None:
        """Wait for running work, and drop the rest."""
        for thread in self._threads:
            thread.close()
        self._order.clear()

    def _take(self) -> Pair:
        pair = self._order[0].take()
        self._order.popleft()
        return pair


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU this thread's own."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
