"""What damage took is counted and told, and nothing is told of what is whole."""

import http.server
import itertools
import mmap
import shutil
import socketserver
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import probe
import processes
import pytest
from clips import Audio, Clip, Video, every, picture, uneven
from damage import (
    AVI,
    FRAGMENTS,
    MKV,
    VIDEO,
    WEBM,
    Restore,
    assert_one_sentence,
    assert_plays,
)

from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.media.formats.integrity import broken_places
from mhnet_video.media.reading.decoder import Decoder
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import is_cut_off


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
    is_over = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content) + 1_000_000))
        self.end_headers()
        self.wfile.write(self.content)
        self.wfile.flush()
        self.is_over.wait()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "frames", "seconds"), [(1, 20, 1.0), (0.01, 0, 0.2)], ids=["late", "at once"]
)
def test_an_address_that_falls_silent_ends_the_run(
    share: float,
    frames: int,
    seconds: float,
    tmp_path: Path,
    restore: Restore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = MKV.make(tmp_path).read_bytes()
    monkeypatch.setattr(Stalling, "content", content[: int(len(content) * share)])
    monkeypatch.setattr(Stalling, "is_over", threading.Event())
    for module in ("media.reading.source", "media.reading.reader"):
        monkeypatch.setattr(f"mhnet_video.{module}.SILENCE_SECONDS", seconds)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Stalling) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/clip.mkv"
        # each ends while the server still has its peace
        outcome = restore(address, tmp_path / "out.mkv")
        # a search has the same limit, at each of several places
        part = restore(address, tmp_path / "part.mkv", "--start", "500")
        assert_one_sentence(part, address)
        Stalling.is_over.set()
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


@pytest.mark.parametrize("error", [OSError(19, "No such device"), ValueError("empty file")])
def test_a_file_that_cannot_be_mapped_is_read_without(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every file system can, and a file can be emptied meanwhile."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(mmap, "mmap", refuse)
    with VideoReader(MKV.make(tmp_path)) as reader:
        assert sum(isinstance(item, Frame) for item in reader)


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
