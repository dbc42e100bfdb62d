import json
import math
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import Clip, Video, every
from standin import StandIn, inverted

from mhnet_video.cli.main import main
from mhnet_video.errors import ReadError
from mhnet_video.pipelines.evaluate import evaluate
from mhnet_video.pipelines.flicker import measure_flicker
from mhnet_video.training.metrics import score


def save_picture(path: Path, picture: np.ndarray) -> np.ndarray:
    """Write an RGB picture, as PNG whatever the name says."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.framerate = "rgb24", 25
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
    return picture


def noise(seed, height=24, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Three pairs of pictures, and what each holds by name."""
    pairs = {}
    for index, name in enumerate(["a2.png", "a10.png", "b.png"]):
        clean = save_picture(tmp_path / "clean" / name, noise(index))
        rainy = np.clip(clean.astype(int) + 10 * (index + 1), 0, 255).astype(np.uint8)
        pairs[name] = (save_picture(tmp_path / "rainy" / name, rainy), clean)
    return tmp_path / "rainy", tmp_path / "clean", pairs


def test_pictures_as_they_are(folders):
    rainy, clean, pairs = folders
    result = evaluate(rainy, clean)
    assert [row.name for row in result.rows] == ["a2.png", "a10.png", "b.png"]
    for row in result.rows:
        assert row.rainy == score(*pairs[row.name])
        assert row.restored is None
    assert result.mean.rainy.psnr_y == pytest.approx(
        np.mean([row.rainy.psnr_y for row in result.rows])
    )
    assert (result.model, result.mean.restored) == (None, None)


def test_each_picture_is_restored(folders):
    rainy, clean, _ = folders
    restorer = StandIn()
    result = evaluate(rainy, clean, restorer=restorer)
    assert [row.restored for row in result.rows] == [row.rainy for row in result.rows]
    assert result.model == restorer.name
    assert restorer.seen == 3


def test_twins_of_other_suffixes_and_by_order(folders, tmp_path):
    rainy, clean, pairs = folders
    expected = [score(*pair) for pair in pairs.values()]
    for path in sorted(clean.iterdir()):
        path.rename(path.with_suffix(".PNG"))
    assert [row.rainy for row in evaluate(rainy, clean).rows] == expected
    for path in sorted(clean.iterdir()):
        path.rename(path.with_stem("norain-" + path.stem))
    assert [row.rainy for row in evaluate(rainy, clean).rows] == expected


def test_of_twins_with_one_stem_the_full_name_counts(folders):
    rainy, clean, pairs = folders
    expected = [score(*pair) for pair in pairs.values()]
    # which comes behind a2.png
    save_picture(clean / "a2.webp", noise(7))
    assert [row.rainy for row in evaluate(rainy, clean).rows] == expected
    (rainy / "a2.png").rename(rainy / "a2.bmp")
    with pytest.raises(ReadError, match=r"a2\.bmp has several twins in .*, a2\.png and a2\.webp;"):
        evaluate(rainy, clean)


def test_equal_pictures_make_valid_json(folders):
    rainy, _, _ = folders
    result = evaluate(rainy, rainy)
    assert result.mean.rainy.psnr_y == math.inf
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["mean"]["rainy"]["psnr_y"] is None
    assert found["mean"]["rainy"]["ssim_y"] == pytest.approx(1)
    assert len(found["rows"]) == 3


def test_clips_frame_by_frame(tmp_path):
    clip = Clip(video=(Video(times=(0, 40, 80, 200)),)).make(tmp_path)
    seen = []
    result = evaluate(clip, clip, restorer=StandIn(), on_progress=seen.append)
    assert [row.name for row in result.rows] == ["0.000", "0.040", "0.080", "0.200"]
    assert all(row.rainy.psnr_rgb == math.inf for row in result.rows)
    assert all(row.restored == row.rainy for row in result.rows)
    assert [progress.frames for progress in seen] == [1, 2, 3, 4]


def test_clips_of_folders_have_a_row_each(tmp_path):
    for side in ("rainy", "clean"):
        for name, times in (("a10", (0, 40, 80)), ("a2", (0, 40))):
            (tmp_path / side / name).mkdir(parents=True)
            video = Video(times=times, options=(("crf", "0"),))
            Clip(video=(video,)).make(tmp_path / side / name).rename(
                tmp_path / side / f"{name}.mp4"
            )
    seen = []

    def brighten(frame):
        seen.append(frame)
        first, *others = frame.planes
        return replace(frame, planes=(first // 2 + 20 * len(seen), *others))

    progress = []
    result = evaluate(
        tmp_path / "rainy",
        tmp_path / "clean",
        restorer=StandIn(brighten),
        sheet=tmp_path / "sheet.png",
        on_progress=progress.append,
    )
    assert [row.name for row in result.rows] == ["a2.mp4", "a10.mp4"]
    assert len(seen) == 5 and [(p.frames, p.total) for p in progress] == [(1, 2), (2, 2)]
    seen.clear()
    for row in result.rows:
        path = tmp_path / "rainy" / row.name
        alone = evaluate(path, tmp_path / "clean" / row.name, restorer=StandIn(brighten))
        assert (row.rainy, row.restored) == (alone.mean.rainy, alone.mean.restored)
        assert row.restored.flicker > 1
    assert result.mean.restored.psnr_y == pytest.approx(
        np.mean([row.restored.psnr_y for row in result.rows])
    )
    with av.open(tmp_path / "sheet.png") as container:
        assert container.streams.video[0].width == 3 * 646 + 6


def test_flicker_of_a_clip(tmp_path):
    """Every other frame is brighter than its twin: it flickers, until it is restored."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    video = Video(times=(0, 40, 80, 120), options=(("crf", "0"),))
    clean = Clip(video=(video,)).make(tmp_path / "a")
    seen = []

    def brighten(frame):
        seen.append(frame)
        first, *others = frame.planes
        return replace(frame, planes=(first // 2 + 60 * (len(seen) % 2), *others))

    result = evaluate(clean, clean, restorer=StandIn(brighten))
    assert [row.rainy.flicker for row in result.rows] == [None, 0, 0, 0]
    flickers = [row.restored.flicker for row in result.rows]
    assert flickers[0] is None and all(40 < flicker < 70 for flicker in flickers[1:])
    assert result.mean.restored.flicker == pytest.approx(np.mean(flickers[1:]))
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["rows"][0]["rainy"]["flicker"] is None
    assert found["mean"]["rainy"]["flicker"] == 0


def test_a_sheet_shows_some_of_all_pictures(tmp_path):
    clip = Clip(video=(Video(times=tuple(range(0, 800, 40))),)).make(tmp_path)
    result = evaluate(clip, clip, restorer=StandIn(inverted), sheet=tmp_path / "sheet.png")
    assert len(result.rows) == 20
    with av.open(tmp_path / "sheet.png") as container:
        sheet = next(container.decode(video=0)).to_ndarray(format="rgb24")
    # every fourth of 20, rainy, restored and clean, 640x480 each
    rows, columns = 5, 3
    assert sheet.shape == (rows * 486 + 6, columns * 646 + 6, 3)
    rainy, restored, clean = (sheet[60:480, 6 + 646 * i : 646 + 646 * i] for i in range(3))
    assert np.array_equal(rainy, clean)
    assert np.abs(rainy.astype(int) - restored).mean() > 20


def test_equal_pictures_are_counted(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for index in range(3):
        picture = np.full((32, 32, 3), 40 * index, np.uint8)
        cv2.imwrite(str(tmp_path / "a" / f"{index}.png"), picture)
        cv2.imwrite(str(tmp_path / "b" / f"{index}.png"), picture + 5 * (index > 0))
    result = evaluate(tmp_path / "a", tmp_path / "b")
    assert result.equal == 1 and 30 < result.mean.rainy.psnr_rgb < 40
    assert main(["evaluate", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "equal to the clean ones, and not in the mean PSNR: 1"
    sheet = tmp_path / "s.png"
    sheet.write_text("mine")
    words = ["evaluate", str(tmp_path / "a"), str(tmp_path / "b"), "--sheet", str(sheet)]
    assert main(words) == 1 and sheet.read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0 and sheet.read_bytes()[:4] == b"\x89PNG"


def test_a_sheet_of_pictures_as_they_are(folders, tmp_path):
    rainy, clean, _ = folders
    evaluate(rainy, clean, sheet=tmp_path / "sheet.png")
    with av.open(tmp_path / "sheet.png") as container:
        sheet = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert sheet.shape[1] == 2 * 646 + 6


def test_jpeg_is_read_as_other_programs_read_it(tmp_path):
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    picture = cv2.GaussianBlur(noise(0, 64, 64), (9, 9), 3)
    cv2.imwrite(str(tmp_path / "a.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    there = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]
    save_picture(tmp_path / "a.png", np.ascontiguousarray(there))
    assert evaluate(tmp_path / "a.jpg", tmp_path / "a.png").mean.rainy.psnr_rgb > 45


def test_inside_and_outside_of_masks(folders, tmp_path):
    """Half of each picture is as far from the truth as before, the other half is right."""
    rainy, clean, pairs = folders
    for name, (picture, truth) in pairs.items():
        mask = np.zeros_like(picture)
        mask[:, :20] = 255
        save_picture(tmp_path / "masks" / name, mask)
        save_picture(rainy / name, np.where(mask > 0, picture, truth))
    result = evaluate(rainy, clean, mask=tmp_path / "masks", restorer=StandIn())
    for row in result.rows:
        picture, truth = pairs[row.name]
        inside = score(picture[:, :20], truth[:, :20]).psnr_y
        for scores in (row.rainy, row.restored):
            assert scores.psnr_inside == pytest.approx(inside)
            assert scores.psnr_outside == math.inf
    expected = np.mean([row.rainy.psnr_inside for row in result.rows])
    assert result.mean.rainy.psnr_inside == pytest.approx(expected)
    without = evaluate(rainy, clean)
    assert without.mean.rainy.psnr_inside is None
    assert [r.rainy.psnr_y for r in without.rows] == [r.rainy.psnr_y for r in result.rows]


def test_masks_of_a_clip(tmp_path, capsys):
    """A picture is the mask of all frames, a clip has one for each; where none is white, none."""
    for name in ("a", "b", "masks"):
        (tmp_path / name).mkdir()
    lossless = Video(times=(0, 40, 80), width=64, height=48, options=(("crf", "0"),))
    clip, other = (Clip(video=(lossless,)).make(tmp_path / name) for name in "ab")
    mask = np.zeros((48, 64, 3), np.uint8)
    mask[:24] = 255
    still = tmp_path / "masks" / "still.png"
    save_picture(still, mask)

    def upper_half(frame):
        first, *others = frame.planes
        changed = first.copy()
        changed[:24] = first[:24] // 2 + 40
        return replace(frame, planes=(changed, *others))

    result = evaluate(clip, other, mask=still, restorer=StandIn(upper_half))
    for row in result.rows:
        assert row.restored.psnr_inside < 30
        assert row.restored.psnr_outside > 35 > row.restored.psnr_y
        assert row.rainy.psnr_inside == row.rainy.psnr_outside == math.inf
    save_picture(still, np.zeros_like(mask))
    result = evaluate(clip, other, mask=still, restorer=StandIn(upper_half))
    assert result.mean.restored.psnr_inside is None
    assert result.mean.restored.psnr_outside == result.mean.restored.psnr_y
    save_picture(still, mask)
    assert main(["evaluate", str(clip), str(other), "--mask", str(still)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-2:] == ["inside", "outside"]
    # the clip as its own mask has as many frames, another has not
    assert len(evaluate(clip, other, mask=clip).rows) == 3
    short = Clip(video=(replace(lossless, times=(0, 40)),)).make(tmp_path / "masks")
    with pytest.raises(ReadError, match="fewer frames than the clip that it is the mask of"):
        evaluate(clip, other, mask=short)


def test_masks_that_do_not_fit(folders, tmp_path, capsys):
    rainy, clean, pairs = folders
    for name in pairs:
        save_picture(tmp_path / "masks" / name, np.zeros((24, 30, 3), np.uint8))
    with pytest.raises(ReadError, match=r"by the mask .*a2.png: expected a mask of 32x24"):
        evaluate(rainy, clean, mask=tmp_path / "masks")
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(ReadError, match="has no twin"):
        evaluate(rainy, clean, mask=tmp_path / "masks")
    with pytest.raises(ReadError, match=r"there is no .*nowhere"):
        evaluate(rainy, clean, mask=tmp_path / "nowhere")
    with pytest.raises(SystemExit):
        main(["evaluate", str(rainy), "--mask", str(rainy)])
    assert "--mask needs CLEAN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda r, c: (c / "b.png").unlink(), "has no twin", id="a twin is missing"),
        pytest.param(
            lambda r, c: save_picture(c / "b.png", noise(2, 24, 30)),
            "cannot be compared",
            id="sizes differ",
        ),
        pytest.param(
            lambda r, c: [save_picture(f / "b.png", noise(2, 8, 8)) for f in (r, c)],
            "at least 11x11",
            id="too small for SSIM",
        ),
        pytest.param(
            lambda r, c: (c / "b.png").write_bytes(b"no picture"), "b.png", id="not a picture"
        ),
        pytest.param(lambda r, c: r.rename(r.with_name("x")), "there is no", id="no folder"),
    ],
)
def test_pictures_that_do_not_compare_are_named(folders, spoil, message):
    rainy, clean, _ = folders
    spoil(rainy, clean)
    with pytest.raises(ReadError, match=message):
        evaluate(rainy, clean)


def test_clips_of_other_lengths_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    short = Clip(video=(Video(times=(0, 40)),)).make(tmp_path / "a")
    long = Clip(video=(Video(times=(0, 40, 80)),)).make(tmp_path / "b")
    with pytest.raises(ReadError, match="fewer frames"):
        evaluate(long, short)
    with pytest.raises(ReadError, match="more frames"):
        evaluate(short, long)


@pytest.mark.slow
def test_the_known_figure_of_a_public_set(data_dir):
    folder = data_dir / "dev" / "rain12"
    assert evaluate(folder / "input", folder / "target").mean.rainy.psnr_y == pytest.approx(
        30.14, abs=0.005
    )


def test_settings_of_a_restorer_need_a_model(tmp_path, capsys):
    for words in (["--scale", "0.5"], ["--engine", "torch"], ["--device", "cuda"]):
        with pytest.raises(SystemExit):
            main(["evaluate", str(tmp_path), *words])
        assert "need --model, --task or --weights" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.m2ts", "a.MPG", "a.ts", "a.wmv"])
def test_every_video_of_a_folder_counts_whatever_its_suffix(name, tmp_path):
    for folder in ("rainy", "clean"):
        (tmp_path / folder).mkdir()
        clip = Clip(name=f"{folder}/a.mkv", video=(Video(times=every(40, 8)),)).make(tmp_path)
        clip.rename(clip.with_name(name))
        save_picture(tmp_path / folder / "b.png", noise(1))
    result = evaluate(tmp_path / "rainy", tmp_path / "clean")
    assert [row.name for row in result.rows] == [name, "b.png"]
    assert [clip.name for clip in measure_flicker(tmp_path / "rainy")] == [name]
