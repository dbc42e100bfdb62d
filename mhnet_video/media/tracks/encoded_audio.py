"""Audio that is decoded and encoded again, because the output does not hold it as it is."""

from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError

from mhnet_video.media.formats.audio_headers import AAC_RATES
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.tracks.silence import MAX_JITTER_SECONDS, silent_frame
from mhnet_video.media.tracks.tracks import Track

_OPUS_RATES = (48000, 24000, 16000, 12000, 8000)
"""Sample rates of Opus."""
_MIN_AAC_RATE = 22050
"""AAC begins with a packet of its own, which lasts too long at lower rates."""
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
"""FFmpeg's usual layout for so many channels."""
_MAX_SILENCE_SECONDS = 10
"""A shorter pause is filled with silence, a longer one stays a pause."""


class EncodedAudioTrack(Track):
    """Audio that is decoded and encoded again, with silence where some is missing.

    Args:
        target: The stream of the output.
        source: The source's.
        encoder: What encodes; None for the target's own codec.
        from_zero: Whether silence fills the time before the first packet.
    """

    def __init__(
        self,
        target: Any,
        source: AudioStream,
        *,
        encoder: Any = None,
        from_zero: bool = False,
    ) -> None:
        super().__init__(target)
        self._source = source
        self._encoder = encoder or target.codec_context
        self._resampler: AudioResampler | None = None
        self._next: int | None = 0 if from_zero else None
        self._end_time: Fraction | None = None

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The encoded packets that the packet completes."""
        frames = self._source.decode(packet)
        ready: list[Packet] = []
        for frame in frames:
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(origin / frame.time_base)
                ready += self._pause(frame, frame.pts, Fraction(frame.time_base))
            ready += self._encode(frame)
        return ready

    def _pause(self, frame: av.AudioFrame, pts: int, ticks: Fraction) -> list[Packet]:
        """End the audio before a long pause, so that what follows begins at its own time."""
        time = pts * ticks
        end, self._end_time = self._end_time, time + Fraction(frame.samples, frame.sample_rate)
        if end is None or time - end <= _MAX_SILENCE_SECONDS or self._resampler is None:
            return []
        ready: list[Packet] = []
        with suppress(ValueError):  # of a layout that has no name
            # the encoder wants whole frames: silence completes the last one
            missing = self._encoder.frame_size or 1
            samples = -(-missing * frame.sample_rate // self._encoder.sample_rate)
            silence = silent_frame(frame.format.name, frame.layout.name, frame.sample_rate, samples)
            silence.time_base, silence.pts = ticks, round(end / ticks)
            ready = self._encode(silence)
        self._resampler = self._next = None
        return ready

    def flush(self) -> Iterable[Packet]:
        """The packets that the encoder still holds."""
        ready = self._encode(None) if self._resampler is not None else []
        return ready + self._finish(self._encoder.encode(None))

    def _encode(self, frame: av.AudioFrame | None) -> list[Packet]:
        ready: list[Packet] = []
        is_new = self._resampler is None
        if self._resampler is None:
            options = {"async": "1"}
            if self._encoder.layout.nb_channels == 1:
                options["rematrix_maxval"] = "1"  # one channel of two is as loud as they are
            self._resampler = AudioResampler(
                format=self._encoder.format,
                layout=self._encoder.layout,
                rate=self._encoder.sample_rate,
                options=options,
            )
        try:
            resampled = self._resampler.resample(frame)
        except ValueError:
            # the source's format has changed: what the resampler holds, and then a new one
            ready = self._encode(None)
            self._resampler = None
            return ready + self._encode(frame)
        for piece in resampled:
            begin = self._next or 0
            if piece.pts is not None and piece.time_base:
                own = round(piece.pts * piece.time_base * piece.sample_rate)
                # a resampler that has nothing to change fills no gaps
                if is_new or own - begin > MAX_JITTER_SECONDS * piece.sample_rate:
                    begin = own
            if self._next is None:
                self._next = begin
            is_new = False
            ready += self._silence(begin - self._next, piece)
            ready += self._put(piece)
        return ready

    def _silence(self, samples: int, like: av.AudioFrame) -> list[Packet]:
        """So many samples of silence, where a source has a pause between two formats."""
        ready: list[Packet] = []
        for first in range(0, samples, like.sample_rate):
            count = min(samples - first, like.sample_rate)
            rate = like.sample_rate
            ready += self._put(silent_frame(like.format.name, like.layout.name, rate, count))
        return ready

    def _put(self, piece: av.AudioFrame) -> list[Packet]:
        """Encode samples that follow the ones before at once."""
        piece.pts = self._next
        piece.time_base = Fraction(1, piece.sample_rate)
        self._next = (self._next or 0) + piece.samples
        return self._finish(self._encoder.encode(piece))

    def _finish(self, packets: list[Packet]) -> list[Packet]:
        for packet in packets:
            packet.stream = self.target
        return packets


def add_audio(
    container: OutputContainer, codec: str, stream: Any, *, from_zero: bool = False
) -> EncodedAudioTrack | None:
    """A track that encodes a stream's audio again; None where no encoder or decoder can.

    Args:
        container: The output.
        codec: FFmpeg's name of the encoder.
        stream: The source's.
        from_zero: Whether silence fills the time before the first packet.
    """
    source = stream.codec_context
    rates: tuple[int, ...] = _OPUS_RATES
    if codec != "libopus":
        rates = tuple(rate for rate in AAC_RATES if rate >= _MIN_AAC_RATE)
    rate = source.sample_rate if source.sample_rate in rates else 48000
    # 5.1(side), as DVDs and broadcasts have it, is 5.1 to encoders that know one of both
    layout = source.layout.name
    # channels without names are those of FFmpeg's usual layout for so many
    known = _USUAL_LAYOUTS.get(source.channels)
    layouts = [layout, layout.partition("(")[0], known, "stereo"]
    for layout in filter(None, layouts):
        if opens_audio(codec, rate, layout):
            target: Any = container.add_stream(codec, rate=rate)
            set_up_audio(target.codec_context, layout, rate)
            target.codec_context.open()
            return EncodedAudioTrack(target, stream, from_zero=from_zero)
    return None


def set_up_audio(context: Any, layout: str, rate: int) -> None:
    """Tell an encoder what it must know before it opens."""
    context.sample_rate = rate
    context.layout = layout
    context.bit_rate = 96000 * context.layout.nb_channels


def open_audio_encoder(codec: str, rate: int, layout: str) -> Any:
    """An encoder beside a container, for its first sample format.

    Raises:
        FFmpegError: It does not open.
        ValueError: There is no such encoder or layout.
    """
    context: Any = av.CodecContext.create(codec, "w")
    context.format = (av.Codec(codec, "w").audio_formats or [])[0]
    set_up_audio(context, layout, rate)
    context.open()
    return context


def opens_audio(codec: str, rate: int, layout: str) -> bool:
    """Whether an encoder opens for a sample rate and a channel layout, by FFmpeg's names."""
    try:
        open_audio_encoder(codec, rate, layout)
    except (FFmpegError, ValueError, TypeError, IndexError):
        return False
    return True
