"""Tell what this machine has: versions, devices, models, encoders."""

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
from mhnet_video.media.encoder import working_encoders
from mhnet_video.model.weights import list_models

# distributions whose versions matter when a fault is reported
_PACKAGES = ("torch", "av", "numpy", "safetensors", "triton", "llvmlite", "opencv-python")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that ships with the package."""

    name: str
    path: str
    size_bytes: int
    description: str
    """What it is for."""
    task: str
    """What it takes out: `derain` or `raindrop`."""
    config: dict[str, Any]
    """The sizes of its network."""
    training: dict[str, Any]
    """Where its weights come from: the settings of the training."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """What this machine has."""

    versions: dict[str, str]
    """This package's, Python's and those of the packages that it stands on."""
    devices: dict[str, str]
    """Name of a device as `--device` takes it, and what it is."""
    engine: str
    """What runs the networks of this package on the CPU, and why."""
    models: tuple[Model, ...]
    encoders: tuple[str, ...]
    """Video encoders that really open here."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def collect_info() -> Info:
    """Look at this machine; every encoder is opened once, which takes a second or two."""
    return Info(
        versions=_versions(),
        devices=_devices(),
        engine=_engine(),
        models=_models(),
        encoders=tuple(working_encoders()),
    )


def _versions() -> dict[str, str]:
    versions = {"mhnet-video": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    versions["ffmpeg"] = av.ffmpeg_version_info
    return versions


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
