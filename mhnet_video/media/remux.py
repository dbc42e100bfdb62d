"""The streams beside the restored one: copied where the container takes them, else converted.

Each stream of the source becomes a track here, or a loss.
"""

import re
from collections import deque
from collections.abc import Collection, Iterable
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import AttachmentStream, Discard, Stream

from mhnet_video.media.containers import Format
from mhnet_video.media.decoder import Packet
from mhnet_video.media.encoding_settings import NEED_A_PACKET
from mhnet_video.media.fidelity import Loss, printable
from mhnet_video.media.reader import COVER
from mhnet_video.media.source import is_known
from mhnet_video.media.tracks import (
    DOLBY_SYNC,
    AudioTrack,
    DolbyTrack,
    Pauses,
    SoundTrack,
    SubtitleTrack,
    Track,
    add_audio,
    add_copy,
    empty_cue,
    opens_audio,
)

# what AAC's decoders need before the first sound
_PRIMING_PACKETS = 2
_TEXT_SUBTITLES = frozenset(["subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"])
# FFmpeg's for subtitles that it converts
_TEXT_CLOCK = Fraction(1, 1_000_000)
# the highest version of AC-3's bit stream that is not E-AC-3, which goes by the same name in AVI
_AC3_ID = 10
_FLAC_STREAM_INFO_BYTES = 34
_TRIAL_PACKETS = 4096
# written by a muxer about its own file, false in another
_STALE_TAGS = ("encoder", "duration", "vendor_id", "rotate", "bps", "number_of_", "_statistics_")
_STALE_VIDEO_TAGS = ("alpha_mode",)
_STALE_FILE_TAGS = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "location-"),
    *("wm/encodingsettings", "isvbr", "devicecon", "software"),
)
# QuickTime numbers its languages, and FFmpeg knows them by one of the two codes of ISO 639-2
_QUICKTIMES_LANGUAGES = {
    "bod": "tib", "cym": "wel", "cze": "ces", "deu": "ger", "ell": "gre", "eus": "baq",
    "fre": "fra", "hye": "arm", "isl": "ice", "kat": "geo", "mkd": "mac", "msa": "may",
    "mya": "bur", "nld": "dut", "rum": "ron", "slo": "slk", "sqi": "alb", "swe": "sve",
    "zho": "chi",
}  # fmt: skip
# how files of pictures begin, and which of them the covers of an MP4 may be
_PICTURES = {
    rb"\xff\xd8": "jpeg",
    rb"\x89PNG": "png",
    rb"BM": "bmp",
    rb"GIF8": "gif",
    rb"RIFF....WEBP": "webp",
}
_MP4S_PICTURES = ("jpeg", "png", "bmp")
# names that FFmpeg's own muxers give to tracks that have none
_EMPTY_NAMES = ("VideoHandler", "SoundHandler", "SubtitleHandler", "DataHandler", "")


class Tracks:
    """All streams of a source but the restored one, on their way into an output.

    Args:
        container: The output, its header not yet written.
        kind: Its format.
        first: The first packet of streams, by their number, as far as it is known already.
        late: The numbers of streams that begin later than the video, by more than the format holds.
        is_seekable: Whether the muxer can go back and fill in what it learns late.
    """

    def __init__(
        self,
        container: OutputContainer,
        kind: Format,
        first: dict[int, bytes],
        *,
        late: Collection[int] = (),
        is_seekable: bool = True,
    ) -> None:
        self._late = late
        self._is_seekable = is_seekable
        self._container = container
        self._kind = kind
        self._first = first
        self._tracks: dict[int, Track] = {}
        self._pauses: dict[int, Pauses] = {}
        # copied sound, and what it is called
        self._sounds: dict[int, tuple[SoundTrack, str]] = {}
        # sound of which nothing is known: what it is called, and what became of it
        self._silent: dict[int, list[str]] = {}
        # what the muxer is asked whether it takes a packet
        self._trials: dict[int, _Trial] = {}
        # sound that the source hides, until there is some that it does not hide
        self._hidden: dict[int, deque[Packet]] = {}
        self.kept: list[str] = []
        self._losses: list[Loss] = []
        self.late_covers: list[bytes] = []
        """Cover pictures to put into the finished file."""

    def add(self, stream: Stream, *, pause_seconds: Fraction = Fraction(0)) -> None:
        """Make a track for a stream of the source.

        Args:
            stream: The source's.
            pause_seconds: The longest that may pass from one of its packets to the next.
        """
        self._add(stream)
        track = self._tracks.get(stream.index)
        if track is None or not stream.time_base:
            return
        if track.target.type != "audio":
            if self._kind.is_mp4:
                target: Any = track.target
                wished = Fraction(target.time_base or _TEXT_CLOCK)
                target.time_base = self._kind.clock(wished, pause_seconds)
        elif self._kind.longest_step is not None:
            # the muxer counts sound in its samples; it has no times for those of PCM
            is_counted = self._kind.is_constant_rate or "pcm_" in (track.target.name or "")
            step = 0 if is_counted else self._kind.longest_step
            self._pauses[stream.index] = Pauses(
                track.target, step, is_timeless=self._kind.is_constant_rate
            )

    def _add(self, stream: Stream) -> None:
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
            self._lose(stream, "of a kind that this FFmpeg does not know")
        elif stream.type == "audio" and not is_known(stream):
            self._silent[stream.index] = [describe(stream), "it is announced, but never comes"]
        elif stream.type == "audio" and not self._copies(stream):
            self._add_audio(stream, name)
        elif stream.type == "subtitle" and not self._copies(stream):
            self._add_subtitle(stream, name)
        elif stream.type in ("audio", "subtitle", "video") and self._copies(stream):
            self._put(stream, self._copy(stream))
            self.kept.append(f"{name}: copied")
        else:
            self._lose(stream, f"{self._kind.label} has no place for it")

    def refuse(self, stream: Stream) -> None:
        """Leave out a stream that the muxer does not take beside the others."""
        if stream.discard != Discard.all:
            self._lose(stream, f"{self._kind.label} does not take it beside the other streams")

    def _lose(self, stream: Stream, why: str) -> None:
        where = f"stream {stream.index}"
        self._losses.append(Loss(kind="stream", what=describe(stream), why=why, where=where))

    @property
    def losses(self) -> list[Loss]:
        """What is not in the output, or not as it was."""
        losses = list(self._losses)
        for index, (what, why) in self._silent.items():
            losses.append(Loss(kind="stream", what=what, why=why, where=f"stream {index}"))
        for index, (track, what) in self._sounds.items():
            if track.changed is None:
                continue
            done = "re-encoded" if track.is_converted else "left out"
            why = f"{done} from {float(track.changed):.1f} s on, where its rate or channels change"
            losses.append(Loss(kind="stream", what=what, why=why, where=f"stream {index}"))
        return losses

    def _ready(self, track: Track, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        index = packet.stream_index
        if track.target.type != "audio" or isinstance(track, AudioTrack):
            return track.packets(packet, origin)
        # what an edit list hides, others would play; a decoder wants a little of it
        hidden = self._hidden.setdefault(index, deque(maxlen=_PRIMING_PACKETS))
        if packet.is_discard and hidden.maxlen and self._kind.is_mp4:
            # an MP4 hides what is before the first sound, but nothing later
            return track.packets(packet, origin)
        if packet.is_discard:
            hidden.append(packet)
            return ()
        ready = [*hidden, packet]
        self._hidden[index] = deque(maxlen=0)
        return [placed for each in ready for placed in track.packets(each, origin)]

    def begin(self, time: Fraction) -> Iterable[Packet]:
        """What to write before all else, as an MP4's index waits for a packet of each track.

        Cues that show nothing until the first one, and silence where sound comes much later.
        """
        if not self._kind.is_mp4:
            return
        for index, track in self._tracks.items():
            if isinstance(track, DolbyTrack) and index in self._late:
                yield from track.silence(time)
            if track.target.type == "subtitle" and index not in self._first:
                packet = empty_cue(track.target)
                packet.pts = packet.dts = round(time / Fraction(packet.time_base))
                yield packet

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packets to write for one of the source; none for a stream that is not kept."""
        track = self._tracks.get(packet.stream_index)
        if track is None:
            if packet.stream_index in self._silent:
                why = "nothing was known of it when the output began, as it comes too late"
                self._silent[packet.stream_index][1] = why
            return ()
        stream = packet.stream
        try:
            ready = self._bridged(packet.stream_index, self._ready(track, packet, origin))
            return [each for each in ready if self._passes(track, stream, each)]
        except (FFmpegError, ValueError):
            track.refused += 1
            return ()

    def flush(self) -> Iterable[Packet]:
        """The packets to write at the end."""
        for index, track in self._tracks.items():
            try:
                yield from self._bridged(index, track.flush())
                if self._kind.is_mp4 and track.target.name == "mov_text":
                    yield from track.closing_cue()
            except (FFmpegError, ValueError):
                track.refused += 1
        self._tell_pauses()

    def _bridged(self, index: int, packets: Iterable[Packet]) -> Iterable[Packet]:
        """Packets of a stream of the source, and what the format needs in its pauses."""
        pauses = self._pauses.get(index)
        if pauses is None:
            return packets
        return [each for packet in packets for each in pauses.bridged(packet)]

    def _tell_pauses(self) -> None:
        label = self._kind.label
        for index, pauses in self._pauses.items():
            what, where = f"pauses of sound in stream {index}", f"stream {index}"
            if pauses.early_seconds:
                early = f"{float(pauses.early_seconds):.1f} s too early"
                why = f"{label} has none, so that what follows them comes {early}"
                self._losses.append(Loss(kind="times", what=what, why=why, where=where))
            if pauses.repeated:
                why = f"{label} knows none so long, and has a piece of sound in the midst of them"
                self._losses.append(Loss(kind="times", what=what, why=why, where=where))

    @property
    def refused(self) -> int:
        """Packets that could not be converted."""
        return sum(track.refused for track in self._tracks.values())

    @property
    def targets(self) -> dict[int, Stream]:
        """The output's streams, by the source's numbers of theirs."""
        return {index: track.target for index, track in self._tracks.items()}

    def _put(self, stream: Stream, track: Track) -> None:
        self._tracks[stream.index] = track
        dress(track.target, stream, self._kind)

    def _copy(self, stream: Stream) -> Track:
        first = self._first.get(stream.index, b"")
        target = add_copy(self._container, stream, first)
        if self._kind.is_mp4 and stream.name in NEED_A_PACKET:
            return DolbyTrack(target, stream)
        if stream.type == "audio":
            track = SoundTrack(target, stream, self._kind, first)
            self._sounds[stream.index] = track, describe(stream)
            return track
        return Track(target)

    def _copies(self, stream: Stream) -> bool:
        """Whether the container takes a stream as it is."""
        codec = stream.codec_context.codec.name
        canonical = stream.codec_context.codec.canonical_name
        kind = self._kind
        if stream.type == "audio" and codec.startswith(kind.refused_audio or ("?",)):
            return False
        if stream.type == "audio":
            # a file without times has sound from its beginning, or other sound than it had
            if kind.is_constant_rate and stream.index in self._late:
                return False
            context: Any = stream.codec_context
            is_further = bool(self._sounds) or context.layout.nb_channels > 2
            codecs = kind.further_audio_codecs
            if is_further and codecs and canonical not in codecs:
                return False
            if not self._is_whole(stream, canonical):
                return False
            rates = kind.audio_rates.get(canonical)
            if rates is not None and context.sample_rate not in rates:
                return False
        for media, codecs in (("audio", kind.audio_codecs), ("subtitle", kind.subtitle_codecs)):
            if stream.type == media and codecs and canonical not in codecs:
                return False
        return self._is_accepted(stream)

    def _is_whole(self, stream: Stream, codec: str) -> bool:
        """Whether sound has what muxers take for granted, and abort or fail at the end without."""
        first = self._first.get(stream.index, b"")
        if codec == "ac3" and self._kind.is_mp4 and len(first) > 5:
            return first[:2] == DOLBY_SYNC and first[5] >> 3 <= _AC3_ID
        if codec in NEED_A_PACKET and self._kind.is_mp4:
            # where none comes, there must be silence
            context: Any = stream.codec_context
            return opens_audio(codec, context.sample_rate, context.layout.name)
        header = stream.codec_context.extradata or b""
        if codec == "opus":
            return header.startswith(b"OpusHead")
        return codec != "flac" or len(header) == _FLAC_STREAM_INFO_BYTES

    def _is_accepted(self, stream: Stream) -> bool:
        """Whether the muxer takes a stream as it is, as far as its first packet tells."""
        first = self._first.get(stream.index, b"")
        try:
            trial = self._try(stream)
        except (FFmpegError, ValueError):
            return False
        return not first or stream.type not in ("audio", "video") or trial.takes(first)

    def _try(self, stream: Stream) -> "_Trial":
        first = self._first.get(stream.index, b"")
        return _Trial(self._kind, stream, first, is_seekable=self._is_seekable)

    def _passes(self, track: Track, stream: Stream, packet: Packet) -> bool:
        """Whether the muxer takes a packet of a stream that is copied.

        It would refuse it only while it takes a later one of the video, which would be blamed.
        """
        if isinstance(track, AudioTrack) or track.target.type not in ("audio", "video"):
            return True
        trial = self._trials.get(stream.index)
        if trial is None or trial.is_used_up:
            trial = self._trials[stream.index] = self._try(stream)
        if trial.takes(bytes(packet)):
            return True
        del self._trials[stream.index]
        track.refused += 1
        return False

    def _add_audio(self, stream: Any, name: str) -> None:
        codec = self._kind.audio
        is_timeless = self._kind.is_constant_rate
        track = add_audio(self._container, codec, stream, from_zero=is_timeless)
        if track is None:
            self._lose(stream, "cannot be decoded and encoded again")
            return
        self._put(stream, track)
        new = {"libopus": "Opus", "aac": "AAC", "mp3": "MP3"}[codec]
        target: Any = track.target.codec_context
        channels, left = stream.codec_context.layout.nb_channels, target.layout.nb_channels
        if left < channels:
            new += f" of {left} channels instead of {channels}"
        why = f"re-encoded to {new}, as {self._kind.label} does not hold it as it is"
        if is_timeless and stream.index in self._late:
            why = f"re-encoded to {new}, with silence before it, as {self._kind.label} has no times"
        self._lose(stream, why)

    def _add_subtitle(self, stream: Any, name: str) -> None:
        codec = self._kind.subtitle
        if codec is None or stream.codec_context.codec.name not in _TEXT_SUBTITLES:
            self._lose(stream, f"{self._kind.label} has no place for it")
            return
        try:
            stream.codec_context.open(strict=False)
            target: Any = self._container.add_stream(codec)
            target.codec_context.subtitle_header = stream.codec_context.subtitle_header
            target.codec_context.open()
        except (FFmpegError, ValueError) as error:
            self._lose(stream, f"cannot be converted ({error})")
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
            self._lose(stream, f"{self._kind.label} has no place for it")
            return
        self._put(stream, Track(self._container.add_stream_from_template(stream)))
        self.kept.append(f"{name}: copied")

    def _add_attachment(self, stream: AttachmentStream, name: str) -> None:
        if not self._kind.has_attachments:
            self._lose(stream, f"{self._kind.label} has no place for it")
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
            self._lose(stream, "it is not in the file")
            return
        kind = next((k for mark, k in _PICTURES.items() if re.match(mark, picture, re.DOTALL)), "")
        if self._kind.has_attachments:
            mimetype = stream.metadata.get("mimetype", f"image/{kind or 'jpeg'}")
            ending = kind.replace("jpeg", "jpg")
            filename = stream.metadata.get("filename", f"cover.{ending or 'jpg'}")
            self._container.add_attachment(filename, mimetype, picture)
            self.kept.append(f"{name}: copied")
        elif self._kind.is_mp4 and kind in _MP4S_PICTURES:
            self.late_covers.append(picture)
            self.kept.append(f"{name}: copied")
        else:
            self._lose(stream, f"{self._kind.label} has no place for it")


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


def dress(target: Stream, source: Stream, kind: Format, *, is_copied: bool = True) -> None:
    """Give a stream of the output the language, title and disposition of the source's."""
    stale = _STALE_TAGS + (() if is_copied else _STALE_VIDEO_TAGS)
    tags = {k: v for k, v in source.metadata.items() if not k.lower().startswith(stale)}
    title = tags.get("title") or tags.pop("name", "")
    if title:
        tags["title"] = title
        # the title of a track has a place in MP4 that few programs read; this one many do
        if kind.is_mp4 and tags.get("handler_name", "") in _EMPTY_NAMES:
            tags["handler_name"] = title
    if kind.name == "mov" and (language := tags.get("language")):
        tags["language"] = _QUICKTIMES_LANGUAGES.get(language, language)
    target.metadata.update(tags)
    target.disposition = source.disposition


def file_metadata(source: InputContainer) -> dict[str, str]:
    """What the source says about itself as a whole, without what is true of it only."""
    return {
        key: value
        for key, value in source.metadata.items()
        if not key.lower().startswith(_STALE_FILE_TAGS)
    }


class _Trial:
    """A muxer like that of the output, for one stream, whose bytes are forgotten.

    Raises:
        FFmpegError: It does not take the stream.
        ValueError: Likewise.
    """

    def __init__(self, kind: Format, stream: Stream, first: bytes, *, is_seekable: bool) -> None:
        nowhere = _Nowhere(is_seekable=is_seekable)
        # an MP4 that the muxer cannot go back in is one of fragments
        options = {} if is_seekable else {"movflags": "frag_keyframe"}
        self._container = av.open(nowhere, "w", format=kind.name, container_options=options)
        self._target = add_copy(self._container, stream, first)
        if not self._target.time_base:
            self._target.time_base = Fraction(1, 1000)
        try:
            self._container.start_encoding()
        finally:
            # FFmpeg 8.1 may crash when it ends a file with nothing in it
            nowhere.closed = True
        self._taken = 0

    @property
    def is_used_up(self) -> bool:
        """Whether it holds so much of an index that another one should be begun."""
        return self._taken >= _TRIAL_PACKETS

    def takes(self, content: bytes) -> bool:
        """Whether the muxer takes a packet; AVI refuses H.264 as MP4 has it only then."""
        packet = Packet(content)
        self._taken += 1
        packet.pts = packet.dts = 1000 * self._taken
        packet.is_keyframe = True
        packet.time_base = Fraction(self._target.time_base or Fraction(1, 1000))
        packet.stream = self._target
        try:
            self._container.mux_one(packet)
        except (FFmpegError, ValueError):
            return False
        return True


class _Nowhere:
    """A file whose bytes are forgotten."""

    name = "trial"
    closed = False

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
