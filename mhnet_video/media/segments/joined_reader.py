"""Files that follow one another as one source: their packets, and their frames as recorded."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from mhnet_video.frame import Frame
from mhnet_video.media.reading.decoder import Decoder, Item
from mhnet_video.media.reading.discontinuities import PAUSE_SECONDS
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.segments.recorded_decoder import RecordedDecoder
from mhnet_video.media.segments.segment_reader import later
from mhnet_video.media.segments.segment_store import SegmentStore

_MILLISECONDS = Fraction(1, 1000)


class RecordedReader(VideoReader):
    """A source whose frames are in segments: they come without samples.

    Args:
        source: The file.
        store: The segments.
        index: Index of the source among those of the store.
        first: The frame that the output begins with.
    """

    def __init__(self, source: Path, store: SegmentStore, index: int, first: Frame) -> None:
        self._source = source
        self._store = store
        self._index = index
        self._first = first
        super().__init__(source)

    def _new_decoder(self) -> Decoder:
        return RecordedDecoder(
            self.container,
            self.stream,
            name=self.name,
            fps=self.fps,
            records=self._store.records(self._index),
            first=self._first,
        )

    @property
    def num_frames(self) -> int:
        """Frames there are."""
        return sum(len(record.frames) for record in self._store.records(self._index))

    def edges(self) -> tuple[Fraction, Fraction]:
        """When the first frame is shown, and when the last one ends, in seconds, without jumps."""
        records = self._store.records(self._index)
        frames = [(pts, duration) for record in records for pts, duration, _ in record.frames]
        longest = PAUSE_SECONDS / self.time_base
        if not all(0 <= after - pts <= longest for (pts, _), (after, _) in pairwise(frames)):
            frames = self._straightened()
        usual = round(1 / (self.fps * self.time_base))
        end = max((pts + (duration or usual) for pts, duration in frames), default=0)
        return (frames[0][0] if frames else 0) * self.time_base, end * self.time_base

    def _straightened(self) -> list[tuple[int, int]]:
        """Time and duration of each frame, where a look at all packets tells when it is shown."""
        with RecordedReader(self._source, self._store, self._index, self._first) as reader:
            items = (item for item in reader.items() if isinstance(item, Frame))
            return [(frame.pts, frame.duration) for frame in items]


class JoinedReader(RecordedReader):
    """Sources of which each begins where the one before ends, as if they were one.

    What is told of a source is that of the first one; frames, damage and jumps are of all.

    Args:
        sources: The files.
        store: Their segments.
        first: The frame that the output begins with.
    """

    def __init__(self, sources: Sequence[Path], store: SegmentStore, first: Frame) -> None:
        super().__init__(sources[0], store, 0, first)
        self._sources = sources
        self._seams: list[Fraction] = []
        """What to add to the times of each source, in seconds."""
        self._damaged = self._jumps = 0
        self._passed_over: dict[str, int] = {}
        self._shortfall: str | None = None
        self._sound = _SoundSeams()
        self._chapters = super().chapters() if len(sources) == 1 else self._chapters_of_files()

    @property
    def num_frames(self) -> int:
        """Frames there are."""
        return sum(len(record.frames) for record in self._store.records())

    @property
    def files(self) -> list[str]:
        """The files, in order."""
        return [str(source) for source in self._sources]

    @property
    def damaged(self) -> int:
        """Packets and frames lost."""
        return super().damaged + self._damaged

    @property
    def jumps(self) -> int:
        """How often the clocks jumped within the files."""
        return super().jumps + self._jumps

    @property
    def passed_over(self) -> dict[str, int]:
        """What decoders have passed over, and how many bytes of it."""
        found = dict(super().passed_over)
        for what, size in self._passed_over.items():
            found[what] = found.get(what, 0) + size
        return found

    @property
    def shortfall(self) -> str | None:
        """What is missing at the end of a file, for a person, if anything."""
        return super().shortfall or self._shortfall

    @property
    def overlap_seconds(self) -> Fraction:
        """Sound that was left out where two files have some of the same time, in seconds."""
        return self._sound.dropped

    def chapters(self) -> list[Any]:
        """The source's chapters; of several sources one for each, with the file's name."""
        return self._chapters

    def _chapters_of_files(self) -> list[Any]:
        chapters: list[Any] = []
        seam = Fraction(0)
        for index, source in enumerate(self._sources):
            if index:
                with RecordedReader(source, self._store, index, self._first) as reader:
                    begin, end = reader.edges()
            else:
                begin, end = self.edges()
                seam = begin
            self._seams.append(seam - begin)
            edges = {
                "start": round(seam / _MILLISECONDS),
                "end": round((seam + end - begin) / _MILLISECONDS),
            }
            metadata = {"title": source.stem}
            chapters.append(
                {"id": index + 1, "time_base": _MILLISECONDS, "metadata": metadata} | edges
            )
            seam += end - begin
        return chapters

    def items(self) -> Iterator[Item]:
        """The items of all sources, on the caller's thread.

        Raises:
            ReadError: A source cannot be read any more.
        """
        for item in super().items():
            if len(self._sources) > 1 and not isinstance(item, Frame):
                self._sound.see(item)
            yield item
        for index, source in enumerate(self._sources[1:], 1):
            self._sound.begin_file()
            with RecordedReader(source, self._store, index, self._first) as reader:
                for item in reader.items():
                    moved = self._moved(item, self._seams[index])
                    if moved is not None:
                        yield moved
                self._damaged += reader.damaged
                self._jumps += reader.jumps
                self._shortfall = self._shortfall or reader.shortfall
                for what, size in reader.passed_over.items():
                    self._passed_over[what] = self._passed_over.get(what, 0) + size

    def _moved(self, item: Item, shift: Fraction) -> Item | None:
        """An item of a later file at its time; None for one that is not needed."""
        if isinstance(item, Frame):
            return later(item, shift)
        ticks = round(shift / Fraction(item.time_base))
        if item.pts is not None:
            item.pts += ticks
        if item.dts is not None:
            item.dts += ticks
        if item.stream_index >= len(self.container.streams):
            return None  # of a stream that begins within the file
        # the file is closed while packets of it are on their way
        item.stream = self.container.streams[item.stream_index]
        return item if self._sound.takes(item) else None


class _SoundSeams:
    """Leaves out packets of sound that begin before the sound of the file before has ended.

    What is left overlaps by less than half a packet. As each packet has its own time, nothing adds
    up from file to file.
    """

    def __init__(self) -> None:
        self.dropped = Fraction(0)
        """How much was left out, in seconds."""
        # when the last packet of each stream begins, when it ends, and the streams of which this
        # file had none yet
        self._last: dict[int, Fraction] = {}
        self._ends: dict[int, Fraction] = {}
        self._waiting: set[int] = set()

    def begin_file(self) -> None:
        """Another file begins."""
        self._waiting = set(self._ends)

    def see(self, packet: Packet) -> None:
        """Take note of a packet that is written."""
        time = packet.pts if packet.pts is not None else packet.dts
        if packet.stream.type == "audio" and time is not None:
            index, begin = packet.stream_index, time * Fraction(packet.time_base)
            end = begin + (packet.duration or 0) * Fraction(packet.time_base)
            self._last[index] = begin
            self._ends[index] = max(end, self._ends.get(index, end))

    def takes(self, packet: Packet) -> bool:
        """Whether a packet of a later file is to be written."""
        index = packet.stream_index
        time = packet.pts if packet.pts is not None else packet.dts
        if index in self._waiting and time is not None:
            length = (packet.duration or 0) * Fraction(packet.time_base)
            middle = time * Fraction(packet.time_base) + length / 2
            # the last packet of a file may say that it is shorter than the others
            if middle < max(self._ends[index], self._last[index] + length):
                self.dropped += 0 if packet.is_discard else length
                return False
            self._waiting.discard(index)
        self.see(packet)
        return True
