"""Which programs launches need, and their compilation, beside one another and ahead of the first.

A kernel is compiled once for each of its constants, types and alignments. One after the other, the
programs of a network take a GPU's first frame half a minute.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from mhnet_video.kernels.dispatch import IS_INTERPRETED, Launch
from mhnet_video.system import usable_processors

_THREADS = 16
"""Most compilers at once. Each of them holds some 100 MB."""


def program_key(launch: Launch) -> tuple[Any, ...]:
    """What a program depends on: launches with equal keys are one program."""
    fixed = {each.name for each in getattr(launch.kernel, "params", ()) if each.do_not_specialize}
    kinds = tuple(
        (name, _kind(value, name in fixed)) for name, value in sorted(launch.arguments.items())
    )
    constants = tuple((name, str(value)) for name, value in sorted(launch.constants.items()))
    return launch.name, kinds, constants, launch.num_warps, launch.num_stages


def _kind(value: Any, is_fixed: bool) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), is_fixed or value.data_ptr() % 16 == 0
    if value is None or isinstance(value, float):
        return type(value).__name__
    bits = "i32" if -(2**31) <= value < 2**31 else "i64"
    return bits if is_fixed else (bits, value == 1, value % 16 == 0)


def distinct(launches: Iterable[Launch]) -> list[Launch]:
    """One launch for each program."""
    return list({program_key(launch): launch for launch in launches}.values())


def compile_programs(launches: Iterable[Launch], threads: int | None = None) -> int:
    """Compile the programs of launches that are not there yet, and start none.

    Args:
        launches: On the GPU that they are for.
        threads: Compilers at once; None for as many as there are processors, within reason.

    Returns:
        Number of programs.

    Raises:
        Exception: Whatever the compiler raises for the first one that it refuses.
    """
    programs = distinct(launches)
    if IS_INTERPRETED or not programs:
        return len(programs)
    import triton

    count = threads or min(_THREADS, usable_processors(), len(programs))
    with ThreadPoolExecutor(count) as pool, triton.AsyncCompileMode(pool):
        for launch in programs:
            launch.compile()
    return len(programs)
