"""What is printed about a batch. Imports nothing heavy."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mhnet_video.cli.reports import DROPS
from mhnet_video.cli.terminal import clock, one_line

if TYPE_CHECKING:
    from mhnet_video.batch.rows import Row
    from mhnet_video.pipelines.batch_tally import BatchReport

_MOST_LEFT_OUT = 3
"""Lines about what was left out, where there is nothing else."""
_INDENT = 4
"""Spaces before remarks that stand below their row."""


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


def batch_table(report: "BatchReport", columns: int | None = None) -> list[str]:
    """A row for each file that was restored or could not be, and the totals.

    Args:
        report: What became of the batch.
        columns: Of the terminal. Names and remarks that are too long stand on lines of their own;
            None for none that is.
    """
    from mhnet_video.media.fidelity import counted

    # works that were not begun may be hundreds, all for the same reason: the totals count them
    known = ("done before", "left out")
    shown = [row for row in report.rows if row.status not in known and row.is_begun]
    lines = _table(shown, columns)
    if not any(row.status != "left out" for row in report.rows):  # or nobody knows why
        lines += [row_line(row) for row in report.rows[:_MOST_LEFT_OUT]]
    counts = Counter(row.status for row in report.rows)
    restored = [row for row in report.rows if row.status == "done"]
    footage = sum(row.footage_seconds for row in restored)
    total = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no files"
    lines.append(f"{total}; {clock(footage)} of footage in {clock(report.seconds)}")
    if drops := sum(row.has_drops for row in report.rows):
        lines.append(f"left: {DROPS} in {counted(drops, 'file')}; add --task raindrop")
    fatal = next((row for row in report.rows if row.is_fatal), None)
    if report.interrupted:
        lines.append("interrupted: run the same command again to go on")
    elif fatal is not None and any(row.status == "unfinished" for row in report.rows):
        lines.append(f"ended early: {fatal.reason} Run the same command again to go on.")
    return lines


def _table(rows: "Sequence[Row]", columns: int | None) -> list[str]:
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
                one_line(name),
                str(row.status),
                clock(row.footage_seconds) if row.footage_seconds else "-",
                clock(row.seconds) if row.seconds else "-",
                str(row.frames or "-"),
                one_line(", ".join(remarks)),
            )
        )
    first, *widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if columns is not None:
        others = sum(widths[:-1]) + 2 * len(widths) + len(cells[0][-1])
        first = min(first, max(len(cells[0][0]), columns - others))
    lines = []
    for file, status, footage, time, frames, told in cells:
        name = file
        if len(file) > first:
            lines.append(file)
            name = ""
        line = (
            f"{name:<{first}}  {status:<{widths[0]}}  {footage:>{widths[1]}}  "
            f"{time:>{widths[2]}}  {frames:>{widths[3]}}"
        )
        if columns is not None and told and len(line) + 2 + len(told) > columns:
            indent = " " * _INDENT
            said = textwrap.wrap(
                told,
                max(columns, 40),
                initial_indent=indent,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            lines += [line.rstrip(), *said]
        else:
            lines.append(f"{line}  {told}".rstrip())
    return lines
