"""Opens a source, or says in one sentence why it cannot be read."""

import errno
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import av
import av.logging
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from mhnet_video.errors import ConfigError, ReadError
from mhnet_video.locator import clean, is_address, locate, shown
from mhnet_video.media.formats.mp4_boxes import lacks_index
from mhnet_video.media.regular_file import opened

if TYPE_CHECKING:
    Packet = av.Packet[Any]
else:
    Packet = av.Packet

COVER = Disposition.attached_pic | Disposition.timed_thumbnails
"""What a stream is that holds pictures of the file, and is not restored."""
_MISSING = "does not exist; check the path."
"""What is said of a path with nothing at it."""
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
"""Errors of such a path."""
_FORBIDDEN = "may not be read; check its permissions."
SILENCE_SECONDS = 30.0
"""Seconds without data after which an address is given up."""
# element IDs of Matroska: the file's header, and a segment
_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
_HEAD_BYTES = 4096
"""How much of a file is looked at for its format."""
_NO_RIFF_BYTES = 0x7FFFFFFF
"""Sizes from here on stand for an unknown one in an AVI."""
_TIMED = ("http", "https", "tcp", "tls", "rtmp")
"""Protocols that take FFmpeg's option `rw_timeout`."""
_STANDARD_INPUT = "pipe:0"
"""FFmpeg's name of standard input."""
_FAR = {"probesize": str(128 << 20), "analyzeduration": str(600 * 10**6), "scan_all_pmts": "1"}
"""How far a file is searched for audio that begins late, in bytes and microseconds."""
_PIPE = {"probesize": str(64 << 20), "analyzeduration": str(30 * 10**6), "scan_all_pmts": "1"}
"""Likewise a pipe, of which all is in memory."""
_UNTOLD_FORMATS = ("flv", "mpeg")
"""Formats that announce a stream with its first packet."""
_FOREIGN_FORMATS = {
    *("concat", "hls", "dash", "webm_dash_manifest", "imf", "sdp", "rtsp", "rtp", "sap"),
    *("lavfi", "ffmetadata", "tty", "bin", "xbin", "adf", "idf"),
}
"""Lists of other files and addresses, and text that is drawn: a file that claims to be a video must
not make FFmpeg open what it names."""


def open_source(source: str | PathLike[str], *, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open a file, an address, or `-` for standard input.

    Args:
        source: What to open.
        hwaccel: A device for the decoders; None for the CPU.

    Raises:
        ReadError: There is no such file, or it is no video.
        ConfigError: FFmpeg would not understand the address.
    """
    # damage is counted here, not printed by FFmpeg; and its logging into Python can deadlock
    # with decoder threads
    av.logging.set_level(None)
    url, name = os.fspath(source), shown(source)
    is_remote = is_address(url)
    options = {"format_whitelist": _file_formats(), "pattern_type": "none"}
    if url == "-":
        url = _STANDARD_INPUT
        options |= _PIPE  # it cannot be read twice
    elif is_remote:
        url = url_of(url)
        # PyAV's limit is for opening and reading, this one for searching, too
        is_timed = url.partition("://")[0] in _TIMED
        options = {"rw_timeout": str(round(SILENCE_SECONDS * 1e6))} if is_timed else {}
    else:
        _check_file(url, name)
        # an absolute path cannot be taken for a protocol, whatever colons are in it; `abspath`
        # would take `..` out, which behind a link leads elsewhere
        url = os.path.join(os.getcwd(), url)

    def open_with(options: dict[str, str]) -> InputContainer:
        return av.open(
            _OneWay(url) if _is_cut_in_index(url) else url,
            mode="r",
            container_options=options,
            metadata_errors="surrogateescape",
            hwaccel=hwaccel,
            timeout=SILENCE_SECONDS if is_remote else None,
        )

    try:
        container = open_with(options)
        if os.path.isfile(url) and _lacks_sound(container):
            container.close()
            container = open_with(options | _FAR)
        return container
    except (FFmpegError, OSError, ValueError) as error:
        clean(error)
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            raise ReadError(f"{name} {_FORBIDDEN}") from error
        if not is_remote and isinstance(error, OSError) and error.errno == errno.ENOENT:
            raise ReadError(f"{name} {_MISSING}") from error  # it was there a moment ago
        said = why_unreadable(url, name)
        otherwise = f"{name} is not a video, or is damaged from its beginning; name a video file."
        if is_remote:
            otherwise = f"{name} cannot be reached, or holds no video; check the address."
        raise ReadError(said or otherwise) from error


def _check_file(url: str, name: str) -> None:
    """Check that there is something to open, by one look: files can go away between two."""
    try:
        status = os.stat(url)
    except PermissionError as error:
        raise ReadError(f"{name} {_FORBIDDEN}") from error
    except OSError as error:
        said = _MISSING if error.errno in _ABSENT else f"cannot be read: {error.strerror}."
        raise ReadError(f"{name} {said}") from error
    except ValueError as error:  # of what cannot even be a name
        raise ReadError(f"{name} {_MISSING}") from error
    if stat.S_ISDIR(status.st_mode):
        raise ReadError(f"{name} is a folder; name a video file.")
    if stat.S_ISREG(status.st_mode) and not status.st_size:
        raise ReadError(f"{name} is empty; copy it again from where it was recorded.")


def is_known(sound: Any) -> bool:
    """Whether it is known what sound a stream holds, which is learnt from its packets."""
    return bool(sound.sample_rate and sound.layout.nb_channels)


def _lacks_sound(container: InputContainer) -> bool:
    """Whether there is sound that the beginning of a file does not tell of, or may be."""
    sounds = container.streams.audio
    if not sounds:
        return container.format.name in _UNTOLD_FORMATS
    return not all(is_known(sound) for sound in sounds if sound.codec_context is not None)


def url_of(text: str) -> str:
    """What FFmpeg is to open for an address that a person has written.

    Raises:
        ConfigError: FFmpeg would not understand it, whatever is there.
    """
    text, name = text.strip(), shown(text)
    parts = locate(text)
    if parts is None:
        raise ConfigError(f"{name} is no address; write it as rtsp://HOST/... or http://HOST/...")
    odd = re.search(r"[\0-\x1f\x7f]", text)
    if odd is not None:
        raise ConfigError(
            f"{name} holds a line break or another character that cannot be seen; "
            f"leave it out, or write it as {quote(odd[0])}."
        )
    if parts.is_clear:
        return f"{parts.scheme}://{text.partition('://')[2]}"
    before, at, _ = text.partition("://")[2].rpartition("@")
    # what ends a name and a password for FFmpeg, and what is safer so beside it
    wrong = dict.fromkeys(re.findall(r"[/?#@\[\]\s]|%(?![0-9A-Fa-f]{2})", before))
    if not at:
        raise ConfigError(
            f"{name} cannot be opened: what stands behind the colon after its host is no port; "
            f"write {parts.scheme}://NAME:PASSWORD@HOST:PORT/..., an IPv6 host in brackets."
        )
    ways = [f"{each} as {quote(each, safe='')}" for each in wrong]
    raise ConfigError(
        f"{name} cannot be opened, as a character in its name or password would end them; "
        f"write {' and '.join(filter(None, [', '.join(ways[:-1]), ways[-1]]))} there, "
        "and an @ behind the host as %40."
    )


def why_unreadable(url: str, name: str) -> str | None:
    """Why nothing can be decoded from a file, as far as one can see from outside.

    Args:
        url: What was opened.
        name: What a person calls it.

    Returns:
        A sentence; None if nothing is known.
    """
    if url == _STANDARD_INPUT:
        return (
            "standard input is not a video that can be read as it comes; name the file instead "
            "(an MP4 can be read so only if its index stands first)."
        )
    with suppress(OSError):  # of a disk that fails
        if lacks_index(url):
            return (
                f"{name} has no index, as a power cut during recording leaves it; a repair tool "
                "(untrunc, for one) can rebuild it with a healthy file of the same camera."
            )
    return None


def is_animated_webp(url: str) -> bool:
    """Whether a file is a WebP of several pictures."""
    with opened(url) as file:
        head = file.read(21) if file else b""
    return head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2)


def is_cut_off(url: str) -> bool:
    """Whether a file is a Matroska or an AVI that says itself that it is longer than it is."""
    with opened(url) as file:
        if not file:
            return False
        head, end = file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
    if head[:4] == b"RIFF" and len(head) >= 12:
        told = struct.unpack("<I", head[4:8])[0]
        # recorders begin with a size that no file has, and complete it when they are stopped; some
        # count the eight bytes before it
        return told < _NO_RIFF_BYTES and told > end
    if head[:4] != _EBML:
        return False
    place = 4 + sum(_vint(head, 4))
    told, length = _vint(head, place + 4)
    is_known = told < (1 << 7 * length) - 1
    return head[place : place + 4] == _SEGMENT and is_known and place + 4 + length + told > end


def _vint(data: bytes, place: int) -> tuple[int, int]:
    """A number of EBML and how many bytes it takes; (0, 0) where there is none.

    Source: RFC 8794, section 4.
    """
    length = 9 - data[place].bit_length() if place < len(data) and data[place] else 0
    number = int.from_bytes(data[place : place + length], "big")
    return number & ((1 << 7 * length) - 1), length


class _OneWay:
    """A file that cannot be searched, so that FFmpeg reads it from its beginning to its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def read(self, size: int) -> bytes:
        return os.read(self._descriptor, size)

    def __del__(self) -> None:
        os.close(self._descriptor)


def _is_cut_in_index(url: str) -> bool:
    """Whether a file is an AVI that ends in its index; FFmpeg would read what is named by then."""
    with opened(url) as file:
        if not file or file.read(4) != b"RIFF":
            return False
        end, start = os.fstat(file.fileno()).st_size, 12
        while start + 8 <= end:
            file.seek(start)
            kind, size = struct.unpack("<4sI", file.read(8))
            if not any(kind):
                break  # room that the recorder took and never used
            start += 8 + size + size % 2
            if kind == b"idx1":
                return start > end
    return False


@cache
def _file_formats() -> str:
    """The formats that hold video themselves, and do not name other files to be opened."""
    return ",".join(sorted(av.formats_available - _FOREIGN_FORMATS))


def is_end_mark(packet: Packet) -> bool:
    """Whether an empty packet is of PyAV's making, behind the last one, and not of the file's."""
    return not packet.size and packet.pts is packet.dts is packet.pos is None


def packets_of(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """The packets of streams, or of all that there are by now."""
    with suppress(IndexError):  # of PyAV, at the end, where streams came into being in the middle
        yield from container.demux(*(streams or container.streams))


def filled_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Packets that hold something, and an empty one for the end.

    That is how PyAV marks it, and upon which a decoder takes nothing more. Files have empty ones
    in their middle, too.
    """
    end: Packet = Packet()
    for packet in packets_of(container, stream):
        if packet.size:
            yield packet
        else:
            end = packet
    yield end


def plays(path: str | PathLike[str]) -> bool:
    """Whether a file holds a picture that can be decoded."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return any(stream.decode(packet) for packet in filled_packets(container, stream))
    except (FFmpegError, OSError, ValueError, IndexError):
        return False
