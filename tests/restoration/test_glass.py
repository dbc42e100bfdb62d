"""What stands still on the glass: the pictures that a network gets of it, in files and live."""

import itertools
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from clips import Clip, Video, every
from test_llvm_engine import SMALL, make_network
from test_restorer import gray_frame

import mhnet_video.model.weights
from mhnet_video import RestoreConfig, Restorer, restore_video
from mhnet_video.config import LiveConfig, Settings
from mhnet_video.engines.select import llvm_obstacle
from mhnet_video.errors import ConfigError
from mhnet_video.live.model_choice import models_at_hand
from mhnet_video.live.session import Live
from mhnet_video.model.weights import list_models, load_model, save_weights
from mhnet_video.model.window import glass_statistics, window_indices
from mhnet_video.restoration import glass
from mhnet_video.restoration.glass import (
    DISTANCE_AT_REST,
    GLASS_PERIOD,
    MEMORY_FRAMES,
    MEMORY_STEP,
    MOST_DISTANCE,
    GlassImage,
    GlassMemory,
    MotionMeter,
    most_distance,
    pictures_of_glass,
)
from mhnet_video.restoration.rgb_frames import frame_of
from mhnet_video.restoration.scene_changes import Transition
from mhnet_video.restoration.temporal_window import WindowAssembler, WindowPicker

SIZES = {"width": 8, "patch": 2, "frames": 5, "align": True, "glass": True, **SMALL}


def panned(count, step, *, seed=0):
    """RGB pictures of a camera that pans, with a blot on the glass."""
    coarse = np.random.default_rng(seed).uniform(20, 230, (20, 80, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (1280, 96), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    pictures = [
        cv2.getRectSubPix(scene, (128, 96), (100 + step * index, 48)) for index in range(count)
    ]
    for picture in pictures:
        picture[40:52, 60:72] = 128
    return [picture.astype(np.uint8) for picture in pictures]


def seen_by(pictures, transitions=None):
    assembler = WindowAssembler(5, sees_glass=True)
    windows = []
    for index, picture in enumerate(pictures):
        transition = transitions[index] if transitions else Transition.NEXT
        windows += assembler.push(frame_of(picture, index), Settings(), transition, 1.0)
    return [*windows, *assembler.flush()]


def remembered(rgb):
    images = [GlassImage() for _ in rgb]
    for image, each in zip(images, rgb, strict=True):
        image.remember(each)
    return images


@pytest.mark.parametrize("has_opencv", [True, False])
def test_eight_bits_say_what_the_statistics_say(has_opencv, monkeypatch):
    if not has_opencv:
        monkeypatch.setattr(glass, "opencv", lambda: None)
    monkeypatch.setattr(glass, "_kernel", lambda: None)
    rgb = torch.randint(0, 256, (6, 3, 40, 50)).float() / 255
    images = remembered(rgb)
    found = torch.stack(pictures_of_glass(images[2], [*images, GlassImage()]))
    torch.testing.assert_close(found, glass_statistics(rgb, rgb[2]), rtol=0, atol=2e-6)


@pytest.mark.skipif(bool(llvm_obstacle()), reason=llvm_obstacle())
@pytest.mark.parametrize("count", [1, 2, 13, 128])
@pytest.mark.parametrize("size", [(8, 8), (7, 11), (48, 64)], ids=str)
def test_the_kernel_says_what_the_statistics_say(size, count, monkeypatch):
    # black and white as well: the sums of the most images are as large as they can be
    rgb = torch.randint(0, 256, (count, 3, *size)).float() / 255
    rgb[:, :, :2] = torch.arange(count)[:, None, None, None].ne(0).float()
    images = remembered(rgb)
    kernel = glass._kernel()
    assert kernel.least <= rgb[0].numel() and count <= kernel.most
    monkeypatch.setattr(glass, "glass_statistics", None)  # it is the kernel that answers
    for middle in (0, count // 2):
        # what it leaves out would stay
        monkeypatch.setattr(torch, "empty", partial(torch.full, fill_value=torch.nan))
        found = torch.stack(pictures_of_glass(images[middle], images))
        torch.testing.assert_close(found, glass_statistics(rgb, rgb[middle]), rtol=0, atol=4e-6)


def test_small_pictures_and_long_runs_have_statistics_without_the_kernel():
    for count, size in ((3, (2, 3)), (140, (8, 8))):
        rgb = torch.randint(0, 256, (count, 3, *size)).float() / 255
        images = remembered(rgb)
        found = torch.stack(pictures_of_glass(images[1], images))
        torch.testing.assert_close(found, glass_statistics(rgb, rgb[1]), rtol=0, atol=4e-6)


def test_a_memory_is_bounded_and_forgets_at_cuts():
    memory = GlassMemory()
    images = [GlassImage() for _ in range(MEMORY_STEP * MEMORY_FRAMES * 2)]
    for number, image in enumerate(images):
        memory.push(image, number)
    assert memory.images == tuple(images[::MEMORY_STEP][-MEMORY_FRAMES:])
    memory.clear()
    assert memory.images == ()
    memory.push(images[0], len(images) + 1)
    assert memory.images == (images[0],)


def test_a_part_of_a_clip_remembers_the_frames_that_the_clip_does():
    # copies are counted, and are not remembered
    images = {number: GlassImage() for number in range(200) if number % 7 != 6}
    whole, part = GlassMemory(), GlassMemory()
    for number, image in images.items():
        whole.push(image, number)
        if number >= GLASS_PERIOD * 2:
            part.push(image, number - GLASS_PERIOD * 2)
    assert whole.images == part.images


@pytest.mark.parametrize(
    ("step", "distance"), [(0, DISTANCE_AT_REST), (0.16, 8), (0.65, 2), (2.6, 1)]
)
def test_the_faster_the_scene_moves_the_nearer_are_the_neighbours(step, distance):
    meter = MotionMeter()
    frames = [frame_of(picture, index) for index, picture in enumerate(panned(20, step))]
    for before, frame in itertools.pairwise(frames):
        meter.push(before, frame, frame.pts)
    assert abs(meter.distance - distance) <= 1
    meter.clear()
    assert meter.distance == DISTANCE_AT_REST


def test_large_pictures_have_nearer_neighbours():
    assert most_distance(480, 640, 5) == MOST_DISTANCE
    assert 1 < most_distance(1080, 1920, 5) < MOST_DISTANCE
    assert most_distance(8640, 7680, 5) == 1
    # large frames whose second pass is over small pictures
    assert most_distance(432, 768, 5) == most_distance(432, 768, 5, 6 << 20) == MOST_DISTANCE
    assert most_distance(432, 768, 5, 12 << 20) == 6


@pytest.mark.parametrize("count", [1, 3, 8, 60])
def test_every_frame_comes_out_with_neighbours_as_far_as_the_motion_asks(count):
    windows = seen_by(panned(count, 0.32))
    assert [window.frame.pts for window in windows] == list(range(count))
    if count == 1:
        assert windows[0].images[0] is None
        return
    for index, window in enumerate(windows):
        found = [image.frame.pts for image in window.images]
        distances = (window_indices(index, count, 5, d) for d in range(1, MOST_DISTANCE + 1))
        assert found in list(distances)
    if count == 60:
        assert [image.frame.pts for image in windows[30].images] == [22, 26, 30, 34, 38]


def test_no_glass_is_seen_across_a_cut():
    pictures = panned(30, 2) + panned(30, 2, seed=1)
    transitions = [Transition.NEXT] * 30 + [Transition.CUT] + [Transition.NEXT] * 29
    windows = seen_by(pictures, transitions)
    assert [window.frame.pts for window in windows] == list(range(60))
    before, after = (
        {id(each) for w in part for each in w.seen} for part in (windows[:30], windows[30:])
    )
    assert before and after and not before & after


def test_live_windows_look_back_and_forget_at_cuts():
    pictures = panned(40, 0.32) + panned(20, 0.32, seed=1)
    frames = [frame_of(picture, index) for index, picture in enumerate(pictures)]
    picker = WindowPicker(5, sees_glass=True)
    windows = []
    for index in range(60):
        around = frames[max(0, index - 24) : index + 1]
        windows.append(picker.window(around, len(around) - 1, Settings(), 1.0))
    found = sorted(image.frame.pts for image in windows[39].images)
    assert found[-1] == 39 and found[0] < 30
    assert len(windows[39].seen) > 5
    later = [image.frame.pts for image in windows[44].images if image is not None]
    assert min(later) >= 40
    assert not set(windows[39].seen) & set(windows[44].seen)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return make_network(**SIZES)


def test_the_network_gets_the_glass_of_the_frames_it_has_seen(network):
    given = []
    restorer = Restorer(network, device="cpu", engine="torch", is_filtered=False)
    plain = restorer.engine.engine.aligned_residual
    restorer.engine.engine.aligned_residual = lambda frames: given.append(frames) or plain(frames)
    pictures = panned(24, 2)
    list(restorer.restore(pictures))
    assert len(given) == 24 and {len(window) for window in given} == {7}
    mean, difference = given[12][0], given[12][-1]
    blot = (slice(None), slice(43, 49), slice(63, 69))
    torch.testing.assert_close(
        mean[blot], torch.full_like(mean[blot], 128 / 255), rtol=0, atol=2e-3
    )
    assert float(difference[blot].max()) < 1e-3 < float(difference.mean())


@pytest.mark.skipif(bool(llvm_obstacle()), reason=llvm_obstacle())
def test_engines_and_doors_agree(network):
    pictures = panned(16, 2)
    found = {}
    for engine in ("torch", "llvm"):
        restorer = Restorer(network, device="cpu", engine=engine, is_filtered=False)
        found[engine] = np.stack(list(restorer.restore(pictures))).astype(int)
        if engine == "torch":
            pushed = [each for picture in pictures for each in restorer.push(picture)]
            pushed += restorer.flush()
            assert np.array_equal(np.stack(pushed), found[engine])
    assert np.abs(found["torch"] - np.stack(pictures)).mean() > 1
    assert np.abs(found["torch"] - found["llvm"]).mean() < 0.6


def test_a_single_picture_has_no_glass(network):
    restorer = Restorer(network, device="cpu", engine="torch")
    frame = gray_frame(90, 0)
    assert restorer.restore_frame([frame], 0).planes[0].shape == frame.planes[0].shape


def test_the_task_is_that_of_the_weights(network):
    assert Restorer(network, task="raindrop", device="cpu").network.config.glass
    with pytest.raises(ConfigError, match="realtime takes out rain; leave --task out"):
        Restorer("realtime", task="raindrop", device="cpu")
    with pytest.raises(ConfigError, match=r"task must be one of derain, raindrop, .*, not snow"):
        Restorer(task="snow")


def test_each_task_has_models_of_its_own(network, tmp_path, monkeypatch):
    for name in ("realtime", "windscreen-realtime"):
        weights = load_model("realtime") if name == "realtime" else network
        save_weights(weights, tmp_path / f"{name}.safetensors", description=name, training={})
    monkeypatch.setattr(mhnet_video.model.weights, "MODELS", tmp_path)
    assert {model.name: model.task for model in list_models()} == {
        "realtime": "derain",
        "windscreen-realtime": "raindrop",
    }
    assert models_at_hand() == ["realtime"]
    assert models_at_hand(task="raindrop") == ["windscreen-realtime"]
    assert Restorer(task="raindrop", device="cpu").name == "windscreen-realtime"
    assert Restorer(device="cpu").name == "realtime"
    (tmp_path / "windscreen-realtime.safetensors").unlink()
    with pytest.raises(ConfigError, match="no weights for raindrop ship yet"):
        models_at_hand(task="raindrop")


def test_files_and_live_runs_take_the_task(network, tmp_path):
    weights = tmp_path / "drops.safetensors"
    save_weights(network, weights, description="drops", training={})
    clip = str(Clip(video=(Video(times=every(40, 12), width=128, height=96),)).make(tmp_path))
    config = RestoreConfig(task="raindrop", weights=str(weights), device="cpu", engine="torch")
    assert restore_video(clip, tmp_path / "out.mp4", config).frames == 12
    live = LiveConfig(
        task="raindrop", weights=str(weights), device="cpu", engine="torch", scale=1.0, loop=True
    )
    with Live(clip, live) as frames:
        for _ in range(2):
            frame = next(frames)
            assert not np.array_equal(frame.after.planes[0], frame.before.planes[0])
