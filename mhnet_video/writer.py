"""Encode frames into a video file, and carry over what else the source holds."""

import contextlib
import os
from collections.abc import Iterable
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard
from av.video.stream import VideoStream

from mhnet_video.boxes import add_cover
from mhnet_video.containers import Format, format_of, muxer_options, picture_encoder
from mhnet_video.encoder import (
    Encoding,
    clock_of,
    encoder_options,
    find_encoding,
    pixel_formats,
    working_encoders,
)
from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.jpeg import with_segments_of
from mhnet_video.pixels import Converter, Decoded, layout_of, planar_twin, rgb_matrix
from mhnet_video.reader import COVER, Item, Packet, VideoReader
from mhnet_video.sink import Sink, why_unwritable
from mhnet_video.streams import Tracks, dress, file_metadata, printable
from mhnet_video.tracks import has_adts

__all__ = ["VideoWriter", "working_encoders"]

_COLOR_TAGS = ("color_range", "colorspace", "color_primaries", "color_trc")
_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG
# a rate beyond this is a clock mistaken for one, and would make encoders reserve for it
_MAX_FPS = 1000
# what encoders read from nowhere, while captions and field order come with FFmpeg's frames
_HDR = (SideDataType.MASTERING_DISPLAY_METADATA, SideDataType.DYNAMIC_HDR_PLUS)
# a track that begins later than the video by more would delay the index of an MP4
_LATE_SECONDS = 2
# how much is held back until the header can be written
_MAX_HELD_FRAMES = 40
_MAX_HELD_BYTES = 96 << 20
# codecs of which MP4 cannot write anything before the first packet
_NEED_A_PACKET = ("ac3", "eac3")
_BUFFER_BYTES = 1 << 18


class VideoWriter:
    """A video file that keeps the time of every frame and everything else of its source.

    It grows beside the destination and appears under its name only when it is complete. What a
    killed run leaves there plays up to about the last second.

    Args:
        destination: File to create, its format by its name; `-` for Matroska on standard output.
        reader: The source, for what the frames do not carry.
        encoder: FFmpeg's name of the video encoder; None for the format's usual one.
        crf: Quality of the encoder, lower is better; None for the default.
        preset: Speed preset of the encoder; None for the default.
        options: Further options of the encoder, name and value.
        overwrite: Whether an existing destination may be replaced.

    Raises:
        WriteError: The destination cannot be created, exists, or names no format; there is no
            such encoder or option.
    """

    def __init__(
        self,
        destination: str | PathLike[str],
        reader: VideoReader,
        *,
        encoder: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        options: tuple[tuple[str, str], ...] = (),
        overwrite: bool = False,
    ) -> None:
        name = str(destination)
        self._reader = reader
        self._picture_encoder = picture_encoder(name)
        if self._picture_encoder is not None and not reader.is_picture:
            raise WriteError(f"{name} is a picture, but {reader.name} a video; end it in .mp4.")
        self._kind = None if self._picture_encoder is not None else format_of(name)
        self.encoder = encoder or self._picture_encoder or self._usual_encoder()
        """FFmpeg's name of the encoder."""
        self.pixel_format = ""
        """FFmpeg's name of the output's pixel format; empty before the first frame."""
        self.frames = 0
        """Frames written."""
        self.kept: list[str] = []
        """What else of the source is in the output, a line each."""
        self.lost: list[str] = []
        """What of the source is not in the output, or not as it was, a line each."""
        self._options = encoder_options(self.encoder, crf=crf, preset=preset, options=options)
        self._sink = Sink(destination, overwrite=overwrite)
        self._held: list[Item] = []
        self._container: OutputContainer | None = None
        self._context: Any = None
        self._stream: VideoStream | None = None
        self._tracks: Tracks | None = None
        self._is_finished = False
        self._origin = Fraction(0)
        self._last_pts: int | None = None
        self._end = -(1 << 62)
        self._counts = {"moved": 0, "scaled": 0, "refused": 0}

    def _usual_encoder(self) -> str:
        kind = self._kind
        if kind is None or kind.name != "webm":
            return "libx264" if kind is None else kind.video
        layout = layout_of(planar_twin(self._reader.stream.pix_fmt or "yuv420p"))
        # the VP9 encoder at hand knows 8 bits only
        return "libsvtav1" if layout is not None and layout.bits > 8 else kind.video

    @property
    def partial(self) -> Path | None:
        """The file as it grows; None when it is complete or has none of its own."""
        return self._sink.partial

    def write(self, item: Item) -> None:
        """Encode a frame, or carry over a packet of another stream.

        Raises:
            WriteError: The encoder does not open, or the disk refuses.
        """
        if self._context is None:
            self._held.append(item)
            if self._knows_enough():
                self._begin()
        elif isinstance(item, Frame):
            self._encode(item)
        else:
            self._carry(item)

    # the beginning: the header must be right at once, so it waits for what it depends on

    def _knows_enough(self) -> bool:
        """Whether there is a frame, and a packet of each stream that is described by one."""
        frames = [item for item in self._held if isinstance(item, Frame)]
        if not frames or len(frames) >= _MAX_HELD_FRAMES or self._kind is None:
            return bool(frames)
        if sum(plane.nbytes for frame in frames for plane in frame.planes) > _MAX_HELD_BYTES:
            return True
        seen = {item.stream_index for item in self._held if not isinstance(item, Frame)}
        streams = self._reader.container.streams.audio
        return all(s.index in seen or not has_adts(self._kind, s) for s in streams)

    def _begin(self) -> None:
        frame = next(item for item in self._held if isinstance(item, Frame))
        encoding = self._find_encoding(frame)
        self.pixel_format = encoding.pixel_format
        self._converter = Converter(encoding.pixel_format, encoding.width, encoding.height)
        self._size = (frame.width, frame.height)
        self._time_base = encoding.time_base
        self._origin = self._reader.origin or Fraction(0)
        if self._kind is not None and self._kind.is_constant_rate and not self._origin:
            self._origin = frame.pts * frame.time_base  # there is no way to begin later
        try:
            if self._kind is None:
                self._context = av.CodecContext.create(self.encoder, "w")
                encoding.apply(self._context)
                self._context.open()
            else:
                self._open_container(self._kind, encoding, frame)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        self._tell_pixels(frame)
        if self._tracks is not None:
            time = frame.pts * frame.time_base - self._origin
            self._mux(self._tracks.begin(time))
        held, self._held = self._held, []
        for item in held:
            self.write(item)

    def _find_encoding(self, frame: Frame) -> Encoding:
        reader = self._reader
        fps = reader.fps if 0 < reader.fps <= _MAX_FPS else Fraction(25)
        time_base = frame.time_base
        if self._kind is not None and self._kind.is_constant_rate:
            time_base = 1 / fps
        elif self._kind is not None and self._kind.time_base is not None:
            time_base = self._kind.time_base
        elif time_base.denominator > 1 << 30:
            time_base = Fraction(1, 90000)
        options = dict(self._options)
        if self._kind is not None and _has_cues(self._kind, reader):
            options.setdefault("g", str(max(1, round(fps))))
        source = str(frame.tags.get("pixel_format", frame.layout.name))
        formats = pixel_formats(self.encoder, frame.layout, source, is_full=frame.full_range)

        def make(pixel_format: str) -> Encoding:
            return Encoding(
                encoder=self.encoder,
                width=frame.width,
                height=frame.height,
                pixel_format=pixel_format,
                fps=fps,
                time_base=clock_of(self.encoder, time_base, fps),
                options=options,
                sample_aspect_ratio=reader.stream.sample_aspect_ratio,
                color=_color(frame, pixel_format),
                field_order=_field_order(reader, frame),
                tag="hvc1" if self._kind and self._kind.is_mp4 and _is_hevc(self.encoder) else None,
            )

        # formats that lose little, should a size or an encoder rule the first one out
        return find_encoding(make, formats[:8])

    def _open_container(self, kind: Format, encoding: Encoding, frame: Frame) -> None:
        source = self._reader.container
        metadata = file_metadata(source)
        time_bases = [encoding.time_base]
        time_bases += [Fraction(s.time_base) for s in source.streams if s.time_base]
        container = av.open(
            self._sink,
            mode="w",
            format=kind.name,
            container_options=muxer_options(
                kind,
                time_bases,
                metadata,
                has_cues=_has_cues(kind, self._reader),
                has_late_track=_has_late_track(self._reader),
            ),
            metadata_errors="surrogateescape",
            buffer_size=_BUFFER_BYTES,
        )
        self._container = container
        container.metadata.update(metadata)
        self._tracks = Tracks(
            container, kind, self._first_packets(), is_seekable=self._sink.is_seekable
        )
        for stream in source.streams:
            if stream.index == self._reader.stream.index:
                self._add_video(container, encoding, frame)
            else:
                self._tracks.add(stream)
        self._add_chapters(container, kind)
        container.start_encoding()

    def _first_packets(self) -> dict[int, bytes]:
        first: dict[int, bytes] = {}
        for item in self._held:
            if not isinstance(item, Frame) and item.stream_index not in first:
                first[item.stream_index] = bytes(item)
        return first

    def _add_video(self, container: OutputContainer, encoding: Encoding, frame: Frame) -> None:
        try:
            stream: Any = container.add_stream(self.encoder, rate=encoding.fps)
        except ValueError as error:
            assert_kind = self._kind.label if self._kind is not None else ""
            raise WriteError(
                f"{assert_kind} cannot hold what the encoder {self.encoder} makes; "
                "choose another one, or end the output in .mkv."
            ) from error
        encoding.apply(stream.codec_context)
        stream.time_base = encoding.time_base
        matrix = frame.tags.get("display_matrix")
        if matrix is not None and self._kind is not None:
            if self._kind.has_rotation:
                stream.set_display_matrix(matrix)
            else:
                self.lost.append(f"rotation: {self._kind.label} has no place for it")
        stream.codec_context.open()
        self._stream = stream
        self._context = stream.codec_context
        if self._kind is not None:
            dress(stream, self._reader.stream, self._kind)

    def _add_chapters(self, container: OutputContainer, kind: Format) -> None:
        reader = self._reader
        origin = self._origin
        chapters: list[Any] = []
        for chapter in reader.container.chapters():
            unit = Fraction(chapter["time_base"] or Fraction(1, 1000))
            begin = chapter["start"] * unit - origin
            end = chapter["end"] * unit - origin
            if reader.end is not None:
                end = min(end, reader.end - origin)
            if reader.start:
                begin = max(begin, Fraction(0))
            if end > begin:
                moved = {"start": round(begin / unit), "end": round(end / unit)}
                chapters.append(chapter | moved)
        if not chapters:
            return
        if kind.has_chapters:
            container.set_chapters(chapters)
            self.kept.append(f"{len(chapters)} chapters")
        else:
            self.lost.append(f"{len(chapters)} chapters: {kind.label} has no place for them")

    def _tell_pixels(self, frame: Frame) -> None:
        """Say where the output's pixels cannot be what the source's were."""
        source, target = frame.layout, layout_of(planar_twin(self.pixel_format))
        if target is None:
            return
        losses = []
        if source.kind == "rgb" and target.kind == "yuv":
            losses.append("RGB became YUV")
        if target.bits < source.bits:
            losses.append(f"{source.bits} bits became {target.bits}")
        if source.kind == "yuv" and (
            target.chroma_shift_x > source.chroma_shift_x
            or target.chroma_shift_y > source.chroma_shift_y
        ):
            losses.append("colour has fewer samples")
        if source.has_alpha and not target.has_alpha:
            losses.append("transparency is gone")
        shown = f"pixels: {source.name} is stored as {self.pixel_format}"
        if losses:
            self.lost.append(f"{shown} by {self.encoder} ({', '.join(losses)})")
        elif target.name != source.name:
            self.kept.append(f"{shown}, as {self.encoder} takes it")
        is_turned = frame.tags.get("display_matrix") is not None
        if self._kind is None and is_turned and self.encoder not in ("png", "mjpeg"):
            self.lost.append("rotation: this kind of picture has no place for it")
        if _has_hdr(frame):
            self.lost.append("HDR mastering data: the encoder has no way to take it")

    # one item after the other

    def _encode(self, frame: Frame) -> None:
        if (frame.width, frame.height) != self._size:
            self._counts["scaled"] += 1
        time = frame.pts * frame.time_base - self._origin
        pts = round(time / self._time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
            self._counts["moved"] += 1
        self._last_pts = pts
        try:
            picture = self._converter.convert(frame)
            picture.pts = pts
            picture.time_base = self._time_base
            duration = frame.duration * frame.time_base or 1 / self._reader.fps
            picture.duration = max(1, round(duration / self._time_base))
            self._end = max(self._end, pts + picture.duration)
            picture.pict_type = 0
            packets = self._encoded(picture)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        self._mux(packets)
        self.frames += 1

    def _encoded(self, picture: av.VideoFrame | None) -> list[Packet]:
        return (self._stream or self._context).encode(picture)

    def _carry(self, packet: Packet) -> None:
        if self._tracks is not None:
            self._mux(self._tracks.packets(packet, self._origin))

    def _mux(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            try:
                if self._container is None:
                    self._sink.write(self._picture_file(packet))
                else:
                    self._container.mux_one(packet)
            except (FFmpegError, OSError, ValueError) as error:
                is_video = packet.stream_index == getattr(self._stream, "index", 0)
                if self._sink.error is not None or is_video:
                    raise self._error(error) from error
                # a damaged packet of another stream is no reason to end
                self._counts["refused"] += 1

    def _picture_file(self, packet: Packet) -> bytes:
        """The bytes of a picture's file."""
        source = self._reader.container.name
        if self.encoder != "mjpeg" or not os.path.isfile(source):
            return bytes(packet)
        return with_segments_of(Path(source).read_bytes(), bytes(packet))

    # the end

    def finish(self) -> None:
        """Complete the file and give it its name.

        Raises:
            WriteError: The disk refuses, or there was no frame.
        """
        if self._context is None and any(isinstance(item, Frame) for item in self._held):
            self._begin()
        if self._context is None:
            raise WriteError(f"there is no picture to write to {self._sink.name}.")
        self._flush()
        if self._tracks is not None and self._tracks.late_covers and self.partial is not None:
            add_cover(self.partial, self._tracks.late_covers)
        self._tell()
        self._sink.commit()
        self._is_finished = True

    def _flush(self) -> None:
        """Write what the encoders hold, and close the container."""
        try:
            packets = self._encoded(None)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if packets and packets[-1].pts is not None and self._kind and self._kind.is_mp4:
            # where B-frames come last, FFmpeg 8.1 may end the track with them, before the frame
            # that is shown last, and players then hide that one
            packets[-1].duration = max(packets[-1].duration or 0, self._end - packets[-1].pts)
        self._mux(packets)
        if self._tracks is not None:
            self._mux(self._tracks.flush())
        try:
            if self._container is not None:
                self._container.close()
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if self._sink.error is not None:
            raise self._error(self._sink.error)

    def _tell(self) -> None:
        """Complete what was kept and what was lost."""
        reader, tracks = self._reader, self._tracks
        if tracks is not None:
            self.kept += tracks.kept
            self.lost += tracks.lost
            self._counts["refused"] += tracks.refused
        counts = self._counts
        if self._origin and not reader.start:
            self.lost.append(
                f"times: the source starts at {float(self._origin):.3f} s, the output at 0"
            )
        if reader.jumps:
            self.lost.append(
                f"times: the recording's clock jumped ({reader.jumps} times); "
                "in the output the parts follow each other"
            )
        if self._kind is not None and self._kind.is_constant_rate and self._has_uneven_times():
            self.lost.append(f"times: {self._kind.label} knows one frame rate only")
        elif counts["moved"]:
            self.lost.append(
                f"times: {counts['moved']} frames, not later than the one before, "
                f"were moved by {self._time_base} s or more"
            )
        if counts["scaled"]:
            width, height = self._size
            self.lost.append(
                f"size: {counts['scaled']} frames of another size were scaled to {width}x{height}"
            )
        if counts["refused"]:
            self.lost.append(f"{counts['refused']} packets of other streams were damaged")
        self._tell_metadata()

    def _has_uneven_times(self) -> bool:
        return bool(self._counts["moved"])

    def _tell_metadata(self) -> None:
        """Compare what the file says about itself with what the source does."""
        wanted = file_metadata(self._reader.container)
        if self.partial is None or self._container is None or not wanted:
            return
        try:
            with av.open(str(self.partial), metadata_errors="surrogateescape") as result:
                found = {key.lower() for key in result.metadata}
        except (FFmpegError, OSError, ValueError):
            return
        gone = [key for key in wanted if key.lower() not in found]
        if len(gone) < len(wanted):
            self.kept.append(f"{len(wanted) - len(gone)} lines of information about the file")
        if gone:
            names = ", ".join(printable(key) for key in gone)
            self.lost.append(f"information about the file: {names}")

    def _error(self, error: Exception) -> WriteError:
        """What went wrong, for a person."""
        name = self._sink.name
        if self._sink.error is not None:
            return WriteError(f"{name} cannot be written: {why_unwritable(self._sink.error)}.")
        if isinstance(error, MHNetVideoError):
            return WriteError(str(error))
        reason = getattr(error, "strerror", None) or str(error)
        return WriteError(
            f"{name} cannot be written with the encoder {self.encoder} ({reason}); "
            "try another one, or another format."
        )

    def abandon(self, *, is_quick: bool = False) -> Path | None:
        """End without finishing; what can be played stays as the partial file.

        Args:
            is_quick: Whether to leave out what is still in the encoder.

        Returns:
            The partial file, None if nothing in it plays.
        """
        if self._is_finished:
            return None
        self._is_finished = True
        if self._container is not None:
            if self._sink.error is None and self._context is not None and not is_quick:
                with contextlib.suppress(MHNetVideoError):
                    self._flush()
            self._sink.freeze()
            with contextlib.suppress(FFmpegError, OSError, ValueError):
                self._container.close()
        self._sink.close()
        partial = self.partial
        if partial is not None and (self._container is None or not _plays(partial)):
            self._sink.discard()
            partial = None
        return partial

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Abandon the file unless it was finished."""
        self.abandon()


def _has_cues(kind: Format, reader: VideoReader) -> bool:
    """Whether an MP4 gets subtitles."""
    return kind.is_mp4 and any(s.type == "subtitle" for s in reader.container.streams)


def _has_late_track(reader: VideoReader) -> bool:
    """Whether a stream begins much later than the video, or has nothing at all."""
    first = (reader.stream.start_time or 0) * reader.time_base
    for stream in reader.container.streams:
        if stream.type not in ("audio", "video", "data") or stream.discard == Discard.all:
            continue
        if stream.disposition & COVER or stream.name in _NEED_A_PACKET:
            continue
        begin = stream.start_time
        if begin is None or begin * Fraction(stream.time_base or 0) > first + _LATE_SECONDS:
            return True
    return False


def _is_hevc(encoder: str) -> bool:
    return "265" in encoder or "hevc" in encoder


def _color(frame: Frame, pixel_format: str) -> dict[str, int]:
    """The colour tags of the output: the source's, unless RGB had to become YUV."""
    color = {name: int(frame.tags.get(name, 0)) for name in _COLOR_TAGS if name in frame.tags}
    if frame.layout.kind == "rgb" and not av.VideoFormat(pixel_format, 16, 16).is_rgb:
        color["colorspace"] = rgb_matrix(frame.height)
        color["color_range"] = 2 if "yuvj" in pixel_format else _LIMITED_RANGE
    return color


def _has_hdr(frame: Frame) -> bool:
    decoded = frame.tags.get("decoded")
    try:
        side_data: Any = decoded.picture.side_data if isinstance(decoded, Decoded) else ()
        return any(data.type in _HDR for data in side_data)
    except ValueError:
        return False  # PyAV 18 stumbles over side data that it does not know


def _field_order(reader: VideoReader, frame: Frame) -> int:
    """FFmpeg's number of the order of fields; 0 for frames that are not interlaced."""
    context: Any = reader.stream.codec_context
    return int(context.field_order) if frame.tags.get("interlaced") else 0


def _plays(path: Path) -> bool:
    """Whether a file holds a picture that can be decoded."""
    try:
        with av.open(str(path)) as container:
            return next(container.decode(video=0), None) is not None
    except (FFmpegError, OSError, ValueError, IndexError):
        return False
