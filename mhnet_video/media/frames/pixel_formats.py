"""From FFmpeg's pictures to planes and back, without touching a sample.

Every pixel format has a planar, little-endian twin that holds the same values; a picture that is
one already is not copied.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from mhnet_video.color_spaces import UNSPECIFIED
from mhnet_video.frame import Frame, PixelLayout, Plane

_SWS_TAGS = (0, 1, 2, 4, 5, 6, 7, 9)
"""Values of AVColorSpace that swscale takes."""

_TWINS = {
    "monow": "gray",
    "monob": "gray",
    "ya8": "gbrap",
    "ya16le": "gbrap16le",
    "pal8": "gbrap",
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "nv20le": "yuv422p10le",
    "nv24": "yuv444p",
    "nv42": "yuv444p",
    "p010le": "yuv420p10le",
    "p012le": "yuv420p12le",
    "p016le": "yuv420p16le",
    "p210le": "yuv422p10le",
    "p212le": "yuv422p12le",
    "p216le": "yuv422p16le",
    "p410le": "yuv444p10le",
    "p412le": "yuv444p12le",
    "p416le": "yuv444p16le",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yvyu422": "yuv422p",
    "uyyvyy411": "yuv411p",
    "y210le": "yuv422p10le",
    "y212le": "yuv422p12le",
    "y216le": "yuv422p16le",
    "vuyx": "yuv444p",
    "vyu444": "yuv444p",
    "vuya": "yuva444p",
    "ayuv": "yuva444p",
    "uyva": "yuva444p",
    "ayuv64le": "yuva444p16le",
    "xv30le": "yuv444p10le",
    "v30xle": "yuv444p10le",
    "xv36le": "yuv444p12le",
    "xv48le": "yuv444p16le",
    "x2rgb10le": "gbrp10le",
    "x2bgr10le": "gbrp10le",
    "xyz12le": "gbrp16le",
}
"""Packed and semi-planar formats, and the planar one that holds the same samples."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """FFmpeg's picture behind a frame, kept in `Frame.tags["decoded"]`.

    The writer hands it to the encoder again, so that what it carries beside its samples
    (captions, field order) goes along.
    """

    picture: av.VideoFrame
    planes: tuple[Plane, ...]
    codec: str = ""
    """FFmpeg's name of the codec that it was decoded from, as far as it matters."""


class _Writable:
    """Memory of a read-only array, as numpy's array interface describes it.

    FFmpeg exports its planes read-only, which torch warns about on every import.
    """

    def __init__(self, array: Plane) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self._array = array


@cache
def layout_of(name: str) -> PixelLayout | None:
    """The layout of a pixel format, None for one that is not planar or not of 8 to 16 bits."""
    plain = name.replace("yuvj", "yuv")
    try:
        pixel_format = av.VideoFormat(plain, 64, 64)
    except ValueError:
        return None
    components = pixel_format.components
    planes = [component.plane for component in components]
    bits = {component.bits for component in components}
    is_gray = re.fullmatch(r"gray(9|10|12|14|16)?(le)?", plain) is not None
    is_yuv = re.fullmatch(r"yuva?4\d\dp(9|10|12|14|16)?(le)?", plain) is not None
    is_rgb = re.fullmatch(r"gbra?p(9|10|12|14|16)?(le)?", plain) is not None
    if not (is_gray or is_yuv or is_rgb) or len(set(planes)) != len(planes) or len(bits) != 1:
        return None
    return PixelLayout(
        name=plain,
        kind="gray" if is_gray else "yuv" if is_yuv else "rgb",
        bits=bits.pop(),
        chroma_shift_x=_shift(pixel_format.chroma_width(64)) if is_yuv else 0,
        chroma_shift_y=_shift(pixel_format.chroma_height(64)) if is_yuv else 0,
        has_alpha=any(component.is_alpha for component in components),
    )


def _shift(share: int) -> int:
    """log2 of how often `share` goes into 64."""
    return (64 // share).bit_length() - 1


@cache
def planar_twin(name: str) -> str:
    """The planar format that holds every value of `name`; itself where it is one."""
    if layout_of(name) is not None:
        return name
    little = re.sub(r"be$", "le", name)
    if layout_of(little) is not None:
        return little
    if little in _TWINS:
        return _TWINS[little]
    pixel_format = av.VideoFormat(name, 64, 64)
    bits = max(component.bits for component in pixel_format.components)
    has_alpha = any(component.is_alpha for component in pixel_format.components)
    if not pixel_format.is_rgb and len(pixel_format.components) == 1:
        return "gray" if bits <= 8 else "gray16le"
    if pixel_format.is_rgb:
        return ("gbrap" if has_alpha else "gbrp") + ("" if bits <= 8 else "16le")
    return ("yuva444p" if has_alpha else "yuv444p") + ("" if bits <= 8 else "16le")


def planes_of(picture: av.VideoFrame) -> tuple[Plane, ...]:
    """Views of a planar picture's samples; they keep its memory alive."""
    return tuple(np.asarray(_Writable(np.from_dlpack(plane))) for plane in picture.planes)


def to_planar(picture: av.VideoFrame, reformatter: VideoReformatter) -> av.VideoFrame:
    """The picture in its planar twin; itself where it is planar."""
    name = picture.format.name
    if layout_of(name) is not None and all(plane.line_size > 0 for plane in picture.planes):
        return picture
    if layout_of(name) is not None:
        return _from_the_top(picture)
    return reformatted(reformatter, picture, format=planar_twin(name))


def reformatted(
    reformatter: VideoReformatter, picture: av.VideoFrame, *, hides_matrix: bool = False, **to: Any
) -> av.VideoFrame:
    """The picture as FFmpeg converts it; its own tags stay as they are.

    Args:
        reformatter: One for pictures of this kind.
        picture: What to convert.
        hides_matrix: Whether the picture's own matrix is not to be looked at.
        to: What `VideoReformatter.reformat` takes.
    """
    tag = picture.colorspace
    if hides_matrix or tag not in _SWS_TAGS:
        # swscale refuses matrices it does not know, also where it need not know them
        picture.colorspace = UNSPECIFIED
    try:
        return reformatter.reformat(picture, threads=1, **to)
    finally:
        picture.colorspace = tag


def _from_the_top(picture: av.VideoFrame) -> av.VideoFrame:
    """A copy of a picture whose rows are stored from the last to the first."""
    copy = av.VideoFrame(picture.width, picture.height, picture.format.name)
    for source, target in zip(picture.planes, copy.planes, strict=True):
        rows = np.frombuffer(memoryview(source), np.uint8)
        rows = rows.reshape(source.height, -source.line_size)[::-1]
        into = np.frombuffer(memoryview(target), np.uint8)
        into = into.reshape(target.height, target.line_size)
        width = min(rows.shape[1], into.shape[1])
        into[:, :width] = rows[:, :width]
    return copy


def picture_of(frame: Frame) -> av.VideoFrame:
    """FFmpeg's picture with the samples of a frame; the decoded one where nothing has changed."""
    decoded = frame.tags.get("decoded")
    if isinstance(decoded, Decoded) and len(decoded.planes) == len(frame.planes):
        changed = [
            index for index, plane in enumerate(frame.planes) if plane is not decoded.planes[index]
        ]
        if all(frame.planes[i].shape == decoded.planes[i].shape for i in changed):
            return with_samples(decoded.picture, frame.planes, changed)
    picture = av.VideoFrame(frame.width, frame.height, frame.layout.name)
    return with_samples(picture, frame.planes, range(len(frame.planes)))


def with_samples(
    picture: av.VideoFrame, planes: tuple[Plane, ...], changed: Sequence[int]
) -> av.VideoFrame:
    """The picture with some of its planes overwritten."""
    if changed:
        # views of its planes hold references to its memory, so this moves the picture to a
        # copy unless nobody else looks at it any more
        picture.make_writable()
    targets = picture.planes
    for index in changed:
        plane = planes[index]
        target = np.frombuffer(memoryview(targets[index]), plane.dtype)
        target = target.reshape(-1, targets[index].line_size // plane.itemsize)
        target[: plane.shape[0], : plane.shape[1]] = plane
    return picture
