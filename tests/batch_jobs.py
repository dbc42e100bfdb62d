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
    if work.key.startswith("exit"):
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


def load_every_other(notes: Path) -> Job:
    """As `load`, in every other worker; the first one dies."""
    note(notes)
    if len(notes.read_text().splitlines()) % 2:
        os._exit(5)
    return do


class OwnProcess:
    """Does works in this process, as workers do: a second for each start is much in a test."""

    works = ()

    def __init__(self, load, environments):
        self._load, self._job, self._rows = load, None, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def give(self, work):
        if self._rows:
            return False
        self._job = self._job or self._load()
        row = self._job(work, lambda seconds: None, threading.Event())
        self._rows.append(row)
        self.works = [work]
        return True

    def poll(self, seconds):
        self.works, rows, self._rows = [], self._rows, []
        return rows

    def stop(self):
        pass
