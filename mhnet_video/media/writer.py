"""Encode frames into a video file, and carry over what else the source holds."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import Stream
from av.video.stream import VideoStream

from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.containers import Format, format_of, muxer_options, picture_encoder
from mhnet_video.media.decoder import Item, Packet
from mhnet_video.media.encoder import (
    Encoding,
    encoder_options,
    longest_step,
    open_encoder,
    option_names,
    working_encoders,
)
from mhnet_video.media.encoding_settings import (
    has_cues,
    has_late_track,
    late_tracks,
    plan_encoding,
    usual_encoder,
)
from mhnet_video.media.fidelity import TIMECODE, Notes, Written, carried_by, counted
from mhnet_video.media.hwaccel import Surfaces, on_host, open_surfaces
from mhnet_video.media.image_metadata import display_matrix_in, with_segments_of, with_texts_of
from mhnet_video.media.mp4_boxes import add_cover
from mhnet_video.media.output_file import Sink, why_unwritable
from mhnet_video.media.pixel_formats import Converter, upright
from mhnet_video.media.reader import COVER, VideoReader
from mhnet_video.media.remux import Tracks, describe, dress, file_metadata
from mhnet_video.media.source import plays
from mhnet_video.media.tracks import MAX_ADDED

__all__ = ["VideoWriter", "working_encoders"]

# a frame moved by less is at its time
_VISIBLE_SECONDS = Fraction(1, 500)
# how much is held back until the header can be written
_MAX_HELD_FRAMES = 40
_MAX_HELD_BYTES = 96 << 20
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
        for_picture = picture_encoder(name)
        if for_picture is not None and not reader.is_picture:
            raise WriteError(_is_no_picture(name, reader))
        if for_picture is not None and encoder not in (None, for_picture):
            raise WriteError(
                f"{name} is written by the encoder {for_picture}; leave --encoder out."
            )
        self._kind: Format | None = None
        if for_picture is None:
            self._kind = format_of(name)
            for_picture = usual_encoder(self._kind, reader)
        self.encoder = encoder or for_picture
        """FFmpeg's name of the encoder."""
        self.pixel_format = ""
        """FFmpeg's name of the output's pixel format; empty before the first frame."""
        self.frames = 0
        """Frames written."""
        self.notes = Notes()
        """What to tell a person: what was kept of the source, and what was not."""
        self._options = encoder_options(self.encoder, crf=crf, preset=preset, options=options)
        self._sink = Sink(destination, overwrite=overwrite)
        self._held: list[Item] = []
        self._surfaces: Surfaces | None = None
        # the frame that an encoder was opened with, and what came of it
        self._early: tuple[Frame, list[Packet]] | None = None
        self._container: OutputContainer | None = None
        self._context: Any = None
        self._stream: VideoStream | None = None
        self._tracks: Tracks | None = None
        self._titles: list[str] = []
        self._written: dict[int, Written] = {}
        self._is_finished = False
        self._origin = Fraction(0)
        self._last_pts: int | None = None
        self._last_picture: av.VideoFrame | None = None
        self._longest_step: int | None = None
        self._longest_of = ""
        self._end = -(1 << 62)
        # the last packet of the encoder, until it is known how long it is
        self._waiting: Packet | None = None

    @property
    def partial(self) -> Path | None:
        """The file as it grows; None when it is complete or has none of its own."""
        return self._sink.partial

    @property
    def has_frames(self) -> bool:
        """Whether it was given a frame."""
        return self._context is not None or any(isinstance(item, Frame) for item in self._held)

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
        """Whether there is a frame, and a packet of each stream by which the muxer is asked."""
        frames = [item for item in self._held if isinstance(item, Frame)]
        if not frames or len(frames) >= _MAX_HELD_FRAMES or self._kind is None:
            return bool(frames)
        if sum(frame.num_bytes for frame in frames) > _MAX_HELD_BYTES:
            return True
        seen = {item.stream_index for item in self._held if not isinstance(item, Frame)}
        seen.add(self._reader.stream.index)
        streams = self._reader.container.streams
        return all(
            stream.index in seen or stream.disposition & COVER
            for stream in (*streams.audio, *streams.video)
        )

    def _begin(self) -> None:
        if self._kind is None:
            self._held = [self._as_a_picture(i) if isinstance(i, Frame) else i for i in self._held]
        frame = next(item for item in self._held if isinstance(item, Frame))
        encoding = plan_encoding(
            self.encoder, self._options, kind=self._kind, reader=self._reader, frame=frame
        )
        self.pixel_format = encoding.pixel_format
        if self._kind is not None:
            self._surfaces = open_surfaces(frame, encoding)
        wanted = self._surfaces.host_format if self._surfaces else encoding.pixel_format
        size = encoding.width, encoding.height
        # frames whose matrix or range changes later are brought to what the header says
        is_rgb = frame.layout.kind == "rgb"
        self._samples = encoding.samples or (None if is_rgb else (frame.matrix, frame.full_range))
        self._converter = Converter(wanted, *size, samples=self._samples)
        self._first = replace(frame, planes=()) if type(frame) is Frame else frame
        # each frame says what it is to x264, which writes it down where it was opened for fields
        self._marks_each = encoding.marks_fields and self.encoder == "libx264"
        self._size = (frame.width, frame.height)
        self._time_base = encoding.time_base
        self._origin = self._reader.origin or Fraction(0)
        if self._kind is not None and self._kind.is_constant_rate and not self._origin:
            self._origin = frame.pts * frame.time_base  # there is no way to begin later
        try:
            if self._kind is None:
                self._context = av.CodecContext.create(self.encoder, "w")
                encoding.apply(self._context)
                open_encoder(self._context)
            else:
                self._open_with_others(self._kind, encoding, frame)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._refusal(error) from error
        self.notes.tell_pixels(frame, self.pixel_format, self.encoder)
        if self._reader.stream.metadata.get("alpha_mode") == "1" and not frame.layout.has_alpha:
            self.notes.lose("pixels", "transparency", "it is not decoded from this codec")
        self.notes.tell_rotation(frame, self._kind)
        if frame.tags.get("interlaced") and not encoding.marks_fields:
            why = f"{self.encoder} does not mark frames as interlaced"
            self.notes.lose("fields", "fields", why)
        if self._tracks is not None:
            self._mux(self._tracks.begin(self._time(frame)))
        held, self._held = self._held, []
        for item in held:
            self.write(item)

    def _open_with_others(self, kind: Format, encoding: Encoding, frame: Frame) -> None:
        """Begin the file with as many of the other streams as the muxer takes together."""
        others = [s for s in self._reader.container.streams if s.index != self._reader.stream.index]
        for most in range(len(others), -1, -1):
            try:
                self._open_container(kind, encoding, frame, others[most:])
            except (FFmpegError, ValueError):
                if self._sink.error is not None or not most:
                    raise
                self._sink.seek(0)
            else:
                return

    def _open_container(
        self, kind: Format, encoding: Encoding, frame: Frame, refused: list[Stream]
    ) -> None:
        source = self._reader.container
        metadata = file_metadata(source)
        time_bases = [encoding.time_base]
        time_bases += [Fraction(s.time_base) for s in source.streams if s.time_base]
        chapters = self._chapters()
        edges = sorted(edge for chapter in chapters for edge in _edges(chapter))
        container = av.open(
            self._sink,
            mode="w",
            format=kind.name,
            container_options=muxer_options(
                kind,
                time_bases,
                metadata,
                has_cues=has_cues(kind, self._reader),
                has_late_track=has_late_track(self._reader, kind),
                is_seekable=self._sink.is_seekable,
                chapter_seconds=max((b - a for a, b in pairwise(edges)), default=Fraction(0)),
            ),
            metadata_errors="surrogateescape",
            buffer_size=_BUFFER_BYTES,
        )
        self._container = container
        container.metadata.update(metadata)
        self._tracks = Tracks(
            container,
            kind,
            self._first_packets(),
            late=late_tracks(self._reader, kind),
            is_seekable=self._sink.is_seekable,
        )
        for stream in source.streams:
            if stream.index == self._reader.stream.index:
                self._add_video(container, encoding, frame)
            elif stream in refused:
                self._tracks.refuse(stream)
            else:
                self._tracks.add(stream, pause_seconds=self._reader.longest_pause(stream))
        self._add_chapters(container, kind, chapters)
        self._written = self._describe(self._tracks)
        container.start_encoding()
        # the muxer may count in smaller ticks
        ticks = Fraction(getattr(self._stream, "time_base", None) or self._time_base)
        if kind.longest_step is not None:
            self._longest_step = int(kind.longest_step * ticks / self._time_base)
            self._longest_of = kind.label
        step = longest_step(self.encoder, self._time_base)
        if step is not None and step < (self._longest_step or step + 1):
            self._longest_step, self._longest_of = step, self.encoder

    def _describe(self, tracks: Tracks) -> dict[int, Written]:
        """The output's streams as they are set up, by the source's numbers of theirs."""
        targets: dict[int, Any] = {self._reader.stream.index: self._stream, **tracks.targets}
        sources = self._reader.container.streams
        written, counts = {}, Counter[str]()
        for index, target in sorted(targets.items(), key=lambda item: item[1].index):
            written[index] = Written(
                stream=index,
                name=describe(sources[index]),
                type=target.type,
                number=counts[target.type],
                tags=dict(target.metadata),
                disposition=int(sources[index].disposition),
            )
            counts[target.type] += 1
        return written

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
            label = self._kind.label if self._kind is not None else ""
            way = "" if label == "Matroska" else ", or end the output in .mkv"
            raise WriteError(
                f"{label} cannot hold what the encoder {self.encoder} makes; "
                f"choose another one{way}."
            ) from error
        if self._surfaces is not None:
            encoding = replace(encoding, pixel_format=self._surfaces.pixel_format)
        encoding.apply(stream.codec_context)
        stream.time_base = encoding.time_base
        if self._kind is not None and self._kind.has_rotation:
            stream.set_display_matrix(frame.tags.get("display_matrix"))
        if self._surfaces is None:
            open_encoder(stream.codec_context)
        else:
            # it learns from its first picture where in the GPU's memory pictures are
            try:
                self._early = frame, stream.encode(self._picture(frame))
            except (FFmpegError, OSError, ValueError) as error:
                raise self._error(error) from error
        self._stream = stream
        self._context = stream.codec_context
        if self._kind is not None:
            dress(stream, self._reader.stream, self._kind, is_copied=False)

    def _chapters(self) -> list[Any]:
        """The source's chapters at their times in the output."""
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
                chapters.append(chapter | {"time_base": unit} | moved)
        return chapters

    def _add_chapters(self, container: OutputContainer, kind: Format, chapters: list[Any]) -> None:
        if not chapters:
            return
        if kind.has_chapters:
            container.set_chapters(chapters)
            self._titles = [each["metadata"].get("title", "") for each in chapters]
            self.notes.kept.append(counted(len(chapters), "chapter"))
        else:
            what = counted(len(chapters), "chapter")
            self.notes.lose("chapters", what, f"{kind.label} has no place for chapters")

    # one item after the other

    def _encode(self, frame: Frame) -> None:
        if self._kind is None and self.frames:
            raise WriteError(_is_no_picture(self._sink.name, self._reader))
        early, self._early = self._early, None
        try:
            if early is not None and early[0] is frame:
                packets = early[1]
            else:
                packets = self._shown_until(self._time(frame))
                packets += self._encoded(self._picture(frame))
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        self._mux(self._up_to_the_next(packets))
        self.notes.see(frame)
        self.frames += 1

    def _time(self, frame: Frame) -> Fraction:
        """When a frame is shown in the output, in seconds."""
        return frame.pts * frame.time_base - self._origin

    def _shown_until(self, time: Fraction) -> list[Packet]:
        """The last picture, shown again where the format knows no pause as long as this one."""
        packets: list[Packet] = []
        last, step = self._last_picture, self._longest_step
        if last is None or step is None or self._last_pts is None:
            return packets
        pts = round(time / self._time_base)
        if pts - self._last_pts > MAX_ADDED * step:
            return packets  # of months: a damaged number, which is moved
        while pts - self._last_pts > step:
            self._last_pts = last.pts = self._last_pts + step
            last.duration = min(last.duration, step)
            packets += self._encoded(last)
            self.notes.shown_again += 1
        return packets

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """What the encoder is given for a frame."""
        if (frame.width, frame.height) != self._size:
            self.notes.scaled += 1
        self.notes.tell_change(self._first, frame, self.encoder, marks_fields=self._marks_each)
        time = self._time(frame)
        pts = round(time / self._time_base)
        self.notes.uneven += abs(pts * self._time_base - time) > _VISIBLE_SECONDS
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
            self.notes.moved += 1
        if self._last_pts is not None and self._longest_step is not None:
            farthest = self._last_pts + self._longest_step
            self.notes.astray += pts > farthest
            pts = min(pts, farthest)
        self._last_pts = pts
        is_as_first = self._samples in (None, (frame.matrix, frame.full_range))
        if self._surfaces is not None and is_as_first and self._surfaces.takes(frame):
            picture = self._surfaces.picture(frame)
        else:
            picture = self._converter.convert(on_host(frame))
        if not is_as_first:
            # some encoders write down what each picture says of itself
            picture.colorspace = self._first.tags.get("colorspace", 0)
            picture.color_range = self._first.tags.get("color_range", 0)
        picture.pts = pts
        picture.time_base = self._time_base
        duration = frame.duration * frame.time_base or 1 / self._reader.fps
        if self._reader.end is not None:
            # one that is shown through a pause may be longer than the part that was asked for
            left = self._reader.end - self._origin - time
            duration = min(duration, max(left, 1 / self._reader.fps))
        picture.duration = max(1, round(duration / self._time_base))
        if self._longest_step is not None:
            picture.duration = min(picture.duration, self._longest_step)
        self._last_picture = picture
        self._end = max(self._end, pts + picture.duration)
        picture.pict_type = 0
        return picture

    def _up_to_the_next(self, packets: list[Packet]) -> list[Packet]:
        """Packets of an MP4, each as long as it is to the next one, which is waited for.

        Where another stream ends a fragment, FFmpeg 8.1 moves the next picture to where the one
        before says that it ends.
        """
        if self._kind is None or not self._kind.is_mp4 or not packets:
            return packets
        ready = packets if self._waiting is None else [self._waiting, *packets]
        for packet, following in pairwise(ready):
            if packet.dts is not None and following.dts is not None:
                packet.duration = following.dts - packet.dts
        self._waiting = ready.pop()
        return ready

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
                    raise self._refusal(error) from error
                # a damaged packet of another stream is no reason to end
                self.notes.refused += 1

    def _picture_file(self, packet: Packet) -> bytes:
        """The bytes of a picture's file."""
        encoded = bytes(packet)
        if self.encoder == "mjpeg":
            encoded = with_segments_of(self._source_bytes, encoded)
        elif self.encoder == "png":
            encoded = with_texts_of(self._source_bytes, encoded)
        self.notes.tell_descriptions(self._source_bytes, encoded)
        return encoded

    @cached_property
    def _source_bytes(self) -> bytes:
        """The file of a picture; empty where it is none."""
        name = self._reader.container.name
        if not self._reader.is_picture or not os.path.isfile(name):
            return b""
        return Path(name).read_bytes()

    def _as_a_picture(self, frame: Frame) -> Frame:
        """The frame, turned upright where its file would not say which way up it is."""
        source = self._reader.container
        if source.format.name == "image2" or source.format.name.endswith("_pipe"):
            # a photograph's EXIF: PNG takes it from the decoder's picture, JPEG from a JPEG's file
            is_jpeg = self._reader.stream.codec.name == "mjpeg" and os.path.isfile(source.name)
            is_as_decoded = "decoded" in frame.tags
            if (self.encoder, is_as_decoded) == ("png", True):
                return frame
            if self.encoder == "mjpeg" and is_jpeg:
                return frame
            # PyAV does not tell of mirrored ones
            matrix = display_matrix_in(self._source_bytes)
            if matrix is not None:
                frame = replace(frame, tags=frame.tags | {"display_matrix": matrix})
        if frame.tags.get("display_matrix") is None:
            return frame
        self.notes.kept.append("rotation: the picture was turned upright")
        return upright(on_host(frame))

    # the end

    def finish(self) -> None:
        """Complete the file and give it its name.

        Raises:
            WriteError: The disk refuses, or there was no frame.
        """
        if not self.has_frames:
            raise WriteError(f"there is no picture to write to {self._sink.name}.")
        if self._context is None:
            self._begin()
        self._flush()
        if self._tracks is not None and self._tracks.late_covers and self.partial is not None:
            add_cover(self.partial, self._tracks.late_covers)
        self._tell()
        self._sink.commit()
        self._is_finished = True

    def _flush(self) -> None:
        """Write what the encoders hold, and close the container."""
        try:
            packets = self._up_to_the_next(self._encoded(None))
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if self._waiting is not None:
            packets = [*packets, self._waiting]
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
            raise self._refusal(error) from error
        if self._sink.error is not None:
            raise self._error(self._sink.error)

    def _tell(self) -> None:
        """Complete what was kept and what was lost."""
        notes, reader, tracks = self.notes, self._reader, self._tracks
        if tracks is not None:
            notes.kept += tracks.kept
            notes.losses += tracks.losses
            notes.refused += tracks.refused
        shift = None if reader.start else self._origin
        notes.tell_pauses(self._longest_of)
        is_even = self._kind is not None and self._kind.is_constant_rate
        holder = self._kind.label if self._kind is not None and is_even else self.encoder
        notes.tell_times(holder, self._time_base, shift=shift, jumps=reader.jumps)
        notes.tell_counts(*self._size)
        if reader.shortfall is not None:
            notes.lose("damage", reader.shortfall)
        # what is told of a picture's file in full
        carried = set() if self._kind is not None else {"EXIF", "colour profile"}
        if self.partial is not None and self._written:
            carried = carried_by(self.partial, self._written[reader.stream.index].number)
        if "timecode" in reader.stream.metadata:
            carried.add(TIMECODE)  # told as a tag where it is not kept as one
        where = f"stream {reader.stream.index}"
        notes.tell_side_data(self.encoder, carried, option_names(self.encoder), where)
        if self._kind is not None:
            notes.tell_units(reader.passed_over, where)
            notes.tell_hidden(reader.container, reader.stream)
        if self.partial is not None and self._written:
            metadata = file_metadata(reader.container)
            notes.tell_metadata(metadata, self.partial, self._written.values(), self._titles)

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

    def _refusal(self, error: Exception) -> WriteError:
        """What the container did not take, for a person."""
        if self._sink.error is not None or self._kind is None or isinstance(error, MHNetVideoError):
            return self._error(error)
        reason = getattr(error, "strerror", None) or str(error)
        label = self._kind.label
        way = "choose another encoder" if label == "Matroska" else "end the output in .mkv"
        return WriteError(
            f"{self._sink.name} cannot be written, as {label} does not take what comes from the "
            f"encoder {self.encoder} ({reason}); {way}."
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
        if partial is not None and (self._container is None or not plays(partial)):
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


def _edges(chapter: Any) -> tuple[Fraction, Fraction]:
    """When a chapter begins and ends, in seconds."""
    return chapter["start"] * chapter["time_base"], chapter["end"] * chapter["time_base"]


def _is_no_picture(name: str, reader: VideoReader) -> str:
    return f"{name} is a picture, but {reader.name} a video; end it in .mp4."
