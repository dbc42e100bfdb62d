"""When the frames of an output are shown, counted in the output's own units of time."""

from collections.abc import Iterator
from fractions import Fraction

from mhnet_video.frame import Frame
from mhnet_video.media.fidelity import Notes, counted
from mhnet_video.media.tracks.audio_pauses import MAX_ADDED

_VISIBLE_SECONDS = Fraction(1, 500)
"""A frame that is moved by less is at its time."""


class OutputClock:
    """Gives each frame a time in the output that is later than that of the frame before.

    Args:
        time_base: Length of one unit, in seconds.
        origin: Time of the source that becomes zero in the output, in seconds.
        fps: Nominal rate, for frames that do not say how long they are shown.
        end: Where the part that was asked for ends, on the source's clock in seconds; None for
            the end of the source.
    """

    def __init__(
        self, time_base: Fraction, *, origin: Fraction, fps: Fraction, end: Fraction | None
    ) -> None:
        self.time_base = time_base
        self.origin = origin
        self.end = -(1 << 62)
        """When the frame that is shown last ends, in units."""
        self.moved = 0
        """Frames that were not later than the one before."""
        self.astray = 0
        """Frames whose time is damaged: months later than the one before."""
        self.uneven = 0
        """Frames whose time a format or an encoder of one frame rate cannot hold."""
        self.shown_again = 0
        """Frames that were added because the format knows no pause as long as the source's."""
        self._usual_seconds = 1 / fps
        self._source_end = end
        self._last_pts: int | None = None
        self._longest_step: int | None = None
        self._limited_by = ""

    @property
    def last(self) -> int:
        """The time of the frame that was placed last, in units; 0 before the first one."""
        return self._last_pts or 0

    def limit_steps(self, step: int, holder: str) -> None:
        """Let no frame be later than the one before by more; the shortest such limit counts.

        Args:
            step: Units.
            holder: The format or the encoder that knows no longer pause.
        """
        if self._longest_step is None or step < self._longest_step:
            self._longest_step, self._limited_by = step, holder

    def time_of(self, frame: Frame) -> Fraction:
        """When a frame is shown in the output, in seconds."""
        return frame.pts * frame.time_base - self.origin

    def repeats_before(self, frame: Frame) -> Iterator[tuple[int, int]]:
        """When the last picture is shown again, where the pause before a frame is too long.

        Args:
            frame: The frame that ends the pause.

        Yields:
            The time of the picture and its longest duration, in units.
        """
        step = self._longest_step
        if step is None or self._last_pts is None:
            return
        pts = round(self.time_of(frame) / self.time_base)
        if pts - self._last_pts > MAX_ADDED * step:
            return  # of months: a damaged number, which is moved
        while pts - self._last_pts > step:
            self._last_pts += step
            self.shown_again += 1
            yield self._last_pts, step

    def place(self, frame: Frame) -> tuple[int, int]:
        """The time and the duration of the next frame, in units."""
        time = self.time_of(frame)
        pts = round(time / self.time_base)
        self.uneven += abs(pts * self.time_base - time) > _VISIBLE_SECONDS
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
            self.moved += 1
        if self._last_pts is not None and self._longest_step is not None:
            farthest = self._last_pts + self._longest_step
            self.astray += pts > farthest
            pts = min(pts, farthest)
        self._last_pts = pts
        seconds = frame.duration * frame.time_base or self._usual_seconds
        if self._source_end is not None:
            # one that is shown through a pause may be longer than the part that was asked for
            left = self._source_end - self.origin - time
            seconds = min(seconds, max(left, self._usual_seconds))
        duration = max(1, round(seconds / self.time_base))
        if self._longest_step is not None:
            duration = min(duration, self._longest_step)
        self.end = max(self.end, pts + duration)
        return pts, duration

    def report(self, notes: Notes, *, holder: str, shift: Fraction | None, jumps: int) -> None:
        """Report where times are not the source's.

        Args:
            notes: What it is added to.
            holder: The format or the encoder of one frame rate, if there is one.
            shift: Where the source starts, in seconds, if the output starts at zero instead.
            jumps: How often the source's clock jumped.
        """
        if self.shown_again:
            frames = counted(self.shown_again, "frame was", "frames were")
            why = f"{self._limited_by} knows no pause so long"
            notes.lose("times", f"times: {frames} added in pauses, the same as before", why)
        if self.astray:
            frames = counted(self.astray, "frame", "frames")
            notes.lose("times", f"times: {frames}, months later than the one before, moved to it")
        if shift:
            start = f"{float(shift):.3f} s"
            notes.lose("times", f"times: the source starts at {start}, the output at 0")
        if jumps:
            notes.lose(
                "times",
                f"times: the recording's clock jumped ({counted(jumps, 'time')}); "
                "in the output the parts follow each other",
            )
        if self.uneven:
            notes.lose("times", f"times: {holder} knows one frame rate only")
        elif self.moved:
            notes.lose(
                "times",
                f"times: {counted(self.moved, 'frame')}, not later than the one before, "
                f"{'was' if self.moved == 1 else 'were'} moved by {self.time_base} s or more",
            )
