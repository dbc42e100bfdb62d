"""Playing a file at its own speed: when each of its frames is due."""

_LATE_SECONDS = 1.0
"""A file that is behind its schedule by more goes on from where it is, without catching up."""
_AHEAD_SECONDS = 10.0
"""A frame that is due later than this belongs to times that have jumped."""


class FilePacing:
    """The schedule of a file's frames; it begins with the first frame that is asked for."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def due(self, file_time: float, now: float) -> float:
        """When a frame is to be shown, on the clock of `now`.

        Args:
            file_time: Its time in the file, in seconds.
            now: The present time, in seconds.
        """
        if self._offset is not None:
            late = now - (file_time + self._offset)
            if late > _LATE_SECONDS or late < -_AHEAD_SECONDS:
                self._offset = None
        if self._offset is None:
            self._offset = now - file_time
        return file_time + self._offset
