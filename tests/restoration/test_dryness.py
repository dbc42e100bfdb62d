"""A clip is dry where the network has nothing to take out, whatever it looks like otherwise."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from clips import Clip, Video, every, join

from mhnet_video.errors import ReadError, WriteError
from mhnet_video.restoration import dryness
from mhnet_video.restoration.dryness import copy_dry, is_dry
from mhnet_video.restoration.restorer import Restorer


class Drying:
    """Makes a share of each picture a level darker, by when it is shown.

    Args:
        share: Of a time in seconds.
    """

    behind = ahead = 1
    tasks: tuple[str, ...] = ("derain",)

    def __init__(self, share):
        self._share = share
        self.strength, self.scale = 0.3, 0.5
        self.asked, self.forgotten = [], 0
        self.sizes = set()

    def forget(self):
        self.forgotten += 1

    def restore_frame(self, frames, index):
        assert self.forgotten == len(self.asked) + 1  # each time, whatever was seen before
        frame = frames[index]
        assert len({each.upright_size for each in frames}) == 1
        seconds = float(frame.pts * frame.time_base)
        self.asked.append(seconds)
        self.sizes.add((self.strength, self.scale))
        luma = frame.planes[0].copy()
        level = 1 << (frame.layout.bits - 8)
        at = np.flatnonzero(luma >= level)
        at = at[: round(self._share(seconds) * luma.size)]
        luma.flat[at] -= level
        return replace(frame, planes=(luma, *frame.planes[1:]))


def clip(folder, count=300, **options):
    video = Video(times=every(40, count), gop=25, period=50, **options)
    return Clip(name="clip.mp4", video=(video,)).make(folder)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize(("share", "expected"), [(0.0, True), (0.003, True), (0.01, False)])
def test_the_share_that_is_taken_out_decides(share, expected, pixel_format, tmp_path):
    options = {"codec": "ffv1", "pixel_format": pixel_format}
    video = Video(times=every(40, 60), **options)
    source = Clip(name="clip.mkv", video=(video,)).make(tmp_path)
    result = is_dry(source, Drying(lambda seconds: share))
    assert result.is_dry is expected
    assert result.shares == pytest.approx([share] * len(result.shares), abs=1e-3)
    assert "windows" in result.reason


class TakingDropsOut(Drying):
    """Changes three pixels of a thousand, at one place or at another one each time."""

    tasks = ("raindrop",)
    behind, ahead = 24, 0

    def __init__(self, *, stands):
        super().__init__(lambda seconds: 0.0)
        self._stands = stands

    def restore_frame(self, frames, index):
        frame = super().restore_frame(frames, index)
        assert (len(frames), index) == (25, 12)
        luma = frame.planes[0].copy()
        part = luma.reshape(-1)[: luma.size // 1000 * 999]
        at = 0 if self._stands else 400 * len(self.asked)
        part[at : at + 3 * luma.size // 1000] ^= 8
        return replace(frame, planes=(luma, *frame.planes[1:]))


def test_few_drops_stand_where_they_are(tmp_path):
    """What is taken out is too little for rain; that it is at one place tells."""
    source = clip(tmp_path)
    assert is_dry(source, TakingDropsOut(stands=False)).is_dry
    result = is_dry(source, TakingDropsOut(stands=True))
    assert not result.is_dry
    assert result.reason == "something is taken out of the same 0.29% of the picture all the time"


def test_windows_are_spread_over_the_clip(tmp_path):
    restorer = Drying(lambda seconds: 0.0)
    is_dry(clip(tmp_path), restorer)
    assert len(restorer.asked) == 12
    assert restorer.asked[0] < 2
    assert restorer.asked[-1] > 10
    assert max(np.diff(restorer.asked)) < 3


def test_a_light_that_passes_is_no_rain_and_rain_at_the_end_is(tmp_path):
    source = clip(tmp_path)
    assert is_dry(source, Drying(lambda seconds: 0.05 if 3 < seconds < 4 else 0.0)).is_dry
    result = is_dry(source, Drying(lambda seconds: 0.05 if seconds > 8 else 0.0))
    assert not result.is_dry
    assert result.reason == "much is taken out of 4 of 12 windows"


def test_the_restorers_settings_are_as_before(tmp_path):
    restorer = Drying(lambda seconds: 0.0)
    is_dry(clip(tmp_path), restorer)
    assert restorer.sizes == {(1.0, None)}
    assert (restorer.strength, restorer.scale) == (0.3, 0.5)
    restorer.restore_frame = None
    with pytest.raises(TypeError):
        is_dry(tmp_path / "clip.mp4", restorer)
    assert (restorer.strength, restorer.scale) == (0.3, 0.5)


@pytest.mark.parametrize("count", [1, 2])
def test_what_cannot_be_judged_is_not_dry(count, tmp_path):
    source = clip(tmp_path, count)
    restorer = Drying(lambda seconds: 0.0)
    assert is_dry(source, restorer) == (False, "it has fewer than 3 different frames in a row", ())


def test_frames_that_repeat_the_one_before_are_no_neighbours(tmp_path):
    video = Video(codec="ffv1", times=every(40, 40), period=1)
    source = Clip(name="still.mkv", video=(video,)).make(tmp_path)
    assert not is_dry(source, Drying(lambda seconds: 0.0)).shares


def test_a_clip_whose_size_changes_is_judged_by_frames_of_one_size(tmp_path):
    small = Clip(name="a.ts", video=(Video(times=every(40, 8)),)).make(tmp_path)
    large = Clip(name="b.ts", video=(Video(times=every(40, 8), width=96),)).make(tmp_path)
    restorer = Drying(lambda seconds: 0.0)
    assert is_dry(join(tmp_path / "clip.ts", [small, large]), restorer).is_dry
    assert restorer.asked


def test_a_file_that_is_no_video_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("rain")
    with pytest.raises(ReadError):
        is_dry(tmp_path / "notes.txt", Drying(lambda seconds: 0.0))


@pytest.fixture(scope="module")
def realtime():
    return Restorer("realtime", device="cpu")


@pytest.mark.slow
def test_drawn_rain_is_seen(realtime, tmp_path):
    for rain in (0, 60):
        video = Video(width=192, height=128, times=every(40, 30), rain=rain)
        source = Clip(name=f"{rain}.mp4", video=(video,)).make(tmp_path)
        assert is_dry(source, realtime).is_dry is (rain == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dev/real/street_handheld.mp4", False),
        ("dev/real/night_lamp_720p.mp4", False),
        ("train/clips/street_fixed.mp4", True),
        ("train/clips/tfl_jamcam_1.mp4", True),
        ("train/clips/udacity_highway_white.mp4", True),
    ],
)
def test_real_rain_is_seen_and_real_roads_are_dry(name, expected, realtime, data_dir):
    assert is_dry(data_dir / name, realtime).is_dry is expected


def test_a_copy_is_the_same_bit_for_bit_and_has_a_life_of_its_own(tmp_path):
    source = clip(tmp_path, 3)
    os.utime(source, (1, 1_000_000_000))
    content = source.read_bytes()
    copy_dry(source, tmp_path / "copy.mp4")
    assert (tmp_path / "copy.mp4").read_bytes() == content
    assert (tmp_path / "copy.mp4").stat().st_mtime == 1_000_000_000
    with (tmp_path / "copy.mp4").open("r+b") as file:
        file.write(b"changed")
    assert source.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "copy.mp4"]


def test_a_copy_replaces_nothing_unasked(tmp_path):
    source = clip(tmp_path, 3)
    (tmp_path / "mine.mp4").write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        copy_dry(source, tmp_path / "mine.mp4")
    with pytest.raises(WriteError, match="the input itself"):
        copy_dry(source, source, overwrite=True)
    with pytest.raises(ReadError, match="cannot be read"):
        copy_dry(tmp_path / "none.mp4", tmp_path / "mine.mp4", overwrite=True)
    assert (tmp_path / "mine.mp4").read_text() == "mine"
    copy_dry(source, tmp_path / "mine.mp4", overwrite=True)
    assert (tmp_path / "mine.mp4").read_bytes() == source.read_bytes()


def test_a_full_disk_leaves_no_copy(tmp_path, monkeypatch):
    def fail(source, copy, length):
        copy.write(source.read(100))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dryness, "_has_cloned", lambda *files: False)
    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(WriteError, match="the disk is full"):
        copy_dry(clip(tmp_path, 3), tmp_path / "copy.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
