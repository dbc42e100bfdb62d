"""Chunks of an AVI that FFmpeg passes over.

Source: Microsoft's RIFF and the OpenDML extensions.
"""

import re
import struct

from mhnet_video.media.formats.inventory_base import (
    KNOWN_NAMES,
    MOST_DEPTH,
    Inventory,
    names,
    shown_name,
)

_LISTS = names("hdrl strl odml INFO ncdt")
"""Lists whose chunks are known."""
_CHUNKS = _LISTS | names(
    "avih strh strf strn vprp indx dmlh idx1 movi IDIT JUNK nctg LIST RIFF PAD"
)
"""Chunks that FFmpeg reads, or that say nothing about another file."""
_RESERVED = re.compile(rb"odml|\x04\x00{7}\d\d")
"""How space begins that FFmpeg reserves for the index of a long film."""
_RESERVED_BYTES = 10
"""How much of a chunk is compared with that."""


class AviInventory(Inventory):
    """Chunks of an AVI; pictures and sound are passed over."""

    def read(self) -> None:
        """Look at the whole file."""
        place = self._walk(0, self.end, "", 0)
        if place < self.end:
            self.add_data(max(place, self.used), self.end, "behind the last chunk")

    def _walk(self, place: int, end: int, where: str, depth: int) -> int:
        """Look at the chunks from a place on; where the last one ends."""
        while place + 8 <= end and self.counts():
            kind, size = struct.unpack("<4sI", self.at(place, 8))
            first, last = place + 8, place + 8 + size
            if not any(kind) or (last > end and kind not in _CHUNKS):
                break
            if where and last > end:
                return end
            place = last + size % 2
            last = min(last, end)
            if kind in (b"LIST", b"RIFF"):
                kind = self.at(first, 4)
                is_known = kind in _LISTS or kind in (b"AVI ", b"AVIX")
                if is_known and kind != b"INFO" and depth < MOST_DEPTH:
                    self._walk(
                        first + 4, last, f"{where}/{shown_name(kind)}".lstrip("/"), depth + 1
                    )
                if is_known or kind == b"movi":
                    continue
            self._look(kind, first, last, where)
        return place

    def _look(self, kind: bytes, first: int, last: int, where: str) -> None:
        if kind == b"JUNK":
            if not _RESERVED.match(self.at(first, _RESERVED_BYTES)):
                self.add_data(first, last, f"{where}/JUNK")
        elif kind == b"strd":
            # FFmpeg takes what is EXIF in it for tags
            if self.at(first, 4) != b"AVIF" and last > first:
                self.add("chunk", "a camera's or encoder's data (strd)", where, last - first)
        elif kind not in _CHUNKS:
            shown = shown_name(kind)
            what = KNOWN_NAMES.get(shown, f"unknown chunk {shown}")
            self.add("chunk", what, where, last - first)
