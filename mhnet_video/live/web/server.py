"""What answers browsers for the page: who may come in, what there is, and what is refused."""

import contextlib
import hmac
import io
import json
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mhnet_video.errors import MHNetVideoError
from mhnet_video.live.browser_camera import MAX_BYTES
from mhnet_video.live.web.page import Address, Page, is_own

_MAX_BODY_BYTES = 1024
_MAX_OFFER_BYTES = 32 << 10
_HEADER_SECONDS = 10.0
# a picture that a visitor has not taken by then: the connection is dead
_SEND_SECONDS = 10.0
# what the system holds for a slow reader: more would make it see old pictures
_SEND_BUFFER_BYTES = 256 << 10
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


class Server(ThreadingHTTPServer):
    """Listens for browsers, and gives each connection a thread.

    Args:
        address: Where to listen.
        page: What it answers for.

    Raises:
        OSError: The address cannot be listened at.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: Address, page: Page) -> None:
        self.page = page
        if ":" in address.host:
            self.address_family = socket.AF_INET6
        super().__init__((address.host, address.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Turn away who is one too many."""
        if not self.page.enter():
            request.settimeout(1)
            with contextlib.suppress(OSError):
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and count the visitor out."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.page.leave()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who goes away is no error."""


class _Refused(Exception):
    """A request is not answered as it was meant."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Arriving(io.RawIOBase):
    """What a visitor sends, until a time by which all of it must have come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.end = 0.0
        """On the clock of `time.monotonic`, in seconds."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        rest = self.end - time.monotonic()
        if rest <= 0:
            raise TimeoutError("too slow")
        self._connection.settimeout(rest)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(_SEND_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mhnet-video"
    sys_version = ""
    timeout = _HEADER_SECONDS
    server: Server

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()
        self._arriving = _Arriving(self.connection)
        self.rfile = io.BufferedReader(self._arriving)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: their addresses may hold the token."""

    def handle_one_request(self) -> None:
        """Take a request, all of whose header must be there in time."""
        self._arriving.end = time.monotonic() + self.timeout
        super().handle_one_request()

    # who may come in

    @property
    def _cookie(self) -> str:
        # browsers send one host's cookies to all of its ports
        return f"{_COOKIE}_{self.server.page.port}"

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
        # by hand: a library gives up at the first cookie of another program that is not as it ought
        for cookie in self.headers.get("Cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self._cookie:
                given.append(value)
        kind, _, bearer = (self.headers.get("Authorization") or "").partition(" ")
        if kind.lower() == "bearer":
            given.append(bearer.strip())
        right = page.token.encode()
        if any([hmac.compare_digest(each.encode("utf-8", "replace"), right) for each in given]):
            return True
        self._say(HTTPStatus.FORBIDDEN, "the link that mhnet-video has printed leads here\n")
        return False

    # what there is

    def do_GET(self) -> None:
        page = self.server.page
        path = urlsplit(self.path).path
        if path == "/healthz":
            trouble = page.trouble
            status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
            self._say(status, f"{trouble or 'ok'}\n")
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
            text = page.metrics()
            self._send(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", text.encode())
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is nothing here\n")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if not self._is_let_in():
            return
        answers: dict[str, Callable[[], None]] = {
            "/control": self._control,
            "/camera": self._take_picture,
            "/camera/begin": self._begin_camera,
            "/camera/end": self._end_camera,
            "/webrtc": self._connect,
        }
        answer = answers.get(urlsplit(self.path).path)
        origin = self.headers.get("Origin")
        if answer is None:
            self._say(HTTPStatus.NOT_FOUND, "there is nothing here\n")
        elif origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self._say(HTTPStatus.FORBIDDEN, "not from another page\n")
        else:
            try:
                answer()
            except _Refused as refused:
                self._say(refused.status, f"{refused}\n")

    def _body(self, kind: str, max_bytes: int) -> bytes:
        """What a request brings, of a kind that no foreign page may send."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != kind:
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{kind}, please")
        if not length.isdecimal() or int(length) > max_bytes:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long")
        self._arriving.end = time.monotonic() + self.timeout
        return self.rfile.read(int(length))

    def _field(self, name: str, max_bytes: int = _MAX_BODY_BYTES) -> Any:
        """A field of the JSON object that a request brings; None where it has none."""
        body = self._body("application/json", max_bytes)
        try:
            return json.loads(body)[name]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def _control(self) -> None:
        key = self._field("key")
        if key not in _KEYS:
            raise _Refused(HTTPStatus.BAD_REQUEST, '{"key": "+"}, "-", "m" or "r"')
        self.server.page.press(key)
        self._send_status()

    def _send_status(self) -> None:
        self._send_json(self.server.page.status())

    def _send_json(self, value: dict[str, Any]) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(value).encode())

    # a visitor's own camera

    def _begin_camera(self) -> None:
        self._body("application/json", _MAX_BODY_BYTES)
        visitors = self.server.page.cameras
        if visitors is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "visitors' cameras are not asked for here")
        key = visitors.enter()
        if not key:
            raise _Refused(HTTPStatus.CONFLICT, "another visitor's camera is being restored")
        self._send_json({"visitor": key})

    def _take_picture(self) -> None:
        visitors = self.server.page.cameras
        key = self.headers.get("X-Visitor", "")
        number = self.headers.get("X-Number", "")
        # before anything is read
        if visitors is None or not visitors.is_present(key):
            raise _Refused(HTTPStatus.FORBIDDEN, "it is not this visitor's turn")
        if not number.isdecimal() or len(number) > 12:
            raise _Refused(HTTPStatus.BAD_REQUEST, "pictures have numbers")
        jpeg = self._body("image/jpeg", MAX_BYTES)
        if not visitors.put(key, jpeg, int(number)):
            raise _Refused(HTTPStatus.BAD_REQUEST, "no JPEG of 16 to 1920 pixels a side")
        self._send(HTTPStatus.NO_CONTENT, "", b"")

    def _end_camera(self) -> None:
        key = self._field("visitor")
        visitors = self.server.page.cameras
        if visitors is not None and isinstance(key, str):
            visitors.leave(key)
        self._send(HTTPStatus.NO_CONTENT, "", b"")

    def _connect(self) -> None:
        """Answer an offer of WebRTC."""
        webrtc = self.server.page.webrtc
        if webrtc is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no WebRTC here")
        offer = self._field("sdp", _MAX_OFFER_BYTES)
        if not isinstance(offer, str):
            raise _Refused(HTTPStatus.BAD_REQUEST, '{"sdp": "v=0..."}')
        try:
            self._send_json({"sdp": webrtc.answer(offer, self._visitor())})
        except MHNetVideoError as error:
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error

    def _visitor(self) -> str:
        """The key of a visitor whose own camera is restored; empty for others."""
        return parse_qs(urlsplit(self.path).query).get("visitor", [""])[0]

    # pictures

    def _snapshot(self) -> None:
        kind = parse_qs(urlsplit(self.path).query).get("view", ["after"])[0]
        if kind not in _SNAPSHOTS:
            said = f"a snapshot is one of {', '.join(_SNAPSHOTS)}\n"
            self._say(HTTPStatus.BAD_REQUEST, said)
            return
        page = self.server.page
        jpeg = page.snapshot(kind, self._visitor()) if page.is_fresh else None
        if jpeg is None:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, f"{page.trouble or 'no picture yet'}\n")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", jpeg)

    def _stream(self) -> None:
        """Pictures for as long as the visitor takes them; always the newest."""
        page = self.server.page
        visitor = self._visitor()
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
                if not page.is_for(visitor, picture.frame):
                    continue
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                head += f"Content-Length: {len(picture.jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + picture.jpeg + b"\r\n")
                page.handed_out(picture.frame)
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
        if status != HTTPStatus.NO_CONTENT:
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
            value = f"{self._cookie}={token}; Path=/; HttpOnly; SameSite=Strict"
            self.send_header("Set-Cookie", value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
