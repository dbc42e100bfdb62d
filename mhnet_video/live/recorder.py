"""Writes live frames and sound to files, on a thread of its own.

Whoever passes them never waits. They wait in a queue; where the disk or the encoder is too
slow for too long, frames are left out and counted.
"""

import contextlib
import os
import re
import threading
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.live.connection_events import TIME_BASE, SoundFormat
from mhnet_video.live.exchange import MediaQueue
from mhnet_video.live.recording_file import RecordingFile
from mhnet_video.live.sound import SoundPacket
from mhnet_video.locator import shown
from mhnet_video.media.fidelity import counted
from mhnet_video.media.formats.containers import format_of
from mhnet_video.media.output_file import check_destination

_MAX_WAITING_BYTES = 256 << 20
"""Bytes that may wait for the disk or the encoder."""
_LOOK_SECONDS = 0.5
"""How often to look whether the program is ending without closing the recorder."""


class Recorder:
    """Records live frames at their times into a file, or one after another.

    Args:
        destination: The file to create; with segments, each has its number before the suffix.
        fps: Frames a second that are to be expected.
        sound: How the source's sound is coded; None where it has none.
        wall_begin: Gives the time of day at which the times of frames begin, in seconds since
            1970; it is asked for each file, as the system's clock may be set meanwhile.
        segment_seconds: After how long another file is begun; None for one file. Their numbers
            follow those of the segments that are there.
        overwrite: Whether existing files may be replaced.

    Raises:
        WriteError: The destination cannot be created, exists, or names no format.
    """

    def __init__(
        self,
        destination: str | os.PathLike[str],
        *,
        fps: float,
        sound: SoundFormat | None = None,
        wall_begin: Callable[[], float] = lambda: 0.0,
        segment_seconds: float | None = None,
        overwrite: bool = False,
    ) -> None:
        self.destination = os.fspath(destination)
        self._fps = fps
        self._sound_format = sound
        self._sound: deque[SoundPacket] = deque()
        self._origin: Fraction | None = None
        """When the file began that follows another; None in the first one."""
        self._late = 0
        """Packets of sound that came when the file they belong to was complete."""
        self._wall_begin = wall_begin
        self._segment = segment_seconds
        self._overwrite = overwrite
        self._number = 0
        if segment_seconds is not None and not overwrite:
            self._number = _last_segment(Path(self.destination))
        check_recording(self.destination, segment_seconds, overwrite)
        self.files: list[str] = []
        """The files that are complete."""
        self.frames = 0
        """Frames written."""
        self.lost: list[str] = []
        """What the complete files lack of the sound, or have in another way, a line each."""
        self.error: MHNetVideoError | None = None
        """Why recording has ended before it was closed; None while it goes on."""
        self._queue = MediaQueue(_MAX_WAITING_BYTES)
        self._thread = threading.Thread(target=self._run, name="mhnet-video recorder")
        self._thread.start()

    @property
    def missed(self) -> int:
        """Frames left out because the disk or the encoder was too slow."""
        return self._queue.missed

    def put(self, item: Frame | SoundPacket) -> None:
        """Record a frame, or sound, which may be ahead of the frames; returns at once."""
        if self.error is None:
            self._queue.put(item)

    def close(self) -> None:
        """Write what waits, and complete the file."""
        self._queue.close()
        self._thread.join()

    def _run(self) -> None:
        file: RecordingFile | None = None
        name = ""
        end: float | None = None
        size = (0, 0)
        try:
            while (item := self._next()) is not None:
                if isinstance(item, SoundPacket):
                    self._sound.append(item)
                    self._sound_format = item.format
                    continue
                frame = item
                if file is not None:
                    self._write_sound(file, until=frame.pts * frame.time_base)
                time_seconds = float(frame.pts * frame.time_base)
                is_other = self._segment is not None and (frame.width, frame.height) != size
                if file is not None and ((end is not None and time_seconds >= end) or is_other):
                    self._finish(file, name)
                    file = None
                if file is None:
                    if self.files:
                        self._origin = frame.pts * frame.time_base
                    name = self._next_name()
                    begin = self._wall_begin() + time_seconds
                    file = RecordingFile(
                        name, frame, self._fps, self._overwrite, begin, self._sound_format
                    )
                    size = (frame.width, frame.height)
                    end = None if self._segment is None else time_seconds + self._segment
                file.write(frame)
                self.frames += 1
            if file is not None:
                self._write_sound(file)
                self._finish(file, name)
            if self._late:
                why = "it came later than the pictures beside it, when their segment was complete"
                self.lost.append(f"sound: {counted(self._late, 'packet', 'packets')}; {why}")
        except Exception as error:  # whatever it is, nobody else could tell of it
            partial = file.abandon() if file is not None else None
            said = f" What was recorded until then is in {partial}." if partial else ""
            why = str(error) if isinstance(error, MHNetVideoError) else f"{name}: {error}."
            self.error = WriteError(f"{why}{said}")
            self._queue.clear()

    def _write_sound(self, file: RecordingFile, until: Fraction | None = None) -> None:
        """Write the sound before a time; all of it for None."""
        while self._sound and (until is None or self._sound[0].pts * TIME_BASE < until):
            sound = self._sound.popleft()
            if self._origin is not None and sound.pts * TIME_BASE < self._origin:
                self._late += 1
            else:
                file.write_sound(sound)

    def _finish(self, file: RecordingFile, name: str) -> None:
        file.finish()
        self.files.append(name)
        self.lost += [line for line in file.lost if line not in self.lost]

    def _next(self) -> Frame | SoundPacket | None:
        """The next item, waited for; None when there are no more."""
        while (item := self._queue.get(_LOOK_SECONDS)) is None and not self._queue.is_over:
            if not threading.main_thread().is_alive():
                # nobody is left to close it: the file is completed, and the process can end
                self._queue.close()
        return item

    def _next_name(self) -> str:
        self._number += 1
        if self._segment is None:
            return self.destination
        return str(_segment(Path(self.destination), self._number))


def _segment(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number:04d}{path.suffix}")


def _segment_pattern(path: Path) -> re.Pattern[str]:
    # a date has eight digits
    return re.compile(rf"{re.escape(path.stem)}-(\d{{4,7}}){re.escape(path.suffix)}")


def _last_segment(path: Path) -> int:
    """The highest number that a segment of this name has already; 0 where there is none."""
    names = _segment_pattern(path)
    with contextlib.suppress(OSError):
        found = [names.fullmatch(name) for name in os.listdir(path.parent)]
        return max((int(each[1]) for each in found if each), default=0)
    return 0


def check_recording(
    destination: str, segment_seconds: float | None, overwrite: bool, source: str | None = None
) -> None:
    """Find out whether a recording can begin.

    Args:
        destination: The file.
        segment_seconds: As for `Recorder`.
        overwrite: Likewise.
        source: The file that is restored; None where it is none.

    Raises:
        WriteError: The destination cannot be created, exists, names no format, or is the source.
    """
    if destination == "-":
        raise WriteError("a live recording is a file; name one that ends in .mp4 or .mkv.")
    name, kind = shown(destination), format_of(destination)
    if kind.is_constant_rate:
        raise WriteError(f"{name}: {kind.label} has no times for frames; record to .mp4 or .mkv.")
    first = destination
    if segment_seconds is not None:
        path = Path(destination)
        first = str(_segment(path, 1 if overwrite else _last_segment(path) + 1))
        if overwrite and source is not None:
            number = _segment_pattern(path).fullmatch(Path(source).name)
            if number is not None and int(number[1]):
                first = str(_segment(path, int(number[1])))
    check_destination(first, source=source, overwrite=overwrite)
