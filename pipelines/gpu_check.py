"""Check and measure the GPU path on one GPU, in two calls of five minutes each.

`python -m mhnet_video.pipelines.gpu_check FOLDER` runs the GPU tests and the benchmark as stages,
each in a process of its own with a time limit. It needs this source tree and the packages of the
program, and neither make nor git nor a network. FOLDER has `results.json`, rewritten after every
row, and the output of each stage. `--dry` runs all of it on tiny sizes, without a GPU.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from mhnet_video.pipelines.bench_table import row_line
from mhnet_video.pipelines.stage_runner import CheckStage, run_stages

ROOT = Path(__file__).resolve().parents[1]
"""The source tree, whose `tests` are run."""
FIRST_TESTS = {
    "kernels/test_map_kernels.py": 6,
    "kernels/test_motion_kernels.py": 2,
    "kernels/test_kernels.py": 1,
    "kernels/test_cubins.py": 1,
    "restoration/test_gpu_layout.py": 2,
    "restoration/test_gpu.py": 3,
}
"""Tests of the first call, in processes beside one another: the parts that each file is run in.
Every kernel is called directly by one of them."""
SECOND_TESTS = {
    "engines/triton/test_triton_engine.py": 4,
    "engines/triton/test_memory_traffic.py": 1,
    "restoration/test_gpu_pipeline.py": 2,
    "restoration/test_gpu_restorer.py": 1,
    "restoration/test_graph_average.py": 1,
}
"""Tests of the second call."""
CALL_SECONDS = {1: 300.0, 2: 330.0}
"""Time limit of each call."""
_DRY_TIMES = 15
"""How many times as long a stage may take in Triton's interpreter."""
_COMPILERS = 14
"""Processes that compile at the same time; two of sixteen processors are left for other work."""


def plan(call: int, *, is_dry: bool) -> list[list[CheckStage]]:
    """The stages of a call: steps one after the other, with stages beside one another.

    Args:
        call: 1 or 2.
        is_dry: Whether they are to run without a GPU.
    """
    times = _DRY_TIMES if is_dry else 1

    def measure(name: str, seconds: float, part: str = "") -> CheckStage:
        seconds *= times
        command = [sys.executable, "-m", "mhnet_video.pipelines.gpu_stages", name]
        command += ["--seconds", str(0.8 * seconds)] + ["--dry"] * is_dry
        title = name if not part else f"{name}-{part.replace('/', '-of-')}"
        command += ["--part", part] if part else []
        return CheckStage(
            name=title, command=command, seconds=seconds, environment=_environment(is_dry)
        )

    def tests(files: dict[str, int], seconds: float) -> list[CheckStage]:
        return [
            _tests_of(file, f"{number}/{count}", seconds * times, is_dry)
            for file, count in files.items()
            for number in range(1, count + 1)
        ]

    if call == 1:
        compilers = 1 if is_dry else _COMPILERS
        parts = [f"{number}/{compilers}" for number in range(1, compilers + 1)]
        return [
            [measure("machine", 40)],
            [measure("programs", 90, part) for part in parts],
            tests(FIRST_TESTS, 110),
            [measure("networks", 60)],
            [measure("restorers", 50)],
            [measure("same", 30)],
        ]
    return [
        tests(SECOND_TESTS, 100),
        [measure("fronts", 30)],
        [measure("streams", 60)],
        [measure("files", 80)],
        [measure("restorers-4k", 40)],
        [measure("networks-4k", 60)],
        [measure("kernels", 90)],
    ]


def _tests_of(file: str, part: str, seconds: float, is_dry: bool) -> CheckStage:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "stage_rows", "-p", "no:cacheprovider"]
    command += ["-W", "default", "--maxfail=9", "--part", part, str(ROOT / "tests" / file)]
    command += ["-m", "not slow"] if is_dry else []
    title = f"{Path(file).stem}-{part.replace('/', '-of-')}"
    environment = _environment(is_dry)
    if not is_dry:
        environment["MHNET_REQUIRE_CUDA"] = "1"
    # a part may have no test: that is status 5
    return CheckStage(name=title, command=command, seconds=seconds, environment=environment)


def _environment(is_dry: bool) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    found = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONFAULTHANDLER": "1"}
    return found | ({"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if is_dry else {})


def to_table(figures: dict[str, Any]) -> list[str]:
    """The results as lines: one for each stage, each failure and each measurement."""
    stages = figures["stages"]
    lines = [_summary(stage) for stage in stages]
    for stage in stages:
        lines += [f"FAILED {stage['stage']}: {_name(r)}: {r['failed']}" for r in _failed(stage)]
    for stage in stages:
        rows = [row for row in stage["rows"] if "failed" not in row]
        lines += [f"{stage['stage']}: {line}" for row in rows if (line := row_line(row))]
    return lines


def _summary(stage: dict[str, Any]) -> str:
    text = f"{stage['stage']:32} {stage['seconds']:6.1f} s  {stage['status']}"
    text += f", {len(stage['rows'])} rows"
    failed = len(list(_failed(stage)))
    return text + (f", {failed} failed" if failed else "")


def _failed(stage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (row for row in stage["rows"] if "failed" in row)


def _name(row: dict[str, Any]) -> str:
    keys = ("test", "network", "kernel", "program")
    found = [str(row[key]) for key in (*keys, "channels", "size") if key in row]
    return " ".join(found) or "row"


def is_good(figures: dict[str, Any]) -> bool:
    """Whether every stage ended well and no row failed."""
    return all(stage["status"] == "done" and not any(_failed(stage)) for stage in figures["stages"])


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # the runner ends the stages on its way out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the status to exit with."""
    parser = argparse.ArgumentParser(
        prog="gpu_check", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where results.json and the logs go")
    parser.add_argument("--call", type=int, choices=(1, 2), help="one of the two; else both")
    parser.add_argument("--seconds", type=float, help="time limit; else that of the calls")
    parser.add_argument("--only", nargs="+", default=[], help="stages whose names begin so")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, without a GPU")
    options = parser.parse_args(arguments)
    if not (ROOT / "tests" / "stage_rows.py").is_file():
        sys.stderr.write(f"gpu_check: {ROOT} has no tests: run it in the source tree\n")
        return 1
    if not options.dry and not torch.cuda.is_available():
        sys.stderr.write("gpu_check: there is no GPU that PyTorch can use; --dry needs none\n")
        return 1
    calls = [options.call] if options.call else [1, 2]
    steps = [
        [stage for stage in step if not options.only or stage.name.startswith(tuple(options.only))]
        for call in calls
        for step in plan(call, is_dry=options.dry)
    ]
    if not any(steps):
        sys.stderr.write(f"gpu_check: no stage begins with {' or '.join(options.only)}\n")
        return 1
    before = signal.signal(signal.SIGTERM, _stop)

    def tell(stage: dict[str, Any]) -> None:
        sys.stdout.write(_summary(stage) + "\n")
        sys.stdout.flush()

    limit = sum(CALL_SECONDS[call] for call in calls)
    seconds = options.seconds or limit * (_DRY_TIMES if options.dry else 1)
    facts = {"calls": calls, "dry": options.dry}
    jobs = len(os.sched_getaffinity(0))
    try:
        figures = run_stages(
            steps, options.folder, seconds=seconds, jobs=jobs, facts=facts, on_end=tell
        )
    except KeyboardInterrupt:
        sys.stderr.write(f"gpu_check: stopped; {options.folder / 'results.json'} has the rows\n")
        return 130
    except OSError as error:
        sys.stderr.write(f"gpu_check: {options.folder} cannot be written: {error.strerror}\n")
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.stdout.write("\n".join(["", *to_table(figures)]) + "\n")
    return 0 if is_good(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
