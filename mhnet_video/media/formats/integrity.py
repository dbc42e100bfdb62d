"""Where the structure of a file does not hold, which FFmpeg passes over without a word.

Containers say of each piece how long it is. Where the next one does not begin there, bytes are
missing, were inserted or changed, and with them pictures that nobody will ever see.
"""

import mmap
import re
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from mhnet_video.media.regular_file import opened

# element IDs of Matroska; RFC 9559, 5.1
_SEGMENT, _CLUSTER = bytes.fromhex("18538067"), bytes.fromhex("1f43b675")
_HEADER = bytes.fromhex("1a45dfa3")
_TRACKS, _TRACK, _TRACK_NUMBER = bytes.fromhex("1654ae6b"), b"\xae", b"\xd7"
_SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = b"\xa3", b"\xa0", b"\xa1"
_SEGMENT_PARTS = {
    bytes.fromhex(number)
    for number in (
        *("1a45dfa3", "18538067", "114d9b74", "1549a966", "1654ae6b", "1c53bb6b"),
        *("1941a469", "1043a770", "1254c367", "1f43b675", "ec", "bf"),
    )
}
"""Elements of a segment, and those beside it."""
_CLUSTER_PARTS = {
    bytes.fromhex(number) for number in ("e7", "a3", "a0", "ab", "a7", "5854", "af", "ec", "bf")
}
"""Elements of a cluster."""
_CHUNK = re.compile(rb"[\w ]{4}", re.ASCII)
"""Name of a chunk of an AVI."""
_MEDIA_CHUNK = re.compile(rb"\d\d(dc|db|wb)|ix\d\d|LIST|RIFF|idx1")
"""Names of chunks that the media of an AVI are in."""
_HOLDING_LISTS = (b"movi", b"rec ")
"""Lists of an AVI that hold such chunks."""
_TAG = re.compile(rb"[\x08\x09\x12]")
"""Types of an FLV's tags: audio, video and script data."""
_BOX = re.compile(rb"[\x20-\x7e\xa9]{4}")
"""Type of a box of an MP4."""
_TURNED = bytes(int(f"{number:08b}"[::-1], 2) for number in range(256))
"""Each byte with its bits in the opposite order."""
TRANSPORT_STRIDES = {188: 0, 192: 4, 204: 0}
"""Bytes of a transport stream's packets, and the offset of the sync byte in them."""
TRANSPORT_SYNC = 0x47
"""Sync byte of a transport stream."""
MIN_PACKETS = 5
"""Packets in a row that make a transport stream."""
_PACKETS = 1 << 16
"""Packets that are looked at together."""
_MAX_SEARCH = 16 << 20
"""Bytes that are searched for the next whole part."""
_MAX_PLACES = 1000
"""Broken places after which a file is not read any further."""

_File = mmap.mmap
"""A file, mapped into memory."""


def broken_places(path: str, format_name: str) -> list[int]:
    """Where a file's pieces do not follow one another as they say, in bytes from its beginning.

    Args:
        path: The file.
        format_name: FFmpeg's name of its format.
    """
    walks = [walk for name, walk in _WALKS.items() if name in format_name.split(",")]
    if not walks:
        return []
    places: list[int] = []
    with opened(path) as file:
        if file is None:
            return places
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # not on every file system, nor of an empty file
            return places
        with data:
            for place in walks[0](data):
                places.append(place)
                if len(places) == _MAX_PLACES:
                    break
    return places


def _matroska(data: _File) -> Iterator[int]:
    place, end, last = 0, None, None
    parts = _SEGMENT_PARTS
    tracks: set[int] = set()
    while place < len(data):
        if end is not None and place >= end:
            parts, end = _SEGMENT_PARTS, None
        number, size, start = _element(data, place)
        if end is None and number in _SEGMENT_PARTS:
            parts = _SEGMENT_PARTS  # a cluster of unknown size ends where the next part begins
        is_known = number in parts
        after = start + (size or 0)
        if number == _SEGMENT and size is not None:
            last = after
        if place == last and not is_known:
            place = _found(data, _HEADER, place)  # what makers leave behind it is no damage
            continue
        if number == _TRACKS and size is not None:
            tracks = set(_track_numbers(data, start, after))
        is_block = parts is _CLUSTER_PARTS and number in (_SIMPLE_BLOCK, _BLOCK_GROUP)
        if is_block and not _is_block_of(data, number, start, tracks):
            yield place
        if is_known and number in (_SEGMENT, _CLUSTER):
            if number == _CLUSTER:
                parts, end = _CLUSTER_PARTS, None if size is None else after
            place = start
        elif is_known and size is not None and after <= (end or len(data)):
            place = after
        elif end is None and number and size is not None and _follows(data, after, parts):
            place = after  # somebody's own
        elif is_known and size is not None and end is None:
            return  # the end is missing, which is reported elsewhere
        else:
            yield place
            parts, end = _SEGMENT_PARTS, None
            place = _found(data, _CLUSTER, place + 1)


def _element(data: _File, place: int) -> tuple[bytes, int | None, int]:
    """An element's number, size and where it begins; no number for none, no size for unknown.

    Source: RFC 8794, sections 4 and 5.
    """
    first = data[place]
    length = 9 - first.bit_length()
    sized = place + length
    if not first or length > 4 or sized >= len(data) or not data[sized]:
        return b"", None, place
    width = 9 - data[sized].bit_length()
    size = int.from_bytes(data[sized : sized + width], "big") & ((1 << 7 * width) - 1)
    is_unknown = size == (1 << 7 * width) - 1
    return data[place:sized], None if is_unknown else size, sized + width


def _inside(data: _File, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Number, start and end of each element of one that holds others."""
    while start < min(end, len(data)):
        number, size, start = _element(data, start)
        if not number or size is None:
            return
        yield number, start, start + size
        start += size


def _track_numbers(data: _File, start: int, end: int) -> Iterator[int]:
    for number, first, last in _inside(data, start, end):
        if number == _TRACK:
            for part, begin, after in _inside(data, first, last):
                if part == _TRACK_NUMBER:
                    yield int.from_bytes(data[begin:after], "big")


def _is_block_of(data: _File, number: bytes, start: int, tracks: set[int]) -> bool:
    """Whether a block is of one of the tracks; those of others are passed over."""
    if number == _BLOCK_GROUP:
        part, _, start = _element(data, start) if start < len(data) else (b"", None, start)
        if part != _BLOCK:
            return True  # it stands behind something else
    first = data[start] if start < len(data) else 0
    # numbers from 127 on take more bytes
    return not tracks or first < 0x80 or first & 0x7F in tracks


def _follows(data: _File, place: int, parts: set[bytes]) -> bool:
    """Whether a known element, or the end of the file, is at a place."""
    return place == len(data) or (place < len(data) and _element(data, place)[0] in parts)


def _avi(data: _File) -> Iterator[int]:
    place, is_media = 0, False
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if kind in (b"RIFF", b"LIST"):
            holds = kind == b"RIFF" or data[place + 8 : place + 12] in _HOLDING_LISTS
            is_media |= holds and kind == b"LIST"
            place += 12 if holds else 8 + size + size % 2
        elif _CHUNK.fullmatch(kind) and (not is_media or place + 8 + size <= len(data)):
            place += 8 + size
            # some leave out the byte that makes it even
            is_even = size % 2 == 0 or not data[place : place + 1].strip(b"\0")
            place += 0 if is_even and size % 2 == 0 else int(is_even)
        else:
            following = _searched(data, _MEDIA_CHUNK, place + 1)
            # behind the last one is room that the recorder took and never used
            if any(kind) or following < len(data):
                yield place
            place = following


def _flv(data: _File) -> Iterator[int]:
    place = int.from_bytes(data[5:9], "big") + 4
    while place + 11 <= len(data):
        after = place + 11 + int.from_bytes(data[place + 1 : place + 4], "big")
        if after + 4 > len(data) and data[place] in b"\x08\x09\x12":
            return  # the end is missing
        if _is_tag(data, place):
            place = after + 4
            continue
        yield place
        place = _searched(data, _TAG, place + 1, lambda found: _is_tag(data, found))


def _is_tag(data: _File, place: int) -> bool:
    after = place + 11 + int.from_bytes(data[place + 1 : place + 4], "big")
    # some recorders write no size behind a tag
    told = int.from_bytes(data[after : after + 4], "big")
    is_stream = data[place + 8 : place + 11] == b"\0\0\0"
    return data[place] in b"\x08\x09\x12" and is_stream and told in (0, after - place)


def _program_stream(data: _File) -> Iterator[int]:
    place = 0
    while place + 4 <= len(data):
        code = data[place : place + 4]
        if code[:3] != b"\0\0\1" or code[3] < 0xB9:
            begin = data.find(b"\0\0\1", place)
            if begin < 0 and not any(data[place:]):
                return  # what fills up the last sector
            if begin < 0 or any(data[place:begin]) or data[begin + 3] < 0xB9:
                yield place
                begin = _found(data, b"\0\0\1\xba", place + 1)
            place = begin
        elif code[3] == 0xB9:
            place += 4
        elif code[3] == 0xBA:
            is_second = place + 14 <= len(data) and data[place + 4] >> 6 == 1
            place += 14 + (data[place + 13] & 7) if is_second else 12
        else:
            place += 6 + int.from_bytes(data[place + 4 : place + 6], "big")


def _ogg(data: _File) -> Iterator[int]:
    """Pages with a wrong sum, too: FFmpeg leaves them out.

    Source: RFC 3533, section 6.
    """
    place = 0
    while place < len(data):
        segments = (
            data[place + 27 : place + 27 + data[place + 26]] if _is_page(data, place) else b""
        )
        end = place + 27 + len(segments) + sum(segments)
        if segments and end > len(data):
            return  # the end is missing
        if not segments or _sum_of(data[place:end]) != data[place + 22 : place + 26]:
            yield place
            end = _found(data, b"OggS", place + 1)
        place = end


def _is_page(data: _File, place: int) -> bool:
    return data[place : place + 4] == b"OggS" and place + 27 < len(data)


def _sum_of(page: bytes) -> bytes:
    """A page's sum, which is zlib's of the bits in the opposite order."""
    turned = (page[:22] + bytes(4) + page[26:]).translate(_TURNED)
    total = zlib.crc32(turned, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return total.to_bytes(4, "big").translate(_TURNED)


def _transport_stream(data: _File) -> Iterator[int]:
    strides = [each for each in TRANSPORT_STRIDES if _are_packets(data, 0, each)]
    if not strides:
        return
    stride, first = strides[0], TRANSPORT_STRIDES[strides[0]]
    place = first
    while place < len(data):
        chunk = np.frombuffer(data[place : place + stride * _PACKETS], np.uint8)[::stride]
        wrong = np.flatnonzero(chunk != TRANSPORT_SYNC)
        if not wrong.size:
            place += stride * chunk.size
            continue
        place += stride * int(wrong[0])
        yield place
        wanted = re.compile(rb"G(?=.{%d}G.{%d}G)" % (stride - 1, stride - 1), re.DOTALL)
        place = _searched(data, wanted, place + 1)


def _are_packets(data: _File, place: int, stride: int) -> bool:
    syncs = data[place + TRANSPORT_STRIDES[stride] : place + MIN_PACKETS * stride : stride]
    return len(syncs) > 1 and not syncs.strip(b"G")


def _fragments(data: _File) -> Iterator[int]:
    place = 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if size == 1:
            size = int.from_bytes(data[place + 8 : place + 16], "big")
        is_box = _BOX.fullmatch(data[place + 4 : place + 8]) is not None
        if is_box and size == 0:
            return  # to the end of the file
        if is_box and 8 <= size <= len(data) - place:
            place += size
            continue
        # behind the last box makers keep what they like
        following = _found(data, b"moof", place + 1)
        if following == len(data):
            return
        yield place
        place = following - 4


def _found(data: _File, wanted: bytes, place: int) -> int:
    found = data.find(wanted, place)
    return len(data) if found < 0 else found


def _searched(
    data: _File,
    pattern: re.Pattern[bytes],
    place: int,
    is_right: Callable[[int], bool] = lambda _: True,
) -> int:
    for match in pattern.finditer(data, place, place + _MAX_SEARCH):
        if is_right(match.start()):
            return match.start()
    return len(data)


_WALKS: dict[str, Callable[[_File], Iterator[int]]] = {
    "matroska": _matroska,
    "avi": _avi,
    "flv": _flv,
    "ogg": _ogg,
    "mpegts": _transport_stream,
    "mpeg": _program_stream,
    "mp4": _fragments,
}
