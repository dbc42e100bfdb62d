"""One attempt to read a live source, on a thread that may hang for ever.

The thread reports what happens as events in a queue (`connection_events`) and calls nobody. Its
owner stops it, and lets a file begin, by `threading.Event`.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from queue import SimpleQueue
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from mhnet_video.frame import Frame
from mhnet_video.live.browser_camera import KEY_TAG, Visitors
from mhnet_video.live.connection_events import (
    TIME_BASE,
    Event,
    FirstFrame,
    FrameArrived,
    Opened,
    Over,
    PacketsDamaged,
    SoundAnnounced,
    Waiting,
)
from mhnet_video.live.file_pacing import FilePacing
from mhnet_video.live.packet_decoder import CodecChangedError, PacketDecoder
from mhnet_video.live.rates import MAX_RATE
from mhnet_video.live.reconnection import OPEN_SECONDS, State
from mhnet_video.live.sound import SoundReader
from mhnet_video.live.source_address import SOCKET_SECONDS, SourceAddress
from mhnet_video.locator import clean
from mhnet_video.media.reading.frame_maker import FrameMaker
from mhnet_video.media.reading.source import is_end_mark
from mhnet_video.media.reading.source_timing import NO_TIMESTAMPS

_USUAL_RATE = Fraction(25)
"""Frames a second of a source that does not say its rate."""
_USUAL_TIME_BASE = Fraction(1, 90_000)
"""Unit of the times of a stream that does not say it, in seconds."""
_LOOK_SECONDS = 0.25
"""How long to wait for a visitor's picture before looking whether to stop."""
_IN_PIECES = {"hls", "dash"}
"""Formats whose pictures come seconds of them at a time."""
_UNTIMED = {"mpjpeg", "mjpeg", "mjpeg_2000", "h264", "hevc", "image2pipe", "jpeg_pipe", "rawvideo"}
"""Formats without times."""
_SOUGHT_BY_TIME = {"mpegts", "mpegtsraw"}
"""Formats of which FFmpeg finds a place by times alone."""
_FAILURES = (FFmpegError, OSError, ValueError, IndexError, MemoryError)
"""What reading a source may raise."""


@dataclass(frozen=True)
class Request:
    """What to read, and how."""

    address: SourceAddress
    size: tuple[int, int] | None = None
    """Width and height within which frames are shrunk; None for as they are."""
    loop: bool = False
    """Whether a file begins again at its end."""
    visitors: Visitors | None = None
    """Where the pictures of visitors' cameras come in, for that kind of address."""


class Connection:
    """Reads a source until it ends, fails or is stopped.

    Args:
        request: What to read.
        events: Takes this connection and each of its events, in order; `Over` is the last one.
        may_begin: What a file waits for at its first frame.
        is_again: Whether frames of the source were shown before.
    """

    def __init__(
        self,
        request: Request,
        events: "SimpleQueue[tuple[Connection, Event] | None]",
        *,
        may_begin: threading.Event,
        is_again: bool = False,
    ) -> None:
        self._request = request
        self._address = request.address
        self._events = events
        self._may_begin = may_begin
        self._is_again = is_again
        self._shrinker = _Shrinker(request.size)
        self._stopped = threading.Event()
        self._frames = 0
        threading.Thread(target=self._run, name="mhnet-video capture", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end; it is not waited for, as it may hang in the source."""
        self._stopped.set()

    def _report(self, event: Event) -> None:
        self._events.put((self, event))

    def _run(self) -> None:
        visitors = self._request.visitors
        over: Over
        try:
            state = self._read() if visitors is None else self._receive(visitors)
            is_lost = state is State.FAILED
            over = Over(state, ConnectionResetError("the stream has ended") if is_lost else None)
        except CodecChangedError as changed:
            over = Over(State.CHANGED, changed.error)
        except _FAILURES as failure:
            over = Over(State.FAILED, failure)
        if over.error is not None:
            clean(over.error)
        self._report(over)

    # addresses and files

    def _read(self) -> State:
        container = self._open(self._address.options)
        if self._address.kind == "network" and _is_ahead(container):
            # what was read to find out what it is would be missing: a camera has more of it
            container.close()
            options = {k: v for k, v in self._address.options.items() if k != "fflags"}
            container = self._open(options)
        with container:
            return self._play(container)

    def _open(self, options: Mapping[str, str]) -> InputContainer:
        address = self._address
        container = av.open(
            address.url,
            format=address.format,
            container_options=dict(options),
            metadata_errors="surrogateescape",
            timeout=None if address.kind == "file" else (OPEN_SECONDS, SOCKET_SECONDS),
        )
        if not container.streams.video:
            container.close()
            raise ValueError("it has no video")
        return container

    def _play(self, container: InputContainer) -> State:
        """Read a container to its end, again and again for a file in a loop."""
        stream = container.streams.video[0]
        # threads over frames would hold some of them back
        stream.thread_type = "SLICE"
        rate = stream.average_rate or stream.guessed_rate
        fps = Fraction(rate) if rate and 0 < rate <= MAX_RATE else _USUAL_RATE
        is_file = self._address.kind == "file"
        is_paced = is_file or (self._address.kind == "network" and _is_ahead(container))
        self._report(Opened(float(fps), is_exact=is_paced))
        is_finite = self._address.kind == "network" and _is_whole(container)
        is_in_pieces = container.format.name in _IN_PIECES
        if is_finite and is_in_pieces and self._is_again and not self._request.loop:
            return State.ENDED  # a broadcast that was shown until now
        has_times = container.format.name not in _UNTIMED
        time_base = Fraction(stream.time_base or _USUAL_TIME_BASE)
        decoder = PacketDecoder(stream)
        sound = SoundReader(container)
        while True:
            maker = FrameMaker(time_base, fps, codec=stream.codec.name)
            pacing = FilePacing() if is_paced else None
            is_new_run = True
            for picture, arrival in self._pictures(container, stream, decoder, sound):
                if picture is not None:
                    if sound.format is None and (announced := sound.identify()) is not None:
                        self._report(SoundAnnounced(announced))
                    frame = self._frame(maker, picture)
                    if not self._frames:
                        self._offer(frame)
                    self._pass_on(
                        frame, arrival, pacing, is_new_run=is_new_run, has_times=has_times
                    )
                    is_new_run = False
                if not is_new_run:
                    for event in sound.take(None if pacing is None else pacing.offset):
                        self._report(event)
            if pacing is not None:
                # the last frame is shown for its time as well
                self._sleep_until(time.monotonic() + 1 / float(fps))
            if not (is_file and self._request.loop) or not self._frames or self._stopped.is_set():
                break
            if not _is_wound_back(container, stream):
                break  # it is opened again
        if is_file and not self._frames:
            raise ValueError("no picture")
        return State.ENDED if is_file or (is_finite and self._frames) else State.FAILED

    def _pictures(
        self,
        container: InputContainer,
        stream: VideoStream,
        decoder: PacketDecoder,
        sound: SoundReader,
    ) -> Iterator[tuple[av.VideoFrame | None, float]]:
        """The pictures of a stream, each with the time at which its packet was read.

        None stands for a packet of sound, which the reader of sound has.
        """
        reported = decoder.damaged
        streams = [stream] if sound.stream is None else [stream, sound.stream]
        for packet in container.demux(*streams):
            if self._stopped.is_set():
                return
            arrival = time.monotonic()
            if packet.stream_index != stream.index:
                sound.put(packet)
                yield None, arrival
                continue
            pictures: list[av.VideoFrame] = []
            if packet.size:
                pictures = decoder.decode(packet, arrival)
            elif not is_end_mark(packet):
                self._report(PacketsDamaged(1))
            if decoder.damaged > reported:
                self._report(PacketsDamaged(decoder.damaged - reported))
                reported = decoder.damaged
            for picture in pictures:
                yield picture, arrival
        for picture in decoder.decode(None, time.monotonic()):
            yield picture, time.monotonic()

    # visitors

    def _receive(self, visitors: Visitors) -> State:
        """Take pictures of one visitor's camera after another's."""
        decoder = _jpeg_decoder()
        maker = FrameMaker(TIME_BASE, _USUAL_RATE)
        key = ""
        is_new_run = True
        while not self._stopped.is_set():
            sent = visitors.get(_LOOK_SECONDS)
            if sent is None:
                continue
            if sent.key != key:
                # frames of two visitors are no neighbours; and the memory of the decoder, of which
                # a damaged picture may show a part, must not pass from one to the other
                decoder = _jpeg_decoder()
                key, is_new_run = sent.key, True
            try:
                # an empty packet would be the end
                for picture in decoder.decode(av.Packet(sent.jpeg)) if sent.jpeg else []:
                    picture.pts = None
                    frame = self._frame(maker, picture, {KEY_TAG: key})
                    if not self._frames:
                        self._offer(frame)
                    self._pass_on(frame, sent.arrival, None, is_new_run=is_new_run, has_times=False)
                    is_new_run = False
            except (FFmpegError, ValueError):
                self._report(PacketsDamaged(1))
        return State.FAILED

    # frames

    def _frame(
        self, maker: FrameMaker, picture: av.VideoFrame, tags: Mapping[str, Any] | None = None
    ) -> Frame:
        """The frame of a picture, shrunk as requested.

        Without the decoder's picture, to which whoever encodes a frame may write.
        """
        frame = maker.frame(self._shrinker.shrink(picture))
        kept = {name: value for name, value in frame.tags.items() if name != "decoded"}
        return replace(frame, tags=kept | dict(tags or {}))

    def _offer(self, frame: Frame) -> None:
        """Report the first frame; a file waits here until it may begin."""
        self._report(FirstFrame(frame))
        if self._address.kind == "file":
            self._may_begin.wait()

    def _pass_on(
        self,
        frame: Frame,
        arrival: float,
        pacing: FilePacing | None,
        *,
        is_new_run: bool,
        has_times: bool,
    ) -> None:
        """Report a frame, that of a file when it is due."""
        stream_time: float | None = float(frame.pts * frame.time_base)
        if pacing is not None and stream_time is not None:
            arrival = pacing.due(stream_time, time.monotonic())
            self._report(Waiting(arrival))
            self._sleep_until(arrival)
            has_times = False
        self._frames += 1
        self._report(FrameArrived(frame, arrival, stream_time if has_times else None, is_new_run))

    def _sleep_until(self, due: float) -> None:
        """Wait for a time on the clock of `time.monotonic`, or until the connection is stopped."""
        while (rest := due - time.monotonic()) > 0 and not self._stopped.wait(rest):
            pass


class _Shrinker:
    """Makes pictures fit into a size; those that fit stay as they are."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self._size = size
        self._reformatter = VideoReformatter()

    def shrink(self, picture: av.VideoFrame) -> av.VideoFrame:
        if self._size is None:
            return picture
        width, height = self._size
        if round(picture.rotation) % 180:
            width, height = height, width
        share = min(width / picture.width, height / picture.height)
        if share >= 1:
            return picture
        even = [max(2, round(side * share / 2) * 2) for side in (picture.width, picture.height)]
        return self._reformatter.reformat(
            picture, width=even[0], height=even[1], interpolation="AREA", threads=1
        )


def _jpeg_decoder() -> Any:
    """A decoder of pictures that come one by one; a damaged one is an error."""
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode"}
    return decoder


def _is_wound_back(container: InputContainer, stream: VideoStream) -> bool:
    """Go back to the beginning of a file; False where FFmpeg does not find it, and after errors.

    In a transport stream it lands behind the first key frame where there are B-frames.
    """
    if container.format.name in _SOUGHT_BY_TIME or container.format.flags & NO_TIMESTAMPS:
        return False
    try:
        container.seek(stream.start_time or 0, stream=stream)
    except (FFmpegError, OSError):
        return False
    return True


def _is_ahead(container: InputContainer) -> bool:
    """Whether frames come faster than they are to be shown: of a file, or pieces of one."""
    return _is_whole(container) or container.format.name in _IN_PIECES


def _is_whole(container: InputContainer) -> bool:
    """Whether it has an end; the fragments that a camera sends have a duration too."""
    is_known = container.size > 0 or container.format.name in _IN_PIECES
    return bool(container.duration) and is_known
