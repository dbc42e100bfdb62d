"""What becomes of frames and sound of one connection before they are kept: times and rate."""

from dataclasses import replace

from mhnet_video.frame import Frame
from mhnet_video.live.capture_clock import CaptureClock
from mhnet_video.live.connection_events import TIME_BASE, FrameArrived, Opened, SoundArrived
from mhnet_video.live.rates import RateLimiter, RateMeter
from mhnet_video.live.sound import SoundClock, SoundPacket

_RATE_SECONDS = 5.0
"""Over how long the rate of a source is measured."""
_RATE_INTERVALS = 6
"""Over how many intervals the rate of a source is measured, at least."""
_FAR_SHARE = 0.25
"""Share by which a measured rate differs from the rate that a source says, to replace it."""


class Intake:
    """Gives the frames of one connection their times, and leaves out those above the wanted rate.

    Args:
        clock: That of the source, over all of its connections.
        sound_clock: That of its sound.
        begin: When live times begin, on the clock of `time.monotonic`.
        fps: Frame rate that is expected.
        max_fps: Most frames a second to take; None for all.
    """

    def __init__(
        self,
        clock: CaptureClock,
        sound_clock: SoundClock,
        *,
        begin: float,
        fps: float,
        max_fps: float | None,
    ) -> None:
        self.fps = fps
        """Frames a second, as the source says or as measured."""
        self._clock = clock
        self._sound_clock = sound_clock
        self._begin = begin
        self._max_fps = max_fps
        self._limiter = RateLimiter(max_fps)
        self._meter: RateMeter | None = RateMeter(_RATE_SECONDS, _RATE_INTERVALS)
        self._is_new_run = False

    def see_rate(self, opened: Opened) -> None:
        """Take the rate that the source says; an exact one is not measured."""
        self.fps = min(opened.fps, self._max_fps or opened.fps)
        if opened.is_exact:
            self._meter = None

    def take(self, event: FrameArrived) -> tuple[Frame, bool] | None:
        """The frame at its live time, and whether it has nothing to do with the one before.

        Returns:
            None where it exceeds the wanted rate.
        """
        if event.is_new_run:
            self._clock.restart()
        taken = self._clock.time(event.arrival, event.stream_time)
        self._is_new_run |= event.is_new_run
        if not self._limiter.admits(taken):
            return None
        self._measure(taken)
        pts = round((taken - self._begin) / TIME_BASE)
        is_new_run, self._is_new_run = self._is_new_run, False
        return replace(event.frame, pts=pts, time_base=TIME_BASE, duration=0), is_new_run

    def take_sound(self, event: SoundArrived) -> SoundPacket | None:
        """The packet at its live time; None where it overlaps with what was heard."""
        offset = (self._clock.offset or 0.0) if event.has_stream_time else 0.0
        heard = self._sound_clock.time(event.time + offset - self._begin, event.duration)
        if heard is None:
            return None
        pts, duration = round(heard / TIME_BASE), round(event.duration / TIME_BASE)
        return SoundPacket(event.format, event.data, pts, duration)

    def _measure(self, taken: float) -> None:
        if self._meter is None:
            return
        self._meter.note(taken)
        fps = self._meter.source_rate
        if fps is not None and abs(fps - self.fps) > _FAR_SHARE * self.fps:
            self.fps = fps
