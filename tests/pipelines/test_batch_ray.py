"""Two nodes of a Ray cluster on this machine, of which one is killed in the middle."""

import json
import os
import sys
import threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import batch_restorers
import processes
import pytest
from clips import Audio, Clip, Video, every
from test_batch import outputs

import mhnet_video.pipelines.batch_ray as batch_ray
import mhnet_video.pipelines.segmented_work as segmented_work
from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.rows import Row, Status
from mhnet_video.batch.work import Unit, Work
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.errors import MHNetVideoError
from mhnet_video.pipelines.batch import run_batch
from mhnet_video.pipelines.batch_ray import RayJob, _row_of, _told, _unit_of
from mhnet_video.pipelines.batch_tally import Tally

BEGIN = """
import json, sys, batch_restorers
from functools import partial
from pathlib import Path
import mhnet_video.pipelines.segmented_work as segmented_work
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.pipelines.batch import run_batch

card, out, notes = sys.argv[1:]
segmented_work.SEGMENT_SECONDS = batch_restorers.SHORT_SECONDS
rows = []
"""
KILL_A_NODE = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes = [cluster.add_node(num_cpus=1)]
cluster.wait_for_nodes()

def on_progress(progress):
    large = len(list(Path(notes).glob("*.large")))
    parts = len(list(Path(out).rglob(".long.mp4.parts/*.nut")))
    if nodes and large == 2 and parts > 3:
        print("KILLED", parts)
        cluster.remove_node(nodes.pop(), allow_graceful=False)

run_batch([card], out, RestoreConfig(preset="ultrafast"), BatchConfig(ray=cluster.address),
          make_restorer=partial(batch_restorers.on_both_nodes, Path(notes)),
          on_row=rows.append, on_progress=on_progress)
print("ROWS", json.dumps([row.to_dict() for row in rows]))
cluster.shutdown()
"""
MEET_TROUBLE = """
run_batch([card], out, RestoreConfig(preset="ultrafast"), BatchConfig(ray="", jobs=2),
          make_restorer=partial(batch_restorers.troubled, Path(card) / "grows.mp4"),
          on_row=rows.append)
print("ROWS", json.dumps([row.to_dict() for row in rows]))
"""
IS_MISSING = find_spec("ray") is None


def run(code, *arguments, folder):
    """Run a script in a process of its own, with Ray; what it prints, and its rows."""
    script = folder / "run.py"
    script.write_text(BEGIN + code)
    tests = str(Path(__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([tests, *filter(None, sys.path)]),
        # on a busy machine workers that are nice never come to begin
        "RAY_worker_niceness": "0",
        "RAY_worker_register_timeout_seconds": "240",
    }
    command = [sys.executable, str(script), *map(str, arguments)]
    done = processes.run(command, env=environment, seconds=280, check=True)
    lines = done.stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("ROWS "))
    return lines, json.loads(line.removeprefix("ROWS "))


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(IS_MISSING, reason="the extra `ray` is not installed")
@pytest.mark.usefixtures("own_process")
def test_a_node_that_is_killed_changes_no_file_of_an_undisturbed_run(tmp_path, monkeypatch):
    """Of a long file both nodes make segments, and one of them is killed before they are done."""
    card, out, notes = (tmp_path / name for name in ("card", "out", "notes"))
    card.mkdir()
    notes.mkdir()
    for index in range(5):
        video = Video(times=every(40, 10), seed=index)
        Clip(name=f"{index}.mp4", video=(video,)).make(card)
    # eight segments
    video = Video(times=every(40, 80), gop=10, width=96)
    Clip(name="long.mp4", video=(video,), audio=(Audio(seconds=3.2),)).make(card)
    (card / "broken.mp4").write_bytes((card / "0.mp4").read_bytes()[:300])
    lines, rows = run(KILL_A_NODE, card, out, notes, folder=tmp_path)
    (parts,) = (line.split()[1] for line in lines if line.startswith("KILLED "))
    assert 3 < int(parts) < 8

    assert sorted(row["output"] for row in rows if row["output"]) == sorted(
        path.name for path in card.iterdir() if path.name != "broken.mp4"
    )
    # a work whose row was lost with its machine is found done
    assert {row["status"] for row in rows if row["output"]} <= {"done", "done before"}
    assert [row["status"] for row in rows if not row["output"]] == ["failed"]
    assert not list((out / OWN_FOLDER).glob("*.parquet"))
    assert list((out / OWN_FOLDER / "work").iterdir()) == []

    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", batch_restorers.SHORT_SECONDS)
    how = {"config": RestoreConfig(preset="ultrafast"), "batch": BatchConfig(jobs=1)}
    make = partial(batch_restorers.counted, tmp_path / "loads")
    run_batch([str(card)], tmp_path / "whole", make_restorer=make, **how)
    assert outputs(out) == outputs(tmp_path / "whole")
    again = run_batch([str(card)], out, make_restorer=make, **how)
    assert {row.status for row in again.rows if row.output} == {Status.BEFORE}


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(IS_MISSING, reason="the extra `ray` is not installed")
@pytest.mark.usefixtures("own_process")
def test_what_goes_wrong_on_a_cluster_is_a_row(tmp_path, monkeypatch):
    card, out = tmp_path / "card", tmp_path / "out"
    (card / "sub").mkdir(parents=True)
    out.mkdir()
    widths = {"good": 64, "mine": 64, "sub/in": 64, "kills": 48, "grows": 80}
    for name, width in widths.items():
        Clip(name=f"{name}.mp4", video=(Video(times=every(40, 10), width=width),)).make(card)
    long = Clip(name="long.ts", video=(Video(times=every(40, 80), gop=10, width=96),)).make(card)
    content = bytearray(long.read_bytes())
    middle = slice(len(content) * 4 // 10, len(content) * 6 // 10)
    content[middle] = bytes(middle.stop - middle.start)
    long.write_bytes(content)
    (out / "mine.mp4").write_bytes(b"mine")
    (out / "sub").touch()

    _, rows = run(MEET_TROUBLE, card, out, "-", folder=tmp_path)
    found = {row["output"]: row for row in rows}
    assert len(rows) == len(found) == 6
    reasons = {name: row["reason"] for name, row in found.items() if row["status"] == "failed"}
    assert reasons.keys() == {"mine.mp4", "sub/in.mp4", "kills.mp4", "grows.mp4"}
    assert "exists already" in reasons["mine.mp4"]
    assert "cannot be used" in reasons["sub/in.mp4"]
    assert "lost each time" in reasons["kills.mp4"]
    assert "changed while it was read" in reasons["grows.mp4"]
    assert (out / "mine.mp4").read_bytes() == b"mine"
    assert outputs(out).keys() == {"good.mp4", "mine.mp4", "sub", "long.ts"}

    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", batch_restorers.SHORT_SECONDS)
    make = partial(batch_restorers.counted, tmp_path / "loads")
    whole = run_batch(
        [str(long)],
        tmp_path / "whole",
        RestoreConfig(preset="ultrafast"),
        BatchConfig(jobs=1),
        make_restorer=make,
    )
    (row,) = whole.rows
    assert row.damaged
    assert (found["long.ts"]["frames"], found["long.ts"]["damaged"]) == (row.frames, row.damaged)


@pytest.fixture
def passes(monkeypatch):
    """Stands for a cluster: what each pass yields, or the error that it ends with."""
    ray, news = ModuleType("ray"), []
    ray.data = ModuleType("ray.data")
    ray.exceptions = SimpleNamespace(RayError=LookupError)
    ray.init = ray.shutdown = lambda **how: None
    ray.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 2}}]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)

    def through(units, job, room):
        for each in news.pop(0):
            if isinstance(each, Exception):
                raise each
            yield each

    monkeypatch.setattr(batch_ray, "_through", through)
    return news


def rows_of_passes(folder):
    """The rows of two files on a cluster that is none."""
    tally = Tally(lambda work: None, None, None)
    works = [
        Work(sources=(folder / name,), output=folder / "out" / name, key=name, seconds=1.0)
        for name in ("a.mp4", "b.mp4")
    ]
    tally.take(works, [])
    job = RayJob(make_restorer=None, config=RestoreConfig(), recipe={}, out=folder)
    batch_ray.run_on_ray(tally, job, address="", jobs=None, stop=threading.Event())
    return {row.output: row for row in tally.report(jobs=1, is_interrupted=False).rows}


def row(name, status=Status.DONE, **values):
    return name, 1.0, Row(status=status, output=name, sources=(), **values)


def test_what_is_lost_is_planned_again_and_not_for_ever(passes, tmp_path):
    passes += [[row("a.mp4"), LookupError("lost")], [("b.mp4", 1.0, None)], [row("b.mp4")]]
    rows = rows_of_passes(tmp_path)
    assert {key: each.status for key, each in rows.items()} == dict.fromkeys(rows, Status.DONE)
    assert rows["b.mp4"].seconds == 2.0
    passes += [[row("a.mp4")], [], [], [row("b.mp4")]]
    found = rows_of_passes(tmp_path)["b.mp4"]
    assert found.status is Status.FAILED
    assert "lost each time" in found.reason
    assert len(passes) == 1


def test_a_full_disk_ends_a_run_on_a_cluster(passes, tmp_path):
    full = row("a.mp4", Status.FAILED, reason="the disk is full.", is_fatal=True)
    passes += [[full, row("b.mp4")]]
    rows = rows_of_passes(tmp_path)
    assert rows["a.mp4"].status is Status.FAILED
    assert rows["b.mp4"].status is Status.UNFINISHED
    assert rows["b.mp4"].reason == "it was not begun, as the run ended: the disk is full."


def test_units_and_rows_travel_as_text():
    work = Work(
        sources=(Path("/card/\udcff.mp4"), Path("/card/b.mp4")),
        output=Path("/out/a.mp4"),
        key="a.mp4",
        seconds=1.5,
    )
    unit = Unit(work=work, first=2, step=5)
    assert _unit_of(_told(unit)) == unit
    row = Row(status=Status.FAILED, output="a.mp4", sources=("x",), lost=("y",), is_fatal=True)
    assert _row_of(json.dumps(vars(row))) == row


def test_without_ray_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    Clip(video=(Video(times=every(40, 3)),)).make(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MHNetVideoError, match=r"pip install 'mhnet-video\[ray\]'"):
        run_batch([str(tmp_path / "clip.mp4")], tmp_path / "out", batch=BatchConfig(ray=""))
