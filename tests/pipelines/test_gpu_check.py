"""The check of a GPU: nothing that a stage has found is lost, whoever is killed or hangs."""

import ast
import json
import os
import re
import signal
import sys
from pathlib import Path

import processes
import pytest
from waiting import wait_until

pytest.importorskip("triton")

from mhnet_video.pipelines import gpu_check, gpu_stages
from mhnet_video.pipelines.stage_runner import CheckStage, run_stages

ROOT = Path(__file__).parents[2]

STAGE = """
import json, os, signal, subprocess, sys, time
what, path = sys.argv[1], sys.argv[sys.argv.index("--rows") + 1]

def row(**values):
    with open(path, "a") as file:
        file.write(json.dumps(values) + "\\n")

row(network="a", size=[4, 2], decibels=40.5)
print("said by", what, flush=True)
if what == "killed":
    row(network="b", size=[4, 2], decibels=30)
    os.kill(os.getpid(), signal.SIGKILL)
if what == "hangs":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "3600"])
    row(child=child.pid, pid=os.getpid())
    with open(path, "a") as file:
        file.write('{"half a ro')
    child.wait()
if what == "fails":
    row(test="t", failed="E  1 != 2")
    sys.exit(3)
"""
RUNNER = """
import json, sys
from pathlib import Path
from mhnet_video.pipelines import gpu_check
from mhnet_video.pipelines.stage_runner import CheckStage

code = Path(sys.argv[1], "stage.py")
names = ["good", "hangs"]
gpu_check.plan = lambda call, is_dry: [
    [CheckStage(name=name, command=[sys.executable, str(code), name], seconds=100)]
    for name in names
]
sys.exit(gpu_check.main([str(Path(sys.argv[1], "out")), "--call", "1", "--dry"]))
"""


@pytest.fixture
def stage(tmp_path):
    path = tmp_path / "stage.py"
    path.write_text(STAGE)

    def make(name, seconds=60.0, command=None):
        command = command or [sys.executable, str(path), name]
        return CheckStage(name=name, command=command, seconds=seconds)

    return make


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.slow
def test_nothing_is_lost_when_a_stage_is_killed_and_another_hangs(tmp_path, stage):
    folder = tmp_path / "out"
    missing = stage("missing", command=[str(tmp_path / "nothing")])
    steps = [[stage("killed"), stage("hangs", seconds=3.0), stage("good")]]
    steps += [[stage("fails"), missing]]
    told = []
    figures = run_stages(steps, folder, seconds=100, jobs=4, on_end=told.append)
    assert read(folder) == figures
    found = {each["stage"]: each for each in figures["stages"]}
    assert found["killed"]["status"] == "killed by SIGKILL"
    assert [row["network"] for row in found["killed"]["rows"]] == ["a", "b"]
    assert found["hangs"]["status"] == "not done after 3 s"
    assert found["hangs"]["rows"][0]["network"] == "a"
    child = found["hangs"]["rows"][1]["child"]
    wait_until(lambda: not is_running(child))
    assert found["good"]["status"] == "done" and len(found["good"]["rows"]) == 1
    assert found["fails"]["status"] == "exit status 3" and len(found["fails"]["rows"]) == 2
    assert found["missing"]["status"].startswith("not started: ")
    assert {each["stage"] for each in told} == found.keys()
    assert (folder / "killed.log").read_text() == "said by killed\n"
    table = gpu_check.to_table(figures)
    assert "FAILED fails: t: E  1 != 2" in table
    assert "killed: b 4x2: 30 dB" in table
    assert not gpu_check.is_good(figures)


def test_stages_without_time_say_so(tmp_path, stage):
    figures = run_stages([[stage("good")], [stage("fails")]], tmp_path, seconds=0, jobs=1)
    assert [each["status"] for each in figures["stages"]] == ["no time was left"] * 2
    assert not gpu_check.is_good(figures)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_nothing_is_lost_when_the_runner_is_killed(tmp_path, stage, number):
    stage("good")
    folder = tmp_path / "out"
    command = [sys.executable, "-c", RUNNER, tmp_path]
    runner = processes.start(command, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def rows():
        path = folder / "results.json"
        stages = read(folder)["stages"] if path.exists() else []
        return stages[1]["rows"] if len(stages) == 2 else []

    wait_until(lambda: len(rows()) == 2)
    pids = [rows()[1]["child"], rows()[1]["pid"]]
    runner.send_signal(number)
    status = runner.wait(60)
    found = read(folder)["stages"]
    assert [len(each["rows"]) for each in found] == [1, 2]
    if number == signal.SIGTERM:
        assert status == 130
        assert [each["status"] for each in found] == ["done", "stopped"]
        wait_until(lambda: not any(map(is_running, pids)))
    else:
        assert [each["status"] for each in found] == ["done", "running"]
        os.killpg(pids[1], signal.SIGKILL)


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status = gpu_check.main([str(tmp_path / "file"), "--dry", "--only", "machine"])
    assert status == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_stage_that_is_not_there(tmp_path, capsys):
    assert gpu_check.main([str(tmp_path), "--dry", "--only", "nothing"]) == 1
    assert "no stage begins with nothing" in capsys.readouterr().err


def test_every_stage_has_a_name_a_limit_and_something_to_run():
    for is_dry in (False, True):
        names = []
        for call, limit in gpu_check.CALL_SECONDS.items():
            steps = gpu_check.plan(call, is_dry=is_dry)
            for step in steps:
                longest = limit * gpu_check._DRY_TIMES if is_dry else limit
                assert all(0 < stage.seconds < longest for stage in step)
                names += [stage.name for stage in step]
        assert len(set(names)) == len(names)
    for name in {**gpu_check.FIRST_TESTS, **gpu_check.SECOND_TESTS}:
        assert (ROOT / "tests" / name).is_file(), name
    run = {name for name in gpu_stages.STAGES if name in names or name + "-1-of-1" in names}
    assert run == set(gpu_stages.STAGES)


def test_every_kernel_has_a_direct_test_on_a_gpu():
    """In a file of the first call, by its own name and not in a network alone."""
    texts = [(ROOT / "tests" / name).read_text() for name in gpu_check.FIRST_TESTS]
    called = {
        name
        for text in texts
        for name in re.findall(r'(?:ops\.|\bcheck\("|\blaunch\[")(\w+)', text)
    } | {name for text in texts for name in re.findall(r"form\.(read|apply)\(", text)}
    places = [*(ROOT / "kernels").glob("*ops.py")]
    places.append(ROOT / "mhnet_video" / "restoration" / "gpu_layout.py")
    found = set()
    for path in places:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                inside = [each for each in ast.walk(node) if isinstance(each, ast.ImportFrom)]
                names = {alias.name for each in inside for alias in each.names}
                if any(name.startswith("launch_") for name in names):
                    found.add(node.name)
    assert len(found) > 25
    assert found <= called, found - called


def test_tests_in_parts_are_all_of_them(tmp_path):
    # in a folder of its own, where no conftest.py imports PyTorch
    cases = "import pytest\n\n@pytest.mark.parametrize('n', range(21))\ndef test_case(n): pass\n"
    (tmp_path / "test_many.py").write_text(cases)
    rows = []
    for part in ("1/2", "2/2"):
        path = tmp_path / f"rows-{part[0]}"
        command = [sys.executable, "-m", "pytest", "-p", "stage_rows", "-p", "no:cacheprovider"]
        command += ["--part", part, "--rows", path, tmp_path / "test_many.py"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        processes.run(command, env=environment, check=True)
        rows.append([json.loads(line) for line in path.read_text().splitlines()])
    assert abs(len(rows[0]) - len(rows[1])) == 1
    names = [row["test"] for part in rows for row in part]
    assert len(set(names)) == len(names) == 21
    assert {row["outcome"] for part in rows for row in part} == {"passed"}


def test_a_test_that_fails_is_a_row(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_one():\n    assert 1 == 2\n")
    command = [sys.executable, "-m", "pytest", "-p", "stage_rows", "-p", "no:cacheprovider"]
    command += ["--rows", tmp_path / "rows", tmp_path / "test_one.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    assert processes.run(command, env=environment).returncode == 1
    (row,) = map(json.loads, (tmp_path / "rows").read_text().splitlines())
    assert row["outcome"] == "failed" and row["failed"] == "E assert 1 == 2"


@pytest.mark.slow
def test_a_dry_run(tmp_path):
    """Of the stages that the interpreter does in little time."""
    command = [sys.executable, "-m", "mhnet_video.pipelines.gpu_check", tmp_path, "--dry"]
    command += ["--only", "machine", "test_gpu-", "fronts", "test_memory"]
    done = processes.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, seconds=240)
    assert done.returncode == 0, done.stdout + done.stderr
    stages = {each["stage"]: each for each in read(tmp_path)["stages"]}
    assert set(stages) > {"machine", "fronts", "test_gpu-1-of-3"}
    assert all(each["status"] == "done" for each in stages.values())
    assert stages["machine"]["rows"][0]["copy_gbs"] > 0
    assert "split" in stages["fronts"]["rows"][0]["fronts"]
    assert "first half, 16 channels 10x6: split" in done.stdout
