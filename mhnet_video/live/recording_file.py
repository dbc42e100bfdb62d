"""One file of a live recording: frames and sound at their times, playable after a kill."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame
from mhnet_video.live.connection_events import TIME_BASE, SoundFormat
from mhnet_video.live.rates import nominal_rate
from mhnet_video.live.rendering import Painter, fit, letterboxed, to_picture
from mhnet_video.live.sound import SoundPacket
from mhnet_video.live.sound_track import SoundTrack
from mhnet_video.locator import shown
from mhnet_video.media.encoders.encoder import (
    COLOR_TAGS,
    EncoderSettings,
    find_settings,
    frame_settings,
)
from mhnet_video.media.encoders.encoder_options import encoder_options
from mhnet_video.media.encoders.encoder_pixel_formats import formats_of
from mhnet_video.media.encoders.encoding_settings import NEED_A_PACKET
from mhnet_video.media.formats.containers import Format, format_of, muxer_options
from mhnet_video.media.frames.converter import Converter
from mhnet_video.media.output_file import OutputFile, why_unwritable
from mhnet_video.media.reading.source import Packet, plays

_CLOCK = Fraction(1, 90_000)
"""Unit of the times of a recording, in seconds, where its format has no unit of its own."""
_LIVE_DEFAULTS = {
    # without B frames: three quarters of the time, for as many bytes a decibel
    "libx264": {"crf": "20", "preset": "superfast", "bf": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
"""Options by encoder: faster than for files, as the machine has a network to run beside it."""
_KEY_SECONDS = 2.0
"""Time from one key frame to the next."""
_LONGEST_STEP = 1 << 30
"""Ticks from one frame to the next; MP4 can count twice as many."""


class RecordingFile:
    """One recording: frames and sound at their times, playable after a kill.

    Its times begin at zero with the first frame.

    Args:
        destination: File to create, its format by its name.
        frame: The first frame, for size and pixels; it is not written yet.
        fps: Frames a second that are to be expected.
        overwrite: Whether an existing file may be replaced.
        begin: When the first frame was taken, in seconds since 1970.
        sound: How the source's sound is coded; None where it has none.

    Raises:
        WriteError: The file cannot be created, exists, or has no times for frames.
    """

    def __init__(
        self,
        destination: str,
        frame: Frame,
        fps: float,
        overwrite: bool,
        begin: float,
        sound: SoundFormat | None = None,
    ) -> None:
        container_format = format_of(destination)
        if container_format.is_constant_rate:
            raise WriteError(
                f"{destination}: {container_format.label} has no times for frames; "
                "record to .mp4 or .mkv."
            )
        self._name = shown(destination)
        self._sink = OutputFile(destination, overwrite=overwrite)
        self._size = (frame.width, frame.height)
        self._first = frame.pts
        self._unit = frame.time_base
        self._last = -1
        self._before: Frame | None = None
        self._usual = round(1 / (fps * _CLOCK))
        self.frames = 0
        """Frames written."""
        self._has_unheard = False
        try:
            self._open(container_format, frame, fps, begin, sound)
        except BaseException:
            self._sink.discard()
            raise

    def _open(
        self,
        container_format: Format,
        frame: Frame,
        fps: float,
        begin: float,
        sound: SoundFormat | None,
    ) -> None:
        encoder = container_format.video
        options = encoder_options(encoder, options=tuple(_LIVE_DEFAULTS.get(encoder, {}).items()))
        encoding = _encoding(encoder, options, frame, fps, container_format.time_base or _CLOCK)
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
            format=container_format.name,
            container_options=muxer_options(
                container_format,
                [encoding.time_base],
                metadata,
                has_cues=False,
                # nobody knows whether it will come; some codecs have silence until then
                has_late_track=sound is not None and sound.codec not in NEED_A_PACKET,
                is_seekable=self._sink.is_seekable,
            ),
        )
        self._container = container
        container.metadata.update(metadata)
        try:
            stream = container.add_stream(encoder, rate=encoding.fps)
        except ValueError as error:
            raise WriteError(
                f"{container_format.label} cannot hold what the encoder {encoder} makes; record "
                "to .mp4 or .mkv."
            ) from error
        encoding.apply(stream.codec_context)
        stream.time_base = encoding.time_base
        if container_format.has_rotation:
            stream.set_display_matrix(frame.tags.get("display_matrix"))
        self._stream = stream
        self._sound: SoundTrack | None = None
        if sound is not None:
            self._sound = SoundTrack(
                container,
                container_format,
                sound,
                origin=round(frame.pts * frame.time_base / TIME_BASE),
                is_seekable=self._sink.is_seekable,
            )
            container.start_encoding()  # which decides in which ticks a track counts
            self._write(self._sound.begin())

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

    def write_sound(self, sound: SoundPacket) -> None:
        """Add sound; where the file was begun without a track for it, it is lost."""
        if self._sound is not None:
            self._write(self._sound.packets(sound))
        else:
            self._has_unheard = True

    @property
    def lost(self) -> list[str]:
        """What it lacks of the sound, or has in another way; complete once it is finished."""
        if self._has_unheard:
            return ["sound: it began behind the first picture, when the file had no track for it"]
        return [] if self._sound is None else self._sound.lost

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
            self._write(self._stream.encode(picture))
        except (FFmpegError, ValueError) as error:
            raise self._error(error) from error

    def _write(self, packets: Iterable[Packet]) -> None:
        try:
            for packet in packets:
                self._container.mux_one(packet)
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error

    def finish(self) -> None:
        """Complete the file and give it its name."""
        self._mux(None)
        if self._sound is not None:
            self._write(self._sound.flush())
        try:
            self._container.close()
        except (FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if self._sink.error is not None:
            raise self._error(self._sink.error)
        self._sink.commit()

    def abandon(self) -> Path | None:
        """End after an error; what plays stays as the partial file, which is returned."""
        self._sink.freeze(self._container)
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


def _encoding(
    encoder: str, options: Mapping[str, str], frame: Frame, fps: float, time_base: Fraction
) -> EncoderSettings:
    rate = nominal_rate(fps)
    color = {name: int(frame.tags[name]) for name in COLOR_TAGS if name in frame.tags}
    if frame.layout.kind == "rgb":
        color = {}
    merged = {"g": str(max(1, round(_KEY_SECONDS * fps)))} | dict(options)
    base = frame_settings(encoder, merged, frame, fps=rate, time_base=time_base)
    formats = formats_of(encoder, frame)
    return find_settings([replace(base, pixel_format=name, color=color) for name in formats])


class _Fitter:
    """Brings frames of other sizes into an encoder's, with black beside them."""

    def __init__(self, encoding: EncoderSettings, *, is_full: bool) -> None:
        self._size = encoding.width, encoding.height
        self._format = encoding.pixel_format
        self._painter = Painter("yuvj420p" if is_full else "yuv420p")
        self._black = 0 if is_full else 16

    def fit(self, frame: Frame) -> av.VideoFrame:
        # not turned: the file says by which angle its pictures are
        frame = replace(frame, rotation=0)
        planes = self._painter.paint(frame, fit(frame.width, frame.height, self._size))
        picture = to_picture(letterboxed(planes, self._size, self._black), "yuv420p")
        if self._format == "yuv420p":
            return picture
        return picture.reformat(format=self._format)
