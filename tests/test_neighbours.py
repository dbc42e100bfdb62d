"""Which frames a frame is compared with: at a clip's ends, among copies, at a raised frame rate."""

from fractions import Fraction

import numpy as np
import pytest

from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.neighbours import MAX_COPIES, Neighbours, with_copies

GRAY = PixelLayout("gray", "gray", 8)


def windows_of(items, frames, copies=()):
    neighbours = Neighbours(frames)
    found = []
    for item in items:
        found += neighbours.push(item, is_copy=item in copies)
    found += neighbours.flush()
    assert neighbours.flush() == [] and neighbours.last is None
    return found


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_the_edges_are_repeated(frames):
    half = frames // 2
    assert windows_of(range(4), frames) == [
        [min(max(centre + step, 0), 3) for step in range(-half, half + 1)] for centre in range(4)
    ]


def test_copies_are_no_neighbours():
    found = windows_of("aAbBcd", 3, "AB")
    assert ["".join(window) for window in found] == ["aab", "AAb", "abc", "aBc", "bcd", "cdd"]
    found = windows_of("abBBcde", 5, "B")
    assert "".join(found[1]) == "aabcd" and "".join(found[4]) == "abcde"
    # one frame is compared with none
    assert windows_of("aAb", 1, "A") == [["a"], ["A"], ["b"]]


def test_few_copies_wait():
    neighbours = Neighbours(3)
    counts = [len(neighbours.push(n, is_copy=n > 0)) for n in range(2 * MAX_COPIES + 1)]
    assert counts == [0] * MAX_COPIES + [MAX_COPIES] + [0] * (MAX_COPIES - 1) + [MAX_COPIES]


def frame(picture, index=0):
    plane = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return Frame((plane,), GRAY, index, Fraction(1, 25))


def copies_in(pictures):
    """Which of a clip's pictures are found to be copies."""
    frames = [frame(picture, index) for index, picture in enumerate(pictures)]
    found = list(with_copies(frames))
    assert [each for each, _ in found] == frames
    return [is_copy for _, is_copy in found]


def clip(count, times, *, change, noise, seed=0):
    """Pictures that differ, each some times, as an encoder leaves them."""
    random = np.random.default_rng(seed)
    scene = random.uniform(50, 200, (48, 64))
    pictures = []
    for _ in range(count):
        picture = scene + random.normal(0, change, scene.shape)
        pictures += [picture + random.normal(0, noise, scene.shape) for _ in range(times)]
    return pictures


@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_raised_rate_is_found(times):
    found = copies_in(clip(20, times, change=4, noise=0.5))
    assert found == [index % times > 0 for index in range(20 * times)]
    # so is that of a clip of three frames, but not of two
    short = copies_in(clip(3, times, change=4, noise=0.5) + clip(1, 1, change=4, noise=0))
    assert short == [index % times > 0 for index in range(3 * times)] + [False]
    assert not any(copies_in(clip(2, times, change=4, noise=0.5)))


def test_frames_that_all_change_alike_are_no_copies():
    assert not any(copies_in(clip(60, 1, change=2, noise=0)))
    # nothing but noise, coded anew every now and then
    still = clip(60, 1, change=0.6, noise=0)
    for index in range(0, 60, 12):
        still[index] = still[index] + 3
    assert not any(copies_in(still))
    # nor is a camera that stands still for a while, nor a picture that does for ever
    moving = clip(30, 1, change=4, noise=0)
    assert not any(copies_in(moving[:15] + moving[14:15] * 20 + moving[15:])[20:])
    assert not any(copies_in(moving[:1] * 40))


def test_other_sizes_begin_anew():
    pictures = clip(10, 2, change=4, noise=0.5)
    found = copies_in(pictures)
    cut = copies_in([p[:24] if index >= 11 else p for index, p in enumerate(pictures)])
    assert found == [index % 2 > 0 for index in range(20)]
    assert cut == [*found[:11], False, *found[12:]]
    # too few of one size to tell
    assert not any(
        copies_in([p[:24] if index >= 14 else p for index, p in enumerate(pictures)])[14:]
    )


def test_what_waits_is_little_and_nothing_is_lost():
    pictures = clip(20, 2, change=4, noise=0.5)
    taken, given = [], []

    def film():
        for index, picture in enumerate(pictures):
            if index == 5:
                yield "sound"
            taken.append(index)
            yield frame(picture, index)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        for item, _ in with_copies(film()):
            given.append(item if item == "sound" else item.pts)
            if given[-1] != "sound" and given[-1] >= 13:
                assert taken[-1] == given[-1]
    assert given == ["sound", *range(40)]


def test_large_frames_do_not_wait(monkeypatch):
    monkeypatch.setattr("mhnet_video.neighbours._MOST_HELD", 5 * 48 * 64)
    pictures, taken = clip(20, 2, change=4, noise=0.5), []
    frames = (taken.append(index) or frame(p, index) for index, p in enumerate(pictures))
    found = []
    for item, is_copy in with_copies(frames):
        assert len(taken) - item.pts <= 6
        found.append(is_copy)
    assert not any(found[:6]) and found[6:] == [index % 2 > 0 for index in range(6, 40)]
