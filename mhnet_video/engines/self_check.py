"""Whether a GPU restores as it should, found out once on a machine before `auto` takes it.

Kernels are compiled on the user's machine, by the user's driver, for a GPU that nobody may have
tried. So a process of its own, which may crash or hang, restores a few pictures on the GPU and on
the CPU. Its verdict is kept in the user's cache folder.

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

import torch

from mhnet_video.cache_folder import cache_folder
from mhnet_video.engines.base import TorchEngine
from mhnet_video.engines.select import resolve_engine, trial_frames
from mhnet_video.errors import first_line
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
_MAX_ERROR = 0.03
"""Largest power of the error over that of the residual. bfloat16 leaves about a thousandth."""
_SOURCES = ("kernels", "engines", "model")
"""Folders of the package whose source a verdict depends on."""

_log = logging.getLogger(__name__)


def usable_device(name: str) -> torch.device:
    """Turn a device setting into a device; `auto` takes a GPU that has passed its self-check.

    The first self-check on a machine may take a few minutes, which the log says.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; those on CUDA are taken unchecked.

    Raises:
        ConfigError: There is no such device on this machine.
    """
    device = resolve_device(name)
    if name != "auto" or device.type == "cpu":
        return device
    if said := verdict(device):
        _log.warning(
            "the GPU failed its self-check (%s), so the CPU restores; --device cuda takes the GPU",
            said,
        )
        return torch.device("cpu")
    return device


def verdict(
    device: torch.device,
    folder: Path | None = None,
    command: Sequence[str] | None = None,
    seconds: float = CHECK_SECONDS,
) -> str:
    """Why a GPU must not be used; empty if it may be. Checked once, then read from a file.

    Args:
        device: The GPU.
        folder: Folder of the verdicts; None for the user's cache folder.
        command: Command that checks the device and prints a JSON string; None for this module.
        seconds: Time limit of the check.
    """
    folder = folder or cache_folder()
    path = None if folder is None else folder / f"gpu-{_key(device)}.json"
    if path is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(path.read_text(encoding="utf-8"))["fault"])
    _log.warning("checking the GPU, once on this machine; this may take a few minutes")
    command = command or [sys.executable, "-m", "mhnet_video.engines.self_check", str(device)]
    found = _said(command, seconds)
    if path is not None:
        _keep(path, found)
    return found


def _said(command: Sequence[str], seconds: float) -> str:
    """What a check prints, or how it ended if it printed nothing."""
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {seconds:.0f} s"
    except OSError as error:
        return f"it could not be started: {error.strerror}"
    with suppress(IndexError, ValueError):
        return str(json.loads(done.stdout.splitlines()[-1]))
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"its process ended: {lines[-1][:200]}"


def _keep(path: Path, found: str) -> None:
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
def fault(device: torch.device) -> str:
    """Compare a device with the CPU: why it must not be used; empty if it may be."""
    try:
        return _fault(device)
    except Exception as error:  # any error of a compiler, a driver or PyTorch
        return f"{type(error).__name__}: {first_line(error)}"


def _fault(device: torch.device) -> str:
    selected = resolve_engine(load_model(_MODEL, device))
    if "fails here" in selected.reason:
        return selected.reason
    plain = TorchEngine(load_model(_MODEL, "cpu"))
    for height, width in _SIZES:
        frames = trial_frames(plain.network.config.pictures, height, width)
        there = [frame.to(device) for frame in frames]
        found = [selected.engine.residual(there).cpu() for _ in range(_RUNS)]
        if not all(torch.equal(found[0], each) for each in found):
            return f"equal frames of {width}x{height} give different results"
        expected = plain.residual(frames)
        error = (found[0] - expected).square().mean() / expected.square().mean()
        if not bool(error <= _MAX_ERROR):
            return f"its result for {width}x{height} differs from the CPU's"
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(fault(torch.device(sys.argv[1]))) + "\n")
