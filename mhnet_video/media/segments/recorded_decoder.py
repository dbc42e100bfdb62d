"""A decoder that decodes nothing: its frames are those that a segment's record names."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.video.stream import VideoStream

from mhnet_video.frame import Frame
from mhnet_video.media.reading.damage_counter import DamageCounter
from mhnet_video.media.reading.decoder import Decoder
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.segments.segment_store import SegmentRecord

_MOST_WAITING = 256
"""Packets after which a frame comes though none of them has its time."""


@dataclass(frozen=True, slots=True)
class _RecordedPicture:
    pts: int
    duration: int
    is_corrupt: bool = False


class _RecordedDamage(DamageCounter):
    """Damage that the segments' records name, beside what the file itself shows."""

    recorded = 0
    """Packets and frames that the segments lack."""

    @property
    def lost(self) -> int:
        """Packets and frames lost: those that the segments lack, or those missing in the file."""
        return max(super().lost, self.recorded)


class RecordedDecoder(Decoder):
    """Reads all packets of a file, and gives its frames without their samples.

    Each comes as soon as the packet of its time has come. The first one has what the header of an
    output needs.

    Args:
        records: What is known of the source's segments, in order.
        first: The frame that the output begins with.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        *,
        name: str,
        fps: Fraction,
        records: Iterable[SegmentRecord],
        first: Frame,
    ) -> None:
        super().__init__(container, stream, name=name, fps=fps)
        self._first = first
        self._is_first = True
        self._recorded_damage = _RecordedDamage(container, stream)
        self.damage = self._recorded_damage
        self._pictures = self._all(records)
        self._head = next(self._pictures, None)
        # the times of the latest packets, and how many came since the last picture
        self._latest_times: deque[int | None] = deque(maxlen=2 * _MOST_WAITING)
        self._waited = 0

    def _all(self, records: Iterable[SegmentRecord]) -> Iterator[_RecordedPicture]:
        for record in records:
            self._recorded_damage.recorded += record.damaged
            for pts, duration, _ in record.frames:
                yield _RecordedPicture(pts, duration)

    def _on_cpu(self, packet: Packet | None) -> list[Any]:
        """The pictures whose packets have come; those that are left at the end."""
        ready: list[Any] = []
        if packet is not None:
            self._latest_times += (packet.pts, packet.dts)
            self._waited += 1
        while self._head is not None and (packet is None or self._is_due(self._head, packet)):
            ready.append(self._head)
            self._head = next(self._pictures, None)
            self._waited = 0
            if packet is not None and packet.pts is packet.dts is None:
                break  # of a stream without times: one for each packet
        return ready

    def _is_due(self, picture: _RecordedPicture, packet: Packet) -> bool:
        is_timeless = packet.pts is packet.dts is None
        return is_timeless or picture.pts in self._latest_times or self._waited > _MOST_WAITING

    def _frame(self, picture: Any) -> Frame:
        times = {"pts": picture.pts, "duration": picture.duration, "time_base": self.time_base}
        if self._is_first:
            self._is_first = False
            return replace(self._first, **times)
        return replace(self._first, planes=(), tags={}, **times)
