"""Elements of a Matroska or WebM file that FFmpeg passes over.

Sources: RFC 8794 (EBML) and RFC 9559.
"""

from collections.abc import Iterator

from mhnet_video.media.formats.inventory_base import (
    HEAD_BYTES,
    KNOWN_NAMES,
    MOST_DEPTH,
    POSITIONS,
    Inventory,
    shown_name,
)


def _numbers(text: str) -> frozenset[int]:
    """The element IDs in a text, in hexadecimal, separated by spaces."""
    return frozenset(int(number, 16) for number in text.split())


# element IDs; RFC 9559, 5.1
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_TRACK, _VIDEO, _ADDITION = 0xAE, 0xE0, 0x41E4
_TAG, _SIMPLE_TAG, _CHAPTER = 0x7373, 0x67C8, 0xB6
_TAG_BINARY, _CHAPTER_PROCESS = 0x4485, 0x6944
_ADDITION_NAME, _ADDITION_TYPE = 0x41A4, 0x41E7
_CROPS = {0x54AA: "bottom", 0x54BB: "top", 0x54CC: "left", 0x54DD: "right"}
"""Sides of the picture, by the elements that crop it."""
_TOP = _numbers("1A45DFA3")
"""Elements of a file beside its segments."""
_ANYWHERE = _numbers("EC BF")
"""Elements that may be in any other: free space and checksums."""
_ELEMENTS: dict[int, tuple[str, frozenset[int]]] = {
    _SEGMENT: (
        "Segment",
        # with what clusters hold: one of unknown size is known by what follows it only
        _numbers(
            "114D9B74 1549A966 1654AE6B 1C53BB6B 1043A770 1941A469 1254C367 1F43B675 "
            "E7 A7 AB A3 A0 5854 AF"
        ),
    ),
    0x1549A966: (
        "Info",
        _numbers("73A4 7384 3CB923 3C83AB 3EB923 3E83BB 4444 6924 2AD7B1 4489 4461 7BA9 4D80 5741"),
    ),
    0x1654AE6B: ("Tracks", _numbers("AE")),
    _TRACK: (
        "TrackEntry",
        _numbers(
            "D7 73C5 83 B9 88 55AA 55AB 55AC 55AD 55AE 55AF 9C 6DE7 6DF8 23E383 234E7A 23314F "
            "537F 55EE 41E4 536E 22B59C 22B59D 86 63A2 258688 7446 3A9697 3B4040 26B240 AA 6FAB "
            "56AA 56BB 6624 E0 E1 E2 6D80 C0 C1 C6 C7 C4"
        ),
    ),
    _VIDEO: (
        "Video",
        _numbers(
            "9A 9D 53B8 53C0 53B9 B0 BA 54AA 54BB 54CC 54DD 54B0 54BA 54B2 54B3 2EB524 2FB523 "
            "2383E3 55B0 7670"
        ),
    ),
    0x1254C367: ("Tags", _numbers("7373")),
    _TAG: ("Tag", _numbers("63C0 67C8")),
    _SIMPLE_TAG: ("SimpleTag", _numbers("45A3 447A 447B 4484 44B4 4487 4485 67C8")),
    0x1043A770: ("Chapters", _numbers("45B9")),
    0x45B9: ("EditionEntry", _numbers("45BC 45BD 45DB 45DD 4520 B6")),
    _CHAPTER: (
        "ChapterAtom",
        _numbers("73C4 5654 91 92 98 4598 588F 6E67 6EBC 63C3 89 80 6944 B6"),
    ),
    0x1941A469: ("Attachments", _numbers("61A7")),
}
"""Name of each element that holds others, and the IDs in it that FFmpeg reads, or that say nothing
about another file."""
_KNOWN_ADDITIONS = (0, 1, 4)
"""Types of additions to blocks: transparency, which the stream has, and ITU-T T.35 metadata, which
frames carry."""


def size_at(data: bytes, place: int) -> tuple[int, int]:
    """The size that is written at a place, and how many bytes that takes; RFC 8794, 4."""
    width = 9 - data[place].bit_length()
    return int.from_bytes(data[place : place + width], "big") & ((1 << 7 * width) - 1), width


class MatroskaInventory(Inventory):
    """Elements of a Matroska or WebM file; clusters are passed over."""

    def read(self) -> None:
        """Look at the whole file."""
        self._track = -1
        self._crop: dict[str, int] = {}
        place = 0
        for number, first, end in self._children(0, self.end):
            place = end
            if number == _SEGMENT:
                self._walk(_SEGMENT, first, end, "")
            elif number not in _TOP | _ANYWHERE:
                self._note(number, first, end, "")
        if any(self._crop.values()):
            crop = ", ".join(f"{count} {side}" for side, count in self._crop.items() if count)
            self.add("cropping", crop, "Segment/Tracks/TrackEntry/Video")
        if place < self.end:
            self.add_data(max(place, self.used), self.end, "behind the last element")

    def _children(self, place: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number of each element, and where its contents begin and end."""
        while place < end and self.counts():
            head = self.at(place, 12)
            length = 9 - head[0].bit_length() if head and head[0] else 9
            if length > 4 or length >= len(head) or not head[length]:
                return
            number = int.from_bytes(head[:length], "big")
            size, width = size_at(head, length)
            first = place + length + width
            last = first + size
            if size == (1 << 7 * width) - 1:
                # of unknown size: a segment to the end; what is in a cluster is passed over
                last = end if number == _SEGMENT else first
            if last > end and number not in (_SEGMENT, _CLUSTER):
                return
            yield number, first, min(last, end)
            place = last

    def _walk(self, parent: int, begin: int, end: int, where: str, depth: int = 0) -> None:
        name, known = _ELEMENTS[parent]
        path = f"{where}/{name}".lstrip("/")
        if parent == _TRACK:
            self._track += 1
        is_restored = self._track == self.stream
        for number, first, last in self._children(begin, end):
            if number in _CROPS and parent == _VIDEO:
                if is_restored:
                    self._crop[_CROPS[number]] = int.from_bytes(self.at(first, last - first), "big")
            elif number == _ADDITION:
                self._look_at_addition(first, last, path)
            elif number == _TAG_BINARY:
                self.add("tag", "a tag of bytes", path, last - first)
            elif number == _CHAPTER_PROCESS:
                self.add("chapters", "commands of chapters", path, last - first)
            elif number == _CHAPTER and parent == _CHAPTER:
                self.add("chapters", "chapters in chapters", path, last - first)
            elif number in _ELEMENTS and number in known and depth < MOST_DEPTH:
                self._walk(number, first, last, path, depth + 1)
            elif number not in known | _ANYWHERE:
                self._note(number, first, last, path)

    def _note(self, number: int, first: int, last: int, path: str) -> None:
        """Note an element of no known kind."""
        what = f"unknown element 0x{number:X}"
        if POSITIONS.search(self.at(first, min(HEAD_BYTES, last - first))):
            what = "positions (GPS)"
        self.add("element", what, path, last - first)

    def _look_at_addition(self, begin: int, end: int, path: str) -> None:
        kind, name = 0, ""
        for number, first, last in self._children(begin, end):
            if number == _ADDITION_TYPE:
                kind = int.from_bytes(self.at(first, min(8, last - first)), "big")
            elif number == _ADDITION_NAME:
                name = self.at(first, min(HEAD_BYTES, last - first)).decode("utf-8", "replace")
        if kind in _KNOWN_ADDITIONS or self._track != self.stream:
            return
        shown = shown_name(kind.to_bytes(4, "big")) if kind < 1 << 32 else hex(kind)
        what = KNOWN_NAMES.get(shown) or f"additions to pictures ({name or shown})"
        self.add("side data", what, f"{path}/BlockAdditionMapping", end - begin)
