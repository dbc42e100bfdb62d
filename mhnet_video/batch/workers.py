"""Worker processes: each loads the model once, and does one work at a time."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from mhnet_video.batch.rows import Row, Status, row_of
from mhnet_video.batch.work import Work
from mhnet_video.closing import Closing
from mhnet_video.errors import MHNetVideoError, unforeseen
from mhnet_video.system import ignore_ending_signals, is_killed, signals_held_back

Job = Callable[[Work, Callable[[float], None], threading.Event], Row]
"""Does a work, reports the seconds of footage that are restored, and ends early at a frame when the
event is set."""

_MOST_DEATHS = 3
"""Workers that may die in a row before they are ready; then no other is started."""
_PATIENCE_SECONDS = 30.0
_STOP = "stop"


@dataclass(frozen=True)
class WorkPosition:
    """How far a work has come."""

    work: Work
    seconds: float
    """Seconds of footage that are restored."""


@dataclass(frozen=True)
class _Ready:
    """The worker has loaded the model."""


@dataclass
class _Worker:
    """A process as its parent knows it."""

    process: Any
    connection: Any
    slot: int
    """Index of its environment."""
    is_ready: bool = False
    work: Work | None = None


class WorkerPool(Closing):
    """Workers for works. They start with the first work, and are closed with the pool.

    Signals are the parent's matter: workers ignore those that end processes, and end with it.

    Args:
        load: Gives the job of a worker, in its process and once; picklable.
        environments: What each worker has in its environment besides; one worker for each.
    """

    def __init__(
        self, load: Callable[[], Job], environments: Sequence[Mapping[str, str]] = ({},)
    ) -> None:
        self._load = load
        self._environments = environments
        self._workers: list[_Worker] = []
        self._deaths = 0
        self._context = multiprocessing.get_context("spawn")

    @property
    def works(self) -> list[Work]:
        """The works that workers are doing."""
        return [worker.work for worker in self._workers if worker.work is not None]

    def give(self, work: Work) -> bool:
        """Pass a work to a worker; False if all of them are busy."""
        for worker in self._workers:
            if worker.work is None and worker.process.is_alive():
                worker.work = work
                with suppress(OSError):  # it has just died, which `poll` finds
                    worker.connection.send(work)
                return True
        if len(self._workers) == len(self._environments):
            return False
        self._start()
        return self.give(work)

    def poll(self, seconds: float) -> Iterator[WorkPosition | Row]:
        """What happened, waited for up to some seconds.

        Yields:
            How far workers have come, and rows of works that have ended, also by a worker's death.

        Raises:
            MHNetVideoError: A worker cannot load what it needs, or none lives to do so.
        """
        waiting = [worker.connection for worker in self._workers]
        waiting += [worker.process.sentinel for worker in self._workers]
        if not waiting:
            return
        connection.wait(waiting, seconds)
        for worker in list(self._workers):
            yield from self._news_of(worker)

    def stop(self) -> None:
        """Have each worker end its work at a frame; `poll` then gives the rows."""
        for worker in self._workers:
            with suppress(OSError):
                worker.connection.send(_STOP)

    def close(self) -> None:
        """End the workers: those without a work by themselves, the others at once."""
        for worker in self._workers:
            if worker.work is not None:
                worker.process.kill()
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(_PATIENCE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers.clear()

    def _start(self) -> None:
        taken = {worker.slot for worker in self._workers}
        slot = next(slot for slot in range(len(self._environments)) if slot not in taken)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._load), name=f"mhnet-video worker {slot + 1}"
        )
        with _environment(self._environments[slot]), signals_held_back():
            process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, slot))

    def _news_of(self, worker: _Worker) -> Iterator[WorkPosition | Row]:
        is_dead = not worker.process.is_alive()  # asked first: what it said before still counts
        with suppress(EOFError, OSError):
            while worker.connection.poll():
                said = worker.connection.recv()
                if isinstance(said, MHNetVideoError):
                    raise said
                if isinstance(said, _Ready):
                    worker.is_ready, self._deaths = True, 0
                elif isinstance(said, Row):
                    worker.work = None
                    yield said
                elif worker.work is not None:
                    yield WorkPosition(worker.work, said)
        if is_dead:
            self._workers.remove(worker)
            yield from self._last_words(worker)

    def _last_words(self, worker: _Worker) -> Iterator[Row]:
        reason = _why_dead(worker.process.exitcode)
        worker.connection.close()
        worker.process.close()
        if not worker.is_ready:
            self._deaths += 1
            if self._deaths >= _MOST_DEATHS:
                raise MHNetVideoError(f"workers end before they have begun: {reason}")
        if worker.work is not None:
            yield row_of(worker.work, Status.FAILED, reason)


def _why_dead(status: int | None) -> str:
    if is_killed(status):
        return (
            "the worker was killed, as the system does when memory runs out; "
            "run it again with fewer --jobs."
        )
    if status is not None and status < 0:
        with suppress(ValueError):
            return f"the worker died of {signal.Signals(-status).name}; run it again."
    return f"the worker ended with status {status}; run it again."


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Give the process some variables for the time in which it starts another."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(parent: Any, load: Callable[[], Job]) -> None:
    """Be a worker: load once, then do what comes until the parent has nothing more, or is gone."""
    ignore_ending_signals()
    stop = threading.Event()
    works: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(parent, works, stop), daemon=True).start()
    with suppress(BrokenPipeError):
        try:
            job = load()
        except MHNetVideoError as error:
            parent.send(error)
            return
        except Exception as error:
            parent.send(MHNetVideoError(unforeseen(error)))
            return
        parent.send(_Ready())
        while (work := works.get()) is not None:
            parent.send(job(work, parent.send, stop))


def _listen(parent: Any, works: "queue.SimpleQueue[Work | None]", stop: threading.Event) -> None:
    """Take what the parent sends; when it is gone, end at a frame."""
    try:
        while True:
            said = parent.recv()
            if said == _STOP:
                stop.set()
            else:
                works.put(said)
    except (EOFError, OSError):
        stop.set()
        works.put(None)
