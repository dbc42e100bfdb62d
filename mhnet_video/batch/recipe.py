"""What decides what becomes of a source: if it changes, the source is restored anew."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mhnet_video.batch.manifest import hash_of
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import WeightsError

_WITHOUT_EFFECT = ("model", "weights", "device", "engine", "overwrite")
"""Settings that name the weights, whose hash counts, or that change no sample by over a level."""


def recipe_of(config: RestoreConfig, *weights: Path) -> dict[str, Any]:
    """Settings and the weights' hash, as a manifest holds them.

    Args:
        config: The settings.
        weights: The file of the weights, or the files of networks that restore in turn.

    Raises:
        WeightsError: The weights cannot be read.
    """
    settings = asdict(config)
    for name in _WITHOUT_EFFECT:
        del settings[name]
    try:
        settings["weights_sha256"] = "+".join(hash_of(file) for file in weights)
    except OSError as error:
        raise WeightsError(f"cannot read {error.filename}: {error.strerror}") from error
    recipe: dict[str, Any] = json.loads(json.dumps(settings))  # tuples as JSON has them
    return recipe
