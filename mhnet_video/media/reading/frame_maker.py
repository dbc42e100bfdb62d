"""From FFmpeg's pictures to frames."""

import struct
from dataclasses import fields
from fractions import Fraction

import av
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from mhnet_video.color_spaces import FULL_RANGE, MATRIX_NAMES, usual_matrix
from mhnet_video.frame import DeviceFrame, Frame, Plane
from mhnet_video.media.frames.device_frames import is_exportable, samples_of, twin_of
from mhnet_video.media.frames.image_metadata import DISPLAY_MATRICES
from mhnet_video.media.frames.pixel_formats import (
    Decoded,
    layout_of,
    planar_twin,
    planes_of,
    to_planar,
)
from mhnet_video.media.frames.side_data import side_data_of

_TURNS = {90: DISPLAY_MATRICES[8], 180: DISPLAY_MATRICES[3], 270: DISPLAY_MATRICES[6]}
"""Display matrices by degrees counter-clockwise."""


class FrameMaker:
    """Makes frames of one stream's pictures, in presentation order.

    Args:
        time_base: Length of one unit of their timestamps, in seconds.
        fps: Their nominal rate, for pictures without a timestamp.
        pixel_format: What the pictures would be on the CPU, where a GPU decodes them.
        codec: FFmpeg's name of the stream's codec.
        has_pts: Whether the file stores presentation timestamps, and not only those for decoding.
    """

    def __init__(
        self,
        time_base: Fraction,
        fps: Fraction,
        *,
        pixel_format: str | None = None,
        codec: str = "",
        has_pts: bool = True,
    ) -> None:
        self._time_base = time_base
        self._codec = codec
        self._has_pts = has_pts
        self._pixel_format = pixel_format
        self._step = max(1, round(1 / (fps * time_base)))
        self._next_pts = 0
        self._reformatter = VideoReformatter()

    def frame(self, picture: av.VideoFrame, aspect: Fraction | None = None) -> Frame:
        """The frame of a picture; its samples are views of the decoder's memory.

        Args:
            picture: What was decoded.
            aspect: Width of one of its samples over its height; None for unknown.

        Raises:
            ValueError: Its pixel format has no planar twin.
        """
        name = picture.format.name
        is_on_gpu = is_exportable(picture)
        planar = picture
        planes: tuple[Plane, ...] = ()
        if is_on_gpu:
            twin = planar_twin(twin_of(picture))
            name, layout = self._pixel_format or twin, layout_of(twin)
        else:
            planar = to_planar(picture, self._reformatter)
            layout = layout_of(planar.format.name)
        if layout is None:
            raise ValueError(f"{name} pixels are not supported")
        if not is_on_gpu:
            planes = planes_of(planar)
        # timestamps that FFmpeg guesses go back and forth where there are B-frames
        times = (picture.pts, picture.dts) if self._has_pts else (picture.dts,)
        pts = next((time for time in times if time is not None), self._next_pts)
        self._next_pts = pts + (picture.duration or self._step)
        is_full = picture.color_range == FULL_RANGE
        if not picture.color_range:
            # FFmpeg does not say so of grey JPEGs; and where the range becomes limited within a
            # stream, the name of the pixel format stays
            is_full = "yuvj" in name or self._codec == "mjpeg"
        display_matrix = display_matrix_of(picture, self._codec)
        frame = Frame(
            planes=planes,
            layout=layout,
            pts=pts,
            time_base=self._time_base,
            matrix=MATRIX_NAMES.get(picture.colorspace, usual_matrix(picture.height)),
            full_range=is_full,
            rotation=_rotation(display_matrix),
            duration=picture.duration or 0,
            tags={
                "decoded": Decoded(planar, planes, self._codec),
                "source_pts": pts,
                "pixel_format": name,
                "color_range": FULL_RANGE if is_full else picture.color_range,
                "colorspace": picture.colorspace,
                "color_primaries": picture.color_primaries,
                "color_trc": picture.color_trc,
                "interlaced": picture.interlaced_frame,
                "display_matrix": display_matrix,
                "sample_aspect_ratio": aspect,
            },
        )
        if not is_on_gpu:
            return frame
        luma, chroma, bits_down = samples_of(picture)
        values = {each.name: getattr(frame, each.name) for each in fields(frame)}
        return DeviceFrame(**values, luma=luma, chroma=chroma, bits_down=bits_down, picture=picture)


def display_matrix_of(picture: av.VideoFrame, codec: str) -> tuple[int, ...] | None:
    """The display matrix by which a player turns and mirrors a picture; None for as it is."""
    try:
        return struct.unpack("=9i", bytes(side_data_of(picture, codec)[SideDataType.DISPLAYMATRIX]))
    except KeyError:
        return None
    except (ValueError, struct.error):
        # PyAV 18 stumbles over side data that it does not know, such as a photograph's EXIF
        return _TURNS.get(round(picture.rotation / 90) * 90 % 360)


def _rotation(display_matrix: tuple[int, ...] | None) -> int:
    """Degrees clockwise that bring the picture's upper edge up, mirrored or not."""
    if display_matrix is None:
        return 0
    # the matrix maps (x, y) to (.., b x + d y): where the shown picture goes down
    b, d = display_matrix[1], display_matrix[4]
    if abs(d) >= abs(b):
        return 0 if d >= 0 else 180
    return 90 if b > 0 else 270
