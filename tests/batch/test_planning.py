"""Which files become works, and what is said of those that do not."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import Audio, Clip, Video, every

from mhnet_video.batch.discovery import OWN_FOLDER, check_sources
from mhnet_video.batch.planning import FootageCache, make_plan
from mhnet_video.batch.work import Shard
from mhnet_video.errors import ConfigError
from mhnet_video.media.reading.reader import VideoReader

TINY = Video(times=every(40, 5))
SECOND = Video(times=every(100, 10), rate=10)
FOUR_SECONDS = Video(times=every(100, 40), rate=10)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Clip(video=(TINY,)).make(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def card(tmp_path):
    folder = tmp_path / "card"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    (folder / OWN_FOLDER).mkdir(parents=True)
    return folder


def put(clip, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(clip, path)
    return path


def keys(plan):
    return [work.key for work in plan.works]


def said(plan, *, is_error=True):
    return {item.path.name: item.reason for item in plan.left_out if item.is_error == is_error}


def test_a_tree_is_mirrored(clip, card, out):
    for name in ("a.mp4", "sub/b.MP4", "sub/deep er/c.mp4"):
        put(clip, card / name)
    plan = make_plan([str(card)], out)
    assert keys(plan) == ["a.mp4", "sub/b.MP4", "sub/deep er/c.mp4"]
    assert [work.output for work in plan.works] == [out / key for key in keys(plan)]
    assert [work.seconds for work in plan.works] == [pytest.approx(0.2, abs=0.01)] * 3
    assert not plan.left_out


@pytest.mark.parametrize("suffix", [".LRV", ".lrf"])
def test_the_small_copies_that_cameras_keep_are_left_out_unless_named(suffix, clip, card, out):
    put(clip, card / "GX010012.MP4")
    copy = put(clip, card / f"GL010012{suffix}")
    plan = make_plan([str(card)], out)
    assert keys(plan) == ["GX010012.MP4"]
    assert said(plan, is_error=False)[copy.name].startswith("is a small copy that the camera keeps")
    assert keys(make_plan([str(copy)], out)) == [f"{copy.name}.mkv"]


def test_what_is_video_is_seen_by_opening(clip, card, out):
    put(clip, card / "recording.dat")
    put(clip, card / "no extension")
    (card / "notes.txt").write_text("rain\n" * 100)
    (card / "random.bin").write_bytes(np.random.default_rng(0).bytes(40_000))
    plan = make_plan([str(card)], out)
    assert keys(plan) == ["no extension.mkv", "recording.dat.mkv"]
    assert said(plan) == {}
    assert said(plan, is_error=False).keys() == {"notes.txt", "random.bin"}


def test_pictures_and_sound_are_no_video(clip, card, out):
    with av.open(card / "photo.jpg", "w") as file:
        stream = file.add_stream("mjpeg", width=64, height=48, pix_fmt="yuvj420p")
        picture = np.zeros((48, 64, 3), np.uint8)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    Clip(video=(), audio=(Audio(),), name="song.mov").make(card).rename(card / "song.m4a")
    plan = make_plan([str(card)], out)
    assert keys(plan) == []
    assert said(plan, is_error=False).keys() == {"photo.jpg", "song.m4a"}
    assert "is a picture" in said(plan, is_error=False)["photo.jpg"]
    # named itself, somebody expects a result
    assert said(make_plan([str(card / "photo.jpg")], out)).keys() == {"photo.jpg"}


def test_a_video_that_could_be_a_picture_is_one_by_its_name(card, out):
    Clip(name="one frame.mp4", video=(Video(times=(0,)),)).make(card)
    video = Video(codec="mjpeg", pixel_format="yuvj420p", width=320, height=240)
    path = Clip(name="b.mjpeg", video=(video,)).make(card)
    # FFmpeg asks for this mark, and for pictures as large as those of cameras
    mark = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    path.write_bytes(path.read_bytes().replace(b"\xff\xd8", mark))
    with VideoReader(path) as reader:
        assert reader.is_picture
    plan = make_plan([str(card)], out)
    assert keys(plan) == ["b.mjpeg.mkv", "one frame.mp4"]
    assert not plan.left_out


def test_broken_and_empty_videos_are_errors_with_their_reason(clip, card, out):
    put(clip, card / "good.mp4")
    (card / "empty.mp4").touch()
    (card / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(40_000))
    (card / "cut.mp4").write_bytes(clip.read_bytes()[:200])
    plan = make_plan([str(card)], out)
    assert keys(plan) == ["good.mp4"]
    assert said(plan).keys() == {"empty.mp4", "noise.mp4", "cut.mp4"}
    assert said(plan)["empty.mp4"].startswith("is empty")


def test_hidden_files_and_folders_are_passed_over_unless_named(clip, card, out):
    put(clip, card / "._a.mp4")
    put(clip, card / ".Trashes/b.mp4")
    plan = make_plan([str(card)], out)
    assert not plan.works and not plan.left_out
    assert keys(make_plan([str(card / "._a.mp4")], out)) == ["._a.mp4"]


def test_outputs_in_a_source_folder_are_no_sources(clip, card):
    put(clip, card / "a.mp4")
    out = card / "restored"
    put(clip, out / "a.mp4")
    (out / OWN_FOLDER).mkdir()
    other = card / "older outputs"
    put(clip, other / "a.mp4")
    (other / OWN_FOLDER).mkdir()
    assert keys(make_plan([str(card)], out)) == ["a.mp4"]


def test_a_source_in_the_folder_of_outputs_is_refused(card, tmp_path):
    with pytest.raises(ConfigError, match="is the folder of outputs;"):
        check_sources([str(card)], card)
    with pytest.raises(ConfigError, match="lies in the folder of outputs;"):
        check_sources([str(card)], tmp_path)
    (tmp_path / "link").symlink_to(card)
    with pytest.raises(ConfigError, match="is the folder of outputs;"):
        check_sources([str(tmp_path / "link")], card)
    check_sources([str(tmp_path)], card)


def test_links_in_a_circle_end(clip, card, out):
    put(clip, card / "sub/a.mp4")
    (card / "sub/up").symlink_to(card)
    (card / "sub/self").symlink_to(card / "sub")
    assert keys(make_plan([str(card)], out)) == ["sub/a.mp4"]


def test_a_file_comes_once_under_its_own_name(clip, card, out):
    put(clip, card / "z/real.mp4")
    (card / "a.mp4").symlink_to(card / "z/real.mp4")
    (card / "b").symlink_to(card / "z")
    plan = make_plan([str(card), str(card / "z/real.mp4")], out)
    assert keys(plan) == ["z/real.mp4"]
    assert said(plan, is_error=False).keys() == {"a.mp4"}
    assert "is the same file as" in said(plan, is_error=False)["a.mp4"]


def test_links_to_elsewhere_are_followed(clip, card, out, tmp_path):
    put(clip, tmp_path / "elsewhere/a.mp4")
    (card / "linked").symlink_to(tmp_path / "elsewhere")
    (card / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    plan = make_plan([str(card)], out)
    assert keys(plan) == ["linked/a.mp4"]
    assert "does not exist" in said(plan)["gone.mp4"]


def test_patterns_are_taken_with_the_tree_below_their_fixed_part(clip, card, out):
    for name in ("front/a.mp4", "front/b.mp4", "rear/c.mp4", "rear/d.mkv"):
        put(clip, card / name)
    assert keys(make_plan([f"{card}/*/*.mp4"], out)) == ["front/a.mp4", "front/b.mp4", "rear/c.mp4"]
    assert keys(make_plan([f"{card}/**/d.*"], out)) == ["rear/d.mkv"]
    assert "no file fits" in said(make_plan([f"{card}/*.avi"], out))["*.avi"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**", ["a.mp4", "front/b.mp4", "front/deep/c.mp4"]),
        ("**/*.mp4", ["a.mp4", "front/b.mp4", "front/deep/c.mp4"]),
        ("**/deep/**/c.mp4", ["front/deep/c.mp4"]),
        ("*/*.mp4", ["front/b.mp4"]),
        ("*/", ["front/b.mp4", "front/deep/c.mp4"]),
        ("f*/deep/?.mp4", ["front/deep/c.mp4"]),
        (".*/*.mp4", [".hidden/d.mp4"]),
        ("*/.e.mp*", ["front/.e.mp4"]),
    ],
)
def test_patterns_mean_what_they_mean_to_python(clip, card, out, pattern, found):
    for name in ("a.mp4", "front/b.mp4", "front/deep/c.mp4", ".hidden/d.mp4", "front/.e.mp4"):
        put(clip, card / name)
    works = make_plan([f"{card}/{pattern}"], out).works
    assert sorted(os.path.relpath(work.sources[0].resolve(), card) for work in works) == found


def test_patterns_find_no_outputs(clip, card):
    put(clip, card / "a.mp4")
    for name in ("restored", "older"):
        put(clip, card / name / "a.mp4")
        (card / name / OWN_FOLDER).mkdir()
    out = card / "restored"
    assert keys(make_plan([f"{card}/**/*.mp4"], out)) == ["a.mp4"]
    assert keys(make_plan([f"{card}/*/*.mp4"], out)) == []
    # named itself, the folder of another batch is a source
    assert keys(make_plan([f"{card}/older/*.mp4"], out)) == ["a.mp4"]
    with pytest.raises(ConfigError, match="lies in the folder of outputs;"):
        check_sources([f"{out}/*.mp4"], out)


def test_patterns_follow_links_in_a_circle_once(clip, card, out):
    put(clip, card / "a.mp4")
    put(clip, card / "sub/b.mp4")
    for name in ("x", "y", "sub/up", "sub/self"):
        (card / name).symlink_to(card / "sub" if name.endswith("self") else card)
    assert keys(make_plan([f"{card}/**/*.mp4"], out)) == ["a.mp4", "sub/b.mp4"]


@pytest.mark.parametrize("source", ["", "/**/*.mp4", "/*"])
def test_a_link_to_itself_hides_nothing_else(source, clip, card, out):
    put(clip, card / "day/a.mp4")
    (card / "self.mp4").symlink_to("self.mp4")
    plan = make_plan([f"{card}{source}"], out)
    assert keys(plan) == ["day/a.mp4"]
    assert said(plan)["self.mp4"].startswith("cannot be opened: ")


def test_a_file_with_the_name_of_a_pattern_is_a_file(clip, card, out):
    path = put(clip, card / "take [1].mp4")
    assert keys(make_plan([str(path)], out)) == ["take [1].mp4"]


def test_a_source_that_does_not_exist_is_an_error(card, out):
    plan = make_plan([str(card / "none.mp4")], out)
    assert said(plan) == {"none.mp4": "does not exist; check the path."}


def test_two_sources_for_one_output_are_both_left_out(clip, card, out, tmp_path):
    put(clip, card / "a.mp4")
    put(clip, card / "b.mp4")
    put(clip, tmp_path / "other/a.mp4")
    plan = make_plan([str(card), str(tmp_path / "other")], out)
    assert keys(plan) == ["b.mp4"]
    reasons = [item.reason for item in plan.left_out]
    assert len(reasons) == 2
    assert all("would become the same output as" in reason for reason in reasons)


def test_two_outputs_that_would_share_a_track_are_both_left_out(clip, card, out):
    for name in ("a.mp4", "a.mov", "b.mp4"):
        put(clip, card / name)
    assert keys(make_plan([str(card)], out)) == ["a.mov", "a.mp4", "b.mp4"]
    plan = make_plan([str(card)], out, has_tracks=True)
    assert keys(plan) == ["b.mp4"]
    assert said(plan)["a.mp4"].startswith(f"would have the same track as {card / 'a.mov'};")
    assert said(plan)["a.mov"].startswith(f"would have the same track as {card / 'a.mp4'};")


@pytest.mark.parametrize(
    "names",
    [("Clip.mp4", "clip.MP4"), ("caf\N{LATIN SMALL LETTER E WITH ACUTE}.mp4", "cafe\u0301.mp4")],
    ids=["case", "an accent of its own"],
)
def test_names_that_are_one_where_the_outputs_are_clash_there(names, clip, card, out):
    for name in names:
        put(clip, card / name)
    assert set(keys(make_plan([str(card)], out))) == set(names)
    (out / OWN_FOLDER.upper()).mkdir(exist_ok=True)  # as a file system shows it that ignores case
    plan = make_plan([str(card)], out)
    assert keys(plan) == []
    assert said(plan).keys() == set(names)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_an_error(clip, card, out):
    put(clip, card / "a.mp4")
    put(clip, card / "locked/b.mp4")
    (card / "locked").chmod(0)
    try:
        plan = make_plan([str(card)], out)
    finally:
        (card / "locked").chmod(0o700)
    assert keys(plan) == ["a.mp4"]
    assert "cannot be listed" in said(plan)["locked"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
@pytest.mark.parametrize("pattern", ["", "/*", "/**/*.mp4"])
def test_files_of_a_source_that_may_not_be_seen_are_errors(pattern, clip, card, out):
    put(clip, card / "a.mp4")
    card.chmod(0o400)
    try:
        plan = make_plan([f"{card}{pattern}"], out)
    finally:
        card.chmod(0o700)
    assert said(plan) == {"a.mp4": "cannot be opened: Permission denied."}


def test_pipes_are_no_files(card, out):
    os.mkfifo(card / "pipe.mp4")
    plan = make_plan([str(card)], out)
    assert "pipe" in said(plan, is_error=False)["pipe.mp4"]


def test_shards_hold_each_work_once_and_keep_it(clip, card, out):
    for index in range(24):
        put(clip, card / f"{index}.mp4")
    whole = set(keys(make_plan([str(card)], out)))
    parts = [
        set(keys(make_plan([str(card)], out, shard=Shard(number=number, count=3))))
        for number in (1, 2, 3)
    ]
    assert set.union(*parts) == whole
    assert sum(map(len, parts)) == 24
    assert all(len(part) >= 2 for part in parts)
    # what is added later moves nothing
    put(clip, card / "later.mp4")
    again = set(keys(make_plan([str(card)], out, shard=Shard(number=1, count=3))))
    assert parts[0] == again - {"later.mp4"}


def test_joined_files_become_the_work_of_the_first(card, out):
    made = [
        Clip(name=f"2023_0615_1200{second:02}_000{view}.MP4", video=(SECOND,)).make(card)
        for view in "FR"
        for second in (0, 1, 2, 30)
    ]
    plan = make_plan([str(card)], out, is_joined=True)
    assert [[made.index(path) for path in work.sources] for work in plan.works] == [
        [0, 1, 2],
        [4, 5, 6],
        [3],
        [7],
    ]
    assert plan.works[0].key == made[0].name
    assert plan.works[0].seconds == pytest.approx(3, abs=0.01)


def unplayable(content):
    """A file with all of its headers, whose packets are overwritten."""
    begin = content.index(b"mdat") + 4
    end = begin - 8 + int.from_bytes(content[begin - 8 : begin - 4], "big")
    return content[:begin] + bytes(end - begin) + content[end:]


@pytest.mark.parametrize(
    ("odd", "audio"),
    [
        (Clip(video=(FOUR_SECONDS,)), (Audio(),)),  # recorded without sound
        (Clip(video=(FOUR_SECONDS,), audio=(Audio(rate=44100),)), (Audio(),)),
        (Clip(video=(replace(FOUR_SECONDS, pixel_format="yuv444p"),)), ()),
        (Clip(video=(FOUR_SECONDS,), finish=unplayable), ()),
    ],
)
def test_a_file_that_cannot_be_joined_is_a_work_of_its_own(card, out, odd, audio):
    for number in range(5):
        clip = odd if number == 2 else Clip(video=(FOUR_SECONDS,), audio=audio)
        replace(clip, name=f"2023_0615_1200{4 * number:02}_000{number}F.MP4").make(card)
    plan = make_plan([str(card)], out, is_joined=True)
    assert [len(work.sources) for work in plan.works] == [2, 1, 2]
    assert not plan.left_out


def test_a_file_is_opened_once_as_long_as_it_stays(clip, card, out, monkeypatch):
    import mhnet_video.batch.planning as planning

    opened = []
    plain = planning.look_at

    def look_at(path: Path):
        opened.append(path.name)
        return plain(path)

    monkeypatch.setattr(planning, "look_at", look_at)
    put(clip, card / "a.mp4")
    footage_cache = FootageCache()
    make_plan([str(card)], out, footage_cache=footage_cache)
    make_plan([str(card)], out, footage_cache=footage_cache)
    assert opened == ["a.mp4"]
    with open(card / "a.mp4", "ab") as file:
        file.write(b"more")
    make_plan([str(card)], out, footage_cache=footage_cache)
    assert opened == ["a.mp4", "a.mp4"]
