"""Recordings: their times, their parts, and what a disk that fails leaves of them."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import processes
import pytest
from clips import every
from test_session import live_frame, make_clip, times_of
from waiting import SECONDS, wait_until

import mhnet_video.live.recorder
import mhnet_video.media.output_file
from mhnet_video.errors import WriteError
from mhnet_video.live.recorder import Recorder, check_recording
from mhnet_video.live.recording_file import RecordingFile
from mhnet_video.live.rendering import fit

pytestmark = pytest.mark.beside


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
    clock = iter([1e9, 1e9, 2e9, 2e9])  # which is set while the second file is written
    recorder = Recorder(
        tmp_path / "out.mp4", fps=25, segment_seconds=1.0, wall_begin=lambda: next(clock)
    )
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
    with av.open(recorder.files[2]) as container:
        assert container.metadata["creation_time"].startswith("2033-05-18T03:33:32")
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


def test_pictures_of_odd_sizes_are_fitted_into_one_another(tmp_path):
    for number, (first, second) in enumerate(((63, 47), (320, 240)), 1):
        assert all(side % 2 == 0 for side in fit(320, 240, (first, second)))
        recorder = Recorder(tmp_path / f"{number}.mkv", fps=25)
        recorder.put(live_frame(0, 200, size=(191, 143)))
        recorder.put(live_frame(0.04, 200, size=(first, second)))
        recorder.close()
        assert recorder.error is None and recorder.frames == 2


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
    wait_until(lambda: recorder.frames == 100)
    is_full.set()
    for index in range(100, 200):
        recorder.put(live_frame(index * 0.04, index))
    recorder.close()
    assert "out.mp4 cannot be written: the disk is full" in str(recorder.error)
    assert "What was recorded until then is in" in str(recorder.error)
    assert len(times_of(tmp_path / "out.partial.mp4")) > 50
    recorder.put(live_frame(9))


def test_an_error_of_any_kind_is_told(tmp_path, monkeypatch):
    def fail(self, frame):
        raise ZeroDivisionError("Fraction(1, 0)")

    monkeypatch.setattr(RecordingFile, "write", fail)
    recorder = Recorder(tmp_path / "out.mp4", fps=25)
    recorder.put(live_frame(0))
    wait_until(lambda: recorder.error)
    recorder.close()
    assert "out.mp4: Fraction(1, 0)." in str(recorder.error)


def test_a_frame_an_hour_is_recorded(tmp_path):
    recorder = Recorder(tmp_path / "out.mp4", fps=1 / 3600)
    for index in range(3):
        recorder.put(live_frame(3600.0 * index))
    recorder.close()
    assert recorder.error is None
    assert np.allclose(times_of(tmp_path / "out.mp4"), [0, 3600, 7200], atol=0.001)


def test_a_file_that_is_restored_is_not_recorded_to(tmp_path):
    own = tmp_path / "out-0003.mp4"
    own.write_bytes(b"mine")
    for name, segment in (("out-0003.mp4", None), ("out.mp4", 60.0)):
        with pytest.raises(WriteError, match="is the input itself"):
            check_recording(str(tmp_path / name), segment, True, str(own))
    check_recording(str(tmp_path / "other.mp4"), 60.0, True, str(own))
    check_recording(str(tmp_path / "out.mp4"), None, True, str(own))


def test_a_disk_that_is_slow_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(mhnet_video.live.recorder, "_MAX_WAITING_BYTES", 10 * 64 * 48 * 3 // 2)
    released = threading.Event()
    write = RecordingFile.write

    def slow(self, frame):
        released.wait(SECONDS)
        write(self, frame)

    monkeypatch.setattr(RecordingFile, "write", slow)
    recorder = Recorder(tmp_path / "out.mp4", fps=25)
    for index in range(30):
        recorder.put(live_frame(index * 0.04))
    assert recorder.frames == 0  # all were taken before the disk has taken one
    released.set()
    recorder.close()
    assert 10 <= recorder.frames <= 12 and recorder.missed == 30 - recorder.frames


def test_a_recording_that_nobody_closes_ends_with_the_process(tmp_path):
    """An error of a program must not keep it running for ever."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_recorder import Recorder, live_frame\n"
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
        "import sys; sys.path.insert(0, sys.argv[1]); import mhnet_video.live.adaptive_restorer\n"
        "from standin import LiveStandIn\n"
        "mhnet_video.live.adaptive_restorer.Restorer = lambda *_, **__: LiveStandIn()\n"
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
    wait_until(lambda: partial.exists() and partial.stat().st_size > 9000)
    return process


@pytest.mark.slow
def test_a_killed_recording_plays(recording, tmp_path):
    partial = tmp_path / "out.partial.mp4"
    size = partial.stat().st_size
    wait_until(lambda: partial.stat().st_size > 2 * size)
    recording.kill()
    recording.wait(SECONDS)
    times = times_of(partial)
    assert len(times) > 20 and times == sorted(set(times))


@pytest.mark.slow
def test_an_interrupt_completes_the_recording(recording, tmp_path):
    recording.send_signal(signal.SIGINT)
    out, err = recording.communicate(timeout=SECONDS)
    assert recording.returncode == 130 and "recorded: out.mp4" in out
    assert "Traceback" not in err and "ending" in err
    assert times_of(tmp_path / "out.mp4")
