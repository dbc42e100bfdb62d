"""Where Linux, macOS and Windows differ: signals, pipes, the C library, files that are open.

Other modules call these functions and do not ask for the system. Where a system lacks something,
the function does what comes nearest, or nothing.
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from os import PathLike
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import FileLock

REPLACE_SECONDS = 2.0
"""How long a file that another program has open is tried to be replaced on Windows."""
_PAUSE_SECONDS = 0.05
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Signals that end a program. Windows has no SIGHUP, and alone has SIGBREAK, which also comes when
its window is closed."""


def replace_file(source: str | PathLike[str], destination: str | PathLike[str]) -> None:
    """Give a file another name, in place of the file that has it.

    Windows refuses while a program has either open. Indexers and virus scanners open new files for
    moments, so that there it is tried again.

    Raises:
        OSError: It cannot be done.
    """
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            os.replace(source, destination)
            return
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


def release(lock: "FileLock") -> None:
    """Let go of a lock, and remove its file; Windows, which removes no open file, keeps that.

    Args:
        lock: It is held, so that nobody else has taken its file for one of theirs.
    """
    with suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()


def open_special(path: str | PathLike[str]) -> IO[bytes]:
    """Open a pipe or a device for writing, without waiting for a reader that may never come.

    Raises:
        OSError: It cannot be opened, or nobody reads from it.
    """
    flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb", buffering=0)


def is_abandoned(descriptor: int) -> bool:
    """Whether nobody reads from a pipe any more; False where the system does not tell."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def usable_processors() -> int:
    """The processors on which this process may run; all of them where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_terminal_size(stream: Any) -> bool:
    """Whether a stream is a terminal that reports a size; some in containers report 0."""
    try:
        return min(os.get_terminal_size(stream.fileno())) > 0
    except (AttributeError, OSError, ValueError):
        return False


def ending_signals() -> list[signal.Signals]:
    """The signals by which this system ends a program."""
    return [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Block the ending signals while a process starts, which inherits that; not on Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # a helper of Python that starts with the first process, and lets the signals through then
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_ending_signals() -> None:
    """Ignore them in this process, which another one ends; also those that were held back."""
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending_signals())


def is_killed(status: int | None) -> bool:
    """Whether a process was killed, as Linux does when memory runs out; by its exit status."""
    return hasattr(signal, "SIGKILL") and status == -signal.SIGKILL


def c_function(name: str) -> Callable[..., Any] | None:
    """A function of the C library; None where there is none of that name, or it cannot be asked."""
    try:
        function: Callable[..., Any] = getattr(ctypes.CDLL(None), name)
    except (OSError, TypeError, AttributeError):  # TypeError on Windows
        return None
    return function
