from fractions import Fraction

import av
import numpy as np
import pytest
from clips import Clip, Video, copy, every
from PIL import Image

from mhnet_video.errors import ReadError, WriteError
from mhnet_video.media import contact_sheet
from mhnet_video.media.contact_sheet import check_sheet, save_contact_sheet, save_pictures
from mhnet_video.media.reading.reader import VideoReader


def read(path):
    with av.open(path) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.fixture
def clip(tmp_path):
    return Clip(video=(Video(times=every(40, 20), gop=6),)).make(tmp_path)


def test_a_row_for_each_moment_before_and_after(clip, tmp_path):
    path = tmp_path / "new" / "sheet.png"
    save_contact_sheet(clip, clip, path, moments=3)
    sheet = read(path)
    # four cells of 640x480: both pictures, and where they differ most
    assert sheet.shape == (3 * 486 + 6, 2 * 646 + 2 * 486 + 6, 3)
    first = sheet[60:480, 6:646]
    np.testing.assert_array_equal(first, sheet[60:480, 652:1292])
    assert np.any(first != sheet[486 + 60 : 486 + 480, 6:646])
    assert [item.name for item in path.parent.iterdir()] == ["sheet.png"]


def test_an_output_that_begins_later_meets_its_source(tmp_path):
    whole = Clip(video=(Video(times=every(40, 20), options=(("crf", "0"),)),)).make(tmp_path)
    later = tmp_path / "later.mkv"
    with av.open(whole) as source, av.open(later, "w") as target:
        stream = target.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, frame in enumerate(source.decode(video=0)):
            if index >= 7:
                frame.pts, frame.time_base = index - 7, Fraction(1, 25)
                frame.pict_type = 0
                target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    save_contact_sheet(whole, later, tmp_path / "sheet.png", start=0.27)
    sheet = read(tmp_path / "sheet.png").astype(int)
    assert np.abs(sheet[60:480, 6:646] - sheet[60:480, 652:1292]).mean() < 2


@pytest.mark.parametrize("name", ["later.ts", "later.avi", "later.mp4"])
@pytest.mark.parametrize("source", ["whole.ts", "whole.mp4"])
def test_both_pictures_are_of_one_moment(source, name, tmp_path):
    """Also where a search ends in the middle of a group of pictures, or the first frame is late."""
    options = (("crf", "0"), ("bf", "2"))
    video = Video(times=every(40, 100), gop=40, b_frames=2, options=options, pixel_format="yuv444p")
    whole = Clip(name=source, video=(video,)).make(tmp_path)
    copy(whole, tmp_path / name, crf=0)
    save_contact_sheet(whole, tmp_path / name, tmp_path / "sheet.png")
    sheet = read(tmp_path / "sheet.png").astype(int)
    for row in range(4):
        top = 486 * row
        before, after = sheet[top + 60 : top + 480, 6:646], sheet[top + 60 : top + 480, 652:1292]
        assert np.abs(before - after).mean() < 1


def test_a_file_is_opened_once_and_once_for_each_moment(clip, tmp_path, monkeypatch):
    opened = []

    def reader(path, **how):
        opened.append(path)
        return VideoReader(path, **how)

    monkeypatch.setattr(contact_sheet, "VideoReader", reader)
    save_contact_sheet(clip, clip, tmp_path / "sheet.png", moments=3)
    assert len(opened) == 2 * (1 + 3)


def test_behind_the_last_frame_is_the_last_frame(clip, tmp_path):
    short = Clip(name="short.mp4", video=(Video(times=(0, 40)),)).make(tmp_path)
    save_contact_sheet(short, clip, tmp_path / "sheet.png")
    sheet = read(tmp_path / "sheet.png")
    np.testing.assert_array_equal(sheet[60:480, 6:646], sheet[3 * 486 + 60 : 3 * 486 + 480, 6:646])


@pytest.mark.parametrize(
    "video",
    [
        pytest.param(Video(times=(0,)), id="one frame"),
        pytest.param(Video(width=2, height=2), id="tiny"),
        pytest.param(Video(width=48, height=64, pixel_format="yuv420p10le"), id="portrait, 10 bit"),
    ],
)
def test_any_clip_has_a_sheet(video, tmp_path):
    clip = Clip(video=(video,)).make(tmp_path)
    save_contact_sheet(clip, clip, tmp_path / "sheet.png")
    assert read(tmp_path / "sheet.png").mean() > 24


def test_pictures_of_other_sizes_have_no_details(clip, tmp_path):
    (tmp_path / "other").mkdir()
    other = Clip(video=(Video(width=128, times=every(40, 20)),)).make(tmp_path / "other")
    save_contact_sheet(clip, other, tmp_path / "sheet.png")
    assert read(tmp_path / "sheet.png").shape[1] == 2 * 646 + 6


def test_what_cannot_be_a_sheet(clip, tmp_path):
    here = tmp_path / "here.png"
    here.write_text("mine")
    (tmp_path / "folder.png").mkdir()
    for path, words in [
        (clip, "is a PNG; end it in .png"),
        (here, "exists already"),
        (tmp_path / "folder.png", "is a folder"),
        (tmp_path / "no" / "a.png", "does not exist; create it first"),
    ]:
        with pytest.raises(WriteError, match=words):
            check_sheet(path)
    check_sheet(here, overwrite=True)
    with pytest.raises(WriteError, match="is the input or the output"):
        check_sheet(here, [clip, tmp_path / "folder.png" / ".." / "here.png"], overwrite=True)
    assert here.read_text() == "mine"


def test_names_with_colons_have_sheets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Clip(name="a:b.mp4").make(tmp_path)
    save_contact_sheet("a:b.mp4", "a:b.mp4", "sheet.png")
    assert read(tmp_path / "sheet.png").mean() > 24


def test_a_file_that_is_none_is_named(clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ReadError, match=r"text\.mp4"):
        save_contact_sheet(clip, tmp_path / "text.mp4", tmp_path / "sheet.png")
    with pytest.raises(WriteError, match=r"sheet\.png"):
        save_contact_sheet(clip, clip, tmp_path / "text.mp4" / "sheet.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(WriteError, match=r"folder\.png"):
        save_contact_sheet(clip, clip, tmp_path / "folder.png")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("width", [64, 63])
def test_of_both_side_by_side_the_restored_one_is_shown(width, tmp_path):
    video = Video(width=width, options=(("crf", "0"),), pixel_format="yuv444p")
    clip = Clip(video=(video,)).make(tmp_path)
    both = tmp_path / "both.mkv"
    with av.open(clip) as source, av.open(both, "w") as target:
        stream = target.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 2 * 64, 48, "gray"
        for frame in source.decode(video=0):
            grey = frame.to_ndarray(format="gray")
            pair = [np.pad(half, ((0, 0), (0, 64 - width))) for half in (grey, 255 - grey)]
            picture = av.VideoFrame.from_ndarray(np.concatenate(pair, 1), format="gray")
            picture.pts, picture.time_base = frame.pts, frame.time_base
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    save_contact_sheet(clip, both, tmp_path / "sheet.png", moments=1, is_compared=True)
    sheet = read(tmp_path / "sheet.png").astype(int)
    shown = 10 * width
    before, after = sheet[60:480, 6 : 6 + shown], sheet[60:480, 12 + shown : 12 + 2 * shown]
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] < -0.5
    # and where they differ most, which only pictures of one size have
    assert sheet.shape[1] == 2 * (shown + 6) + 2 * 486 + 6


def test_an_interrupt_leaves_no_half_of_a_sheet(tmp_path, monkeypatch):
    def save(self, path, **others):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        save_pictures([[("A", np.zeros((8, 8, 3), np.uint8))]], tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())
