"""Whether the clock of a transport stream goes on evenly, by a few places of the file.

FFmpeg takes the last time less the first one for the length. Where recordings were put behind each
other, or a camera's clock was set, that is false by hours.
"""

import os
from itertools import pairwise

from mhnet_video.media.formats.integrity import MIN_PACKETS, TRANSPORT_STRIDES, TRANSPORT_SYNC

_PLACES = 17
"""Places of a file that are looked at, evenly spread."""
_PLACE_BYTES = 1 << 18
"""How much is read at each: clocks stand in it ten times a second."""
_CIRCLE = 1 << 33
"""Ticks after which the clock begins again."""
_HOUR = 3600 * 90_000
"""Ticks of an hour: a longer step from one place to the next is none."""


def goes_on_evenly(path: str) -> bool:
    """Whether the clock of a transport stream nowhere goes back, or far ahead, as far as is seen.

    A clock that begins again after 26.5 hours goes on.

    Args:
        path: The file; what is none of a transport stream goes on.
    """
    clocks: list[int] = []
    pid: int | None = None
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            for place in range(_PLACES):
                file.seek(size * place // _PLACES)
                found = _first_clock(file.read(_PLACE_BYTES), pid)
                if found is not None:
                    pid, clock = found
                    clocks.append(clock)
    except OSError:
        return True
    return all((b - a) % _CIRCLE < _HOUR for a, b in pairwise(clocks))


def _first_clock(data: bytes, pid: int | None) -> tuple[int, int] | None:
    """The first program clock reference of some bytes, and the number of its packets.

    Args:
        data: Bytes from anywhere in the file.
        pid: The number that is looked for; None for any.

    Source: Rec. ITU-T H.222.0, 2.4.3.2 to 2.4.3.5.
    """
    for size in TRANSPORT_STRIDES:
        for begin in range(min(size, len(data))):
            if set(data[begin : begin + MIN_PACKETS * size : size]) == {TRANSPORT_SYNC}:
                break
        else:
            continue
        for start in range(begin, len(data) - size + 1, size):
            packet = data[start : start + size]
            number = int.from_bytes(packet[1:3]) & 0x1FFF
            has_clock = packet[3] & 0x20 and packet[4] >= 7 and packet[5] & 0x10
            if packet[0] == TRANSPORT_SYNC and has_clock and pid in (None, number):
                return number, int.from_bytes(packet[6:11]) >> 7
    return None
