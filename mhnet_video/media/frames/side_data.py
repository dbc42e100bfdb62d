"""What frames carry beside their samples, such as captions, and whether an output carries it."""

import re
import struct
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType

from mhnet_video.frame import Frame
from mhnet_video.media.fidelity import Notes
from mhnet_video.media.frames.pixel_formats import Decoded

_ENCODERS_DATA = (
    bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef"),
    bytes.fromhex("2ca2de09b51747dbbb55a4fe7fc2fc4e"),
)
"""UUIDs of what x264 and x265 write about themselves, which is false of another encoding."""
_NAMED_PROFILES = ("png", "apng")
"""Codecs whose pictures may have a colour profile with a name."""
TIMECODE = "timecode in the stream"
"""What a person calls a timecode in the stream."""
_TIMECODE_MARK = 1 << 12
"""MPEG-2 must have one; most begin at nothing, which is this bit alone."""
_SIDE_DATA = {
    SideDataType.A53_CC: "captions",
    SideDataType.SEI_UNREGISTERED: "a camera's data in the stream",
    SideDataType.STEREO3D: "stereoscopic layout",
    SideDataType.AFD: "active format",
    SideDataType.MASTERING_DISPLAY_METADATA: "HDR mastering data",
    SideDataType.CONTENT_LIGHT_LEVEL: "HDR light levels",
    SideDataType.DYNAMIC_HDR_PLUS: "HDR10+",
    SideDataType.DYNAMIC_HDR_VIVID: "HDR Vivid",
    SideDataType.AMBIENT_VIEWING_ENVIRONMENT: "ambient light",
    SideDataType.SPHERICAL: "360 degree projection",
    SideDataType.GOP_TIMECODE: TIMECODE,
    SideDataType.S12M_TIMECODE: TIMECODE,
    SideDataType.DOVI_RPU_BUFFER: "Dolby Vision",
    SideDataType.DOVI_METADATA: "Dolby Vision",
    SideDataType.FILM_GRAIN_PARAMS: "film grain",
    SideDataType.ICC_PROFILE: "colour profile",
}
"""What pictures carry beside their samples, and is no matter of decoding alone."""
_NEW_SIDE_DATA = {28: "LCEVC enhancement", 29: "number of the view", 30: "3D displays", 31: "EXIF"}
"""What FFmpeg 8.1 has and PyAV 18 does not know, by FFmpeg's numbers."""
_OPTIONS = {SideDataType.A53_CC: "a53cc", SideDataType.SEI_UNREGISTERED: "udu_sei"}
"""An encoder that has this option writes it."""


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


def hdr_params(frame: Frame) -> str:
    """What x265 is told of the screen that a picture was made for, and of how bright it is.

    Sources: FFmpeg's `AVMasteringDisplayMetadata` and `AVContentLightMetadata`; x265's
    documentation of `--master-display`, in 0.00002 of a coordinate and 0.0001 cd/m2.
    """
    decoded = frame.tags.get("decoded")
    if not isinstance(decoded, Decoded):
        return ""
    said = []
    try:
        for data in side_data_of(decoded.picture, decoded.codec):
            if data.type == SideDataType.MASTERING_DISPLAY_METADATA:
                said.append(_mastering(bytes(data)))
            elif data.type == SideDataType.CONTENT_LIGHT_LEVEL:
                said.append("max-cll={},{}".format(*struct.unpack_from("=2I", bytes(data))))
    except (ValueError, struct.error):
        return ""  # what then is lost is reported
    return ":".join(filter(None, said))


def _mastering(data: bytes) -> str:
    numbers = struct.unpack_from("=22i", data)
    has_primaries, has_luminance = numbers[20:]
    pairs = list(zip(numbers[0:20:2], numbers[1:20:2], strict=True))
    if not (has_primaries and has_luminance) or not all(below > 0 for _, below in pairs):
        return ""
    places = [round(50_000 * above / below) for above, below in pairs[:8]]
    least, most = (round(10_000 * above / below) for above, below in pairs[8:])
    red, green, blue, white = (f"({places[i]},{places[i + 1]})" for i in range(0, 8, 2))
    return f"master-display=G{green}B{blue}R{red}WP{white}L({most},{least})"


def is_user_data(message: bytes) -> bool:
    """Whether user data in a stream is not an encoder's note about itself."""
    return message[:16] not in _ENCODERS_DATA


class FrameSideData:
    """Adds up what the frames of a source carry beside their samples."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        """Bytes of what was seen, by what it is."""
        self._is_first = True

    def see(self, frame: Frame) -> None:
        """Take note of what a frame carries beside its samples, for `report`."""
        is_first, self._is_first = self._is_first, False
        for what, size in _side_data(frame).items():
            if what in self.found or is_first or what != TIMECODE:
                self.found[what] = self.found.get(what, 0) + size

    def add(self, found: Mapping[str, int]) -> None:
        """Take note of what other frames carried, as in `found`."""
        for what, size in found.items():
            self.found[what] = self.found.get(what, 0) + size

    def report(
        self, notes: Notes, encoder: str, result: set[str], options: Collection[str], where: str
    ) -> None:
        """Report what frames carried beside their samples and the output's do not.

        Args:
            notes: What it is added to.
            encoder: FFmpeg's name of the encoder.
            result: What the output's first frame carries, as `carried_by` tells.
            options: The names of the encoder's options.
            where: As in `Loss`.
        """
        written = {_SIDE_DATA[kind] for kind, name in _OPTIONS.items() if name in options}
        asked = {_SIDE_DATA[kind] for kind in _OPTIONS}
        for what, size in self.found.items():
            if what not in written | (result - asked):
                why = f"{encoder} does not write it"
                notes.lose("side data", what, why, where=where, bytes=size or None)


def carried_by(result: Path, number: int) -> set[str]:
    """What the first frame of a video stream in a finished file carries beside its samples."""
    try:
        with av.open(str(result)) as container:
            video: Any = container.streams.video[number]
            picture: Any = next(container.decode(video))
            return set(_contents(picture, video.codec_context.codec.name))
    except (FFmpegError, OSError, ValueError, StopIteration, IndexError):
        return set()


def _side_data(frame: Frame) -> dict[str, int]:
    """What a frame carries beside its samples, as far as PyAV can tell, and how many bytes."""
    decoded = frame.tags.get("decoded")
    if not isinstance(decoded, Decoded):
        return {}
    return _contents(decoded.picture, decoded.codec)


def _contents(picture: av.VideoFrame, codec: str) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        for data in side_data_of(picture, codec):
            what = _SIDE_DATA.get(data.type)
            if what is not None and _says_something(data):
                found[what] = found.get(what, 0) + data.buffer_size
    except ValueError as error:
        # PyAV 18 stumbles over side data that it does not know
        number = re.match(r"(\d+) is not", str(error))
        if number and (what := _NEW_SIDE_DATA.get(int(number[1]))):
            found[what] = 0
    return found


def _says_something(data: Any) -> bool:
    if data.type == SideDataType.SEI_UNREGISTERED:
        return is_user_data(bytes(data))
    if data.type == SideDataType.GOP_TIMECODE:
        return bool(int.from_bytes(bytes(data)[:8], sys.byteorder) & ~_TIMECODE_MARK)
    return True
