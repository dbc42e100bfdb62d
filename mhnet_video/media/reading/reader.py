"""Decode a video file into frames, and hand on what else is in it.

Times are the source's own. What is damaged is skipped and counted, never an error: a file that
opens and holds one picture can be read.
"""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import av
from av.stream import Stream

from mhnet_video.closing import Closing
from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.locator import shown
from mhnet_video.media.prefetch import Prefetcher, codec_threads
from mhnet_video.media.reading.decoder import Decoder, Item
from mhnet_video.media.reading.segment import Segment
from mhnet_video.media.reading.source import (
    SILENCE_SECONDS,
    is_animated_webp,
    is_cut_off,
    open_source,
    why_unreadable,
)
from mhnet_video.media.reading.source_timing import SourceTiming
from mhnet_video.media.reading.video_stream import chroma_location_of, video_stream_of

_MAX_WAITING = 16
"""Items that may be decoded ahead."""
_MAX_WAITING_BYTES = 48 << 20
"""Memory that they may hold."""


def size_in_bytes(item: object) -> int:
    """Memory that an item of a stream holds."""
    if isinstance(item, Frame):
        return item.num_bytes
    return item.size if isinstance(item, av.Packet) else 0


def decoded_ahead(items: Iterable[Item]) -> Prefetcher[Item]:
    """Decode on a thread of its own, as far ahead as a reader may."""
    return Prefetcher(
        items,
        name="mhnet-video reader",
        max_items=_MAX_WAITING,
        max_size=_MAX_WAITING_BYTES,
        size_of=size_in_bytes,
    )


class VideoReader(Closing):
    """Frames of the first video that is not a cover picture, and packets of all other streams.

    Iterating decodes on a thread of its own, a few frames ahead, and yields a `Frame` or an
    `av.Packet` in the order of the file.

    Args:
        source: Any video file or picture FFmpeg can decode; `-` for standard input.
        start: Where to begin, in seconds from the first frame; None for the beginning.
        duration: How much to read, in seconds; None for all there is.

    Raises:
        ReadError: There is no such file, or no video can be read from it.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        start: float | None = None,
        duration: float | None = None,
    ) -> None:
        self.name = "standard input" if os.fspath(source) == "-" else shown(source)
        self.start = Fraction(start or 0).limit_denominator(10**6)
        self.duration = None if duration is None else Fraction(duration).limit_denominator(10**6)
        self.container = open_source(source)
        try:
            self.stream = video_stream_of(self.container, self.name)
            self._prepare()
        except BaseException:
            self.container.close()
            raise
        self._prefetcher: Prefetcher[Item] | None = None

    def _prepare(self) -> None:
        # of threads over frames, PyAV drops what came with a frame that is damaged
        self.stream.thread_type = "SLICE"
        self.stream.codec_context.thread_count = codec_threads()
        self.time_base = Fraction(self.stream.time_base or Fraction(1, 90000))
        name = self.container.format.name
        is_one = name == "image2" or name.endswith("_pipe")
        self.is_picture = is_one or self.stream.frames == 1
        self._timing = SourceTiming(self.container, self.stream, self.time_base)
        self.fps = self._timing.fps
        self._told_frames = (
            1 if self.is_picture else self._timing.estimate_frames(self.start, self.duration)
        )
        self._decoder = self._new_decoder()
        self._segment = Segment(
            self._decoder,
            start=self.start,
            duration=self.duration,
            leaps=self._timing.leaps,
            seeks=self._timing.is_even,
        )

    def _new_decoder(self) -> Decoder:
        return Decoder(self.container, self.stream, name=self.name, fps=self.fps)

    def chapters(self) -> list[Any]:
        """The chapters of the source, as PyAV has them."""
        return list(self.container.chapters())

    @property
    def files(self) -> list[str]:
        """The files that are read, in order; none of a pipe or an address."""
        return [self.container.name] if os.path.isfile(self.container.name) else []

    def longest_pause(self, stream: Stream) -> Fraction:
        """The longest time that may pass from a packet of a stream to the next one.

        Args:
            stream: One of the container's.

        Returns:
            Seconds, by the file's index; how long the whole file is where it has none.
        """
        return self._timing.longest_pause(stream)

    def picture_bytes(self) -> bytes:
        """The bytes of a picture's file, once it is decoded.

        Returns:
            Empty for a video, and where they are not at hand: a HEIC from a pipe.
        """
        if not self.is_picture:
            return b""
        if os.path.isfile(self.container.name):
            return Path(self.container.name).read_bytes()
        return self._decoder.picture_bytes

    @property
    def num_frames(self) -> int | None:
        """Frames there will be, an estimate; None as long as nothing is known.

        By the headers or, where they do not tell, by how much of the file has been read.
        """
        if self._told_frames or self.start or self.duration is not None:
            return self._told_frames
        return self._decoder.damage.estimate_frames()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the stream, in pixels."""
        return self.stream.width, self.stream.height

    @property
    def damaged(self) -> int:
        """Packets and frames lost so far."""
        return self._decoder.damage.lost

    @property
    def passed_over(self) -> dict[str, int]:
        """What of the stream its decoder has passed over so far, and how many bytes of it."""
        return self._decoder.units.found

    @property
    def origin(self) -> Fraction | None:
        """The time that becomes zero in the output, in seconds; None until the first frame."""
        return self._segment.origin

    @property
    def end(self) -> Fraction | None:
        """Where the part that was asked for ends, on the source's clock in seconds.

        None for the file's end, and until the first frame.
        """
        return self._segment.end

    @property
    def jumps(self) -> int:
        """How often the recording's clock jumped so far; what follows a jump follows at once."""
        return self._segment.jumps

    @property
    def leaps(self) -> bool:
        """Whether the recording's clock may be set to a later time, too."""
        return self._timing.leaps

    @property
    def is_even(self) -> bool:
        """Whether the length that the headers tell can be true: no clock is seen to jump."""
        return self._timing.is_even

    @cached_property
    def chroma_location(self) -> str:
        """Where chroma samples lie, as FFmpeg names it: `center`, `topleft`; often empty."""
        return chroma_location_of(self.stream)

    @property
    def shortfall(self) -> str | None:
        """What is missing at the end of the part that was asked for, for a person, if anything."""
        if self._segment.is_complete:
            return None
        if self._decoder.is_stalled:
            return f"the end: nothing came from {self.name} for {SILENCE_SECONDS:.0f} s"
        if self._decoder.is_at_end and is_cut_off(self.container.name):
            return "the end: the source says that it is longer; copy it again"
        return None

    def ahead(self) -> Prefetcher[Item]:
        """The items, decoded ahead; the same prefetcher each time it is asked for."""
        if self._prefetcher is None:
            self._prefetcher = decoded_ahead(self.items())
        return self._prefetcher

    def __iter__(self) -> Iterator[Item]:
        """The items; a second iterator goes on where the first one ended."""
        return self.ahead()

    def items(self) -> Iterator[Item]:
        """The items, decoded as they are asked for, on the caller's thread.

        Raises:
            ReadError: There is no frame.
        """
        yield from self._segment.items()
        if self._segment.origin is None:
            raise ReadError(self._why_no_frame())

    def _why_no_frame(self) -> str:
        if self._decoder.is_stalled:
            return f"nothing came from {self.name} for {SILENCE_SECONDS:.0f} s; try again later."
        if self.start and (self.num_frames or self._decoder.has_picture):
            return f"{self.name} ends before {float(self.start):g} s; choose an earlier start."
        if is_animated_webp(self.container.name):
            return f"{self.name} is an animated WebP, which FFmpeg cannot decode; convert it first."
        return why_unreadable(self.container.name, self.name) or (
            f"no picture of {self.name} could be decoded; the file is damaged, "
            "copy it again from where it was recorded."
        )

    def decode_on_gpu(self, index: int) -> None:
        """Decode on a GPU if it can, from there on where it fails on the CPU; the log says which.

        To be called before there are items. Frames are then `DeviceFrame`, for the most part.

        Args:
            index: The GPU's number, as PyTorch counts them.
        """
        self._decoder.accelerate(index)

    def close(self) -> None:
        """End the thread and close the file."""
        if self._prefetcher is not None and not self._prefetcher.close(timeout_seconds=5):
            return  # the thread waits for input that may never come: the file is still its own
        self._decoder.close()
        self.container.close()
