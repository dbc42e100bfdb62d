"""Puts the shape of samples into a finished Matroska or WebM, which PyAV does not tell its muxer.

Sources: RFC 8794 (EBML) and RFC 9559.
"""

import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from mhnet_video.media.formats.matroska_inventory import size_at

_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
_SEEK_HEAD, _TRACKS = bytes.fromhex("114d9b74"), bytes.fromhex("1654ae6b")
_SEEK_ID, _SEEK_POSITION = b"\x53\xab", b"\x53\xac"
_VOID, _CRC = b"\xec", b"\xbf"
_TRACK, _TRACK_NUMBER, _VIDEO = b"\xae", b"\xd7", b"\xe0"
_PIXEL_WIDTH, _PIXEL_HEIGHT = b"\xb0", b"\xba"
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"
_SHAPE = b"\x03"
"""The unit in which width and height for display are those of a shape; RFC 9559, 5.1.4.1.28.14."""
_HEAD_BYTES = 1 << 20
"""Most of a file that is looked at: what comes before its pictures."""
_LEAST_VOID_BYTES = 9
"""Size of free space with nothing in it, its own size in eight bytes."""


class _Element(NamedTuple):
    """An element, its number as it is written; `start` and `end` are places in what holds it."""

    number: bytes
    body: bytes
    start: int
    end: int


def set_aspects(path: Path, aspects: Mapping[int, Fraction], *, is_webm: bool) -> bool:
    """Write how wide the samples of tracks are, in the free space that FFmpeg leaves at the head.

    Args:
        path: A finished file as FFmpeg writes it.
        aspects: Width of a sample over its height, by the tracks' numbers.
        is_webm: Whether the size for display must be in pixels, rounded.

    Returns:
        Whether that was possible.
    """
    with open(path, "r+b") as file:
        head = file.read(_HEAD_BYTES)
        outer = [each for each in _elements(head, 0) if each.number in (_EBML, _SEGMENT)]
        if [each.number for each in outer] != [_EBML, _SEGMENT]:
            return False
        first = outer[1].start + len(outer[1].number) + size_at(head, outer[1].start + 4)[1]
        found = {each.number: each for each in reversed(list(_elements(head, first)))}
        seek, void, tracks = (found.get(each) for each in (_SEEK_HEAD, _VOID, _TRACKS))
        if not (seek and void and tracks and seek.end == void.start < tracks.start):
            return False
        if tracks.end > len(head):
            return False
        changed = _joined(_TRACKS, _checked(_tracks(tracks.body, aspects, is_webm=is_webm)))
        earlier = len(changed) - (tracks.end - tracks.start)
        free = void.end - void.start - earlier - _LEAST_VOID_BYTES
        if earlier < 0 or free < 0:
            return False
        moved = {
            each.number: each.start - first - earlier
            for each in found.values()
            if void.end <= each.start <= tracks.start
        }
        written = _joined(_SEEK_HEAD, _checked(_seek_head(seek.body, moved)))
        if len(written) != seek.end - seek.start:
            return False
        written += _VOID + (free | 1 << 56).to_bytes(8, "big") + bytes(free)
        written += head[void.end : tracks.start] + changed
        file.seek(seek.start)
        file.write(written)
    return True


def _elements(data: bytes, place: int) -> Iterator[_Element]:
    """The elements from a place on, the last one perhaps cut; ends where there is none."""
    while place + 2 <= len(data) and data[place]:
        number = data[place : place + 9 - data[place].bit_length()]
        begin = place + len(number)
        if begin >= len(data) or not data[begin]:
            return
        size, length = size_at(data, begin)
        begin += length
        yield _Element(number, data[begin : begin + size], place, begin + size)
        place = begin + size


def _joined(number: bytes, body: bytes) -> bytes:
    """An element as FFmpeg writes it, the size of a track in eight bytes."""
    least = 8 if number == _TRACK else 1
    length = next(n for n in range(least, 9) if len(body) < (1 << 7 * n) - 1)
    return number + (len(body) | 1 << 7 * length).to_bytes(length, "big") + body


def _checked(elements: list[tuple[bytes, bytes]]) -> bytes:
    """What an element holds, with its checksum renewed where it has one; RFC 8794, 11.3.1."""
    has_sum = bool(elements) and elements[0][0] == _CRC
    body = b"".join(_joined(*each) for each in elements[has_sum:])
    return _joined(_CRC, zlib.crc32(body).to_bytes(4, "little")) + body if has_sum else body


def _inside(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(each.number, each.body) for each in _elements(body, 0)]


def _tracks(
    body: bytes, aspects: Mapping[int, Fraction], *, is_webm: bool
) -> list[tuple[bytes, bytes]]:
    changed = []
    for number, inside in _inside(body):
        parts = _inside(inside) if number == _TRACK else []
        aspect = aspects.get(int.from_bytes(dict(parts).get(_TRACK_NUMBER, b""), "big"))
        if aspect is not None:
            parts = [
                (kind, _video(each, aspect, is_webm=is_webm) if kind == _VIDEO else each)
                for kind, each in parts
            ]
            inside = b"".join(_joined(*each) for each in parts)
        changed.append((number, inside))
    return changed


def _video(body: bytes, aspect: Fraction, *, is_webm: bool) -> bytes:
    parts = _inside(body)
    told = dict(parts)
    width, height = (int.from_bytes(told[each], "big") for each in (_PIXEL_WIDTH, _PIXEL_HEIGHT))
    shape = Fraction(width, height) * aspect
    across, down = shape.numerator, shape.denominator
    if is_webm:
        across, down = round(width * aspect), height
    ours = {_DISPLAY_WIDTH: _number(across), _DISPLAY_HEIGHT: _number(down)}
    if not is_webm:
        ours[_DISPLAY_UNIT] = _SHAPE
    kept = [each for each in parts if each[0] not in (*ours, _DISPLAY_UNIT)]
    return b"".join(_joined(*each) for each in (*kept, *ours.items()))


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _seek_head(body: bytes, moved: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    changed = []
    for number, inside in _inside(body):
        parts = _inside(inside) if number != _CRC else []
        place = moved.get(dict(parts).get(_SEEK_ID, b""))
        if place is not None:
            length = len(dict(parts)[_SEEK_POSITION])
            ours = {_SEEK_POSITION: place.to_bytes(length, "big")}
            inside = b"".join(_joined(kind, ours.get(kind, each)) for kind, each in parts)
        changed.append((number, inside))
    return changed
