"""What an independent tool says of a file: ffprobe and ffmpeg where they are installed.

Without them PyAV answers the same questions, so that the tables run on any machine;
`test_probe.py` checks that the two agree.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

HAS_FFMPEG = bool(shutil.which("ffprobe") and shutil.which("ffmpeg"))


@dataclass(frozen=True)
class PacketInfo:
    """One packet: its times in seconds, and a hash of its bytes."""

    pts: Fraction | None
    duration: Fraction
    size: int
    md5: str


@dataclass(frozen=True)
class StreamInfo:
    """One stream; what does not apply to its kind is None."""

    index: int
    kind: str
    codec: str | None
    time_base: Fraction
    tags: Mapping[str, str]
    dispositions: frozenset[str]
    packets: tuple[PacketInfo, ...] = ()
    width: int | None = None
    height: int | None = None
    pixel_format: str | None = None
    color: tuple[str | None, ...] = ()
    """Range, matrix, transfer, primaries; None where the file does not say."""
    aspect: Fraction = Fraction(1)
    matrix: tuple[int, ...] | None = None
    times: tuple[Fraction | None, ...] = ()
    """When each decoded frame is shown, in seconds; None where the file leaves it open."""
    sample_rate: int | None = None


@dataclass(frozen=True)
class Probe:
    """A file's streams, tags and chapters."""

    path: Path
    tags: Mapping[str, str]
    chapters: tuple[tuple[Fraction, Fraction, str], ...]
    streams: tuple[StreamInfo, ...] = field(repr=False)

    def of(self, kind: str) -> list[StreamInfo]:
        """The streams of one kind; covers are of kind `cover`."""
        return [stream for stream in self.streams if stream.kind == kind]

    @property
    def video(self) -> StreamInfo:
        """The first video that is not a cover."""
        return self.of("video")[0]


def probe(path: str | Path) -> Probe:
    """Look at a file from the outside."""
    state = Path(path).stat()
    return _probe(Path(path), state.st_mtime_ns, state.st_size)


@cache
def _probe(path: Path, _changed: int, _size: int) -> Probe:
    return _probe_with_ffprobe(path) if HAS_FFMPEG else _probe_with_pyav(path)


def _run(*command: str) -> bytes:
    done = subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=120
    )
    if done.returncode:
        raise ValueError(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _url(path: Path) -> str:
    return f"file:{path}"


_UNKNOWN = {None, "unknown", "unspecified", "reserved", "N/A"}


def _probe_with_ffprobe(path: Path) -> Probe:
    command = ["ffprobe", "-v", "error", "-print_format", "json", "-show_data_hash", "md5"]
    command += ["-show_format", "-show_streams", "-show_chapters", "-show_packets", "-show_frames"]
    told = json.loads(_run(*command, _url(path)))
    both = told["packets_and_frames"]
    streams = []
    for item in told["streams"]:
        base = Fraction(item["time_base"])
        packets = tuple(
            PacketInfo(
                pts=None if "pts" not in packet else packet["pts"] * base,
                duration=packet.get("duration", 0) * base,
                size=int(packet["size"]),
                md5=packet["data_hash"].removeprefix("MD5:"),
            )
            for packet in both
            if packet["type"] == "packet" and packet["stream_index"] == item["index"]
        )
        dispositions = frozenset(name for name, on in item["disposition"].items() if on)
        kind = "cover" if "attached_pic" in dispositions else item["codec_type"]
        stream = StreamInfo(
            item["index"],
            kind,
            item.get("codec_name"),
            base,
            item.get("tags", {}),
            dispositions,
            packets,
            sample_rate=int(item["sample_rate"]) if "sample_rate" in item else None,
        )
        if item["codec_type"] == "video":
            colors = ("color_range", "color_space", "color_transfer", "color_primaries")
            matrix = None
            for side in item.get("side_data_list", []):
                if side["side_data_type"] == "Display Matrix":
                    rows = [row.partition(":")[2] for row in side["displaymatrix"].splitlines()]
                    matrix = tuple(int(number) for row in rows for number in row.split())
            aspect = item.get("sample_aspect_ratio", "1:1").replace(":", "/")
            stream = StreamInfo(
                **{name: getattr(stream, name) for name in _COMMON},
                width=item["width"],
                height=item["height"],
                pixel_format=item.get("pix_fmt"),
                color=tuple(_known(item.get(name)) for name in colors),
                aspect=Fraction(1) if aspect in ("0/1", "N/A") else Fraction(aspect),
                matrix=matrix,
                times=tuple(
                    frame["best_effort_timestamp"] * base
                    if "best_effort_timestamp" in frame
                    else None
                    for frame in both
                    if frame["type"] == "frame" and frame["stream_index"] == item["index"]
                ),
            )
        streams.append(stream)
    chapters = tuple(
        (
            item["start"] * Fraction(item["time_base"]),
            item["end"] * Fraction(item["time_base"]),
            item.get("tags", {}).get("title", ""),
        )
        for item in told["chapters"]
    )
    return Probe(path, told["format"].get("tags", {}), chapters, tuple(streams))


_COMMON = ("index", "kind", "codec", "time_base", "tags", "dispositions", "packets")


def _known(name: str | None) -> str | None:
    return None if name in _UNKNOWN else name


# ISO/IEC 23091-2 code points, in ffprobe's names
_RANGES = {1: "tv", 2: "pc"}
_MATRICES = {
    0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m",
    8: "ycgco", 9: "bt2020nc", 10: "bt2020c",
}  # fmt: skip
_TRANSFERS = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear",
    13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 18: "arib-std-b67",
}  # fmt: skip
_PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film",
    9: "bt2020", 12: "smpte432",
}  # fmt: skip


def _probe_with_pyav(path: Path) -> Probe:
    with av.open(str(path), metadata_errors="replace") as container:
        packets: dict[int, list[PacketInfo]] = {item.index: [] for item in container.streams}
        times: dict[int, list[Fraction | None]] = {item.index: [] for item in container.streams}
        matrices: dict[int, tuple[int, ...]] = {}
        last = None
        for packet in container.demux():
            index, base = packet.stream.index, packet.stream.time_base
            if packet.size:
                packets[index].append(
                    PacketInfo(
                        pts=None if packet.pts is None else packet.pts * base,
                        duration=(packet.duration or 0) * base,
                        size=packet.size,
                        md5=hashlib.md5(bytes(packet)).hexdigest(),
                    )
                )
            if packet.stream.type != "video":
                continue
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in frames:
                if container.format.name == "avi":
                    # AVI has no times of display; FFmpeg's guess lets room for frames out of order
                    frame.pts = frame.dts
                # FFmpeg repeats the last time where it does not know
                unknown = frame.pts is None or (frame.dts is None and frame.pts == last)
                times[index].append(None if unknown else frame.pts * frame.time_base)
                last = frame.pts
                if "DISPLAYMATRIX" in frame.side_data:
                    side = bytes(frame.side_data["DISPLAYMATRIX"])
                    matrices[index] = tuple(int(x) for x in np.frombuffer(side, "<i4"))
        streams = []
        for item in container.streams:
            context = item.codec_context
            dispositions = frozenset(
                name for name, flag in av.stream.Disposition.__members__.items()
                if item.disposition & flag
            )  # fmt: skip
            kind = "cover" if "attached_pic" in dispositions else item.type
            stream = StreamInfo(
                item.index,
                kind,
                context.codec.canonical_name if context else None,
                item.time_base,
                dict(item.metadata),
                dispositions,
                tuple(packets[item.index]),
                sample_rate=getattr(context, "sample_rate", None),
            )
            if item.type == "video":
                stream = StreamInfo(
                    **{name: getattr(stream, name) for name in _COMMON},
                    width=context.width,
                    height=context.height,
                    pixel_format=context.pix_fmt,
                    color=(
                        _RANGES.get(context.color_range),
                        _MATRICES.get(context.colorspace),
                        _TRANSFERS.get(context.color_trc),
                        _PRIMARIES.get(context.color_primaries),
                    ),
                    aspect=item.sample_aspect_ratio or Fraction(1),
                    matrix=matrices.get(item.index),
                    times=tuple(times[item.index]),
                )
            streams.append(stream)
        chapters = tuple(
            (
                item["start"] * item["time_base"],
                item["end"] * item["time_base"],
                item["metadata"].get("title", ""),
            )
            for item in container.chapters()
        )
        return Probe(path, dict(container.metadata), chapters, tuple(streams))


def packets(path: str | Path, index: int) -> tuple[PacketInfo, ...]:
    """The packets of one stream as PyAV reads them."""
    return _probe_with_pyav(Path(path)).streams[index].packets


def display_matrix(path: str | Path) -> tuple[int, ...] | None:
    """The display matrix as PyAV reads it; old ffprobe does not know Matroska's."""
    return _probe_with_pyav(Path(path)).video.matrix


def pictures(
    path: str | Path, pixel_format: str | None = None, *, first: int | None = None
) -> NDArray[np.uint8]:
    """Every frame of the restored video as the bytes of its planes, `[frames, bytes]`.

    Args:
        path: The clip.
        pixel_format: A lossless twin to repack the frames into; None leaves them as decoded.
        first: How many frames; None for all.
    """
    stream = probe(path).video
    count = first or len(stream.times)
    if not HAS_FFMPEG:
        return _pictures_with_pyav(Path(path), stream.index, pixel_format)[:count]
    options = ["-frames:v", str(count), *(["-pix_fmt", pixel_format] if pixel_format else [])]
    content = _run(
        *("ffmpeg", "-v", "error", "-noautorotate", "-i", _url(Path(path))),
        *("-map", f"0:{stream.index}", "-vsync", "passthrough", *options, "-f", "rawvideo", "-"),
    )
    return np.frombuffer(content, np.uint8).reshape(count, -1)


def _pictures_with_pyav(path: Path, index: int, pixel_format: str | None) -> NDArray[np.uint8]:
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams[index]):
            if pixel_format and frame.format.name != pixel_format:
                frame = frame.reformat(format=pixel_format)
            found.append(b"".join(_rows(plane, frame) for plane in frame.planes))
    return np.stack([np.frombuffer(content, np.uint8) for content in found])


def _rows(plane: Any, frame: Any) -> bytes:
    samples = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    width = plane.width
    if len(frame.planes) == 1:
        width = width * frame.format.padded_bits_per_pixel // 8
    elif frame.format.name.startswith(("nv", "p0", "p2")) and plane.index:
        width *= 2 * ((frame.format.components[0].bits + 7) // 8)
    else:
        width *= (frame.format.components[0].bits + 7) // 8
    return samples[:, :width].tobytes()


def sound(path: str | Path, track: int = 0) -> NDArray[np.int16]:
    """The decoded samples of one audio track, mono."""
    found = []
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono")
        for frame in container.decode(audio=track):
            found += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(found) if found else np.zeros(0, np.int16)


def last_sound(path: str | Path, track: int = 0) -> float:
    """When the sound of one audio track falls silent for good, in seconds from its beginning."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono")
        first = last = None
        for frame in container.decode(audio=track):
            first = frame.time if first is None else first
            for part in resampler.resample(frame):
                loud = np.flatnonzero(np.abs(part.to_ndarray()[0].astype(int)) > 2000)
                if len(loud):
                    last = frame.time + loud[-1] / part.sample_rate
    return float((last or 0) - (first or 0))


def psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Peak signal to noise of 8-bit samples, in decibels."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))
