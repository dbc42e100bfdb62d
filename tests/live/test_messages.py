"""What a person is told during a live run, and when, by a clock of its own."""

from dataclasses import replace

import pytest
from test_page import STATISTICS
from waiting import Clock

from mhnet_video.live.messages import ChangeReporter, Messages
from mhnet_video.live.overlay import Overlay

pytestmark = pytest.mark.beside

CALM = replace(STATISTICS, trouble="", model="", scale=1.0)


def test_a_message_stays_on_the_screen_for_a_while():
    clock, said = Clock(), []
    messages = Messages(said.append, clock)
    messages.say("first")
    clock.now += 3
    messages.say("the banner has it", is_on_screen=False)
    assert messages.on_screen == "first"
    clock.now += 1.1
    assert messages.on_screen == ""
    assert said == ["first", "the banner has it"]


def test_each_change_is_reported_once():
    clock, said = Clock(), []
    reporter = ChangeReporter(Messages(said.append, clock), clock=clock)
    level = replace(CALM, model="small", network_seconds=0.02, source_fps=25.0)
    for statistics in (CALM, CALM, level, level, replace(level, trouble="It is gone."), level):
        clock.now += 0.2
        reporter.report(lambda given=statistics: given)
    assert said == [
        "restoring with small: 20 ms a frame, the source gives 25 a second",
        "It is gone.",
        f"{CALM.source} is back",
    ]
    assert reporter.trouble == ""


def test_statistics_are_reported_once_a_second_and_read_no_more_than_is_needed():
    clock, reported, read = Clock(), [], []
    reporter = ChangeReporter(Messages(lambda text: None, clock), reported.append, clock)

    def statistics():
        read.append(clock.now)
        return CALM

    for _ in range(1000):
        reporter.report(statistics)
        clock.now += 0.01
    assert len(reported) == 10 and 80 <= len(read) <= 100


def test_the_keys_are_shown_for_the_first_seconds():
    clock = Clock()
    overlay = Overlay(clock)
    state = {"is_frozen": False, "recording": "", "message": ""}
    clock.now += 1000  # of a source that does not come
    assert "q quit" in overlay.lines(CALM, **state)[-1]
    for _ in range(3):
        overlay.begin()
        clock.now += 5
    lines = overlay.lines(CALM, is_frozen=True, recording="out.mp4", message="back")
    assert lines[-3:] == ["frozen: space goes on", "recording out.mp4", "back"]
