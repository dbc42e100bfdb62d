"""Asks a muxer whether it would take a stream, before the output depends on the answer."""

from collections.abc import Mapping
from fractions import Fraction

import av
from av.error import FFmpegError
from av.stream import Stream

from mhnet_video.media.formats.containers import Format
from mhnet_video.media.nowhere import Nowhere
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.tracks.stream_copy import add_copy

_TRIAL_PACKETS = 4096
"""Packets after which a trial is begun anew, as its index grows with them."""


class MuxerTrials:
    """Muxers like that of an output, one for each stream, whose bytes are forgotten.

    Args:
        container_format: The output's format.
        first: The first packet of streams, by their number, as far as it is known already.
        is_seekable: Whether the muxer can go back and fill in what it learns late.
    """

    def __init__(
        self, container_format: Format, first: Mapping[int, bytes], *, is_seekable: bool
    ) -> None:
        self._format = container_format
        self._first = first
        self._is_seekable = is_seekable
        self._trials: dict[int, _Trial] = {}

    def takes_stream(self, stream: Stream) -> bool:
        """Whether the muxer takes a stream as it is, as far as its first packet tells."""
        first = self._first.get(stream.index, b"")
        try:
            trial = self._begin(stream)
        except (FFmpegError, ValueError):
            return False
        return not first or stream.type not in ("audio", "video") or trial.takes(first)

    def takes_packet(self, stream: Stream, packet: Packet) -> bool:
        """Whether the muxer takes a packet of a stream that is copied.

        It would refuse it only while it takes a later one of the video, which would be blamed.

        Raises:
            FFmpegError: It does not take the stream.
            ValueError: Likewise.
        """
        trial = self._trials.get(stream.index)
        if trial is None or trial.is_used_up:
            trial = self._trials[stream.index] = self._begin(stream)
        if trial.takes(bytes(packet)):
            return True
        del self._trials[stream.index]
        return False

    def _begin(self, stream: Stream) -> "_Trial":
        first = self._first.get(stream.index, b"")
        return _Trial(self._format, stream, first, is_seekable=self._is_seekable)


class _Trial:
    """A muxer like that of the output, for one stream, whose bytes are forgotten.

    Raises:
        FFmpegError: It does not take the stream.
        ValueError: Likewise.
    """

    def __init__(
        self, container_format: Format, stream: Stream, first: bytes, *, is_seekable: bool
    ) -> None:
        nowhere = Nowhere(is_seekable=is_seekable)
        # an MP4 that the muxer cannot go back in is one of fragments
        options = {} if is_seekable else {"movflags": "frag_keyframe"}
        self._container = av.open(
            nowhere, "w", format=container_format.name, container_options=options
        )
        self._target = add_copy(self._container, stream, first)
        if not self._target.time_base:
            self._target.time_base = Fraction(1, 1000)
        try:
            self._container.start_encoding()
        finally:
            # FFmpeg 8.1 may crash when it ends a file with nothing in it
            nowhere.closed = True
        self._taken = 0

    @property
    def is_used_up(self) -> bool:
        """Whether it holds so much of an index that another one should be begun."""
        return self._taken >= _TRIAL_PACKETS

    def takes(self, content: bytes) -> bool:
        """Whether the muxer takes a packet; AVI refuses H.264 as MP4 has it only then."""
        packet = Packet(content)
        self._taken += 1
        packet.pts = packet.dts = 1000 * self._taken
        packet.is_keyframe = True
        packet.time_base = Fraction(self._target.time_base or Fraction(1, 1000))
        packet.stream = self._target
        try:
            self._container.mux_one(packet)
        except (FFmpegError, ValueError):
            return False
        return True
