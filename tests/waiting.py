"""Waiting for what another thread or process does: for events, as busy as the machine may be."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

SECONDS = 100.0
"""Enough for anything here on a machine that is busy with other things."""


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Look again and again until a condition holds.

    Raises:
        AssertionError: It never did.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for has not come"
        time.sleep(0.02)


def is_waiting_in(thread: threading.Thread, function: Callable[..., Any]) -> bool:
    """Whether a thread waits for a condition within a function; False where it has ended."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None or frame.f_code is not threading.Condition.wait.__code__:
        return False
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


class Clock:
    """A clock that goes only when it is told to, in seconds."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Ticks:
    """A clock in place of `time`, which every look at it moves on.

    Args:
        seconds: By how much.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._looks = 0

    def monotonic(self) -> float:
        """Seconds since the first look."""
        self._looks += 1
        return (self._looks - 1) * self._seconds

    perf_counter = monotonic
