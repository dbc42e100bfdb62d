"""The working scale: how sharp a picture is, and one choice for each scene."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from scenery import SIZE, scenery

from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.restoration.frame_chain import first_scene_scale
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.working_scale import (
    ScaleChooser,
    ScaleReason,
    sharpness,
    soft_scale,
)

CPU = torch.device("cpu")


def frame(luma, index=0, bits=8):
    kind = np.uint8 if bits == 8 else np.uint16
    plane = (luma.round().numpy() * (1 << (bits - 8))).astype(kind)
    return Frame((plane,), PixelLayout("gray", "gray", bits), pts=index, time_base=Fraction(1, 25))


def streaks(size=SIZE, count=400):
    """Lines of one pixel, of 30 levels."""
    random = np.random.default_rng(1)
    drawn = torch.zeros(size)
    for row, column in random.integers(0, (size[0] - 40, size[1]), (count, 2)):
        drawn[row : row + 40, column] += 30
    return drawn


@pytest.mark.parametrize(
    ("enlarge", "scale"), [(1, 1), (1.3, 1), (2, 1), (2.5, 0.75), (3.5, 0.5), (4, 0.5)]
)
def test_soft_pictures_have_a_smaller_scale_and_sharp_ones_have_not(enlarge, scale):
    for seed in range(3):
        assert soft_scale(sharpness(scenery(enlarge, seed=seed))) == scale


def test_what_is_fine_keeps_the_scale():
    """Noise of a camera, thin streaks before a soft scene, and what says nothing."""
    soft = scenery(4)
    noise = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    assert soft_scale(sharpness(soft)) == soft_scale(sharpness(soft + noise)) == 0.5
    assert soft_scale(sharpness(soft + streaks())) == 1
    for picture in (torch.zeros(SIZE), torch.full(SIZE, 200.0), 16 + noise):
        assert soft_scale(sharpness(picture)) == 1


def test_a_scene_has_one_scale():
    """Whatever becomes of its sharpness; the next one has its own."""
    chooser = ScaleChooser(CPU)
    sharp, soft = frame(scenery()), frame(scenery(4))

    def scales(*frames):
        return [
            chooser.choose([each], None, is_cut=is_cut and index == 0).scale
            for index, each in enumerate(frames)
        ]

    is_cut = False
    assert scales(soft, sharp, soft) == [0.5] * 3
    is_cut = True
    assert scales(sharp, soft, sharp) == [1] * 3
    assert scales(soft, sharp) == [0.5] * 2
    small = frame(scenery(size=(480, 640)))
    assert chooser.choose([small], None, is_cut=False).scale == 1  # another size, another scene


def test_a_part_of_a_clip_has_the_scale_of_its_scene():
    """Unless it is much sharper, as another scene is; after a cut it is measured anew."""
    soft, middle, sharp = frame(scenery(4)), frame(scenery(2.5)), frame(scenery())

    def scale(picture, scene_scale, *, is_cut=False):
        chooser = ScaleChooser(CPU, scene_scale=scene_scale)
        return chooser.choose([picture], None, is_cut=is_cut).scale

    assert [scale(middle, each) for each in (None, 0.5, 0.75, 1.0)] == [0.75, 0.5, 0.75, 1]
    assert [scale(soft, each) for each in (None, 0.75, 1.0)] == [0.5, 0.75, 1]
    assert [scale(sharp, each) for each in (None, 0.5, 0.75)] == [1, 1, 1]
    assert scale(soft, 1.0, is_cut=True) == 0.5
    chooser = ScaleChooser(CPU, scene_scale=1.0)
    scales = [chooser.choose([soft], None, is_cut=cut).scale for cut in (False, False, True)]
    assert scales == [1, 1, 0.5]


def test_the_first_scene_of_a_clip_is_measured_on_its_first_frames():
    soft, sharp = scenery(4), scenery()
    taken = []

    def clip(*pictures):
        taken.clear()
        for index, picture in enumerate(pictures):
            taken.append(index)
            yield frame((picture + index).clamp(0, 255), index)

    assert first_scene_scale(clip(*[soft] * 30), CPU) == 0.5
    assert len(taken) == 13
    assert first_scene_scale(clip(*[soft] * 4 + [sharp] * 9), CPU) == 0.5  # a cut
    assert first_scene_scale(clip(sharp), CPU) == 1
    assert first_scene_scale(clip(), CPU) == 1


def test_the_sharpest_of_the_frames_that_are_known_counts():
    sharp, soft = frame(scenery()), frame(scenery(4))
    for frames in ([soft, sharp], [soft] * 6 + [sharp] * 6):
        assert ScaleChooser(CPU).choose(frames, None, is_cut=False).scale == 1
    assert ScaleChooser(CPU).choose([soft] * 12, None, is_cut=False).scale == 0.5


def test_a_scene_near_a_limit_keeps_the_scale_of_the_one_before():
    limits = [0.309, 0.317, 0.344, 0.352]
    assert [soft_scale(each) for each in limits] == [0.5, 0.75, 0.75, 1]
    assert [soft_scale(each, 1.0) for each in limits] == [0.75, 0.75, 1, 1]
    assert [soft_scale(each, 0.75) for each in limits] == [0.75] * 4
    assert [soft_scale(each, 0.5) for each in limits] == [0.5, 0.5, 0.75, 0.75]
    assert soft_scale(0.2, 1.0) == 0.5 and soft_scale(0.6, 0.5) == 1


def test_the_scale_and_its_reason():
    """What is asked for wins; large pictures begin at 1080 rows; a GPU and small pictures at 1."""
    soft = frame(scenery(4))
    large = frame(scenery(5, size=(1440, 1800)))

    def chosen(picture, requested=None, device=CPU, **options):
        return ScaleChooser(device, **options).choose([picture], requested, is_cut=False)

    assert chosen(soft) == (0.5, ScaleReason.SOFT)
    assert chosen(soft, 0.9) == (0.9, ScaleReason.SET)
    assert chosen(soft, device=torch.device("cuda")) == (1, ScaleReason.FULL)
    assert chosen(soft, measures=False) == (1, ScaleReason.FULL)
    assert chosen(frame(scenery(4, size=(470, 640)))) == (1, ScaleReason.FULL)
    assert chosen(frame(scenery(size=(1440, 1800)))) == (0.75, ScaleReason.LARGE)
    assert chosen(large) == (0.375, ScaleReason.SOFT)  # half of the 1080 rows
    ten_bits = frame(scenery(4), bits=10)
    assert chosen(ten_bits) == chosen(replace(soft, rotation=90)) == (0.5, ScaleReason.SOFT)


class Sizes(MHNet):
    """A network that darkens, so that no frame passes, and notes the sizes of what it sees."""

    def __init__(self):
        super().__init__(NetworkConfig(width=8, encoder_blocks=(0,) * 4, frames=3))
        self.seen = []

    def residual(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return torch.full_like(x[:, :3], -0.01)


def test_every_way_into_a_restorer_has_the_same_scales():
    """Frames of a file, pictures, and those that are pushed: two scenes have two scales."""
    sharp, soft = scenery(), scenery(4, seed=1)
    luma = [each.roll(2 * step, 1) for each in (soft, sharp) for step in range(6)]
    rgb = [each.round().byte().numpy()[..., None].repeat(3, 2) for each in luma]

    def of_file(restorer):
        list(restorer.stream([frame(each, index) for index, each in enumerate(luma)]))

    def of_pictures(restorer):
        list(restorer.restore(rgb))

    def of_pushed(restorer):
        for picture in rgb:
            restorer.push(picture)
        restorer.flush()

    for way in (of_file, of_pictures, of_pushed):
        network = Sizes()
        restorer = Restorer(network, device="cpu")
        way(restorer)
        frames = [size for size in network.seen if size[0] > 128]  # and no looks at them
        assert frames == [(256, 320)] * 6 + [SIZE] * 6
        assert restorer.scales == {(0.5, ScaleReason.SOFT): 6, (1, ScaleReason.FULL): 6}
    network = Sizes()
    restorer = Restorer(network, device="cpu", scale=0.25)
    of_file(restorer)
    assert set(network.seen) == {(128, 160)}
    assert restorer.scales == {(0.25, ScaleReason.SET): 12}
