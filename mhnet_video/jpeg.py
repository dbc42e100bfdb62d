"""What picture files say about themselves, which encoders do not write."""

import struct

_START, _SCAN = 0xD8, 0xDA
# frame headers, which have the size; of the numbers among them three stand for something else
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FIRST_APP, _LAST_APP, _COMMENT = 0xE0, 0xEF, 0xFE
# JFIF and Adobe segments describe the encoding: each file has its own
_OF_THE_ENCODING = (0xE0, 0xEE)


def with_segments_of(source: bytes, encoded: bytes) -> bytes:
    """The encoded JPEG with the EXIF, XMP, colour profile and comment of another.

    Args:
        source: The JPEG file that it was made from.
        encoded: The new one; it is returned as it is if either is no JPEG.
    """
    wanted = [
        (marker, segment)
        for marker, segment in _segments(source)
        if marker not in _OF_THE_ENCODING
        and (marker == _COMMENT or _FIRST_APP <= marker <= _LAST_APP)
    ]
    segments = _segments(encoded)
    if not wanted or not segments:
        return encoded
    # a new profile describes the new samples
    has_profile = any(b"ICC_PROFILE" in segment[:32] for _, segment in segments)
    if has_profile:
        wanted = [item for item in wanted if b"ICC_PROFILE" not in item[1][:32]]
    first = 2
    for marker, segment in segments:
        if marker != _FIRST_APP:
            break
        first += len(segment)
    return encoded[:first] + b"".join(segment for _, segment in wanted) + encoded[first:]


def descriptions_in(data: bytes) -> list[str]:
    """What a JPEG, PNG or WebP file has beside its samples, in a person's words."""
    heads = {segment[4:15] for _, segment in _segments(data)} | set(_chunks(data))
    found = []
    if any(head.startswith((b"Exif\0", b"eXIf", b"EXIF")) for head in heads):
        found.append("EXIF (camera, time and place)")
    if any(head.startswith((b"ICC_PROFILE", b"iCCP", b"ICCP")) for head in heads):
        found.append("colour profile")
    return found


def _chunks(data: bytes) -> list[bytes]:
    """The kinds of the chunks of a PNG or a WebP; empty for others."""
    kinds = []
    is_png, is_webp = data[:4] == b"\x89PNG", data[:4] + data[8:12] == b"RIFFWEBP"
    position = 8 if is_png else 12 if is_webp else len(data)
    while position + 8 <= len(data):
        head = data[position : position + 8]
        size, kind = struct.unpack(">I4s", head) if is_png else struct.unpack("<4sI", head)[::-1]
        kinds.append(kind)
        position += size + 12 if is_png else 8 + size + size % 2
    return kinds


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG says it has, in pixels, without decoding it; None for others."""
    for marker, segment in _segments(data):
        if marker in _FRAMES and len(segment) >= 9:
            return int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big")
    return None


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and bytes of the segments before the picture itself; empty for no JPEG."""
    if data[:2] != bytes((0xFF, _START)):
        return []
    segments = []
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _SCAN:
        size = 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segments.append((data[position + 1], data[position : position + size]))
        position += size
    return segments
