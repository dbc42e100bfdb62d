"""Cuts, and copies that an encoder has changed: what a frame is to the one before."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from mhnet_video.config import Settings
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.restoration import scene_changes
from mhnet_video.restoration.scene_changes import Transition, TransitionDetector

GRAY = PixelLayout("gray", "gray", 8)
SETTINGS = Settings()


def frame(picture, index=0):
    plane = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return Frame((plane,), GRAY, index, Fraction(1, 25))


def with_steps(frames):
    """Frames as it is known what they are to the one before."""
    finder = TransitionDetector()
    for each in frames:
        for found, _, step, _ in finder.push(each, SETTINGS):
            yield found, step
    for found, settings, step, _ in finder.flush():
        assert settings is SETTINGS
        yield found, step


def steps_in(pictures):
    """What each of a clip's pictures is found to be."""
    frames = [frame(picture, index) for index, picture in enumerate(pictures)]
    found = list(with_steps(frames))
    assert [each for each, _ in found] == frames
    return [step for _, step in found]


def copies_in(pictures):
    """Which of a clip's pictures are found to be copies."""
    return [step is Transition.COPY for step in steps_in(pictures)]


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


def test_a_dozen_frames_wait_and_then_none():
    finder = TransitionDetector()
    pictures = clip(20, 2, change=4, noise=0.5)
    counts = [len(list(finder.push(frame(each, i), SETTINGS))) for i, each in enumerate(pictures)]
    assert counts == [0] * 12 + [13] + [1] * 27
    assert list(finder.flush()) == []


def test_large_frames_do_not_wait(monkeypatch):
    monkeypatch.setattr(scene_changes, "_MOST_HELD", 5 * 48 * 64)
    pictures, taken = clip(20, 2, change=4, noise=0.5), []
    frames = (taken.append(index) or frame(p, index) for index, p in enumerate(pictures))
    found = []
    for item, step in with_steps(frames):
        assert len(taken) - item.pts <= 6
        found.append(step is Transition.COPY)
    assert not any(found[:6]) and found[6:] == [index % 2 > 0 for index in range(6, 40)]


def scene(path, seed, size=(96, 128)):
    """What a camera sees that moves over something, so many pixels to the right in each frame."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(40, 210, (5, 14)).astype(np.float32)
    wide = cv2.resize(coarse, (640, 104), interpolation=cv2.INTER_CUBIC)
    return [wide[: size[0], right : right + size[1]] + random.normal(0, 2, size) for right in path]


@pytest.mark.parametrize("step", [0, 3, 12])
def test_a_cut_is_found_and_nothing_else(step):
    path = range(0, 20 * step, step) if step else [0] * 20
    one, other = scene(path, 1), scene(path, 2)
    steps = steps_in([*one, *other])
    assert [index for index, each in enumerate(steps) if each is not Transition.NEXT] == [20]
    assert steps[20] is Transition.CUT
    # a jolt of the camera, a light that goes on, and motion that begins are none
    jolt = scene([0] * 8 + [6] * 8 + list(range(6, 166, 8)), 1)
    lit = [*one[:8], *(picture + 20 for picture in one[8:])]
    assert set(steps_in(jolt)) == set(steps_in(lit)) == {Transition.NEXT}
    # what is usual must be known
    assert Transition.CUT not in steps_in([*one[:2], *other])
    assert steps_in([*one[:3], *other])[3] is Transition.CUT


def test_a_cut_is_found_at_a_raised_rate():
    path = range(0, 36, 3)
    pictures = [*scene(path, 1), *scene(path, 2)]
    twice = [picture + 0.3 * index for picture in pictures for index in range(2)]
    steps = steps_in(twice)
    assert steps[24] is Transition.CUT
    assert [step is Transition.COPY for step in steps] == [index % 2 > 0 for index in range(48)]
