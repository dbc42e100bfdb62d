"""Decode a video file into frames, and hand on what else is in it.

Times are the source's own. What is damaged is skipped and counted, never an error: a file that
opens and holds one picture can be read.
"""

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.logging
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard, Disposition
from av.video.reformatter import VideoReformatter

from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.pixels import Decoded, layout_of, planes_of, to_planar
from mhnet_video.stage import Stage

Item = Frame | av.Packet

# AVColorSpace to the names of `Frame.matrix`
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco"}
_MATRICES |= {9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG

_MAX_WAITING = 16
_MAX_WAITING_BYTES = 48 << 20
# a file that fails this often in a row without a packet has no more to give
_MAX_READ_ERRORS = 64
# recordings that begin later are shifted to zero: no container starts hours late gracefully
_LATEST_START_SECONDS = 10


def size_in_bytes(item: object) -> int:
    """Memory that an item of a stream holds."""
    if isinstance(item, Frame):
        return sum(plane.nbytes for plane in item.planes)
    return item.size if isinstance(item, av.Packet) else 0


class VideoReader:
    """Frames of the first video that is not a cover picture, and packets of all other streams.

    Iterating decodes on a thread of its own, a few frames ahead, and gives a `Frame` or an
    `av.Packet` in the order of the file.

    Args:
        source: Any video file or picture FFmpeg can decode; `-` for standard input.
        start: Where to begin, in seconds from the first frame; None for the beginning.
        duration: How much to read, in seconds; None for all there is.

    Raises:
        ReadError: There is no such file, or no video can be read from it.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        start: float | None = None,
        duration: float | None = None,
    ) -> None:
        self.name = "standard input" if os.fspath(source) == "-" else os.fspath(source)
        self.start = Fraction(start).limit_denominator(10**9) if start else Fraction(0)
        self.duration = None if duration is None else Fraction(duration).limit_denominator(10**9)
        self.origin = Fraction(0)
        """Seconds that the writer subtracts from every time; settled before the first frame."""
        self.damaged = 0
        """Packets and frames lost so far."""
        self.notes: list[str] = []
        """What a person should know about how the file was read, in sentences."""
        self.container = _open(source, self.name)
        try:
            self.stream = self._choose_stream()
            self._prepare()
        except BaseException:
            self.container.close()
            raise
        self._stage: Stage[Item] | None = None

    def _choose_stream(self) -> av.VideoStream:
        """The stream to restore."""
        videos = list(self.container.streams.video)
        covers = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [s for s in videos if not s.disposition & covers and s.discard != Discard.all]
        if not streams:
            found = "only a cover picture" if videos else "only sound"
            if not videos and not self.container.streams.audio:
                found = "nothing that can be shown"
            raise ReadError(f"{self.name} has no video, {found}; name a video file.")
        if streams[0].codec_context is None:
            raise ReadError(
                f"{self.name} holds video of a kind that the FFmpeg inside PyAV cannot decode; "
                "convert it to H.264 first."
            )
        return streams[0]

    def _prepare(self) -> None:
        self.stream.thread_type = "AUTO"
        self.time_base = Fraction(self.stream.time_base or Fraction(1, 90000))
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.fps = Fraction(rate) if rate else Fraction(25)
        self.is_picture = _is_picture(self.container)
        self.num_frames = self._estimate()
        self.matrix: tuple[int, ...] | None = None
        """The nine numbers by which a player turns and mirrors the picture; None for as it is."""
        self._reformatter = VideoReformatter()
        self._next_pts: int | None = None

    def _estimate(self) -> int | None:
        """How many frames there are to restore, as far as the headers tell."""
        if self.is_picture:
            return 1
        seconds = None
        if self.stream.duration:
            seconds = self.stream.duration * self.time_base
        elif self.container.duration:
            seconds = Fraction(self.container.duration, av.time_base)
        count = self.stream.frames or (round(seconds * self.fps) if seconds else None)
        if not count or (not self.start and self.duration is None):
            return count or None
        whole = count / self.fps if seconds is None else seconds
        left = max(whole - self.start, Fraction(0))
        if self.duration is not None:
            left = min(left, self.duration)
        return max(1, round(count * left / whole)) if whole else None

    def __iter__(self) -> Iterator[Item]:
        """The items, decoded ahead; a second iterator goes on where the first one ended."""
        if self._stage is None:
            self._stage = Stage(
                self._items(),
                name="mhnet-video reader",
                max_items=_MAX_WAITING,
                max_size=_MAX_WAITING_BYTES,
                size_of=size_in_bytes,
            )
        return self._stage

    def _items(self) -> Iterator[Item]:
        for packet in self._packets():
            if packet.stream_index != self.stream.index:
                if packet.size:
                    yield packet
                continue
            for picture in self._decode(packet):
                yield self._frame(picture)

    def _packets(self) -> Iterator[av.Packet]:
        """Packets to the end of the file, across what cannot be read."""
        failures = 0
        while failures < _MAX_READ_ERRORS:
            try:
                for packet in self.container.demux():
                    failures = 0
                    yield packet
                return
            except (FFmpegError, OSError):
                failures += 1
                self.damaged += 1
        # what was read before is decoded to its last frame
        flush = av.Packet()
        flush.stream = self.stream
        yield flush

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        try:
            pictures = self.stream.decode(packet if packet.size else None)
        except EOFError:
            return []
        except (FFmpegError, ValueError, MemoryError):
            self.damaged += 1
            return []
        self.damaged += sum(picture.is_corrupt for picture in pictures)
        return pictures

    def _frame(self, picture: av.VideoFrame) -> Frame:
        picture.time_base = self.time_base
        planar = to_planar(picture, self._reformatter)
        layout = layout_of(planar.format.name)
        if layout is None:
            raise ReadError(f"{self.name} has pixels of a kind ({picture.format.name}) not known.")
        planes = planes_of(planar)
        pts = picture.pts if picture.pts is not None else picture.dts
        step = round(1 / (self.fps * self.time_base)) or 1
        if pts is None:
            pts = self._next_pts if self._next_pts is not None else 0
        self._next_pts = pts + (picture.duration or step)
        is_full = picture.color_range == _FULL_RANGE or "yuvj" in picture.format.name
        return Frame(
            planes=planes,
            layout=layout,
            pts=pts,
            time_base=self.time_base,
            matrix=_MATRICES.get(picture.colorspace, "bt601" if picture.height < 720 else "bt709"),
            full_range=is_full,
            rotation=round(-picture.rotation / 90) * 90 % 360,
            duration=picture.duration or 0,
            tags={
                "decoded": Decoded(planar, planes),
                "color_range": _FULL_RANGE if is_full else picture.color_range,
                "colorspace": picture.colorspace,
                "color_primaries": picture.color_primaries,
                "color_trc": picture.color_trc,
                "interlaced": picture.interlaced_frame,
                "display_matrix": _display_matrix(picture),
            },
        )

    def close(self) -> None:
        """End the thread and close the file."""
        if self._stage is not None and not self._stage.close(timeout_seconds=5):
            return  # the thread waits for input that may never come: the file is still its own
        self.container.close()

    def __enter__(self) -> Self:
        """Return the open reader."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread and close the file."""
        self.close()


def _display_matrix(picture: av.VideoFrame) -> tuple[int, ...] | None:
    try:
        return struct.unpack("=9i", bytes(picture.side_data[SideDataType.DISPLAYMATRIX]))
    except KeyError:
        return None


def _is_picture(container: InputContainer) -> bool:
    name = container.format.name
    return name == "image2" or name.endswith("_pipe")


def _open(source: str | PathLike[str], name: str) -> InputContainer:
    """Open a file for reading; an error is one sentence that says what to do."""
    # messages about damage are counted here, not printed by FFmpeg; and its logging into Python
    # can deadlock with decoder threads
    av.logging.set_level(None)
    url = "pipe:0"
    if os.fspath(source) != "-":
        path = Path(source)
        if not path.exists():
            raise ReadError(f"{name} does not exist; check the path.")
        if path.is_dir():
            raise ReadError(f"{name} is a folder; name a video file.")
        if path.is_file() and not path.stat().st_size:
            raise ReadError(f"{name} is empty; copy it again from where it was recorded.")
        # an absolute path cannot be taken for a protocol, whatever colons are in it
        url = os.path.abspath(path)
    options: dict[str, Any] = {"metadata_errors": "surrogateescape"}
    try:
        return av.open(url, mode="r", **options)
    except PermissionError as error:
        raise ReadError(f"{name} may not be read; check its permissions.") from error
    except (FFmpegError, OSError, ValueError) as error:
        raise ReadError(_why_unreadable(url, name)) from error


def _why_unreadable(url: str, name: str) -> str:
    return f"{name} is not a video that can be read."
