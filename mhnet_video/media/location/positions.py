"""Where a camera was: read from Novatek's blocks and from NMEA sentences.

Both are taken as they come: what is cut off, out of range or without a fix is passed over.
"""

import math
import re
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_KNOT = 1852 / 3600
"""In metres a second."""
_SENTENCE = re.compile(rb"G[A-Z](RMC|GGA),([^*\r\n\[\];\0]{0,120})")
"""Of NMEA 0183. Programs that alter positions leave checksums as they were, so none is asked."""


class Position(NamedTuple):
    """Where a camera was at a time."""

    time: datetime
    """In UTC."""
    latitude: float
    """Degrees, positive in the north."""
    longitude: float
    """Degrees, positive in the east."""
    speed: float | None = None
    """Metres a second."""
    course: float | None = None
    """Degrees clockwise from north."""
    elevation: float | None = None
    """Metres above the sea."""


def novatek_position(block: bytes) -> Position | None:
    """The position of a block of Novatek's; None where the camera had no fix.

    Six numbers of 32 bits (hour, minute, second, year, month, day) stand before a letter for the
    fix, those of the hemispheres, and floats: latitude and longitude as degrees and minutes in one
    number, knots, and degrees. Where that begins depends on the camera.

    Args:
        block: At least its first 96 bytes, from its size on or from within the box around it.
    """
    begin = block.find(b"freeGPS ")
    for at in range(begin + 32, min(begin + 128, len(block) - 20), 4):
        if block[at : at + 1] != b"A" or block[at + 1] not in b"NS" or block[at + 2] not in b"EW":
            continue
        for order in "<>":
            hour, minute, second, year, month, day = struct.unpack_from(
                f"{order}6I", block, at - 24
            )
            time = time_of(year if year >= 100 else 2000 + year, month, day, hour, minute, second)
            if time is None:
                continue
            north, east, knots, course = struct.unpack_from(f"{order}4f", block, at + 4)
            return position_of(
                time,
                _degrees(north, negative=block[at + 1] == ord("S")),
                _degrees(east, negative=block[at + 2] == ord("W")),
                speed=knots * _KNOT,
                course=course,
            )
    return None


def nmea_positions(data: bytes) -> Iterator[Position]:
    """The positions of sentences RMC, with the elevations of GGA for the same time.

    Sentences that are cut off, or say that they are void, are passed over. Source: NMEA 0183.

    Args:
        data: Sentences, and anything between them.
    """
    elevations: dict[bytes, float] = {}
    fixes: list[tuple[bytes, Position]] = []
    for match in _SENTENCE.finditer(data):
        fields = match[2].split(b",")
        if match[1] == b"GGA" and len(fields) > 8 and fields[5] not in (b"", b"0"):
            elevation = _number(fields[8])
            if elevation is not None:
                elevations[fields[0]] = elevation
        elif match[1] == b"RMC" and (position := _from_rmc(fields)) is not None:
            fixes.append((fields[0], position))
    for time, position in fixes:
        yield position._replace(elevation=elevations.get(time))


def _from_rmc(fields: list[bytes]) -> Position | None:
    if len(fields) < 9 or fields[1] != b"A":
        return None
    clock, date = fields[0], fields[8]
    if not (re.fullmatch(rb"\d{6}(\.\d*)?", clock) and re.fullmatch(rb"\d{6}", date)):
        return None
    time = time_of(
        *(2000 + int(date[4:]), int(date[2:4]), int(date[:2])),
        *(int(clock[:2]), int(clock[2:4]), float(clock[4:])),
    )
    north, east = _number(fields[2]), _number(fields[4])
    if time is None or north is None or east is None:
        return None
    knots = _number(fields[6])
    return position_of(
        time,
        _degrees(north, negative=fields[3] == b"S"),
        _degrees(east, negative=fields[5] == b"W"),
        speed=None if knots is None else knots * _KNOT,
        course=_number(fields[7]),
    )


def position_of(
    time: datetime,
    north: float,
    east: float,
    *,
    speed: float | None = None,
    course: float | None = None,
    elevation: float | None = None,
) -> Position | None:
    """A position whose values are numbers and on the earth; None for what is not."""
    is_on_earth = abs(north) <= 90 and abs(east) <= 180 and (north, east) != (0, 0)
    if not is_on_earth:
        return None
    if speed is not None and not 0 <= speed < 1000:
        speed = None
    if course is not None and not 0 <= course <= 360:
        course = None
    if elevation is not None and not -1000 < elevation < 100_000:
        elevation = None
    return Position(time, north, east, speed, course, elevation)


def _degrees(value: float, *, negative: bool) -> float:
    """Degrees of a number such as 5007.4: 50 degrees and 7.4 minutes; NaN where it is none."""
    if not 0 <= value < 20_000 or value % 100 >= 60:
        return math.nan
    degrees = value // 100 + value % 100 / 60
    return -degrees if negative else degrees


def _number(text: bytes) -> float | None:
    return float(text) if re.fullmatch(rb"-?\d{1,12}(\.\d{0,12})?", text) else None


def time_of(
    year: int, month: int, day: int, hour: int, minute: int, second: float
) -> datetime | None:
    """A time in UTC; None for numbers that are none."""
    try:
        start = datetime(year, month, day, hour, minute, tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return start + timedelta(seconds=second) if 0 <= second < 61 and year >= 2000 else None
