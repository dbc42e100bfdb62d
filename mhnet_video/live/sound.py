"""Sound beside the frames of a live source: packets as they came, in step with the frames."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError

from mhnet_video.live.connection_events import TIME_BASE, SoundArrived, SoundFormat
from mhnet_video.media.reading.source import Packet, is_known

_MAX_HELD = 4096
"""Packets of sound that may come before the first frame of a connection."""
_MAX_ERROR_SECONDS = 0.04
"""Sound may be so far from the frames; then it is brought into step again.

Source: ITU-R BT.1359-1, by which 45 ms of early sound are noticed.
"""
_CREEP = 1 / 64
"""Share of its error by which each packet is corrected: this follows the drift."""


@dataclass(frozen=True, eq=False)
class SoundPacket:
    """A packet of sound, as the source has it, at its live time."""

    format: SoundFormat
    data: bytes
    pts: int
    """When it is heard, in `TIME_BASE` since the source was first opened."""
    duration: int
    """How long, in `TIME_BASE`; 0 where the source does not say."""

    @property
    def num_bytes(self) -> int:
        """Memory that it holds."""
        return len(self.data)

    @property
    def end(self) -> int:
        """When it has been heard, in `TIME_BASE`."""
        return self.pts + self.duration


class SoundReader:
    """The first sound of a container, read beside the pictures; its packets wait for the first one.

    Args:
        container: The source.
    """

    def __init__(self, container: InputContainer) -> None:
        streams = container.streams.audio
        self.stream: Any = streams[0] if streams and is_known(streams[0]) else None
        """The source's stream; None where it has none that FFmpeg knows."""
        self.format: SoundFormat | None = None
        """How it is coded; None until `identify`."""
        self._held: list[Packet] = []

    def put(self, packet: Packet) -> None:
        """Take a packet of the stream; those that an edit list hides are left out."""
        if packet.size and not packet.is_discard and len(self._held) < _MAX_HELD:
            self._held.append(packet)

    def identify(self) -> SoundFormat | None:
        """How the sound is coded, by its first packet where that has come."""
        if self.format is None and self.stream is not None:
            first = bytes(self._held[0]) if self._held else b""
            try:
                self.format = _format_of(self.stream, first)
            except (FFmpegError, ValueError):
                self.stream = None  # of a codec that NUT has no name for
        return self.format

    def take(self, offset: float | None) -> Iterator[SoundArrived]:
        """What has come since the last call.

        Args:
            offset: What is added to the stream's times where it is played by the clock of
                `time.monotonic`, in seconds; None where the times are those of a clock of its own.
        """
        held, self._held = self._held, []
        if self.format is None:
            return
        for packet in held:
            ticks = packet.pts if packet.pts is not None else packet.dts
            if ticks is None or not packet.time_base:
                continue
            time_base = Fraction(packet.time_base)
            seconds = float(ticks * time_base)
            yield SoundArrived(
                self.format,
                bytes(packet),
                seconds + (offset or 0.0),
                float((packet.duration or 0) * time_base),
                has_stream_time=offset is None,
            )


def _format_of(stream: Any, first: bytes) -> SoundFormat:
    """How a stream is coded.

    Raises:
        FFmpegError: NUT cannot hold it.
        ValueError: Likewise.
    """
    header = _nut_of(stream, b"\0")
    template = _nut_of(stream, first) if first else header
    return SoundFormat(stream.codec_context.codec.canonical_name, header, template, first)


def _nut_of(stream: Any, data: bytes) -> bytes:
    """A NUT file with a stream coded likewise, and one packet."""
    file = io.BytesIO()
    with av.open(file, "w", format="nut") as container:
        target = container.add_stream_from_template(stream, opaque=True)
        target.metadata.update(stream.metadata)
        packet = Packet(data)
        packet.pts = packet.dts = 0
        packet.time_base, packet.stream = TIME_BASE, target
        container.mux_one(packet)
    return file.getvalue()


class SoundClock:
    """When packets of sound are heard: one follows the other, in step with the frames.

    The times of frames are mapped to our clock by the earliest arrivals, which changes as they
    come. Sound that followed each change would have gaps and overlaps.
    """

    def __init__(self) -> None:
        self._end: float | None = None

    def time(self, wanted: float, duration: float) -> float | None:
        """When a packet is heard, in seconds; None where it overlaps with what was heard.

        Args:
            wanted: When it is heard by the clock of the frames, in seconds.
            duration: How long, in seconds.
        """
        time = wanted
        if self._end is not None:
            error = wanted - self._end
            if error < -_MAX_ERROR_SECONDS:
                return None
            if error <= _MAX_ERROR_SECONDS:
                time = self._end + _CREEP * error
        self._end = time + duration
        return time
