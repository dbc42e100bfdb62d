"""A folder of pictures in, the same pictures restored out."""

import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from damage import Restore
from standin import Held, StandIn
from test_restorer import Spy, levels

from mhnet_video import RestoreConfig, Restorer, restore_video
from mhnet_video.cli.main import main
from mhnet_video.errors import ConfigError, MHNetVideoError, ReadError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.contact_sheet import save_contact_sheet
from mhnet_video.media.image_sequence import in_order
from mhnet_video.pipelines.evaluate import evaluate
from mhnet_video.restoration.self_ensemble import TRANSFORMS


def scene(seed: int, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """A smooth picture, another one for each seed."""
    noise = np.random.default_rng(seed).normal(size=(*size, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.clip(128 + smooth / smooth.std() * 50, 40, 215).astype(np.uint8)


def rainy(picture: np.ndarray, seed: int) -> np.ndarray:
    """With noise of its own, as each frame has."""
    noise = np.random.default_rng(seed).integers(-8, 9, picture.shape)
    return np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Five frames of one scene, and two pictures of others, the last one a JPEG."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(5):
        cv2.imwrite(str(folder / f"{index + 7}.png"), rainy(scene(1), index))
    cv2.imwrite(str(folder / "x.png"), scene(2))
    cv2.imwrite(str(folder / "y.jpg"), scene(3))
    return folder


def test_names_are_in_the_order_of_their_numbers() -> None:
    names = ["a.png", "2.png", "10.png", "10²1.png", "²1.png", "٣.png"]
    assert [path.name for path in in_order([Path(name) for name in reversed(names)])] == [
        *("2.png", "٣.png", "10.png", "10²1.png", "a.png", "²1.png"),
    ]


def test_frames_of_one_scene_see_each_other_and_other_pictures_nothing(
    frames: Path, tmp_path: Path
) -> None:
    spy = Spy()
    report = restore_video(frames, tmp_path / "dry", restorer=Restorer(spy, device="cpu"))
    names = ["7.png", "8.png", "9.png", "10.png", "11.png", "x.png", "y.jpg"]
    assert sorted(path.name for path in (tmp_path / "dry").iterdir()) == sorted(names)
    # what each window shows in its corner
    corners = [cv2.imread(str(frames / name))[0, 0, 2] for name in names]
    order = [[2, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 2]]
    expected = [[int(corners[place]) for place in window] for window in order]
    found = levels(spy)
    assert found[:5] == expected
    # each on its own, looked at several times
    assert [(a, c) for a, _, c in found[5:]] == [(0, 0)] * 2 * len(TRANSFORMS)
    for name in names[:6]:  # PNG loses nothing
        before, after = (cv2.imread(str(folder / name)) for folder in (frames, tmp_path / "dry"))
        np.testing.assert_allclose(after, 0.75 * before, atol=0.51)
    assert (report.frames, report.damaged, report.lost) == (7, 0, ())
    assert report.encoder == "png, mjpeg"


def test_what_is_said_of_it(frames: Path, tmp_path: Path) -> None:
    (frames / "8.png").write_bytes(b"no picture")
    (frames / "notes.txt").write_text("not one either")
    (frames / "more").mkdir()
    told = []
    report = restore_video(frames, tmp_path / "dry", restorer=StandIn(), on_progress=told.append)
    assert report.frames == 6 and report.damaged == 1
    assert report.lost == ("2 files and folders beside the pictures", "8.png: it cannot be read")
    assert (told[-1].frames, told[-1].total) == (6, 6)
    for name in ("7.png", "9.png", "x.png"):
        before, after = (cv2.imread(str(folder / name)) for folder in (frames, tmp_path / "dry"))
        np.testing.assert_array_equal(after, before)


def test_why_a_picture_is_left_out_is_told(frames: Path, tmp_path: Path) -> None:
    for name, codec in [("8.png", "apng"), ("9.webp", "libwebp_anim")]:
        with av.open(str(frames / name), "w", format=codec.removeprefix("lib")[:4]) as container:
            stream = container.add_stream(codec, rate=5)
            stream.width, stream.height = 96, 64
            stream.pix_fmt = "rgb24" if codec == "apng" else "yuv420p"
            for seed in range(3):
                picture = av.VideoFrame.from_ndarray(scene(seed), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    (frames / "10.png").write_bytes(b"")
    report = restore_video(frames, tmp_path / "dry", restorer=StandIn())
    assert report.lost == (
        "8.png: it is a video, not a picture",
        "9.webp: it is an animated WebP, which FFmpeg cannot decode; convert it first",
        "10.png: it is empty; copy it again from where it was recorded",
    )


def test_hidden_files_and_folders_are_no_pictures(frames: Path, tmp_path: Path) -> None:
    (frames / "._7.png").write_bytes(b"what macOS keeps of a file")
    (frames / "9.jpg").mkdir()
    report = restore_video(frames, tmp_path / "dry", restorer=StandIn())
    assert (report.frames, report.damaged) == (7, 0)
    assert report.lost == ("1 file or folder beside the pictures",)


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("frames", "is the input itself"),
        ("full", "full/9.png exists already"),
        ("file", "is a file, but"),
        ("none/dry", "does not exist; create it first"),
        ("dry.mp4", "dry.mp4 is a file's name, but .*frames a folder"),
        ("dry.png", "dry.png is a file's name"),
        ("-", "not a pipe"),
    ],
)
def test_nothing_of_theirs_is_lost(
    frames: Path, tmp_path: Path, destination: str, message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "9.png").write_text("theirs")
    (tmp_path / "file").write_text("theirs")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    place = destination if destination == "-" else tmp_path / destination
    with pytest.raises(WriteError, match=message):
        restore_video(frames, place, restorer=StandIn())
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_pictures_are_replaced_when_asked(frames: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "9.png").write_text("old")
    (tmp_path / "full" / "other.txt").write_text("theirs")
    config = RestoreConfig(overwrite=True)
    assert restore_video(frames, tmp_path / "full", config, restorer=StandIn()).frames == 7
    after = cv2.imread(str(tmp_path / "full" / "9.png"))
    np.testing.assert_array_equal(after, cv2.imread(str(frames / "9.png")))
    assert (tmp_path / "full" / "other.txt").read_text() == "theirs"


def test_folders_that_cannot_be_restored(frames: Path, tmp_path: Path) -> None:
    def fails(error: type[MHNetVideoError], message: str, **options: float) -> None:
        with pytest.raises(error, match=message):
            restore_video(folder, tmp_path / "dry", RestoreConfig(**options), restorer=StandIn())
        assert not (tmp_path / "dry").exists()

    folder = frames
    fails(ConfigError, "have no times", start=1.0)
    folder = tmp_path / "empty"
    folder.mkdir()
    fails(ReadError, "empty is a folder without pictures")
    (folder / "a.png").write_bytes(b"no picture")
    fails(ReadError, "none of the pictures in .*empty can be read: .*a.png")
    (folder / "a.ppm").write_bytes(b"P6 1 1 255 abc")
    fails(WriteError, "two pictures of .*empty would both become a.png")


def test_pictures_of_kinds_that_are_only_read_become_png(tmp_path: Path) -> None:
    folder, dry = tmp_path / "phone", tmp_path / "dry"
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    for name in ("a.ppm", "b.avif", "c.png"):
        assert cv2.imwrite(str(folder / name), picture)
    report = restore_video(folder, dry, restorer=StandIn())
    assert sorted(path.name for path in dry.iterdir()) == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(cv2.imread(str(dry / "a.png")), picture)
    (line,) = [line for line in report.lost if "read only" in line]
    assert "PPM (1 picture)" in line and "AVIF (1 picture)" in line


def test_a_stop_leaves_complete_pictures(frames: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    report = restore_video(
        frames,
        tmp_path / "dry",
        restorer=Held(3, stop),
        on_progress=lambda _: stop.set(),
        stop=stop,
    )
    assert report.interrupted and 0 < report.frames < 7
    written = sorted((tmp_path / "dry").iterdir())
    assert len(written) == report.frames
    for path in written:
        np.testing.assert_array_equal(cv2.imread(str(path)), cv2.imread(str(frames / path.name)))


def test_an_error_says_where_the_rest_is(frames: Path, tmp_path: Path) -> None:
    def fails(frame: Frame) -> Frame:
        if frame.layout.kind == "yuv":
            raise ConfigError("the JPEG is too much.")
        return frame

    out = tmp_path / "dry"
    with pytest.raises(ConfigError, match=f"too much. What was done until then is in {out}"):
        restore_video(frames, out, restorer=StandIn(fails))
    left = {path.name for path in out.iterdir()}
    assert left and left < {path.name for path in frames.iterdir()}


def test_the_command_with_a_sheet(frames: Path, tmp_path: Path, capsys) -> None:
    out, sheet = tmp_path / "dry", tmp_path / "sheet.png"
    words = [str(frames), str(out), "--strength", "0", "--device", "cpu", "--sheet", str(sheet)]
    assert main(words) == 0
    assert f"{out}: 7 frames in" in capsys.readouterr().out
    assert cv2.imread(str(sheet)).shape[0] > 4 * 64
    assert main(words) == 1
    assert "exists already" in capsys.readouterr().err


def test_the_sheet_shows_pictures_that_became_png(tmp_path: Path, restore: Restore) -> None:
    folder, out = tmp_path / "phone", tmp_path / "dry"
    folder.mkdir()
    for index, name in enumerate(["a.ppm", "b.avif", "c.pgm", "d.png"]):
        assert cv2.imwrite(str(folder / name), scene(index)[..., : 1 if "pgm" in name else 3])
    # in the folder that the run makes
    outcome = restore(folder, out, "--sheet", str(out / "sheet.png"))
    assert (outcome.status, outcome.message) == (0, "")
    assert cv2.imread(str(out / "sheet.png")).shape[0] > 4 * 400
    # but in the place of none of its pictures
    outcome = restore(folder, tmp_path / "new", "--sheet", str(tmp_path / "new" / "a.png"))
    assert outcome.status == 1 and "is the input or the output" in outcome.message
    outcome = restore(folder, tmp_path / "new", "--sheet", str(tmp_path / "no" / "s.png"))
    assert outcome.status == 1 and "does not exist" in outcome.message
    assert not (tmp_path / "new").exists()
    other = tmp_path / "other"
    other.mkdir()
    cv2.imwrite(str(other / "x.png"), scene(9))
    with pytest.raises(ReadError, match=r"no picture of .*other is one of .*phone"):
        save_contact_sheet(folder, other, tmp_path / "sheet.png")


def test_folders_of_folders_have_a_row_each(frames: Path, tmp_path: Path) -> None:
    for name in ("rainy", "clean"):
        for number in (2, 10):
            (tmp_path / name / f"s{number}").mkdir(parents=True)
            for index in range(3):
                picture = scene(number) if name == "clean" else rainy(scene(number), index)
                cv2.imwrite(str(tmp_path / name / f"s{number}" / f"{index}.png"), picture)
    spy = Spy()
    result = evaluate(tmp_path / "rainy", tmp_path / "clean", restorer=Restorer(spy, device="cpu"))
    assert [row.name for row in result.rows] == ["s2", "s10"]
    assert len(spy.windows) == 6 and all(0 not in window for window in levels(spy))
    single = evaluate(tmp_path / "rainy" / "s2", tmp_path / "clean" / "s2")
    assert result.rows[0].rainy == single.mean.rainy
    (tmp_path / "clean" / "s2").rename(tmp_path / "clean" / "s3")
    with pytest.raises(ReadError, match="s2 has no twin"):
        evaluate(tmp_path / "rainy", tmp_path / "clean")


def test_a_folder_of_one_folder_has_one_row(frames: Path, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "._1.png").touch()
    frames.rename(tmp_path / "all" / "s1")
    result = evaluate(tmp_path / "all", tmp_path / "all")
    assert [row.name for row in result.rows] == ["s1"] and result.equal == 1


def test_evaluation_sees_frames_as_restoration_does(frames: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    for path in frames.iterdir():
        cv2.imwrite(str(clean / path.name), scene(1 if path.stem.isdigit() else 2))
    spy = Spy()
    restorer = Restorer(spy, device="cpu")
    result = evaluate(frames, clean, restorer=restorer)
    assert [row.name for row in result.rows] == [
        *["7.png", "8.png", "9.png", "10.png", "11.png"],
        *["x.png", "y.jpg"],
    ]
    assert all(0 not in window for window in levels(spy)[:5])
    assert len(spy.windows) == 5 + 2 * len(TRANSFORMS)
    restore_video(frames, tmp_path / "dry", restorer=restorer)
    again = evaluate(tmp_path / "dry", clean)
    for row, other in list(zip(result.rows, again.rows, strict=True))[:6]:
        assert row.restored == other.rainy
