"""Rates by times that are given."""

import pytest

from mhnet_video.live.rates import ThroughputMeter

pytestmark = pytest.mark.beside


def test_rates_tell_of_an_outage_at_once():
    meter = ThroughputMeter(2.0)
    for index in range(50):
        meter.note(index * 0.04, 0.1)
    assert meter.rate(49 * 0.04) == pytest.approx(25, rel=0.02)
    assert meter.rate(49 * 0.04 + 1) < 15
    assert meter.rate(49 * 0.04 + 5) == 0
    assert meter.median_seconds == 0.1
    slow = ThroughputMeter(2.0)
    slow.note(0.0, 0.0)
    slow.note(1.0, 0.0)
    assert slow.rate(1.9) == pytest.approx(1, rel=0.2)
