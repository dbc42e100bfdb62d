"""What a person is told about an output: what it kept of the source, and what it could not."""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from pathlib import Path

import av
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorPrimaries, ColorTrc

from mhnet_video.boxes import hidden_data
from mhnet_video.containers import Format
from mhnet_video.frame import Frame
from mhnet_video.jpeg import descriptions_in
from mhnet_video.pixels import Decoded, layout_of, planar_twin, side_data_of

# how many things of one kind are named to a person
_MOST_SHOWN = 6
# what encoders read from nowhere, while captions and field order come with FFmpeg's frames
_UNSPECIFIED = 2  # AVCOL_PRI_UNSPECIFIED, AVCOL_TRC_UNSPECIFIED
_COLORS: tuple[tuple[str, str, type[IntEnum]], ...] = (
    ("color_primaries", "primaries", ColorPrimaries),
    ("color_trc", "the transfer", ColorTrc),
)
_HDR = {SideDataType.MASTERING_DISPLAY_METADATA, SideDataType.DYNAMIC_HDR_PLUS}


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


@dataclass
class Notes:
    """What is told of an output, and the counts that some of it is made of."""

    kept: list[str] = field(default_factory=list)
    """What else of the source is in the output, a line each."""
    losses: list[Loss] = field(default_factory=list)
    """What of the source is not in the output, or not as it was."""
    moved: int = 0
    """Frames that were not later than the one before."""
    uneven: int = 0
    """Frames whose time a format of one frame rate cannot hold."""
    scaled: int = 0
    """Frames of another size than the first."""
    changed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Frames that were otherwise than the first in what an output has once: kind, how, and what
    became of it."""
    refused: int = 0
    """Packets of other streams that could not be written."""

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
        found = _side_data(frame)
        if found & _HDR:
            self.lose("side data", "HDR mastering data", "the encoder has no way to take it")
        if SideDataType.SPHERICAL in found:
            self.lose(
                "side data", "360 degree projection", "FFmpeg's encoders have no way to take it"
            )

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
        self, kind: Format | None, time_base: Fraction, *, shift: Fraction | None, jumps: int
    ) -> None:
        """Say where times are not the source's.

        Args:
            kind: The output's format; None for a picture.
            time_base: Its unit of time.
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
        if kind is not None and kind.is_constant_rate and self.uneven:
            self.lose("times", f"times: {kind.label} knows one frame rate only")
        elif self.moved:
            self.lose(
                "times",
                f"times: {counted(self.moved, 'frame')}, not later than the one before, "
                f"{'was' if self.moved == 1 else 'were'} moved by {time_base} s or more",
            )

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

    def tell_hidden(self, source: str) -> None:
        """Say what a camera wrote into its file past FFmpeg."""
        if os.path.isfile(source):
            # a note is no reason to lose what has been written
            with suppress(OSError, ValueError, OverflowError):
                for what in hidden_data(source):
                    self.lose("box", what, "FFmpeg does not show it")

    def tell_metadata(self, wanted: dict[str, str], result: Path) -> None:
        """Compare what a finished file says about itself with what it was to say."""
        if not wanted:
            return
        try:
            with av.open(str(result), metadata_errors="surrogateescape") as container:
                found = {key.lower() for key in container.metadata}
        except (FFmpegError, OSError, ValueError):
            return
        gone = [key for key in wanted if key.lower() not in found]
        if len(gone) < len(wanted):
            lines = counted(len(wanted) - len(gone), "line")
            self.kept.append(f"{lines} of information about the file")
        if gone:
            names = ", ".join(printable(key) for key in gone)
            self.lose("tag", f"information about the file: {names}")


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


def _side_data(frame: Frame) -> set[SideDataType]:
    """The kinds of what a frame carries beside its samples, as far as PyAV can tell."""
    decoded = frame.tags.get("decoded")
    if not isinstance(decoded, Decoded):
        return set()
    try:
        return {data.type for data in side_data_of(decoded.picture, decoded.codec)}
    except ValueError:
        return set()  # PyAV 18 stumbles over side data that it does not know
