"""The state of a batch: its rows, the works that wait, and its progress."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mhnet_video.batch.rows import Row, Status, row_of
from mhnet_video.batch.work import Work
from mhnet_video.batch.workers import WorkPosition


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """How far a batch has come."""

    works: int
    """Number of works that have ended, of `total_works`."""
    total_works: int
    seconds: float
    """Seconds of footage that are restored, of `total_seconds`."""
    total_seconds: float
    current: tuple[tuple[str, float, float], ...]
    """For each work in progress: its key, seconds of footage restored, and seconds in all."""


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """The result of a batch."""

    rows: tuple[Row, ...]
    seconds: float
    """Duration of the run, in seconds."""
    jobs: int
    """Files that were restored at the same time, at most."""
    interrupted: bool
    """Whether the run was ended before its end."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.interrupted and all(row.status.is_done for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {
            "seconds": self.seconds,
            "jobs": self.jobs,
            "interrupted": self.interrupted,
            "rows": [row.to_dict() for row in self.rows],
        }


class Tally:
    """Counts what a batch has done, holds the works that wait, and reports the progress.

    Args:
        row_before: Gives the row of a work that needs not be begun; None for one that is to be
            done.
        on_row: Called with each row; None for nobody.
        on_progress: Called with the progress when `tell` is; None for nobody.
    """

    def __init__(
        self,
        row_before: Callable[[Work], Row | None],
        on_row: Callable[[Row], None] | None,
        on_progress: Callable[[BatchProgress], None] | None,
    ) -> None:
        self.waiting: deque[Work] = deque()
        """Works that wait for a worker."""
        self.end_reason = ""
        """Why the run ended before all works were begun; empty while it goes on."""
        self._row_before = row_before
        self._on_row = on_row
        self._on_progress = on_progress
        self._begin = time.monotonic()
        self._positions: dict[str, float] = {}
        self._rows: list[Row] = []
        self._total_works = self._done_works = 0
        self._total_seconds = self._done_seconds = 0.0

    def take(self, works: Iterable[Work], rows: Iterable[Row]) -> None:
        """Add works, some of which may be done already, and rows of files that were left out."""
        for row in rows:
            self._add(row)
        for work in works:
            self._total_works += 1
            self._total_seconds += work.seconds
            before = self._row_before(work)
            if before is None:
                self.waiting.append(work)
            else:
                self.finish(before)

    def drop_waiting(self) -> None:
        """Give up the works that wait."""
        reason = self.end_reason or "it was not begun."
        while self.waiting:
            self.finish(row_of(self.waiting.popleft(), Status.UNFINISHED, reason))

    def hear(self, news: WorkPosition | Row) -> None:
        """Record how far a work is, or how it ended."""
        if isinstance(news, WorkPosition):
            self._positions[news.work.key] = news.seconds
        else:
            self.finish(news)

    def finish(self, row: Row) -> None:
        """Record how a work ended."""
        self._positions.pop(row.output, None)
        self._done_works += 1
        if row.status is Status.DONE:
            self._done_seconds += row.footage_seconds
        else:  # which tells nothing of the speed
            self._total_seconds -= row.footage_seconds
        if row.is_fatal and not self.end_reason:
            self.end_reason = f"it was not begun, as the run ended: {row.reason}"
        self._add(row)

    def _add(self, row: Row) -> None:
        self._rows.append(row)
        if self._on_row is not None:
            self._on_row(row)

    def tell(self, works: Sequence[Work]) -> None:
        """Tell how far all is.

        Args:
            works: What is being done.
        """
        if self._on_progress is None:
            return
        current = [(work.key, self._positions.get(work.key, 0.0), work.seconds) for work in works]
        self._on_progress(
            BatchProgress(
                works=self._done_works,
                total_works=self._total_works,
                seconds=self._done_seconds + sum(position for _, position, _ in current),
                total_seconds=self._total_seconds,
                current=tuple(current),
            )
        )

    def report(self, *, jobs: int, is_interrupted: bool) -> BatchReport:
        """What became of all."""
        return BatchReport(
            rows=tuple(self._rows),
            seconds=time.monotonic() - self._begin,
            jobs=jobs,
            interrupted=is_interrupted,
        )
