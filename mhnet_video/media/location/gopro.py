"""Where a GoPro was: read from the packets of its telemetry track."""

import re
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from mhnet_video.media.location.positions import Position, position_of, time_of


def gopro_positions(data: bytes, seconds: float) -> Iterator[Position]:
    """The positions of a packet of GoPro's telemetry, from its GPS5 or GPS9.

    Source: GoPro's GPMF, https://github.com/gopro/gpmf-parser: a key of four letters, a type, the
    size of a structure, their number, and values whose order is big-endian, to multiples of four.

    Args:
        data: The packet.
        seconds: How long it lasts; the samples of a GPS5 have one time for all of them.
    """
    for device in _gpmf(data):
        if device.key != b"DEVC":
            continue
        for stream in _gpmf(device.data):
            if stream.key != b"STRM":
                continue
            items = {item.key: item for item in _gpmf(stream.data)}
            scales = _scales(items.get(b"SCAL"))
            if b"GPS9" in items:
                yield from _gps9(items[b"GPS9"], scales)
            elif b"GPS5" in items:
                yield from _gps5(items, scales, seconds)


class _GpmfItem(NamedTuple):
    key: bytes
    kind: bytes
    size: int
    """Of a structure, in bytes."""
    data: bytes


def _gpmf(data: bytes) -> Iterator[_GpmfItem]:
    place = 0
    while place + 8 <= len(data):
        key, kind, size, count = struct.unpack_from(">4scBH", data, place)
        end = place + 8 + size * count
        if end > len(data):
            return
        yield _GpmfItem(key, kind, size, data[place + 8 : end])
        place += 8 + (size * count + 3) // 4 * 4


def _scales(item: _GpmfItem | None) -> list[int]:
    letter = {b"s": "h", b"S": "H", b"l": "i", b"L": "I"}.get(item.kind) if item else None
    if item is None or letter is None:
        return []
    count = len(item.data) // struct.calcsize(letter)
    return list(struct.unpack_from(f">{count}{letter}", item.data))


def _scaled(values: tuple[int, ...], scales: list[int]) -> list[float] | None:
    each = scales if len(scales) > 1 else scales * len(values)
    if len(each) < len(values) or 0 in each[: len(values)]:
        return None
    return [value / scale for value, scale in zip(values, each, strict=False)]


def _gps5(items: dict[bytes, _GpmfItem], scales: list[int], seconds: float) -> Iterator[Position]:
    item, fix, clock = items[b"GPS5"], items.get(b"GPSF"), items.get(b"GPSU")
    if fix is not None and not any(fix.data[:4]):
        return
    match = re.match(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d(\.\d*)?)", clock.data if clock else b"")
    if match is None or item.size != 20:
        return
    year, month, day, hour, minute = (int(match[i]) for i in range(1, 6))
    begin = time_of(2000 + year, month, day, hour, minute, float(match[6]))
    samples = list(struct.iter_unpack(">5i", item.data))
    for number, sample in enumerate(samples):
        values = _scaled(sample, scales)
        if begin is None or values is None:
            return
        time = begin + timedelta(seconds=number * seconds / len(samples))
        north, east, elevation, speed, _ = values
        if position := position_of(time, north, east, speed=speed, elevation=elevation):
            yield position


def _gps9(item: _GpmfItem, scales: list[int]) -> Iterator[Position]:
    if item.size != 32:
        return
    for sample in struct.iter_unpack(">7i2H", item.data):
        values = _scaled(sample, scales)
        if values is None:
            return
        north, east, elevation, speed, _, days, second, _, fix = values
        if fix < 2 or not 0 <= days < 1 << 16 or not 0 <= second <= 86_400:
            continue
        time = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=days, seconds=second)
        if position := position_of(time, north, east, speed=speed, elevation=elevation):
            yield position
