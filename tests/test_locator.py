"""Addresses of cameras and servers: what FFmpeg is told, and what people must not be told."""

import base64
import contextlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from random import Random
from urllib.parse import quote, unquote

import pytest
from clips import Audio, Clip, Video, every, picture
from standin import LiveStandIn, StandIn
from test_session import live_frame
from waiting import SECONDS, wait_until

import mhnet_video.live.adaptive_restorer
from mhnet_video.cli.main import main
from mhnet_video.config import LiveConfig, LiveOutputs
from mhnet_video.errors import ConfigError, MHNetVideoError, ReadError
from mhnet_video.live.forwarder import Forwarder
from mhnet_video.live.source_address import is_unanswered, resolve_address, why_not_opened
from mhnet_video.locator import hide, locate, shown
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import open_source
from mhnet_video.pipelines import restore as pipeline
from mhnet_video.pipelines.evaluate import evaluate
from mhnet_video.pipelines.live import run_live
from mhnet_video.pipelines.restore import restore_video

# what may be seen of an address, and what may not be seen of it; HOST is where nobody answers
CLEAR = {
    "http://admin:geheim@HOST/x": ("http://HOST/x", ["geheim"]),
    "http://admin:ge%40he%2Fim@HOST/x": ("http://HOST/x", ["ge%40he", "ge@he"]),
    "rtsp://admin:gehe@imwort@HOST/x": ("rtsp://HOST/x", ["gehe", "imwort"]),
    "rtsp://admin:ge:[he]im@HOST/x": ("rtsp://HOST/x", ["[he]", "ge:["]),
    "http://admin:100%geheim@HOST/x": ("http://HOST/x", ["100%", "geheim"]),
    "http://admin:gehé'\"\\imß@HOST/x": ("http://HOST/x", ["gehé", "imß"]),
    "http://admin:ge heim@HOST/x": ("http://HOST/x", ["ge heim"]),
    "http://geheimnis@HOST/x": ("http://HOST/x", ["geheimnis"]),
    "http://:geheim@HOST/x": ("http://HOST/x", ["geheim"]),
    "http://HOST/x?user=admin&password=geheim": ("http://HOST/x", ["geheim"]),
    "http://HOST/x?token=ge@heim/a": ("http://HOST/x", ["ge@heim"]),
    "http://HOST/x?a=1#auth=geheim": ("http://HOST/x", ["geheim"]),
    "rtsp://HOST/user=admin_password=geheim_channel=1.sdp": ("rtsp://HOST/user=***", ["geheim"]),
    "rtmp://HOST/app/geheim": ("rtmp://HOST/app/***", ["geheim"]),
    "rtmp://HOST/app/gehe/im live=1": ("rtmp://HOST/app/***", ["gehe/im"]),
    "rtmp://HOST/geheim": ("rtmp://HOST/***", ["geheim"]),
}
# what FFmpeg would not understand: besides, how the characters are written
RAW = {
    "rtsp://admin:geh/eim@HOST/x": (["geh/eim", "eim"], ["/ as %2F"]),
    "http://admin:g@he#i/mn@HOST/x": (["g@he", "he#i"], ["@ as %40", "# as %23", "/ as %2F"]),
    "http://admin:geheim?nis@HOST/x": (["geheim", "nis"], ["? as %3F"]),
    "http://admin:geh#eim@HOST/x": (["geh#", "eim"], ["# as %23"]),
    "rtsp://admin:9876543/10987654@HOST/x": (["9876543", "10987654"], ["/ as %2F"]),
    "http://:geh/eim@HOST/x": (["geh/eim"], ["/ as %2F"]),
    "rtsp://me:g[e]/h%@HOST/x": (["g[e]"], ["[ as %5B", "] as %5D", "/ as %2F", "% as %25"]),
    "http://ad/min:geheim@HOST/x": (["geheim"], ["/ as %2F"]),
    "rtsp:///admin:geheim@HOST/x": (["geheim"], ["/ as %2F"]),
    "rtsp://admin:geh/eim": (["geh", "eim"], ["NAME:PASSWORD@HOST"]),
    "http://admin:geh\neim@HOST/x": (["geh", "eim"], ["%0A"]),
    "HTTP://admin:geß/ü@HOST/x": (["geß", "/ü"], ["/ as %2F"]),
}
# what is no address, though somebody has taken it for one
WRONG = {
    "rtsp:/admin:geheim@HOST/x": ["geheim"],
    "http:admin:geheim@HOST/x": ["geheim"],
    "admin:geheim@HOST/x": ["geheim"],
    "//admin:geh/eim@HOST/x": ["geh/eim"],
    "HOST/x?user=admin&password=geheim": ["geheim"],
}


@pytest.fixture(scope="module")
def host():
    """Where nobody answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def standin(monkeypatch):
    """No network is loaded."""
    monkeypatch.setattr(pipeline, "restorer_of", lambda config: StandIn())
    monkeypatch.setattr(
        mhnet_video.live.adaptive_restorer, "Restorer", lambda *_, **__: LiveStandIn()
    )
    monkeypatch.setattr(
        mhnet_video.live.adaptive_restorer, "models_at_hand", lambda *_, **__: ["realtime"]
    )


def assert_hidden(secrets, *texts):
    for secret in secrets:
        for form in {secret, unquote(secret), quote(secret, safe=""), ascii(secret)[1:-1]}:
            for text in texts:
                assert form not in text, f"{form} in {text}"


@pytest.mark.parametrize("url", CLEAR)
def test_what_is_shown_of_an_address(url, host):
    wanted, secrets = CLEAR[url]
    url, wanted = url.replace("HOST", host), wanted.replace("HOST", host)
    address = resolve_address(url)
    assert (shown(url), address.name, str(address)) == (wanted, wanted, wanted)
    assert address.url == url
    assert_hidden(secrets, repr(address), why_not_opened(address, OSError(5, f"{url!r} fails")))
    assert hide(f"{url} and {url!r}, {url!a}") == f"{wanted} and '{wanted}', '{wanted}'"
    if secrets == ["geheim"]:
        assert hide("no geheim there") == "no *** there"


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://cam/a@b",
        "rtsp://[fe80::1]:554/x",
        "file:///home/a@b",
        "udp://239.0.0.1:1234",
        "clip@2x.mp4",
        "C:\\Users\\me@home\\clip.mp4",
        "2024-01-01 12:30.mp4",
        "-",
    ],
)
def test_what_is_not_secret_is_shown(url):
    assert shown(url) == url
    assert hide(f"{url} is here") == f"{url} is here"


def test_a_file_is_shown_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "cam:1@yard.mp4"
    assert shown(name) == "***"
    Path(name).touch()
    assert shown(name) == name


def test_the_parts_of_an_address():
    assert locate(" RTSP://a:b@c@[::1]:554/p?q=1#r\n") == ("rtsp", "a:b@c", "[::1]:554", "/p?q=1#r")
    assert locate("cache:http://h:80/x").name == "h" and locate("rtsp://[::1]/").name == "::1"
    assert locate("clip.mp4") is None
    # brackets in a password are no IPv6 host
    address = resolve_address("tcp://u:p[w]@127.0.0.1:9?listen=1")
    assert is_unanswered(address, OSError(5, "I/O")) is True
    assert resolve_address("RTSP://cam/x").url == "rtsp://cam/x"


@pytest.mark.parametrize("url", RAW)
def test_a_character_that_must_be_encoded_is_explained(url, host):
    secrets, ways = RAW[url]
    url = url.replace("HOST", host)
    for take in (resolve_address, open_source, lambda each: Forwarder(each, fps=25)):
        with pytest.raises(ConfigError) as caught:
            take(url)
        assert_hidden(secrets, str(caught.value))
        assert all(way in str(caught.value) for way in ways)


def commands(url, clip):
    """Whatever takes an address, and what might be given one."""
    return [
        [url, "out.mp4"],
        [url, "out.mp4", "--json", "--sheet", "out.png"],
        [clip, url],
        [clip, f"{url}/live.mp4", "--overwrite"],
        [clip, "out.mp4", "--sheet", url],
        [clip, "out.mp4", "--weights", url],
        [clip, "out.mp4", f"--model={url}"],
        [clip, "out.mp4", f"--nothing={url}"],
        [clip, "out.mp4", "--start", url],
        ["live", clip, "--record", url],
        ["live", clip, "--record", "out.mkv", "--output", f"foo{url}"],
        ["live", clip, "--record", "out.mkv", "--serve", url],
        ["live", clip, "--view", url],
        ["evaluate", url, url],
        ["evaluate", clip, url, "--json"],
        ["evaluate", url],
        ["train", "--data", url, "--output", "out", "--minutes", "1"],
        ["bench", "--json", url],
        ["bench", "--model", url, "--frames", "1"],
        ["info", url],
        ["live", clip, "--device", url],
    ]


@pytest.mark.parametrize("url", [*CLEAR, *RAW, *WRONG])
def test_no_command_shows_a_secret(url, host, tmp_path, monkeypatch, capsys):
    secrets = (CLEAR.get(url) or [0, WRONG.get(url)])[1] if url not in RAW else RAW[url][0]
    monkeypatch.chdir(tmp_path)
    clip = str(Clip(video=(Video(times=every(40, 3)),)).make(tmp_path))
    url = url.replace("HOST", host)
    for words in commands(url, clip):
        try:
            status = main(words)
        except SystemExit as error:  # argparse
            status = error.code
        out, err = capsys.readouterr()
        assert status in (1, 2) and err, words
        assert "Traceback" not in err and out == "", words
        assert_hidden(secrets, err)
    assert sorted(os.listdir()) == [Path(clip).name]


@pytest.mark.parametrize("url", RAW)
def test_an_address_that_cannot_be_understood_is_wrong_usage(url, host, tmp_path, capsys):
    url = url.replace("HOST", host)
    for words in (
        ["live", url, "--record", str(tmp_path / "a.mkv")],
        ["live", "--record", str(tmp_path / "a.mkv"), "--output", url, __file__],
        [url, str(tmp_path / "a.mkv")],
    ):
        assert main(words) == 2
        assert_hidden(RAW[url.replace(host, "HOST")][0], *capsys.readouterr())


@pytest.mark.parametrize("url", [url for url in CLEAR if url.startswith(("http", "rtsp"))])
def test_live_does_not_show_what_it_tries(url, host, standin):
    wanted, secrets = CLEAR[url]
    stop, said = threading.Event(), []

    def tell(text):
        said.append(text)
        stop.set()

    report = run_live(
        url.replace("HOST", host),
        LiveConfig(),
        LiveOutputs(has_window=False),
        on_message=tell,
        stop=stop,
    )
    assert "refuses the connection" in said[0] and wanted.replace("HOST", host) in said[0]
    assert_hidden(secrets, *said, repr(report), json.dumps(report.statistics.to_dict()))


def test_errors_and_those_before_them_hold_no_secret(host, tmp_path, monkeypatch, capsys):
    url = f"http://admin:geh'ei\"m@{host}/x"
    for failing in (open_source, VideoReader, lambda each: restore_video(each, tmp_path / "a.mkv")):
        with pytest.raises(ReadError) as caught:
            failing(url)
        assert "ConnectionRefused" in "".join(traceback.format_exception(caught.value))
        assert_hidden(["geh'ei"], "".join(traceback.format_exception(caught.value)))
    for failing in (lambda: evaluate(url, url), lambda: restore_video(__file__, url)):
        with pytest.raises(MHNetVideoError) as caught:
            failing()
        assert_hidden(["geh'ei"], "".join(traceback.format_exception(caught.value)))

    def fault(*_, **__):
        try:
            raise OSError(5, "lost", url)
        except OSError as error:
            raise RuntimeError(f"nobody has foreseen {url!r}") from error

    monkeypatch.setattr(pipeline, "restore_video", fault)
    assert main([url, "out.mp4"]) == 1
    monkeypatch.setenv("MHNET_DEBUG", "1")
    with pytest.raises(RuntimeError, match="foreseen") as caught:
        main([url, "out.mp4"])
    told = "".join(traceback.format_exception(caught.value))
    assert "lost" in told
    assert_hidden(["geh'ei", 'ei\\"m', 'ei"m'], told, *capsys.readouterr())


def test_a_thread_that_fails_shows_no_secret(standin, monkeypatch, capsys):
    """What nobody has foreseen, where Python itself tells of it."""
    url = "http://admin:geheim@127.0.0.1:1/x"

    def fault(*_, **__):
        thread = threading.Thread(target=lambda: (_ for _ in ()).throw(RuntimeError(url)))
        thread.start()
        thread.join()
        raise ReadError("no")

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(pipeline, "restore_video", fault)
    assert main([url, "out.mp4"]) == 1
    err = capsys.readouterr().err
    assert "RuntimeError: http://127.0.0.1:1/x" in err
    assert_hidden(["geheim"], err)


# what needs a password, and gets it

NAME, PASSWORD = "admin", "p@ss#w/rd é"


class Guarded(http.server.SimpleHTTPRequestHandler):
    """Files, and a camera at /live, for who knows the password."""

    jpeg = b""

    def log_message(self, *_):
        pass

    def do_GET(self):
        known = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {known}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="cam"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/live"):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
            self.end_headers()
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.jpeg)}\r\n\r\n"
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(head.encode() + self.jpeg + b"\r\n")
                    time.sleep(0.04)
        else:
            super().do_GET()


@pytest.fixture
def guarded(tmp_path, monkeypatch):
    """Host and port of a server that wants the password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Guarded, "jpeg", picture("mjpeg", 64, 48))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def encoded(host):
    return f"http://{NAME}:{quote(PASSWORD, safe='')}@{host}"


SECRETS = [PASSWORD, quote(PASSWORD, safe=""), "w/rd"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_clip_behind_a_password_is_restored(suffix, guarded, tmp_path, standin, capsys):
    clip = Clip(video=(Video(times=every(40, 12)),), audio=(Audio(),), name="clip.ts")
    clip.make(tmp_path)
    out = f"out{suffix}"
    url = f"{encoded(guarded)}/clip.ts?token=geheimnis"
    words = [url, out, "--json", "--progress", "--sheet", "sheet.png"]
    assert main(words) == 0
    said, err = capsys.readouterr()
    report = json.loads(said)
    assert (report["source"], report["destination"]) == (f"http://{guarded}/clip.ts", out)
    assert report["frames"] == 12 and Path("sheet.png").exists()
    assert_hidden([*SECRETS, "geheimnis"], said, err)
    assert main([url, "again.mkv"]) == 0
    assert_hidden([*SECRETS, "geheimnis"], *capsys.readouterr(), *os.listdir())
    for path in (out, "again.mkv", "sheet.png"):
        assert not re.search(b"geheimnis|p%40ss|p@ss|" + NAME.encode(), Path(path).read_bytes())


def test_a_wrong_password_is_not_shown_either(guarded, standin, capsys):
    for words in (["live"], []):
        target = "--record" if words else "out.mp4"
        rest = [target, "out.mp4"] if words else [target]
        assert main([*words, f"http://{NAME}:geheim@{guarded}/live", *rest]) == 1
        err = capsys.readouterr().err
        assert guarded in err
        assert_hidden(["geheim"], err)
    assert main(["live", f"http://{NAME}:{PASSWORD}@{guarded}/live", "--record", "out.mp4"]) == 2


def test_the_page_of_a_camera_behind_a_password(guarded, standin):
    said, seen, stop = [], [], threading.Event()

    def tell(text):
        said.append(text)
        link = re.search(r"http://127\.0\.0\.1:\d+/$", text)
        if link:
            seen.append(link[0])

    def visit():
        try:
            wait_until(have_frames_come)
        finally:
            stop.set()

    def have_frames_come():
        for path in ("", "status.json", "metrics", "healthz") if seen else ():
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(seen[0] + path, timeout=SECONDS) as answer,
            ):
                seen.append(answer.read().decode() + str(answer.headers))
        return any('"frames": ' in text and '"frames": 0' not in text for text in seen)

    visitor = threading.Thread(target=visit)
    visitor.start()
    report = run_live(
        f"{encoded(guarded)}/live?user=a&password=geheimnis",
        LiveConfig(scale=1.0),
        LiveOutputs(has_window=False, serve="127.0.0.1:0", record="out.mkv"),
        on_message=tell,
        on_statistics=lambda each: said.append(repr(each)),
        stop=stop,
    )
    visitor.join()
    assert report.statistics.frames and report.statistics.source == f"http://{guarded}/live"
    assert any(f'"source": "http://{guarded}/live"' in text for text in seen)
    assert any("mhnet_video_up" in text for text in seen)
    assert_hidden([*SECRETS, "geheimnis"], *said, *seen, repr(report), *os.listdir())
    assert not re.search(b"geheimnis|p%40ss|p@ss", Path("out.mkv").read_bytes())


def test_no_command_line_holds_where_frames_are_sent(host, monkeypatch):
    """Any user of a machine sees the words with which processes begin."""
    begun = []

    class Process(subprocess.Popen):
        def __init__(self, words, **options):
            begun.append(words)
            super().__init__(words, **options)

    monkeypatch.setattr(subprocess, "Popen", Process)
    forwarder = Forwarder(f"tcp://me:ge%40heim@{host}/app/streamkey?pass=word", fps=25)
    wait_until(lambda: forwarder.put(live_frame(0)) or forwarder.trouble)
    forwarder.close()
    # it has been told where to: who is there refuses
    assert forwarder.trouble == (f"tcp://{host} takes nothing (connection refused); trying again.")
    assert begun and begun[0][0] == sys.executable
    assert_hidden(["heim", "streamkey", "pass=word"], str(begun), forwarder.trouble)


def test_whatever_a_password_holds():
    """It is understood as it is meant, or refused, and never shown."""
    asked = []

    class Asking(Guarded):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            super().do_GET()

    random = Random(3)
    taken = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asking) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        for _ in range(150):
            odd = "".join(random.choices("@/#?:[]%&=;+ '\"\\é\n,|._-1", k=random.randint(1, 6)))
            password = f"GEHEIM{odd}WORT"
            for written in (password, quote(password, safe="")):
                url = f"http://admin:{written}@127.0.0.1:{server.server_port}/x"
                asked.clear()
                try:
                    address = resolve_address(url)
                except ConfigError as error:
                    assert written == password and set(odd) & set("/?#\n")
                    assert_hidden(["GEHEIM", "WORT"], str(error), shown(url))
                    continue
                with pytest.raises(ReadError) as caught:
                    open_source(url)
                taken += 1
                assert_hidden(["GEHEIM", "WORT"], str(caught.value), repr(address), shown(url))
                told = [base64.b64decode(each.split()[1]) for each in asked if each]
                assert told == [f"admin:{password}".encode()]
        server.shutdown()
        thread.join()
    assert 150 < taken < 300
