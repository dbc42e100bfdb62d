"""A contact sheet: moments of a clip before and after, side by side, as one PNG.

Everything is drawn with PyAV and NumPy, because OpenCV needs libraries that a bare machine lacks.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from os import PathLike
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mhnet_video.errors import ReadError, WriteError
from mhnet_video.media.image_sequence import PICTURE_SUFFIXES, files_in
from mhnet_video.media.output_file import check_destination
from mhnet_video.media.source import filled_packets, open_source

Picture = NDArray[np.uint8]
"""`[H, W, 3]`, RGB."""

_CELL = (640, 480)
_GAP = 6
_BACKGROUND = 24
_NEAR_SECONDS = 0.002  # containers round times to a millisecond

# rows of five pixels, the leftmost in the highest bit
_GLYPHS = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    ":": (0, 4, 4, 0, 4, 4, 0),
    ".": (0, 0, 0, 0, 0, 4, 4),
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "F": (31, 16, 16, 30, 16, 16, 16),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "Y": (17, 17, 10, 4, 4, 4, 4),
}


def check_sheet(
    path: str | PathLike[str],
    others: Sequence[str | PathLike[str]] = (),
    *,
    overwrite: bool = False,
) -> None:
    """Find out whether a contact sheet can be saved, before any work is done.

    Args:
        path: PNG to create.
        others: What it must not replace in any case.
        overwrite: Whether another existing file may be replaced.

    Raises:
        WriteError: It is no PNG's name, a folder, in none, exists, or is one of the others.
    """
    name = os.fspath(path)
    if Path(name).suffix.lower() != ".png":
        raise WriteError(f"{name} cannot be the contact sheet, which is a PNG; end it in .png.")
    if os.path.realpath(name) in [os.path.realpath(other) for other in others]:
        raise WriteError(f"{name} is the input or the output; name another contact sheet.")
    check_destination(name, overwrite=overwrite)


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
        restored = files_in(Path(after), PICTURE_SUFFIXES)
        # there may be others, of before
        pairs = [(Path(before) / new.name, new) for new in restored]
        pairs = [pair for pair in pairs if pair[0].exists()]
        for number in sorted({int(len(pairs) * (i + 0.5) / moments) for i in range(moments)}):
            old, new = (_picture_at(picture, 0)[1] for picture in pairs[number])
            rows.append(_row(old, _right(new, old) if is_compared else new, str(number + 1)))
        _save_png(Path(path), _stack(rows, axis=0))
        return
    duration = _duration(after)
    times = sorted({round(duration * (i + 0.5) / moments, 3) for i in range(moments)})
    for time in times:
        shown, picture_after = _picture_at(after, time)
        _, picture_before = _picture_at(before, start + shown)
        if is_compared:
            picture_after = _right(picture_after, picture_before)
        rows.append(_row(picture_before, picture_after, _clock(shown)))
    _save_png(Path(path), _stack(rows, axis=0))


def save_pictures(rows: Sequence[Sequence[tuple[str, Picture]]], path: str | PathLike[str]) -> None:
    """Save rows of labelled pictures as a PNG.

    Args:
        rows: For each row its pictures, `[H, W, 3]` RGB uint8, each after what is written on it.
        path: PNG to create; an existing one is replaced.

    Raises:
        WriteError: The PNG cannot be written.
    """
    cells = [[_labelled(_fit(picture), label) for label, picture in row] for row in rows]
    _save_png(Path(path), _stack([_stack(row, axis=1) for row in cells], axis=0))


def _right(both: Picture, before: Picture) -> Picture:
    """The right one of two pictures side by side; odd sizes were padded at the end of each."""
    left = both.shape[1] // 2
    return both[: before.shape[0], left : left + before.shape[1]]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{rest:04.1f}"


def _row(before: Picture, after: Picture, label: str) -> Picture:
    cells = [_labelled(_fit(before), f"BEFORE {label}"), _labelled(_fit(after), f"AFTER {label}")]
    if before.shape == after.shape and min(before.shape[:2]) >= 32:
        size = cells[0].shape[0]
        top, left, side = _busiest_square(before, after)
        for picture, name in ((before, "BEFORE"), (after, "AFTER")):
            square = picture[top : top + side, left : left + side]
            cells.append(_labelled(_resize(square, size, size), name))
    return _stack(cells, axis=1)


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


def _duration(path: str | PathLike[str]) -> float:
    with open_source(path) as container:
        stream = _main_video(container, path)
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return (container.duration or 0) / av.time_base


def _picture_at(path: str | PathLike[str], seconds: float) -> tuple[float, Picture]:
    """The first frame at or after a time counted from the first frame, and its own time."""
    with open_source(path) as container:
        stream = _main_video(container, path)
        stream.thread_type = "AUTO"
        base = stream.time_base
        first = float((stream.start_time or 0) * base) if base else 0.0
        if seconds > 1 and base:
            with suppress(FFmpegError):  # what cannot be sought is decoded from its beginning
                container.seek(int((first + seconds) / base), stream=stream)
        last = None
        for frame in _frames(container, stream):
            last = frame
            if frame.time is None or frame.time - first >= seconds - _NEAR_SECONDS:
                break
        if last is None:
            raise ReadError(f"no picture of {path} can be decoded for the contact sheet")
        upright = np.rot90(_rgb(last), k=round(last.rotation / 90))
        return (last.time or first) - first, upright


def _frames(container: av.container.InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    with suppress(FFmpegError):  # the file may be cut: what came before is enough
        for packet in filled_packets(container, stream):
            with suppress(FFmpegError):
                yield from stream.decode(packet)


def _main_video(container: av.container.InputContainer, path: str | PathLike[str]) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise ReadError(f"{path} holds no video for the contact sheet")


def _fit(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    scale = min(_CELL[0] / width, _CELL[1] / height)
    return _resize(picture, max(1, round(height * scale)), max(1, round(width * scale)))


def _resize(picture: Picture, height: int, width: int) -> Picture:
    if picture.shape[:2] == (height, width):
        return picture
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    interpolation = "AREA" if height < picture.shape[0] else "BICUBIC"
    return _rgb(frame.reformat(width, height, interpolation=interpolation))


def _rgb(frame: av.VideoFrame) -> Picture:
    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def _labelled(picture: Picture, text: str) -> Picture:
    """A copy with white text on a dark strip in the top left corner."""
    scale = 2
    bitmap = np.zeros((9, 6 * len(text) + 1), dtype=bool)
    for index, letter in enumerate(text):
        for row, bits in enumerate(_GLYPHS.get(letter, ())):
            bitmap[row + 1, 6 * index + 1 : 6 * index + 6] = [bits >> (4 - x) & 1 for x in range(5)]
    bitmap = bitmap.repeat(scale, axis=0).repeat(scale, axis=1)
    out = picture.copy()
    strip = out[: bitmap.shape[0], : bitmap.shape[1]]
    strip //= 3
    strip[bitmap[: strip.shape[0], : strip.shape[1]]] = 255
    return out


def _stack(pictures: list[Picture], axis: int) -> Picture:
    """Pictures beside (axis 1) or below one another (axis 0), on a dark ground with gaps."""
    other = 1 - axis
    shape = [0, 0, 3]
    shape[axis] = sum(picture.shape[axis] + _GAP for picture in pictures) + _GAP
    shape[other] = max(picture.shape[other] for picture in pictures)
    out = np.full(shape, _BACKGROUND, dtype=np.uint8)
    place = _GAP
    for picture in pictures:
        height, width = picture.shape[:2]
        top, left = (place, 0) if axis == 0 else (0, place)
        out[top : top + height, left : left + width] = picture
        place += picture.shape[axis] + _GAP
    return out


def _save_png(path: Path, picture: Picture) -> None:
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt = "rgb24"
    encoder.time_base = Fraction(1)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    data = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise WriteError(f"cannot write the contact sheet {path}: {error.strerror}") from error
