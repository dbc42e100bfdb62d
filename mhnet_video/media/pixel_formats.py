"""From FFmpeg's pictures to planes and back, without touching a sample.

Every pixel format has a planar, little-endian twin that holds the same values; a picture that is
one already is not copied.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Interpolation, VideoReformatter

from mhnet_video.color_spaces import (
    FULL_RANGE,
    LIMITED_RANGE,
    MATRIX_NUMBERS,
    UNSPECIFIED,
    usual_matrix,
)
from mhnet_video.frame import Frame, PixelLayout, Plane

_BEST = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)
# numbers of what x264 and x265 write about themselves, which is false of another encoding
_ENCODERS_DATA = (
    bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef"),
    bytes.fromhex("2ca2de09b51747dbbb55a4fe7fc2fc4e"),
)
_NAMED_PROFILES = ("png", "apng")
_SWS_TAGS = (0, 1, 2, 4, 5, 6, 7, 9)  # values of AVColorSpace that swscale takes

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


def side_data_of(picture: av.VideoFrame, codec: str = "") -> Any:
    """What a picture carries beside its samples, in PyAV's container.

    `picture.side_data` would keep that container, which holds the picture: they would stay until
    the garbage collector looks at objects as old as they are, hundreds of pictures later.

    Args:
        picture: What was decoded.
        codec: FFmpeg's name of the codec that it was decoded from.

    Raises:
        ValueError: It carries what PyAV does not know, or what it must not look at.
    """
    if codec in _NAMED_PROFILES:
        # PyAV 18 frees the name of a colour profile that the picture frees too
        raise ValueError("pictures of this codec may have a colour profile with a name")
    container: Any = SideDataContainer
    return container(picture)


def has_user_data(frame: Frame) -> bool:
    """Whether a frame was decoded from a picture with data of a camera's own in its stream."""
    decoded = frame.tags.get("decoded")
    if not isinstance(decoded, Decoded):
        return False
    try:
        found = list(side_data_of(decoded.picture, decoded.codec))
    except ValueError:
        return False
    return any(
        data.type == SideDataType.SEI_UNREGISTERED and is_user_data(bytes(data)) for data in found
    )


def is_user_data(message: bytes) -> bool:
    """Whether user data in a stream is not an encoder's note about itself."""
    return message[:16] not in _ENCODERS_DATA


def to_planar(picture: av.VideoFrame, reformatter: VideoReformatter) -> av.VideoFrame:
    """The picture in its planar twin; itself where it is planar."""
    name = picture.format.name
    if layout_of(name) is not None and all(plane.line_size > 0 for plane in picture.planes):
        return picture
    if layout_of(name) is not None:
        return _upright(picture)
    return _reformatted(reformatter, picture, format=planar_twin(name))


def _reformatted(
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


def _upright(picture: av.VideoFrame) -> av.VideoFrame:
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
            return _replaced(decoded.picture, frame.planes, changed)
    picture = av.VideoFrame(frame.width, frame.height, frame.layout.name)
    return _replaced(picture, frame.planes, range(len(frame.planes)))


def _replaced(
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


class Converter:
    """Brings frames to the one size and pixel format that an encoder has been opened with.

    Args:
        pixel_format: FFmpeg's name.
        width: Width, in pixels.
        height: Height, in pixels.
        samples: Matrix and whether the range is full, where YUV must be so; None for as it is.
    """

    def __init__(
        self,
        pixel_format: str,
        width: int,
        height: int,
        *,
        samples: tuple[str, bool] | None = None,
    ) -> None:
        self._samples = samples
        self._format = pixel_format
        self._layout = layout_of(pixel_format)
        self._width = width
        self._height = height
        self._reformatter = VideoReformatter()

    def convert(self, frame: Frame) -> av.VideoFrame:
        """FFmpeg's picture of a frame, changed no more than the encoder demands."""
        target = self._layout
        is_as_large = (frame.width, frame.height) == (self._width, self._height)
        if is_as_large and target is not None and self._has_samples(frame):
            frame = _finer(frame, target)
            if frame.layout.name == target.name:
                picture = picture_of(frame)
                if picture.format.name == self._format:
                    return picture
                # `yuvj420p` and `yuv420p` differ in name only
                copy = av.VideoFrame(self._width, self._height, self._format)
                return _replaced(copy, frame.planes, range(len(frame.planes)))
        return self._scaled(frame)

    def _has_samples(self, frame: Frame) -> bool:
        if self._samples is None or frame.layout.kind == "rgb":
            return True
        matrix, is_full = self._samples
        return frame.full_range == is_full and (
            frame.layout.kind == "gray" or frame.matrix == matrix
        )

    def _scaled(self, frame: Frame) -> av.VideoFrame:
        picture = picture_of(frame)
        if "yuvj" in picture.format.name and not frame.full_range:
            # the range changed in the middle; swscale goes by the name, whatever it is told
            plain = av.VideoFrame(frame.width, frame.height, frame.layout.name)
            picture = _replaced(plain, frame.planes, range(len(frame.planes)))
        is_rgb = av.VideoFormat(self._format, 16, 16).is_rgb
        matrix = MATRIX_NUMBERS.get(frame.matrix, MATRIX_NUMBERS["bt601"])
        source = {"src_color_range": FULL_RANGE if frame.full_range else LIMITED_RANGE}
        target = {"dst_color_range": source["src_color_range"]}
        is_other = is_rgb != (frame.layout.kind == "rgb")
        if self._samples is not None and not is_rgb:
            wanted, is_full = self._samples
            is_other = True
            source["src_colorspace"] = matrix
            target["dst_colorspace"] = MATRIX_NUMBERS.get(wanted, MATRIX_NUMBERS["bt601"])
            target["dst_color_range"] = FULL_RANGE if is_full else LIMITED_RANGE
        elif is_other:
            if is_rgb:
                source["src_colorspace"] = matrix
                target["dst_color_range"] = FULL_RANGE
            else:
                target["dst_colorspace"] = MATRIX_NUMBERS[usual_matrix(frame.height)]
                target["dst_color_range"] = FULL_RANGE if "yuvj" in self._format else LIMITED_RANGE
        elif is_rgb:
            source = {"src_color_range": FULL_RANGE}
            target = {"dst_color_range": FULL_RANGE}
        return _reformatted(
            self._reformatter,
            picture,
            hides_matrix=is_other,
            width=self._width,
            height=self._height,
            format=self._format,
            interpolation=_BEST,
            **source,
            **target,
        )


def _finer(frame: Frame, target: PixelLayout) -> Frame:
    """The frame with its chroma repeated, or made for grey, where that is all there is to do."""
    source = frame.layout
    if source.name == target.name or source.bits != target.bits or target.kind != "yuv":
        return frame
    if source.has_alpha != target.has_alpha:
        if target.has_alpha or source.kind == "rgb":
            return frame
        frame = replace(frame, planes=frame.planes[:-1])
    if source.kind == "gray":
        height = -(-frame.height >> target.chroma_shift_y)
        width = -(-frame.width >> target.chroma_shift_x)
        neutral = np.full((height, width), 1 << (source.bits - 1), frame.planes[0].dtype)
        return replace(frame, planes=(frame.planes[0], neutral, neutral), layout=target)
    repeat_x = source.chroma_shift_x - target.chroma_shift_x
    repeat_y = source.chroma_shift_y - target.chroma_shift_y
    if source.kind != "yuv" or repeat_x < 0 or repeat_y < 0:
        return frame
    height = -(-frame.height >> target.chroma_shift_y)
    width = -(-frame.width >> target.chroma_shift_x)
    chroma = [
        plane.repeat(1 << repeat_y, axis=0)[:height].repeat(1 << repeat_x, axis=1)[:, :width]
        for plane in frame.planes[1:3]
    ]
    return replace(frame, planes=(frame.planes[0], *chroma, *frame.planes[3:]), layout=target)


def upright(frame: Frame) -> Frame:
    """The frame as a player shows it: its samples turned and mirrored, and nothing left to do.

    Where chroma is shared by more samples of a row than of a column, or the other way round, it is
    repeated, should the picture have to be turned by a quarter.
    """
    matrix = frame.tags.get("display_matrix")
    if matrix is None:
        return frame
    tags = {k: v for k, v in frame.tags.items() if k not in ("decoded", "display_matrix")}
    # a sample at (x, y) is shown at (a x + c y, b x + d y)
    a, b, _, c, d = matrix[:5]
    is_quarter = abs(b) > abs(a)
    layout = frame.layout
    if is_quarter and layout.chroma_shift_x != layout.chroma_shift_y:
        finest = layout_of(re.sub(r"4\d\d", "444", layout.name))
        frame = _finer(frame, finest) if finest is not None else frame
    down, right = (b, c) if is_quarter else (d, a)
    planes = []
    for plane in frame.planes:
        turned = plane.T if is_quarter else plane
        turned = turned[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
        planes.append(np.ascontiguousarray(turned))
    tags["is_quarter_turned"] = is_quarter
    return replace(frame, planes=tuple(planes), rotation=0, tags=tags)


def beside(before: Frame, after: Frame) -> Frame:
    """Two frames in one, the first one on the left as a player shows them.

    Where the size is odd and chroma is shared by two columns or rows, the edge is repeated.
    """
    is_turned = after.rotation in (90, 270)
    pair = (after, before) if after.rotation in (180, 90) else (before, after)
    axis = 0 if is_turned else 1
    shift = after.layout.chroma_shift_y if is_turned else after.layout.chroma_shift_x
    planes = []
    for index in range(len(after.planes)):
        halves = [frame.planes[index] for frame in pair]
        is_chroma = after.layout.kind == "yuv" and index in (1, 2)
        missing = 0 if is_chroma else -halves[0].shape[axis] % (1 << shift)
        widths = [(0, missing) if i == axis else (0, 0) for i in (0, 1)]
        planes.append(np.concatenate([np.pad(h, widths, mode="edge") for h in halves], axis))
    tags = {name: value for name, value in after.tags.items() if name != "decoded"}
    return replace(after, planes=tuple(planes), tags=tags)
