"""Clips whose sound is known at every moment, and a way to hear what became of it.

As a program it makes a clip of every codec that FFmpeg can encode: `python sounds.py FOLDER`. Or it
puts the sound of each of them into one container, and says before each what it does:
`python sounds.py FOLDER OUTPUT`.
"""

import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.writer import VideoWriter

FPS = 25
_MUXERS = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg"}
# what a container takes beside the sound that is looked at
_VIDEOS = {"flv": "flv", "mpg": "mpeg2video"}
_RATES = (44100, 48000, 8000)


def tones(
    path: Path,
    frequencies: Sequence[float],
    *,
    codec: str = "aac",
    rate: int = 44100,
    layout: str = "mono",
    start: float = 0.0,
    lead: float = 0.0,
    seconds: float = 1.0,
) -> Path:
    """A clip of `FPS` in which one tone follows the other.

    Args:
        path: What to write; its extension says the format.
        frequencies: Of the tones, in hertz.
        codec: FFmpeg's name of the sound's encoder.
        rate: Samples a second.
        layout: The channels, as FFmpeg names them.
        start: When the clip begins, in seconds.
        lead: How much later the sound does, in seconds.
        seconds: How long each tone lasts.
    """
    extension = path.suffix[1:]
    with av.open(str(path), "w", format=_MUXERS.get(extension, extension)) as container:
        video: Any = container.add_stream(_VIDEOS.get(extension, "mpeg4"), rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream(codec, rate=rate, layout=layout)
        # what is experimental is encoded, too
        sound.codec_context.options = {"strict": "-2"}
        sound.codec_context.open(strict=False)
        container.start_encoding()
        packets = []
        for number in range(round(FPS * (lead + seconds * len(frequencies)))):
            picture = av.VideoFrame(64, 48, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([number * 9 % 256]) * plane.buffer_size)
            picture.pts, picture.time_base = number + round(start * FPS), Fraction(1, FPS)
            packets += video.encode(picture)
        packets += video.encode(None)
        times = np.arange(round(seconds * rate)) / rate
        samples = np.concatenate([0.3 * np.sin(2 * np.pi * f * times) for f in frequencies])
        packets += _encoded(sound, samples.astype(np.float32), layout, start + lead)
        for packet in sorted(packets, key=lambda each: each.dts * each.time_base):
            container.mux(packet)
    return path


def _encoded(stream: Any, samples: Any, layout: str, start: float) -> list[Any]:
    context = stream.codec_context
    rate, channels = context.sample_rate, context.layout.nb_channels
    resampler = av.AudioResampler(context.format.name, layout, rate)
    packets = []
    step = context.frame_size or 1024
    for first in range(0, len(samples), step):
        part = np.repeat(samples[None, first : first + step], channels, 0)
        frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
        frame.sample_rate = rate
        for piece in resampler.resample(frame):
            piece.pts, piece.time_base = first + round(start * rate), Fraction(1, rate)
            packets += stream.encode(piece)
    return packets + stream.encode(None)


def copy(source: Path | str, destination: Path) -> VideoWriter:
    """Write all of a source as it is."""
    with (
        VideoReader(source) as reader,
        VideoWriter(destination, reader, overwrite=True) as writer,
    ):
        for item in reader:
            writer.write(item)
        writer.finish()
        return writer


def pitches(path: Path, step: float = 0.25) -> dict[float, float]:
    """The tone that is heard around each moment, in hertz, counted from the video's first frame.

    Args:
        path: The clip.
        step: How far the moments are apart, in seconds.
    """
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).time or 0
    pieces: dict[int, list[Any]] = {}
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)[:, 0]
            if frame.format.is_planar:
                samples = frame.to_ndarray()[0]
            moment = round(
                ((frame.time or 0) + frame.samples / frame.sample_rate / 2 - first) / step
            )
            pieces.setdefault(moment, []).append((frame.sample_rate, samples))
    heard = {}
    for moment, parts in pieces.items():
        rates = {rate for rate, _ in parts}
        samples = np.concatenate([part for _, part in parts]).astype(float)
        if len(rates) == 1 and len(samples) > step / 2 * min(rates):
            spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
            heard[moment * step] = float(np.argmax(spectrum)) * min(rates) / (1 << 17)
    return heard


def length(path: Path) -> float:
    """How much sound there is, in seconds."""
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def encoders() -> list[str]:
    """FFmpeg's names of its encoders of sound."""
    found = []
    for name in sorted(av.codecs_available):
        try:
            codec = av.Codec(name, "w")
        except ValueError:
            continue
        if codec.type == "audio" and codec.audio_formats:
            found.append(name)
    return found


def make_sources(folder: Path) -> None:
    """A short clip for each encoder, in containers that name the channels and that do not."""
    for codec in encoders():
        for extension, layout in (("nut", "mono"), ("mkv", "stereo"), ("mkv", "5.1")):
            for rate in _RATES:
                path = folder / f"{codec}-{layout}.{extension}"
                try:
                    tones(path, [440], codec=codec, rate=rate, layout=layout, seconds=0.2)
                except (ValueError, OSError, NotImplementedError):
                    path.unlink(missing_ok=True)
                    continue
                break


def copy_sources(folder: Path, output: Path) -> None:
    """Put each into a container; the video must come out whole, and the sound, or be told."""
    for source in sorted(folder.iterdir()):
        sys.stdout.write(f"{source.name}\n")
        sys.stdout.flush()
        writer = copy(source, output)
        told = "".join([*writer.notes.kept, *writer.notes.lost])
        assert writer.frames == 5, source
        assert "sound in stream 1" in told, source


if __name__ == "__main__":
    if len(sys.argv) > 2:
        copy_sources(*map(Path, sys.argv[1:]))
    else:
        make_sources(Path(sys.argv[1]))
