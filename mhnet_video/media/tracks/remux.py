"""The streams beside the restored one: copied where the container takes them, else converted.

Each stream of the source becomes a track here, or a loss.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any

from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import Discard, Stream

from mhnet_video.media.fidelity import Loss
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.reading.frame_maker import display_matrix_of
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.tracks.audio_pauses import AudioPauses
from mhnet_video.media.tracks.copied_audio import DolbyTrack
from mhnet_video.media.tracks.encoded_audio import EncodedAudioTrack
from mhnet_video.media.tracks.muxer_trials import MuxerTrials
from mhnet_video.media.tracks.stream_tags import describe
from mhnet_video.media.tracks.track_maker import TrackMaker
from mhnet_video.media.tracks.tracks import Track, empty_cue

_PRIMING_PACKETS = 2
"""Packets that an AAC decoder needs before the first sound."""
_TEXT_CLOCK = Fraction(1, 1_000_000)
"""FFmpeg's unit of time for subtitles that it converts, in seconds."""


class _CarriedStream:
    """One stream of a source on its way into an output.

    Args:
        track: Copies or converts its packets.
        container_format: The output's format.
        trials: Tell whether the muxer takes a packet.
        pauses: Fills its pauses; None where the format has pauses.
    """

    def __init__(
        self,
        track: Track,
        container_format: Format,
        trials: MuxerTrials,
        pauses: AudioPauses | None,
    ) -> None:
        self.track = track
        self.pauses = pauses
        self._format = container_format
        self._trials = trials
        # what comes first of audio that an edit list hides; no more once there is other
        self._hidden: deque[Packet] = deque(maxlen=_PRIMING_PACKETS)
        self._is_audio = track.target.type == "audio"
        self._is_encoded = isinstance(track, EncodedAudioTrack)

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packets to write for one of the source; what cannot be written is counted."""
        stream = packet.stream
        try:
            ready = self._bridged(self._shown(packet, origin))
            return [each for each in ready if self._passes(stream, each)]
        except (FFmpegError, ValueError):
            self.track.refused += 1
            return ()

    def flush(self) -> Iterable[Packet]:
        """The packets to write at the end."""
        try:
            yield from self._bridged(self.track.flush())
            if self._format.is_mp4 and self.track.target.name == "mov_text":
                yield from self.track.closing_cue()
        except (FFmpegError, ValueError):
            self.track.refused += 1

    def _shown(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The track's packets, without audio that an edit list hides, which others would play."""
        if not self._is_audio or self._is_encoded:
            return self.track.packets(packet, origin)
        if packet.is_discard and self._hidden.maxlen and self._format.is_mp4:
            # an MP4 hides what is before the first sound, but nothing later
            return self.track.packets(packet, origin)
        if packet.is_discard:
            self._hidden.append(packet)
            return ()
        ready = [*self._hidden, packet]
        self._hidden = deque(maxlen=0)
        return [placed for each in ready for placed in self.track.packets(each, origin)]

    def _bridged(self, packets: Iterable[Packet]) -> Iterable[Packet]:
        """Packets, and what the format needs in the pauses between them."""
        pauses = self.pauses
        if pauses is None:
            return packets
        return [each for packet in packets for each in pauses.bridged(packet)]

    def _passes(self, stream: Stream, packet: Packet) -> bool:
        """Whether the muxer takes a packet, which it is asked of streams that are copied."""
        if self._is_encoded or self.track.target.type not in ("audio", "video"):
            return True
        if self._trials.takes_packet(stream, packet):
            return True
        self.track.refused += 1
        return False


class Tracks:
    """All streams of a source but the restored one, on their way into an output.

    Args:
        container: The output, its header not yet written.
        container_format: Its format.
        first: The first packet of streams, by their number, as far as it is known already.
        late: The numbers of streams that begin later than the video, by more than the format holds.
        is_seekable: Whether the muxer can go back and fill in what it learns late.
    """

    def __init__(
        self,
        container: OutputContainer,
        container_format: Format,
        first: Mapping[int, bytes],
        *,
        late: Collection[int] = (),
        is_seekable: bool = True,
    ) -> None:
        self._format = container_format
        self._first = first
        self._late = late
        self._trials = MuxerTrials(container_format, first, is_seekable=is_seekable)
        self._maker = TrackMaker(container, container_format, first, late, self._trials)
        self._streams: dict[int, _CarriedStream] = {}
        # copied videos, as long as it is not known whether the source has them turned
        self._unseen: set[int] = set()
        self._turned: list[Loss] = []

    @property
    def kept(self) -> list[str]:
        """What is in the output, a line each; complete once all is flushed."""
        empty = {index for index, carried in self._streams.items() if carried.track.is_empty}
        return [
            f"{line} (empty)" if index in empty else line
            for index, line in self._maker.kept.items()
        ]

    @property
    def late_covers(self) -> list[bytes]:
        """Cover pictures to put into the finished file."""
        return self._maker.late_covers

    @property
    def timecodes(self) -> list[Stream]:
        """Streams of time codes, which the tags of the video say, and muxers make of those."""
        return self._maker.timecodes

    def add(self, stream: Stream, *, pause_seconds: Fraction = Fraction(0)) -> None:
        """Make a track for a stream of the source.

        Args:
            stream: The source's.
            pause_seconds: The longest that may pass from one of its packets to the next.
        """
        track = self._maker.make(stream)
        if track is None:
            return
        pauses: AudioPauses | None = None
        is_audio = track.target.type == "audio"
        if stream.time_base and is_audio and self._format.longest_step is not None:
            # the muxer counts sound in its samples; it has no times for those of PCM
            is_timeless = self._format.is_constant_rate
            is_counted = is_timeless or "pcm_" in (track.target.name or "")
            step = 0 if is_counted else self._format.longest_step
            pauses = AudioPauses(track.target, step, is_timeless=is_timeless)
        elif stream.time_base and not is_audio and self._format.is_mp4:
            target: Any = track.target
            wished = Fraction(target.time_base or _TEXT_CLOCK)
            target.time_base = self._format.clock(wished, pause_seconds)
        if track.target.type == "video" and not self._format.has_rotation:
            self._unseen.add(stream.index)
        self._streams[stream.index] = _CarriedStream(track, self._format, self._trials, pauses)

    def refuse(self, stream: Stream) -> None:
        """Leave out a stream that the muxer does not take beside the others."""
        if stream.discard != Discard.all:
            self._maker.lose(
                stream, f"{self._format.label} does not take it beside the other streams"
            )

    @property
    def losses(self) -> list[Loss]:
        """What is not in the output, or not as it was; complete once all is flushed."""
        losses = [*self._maker.losses, *self._turned]
        for index, carried in self._streams.items():
            if carried.pauses is not None:
                losses += carried.pauses.losses(index, self._format.label)
        for index, (what, why) in self._maker.silent.items():
            losses.append(Loss(kind="stream", what=what, why=why, where=f"stream {index}"))
        for index, (track, what) in self._maker.sounds.items():
            if track.changed is None:
                continue
            done = "re-encoded" if track.is_converted else "left out"
            why = f"{done} from {float(track.changed):.1f} s on, where its rate or channels change"
            losses.append(Loss(kind="stream", what=what, why=why, where=f"stream {index}"))
        return losses

    def begin(self, time: Fraction) -> Iterable[Packet]:
        """What to write before all else, as an MP4's index waits for a packet of each track.

        Cues that show nothing until the first one, and silence where sound comes much later.

        Args:
            time: When the output begins, on its clock in seconds.
        """
        if not self._format.is_mp4:
            return
        for index, carried in self._streams.items():
            track = carried.track
            if isinstance(track, DolbyTrack) and index in self._late:
                yield from track.silence(time)
            if track.target.type == "subtitle" and index not in self._first:
                packet = empty_cue(track.target)
                packet.pts = packet.dts = round(time / Fraction(packet.time_base))
                yield packet

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packets to write for one of the source; none for a stream that is not kept.

        Args:
            packet: The source's.
            origin: The time of the source that becomes zero, in seconds.
        """
        carried = self._streams.get(packet.stream_index)
        if packet.stream_index in self._unseen and packet.is_keyframe:
            self._see_rotation(packet)
        if carried is not None:
            return carried.packets(packet, origin)
        if packet.stream_index in self._maker.silent:
            why = "nothing was known of it when the output began, as it comes too late"
            self._maker.silent[packet.stream_index][1] = why
        return ()

    def _see_rotation(self, packet: Packet) -> None:
        """Find out whether a copied video is turned, which PyAV 18 tells of its pictures alone."""
        stream: Any = packet.stream
        self._unseen.remove(stream.index)
        context = stream.codec_context
        pictures: list[Any] = []
        with suppress(FFmpegError, ValueError):
            pictures = [*context.decode(packet), *context.decode(None)]
        if any(display_matrix_of(picture, context.name) for picture in pictures):
            what, why = (
                f"rotation of {describe(stream)}",
                f"{self._format.label} has no place for it",
            )
            loss = Loss(kind="rotation", what=what, why=why, where=f"stream {stream.index}")
            self._turned.append(loss)

    def flush(self) -> Iterable[Packet]:
        """The packets to write at the end."""
        for carried in self._streams.values():
            yield from carried.flush()

    @property
    def refused(self) -> int:
        """Packets that could not be written or converted."""
        return sum(carried.track.refused for carried in self._streams.values())

    @property
    def targets(self) -> dict[int, Stream]:
        """The output's streams, by the source's numbers of theirs."""
        return {index: carried.track.target for index, carried in self._streams.items()}
