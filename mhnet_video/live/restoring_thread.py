"""The thread of a live run that restores."""

import threading
from collections.abc import Sequence
from typing import Protocol

from mhnet_video.live.exchange import Latest
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.session import Live


class LiveOutput(Protocol):
    """Where every restored frame goes, and the sound with it."""

    def put(self, frame: LiveFrame) -> None:
        """Take a frame; never waits."""

    def check(self) -> bool:
        """Look after the output; whether the run may go on. Raises what must end it."""

    def close(self) -> None:
        """End it; wait until what was put has arrived."""


class RestoringThread:
    """Restores a source until it ends; each frame goes to the screens, then to the outputs.

    Args:
        live: The source.
        frames: Takes the newest frame for screens; is closed at the end.
        outputs: Take every frame; who made them closes them.
    """

    def __init__(
        self, live: Live, frames: Latest[LiveFrame], outputs: Sequence[LiveOutput]
    ) -> None:
        self._live = live
        self._frames = frames
        self._outputs = outputs
        self.error: Exception | None = None
        """What has ended it; None if nothing was wrong."""
        self._thread = threading.Thread(target=self._run, name="mhnet-video live", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the restoration, and wait for the frame in work."""
        self._live.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            for frame in self._live:
                self._frames.put(frame)
                for output in self._outputs:
                    output.put(frame)
        except Exception as error:
            self.error = error
        finally:
            self._frames.close()
