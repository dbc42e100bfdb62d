"""Files come by standard input and go by standard output, in processes as people start them."""

import io
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import processes
import pytest
from clips import Clip, Video, every
from damage import (
    MKV,
    MP4,
    PARTS,
    TEXT,
    TS,
    WEBM,
    Outcome,
    assert_one_sentence,
    assert_plays,
    left,
)


def program(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """The program as a person starts it."""
    command = [sys.executable, "-W", "error", "-m", "mhnet_video", *map(str, arguments)]
    return processes.start(command, **{"stderr": subprocess.PIPE, **options})


@pytest.mark.parametrize(
    "clip", [MP4, MKV, TS, PARTS, WEBM], ids=["mp4", "mkv", "ts", "fragments", "webm"]
)
def test_standard_input(clip: Clip, tmp_path: Path) -> None:
    source = clip.make(tmp_path)
    with source.open("rb") as stream:
        process = program(
            *("--strength", "0", "--json", "-", tmp_path / "out.mkv"),
            stdin=stream,
            stdout=subprocess.PIPE,
        )
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["frames"] == 20
    assert_plays(tmp_path / "out.mkv", 20, 20)


@pytest.mark.slow
def test_standard_input_that_must_be_a_file(tmp_path: Path) -> None:
    """An MP4 with its index at the end, larger than what FFmpeg can go back in."""
    video = Video(times=every(40, 60), width=320, height=240, options=(("crf", "1"),))
    content = Clip(video=(video,)).make(tmp_path).read_bytes()
    assert len(content) > 1 << 20
    process = program("-", tmp_path / "out.mp4", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _, err = process.communicate(content, timeout=60)
    outcome = Outcome(process.returncode, err.decode(), None, tmp_path / "out.mp4")
    assert_one_sentence(outcome, "standard input", "index")
    assert left(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("content", [b"", TEXT], ids=["nothing", "text"])
def test_standard_input_that_is_no_video(content: bytes, tmp_path: Path) -> None:
    process = program("-", tmp_path / "out.mp4", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _, err = process.communicate(content, timeout=60)
    outcome = Outcome(process.returncode, err.decode(), None, tmp_path / "out.mp4")
    assert_one_sentence(outcome, "standard input")
    assert left(tmp_path) == []


@pytest.mark.slow
def test_standard_output(clip: Path, tmp_path: Path) -> None:
    process = program("--strength", "0", "--json", clip, "-", stdout=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(err)["frames"] == 10
    with av.open(io.BytesIO(out)) as container:
        assert container.format.name.startswith("matroska")
    (tmp_path / "copy.mkv").write_bytes(out)
    assert_plays(tmp_path / "copy.mkv", 10, 10)


@pytest.mark.slow
def test_standard_output_that_is_closed(tmp_path: Path) -> None:
    clip = Clip(video=(Video(times=every(40, 200), width=160, height=120),)).make(tmp_path)
    process = program("--strength", "0", clip, "-", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100)
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert len(err.splitlines()) <= 1
    assert "Traceback" not in err
    assert left(tmp_path) == ["clip.mp4"]


@pytest.mark.slow
def test_a_huge_picture_does_not_take_all_memory(tmp_path: Path) -> None:
    """As wide as H.264 can be: an output, or a sentence, within 12 GB of addresses."""
    clip = Clip(
        name="clip.mkv",
        video=(
            Video(
                codec="mjpeg",
                pixel_format="yuvj420p",
                width=16384,
                height=256,
                times=(0,),
            ),
        ),
    ).make(tmp_path)
    process = program(
        *("--preset", "ultrafast", "--json", clip, tmp_path / "out.mp4"),
        stdout=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)),
    )
    out, err = process.communicate(timeout=200)
    if process.returncode == 0:
        assert json.loads(out)["frames"] == 1
        assert_plays(tmp_path / "out.mp4", 1)
    else:
        assert_one_sentence(Outcome(process.returncode, err.decode(), None, tmp_path), "16384")
        assert left(tmp_path) == ["clip.mkv"]
