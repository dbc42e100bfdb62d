"""Weights on disk: the shipped models, files of one's own, and the authors' checkpoints."""

import contextlib
import hashlib
import json
import logging
import pickle
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from mhnet_video.errors import ConfigError, WeightsError, WriteError, first_line
from mhnet_video.locator import learn
from mhnet_video.model import hub
from mhnet_video.model.network import UNUSED, MHNet, NetworkConfig
from mhnet_video.system import replace_file
from mhnet_video.tasks import DEFAULT, TASKS, check_task, default_model, steps_of

_log = logging.getLogger(__name__)

_Contents = tuple[dict[str, Tensor], NetworkConfig, str]
"""What a file holds: the tensors that the network uses, its sizes, and its task."""

MODELS = Path(__file__).parents[1] / "models"
"""Folder of the shipped weights; a model's name is its file's."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A shipped model."""

    name: str
    path: Path
    size_bytes: int
    config: NetworkConfig
    description: str
    training: dict[str, Any]
    """How it was trained, as `mhnet-video train` wrote it."""

    @property
    def sha256(self) -> str:
        """Of its file, in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def task(self) -> str:
        """What it takes out, one of `tasks.TRAINED`."""
        return _task_of(self.training, self.config)


def _task_of(training: Mapping[str, Any], config: NetworkConfig) -> str:
    """What weights take out; files from before there were several tasks do not say it."""
    return str(training.get("task") or MHNet.usual_task(config))


def models_of(
    task: str | None,
    model: str = "auto",
    weights: str | PathLike[str] | None = None,
    kind: str = "cpu",
) -> tuple[str, ...]:
    """The models of a task: a name or a file for each of its steps.

    Args:
        task: One of `TASKS`; None for what the weights that are named take out, and rain where
            none are.
        model: A model's name, or names with a plus between them for several steps; `auto` for the
            default ones. One that is named replaces that of its own task.
        weights: A weights file to use instead.
        kind: Kind of device; that of `torch.device.type`.

    Raises:
        ConfigError: There is no such task, no model of a step ships, or one is named that takes
            out something else.
        WeightsError: What is named does not exist, or is damaged.
    """
    named = [str(weights)] if weights else [] if model == "auto" else [model]
    if named and task is None:
        return weights_in_turn(named[0])
    task = task or DEFAULT
    steps = steps_of(task)
    if named and not weights:
        named = model.split("+") if len(steps) > 1 else list(weights_in_turn(model))
    by_step = {load_model(name).task: name for name in named}
    for step, name in by_step.items():
        if step not in steps:
            raise ConfigError(
                f"{name} takes out {TASKS[step].removes}; leave --task out, or name weights for "
                f"{task}"
            )
    return tuple(by_step.get(step) or default_model(step, kind) for step in steps)


def weights_in_turn(name: str) -> tuple[str, ...]:
    """The weights that a name stands for: of several models in turn one by one.

    Raises:
        ConfigError: There is no task for which these models run in turn.
    """
    names = tuple(name.split("+"))
    if len(names) == 1 or not all((MODELS / f"{each}.safetensors").is_file() for each in names):
        return (name,)
    check_task("+".join(load_model(each).task for each in names))
    return names


def task_done(
    task: str | None, model: str = "auto", weights: str | PathLike[str] | None = None
) -> str:
    """What is taken out: that of the weights that are named where no task is.

    Args:
        task: One of `TASKS`, or None.
        model: A model's name, or `auto`.
        weights: A weights file to use instead.

    Raises:
        WeightsError: What is named does not exist, or is damaged.
    """
    named = weights or (None if model == "auto" else model)
    if not named or task is not None:
        return task or DEFAULT
    return "+".join(load_model(name).task for name in weights_in_turn(str(named)))


def list_models() -> list[ModelInfo]:
    """The models that ship with the package."""
    return [_info(path) for path in sorted(MODELS.glob("*.safetensors"))]


def training_of(name_or_path: str | PathLike[str]) -> dict[str, Any]:
    """How weights were trained; empty where the file does not say, as the authors' do not.

    Raises:
        WeightsError: There is no such model or file.
    """
    try:
        return _info(locate_weights(name_or_path)).training
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
        return {}


def _info(path: Path) -> ModelInfo:
    with safetensors.safe_open(str(path), framework="pt") as file:
        metadata = dict(file.metadata() or {})
    return ModelInfo(
        name=path.stem,
        path=path,
        size_bytes=path.stat().st_size,
        config=NetworkConfig(**json.loads(metadata["config"])),
        description=metadata.get("description", ""),
        training=json.loads(metadata.get("training", "{}")),
    )


def resolve_device(name: str) -> torch.device:
    """Turn a device setting into a device; `auto` takes CUDA where there is one.

    `mps`, the GPU of a Mac, is taken where it is named and a small network has the CPU's result on
    it; else the CPU is, with a warning.

    Raises:
        ConfigError: There is no such device on this machine.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        device = torch.device("cuda", torch.cuda.current_device())
        if said := _fault(device):
            _log.warning("the GPU cannot be used (%s): the CPU restores", said)
            return torch.device("cpu")
        return device
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:N or mps, not {name}")
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError(
                "device mps is the GPU of a Mac with Apple silicon, and there is none that PyTorch "
                "can use; take --device cpu or auto"
            )
        if said := deviation(device):
            _log.warning("mps cannot be used (%s): the CPU restores", said)
            return torch.device("cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(
            f"device {name} is not on this machine, which has {found or 'no'} CUDA device"
            f"{'' if found == 1 else 's'} that PyTorch can use; take --device cpu or auto"
        )
    if device.type == "cuda":
        if said := _fault(device):
            raise ConfigError(f"{name} cannot be used ({said}); take --device cpu")
        if device.index is None:  # other threads may have another current one
            device = torch.device("cuda", torch.cuda.current_device())
    return device


def _fault(device: torch.device) -> str:
    """Why an installed GPU cannot compute; empty if it can.

    The driver or PyTorch may be too old, or another process may use it exclusively.
    """
    try:
        torch.ones(8, device=device).double().sum().item()
    except RuntimeError as error:
        return first_line(error).rstrip(".")
    return ""


def deviation(device: torch.device) -> str:
    """Why a small network has not the CPU's result on a device; empty if it has."""
    config = NetworkConfig(
        width=8, encoder_blocks=(1, 1, 1, 1), group_blocks=(1, 1, 1, 1), frames=3, align=True
    )
    generator = torch.Generator().manual_seed(0)
    network = MHNet(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    window = torch.rand(1, 3 * config.frames, 48, 64, generator=generator)
    expected = network(window)
    try:
        found = network.to(device)(window.to(device)).cpu()
    except (RuntimeError, NotImplementedError, TypeError) as error:  # an operation is missing
        return first_line(error).rstrip(".")
    difference = float((found - expected).abs().max())
    return "" if difference < 1e-3 else f"its result differs from the CPU's by {difference:.2g}"


def load_model(name_or_path: str | PathLike[str], device: str | torch.device = "cpu") -> MHNet:
    """Build the network that a model or a weights file describes.

    Args:
        name_or_path: A shipped model's name, or a file: safetensors of this package, or a
            checkpoint of the authors (`.pth`; its sizes are read off its tensors). Or a folder that
            `save_pretrained` wrote, or `OWNER/NAME` of a repository on Hugging Face, for which
            `huggingface_hub` must be installed.
        device: Where to put it; a name is one of `auto`, `cpu`, `cuda`, `cuda:<index>` and
            `mps`.

    Returns:
        The network in evaluation mode: from `[N, 3 * pictures, H, W]` to `[N, 3, H, W]`, RGB in
        [0, 1], neither clamped inside; `pictures` is that of `config`.

    Raises:
        WeightsError: There is no such model, or the file is wrong, truncated or foreign; or a
            repository cannot be reached.
        ConfigError: There is no such device on this machine.
    """
    learn(name_or_path)
    path = locate_weights(name_or_path)
    where = resolve_device(device) if isinstance(device, str) else device
    tensors, config, task = _read(path)
    try:
        with torch.device("meta"):
            network = MHNet(config)
        network.load_state_dict(tensors, assign=True)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise WeightsError(f"{path} does not hold the weights of an MHNet: {reason}") from error
    network.task = task
    network.requires_grad_(False)
    return network.to(where).eval()


def locate_weights(name_or_path: str | PathLike[str], *, is_offline: bool = False) -> Path:
    """The file of a shipped model, or the one named; `./realtime` is never the model.

    Of a folder or a repository, the file of its weights; a repository is fetched.

    Args:
        name_or_path: What `load_model` takes.
        is_offline: Whether no repository is fetched, so that only those fetched before are found.

    Raises:
        WeightsError: There is no such model or file, or a folder holds none.
    """
    path = Path(name_or_path)
    shipped = MODELS / f"{path.name}.safetensors"
    if str(name_or_path) == path.name and shipped.is_file():
        return shipped
    if path.is_dir():
        return hub.weights_in(path)
    if hub.is_repository(name_or_path):
        return hub.download(str(name_or_path), is_offline=is_offline)
    if not path.is_file():
        names = ", ".join(model.stem for model in sorted(MODELS.glob("*.safetensors")))
        raise WeightsError(
            f"there is no model or weights file {name_or_path}; the models are: {names or 'none'}"
        )
    return path


def save_weights(
    network: MHNet, path: Path, *, description: str, training: Mapping[str, Any]
) -> Path:
    """Write a network's weights with its sizes and its origin.

    Args:
        network: What to save; in float32, whatever its type.
        path: The safetensors file to create or replace.
        description: One line on what it is for.
        training: How it was trained; plain values.

    Raises:
        WriteError: The disk refuses; nothing is left of the file.
    """
    tensors = {
        name: value.detach().float().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    metadata = {
        "format": "mhnet-video",
        "config": json.dumps(network.config.to_dict()),
        "description": description,
        "training": json.dumps({"task": network.task, **training}),
    }
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(save(tensors, metadata=metadata))
        replace_file(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise WriteError(f"cannot write {path}: {error.strerror}") from error
    return path


def save_pretrained(
    network: MHNet,
    folder: str | PathLike[str],
    *,
    description: str = "",
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network as a folder of the form that Hugging Face has.

    Args:
        network: What to save; in float32, whatever its type.
        folder: The folder to create, or one that is empty.
        description: One line on what it is for.
        training: How it was trained; plain values.

    Returns:
        The folder, with `config.json`, `model.safetensors` and a card, `README.md`.

    Raises:
        WriteError: The folder holds something, or cannot be written.
    """
    folder, training = Path(folder), json.loads(json.dumps(dict(training or {})))
    config = {
        "model_type": "mhnet",
        "task": network.task,
        "description": description,
        **network.config.to_dict(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise WriteError(f"{folder} is not empty; name a new folder")
        (folder / hub.CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(_CARD.format(**config), encoding="utf-8")
        save_weights(network, folder / hub.WEIGHTS, description=description, training=training)
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror}") from error
    return folder


_CARD = """\
---
license: apache-2.0
library_name: mhnet-video
pipeline_tag: image-to-image
---
# MHNet for video: {task}

{description}

```python
from mhnet_video import Restorer

restorer = Restorer(weights="OWNER/NAME", task="{task}")
```
"""


def push_to_hub(
    network: MHNet, repository: str, *, description: str = "", private: bool = False
) -> str:
    """Send a network to a repository on Hugging Face, as `save_pretrained` writes it.

    Args:
        network: What to send.
        repository: `OWNER/NAME`; created where there is none.
        description: One line on what it is for.
        private: Whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        MHNetVideoError: `huggingface_hub` is not installed, or the upload fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_pretrained(network, Path(scratch) / "model", description=description)
        return hub.upload(folder, repository, private=private)


def _read(path: Path) -> _Contents:
    """The tensors that the network uses, its sizes, and its task.

    Raises:
        WeightsError: The file is wrong, truncated or foreign.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise WeightsError(f"{path} is empty")
    if len(head) > 8 and head[8:9] == b"{":
        return _read_safetensors(path)
    return _read_checkpoint(path)


def _read_safetensors(path: Path) -> _Contents:
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or cut off: {error}") from error
    if "config" not in metadata and path.name == hub.WEIGHTS:
        metadata |= _beside(path)
    if "config" not in metadata:
        return _used(path, tensors)
    try:
        config = NetworkConfig(**json.loads(metadata["config"]))
        task = _task_of(json.loads(metadata.get("training", "{}")), config)
        return {name: value.float() for name, value in tensors.items()}, config, task
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path} describes no MHNet of this version: {error}") from error


def _beside(path: Path) -> dict[str, str]:
    """What `config.json` beside a file says, in the form of the file's own metadata.

    Other programs that write such a folder keep the sizes only there.

    Raises:
        WeightsError: It is damaged.
    """
    file = path.with_name(hub.CONFIG)
    if not file.is_file():
        return {}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        sizes = {field.name for field in fields(NetworkConfig)}
        config = {name: value for name, value in said.items() if name in sizes}
        training = {"task": said.get("task")}
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{file} is damaged: {first_line(error)}") from error
    return {"config": json.dumps(config), "training": json.dumps(training)}


def _read_checkpoint(path: Path) -> _Contents:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        safetensors.SafetensorError,
        AttributeError,
        IndexError,
        TypeError,
    ) as error:
        raise WeightsError(
            f"{path} is no weights file, or damaged, or holds more than tensors, which is not read "
            "for safety; give a safetensors file or a checkpoint of tensors"
        ) from error
    for key in ("state_dict", "params", "params_ema"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path} holds no table of weights, but a {type(loaded).__name__}")
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in loaded.items()
        if isinstance(value, Tensor)
    }
    return _used(path, tensors)


def _used(path: Path, tensors: dict[str, Tensor]) -> _Contents:
    """Drop what the published network never uses, and read the sizes off the rest."""
    try:
        config = NetworkConfig.from_shapes({name: tuple(t.shape) for name, t in tensors.items()})
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{path} holds the weights of another network, not of MHNet") from error
    used = {name: value.float() for name, value in tensors.items() if not UNUSED.fullmatch(name)}
    return used, config, MHNet.usual_task(config)
