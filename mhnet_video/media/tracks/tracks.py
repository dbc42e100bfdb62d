"""A stream beside the restored one, copied packet by packet, and subtitles that are converted."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from typing import Any

from av.stream import Stream
from av.subtitles.stream import SubtitleStream

from mhnet_video.media.reading.source import Packet

_NON_STRICT = 0x20000
"""FFmpeg's AVFMT_TS_NONSTRICT: two packets of a stream may have one decoding timestamp."""
_MAX_UNDATED = 32
"""Packets without a decoding timestamp that wait for one that has it."""


def empty_cue(target: Stream) -> Packet:
    """A cue of an MP4 that shows nothing, without a time, which counts in the track's ticks."""
    packet = Packet(b"\0\0")
    packet.time_base = Fraction(target.time_base or Fraction(1, 1000))
    packet.stream = target
    return packet


class Track:
    """A stream that is copied, packet by packet.

    Args:
        target: The stream of the output.
    """

    def __init__(self, target: Stream) -> None:
        self.target = target
        self.refused = 0
        """Packets that could not be written or converted."""
        self._last: int | None = None
        self._end: int | None = None
        self._undated: list[tuple[Packet, Fraction]] = []
        self._step = 0 if target.container.format.flags & _NON_STRICT else 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it was to be written so far."""
        return self._last is None

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The packets to write for one of the source.

        Args:
            packet: The source's.
            origin: The time of the source that becomes zero, in seconds.

        Raises:
            FFmpegError: It is damaged.
        """
        is_undated = packet.dts is None and packet.pts is not None and self._last is None
        if is_undated and self.target.type == "video" and len(self._undated) < _MAX_UNDATED:
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
        """The packets that came without a decoding timestamp (DTS), with one.

        Matroska stores presentation timestamps only. FFmpeg computes the others from where it has
        seen as many pictures as may be out of order.

        Args:
            following: The first packet that has one; None at the end.
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
        """Give a packet its times in the output; the DTS rises from packet to packet."""
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


class SubtitleTrack(Track):
    """Text subtitles that are converted to another codec.

    Args:
        target: The stream of the output, its encoder open.
        source: The source's, its decoder open.
    """

    def __init__(self, target: SubtitleStream, source: SubtitleStream) -> None:
        super().__init__(target)
        self._source = source
        self._encoder: Any = target.codec_context

    def packets(self, packet: Packet, origin: Fraction) -> Iterable[Packet]:
        """The subtitle in its new codec."""
        decoder: Any = self._source.codec_context
        subtitle = decoder.decode2(packet)
        if subtitle is None:
            return []
        encoded = self._encoder.encode_subtitle(subtitle)
        encoded.pts = encoded.dts = packet.pts if packet.pts is not None else packet.dts
        encoded.duration = packet.duration
        encoded.time_base = packet.time_base
        return [*self._pause(encoded, origin), self._place(encoded, origin)]

    def _pause(self, cue: Packet, origin: Fraction) -> list[Packet]:
        """What an MP4 needs between two cues: there each one is shown until the next begins."""
        if self._end is None or cue.pts is None or self._encoder.name != "mov_text":
            return []
        empty = empty_cue(self.target)
        begin = round((cue.pts * Fraction(cue.time_base) - origin) / Fraction(empty.time_base))
        if begin <= self._end:
            return []
        empty.pts, empty.duration = self._end, begin - self._end
        return [self._place(empty, Fraction(0))]
