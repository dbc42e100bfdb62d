"""The terminal: the standard streams, the progress bar and Ctrl-C."""

import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from mhnet_video.locator import hide
from mhnet_video.system import ending_signals, has_terminal_size

if TYPE_CHECKING:
    from mhnet_video.pipelines.restore import Progress

_KNOWN = (
    "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} frames",
    ", {rate_noinv_fmt}, {remaining} left",
)
"""Formats of tqdm's bar with a total, and of its speed."""
_UNKNOWN = "{n_fmt} frame", ", {rate_noinv_fmt}, {elapsed} gone, time left unknown"
"""Formats of tqdm's bar without a total."""
_STEERING = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that end a line, move the cursor or turn the direction of writing."""
_SAME_PRESS_SECONDS = 0.5
"""Seconds within which a second signal counts as the same one."""


def clock(seconds: float) -> str:
    """Seconds as `H:MM:SS`, the way players show them."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def one_line(text: str) -> str:
    """Text whose file names cannot steer the terminal: such characters as Python writes them."""
    return _STEERING.sub(lambda match: ascii(match[0])[1:-1], text)


def terminal_columns(stream: TextIO) -> int | None:
    """How many columns a terminal has; None for what is none, or does not tell."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


@contextmanager
def progress_bar(shown: bool) -> "Iterator[Callable[[Progress], None] | None]":
    """A bar on stderr while the block runs; yields the callback for progress, None if hidden."""
    if not shown:
        yield None
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its watching thread is of no use: every frame is reported
    is_terminal = sys.stderr.isatty()
    bar: Any = None

    def show(progress: "Progress") -> None:
        nonlocal bar
        if bar is None:
            # not earlier, because the time to start would distort the estimate
            bar = tqdm(
                file=sys.stderr,
                unit=" frames",
                delay=1e-9,  # it would draw itself at once, before it knows what
                **(
                    {"dynamic_ncols": True}
                    if has_terminal_size(sys.stderr)
                    else {"ncols": 80, "nrows": 24}
                ),
                initial=progress.frames,
                miniters=1,
                mininterval=0.1 if is_terminal else 2.0,
                smoothing=0.1,
                leave=not is_terminal,
            )
        # an estimate that proves too low is dropped, rather than shown as 104 %
        bar.total = progress.total if progress.frames <= (progress.total or 0) else None
        count, speed = _KNOWN if bar.total else _UNKNOWN
        if not bar.total and progress.frames != 1:
            count += "s"
        # the first frame tells of no speed: it has waited for the network
        bar.bar_format = count + (speed if progress.frames > bar.initial else "") + "{postfix}"
        bar.set_postfix_str(f"at {clock(progress.position_seconds)}", refresh=False)
        if progress.frames == bar.n:
            bar.refresh()
        bar.update(progress.frames - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            with suppress(OSError):
                bar.close()


@contextmanager
def stop_on_signals(
    stop: threading.Event,
    said: str = "mhnet-video: finishing the file up to the last frame (Ctrl-C again: abort)",
) -> Iterator[None]:
    """While the block runs, Ctrl-C and the like (`ending_signals`) set `stop`; a second one aborts.

    Aborting raises KeyboardInterrupt in the main thread; a third one ends the process.
    Outside the main thread, where Python has no signals, nothing is done.

    Args:
        stop: The event to set.
        said: The message that is printed then.
    """

    def ask() -> None:
        stop.set()
        # not print: the signal may have come in the middle of one
        _say(f"\n{said}\n")

    # SIGHUP is ignored under nohup, and then it stays so
    numbers = [
        number
        for number in ending_signals()
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
    ]
    with _at_first_of(numbers, ask):
        yield


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """While the block runs, SIGTERM and the like interrupt it as Ctrl-C does, so that it tidies up.

    A second one does so again, and a third one ends the process. What is ignored or handled already
    stays so, and outside the main thread nothing is done.
    """

    def interrupt() -> None:
        raise KeyboardInterrupt

    numbers = [each for each in ending_signals() if signal.getsignal(each) is signal.SIG_DFL]
    with _at_first_of(numbers, interrupt):
        yield


@contextmanager
def _at_first_of(numbers: Iterable[signal.Signals], act: Callable[[], None]) -> Iterator[None]:
    """While the block runs, the first signal acts, a second interrupts, and a third one ends all.

    Args:
        numbers: The signals.
        act: What to do at the first one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first_time: float | None = None

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal first_time
        now = time.monotonic()
        if first_time is None:
            first_time = now
            act()
        elif now - first_time > _SAME_PRESS_SECONDS:
            # sooner it is the same one: `timeout` signals the process, and then its group
            signal.signal(number, signal.SIG_DFL)
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode())


class WithoutSecrets:
    """Standard error without the secrets of addresses, whoever writes to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text with secrets hidden."""
        self._stream.write(hide(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Forward all other attributes to the stream."""
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Open closed standard streams on the null device, and make any file name printable.

    Otherwise the first opened file would get the descriptor of a closed stream, and messages would
    be written into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush_stdout() -> None:
    """Flush standard output; a closed pipe causes no error at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
