"""Scenes of shallow focus."""

import numpy as np
import pytest
import torch

from mhnet_video.training import shallow_focus as scenes
from mhnet_video.training.shallow_focus import shallow_focus


@pytest.fixture
def striped():
    """Stripes one pixel wide, the same in three frames."""
    stripes = (torch.arange(96) % 2).float().mul(0.6).add(0.1)
    return stripes.expand(3, 3, 96, 96).clone()


def test_a_part_stays_sharp_and_the_rest_is_blurred(striped):
    seen = [shallow_focus(striped, np.random.default_rng(seed)) for seed in range(12)]
    contrast = torch.stack([each[0, 0, :, 1:] - each[0, 0, :, :-1] for each in seen]).abs()
    sharp, soft = (contrast > 0.5).float().mean((1, 2)), (contrast < 0.1).float().mean((1, 2))
    assert 0.1 < float(sharp.mean()) < 0.9 and 0.1 < float(soft.mean()) < 0.9
    assert all(float(each.min()) >= 0 and float(each.max()) <= 1 for each in seen)


def test_lights_are_discs_of_one_brightness(monkeypatch):
    monkeypatch.setattr(scenes, "LEAST_DISC", 0.07)
    dark = torch.zeros(1, 3, 96, 96)
    covered = [
        float((shallow_focus(dark, np.random.default_rng(seed)) > 0.3).any(1).float().sum())
        for seed in range(8)
    ]
    one = np.pi * (0.07 * 96) ** 2
    assert max(covered) > one and sum(covered) > 4 * one
    monkeypatch.setattr(scenes, "MOST_LIGHTS", 0)
    assert not shallow_focus(dark, np.random.default_rng(0)).any()


def test_frames_at_rest_stay_at_rest(striped):
    seen = shallow_focus(striped, np.random.default_rng(4))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
