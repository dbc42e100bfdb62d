"""Kernels for CPUs in their order: the maps that they pass on, and the threads that run them."""

import ctypes
import itertools
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.kernels.llvm_ir import Emitter, Library, Machine
from mhnet_video.kernels.llvm_product import Tile
from mhnet_video.kernels.llvm_run import STATE_WORDS, first_count

_SPARE_BLOCKS = 16
"""Blocks behind the end of every map that the last tile may touch."""

_SHARE = 2
"""Parts per thread: one that is held up leaves its second part to the others."""

_SMALL = 4
"""Rows or tiles of a part at least: below that taking it costs more than it does."""


def nothing() -> None:
    """What a reference to a frame that is gone gives."""


class Map:
    """Room for a map of C channels."""

    def __init__(self, machine: Machine, channels: int, height: int, width: int) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.lanes = machine.lanes
        self.row_blocks = -(-width // machine.lanes)
        self.blocks = height * self.row_blocks
        size = channels // machine.group * machine.lanes
        self.data = torch.zeros((self.blocks + _SPARE_BLOCKS) * size, dtype=torch.int32)

    def mask(self) -> Tensor:
        """All ones at the elements inside the picture."""
        lanes = torch.arange(self.row_blocks * self.lanes) < self.width
        inside = torch.zeros((self.blocks + _SPARE_BLOCKS) * self.lanes, dtype=torch.int32)
        inside[: self.blocks * self.lanes] = -lanes.int().repeat(self.height)
        return inside


class Step(NamedTuple):
    """A kernel, and the arguments of its parts."""

    name: str
    calls: NDArray[np.int64]
    """`[parts, arguments]`: numbers, and addresses of what `held` keeps."""
    held: tuple[Any, ...]


class Kernels:
    """The kernels that engines have compiled."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.lock = threading.Lock()
        """To be held from the first name that is asked for until they are compiled."""
        self._libraries: list[Library] = []
        self._addresses: dict[str, int] = {}
        self._emitters: dict[str, Emitter] = {}

    def name(self, make: Callable[..., Emitter], *arguments: object, **options: object) -> str:
        """A kernel's name; it is written if there is none, and compiled when it is asked for.

        Args:
            make: Writes it.
            arguments: For `make`, besides the machine and the name.
            options: Likewise.
        """
        given = [*arguments, *(int(bool(value)) for value in options.values())]
        name = "_".join([make.__name__, *map(_word, given)])
        if name not in self._addresses and name not in self._emitters:
            self._emitters[name] = make(self.machine, name, *arguments, **options)
        return name

    def compile(self) -> Callable[..., None]:
        """Compile what is new; gives what runs programs."""
        if self._emitters or not self._libraries:
            library = Library(self.machine, list(self._emitters.values()))
            self._libraries.append(library)
            self._addresses |= library.addresses
            self._emitters.clear()
        return self._libraries[0].run

    def address(self, name: str) -> int:
        """Where a compiled kernel's call is."""
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
        name: str,
        arguments: Sequence[Tensor | int],
        parts: Sequence[tuple[int, int]] = ((0, 1),),
        private: Sequence[dict[int, Tensor]] = (),
    ) -> NDArray[np.int64]:
        """Add a step.

        Args:
            name: The kernel; its last two arguments are a part's first and its end.
            arguments: The others.
            parts: Parts that may run at the same time.
            private: For each part, arguments of its own, by their index.

        Returns:
            The step's `calls`, which may be changed between runs.
        """
        calls = np.empty((len(parts), len(arguments) + 2), np.int64)
        for index, part in enumerate(parts):
            given = list(arguments)
            for place, value in private[index].items() if private else ():
                given[place] = value
            calls[index] = [x.data_ptr() if isinstance(x, Tensor) else x for x in (*given, *part)]
        self.steps.append(Step(name, calls, (arguments, private)))
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
        """Begin a run; gives what `run_program` is called with."""
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
