"""How many frames a source has, how fast they come, and how long it may pause, by its headers."""

import os
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from mhnet_video.media.formats.transport_clock import goes_on_evenly
from mhnet_video.media.reading.discontinuities import FORWARD_SECONDS

_JUMPING_FORMATS = ("mpegts", "mpeg", "mpegtsraw")
"""Formats whose clock may also jump forward, where it counts in a circle; FFmpeg's names."""
_UNKNOWN_PAUSE_SECONDS = Fraction(6 * 3600)
"""The longest pause of a source that does not say how long it is: as long as the usual clocks last
in an MP4, so that they stay."""
_UNKNOWN_FINE_PAUSE_SECONDS = Fraction(24 * 3600)
"""The same where the source's clock is finer than the usual ones."""
_USUAL_CLOCK = 90_000
"""Ticks a second of the finest usual clock."""
_PAUSE_SECONDS = 1
"""A step between frames is a pause where it is longer, and longer than `_PAUSE_STEPS`."""
_PAUSE_STEPS = 10
"""A pause is longer than so many usual steps."""
NO_TIMESTAMPS = 0x80
"""FFmpeg's AVFMT_NOTIMESTAMPS."""


class SourceTiming:
    """What the headers and the index of a file tell about its times.

    Args:
        container: The file.
        stream: The stream to restore.
        time_base: Length of one unit of its times, in seconds.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, time_base: Fraction) -> None:
        self._container = container
        self._stream = stream
        self._time_base = time_base
        rate = stream.average_rate or stream.guessed_rate
        self._average_fps = Fraction(rate) if rate else Fraction(25)
        names = container.format.name.split(",")
        self.leaps = any(name in _JUMPING_FORMATS for name in names)
        """Whether the clock may be set to a later time, too."""
        self.fps = self._rate_between_pauses()
        """The nominal rate: the usual one where pauses make it differ from the average."""

    @cached_property
    def is_even(self) -> bool:
        """Whether the length that the headers tell can be true: no clock is seen to jump."""
        name, names = self._container.name, self._container.format.name.split(",")
        return "mpegts" not in names or not os.path.isfile(name) or goes_on_evenly(name)

    def estimate_frames(self, start: Fraction, duration: Fraction | None) -> int | None:
        """How many frames a part of the file has; None where nothing tells.

        Args:
            start: Where the part begins, in seconds from the first frame.
            duration: How long it is, in seconds; None for up to the end.
        """
        seconds = None
        if not self.is_even:
            return None
        if self._stream.duration:
            seconds = self._stream.duration * self._time_base
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        count = self._stream.frames or (round(seconds * self._average_fps) if seconds else 0)
        if not count or (not start and duration is None):
            return count or None
        whole = seconds or count / self._average_fps
        left = max(whole - start, Fraction(0))
        if duration is not None:
            left = min(left, duration)
        return max(1, round(count * left / whole))

    def _rate_between_pauses(self) -> Fraction:
        average = self._average_fps
        guessed = self._stream.guessed_rate
        if "mov" in self._container.format.name.split(","):
            # its index names every frame
            steps = sorted(_index_steps(self._stream)) or [0]
            usual, longest = steps[len(steps) // 2], steps[-1]
            is_long = longest * self._time_base > _PAUSE_SECONDS
            is_paused = usual > 0 and longest > _PAUSE_STEPS * usual and is_long
            return 1 / (usual * self._time_base) if is_paused else average
        return Fraction(guessed) if guessed and average < 1 else average

    def longest_pause(self, stream: Stream) -> Fraction:
        """The longest time that may pass from a packet of a stream to the next one.

        Args:
            stream: One of the container's.

        Returns:
            Seconds, by the file's index; how long the whole file is where it has none.
        """
        if self._container.format.flags & NO_TIMESTAMPS:
            return Fraction(0)
        if self.leaps:
            return FORWARD_SECONDS  # what is longer is a jump of its clock
        unit = Fraction(stream.time_base or 0)
        steps = _index_steps(stream)
        listed = Fraction(sum(steps)) * unit
        whole = Fraction(max(self._container.duration or 0, 0), av.time_base)
        if self._container.duration:
            rest = max(whole - listed, stream.duration * unit - listed if stream.duration else 0)
        elif unit.denominator > _USUAL_CLOCK:
            rest = _UNKNOWN_FINE_PAUSE_SECONDS
        else:
            rest = _UNKNOWN_PAUSE_SECONDS
        return max(max(steps, default=0) * unit, Fraction(rest))


def _index_steps(stream: Stream) -> list[int]:
    """Ticks from one entry of a stream's index to the next; no frame lies between in MP4's."""
    times = sorted(entry.timestamp for entry in stream.index_entries)
    return [after - before for before, after in pairwise(times)]
