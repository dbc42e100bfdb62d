"""Whether a GPU restores as it should, found out once on a machine before `auto` takes it.

Kernels are compiled on the user's machine, by the user's driver, for a GPU that nobody may have
tried. So a process of its own, which may crash or hang, restores a few pictures on the GPU and on
the CPU. Its verdict is kept in the user's cache folder, unless the process found none: what made it
end early, such as a GPU that is busy or out of memory, may be gone the next time.

`python -m mhnet_video.engines.self_check cuda:0` is that process.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from mhnet_video.cache_folder import cache_folder
from mhnet_video.engines.base import TorchEngine
from mhnet_video.engines.select import MAX_ERROR, Fault, resolve_engine, trial_frames
from mhnet_video.errors import ConfigError, first_line
from mhnet_video.model.weights import load_model, resolve_device
from mhnet_video.system import replace_file

CHECK_SECONDS = 240.0
"""Time limit of a self-check, in seconds. Compiling all kernels on one processor takes half."""
_MODEL = "realtime"
"""The network that is checked."""
_SIZES = [(96, 128), (270, 482)]
"""Heights and widths of the pictures, in pixels."""
_RUNS = 3
"""Runs of each picture, which must give the same in every bit."""
_SOURCES = ("kernels", "engines", "model")
"""Folders of the package whose source a verdict depends on."""

_log = logging.getLogger(__name__)


def usable_device(name: str) -> torch.device:
    """Turn a device setting into a device; `auto` takes a GPU that has passed its self-check.

    The first self-check on a machine may take a few minutes, which the log says. One without a
    result is repeated the next time.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; those on CUDA are taken unchecked.

    Raises:
        ConfigError: There is no such device on this machine.
    """
    device = resolve_device(name)
    if name != "auto" or device.type == "cpu":
        return device
    found = verdict(device)
    if found is None:
        return device
    if found.is_wrong:
        said = (
            "the GPU failed its self-check (%s), so the CPU restores; --device cuda takes the GPU"
        )
    else:
        said = (
            "the GPU could not be checked (%s), so the CPU restores this time; --device cuda takes "
            "the GPU, and --device cpu saves another try"
        )
    _log.warning(said, found.reason)
    return torch.device("cpu")


def usable_devices(names: str) -> tuple[torch.device, ...]:
    """Turn a device setting, which may name several GPUs, into devices.

    Args:
        names: As for `usable_device`, or `cuda:N` several times with commas between.

    Raises:
        ConfigError: There is no such device on this machine, or it is named twice.
    """
    each = names.split(",")
    if len(each) == 1:
        return (usable_device(names),)
    if len(set(each)) < len(each) or not all(name.startswith("cuda:") for name in each):
        raise ConfigError(
            f"several devices are GPUs, each named once, as in cuda:0,cuda:1; not {names}"
        )
    return tuple(map(resolve_device, each))


def verdict(
    device: torch.device,
    folder: Path | None = None,
    command: Sequence[str] | None = None,
    seconds: float = CHECK_SECONDS,
) -> Fault | None:
    """Why a GPU must not be used; None if it may be.

    Checked once, then read from a file. A check without a result is not kept, and is tried again
    at the next call.

    Args:
        device: The GPU.
        folder: Folder of the verdicts; None for the user's cache folder.
        command: Command that checks the device and prints a fault as a JSON list, or null; None
            for this module.
        seconds: Time limit of the check.
    """
    folder = folder or cache_folder()
    path = None if folder is None else folder / f"gpu-{_key(device)}.json"
    if path is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return _fault_of(json.loads(path.read_text(encoding="utf-8"))["fault"])
    _log.warning("checking the GPU, once on this machine; this may take a few minutes")
    command = command or [sys.executable, "-m", "mhnet_video.engines.self_check", str(device)]
    found = _said(command, seconds)
    if path is not None and (found is None or found.is_wrong):
        _keep(path, found)
    return found


def _fault_of(said: Any) -> Fault | None:
    """A fault as JSON has it.

    Raises:
        ValueError: It is none.
        TypeError: Likewise.
    """
    if said is None:
        return None
    reason, is_wrong = said
    return Fault(str(reason), bool(is_wrong))


def _said(command: Sequence[str], seconds: float) -> Fault | None:
    """What a check prints, or how it ended if it printed nothing."""
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",  # compilers and drivers speak the user's language
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired:
        return Fault(f"it did not end within {seconds:.0f} s", is_wrong=False)
    except OSError as error:
        return Fault(f"it could not be started: {error.strerror}", is_wrong=False)
    with suppress(IndexError, ValueError, TypeError):
        return _fault_of(json.loads(done.stdout.splitlines()[-1]))
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return Fault(f"its process ended: {lines[-1][:200]}", is_wrong=False)


def _keep(path: Path, found: Fault | None) -> None:
    """Write a verdict to a file. A disk that refuses it is not an error."""
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps({"fault": found}), encoding="utf-8")
            replace_file(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _key(device: torch.device) -> str:
    """Hash of what a verdict depends on: the GPU, its driver, compilers and kernels."""
    return hashlib.sha256("\n".join([*_machine(device), _source()]).encode()).hexdigest()[:32]


def _machine(device: torch.device) -> list[str]:
    """The GPU's name, and the versions of its driver, of PyTorch and of Triton."""
    driver = ""
    with suppress(OSError):
        driver = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    triton = "none"
    with suppress(ImportError):
        import triton as imported

        triton = imported.__version__
    name = torch.cuda.get_device_name(device)
    return [name, driver, torch.__version__, triton, os.environ.get("MHNET_TRITON", "1")]


def _source() -> str:
    """Hash of all source code that runs on the GPU."""
    root = Path(__file__).parents[1]
    files = [path for folder in _SOURCES for path in sorted((root / folder).rglob("*.py"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


@torch.inference_mode()
def fault(device: torch.device) -> Fault | None:
    """Compare a device with the CPU: why it must not be used; None if it may be."""
    try:
        return _fault(device)
    except Exception as error:  # any error of a compiler, a driver or PyTorch
        return Fault(f"{type(error).__name__}: {first_line(error)}", is_wrong=False)


def _fault(device: torch.device) -> Fault | None:
    selected = resolve_engine(load_model(_MODEL, device))
    if selected.fault is not None:
        return selected.fault._replace(reason=selected.reason)
    plain = TorchEngine(load_model(_MODEL, "cpu"))
    for height, width in _SIZES:
        frames = trial_frames(plain.network.config.pictures, height, width)
        there = [frame.to(device) for frame in frames]
        found = [selected.engine.residual(there).cpu() for _ in range(_RUNS)]
        if not all(torch.equal(found[0], each) for each in found):
            reason = f"equal frames of {width}x{height} give different results"
            return Fault(reason, is_wrong=True)
        expected = plain.residual(frames)
        error = (found[0] - expected).square().mean() / expected.square().mean()
        if not bool(error <= MAX_ERROR):
            return Fault(f"its result for {width}x{height} differs from the CPU's", is_wrong=True)
    return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(fault(torch.device(sys.argv[1]))) + "\n")
