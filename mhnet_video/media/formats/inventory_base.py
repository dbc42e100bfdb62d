"""What the inventories of all formats share: noting parts by name and size, and a bound on them."""

import os
import re
from typing import IO, NamedTuple

_MOST_PARTS = 400_000
"""Parts of a file that are looked at; a film of a day in fragments has fewer."""
MOST_DEPTH = 8
"""Levels of nesting that are entered."""
MOST_PADDING_BYTES = 64 << 20
"""Length up to which padding is read."""
_BLOCK_BYTES = 1 << 20
"""How much of it is read at a time."""
HEAD_BYTES = 4096
"""How much of an unknown part is searched for positions."""


class Found(NamedTuple):
    """A part of a file that FFmpeg passes over."""

    kind: str
    """As in `fidelity.Loss`."""
    what: str
    """What it is, for a person."""
    where: str
    """The names of the parts that it is in, with slashes; empty for the file itself."""
    bytes: int | None
    """Its size; None where it has none."""


class Inventory:
    """Finds the parts of one file that FFmpeg passes over; each format has its own.

    Args: as for `inventory.unseen_in`.
    """

    def __init__(self, file: IO[bytes], stream: int, tags: set[str], used: int) -> None:
        self.file = file
        self.stream = stream
        self.tags = tags
        self.used = used
        self.end = os.fstat(file.fileno()).st_size
        self._found: dict[tuple[str, str, str], int | None] = {}
        self._parts = 0

    def read(self) -> None:
        """Look at the whole file; what was found before an error stays."""
        raise NotImplementedError

    def all(self) -> list[Found]:
        """What was found; parts of one kind in one place are one entry."""
        return [Found(*key, size) for key, size in self._found.items()]

    def add(self, kind: str, what: str, where: str, size: int | None = None) -> None:
        """Note a part; its size is added to that of parts like it."""
        key = kind, what, where
        before = self._found.get(key)
        self._found[key] = size if before is None or size is None else before + size

    def counts(self) -> bool:
        """Count one more part; False, and a note, where there are too many."""
        self._parts += 1
        if self._parts == _MOST_PARTS:
            self.add("box", "what comes after the first parts of the file", "", None)
        return self._parts < _MOST_PARTS

    def at(self, start: int, size: int) -> bytes:
        """Bytes of the file."""
        self.file.seek(start)
        return self.file.read(max(0, size))

    def add_data(self, start: int, end: int, where: str, name: str = "unknown data") -> None:
        """Note bytes of no known form, unless they are padding."""
        end = min(end, self.end)
        first = self.at(start, min(HEAD_BYTES, end - start))
        if not first or (_is_padding(first) and self._is_padding_to(start, end, first[0])):
            return
        if first.startswith(_STAMPS):
            return
        what = "positions (GPS)" if POSITIONS.search(first) else name
        if what == name == "unknown data":
            what = f"unknown data ({shown_name(first.lstrip(bytes(1))[:4])})"
        self.add("box", what, where, end - start)

    def _is_padding_to(self, start: int, end: int, byte: int) -> bool:
        for place in range(start, min(end, start + MOST_PADDING_BYTES), _BLOCK_BYTES):
            block = self.at(place, min(_BLOCK_BYTES, end - place))
            if block.count(byte) != len(block):
                return False
        return True


def _is_padding(data: bytes) -> bool:
    return data.count(data[0]) == len(data)


def shown_name(name: bytes) -> str:
    """A name of four bytes as text where it is printable, else in hexadecimal."""
    text = name.decode("latin-1")
    is_text = all(" " <= letter <= "~" or letter == "\xa9" for letter in text)
    return text.strip() if is_text and text.strip() else f"0x{name.hex()}"


_STAMPS = (
    b"IsoMedia File Produced",
    b"Multiplexed by L-SMASH",
    b"VirtualDub build",
    b"[= MPlayer junk data! =]",
)
"""How programs fill space that they do not need."""
POSITIONS = re.compile(rb"GPS|\$G[A-Z](RMC|GGA)")
"""A mark of GPS data, or a sentence of NMEA 0183."""
KNOWN_NAMES = {
    "gps": "positions (GPS)",
    "gps0": "positions (GPS)",
    "gpsa": "positions (GPS)",
    "gsen": "acceleration (gsen)",
    "gsea": "acceleration (gsea)",
    "3gf": "acceleration (3gf)",
    "GPMF": "telemetry (GoPro)",
    "SMTA": "telemetry (Samsung)",
    "CAME": "camera's number (GoPro)",
    "dvcC": "Dolby Vision",
    "dvvC": "Dolby Vision",
    "dvwC": "Dolby Vision",
    "hvcE": "Dolby Vision",
    "avcE": "Dolby Vision",
    "emsg": "events (emsg)",
    "prft": "the producer's clock (prft)",
    "_PMX": "XMP",
    "XMP_": "XMP",
}
"""What unstandardized parts are, by their four-character codes."""


def names(text: str) -> frozenset[bytes]:
    """The four-character codes in a text, separated by spaces."""
    return frozenset(name.ljust(4).encode("latin-1") for name in text.split())
