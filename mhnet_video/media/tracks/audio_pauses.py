"""Pauses of audio, in a format that has none, or none so long."""

from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from typing import Any

from av.stream import Stream

from mhnet_video.media.fidelity import Loss
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.tracks.silence import MAX_JITTER_SECONDS, silent_sample

_MAX_SILENCE_BYTES = 64 << 20
"""Silence that is added to a stream of PCM; a later pause stays unfilled."""
MAX_ADDED = 200
"""Frames or packets that are added in one pause; a pause that needs more is a damaged number."""


class AudioPauses:
    """Fills the pauses of a stream of audio, in a format that has none, or none so long.

    Args:
        target: The stream of the output, whose header is not yet written.
        longest_step: The most ticks from packet to packet; 0 for a format that counts samples
            only, in which what follows a pause would follow at once.
        is_timeless: Whether the format has no time before zero. FFmpeg would move all streams to
            later times for the priming samples of an encoder.
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
        """How much too early the last packets are, in seconds."""
        return self._early * Fraction(self._target.time_base or 0)

    def losses(self, index: int, label: str) -> Iterator[Loss]:
        """What became of the pauses.

        Args:
            index: The number of the source's stream.
            label: What a person calls the format.
        """
        what, where = f"pauses of sound in stream {index}", f"stream {index}"
        if self.early_seconds:
            early = f"{float(self.early_seconds):.1f} s too early"
            why = f"{label} has none, so that what follows them comes {early}"
            yield Loss(kind="times", what=what, why=why, where=where)
        if self.repeated:
            why = f"{label} knows none so long, and has a piece of sound in the midst of them"
            yield Loss(kind="times", what=what, why=why, where=where)

    def bridged(self, packet: Packet) -> Iterable[Packet]:
        """The packet, which has its time, behind what fills the pause before it.

        Raises:
            ValueError: Its time is damaged, as no pause is so long.
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
            if gap * ticks > MAX_JITTER_SECONDS:
                missing = yield from self._silence(end, gap)
                self._early += missing
                packet.dts -= missing
                packet.pts -= missing
            # behind a packet without a duration no gap can be known
            self._end = packet.dts + packet.duration if packet.duration else None
        yield packet

    def _silence(self, begin: int, ticks: int) -> Generator[Packet, None, int]:
        """Silence of PCM; returns the ticks that remain without it."""
        context: Any = self._target.codec_context
        sample, rate = silent_sample(context.codec.name, context.channels), context.sample_rate
        if sample is None or not rate:
            return ticks
        total = round(ticks * Fraction(self._target.time_base or 0) * rate)
        self._silence_bytes += total * len(sample)
        if self._silence_bytes > _MAX_SILENCE_BYTES:
            return ticks
        for first in range(0, total, rate):
            samples = min(rate, total - first)
            unit = Fraction(1, rate) / Fraction(self._target.time_base or 1)
            time, length = round(first * unit), round(samples * unit)
            yield self._made(sample * samples, begin + time, length)
        return 0

    def _made(self, content: bytes, time: int, duration: int) -> Packet:
        packet = Packet(content)
        packet.time_base = Fraction(self._target.time_base or 1)
        packet.pts = packet.dts = time
        packet.duration = duration
        packet.is_keyframe = True
        packet.stream = self._target
        return packet
