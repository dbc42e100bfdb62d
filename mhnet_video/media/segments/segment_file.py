"""The file of one segment: its frames as they are encoded, and the times of their packets."""

from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags
from av.error import FFmpegError

from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.segments.segment_encoding import SegmentEncoding, header_of
from mhnet_video.media.segments.segment_store import SEGMENT_FORMAT
from mhnet_video.media.writing.frame_encoder import FrameEncoder
from mhnet_video.media.writing.frame_fidelity import FrameChanges
from mhnet_video.media.writing.write_errors import encoder_error


class SegmentFile:
    """A file that appears under its name when it is complete.

    Args:
        path: Where it is; a file that is there is replaced.
        name: What errors call it.
        encoding: How its frames are encoded.

    Raises:
        WriteError: It cannot be created.
    """

    def __init__(self, path: Path, name: str, encoding: SegmentEncoding) -> None:
        self.packets: list[list[int]] = []
        """Presentation and decoding timestamp and duration of each packet, in its order."""
        self.placed: list[int] = []
        """Presentation timestamp of each frame, in its order."""
        self.header = ""
        """Fingerprint of what the encoder puts into a container's header, see `header_of`."""
        self._encoding = encoding
        self._output = OutputFile(path, overwrite=True)
        self._output.name = name
        self._frames: FrameEncoder | None = None
        self._container: Any = None

    @property
    def has_frames(self) -> bool:
        """Whether a frame was passed to it."""
        return self._frames is not None

    @property
    def changes(self) -> FrameChanges:
        """What was changed in frames so that the encoder takes them; there must be one."""
        assert self._frames is not None
        return self._frames.changes

    def write(self, frame: Frame) -> None:
        """Encode a frame.

        Raises:
            WriteError: The encoder does not open, or the disk refuses.
        """
        frames = self._frames or self._begin(frame)
        self._mux(frames.encode(frame))
        self.placed.append(frames.clock.last)

    def _begin(self, first: Frame) -> FrameEncoder:
        encoding = self._encoding
        self._frames = encoding.new_encoder(first, self._output)
        try:
            self._container = av.open(self._output, "w", format=SEGMENT_FORMAT)
            stream = self._container.add_stream(encoding.encoder, rate=encoding.settings.fps)
        except ValueError as error:
            raise WriteError(
                f"what the encoder {encoding.encoder} makes cannot be kept in segments; choose "
                "another one, or leave --resume out."
            ) from error
        except (FFmpegError, OSError) as error:
            raise self._error(error) from error
        context = stream.codec_context
        if not encoding.has_global_header:
            context.flags &= ~Flags.global_header
        self._frames.set_up(context)
        stream.time_base = encoding.settings.time_base
        try:
            self._frames.open(stream, first)
            self.header = header_of(context)
            self._container.start_encoding()
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        return self._frames

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            pts = packet.pts or 0
            dts = pts if packet.dts is None else packet.dts
            self.packets.append([pts, dts, packet.duration or 0])
            try:
                self._container.mux_one(packet)
            except (FFmpegError, OSError, ValueError) as error:
                raise self._error(error) from error

    def _error(self, error: Exception) -> WriteError:
        return encoder_error(self._output, self._encoding.encoder, error)

    def complete(self) -> None:
        """Write what the encoder still holds, and give the file its name; it has a frame.

        Raises:
            WriteError: The disk refuses.
        """
        assert self._frames is not None
        self._mux(self._frames.flush())
        try:
            self._container.close()
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if self._output.error is not None:
            raise self._error(self._output.error)
        self._output.commit()

    def discard(self) -> None:
        """Remove the file."""
        self._output.freeze(self._container)
        self._output.discard()
