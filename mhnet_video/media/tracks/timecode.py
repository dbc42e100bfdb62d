"""Time codes of a recording, which number its pictures by the time of day."""

import re
from fractions import Fraction

_TIMECODE = re.compile(r"(\d+):(\d\d):(\d\d)([:;.])(\d+)")
_DROPPING = ";."
"""What stands before the pictures where numbers are left out, so that it keeps up with a clock."""


def later(timecode: str, seconds: Fraction, fps: Fraction) -> str:
    """The time code of a later picture; the same one where it is none that can be counted.

    Args:
        timecode: `HH:MM:SS:FF`, or `HH:MM:SS;FF` where numbers are left out.
        seconds: How much later.
        fps: Pictures a second.

    Source: SMPTE ST 12-1, 5.2.2.
    """
    found = _TIMECODE.fullmatch(timecode)
    rate = round(fps)
    if found is None or not rate:
        return timecode
    hours, minutes, full_seconds, pictures = (int(found[index]) for index in (1, 2, 3, 5))
    # two of 30 numbers are left out each minute, but for every tenth
    dropped = rate // 15 if found[4] in _DROPPING and rate % 30 == 0 else 0
    minutes += 60 * hours
    number = (60 * minutes + full_seconds) * rate + pictures
    number += round(seconds * fps) - dropped * (minutes - minutes // 10)
    a_minute, ten_minutes = 60 * rate - dropped, 600 * rate - 9 * dropped
    number %= 144 * ten_minutes
    tens, rest = divmod(number, ten_minutes)
    minute = max(0, rest - dropped) // a_minute
    number += dropped * (9 * tens + minute)
    full_seconds, pictures = divmod(number, rate)
    minutes, full_seconds = divmod(full_seconds, 60)
    return (
        f"{minutes // 60:02}:{minutes % 60:02}:{full_seconds:02}{found[4]}"
        f"{pictures:0{len(found[5])}}"
    )
