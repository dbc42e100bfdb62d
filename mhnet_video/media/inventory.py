"""What a file holds and FFmpeg passes over: boxes (MP4), elements (Matroska), chunks (AVI).

What is standard is either carried by way of FFmpeg or says nothing about another file; the tables
have it. Everything else is found, by its name and size, whoever wrote it. Pictures and sound are
never read.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, NamedTuple

from mhnet_video.media.mp4_boxes import Mp4Box, boxes_of

# what is looked at, at most; a film of a day in fragments has fewer
_MOST_PARTS = 400_000
_MOST_DEPTH = 8
_MOST_PADDING = 64 << 20
_BLOCK = 1 << 20
_HEAD = 4096
_MOST_KEYS = 1 << 20


class Found(NamedTuple):
    """Something of a file that FFmpeg does not show."""

    kind: str
    """As in `notes.Loss`."""
    what: str
    where: str
    bytes: int | None


def unseen_in(
    path: str | os.PathLike[str], *, stream: int, tags: set[str], used: int = 0
) -> list[Found]:
    """What FFmpeg passes over in an MP4, MOV, Matroska, WebM or AVI; nothing for other formats.

    Args:
        path: The file.
        stream: The number of its stream that is restored; what describes others goes with them.
        tags: The names of tags that FFmpeg shows, in lower case.
        used: Where the last packet ends that FFmpeg knows of, whatever sizes the file names.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            reader: _Inventory = _Avi(file, stream, tags, used)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            reader = _Matroska(file, stream, tags, used)
        elif head[4:8] in _FIRST_BOXES:
            reader = _Mp4(file, stream, tags, used)
        else:
            return []
        # where a file is damaged, what was found until there is told
        with suppress(ValueError, ArithmeticError, IndexError, struct.error):
            reader.read()
        return reader.all()


class _Inventory:
    """What is found in one file."""

    def __init__(self, file: IO[bytes], stream: int, tags: set[str], used: int) -> None:
        self.file = file
        self.stream = stream
        self.tags = tags
        self.used = used
        self.end = os.fstat(file.fileno()).st_size
        self._found: dict[tuple[str, str, str], int | None] = {}
        self._parts = 0

    def read(self) -> None:
        """Look at the whole file."""
        raise NotImplementedError

    def all(self) -> list[Found]:
        """What was found; several of one kind and place as one."""
        return [Found(*key, size) for key, size in self._found.items()]

    def add(self, kind: str, what: str, where: str, size: int | None = None) -> None:
        """Note something; its size is added to that of others like it."""
        key = kind, what, where
        before = self._found.get(key)
        self._found[key] = size if before is None or size is None else before + size

    def counts(self) -> bool:
        """Whether there is time for one more part; what is left out is said."""
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
        first = self.at(start, min(_HEAD, end - start))
        if not first or (_is_padding(first) and self._is_padding_to(start, end, first[0])):
            return
        if first.startswith(_STAMPS):
            return
        what = "positions (GPS)" if _POSITIONS.search(first) else name
        if what == name == "unknown data":
            what = f"unknown data ({_shown(first.lstrip(bytes(1))[:4])})"
        self.add("box", what, where, end - start)

    def _is_padding_to(self, start: int, end: int, byte: int) -> bool:
        for place in range(start, min(end, start + _MOST_PADDING), _BLOCK):
            block = self.at(place, min(_BLOCK, end - place))
            if block.count(byte) != len(block):
                return False
        return True


def _is_padding(data: bytes) -> bool:
    return data.count(data[0]) == len(data)


def _shown(name: bytes) -> str:
    """A name of four bytes: as it is read where it can be, else in hexadecimal."""
    text = name.decode("latin-1")
    is_text = all(" " <= letter <= "~" or letter == "\xa9" for letter in text)
    return text.strip() if is_text and text.strip() else f"0x{name.hex()}"


# what programs leave in room that they do not need
_STAMPS = (
    b"IsoMedia File Produced",
    b"Multiplexed by L-SMASH",
    b"VirtualDub build",
    b"[= MPlayer junk data! =]",
)
_POSITIONS = re.compile(rb"GPS|\$G[A-Z](RMC|GGA)")
_NAMES = {
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


def _named(kind: bytes) -> str:
    shown = _shown(kind)
    return _NAMES.get(shown, f"unknown box {shown}")


# MP4 and MOV: ISO/IEC 14496-12, -14 and -15, and Apple's QuickTime File Format


def _kinds(text: str) -> frozenset[bytes]:
    return frozenset(name.ljust(4).encode("latin-1") for name in text.split())


_FIRST_BOXES = _kinds("ftyp mdat wide skip free moov pnot styp")
_CONTAINERS = _kinds("moov trak mdia minf stbl mvex moof traf udta")
_ROOM = _kinds("free skip")
_STANDARD = (
    _CONTAINERS
    | _ROOM
    | _kinds(
        "ftyp styp mdat wide pdin sidx ssix mfra cmov mvhd iods ctab tkhd tref trgr tapt load "
        "edts mdhd hdlr elng vmhd smhd hmhd nmhd sthd gmhd dinf stsd stts ctts cslg stsc stsz "
        "stz2 stco co64 stss stps stsh padb stdp sdtp sbgp sgpd csgp subs saiz saio senc pssh "
        "mehd trep trex leva mfhd tfhd tfdt trun meta keys ilst uuid"
    )
)
_OF_REPLACED = _kinds("elst dref")
"""What an index has further in."""
_OF_SAMPLES = _kinds(
    "avcC hvcC lhvC vvcC evcC av1C vpcC av2C esds glbl jp2h jp2x mvcC svcC colr fiel gama pasp "
    "btrt clap mdcv clli SmDm CoLL amve ccst auxi st3d sv3d vexu hfov proj d263 bitr SMI strf "
    "dvc1 ACLR ARES APRG AORD alis sinf free wave dfLa jpgC mjqt mjht"
)
"""Of a sample's description; what there is of HDR, projection and stereo, frames carry."""
_READ_TAGS = _kinds(
    "@PRM @PRQ aART akID apID catg cpil cprt desc disk egid FIRM gnre hdvd HMMT keyw ldes loci "
    "manu modl pcst pgap purd rtng soaa soal soar soco sonm sosn stik trkn tven tves tvnn tvsh "
    "tvsn tmpo ---- covr chpl \xa9ART \xa9PRD \xa9alb \xa9aut \xa9chp \xa9cmt \xa9com \xa9cpy "
    "\xa9day \xa9dir \xa9dis \xa9ed1 \xa9enc \xa9fmt \xa9gen \xa9grp \xa9hst \xa9inf \xa9lyr "
    "\xa9mak \xa9mod \xa9nam \xa9ope \xa9prd \xa9prf \xa9req \xa9src \xa9st3 \xa9swr \xa9too "
    "\xa9trk \xa9url \xa9wrn \xa9wrt \xa9xyz"
)
"""Tags that FFmpeg 8.1 reads from user data and iTunes' list, and what it makes chapters of."""
_OF_GOOGLE = _kinds("gsst gstd gssd gspu gspm gshh")
"""How Google has sent it."""
# of user data besides: a track's name, roles, hints for servers
_OF_USER_DATA = (
    _READ_TAGS | _OF_GOOGLE | _kinds("meta name tagc kind tsel strk hnti hinf hinv free skip")
)
_OF_META = _kinds("hdlr keys ilst ctry lang free skip dinf iinf iloc idat pitm iref iprp grpl")
_XMP = "be7acfcb97a942e89c71999491e3afac"
# spherical video, which frames carry, and times of fragments (Smooth Streaming), and what a server
# is told of its streams
_SILENT_UUIDS = (
    "a5d40b30e81411ddba2f0800200c9a66",
    "ffcc8263f8554a938814587a02521fdd",
    "6d1d9b0542d544e680e2141daff757b2",
    "d4807ef2ca3946958e5426cb9e46a79f",
)
_SONYS = "21d24fcebb88695cfac9c740"
_ARTWORK = "com.apple.quicktime.artwork"
_VISUAL_BYTES = 78


class _Mp4(_Inventory):
    def read(self) -> None:
        self._track = -1
        self._handler = b""
        self._seen: set[bytes] = set()
        self._walk(0, self.end, "", _STANDARD, 0)

    def _walk(self, start: int, end: int, where: str, known: frozenset[bytes], depth: int) -> None:
        place = start
        for box in boxes_of(self.file, start, end):
            fits = box.start + box.size <= end
            if not (fits and any(box.kind)) and box.kind not in known:
                break
            if not self.counts():
                return
            place = box.start + box.size
            if where or not self._is_another(box, min(place, end)):
                self._look(box, min(place, end), where, known, depth)
        if place < end and (where or place > start):
            place = max(place, self.used) if not where else place
            self.add_data(place, end, where or "behind the last box")

    def _is_another(self, box: Mp4Box, end: int) -> bool:
        """Note a second film behind the first one, and media that no index knows."""
        begin, kind = box.start + box.header, box.kind
        is_second = kind == b"moov" and b"moov" in self._seen
        is_unused = kind == b"mdat" and b"moof" not in self._seen and begin >= self.used > 0
        self._seen.add(kind)
        if is_second:
            self.add("box", "another film's index (moov)", "", end - begin)
        elif is_unused:
            self.add_data(begin, end, "mdat")
        return is_second or is_unused

    def _look(self, box: Mp4Box, end: int, where: str, known: frozenset[bytes], depth: int) -> None:
        begin, kind = box.start + box.header, box.kind
        path = f"{where}/{_shown(kind)}".lstrip("/")
        if kind == b"trak":
            self._track += 1
            self._handler = b""
        if kind in _ROOM:
            self._look_into_room(begin, end, path)
        elif kind == b"uuid":
            self._look_at_uuid(begin, end, where)
        elif kind not in known:
            self.add("box", _named(kind), where, end - begin)
        elif depth > _MOST_DEPTH:
            return
        elif kind == b"udta":
            self._walk(begin, end, path, _OF_USER_DATA, depth + 1)
        elif kind in _CONTAINERS:
            self._walk(begin, end, path, _STANDARD, depth + 1)
        elif kind == b"meta":
            self._look_at_meta(begin, end, path, depth)
        elif kind == b"hdlr" and where.endswith("mdia"):  # QuickTime has others further in
            self._handler = self.at(begin + 8, 4)
        elif kind == b"stsd" and self._handler == b"vide" and self._track == self.stream:
            for entry in boxes_of(self.file, begin + 8, end):
                inside = min(entry.start + entry.header + _VISUAL_BYTES, end)
                last = min(entry.start + entry.size, end)
                self._look_at_samples(inside, last, f"{path}/{_shown(entry.kind)}")

    def _look_into_room(self, begin: int, end: int, path: str) -> None:
        """Look at what is called empty: cameras keep boxes of their own there, or data."""
        inside = list(boxes_of(self.file, begin, min(end, begin + _MOST_PADDING)))
        is_whole = inside and inside[-1].start + inside[-1].size == end
        if is_whole and all(re.fullmatch(rb"[\xa9\x20-\x7e]{4}", box.kind) for box in inside):
            # an index that was replaced is known from its beginning to its end, and so is an edit
            # list that was switched off
            for box in inside:
                if box.kind not in _STANDARD | _OF_REPLACED:
                    self.add("box", _named(box.kind), path, box.size - box.header)
        else:
            self.add_data(begin, end, path)

    def _look_at_uuid(self, begin: int, end: int, where: str) -> None:
        number = self.at(begin, 16)
        shown = number.hex()
        if shown in _SILENT_UUIDS:
            return
        # Sony's begin with a name
        name = _shown(number[:4]) if shown.endswith(_SONYS) else shown
        self.add("box", "XMP" if shown == _XMP else f"unknown uuid {name}", where, end - begin)

    def _look_at_meta(self, begin: int, end: int, path: str, depth: int) -> None:
        # QuickTime's has no version before its contents
        begin += 0 if self.at(begin + 4, 4) == b"hdlr" else 4
        handler, known = self._handler, _OF_META
        inside = list(boxes_of(self.file, begin, end))
        owner = next((self.at(b.start + b.header + 8, 4) for b in inside if b.kind == b"hdlr"), b"")
        for box in inside:
            first, last = box.start + box.header, min(box.start + box.size, end)
            if box.kind == b"ilst" and owner == b"mdir":
                self._walk(first, last, f"{path}/ilst", _READ_TAGS | _OF_GOOGLE, depth + 1)
            elif box.kind == b"keys":
                self._look_at_keys(first, last, path)
            elif box.kind in _ROOM or box.kind not in known:
                self._look(box, last, path, known, depth)
        self._handler = handler

    def _look_at_keys(self, begin: int, end: int, path: str) -> None:
        """Say which of QuickTime's keys FFmpeg has not made a tag of."""
        data = self.at(begin, min(end - begin, _MOST_KEYS))
        place = 8
        while place + 8 <= len(data) and self.counts():
            size = int.from_bytes(data[place : place + 4], "big")
            key = data[place + 8 : place + size].decode("utf-8", "replace")
            if size < 8:
                break
            if key.lower() not in self.tags and key != _ARTWORK:
                self.add("tag", key, path)
            place += size

    def _look_at_samples(self, begin: int, end: int, path: str) -> None:
        """Look at how the restored stream's samples are described."""
        for box in boxes_of(self.file, begin, end):
            first = box.start + box.header
            if box.kind == b"clap":
                self._look_at_aperture(self.at(first, 32), path)
            elif box.kind == b"uuid":
                self._look_at_uuid(first, box.start + box.size, path)
            elif box.kind not in _OF_SAMPLES and any(box.kind):
                kind = "side data" if _named(box.kind) == "Dolby Vision" else "box"
                self.add(kind, _named(box.kind), path, box.size - box.header)

    def _look_at_aperture(self, data: bytes, path: str) -> None:
        numbers = struct.unpack(">4I4i", data)
        width, height = numbers[0] / numbers[1], numbers[2] / numbers[3]
        self.add("cropping", f"{width:g}x{height:g}", path)


# Matroska and WebM: RFC 8794 (EBML) and RFC 9559


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(number, 16) for number in text.split())


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_TRACK, _PICTURE, _ADDITION = 0xAE, 0xE0, 0x41E4
_TAG, _SIMPLE_TAG, _CHAPTER = 0x7373, 0x67C8, 0xB6
_TOP, _ANYWHERE = _numbers("1A45DFA3"), _numbers("EC BF")
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
    _PICTURE: (
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
_CROPS = {0x54AA: "bottom", 0x54BB: "top", 0x54CC: "left", 0x54DD: "right"}
_TAG_NAME, _TAG_BINARY, _CHAPTER_PROCESS = 0x45A3, 0x4485, 0x6944
_ADDITION_NAME, _ADDITION_TYPE = 0x41A4, 0x41E7
_KNOWN_ADDITIONS = (0, 1, 4)
"""Transparency is told from the stream, and frames carry what is registered with the ITU."""


class _Matroska(_Inventory):
    def read(self) -> None:
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
            width = 9 - head[length].bit_length()
            size = int.from_bytes(head[length : length + width], "big") & ((1 << 7 * width) - 1)
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
            if number in _CROPS and parent == _PICTURE:
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
            elif number in _ELEMENTS and number in known and depth < _MOST_DEPTH:
                self._walk(number, first, last, path, depth + 1)
            elif number not in known | _ANYWHERE:
                self._note(number, first, last, path)

    def _note(self, number: int, first: int, last: int, path: str) -> None:
        """Note an element of no known kind."""
        what = f"unknown element 0x{number:X}"
        if _POSITIONS.search(self.at(first, min(_HEAD, last - first))):
            what = "positions (GPS)"
        self.add("element", what, path, last - first)

    def _look_at_addition(self, begin: int, end: int, path: str) -> None:
        kind, name = 0, ""
        for number, first, last in self._children(begin, end):
            if number == _ADDITION_TYPE:
                kind = int.from_bytes(self.at(first, min(8, last - first)), "big")
            elif number == _ADDITION_NAME:
                name = self.at(first, min(_HEAD, last - first)).decode("utf-8", "replace")
        if kind in _KNOWN_ADDITIONS or self._track != self.stream:
            return
        shown = _shown(kind.to_bytes(4, "big")) if kind < 1 << 32 else hex(kind)
        what = _NAMES.get(shown) or f"additions to pictures ({name or shown})"
        self.add("side data", what, f"{path}/BlockAdditionMapping", end - begin)


# AVI: Microsoft's RIFF and the OpenDML extensions

_LISTS = _kinds("hdrl strl odml INFO ncdt")
_CHUNKS = _LISTS | _kinds(
    "avih strh strf strn vprp indx dmlh idx1 movi IDIT JUNK nctg LIST RIFF PAD"
)
# room that FFmpeg takes for the index of a long film
_RESERVED = re.compile(rb"odml|\x04\x00{7}\d\d")
_RESERVED_BYTES = 10


class _Avi(_Inventory):
    def read(self) -> None:
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
                if is_known and kind != b"INFO" and depth < _MOST_DEPTH:
                    self._walk(first + 4, last, f"{where}/{_shown(kind)}".lstrip("/"), depth + 1)
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
            shown = _shown(kind)
            what = _NAMES.get(shown, f"unknown chunk {shown}")
            self.add("chunk", what, where, last - first)
