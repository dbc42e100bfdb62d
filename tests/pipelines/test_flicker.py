"""Clips without a clean twin: flicker where nothing moves, and what is taken out."""

import json
import math
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from standin import StandIn

from mhnet_video.cli.main import main
from mhnet_video.errors import ReadError
from mhnet_video.pipelines.flicker import measure_flicker
from mhnet_video.training.metrics import Flicker

SIZE = (48, 64)
WORDS = ["taken", "out", "at", "rest"]


def rain(count, seed=0):
    """Y of a scene at rest, and of it with streaks that are new in each frame."""
    random = np.random.default_rng(seed)
    dry = random.integers(40, 180, SIZE, dtype=np.uint8)
    wet = np.repeat(dry[None], count, axis=0)
    for frame in wet:
        frame[:, random.integers(SIZE[1])] += 50
    return dry, wet


def test_rain_flickers_and_the_median_does_not():
    dry, wet = rain(20)
    flicker = Flicker(2)
    assert flicker.share == 0 and all(map(math.isnan, flicker.levels))
    for frame in wet:
        flicker.push((frame, dry))
    rainy, restored, cut, median = flicker.levels
    # two streaks of 50 levels in a pair of frames, less where one meets another
    assert rainy == pytest.approx(2 * 50 / SIZE[1], rel=0.1)
    assert restored == 0 and cut < 0.1 and median < 0.1 and flicker.share > 0.97


def test_what_gets_darker_is_no_rain():
    dry, _ = rain(1)
    noise = np.random.default_rng(3).integers(-3, 4, (20, *SIZE))
    flicker = Flicker(1)
    for each in noise:
        flicker.push(((dry + each).astype(np.uint8),))
    noisy, cut, median = flicker.levels
    assert noisy > 1.2 * cut and cut > 1.2 * median


def test_what_moves_is_no_flicker():
    scene = rain(1)[0]
    flicker = Flicker(1)
    for step in range(24):
        frame = scene.copy()
        frame[:, 2 * step : 2 * step + 12] = 250
        flicker.push((frame,))
    assert 0.9 < flicker.share < 0.96 and flicker.levels == (0, 0, 0)


def test_eight_frames_of_one_size_make_a_figure():
    _, wet = rain(15)
    flicker = Flicker(1)
    for frame in wet[:7]:
        flicker.push((frame,))
    for frame in wet[:7]:
        flicker.push((frame[:40],))
    assert flicker.share == 0
    flicker.push((wet[7, :40],))
    assert flicker.share > 0.9


def save(path: Path, lumas) -> Path:
    """A grey clip, to the bit."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "gray"
        for luma in lumas:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(luma, format="gray")))
        container.mux(stream.encode(None))
    return path


def test_clips_of_a_folder_have_a_row_each(tmp_path, capsys):
    dry, wet = rain(12)
    save(tmp_path / "2.mkv", wet)
    save(tmp_path / "10.mkv", np.repeat(dry[None], 9, axis=0))
    (tmp_path / "notes.txt").write_text("no clip")
    seen = []

    def darken(frame):
        return replace(frame, planes=(frame.planes[0] - 10,))

    wet_row, dry_row = measure_flicker(tmp_path, restorer=StandIn(darken), on_progress=seen.append)
    assert (wet_row.name, dry_row.name) == ("2.mkv", "10.mkv")
    assert [(progress.frames, progress.total) for progress in seen] == [
        (count, None) for count in range(1, 22)
    ]
    # Y has 219 levels where grey has 255
    assert wet_row.rainy == pytest.approx(wet_row.restored, abs=0.02)
    assert wet_row.rainy == pytest.approx(2 * 50 * 219 / 255 / SIZE[1], rel=0.15)
    for row in (wet_row, dry_row):
        assert row.taken_out == pytest.approx(10 * 219 / 255, abs=0.02)
    assert dry_row.rainy == dry_row.restored == dry_row.median == 0 and dry_row.at_rest == 1
    assert main(["evaluate", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["rainy"] == wet_row.rainy and found[0]["restored"] is None
    assert main(["evaluate", str(tmp_path / "10.mkv")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == (
        ["10.mkv", "0.000", "0.000", "0.000", "-", "-", "100%"]
    )


def test_restored_by_a_model(tmp_path, capsys):
    clip = save(tmp_path / "a.mkv", rain(8)[1])
    assert main(["evaluate", str(clip), "--model", "realtime", "--device", "cpu"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["flicker", "input", "cut", "at", "median", "median", "realtime", *WORDS]
    assert float(row.split()[1]) > 0 and float(row.split()[5]) >= 0


def test_what_cannot_be_measured_is_named(tmp_path, capsys):
    short = save(tmp_path / "short.mkv", rain(7)[1])
    with pytest.raises(ReadError, match=r"short\.mkv is shorter than eight frames"):
        measure_flicker(short)
    with pytest.raises(ReadError, match=r"there is no .*gone\.mp4"):
        measure_flicker(tmp_path / "gone.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="holds no videos "):
        measure_flicker(tmp_path / "empty")
    with pytest.raises(SystemExit):
        main(["evaluate", str(short), "--sheet", str(tmp_path / "sheet.png")])
    assert "--sheet needs CLEAN" in capsys.readouterr().err
