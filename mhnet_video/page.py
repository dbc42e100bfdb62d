"""A page for any browser: the live picture before and after, keys, statistics, and a snapshot.

One thread encodes each picture once, for all visitors, and only while there are any; a visitor who
reads slowly skips pictures and holds up nobody. Bound to this machine unless told otherwise;
other addresses need a token.
"""

import base64
import contextlib
import hashlib
import hmac
import html
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.live import Latest, LiveFrame, LiveStatistics
from mhnet_video.view import JpegEncoder, fit

_MAX_VISITORS = 64
_MAX_BODY_BYTES = 1024
_HEADER_SECONDS = 10.0
# a picture that a visitor has not taken by then: the connection is dead
_SEND_SECONDS = 10.0
# what the system holds for a slow reader: more would make it see old pictures
_SEND_BUFFER_BYTES = 256 << 10
# both halves of the page's picture together are at most twice as wide
_MAX_SIZE = (1280, 1280)
_STALE_SECONDS = 10.0
_BOUNDARY = "mhnet-video-frame"
_COOKIE = "mhnet_video_token"
_KEYS = ("+", "-", "m", "r")
_SNAPSHOTS = ("after", "before", "side")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Picture(NamedTuple):
    """One encoded picture."""

    jpeg: bytes
    frame: LiveFrame


class Address(NamedTuple):
    """Where the page listens."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """`PORT`, `HOST:PORT` or `[HOST]:PORT`; the host is this machine's own where none is said.

    Raises:
        ConfigError: It is written in another way.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"a page is served at PORT or HOST:PORT, not at {text}")
    return Address(host or "127.0.0.1", int(port))


def is_own(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Page:
    """The server; runs on threads of its own until it is closed.

    Args:
        address: Where to listen; port 0 takes a free one.
        frames: The newest frames.
        statistics: Tells how it goes.
        press: Does what a key stands for; given one of `+`, `-`, `m` and `r`.
        shown: Told of each frame that has been handed to a visitor.
        view: How the page begins.
        state: More that visitors are told, such as whether it is recorded.

    Raises:
        WriteError: The address cannot be listened at.
    """

    def __init__(
        self,
        address: Address,
        *,
        frames: Latest[LiveFrame],
        statistics: Callable[[], LiveStatistics],
        press: Callable[[str], None] = lambda key: None,
        shown: Callable[[LiveFrame], None] = lambda frame: None,
        view: str = "split",
        state: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.token = "" if is_own(address.host) else secrets.token_urlsafe(24)
        """What a visitor must know; empty where every visitor is of this machine."""
        self._frames = frames
        self.statistics = statistics
        self.press = press
        self.state = state
        self._shown = shown
        self.pictures: Latest[Picture] = Latest()
        """Both pictures beside each other, as JPEG."""
        self._lock = threading.Lock()
        self._visitors = 0
        self._streams = 0
        self._wanted = threading.Event()
        self._is_closed = False
        self.html = _html(view)
        self.policy = _policy(self.html.decode())
        try:
            self._server = _Server(address, self)
        except OSError as error:
            raise WriteError(
                f"the page cannot be served at {address.host}:{address.port} "
                f"({(error.strerror or str(error)).lower()}); name another port or address."
            ) from error
        self.port = int(self._server.server_address[1])
        """The port it listens at."""
        shown_host = f"[{address.host}]" if ":" in address.host else address.host
        if address.host in ("0.0.0.0", "::", ""):
            shown_host = socket.gethostname()
        self.host = shown_host
        self.link = f"http://{shown_host}:{self.port}/"
        """What to open in a browser, with the token."""
        if self.token:
            self.link += f"?token={self.token}"
        self._threads = [
            threading.Thread(target=self._encode, name="mhnet-video page pictures", daemon=True),
            threading.Thread(
                target=self._server.serve_forever,
                kwargs={"poll_interval": 0.2},
                name="mhnet-video page",
                daemon=True,
            ),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def visitors(self) -> int:
        """Connections that are open."""
        return self._visitors

    @property
    def streams(self) -> int:
        """Visitors who watch."""
        return self._streams

    def enter(self) -> bool:
        """Count a connection in; False where there are too many."""
        with self._lock:
            if self._visitors >= _MAX_VISITORS:
                return False
            self._visitors += 1
            return True

    def leave(self) -> None:
        """Count a connection out."""
        with self._lock:
            self._visitors -= 1

    def watch(self, change: int) -> None:
        """Count watching visitors in and out: pictures are encoded while there are any."""
        with self._lock:
            self._streams += change
            if self._streams:
                self._wanted.set()
            else:
                self._wanted.clear()

    @property
    def is_closed(self) -> bool:
        """Whether the page has been closed."""
        return self._is_closed

    @property
    def is_fresh(self) -> bool:
        """Whether there was a picture lately."""
        frame = self._frames.item
        return frame is not None and time.monotonic() - frame.arrival < _STALE_SECONDS

    def snapshot(self, kind: str) -> bytes | None:
        """The newest frame as JPEG at its full size; None before the first."""
        frame = self._frames.item
        if frame is None:
            return None
        chosen = {"after": [frame.after], "before": [frame.before]}
        width, height = frame.after.upright_size
        size = (max(2, width // 2 * 2), max(2, height // 2 * 2))
        return JpegEncoder().encode(chosen.get(kind, [frame.before, frame.after]), size)

    def handed_out(self, picture: Picture) -> None:
        """A visitor has got a picture."""
        self._shown(picture.frame)

    def _encode(self) -> None:
        encoder = JpegEncoder()
        number = 0
        while not self._is_closed and not self._frames.is_closed:
            if not self._wanted.wait(0.2):
                continue
            got = self._frames.get(number, 0.2)
            if got is None:
                continue
            number, frame = got
            width, height = frame.after.upright_size
            size = (width // 2 * 2, height // 2 * 2)
            if width > _MAX_SIZE[0] or height > _MAX_SIZE[1]:
                size = fit(width, height, _MAX_SIZE)
            jpeg = encoder.encode([frame.before, frame.after], size)
            self.pictures.put(Picture(jpeg, frame))
        self.pictures.close()

    def close(self) -> None:
        """End the server; visitors are cut off."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wanted.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(1)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: Address, page: Page) -> None:
        self.page = page
        if ":" in address.host:
            self.address_family = socket.AF_INET6
        super().__init__((address.host, address.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.page.enter():
            request.settimeout(1)
            with contextlib.suppress(OSError):
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.page.leave()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mhnet-video"
    sys_version = ""
    timeout = _HEADER_SECONDS
    server: _Server

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: their addresses may hold the token."""

    # who may come in

    def _is_let_in(self) -> bool:
        """Answer those who are not, and say whether this one is."""
        page = self.server.page
        if not page.token:
            # a foreign page must not reach us by a name of its own that leads here
            host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
            if not is_own((host or "").strip("[]")):
                self._say(HTTPStatus.FORBIDDEN, "this page is for this machine only\n")
                return False
            return True
        query = parse_qs(urlsplit(self.path).query)
        given = [*query.get("token", [])]
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None:
            given.append(cookie.value)
        kind, _, bearer = (self.headers.get("Authorization") or "").partition(" ")
        if kind.lower() == "bearer":
            given.append(bearer.strip())
        right = page.token.encode()
        if any([hmac.compare_digest(each.encode(), right) for each in given]):
            return True
        self._say(HTTPStatus.FORBIDDEN, "the link that mhnet-video has printed leads here\n")
        return False

    # what there is

    def do_GET(self) -> None:
        page = self.server.page
        path = urlsplit(self.path).path
        if path == "/healthz":
            if page.is_fresh:
                self._say(HTTPStatus.OK, "ok\n")
            else:
                trouble = page.statistics().trouble or "no picture yet"
                self._say(HTTPStatus.SERVICE_UNAVAILABLE, trouble + "\n")
            return
        if not self._is_let_in():
            return
        if path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page.html)
        elif path == "/stream.mjpg":
            self._stream()
        elif path == "/snapshot.jpg":
            self._snapshot()
        elif path == "/status.json":
            self._send_status()
        elif path == "/metrics":
            text = metrics(page.statistics(), page)
            self._send(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", text.encode())
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is nothing here\n")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if not self._is_let_in():
            return
        length = self.headers.get("Content-Length", "")
        origin = self.headers.get("Origin")
        if urlsplit(self.path).path != "/control":
            self._say(HTTPStatus.NOT_FOUND, "there is nothing here\n")
        elif origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self._say(HTTPStatus.FORBIDDEN, "not from another page\n")
        elif self.headers.get_content_type() != "application/json":
            self._say(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "JSON, please\n")
        elif not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long\n")
        else:
            try:
                key = json.loads(self.rfile.read(int(length)))["key"]
            except (ValueError, TypeError, KeyError, RecursionError):
                key = None
            if key not in _KEYS:
                self._say(HTTPStatus.BAD_REQUEST, '{"key": "+"}, "-", "m" or "r"\n')
                return
            self.server.page.press(key)
            self._send_status()

    def _send_status(self) -> None:
        page = self.server.page
        status = page.statistics().to_dict() | page.state() | {"visitors": page.streams}
        self._send(HTTPStatus.OK, "application/json", json.dumps(status).encode())

    def _snapshot(self) -> None:
        kind = parse_qs(urlsplit(self.path).query).get("view", ["after"])[0]
        if kind not in _SNAPSHOTS:
            said = f"a snapshot is one of {', '.join(_SNAPSHOTS)}\n"
            self._say(HTTPStatus.BAD_REQUEST, said)
            return
        jpeg = self.server.page.snapshot(kind)
        if jpeg is None:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, "no picture yet\n")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", jpeg)

    def _stream(self) -> None:
        """Pictures for as long as the visitor takes them; always the newest."""
        page = self.server.page
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self._end_headers()
        if self.command == "HEAD":
            return
        self.connection.settimeout(_SEND_SECONDS)
        page.watch(1)
        try:
            number = 0
            while not page.is_closed:
                got = page.pictures.get(number, 0.5)
                if got is None:
                    if page.pictures.is_closed:
                        return
                    continue
                number, picture = got
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                head += f"Content-Length: {len(picture.jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + picture.jpeg + b"\r\n")
                page.handed_out(picture)
        except OSError:
            pass
        finally:
            page.watch(-1)

    def _say(self, status: HTTPStatus, text: str) -> None:
        # what is left of a request that was not read must not be taken for the next one
        self.close_connection = True
        self._send(status, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self._end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", self.server.page.policy)
        token = self.server.page.token
        if token and urlsplit(self.path).path == "/":
            self.send_header("Set-Cookie", f"{_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def _html(view: str) -> bytes:
    text = (files("mhnet_video") / "page.html").read_text("utf-8")
    return text.replace("{{view}}", html.escape(view)).encode()


def _policy(text: str) -> str:
    """What a browser may do for the page: run its own script and style, and ask us."""
    own = {
        kind: base64.b64encode(
            hashlib.sha256(
                text.partition(f"<{kind}>")[2].partition(f"</{kind}>")[0].encode()
            ).digest()
        ).decode()
        for kind in ("script", "style")
    }
    return (
        "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; "
        f"script-src 'sha256-{own['script']}'; style-src 'sha256-{own['style']}'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def metrics(statistics: LiveStatistics, page: Page) -> str:
    """How it goes, as Prometheus reads it."""
    rows: list[tuple[str, str, str, float]] = [
        ("up", "gauge", "Whether there was a picture in the last ten seconds.", page.is_fresh),
        ("frames_total", "counter", "Frames restored.", statistics.frames),
        ("dropped_total", "counter", "Frames dropped for newer ones.", statistics.dropped),
        ("reconnects_total", "counter", "Times the source came back.", statistics.reconnects),
        ("damaged_total", "counter", "Packets that were not decoded.", statistics.damaged),
        ("fps", "gauge", "Frames a second that are shown.", statistics.fps),
        ("source_fps", "gauge", "Frames a second of the source.", statistics.source_fps),
        (
            "latency_seconds",
            "gauge",
            "From arrival to being shown, the median.",
            statistics.latency_seconds,
        ),
        ("network_seconds", "gauge", "Restoring the last frame.", statistics.network_seconds),
        ("scale", "gauge", "Working scale of the network.", statistics.scale),
        ("visitors", "gauge", "Visitors who watch the page.", page.streams),
    ]
    lines: list[str] = []
    for name, kind, what, value in rows:
        full = f"mhnet_video_{name}"
        lines += [f"# HELP {full} {what}", f"# TYPE {full} {kind}", f"{full} {float(value):g}"]
    labels = {
        "model": statistics.model,
        "device": statistics.device,
        "engine": statistics.engine,
    }
    told = ",".join(f"{key}={json.dumps(str(value))}" for key, value in labels.items())
    lines += [
        "# HELP mhnet_video_info What restores.",
        "# TYPE mhnet_video_info gauge",
        f"mhnet_video_info{{{told}}} 1",
    ]
    return "\n".join(lines) + "\n"
