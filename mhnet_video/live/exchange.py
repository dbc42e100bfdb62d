"""What threads of live mode hand to each other.

`Latest` has one item for any number of readers. `MediaQueue` has every item for one reader.
"""

import threading
from collections import deque
from typing import Generic, TypeVar

from mhnet_video.frame import Frame
from mhnet_video.live.sound import SoundPacket

T = TypeVar("T")


class Latest(Generic[T]):
    """The newest item of a stream, for any number of readers; older items are dropped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._number = 0
        self._is_closed = False

    def put(self, item: T) -> None:
        """Replace the item; never waits."""
        with self._changed:
            self._item = item
            self._number += 1
            self._changed.notify_all()

    def get(self, after: int, timeout_seconds: float) -> tuple[int, T] | None:
        """The newest item and its number, once there is one after number `after`.

        Returns:
            None if none came in time, or none will come.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self._is_closed, timeout_seconds)
            if self._number <= after or self._item is None:
                return None
            return self._number, self._item

    @property
    def item(self) -> T | None:
        """The newest item; None before the first."""
        return self._item

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will come."""
        return self._is_closed

    def close(self) -> None:
        """Tell readers that nothing more will come."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class MediaQueue:
    """Frames and sound on their way to one thread; what would exceed a number of bytes is refused.

    Args:
        max_bytes: Bytes that may wait. One item may always, whatever its size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Frame | SoundPacket] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._is_closed = False
        self.missed = 0
        """Frames that were refused."""

    def put(self, item: Frame | SoundPacket) -> None:
        """Append an item; a frame that is refused is counted. Never waits."""
        size = item.num_bytes
        with self._changed:
            if self._waiting and self._bytes + size > self._max_bytes:
                self.missed += isinstance(item, Frame)
                return
            self._waiting.append(item)
            self._bytes += size
            self._changed.notify()

    def get(self, timeout_seconds: float | None = None) -> Frame | SoundPacket | None:
        """The next item; None if none came in time, or none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed, timeout_seconds)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._bytes -= item.num_bytes
            return item

    def clear(self) -> None:
        """Drop what waits."""
        with self._changed:
            self._waiting.clear()
            self._bytes = 0

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will be put."""
        return self._is_closed

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self._changed:
            return self._is_closed and not self._waiting

    def close(self) -> None:
        """Let the reader end after what waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
