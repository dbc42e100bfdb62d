"""The page's pictures as JPEG: encoded once for all visitors, and only while any watches."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mhnet_video.live.exchange import Latest
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.rendering import JpegEncoder, even_size

BOUNDARY = "mhnet-video-frame"
"""Between the parts of the stream."""
MAX_SIZE = (1280, 1280)
"""Most width and height of each half of the picture, in pixels; it has two, side by side."""

_TICK_SECONDS = 0.2
"""How long a thread waits for a frame before it looks whether one is still wanted."""


@dataclass(frozen=True, eq=False)
class JpegPart:
    """A frame before and after, side by side, as a JPEG for the stream."""

    frame: LiveFrame
    part: bytes
    """The JPEG as a part of a multipart stream."""


async def newest_frames(
    frames: Latest[LiveFrame], wanted: asyncio.Event
) -> AsyncIterator[LiveFrame]:
    """The newest frame each time one is asked for, while any is wanted, until the source ends."""
    number = 0
    while not frames.is_closed:
        await wanted.wait()
        newest = await asyncio.to_thread(frames.get, number, _TICK_SECONDS)
        if newest is not None:
            number, frame = newest
            yield frame


class PictureStream:
    """The newest picture, for any number of visitors; all on one event loop.

    Args:
        frames: The newest frames.
    """

    def __init__(self, frames: Latest[LiveFrame]) -> None:
        self._frames = frames
        self._watchers = 0
        self._watched = asyncio.Event()
        self._newest: JpegPart | None = None
        self._arrived = asyncio.Event()
        self._is_over = False

    @property
    def watchers(self) -> int:
        """Visitors who watch."""
        return self._watchers

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a watching visitor in, and out at the end."""
        self._watchers += 1
        self._watched.set()
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._watched.clear()
                # who comes later must not begin with an old one
                self._newest = None

    async def newer(self, seen: JpegPart | None) -> JpegPart | None:
        """Wait for a picture other than the last one seen; None when there will be no more."""
        while self._newest is None or self._newest is seen:
            if self._is_over:
                return None
            await self._arrived.wait()
        return self._newest

    async def run(self) -> None:
        """Encode while anybody watches, until the source ends."""
        encoder = JpegEncoder()
        async for frame in newest_frames(self._frames, self._watched):
            size = even_size(frame.after, MAX_SIZE)
            jpeg = await asyncio.to_thread(encoder.encode, [frame.before, frame.after], size)
            head = (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            )
            if self._watchers:
                self._newest = JpegPart(frame, head.encode() + jpeg + b"\r\n")
                self._announce()
        self._is_over = True
        self._announce()

    def _announce(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()
