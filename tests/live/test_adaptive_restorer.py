"""The best working scale for a live picture, which no level exceeds."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
from scenery import scenery
from test_dry_look import COUNT, FIRST, FULL, SECOND, DarkensLight, clip
from waiting import wait_until

from mhnet_video.config import LiveConfig
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.live import adaptive_restorer
from mhnet_video.live.adaptive_restorer import AdaptiveRestorer
from mhnet_video.restoration.restorer import Restorer


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


def live(source, monkeypatch):
    """Pairs of a source's frames, the network's work on each, and the time it took."""
    network = DarkensLight()
    monkeypatch.setattr(
        adaptive_restorer, "Restorer", lambda *_, **__: Restorer(network, engine="torch")
    )
    restorer = AdaptiveRestorer(LiveConfig(model="realtime", device="cpu", scale=1.0))
    restorer.measure(source[0], 25)
    assert {FIRST, SECOND} <= set(network.seen)  # they are ready, too
    found = []
    for index, frame in enumerate(source):
        begin, network.seen = max(0, index - 1), []
        around = source[begin : index + 2]
        after = restorer.restore(around, index - begin, fps=25, strength=1)
        found.append((frame, after, network.seen))
    restorer.close()
    return found


def test_dry_frames_pass_bit_for_bit_and_take_looks_only(monkeypatch):
    for before, after, work in live(clip({}, "yuv420p"), monkeypatch):
        assert all(map(np.array_equal, before.planes, after.planes))
        assert work == [FIRST, SECOND]


def test_a_shower_is_restored_from_its_first_frame_on_as_in_a_file(monkeypatch):
    wet = {13: (200, 301), 14: (200, 301), 20: (412, 639)}
    source = clip(wet)
    found = live(source, monkeypatch)
    in_file = list(Restorer(DarkensLight(), device="cpu", engine="torch").stream(source))
    for index, ((before, after, work), expected) in enumerate(zip(found, in_file, strict=True)):
        assert np.array_equal(after.planes[0], expected.planes[0])
        assert np.array_equal(after.planes[0], before.planes[0]) is (index not in wet)
        # up to the next fourth frame there is no look
        assert (FULL in work) is (index in {13, 14, 15, 20, 21, 22, 23})
    assert sum(FIRST in work for *_, work in found) == COUNT - 5
