"""Reports of a live run to people: messages, changes, and the statistics."""

import time
from collections.abc import Callable

from mhnet_video.live.statistics import LiveStatistics

_MESSAGE_SECONDS = 4.0
"""How long a message stays on the screen."""
_CHECK_SECONDS = 0.1
"""Least time between two looks for changes."""
_STATISTICS_SECONDS = 1.0
"""Time from one report of the statistics to the next."""


class Messages:
    """Messages of a run; the newest one stays on the screen for a while. Any thread may use it.

    Args:
        on_message: Called with each message, a line.
        clock: A clock that never goes back, in seconds.
    """

    def __init__(
        self, on_message: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_message = on_message
        self._clock = clock
        self._newest, self._until = "", float("-inf")

    def say(self, text: str, *, is_on_screen: bool = True) -> None:
        """Report a message; one that the screen has by itself is not put there again."""
        if is_on_screen:
            self._newest, self._until = text, self._clock() + _MESSAGE_SECONDS
        self._on_message(text)

    @property
    def on_screen(self) -> str:
        """The message that the screen shows now; empty for none."""
        return self._newest if self._clock() < self._until else ""


class ChangeReporter:
    """Reports the changes between statistics: of the source and of the level.

    Args:
        messages: Takes the sentences.
        on_statistics: Called with the statistics once a second; None for nobody.
        clock: A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        messages: Messages,
        on_statistics: Callable[[LiveStatistics], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._messages = messages
        self._on_statistics = on_statistics
        self._clock = clock
        self._next_check = self._next_statistics = float("-inf")
        self._level = ""
        self.trouble = ""
        """What is wrong with the source, in a sentence; empty if nothing is."""

    def report(self, read: Callable[[], LiveStatistics]) -> None:
        """Report what has changed since the last call; most calls do nothing.

        Args:
            read: Returns the statistics.
        """
        now = self._clock()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        statistics = read()
        self._report_trouble(statistics)
        level = statistics.level
        if level and level != self._level:
            self._level = level
            self._messages.say(
                f"restoring with {level}: {1000 * statistics.network_seconds:.0f} ms a frame, "
                f"the source gives {statistics.source_fps:.3g} a second"
            )
        if self._on_statistics is not None and now >= self._next_statistics:
            self._next_statistics = now + _STATISTICS_SECONDS
            self._on_statistics(statistics)

    def _report_trouble(self, statistics: LiveStatistics) -> None:
        before, self.trouble = self.trouble, statistics.trouble
        if self.trouble and not before:
            # the screen shows it for as long as it lasts
            self._messages.say(self.trouble, is_on_screen=False)
        elif before and not self.trouble:
            self._messages.say(f"{statistics.source} is back")
