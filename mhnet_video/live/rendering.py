"""How live pictures are shown: upright, before and after, whole, side by side or divided.

Knows no window and no page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from mhnet_video.color_spaces import MATRIX_NUMBERS
from mhnet_video.config import VIEWS
from mhnet_video.frame import Frame
from mhnet_video.media.frames.pixel_formats import picture_of

_QUALITY = 2
"""FFmpeg's scale of JPEG pictures, from 1, the best, to 31."""
_STRENGTH_STEP = 0.1
"""Change of the strength by one key press."""


def fit(width: int, height: int, into: tuple[int, int]) -> tuple[int, int]:
    """The largest even size of this aspect within another, enlarged or shrunk."""
    share = min(into[0] / width, into[1] / height)
    sides = zip((width, height), into, strict=True)
    columns, rows = (min(round(side * share / 2), most // 2) for side, most in sides)
    return 2 * max(1, columns), 2 * max(1, rows)


def even_size(frame: Frame, most: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a frame as it is shown, even, and shrunk where it is larger than most."""
    width, height = frame.upright_size
    if width > most[0] or height > most[1]:
        return fit(width, height, most)
    return max(2, width // 2 * 2), max(2, height // 2 * 2)


class Painter:
    """Makes pictures of frames, in one format; not for several threads at once.

    Args:
        pixel_format: FFmpeg's name: `bgr24`, `rgb24`, `yuvj420p` or `yuv420p`.
    """

    def __init__(self, pixel_format: str) -> None:
        self._format = pixel_format
        self._reformatter = VideoReformatter()

    def paint(self, frame: Frame, size: tuple[int, int] | None = None) -> list[NDArray[np.uint8]]:
        """The planes of a frame, upright, at a size; the one plane `[h, w, 3]` for RGB.

        Args:
            frame: The frame.
            size: Width and height as shown, even; None for its own.
        """
        width, height = size or frame.upright_size
        if frame.rotation % 180:
            width, height = height, width
        is_rgb = self._format.endswith("24")
        is_full = is_rgb or "yuvj" in self._format
        # JPEG knows one matrix only; what is encoded otherwise keeps its own
        matrix = MATRIX_NUMBERS.get(frame.matrix, MATRIX_NUMBERS["bt601"])
        target = MATRIX_NUMBERS["bt601"] if "yuvj" in self._format else matrix
        is_from_rgb = frame.layout.kind == "rgb"
        picture = self._reformatter.reformat(
            picture_of(replace(frame, tags={})),
            width=width,
            height=height,
            format=self._format,
            src_colorspace=None if is_from_rgb else matrix,
            dst_colorspace=None if is_rgb else target,
            src_color_range=int(
                ColorRange.JPEG if frame.full_range or is_from_rgb else ColorRange.MPEG
            ),
            dst_color_range=int(ColorRange.JPEG if is_full else ColorRange.MPEG),
            interpolation=int(
                Interpolation.AREA if width < frame.width else Interpolation.BILINEAR
            ),
            threads=1,
        )
        turns = -frame.rotation // 90
        if is_rgb:
            # three samples of a pixel in a row
            rows = _rows(picture.planes[0], 3)
            planes = [rows.reshape(picture.height, picture.width, 3)]
        else:
            planes = [_rows(plane) for plane in picture.planes]
        return [np.rot90(plane, turns) for plane in planes] if turns else planes


def _rows(plane: Any, samples: int = 1) -> NDArray[np.uint8]:
    """A plane of 8-bit samples, so many of each pixel."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width * samples]


def to_picture(planes: Sequence[NDArray[np.uint8]], pixel_format: str) -> av.VideoFrame:
    """FFmpeg's picture of three planes."""
    height, width = planes[0].shape
    picture = av.VideoFrame(width, height, pixel_format)
    for plane, target in zip(planes, picture.planes, strict=True):
        _rows(target)[:] = plane
    return picture


def letterboxed(
    planes: Sequence[NDArray[np.uint8]], size: tuple[int, int], black: int
) -> list[NDArray[np.uint8]]:
    """The planes of a 4:2:0 picture in the middle of a larger one, which is black.

    Args:
        planes: Luma `[h, w]`, and chroma of half the size.
        size: Width and height of the larger picture.
        black: The luma of black: 0 for full range, 16 for limited range.
    """
    return [
        _centred(plane, size, black if index == 0 else 128, index > 0)
        for index, plane in enumerate(planes)
    ]


def _centred(
    plane: NDArray[np.uint8], size: tuple[int, int], value: int, is_chroma: bool
) -> NDArray[np.uint8]:
    width, height = (-(-side // 2) for side in size) if is_chroma else size
    whole = np.full((height, width), value, np.uint8)
    top, left = (height - plane.shape[0]) // 2, (width - plane.shape[1]) // 2
    whole[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return whole


class JpegEncoder:
    """Makes JPEG files of frames; not for several threads at once."""

    def __init__(self) -> None:
        self._painter = Painter("yuvj420p")
        self._context: VideoCodecContext | None = None
        self._size = (0, 0)
        self._count = 0

    def encode(self, frames: Sequence[Frame], size: tuple[int, int]) -> bytes:
        """One or more frames beside each other, each at a size, as one JPEG."""
        painted = [self._painter.paint(frame, size) for frame in frames]
        planes = [np.concatenate(parts, axis=1) for parts in zip(*painted, strict=True)]
        picture = to_picture(planes, "yuvj420p")
        if self._context is None or self._size != (picture.width, picture.height):
            self._size = picture.width, picture.height
            self._context = self._open(*self._size)
        picture.pts = self._count
        self._count += 1
        (packet,) = self._context.encode(picture)
        return bytes(packet)

    @staticmethod
    def _open(width: int, height: int) -> VideoCodecContext:
        context: Any = av.CodecContext.create("mjpeg", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
        context.time_base = Fraction(1, 25)
        context.color_range = int(ColorRange.JPEG)
        context.thread_count = 1
        context.flags |= Flags.qscale
        context.options = {"qmin": str(_QUALITY)}
        context.open()
        return context


@dataclass
class View:
    """What a person looking at live pictures has chosen, and what the keys do to it."""

    mode: str = "split"
    divider: float = 0.5
    """Where the picture before ends and the one after begins, 0 to 1."""
    is_frozen: bool = False
    has_statistics: bool = True
    strength: float = 1.0
    wishes: list[str] = field(default_factory=list)
    """What others are to do, in order: `record`, `model`, `strength` or `quit`."""

    def press(self, key: str) -> bool:
        """Do what a key stands for.

        Args:
            key: A character, `left`, `right` or `escape`.

        Returns:
            Whether it stands for anything.
        """
        if key in ("q", "escape"):
            self.wishes.append("quit")
        elif key == " ":
            self.is_frozen = not self.is_frozen
        elif key == "s":
            self.mode = VIEWS[(VIEWS.index(self.mode) + 1) % len(VIEWS)]
        elif key == "i":
            self.has_statistics = not self.has_statistics
        elif key in ("+", "=", "-"):
            step = -_STRENGTH_STEP if key == "-" else _STRENGTH_STEP
            self.strength = min(max(round(self.strength + step, 2), 0.0), 1.0)
            self.wishes.append("strength")
        elif key in ("r", "m"):
            self.wishes.append("record" if key == "r" else "model")
        elif key in ("left", "right"):
            self.divider = min(max(self.divider + (-0.02 if key == "left" else 0.02), 0.0), 1.0)
        else:
            return False
        return True

    def drag(self, x: float) -> None:
        """Move the divider, 0 (left) to 1 (right)."""
        self.divider = min(max(x, 0.0), 1.0)

    @property
    def parts(self) -> int:
        """How many pictures stand beside each other."""
        return 2 if self.mode == "side" else 1

    def compose(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture to show, `[h, w * parts, 3]`.

        Args:
            before: `[h, w, 3]`.
            after: Of the same size.
        """
        if self.mode == "side":
            return np.concatenate([before, after], axis=1)
        if self.mode != "split":
            return np.array(before if self.mode == "before" else after)
        picture = np.array(after)
        column = round(self.divider * picture.shape[1])
        picture[:, :column] = before[:, :column]
        picture[:, max(0, column - 1) : column + 1] = 255
        return picture
