"""The loop that takes several threads through a program of kernels, without Python in between.

A program is a table of steps, `[steps, 4]` int64: the address of a kernel's calling function, how
many parts may run at the same time, the address of their arguments, and the bytes between the
arguments of two parts. A step begins when the one before is done. Threads take parts from a shared
counter. A thread that is preempted or late delays only the part that it holds, and the calling
thread can complete the program by itself.

Each step has a counter of parts taken and one of parts done, on cache lines of their own. Both
carry the number of the run, so that a thread that wakes after its run is over finds nothing to do.
"""

from mhnet_video.kernels.llvm_ir import Emitter, function
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import BYTES, EXCHANGED, I1, I32, I64, INDEX, pointer

STATE_WORDS = 16
"""int64 words that a step's counters take: two cache lines."""

_PARTS_BITS = 20
"""Bits of a counter that count parts; the number of the run is in those above."""

_SPINS = 2000
"""How often a waiting thread looks again before it leaves its processor to others."""

_WORDS = pointer(I64)
"""Address of int64."""


def run_program(machine: Machine, triple: str) -> tuple[str, set[str]]:
    """The loop's definition, and the declarations that it needs.

    A run's number must be greater than that of the run before it, and its counters must be set to
    `first_count(run)` before any thread is called.

    Args:
        machine: What the kernels are made for.
        triple: LLVM's name of the machine.
    """
    e = Emitter(
        machine,
        "run_program",
        table=_WORDS,  # [steps, 4]
        steps=INDEX,
        state=_WORDS,  # [steps, STATE_WORDS]
        run=INDEX,  # the run's number
        rest=BYTES,  # the system's call that leaves the processor to another thread
    )
    p = e.parameters
    first = p.run << _PARTS_BITS
    for step in e.loop(0, p.steps):
        row = p.table + step * 4
        kernel, parts, arguments, size = (
            e.emit("load", row + number, type=type_)
            for number, type_ in enumerate((BYTES, I64, BYTES, I64))
        )
        taken = p.state + step * STATE_WORDS
        done = taken + STATE_WORDS // 2
        limit = first + parts
        take, attempt, work, wait, pause, ready = map(
            e.number, ("take", "attempt", "work", "wait", "pause", "ready")
        )
        e.jump(take)
        e.begin(take)
        old = e.emit("load atomic", taken, type=I64)
        e.branch(old >= limit, wait, attempt)
        e.begin(attempt)
        exchanged = e.emit("exchange", taken, old, old + 1, type=EXCHANGED)
        e.branch(e.emit("is exchanged", exchanged, type=I1), work, take)
        e.begin(work)
        passed = arguments + (old - first) * size
        e.emit("call", function=kernel, arguments=f"{passed.type} {passed}")
        e.emit("count", done, e.constant(I64, 1))
        e.jump(take)
        e.begin(wait)
        for _ in e.loop(0, _SPINS):
            e.branch(e.emit("load atomic", done, type=I64) >= limit, ready, pause)
            e.begin(pause)
            if triple.startswith(("x86_64", "i386", "i686", "amd64")):
                e.emit("pause x86")
            elif triple.startswith(("aarch64", "arm64")):
                e.emit("pause arm", e.constant(I32, 1))
        e.emit("call for number", p.rest, type=I32)
        e.jump(wait)
        e.begin(ready)
    e.emit("return")
    return function("run_program", e.types, e.lines), e.declarations


def first_count(run: int) -> int:
    """The first value of the counters of a run."""
    return run << _PARTS_BITS
