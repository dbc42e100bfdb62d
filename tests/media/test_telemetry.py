"""Positions and sensors beside the tracks are carried into MP4 and MOV, byte for byte."""

import random
import struct
import tracemalloc
from pathlib import Path

import av
import pytest
from clips import Audio, Clip, Subtitles, Video, boxes, copy, every, picture
from probe import pictures
from standin import StandIn

from mhnet_video.config import RestoreConfig
from mhnet_video.media.location import telemetry
from mhnet_video.media.location.telemetry import carry, telemetry_of
from mhnet_video.pipelines.restore import restore_video

SHORT = Clip(video=(Video(times=every(40, 5)),))
NOISE = bytes(range(1, 41))


def box(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(contents), kind) + contents


def block(number: int, size: int = 256) -> bytes:
    """A block as Novatek's cameras write it, of its own number."""
    return box(b"free", b"GPS " + bytes([number % 255 + 1]) * (size - 12))


def find(data: bytes, *path: bytes) -> bytes:
    """The contents of a box, from the outermost on."""
    for kind in path:
        start, end = next((start, end) for name, start, end in boxes(data) if name == kind)
        data = data[start + 8 : end]
    return data


def into_moov(data: bytes, added: bytes, within: bytes = b"") -> bytes:
    """A file whose index stands last, with a box added to it, or to a box of it."""
    name, start, end = boxes(data)[-1]
    assert (name, end) == (b"moov", len(data))
    contents = data[start + 8 :]
    if within:
        inside = find(contents, within) + added
        others = [contents[a:b] for kind, a, b in boxes(contents) if kind != within]
        return data[:start] + box(b"moov", b"".join(others) + box(within, inside))
    return data[:start] + box(b"moov", contents + added)


def with_index(path: Path, blocks: list[bytes], order: str = ">", rest: bytes = b"") -> Path:
    """A clip with blocks in its `mdat`, behind what FFmpeg knows of, named by `moov/gps `."""
    data = path.read_bytes()
    _, start, end = boxes(data)[-1]
    moov, places, place = data[start + 8 : end], [], start + 8
    for each in blocks:
        places += [place, len(each)] if each else [0, 0]
        place += len(each)
    index = bytes((0, 0, 1, 1)) + struct.pack(f"{order}I", len(blocks))
    index += struct.pack(f"{order}{len(places)}I", *places) + rest
    inside = box(b"mdat", b"".join(blocks))
    path.write_bytes(data[:start] + inside + box(b"moov", moov + box(b"gps ", index)))
    return path


def named_by(path: Path, order: str = ">") -> list[bytes]:
    """What the index of a file names, block by block."""
    data = path.read_bytes()
    index = find(data, b"moov", b"gps ")
    (count,) = struct.unpack_from(f"{order}I", index, 4)
    entries = struct.iter_unpack(f"{order}2I", index[8 : 8 + 8 * count])
    return [data[start : start + size] for start, size in entries]


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
@pytest.mark.parametrize("order", [">", "<"])
def test_an_index_names_the_copied_blocks(order, name, tmp_path):
    blocks = [block(1), b"", block(2, 600), block(3)]
    source = with_index(SHORT.make(tmp_path), blocks, order, rest=bytes(16))
    output = tmp_path / name
    notes = copy(source, output).notes
    assert named_by(output, order) == blocks
    assert find(output.read_bytes(), b"moov", b"gps ")[-16:] == bytes(16)
    assert any("positions and sensors" in line for line in notes.kept)
    # the blocks themselves were in a place that FFmpeg does not know of
    assert [loss.what for loss in notes.losses] == []
    assert pictures(output).shape == pictures(source).shape


def test_what_was_carried_is_carried_again(tmp_path):
    blocks = [block(1), block(2)]
    source = with_index(SHORT.make(tmp_path), blocks)
    copy(source, tmp_path / "one.mp4")
    notes = copy(tmp_path / "one.mp4", tmp_path / "two.mp4").notes
    assert named_by(tmp_path / "two.mp4") == blocks
    assert notes.losses == []


def test_blocks_whose_own_size_is_another_are_carried_by_the_index(tmp_path):
    # 70mai's say 16384, and are as long as the index says
    blocks = [struct.pack(">I", 1 << 14) + b"freeGPS " + bytes([n]) * 52 for n in (1, 2, 3)]
    output = tmp_path / "out.mp4"
    copy(with_index(SHORT.make(tmp_path), blocks), output)
    assert named_by(output) == blocks
    with av.open(str(output)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5


@pytest.mark.parametrize(
    "added",
    [
        box(b"gps0", NOISE) + box(b"gsen", NOISE),
        box(b"free", box(b"cprt", NOISE) + box(b"gps ", NOISE) + box(b"3gf ", NOISE)),
        box(b"free", b"freeGPS " + NOISE) * 3,
        box(b"skip", b"GPSINFO" + NOISE),
        box(b"SKIP", b"LIGOGPSINFO" + NOISE) + b"####" + struct.pack(">I", 60),
        bytes(32) + b"\x000SKIPLIGOGPSINFO" + NOISE + b"####\0\0\3\x38",
    ],
)
def test_boxes_and_trailers_are_carried_byte_for_byte_and_last(added, tmp_path):
    source = SHORT.make(tmp_path)
    source.write_bytes(source.read_bytes() + added)
    output = tmp_path / "out.mp4"
    notes = copy(source, output).notes
    assert output.read_bytes().endswith(added)
    assert notes.losses == []
    # another container has no place for them
    lost = copy(source, tmp_path / "out.mkv").notes
    assert lost.losses
    assert not any("positions and sensors" in line for line in lost.kept)


def test_boxes_before_the_pictures_are_carried(tmp_path):
    source = Clip(video=SHORT.video, options=(("movflags", "faststart"),)).make(tmp_path)
    data, added = source.read_bytes(), box(b"free", box(b"gps ", b"[1]$GNRMC," + NOISE))
    # behind its index, whose offsets are then those of before
    source.write_bytes(data + added)
    copy(source, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes().endswith(added)


@pytest.mark.parametrize("title", [{}, {"title": "Rain"}])
def test_user_data_is_carried_beside_the_tags(title, tmp_path):
    source = Clip(video=SHORT.video, metadata=title, cover=picture()).make(tmp_path)
    added = box(b"GPMF", NOISE) + box(b"CAME", NOISE)
    source.write_bytes(into_moov(source.read_bytes(), added, b"udta"))
    notes = copy(source, tmp_path / "out.mp4").notes
    assert added in find((tmp_path / "out.mp4").read_bytes(), b"moov", b"udta")
    assert notes.losses == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata.get("title") == title.get("title")
        assert len(container.streams.video) == 2


def test_a_track_of_sentences_is_carried_as_the_track_it_is(tmp_path):
    text = "gsensori,4,512,6,-3,8;GPRMC,120000.00,A,5000.0,N,3000.0,E,25.0,45.0,150126,,,A*5C;CAR,0"
    cues = tuple((n / 10, 0.1, text) for n in range(3))
    source = Clip(video=SHORT.video, subtitles=(Subtitles(codec="mov_text", cues=cues),)).make(
        tmp_path
    )
    copy(source, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes().count(text.encode()) == 3


def test_a_part_has_the_positions_of_the_whole_source_and_says_so(tmp_path):
    source = SHORT.make(tmp_path)
    source.write_bytes(source.read_bytes() + box(b"gps0", NOISE))
    config = RestoreConfig(start=0.04, duration=0.08)
    report = restore_video(source, tmp_path / "out.mp4", config, restorer=StandIn())
    assert any(line.endswith("(48 bytes, of the whole source)") for line in report.kept)


def test_files_that_follow_one_another_share_one_index(tmp_path):
    blocks = [[block(1), block(2)], [block(3), b"", block(4)]]
    names = ("a.mp4", "b.mp4")
    paths = [
        with_index(Clip(name=name, video=SHORT.video).make(tmp_path), each)
        for name, each in zip(names, blocks, strict=True)
    ]
    output = Clip(name="out.mp4", video=SHORT.video).make(tmp_path)
    assert carry(paths, output).num_bytes == 4 * 256
    assert named_by(output) == [*blocks[0], *blocks[1]]


def test_blocks_behind_the_end_are_told(tmp_path):
    source = with_index(SHORT.make(tmp_path), [block(1), block(2), block(3)])
    data = source.read_bytes()
    index = find(data, b"moov", b"gps ")
    outside = index[:-8] + struct.pack(">II", len(data) - 4, 256)
    source.write_bytes(data.replace(index, outside))
    notes = copy(source, tmp_path / "out.mp4").notes
    assert named_by(tmp_path / "out.mp4") == [block(1), block(2), b""]
    assert [loss.what for loss in notes.losses if loss.kind == "damage"] == ["1 block of positions"]


def test_entries_that_name_the_same_bytes_again_and_again_make_no_large_file(tmp_path):
    source = with_index(SHORT.make(tmp_path), [block(1, 100_000)])
    data = source.read_bytes()
    index = find(data, b"moov", b"gps ")
    (start,) = struct.unpack_from(">I", index, 8)
    entries = b"".join(struct.pack(">II", start, 99_000 - n) for n in range(500))
    many = index[:4] + struct.pack(">I", 500) + entries
    moov = find(data, b"moov").replace(box(b"gps ", index), box(b"gps ", many))
    source.write_bytes(data[: boxes(data)[-1][1]] + box(b"moov", moov))
    copy(source, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").stat().st_size < 2 * source.stat().st_size


def test_an_index_that_cannot_count_so_far_stays_out_and_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(telemetry, "_LAST_OFFSET", 1000)
    notes = copy(with_index(SHORT.make(tmp_path), [block(1)]), tmp_path / "out.mp4").notes
    assert "counts to 4 GB only" in notes.lost[0]
    assert b"gps " not in find((tmp_path / "out.mp4").read_bytes(), b"moov")


def test_an_output_whose_index_is_written_early_has_them(tmp_path):
    # a track that begins late has FFmpeg write an index before the pictures, too
    blocks = [block(1), block(2)]
    audio = Audio(start=3.0, seconds=0.2)
    video = Video(times=every(200, 20))
    source = with_index(Clip(video=(video,), audio=(audio,)).make(tmp_path), blocks)
    copy(source, tmp_path / "out.mp4")
    assert named_by(tmp_path / "out.mp4") == blocks


def test_an_output_plays_wherever_the_copying_is_cut_off(tmp_path, monkeypatch):
    source = with_index(SHORT.make(tmp_path), [block(1), block(2)])
    source.write_bytes(source.read_bytes() + box(b"gps0", NOISE))
    output = Clip(name="out.mp4", video=SHORT.video).make(tmp_path)
    before, put = output.read_bytes(), telemetry._put
    cut_at = []

    def cut(file, data):
        put(file, data)
        cut_at.append(output.read_bytes())

    monkeypatch.setattr(telemetry, "_put", cut)
    carry([source], output)
    assert len(cut_at) == 6
    for content in (*cut_at, cut_at[1][:-100]):
        output.write_bytes(content)
        assert content.startswith(before) or content is cut_at[-1]
        with av.open(str(output)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 5


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4, 5, 6])
def test_a_full_disk_leaves_the_output_as_it_was(fails_at, tmp_path, monkeypatch):
    source = with_index(SHORT.make(tmp_path), [block(1), block(2)])
    source.write_bytes(source.read_bytes() + box(b"gps0", NOISE))
    output = Clip(name="out.mp4", video=SHORT.video).make(tmp_path)
    before, put, calls = output.read_bytes(), telemetry._put, []

    def fail(file, data):
        calls.append(data)
        if len(calls) == fails_at:
            if len(data) > 4:  # the last bytes, which are in their place already
                file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        put(file, data)

    monkeypatch.setattr(telemetry, "_put", fail)
    assert "the disk is full" in carry([source], output).why
    assert output.read_bytes() == before


def test_four_gigabytes_of_pictures_are_not_read(tmp_path):
    source, size = SHORT.make(tmp_path), 4 << 30
    data = source.read_bytes() + box(b"gps0", NOISE)
    head = struct.pack(">I4sQ", 1, b"mdat", 16 + size)
    with source.open("wb") as file:
        file.write(box(b"ftyp", b"isom") + head)
        file.seek(size, 1)
        file.write(data[boxes(data)[-2][1] :])
    tracemalloc.start()
    found = telemetry_of(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.num_bytes == 48
    assert peak < 1 << 20


def test_sizes_that_make_no_sense_end_nothing(tmp_path):
    source = with_index(SHORT.make(tmp_path), [block(1), block(2)])
    data = source.read_bytes() + box(b"free", box(b"gps ", NOISE)) + b"0SKIPLIGOGPSINFO" + NOISE
    chance = random.Random(5)
    for _ in range(150):
        damaged = bytearray(data[: chance.choice((len(data), chance.randrange(len(data))))])
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(boxes(data)[-3][1], len(data))
            value = chance.choice((0, 1, 7, 8, 1 << 31, (1 << 32) - 1, chance.getrandbits(32)))
            damaged[place : place + 4] = struct.pack(">I", value)
        source.write_bytes(damaged)
        output = Clip(name="out.mp4", video=(Video(times=(0,)),), audio=(Audio(seconds=0.1),))
        target = tmp_path / "out.mp4"
        if not target.exists():
            clean = output.make(tmp_path).read_bytes()
        target.write_bytes(clean)
        carried = carry([source], target)
        assert target.stat().st_size <= len(clean) + 2 * len(damaged) + 64
        assert carried.num_bytes <= len(damaged)
        with av.open(str(target)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 1
