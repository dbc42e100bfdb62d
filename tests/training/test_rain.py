"""Synthetic rain: what it must look like, and that a seed tells all of it."""

import math

import numpy as np
import pytest
import torch

from mhnet_video.training.rain import (
    BLENDS,
    Storm,
    StreakLayer,
    blur,
    camera,
    coded_motion,
    compress,
    draw_storm,
    fall,
    rain_on,
    render_streaks,
)


def storm(blend="brighten", patches=0.0, fan=0.0, share=1.0, **changes):
    layer = {
        "density": 1e-3, "length": 20.0, "sigma": 0.7, "taper": 0.05, "angle": 0.0,
        "opacity": 0.8, "spread": 0.0,
    }  # fmt: skip
    return Storm(
        layers=(StreakLayer(**{**layer, **changes}),),
        gust=0.0,
        light=(0.9, 0.9, 0.9),
        blend=blend,
        patches=patches,
        fan=fan,
        share=share,
    )


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


@pytest.mark.parametrize("blend", BLENDS)
def test_rain_brightens_dark_scenes(blend):
    rain = storm(blend, density=5e-3)
    rainy = fall(torch.full((1, 3, 128, 160), 0.2), render(rain), rain)
    assert rainy.min() >= 0.2 - 1e-6 and rainy.max() > 0.6 and rainy.max() <= 1


def test_before_a_bright_sky_each_blend_does_its_own():
    rain = storm(density=5e-3)
    cover, sky = render(rain), torch.full((1, 3, 128, 160), 0.95)
    assert torch.equal(fall(sky, cover, rain), sky)
    paint = fall(sky, cover, storm("paint"), light=torch.tensor([0.6, 0.6, 0.6]))
    assert paint.min() < 0.75 and paint.max() <= 0.95
    assert fall(sky, cover, storm("add")).max() == 1


def test_rain_is_patchy_where_it_is_to_be():
    even, patchy = (render(storm(density=2e-2, patches=p), 1, height=256) for p in (0.0, 1.0))
    assert patchy.sum() < 0.75 * even.sum()
    places = [blur(cover, 12.0) for cover in (even, patchy)]
    assert places[1].std() / places[1].mean() > 1.5 * places[0].std() / places[0].mean()


def direction(cover):
    """Radians of the streaks from straight down, by the gradients' structure tensor."""
    dy, dx = torch.gradient(blur(cover[None, None], 1.0)[0, 0])
    return 0.5 * float(torch.atan2(-2 * (dx * dy).sum(), (dx * dx - dy * dy).sum()))


def test_streaks_fan_out():
    """The angles at the two edges differ by the fan, and the middle keeps the layer's."""
    fan = math.radians(40)
    cover = render(storm(density=2e-3, length=30.0, fan=fan), 4, height=256, width=320)[0, 0]
    left, middle, right = (direction(cover[64:192, x : x + 40]) for x in (0, 140, 280))
    assert abs(middle) < math.radians(5)
    # the outer eighths' centres lie at 7/8 of the way to the edges
    assert right - left == pytest.approx(fan * 7 / 8, abs=math.radians(8))


def test_rain_is_seen_in_a_part_where_it_is_to_be():
    shares = torch.linspace(0.2, 0.8, 4)
    for share in shares:
        wet = []
        for seed in range(8):
            whole, part = (render(storm(density=2e-2, share=s), seed) for s in (1.0, float(share)))
            assert bool((part <= whole + 1e-6).all())
            wet.append(float(part.sum() / whole.sum()))
        assert sum(wet) / 8 == pytest.approx(float(share), abs=0.1)
    sides = [render(storm(density=2e-2, share=0.5), seed)[0, 0] for seed in range(8)]
    thirds = [[float(x.mean()) for x in side.split(54, dim=1)] for side in sides]
    assert sum(min(third) < 0.3 * max(third) for third in thirds) >= 3


def test_sharp_edges_make_bars():
    """As wide at half of the peak, and narrower at its foot."""
    soft, bar = (
        render(storm(density=2e-4, sigma=2.5, length=40.0, taper=0.02, edge=e), 3)
        for e in (1.0, 3.0)
    )
    foot = [(cover > 0.02).sum() / (cover > 0.4).sum() for cover in (soft, bar)]
    assert foot[1] < 0.7 * foot[0]


def test_storms_are_varied():
    storms = [draw_storm(torch.Generator().manual_seed(seed)) for seed in range(300)]
    layers = [layer for drawn in storms for layer in drawn.layers]
    widths = torch.tensor([layer.sigma for layer in layers])
    lengths = torch.tensor([layer.length for layer in layers])
    angles = torch.tensor([math.degrees(layer.angle) for layer in layers]).abs()
    assert widths.median() < 1 and widths.max() > 2.2
    assert lengths.quantile(0.1) < 8 and lengths.max() > 70
    assert angles.median() < 25 and angles.max() > 50
    assert {drawn.blend for drawn in storms} == set(BLENDS)
    assert 0.2 < sum(drawn.patches > 0 for drawn in storms) / 300 < 0.6
    assert 0.2 < sum(drawn.fan != 0 for drawn in storms) / 300 < 0.5
    assert 0.2 < sum(drawn.share < 1 for drawn in storms) / 300 < 0.4
    assert all(0 <= float(render(drawn).max()) < 1 for drawn in storms[:10])


def scene(height=64, width=96):
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([0.2 + 0.5 * x, 0.3 + 0.3 * y, 0.6 - 0.4 * x * y])[None].repeat(3, 1, 1, 1)


def test_the_amount_of_rain_is_mostly_moderate_and_at_times_heavy():
    clean, decibels = scene(), []
    for seed in range(150):
        rainy = rain_on(clean, torch.Generator().manual_seed(seed))
        assert rainy.shape == clean.shape and rainy.min() >= 0 and rainy.max() <= 1
        decibels.append(float(-10 * torch.log10((rainy - clean).square().mean() + 1e-9)))
    decibels = torch.tensor(decibels)
    assert 24 < decibels.median() < 30
    assert decibels.quantile(0.1) < 24 and decibels.quantile(0.9) > 29
    again = rain_on(clean, torch.Generator().manual_seed(149))
    assert torch.equal(again, rainy)


def test_a_camera_treats_all_clips_alike():
    clean, changed = scene(), 0
    for seed in range(40):
        first, second = camera([clean, clean], torch.Generator().manual_seed(seed))
        assert torch.equal(first, second)
        assert first.min() >= 0 and first.max() <= 1
        changed += not torch.equal(first, clean)
    assert 20 < changed < 40


def test_blur_spreads_a_point_by_its_sigma():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    blurred = blur(point, 2.0)[0, 0]
    offsets = torch.arange(41.0) - 20
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float((blurred.sum(0) * offsets.square()).sum()) == pytest.approx(4, rel=0.1)
    assert torch.allclose(blur(torch.full((2, 3, 9, 9), 0.7), 1.5), torch.tensor(0.7))


@pytest.mark.parametrize("flat", [False, True])
def test_compression_loses_more_at_lower_qualities(flat):
    clean = (scene() + 0.05 * torch.randn(3, 3, 64, 96, generator=torch.Generator())).clamp(0, 1)
    errors = [
        float((compress(clean, quality, flat=flat, shift=(3, 5)) - clean).square().mean())
        for quality in (95, 70, 30)
    ]
    assert 1e-5 < errors[0] < errors[1] < errors[2] < 4e-3


def test_equal_steps_keep_fine_detail_that_a_jpeg_loses():
    fine = 0.5 + 0.06 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2 - 1.0)
    fine = fine.expand(1, 3, 64, 64)
    kept = [float(compress(fine, 60, flat=flat).std() / fine.std()) for flat in (True, False)]
    assert kept[0] > 0.85 and kept[1] < 0.75


def test_compression_is_that_of_a_jpeg():
    """The error is near libjpeg's own, in size and in place."""
    import cv2

    random = np.random.default_rng(0)
    noise = cv2.GaussianBlur(random.integers(0, 256, (96, 96)).astype(np.float32), (0, 0), 1.2)
    grey = cv2.normalize(noise, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])
    theirs = cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32) / 255
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    ours = compress(x, 60, flat=False)[0].permute(1, 2, 0).numpy()
    lost = float(np.square(theirs - picture / 255.0).mean())
    assert float(np.square(theirs - ours).mean()) < 0.05 * lost


def noisy_clip(speed):
    """Four frames of a scene that moves to the left, `speed` pixels a frame, with noise."""
    generator = torch.Generator().manual_seed(3)
    wide = blur(torch.rand(1, 3, 128, 192, generator=generator), 2.5)
    wide = (wide - wide.mean()) / wide.std() * 0.15 + 0.5
    frames = [wide[0, :, :, speed * index : speed * index + 128] for index in range(4)]
    noise = torch.randn(4, 3, 128, 128, generator=generator)
    return torch.stack(frames), (torch.stack(frames) + 0.01 * noise).clamp(0, 1)


def test_video_codecs_keep_what_hardly_differs_from_the_frame_before():
    _, noisy = noisy_clip(0)
    motion = coded_motion(noisy)
    assert motion.shape[:2] == (3, 2) and not motion.any()
    alone = compress(noisy, 60, flat=True).diff(dim=0).abs().mean()
    coded = compress(noisy, 60, flat=True, motion=motion)
    assert float(coded.diff(dim=0).abs().mean()) < 0.1 * float(alone)
    # a faint change is not coded at all, a bright streak is, and gone in the next frame
    seen = []
    for brightness in (0.02, 0.5):
        rainy = noisy.clone()
        rainy[1, :, 40:60, 64] += brightness
        change = compress(rainy, 60, flat=True, motion=motion) - coded
        seen.append(change[:, :, 40:60, 64].mean((1, 2)))
    assert not seen[0].any()
    assert float(seen[1][1]) > 0.3 and float(seen[1][2:].abs().max()) < 0.1


def test_video_codecs_follow_motion():
    scene, noisy = noisy_clip(6)
    motion = coded_motion(noisy)
    inner = motion[..., 4:-4, 4:-4]
    assert (inner[:, 0] - 6).abs().max() <= 0.25 and inner[:, 1].abs().max() <= 0.25
    assert torch.equal(4 * motion, (4 * motion).round())
    errors = [
        float((compress(noisy, 40, flat=True, motion=each) - scene)[2:].square().mean())
        for each in (motion, 0 * motion)
    ]
    assert errors[0] < 0.8 * errors[1]
