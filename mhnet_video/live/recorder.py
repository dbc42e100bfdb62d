"""Write live frames to files, and send them on to an address, each on a thread of its own.

Whoever hands in a frame never waits: frames wait here, and where the disk or the network is too
slow for too long they are left out and counted.
"""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from mhnet_video.errors import ConfigError, MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.live import relay
from mhnet_video.live.exchange import FrameQueue
from mhnet_video.live.reconnection import pause_after
from mhnet_video.live.rendering import Painter, fit, to_picture
from mhnet_video.live.source_address import SOCKET_SECONDS
from mhnet_video.locator import hide, locate, shown
from mhnet_video.media.containers import Format, format_of, muxer_options
from mhnet_video.media.encoder import (
    Encoding,
    clock_of,
    encoder_options,
    find_encoding,
    pixel_formats,
)
from mhnet_video.media.output_file import Sink, check_destination, why_unwritable
from mhnet_video.media.pixel_formats import Converter
from mhnet_video.media.source import plays, url_of

_CLOCK = Fraction(1, 90_000)
_MAX_WAITING_BYTES = 256 << 20
_MAX_UNSENT_BYTES = 32 << 20
# how long a receiver may take nothing before it is given up, in seconds
_STUCK_SECONDS = 10.0
# and how long it must take what comes before all is well again
_SETTLED_SECONDS = 2.0
_COLOR_TAGS = ("color_range", "colorspace", "color_primaries", "color_trc")
# faster than for files: the machine has a network to run beside it
_LIVE_DEFAULTS = {
    "libx264": {"crf": "20", "preset": "superfast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
_KEY_SECONDS = 2.0
# ticks from one picture to the next, of which MP4 can count twice as many
_LONGEST_STEP = 1 << 30
_LOOK_SECONDS = 0.5

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


class _File:
    """One recording: the frames at their times, playable after a kill.

    Its times begin at zero with the first frame.
    """

    def __init__(
        self,
        destination: str,
        frame: Frame,
        fps: float,
        overwrite: bool,
        begin: float,
    ) -> None:
        kind = format_of(destination)
        if kind.is_constant_rate:
            raise WriteError(
                f"{destination}: {kind.label} has no times for frames; record to .mp4 or .mkv."
            )
        self._name = shown(destination)
        self._sink = Sink(destination, overwrite=overwrite)
        self._size = (frame.width, frame.height)
        self._first = frame.pts
        self._unit = frame.time_base
        self._last = -1
        self._before: Frame | None = None
        self._usual = round(1 / Fraction(fps).limit_denominator(1000) / _CLOCK)
        self.frames = 0
        try:
            self._open(kind, frame, fps, begin)
        except BaseException:
            self._sink.discard()
            raise

    def _open(self, kind: Format, frame: Frame, fps: float, begin: float) -> None:
        encoder = kind.video
        options = encoder_options(encoder, options=tuple(_LIVE_DEFAULTS.get(encoder, {}).items()))
        encoding = _encoding(encoder, options, frame, fps, kind.time_base or _CLOCK)
        self._time_base = encoding.time_base
        # a camera may come back with other samples than it had
        samples = None if frame.layout.kind == "rgb" else (frame.matrix, frame.full_range)
        size = encoding.width, encoding.height
        self._converter = Converter(encoding.pixel_format, *size, samples=samples)
        self._fitter = _Fitter(encoding, is_full=frame.full_range)
        metadata = {"creation_time": datetime.fromtimestamp(begin, UTC).isoformat()}
        container: Any = av.open(
            self._sink,
            mode="w",
            format=kind.name,
            container_options=muxer_options(
                kind,
                [encoding.time_base],
                metadata,
                has_cues=False,
                has_late_track=False,
                is_seekable=self._sink.is_seekable,
            ),
        )
        self._container = container
        container.metadata.update(metadata)
        try:
            stream = container.add_stream(encoder, rate=encoding.fps)
        except ValueError as error:
            raise WriteError(
                f"{kind.label} cannot hold what the encoder {encoder} makes; choose another one."
            ) from error
        encoding.apply(stream.codec_context)
        stream.time_base = encoding.time_base
        if kind.has_rotation:
            stream.set_display_matrix(frame.tags.get("display_matrix"))
        self._stream = stream

    def write(self, frame: Frame) -> None:
        """Add a frame; one of another size is fitted in, with black beside it."""
        picture = self._picture(frame)
        seconds = (frame.pts - self._first) * self._unit
        pts = max(round(seconds / self._time_base), self._last + 1)
        while self._before is not None and pts - self._last > _LONGEST_STEP:
            # MP4 knows no longer step: the picture before is shown again
            self._put(self._picture(self._before), self._last + _LONGEST_STEP)
        self._put(picture, pts)
        self._before = frame
        self.frames += 1

    def _picture(self, frame: Frame) -> av.VideoFrame:
        if (frame.width, frame.height) == self._size:
            return self._converter.convert(frame)
        return self._fitter.fit(frame)

    def _put(self, picture: av.VideoFrame, pts: int) -> None:
        self._last = pts
        picture.pts, picture.time_base, picture.pict_type = pts, self._time_base, 0
        picture.duration = max(1, round(self._usual * _CLOCK / self._time_base))
        self._mux(picture)

    def _mux(self, picture: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(picture):
                self._container.mux_one(packet)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error

    def finish(self) -> None:
        """Complete the file and give it its name."""
        self._mux(None)
        try:
            self._container.close()
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if self._sink.error is not None:
            raise self._error(self._sink.error)
        self._sink.commit()

    def abandon(self) -> Path | None:
        """End after an error; what plays stays as the partial file, which is returned."""
        self._sink.freeze()
        with contextlib.suppress(FFmpegError, OSError, ValueError):
            self._container.close()
        self._sink.close()
        partial = self._sink.partial
        if partial is not None and not plays(partial):
            self._sink.discard()
            partial = None
        return partial

    def _error(self, error: Exception) -> WriteError:
        if self._sink.error is not None:
            return WriteError(
                f"{self._name} cannot be written: {why_unwritable(self._sink.error)}."
            )
        return WriteError(f"{self._name} cannot be written ({error}); try another format.")


class Recorder:
    """Records live frames at their times into a file, or one after another.

    Args:
        destination: The file to create; with segments, each has its number before the suffix.
        fps: Frames a second that are to be expected.
        wall_begin: The time of day at which the times of frames begin, in seconds since 1970.
        segment_seconds: After how long another file is begun; None for one file. Their numbers
            follow those of the segments that are there.
        overwrite: Whether existing files may be replaced.

    Raises:
        WriteError: The destination cannot be created, exists, or names no format.
    """

    def __init__(
        self,
        destination: str | os.PathLike[str],
        *,
        fps: float,
        wall_begin: float = 0.0,
        segment_seconds: float | None = None,
        overwrite: bool = False,
    ) -> None:
        self.destination = os.fspath(destination)
        self._fps = fps
        self._wall_begin = wall_begin
        self._segment = segment_seconds
        self._overwrite = overwrite
        self._number = 0
        if segment_seconds is not None and not overwrite:
            self._number = _last_segment(Path(self.destination))
        check_recording(self.destination, segment_seconds, overwrite)
        self.files: list[str] = []
        """The files that are complete."""
        self.frames = 0
        """Frames written."""
        self.error: MHNetVideoError | None = None
        """Why recording has ended before it was closed; None while it goes on."""
        self._queue = FrameQueue(_MAX_WAITING_BYTES)
        self._thread = threading.Thread(target=self._run, name="mhnet-video recorder")
        self._thread.start()

    @property
    def missed(self) -> int:
        """Frames left out because the disk or the encoder was too slow."""
        return self._queue.missed

    def put(self, frame: Frame) -> None:
        """Record a frame; returns at once."""
        if self.error is None:
            self._queue.put(frame)

    def close(self) -> None:
        """Write what waits, and complete the file."""
        self._queue.close()
        self._thread.join()

    def _run(self) -> None:
        file: _File | None = None
        name = ""
        end: float | None = None
        size = (0, 0)
        try:
            while (frame := self._next()) is not None:
                time_seconds = float(frame.pts * frame.time_base)
                is_other = self._segment is not None and (frame.width, frame.height) != size
                if file is not None and ((end is not None and time_seconds >= end) or is_other):
                    file.finish()
                    self.files.append(name)
                    file = None
                if file is None:
                    name = self._next_name()
                    begin = self._wall_begin + time_seconds
                    file = _File(name, frame, self._fps, self._overwrite, begin)
                    size = (frame.width, frame.height)
                    end = None if self._segment is None else time_seconds + self._segment
                file.write(frame)
                self.frames += 1
            if file is not None:
                file.finish()
                self.files.append(name)
        except (MHNetVideoError, FFmpegError, OSError, ValueError) as error:
            partial = file.abandon() if file is not None else None
            said = f" What was recorded until then is in {partial}." if partial else ""
            why = str(error) if isinstance(error, MHNetVideoError) else f"{name}: {error}."
            self.error = WriteError(f"{why}{said}")
            self._queue.clear()

    def _next(self) -> Frame | None:
        """The next frame, waited for; None when there are no more."""
        while (frame := self._queue.get(_LOOK_SECONDS)) is None and not self._queue.is_over:
            if not threading.main_thread().is_alive():
                # nobody is left to close it: the file is completed, and the process can end
                self._queue.close()
        return frame

    def _next_name(self) -> str:
        self._number += 1
        if self._segment is None:
            return self.destination
        return str(_segment(Path(self.destination), self._number))


def _segment(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def _last_segment(path: Path) -> int:
    """The highest number that a segment of this name has already; 0 where there is none."""
    names = re.compile(rf"{re.escape(path.stem)}-(\d{{4,}}){re.escape(path.suffix)}")
    with contextlib.suppress(OSError):
        found = [names.fullmatch(name) for name in os.listdir(path.parent)]
        return max((int(each[1]) for each in found if each), default=0)
    return 0


def check_recording(destination: str, segment_seconds: float | None, overwrite: bool) -> None:
    """Find out whether a recording can begin.

    Raises:
        WriteError: The destination cannot be created, exists, or names no format.
    """
    if destination == "-":
        raise WriteError("a live recording is a file; name one that ends in .mp4 or .mkv.")
    name, kind = shown(destination), format_of(destination)
    if kind.is_constant_rate:
        raise WriteError(f"{name}: {kind.label} has no times for frames; record to .mp4 or .mkv.")
    first = destination
    if segment_seconds is not None:
        path = Path(destination)
        first = str(_segment(path, 1 if overwrite else _last_segment(path) + 1))
    check_destination(first, overwrite=overwrite)


def _encoding(
    encoder: str, options: Mapping[str, str], frame: Frame, fps: float, time_base: Fraction
) -> Encoding:
    rate = Fraction(fps).limit_denominator(1001)
    source = str(frame.tags.get("pixel_format", frame.layout.name))
    color = {name: int(frame.tags[name]) for name in _COLOR_TAGS if name in frame.tags}
    if frame.layout.kind == "rgb":
        color = {}
    merged = {"g": str(max(1, round(_KEY_SECONDS * fps)))} | dict(options)

    def make(pixel_format: str) -> Encoding:
        return Encoding(
            encoder=encoder,
            width=frame.width,
            height=frame.height,
            pixel_format=pixel_format,
            fps=rate,
            time_base=clock_of(encoder, time_base, rate),
            options=merged,
            color=color,
        )

    formats = pixel_formats(encoder, frame.layout, source, is_full=frame.full_range)
    return find_encoding(make, formats)


class _Fitter:
    """Brings frames of other sizes into an encoder's, with black beside them."""

    def __init__(self, encoding: Encoding, *, is_full: bool) -> None:
        self._size = encoding.width, encoding.height
        self._format = encoding.pixel_format
        self._painter = Painter("yuvj420p" if is_full else "yuv420p")
        self._black = 0 if is_full else 16

    def fit(self, frame: Frame) -> av.VideoFrame:
        # not turned: the file says by which angle its pictures are
        frame = replace(frame, rotation=0)
        planes = self._painter.paint(frame, fit(frame.width, frame.height, self._size))
        picture = to_picture(_all_centred(planes, self._size, self._black), "yuv420p")
        if self._format == "yuv420p":
            return picture
        return picture.reformat(format=self._format)


def _all_centred(
    planes: Sequence[NDArray[np.uint8]], size: tuple[int, int], black: int
) -> list[NDArray[np.uint8]]:
    """The planes of 4:2:0 with black beside them."""
    return [
        _centred(plane, size, black if index == 0 else 128, index > 0)
        for index, plane in enumerate(planes)
    ]


def _centred(
    plane: NDArray[np.uint8], size: tuple[int, int], value: int, is_chroma: bool
) -> NDArray[np.uint8]:
    width, height = (-(-side // 2) for side in size) if is_chroma else size
    whole = np.full((height, width), value, np.uint8)
    top, left = (height - plane.shape[0]) // 2, (width - plane.shape[1]) // 2
    whole[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return whole


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
            # whoever receives takes nothing any more: the thread is stuck until this ends
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
        for name in _COLOR_TAGS[1:]:
            if frame.tags.get(name) and frame.layout.kind != "rgb":
                setattr(context, name, int(frame.tags[name]))
        while frame is not None:
            planes = painter.paint(frame, fit(*frame.upright_size, size))
            picture = to_picture(_all_centred(planes, size, 16), "yuv420p")
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
