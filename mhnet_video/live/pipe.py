"""Writes live frames and sound to standard output, on a thread of its own.

Whoever passes them never waits. They wait in a queue; where the reader is too slow for too long,
frames are left out.
"""

import errno
import threading

from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.live.connection_events import SoundFormat
from mhnet_video.live.exchange import MediaQueue
from mhnet_video.live.sound import SoundPacket
from mhnet_video.live.source_address import SOCKET_SECONDS
from mhnet_video.live.stream_encoder import StreamEncoder
from mhnet_video.live.stream_formats import PIPED, check_piped
from mhnet_video.media.output_file import OutputFile, why_unwritable
from mhnet_video.system import is_abandoned

_MAX_UNREAD_BYTES = 32 << 20
"""Bytes of frames and sound that may wait for the reader."""


class PipeWriter:
    """A stream on standard output, which begins with the first frame.

    Args:
        format_name: One of `PIPED`.
        fps: Frames a second that are to be expected.
        sound: How the source's sound is coded; None where it has none.

    Raises:
        WriteError: There is no such format, or no standard output.
    """

    trouble = ""
    """What is wrong while it goes on: never anything."""

    def __init__(self, format_name: str, *, fps: float, sound: SoundFormat | None = None) -> None:
        check_piped(format_name)
        self._format = PIPED[format_name]
        self._fps = fps
        self._sound = sound
        self._sink = OutputFile("-")
        self._descriptor = self._sink.fileno()
        self.frames = 0
        """Frames written."""
        self.lost: list[str] = []
        """What the stream lacks of the sound, or has in another way, a line each."""
        self.error: MHNetVideoError | None = None
        """Why it has ended, where that is not in order."""
        self._has_ended = False
        self._queue = MediaQueue(_MAX_UNREAD_BYTES)
        self._thread = threading.Thread(target=self._run, name="mhnet-video pipe", daemon=True)
        self._thread.start()

    def put(self, item: Frame | SoundPacket) -> None:
        """Write a frame, or sound, which may be ahead of the frames; returns at once."""
        if not self._has_ended:
            self._queue.put(item)

    @property
    def has_ended(self) -> bool:
        """Whether nobody reads any more, even where nothing is written now."""
        return self._has_ended or is_abandoned(self._descriptor)

    def close(self) -> None:
        """Write what waits, and end; a reader that hangs is not waited for long."""
        self._queue.close()
        self._thread.join(SOCKET_SECONDS)

    def _run(self) -> None:
        encoder: StreamEncoder | None = None
        try:
            while (item := self._queue.get()) is not None:
                if encoder is not None:
                    encoder.write(item)
                elif isinstance(item, Frame):
                    encoder = StreamEncoder(
                        self._sink, self._format, item, fps=self._fps, sound=self._sound
                    )
                self.frames += encoder is not None and isinstance(item, Frame)
            if encoder is not None:
                encoder.finish()
        except Exception as error:  # whatever it is, nobody else could tell of it
            self._end(error)
        finally:
            self._has_ended = True
            self._queue.clear()
            if encoder is not None:
                self.lost = encoder.lost
            self._sink.freeze()
            self._sink.close()

    def _end(self, error: Exception) -> None:
        """Note why it has ended; a reader that has taken frames may leave when it likes."""
        reason = self._sink.error
        if reason is None:
            self.error = WriteError(f"{self._format.label} cannot be written ({error}).")
        elif reason.errno != errno.EPIPE or not self.frames:
            self.error = WriteError(
                f"{self._sink.name} cannot be written: {why_unwritable(reason)}."
            )


def check_reader() -> None:
    """Find out whether standard output is still read, before there is anything to write.

    Raises:
        WriteError: It is a pipe that nobody reads.
    """
    if is_abandoned(1):
        raise WriteError("standard output cannot be written: the program that reads it has ended.")
