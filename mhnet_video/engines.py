"""Which engine runs the network on the CPU, and why. Imports LLVM only where it is used."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mhnet_video.errors import ConfigError
from mhnet_video.network import MHNet

ENGINES = ("auto", "torch", "llvm")
"""What `--engine` takes."""


class Engine(Protocol):
    """Something that runs a network."""

    def residual(self, window: Tensor) -> Tensor:
        """What is to be added to the middle picture, `[1, 3, H, W]` float32.

        Args:
            window: `[1, 3 * frames, H, W]` float32.
        """


class TorchEngine:
    """PyTorch, operation by operation."""

    def __init__(self, network: MHNet, *, bfloat16: bool = False) -> None:
        """Take a network.

        Args:
            network: On any device.
            bfloat16: Whether convolutions are done in bfloat16.
        """
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bfloat16 = bfloat16

    def residual(self, window: Tensor) -> Tensor:
        """What is to be added to the middle picture."""
        window = window.contiguous(memory_format=torch.channels_last)
        with torch.autocast(window.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.network.residual(window).float()


@dataclass(frozen=True)
class Choice:
    """An engine and why it is the one."""

    engine: Engine
    name: str
    """`torch` or `llvm`."""
    reason: str
    """In words, for people."""


def resolve_engine(network: MHNet, setting: str = "auto") -> Choice:
    """Find the engine for a network where it is.

    Args:
        network: In evaluation mode, on its device; must not change any more.
        setting: `auto` takes `llvm` where it can run, else `torch`.

    Raises:
        ConfigError: There is no such engine, or it cannot run here.
    """
    if setting not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, not {setting}")
    device = next(network.parameters()).device
    if device.type != "cpu":
        if setting == "llvm":
            raise ConfigError(f"the llvm engine runs on CPUs, not on {device}; take --engine auto")
        return Choice(TorchEngine(network), "torch", f"the network is on {device}")
    if setting == "torch":
        return _torch(network, "asked for")
    obstacle = llvm_obstacle() or _network_obstacle(network)
    if obstacle:
        if setting == "llvm":
            raise ConfigError(f"the llvm engine cannot run here: {obstacle}")
        return _torch(network, obstacle)
    from mhnet_video.engine import LLVMEngine
    from mhnet_video.kernels.llvm_ir import host_machine

    machine = host_machine()
    if machine is None:
        return _torch(network, "this processor has no vectors of 8 numbers")
    return Choice(LLVMEngine(network, machine), "llvm", machine.name)


def llvm_obstacle() -> str:
    """Why this machine cannot compile kernels; empty if it can."""
    try:
        from mhnet_video.kernels.llvm_ir import host_machine
    except (ImportError, OSError) as error:
        return f"llvmlite is not installed ({error}); pip install 'mhnet-video[cpu]'"
    if host_machine() is None:
        return "this processor has neither AVX2 nor NEON"
    return ""


def llvm_machine() -> str:
    """The instructions that compiled kernels would use here."""
    from mhnet_video.kernels.llvm_ir import host_machine

    machine = host_machine()
    return machine.name if machine else "none"


def _network_obstacle(network: MHNet) -> str:
    from mhnet_video.packing import check

    return check(network)


def _torch(network: MHNet, why: str) -> Choice:
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    if supported() and type(network).residual is MHNet.residual:
        return Choice(TorchEngine(network, bfloat16=True), "torch", f"{why}; bfloat16")
    return Choice(TorchEngine(network), "torch", why)
