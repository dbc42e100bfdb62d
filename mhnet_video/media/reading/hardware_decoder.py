"""Video that a GPU decodes by itself (NVDEC), into its own memory.

Where that fails, one line of the log says so, and the CPU goes on with the very next picture.
PyTorch owns the GPU's context; FFmpeg uses it as it is, since it would otherwise set up one of its
own, whose memory the kernels cannot see.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mhnet_video.errors import ReadError
from mhnet_video.media.frames.device_frames import (
    HARDWARE_FAILURES,
    SEMI_PLANAR,
    context_of,
    downloaded,
    has_extras,
    is_exportable,
    twin_of,
)
from mhnet_video.media.frames.pixel_formats import planes_of, to_planar
from mhnet_video.media.reading.source import Packet, filled_packets, open_source

_log = logging.getLogger(__name__)

_CONTEXT = {"primary_ctx": "0", "current_ctx": "1"}
"""FFmpeg's options for using the context that PyTorch has made."""
_CODECS = ("h264", "hevc", "vp9")
"""Codecs of which every decoder gives the same samples, by their standards; of AV1, PyAV takes a
decoder that knows no GPU."""
_MIN_KEPT = 32
"""Packets from which the CPU can take over: a decoder holds back fewer pictures."""
_MAX_KEPT_BYTES = 64 << 20
"""Size of the packets that are kept; a key frame interval that is larger is dropped."""
_MAX_PROBE_PACKETS = 64
"""Packets among which the first picture must come, or the CPU decodes the stream."""


@dataclass
class _Part:
    """Packets from a key frame on."""

    packets: list[Packet | None] = field(default_factory=list)
    returned: set[int | None] = field(default_factory=set)
    """The presentation timestamps of the pictures that were returned meanwhile."""


class HardwareDecoder:
    """Decodes on a GPU, and on the CPU from the first packet on which the GPU fails.

    The packets since a key frame some time ago are kept: the CPU begins there, and of what it
    decodes, the pictures that have been returned are left out.

    Args:
        container: The source, open a second time, with a decoder on the GPU.
        context: That decoder.
        software: Decodes a packet, or None for the end, on the CPU.
    """

    def __init__(
        self,
        container: Any,
        context: Any,
        software: Callable[[Packet | None], list[av.VideoFrame]],
    ) -> None:
        self._container, self._context, self._software = container, context, software
        self._parts: deque[_Part] = deque([_Part()])

    def decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """The pictures that a packet, or None for the end, completes."""
        if self._context is None:
            return self._software(packet)
        self._keep(packet)
        try:
            pictures: list[av.VideoFrame] = self._context.decode(packet)
        except EOFError:
            return []
        except HARDWARE_FAILURES as error:
            return self._on_cpu(error)
        self._parts[-1].returned.update(picture.pts for picture in pictures)
        return pictures

    def restart(self) -> None:
        """Forget what was decoded, as after a seek."""
        self._parts = deque([_Part()])
        if self._context is not None:
            self._context.flush_buffers()

    def close(self) -> None:
        """Release the GPU's decoder."""
        self._context = None
        self._container.close()

    def _keep(self, packet: Packet | None) -> None:
        if packet is not None and packet.is_keyframe:
            self._parts.append(_Part())
        self._parts[-1].packets.append(packet)
        while len(self._parts) > 2 and self._kept(1) >= _MIN_KEPT:
            self._parts.popleft()
        sizes = (each.size for part in self._parts for each in part.packets if each)
        if sum(sizes) > _MAX_KEPT_BYTES:
            self._parts = deque([_Part()])

    def _kept(self, first: int) -> int:
        return sum(len(part.packets) for index, part in enumerate(self._parts) if index >= first)

    def _on_cpu(self, error: Exception) -> list[av.VideoFrame]:
        """Decode what was kept again, and all that comes from now on, on the CPU."""
        _log.warning("the GPU's decoder fails (%s): decoding goes on on the CPU", error)
        parts, self._parts, self._context = self._parts, deque([_Part()]), None
        returned = {pts for part in parts for pts in part.returned}
        pictures = [
            picture
            for part in parts
            for packet in part.packets
            for picture in self._software(packet)
        ]
        return [picture for picture in pictures if picture.pts not in returned]


def open_decoder(
    container: InputContainer,
    stream: VideoStream,
    index: int,
    software: Callable[[Packet | None], list[av.VideoFrame]],
) -> HardwareDecoder | None:
    """A decoder on a GPU for a stream; None, and one line in the log, where there is none.

    The first picture is decoded on the GPU and on the CPU, and must be the same in every sample.

    Args:
        container: The source.
        stream: The stream to decode.
        index: The GPU's number.
        software: Decodes a packet, or None for the end, on the CPU.
    """
    said = _why_not(container, stream)
    if said:
        _log.info("video is decoded on the CPU: %s", said)
        return None
    second: Any = None
    try:
        second = _open_on_gpu(container.name, index)
        other = second.streams[stream.index]
        if not other.codec_context.is_hwaccel:
            raise ValueError("FFmpeg has no decoder on GPUs for it")
        # every thread would have surfaces of its own, of which there are few
        other.codec_context.thread_count = 1
        said = _why_differs(_first_picture(second, other), container.name, stream.index)
        if not said:
            other.codec_context.flush_buffers()
            return HardwareDecoder(second, other.codec_context, software)
    except (*HARDWARE_FAILURES, ReadError) as error:
        said = str(error)
    if second is not None:
        second.close()
    _log.warning("video is decoded on the CPU: %s", said)
    return None


def _why_not(container: InputContainer, stream: VideoStream) -> str:
    """Why a GPU does not decode a stream; empty if it may."""
    if os.environ.get("MHNET_HWACCEL") == "0":
        return "MHNET_HWACCEL=0 says so"
    if stream.codec_context.name not in _CODECS:
        return f"GPUs are not asked for {stream.codec_context.name}"
    if stream.pix_fmt not in SEMI_PLANAR or stream.width % 2 or stream.height % 2:
        return f"{stream.width}x{stream.height} {stream.pix_fmt} stays on the CPU"
    return "" if os.path.isfile(container.name) else "it cannot be opened twice"


def _open_on_gpu(name: str, index: int) -> InputContainer:
    with context_of(index):
        accelerator = HWAccel(
            "cuda",
            device=str(index),
            allow_software_fallback=True,
            options=dict(_CONTEXT),
            is_hw_owned=True,
        )
        return open_source(name, hwaccel=accelerator)


def _first_picture(container: Any, stream: Any) -> av.VideoFrame:
    for count, packet in enumerate(filled_packets(container, stream)):
        pictures = stream.codec_context.decode(packet)
        if pictures:
            return pictures[0]
        if count == _MAX_PROBE_PACKETS:
            break
    raise ValueError("no picture could be decoded on the GPU")


def _why_differs(found: av.VideoFrame, name: str, index: int) -> str:
    """Why a picture of the GPU's will not do in place of the CPU's; empty if it will."""
    if not is_exportable(found):
        return f"the GPU's driver gave {twin_of(found) or found.format.name} pictures"
    with open_source(name) as container:
        source: Any = container.streams[index]
        decoded = (source.decode(packet) for packet in filled_packets(container, source))
        expected: Any = next(chain.from_iterable(decoded), None)
        if expected is None:
            return "the CPU cannot decode it"
        if has_extras(expected) or has_extras(found):
            return "its pictures are interlaced, or carry more than samples"
        reformatter = VideoReformatter()
        pair = [to_planar(each, reformatter) for each in (downloaded(found), expected)]
        planes, wanted = map(planes_of, pair)
        is_same = found.pts is not None and found.pts == expected.pts
        if is_same and all(map(np.array_equal, planes, wanted)):
            return ""
    return "the GPU's first picture is not the CPU's"
