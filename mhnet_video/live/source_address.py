"""What a person calls a live source, how FFmpeg opens it, and what is wrong where it does not."""

import contextlib
import errno
import os
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.device
import av.logging
from av.error import (
    ExitError,
    FFmpegError,
    HTTPForbiddenError,
    HTTPNotFoundError,
    HTTPUnauthorizedError,
    ProtocolNotFoundError,
)

from mhnet_video.errors import ReadError
from mhnet_video.locator import hide, is_address, locate, shown
from mhnet_video.media.reading.source import url_of

_CAMERAS = {"linux": "v4l2", "win32": "dshow", "darwin": "avfoundation"}
"""FFmpeg's name of the system's cameras, by `sys.platform`."""

VISITOR = "visitor"
"""The source that means a visitor's camera; a file of this name is `./visitor`."""

SOCKET_SECONDS = 5.0
"""How long a socket may be silent before it counts as dead."""

_NETWORK = {"probesize": "1000000", "analyzeduration": "1000000", "fflags": "nobuffer"}
"""FFmpeg's options for every stream: short probing and no buffer, for a low latency."""
_WAIT = str(round(SOCKET_SECONDS * 1e6))
"""`SOCKET_SECONDS` as FFmpeg takes it, in microseconds."""
_SCHEMES: dict[str, dict[str, str]] = {
    # over TCP, as cameras lose packets over UDP as soon as somebody watches television
    "rtsp": {"rtsp_transport": "tcp", "timeout": _WAIT},
    "rtsps": {"rtsp_transport": "tcp", "timeout": _WAIT},
    "http": {"rw_timeout": _WAIT},
    "https": {"rw_timeout": _WAIT},
    "tcp": {"rw_timeout": _WAIT},
    "udp": {"timeout": _WAIT, "fifo_size": "65536", "overrun_nonfatal": "1"},
    "rtp": {"timeout": _WAIT},
    "srt": {"rw_timeout": _WAIT},
    "rtmp": {"rw_timeout": _WAIT},
}
"""FFmpeg's options by the scheme of an address; times are in microseconds."""


@dataclass(frozen=True)
class SourceAddress:
    """Where pictures come from."""

    name: str
    """The name for people, without a password."""
    url: str = field(repr=False)
    """What FFmpeg opens; secret."""
    kind: str
    """`camera`, `network`, `file` or `visitor`."""
    format: str | None = None
    """FFmpeg's name of the input; None for what it finds."""
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The name for people."""
        return self.name


@dataclass(frozen=True)
class CameraInfo:
    """A camera of this machine."""

    source: str
    """What `mhnet-video live` takes."""
    description: str
    formats: tuple[str, ...]
    """Pixel formats or codecs with sizes and rates, a line each, as the system reports them."""


def resolve_address(
    source: str | int | os.PathLike[str] | None,
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
) -> SourceAddress:
    """What to open for a source.

    Args:
        source: A camera's number or device, an address, a file, or `visitor`; None for the first
            camera.
        size: Width and height to ask of a camera.
        fps: Frames a second to ask of a camera.

    Raises:
        ReadError: There is no such file, or no camera.
        ConfigError: FFmpeg would not understand the address.
    """
    if isinstance(source, (int, os.PathLike)):
        source = str(source) if isinstance(source, int) else os.fspath(source)
    if source is None:
        cameras = _devices()
        if not cameras:
            raise ReadError(
                "there is no camera on this machine; plug one in, or name a source: "
                "an address such as rtsp://CAMERA/stream, or a video file."
            )
        source = cameras[0][0]
    if source == VISITOR:
        return SourceAddress("a visitor's camera", source, VISITOR)
    asked: dict[str, str] = {}
    if size is not None:
        asked["video_size"] = f"{size[0]}x{size[1]}"
    if fps is not None:
        asked["framerate"] = f"{fps:g}"
    if source.isdecimal() or re.fullmatch(r"/dev/video\d+", source):
        return _camera(source, asked)
    for each, _ in _devices() if sys.platform != "linux" else ():
        if source == each:
            return _camera(source, asked)
    if is_address(source):
        url = url_of(source)
        return SourceAddress(
            shown(source), url, "network", None, _NETWORK | _SCHEMES.get(_scheme(url), {})
        )
    if not os.path.exists(source):
        raise ReadError(
            f"{shown(source)} is no camera, address or file; "
            "`mhnet-video live --list` shows the cameras."
        )
    if os.path.isdir(source):
        raise ReadError(f"{source} is a folder; name a camera, an address or a video file.")
    # not `abspath`: behind a link, `..` leads elsewhere
    return SourceAddress(source, os.path.join(os.getcwd(), source), "file")


def _camera(source: str, asked: dict[str, str]) -> SourceAddress:
    system = _CAMERAS.get(sys.platform, "v4l2")
    name = url = source
    if system == "v4l2" and source.isdecimal():
        name = url = f"/dev/video{source}"
    elif system == "dshow":
        names = [each for each, _ in _devices()]
        if source.isdecimal() and int(source) < len(names):
            name = names[int(source)]
        url = f"video={name}"
    elif system == "avfoundation" and "framerate" not in asked:
        asked = asked | {"framerate": "30"}  # its own default is one that no camera has
    return SourceAddress(name, url, "camera", system, asked)


def list_cameras() -> list[CameraInfo]:
    """The cameras of this machine, with what each can do."""
    return [CameraInfo(*each, _formats(each[0])) for each in _devices()]


def _devices() -> list[tuple[str, str]]:
    """Source and description of each camera, the first one first."""
    system = _CAMERAS.get(sys.platform, "v4l2")
    try:
        found = av.device.enumerate_input_devices(system)
    except (FFmpegError, OSError, ValueError):
        found = []
    cameras = []
    for device in found:
        if "video" in device.media_types or not device.media_types:
            name = device.description if system == "dshow" else device.name
            cameras.append((name, device.description))
    if system == "v4l2" and not cameras:
        nodes = sorted(Path("/dev").glob("video*"), key=_number)
        cameras = [(str(node), node.name) for node in nodes if _number(node) >= 0]
    return sorted(cameras, key=lambda each: _number(Path(each[0]))) if system == "v4l2" else cameras


def _number(node: Path) -> int:
    digits = node.name.removeprefix("video")
    return int(digits) if digits.isdecimal() else -1


def _formats(source: str) -> tuple[str, ...]:
    """What a camera can do: FFmpeg writes it to its log and opens nothing."""
    address = _camera(source, {})
    option = {"v4l2": "list_formats", "dshow": "list_options"}.get(address.format or "")
    if option is None:
        return ()
    value = "all" if option == "list_formats" else "true"
    before = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        # it opens nothing, and says so with an error
        with (
            av.logging.Capture() as said,
            contextlib.suppress(FFmpegError, OSError, ValueError),
        ):
            av.open(address.url, format=address.format, options={option: value}).close()
        text = "".join(message for _, _, message in said)
    finally:
        av.logging.set_level(before)
    return formats_in(text)


def formats_in(text: str) -> tuple[str, ...]:
    """The formats in what FFmpeg says of a camera, each once."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    # v4l2: "Raw : yuyv422 : YUYV 4:2:2 : 640x480 320x240"; dshow: "vcodec=mjpeg min s=640x480 ..."
    formats = [
        re.sub(r"^\[[^]]*\] ", "", line) for line in lines if re.search(r"\d{2,}x\d{2,}", line)
    ]
    return tuple(dict.fromkeys(formats))


def why_not_opened(address: SourceAddress, error: Exception) -> str:
    """What is wrong with a source and what to do, in a sentence."""
    name = address.name
    number = getattr(error, "errno", None)
    scheme = _scheme(address.url)
    if address.kind == "camera":
        if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            return (
                f"there is no camera {name}; plug it in, or name another source "
                "(`mhnet-video live --list` shows the cameras)."
            )
        if number in (errno.EACCES, errno.EPERM):
            group = " (sudo usermod -aG video $USER, then log in again)"
            settings = " in the system's privacy settings"
            way = group if sys.platform == "linux" else settings
            return f"{name} may not be opened; allow this user to use cameras{way}."
        if number == errno.EBUSY:
            return f"{name} is in use by another program; close that one first."
        if address.options:
            asked = " and ".join(address.options.values())
            return f"{name} does not give {asked}; `mhnet-video live --list` shows what it can do."
        return f"{name} gives no pictures ({_reason(error)}); plug it in again."
    if address.kind == "file":
        if number in (errno.EACCES, errno.EPERM):
            return f"{name} may not be read; check its permissions."
        return f"{name} is not a video; name a video file."
    for kind, sentence in _SENTENCES:
        if isinstance(error, kind):
            return sentence(name, scheme)
    if number == errno.EIO and scheme == "udp":
        return f"{name} is silent."
    return f"{name} gives no pictures: {_reason(error)}."


def is_unanswered(address: SourceAddress, error: Exception) -> bool:
    """Whether nobody was there who could be disturbed by trying again soon.

    Args:
        address: What was to be opened.
        error: Why there was no picture of it.
    """
    parts = locate(address.url)
    if parts is not None and (parts.scheme in ("udp", "rtp") or "listen" in parts.query):
        return True
    number = getattr(error, "errno", None)
    if number == errno.EIO:
        # FFmpeg's word for a name that is not known, and for much else
        return not _is_known(parts.name if parts is not None else None)
    return isinstance(error, (TimeoutError, ExitError)) or number in _UNANSWERED


def is_hopeless(address: SourceAddress, error: Exception) -> bool:
    """Whether opening a source again later would fail in the same way."""
    if address.kind in ("camera", "file"):
        return True
    return isinstance(error, _HOPELESS)


_UNANSWERED = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)
"""Error numbers of a host or a port where nobody answers."""


def _is_known(host: str | None) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, ValueError):  # the latter for what cannot be a name
        return False


_HOPELESS = (
    ProtocolNotFoundError,
    HTTPUnauthorizedError,
    HTTPForbiddenError,
    HTTPNotFoundError,
)
"""Errors that opening a network source again later would not mend."""


def _scheme(url: str) -> str:
    return url.partition("://")[0]


_SENTENCES: list[tuple[type[Exception], Callable[[str, str], str]]] = [
    (
        ProtocolNotFoundError,
        lambda name, scheme: f"{name} cannot be opened: PyAV's FFmpeg here knows no {scheme}://.",
    ),
    (
        HTTPUnauthorizedError,
        lambda name, scheme: (
            f"{name} wants a name and a password; say them as "
            f"{scheme}://NAME:PASSWORD@{name.split('/')[2]}/..., special characters as %40 for @."
        ),
    ),
    (
        HTTPForbiddenError,
        lambda name, _: f"{name} may not be seen with this name and password.",
    ),
    (HTTPNotFoundError, lambda name, _: f"{name} is not there; check the path of the address."),
    (
        ConnectionRefusedError,
        lambda name, _: f"{name} refuses the connection: is the camera's server running?",
    ),
    (ExitError, lambda name, _: f"{name} is silent."),
    (TimeoutError, lambda name, _: f"{name} is silent."),
]
"""What is said of a network source by the kind of error, from its name and scheme."""


def _reason(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return hide(str(said)).lower()
