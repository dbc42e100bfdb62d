"""Batches end to end: what is done, what is not done again, and what goes wrong."""

import json
import os
import shutil
import signal
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import batch_restorers
import probe
import processes
import pytest
import torch
from clips import Audio, Clip, Video, every
from test_positions import COLD, with_positions
from waiting import wait_until

import mhnet_video.batch.watching
import mhnet_video.pipelines.batch
from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.jobs import share_machine
from mhnet_video.batch.rows import Status
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.engines import self_check
from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.pipelines import batch_job
from mhnet_video.pipelines.batch import run_batch
from mhnet_video.restoration.dryness import Dryness

REPEATABLE = RestoreConfig(preset="ultrafast")
"""x264 looks ahead otherwise, and does not always decide the same for pictures so small."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three clips in a tree, and what is none; not to be changed."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "sub").mkdir()
    for index, name in enumerate(("a.mp4", "b.mov", "sub/c.mp4")):
        Clip(name=name, video=(Video(times=every(40, 8), seed=index),)).make(folder)
    return folder


@pytest.fixture
def card(clips, tmp_path):
    return Path(shutil.copytree(clips, tmp_path / "card"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def notes(tmp_path):
    path = tmp_path / "notes"
    path.touch()
    return path


def restore(card, out, make_restorer, *, config=None, batch=None, **options):
    """The rows of a batch, by their outputs."""
    report = run_batch(
        [str(card)],
        out,
        config or REPEATABLE,
        batch or BatchConfig(jobs=1),
        make_restorer=make_restorer,
        **options,
    )
    return {row.output: row for row in report.rows}


def statuses(rows):
    return {key: row.status for key, row in rows.items()}


def loads(notes):
    return len(notes.read_text().splitlines())


def outputs(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and OWN_FOLDER not in path.parts
    }


KEYS = ("a.mp4", "b.mov", "sub/c.mp4")
ALL_DONE = dict.fromkeys(KEYS, Status.DONE)
ALL_BEFORE = dict.fromkeys(KEYS, Status.BEFORE)


@pytest.mark.usefixtures("own_process")
def test_a_tree_is_restored_with_one_load_of_the_model(card, out, notes):
    rows = restore(card, out, partial(batch_restorers.counted, notes))
    assert statuses(rows) == ALL_DONE
    assert outputs(out).keys() == set(KEYS)
    assert all(len(probe.probe(out / key).video.times) == 8 for key in KEYS)
    assert all(row.frames == 8 and row.footage_seconds > 0.3 for row in rows.values())
    assert loads(notes) == 1


@pytest.mark.usefixtures("own_process")
def test_a_gpu_is_checked_once_and_not_by_each_worker(monkeypatch):
    checked = []

    def usable_devices(name):
        checked.append(name)
        return (torch.device("cpu"),)

    monkeypatch.setattr(self_check, "usable_devices", usable_devices)
    config, _, gpus = mhnet_video.pipelines.batch._resolve(RestoreConfig(), BatchConfig())
    assert config.device == "cpu" and gpus == () and checked == ["auto"]
    # other machines have GPUs of their own
    config, _, _ = mhnet_video.pipelines.batch._resolve(RestoreConfig(), BatchConfig(ray="auto"))
    assert config.device == "auto"


@pytest.mark.parametrize(
    ("device", "gpus"),
    [("cuda", ("4", "5", "6")), ("cuda:2,cuda:0", ("6", "4")), ("cuda:1", ("5",))],
)
def test_each_gpu_that_is_named_has_a_worker(monkeypatch, device, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(self_check, "resolve_device", torch.device)
    config = RestoreConfig(device=device)
    config, _, found = mhnet_video.pipelines.batch._resolve(config, BatchConfig())
    # each worker sees the one that is its own
    assert (found, config.device) == (gpus, "cuda")
    share = share_machine(None, cores=8, gpus=found)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in share.environments] == list(gpus)


@pytest.mark.usefixtures("own_process")
def test_there_are_no_more_jobs_than_files_that_are_left(card, out, notes, monkeypatch):
    monkeypatch.setattr(mhnet_video.pipelines.batch, "usable_cores", lambda: 64)
    monkeypatch.setattr(mhnet_video.pipelines.batch, "usable_bytes", lambda: 1 << 40)
    how = {"make_restorer": partial(batch_restorers.counted, notes)}
    assert run_batch([str(card)], out, REPEATABLE, **how).jobs == 3
    (out / "b.mov").unlink()
    assert run_batch([str(card)], out, REPEATABLE, **how).jobs == 1
    monkeypatch.setattr(mhnet_video.pipelines.batch, "usable_bytes", lambda: 4 << 30)
    assert run_batch([str(card)], out, RestoreConfig(crf=40), **how).jobs == 2


@pytest.mark.slow
def test_several_jobs_give_the_same_files(card, out, notes, tmp_path):
    restore(card, out, partial(batch_restorers.counted, notes))
    two = BatchConfig(jobs=2)
    rows = restore(card, tmp_path / "two", partial(batch_restorers.counted, notes), batch=two)
    assert statuses(rows) == ALL_DONE
    assert outputs(tmp_path / "two") == outputs(out)
    assert loads(notes) == 3


@pytest.mark.usefixtures("own_process")
def test_what_is_done_is_not_done_again(card, out, notes):
    make = partial(batch_restorers.counted, notes)
    restore(card, out, make)
    before = outputs(out)
    assert statuses(restore(card, out, make)) == ALL_BEFORE
    assert loads(notes) == 1  # nor is the model loaded
    (out / "b.mov").unlink()
    rows = restore(card, out, make)
    assert statuses(rows) == ALL_BEFORE | {"b.mov": Status.DONE}
    assert outputs(out) == before


@pytest.mark.usefixtures("own_process")
def test_other_settings_and_other_sources_are_done_anew(card, out, notes):
    make = partial(batch_restorers.counted, notes)
    restore(card, out, make)
    before = outputs(out)
    rows = restore(card, out, make, config=RestoreConfig(crf=40))
    assert statuses(rows) == ALL_DONE
    assert all(before[key] != content for key, content in outputs(out).items())
    # of a card that was used again, whose footage before is in the output alone
    shutil.copyfile(card / "sub/c.mp4", card / "a.mp4")
    before = outputs(out)
    rows = restore(card, out, make, config=RestoreConfig(crf=40))
    assert statuses(rows) == ALL_BEFORE | {"a.mp4": Status.FAILED}
    assert "made of footage that is not all there any more" in rows["a.mp4"].reason
    assert outputs(out) == before
    rows = restore(card, out, make, config=RestoreConfig(crf=40, overwrite=True))
    assert statuses(rows) == ALL_BEFORE | {"a.mp4": Status.DONE}


@pytest.mark.usefixtures("own_process")
def test_what_no_batch_has_made_is_not_replaced(card, out, notes):
    make = partial(batch_restorers.counted, notes)
    out.mkdir()
    (out / "a.mp4").write_bytes(b"precious")
    rows = restore(card, out, make)
    assert statuses(rows) == ALL_DONE | {"a.mp4": Status.FAILED}
    assert "--overwrite" in rows["a.mp4"].reason
    assert (out / "a.mp4").read_bytes() == b"precious"
    rows = restore(card, out, make, config=replace(REPEATABLE, overwrite=True))
    assert statuses(rows) == ALL_BEFORE | {"a.mp4": Status.DONE}


BESIDE = replace(REPEATABLE, gpx=True, evidence=True)


@pytest.mark.usefixtures("own_process")
def test_what_takes_the_place_of_an_output_meanwhile_is_not_replaced(card, out):
    rows = restore(card, out, partial(batch_restorers.appending, out / "a.mp4"))
    assert rows["a.mp4"].status is Status.FAILED
    assert rows["a.mp4"].reason.startswith(f"{out / 'a.mp4'} exists already, and is not as a batch")
    assert (out / "a.mp4").read_bytes() == 3 * b"more"
    assert rows["b.mov"].status is Status.DONE


@pytest.fixture
def located(tmp_path):
    """A folder with a clip that has positions."""
    (tmp_path / "located").mkdir()
    return with_positions(tmp_path / "located", COLD, "a.mp4").parent


@pytest.mark.usefixtures("own_process")
@pytest.mark.parametrize("name", ["a.gpx", "a.mp4.evidence.json"])
def test_what_no_batch_has_made_beside_an_output_is_not_replaced(located, out, notes, name):
    make = partial(batch_restorers.counted, notes)
    out.mkdir()
    (out / name).write_bytes(b"precious")
    rows = restore(located, out, make, config=BESIDE)
    assert statuses(rows) == {"a.mp4": Status.FAILED}
    assert rows["a.mp4"].reason.startswith(f"{out / name} exists already")
    assert outputs(out) == {name: b"precious"}
    rows = restore(located, out, make, config=replace(BESIDE, overwrite=True))
    assert statuses(rows) == {"a.mp4": Status.DONE}
    assert (out / name).read_bytes() != b"precious"


@pytest.mark.usefixtures("own_process")
def test_a_file_beside_an_output_is_made_again_when_it_is_gone(located, out, notes):
    make = partial(batch_restorers.counted, notes)
    restore(located, out, make, config=BESIDE)
    before = outputs(out)
    assert before.keys() == {"a.mp4", "a.gpx", "a.mp4.evidence.json"}
    assert statuses(restore(located, out, make, config=BESIDE)) == {"a.mp4": Status.BEFORE}
    (out / "a.gpx").unlink()
    assert statuses(restore(located, out, make, config=BESIDE)) == {"a.mp4": Status.DONE}
    assert outputs(out).keys() == before.keys()
    # with other settings those that a batch has made are made anew
    rows = restore(located, out, make, config=replace(BESIDE, crf=40))
    assert statuses(rows) == {"a.mp4": Status.DONE}
    assert outputs(out)["a.mp4.evidence.json"] != before["a.mp4.evidence.json"]
    # and those that are not made anew go with the output that they were of
    rows = restore(located, out, make, config=replace(BESIDE, crf=41, gpx=False))
    assert statuses(rows) == {"a.mp4": Status.DONE}
    assert outputs(out).keys() == {"a.mp4", "a.mp4.evidence.json"}


@pytest.mark.usefixtures("own_process")
def test_a_dry_copy_has_its_track_and_says_that_it_has_no_evidence(
    card, located, out, notes, monkeypatch
):
    monkeypatch.setattr(batch_job, "is_dry", lambda *_: Dryness(True, "no drop falls"))
    shutil.copyfile(card / "b.mov", located / "b.mov")
    make = partial(batch_restorers.counted, notes)
    rows = restore(located, out, make, config=BESIDE, batch=BatchConfig(jobs=1, dry="copy"))
    assert statuses(rows) == {"a.mp4": Status.COPIED, "b.mov": Status.COPIED}
    no_evidence = "evidence: a copy has none, as nothing was done to it"
    assert rows["a.mp4"].lost == (no_evidence,)
    assert rows["b.mov"].lost == ("a track of positions: none can be read", no_evidence)
    assert outputs(out).keys() == {"a.mp4", "a.gpx", "b.mov"}
    assert b"<trkpt" in (out / "a.gpx").read_bytes()


@pytest.mark.usefixtures("own_process")
def test_a_dry_clip_that_is_skipped_says_that_an_earlier_output_stays(
    card, out, notes, monkeypatch
):
    monkeypatch.setattr(batch_job, "is_dry", lambda *_: Dryness(True, "no drop falls"))
    make = partial(batch_restorers.counted, notes)
    restore(card, out, make)
    before = outputs(out)
    (out / "b.mov").unlink()
    rows = restore(card, out, make, batch=BatchConfig(jobs=1, dry="skip"))
    assert statuses(rows) == dict.fromkeys(KEYS, Status.SKIPPED)
    assert rows["b.mov"].reason == "it is dry: no drop falls."
    stays = "it is dry: no drop falls; an earlier output stays."
    assert rows["a.mp4"].reason == stays
    assert outputs(out)["a.mp4"] == before["a.mp4"]


@pytest.mark.usefixtures("own_process")
def test_two_outputs_do_not_share_a_track(located, out, notes):
    shutil.copyfile(located / "a.mp4", located / "a.mov")
    report = run_batch(
        [str(located)],
        out,
        BESIDE,
        BatchConfig(jobs=1),
        make_restorer=partial(batch_restorers.counted, notes),
    )
    assert [row.status for row in report.rows] == [Status.FAILED] * 2
    assert outputs(out) == {}


@pytest.mark.usefixtures("own_process")
def test_a_bad_file_is_a_row_and_not_the_end(card, out, notes):
    (card / "b.mov").write_bytes((card / "b.mov").read_bytes()[:300])
    (card / "empty.mp4").touch()
    report = run_batch(
        [str(card)],
        out,
        batch=BatchConfig(jobs=1),
        make_restorer=partial(batch_restorers.counted, notes),
    )
    assert not report.is_done and not report.interrupted
    failed = {Path(row.sources[0]).name for row in report.rows if row.status is Status.FAILED}
    assert failed == {"b.mov", "empty.mp4"}
    assert outputs(out).keys() == {"a.mp4", "sub/c.mp4"}


@pytest.mark.slow
def test_a_killed_worker_is_a_row_and_the_others_are_done(card, out, tmp_path):
    trap = tmp_path / "trap"
    trap.touch()
    make = partial(batch_restorers.killed_by, str(trap))
    rows = restore(card, out, make)
    assert statuses(rows) == ALL_DONE | {"a.mp4": Status.FAILED}
    assert "memory" in rows["a.mp4"].reason
    assert outputs(out).keys() == {"b.mov", "sub/c.mp4"}
    assert statuses(restore(card, out, make)) == ALL_BEFORE | {"a.mp4": Status.DONE}
    assert list((out / OWN_FOLDER / "work").iterdir()) == []


@pytest.mark.usefixtures("own_process")
def test_a_source_that_changes_while_it_is_read_has_no_output(card, out):
    rows = restore(card, out, partial(batch_restorers.appending, card / "a.mp4"))
    assert statuses(rows) == ALL_DONE | {"a.mp4": Status.FAILED}
    assert "was changed while it was read" in rows["a.mp4"].reason
    assert outputs(out).keys() == {"b.mov", "sub/c.mp4"}


@pytest.mark.parametrize("way", ["removing", "failing_without"])
@pytest.mark.usefixtures("own_process")
def test_a_card_that_is_pulled_out_is_a_row(card, out, way):
    """Whether its file is missed at the end, or by what reads it before."""
    rows = restore(card, out, partial(getattr(batch_restorers, way), card / "a.mp4"))
    assert statuses(rows) == ALL_DONE | {"a.mp4": Status.FAILED}
    assert "as when a card is pulled out" in rows["a.mp4"].reason


@pytest.mark.usefixtures("own_process")
def test_a_full_disk_ends_the_run_and_leaves_no_half_file(card, out):
    rows = restore(card, out, batch_restorers.on_a_full_disk)
    assert rows["a.mp4"].status is Status.FAILED
    assert rows["a.mp4"].reason.endswith("the disk is full.")
    others = {rows[key].status for key in KEYS[1:]}
    assert others == {Status.UNFINISHED}
    assert "the disk is full" in rows["sub/c.mp4"].reason
    assert outputs(out) == {}
    assert list((out / OWN_FOLDER / "work").iterdir()) == []


@pytest.mark.usefixtures("own_process")
def test_an_output_without_a_folder_is_a_row_before_it_is_restored(card, out, notes):
    out.mkdir()
    (out / "sub").touch()
    rows = restore(card, out, partial(batch_restorers.counted, notes))
    assert statuses(rows) == ALL_DONE | {"sub/c.mp4": Status.FAILED}
    assert rows["sub/c.mp4"].reason == f"{out / 'sub'} cannot be used: file exists."


@pytest.mark.parametrize("place", ["file", "file/out", "/proc/out"])
def test_a_folder_that_cannot_be_written_is_one_sentence(card, tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        run_batch([str(card)], tmp_path / place, make_restorer=batch_restorers.on_a_full_disk)


def test_outputs_are_no_sources(card):
    with pytest.raises(ConfigError, match="lies in the folder of outputs"):
        run_batch([str(card / "sub")], card)
    # a folder that is marked as one of outputs is passed over ever after
    assert not (card / OWN_FOLDER).exists()


@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_what_is_whole(card, out, notes):
    Clip(name="long.mp4", video=(Video(times=every(40, 400), period=8),)).make(card)
    stop = threading.Event()
    make = partial(batch_restorers.slow, notes)

    def on_progress(progress):
        if progress.current and progress.current[0][0] == "long.mp4" and progress.seconds > 1.2:
            stop.set()

    report = run_batch(
        [str(card)],
        out,
        batch=BatchConfig(jobs=1),
        make_restorer=make,
        on_progress=on_progress,
        stop=stop,
    )
    assert report.interrupted and not report.is_done
    rows = {row.output: row for row in report.rows}
    assert statuses(rows) == {
        "a.mp4": Status.DONE,
        "b.mov": Status.DONE,
        "long.mp4": Status.UNFINISHED,
        "sub/c.mp4": Status.UNFINISHED,
    }
    assert outputs(out).keys() == {"a.mp4", "b.mov"}


@pytest.mark.usefixtures("own_process")
def test_progress_counts_seconds_of_footage(card, out, notes):
    told = []
    make = partial(batch_restorers.counted, notes)
    restore(card, out, make, on_progress=told.append)
    assert told[-1].works == told[-1].total_works == 3
    assert told[-1].seconds == pytest.approx(told[-1].total_seconds)
    assert told[0].total_seconds == pytest.approx(0.96, abs=0.02)
    told.clear()
    restore(card, out, make, on_progress=told.append)
    assert told[-1].total_seconds == pytest.approx(0)  # what was done before takes no time


@pytest.mark.usefixtures("own_process")
@pytest.mark.slow
def test_files_that_appear_are_restored_until_it_is_stopped(
    clips, out, notes, tmp_path, monkeypatch
):
    pytest.importorskip("watchfiles")
    for module in (mhnet_video.pipelines.batch, mhnet_video.batch.watching):
        monkeypatch.setattr(module, "SETTLED_SECONDS", 0.3)
    card, stop, rows = tmp_path / "new", threading.Event(), []
    card.mkdir()
    shutil.copyfile(clips / "a.mp4", card / "a.mp4")

    def on_row(row):
        rows.append(row)
        if len(rows) == 1:
            (card / "sub").mkdir()
            shutil.copyfile(clips / "sub/c.mp4", card / "sub/c.mp4")
            (card / "broken.mp4").write_bytes(b"no video" * 100)
        elif len(rows) == 3:
            shutil.copyfile(clips / "b.mov", card / "a.mp4")  # another one of its name
        elif len(rows) == 4:
            stop.set()

    report = run_batch(
        [str(card)],
        out,
        REPEATABLE,
        batch=BatchConfig(jobs=1, watch=True),
        make_restorer=partial(batch_restorers.counted, notes),
        on_row=on_row,
        stop=stop,
    )
    assert report.interrupted
    assert [row.status for row in rows if row.output == "a.mp4"] == [Status.DONE, Status.FAILED]
    assert [row.status for row in rows if not row.output] == [Status.FAILED]
    assert outputs(out).keys() == {"a.mp4", "sub/c.mp4"}
    assert loads(notes) == 1


@pytest.mark.usefixtures("own_process")
def test_shards_together_do_all(card, out, notes):
    make = partial(batch_restorers.counted, notes)
    done = []
    for number in (1, 2):
        rows = restore(card, out, make, batch=BatchConfig(jobs=1, shard=(number, 2)))
        done += rows
    assert sorted(done) == sorted(KEYS)
    assert statuses(restore(card, out, make)) == ALL_BEFORE


RUN = """
import sys, batch_restorers
from functools import partial
from pathlib import Path
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.pipelines.batch import run_batch
if __name__ == "__main__":
    card, out, notes, pattern, most, *join = sys.argv[1:]
    held = partial(batch_restorers.held, Path(notes), Path(out), pattern, int(most))
    batch = BatchConfig(jobs=2, join=bool(join))
    run_batch([card], out, RestoreConfig(preset="ultrafast"), batch=batch, make_restorer=held)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("own_process")
def test_a_card_that_is_killed_twice_is_as_an_undisturbed_one(tmp_path, notes):
    """Sixty loops, of which three are broken and one is empty."""
    card = tmp_path / "card"
    for index in range(60):
        view, folder = "FR"[index % 2], "Movie/RO" if index % 7 == 0 else "Movie"
        (card / folder).mkdir(parents=True, exist_ok=True)
        sound = (Audio(seconds=0.4),) if index % 3 else ()
        name = f"{folder}/2023_0615_12{index // 2:02}00_{index:04}{view}.MP4"
        Clip(name=name, video=(Video(times=every(40, 6), seed=index),), audio=sound).make(card)
    loops = sorted(card.rglob("*.MP4"))
    for path in loops[10:13]:
        path.write_bytes(path.read_bytes()[:400])
    loops[20].write_bytes(b"")
    whole = tmp_path / "whole"
    report = run_batch(
        [str(card)],
        whole,
        REPEATABLE,
        batch=BatchConfig(jobs=1),
        make_restorer=partial(batch_restorers.counted, notes),
    )
    assert len(outputs(whole)) == 56
    assert sum(row.status is Status.FAILED for row in report.rows) == 4

    out, script = tmp_path / "out", tmp_path / "run.py"
    script.write_text(RUN)
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, *filter(None, sys.path)])
    command = [sys.executable, str(script), str(card), str(out), str(notes), "Movie/**/*.MP4"]
    for count in (10, 30):
        run = processes.start([*command, str(count)], env=os.environ | {"PYTHONPATH": path})
        wait_until(lambda count=count: len(list(out.glob("Movie/**/*.MP4"))) > count)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert 30 < len(outputs(out)) <= 32  # a worker may have been in a file by then
    before = {key: (out / key).stat().st_mtime_ns for key in outputs(out)}
    processes.run([*command, "60"], env=os.environ | {"PYTHONPATH": path}, check=True)
    assert outputs(out) == outputs(whole)
    kept = {key for key, time in before.items() if (out / key).stat().st_mtime_ns == time}
    # a work is lost at most for each worker that was killed before its line had a name
    assert len(kept) >= len(before) - 4
    assert not list(out.rglob("*partial*"))


@pytest.mark.slow
@pytest.mark.usefixtures("own_process")
def test_trips_that_are_killed_are_as_undisturbed_ones(tmp_path, notes):
    """Two cameras, four loops each, of which one is broken."""
    card = tmp_path / "card"
    card.mkdir()
    for index in range(8):
        name = f"2023_0615_12000{index // 2}_{index:04}{'FR'[index % 2]}.MP4"
        video = Video(times=every(40, 25), seed=index)
        Clip(name=name, video=(video,), audio=(Audio(seconds=1.0),)).make(card)
    broken = sorted(card.iterdir())[-1]
    broken.write_bytes(broken.read_bytes()[:400])
    whole, out = tmp_path / "whole", tmp_path / "out"
    report = run_batch(
        [str(card)],
        whole,
        REPEATABLE,
        batch=BatchConfig(jobs=1, join=True),
        make_restorer=partial(batch_restorers.counted, notes),
    )
    assert [row.frames for row in report.rows if row.status is Status.DONE] == [100, 75]
    script = tmp_path / "run.py"
    script.write_text(RUN)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    command = [sys.executable, str(script), str(card), str(out), str(notes), "**/.*.parts/*.nut"]
    for count in (0, 1):
        run = processes.start([*command, str(count), "join"], env=os.environ | {"PYTHONPATH": path})
        wait_until(lambda count=count: len(list(out.rglob(".*.parts/*.nut"))) > count)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert not outputs(out)
    processes.run([*command, "60", "join"], env=os.environ | {"PYTHONPATH": path}, check=True)
    assert outputs(out) == outputs(whole)


@pytest.mark.slow
def test_the_command_ends_at_a_frame_on_sigterm_and_goes_on_later(tmp_path):
    for index in range(3):
        name = f"{index}.mp4"
        Clip(name=name, video=(Video(times=every(40, 300), period=8),)).make(tmp_path)
    words = [sys.executable, "-m", "mhnet_video", "batch", "?.mp4", "out", "--model", "quality"]
    words += ["--engine", "torch", "--jobs", "1", "--report", "report.jsonl", "--overwrite"]
    run = processes.start(words, cwd=tmp_path)
    # the pattern is not the shell's
    wait_until(lambda: list((tmp_path / "out").rglob("*.partial.mp4")))
    run.send_signal(signal.SIGTERM)
    assert run.wait(200) == 130
    rows = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert "unfinished" in {row["status"] for row in rows} <= {"unfinished", "done"}
    whole = {row["output"] for row in rows if row["status"] == "done"}
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == whole
    assert not list((tmp_path / "out").rglob("*partial*"))
