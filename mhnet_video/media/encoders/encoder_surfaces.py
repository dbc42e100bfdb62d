"""Video that a GPU encodes by itself (NVENC), from its own memory.

Where that fails, one line of the log says so, and the encoder takes samples from the host.
"""

import contextlib
import logging
import os
from dataclasses import replace
from typing import Any, cast

import av
from av.video.frame import CudaContext

from mhnet_video.frame import DeviceFrame, Frame
from mhnet_video.media.encoders.encoder import EncoderSettings
from mhnet_video.media.frames.device_frames import (
    HARDWARE_FAILURES,
    SEMI_PLANAR,
    context_of,
    has_extras,
)

_log = logging.getLogger(__name__)


class Surfaces:
    """Hands frames to an NVENC encoder where they are, in the GPU's memory.

    Args:
        first: The first of the frames; others are of its kind, or go through the host.
    """

    pixel_format = "cuda"
    """Of the pictures, as FFmpeg names it."""
    host_format: str
    """Of pictures of the host's that the encoder takes between them."""

    def __init__(self, first: DeviceFrame) -> None:
        self._kind = _kind(first)
        self.host_format = "p010le" if first.bits_down else "nv12"
        self._index = first.luma.device.index or 0
        # one for all frames: it keeps what FFmpeg must set up for their size
        self._context: Any = CudaContext(device_id=self._index, primary_ctx=False, current_ctx=True)

    def takes(self, frame: Frame) -> bool:
        """Whether a frame is in the GPU's memory, and no more than its samples."""
        is_like = isinstance(frame, DeviceFrame) and _kind(frame) == self._kind
        return is_like and not has_extras(cast(DeviceFrame, frame).picture)

    def picture(self, frame: Frame) -> av.VideoFrame:
        """FFmpeg's picture of a frame that it takes; it shares the frame's memory, and keeps it."""
        import torch

        frame = cast(DeviceFrame, frame)
        kind = torch.uint16 if frame.bits_down else torch.uint8
        # PyTorch exports memory of the current GPU alone, and threads begin with the first
        with torch.cuda.device_of(frame.luma):  # type: ignore[no-untyped-call]
            picture = av.VideoFrame.from_dlpack(
                (frame.luma.view(kind), frame.chroma.view(kind)),
                format=self.host_format,
                cuda_context=self._context,
            )
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            if name in frame.tags:
                setattr(picture, name, frame.tags[name])
        return picture

    def ready(self) -> contextlib.AbstractContextManager[None]:
        """The context in which the first picture must be made."""
        return context_of(self._index)


def _kind(frame: DeviceFrame) -> tuple[int, int, int]:
    return frame.width, frame.height, frame.bits_down


def takes_surfaces(encoder: str) -> bool:
    """Whether an encoder takes pictures from a GPU's memory."""
    return encoder.endswith("_nvenc") and os.environ.get("MHNET_HWACCEL") != "0"


def open_surfaces(frame: Frame, settings: EncoderSettings) -> Surfaces | None:
    """A way from a GPU's memory to an encoder; None, and a line in the log, where it fails.

    Args:
        frame: The first one, for a try.
        settings: The encoder as it takes samples from the host.
    """
    if not isinstance(frame, DeviceFrame) or not takes_surfaces(settings.encoder):
        return None
    wanted = "nv12" if frame.bits_down == 0 else "p010le"
    if SEMI_PLANAR.get(settings.pixel_format, settings.pixel_format) != wanted:
        return None  # it would lose bits that a conversion on the host must take away
    try:
        surfaces = Surfaces(frame)
        with surfaces.ready():
            context: Any = av.CodecContext.create(settings.encoder, "w")
            replace(settings, pixel_format=surfaces.pixel_format).apply(context)
            picture = surfaces.picture(frame)
            picture.pts = 0
            if context.encode(picture) + context.encode(None):
                return surfaces
        said = "it gave nothing"
    except HARDWARE_FAILURES as error:
        said = str(error)
    _log.warning(
        "%s does not take pictures from the GPU's memory (%s): they go through the host",
        settings.encoder,
        said,
    )
    return None
