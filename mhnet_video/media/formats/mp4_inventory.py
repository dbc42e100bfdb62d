"""Boxes of an MP4 or MOV that FFmpeg passes over.

Sources: ISO/IEC 14496-12, -14 and -15, and Apple's QuickTime File Format.
"""

import re
import struct

from mhnet_video.media.formats.inventory_base import (
    KNOWN_NAMES,
    MOST_DEPTH,
    MOST_PADDING_BYTES,
    Inventory,
    names,
    shown_name,
)
from mhnet_video.media.formats.mp4_boxes import Mp4Box, boxes_of

_MOST_KEYS_BYTES = 1 << 20
"""How much of a list of QuickTime's keys is read."""


def _named(kind: bytes) -> str:
    shown = shown_name(kind)
    return KNOWN_NAMES.get(shown, f"unknown box {shown}")


FIRST_BOXES = names("ftyp mdat wide skip free moov pnot styp")
"""Boxes that a file may begin with."""
_CONTAINERS = names("moov trak mdia minf stbl mvex moof traf udta")
"""Boxes that hold boxes."""
_FREE_SPACE = names("free skip")
"""Boxes that are to be ignored."""
_STANDARD = (
    _CONTAINERS
    | _FREE_SPACE
    | names(
        "ftyp styp mdat wide pdin sidx ssix mfra cmov mvhd iods ctab tkhd tref trgr tapt load "
        "edts mdhd hdlr elng vmhd smhd hmhd nmhd sthd gmhd dinf stsd stts ctts cslg stsc stsz "
        "stz2 stco co64 stss stps stsh padb stdp sdtp sbgp sgpd csgp subs saiz saio senc pssh "
        "mehd trep trex leva mfhd tfhd tfdt trun meta keys ilst uuid"
    )
)
"""Boxes that FFmpeg reads, or that say nothing about another file."""
_OF_REPLACED = names("elst dref")
"""Boxes of a track's index below those of `_STANDARD`."""
_OF_SAMPLES = names(
    "avcC hvcC lhvC vvcC evcC av1C vpcC av2C esds glbl jp2h jp2x mvcC svcC colr fiel gama pasp "
    "btrt clap mdcv clli SmDm CoLL amve ccst auxi st3d sv3d vexu hfov proj d263 bitr SMI strf "
    "dvc1 ACLR ARES APRG AORD alis sinf free wave dfLa jpgC mjqt mjht"
)
"""Boxes of a sample's description; frames carry what they say of HDR, projection and stereo."""
_READ_TAGS = names(
    "@PRM @PRQ aART akID apID catg cpil cprt desc disk egid FIRM gnre hdvd HMMT keyw ldes loci "
    "manu modl pcst pgap purd rtng soaa soal soar soco sonm sosn stik trkn tven tves tvnn tvsh "
    "tvsn tmpo ---- covr chpl \xa9ART \xa9PRD \xa9alb \xa9aut \xa9chp \xa9cmt \xa9com \xa9cpy "
    "\xa9day \xa9dir \xa9dis \xa9ed1 \xa9enc \xa9fmt \xa9gen \xa9grp \xa9hst \xa9inf \xa9lyr "
    "\xa9mak \xa9mod \xa9nam \xa9ope \xa9prd \xa9prf \xa9req \xa9src \xa9st3 \xa9swr \xa9too "
    "\xa9trk \xa9url \xa9wrn \xa9wrt \xa9xyz"
)
"""Tags that FFmpeg 8.1 reads from user data and iTunes' list, and what it makes chapters of."""
_OF_GOOGLE = names("gsst gstd gssd gspu gspm gshh")
"""Tags of Google's servers about the transfer."""
_OF_USER_DATA = (
    _READ_TAGS | _OF_GOOGLE | names("meta name tagc kind tsel strk hnti hinf hinv free skip")
)
"""Boxes of user data: tags, and a track's name, roles and hints for servers."""
_OF_META = names("hdlr keys ilst ctry lang free skip dinf iinf iloc idat pitm iref iprp grpl")
"""Boxes of a meta box."""
_XMP = "be7acfcb97a942e89c71999491e3afac"
"""UUID of a box with XMP."""
_SILENT_UUIDS = (
    "a5d40b30e81411ddba2f0800200c9a66",
    "ffcc8263f8554a938814587a02521fdd",
    "6d1d9b0542d544e680e2141daff757b2",
    "d4807ef2ca3946958e5426cb9e46a79f",
)
"""UUIDs of spherical video, which frames carry, and of the times of fragments and the description
of streams for servers (Smooth Streaming)."""
_SONYS = "21d24fcebb88695cfac9c740"
"""How UUIDs of Sony's cameras end."""
_ARTWORK = "com.apple.quicktime.artwork"
"""The key of a cover picture, which FFmpeg makes a stream of."""
_VISUAL_BYTES = 78
"""Length of a video sample entry before its boxes."""


class Mp4Inventory(Inventory):
    """Boxes of an MP4 or MOV, and what is in what is called free space."""

    def read(self) -> None:
        """Look at the whole file."""
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
        path = f"{where}/{shown_name(kind)}".lstrip("/")
        if kind == b"trak":
            self._track += 1
            self._handler = b""
        if kind in _FREE_SPACE:
            self._look_into_free_space(begin, end, path)
        elif kind == b"uuid":
            self._look_at_uuid(begin, end, where)
        elif kind not in known:
            self.add("box", _named(kind), where, end - begin)
        elif depth > MOST_DEPTH:
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
                self._look_at_samples(inside, last, f"{path}/{shown_name(entry.kind)}")

    def _look_into_free_space(self, begin: int, end: int, path: str) -> None:
        """Look at what is called free: cameras keep boxes of their own there, or data."""
        inside = list(boxes_of(self.file, begin, min(end, begin + MOST_PADDING_BYTES)))
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
        name = shown_name(number[:4]) if shown.endswith(_SONYS) else shown
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
            elif box.kind in _FREE_SPACE or box.kind not in known:
                self._look(box, last, path, known, depth)
        self._handler = handler

    def _look_at_keys(self, begin: int, end: int, path: str) -> None:
        """Note QuickTime's keys of which FFmpeg has made no tag."""
        data = self.at(begin, min(end - begin, _MOST_KEYS_BYTES))
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
