"""The container of an output: its header, its streams, and the packets that go into them."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import Stream

from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder import longest_step
from mhnet_video.media.encoders.encoding_settings import has_cues, has_late_track, late_tracks
from mhnet_video.media.formats.containers import Format, muxer_options
from mhnet_video.media.formats.matroska_aspect import set_aspects
from mhnet_video.media.formats.mp4_boxes import add_cover
from mhnet_video.media.location.telemetry import Carried, carry
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.tracks.remux import Tracks
from mhnet_video.media.tracks.stream_tags import describe, dress, file_metadata
from mhnet_video.media.tracks.timecode import later
from mhnet_video.media.writing.chapters import chapters_of, edges_of
from mhnet_video.media.writing.frame_encoder import FrameEncoder
from mhnet_video.media.writing.held_items import HeldItems
from mhnet_video.media.writing.metadata_fidelity import OutputStream
from mhnet_video.media.writing.write_errors import encoder_error, muxer_error

_BUFFER_BYTES = 1 << 18
"""How much FFmpeg collects before it writes."""


class Muxer:
    """An open container, its header written.

    Args:
        output: Where its bytes go.
        container_format: Its format.
        reader: The source.
        held: What came before; it holds a frame.
        frames: Makes the packets of the video, and is opened here.
        refused: Streams of the source that are left out.
        remark: What the output's comment says besides what the source's says.

    Raises:
        FFmpegError: The muxer does not take a stream.
        ValueError: Likewise.
        WriteError: It does not take what the encoder makes.
    """

    def __init__(
        self,
        output: OutputFile,
        container_format: Format,
        reader: VideoReader,
        held: HeldItems,
        frames: FrameEncoder,
        refused: Collection[Stream],
        remark: str,
    ) -> None:
        self.format = container_format
        self.metadata = file_metadata(reader.container, remark)
        """What the output is to say about itself as a whole."""
        self.frames = frames
        self.chapters = chapters_of(reader, frames.clock.origin)
        """The source's chapters at their times in the output, which may have no place for them."""
        self.telemetry = Carried()
        """What of the source's positions and sensors is in the output."""
        self.refused = 0
        """Packets of other streams that could not be written."""
        self._output = output
        self._reader = reader
        self._waiting: Packet | None = None
        self._container = self._open()
        self.tracks = Tracks(
            self._container,
            container_format,
            held.first_packets(),
            late=late_tracks(reader, container_format),
            is_seekable=output.is_seekable,
        )
        for stream in reader.container.streams:
            if stream.index == reader.stream.index:
                self._video = self._add_video(held.frames[0])
            elif stream in refused:
                self.tracks.refuse(stream)
            else:
                self.tracks.add(stream, pause_seconds=reader.longest_pause(stream))
        for stream in self._container.streams:
            self._shift_timecode(stream.metadata)
        if self.chapters and container_format.has_chapters:
            self._container.set_chapters(self.chapters)
        self._aspects = self._aspects_by_track()
        self.streams = self._describe()
        """The output's streams as they were set up, by the source's numbers of theirs."""
        self._container.start_encoding()
        self._limit_steps()

    def _open(self) -> OutputContainer:
        source, container_format = self._reader.container, self.format
        metadata = self.metadata
        self._shift_timecode(metadata)
        time_bases = [self.frames.clock.time_base]
        time_bases += [Fraction(s.time_base) for s in source.streams if s.time_base]
        edges = edges_of(self.chapters)
        container = av.open(
            self._output,
            mode="w",
            format=container_format.name,
            container_options=muxer_options(
                container_format,
                time_bases,
                metadata,
                has_cues=has_cues(container_format, self._reader),
                has_late_track=has_late_track(self._reader, container_format),
                is_seekable=self._output.is_seekable,
                chapter_seconds=max((b - a for a, b in pairwise(edges)), default=Fraction(0)),
            ),
            metadata_errors="surrogateescape",
            buffer_size=_BUFFER_BYTES,
        )
        container.metadata.update(metadata)
        return container

    def _add_video(self, first: Frame) -> Stream:
        settings = self.frames.settings
        stream: Any = self._container.add_stream(settings.encoder, rate=settings.fps)
        self.frames.set_up(stream.codec_context)
        stream.time_base = settings.time_base
        if self.format.has_rotation:
            stream.set_display_matrix(first.tags.get("display_matrix"))
        self.frames.open(stream, first)
        dress(stream, self._reader.stream, self.format, is_copied=False)
        return stream

    def _shift_timecode(self, tags: dict[str, str]) -> None:
        """Make a time code that of the first picture of the part that was asked for."""
        reader = self._reader
        if not reader.start:
            return
        begin = (reader.stream.start_time or 0) * reader.time_base
        for key in [key for key in tags if key.lower() == "timecode"]:
            tags[key] = later(tags[key], self.frames.clock.origin - begin, reader.fps)

    def _aspects_by_track(self) -> dict[int, Fraction]:
        """Shapes of samples that are not square, by the number of the output's track from 1."""
        sources = self._reader.container.streams
        wanted = {
            target.index: getattr(sources[index], "sample_aspect_ratio", None)
            for index, target in self.tracks.targets.items()
            if target.type == "video"
        }
        wanted[self._video.index] = self.frames.settings.sample_aspect_ratio
        tracks = [stream for stream in self._container.streams if stream.type != "attachment"]
        aspects = {number: wanted.get(each.index) for number, each in enumerate(tracks, 1)}
        return {number: aspect for number, aspect in aspects.items() if aspect and aspect != 1}

    def _describe(self) -> dict[int, OutputStream]:
        targets: dict[int, Any] = {self._reader.stream.index: self._video, **self.tracks.targets}
        sources = self._reader.container.streams
        streams, counts = {}, Counter[str]()
        for index, target in sorted(targets.items(), key=lambda item: item[1].index):
            streams[index] = OutputStream(
                stream=index,
                name=describe(sources[index]),
                type=target.type,
                number=counts[target.type],
                tags=dict(target.metadata),
                disposition=int(sources[index].disposition),
            )
            counts[target.type] += 1
        return streams

    def _limit_steps(self) -> None:
        """Tell the clock how long pauses may be, once it is known in which ticks they count."""
        clock, encoder = self.frames.clock, self.frames.settings.encoder
        # the muxer may count in smaller ticks
        ticks = Fraction(self._video.time_base or clock.time_base)
        if self.format.longest_step is not None:
            step = int(self.format.longest_step * ticks / clock.time_base)
            clock.limit_steps(step, self.format.label)
        most = longest_step(encoder, clock.time_base)
        if most is not None:
            clock.limit_steps(most, encoder)

    def begin(self, first: Frame) -> None:
        """Write what some formats need before all else.

        Raises:
            WriteError: The disk refuses.
        """
        self.write(self.tracks.begin(self.frames.clock.time_of(first)))

    def write(self, packets: Iterable[Packet]) -> None:
        """Write packets of any stream of the output.

        Raises:
            WriteError: The disk refuses, or the muxer a packet of the video.
        """
        for packet in packets:
            try:
                self._container.mux_one(packet)
            except (FFmpegError, OSError, ValueError) as error:
                if self._output.error is not None or packet.stream_index == self._video.index:
                    raise self._error(error) from error
                # a damaged packet of another stream is no reason to end
                self.refused += 1

    def write_video(self, packets: list[Packet]) -> None:
        """Write packets of the video, but for the last one, whose duration the next one tells.

        Where another stream ends a fragment of an MP4, FFmpeg 8.1 moves the next picture to where
        the one before says that it ends.

        Raises:
            WriteError: The disk or the muxer refuses.
        """
        self.write(self._up_to_the_next(packets))

    def _up_to_the_next(self, packets: list[Packet]) -> list[Packet]:
        if not self.format.is_mp4 or not packets:
            return packets
        ready = packets if self._waiting is None else [self._waiting, *packets]
        for packet, following in pairwise(ready):
            if packet.dts is not None and following.dts is not None:
                packet.duration = following.dts - packet.dts
        self._waiting = ready.pop()
        return ready

    def carry(self, packet: Packet) -> None:
        """Write a packet of another stream of the source, as the output needs it.

        Raises:
            WriteError: The disk refuses.
        """
        self.write(self.tracks.packets(packet, self.frames.clock.origin))

    def finish(self, packets: list[Packet]) -> None:
        """Write the last packets, and close the container.

        Args:
            packets: Those of the video.

        Raises:
            WriteError: The disk or the muxer refuses.
        """
        packets = self._up_to_the_next(packets)
        if self._waiting is not None:
            packets = [*packets, self._waiting]
            self._waiting = None
        if packets and packets[-1].pts is not None and self.format.is_mp4:
            # where B-frames come last, FFmpeg 8.1 may end the track with them, before the frame
            # that is shown last, and players then hide that one
            rest = self.frames.clock.end - packets[-1].pts
            packets[-1].duration = max(packets[-1].duration or 0, rest)
        self.write(packets)
        self.write(self.tracks.flush())
        try:
            self._container.close()
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if self._output.error is not None:
            raise encoder_error(self._output, self.frames.settings.encoder, self._output.error)

    def add_covers(self) -> None:
        """Put cover pictures into the finished file."""
        if self.tracks.late_covers and self._output.partial is not None:
            add_cover(self._output.partial, self.tracks.late_covers)

    def add_aspects(self) -> None:
        """Put the shapes of samples into the finished file, where its muxer was not told them."""
        name, partial = self.format.name, self._output.partial
        if self._aspects and partial is not None and name in ("matroska", "webm"):
            set_aspects(partial, self._aspects, is_webm=name == "webm")

    def carry_telemetry(self) -> None:
        """Copy what a camera keeps beside the tracks into the finished file, if it holds that."""
        files = self._reader.files
        if self.format.is_mp4 and self._output.partial is not None and files:
            self.telemetry = carry(files, self._output.partial)

    def close(self) -> None:
        """Close the container as it is.

        Raises:
            FFmpegError: The muxer refuses.
        """
        self._container.close()

    def _error(self, error: Exception) -> WriteError:
        return muxer_error(self._output, self.frames.settings.encoder, self.format, error)


def open_muxer(
    output: OutputFile,
    container_format: Format,
    reader: VideoReader,
    held: HeldItems,
    new_encoder: Callable[[], FrameEncoder],
    remark: str = "",
) -> Muxer:
    """Begin a file with as many of the source's other streams as the muxer takes together.

    Args:
        output: Where its bytes go.
        container_format: Its format.
        reader: The source.
        held: What came before the header can be written.
        new_encoder: Makes an encoder, one for each try.
        remark: What the output's comment says besides what the source's says.

    Raises:
        FFmpegError: The muxer does not take the video alone.
        ValueError: Likewise.
        WriteError: It does not take what the encoder makes.
    """
    others = [s for s in reader.container.streams if s.index != reader.stream.index]
    most = len(others)
    while True:
        try:
            refused = others[most:]
            return Muxer(output, container_format, reader, held, new_encoder(), refused, remark)
        except (FFmpegError, ValueError):
            if output.error is not None or not most:
                raise
        most -= 1
        output.seek(0)
