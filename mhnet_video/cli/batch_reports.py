"""What is printed about a batch. Imports nothing heavy."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mhnet_video.cli.reports import DROPS
from mhnet_video.cli.terminal import clock

if TYPE_CHECKING:
    from mhnet_video.batch.rows import Row
    from mhnet_video.pipelines.batch_tally import BatchReport

_MOST_LEFT_OUT = 3
"""Lines about what was left out, where there is nothing else."""


def row_line(row: "Row") -> str:
    """A row on one line."""
    name = row.output or row.sources[0]
    if row.reason:
        # what is said of a source begins with its name
        said = row.reason if row.reason.startswith(tuple(row.sources)) else f"{name}: {row.reason}"
        return f"{row.status}: {said}"
    line = f"{row.status}: {name}"
    if row.frames:
        line += f", {clock(row.footage_seconds)} in {clock(row.seconds)}, {row.frames} frames"
    if row.damaged:
        line += f", {row.damaged} damaged"
    if row.lost:
        line += f", not kept: {'; '.join(row.lost)}"
    if row.has_drops:
        line += f", {DROPS}"
    return line


def batch_table(report: "BatchReport") -> list[str]:
    """A row for each file that was restored or could not be, and the totals."""
    from mhnet_video.media.fidelity import counted

    # works that were not begun may be hundreds, all for the same reason: the totals count them
    known = ("done before", "left out")
    shown = [row for row in report.rows if row.status not in known and row.is_begun]
    lines = _table(shown)
    if not any(row.status != "left out" for row in report.rows):  # or nobody knows why
        lines += [row_line(row) for row in report.rows[:_MOST_LEFT_OUT]]
    counts = Counter(row.status for row in report.rows)
    restored = [row for row in report.rows if row.status == "done"]
    footage = sum(row.footage_seconds for row in restored)
    total = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no files"
    lines.append(f"{total}; {clock(footage)} of footage in {clock(report.seconds)}")
    if drops := sum(row.has_drops for row in report.rows):
        lines.append(f"left: {DROPS} in {counted(drops, 'file')}; add --task raindrop")
    if report.interrupted:
        lines.append("interrupted: run the same command again to go on")
    return lines


def _table(rows: "Sequence[Row]") -> list[str]:
    if not rows:
        return []
    cells = [("file", "status", "footage", "time", "frames", "remarks")]
    for row in rows:
        name = row.output or row.sources[0]
        # the file's name stands before it
        remarks = [row.reason.removeprefix(f"{name} ")] if row.reason else []
        remarks += [f"{row.damaged} damaged"] if row.damaged else []
        remarks += [f"not kept: {'; '.join(row.lost)}"] if row.lost else []
        remarks += [DROPS] if row.has_drops else []
        # a reason is a sentence, whose full stop stands at the end only
        remarks[:-1] = [remark.removesuffix(".") for remark in remarks[:-1]]
        cells.append(
            (
                name,
                str(row.status),
                clock(row.footage_seconds) if row.footage_seconds else "-",
                clock(row.seconds) if row.seconds else "-",
                str(row.frames or "-"),
                ", ".join(remarks),
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        f"{file:<{widths[0]}}  {status:<{widths[1]}}  {footage:>{widths[2]}}  {time:>{widths[3]}}  "
        f"{frames:>{widths[4]}}  {remarks}".rstrip()
        for file, status, footage, time, frames, remarks in cells
    ]
