"""Workers load once, may die, end with their parent, and leave signals to it."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import batch_jobs
import processes
import pytest
from waiting import wait_until

from mhnet_video.batch.rows import Row, Status
from mhnet_video.batch.work import Work
from mhnet_video.batch.workers import WorkerPool, WorkPosition
from mhnet_video.errors import MHNetVideoError, WeightsError


def work(key):
    return Work(sources=(Path(key),), output=Path("out") / key, key=key, seconds=10.0)


def do_all(pool, keys):
    """The rows of works, and the positions that came with them."""
    waiting, rows, positions = [work(key) for key in keys], {}, {}

    def are_done():
        while waiting and pool.give(waiting[0]):
            waiting.pop(0)
        for news in pool.poll(1):
            if isinstance(news, Row):
                rows[news.output] = news
            else:
                positions[news.work.key] = news.seconds
        return len(rows) == len(keys)

    wait_until(are_done)
    return rows, positions


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes"
    path.touch()
    return path


def loads(notes):
    return len(notes.read_text().splitlines())


def test_each_worker_loads_once_for_all_its_works(notes):
    keys = [str(number) for number in range(20)]
    with WorkerPool(partial(batch_jobs.load, notes), [{}, {}]) as pool:
        rows, positions = do_all(pool, keys)
    assert {row.status for row in rows.values()} == {Status.DONE}
    assert rows.keys() == set(keys)
    assert set(positions.values()) == {5.0}
    assert loads(notes) == 2
    assert {row.worker for row in rows.values()} <= set(notes.read_text().split())


def test_no_worker_starts_without_a_work(notes):
    with WorkerPool(partial(batch_jobs.load, notes)) as pool:
        assert list(pool.poll(0.1)) == []
    assert loads(notes) == 0


def test_a_killed_worker_is_a_row_and_another_takes_its_place(notes):
    with WorkerPool(partial(batch_jobs.load, notes)) as pool:
        rows, _ = do_all(pool, ["a", "die", "b", "exit", "c"])
    assert [rows[key].status for key in "abc"] == [Status.DONE] * 3
    assert rows["die"].status is Status.FAILED
    assert "killed" in rows["die"].reason and "--jobs" in rows["die"].reason
    assert "status 7" in rows["exit"].reason
    assert loads(notes) == 3


def test_an_idle_worker_that_dies_costs_no_work(notes):
    with WorkerPool(partial(batch_jobs.load, notes)) as pool:
        do_all(pool, ["a"])
        os.kill(int(notes.read_text()), signal.SIGKILL)
        wait_until(lambda: not list(pool.poll(0)) and not pool._workers)
        rows, _ = do_all(pool, ["b"])
    assert rows["b"].status is Status.DONE


def test_an_error_of_loading_is_the_caller_s():
    wrong = pytest.raises(WeightsError, match="the weights are wrong")
    with wrong, WorkerPool(partial(batch_jobs.load_wrongly, "weights")) as pool:
        do_all(pool, ["a"])
    fault = pytest.raises(MHNetVideoError, match="a fault in this program, LookupError: oops")
    with fault, WorkerPool(partial(batch_jobs.load_wrongly, "fault")) as pool:
        do_all(pool, ["a"])


def test_workers_that_die_before_they_begin_are_not_started_for_ever():
    end = pytest.raises(MHNetVideoError, match="before they have begun")
    with end, WorkerPool(partial(batch_jobs.load_wrongly, "die")) as pool:
        do_all(pool, ["a", "b", "c", "d", "e"])


def test_workers_that_die_before_they_begin_now_and_then_end_no_batch(notes):
    keys = ["a", "b", "exit 1", "c", "d", "exit 2", "e", "f"]
    with WorkerPool(partial(batch_jobs.load_every_other, notes)) as pool:
        rows, _ = do_all(pool, keys)
    assert [key for key in keys if rows[key].status is Status.DONE] == ["b", "d", "f"]


def test_works_end_when_they_are_to_stop(notes):
    with WorkerPool(partial(batch_jobs.load, notes), [{}, {}]) as pool:
        waiting = [work("wait 1"), work("wait 2")]
        assert all(pool.give(each) for each in waiting)
        assert not pool.give(work("a"))
        wait_until(lambda: loads(notes) == 2)
        pool.stop()
        rows = []
        while len(rows) < 2:
            rows += [news for news in pool.poll(1) if isinstance(news, Row)]
    assert {row.status for row in rows} == {Status.UNFINISHED}


def test_workers_leave_signals_to_their_parent(notes):
    with WorkerPool(partial(batch_jobs.load, notes)) as pool:
        assert pool.give(work("wait"))
        while not any(isinstance(news, WorkPosition) for news in pool.poll(1)):
            pass
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(int(notes.read_text()), number)
        # it answers what comes after them: a stop
        pool.stop()
        rows = []
        while not rows:
            rows = [news for news in pool.poll(1) if isinstance(news, Row)]
    assert rows[0].status is Status.UNFINISHED


def test_each_worker_has_its_own_environment(notes, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "of the parent")
    environments = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}]
    seen = set()
    with WorkerPool(partial(batch_jobs.load, notes), environments) as pool:
        assert pool.give(work("wait"))
        assert pool.give(work("variable"))
        while not seen:
            seen = {news.model for news in pool.poll(1) if isinstance(news, Row)}
    assert seen == {"3"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "of the parent"


PARENT = """
import sys, batch_jobs
from functools import partial
from pathlib import Path
from mhnet_video.batch.work import Work
from mhnet_video.batch.workers import WorkerPool
if __name__ == "__main__":
    with WorkerPool(partial(batch_jobs.load, Path(sys.argv[1]))) as pool:
        pool.give(Work(sources=(Path("a"),), output=Path("out/a"), key="wait"))
        while True:
            list(pool.poll(1))
"""


def test_workers_end_with_a_parent_that_is_killed(notes, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, *filter(None, sys.path)])
    parent = processes.start(
        [sys.executable, str(script), str(notes)], env=os.environ | {"PYTHONPATH": path}
    )
    wait_until(lambda: loads(notes))
    worker = int(notes.read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: not Path(f"/proc/{worker}").exists())
