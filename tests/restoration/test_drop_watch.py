"""Drops that a restorer of streaks leaves on the glass are noticed, and nothing else is."""

import threading

import av
import cv2
import numpy as np
import pytest
import torch

from mhnet_video import Restorer, restore_video
from mhnet_video.cli.reports import restore_summary
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.frame import Pair
from mhnet_video.pipelines.batch import run_batch
from mhnet_video.pipelines.segments import restore_in_segments
from mhnet_video.restoration import drop_watch
from mhnet_video.restoration.drop_watch import LEAST_SHARE, DropWatch
from mhnet_video.restoration.rgb_frames import frame_of
from mhnet_video.training.drops import draw_pane, pane_on

HEIGHT, WIDTH = 192, 256


def scene(count, step=3.0, seed=0):
    """RGB pictures of a camera that pans, `[N, H, W, 3]` uint8."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(20, 230, (24, 90, 3)).astype(np.float32)
    whole = cv2.resize(coarse, (900, 240), interpolation=cv2.INTER_CUBIC)
    for _ in range(60):  # edges, as a street has
        x, y = random.integers(0, 880), random.integers(0, 220)
        colour = random.uniform(0, 255, 3).tolist()
        cv2.rectangle(whole, (int(x), int(y)), (int(x) + 14, int(y) + 30), colour, -1)
    whole = cv2.GaussianBlur(whole.clip(0, 255), (0, 0), 0.7)
    centres = [(140 + step * (index % 200), 120) for index in range(count)]
    return np.stack([cv2.getRectSubPix(whole, (WIDTH, HEIGHT), each) for each in centres]).astype(
        np.uint8
    )


def behind_drops(pictures):
    pane = draw_pane(np.random.default_rng(1), height=HEIGHT, width=WIDTH, kind="windscreen")
    clean = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    view = torch.nn.functional.interpolate(clean, (36, 48), mode="area")
    times = np.arange(len(pictures))
    wet, _ = pane_on(clean, pane, times=times, view=view, place=(0.0, 0.0, 1 / WIDTH))
    return (wet * 255).round().byte().permute(0, 2, 3, 1).numpy()


def watched(sources, restored=None, make_room=lambda: None):
    watch = DropWatch(make_room)
    restored = sources if restored is None else restored
    pairs = (
        Pair(*(frame_of(np.asarray(each), index) for each in both))
        for index, both in enumerate(zip(sources, restored, strict=True))
    )
    assert len(list(watch.watch(pairs))) == len(sources)
    return watch


@pytest.fixture(scope="module")
def dry():
    return scene(46)


@pytest.fixture(scope="module")
def wet(dry):
    return behind_drops(dry)


def test_drops_that_are_left_are_seen_and_a_dry_scene_has_none(dry, wet):
    assert watched(wet).share() > 2 * LEAST_SHARE
    assert watched(dry).share() < LEAST_SHARE / 2


def test_room_is_made_for_a_look_alone(wet):
    made = []
    assert watched(wet[:30], make_room=lambda: made.append(1)).share() is None
    assert not made
    watched(wet, make_room=lambda: made.append(1)).share()
    assert made == [1]


def test_what_only_shines_is_no_drop(dry, wet):
    # as wet leaves do, and rain in the light of a lamp: at the same places, and nothing is darkened
    shining = np.maximum(wet, dry)
    assert np.mean(shining > dry.astype(int) + 4) > 2 * LEAST_SHARE
    assert not watched(shining).sees_drops()


def test_what_was_taken_out_is_not_left(dry, wet):
    assert not watched(wet, dry).sees_drops()


def test_drops_count_where_they_stay(dry, wet):
    # of the windows that are kept of so many frames, one is behind drops
    long = np.concatenate([wet[:24], *[dry] * 6])
    watch = watched(long)
    assert not watch.sees_drops()
    assert len(watch._kept) <= 4
    assert max(watch._kept) > len(long) / 2
    assert watched(np.concatenate([wet[:24], *[wet] * 6])).sees_drops()


@pytest.mark.parametrize("fixture", ["bonnet", "watermark"])
def test_what_stands_before_a_moving_scene_is_no_drop(fixture, dry):
    pictures = dry.copy()
    for picture in pictures:
        if fixture == "bonnet":
            cv2.ellipse(picture, (128, 215), (150, 60), 0, 0, 360, (52, 50, 60), -1)
        else:
            cv2.putText(picture, "CAM 2 10:04:31", (8, 24), 0, 0.6, (250, 250, 250), 1, cv2.LINE_AA)
    assert watched(pictures).share() < LEAST_SHARE


def test_nothing_is_said_of_a_few_frames_or_of_tiny_pictures(wet):
    assert watched(wet[:20]).share() is None
    assert watched(wet[:, :96]).share() is None


def film(path, pictures):
    """A file of pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("in_segments", [False, True])
@pytest.mark.parametrize("is_wet", [False, True])
def test_the_closing_lines_name_the_task(is_wet, in_segments, dry, wet, tmp_path):
    source, target = film(tmp_path / "in.mp4", wet if is_wet else dry), tmp_path / "out.mp4"
    restorer = Restorer("realtime", device="cpu")
    if in_segments:
        report = restore_in_segments([source], target, restorer=restorer)
    else:
        report = restore_video(source, target, restorer=restorer)
    assert report.has_drops is is_wet
    assert report.to_dict()["has_drops"] is is_wet
    hints = [line for line in restore_summary(report) if "--task raindrop" in line]
    assert len(hints) == is_wet


def test_who_takes_drops_out_is_not_asked(wet, tmp_path):
    source = film(tmp_path / "in.mp4", wet)
    restorer = Restorer("windscreen-realtime", device="cpu", strength=0)
    assert not restore_video(source, tmp_path / "out.mp4", restorer=restorer).has_drops


@pytest.mark.parametrize("in_segments", [False, True])
def test_a_look_that_fails_takes_nothing_away(in_segments, wet, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(drop_watch, "_beyond", fail)
    source, target = film(tmp_path / "in.mp4", wet), tmp_path / "out.mp4"
    restorer = Restorer("realtime", device="cpu")
    if in_segments:
        report = restore_in_segments([source], target, restorer=restorer)
    else:
        report = restore_video(source, target, restorer=restorer)
    assert report.frames == len(wet) and not report.has_drops
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]
    assert "can't allocate memory" in caplog.text


@pytest.mark.parametrize("in_segments", [False, True])
def test_who_ends_a_run_does_not_wait_for_a_look(in_segments, dry, tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(DropWatch, "sees_drops", lambda _: looks.append(1))
    source, target, stop = film(tmp_path / "in.mp4", dry), tmp_path / "out.mp4", threading.Event()
    how = {"restorer": Restorer("realtime", device="cpu"), "stop": stop}
    how["on_progress"] = lambda progress: progress.frames >= 30 and stop.set()
    if in_segments:
        report = restore_in_segments([source], target, **how)
    else:
        report = restore_video(source, target, **how)
    assert report.interrupted and not looks


def test_a_window_does_not_reach_across_parts(dry):
    """Every second frame begins a part, so that no window is whole."""
    watch = DropWatch()
    for index in range(0, len(dry), 2):
        pairs = (Pair(*[frame_of(dry[at], at)] * 2) for at in (index, index + 1))
        assert len(list(watch.watch(pairs))) == 2
    assert watch.share() is None


def test_a_batch_tells_of_drops(wet, tmp_path):
    source = film(tmp_path / "in.mp4", wet)
    config = RestoreConfig(device="cpu")
    report = run_batch([source], tmp_path / "out", config, BatchConfig(jobs=1))
    assert [row.has_drops for row in report.rows] == [True]
