"""The recordings of a live run: that of the command line, and those that a key begins."""

import glob
import threading
from datetime import datetime
from pathlib import Path

from mhnet_video.config import LiveOutputs
from mhnet_video.errors import MHNetVideoError, WriteError
from mhnet_video.live.connection_events import SoundFormat
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.messages import Messages
from mhnet_video.live.recorder import Recorder
from mhnet_video.live.session import Live


class Recordings:
    """Records while that is wanted; a recording begins with the next frame.

    One thread puts frames; the other methods are for any thread.

    Args:
        live: The source, for its rate and its time of day.
        outputs: The file, and how it is recorded.
        messages: Takes what a person should know.
    """

    def __init__(self, live: Live, outputs: LiveOutputs, messages: Messages) -> None:
        self._live = live
        self._outputs = outputs
        self._messages = messages
        self._lock = threading.Lock()
        self._recorders: list[Recorder] = []
        self._current: Recorder | None = None
        self._is_wanted = outputs.record is not None
        self._next_number = 0
        self._unkept = 0
        """Frames that a recording lacks because there was no memory to keep them."""
        self.trouble = ""
        """Why nothing is recorded although it was wanted; empty where all is well."""

    def put(self, frame: LiveFrame) -> None:
        """Record a frame with its sound, and those that there was no time to restore as they came.

        Raises:
            WriteError: The recording of the command line cannot begin.
        """
        with self._lock:
            if self._is_wanted and self._current is None:
                self._begin(frame.sound_format)
            recorder = self._current
        if recorder is not None:
            for each in (*frame.skipped, *frame.restored):
                recorder.put(each)
            self._unkept += frame.number - self._next_number - len(frame.skipped)
        self._next_number = frame.number + 1

    def toggle(self) -> None:
        """Begin a recording, or end the one there is."""
        if not self._is_wanted:
            self._is_wanted, self.trouble = True, ""
            self._messages.say("recording")
            return
        recorder = self._current
        self.close()
        if recorder is not None and recorder.error is not None:
            self._say_trouble(recorder.error)
        elif recorder is not None:
            self._messages.say(f"recorded {', '.join(recorder.files) or 'nothing'}")

    def check(self) -> bool:
        """End a recording that has failed, and say so; the run goes on where it has other outputs.

        A service manager begins a run that has ended again.
        """
        recorder, outputs = self._current, self._outputs
        if recorder is None or recorder.error is None:
            return True
        self.close()
        if outputs.serve is None and outputs.output is None and not outputs.has_window:
            return False
        self._say_trouble(recorder.error)
        return True

    def close(self) -> None:
        """End the recording there is; wait until its file is complete."""
        with self._lock:
            self._is_wanted = False
            recorder, self._current = self._current, None
        if recorder is not None:
            recorder.close()

    @property
    def destination(self) -> str:
        """The file that is recorded to now; empty for none."""
        recorder = self._current
        return recorder.destination if recorder is not None else ""

    @property
    def files(self) -> tuple[str, ...]:
        """All files that were recorded."""
        return tuple(name for each in self._recorders for name in each.files)

    @property
    def missed(self) -> int:
        """Frames that were not recorded because this machine was too slow."""
        return self._unkept + sum(recorder.missed for recorder in self._recorders)

    @property
    def lost(self) -> list[str]:
        """What the recordings lack of the sound, or have in another way, a line each."""
        return list(dict.fromkeys(line for each in self._recorders for line in each.lost))

    @property
    def error(self) -> MHNetVideoError | None:
        """Why the first recording that failed has failed; None if none has."""
        return next((each.error for each in self._recorders if each.error is not None), None)

    def _say_trouble(self, error: Exception) -> None:
        self.trouble = str(error)
        self._messages.say(self.trouble)

    def _begin(self, sound: SoundFormat | None) -> None:
        outputs = self._outputs
        first = outputs.record if not self._recorders else None
        try:
            recorder = Recorder(
                first or self._free_name(),
                fps=self._live.statistics.source_fps,
                sound=sound,
                wall_begin=lambda: self._live.wall_begin,
                segment_seconds=outputs.segment,
                overwrite=outputs.overwrite and first is not None,
            )
        except WriteError as error:
            if first is not None:
                raise
            # the run goes on without it
            self._is_wanted = False
            self._say_trouble(error)
            return
        self._recorders.append(recorder)
        self._current = recorder

    def _free_name(self) -> str:
        """The name of a recording that a key begins, which must not replace another one."""
        path = Path(self._outputs.record or "mhnet-video.mp4")
        now = datetime.now().strftime("%Y%m%d-%H%M%S")
        name = path.with_name(f"{path.stem}-{now}{path.suffix}")
        number = 2
        while any(name.parent.glob(f"{glob.escape(name.stem)}*")):
            name = path.with_name(f"{path.stem}-{now}-{number}{path.suffix}")
            number += 1
        return str(name)
