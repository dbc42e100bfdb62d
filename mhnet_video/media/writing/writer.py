"""Encode frames into a video file, and carry over what else the source holds."""

import contextlib
from fractions import Fraction
from os import PathLike
from pathlib import Path

from av.error import FFmpegError

from mhnet_video.closing import Closing
from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder import EncoderSettings, working_encoders
from mhnet_video.media.encoders.encoder_options import encoder_options
from mhnet_video.media.encoders.encoder_surfaces import Surfaces, open_surfaces
from mhnet_video.media.encoders.encoding_settings import choose_settings, usual_encoder
from mhnet_video.media.fidelity import Notes
from mhnet_video.media.formats.containers import Format, format_of, picture_encoder
from mhnet_video.media.frames.side_data import FrameSideData
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.decoder import Item
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import plays
from mhnet_video.media.writing.frame_encoder import FrameEncoder
from mhnet_video.media.writing.held_items import HeldItems
from mhnet_video.media.writing.muxer import Muxer, open_muxer
from mhnet_video.media.writing.output_clock import OutputClock
from mhnet_video.media.writing.output_report import report_beginning, report_end
from mhnet_video.media.writing.picture_file import PictureFile, PictureSource
from mhnet_video.media.writing.write_errors import encoder_error, muxer_error

__all__ = ["VideoWriter", "working_encoders"]


class VideoWriter(Closing):
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
        remark: What the file's comment says besides what the source's says.
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
        remark: str = "",
        overwrite: bool = False,
    ) -> None:
        name = str(destination)
        self._reader = reader
        usual = picture_encoder(name)
        if usual is not None and not reader.is_picture:
            raise WriteError(_is_no_picture(name, reader))
        if usual is not None and encoder not in (None, usual):
            raise WriteError(f"{name} is written by the encoder {usual}; leave --encoder out.")
        # None for a picture as a file of its own
        self._format: Format | None = None
        if usual is None:
            self._format = format_of(name)
            usual = usual_encoder(self._format, reader)
        self.encoder = encoder or usual
        """FFmpeg's name of the encoder."""
        self.pixel_format = ""
        """FFmpeg's name of the output's pixel format; empty before the first frame."""
        self.frames = 0
        """Frames written."""
        self.notes = Notes()
        """The report: what was kept of the source, and what was not."""
        self._options = encoder_options(self.encoder, crf=crf, preset=preset, options=options)
        self._remark = remark
        self._output = OutputFile(destination, overwrite=overwrite)
        self._held = HeldItems(reader)
        self._target: Muxer | PictureFile | None = None
        self._side_data = FrameSideData()
        self._is_finished = False

    @property
    def partial(self) -> Path | None:
        """The file as it grows; None when it is complete or has none of its own."""
        return self._output.partial

    @property
    def has_frames(self) -> bool:
        """Whether a frame was passed to it."""
        return self._target is not None or bool(self._held.frames)

    def write(self, item: Item) -> None:
        """Encode a frame, or carry over a packet of another stream.

        Raises:
            WriteError: The encoder does not open, or the disk refuses.
        """
        if self._target is None:
            self._held.items.append(item)
            if self._held.frames if self._format is None else self._held.is_enough:
                self._begin()
        elif not isinstance(item, Frame):
            self._target.carry(item)
        elif self._format is None and self.frames:
            raise WriteError(_is_no_picture(self._output.name, self._reader))
        else:
            self._target.write_video(self._target.frames.encode(item))
            self._side_data.see(item)
            self.frames += 1

    def _begin(self) -> Muxer | PictureFile:
        """Open the output, and write what was held back until then."""
        container_format = self._format
        target: Muxer | PictureFile
        if container_format is None:
            target = self._open_picture()
        else:
            target = self._open_container(container_format)
        self._target = target
        first = self._held.frames[0]
        report_beginning(self.notes, self._reader, target, first)
        if isinstance(target, Muxer):
            target.begin(first)
        held, self._held = self._held, HeldItems(self._reader)
        for item in held.items:
            self.write(item)
        return target

    def _open_picture(self) -> PictureFile:
        source = PictureSource(self._reader, self.encoder, self.notes)
        self._held.items = [
            source.oriented(item) if isinstance(item, Frame) else item for item in self._held.items
        ]
        settings = self._settings()
        try:
            frames = self._new_encoder(settings)
            return PictureFile(self._output, source, frames, self._held.frames[0])
        except (FFmpegError, OSError, ValueError) as error:
            raise encoder_error(self._output, self.encoder, error) from error

    def _open_container(self, container_format: Format) -> Muxer:
        settings = self._settings()
        surfaces = open_surfaces(self._held.frames[0], settings)
        try:
            return open_muxer(
                self._output,
                container_format,
                self._reader,
                self._held,
                lambda: self._new_encoder(settings, surfaces),
                self._remark,
            )
        except (FFmpegError, OSError, ValueError) as error:
            raise muxer_error(self._output, self.encoder, container_format, error) from error

    def _settings(self) -> EncoderSettings:
        settings = choose_settings(
            self.encoder,
            self._options,
            container_format=self._format,
            reader=self._reader,
            frame=self._held.frames[0],
        )
        self.pixel_format = settings.pixel_format
        return settings

    def _new_encoder(
        self, settings: EncoderSettings, surfaces: Surfaces | None = None
    ) -> FrameEncoder:
        reader, first = self._reader, self._held.frames[0]
        origin = reader.origin or Fraction(0)
        if self._format is not None and self._format.is_constant_rate and not origin:
            origin = first.pts * first.time_base  # there is no way to begin later
        clock = OutputClock(settings.time_base, origin=origin, fps=reader.fps, end=reader.end)
        return FrameEncoder(settings, first, clock, self._output, surfaces)

    def finish(self) -> None:
        """Complete the file and give it its name.

        Raises:
            WriteError: The disk refuses, or there was no frame.
        """
        if not self.has_frames:
            raise WriteError(f"there is no picture to write to {self._output.name}.")
        target = self._target or self._begin()
        target.finish(target.frames.flush())
        if isinstance(target, Muxer):
            target.add_covers()
            target.add_aspects()
            target.carry_telemetry()
        self._check()
        report_end(self.notes, self._reader, target, self._side_data, self.partial)
        self._output.commit()
        self._is_finished = True

    def _check(self) -> None:
        """Find out whether the file is what it should be, before it gets its name."""

    def close(self) -> None:
        """Abandon the file unless it was finished."""
        self.abandon()

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
        muxer = self._target if isinstance(self._target, Muxer) else None
        if muxer is not None and self._output.error is None and not is_quick:
            with contextlib.suppress(MHNetVideoError):
                muxer.finish(muxer.frames.flush())
        self._output.freeze(muxer)
        self._output.close()
        partial = self.partial
        if partial is not None and (muxer is None or not plays(partial)):
            self._output.discard()
            partial = None
        return partial


def _is_no_picture(name: str, reader: VideoReader) -> str:
    return f"{name} is a picture, but {reader.name} a video; end it in .mp4."
