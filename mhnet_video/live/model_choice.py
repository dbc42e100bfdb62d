"""Which models a live restoration may choose among, as a person switches them."""

import itertools
from collections.abc import Sequence

from mhnet_video.model.weights import list_models
from mhnet_video.tasks import DEFAULT, no_weights, steps_of


def models_at_hand(model: str = "auto", task: str = DEFAULT) -> list[str]:
    """The models to choose from, the largest first; only the one named, if one is.

    Those of a task of several steps are pairs, with a plus between their names.

    Raises:
        ConfigError: There is no such task, or no model for it in this package.
    """
    if model != "auto":
        return [model]
    shipped = list_models()
    by_step = [[info for info in shipped if info.task == step] for step in steps_of(task)]
    for step, models in zip(steps_of(task), by_step, strict=True):
        if not models:
            raise no_weights(step)
    choices = list(itertools.product(*by_step))
    choices.sort(key=lambda models: sum(info.size_bytes for info in models), reverse=True)
    return ["+".join(info.name for info in models) for models in choices]


class ModelChoice:
    """The models in use, and those that a person has asked for since.

    Any thread may ask; one thread takes what was asked for.

    Args:
        models: Models to begin with, the largest first.
        every: All models, the largest first; empty if they cannot be switched.
    """

    def __init__(self, models: Sequence[str], every: Sequence[str]) -> None:
        self.models = list(models)
        """In use, the largest first."""
        self._every = list(every)
        self._requested: list[str] | None = None

    def next(self) -> str:
        """Request the next model, and after the last one automatic choice.

        Returns:
            What was requested, for people.
        """
        if not self._every:
            return "one model only: the weights file"
        if len(self._every) == 1:
            return f"one model only: {self._every[0]}"
        choices = [self._every, *([name] for name in self._every)]
        using = self._requested or self.models
        index = choices.index(using) if using in choices else 0
        self._requested = choices[(index + 1) % len(choices)]
        return ", ".join(self._requested)

    def take_request(self) -> list[str] | None:
        """The models that were requested since the last call, now in use; None if none were."""
        requested, self._requested = self._requested, None
        if requested is not None:
            self.models = requested
        return requested
