"""The frames that are restored for a segment: its lead-in, its own, and some of what follows."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import lcm
from pathlib import Path

from mhnet_video.closing import Closing
from mhnet_video.frame import Frame
from mhnet_video.media.prefetch import Prefetcher
from mhnet_video.media.reading.decoder import Item
from mhnet_video.media.reading.reader import VideoReader, decoded_ahead
from mhnet_video.media.segments.segment_plan import LeadIn, PlannedSegment, SegmentPlan


def later(frame: Frame, shift: Fraction) -> Frame:
    """The frame so many seconds later, in ticks in which that is exact."""
    if not shift:
        return frame
    unit = Fraction(1, lcm(frame.time_base.denominator, shift.denominator))
    ticks = frame.time_base / unit
    return replace(
        frame,
        pts=int(frame.pts * ticks + shift / unit),
        time_base=unit,
        duration=int(frame.duration * ticks),
    )


class SegmentReader(Closing):
    """Decodes what a segment needs, at times on which the sources follow one another.

    After the lead-in and the segment it goes on through the sources, as long as it is asked: what
    comes behind a frame tells how that frame is restored.

    Args:
        sources: The files.
        plan: The plan of all segments.
        segment: Which one of them.
        lead: Where to begin; None for the beginning of the first source.
        gpu: The number of the GPU that decodes; None for the CPU.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        plan: SegmentPlan,
        segment: PlannedSegment,
        lead: LeadIn | None,
        *,
        gpu: int | None = None,
    ) -> None:
        self.num_lead: int | None = None
        """Frames of the lead-in; None until it is over."""
        self.num_own: int | None = None
        """Frames of the segment; None until a frame behind it has come, or the end."""
        self.own: list[tuple[int, int]] = []
        """Time and duration of each of them that came so far, in ticks of its source."""
        self.begin_seconds = 0.0
        """When the first of them is shown, on the clock on which the sources follow."""
        self.damaged = 0
        """Packets and frames of the segment that could not be decoded."""
        self.size = (0, 0)
        """Width and height of the source, in pixels."""
        self._sources = sources
        self._plan = plan
        self._segment = segment
        self._lead = lead or LeadIn(source=segment.source, begin=None)
        self._gpu = gpu
        self._damaged_before = 0
        self._prefetcher: Prefetcher[Item] | None = None

    @property
    def num_frames(self) -> int | None:
        """Frames that the segment has, for all that is known."""
        return self.num_own

    def ahead(self) -> Prefetcher[Item]:
        """The frames, decoded ahead."""
        if self._prefetcher is None:
            self._prefetcher = decoded_ahead(self._frames())
        return self._prefetcher

    def close(self) -> None:
        """End the thread."""
        if self._prefetcher is not None:
            self._prefetcher.close(timeout_seconds=5)

    def _frames(self) -> Iterator[Item]:
        skip, count = self._lead.skip, 0
        for index in range(self._lead.source, len(self._sources)):
            begin = self._lead.begin if index == self._lead.source else None
            with self._open(index, begin) as reader:
                shift = self._plan.sources[index].shift
                for frame in reader.items():
                    if not isinstance(frame, Frame):
                        continue
                    if skip:
                        skip -= 1
                        continue
                    self._count(index, frame, reader, count)
                    count += 1
                    yield later(frame, shift)
                if index == self._segment.source:
                    self._end(reader, count)

    def _open(self, index: int, begin: int | None) -> VideoReader:
        """A source from one of its frames on."""
        path = self._sources[index]
        reader = VideoReader(path)
        if begin is not None:
            start = (begin - (reader.stream.start_time or 0)) * reader.time_base
            reader.close()
            reader = VideoReader(path, start=float(start)) if start > 0 else VideoReader(path)
        if self._gpu is not None:
            reader.decode_on_gpu(self._gpu)
        self.size = reader.size
        return reader

    def _count(self, index: int, frame: Frame, reader: VideoReader, count: int) -> None:
        """Note whether a frame is before the segment, in it, or behind it."""
        segment = self._segment
        # as the file has it: what jumps is straightened anew where all is joined
        pts: int = frame.tags["source_pts"]
        if self.num_own is not None or index < segment.source:
            return
        if segment.begin is not None and pts < segment.begin:
            return
        if self.num_lead is None:
            self.num_lead = count
            time = frame.pts * frame.time_base + self._plan.sources[index].shift
            self.begin_seconds = float(time)
            if segment.begin is not None:
                self._damaged_before = reader.damaged
        if segment.end is not None and pts >= segment.end:
            self._end(reader, count)
        else:
            self.own.append((pts, frame.duration))

    def _end(self, reader: VideoReader, count: int) -> None:
        """Note that no more frames belong to the segment."""
        if self.num_own is not None:
            return
        if self.num_lead is None:
            self.num_lead = count
        self.damaged = reader.damaged - self._damaged_before
        self.num_own = len(self.own)
