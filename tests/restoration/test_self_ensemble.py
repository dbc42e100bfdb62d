"""The residual on which several transforms of a picture agree."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from mhnet_video.restoration import self_ensemble
from mhnet_video.restoration.self_ensemble import (
    COARSE_TRANSFORMS,
    NOISE,
    TRANSFORMS,
    ensemble_residual,
)


def size_of(picture, scale, multiple):
    """Height and width of a resized picture."""
    return tuple(round(side * scale / multiple) * multiple for side in picture.shape[-2:])


def answers(picture, multiple, residual_of, transforms):
    """The residuals of all transforms of a picture, `[3, H, W]` each, as the picture stands."""
    for way, scale in transforms:
        size = size_of(picture, scale, multiple)
        seen = interpolate(picture.flip(way)[None], size, mode="bicubic", antialias=scale < 1)[0]
        answer = residual_of(seen)
        yield interpolate(answer[None], picture.shape[1:], mode="bicubic")[0].flip(way)


def wanted_of(sides):
    """The reference implementation: the mean, attenuated by the variance around each pixel."""
    sides = torch.stack(list(sides)).double().numpy()
    mean = sides.mean(0)
    share = np.empty(mean.shape[1:])
    for y, x in np.ndindex(share.shape):
        around = slice(max(0, y - 7), y + 8), slice(max(0, x - 7), x + 8)
        power = (mean[:, *around] ** 2).sum()
        noise = ((sides[:, :, *around] - mean[:, *around]) ** 2).mean(0).sum()
        share[y, x] = power / (power + noise * NOISE) if power else 0
    return torch.from_numpy(mean * share).float()


@pytest.mark.parametrize("transforms", [TRANSFORMS, COARSE_TRANSFORMS])
def test_it_equals_the_reference_implementation(transforms):
    """Each transform of the picture is undone on its residual."""
    weights = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    picture = torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(1))
    shapes = []

    def residual_of(seen):
        return torch.nn.functional.conv2d(seen[None], weights, padding=1)[0].sin()

    def of_window(window):
        assert window[0] is window[2] is None and window[1].is_contiguous()
        shapes.append(window[1].shape[1:])
        return residual_of(window[1])

    found = ensemble_residual([None, picture, None], of_window, 16, transforms=transforms)
    assert shapes == [size_of(picture, scale, 16) for _, scale in transforms]
    assert len(set(shapes)) > 1
    sides = list(answers(picture, 16, residual_of, transforms))
    torch.testing.assert_close(found, wanted_of(sides), rtol=1e-4, atol=1e-5)


def noted(given, seen):
    """A picture for its own residual, once it is in a list."""
    given.append(seen[0])
    return seen[0]


def test_large_pictures_are_not_enlarged(monkeypatch):
    monkeypatch.setattr(self_ensemble, "MOST_PIXELS", 32 * 64)
    for rows, is_enlarged in ((32, True), (33, False)):
        given = []
        ensemble_residual([torch.rand(3, rows, 64)], partial(noted, given))
        assert len({seen.shape for seen in given}) == (3 if is_enlarged else 1)
        assert len(given) == (len(TRANSFORMS) if is_enlarged else 4)
        given = []
        ensemble_residual(
            [torch.rand(3, rows, 64)], partial(noted, given), transforms=COARSE_TRANSFORMS
        )
        assert len({seen.shape for seen in given}) == 3


def test_small_pictures_stay_at_least_one_multiple():
    given = []
    picture = torch.rand(3, 16, 48)
    ensemble_residual([picture], partial(noted, given), 16, transforms=COARSE_TRANSFORMS)
    assert {tuple(seen.shape[1:]) for seen in given} == {(16, 48), (16, 32)}


def test_what_all_agree_on_is_taken_out_whole_and_nothing_is_nothing():
    answer = torch.full((3, 5, 40), -0.25)
    found = ensemble_residual([answer], lambda seen: seen[0].clone())
    torch.testing.assert_close(found, answer, rtol=1e-5, atol=0)
    assert not ensemble_residual([answer], lambda seen: torch.zeros_like(seen[0])).any()


def test_what_only_one_transform_shows_hardly_counts():
    """With n transforms an n-th of it in the mean; of that, by m = 1 / n^2, v = 1 / n - m, less."""
    streak = torch.zeros(3, 40, 40)
    streak[:, 10:30, 20] = -0.4
    seen = []

    def residual_of(window):
        seen.append(window)
        return streak if len(seen) == 1 else torch.zeros_like(window[0])

    found = ensemble_residual([torch.rand(3, 40, 40)], residual_of)
    count = len(TRANSFORMS)
    share = 1 / (1 + NOISE * (count - 1))
    torch.testing.assert_close(found, streak / count * share, rtol=1e-4, atol=1e-7)


def test_what_is_not_finite_stays_so():
    answer = torch.zeros(3, 8, 8)
    answer[0, 2, 2] = torch.inf
    assert not ensemble_residual([answer], lambda seen: seen[0].clone()).isfinite().all()
