"""Two nodes of a Ray cluster on this machine, of which one is killed in the middle."""

import json
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import batch_restorers
import processes
import pytest
from clips import Clip, Video, every

from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.rows import Row, Status
from mhnet_video.batch.work import Work
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.errors import MHNetVideoError
from mhnet_video.pipelines.batch import run_batch
from mhnet_video.pipelines.batch_ray import _row_of, _told, _work_of

RUN = """
import json, sys, batch_restorers
from functools import partial
from pathlib import Path
from ray.cluster_utils import Cluster
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.pipelines.batch import run_batch

card, out, notes = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
rows = []

def on_row(row):
    rows.append(row)
    if len(rows) == 4:
        cluster.remove_node(second, allow_graceful=False)

run_batch([card], out, RestoreConfig(preset="ultrafast"), BatchConfig(ray=cluster.address),
          make_restorer=partial(batch_restorers.slow, Path(notes)), on_row=on_row)
print("ROWS", json.dumps([row.to_dict() for row in rows]))
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_a_node_that_is_killed_costs_no_file(tmp_path):
    card, out = tmp_path / "card", tmp_path / "out"
    card.mkdir()
    for index in range(12):
        video = Video(times=every(40, 10), seed=index)
        Clip(name=f"{index}.mp4", video=(video,)).make(card)
    (card / "broken.mp4").write_bytes((card / "0.mp4").read_bytes()[:300])
    script = tmp_path / "run.py"
    script.write_text(RUN)
    tests = str(Path(__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([tests, *filter(None, sys.path)]),
        # on a busy machine workers that are nice never come to begin
        "RAY_worker_niceness": "0",
        "RAY_worker_register_timeout_seconds": "240",
    }
    command = [sys.executable, str(script), str(card), str(out), str(tmp_path / "notes")]
    done = processes.run(command, env=environment, seconds=280, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("ROWS "))
    rows = json.loads(line.removeprefix("ROWS "))

    assert sorted(row["output"] for row in rows if row["output"]) == sorted(
        path.name for path in card.iterdir() if path.name != "broken.mp4"
    )
    # a work whose row was lost with its machine is found done
    assert {row["status"] for row in rows if row["output"]} <= {"done", "done before"}
    assert [row["status"] for row in rows if not row["output"]] == ["failed"]
    assert not list((out / OWN_FOLDER).glob("*.parquet"))
    make = partial(batch_restorers.counted, tmp_path / "again")
    config = RestoreConfig(preset="ultrafast")
    again = run_batch([str(card)], out, config, BatchConfig(jobs=1), make_restorer=make)
    assert {row.status for row in again.rows if row.output} == {Status.BEFORE}


def test_works_and_rows_travel_as_text():
    work = Work(
        sources=(Path("/card/\udcff.mp4"), Path("/card/b.mp4")),
        output=Path("/out/a.mp4"),
        key="a.mp4",
        seconds=1.5,
    )
    assert _work_of(_told(work)) == work
    row = Row(status=Status.FAILED, output="a.mp4", sources=("x",), lost=("y",), is_fatal=True)
    assert _row_of(json.dumps(vars(row))) == row


def test_without_ray_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    Clip(video=(Video(times=every(40, 3)),)).make(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MHNetVideoError, match=r"pip install 'mhnet-video\[ray\]'"):
        run_batch([str(tmp_path / "clip.mp4")], tmp_path / "out", batch=BatchConfig(ray=""))
