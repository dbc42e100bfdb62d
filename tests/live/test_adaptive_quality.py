"""The choice of model and scale, by times that are given."""

import itertools

import pytest

from mhnet_video.live.adaptive_quality import SCALES, Governor, Level, choose_level, list_levels

pytestmark = pytest.mark.beside

BUDGET = 0.04
LEVELS = list_levels(["large", "small"])


def seconds_at(full):
    """The time of a frame by its level, on a machine that takes so long at full scale."""
    return lambda level: full * (12 if level.model == "large" else 1) * level.scale**2


def test_larger_models_come_at_full_scale_only():
    assert [Level("large", 1.0), *(Level("small", scale) for scale in SCALES)] == LEVELS
    assert list_levels(["large", "small"], 0.5) == [Level("large", 0.5), Level("small", 0.5)]
    assert str(Level("small", 0.5)) == "small at 50% scale" and str(Level("small", 1.0)) == "small"


def test_no_level_is_finer_than_the_picture():
    """Larger models come at the best scale for it, and what was measured at others tells."""
    soft = list_levels(["large", "small"], most=0.75)
    best = [Level("large", 0.75), Level("small", 0.75), Level("small", 0.7), Level("small", 0.6)]
    assert soft[:4] == best and soft[-1] == LEVELS[-1]
    assert list_levels(["large", "small"], 0.9, most=0.5)[0].scale == 0.9
    # large at 1 takes 60 ms of 40, and a quarter of that at half the scale
    measured = {Level("large", 1.0): 0.06, Level("small", 0.5): 0.002}
    governor = Governor(LEVELS, 1, BUDGET, measured)
    halved = governor.among(list_levels(["large", "small"], most=0.5))
    assert halved.level == Level("large", 0.5)
    assert halved.among(LEVELS).level == Level("small", 1.0)
    unknown = Governor(LEVELS, 1, BUDGET, {Level("small", 1.0): 0.1})
    assert unknown.among(soft).level == Level("small", 0.5)


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        (0.002, Level("large", 1.0)),
        (0.03, Level("small", 1.0)),
        (0.05, Level("small", 0.7)),
        (0.1, Level("small", 0.5)),
        (9.0, Level("small", SCALES[-1])),
    ],
)
def test_the_best_level_that_fits(full, expected):
    for start in (1, 4, len(LEVELS) - 1):
        index, measured = choose_level(LEVELS, seconds_at(full), BUDGET, start)
        assert LEVELS[index] == expected
        assert LEVELS[index] in measured
        # going up is done in steps, as a guess may be wrong
        assert len(measured) <= (3 if start == 1 else 6 if start == 4 else 10)


def test_one_slow_frame_changes_nothing():
    governor = Governor(LEVELS, 1, BUDGET)
    now = 0.0
    for index in range(500):
        seconds = 0.3 if index % 20 == 19 else 0.035
        now += max(seconds, BUDGET)
        assert not governor.note(now, seconds)


def test_a_slow_frame_among_those_that_pass_changes_nothing():
    governor = Governor(LEVELS, 1, BUDGET)
    for index in range(500):
        seconds = 0.06 if index % 20 == 19 else 0.01
        assert not governor.note(index * BUDGET, seconds, is_full=False)


def test_frames_restored_between_those_that_pass_count_as_ever():
    """As in dry footage in which a look finds something now and then."""
    governor = Governor(LEVELS, 1, BUDGET)
    noted = [
        governor.note(index * BUDGET, 0.06 if is_full else 0.02, is_full=is_full)
        for index, is_full in enumerate([False, True, True, True] * 20)
    ]
    assert any(noted) and governor.index > 1


def test_room_before_a_dry_stretch_is_none_after_it():
    """As long as a better level must have room, it has to be seen to have it."""
    governor = Governor(LEVELS, LEVELS.index(Level("small", 0.7)), BUDGET)
    frames = [True] * 50 + [False] * 1000 + [True] * 50
    for index, is_full in enumerate(frames):
        assert not governor.note(index * BUDGET, 0.01, is_full=is_full)


def test_it_does_not_swing():
    """A level that has room alone but not in use is tried less and less often."""
    governor = Governor(LEVELS, LEVELS.index(Level("small", 0.7)), BUDGET)
    now, changes = 0.0, []
    while now < 300:
        # the better level takes more than its area says
        seconds = 0.06 if governor.index < 3 else 0.022 * (governor.level.scale / 0.7) ** 2
        now += max(seconds, BUDGET)
        if governor.note(now, seconds):
            changes.append((now, governor.index))
    tries = [now for now, index in changes if index == 2]
    gaps = [later - sooner for sooner, later in itertools.pairwise(tries)]
    assert 3 <= len(tries) <= 6
    assert gaps == sorted(gaps) and gaps[-1] > 3 * gaps[0]


def test_an_unmeasured_model_is_not_risen_to():
    governor = Governor(LEVELS, 1, BUDGET)
    assert not any(governor.note(index * BUDGET, 0.001) for index in range(2000))
