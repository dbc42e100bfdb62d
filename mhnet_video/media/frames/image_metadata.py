"""What picture files say about themselves, which encoders do not write."""

import re
import struct
import zlib

# markers of JPEG: the picture's begin and end, and a scan's begin; ITU-T T.81, table B.1. Any
# number of fill bytes may stand before one, section B.1.1.2
_START, _END, _SCAN, _FILL = 0xD8, 0xD9, 0xDA, 0xFF
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG's frame headers, which have the size."""
# markers of JPEG: application segments from the first to the last, and comments
_FIRST_APP, _LAST_APP, _COMMENT = 0xE0, 0xEF, 0xFE
# how application segments begin, behind marker and size: JFIF, EXIF, and the places of further
# pictures behind the first one (CIPA DC-007)
_JFIF, _EXIF, _PLACES = b"JFIF\0", b"Exif\0\0", b"MPF\0"
# likewise one of a colour profile, whose bytes come behind its number and how many there are
_PROFILE, _PROFILE_HEAD = b"ICC_PROFILE\0", 18
_SPACE = slice(16, 20)
"""Where a colour profile has the kind of its samples; ICC.1:2022, table 17."""
_RGB, _GREY, _CMYK = b"RGB ", b"GRAY", b"CMYK"
_DENSITY = slice(11, 16)
"""Where a JFIF segment has the resolution: its unit, 0 for none, across and down."""
_EXIF_TAGS = {0x010F, 0x0110, 0x8769, 0x8825}
"""Entries of a TIFF directory that EXIF has: maker, model, and its own and the GPS directory."""
# entries of a TIFF directory: the ICC profile, the orientation, XMP and IPTC
_PROFILE_TAG, _ORIENTATION_TAG, _XMP_TAG, _IPTC_TAG = 0x8773, 0x0112, 0x02BC, 0x83BB
_COMPRESSION_TAG = 0x0103
_TIFF_JPEG = (6, 7)
"""Compressions of a TIFF that are JPEG, the old way and the new one; TIFF 6.0, section 22."""
_MAX_CHUNK_BYTES = 1 << 16
"""How much of a chunk is copied: EXIF is shorter, and samples are not needed."""
_MOST_OF_A_HEAD = 1 << 16
"""How much of a HEIC or AVIF is searched for EXIF."""
_PNG = b"\x89PNG\r\n\x1a\n"
"""How a PNG begins."""
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG that hold text."""
# 1 in the fixed-point numbers of a display matrix: 16.16, and 2.30 in its last column
_ONE, _UNIT = 1 << 16, 1 << 30
DISPLAY_MATRICES = {
    number: (a * _ONE, b * _ONE, 0, c * _ONE, d * _ONE, 0, 0, 0, _UNIT)
    for number, (a, b, c, d) in {
        2: (-1, 0, 0, 1),
        3: (-1, 0, 0, -1),
        4: (1, 0, 0, -1),
        5: (0, 1, 1, 0),
        6: (0, 1, -1, 0),
        7: (0, -1, -1, 0),
        8: (0, -1, 1, 0),
    }.items()
}
"""In fixed point, by the number that EXIF has for how a picture is turned and mirrored: a sample
at (x, y) is shown at (a x + c y, b x + d y)."""
_XMP, _MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
"""How the segment of a JPEG's XMP begins, and those of what is too long for it."""
_XMP_TEXT = b"XML:com.adobe.xmp\0"
"""How the text of a PNG begins that is its XMP. Source: XMP specification, part 3."""
_XMP_TURN = re.compile(
    rb"""\stiff:Orientation\s*=\s*("[^"]*"|'[^']*')"""
    rb"|<tiff:Orientation\b[^>]*>[^<]*</tiff:Orientation\s*>"
)
"""Which way up a picture is, which EXIF says, too."""
_IPTC = b"Photoshop 3.0\0", b"8BIM\x04\x04"
"""How the segment of a JPEG begins that may hold IPTC data, and how these do."""
_OF_FFMPEG = b"Lavc"
"""How the comment begins that FFmpeg's encoder writes about itself."""
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
"""How a segment begins that says that there is a gain map. Source: ISO 21496-1, annex C."""
# what XMP says of a gain map, of the file's further items, and of the film of a moving photograph.
# Source: Ultra HDR image format 1.1 and Motion photo format 1.0, developer.android.com
_GAIN_MAP = b"http://ns.adobe.com/hdr-gain-map/1.0/"
_MOTION = re.compile(rb"(?:MotionPhoto|MicroVideo)\s*(?:=\s*[\"']|>\s*)1")
_UNTRUE_XMP = re.compile(
    rb"""\s(?:xmlns:hdrgm|hdrgm:\w+|G?Camera:(?:MotionPhoto|MicroVideo)\w*)\s*=\s*("[^"]*"|'[^']*')"""
    rb"|<((?:hdrgm:\w+|G?Container:Directory|G?Camera:(?:MotionPhoto|MicroVideo)\w*))\b[^>]*"
    rb"(?:/>|>.*?</\2\s*>)",
    re.DOTALL,
)
OF_FRAMES = ("EXIF", "colour profile", "thumbnail")
"""How the names of `descriptions_in` begin of what FFmpeg's frames carry, too."""
_OF_THE_ENCODING = (0xE0, 0xEE)
"""JFIF and Adobe segments describe the encoding: each file has its own."""


def with_segments_of(source: bytes, encoded: bytes) -> bytes:
    """The encoded JPEG with the EXIF, XMP, colour profile, comment and resolution of another.

    Args:
        source: The JPEG file that it was made from.
        encoded: The new one; it is returned as it is if either is no JPEG.
    """
    wanted = [
        (marker, segment)
        for marker, segment in _segments(source)
        if marker not in _OF_THE_ENCODING
        and (marker == _COMMENT or _FIRST_APP <= marker <= _LAST_APP)
        # nothing comes behind the new picture
        and not segment.startswith((_PLACES, _ISO_GAIN_MAP), 4)
    ]
    wanted = [(marker, _without_further_items(segment)) for marker, segment in wanted]
    encoded = _with_density_of(source, encoded)
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


def _without_further_items(segment: bytes) -> bytes:
    """A segment of a JPEG whose XMP says nothing of what stood behind its picture."""
    if not segment.startswith(_XMP, 4):
        return segment
    contents = _UNTRUE_XMP.sub(b"", segment[4:])
    return segment[:2] + struct.pack(">H", len(contents) + 2) + contents


def _with_density_of(source: bytes, encoded: bytes) -> bytes:
    """The encoded JPEG with the resolution of another, where that has one."""
    old, new = (
        next((s for _, s in _segments(data)[:1] if s.startswith(_JFIF, 4)), b"")
        for data in (source, encoded)
    )
    if not _segments(encoded) or not any(old[_DENSITY][:1]):
        return encoded
    # without the thumbnail that may stand behind it
    size = _DENSITY.stop + 2
    segment = struct.pack(">BBH", 0xFF, _FIRST_APP, size - 2) + old[4 : _DENSITY.stop] + bytes(2)
    return encoded[:2] + segment + encoded[2 + len(new) :]


def as_true(encoded: bytes) -> bytes:
    """The encoded JPEG or PNG without what it has of its source and is not true of it.

    That is a thumbnail of the source, and the colour profile of samples of another kind.
    """
    if encoded.startswith(_PNG):
        chunks = [_PNG]
        for kind, start, size in _places(encoded):
            contents = encoded[start : start + size]
            chunk = encoded[start - 8 : start + size + 4]
            if kind == b"iCCP" and not _describes(_unpacked(contents), is_grey=not encoded[25] & 2):
                continue
            if kind == b"eXIf":
                chunk = _chunk(kind, _without_thumbnail(contents))
            chunks.append(chunk)
        return b"".join(chunks)
    segments = _segments(encoded)
    rest = encoded[2 + sum(len(segment) for _, segment in segments) :]
    is_grey = any(m in _FRAMES and segment[9:10] == b"\1" for m, segment in segments)
    profile = b"".join(s[_PROFILE_HEAD:] for _, s in segments if s.startswith(_PROFILE, 4))
    kept = [
        segment[:10] + _without_thumbnail(segment[10:]) if segment.startswith(_EXIF, 4) else segment
        for _, segment in segments
        if not segment.startswith(_PROFILE, 4) or _describes(profile, is_grey=is_grey)
    ]
    return encoded[:2] + b"".join(kept) + rest if kept else encoded


def _chunk(kind: bytes, contents: bytes) -> bytes:
    """A chunk of a PNG."""
    check = zlib.crc32(kind + contents)
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", check)


def _describes(profile: bytes, *, is_grey: bool) -> bool:
    """Whether a colour profile may be of samples that are grey, or else RGB."""
    return profile[_SPACE] not in {_RGB, _GREY, _CMYK} - {_GREY if is_grey else _RGB}


def _unpacked(contents: bytes) -> bytes:
    """The beginning of a PNG's colour profile, which stands behind its name and a byte."""
    packed = contents.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(packed, _SPACE.stop)
    except zlib.error:
        return b""


def _without_thumbnail(tiff: bytes) -> bytes:
    """EXIF data without what leads to its second directory, that of the thumbnail."""
    place = _place_of_next(tiff)
    return tiff[:place] + bytes(4) + tiff[place + 4 :] if place else tiff


def has_further_pictures(data: bytes) -> bool:
    """Whether there are pictures behind the first one of a JPEG or a TIFF."""
    has_places = any(segment.startswith(_PLACES, 4) for _, segment in _segments(data))
    return has_places or bool(_place_of_next(data))


def is_jpeg_tiff(data: bytes) -> bool:
    """Whether it is a TIFF whose samples are a JPEG, of which FFmpeg makes a plain colour."""
    return _tiff_tags(data).get(_COMPRESSION_TAG) in _TIFF_JPEG


def further_items_in(data: bytes) -> dict[str, str]:
    """What stands behind the first picture of a JPEG or a TIFF.

    Returns:
        What it is in a person's words, and why an output has it not.
    """
    segments = [segment for _, segment in _segments(data)]
    xmp = b"".join(segment for segment in segments if segment.startswith(_XMP, 4))
    has_gain_map = _GAIN_MAP in xmp or any(each.startswith(_ISO_GAIN_MAP, 4) for each in segments)
    found = {}
    if has_gain_map:
        found["HDR gain map"] = "it is one of the picture as it was"
    elif has_further_pictures(data):
        found["further pictures of the file"] = "the first one is restored"
    if _MOTION.search(xmp):
        found["film of a moving photograph"] = "the photograph is restored"
    return found


def with_texts_of(source: bytes, encoded: bytes) -> bytes:
    """The encoded PNG with the texts (XMP among them) and the resolution of another.

    Args:
        source: The file that it was made from: a PNG, or a JPEG or WebP, which have XMP alone.
        encoded: The new one; it is returned as it is if it is no PNG.
    """
    if not encoded.startswith(_PNG):
        return encoded
    wanted = []
    if xmp := _xmp_in(source):
        # neither compressed nor in a language; an upright picture is not to be turned again
        text = _XMP_TEXT + bytes(4) + _XMP_TURN.sub(b"", _UNTRUE_XMP.sub(b"", xmp))
        wanted.append((b"iTXt", _chunk(b"iTXt", text)))
    for kind, start, size in _places(source) if source.startswith(_PNG) else ():
        contents = source[start : start + size]
        # one that is turned has another resolution down than across
        is_resolution = kind == b"pHYs" and contents[:4] == contents[4:8] and contents[8:] == b"\1"
        if kind in _PNG_TEXTS or is_resolution:
            wanted.append((kind, source[start - 8 : start + size + 4]))
    new = {kind for kind, _ in wanted if kind not in _PNG_TEXTS}
    chunks = [
        (kind, encoded[start - 8 : start + size + 4])
        for kind, start, size in _places(encoded)
        if kind not in new
    ]
    # after the header, ahead of the samples
    return _PNG + b"".join(chunk for _, chunk in [*chunks[:1], *wanted, *chunks[1:]])


def _xmp_in(data: bytes) -> bytes:
    """The XMP of a JPEG or a WebP; empty for none."""
    for _, segment in _segments(data):
        if segment.startswith(_XMP, 4):
            return segment[4 + len(_XMP) :]
    for kind, start, size in () if data.startswith(_PNG) else _places(data):
        if kind == b"XMP ":
            return data[start : start + size]
    return b""


def descriptions_in(data: bytes) -> list[str]:
    """What a JPEG, PNG, WebP, TIFF, HEIC or AVIF has beside its samples, in a person's words."""
    chunks, segments = _chunks(data), _segments(data)
    kinds = {kind for kind, _ in chunks}
    starts = {bytes(segment[4:9]) for _, segment in segments}
    tags = set(_tiff_tags(data))
    found = []
    # HEIC and AVIF name their items at the beginning
    head = data[:_MOST_OF_A_HEAD] if data[4:8] == b"ftyp" else b""
    if (
        kinds & {b"eXIf", b"EXIF"}
        or b"Exif\0" in starts
        or tags & _EXIF_TAGS
        or re.search(rb"infe.{8,10}Exif", head, re.DOTALL)
    ):
        found.append("EXIF (camera, time and place)")
    if (
        kinds & {b"iCCP", b"ICCP"}
        or b"ICC_P" in starts
        or _PROFILE_TAG in tags
        or re.search(b"colr(prof|rICC)", head)
    ):
        found.append("colour profile")
    texts = [contents.startswith(_XMP_TEXT) for kind, contents in chunks if kind in _PNG_TEXTS]
    if not all(texts):
        found.append("texts")
    if (
        any(texts)
        or _xmp_in(data)
        or _XMP_TAG in tags
        or re.search(rb"infe.{8,10}mime[^\0]*\0application/rdf\+xml", head, re.DOTALL)
    ):
        found.append("XMP (ratings and edits)")
    if any(segment.startswith(_MORE_XMP, 4) for _, segment in segments):
        found.append("long XMP (such as depths)")
    if _IPTC_TAG in tags or any(s.startswith(_IPTC[0], 4) and _IPTC[1] in s for _, s in segments):
        found.append("IPTC (captions and keywords)")
    if any(m == _COMMENT and not s.startswith(_OF_FFMPEG, 4) for m, s in segments):
        found.append("comment")
    if any(_place_of_next(tiff) for tiff in _exif_in(data)):
        found.append("thumbnail")
    return found


def display_matrix_in(data: bytes) -> tuple[int, ...] | None:
    """How a player must turn and mirror a picture, by the EXIF data of its file.

    Returns:
        A display matrix, as `Frame.tags` has it; None for as it is.
    """
    for tiff in [data, *_exif_in(data)]:
        matrix = DISPLAY_MATRICES.get(_tiff_tags(tiff).get(_ORIENTATION_TAG, 0))
        if matrix is not None:
            return matrix
    return None


def _exif_in(data: bytes) -> list[bytes]:
    """The EXIF data of a JPEG, PNG or WebP, which are a TIFF."""
    tiffs = [contents for kind, contents in _chunks(data) if kind in (b"eXIf", b"EXIF")]
    tiffs += [s[10:] for _, s in _segments(data) if s.startswith(_EXIF, 4)]
    return [tiff.removeprefix(_EXIF) for tiff in tiffs]


def _directory(data: bytes) -> tuple[str, int, int]:
    """The order of a TIFF's bytes for `struct`, and where the entries of its first directory are.

    Returns:
        Order, where the first entry begins, and how many there are; no order for no TIFF.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4], "")
    if not order or len(data) < 8:
        return "", 0, 0
    (start,) = struct.unpack(f"{order}I", data[4:8])
    directory = data[start : start + 2]
    count = struct.unpack(f"{order}H", directory)[0] if len(directory) == 2 else 0
    return order, start + 2, count


def _place_of_next(data: bytes) -> int:
    """Where a TIFF's first directory has the place of the next one; 0 where there is none."""
    _, start, count = _directory(data)
    place = start + 12 * count
    return place if count and len(data) >= place + 4 and any(data[place : place + 4]) else 0


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Numbers of the first directory of a TIFF, with their short values; empty for no TIFF."""
    order, start, count = _directory(data)
    tags = {}
    for index in range(count):
        entry = data[start + 12 * index :][:12]
        if len(entry) < 12:
            break
        number, _, _, value, _ = struct.unpack(f"{order}HHIHH", entry)
        tags[number] = value
    return tags


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and contents of the chunks of a PNG or a WebP; empty for others."""
    return [
        (kind, data[start : start + min(size, _MAX_CHUNK_BYTES)])
        for kind, start, size in _places(data)
    ]


def _places(data: bytes) -> list[tuple[bytes, int, int]]:
    """Kind of each chunk, where its contents begin, and their size."""
    places = []
    is_png, is_webp = data.startswith(_PNG), data[:4] + data[8:12] == b"RIFFWEBP"
    position = 8 if is_png else 12 if is_webp else len(data)
    while position + 8 <= len(data):
        head = data[position : position + 8]
        size, kind = struct.unpack(">I4s", head) if is_png else struct.unpack("<4sI", head)[::-1]
        places.append((kind, position + 8, size))
        position += size + 12 if is_png else 8 + size + size % 2
    return places


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG says it has, in pixels, without decoding it; None for others."""
    for marker, segment in _segments(data):
        if marker in _FRAMES and len(segment) >= 9:
            return int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big")
    return None


def is_cut_short(data: bytes) -> bool:
    """Whether it is a JPEG that ends before its picture does."""
    places = _segment_places(data)
    begin = places[-1][2] if places else 2
    return data[:2] == bytes((0xFF, _START)) and data.find(bytes((0xFF, _END)), begin) < 0


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """Marker and bytes of the segments before the picture itself; empty for no JPEG."""
    return [(marker, data[start:end]) for marker, start, end in _segment_places(data)]


def _segment_places(data: bytes) -> list[tuple[int, int, int]]:
    """Their markers, where they begin and where they end."""
    if data[:2] != bytes((0xFF, _START)):
        return []
    places = []
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _SCAN:
        if data[position + 1] == _FILL:
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        places.append((data[position + 1], position, min(end, len(data))))
        position = end
    return places
