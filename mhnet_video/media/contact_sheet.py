"""A contact sheet: moments of a clip before and after, side by side, as one PNG."""

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mhnet_video.errors import ReadError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.formats.suffixes import PICTURE_SUFFIXES
from mhnet_video.media.frames.converter import Converter
from mhnet_video.media.frames.frame_geometry import upright
from mhnet_video.media.image_sequence import files_in, written_name
from mhnet_video.media.output_file import check_destination, why_unwritable
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.system import replace_file

Picture = NDArray[np.uint8]
"""`[H, W, 3]`, RGB."""

_CELL = (640, 480)
"""Width and height that a picture must fit into, in pixels."""
_GAP = 6
"""Pixels between the pictures and around them."""
_BACKGROUND = (24, 24, 24)
"""Colour of the gaps, RGB."""
_LETTER_PIXELS = 16
"""Size of the letters."""
_LABEL_HEIGHT = 20
"""Height of the strip that is darkened behind the letters, in pixels."""
_LABEL_MARGIN = 4
"""Pixels of the strip before the letters and after them."""
_NEAR_SECONDS = 0.002
"""A frame that is earlier by less is at its time: containers round times to a millisecond."""
_BACK_SECONDS = 0.5
"""How far before a time behind the last frame that frame is looked for first."""


def check_sheet(
    path: str | PathLike[str],
    others: Sequence[str | PathLike[str]] = (),
    *,
    made: str | PathLike[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Find out whether a contact sheet can be saved, before any work is done.

    Args:
        path: PNG to create.
        others: What it must not replace in any case.
        made: A folder that will be there by then; None if there is no such one.
        overwrite: Whether another existing file may be replaced.

    Raises:
        WriteError: It is no PNG's name, a folder, in none, exists, or is one of the others.
    """
    name = os.fspath(path)
    if Path(name).suffix.lower() != ".png":
        raise WriteError(f"{name} cannot be the contact sheet, which is a PNG; end it in .png.")
    if os.path.realpath(name) in [os.path.realpath(other) for other in others]:
        raise WriteError(f"{name} is the input or the output; name another contact sheet.")
    folder = os.path.realpath(os.path.dirname(name))
    if made is None or folder != os.path.realpath(made) or os.path.lexists(made):
        check_destination(name, overwrite=overwrite)


def check_sheet_of(
    before: str | PathLike[str],
    after: str | PathLike[str],
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
) -> None:
    """Find out whether the contact sheet of a run can be saved, before any work is done.

    Args:
        before: The clip, or a folder of pictures.
        after: What will be made from it, a file or a folder.
        path: PNG to create.
        overwrite: Whether another existing file may be replaced.

    Raises:
        WriteError: As for `check_sheet`; or it is a picture that will be made.
    """
    others = [before, after]
    if not os.path.isdir(before):
        check_sheet(path, others, overwrite=overwrite)
        return
    with suppress(ReadError):  # the run itself says that there is no picture
        pictures = files_in(Path(before), PICTURE_SUFFIXES)
        others += [Path(after) / written_name(picture) for picture in pictures]
    check_sheet(path, others, made=after, overwrite=overwrite)


def save_contact_sheet(
    before: str | PathLike[str],
    after: str | PathLike[str],
    path: str | PathLike[str],
    *,
    start: float = 0.0,
    moments: int = 4,
    is_compared: bool = False,
) -> None:
    """Save moments of two clips as rows of a PNG: both pictures, then where they differ most.

    Args:
        before: The clip as it was, or a folder of pictures.
        after: The clip or the folder made from it.
        path: PNG to create; an existing one is replaced.
        start: Where in `before` the other begins, in seconds from the first frame.
        moments: Number of rows, spread over the clip.
        is_compared: Whether the pictures of `after` hold both, side by side.

    Raises:
        ReadError: A clip cannot be opened or decoded.
        WriteError: The PNG cannot be written.
    """
    rows = []
    if os.path.isdir(after):
        sources = {written_name(old): old for old in files_in(Path(before), PICTURE_SUFFIXES)}
        restored = files_in(Path(after), PICTURE_SUFFIXES)
        # there may be others, of before
        pairs = [(sources[new.name], new) for new in restored if new.name in sources]
        if not pairs:
            raise ReadError(f"no picture of {after} is one of {before}, for the contact sheet")
        for number in sorted({int(len(pairs) * (i + 0.5) / moments) for i in range(moments)}):
            old, new = map(_picture_of, pairs[number])
            rows.append(_row(old, _right(new, old) if is_compared else new, str(number + 1)))
        _save_png(Path(path), rows)
        return
    source, output = _Moments(before), _Moments(after)
    begin = source.begin_of(start)
    for time in sorted({round(output.duration * (i + 0.5) / moments, 3) for i in range(moments)}):
        frame = output.at(output.begin + time)
        shown = _seconds(frame) - output.begin
        picture_after = _rgb(frame)
        picture_before = _rgb(source.at(begin + shown))
        if is_compared:
            picture_after = _right(picture_after, picture_before)
        rows.append(_row(picture_before, picture_after, _clock(shown)))
    _save_png(Path(path), rows)


def save_pictures(rows: Sequence[Sequence[tuple[str, Picture]]], path: str | PathLike[str]) -> None:
    """Save rows of labelled pictures as a PNG.

    Args:
        rows: For each row its pictures, `[H, W, 3]` RGB uint8, each after what is written on it.
        path: PNG to create; an existing one is replaced.

    Raises:
        WriteError: The PNG cannot be written.
    """
    _save_png(Path(path), [[_cell(picture, label) for label, picture in row] for row in rows])


def _right(both: Picture, before: Picture) -> Picture:
    """The right one of two pictures side by side; odd sizes were padded at the end of each."""
    left = both.shape[1] // 2
    return both[: before.shape[0], left : left + before.shape[1]]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{rest:04.1f}"


def _row(before: Picture, after: Picture, label: str) -> list[Image.Image]:
    cells = [_cell(before, f"BEFORE {label}"), _cell(after, f"AFTER {label}")]
    if before.shape == after.shape and min(before.shape[:2]) >= 32:
        size = (cells[0].height, cells[0].height)
        top, left, side = _busiest_square(before, after)
        for picture, name in ((before, "BEFORE"), (after, "AFTER")):
            cells.append(_cell(picture[top : top + side, left : left + side], name, size))
    return cells


def _busiest_square(before: Picture, after: Picture) -> tuple[int, int, int]:
    """Top, left and side of the square, a third of the picture, that has changed the most."""
    height, width = before.shape[:2]
    side = max(16, min(height, width) // 3)
    change = np.abs(before.astype(np.int32) - after).sum(axis=2)
    # sums over all squares from one summed area table
    table = np.zeros((height + 1, width + 1), dtype=np.int64)
    table[1:, 1:] = change.cumsum(axis=0).cumsum(axis=1)
    sums = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left), side


class _Moments:
    """The frames of a file by their times on its own clock.

    Args:
        path: The file.

    Raises:
        ReadError: It cannot be opened, or has no frame.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = path
        with VideoReader(path) as reader:
            stream = reader.stream
            self._header_begin = float((stream.start_time or 0) * reader.time_base)
            self.duration = (reader.container.duration or 0) / av.time_base
            """In seconds, as the file says; 0 if it does not."""
            if stream.duration:
                self.duration = float(stream.duration * reader.time_base)
            self.begin = _seconds(_first_of(reader))
            """When its first frame is shown that can be decoded. A header may say that it begins
            earlier: with frames that are lost, or in an AVI."""

    def begin_of(self, start: float) -> float:
        """When the first frame of a part is shown that begins so many seconds behind the first."""
        if not start:
            return self.begin
        with VideoReader(self._path, start=start) as reader:
            return _seconds(_first_of(reader))

    def at(self, time: float) -> Frame:
        """The first frame at or after a time; the last one if none is."""
        with suppress(ReadError), self._reader_from(time - _NEAR_SECONDS) as reader:
            return _first_of(reader)
        with suppress(ReadError):
            return self._last(time - _BACK_SECONDS)
        return self._last(0.0)

    def _last(self, time: float) -> Frame:
        """The last frame, decoded from a time on."""
        with self._reader_from(time) as reader:
            return deque((item for item in reader.items() if isinstance(item, Frame)), maxlen=1)[0]

    def _reader_from(self, time: float) -> VideoReader:
        """A reader whose frames begin at a time."""
        return VideoReader(self._path, start=max(0.0, time - self._header_begin) or None)


def _picture_of(path: Path) -> Picture:
    """The samples of a picture's file."""
    with VideoReader(path) as reader:
        return _rgb(_first_of(reader))


def _first_of(reader: VideoReader) -> Frame:
    """The first frame of a reader."""
    return next(item for item in reader.items() if isinstance(item, Frame))


def _seconds(frame: Frame) -> float:
    return float(frame.pts * frame.time_base)


def _rgb(frame: Frame) -> Picture:
    """The samples of a frame, upright."""
    # without where its chroma lies, of which outputs may say nothing: no change that is to be seen
    shown = replace(upright(frame), tags={})
    picture = Converter("rgb24", shown.width, shown.height).convert(shown)
    return picture.to_ndarray().astype(np.uint8, copy=False)


def _cell(picture: Picture, text: str, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture with white text on a dark strip in its top left corner.

    Args:
        picture: `[H, W, 3]`, RGB.
        text: What is written.
        size: Width and height of the result, in pixels; None for the largest that fits a cell.
    """
    image = Image.fromarray(picture)
    if size is None:
        scale = min(_CELL[0] / image.width, _CELL[1] / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    is_shrunk = size[1] < image.height
    image = image.resize(size, Image.Resampling.BOX if is_shrunk else Image.Resampling.BICUBIC)
    font = ImageFont.load_default(_LETTER_PIXELS)
    width = round(font.getlength(text)) + 2 * _LABEL_MARGIN
    strip = (0, 0, min(width, image.width), min(_LABEL_HEIGHT, image.height))
    image.paste(image.crop(strip).point([value // 3 for value in range(256)] * 3), strip)
    place = (_LABEL_MARGIN, _LABEL_HEIGHT // 2)
    ImageDraw.Draw(image).text(place, text, fill="white", font=font, anchor="lm")
    return image


def _stack(images: Sequence[Image.Image], *, is_row: bool) -> Image.Image:
    """Pictures beside or below one another, on a dark ground with gaps."""
    widths, heights = [each.width for each in images], [each.height for each in images]
    gaps = _GAP * (len(images) + 1)
    size = (sum(widths) + gaps, max(heights)) if is_row else (max(widths), sum(heights) + gaps)
    whole = Image.new("RGB", size, _BACKGROUND)
    position = _GAP
    for image in images:
        whole.paste(image, (position, 0) if is_row else (0, position))
        position += (image.width if is_row else image.height) + _GAP
    return whole


def _save_png(path: Path, rows: Sequence[Sequence[Image.Image]]) -> None:
    sheet = _stack([_stack(row, is_row=True) for row in rows], is_row=False)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(partial, format="PNG")
        replace_file(partial, path)
    except OSError as error:
        raise WriteError(
            f"the contact sheet {path} cannot be written: {why_unwritable(error)}."
        ) from error
    finally:  # also after an interrupt
        with suppress(OSError):
            partial.unlink()
