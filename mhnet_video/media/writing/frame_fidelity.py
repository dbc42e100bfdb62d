"""Which frames of an output cannot be what the source's are, and how they differ."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorTrc

from mhnet_video.color_spaces import FULL_RANGE, MATRIX_NAMES, UNSPECIFIED
from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder import EncoderSettings
from mhnet_video.media.fidelity import Notes, counted
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.frames.pixel_formats import layout_of, planar_twin

_COLORS: tuple[tuple[str, str, type[IntEnum]], ...] = (
    ("color_primaries", "primaries", ColorPrimaries),
    ("color_trc", "the transfer", ColorTrc),
)
"""Tags of a frame that not every encoder writes, what a person calls them, and their values."""
_TOLD_COLORS = {
    "color_range": "range",
    "colorspace": "matrix",
    "color_primaries": "primaries",
    "color_trc": "transfer",
}
"""What a person calls the tags of colour."""
_VISIBLE_SHARE = Fraction(1, 50)
"""Samples that are wider by less look the same; WebM rounds them to whole pixels of a picture."""


def report_pixels(notes: Notes, frame: Frame, pixel_format: str, encoder: str) -> None:
    """Report where the output's pixels cannot be what the source's were."""
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
        notes.lose("pixels", f"{shown} by {encoder} ({', '.join(losses)})")
    elif target.name != source.name:
        notes.kept.append(f"{shown}, as {encoder} takes it")


def report_rotation(notes: Notes, frame: Frame, container_format: Format | None) -> None:
    """Report where the output cannot hold which way up it is."""
    is_turned = frame.tags.get("display_matrix") is not None
    if is_turned and container_format is not None and not container_format.has_rotation:
        notes.lose("rotation", "rotation", f"{container_format.label} has no place for it")


def report_look(
    notes: Notes, result: Path, number: int, settings: EncoderSettings, container_format: Format
) -> None:
    """Report where a finished file does not say how its pictures are to be shown.

    Args:
        notes: What it is added to.
        result: The file.
        number: Which one of its videos is meant.
        settings: Those of its encoder, with all that it was told.
        container_format: The file's format.
    """
    try:
        with av.open(str(result), metadata_errors="surrogateescape") as container:
            stream = container.streams.video[number]
            aspect = Fraction(stream.sample_aspect_ratio or 1)
            found = {tag: int(getattr(stream.codec_context, tag)) for tag in settings.color}
    except (FFmpegError, OSError, ValueError, IndexError):
        return
    why = f"{settings.encoder} in {container_format.label} does not keep it"
    wanted = settings.sample_aspect_ratio or aspect
    if abs(aspect / wanted - 1) > _VISIBLE_SHARE:
        what = f"the shape of samples, {wanted.numerator}:{wanted.denominator}"
        notes.lose("aspect", what, why)
    gone = [
        name
        for tag, name in _TOLD_COLORS.items()
        if _meaning(tag, settings.color.get(tag)) not in (None, _meaning(tag, found.get(tag)))
    ]
    if gone:
        notes.lose("colour", f"what is said of colours: {', '.join(gone)}", why)


def _meaning(tag: str, number: int | None) -> object:
    """What a tag says, which several numbers may say; None for nothing, and for the usual range."""
    if tag == "color_range":
        return number == FULL_RANGE or None
    if tag == "colorspace" and number in MATRIX_NAMES:
        return MATRIX_NAMES[number]
    return None if number in (0, UNSPECIFIED) else number


class FrameChanges:
    """Counts frames that are otherwise than the first in what an output has only once.

    Args:
        first: The frame that the output was opened for.
        encoder: FFmpeg's name of the encoder.
        marks_fields: Whether each frame is marked as interlaced, or not, by itself.
        has_alpha: Whether the output's pixels have an alpha plane.
    """

    def __init__(
        self, first: Frame, encoder: str, *, marks_fields: bool, has_alpha: bool = True
    ) -> None:
        self.size = (first.width, first.height)
        """Width and height of the first frame, in pixels."""
        self.scaled = 0
        """Frames of another size than the first."""
        # what is compared needs no samples of a frame in the host's memory
        self._first = replace(first, planes=()) if type(first) is Frame else first
        self._encoder = encoder
        self._marks_fields = marks_fields
        # where the first one is transparent, that is told of all
        self._was_opaque = not has_alpha and first.layout.has_alpha and not _is_transparent(first)
        # by the kind of the loss, how the frames differ, and what became of them
        self._changed = Counter[tuple[str, str, str]]()

    def see(self, frame: Frame) -> None:
        """Compare a frame with the first one."""
        first = self._first
        self.scaled += (frame.width, frame.height) != self.size
        one = "the output has one for all frames, that of the first"
        aspects = [each.tags.get("sample_aspect_ratio") for each in (first, frame)]
        if all(aspects) and aspects[0] != aspects[1]:
            shown = [f"{aspect.numerator}:{aspect.denominator}" for aspect in aspects if aspect]
            what = f"with samples of the shape {shown[1]}"
            self._changed["aspect", what, f"{one}, {shown[0]}"] += 1
        if frame.tags.get("display_matrix") != first.tags.get("display_matrix"):
            self._changed["rotation", "turned otherwise than the first", one] += 1
        was, is_now = (bool(each.tags.get("interlaced")) for each in (first, frame))
        if was != is_now and not self._marks_fields:
            what = "with fields" if is_now else "without fields"
            why = f"{self._encoder} marks fields in all frames or in none, as in the first"
            self._changed["fields", what, why] += 1
        if frame.layout.name != first.layout.name:
            why = f"stored as those of {first.layout.name} that come first"
            self._changed["pixels", f"of {frame.layout.name}", why] += 1
        if self._was_opaque and frame.layout.has_alpha and _is_transparent(frame):
            self._changed["pixels", "with transparency", "it is gone"] += 1
        if frame.full_range != first.full_range:
            ranges = [_range(each) for each in (first, frame)]
            self._changed["colour", f"of {ranges[1]} range", f"converted to {ranges[0]} range"] += 1
        if "yuv" == frame.layout.kind == first.layout.kind and frame.matrix != first.matrix:
            why = f"converted to {first.matrix}"
            self._changed["colour", f"with the matrix of {frame.matrix}", why] += 1
        for tag, what, names in _COLORS:
            numbers = [each.tags.get(tag, UNSPECIFIED) for each in (first, frame)]
            if numbers[0] != numbers[1] and not set(numbers) & {0, UNSPECIFIED}:
                named = [_name_of(names, number) for number in numbers]
                self._changed["colour", f"with {what} {named[1]}", f"{one}, {named[0]}"] += 1

    def counts(self) -> list[list[Any]]:
        """How frames differ from the first: kind, how, what became of them, and how many."""
        return [[*said, number] for said, number in self._changed.items()]

    def add(self, scaled: int, counts: Iterable[Sequence[Any]]) -> None:
        """Count frames that others have compared with the same first one.

        Args:
            scaled: Frames of another size.
            counts: As `counts` gives it.
        """
        self.scaled += scaled
        for kind, what, why, number in counts:
            self._changed[kind, what, why] += number

    def report(self, notes: Notes) -> None:
        """Report how many frames were otherwise than the first, and what became of them."""
        if self.scaled:
            frames = counted(
                self.scaled, "frame of another size was", "frames of another size were"
            )
            notes.lose("size", f"size: {frames} scaled to {self.size[0]}x{self.size[1]}")
        for (kind, what, why), number in self._changed.items():
            notes.lose(kind, f"{counted(number, 'frame')} {what}", why)


def _range(frame: Frame) -> str:
    return "full" if frame.full_range else "limited"


def _name_of(names: type[IntEnum], number: int) -> str:
    return names(number).name.lower() if number in set(names) else str(number)


def _is_transparent(frame: Frame) -> bool:
    """Whether anything shows through a frame that has an alpha plane."""
    return bool((frame.planes[-1] != (1 << frame.layout.bits) - 1).any())
