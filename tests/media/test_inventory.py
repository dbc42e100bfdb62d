"""What of a source is not in the output is said: boxes, elements, chunks, tags and side data."""

import io
import struct
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.bitstream import BitStreamFilterContext
from clips import Audio, Clip, Video, copy, every, picture
from processes import run
from standin import StandIn

from mhnet_video.config import RestoreConfig
from mhnet_video.media.fidelity import Loss
from mhnet_video.media.formats import inventory, inventory_base
from mhnet_video.media.formats.integrity import broken_places
from mhnet_video.media.formats.inventory import unseen_in
from mhnet_video.media.formats.nal_units import Units
from mhnet_video.media.frames.side_data import side_data_of
from mhnet_video.pipelines.restore import restore_video

SHORT = Clip(video=(Video(times=every(40, 3)),))


def box(kind: bytes, contents: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(contents), kind) + contents


def large_box(kind: bytes, contents: bytes) -> bytes:
    """One with a size of 64 bits."""
    return struct.pack(">I4sQ", 1, kind, 16 + len(contents)) + contents


def last_box(kind: bytes, contents: bytes) -> bytes:
    """One that goes on to the end of the file."""
    return struct.pack(">I4s", 0, kind) + contents


def handler(kind: bytes) -> bytes:
    return box(b"hdlr", bytes(8) + kind + bytes(13))


def inside(data: bytes, path: tuple[bytes, ...], added: bytes, skipped: int = 0) -> bytes:
    """A file whose index stands last, with bytes added at the end of one of its boxes.

    Args:
        data: The file.
        path: The box, from the outermost on.
        added: What is added.
        skipped: Bytes of contents of the last of them before the first box in it.
    """
    places, place, end = [], 0, len(data)
    for kind in path:
        while data[place + 4 : place + 8] != kind:
            size = struct.unpack(">I", data[place : place + 4])[0]
            if size == 1:
                size = struct.unpack(">Q", data[place + 8 : place + 16])[0]
            place += size
            assert place < end, f"no {kind!r}"
        places.append(place)
        end = place + struct.unpack(">I", data[place : place + 4])[0]
        place += 8 + {b"stsd": 8, b"avc1": 78, b"hvc1": 78}.get(kind, 0)
    result = bytearray(data[:end] + added + data[end:])
    for each in places:
        size = struct.unpack(">I", result[each : each + 4])[0]
        result[each : each + 4] = struct.pack(">I", size + len(added))
    return bytes(result)


def lost(source: Path, name: str = "out.mp4", **options: Any) -> list[Loss]:
    return list(copy(source, source.parent / name, overwrite=True, **options).notes.losses)


def told(source: Path, name: str = "out.mp4", **options: Any) -> list[tuple[str, str, int | None]]:
    return [(loss.what, loss.where, loss.bytes) for loss in lost(source, name, **options)]


SAMPLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
DESCRIPTION = "moov/trak/mdia/minf/stbl/stsd/avc1"
XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
KEYS = bytes(4) + struct.pack(">II", 1, 8 + 11) + b"mdtacom.maker.x"
NOISE = bytes(range(1, 41))


@pytest.mark.parametrize(
    ("path", "added", "what", "where", "size"),
    [
        ((), box(b"free", NOISE), "unknown data (0x01020304)", "free", 40),
        ((), box(b"free", b"abcd" + NOISE), "unknown data (abcd)", "free", 44),
        ((), box(b"skip", b"GPSINFO" + NOISE), "positions (GPS)", "skip", 47),
        ((), box(b"mdat", NOISE), "unknown data (0x01020304)", "mdat", 40),
        ((), last_box(b"mdat", b"$GPRMC" + NOISE), "positions (GPS)", "mdat", 46),
        ((), box(b"moov", NOISE), "another film's index (moov)", "", 40),
        ((), box(b"free", box(b"3gf ", NOISE)), "acceleration (3gf)", "free", 40),
        ((), box(b"gps0", NOISE), "positions (GPS)", "", 40),
        ((), box(b"gsen", NOISE) * 3, "acceleration (gsen)", "", 120),
        ((), box(b"wxyz", NOISE), "unknown box wxyz", "", 40),
        ((), large_box(b"wxyz", NOISE), "unknown box wxyz", "", 40),
        ((), last_box(b"wxyz", NOISE), "unknown box wxyz", "", 40),
        ((), last_box(b"free", NOISE), "unknown data (0x01020304)", "free", 40),
        ((), box(b"uuid", XMP + b"<x/>"), "XMP", "", 20),
        ((), box(b"uuid", NOISE), f"unknown uuid {NOISE[:16].hex()}", "", 40),
        ((), box(b"emsg", NOISE) + box(b"sidx", NOISE), "events (emsg)", "", 40),
        ((), box(b"prft", NOISE), "the producer's clock (prft)", "", 40),
        ((), b"\xff" + NOISE, "unknown data (0xff010203)", "behind the last box", 41),
        ((), bytes(30) + b"0SKIPLIGOGPSINFO", "positions (GPS)", "behind the last box", 46),
        ((), b"text, and no box", "unknown data (text)", "behind the last box", 16),
        ((b"moov",), box(b"wxyz", NOISE), "unknown box wxyz", "moov", 40),
        ((b"moov",), box(b"gps ", NOISE), "positions (GPS)", "moov", 40),
        ((b"moov", b"udta"), box(b"GPMF", NOISE), "telemetry (GoPro)", "moov/udta", 40),
        ((b"moov", b"udta"), box(b"\xa9zzz", NOISE), "unknown box \xa9zzz", "moov/udta", 40),
        ((b"moov", b"udta"), box(b"\1\2\3\4", NOISE), "unknown box 0x01020304", "moov/udta", 40),
        ((b"moov", b"trak"), box(b"udta", box(b"wxyz", NOISE)), "unknown box wxyz",
         "moov/trak/udta", 40),
        ((b"moov",), box(b"meta", handler(b"mdta") + box(b"keys", KEYS)), "com.maker.x",
         "moov/meta", None),
        ((b"moov", b"trak"), box(b"meta", bytes(4) + handler(b"nrtm") + box(b"xml ", NOISE)),
         "unknown box xml", "moov/trak/meta", 40),
        (SAMPLES, box(b"dvvC", NOISE), "Dolby Vision", DESCRIPTION, 40),
        (SAMPLES, box(b"wxyz", NOISE), "unknown box wxyz", DESCRIPTION, 40),
        (SAMPLES, box(b"clap", struct.pack(">8i", 48, 1, 32, 1, 0, 1, 0, 1)), "cropping (48x32)",
         DESCRIPTION, None),
    ],
)  # fmt: skip
def test_a_box_that_ffmpeg_passes_over_is_told(path, added, what, where, size, tmp_path):
    source = SHORT.make(tmp_path)
    data = source.read_bytes()
    source.write_bytes(inside(data, path, added) if path else data + added)
    # positions are carried into another MP4
    assert told(source, "out.mkv") == [(what, where, size)]


@pytest.mark.parametrize(
    ("path", "added"),
    [
        ((), box(b"free", bytes(5000))),
        ((), box(b"skip", b"\xff" * 5000)),
        ((), box(b"free", box(b"mvhd", NOISE) + box(b"trak", NOISE))),  # an index that was replaced
        ((), box(b"free", box(b"elst", NOISE))),  # an edit list that was switched off
        ((), box(b"free", b"IsoMedia File Produced with GPAC 0.8.0")),
        ((), box(b"sidx", NOISE) + box(b"mfra", NOISE)),
        ((), bytes(100)),
        ((b"moov", b"udta"), bytes(4)),
        (
            (b"moov", b"udta"),
            box(b"meta", bytes(4) + handler(b"mdir") + box(b"ilst", box(b"gsst", NOISE))),
        ),  # as a site of videos has it
        (SAMPLES, box(b"clap", struct.pack(">8i", 64, 1, 48, 1, 0, 1, 0, 1))),
        (SAMPLES, bytes(4)),
    ],
)
def test_padding_and_what_a_standard_says_of_a_file_are_not_told(path, added, tmp_path):
    source = SHORT.make(tmp_path)
    data = source.read_bytes()
    source.write_bytes(inside(data, path, added) if path else data + added)
    assert told(source) == []


def test_what_one_file_hides_is_one_line_and_structured(tmp_path):
    source = SHORT.make(tmp_path)
    hidden = box(b"gps0", NOISE) + box(b"free", NOISE) + box(b"wxyz", NOISE)
    source.write_bytes(source.read_bytes() + hidden)
    config = RestoreConfig(overwrite=True)
    report = restore_video(source, tmp_path / "out.mkv", config, restorer=StandIn())
    assert report.lost == (
        "positions (GPS) (40 bytes), unknown data (0x01020304) (40 bytes), "
        "unknown box wxyz (40 bytes): FFmpeg does not show it",
    )
    part = replace(config, start=0.04, duration=0.04)
    assert restore_video(source, tmp_path / "out.mkv", part, restorer=StandIn()).lost == report.lost


@pytest.mark.slow
def test_standard_input_is_read_once(tmp_path):
    source = Clip(name="clip.mkv", video=(Video(times=every(40, 3)),)).make(tmp_path)
    command = ["mhnet_video", "-", str(tmp_path / "out.mkv")]
    with source.open("rb") as file:
        done = run([sys.executable, "-m", *command], stdin=file)
    assert "what cameras hide from FFmpeg: not looked for" in done.stdout


# Matroska


def element(number: str, contents: bytes) -> bytes:
    return bytes.fromhex(number) + bytes((0x01,)) + len(contents).to_bytes(7, "big") + contents


def nested(data: bytes, path: tuple[str, ...], added: bytes) -> bytes:
    """Elements, with bytes added at the beginning of the first one that a path leads to."""
    place = 0
    while path:
        length = 9 - data[place].bit_length()
        width = 9 - data[place + length].bit_length()
        first = place + length + width
        size = int.from_bytes(data[place + length : first], "big") & ((1 << 7 * width) - 1)
        if data[place : place + length].hex() == path[0]:
            contents = nested(data[first : first + size], path[1:], added)
            return data[:place] + element(path[0], contents) + data[first + size :]
        place = first + size
    return added + data


TRACK = ("18538067", "1654ae6b", "ae")
MAPPING = element("41f0", b"\2") + element("41a4", b"Maker") + element("41e7", b"wxyz")
DOLBY = element("41f0", b"\2") + element("41e7", b"dvcC") + element("41ed", NOISE)
CHAPTER = element("b6", element("91", b"\0") + element("b6", element("91", b"\0")))


@pytest.mark.parametrize(
    ("path", "added", "what", "where"),
    [
        (TRACK[:1], element("4fff", NOISE), "unknown element 0x4FFF", "Segment"),
        (TRACK[:1], element("4fff", b"$GPRMC,1" + NOISE), "positions (GPS)", "Segment"),
        (TRACK[:2], element("4fff", NOISE), "unknown element 0x4FFF", "Segment/Tracks"),
        (TRACK, element("4fff", NOISE), "unknown element 0x4FFF", "Segment/Tracks/TrackEntry"),
        (TRACK, element("41e4", MAPPING), "additions to pictures (Maker)",
         "Segment/Tracks/TrackEntry/BlockAdditionMapping"),
        (TRACK, element("41e4", DOLBY), "Dolby Vision",
         "Segment/Tracks/TrackEntry/BlockAdditionMapping"),
        ((*TRACK, "e0"), element("54bb", b"\x08") + element("54aa", b"\x08"),
         "cropping (8 top, 8 bottom)", "Segment/Tracks/TrackEntry/Video"),
        (TRACK[:1], element("1254c367", element("7373", element("67c8",
         element("45a3", b"RAW") + element("4485", NOISE)))), "a tag of bytes",
         "Segment/Tags/Tag/SimpleTag"),
        (TRACK[:1], element("1043a770", element("45b9", CHAPTER)), "chapters in chapters",
         "Segment/Chapters/EditionEntry/ChapterAtom"),
        ((), None, "unknown data (0x01020304)", "behind the last element"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["clip.mkv", "clip.webm"])
def test_an_element_that_ffmpeg_passes_over_is_told(path, added, what, where, name, tmp_path):
    video = Video(times=every(40, 3), codec="libvpx" if "webm" in name else "libx264")
    source = Clip(name=name, video=(video,)).make(tmp_path)
    data = source.read_bytes()
    assert told(source) == []
    source.write_bytes(nested(data, path, added) if added else data + NOISE)
    assert [found[:2] for found in told(source)] == [(what, where)]


@pytest.mark.parametrize(
    ("added", "what"),
    [
        (NOISE, "unknown data (0x01020304)"),
        (element("4fff", NOISE), "unknown element 0x4FFF"),
        (element("4fff", b"GPS" + NOISE), "positions (GPS)"),
    ],
)
def test_what_stands_behind_a_matroskas_segment_is_told_and_no_damage(added, what, tmp_path):
    source = replace(SHORT, name="clip.mkv").make(tmp_path)
    source.write_bytes(source.read_bytes() + added)
    assert [found[0] for found in told(source)] == [what]
    assert broken_places(str(source), "matroska") == []


def test_a_matroska_of_unknown_sizes_is_walked_through(tmp_path):
    """As it is written where there is no way back, and by a recorder that was switched off."""
    source = replace(SHORT, name="clip.mkv").make(tmp_path)
    data = bytearray(source.read_bytes())
    for number in ("18538067", "1f43b675"):
        at = data.index(bytes.fromhex(number)) + 4
        width = 9 - data[at].bit_length()
        data[at : at + width] = ((1 << 7 * width + 1) - 1).to_bytes(width, "big")
    source.write_bytes(data)
    assert told(source) == []
    source.write_bytes(data + element("4fff", NOISE))
    assert told(source) == [("unknown element 0x4FFF", "Segment", 40)]


# AVI


def chunk(kind: bytes, contents: bytes) -> bytes:
    return kind + struct.pack("<I", len(contents)) + contents + bytes(len(contents) % 2)


def in_lists(data: bytes, path: tuple[bytes, ...], added: bytes) -> bytes:
    """Chunks, with bytes added at the end of the first list that a path leads to."""
    place = 0
    while path:
        size = struct.unpack("<I", data[place + 4 : place + 8])[0]
        contents = data[place + 12 : place + 8 + size]
        if data[place + 8 : place + 12] == path[0]:
            grown = path[0] + in_lists(contents, path[1:], added)
            return data[:place] + chunk(data[place : place + 4], grown) + data[place + 8 + size :]
        place += 8 + size + size % 2
    return data + added


@pytest.mark.parametrize(
    ("path", "added", "what", "where"),
    [
        ((b"AVI ",), chunk(b"JUNK", NOISE), "unknown data (0x01020304)", "AVI/JUNK"),
        ((b"AVI ",), chunk(b"JUNK", b"GPS" + NOISE), "positions (GPS)", "AVI/JUNK"),
        ((b"AVI ",), chunk(b"wxyz", NOISE), "unknown chunk wxyz", "AVI"),
        ((b"AVI ",), chunk(b"LIST", b"wxyz" + NOISE), "unknown chunk wxyz", "AVI"),
        ((b"AVI ", b"hdrl", b"strl"), chunk(b"strd", NOISE),
         "a camera's or encoder's data (strd)", "AVI/hdrl/strl"),
        ((), None, "unknown data (0x01020304)", "behind the last chunk"),
    ],
)  # fmt: skip
def test_a_chunk_that_ffmpeg_passes_over_is_told(path, added, what, where, tmp_path):
    video = Video(codec="mpeg4", times=every(40, 3))
    source = Clip(name="clip.avi", video=(video,)).make(tmp_path)
    data = source.read_bytes()
    source.write_bytes(in_lists(data, (b"AVI ",), chunk(b"JUNK", bytes(500))))
    assert told(source) == []
    source.write_bytes(in_lists(data, path, added) if added else data + NOISE)
    assert [found[:2] for found in told(source)] == [(what, where)]


# damage


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_no_damage_costs_more_than_a_note(name, tmp_path, monkeypatch):
    """Any four bytes overwritten, with what sizes are worst: nothing, and all there is."""
    reads = []

    class Counted(io.BufferedReader):
        def read(self, size=-1):
            reads.append(size)
            return super().read(size)

    monkeypatch.setattr(inventory, "open", lambda path, _: Counted(io.FileIO(path)), raising=False)
    data = replace(SHORT, name=name, audio=(Audio(seconds=0.1),)).make(tmp_path).read_bytes()
    path = tmp_path / "damaged"
    path.write_bytes(data)
    unseen_in(path, stream=0, tags=set())
    most = 2 * len(reads)
    places = range(0, len(data), max(1, len(data) // 500))
    for place in places:
        for damage in (bytes(4), b"\xff" * 4, b"\0\0\0\1"):
            # some file systems wait for a disk where what was there is cut off
            path.unlink(missing_ok=True)
            path.write_bytes(data[:place] + damage + data[place + 4 :])
            reads.clear()
            unseen_in(path, stream=0, tags=set())
            assert len(reads) <= most
    path.write_bytes(data[: len(data) // 2])
    unseen_in(path, stream=0, tags=set())


def test_a_mangled_size_makes_no_telemetry_of_pictures(tmp_path):
    """The index still says where the pictures are, and FFmpeg reads them."""
    source = replace(SHORT, options=(("movflags", "faststart"),)).make(tmp_path)
    data = bytearray(source.read_bytes())
    at = data.index(b"mdat") - 4
    data[at : at + 4] = struct.pack(">I", 200)
    source.write_bytes(data)
    assert told(source) == []
    source.write_bytes(data + NOISE)
    assert told(source) == [("unknown data (0x01020304)", "behind the last box", 40)]


def test_boxes_in_boxes_have_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(inventory_base, "_MOST_PARTS", 1000)
    deep = b""
    for _ in range(200):
        deep = box(b"moov", deep)
    path = tmp_path / "deep.mp4"
    path.write_bytes(box(b"ftyp") + deep + box(b"free") * 2000)
    (found,) = unseen_in(path, stream=0, tags=set())
    assert found.what == "what comes after the first parts of the file"


# tags


def test_a_tag_that_is_cut_is_told_and_one_that_is_long_is_not_cut(tmp_path):
    """QuickTime's own places hold 65535 bytes."""
    clip = replace(SHORT, name="clip.mkv", metadata={"comment": "x" * 70000, "title": "Rain"})
    source = clip.make(tmp_path)
    for name in ("out.mov", "out.mp4", "out.mkv"):
        assert lost(source, name) == []
        with av.open(str(tmp_path / name)) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
        assert (len(tags["comment"]), tags["title"]) == (70000, "Rain")
    (found,) = lost(source, "out.flv")
    assert found.kind == "tag" and "COMMENT" in found.what


def test_values_of_tags_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("mhnet_video.media.formats.containers._ITUNES_KEYS", {"comment"})
    clip = replace(SHORT, name="clip.mkv", metadata={"comment": "x" * 70000})
    source = clip.make(tmp_path)
    monkeypatch.setattr(
        "mhnet_video.media.writing.muxer.muxer_options",
        lambda *args, **options: {"movflags": "hybrid_fragmented"},
    )
    (found,) = lost(source, "out.mov")
    assert found.what == "information about the file: COMMENT (changed, 4464 of 70000 letters)"


def test_tags_and_roles_of_streams_are_compared(tmp_path):
    sound = Audio(
        seconds=0.1,
        metadata={"language": "fra", "title": "Ton", "place": "Berlin"},
        disposition=av.stream.Disposition.comment | av.stream.Disposition.default,
    )
    source = Clip(name="clip.mkv", video=SHORT.video, audio=(sound,)).make(tmp_path)
    assert lost(source, "out.mkv") == []
    (found,) = lost(source, "out.mp4")
    assert found.what == "information about sound in stream 1 (aac, fra): PLACE"
    (found,) = lost(source, "out.flv")
    assert found.what.endswith("language, title, PLACE, comment")


# covers


@pytest.mark.parametrize("codec", ["gif", "libwebp"])
def test_mp4_has_covers_of_three_kinds(codec, tmp_path):
    """It would call any other a JPEG."""
    kind = codec.removeprefix("lib")
    cover = picture("png", 16, 16) if kind == "png" else made_cover(codec)
    clip = replace(SHORT, name="clip.mkv")
    source = replace(clip, attachments=((f"cover.{kind}", f"image/{kind}", cover),)).make(tmp_path)
    (found,) = lost(source, "out.mp4")
    assert found.kind == "stream" and "MP4 has no place for it" in found.why
    assert lost(source, "out.mkv") == []


def made_cover(codec: str) -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width = context.height = 16
    context.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame(16, 16, context.pix_fmt)
    frame.pts = 0
    return b"".join(bytes(each) for each in context.encode(frame) + context.encode(None))


# what is in the stream


SEI = "086f3693-b7b3-4f2c-9653-21492feee5b8+52.1 N"


def with_units(folder: Path, change: str, codec: str = "h264", name: str = "camera.mkv") -> Path:
    """A clip whose packets have gone through one of FFmpeg's filters."""
    encoder = {"h264": "libx264", "hevc": "libx265"}[codec]
    whole = Clip(name="clip.mkv", video=(Video(codec=encoder, times=every(40, 3)),)).make(folder)
    with av.open(str(whole)) as source, av.open(str(folder / name), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        insert = BitStreamFilterContext(change, stream)
        for packet in source.demux(video=0):
            for changed in insert.filter(packet if packet.size else None):
                changed.stream = stream
                target.mux(changed)
    return folder / name


@pytest.mark.parametrize(
    ("encoder", "is_kept"),
    [("libx264", True), ("libx265", True), ("mpeg4", False), ("ffv1", False)],
)
def test_a_cameras_data_is_kept_or_told(encoder, is_kept, tmp_path):
    source = with_units(tmp_path, f"h264_metadata=sei_user_data='{SEI}'")
    losses = lost(source, "out.mkv", encoder=encoder)
    kept = b"52.1 N" in (tmp_path / "out.mkv").read_bytes()
    what = "a camera's data in the stream"
    assert kept is is_kept and [each.what for each in losses] == [what] * (not is_kept)


def unit_packets(folder: Path, codec: str, unit: bytes, name: str) -> Path:
    """A clip with a unit before each of its pictures."""
    encoder = {"h264": "libx264", "hevc": "libx265"}[codec]
    whole = Clip(name="clip.mkv", video=(Video(codec=encoder, times=every(40, 3)),)).make(folder)
    is_sized = not name.endswith(".ts")
    with av.open(str(whole)) as source, av.open(str(folder / name), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            # FFmpeg makes marks of sizes itself
            new = av.Packet(len(unit).to_bytes(4, "big") + unit + bytes(packet))
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.stream = stream
            target.mux(new)
    assert is_sized or name.endswith(".ts")
    return folder / name


REGISTERED = bytes((4, 10, 0xB5, 0x12, 0x34)) + b"weather" + b"\x80"


@pytest.mark.parametrize(
    ("codec", "unit", "what"),
    [
        ("hevc", bytes((62 << 1, 1)) + NOISE, "Dolby Vision"),
        ("hevc", bytes((39 << 1, 1)) + REGISTERED, "user data of provider 0xb51234"),
        ("hevc", bytes((1 << 1, 1 | 1 << 3)) + NOISE, "a second view or layer"),
        ("hevc", bytes((50 << 1, 1)) + NOISE, "unknown units of type 50"),
        ("h264", b"\6" + REGISTERED, "user data of provider 0xb51234"),
        ("h264", bytes((20,)) + NOISE, "a second view or layer"),
        ("h264", bytes((26,)) + NOISE, "unknown units of type 26"),
    ],
)
@pytest.mark.parametrize("name", ["camera.mp4", "camera.ts"])
def test_units_that_decoders_pass_over_are_told(codec, unit, what, name, tmp_path):
    source = unit_packets(tmp_path, codec, unit, name)
    losses = lost(source, "out.mp4")
    assert [(each.kind, each.what) for each in losses] == [("side data", what)]
    assert losses[0].bytes >= 3 * len(unit)


def test_captions_in_supplemental_information_are_no_unknown_data():
    units = Units("h264", None)
    units.look(b"\0\0\1\6" + bytes((4, 6)) + bytes.fromhex("b5003147413934") + b"\x80")
    assert units.found == {}


CAPTIONS = bytes.fromhex("b50031474139340341fffc942cff")


@pytest.mark.parametrize(("encoder", "is_kept"), [("libx264", True), ("ffv1", False)])
def test_captions_are_kept_or_told(encoder, is_kept, tmp_path):
    unit = bytes((6, 4, len(CAPTIONS))) + CAPTIONS + b"\x80"
    source = unit_packets(tmp_path, "h264", unit, "camera.mp4")
    losses = lost(source, "out.mkv", encoder=encoder)
    with av.open(str(tmp_path / "out.mkv")) as container:
        found = {each.type.name for each in side_data_of(next(container.decode(video=0)))}
    assert ("A53_CC" in found) is is_kept
    assert [each.what for each in losses] == ["captions"] * (not is_kept)


HDR = (
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):"
    "max-cll=1000,400"
)


def hdr_clip(said, codec="libx265"):
    return Video(
        codec=codec,
        pixel_format="yuv420p10le",
        times=every(40, 3),
        options=(("x265-params", f"log-level=none:{said}"),) if codec == "libx265" else (),
        color=(1, 9, 9, 16),
    )


def light_of(path):
    """What the first frame of a file tells of its light, by kind."""
    with av.open(str(path)) as container:
        data = side_data_of(next(container.decode(video=0)))
        found = {each.type.name: bytes(each) for each in data}
    return {name: data for name, data in found.items() if "LIGHT" in name or "MASTER" in name}


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.ts"])
@pytest.mark.parametrize("said", [HDR, HDR.partition(":")[0], "max-cll=1000,400"])
def test_hdr_of_a_telephone_stays_hevc_with_its_light(name, said, tmp_path):
    source = Clip(name="clip.mp4", video=(hdr_clip(said),)).make(tmp_path)
    assert lost(source, name) == []
    light = light_of(source)
    assert light
    assert light_of(tmp_path / name) == light
    with av.open(str(tmp_path / name)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("hevc", "yuv420p10le")
        if name == "out.mp4":  # otherwise Apple's players show nothing
            assert context.codec_tag == "hvc1"


@pytest.mark.parametrize(
    ("codec", "name", "usual"),
    [("libx264", "out.mp4", "h264"), ("ffv1", "out.mkv", "h264"), ("libx265", "out.avi", "h264")],
)
def test_ten_bits_of_other_sources_and_in_other_formats_become_h264(codec, name, usual, tmp_path):
    lost(Clip(name="clip.mkv", video=(hdr_clip("", codec),)).make(tmp_path), name)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.name == usual


def test_light_levels_that_an_encoder_does_not_write_are_told(tmp_path):
    source = Clip(name="clip.mkv", video=(hdr_clip("max-cll=1000,400"),)).make(tmp_path)
    (found,) = lost(source, "out.mkv", encoder="libx264")
    assert (found.kind, found.what) == ("side data", "HDR light levels")
