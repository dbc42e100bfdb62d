"""Write the frames of one segment into a file of its own, and its record beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mhnet_video.closing import Closing
from mhnet_video.frame import Frame
from mhnet_video.media.fidelity import Notes
from mhnet_video.media.frames.side_data import FrameSideData
from mhnet_video.media.reading.decoder import Item
from mhnet_video.media.segments.segment_encoding import SegmentEncoding
from mhnet_video.media.segments.segment_file import SegmentFile
from mhnet_video.media.segments.segment_reader import SegmentReader
from mhnet_video.media.segments.segment_store import SegmentRecord, SegmentStore


class SegmentWriter(Closing):
    """The file of one segment; it appears under its name when it is complete.

    Args:
        store: The folder.
        index: The segment's number.
        source: Index of its source.
        reader: Decodes its frames, and tells when they are complete.
        encoding: How it is encoded.
        is_whole: Tells at the end whether what was written is the whole segment.
    """

    def __init__(
        self,
        store: SegmentStore,
        index: int,
        source: int,
        reader: SegmentReader,
        encoding: SegmentEncoding,
        *,
        is_whole: Callable[[], bool],
    ) -> None:
        self.frames = 0
        """Frames written."""
        self.notes = Notes()
        """Nothing: what is lost is told of the output."""
        self.encoder = encoding.encoder
        self.pixel_format = encoding.settings.pixel_format
        self.passed_through = 0
        """Frames for which the network gave no numbers; to be set before `finish`."""
        self.changes: list[list[Any]] = []
        """How far each frame is from the source's, for evidence; likewise."""
        self.dry = 0
        """Frames that passed as they are; to be set before `finish`."""
        self.scales: list[list[Any]] = []
        """See `SegmentRecord`; likewise."""
        self._store = store
        self._index = index
        self._source = source
        self._reader = reader
        self._encoding = encoding
        self._is_whole = is_whole
        name = f"{store.output_name} (segment {index + 1})"
        self._file = SegmentFile(store.path(index), name, encoding)
        self._side_data = FrameSideData()
        # what the first frame of all carries is told by whoever writes the output
        self._side_data.see(encoding.first)
        self._side_data_before = dict(self._side_data.found)
        self._is_finished = False

    @property
    def has_frames(self) -> bool:
        """Whether a frame was passed to it."""
        return self._file.has_frames

    def write(self, item: Item) -> None:
        """Encode a frame.

        Raises:
            WriteError: The encoder does not open, or the disk refuses.
        """
        if not isinstance(item, Frame):
            return
        self._file.write(item)
        if self.frames or self._index:
            self._side_data.see(item)
        self.frames += 1

    def finish(self) -> None:
        """Complete the file and its record; a segment that lacks frames is dropped.

        Raises:
            WriteError: The disk refuses.
        """
        file = self._file
        is_counted = self.frames == self._reader.num_own
        if not file.has_frames or not is_counted or not self._is_whole():
            self.abandon()
            return
        file.complete()
        self._is_finished = True
        before = self._side_data_before
        times = zip(self._reader.own, file.placed, strict=True)
        record = SegmentRecord(
            source=self._source,
            frames=[[pts, duration, placed] for (pts, duration), placed in times],
            packets=file.packets,
            time_base=str(self._encoding.settings.time_base),
            bytes=self._store.path(self._index).stat().st_size,
            header=file.header,
            damaged=self._reader.damaged,
            passed_through=self.passed_through,
            dry=self.dry,
            scales=self.scales,
            scaled=file.changes.scaled,
            changed=file.changes.counts(),
            side_data={
                what: size - before.get(what, 0)
                for what, size in self._side_data.found.items()
                if size != before.get(what)
            },
            changes=self.changes,
        )
        self._store.save(self._index, record)

    def close(self) -> None:
        """Remove the file unless it was finished."""
        self.abandon()

    def abandon(self, *, is_quick: bool = False) -> Path | None:
        """Remove the file unless it was finished.

        Args:
            is_quick: Nothing: it is always so.

        Returns:
            None, as nothing is left.
        """
        if not self._is_finished:
            self._is_finished = True
            self._file.discard()
        return None
