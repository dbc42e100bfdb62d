"""Jobs of workers, importable in processes of their own; without PyTorch, which takes seconds."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from mhnet_video.batch.rows import Row, Status, row_of
from mhnet_video.batch.work import Work
from mhnet_video.batch.workers import Job
from mhnet_video.errors import WeightsError


def note(path: Path) -> None:
    """Add the number of this process to a file."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def load(notes: Path) -> Job:
    """A job that does what the key of its work says."""
    note(notes)
    return do


def do(work: Work, tell: Callable[[float], None], stop: threading.Event) -> Row:
    tell(work.seconds / 2)
    if work.key == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if work.key == "exit":
        os._exit(7)
    if work.key == "variable":
        return row_of(work, Status.DONE, model=os.environ.get("CUDA_VISIBLE_DEVICES", "-"))
    if work.key.startswith("wait"):
        is_stopped = stop.wait(60)
        status = Status.UNFINISHED if is_stopped else Status.FAILED
        return row_of(work, status)
    return row_of(work, Status.DONE, worker=str(os.getpid()))


def load_wrongly(error: str) -> Job:
    if error == "weights":
        raise WeightsError("the weights are wrong")
    if error == "fault":
        raise LookupError("oops")
    os._exit(5)
