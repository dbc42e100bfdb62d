"""Which model and working scale hold the rate of a live source, and when to change them.

Plain logic, without clocks or networks; `Pacer` restores frames at the level that it chooses.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

SCALES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)
"""Working scales, the best first. Below the last a streak is a tenth of a pixel wide."""

_SHARE = 0.85
"""Share of the budget that a level may take: the rest is for what else the machine does."""
_MIN_FRAMES = 6
"""Least number of frames for a median, where they take less than `_SLOW_SECONDS`."""
_SLOW_SECONDS = 1.0
"""How long a level must be too slow before it is left."""
_ROOM_SECONDS = 5.0
"""How long a better level must fit the budget before it is tried."""
_MAX_ROOM_SECONDS = 80.0
"""Longest such time, as it doubles with every failed trial."""
_TRIAL_SECONDS = 15.0
"""A better level that is left sooner than this was a failed trial."""
_SKIPPED = 2
"""Frames after a change that do not count: they allocate new buffers."""


@dataclass(frozen=True)
class Level:
    """A model and the working scale at which it runs."""

    model: str
    scale: float

    def __str__(self) -> str:
        """As a person reads it."""
        return self.model if self.scale == 1 else f"{self.model} at {self.scale:.0%} scale"


def list_levels(
    models: Sequence[str], scale: float | None = None, most: float = 1.0
) -> list[Level]:
    """The levels to choose from, the best first.

    Larger models only at the best scale: the smallest one there is better than a larger one that
    sees a blurred picture.

    Args:
        models: Names, the largest first.
        scale: The only working scale; None for all.
        most: The best working scale for the picture, where all are meant.
    """
    if scale is not None:
        return [Level(model, scale) for model in models]
    scales = [most, *(each for each in SCALES if each < most)]
    return [Level(model, most) for model in models[:-1]] + [
        Level(models[-1], each) for each in scales
    ]


def choose_level(
    levels: Sequence[Level],
    seconds_of: Callable[[Level], float],
    budget_seconds: float,
    start: int = 0,
) -> tuple[int, dict[Level, float]]:
    """The best level that fits a frame's budget, with as few measurements as will do.

    Each costs seconds where an engine compiles kernels for a size, so each measurement
    decides where to measure next: the time is proportional to the area.

    Args:
        levels: The best, and slowest, first.
        seconds_of: Measures the time of a frame.
        budget_seconds: Time from one frame of the source to the next.
        start: Index of the level to measure first.

    Returns:
        The level's index, that of the last one if none fits, and what was measured.
    """
    room = _SHARE * budget_seconds
    index = start
    measured = {levels[index]: seconds_of(levels[index])}
    while measured[levels[index]] > room and index + 1 < len(levels):
        lower = range(index + 1, len(levels))
        fitting = (each for each in lower if _guess(levels, measured, index, each) <= room)
        index = next(fitting, len(levels) - 1)
        if levels[index] not in measured:
            measured[levels[index]] = seconds_of(levels[index])
    while index > 0 and levels[index - 1] not in measured:
        if _guess(levels, measured, index, index - 1) > room:
            break
        measured[levels[index - 1]] = seconds_of(levels[index - 1])
        if measured[levels[index - 1]] > room:
            break
        index -= 1
    return index, measured


def _guess(
    levels: Sequence[Level], measured: Mapping[Level, float], known: int, wanted: int
) -> float:
    """The time of a frame at a level, from that at another one."""
    now, then = levels[known], levels[wanted]
    if now.model == then.model:
        return measured[now] * (then.scale / now.scale) ** 2
    # the next larger model takes at least twice as long, or it would be the smaller one
    return measured[now] * (2.0 if wanted < known else 0.5)


class Governor:
    """Changes the level when the time of a frame does, without swinging.

    It goes down as soon as frames take longer than the budget for a second, and up when a better
    level has had room for a while, which grows with every try that failed.

    Args:
        levels: The best first.
        index: The level to begin with.
        budget_seconds: Time from one frame of the source to the next.
        measured: Seconds of a frame at the levels that were measured.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        index: int,
        budget_seconds: float,
        measured: Mapping[Level, float] | None = None,
    ) -> None:
        self.levels = list(levels)
        self.index = index
        self.budget_seconds = budget_seconds
        self._measured = dict(measured or {})
        # when, how long, and whether in full
        self._recent: deque[tuple[float, float, bool]] = deque()
        self._to_skip = _SKIPPED
        self._room_since: float | None = None
        self._patience = [_ROOM_SECONDS] * len(self.levels)
        self._risen_at: float | None = None

    @property
    def level(self) -> Level:
        """The level at which the next frame is to be restored."""
        return self.levels[self.index]

    def without(self, level: Level, used: Level) -> "Governor":
        """One that begins anew at the level that is used, and never asks for another one again.

        Args:
            level: The other one.
            used: The one in use.
        """
        levels = [each for each in self.levels if each != level]
        if used not in levels:
            return self
        return Governor(levels, levels.index(used), self.budget_seconds, self._measured)

    def among(self, levels: Sequence[Level]) -> "Governor":
        """One for other scales of the same models, at the best that fits by what was measured.

        Args:
            levels: The best first.
        """
        measured = {level: self._time_of(level) for level in levels}
        room = _SHARE * self.budget_seconds
        fitting = (index for index, level in enumerate(levels) if measured[level] <= room)
        index = next(fitting, len(levels) - 1)
        known = {level: time for level, time in measured.items() if time < float("inf")}
        return Governor(levels, index, self.budget_seconds, known)

    def _time_of(self, level: Level) -> float:
        """Time of a frame at any level, by that of the same model at the nearest scale."""
        known = [each for each in self._measured if each.model == level.model]
        if not known:
            return float("inf")
        nearest = min(known, key=lambda each: abs(each.scale - level.scale))
        return self._measured[nearest] * (level.scale / nearest.scale) ** 2

    def note(self, now: float, seconds: float, *, is_full: bool = True) -> bool:
        """Take the time that a frame took.

        Args:
            now: A clock that never goes back, in seconds.
            seconds: Time of the frame at the present level.
            is_full: Whether the network restored it. Of one that passed as it is, it is only known
                that restoring would have taken longer.

        Returns:
            Whether the level has changed.
        """
        if not is_full and seconds <= self.budget_seconds:
            # nothing is known of restoring, and slow ones among those that pass were an exception
            self._recent = deque(each for each in self._recent if each[2])
            return False
        if self._to_skip:
            self._to_skip -= 1
            return False
        self._recent.append((now, seconds, is_full))
        while now - self._recent[0][0] > 2 * _SLOW_SECONDS:
            self._recent.popleft()
        if len(self._recent) == 1:  # before that, frames passed: what was known is too old
            self._room_since = None
        span = now - self._recent[0][0]
        if len(self._recent) < _MIN_FRAMES and span < _SLOW_SECONDS:
            return False
        usual = median(seconds for _, seconds, _ in self._recent)
        if usual > self.budget_seconds:
            self._room_since = None
            if span >= _SLOW_SECONDS and self.index + 1 < len(self.levels):
                self._fall(now, usual)
                return True
            return False
        if self._risen_at is not None and now - self._risen_at > _TRIAL_SECONDS:
            self._risen_at = None
            self._patience[self.index] = _ROOM_SECONDS
        if self.index == 0 or usual * self._ratio(self.index - 1) > _SHARE * self.budget_seconds:
            self._room_since = None
            return False
        if self._room_since is None:
            self._room_since = now
        if now - self._room_since < self._patience[self.index - 1]:
            return False
        self._move(self.index - 1)
        self._risen_at = now
        return True

    def _fall(self, now: float, usual: float) -> None:
        """Go down as far as it takes."""
        if self._risen_at is not None and now - self._risen_at <= _TRIAL_SECONDS:
            longer = 2 * self._patience[self.index]
            self._patience[self.index] = min(longer, _MAX_ROOM_SECONDS)
        self._risen_at = None
        target = self.index + 1
        while (
            target + 1 < len(self.levels)
            and usual * self._ratio(target) > _SHARE * self.budget_seconds
        ):
            target += 1
        self._move(target)

    def _move(self, index: int) -> None:
        self.index = index
        self._recent.clear()
        self._room_since = None
        self._to_skip = _SKIPPED

    def _ratio(self, index: int) -> float:
        """How much longer a frame takes at another level, from what was measured or the area."""
        now, then = self.level, self.levels[index]
        if now in self._measured and then in self._measured:
            return self._measured[then] / self._measured[now]
        if now.model == then.model:
            return float((then.scale / now.scale) ** 2)
        return float("inf") if index < self.index else 0.0
