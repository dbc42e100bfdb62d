"""Rate and latency of a live run, by a clock of its own."""

import pytest
from test_session import live_frame
from waiting import Clock

from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.statistics import DisplayMeter

pytestmark = pytest.mark.beside


def frame_of(number, arrival):
    frame = live_frame(number * 0.04)
    return LiveFrame(frame, frame, number, 0.0, arrival)


def test_many_screens_count_once_and_the_first_one_counts():
    clock = Clock()
    meter = DisplayMeter(clock)
    for number in range(50):
        frame = frame_of(number, clock.now - 0.1)
        meter.shown(frame)
        clock.now += 0.01
        for _ in range(20):
            meter.shown(frame)  # of other screens
        clock.now += 0.03
    meter.shown(frame_of(0, 0.0))  # a screen that is late
    fps, latency_seconds = meter.read()
    assert fps == pytest.approx(25, rel=0.03) and latency_seconds == pytest.approx(0.1)


def test_without_a_screen_the_statistics_are_those_of_restoration():
    clock = Clock()
    meter = DisplayMeter(clock)
    assert meter.read() == (0, 0)
    for number in range(20):
        clock.now += 0.1
        meter.restored(frame_of(number, clock.now - 0.2))
    assert meter.read() == (pytest.approx(10), pytest.approx(0.2))
    for number in range(10):
        clock.now += 0.2
        meter.shown(frame_of(number, clock.now - 7))
    assert meter.read() == (pytest.approx(5), pytest.approx(7))
