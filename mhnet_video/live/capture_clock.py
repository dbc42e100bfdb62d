"""When live frames were taken: the times of a stream on our clock."""


class CaptureClock:
    """When frames were taken, as far as it can be known.

    Frames arrive over a network at uneven intervals. A stream's own times are even, but begin at
    any value and drift. They are mapped to our clock by the offset of the earliest arrivals.
    """

    _CREEP = 0.002
    """Share of a later offset that each frame adopts: this follows the drift."""
    _MAX_ERROR_SECONDS = 0.5
    """Offsets that differ by more are those of a clock that was set anew, or of frames that were
    held up on their way."""
    _MAX_DELAY_SECONDS = 3.0
    """Frames that go on to be late for longer are those of a clock that has stood still."""
    _MIN_STEP_SECONDS = 1e-4
    """Least time between two frames."""

    def __init__(self) -> None:
        self.offset: float | None = None
        """What is added to the stream's times, in seconds; None before the first frame."""
        self._last = float("-inf")
        self._stream_last = float("-inf")
        self._late_since: float | None = None

    def restart(self) -> None:
        """Expect a stream with times of its own, which have nothing to do with those before."""
        self.offset, self._late_since, self._stream_last = None, None, float("-inf")

    def time(self, arrival: float, stream_time: float | None) -> float:
        """When a frame was taken, in seconds; always later than the frame before.

        Args:
            arrival: When it arrived, in seconds.
            stream_time: Its time in the stream, in seconds; None where the stream has no times.
        """
        taken = arrival
        if stream_time is not None:
            late = arrival - stream_time
            offset = self.offset
            if offset is None or self._is_anew(late - offset, stream_time, arrival):
                offset, self._late_since = late, None
            elif self._late_since is None:
                # nothing arrives before it is taken, and a later arrival may be a delay
                offset = min(late, offset + self._CREEP * (late - offset))
            self.offset, self._stream_last = offset, stream_time
            taken = stream_time + offset
        self._last = max(taken, self._last + self._MIN_STEP_SECONDS)
        return self._last

    def _is_anew(self, error: float, stream_time: float, arrival: float) -> bool:
        """Whether the stream's clock was set anew, or stood still.

        Where the network stalls, what was held up comes at once, with the times at which it was
        taken.
        """
        if abs(error) <= self._MAX_ERROR_SECONDS:
            self._late_since = None
            return False
        if error < 0 or stream_time <= self._stream_last:
            return True
        if self._late_since is None:
            self._late_since = arrival
        return arrival - self._late_since > self._MAX_DELAY_SECONDS
