"""Units of a work: any number of processes do them, in any order and twice, without harm."""

import threading
from dataclasses import replace

import probe
import pytest
import torch
from clips import Audio, Clip, Video, every
from standin import StandIn, inverted

import mhnet_video.pipelines.batch_job as batch_job
import mhnet_video.pipelines.segmented_work as segmented_work
from mhnet_video.batch.claim import Claim, staged_path
from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.rows import Status
from mhnet_video.batch.work import Unit, Work
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import WriteError
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.pipelines.batch_job import BatchJob
from mhnet_video.pipelines.batch_units import in_order, missing_units
from mhnet_video.pipelines.evidence import EvidenceWriter

CONFIG = RestoreConfig(preset="ultrafast")
RECIPE = {"dry": "restore"}
LONG = Clip(
    name="long.mp4",
    video=(Video(times=every(40, 50), gop=10),),
    audio=(Audio(seconds=2),),
)
"""Of five segments."""


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Segments of less than half a second."""
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", 0.39)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out" / OWN_FOLDER).mkdir(parents=True)
    return tmp_path / "out"


@pytest.fixture
def work(tmp_path, out):
    source = LONG.make(tmp_path)
    return Work(sources=(source,), output=out / "long.mp4", key="long.mp4", seconds=2.0)


def job(out, *, config=CONFIG, recipe=RECIPE, restorer=None):
    """What a process of its own has."""
    found = restorer or StandIn(inverted)
    return BatchJob(lambda config: found, config, recipe, out, torch.get_num_threads())


def units(work, out, config=CONFIG):
    return missing_units(work, config, out, segmented_work.SEGMENT_SECONDS)


def undisturbed(work, tmp_path):
    """What one process makes of a work, and its row."""
    whole = tmp_path / "whole"
    (whole / OWN_FOLDER).mkdir(parents=True)
    other = replace(work, output=whole / work.key)
    row = job(whole)(other, lambda seconds: None, threading.Event())
    assert row.status is Status.DONE
    return other.output.read_bytes(), row


def parts(work, out):
    folder = SegmentStore(staged_path(out, work)).folder
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nut")}


def test_segments_stay_where_what_is_asked_for_beside_the_output_fails(work, out, monkeypatch):
    """The output has not got its name then: only the joining is done again."""
    config = replace(CONFIG, evidence=True)

    def refuse(self, told):
        raise WriteError("it cannot be written.")

    with monkeypatch.context() as patch:
        patch.setattr(EvidenceWriter, "complete", refuse)
        row = job(out, config=config)(work, lambda seconds: None, threading.Event())
    assert row.status is Status.FAILED and "cannot be written" in row.reason
    assert "complete" not in row.reason and not work.output.exists()
    restorer = StandIn(inverted)
    row = job(out, config=config, restorer=restorer)(work, lambda seconds: None, threading.Event())
    assert row.status is Status.DONE and work.output.exists()
    assert restorer.seen == 0


def test_whoever_does_the_last_unit_joins_what_others_have_made(work, out, tmp_path):
    wanted, row = undisturbed(work, tmp_path)
    todo = units(work, out)
    assert [(unit.first, unit.step) for unit in todo] == [(first, 6) for first in range(6)]
    jobs = [job(out), job(out)]
    rows = [
        jobs[number % 2].part(unit) for number, unit in enumerate(reversed(todo))
    ]  # the first one is the last
    assert rows[:-1] == [None] * 5
    own = {"seconds": 0.0, "worker": ""}
    assert replace(rows[-1], **own) == replace(row, **own)
    assert work.output.read_bytes() == wanted
    assert not staged_path(out, work).parent.exists()


def test_units_of_several_segments_do_all_of_them(work, out, tmp_path):
    wanted, _ = undisturbed(work, tmp_path)
    assert job(out).part(Unit(work=work, first=1, step=2)) is None
    assert sorted(parts(work, out)) == ["000001.nut", "000003.nut"]
    assert job(out).part(Unit(work=work, first=0, step=2)).status is Status.DONE
    assert work.output.read_bytes() == wanted


def test_a_unit_that_is_done_twice_changes_nothing(work, out):
    todo = units(work, out)
    assert job(out).part(todo[2]) is None
    before = parts(work, out)
    seen = StandIn(inverted)
    assert job(out, restorer=seen).part(todo[2]) is None
    assert parts(work, out) == before
    assert seen.seen == 0
    rows = [job(out).part(unit) for unit in todo]
    assert [row.status for row in rows if row is not None] == [
        Status.DONE,
        Status.BEFORE,
    ]  # the last one has no segment
    content = work.output.read_bytes()
    assert job(out).part(todo[2]).status is Status.BEFORE
    assert work.output.read_bytes() == content


def test_only_what_is_missing_is_planned_again(work, out):
    for unit in units(work, out)[1:4]:
        job(out).part(unit)
    assert [unit.first for unit in units(work, out)] == [0, 4]
    store = SegmentStore(staged_path(out, work))
    (store.folder / "000002.nut").write_bytes(b"cut off")
    assert [unit.first for unit in units(work, out)] == [0, 2, 4]
    # with other settings, nothing of it is of use
    other = replace(CONFIG, crf=40)
    assert [unit.first for unit in units(work, out, other)] == list(range(6))


def test_where_only_the_join_is_missing_one_unit_makes_it(work, out, tmp_path, monkeypatch):
    wanted, _ = undisturbed(work, tmp_path)
    with monkeypatch.context() as patch:
        # the last ones see nothing of each other
        patch.setattr(SegmentStore, "is_complete", False)
        assert [job(out).part(unit) for unit in units(work, out)] == [None] * 6
    (unit,) = units(work, out)
    assert unit == Unit(work=work)
    row = job(out)(unit.work, lambda seconds: None, threading.Event())
    assert row.status is Status.DONE
    assert work.output.read_bytes() == wanted


def test_short_files_and_outputs_without_segments_are_one_unit(work, out):
    short = replace(work, seconds=1.0)
    assert units(short, out) == [Unit(work=short)]
    avi = replace(work, output=out / "long.avi", key="long.avi")
    assert units(avi, out) == [Unit(work=avi)]
    gone = replace(work, sources=(out / "gone.mp4",))
    assert len(units(gone, out)) == 1


def test_a_segment_that_another_process_makes_is_waited_for(work, out, tmp_path, monkeypatch):
    monkeypatch.setattr(segmented_work, "_WAIT_SECONDS", 0.01)
    todo = units(work, out)
    job(out).part(todo[0])
    store, waiting = SegmentStore(staged_path(out, work)), []

    class Watched(threading.Thread):
        def run(self):
            waiting.append(job(out).part(todo[1]))

    with store.claim(1) as is_ours:
        assert is_ours
        with store.claim(1) as is_ours:
            assert not is_ours
        thread = Watched()
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and not store.has(1)
    thread.join(60)
    assert waiting == [None]
    store.load(store.made_of())
    assert store.has(1)


def test_a_unit_waits_for_whoever_plans_and_not_for_ever(work, out, monkeypatch):
    monkeypatch.setattr(batch_job, "_PLANNING_SECONDS", 0.3)
    with Claim(out, work):
        row = job(out).part(units(work, out)[0])
    assert row.status is Status.ELSEWHERE
    assert not parts(work, out)


def test_a_dry_file_is_copied_by_the_unit_that_plans(work, out, monkeypatch):
    monkeypatch.setattr(batch_job, "_dryness", lambda work, policy, restorer: "it is dry: no rain.")
    todo, recipe = units(work, out), {"dry": "copy"}
    assert job(out, recipe=recipe).part(todo[3]).status is Status.COPIED
    assert work.output.read_bytes() == work.sources[0].read_bytes()
    assert job(out, recipe=recipe).part(todo[0]).status is Status.BEFORE


@pytest.mark.parametrize(("name", "begin", "end"), [("a.mp4", 45, 55), ("b.ts", 30, 75)])
def test_a_damaged_middle_comes_out_as_of_one_process(work, out, tmp_path, name, begin, end):
    """Also where it takes the frames of whole segments.

    How FFmpeg fills gaps in pictures differs from run to run, and so their bytes are not compared.
    """
    source = replace(LONG, name=name).make(tmp_path)
    content = bytearray(source.read_bytes())
    first, last = (len(content) * percent // 100 for percent in (begin, end))
    content[first:last] = bytes(last - first)
    source.write_bytes(content)
    work = replace(work, sources=(source,), output=out / name, key=name)
    wanted = tmp_path / "whole" / name
    _, whole = undisturbed(work, tmp_path)
    assert whole.damaged
    jobs = [job(out), job(out)]
    rows = [jobs[number % 2].part(unit) for number, unit in enumerate(units(work, out))]
    (row,) = (row for row in rows if row is not None and row.status is Status.DONE)
    assert (row.frames, row.damaged, row.lost) == (whole.frames, whole.damaged, whole.lost)
    assert probe.probe(work.output).video.times == probe.probe(wanted).video.times


def test_an_error_in_a_unit_is_the_row_of_its_work(work, out):
    todo = units(work, out)
    work.output.write_bytes(b"mine")
    row = job(out).part(todo[0])
    assert row.status is Status.FAILED
    assert row.reason.startswith(f"{work.output} exists already")
    work.output.unlink()
    row = job(out, restorer=StandIn(fail_at=3)).part(todo[0])
    assert row.status is Status.FAILED and "the restorer broke" in row.reason


def test_the_next_work_is_planned_while_the_one_before_is_made(work):
    works = [replace(work, key=str(number)) for number in range(3)]
    cut = [
        [Unit(work=works[0], first=first, step=3) for first in range(3)],
        [Unit(work=works[1])],
        [Unit(work=works[2], first=first, step=2) for first in range(2)],
    ]
    order = [(unit.work.key, unit.first) for unit in in_order(cut)]
    assert order == [("0", 0), ("1", 0), ("0", 1), ("0", 2), ("2", 0), ("2", 1)]
    assert in_order([]) == []
