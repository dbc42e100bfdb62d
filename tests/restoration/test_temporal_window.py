"""Which frames a frame is compared with: at a clip's ends, among copies, beyond cuts."""

from dataclasses import replace

import pytest
from test_restorer import gray_frame

from mhnet_video.config import Settings
from mhnet_video.model.window import window_indices
from mhnet_video.restoration.scene_changes import Transition
from mhnet_video.restoration.temporal_window import (
    MAX_COPIES,
    Neighbours,
    WindowAssembler,
    WindowPicker,
)


def windows_of(items, frames, copies="", cuts=""):
    neighbours = Neighbours(frames)
    found = []
    for item in items:
        step = (
            Transition.COPY
            if str(item) in copies
            else Transition.CUT
            if str(item) in cuts
            else Transition.NEXT
        )
        found += neighbours.push(item, step)
    found += neighbours.flush()
    assert neighbours.flush() == [] and neighbours.last is None
    return found


def test_at_the_ends_the_next_ones_of_the_other_side_are_seen():
    assert [window_indices(centre, 9, 5) for centre in (0, 1, 2, 6, 7, 8)] == [
        [4, 3, 0, 1, 2],
        [4, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [4, 5, 6, 7, 8],
        [5, 6, 7, 8, 4],
        [6, 7, 8, 5, 4],
    ]
    # where there are no more, the edge one
    assert window_indices(0, 4, 5) == [0, 3, 0, 1, 2] and window_indices(3, 4, 5) == [1, 2, 3, 0, 3]
    assert window_indices(0, 2, 3) == [0, 0, 1] and window_indices(1, 2, 3) == [0, 1, 1]
    assert window_indices(0, 1, 5) == [0] * 5 and window_indices(7, 9, 1) == [7]


@pytest.mark.parametrize("frames", [1, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_windows_are_those_of_the_whole_run(count, frames):
    expected = [window_indices(centre, count, frames) for centre in range(count)]
    assert windows_of(range(count), frames) == expected
    neighbours = Neighbours(frames)
    counts = [len(neighbours.push(index)) for index in range(count)]
    half = frames // 2
    assert counts == [0 if i < frames - 1 else half + 1 if i < frames else 1 for i in range(count)]


def test_copies_are_no_neighbours():
    found = windows_of("aAbBcd", 3, "AB")
    assert ["".join(window) for window in found] == ["cab", "cAb", "abc", "aBc", "bcd", "cdb"]
    found = windows_of("abBBcde", 5, "B")
    assert "".join(found[1]) == "eabcd" and "".join(found[4]) == "abcde"
    # one frame is compared with none
    assert windows_of("aAb", 1, "A") == [["a"], ["A"], ["b"]]


def test_no_window_across_a_cut():
    found = windows_of("abcXyz", 3, cuts="X")
    assert ["".join(window) for window in found] == ["cab", "abc", "bca", "zXy", "Xyz", "yzX"]
    found = windows_of("abcXY", 5, cuts="XY")
    assert ["".join(window) for window in found] == ["aaabc", "aabcc", "abccc", "XXXXX", "YYYYY"]
    found = windows_of("abBXx", 3, "Bx", "X")
    assert ["".join(window) for window in found] == ["aab", "abb", "aBB", "XXX", "xxx"]


def test_few_copies_wait():
    neighbours = Neighbours(3)
    steps = [Transition.NEXT] + [Transition.COPY] * 2 * MAX_COPIES
    counts = [len(neighbours.push(index, step)) for index, step in enumerate(steps)]
    # the windows of the first two come with the third
    assert counts == [0] * 2 * MAX_COPIES + [2 * MAX_COPIES]


def levels_of(windows):
    """The first sample of each picture of each window."""
    return [
        [None if each is None else int(each.frame.planes[0][0, 0]) for each in window.images]
        for window in windows
    ]


def assembled(frames, scales=None, width=3):
    assembler = WindowAssembler(width)
    found = []
    for index, frame in enumerate(frames):
        found += assembler.push(
            frame, Settings(), Transition.NEXT, scales[index] if scales else 1.0
        )
    return [*found, *assembler.flush()]


def test_frames_with_equal_samples_share_a_picture():
    windows = assembled([gray_frame(level, i) for i, level in enumerate([5, 7, 7, 9])])
    assert [window.frame.pts for window in windows] == [0, 1, 2, 3]
    assert levels_of(windows) == [[9, 5, 7], [5, 7, 9], [5, 7, 9], [7, 9, 5]]
    assert windows[2].is_restored_as(windows[1])
    assert not windows[1].is_restored_as(windows[0])
    assert not windows[2].is_restored_as(replace(windows[1], settings=Settings(strength=0.5)))


def test_another_scale_or_size_begins_another_run():
    frames = [gray_frame(10 * i, i) for i in range(4)]
    alone = [[None, 0, None], [10, 10, 20], [10, 20, 20], [None, 30, None]]
    assert levels_of(assembled(frames, [1.0, 0.5, 0.5, 1.0])) == alone
    turned = [replace(frame, rotation=90 * (index in (1, 2))) for index, frame in enumerate(frames)]
    assert levels_of(assembled(turned)) == alone


def test_a_picked_window_is_that_of_the_whole_clip():
    frames = [gray_frame(10 * i, i) for i in range(6)]
    picker = WindowPicker(3)
    picked = [picker.window(frames, index, Settings(), 1.0) for index in range(6)]
    assert levels_of(picked) == levels_of(assembled(frames))
    # what was made of a picture is kept as long as it is in the window before
    assert picked[3].images[0] is picked[2].middle
    assert picker.window(frames, 3, Settings(), 0.5).middle is not picked[3].middle
