"""The boxes of an MP4 file: what is there, and a cover picture put where FFmpeg does not put it.

FFmpeg's fragmented writing, which makes an MP4 playable after a crash, writes a cover as an empty
track. The cover is added to the finished file instead, whose index stands last.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from mhnet_video.media.regular_file import opened

# "well-known types" of iTunes metadata values
_JPEG, _PNG, _BMP = 13, 14, 27
MAX_INDEX_BYTES = 1 << 30
"""An index larger than this is not worth holding in memory for a cover, or for positions."""


class Mp4Box(NamedTuple):
    """One box: where it stands in its file."""

    kind: bytes
    start: int
    size: int
    header: int
    """Bytes before its contents."""


def boxes_of(file: IO[bytes], start: int, end: int) -> Iterator[Mp4Box]:
    """The boxes from one position to another; ends early where the sizes make no sense."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        header = 8
        if size == 1 and len(head) == 16:
            size, header = struct.unpack(">Q", head[8:])[0], 16
        elif size == 0:
            size = end - start
        if size < header:
            return
        yield Mp4Box(kind, start, size, header)
        start += size


def lacks_index(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an MP4 whose index was never written whole, as a power cut leaves it."""
    with opened(path) as file:
        if file is None:
            return False
        end = os.fstat(file.fileno()).st_size
        boxes = list(boxes_of(file, 0, end))
    kinds = [each.kind for each in boxes if each.kind != b"moov" or each.start + each.size <= end]
    is_mp4 = bool(kinds) and kinds[0] in (b"ftyp", b"mdat", b"wide", b"skip", b"free")
    return is_mp4 and (b"ftyp" in kinds or b"mdat" in kinds) and b"moov" not in kinds


def add_cover(path: Path, covers: list[bytes]) -> bool:
    """Put cover pictures (JPEG, PNG or BMP files) into a finished MP4.

    Returns:
        Whether that was possible: the index must stand last, as this package writes it.
    """
    with open(path, "r+b") as file:
        end = os.fstat(file.fileno()).st_size
        *_, last = [Mp4Box(b"", 0, 0, 0), *boxes_of(file, 0, end)]
        if last.kind != b"moov" or last.size > MAX_INDEX_BYTES:
            return False
        file.seek(last.start + last.header)
        index = file.read(last.size - last.header)
        covr = box(b"covr", b"".join(_cover(cover) for cover in covers))
        file.seek(last.start)
        file.write(box(b"moov", _into_udta(index, covr)))
    return True


def box(kind: bytes, contents: bytes) -> bytes:
    """A box as it is written, of less than 4 GB."""
    return struct.pack(">I4s", len(contents) + 8, kind) + contents


def _cover(picture: bytes) -> bytes:
    kind = _PNG if picture[:4] == b"\x89PNG" else _BMP if picture[:2] == b"BM" else _JPEG
    return box(b"data", struct.pack(">II", kind, 0) + picture)


def split(contents: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and contents of the boxes in a box."""
    boxes = []
    while len(contents) >= 8:
        size, kind = struct.unpack(">I4s", contents[:8])
        if size < 8:
            break
        boxes.append((kind, contents[8:size]))
        contents = contents[size:]
    return boxes


def join(boxes: list[tuple[bytes, bytes]]) -> bytes:
    """Boxes one after another, of kinds and contents."""
    return b"".join(box(kind, contents) for kind, contents in boxes)


def _into_udta(index: bytes, covr: bytes) -> bytes:
    """The index's contents with a cover in its user data."""
    boxes = split(index)
    for i, (kind, contents) in enumerate(boxes):
        if kind == b"udta":
            boxes[i] = (kind, _into_meta(contents, covr))
            return join(boxes)
    return join([*boxes, (b"udta", _into_meta(b"", covr))])


def _into_meta(udta: bytes, covr: bytes) -> bytes:
    boxes = split(udta)
    for i, (kind, contents) in enumerate(boxes):
        # a meta box has a version before its contents, and says in its handler whose it is
        if kind == b"meta" and contents[20:24] == b"mdir":
            inner = split(contents[4:])
            names = [name for name, _ in inner]
            if b"ilst" in names:
                at = names.index(b"ilst")
                inner[at] = (b"ilst", inner[at][1] + covr)
            else:
                inner.append((b"ilst", covr))
            boxes[i] = (kind, contents[:4] + join(inner))
            return join(boxes)
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    return join([*boxes, (b"meta", bytes(4) + handler + box(b"ilst", covr))])
