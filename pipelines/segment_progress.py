"""How far the segments of one output have come together."""

import time
from collections.abc import Callable
from dataclasses import replace

from mhnet_video.media.segments.segment_encoding import SegmentEncoding
from mhnet_video.media.segments.segment_plan import SegmentPlan
from mhnet_video.media.segments.segment_reader import SegmentReader
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.pipelines.restore import Progress


class SegmentProgress:
    """Tells how far all segments have come together.

    Args:
        plan: The plan.
        store: The segments.
        encoding: Has the first frame of all.
        on_progress: Who is told; None for nobody.
        begin: When the run began, by the monotonic clock.
    """

    def __init__(
        self,
        plan: SegmentPlan,
        store: SegmentStore,
        encoding: SegmentEncoding,
        on_progress: Callable[[Progress], None] | None,
        begin: float,
    ) -> None:
        first = encoding.first
        self._first_seconds = float(first.pts * first.time_base)
        self._store = store
        self._on_progress = on_progress
        self._begin = begin
        self._total = sum(source.pictures for source in plan.sources)
        self._frames: dict[int, int] = {}
        self._before = 0
        self.done()

    def done(self) -> None:
        """Other segments are complete."""
        if self._on_progress is None:
            return
        for index in range(self._store.count):
            if index not in self._frames and self._store.has(index):
                self._frames[index] = len(self._store.record(index).frames)
        self._before = sum(self._frames.values())

    def tell(self, reader: SegmentReader, progress: Progress) -> None:
        """Pass on the progress of one segment."""
        if self._on_progress is not None:
            before = reader.begin_seconds - self._first_seconds
            self._on_progress(
                replace(
                    progress,
                    frames=self._before + progress.frames,
                    total=self._total,
                    seconds=time.monotonic() - self._begin,
                    position_seconds=before + progress.position_seconds,
                )
            )
