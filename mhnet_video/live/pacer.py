"""Restores live frames at the level that holds the rate of their source, on the clock."""

import atexit
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakSet

import numpy as np

from mhnet_video.errors import ConfigError, ShortageError, first_line
from mhnet_video.frame import Frame
from mhnet_video.live.adaptive_quality import Governor, Level, choose_level, list_levels
from mhnet_video.memory import give_back, is_shortage
from mhnet_video.restoration.restorer import Restorer

_log = logging.getLogger(__name__)

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


class Pacer:
    """Restores frames of a live stream at the rate of its source.

    A level is made ready on a thread of its own, as an engine may compile kernels for its size,
    and taken up when it is.

    Args:
        make: Makes the restorer of a model.
        models: Models at hand, the largest first.
        budget_seconds: Time from one frame of the source to the next.
        scale: The only working scale; None for what the machine can do.
        most: The best working scale for the picture, where none is set.
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
        most: float = 1.0,
        clock: Callable[[], float] = time.perf_counter,
        run: Callable[[Callable[[], None]], threading.Thread | None] | None = None,
    ) -> None:
        self._make = make
        self._clock = clock
        self._models = models
        self._scale, self._most = scale, most
        self._run = run or _on_thread
        self._ready: dict[Level, Restorer] = {}
        self._preparing: Level | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self.governor = Governor(list_levels(models, scale, most), 0, budget_seconds)
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
        if self._is_closed:
            raise StopIteration
        self._ready[self.level].prepare_looks([_moved(frame, step) for step in range(3)], 1)

    def use(self, models: Sequence[str], frame: Frame) -> None:
        """Choose among other models from now on.

        Raises:
            StopIteration: It was closed.
        """
        self._models = models
        levels = list_levels(models, self._scale, self._most)
        self.governor = Governor(levels, 0, self.governor.budget_seconds)
        self.measure(frame)

    def limit(self, most: float) -> None:
        """Have another working scale be the best for the picture, where none is set."""
        self._most = most
        levels = list_levels(self._models, self._scale, most)
        self.governor = self.governor.among(levels)

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
        cheap = restorer.dry + restorer.repeated
        begin = self._clock()
        restored = restorer.restore_frame(frames, index, is_live=True)
        end = self._clock()
        is_full = restorer.dry + restorer.repeated == cheap
        self.seconds = end - begin
        if level != self.level:
            self.level = level
            self._keep_few()
        # without restoration, or while another level is made ready, it says nothing
        if strength and level == wanted:
            self.governor.note(end, self.seconds, is_full=is_full)
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
            frames = [_moved(frame, step) for step in range(3)]
            restorer.restore_frame(frames, 1)
            if self._is_closed:
                return
            restorer.prepare_looks(frames, 1)
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
"""Threads that the end of the process waits for."""


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
