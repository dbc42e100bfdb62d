"""The part of a source that was asked for, at times without jumps."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice

import av
from av.error import FFmpegError
from av.stream import Stream

from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.media.reading.decoder import Decoder, Item
from mhnet_video.media.reading.discontinuities import DiscontinuityCorrector
from mhnet_video.media.reading.source import COVER, Packet, packets_of
from mhnet_video.media.reading.source_timing import NO_TIMESTAMPS

_MAX_LEAD_BYTES = 256 << 20
"""What other streams may have before the first frame; a file with more has no frame."""
_LATEST_START_SECONDS = 10
"""Recordings that begin later are shifted to zero: hours of nothing are of no use to a player."""
_TIMED = "audio"
"""The type of streams whose times are in order, which those of subtitles need not be."""
_TRAIL_SECONDS = 2
"""How far the other streams are followed after the last frame wanted."""
_LONGEST_TRAIL_SECONDS = 10
"""The same where sound before the end may still come, as in a file of bad interleaving."""
_MAX_TRAIL_BYTES = 64 << 20
"""What other streams may have behind the end before the last frame wanted: an hour of sound."""
_SEARCH_MARGINS = (0, 2, 10, 60)
"""How much earlier each search begins where the one before ended behind its frame, in seconds."""
_SOUND_SECONDS = Fraction(1, 10)
"""Sound that begins so much behind the start is there: longer than its packets are."""
_ENDED_SECONDS = 2
"""Sound that ends so much before the start is not missing in the part."""
_MOST_LOOKED_AT = 1000
"""Packets among which one of a stream is looked for."""


class Segment:
    """Frames and packets from the start to the end that were asked for.

    Args:
        decoder: Decodes the file.
        start: Where to begin, in seconds from the first frame; 0 for the beginning.
        duration: How much to read, in seconds; None for all there is.
        leaps: Whether the file's clock may be set to a later time, too.
        seeks: Whether a time tells where in the file it is: the clock does not jump.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        start: Fraction,
        duration: Fraction | None,
        leaps: bool,
        seeks: bool,
    ) -> None:
        self.origin: Fraction | None = None
        """Seconds to subtract from every time, where the output is to begin at zero; None until
        the first frame."""
        self.end: Fraction | None = None
        """Where the part ends, on the source's clock; None for the file's end, and until the
        first frame."""
        self.is_complete = False
        """Whether a frame came that lies behind the end."""
        self._start = start
        self._duration = duration
        self._decoder = decoder
        self._leaps, self._seeks = leaps, seeks
        self._discontinuities: DiscontinuityCorrector[Item] = DiscontinuityCorrector(leaps=leaps)

    @property
    def jumps(self) -> int:
        """How often the recording's clock jumped so far; what follows a jump follows at once."""
        return self._discontinuities.jumps

    def items(self) -> Iterator[Item]:
        """The items in the order of the file; none where there is no frame.

        Raises:
            ReadError: The part has no frame, but a pause.
        """
        items = self._from_start() if self._start else self._straightened()
        end: Fraction | None = None
        waiting: list[Packet] = []
        waiting_bytes = trail_bytes = 0
        streams = self._decoder.container.streams
        unfinished = {stream.index for stream in streams if stream.type == _TIMED}
        for item in items:
            if self.origin is None:
                if not isinstance(item, Frame):
                    waiting.append(item)
                    waiting_bytes += item.size
                    if waiting_bytes > _MAX_LEAD_BYTES:
                        break
                    continue
                self.origin = self._origin_of(item)
                if self._duration is not None:
                    begin = self._first_time() if self._start else item.pts * item.time_base
                    self.end = end = begin + self._start + self._duration
                    if item.pts * item.time_base >= end:
                        raise ReadError(
                            f"{self._decoder.name} has no picture that begins in the part that "
                            "was asked for, but a pause; choose a longer part, or another one."
                        )
                yield from (p for p in waiting if self._is_in(p, self.origin, end))
                waiting.clear()
            time = _time_of(item)
            if isinstance(item, Frame):
                if end is None or time is None or time < end:
                    yield item
                else:
                    self.is_complete = True
            elif self._is_in(item, self.origin, end):
                yield item
            if end is None or time is None or time < end:
                continue
            if not isinstance(item, Frame):
                unfinished.discard(item.stream_index)
                trail_bytes += item.size
            trail = _LONGEST_TRAIL_SECONDS if unfinished else _TRAIL_SECONDS
            # sound comes before its frames where these are seconds long
            if (self.is_complete and time > end + trail) or trail_bytes > _MAX_TRAIL_BYTES:
                return

    def _straightened(self) -> Iterator[Item]:
        """The items, without the jumps of a clock that jumps."""
        for item in self._decoder.items():
            time = _time_of(item)
            if not isinstance(item, Frame) and item.dts is not None:
                # the times at which packets are shown go back and forth where B-frames are
                time = item.dts * Fraction(item.time_base)
            if time is None:
                yield item
                continue
            if isinstance(item, Frame) or self._leaps:
                sets_clock = True
            else:
                # what an edit list hides has times of its own
                sets_clock = item.stream.type == _TIMED and not item.is_discard
            if not isinstance(item, Frame) and not sets_clock:
                yield _moved(item, self._discontinuities.follow(time))
                continue
            stream = self._decoder.stream.index if isinstance(item, Frame) else item.stream_index
            duration = Fraction(item.duration or 0) * Fraction(item.time_base)
            if isinstance(item, Frame):
                duration = duration or 1 / self._decoder.fps
            for placed, shift in self._discontinuities.push(stream, time, duration, item):
                yield _moved(placed, shift)
        for placed, shift in self._discontinuities.flush():
            yield _moved(placed, shift)

    def _origin_of(self, first: Frame) -> Fraction:
        """The time that becomes zero in the output."""
        time = first.pts * first.time_base
        if self._start:
            return time
        begin = self._decoder.container.start_time
        whole = time if begin is None else min(time, Fraction(begin, av.time_base))
        if time < 0:
            # where a clock has turned over, as a transport stream's does every 26 hours
            return time
        return whole if whole > _LATEST_START_SECONDS else Fraction(0)

    def _is_in(self, packet: Packet, origin: Fraction, end: Fraction | None) -> bool:
        """Whether a packet of another stream belongs to the part that was asked for."""
        if packet.stream.disposition & COVER:
            return True
        time = _time_of(packet)
        if time is None or (not self._start and end is None):
            return True
        if end is not None and time >= end:
            return False
        is_cue = packet.stream.type == "subtitle" and packet.pts is not None and packet.duration
        if end is not None and is_cue:
            left = round((end - time) / Fraction(packet.time_base))
            packet.duration = min(packet.duration or 0, max(1, left))
        if not self._start or time >= origin:
            return True
        late = round((origin - time) / Fraction(packet.time_base))
        if not is_cue or (packet.duration or 0) <= late:
            return False
        # a subtitle that is on screen when the part begins is shown for the rest of its time
        packet.pts = (packet.pts or 0) + late
        packet.dts = packet.pts
        packet.duration = (packet.duration or 0) - late
        return True

    def _from_start(self) -> Iterator[Item]:
        """Items from the start on: no frame before it, other packets from somewhat earlier."""
        tolerance = self._decoder.time_base / 2
        for margin in _SEARCH_MARGINS if self._seeks else ():
            target = self._first_time() + self._start
            if not self._seek(target - margin):
                break
            items = self._straightened()
            lead = _up_to_first_frame(items)
            if self._decoder.is_stalled:
                return
            time = _time_of(lead[-1]) if lead and isinstance(lead[-1], Frame) else None
            if time is not None and time <= target + tolerance:
                if sounds := self._unread_sounds(lead, target):
                    self._seek_with(sounds, target, target - margin)
                    lead, items = [], self._straightened()
                yield from self._after(target, chain(lead, items))
                return
        self._seek(None)
        yield from self._after(self._first_time() + self._start, self._straightened())

    def _after(self, target: Fraction, items: Iterable[Item]) -> Iterator[Item]:
        # half a tick: times in a file are rounded
        tolerance = self._decoder.time_base / 2
        for item in items:
            time = _time_of(item)
            if not isinstance(item, Frame) or time is None or time >= target - tolerance:
                yield item

    def _first_time(self) -> Fraction:
        return (self._decoder.stream.start_time or 0) * self._decoder.time_base

    def _unread_sounds(self, lead: Iterable[Item], target: Fraction) -> list[Stream]:
        """Tracks of sound that may stand before the pictures of the part; none of an address."""
        if not os.path.isfile(self._decoder.container.name):
            return []  # to look for sound may be to read all that is before it
        packets = [item for item in lead if not isinstance(item, Frame)]
        read = {p.stream_index for p in packets if (_time_of(p) or 0) <= target + _SOUND_SECONDS}
        sounds = self._decoder.container.streams.audio
        return [stream for stream in sounds if stream.index not in read]

    def _seek_with(self, sounds: Iterable[Stream], target: Fraction, time: Fraction) -> None:
        """Go to the key frame before a time, or to sound of the part that stands before it.

        It does where whoever wrote the file held pictures back, as encoders do.

        Args:
            sounds: Tracks that are looked for.
            target: Where the part begins.
            time: The time.
        """
        self._seek(time)
        picture = self._next_of(self._decoder.stream)
        sound = None
        if picture is not None and picture.pos is not None:
            sound = self._first_before(picture.pos, sounds, target)
        self._seek(time if sound is None else target, sound)

    def _first_before(
        self, place: int, sounds: Iterable[Stream], target: Fraction
    ) -> Stream | None:
        """The track whose sound at a time stands first in the file; None for none before a place.

        Args:
            place: A place in the file, in bytes.
            sounds: Tracks that are looked at.
            target: The time, in seconds.
        """
        first = None
        for sound in sounds:
            packet = self._next_of(sound) if self._seek(target, sound) else None
            begins = None if packet is None else _time_of(packet)
            if packet is None or packet.pos is None or begins is None:
                continue
            if packet.pos < place and begins > target - _ENDED_SECONDS:
                first, place = sound, packet.pos
        return first

    def _next_of(self, stream: Stream) -> Packet | None:
        """The next packet of a stream; None where none comes soon."""
        with suppress(FFmpegError, OSError):
            for packet in islice(packets_of(self._decoder.container), _MOST_LOOKED_AT):
                if packet.stream_index == stream.index and packet.size:
                    return packet
        return None

    def _seek(self, time: Fraction | None, stream: Stream | None = None) -> bool:
        """Go to the key frame before a time, or to the beginning; False where that fails.

        Where a stream has no times it stays where it is.

        Args:
            time: The time, in seconds; None for the beginning.
            stream: Whose time it is; None for the pictures'.
        """
        if self._decoder.container.format.flags & NO_TIMESTAMPS:
            return False  # FFmpeg would be left at its end
        self._decoder.has_sought = True
        self._discontinuities = DiscontinuityCorrector(leaps=self._leaps)
        stream = stream or self._decoder.stream
        ticks = Fraction(stream.time_base or self._decoder.time_base)
        # somewhat earlier than the first frame is shown: FFmpeg looks for when it is decoded
        first = self._first_time() - 1
        for target in [first, self._first_time()] if time is None else [time]:
            try:
                self._decoder.container.seek(int(target / ticks), stream=stream)
            except (FFmpegError, OSError, OverflowError):
                continue
            return True
        return False


def _time_of(item: Item) -> Fraction | None:
    """When an item is shown, in seconds."""
    if isinstance(item, Frame):
        return item.pts * item.time_base
    ticks = item.pts if item.pts is not None else item.dts
    return None if ticks is None else ticks * Fraction(item.time_base)


def _moved(item: Item, shift: Fraction) -> Item:
    """The item, so many seconds earlier."""
    if not shift:
        return item
    ticks = round(shift / Fraction(item.time_base))
    if isinstance(item, Frame):
        return replace(item, pts=item.pts - ticks)
    if item.pts is not None:
        item.pts -= ticks
    if item.dts is not None:
        item.dts -= ticks
    return item


def _up_to_first_frame(items: Iterator[Item]) -> list[Item]:
    lead = []
    for item in items:
        lead.append(item)
        if isinstance(item, Frame):
            break
    return lead
