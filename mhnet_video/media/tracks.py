"""One stream beside the restored one: copied packet by packet, or converted."""

import io
import re
import wave
from collections.abc import Generator, Iterable
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import Stream
from av.subtitles.stream import SubtitleStream

from mhnet_video.media.containers import Format
from mhnet_video.media.decoder import Packet

_NON_STRICT = 0x20000  # AVFMT_TS_NONSTRICT: two packets may have one time
_MOST_UNDATED = 32
_OPUS_RATES = (48000, 24000, 16000, 12000, 8000)
# sampling frequencies and channels by their numbers, ISO/IEC 14496-3, 1.6.3
_MPEG4_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_MPEG4_LAYOUTS = ("", "mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
DOLBY_SYNC = b"\x0b\x77"
"""How each packet of AC-3 and E-AC-3 begins."""
_REPEATABLE = ("aac", "mp2", "mp3", "ac3")
"""Codecs that an encoder makes such that the header of the output is true of it."""
_SELF_CONTAINED = ("mp1", "mp2", "mp3", "ac3", "eac3", "dts", "flac", "opus", "truehd")
"""Codecs whose packets tell the rate and the channels themselves."""
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050)
"""AAC begins with a packet of its own; at lower rates that one lasts long."""
_LONGEST_SILENCE_SECONDS = 10
"""A longer pause in sound that is encoded again stays one; a shorter one is filled with silence."""
# a gap between samples that is none, and where they have no times, silence that is too much
_SLACK_SECONDS = Fraction(1, 10)
_MAX_SILENCE_BYTES = 64 << 20
# what is added in a pause at the most; one that wants more is a damaged number
MAX_ADDED = 200
_SAMPLE_BITS = {"64": 64, "32": 32, "24": 24, "16": 16, "8": 8, "law": 8}
_SILENT_BYTES = {"pcm_u8": 0x80, "pcm_alaw": 0xD5, "pcm_mulaw": 0xFF}


def empty_cue(target: Stream) -> Packet:
    """A cue of an MP4 that shows nothing, whose time is still to be set in its track's ticks."""
    packet = Packet(b"\0\0")
    packet.time_base = Fraction(target.time_base or Fraction(1, 1000))
    packet.stream = target
    return packet


class Track:
    """A stream that is copied, packet by packet."""

    def __init__(self, target: Stream) -> None:
        self.target = target
        self.refused = 0
        """Packets that could not be converted."""
        self.changed: Fraction | None = None
        """When it became what the output's header does not tell, in seconds; None for never."""
        self._last: int | None = None
        self._end: int | None = None
        self._undated: list[tuple[Packet, Fraction]] = []
        self._step = 0 if target.container.format.flags & _NON_STRICT else 1

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packets to write for one of the source, its time moved by `origin` seconds.

        Raises:
            FFmpegError: It is damaged.
        """
        is_undated = packet.dts is None and packet.pts is not None and self._last is None
        if is_undated and self.target.type == "video" and len(self._undated) < _MOST_UNDATED:
            self._undated.append((packet, origin))
            return ()
        return [*self._dated(packet), self._place(packet, origin)]

    def flush(self) -> Iterable[Packet]:
        """The packets to write at the end."""
        return self._dated(None)

    def closing_cue(self) -> Iterable[Packet]:
        """A cue that shows nothing, when the last one ends; none where there was none.

        FFmpeg 8.1 puts one at the end of an MP4 itself, which lasts as long as the one before.
        """
        if self._end is None:
            return ()
        packet = empty_cue(self.target)
        packet.pts = self._end
        packet.duration = 1
        return [self._place(packet, Fraction(0))]

    def _dated(self, following: Packet | None) -> list[Packet]:
        """The packets that came without the time at which they are decoded, with one.

        Matroska stores when pictures are shown alone, and FFmpeg finds the other times only from
        where it has seen as many pictures as may be out of order.

        Args:
            following: The first one that has it; None if there is none.
        """
        waiting, self._undated = self._undated, []
        if not waiting:
            return []
        seen = [packet for packet, _ in waiting] + ([] if following is None else [following])
        shown = sorted(packet.pts for packet in seen if packet.pts is not None)
        if following is not None and following.dts is not None:
            steps = [after - before for before, after in pairwise(shown) if after > before]
            step = waiting[0][0].duration or min(steps, default=1)
            dates = [following.dts - step * (len(waiting) - index) for index in range(len(waiting))]
        else:
            dates = shown[: len(waiting)]
        late = max(
            date - (packet.pts or 0) for date, (packet, _) in zip(dates, waiting, strict=True)
        )
        placed = []
        for date, (packet, origin) in zip(dates, waiting, strict=True):
            packet.dts = date - max(0, late)
            placed.append(self._place(packet, origin))
        return placed

    def _place(self, packet: Packet, origin: Fraction) -> Packet:
        """Give a packet its time in the output, which must rise from packet to packet."""
        ticks = Fraction(self.target.time_base or Fraction(1, 1000))
        scale = Fraction(packet.time_base) / ticks
        shift = origin / ticks
        dts, pts = packet.dts, packet.pts
        if dts is None:
            dts = pts
        if dts is not None:
            dts = round(dts * scale - shift)
        elif self._last is not None:
            dts = self._last + 1
        else:
            dts = 0
        pts = dts if pts is None else round(pts * scale - shift)
        if self._last is not None:
            dts = max(dts, self._last + self._step)
        self._last = dts
        packet.dts = dts
        packet.pts = max(pts, dts)
        packet.duration = round((packet.duration or 0) * scale)
        self._end = max(self._end or 0, packet.pts + packet.duration)
        packet.time_base = ticks
        packet.stream = self.target
        return packet


class SoundTrack(Track):
    """Sound that is copied as long as it is what the header of the output says.

    Where it changes (a broadcast goes from mono to stereo, a recorder to another sample rate), the
    rest is encoded again to what it was before.

    Args:
        target: The stream of the output.
        source: The source's.
        kind: The output's format.
        first: The first packet, empty where it is not known.
    """

    def __init__(self, target: Stream, source: Any, kind: Format, first: bytes) -> None:
        super().__init__(target)
        self._source = source
        self._is_adts = _is_aac_without_config(source)
        self._filter: BitStreamFilterContext | None = None
        if has_adts(kind, source):
            self._filter = BitStreamFilterContext("aac_adtstoasc", source)
        # an ADTS header is before each packet, FLV and MP4 have a place for a new configuration
        self._may_change = kind.is_mp4 or kind.name == "flv"
        if self._is_adts:
            self._may_change = kind.name == "mpegts"
        # packets of other codecs tell their rate themselves, but a file without times needs one
        self._is_timeless = kind.is_constant_rate
        codec = source.codec_context.codec.canonical_name
        tells_itself = self._is_timeless and codec in _SELF_CONTAINED
        # what an AVI has beside sound that tells of itself is no header of it
        self._config: bytes | None = None if tells_itself else source.codec_context.extradata
        if self._is_adts:
            self._config = _aac_config(first)
        self._encoded: AudioTrack | None = None
        # a packet whose header differs, until the next one is known
        self._waiting: list[Packet] = []
        # the end of what is copied
        self._seam: int | None = None

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packet as the container wants it."""
        waiting, self._waiting = self._waiting, []
        if self.changed is None and self._is_other(packet):
            # one header that differs may be damaged, a second one tells
            if not waiting and not packet.has_sidedata("new_extradata"):
                self._waiting = [packet]
                return ()
            begin = (waiting or [packet])[0]
            ticks = begin.pts if begin.pts is not None else begin.dts or 0
            self.changed = ticks * Fraction(begin.time_base) - origin
            self._seam = self._end
            self._encoded = self._same_again()
        elif waiting:
            self.refused += 1
        if self.changed is not None:
            encoded = self._encoded
            if encoded is None:
                return ()
            return [e for each in [*waiting, packet] for e in self._joined(encoded, each, origin)]
        if self._filter is None:
            return super().packets(self._bare(packet), origin)
        time_base = packet.time_base
        filtered = self._filter.filter(packet)
        for item in filtered:
            item.time_base = time_base
        return [self._place(self._bare(item), origin) for item in filtered]

    def _bare(self, packet: Packet) -> Packet:
        """A packet for a Matroska without a configuration beside it, which is that of the header.

        FFmpeg 8.1 would write over the header, in more room than there is.
        """
        name = self.target.container.format.name
        if name not in ("matroska", "webm") or not packet.has_sidedata("new_extradata"):
            return packet
        bare = Packet(bytes(packet))
        bare.pts, bare.dts, bare.duration = packet.pts, packet.dts, packet.duration
        bare.time_base, bare.is_keyframe = packet.time_base, packet.is_keyframe
        return bare

    def flush(self) -> Iterable[Packet]:
        """What the encoder still holds, if there is one."""
        self.refused += len(self._waiting)
        return super().flush() if self._encoded is None else self._joined(self._encoded)

    @property
    def is_converted(self) -> bool:
        """Whether what came after a change is in the output."""
        return self._encoded is not None

    def _is_other(self, packet: Packet) -> bool:
        """Whether a packet says that it is sound of another kind than the header tells of."""
        if self._may_change:
            return False
        codec = self._source.codec_context.codec.canonical_name
        config: bytes | None = None
        if self._is_adts:
            config = _aac_config(bytes(memoryview(packet)[:4]))
        elif self._is_timeless and codec in _SELF_CONTAINED:
            config = _header_rate(codec, bytes(memoryview(packet)[:5]))
        elif codec not in _SELF_CONTAINED and packet.has_sidedata("new_extradata"):
            config = bytes(packet.get_sidedata("new_extradata"))
        self._config = self._config or config
        # what comes later in a configuration of AAC may be there or not
        told = 2 if codec == "aac" else None
        return bool(config and self._config and config[:told] != self._config[:told])

    def _same_again(self) -> "AudioTrack | None":
        """What makes the sound what it was at first; None where that cannot be."""
        context = self._source.codec_context
        codec = context.codec.canonical_name
        sound: tuple[int, str] | None = context.sample_rate, context.layout.name
        if codec == "aac":
            sound = _aac_sound(self._config or b"")
        if sound is None or not opens_audio(codec, *sound) or codec not in _REPEATABLE:
            return None
        return AudioTrack(self.target, self._source, encoder=_audio_encoder(codec, *sound))

    def _joined(
        self, encoded: "AudioTrack", packet: Packet | None = None, origin: Fraction = Fraction(0)
    ) -> list[Packet]:
        """What was encoded again, without what an encoder puts before its first sound."""
        found = encoded.flush() if packet is None else encoded.packets(packet, origin)
        ticks = Fraction(self.target.time_base or Fraction(1, 1000))
        seam = (self._seam or 0) * ticks
        return [
            self._place(each, Fraction(0))
            for each in found
            if ((each.pts or 0) + Fraction(each.duration or 0, 2)) * Fraction(each.time_base) > seam
        ]


class DolbyTrack(Track):
    """AC-3 or E-AC-3 for an MP4, whose index cannot be written before it has a packet of it."""

    def __init__(self, target: Stream, source: Stream) -> None:
        super().__init__(target)
        self._source: Any = source.codec_context

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packet, if the index can be written with it."""
        if bytes(memoryview(packet)[:2]) != DOLBY_SYNC:
            self.refused += 1
            return ()
        return super().packets(packet, origin)

    def silence(self, time: Fraction) -> Iterable[Packet]:
        """A packet of silence; nothing where there is no encoder for it."""
        source = self._source
        try:
            context: Any = av.CodecContext.create(source.codec.name, "w")
            context.format = "fltp"
            _set_up_audio(context, source.layout.name, source.sample_rate)
            context.open()
            frame = av.AudioFrame("fltp", source.layout.name, context.frame_size)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate = source.sample_rate
            packets = context.encode(frame) + context.encode(None)
        except (FFmpegError, ValueError):
            return []
        for packet in packets[:1]:
            packet.time_base = Fraction(1, source.sample_rate)
            packet.pts = packet.dts = round(time / packet.time_base)
            packet.duration = context.frame_size
        return [self._place(packet, Fraction(0)) for packet in packets[:1]]

    def flush(self) -> Iterable[Packet]:
        """Silence where nothing else was."""
        return self.silence(Fraction(0)) if self._last is None else ()


class AudioTrack(Track):
    """Audio that is decoded and encoded again, with silence where some is missing.

    Args:
        target: The stream of the output.
        source: The source's.
        encoder: What encodes; None for the target's own codec.
        from_zero: Whether there is to be silence until the first sound.
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
        """Encoded packets that the packet completes."""
        frames = self._source.decode(packet)
        ready: list[Packet] = []
        for frame in frames:
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(origin / frame.time_base)
                ready += self._pause(frame, frame.pts, Fraction(frame.time_base))
            ready += self._encode(frame)
        return ready

    def _pause(self, frame: av.AudioFrame, pts: int, ticks: Fraction) -> list[Packet]:
        """End what is before a long pause, and let what is behind it begin at its own time."""
        time = pts * ticks
        end, self._end_time = self._end_time, time + Fraction(frame.samples, frame.sample_rate)
        if end is None or time - end <= _LONGEST_SILENCE_SECONDS or self._resampler is None:
            return []
        ready: list[Packet] = []
        with suppress(ValueError):  # of a layout that has no name
            # the encoder wants whole frames: silence completes the last one
            missing = self._encoder.frame_size or 1
            samples = -(-missing * frame.sample_rate // self._encoder.sample_rate)
            silence = av.AudioFrame(frame.format.name, frame.layout.name, samples)
            byte = 0x80 if frame.format.name.startswith("u8") else 0
            for plane in silence.planes:
                plane.update(bytes([byte]) * plane.buffer_size)
            silence.sample_rate = frame.sample_rate
            silence.time_base, silence.pts = ticks, round(end / ticks)
            ready = self._encode(silence)
        self._resampler = self._next = None
        return ready

    def flush(self) -> Iterable[Packet]:
        """What the encoder still holds."""
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
                told = round(piece.pts * piece.time_base * piece.sample_rate)
                # a resampler that has nothing to change fills no gaps
                if is_new or told - begin > _SLACK_SECONDS * piece.sample_rate:
                    begin = told
            if self._next is None:
                self._next = begin
            is_new = False
            ready += self._silence(begin - self._next, piece)
            ready += self._put(piece)
        return ready

    def _silence(self, samples: int, like: av.AudioFrame) -> list[Packet]:
        """Silence of so many samples, where a source has a pause between two formats."""
        ready: list[Packet] = []
        for first in range(0, samples, like.sample_rate):
            count = min(samples - first, like.sample_rate)
            piece = av.AudioFrame(like.format.name, like.layout.name, count)
            for plane in piece.planes:
                plane.update(bytes(plane.buffer_size))
            piece.sample_rate = like.sample_rate
            ready += self._put(piece)
        return ready

    def _put(self, piece: av.AudioFrame) -> list[Packet]:
        """Encode samples right behind those before."""
        piece.pts = self._next
        piece.time_base = Fraction(1, piece.sample_rate)
        self._next = (self._next or 0) + piece.samples
        return self._finish(self._encoder.encode(piece))

    def _finish(self, packets: list[Packet]) -> list[Packet]:
        for packet in packets:
            packet.stream = self.target
        return packets


class SubtitleTrack(Track):
    """Text subtitles in another notation."""

    def __init__(self, target: SubtitleStream, source: SubtitleStream) -> None:
        super().__init__(target)
        self._source = source
        self._encoder: Any = target.codec_context

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The subtitle in its new notation."""
        decoder: Any = self._source.codec_context
        subtitle = decoder.decode2(packet)
        if subtitle is None:
            return []
        encoded = self._encoder.encode_subtitle(subtitle)
        encoded.pts = encoded.dts = packet.pts if packet.pts is not None else packet.dts
        encoded.duration = packet.duration
        encoded.time_base = packet.time_base
        return [self._place(encoded, origin)]


class Pauses:
    """Pauses in sound, in a format that does not have them, or none so long.

    Args:
        target: The track, its header not yet written.
        longest_step: The most ticks from packet to packet; 0 for a format that counts samples
            only, so that whatever follows a pause would follow at once.
        is_timeless: Whether the format has no time before zero: FFmpeg would move all streams to
            later times for what encoders put before the first sound.
    """

    def __init__(self, target: Stream, longest_step: int, *, is_timeless: bool = False) -> None:
        self._target = target
        self._longest_step = longest_step
        self._lead = None if is_timeless else 0
        self._end: int | None = None
        self._before = b""
        self._silence_bytes = 0
        self._early = 0
        self.repeated = 0
        """Packets that were written once more."""

    @property
    def early_seconds(self) -> Fraction:
        """How much too early sound comes in the end, in seconds."""
        return self._early * Fraction(self._target.time_base or 0)

    def bridged(self, packet: Packet) -> Iterable[Packet]:
        """The packet, which has its time, and what is needed in the pause before it.

        Raises:
            ValueError: Its time is damaged: no pause is so long.
        """
        ticks = Fraction(self._target.time_base or packet.time_base)
        scale = Fraction(packet.time_base) / ticks
        dts, pts = round((packet.dts or 0) * scale), round((packet.pts or 0) * scale)
        if self._lead is None:
            self._lead = max(0, -dts)
        packet.dts = dts + self._lead - self._early
        packet.pts = pts + self._lead - self._early
        packet.duration = round((packet.duration or 0) * scale)
        packet.time_base = ticks
        end = packet.dts if self._end is None else self._end
        if self._longest_step:
            if packet.dts - end > MAX_ADDED * self._longest_step:
                raise ValueError("a pause of months")
            while packet.dts - end > self._longest_step:
                end += self._longest_step
                self.repeated += 1
                yield self._made(self._before, end, packet.duration)
            self._before = bytes(packet)
            self._end = packet.dts
        else:
            gap = packet.dts - end
            if gap * ticks > _SLACK_SECONDS:
                missing = yield from self._silence(end, gap)
                self._early += missing
                packet.dts -= missing
                packet.pts -= missing
            # one that does not say how long it is tells nothing of a gap behind it
            self._end = packet.dts + packet.duration if packet.duration else None
        yield packet

    def _silence(self, begin: int, ticks: int) -> Generator[Packet, None, int]:
        """Silence of PCM; gives the ticks that remain without it."""
        context: Any = self._target.codec_context
        name, rate = context.codec.name, context.sample_rate
        bits = re.search("|".join(_SAMPLE_BITS), name) if name.startswith("pcm_") else None
        if bits is None or not rate:
            return ticks
        size = _SAMPLE_BITS[bits[0]] // 8 * context.channels
        total = round(ticks * Fraction(self._target.time_base or 0) * rate)
        self._silence_bytes += total * size
        if self._silence_bytes > _MAX_SILENCE_BYTES:
            return ticks
        byte = bytes([_SILENT_BYTES.get(name, 0)])
        for first in range(0, total, rate):
            samples = min(rate, total - first)
            unit = Fraction(1, rate) / Fraction(self._target.time_base or 1)
            time, length = round(first * unit), round(samples * unit)
            yield self._made(byte * (samples * size), begin + time, length)
        return 0

    def _made(self, content: bytes, time: int, duration: int) -> Packet:
        packet = Packet(content)
        packet.time_base = Fraction(self._target.time_base or 1)
        packet.pts = packet.dts = time
        packet.duration = duration
        packet.is_keyframe = True
        packet.stream = self._target
        return packet


def add_audio(
    container: OutputContainer, codec: str, stream: Any, *, from_zero: bool = False
) -> AudioTrack | None:
    """A track that encodes a stream's sound anew; None where that cannot be.

    Args:
        container: The output.
        codec: FFmpeg's name of the encoder.
        stream: The source's.
        from_zero: Whether there is to be silence until the first sound.
    """
    source = stream.codec_context
    rates = _OPUS_RATES if codec == "libopus" else _AAC_RATES
    rate = source.sample_rate if source.sample_rate in rates else 48000
    # 5.1(side), as DVDs and broadcasts have it, is 5.1 to encoders that know one of both
    layout = source.layout.name
    # channels without names are those of FFmpeg's usual layout for so many
    known = _USUAL_LAYOUTS.get(source.channels)
    layouts = [layout, layout.partition("(")[0], known, "stereo"]
    for layout in filter(None, layouts):
        if opens_audio(codec, rate, layout):
            target: Any = container.add_stream(codec, rate=rate)
            _set_up_audio(target.codec_context, layout, rate)
            target.codec_context.open()
            return AudioTrack(target, stream, from_zero=from_zero)
    return None


def _set_up_audio(context: Any, layout: str, rate: int) -> None:
    context.sample_rate = rate
    context.layout = layout
    context.bit_rate = 96000 * context.layout.nb_channels


def _audio_encoder(codec: str, rate: int, layout: str) -> Any:
    context: Any = av.CodecContext.create(codec, "w")
    context.format = (av.Codec(codec, "w").audio_formats or [])[0]
    _set_up_audio(context, layout, rate)
    context.open()
    return context


def opens_audio(codec: str, rate: int, layout: str) -> bool:
    """Whether there is an encoder for sound of this kind, as FFmpeg names it."""
    try:
        _audio_encoder(codec, rate, layout)
    except (FFmpegError, ValueError, TypeError, IndexError):
        return False
    return True


def _aac_config(packet: bytes) -> bytes | None:
    """What a decoder must know of AAC, from the header of a packet; None if it does not tell."""
    if len(packet) < 4 or packet[0] != 0xFF or packet[1] & 0xF0 != 0xF0:
        return None
    profile, rate = packet[2] >> 6, packet[2] >> 2 & 15
    channels = (packet[2] & 1) << 2 | packet[3] >> 6
    if not channels:
        return None
    return ((profile + 1) << 11 | rate << 7 | channels << 3).to_bytes(2, "big")


def _aac_sound(config: bytes) -> tuple[int, str] | None:
    """The rate and the channels' layout that a configuration of AAC tells; None where it does not.

    Source: ISO/IEC 14496-3, 1.6.2.1, AudioSpecificConfig.
    """
    if len(config) < 2:
        return None
    rate, channels = (config[0] & 7) << 1 | config[1] >> 7, config[1] >> 3 & 15
    if rate >= len(_MPEG4_RATES) or not 0 < channels < len(_MPEG4_LAYOUTS):
        return None
    return _MPEG4_RATES[rate], _MPEG4_LAYOUTS[channels]


def _header_rate(codec: str, packet: bytes) -> bytes | None:
    """What a packet's header says of the sample rate, as a number of its format's.

    Sources: ISO/IEC 11172-3, 2.4.1.3 (version and rate), and ATSC A/52, 5.3.1 (fscod).
    """
    if codec in ("mp2", "mp3") and len(packet) > 2 and packet[0] == 0xFF:
        return bytes([packet[1] & 0x18, packet[2] & 0x0C])
    if codec == "ac3" and packet[:2] == b"\x0b\x77" and len(packet) > 4:
        return bytes([packet[4] & 0xC0])
    return None


def _told_config(stream: Any) -> bytes | None:
    """The configuration of AAC whose first packet is not known, by what FFmpeg has found."""
    context = stream.codec_context
    rate, channels = context.sample_rate, context.layout.nb_channels
    if context.profile == "HE-AAC" or context.profile == "HE-AACv2":
        rate //= 2  # what is coded, of which the decoder makes twice as much
        channels = 1 if context.profile == "HE-AACv2" else channels
    if rate not in _MPEG4_RATES or not 0 < channels <= 8:
        return None
    number = 7 if channels == 8 else channels
    return (2 << 11 | _MPEG4_RATES.index(rate) << 7 | number << 3).to_bytes(2, "big")


def has_adts(kind: Format, stream: Stream) -> bool:
    """Whether packets are AAC with a header that the format does not want."""
    return kind.name != "mpegts" and _is_aac_without_config(stream)


def _is_aac_without_config(stream: Stream) -> bool:
    context: Any = stream.codec_context
    if context is None or context.codec.canonical_name != "aac":
        return False
    return not context.extradata


def add_copy(container: OutputContainer, stream: Stream, first: bytes) -> Stream:
    """A stream of the output with the codec of the source's.

    Args:
        container: The output.
        stream: The source's.
        first: Its first packet, empty where it is not known.

    Raises:
        ValueError: The container does not take it.
    """
    try:
        copy: Any = container.add_stream_from_template(stream, opaque=True)
        if stream.codec_context is not None and _is_aac_without_config(stream):
            # the header is written before the first packet, and wants to know what is in it
            copy.codec_context.extradata = _aac_config(first) or _told_config(stream)
        _name_layout(container, copy)
        return copy
    except ValueError:
        # PyAV asks by the strictest rules: Matroska takes any sound, but does not say so
        if stream.type != "audio" or container.format.name != "matroska":
            raise
    with av.open(io.BytesIO(_silent_wave())) as silence:
        target = container.add_stream_from_template(silence.streams.audio[0])
    BitStreamFilterContext("null", stream, target)
    target.codec_context.codec_tag = "\0\0\0\0"
    target.time_base = stream.time_base
    return target


def _name_layout(container: OutputContainer, copy: Any) -> None:
    """Give one or two channels of a sound that goes into FLV the name that they have there.

    FFmpeg 8.1 takes channels without a name for an arrangement that only newer codecs can have,
    and ends the process where it has no number for the codec.
    """
    if container.format.name == "flv" and copy.type == "audio":
        context = copy.codec_context
        context.layout = {1: "mono", 2: "stereo"}.get(context.layout.nb_channels, context.layout)


def _silent_wave() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(320))
    return file.getvalue()
