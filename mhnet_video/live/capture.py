"""Pictures of a live source as they come, across whatever happens to the source.

A thread of its own reads and decodes, and never waits for anybody: who asks gets the newest
picture, and beside it those that were passed over, which a recording wants. When the source fails,
hangs or disappears, it is opened again: every second where nobody answers, and where somebody does,
after pauses that grow with the time for which it has failed.
"""

import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from types import TracebackType
from typing import Any, Self

import av
import av.logging
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mhnet_video.errors import MHNetVideoError, ReadError
from mhnet_video.frame import Frame
from mhnet_video.live.browser_camera import KEY_TAG, Visitors
from mhnet_video.live.source_address import (
    SOCKET_SECONDS,
    Address,
    is_hopeless,
    is_unanswered,
    why_not_opened,
)
from mhnet_video.locator import clean
from mhnet_video.media.decoder import FrameMaker
from mhnet_video.media.source import Packet, is_end_mark

TIME_BASE = Fraction(1, 1_000_000)
"""Unit of the times of live frames, in seconds."""

# how many bytes of pictures may wait for somebody who asks
_MAX_KEPT_BYTES = 256 << 20
# how many frames may wait to be restored in turn before the newest is taken: one, so that a
# little unevenness drops nothing
_MAX_BACKLOG = 2
# how long a source may take to give its first picture, and then the next one, in seconds
_OPEN_SECONDS = 15.0
# less than sockets have: FFmpeg takes the end of their time for that of a stream, hands out the
# picture that it held back, and waits once more
_SILENT_SECONDS = 4.0
_SILENT_FRAMES = 8
# packets in a row that cannot be decoded, and for how long: no loss, but another codec
_MIN_FAILURES = 8
_FAILING_SECONDS = 0.75
# more than a decoder holds back, or waits for what it can begin with
_MAX_SILENT_PACKETS = 64
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 30.0
_PAUSE_SHARE = 1 / 8
_LOOK_SECONDS = 0.25
# a file that has fallen behind its own clock by more is taken up where it is
_LATE_SECONDS = 1.0
# and one that is to be shown so much later, as clocks jump
_AHEAD_SECONDS = 10.0
# over how long, and how many pictures, a rate is measured, and from which difference on it counts
_RATE_SECONDS = 5.0
_RATE_PICTURES = 6
_FAR_SHARE = 0.25
_GAP_SECONDS = 3.0
_MAX_RATE = 240
# formats whose pictures come seconds of them at a time
_IN_PIECES = {"hls", "dash"}
# streams without times of their own
_UNTIMED = {"mpjpeg", "mjpeg", "mjpeg_2000", "h264", "hevc", "image2pipe", "jpeg_pipe", "rawvideo"}


def pause_after(failing_seconds: float) -> float:
    """How long to wait before what has failed for so long is tried again, in seconds."""
    return min(max(failing_seconds * _PAUSE_SHARE, _MIN_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)


class CaptureClock:
    """When pictures were taken, as far as it can be known: the stream's times on our clock.

    What arrives over a network arrives unevenly, while its own times are even, but begin
    anywhere and run at their own speed. They are followed, as early as the quickest arrivals allow.
    """

    _CREEP = 0.002
    _MAX_ERROR_SECONDS = 0.5
    _LEAST_STEP = 1e-4

    def __init__(self) -> None:
        self._offset: float | None = None
        self._last = float("-inf")

    def time(self, arrival: float, stream_time: float | None) -> float:
        """The time of a picture; always later than the one before.

        Args:
            arrival: When it arrived, in seconds.
            stream_time: When the stream says it was, in seconds; None where it does not.
        """
        taken = arrival
        if stream_time is not None:
            late = arrival - stream_time
            if self._offset is None or abs(late - self._offset) > self._MAX_ERROR_SECONDS:
                self._offset = late
            # nothing arrives before it is taken; what is late is believed slowly
            self._offset = min(late, self._offset + self._CREEP * (late - self._offset))
            taken = stream_time + self._offset
        self._last = max(taken, self._last + self._LEAST_STEP)
        return self._last


@dataclass(frozen=True, eq=False)
class Captured:
    """A picture and where it stands in the stream."""

    frame: Frame
    """Its pts is in `TIME_BASE` since the source was opened first."""
    number: int
    """Counts all pictures of the source, from 0."""
    run: int
    """Changes where a picture has nothing to do with the one before: another connection or size."""
    arrival: float
    """When its packet was there, on the clock of `time.monotonic`."""


@dataclass(frozen=True, eq=False)
class Window:
    """A picture to restore, and its neighbours."""

    frames: tuple[Frame, ...]
    index: int
    """Which of the frames it is."""
    captured: Captured
    skipped: int
    """Pictures between the one asked for before and this one."""
    skipped_frames: tuple[Frame, ...]
    """Those, in order; where there was no room to keep them all, the first ones are missing."""


class Camera:
    """The pictures of a source, from when it is made until it is closed.

    Args:
        address: What to open.
        size: Width and height into which pictures are shrunk, except those of a camera, which
            was asked for them; None for as they are.
        fps: Most pictures a second to take; None for all.
        loop: Whether a file begins again at its end.
        ahead: Pictures after the one to restore that are waited for.
        behind: Pictures before it that are handed out with it.
        visitors: Where the pictures of visitors' cameras come in, for that kind of address.
    """

    def __init__(
        self,
        address: Address,
        *,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        loop: bool = False,
        ahead: int = 1,
        behind: int = 1,
        visitors: Visitors | None = None,
    ) -> None:
        av.logging.set_level(None)
        self.address = address
        self.reconnects = 0
        """How often the source came back."""
        self.captured = 0
        """Pictures taken."""
        self.damaged = 0
        """Packets that could not be decoded."""
        self.visitors = visitors
        """Where the pictures of visitors' cameras come in."""
        self.fps = fps or 25.0
        """Pictures a second, as the source says or as it was seen."""
        self._size = size if address.kind != "camera" else None
        self._max_fps = fps if address.kind != "camera" else None
        self._loop = loop
        self._ahead, self._behind = ahead, behind
        self._changed = threading.Condition()
        self._kept: deque[Captured] = deque()
        self._kept_bytes = 0
        self._last_number = -1
        self._run = 0
        self._is_closed = False
        self._is_over = False
        self._is_released = address.kind != "file"
        self._sample: Frame | None = None
        self._trouble: str | None = None
        self._retry_at: float | None = None
        self._error: MHNetVideoError | None = None
        self._begin = time.monotonic()
        self.wall_begin = time.time()
        """The time of day at which live times begin, in seconds since 1970."""
        self._clock = CaptureClock()
        self._thread = threading.Thread(target=self._supervise, name="mhnet-video camera")
        self._thread.daemon = True
        self._thread.start()

    # what a consumer asks

    def newest(self, timeout_seconds: float) -> Window | None:
        """The picture to restore next, with its neighbours; None if none came in time.

        That is the next one, or, where the consumer has fallen behind, the newest.

        Raises:
            ReadError: The source cannot be opened, and trying again would not help.
            StopIteration: The file has ended.
        """
        end = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                window = self._choose()
                if window is not None:
                    return window
                if self._error is not None:
                    raise self._error
                if self._is_over or self._is_closed:
                    raise StopIteration
                rest = end - time.monotonic()
                if rest <= 0:
                    return None
                self._changed.wait(rest)

    def _choose(self) -> Window | None:
        kept = list(self._kept)
        ready = [place for place in range(len(kept)) if self._is_ready(kept, place)]
        ready = [place for place in ready if kept[place].number > self._last_number]
        if not ready:
            return None
        place = ready[0] if len(ready) <= _MAX_BACKLOG else ready[-1]
        chosen = kept[place]
        around = kept[max(0, place - self._behind) : place + self._ahead + 1]
        near = [each for each in around if each.run == chosen.run]
        count = chosen.number - self._last_number - 1
        passed = tuple(each.frame for each in kept[:place] if each.number > self._last_number)
        self._last_number = chosen.number
        while self._kept[0].number < min(chosen.number, chosen.number + 1 - self._behind):
            self._forget()  # no later picture has it as a neighbour
        frames = tuple(each.frame for each in near)
        return Window(frames, near.index(chosen), chosen, count, passed)

    def _forget(self) -> None:
        self._kept_bytes -= self._kept.popleft().frame.num_bytes

    def _is_ready(self, kept: Sequence[Captured], place: int) -> bool:
        """Whether the pictures after one are there, or will never be."""
        if self._is_over or self._trouble is not None or kept[-1].run != kept[place].run:
            return True
        return place + self._ahead < len(kept)

    def sample(self, timeout_seconds: float) -> Frame | None:
        """A picture of the source to measure with; None if none came in time.

        A file waits at its first picture until `release`, as nothing is lost by that.

        Raises:
            ReadError: The source cannot be opened, and trying again would not help.
            StopIteration: The file has ended.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._sample or self._error or self._is_over or self._is_closed,
                timeout_seconds,
            )
            if self._error is not None:
                raise self._error
            if self._sample is None and (self._is_over or self._is_closed):
                raise StopIteration
            return self._sample

    def release(self) -> None:
        """Let a file begin to play."""
        with self._changed:
            self._is_released = True
            self._changed.notify_all()

    def offer(self, frame: Frame) -> None:
        """Take a picture to measure with, and hold up a file until it is released."""
        with self._changed:
            self._sample = frame
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_released or self._is_closed)

    @property
    def trouble(self) -> str:
        """What is wrong with the source now, in a sentence for a person; empty if nothing is."""
        with self._changed:
            if self._trouble is None:
                return ""
            rest = self._retry_at - time.monotonic() if self._retry_at is not None else 0.0
            return f"{self._trouble} Trying again {f'in {ceil(rest)} s' if rest > 0 else 'now'}."

    def close(self) -> None:
        """End the threads; one that hangs in the source is left to itself."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(2 * _LOOK_SECONDS + 1)

    def __enter__(self) -> Self:
        """Return the running camera."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the threads."""
        self.close()

    # what keeps it running

    def _supervise(self) -> None:
        """Connect, watch, and connect again; whoever asks is told of what nobody has foreseen."""
        try:
            self._keep_connected()
        except Exception as error:
            with self._changed:
                self._error = ReadError(f"{self.address.name} cannot be followed ({error}).")
                self._changed.notify_all()

    def _keep_connected(self) -> None:
        failing_since: float | None = None
        was_there = False
        while not self._is_closed:
            connection = _Connection(self, self.address)
            error = self._watch(connection)
            # PyAV's streams and containers hold each other, and with them a decoder's pictures
            gc.collect()
            if self._is_closed or error is None:
                break
            now = time.monotonic()
            if connection.pictures:
                was_there, failing_since = True, None
            if not was_there and is_hopeless(self.address, error):
                with self._changed:
                    self._error = ReadError(why_not_opened(self.address, error))
                    self._changed.notify_all()
                return
            if connection.has_ended and self._loop:
                continue
            if self.address.kind == "file" or connection.has_ended:
                break
            if not connection.pictures and is_unanswered(self.address, error):
                failing_since = None
            elif failing_since is None:
                failing_since = now
            failing_seconds = now - failing_since if failing_since is not None else 0.0
            pause = 0.0 if connection.is_other else pause_after(failing_seconds)
            self._wait(why_not_opened(self.address, error), now, pause)
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _watch(self, connection: "_Connection") -> Exception | None:
        """Follow a connection to its end; its error, or a timeout where it hangs."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: connection.is_done or self._is_closed, timeout=_LOOK_SECONDS
                )
                if self._is_closed or connection.is_done:
                    connection.is_wanted = False
                    return connection.error
                if connection.is_hanging(time.monotonic()):
                    # it may come back in an hour, or never: its thread is not waited for
                    connection.is_wanted = False
                    return TimeoutError()

    def _wait(self, trouble: str, now: float, pause: float) -> None:
        """Wait before the next attempt; a camera that is plugged in again is seen at once."""
        with self._changed:
            self._trouble, self._retry_at = trouble, now + pause
            self._changed.notify_all()
            node = self.address.url if self.address.url.startswith("/dev/") else None
            is_unplugged = node is not None and not os.path.exists(node)
            while not self._is_closed and time.monotonic() < now + pause:
                self._changed.wait(min(_LOOK_SECONDS, pause))
                if is_unplugged and node is not None and os.path.exists(node):
                    break
            self._retry_at = None

    # what a connection hands in

    def take(self, frame: Frame, arrival: float, taken: float, *, is_new_run: bool) -> None:
        """A picture has come."""
        with self._changed:
            last = self._kept[-1].frame if self._kept else None
            is_other = last is not None and (
                (frame.width, frame.height, frame.rotation, frame.layout)
                != (last.width, last.height, last.rotation, last.layout)
            )
            self._run += is_new_run or is_other
            if self._trouble is not None:
                self._trouble = None
                self.reconnects += self.captured > 0
            pts = round((taken - self._begin) / TIME_BASE)
            frame = replace(_without_picture(frame), pts=pts, time_base=TIME_BASE, duration=0)
            self._kept.append(Captured(frame, self.captured, self._run, arrival))
            self._kept_bytes += frame.num_bytes
            least = self._behind + _MAX_BACKLOG + self._ahead
            while self._kept_bytes > _MAX_KEPT_BYTES and len(self._kept) > least:
                self._forget()
            self.captured += 1
            self._changed.notify_all()

    @property
    def clock(self) -> CaptureClock:
        """When pictures were taken; times go on across connections."""
        return self._clock

    @property
    def limits(self) -> tuple[tuple[int, int] | None, float | None, bool]:
        """The size for pictures, the most of them a second, and whether a file begins again."""
        return self._size, self._max_fps, self._loop

    def see_rate(self, fps: float | None) -> None:
        """Believe what is seen, where it is far from what the source says."""
        if fps is not None and abs(fps - self.fps) > _FAR_SHARE * self.fps:
            self.fps = fps

    def notify(self, change: Callable[[], None]) -> None:
        """Do what a connection wants seen at once."""
        with self._changed:
            change()
            self._changed.notify_all()


def _without_picture(frame: Frame) -> Frame:
    """The frame without the decoder's picture, to which whoever encodes a frame may write."""
    tags = {name: value for name, value in frame.tags.items() if name != "decoded"}
    return replace(frame, tags=tags)


class _Connection:
    """One attempt to read a source, on a thread that may hang for ever."""

    def __init__(self, camera: Camera, address: Address) -> None:
        self._camera = camera
        self._address = address
        self.is_wanted = True
        self.is_done = False
        self.error: Exception | None = None
        self.is_other = False
        """Whether packets come, yet of another codec than it was opened for."""
        self.pictures = 0
        self.has_ended = False
        """Whether it was a file somewhere else, all of which was shown."""
        self._failures = 0
        self._failing_since = 0.0
        self._silent = 0
        self._alive_at = time.monotonic()
        self._longest = 0.0
        self._size, self._max_fps, self._loop = camera.limits
        self._next_due = float("-inf")
        self._due = float("-inf")
        self._reformatter = VideoReformatter()
        self._rate = _Rate()
        self._has_clock = False
        self._has_rate = False
        self._pace: _OwnSpeed | None = None
        self._is_seam = True
        self._maker = FrameMaker(TIME_BASE, Fraction(25))
        self._tags: dict[str, Any] = {}
        threading.Thread(target=self._run, name="mhnet-video capture", daemon=True).start()

    def is_hanging(self, now: float) -> bool:
        """Whether it has been silent for much longer than it ever was."""
        if self._address.kind in ("file", "visitor"):
            return False
        if self._due > now:
            return False
        silent = now - self._alive_at
        if not self.pictures:
            return silent > _OPEN_SECONDS
        return silent > max(_SILENT_SECONDS, _SILENT_FRAMES * self._longest)

    def _run(self) -> None:
        error: Exception | None = None
        try:
            if self._camera.visitors is not None:
                self._receive(self._camera.visitors)
            else:
                self._read()
        except (FFmpegError, OSError, ValueError, IndexError, MemoryError) as caught:
            clean(caught)
            error = caught
        if error is None and self._address.kind != "file":
            error = ConnectionResetError("the stream has ended")
        if error is None and not self.pictures:
            error = ValueError("no picture")

        def end() -> None:
            self.is_done, self.error = True, error

        self._camera.notify(end)

    def _read(self) -> None:
        container = self._open(self._address.options)
        if self._address.kind == "network" and _is_ahead(container):
            # what was read to find out what it is would be missing: a camera has more of it
            container.close()
            options = {k: v for k, v in self._address.options.items() if k != "fflags"}
            container = self._open(options)
        with container:
            self._read_from(container)

    def _open(self, options: Mapping[str, str]) -> InputContainer:
        address = self._address
        container = av.open(
            address.url,
            format=address.format,
            container_options=dict(options),
            metadata_errors="surrogateescape",
            timeout=None if address.kind == "file" else (_OPEN_SECONDS, SOCKET_SECONDS),
        )
        if not container.streams.video:
            container.close()
            raise ValueError("it has no video")
        return container

    def _read_from(self, container: InputContainer) -> None:
        stream = container.streams.video[0]
        # threads over frames would hold some of them back
        stream.thread_type = "SLICE"
        rate = stream.average_rate or stream.guessed_rate
        fps = Fraction(rate) if rate and 0 < rate <= _MAX_RATE else Fraction(25)
        self._camera.fps = min(float(fps), self._max_fps or float(fps))
        time_base = Fraction(stream.time_base or Fraction(1, 90000))
        self._has_clock = container.format.name not in _UNTIMED
        is_file = self._address.kind == "file"
        is_finite = self._address.kind == "network" and _is_whole(container)
        is_over = is_finite and container.format.name in _IN_PIECES and self._camera.captured > 0
        if is_over and not self._loop:
            self.has_ended = True  # a broadcast that was shown until now
            return
        self._has_rate = is_paced = is_file or (
            self._address.kind == "network" and _is_ahead(container)
        )
        while True:
            self._maker = FrameMaker(time_base, fps, codec=stream.codec.name)
            self._pace = _OwnSpeed() if is_paced else None
            self._is_seam = True
            for packet in container.demux(stream):
                if not self.is_wanted:
                    return
                arrival = time.monotonic()
                if packet.size:
                    self._take(self._decode(stream, packet), arrival)
                elif not is_end_mark(packet):
                    self._camera.damaged += 1
            self._take(self._decode(stream, None), time.monotonic())
            if self._pace is not None:
                # the last picture is shown for its time as well
                self._sleep_until(time.monotonic() + 1 / float(fps))
            self.has_ended = is_finite and self.pictures > 0
            if not (is_file and self._loop) or not self.pictures:
                return
            container.seek(stream.start_time or 0, stream=stream)

    def _receive(self, visitors: Visitors) -> None:
        """Take pictures of one visitor's camera after another's."""
        decoder: Any = av.CodecContext.create("mjpeg", "r")
        decoder.thread_count = 1
        key = ""
        while self.is_wanted:
            sent = visitors.get(_LOOK_SECONDS)
            if sent is None:
                continue
            if sent.key != key:
                # nobody's pictures are neighbours of somebody else's
                key, self._is_seam = sent.key, True
                self._tags = {KEY_TAG: key}
            try:
                # an empty packet would be the end
                for picture in decoder.decode(av.Packet(sent.jpeg)) if sent.jpeg else []:
                    picture.pts = None
                    self._hand_in(picture, sent.arrival)
            except (FFmpegError, ValueError):
                self._camera.damaged += 1

    def _take(self, pictures: list[av.VideoFrame], arrival: float) -> None:
        for picture in pictures:
            self._hand_in(picture, arrival)

    def _decode(self, stream: VideoStream, packet: Packet | None) -> list[av.VideoFrame]:
        """The pictures that a packet, or None for the end, brings forth; failures are counted."""
        pictures: list[av.VideoFrame] = []
        try:
            pictures = stream.decode(packet)
        except EOFError:
            pass
        except (FFmpegError, ValueError):
            self._camera.damaged += 1
            self._failures += 1
            now = time.monotonic()
            if self._failures == 1:
                self._failing_since = now
            is_long = now - self._failing_since >= _FAILING_SECONDS
            self.is_other = self.pictures > 0 and is_long and self._failures >= _MIN_FAILURES
            if self.is_other:
                # which only opening anew finds out
                raise
            return []
        if pictures or packet is None:
            self._failures = self._silent = 0
            return pictures
        self._silent += 1
        if self.pictures and self._silent >= _MAX_SILENT_PACKETS:
            # it gave pictures, takes packets, and gives nothing any more: it begins anew
            self._camera.damaged += self._silent
            self._silent = 0
            stream.codec_context.flush_buffers()
        return []

    def _hand_in(self, picture: av.VideoFrame, arrival: float) -> None:
        if self._size is not None:
            picture = self._shrunk(picture, self._size)
        frame = self._maker.frame(picture)
        if self._tags:
            frame = replace(frame, tags=frame.tags | self._tags)
        own = float(frame.pts * frame.time_base)
        if not self.pictures:
            self._camera.offer(_without_picture(frame))
        if self._pace is not None:
            self._due = arrival = self._pace.due(own)
            self._sleep_until(arrival)
            taken = self._camera.clock.time(arrival, None)
        else:
            taken = self._camera.clock.time(arrival, own if self._has_clock else None)
        now = time.monotonic()
        if self.pictures:
            # one that was long is forgotten after some tens of pictures: it need not be usual
            self._longest = max(0.97 * self._longest, now - self._alive_at)
        self._alive_at = now
        if self._max_fps is not None:
            # a little early is not too early: times are uneven
            if taken < self._next_due - 0.2 / self._max_fps:
                return
            self._next_due = max(self._next_due + 1 / self._max_fps, taken)
        if not self._has_rate:
            self._rate.note(taken)
            self._camera.see_rate(self._rate.fps)
        if self.is_wanted:
            self._camera.take(frame, arrival, taken, is_new_run=self._is_seam)
            self._is_seam = False
            self.pictures += 1

    def _sleep_until(self, due: float) -> None:
        while self.is_wanted and (rest := due - time.monotonic()) > 0:
            time.sleep(min(rest, _LOOK_SECONDS))

    def _shrunk(self, picture: av.VideoFrame, size: tuple[int, int]) -> av.VideoFrame:
        """The picture, so that it fits into a size; as it is if it does."""
        width, height = size
        if round(picture.rotation) % 180:
            width, height = height, width
        share = min(width / picture.width, height / picture.height)
        if share >= 1:
            return picture
        even = [max(2, round(side * share / 2) * 2) for side in (picture.width, picture.height)]
        return self._reformatter.reformat(
            picture, width=even[0], height=even[1], interpolation="AREA", threads=1
        )


def _is_ahead(container: InputContainer) -> bool:
    """Whether pictures come faster than they are to be shown: of a file, or pieces of one."""
    return _is_whole(container) or container.format.name in _IN_PIECES


def _is_whole(container: InputContainer) -> bool:
    """Whether there is an end to it: the fragments that a camera sends have a duration too."""
    is_known = container.size > 0 or container.format.name in _IN_PIECES
    return bool(container.duration) and is_known


class _Rate:
    """Pictures a second, as they come."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def note(self, taken: float) -> None:
        self._times.append(taken)
        while len(self._times) > _RATE_PICTURES + 1 and taken - self._times[1] >= _RATE_SECONDS:
            self._times.popleft()

    @property
    def fps(self) -> float | None:
        """None as long as it cannot be told."""
        steps = [b - a for a, b in pairwise(self._times) if b - a < _GAP_SECONDS]
        if len(steps) < _RATE_PICTURES or sum(steps) < 0.99 * _RATE_SECONDS:
            return None
        return min(len(steps) / sum(steps), _MAX_RATE)


class _OwnSpeed:
    """When the pictures of a file are due."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def due(self, own: float) -> float:
        """When a picture is to be shown that stands at a time in the file, in seconds."""
        now = time.monotonic()
        late = 0.0 if self._offset is None else now - (own + self._offset)
        if self._offset is None or late > _LATE_SECONDS or late < -_AHEAD_SECONDS:
            # the first picture, one that comes too late to be caught up with, or another clock
            self._offset = now - own
        return own + self._offset
