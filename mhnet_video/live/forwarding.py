"""The forwarding of a live run: to an address, to standard output or to a virtual camera."""

from mhnet_video.config import LiveOutputs
from mhnet_video.live.connection_events import SoundFormat
from mhnet_video.live.forwarder import Forwarder
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.pipe import PipeWriter, check_reader
from mhnet_video.live.session import Live
from mhnet_video.live.stream_formats import CAMERA
from mhnet_video.live.virtual_camera import VirtualCamera

Sender = Forwarder | PipeWriter | VirtualCamera
"""Whatever takes frames and sound."""


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
        self._sender: Sender | None = None

    def put(self, frame: LiveFrame) -> None:
        """Forward a frame with its sound; never waits."""
        if self._sender is None:
            self._sender = self._begin(frame.sound_format)
        for item in frame.restored:
            self._sender.put(item)

    def _begin(self, sound: SoundFormat | None) -> Sender:
        fps, output = self._live.statistics.source_fps, self._outputs.output
        if output == "-":
            return PipeWriter(self._outputs.format, fps=fps, sound=sound)
        if str(output).startswith(CAMERA):
            return VirtualCamera(str(output).removeprefix(CAMERA), fps=fps)
        return Forwarder(str(output), fps=fps, sound=sound)

    def check(self) -> bool:
        """Whether somebody takes the frames; raise what has ended the forwarding.

        Raises:
            MHNetVideoError: Trying again would not help.
        """
        if self._sender is None:
            if self._outputs.output == "-":
                check_reader()
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
