"""Restores live frames by the model and working scale that hold the rate of their source."""

import time
from collections.abc import Sequence

from mhnet_video.config import Box, LiveConfig
from mhnet_video.frame import Frame
from mhnet_video.live.adaptive_quality import Level
from mhnet_video.live.model_choice import ModelChoice, models_at_hand
from mhnet_video.live.pacer import Pacer
from mhnet_video.model.weights import list_models, task_done
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.scene_changes import CutDetector
from mhnet_video.restoration.temporal_average import FrameAverage
from mhnet_video.restoration.working_scale import ScaleChooser
from mhnet_video.tasks import DEFAULT

_MIN_NETWORK_SHARE = 1 / 4
"""Share of the time from frame to frame that the network has, however slow the filter is."""
_LOOK_SECONDS = 10.0
"""Seconds after which it is measured again how sharp the picture is: a camera may find its focus
late, and live there is no end to a scene."""
_NEW_WEIGHT = 1 / 10
"""Weight of the newest frame in the running mean of the filter's time."""


class AdaptiveRestorer:
    """The network at the best level that holds the rate, then the temporal filter.

    One thread restores; any thread may read, close, and request another model.

    Args:
        config: Settings.

    Raises:
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit this machine.
    """

    def __init__(self, config: LiveConfig) -> None:
        self._config = config
        named = [config.weights] if config.weights else []
        task = task_done(config.task, config.model, config.weights)
        models = named or models_at_hand(config.model, task)
        self._choice = ModelChoice(models, [] if named else models_at_hand(task=task))
        # errors of a model or the device come before the camera is opened
        self._first = self._new(models[-1])
        self._unused: dict[str, Restorer] = {models[-1]: self._first}
        self._filter = _TimedFilter()
        # what is measured of sharpness is true of streaks alone
        is_measured = self._first.tasks == (DEFAULT,)
        self._sharpness = _Sharpness(ScaleChooser(self._first.device, measures=is_measured))
        self._pacer: Pacer | None = None
        self._is_measured = False
        self._is_closed = False

    @property
    def ahead(self) -> int:
        """Frames after the one to restore that are waited for."""
        return self._first.ahead

    @property
    def behind(self) -> int:
        """Frames before the one to restore that any model may see."""
        return max(self._first.behind, *(info.config.frames // 2 for info in list_models()))

    @property
    def device(self) -> str:
        """PyTorch's name of the device."""
        return str(self._first.device)

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return self._first.engine.name

    @property
    def level(self) -> Level:
        """Model and working scale in use; those of no model before `measure`."""
        return self._pacer.level if self._pacer and self._is_measured else Level("", 1.0)

    @property
    def seconds(self) -> float:
        """Time that the last frame took in the network; 0 before `measure`."""
        return self._pacer.seconds if self._pacer and self._is_measured else 0.0

    @property
    def budget_seconds(self) -> float:
        """Time that the network may take for a frame; 0 before `measure`."""
        return self._pacer.governor.budget_seconds if self._pacer else 0.0

    def measure(self, frame: Frame, fps: float) -> None:
        """Choose the level by running it on a frame.

        Args:
            frame: Of the size and format that will come.
            fps: Frame rate of the source.

        Raises:
            StopIteration: It was closed.
        """
        self._pacer = Pacer(
            self._restorer_of,
            self._choice.models,
            budget_seconds=1 / fps,
            scale=self._config.scale,
            most=self._sharpness.best_scale(frame) if self._config.scale is None else 1.0,
        )
        if self._is_closed:
            raise StopIteration
        self._pacer.measure(frame)
        self._is_measured = True

    def restore(self, frames: Sequence[Frame], index: int, *, fps: float, strength: float) -> Frame:
        """Restore one of some successive frames; `measure` comes first.

        Args:
            frames: What `Restorer.restore_frame` takes.
            index: Likewise.
            fps: Frame rate of the source now: that of a camera changes in the dark.
            strength: Share of the restoration that is applied, 0 to 1.

        Raises:
            StopIteration: It was closed while another model was measured.
        """
        if self._pacer is None:
            raise ValueError("measure comes before restore")
        pacer, frame = self._pacer, frames[index]
        requested = self._choice.take_request()
        if requested is not None:
            pacer.use(requested, frame)
        if self._config.scale is None and self._sharpness.changes(frame):
            pacer.limit(self._sharpness.scale)
        interval = 1 / fps
        pacer.governor.budget_seconds = max(
            interval - self._filter.seconds, interval * _MIN_NETWORK_SHARE
        )
        after = pacer.restore(frames, index, strength)
        return self._filter.push(frame, after, share=strength, keep=self._config.keep)

    def next_model(self) -> str:
        """Request the next model, and after the last one automatic choice.

        Returns:
            What was requested, for people.
        """
        return self._choice.next()

    def close(self) -> None:
        """End the measuring, from any thread."""
        self._is_closed = True
        if self._pacer is not None:
            self._pacer.close()

    def _restorer_of(self, model: str) -> Restorer:
        return self._unused.pop(model, None) or self._new(model)

    def _new(self, model: str) -> Restorer:
        config = self._config
        return Restorer(
            "auto" if config.weights else model,
            task=config.task,
            weights=config.weights,
            device=config.device,
            engine=config.engine,
            keep=config.keep,
        )


class _Sharpness:
    """The best working scale for the picture: once for each scene, and again after a while."""

    def __init__(self, chooser: ScaleChooser) -> None:
        self._chooser = chooser
        self._cuts = CutDetector()
        self._looked = 0.0
        self.scale = 1.0
        """The best working scale, above 0 to 1."""

    def best_scale(self, frame: Frame) -> float:
        """Measure a frame."""
        self._looked = time.monotonic()
        self.scale = self._chooser.choose([frame], None, is_cut=True).scale
        return self.scale

    def changes(self, frame: Frame) -> bool:
        """Take the next frame, and return whether another scale is the best now."""
        is_cut = self._cuts.push(frame)
        before = self.scale
        is_due = time.monotonic() - self._looked >= _LOOK_SECONDS
        return (is_cut or is_due) and self.best_scale(frame) != before


class _TimedFilter:
    """The temporal filter, and how long it takes."""

    def __init__(self) -> None:
        self._average = FrameAverage()
        self._is_first = True
        self.seconds = 0.0
        """Time that a frame takes, a running mean."""

    def push(self, before: Frame, after: Frame, *, share: float, keep: Sequence[Box]) -> Frame:
        begin = time.monotonic()
        filtered = self._average.push(before, after, share=share, keep=keep)
        if not self._is_first:  # the first frame also loads OpenCV
            self.seconds += _NEW_WEIGHT * (time.monotonic() - begin - self.seconds)
        self._is_first = False
        return filtered
