"""Damaged and hostile input: each row ends in a playable output with a count, or in one sentence.

Never in a traceback, never in half a file under the output's name, never in leftovers beside it.
"""

import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import probe
import pytest
from clips import Audio, Clip, Video, boxes, every, join, picture
from damage import (
    AVI,
    MKV,
    MP4,
    PARTS,
    TEXT,
    TS,
    WEBM,
    Make,
    Outcome,
    Restore,
    assert_one_sentence,
    assert_plays,
    cut,
    file,
    h264,
    left,
    missing,
    ts,
    zeroed,
)


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
