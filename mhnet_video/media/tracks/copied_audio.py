"""Audio that is copied as long as the header of the output is true of it."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError
from av.stream import Stream

from mhnet_video.media.formats.audio_headers import (
    DOLBY_SYNC,
    aac_config,
    aac_rate_and_layout,
    coded_rate,
    is_aac_without_config,
)
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.tracks.encoded_audio import (
    EncodedAudioTrack,
    open_audio_encoder,
    opens_audio,
    set_up_audio,
)
from mhnet_video.media.tracks.silence import silent_frame
from mhnet_video.media.tracks.tracks import Track

_REPEATABLE = ("aac", "mp2", "mp3", "ac3")
"""Codecs that an encoder makes such that the header of the output is true of it."""
_SELF_DESCRIBING = ("mp1", "mp2", "mp3", "ac3", "eac3", "dts", "flac", "opus", "truehd")
"""Codecs whose packets hold the sample rate and the channels themselves."""


class _AudioConfig:
    """What the header of the output says of copied audio.

    Args:
        source: The source's stream.
        container_format: The output's format.
        first: The first packet, empty where it is not known.
    """

    def __init__(self, source: Any, container_format: Format, first: bytes) -> None:
        self._codec = source.codec_context.codec.canonical_name
        self._is_adts = is_aac_without_config(source)
        # an ADTS header is before each packet; FLV and MP4 store a new configuration
        self._may_change = container_format.is_mp4 or container_format.name == "flv"
        if self._is_adts:
            self._may_change = container_format.name == "mpegts"
        # a file without times needs one sample rate, also of codecs that describe themselves
        is_described = self._codec in _SELF_DESCRIBING
        self._has_coded_rate = container_format.is_constant_rate and is_described
        self._has_side_data = not is_described
        # an AVI has other data in the place of a configuration of such codecs
        self.config: bytes | None = None
        """The configuration, as the codec has it; None as long as none is known."""
        if self._is_adts:
            self.config = aac_config(first)
        elif not self._has_coded_rate:
            self.config = source.codec_context.extradata

    def differs(self, packet: Packet) -> bool:
        """Whether a packet says that the header is not true of it."""
        if self._may_change:
            return False
        config: bytes | None = None
        if self._is_adts:
            config = aac_config(bytes(memoryview(packet)[:4]))
        elif self._has_coded_rate:
            config = coded_rate(self._codec, bytes(memoryview(packet)[:5]))
        elif self._has_side_data and packet.has_sidedata("new_extradata"):
            config = bytes(packet.get_sidedata("new_extradata"))
        self.config = self.config or config
        # the rest of a configuration of AAC is optional
        length = 2 if self._codec == "aac" else None
        return bool(config and self.config and config[:length] != self.config[:length])


class CopiedAudioTrack(Track):
    """Audio that is copied as long as the header of the output is true of it.

    Where its sample rate or its channels change (a broadcast goes from mono to stereo), the rest is
    encoded again to what it was before.

    Args:
        target: The stream of the output.
        source: The source's.
        container_format: The output's format.
        first: The first packet, empty where it is not known.
    """

    def __init__(self, target: Stream, source: Any, container_format: Format, first: bytes) -> None:
        super().__init__(target)
        self.changed: Fraction | None = None
        """When the header became untrue, on the output's clock in seconds; None for never."""
        self._source = source
        self._config = _AudioConfig(source, container_format, first)
        self._filter: BitStreamFilterContext | None = None
        if is_aac_without_config(source) and container_format.name != "mpegts":
            self._filter = BitStreamFilterContext("aac_adtstoasc", source)
        self._encoded: EncodedAudioTrack | None = None
        # a packet whose header differs, until the next one is known
        self._waiting: list[Packet] = []
        # the end of what is copied
        self._seam: int | None = None

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packet as the container wants it."""
        waiting, self._waiting = self._waiting, []
        if self.changed is None and self._config.differs(packet):
            # a single header that differs may be damaged, a second one confirms it
            if not waiting and not packet.has_sidedata("new_extradata"):
                self._waiting = [packet]
                return ()
            begin = (waiting or [packet])[0]
            ticks = begin.pts if begin.pts is not None else begin.dts or 0
            self.changed = ticks * Fraction(begin.time_base) - origin
            self._seam = self._end
            self._encoded = self._as_before()
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

    def flush(self) -> Iterable[Packet]:
        """The packets that an encoder still holds, if there is one."""
        self.refused += len(self._waiting)
        return super().flush() if self._encoded is None else self._joined(self._encoded)

    @property
    def is_converted(self) -> bool:
        """Whether what came after a change is in the output."""
        return self._encoded is not None

    def _bare(self, packet: Packet) -> Packet:
        """A packet for Matroska without a configuration of its own, which the header has already.

        FFmpeg 8.1 would write over the header, in more space than is reserved.
        """
        name = self.target.container.format.name
        if name not in ("matroska", "webm") or not packet.has_sidedata("new_extradata"):
            return packet
        bare = Packet(bytes(packet))
        bare.pts, bare.dts, bare.duration = packet.pts, packet.dts, packet.duration
        bare.time_base, bare.is_keyframe = packet.time_base, packet.is_keyframe
        return bare

    def _as_before(self) -> EncodedAudioTrack | None:
        """A track that encodes as the header says; None where no encoder does."""
        context = self._source.codec_context
        codec = context.codec.canonical_name
        sound: tuple[int, str] | None = context.sample_rate, context.layout.name
        if codec == "aac":
            sound = aac_rate_and_layout(self._config.config or b"")
        if sound is None or not opens_audio(codec, *sound) or codec not in _REPEATABLE:
            return None
        encoder = open_audio_encoder(codec, *sound)
        return EncodedAudioTrack(self.target, self._source, encoder=encoder)

    def _joined(
        self,
        encoded: EncodedAudioTrack,
        packet: Packet | None = None,
        origin: Fraction = Fraction(0),
    ) -> list[Packet]:
        """What was encoded again, without an encoder's priming before it."""
        found = encoded.flush() if packet is None else encoded.packets(packet, origin)
        ticks = Fraction(self.target.time_base or Fraction(1, 1000))
        seam = (self._seam or 0) * ticks
        return [
            self._place(each, Fraction(0))
            for each in found
            if ((each.pts or 0) + Fraction(each.duration or 0, 2)) * Fraction(each.time_base) > seam
        ]


class DolbyTrack(Track):
    """AC-3 or E-AC-3 for an MP4, whose index cannot be written before a packet of it."""

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
        """A packet of silence; none where no encoder makes one.

        Args:
            time: When it begins, on the output's clock in seconds.
        """
        source = self._source
        rate, layout = source.sample_rate, source.layout.name
        try:
            context: Any = av.CodecContext.create(source.codec.name, "w")
            context.format = "fltp"
            set_up_audio(context, layout, rate)
            context.open()
            frame = silent_frame("fltp", layout, rate, context.frame_size)
            packets = context.encode(frame) + context.encode(None)
        except (FFmpegError, ValueError):
            return []
        for packet in packets[:1]:
            packet.time_base = Fraction(1, rate)
            packet.pts = packet.dts = round(time / packet.time_base)
            packet.duration = context.frame_size
        return [self._place(packet, Fraction(0)) for packet in packets[:1]]

    def flush(self) -> Iterable[Packet]:
        """Silence where nothing else was."""
        return self.silence(Fraction(0)) if self._last is None else ()
