"""When live frames were taken: the times of a stream on our clock."""


class CaptureClock:
    """When frames were taken, as far as it can be known.

    Frames arrive over a network at uneven intervals. A stream's own times are even, but begin at
    any value and drift. They are mapped to our clock by the offset of the earliest arrivals.
    """

    _CREEP = 0.002
    """Share of a later offset that each frame adopts: this follows the drift."""
    _MAX_ERROR_SECONDS = 0.5
    """Offsets that differ by more are those of a clock that was set anew."""
    _MIN_STEP_SECONDS = 1e-4
    """Least time between two frames."""

    def __init__(self) -> None:
        self.offset: float | None = None
        """What is added to the stream's times, in seconds; None before the first frame."""
        self._last = float("-inf")

    def time(self, arrival: float, stream_time: float | None) -> float:
        """When a frame was taken, in seconds; always later than the frame before.

        Args:
            arrival: When it arrived, in seconds.
            stream_time: Its time in the stream, in seconds; None where the stream has no times.
        """
        taken = arrival
        if stream_time is not None:
            late = arrival - stream_time
            if self.offset is None or abs(late - self.offset) > self._MAX_ERROR_SECONDS:
                self.offset = late
            # nothing arrives before it is taken, and a later arrival may be a delay
            self.offset = min(late, self.offset + self._CREEP * (late - self.offset))
            taken = stream_time + self.offset
        self._last = max(taken, self._last + self._MIN_STEP_SECONDS)
        return self._last
