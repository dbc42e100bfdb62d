"""Damaged files by the thousand: `python tests/fuzz.py 3000 --keep findings`.

Each input is a small clip of which bytes were changed at random, the same for the same seed. The
command line restores it, with a restorer that changes nothing, in a process of its own, which must
end in time: in a file with the frames that FFmpeg decodes from the input, or in one sentence.
"""
# ruff: noqa: T201 - it is there to print

import argparse
import contextlib
import faulthandler
import json
import os
import re
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from clips import MUXERS, Audio, Clip, Subtitles, Video, every
from standin import StandIn

import mhnet_video.pipelines.restore  # so that not every process does it anew
import mhnet_video.restoration.restorer
from mhnet_video.cli.main import main as command_line

SECONDS = 10
"""How long a run may take."""
# what a decoder may need to read on across damage, one error after the other
_MAX_READ_ERRORS = 64
# characters of what a process said of its end
_MAX_TOLD = 4000

FRAMES = every(40, 24)
H264 = Video(times=FRAMES, b_frames=2)
HEVC = Video(
    codec="libx265",
    times=FRAMES,
    options=(("x265-params", "log-level=none:pools=none:frame-threads=1"), ("preset", "fast")),
)
# codecs and containers that know one frame rate
STEADY: dict[str, Any] = {"times": tuple(range(len(FRAMES))), "time_base": Fraction(1, 25)}
MPEG4 = Video(codec="mpeg4", **STEADY)
MPEG2 = Video(codec="mpeg2video", b_frames=2, **STEADY)
MJPEG = Video(codec="mjpeg", pixel_format="yuvj420p", **STEADY)
FRAGMENTS = (("movflags", "frag_keyframe+empty_moov"),)
CLIPS = (
    Clip(
        name="h264.mp4",
        video=(H264,),
        audio=(Audio(),),
        subtitles=(Subtitles(codec="mov_text"),),
    ),
    Clip(name="fragments.mp4", video=(H264,), audio=(Audio(),), options=FRAGMENTS),
    Clip(name="hevc.mov", video=(HEVC,), audio=(Audio(codec="pcm_s16le"),)),
    Clip(name="mjpeg.mov", video=(MJPEG,)),
    Clip(
        name="h264.mkv",
        video=(H264,),
        audio=(Audio(codec="ac3"),),
        subtitles=(Subtitles(),),
        chapters=((0.0, 0.4, "One"), (0.4, 0.9, "Two")),
    ),
    Clip(name="hevc.mkv", video=(HEVC,), audio=(Audio(codec="flac"),)),
    Clip(name="mpeg4.mkv", video=(MPEG4,), audio=(Audio(codec="pcm_s16le"),)),
    Clip(name="h264.ts", video=(H264,), audio=(Audio(),)),
    Clip(name="hevc.ts", video=(HEVC,), audio=(Audio(codec="ac3"),)),
    Clip(name="mpeg2.ts", video=(MPEG2,)),
    Clip(name="mpeg4.avi", video=(MPEG4,), audio=(Audio(codec="libmp3lame"),)),
    Clip(name="mjpeg.avi", video=(MJPEG,), audio=(Audio(codec="pcm_mulaw", rate=8000),)),
    Clip(name="h264.flv", video=(H264,), audio=(Audio(rate=44100),)),
    Clip(name="sorenson.flv", video=(Video(codec="flv", times=FRAMES),)),
    Clip(name="mpeg2.vob", video=(MPEG2,), audio=(Audio(codec="mp2"),)),
)
GOOD = {"file", "sentence"}
"""How a run should end."""
OUTPUTS = ("mp4", "mov", "mkv", "ts", "avi", "flv")


# what is in a file: its boxes, elements, chunks, tags and packets


class Part(NamedTuple):
    """A piece of a file that begins with how long it is."""

    name: bytes
    start: int
    size_at: int
    """Where the size is."""
    width: int
    """Bytes of the size."""
    order: str
    """Of them: `big`, `little`, or `ebml`, whose first bits tell how many bytes there are."""
    begin: int
    end: int
    """The content, which for media is its header only."""


_BOXES = b"moov trak mdia minf stbl edts dinf udta mvex moof traf".split()
_EBML_MASTERS = {
    *(0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0xA0),
    *(0x1C53BB6B, 0xBB, 0xB7, 0x114D9B74, 0x4DBB, 0x1043A770, 0x45B9, 0xB6, 0x1A45DFA3),
}
_EBML_BLOCKS = b"\xa3", b"\xa1"


def _boxes(data: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 8 <= end:
        size = max(8, int.from_bytes(data[start : start + 4], "big"))
        name, last = data[start + 4 : start + 8], min(start + size, end)
        yield Part(name, start, start, 4, "big", start + 8, last)
        if name in _BOXES:
            yield from _boxes(data, start + 8, last)
        start = last


def _elements(data: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 2 <= end and data[start]:
        size_at = start + 9 - data[start].bit_length()
        width = 9 - max(1, data[size_at].bit_length()) if size_at < end else 1
        size = int.from_bytes(data[size_at : size_at + width], "big") & ((1 << 7 * width) - 1)
        name, begin = data[start:size_at], size_at + width
        last = min(begin + size, end)
        yield Part(name, start, size_at, width, "ebml", begin, last)
        if int.from_bytes(name, "big") in _EBML_MASTERS:
            yield from _elements(data, begin, last)
        start = last


def _chunks(data: bytes, start: int, end: int) -> Iterator[Part]:
    while start + 8 <= end:
        name = data[start : start + 4]
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        last = min(start + 8 + size, end)
        yield Part(name, start, start + 4, 4, "little", start + 8, last)
        if name in (b"RIFF", b"LIST"):
            yield from _chunks(data, start + 12, last)
        start = last + size % 2


def _tags(data: bytes, start: int, end: int) -> Iterator[Part]:
    start += 13
    while start + 15 <= end:
        size = int.from_bytes(data[start + 1 : start + 4], "big")
        yield Part(
            data[start : start + 1], start, start + 1, 3, "big", start + 4, start + 11 + size
        )
        start += 15 + size


def _ts_packets(data: bytes, start: int, end: int) -> Iterator[Part]:
    for at in range(start, end - 187, 188):
        yield Part(data[at + 1 : at + 3], at, at + 4, 1, "big", at, at + 40)


def _pes_packets(data: bytes, start: int, end: int) -> Iterator[Part]:
    for found in re.finditer(rb"\x00\x00\x01[\xba-\xef]", data):
        at = found.start()
        yield Part(data[at + 3 : at + 4], at, at + 4, 2, "big", at, at + 24)


_PARTS = {
    "mp4": _boxes,
    "mov": _boxes,
    "mkv": _elements,
    "avi": _chunks,
    "flv": _tags,
    "ts": _ts_packets,
    "vob": _pes_packets,
}


# what is done to it


def _flip(data: bytearray, kind: str, random: np.random.Generator) -> str:
    count = int(random.integers(1, 40))
    for at in random.integers(0, len(data), count):
        data[at] ^= int(random.integers(1, 256))
    return f"{count} bytes flipped"


def _run(data: bytearray, random: np.random.Generator) -> slice:
    length = int(2 ** random.uniform(0, 11))
    start = int(random.integers(0, len(data)))
    return slice(start, min(start + length, len(data)))


def _zero(data: bytearray, kind: str, random: np.random.Generator) -> str:
    run = _run(data, random)
    data[run] = bytes(run.stop - run.start)
    return f"{run.start} to {run.stop} zeroed"


def _drop(data: bytearray, kind: str, random: np.random.Generator) -> str:
    run = _run(data, random)
    del data[run]
    return f"{run.start} to {run.stop} dropped"


def _insert(data: bytearray, kind: str, random: np.random.Generator) -> str:
    run = _run(data, random)
    other = bytes(data[_run(data, random)]) if random.random() < 0.5 else b""
    data[run.start : run.start] = other or random.bytes(run.stop - run.start)
    return f"{len(other) or run.stop - run.start} bytes inserted at {run.start}"


def _cut(data: bytearray, kind: str, random: np.random.Generator) -> str:
    at = int(random.integers(1, len(data)))
    del data[at:]
    return f"cut at {at}"


def _size(data: bytearray, kind: str, random: np.random.Generator) -> str:
    part = _choose(list(_PARTS[kind](bytes(data), 0, len(data))), random)
    if part is None:
        return _flip(data, kind, random)
    return f"size of {part.name!r} at {part.start}: " + _put(
        data, part.size_at, part.width, part.order, random
    )


def _value(data: bytearray, kind: str, random: np.random.Generator) -> str:
    parts = [p for p in _PARTS[kind](bytes(data), 0, len(data)) if p.name != b"mdat"]
    part = _choose([p for p in parts if p.end > p.begin], random)
    if part is None:
        return _flip(data, kind, random)
    width = int(random.choice([1, 2, 4, 4, 8])) if part.end - part.begin > 8 else 1
    if part.order == "ebml" and part.end - part.begin <= 8:
        width = part.end - part.begin
    at = part.begin + width * int(random.integers(0, (part.end - part.begin) // width))
    order = "little" if part.order == "little" else "big"
    return f"value in {part.name!r} at {at}: " + _put(data, at, width, order, random)


def _empty(data: bytearray, kind: str, random: np.random.Generator) -> str:
    """A packet of no bytes, with something else in the room that it had."""
    parts = list(_PARTS[kind](bytes(data), 0, len(data)))
    if kind in ("mp4", "mov"):
        part = _choose([p for p in parts if p.name == b"stsz" and p.end - p.begin > 12], random)
        if part is not None:
            at = part.begin + 4 * int(random.integers(3, (part.end - part.begin) // 4))
            data[at : at + 4] = bytes(4)
            return f"packet of size 0 by {at}"
    elif kind == "mkv":
        part = _choose(
            [p for p in parts if p.name in _EBML_BLOCKS and p.end - p.start > 15], random
        )
        if part is not None:
            head = bytes(data[part.begin : part.begin + 4])
            rest = part.end - part.start - 6
            void = b"\xec\1" + (rest - 9).to_bytes(7, "big") + bytes(rest - 9)
            data[part.start : part.end] = part.name + b"\x84" + head + void
            return f"empty block at {part.start}"
    elif kind == "avi":
        part = _choose([p for p in parts if p.name == b"00dc" and p.end - p.begin >= 8], random)
        if part is not None:
            rest = part.end - part.begin - 8
            junk = b"JUNK" + rest.to_bytes(4, "little") + bytes(rest)
            data[part.start : part.end] = b"00dc" + bytes(4) + junk
            return f"empty chunk at {part.start}"
    elif kind == "flv":
        part = _choose([p for p in parts if p.name == b"\x09" and p.end - p.begin > 40], random)
        if part is not None:
            body = part.start + 11
            head = 5 if data[body] & 15 == 7 else 1
            data[part.size_at : part.size_at + 3] = head.to_bytes(3, "big")
            rest = part.end - body - head - 15
            filler = b"\x12" + rest.to_bytes(3, "big") + bytes(7 + rest)
            data[body + head : part.end] = (11 + head).to_bytes(4, "big") + filler
            return f"empty tag at {part.start}"
    return _zero(data, kind, random)


def _choose(parts: list[Part], random: np.random.Generator) -> Part | None:
    """One of the parts, each kind as likely as the others, however many there are of it."""
    names = sorted({part.name for part in parts})
    if not names:
        return None
    name = names[random.integers(len(names))]
    same = [part for part in parts if part.name == name]
    return same[random.integers(len(same))]


def _put(data: bytearray, at: int, width: int, order: str, random: np.random.Generator) -> str:
    """Set a number to one that nobody expects."""
    mask = (1 << 7 * width if order == "ebml" else 1 << 8 * width) - 1
    byte_order: Any = "little" if order == "little" else "big"
    whole = int.from_bytes(data[at : at + width], byte_order)
    before = whole & mask
    odd = [0, 0, 1, mask, mask, mask >> 1, before + 1, before - 1, 2 * before, before // 2]
    after = odd[random.integers(len(odd))]
    if random.random() < 0.2:
        after = int.from_bytes(random.bytes(width), "big")
    after &= mask
    data[at : at + width] = (whole - before + after).to_bytes(width, byte_order)
    return f"{before} became {after}"


Mutation = Callable[[bytearray, str, np.random.Generator], str]
MUTATIONS: tuple[Mutation, ...] = (_flip, _zero, _drop, _insert, _cut, _size, _value, _empty)


class Case(NamedTuple):
    """One damaged file."""

    seed: int
    source: str
    content: bytes
    output: str
    what: str
    """What was done to it, and what it is to become."""


def make_clips() -> dict[str, bytes]:
    """The clips that are damaged, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        return {clip.name: clip.make(Path(folder)).read_bytes() for clip in CLIPS}


def make_case(clips: dict[str, bytes], seed: int) -> Case:
    """The damaged file of a seed."""
    random = np.random.default_rng(seed)
    name = list(clips)[seed % len(clips)]
    kind = name.rpartition(".")[2]
    data = bytearray(clips[name])
    done = []
    for _ in range(1 if random.random() < 0.7 else 2):
        done.append(MUTATIONS[random.integers(len(MUTATIONS))](data, kind, random))
    output = kind if kind in OUTPUTS and random.random() < 0.5 else str(random.choice(OUTPUTS))
    return Case(seed, name, bytes(data), f"out.{output}", f"{', '.join(done)}; to .{output}")


# how it ends


def restore(source: str, output: str) -> int:
    """Restore a file by the command line, its network left out; its exit status."""
    mhnet_video.restoration.restorer.Restorer = lambda *_, **__: StandIn()  # type: ignore[assignment,misc]
    os.environ["MHNET_DEBUG"] = "1"  # a fault shows where it is
    return command_line(["--json", "--preset", "ultrafast", source, output])


def count_frames(path: Path, container_format: str | None = None) -> int:
    """Frames that FFmpeg's own decoder makes of the first video, damage or not."""
    count = failures = 0
    with av.open(str(path), format=container_format, metadata_errors="replace") as container:
        stream: Any = next(
            item
            for item in container.streams.video
            if item.codec_context and not item.disposition & av.stream.Disposition.attached_pic
        )
        stream.codec_context.thread_count = 1
        while failures < _MAX_READ_ERRORS:
            try:
                for packet in container.demux(stream):
                    failures = 0
                    # an empty packet would be the end to a decoder; FFmpeg's own loop leaves it out
                    if packet.size:
                        with contextlib.suppress(av.error.FFmpegError):
                            count += len(stream.decode(packet))
                break
            except av.error.FFmpegError:
                failures += 1
        with contextlib.suppress(av.error.FFmpegError):
            count += len(stream.decode(None))
    return count


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run ended, and what it left."""

    status: int
    """The exit status; negative for the number of the signal that ended it."""
    said: str
    """What was written to the terminal as messages."""
    report: dict[str, Any]
    expected: int | None
    """Frames that FFmpeg's own decoder makes of the input; None where it hangs or crashes."""
    played: int | None
    """Likewise of the output; None where there is none, too."""
    left: dict[str, int | None]
    """Other files that were left, and the frames in each."""
    is_untouched: bool
    """Whether the input is as it was."""

    def verdict(self) -> tuple[str, str]:
        """What it was in a word or two, such as those of `GOOD`, and more about it."""
        said = self.said.strip()
        if self.status == -signal.SIGALRM or "Timeout (" in said:
            return "hang", said
        if self.status < 0:
            return "crash", f"{signal.Signals(-self.status).name}: {said}"
        if re.search(r"^(Traceback|Exception ignored|Exception in thread)", said, re.MULTILINE):
            return "traceback", said
        if not self.is_untouched:
            return "source", "the input was changed"
        if self.status == 0:
            return self._of_a_file()
        if self.left and not all(self.left.values()):
            return "left", f"a partial file without a frame beside: {said}"
        if not re.fullmatch(r"mhnet-video: .{20,480}\.", said) or re.search(
            r"Error\b|Errno|av\w+\(|NoneType|fault in this", said
        ):
            return "no sentence", said
        return "sentence", said

    def _of_a_file(self) -> tuple[str, str]:
        frames, damaged = self.report.get("frames", 0), self.report.get("damaged", 0)
        losses = "; ".join(self.report.get("lost", ()))
        shown = f"{frames} frames of {self.expected}, {damaged} damaged, said: {losses or '-'}"
        if self.left:
            return "left", f"{', '.join(self.left)} beside the output"
        if self.played != frames:
            return "plays not", f"{self.played} frames in the output; {shown}"
        if self.expected is None:
            return "uncounted", shown
        # beside a damaged packet, one is a matter of taste
        if frames < self.expected - (damaged > 0):
            return "fewer frames", shown
        return "file", shown


def run_case(case: Case, folder: Path) -> Ending:
    """Restore a damaged file in a process of its own, within a folder that is empty."""
    source, output = folder / case.source, folder / case.output
    source.write_bytes(case.content)
    status, told, said = _apart(lambda: restore(str(source), str(output)), folder)
    names = sorted(set(os.listdir(folder)) - {source.name, "told", "said"})
    frames = _frames_of(source, [folder / name for name in names], folder)
    with contextlib.suppress(ValueError):
        return Ending(
            status=status,
            said=said,
            report=json.loads(told) if status == 0 else {},
            expected=frames.pop(source.name),
            played=frames.pop(output.name, None),
            left=frames,
            is_untouched=source.read_bytes() == case.content,
        )
    raise AssertionError(f"no report for seed {case.seed}: {told}")


def _frames_of(source: Path, outputs: list[Path], folder: Path) -> dict[str, int | None]:
    # a clip of a frame or two is too short to be known by its content
    paths = [(source, None), *((path, MUXERS.get(path.suffix[1:])) for path in outputs)]

    def count() -> int:
        for path, container_format in paths:
            try:
                print(count_frames(path, container_format), flush=True)
            except (av.error.FFmpegError, OSError, ValueError, StopIteration):
                print(0, flush=True)
        return 0

    found: list[int | None] = [int(line) for line in _apart(count, folder)[1].split()]
    found += [None] * (len(paths) - len(found))
    return {path.name: number for (path, _), number in zip(paths, found, strict=True)}


def _apart(work: Callable[[], int], folder: Path) -> tuple[int, str, str]:
    """Do something in a process of its own: how it ended, what it printed, what it complained."""
    told, said = folder / "told", folder / "said"
    child = os.fork()
    if child == 0:
        _be_a_child(work, told, said)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # what it has started itself ends with it
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return status, told.read_text(errors="replace"), said.read_text(errors="replace")


def _be_a_child(work: Callable[[], int], told: Path, said: Path) -> None:
    status = 70
    try:
        os.setsid()
        for path, number in ((told, 1), (said, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        faulthandler.enable(file=2)
        # tells where it hangs; the system's own alarm is for what hangs all the same
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS + 2)
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def main(words: list[str] | None = None) -> int:
    """The command line of this file; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", type=int, help="how many inputs")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that end badly")
    options = parser.parse_args(words)
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    outcomes: Counter[str] = Counter()
    clips = make_clips()
    for seed in range(options.first, options.first + options.count):
        case = make_case(clips, seed)
        with tempfile.TemporaryDirectory() as folder:
            ending = run_case(case, Path(folder))
        kind, more = ending.verdict()
        outcomes[kind] += 1
        if kind not in GOOD:
            if options.keep is not None:
                name = f"{seed}-{kind.replace(' ', '-')}-{case.source}"
                (options.keep / name).write_bytes(case.content)
        elif kind == "file" or not ending.expected:
            continue
        else:
            # not wrong, and worth a look
            kind = f"{kind}, {ending.expected} frames"
        told = more.partition("Extension modules:")[0].strip()[:_MAX_TOLD]
        print(f"{kind}: seed {seed}, {case.source}: {case.what}: {told}", flush=True)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(outcomes.items()))
    print(f"{options.count} inputs: {counts}")
    return 0 if outcomes.keys() <= GOOD else 1


if __name__ == "__main__":
    sys.exit(main())
