"""The second pass over smaller pictures, which takes out what large drops leave."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from test_llvm_engine import SMALL, make_network

from mhnet_video import Restorer
from mhnet_video.frame import Pair
from mhnet_video.restoration import coarse_pass
from mhnet_video.restoration.coarse_pass import StandingChange
from mhnet_video.restoration.rgb_frames import frame_of

DEVICE = {"device": "cpu", "engine": "torch"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    made = make_network(width=8, patch=2, frames=5, align=True, glass=True, **SMALL)
    made.ending.weight.mul_(0.3)
    return made


def panned(count, rows=96, columns=128):
    """RGB pictures of a camera that pans."""
    coarse = np.random.default_rng(1).uniform(20, 230, (20, 60, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (8 * columns, rows), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    centres = [(columns + 3 * i, rows / 2) for i in range(count)]
    return [cv2.getRectSubPix(scene, (columns, rows), each).astype(np.uint8) for each in centres]


def once(restorer):
    """The restorer without its second pass."""
    restorer._passes = restorer._passes[:1]
    return restorer


def reference_weights(firsts, sources):
    """The weights of each frame, cell by cell and frame by frame, at the size of the picture."""
    share, weights = None, []
    for first, source in zip(firsts, sources, strict=True):
        changed = np.abs(first.astype(int) - source) >= 2
        share = changed * 1.0 if share is None else share + 0.2 * (changed - share)
        stands = share >= 0.75
        rows, columns = stands.shape
        cell = max(1, round(min(rows, columns) / 60))
        cells = np.array(
            [
                [stands[y : y + cell, x : x + cell].mean() for x in range(0, columns, cell)]
                for y in range(0, rows, cell)
            ]
        )
        around = np.array(
            [
                [
                    cells[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5].mean()
                    for x in range(cells.shape[1])
                ]
                for y in range(cells.shape[0])
            ]
        )
        weights.append(np.clip((around - 0.01) / 0.19, 0, 1))
    return weights


def test_frames_go_through_both_passes(network):
    pictures = panned(14)
    both = list(Restorer(network, **DEVICE).restore(pictures))
    firsts = list(once(Restorer(network, **DEVICE)).restore(pictures))
    smaller = once(Restorer(network, scale=0.4, is_filtered=False, **DEVICE))
    seconds = list(smaller.restore(firsts))
    # what is compared is the first plane, which is green
    weights = reference_weights(*([p[..., 1] for p in each] for each in (firsts, pictures)))
    size = pictures[0].shape[:2]
    counted = 0
    for first, second, weight, found in zip(firsts, seconds, weights, both, strict=True):
        weight = torch.nn.functional.interpolate(
            torch.from_numpy(weight).float()[None, None], size, mode="bilinear"
        )[0, 0, ..., None].numpy()
        wanted = first + weight * (second.astype(np.float32) - first)
        assert np.abs(found - wanted).max() <= 0.501
        counted += not np.array_equal(found, first)
    assert counted >= 10  # the second pass did something


def test_pushed_pictures_go_through_both_passes(network):
    pictures = panned(14)
    wanted = list(Restorer(network, **DEVICE).restore(pictures))
    restorer = Restorer(network, **DEVICE)
    found = [each for picture in pictures for each in restorer.push(picture)] + restorer.flush()
    assert np.array_equal(found, wanted)


def test_counts_are_those_of_frames(network):
    restorer = Restorer(network, **DEVICE)
    list(restorer.restore(panned(9)))
    assert (restorer.dry, restorer.passed_through) == (0, 0)
    ((scale, frames),) = restorer.scales.items()
    assert (scale.scale, frames) == (1.0, 9)
    broken = make_network(width=8, patch=2, frames=5, align=True, glass=True, **SMALL)
    broken.ending.weight.fill_(float("nan"))
    restorer = Restorer(broken, **DEVICE)
    pictures = panned(9)
    assert np.array_equal(list(restorer.restore(pictures)), pictures)
    assert restorer.passed_through == 9


def test_a_picture_alone_is_seen_by_the_self_ensemble_only(network):
    picture = panned(1)
    found = list(Restorer(network, **DEVICE).restore(picture))
    assert np.array_equal(found, list(once(Restorer(network, **DEVICE)).restore(picture)))


def test_what_is_kept_is_kept_and_no_strength_changes_nothing(network):
    pictures = panned(9)
    kept = np.stack(list(Restorer(network, keep=[(16, 24, 40, 32)], **DEVICE).restore(pictures)))
    box = np.s_[:, 24:56, 16:56]
    assert np.array_equal(kept[box], np.stack(pictures)[box])
    assert not np.array_equal(kept, pictures)
    assert np.array_equal(list(Restorer(network, strength=0, **DEVICE).restore(pictures)), pictures)


def test_only_networks_that_see_the_glass_have_a_second_pass():
    assert len(Restorer("windscreen-realtime", **DEVICE)._passes) == 2
    for name in ("realtime", "deblur-realtime"):
        assert len(Restorer(name, **DEVICE)._passes) == 1


def pairs_of(changes):
    """Pairs of dark frames and such with these changes, `[H, W]` levels each."""
    for index, change in enumerate(changes):
        level = np.full(change.shape, 100, np.uint8)
        frame = frame_of(np.repeat(level[..., None], 3, 2), index)
        planes = tuple(each + change.astype(np.uint8) for each in frame.planes)
        yield Pair(frame, replace(frame, planes=planes))


def test_only_changes_that_stand_still_count():
    random = np.random.default_rng(0)
    streaks = [9 * (random.random((60, 80)) < 0.2) for _ in range(40)]
    drop = np.zeros((60, 80))
    drop[20:30, 30:40] = 3
    streaky, standing = StandingChange(), StandingChange()
    for number, (pair, other) in enumerate(
        zip(pairs_of(streaks), pairs_of([drop] * 40), strict=True)
    ):
        found, weight = streaky.push(*pair), standing.push(*other)
        assert weight is not None and weight[0, 0, 25, 35] == 1
        assert weight[0, 0, 25, 60] == 0  # far away
        if number > 8:
            assert found is None or float(found.max()) < 0.2


def test_where_nothing_stands_the_second_pass_is_not_made(network, monkeypatch):
    """A dry clip takes no more time, and comes out as one pass leaves it."""
    monkeypatch.setattr(StandingChange, "push", lambda *_: None)
    restorer = Restorer(network, **DEVICE)
    second = restorer._passes[1]
    monkeypatch.setattr(second.engine.engine, "aligned_residual", None)  # fails if called
    pictures = panned(9)
    wanted = list(once(Restorer(network, **DEVICE)).restore(pictures))
    assert np.array_equal(list(restorer.restore(pictures)), wanted)


def test_frames_of_another_size_begin_anew():
    change = StandingChange()
    for rows in (40, 64, 40):
        (pair,) = pairs_of([np.full((rows, 80), 5)])
        weight = change.push(*pair)
        assert weight is not None and float(weight.min()) == 1
        assert change.push(pair.source, pair.source) is not None  # one frame of rest is no end


def test_the_limits_are_those_of_the_reference():
    assert (coarse_pass._CELLS, coarse_pass._REACH, coarse_pass.SHRINK) == (60, 4, 2.5)
