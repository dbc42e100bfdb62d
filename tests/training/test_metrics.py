import math

import numpy as np
import pytest

from mhnet_video.training.metrics import Scores, flicker, luma, mean_scores, psnr, score, ssim


def noisy_pair(height, width):
    generator = np.random.default_rng(0)
    clean = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise = generator.normal(0, 20, clean.shape)
    return np.clip(clean + noise, 0, 255).astype(np.uint8), clean


@pytest.mark.parametrize(
    ("color", "y"),
    [
        pytest.param((0, 0, 0), 16, id="black"),
        pytest.param((255, 255, 255), 235, id="white"),
        pytest.param((255, 0, 0), 81, id="red"),
        pytest.param((0, 255, 0), 145, id="green"),
        pytest.param((0, 0, 255), 41, id="blue"),
    ],
)
def test_luma_is_matlabs(color, y):
    picture = np.full((2, 3, 3), color, dtype=np.uint8)
    np.testing.assert_array_equal(luma(picture), np.full((2, 3), y))


def test_psnr_of_a_known_error():
    clean = np.full((4, 5), 100, dtype=np.uint8)
    assert psnr(clean + 5, clean) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(clean, clean + 5) == pytest.approx(20 * math.log10(255 / 5))  # no uint8 wrap
    assert psnr(clean, clean) == math.inf


def test_equal_pictures_do_not_make_a_mean_infinite():
    one, other = noisy_pair(16, 16)
    scores = [score(one, other), score(one, one), score(one, other)]
    mean = mean_scores(scores)
    assert (mean.psnr_y, mean.psnr_rgb) == pytest.approx((scores[0].psnr_y, scores[0].psnr_rgb))
    assert mean.ssim_y == pytest.approx((2 * scores[0].ssim_y + 1) / 3)
    assert mean_scores(scores[1:2]).psnr_y == math.inf


def test_ssim_is_the_definition_window_by_window():
    picture, clean = (each[:, :, 0] for each in noisy_pair(14, 17))
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(14 - 10):
        for left in range(17 - 10):
            x = picture[top : top + 11, left : left + 11].astype(float)
            y = clean[top : top + 11, left : left + 11].astype(float)
            mean_x, mean_y = np.sum(window * x), np.sum(window * y)
            variance_x = np.sum(window * (x - mean_x) ** 2)
            variance_y = np.sum(window * (y - mean_y) ** 2)
            covariance = np.sum(window * (x - mean_x) * (y - mean_y))
            values.append(
                (2 * mean_x * mean_y + 6.5025)
                * (2 * covariance + 58.5225)
                / ((mean_x**2 + mean_y**2 + 6.5025) * (variance_x + variance_y + 58.5225))
            )
    assert ssim(picture, clean) == pytest.approx(np.mean(values), abs=1e-9)


def test_ssim_of_channels_is_their_mean():
    picture, clean = noisy_pair(16, 16)
    channels = [ssim(picture[:, :, c], clean[:, :, c]) for c in range(3)]
    assert ssim(picture, clean) == pytest.approx(np.mean(channels))
    assert ssim(clean, clean) == pytest.approx(1)


def test_score_measures_y_and_rgb():
    picture, clean = noisy_pair(20, 24)
    scores = score(picture, clean)
    assert scores.psnr_y == psnr(luma(picture), luma(clean))
    assert scores.ssim_y == ssim(luma(picture), luma(clean))
    assert scores.psnr_rgb == psnr(picture, clean)
    assert scores.ssim_rgb == ssim(picture, clean)


def test_mean_scores_is_over_the_pictures():
    low = Scores(psnr_y=20, ssim_y=0.5, psnr_rgb=18, ssim_rgb=0.25)
    high = Scores(psnr_y=40, ssim_y=1, psnr_rgb=38, ssim_rgb=0.75)
    assert mean_scores([low, high]) == Scores(psnr_y=30, ssim_y=0.75, psnr_rgb=28, ssim_rgb=0.5)


def test_pictures_that_do_not_compare_are_refused():
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="one size"):
        psnr(picture, picture[:8])
    with pytest.raises(ValueError, match="uint8"):
        psnr(picture.astype(np.float32), picture)
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(picture[:10], picture[:10])
    with pytest.raises(ValueError, match=r"got \[16, 16\]"):
        luma(picture[:, :, 0])


def test_flicker_is_what_changes_and_is_not_motion():
    clean = np.random.default_rng(0).integers(20, 200, (30, 40), dtype=np.uint8)
    moved = np.roll(clean, 3, axis=1)
    assert flicker(clean, clean, moved, moved) == 0
    # a veil that stays does not flicker, one that comes does; neither wraps at 8 bits
    assert flicker(clean + 30, clean, moved + 30, moved) == 0
    assert flicker(clean, clean, moved + 30, moved) == 30
    assert flicker(clean + 30, clean, moved, moved) == 30
    assert flicker(clean, clean, moved - 10, moved) == 10
    streak = clean.copy()
    streak[:, 7] += 50
    assert flicker(clean, clean, streak, clean) == pytest.approx(50 / 40)


def test_the_mean_flicker_is_of_those_that_have_one():
    first, *others = (
        Scores(psnr_y=30, ssim_y=1, psnr_rgb=30, ssim_rgb=1, flicker=f) for f in (None, 1.0, 2.0)
    )
    assert mean_scores([first, *others]).flicker == 1.5
    assert mean_scores([first]).flicker is None
