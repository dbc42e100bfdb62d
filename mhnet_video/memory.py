"""Memory that is free again, back to the system."""

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Have the C library give back what it keeps of freed memory; nothing where it cannot.

    It takes 10 to 30 ms for some hundred megabytes, and holds up no thread for all of that.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def is_shortage(error: BaseException) -> bool:
    """Whether memory is what is missing.

    PyTorch has an error of its own for that, but page-locked memory, graphs and kernels that do not
    fit come as a `RuntimeError` of another kind.
    """
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "out of memory" in str(error).lower()


@cache
def _trim() -> Callable[[int], int] | None:
    """The call of glibc; None where there is another library."""
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
    function.argtypes = [ctypes.c_size_t]
    found: Callable[[int], int] = function
    return found
