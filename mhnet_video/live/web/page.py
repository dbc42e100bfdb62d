"""A page for any browser: the live picture before and after, keys, statistics, and a snapshot.

One thread encodes each picture once, for all visitors, and only while there are any; a visitor who
reads slowly skips pictures and holds up nobody. Bound to this machine unless told otherwise;
other addresses need a token.
"""

import base64
import hashlib
import html
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from importlib.resources import files
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any, NamedTuple

from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.live.browser_camera import KEY_TAG, Visitors
from mhnet_video.live.rendering import JpegEncoder, even_size
from mhnet_video.live.session import Latest, LiveFrame, LiveStatistics
from mhnet_video.live.web.webrtc import WebRtc, has_webrtc
from mhnet_video.locator import shown

_MAX_VISITORS = 64
# both halves of the page's picture together are at most twice as wide
_MAX_SIZE = (1280, 1280)
_STALE_SECONDS = 10.0
# what a visitor's browser is asked for, where nothing else was
_USUAL_SIZE, _USUAL_FPS = (640, 480), 25


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
        raise ConfigError(f"a page is served at PORT or HOST:PORT, not at {shown(text)}")
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
        serve: Makes what answers browsers for a page: `Server`.
        frames: The newest frames.
        statistics: Tells how it goes.
        press: Does what a key stands for; given one of `+`, `-`, `m` and `r`.
        shown: Told of each frame that has been handed to a visitor.
        view: How the page begins.
        state: More that visitors are told, such as whether it is recorded.
        visitors: Where the pictures of visitors' own cameras go; None for another source.
        wanted: Size and rate that visitors' cameras are asked for.

    Raises:
        WriteError: The address cannot be listened at.
    """

    def __init__(
        self,
        address: Address,
        serve: Callable[[Address, "Page"], TCPServer],
        *,
        frames: Latest[LiveFrame],
        statistics: Callable[[], LiveStatistics],
        press: Callable[[str], None] = lambda key: None,
        shown: Callable[[LiveFrame], None] = lambda frame: None,
        view: str = "split",
        state: Callable[[], dict[str, Any]] = dict,
        visitors: Visitors | None = None,
        wanted: tuple[tuple[int, int] | None, float | None] = (None, None),
    ) -> None:
        self.token = "" if is_own(address.host) else secrets.token_urlsafe(24)
        """What a visitor must know; empty where every visitor is of this machine."""
        self._frames = frames
        self._statistics = statistics
        self.press = press
        self._state = state
        self.handed_out = shown
        """Told of each frame that a visitor has got."""
        self.cameras = visitors
        """Where the pictures of visitors' own cameras go; None for another source."""
        self.pictures: Latest[Picture] = Latest()
        """Both pictures beside each other, as JPEG."""
        self._lock = threading.Lock()
        self._visitors = 0
        self._streams = 0
        self._wanted = threading.Event()
        self._is_closed = False
        # on this machine there is room enough for JPEG, which is better, and the ports that WebRTC
        # opens are not of this machine only
        self.webrtc = (
            WebRtc(frames, is_for=self.is_for, shown=shown, max_size=_MAX_SIZE)
            if self.token and has_webrtc()
            else None
        )
        """Sends pictures over WebRTC; None where it does not serve."""
        size, fps = wanted[0] or _USUAL_SIZE, wanted[1] or _USUAL_FPS
        self.html = _html(
            view=view,
            source="visitor" if visitors is not None else "camera",
            webrtc="yes" if self.webrtc is not None else "",
            width=str(size[0]),
            height=str(size[1]),
            fps=f"{fps:g}",
        )
        self.policy = _policy(self.html.decode())
        try:
            self._server = serve(address, self)
        except OSError as error:
            if self.webrtc is not None:
                self.webrtc.close()
            raise WriteError(
                f"the page cannot be served at {address.host}:{address.port} "
                f"({(error.strerror or str(error)).lower()}); name another port or address."
            ) from error
        self.port = int(self._server.server_address[1])
        """The port it listens at."""
        shown_host = f"[{address.host}]" if ":" in address.host else address.host
        if address.host in ("0.0.0.0", "::", ""):
            shown_host = _name_of_this_machine()
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
        """Visitors who watch JPEG pictures."""
        return self._streams

    @property
    def watching(self) -> int:
        """Visitors who watch, in any way."""
        return self._streams + (self.webrtc.peers if self.webrtc is not None else 0)

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
    def trouble(self) -> str:
        """Why there are no pictures, in a sentence; empty if there are, or nobody sends any."""
        if self.is_fresh or (self.cameras is not None and not self.cameras.is_taken):
            return ""
        return self._statistics().trouble or "no picture yet"

    def status(self) -> dict[str, Any]:
        """What the page tells of."""
        visitors = self.cameras
        return (
            self._statistics().to_dict()
            | self._state()
            | {
                "visitors": self.watching,
                "is_camera_taken": visitors is not None and visitors.is_taken,
            }
        )

    def metrics(self) -> str:
        """How it goes, as Prometheus reads it."""
        return _metrics(self._statistics(), self)

    def is_for(self, visitor: str, frame: LiveFrame) -> bool:
        """Whether a visitor may see a frame: one of his own camera is for nobody else.

        Args:
            visitor: His key; empty where his camera is not the source.
            frame: The frame.
        """
        if self.cameras is None:
            return True
        return frame.before.tags.get(KEY_TAG) == visitor and self.cameras.is_present(visitor)

    @property
    def is_fresh(self) -> bool:
        """Whether there was a picture lately."""
        frame = self._frames.item
        return frame is not None and time.monotonic() - frame.arrival < _STALE_SECONDS

    def snapshot(self, kind: str, visitor: str = "") -> bytes | None:
        """The newest frame as JPEG at its full size; None where there is none for this visitor."""
        frame = self._frames.item
        if frame is None or not self.is_for(visitor, frame):
            return None
        chosen = {"after": [frame.after], "before": [frame.before]}
        size = even_size(frame.after, frame.after.upright_size)
        return JpegEncoder().encode(chosen.get(kind, [frame.before, frame.after]), size)

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
            jpeg = encoder.encode([frame.before, frame.after], even_size(frame.after, _MAX_SIZE))
            self.pictures.put(Picture(jpeg, frame))
        self.pictures.close()

    def close(self) -> None:
        """End the server; visitors are cut off."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wanted.set()
        if self.webrtc is not None:
            self.webrtc.close()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(1)


def _name_of_this_machine() -> str:
    """The address by which other machines are likely to reach this one, or its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # nothing is sent: it is asked which way would be taken to an address of documentation
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _html(**values: str) -> bytes:
    text = (files("mhnet_video.live.web") / "page.html").read_text("utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", html.escape(value))
    return text.encode()


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


def _metrics(statistics: LiveStatistics, page: Page) -> str:
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
        ("visitors", "gauge", "Visitors who watch the page.", page.watching),
    ]
    lines: list[str] = []
    for name, kind, what, value in rows:
        full = f"mhnet_video_{name}"
        lines += [f"# HELP {full} {what}", f"# TYPE {full} {kind}", f"{full} {float(value):.15g}"]
    labels = {
        "model": statistics.model,
        "device": statistics.device,
        "engine": statistics.engine,
    }
    told = ",".join(
        f"{key}={json.dumps(str(value), ensure_ascii=False)}" for key, value in labels.items()
    )
    lines += [
        "# HELP mhnet_video_info What restores.",
        "# TYPE mhnet_video_info gauge",
        f"mhnet_video_info{{{told}}} 1",
    ]
    return "\n".join(lines) + "\n"
