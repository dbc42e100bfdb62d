"""Drawn motion blur: what it does to light, and the windows that a network is trained on."""

import av
import cv2
import numpy as np
import pytest
import torch

from mhnet_video.config import TrainConfig
from mhnet_video.errors import ConfigError
from mhnet_video.model.weights import load_model
from mhnet_video.pipelines.train import train
from mhnet_video.training.blur_windows import (
    ALONE_SHARE,
    DEFOCUS_SHARE,
    LATE_SHARP_SHARE,
    RUN_EVERY,
    RUN_FRAMES,
    RUN_ROWS,
    SHARP_SHARE,
    BlurWindows,
    blurred_batch,
    blurred_pair,
)
from mhnet_video.training.footage import Footage, load_footage
from mhnet_video.training.motion_blur import (
    FASTEST,
    MOST_ROLL,
    MOST_ZOOM,
    Film,
    Layer,
    Shutter,
    ViewMotion,
    between_frames,
    draw_motion,
    exposed,
    scaled,
)

SIDE = 64
PLAIN = Film(gamma=1.0)
MIDDLE = (64.0, 64.0)


def motion(right=0.0, down=0.0):
    return ViewMotion(speed=np.array([right, down, 0.0, 0.0]))


def texture(seed=0, side=128):
    coarse = np.random.default_rng(seed).uniform(0, 255, (side // 4, side // 4, 3))
    picture = cv2.resize(coarse.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return picture.clip(0, 255).astype(np.uint8)


def point(level=255, side=128):
    """A pixel in the dark, which the middle of the view shows."""
    picture = np.zeros((side, side, 3), np.uint8)
    picture[side // 2, side // 2] = level
    return picture


def shot(picture, moves, share=1.0, film=PLAIN, readout=0.0, times=(0.0,)):
    layer = Layer(light=film.light(picture), centre=MIDDLE, motion=moves)
    return exposed([layer], times, Shutter(share=share, readout=readout), film, SIDE)


def test_a_point_becomes_a_line_as_long_as_its_way():
    blurred, sharp = shot(point(), motion(right=20), share=0.5)
    assert (sharp[0, 0] > 0).nonzero().tolist() == [[32, 32]]
    columns = (blurred[0, 0].sum(0) > 0.01).nonzero().flatten()
    assert int(columns[-1] - columns[0]) == pytest.approx(10, abs=1)
    assert float(columns.float().mean()) == pytest.approx(32, abs=0.6)
    assert set((blurred[0, 0] > 0.01).nonzero()[:, 0].tolist()) == {32}
    assert float(blurred.sum()) == pytest.approx(3, rel=0.02)


def test_the_mean_is_that_of_light():
    blurred, _ = shot(point(), motion(right=20))
    in_light, _ = shot(point(), motion(right=20), film=Film(gamma=2.2))
    assert torch.allclose(in_light**2.2, blurred, atol=0.01)
    assert float(in_light.max()) > 3 * float(blurred.max())


def test_lamps_become_trails():
    plain, bright = (
        float(shot(point(), motion(right=20), film=Film(excess=excess))[0].max())
        for excess in (0, 30)
    )
    assert plain < 0.4
    assert bright == 1
    sharp = shot(point(), motion(right=20), film=Film(excess=30))[1]
    assert torch.equal(sharp, shot(point(), motion(right=20), film=Film())[1])


def test_white_walls_are_no_lamps():
    wall = np.full((128, 128, 3), 255, np.uint8)
    assert float(Film(excess=30).light(wall)[..., 0].max()) == 1


@pytest.mark.parametrize(("share", "moves"), [(0.0, motion(20)), (1.0, motion())])
def test_without_motion_or_time_nothing_is_blurred(share, moves):
    blurred, sharp = shot(texture(), moves, share=share)
    assert torch.equal(blurred, sharp)
    assert (
        sharp[0] * 255 - torch.from_numpy(texture()[32:96, 32:96]).permute(2, 0, 1)
    ).abs().max() < 1


def test_frames_follow_the_motion():
    _, sharp = shot(texture(), motion(right=3), times=(-1.0, 0.0, 1.0), share=0.0)
    assert torch.allclose(sharp[0, :, :, :-3], sharp[1, :, :, 3:], atol=0.01)
    assert torch.allclose(sharp[1, :, :, :-3], sharp[2, :, :, 3:], atol=0.01)


def test_a_rolling_shutter_shears_what_moves():
    upright = np.zeros((128, 128, 3), np.uint8)
    upright[:, 62:66] = 255
    _, sharp = shot(upright, motion(right=20), readout=0.5, share=0.0)
    columns = torch.arange(SIDE) * sharp[0, 0]
    middles = columns.sum(1) / sharp[0, 0].sum(1)
    assert abs(float(middles[-1] - middles[0])) == pytest.approx(10, abs=0.5)
    _, still = shot(upright, motion(), readout=0.5, share=0.0)
    assert torch.equal(still[0, 0, 0], still[0, 0, -1])


def test_what_moves_in_front_moves_alone():
    scene = Layer(light=PLAIN.light(texture()), centre=MIDDLE, motion=motion())
    opacity = np.zeros((128, 128))
    opacity[54:74, 54:74] = 1
    front = PLAIN.light(np.full((128, 128, 3), 128, np.uint8), opacity)
    square = Layer(light=front, centre=MIDDLE, motion=motion(right=8))
    blurred, sharp = exposed([scene, square], [0.0], Shutter(share=1.0), PLAIN, SIDE)
    assert torch.allclose(sharp[0, :, 23:41, 23:41], torch.tensor(128 / 255), atol=1e-3)
    assert torch.allclose(blurred[0, :, :, :16], sharp[0, :, :, :16], atol=1e-5)
    assert not torch.allclose(blurred[0, :, 22:42, 18:27], sharp[0, :, 22:42, 18:27], atol=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_motions_have_the_length_that_is_wanted_or_turn_too_far(seed):
    random = np.random.default_rng(seed)
    times, share, side = (-2.0, -1.0, 0.0, 1.0, 2.0), random.uniform(0.2, 1), 256
    drawn = scaled(draw_motion(random, side), 12.0, times, share, side)
    lengths = [drawn.length(t - share / 2, t + share / 2, 0.4 * side) for t in times]
    places = np.abs(drawn.at(np.linspace(-2 - share / 2, 2 + share / 2, 24)))
    assert places[:, 2].max() <= MOST_ROLL + 1e-9
    assert places[:, 3].max() <= MOST_ZOOM + 1e-9
    assert np.mean(lengths) <= 12 + 1e-6
    assert max(lengths) <= 12 * FASTEST + 1e-6
    is_bound = max(places[:, 2].max() / MOST_ROLL, places[:, 3].max() / MOST_ZOOM) > 1 - 1e-6
    is_uneven = max(lengths) > 12 * FASTEST - 1e-6
    assert is_bound or is_uneven or np.mean(lengths) == pytest.approx(12)


def test_clips_are_interpolated_by_their_own_motion():
    wide = cv2.resize(texture(3, 128), (256, 256), interpolation=cv2.INTER_CUBIC)
    frames = np.stack([wide[40:200, 40 + 6 * i : 200 + 6 * i] for i in range(3)])
    lights, moments = between_frames(frames, np.array([0.0, 1.0, 2.0]), PLAIN, [(0.0, 1.0)])
    assert len(lights) == len(moments) and (np.diff(moments) > 0).all()
    assert 4 <= (moments < 1).sum() <= 6
    assert ((moments > 1) & (moments < 2)).sum() == 0
    index = int(np.abs(moments - 0.5).argmin())
    way = round(6 * moments[index])
    seen = wide[40:200, 40 + way : 200 + way] / 255
    inside = np.s_[20:140, 20:140]
    error = np.abs(lights[index][..., :3] - seen)[inside].mean()
    assert error < 0.25 * np.abs(lights[0][..., :3] - seen)[inside].mean()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A photograph, and a clip of a camera that pans over it."""
    folder = tmp_path_factory.mktemp("footage")
    (folder / "photos").mkdir()
    (folder / "clips").mkdir()
    picture = texture(1, 480)
    cv2.imwrite(str(folder / "photos" / "1.png"), picture)
    with av.open(str(folder / "clips" / "pan.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 200, 160, "yuv420p"
        for index in range(40):
            part = np.ascontiguousarray(picture[:160, 5 * index : 5 * index + 200])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        container.mux(stream.encode(None))
    return folder


@pytest.fixture(scope="module")
def footage(folder):
    return load_footage(folder, frames=RUN_FRAMES, every=RUN_EVERY, rows=RUN_ROWS)


@pytest.fixture(scope="module")
def windows(footage):
    drawn = BlurWindows(footage, frames=5, crop=SIDE, seed=1)
    return [drawn[index] for index in range(150)]


def test_an_index_always_gives_the_same_pair(footage, windows):
    again = BlurWindows(footage, frames=5, crop=SIDE, seed=1)
    for index in range(4):
        pairs = [
            blurred_pair(each, frames=5, device="cpu") for each in (again[index], windows[index])
        ]
        for first, second in zip(*pairs, strict=True):
            assert torch.equal(first, second)
            assert first.isfinite().all() and float(first.min()) >= 0 and float(first.max()) <= 1
    other = BlurWindows(footage, frames=5, crop=SIDE, seed=2)[0]
    assert not torch.equal(other.blurred[0], windows[0].blurred[0])


def test_windows_are_blurred_sharp_alone_and_at_ends(windows):
    alone = [each for each in windows if len(each.blurred) == 1]
    assert len(alone) / 150 == pytest.approx(ALONE_SHARE, abs=0.1)
    sharp = [
        torch.equal(each.blurred[i], each.sharp[i])
        for each in windows
        for i in [each.order[each.middle]]
    ]
    assert 0.5 * SHARP_SHARE < np.mean(sharp) < 2.5 * SHARP_SHARE
    assert LATE_SHARP_SHARE > SHARP_SHARE
    assert any(1 < len(each.order) < 5 for each in windows)
    assert any(len(set(each.order)) < len(each.order) for each in windows)
    assert any(each.text is not None for each in windows)


def test_most_windows_are_hard_to_see_through(windows):
    """A network that is trained on pairs that are hardly blurred leaves pictures as they are."""
    errors = [float((each.blurred - each.sharp).square().mean()) for each in windows]
    assert np.mean([error > 10**-3.2 for error in errors]) > 0.5


def test_most_views_show_something(footage):
    flat = np.full((256, 512, 3), 90, np.uint8)
    flat[:, 384:] = texture(side=256)[:, :128]
    windows = BlurWindows(Footage(photos=[flat], clips=[]), frames=5, crop=SIDE, seed=4)
    blank = [windows[index].sharp.std() < 0.02 for index in range(60)]
    # of places without a choice more than half show nothing
    assert sum(blank) < 20


def test_some_scenes_are_out_of_focus_and_stay_so():
    photos = Footage(photos=[texture(side=256)], clips=[])
    windows = BlurWindows(photos, frames=5, crop=SIDE, seed=6)
    found = [windows[index].sharp[0] for index in range(60)]
    steps = np.array([float((each[:, 1:] - each[:, :-1]).abs().mean()) for each in found])
    assert 0.3 * DEFOCUS_SHARE < np.mean(steps < np.median(steps) / 3) < 2 * DEFOCUS_SHARE


def test_pairs_hold_the_middle_frame_between_its_neighbours(windows):
    for window in windows[:12]:
        seen, sharp = blurred_pair(window, frames=5, device="cpu", aligns=False)
        assert seen.shape == (15, SIDE, SIDE) and sharp.shape == (3, SIDE, SIDE)
        if len(window.order) == 1:
            assert not seen[:6].any() and not seen[9:].any()
    batch = blurred_batch(windows[:2], frames=5, device="cpu")
    assert [list(each.shape) for each in batch] == [[2, 15, SIDE, SIDE], [2, 3, SIDE, SIDE]]


@pytest.mark.slow
def test_a_run_trains_and_goes_on(folder, tmp_path):
    given = {
        "data": str(folder), "output": str(tmp_path), "width": 8, "encoder_blocks": (1,) * 4,
        "group_blocks": (1,) * 4, "frames": 5, "crop": 64, "final_crop": 64, "device": "cpu",
        "align": True, "task": "deblur",
    }  # fmt: skip
    network = load_model(train(TrainConfig(minutes=0.02, **given)))
    assert (network.task, network.config.pictures) == ("deblur", 5)
    train(TrainConfig(minutes=0.04, **given))
    with pytest.raises(ConfigError, match="other settings"):
        train(TrainConfig(minutes=0.05, **{**given, "task": "derain"}))
