"""Frames in which a cheap look shows nothing to take out pass; the first streak is found."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from scenery import scenery

from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.restoration.dry_look import LOOK_PERIOD
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.training.rain import rain_on

LAYOUTS = {
    "gray": PixelLayout("gray", "gray", 8),
    "gray10": PixelLayout("gray10", "gray", 10),
    "yuv420p": PixelLayout("yuv420p", "yuv", 8, 1, 1),
}
COUNT = 24
FULL, FIRST, SECOND = (480, 640), (128, 160), (240, 320)
"""Sizes of what the network sees: the frames, and the two looks."""


class DarkensLight(MHNet):
    """A network that takes out what is nearly white, and notes the sizes of what it sees."""

    def __init__(self, frames=3):
        super().__init__(NetworkConfig(width=8, encoder_blocks=(0,) * 4, frames=frames))
        self.seen = []

    def residual(self, x):
        self.seen.append(tuple(x.shape[2:]))
        middle = x[:, 3:6] if x.shape[1] > 3 else x
        return -0.4 * (middle > 0.9)


def clip(streaks, layout="gray", size=FULL, count=COUNT):
    """Frames that differ; a streak of one pixel, sixty-eight long, in some of them."""
    random = np.random.default_rng(0)
    layout = LAYOUTS[layout]
    unit = 1 << (layout.bits - 8)
    frames = []
    for index in range(count):
        luma = random.integers(60, 120, size).astype(np.uint8 if unit == 1 else np.uint16) * unit
        if index in streaks:
            row, column = streaks[index]
            luma[row:, column][:68] = 250 * unit
        planes = [luma.astype(luma.dtype)]
        if layout.kind == "yuv":
            planes += [np.full([-(-side // 2) for side in size], 128, np.uint8)] * 2
        frames.append(Frame(tuple(planes), layout, index, Fraction(1, 25), full_range=True))
    return frames


def changed(restorer, frames):
    """Numbers of the frames that are restored to something else."""
    found = list(restorer.stream(frames))
    pairs = zip(frames, found, strict=True)
    return [
        index
        for index, (before, after) in enumerate(pairs)
        if not all(map(np.array_equal, before.planes, after.planes))
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", [(200, 301), (412, 639), (0, 0)])
def test_a_shower_is_found_in_the_frame_in_which_it_begins(layout, place):
    network = DarkensLight()
    restorer = Restorer(network, device="cpu", engine="torch")
    wet = {13: place, 14: place, 20: place}
    assert changed(restorer, clip(wet, layout)) == sorted(wet)
    # from 13 and 20 on up to the next fourth frame they are not looked at, whether it rains or not
    assert network.seen.count(FULL) == 3 + 4
    assert network.seen.count(FIRST) == COUNT - 5
    assert network.seen.count(SECOND) == COUNT - 7
    assert restorer.dry == COUNT - 7


def test_the_last_rows_and_columns_are_looked_at_too():
    """Where the sides are no multiples of the look's."""
    size = 483, 643
    restorer = Restorer(DarkensLight(), device="cpu", engine="torch")
    assert changed(restorer, clip({13: (415, 642)}, size=size)) == [13]
    sideways = [replace(frame, rotation=90) for frame in clip({13: (415, 642)}, size=size)]
    assert changed(Restorer(DarkensLight(), device="cpu", engine="torch"), sideways) == [13]


def test_dry_frames_are_the_same_bit_for_bit_and_nothing_of_them_is_computed():
    network = DarkensLight()
    restorer = Restorer(network, device="cpu", engine="torch")
    frames = clip({})
    found = list(restorer.stream(frames))
    assert all(a.planes is b.planes for a, b in zip(frames, found, strict=True))
    assert [frame.pts for frame in found] == list(range(COUNT))
    assert set(network.seen) == {FIRST, SECOND} and restorer.dry == COUNT
    list(restorer.stream(clip({}, count=4)))
    assert restorer.dry == 4  # of one clip, not of all


def test_frames_are_looked_at_by_their_number():
    """So that a part of a clip that begins at a multiple of the period has the looks of it all."""
    wet = {13: (200, 301), 14: (200, 301), 15: (200, 301), 16: (200, 301), 19: (200, 301)}
    restored = []
    for begin in (0, LOOK_PERIOD):
        network = DarkensLight()
        restorer = Restorer(network, device="cpu", engine="torch")
        found = changed(restorer, clip(wet)[begin:])
        assert [begin + index for index in found] == sorted(wet)
        # 13 to 15 and 16 to 19: the first is looked at, and what follows it up to the next fourth
        restored.append(network.seen.count(FULL))
        assert network.seen.count(FIRST) == COUNT - begin - 5
    assert restored == [7, 7]


def test_a_copy_is_looked_at_with_the_frame_that_it_repeats():
    frames = clip({}, count=12)
    frames[6] = replace(frames[5], pts=6)
    network = DarkensLight()
    restorer = Restorer(network, device="cpu", engine="torch")
    assert changed(restorer, frames) == []
    assert (len(network.seen), restorer.dry, restorer.repeated) == (22, 11, 1)


def test_pictures_that_are_pushed_pass_as_those_of_a_file_do():
    network = DarkensLight()
    restorer = Restorer(network, device="cpu", engine="torch")
    pictures = [f.planes[0][..., None].repeat(3, 2) for f in clip({13: (200, 301)})]
    found = [each for picture in pictures for each in restorer.push(picture)] + restorer.flush()
    pairs = enumerate(zip(pictures, found, strict=True))
    assert [i for i, (a, b) in pairs if not np.array_equal(a, b)] == [13]
    assert restorer.dry == COUNT - 3


def test_single_frames_pass_where_that_is_wanted():
    network = DarkensLight()
    restorer = Restorer(network, device="cpu", engine="torch")
    wet, dry = clip({1: (200, 301)}, count=3), clip({}, count=3)
    assert restorer.restore_frame(dry, 1).planes is not dry[1].planes
    assert (network.seen, restorer.dry) == ([FULL], 0)
    assert restorer.restore_frame(wet, 1, is_live=True).planes[0].max() < 250
    # in rain it waits for a fourth frame, unless another clip begins
    restorer.restore_frame(dry, 1, is_live=True)
    assert restorer.dry == 0
    restorer.forget()
    assert restorer.restore_frame(dry, 1, is_live=True).planes is dry[1].planes
    assert restorer.dry == 1
    restorer.restore_frame(dry, 1, is_live=True)
    assert (restorer.dry, restorer.repeated) == (1, 1)


def test_what_has_no_neighbours_or_few_rows_is_restored():
    for frames in (clip({}, count=1), clip({}, size=(224, 320))):
        restorer = Restorer(DarkensLight(), device="cpu", engine="torch")
        list(restorer.stream(frames))
        assert restorer.dry == 0
    restorer = Restorer(DarkensLight(1), device="cpu", engine="torch")
    list(restorer.stream(clip({})))
    assert restorer.dry == 0


def test_where_memory_is_short_frames_are_restored(monkeypatch):
    """A look never asks for tiles, and full work can do with small ones."""
    network = DarkensLight()
    restorer = Restorer(network, device="cpu", engine="torch")
    engine = restorer.engine.engine
    plain = engine.residual

    def residual(frames):
        if frames[1].shape[1:] == FIRST:
            raise torch.OutOfMemoryError("no room")
        return plain(frames)

    monkeypatch.setattr(engine, "residual", residual)
    assert changed(restorer, clip({13: (200, 301)})) == [13]
    assert restorer.dry == 0 and network.seen.count(FULL) == COUNT
    monkeypatch.setattr(engine, "residual", plain)
    most = engine.max_pixels
    monkeypatch.setattr(engine, "max_pixels", 128 * 160 - 1)
    list(restorer.stream(clip({}, count=2)))
    assert restorer.dry == 0 and most > engine.max_pixels


@pytest.mark.slow
def test_no_frame_passes_that_would_be_better_restored():
    """Light and strong rain before a scene, with the network that is shipped."""
    luma = scenery(size=(384, 512))
    clean = torch.stack([luma.roll(2 * step, 1) for step in range(3)])[:, None].repeat(1, 3, 1, 1)
    clean = clean / 255
    looked, full = (Restorer("realtime", device="cpu") for _ in range(2))
    full._new_look = lambda: None

    def mean_square(pictures, wanted):
        return float(np.square(np.subtract(pictures, wanted, dtype=np.float64)).mean())

    def levels(frames):
        return list((frames * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy())

    dry = levels(clean)
    for seed in range(6):
        rain = rain_on(clean, torch.Generator().manual_seed(seed)) - clean
        share = min(1.0, 10 ** (-(36 + 2 * seed) / 20) / float(rain.square().mean().sqrt()))
        wet = levels((clean + share * rain).clamp(0, 1))
        passed, restored = list(looked.restore(wet)), list(full.restore(wet))
        for index, picture in enumerate(dry):
            before, after = (
                mean_square(passed[index], picture),
                mean_square(restored[index], picture),
            )
            assert before <= max(after, 1e-3) * 10**0.01
