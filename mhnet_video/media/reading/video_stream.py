"""Which stream of a file is its video, and what PyAV does not tell of it."""

import io
import re

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from mhnet_video.errors import ReadError
from mhnet_video.media.reading.source import COVER, why_unreadable

_CHROMA_LOCATIONS = {(1, 1): "topleft", (1, 2): "left", (2, 1): "top", (2, 2): "center"}
"""Matroska's numbers for where they are across and down: 1 beside the first luma sample, 2
between."""
_MAX_PIXELS = 1 << 28
"""A decoded picture of more needs gigabytes."""


def video_stream_of(container: InputContainer, name: str) -> VideoStream:
    """The first video of a file that is not a cover picture.

    Args:
        container: The file, open.
        name: What errors call it.

    Raises:
        ReadError: There is none, or it cannot be decoded here.
    """
    videos = list(container.streams.video)
    for stream in videos:
        if stream.disposition & COVER or stream.discard == Discard.all:
            continue
        if stream.disposition & Disposition.dependent:
            raise ReadError(
                f"{name} is a picture made of tiles, which cannot be put together here; "
                "convert it to JPEG or PNG first."
            )
        if stream.codec_context is not None:
            _check_size(stream, name)
            return stream
        raise ReadError(
            why_unreadable(container.name, name)
            or f"{name} holds video of a kind that this FFmpeg cannot decode; "
            "convert it to H.264 first."
        )
    found = "a cover picture but no video" if videos else "sound but no video"
    if not videos and not container.streams.audio:
        found = "no video"
    raise ReadError(f"{name} has {found}; name a video file.")


def _check_size(stream: VideoStream, name: str) -> None:
    width, height = stream.width, stream.height
    if width * height > _MAX_PIXELS:
        raise ReadError(
            f"{name} has {width}x{height} pixels, more than fit into memory; "
            "scale it down or cut it into parts first."
        )


def chroma_location_of(stream: VideoStream) -> str:
    """Where a stream's chroma samples lie, which PyAV has no name for, and Matroska's header has.

    FFmpeg says it in its log, too, but that can deadlock, see `source.py`.
    """
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
            written = header.getvalue()
    except (FFmpegError, OSError, ValueError, RuntimeError, TypeError):
        return ""
    found = re.search(rb"\x55\xb7\x81([\1\2])\x55\xb8\x81([\1\2])", written)
    return _CHROMA_LOCATIONS.get((found[1][0], found[2][0]), "") if found else ""
