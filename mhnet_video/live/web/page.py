"""Contents of the page: its HTML, the state of the run, metrics and snapshots.

Knows no server; `routes` answers requests with it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mhnet_video.live.browser_camera import KEY_TAG, Visitors
from mhnet_video.live.exchange import Latest
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.rendering import JpegEncoder, even_size
from mhnet_video.live.statistics import LiveStatistics
from mhnet_video.live.web.metrics import exposition
from mhnet_video.web.document import Document, read_document

SNAPSHOTS = ("after", "before", "side")
"""What a snapshot may show."""

_STALE_SECONDS = 10.0
"""Age from which a frame is not shown as the newest any more."""
_CAMERA_SIZE = (640, 480)
"""What a visitor's browser is asked for, in pixels, where no size was set."""
_CAMERA_FPS = 25.0
"""What a visitor's browser is asked for, in frames per second, where no rate was set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """The live picture before and after, keys, statistics, and a snapshot."""

    frames: Latest[LiveFrame]
    """The newest frames."""
    statistics: Callable[[], LiveStatistics]
    """Returns the statistics of the run."""
    press: Callable[[str], None] = lambda key: None
    """Handles a key; one of `+`, `-`, `m` and `r`."""
    shown: Callable[[LiveFrame], None] = lambda frame: None
    """Called with each frame that was sent to a visitor."""
    view: str = "split"
    """How the page begins."""
    state: Callable[[], dict[str, Any]] = dict
    """Returns further entries of the state, such as whether it is recorded."""
    recording_trouble: Callable[[], str] = str
    """Returns why nothing is recorded although it was wanted; empty where all is well."""
    cameras: Visitors | None = None
    """Takes the pictures of visitors' own cameras; None for another source."""
    camera_size: tuple[int, int] | None = None
    """What visitors' cameras are asked for, in pixels; None for the usual size."""
    camera_fps: float | None = None
    """What visitors' cameras are asked for, in frames per second; None for the usual rate."""

    def document(self, *, has_webrtc: bool) -> Document:
        """The page itself; `has_webrtc`: whether its pictures may come over WebRTC."""
        size, fps = self.camera_size or _CAMERA_SIZE, self.camera_fps or _CAMERA_FPS
        values = {
            "view": self.view,
            "source": "visitor" if self.cameras is not None else "camera",
            "webrtc": "yes" if has_webrtc else "",
            "width": str(size[0]),
            "height": str(size[1]),
            "fps": f"{fps:g}",
        }
        return read_document("mhnet_video.live.web", values)

    @property
    def is_fresh(self) -> bool:
        """Whether a frame came lately."""
        frame = self.frames.item
        return frame is not None and time.monotonic() - frame.arrival < _STALE_SECONDS

    @property
    def trouble(self) -> str:
        """Why there are no pictures, in a sentence; empty if there are, or nobody sends any."""
        if self.is_fresh or (self.cameras is not None and not self.cameras.is_taken):
            return ""
        return self.statistics().trouble or "no picture yet"

    def status(self, watching: int) -> dict[str, Any]:
        """The state of the run; `watching` is the number of visitors who watch."""
        is_taken = self.cameras is not None and self.cameras.is_taken
        more = {"visitors": watching, "is_camera_taken": is_taken}
        return self.statistics().to_dict() | self.state() | more

    def metrics(self, watching: int) -> bytes:
        """The metrics for Prometheus; `watching` is the number of visitors who watch."""
        is_recording = bool(self.state().get("recording"))
        return exposition(
            self.statistics(), is_up=self.is_fresh, is_recording=is_recording, visitors=watching
        )

    def is_for(self, visitor: str, frame: LiveFrame) -> bool:
        """Whether a visitor may see a frame: one of his own camera is for nobody else.

        Args:
            visitor: His key; empty where his camera is not the source.
            frame: The frame.
        """
        if self.cameras is None:
            return True
        return frame.before.tags.get(KEY_TAG) == visitor and self.cameras.is_present(visitor)

    def snapshot(self, kind: str, visitor: str = "") -> bytes | None:
        """The newest frame as JPEG at its full size; None if this visitor has none lately.

        Args:
            kind: One of `SNAPSHOTS`.
            visitor: His key; empty where his camera is not the source.
        """
        frame = self.frames.item
        if frame is None or not self.is_fresh or not self.is_for(visitor, frame):
            return None
        chosen = {"after": [frame.after], "before": [frame.before]}
        size = even_size(frame.after, frame.after.upright_size)
        return JpegEncoder().encode(chosen.get(kind, [frame.before, frame.after]), size)
