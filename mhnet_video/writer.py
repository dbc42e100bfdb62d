"""Encode frames into a video file, and copy what else the source holds."""

import os
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.error import FFmpegError

from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame
from mhnet_video.pixels import picture_of
from mhnet_video.reader import Item, VideoReader


class VideoWriter:
    """Minimal."""

    def __init__(
        self,
        destination: str | PathLike[str],
        reader: VideoReader,
        *,
        encoder: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        options: tuple[tuple[str, str], ...] = (),
        overwrite: bool = False,
    ) -> None:
        self.destination = Path(destination)
        if self.destination.exists() and not overwrite:
            raise WriteError(f"{destination} exists already; add --overwrite to replace it.")
        self.partial = self.destination.with_name(
            self.destination.stem + ".partial" + self.destination.suffix
        )
        self.reader = reader
        self.encoder = encoder or "libx264"
        self.container = av.open(os.path.abspath(self.partial), "w")
        self.frames = 0
        self.kept: list[str] = []
        self.lost: list[str] = []
        self.pixel_format = ""
        self._held: list[av.Packet] = []
        self._video: av.VideoStream | None = None
        self._copies: dict[int, av.stream.Stream] = {}
        self._options = dict(options)
        if self.encoder == "libx264":
            self._options = {"crf": str(crf or 17), "preset": preset or "faster"} | self._options

    def _begin(self, frame: Frame) -> None:
        stream = self.container.add_stream(
            self.encoder, rate=self.reader.fps, options=self._options
        )
        stream.width = frame.width
        stream.height = frame.height
        stream.pix_fmt = self.pixel_format = frame.layout.name
        stream.codec_context.time_base = frame.time_base
        stream.time_base = frame.time_base
        for tag in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(stream.codec_context, tag, frame.tags[tag])
        self._video = stream
        for source in self.reader.container.streams.audio:
            try:
                self._copies[source.index] = self.container.add_stream_from_template(source)
            except ValueError:
                self.lost.append(f"audio {source.index}")

    def write(self, item: Item) -> None:
        """Encode a frame, or copy a packet."""
        try:
            if isinstance(item, Frame):
                if self._video is None:
                    self._begin(item)
                    for packet in self._held:
                        self._copy(packet)
                picture = picture_of(item)
                picture.pts = item.pts
                picture.time_base = item.time_base
                picture.pict_type = 0
                self.container.mux(self._video.encode(picture))
                self.frames += 1
            elif self._video is None:
                self._held.append(item)
            else:
                self._copy(item)
        except FFmpegError as error:
            raise WriteError(f"cannot write {self.destination}: {error}") from error

    def _copy(self, packet: av.Packet) -> None:
        target = self._copies.get(packet.stream_index)
        if target is not None:
            packet.stream = target
            self.container.mux(packet)

    def finish(self) -> None:
        """Flush, close and rename."""
        if self._video is not None:
            self.container.mux(self._video.encode(None))
        self.container.close()
        os.replace(self.partial, self.destination)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.container.close()


def working_encoders() -> list[str]:
    """Video encoders that really open, each tried with a small picture."""
    known = ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks", "mpeg4")
    found = []
    for name in known:
        try:
            context = av.CodecContext.create(name, "w")
            context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
            if name == "prores_ks":
                context.pix_fmt = "yuv422p10le"
            context.time_base = Fraction(1, 25)
            context.encode(av.VideoFrame(256, 256, context.pix_fmt))
            context.encode(None)
            found.append(name)
        except (FFmpegError, ValueError):
            continue
    return found
