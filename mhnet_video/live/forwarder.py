"""Sends live frames and sound to an address, on a thread of its own.

Whoever passes them never waits. They wait in a queue; where the network is too slow for too
long, frames are left out.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import Any

from av.error import FFmpegError

from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.live import relay
from mhnet_video.live.connection_events import SoundFormat
from mhnet_video.live.exchange import MediaQueue
from mhnet_video.live.reconnection import pause_after
from mhnet_video.live.sound import SoundPacket
from mhnet_video.live.source_address import SOCKET_SECONDS
from mhnet_video.live.stream_encoder import StreamEncoder
from mhnet_video.live.stream_formats import DESTINATIONS, check_forwarding
from mhnet_video.locator import hide, shown
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.reading.source import url_of

_MAX_UNSENT_BYTES = 32 << 20
"""Bytes of frames and sound that may wait for the network."""
_STUCK_SECONDS = 10.0
"""How long a receiver may accept no data before the connection is closed."""
_SETTLED_SECONDS = 2.0
"""How long a receiver must have taken frames before its trouble is over."""


class Forwarder:
    """Sends live frames to an address as H.264, and connects again when that fails.

    Args:
        url: One of `DESTINATIONS`.
        fps: Frames a second that are to be expected.
        sound: How the source's sound is coded; None where it has none.

    Raises:
        ConfigError: It is no such address.
    """

    has_ended = False
    """Whether nobody takes frames any more: never, as a receiver may come back."""

    def __init__(self, url: str, *, fps: float, sound: SoundFormat | None = None) -> None:
        check_forwarding(url)
        # what follows the host is the key that lets one send, on many servers
        self.name = "/".join(shown(url).split("/")[:3])
        self._url = url_of(url)
        self._fps = fps
        self._sound_format = sound
        self.lost: list[str] = []
        """What is sent lacks of the sound, or has in another way, a line each."""
        self._sent = self._passed = 0
        self.trouble = ""
        """Why nothing is sent now, in a sentence; empty while all goes well."""
        self.error: MHNetVideoError | None = None
        """Why it has given up; None while it goes on."""
        self._has_settled = False
        self._accepted_at: float | None = None
        self._end = threading.Event()
        self._queue = MediaQueue(_MAX_UNSENT_BYTES)
        self._process: subprocess.Popen[bytes] | None = None
        self._moved_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mhnet-video forwarder", daemon=True)
        self._thread.start()

    @property
    def frames(self) -> int:
        """Frames sent: those of connections in which the receiver has taken the stream."""
        return self._sent + (self._passed if self._accepted_at is not None else 0)

    def put(self, item: Frame | SoundPacket) -> None:
        """Send a frame, or sound, which may be ahead of the frames; returns at once."""
        if self.error is not None:
            return
        if self._queue.is_empty:
            # what has nothing to do is not stuck
            self._moved_at = time.monotonic()
        self._queue.put(item)
        process = self._process
        if process is not None and time.monotonic() - self._moved_at > _STUCK_SECONDS:
            # the receiver accepts no data, and the thread is blocked until the process ends
            process.kill()

    def close(self) -> None:
        """Send what waits, and end; a receiver that hangs is not waited for long."""
        self._queue.close()
        self._end.set()
        self._thread.join(SOCKET_SECONDS)
        process = self._process
        if process is not None:
            process.kill()
            self._thread.join(1)
        if self.trouble and not self.frames and self.error is None:
            self.error = WriteError(f"{self.trouble.partition(';')[0]}; nothing was sent.")

    def _run(self) -> None:
        try:
            self._send_and_try_again()
        except Exception as error:  # whatever it is, nobody else could tell of it
            self.error = WriteError(f"{self.name} cannot be sent to ({error}).")
            self._queue.clear()

    def _send_and_try_again(self) -> None:
        away_since: float | None = None
        while not self._queue.is_closed and self.error is None:
            sent = self.frames
            reason = self._send()
            if not reason:
                return
            now = time.monotonic()
            if self.frames > sent or away_since is None:
                away_since = now
            self.trouble = f"{self.name} takes nothing ({reason.lower()}); trying again."
            self._end.wait(pause_after(now - away_since))
            self._queue.clear()

    def _send(self) -> str:
        """Send until the end; why it failed, or nothing if it did not."""
        frame = self._queue.get()
        while isinstance(frame, SoundPacket):
            self._sound_format = frame.format
            frame = self._queue.get()
        if frame is None:
            return ""
        scheme = self._url.partition("://")[0].lower()
        destination = DESTINATIONS[scheme]
        self._moved_at = time.monotonic()
        self._sent, self._passed, self._accepted_at = self.frames, 0, None
        self._process = process = subprocess.Popen(
            # not the address: every user of the machine may see commands
            [sys.executable, "-P", relay.__file__, destination.muxer, *_words(destination.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        listener = threading.Thread(target=self._listen, args=(process.stdout,), daemon=True)
        listener.start()
        try:
            with process:
                said = self._encode(frame, destination.relayed, process)
                status = process.wait(SOCKET_SECONDS)
                listener.join()
        except subprocess.TimeoutExpired:
            said, status = "it does not answer", 1
        finally:
            process.kill()
            self._process = None
        if status == relay.NO_PROTOCOL:
            self.error = WriteError(
                f"{self.name}: PyAV's FFmpeg here knows no {scheme}://; use another kind."
            )
        if status == relay.REFUSED and not self._has_settled:
            self.error = WriteError(
                f"{self.name} refuses the stream ({said}); check the path of the address, and the "
                f"name and password in it, as in {scheme}://NAME:PASSWORD@HOST/PATH."
            )
        return (said or "it has gone") if status else ""

    def _listen(self, pipe: Any) -> None:
        """Take note of when the receiver takes the stream.

        Until then the pipe takes frames, too, which on a busy machine may be for seconds.
        """
        with contextlib.suppress(OSError, ValueError):
            if os.read(pipe.fileno(), len(relay.ACCEPTED)) == relay.ACCEPTED:
                self._accepted_at = time.monotonic()

    def _encode(
        self, frame: Frame, stream_format: Format, process: "subprocess.Popen[bytes]"
    ) -> str:
        """Encode frames into a process until there are no more; what it said if it ended first."""
        try:
            if process.stdin is not None:
                process.stdin.write(os.fsencode(f"{self._url}\n"))
            self._encode_into(frame, stream_format, process.stdin)
        except (FFmpegError, OSError, ValueError):
            # it reads no more
            process.kill()
        with contextlib.suppress(OSError):
            process.stdin.close() if process.stdin is not None else None
        said = process.stderr.read() if process.stderr is not None else b""
        return hide(said.decode(errors="replace").strip())

    def _encode_into(self, frame: Frame, stream_format: Format, pipe: Any) -> None:
        encoder = StreamEncoder(
            _Pipe(pipe), stream_format, frame, fps=self._fps, sound=self._sound_format
        )
        item: Frame | SoundPacket | None = frame
        while item is not None:
            if item is not frame:
                encoder.write(item)
            self._moved_at = time.monotonic()
            self._passed += isinstance(item, Frame)
            accepted_at = self._accepted_at
            if accepted_at is not None and self._moved_at - accepted_at > _SETTLED_SECONDS:
                self._has_settled, self.trouble = True, ""
            item = self._queue.get()
        encoder.finish()
        self.lost = encoder.lost


def _words(options: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items()]


class _Pipe:
    """The writing end of a pipe, as FFmpeg takes it: bytes go through at once, and none back."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def write(self, data: bytes) -> int:
        """Pass bytes on."""
        self._pipe.write(data)
        self._pipe.flush()
        return len(data)
