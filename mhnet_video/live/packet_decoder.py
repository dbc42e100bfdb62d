"""Decoding a stream whose packets may be damaged, of another codec, or not wanted by a decoder."""

import av
from av.error import FFmpegError
from av.video.stream import VideoStream

from mhnet_video.media.reading.source import Packet

_MIN_FAILURES = 8
"""Packets in a row that cannot be decoded where the codec is another one, at least."""
_FAILING_SECONDS = 0.75
"""For how long they come, at least."""
_MAX_SILENT_PACKETS = 64
"""Packets in a row without a picture: more than a decoder holds back or skips to a key frame."""


class CodecChangedError(Exception):
    """The packets of a stream are of another codec than it was opened for.

    Args:
        error: The decoder's.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class PacketDecoder:
    """Decodes the packets of a stream; counts those that are lost.

    Args:
        stream: The stream, which is open.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._has_decoded = False
        self._failures = 0
        self._failing_since = 0.0
        self._silent = 0
        self.damaged = 0
        """Packets that could not be decoded, since the stream was opened."""

    def decode(self, packet: Packet | None, now: float) -> list[av.VideoFrame]:
        """The pictures that follow from a packet, or from the end of the stream for None.

        Args:
            packet: The packet.
            now: The present time, in seconds.

        Raises:
            CodecChangedError: It gave pictures before, and now only fails.
        """
        try:
            pictures = self._stream.decode(packet)
        except EOFError:
            pictures = []
        except (FFmpegError, ValueError) as error:
            self._fail(now, error)
            return []
        if pictures or packet is None:
            self._failures = self._silent = 0
            self._has_decoded |= bool(pictures)
            return pictures
        self._silent += 1
        if self._has_decoded and self._silent >= _MAX_SILENT_PACKETS:
            # it gave pictures, takes packets, and gives nothing any more: it begins anew
            self.damaged += self._silent
            self._silent = 0
            self._stream.codec_context.flush_buffers()
        return []

    def _fail(self, now: float, error: Exception) -> None:
        self.damaged += 1
        self._failures += 1
        if self._failures == 1:
            self._failing_since = now
        is_long = now - self._failing_since >= _FAILING_SECONDS
        if self._has_decoded and is_long and self._failures >= _MIN_FAILURES:
            raise CodecChangedError(error) from error
