"""Live sources: files at their own speed, and streams of a second process that come and go."""

import contextlib
import errno
import functools
import http.server
import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import processes
import pytest
from clips import Audio, Clip, Video, every, make_frame, picture, rotation, uneven
from waiting import SECONDS, wait_until

import mhnet_video.live.capture
import mhnet_video.live.frame_buffer
import mhnet_video.live.packet_decoder
import mhnet_video.live.reconnection
import mhnet_video.live.source_address
from mhnet_video.errors import ReadError
from mhnet_video.live.capture import Camera
from mhnet_video.live.capture_clock import CaptureClock
from mhnet_video.live.connection_events import TIME_BASE
from mhnet_video.live.file_pacing import FilePacing
from mhnet_video.live.frame_buffer import FrameBuffer
from mhnet_video.live.packet_decoder import CodecChangedError, PacketDecoder
from mhnet_video.live.rates import RateLimiter, RateMeter
from mhnet_video.live.reconnection import (
    Decision,
    Life,
    NextStep,
    Reconnection,
    State,
    pause_after,
)
from mhnet_video.live.source_address import (
    SourceAddress,
    formats_in,
    is_hopeless,
    is_unanswered,
    list_cameras,
    resolve_address,
    why_not_opened,
)
from mhnet_video.locator import shown
from mhnet_video.media.reading.frame_maker import FrameMaker

STREAMER = Path(__file__).parents[1] / "streamer.py"


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def sender():
    """Starts processes that stream."""
    return lambda url, *words, **options: processes.start(
        [sys.executable, str(STREAMER), url, *words], **options
    )


def url_pair(kind):
    """What is read, and what is sent to."""
    if kind == "udp":
        url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
        return url, url
    if kind == "tcp":
        url = f"tcp://127.0.0.1:{free_port()}"
        return url, url + "?listen=1"
    path = "cam.ts" if kind == "http" else "stream"
    url = f"{kind}://127.0.0.1:{free_port()}/{path}"
    return url, url


def frames_for(camera, seconds=SECONDS, wanted=10_000):
    """What a fast consumer gets until the end, until it has enough, or in a time."""
    end = time.monotonic() + seconds
    got = []
    while time.monotonic() < end and len(got) < wanted:
        try:
            selection = camera.newest(0.05)
        except StopIteration:
            break
        if selection is not None:
            got.append(selection)
    return got


def file_camera(path, **options):
    camera = Camera(resolve_address(str(path)), **options)
    camera.release()
    return camera


# files


def test_a_file_plays_at_its_own_speed(tmp_path, nothing_drops):
    times = uneven(20)
    clip = Clip(video=(Video(times=times),)).make(tmp_path)
    with file_camera(clip) as camera:
        begin = time.monotonic()
        got = frames_for(camera)
        took = time.monotonic() - begin
    # not sooner; how much later is the machine's matter, and the frames' times are exact
    assert took >= times[-1] / 1000
    assert [selection.captured.number for selection in got] == list(range(20))
    assert sum(selection.skipped for selection in got) == 0
    shown = [w.frames[w.index].pts * 1e-6 for w in got]
    expected = [t / 1000 - times[0] / 1000 for t in times]
    assert np.allclose(np.subtract(shown, shown[0]), expected, atol=0.002)
    # each with its neighbours, the edge ones without those that do not exist
    assert [len(selection.frames) for selection in got] == [2, *[3] * 18, 2]
    for selection in got[1:-1]:
        assert selection.index == 1
        assert selection.frames[1] is selection.captured.frame


def test_a_file_waits_for_its_release(tmp_path, nothing_drops):
    clip = Clip(video=(Video(times=every(40, 5)),)).make(tmp_path)
    with Camera(resolve_address(str(clip))) as camera:
        sample = camera.sample(SECONDS)
        assert sample is not None and sample.width == 64
        assert camera.newest(0.3) is None
        camera.release()
        assert len(frames_for(camera)) == 5


def test_a_loop_goes_on_with_rising_times(tmp_path, nothing_drops):
    clip = Clip(video=(Video(times=every(20, 5)),)).make(tmp_path)
    with file_camera(clip, loop=True) as camera:
        got = frames_for(camera, wanted=17)
    times = [w.frames[w.index].pts for w in got]
    assert len(got) == 17 and times == sorted(set(times))
    # no selection across the seam
    runs = [w.captured.run for w in got]
    assert runs == sorted(runs) and len(set(runs)) >= 4
    assert all(len(w.frames) == 2 for w in got if w.captured.number % 5 in (0, 4))


@pytest.mark.parametrize("suffix", [".ts", ".h264"])
def test_a_loop_of_what_cannot_be_wound_back_has_all_frames(suffix, tmp_path, nothing_drops):
    """FFmpeg lands behind the first key frame of one, and in no place of the other."""
    path = tmp_path / f"clip{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=50, options={"bf": "3", "x264-params": "b-adapt=0"}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(10):
            picture = av.VideoFrame(64, 48, "yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 50)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with file_camera(path, loop=True) as camera:
        got = frames_for(camera, wanted=34)
    assert [w.captured.number for w in got] == list(range(34))
    runs = [w.captured.run for w in got]
    assert [runs.count(run) for run in sorted(set(runs))[:3]] == [10, 10, 10]


def test_a_slow_consumer_gets_the_newest(tmp_path):
    clip = Clip(video=(Video(times=every(20, 60)),)).make(tmp_path)
    with file_camera(clip) as camera:
        numbers, skipped, all_times, came = [], 0, [], 0
        while True:
            try:
                selection = camera.newest(SECONDS)
            except StopIteration:
                break
            number = selection.captured.number
            # one is waited for as a neighbour; the last ones are few, and taken in turn
            assert came == 60 or number >= came - 2
            numbers.append(number)
            skipped += selection.skipped
            assert len(selection.skipped_frames) == selection.skipped
            every_one = (*selection.skipped_frames, selection.captured.frame)
            all_times += [frame.pts for frame in every_one]
            wanted = min(camera.captured + 5, 60)
            wait_until(lambda wanted=wanted: camera.captured >= wanted)
            came = wanted
    assert len(numbers) <= 60 / 5 + 3
    assert len(numbers) + skipped == numbers[-1] + 1 == 60
    # those passed over come with the next one, each at its own time
    steps = np.diff(all_times) / 1e6
    assert len(all_times) == 60 and steps.min() > 0.015 and steps.max() < 0.025


def grey_frame():
    return make_live_frame(16, 16)


def make_live_frame(width, height):
    return FrameMaker(TIME_BASE, Fraction(25)).frame(av.VideoFrame(width, height, "gray"))


def test_a_little_unevenness_drops_nothing():
    """Two frames at once are restored one after the other; of more, the newest."""
    buffer, frame = FrameBuffer(ahead=0, behind=0), grey_frame()
    for burst, expected in [(1, [0]), (2, [1, 2]), (2, [3, 4]), (5, [9])]:
        for _ in range(burst):
            buffer.add(frame, 0.0)
        got = []
        while (selection := buffer.select(is_complete=False)) is not None:
            got.append(selection.captured.number)
        assert got == expected


def test_a_consumer_that_hangs_does_not_fill_the_memory(monkeypatch):
    buffer, frame = FrameBuffer(ahead=1, behind=1), grey_frame()
    monkeypatch.setattr(mhnet_video.live.frame_buffer, "_MAX_BYTES", 10 * frame.num_bytes)
    for _ in range(3):
        begin = buffer.count
        for _ in range(100):
            buffer.add(frame, 0.0)
        selection = buffer.select(is_complete=True)
        assert selection.captured.number == buffer.count - 1 and selection.index == 1
        assert selection.skipped == buffer.count - 1 - begin
        assert len(selection.skipped_frames) == 9 and len(selection.frames) == 2
        assert selection.frames[0] is selection.skipped_frames[-1]
    assert len(buffer) <= 2


def test_frames_of_two_runs_or_sizes_are_no_neighbours():
    buffer = FrameBuffer(ahead=1, behind=1)
    small, large = grey_frame(), make_live_frame(32, 16)
    for frame, is_new_run in [(small, True), (small, False), (small, True), (large, False)]:
        buffer.add(frame, 0.0, is_new_run=is_new_run)
        # neither is waited for
        selection = buffer.select(is_complete=False)
        if selection is not None:
            assert selection.captured.number == buffer.count - 2
    assert buffer.select(is_complete=False) is None
    last = buffer.select(is_complete=True)
    assert last.captured.number == 3 and last.frames == (large,) and last.captured.run == 3


def test_rates_and_sizes_of_files_are_brought_down(tmp_path, nothing_drops):
    clip = Clip(
        video=(Video(times=every(20, 50), rate=50, width=128, height=64),), name="a.mp4"
    ).make(tmp_path)
    with file_camera(clip, fps=10, size=(64, 64)) as camera:
        got = frames_for(camera)
        assert camera.fps == 10
    assert 9 <= len(got) <= 12 and sum(w.skipped for w in got) == 0
    assert {(w.frames[0].width, w.frames[0].height) for w in got} == {(64, 32)}


def test_shrinking_keeps_the_rotation(tmp_path):
    video = Video(times=every(20, 3), width=128, height=64, matrix=rotation(90))
    clip = Clip(video=(video,)).make(tmp_path)
    with file_camera(clip, size=(32, 1000)) as camera:
        (selection, *_) = frames_for(camera)
    frame = selection.frames[0]
    assert (frame.width, frame.height, frame.rotation % 180) == (64, 32, 90)


# streams


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "http", "udp", "rtsp"])
def test_a_stream_that_is_killed_and_comes_back_changed(kind, sender):
    url, target = url_pair(kind)
    first = sender(target)
    with Camera(resolve_address(url)) as camera:
        got = frames_for(camera, wanted=15)
        assert len(got) == 15
        begin = got[0].frames[0].pts
        # the other side's even times, not the uneven ones at which they arrive
        steps = np.diff([w.frames[w.index].pts for w in got[4:]]) / 1e6
        assert 0.03 < np.median(steps) < 0.05
        first.kill()
        first.wait(SECONDS)
        killed = time.monotonic()
        frames_for(camera, 1.2)
        second = sender(target, "--size", "96x64", "--codec", "mpeg2video", stdout=subprocess.PIPE)
        assert second.stdout.readline()
        returned = time.monotonic()
        while True:
            got = frames_for(camera, wanted=1)
            assert got, camera.trouble
            if got[0].frames[0].width == 96:
                break
        elapsed = (got[0].frames[0].pts - begin) / 1e6
        assert elapsed > returned - killed
        assert camera.reconnects == 1 and camera.trouble == ""


@pytest.mark.slow
def test_a_stream_that_hangs_is_noticed(sender, monkeypatch):
    """The connection stays open and is silent; nothing but a watchdog can know."""
    monkeypatch.setattr(mhnet_video.live.reconnection, "_SILENT_SECONDS", 1.0)
    monkeypatch.setattr(mhnet_video.live.reconnection, "OPEN_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = SourceAddress("silent", f"tcp://127.0.0.1:{server.getsockname()[1]}", "network")
        with Camera(address) as camera:
            visitors = []
            for _ in range(2):  # it is tried again and again
                server.settimeout(SECONDS)
                visitors.append(server.accept()[0])
                assert camera.newest(0.1) is None
            wait_until(lambda: camera.trouble)
            assert "silent is silent. Trying again" in camera.trouble
        # its thread ends although the connections are still open
        wait_until(lambda: not camera._capture._thread.is_alive())
        for visitor in visitors:
            visitor.close()


@pytest.mark.slow
def test_an_rtsp_camera_that_hangs_comes_back(sender, monkeypatch):
    monkeypatch.setattr(mhnet_video.live.reconnection, "_SILENT_SECONDS", 1.0)
    url, target = url_pair("rtsp")
    process = sender(target)
    with Camera(resolve_address(url)) as camera:
        assert len(frames_for(camera, wanted=10)) == 10
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: frames_for(camera, 0.1) is not None and camera.trouble)
        assert f"{url} is silent. Trying again" in camera.trouble
        process.send_signal(signal.SIGCONT)
        assert frames_for(camera, wanted=1), camera.trouble
        assert camera.reconnects == 1 and camera.trouble == ""


def test_a_source_that_will_never_open_says_why(sender):
    with Camera(resolve_address("foo://somewhere")) as camera:
        with pytest.raises(ReadError, match="knows no foo://"):
            camera.newest(SECONDS)
        with pytest.raises(ReadError, match="knows no foo://"):
            camera.sample(SECONDS)


@pytest.mark.slow
def test_a_page_that_is_not_there_is_not_waited_for(sender):
    port = free_port()
    sender(f"http://127.0.0.1:{port}/cam.ts", "--status", "404")
    wait_for_port(port)
    with (
        Camera(resolve_address(f"http://127.0.0.1:{port}/other")) as camera,
        pytest.raises(ReadError, match="is not there; check the path"),
    ):
        camera.newest(SECONDS)


def wait_for_port(port):
    def is_open():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True

    wait_until(is_open)


def test_a_server_that_is_not_up_yet_is_waited_for():
    with Camera(resolve_address(f"tcp://127.0.0.1:{free_port()}")) as camera:
        wait_until(lambda: camera.trouble)
        assert camera.newest(0) is None
        assert "refuses the connection" in camera.trouble
        assert re.search(r"Trying again (in 1 s|now)\.", camera.trouble)
        assert camera.reconnects == 0


def test_a_host_that_was_long_gone_is_found_soon(monkeypatch):
    """Where nobody answers, nobody is bothered, and the pauses need not grow."""
    attempts = []
    monkeypatch.setattr(
        mhnet_video.live.reconnection,
        "pause_after",
        lambda failing: attempts.append(failing) or 1 + 1000 * failing,
    )
    port = free_port()
    with Camera(resolve_address(f"tcp://127.0.0.1:{port}")) as camera:
        wait_until(lambda: len(attempts) == 3)
        assert "refuses the connection" in camera.trouble and set(attempts) == {0}
        with socket.create_server(("127.0.0.1", port)) as server:
            # one that answers, and then gives nothing, is left alone for longer
            server.settimeout(SECONDS)
            for _ in range(2):
                server.accept()[0].close()
            wait_until(lambda: attempts[-1] > 0)


def test_who_is_bothered_by_trying_again():
    refused, silent = ConnectionRefusedError(errno.ECONNREFUSED, "x"), TimeoutError()
    gone = OSError(errno.EHOSTUNREACH, "x")
    for url, error, expected in [
        ("rtsp://cam/1", refused, True),
        ("rtsp://cam/1", gone, True),
        ("rtsp://cam/1", silent, True),
        ("http://127.0.0.1/1", OSError(errno.EIO, "x"), False),
        ("http://nobody.invalid/1", OSError(errno.EIO, "x"), True),
        ("rtsp://cam..local/1", OSError(errno.EIO, "x"), True),
        ("http://cam/1", ConnectionResetError("the stream has ended"), False),
        ("udp://0.0.0.0:9", silent, True),
        ("tcp://0.0.0.0:9?listen=1", silent, True),
    ]:
        assert is_unanswered(resolve_address(url), error) is expected


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """The address of a server of files."""
    handler = functools.partial(Files, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("loop", [False, True])
def test_a_file_somewhere_else_plays_at_its_own_speed_too(loop, tmp_path, web, nothing_drops):
    clip = Clip(video=(Video(times=every(40, 30)),), options=(("movflags", "faststart"),))
    clip.make(tmp_path)
    with Camera(resolve_address(f"{web}/clip.mp4"), loop=loop) as camera:
        begin = time.monotonic()
        got = frames_for(camera, wanted=70)
        took = time.monotonic() - begin
        assert camera.trouble == "" and camera.reconnects == 0
    count = got[-1].captured.number + 1
    assert len(got) == count == (70 if loop else 30)
    # not sooner; how much later is the machine's matter
    assert took > count * 0.04 - 0.1
    steps = np.diff([w.frames[w.index].pts for w in got]) / 1e6
    assert 0.03 < np.median(steps) < 0.05


@pytest.mark.parametrize("loop", [False, True])
def test_pieces_that_are_all_there_are_shown_once_or_again_and_again(
    loop, tmp_path, web, nothing_drops
):
    options = {"hls_time": "1", "hls_list_size": "0", "hls_playlist_type": "vod"}
    with av.open(str(tmp_path / "all.m3u8"), "w", format="hls", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 10
        for index in range(30):
            frame = make_frame(index, "yuv420p", 64, 48)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with Camera(resolve_address(f"{web}/all.m3u8"), loop=loop) as camera:
        got = frames_for(camera, wanted=70)
        assert camera.trouble == ""
    assert [selection.captured.number for selection in got] == list(range(70 if loop else 30))


def test_an_address_with_sound_only(tmp_path, web):
    Clip(video=(), audio=(Audio(),), name="clip.ts").make(tmp_path)
    with Camera(resolve_address(f"{web}/clip.ts")) as camera:
        wait_until(lambda: camera.trouble)
        assert camera.newest(0) is None
        assert camera.trouble.startswith(f"{web}/clip.ts gives no pictures: it has no video.")


@pytest.mark.slow
def test_a_stream_without_times_is_of_the_rate_that_is_seen(tmp_path):
    jpeg = picture("mjpeg", 64, 48)
    sent = []

    class Pictures(Files):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    sent.append(time.monotonic())
                    time.sleep(0.1)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        with Camera(resolve_address(f"http://127.0.0.1:{server.server_port}/a.mjpg")) as camera:
            frames_for(camera, wanted=65)
            # of the pictures that were sent: a machine that is busy sends fewer than ten a second
            assert camera.fps == pytest.approx(1 / np.median(np.diff(sent)), rel=0.15)
        server.shutdown()
        thread.join()


def test_a_rate_is_not_told_by_gaps_and_bursts():
    rate = RateMeter(5.0, 6)
    for index in range(100):
        rate.note(index * 0.04)
        assert rate.source_rate is None
    for index in range(100, 260):
        rate.note(4 + index * 0.04)
    assert rate.source_rate == pytest.approx(25, rel=0.05)
    # fifteen pictures once a second
    rate = RateMeter(5.0, 6)
    seen = []
    for second in range(20):
        for index in range(15):
            rate.note(second + index * 0.0004)
            seen.append(rate.source_rate)
    assert all(11 < fps < 19 for fps in seen[150:])
    rate = RateMeter(5.0, 6)
    for index in range(9000):
        rate.note(index * 0.0001 + 10 * (index > 8990))
    for index in range(90_000):
        rate.note(20 + index * 0.0001)
    assert rate.source_rate == 240


def test_a_clock_that_jumps_is_not_waited_for():
    pacing = FilePacing()
    now = 1000.0
    assert pacing.due(5.0, now) == now
    assert pacing.due(14.0, now) == now + 9
    assert pacing.due(614.0, now) == now
    assert pacing.due(614.04, now) == pytest.approx(now + 0.04)
    assert pacing.due(0.0, now) == now


def test_a_file_that_is_late_catches_up_or_goes_on_from_where_it_is():
    pacing = FilePacing()
    assert pacing.due(0.0, 100.0) == 100
    assert pacing.due(0.04, 100.9) == pytest.approx(100.04)
    assert pacing.due(0.08, 102.0) == 102
    assert pacing.due(0.12, 102.0) == pytest.approx(102.04)


def test_a_rate_is_limited_evenly():
    limiter = RateLimiter(10)
    taken = [index * 0.02 for index in range(5000) if limiter.admits(index * 0.02)]
    assert 1000 <= len(taken) <= 1002
    assert np.diff(taken)[1:].min() > 0.05 and np.diff(taken).max() < 0.15
    assert all(RateLimiter(None).admits(0.0) for _ in range(3))


def test_what_nobody_has_foreseen_is_told(monkeypatch):
    def fail(*_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(mhnet_video.live.capture, "is_unanswered", fail)
    with (
        Camera(resolve_address(f"tcp://127.0.0.1:{free_port()}")) as camera,
        pytest.raises(ReadError, match="cannot be followed \\(unforeseen\\)"),
    ):
        camera.newest(SECONDS)


class Fragments(Files):
    """A camera that sends fragments of MP4 as they are made, for some seconds each time."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        class Out:
            def write(_, data):
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                return len(data)

        options = {"movflags": "frag_keyframe+empty_moov"}
        with contextlib.suppress(OSError, av.error.FFmpegError):
            with av.open(Out(), "w", format="mp4", container_options=options) as container:
                stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                stream.codec_context.thread_count = 1
                stream.codec_context.gop_size = 6
                for index in range(100):
                    frame = make_frame(index, "yuv420p", 64, 48)
                    frame.pts = index
                    for packet in stream.encode(frame):
                        container.mux_one(packet)
                    time.sleep(0.04)
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True


class Parts(Files):
    """A camera that sends JPEGs, some of them empty."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
        self.end_headers()
        shown = picture()
        with contextlib.suppress(OSError):
            for index in range(200):
                jpeg = b"" if index % 5 == 0 else shown
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                self.wfile.write(b"Content-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg))
                self.wfile.flush()
                time.sleep(0.03)


def test_an_empty_part_is_not_the_end_of_a_camera(nothing_drops):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Parts) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        with Camera(resolve_address(f"http://127.0.0.1:{server.server_port}/")) as camera:
            got = frames_for(camera, wanted=20)
            told = camera.reconnects, camera.trouble, camera.damaged >= 4
        server.shutdown()
        thread.join()
    assert len(got) == 20
    assert told == (0, "", True)


def test_a_decoder_that_falls_silent_begins_anew(tmp_path, monkeypatch):
    """As one does that was told that the end has come."""
    path = Clip(video=(Video(codec="mpeg4", times=every(40, 200), gop=10),)).make(tmp_path)
    monkeypatch.setattr(mhnet_video.live.packet_decoder, "_MAX_SILENT_PACKETS", 20)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = PacketDecoder(stream)
        decoded = 0
        for number, packet in enumerate(container.demux(stream)):
            if number == 30:
                stream.decode(None)
            decoded += len(decoder.decode(packet if packet.size else None, 0.0))
    assert decoded >= 150
    assert decoder.damaged == 20


def test_packets_of_another_codec_are_told_from_losses(tmp_path):
    path = Clip(video=(Video(codec="mpeg4", times=every(40, 20), gop=10),)).make(tmp_path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = PacketDecoder(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        for packet in packets:
            decoder.decode(packet, 0.0)

        def lose(now):
            noise = av.Packet(bytes(range(7, 200)))
            noise.stream = stream
            return decoder.decode(noise, now)

        # many at once, or few for long, are losses
        for _ in range(30):
            assert lose(1.0) == []
        with pytest.raises(CodecChangedError):
            lose(1.8)
        assert decoder.damaged == 31


@pytest.mark.slow
def test_a_camera_that_sends_fragments_is_no_file():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fragments) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        with Camera(resolve_address(f"http://127.0.0.1:{server.server_port}/live.mp4")) as camera:
            # a file would be over at its end
            wait_until(lambda: frames_for(camera, 0.2) is not None and camera.reconnects)
            assert frames_for(camera, wanted=5)
        server.shutdown()
        thread.join()


def test_pauses_grow_with_the_time_of_failing():
    assert pause_after(0) == pause_after(8) == 1
    assert pause_after(16) == 2
    assert pause_after(10_000) == 30
    assert all(pause_after(a) <= pause_after(a + 1) for a in range(300))


# when a connection is dead, and what follows


def life_of(state, *, has_played=False):
    life = Life(0.0)
    if has_played:
        life.see_frame(0.0)
    life.see_end(state, None if state is State.ENDED else OSError("gone"))
    return life


def test_a_source_that_gives_no_first_frame_is_silent_after_a_while():
    life = Life(100.0)
    life.check(115.0)
    assert life.state is State.OPENING
    life.check(115.1)
    assert life.state is State.SILENT and isinstance(life.error, TimeoutError)


def test_a_source_may_be_silent_for_some_of_its_longest_intervals():
    life = Life(0.0)
    for second in range(10):
        life.see_frame(float(second))
    life.check(9 + 7.9)
    assert life.state is State.PLAYING
    life.check(9 + 8.1)
    assert life.state is State.SILENT
    quick = Life(0.0)
    for index in range(10):
        quick.see_frame(index * 0.04)
    quick.check(0.36 + 3.9)
    assert quick.state is State.PLAYING
    quick.check(0.36 + 4.1)
    assert quick.state is State.SILENT


def test_a_hitch_does_not_make_a_source_patient_for_ever():
    life = Life(0.0)
    life.see_frame(0.0)
    life.see_frame(3.0)
    for index in range(1, 200):
        life.see_frame(3 + index * 0.04)
    life.check(3 + 199 * 0.04 + 4.1)
    assert life.state is State.SILENT


def test_what_waits_for_its_time_or_for_a_visitor_is_not_silent():
    life = Life(0.0)
    life.see_frame(0.0)
    life.see_wait(20.0)
    life.check(19.9)
    assert life.state is State.PLAYING
    life.check(20.1)
    assert life.state is State.SILENT
    unwatched = Life(0.0, is_watched=False)
    unwatched.check(1e6)
    assert unwatched.state is State.OPENING


@pytest.mark.parametrize("last", [State.ENDED, State.CHANGED, State.FAILED, State.SILENT])
def test_nothing_follows_the_end_of_a_connection(last):
    life = life_of(last)
    life.see_frame(1.0)
    life.see_end(State.FAILED, ValueError("later"))
    life.check(1e6)
    assert life.state is last and not life.has_played


def test_what_has_never_played_is_given_up_where_that_is_hopeless():
    reconnection = Reconnection(is_file=False, loop=False)
    failed = life_of(State.FAILED)
    assert reconnection.after(failed, 0.0, is_hopeless=True).step is NextStep.GIVE_UP
    assert reconnection.after(failed, 0.0).step is NextStep.RETRY
    played = life_of(State.FAILED, has_played=True)
    assert reconnection.after(played, 0.0, is_hopeless=True).step is NextStep.RETRY
    # it was there: it may come back
    assert reconnection.after(failed, 1.0, is_hopeless=True).step is NextStep.RETRY


def test_a_file_is_played_once_or_again_and_is_not_waited_for():
    ended = life_of(State.ENDED, has_played=True)
    assert Reconnection(is_file=False, loop=False).after(ended, 0.0).step is NextStep.FINISH
    assert Reconnection(is_file=False, loop=True).after(ended, 0.0) == Decision(NextStep.REPLAY)
    broken = life_of(State.FAILED, has_played=True)
    assert Reconnection(is_file=True, loop=True).after(broken, 0.0).step is NextStep.FINISH


def test_pauses_grow_where_somebody_is_disturbed_and_begin_anew_with_a_frame():
    reconnection = Reconnection(is_file=False, loop=False)
    failed = life_of(State.FAILED)
    times = (0.0, 8.0, 80.0, 1000.0)
    assert [reconnection.after(failed, t).pause_seconds for t in times] == [1, 1, 10, 30]
    assert reconnection.after(failed, 1001.0, is_unanswered=True).pause_seconds == 1
    assert reconnection.after(failed, 1002.0).pause_seconds == 1
    reconnection.after(failed, 2000.0)
    played = life_of(State.SILENT, has_played=True)
    assert reconnection.after(played, 2001.0) == Decision(NextStep.RETRY, 1.0)
    other = life_of(State.CHANGED, has_played=True)
    assert reconnection.after(other, 3000.0) == Decision(NextStep.RETRY, 0.0)


# clocks


def test_even_times_come_out_of_uneven_arrivals():
    clock = CaptureClock()
    true = np.arange(2000) * 0.04
    late = np.random.default_rng(0).exponential(0.02, 2000)
    arrivals = np.maximum.accumulate(100 + true + late)
    # a camera whose clock begins anywhere and runs a little fast
    own = 5000 + true * 1.0001
    taken = [clock.time(*both) for both in zip(arrivals, own, strict=True)]
    steps = np.diff(taken[100:])
    assert steps.min() > 0.03 and steps.max() < 0.05
    assert np.abs(np.subtract(taken, 100 + true)).max() < 0.06
    assert (taken <= arrivals + 1e-6).all()


def test_a_stream_clock_that_jumps_is_followed():
    clock = CaptureClock()
    for index in range(50):
        clock.time(index * 0.04, index * 0.04)
    assert clock.time(2.0, 9000.0) == pytest.approx(2.0, abs=0.01)
    assert clock.time(2.04, 9000.04) == pytest.approx(2.04, abs=0.01)
    # without times of its own: as it arrives, and never backwards
    assert clock.time(2.08, None) == pytest.approx(2.08)
    assert clock.time(1.0, None) > 2.08


def test_what_a_network_held_up_has_the_times_at_which_it_was_taken():
    clock = CaptureClock()
    true = np.arange(200) * 0.04
    held_up = (true >= 2) & (true < 4)
    arrivals = np.where(held_up, 4 + (true - 2) / 1000, true)  # after the stall all at once
    taken = [clock.time(arrival, 1000 + own) for arrival, own in zip(arrivals, true, strict=True)]
    assert np.abs(np.subtract(taken, true)).max() < 0.01


def test_a_stream_clock_that_stood_still_is_followed_later():
    clock = CaptureClock()
    arrivals = [index * 0.04 + 10 * (index >= 50) for index in range(200)]
    taken = [clock.time(arrival, index * 0.04) for index, arrival in enumerate(arrivals)]
    assert (np.diff(taken) > 0).all()
    assert np.abs(np.subtract(taken, arrivals)[130:]).max() < 0.01
    # that of another connection at once
    clock.restart()
    assert clock.time(100.0, 8.0) == pytest.approx(100.0)


# what people are told


def test_passwords_are_never_shown():
    url = "rtsp://admin:se@cret@cam.local:554/stream"
    assert "secret" not in shown("rtsp://admin:secret@cam/1")
    assert shown("rtsp://cam/a@b") == "rtsp://cam/a@b"
    assert shown("http://cam/video?user=me&pwd=secret") == "http://cam/video"
    address = resolve_address(url)
    assert address.url == url and "admin" not in address.name and "cret" not in address.name
    for error in (ConnectionRefusedError(), TimeoutError(), OSError(5, "I/O", url)):
        assert "cret" not in why_not_opened(address, error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), "there is no camera /dev/video7; plug it in"),
        (PermissionError(errno.EACCES, "x"), "usermod -aG video"),
        (OSError(errno.EBUSY, "x"), "in use by another program"),
        (OSError(errno.EINVAL, "x"), "does not give 640x480; `mhnet-video live --list`"),
    ],
)
def test_what_is_wrong_with_a_camera(error, said, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    address = resolve_address("7", size=(640, 480))
    assert (address.kind, address.format, address.url) == ("camera", "v4l2", "/dev/video7")
    told = why_not_opened(address, error)
    assert said in told and told.count(". ") == 0
    assert is_hopeless(address, error)


def test_no_camera_at_all(monkeypatch):
    monkeypatch.setattr(mhnet_video.live.source_address, "_devices", list)
    with pytest.raises(ReadError, match="no camera on this machine; plug one in"):
        resolve_address(None)
    assert list_cameras() == []
    with pytest.raises(ReadError, match="is no camera, address or file"):
        resolve_address("nowhere.mp4")
    with Camera(resolve_address("123")) as camera, pytest.raises(ReadError, match="no camera"):
        camera.newest(SECONDS)


def test_the_first_camera_is_taken(monkeypatch):
    found = [("/dev/video2", "Front"), ("/dev/video4", "Rear")]
    monkeypatch.setattr(mhnet_video.live.source_address, "_devices", lambda: found)
    monkeypatch.setattr(sys, "platform", "linux")
    address = resolve_address(None, size=(1280, 720), fps=30)
    assert (address.url, address.options) == (
        "/dev/video2",
        {"video_size": "1280x720", "framerate": "30"},
    )
    assert [camera.source for camera in list_cameras()] == ["/dev/video2", "/dev/video4"]


def test_other_systems_name_their_cameras(monkeypatch):
    found = [("Integrated Camera", "Integrated Camera")]
    monkeypatch.setattr(mhnet_video.live.source_address, "_devices", lambda: found)
    monkeypatch.setattr(sys, "platform", "win32")
    assert resolve_address("0").url == "video=Integrated Camera"
    assert resolve_address("Integrated Camera").format == "dshow"
    monkeypatch.setattr(sys, "platform", "darwin")
    address = resolve_address("0")
    assert (address.format, address.url, address.options) == (
        "avfoundation",
        "0",
        {"framerate": "30"},
    )


def test_formats_are_read_from_what_ffmpeg_says():
    v4l2 = (
        "[video4linux2,v4l2 @ 0x1] Raw       :  yuyv422 :     YUYV 4:2:2 : 640x480 320x240\n"
        "[video4linux2,v4l2 @ 0x1] Compressed:    mjpeg :    Motion-JPEG : 1280x720\n"
        "Immediate exit requested\n"
    )
    assert formats_in(v4l2) == (
        "Raw : yuyv422 : YUYV 4:2:2 : 640x480 320x240",
        "Compressed: mjpeg : Motion-JPEG : 1280x720",
    )
    dshow = "[dshow @ 0x1]   vcodec=mjpeg  min s=640x480 fps=5 max s=640x480 fps=30\n" * 2
    assert formats_in(dshow) == ("vcodec=mjpeg min s=640x480 fps=5 max s=640x480 fps=30",)


def test_no_threads_are_left(tmp_path):
    clip = Clip(video=(Video(times=every(40, 50)),)).make(tmp_path)
    before = threading.active_count()
    for _ in range(3):
        with file_camera(clip) as camera:
            frames_for(camera, wanted=2)
    wait_until(lambda: threading.active_count() == before)
    assert len(list(itertools.islice(threading.enumerate(), 50))) == before
