"""What stands still is averaged; what moves, however slowly, and what is dry stay as they are."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from test_hwaccel import device_frame

import mhnet_video.restoration.temporal_average
from mhnet_video.config import Box, Settings
from mhnet_video.frame import DeviceFrame, Frame, Pair, PixelLayout
from mhnet_video.restoration import temporal_average
from mhnet_video.restoration.executors import Counts
from mhnet_video.restoration.frame_chain import FilteredChain, FrameChain
from mhnet_video.restoration.temporal_average import FrameAverage, PlaneAverage
from mhnet_video.restoration.working_scale import ScaleChooser

SIZE = 160, 224
COUNT = 12


def scene(shift=0.0, seed=0, contrast=50):
    """A texture that goes on beyond the picture, moved to the right by some pixels."""
    rng = np.random.default_rng(seed)
    wide = rng.normal(0, 1, (SIZE[0], SIZE[1] + 64)).astype(np.float32)
    wide = cv2.GaussianBlur(wide, (0, 0), 1.5)
    wide = 120 + contrast * wide / wide.std()
    matrix = np.float32([[1, 0, shift - 32], [0, 1, 0]])
    return cv2.warpAffine(wide, matrix, SIZE[::-1], flags=cv2.INTER_CUBIC)


def clip(speed=0.0, noise=4.0, levels=6.0):
    """Restored pictures with rests of streaks and noise, the rainy ones, and the clean ones."""
    rng = np.random.default_rng(1)
    clean = [scene(speed * index) for index in range(COUNT)]
    after, before = [], []
    for picture in clean:
        rest = rng.normal(0, noise, SIZE)
        for x, y in rng.integers(0, SIZE[::-1], (30, 2)):
            rest[y : y + 20, x : x + 2] += levels
        after.append(as_bytes(picture + rest))
        before.append(as_bytes(after[-1] + 20.0 * (rest > levels)))
    return before, after, [as_bytes(picture) for picture in clean]


def as_bytes(picture):
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def filtered(before, after, kind=np.asarray, share=1.0):
    average, out = PlaneAverage(), []
    given = [kind(picture) for picture in after]
    for old, new, ahead in zip(before, given, [*given[1:], None], strict=True):
        found = average.push(kind(old), new, ahead, share=share)
        out.append(np.asarray(new if found is None else found, np.float32).copy())
    return out


def error(pictures, clean):
    pairs = list(zip(pictures, clean, strict=True))[4:]
    return np.mean([np.square(a.astype(np.float32) - b).mean() for a, b in pairs])


def flicker(pictures):
    changes = np.diff(np.asarray(pictures, np.float32)[4:], axis=0)
    return np.abs(changes).mean()


def test_what_stands_still_is_averaged():
    before, after, clean = clip()
    out = filtered(before, after)
    assert error(out, clean) < error(after, clean) / 4
    assert flicker(out) < flicker(after) / 4


@pytest.mark.parametrize("speed", [0.25, 0.5, 1, 3, 20])
def test_a_scene_that_moves_is_left_as_it_is(speed):
    before, after, clean = clip(speed)
    out = filtered(before, after)
    assert error(out, clean) < 1.02 * error(after, clean)


def test_a_thing_that_moves_leaves_nothing_behind():
    before, after, clean = clip()
    for index, pictures in enumerate(zip(before, after, clean, strict=True)):
        for picture in pictures:
            picture[60:90, 20 + 9 * index : 50 + 9 * index] = 90
    out = filtered(before, after)
    # around it, and where it has been, nothing is worse than it was
    for new, old, true in list(zip(out, after, clean, strict=True))[4:]:
        worse = np.abs(new - true) - np.abs(old.astype(np.float32) - true)
        assert cv2.blur(worse, (15, 15)).max() < 2


@pytest.mark.parametrize(("rain", "contrast"), [(1, 8), (3, 12), (5, 20), (20, 40)])
def test_a_thing_in_heavy_rain_leaves_nothing_behind(rain, contrast):
    rng = np.random.default_rng(2)
    before, after, clean = [], [], []
    for index in range(COUNT):
        picture = scene(contrast=25)
        picture[50:90, 40 + 3 * index : 64 + 3 * index] += contrast
        clean.append(picture)
        after.append(as_bytes(picture + rng.normal(0, 1.5, SIZE)))
        before.append(as_bytes(after[-1] + 4.0 * rain * (rng.random(SIZE) < 0.25)))
    for new, true in list(zip(filtered(before, after), clean, strict=True))[4:]:
        assert np.abs(cv2.blur(new - true, (7, 7)))[30:110, 10:150].max() < 3.5


@pytest.mark.parametrize("kind", [np.asarray, lambda picture: torch.from_numpy(np.array(picture))])
@pytest.mark.parametrize("height", range(64, 72))
def test_any_size(height, kind):
    before, after, clean = (
        [picture[:height, : height + 31] for picture in pictures] for pictures in clip()
    )
    assert error(filtered(before, after, kind), clean) < error(after, clean) / 2
    small = [picture[: height - 63] for picture in before]
    assert len(filtered([*before, *small], [*after, *small], kind)) == 2 * COUNT


@pytest.mark.parametrize("height", [64, 71, 160])
def test_strips_do_not_show(height, monkeypatch):
    before, after, _ = ([picture[:height] for picture in pictures] for pictures in clip(0.1))
    results = []
    for pixels in (1 << 30, 8 * SIZE[1]):
        monkeypatch.setattr(temporal_average, "_STRIP_PIXELS", pixels)
        results.append(filtered(before, after))
    assert not np.array_equal(results[0], np.asarray(after, np.float32))
    for whole, strips in zip(*results, strict=True):
        np.testing.assert_allclose(strips, whole, rtol=0, atol=1e-3)


def test_light_that_goes_on_slowly_is_followed():
    before, after, clean = clip()
    lit = [
        [as_bytes(picture + 1.5 * index) for index, picture in enumerate(pictures)]
        for pictures in (before, after, clean)
    ]
    out = filtered(*lit[:2])
    assert error(out, lit[2]) < error(lit[1], lit[2])
    assert all(abs(a.mean() - b.mean()) < 2 for a, b in zip(out, lit[2], strict=True))


def test_another_scene_begins_anew():
    before, after, _ = clip()
    other = as_bytes(scene(seed=5))
    out = filtered([*before, other], [*after, other])
    assert np.array_equal(out[-1], other)


def test_a_dry_clip_stays_to_the_bit():
    _, after, _ = clip()
    average = PlaneAverage()
    assert all(average.push(picture, picture) is None for picture in after)


def test_around_what_stays_dry_nothing_is_done():
    _, after, _ = clip()
    before = [picture.copy() for picture in after]
    for picture in before:
        picture[40:60, 4:6] += 20  # little, as a network takes out of dry pictures
    out = filtered(before, after)
    # as far as the surroundings of what was taken out go
    reach = 16 + 16 * 5 + 16
    assert all(np.array_equal(a[:, reach:], b[:, reach:]) for a, b in zip(out, after, strict=True))
    assert any(np.any(a[:, :16] != b[:, :16]) for a, b in zip(out, after, strict=True))


def test_where_it_rains_all_over_all_is_averaged():
    before, after, clean = clip()
    for old, new in zip(before, after, strict=True):
        old[:, 112:] = new[:, 112:]
    out = [picture[:, 208:] for picture in filtered(before, after)]
    dry, true = ([picture[:, 208:] for picture in pictures] for pictures in (after, clean))
    assert error(out, true) < error(dry, true) / 4


def test_half_the_share_is_half_the_way():
    before, after, _ = clip()
    whole, half = (filtered(before, after, np.float32, share) for share in (1.0, 0.5))
    for full, part, none in zip(whole, half, after, strict=True):
        np.testing.assert_allclose(part, (full + none) / 2, atol=0.01)


@pytest.mark.parametrize("size", [(64, 64), (71, 95), (160, 223)])
def test_compiled_kernels_give_the_same_bits(size, monkeypatch):
    kernels = pytest.importorskip("mhnet_video.restoration.average_kernels")
    if kernels._compiled() is None:
        pytest.skip("no compiled kernels for this processor")
    before, after, _ = (
        [np.ascontiguousarray(each[: size[0], : size[1]]) for each in pictures]
        for pictures in clip()
    )
    found = filtered(before, after)
    monkeypatch.setattr(temporal_average, "kernels_for", lambda *_: None)
    expected = filtered(before, after)
    assert not np.array_equal(expected, np.asarray(after, np.float32))
    assert np.array_equal(found, expected)


def test_tensors_and_arrays_agree():
    before, after, _ = clip()
    arrays = filtered(before, after)
    tensors = filtered(before, after, kind=lambda picture: torch.from_numpy(np.array(picture)))
    # OpenCV rounds what it shrinks
    for a, b in zip(arrays, tensors, strict=True):
        assert np.abs(a - np.floor(b + 0.5)).mean() < 0.1


def frame(planes, kind="gray", bits=8, **values):
    layout = PixelLayout("any", kind, bits, int(kind == "yuv"), int(kind == "yuv"))
    return Frame(planes, layout, 0, Fraction(1, 25), **values)


def through(frames, restored, device=None, **values):
    average = FrameAverage(device)
    aheads = [*restored[1:], None]
    return [average.push(*both, **values) for both in zip(frames, restored, aheads, strict=True)]


def with_chroma(picture):
    return picture, picture[::2, ::2].copy(), picture[::2, ::2].copy()


@pytest.mark.parametrize("has_opencv", [True, False])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_luma_of_any_depth(bits, has_opencv, monkeypatch):
    before, after, _ = clip()
    expected = filtered(before, after)
    if not has_opencv:
        monkeypatch.setattr(mhnet_video.restoration.temporal_average, "opencv", lambda: None)
    kind = np.uint8 if bits == 8 else np.uint16

    def frames(pictures):
        deep = [np.left_shift(picture, bits - 8, dtype=kind) for picture in pictures]
        return [frame(with_chroma(picture), "yuv", bits) for picture in deep]

    restored = frames(after)
    out = through(frames(before), restored)
    for found, given, wanted in zip(out, restored, expected, strict=True):
        assert found.planes[0].dtype == kind
        assert all(a is b for a, b in zip(found.planes[1:], given.planes[1:], strict=True))
        difference = found.planes[0] / 2.0 ** (bits - 8) - wanted
        assert np.abs(difference).mean() < 0.4


def test_rgb_has_three_planes():
    before, after, _ = clip()
    sides = [[frame((p, p, p), "rgb") for p in pictures] for pictures in (before, after)]
    for found, wanted in zip(through(*sides), filtered(before, after), strict=True):
        for plane in found.planes:
            assert np.abs(plane - wanted).max() <= 0.5 + 1e-3


def test_boxes_and_copies():
    before, after, _ = clip()
    box = Box(40, 30, 50, 20)
    sides = [[frame((picture,)) for picture in pictures] for pictures in (before, after)]
    for side in sides:
        side.insert(7, side[6])
    for new, old in zip(sides[1], sides[0], strict=True):
        new.planes[0][30:50, 40:90] = old.planes[0][30:50, 40:90]
    out = through(*sides, keep=[box])
    assert all(
        np.array_equal(f.planes[0][30:50, 40:90], old.planes[0][30:50, 40:90])
        for f, old in zip(out, sides[0], strict=True)
    )
    assert out[7].planes[0] is out[6].planes[0]
    # what follows a copy is as if there were none
    del sides[0][7], sides[1][7]
    for found, wanted in zip([*out[:7], *out[8:]], through(*sides, keep=[box]), strict=True):
        # but for the look ahead of the frame before it
        assert np.abs(found.planes[0].astype(int) - wanted.planes[0]).mean() < 0.2


@pytest.mark.parametrize("kinds", [("rgb", "gray"), ("gray", "rgb"), ("yuv", "gray")])
def test_another_format_begins_anew(kinds):
    before, after, _ = clip()
    made = {
        "rgb": lambda p, bits: frame((p, p, p), "rgb", bits),
        "gray": lambda p, bits: frame((p,), "gray", bits),
        "yuv": lambda p, bits: frame(with_chroma(p), "yuv", bits),
    }
    first, second = (made[kind] for kind in kinds)
    sides = [
        [first(p, 8) for p in pictures] + [second(np.uint16(p) << 2, 10) for p in pictures]
        for pictures in (before, after)
    ]
    out = through(*sides)
    # as each of both parts on its own
    for part in (slice(0, COUNT), slice(COUNT, None)):
        for found, wanted in zip(out[part], through(*(side[part] for side in sides)), strict=True):
            assert np.array_equal(found.planes[0], wanted.planes[0])


def test_a_frame_that_was_not_restored_is_given_on():
    before, after, _ = clip()
    frames, restored = ([frame((p,)) for p in pictures] for pictures in (before, after))
    restored[8] = frames[8]
    restored[10] = replace(restored[10], planes=restored[10].planes)
    stills = [replace(each, is_still=True) for each in frames]
    assert through(frames, restored)[8] is frames[8]
    assert all(a is b for a, b in zip(through(stills, restored), restored, strict=True))


def test_want_of_memory_ends_nothing(monkeypatch):
    before, after, _ = clip()
    frames, restored = ([frame((p,)) for p in pictures] for pictures in (before, after))

    def full(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(PlaneAverage, "push", full)
    assert all(a is b for a, b in zip(through(frames, restored), restored, strict=True))
    monkeypatch.setattr(PlaneAverage, "push", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        through(frames, restored)


@pytest.mark.parametrize("bits_down", [0, 6])
def test_frames_on_a_gpu_are_averaged_in_place(bits_down):
    before, after, _ = clip()
    shift = 2 if bits_down else 0
    kind = np.uint16 if bits_down else np.uint8

    def frames(pictures):
        deep = [np.left_shift(picture, shift, dtype=kind) for picture in pictures]
        return [frame(with_chroma(picture), "yuv", 8 + shift) for picture in deep]

    hosts = frames(before), frames(after)
    devices = [[device_frame(each, bits_down, row=6) for each in side] for side in hosts]
    expected = through(*hosts)
    for found, wanted in zip(through(*devices), expected, strict=True):
        assert isinstance(found, DeviceFrame)
        luma = found.luma.numpy().view(kind) >> bits_down
        assert np.abs(luma.astype(int) - wanted.planes[0]).max() <= 1


class Given:
    """An executor that gives frames that were restored before."""

    def __init__(self, before, after):
        self.after = {id(old): new for old, new in zip(before, after, strict=True)}
        self.counts = Counts()

    def push(self, window):
        frame = window.frame
        yield Pair(frame, replace(frame, planes=(self.after[id(frame.planes[0])],)))

    def flush(self):
        return iter(())


@pytest.mark.parametrize("is_filtered", [True, False])
def test_it_is_the_last_link_of_a_chain(is_filtered):
    before, after, clean = clip()
    cpu = torch.device("cpu")
    given = Given(before, after)
    chain = FrameChain(3, given, ScaleChooser(cpu))
    chain = FilteredChain(chain, cpu) if is_filtered else chain
    out = [pair for each in before for pair in chain.push(frame((each,)), Settings())]
    out += chain.flush()
    assert [pair.source.planes[0] is old for pair, old in zip(out, before, strict=True)]
    found = [pair.restored.planes[0] for pair in out]
    if is_filtered:
        assert error(found, clean) < error(after, clean) / 4
    else:
        assert all(a is b for a, b in zip(found, after, strict=True))
