"""How each stream beside the restored one goes into an output: copied, converted, or not at all."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import AttachmentStream, Discard, Stream

from mhnet_video.media.encoders.encoding_settings import NEED_A_PACKET
from mhnet_video.media.fidelity import Loss
from mhnet_video.media.formats.audio_headers import DOLBY_SYNC
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.reading.source import COVER, is_known
from mhnet_video.media.tracks.copied_audio import CopiedAudioTrack, DolbyTrack
from mhnet_video.media.tracks.encoded_audio import add_audio, opens_audio
from mhnet_video.media.tracks.muxer_trials import MuxerTrials
from mhnet_video.media.tracks.stream_copy import add_copy
from mhnet_video.media.tracks.stream_tags import describe, dress
from mhnet_video.media.tracks.tracks import SubtitleTrack, Track

_TEXT_SUBTITLES = frozenset(["subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"])
"""Subtitles that one format's codec can be made of another's, by FFmpeg's names."""
_AC3_ID = 10
"""The highest version of AC-3's bit stream that is not E-AC-3, which AVI calls AC-3, too."""
_FLAC_STREAM_INFO_BYTES = 34
"""Size of FLAC's header."""
_PICTURES = {
    rb"\xff\xd8": "jpeg",
    rb"\x89PNG": "png",
    rb"BM": "bmp",
    rb"GIF8": "gif",
    rb"RIFF....WEBP": "webp",
}
"""How files of pictures begin."""
_MP4S_PICTURES = ("jpeg", "png", "bmp")
"""Pictures that can be the cover of an MP4."""


class TrackMaker:
    """Makes a track of an output for each stream of a source that has a place in it.

    Args:
        container: The output, its header not yet written.
        container_format: Its format.
        first: The first packet of streams, by their number, as far as it is known already.
        late: The numbers of streams that begin later than the video, by more than the format holds.
        trials: Tell what the muxer takes.
    """

    def __init__(
        self,
        container: OutputContainer,
        container_format: Format,
        first: Mapping[int, bytes],
        late: Collection[int],
        trials: MuxerTrials,
    ) -> None:
        self.kept: dict[int, str] = {}
        """What is in the output, a line for each stream's number."""
        self.losses: list[Loss] = []
        """What is not in the output, or not as it was."""
        self.late_covers: list[bytes] = []
        """Cover pictures to put into the finished file."""
        self.silent: dict[int, list[str]] = {}
        """Sound of which nothing is known: what it is called, and what became of it."""
        self.sounds: dict[int, tuple[CopiedAudioTrack, str]] = {}
        """Copied sound, and what it is called."""
        self.timecodes: list[Stream] = []
        """Streams of time codes, which the tags of the video say, and muxers make of those."""
        self._container = container
        self._format = container_format
        self._first = first
        self._late = late
        self._trials = trials

    def make(self, stream: Stream) -> Track | None:
        """A track for a stream; None where it has none. What becomes of the stream is noted."""
        track = self._made(stream)
        if track is not None:
            dress(track.target, stream, self._format)
        return track

    def _made(self, stream: Stream) -> Track | None:
        if stream.discard == Discard.all:
            return None  # the titles of chapters, which are kept as chapters
        name = describe(stream)
        if stream.disposition & COVER:
            self._add_cover(stream, name)
        elif isinstance(stream, AttachmentStream):
            self._add_attachment(stream, name)
        elif stream.type == "data":
            return self._add_data(stream, name)
        elif stream.codec_context is None:
            self.lose(stream, "of a kind that this FFmpeg does not know")
        elif stream.type == "audio" and not is_known(stream):
            self.silent[stream.index] = [describe(stream), "it is announced, but never comes"]
        elif stream.type == "audio" and not self._copies(stream):
            return self._add_audio(stream)
        elif stream.type == "subtitle" and not self._copies(stream):
            return self._add_subtitle(stream, name)
        elif stream.type in ("audio", "subtitle", "video") and self._copies(stream):
            self.kept[stream.index] = f"{name}: copied"
            return self._copy(stream)
        else:
            self.lose(stream, f"{self._format.label} has no place for it")
        return None

    def lose(self, stream: Stream, why: str) -> None:
        """Note that a stream is not in the output, or not as it was."""
        where = f"stream {stream.index}"
        self.losses.append(Loss(kind="stream", what=describe(stream), why=why, where=where))

    def _copy(self, stream: Stream) -> Track:
        first = self._first.get(stream.index, b"")
        target = add_copy(self._container, stream, first)
        if self._format.is_mp4 and stream.name in NEED_A_PACKET:
            return DolbyTrack(target, stream)
        if stream.type == "audio":
            track = CopiedAudioTrack(target, stream, self._format, first)
            self.sounds[stream.index] = track, describe(stream)
            return track
        return Track(target)

    def _copies(self, stream: Stream) -> bool:
        """Whether the container takes a stream as it is."""
        codec = stream.codec_context.codec.name
        canonical = stream.codec_context.codec.canonical_name
        container_format = self._format
        if stream.type == "audio" and codec.startswith(container_format.refused_audio or ("?",)):
            return False
        if stream.type == "audio":
            # a file without times has sound from its beginning, or other sound than it had
            if container_format.is_constant_rate and stream.index in self._late:
                return False
            context: Any = stream.codec_context
            is_further = bool(self.sounds) or context.layout.nb_channels > 2
            codecs = container_format.further_audio_codecs
            if is_further and codecs and canonical not in codecs:
                return False
            if not self._is_whole(stream, canonical):
                return False
            rates = container_format.audio_rates.get(canonical)
            if rates is not None and context.sample_rate not in rates:
                return False
        for media, codecs in (
            ("video", container_format.video_codecs),
            ("audio", container_format.audio_codecs),
            ("subtitle", container_format.subtitle_codecs),
        ):
            if stream.type == media and codecs and canonical not in codecs:
                return False
        return self._trials.takes_stream(stream)

    def _is_whole(self, stream: Stream, codec: str) -> bool:
        """Whether sound has what muxers take for granted, and abort or fail at the end without."""
        first = self._first.get(stream.index, b"")
        context: Any = stream.codec_context
        if codec == "ac3" and self._format.is_mp4 and len(first) > 5:
            return first[:2] == DOLBY_SYNC and first[5] >> 3 <= _AC3_ID
        if codec in NEED_A_PACKET and self._format.is_mp4:
            # where none comes, there must be silence
            return opens_audio(codec, context.sample_rate, context.layout.name)
        if codec == "aac" and self._format.is_constant_rate:
            # its packets are counted, and how long they are is known of those that were seen
            return bool(context.frame_size)
        header = context.extradata or b""
        if codec == "opus":
            return header.startswith(b"OpusHead")
        return codec != "flac" or len(header) == _FLAC_STREAM_INFO_BYTES

    def _add_audio(self, stream: Any) -> Track | None:
        codec = self._format.audio
        is_timeless = self._format.is_constant_rate
        track = add_audio(self._container, codec, stream, from_zero=is_timeless)
        if track is None:
            self.lose(stream, "cannot be decoded and encoded again")
            return None
        new = {"libopus": "Opus", "aac": "AAC", "mp3": "MP3"}[codec]
        target: Any = track.target.codec_context
        channels, left = stream.codec_context.layout.nb_channels, target.layout.nb_channels
        if left < channels:
            new += f" of {left} channels instead of {channels}"
        why = f"re-encoded to {new}, as {self._format.label} does not hold it as it is"
        if is_timeless and stream.index in self._late:
            why = (
                f"re-encoded to {new}, with silence before it, as {self._format.label} has no times"
            )
        self.lose(stream, why)
        return track

    def _add_subtitle(self, stream: Any, name: str) -> Track | None:
        codec = self._format.subtitle
        if codec is None or stream.codec_context.codec.name not in _TEXT_SUBTITLES:
            self.lose(stream, f"{self._format.label} has no place for it")
            return None
        try:
            stream.codec_context.open(strict=False)
            target: Any = self._container.add_stream(codec)
            target.codec_context.subtitle_header = stream.codec_context.subtitle_header
            target.codec_context.open()
        except (FFmpegError, ValueError) as error:
            self.lose(stream, f"cannot be converted ({error})")
            return None
        self.kept[stream.index] = f"{name}: converted to {codec}"
        return SubtitleTrack(target, stream)

    def _add_data(self, stream: Stream, name: str) -> Track | None:
        if "timecode" in stream.metadata and getattr(stream, "name", None) is None:
            self.timecodes.append(stream)
            return None
        codecs = self._format.data_codecs
        is_taken = getattr(stream, "name", None) in codecs if codecs else True
        if not is_taken or not self._trials.takes_stream(stream):
            self.lose(stream, f"{self._format.label} has no place for it")
            return None
        self.kept[stream.index] = f"{name}: copied"
        return Track(self._container.add_stream_from_template(stream))

    def _add_attachment(self, stream: AttachmentStream, name: str) -> None:
        if not self._format.has_attachments:
            self.lose(stream, f"{self._format.label} has no place for it")
            return
        target = self._container.add_attachment(
            stream.name or f"attachment-{stream.index}",
            stream.mimetype or "application/octet-stream",
            stream.data,
        )
        target.metadata.update(stream.metadata)
        self.kept[stream.index] = f"{name}: copied"

    def _add_cover(self, stream: Stream, name: str) -> None:
        picture = self._first.get(stream.index)
        if picture is None:
            self.lose(stream, "it is not in the file")
            return
        image_format = next(
            (k for mark, k in _PICTURES.items() if re.match(mark, picture, re.DOTALL)), ""
        )
        if self._format.has_attachments:
            mimetype = stream.metadata.get("mimetype", f"image/{image_format or 'jpeg'}")
            ending = image_format.replace("jpeg", "jpg")
            filename = stream.metadata.get("filename", f"cover.{ending or 'jpg'}")
            self._container.add_attachment(filename, mimetype, picture)
            self.kept[stream.index] = f"{name}: copied"
        elif self._format.is_mp4 and image_format in _MP4S_PICTURES:
            self.late_covers.append(picture)
            self.kept[stream.index] = f"{name}: copied"
        else:
            self.lose(stream, f"{self._format.label} has no place for it")
