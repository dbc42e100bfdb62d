"""Positions and sensors that cameras keep beside the tracks of an MP4, carried into another one.

FFmpeg passes over them. What is carried is copied byte for byte to the same place: boxes of known
names, `free` boxes with positions in them, and what stands behind the last box. Novatek's index
names blocks by where they are in the file, so it is written anew for the copied blocks.
"""

import errno
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO, NamedTuple

from mhnet_video.media.formats.mp4_boxes import MAX_INDEX_BYTES, Mp4Box, box, boxes_of, join, split
from mhnet_video.media.output_file import why_unwritable

KINDS = frozenset((b"gps ", b"gps0", b"gpsa", b"gsen", b"gsea", b"3gf ", b"GPMF", b"SMTA", b"CAME"))
"""Boxes of cameras: positions, acceleration, GoPro's and Samsung's telemetry."""
_SIGNS = re.compile(rb"GPS|\$G[A-Z](RMC|GGA)")
"""What positions are known by within the first bytes of a box of another name."""
_FIRST = frozenset((b"ftyp", b"mdat", b"wide", b"skip", b"free", b"moov", b"pnot", b"styp"))
_STANDARD = _FIRST | frozenset((b"pdin", b"sidx", b"ssix", b"mfra", b"moof", b"meta", b"uuid"))
_HEAD_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_MOST_BOXES = 400_000
_MOST_IN_INDEX_BYTES = 64 << 20
"""What is carried in `moov`, at most, as all of it is held in memory."""
_INDEX_HEAD_BYTES = 8
"""A version, and the number of blocks. An entry is a block's offset and size, 32 bits each."""
_LAST_OFFSET = (1 << 32) - 1
_KIND_PLACE = 4
"""Where a box has its kind, in bytes from its beginning."""


class Extent(NamedTuple):
    """Bytes of a file."""

    start: int
    size: int


class PositionIndex(NamedTuple):
    """A box that names blocks of positions by their places in the file."""

    order: str
    """Of the bytes of its numbers, as `struct` has it."""
    version: bytes
    """What stands before the number of entries."""
    blocks: tuple[Extent, ...]
    """In its order; those of no size name nothing."""
    rest: bytes
    """What stands behind the entries."""
    missing: int
    """Entries whose blocks are not in the file, as where it was cut off."""


@dataclass
class Telemetry:
    """What cameras keep beside the tracks of one file, and where."""

    path: Path
    indices: list[PositionIndex] = field(default_factory=list)
    in_index: list[Extent] = field(default_factory=list)
    """Whole boxes in `moov`."""
    in_user_data: list[Extent] = field(default_factory=list)
    """Whole boxes in `moov/udta`."""
    outside: list[Extent] = field(default_factory=list)
    """Whole boxes beside `moov`, and what stands behind the last box."""
    room: int = _MOST_IN_INDEX_BYTES
    """Bytes that may still be added to what is in `moov`."""

    @property
    def blocks(self) -> list[Extent]:
        """The blocks that indices name, each one once, in the order of their first mention."""
        named = (block for index in self.indices for block in index.blocks if block.size)
        return list(dict.fromkeys(named))

    @property
    def num_bytes(self) -> int:
        """Size of all of it, without the indices."""
        extents = (*self.blocks, *self.in_index, *self.in_user_data, *self.outside)
        return sum(extent.size for extent in extents)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.indices) or self.num_bytes > 0


class Carried(NamedTuple):
    """What became of telemetry."""

    num_bytes: int = 0
    """How much of it is in the output."""
    missing: int = 0
    """Blocks that an index of the source names, and the source has not."""
    why: str = ""
    """Why nothing was carried, where there was something."""


def telemetry_of(path: str | PathLike[str]) -> Telemetry:
    """Find what cameras keep beside the tracks of an MP4 or MOV; nothing in other files.

    Raises:
        OSError: It cannot be read.
    """
    found = Telemetry(Path(path))
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        if file.read(8)[4:] not in _FIRST:
            return found
        place = 0
        for number, each in enumerate(boxes_of(file, 0, end)):
            fits = each.start + each.size <= end
            if number == _MOST_BOXES or not any(each.kind) or not (fits or each.kind in _STANDARD):
                break
            place = min(each.start + each.size, end)
            if each.kind == b"moov":
                _look_into_index(file, each, end, found)
            elif _is_telemetry(file, each, place):
                found.outside.append(Extent(each.start, place - each.start))
        if 0 < place < end and (
            # LIGO's ends with its own size, by which it is found
            (found.outside and sum(found.outside[-1]) == place)
            or _SIGNS.search(_read(file, place, min(end - place, _HEAD_BYTES)))
        ):
            found.outside.append(Extent(place, end - place))
    # a block that is a box of its own, too, is copied as what the index names
    named = set(found.blocks)
    found.outside = [extent for extent in found.outside if extent not in named]
    if found.num_bytes > end:
        # entries that name the same bytes over and over, as no camera writes them
        found.indices.clear()
    return found


def _look_into_index(file: IO[bytes], moov: Mp4Box, end: int, found: Telemetry) -> None:
    last = min(moov.start + moov.size, end)
    for each in _whole(boxes_of(file, moov.start + moov.header, last), last):
        if each.kind == b"udta":
            inside = _whole(boxes_of(file, each.start + each.header, each.start + each.size), last)
            for item in inside:
                _add(file, item, end, found, found.in_user_data)
        else:
            _add(file, each, end, found, found.in_index)


def _whole(boxes: Iterable[Mp4Box], end: int) -> Iterator[Mp4Box]:
    for number, each in enumerate(boxes):
        if number == _MOST_BOXES or each.start + each.size > end:
            return
        yield each


def _add(file: IO[bytes], each: Mp4Box, end: int, found: Telemetry, to: list[Extent]) -> None:
    if each.kind not in KINDS or each.size > found.room:
        return
    found.room -= each.size
    index = _index_of(file, each, end) if each.kind == b"gps " else None
    if index is None:
        to.append(Extent(each.start, each.size))
    else:
        found.indices.append(index)


def _index_of(file: IO[bytes], each: Mp4Box, end: int) -> PositionIndex | None:
    """Novatek's index; None where the box holds something else."""
    data = _read(file, each.start + each.header, each.size - each.header)
    for order in (">", "<"):
        if len(data) < _INDEX_HEAD_BYTES:
            return None
        (count,) = struct.unpack_from(f"{order}I", data, 4)
        most = (len(data) - _INDEX_HEAD_BYTES) // 8
        if not 0 < count <= most:
            continue
        numbers = struct.unpack_from(f"{order}{2 * count}I", data, _INDEX_HEAD_BYTES)
        named = [Extent(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        blocks = [b if b.size and b.start + b.size <= end else Extent(0, 0) for b in named]
        first = next((block for block in blocks if block.size), None)
        if first and b"GPS" in _read(file, first.start, 16):
            missing = sum(bool(b.size) for b in named) - sum(bool(b.size) for b in blocks)
            rest = data[_INDEX_HEAD_BYTES + 8 * count :]
            return PositionIndex(order, data[:4], tuple(blocks), rest, missing)
    return None


def _is_telemetry(file: IO[bytes], each: Mp4Box, end: int) -> bool:
    """Whether a box beside `moov` holds positions or what sensors told."""
    if each.kind in KINDS:
        return True
    if each.kind in _STANDARD and each.kind not in (b"free", b"skip"):
        return False
    begin = each.start + each.header
    inside = boxes_of(file, begin, end)
    if any(item.kind in KINDS for item, _ in zip(inside, range(_HEAD_BYTES), strict=False)):
        return True
    return _SIGNS.search(_read(file, begin, min(_HEAD_BYTES, end - begin))) is not None


def carry(sources: Sequence[str | PathLike[str]], output: str | PathLike[str]) -> Carried:
    """Copy the telemetry of files into a finished MP4 or MOV whose index stands last.

    All of it is written behind the index, with a new one; then the former becomes room. So the
    output plays whenever that is cut off, and stays as it was where it fails.

    Args:
        sources: The files, in the order in which the output shows them.
        output: What is written to.

    Raises:
        OSError: The output cannot be read.
    """
    try:
        found = [each for each in map(telemetry_of, sources) if each]
    except OSError as error:
        return Carried(why=f"the source could not be read again: {error.strerror}")
    if not found:
        return Carried()
    # without a buffer: after a full disk, its rest would be written again and again
    with open(output, "r+b", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        *_, last = [Mp4Box(b"", 0, 0, 0), *boxes_of(file, 0, end)]
        if last.kind != b"moov" or last.start + last.size != end or last.size > MAX_INDEX_BYTES:
            return Carried(why="the output's index does not stand last")
        num_bytes = sum(each.num_bytes for each in found)
        if any(each.indices for each in found) and end + num_bytes + 8 > _LAST_OFFSET:
            return Carried(why="the camera's index counts to 4 GB only")
        moov = _read(file, last.start + last.header, last.size - last.header)
        file.seek(end)
        try:
            _write(file, found, moov)
            # until here a file that is cut off plays by the index of before
            file.seek(last.start + _KIND_PLACE)
            _put(file, b"free")
        except OSError as error:
            file.truncate(end)
            return Carried(why=why_unwritable(error))
    return Carried(num_bytes, sum(index.missing for each in found for index in each.indices))


def _write(file: IO[bytes], found: list[Telemetry], moov: bytes) -> None:
    """Write the blocks, the output's index with what belongs into it, and the rest."""
    in_index, in_user_data = b"", b""
    indices: list[PositionIndex] = []
    for each in found:
        with open(each.path, "rb") as source:
            places: dict[Extent, int] = {}
            if blocks := each.blocks:
                _put(file, struct.pack(">I4s", 8 + sum(b.size for b in blocks), b"mdat"))
            for block in blocks:
                places[block] = file.tell()
                _copy(source, block, file)
            for index in each.indices:
                moved = (Extent(places.get(b, 0), b.size) for b in index.blocks)
                indices.append(index._replace(blocks=tuple(moved)))
            in_index += b"".join(_read(source, *extent) for extent in each.in_index)
            in_user_data += b"".join(_read(source, *extent) for extent in each.in_user_data)
    if indices:
        in_index += box(b"gps ", _contents_of(indices))
    boxes = split(moov)
    if in_user_data:
        kinds = [kind for kind, _ in boxes]
        at = kinds.index(b"udta") if b"udta" in kinds else len(boxes)
        before = join(split(boxes[at][1])) if at < len(boxes) else b""
        boxes[at : at + 1] = [(b"udta", before + in_user_data)]
    _put(file, box(b"moov", join(boxes) + in_index))
    for each in found:
        with open(each.path, "rb") as source:
            for extent in each.outside:
                _copy(source, extent, file)


def _contents_of(indices: list[PositionIndex]) -> bytes:
    """One index of all the blocks: those who read one look at the first only."""
    first = indices[0]
    numbers = [number for index in indices for block in index.blocks for number in block]
    entries = struct.pack(f"{first.order}{1 + len(numbers)}I", len(numbers) // 2, *numbers)
    return first.version + entries + first.rest


def _copy(source: IO[bytes], extent: Extent, file: IO[bytes]) -> None:
    source.seek(extent.start)
    rest = extent.size
    while rest:
        data = source.read(min(rest, _CHUNK_BYTES))
        if not data:
            raise OSError(errno.EIO, "it has become shorter")
        _put(file, data)
        rest -= len(data)


def _read(file: IO[bytes], start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(max(0, size))


def _put(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
