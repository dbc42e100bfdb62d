"""Encode the frames of one segment into a file of its own, as the output would have them."""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags
from av.error import FFmpegError
from av.format import ContainerFormat

from mhnet_video.closing import Closing
from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder_options import encoder_options
from mhnet_video.media.encoders.encoder_surfaces import open_surfaces
from mhnet_video.media.encoders.encoding_settings import choose_settings, usual_encoder
from mhnet_video.media.fidelity import Notes
from mhnet_video.media.formats.containers import format_of, picture_encoder
from mhnet_video.media.frames.side_data import FrameSideData
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.decoder import Item
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.segments.segment_reader import SegmentReader
from mhnet_video.media.segments.segment_store import SEGMENT_FORMAT, SegmentRecord, SegmentStore
from mhnet_video.media.writing.frame_encoder import FrameEncoder
from mhnet_video.media.writing.output_clock import OutputClock
from mhnet_video.media.writing.write_errors import encoder_error

_GLOBAL_HEADER = 0x40
"""FFmpeg's AVFMT_GLOBALHEADER."""
_EXACT = "cpu-independent=1"
"""With AVX-512, x264's macroblock tree reads memory beyond a row of other than 16 n macroblocks, so
that the same pictures become other bytes each time. This option takes its code in C."""


_START = b"\0\0\1"
_HEVC_SEI = 39
"""Type of a NAL unit of supplemental information. Rec. ITU-T H.265, table 7-1."""


def header_of(context: Any) -> str:
    """A fingerprint of what an open encoder puts into the header of its container.

    Left out is what x265 adds about itself, which has the threads and the processor: other machines
    make segments of the same output.
    """
    header = context.extradata or b""
    if context.name == "libx265":
        units = header.split(_START)
        header = _START.join(unit for unit in units if not unit or unit[0] >> 1 != _HEVC_SEI)
    return hashlib.sha256(header).hexdigest()


class SegmentEncoding:
    """How the segments of a work are encoded: as one run would encode them all.

    Args:
        output: The output that the segments are for, its format by its name.
        reader: The first source.
        first: Its first frame, as it will be written.
        encoder: FFmpeg's name of the video encoder; None for the format's usual one.
        crf: Quality of the encoder; None for the default.
        preset: Speed preset of the encoder; None for the default.
        options: Further options of the encoder, name and value.

    Raises:
        ConfigError: The output is a picture, or of a format without times.
        WriteError: The name of the output stands for no format, or the encoder does not open.
    """

    def __init__(
        self,
        output: Path,
        reader: VideoReader,
        first: Frame,
        *,
        encoder: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        options: tuple[tuple[str, str], ...] = (),
    ) -> None:
        check_format(output)
        kind = format_of(str(output))
        self.encoder = encoder or usual_encoder(kind, reader)
        self.first = first
        merged = encoder_options(self.encoder, crf=crf, preset=preset, options=options)
        if self.encoder == "libx264":
            merged["x264-params"] = f"{_EXACT}:{merged.get('x264-params', '')}".strip(":")
        self.settings = choose_settings(
            self.encoder,
            merged,
            container_format=kind,
            reader=reader,
            frame=first,
        )
        self.has_global_header = bool(ContainerFormat(kind.name, "w").flags & _GLOBAL_HEADER)
        """Whether the output has in its header what decoders must know, not in its packets."""
        self._origin = reader.origin or Fraction(0)
        self._fps = reader.fps

    def new_encoder(self, first: Frame, output: OutputFile) -> FrameEncoder:
        """An encoder for a segment.

        Args:
            first: The segment's first frame.
            output: Where its packets go.
        """
        clock = OutputClock(self.settings.time_base, origin=self._origin, fps=self._fps, end=None)
        surfaces = open_surfaces(first, self.settings)
        return FrameEncoder(self.settings, self.first, clock, output, surfaces)


def check_format(output: Path) -> None:
    """Refuse an output that cannot be joined of segments.

    Raises:
        ConfigError: It is a picture, or of a format that has no times.
        WriteError: Its name stands for no format.
    """
    if picture_encoder(str(output)) is not None:
        raise ConfigError(f"{output} is a picture, which has no segments; leave --resume out.")
    kind = format_of(str(output))
    if kind.is_constant_rate:
        raise ConfigError(
            f"{kind.label} has no times, and is not written in segments; end the output in .mp4 "
            "or .mkv, or leave --resume out."
        )


class SegmentWriter(Closing):
    """The file of one segment; it appears under its name when it is complete.

    Args:
        store: The folder.
        index: The segment's number.
        source: Index of its source.
        reader: Decodes its frames, and tells when they are complete.
        encoding: How it is encoded.
        is_whole: Tells at the end whether what was written is the whole segment.
    """

    def __init__(
        self,
        store: SegmentStore,
        index: int,
        source: int,
        reader: SegmentReader,
        encoding: SegmentEncoding,
        *,
        is_whole: Callable[[], bool],
    ) -> None:
        self.frames = 0
        """Frames written."""
        self.notes = Notes()
        """Nothing: what is lost is told of the output."""
        self.encoder = encoding.encoder
        self.pixel_format = encoding.settings.pixel_format
        self.passed_through = 0
        """Frames for which the network gave no numbers; to be set before `finish`."""
        self.changes: list[list[Any]] = []
        """How far each frame is from the source's, for evidence; likewise."""
        self.dry = 0
        """Frames that passed as they are; to be set before `finish`."""
        self._store = store
        self._index = index
        self._source = source
        self._reader = reader
        self._encoding = encoding
        self._is_whole = is_whole
        self._output = OutputFile(store.path(index), overwrite=True)
        self._output.name = f"{store.output_name} (segment {index + 1})"
        self._side_data = FrameSideData()
        # what the first frame of all carries is told by whoever writes the output
        self._side_data.see(encoding.first)
        self._side_data_before = dict(self._side_data.found)
        self._placed: list[int] = []
        self._packets: list[list[int]] = []
        self._frames: FrameEncoder | None = None
        self._container: Any = None
        self._stream: Any = None
        self._header = ""
        self._is_finished = False

    @property
    def partial(self) -> Path | None:
        """The file as it grows; None when it is complete."""
        return self._output.partial

    @property
    def has_frames(self) -> bool:
        """Whether a frame was passed to it."""
        return self._frames is not None

    def write(self, item: Item) -> None:
        """Encode a frame.

        Raises:
            WriteError: The encoder does not open, or the disk refuses.
        """
        if not isinstance(item, Frame):
            return
        frames = self._frames or self._begin(item)
        self._mux(frames.encode(item))
        self._placed.append(frames.clock.last)
        if self.frames or self._index:
            self._side_data.see(item)
        self.frames += 1

    def _begin(self, first: Frame) -> FrameEncoder:
        encoding = self._encoding
        self._frames = encoding.new_encoder(first, self._output)
        try:
            self._container = av.open(self._output, "w", format=SEGMENT_FORMAT)
            self._stream = self._container.add_stream(encoding.encoder, rate=encoding.settings.fps)
        except ValueError as error:
            raise WriteError(
                f"what the encoder {encoding.encoder} makes cannot be kept in segments; choose "
                "another one, or leave --resume out."
            ) from error
        except (FFmpegError, OSError) as error:
            raise self._error(error) from error
        context = self._stream.codec_context
        if not encoding.has_global_header:
            context.flags &= ~Flags.global_header
        self._frames.set_up(context)
        self._stream.time_base = encoding.settings.time_base
        try:
            self._frames.open(self._stream, first)
            self._header = header_of(context)
            self._container.start_encoding()
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        return self._frames

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            pts = packet.pts or 0
            dts = pts if packet.dts is None else packet.dts
            self._packets.append([pts, dts, packet.duration or 0])
            try:
                self._container.mux_one(packet)
            except (FFmpegError, OSError, ValueError) as error:
                raise self._error(error) from error

    def _error(self, error: Exception) -> WriteError:
        return encoder_error(self._output, self.encoder, error)

    def finish(self) -> None:
        """Complete the file and its record; a segment that lacks frames is dropped.

        Raises:
            WriteError: The disk refuses.
        """
        frames = self._frames
        if frames is None or self.frames != self._reader.num_own or not self._is_whole():
            self.abandon()
            return
        self._mux(frames.flush())
        try:
            self._container.close()
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if self._output.error is not None:
            raise self._error(self._output.error)
        self._output.commit()
        self._is_finished = True
        before = self._side_data_before
        times = zip(self._reader.own, self._placed, strict=True)
        record = SegmentRecord(
            source=self._source,
            frames=[[pts, duration, placed] for (pts, duration), placed in times],
            packets=self._packets,
            time_base=str(self._encoding.settings.time_base),
            bytes=self._store.path(self._index).stat().st_size,
            header=self._header,
            damaged=self._reader.damaged,
            passed_through=self.passed_through,
            dry=self.dry,
            scaled=frames.changes.scaled,
            changed=frames.changes.counts(),
            side_data={
                what: size - before.get(what, 0)
                for what, size in self._side_data.found.items()
                if size != before.get(what)
            },
            changes=self.changes,
        )
        self._store.save(self._index, record)

    def close(self) -> None:
        """Remove the file unless it was finished."""
        self.abandon()

    def abandon(self, *, is_quick: bool = False) -> Path | None:
        """Remove the file unless it was finished.

        Args:
            is_quick: Nothing: it is always so.

        Returns:
            None, as nothing is left.
        """
        if not self._is_finished:
            self._is_finished = True
            self._output.freeze(self._container)
            self._output.discard()
        return None
