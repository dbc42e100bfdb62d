"""The forwarding of a live run, which begins with the first frame."""

from mhnet_video.live.forwarder import Forwarder
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.session import Live


class Forwarding:
    """Forwards restored frames to an address, at the rate that the source has by then.

    One thread puts frames; the other methods are for any thread, `close` once no frames come.

    Args:
        live: The source, for its rate.
        url: Where to.
    """

    def __init__(self, live: Live, url: str) -> None:
        self._live = live
        self._url = url
        self._forwarder: Forwarder | None = None

    def put(self, frame: LiveFrame) -> None:
        """Forward a frame; never waits."""
        if self._forwarder is None:
            self._forwarder = Forwarder(self._url, fps=self._live.statistics.source_fps)
        self._forwarder.put(frame.after)

    def check(self) -> None:
        """Raise what has ended the forwarding.

        Raises:
            MHNetVideoError: Trying again would not help.
        """
        if self._forwarder is not None and self._forwarder.error is not None:
            raise self._forwarder.error

    def close(self) -> None:
        """End the forwarding."""
        if self._forwarder is not None:
            self._forwarder.close()

    @property
    def frames(self) -> int:
        """Frames that were sent."""
        return self._forwarder.frames if self._forwarder is not None else 0

    @property
    def trouble(self) -> str:
        """What is wrong with the receiver, in a sentence; empty if nothing is."""
        return self._forwarder.trouble if self._forwarder is not None else ""
