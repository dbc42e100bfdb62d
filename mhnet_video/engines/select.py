"""Which engine runs the network, and why. Imports LLVM and Triton only where they are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.config import ENGINES
from mhnet_video.engines.base import Engine, TorchEngine
from mhnet_video.errors import ConfigError
from mhnet_video.model.align import align_maps
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.window import stacked

MAX_ERROR = 0.03
"""Largest power of an engine's error over that of the residual, for all engines of a GPU. bfloat16
leaves about a thousandth."""
_MAX_MOVED = 0.02
"""Largest mean difference of frames that an engine has aligned, RGB in [0, 1]."""


class Fault(NamedTuple):
    """Why an engine or a device must not be used."""

    reason: str
    """In words, for people."""
    is_wrong: bool
    """Whether a result was wrong, which another try would not change. An error may have come of a
    GPU that was busy or full."""


@dataclass(frozen=True)
class SelectedEngine:
    """An engine, and why it was selected."""

    engine: Engine
    name: str
    """`torch`, `llvm` or `triton`."""
    reason: str
    """In words, for people."""
    fault: Fault | None = None
    """Why it stands in for the kernels of a GPU that could run; None where it does not."""


def resolve_engine(
    network: MHNet, setting: str = "auto", like: Engine | None = None
) -> SelectedEngine:
    """Choose the engine for a network on its device.

    Args:
        network: A network on its device, in evaluation mode, whose weights no longer change.
        setting: `auto` takes `llvm` on a CPU and `triton` on a GPU where they can run, else
            `torch`.
        like: An engine of the same network on another GPU, whose results it is to have bit for bit;
            None for the fastest.

    Raises:
        ConfigError: There is no such engine, or it cannot run here.
    """
    if setting not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, not {setting}")
    device = next(network.parameters()).device
    if device.type != "cpu":
        if setting == "llvm":
            raise ConfigError(f"the llvm engine runs on CPUs, not on {device}; take --engine auto")
        return _on_gpu(network, device, setting, like)
    if setting == "triton":
        raise ConfigError("the triton engine runs on GPUs, not on the CPU; take --engine auto")
    if setting == "torch":
        return _torch(network, "asked for")
    obstacle = llvm_obstacle() or _network_obstacle(network)
    if obstacle:
        if setting == "llvm":
            raise ConfigError(f"the llvm engine cannot run here: {obstacle}")
        return _torch(network, obstacle)
    from mhnet_video.engines.llvm.engine import LLVMEngine
    from mhnet_video.kernels.llvm_machine import host_machine

    machine = host_machine()
    if machine is None:
        return _torch(network, "this processor has no vectors of 8 numbers")
    return SelectedEngine(LLVMEngine(network, machine), "llvm", machine.name)


def _on_gpu(
    network: MHNet, device: torch.device, setting: str, like: Engine | None = None
) -> SelectedEngine:
    if setting == "torch":
        return SelectedEngine(TorchEngine(network), "torch", "asked for")
    found = _kind_obstacle(device) or triton_obstacle() or _maps_obstacle(network)
    if not found and setting == "auto":
        found = _gpu_obstacle(device)
    if found:
        if setting == "triton":
            raise ConfigError(f"the triton engine cannot run here: {found}")
        return SelectedEngine(TorchEngine(network), "torch", found)
    from mhnet_video.engines.triton.engine import TritonEngine

    engine = (
        TritonEngine(network, like.map_type.dtype, like.fronts)
        if isinstance(like, TritonEngine)
        else TritonEngine(network)
    )
    if setting == "auto":
        fault = failure(engine, network)
        if fault is not None:
            reason = f"the triton engine fails here: {fault.reason}"
            return SelectedEngine(TorchEngine(network), "torch", reason, fault)
    return SelectedEngine(
        engine, "triton", f"{str(engine.map_type.dtype).removeprefix('torch.')} on {device}"
    )


def _kind_obstacle(device: torch.device) -> str:
    """Why a kind of device has no kernels; empty if it has."""
    return "" if device.type == "cuda" else f"Triton has no kernels for {device.type}"


def _gpu_obstacle(device: torch.device) -> str:
    """Why kernels that run on a GPU would be slow there; empty if they are not."""
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    if is_nvidia and torch.cuda.get_device_capability(device) < (8, 0):
        # tl.dot becomes single multiplications, and the registers overflow
        return "Triton has no matrix units for GPUs before compute capability 8.0"
    return ""


def failure(engine: Engine, network: MHNet) -> Fault | None:
    """Why an engine fails on a small picture; None if it works.

    Kernels are compiled on the user's machine, by the user's driver. So they are tested before a
    video depends on them.

    Args:
        engine: Runs `network`.
        network: The reference implementation.
    """
    side = 3 * network.config.multiple
    device = next(network.parameters()).device
    frames = [frame.to(device) for frame in trial_frames(network.config.pictures, side, side)]
    try:
        found = engine.residual(frames)
        aligned = _aligned(engine, network.config, frames)
        if device.type == "cuda":
            # errors of a graph surface only here; not the whole device, on which another thread
            # may record a graph
            torch.cuda.current_stream(device).synchronize()
    except Exception as error:
        lines = str(error).strip().splitlines()[:1]
        return Fault(" ".join([f"{type(error).__name__}:", *lines]), is_wrong=False)
    plain = TorchEngine(network)
    expected = plain.residual(frames)
    wanted = _aligned(plain, network.config, frames)
    error_power = (found - expected).square().mean()
    if not bool(error_power <= MAX_ERROR * expected.square().mean() + 1e-12):
        return Fault("its result differs from PyTorch's", is_wrong=True)
    # where little is to be seen, a motion that is rounded another way may lead elsewhere
    moved = [float((a - b).abs().mean()) for a, b in zip(aligned, wanted, strict=True)]
    if not all(difference <= _MAX_MOVED for difference in moved):  # nor what is no number
        return Fault("its alignment differs from PyTorch's", is_wrong=True)
    return None


def trial_frames(number: int, height: int, width: int) -> list[Tensor]:
    """Frames to try an engine on: a soft scene, and bright streaks that differ between frames.

    Noise would not do: networks leave it unchanged, so that their residual is mostly rounding.

    Args:
        number: Number of frames.
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        `[3, height, width]` float32 each, RGB in [0, 1].
    """
    generator = torch.Generator().manual_seed(0)
    grid = torch.rand(1, 3, 2 + height // 8, 2 + width // 8, generator=generator)
    scene = F.interpolate(grid, (height, width), mode="bilinear")[0]
    frames = []
    for _ in range(number):
        drops = (torch.rand(1, 1, height, width, generator=generator) > 0.99).float()
        streaks = F.max_pool2d(drops, (5, 1), 1, (2, 0))[0]
        frames.append((0.8 * scene + 0.2 * streaks).clamp(0, 1))
    return frames


def _aligned(engine: Engine, config: NetworkConfig, frames: Sequence[Tensor]) -> list[Tensor]:
    """Frames aligned by both functions of an engine; none if the network takes them as they are."""
    if not config.align:
        return []
    folded = torch.nn.functional.pixel_unshuffle(torch.cat(list(frames))[None], config.patch)
    folded = folded.permute(0, 2, 3, 1).contiguous()
    moved = torch.empty_like(folded)
    align_maps(folded, len(frames), config.patch, moved)
    return [*stacked(engine.align(frames)), moved]


def triton_obstacle() -> str:
    """Why Triton's kernels cannot run; empty if they can."""
    from mhnet_video.kernels.dispatch import HAS_TRITON, has_kernels

    if not HAS_TRITON:
        return "triton is not installed"
    return "" if has_kernels() else "MHNET_TRITON=0 turns the kernels off"


def _maps_obstacle(network: MHNet) -> str:
    from mhnet_video.engines.triton.weight_packing import obstacle

    return obstacle(network)


def llvm_obstacle() -> str:
    """Why this machine cannot compile kernels; empty if it can."""
    try:
        from mhnet_video.kernels.llvm_machine import host_machine
    except (ImportError, OSError) as error:
        return f"llvmlite is not installed ({error}); pip install 'mhnet-video[cpu]'"
    if host_machine() is None:
        return "this processor has neither AVX2 nor NEON"
    return ""


def llvm_machine() -> str:
    """The instructions that compiled kernels would use here."""
    from mhnet_video.kernels.llvm_machine import host_machine

    machine = host_machine()
    return machine.name if machine else "none"


def _network_obstacle(network: MHNet) -> str:
    from mhnet_video.engines.llvm.weight_packing import check

    return check(network)


def _torch(network: MHNet, why: str) -> SelectedEngine:
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    if supported() and type(network).residual is MHNet.residual:
        return SelectedEngine(TorchEngine(network, bfloat16=True), "torch", f"{why}; bfloat16")
    return SelectedEngine(TorchEngine(network), "torch", why)
