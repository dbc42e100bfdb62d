"""A visitor's own camera as a live source: JPEG pictures that a browser sends, and nothing kept.

One visitor at a time has the network; the newest of his pictures wins. Each visitor has a key of
his own, by which his pictures come back to him and to nobody else.
"""

import hmac
import secrets
import threading
import time
from typing import NamedTuple

from mhnet_video.media.frames.image_metadata import picture_size

MAX_BYTES = 1 << 20
"""Most bytes of one JPEG."""
KEY_TAG = "visitor"
"""The tag of a frame that holds the key of the visitor whose camera it is from."""

_MAX_PIXELS = 1920 * 1080
"""Most pixels of a picture."""
_MIN_SIDE = 16
"""Least width and height of a picture, in pixels."""
_IDLE_SECONDS = 5.0
"""Time without a picture after which a visitor counts as gone."""
_SIZE_SECONDS = 3.0
"""Least time between two changes of size, as an engine may compile kernels for each."""


class Sent(NamedTuple):
    """A picture that a visitor has sent."""

    jpeg: bytes
    key: str
    arrival: float
    """On the clock of `time.monotonic`."""


class Visitors:
    """Who sends pictures, and the newest of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._key = ""
        self._heard_at = 0.0
        self._newest: Sent | None = None
        self._number = -1
        self._size = (0, 0)
        self._sized_at = float("-inf")

    def enter(self) -> str:
        """The key of a new visitor; empty while another one is there."""
        with self._changed:
            if self._is_taken():
                return ""
            self._key = secrets.token_urlsafe(18)
            self._heard_at = time.monotonic()
            self._newest, self._number = None, -1
            self._sized_at = float("-inf")
            return self._key

    def leave(self, key: str) -> None:
        """A visitor goes; ignored from others."""
        with self._changed:
            if self._is_present(key):
                self._key, self._newest = "", None

    @property
    def is_taken(self) -> bool:
        """Whether a visitor is there."""
        with self._changed:
            return self._is_taken()

    def is_present(self, key: str) -> bool:
        """Whether this is the key of the visitor who is there."""
        with self._changed:
            return self._is_present(key)

    def _is_taken(self) -> bool:
        return bool(self._key) and time.monotonic() - self._heard_at < _IDLE_SECONDS

    def _is_present(self, key: str) -> bool:
        return self._is_taken() and hmac.compare_digest(
            key.encode("utf-8", "replace"), self._key.encode()
        )

    def put(self, key: str, jpeg: bytes, number: int) -> bool:
        """Take a picture, instead of one that nobody has asked for yet.

        Args:
            key: Who sends it.
            jpeg: The picture.
            number: Counts his pictures: one that was overtaken on its way is left out.

        Returns:
            Whether it may be sent: a JPEG of 16 to 1920 pixels or so a side, from who is there.
        """
        size = picture_size(jpeg)
        is_fit = size is not None and size[0] * size[1] <= _MAX_PIXELS and min(size) >= _MIN_SIDE
        now = time.monotonic()
        with self._changed:
            if size is None or not is_fit or not self._is_present(key):
                return False
            self._heard_at = now
            if number <= self._number:
                return True
            self._number = number
            if size != self._size:
                if now - self._sized_at < _SIZE_SECONDS:
                    return True
                self._size, self._sized_at = size, now
            self._newest = Sent(jpeg, key, now)
            self._changed.notify_all()
            return True

    def get(self, timeout_seconds: float) -> Sent | None:
        """The newest picture, once; None if none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None, timeout_seconds)
            sent, self._newest = self._newest, None
            return sent
