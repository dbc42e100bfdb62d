"""The clips to evaluate on that samples/pan.py makes of pictures."""

import runpy
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from unittest import mock

import av
import cv2
import numpy as np
import pytest

from mhnet_video.pipelines.evaluate import evaluate

SCRIPT = Path(__file__).parents[2] / "samples" / "pan.py"


@pytest.fixture
def pictures(tmp_path):
    """A wide picture and a tall one, and a pair whose difference is one stroke."""
    random = np.random.default_rng(0)
    for name, size in (("tall", (500, 300)), ("wide", (300, 500))):
        picture = cv2.GaussianBlur(random.integers(0, 200, (*size, 3)).astype(np.uint8), (0, 0), 3)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "pictures" / f"{name}.png"), picture)
    for side in ("wet", "dry"):
        picture = np.full((40, 60, 3), 100, np.uint8)
        picture[10:20, 30] += 50 * (side == "wet")
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / "0.png"), picture)
    return tmp_path / "pictures"


@cache
def script():
    """The names that the script defines."""
    return runpy.run_path(str(SCRIPT))


def make(pictures, *words):
    """The clips, `[T, H, W, 3]` each, by side and name."""
    out = pictures.parent / "out"
    # in this process: another one would load PyTorch anew
    with mock.patch.object(sys, "argv", [str(SCRIPT), str(pictures), str(out), *words]):
        script()["main"]()
    clips = {}
    for path in out.glob("*/*.mkv"):
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        clips[path.parent.name, path.stem] = np.stack(frames).astype(int)
    return out, clips


def test_rain_falls_before_a_camera_that_pans(pictures):
    out, clips = make(pictures, "--speed", "4", "--frames", "5")
    assert {key: clip.shape for key, clip in clips.items()} == {
        (side, name): (5, *size, 3)
        for side in ("rainy", "clean")
        for name, size in (("tall", (352, 256)), ("wide", (256, 352)))
    }
    result = evaluate(out / "rainy", out / "clean")
    assert [row.name for row in result.rows] == ["tall.mkv", "wide.mkv"]
    assert all(12 < row.rainy.psnr_y < 50 for row in result.rows)


def test_streaks_of_other_origin_are_laid_anew_over_every_frame(pictures):
    words = ["--speed", "4", "--frames", "3", "--every", "2"]
    pair = [str(pictures.parent / side) for side in ("wet", "dry")]
    _, clips = make(pictures, *words, "--streaks", *pair)
    assert sorted(clips) == [("clean", "tall"), ("rainy", "tall")]
    clean = clips["clean", "tall"]
    # a frame shows what is four pixels to the right, and one down, in the one before
    assert np.array_equal(clean[1][:-1, :-4], clean[0][1:, 4:])
    strokes = clips["rainy", "tall"] - clean
    assert set(np.unique(strokes)) == {0, 50}
    assert not np.array_equal(strokes[0], strokes[1])
    assert 0.003 < (strokes > 0).mean() < 0.006  # ten of 40x60 pixels, over and over


def test_large_clips_are_the_small_ones_enlarged(pictures):
    pair = [str(pictures.parent / side) for side in ("wet", "dry")]
    words = ["--frames", "3", "--every", "2", "--streaks", *pair]
    _, small = make(pictures, *words)
    shutil.rmtree(pictures.parent / "out")
    _, large = make(pictures, *words, "--enlarge", "2.5")
    for side in ("rainy", "clean"):
        assert large[side, "tall"].shape == (3, 880, 640, 3)
        shrunk = [
            cv2.resize(frame.astype(np.uint8), (256, 352), interpolation=cv2.INTER_AREA)
            for frame in large[side, "tall"]
        ]
        assert np.abs(np.stack(shrunk) - small[side, "tall"]).mean() < 1
    # strokes of one pixel are two and a half wide, and as soft as that
    strokes = large["rainy", "tall"] - large["clean", "tall"]
    assert 0 < strokes.max() < 60 and len(np.unique(strokes)) > 10


def test_nothing_is_overwritten(pictures):
    command = [sys.executable, str(SCRIPT), str(pictures), str(pictures.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.endswith("exists; name a new folder\n")


def test_dry_clips_are_coded_as_they_are(pictures):
    _, clips = make(pictures, "--dry", "--noise", "2", "--crf", "24", "--frames", "4")
    for name in ("tall", "wide"):
        assert np.array_equal(clips["rainy", name], clips["clean", name])
        assert len(clips["clean", name]) == 4
    changes = np.abs(np.diff(clips["clean", "wide"], axis=0))
    assert 0 < changes.mean() < 3  # nothing but noise


def test_frames_are_shown_several_times(pictures):
    _, clips = make(pictures, "--speed", "3", "--frames", "3", "--times", "2", "--every", "2")
    for clip in clips.values():
        assert len(clip) == 6
        assert np.array_equal(clip[::2], clip[1::2]) and not np.array_equal(clip[1], clip[2])


@pytest.mark.slow
def test_rain_is_as_strong_as_one_likes(pictures):
    pair = [str(pictures.parent / side) for side in ("wet", "dry")]
    for words in (["--psnr", "24"], ["--psnr", "30", "--frames", "1", "--streaks", *pair]):
        out, _ = make(pictures, *words)
        if "--streaks" in words:
            for row in evaluate(out / "rainy", out / "clean").rows:
                assert row.rainy.psnr_y == pytest.approx(float(words[1]), abs=0.1)
        else:  # what the camera makes of it comes on top
            mean = evaluate(out / "rainy", out / "clean").mean
            assert mean.rainy.psnr_y == pytest.approx(24, abs=3)
        shutil.rmtree(out)


def test_letters_are_burnt_into_both_after_the_rain(pictures):
    _, plain = make(pictures, "--frames", "2")
    shutil.rmtree(pictures.parent / "out")
    _, clips = make(pictures, "--frames", "2", "--letters")
    for (side, name), clip in clips.items():
        changed = (clip != plain[side, name]).any(axis=-1)
        assert 0.01 < changed.mean() < 0.1 and (clip[changed] == 255).any()
        assert (changed[0] == changed[1]).mean() > 0.99
    white = (clips["clean", "wide"] == 255) & (plain["clean", "wide"] < 250)
    assert white.any() and (clips["rainy", "wide"][white] == 255).all()
