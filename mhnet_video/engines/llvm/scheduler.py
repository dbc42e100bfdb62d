"""Kernels for CPUs in their order, and the threads that run them."""

import ctypes
import itertools
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.kernels.llvm_cache import KernelCache
from mhnet_video.kernels.llvm_compiler import Library, compile_kernels
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_product import Tile
from mhnet_video.kernels.llvm_run import STATE_WORDS, first_count
from mhnet_video.kernels.llvm_signature import Signature

_SHARE = 2
"""Parts for each thread: one that is held up leaves its second part to the others."""

_SMALL = 4
"""The fewest rows or tiles of a part: below that taking it costs more than it does."""

Argument = Tensor | int | Sequence[Tensor] | Sequence[int]
"""An argument of a kernel: a tensor's address, a number, or one of these for each part."""


class Step(NamedTuple):
    """A kernel, and the arguments of its parts."""

    name: str
    calls: NDArray[np.void]
    """`[parts]`, with a field of each parameter: numbers, and addresses of what `held` keeps."""
    held: dict[str, Any]
    """The arguments, so that tensors live as long as their addresses."""


class Kernels:
    """The kernels that engines have compiled, here or in a process before.

    Args:
        machine: What they are made for.
        cache: Those on disk; None for the user's.
    """

    def __init__(self, machine: Machine, cache: KernelCache | None = None) -> None:
        self.machine = machine
        self.lock = threading.Lock()
        """To be held from the first kernel that is asked for until they are compiled."""
        self._cache = cache or KernelCache(machine)
        self._libraries: list[Library] = []
        self._addresses: dict[str, int] = {}
        self._signatures: dict[str, Signature] = {}
        self._emitters: list[Emitter] = []
        """Kernels that are written and not yet compiled."""

    def kernel(
        self, make: Callable[..., Emitter], *arguments: object, **options: object
    ) -> Signature:
        """A kernel; it is written if there is none, and compiled when it is asked for.

        Args:
            make: Writes it.
            arguments: For `make`, besides the machine and the name.
            options: Likewise.
        """
        bound = [*arguments, *(int(bool(value)) for value in options.values())]
        name = "_".join([make.__name__, *map(_word, bound)])
        if name not in self._signatures:
            signature = self._cache.signature(name)
            if signature is None:
                emitter = make(self.machine, name, *arguments, **options)
                self._emitters.append(emitter)
                signature = emitter.signature
            self._signatures[name] = signature
        return self._signatures[name]

    def compile(self) -> Callable[..., None]:
        """Compile new kernels, load those on disk; returns the function that runs programs."""
        new = self._signatures.keys() - self._addresses.keys()
        objects = list(self._cache.objects(new))
        if self._emitters or not (self._libraries or objects):
            compiled = compile_kernels(self.machine, self._emitters)
            self._cache.save(compiled)
            objects.append(compiled)
            self._emitters.clear()
        for each in objects:
            library = Library(self.machine, each)
            self._libraries.append(library)
            self._addresses = library.addresses | self._addresses
        return self._libraries[0].run

    def address(self, name: str) -> int:
        """The address of a compiled kernel's calling function."""
        return self._addresses[name]


def _word(value: object) -> str:
    if isinstance(value, Tile):
        return f"{value.blocks}x{value.outputs}"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value)


class Program:
    """Steps one after the other, each in parts that several threads share.

    Args:
        kernels: The engine's kernels.
        threads: How many threads there are.
    """

    def __init__(self, kernels: Kernels, threads: int) -> None:
        self.kernels, self.threads = kernels, threads
        self.steps: list[Step] = []
        self._runs = 0

    def parts(self, count: int, unit: int = 1, *, each: int = _SHARE) -> list[tuple[int, int]]:
        """Cut a number of rows or blocks.

        Args:
            count: How many.
            unit: Cuts lie at multiples of it.
            each: Parts for every thread.
        """
        units = -(-count // unit)
        parts = 1 if self.threads == 1 else min(each * self.threads, max(1, units // _SMALL))
        edges = [min(units * part // parts * unit, count) for part in range(parts + 1)]
        return list(itertools.pairwise(edges))

    def add(
        self,
        kernel: Signature,
        parts: Sequence[tuple[int, int]] = ((0, 1),),
        /,
        **arguments: Argument,
    ) -> NDArray[np.void]:
        """Add a step.

        Args:
            kernel: The kernel.
            parts: The first and the end of each part; parts may run at the same time.
            arguments: The kernel's other arguments by name; a sequence has one for each part.

        Returns:
            `[parts]`, with an int64 field of each parameter, which may be changed between runs.

        Raises:
            TypeError: The arguments are not those of the kernel.
        """
        firsts, ends = zip(*parts, strict=True)
        bound = {**arguments, "first": firsts, "end": ends}
        calls = kernel.bind({name: _addresses(each) for name, each in bound.items()}, len(parts))
        self.steps.append(Step(kernel.name, calls, bound))
        return calls

    def finish(self) -> None:
        """Compile what the steps need; none can be added afterwards."""
        self._run = self.kernels.compile()
        self._table = np.array(
            [
                [
                    self.kernels.address(step.name),
                    len(step.calls),
                    step.calls.ctypes.data,
                    step.calls.strides[0],
                ]
                for step in self.steps
            ],
            np.int64,
        )
        self._state = np.zeros((len(self.steps), STATE_WORDS), np.int64)

    def run(self, pool: ThreadPoolExecutor | None) -> None:
        """Run the steps, in this thread and those of a pool."""
        _run_all([(self, self._begin())], pool)

    def run_with(self, following: "Program", pool: ThreadPoolExecutor | None) -> None:
        """Run the steps, then those of another program of these threads, woken once for both."""
        _run_all([(self, self._begin()), (following, following._begin())], pool)

    def _begin(self) -> tuple[int, ...]:
        """Begin a run; returns the arguments of `run_program`."""
        self._runs += 1
        self._state.fill(first_count(self._runs))
        return (
            self._table.ctypes.data,
            len(self.steps),
            self._state.ctypes.data,
            self._runs,
            _rest(),
        )


def _run_all(
    begun: Sequence[tuple[Program, tuple[int, ...]]], pool: ThreadPoolExecutor | None
) -> None:
    """Run what has begun, here and in other threads, which may come when all is over."""
    if pool is not None:
        for _ in range(begun[0][0].threads - 1):
            pool.submit(_help, begun)
    _help(begun)


def _help(begun: Sequence[tuple[Program, tuple[int, ...]]]) -> None:
    """Run programs, which are kept alive by it."""
    for program, arguments in begun:
        program._run(*arguments)


def _addresses(argument: Argument) -> int | list[int]:
    if isinstance(argument, Sequence):
        return [each.data_ptr() if isinstance(each, Tensor) else each for each in argument]
    return argument.data_ptr() if isinstance(argument, Tensor) else argument


@cache
def _rest() -> int:
    """The address of the system's call that leaves the processor to another thread."""
    library, name = (None, "sched_yield")
    if sys.platform == "win32":
        library, name = ("kernel32", "SwitchToThread")
    function = getattr(ctypes.CDLL(library), name)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address
