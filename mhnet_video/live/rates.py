"""Rates of live frames: measured as frames a second, and limited."""

import threading
from collections import deque
from fractions import Fraction
from itertools import pairwise

MAX_RATE = 240
"""Frames a second above which no source is believed."""

_GAP_SECONDS = 3.0
"""Longer intervals are interruptions and do not count for the rate of a source."""
_DURATIONS = 25
"""Frames whose durations the median is taken of."""
_EARLY_SHARE = 0.2
"""Share of an interval by which a frame may be early: arrival times are uneven."""


def nominal_rate(fps: float) -> Fraction:
    """Frames a second as encoders take them: a short fraction above 0, however slow the source."""
    return max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))


class RateMeter:
    """Events a second over the last seconds. Any thread may use it.

    Args:
        seconds: Length of the time that is looked back on.
        min_intervals: Intervals that are kept even where they are longer than that.
    """

    def __init__(self, seconds: float, min_intervals: int = 0) -> None:
        self._seconds = seconds
        self._min_intervals = min_intervals
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def note(self, time: float) -> None:
        """Count an event at a time in seconds, not before the event noted last."""
        with self._lock:
            times = self._times
            times.append(time)
            while len(times) > self._min_intervals + 1 and time - times[1] >= self._seconds:
                times.popleft()

    def rate(self, now: float) -> float:
        """Events a second until now; lower after an interruption, 0 before two events."""
        with self._lock:
            recent = [time for time in self._times if now - time <= self._seconds]
        if len(recent) < 2 or now <= recent[0]:
            return 0.0
        # an outage shows at once, and a slow source is not taken for one
        interval = (recent[-1] - recent[0]) / (len(recent) - 1)
        return (len(recent) - 1) / (max(recent[-1], now - interval) - recent[0])

    @property
    def source_rate(self) -> float | None:
        """Events a second without interruptions; None before the time looked back on has passed."""
        with self._lock:
            steps = [b - a for a, b in pairwise(self._times) if b - a < _GAP_SECONDS]
        if len(steps) < max(1, self._min_intervals) or sum(steps) < 0.99 * self._seconds:
            return None
        return min(len(steps) / sum(steps), MAX_RATE)


class ThroughputMeter:
    """Events a second over the last seconds, and the median of how long they took.

    Any thread may use it.

    Args:
        seconds: Length of the time that the rate looks back on.
    """

    def __init__(self, seconds: float) -> None:
        self._rate = RateMeter(seconds)
        self._durations: deque[float] = deque(maxlen=_DURATIONS)
        self._lock = threading.Lock()

    def note(self, now: float, seconds: float) -> None:
        """Count an event that took so many seconds."""
        self._rate.note(now)
        with self._lock:
            self._durations.append(seconds)

    def rate(self, now: float) -> float:
        """Events a second until now; lower after an interruption, 0 before two events."""
        return self._rate.rate(now)

    @property
    def median_seconds(self) -> float:
        """How long the last events took, of an even number the upper median; 0 before the first."""
        with self._lock:
            ordered = sorted(self._durations)
        return ordered[len(ordered) // 2] if ordered else 0.0


class RateLimiter:
    """Admits at most so many frames a second, evenly.

    Args:
        fps: Most frames a second; None for all.
    """

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._next_due = float("-inf")

    def admits(self, time: float) -> bool:
        """Whether to take a frame of this time in seconds, which is not before the last one."""
        if self._fps is None:
            return True
        if time < self._next_due - _EARLY_SHARE / self._fps:
            return False
        self._next_due = max(self._next_due + 1 / self._fps, time)
        return True
