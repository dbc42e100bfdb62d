"""What can be taken out of a picture: one entry of one table for each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mhnet_video.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something that networks take out, or several things that they take out in turn."""

    removes: str
    """What it takes out, for a sentence."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Its default model on each kind of device, `cpu` and `cuda`; empty where none ships."""
    steps: tuple[str, ...] = ()
    """The tasks that are done in turn, in this order; empty for one of its own."""
    is_filtered: bool = True
    """Whether restored frames go through the temporal filter, which averages where nothing moves:
    a remainder of rain is there too, motion blur is not."""
    is_rain: bool = True
    """Whether it only takes out what there is in rain: a clip without rain is dry, and may be left
    as it is."""


TASKS: Mapping[str, Task] = {
    "derain": Task(removes="rain", models={"cpu": "realtime", "cuda": "quality"}),
    "raindrop": Task(
        removes="rain and drops on the glass",
        models={"cpu": "windscreen-realtime", "cuda": "windscreen"},
    ),
    "deblur": Task(
        removes="motion blur",
        models={"cpu": "deblur-realtime", "cuda": "deblur-realtime"},
        is_filtered=False,
        is_rain=False,
    ),
    "derain+deblur": Task(
        removes="rain, then motion blur", steps=("derain", "deblur"), is_rain=False
    ),
}
"""All tasks by their names."""

DEFAULT = "derain"
"""The task where neither a task nor weights are named: weights do what they were trained for."""
TRAINED = tuple(name for name, task in TASKS.items() if not task.steps)
"""The tasks that a network is trained for."""


def check_task(name: str, names: Sequence[str] = tuple(TASKS)) -> None:
    """Check what is to be taken out.

    Raises:
        ConfigError: It is none of the names.
    """
    if name not in names:
        raise ConfigError(f"task must be one of {', '.join(names)}, not {name}")


def steps_of(name: str) -> tuple[str, ...]:
    """The tasks that are done in turn for one; itself where it is a single one.

    Raises:
        ConfigError: There is no such task.
    """
    check_task(name)
    return TASKS[name].steps or (name,)


def default_model(name: str, kind: str) -> str:
    """The default model of a task of one step.

    Args:
        name: One of `TRAINED`.
        kind: Kind of device; all but `cuda` have the models of `cpu`.

    Raises:
        ConfigError: None ships.
    """
    model = TASKS[name].models.get("cuda" if kind == "cuda" else "cpu")
    if model is None:
        raise no_weights(name)
    return model


def no_weights(name: str) -> ConfigError:
    """The error where no weights for a task of one step ship."""
    return ConfigError(f"no weights for {name} ship yet; name a file of them by --weights")
