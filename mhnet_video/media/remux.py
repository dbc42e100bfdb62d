"""The streams beside the restored one: copied where the container takes them, else converted.

Each stream of the source becomes a track here, or a loss.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from typing import Any

from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import Discard, Stream

from mhnet_video.media.containers import Format
from mhnet_video.media.decoder import Packet
from mhnet_video.media.fidelity import Loss
from mhnet_video.media.muxer_trials import MuxerTrials
from mhnet_video.media.track_maker import TrackMaker
from mhnet_video.media.tracks import AudioTrack, DolbyTrack, Pauses, Track, empty_cue

_PRIMING_PACKETS = 2
"""Packets that an AAC decoder needs before the first sound."""
_TEXT_CLOCK = Fraction(1, 1_000_000)
"""FFmpeg's unit of time for subtitles that it converts, in seconds."""


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
        first: Mapping[int, bytes],
        *,
        late: Collection[int] = (),
        is_seekable: bool = True,
    ) -> None:
        self._kind = kind
        self._first = first
        self._late = late
        self._trials = MuxerTrials(kind, first, is_seekable=is_seekable)
        self._maker = TrackMaker(container, kind, first, late, self._trials)
        self._losses: list[Loss] = []
        self._tracks: dict[int, Track] = {}
        self._pauses: dict[int, Pauses] = {}
        # sound that the source hides, until there is some that it does not hide
        self._hidden: dict[int, deque[Packet]] = {}

    @property
    def kept(self) -> list[str]:
        """What is in the output, a line each."""
        return self._maker.kept

    @property
    def late_covers(self) -> list[bytes]:
        """Cover pictures to put into the finished file."""
        return self._maker.late_covers

    def add(self, stream: Stream, *, pause_seconds: Fraction = Fraction(0)) -> None:
        """Make a track for a stream of the source.

        Args:
            stream: The source's.
            pause_seconds: The longest that may pass from one of its packets to the next.
        """
        track = self._maker.make(stream)
        if track is None:
            return
        self._tracks[stream.index] = track
        if not stream.time_base:
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
            is_timeless = self._kind.is_constant_rate
            self._pauses[stream.index] = Pauses(track.target, step, is_timeless=is_timeless)

    def refuse(self, stream: Stream) -> None:
        """Leave out a stream that the muxer does not take beside the others."""
        if stream.discard != Discard.all:
            self._maker.lose(
                stream, f"{self._kind.label} does not take it beside the other streams"
            )

    @property
    def losses(self) -> list[Loss]:
        """What is not in the output, or not as it was."""
        losses = [*self._maker.losses, *self._losses]
        for index, (what, why) in self._maker.silent.items():
            losses.append(Loss(kind="stream", what=what, why=why, where=f"stream {index}"))
        for index, (track, what) in self._maker.sounds.items():
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
            if packet.stream_index in self._maker.silent:
                why = "nothing was known of it when the output began, as it comes too late"
                self._maker.silent[packet.stream_index][1] = why
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

    def _passes(self, track: Track, stream: Stream, packet: Packet) -> bool:
        """Whether the muxer takes a packet, which it is asked of streams that are copied."""
        if isinstance(track, AudioTrack) or track.target.type not in ("audio", "video"):
            return True
        if self._trials.takes_packet(stream, packet):
            return True
        track.refused += 1
        return False
