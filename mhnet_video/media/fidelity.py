"""What a person is told about an output: what it kept of the source, and what it could not."""

import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorTrc
from av.video.stream import VideoStream

from mhnet_video.frame import Frame
from mhnet_video.media.containers import Format
from mhnet_video.media.image_metadata import descriptions_in
from mhnet_video.media.inventory import unseen_in
from mhnet_video.media.pixel_formats import (
    Decoded,
    is_user_data,
    layout_of,
    planar_twin,
    side_data_of,
)

# how many things of one kind are named to a person
_MOST_SHOWN = 6
TIMECODE = "timecode in the stream"
# MPEG-2 must have one; most begin at nothing, which is this bit alone
_TIMECODE_MARK = 1 << 12
# what pictures carry beside their samples, and is no matter of decoding alone
_SIDE_DATA = {
    SideDataType.A53_CC: "captions",
    SideDataType.SEI_UNREGISTERED: "a camera's data in the stream",
    SideDataType.STEREO3D: "stereoscopic layout",
    SideDataType.AFD: "active format",
    SideDataType.MASTERING_DISPLAY_METADATA: "HDR mastering data",
    SideDataType.CONTENT_LIGHT_LEVEL: "HDR light levels",
    SideDataType.DYNAMIC_HDR_PLUS: "HDR10+",
    SideDataType.DYNAMIC_HDR_VIVID: "HDR Vivid",
    SideDataType.AMBIENT_VIEWING_ENVIRONMENT: "ambient light",
    SideDataType.SPHERICAL: "360 degree projection",
    SideDataType.GOP_TIMECODE: TIMECODE,
    SideDataType.S12M_TIMECODE: TIMECODE,
    SideDataType.DOVI_RPU_BUFFER: "Dolby Vision",
    SideDataType.DOVI_METADATA: "Dolby Vision",
    SideDataType.FILM_GRAIN_PARAMS: "film grain",
    SideDataType.ICC_PROFILE: "colour profile",
}
# what FFmpeg 8.1 has and PyAV 18 does not know, by FFmpeg's numbers
_NEW_SIDE_DATA = {28: "LCEVC enhancement", 29: "number of the view", 30: "3D displays", 31: "EXIF"}
# an encoder that has this option writes it
_OPTIONS = {SideDataType.A53_CC: "a53cc", SideDataType.SEI_UNREGISTERED: "udu_sei"}
# names that muxers give to their tracks and what they count, true of one file only; and what is
# told apart from the tags
_NO_TAGS = ("handler_name", "vendor_id", "encoder", "creation_time", "duration")
# of a time: to the second, as MP4 has it
_TIME_LETTERS = 19
# a value as short as this may stand in another tag by chance
_SHORT_LETTERS = 3
# of a chapter's title, to a person
_MOST_LETTERS = 40
# formats that are looked into, by FFmpeg's names
_LOOKED_INTO = ("mov", "matroska", "avi")
_UNSPECIFIED = 2  # AVCOL_PRI_UNSPECIFIED, AVCOL_TRC_UNSPECIFIED
_COLORS: tuple[tuple[str, str, type[IntEnum]], ...] = (
    ("color_primaries", "primaries", ColorPrimaries),
    ("color_trc", "the transfer", ColorTrc),
)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, such as `1 frame` and `2 frames`.

    Args:
        number: How many.
        one: What there is one of.
        many: What there are several of; `one` with an s if empty.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One thing of the source that is not in the output, or not as it was."""

    kind: str
    """Its kind in a word or two: `stream`, `box`, `tag`, `side data`, `times`, `pixels`, ..."""
    what: str
    """The thing itself, such as `sound in stream 1 (aac, eng)`."""
    why: str = ""
    """Why it is lost, or what became of it; empty where nothing is known."""
    where: str = ""
    """Where it is in the source, such as `moov/udta`, `stream 1`; empty for the file as a whole."""
    bytes: int | None = None
    """Its size; None where that means nothing or is not known."""


def lines_of(losses: Iterable[Loss]) -> list[str]:
    """What a person is told of losses: one line for those of one kind and reason, sizes shown.

    Args:
        losses: In the order in which they are told.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for loss in losses:
        size = "" if loss.bytes is None else f" ({counted(loss.bytes, 'byte')})"
        shown = groups.setdefault((loss.kind, loss.why), [])
        if f"{loss.what}{size}" not in shown:
            shown.append(f"{loss.what}{size}")
    lines = []
    for (_, why), shown in groups.items():
        if (more := len(shown) - _MOST_SHOWN) > 1:
            shown[_MOST_SHOWN:] = [f"and {more} more"]
        lines.append(", ".join(shown) + (f": {why}" if why else ""))
    return lines


class OutputStream(NamedTuple):
    """A stream of the output, as it was set up."""

    stream: int
    """The source's number of it."""
    name: str
    """The source's, in a few words."""
    type: str
    number: int
    """Which one of its type; formats number streams in orders of their own."""
    tags: dict[str, str]
    disposition: int


@dataclass
class Notes:
    """What is told of an output, and the counts that some of it is made of."""

    kept: list[str] = field(default_factory=list)
    """What else of the source is in the output, a line each."""
    losses: list[Loss] = field(default_factory=list)
    """What of the source is not in the output, or not as it was."""
    moved: int = 0
    """Frames that were not later than the one before."""
    astray: int = 0
    """Frames whose time is damaged: months later than the one before."""
    uneven: int = 0
    """Frames whose time a format or an encoder of one frame rate cannot hold."""
    shown_again: int = 0
    """Frames that were added because the format knows no pause as long as the source's."""
    scaled: int = 0
    """Frames of another size than the first."""
    changed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Frames that were otherwise than the first in what an output has once: kind, how, and what
    became of it."""
    refused: int = 0
    """Packets of other streams that could not be written."""
    _seen: dict[str, int] = field(default_factory=dict)
    _is_first: bool = True

    @property
    def lost(self) -> list[str]:
        """The losses in a person's words, a line for those of one kind and reason."""
        return lines_of(self.losses)

    def lose(
        self, kind: str, what: str, why: str = "", *, where: str = "", bytes: int | None = None
    ) -> None:
        """Note a loss; the arguments are the fields of `Loss`."""
        self.losses.append(Loss(kind=kind, what=what, why=why, where=where, bytes=bytes))

    def tell_pixels(self, frame: Frame, pixel_format: str, encoder: str) -> None:
        """Say where the output's pixels cannot be what the source's were."""
        source, target = frame.layout, layout_of(planar_twin(pixel_format))
        if target is None:
            return
        losses = []
        if source.kind == "rgb" and target.kind == "yuv":
            losses.append("RGB became YUV")
        if target.bits < source.bits:
            losses.append(f"{source.bits} bits became {target.bits}")
        if source.kind == "yuv" and (
            target.chroma_shift_x > source.chroma_shift_x
            or target.chroma_shift_y > source.chroma_shift_y
        ):
            losses.append("colour has fewer samples")
        if source.has_alpha and not target.has_alpha and _is_transparent(frame):
            losses.append("transparency is gone")
        shown = f"pixels: {source.name} is stored as {pixel_format}"
        if losses:
            self.lose("pixels", f"{shown} by {encoder} ({', '.join(losses)})")
        elif target.name != source.name:
            self.kept.append(f"{shown}, as {encoder} takes it")

    def tell_change(self, first: Frame, frame: Frame, encoder: str, *, marks_fields: bool) -> None:
        """Count a frame that is otherwise than the first in what the output has but once.

        Args:
            first: What the output was opened for.
            frame: A later one.
            encoder: FFmpeg's name of it.
            marks_fields: Whether each frame is marked as interlaced, or not, by itself.
        """
        one = "the output has one for all frames, that of the first"
        aspects = [each.tags.get("sample_aspect_ratio") for each in (first, frame)]
        if all(aspects) and aspects[0] != aspects[1]:
            shown = [f"{aspect.numerator}:{aspect.denominator}" for aspect in aspects if aspect]
            what = f"with samples of the shape {shown[1]}"
            self.changed["aspect", what, f"{one}, {shown[0]}"] += 1
        if frame.tags.get("display_matrix") != first.tags.get("display_matrix"):
            self.changed["rotation", "turned otherwise than the first", one] += 1
        was, is_now = (bool(each.tags.get("interlaced")) for each in (first, frame))
        if was != is_now and not marks_fields:
            what = "with fields" if is_now else "without fields"
            why = f"{encoder} marks fields in all frames or in none, as in the first"
            self.changed["fields", what, why] += 1
        if frame.layout.name != first.layout.name:
            why = f"stored as those of {first.layout.name} that come first"
            self.changed["pixels", f"of {frame.layout.name}", why] += 1
        if frame.full_range != first.full_range:
            ranges = [_range(each) for each in (first, frame)]
            self.changed["colour", f"of {ranges[1]} range", f"converted to {ranges[0]} range"] += 1
        if "yuv" == frame.layout.kind == first.layout.kind and frame.matrix != first.matrix:
            why = f"converted to {first.matrix}"
            self.changed["colour", f"with the matrix of {frame.matrix}", why] += 1
        for tag, what, names in _COLORS:
            numbers = [each.tags.get(tag, _UNSPECIFIED) for each in (first, frame)]
            if numbers[0] != numbers[1] and not set(numbers) & {0, _UNSPECIFIED}:
                named = [_name_of(names, number) for number in numbers]
                self.changed["colour", f"with {what} {named[1]}", f"{one}, {named[0]}"] += 1

    def tell_rotation(self, frame: Frame, kind: Format | None) -> None:
        """Say where the output cannot hold which way up it is."""
        is_turned = frame.tags.get("display_matrix") is not None
        if is_turned and kind is not None and not kind.has_rotation:
            self.lose("rotation", "rotation", f"{kind.label} has no place for it")

    def tell_descriptions(self, source: bytes, encoded: bytes) -> None:
        """Say what a picture's file said about it and the output's does not."""
        written = descriptions_in(encoded)
        for what in descriptions_in(source):
            if what not in written:
                self.lose("metadata", what, "not written into this kind of picture")

    def tell_times(
        self, holder: str, time_base: Fraction, *, shift: Fraction | None, jumps: int
    ) -> None:
        """Say where times are not the source's.

        Args:
            holder: The format or the encoder that has its own idea of times.
            time_base: The output's unit of time.
            shift: Where the source starts, if the output starts at zero instead.
            jumps: How often the source's clock jumped.
        """
        if shift:
            self.lose("times", f"times: the source starts at {float(shift):.3f} s, the output at 0")
        if jumps:
            self.lose(
                "times",
                f"times: the recording's clock jumped ({counted(jumps, 'time')}); "
                "in the output the parts follow each other",
            )
        if self.uneven:
            self.lose("times", f"times: {holder} knows one frame rate only")
        elif self.moved:
            self.lose(
                "times",
                f"times: {counted(self.moved, 'frame')}, not later than the one before, "
                f"{'was' if self.moved == 1 else 'were'} moved by {time_base} s or more",
            )

    def tell_pauses(self, holder: str) -> None:
        """Say that pauses are longer than the format or the encoder knows, its name given."""
        if self.shown_again:
            frames = counted(self.shown_again, "frame was", "frames were")
            why = f"{holder} knows no pause so long"
            self.lose("times", f"times: {frames} added in pauses, the same as before", why)
        if self.astray:
            frames = counted(self.astray, "frame", "frames")
            self.lose("times", f"times: {frames}, months later than the one before, moved to it")

    def tell_counts(self, width: int, height: int) -> None:
        """Say how much was not as it should have been."""
        if self.scaled:
            frames = counted(
                self.scaled, "frame of another size was", "frames of another size were"
            )
            self.lose("size", f"size: {frames} scaled to {width}x{height}")
        for (kind, what, why), number in self.changed.items():
            self.lose(kind, f"{counted(number, 'frame')} {what}", why)
        if self.refused:
            of_streams = ("packet of another stream was", "packets of other streams were")
            self.lose("damage", f"{counted(self.refused, *of_streams)} damaged")

    def see(self, frame: Frame) -> None:
        """Take note of what a frame carries beside its samples, to be told at the end."""
        is_first, self._is_first = self._is_first, False
        for what, size in _side_data(frame).items():
            if what in self._seen or is_first or what != TIMECODE:
                self._seen[what] = self._seen.get(what, 0) + size

    def tell_side_data(
        self, encoder: str, result: set[str], options: Collection[str], where: str
    ) -> None:
        """Say what frames carried beside their samples and the output's do not.

        Args:
            encoder: FFmpeg's name of the encoder.
            result: What the output's first frame carries, as `carried_by` tells.
            options: The names of the encoder's options.
            where: As in `Loss`.
        """
        written = {_SIDE_DATA[kind] for kind, name in _OPTIONS.items() if name in options}
        asked = {_SIDE_DATA[kind] for kind in _OPTIONS}
        for what, size in self._seen.items():
            if what not in written | (result - asked):
                why = f"{encoder} does not write it"
                self.lose("side data", what, why, where=where, bytes=size or None)

    def tell_hidden(self, container: InputContainer, stream: VideoStream) -> None:
        """Say what a camera wrote into its file past FFmpeg, and how players would crop it."""
        name = container.name
        if not os.path.isfile(name):
            if container.format.name.split(",")[0] in _LOOKED_INTO:
                why = "not looked for, as the source can be read once only; name a file"
                self.lose("box", "what cameras hide from FFmpeg", why)
            return
        streams = list(container.streams)
        tags = {key.lower() for each in streams for key in each.metadata}
        tags |= {key.lower() for key in container.metadata}
        used = 0
        for each in streams:
            entries = each.index_entries
            used = max(used, entries[-1].pos + entries[-1].size if len(entries) else 0)
        # a note is no reason to lose what has been written
        with suppress(OSError):
            for found in unseen_in(name, stream=stream.index, tags=tags, used=used):
                what, why = found.what, "FFmpeg does not show it"
                if found.kind == "cropping":
                    if what == f"{stream.width}x{stream.height}":
                        continue
                    what, why = f"cropping ({what})", "the output has the whole picture"
                self.lose(found.kind, what, why, where=found.where, bytes=found.bytes)

    def tell_units(self, found: Mapping[str, int], where: str) -> None:
        """Say what of a stream its decoder has passed over, and how many bytes of it."""
        for what, size in found.items():
            self.lose("side data", what, "FFmpeg does not decode it", where=where, bytes=size)

    def tell_metadata(
        self,
        wanted: dict[str, str],
        result: Path,
        streams: Iterable[OutputStream],
        titles: Sequence[str],
    ) -> None:
        """Compare what a finished file says about itself with what it was to say.

        Args:
            wanted: Tags of the file as a whole.
            result: The file.
            streams: Its streams.
            titles: Those of its chapters.
        """
        try:
            with av.open(str(result), metadata_errors="surrogateescape") as container:
                found = dict(container.metadata)
                found_streams: dict[str, list[tuple[dict[str, str], int]]] = {}
                for stream in container.streams:
                    described = dict(stream.metadata), int(stream.disposition)
                    found_streams.setdefault(stream.type, []).append(described)
                became = [c["metadata"].get("title", "") for c in container.chapters()]
        except (FFmpegError, OSError, ValueError):
            return
        gone = _gone(wanted, found)
        if len(gone) < len(wanted):
            lines = counted(len(wanted) - len(gone), "line")
            self.kept.append(f"{lines} of information about the file")
        if gone:
            self.lose("tag", f"information about the file: {', '.join(gone)}")
        for each in streams:
            same = found_streams.get(each.type, [])[each.number :]
            tags, flags = same[0] if same else ({}, 0)
            # a camera's time code belongs to all streams, and is the video's in the output
            left_out = _NO_TAGS if each.type == "video" else (*_NO_TAGS, "timecode")
            wanted_tags = {k: v for k, v in each.tags.items() if k.lower() not in left_out}
            gone = _gone(wanted_tags, tags)
            lacking = Disposition(each.disposition & ~flags & ~Disposition.default)
            gone += [flag.name for flag in Disposition if flag & lacking and flag.name]
            if gone:
                what = f"information about {each.name}: {', '.join(gone)}"
                self.lose("tag", what, where=f"stream {each.stream}")
        changed = [title for title, new in zip(titles, became, strict=False) if title != new]
        if changed:
            shown = ", ".join(printable(title[:_MOST_LETTERS]) for title in changed[:_MOST_SHOWN])
            self.lose("chapters", f"whole titles of chapters: {shown}")


def carried_by(result: Path, number: int) -> set[str]:
    """What the first frame of a video stream in a finished file carries beside its samples."""
    try:
        with av.open(str(result)) as container:
            video: Any = container.streams.video[number]
            picture: Any = next(container.decode(video))
            return set(_contents(picture, video.codec_context.codec.name))
    except (FFmpegError, OSError, ValueError, StopIteration, IndexError):
        return set()


def _gone(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The tags that are not in a file, or not with their whole value, in a person's words."""
    has = {key.lower(): value for key, value in found.items()}
    gone = []
    for key, value in wanted.items():
        became = has.get(key.lower())
        if became == value or _is_same(key.lower(), value, became, found):
            continue
        cut = "" if became is None else f" (changed, {len(became)} of {len(value)} letters)"
        gone.append(printable(key) + cut)
    return gone


def _is_same(key: str, value: str, became: str | None, found: Mapping[str, str]) -> bool:
    """Whether a value of a tag stands in a file in another form, or under another name."""
    if not value.strip() or (key == "language" and value in ("und", "XXX")):
        return True
    if became is None:
        # MP4 has a track's title in another place
        is_name = key == "title" and value == found.get("name")
        return is_name or (len(value) > _SHORT_LETTERS and value in found.values())
    if key == "language":
        # the same language has two codes
        return len(value) == len(became)
    if key == "creation_time":
        return became[:_TIME_LETTERS] == value[:_TIME_LETTERS]
    return became.strip() == value.strip()


def printable(text: str) -> str:
    """A text from a file as a terminal can show it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _range(frame: Frame) -> str:
    return "full" if frame.full_range else "limited"


def _name_of(names: type[IntEnum], number: int) -> str:
    return names(number).name.lower() if number in set(names) else str(number)


def _is_transparent(frame: Frame) -> bool:
    """Whether anything shows through a frame that has an alpha plane."""
    return bool((frame.planes[-1] != (1 << frame.layout.bits) - 1).any())


def _side_data(frame: Frame) -> dict[str, int]:
    """What a frame carries beside its samples, as far as PyAV can tell, and how many bytes."""
    decoded = frame.tags.get("decoded")
    if not isinstance(decoded, Decoded):
        return {}
    return _contents(decoded.picture, decoded.codec)


def _contents(picture: av.VideoFrame, codec: str) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        for data in side_data_of(picture, codec):
            what = _SIDE_DATA.get(data.type)
            if what is not None and _says_something(data):
                found[what] = found.get(what, 0) + data.buffer_size
    except ValueError as error:
        # PyAV 18 stumbles over side data that it does not know
        number = re.match(r"(\d+) is not", str(error))
        if number and (what := _NEW_SIDE_DATA.get(int(number[1]))):
            found[what] = 0
    return found


def _says_something(data: Any) -> bool:
    if data.type == SideDataType.SEI_UNREGISTERED:
        return is_user_data(bytes(data))
    if data.type == SideDataType.GOP_TIMECODE:
        return bool(int.from_bytes(bytes(data)[:8], sys.byteorder) & ~_TIMECODE_MARK)
    return True
