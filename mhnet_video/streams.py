"""The streams beside the restored one: copied where the container takes them, else converted.

Each stream of the source becomes a track here, or a line in `lost`.
"""

import io
import wave
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import AttachmentStream, Discard, Stream
from av.subtitles.stream import SubtitleStream

from mhnet_video.containers import Format
from mhnet_video.reader import COVER, Packet

_TEXT_SUBTITLES = frozenset(["subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"])
# written by a muxer about its own file, false in another
_STALE_TAGS = ("encoder", "duration", "vendor_id", "rotate", "bps", "number_of_", "_statistics_")
_STALE_FILE_TAGS = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "location-"),
    *("wm/encodingsettings", "isvbr", "devicecon", "software"),
)
# names that FFmpeg's own muxers give to tracks that have none
_EMPTY_NAMES = ("VideoHandler", "SoundHandler", "SubtitleHandler", "DataHandler", "")
_NON_STRICT = 0x20000  # AVFMT_TS_NONSTRICT: two packets may have one time
_OPUS_RATES = (48000, 24000, 16000, 12000, 8000)
# AAC begins with a packet of its own; at lower rates that one lasts long
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050)


class Track:
    """A stream that is copied, packet by packet."""

    def __init__(self, target: Stream) -> None:
        self.target = target
        self.refused = 0
        """Packets that could not be converted."""
        self._last: int | None = None
        self._step = 0 if target.container.format.flags & _NON_STRICT else 1

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packets to write for one of the source, its time moved by `origin` seconds."""
        return [self._place(packet, origin)]

    def flush(self) -> Iterable[Packet]:
        """The packets to write at the end."""
        return ()

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
        packet.time_base = ticks
        packet.stream = self.target
        return packet


class AdtsTrack(Track):
    """AAC whose packets carry the header that only transport streams want."""

    def __init__(self, target: Stream, source: Stream) -> None:
        super().__init__(target)
        self._filter = BitStreamFilterContext("aac_adtstoasc", source)

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packet without its header."""
        time_base = packet.time_base
        try:
            bare = self._filter.filter(packet)
        except (FFmpegError, ValueError):
            self.refused += 1
            return []
        for item in bare:
            item.time_base = time_base
        return [self._place(item, origin) for item in bare]


class AudioTrack(Track):
    """Audio that is decoded and encoded again, with silence where some is missing."""

    def __init__(self, target: AudioStream, source: AudioStream) -> None:
        super().__init__(target)
        self._source = source
        self._encoder = target.codec_context
        self._resampler: AudioResampler | None = None
        self._next: int | None = None

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """Encoded packets that the packet completes."""
        try:
            frames = self._source.decode(packet)
        except (FFmpegError, ValueError):
            self.refused += 1
            return []
        ready: list[Packet] = []
        for frame in frames:
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(origin / frame.time_base)
            ready += self._encode(frame)
        return ready

    def flush(self) -> Iterable[Packet]:
        """What the encoder still holds."""
        ready = self._encode(None) if self._resampler is not None else []
        return ready + self._finish(self._encoder.encode(None))

    def _encode(self, frame: av.AudioFrame | None) -> list[Packet]:
        if self._resampler is None:
            self._resampler = AudioResampler(
                format=self._encoder.format,
                layout=self._encoder.layout,
                rate=self._encoder.sample_rate,
                frame_size=self._encoder.frame_size or None,
                options={"async": "1"},
            )
        try:
            resampled = self._resampler.resample(frame)
        except ValueError:
            # the source's format has changed: begin with a new one
            self._resampler = None
            return self._encode(frame)
        ready: list[Packet] = []
        for piece in resampled:
            if self._next is None:
                self._next = 0
                if piece.pts is not None and piece.time_base:
                    self._next = round(piece.pts * piece.time_base * piece.sample_rate)
            piece.pts = self._next
            piece.time_base = Fraction(1, piece.sample_rate)
            self._next += piece.samples
            ready += self._finish(self._encoder.encode(piece))
        return ready

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
        try:
            subtitle = decoder.decode2(packet)
            encoded = None if subtitle is None else self._encoder.encode_subtitle(subtitle)
        except (FFmpegError, ValueError):
            self.refused += 1
            return []
        if encoded is None:
            return []
        encoded.pts = encoded.dts = packet.pts if packet.pts is not None else packet.dts
        encoded.duration = packet.duration
        encoded.time_base = packet.time_base
        return [self._place(encoded, origin)]


class Tracks:
    """All streams of a source but the restored one, on their way into an output.

    Args:
        container: The output, its header not yet written.
        kind: Its format.
        first: The first packet of streams, by their number, as far as it is known already.
        is_seekable: Whether the muxer can go back and fill in what it learns late.
    """

    def __init__(
        self,
        container: OutputContainer,
        kind: Format,
        first: dict[int, bytes],
        *,
        is_seekable: bool = True,
    ) -> None:
        self._is_seekable = is_seekable
        self._container = container
        self._kind = kind
        self._first = first
        self._tracks: dict[int, Track] = {}
        self.kept: list[str] = []
        self.lost: list[str] = []
        self.late_covers: list[bytes] = []
        """Cover pictures to put into the finished file."""

    def add(self, stream: Stream) -> None:
        """Make a track for a stream of the source."""
        if stream.discard == Discard.all:
            return  # the titles of chapters, which are kept as chapters
        name = describe(stream)
        if stream.disposition & COVER:
            self._add_cover(stream, name)
        elif isinstance(stream, AttachmentStream):
            self._add_attachment(stream, name)
        elif stream.type == "data":
            self._add_data(stream, name)
        elif stream.codec_context is None:
            self.lost.append(f"{name}: of a kind that this FFmpeg does not know")
        elif stream.type == "audio" and not self._copies(stream):
            self._add_audio(stream, name)
        elif stream.type == "subtitle" and not self._copies(stream):
            self._add_subtitle(stream, name)
        elif stream.type in ("audio", "subtitle", "video") and self._copies(stream):
            self._put(stream, self._copy(stream))
            self.kept.append(f"{name}: copied")
        else:
            self.lost.append(f"{name}: {self._kind.label} has no place for it")

    def begin(self, time: Fraction) -> Iterable[Packet]:
        """What to write before all else: cues that show nothing until the first one."""
        if not self._kind.is_mp4:
            return
        for index, track in self._tracks.items():
            if track.target.type == "subtitle" and index not in self._first:
                packet = Packet(b"\0\0")
                packet.time_base = Fraction(track.target.time_base or Fraction(1, 1000))
                packet.pts = packet.dts = round(time / packet.time_base)
                packet.stream = track.target
                yield packet

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packets to write for one of the source; none for a stream that is not kept."""
        track = self._tracks.get(packet.stream_index)
        return () if track is None else track.packets(packet, origin)

    def flush(self) -> Iterable[Packet]:
        """The packets to write at the end."""
        for track in self._tracks.values():
            yield from track.flush()

    @property
    def refused(self) -> int:
        """Packets that could not be converted."""
        return sum(track.refused for track in self._tracks.values())

    def _put(self, stream: Stream, track: Track) -> None:
        self._tracks[stream.index] = track
        dress(track.target, stream, self._kind)

    def _copy(self, stream: Stream) -> Track:
        first = self._first.get(stream.index, b"")
        target = _add_copy(self._container, stream, first)
        return AdtsTrack(target, stream) if has_adts(self._kind, stream) else Track(target)

    def _copies(self, stream: Stream) -> bool:
        """Whether the container takes a stream as it is."""
        codec = stream.codec_context.codec.name
        canonical = stream.codec_context.codec.canonical_name
        kind = self._kind
        if stream.type == "audio" and codec.startswith(kind.refused_audio or ("?",)):
            return False
        for media, codecs in (("audio", kind.audio_codecs), ("subtitle", kind.subtitle_codecs)):
            if stream.type == media and codecs:
                return canonical in codecs
        return self._is_accepted(stream)

    def _is_accepted(self, stream: Stream) -> bool:
        """Whether the muxer writes a header for a stream as it is, found out by doing so."""
        first = self._first.get(stream.index, b"")
        nowhere = _Nowhere(is_seekable=self._is_seekable)
        try:
            with av.open(nowhere, "w", format=self._kind.name) as trial:
                target = _add_copy(trial, stream, first)
                if not target.time_base:
                    target.time_base = Fraction(1, 1000)
                trial.start_encoding()
        except (FFmpegError, ValueError):
            return False
        return True

    def _add_audio(self, stream: Any, name: str) -> None:
        codec = self._kind.audio
        source: Any = stream.codec_context
        rates = _OPUS_RATES if codec == "libopus" else _AAC_RATES
        rate = source.sample_rate if source.sample_rate in rates else 48000
        layouts = [source.layout.name, {1: "mono", 2: "stereo"}.get(source.channels), "stereo"]
        for layout in filter(None, layouts):
            if _opens_audio(codec, rate, layout):
                break
        else:
            self.lost.append(f"{name}: cannot be decoded and encoded again")
            return
        target: Any = self._container.add_stream(codec, rate=rate)
        _set_up_audio(target.codec_context, layout, rate)
        target.codec_context.open()
        self._put(stream, AudioTrack(target, stream))
        new = {"libopus": "Opus", "aac": "AAC", "mp3": "MP3"}[codec]
        self.lost.append(
            f"{name}: re-encoded to {new}, as {self._kind.label} does not hold it as it is"
        )

    def _add_subtitle(self, stream: Any, name: str) -> None:
        codec = self._kind.subtitle
        if codec is None or stream.codec_context.codec.name not in _TEXT_SUBTITLES:
            self.lost.append(f"{name}: {self._kind.label} has no place for it")
            return
        try:
            stream.codec_context.open(strict=False)
            target: Any = self._container.add_stream(codec)
            target.codec_context.subtitle_header = stream.codec_context.subtitle_header
            target.codec_context.open()
        except (FFmpegError, ValueError) as error:
            self.lost.append(f"{name}: cannot be converted ({error})")
            return
        self._put(stream, SubtitleTrack(target, stream))
        self.kept.append(f"{name}: converted to {codec}")

    def _add_data(self, stream: Stream, name: str) -> None:
        if "timecode" in stream.metadata and self._kind.is_mp4:
            # the muxer makes this track itself, from the video's metadata
            self.kept.append(f"timecode {stream.metadata['timecode']}")
            return
        codecs = self._kind.data_codecs
        is_known = getattr(stream, "name", None) in codecs if codecs else True
        if not is_known or not self._is_accepted(stream):
            self.lost.append(f"{name}: {self._kind.label} has no place for it")
            return
        self._put(stream, Track(self._container.add_stream_from_template(stream)))
        self.kept.append(f"{name}: copied")

    def _add_attachment(self, stream: AttachmentStream, name: str) -> None:
        if not self._kind.has_attachments:
            self.lost.append(f"{name}: {self._kind.label} has no place for it")
            return
        target = self._container.add_attachment(
            stream.name or f"attachment-{stream.index}",
            stream.mimetype or "application/octet-stream",
            stream.data,
        )
        target.metadata.update(stream.metadata)
        self.kept.append(f"{name}: copied")

    def _add_cover(self, stream: Stream, name: str) -> None:
        picture = self._first.get(stream.index)
        if picture is None:
            self.lost.append(f"{name}: it is not in the file")
        elif self._kind.has_attachments:
            kind = "png" if picture[:4] == b"\x89PNG" else "jpeg"
            mimetype = stream.metadata.get("mimetype", f"image/{kind}")
            filename = stream.metadata.get("filename", f"cover.{kind.replace('jpeg', 'jpg')}")
            self._container.add_attachment(filename, mimetype, picture)
            self.kept.append(f"{name}: copied")
        elif self._kind.is_mp4:
            self.late_covers.append(picture)
            self.kept.append(f"{name}: copied")
        else:
            self.lost.append(f"{name}: {self._kind.label} has no place for it")


def describe(stream: Stream) -> str:
    """A stream in a few words, such as `sound 1 (aac, eng)`."""
    noun = {"audio": "sound", "subtitle": "subtitles", "attachment": "attachment"}.get(
        stream.type, stream.type
    )
    if stream.disposition & COVER:
        noun = "cover picture"
    details = [getattr(stream, "name", None)]
    details.append(stream.metadata.get("language"))
    shown = ", ".join(printable(d) for d in details if d and d != "und")
    return f"{noun} in stream {stream.index}" + (f" ({shown})" if shown else "")


def printable(text: str) -> str:
    """A text from a file as a terminal can show it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def dress(target: Stream, source: Stream, kind: Format) -> None:
    """Give a stream of the output the language, title and disposition of the source's."""
    tags = {k: v for k, v in source.metadata.items() if not k.lower().startswith(_STALE_TAGS)}
    title = tags.get("title") or tags.pop("name", "")
    if title:
        tags["title"] = title
        # the title of a track has a place in MP4 that few programs read; this one many do
        if kind.is_mp4 and tags.get("handler_name", "") in _EMPTY_NAMES:
            tags["handler_name"] = title
    target.metadata.update(tags)
    target.disposition = source.disposition


def file_metadata(source: InputContainer) -> dict[str, str]:
    """What the source says about itself as a whole, without what is true of it only."""
    return {
        key: value
        for key, value in source.metadata.items()
        if not key.lower().startswith(_STALE_FILE_TAGS)
    }


def _set_up_audio(context: Any, layout: str, rate: int) -> None:
    context.sample_rate = rate
    context.layout = layout
    context.bit_rate = 96000 * context.layout.nb_channels


def _opens_audio(codec: str, rate: int, layout: str) -> bool:
    try:
        context: Any = av.CodecContext.create(codec, "w")
        context.format = (av.Codec(codec, "w").audio_formats or [])[0]
        _set_up_audio(context, layout, rate)
        context.open()
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


def has_adts(kind: Format, stream: Stream) -> bool:
    """Whether packets are AAC with a header that the format does not want."""
    return kind.name != "mpegts" and _is_aac_without_config(stream)


def _is_aac_without_config(stream: Stream) -> bool:
    context: Any = stream.codec_context
    if context is None or context.codec.canonical_name != "aac":
        return False
    return not context.extradata


def _add_copy(container: OutputContainer, stream: Stream, first: bytes) -> Stream:
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
            copy.codec_context.extradata = _aac_config(first)
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


def _silent_wave() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(320))
    return file.getvalue()


class _Nowhere:
    """A file whose bytes are forgotten."""

    name = "trial"

    def __init__(self, *, is_seekable: bool) -> None:
        self._position = 0
        self._is_seekable = is_seekable

    def seekable(self) -> bool:
        return self._is_seekable

    def write(self, data: bytes) -> int:
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset if whence == 0 else self._position + offset
        return self._position

    def tell(self) -> int:
        return self._position
