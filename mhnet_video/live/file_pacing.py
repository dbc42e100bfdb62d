"""Playing a file at its own speed: when each of its frames is due."""

_LATE_SECONDS = 1.0
"""A file that is behind its schedule by more goes on from where it is, without catching up."""
_AHEAD_SECONDS = 10.0
"""A frame that is due later than this belongs to times that have jumped."""


class FilePacing:
    """The schedule of a file's frames; it begins with the first frame that is asked for."""

    def __init__(self) -> None:
        self.offset: float | None = None
        """What is added to the file's times, in seconds; None before the first frame."""

    def due(self, file_time: float, now: float) -> float:
        """When a frame is to be shown, on the clock of `now`.

        Args:
            file_time: Its time in the file, in seconds.
            now: The present time, in seconds.
        """
        if self.offset is not None:
            late = now - (file_time + self.offset)
            if late > _LATE_SECONDS or late < -_AHEAD_SECONDS:
                self.offset = None
        if self.offset is None:
            self.offset = now - file_time
        return file_time + self.offset
