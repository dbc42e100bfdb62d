"""Processes that tests start: each ends in time, and with it all that it has started itself."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

SECONDS = 120.0
"""Enough for anything here on a machine that is busy with other things."""

# how long a process that is to end has to say where it was
_LAST_WORDS_SECONDS = 5.0
_running: list["subprocess.Popen[Any]"] = []


def start(
    command: Sequence[Any],
    *,
    env: Mapping[str, str] | None = None,
    is_lasting: bool = False,
    **options: Any,
) -> "subprocess.Popen[Any]":
    """Start a process in a group of its own, which has nothing to read unless something is given.

    Args:
        command: As for `Popen`.
        env: Likewise.
        is_lasting: Whether it is to outlive the test; whoever starts it then ends it.
        options: Likewise; nobody sees its output unless they say who.
    """
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **options}
    # SIGABRT makes Python tell where it is
    environment = {**(os.environ if env is None else env), "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **settings)
    if not is_lasting:
        _running.append(process)
    return process


def end(process: "subprocess.Popen[Any]") -> None:
    """End a process and its children, whether or not it has ended itself."""
    _signal(process, signal.SIGKILL)
    process.wait(SECONDS)
    # what is in the pipes is not read: who else holds them might never let go
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def end_all() -> None:
    """End what a test has left behind."""
    while _running:
        end(_running.pop())


def run(
    command: Sequence[Any],
    *,
    seconds: float = SECONDS,
    check: bool = False,
    text: bool = True,
    **options: Any,
) -> "subprocess.CompletedProcess[Any]":
    """Run a process to its end, with its output caught.

    Files take the output, as a pipe ends only when the last of its children has closed it.

    Args:
        command: As for `Popen`.
        seconds: How long it may take; then the test fails, and tells where the process was.
        check: Whether it must succeed.
        text: Whether its output is text.
        options: As for `start`.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(command, **{"stdout": out, "stderr": err, **options})
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LAST_WORDS_SECONDS)
            said = f"{_read(out, True)[-2000:]}\n{_read(err, True)[-8000:]}"
            raise AssertionError(f"{command} has not ended in {seconds:g} s:\n{said}") from None
        finally:
            end(process)
            _running.remove(process)
        done = subprocess.CompletedProcess(command, status, _read(out, text), _read(err, text))
    if check:
        assert status == 0, f"{command} ended with {status}:\n{done.stdout}\n{done.stderr}"
    return done


def _read(file: IO[bytes], text: bool) -> Any:
    file.seek(0)
    content = file.read()
    return content.decode(errors="replace") if text else content


def _signal(process: "subprocess.Popen[Any]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
