"""From a file to its frames and the packets of its other streams, across what is damaged."""

import os
import struct
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mhnet_video.color_spaces import FULL_RANGE, MATRIX_NAMES, usual_matrix
from mhnet_video.errors import ReadError
from mhnet_video.frame import DeviceFrame, Frame, Plane
from mhnet_video.media.hwaccel import (
    HardwareDecoder,
    is_exportable,
    open_decoder,
    samples_of,
    twin_of,
)
from mhnet_video.media.image_metadata import DISPLAY_MATRICES, is_cut_short
from mhnet_video.media.integrity import broken_places
from mhnet_video.media.nal_units import Units
from mhnet_video.media.pixel_formats import (
    Decoded,
    layout_of,
    planar_twin,
    planes_of,
    side_data_of,
    to_planar,
)
from mhnet_video.media.source import Packet as Packet
from mhnet_video.media.source import is_end_mark, packets_of

Item = Frame | Packet

_TURNS = {90: DISPLAY_MATRICES[8], 180: DISPLAY_MATRICES[3], 270: DISPLAY_MATRICES[6]}
"""Display matrices by degrees counter-clockwise."""
_MAX_READ_ERRORS = 64
"""A file that fails this often in a row without a packet has no more to give."""
_MIN_PACKETS = 25
"""So much must be read before it tells how much there is."""
_WITHOUT_PTS = ("avi",)
"""Formats that number pictures in the order in which they are stored."""
_REPEATING = ("theora",)
"""Codecs whose empty packets say that the picture before is shown on."""
_EVEN = ("hevc", "av1")
"""Codecs besides those of key frames alone whose every packet is a picture."""
# packets in a row without their pictures, in other codecs, that are more than a second field or a
# picture that is not to be shown, and in streams without times more than a guess
_MIN_SILENT, _MIN_SILENT_UNTIMED = 2, 3
# codecs that say in a packet as small as this that there is no picture
_SAYING_NOTHING = ("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "h263p", "flv1")
_NOTHING_BYTES = 19
_MIN_STEPS_BEHIND = 1.1
"""Where the end of a track is told, it need not be that of its last packet to the tick."""
_MAX_OWED = 256
"""Packets among which the one of a picture is looked for: more than decoders hold back."""


class FrameMaker:
    """Makes frames of one stream's pictures, in the order they are shown.

    Args:
        time_base: Length of one unit of their times, in seconds.
        fps: Their nominal rate, for pictures without a time.
        pixel_format: What the pictures would be on the CPU, where a GPU decodes them.
        codec: FFmpeg's name of the stream's codec.
        has_pts: Whether the file says when pictures are shown, and not only when decoded.
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
            ValueError: Its pixels are of a kind that has no planes.
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
        # what FFmpeg makes of times that are not there goes back and forth where B-frames are
        times = (picture.pts, picture.dts) if self._has_pts else (picture.dts,)
        pts = next((time for time in times if time is not None), self._next_pts)
        self._next_pts = pts + (picture.duration or self._step)
        is_full = picture.color_range == FULL_RANGE
        if not picture.color_range:
            # FFmpeg does not say so of JPEGs in grey; and where the range becomes a limited one
            # in the middle, the name of the pixels stays
            is_full = "yuvj" in name or self._codec == "mjpeg"
        display_matrix = _display_matrix(picture, self._codec)
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


@dataclass
class _Sent:
    """A packet on its way through a decoder."""

    pts: int | None
    is_optional: bool
    """Whether it may have no picture."""
    has_come: bool = False


class _Answers:
    """Counts packets whose pictures never came, of which a decoder may say nothing.

    Args:
        codec: FFmpeg's decoder.
    """

    def __init__(self, codec: av.Codec) -> None:
        is_even = codec.intra_only or codec.canonical_name in _EVEN
        self._least = 1 if is_even else _MIN_SILENT
        self._says_nothing = codec.canonical_name in _SAYING_NOTHING
        self._sent: deque[_Sent] = deque()
        self._first: int | None = None
        self._silent = self._missing = self._surplus = 0

    @property
    def missing(self) -> int:
        """Packets without their pictures, of those that a decoder can hold back no more."""
        return max(0, self._missing - self._surplus)

    def send(self, packet: Packet, *, is_searched: bool) -> None:
        """A packet is decoded; after a search, decoders may wait for what they can begin with."""
        if self._first is None:
            self._first = packet.pts
        # pictures before the first key frame's may need others that are not there
        is_early = packet.pts is not None and self._first is not None and packet.pts < self._first
        is_nothing = self._says_nothing and packet.size <= _NOTHING_BYTES
        is_optional = is_early or is_nothing or is_searched or packet.is_discard
        self._sent.append(_Sent(packet.pts, is_optional))
        if len(self._sent) > _MAX_OWED:
            self._settle()

    def come(self, picture: av.VideoFrame) -> None:
        """A picture has come."""
        for sent in reversed(self._sent):
            if sent.pts == picture.pts and not sent.has_come:
                sent.has_come = True
                return
        self._surplus += 1

    def end(self) -> None:
        """Nothing more comes."""
        while self._sent:
            self._settle()
        self._close()

    def _settle(self) -> None:
        sent = self._sent.popleft()
        if sent.has_come:
            self._close()
        elif not sent.is_optional:
            self._silent += 1
            self._least = max(self._least, 1 if sent.pts is not None else _MIN_SILENT_UNTIMED)

    def _close(self) -> None:
        if self._silent >= self._least:
            self._missing += self._silent
        self._silent = 0


class Decoder:
    """Decodes one stream of a file, and hands on the packets of the others.

    Args:
        container: The file.
        stream: What to decode.
        name: What a person calls the file.
        fps: The stream's nominal rate.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, *, name: str, fps: Fraction
    ) -> None:
        self.container = container
        self.stream = stream
        self.name = name
        self.fps = fps
        self.time_base = Fraction(stream.time_base or Fraction(1, 90000))
        self.is_searched = False
        """Whether it does not begin where the file does."""
        self.is_at_end = self.is_stalled = False
        """Whether all has been read that there is; and whether that is because none came."""
        self._damaged = self._expected = self._never_read = self._empty = 0
        # where packets stand in the file, when they are shown, and when the last one ends
        self._positions, self._times = array("q"), array("q")
        self._last_end = 0
        self._answers = _Answers(stream.codec)
        self._has_picture = False
        self._is_picture = container.format.name in ("image2", "jpeg_pipe")
        self._hardware: HardwareDecoder | None = None
        self._maker = self._new_maker()
        self.units = Units(stream.codec.name, stream.codec_context.extradata)
        """What is in the stream and decoders pass over."""
        self._read_packets = 0
        self._read_bytes = 0

    def _new_maker(self) -> FrameMaker:
        stream = self.stream
        return FrameMaker(
            self.time_base,
            self.fps,
            pixel_format=stream.pix_fmt,
            codec=stream.codec.name,
            has_pts=self.container.format.name not in _WITHOUT_PTS,
        )

    def accelerate(self, index: int) -> None:
        """Decode on a GPU where that is possible; nothing changes where it is not.

        Args:
            index: The GPU's number.
        """
        self._hardware = open_decoder(self.container, self.stream, index, self._on_cpu)

    def close(self) -> None:
        """Give back what decodes on a GPU."""
        if self._hardware is not None:
            self._hardware.close()

    def estimate_frames(self) -> int | None:
        """Frames of the whole file, by those of the part that is read; None where not known."""
        size = self.container.size if os.path.isfile(self.container.name) else 0
        if self._read_packets < _MIN_PACKETS or not 0 < self._read_bytes <= size:
            return None
        return round(self._read_packets * size / self._read_bytes)

    @property
    def damaged(self) -> int:
        """Packets and frames lost so far."""
        # what fails gives no picture either, so the two are not added up
        return max(self._damaged, self._answers.missing) + self._never_read

    def _packets(self) -> Iterator[Packet | None]:
        """Packets to the end of the file, across what cannot be read, and None for the end."""
        self._damaged += self._beyond_end()
        failures = 0
        while failures < _MAX_READ_ERRORS:
            try:
                for packet in packets_of(self.container):
                    failures = 0
                    if not is_end_mark(packet):
                        yield packet
                break
            except (ExitError, TimeoutError):
                self.is_stalled = True
                break
            except (FFmpegError, OSError):
                failures += 1
                self._damaged += 1
        self.is_at_end = True
        if not self.is_searched and not self.is_stalled:
            self._never_read = self._between() + max(self._behind(), self._passed_over())
        # what was read before is decoded to its last frame
        yield None

    def _between(self) -> int:
        """Packets that are missing where the file's structure is broken, at least one at each."""
        places = broken_places(self.container.name, self.container.format.name)
        if not places:
            return 0
        order = np.argsort(self._positions)
        shown = np.array(self._times)[order]
        missing = 0
        for cut in np.unique(np.searchsorted(np.array(self._positions)[order], places)):
            is_inside = 0 < cut < len(shown)
            gap = shown[cut:].min() - shown[:cut].max() if is_inside else 0
            missing += max(1, round(gap / self._usual_step()) - 1)
        return missing

    def _usual_step(self) -> int:
        """How far pictures are from one another, in ticks: the middle one of all steps."""
        steps = np.diff(np.sort(self._times))
        return max(1, int(np.sort(steps)[len(steps) // 2])) if len(steps) else 1

    def _behind(self) -> int:
        """Packets that an MP4 tells of behind the last one that came."""
        stream = self.stream
        is_told = "mp4" in self.container.format.name.split(",") and stream.duration
        if not is_told or not self._times or 0 < stream.frames <= self._read_packets:
            return 0
        # an index tells when the last edit ends, and with it of the time before the first picture
        told = (stream.duration or 0) + (0 if stream.frames else stream.start_time or 0)
        steps = (told - self._last_end) / self._usual_step()
        return round(steps) if steps > _MIN_STEPS_BEHIND else 0

    def _passed_over(self) -> int:
        """Empty packets of an MP4's index that FFmpeg has not handed on, as with H.264 and VP9."""
        is_told = "mp4" in self.container.format.name.split(",")
        if not is_told or self.stream.codec.canonical_name in _REPEATING:
            return 0
        return max(0, sum(not entry.size for entry in self.stream.index_entries) - self._empty)

    def _beyond_end(self) -> int:
        """Frames that the file's index names and that the file, cut short, does not hold."""
        entries = self.stream.index_entries
        size = self.container.size if os.path.isfile(self.container.name) else 0
        if not size or not len(entries) or entries[-1].pos + entries[-1].size <= size:
            return 0
        return sum(entry.pos >= size for entry in entries)

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        """The pictures that a packet, or None for the end, brings forth; damage is counted."""
        if packet is not None and not packet.size:
            # which a decoder would take for the end, and give nothing from there on
            self._damaged += self.stream.codec.canonical_name not in _REPEATING
            self._empty += 1
            if packet.pts is not None:
                self._last_end = max(self._last_end, packet.pts + (packet.duration or 0))
            return []
        if packet is not None:
            self._look_at(packet)
        decode = self._on_cpu if self._hardware is None else self._hardware.decode
        pictures = decode(packet)
        for picture in pictures:
            self._answers.come(picture)
            # damage that a packet was counted for shows again in its picture
            if picture.is_corrupt and not self._expected:
                self._damaged += 1
            elif picture.is_corrupt:
                self._expected -= 1
        if packet is None:
            self._answers.end()
        return pictures

    def _look_at(self, packet: Packet) -> None:
        """What is known of a packet before it is decoded."""
        self.units.look(memoryview(packet))
        self._read_packets += 1
        self._read_bytes = max(self._read_bytes, (packet.pos or 0) + packet.size)
        if packet.pos is not None and packet.pts is not None:
            self._positions.append(packet.pos)
            self._times.append(packet.pts)
            self._last_end = max(self._last_end, packet.pts + (packet.duration or 0))
        is_waiting = self.is_searched and not self._has_picture
        self._answers.send(packet, is_searched=is_waiting)
        # a picture that ends early is decoded without a complaint, grey where nothing is left
        is_cut = self._is_picture and is_cut_short(bytes(packet))
        if packet.is_corrupt or is_cut:
            self._damaged += 1
            self._expected += 1

    def _on_cpu(self, packet: Packet | None) -> list[av.VideoFrame]:
        """The pictures that a packet, or None for the end, brings forth; failures are counted."""
        try:
            return self.stream.decode(packet)
        except EOFError:
            return []
        except (FFmpegError, ValueError, MemoryError):
            self._damaged += 1
            return []

    def _frame(self, picture: av.VideoFrame) -> Frame:
        try:
            # what the decoder says: the container's is that of the first picture
            return self._maker.frame(picture, self.stream.codec_context.sample_aspect_ratio)
        except ValueError as error:
            raise ReadError(
                f"{self.name} cannot be read, as {error}; convert it to yuv420p first."
            ) from error

    def items(self) -> Iterator[Item]:
        """Frames and packets in the order of the file; may be asked for again after a search."""
        self._maker = self._new_maker()
        self._answers = _Answers(self.stream.codec)
        self._has_picture = False
        if self._hardware is not None:
            self._hardware.restart()
        for packet in self._packets():
            if packet is None or packet.stream_index == self.stream.index:
                for picture in self._decode(packet):
                    self._has_picture = True
                    yield self._frame(picture)
            elif packet.size:
                yield packet


def _display_matrix(picture: av.VideoFrame, codec: str) -> tuple[int, ...] | None:
    """The nine numbers by which a player turns and mirrors a picture; None for as it is."""
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
