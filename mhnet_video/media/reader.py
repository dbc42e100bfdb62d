"""Decode a video file into frames, and hand on what else is in it.

Times are the source's own. What is damaged is skipped and counted, never an error: a file that
opens and holds one picture can be read.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from itertools import chain, pairwise
from os import PathLike

import av
from av.error import FFmpegError
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from mhnet_video.closing import Closing
from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.locator import shown
from mhnet_video.media.decoder import Decoder, Item, Packet
from mhnet_video.media.discontinuities import FORWARD_SECONDS, DiscontinuityCorrector
from mhnet_video.media.prefetch import Prefetcher, codec_threads
from mhnet_video.media.source import (
    SILENCE_SECONDS,
    is_animated_webp,
    is_cut_off,
    open_source,
    why_unreadable,
)

COVER = Disposition.attached_pic | Disposition.timed_thumbnails

_MAX_WAITING = 16
_MAX_WAITING_BYTES = 48 << 20
# what other streams may have before the first frame; a file with more has no frame
_MAX_LEAD_BYTES = 256 << 20
# Matroska's numbers for where they are across and down: 1 beside the first luma sample, 2 between
_CHROMA_LOCATIONS = {(1, 1): "topleft", (1, 2): "left", (2, 1): "top", (2, 2): "center"}
# a decoded picture of more needs gigabytes
_MAX_PIXELS = 1 << 28
# recordings that begin later are shifted to zero: hours of nothing are of no use to a player
_LATEST_START_SECONDS = 10
# formats whose clock may also jump forward, where it counts in a circle
_JUMPING_FORMATS = ("mpegts", "mpeg", "mpegtsraw")
# the longest pause of a source that does not say how long it is: as long as the usual clocks last
# in an MP4, so that they stay, and a day with finer ones
_UNKNOWN_PAUSE_SECONDS = Fraction(6 * 3600)
_UNKNOWN_FINE_PAUSE_SECONDS = Fraction(24 * 3600)
_USUAL_CLOCK = 90_000
# steps between frames that are a pause, in seconds and in usual steps
_PAUSE_SECONDS = 1
_PAUSE_STEPS = 10
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
# what has its times in order, which subtitles, and pictures as they are stored, need not
_TIMED = "audio"
# after the last frame wanted, how far the other streams are followed
_TRAIL_SECONDS = 2
# how much earlier a search begins again when it ended behind the frame it was for, in seconds
_SEARCH_MARGINS = (0, 2, 10, 60)


def size_in_bytes(item: object) -> int:
    """Memory that an item of a stream holds."""
    if isinstance(item, Frame):
        return item.num_bytes
    return item.size if isinstance(item, av.Packet) else 0


def _chroma_location(stream: VideoStream) -> str:
    """Where a stream's chroma samples lie, which PyAV has no name for, and Matroska's header has.

    FFmpeg says it in its log, too, but that can deadlock, see `source.py`.
    """
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
            written = header.getvalue()
    except (FFmpegError, OSError, ValueError, RuntimeError, TypeError):
        return ""
    found = re.search(rb"\x55\xb7\x81([\1\2])\x55\xb8\x81([\1\2])", written)
    return _CHROMA_LOCATIONS.get((found[1][0], found[2][0]), "") if found else ""


def decoded_ahead(items: Iterable[Item]) -> Prefetcher[Item]:
    """Decode on a thread of its own, as far ahead as a reader may."""
    return Prefetcher(
        items,
        name="mhnet-video reader",
        max_items=_MAX_WAITING,
        max_size=_MAX_WAITING_BYTES,
        size_of=size_in_bytes,
    )


class VideoReader(Closing):
    """Frames of the first video that is not a cover picture, and packets of all other streams.

    Iterating decodes on a thread of its own, a few frames ahead, and gives a `Frame` or an
    `av.Packet` in the order of the file.

    Args:
        source: Any video file or picture FFmpeg can decode; `-` for standard input.
        start: Where to begin, in seconds from the first frame; None for the beginning.
        duration: How much to read, in seconds; None for all there is.

    Raises:
        ReadError: There is no such file, or no video can be read from it.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        start: float | None = None,
        duration: float | None = None,
    ) -> None:
        self.name = "standard input" if os.fspath(source) == "-" else shown(source)
        self.start = Fraction(start or 0).limit_denominator(10**6)
        self.duration = None if duration is None else Fraction(duration).limit_denominator(10**6)
        self.origin: Fraction | None = None
        """Seconds to subtract from every time, where the output is to begin at zero; None until
        the first frame."""
        self.end: Fraction | None = None
        """Where the part that was asked for ends, on the source's clock; None for the file's
        end, and until the first frame."""
        self.container = open_source(source)
        try:
            self.stream = self._choose_stream()
            self._prepare()
        except BaseException:
            self.container.close()
            raise
        self._is_complete = False
        self._prefetcher: Prefetcher[Item] | None = None

    def _choose_stream(self) -> VideoStream:
        """The stream to restore."""
        videos = list(self.container.streams.video)
        for stream in videos:
            if stream.disposition & COVER or stream.discard == Discard.all:
                continue
            if stream.disposition & Disposition.dependent:
                raise ReadError(
                    f"{self.name} is a picture made of tiles, which cannot be put together here; "
                    "convert it to JPEG or PNG first."
                )
            if stream.codec_context is not None:
                return stream
            raise ReadError(
                why_unreadable(self.container.name, self.name)
                or f"{self.name} holds video of a kind that this FFmpeg cannot decode; "
                "convert it to H.264 first."
            )
        found = "a cover picture but no video" if videos else "sound but no video"
        if not videos and not self.container.streams.audio:
            found = "no video"
        raise ReadError(f"{self.name} has {found}; name a video file.")

    def _prepare(self) -> None:
        width, height = self.stream.width, self.stream.height
        if width * height > _MAX_PIXELS:
            raise ReadError(
                f"{self.name} has {width}x{height} pixels, more than fit into memory; "
                "scale it down or cut it into parts first."
            )
        # of threads over frames, PyAV drops what came with a frame that is damaged
        self.stream.thread_type = "SLICE"
        self.stream.codec_context.thread_count = codec_threads()
        self.time_base = Fraction(self.stream.time_base or Fraction(1, 90000))
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.fps = Fraction(rate) if rate else Fraction(25)
        name = self.container.format.name
        is_one = name == "image2" or name.endswith("_pipe")
        self.is_picture = is_one or self.stream.frames == 1
        self._told_frames = self._estimate()
        self.fps = self._rate_between_pauses(self.fps)
        self._leaps = any(part in _JUMPING_FORMATS for part in name.split(","))
        self._discontinuities: DiscontinuityCorrector[Item] = DiscontinuityCorrector(
            leaps=self._leaps
        )
        self._decoder = Decoder(self.container, self.stream, name=self.name, fps=self.fps)

    def _estimate(self) -> int | None:
        if self.is_picture:
            return 1
        seconds = None
        if self.stream.duration:
            seconds = self.stream.duration * self.time_base
        elif self.container.duration:
            seconds = Fraction(self.container.duration, av.time_base)
        count = self.stream.frames or (round(seconds * self.fps) if seconds else 0)
        if not count or (not self.start and self.duration is None):
            return count or None
        whole = seconds or count / self.fps
        left = max(whole - self.start, Fraction(0))
        if self.duration is not None:
            left = min(left, self.duration)
        return max(1, round(count * left / whole))

    def _rate_between_pauses(self, average: Fraction) -> Fraction:
        """The usual frame rate, where pauses make it differ from the average."""
        guessed = self.stream.guessed_rate
        if "mov" in self.container.format.name.split(","):
            # its index names every frame
            steps = sorted(_index_steps(self.stream)) or [0]
            usual, longest = steps[len(steps) // 2], steps[-1]
            is_long = longest * self.time_base > _PAUSE_SECONDS
            is_paused = usual > 0 and longest > _PAUSE_STEPS * usual and is_long
            return 1 / (usual * self.time_base) if is_paused else average
        return Fraction(guessed) if guessed and average < 1 else average

    def longest_pause(self, stream: Stream) -> Fraction:
        """The longest time that may pass from a packet of a stream to the next one.

        Args:
            stream: One of the container's.

        Returns:
            Seconds, by the file's index; how long the whole file is where it has none.
        """
        if self.container.format.flags & _NO_TIMESTAMPS:
            return Fraction(0)
        if self._leaps:
            return FORWARD_SECONDS  # what is longer is a jump of its clock
        unit = Fraction(stream.time_base or 0)
        steps = _index_steps(stream)
        listed = Fraction(sum(steps)) * unit
        whole = Fraction(max(self.container.duration or 0, 0), av.time_base)
        if self.container.duration:
            rest = max(whole - listed, stream.duration * unit - listed if stream.duration else 0)
        elif unit.denominator > _USUAL_CLOCK:
            rest = _UNKNOWN_FINE_PAUSE_SECONDS
        else:
            rest = _UNKNOWN_PAUSE_SECONDS
        return max(max(steps, default=0) * unit, Fraction(rest))

    @property
    def num_frames(self) -> int | None:
        """Frames there will be, an estimate; None as long as nothing is known.

        By the headers or, where they do not tell, by how much of the file has been read.
        """
        if self._told_frames or self.start or self.duration is not None:
            return self._told_frames
        return self._decoder.estimate_frames()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the stream, in pixels."""
        return self.stream.width, self.stream.height

    @property
    def damaged(self) -> int:
        """Packets and frames lost so far."""
        return self._decoder.damaged

    @property
    def passed_over(self) -> dict[str, int]:
        """What of the stream its decoder has passed over so far, and how many bytes of it."""
        return self._decoder.units.found

    @property
    def jumps(self) -> int:
        """How often the recording's clock jumped so far; what follows a jump follows at once."""
        return self._discontinuities.jumps

    @cached_property
    def chroma_location(self) -> str:
        """Where chroma samples lie, as FFmpeg names it: `center`, `topleft`; often empty."""
        return _chroma_location(self.stream)

    @property
    def shortfall(self) -> str | None:
        """What is missing at the end of the part that was asked for, for a person, if anything."""
        if self._is_complete:
            return None
        if self._decoder.is_stalled:
            return f"the end: nothing came from {self.name} for {SILENCE_SECONDS:.0f} s"
        if self._decoder.is_at_end and is_cut_off(self.container.name):
            return "the end: the source says that it is longer; copy it again"
        return None

    def ahead(self) -> Prefetcher[Item]:
        """The items, decoded ahead; the same prefetcher each time it is asked for."""
        if self._prefetcher is None:
            self._prefetcher = decoded_ahead(self._wanted())
        return self._prefetcher

    def __iter__(self) -> Iterator[Item]:
        """The items; a second iterator goes on where the first one ended."""
        return self.ahead()

    # from items to those wanted, at their times

    def _straightened(self) -> Iterator[Item]:
        """The items, without the jumps of a clock that jumps."""
        for item in self._decoder.items():
            time = _time_of(item)
            if not isinstance(item, Frame) and item.dts is not None:
                # the times at which packets are shown go back and forth where B-frames are
                time = item.dts * Fraction(item.time_base)
            if time is None:
                yield item
                continue
            if isinstance(item, Frame) or self._leaps:
                sets_clock = True
            else:
                # what an edit list hides has times of its own
                sets_clock = item.stream.type == _TIMED and not item.is_discard
            if not isinstance(item, Frame) and not sets_clock:
                yield _moved(item, self._discontinuities.follow(time))
                continue
            stream = self.stream.index if isinstance(item, Frame) else item.stream_index
            duration = Fraction(item.duration or 0) * Fraction(item.time_base)
            if isinstance(item, Frame):
                duration = duration or 1 / self.fps
            for placed, shift in self._discontinuities.push(stream, time, duration, item):
                yield _moved(placed, shift)
        for placed, shift in self._discontinuities.flush():
            yield _moved(placed, shift)

    def _wanted(self) -> Iterator[Item]:
        """The items from the start to the end that were asked for."""
        items = self._from_start() if self.start else self._straightened()
        end: Fraction | None = None
        waiting: list[Packet] = []
        waiting_bytes = 0
        for item in items:
            if self.origin is None:
                if not isinstance(item, Frame):
                    waiting.append(item)
                    waiting_bytes += item.size
                    if waiting_bytes > _MAX_LEAD_BYTES:
                        break
                    continue
                self.origin = self._origin_of(item)
                if self.duration is not None:
                    begin = self._first_time() if self.start else item.pts * item.time_base
                    self.end = end = begin + self.start + self.duration
                    if item.pts * item.time_base >= end:
                        raise ReadError(
                            f"{self.name} has no picture that begins in the part that was asked "
                            "for, but a pause; choose a longer part, or another one."
                        )
                yield from (p for p in waiting if self._is_in(p, self.origin, end))
                waiting.clear()
            time = _time_of(item)
            if isinstance(item, Frame):
                if end is None or time is None or time < end:
                    yield item
                else:
                    self._is_complete = True
            elif self._is_in(item, self.origin, end):
                yield item
            if end is not None and time is not None and time > end + _TRAIL_SECONDS:
                return
        if self.origin is None:
            raise ReadError(self._why_no_frame())

    def _origin_of(self, first: Frame) -> Fraction:
        """The time that becomes zero in the output."""
        time = first.pts * first.time_base
        if self.start:
            return time
        begin = self.container.start_time
        whole = time if begin is None else min(time, Fraction(begin, av.time_base))
        if time < 0:
            # where a clock has turned over, as a transport stream's does every 26 hours
            return time
        return whole if whole > _LATEST_START_SECONDS else Fraction(0)

    def _is_in(self, packet: Packet, origin: Fraction, end: Fraction | None) -> bool:
        """Whether a packet of another stream belongs to the part that was asked for."""
        if packet.stream.disposition & COVER:
            return True
        time = _time_of(packet)
        if time is None or (not self.start and end is None):
            return True
        if end is not None and time >= end:
            return False
        if not self.start or time >= origin:
            return True
        if packet.stream.type != "subtitle" or packet.pts is None or not packet.duration:
            return False
        # a subtitle that is on screen when the part begins is shown for the rest of its time
        late = round((origin - time) / Fraction(packet.time_base))
        if packet.duration <= late:
            return False
        packet.pts += late
        packet.dts = packet.pts
        packet.duration -= late
        return True

    def _from_start(self) -> Iterator[Item]:
        """Items from the start on: no frame before it, other packets from somewhat earlier."""
        tolerance = self.time_base / 2
        for margin in _SEARCH_MARGINS:
            target = self._first_time() + self.start
            if not self._seek(target - margin):
                break
            items = self._straightened()
            lead = _up_to_first_frame(items)
            if self._decoder.is_stalled:
                return
            time = _time_of(lead[-1]) if lead and isinstance(lead[-1], Frame) else None
            if time is not None and time <= target + tolerance:
                yield from self._after(target, chain(lead, items))
                return
        self._seek(None)
        yield from self._after(self._first_time() + self.start, self._straightened())

    def _after(self, target: Fraction, items: Iterable[Item]) -> Iterator[Item]:
        # half a tick: times in a file are rounded
        tolerance = self.time_base / 2
        for item in items:
            time = _time_of(item)
            if not isinstance(item, Frame) or time is None or time >= target - tolerance:
                yield item

    def _first_time(self) -> Fraction:
        return (self.stream.start_time or 0) * self.time_base

    def _seek(self, time: Fraction | None) -> bool:
        """Go to the key frame before a time, or to the beginning; False where that fails."""
        self._decoder.is_searched = True
        self._discontinuities = DiscontinuityCorrector(leaps=self._leaps)
        # somewhat earlier than the first frame is shown: FFmpeg looks for when it is decoded
        first = self._first_time() - 1
        for target in [first, self._first_time()] if time is None else [time]:
            try:
                self.container.seek(int(target / self.time_base), stream=self.stream)
            except (FFmpegError, OSError, OverflowError):
                continue
            return True
        return False

    def _why_no_frame(self) -> str:
        if self._decoder.is_stalled:
            return f"nothing came from {self.name} for {SILENCE_SECONDS:.0f} s; try again later."
        if self.start and self.num_frames:
            return f"{self.name} ends before {float(self.start):g} s; choose an earlier start."
        if is_animated_webp(self.container.name):
            return f"{self.name} is an animated WebP, which FFmpeg cannot decode; convert it first."
        return why_unreadable(self.container.name, self.name) or (
            f"no picture of {self.name} could be decoded; the file is damaged, "
            "copy it again from where it was recorded."
        )

    def decode_on_gpu(self, index: int) -> None:
        """Decode on a GPU if it can, from there on where it fails on the CPU; the log says which.

        To be called before there are items. Frames are then `DeviceFrame`, for the most part.

        Args:
            index: The GPU's number, as PyTorch counts them.
        """
        self._decoder.accelerate(index)

    def close(self) -> None:
        """End the thread and close the file."""
        if self._prefetcher is not None and not self._prefetcher.close(timeout_seconds=5):
            return  # the thread waits for input that may never come: the file is still its own
        self._decoder.close()
        self.container.close()


def _time_of(item: Item) -> Fraction | None:
    """When an item is shown, in seconds."""
    if isinstance(item, Frame):
        return item.pts * item.time_base
    ticks = item.pts if item.pts is not None else item.dts
    return None if ticks is None else ticks * Fraction(item.time_base)


def _moved(item: Item, shift: Fraction) -> Item:
    """The item, so many seconds earlier."""
    if not shift:
        return item
    ticks = round(shift / Fraction(item.time_base))
    if isinstance(item, Frame):
        return replace(item, pts=item.pts - ticks)
    if item.pts is not None:
        item.pts -= ticks
    if item.dts is not None:
        item.dts -= ticks
    return item


def _index_steps(stream: Stream) -> list[int]:
    """Ticks from one entry of a stream's index to the next; no frame lies between in MP4's."""
    times = sorted(entry.timestamp for entry in stream.index_entries)
    return [after - before for before, after in pairwise(times)]


def _up_to_first_frame(items: Iterator[Item]) -> list[Item]:
    lead = []
    for item in items:
        lead.append(item)
        if isinstance(item, Frame):
            break
    return lead
