"""Damaged files of every kind, and that the judge of them sees what it is there for."""

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fuzz
import processes
import pytest
from standin import StandIn

COUNT = 180
REPORT = json.dumps({"frames": 24, "damaged": 0, "lost": []})
_restore = fuzz.restore


class Half(StandIn):
    """Gives every second frame on."""

    def pairs(self, items: Any, **how: Any) -> Iterator[Any]:
        for index, item in enumerate(super().pairs(items, **how)):
            if index % 2:
                yield item


def _die(source: str, output: str) -> int:
    os.abort()


def _hang(source: str, output: str) -> int:
    threading.Event().wait()
    return 0


def _raise(source: str, output: str) -> int:
    raise ValueError("something is wrong")


def _drop(source: str, output: str) -> int:
    fuzz.StandIn = Half
    return _restore(source, output)


def _miscount(source: str, output: str) -> int:
    Path(output).write_bytes(b"no video")
    return _say(0, REPORT)


def _spoil(source: str, output: str) -> int:
    Path(source).write_bytes(b"nothing")
    return _say(0, REPORT)


def _leave(source: str, output: str) -> int:
    Path(output).with_suffix(".partial.mp4").touch()
    return _say(1, "mhnet-video: the file cannot be read; copy it again.")


def _mumble(source: str, output: str) -> int:
    return _say(1, "mhnet-video: avcodec_open2(h264) failed in the file, and that is all.")


def _say(status: int, text: str) -> int:
    (sys.stderr if status else sys.stdout).write(text)
    return status


BROKEN: dict[str, Callable[[str, str], int]] = {
    "crash": _die,
    "hang": _hang,
    "traceback": _raise,
    "fewer frames": _drop,
    "plays not": _miscount,
    "source": _spoil,
    "left": _leave,
    "no sentence": _mumble,
    "file": _restore,
}
"""Programs that end in each way, the last one as it should."""


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """What the judge says of each."""
    # processes are split off, which is not for one with as many threads as this
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = processes.run([sys.executable, __file__], env=environment, check=True)
    told: dict[str, str] = json.loads(done.stdout)
    return told


@pytest.mark.slow  # of no use without the next one
@pytest.mark.parametrize("kind", BROKEN)
def test_the_judge_sees(kind: str, verdicts: dict[str, str]) -> None:
    assert verdicts[kind] == kind


@pytest.mark.slow
def test_damaged_files() -> None:
    command = [sys.executable, fuzz.__file__, COUNT]
    done = processes.run(list(map(str, command)), seconds=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{COUNT} inputs: " in done.stdout


def _judge_broken(folder: Path) -> dict[str, str]:
    clip = next(clip for clip in fuzz.CLIPS if clip.name == "h264.mp4")
    content = clip.make(folder).read_bytes()
    found = {}
    for kind, program in BROKEN.items():
        (folder / kind).mkdir()
        fuzz.restore = program
        fuzz.SECONDS = 1 if program is _hang else 60
        case = fuzz.Case(0, clip.name, content, "out.mp4", "")
        found[kind] = fuzz.run_case(case, folder / kind).verdict()[0]
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        json.dump(_judge_broken(Path(scratch)), sys.stdout)
