"""Which of the pairs that are restored for a segment are its own."""

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from mhnet_video.frame import Frame, Pair
from mhnet_video.media.segments.segment_reader import SegmentReader
from mhnet_video.media.segments.segment_writer import SegmentWriter
from mhnet_video.pipelines.restore import Pairs

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer
    from mhnet_video.restoration.working_scale import WorkingScale

LEAST_DIFFERENT = 24
"""Frames of a lead-in that must differ from the one before: the temporal filter learns from them
alone."""


class ColdStart(Exception):
    """A lead-in has too few frames that differ; a longer one is needed."""


class _RestorerCounts(NamedTuple):
    """What a restorer has counted."""

    passed_through: int
    dry: int
    scales: "Counter[WorkingScale]"


class OwnPairs:
    """Chooses the pairs of a segment among those that are restored for it.

    Args:
        reader: Tells which frames it has fed.
        writer: Is told what the restorer has counted of the segment's frames.
        restorer: Counts, from the beginning of the lead-in on.
        least_different: Frames of a lead-in that must differ from the one before.
        is_last_try: Whether the lead-in is to be taken as it is.
    """

    def __init__(
        self,
        reader: SegmentReader,
        writer: SegmentWriter,
        restorer: "Restorer",
        *,
        least_different: int = LEAST_DIFFERENT,
        is_last_try: bool,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._restorer = restorer
        self._least_different = least_different
        self._is_last_try = is_last_try

    def of(self, pairs: Pairs) -> Pairs:
        """The segment's own pairs; at the last one restoring ends.

        Raises:
            ColdStart: The lead-in repeats one picture, for the most part.
        """
        from mhnet_video.restoration.temporal_window import have_equal_samples

        count = different = 0
        # the restorer has those of another clip until its first pair
        lead_counts = _RestorerCounts(0, 0, Counter())
        before: Frame | None = None
        with closing(pairs):
            for pair in pairs:
                if not isinstance(pair, Pair):
                    continue
                lead = self._reader.num_lead
                # a frame is fed before its pair comes out, so that it is known by then
                if lead is None or count < lead:
                    if before is None or not have_equal_samples(before, pair.source):
                        different += 1
                    before = pair.source
                    lead_counts = self._counted()
                elif self._is_cold(count, different):
                    raise ColdStart
                elif self._is_complete(count):
                    return
                else:
                    yield pair
                    self._tell(lead_counts)
                count += 1
                if self._is_complete(count):
                    return

    def _counted(self) -> _RestorerCounts:
        restorer = self._restorer
        return _RestorerCounts(restorer.passed_through, restorer.dry, Counter(restorer.scales))

    def _tell(self, lead: _RestorerCounts) -> None:
        """Tell the writer what was counted since the end of the lead-in."""
        now = self._counted()
        self._writer.passed_through = now.passed_through - lead.passed_through
        self._writer.dry = now.dry - lead.dry
        # of frames that went in: some of the lead-in's are missing, and as many that follow are in
        scales = now.scales - lead.scales
        self._writer.scales = [
            [each.scale, each.reason.value, frames] for each, frames in scales.items()
        ]

    def _is_cold(self, count: int, different: int) -> bool:
        is_over = count == self._reader.num_lead
        return is_over and different < self._least_different and not self._is_last_try

    def _is_complete(self, count: int) -> bool:
        lead, own = self._reader.num_lead, self._reader.num_own
        return lead is not None and own is not None and count >= lead + own
