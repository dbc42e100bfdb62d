"""The statistics of a live restoration, and the meters of its rate and latency."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from mhnet_video.live.adaptive_quality import Level
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.rates import ThroughputMeter

_RATE_SECONDS = 2.0
"""Over how long the rates of the statistics are measured."""


@dataclass(frozen=True, kw_only=True)
class LiveStatistics:
    """The state of a live restoration."""

    source: str
    width: int
    """Of the frames as they are shown, in pixels; 0 before the first."""
    height: int
    frames: int
    """Restored so far."""
    dropped: int
    """Frames of the source that were not restored because newer ones were there."""
    reconnects: int
    """How often the source came back."""
    damaged: int
    """Packets that could not be decoded."""
    source_fps: float
    """Frame rate of the source, in frames per second."""
    fps: float
    """Frames a second that are shown, over the last two seconds."""
    latency_seconds: float
    """From the arrival of a frame until it is shown, the median of the last frames."""
    network_seconds: float
    """Time that the last frame took to restore."""
    model: str
    scale: float
    """Working scale of the network."""
    strength: float
    device: str
    engine: str
    trouble: str
    """What is wrong with the source, in a sentence; empty if nothing is."""

    @property
    def level(self) -> str:
        """Model and working scale, in words; empty before they are chosen."""
        return str(Level(self.model, self.scale))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


class DisplayMeter:
    """Rate and latency of the frames that are shown, or without a screen of those restored.

    Any thread may use it.

    Args:
        clock: A clock that never goes back, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._restored = ThroughputMeter(_RATE_SECONDS)
        self._shown = ThroughputMeter(_RATE_SECONDS)
        self._shown_number = -1
        self._lock = threading.Lock()

    def restored(self, frame: LiveFrame) -> None:
        """Count a frame that has been restored."""
        now = self._clock()
        self._restored.note(now, now - frame.arrival)

    def shown(self, frame: LiveFrame) -> None:
        """Count a frame that is on a screen; only the first screen that shows it counts."""
        with self._lock:
            if frame.number <= self._shown_number:
                return
            self._shown_number = frame.number
        now = self._clock()
        self._shown.note(now, now - frame.arrival)

    def read(self) -> tuple[float, float]:
        """Frames per second now, and the median latency of the last frames in seconds."""
        now = self._clock()
        fps = self._shown.rate(now)
        if fps:
            return fps, self._shown.median_seconds
        return self._restored.rate(now), self._restored.median_seconds
