"""Nights that are drawn: lamps, and rain that only they light."""

import numpy as np
import pytest
import torch

from mhnet_video.training.dataset import CleanWindows, Footage, rainy_pair
from mhnet_video.training.night import nightfall
from mhnet_video.training.rain import Storm, StreakLayer, fall, rain_by_night
from mhnet_video.training.windscreen import GlassWindow, GlassWindows

PHOTO = np.full((160, 160, 3), 200, np.uint8)


def _scene(frames: int = 2) -> torch.Tensor:
    """Frames of an even grey day."""
    return torch.full((frames, 3, 96, 128), 0.5)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_seed_draws_the_same_night_again() -> None:
    first, second = (nightfall(_scene(), _generator(3)) for _ in range(2))
    assert torch.equal(first.clean, second.clean)
    assert torch.equal(first.light, second.light)
    assert not torch.equal(first.clean, nightfall(_scene(), _generator(4)).clean)


def test_nights_are_darker_than_the_day_but_for_their_lamps() -> None:
    medians, brightest = [], []
    for seed in range(30):
        clean = nightfall(_scene(1), _generator(seed)).clean
        assert clean.min() >= 0
        assert clean.max() <= 1
        medians.append(float(clean.median()))
        brightest.append(float(clean.max()))
    assert np.median(medians) < 0.3
    assert np.mean([x > 0.9 for x in brightest]) > 0.4  # the other lamps are out of the picture


def test_rain_is_seen_where_lamps_light_it() -> None:
    """What the rain adds falls off with the light, and has its colour."""
    scene = torch.full((4, 3, 96, 128), 0.05)
    light = torch.zeros(1, 3, 96, 128)
    light[:, 0, :, :40], light[:, 1, :, :40] = 1.0, 0.5
    added = rain_by_night(scene, light, _generator(1)) - scene
    assert added[..., 40:].abs().max() == 0
    lit = added[..., :40].clamp(min=0).mean((0, 2, 3))
    assert lit[0] > 1e-4
    assert float(lit[1] / lit[0]) == pytest.approx(0.5, abs=0.02)
    assert lit[2] == 0


def test_light_at_each_pixel_takes_the_storms_place() -> None:
    storm = Storm(
        layers=(StreakLayer(density=0, length=1, sigma=1, taper=0, angle=0, opacity=1, spread=0),),
        gust=0,
        light=(1, 1, 1),
        blend="add",
    )
    light = torch.rand(1, 3, 6, 8, generator=_generator(2))
    rainy = fall(torch.zeros(2, 3, 6, 8), torch.full((2, 1, 6, 8), 0.5), storm, light)
    torch.testing.assert_close(rainy, (light / 2).expand_as(rainy))


def test_most_nights_are_as_wet_as_wanted() -> None:
    decibels = []
    for seed in range(24):
        generator = _generator(seed)
        night = nightfall(_scene(1), generator)
        rainy = rain_by_night(night.clean, night.light, generator)
        error = float((rainy - night.clean).square().mean())
        decibels.append(-10 * np.log10(max(error, 1e-9)))
    assert np.median(decibels) == pytest.approx(34, abs=3)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_windows_of_all_tasks_have_nights(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhnet_video.training.dataset.NIGHT_SHARE", share)
    windows = CleanWindows(Footage(photos=[PHOTO], clips=[]), frames=1, crop=64, seed=1)
    samples = [windows[i] for i in range(8)]
    assert all(window.is_night == bool(share) for sample in samples for window in sample)
    level = np.median([float(rainy_pair(s, frames=1, device="cpu")[1].mean()) for s in samples])
    assert (level < 0.45) == bool(share)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_windows_behind_glass_have_nights_of_their_own(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mhnet_video.training.dataset.NIGHT_SHARE", 1 - share)
    monkeypatch.setattr("mhnet_video.training.windscreen.NIGHT_SHARE", share)
    monkeypatch.setattr("mhnet_video.training.windscreen.STREAK_SHARE", 1.0)
    windows = GlassWindows(Footage(photos=[PHOTO], clips=[]), frames=1, crop=64, seed=1)
    for index in range(8):
        sample = windows[index]
        assert not isinstance(sample, GlassWindow)
        assert all(window.is_night == bool(share) for window in sample)
