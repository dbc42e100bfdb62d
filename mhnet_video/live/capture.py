"""Frames of a live source as they come, across whatever happens to the source.

`Connection` reads the source on a thread of its own. `_Capture` takes its events from a queue on
another thread, opens the source again where that is decided, and keeps the frames in a state from
which `Camera` returns the newest one to whoever asks.
"""

import gc
import os
import threading
import time
from queue import Empty, SimpleQueue

import av.logging

from mhnet_video.closing import Closing
from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.live.browser_camera import Visitors
from mhnet_video.live.capture_clock import CaptureClock
from mhnet_video.live.capture_state import CaptureState, Phase, Trouble
from mhnet_video.live.connection import Connection, Request
from mhnet_video.live.connection_events import (
    Event,
    FirstFrame,
    FrameArrived,
    Opened,
    Over,
    PacketsDamaged,
    SoundAnnounced,
    SoundArrived,
    SoundFormat,
    Waiting,
)
from mhnet_video.live.frame_buffer import Selection
from mhnet_video.live.intake import Intake
from mhnet_video.live.reconnection import Life, NextStep, Reconnection
from mhnet_video.live.sound import SoundClock, SoundPacket
from mhnet_video.live.source_address import (
    SourceAddress,
    is_hopeless,
    is_unanswered,
    why_not_opened,
)

_USUAL_FPS = 25.0
"""Frames a second that are expected before the source says its rate."""
_LOOK_SECONDS = 0.25
"""How often to look whether a connection hangs, or an unplugged camera is back."""
_CLOSE_SECONDS = 1.5
"""How long closing waits for the thread."""


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
        address: SourceAddress,
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
        self._state = CaptureState(ahead=ahead, behind=behind)
        self._capture = _Capture(
            Request(address, None if is_asked else size, loop, visitors),
            self._state,
            fps=fps or _USUAL_FPS,
            max_fps=None if is_asked else fps,
        )

    @property
    def wall_begin(self) -> float:
        """The time of day at which live times begin, in seconds since 1970.

        It follows the system's clock, which a board without one of its own sets after its start.
        """
        return time.time() - (time.monotonic() - self._capture.begin)

    @property
    def captured(self) -> int:
        """Frames taken."""
        return self._state.count

    @property
    def fps(self) -> float:
        """Frames a second, as the source says or as measured."""
        return self._capture.fps

    @property
    def reconnects(self) -> int:
        """How often the source came back."""
        return self._state.reconnects

    @property
    def damaged(self) -> int:
        """Packets that could not be decoded."""
        return self._capture.damaged

    @property
    def trouble(self) -> str:
        """What is wrong with the source now, in a sentence for people; empty if nothing is."""
        return str(self._state.trouble or "")

    def newest(self, timeout_seconds: float) -> Selection | None:
        """The frame to restore next, with its neighbours; None if none came in time.

        That is the next one, or, where the consumer is behind, the newest.

        Raises:
            ReadError: The source cannot be opened, and trying again would not help.
            StopIteration: The file has ended.
        """
        return self._state.newest(timeout_seconds)

    def sample(self, timeout_seconds: float) -> Frame | None:
        """A frame of the source to measure with; None if none came in time.

        A file waits at its first frame until `release`, so that nothing is lost.

        Raises:
            ReadError: The source cannot be opened, and trying again would not help.
            StopIteration: The file has ended.
        """
        return self._state.sample(timeout_seconds)

    @property
    def sound_format(self) -> SoundFormat | None:
        """How the source's sound is coded; None as long as there is none."""
        return self._state.sound_format

    def take_sound(self) -> tuple[SoundPacket, ...]:
        """The sound that has come since the last call; a minute of it is kept and more."""
        return self._state.take_sound()

    def release(self) -> None:
        """Let a file begin to play."""
        self._capture.release()

    def close(self) -> None:
        """End the threads; one that hangs in the source is not waited for."""
        self._state.end(Phase.CLOSED)
        self._capture.close()


class _Capture:
    """Keeps a source connected, on a thread of its own, and its frames in a state.

    Args:
        request: What to read.
        state: Takes frames and troubles; the thread ends where it is not running any more.
        fps: Frames a second that are expected.
        max_fps: Most frames a second to take; None for all.
    """

    def __init__(
        self, request: Request, state: CaptureState, *, fps: float, max_fps: float | None
    ) -> None:
        self.fps = fps
        """Frames a second, as the source says or as measured."""
        self.damaged = 0
        """Packets that could not be decoded."""
        self._request = request
        self._state = state
        self._max_fps = max_fps
        self.begin = time.monotonic()
        """When live times begin, on the clock of `time.monotonic`."""
        self._clock = CaptureClock()
        self._sound_clock = SoundClock()
        self._events: SimpleQueue[tuple[Connection, Event] | None] = SimpleQueue()
        self._may_begin = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mhnet-video camera", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let a file begin to play."""
        self._may_begin.set()

    def close(self) -> None:
        """Wake the thread, and wait for it, but not long."""
        self._may_begin.set()
        self._events.put(None)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        """Keep connected; an error that nobody has foreseen is raised to whoever asks."""
        try:
            self._keep_connected()
        except Exception as error:
            sentence = f"{self._request.address.name} cannot be followed ({error})."
            self._state.end(Phase.FAILED, ReadError(sentence))

    def _keep_connected(self) -> None:
        address = self._request.address
        reconnection = Reconnection(is_file=address.kind == "file", loop=self._request.loop)
        while True:
            life = self._follow()
            # PyAV's streams and containers hold each other, and with them a decoder's pictures
            gc.collect()
            if not self._state.is_running:
                return
            now = time.monotonic()
            error = life.error or ConnectionResetError()
            decision = reconnection.after(
                life,
                now,
                is_hopeless=is_hopeless(address, error),
                is_unanswered=not life.has_played and is_unanswered(address, error),
            )
            if decision.step is NextStep.FINISH:
                self._state.end(Phase.FINISHED)
                return
            if decision.step is NextStep.GIVE_UP:
                self._state.end(Phase.FAILED, ReadError(why_not_opened(address, error)))
                return
            if decision.step is NextStep.RETRY:
                self._pause(why_not_opened(address, error), now + decision.pause_seconds)

    def _follow(self) -> Life:
        """Take the events of a new connection until it is over; its life."""
        connection = Connection(
            self._request, self._events, may_begin=self._may_begin, is_again=self._state.count > 0
        )
        is_watched = self._request.address.kind not in ("file", "visitor")
        life = Life(time.monotonic(), is_watched=is_watched)
        intake = Intake(
            self._clock,
            self._sound_clock,
            begin=self.begin,
            fps=self.fps,
            max_fps=self._max_fps,
        )
        while not life.state.is_over and self._state.is_running:
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

    def _apply(self, event: Event, life: Life, intake: Intake) -> None:
        match event:
            case Opened():
                intake.see_rate(event)
                self.fps = intake.fps
            case FirstFrame(frame):
                self._state.see_sample(frame)
            case Waiting(until):
                life.see_wait(until)
            case FrameArrived():
                life.see_frame(time.monotonic())
                taken = intake.take(event)
                self.fps = intake.fps
                if taken is not None:
                    frame, is_new_run = taken
                    self._state.add(frame, event.arrival, is_new_run=is_new_run)
            case SoundAnnounced(sound_format):
                self._state.sound_format = sound_format
            case SoundArrived():
                packet = intake.take_sound(event)
                if packet is not None:
                    self._state.add_sound(packet)
            case PacketsDamaged(count):
                self.damaged += count
            case Over(state, error):
                life.see_end(state, error)

    def _pause(self, sentence: str, until: float) -> None:
        """Wait before the next attempt; a camera that is plugged in again is seen at once."""
        self._state.see_trouble(Trouble(sentence, until))
        url = self._request.address.url
        is_unplugged = url.startswith("/dev/") and not os.path.exists(url)
        while self._state.is_running and (rest := until - time.monotonic()) > 0:
            self._next_event(min(_LOOK_SECONDS, rest))  # of a connection that is over
            if is_unplugged and os.path.exists(url):
                break
        self._state.see_trouble(Trouble(sentence, time.monotonic()))
