"""Report of this machine: versions, system, devices, models, encoders: what a bug report needs."""

import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import av
import torch

from mhnet_video import __version__
from mhnet_video.batch.machine import usable_cores
from mhnet_video.cache_folder import cache_folder
from mhnet_video.engines.select import llvm_machine, llvm_obstacle, triton_obstacle
from mhnet_video.errors import first_line
from mhnet_video.media.encoders.encoder import working_encoders
from mhnet_video.model.weights import list_models, resolve_device

_PACKAGES = (
    "torch",
    "av",
    "numpy",
    "safetensors",
    "triton",
    "llvmlite",
    "opencv-python",
    "pillow",
    "filelock",
    "aiohttp",
    "aiortc",
    "onnxruntime",
)
"""Distributions whose versions a bug report needs."""
_SETTINGS = ("MHNET_CPU_ISA", "MHNET_DEBUG", "MHNET_HWACCEL", "MHNET_TRITON")
"""Environment variables that change what the program does."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that ships with the package."""

    name: str
    path: str
    size_bytes: int
    sha256: str
    """Of its file, in hexadecimal."""
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
    """Versions, system, devices, models and encoders of this machine. The home folder is `~`."""

    versions: dict[str, str]
    """Versions of this package, of Python and of the packages that it depends on."""
    system: dict[str, str]
    """Operating system, processor with its instructions, cores, and memory."""
    settings: dict[str, str]
    """The environment variables of this program that are set."""
    devices: dict[str, str]
    """Devices, by their names for `--device`, with descriptions."""
    engine: str
    """The engine for the device that `auto` takes, and the reason for it."""
    cache: str
    """Folder of compiled kernels and of verdicts on GPUs; empty without one."""
    models: tuple[Model, ...]
    encoders: tuple[str, ...]
    """Video encoders that open on this machine."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values: dict[str, Any] = without_home(asdict(self))
        return values


def collect_info() -> Info:
    """Inspect this machine. Opening each encoder once takes a second or two."""
    return Info(
        versions=versions(),
        system=_system(),
        settings={name: os.environ[name] for name in _SETTINGS if name in os.environ},
        devices=_devices(),
        engine=_engine(),
        cache=_cache(),
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


def without_home(value: Any) -> Any:
    """Plain values with `~` for the home folder: its name is often a person's."""
    if isinstance(value, dict):
        return {key: without_home(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_home(each) for each in value)
    home = os.path.expanduser("~")
    if not isinstance(value, str) or len(home) < 2:
        return value
    return re.sub(rf"{re.escape(home)}(?=[/\\]|$)", "~", value)


def _system() -> dict[str, str]:
    return {
        "os": f"{platform.platform()}{_distribution()}",
        "processor": f"{platform.machine()}, {_processor()}",
        "instructions": " ".join(_instructions()),
        "cores": f"{os.cpu_count()}, {usable_cores()} of them for this process",
        "memory": f"{memory_bytes() / 2**30:.1f} GiB",
    }


def memory_bytes() -> int:
    """Memory of this machine, in bytes; 0 where the system does not say it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return 0


def _distribution() -> str:
    try:
        return f", {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return ""


def _processor() -> str:
    """The processor's name, or the kind that the system names."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "of unknown name"


def _instructions() -> list[str]:
    """Extensions of the instruction set, as LLVM names them; without it PyTorch's summary."""
    try:
        from llvmlite.binding import get_host_cpu_features
    except (ImportError, OSError):
        return [torch.backends.cpu.get_cpu_capability()]
    return sorted(name for name, has in get_host_cpu_features().items() if has)


def _cache() -> str:
    return str(without_home(str(cache_folder() or "")))


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
    if torch.backends.mps.is_available():
        devices["mps"] = "the GPU of this Mac; taken where it is named"
    return devices


def _engine() -> str:
    device = resolve_device("auto")
    if device.type != "cpu":
        obstacle = triton_obstacle()
        return f"torch: {obstacle}" if obstacle else f"triton on {device}, if it passes its check"
    obstacle = llvm_obstacle()
    return f"torch: {obstacle}" if obstacle else f"llvm: {llvm_machine()}"


def _models() -> tuple[Model, ...]:
    return tuple(
        Model(
            name=model.name,
            path=str(model.path),
            size_bytes=model.size_bytes,
            sha256=model.sha256,
            description=model.description,
            task=model.task,
            config=model.config.to_dict(),
            training=model.training,
        )
        for model in list_models()
    )
