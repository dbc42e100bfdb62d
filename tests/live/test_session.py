"""Live restoration, frame by frame: what comes, what is dropped, and when it ends."""

import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import Clip, Video, every, uneven
from standin import inverted
from waiting import Clock, wait_until

from mhnet_video.config import LiveConfig, LiveOutputs
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.live.capture import Camera
from mhnet_video.live.model_choice import ModelChoice
from mhnet_video.live.session import Live, _Deadline

YUV420 = PixelLayout("yuv420p", "yuv", 8, 1, 1)
QUIET = LiveOutputs(has_window=False)


def make_clip(folder, times, name="in.mp4", **options):
    return str(Clip(video=(Video(times=times, **options),), name=name).make(folder))


def live_frame(seconds, level=100, size=(64, 48), **options):
    width, height = size
    planes = [np.full((height, width), level, np.uint8)]
    planes += [np.full((-(-height // 2), -(-width // 2)), 128, np.uint8)] * 2
    return Frame(tuple(planes), YUV420, round(seconds * 1e6), Fraction(1, 10**6), **options)


def times_of(path):
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def test_frames_come_restored_with_times_and_statistics(tmp_path, standin, nothing_drops):
    clip = make_clip(tmp_path, uneven(12))
    before = time.time()
    with Live(clip, LiveConfig(scale=1.0)) as live:
        frames = list(live)
        statistics = live.statistics
    assert [frame.number for frame in frames] == list(range(12))
    taken = [frame.time for frame in frames]
    expected = np.diff(uneven(12)) / 1000
    assert np.allclose(np.diff(taken), expected, atol=0.003)
    assert before < taken[0] < time.time()
    for frame in frames:
        assert np.array_equal(frame.after.planes[0], inverted(frame.before).planes[0])
        assert frame.rgb().shape == (48, 64, 3) and frame.rgb().dtype == np.uint8
    assert statistics.frames == 12 and statistics.dropped == 0 and statistics.trouble == ""
    assert (statistics.width, statistics.height) == (64, 48)
    assert statistics.latency_seconds > 0 and statistics.network_seconds > 0
    assert statistics.to_dict()["source"] == clip
    # one frame is waited for, as it is a neighbour
    assert standin.windows[-12:] == [(2, 0), (3, 1), *[(4, 2)] * 9, (3, 2)]


def test_closing_ends_the_measuring(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 10))
    with Live(clip) as live:
        restore = standin.restore_frame

        def closing(frames, index, **how):
            live.close()
            return restore(frames, index)

        standin.restore_frame = closing
        assert list(live) == [] and len(standin.windows) == 1


def test_the_strength_may_change(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 10))
    with Live(clip, LiveConfig(strength=0.0, scale=1.0)) as live:
        first = next(live)
        live.strength = 1.0
        second = next(live)
    assert np.array_equal(first.after.planes[0], first.before.planes[0])
    assert not np.array_equal(second.after.planes[0], second.before.planes[0])


def test_a_run_ends_after_its_time_with_one_last_look():
    clock = Clock()
    deadline = _Deadline(0.7, clock)
    assert deadline.next_wait() > 0
    clock.now += 0.69
    assert deadline.next_wait() > 0
    clock.now += 0.02
    assert deadline.next_wait() == 0
    with pytest.raises(StopIteration):
        deadline.next_wait()
    endless = _Deadline(None, clock)
    clock.now += 1e9
    assert endless.next_wait() > 0


def test_it_ends_after_its_time_and_when_closed(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 10))
    with Live(clip, LiveConfig(loop=True, seconds=0.3, scale=1.0)) as live:
        assert list(live)
    with Live(clip, LiveConfig(loop=True, scale=1.0)) as live:
        assert next(live) is not None
        closing = threading.Thread(target=live.close)
        closing.start()
        for _ in live:
            pass
        closing.join()


def test_a_slow_network_drops_and_does_not_lag(tmp_path, standin):
    """However many frames come meanwhile, the next one restored is the newest with a neighbour."""
    clip = make_clip(tmp_path, every(20, 100), rate=50)
    came = []

    def slow(frames, index, **how):
        came.append(live._camera.captured)
        wait_until(lambda: live._camera.captured >= min(came[-1] + 5, 100))
        came[-1] = live._camera.captured
        return inverted(frames[index])

    with Live(clip, LiveConfig(scale=1.0)) as live:
        numbers = []
        for frame in live:
            standin.restore_frame = slow  # the first frame is one to measure with
            if len(came) > 1 and came[-2] < 100:  # the last ones are few, and taken in turn
                assert frame.number >= came[-2] - 2  # one is waited for as a neighbour
            numbers.append(frame.number)
        statistics = live.statistics
    assert numbers == sorted(set(numbers)) and numbers[-1] == 99
    assert statistics.frames == len(numbers) <= 100 / 4
    assert statistics.frames + statistics.dropped == 100 - numbers[0]


def test_it_picks_a_scale_that_holds_the_rate(tmp_path, standin):
    standin.seconds = 0.1
    clip = make_clip(tmp_path, every(40, 60))
    with Live(clip) as live:
        for _ in live:
            pass
        statistics = live.statistics
    assert statistics.scale <= 0.6 and standin.scale == statistics.scale


def test_the_network_has_the_time_that_the_filter_leaves(tmp_path, standin, monkeypatch):
    clip = make_clip(tmp_path, every(40, 10))
    with Live(clip, LiveConfig(scale=1.0)) as live:
        next(live)
        assert live._restorer.budget_seconds == pytest.approx(0.04)
        monkeypatch.setattr(Camera, "fps", 10.0)
        live._restorer._filter.seconds = 0.02
        next(live)
        assert live._restorer.budget_seconds == pytest.approx(0.08, abs=0.001)
        live._restorer._filter.seconds = 0.09
        next(live)
        assert live._restorer.budget_seconds == pytest.approx(0.025, abs=0.001)


def test_a_model_that_is_asked_for_is_used_from_the_next_frame_on(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 30))
    with Live(clip, LiveConfig(scale=1.0)) as live:
        assert live.next_model() == "one model only: realtime"
        next(live)
        assert live.statistics.model == "realtime"
        live._restorer._choice = ModelChoice(["big", "small"], ["big", "small"])
        assert live.next_model() == "big"
        next(live)
        assert live.statistics.model == "big"
