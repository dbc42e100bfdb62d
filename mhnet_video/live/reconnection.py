"""When a connection to a live source is dead, and what follows its end.

Plain logic: it knows neither threads nor clocks; the present time is an argument.
"""

from dataclasses import dataclass
from enum import Enum, auto

OPEN_SECONDS = 15.0
"""How long a source may take for its first frame."""

_SILENT_SECONDS = 4.0
"""Least time for which a source that has sent frames may be silent.

Less than `SOCKET_SECONDS`: FFmpeg takes a socket's timeout for the end of the stream, returns the
frame that it held back, and waits once more.
"""
_SILENT_FRAMES = 8
"""How many of its longest intervals a source may be silent."""
_LONGEST_DECAY = 0.97
"""What is left of the longest interval with each frame, as one long interval may be a hitch."""
_MIN_PAUSE_SECONDS = 1.0
"""Shortest pause before a source is opened again."""
_MAX_PAUSE_SECONDS = 30.0
"""Longest pause before a source is opened again."""
_PAUSE_SHARE = 1 / 8
"""Pause before the next attempt, as a share of the time for which attempts have failed."""


class State(Enum):
    """Where a connection is in its life."""

    OPENING = auto()
    """No frame has come."""
    PLAYING = auto()
    """Frames come."""
    ENDED = auto()
    """A file was read to its end."""
    CHANGED = auto()
    """Its packets are of another codec than it was opened for."""
    FAILED = auto()
    """It could not be opened or read on."""
    SILENT = auto()
    """It hangs: nothing came for too long."""

    @property
    def is_over(self) -> bool:
        """Whether no state follows."""
        return self not in (State.OPENING, State.PLAYING)


class Life:
    """A connection's state; every transition of it is here.

    Args:
        now: When the connection was begun, in seconds.
        is_watched: Whether silence ends it.
    """

    def __init__(self, now: float, *, is_watched: bool = True) -> None:
        self.state = State.OPENING
        self.error: Exception | None = None
        """Why it is over; None while it is not, or where nothing is wrong."""
        self.has_played = False
        """Whether a frame has come."""
        self._is_watched = is_watched
        self._alive_at = now
        self._longest = 0.0
        self._waits_until = float("-inf")

    def see_frame(self, now: float) -> None:
        """A frame has come."""
        if self.state is State.PLAYING:
            self._longest = max(_LONGEST_DECAY * self._longest, now - self._alive_at)
        if not self.state.is_over:
            self.state, self.has_played = State.PLAYING, True
        self._alive_at = now

    def see_wait(self, until: float) -> None:
        """The connection itself waits until a time, with a frame that is not due."""
        self._waits_until = until

    def see_end(self, state: State, error: Exception | None) -> None:
        """The connection is over."""
        if not self.state.is_over:
            self.state, self.error = state, error

    def check(self, now: float) -> None:
        """End the connection where it has been silent for much longer than it ever was."""
        if self.state.is_over or not self._is_watched or self._waits_until > now:
            return
        limit = OPEN_SECONDS
        if self.state is State.PLAYING:
            limit = max(_SILENT_SECONDS, _SILENT_FRAMES * self._longest)
        if now - self._alive_at > limit:
            self.see_end(State.SILENT, TimeoutError())


class NextStep(Enum):
    """What follows the end of a connection."""

    FINISH = auto()
    """Nothing: the source is over."""
    GIVE_UP = auto()
    """Nothing: every further attempt would fail in the same way."""
    REPLAY = auto()
    """A file begins again."""
    RETRY = auto()
    """The source is opened again after a pause."""


@dataclass(frozen=True)
class Decision:
    """A step, and how long to wait before it."""

    step: NextStep
    pause_seconds: float = 0.0


class Reconnection:
    """Decides what follows the end of each connection to one source.

    Args:
        is_file: Whether the source is a file of this machine, which is not opened again after an
            error.
        loop: Whether a file begins again at its end.
    """

    def __init__(self, *, is_file: bool, loop: bool) -> None:
        self._is_file = is_file
        self._loop = loop
        self._has_played = False
        self._failing_since: float | None = None

    def after(
        self, life: Life, now: float, *, is_hopeless: bool = False, is_unanswered: bool = False
    ) -> Decision:
        """What to do next.

        Args:
            life: That of the connection, which is over.
            now: The present time, in seconds.
            is_hopeless: Whether a first attempt with its error need not be repeated.
            is_unanswered: Whether nobody answered, so that nobody is disturbed by trying again.
        """
        if life.has_played:
            self._has_played, self._failing_since = True, None
        if life.state is State.ENDED:
            return Decision(NextStep.REPLAY if self._loop else NextStep.FINISH)
        if not self._has_played and is_hopeless:
            return Decision(NextStep.GIVE_UP)
        if self._is_file:
            return Decision(NextStep.FINISH)
        if not life.has_played and is_unanswered:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
        if life.state is State.CHANGED:
            return Decision(NextStep.RETRY)
        failing_seconds = 0.0 if self._failing_since is None else now - self._failing_since
        return Decision(NextStep.RETRY, pause_after(failing_seconds))


def pause_after(failing_seconds: float) -> float:
    """How long to wait before the next attempt, after attempts have failed for so many seconds."""
    return min(max(failing_seconds * _PAUSE_SHARE, _MIN_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
