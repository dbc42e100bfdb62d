"""What is held back until the header of an output can be written, which must be right at once."""

from fractions import Fraction

from av.stream import Stream

from mhnet_video.frame import Frame
from mhnet_video.media.reading.decoder import Item
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import COVER

_MAX_FRAMES = 40
"""Most frames that are held."""
_MAX_BYTES = 96 << 20
"""Most memory of frames that are held."""
_LATE_SECONDS = 1
"""A stream that begins so much later than the video is not waited for."""


class HeldItems:
    """Frames and packets in their order, until enough is known to write the header.

    Args:
        reader: The source; by the first packet of each of its streams the muxer is asked whether
            it takes the stream.
    """

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self.items: list[Item] = []

    @property
    def frames(self) -> list[Frame]:
        """The frames among the items."""
        return [item for item in self.items if isinstance(item, Frame)]

    @property
    def is_enough(self) -> bool:
        """Whether there is a frame, and a packet of each stream; or more than may be held."""
        frames = self.frames
        if not frames or len(frames) >= _MAX_FRAMES:
            return bool(frames)
        if sum(frame.num_bytes for frame in frames) > _MAX_BYTES:
            return True
        seen = {self._reader.stream.index, *self.first_packets()}
        streams = self._reader.container.streams
        return all(
            stream.index in seen or stream.disposition & COVER or self._is_late(stream)
            for stream in (*streams.audio, *streams.video)
        )

    def _is_late(self, stream: Stream) -> bool:
        """Whether a stream is known to begin so late that its first packet is not waited for."""
        if stream.start_time is None or not stream.time_base:
            return False
        video = self._reader.stream
        first = (video.start_time or 0) * self._reader.time_base
        return stream.start_time * Fraction(stream.time_base) > first + _LATE_SECONDS

    def first_packets(self) -> dict[int, bytes]:
        """The content of the first packet of each stream that has one, by the stream's number."""
        first: dict[int, bytes] = {}
        for item in self.items:
            if not isinstance(item, Frame) and item.stream_index not in first:
                first[item.stream_index] = bytes(item)
        return first
