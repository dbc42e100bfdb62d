"""The whole of live mode: what is recorded, reported and told."""

import errno
import http.client
import json
import re
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import Audio, Clip, Video, every, uneven
from test_capture import free_port
from test_session import QUIET, make_clip, times_of
from waiting import SECONDS, wait_until

import mhnet_video.live.frame_buffer
import mhnet_video.live.source_address
from mhnet_video.cli.main import main
from mhnet_video.config import LiveConfig
from mhnet_video.errors import ReadError, WriteError
from mhnet_video.live.recording_file import RecordingFile
from mhnet_video.pipelines.live import run_live

pytestmark = pytest.mark.alone


def test_a_run_records_all_and_reports(tmp_path, standin, nothing_drops, monkeypatch):
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
    assert frames == 20 and report.statistics.dropped == 0
    # each frame at its own time
    real = np.subtract(uneven(20), uneven(20)[0]) / 1000
    assert np.abs(np.subtract(times_of("out.mp4"), real)).max() < 0.005
    assert any(text.startswith("restoring with realtime: ") for text in said)
    with pytest.raises(WriteError, match="exists already"):
        run_live(clip, LiveConfig(), replace(QUIET, record="out.mp4"))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_recording_has_the_sound_in_step(tmp_path, standin, nothing_drops, name):
    sound = Audio(start=0.5, seconds=1.0)
    clip = Clip(video=(Video(times=every(40, 50)),), audio=(sound,)).make(tmp_path)
    out = tmp_path / name
    report = run_live(clip, LiveConfig(scale=1.0), replace(QUIET, record=str(out)))
    assert not report.lost and report.missed == 0
    found = {}
    for path in (clip, out):
        with av.open(str(path)) as container:
            frames = list(container.decode(audio=0))
        with av.open(str(path)) as container:
            begin = next(container.decode(video=0)).time
        found[path] = frames[0].time - begin, frames[-1].time - begin
        assert {frame.sample_rate for frame in frames} == {48000}
    # the clock by which frames were taken may be some milliseconds off that of the sound
    assert np.allclose(found[clip], found[out], atol=0.045)


def test_what_there_was_no_time_for_is_recorded_as_it_came(tmp_path, standin):
    standin.seconds = 0.1
    clip = make_clip(tmp_path, every(20, 100), rate=50)
    out = tmp_path / "out.mp4"
    report = run_live(clip, LiveConfig(scale=1.0), replace(QUIET, record=str(out)))
    frames, dropped = report.statistics.frames, report.statistics.dropped
    assert 0 < frames < 50 and dropped == 100 - frames and report.missed == 0
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
    assert max(np.diff(times)) < 0.05
    assert len(times) == report.statistics.frames + report.statistics.dropped


def test_frames_that_nobody_could_keep_are_told(tmp_path, standin, monkeypatch):
    monkeypatch.setattr(mhnet_video.live.frame_buffer, "_MAX_BYTES", 8 * 64 * 48 * 3 // 2)
    standin.seconds = 0.4
    clip = make_clip(tmp_path, every(20, 100), rate=50)
    out = tmp_path / "out.mp4"
    report = run_live(clip, LiveConfig(scale=1.0), replace(QUIET, record=str(out)))
    assert report.missed > 20 and len(times_of(out)) + report.missed == 100


def test_recording_again_and_again_takes_a_name_of_its_own_each_time(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 25))
    stop, pressed, said = threading.Event(), [], []
    away = tmp_path / "away"

    def ask(method, path, body=None, **headers):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def is_recording():
        return bool(json.loads(ask("GET", "/status.json")[1])["recording"])

    def press():
        body = json.dumps({"key": "r"})
        pressed.append(ask("POST", "/control", body, **{"Content-Type": "application/json"})[0])

    def press_again_and_again():
        try:
            for number in range(5):
                wait_until(lambda wanted=number % 2 == 0: is_recording() is wanted)
                press()
            wait_until(lambda: not is_recording())
            away.rename(tmp_path / "moved")
            press()
            wait_until(lambda: any("does not exist; create it first" in text for text in said))
        finally:
            stop.set()

    port = free_port()
    away.mkdir()
    thread = threading.Thread(target=press_again_and_again)
    report = run_live(
        clip,
        LiveConfig(loop=True, scale=1.0),
        replace(QUIET, record=str(away / "out.mp4"), serve=str(port)),
        on_message=lambda text: said.append(text) or (len(said) == 1 and thread.start()),
        stop=stop,
    )
    thread.join()
    assert report.interrupted and pressed == [200] * 6
    files = {Path(name).name for name in report.recorded}
    assert len(files) == 3 and files == {path.name for path in (tmp_path / "moved").iterdir()}
    # a recording that cannot begin is told, and nothing ends
    assert "does not exist; create it first" in said[-1]


def test_a_stop_completes_the_recording(tmp_path, standin):
    clip = make_clip(tmp_path, every(40, 25))
    stop = threading.Event()
    out = tmp_path / "out.mp4"
    report = run_live(
        clip,
        LiveConfig(loop=True, scale=1.0),
        replace(QUIET, record=str(out)),
        on_statistics=lambda statistics: stop.set() if statistics.frames > 10 else None,
        stop=stop,
    )
    assert report.interrupted
    seen = report.statistics.frames + report.statistics.dropped
    assert abs(len(times_of(out)) - seen) <= 1


@pytest.mark.parametrize("serves", [False, True])
def test_a_recording_that_fails_ends_a_run_that_does_nothing_else(
    tmp_path, standin, serves, monkeypatch
):
    """Else a service manager would take it for one that records."""

    def fail(self, frame):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordingFile, "write", fail)
    clip, stop, said = make_clip(tmp_path, every(40, 25)), threading.Event(), []

    def listen(text):
        said.append(text)
        if "No space left" in text:
            stop.set()

    outputs = replace(QUIET, record=str(tmp_path / "out.mp4"), serve="0" if serves else None)
    with pytest.raises(WriteError, match="No space left"):
        run_live(clip, LiveConfig(loop=True, scale=1.0), outputs, on_message=listen, stop=stop)
    assert stop.is_set() is serves


def test_a_receiver_that_never_took_anything_is_told(tmp_path, standin):
    clip, stop = make_clip(tmp_path, every(40, 50)), threading.Event()

    def listen(text):
        if "takes nothing (connection refused)" in text:
            stop.set()

    outputs = replace(QUIET, output=f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(WriteError, match="nothing was sent"):
        run_live(clip, LiveConfig(loop=True, scale=1.0), outputs, on_message=listen, stop=stop)
    assert stop.is_set()


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
