"""What the capture's thread finds out about a source, and consumers on other threads wait for."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from math import ceil
from typing import TypeVar

from mhnet_video.errors import MHNetVideoError
from mhnet_video.frame import Frame
from mhnet_video.live.connection_events import SoundFormat
from mhnet_video.live.frame_buffer import FrameBuffer, Selection
from mhnet_video.live.sound import SoundPacket

T = TypeVar("T")

_MAX_SOUND_BYTES = 16 << 20
"""Bytes of sound that are kept for a slow consumer: a minute and more, as it is seldom coded worse
than in 16 bits."""


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
class Trouble:
    """What is wrong with the source."""

    sentence: str
    retry_at: float
    """When the source is opened again, on the clock of `time.monotonic`."""

    def __str__(self) -> str:
        """As a person reads it."""
        rest = ceil(self.retry_at - time.monotonic())
        return f"{self.sentence} Trying again {f'in {rest} s' if rest > 0 else 'now'}."


class CaptureState:
    """The frames, the phase and the trouble of one source. Any thread may use it.

    Args:
        ahead: Frames after the one to restore that are waited for.
        behind: Frames before it that are returned with it.
    """

    def __init__(self, *, ahead: int, behind: int) -> None:
        self._changed = threading.Condition()
        self._buffer = FrameBuffer(ahead=ahead, behind=behind)
        self._error: MHNetVideoError | None = None
        self._sample: Frame | None = None
        self._sound: deque[SoundPacket] = deque()
        self._sound_bytes = 0
        self.sound_format: SoundFormat | None = None
        """How the sound is coded; None as long as there is none."""
        self.phase = Phase.RUNNING
        self.trouble: Trouble | None = None
        """What is wrong now; None if nothing is."""
        self.reconnects = 0
        """How often the source came back."""

    @property
    def count(self) -> int:
        """Frames taken."""
        return self._buffer.count

    @property
    def is_running(self) -> bool:
        """Whether frames will come."""
        return self.phase is Phase.RUNNING

    # for the capture

    def end(self, phase: Phase, error: MHNetVideoError | None = None) -> None:
        """Enter a phase in which no frames come; the first one stays."""
        with self._changed:
            if self.is_running:
                self.phase, self._error = phase, error
            self._changed.notify_all()

    def see_sample(self, frame: Frame) -> None:
        """A frame has come that is not yet to be restored."""
        with self._changed:
            self._sample = frame
            self._changed.notify_all()

    def see_trouble(self, trouble: Trouble) -> None:
        """Something is wrong; a frame ends it."""
        with self._changed:
            self.trouble = trouble
            self._changed.notify_all()

    def add(self, frame: Frame, arrival: float, *, is_new_run: bool) -> None:
        """A frame has come; for the arguments see `FrameBuffer.add`."""
        with self._changed:
            if self.trouble is not None:
                self.trouble = None
                self.reconnects += self.count > 0
            self._buffer.add(frame, arrival, is_new_run=is_new_run)
            self._changed.notify_all()

    def add_sound(self, packet: SoundPacket) -> None:
        """A packet of sound has come; the oldest are dropped where the memory does not suffice."""
        with self._changed:
            self._sound.append(packet)
            self._sound_bytes += packet.num_bytes
            while self._sound_bytes > _MAX_SOUND_BYTES:
                self._sound_bytes -= self._sound.popleft().num_bytes

    # for consumers

    def newest(self, timeout_seconds: float) -> Selection | None:
        """The frame to restore next; see `Camera.newest`."""
        return self._wait_for(self._select, timeout_seconds)

    def take_sound(self) -> tuple[SoundPacket, ...]:
        """The sound that has come since the last call."""
        with self._changed:
            taken = tuple(self._sound)
            self._sound.clear()
            self._sound_bytes = 0
            return taken

    def sample(self, timeout_seconds: float) -> Frame | None:
        """A frame to measure with; see `Camera.sample`."""
        return self._wait_for(lambda: self._sample, timeout_seconds)

    def _select(self) -> Selection | None:
        is_complete = not self.is_running or self.trouble is not None
        return self._buffer.select(is_complete=is_complete)

    def _wait_for(self, get: Callable[[], T | None], timeout_seconds: float) -> T | None:
        end = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                found = get()
                if found is not None:
                    return found
                if self._error is not None:
                    raise self._error
                if not self.is_running:
                    raise StopIteration
                rest = end - time.monotonic()
                if rest <= 0:
                    return None
                self._changed.wait(rest)
