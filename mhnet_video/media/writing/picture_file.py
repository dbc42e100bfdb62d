"""A picture as a file of its own: which way up it is, and what its file says about it."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import av
from av.error import FFmpegError

from mhnet_video.frame import Frame
from mhnet_video.media.fidelity import Notes
from mhnet_video.media.frames.device_frames import on_host
from mhnet_video.media.frames.frame_geometry import upright
from mhnet_video.media.frames.image_metadata import (
    as_true,
    display_matrix_in,
    with_segments_of,
    with_texts_of,
)
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import COVER, Packet
from mhnet_video.media.writing.frame_encoder import FrameEncoder
from mhnet_video.media.writing.metadata_fidelity import (
    report_descriptions,
    report_further_pictures,
)
from mhnet_video.media.writing.write_errors import encoder_error


class PictureSource:
    """A picture's own file, whose EXIF data and texts its output is to have.

    Args:
        reader: The source.
        encoder: FFmpeg's name of the output's encoder.
        notes: The report.
    """

    def __init__(self, reader: VideoReader, encoder: str, notes: Notes) -> None:
        self._reader = reader
        self._encoder = encoder
        self._notes = notes

    def oriented(self, frame: Frame) -> Frame:
        """The frame, turned upright where its file would not say which way up it is."""
        source = self._reader.container
        if source.format.name == "image2" or source.format.name.endswith("_pipe"):
            # a photograph's EXIF: PNG takes it from the decoder's picture, JPEG from a JPEG's file
            is_jpeg = self._reader.stream.codec.name == "mjpeg" and bool(self._content)
            is_as_decoded = "decoded" in frame.tags
            if (self._encoder, is_as_decoded) == ("png", True):
                return frame
            if self._encoder == "mjpeg" and is_jpeg:
                return frame
            # PyAV does not tell of mirrored ones
            matrix = display_matrix_in(self._content)
            if matrix is not None:
                frame = replace(frame, tags=frame.tags | {"display_matrix": matrix})
        if frame.tags.get("display_matrix") is None:
            return frame
        self._notes.kept.append("rotation: the picture was turned upright")
        return upright(on_host(frame))

    def completed(self, encoded: bytes) -> bytes:
        """The file with what the source's said about the picture."""
        if self._encoder == "mjpeg":
            encoded = with_segments_of(self._content, encoded)
        elif self._encoder == "png":
            encoded = with_texts_of(self._content, encoded)
        written = as_true(encoded)
        report_descriptions(self._notes, self._content, encoded, written)
        videos = self._reader.container.streams.video
        pictures = [stream for stream in videos if not stream.disposition & COVER]
        report_further_pictures(self._notes, self._content, num_streams=len(pictures))
        return written

    @cached_property
    def _content(self) -> bytes:
        """The bytes of the source's file; empty where they are not at hand."""
        return self._reader.picture_bytes()


class PictureFile:
    """An output that is one encoded picture.

    Args:
        output: Where its bytes go.
        source: What the source's file says about it.
        frames: Makes the packet of the picture, and is opened here.
        first: The picture.

    Raises:
        FFmpegError: The encoder does not open.
        ValueError: Likewise.
    """

    def __init__(
        self, output: OutputFile, source: PictureSource, frames: FrameEncoder, first: Frame
    ) -> None:
        self.frames = frames
        self._output = output
        self._source = source
        context: Any = av.CodecContext.create(frames.settings.encoder, "w")
        frames.set_up(context)
        frames.open(context, first)

    def write_video(self, packets: Iterable[Packet]) -> None:
        """Write the encoded picture.

        Raises:
            WriteError: The disk refuses.
        """
        for packet in packets:
            try:
                self._output.write(self._source.completed(bytes(packet)))
            except (FFmpegError, OSError, ValueError) as error:
                encoder = self.frames.settings.encoder
                raise encoder_error(self._output, encoder, error) from error

    def carry(self, packet: Packet) -> None:
        """Leave out a packet of another stream."""

    def finish(self, packets: Iterable[Packet]) -> None:
        """Write what the encoder held.

        Raises:
            WriteError: The disk refuses.
        """
        self.write_video(packets)
