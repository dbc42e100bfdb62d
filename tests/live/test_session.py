"""Live restoration: statistics, recording, forwarding, and the whole run."""

import errno
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import processes
import pytest
from clips import Clip, Video, every, uneven
from standin import LiveStandIn, inverted
from test_capture import free_port

import mhnet_video.live.frame_buffer
import mhnet_video.live.session
from mhnet_video.cli.main import main
from mhnet_video.config import LiveConfig, LiveOutputs
from mhnet_video.errors import ConfigError, ReadError, WriteError
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.live.exchange import Latest
from mhnet_video.live.forwarder import Forwarder
from mhnet_video.live.rates import ThroughputMeter
from mhnet_video.live.recorder import Recorder
from mhnet_video.live.session import Live
from mhnet_video.pipelines.live import run_live

YUV420 = PixelLayout("yuv420p", "yuv", 8, 1, 1)
QUIET = LiveOutputs(has_window=False)


@pytest.fixture
def standin(monkeypatch):
    """A restorer in place of the network; its one instance, under one model's name."""
    made = LiveStandIn()
    monkeypatch.setattr(mhnet_video.live.session, "models_at_hand", lambda *_, **__: ["realtime"])
    monkeypatch.setattr(mhnet_video.live.session, "Restorer", lambda *_, **__: made)
    return made


def make_clip(folder, times, name="in.mp4", **options):
    return str(Clip(video=(Video(times=times, **options),), name=name).make(folder))


def live_frame(seconds, level=100, size=(64, 48), **options):
    width, height = size
    planes = [np.full((height, width), level, np.uint8)]
    planes += [np.full((height // 2, width // 2), 128, np.uint8)] * 2
    return Frame(tuple(planes), YUV420, round(seconds * 1e6), Fraction(1, 10**6), **options)


def times_of(path):
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


# the iterator


def test_frames_come_restored_with_times_and_statistics(tmp_path, standin):
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
    assert 0 < statistics.latency_seconds < 0.3
    assert statistics.to_dict()["source"] == clip
    # one frame is waited for, as it is a neighbour
    assert standin.windows[-12:] == [(2, 0), (3, 1), *[(4, 2)] * 9, (3, 2)]


def test_it_ends_after_its_time_and_when_closed(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 10))
    with Live(clip, LiveConfig(loop=True, seconds=0.7, scale=1.0)) as live:
        begin = time.monotonic()
        assert 10 <= len(list(live)) <= 20
        assert 0.6 < time.monotonic() - begin < 1.5
    with Live(clip, LiveConfig(loop=True, scale=1.0)) as live:
        threading.Timer(0.5, live.close).start()
        assert len(list(live)) > 3


def test_closing_ends_the_measuring(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 10))
    with Live(clip) as live:
        restore = standin.restore_frame

        def closing(frames, index):
            live.close()
            return restore(frames, index)

        standin.restore_frame = closing
        assert list(live) == [] and len(standin.windows) == 1


def test_a_slow_network_drops_and_does_not_lag(tmp_path, standin):
    standin.seconds = 0.1
    clip = make_clip(tmp_path, every(20, 100), rate=50)
    with Live(clip, LiveConfig(scale=1.0)) as live:
        ages = [frame.latency_seconds for frame in live]
        statistics = live.statistics
    assert 12 <= statistics.frames <= 24
    assert statistics.frames + statistics.dropped >= 96
    # two frames of the source and the network's own time, early and late alike
    early, late = np.median(ages[: len(ages) // 2]), np.median(ages[len(ages) // 2 :])
    assert max(early, late) < 0.1 + 2 * 0.02 + 0.05
    assert statistics.network_seconds == pytest.approx(0.1, abs=0.05)


def test_it_picks_a_scale_that_holds_the_rate(tmp_path, standin):
    standin.seconds = 0.1
    clip = make_clip(tmp_path, every(40, 60))
    with Live(clip) as live:
        frames = list(live)
        statistics = live.statistics
    assert statistics.scale <= 0.6 and standin.scale == statistics.scale
    assert len(frames) >= 50


def test_the_strength_may_change(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 10))
    with Live(clip, LiveConfig(strength=0.0, scale=1.0)) as live:
        first = next(live)
        live.strength = 1.0
        second = next(live)
    assert np.array_equal(first.after.planes[0], first.before.planes[0])
    assert not np.array_equal(second.after.planes[0], second.before.planes[0])


def test_the_next_model(tmp_path, standin, monkeypatch):
    clip = make_clip(tmp_path, every(40, 30))
    with Live(clip, LiveConfig(scale=1.0)) as live:
        assert live.next_model() == "one model only: realtime"
        monkeypatch.setattr(
            mhnet_video.live.session, "models_at_hand", lambda *_, **__: ["big", "small"]
        )
        next(live)
        live._models = ["big", "small"]
        assert live.next_model() == "big"
        next(live)
        assert live.statistics.model == "big"
        assert [live.next_model(), live.next_model()] == ["small", "big, small"]


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


def test_many_screens_count_once(tmp_path, standin, monkeypatch):
    clip = make_clip(tmp_path, every(40, 20))
    with Live(clip, LiveConfig(scale=1.0)) as live:
        noted = []
        monkeypatch.setattr(live._shown_meter, "note", lambda now, seconds: noted.append(seconds))
        frames = list(live)
        for frame in frames:
            for _ in range(20):
                live.shown(frame)
        live.shown(frames[0])  # a screen that is late
    assert len(noted) == len(frames)


def test_without_a_screen_the_statistics_are_those_of_restoration(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 5))
    with Live(clip, LiveConfig(scale=1.0)) as live:
        for _ in live:
            pass
        restored = live._restored_meter.median_seconds
        assert live.statistics.latency_seconds == restored > 0
        now = time.monotonic()
        for index in range(10):
            live._shown_meter.note(now - 1 + index / 10, 7.0)
        assert live.statistics.latency_seconds == 7


def test_the_newest_is_what_readers_get():
    latest: Latest[int] = Latest()
    assert latest.get(0, 0.01) is None
    for value in (5, 6, 7):
        latest.put(value)
    assert latest.get(0, 0.01) == (3, 7)
    assert latest.get(3, 0.01) is None
    threading.Timer(0.1, latest.put, [8]).start()
    assert latest.get(3, 2) == (4, 8)
    threading.Timer(0.1, latest.close).start()
    begin = time.monotonic()
    assert latest.get(4, 5) is None and time.monotonic() - begin < 2


# recording


def test_a_recording_has_the_times_at_which_frames_were_taken(tmp_path):
    times = [5.0, 5.04, 5.081, 5.2, 5.21, 9.7, 9.74]
    for name in ("out.mp4", "out.mkv"):
        recorder = Recorder(tmp_path / name, fps=25)
        for index, seconds in enumerate(times):
            recorder.put(live_frame(seconds, 30 * index))
        recorder.close()
        assert recorder.error is None and recorder.files == [str(tmp_path / name)]
        expected = np.subtract(times, times[0])
        assert np.allclose(times_of(tmp_path / name), expected, atol=0.001)
    assert recorder.frames == 7 and recorder.missed == 0


def test_segments_are_whole_files_with_numbers(tmp_path):
    recorder = Recorder(tmp_path / "out.mp4", fps=25, segment_seconds=1.0, wall_begin=1e9)
    for index in range(60):
        recorder.put(live_frame(10 + index * 0.04))
    recorder.put(live_frame(12.41, size=(96, 64)))
    recorder.close()
    assert [Path(name).name for name in recorder.files] == [
        "out-0001.mp4",
        "out-0002.mp4",
        "out-0003.mp4",
        "out-0004.mp4",
    ]
    lengths = [times_of(name) for name in recorder.files]
    assert [len(times) for times in lengths] == [25, 25, 10, 1]
    assert all(times[0] == 0 for times in lengths)
    with av.open(recorder.files[1]) as container:
        assert container.metadata["creation_time"].startswith("2001-09-09T01:46:51")
    with av.open(recorder.files[3]) as container:
        assert container.streams.video[0].width == 96


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_a_source_that_was_away_for_a_night(name, tmp_path):
    recorder = Recorder(tmp_path / name, fps=25)
    for seconds in (0.0, 0.04, 50_000.0, 50_000.04, 50_000.08):
        recorder.put(live_frame(seconds))
    recorder.close()
    times = times_of(tmp_path / name)
    assert times[:2] == [0.0, 0.04]
    assert np.allclose(times[-3:], [50_000.0, 50_000.04, 50_000.08], atol=0.001)
    assert recorder.frames == 5


def test_segments_go_on_after_those_that_are_there(tmp_path):
    for name in ("out-0001.mp4", "out-0007.mp4", "out-x.mp4", "other-0009.mp4"):
        (tmp_path / name).write_bytes(b"mine")
    recorder = Recorder(tmp_path / "out.mp4", fps=25, segment_seconds=1.0)
    for index in range(30):
        recorder.put(live_frame(index * 0.04))
    recorder.close()
    assert [Path(name).name for name in recorder.files] == ["out-0008.mp4", "out-0009.mp4"]
    assert (tmp_path / "out-0007.mp4").read_bytes() == b"mine"


@pytest.mark.parametrize("is_full", [True, False])
def test_a_camera_that_comes_back_with_another_range(is_full, tmp_path):
    white = {True: 255, False: 235}
    recorder = Recorder(tmp_path / "out.mp4", fps=25)
    for index, each in enumerate((is_full, not is_full)):
        recorder.put(live_frame(index * 0.04, white[each], full_range=each))
    recorder.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        levels = [np.asarray(f.planes[0])[0] for f in container.decode(video=0)]
    assert [abs(int(level) - white[is_full]) <= 1 for level in levels] == [True, True]


def test_another_size_is_fitted_into_one_file(tmp_path):
    recorder = Recorder(tmp_path / "out.mp4", fps=25)
    recorder.put(live_frame(0, 200))
    recorder.put(live_frame(0.04, 200, size=(128, 48)))
    recorder.put(live_frame(0.08, 200))
    recorder.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        first, second, third = (frame.to_ndarray() for frame in container.decode(video=0))
    assert abs(int(first[:48].mean()) - 200) <= 2 and abs(int(third[:48].mean()) - 200) <= 2
    # 128x48 becomes 64x24, with black above and below
    assert abs(int(second[14:34, :].mean()) - 200) <= 3
    assert second[:10].mean() < 22 and second[38:48].mean() < 22


def test_recordings_that_cannot_begin(tmp_path):
    (tmp_path / "there.mp4").write_bytes(b"mine")
    for name, said in [
        ("there.mp4", "exists already"),
        ("out.avi", "has no times"),
        ("out.xyz", "has the extension .xyz, which is not written"),
        ("nowhere/out.mp4", "does not exist"),
    ]:
        with pytest.raises(WriteError, match=said):
            Recorder(tmp_path / name, fps=25)
    with pytest.raises(WriteError, match="is a file"):
        Recorder("-", fps=25)
    assert (tmp_path / "there.mp4").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.mp4"]


def test_a_disk_that_fails_ends_the_recording_and_nothing_else(tmp_path, monkeypatch):
    create = mhnet_video.media.output_file.OutputFile._create_partial
    is_full = threading.Event()

    class Disk:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if is_full.is_set():
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(
        mhnet_video.media.output_file.OutputFile, "_create_partial", lambda self: Disk(create(self))
    )
    recorder = Recorder(tmp_path / "out.mp4", fps=25)
    for index in range(100):
        recorder.put(live_frame(index * 0.04, index))
    deadline = time.monotonic() + 10
    while recorder.frames < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    is_full.set()
    for index in range(100, 200):
        recorder.put(live_frame(index * 0.04, index))
    recorder.close()
    assert "out.mp4 cannot be written: the disk is full" in str(recorder.error)
    assert "What was recorded until then is in" in str(recorder.error)
    assert len(times_of(tmp_path / "out.partial.mp4")) > 50
    recorder.put(live_frame(9))


def test_a_disk_that_is_slow_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(mhnet_video.live.recorder, "_MAX_WAITING_BYTES", 10 * 64 * 48 * 3 // 2)
    released = threading.Event()
    write = mhnet_video.live.recorder._File.write

    def slow(self, frame):
        released.wait(5)
        write(self, frame)

    monkeypatch.setattr(mhnet_video.live.recorder._File, "write", slow)
    recorder = Recorder(tmp_path / "out.mp4", fps=25)
    begin = time.monotonic()
    for index in range(30):
        recorder.put(live_frame(index * 0.04))
    assert time.monotonic() - begin < 0.5
    released.set()
    recorder.close()
    assert 10 <= recorder.frames <= 12 and recorder.missed == 30 - recorder.frames


def test_a_recording_that_nobody_closes_ends_with_the_process(tmp_path):
    """An error of a program must not keep it running for ever."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_session import Recorder, live_frame\n"
        "recorder = Recorder('out.mp4', fps=25)\n"
        "for index in range(10): recorder.put(live_frame(index * 0.04))\n"
        "sys.exit('an error')\n"
    )
    done = processes.run(
        [sys.executable, "-c", code, str(Path(__file__).parents[1])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1 and done.stderr == "an error\n"
    assert len(times_of(tmp_path / "out.mp4")) == 10


@pytest.fixture
def recording(tmp_path):
    """A process that records a loop; gives it once its file grows."""
    clip = make_clip(tmp_path, every(40, 25))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import mhnet_video.live.session\n"
        "from standin import LiveStandIn\n"
        "mhnet_video.live.session.Restorer = lambda *_, **__: LiveStandIn()\n"
        "from mhnet_video.cli.main import main\n"
        "sys.exit(main(['live', sys.argv[2], '--loop', '--scale', '1', '--record', 'out.mp4']))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = processes.start(
        [sys.executable, "-c", code, str(Path(__file__).parents[1]), clip],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / "out.partial.mp4"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (partial.exists() and partial.stat().st_size > 9000):
        time.sleep(0.05)
    return process


@pytest.mark.slow
def test_a_killed_recording_plays(recording, tmp_path):
    time.sleep(2)
    recording.kill()
    recording.wait(30)
    times = times_of(tmp_path / "out.partial.mp4")
    assert len(times) > 20 and times[-1] > 1 and np.median(np.diff(times)) < 0.1


@pytest.mark.slow
def test_an_interrupt_completes_the_recording(recording, tmp_path):
    recording.send_signal(signal.SIGINT)
    out, err = recording.communicate(timeout=30)
    assert recording.returncode == 130 and "recorded: out.mp4" in out
    assert "Traceback" not in err and "ending" in err
    assert times_of(tmp_path / "out.mp4")


# forwarding


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "udp", "http", "rtmp"])
def test_frames_are_sent_on(kind):
    url = f"{kind}://127.0.0.1:{free_port()}" + ("/live/x" if kind == "rtmp" else "")
    listen = {"tcp": "?listen=1", "udp": ""}.get(kind, "")
    got = []

    def receive():
        options = {"listen": "1"} if kind in ("http", "rtmp") else {}
        with av.open(url + listen, options=options, timeout=20) as container:
            for frame in container.decode(video=0):
                got.append((float(frame.time), frame.to_ndarray()[:40, :40].mean()))
                if len(got) == 10:
                    return

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    time.sleep(0.5)
    forwarder = Forwarder(url, fps=25)
    begin = time.monotonic()
    index = 0
    while receiver.is_alive() and time.monotonic() - begin < 15:
        forwarder.put(live_frame(index * 0.04, 60 + index % 2 * 60))
        index += 1
        time.sleep(0.02)
    forwarder.close()
    assert len(got) == 10 and forwarder.frames >= 10
    steps = np.diff([when for when, _ in got])
    assert np.allclose(steps, 0.04, atol=0.003)
    assert {round(level / 60) for _, level in got} == {1, 2}


@pytest.mark.slow
def test_what_is_sent_is_whole_and_survives_a_source_that_is_away(monkeypatch):
    monkeypatch.setattr(mhnet_video.live.forwarder, "_STUCK_SECONDS", 0.5)
    got = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        forwarder = Forwarder(f"tcp://127.0.0.1:{server.getsockname()[1]}", fps=25)
        for index in range(25):
            forwarder.put(live_frame(index * 0.04, size=(64, 48)))
        server.settimeout(10)
        connection = server.accept()[0]
        thread = threading.Thread(
            target=lambda: got.extend(iter(lambda: connection.recv(4096), b""))
        )
        thread.start()
        time.sleep(1.5)  # the source gives nothing
        for index in range(25, 50):
            forwarder.put(live_frame(index * 0.04, 200, size=(128, 48)))
            time.sleep(0.01)
        assert forwarder.trouble == ""
        forwarder.close()
        thread.join(10)
        connection.close()
    assert forwarder.frames == 50
    with av.open(io.BytesIO(b"".join(got)), format="mpegts") as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert len(frames) == 50
    # 128x48 becomes 64x24, with black above and below
    assert abs(int(frames[-1][16:32].mean()) - 200) <= 4 and frames[-1][:8].mean() < 24


def test_a_receiver_that_is_not_there_is_tried_again():
    url = f"tcp://me:secret@127.0.0.1:{free_port()}/app/secret-key"
    forwarder = Forwarder(url, fps=25)
    deadline = time.monotonic() + 5
    while not forwarder.trouble and time.monotonic() < deadline:
        forwarder.put(live_frame(0))
        time.sleep(0.02)
    assert "takes nothing (connection refused); trying again." in forwarder.trouble
    assert "secret" not in forwarder.trouble
    assert forwarder.error is None
    begin = time.monotonic()
    forwarder.close()
    assert time.monotonic() - begin < 3
    with pytest.raises(ConfigError, match="frames are sent to an address"):
        Forwarder("out.mp4", fps=25)


# the whole


def test_a_run_records_all_and_reports(tmp_path, standin, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path, uneven(20))
    said, told = [], []
    report = run_live(
        clip,
        LiveConfig(scale=1.0),
        replace(QUIET, record="out.mp4"),
        on_message=said.append,
        on_statistics=told.append,
    )
    assert report.recorded == ("out.mp4",) and report.missed == 0 and not report.interrupted
    frames = report.statistics.frames
    assert frames + report.statistics.dropped == 20
    # each frame at its own time
    real = np.subtract(uneven(20), uneven(20)[0]) / 1000
    assert np.abs(np.subtract(times_of("out.mp4"), real)).max() < 0.005
    assert any(text.startswith("restoring with realtime: ") for text in said)
    with pytest.raises(WriteError, match="exists already"):
        run_live(clip, LiveConfig(), replace(QUIET, record="out.mp4"))


def test_what_there_was_no_time_for_is_recorded_as_it_came(tmp_path, standin):
    standin.seconds = 0.1
    clip = make_clip(tmp_path, every(20, 100), rate=50)
    out = tmp_path / "out.mp4"
    report = run_live(clip, LiveConfig(scale=1.0), replace(QUIET, record=str(out)))
    frames, dropped = report.statistics.frames, report.statistics.dropped
    assert 12 <= frames <= 24 and dropped == 100 - frames and report.missed == 0
    steps = np.diff(times_of(out))
    assert len(steps) == 99 and steps.min() > 0.015 and steps.max() < 0.025
    restored = 0
    with av.open(clip) as source, av.open(str(out)) as recording:
        both = zip(source.decode(video=0), recording.decode(video=0), strict=True)
        for before, after in both:
            wanted, got = (each.to_ndarray(format="gray").astype(float) for each in (before, after))
            is_restored = np.abs(255 - wanted - got).mean() < np.abs(wanted - got).mean()
            error = np.abs((255 - wanted if is_restored else wanted) - got).mean()
            assert error < 6
            restored += is_restored
    assert restored == frames


def test_what_came_until_the_end_is_recorded(tmp_path, standin):
    standin.seconds = 0.4
    clip = make_clip(tmp_path, every(20, 50), rate=50)
    out = tmp_path / "out.mp4"
    config = LiveConfig(scale=1.0, loop=True, seconds=1.5)
    report = run_live(clip, config, replace(QUIET, record=str(out)))
    times = times_of(out)
    assert times[-1] > 1.4 and max(np.diff(times)) < 0.05
    assert len(times) == report.statistics.frames + report.statistics.dropped


def test_a_changed_rate_changes_the_time_that_a_frame_may_take(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 10))
    with Live(clip, LiveConfig(scale=1.0)) as live:
        next(live)
        assert live._pacer.governor.budget_seconds == pytest.approx(0.04)
        live._camera.fps = 10.0
        next(live)
        assert live._pacer.governor.budget_seconds == pytest.approx(0.1)


def test_frames_that_nobody_could_keep_are_told(tmp_path, standin, monkeypatch):
    monkeypatch.setattr(mhnet_video.live.frame_buffer, "_MAX_BYTES", 8 * 64 * 48 * 3 // 2)
    standin.seconds = 0.4
    clip = make_clip(tmp_path, every(20, 100), rate=50)
    out = tmp_path / "out.mp4"
    report = run_live(clip, LiveConfig(scale=1.0), replace(QUIET, record=str(out)))
    assert report.missed > 20 and len(times_of(out)) + report.missed == 100


def test_recording_again_and_again_takes_a_name_of_its_own_each_time(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 25))
    stop, pressed = threading.Event(), []

    def press():
        body, kind = json.dumps({"key": "r"}), {"Content-Type": "application/json"}
        for number in range(6):
            if number == 5:
                (tmp_path / "away").rename(tmp_path / "moved")
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("POST", "/control", body, kind)
                pressed.append(connection.getresponse().status)
            time.sleep(0.15)
        time.sleep(0.3)
        stop.set()

    port, said = free_port(), []
    (tmp_path / "away").mkdir()
    out = tmp_path / "away" / "out.mp4"
    thread = threading.Timer(0.6, press)
    thread.start()
    report = run_live(
        clip,
        LiveConfig(loop=True, scale=1.0),
        replace(QUIET, record=str(out), serve=str(port)),
        on_message=said.append,
        stop=stop,
    )
    thread.join()
    assert report.interrupted and pressed == [200] * 6
    files = {Path(name).name for name in report.recorded}
    assert len(files) >= 3 and files == {path.name for path in (tmp_path / "moved").iterdir()}
    # a recording that cannot begin is told, and nothing ends
    assert any("does not exist; create it first" in text for text in said)


def test_a_stop_completes_the_recording(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 25))
    stop = threading.Event()
    threading.Timer(1.5, stop.set).start()
    out = tmp_path / "out.mp4"
    report = run_live(
        clip, LiveConfig(loop=True, scale=1.0), replace(QUIET, record=str(out)), stop=stop
    )
    assert report.interrupted
    seen = report.statistics.frames + report.statistics.dropped
    assert abs(len(times_of(out)) - seen) <= 1


def test_a_source_that_never_came(tmp_path, standin):
    url = f"tcp://127.0.0.1:{free_port()}"
    stop = threading.Event()
    said = []

    def listen(text):
        said.append(text)
        stop.set()

    report = run_live(url, LiveConfig(scale=1.0), QUIET, on_message=listen, stop=stop)
    assert report.interrupted and "refuses the connection" in said[0]
    text = tmp_path / "notes.txt"
    text.write_text("no video")
    with pytest.raises(ReadError, match="is not a video; name a video file"):
        run_live(str(text), LiveConfig(scale=1.0), QUIET)


def test_the_command_line(tmp_path, standin, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path, every(40, 40))
    words = ["live", clip, "--scale", "1", "--record", "out.mp4", "--stats", "--segment", "1"]
    assert main(words) == 0
    told = capsys.readouterr()
    restored, dropped = map(int, re.findall(r"(\d+) frames restored, (\d+) dropped", told.out)[0])
    assert restored + dropped == 40
    assert "recorded: out-0001.mp4, out-0002.mp4" in told.out
    assert " of 25.0 fps, latency " in told.err
    assert main(["live", clip]) == 1
    assert "there is no screen here; --serve 8080 shows" in capsys.readouterr().err
    assert main(["live", "nowhere.mp4"]) == 1
    assert main(["live", clip, "--segment", "5"]) == 2
    assert main(["live", clip, "--serve", "here"]) == 2
    assert main(["live", clip, "--output", "out.mp4", "--scale", "1"]) == 2
    monkeypatch.setattr(mhnet_video.live.source_address, "_devices", list)
    assert main(["live", "--list"]) == 1
    assert main(["live"]) == 1
    assert capsys.readouterr().err.count("there is no camera on this machine") == 2
