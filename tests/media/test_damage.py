"""Damaged and hostile input: each row ends in a playable output with a count, or in one sentence.

Never in a traceback, never in half a file under the output's name, never in leftovers beside it.
"""

import http.server
import io
import itertools
import json
import os
import re
import resource
import shutil
import socketserver
import stat
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import probe
import processes
import pytest
from clips import Audio, Clip, Video, boxes, every, join, picture, uneven
from standin import StandIn

from mhnet_video.cli.main import main
from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.media.decoder import Decoder
from mhnet_video.media.integrity import broken_places
from mhnet_video.media.reader import VideoReader
from mhnet_video.media.source import is_cut_off

VIDEO = Video(times=every(40, 20), gop=5)
FASTSTART = (("movflags", "faststart"),)
FRAGMENTS = (("movflags", "frag_keyframe+empty_moov"),)


@dataclass(frozen=True)
class Outcome:
    """What the command line did."""

    status: int
    message: str
    report: dict[str, Any] | None
    output: Path


Restore = Callable[..., Outcome]


@pytest.fixture
def restore(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Restore:
    """Run the command line in this process, with a restorer that changes nothing."""
    monkeypatch.setattr(
        "mhnet_video.restoration.restorer.Restorer", lambda *_, **__: StandIn(), raising=False
    )

    def run(source: str | Path, output: str | Path, *options: str) -> Outcome:
        capsys.readouterr()
        try:
            status = main(["--json", *options, "--", str(source), str(output)])
        except SystemExit as end:
            status = int(end.code or 0)
        told = capsys.readouterr()
        report = json.loads(told.out) if told.out else None
        return Outcome(status, told.err, report, Path(output))

    return run


def assert_one_sentence(outcome: Outcome, *words: str) -> None:
    """A person is told in one line which file, what is wrong and what to do."""
    message = outcome.message.strip()
    assert outcome.status in (1, 2)
    assert message.startswith("mhnet-video: ")
    assert "\n" not in message
    assert message.endswith(".")
    assert 30 < len(message) < 500
    # classes, numbers and names of this program's insides are no help
    assert not re.search(r"Traceback|Error\b|Errno|av[a-z_]+\(|NoneType|fault in this", message)
    for word in words:
        assert word.casefold() in message.casefold()


def assert_plays(path: Path, at_least: int, at_most: int | None = None) -> None:
    """The pictures decode from one end to the other, without a complaint."""
    shown = probe.probe(path).video.times
    assert at_least <= len(shown) <= (at_most or len(shown))
    assert all(one < two for one, two in pairwise(shown))
    if probe.HAS_FFMPEG:
        # damaged sound is copied as it is, so it is not asked here
        command = ["ffmpeg", "-v", "error", "-xerror", "-i", f"file:{path}", "-map", "0:v:0"]
        command += ["-vsync", "drop", "-f", "rawvideo", "-y", os.devnull]
        done = processes.run(command, text=False)
        assert (done.returncode, done.stderr) == (0, b"")


def left(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


Make = Callable[[Path], Path]


@dataclass(frozen=True)
class Row:
    """What goes in, and how it must end.

    Either `says`, words of the sentence, or `plays`, how many frames the output has at least.
    """

    name: str
    make: Make
    says: tuple[str, ...] | None = None
    plays: int | None = None
    damaged: int = 0
    """How many packets or frames must be counted as lost, at least."""
    output: str = "out.mp4"
    options: tuple[str, ...] = ()


def file(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def missing(name: str) -> Make:
    return lambda folder: folder / name


def folder_named(name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


def changed(clip: Clip, change: Callable[[bytes], bytes]) -> Make:
    def make(folder: Path) -> Path:
        path = clip.make(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: round(len(content) * share)]


def without_index(content: bytes) -> bytes:
    """The MP4 as a power cut leaves it."""
    return b"".join(content[a:b] for name, a, b in boxes(content) if name != b"moov")


def half_written_index(content: bytes) -> bytes:
    end = next(b for name, _, b in boxes(content) if name == b"moov")
    start = next(a for name, a, _ in boxes(content) if name == b"moov")
    return content[: start + (end - start) // 2]


def flipped(seed: int, count: int, first: float = 0.0) -> Callable[[bytes], bytes]:
    """Bytes at random places behind the share `first` of the file, turned upside down."""

    def change(content: bytes) -> bytes:
        changed = np.frombuffer(content, np.uint8).copy()
        places = np.random.default_rng(seed).integers(
            int(first * len(content)), len(content), count
        )
        changed[places] ^= 0xFF
        return changed.tobytes()

    return change


def zeroed(start: float, end: float) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        first, last = round(len(content) * start), round(len(content) * end)
        return content[:first] + bytes(last - first) + content[last:]

    return change


def media_flipped(seed: int, count: int) -> Callable[[bytes], bytes]:
    """Flips in the pictures alone; the MP4's index stays whole."""

    def change(content: bytes) -> bytes:
        start, end = next((a + 16, b) for name, a, b in boxes(content) if name == b"mdat")
        return content[:start] + flipped(seed, count)(content[start:end]) + content[end:]

    return change


def joined(name: str, *clips: Clip) -> Make:
    def make(folder: Path) -> Path:
        inside = folder / "parts"
        inside.mkdir()
        parts = []
        for index, clip in enumerate(clips):
            (inside / str(index)).mkdir()
            parts.append(clip.make(inside / str(index)))
        path = join(folder / name, parts)
        shutil.rmtree(inside)
        return path

    return make


def ts(start: int = 0, **values: Any) -> Clip:
    """A part of a transport stream, ten frames from `start` milliseconds on."""
    return Clip(name="part.ts", video=(Video(times=every(40, 10, start), gop=5, **values),))


def h264(**values: Any) -> Clip:
    return Clip(name="part.h264", video=(Video(times=every(40, 10), gop=5, **values),))


def png_of_declared_size(width: int, height: int) -> bytes:
    content = bytearray(picture("png"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


SECRET = "secret.mkv"
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"
SESSION = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)


def luring(name: str, text: str) -> Make:
    """Text that makes FFmpeg open another file, which is there."""

    def make(folder: Path) -> Path:
        Clip(name=SECRET).make(folder)
        (folder / name).write_text(text.format(folder=folder, secret=folder / SECRET))
        return folder / name

    return make


def with_unknown_codec(content: bytes) -> bytes:
    return content.replace(b"avc1", b"zzz1")


def no_video_packets(name: str) -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        extension = {"mkv": "matroska"}.get(path.suffix[1:], path.suffix[1:])
        with av.open(str(path), "w", format=extension) as container:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            audio = container.add_stream("ac3", rate=48000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1536), np.float32), "fltp", "mono")
            frame.rate, frame.pts = 48000, 0
            for packet in [*audio.encode(frame), *audio.encode(None)]:
                container.mux(packet)
        return path

    return make


def only_sound(name: str, codec: str, cover: bytes | None = None) -> Make:
    def make(folder: Path) -> Path:
        return Clip(name=name, video=(), audio=(Audio(codec=codec),), cover=cover).make(folder)

    return make


SUBTITLES = b"1\n00:00:00,100 --> 00:00:00,500\nRain\n\n"
TEXT = b"This is no video. " * 200
MKV = Clip(name="clip.mkv", video=(VIDEO,), audio=(Audio(codec="ac3"),))
MP4 = Clip(name="clip.mp4", video=(VIDEO,), audio=(Audio(codec="ac3"),), options=FASTSTART)
TS = Clip(name="clip.ts", video=(VIDEO,), audio=(Audio(codec="ac3"),))
AVI = Clip(
    name="clip.avi",
    video=(Video(codec="mpeg4", times=every(40, 20), gop=5),),
    audio=(Audio(codec="ac3"),),
)
PARTS = Clip(name="clip.mp4", video=(VIDEO,), audio=(Audio(),), options=FRAGMENTS)
WEBM = Clip(
    name="clip.webm",
    video=(
        Video(
            codec="libvpx-vp9",
            times=every(40, 20),
            gop=5,
            options=(("deadline", "realtime"), ("cpu-used", "8")),
        ),
    ),
)

ROWS = [
    Row("a missing file", missing("none.mp4"), ("none.mp4", "not exist")),
    Row("a missing folder", missing("none/clip.mp4"), ("clip.mp4", "not exist")),
    Row("a folder", folder_named("clip.mp4"), ("clip.mp4", "folder")),
    Row("an empty file", file("clip.mp4", b""), ("clip.mp4", "empty")),
    Row("a file of one byte", file("clip.mp4", b"\0"), ("clip.mp4",)),
    Row("a file of zeros", file("clip.mp4", bytes(100_000)), ("clip.mp4",)),
    Row("noise", file("clip.mp4", np.random.default_rng(1).bytes(50_000)), ("clip.mp4",)),
    Row("text named .mp4", file("clip.mp4", TEXT), ("clip.mp4", "not a video")),
    Row("text named .mkv", file("clip.mkv", TEXT), ("clip.mkv", "not a video")),
    Row("text named .txt", file("notes.txt", TEXT), ("notes.txt", "not a video")),
    Row("subtitles alone", file("clip.srt", SUBTITLES), ("clip.srt", "no video")),
    Row("subtitles named .mp4", file("clip.mp4", SUBTITLES), ("clip.mp4",)),
    Row("sound alone, WAV", only_sound("a.wav", "pcm_s16le"), ("a.wav", "no video", "sound")),
    Row("sound alone, MP4", only_sound("clip.mp4", "aac"), ("clip.mp4", "no video", "sound")),
    Row(
        "sound with a cover, MP4",
        only_sound("clip.mp4", "aac", picture()),
        ("clip.mp4", "no video", "cover"),
    ),
    Row(
        "sound with a cover, MP3",
        only_sound("a.mp3", "libmp3lame", picture()),
        ("a.mp3", "no video", "cover"),
    ),
    Row("a video track without a packet, MKV", no_video_packets("clip.mkv"), ("clip.mkv",)),
    Row("a video track without a packet, MP4", no_video_packets("clip.mp4"), ("clip.mp4",)),
    Row(
        "MP4 without its index",
        changed(Clip(), without_index),
        ("clip.mp4", "power", "same camera"),
    ),
    Row(
        "MP4 with half its index",
        changed(Clip(), half_written_index),
        ("clip.mp4", "power", "same camera"),
    ),
    Row(
        "MP4 of a power cut: room for an index, all zero",
        changed(Clip(), lambda content: without_index(content) + bytes(4096)),
        ("clip.mp4", "power", "same camera"),
    ),
    Row("an unknown codec", changed(Clip(), with_unknown_codec), ("clip.mp4",)),
    # cut in the middle of a frame
    Row("MP4 cut in a frame", changed(MP4, cut(0.62)), None, 6, 1),
    Row("MKV cut in a frame", changed(MKV, cut(0.62)), None, 8),
    Row("TS cut in a frame", changed(TS, cut(0.62)), None, 6),
    Row("AVI cut in a frame", changed(AVI, cut(0.62)), None, 6),
    Row("fragments cut in a frame", changed(PARTS, cut(0.62)), None, 6),
    Row("WebM cut in a frame", changed(WEBM, cut(0.62)), None, 6),
    Row("TS that begins in a frame", changed(TS, lambda content: content[5000:]), None, 8),
    # flipped bytes in the middle
    Row("MP4, flipped bytes", changed(MP4, media_flipped(3, 40)), None, 5, 1),
    Row("MKV, flipped bytes", changed(MKV, flipped(3, 30, 0.1)), None, 5),
    Row("TS, flipped bytes", changed(TS, flipped(3, 60, 0.1)), None, 5),
    Row("AVI, flipped bytes", changed(AVI, flipped(3, 30, 0.3)), None, 5),
    Row("MP4, a zeroed stretch", changed(MP4, zeroed(0.4, 0.6)), None, 8, 1),
    Row("MKV, a zeroed stretch", changed(MKV, zeroed(0.4, 0.6)), None, 8),
    Row("TS, a zeroed stretch", changed(TS, zeroed(0.4, 0.6)), None, 8),
    # a frame size that changes
    Row(
        "a larger size from the middle on, TS",
        joined("clip.ts", ts(), ts(400, width=96, height=80)),
        None,
        20,
    ),
    Row(
        "a smaller size from the middle on, TS",
        joined("clip.ts", ts(), ts(400, width=32, height=18)),
        None,
        20,
    ),
    Row(
        "sizes that change three times, H.264",
        joined("clip.h264", h264(), h264(width=96, height=80), h264(), h264(width=34, height=46)),
        None,
        40,
    ),
    Row(
        "10 bits from the middle on, H.264",
        joined("clip.h264", h264(), h264(pixel_format="yuv420p10le")),
        None,
        20,
    ),
    Row(
        "4:4:4 from the middle on, H.264",
        joined("clip.h264", h264(), h264(pixel_format="yuv444p")),
        None,
        20,
    ),
    Row(
        "grey from the middle on, H.264",
        joined("clip.h264", h264(), h264(pixel_format="gray")),
        None,
        20,
    ),
    # sizes at the ends of what there is
    *(
        Row(
            f"{width}x{height} {name}",
            Clip(
                name="clip.nut",
                video=(
                    Video(
                        codec="rawvideo",
                        pixel_format=name,
                        width=width,
                        height=height,
                        times=every(40, 3),
                    ),
                ),
            ).make,
            None,
            3,
            output=output,
        )
        for width, height, name, output in (
            (1, 1, "yuv420p", "out.mp4"),
            (1, 1, "gray", "out.mkv"),
            (1, 1, "yuv444p10le", "out.mp4"),
            (1, 1, "yuv420p", "out.webm"),
            (2, 2, "yuv420p", "out.mp4"),
            (1, 64, "yuv422p", "out.mp4"),
            (16000, 32, "yuv420p", "out.mp4"),
            (32, 16000, "yuv420p", "out.mp4"),
        )
    ),
    Row(
        "a picture that claims 60000x60000",
        file("clip.png", png_of_declared_size(60000, 60000)),
        ("clip.png",),
        output="out.png",
    ),
    # times
    Row(
        "times that wrap, TS",
        Clip(name="clip.ts", video=(Video(times=every(40, 20, 95_443_317), gop=5),)).make,
        None,
        20,
    ),
    Row(
        "times that begin again, TS",
        joined("clip.ts", ts(), ts(), ts()),
        None,
        30,
    ),
    Row(
        "times that leap by a day, TS",
        joined("clip.ts", ts(), ts(86_400_000)),
        None,
        20,
    ),
    Row(
        "times before zero, MP4",
        Clip(
            video=(Video(times=every(40, 20, -200), gop=5),), options=(("avoid_negative_ts", "0"),)
        ).make,
        None,
        15,
    ),
    Row(
        "times of years, MKV",
        Clip(name="clip.mkv", video=(Video(times=every(40, 10, 10**12)),)).make,
        None,
        10,
    ),
    Row(
        "a track that appears late, TS",
        joined(
            "clip.ts",
            ts(),
            Clip(
                name="part.ts",
                video=(Video(times=every(40, 10, 400), gop=5),),
                audio=(Audio(codec="ac3", start=0.4, seconds=0.4),),
            ),
        ),
        None,
        20,
    ),
    # text that names other files
    Row(
        "a list of files named .mp4",
        luring("clip.mp4", "ffconcat version 1.0\nfile '" + SECRET + "'\n"),
        ("clip.mp4",),
    ),
    Row(
        "a list of files named .ffconcat",
        luring("clip.ffconcat", "ffconcat version 1.0\nfile '" + SECRET + "'\n"),
        ("clip.ffconcat",),
    ),
    Row("a playlist named .mp4", luring("clip.mp4", PLAYLIST), ("clip.mp4",)),
    Row("a playlist", luring("clip.m3u8", PLAYLIST), ("clip.m3u8",)),
    Row("a session description", luring("clip.mp4", SESSION), ("clip.mp4",)),
    Row("a session description named .sdp", luring("clip.sdp", SESSION), ("clip.sdp",)),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_row(row: Row, tmp_path: Path, restore: Restore) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    source = row.make(inside)
    before = source.read_bytes() if source.is_file() else None

    outcome = restore(source, outside / row.output, *row.options)

    if row.says is not None:
        assert_one_sentence(outcome, *row.says)
        assert left(outside) == []
    else:
        assert outcome.message == ""
        assert outcome.status == 0
        assert left(outside) == [row.output]
        assert_plays(outcome.output, row.plays or 1)
        assert outcome.report is not None
        assert outcome.report["frames"] == len(probe.probe(outcome.output).video.times)
        assert outcome.report["damaged"] >= row.damaged
    if before is not None:
        assert source.read_bytes() == before


HEALTHY = {clip.name: clip for clip in (MP4, MKV, TS, AVI, WEBM)} | {"fragments.mp4": PARTS}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("healthy")
    return {name: clip.make(folder).read_bytes() for name, clip in HEALTHY.items()}


def assert_plays_or_says(outcome: Outcome, folder: Path) -> int:
    """How many frames came out."""
    if outcome.status:
        assert_one_sentence(outcome)
        assert left(folder) == []
        return 0
    assert outcome.message == ""
    assert left(folder) == [outcome.output.name]
    assert_plays(outcome.output, 1)
    return len(probe.probe(outcome.output).video.times)


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("name", HEALTHY)
def test_cut_anywhere(
    name: str, tenth: int, healthy: dict[str, bytes], tmp_path: Path, restore: Restore
) -> None:
    (tmp_path / "out").mkdir()
    source = tmp_path / name
    source.write_bytes(cut(tenth / 10)(healthy[name]))
    outcome = restore(source, tmp_path / "out" / "out.mp4")
    # half of what the share of bytes holds, and nothing is asked of the headers' tenth
    at_least = max(0, tenth - 3)
    assert assert_plays_or_says(outcome, tmp_path / "out") >= at_least


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", HEALTHY)
def test_flipped_anywhere(
    name: str, seed: int, healthy: dict[str, bytes], tmp_path: Path, restore: Restore
) -> None:
    (tmp_path / "out").mkdir()
    source = tmp_path / name
    content = healthy[name]
    source.write_bytes(flipped(seed, 3 + 20 * seed)(content))
    outcome = restore(source, tmp_path / "out" / "out.mkv")
    assert_plays_or_says(outcome, tmp_path / "out")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return Clip(audio=(Audio(),)).make(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.xyz", ("out.xyz", ".mp4")),
        ("out", ("out", ".mp4")),
        ("out.txt", ("out.txt", ".mp4")),
        ("out.srt", ("out.srt",)),
        ("out.mp3", ("out.mp3",)),
        ("out.wav", ("out.wav",)),
        (".mp4", (".mp4",)),
        ("none/out.mp4", ("none", "not exist")),
        ("clip.mp4/out.mp4", ("clip.mp4",)),
        ("a-folder", ("a-folder", "folder")),
        ("a-folder/", ("a-folder", "folder")),
        ("a-folder.mp4", ("a-folder.mp4", "folder")),
        ("clip.mp4", ("clip.mp4",)),
        ("./../" + "{here}/clip.mp4", ("clip.mp4",)),
        ("link.mp4", ("link.mp4",)),
        ("hard.mp4", ("hard.mp4",)),
        ("fifo.mp4", ("fifo.mp4",)),
        ("/dev/null/out.mp4", ("/dev/null",)),
        ("/proc/out.mp4", ("/proc/out.mp4",)),
        ("x" * 252 + ".mp4", ("name",)),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_destination_that_cannot_be(
    name: str, words: tuple[str, ...], clip: Path, tmp_path: Path, restore: Restore
) -> None:
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-folder.mp4").mkdir()
    os.symlink(clip, tmp_path / "link.mp4")
    os.link(clip, tmp_path / "hard.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    before, content = left(tmp_path), clip.read_bytes()

    # also with leave to replace: none of these may be
    outcome = restore(clip, os.path.join(tmp_path, name.format(here=tmp_path.name)), "--overwrite")

    assert_one_sentence(outcome, *words)
    assert left(tmp_path) == before
    assert clip.read_bytes() == content
    assert stat.S_ISFIFO((tmp_path / "fifo.mp4").stat().st_mode)
    assert (tmp_path / "link.mp4").is_symlink()


def test_an_existing_output_stays(clip: Path, tmp_path: Path, restore: Restore) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    assert_one_sentence(restore(clip, output), "out.mp4", "--overwrite")
    assert output.read_bytes() == b"precious"


def test_an_existing_output_is_replaced_when_asked(
    clip: Path, tmp_path: Path, restore: Restore
) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    assert restore(clip, output, "--overwrite").status == 0
    assert_plays(output, 10)


def test_an_existing_output_outlives_a_failed_run(tmp_path: Path, restore: Restore) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(TEXT)
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    assert_one_sentence(restore(source, output, "--overwrite"), "clip.mp4")
    assert output.read_bytes() == b"precious"


def test_a_link_to_another_place_stays_a_link(clip: Path, tmp_path: Path, restore: Restore) -> None:
    target = tmp_path / "archive" / "dry.mp4"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link = tmp_path / "out.mp4"
    link.symlink_to(target)
    assert restore(clip, link, "--overwrite").status == 0
    assert link.is_symlink()
    assert_plays(target, 10)


def test_a_file_with_the_partial_name_stays(clip: Path, tmp_path: Path, restore: Restore) -> None:
    names = ("out.partial.mp4", "out.mp4.partial", ".out.partial.mp4", "out.part.mp4")
    for name in names:
        (tmp_path / name).write_bytes(b"precious")
    assert restore(clip, tmp_path / "out.mp4").status == 0
    assert_plays(tmp_path / "out.mp4", 10)
    for name in names:
        assert (tmp_path / name).read_bytes() == b"precious"
    assert left(tmp_path) == sorted([clip.name, "out.mp4", *names])


def test_a_partial_file_can_be_the_input(clip: Path, tmp_path: Path, restore: Restore) -> None:
    partial = clip.rename(tmp_path / "out.partial.mp4")
    before = partial.read_bytes()
    assert restore(partial, tmp_path / "out.mp4").status == 0
    assert_plays(tmp_path / "out.mp4", 10)
    assert partial.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        "two words.mp4",
        "-clip.mp4",
        "--help.mp4",
        "%03d.mp4",
        "100%.mp4",
        "http:clip.mp4",
        "file:clip.mp4",
        "pipe:1.mp4",
        "concat:a|b.mp4",
        "a:b.mp4",
        "día lluvioso ☔ 雨.mp4",
        'it\'s "quoted" $(x) `y`.mp4',
        "new\nline.mp4",
        "[a]*?{b}.mp4",
        ".hidden.mp4",
        "UPPER.MP4",
        "many.dots.in.it.mp4",
        "\udcff\udcfe not utf-8.mp4",
        "x" * 240 + ".mp4",
    ],
    ids=lambda name: ascii(name)[:30],
)
def test_any_name(
    name: str, tmp_path: Path, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    plain = Clip(audio=(Audio(codec="ac3"),)).make(tmp_path / "in")
    plain.rename(tmp_path / "in" / name)
    # from inside both folders: names that are all there is, without a leading path
    monkeypatch.chdir(tmp_path / "in")
    assert restore(name, os.path.join("..", "out", "plain.mp4")).status == 0
    monkeypatch.chdir(tmp_path / "out")
    outcome = restore("plain.mp4", name)
    assert (outcome.status, outcome.message) == (0, "")
    assert left(tmp_path / "out") == sorted(["plain.mp4", name])
    shutil.copy(name, tmp_path / "copy.mp4")
    assert_plays(tmp_path / "copy.mp4", 10)


@pytest.mark.parametrize("clip", [MKV, WEBM, AVI], ids=lambda clip: clip.name)
def test_a_file_that_is_shorter_than_it_says_is_told(
    clip: Clip, tmp_path: Path, restore: Restore
) -> None:
    source = clip.make(tmp_path)
    whole = source.read_bytes()
    for share, told in ((1, 0), (0.62, 1)):
        source.write_bytes(whole[: int(len(whole) * share)])
        outcome = restore(source, tmp_path / f"out{told}.mkv")
        assert outcome.report is not None
        assert sum("says that it is longer" in line for line in outcome.report["lost"]) == told
    if clip is AVI:  # whose size counts the eight bytes before it
        source.write_bytes(whole[:4] + struct.pack("<I", len(whole)) + whole[8:])
        assert not is_cut_off(str(source))
        source.write_bytes(whole[: int(len(whole) * 0.62)])
    # what is left out is not missed
    outcome = restore(source, tmp_path / "part.mkv", "--duration", "0.2")
    assert outcome.report is not None
    assert not any("longer" in line for line in outcome.report["lost"])


class Stalling(http.server.BaseHTTPRequestHandler):
    """A server that sends `content` and says that there is more to come."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content) + 1_000_000))
        self.end_headers()
        self.wfile.write(self.content)
        self.wfile.flush()
        time.sleep(4)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(("share", "frames"), [(1, 20), (0.01, 0)], ids=["late", "at once"])
def test_an_address_that_falls_silent_ends_the_run(
    share: float,
    frames: int,
    tmp_path: Path,
    restore: Restore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = MKV.make(tmp_path).read_bytes()
    monkeypatch.setattr(Stalling, "content", content[: int(len(content) * share)])
    for module in ("media.source", "media.reader"):
        monkeypatch.setattr(f"mhnet_video.{module}.SILENCE_SECONDS", 1)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Stalling) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/clip.mkv"
        begin = time.monotonic()
        outcome = restore(address, tmp_path / "out.mkv")
        assert time.monotonic() - begin < 3.5
        # a search has the same limit, at each of several places
        part = restore(address, tmp_path / "part.mkv", "--start", "500")
        assert_one_sentence(part, address)
        server.shutdown()
    if not frames:
        assert_one_sentence(outcome, address)
        return
    assert (outcome.status, outcome.message) == (0, "")
    assert_plays(outcome.output, frames)
    assert outcome.report is not None
    assert any(line.startswith("the end: nothing came") for line in outcome.report["lost"])


def with_empty_samples(*numbers: int) -> Callable[[bytes], bytes]:
    """Samples of an MP4's or a MOV's first track that hold nothing."""

    def change(content: bytes) -> bytes:
        first = content.index(b"stsz") + 16
        emptied = bytearray(content)
        for number in numbers:
            emptied[first + 4 * number : first + 4 * number + 4] = bytes(4)
        return bytes(emptied)

    return change


def test_an_empty_packet_is_not_the_end(tmp_path: Path, restore: Restore) -> None:
    video = Video(codec="mjpeg", pixel_format="yuvj420p", times=every(40, 20))
    emptied = with_empty_samples(5, 6, 11)
    source = Clip(name="clip.mov", video=(video,), finish=emptied).make(tmp_path)
    outcome = restore(source, tmp_path / "out.mp4")
    assert outcome.report is not None and outcome.report["damaged"] == 3
    shown = [round(25 * float(time)) for time in probe.probe(outcome.output).video.times]
    assert shown == [number for number in range(20) if number not in (5, 6, 11)]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("numbers", [(5, 6), (8, 9)], ids=["inside", "at the end"])
def test_each_empty_packet_is_told_once(
    numbers: tuple[int, ...], codec: str, tmp_path: Path, restore: Restore
) -> None:
    """FFmpeg hands on those of some codecs, and passes over those of others."""
    emptied = with_empty_samples(*numbers)
    # without sound, all pictures are in one chunk, and none has a place of its own
    clip = Clip(video=(Video(codec=codec, gop=1),), audio=(Audio(),), finish=emptied)
    source = clip.make(tmp_path)
    outcome = restore(source, tmp_path / "out.mp4")
    assert outcome.report is not None
    assert (outcome.report["frames"], outcome.report["damaged"]) == (8, 2)


@pytest.mark.skipif(not probe.HAS_FFMPEG, reason="no ffmpeg, which has an encoder for Theora")
def test_an_empty_packet_of_theora_repeats_its_picture(tmp_path: Path, restore: Restore) -> None:
    """It is shown for longer, which is no damage."""
    source = tmp_path / "clip.ogv"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x48:r=5:d=2"]
    processes.run([*command, "-r", "25", "-c:v", "libtheora", str(source)])
    with av.open(str(source)) as container:
        sizes = [packet.size for packet in container.demux() if packet.pts is not None]
    assert len(sizes) == 50 and sizes.count(0) > 5
    outcome = restore(source, tmp_path / "out.mkv")
    assert outcome.report is not None and outcome.report["damaged"] == 0
    shown = [round(25 * float(time)) for time in probe.probe(outcome.output).video.times]
    assert shown == [number for number, size in enumerate(sizes) if size]


def test_a_decoder_that_falls_silent_is_told(
    tmp_path: Path, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: here it was told that the end has come."""
    on_cpu = Decoder._on_cpu
    sent = itertools.count()

    def ended_early(self: Decoder, packet: Any) -> Any:
        if next(sent) == 12:
            return on_cpu(self, None)
        return on_cpu(self, packet)

    monkeypatch.setattr(Decoder, "_on_cpu", ended_early)
    outcome = restore(Clip(video=(VIDEO,)).make(tmp_path), tmp_path / "out.mp4")
    assert outcome.report is not None
    assert outcome.report["frames"] == 12
    assert outcome.report["damaged"] == 8


@pytest.mark.parametrize(
    "clip",
    [
        Clip(
            video=(
                Video(times=every(40, 60), b_frames=3, options=(("x264-params", "open-gop=1"),)),
            )
        ),
        Clip(name="clip.webm", video=(replace(WEBM.video[0], options=()),)),
        Clip(
            name="clip.webm",
            video=(
                Video(
                    codec="libvpx",
                    times=every(40, 60),
                    options=(("auto-alt-ref", "1"), ("lag-in-frames", "12")),
                ),
            ),
        ),
        Clip(name="clip.avi", video=(Video(codec="mpeg4", times=every(40, 60), period=1),)),
        Clip(name="clip.h264", video=(Video(times=every(40, 60), b_frames=3),)),
        Clip(name="clip.ts", video=(Video(times=every(40, 60), b_frames=3),)),
        Clip(name="clip.ts", video=(Video(codec="libx265", times=every(40, 60), b_frames=3),)),
        Clip(name="clip.mkv", video=(Video(codec="libx265", times=uneven(60), b_frames=3),)),
        Clip(
            name="clip.flv", video=(Video(times=(0, 40, 80, 5000, 5040, 65000, 65040), b_frames=2),)
        ),
    ],
    ids=lambda clip: f"{clip.name} {clip.video[0].codec}",
)
def test_nothing_is_told_of_what_is_whole(clip: Clip, tmp_path: Path, restore: Restore) -> None:
    """Hidden pictures, ones that are held back, pauses: none of them is damage."""
    outcome = restore(clip.make(tmp_path), tmp_path / "out.mkv")
    assert outcome.report is not None
    assert outcome.report["frames"] == len(clip.video[0].times)
    assert outcome.report["damaged"] == 0


def as_frames(name: str, codec: str, audio: str | None = "aac", **values: Any) -> Clip:
    sound = () if audio is None else (Audio(codec=audio, seconds=2),)
    return Clip(name=name, video=(Video(codec=codec, gop=12, **values),), audio=sound)


FIFTY = {"times": every(40, 50)}
SLOW = {"times": tuple(range(50)), "time_base": Fraction(1, 25)}
JPEGS = {"pixel_format": "yuvj420p"}
WHOLE = [
    as_frames("clip.mkv", "libx264", b_frames=2, **FIFTY),
    as_frames("clip.mkv", "mjpeg", **FIFTY, **JPEGS),
    as_frames("clip.avi", "mjpeg", "ac3", **SLOW, **JPEGS),
    as_frames("clip.flv", "libx264", **FIFTY),
    as_frames("clip.ts", "libx264", **FIFTY),
    as_frames("clip.mpg", "mpeg2video", "ac3", **SLOW),
    as_frames("clip.ogv", "libvpx", "libopus", **FIFTY),
    replace(as_frames("clip.mp4", "libx264", **FIFTY), options=FRAGMENTS),
]


def test_what_fills_up_a_program_stream_is_no_damage(tmp_path: Path) -> None:
    """A Video CD's last sector."""
    path = as_frames("clip.mpg", "mpeg2video", "mp2", **SLOW).make(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(20))
    assert broken_places(str(path), "mpeg") == []


@pytest.mark.parametrize("clip", WHOLE, ids=lambda clip: f"{clip.name} {clip.video[0].codec}")
def test_frames_that_damage_took_are_told(clip: Clip, tmp_path: Path) -> None:
    """Bytes inserted, missing, and zeroed, most of which FFmpeg passes over without a word."""

    def frames_and_damage() -> tuple[int, int]:
        with VideoReader(path) as reader:
            return sum(isinstance(item, Frame) for item in reader), reader.damaged

    path = clip.make(tmp_path)
    whole = path.read_bytes()
    assert broken_places(str(path), av.open(str(path)).format.name) == []
    assert frames_and_damage() == (50, 0)
    noise = np.random.default_rng(4)
    fewer = 0
    for place in noise.integers(len(whole) // 4, len(whole) * 3 // 4, 6):
        for size in (3, 700):
            for between, after in ((noise.bytes(size), 0), (b"", size), (bytes(size), size)):
                path.write_bytes(whole[:place] + between + whole[place + after :])
                try:
                    frames, damaged = frames_and_damage()
                except ReadError:
                    continue
                assert frames == 50 or damaged, (place, size, len(between), after)
                fewer += frames < 50
    assert fewer > 1


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
def test_an_index_that_tells_of_more_is_told(codec: str, tmp_path: Path) -> None:
    """Chunks of an MP4's pictures that its index has lost."""
    values = JPEGS if codec == "mjpeg" else {}
    clip = as_frames("clip.mp4", codec, None, **FIFTY, **values)
    path = clip.make(tmp_path)
    content = path.read_bytes()
    # one chunk of all samples becomes one of twenty
    place = content.index(b"stsc") + 16
    path.write_bytes(content[:place] + struct.pack(">I", 20) + content[place + 4 :])
    with VideoReader(path) as reader:
        assert sum(isinstance(item, Frame) for item in reader) == 20
        assert reader.damaged == 30


def test_a_picture_that_ends_early_is_told(tmp_path: Path, restore: Restore) -> None:
    whole = picture("mjpeg")
    for length, damaged in ((len(whole), 0), (len(whole) * 6 // 10, 1)):
        source, output = tmp_path / f"{length}.jpg", tmp_path / f"out-{length}.jpg"
        source.write_bytes(whole[:length])
        outcome = restore(source, output)
        assert outcome.status == 0 and outcome.report is not None
        assert outcome.report["damaged"] == damaged
        assert_plays(output, 1, 1)
        # what a phone appends, a clip for one, is no matter
        source.write_bytes(whole[:length] + bytes(range(200)) * bool(not damaged))
        output.unlink()
        outcome = restore(source, output)
        assert outcome.report is not None and outcome.report["damaged"] == damaged
    (tmp_path / "frames").mkdir()
    shutil.copy(source, tmp_path / "frames")
    outcome = restore(tmp_path / "frames", tmp_path / "dry")
    assert outcome.report is not None
    assert f"{source.name}: a part of it cannot be read" in outcome.report["lost"]


def test_a_webp_that_ends_early_is_no_animation(tmp_path: Path, restore: Restore) -> None:
    whole = picture("libwebp")
    (tmp_path / "cut.webp").write_bytes(whole[: len(whole) // 2])
    outcome = restore(tmp_path / "cut.webp", tmp_path / "out.webp")
    assert_one_sentence(outcome, "cut.webp", "damaged")
    flags = b"VP8X" + struct.pack("<II", 10, 2) + bytes(6)
    body = b"WEBP" + flags + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    (tmp_path / "moving.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    outcome = restore(tmp_path / "moving.webp", tmp_path / "out.webp")
    assert_one_sentence(outcome, "moving.webp", "animated")


@pytest.mark.parametrize("name", ["%03d.png", "%d.jpg", "frame-*.png"])
def test_a_picture_is_no_pattern(
    name: str, tmp_path: Path, restore: Restore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind = {"jpg": "mjpeg"}.get(name[-3:], name[-3:])
    for index in range(3):
        for other in (f"{index:03d}.png", f"{index}.jpg", f"frame-{index}.png"):
            Path(other).write_bytes(picture(kind, 48, 48))
    before = left(tmp_path)
    assert_one_sentence(restore(name, "out.png"), name, "not exist")
    assert left(tmp_path) == before

    Path("source.png").write_bytes(picture("png"))
    assert restore("source.png", name).status == 0
    assert left(tmp_path) == sorted([*before, "source.png", name])
    assert restore(name, "out.png").status == 0
    assert_plays(tmp_path / "out.png", 1, 1)


ENCODERS = [
    (("--encoder", "no_such_encoder"), "out.mp4", ("no_such_encoder", "libx264")),
    (("--encoder", "aac"), "out.mp4", ("aac",)),
    (("--encoder", "libx264"), "out.webm", ("libx264", "webm")),
    (("--encoder", "h263"), "out.avi", ("h263",)),
    (("--encoder", "libx264", "--preset", "nonsense"), "out.mp4", ("nonsense",)),
    (("--encoder-option", "crf=nonsense"), "out.mp4", ("crf",)),
    (("--encoder-option", "nonsense=1"), "out.mp4", ("nonsense",)),
]


@pytest.mark.parametrize(
    ("options", "name", "words"), ENCODERS, ids=[" ".join(row[0]) for row in ENCODERS]
)
def test_an_encoder_that_cannot_be(
    options: tuple[str, ...],
    name: str,
    words: tuple[str, ...],
    clip: Path,
    tmp_path: Path,
    restore: Restore,
) -> None:
    outcome = restore(clip, tmp_path / name, *options)
    assert_one_sentence(outcome, *words)
    assert left(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("encoder", ["h264_nvenc", "hevc_nvenc", "h264_qsv", "h264_amf"])
def test_an_encoder_without_its_hardware(
    encoder: str, clip: Path, tmp_path: Path, restore: Restore
) -> None:
    if encoder not in av.codecs_available:
        pytest.skip(f"no {encoder} in this PyAV")
    outcome = restore(clip, tmp_path / "out.mp4", "--encoder", encoder)
    if outcome.status == 0:
        assert_plays(tmp_path / "out.mp4", 10)
        return
    assert_one_sentence(outcome, encoder, "libx264")
    assert left(tmp_path) == ["clip.mp4"]


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """What makes every file fail to grow beyond some bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("output", ["out.mp4", "out.mkv", "out.ts", "out.avi"])
@pytest.mark.parametrize("size", [0, 3000, 30000])
def test_a_full_disk(
    size: int,
    output: str,
    tmp_path: Path,
    restore: Restore,
    small_disk: Callable[[int], None],
) -> None:
    times = every(40, 100)
    source = Clip(video=(Video(times=times),), audio=(Audio(codec="ac3", seconds=4),)).make(
        tmp_path
    )
    small_disk(size)
    outcome = restore(source, tmp_path / output)
    small_disk(resource.RLIM_INFINITY)
    assert_one_sentence(outcome, output)
    assert not (tmp_path / output).exists()
    others = [name for name in left(tmp_path) if name != source.name]
    assert len(others) <= 1
    for name in others:
        # what stays is worth it, and the message says where it is
        assert name in outcome.message
        assert len(probe.probe(tmp_path / name).video.times) > 0
    if size >= 30000:
        assert len(others) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(clip: Path, tmp_path: Path, restore: Restore) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    assert_one_sentence(restore(clip, folder / "out.mp4"), "out.mp4", "permission")


def program(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """The program as a person starts it."""
    command = [sys.executable, "-W", "error", "-m", "mhnet_video", *map(str, arguments)]
    return processes.start(command, **{"stderr": subprocess.PIPE, **options})


@pytest.mark.parametrize(
    "clip", [MP4, MKV, TS, PARTS, WEBM], ids=["mp4", "mkv", "ts", "fragments", "webm"]
)
def test_standard_input(clip: Clip, tmp_path: Path) -> None:
    source = clip.make(tmp_path)
    with source.open("rb") as stream:
        process = program(
            *("--strength", "0", "--json", "-", tmp_path / "out.mkv"),
            stdin=stream,
            stdout=subprocess.PIPE,
        )
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["frames"] == 20
    assert_plays(tmp_path / "out.mkv", 20, 20)


def test_standard_input_that_must_be_a_file(tmp_path: Path) -> None:
    """An MP4 with its index at the end, larger than what FFmpeg can go back in."""
    video = Video(times=every(40, 60), width=320, height=240, options=(("crf", "1"),))
    content = Clip(video=(video,)).make(tmp_path).read_bytes()
    assert len(content) > 1 << 20
    process = program("-", tmp_path / "out.mp4", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _, err = process.communicate(content, timeout=60)
    outcome = Outcome(process.returncode, err.decode(), None, tmp_path / "out.mp4")
    assert_one_sentence(outcome, "standard input", "index")
    assert left(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("content", [b"", TEXT], ids=["nothing", "text"])
def test_standard_input_that_is_no_video(content: bytes, tmp_path: Path) -> None:
    process = program("-", tmp_path / "out.mp4", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _, err = process.communicate(content, timeout=60)
    outcome = Outcome(process.returncode, err.decode(), None, tmp_path / "out.mp4")
    assert_one_sentence(outcome, "standard input")
    assert left(tmp_path) == []


def test_standard_output(clip: Path, tmp_path: Path) -> None:
    process = program("--strength", "0", "--json", clip, "-", stdout=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(err)["frames"] == 10
    with av.open(io.BytesIO(out)) as container:
        assert container.format.name.startswith("matroska")
    (tmp_path / "copy.mkv").write_bytes(out)
    assert_plays(tmp_path / "copy.mkv", 10, 10)


def test_standard_output_that_is_closed(tmp_path: Path) -> None:
    clip = Clip(video=(Video(times=every(40, 200), width=160, height=120),)).make(tmp_path)
    process = program("--strength", "0", clip, "-", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100)
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert len(err.splitlines()) <= 1
    assert "Traceback" not in err
    assert left(tmp_path) == ["clip.mp4"]


def test_a_huge_picture_does_not_take_all_memory(tmp_path: Path) -> None:
    """As wide as H.264 can be: an output, or a sentence, within 12 GB of addresses."""
    clip = Clip(
        name="clip.mkv",
        video=(
            Video(
                codec="mjpeg",
                pixel_format="yuvj420p",
                width=16384,
                height=256,
                times=(0,),
            ),
        ),
    ).make(tmp_path)
    process = program(
        *("--preset", "ultrafast", "--json", clip, tmp_path / "out.mp4"),
        stdout=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)),
    )
    out, err = process.communicate(timeout=200)
    if process.returncode == 0:
        assert json.loads(out)["frames"] == 1
        assert_plays(tmp_path / "out.mp4", 1)
    else:
        assert_one_sentence(Outcome(process.returncode, err.decode(), None, tmp_path), "16384")
        assert left(tmp_path) == ["clip.mkv"]
