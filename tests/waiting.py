"""Waiting for what another thread or process does: for events, as busy as the machine may be."""

import time
from collections.abc import Callable

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


class Clock:
    """A clock that goes only when it is told to, in seconds."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
