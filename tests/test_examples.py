"""The scripts in `examples/` run, and say what they promise."""

import csv
import sys
from pathlib import Path

import processes
import pytest
from clips import Clip, Video, every, picture

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.slow


def run(name, *arguments, folder):
    """What an example prints."""
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = processes.run(command, cwd=folder, seconds=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clip(tmp_path):
    return Clip(video=(Video(times=every(40, 16)),), name="in.mp4").make(tmp_path)


def test_a_file_is_restored_with_progress(clip, tmp_path):
    said = run("restore_with_progress.py", clip, "out.mp4", folder=tmp_path)
    assert said.strip().startswith("out.mp4: 16 frames in ")
    assert (tmp_path / "out.mp4").is_file()


def test_a_detector_gets_each_frame_with_its_own_time(clip, tmp_path):
    lines = run("frames_for_a_detector.py", clip, folder=tmp_path).splitlines()
    assert [line.partition(" s: ")[0] for line in lines] == [f"{i / 25:.3f}" for i in range(16)]


def test_live_frames_come_until_the_file_ends(clip, tmp_path):
    lines = run("live_frames.py", clip, folder=tmp_path).splitlines()
    assert lines
    assert all(": 64x48, " in line for line in lines)


def test_a_folder_is_evaluated_to_the_mean_of_its_clips(clip, tmp_path):
    for folder, name in (("rainy", "a"), ("rainy", "b"), ("clean", "a"), ("clean", "b")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Clip(
            video=(Video(times=every(40, 3), seed=ord(name), rain=9 * (folder == "rainy")),),
            name=f"{name}.mkv",
        ).make(tmp_path / folder)
    lines = run("evaluate_folder.py", "rainy", "clean", folder=tmp_path).splitlines()
    assert lines[-1].endswith("dB  mean of 2")
    assert {line.split()[-1] for line in lines[:-1]} == {"a.mkv", "b.mkv"}


def test_what_equals_the_clean_one_is_left_out_of_the_gains(clip, tmp_path):
    for folder in ("rainy", "clean"):
        (tmp_path / folder).mkdir()
        Clip(video=(Video(times=every(40, 3), seed=1, rain=9 * (folder == "rainy")),)).make(
            tmp_path / folder
        )
        (tmp_path / folder / "dry.png").write_bytes(picture("png", 64, 64))
    lines = run("evaluate_folder.py", "rainy", "clean", folder=tmp_path).splitlines()
    assert len(lines) == 2 and lines[0].endswith("clip.mp4") and lines[1].endswith("mean of 1")
    assert lines[0].split()[0] == lines[1].split()[0]


def test_losses_become_rows_of_a_table(tmp_path):
    font = ("font.ttf", "font/ttf", b"font")  # which an MP4 does not take
    clip = Clip(video=(Video(times=every(40, 4)),), attachments=(font,), name="in.mkv")
    clip = clip.make(tmp_path)
    said = run("report_losses.py", clip, "out.mp4", "losses.csv", folder=tmp_path)
    with open(tmp_path / "losses.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert said.startswith(f"{len(rows)} losses")
    assert any("font.ttf" in row["what"] for row in rows)


def test_every_example_is_run():
    text = Path(__file__).read_text()
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))
