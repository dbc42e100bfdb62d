"""Times of a recording whose clock jumps, as joined, cut and damaged ones have it."""

from fractions import Fraction
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_BACKWARD_SECONDS = Fraction(1, 10)
"""A clock that goes back by more than this was set."""
PAUSE_SECONDS = Fraction(10)
"""A step forward by more is a pause, or a damaged number."""
FORWARD_SECONDS = Fraction(3600)
"""A step forward by more is a clock that was set, or a damaged number."""
DAY_SECONDS = Fraction(25 * 3600)
"""A clock that counts in no circle steps so far only where its number is damaged: cameras that are
set off by motion pause for up to a day."""
_TOGETHER_SECONDS = Fraction(10)
"""Streams of one recording jump together: how far apart they may do so."""


class _Held(NamedTuple, Generic[T]):
    item: T
    time: Fraction
    duration: Fraction


class DiscontinuityCorrector(Generic[T]):
    """Bridges jumps of a recording's clock, by the same amount for all of its streams.

    Args:
        leaps: Whether the clock may be set to a later time, too.
    """

    def __init__(self, *, leaps: bool = True) -> None:
        self._pause = PAUSE_SECONDS if leaps else DAY_SECONDS
        self._forward = FORWARD_SECONDS if leaps else DAY_SECONDS
        self._shifts = [Fraction(0)]
        self._shift: dict[int, Fraction] = {}
        # where the last item of each stream begins, and where it ends as far as it says itself
        self._last: dict[int, Fraction] = {}
        self._end: dict[int, Fraction] = {}
        self._held: dict[int, _Held[T]] = {}

    @property
    def jumps(self) -> int:
        """How often the clock jumped so far."""
        return len(self._shifts) - 1

    def push(
        self, stream: int, time: Fraction, duration: Fraction, item: T
    ) -> list[tuple[T, Fraction]]:
        """Items that have found their place, each with the seconds to subtract from its time.

        Args:
            stream: The stream's number.
            time: The item's time as the file has it, in seconds.
            duration: How long it lasts, in seconds.
            item: What has this time; it may be returned only with the next of its stream.
        """
        if stream not in self._end:
            self._shift[stream] = self._shifts[-1]
            self._last[stream] = self._end[stream] = time - self._shifts[-1]
        placed = []
        held = self._held.pop(stream, None)
        if held is not None:
            placed.append(self._settle(stream, held, time))
        placed_time = time - self._shift[stream]
        is_back = placed_time < self._last[stream] - _BACKWARD_SECONDS
        if is_back or placed_time - self._end[stream] > self._pause:
            self._held[stream] = _Held(item, time, duration)
            return placed
        return [*placed, self._place(stream, _Held(item, time, duration))]

    def follow(self, time: Fraction) -> Fraction:
        """The seconds to subtract from a time of a stream whose own go back and forth."""
        now = max(self._end.values(), default=time)
        return min(self._shifts, key=lambda shift: abs(time - shift - now))

    def flush(self) -> list[tuple[T, Fraction]]:
        """What is left at the end of the file."""
        rest = [self._slipped(stream, held) for stream, held in self._held.items()]
        self._held.clear()
        return rest

    def _settle(self, stream: int, held: _Held[T], following: Fraction) -> tuple[T, Fraction]:
        """Tell a jump or a pause from a damaged number, by what follows it."""
        shift, last = self._shift[stream], self._last[stream]
        if held.time - shift < last:
            if following - shift >= last - _BACKWARD_SECONDS:
                return held.item, shift
            self._turn(stream, held.time)
            return self._place(stream, held)
        if abs(following - held.time) > _TOGETHER_SECONDS:
            return self._slipped(stream, held)
        if held.time - self._shift[stream] - self._end[stream] > self._forward:
            self._turn(stream, held.time)
        return self._place(stream, held)

    def _slipped(self, stream: int, held: _Held[T]) -> tuple[T, Fraction]:
        """Put an item whose own time is damaged where the one before it ends."""
        self._last[stream] = self._end[stream]
        shift = held.time - self._end[stream]
        self._end[stream] += held.duration
        return held.item, shift

    def _turn(self, stream: int, time: Fraction) -> None:
        """Go on from here after a jump: as another stream did, or right where this one ended."""
        end = self._end[stream]
        steps = {shift: time - shift - end for shift in self._shifts}
        fitting = [s for s in steps if -_BACKWARD_SECONDS <= steps[s] <= _TOGETHER_SECONDS]
        if not fitting:
            self._shifts.append(time - end)
            fitting = [time - end]
        self._shift[stream] = min(fitting, key=lambda shift: abs(time - shift - end))

    def _place(self, stream: int, held: _Held[T]) -> tuple[T, Fraction]:
        shift = self._shift[stream]
        self._last[stream] = held.time - shift
        self._end[stream] = held.time - shift + held.duration
        return held.item, shift
