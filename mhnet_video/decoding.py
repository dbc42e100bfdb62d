"""From FFmpeg's decoded pictures to frames, and what a picture says about itself."""

import struct
from fractions import Fraction
from typing import Any

import av
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from mhnet_video.frame import Frame
from mhnet_video.pixels import Decoded, layout_of, planes_of, to_planar

# AVColorSpace to the names of `Frame.matrix`
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco"}
_MATRICES |= {9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
# display matrices by degrees counter-clockwise, in fixed point
_ONE, _UNIT = 1 << 16, 1 << 30
_TURNS = {
    90: (0, -_ONE, 0, _ONE, 0, 0, 0, 0, _UNIT),
    180: (-_ONE, 0, 0, 0, -_ONE, 0, 0, 0, _UNIT),
    270: (0, _ONE, 0, -_ONE, 0, 0, 0, 0, _UNIT),
}


class FrameMaker:
    """Makes frames of one stream's pictures, in the order they are shown.

    Args:
        time_base: Length of one unit of their times, in seconds.
        fps: Their nominal rate, for pictures without a time.
    """

    def __init__(self, time_base: Fraction, fps: Fraction) -> None:
        self._time_base = time_base
        self._step = max(1, round(1 / (fps * time_base)))
        self._next_pts = 0
        self._reformatter = VideoReformatter()

    def frame(self, picture: av.VideoFrame) -> Frame:
        """The frame of a picture; its samples are views of the decoder's memory.

        Raises:
            ValueError: Its pixels are of a kind that has no planes.
        """
        planar = to_planar(picture, self._reformatter)
        layout = layout_of(planar.format.name)
        if layout is None:
            raise ValueError(f"{picture.format.name} pixels are not supported")
        planes = planes_of(planar)
        pts = picture.pts if picture.pts is not None else picture.dts
        if pts is None:
            pts = self._next_pts
        self._next_pts = pts + (picture.duration or self._step)
        is_full = picture.color_range == _FULL_RANGE or "yuvj" in picture.format.name
        display_matrix = _display_matrix(picture)
        return Frame(
            planes=planes,
            layout=layout,
            pts=pts,
            time_base=self._time_base,
            matrix=_MATRICES.get(picture.colorspace, "bt601" if picture.height < 720 else "bt709"),
            full_range=is_full,
            rotation=_rotation(display_matrix),
            duration=picture.duration or 0,
            tags={
                "decoded": Decoded(planar, planes),
                "pixel_format": picture.format.name,
                "color_range": _FULL_RANGE if is_full else picture.color_range,
                "colorspace": picture.colorspace,
                "color_primaries": picture.color_primaries,
                "color_trc": picture.color_trc,
                "interlaced": picture.interlaced_frame,
                "display_matrix": display_matrix,
            },
        )


def _display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers by which a player turns and mirrors a picture; None for as it is."""
    try:
        side_data: Any = picture.side_data
        return struct.unpack("=9i", bytes(side_data[SideDataType.DISPLAYMATRIX]))
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
