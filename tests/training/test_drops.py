"""Drawn drops on the glass: what they must look like, and that a seed tells all of them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mhnet_video.training.drops import FOREVER, KINDS, Drop, Pane, draw_pane, pane_on

HEIGHT, WIDTH = 96, 128
PLACE = (0.0, 0.0, 1 / WIDTH)
STEEP = 22  # an outline whose surface is steep, which hardly any other is as much
ONE = Pane(drops=(Drop(64, 48, 20, STEEP),), rim=0, sky=0, ground=0, bend=0.7)


def scene(frames=1):
    """Bright above and dark below, with a gradient from left to right."""
    y, x = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 1, WIDTH), indexing="ij")
    return torch.stack([0.9 - 0.8 * y, 0.2 + 0.6 * x, 0.9 - 0.8 * y]).expand(frames, 3, -1, -1)


def put(pane, clean=None, times=None, view=None):
    clean = scene() if clean is None else clean
    view = torch.nn.functional.avg_pool2d(clean, 2) if view is None else view
    times = np.arange(len(clean)) if times is None else times
    return pane_on(clean, pane, times=times, view=view, place=PLACE)


def drawn(seed, kind=None, times=(-10, 10)):
    random = np.random.default_rng(seed)
    return draw_pane(random, height=HEIGHT, width=WIDTH, times=times, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_pane(kind):
    assert drawn(5, kind) == drawn(5, kind) != drawn(6, kind)
    clean = torch.rand(3, 3, HEIGHT, WIDTH)
    for first, second in zip(put(drawn(5, kind), clean), put(drawn(5, kind), clean), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("seed", range(12))
def test_a_pane_is_a_picture_and_changes_nothing_beside_the_water(seed):
    clean = torch.rand(4, 3, HEIGHT, WIDTH)
    pane = replace(drawn(seed), film=0, smear=0)
    wet, cover = put(pane, clean, times=np.array([-9, 0, 3, 10]))
    assert wet.shape == clean.shape and cover.shape == (4, 1, HEIGHT, WIDTH)
    assert wet.isfinite().all() and float(wet.min()) >= 0 and float(wet.max()) <= 1
    assert float(cover.min()) >= 0 and float(cover.max()) <= 1
    outside = (cover == 0).expand_as(wet)
    assert torch.equal(wet[outside], clean[outside])


def test_dry_glass_changes_nothing():
    wet, cover = put(Pane())
    assert torch.equal(wet, scene()) and not cover.any()


def test_a_drop_shows_the_scene_upside_down_and_mirrored():
    wet, cover = put(ONE)
    assert float(cover[0, 0, 48, 64]) == 1 and float(cover[0, 0, 5, 5]) == 0
    red, green = wet[0, 0], wet[0, 1]
    assert red[34:38, 60:68].mean() < 0.2 < 0.8 < red[58:62, 60:68].mean()
    assert green[44:52, 50:56].mean() > green[44:52, 74:80].mean() + 0.3


def test_the_sky_is_above_and_the_road_below_the_frame():
    bright, dark = put(replace(ONE, sky=0.5)), put(replace(ONE, ground=0.8))
    plain = put(ONE)
    assert (bright[0] >= plain[0]).all() and (dark[0] <= plain[0]).all()
    # what is below the frame is seen at a drop's upper side, and the sky at its lower one
    assert (plain[0] - dark[0])[..., :48, :].max() > 0.05
    assert (plain[0] - dark[0])[..., 56:, :].max() < 1e-6
    assert (bright[0] - plain[0])[..., :40, :].max() < 1e-6
    assert (bright[0] - plain[0])[..., 48:, :].max() > 0.05


def test_a_flat_drop_shows_the_scene_in_its_middle_and_not_at_its_edge():
    flat = replace(ONE, hollow=1.0)
    wet, cover = put(flat)
    full, _ = put(ONE)
    change, most = ((each - scene()).abs()[0, :, 48] for each in (wet, full))
    assert change[:, 62:67].max() < 0.1 * most[:, 50:80].max()
    assert change[:, 40:90].max() > 0.8 * most[:, 40:90].max()
    assert float(cover[0, 0, 48, 64]) < 0.1 < 0.8 < float(cover.max())


def test_out_of_focus_drops_are_wide_and_soft():
    shares = []
    for defocus in (0.3, 3, 9):
        _, cover = put(replace(ONE, defocus=defocus))
        shares.append(float((cover > 0.02).float().mean()))
        assert float(cover[0, 0, 48, 64]) > 0.95
        assert math.isclose(float(cover.mean()), float(put(ONE)[1].mean()), rel_tol=0.2)
    assert shares[0] < shares[1] < shares[2]
    _, small = put(replace(ONE, drops=(Drop(64, 48, 3, STEEP),), defocus=9))
    assert 0.01 < float(small.max()) < 0.3


def test_small_drops_stay_small():
    for radius in (1, 3, 8, 20):
        _, cover = put(replace(ONE, drops=(Drop(64, 48, radius, STEEP),), defocus=0.3))
        found = math.sqrt(float(cover.sum()) / math.pi)
        assert abs(found - radius) < 0.25 * radius + 0.4


def test_static_drops_stand_still_while_the_scene_moves():
    clean = torch.rand(3, 3, HEIGHT, WIDTH)
    wet, cover = put(ONE, clean)
    assert torch.equal(cover[0], cover[1]) and torch.equal(cover[1], cover[2])
    assert not torch.equal(wet[0], wet[1])


def test_drops_slide_arrive_and_are_wiped_away():
    clean = scene(3)
    times = np.array([-5.0, 0.0, 5.0])

    def rows(**changes):
        drop = ONE.drops[0]._replace(radius=8, **changes)
        _, cover = put(replace(ONE, drops=(drop,)), clean, times)
        y = torch.arange(HEIGHT).float()
        return [float((c[0].sum(1) * y).sum() / c.sum()) if c.any() else None for c in cover]

    still, sliding = rows(), rows(speed=2)
    assert still[0] == still[1] == still[2]
    assert sliding[1] - sliding[0] == pytest.approx(10, abs=1) == sliding[2] - sliding[1]
    assert [each is None for each in rows(begin=2)] == [True, True, False]
    assert [each is None for each in rows(end=2)] == [False, False, True]
    assert Drop(0, 0, 5, 0).is_static and not Drop(0, 0, 5, 0, end=FOREVER / 2).is_static


def test_drops_that_touch_run_together():
    two = (Drop(54, 48, 12, 0), Drop(72, 48, 12, 0))
    apart, merged = (put(replace(ONE, drops=two, merges=m, defocus=0.3))[0] for m in (False, True))
    assert not torch.equal(apart, merged)


def test_lamps_and_highlights_shine():
    clean = 0.1 + torch.zeros(1, 3, HEIGHT, WIDTH)
    clean[..., 66:74, 60:68] = 1
    plain, _ = put(ONE, clean)
    lit, _ = put(replace(ONE, lamps=5, defocus=6), clean)
    assert lit.sum() > put(replace(ONE, defocus=6), clean)[0].sum() + 1
    glinting, _ = put(replace(ONE, glint=1), clean)
    spot = (glinting - plain)[0, 0]
    assert spot.max() > 0.5 and 3e-4 < (spot > 0.3).float().mean() < 0.05


@pytest.mark.parametrize("what", ["film", "smear", "fog", "dirt"])
def test_a_film_smears_fog_and_dirt_are_seen_in_places(what):
    clean = torch.nn.functional.avg_pool2d(torch.rand(3, 3, HEIGHT, WIDTH), 5, 1, 2)
    amount = 3.0 if what in ("film", "smear") else 0.6
    changes = [
        float((put(Pane(seed=seed, **{what: amount}), clean)[0] - clean).abs().mean())
        for seed in range(6)
    ]
    assert 1e-4 < max(changes) < 0.2
    running = Pane(film=3, film_speed=4, seed=1)
    wet, _ = put(running, clean[:1].expand(3, -1, -1, -1))
    assert not torch.equal(wet[0], wet[1])


def test_panes_tremble_by_little():
    _, cover = put(replace(ONE, tremble=0.5, seed=3), scene(4))
    assert not torch.equal(cover[0], cover[1])
    assert float((cover[0] - cover[1]).abs().mean()) < 0.02


def test_panes_differ_as_real_ones_do():
    panes = [drawn(seed) for seed in range(200)]
    covers = [float(put(pane, scene(), times=np.zeros(1))[1].mean()) for pane in panes[:60]]
    assert 0.04 < np.median(covers) < 0.3 and max(covers) > 0.25
    radii = np.array([drop.radius for pane in panes for drop in pane.drops])
    assert radii.min() < 1 and radii.max() > 30
    defocus = np.array([pane.defocus for pane in panes])
    assert defocus.min() < 0.4 and defocus.max() > 10
    moving = [any(not drop.is_static for drop in pane.drops) for pane in panes]
    assert 0.3 < np.mean(moving) < 0.8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same():
    clean = torch.rand(3, 3, HEIGHT, WIDTH)
    for seed in range(8):
        pane = drawn(seed)
        on_cpu, _ = put(pane, clean, np.array([-4, 0, 9]))
        on_gpu, _ = put(pane, clean.cuda(), np.array([-4, 0, 9]))
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=2e-3)
