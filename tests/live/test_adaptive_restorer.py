"""The best working scale for a live picture, which no level exceeds."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
from scenery import scenery
from waiting import wait_until

from mhnet_video.config import LiveConfig
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.live import adaptive_restorer
from mhnet_video.live.adaptive_restorer import AdaptiveRestorer


def frames(enlarge, seed=0):
    """A scene that moves, a second of it."""
    luma = scenery(enlarge, seed=seed).round().byte().numpy()
    first = Frame((luma,), PixelLayout("gray", "gray", 8), 0, Fraction(1, 25))
    return [replace(first, pts=i, planes=(np.roll(luma, 2 * i, 1),)) for i in range(25)]


def test_no_level_is_finer_than_the_picture_is_sharp(standin, monkeypatch):
    """From the first frame on, from each cut on, and where a camera finds its focus."""
    soft, sharp, focused = frames(4), frames(1, seed=1), frames(1, seed=0)

    def restore(scene):
        for frame in scene:
            restorer.restore([frame], 0, fps=25, strength=1)
        return restorer._pacer.governor.level.scale

    restorer = AdaptiveRestorer(LiveConfig())
    restorer.measure(soft[0], 25)
    assert restorer.level.scale == 0.5 == restore(soft)
    assert restore(sharp) == 1
    wait_until(lambda: restore(sharp[-1:]) == restorer.level.scale == standin.scale == 1)
    assert restore(soft) == 0.5
    monkeypatch.setattr(adaptive_restorer, "_LOOK_SECONDS", 0.0)
    assert restore(focused[-1:]) == 1
    restorer.close()


def test_the_scale_that_is_set_is_used_whatever_the_picture(standin):
    restorer = AdaptiveRestorer(LiveConfig(scale=0.9))
    restorer.measure(frames(4)[0], 25)
    for frame in frames(4):
        restorer.restore([frame], 0, fps=25, strength=1)
    assert restorer.level.scale == 0.9
    restorer.close()
