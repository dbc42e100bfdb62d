"""The forwarding of a live run, to an address or to standard output, from the first frame on."""

from mhnet_video.config import LiveOutputs
from mhnet_video.live.connection_events import SoundFormat
from mhnet_video.live.forwarder import Forwarder
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.pipe import PipeWriter
from mhnet_video.live.session import Live


class Forwarding:
    """Forwards restored frames and the sound, at the rate that the source has by then.

    One thread puts frames; the other methods are for any thread, `close` once no frames come.

    Args:
        live: The source, for its rate.
        outputs: Where to, and in which format.
    """

    def __init__(self, live: Live, outputs: LiveOutputs) -> None:
        self._live = live
        self._outputs = outputs
        self._sender: Forwarder | PipeWriter | None = None

    def put(self, frame: LiveFrame) -> None:
        """Forward a frame with its sound; never waits."""
        if self._sender is None:
            self._sender = self._begin(frame.sound_format)
        for item in frame.restored:
            self._sender.put(item)

    def _begin(self, sound: SoundFormat | None) -> Forwarder | PipeWriter:
        fps, output = self._live.statistics.source_fps, self._outputs.output
        if output == "-":
            return PipeWriter(self._outputs.format, fps=fps, sound=sound)
        return Forwarder(str(output), fps=fps, sound=sound)

    def check(self) -> bool:
        """Whether somebody takes the frames; raise what has ended the forwarding.

        Raises:
            MHNetVideoError: Trying again would not help.
        """
        if self._sender is None:
            return True
        if self._sender.error is not None:
            raise self._sender.error
        return not self._sender.has_ended

    def close(self) -> None:
        """End the forwarding."""
        if self._sender is not None:
            self._sender.close()

    @property
    def frames(self) -> int:
        """Frames that were sent."""
        return self._sender.frames if self._sender is not None else 0

    @property
    def lost(self) -> list[str]:
        """What was sent lacks of the sound, or has in another way, a line each."""
        return self._sender.lost if self._sender is not None else []

    @property
    def trouble(self) -> str:
        """What is wrong with the receiver, in a sentence; empty if nothing is."""
        return self._sender.trouble if self._sender is not None else ""
