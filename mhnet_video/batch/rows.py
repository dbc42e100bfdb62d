"""What became of each work: rows of a report."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mhnet_video.batch.work import LeftOut, Work
from mhnet_video.locator import hide


class Status(StrEnum):
    """How a work ended."""

    DONE = "done"
    """Its output is there, made by this run."""
    BEFORE = "done before"
    """Its output was there, made of the same sources in the same way."""
    COPIED = "copied"
    """It is dry: its output is the source, bit for bit."""
    SKIPPED = "skipped"
    """It is dry, and gets no output; one of an earlier run stays."""
    FAILED = "failed"
    """It has no output, or keeps the one it had, for the reason that is given."""
    ELSEWHERE = "elsewhere"
    """Another run is at it."""
    UNFINISHED = "unfinished"
    """The run was ended before its end."""
    LEFT_OUT = "left out"
    """It is no video; nobody expects a result."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self not in (Status.FAILED, Status.ELSEWHERE, Status.UNFINISHED)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a work, or of a source that became none."""

    status: Status
    output: str
    """The output's path in the folder of outputs; empty where there is to be none."""
    sources: tuple[str, ...]
    reason: str = ""
    """Why there is no output, or why it is a copy, as a sentence; empty where it was restored."""
    footage_seconds: float = 0.0
    """Footage of the sources, in seconds; 0 where they do not tell."""
    frames: int = 0
    """Frames written."""
    seconds: float = 0.0
    """What the work took, in seconds."""
    damaged: int = 0
    """Packets and frames that could not be decoded."""
    lost: tuple[str, ...] = ()
    """What of the sources is not in the output, a line each."""
    has_drops: bool = False
    """Whether drops are left on the glass before the camera."""
    model: str = ""
    worker: str = ""
    """Host and process that did it."""
    is_fatal: bool = False
    """Whether no other work can go better, as when the disk is full."""

    @property
    def is_begun(self) -> bool:
        """Whether a worker has begun the work before the run ended."""
        return self.status is not Status.UNFINISHED or bool(self.worker)

    def to_dict(self) -> dict[str, Any]:
        """The fields that say something to others, as plain values."""
        values = asdict(self)
        del values["is_fatal"]
        return values | {"status": str(self.status)}


def row_of(work: Work, status: Status, reason: str = "", **more: Any) -> Row:
    """A row about a work.

    Args:
        work: The work.
        status: How it ended.
        reason: Why it has no output.
        more: Further fields of the row.
    """
    return Row(
        status=status,
        output=work.key,
        sources=tuple(map(str, work.sources)),
        reason=hide(reason),
        footage_seconds=round(work.seconds, 3),
        **more,
    )


def rows_of(left_out: Iterable[LeftOut]) -> list[Row]:
    """Rows about what becomes no work."""
    return [
        Row(
            status=Status.FAILED if item.is_error else Status.LEFT_OUT,
            output="",
            sources=(str(item.path),),
            reason=f"{item.path} {item.reason}",
        )
        for item in left_out
    ]
