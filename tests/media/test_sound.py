"""What becomes of sound: whatever the codec, whenever it begins, whatever it turns into midway."""

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import av
import processes
import pytest
import sounds
from clips import Audio, Clip, Video, boxes, every
from sounds import copy, length, pitches, tones

from mhnet_video.frame import Frame
from mhnet_video.media.reading.reader import VideoReader


def near(heard: float, wanted: float) -> bool:
    """Whether two frequencies are the same, as far as half a window tells."""
    return abs(heard - wanted) < 0.02 * wanted


def copy_in_a_process(source: str, output: str, **options: Any) -> None:
    """As `copy`, in a process that may abort."""
    command = f"from pathlib import Path; import sounds; sounds.copy({source!r}, Path({output!r}))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    processes.run([sys.executable, "-c", command], check=True, env=environment, **options)


# every codec


@pytest.fixture(scope="session")
def every_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip of each."""
    folder = tmp_path_factory.mktemp("codecs")
    processes.run([sys.executable, sounds.__file__, folder], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("extension", ["mp4", "mov", "3gp", "mkv", "webm", "ts", "avi", "flv"])
def test_no_sound_ends_the_process(extension: str, every_codec: Path, tmp_path: Path) -> None:
    """FFmpeg's own checks abort; the last line of the output says at which codec."""
    output = tmp_path / f"out.{extension}"
    done = processes.run([sys.executable, sounds.__file__, every_codec, output])
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"
    assert len(done.stdout.splitlines()) > 60


def test_flv_has_newer_codecs_only_beyond_its_first_track(tmp_path: Path) -> None:
    tracks = Audio(codec="libmp3lame"), Audio(codec="pcm_s16le", rate=44100)
    source = Clip(name="clip.mkv", audio=tracks).make(tmp_path)
    writer = copy(source, tmp_path / "out.flv")
    assert writer.notes.kept == ["sound in stream 1 (mp3float): copied"]
    assert [loss.what for loss in writer.notes.losses] == ["sound in stream 2 (pcm_s16le)"]
    with av.open(str(tmp_path / "out.flv")) as container:
        assert {stream.codec.canonical_name for stream in container.streams.audio} == {"mp3", "aac"}


@pytest.mark.parametrize(
    ("codec", "rate"),
    [("pcm_s16le", 8000), ("pcm_s16le", 44100), ("pcm_s16be", 44100), ("pcm_u8", 16000),
     ("pcm_mulaw", 8000), ("pcm_mulaw", 44100), ("pcm_alaw", 16000)],
)  # fmt: skip
def test_flv_plays_samples_at_their_rate(codec: str, rate: int, tmp_path: Path) -> None:
    """It has numbers for a few rates, and one order of bytes."""
    extension = "mov" if codec == "pcm_s16be" else "avi"
    source = tones(tmp_path / f"clip.{extension}", [440, 880], codec=codec, rate=rate)
    copy(source, tmp_path / "out.flv")
    heard = pitches(tmp_path / "out.flv")
    assert near(heard[0.5], 440) and near(heard[1.5], 880), heard


@pytest.mark.parametrize(("name", "number"), [("5.1", 6), ("2.1", 2)])
def test_channels_without_names_stay_or_are_told(name: str, number: int, tmp_path: Path) -> None:
    source = tmp_path / "clip.mkv"
    tones(source, [440, 880], codec="pcm_s16le", rate=8000, layout=name)
    writer = copy(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].layout.nb_channels == number
    assert ("instead of" in writer.notes.lost[0]) == (number == 2)


@pytest.mark.parametrize("codec", ["mp3", "ac3", "mp2"])
def test_sound_of_an_avi_stays_as_it_is_in_another(codec: str, tmp_path: Path) -> None:
    source = tones(tmp_path / "clip.avi", [440, 880], codec=codec)
    writer = copy(source, tmp_path / "out.avi")
    assert [line.rpartition(" ")[2] for line in writer.notes.kept] == ["copied"]
    assert not writer.notes.lost


def test_a_matroskas_header_is_not_written_over(tmp_path: Path) -> None:
    """Streams of a transport stream tell what they are packet by packet."""
    source = tones(tmp_path / "clip.ts", [440, 880])
    copy(source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 2 * 44100


@pytest.mark.parametrize("pause", [0.7, 4])
def test_a_pause_in_sound_that_needs_no_other_samples_stays(pause: float, tmp_path: Path) -> None:
    """An encoder of the same rate and channels takes what was decoded as it is."""
    sound = Audio(codec="libopus", seconds=1.2, pause=pause)
    source = Clip(name="clip.mkv", video=(Video(times=every(40, 150)),), audio=(sound,))
    copy(source.make(tmp_path), tmp_path / "out.mov")
    assert abs(length(tmp_path / "out.mov") - 1.2 - pause) < 0.05


@pytest.mark.parametrize("extension", ["mp4", "flv"])
def test_opus_without_its_header_is_encoded_again(extension: str, tmp_path: Path) -> None:
    source = tones(tmp_path / "clip.mkv", [440, 880], codec="libopus", rate=48000)
    content = source.read_bytes()
    place = content.index(b"OpusHead")
    # the element of Matroska that holds it becomes one of an unknown kind
    start = content.rindex(b"\x63\xa2", 0, place)
    source.write_bytes(content[:start] + b"\x63\xa3" + content[start + 2 :])
    copy_in_a_process("clip.mkv", f"out.{extension}", cwd=tmp_path)
    heard = pitches(tmp_path / f"out.{extension}")
    assert near(heard[0.5], 440)
    assert near(heard[1.5], 880)


@pytest.mark.parametrize("tag", [0x38, 0x2000, 0xF1AC], ids=["amr", "ac3", "flac"])
@pytest.mark.parametrize("extension", ["mp4", "mov", "flv"])
def test_sound_that_is_not_what_its_file_says(tag: int, extension: str, tmp_path: Path) -> None:
    source = tones(tmp_path / "clip.avi", [440], codec="pcm_s16le", rate=8000)
    content = source.read_bytes()
    place = content.index(b"strf", content.index(b"auds")) + 8
    source.write_bytes(content[:place] + struct.pack("<H", tag) + content[place + 2 :])
    copy_in_a_process("clip.avi", f"out.{extension}", cwd=tmp_path)
    with av.open(str(tmp_path / f"out.{extension}")) as container:
        assert len(list(container.decode(video=0))) == 25


# streams that a muxer does not take


def test_a_second_video_that_avi_refuses_is_left_out(tmp_path: Path) -> None:
    source = Clip(name="clip.mkv", video=(Video(), Video(seed=2)), audio=(Audio(),)).make(tmp_path)
    writer = copy(source, tmp_path / "out.avi")
    assert writer.frames == 10
    assert writer.notes.lost[0] == "video in stream 1 (h264): AVI has no place for it"
    assert writer.notes.kept == ["sound in stream 2 (aac): copied"]


def test_more_streams_than_a_format_has_are_told(tmp_path: Path) -> None:
    tracks = (Audio(codec="pcm_s16le", seconds=0.1),) * 101
    source = Clip(name="clip.mkv", audio=tracks).make(tmp_path)
    writer = copy(source, tmp_path / "out.avi")
    assert writer.frames == 10
    with av.open(str(tmp_path / "out.avi")) as container:
        kept = len(container.streams.audio)
    lost = [loss for loss in writer.notes.losses if loss.kind == "stream"]
    assert kept > 90
    assert kept + len(lost) == 101
    assert {loss.why for loss in lost} == {"AVI does not take it beside the other streams"}


# sound of which the beginning does not tell


@pytest.mark.parametrize("extension", ["ts", "mkv", "mp4", "flv", "avi"])
def test_sound_that_is_announced_and_never_comes(extension: str, tmp_path: Path) -> None:
    source = Clip(name="clip.ts", audio=(Audio(seconds=0),)).make(tmp_path)
    writer = copy(source, tmp_path / f"out.{extension}")
    assert writer.frames == 10
    assert "sound in stream 1 (aac): it is announced, but never comes" in writer.notes.lost
    with av.open(str(tmp_path / f"out.{extension}")) as container:
        assert not container.streams.audio


def switched_on(folder: Path, codec: str, layout: str) -> Path:
    """A transport stream whose sound is announced only when it begins, after twelve seconds."""
    silent = Clip(name="silent.ts", video=(Video(codec="mpeg4", times=every(40, 300), period=5),))
    loud = tones(folder / "loud.ts", [440, 880], codec=codec, layout=layout, rate=48000, start=12.0)
    path = folder / "joined.ts"
    path.write_bytes(silent.make(folder).read_bytes() + loud.read_bytes())
    return path


def announced(folder: Path, codec: str, layout: str) -> Path:
    """One that is announced at once."""
    path = folder / "late.ts"
    return tones(path, [440, 880], codec=codec, layout=layout, rate=48000, lead=12.0)


def untold(folder: Path, codec: str, layout: str) -> Path:
    """A format that tells of a stream only when its first packet comes."""
    path = folder / ("late.mpg" if codec == "mp2" else "late.flv")
    return tones(path, [440, 880], codec=codec, layout=layout, rate=44100, lead=12.0)


@pytest.mark.parametrize("extension", ["ts", "mkv", "mp4", "mov"])
@pytest.mark.parametrize(
    ("make", "codec", "layout"),
    [(switched_on, "mp2", "mono"), (announced, "aac", "mono"), (announced, "ac3", "stereo"),
     (untold, "mp2", "mono"), (untold, "aac", "stereo")],
)  # fmt: skip
def test_sound_that_begins_late(
    make: Callable[[Path, str, str], Path],
    codec: str,
    layout: str,
    extension: str,
    tmp_path: Path,
) -> None:
    source, output = make(tmp_path, codec, layout), tmp_path / f"out.{extension}"
    writer = copy(source, output)
    assert writer.frames == 350
    assert not [loss for loss in writer.notes.losses if loss.kind == "stream"]
    with av.open(str(output)) as container:
        frame = next(container.decode(audio=0))
        assert frame.layout.name == layout
    heard = pitches(output)
    for moment, wanted in ((12.5, 440), (13.5, 880)):
        assert near(heard[moment], wanted), heard


@pytest.mark.parametrize("make", [switched_on, announced])
def test_sound_that_begins_late_in_standard_input(
    make: Callable[[Path, str, str], Path], tmp_path: Path
) -> None:
    source, output = make(tmp_path, "aac", "mono"), tmp_path / "out.mp4"
    with source.open("rb") as stream:
        copy_in_a_process("-", "out.mp4", stdin=stream, cwd=tmp_path)
    heard = pitches(output)
    for moment, wanted in ((12.5, 440), (13.5, 880)):
        assert near(heard[moment], wanted), heard


@pytest.mark.parametrize(("name", "lead"), [("late.ts", 4), ("late.mkv", 20)])
def test_late_sound_has_silence_before_it_where_a_format_has_no_times(
    name: str, lead: int, tmp_path: Path
) -> None:
    """Matroska tells neither when sound begins nor how long its packets are."""
    source = tones(tmp_path / name, [440, 880], lead=lead)
    writer = copy(source, tmp_path / "out.avi")
    heard = pitches(tmp_path / "out.avi")
    for moment, wanted in ((lead + 0.5, 440), (lead + 1.5, 880)):
        assert near(heard[moment], wanted), heard
    said = ", with silence before it, as AVI has no times" if name == "late.ts" else ""
    assert f"re-encoded to MP3{said}" in writer.notes.lost[0]


# edit lists


def with_edits(content: bytes, pieces: list[tuple[float, float]]) -> bytes:
    """A MOV with its index at the end, of which only pieces are played.

    Args:
        content: The file, with an edit list of one entry for each track.
        pieces: Where each begins in the media and how long it lasts, in seconds; nothing is played
            in one that begins before the media.
    """
    start, end = next((first, last) for name, first, last in boxes(content) if name == b"moov")
    movie = parts_of(content[start + 8 : end])
    scale = scale_of(next(part for part in movie if part[4:8] == b"mvhd"))
    made = [edited(part, scale, pieces) if part[4:8] == b"trak" else part for part in movie]
    return content[:start] + box(b"moov", b"".join(made)) + content[end:]


def edited(track: bytes, movie_scale: int, pieces: list[tuple[float, float]]) -> bytes:
    parts = parts_of(track[8:])
    media = next(part for part in parts if part[4:8] == b"mdia")
    scale = scale_of(next(part for part in parts_of(media[8:]) if part[4:8] == b"mdhd"))
    place, old = next((i, part) for i, part in enumerate(parts) if part[4:8] == b"edts")
    # behind the two headers, flags, a count and a duration: what an encoder put before the first
    hidden = int.from_bytes(old[28:32], "big")
    entries = [
        struct.pack(
            ">IiI",
            round(lasts * movie_scale),
            -1 if begin < 0 else hidden + round(begin * scale),
            1 << 16,
        )
        for begin, lasts in pieces
    ]
    content = struct.pack(">II", 0, len(entries)) + b"".join(entries)
    parts[place] = box(b"edts", box(b"elst", content))
    return box(b"trak", b"".join(parts))


def parts_of(content: bytes) -> list[bytes]:
    return [content[first:last] for _, first, last in boxes(content)]


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def scale_of(header: bytes) -> int:
    """The clock of a movie's or a track's header of version 0, in ticks a second."""
    return int.from_bytes(header[20:24], "big")


@pytest.mark.parametrize("extension", ["mov", "mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ([(0, 1), (2, 1)], {0.5: 400, 1.5: 1200}),
        ([(1, 1), (3, 1)], {0.5: 800, 1.5: 1600}),
        ([(0.5, 0.5), (1.5, 0.5), (3, 1)], {0.25: 400, 0.75: 800, 1.5: 1600}),
    ],
    ids=["two", "not the beginning", "three"],
)
def test_sound_that_an_edit_list_hides_between_pieces_stays_hidden(
    pieces: list[tuple[float, float]], wanted: dict[float, float], extension: str, tmp_path: Path
) -> None:
    source, output = tmp_path / "clip.mov", tmp_path / f"out.{extension}"
    tones(source, [400, 800, 1200, 1600], rate=48000)
    source.write_bytes(with_edits(source.read_bytes(), pieces))
    copy(source, output)
    assert abs(length(output) - 2) < 0.12
    heard = pitches(output)
    for moment, frequency in wanted.items():
        assert near(heard[moment], frequency), heard


def test_time_before_the_first_piece_is_no_damage(tmp_path: Path) -> None:
    source = tones(tmp_path / "clip.mov", [400, 800, 1200], rate=48000)
    source.write_bytes(with_edits(source.read_bytes(), [(-1, 0.5), (0, 2)]))
    with VideoReader(source) as reader:
        assert sum(isinstance(item, Frame) for item in reader) == 2 * sounds.FPS
        assert reader.damaged == 0


# sound that changes


def joined_streams(folder: Path, codec: str) -> Path:
    """A transport stream from 44.1 kHz and one channel to 48 kHz and two, after two seconds."""
    path = folder / "joined.ts"
    parts = [
        tones(folder / "one.ts", [440, 880], codec=codec),
        tones(folder / "two.ts", [440, 880], codec=codec, rate=48000, layout="stereo", start=2.0),
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def joined_tags(folder: Path, codec: str) -> Path:
    """The same of an FLV, in which a new header stands in the middle."""
    one = tones(folder / "one.flv", [440, 880], codec=codec).read_bytes()
    rest = tones(folder / "two.flv", [440, 880], codec=codec, rate=48000, layout="stereo")
    path, made, place = folder / "joined.flv", bytearray(one), 13
    content = bytearray(rest.read_bytes())
    while place < len(content):
        size = 11 + int.from_bytes(content[place + 1 : place + 4], "big") + 4
        moved = int.from_bytes(content[place + 4 : place + 7], "big") + 2000
        content[place + 4 : place + 7] = moved.to_bytes(3, "big")
        if content[place] in (8, 9):
            made += content[place : place + size]
        place += size
    path.write_bytes(made)
    return path


@pytest.mark.parametrize("extension", ["ts", "mkv", "mp4", "mov", "flv", "avi"])
@pytest.mark.parametrize(
    ("make", "codec"),
    [(joined_streams, "aac"), (joined_tags, "aac"), (joined_streams, "mp3"),
     (joined_streams, "mp2"), (joined_streams, "ac3"), (joined_streams, "eac3")],
)  # fmt: skip
def test_sound_that_changes_keeps_its_pitch_and_its_time(
    make: Callable[[Path, str], Path], codec: str, extension: str, tmp_path: Path
) -> None:
    source, output = make(tmp_path, codec), tmp_path / f"out.{extension}"
    writer = copy(source, output)
    heard = pitches(output)
    for moment, wanted in ((0.5, 440), (1.5, 880), (2.5, 440), (3.5, 880)):
        assert near(heard[moment], wanted), heard
    assert abs(length(output) - 4) < 0.12
    with av.open(str(output)) as container:
        rates = {frame.sample_rate for frame in container.decode(audio=0)}
    told = "re-encoded" in "".join(writer.notes.lost)
    assert told == (len(rates) == 1)


def test_two_channels_that_become_one_are_as_loud_as_before(tmp_path: Path) -> None:
    copy(joined_streams(tmp_path, "aac"), tmp_path / "out.mkv")
    loudness: dict[bool, list[float]] = {False: [], True: []}
    with av.open(str(tmp_path / "out.mkv")) as container:
        for frame in container.decode(audio=0):
            assert frame.layout.nb_channels == 1
            loudness[(frame.time or 0) > 2].append(float(frame.to_ndarray().std()))
    before, after = (median(loudness[is_later]) for is_later in (False, True))
    assert after == pytest.approx(before, rel=0.05)


@pytest.mark.parametrize("is_last", [False, True])
def test_one_damaged_header_is_no_change(is_last: bool, tmp_path: Path) -> None:
    source = tones(tmp_path / "clip.ts", [440, 880])
    header = bytes.fromhex("fff15040")
    content = source.read_bytes()
    place = content.rindex(header) if is_last else content.index(header, len(content) // 2)
    source.write_bytes(content[:place] + bytes.fromhex("fff14c40") + content[place + 4 :])
    writer = copy(source, tmp_path / "out.mp4")
    assert "re-encoded" not in "".join(writer.notes.lost)
    assert "1 packet of another stream was damaged" in writer.notes.lost
    heard = pitches(tmp_path / "out.mp4")
    assert near(heard[0.5], 440)
    assert near(heard[1.75], 880)
