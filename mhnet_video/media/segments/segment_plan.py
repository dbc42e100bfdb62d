"""How one or several sources are cut into segments that are restored one by one.

The plan comes from demuxing alone, so that it is the same each time. A segment is a range of times
of one source that begins with a key frame. What is restored before it, its lead-in, may begin in an
earlier source.
"""

import os
from array import array
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from av.error import ExitError, FFmpegError

from mhnet_video.errors import ConfigError, ReadError
from mhnet_video.locator import shown
from mhnet_video.media.reading.discontinuities import DAY_SECONDS, FORWARD_SECONDS
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import COVER, Packet, packets_of

LEAD_INS = (64, 512, 4096)
"""Frames that are restored before a segment, and thrown away. The temporal filter's memory fades to
a thousandth in 52; where pictures repeat, the filter sees fewer, and a longer lead-in is taken."""
_MAX_READ_ERRORS = 64
"""A file that fails this often in a row without a packet has no more to give."""
_UNORDERED = ("avi",)
"""Formats that do not tell when pictures are shown, so that none can be found by its time."""
# how far pictures are out of order at most, how far times are that are only damaged, and what is no
# pause any more but a clock set anew
_REORDERING_SECONDS = 5
_BACKWARD_SECONDS = Fraction(1, 10)
_JUMP_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class SourceIdentity:
    """What tells whether a file is still the same."""

    name: str
    bytes: int
    modified: int
    """When it was changed last, in nanoseconds since 1970."""

    @classmethod
    def of(cls, source: Path) -> "SourceIdentity":
        """That of a file.

        Raises:
            ReadError: There is no such file any more.
        """
        try:
            stat = os.stat(source)
        except OSError as error:
            raise ReadError(
                f"{shown(source)} cannot be read any more; put its disk or card back."
            ) from error
        return cls(name=source.name, bytes=stat.st_size, modified=stat.st_mtime_ns)


@dataclass(frozen=True, kw_only=True)
class PlannedSource:
    """What is known of a source before anything of it is decoded."""

    shift: Fraction
    """Seconds to add to its times, so that it follows the source before it."""
    pictures: int
    """Frames it has, if none is damaged."""


@dataclass(frozen=True, kw_only=True)
class LeadIn:
    """Where the lead-in of a segment begins."""

    source: int
    """Index of the source."""
    begin: int | None
    """Time of its first frame, in ticks of the source; None for the source's beginning."""
    skip: int = 0
    """Frames to pass over from there, where a source cannot be searched."""


@dataclass(frozen=True, kw_only=True)
class PlannedSegment:
    """A range of times of one source."""

    source: int
    """Index of the source."""
    begin: int | None
    """When its first frame is shown, in ticks of the source; None for the source's beginning."""
    end: int | None
    """When the first frame behind it is shown; None for the source's end."""
    leads: tuple[LeadIn, ...]
    """Where its lead-in may begin, the shortest first; none for the first segment of all."""


@dataclass(frozen=True, kw_only=True)
class SegmentPlan:
    """The sources and the segments of a work, in order."""

    sources: tuple[PlannedSource, ...]
    segments: tuple[PlannedSegment, ...]

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        plain = asdict(self)
        for source in plain["sources"]:
            source["shift"] = str(source["shift"])
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "SegmentPlan":
        """A plan from what `to_dict` has made of it.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        sources = [
            PlannedSource(shift=Fraction(each["shift"]), pictures=each["pictures"])
            for each in plain["sources"]
        ]
        segments = [
            PlannedSegment(**each | {"leads": tuple(LeadIn(**lead) for lead in each["leads"])})
            for each in plain["segments"]
        ]
        return cls(sources=tuple(sources), segments=tuple(segments))


class _Times:
    """When the pictures of a source are shown, by its packets, on a clock without jumps.

    Args:
        reader: The source, at its beginning.
        seconds: Least length of a segment.
    """

    def __init__(self, reader: VideoReader, seconds: float) -> None:
        self.time_base = reader.time_base
        self.rises = True
        """Whether its own clock never jumps."""
        self.end = 0
        """When the last picture ends, in ticks."""
        self._has_all = reader.container.format.name not in _UNORDERED
        keys = array("q")
        pictures = array("q")
        for pts, is_key in self._read(reader):
            pictures.append(pts)
            if is_key:
                keys.append(pts)
        if not pictures:
            raise ReadError(
                f"no picture of {reader.name} could be found; the file is damaged, "
                "copy it again from where it was recorded."
            )
        self.pictures = np.unique(pictures)
        """When each is shown, in ticks, in order."""
        self.cuts: list[int] = []
        """When segments after the first one begin, in ticks."""
        self.can_be_cut = self.rises and self._has_all
        last = int(self.pictures[0])
        for pts in np.unique(keys) if self.can_be_cut else ():
            if (int(pts) - last) * self.time_base >= seconds:
                last = int(pts)
                self.cuts.append(last)

    def _read(self, reader: VideoReader) -> Iterator[tuple[int, bool]]:
        """The time of each picture and whether it is a key frame's."""
        step = max(1, round(1 / (reader.fps * self.time_base)))
        farthest = FORWARD_SECONDS if reader.leaps else DAY_SECONDS
        latest: int | None = None
        shift = 0
        decoded = -(1 << 62)
        for packet in _packets(reader):
            self._has_all = self._has_all and packet.pts is not None
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None:
                pts = 0 if latest is None else latest + step
            else:
                pts += shift
            ahead = 0 if latest is None else (pts - latest) * self.time_base
            back = Fraction(0)
            if packet.dts is not None:
                back = max(back, (decoded - packet.dts) * self.time_base)
                decoded = packet.dts
            is_jump = back > _BACKWARD_SECONDS or ahead < -_REORDERING_SECONDS
            self.rises = self.rises and not is_jump and ahead <= _JUMP_SECONDS
            self._has_all = self._has_all and not back
            if is_jump or ahead > farthest:
                # as a reader goes on: right where the frames before end
                shift += self.end - pts
                pts = self.end
            latest = pts if latest is None else max(latest, pts)
            self.end = max(self.end, pts + (packet.duration or step))
            yield pts, packet.is_keyframe


def _packets(reader: VideoReader) -> Iterator[Packet]:
    """The packets of the video, across what cannot be read."""
    failures = 0
    while failures < _MAX_READ_ERRORS:
        try:
            for packet in packets_of(reader.container, reader.stream):
                failures = 0
                if packet.size and not packet.is_discard:
                    yield packet
            return
        except (ExitError, TimeoutError):
            return
        except (FFmpegError, OSError):
            failures += 1


def plan_segments(
    sources: Sequence[Path],
    seconds: float,
    *,
    lead_ins: Sequence[int] = LEAD_INS,
    multiple: int = 1,
) -> SegmentPlan:
    """Cut sources into segments.

    Args:
        sources: Files, of which each is to follow the one before at once.
        seconds: Least length of a segment, in seconds of footage. A source has one at least; one
            without times, and one whose clock jumps, has one.
        lead_ins: Frames of lead-ins at least, the shortest first.
        multiple: Lead-ins begin where the number of frames before them is a multiple of it.

    Raises:
        ReadError: A source cannot be opened, or has no video.
        ConfigError: One of several is no continuation of the first one.
    """
    known: list[_Times] = []
    planned: list[PlannedSource] = []
    segments: list[PlannedSegment] = []
    first_kind: dict[str, Hashable] = {}
    seam = Fraction(0)
    for index, source in enumerate(sources):
        with VideoReader(source) as reader:
            kind = kind_of(reader)
            first_kind = first_kind or kind
            _check_alike(sources[0], first_kind, source, kind)
            times = _Times(reader, seconds)
        shift = seam - int(times.pictures[0]) * times.time_base if index else Fraction(0)
        planned.append(PlannedSource(shift=shift, pictures=len(times.pictures)))
        known.append(times)
        seam = times.end * times.time_base + shift
        for begin, end in pairwise([None, *times.cuts, None]):
            leads = _leads(known, begin, lead_ins, multiple)
            segments.append(PlannedSegment(source=index, begin=begin, end=end, leads=leads))
    return SegmentPlan(sources=tuple(planned), segments=tuple(segments))


def _leads(
    known: list[_Times], begin: int | None, lead_ins: Sequence[int], multiple: int
) -> tuple[LeadIn, ...]:
    """Where the lead-in of a segment of the last source may begin."""
    if begin is None and len(known) == 1:
        return ()  # nothing comes before the first segment of all
    firsts = [0, *accumulate(len(times.pictures) for times in known)]
    before = 0 if begin is None else int(np.searchsorted(known[-1].pictures, begin))
    leads: list[LeadIn] = []
    for wanted in lead_ins:
        number = max(0, firsts[len(known) - 1] + before - wanted)
        number -= number % multiple
        index = bisect_right(firsts, number, hi=len(known)) - 1
        times, skip = known[index], number - firsts[index]
        if times.can_be_cut and skip:
            leads.append(LeadIn(source=index, begin=int(times.pictures[skip])))
        else:
            leads.append(LeadIn(source=index, begin=None, skip=skip))
        if not number:
            break
    return tuple(leads)


def kind_of(reader: VideoReader) -> dict[str, Hashable]:
    """What files must have in common to be joined, by what a person calls it.

    Args:
        reader: A file, of which the headers are enough.
    """
    streams: list[tuple[Hashable, ...]] = []
    for stream in reader.container.streams:
        context: Any = stream.codec_context
        if stream.type == "audio" and context is not None:
            sound = context.sample_rate, context.layout.name, context.extradata
            streams.append(("audio", context.name, sound))
        elif not stream.disposition & COVER and stream.type != "video":
            streams.append((stream.type, getattr(stream, "name", None), None))
    return {
        "size": "x".join(map(str, reader.size)),
        "pixel format": reader.stream.pix_fmt,
        "kinds of streams": tuple(stream.type for stream in reader.container.streams),
        "sound or other streams": tuple(streams),
    }


def _check_alike(
    first: Path, wanted: dict[str, Hashable], source: Path, found: dict[str, Hashable]
) -> None:
    """Refuse a file that is no continuation of the first one.

    Raises:
        ConfigError: It is none.
    """
    for what, value in wanted.items():
        if found[what] != value:
            raise ConfigError(
                f"{shown(source)} cannot be joined to {shown(first)}, as its {what} "
                f"{'are others' if what.endswith('s') else 'is another'}; "
                "restore it by itself."
            )
