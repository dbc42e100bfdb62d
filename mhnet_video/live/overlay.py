"""The text on the window of live mode."""

import time
from collections.abc import Callable

from mhnet_video.live.statistics import LiveStatistics

_HINT = "space freeze   s view   + - strength   m model   r record   i statistics   q quit"
"""The keys, on one line."""
_HINT_SECONDS = 12.0
"""How long the keys stay on the screen, from the first frame on."""


class Overlay:
    """Statistics, state and messages as lines; the keys for the first seconds.

    Args:
        clock: A clock that never goes back, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._hint_until = float("inf")

    def begin(self) -> None:
        """Note that a frame is shown; the first one begins the time of the keys."""
        self._hint_until = min(self._hint_until, self._clock() + _HINT_SECONDS)

    def lines(
        self, statistics: LiveStatistics, *, is_frozen: bool, recording: str, message: str
    ) -> list[str]:
        """The lines to draw.

        Args:
            statistics: Of the run.
            is_frozen: Whether the picture is frozen.
            recording: The file that is recorded to; empty for none.
            message: What a person should know; empty for nothing.
        """
        level = statistics.level or "measuring this machine"
        lines = [
            f"{statistics.fps:.1f} of {statistics.source_fps:.1f} fps   "
            f"latency {1000 * statistics.latency_seconds:.0f} ms   dropped {statistics.dropped}",
            f"{level}, {statistics.device}, {statistics.engine}   "
            f"{1000 * statistics.network_seconds:.0f} ms   strength {statistics.strength:.0%}",
        ]
        if is_frozen:
            lines.append("frozen: space goes on")
        if recording:
            lines.append(f"recording {recording}")
        if message:
            lines.append(message)
        if self._clock() < self._hint_until:
            lines.append(_HINT)
        return lines
