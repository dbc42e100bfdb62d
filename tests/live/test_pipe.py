"""Streams on standard output: what is in them, who reads them, and what else may be in the pipe."""

import contextlib
import io
import os
import re
import sys
import threading

import av
import numpy as np
import processes
import pytest
from clips import Audio, Clip, Video, every
from test_session import live_frame
from waiting import wait_until

from mhnet_video.cli.main import main
from mhnet_video.errors import WriteError
from mhnet_video.live.pipe import PipeWriter
from mhnet_video.live.sound import SoundClock
from mhnet_video.live.stream_formats import PIPED


@contextlib.contextmanager
def standard_output(descriptor):
    """What a process writes to is something else for a while."""
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def piped(name):
    """A stream of that format, and the end from which it is read."""
    reading, writing = os.pipe()
    with standard_output(writing):
        writer = PipeWriter(name, fps=25)
    os.close(writing)
    return writer, reading


@pytest.mark.parametrize("name", PIPED)
def test_frames_come_out_of_the_pipe_at_their_times(name):
    writer, reading = piped(name)
    got = []
    with open(reading, "rb") as file:
        thread = threading.Thread(target=lambda: got.append(file.read()))
        thread.start()
        times = [5 + 0.04 * index + 0.01 * (index % 3) for index in range(20)]
        for index, seconds in enumerate(times):
            writer.put(live_frame(seconds, 60 + index % 2 * 60))
        writer.close()
        thread.join()
    assert writer.frames == 20 and writer.error is None
    with av.open(io.BytesIO(got[0]), format=name) as container:
        frames = list(container.decode(video=0))
    assert [round(frame.to_ndarray()[:40, :40].mean() / 60) for frame in frames] == [1, 2] * 10
    if name in ("mpegts", "nut"):
        shown = [float(frame.time) for frame in frames]
        assert np.allclose(np.diff(shown), np.diff(times), atol=0.001)


def test_a_reader_may_leave_when_it_has_seen_enough():
    writer, reading = piped("mpegts")
    writer.put(live_frame(0))
    assert os.read(reading, 188)[0] == 0x47
    assert not writer.has_ended
    os.close(reading)
    # found out without anything to write
    assert writer.has_ended
    writer.put(live_frame(0.04))
    writer.close()
    assert writer.error is None


def test_a_reader_that_closes_at_once_is_told_about():
    writer, reading = piped("mpegts")
    os.close(reading)
    writer.put(live_frame(0))
    wait_until(lambda: writer.error)
    said = "standard output cannot be written: the program that reads it has ended."
    assert isinstance(writer.error, WriteError) and str(writer.error) == said
    writer.close()


def test_a_reader_that_is_slow_holds_nobody_up(monkeypatch):
    monkeypatch.setattr("mhnet_video.live.pipe._MAX_UNREAD_BYTES", 3 * 64 * 48)
    writer, reading = piped("mjpeg")
    for index in range(3000):
        # noise, so that the pipe is full soon
        writer.put(live_frame(index * 0.04, np.random.default_rng(index).integers(256)))
    with open(reading, "rb") as file:
        thread = threading.Thread(target=file.read)
        thread.start()
        writer.close()
        thread.join()
    assert 0 < writer.frames < 3000 and writer.error is None


def test_sound_follows_itself_and_stays_in_step():
    clock = SoundClock()
    # the clock of the frames is corrected by jumps of some milliseconds; the sound has no gaps
    rng = np.random.default_rng(1)
    wanted = [index * 0.02 + rng.uniform(-0.01, 0.01) for index in range(500)]
    times = [clock.time(each, 0.02) for each in wanted]
    assert np.abs(np.diff(times) - 0.02).max() < 0.001
    # it follows a drift
    wanted = [10 + index * 0.02 * 1.001 for index in range(5000)]
    times = [clock.time(each, 0.02) for each in wanted]
    assert abs(times[-1] - wanted[-1]) < 0.01
    # a gap stays a gap, and what was heard is not heard again
    assert clock.time(wanted[-1] + 3, 0.02) == pytest.approx(wanted[-1] + 3)
    assert clock.time(wanted[-1] + 2, 0.02) is None


def run_live(*words):
    return processes.run(
        [sys.executable, "-m", "mhnet_video", "live", *map(str, words)], text=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mpegts", "h264"])
def test_standard_output_has_the_stream_and_nothing_else(tmp_path, name):
    sound = Audio(start=0.5, seconds=2.0)
    clip = Clip(video=(Video(times=every(40, 75)),), audio=(sound,)).make(tmp_path)
    done = run_live(clip, "--output", "-", "--format", name, "--stats", "--scale", "1")
    assert done.returncode == 0, done.stderr
    said = done.stderr.decode()
    assert re.search(r"sent: \d+ frames", said)
    with av.open(io.BytesIO(done.stdout), format=name) as container:
        pictures, heard = [], []
        for packet in container.demux():
            if packet.size:
                kept = pictures if packet.stream.type == "video" else heard
                kept.append(float(packet.pts * packet.time_base) if name == "mpegts" else 0.0)
    if name == "mpegts":
        # whole packets of 188 bytes, each with its mark: no line of text is among them
        assert set(done.stdout[::188]) == {0x47} and len(done.stdout) % 188 == 0
        assert 0.42 < heard[0] - pictures[0] < 0.55
        assert 1.8 < heard[-1] - heard[0] < 2.1
    else:
        assert done.stdout[:4] == b"\0\0\0\1" and not heard
        assert "not kept: sound (aac): raw H.264 has no place for it" in said
    assert len(pictures) > 40


@pytest.mark.slow
def test_it_ends_when_the_pipe_closes(tmp_path):
    clip = Clip(video=(Video(times=every(40, 50)),)).make(tmp_path)
    command = [sys.executable, "-m", "mhnet_video", "live", clip, "--loop", "--output", "-"]
    process = processes.start(command, stdout=-1, stderr=-1)
    assert process.stdout.read(188)[0] == 0x47
    process.stdout.close()
    assert process.wait(processes.SECONDS) == 0
    assert b"Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_a_pipe_that_closes_at_once(tmp_path):
    clip = Clip(video=(Video(times=every(40, 50)),)).make(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mhnet_video", "live", clip, "--loop", "--output", "-"]
    process = processes.start(command, stdout=writing, stderr=-1)
    os.close(writing)
    assert process.wait(processes.SECONDS) == 1
    lines = process.stderr.read().decode().splitlines()
    assert lines[-1] == (
        "mhnet-video: standard output cannot be written: the program that reads it has ended."
    )


def test_a_format_that_is_none_is_refused(tmp_path, standin, capfd):
    clip = Clip(video=(Video(times=every(40, 50)),)).make(tmp_path)
    assert main(["live", str(clip), "--loop", "--output", "-", "--format", "gif"]) == 1
    said = "mhnet-video: gif cannot be piped; --format is one of mpegts, nut, h264, mjpeg.\n"
    assert capfd.readouterr() == ("", said)
