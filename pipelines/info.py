"""Report of this machine: versions, devices, models, encoders."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import av
import torch

from mhnet_video import __version__
from mhnet_video.engines.select import llvm_machine, llvm_obstacle
from mhnet_video.errors import first_line
from mhnet_video.media.encoders.encoder import working_encoders
from mhnet_video.model.weights import list_models

_PACKAGES = ("torch", "av", "numpy", "safetensors", "triton", "llvmlite", "opencv-python")
"""Distributions whose versions a bug report needs."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that ships with the package."""

    name: str
    path: str
    size_bytes: int
    description: str
    """Its purpose, in one line."""
    task: str
    """What it removes, one of `tasks.TRAINED`."""
    config: dict[str, Any]
    """Sizes of the network."""
    training: dict[str, Any]
    """Settings of its training."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Versions, devices, models and encoders of this machine."""

    versions: dict[str, str]
    """Versions of this package, of Python and of the packages that it depends on."""
    devices: dict[str, str]
    """Devices, by their names for `--device`, with descriptions."""
    engine: str
    """The engine for the CPU, and the reason for it."""
    models: tuple[Model, ...]
    encoders: tuple[str, ...]
    """Video encoders that open on this machine."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def collect_info() -> Info:
    """Inspect this machine. Opening each encoder once takes a second or two."""
    return Info(
        versions=versions(),
        devices=_devices(),
        engine=_engine(),
        models=_models(),
        encoders=tuple(working_encoders()),
    )


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the packages that it stands on."""
    found = {"mhnet-video": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["ffmpeg"] = av.ffmpeg_version_info
    return found


def _devices() -> dict[str, str]:
    cpu = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    devices = {"cpu": f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used"}
    for index in range(torch.cuda.device_count()):
        try:
            properties = torch.cuda.get_device_properties(index)
        except RuntimeError as error:
            devices[f"cuda:{index}"] = f"cannot be used: {first_line(error)}"
            continue
        gigabytes = properties.total_memory / 2**30
        devices[f"cuda:{index}"] = f"{properties.name}, {gigabytes:.0f} GiB"
    return devices


def _engine() -> str:
    obstacle = llvm_obstacle()
    return f"torch: {obstacle}" if obstacle else f"llvm: {llvm_machine()}"


def _models() -> tuple[Model, ...]:
    return tuple(
        Model(
            name=model.name,
            path=str(model.path),
            size_bytes=model.size_bytes,
            description=model.description,
            task=model.task,
            config=model.config.to_dict(),
            training=model.training,
        )
        for model in list_models()
    )
