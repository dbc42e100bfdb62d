"""Counts what is damaged or missing of a stream, of which FFmpeg and decoders say only a part."""

import os
from array import array
from collections import deque
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from mhnet_video.media.formats.integrity import broken_places
from mhnet_video.media.reading.source import Packet

_MIN_PACKETS = 25
"""Packets after which the size of the file says how many there are."""
_REPEATING = ("theora",)
"""Codecs whose empty packets say that the picture before is shown on."""
_ONE_TO_ONE = ("hevc", "av1")
"""Codecs besides those of key frames alone whose every packet is a picture."""
_MIN_SILENT = 2
"""Packets in a row without pictures that count as damage, in other codecs: one may be a second
field, or a picture that is not to be shown."""
_MIN_SILENT_UNTIMED = 3
"""Likewise in streams without timestamps, where packets and pictures are matched by guessing."""
_SKIPPING = ("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "h263p", "flv1")
"""Codecs that have small packets which say that there is no picture."""
_MAX_SKIP_BYTES = 19
"""Size of the largest such packet."""
_MIN_STEPS_BEHIND = 1.1
"""Frame intervals by which a track must end too early: its end need not be exact to the tick."""
_MAX_OWED = 256
"""Packets among which the one of a picture is looked for: more than decoders hold back."""


@dataclass
class _TakenPacket:
    """A packet that a decoder has taken."""

    pts: int | None
    is_optional: bool
    """Whether it may have no picture."""
    has_come: bool = False
    """Whether its picture has come."""


class _Answers:
    """Counts packets whose pictures never came, of which a decoder may say nothing.

    Args:
        codec: FFmpeg's decoder.
    """

    def __init__(self, codec: av.Codec) -> None:
        is_one_to_one = codec.intra_only or codec.canonical_name in _ONE_TO_ONE
        self._least = 1 if is_one_to_one else _MIN_SILENT
        self._skips = codec.canonical_name in _SKIPPING
        self._sent: deque[_TakenPacket] = deque()
        self._first: int | None = None
        self._silent = self._missing = self._surplus = 0

    @property
    def missing(self) -> int:
        """Packets without their pictures, of those that a decoder can hold back no more."""
        return max(0, self._missing - self._surplus)

    def send(self, packet: Packet, *, is_optional: bool) -> None:
        """A packet is decoded.

        Args:
            packet: The packet.
            is_optional: Whether the decoder may still wait for a key frame.
        """
        if self._first is None:
            self._first = packet.pts
        # pictures before the first key frame's may need others that are not there
        is_early = packet.pts is not None and self._first is not None and packet.pts < self._first
        is_skip = self._skips and packet.size <= _MAX_SKIP_BYTES
        is_optional = is_early or is_skip or is_optional or packet.is_discard
        self._sent.append(_TakenPacket(packet.pts, is_optional))
        if len(self._sent) > _MAX_OWED:
            self._settle()

    def come(self, picture: av.VideoFrame) -> None:
        """A picture has come."""
        for sent in reversed(self._sent):
            if sent.pts == picture.pts and not sent.has_come:
                sent.has_come = True
                return
        self._surplus += 1

    def end(self) -> None:
        """Nothing more comes."""
        while self._sent:
            self._settle()
        self._close()

    def _settle(self) -> None:
        sent = self._sent.popleft()
        if sent.has_come:
            self._close()
        elif not sent.is_optional:
            self._silent += 1
            self._least = max(self._least, 1 if sent.pts is not None else _MIN_SILENT_UNTIMED)

    def _close(self) -> None:
        if self._silent >= self._least:
            self._missing += self._silent
        self._silent = 0


class _PacketLog:
    """Where the packets of a stream are in the file, and when: what is missing between them.

    Args:
        container: The file.
        stream: The stream.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._positions, self._times = array("q"), array("q")
        # when the last picture ends, in ticks
        self._end = 0
        self._packets = self._empty = self._bytes = 0

    def add(self, packet: Packet) -> None:
        """Note a packet."""
        if not packet.size:
            self._empty += 1
        else:
            self._packets += 1
            self._bytes = max(self._bytes, (packet.pos or 0) + packet.size)
            if packet.pos is None or packet.pts is None:
                return
            self._positions.append(packet.pos)
            self._times.append(packet.pts)
        if packet.pts is not None:
            self._end = max(self._end, packet.pts + (packet.duration or 0))

    def estimate_frames(self) -> int | None:
        """Frames of the whole file, by those of the part that is read; None where not known."""
        size = self._file_size()
        if self._packets < _MIN_PACKETS or not 0 < self._bytes <= size:
            return None
        return round(self._packets * size / self._bytes)

    def beyond_end(self) -> int:
        """Frames that the file's index names and that the file, cut short, does not hold."""
        entries = self._stream.index_entries
        size = self._file_size()
        if not size or not len(entries) or entries[-1].pos + entries[-1].size <= size:
            return 0
        return sum(entry.pos >= size for entry in entries)

    def missing(self) -> int:
        """Packets that were never read, once the file has been read to its end."""
        return self._between() + max(self._behind(), self._passed_over())

    def _file_size(self) -> int:
        name = self._container.name
        return self._container.size if os.path.isfile(name) else 0

    def _between(self) -> int:
        """Packets that are missing where the file's structure is broken, at least one at each."""
        places = broken_places(self._container.name, self._container.format.name)
        if not places:
            return 0
        order = np.argsort(self._positions)
        shown = np.array(self._times)[order]
        missing = 0
        for cut in np.unique(np.searchsorted(np.array(self._positions)[order], places)):
            is_inside = 0 < cut < len(shown)
            gap = shown[cut:].min() - shown[:cut].max() if is_inside else 0
            missing += max(1, round(gap / self._usual_step()) - 1)
        return missing

    def _usual_step(self) -> int:
        """The median time from one picture to the next, in ticks."""
        steps = np.diff(np.sort(self._times))
        return max(1, int(np.sort(steps)[len(steps) // 2])) if len(steps) else 1

    def _behind(self) -> int:
        """Packets that an MP4 says it has behind the last one that came."""
        stream = self._stream
        if not (self._is_mp4() and stream.duration and self._times):
            return 0
        if 0 < stream.frames <= self._packets:
            return 0
        # an index says when the last edit ends, which includes the time before the first picture
        end = (stream.duration or 0) + (0 if stream.frames else stream.start_time or 0)
        steps = (end - self._end) / self._usual_step()
        return round(steps) if steps > _MIN_STEPS_BEHIND else 0

    def _passed_over(self) -> int:
        """Empty packets of an MP4's index that FFmpeg has not passed on, as with H.264 and VP9."""
        stream = self._stream
        if not self._is_mp4() or is_repeating(stream):
            return 0
        return max(0, sum(not entry.size for entry in stream.index_entries) - self._empty)

    def _is_mp4(self) -> bool:
        return "mp4" in self._container.format.name.split(",")


def is_repeating(stream: VideoStream) -> bool:
    """Whether an empty packet of a stream says that the picture before is shown on."""
    return stream.codec.canonical_name in _REPEATING


class DamageCounter:
    """Counts packets and frames of a stream that are lost.

    Args:
        container: The file.
        stream: The stream.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._stream = stream
        self._log = _PacketLog(container, stream)
        self._answers = _Answers(stream.codec)
        self._failed = self._never_read = 0
        # packets that were counted, and whose pictures are still to come
        self._expected = 0

    @property
    def lost(self) -> int:
        """Packets and frames lost so far."""
        # what fails has no picture either, so the two are not added up
        return max(self._failed, self._answers.missing) + self._never_read

    def estimate_frames(self) -> int | None:
        """Frames of the whole file, by those of the part that is read; None where not known."""
        return self._log.estimate_frames()

    def restart(self) -> None:
        """Forget which pictures are still to come, as after a seek."""
        self._answers = _Answers(self._stream.codec)

    def begin(self) -> None:
        """Count what the file's index names and the file does not hold."""
        self._failed += self._log.beyond_end()

    def fail(self) -> None:
        """Count a packet that could not be read or decoded."""
        self._failed += 1

    def see_empty(self, packet: Packet) -> None:
        """Count a packet without content."""
        self._failed += not is_repeating(self._stream)
        self._log.add(packet)

    def send(self, packet: Packet, *, is_cut: bool, is_optional: bool) -> None:
        """Note a packet that is decoded next.

        Args:
            packet: The packet.
            is_cut: Whether its end is missing.
            is_optional: Whether the decoder may still wait for a key frame.
        """
        self._log.add(packet)
        self._answers.send(packet, is_optional=is_optional)
        if packet.is_corrupt or is_cut:
            self._failed += 1
            self._expected += 1

    def come(self, picture: av.VideoFrame) -> None:
        """Note a picture that has come."""
        self._answers.come(picture)
        # damage that a packet was counted for shows again in its picture
        if picture.is_corrupt and not self._expected:
            self._failed += 1
        elif picture.is_corrupt:
            self._expected -= 1

    def end_of_pictures(self) -> None:
        """Count the packets whose pictures have not come, as no more will."""
        self._answers.end()

    def end_of_file(self) -> None:
        """Count the packets that were never read."""
        self._never_read = self._log.missing()
