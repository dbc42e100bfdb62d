"""`torch.compile(mode="max-autotune")` for the GPU benchmark, in a process that can be ended.

A compiler cannot be stopped from inside, and leaves helpers behind that keep its output open. So it
works in a process of its own, without helpers, one thing after the other; when the time is up the
process is ended with all that it has started, and the next thing gets a new one.

`python -m mhnet_video.pipelines.bench_compile` is that process: a row of the benchmark in JSON on
each line of its input, what is to be added to it on a line of its output.
"""

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO, Any

import torch

from mhnet_video.engines.triton.engine import best_dtype
from mhnet_video.kernels import dispatch
from mhnet_video.memory import give_back_device_memory
from mhnet_video.pipelines.bench_cases import kernel_cases
from mhnet_video.pipelines.bench_kernels import LEAST_DECIBELS, Clock, add, checked, describe
from mhnet_video.pipelines.bench_networks import NETWORK_DECIBELS, network_of, plain

_LEAST_SECONDS = 10.0
"""Fewest seconds to compile a row. The process needs as long to start."""


class Compiler:
    """Client of the compiling process, which is started when it is needed.

    Args:
        command: Command that starts the process.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by close

    def close(self) -> None:
        """End the process and its children."""
        self._end()
        self._said.close()

    def ask(self, row: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Have the reference implementation of a row compiled, checked and timed.

        Args:
            row: A row of a kernel or a network.
            seconds: Time limit.

        Returns:
            The keys of `checked`, and `compile_seconds`.
        """
        if seconds < _LEAST_SECONDS:
            return {"failed": "no time was left"}
        end = time.monotonic() + seconds
        process = self._process or self._started()
        assert process.stdin is not None and process.stdout is not None
        answer = b""
        try:
            process.stdin.write(json.dumps(row).encode() + b"\n")
            process.stdin.flush()
            while not answer.endswith(b"\n"):
                left = end - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    self._end()
                    return {"failed": f"not done after {seconds:.0f} s"}
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    raise BrokenPipeError
                answer += part
        except BrokenPipeError:
            self._end()
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
            return {"failed": (lines or ["the compiler's process ended"])[-1][:200]}
        reply: dict[str, Any] = json.loads(answer)
        if "failed" in reply:
            self._end()  # a device that has failed once may fail whatever comes next
        return reply

    def _started(self) -> "subprocess.Popen[bytes]":
        self._said.seek(0)
        self._said.truncate()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={
                **os.environ,
                # no processes beside it, which would outlive it
                "TORCHINDUCTOR_COMPILE_THREADS": "1",
                # so that it finds the package where this one did
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
            # a group of its own, to be ended as one
            start_new_session=True,
        )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()


def compiler(is_dry: bool) -> Compiler:
    """The process that compiles for this machine's GPU.

    Args:
        is_dry: Whether it does what needs no compiler instead, on the CPU.
    """
    command = [sys.executable, "-m", "mhnet_video.pipelines.bench_compile"]
    return Compiler(command + ["--dry"] * is_dry)


def add_compiled(
    rows: list[dict[str, Any]], asked: Compiler, share: float, deadline: float
) -> Iterator[None]:
    """Add to rows the times of their compiled reference implementations, one after the other.

    Args:
        rows: Of kernels or networks; those without a time are left out.
        asked: Does it.
        share: How much of what is left one of them may take; the last one has all of it.
        deadline: When to end, in seconds of `time.monotonic`.
    """
    rows = [row for row in rows if "ms" in row]
    for index, row in enumerate(rows):
        left = deadline - time.monotonic()
        is_last = index == len(rows) - 1
        seconds = left if is_last else min(left, max(share * left, _LEAST_SECONDS))
        add(row, "compiled", asked.ask(row, seconds))
        yield


@torch.inference_mode()
def compiled(row: dict[str, Any], clock: Clock, options: dict[str, Any]) -> dict[str, Any]:
    """Compile, check and time the reference implementation of a row.

    Args:
        row: Of a kernel or a network.
        clock: Times it.
        options: For `torch.compile`.
    """
    dtype, device = best_dtype(clock.device), clock.device
    width, height = row["size"]
    make = partial(torch.compile, **options)
    if "network" in row:
        network = network_of(row["network"], device)
        window = torch.rand(1, 3 * network.config.frames, height, width, device=device)
        with dispatch.off():
            expected = network.residual(window)
        work, least = plain(network, window, dtype, make), NETWORK_DECIBELS
    else:
        cases = kernel_cases(row["channels"], height, width, dtype, device)
        case = next(each for each in cases if each.name == row["kernel"])
        expected, work, least = case.expected(), case.plain(dtype, make), LEAST_DECIBELS
    begin = time.monotonic()
    with dispatch.off():
        work()
        clock.wait()
        reply = {"compile_seconds": time.monotonic() - begin}
        return reply | checked(clock, work, expected, least)


def serve(is_dry: bool) -> None:
    """Be the process."""
    # what compilers print must not come between the answers, nor their children hold them open
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.backends.cudnn.allow_tf32 = False
    clock = Clock(torch.device("cpu" if is_dry else "cuda"), 0.0 if is_dry else 0.5)
    options = {"backend": "eager"} if is_dry else {"mode": "max-autotune"}
    for line in sys.stdin:
        try:
            reply = compiled(json.loads(line), clock, options)
        except Exception as error:  # whatever compilers raise: it is one row's
            reply = {"failed": describe(error)}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
        torch._dynamo.reset()
        gc.collect()
        if not is_dry:
            give_back_device_memory()


if __name__ == "__main__":
    serve("--dry" in sys.argv)
