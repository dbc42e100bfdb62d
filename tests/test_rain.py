"""Synthetic rain: what it must look like, and that a seed tells all of it."""

import math

import pytest
import torch

from mhnet_video.rain import Storm, StreakLayer, draw_storm, fall, render_streaks


def storm(**changes):
    layer = {
        "density": 1e-3, "length": 20.0, "sigma": 0.7, "taper": 0.05, "angle": 0.0,
        "opacity": 0.8, "spread": 0.0,
    }  # fmt: skip
    return Storm(layers=(StreakLayer(**{**layer, **changes}),), gust=0.0, light=(0.9, 0.9, 0.9))


def render(rain, seed=0, frames=1, height=128, width=160):
    generator = torch.Generator().manual_seed(seed)
    return render_streaks(rain, generator, frames=frames, height=height, width=width)


def test_a_seed_gives_the_same_rain():
    assert draw_storm(torch.Generator().manual_seed(5)) == draw_storm(
        torch.Generator().manual_seed(5)
    )
    assert draw_storm(torch.Generator().manual_seed(5)) != draw_storm(
        torch.Generator().manual_seed(6)
    )
    assert torch.equal(render(storm(), 1), render(storm(), 1))
    assert not torch.equal(render(storm(), 1), render(storm(), 2))


def test_drops_are_new_in_every_frame():
    cover = render(storm(), frames=3)[:, 0]
    pairs = torch.corrcoef(cover.flatten(1))
    assert pairs[0, 1] < 0.1 and pairs[1, 2] < 0.1
    means = cover.mean((1, 2))
    assert means.min() > 0.5 * means.max()  # of one storm all the same


@pytest.mark.parametrize("length", [8.0, 20.0, 40.0])
@pytest.mark.parametrize("angle", [0.0, 30.0, -45.0])
def test_streaks_have_their_length_width_and_direction(length, angle):
    """Second moments of a single streak."""
    rain = storm(length=length, sigma=1.0, angle=math.radians(angle), density=1 / (128 * 160))
    for seed in range(20):
        cover = render(rain, seed)[0, 0]
        if 0.9 * length * 2.5 < cover.sum() / 0.8 < 1.1 * length * 2.55:  # exactly one drop
            break
    peak = cover.flatten().argmax()
    centred = torch.roll(cover, (64 - int(peak) // 160, 80 - int(peak) % 160), (0, 1))
    for _ in range(3):
        y, x = torch.meshgrid(torch.arange(128.0), torch.arange(160.0), indexing="ij")
        mass = centred.sum()
        middle = (centred * y).sum() / mass, (centred * x).sum() / mass
        centred = torch.roll(
            centred, (64 - round(float(middle[0])), 80 - round(float(middle[1]))), (0, 1)
        )
    y, x = y - 64, x - 80
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    along = ((x * sine + y * cosine) ** 2 * centred).sum() / mass
    across = ((x * cosine - y * sine) ** 2 * centred).sum() / mass
    assert float(along.sqrt()) == pytest.approx(length / math.sqrt(12), rel=0.25)
    assert float(across.sqrt()) == pytest.approx(1.0, abs=0.45)


def test_density_is_the_number_of_drops():
    for density in (1e-4, 1e-3):
        rain = storm(density=density, length=5.0, sigma=0.5)
        one = 0.8 * 5.0 * 0.5 * math.sqrt(2 * math.pi)
        total = float(render(rain, frames=20).sum()) / 20
        assert total == pytest.approx(density * 128 * 160 * one, rel=0.35)


def test_rain_brightens_dark_scenes_and_is_lost_in_the_sky():
    cover = render(storm(density=5e-3))
    dark, sky = torch.full((1, 3, 128, 160), 0.2), torch.full((1, 3, 128, 160), 0.95)
    rainy = fall(dark, cover, (0.9, 0.9, 0.9))
    assert rainy.min() >= 0.2 - 1e-6 and rainy.max() > 0.6 and rainy.max() <= 0.9
    assert torch.equal(fall(sky, cover, (0.9, 0.9, 0.9)), sky)


def test_storms_are_varied_and_mostly_thin():
    storms = [draw_storm(torch.Generator().manual_seed(seed)) for seed in range(300)]
    layers = [layer for drawn in storms for layer in drawn.layers]
    widths = torch.tensor([layer.sigma for layer in layers])
    lengths = torch.tensor([layer.length for layer in layers])
    angles = torch.tensor([math.degrees(layer.angle) for layer in layers]).abs()
    assert widths.median() < 0.9 and widths.max() > 2.2
    assert lengths.quantile(0.1) < 6 and lengths.max() > 70
    assert angles.median() < 12 and angles.max() > 35
    assert all(0 <= float(render(drawn).max()) < 1 for drawn in storms[:10])
