"""Kernels that are compiled for this processor, called one by one on the caller's thread."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class HostKernel:
    """A compiled kernel."""

    signature: Any
    """Its `llvm_ir.Signature`."""
    function: Callable[[ctypes.c_void_p], None]
    library: Any
    """What the function belongs to."""

    def __call__(self, **arguments: int) -> None:
        """Call it with numbers and addresses."""
        bound: NDArray[np.void] = self.signature.bind(arguments)
        self.function(ctypes.c_void_p(bound.ctypes.data))


class HostKernels(NamedTuple):
    """Kernels, and the machine's width."""

    lanes: int
    """float32 of a vector."""
    kernels: tuple[HostKernel, ...]


def compiled(
    makers: Callable[[], Sequence[Callable[..., Any]]], *arguments: int
) -> HostKernels | None:
    """Compile kernels, or take them from the cache on disk.

    Args:
        makers: Imports what writes them.
        arguments: For each of these, besides the machine and the name.

    Returns:
        The kernels; None where there is no compiler, or none for this processor.
    """
    try:
        from mhnet_video.engines.llvm.scheduler import Kernels
        from mhnet_video.kernels.llvm_machine import host_machine

        makes = makers()
    except (ImportError, OSError):
        return None  # llvmlite is not installed
    machine = host_machine(bfloat16=False)
    if machine is None:
        return None
    kernels = Kernels(machine)
    signatures = [kernels.kernel(make, *arguments) for make in makes]
    kernels.compile()
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    found = [HostKernel(each, kind(kernels.address(each.name)), kernels) for each in signatures]
    return HostKernels(machine.lanes, tuple(found))
