"""What containers say about when a recording was made."""

from datetime import UTC, datetime

import pytest

from mhnet_video.batch.footage import _time_of

MORNING = datetime(2023, 6, 15, 10, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ("2023-06-15T10:20:30.000000Z", MORNING),
        ("2023-06-15 10:20:30", MORNING),
        ("2023-06-15T12:20:30+02:00", MORNING),
        ("2023-06-15T10:20:30.123456789Z", MORNING.replace(microsecond=123456)),
        # clocks that were never set
        ("1904-01-01T00:00:00.000000Z", None),
        ("1970-01-01T00:00:12.000000Z", None),
        ("1980-01-06T00:00:00.000000Z", None),
        ("yesterday", None),
    ],
)
def test_the_time_of_a_recording(said, time):
    assert _time_of({"creation_time": said}) == time
    assert _time_of({}) is None
