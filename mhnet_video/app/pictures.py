"""Frames of clips as JPEG pictures for the page, and the boxes drawn on them."""

from contextlib import nullcontext, suppress
from pathlib import Path

from mhnet_video.config import Box
from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.live.rendering import JpegEncoder, even_size
from mhnet_video.media.reading.reader import VideoReader

_MAX_SIZE = (1920, 1920)
"""Largest width and height of a picture, in pixels; larger frames are scaled down."""
_BACK_SECONDS = 0.5
"""How far before a time without a frame another one is tried: sound may last longer than video."""


def frame_at(path: Path, seconds: float) -> Frame:
    """The frame of a clip at a time, from the first frame.

    If the video has ended by then, a frame shortly before that time, or else the first one.

    Raises:
        ReadError: No frame can be decoded.
    """
    for start in sorted({seconds, max(0.0, seconds - _BACK_SECONDS), 0.0}, reverse=True):
        # there may be nothing from there on
        with (
            suppress(ReadError) if start else nullcontext(),
            VideoReader(path, start=start or None) as reader,
        ):
            for item in reader:
                if isinstance(item, Frame):
                    return item
    raise ReadError(f"no picture of {path} can be decoded; record or copy it again.")


def jpeg_of(paths: list[Path], seconds: float) -> bytes:
    """The frames of clips at a time, upright and side by side, each of the size of the first.

    Args:
        paths: A clip, or a clip and its result.
        seconds: Time from the first frame.

    Raises:
        ReadError: A clip has no frame that can be decoded.
    """
    frames = [frame_at(path, seconds) for path in paths]
    return JpegEncoder().encode(frames, even_size(frames[0], _MAX_SIZE))


def coded_box(box: Box, size: tuple[int, int], rotation: int) -> Box:
    """The box of the coded picture that is shown in a box of the upright one.

    Args:
        box: In pixels of the picture as it is shown.
        size: Width and height of the picture as it is shown.
        rotation: Degrees clockwise by which the coded picture is turned to show it.
    """
    right, below = size[0] - box.x - box.width, size[1] - box.y - box.height
    return {
        0: box,
        90: Box(box.y, right, box.height, box.width),
        180: Box(right, below, box.width, box.height),
        270: Box(below, box.x, box.height, box.width),
    }[rotation]
