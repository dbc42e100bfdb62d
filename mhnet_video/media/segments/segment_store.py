"""The hidden folder in which the segments of an unfinished output wait for the others.

`.NAME.parts` stands beside the output. `plan.json` says of which sources and settings the segments
are. A segment is complete when its record is there, and is what the record says. Several processes,
of one machine or of several, may make different ones at the same time.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from filelock import FileLock, Timeout

from mhnet_video.errors import ReadError, WriteError
from mhnet_video.locator import shown
from mhnet_video.media.output_file import why_unwritable
from mhnet_video.media.reading.source import Packet, packets_of
from mhnet_video.media.segments.segment_plan import SegmentPlan
from mhnet_video.system import release, replace_file

SEGMENT_FORMAT = "nut"
"""FFmpeg's name of the segments' format, which stores what encoders make as it is."""
_PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """What is known of a complete segment beside its pictures."""

    source: int
    """Index of the source."""
    frames: list[list[int]]
    """Time and duration of each frame in ticks of the source, and its time in `time_base`."""
    packets: list[list[int]]
    """Times at which each packet is shown and decoded, and its duration, in `time_base`."""
    time_base: str
    """Length of one tick of the packets, in seconds."""
    bytes: int
    """Size of the segment's file."""
    header: str
    """Fingerprint of what the encoder puts into the output's header."""
    damaged: int
    """Packets and frames that could not be decoded."""
    passed_through: int
    """Frames for which the network gave no numbers."""
    scaled: int
    """Frames of another size than the first."""
    changed: list[list[Any]] = field(default_factory=list)
    """How frames differ from the first, as `FrameChanges` counts it."""
    dry: int = 0
    """Frames that passed as they are, because a cheap look showed nothing to take out."""
    scales: list[list[Any]] = field(default_factory=list)
    """Working scales of the network: how large, why, and for about how many frames."""
    side_data: dict[str, int] = field(default_factory=dict)
    """What frames carried beside their samples, and how many bytes."""
    changes: list[list[Any]] = field(default_factory=list)
    """How far each frame is from the source's, as evidence has it; empty without evidence."""


class SegmentStore:
    """The folder of one output.

    Args:
        output: The output's path.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output.with_name(f".{output.name}.parts")
        self.name = shown(self.folder)
        self.output_name = shown(output)
        self._sources: list[int] = []
        """The source of each segment, by its index."""

    @property
    def count(self) -> int:
        """Segments there are to be."""
        return len(self._sources)

    def is_there(self) -> bool:
        """Whether a run has left something."""
        return (self.folder / _PLAN).exists()

    def made_of(self) -> dict[str, Any]:
        """What the segments are made of that a run has left; empty where there are none."""
        try:
            work = json.loads((self.folder / _PLAN).read_text(encoding="utf-8"))["work"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return work if isinstance(work, dict) else {}

    def load(self, work: dict[str, Any]) -> SegmentPlan | None:
        """The plan of a run before; None where it was of another work, or cannot be read.

        Args:
            work: What the segments are made of, as plain values.
        """
        # as it is after its way through a file
        if self.made_of() != json.loads(json.dumps(work)):
            return None
        try:
            plain = json.loads((self.folder / _PLAN).read_text(encoding="utf-8"))
            plan = SegmentPlan.from_dict(plain["plan"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._sources = [segment.source for segment in plan.segments]
        return plan

    def begin(self, work: dict[str, Any], plan: SegmentPlan) -> None:
        """Begin anew, with an empty folder and a plan.

        Raises:
            WriteError: The folder cannot be created or cleared, or the disk is full.
        """
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir()
        except OSError as error:
            raise WriteError(
                f"the folder {self.name} cannot be created: {why_unwritable(error)}."
            ) from error
        self._sources = [segment.source for segment in plan.segments]
        try:
            self._write(self.folder / _PLAN, {"work": work, "plan": plan.to_dict()})
        except WriteError:
            self.remove()
            raise

    def path(self, index: int) -> Path:
        """The file of a segment."""
        return self.folder / f"{index:06d}.{SEGMENT_FORMAT}"

    @contextmanager
    def claim(self, index: int) -> Iterator[bool]:
        """Hold a segment, so that nobody else makes it; a process that ends lets it go.

        Args:
            index: The segment.

        Yields:
            Whether it is held; False while another process has it.
        """
        lock = FileLock(self.path(index).with_suffix(".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError):
            yield True  # without locks, it is up to the user that there is one process at a time
            return
        try:
            for path in self.folder.glob(f"{index:06d}.partial*"):
                path.unlink(missing_ok=True)  # of a run that was killed
            yield True
        finally:
            release(lock)

    @property
    def is_complete(self) -> bool:
        """Whether all segments are."""
        # whether there are records is soon known, which matters to thousands of segments
        are_there = all(self._record_path(index).exists() for index in range(self.count))
        return are_there and all(map(self.has, range(self.count)))

    def _record_path(self, index: int) -> Path:
        return self.path(index).with_suffix(".json")

    def save(self, index: int, record: SegmentRecord) -> None:
        """Complete a segment whose file is there.

        Raises:
            WriteError: The disk refuses.
        """
        self._write(self._record_path(index), asdict(record))

    def has(self, index: int) -> bool:
        """Whether a segment is complete."""
        try:
            return self.record(index).bytes == self.path(index).stat().st_size
        except (ReadError, OSError):
            return False

    def record(self, index: int) -> SegmentRecord:
        """The record of a segment.

        Raises:
            ReadError: It is not there, or is none.
        """
        try:
            plain = json.loads(self._record_path(index).read_text(encoding="utf-8"))
            return SegmentRecord(**plain)
        except (OSError, ValueError, TypeError) as error:
            raise ReadError(
                f"segment {index + 1} in {self.name} cannot be read; remove that folder, and begin "
                "again."
            ) from error

    def records(self, source: int | None = None) -> Iterator[SegmentRecord]:
        """The records of all segments in order, or of those of one source."""
        for index, of in enumerate(self._sources):
            if source in (None, of):
                yield self.record(index)

    def packets(self, index: int) -> Iterator[Packet]:
        """The packets of a segment, at the times of its record.

        Raises:
            ReadError: The file is not what its record says.
        """
        record = self.record(index)
        time_base = Fraction(record.time_base)
        count = 0
        try:
            with av.open(str(self.path(index)), format=SEGMENT_FORMAT) as container:
                for packet in packets_of(container, container.streams.video[0]):
                    if not packet.size:
                        continue
                    packet.pts, packet.dts, packet.duration = record.packets[count]
                    packet.time_base = time_base
                    count += 1
                    yield packet
        except (FFmpegError, OSError, IndexError) as error:
            raise self._is_damaged(index) from error
        if count != len(record.packets):
            raise self._is_damaged(index)

    def _is_damaged(self, index: int) -> ReadError:
        path = shown(self.path(index))
        return ReadError(
            f"{path} is damaged; remove it, and the same command makes it and goes on."
        )

    def remove(self) -> None:
        """Remove the folder, as far as the system lets it go."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Remove the folder if it has nothing but a plan: nobody has begun a segment in it."""
        with suppress(OSError):
            if os.listdir(self.folder) == [_PLAN]:
                self.remove()

    def _write(self, path: Path, plain: dict[str, Any]) -> None:
        partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        try:
            with open(partial, "w", encoding="utf-8") as file:
                json.dump(plain, file)
                file.flush()
                # on the disk before it has the name
                os.fsync(file.fileno())
            replace_file(partial, path)
        except OSError as error:
            raise WriteError(
                f"{shown(path)} cannot be written: {why_unwritable(error)}."
            ) from error
