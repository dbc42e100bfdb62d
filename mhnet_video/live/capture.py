"""Frames of a live source as they come, across whatever happens to the source.

`Connection` reads the source on a thread of its own. `Camera` takes its events from a queue on
another thread, opens the source again where that is decided, and keeps the frames for whoever asks
for the newest one.
"""

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import ceil
from queue import Empty, SimpleQueue
from typing import TypeVar

import av.logging

from mhnet_video.closing import Closing
from mhnet_video.errors import MHNetVideoError, ReadError
from mhnet_video.frame import Frame
from mhnet_video.live.browser_camera import Visitors
from mhnet_video.live.capture_clock import CaptureClock
from mhnet_video.live.connection import (
    TIME_BASE,
    Connection,
    Event,
    FirstFrame,
    FrameArrived,
    Opened,
    Over,
    PacketsDamaged,
    Request,
    Waiting,
)
from mhnet_video.live.frame_buffer import FrameBuffer, Selection
from mhnet_video.live.rates import RateLimiter, RateMeter
from mhnet_video.live.reconnection import Life, Reconnection, Step
from mhnet_video.live.source_address import Address, is_hopeless, is_unanswered, why_not_opened

T = TypeVar("T")

_USUAL_FPS = 25.0
"""Frames a second that are expected before the source says its rate."""
_LOOK_SECONDS = 0.25
"""How often to look whether a connection hangs, or an unplugged camera is back."""
_CLOSE_SECONDS = 1.5
"""How long closing waits for the thread."""
_RATE_SECONDS = 5.0
"""Over how long the rate of a source is measured."""
_RATE_INTERVALS = 6
"""Over how many intervals the rate of a source is measured, at least."""
_FAR_SHARE = 0.25
"""Share by which a measured rate differs from the rate that a source says, to replace it."""


class Phase(Enum):
    """Whether frames of a source will come."""

    RUNNING = auto()
    """Now or, while there is trouble, later."""
    FINISHED = auto()
    """None, as the source has ended."""
    FAILED = auto()
    """None, as the source cannot be opened."""
    CLOSED = auto()
    """None, as nobody wants them."""


@dataclass(frozen=True)
class _Trouble:
    """What is wrong with the source."""

    sentence: str
    retry_at: float
    """When the source is opened again, on the clock of `time.monotonic`."""


class Camera(Closing):
    """The frames of a source, from when it is made until it is closed.

    Args:
        address: What to open.
        size: Width and height within which frames are shrunk, except those of a camera, which was
            asked for them; None for as they are.
        fps: Most frames a second to take; None for all.
        loop: Whether a file begins again at its end.
        ahead: Frames after the one to restore that are waited for.
        behind: Frames before it that are returned with it.
        visitors: Where the pictures of visitors' cameras come in, for that kind of address.
    """

    def __init__(
        self,
        address: Address,
        *,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        loop: bool = False,
        ahead: int = 1,
        behind: int = 1,
        visitors: Visitors | None = None,
    ) -> None:
        av.logging.set_level(None)
        is_asked = address.kind == "camera"
        self.address = address
        self.reconnects = 0
        """How often the source came back."""
        self.damaged = 0
        """Packets that could not be decoded."""
        self.fps = fps or _USUAL_FPS
        """Frames a second, as the source says or as measured."""
        self.wall_begin = time.time()
        """The time of day at which live times begin, in seconds since 1970."""
        self._begin = time.monotonic()
        self._request = Request(address, None if is_asked else size, loop, visitors)
        self._max_fps = None if is_asked else fps
        self._clock = CaptureClock()
        self._events: SimpleQueue[tuple[Connection, Event] | None] = SimpleQueue()
        self._may_begin = threading.Event()
        # what the thread changes and others read
        self._changed = threading.Condition()
        self._buffer = FrameBuffer(ahead=ahead, behind=behind)
        self._phase = Phase.RUNNING
        self._error: MHNetVideoError | None = None
        self._trouble: _Trouble | None = None
        self._sample: Frame | None = None
        self._thread = threading.Thread(target=self._run, name="mhnet-video camera", daemon=True)
        self._thread.start()

    # for consumers, on any thread

    @property
    def captured(self) -> int:
        """Frames taken."""
        return self._buffer.count

    def newest(self, timeout_seconds: float) -> Selection | None:
        """The frame to restore next, with its neighbours; None if none came in time.

        That is the next one, or, where the consumer is behind, the newest.

        Raises:
            ReadError: The source cannot be opened, and trying again would not help.
            StopIteration: The file has ended.
        """
        return self._wait_for(self._select, timeout_seconds)

    def sample(self, timeout_seconds: float) -> Frame | None:
        """A frame of the source to measure with; None if none came in time.

        A file waits at its first frame until `release`, so that nothing is lost.

        Raises:
            ReadError: The source cannot be opened, and trying again would not help.
            StopIteration: The file has ended.
        """
        return self._wait_for(lambda: self._sample, timeout_seconds)

    def _select(self) -> Selection | None:
        is_running = self._phase is Phase.RUNNING and self._trouble is None
        return self._buffer.select(is_complete=not is_running)

    def _wait_for(self, get: Callable[[], T | None], timeout_seconds: float) -> T | None:
        end = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                found = get()
                if found is not None:
                    return found
                if self._error is not None:
                    raise self._error
                if self._phase is not Phase.RUNNING:
                    raise StopIteration
                rest = end - time.monotonic()
                if rest <= 0:
                    return None
                self._changed.wait(rest)

    def release(self) -> None:
        """Let a file begin to play."""
        self._may_begin.set()

    @property
    def trouble(self) -> str:
        """What is wrong with the source now, in a sentence for people; empty if nothing is."""
        trouble = self._trouble
        if trouble is None:
            return ""
        rest = ceil(trouble.retry_at - time.monotonic())
        return f"{trouble.sentence} Trying again {f'in {rest} s' if rest > 0 else 'now'}."

    def close(self) -> None:
        """End the threads; one that hangs in the source is not waited for."""
        self._enter(Phase.CLOSED)
        self._may_begin.set()
        self._events.put(None)
        self._thread.join(_CLOSE_SECONDS)

    # the thread that takes the events

    def _enter(self, phase: Phase, error: MHNetVideoError | None = None) -> None:
        """Change the phase, once."""
        with self._changed:
            if self._phase is Phase.RUNNING:
                self._phase, self._error = phase, error
            self._changed.notify_all()

    def _run(self) -> None:
        """Keep connected; whoever asks is told of what nobody has foreseen."""
        try:
            self._keep_connected()
        except Exception as error:
            sentence = f"{self.address.name} cannot be followed ({error})."
            self._enter(Phase.FAILED, ReadError(sentence))

    def _keep_connected(self) -> None:
        address = self.address
        reconnection = Reconnection(is_file=address.kind == "file", loop=self._request.loop)
        while True:
            life = self._follow()
            # PyAV's streams and containers hold each other, and with them a decoder's pictures
            gc.collect()
            if self._phase is not Phase.RUNNING:
                return
            now = time.monotonic()
            error = life.error or ConnectionResetError()
            decision = reconnection.after(
                life,
                now,
                is_hopeless=is_hopeless(address, error),
                is_unanswered=not life.has_played and is_unanswered(address, error),
            )
            if decision.step is Step.FINISH:
                self._enter(Phase.FINISHED)
                return
            if decision.step is Step.GIVE_UP:
                self._enter(Phase.FAILED, ReadError(why_not_opened(address, error)))
                return
            if decision.step is Step.RETRY:
                self._pause(why_not_opened(address, error), now + decision.pause_seconds)

    def _follow(self) -> Life:
        """Take the events of a new connection until it is over; its life."""
        connection = Connection(
            self._request, self._events, may_begin=self._may_begin, is_again=self.captured > 0
        )
        is_watched = self.address.kind not in ("file", "visitor")
        life = Life(time.monotonic(), is_watched=is_watched)
        intake = _Intake(RateLimiter(self._max_fps), RateMeter(_RATE_SECONDS, _RATE_INTERVALS))
        while not life.state.is_over and self._phase is Phase.RUNNING:
            event = self._next_event(_LOOK_SECONDS)
            if event is not None and event[0] is connection:
                self._apply(event[1], life, intake)
            if self._events.empty():
                life.check(time.monotonic())
        connection.stop()
        return life

    def _next_event(self, timeout_seconds: float) -> tuple[Connection, Event] | None:
        """The next event, of any connection; None if none came in time, or it is closed."""
        try:
            return self._events.get(timeout=timeout_seconds)
        except Empty:
            return None

    def _apply(self, event: Event, life: Life, intake: "_Intake") -> None:
        match event:
            case Opened(fps, is_exact):
                self.fps = min(fps, self._max_fps or fps)
                intake.is_measured = not is_exact
            case FirstFrame(frame):
                with self._changed:
                    self._sample = frame
                    self._changed.notify_all()
            case Waiting(until):
                life.see_wait(until)
            case FrameArrived():
                life.see_frame(time.monotonic())
                self._take(event, intake)
            case PacketsDamaged(count):
                self.damaged += count
            case Over(state, error):
                life.see_end(state, error)

    def _take(self, event: FrameArrived, intake: "_Intake") -> None:
        """Keep a frame, unless it exceeds the rate that is wanted."""
        taken = self._clock.time(event.arrival, event.stream_time)
        intake.is_new_run |= event.is_new_run
        if not intake.limiter.admits(taken):
            return
        if intake.is_measured:
            intake.meter.note(taken)
            fps = intake.meter.source_rate
            if fps is not None and abs(fps - self.fps) > _FAR_SHARE * self.fps:
                self.fps = fps
        pts = round((taken - self._begin) / TIME_BASE)
        frame = replace(event.frame, pts=pts, time_base=TIME_BASE, duration=0)
        with self._changed:
            if self._trouble is not None:
                self._trouble = None
                self.reconnects += self.captured > 0
            self._buffer.add(frame, event.arrival, is_new_run=intake.is_new_run)
            intake.is_new_run = False
            self._changed.notify_all()

    def _pause(self, sentence: str, until: float) -> None:
        """Wait before the next attempt; a camera that is plugged in again is seen at once."""
        with self._changed:
            self._trouble = _Trouble(sentence, until)
            self._changed.notify_all()
        url = self.address.url
        is_unplugged = url.startswith("/dev/") and not os.path.exists(url)
        while self._phase is Phase.RUNNING and (rest := until - time.monotonic()) > 0:
            self._next_event(min(_LOOK_SECONDS, rest))  # of a connection that is over
            if is_unplugged and os.path.exists(url):
                break
        self._trouble = _Trouble(sentence, time.monotonic())


@dataclass(eq=False)
class _Intake:
    """What happens to the frames of one connection before they are kept."""

    limiter: RateLimiter
    meter: RateMeter
    is_measured: bool = True
    """Whether the rate is measured."""
    is_new_run: bool = False
    """Whether the next frame that is kept has nothing to do with the one before."""
