"""What a run of the command line came to, and the files that tests of damage begin with."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import probe
import processes
from clips import Audio, Clip, Video, every

VIDEO = Video(times=every(40, 20), gop=5)
FASTSTART = (("movflags", "faststart"),)
FRAGMENTS = (("movflags", "frag_keyframe+empty_moov"),)


@dataclass(frozen=True)
class Outcome:
    """What the command line did."""

    status: int
    message: str
    report: dict[str, Any] | None
    output: Path


Restore = Callable[..., Outcome]


def assert_one_sentence(outcome: Outcome, *words: str) -> None:
    """A person is told in one line which file, what is wrong and what to do."""
    message = outcome.message.strip()
    assert outcome.status in (1, 2)
    assert message.startswith("mhnet-video: ")
    assert "\n" not in message
    assert message.endswith(".")
    assert 30 < len(message) < 500
    # classes, numbers and names of this program's insides are no help
    assert not re.search(r"Traceback|Error\b|Errno|av[a-z_]+\(|NoneType|fault in this", message)
    for word in words:
        assert word.casefold() in message.casefold()


def assert_plays(path: Path, at_least: int, at_most: int | None = None) -> None:
    """The pictures decode from one end to the other, without a complaint."""
    shown = probe.probe(path).video.times
    assert at_least <= len(shown) <= (at_most or len(shown))
    assert all(one < two for one, two in pairwise(shown))
    if probe.HAS_FFMPEG:
        # damaged sound is copied as it is, so it is not asked here
        command = ["ffmpeg", "-v", "error", "-xerror", "-i", f"file:{path}", "-map", "0:v:0"]
        command += ["-vsync", "drop", "-f", "rawvideo", "-y", os.devnull]
        done = processes.run(command, text=False)
        assert (done.returncode, done.stderr) == (0, b"")


def left(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


Make = Callable[[Path], Path]


def file(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def missing(name: str) -> Make:
    return lambda folder: folder / name


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: round(len(content) * share)]


def zeroed(start: float, end: float) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        first, last = round(len(content) * start), round(len(content) * end)
        return content[:first] + bytes(last - first) + content[last:]

    return change


def ts(start: int = 0, **values: Any) -> Clip:
    """A part of a transport stream, ten frames from `start` milliseconds on."""
    return Clip(name="part.ts", video=(Video(times=every(40, 10, start), gop=5, **values),))


def h264(**values: Any) -> Clip:
    return Clip(name="part.h264", video=(Video(times=every(40, 10), gop=5, **values),))


TEXT = b"This is no video. " * 200
MKV = Clip(name="clip.mkv", video=(VIDEO,), audio=(Audio(codec="ac3"),))
MP4 = Clip(name="clip.mp4", video=(VIDEO,), audio=(Audio(codec="ac3"),), options=FASTSTART)
TS = Clip(name="clip.ts", video=(VIDEO,), audio=(Audio(codec="ac3"),))
AVI = Clip(
    name="clip.avi",
    video=(Video(codec="mpeg4", times=every(40, 20), gop=5),),
    audio=(Audio(codec="ac3"),),
)
PARTS = Clip(name="clip.mp4", video=(VIDEO,), audio=(Audio(),), options=FRAGMENTS)
WEBM = Clip(
    name="clip.webm",
    video=(
        Video(
            codec="libvpx-vp9",
            times=every(40, 20),
            gop=5,
            options=(("deadline", "realtime"), ("cpu-used", "8")),
        ),
    ),
)
