"""Run an iterator ahead on a thread of its own, with a bounded lead.

Pipelines are chains of prefetchers: closing the last one ends them all, and an error in one
reaches the consumer after the items made before it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from mhnet_video.closing import Closing
from mhnet_video.system import usable_processors

T = TypeVar("T")

_MAX_CODEC_THREADS = 8
"""Threads beyond which codecs gain little."""


def codec_threads() -> int:
    """Threads for a decoder or an encoder: the cores that this process may use, at most 8.

    What a frame costs does not depend on it (640x480 in H.264: 2.2 ms of one core to decode and
    6.7 to encode, with one thread as with three), so that more threads take nothing from the
    network. Fewer would make a codec the slowest part where pictures are large. Each holds a
    picture or two, which is why there are not more.
    """
    return min(_MAX_CODEC_THREADS, usable_processors())


class Prefetcher(Closing, Generic[T], Iterator[T]):
    """Items of an iterable, made ahead on a thread.

    Args:
        items: What to run; a generator is closed on its own thread when the prefetcher is closed.
        name: The thread's name, for debuggers.
        max_items: Most items that wait; the thread pauses when they are reached.
        max_size: Most that waiting items may weigh together; one item is always let through.
        size_of: Weight of an item; all weigh nothing if None.
    """

    def __init__(
        self,
        items: Iterable[T],
        *,
        name: str,
        max_items: int,
        max_size: int = 0,
        size_of: Callable[[T], int] | None = None,
    ) -> None:
        self._items = items
        self._max_items = max_items
        self._max_size = max_size
        self._size_of = size_of
        self._waiting: deque[tuple[T, int]] = deque()
        self._size = 0
        self._error: BaseException | None = None
        self._is_done = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        error: BaseException | None = None
        iterator = iter(self._items)
        try:
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as caught:
            error = caught
        # a generator holds files and threads of its own: end it here, where it ran
        close = getattr(iterator, "close", None)
        if close is not None:
            try:
                close()
            except BaseException as caught:
                error = error or caught
        with self._changed:
            self._error = error
            self._is_done = True
            self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Add an item once the lead allows it; False after `cancel`."""
        size = self._size_of(item) if self._size_of is not None else 0
        with self._changed:
            while not self._is_closed and self._is_full(size):
                self._changed.wait()
            if self._is_closed:
                return False
            self._waiting.append((item, size))
            self._size += size
            self._changed.notify_all()
        return True

    def _is_full(self, size: int) -> bool:
        if not self._waiting:
            return False
        return len(self._waiting) >= self._max_items or (
            size > 0 and self._size + size > self._max_size
        )

    def __next__(self) -> T:
        """The next item, waited for; the thread's error once the items before it are taken."""
        while True:
            item = self.poll(None)
            if item is not None:
                return item[0]

    def poll(self, timeout_seconds: float | None) -> tuple[T] | None:
        """The next item in a tuple, or None if none came in time.

        Raises:
            StopIteration: There are no more.
        """
        with self._changed:
            if not self._waiting and not self._is_done and not self._is_closed:
                self._changed.wait(timeout_seconds)
            if self._waiting:
                item, size = self._waiting.popleft()
                self._size -= size
                self._changed.notify_all()
                return (item,)
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._is_done or self._is_closed:
                raise StopIteration
            return None

    def cancel(self) -> None:
        """Tell the thread to end, and whoever waits for an item that there are no more."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._size = 0
            self._changed.notify_all()

    def close(self, timeout_seconds: float | None = None) -> bool:
        """End the thread: what waits is dropped, and an error not yet taken is forgotten.

        Args:
            timeout_seconds: How long to wait for the step it is in; None for as long as it takes.

        Returns:
            Whether the thread has ended. One that has not is left to itself.
        """
        self.cancel()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()
