"""Video that a GPU decodes and encodes by itself: NVDEC and NVENC, without a way through the host.

Both are used where they are there, and given up where they fail, which one line of the log says:
decoding goes on on the CPU with the very next picture, encoding takes its samples from the host.
PyTorch owns the GPU's context; FFmpeg is told to use it as it is, since it would otherwise set up
one of its own, whose memory the kernels cannot see.
"""

import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, cast

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import CudaContext
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mhnet_video.errors import ReadError
from mhnet_video.frame import DeviceFrame, Frame, Plane
from mhnet_video.media.encoder import EncoderSettings
from mhnet_video.media.pixel_formats import Decoded, planes_of, side_data_of, to_planar
from mhnet_video.media.source import Packet, filled_packets, open_source

_log = logging.getLogger(__name__)

_CONTEXT = {"primary_ctx": "0", "current_ctx": "1"}
"""How FFmpeg is to find the context that PyTorch has made."""
_CODECS = ("h264", "hevc", "vp9")
"""Codecs of which every decoder gives the same samples, by their standards; of AV1, PyAV takes a
decoder that knows no GPU."""
# 4:2:0 of 8 and 10 bits, and what they are on the GPU: of 4:2:2 and 4:4:4 PyAV exports nothing
_FORMATS = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
_BITS_DOWN = {"nv12": 0, "p010le": 6}
_SILENT = (
    SideDataType.DISPLAYMATRIX,
    SideDataType.SEI_UNREGISTERED,
    SideDataType.MASTERING_DISPLAY_METADATA,
    SideDataType.CONTENT_LIGHT_LEVEL,
)
"""What a picture carries that no encoder writes down, or that the writer knows from elsewhere."""
# packets from which the CPU can take over: a decoder holds back less than so many pictures
_MIN_KEPT = 32
_MAX_KEPT_BYTES = 64 << 20
_MAX_PROBE_PACKETS = 64
"""A stream whose first picture needs more packets than this is the CPU's."""
_FAILURES = (FFmpegError, OSError, ValueError, RuntimeError, MemoryError, TypeError)
"""What FFmpeg, PyAV and PyTorch raise where the hardware or its driver does not do."""


def is_exportable(picture: av.VideoFrame) -> bool:
    """Whether a picture lies in a GPU's memory, in a form that can be used there."""
    return picture.format.name == "cuda" and twin_of(picture) in _BITS_DOWN


def twin_of(picture: av.VideoFrame) -> str:
    """FFmpeg's name of what a picture in a GPU's memory would be in the host's."""
    return picture.sw_format.name if picture.sw_format is not None else ""


def samples_of(picture: av.VideoFrame) -> tuple[Any, Any, int]:
    """Luma, chroma and the unused bits of a picture that `is_exportable`; see `DeviceFrame`.

    The tensors are views of the picture's memory and keep it alive. What fills it is queued on the
    GPU's default stream: others must wait for that.
    """
    import torch

    planes = []
    for plane in picture.planes[:2]:
        # the capsule, as PyAV takes no stream and PyTorch would name one
        samples = torch.utils.dlpack.from_dlpack(plane.__dlpack__())
        planes.append(samples if samples.element_size() == 1 else samples.view(torch.int16))
    return planes[0], planes[1], _BITS_DOWN[twin_of(picture)]


def has_extras(picture: av.VideoFrame) -> bool:
    """Whether a picture carries something beside its samples that an encoder would pass on."""
    if picture.interlaced_frame:
        return True
    try:
        return any(data.type not in _SILENT for data in side_data_of(picture))
    except ValueError:
        return True  # PyAV 18 stumbles over side data that it does not know


def on_host(frame: Frame) -> Frame:
    """The frame with its samples in the host's memory; itself where they are."""
    if not isinstance(frame, DeviceFrame):
        return frame
    planar = to_planar(_downloaded(frame.picture), VideoReformatter())
    own = planes_of(planar)
    planes = own
    if frame.luma.data_ptr() != _first_address(frame.picture):  # it has other samples by now
        planes = planes_of_two(frame.luma, frame.chroma, frame.bits_down)
    tags = frame.tags | {"decoded": Decoded(planar, own)}
    return replace(_plain(frame), planes=planes, tags=tags)


def _plain(frame: DeviceFrame) -> Frame:
    """Everything about a frame but where its samples are."""
    return Frame(**{each.name: getattr(frame, each.name) for each in fields(Frame)})


def _first_address(picture: av.VideoFrame) -> int:
    return int(samples_of(picture)[0].data_ptr())


def _downloaded(picture: av.VideoFrame) -> av.VideoFrame:
    """The picture with all that it carries, in the host's memory."""
    return picture.reformat(format=twin_of(picture))


def planes_of_two(luma: Any, chroma: Any, bits_down: int) -> tuple[Plane, ...]:
    """Three planes of the host's from two, new ones.

    Args:
        luma: `[H, W]` uint8 or int16, on any device.
        chroma: `[H / 2, W / 2, 2]`, likewise.
        bits_down: Unused bits below a sample's.
    """
    kind = np.uint8 if luma.element_size() == 1 else np.uint16
    light, colour = (each.cpu().numpy().view(kind) for each in (luma, chroma))
    # a shift makes a copy, also one by nothing
    return tuple(each >> bits_down for each in (light, colour[..., 0], colour[..., 1]))


def with_planes(frame: Frame, planes: tuple[Plane, ...]) -> Frame:
    """A frame with samples in the host's memory, wherever its own are.

    What its picture carries beside its samples stays with it.
    """
    if isinstance(frame, DeviceFrame):
        frame = on_host(frame) if has_extras(frame.picture) else _plain(frame)
    return replace(frame, planes=planes)


# -- decoding


@dataclass
class _Part:
    """Packets from a key frame on, and the times of the pictures that came while they did."""

    packets: list[Packet | None] = field(default_factory=list)
    given: set[int | None] = field(default_factory=set)


class HardwareDecoder:
    """Decodes on a GPU, and on the CPU from the first packet on which the GPU fails.

    The packets since a key frame some time ago are kept: the CPU begins there, and of what it
    decodes, the pictures that have been given are left out.

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
        """The pictures that a packet, or None for the end, brings forth."""
        if self._context is None:
            return self._software(packet)
        self._keep(packet)
        try:
            pictures: list[av.VideoFrame] = self._context.decode(packet)
        except EOFError:
            return []
        except _FAILURES as error:
            return self._on_cpu(error)
        self._parts[-1].given.update(picture.pts for picture in pictures)
        return pictures

    def restart(self) -> None:
        """Forget what was decoded, as after a search."""
        self._parts = deque([_Part()])
        if self._context is not None:
            self._context.flush_buffers()

    def close(self) -> None:
        """Give the GPU's decoder back."""
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
        given = {pts for part in parts for pts in part.given}
        pictures = [
            picture
            for part in parts
            for packet in part.packets
            for picture in self._software(packet)
        ]
        return [picture for picture in pictures if picture.pts not in given]


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
        stream: What is to be decoded.
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
    except (*_FAILURES, ReadError) as error:
        said = str(error)
    if second is not None:
        second.close()
    _log.warning("video is decoded on the CPU: %s", said)
    return None


def _why_not(container: InputContainer, stream: VideoStream) -> str:
    """Why a GPU is not asked to decode a stream; empty if it is."""
    if os.environ.get("MHNET_HWACCEL") == "0":
        return "MHNET_HWACCEL=0 says so"
    if stream.codec_context.name not in _CODECS:
        return f"GPUs are not asked for {stream.codec_context.name}"
    if stream.pix_fmt not in _FORMATS or stream.width % 2 or stream.height % 2:
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


@contextlib.contextmanager
def context_of(index: int) -> Iterator[None]:
    """Make PyTorch's context of a GPU the current one of this thread."""
    import torch

    with torch.cuda.device(index):
        # the first call of the runtime in a thread makes it current, which a guard alone does not
        # (of its stream alone: another thread may be recording a graph)
        torch.cuda.current_stream(index).synchronize()
        yield


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
        pair = [to_planar(each, reformatter) for each in (_downloaded(found), expected)]
        planes, wanted = map(planes_of, pair)
        is_same = found.pts is not None and found.pts == expected.pts
        if is_same and all(map(np.array_equal, planes, wanted)):
            return ""
    return "the GPU's first picture is not the CPU's"


# -- encoding


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
        """What the first picture is to be made in."""
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
    if _FORMATS.get(settings.pixel_format, settings.pixel_format) != wanted:
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
    except _FAILURES as error:
        said = str(error)
    _log.warning(
        "%s does not take pictures from the GPU's memory (%s): they go through the host",
        settings.encoder,
        said,
    )
    return None
