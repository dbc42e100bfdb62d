"""Encodes live frames, and sound beside them, into a stream that nobody can go back in."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
from av.codec.context import Flags
from av.video.reformatter import ColorRange

from mhnet_video.frame import Frame
from mhnet_video.live.connection_events import TIME_BASE, SoundFormat
from mhnet_video.live.rates import nominal_rate
from mhnet_video.live.rendering import Painter, fit, letterboxed, to_picture
from mhnet_video.live.sound import SoundPacket
from mhnet_video.live.sound_track import SoundTrack
from mhnet_video.media.fidelity import Loss, lines_of
from mhnet_video.media.formats.containers import Format

_CLOCK = Fraction(1, 90_000)
"""Unit of the times of a stream, in seconds."""
_LEAD_SECONDS = Fraction(1, 10)
"""The time of a stream's first frame: what an audio encoder puts before the first sound must not
have a time below zero."""
_KEY_SECONDS = 2.0
"""Time from one key frame to the next."""
MAX_INTERLEAVE_SECONDS = 0.1
"""How long a muxer waits for sound, at most, to put it before a frame that is later."""
_JPEG_QUALITY = 2
"""FFmpeg's scale of JPEG, from 1, the best, to 31."""
_COLOR_TAGS = ("colorspace", "color_primaries", "color_trc")
"""Tags of a frame that are sent along."""


class StreamEncoder:
    """A stream of live frames and sound, which begins with a frame.

    Frames of other sizes are fitted into that of the first one, with black beside them.

    Args:
        target: Takes the bytes by `write`.
        stream_format: What the stream is.
        frame: The first frame, which is written, too.
        fps: Frames a second that are to be expected.
        sound: How the source's sound is coded; None where it has none.

    Raises:
        FFmpegError: The bytes cannot be written.
        OSError: Likewise.
    """

    def __init__(
        self,
        target: Any,
        stream_format: Format,
        frame: Frame,
        *,
        fps: float,
        sound: SoundFormat | None,
    ) -> None:
        width, height = frame.upright_size
        self._size = (max(2, width // 2 * 2), max(2, height // 2 * 2))
        is_jpeg = stream_format.video == "mjpeg"
        self._pixel_format = "yuvj420p" if is_jpeg else "yuv420p"
        self._painter = Painter(self._pixel_format)
        self._origin = frame.pts * frame.time_base - _LEAD_SECONDS
        self._last = -1
        self._lost: list[Loss] = []
        self._container: Any = av.open(
            target,
            "w",
            format=stream_format.name,
            container_options={
                "flush_packets": "1",
                "max_interleave_delta": str(round(MAX_INTERLEAVE_SECONDS * 1e6)),
                **stream_format.options,
            },
        )
        rate = nominal_rate(fps)
        self._stream: Any = self._container.add_stream(stream_format.video, rate=rate)
        self._set_up(frame, fps, is_jpeg=is_jpeg, is_relayed=stream_format.name == "nut")
        self._sound = self._sound_track(stream_format, sound)
        self._container.start_encoding()  # which decides in which ticks a track counts
        self.write(frame)

    def _set_up(self, frame: Frame, fps: float, *, is_jpeg: bool, is_relayed: bool) -> None:
        context = self._stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt, context.time_base = self._pixel_format, _CLOCK
        context.color_range = int(ColorRange.JPEG if is_jpeg else ColorRange.MPEG)
        if is_jpeg:
            context.flags |= Flags.qscale
            context.options = {"qmin": str(_JPEG_QUALITY)}
            return
        context.gop_size = max(1, round(_KEY_SECONDS * fps))
        context.max_b_frames = 0
        context.options = {"preset": "superfast", "tune": "zerolatency", "crf": "23"}
        if is_relayed:
            context.flags |= Flags.global_header
        for name in _COLOR_TAGS:
            if frame.tags.get(name) and frame.layout.kind != "rgb":
                setattr(context, name, int(frame.tags[name]))

    def _sound_track(self, stream_format: Format, sound: SoundFormat | None) -> SoundTrack | None:
        if sound is None:
            return None
        if not stream_format.audio:
            why = f"{stream_format.label} has no place for it"
            self._lost.append(Loss(kind="stream", what=f"sound ({sound.codec})", why=why))
            return None
        origin = round(self._origin / TIME_BASE)
        return SoundTrack(self._container, stream_format, sound, origin=origin, is_seekable=False)

    def write(self, item: Frame | SoundPacket) -> None:
        """Add a frame or sound.

        Raises:
            FFmpegError: The bytes cannot be written.
            OSError: Likewise.
        """
        if isinstance(item, SoundPacket):
            if self._sound is not None:
                self._mux(self._sound.packets(item))
            return
        planes = self._painter.paint(item, fit(*item.upright_size, self._size))
        black = 0 if self._pixel_format == "yuvj420p" else 16
        picture = to_picture(letterboxed(planes, self._size, black), self._pixel_format)
        seconds = item.pts * item.time_base - self._origin
        self._last = picture.pts = max(round(seconds / _CLOCK), self._last + 1)
        picture.time_base = _CLOCK
        self._mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what the encoders hold, and end the stream.

        Raises:
            FFmpegError: The bytes cannot be written.
            OSError: Likewise.
        """
        self._mux(self._stream.encode(None))
        if self._sound is not None:
            self._mux(self._sound.flush())
        self._container.close()

    @property
    def lost(self) -> list[str]:
        """What it lacks of the sound, or has in another way, a line each."""
        return lines_of(self._lost) + ([] if self._sound is None else self._sound.lost)

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self._container.mux_one(packet)
