"""Holds the rate of a live source: chooses model and working scale, and adapts them to the load.

`choose_level` and `Governor` are plain logic, which know neither clocks nor networks. `Pacer`
restores frames at the level that they choose.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from weakref import WeakSet

import numpy as np

from mhnet_video.errors import ConfigError, ShortageError, first_line
from mhnet_video.frame import Frame
from mhnet_video.memory import give_back, is_shortage
from mhnet_video.model.weights import list_models
from mhnet_video.restoration.restorer import Restorer

_log = logging.getLogger(__name__)

SCALES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)
"""Working scales, the best first. Below the last a streak is a tenth of a pixel wide."""

_SHARE = 0.85
"""Share of the budget that a level may take: the rest is for what else the machine does."""
_MIN_FRAMES = 6
"""Frames from which on the median tells, where they take less than `_SLOW_SECONDS`."""
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
_MEASURE_RUNS = 4
"""Frames by which a level is measured, at most."""
_MEASURE_SECONDS = 0.3
"""How long a level is measured, at most, after the first frame."""
_START_PIXELS = 640 * 480
"""Pixels of the first level that is measured, at most."""
_KEPT_LEVELS = 3
"""Levels whose restorers are kept."""
_CLOSE_SECONDS = 2.0
"""How long closing waits for a level that is being prepared, which can take much longer."""
_END_SECONDS = 60.0
"""How long the end of the process waits for such a level."""


@dataclass(frozen=True)
class Level:
    """A model and the working scale at which it runs."""

    model: str
    scale: float

    def __str__(self) -> str:
        """As a person reads it."""
        return self.model if self.scale == 1 else f"{self.model} at {self.scale:.0%} scale"


def list_levels(models: Sequence[str], scale: float | None = None) -> list[Level]:
    """The levels to choose from, the best first.

    Larger models only at full scale: the smallest one there is better than a larger one that sees
    a blurred picture.

    Args:
        models: Names, the largest first.
        scale: The only working scale; None for all.
    """
    if scale is not None:
        return [Level(model, scale) for model in models]
    return [Level(model, 1.0) for model in models[:-1]] + [
        Level(models[-1], each) for each in SCALES
    ]


def choose_level(
    levels: Sequence[Level],
    seconds_of: Callable[[Level], float],
    budget_seconds: float,
    start: int = 0,
) -> tuple[int, dict[Level, float]]:
    """The best level that fits a frame's budget, with as few measurements as will do.

    Each costs seconds where an engine compiles kernels for a size, so what has been measured tells
    where to measure next: the time goes with the area.

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
        self._recent: deque[tuple[float, float]] = deque()
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

    def note(self, now: float, seconds: float) -> bool:
        """Take the time that a frame took.

        Args:
            now: A clock that never goes back, in seconds.
            seconds: Time of the frame at the present level.

        Returns:
            Whether the level has changed.
        """
        if self._to_skip:
            self._to_skip -= 1
            return False
        self._recent.append((now, seconds))
        while now - self._recent[0][0] > 2 * _SLOW_SECONDS:
            self._recent.popleft()
        span = now - self._recent[0][0]
        if len(self._recent) < _MIN_FRAMES and span < _SLOW_SECONDS:
            return False
        usual = median(seconds for _, seconds in self._recent)
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


class Pacer:
    """Restores frames of a live stream at the rate of its source.

    A level is made ready on a thread of its own, as an engine may compile kernels for its size,
    and taken up when it is.

    Args:
        make: Makes the restorer of a model.
        models: Models at hand, the largest first.
        budget_seconds: Time from one frame of the source to the next.
        scale: The only working scale; None for what the machine can do.
        clock: A clock that never goes back, in seconds.
        run: Runs what takes long, elsewhere; gives the thread that does, if one does.
    """

    def __init__(
        self,
        make: Callable[[str], Restorer],
        models: Sequence[str],
        *,
        budget_seconds: float,
        scale: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
        run: Callable[[Callable[[], None]], threading.Thread | None] | None = None,
    ) -> None:
        self._make = make
        self._clock = clock
        self._scale = scale
        self._run = run or _on_thread
        self._ready: dict[Level, Restorer] = {}
        self._preparing: Level | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self.governor = Governor(list_levels(models, scale), 0, budget_seconds)
        self.level = self.governor.level
        """The model and scale in use."""
        self.seconds = 0.0
        """Time that the last frame took."""

    def measure(self, frame: Frame) -> None:
        """Pick the level by running it on a frame of the source, a few times.

        Args:
            frame: Of the size and format that will come.

        Raises:
            StopIteration: It was closed.
        """
        levels, budget = self.governor.levels, self.governor.budget_seconds
        smallest = levels[-1].model
        pixels = frame.width * frame.height
        # the smallest model, at a size that does not take long on any machine
        start = next(
            (
                index
                for index, level in enumerate(levels)
                if level.model == smallest and pixels * level.scale**2 <= _START_PIXELS
            ),
            len(levels) - 1,
        )
        index, measured = choose_level(
            levels, lambda level: self._time(level, frame), budget, start
        )
        self.governor = Governor(levels, index, budget, measured)
        self.level = self.governor.level
        self.seconds = measured[self.level]
        self._keep_few()

    def use(self, models: Sequence[str], frame: Frame) -> None:
        """Choose among other models from now on.

        Raises:
            StopIteration: It was closed.
        """
        levels = list_levels(models, self._scale)
        self.governor = Governor(levels, 0, self.governor.budget_seconds)
        self.measure(frame)

    def restore(self, frames: Sequence[Frame], index: int, strength: float = 1.0) -> Frame:
        """Restore one of some successive frames; what it took decides on the level of the next.

        Args:
            frames: What `Restorer.restore_frame` takes.
            index: Likewise.
            strength: Share of the restoration that is applied, 0 to 1.
        """
        wanted, level = self.governor.level, self.level
        if wanted != level:
            if wanted in self._ready:
                level = wanted
            elif self._preparing is None and not self._is_closed:
                self._preparing = wanted
                self._thread = self._run(lambda: self._prepare(wanted, frames[index]))
        restorer = self._ready[level]
        restorer.strength = strength
        begin = self._clock()
        restored = restorer.restore_frame(frames, index)
        end = self._clock()
        self.seconds = end - begin
        if level != self.level:
            self.level = level
            self._keep_few()
        # without restoration, or while another level is made ready, it says nothing
        if strength and level == wanted:
            self.governor.note(end, self.seconds)
        return restored

    def close(self) -> None:
        """Make no more levels ready; from any thread.

        One that is being made ready is waited for, but not long: it ends after the step it is in.
        """
        self._is_closed = True
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_SECONDS)

    def _prepare(self, level: Level, frame: Frame) -> None:
        try:
            # each step compiles kernels, which may take seconds
            if self._is_closed:
                return
            restorer = self._new(level)
            if self._is_closed:
                return
            restorer.restore_frame([_moved(frame, step) for step in range(3)], 1)
            self._ready[level] = restorer
        except Exception as error:
            # when the process ends, the engine's threads take nothing any more
            if not self._is_closed:
                _log.warning(
                    "%s at %.0f %% of the size cannot run here (%s): it is left out",
                    level.model,
                    100 * level.scale,
                    first_line(error),
                )
                self.governor = self.governor.without(level, self.level)
        finally:
            self._preparing = None

    def _new(self, level: Level) -> Restorer:
        restorer = self._make(level.model)
        restorer.scale = level.scale
        return restorer

    def _keep_few(self) -> None:
        """Forget levels that were used long ago: each holds the maps of its size."""
        self._ready[self.level] = self._ready.pop(self.level)
        forgotten = list(self._ready)[:-_KEPT_LEVELS]
        for level in forgotten:
            del self._ready[level]
        if forgotten and not self._is_closed:
            self._run(give_back)

    def _time(self, level: Level, frame: Frame) -> float:
        """The least time of a frame, the first run not counted; infinite for want of memory."""
        try:
            return self._least_time(level, frame)
        except (ConfigError, RuntimeError) as error:
            is_last = level == self.governor.levels[-1]
            if is_last or not (isinstance(error, ShortageError) or is_shortage(error)):
                raise
            self._ready.pop(level, None)
            return float("inf")

    def _least_time(self, level: Level, frame: Frame) -> float:
        if level not in self._ready:
            self._ready[level] = self._new(level)
        restorer = self._ready[level]
        frames = [_moved(frame, step) for step in range(3)]
        times: list[float] = []
        for run in range(1 + _MEASURE_RUNS):
            if self._is_closed:
                raise StopIteration
            begin = self._clock()
            restorer.restore_frame(frames, 1)
            if run:
                times.append(self._clock() - begin)
            if sum(times) > _MEASURE_SECONDS:
                break
            # as in a stream, one of the three is new
            frames = [*frames[1:], _moved(frame, run + 3)]
        return min(times)


def _moved(frame: Frame, step: int) -> Frame:
    """Another frame of a camera that turns: equal ones are no neighbours, and cost less."""
    planes = [np.roll(plane, step, axis=1) for plane in frame.planes]
    planes[0][0, 0] = step  # where all is of one colour too
    return replace(frame, planes=tuple(planes))


_threads: WeakSet[threading.Thread] = WeakSet()


def _on_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name="mhnet-video level", daemon=True)
    _threads.add(thread)
    thread.start()
    return thread


@atexit.register
def _end_threads() -> None:
    """Wait for threads: PyTorch aborts if the interpreter ends while one is in a call of it."""
    for thread in list(_threads):
        thread.join(_END_SECONDS)


def models_at_hand(model: str = "auto", task: str = "derain") -> list[str]:
    """The models to choose from, the largest first; only the one named, if one is.

    Raises:
        ConfigError: There is no model for the task in this package.
    """
    if model != "auto":
        return [model]
    models = [info for info in list_models() if info.task == task]
    shipped = sorted(models, key=lambda info: info.size_bytes, reverse=True)
    if not shipped:
        raise ConfigError(f"there is no model for {task} in this package; give --weights FILE")
    return [info.name for info in shipped]
