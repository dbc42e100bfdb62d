"""Single frames of a clip, restored by one or several networks, where not each is wanted."""

from collections.abc import Sequence

import torch

from mhnet_video.config import Settings
from mhnet_video.frame import Frame
from mhnet_video.restoration.executors import Counts
from mhnet_video.restoration.task_step import TaskStep
from mhnet_video.restoration.working_scale import scale_by_size

_Restored = tuple[Frame, Settings, Frame]
"""A frame, the settings, and the frame restored by all steps but the last."""


class SingleFrames:
    """Restores one of some successive frames at a time. Not thread-safe.

    The last network sees neighbours, which the networks before it have to restore first. They are
    kept for the next call, which mostly asks for a frame close by.

    Args:
        steps: The networks in turn.
        device: That of the networks.
    """

    def __init__(self, steps: Sequence[TaskStep], device: torch.device) -> None:
        self._steps = steps
        self._device = device
        self._restored: list[_Restored] = []

    def restore(
        self, frames: Sequence[Frame], index: int, settings: Settings
    ) -> tuple[Frame, Counts]:
        """Restore a frame.

        Args:
            frames: Successive frames of one size.
            index: Which of them to restore.
            settings: How; a live frame passes where a look shows nothing to take out. Of several
                networks in turn all restore each frame.

        Returns:
            The frame restored, and what the last network has counted so far.
        """
        if len(self._steps) > 1:
            return self._through(frames, index, settings, self._steps)
        (step,), scale = self._steps, self._scale(self._steps[0], frames[index], settings)
        return step.restore_frame(frames, index, settings, scale, passes_dry=settings.is_live)

    def prepare_looks(self, frames: Sequence[Frame], index: int, settings: Settings) -> None:
        """Make ready what `restore` needs to let dry frames pass."""
        if len(self._steps) == 1:
            scale = self._scale(self._steps[0], frames[index], settings)
            self._steps[0].prepare_looks(frames, index, settings, scale)

    def forget(self) -> None:
        """Take the next frames for those of another clip or place."""
        self._restored = []
        for step in self._steps:
            step.forget()

    def _through(
        self, frames: Sequence[Frame], index: int, settings: Settings, steps: Sequence[TaskStep]
    ) -> tuple[Frame, Counts]:
        *before, last = steps
        if before:
            first = max(0, index - last.behind)
            around = range(first, min(len(frames), index + last.ahead + 1))
            known, self._restored = self._restored, []
            for each in around:
                self._restored.append(self._known(known, frames, each, settings, before))
            frames, index = [restored for *_, restored in self._restored], index - first
        scale = self._scale(last, frames[index], settings)
        return last.restore_frame(frames, index, settings, scale)

    def _scale(self, step: TaskStep, frame: Frame, settings: Settings) -> float:
        size = frame.height, frame.width
        return scale_by_size(settings.scale, *size, self._device, enlarges=step.enlarges).scale

    def _known(
        self,
        known: Sequence[_Restored],
        frames: Sequence[Frame],
        index: int,
        settings: Settings,
        steps: Sequence[TaskStep],
    ) -> _Restored:
        """What is kept of a frame, or is made now."""
        for each in known:
            if each[0] is frames[index] and each[1] == settings:
                return each
        restored, _ = self._through(frames, index, settings, steps)
        return frames[index], settings, restored
