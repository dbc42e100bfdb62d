"""Sends live frames to an address, on a thread of its own.

Whoever passes a frame never waits. Frames wait in a queue; where the network is too slow for too
long, frames are left out.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from typing import Any

import av
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.reformatter import ColorRange

from mhnet_video.errors import ConfigError, MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.live import relay
from mhnet_video.live.exchange import FrameQueue
from mhnet_video.live.reconnection import pause_after
from mhnet_video.live.rendering import Painter, fit, letterboxed, to_picture
from mhnet_video.live.source_address import SOCKET_SECONDS
from mhnet_video.locator import hide, locate, shown
from mhnet_video.media.source import url_of

_CLOCK = Fraction(1, 90_000)
"""Unit of the times of what is sent, in seconds."""
_MAX_UNSENT_BYTES = 32 << 20
"""Bytes of frames that may wait for the network."""
_STUCK_SECONDS = 10.0
"""How long a receiver may accept no data before the connection is closed."""
_SETTLED_SECONDS = 2.0
"""How long a receiver must take frames before its trouble is over."""
_KEY_SECONDS = 2.0
"""Time from one key frame to the next."""
_COLOR_TAGS = ("colorspace", "color_primaries", "color_trc")
"""Tags of a frame that are sent along."""

_SCHEMES = {
    "rtmp": "flv",
    "rtmps": "flv",
    "srt": "mpegts",
    "udp": "mpegts",
    "tcp": "mpegts",
    "http": "mpegts",
    "https": "mpegts",
    "rtp": "rtp_mpegts",
    "rtsp": "rtsp",
}
"""FFmpeg's muxer for each kind of address that frames are sent to."""


class Forwarder:
    """Sends live frames to an address as H.264, and connects again when that fails.

    Args:
        url: `rtmp://`, `srt://`, `udp://`, `tcp://` or `http://`.
        fps: Frames a second that are to be expected.

    Raises:
        ConfigError: It is no such address.
    """

    def __init__(self, url: str, *, fps: float) -> None:
        check_forwarding(url)
        # what follows the host is the key that lets one send, on many servers
        self.name = "/".join(shown(url).split("/")[:3])
        self._url = url_of(url)
        self._fps = fps
        self.frames = 0
        """Frames sent."""
        self.trouble = ""
        """Why nothing is sent now, in a sentence; empty while all goes well."""
        self.error: MHNetVideoError | None = None
        """Why it has given up; None while it goes on."""
        self._end = threading.Event()
        self._queue = FrameQueue(_MAX_UNSENT_BYTES)
        self._process: subprocess.Popen[bytes] | None = None
        self._moved_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="mhnet-video forwarder", daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        """Send a frame; returns at once."""
        if self.error is not None:
            return
        if self._queue.is_empty:
            # what has nothing to do is not stuck
            self._moved_at = time.monotonic()
        self._queue.put(frame)
        process = self._process
        if process is not None and time.monotonic() - self._moved_at > _STUCK_SECONDS:
            # the receiver accepts no data, and the thread is blocked until the process ends
            process.kill()

    def close(self) -> None:
        """Send what waits, and end; a receiver that hangs is not waited for long."""
        self._queue.close()
        self._end.set()
        self._thread.join(SOCKET_SECONDS)
        if self._process is not None:
            self._process.kill()
            self._thread.join(1)

    def _run(self) -> None:
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
        if frame is None:
            return ""
        scheme = self._url.partition("://")[0]
        self._moved_at = time.monotonic()
        self._process = process = subprocess.Popen(
            # not the address: every user of the machine may see commands
            [sys.executable, "-P", relay.__file__, _SCHEMES[scheme]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            with process:
                said = self._encode(frame, process)
                status = process.wait(SOCKET_SECONDS)
        except subprocess.TimeoutExpired:
            said, status = "it does not answer", 1
        finally:
            process.kill()
            self._process = None
        if status == relay.NO_PROTOCOL:
            self.error = WriteError(
                f"{self.name}: PyAV's FFmpeg here knows no {scheme}://; use another kind."
            )
        return (said or "it has gone") if status else ""

    def _encode(self, frame: Frame | None, process: "subprocess.Popen[bytes]") -> str:
        """Encode frames into a process until there are no more; what it said if it ended first."""
        try:
            if process.stdin is not None:
                process.stdin.write(os.fsencode(f"{self._url}\n"))
            self._encode_into(frame, process.stdin)
        except (FFmpegError, OSError, ValueError):
            # it reads no more
            process.kill()
        with contextlib.suppress(OSError):
            process.stdin.close() if process.stdin is not None else None
        said = process.stderr.read() if process.stderr is not None else b""
        return hide(said.decode(errors="replace").strip())

    def _encode_into(self, frame: Frame | None, pipe: Any) -> None:
        if frame is None:
            return
        width, height = frame.upright_size
        size = (width // 2 * 2, height // 2 * 2)
        painter = Painter("yuv420p")
        first, last = frame.pts, -1
        begin = time.monotonic()
        container: Any = av.open(
            _Pipe(pipe), "w", format="nut", container_options={"flush_packets": "1"}
        )
        rate = Fraction(self._fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = *size, "yuv420p"
        context.time_base = _CLOCK
        context.gop_size = max(1, round(_KEY_SECONDS * self._fps))
        context.max_b_frames = 0
        context.flags |= Flags.global_header
        context.options = {"preset": "superfast", "tune": "zerolatency", "crf": "23"}
        context.color_range = int(ColorRange.MPEG)
        for name in _COLOR_TAGS:
            if frame.tags.get(name) and frame.layout.kind != "rgb":
                setattr(context, name, int(frame.tags[name]))
        while frame is not None:
            planes = painter.paint(frame, fit(*frame.upright_size, size))
            picture = to_picture(letterboxed(planes, size, 16), "yuv420p")
            seconds = (frame.pts - first) * frame.time_base
            last = picture.pts = max(round(seconds / _CLOCK), last + 1)
            picture.time_base = _CLOCK
            for packet in stream.encode(picture):
                container.mux_one(packet)
            self._moved_at = time.monotonic()
            self.frames += 1
            if self._moved_at - begin > _SETTLED_SECONDS:
                self.trouble = ""
            frame = self._queue.get()
        for packet in stream.encode(None):
            container.mux_one(packet)
        container.close()


class _Pipe:
    """The writing end of a pipe, as FFmpeg takes it: bytes go through at once, and none back."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def write(self, data: bytes) -> int:
        """Pass bytes on."""
        self._pipe.write(data)
        self._pipe.flush()
        return len(data)


def check_forwarding(url: str) -> None:
    """Find out whether frames can be sent to an address of this kind.

    Raises:
        ConfigError: They cannot.
    """
    parts = locate(url)
    if parts is None or parts.scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ConfigError(f"frames are sent to an address, one of {known}, not to {shown(url)}")
    url_of(url)
