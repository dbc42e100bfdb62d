"""How far a batch is: bars on a terminal, a calm line for each file elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mhnet_video.cli.batch_reports import row_line
from mhnet_video.cli.terminal import clock, one_line
from mhnet_video.locator import hide

if TYPE_CHECKING:
    from mhnet_video.batch.rows import Row
    from mhnet_video.pipelines.batch_tally import BatchProgress

_BAR = "{desc} {percentage:3.0f}% |{bar}| "
_CALM_SECONDS = 60.0
"""How often a line tells how far all is where there is no terminal."""
_LEAST_SECONDS = 5.0
"""Of work, before the time left is told."""
_LONGEST_NAME = 32
"""Characters of a name before a bar."""


@contextmanager
def batch_progress(
    shown: bool,
) -> "Iterator[tuple[Callable[[Row], None], Callable[[BatchProgress], None] | None]]":
    """While the block runs, what is to be called with each row and with each progress."""
    if not shown:
        yield lambda row: None, None
        return
    display = _Bars() if sys.stderr.isatty() else _Lines()
    try:
        yield display.row, display.progress
    finally:
        display.close()


class _Eta:
    """How long what is left will take, by the seconds of footage that were restored.

    Neither the time counts in which workers start, nor that in which there is nothing to do.
    """

    def __init__(self) -> None:
        self._at = self._done = self._spent = self._restored = 0.0
        self._is_going = False

    def line(self, progress: "BatchProgress") -> str:
        done, total, now = progress.seconds, progress.total_seconds, time.monotonic()
        step, gained = now - self._at, done - self._done
        self._at, self._done = now, done
        if progress.works == progress.total_works:
            self._is_going = False
        elif self._is_going:
            self._spent += step
            self._restored += gained
        else:  # the first gain may be of a run before, and its time is that of a start
            self._is_going = gained > 0
        line = f"{progress.works}/{progress.total_works} files, {clock(done)} of {clock(total)}"
        if self._is_going and self._spent >= _LEAST_SECONDS and self._restored > 0 and total > done:
            line += f", {clock(self._spent * (total - done) / self._restored)} left"
        return line


class _Lines:
    """A line for each row, and now and then one for all."""

    def __init__(self) -> None:
        self._eta = _Eta()
        self._told = time.monotonic()

    def row(self, row: "Row") -> None:
        if row.status != "done before" and row.is_begun:
            _print(row_line(row))

    def progress(self, progress: "BatchProgress") -> None:
        if time.monotonic() - self._told >= _CALM_SECONDS:
            self._told = time.monotonic()
            _print(self._eta.line(progress))

    def close(self) -> None:
        """Nothing is left open."""


class _Bars:
    """A bar for all, and one below it for each file at hand."""

    def __init__(self) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0
        self._eta = _Eta()
        self._bars: list[Any] = []
        self._make = tqdm

    def row(self, row: "Row") -> None:
        if row.reason and row.status != "left out" and row.is_begun:
            self._make.write(hide(one_line(row_line(row))), file=sys.stderr)

    def progress(self, progress: "BatchProgress") -> None:
        rows = [("all", progress.seconds, progress.total_seconds, self._eta.line(progress))]
        rows += [
            (_short(key.rpartition("/")[2]), done, total, f"{clock(done)} of {clock(total)}")
            for key, done, total in progress.current
        ]
        while len(self._bars) > len(rows):
            self._bars.pop().close()
        while len(self._bars) < len(rows):
            self._bars.append(
                self._make(
                    file=sys.stderr,
                    bar_format=_BAR,
                    position=len(self._bars),
                    dynamic_ncols=True,
                    leave=False,
                    total=1.0,
                )
            )
        for bar, (name, done, total, said) in zip(self._bars, rows, strict=True):
            bar.total = max(total, 1e-3)
            bar.n = min(done, bar.total)
            bar.set_description_str(name, refresh=False)
            bar.bar_format = _BAR + said  # tqdm puts a comma before what it calls a postfix
            bar.refresh()

    def close(self) -> None:
        for bar in reversed(self._bars):
            with suppress(OSError):
                bar.close()


def _short(name: str) -> str:
    """A name that leaves room for a bar."""
    name = one_line(name)
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 3) // 2
    return f"{name[:half]}...{name[-half:]}"


def _print(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(hide(one_line(text)) + "\n")
        sys.stderr.flush()
