"""Memory that is free again, back to the system."""

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from mhnet_video.system import c_function

# glibc's names of options, from which size on blocks are the system's own, and how much of what is
# free of smaller ones is kept: pictures come and go, and fresh memory costs a fault a page
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1
_LARGE_BLOCK_BYTES = 8 << 20
_KEPT_BYTES = 64 << 20

_SHORTAGES = ("out of memory", "can't allocate memory", "not enough memory")
"""What errors of PyTorch say: of CUDA, and of a CPU's allocator on Linux and on Windows."""

RECORDING = threading.Lock()
"""Held while a CUDA graph is recorded. A second recording at the same time spoils both, and so does
giving a GPU's memory back, which waits for the whole device."""


def give_back_device_memory() -> None:
    """Give back the GPU memory that PyTorch keeps and nobody uses; nothing without a GPU.

    Waits until no thread records a CUDA graph.
    """
    import torch

    with RECORDING:
        torch.cuda.empty_cache()


def give_back() -> None:
    """Have the C library give back what it keeps of freed memory; nothing where it cannot.

    It takes 10 to 30 ms for some hundred megabytes, and holds up no thread for all of that.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def give_back_large_blocks() -> None:
    """Have the system take large blocks of memory back as soon as they are free.

    glibc keeps blocks of up to 32 MB once it has seen one freed, each thread for itself: at
    1920x1080 that is half a gigabyte that nobody uses.
    """
    set_option = c_function("mallopt")
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def is_shortage(error: BaseException) -> bool:
    """Whether memory is what is missing.

    PyTorch has an error of its own for that on GPUs. Page-locked memory, graphs and kernels that do
    not fit, and the memory of a CPU, come as a `RuntimeError` of another kind.
    """
    if type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(each in said for each in _SHORTAGES)


@cache
def _trim() -> Callable[[int], int] | None:
    """The call of glibc; None where there is another library."""
    function: Any = c_function("malloc_trim")
    if function is not None:
        function.argtypes = [ctypes.c_size_t]
    return function
