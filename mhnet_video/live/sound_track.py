"""The sound of a live source on its way into one output."""

import io
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import av
from av.container import OutputContainer

from mhnet_video.live.connection_events import TIME_BASE, SoundFormat
from mhnet_video.live.sound import SoundPacket
from mhnet_video.media.fidelity import Loss, lines_of
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.tracks.remux import Tracks


class SoundTrack:
    """Sound in an output: copied where the format holds its codec, otherwise encoded again.

    Args:
        container: The output, its header not yet written.
        container_format: Its format.
        sound: How the sound is coded.
        origin: The live time that becomes zero, in `TIME_BASE`.
        is_seekable: Whether the muxer can go back and fill in what it learns late.
    """

    def __init__(
        self,
        container: OutputContainer,
        container_format: Format,
        sound: SoundFormat,
        *,
        origin: int,
        is_seekable: bool,
    ) -> None:
        self._sound = sound
        self._origin = origin
        self._template = av.open(io.BytesIO(sound.template), format="nut")
        self._stream = self._template.streams.audio[0]
        first = {self._stream.index: sound.first} if sound.first else {}
        late = [] if sound.first else [self._stream.index]
        self._tracks = Tracks(
            container, container_format, first, late=late, is_seekable=is_seekable
        )
        self._tracks.add(self._stream)
        self.refused = 0
        """Packets that are missing, as their sound is coded in another way than the first was."""

    @property
    def lost(self) -> list[str]:
        """What is not in the output, or not as it was, a line each; complete at the end."""
        losses = [
            replace(loss, what=f"sound ({self._sound.codec})") for loss in self._tracks.losses
        ]
        if self.refused:
            why = f"{self.refused} packets are missing, as they are not coded as the first were"
            losses.append(Loss(kind="stream", what="sound", why=why))
        return lines_of(losses)

    def begin(self) -> Iterable[Packet]:
        """What to write before all else."""
        return self._tracks.begin(Fraction(0))

    def packets(self, sound: SoundPacket) -> Iterable[Packet]:
        """The packets to write for one of the source's; none for one before the first frame."""
        if sound.format != self._sound:
            self.refused += 1
            return ()
        if sound.pts < self._origin:
            return ()
        packet = Packet(sound.data)
        packet.pts = packet.dts = sound.pts
        packet.duration, packet.time_base = sound.duration, TIME_BASE
        packet.is_keyframe, packet.stream = True, self._stream
        return self._tracks.packets(packet, self._origin * TIME_BASE)

    def flush(self) -> Iterable[Packet]:
        """The packets to write at the end."""
        return self._tracks.flush()
