"""Write an output of segments that are encoded already, beside everything else of the sources."""

from array import array
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder import EncoderSettings
from mhnet_video.media.encoders.encoder_surfaces import Surfaces
from mhnet_video.media.fidelity import counted
from mhnet_video.media.location.telemetry import Carried
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.source import Packet, packets_of
from mhnet_video.media.segments.joined_reader import JoinedReader
from mhnet_video.media.segments.segment_encoding import header_of
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.media.writing.frame_encoder import FrameEncoder
from mhnet_video.media.writing.muxer import Muxer
from mhnet_video.media.writing.output_clock import OutputClock
from mhnet_video.media.writing.writer import VideoWriter

_DELAY = 12
"""Packets that are held back, as encoders do: in some files sound stands behind its pictures."""
_CIRCLE_SECONDS = {"mpegts": Fraction(1 << 33, 90000)}
"""Formats whose clock begins again after so long."""


class EncodedFrames(FrameEncoder):
    """Gives the packets of segments instead of encoding frames, at the times of the output.

    Its encoder is opened for the output's header, and gets no frame.

    Args:
        settings: The encoder's.
        first: The first frame.
        clock: Gives the frames their times.
        output: Where the packets will go, for errors.
        store: The segments.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        first: Frame,
        clock: OutputClock,
        output: OutputFile,
        store: SegmentStore,
    ) -> None:
        super().__init__(settings, first, clock, output)
        self.times = array("q")
        """When the frame of each packet is shown, in units of the clock."""
        self._store = store
        self._placed = self._all_placed()
        self._packets = self._all_packets()
        self._next = next(self._packets, None)
        # how much later than its segment says a frame is, and how long it lasts, by its time there
        self._moves: dict[int, tuple[int, int]] = {}
        self._waiting: deque[Packet] = deque()

    def _all_placed(self) -> Iterator[int]:
        for record in self._store.records():
            self.changes.add(record.scaled, record.changed)
            for _, _, placed in record.frames:
                yield placed

    def _all_packets(self) -> Iterator[Packet]:
        for index in range(self._store.count):
            yield from self._store.packets(index)

    def open(self, target: VideoStream | VideoCodecContext, first: Frame) -> None:
        """Open the encoder, and check that the segments are of the same kind.

        Raises:
            FFmpegError: It does not open.
            WriteError: They are of another encoder.
        """
        super().open(target, first)
        self._target = target
        header = header_of(getattr(target, "codec_context", target))
        if any(record.header != header for record in self._store.records()):
            raise WriteError(
                f"the segments in {self._store.name} were encoded by another encoder than there "
                "is now; remove that folder, and begin again."
            )

    def encode(self, frame: Frame) -> list[Packet]:
        """The packets that are ready after a frame.

        Raises:
            WriteError: The segments have no such frame.
        """
        pts, duration = self.clock.place(frame)
        placed = next(self._placed, None)
        if placed is None:
            raise self._mismatch(f"they end before {float(self.clock.time_of(frame)):.3f} s")
        self._moves[placed] = pts - placed, duration
        while self._next is not None and self._next.pts in self._moves:
            self._waiting.append(self._moved(self._next))
            self._next = next(self._packets, None)
        return [self._waiting.popleft() for _ in range(len(self._waiting) - _DELAY)]

    def flush(self) -> list[Packet]:
        """The packets that are still held back.

        Raises:
            WriteError: There are packets whose frames never came.
        """
        if self._next is not None or next(self._placed, None) is not None:
            raise self._mismatch("they have pictures that the sources lack")
        rest, self._waiting = list(self._waiting), deque()
        return rest

    def _moved(self, packet: Packet) -> Packet:
        later, duration = self._moves.pop(packet.pts or 0)
        packet.pts = (packet.pts or 0) + later
        self.times.append(packet.pts)
        packet.dts = (packet.dts or 0) + later
        packet.duration = duration
        packet.stream = self._target
        return packet

    def _mismatch(self, what: str) -> WriteError:
        return WriteError(
            f"the segments in {self._store.name} are not those of the sources: {what}; remove that "
            "folder, and begin again."
        )


class JoinedWriter(VideoWriter):
    """Writes what a `JoinedReader` gives: each frame is a packet of a segment.

    Args:
        destination: File to create, its format by its name.
        reader: The sources.
        store: Their segments.
        how: As for `VideoWriter`.
    """

    def __init__(
        self, destination: Path, reader: JoinedReader, store: SegmentStore, **how: Any
    ) -> None:
        super().__init__(destination, reader, **how)
        self._store = store
        self._joined = reader
        self._encoded: EncodedFrames | None = None

    @property
    def telemetry(self) -> Carried:
        """What of the sources' positions and sensors is in the file."""
        return self._target.telemetry if isinstance(self._target, Muxer) else Carried()

    def _new_encoder(
        self, settings: EncoderSettings, surfaces: Surfaces | None = None
    ) -> FrameEncoder:
        clock = super()._new_encoder(settings).clock
        first = self._held.frames[0]
        self._encoded = EncodedFrames(settings, first, clock, self._output, self._store)
        return self._encoded

    def finish(self) -> None:
        """Complete the file, check it, and give it its name.

        Raises:
            WriteError: The disk refuses, or the file is not what it should be.
        """
        for record in self._store.records():
            self._side_data.add(record.side_data)
        super().finish()

    def _check(self) -> None:
        """Compare the time of every frame in the file with what it should be."""
        muxer, encoded = self._target, self._encoded
        if not isinstance(muxer, Muxer) or encoded is None or self.partial is None:
            return
        number = muxer.streams[self._joined.stream.index].number
        wanted = np.array(encoded.times, float) * float(encoded.clock.time_base)
        with av.open(str(self.partial)) as container:
            video = container.streams.video[number]
            ticks = Fraction(video.time_base or 1)
            shown = array("q")
            for packet in packets_of(container, video):
                if packet.size and packet.pts is not None:
                    shown.append(packet.pts)
        found = np.array(shown, float) * float(ticks)
        if not len(found) == len(wanted) == self.frames:
            had = counted(len(found), "frame")
            raise self._is_wrong(f"it has {had} instead of {self.frames}")
        # packet by packet: where a clock begins again, the order of times is another one
        apart = np.abs(found - wanted)
        circle = _CIRCLE_SECONDS.get(muxer.format.name)
        if circle is not None:
            apart = np.abs((apart + float(circle) / 2) % float(circle) - float(circle) / 2)
        if len(apart) and apart.max() > float(max(ticks, encoded.clock.time_base)):
            when = wanted[int(apart.argmax())]
            raise self._is_wrong(
                f"the frame of {when:.3f} s is {apart.max():.3f} s away from there"
            )

    def _is_wrong(self, what: str) -> WriteError:
        return WriteError(
            f"{self._output.name} was not joined as it should be: {what}. The segments are kept in "
            f"{self._store.name}; please report this."
        )

    def abandon(self, *, is_quick: bool = False) -> Path | None:
        """Remove the file unless it was finished: all of it is in the segments.

        Args:
            is_quick: Nothing: it is always so.

        Returns:
            None, as nothing is left.
        """
        super().abandon(is_quick=True)
        self._output.discard()
        return None
