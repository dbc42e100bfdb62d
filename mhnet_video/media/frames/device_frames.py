"""Frames whose samples are in a GPU's memory, and their way to the host."""

import contextlib
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from mhnet_video.frame import DeviceFrame, Frame, Plane
from mhnet_video.media.frames.pixel_formats import Decoded, planes_of, to_planar
from mhnet_video.media.frames.side_data import side_data_of

SEMI_PLANAR = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
"""Planar formats, and what they are on the GPU; PyAV exports no 4:2:2 and 4:4:4."""
_BITS_DOWN = {"nv12": 0, "p010le": 6}
"""Unused bits below a sample's."""
_SILENT = (
    SideDataType.DISPLAYMATRIX,
    SideDataType.SEI_UNREGISTERED,
    SideDataType.MASTERING_DISPLAY_METADATA,
    SideDataType.CONTENT_LIGHT_LEVEL,
)
"""Side data that no encoder writes, or that the writer knows from elsewhere."""
HARDWARE_FAILURES = (FFmpegError, OSError, ValueError, RuntimeError, MemoryError, TypeError)
"""What FFmpeg, PyAV and PyTorch raise where the hardware or its driver does not do."""


def is_exportable(picture: av.VideoFrame) -> bool:
    """Whether a picture is in a GPU's memory, in a format that PyAV exports."""
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
    planar = to_planar(downloaded(frame.picture), VideoReformatter())
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


def downloaded(picture: av.VideoFrame) -> av.VideoFrame:
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


@contextlib.contextmanager
def context_of(index: int) -> Iterator[None]:
    """Make PyTorch's context of a GPU the current one of this thread."""
    import torch

    with torch.cuda.device(index):
        # the first call of the runtime in a thread makes it current, which a guard alone does not
        # (of its stream alone: another thread may be recording a graph)
        torch.cuda.current_stream(index).synchronize()
        yield
