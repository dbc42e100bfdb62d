"""Facts about the video of a file, from its headers; no frame is decoded."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import av

from mhnet_video.errors import ReadError
from mhnet_video.media.formats.suffixes import PREVIEW_SUFFIXES, VIDEO_SUFFIXES
from mhnet_video.media.reading.discontinuities import FORWARD_SECONDS
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import packets_of
from mhnet_video.media.segments.segment_plan import kind_of

_OLDEST_YEAR = 2000
"""Clocks that were never set count from 1904, 1970 or 1980."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """Facts about the video of a file."""

    seconds: float
    """Duration in seconds; 0 if the file does not say. Of a transport stream whose clock jumps, by
    its packets."""
    created: datetime | None
    """Time of recording in UTC, by the container; None if it does not say."""
    kind: tuple[Hashable, ...]
    """Codec, size, pixel format and what other streams there are; those of one recording have the
    same. A file without a picture that can be decoded has another one than those with."""


class PictureError(ReadError):
    """The file is a picture."""


def look_at(path: Path) -> VideoFacts:
    """Open a file, and read the facts about its video.

    Raises:
        PictureError: It is a picture, and its name does not say that it is a video.
        ReadError: It cannot be read, or holds no video.
    """
    with VideoReader(path) as reader:
        # one frame may be all that a recording has, and FFmpeg takes JPEGs in a row for one
        if reader.is_picture and not is_named_like_video(path):
            raise PictureError(f"{path} is a picture; name a video file.")
        container, stream = reader.container, reader.stream
        return VideoFacts(
            seconds=_seconds_of(reader),
            created=_time_of(container.metadata) or _time_of(stream.metadata),
            kind=(stream.codec_context.name, *kind_of(reader).values()),
        )


def _seconds_of(reader: VideoReader) -> float:
    container = reader.container
    if reader.is_even:
        return max(0.0, (container.duration or 0) / av.time_base)
    seconds = step = 1 / reader.fps
    last: Fraction | None = None
    for packet in packets_of(container, reader.stream):
        if packet.dts is not None:
            time = packet.dts * reader.time_base
            if last is not None:
                seconds += time - last if 0 < time - last <= FORWARD_SECONDS else step
            last = time
    return float(seconds)


def is_named_like_video(path: Path) -> bool:
    """Whether a file's name says that it is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_named_like_preview(path: Path) -> bool:
    """Whether a file's name says that it is a camera's small copy of another file."""
    return path.suffix.lower() in PREVIEW_SUFFIXES


def _time_of(metadata: dict[str, str]) -> datetime | None:
    text = re.sub(r"(\.\d{6})\d*", r"\1", metadata.get("creation_time", ""))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time if time.year >= _OLDEST_YEAR else None
