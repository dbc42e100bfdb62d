"""Windows behind wet glass: what a network that takes out drops is trained on."""

import av
import cv2
import numpy as np
import pytest
import torch

from mhnet_video.config import TrainConfig
from mhnet_video.errors import ConfigError
from mhnet_video.model.network import NetworkConfig
from mhnet_video.model.weights import load_model
from mhnet_video.model.window import DIFFERENCE_GAIN, between, glass_statistics
from mhnet_video.pipelines.train import train
from mhnet_video.training import windscreen
from mhnet_video.training.drops import Pane
from mhnet_video.training.footage import Footage, load_footage
from mhnet_video.training.net2net import grow
from mhnet_video.training.windscreen import (
    FURTHEST,
    RUN_EVERY,
    RUN_FRAMES,
    RUN_ROWS,
    GlassWindow,
    GlassWindows,
    glass_batch,
    glass_pair,
)

CROP = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A photograph, and a clip of a camera that pans over it."""
    folder = tmp_path_factory.mktemp("footage")
    (folder / "photos").mkdir()
    (folder / "clips").mkdir()
    random = np.random.default_rng(0)
    coarse = random.uniform(0, 255, (20, 40, 3)).astype(np.float32)
    texture = cv2.resize(coarse, (640, 320), interpolation=cv2.INTER_CUBIC)
    texture = (texture + random.normal(0, 8, texture.shape)).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / "photos" / "1.png"), texture)
    with av.open(str(folder / "clips" / "pan.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 200, 160, "yuv420p"
        for index in range(50):
            picture = np.ascontiguousarray(texture[:160, 5 * index : 5 * index + 200])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return folder


@pytest.fixture(scope="module")
def footage(folder):
    return load_footage(folder, frames=RUN_FRAMES, every=RUN_EVERY, rows=RUN_ROWS)


@pytest.fixture(scope="module")
def samples(footage):
    windows = GlassWindows(footage, frames=5, crop=CROP, seed=1)
    return [windows[index] for index in range(80)]


def behind_glass(samples):
    return [each for each in samples if isinstance(each, GlassWindow)]


def pair(sample):
    return glass_pair(sample, frames=5, device="cpu")


def test_large_clips_are_shrunk(folder):
    runs = load_footage(folder, frames=RUN_FRAMES, rows=80).clips[0]
    assert runs[0].shape == (RUN_FRAMES + 2, 80, 100, 3)
    assert load_footage(folder, frames=3, rows=200).clips[0][0].shape == (5, 160, 200, 3)


def test_an_index_always_gives_the_same_pair(footage):
    for index in range(8):
        first, second = (
            pair(GlassWindows(footage, frames=5, crop=CROP, seed=3)[index]) for _ in range(2)
        )
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        assert first[0].shape == (21, CROP, CROP) and first[1].shape == (3, CROP, CROP)
        assert first[0].isfinite().all() and float(first[1].min()) >= 0
    other = GlassWindows(footage, frames=5, crop=CROP, seed=4)[0]
    mine = GlassWindows(footage, frames=5, crop=CROP, seed=3)[0]
    assert not torch.equal(pair(other)[1], pair(mine)[1])


def test_batches_hold_the_pairs(footage):
    windows = GlassWindows(footage, frames=5, crop=CROP, seed=3)
    seen, clean = glass_batch([windows[0], windows[1]], frames=5, device="cpu")
    assert torch.equal(seen[1], pair(windows[1])[0]) and torch.equal(clean[0], pair(windows[0])[1])


def test_windows_are_wet_dry_alone_and_without_glass(samples):
    glass = behind_glass(samples)
    assert 10 < len(samples) - len(glass) < 40
    alone = [each for each in glass if len(each.order) == 1]
    assert 5 < len(alone) < 30
    dry = [each for each in glass if not each.panes]
    assert 5 < len(dry) < 30
    assert any(each.fixtures for each in glass) and any(each.rains for each in glass)
    distances = {
        int(np.diff(np.sort(each.times[:5])).min()) for each in glass if each.times.size > 1
    }
    assert min(distances) == 1 and 5 < max(distances) <= FURTHEST
    assert {each.times.size for each in glass} > {1, 5} and max(
        each.times.size for each in glass
    ) > 10
    lasts = [each.times[:5].max() == 0 for each in glass if len(each.order) > 1]
    assert 0.05 < np.mean(lasts) < 0.5


def test_the_frame_to_restore_stands_at_time_zero(samples):
    for sample in behind_glass(samples):
        assert sample.times[sample.order[len(sample.order) // 2]] == 0
        assert len(sample.clean) == len(sample.times) == len(sample.view)


def test_dry_glass_leaves_the_frame_as_it_is(samples):
    dry = [each for each in behind_glass(samples) if not each.panes and not each.rains]
    assert dry
    for sample in dry:
        seen, clean = pair(sample)
        assert torch.equal(seen[9:12], clean)


def test_wet_glass_changes_it(samples):
    wet = [each for each in behind_glass(samples) if each.panes][:20]
    changes = [float((pair(each)[0][9:12] - pair(each)[1]).abs().mean()) for each in wet]
    assert np.mean(np.array(changes) > 2e-3) > 0.8


def test_sharp_drops_are_drawn_before_scenes_out_of_focus_at_rest(footage, monkeypatch):
    for name, value in (("FOCUSED_SHARE", 1.0), ("REST_SHARE", 1.0), ("STREAK_SHARE", 0.0)):
        monkeypatch.setattr(windscreen, name, value)
    photos = Footage(photos=footage.photos, clips=[])
    windows = GlassWindows(photos, frames=5, crop=CROP, seed=3)
    drawn = [windows[index] for index in range(70)]
    wet = [each for each in drawn if each.panes]
    assert len(wet) > 20
    least = windscreen.FOCUSED_SOFTNESS[0]
    assert all(
        each.softness > 0.7 * least and each.panes[0].defocus <= windscreen.LARGEST for each in wet
    )
    # what else moves is a piece that passes before the scene
    several = [each for each in wet if len(each.order) > 1]
    at_rest = [(each.clean == each.clean[:1]).all(0).float().mean() > 0.3 for each in several]
    assert len(several) > 8 and all(at_rest)


def test_a_single_picture_stands_between_black_ones(samples):
    alone = [each for each in behind_glass(samples) if len(each.order) == 1]
    for sample in alone[:4]:
        seen, _ = pair(sample)
        assert [bool(each.any()) for each in seen.split(3)] == [False] * 3 + [True] + [False] * 3
    windows = [each for each in samples if not isinstance(each, GlassWindow) and len(each) == 1]
    kinds = {tuple(bool(each.any()) for each in pair(w)[0].split(3)) for w in windows}
    assert (False,) * 3 + (True,) + (False,) * 3 in kinds or len(kinds) == 1


def test_what_stands_still_is_seen_in_the_pictures_of_the_glass(samples):
    """A blot on the glass is in the mean as it is, and black in the mean difference."""
    sample = next(
        each
        for each in behind_glass(samples)
        if len(each.order) > 1 and not each.rains and each.times.size > 8
    )
    sample = sample._replace(panes=(Pane(dirt=0),), fixtures=(), softness=0.0)
    clean = sample.clean.clone()
    clean[:, :, 20:40, 20:40] = 0.5
    seen, target = pair(sample._replace(clean=clean))
    mean, difference = seen[:3], seen[-3:]
    blot = (slice(None), slice(26, 34), slice(26, 34))
    assert float((mean[blot] - target[blot]).abs().mean()) < 0.03
    assert float(difference[blot].mean()) < 0.1 < float(difference.mean())


def test_fixtures_stay_in_the_clean_picture(samples):
    for sample in [each for each in behind_glass(samples) if each.fixtures][:6]:
        sample = sample._replace(panes=(), rains=False)
        with_fixtures, without = pair(sample)[1], pair(sample._replace(fixtures=()))[1]
        assert not torch.equal(with_fixtures, without)


def test_some_stickers_are_dark_and_some_have_letters(footage):
    windows = GlassWindows(footage, frames=5, crop=256)
    dark, lettered = 0, 0
    for seed in range(120):
        sticker = windows._sticker(np.random.default_rng(seed))
        inside = sticker.picture[:, sticker.opacity[0] > 0.99]
        if not inside.numel():
            continue
        median = inside.median(1, keepdim=True)[0]
        away = (inside - median).abs().amax(0)
        if (away < 0.05).float().mean() > 0.4:  # plain, but for what is written on it
            dark += float(median.max()) < 0.22
            lettered += float((away > 0.25).float().mean()) > 0.02
    assert dark > 3 and lettered > 3


@pytest.mark.parametrize("draw", [GlassWindows._slats, GlassWindows._bar])
def test_reflected_edges_and_bars_are_drawn_again(footage, draw):
    windows = GlassWindows(footage, frames=5, crop=CROP)
    covers = []
    for seed in range(8):
        first, again = (draw(windows, np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(first.picture, again.picture)
        assert torch.equal(first.opacity, again.opacity)
        for layer in (first.picture, first.opacity):
            assert float(layer.min()) >= 0 and float(layer.max()) <= 1
        covers.append(first.opacity)
    # something is seen in most of them, and nothing fills the picture
    assert sum(float(cover.max()) > 0.05 for cover in covers) > 6
    assert all(float(cover.min()) < 0.02 for cover in covers)
    assert len({float(cover.sum()) for cover in covers}) == len(covers)


def test_statistics_are_a_mean_and_a_mean_difference():
    frames = torch.rand(6, 3, 8, 8)
    mean, difference = glass_statistics(frames, frames[2])
    torch.testing.assert_close(mean, frames.mean(0))
    expected = DIFFERENCE_GAIN * torch.stack([(f - frames[2]).abs() for f in frames]).mean(0)
    torch.testing.assert_close(difference, expected)
    stacked = between(torch.stack([mean, difference]), frames[:5])
    assert torch.equal(stacked[0], mean) and torch.equal(stacked[6], difference)
    assert torch.equal(stacked[1:6], frames[:5])


def test_a_network_grows_eyes_for_the_glass_without_forgetting():
    network = load_model("realtime")
    sizes = network.config.to_dict()
    grown = grow(network, NetworkConfig(**{**sizes, "glass": True, "frames": 5})).eval()
    x = torch.rand(1, 21, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            grown.residual(x), network.residual(x[:, 6:15]), atol=1e-5, rtol=0
        )
    with torch.no_grad():
        for layer in (grown.intro2, grown.stage1.intro):
            layer.weight.normal_(std=0.1)
    larger = grow(grown, NetworkConfig(**{**sizes, "glass": True, "frames": 7})).eval()
    x = torch.rand(1, 27, 32, 32)
    old = torch.cat([x[:, :3], x[:, 6:21], x[:, 24:]], 1)
    with torch.inference_mode():
        torch.testing.assert_close(larger.residual(x), grown.residual(old), atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="cannot begin"):
        grow(grown, NetworkConfig(**{**sizes, "frames": 5}))


@pytest.mark.slow
def test_a_run_trains_and_goes_on(folder, tmp_path):
    given = {
        "data": str(folder), "output": str(tmp_path), "width": 8, "encoder_blocks": (1,) * 4,
        "group_blocks": (1,) * 4, "frames": 3, "crop": 64, "final_crop": 64, "device": "cpu",
        "align": True, "task": "raindrop",
    }  # fmt: skip
    weights = train(TrainConfig(minutes=0.02, **given))
    network = load_model(weights)
    assert network.config.glass and network.config.pictures == 5
    train(TrainConfig(minutes=0.04, **given))
    with pytest.raises(ConfigError, match="other settings"):
        train(TrainConfig(minutes=0.05, **{**given, "task": "derain"}))
    with pytest.raises(ConfigError, match="task must be one of"):
        TrainConfig(**{**given, "task": "snow"})
