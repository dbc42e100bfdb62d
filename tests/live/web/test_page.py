"""The page for browsers: who may come in, what there is, and many visitors."""

import contextlib
import gzip
import http.client
import io
import json
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import processes
import pytest
from standin import inverted
from test_session import live_frame
from waiting import SECONDS, wait_until

import mhnet_video.live.web.page
import mhnet_video.live.web.pictures
import mhnet_video.web.access
import mhnet_video.web.application
import mhnet_video.web.server
from mhnet_video.cli.main import main
from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.live.exchange import Latest
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.statistics import LiveStatistics
from mhnet_video.live.web.page import Page
from mhnet_video.live.web.server import PageServer
from mhnet_video.web.access import ListenAddress, is_own, parse_listen_address

STATISTICS = LiveStatistics(
    source="cam",
    width=64,
    height=48,
    frames=100,
    dropped=3,
    reconnects=1,
    damaged=2,
    source_fps=25.0,
    fps=24.5,
    latency_seconds=0.08,
    network_seconds=0.03,
    model="realtime",
    scale=0.7,
    strength=1.0,
    device="cpu",
    engine="llvm",
    trouble="",
)


class Source:
    """Puts a frame every so often."""

    def __init__(self, fps=25, size=(64, 48)):
        self.frames: Latest[LiveFrame] = Latest()
        self.shown = []
        self.pressed = []
        self.statistics = STATISTICS
        self.number = 0
        self.tags = {}
        self.level = lambda number: 40 + number % 2 * 100
        self._size = size
        self._fps = fps
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._is_closed.wait(1 / self._fps):
            self.put()

    def put(self):
        seconds, level = self.number * 0.04, self.level(self.number)
        frame = live_frame(seconds, level, self._size, tags=self.tags)
        self.frames.put(
            LiveFrame(frame, inverted(frame), self.number, time.time(), time.monotonic())
        )
        self.number += 1

    def start(self):
        self._thread.start()

    def close(self):
        self._is_closed.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self.frames.close()


@pytest.fixture
def source():
    made = Source()
    yield made
    made.close()


@pytest.fixture
def page(source):
    with closing(make_page(source)) as made:
        yield made


def make_page(source, host="127.0.0.1"):
    made = Page(
        frames=source.frames,
        statistics=lambda: source.statistics,
        press=source.pressed.append,
        shown=source.shown.append,
        view="side",
        state=lambda: {"recording": "", "message": "<b>"},
    )
    return PageServer(ListenAddress(host, 0), made)


def connections(page):
    """How many are open."""
    server = page._runner.server
    return len(server.connections) if server is not None else 0


def ask(page, path, method="GET", body=None, host=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=SECONDS)
    with closing(connection):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if host is not None:
            headers["Host"] = host
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()


def read_stream(page, count, path="/stream.mjpg", between=None):
    """The first JPEGs of the stream; what is to be done after each."""
    got = []
    with socket.socket() as connection:
        connection.settimeout(SECONDS)
        if between is not None:
            # what its own system holds is not the server's matter
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        connection.connect(("127.0.0.1", page.port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        held = b""
        while len(got) < count:
            data = connection.recv(1 << 16)
            if not data:
                break
            held += data
            while match := re.search(rb"Content-Length: (\d+)\r\n\r\n", held):
                end = match.end() + int(match[1])
                if len(held) < end:
                    break
                got.append(held[match.end() : end])
                held = held[end:]
                if between is not None:
                    between()
    return got


def received(connection):
    """All that a server sends until it ends the connection."""
    data = b""
    while more := connection.recv(1 << 16):
        data += more
    return data


def decoded(jpeg):
    with av.open(io.BytesIO(jpeg)) as container:
        return next(container.decode(video=0)).to_ndarray(format="gray")


def test_the_page_itself(page):
    answer, body = ask(page, "/")
    text = body.decode()
    assert answer.status == 200 and '<body data-view="side" ' in text
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    # nothing is fetched from anywhere else
    assert "http://" not in text and "https://" not in text
    assert page.link == f"http://127.0.0.1:{page.port}/"
    assert "Python" not in answer.headers["Server"]


def test_the_stream_shows_before_and_after(page, source):
    source.start()
    for jpeg in read_stream(page, 5):
        picture = decoded(jpeg)
        assert picture.shape == (48, 128)
        before, after = picture[:, :60].mean(), picture[:, 68:].mean()
        # limited range was widened: 40 and 140 in, and their opposites out
        expected = [(level - 16) * 255 / 219 for level in (40, 140)]
        place = int(abs(before - expected[0]) > 30)
        assert abs(before - expected[place]) < 3
        assert abs(after - min(255, (255 - (40, 140)[place] - 16) * 255 / 219)) < 3
    assert len(source.shown) >= 4


def test_snapshots(page, source):
    answer, body = ask(page, "/snapshot.jpg")
    assert answer.status == 503 and b"no picture yet" in body
    source.put()
    answer, body = ask(page, "/snapshot.jpg")
    assert answer.status == 200 and answer.headers["Content-Type"] == "image/jpeg"
    after = decoded(body)
    before = decoded(ask(page, "/snapshot.jpg?view=before")[1])
    assert after.shape == before.shape == (48, 64)
    assert after.mean() > before.mean() + 50
    assert decoded(ask(page, "/snapshot.jpg?view=side")[1]).shape == (48, 128)
    assert ask(page, "/snapshot.jpg?view=../../etc")[0].status == 400


def metrics_of(text):
    lines = re.findall(r"^(\w+) ([\d.e+-]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_status_metrics_and_health(page, source):
    answer, body = ask(page, "/healthz")
    assert answer.status == 503 and body == b"no pictures come\n"
    # of many cameras the path of the address is a secret, and whoever asks has no token
    source.statistics = replace(STATISTICS, trouble="rtsp://10.0.0.7/key77 refuses the connection")
    assert ask(page, "/healthz")[1] == b"no pictures come\n"
    assert b"key77" in ask(page, "/snapshot.jpg")[1]
    source.statistics = STATISTICS
    source.put()
    assert ask(page, "/healthz")[0].status == 200
    status = json.loads(ask(page, "/status.json")[1])
    assert status["fps"] == 24.5 and status["message"] == "<b>" and status["visitors"] == 0
    text = ask(page, "/metrics")[1].decode()
    values = metrics_of(text)
    assert values["mhnet_video_frames_total"] == 100
    source.statistics = replace(STATISTICS, frames=87654321, model="modèle")
    told = ask(page, "/metrics")[1].decode()
    assert metrics_of(told)["mhnet_video_frames_total"] == 87654321 and 'model="modèle"' in told
    assert values["mhnet_video_up"] == 1
    assert values["mhnet_video_latency_seconds"] == 0.08
    assert 'mhnet_video_info{device="cpu",engine="llvm",model="realtime"} 1' in text
    for name in values:
        assert f"# TYPE {name} " in text and f"# HELP {name} " in text


def test_a_recording_that_failed_is_no_health(source):
    said = "out.mp4 cannot be written: the disk is full."
    trouble, recording = [said], ["out.mp4"]
    page = Page(
        frames=source.frames,
        statistics=lambda: STATISTICS,
        state=lambda: {"recording": recording[0]},
        recording_trouble=lambda: trouble[0],
    )
    server = PageServer(ListenAddress("127.0.0.1", 0), page)
    try:
        source.put()
        answer, body = ask(server, "/healthz")
        assert answer.status == 503 and body == b"the recording has failed\n"
        assert metrics_of(ask(server, "/metrics")[1].decode())["mhnet_video_recording"] == 1
        trouble[0] = recording[0] = ""
        assert ask(server, "/healthz")[0].status == 200
        assert metrics_of(ask(server, "/metrics")[1].decode())["mhnet_video_recording"] == 0
    finally:
        server.close()


def test_keys_reach_the_run(page, source):
    for key in ("+", "-", "m", "r"):
        body = json.dumps({"key": key})
        answer, told = ask(page, "/control", "POST", body, Content_Type="application/json")
        assert answer.status == 200 and json.loads(told)["model"] == "realtime"
    assert source.pressed == ["+", "-", "m", "r"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ('{"key": "q"}', {}, 400),
        ("nonsense", {}, 400),
        ("[" * 900, {}, 400),
        ('{"key": "+"}', {"Content_Type": "text/plain"}, 415),
        ('{"key": "+"}', {"Origin": "http://evil.example"}, 403),
        ('{"key": "+"}' + " " * 2000, {}, 413),
        ('{"key": "+"}', {"host": "evil.example"}, 403),
    ],
)
def test_bad_requests_do_nothing(page, source, body, headers, status):
    given = {"Content_Type": "application/json"} | headers
    assert ask(page, "/control", "POST", body, **given)[0].status == status
    assert source.pressed == []
    assert ask(page, "/")[0].status == 200


def test_what_is_not_there(page):
    for path in ("/x", "/../etc/passwd", "/page.html", "//evil.example/"):
        assert ask(page, path)[0].status == 404
    assert ask(page, "/", "PUT")[0].status == 405
    assert ask(page, "/nowhere", "POST", "{}")[0].status == 404
    assert ask(page, "/stream.mjpg", "HEAD")[0].status == 200
    # a page of another name that leads here, as a hostile site's can
    assert ask(page, "/snapshot.jpg", host=f"evil.example:{page.port}")[0].status == 403
    assert ask(page, "/", host=f"localhost:{page.port}")[0].status == 200


def test_another_address_needs_the_token(source, monkeypatch):
    monkeypatch.setattr(mhnet_video.web.access, "is_own", lambda host: False)
    with closing(make_page(source)) as page:
        source.put()
        token = page.token
        assert len(token) > 20 and page.link.endswith(f"/?token={token}")
        for path in ("/", "/stream.mjpg", "/snapshot.jpg", "/metrics", "/status.json"):
            refused = ask(page, path)[0]
            assert refused.status == 403 and "Set-Cookie" not in refused.headers
            assert ask(page, path + "?token=" + token[:-1])[0].status == 403
        assert ask(page, "/control", "POST", '{"key": "+"}')[0].status == 403
        assert ask(page, "/healthz")[0].status == 200
        answer, _ = ask(page, f"/?token={token}")
        assert answer.status == 200
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert ask(page, "/status.json", Cookie=cookie.partition(";")[0])[0].status == 200
        assert ask(page, "/metrics", Authorization=f"Bearer {token}")[0].status == 200
        assert ask(page, f"/snapshot.jpg?token={token}")[0].status == 200
        assert ask(page, "/status.json", Cookie="=;;x=é".encode())[0].status == 403
        assert ask(page, "/status.json", Cookie=b"=;;\x01=")[0].status == 400
        # cookies of other programs on this host, which come along whatever their ports
        own = cookie.partition(";")[0]
        for other in ('ui={"dark": true}', "mhnet_video_token_1=another", "a=é", "="):
            both = f"{other}; {own}".encode()
            assert ask(page, "/status.json", Cookie=both)[0].status == 200
        with closing(make_page(source, "0.0.0.0")) as second:
            answer, _ = ask(second, f"/?token={second.token}", host="box")
            assert answer.headers["Set-Cookie"].partition("=")[0] != own.partition("=")[0]


@pytest.mark.slow
def test_twenty_visitors_cost_one_encoding(source, monkeypatch):
    """Each gets the pictures at their rate, two who never read hold up nobody."""
    encoded = []
    encode = mhnet_video.live.web.page.JpegEncoder.encode
    monkeypatch.setattr(
        mhnet_video.live.web.page.JpegEncoder,
        "encode",
        lambda self, frames, size: encoded.append(size) or encode(self, frames, size),
    )
    with closing(make_page(source)) as page:
        source.start()
        silent = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(2)]
        for connection in silent:
            connection.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        idle = socket.create_connection(("127.0.0.1", page.port))  # says nothing at all
        with ThreadPoolExecutor(20) as pool:
            got = list(pool.map(lambda _: read_stream(page, 40), range(20)))
        assert all(len(jpegs) == 40 for jpegs in got)
        assert len(encoded) <= source.number + 1
        for connection in (*silent, idle):
            connection.close()
        wait_until(lambda: page.pictures.watchers == 0)
        # nobody watches: nothing is encoded
        count, number = len(encoded), source.number
        wait_until(lambda: source.number > number + 10)
        assert len(encoded) <= count + 1


@pytest.mark.slow
def test_a_slow_reader_skips(page, source, monkeypatch):
    """It is not given the old pictures, one after the other, that it had no time for."""
    noise = np.random.default_rng(0).bytes(400_000)
    monkeypatch.setattr(mhnet_video.live.web.page.JpegEncoder, "encode", lambda *_: noise)
    source.put()
    jpegs = read_stream(page, 10, between=lambda: [source.put() for _ in range(8)])
    assert len(jpegs) >= 10 and set(jpegs) == {noise}
    handed = [frame.number for frame in source.shown]
    assert handed == sorted(set(handed)) and len(handed) < source.number - 10
    # one after the other they would be as many as the number of the last; how many are on their
    # way, in the system's buffers, is for the system to say
    assert handed[-1] >= 2 * len(handed)


def test_too_many_connections_are_turned_away(page, monkeypatch):
    monkeypatch.setattr(mhnet_video.web.server, "_MAX_VISITORS", 3)
    held = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(3)]
    wait_until(lambda: connections(page) == 3)
    with socket.create_connection(("127.0.0.1", page.port), SECONDS) as one_more:
        assert one_more.recv(100).startswith(b"HTTP/1.1 503")
    for connection in held:
        connection.close()
    wait_until(lambda: connections(page) == 0)
    assert ask(page, "/")[0].status == 200


def test_a_snapshot_is_never_old(page, source, monkeypatch):
    source.put()
    assert ask(page, "/snapshot.jpg")[0].status == 200
    monkeypatch.setattr(mhnet_video.live.web.page, "_STALE_SECONDS", 0.0)
    assert ask(page, "/snapshot.jpg")[0].status == 503


def test_who_says_little_at_a_time_is_cut_off(source, monkeypatch):
    monkeypatch.setattr(mhnet_video.web.server, "_HEADER_SECONDS", 0.6)
    with (
        closing(make_page(source)) as page,
        socket.create_connection(("127.0.0.1", page.port), SECONDS) as connection,
    ):
        connection.settimeout(0.1)

        def is_cut_off():
            try:
                connection.sendall(b"G")
                return not connection.recv(100)
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(is_cut_off)


def test_who_says_nothing_is_cut_off(source, monkeypatch):
    monkeypatch.setattr(mhnet_video.web.server, "_HEADER_SECONDS", 0.5)
    with (
        closing(make_page(source)) as page,
        socket.create_connection(("127.0.0.1", page.port), SECONDS) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert connection.recv(100) == b""


def test_who_sends_a_body_too_slowly_is_cut_off(page, monkeypatch):
    monkeypatch.setattr(mhnet_video.web.application, "_BODY_SECONDS", 0.4)
    head = "POST /control HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", page.port), SECONDS) as connection:
        connection.sendall(f'{head}Content-Length: 12\r\n\r\n{{"key":'.encode())
        begin = time.monotonic()
        assert received(connection).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - begin > 0.3


def test_a_body_is_not_inflated(page, source):
    body = gzip.compress(b'{"key": "+"}' + b" " * (10 << 20), 9)[:1000]
    headers = {"Content_Type": "application/json", "Content_Encoding": "gzip"}
    assert ask(page, "/control", "POST", body, **headers)[0].status == 400
    assert source.pressed == []


def test_who_never_reads_is_dropped(source, monkeypatch):
    monkeypatch.setattr(mhnet_video.web.server, "_SEND_SECONDS", 0.5)
    noise = np.random.default_rng(0).bytes(4_000_000)
    monkeypatch.setattr(mhnet_video.live.web.pictures.JpegEncoder, "encode", lambda *_: noise)
    source.start()
    with closing(make_page(source)) as page:
        wait_until(lambda: source.number)
        held = []
        for path in ("/stream.mjpg", "/snapshot.jpg"):
            held.append(socket.create_connection(("127.0.0.1", page.port), SECONDS))
            held[-1].sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: connections(page) == 2)
        wait_until(lambda: connections(page) == 0)
        assert page.pictures.watchers == 0
        for connection in held:
            connection.close()


def test_the_server_ends_at_once_whoever_is_connected(source, monkeypatch):
    noise = np.random.default_rng(0).bytes(4_000_000)
    monkeypatch.setattr(mhnet_video.live.web.pictures.JpegEncoder, "encode", lambda *_: noise)
    source.start()
    page = make_page(source)
    requests = ["", "GET / HT", "GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    post = "POST /control HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    requests.append(post + "Content-Length: 12\r\n\r\n{")
    held = [socket.create_connection(("127.0.0.1", page.port), SECONDS) for _ in requests]
    for connection, request in zip(held, requests, strict=True):
        connection.sendall(request.encode())
    wait_until(lambda: connections(page) == 4 and page.pictures.watchers == 1)
    page.close()
    # it ends although all of them still hold their connections
    wait_until(lambda: not page._thread.is_alive())
    for connection in held:
        with contextlib.suppress(ConnectionResetError):
            received(connection)
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", page.port), SECONDS)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET", 400),
        (b"GET / HTTP/9.9", 400),
        (b"GET http://[ HTTP/1.1", 400),
        (b"GET /%ff%00?visitor=%ff&token=%ed%a0%80 HTTP/1.1", 404),
        (b"GET /snapshot.jpg?visitor=%ed%a0%80&view=%ff HTTP/1.1", 400),
        (b"GET //../../%2e%2e/etc/passwd HTTP/1.1", 404),
        (b"OPTIONS * HTTP/1.1", 404),
        (b"GET /boom HTTP/1.1", 404),
    ],
)
def test_nothing_inside_is_shown(page, capfd, request_line, status):
    """Neither to a visitor whose request is wrong nor on the terminal."""
    with socket.create_connection(("127.0.0.1", page.port), SECONDS) as connection:
        connection.sendall(request_line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = received(connection)
    assert re.match(rb"HTTP/1.[01] (\d+)", answer)[1] == str(status).encode(), answer
    assert b"\r\nServer: mhnet-video\r\n" in answer
    assert not re.search(rb"aiohttp|python|Traceback", answer, re.IGNORECASE)
    assert capfd.readouterr() == ("", "")


def test_what_goes_wrong_inside_is_not_shown(source, capfd):
    def press(key):
        raise RuntimeError("a secret")

    source.pressed = SimpleNamespace(append=press)
    with closing(make_page(source)) as page:
        body, kind = '{"key": "+"}', "application/json"
        answer, text = ask(page, "/control", "POST", body, Content_Type=kind)
        assert answer.status == 500 and b"secret" not in text
        assert answer.headers["Server"] == "mhnet-video"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert ask(page, "/")[0].status == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("package", ["aiohttp", "prometheus_client", "aiortc"])
def test_a_page_without_the_extra_is_refused_in_a_sentence(package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["live", "samples/rain.mp4", "--serve", "0"]) == 2
    said = capsys.readouterr().err
    assert f"the page needs {package}, not installed here: pip install" in said
    assert "mhnet-video[web]" in said


@pytest.mark.beside
def test_nothing_but_a_page_imports_the_extra():
    code = "import sys, mhnet_video, mhnet_video.cli.main, mhnet_video.pipelines.live; "
    code += "print([n for n in ('aiohttp', 'prometheus_client', 'aiortc') if n in sys.modules])"
    done = processes.run([sys.executable, "-c", code], check=True)
    assert done.stdout.strip() == "[]"


def test_endless_requests_are_refused(page):
    with socket.create_connection(("127.0.0.1", page.port), SECONDS) as connection:
        connection.sendall(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 400")
    with socket.create_connection(("127.0.0.1", page.port), SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.0 400")


def test_addresses():
    assert parse_listen_address("8080") == ListenAddress("127.0.0.1", 8080)
    assert parse_listen_address("0.0.0.0:80") == ListenAddress("0.0.0.0", 80)
    assert parse_listen_address("[::1]:80") == ListenAddress("::1", 80)
    for text in ("here", "a:b", "1:99999", ""):
        with pytest.raises(ConfigError, match="served at PORT or HOST:PORT"):
            parse_listen_address(text)
    assert is_own("127.0.0.1") and is_own("localhost") and is_own("::1")
    assert not any(map(is_own, ("0.0.0.0", "192.168.1.5", "::", "evil.example", "")))


def test_the_link_for_other_machines_can_be_followed(source):
    with closing(make_page(source, "0.0.0.0")) as page:
        host = page.link.partition("//")[2].partition(":")[0]
        with socket.create_connection((host, page.port), SECONDS) as connection:
            path = page.link.partition(str(page.port))[2]
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_a_port_that_is_taken(page, source):
    taken = ListenAddress("127.0.0.1", page.port)
    with pytest.raises(WriteError, match=r"served at 127.0.0.1:\d+ \(address already in use\);"):
        PageServer(taken, Page(frames=source.frames, statistics=lambda: STATISTICS))
