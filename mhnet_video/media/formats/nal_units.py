"""What a stream of H.264 or HEVC holds beside its picture, and FFmpeg's decoders pass over.

Source: ITU-T H.264 and H.265, their annex B, D and clauses 7.3 and 7.4.
"""

from collections.abc import Iterator

_H264_SEI = 6
"""NAL unit type of supplemental enhancement information (SEI) in H.264."""
_H264_LAYERS = (15, 20, 21)
"""NAL unit types of parameter sets and slices of a second view or layer in H.264."""
_HEVC_SEI = (39, 40)
"""NAL unit types of SEI in HEVC."""
_REGISTERED = 4
"""SEI payload type of what is registered by ITU-T T.35."""
_PASSED_ON = ("b50031", "b5003c", "b40050", "260004")
"""Country and provider codes of what FFmpeg passes on: captions, HDR10+, LCEVC, HDR Vivid."""
_EXTENDED_COUNTRY = 0xFF
"""Country code of ITU-T T.35 that a second byte follows."""
_DOLBY = {("hevc", 62): "Dolby Vision", ("hevc", 63): "Dolby Vision"}
_DOLBY |= {("h264", 28): "Dolby Vision", ("h264", 30): "Dolby Vision"}
"""NAL unit types that the standards leave open and Dolby Vision uses, by codec."""
_FIRST_UNSPECIFIED = {"h264": 24, "hevc": 48}
"""The first NAL unit type that the standard leaves open, by codec."""
_MOST_UNITS = 4096
"""NAL units of a packet that are looked at."""
_MARK = bytes((0, 0, 0, 1))
"""Start code before a NAL unit."""


class Units:
    """Finds it, packet by packet.

    Args:
        codec: FFmpeg's name of the codec; of others than `h264` and `hevc` nothing is found.
        extradata: What describes the stream; it says how units are separated.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self.found: dict[str, int] = {}
        """Bytes of what was found, by what it is."""
        self._codec = codec
        self._is_hevc = codec == "hevc"
        config = extradata or b""
        place = 21 if self._is_hevc else 4
        # in a configuration record the size before each unit is so long; else there are marks
        has_sizes = len(config) > place and config[0] == 1
        self._width = (config[place] & 3) + 1 if has_sizes else 0

    def look(self, packet: bytes | memoryview) -> None:
        """Look at the bytes of one packet."""
        if self._codec not in _FIRST_UNSPECIFIED:
            return
        data = memoryview(packet)
        # some files have marks where they say that there are sizes; decoders take both
        has_sizes = self._width and data[:4] != _MARK
        units = _sized(data, self._width) if has_sizes else _marked(bytes(data))
        for number, unit in enumerate(units):
            if number > _MOST_UNITS:
                return
            what = self._what(unit)
            if what:
                self.found[what] = self.found.get(what, 0) + len(unit)

    def _what(self, unit: memoryview) -> str:
        """What a unit is, where FFmpeg does not hand it on; else nothing."""
        if len(unit) < 3:
            return ""
        kind = unit[0] >> 1 & 63 if self._is_hevc else unit[0] & 31
        if (name := _DOLBY.get((self._codec, kind))) is not None:
            return name
        if kind >= _FIRST_UNSPECIFIED[self._codec]:
            return f"unknown units of type {kind}"
        layer = (unit[0] & 1) << 5 | unit[1] >> 3 if self._is_hevc else 0
        if layer or (not self._is_hevc and kind in _H264_LAYERS):
            return "a second view or layer"
        if self._is_hevc and kind in _HEVC_SEI:
            return _registered(bytes(unit[2:]))
        return _registered(bytes(unit[1:])) if not self._is_hevc and kind == _H264_SEI else ""


def _sized(data: memoryview, width: int) -> Iterator[memoryview]:
    place = 0
    while place + width < len(data):
        size = int.from_bytes(data[place : place + width], "big")
        place += width
        yield data[place : place + size]
        place += size


def _marked(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    place = data.find(b"\0\0\1")
    while place >= 0:
        following = data.find(b"\0\0\1", place + 3)
        yield view[place + 3 : following if following >= 0 else len(data)]
        place = following


def _registered(messages: bytes) -> str:
    """The user data with a provider's number that is in supplemental information, if any."""
    data = messages.replace(b"\0\0\3", b"\0\0")
    place = 0
    while place + 2 < len(data):
        numbers = []
        for _ in range(2):  # type and size, each in bytes of 255 and one of less
            number = 0
            while place < len(data) and data[place] == 0xFF:
                number, place = number + 0xFF, place + 1
            number += data[place] if place < len(data) else 0
            place += 1
            numbers.append(number)
        kind, size = numbers
        provider = data[place : place + 3]
        is_extended = provider[:1] == bytes((_EXTENDED_COUNTRY,))
        provider = data[place : place + 4] if is_extended else provider
        if kind == _REGISTERED and size > len(provider) and provider.hex() not in _PASSED_ON:
            return f"user data of provider 0x{provider.hex()}"
        place += size
    return ""
