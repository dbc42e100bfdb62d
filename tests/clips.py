"""Tiny clips made on the fly, in every shape that footage comes in.

A `Clip` is a recipe; `make` writes it and returns the path. Pictures are planes of moving texture,
with samples at both ends of the range, so no two frames are alike.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.subtitles.subtitle import SubtitleSet

from mhnet_video.media.encoders.encoder import open_encoder
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.writer import VideoWriter

ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\n"
    b"Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour,"
    b" Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline,"
    b" Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\n"
    b"Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\n\n"
    b"[Events]\n"
    b"Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n\n"
)
MILLISECONDS = Fraction(1, 1000)

MUXERS = {"mkv": "matroska", "ts": "mpegts", "m2ts": "mpegts", "h264": "h264"}
MUXERS |= {"mpg": "mpeg", "ogv": "ogg"}
"""FFmpeg's name of a container where it is not the file's extension."""


@dataclass(frozen=True, kw_only=True)
class Audio:
    """One audio track: a tone."""

    codec: str = "aac"
    rate: int = 48000
    start: float = 0.0
    seconds: float = 0.8
    layout: str = "mono"
    pause: float = 0.0
    """Seconds without a packet, half way."""
    metadata: dict[str, str] = field(default_factory=dict)
    disposition: int = 0


@dataclass(frozen=True, kw_only=True)
class Subtitles:
    """One subtitle track; cues are start and length in seconds, and text."""

    codec: str = "subrip"
    cues: tuple[tuple[float, float, str], ...] = ((0.1, 0.2, "Hello"), (0.4, 0.2, "Rain, rain"))
    metadata: dict[str, str] = field(default_factory=dict)
    disposition: int = 0


@dataclass(frozen=True, kw_only=True)
class Data:
    """One track of telemetry: a packet every tenth of a second."""

    codec: str | None = "klv"
    packets: int = 6


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video track of moving texture."""

    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    width: int = 64
    height: int = 48
    times: tuple[int, ...] = tuple(range(0, 400, 40))
    """When each frame is shown, in ticks of `time_base`; encoders without B-frames may repeat."""
    durations: tuple[int, ...] | None = None
    time_base: Fraction = MILLISECONDS
    rate: int = 25
    options: tuple[tuple[str, str], ...] = ()
    gop: int = 12
    b_frames: int = 0
    color: tuple[int, int, int, int] | None = None
    """Range, matrix, primaries and transfer as FFmpeg counts them; None leaves them untagged."""
    aspect: Fraction | None = None
    """Width of a sample over its height."""
    matrix: tuple[int, ...] | None = None
    """Display matrix as in the file: nine fixed-point numbers."""
    metadata: dict[str, str] = field(default_factory=dict)
    disposition: int = 0
    seed: int = 0
    period: int | None = None
    """After how many frames the pictures begin again, which makes long clips quickly."""
    rain: int = 0
    """Bright streaks in each frame."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What a file holds; `make` writes it."""

    name: str = "clip.mp4"
    video: tuple[Video, ...] = (Video(),)
    audio: tuple[Audio, ...] = ()
    subtitles: tuple[Subtitles, ...] = ()
    data: tuple[Data, ...] = ()
    cover: bytes | None = None
    """A JPEG or PNG as cover art, after the other streams."""
    attachments: tuple[tuple[str, str, bytes], ...] = ()
    """Name, MIME type and content."""
    chapters: tuple[tuple[float, float, str], ...] = ()
    """Start, end and title."""
    metadata: dict[str, str] = field(default_factory=dict)
    options: tuple[tuple[str, str], ...] = ()
    """The muxer's."""
    finish: Callable[[bytes], bytes] | None = None
    """What turns the file's bytes into the shape wanted."""

    def make(self, folder: Path) -> Path:
        """Write the clip into the folder."""
        path = folder / self.name
        extension = path.suffix[1:]
        with av.open(
            str(path),
            "w",
            format=MUXERS.get(extension, extension),
            container_options=dict(self.options),
        ) as container:
            self._write(container)
        if self.finish:
            path.write_bytes(self.finish(path.read_bytes()))
        return path

    def _write(self, container: Any) -> None:
        container.metadata.update(self.metadata)
        # all streams must be there before the first packet: it writes the header
        writers: list[Callable[[], list[Any]]] = []
        for video in self.video:
            writers.append(_add_video(container, video))
        for audio in self.audio:
            writers.append(_add_audio(container, audio))
        for subtitles in self.subtitles:
            writers.append(_add_subtitles(container, subtitles))
        for data in self.data:
            writers.append(_add_data(container, data))
        if self.cover:
            writers.append(_add_cover(container, self.cover))
        for attachment in self.attachments:
            container.add_attachment(*attachment)
        if self.chapters:
            container.set_chapters(
                [
                    {
                        "id": index,
                        "start": round(start * 1000),
                        "end": round(end * 1000),
                        "time_base": MILLISECONDS,
                        "metadata": {"title": title},
                    }
                    for index, (start, end, title) in enumerate(self.chapters, 1)
                ]
            )
        queue = []
        for writer in writers:
            latest = Fraction(-10)
            for packet in writer():
                # a stream whose times go backwards keeps its order
                latest = max(latest, packet.dts * packet.time_base)
                queue.append((latest, packet))
        for _, packet in sorted(queue, key=lambda entry: entry[0]):
            container.mux(packet)


def _add_video(container: Any, video: Video) -> Callable[[], list[Any]]:
    options = dict(video.options)
    if video.codec == "libx264":
        options = {"crf": "10", "preset": "ultrafast", "sc_threshold": "0", **options}
    stream = container.add_stream(video.codec, rate=video.rate, options=options)
    stream.width, stream.height, stream.pix_fmt = video.width, video.height, video.pixel_format
    context = stream.codec_context
    context.time_base = stream.time_base = video.time_base
    context.gop_size = video.gop
    context.max_b_frames = video.b_frames
    context.thread_count = 1
    if video.color:
        context.color_range, context.colorspace = video.color[:2]
        context.color_primaries, context.color_trc = video.color[2:]
    if video.aspect:
        context.sample_aspect_ratio = video.aspect
    if video.matrix:
        stream.set_display_matrix(list(video.matrix))
    if video.codec == "libsvtav1":
        open_encoder(context)  # which would make the tests real-time threads
    if video.durations:
        context.flags |= av.codec.context.Flags.frame_duration
    stream.metadata.update(video.metadata)
    stream.disposition = video.disposition

    rising = all(one < two for one, two in zip(video.times, video.times[1:], strict=False))

    period = video.period or len(video.times)
    pictures = {}

    def write() -> list[Any]:
        packets = []
        for index, pts in enumerate(video.times):
            number = index % period + 1000 * video.seed
            if number not in pictures:
                pictures[number] = make_frame(
                    number, video.pixel_format, video.width, video.height, rain=video.rain
                )
            frame = pictures[number]
            frame.pict_type = 0
            frame.pts, frame.time_base = pts if rising else index, video.time_base
            if video.durations:
                frame.duration = video.durations[index]
            if video.color:
                frame.color_range, frame.colorspace = video.color[:2]
                frame.color_primaries, frame.color_trc = video.color[2:]
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if not rising:
            # encoders refuse such times, files have them
            for packet in packets:
                coming = video.times[packet.pts :]
                packet.pts, packet.dts = coming[0], min(coming)
        return packets

    return write


def _add_audio(container: Any, audio: Audio) -> Callable[[], list[Any]]:
    stream = container.add_stream(audio.codec, rate=audio.rate, layout=audio.layout)
    stream.metadata.update(audio.metadata)
    stream.disposition = audio.disposition

    def write() -> list[Any]:
        codec_format = stream.codec_context.format.name
        resampler = av.AudioResampler(codec_format, audio.layout, audio.rate)
        packets = []
        total = round(audio.seconds * audio.rate)
        step = stream.codec_context.frame_size or 1024
        for first in range(0, total, step):
            positions = np.arange(first, min(first + step, total))
            tone = 0.3 * np.sin(2 * np.pi * 440 * positions / audio.rate)
            tone += 0.05 * np.sin(0.37 * positions**1.1)
            frame = av.AudioFrame.from_ndarray(tone.astype(np.float32)[None], "fltp", "mono")
            frame.rate = audio.rate
            late = audio.start + (audio.pause if first >= total / 2 else 0)
            frame.pts = first + round(late * audio.rate)
            frame.time_base = Fraction(1, audio.rate)
            for part in resampler.resample(frame):
                packets += stream.encode(part)
        return packets + stream.encode(None)

    return write


def _add_subtitles(container: Any, subtitles: Subtitles) -> Callable[[], list[Any]]:
    stream = container.add_stream(subtitles.codec)
    stream.codec_context.subtitle_header = ASS_HEADER
    stream.codec_context.time_base = MILLISECONDS
    stream.metadata.update(subtitles.metadata)
    stream.disposition = subtitles.disposition

    def write() -> list[Any]:
        packets = []
        for index, (start, length, text) in enumerate(subtitles.cues):
            line = f"{index},0,Default,,0,0,0,,{text}".encode()
            cue = SubtitleSet.create(line, 0, round(length * 1000))
            packet = stream.codec_context.encode_subtitle(cue)
            packet.stream = stream
            packet.time_base = MILLISECONDS
            packet.pts = packet.dts = round(start * 1000)
            packet.duration = round(length * 1000)
            packets.append(packet)
        return packets

    return write


def _add_data(container: Any, data: Data) -> Callable[[], list[Any]]:
    stream = container.add_data_stream(data.codec)

    def write() -> list[Any]:
        packets = []
        for index in range(data.packets):
            packet = av.Packet(b"telemetry %03d" % index)
            packet.stream = stream
            packet.time_base = MILLISECONDS
            packet.pts = packet.dts = 100 * index
            packet.duration = 100
            packets.append(packet)
        return packets

    return write


def _add_cover(container: Any, cover: bytes) -> Callable[[], list[Any]]:
    picture = av.open(io.BytesIO(cover))
    stream = container.add_stream_from_template(picture.streams.video[0])
    stream.disposition = av.stream.Disposition.attached_pic

    def write() -> list[Any]:
        packet = next(picture.demux(video=0))
        picture.close()
        packet.stream = stream
        packet.pts = packet.dts = 0
        packet.time_base = MILLISECONDS
        return [packet]

    return write


def make_frame(
    index: int, pixel_format: str, width: int, height: int, *, rain: int = 0
) -> av.VideoFrame:
    """Frame `index` of the moving texture; packed formats come from a planar twin."""
    if pixel_format == "pal8":
        return _palette_frame(index, width, height)
    twin = _PLANAR_TWINS.get(pixel_format, pixel_format)
    frame = av.VideoFrame(width, height, twin)
    bits = frame.format.components[0].bits
    top = (1 << bits) - 1
    dtype = np.uint8 if bits == 8 else np.uint16
    noise = np.random.default_rng(index)
    for number, plane in enumerate(frame.planes):
        rows, columns = plane.height, plane.width
        y, x = np.mgrid[0:rows, 0:columns]
        wave = np.sin((x + 2 * index + 5 * number) * 8 / columns) * np.cos(y * 6 / rows - index / 3)
        values = 0.5 + 0.35 * wave + noise.normal(0, 0.02, (rows, columns))
        if number == 0 or frame.format.is_rgb:
            _add_rain(values, rain, np.random.default_rng(index + 77))
        picture = np.clip(values * top, 0, top).astype(dtype)
        # both ends of the range, where clipping and rounding go wrong
        picture[: rows // 8, : columns // 8] = 0
        picture[: rows // 8, columns - columns // 8 :] = top
        target = np.frombuffer(plane, np.uint8).reshape(rows, plane.line_size)
        target[:, : columns * picture.itemsize] = picture.view(np.uint8)
    if twin != pixel_format:
        frame = frame.reformat(format=pixel_format)
    return frame


def _add_rain(values: Any, count: int, places: np.random.Generator) -> None:
    rows, columns = values.shape
    for _ in range(count):
        top, left = places.integers(rows), places.integers(columns)
        values[top : top + 12, left] += 0.3


def _palette_frame(index: int, width: int, height: int) -> av.VideoFrame:
    noise = np.random.default_rng(index)
    palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
    palette[:, 0] = 255
    samples = noise.integers(0, 256, (height, width), np.uint8)
    return av.VideoFrame.from_ndarray((samples, palette), format="pal8")


_PLANAR_TWINS = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "p010le": "yuv420p10le",
    "p210le": "yuv422p10le",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yvyu422": "yuv422p",
    "yuv420p10be": "yuv420p10le",
    "gray10be": "gray10le",
    "gray16be": "gray16le",
    "rgb24": "gbrp",
    "bgr24": "gbrp",
    "bgr0": "gbrp",
    "0rgb": "gbrp",
    "rgb48le": "gbrp16le",
    "rgba": "gbrap",
    "bgra": "gbrap",
    "ya8": "gbrap",
    "monow": "gray",
    "monob": "gray",
    "rgb565le": "gbrp",
}


def every(milliseconds: int, count: int, start: int = 0) -> tuple[int, ...]:
    """Times at a constant rate."""
    return tuple(range(start, start + count * milliseconds, milliseconds))


def uneven(count: int, start: int = 0) -> tuple[int, ...]:
    """Times of a phone's clip: near 25 fps, with jitter and one long gap, in milliseconds."""
    steps = np.random.default_rng(7).integers(17, 70, count)
    steps[count // 2] += 400
    return tuple(int(time) for time in start + np.cumsum(steps) - steps[0])


def picture(kind: str = "mjpeg", width: int = 32, height: int = 32) -> bytes:
    """A JPEG, PNG or WebP, such as a cover."""
    pixel_format = {"mjpeg": "yuvj420p", "png": "rgb24", "libwebp": "yuv420p"}[kind]
    context = av.CodecContext.create(kind, "w")
    context.width, context.height, context.pix_fmt = width, height, pixel_format
    context.time_base = Fraction(1, 25)
    if kind == "mjpeg":
        context.color_range = 2
        frame = make_frame(5, "yuv420p", width, height).reformat(format="yuvj420p")
    else:
        frame = make_frame(5, pixel_format, width, height)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def copy(source: Path, destination: Path, **options: object) -> VideoWriter:
    """Write all of a source as it is."""
    with VideoReader(source) as reader, VideoWriter(destination, reader, **options) as writer:
        for item in reader:
            writer.write(item)
        writer.finish()
        return writer


def boxes(content: bytes) -> list[tuple[bytes, int, int]]:
    """Name, start and end of each box of an MP4's level."""
    found = []
    position = 0
    while position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(content[position + 8 : position + 16], "big")
        elif size == 0:
            size = len(content) - position
        found.append((content[position + 4 : position + 8], position, position + size))
        position += size
    return found


def cover_first(content: bytes) -> bytes:
    """The MP4 with its tags before its tracks, so that the cover becomes the first stream."""
    for name, start, end in boxes(content):
        if name == b"moov":
            inside = content[start + 8 : end]
            order = {b"mvhd": 0, b"udta": 1}
            parts = sorted(boxes(inside), key=lambda part: order.get(part[0], 2))
            inside = b"".join(inside[first:last] for _, first, last in parts)
            return content[: start + 8] + inside + content[end:]
    raise ValueError("not an MP4")


def as_telemetry(content: bytes) -> bytes:
    """The MP4 with its subtitle track declared as a camera's telemetry track."""
    return content.replace(b"sbtl", b"meta").replace(b"tx3g", b"gpmd")


def rotation(degrees: int, *, mirror: bool = False) -> tuple[int, ...]:
    """Display matrix that shows the picture turned counterclockwise, and mirrored before that."""
    one = 1 << 16
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees % 360]
    flip = -1 if mirror else 1
    return (
        flip * cosine * one, -flip * sine * one, 0,
        sine * one, cosine * one, 0,
        0, 0, 1 << 30,
    )  # fmt: skip


def join(path: Path, parts: Sequence[Path]) -> Path:
    """Bytes one after another: a stream that changes in the middle."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
