"""The second pass over smaller pictures, which takes out what large drops leave."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from test_llvm_engine import SMALL, make_network

from mhnet_video import Restorer
from mhnet_video.config import Settings
from mhnet_video.frame import Pair
from mhnet_video.restoration import coarse_pass
from mhnet_video.restoration.coarse_pass import CoarseAfter, StandingChange, StandingDrops
from mhnet_video.restoration.executors import Counts
from mhnet_video.restoration.rgb_frames import frame_of, picture_of

DEVICE = {"device": "cpu", "engine": "torch"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    made = make_network(width=8, patch=2, frames=5, align=True, glass=True, **SMALL)
    made.ending.weight.mul_(0.3)
    return made


def panned(count, rows=96, columns=128, seed=1):
    """RGB pictures of a camera that pans."""
    coarse = np.random.default_rng(seed).uniform(20, 230, (20, 60, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (8 * columns, rows), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    centres = [(columns + 3 * i, rows / 2) for i in range(count)]
    return [cv2.getRectSubPix(scene, (columns, rows), each).astype(np.uint8) for each in centres]


def once(restorer):
    """The restorer without its second pass."""
    restorer._passes = restorer._passes[:1]
    return restorer


def reference_weights(firsts, sources):
    """The weights of each frame, cell by cell and frame by frame, at the size of the picture."""
    changes = [
        np.abs(first.astype(int) - source) >= 2
        for first, source in zip(firsts, sources, strict=True)
    ]
    weights = []
    for index in range(len(changes)):
        end = max(index + 1, 7)  # the first ones are judged together
        stands = sum(changes[max(0, end - 8) : end]) >= 7
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
        assert found is None or float(found.max()) < 0.2
        if number < 6:
            assert weight is None
        else:
            assert weight is not None and weight[0, 0, 25, 35] == 1
            assert weight[0, 0, 25, 60] == 0  # far away


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
        weights = [change.push(*pair) for _ in range(8)]
        assert weights[:6] == [None] * 6 and float(weights[6].min()) == 1
        assert change.push(pair.source, pair.source) is not None  # one frame of rest is no end
        assert change.push(pair.source, pair.source) is None


class FirstPass:
    """Takes the same drop out of the first frames of a clip, and nothing out of the others."""

    counts = Counts()

    def __init__(self, count):
        self.count = count

    def push(self, frame, settings):
        planes = [plane.copy() for plane in frame.planes]
        if frame.pts < self.count:
            for plane in planes:
                plane[30:60, 40:80] = np.maximum(plane[30:60, 40:80], 10) - 10
        yield Pair(frame, replace(frame, planes=tuple(planes)))

    def flush(self):
        return iter(())


@pytest.mark.parametrize("kind", ["inline", "lanes"])
def test_copies_are_restored_as_one_pass_leaves_them_where_the_second_does_not_count(network, kind):
    """Frames come twice: the second pass counts in the first of the last pair alone."""
    step = Restorer(network, **DEVICE)._passes[1]
    executor = {
        "inline": step.new_inline,
        "lanes": lambda: step.executor(on_gpu=False, stays_on_gpu=False),
    }[kind]()
    drops = StandingDrops()
    second = step.chain(executor, scene_scale=None, look=drops)
    chain = CoarseAfter(FirstPass(20), second, drops)
    pictures = [each for each in panned(16) for _ in range(2)]
    frames = [frame_of(picture, index) for index, picture in enumerate(pictures)]
    pairs = [pair for frame in frames for pair in chain.push(frame, Settings())]
    pairs += chain.flush()
    assert [pair.source.pts for pair in pairs] == list(range(32))
    one = [next(FirstPass(20).push(frame, Settings())).restored for frame in frames]
    equal = [
        all(map(np.array_equal, pair.restored.planes, first.planes))
        for pair, first in zip(pairs, one, strict=True)
    ]
    assert equal == [False] * 21 + [True] * 11


def test_a_cut_begins_anew():
    change = StandingChange()
    found = []
    for number, picture in enumerate(panned(10) + panned(10, seed=2)):
        frame = frame_of(picture // 2, number)
        restored = replace(frame, planes=tuple(plane + 5 for plane in frame.planes))
        found.append(change.push(frame, restored) is not None)
    assert found == ([False] * 6 + [True] * 4) * 2


def test_what_the_temporal_filter_changes_is_no_drop(network, monkeypatch):
    """Before a fixed camera the filter changes noise in every frame, also where a sticker is."""
    random = np.random.default_rng(2)
    scene = panned(1)[0].astype(float)
    noise = [random.normal(0, 5, scene.shape) for _ in range(12)]
    noisy = [(scene + each).clip(0, 255).astype(np.uint8) for each in noise]
    seen = []
    push = StandingChange.push
    monkeypatch.setattr(
        StandingChange,
        "push",
        lambda change, source, restored: (
            seen.append(picture_of(restored)) or push(change, source, restored)
        ),
    )
    both = list(Restorer(network, **DEVICE).restore(noisy))
    first = once(Restorer(network, is_filtered=False, **DEVICE))
    assert np.array_equal(seen, list(first.restore(noisy)))
    unfiltered = list(Restorer(network, is_filtered=False, **DEVICE).restore(noisy))
    assert not np.array_equal(both, unfiltered)  # the filter is there, behind both passes


@pytest.mark.parametrize("dies", [0, 1])
def test_what_the_first_pass_has_restored_comes_out_when_an_engine_fails(network, dies):
    pictures = panned(60, 48, 64)
    plain = {**DEVICE, "is_filtered": False}
    both = list(Restorer(network, **plain).restore(pictures))
    firsts = list(once(Restorer(network, **plain)).restore(pictures))
    restorer = Restorer(network, **plain)
    engine = restorer._passes[dies].engine.engine
    residual, calls = engine.aligned_residual, []

    def fails(images):
        calls.append(1)
        if len(calls) > 9:
            raise RuntimeError("gone")
        return residual(images)

    engine.aligned_residual = fails
    out = []
    frames = map(frame_of, pictures, range(60))
    with pytest.raises(RuntimeError, match="gone"):
        out.extend(each.restored for each in restorer.pairs(frames))  # what came stays in `out`
    found = [picture_of(each) for each in out]
    if dies == 0:
        assert len(found) == 9
        assert np.array_equal(found[0], both[0]) or np.array_equal(found[0], firsts[0])
    else:
        assert np.array_equal(found[:9], both[:9])
        assert len(found) > 30 and np.array_equal(found[9:], firsts[9 : len(found)])


def test_the_limits_are_those_of_the_reference():
    assert (coarse_pass._CELLS, coarse_pass._REACH, coarse_pass.SHRINK) == (60, 4, 2.5)
