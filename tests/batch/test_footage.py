"""How long a recording is, whatever its clock says, and when it was made."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from clips import Clip, Video, every

from mhnet_video.batch.footage import _time_of, look_at
from mhnet_video.frame import Frame
from mhnet_video.media.formats.transport_clock import goes_on_evenly
from mhnet_video.media.reading.reader import VideoReader

WRAP_SECONDS = (1 << 33) / 90_000
MORNING = datetime(2023, 6, 15, 10, 20, 30, tzinfo=UTC)


def recording(folder: Path, name: str, *starts: float) -> Path:
    """Two seconds from each of some times of a clock, one behind the other."""
    parts = []
    for start in starts:
        times = tuple(round(1000 * start) + time for time in every(40, 50))
        clip = Clip(name="part.ts", video=(Video(times=times),), options=(("mpegts_copyts", "1"),))
        parts.append(clip.make(folder).read_bytes())
    path = folder / name
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize(
    ("starts", "is_even"),
    [((0, 0), False), ((500, 1), False), ((0, 9000), False), ((0, 2), True), ((7,), True)],
    ids=str,
)
def test_a_recording_whose_clock_jumps_is_as_long_as_its_pictures(starts, is_even, tmp_path):
    path = recording(tmp_path, "clip.ts", *starts)
    assert goes_on_evenly(str(path)) == is_even
    assert look_at(path).seconds == pytest.approx(2 * len(starts), abs=0.1)
    with VideoReader(path) as reader:
        guess = reader.num_frames
        frames = sum(isinstance(item, Frame) for item in reader)
    assert frames == 50 * len(starts)
    assert guess is None or abs(guess - frames) <= 2


def test_a_clock_that_begins_again_within_a_recording_goes_on(tmp_path):
    path = recording(tmp_path, "clip.ts", WRAP_SECONDS - 1)
    assert goes_on_evenly(str(path))
    assert look_at(path).seconds == pytest.approx(2, abs=0.1)


def test_what_is_no_transport_stream_is_taken_as_it_is(tmp_path):
    path = Clip(video=(Video(times=every(40, 50)),)).make(tmp_path)
    assert goes_on_evenly(str(path)) and goes_on_evenly(str(tmp_path / "none"))
    assert look_at(path).seconds == pytest.approx(2, abs=0.1)


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
