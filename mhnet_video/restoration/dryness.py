"""Whether a clip is dry: whether the network would take anything out of it, by a few windows.

What the network takes out is darker afterwards. In a clip with rain that is some of most windows;
in a dry one it is next to nothing, but for a light or a sign that passes. Brightness plays no part.
Few drops on the glass are next to nothing, too, but what is taken out of them is at the same place
in window after window.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from os import PathLike
from statistics import median
from typing import NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from mhnet_video.errors import ReadError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.locator import shown
from mhnet_video.media.frames.device_frames import on_host
from mhnet_video.media.output_file import OutputFile, check_destination, why_unwritable
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.restoration.restorer import Restorer

# Measured with `realtime`: docs/benchmarks.md has the clips and their shares.
_USUAL_SHARE = 0.0055
"""Share of darker pixels from which on a clip is not dry, in the median of its windows."""
_HIGH_SHARE = 0.02
"""Share of darker pixels that no window of a dry clip has."""
_HIGH_WINDOWS = 0.25
"""Share of the windows that have it where it rains in a part of the clip only."""
_STANDING_SHARE = 3e-4
"""Share of pixels that are changed by a level of 8 bits in most windows, from which on there are
drops on the glass. docs/benchmarks.md has those of clips."""
_PLACES = 6
"""Key frames at which a clip is looked at, at most."""
_FEW_PLACES = 4
"""A clip with fewer key frames is looked at more often behind each."""
_STEP = 6
"""Frames from one window to the next behind a key frame."""
_FICLONE = 0x40049409
"""Linux: have a file share the blocks of another until one of them is written to."""
_CHUNK_BYTES = 8 << 20


class Dryness(NamedTuple):
    """Whether a clip is dry, and by what."""

    is_dry: bool
    reason: str
    """For a person."""
    shares: tuple[float, ...] = ()
    """Share of the pixels of each window that the network makes darker, 0 to 1."""


def is_dry(path: str | PathLike[str], restorer: Restorer) -> Dryness:
    """Judge a clip by what the network would take out of a few windows of it.

    A clip that cannot be judged, as it has too few frames, is not dry.

    Args:
        path: A video file.
        restorer: Its network is used, at its own working scale and full strength.

    Raises:
        ReadError: The file cannot be read.
        ShortageError: The device has too little memory.
    """
    num_frames = restorer.behind + 1 + restorer.ahead
    places = _places(path)
    windows = 2 if len(places) >= _FEW_PLACES else 4
    shares: list[float] = []
    changes: list[NDArray[np.int8]] = []
    with _at_full_strength(restorer):
        for place in places:
            frames = _frames_from(path, place, (windows - 1) * _STEP + num_frames)
            for begin in range(0, len(frames) - num_frames + 1, _STEP):
                window = frames[begin : begin + num_frames]
                taken_out = _taken_out(restorer, window)
                shares.append(float(np.mean(taken_out >= 1)))
                if "raindrop" in restorer.tasks:
                    changes.append(np.abs(taken_out))
    if not shares:
        return Dryness(False, f"it has fewer than {num_frames} different frames in a row")
    usual, high = median(shares), sum(share >= _HIGH_SHARE for share in shares)
    looked = f"{len(shares)} windows"
    if usual >= _USUAL_SHARE:
        reason = f"something is taken out of {usual:.1%} of the picture (median of {looked})"
        return Dryness(False, reason, tuple(shares))
    if high >= _HIGH_WINDOWS * len(shares):
        reason = f"much is taken out of {high} of {looked}"
        return Dryness(False, reason, tuple(shares))
    standing = _share_standing(changes)
    if standing >= _STANDING_SHARE:
        reason = f"something is taken out of the same {standing:.2%} of the picture all the time"
        return Dryness(False, reason, tuple(shares))
    reason = f"next to nothing is taken out: {usual:.2%} of the picture (median of {looked})"
    return Dryness(True, reason, tuple(shares))


def copy_dry(
    source: str | PathLike[str], destination: str | PathLike[str], *, overwrite: bool = False
) -> None:
    """Copy a file bit for bit, with its times; its blocks are shared where the disk can do that.

    It is never a hard link: what is done to the copy later must not change what is on the card.

    Args:
        source: The file.
        destination: Where it goes; it appears there when it is complete.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ReadError: The source cannot be read.
        WriteError: The destination exists, is the source, or cannot be written.
    """
    check_destination(destination, source=source, overwrite=overwrite)
    try:
        file = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise ReadError(f"{shown(source)} cannot be read: {error.strerror}.") from error
    output = OutputFile(destination, overwrite=overwrite)
    try:
        with file, open(output.partial or destination, "r+b") as copy:
            if not _has_cloned(file.fileno(), copy.fileno()):
                shutil.copyfileobj(file, copy, _CHUNK_BYTES)
        with suppress(OSError):  # where a file system has no such times
            shutil.copystat(source, output.partial or destination)
        output.commit()
    except OSError as error:
        reason = why_unwritable(error)
        raise WriteError(f"{shown(source)} cannot be copied to {output.name}: {reason}.") from error
    finally:
        output.discard()


def _has_cloned(source: int, copy: int) -> bool:
    try:
        import fcntl

        fcntl.ioctl(copy, _FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


@contextmanager
def _at_full_strength(restorer: Restorer) -> Iterator[None]:
    before = restorer.strength, restorer.scale
    restorer.strength, restorer.scale = 1.0, None
    try:
        yield
    finally:
        restorer.strength, restorer.scale = before


def _places(path: str | PathLike[str]) -> Sequence[float]:
    """When key frames are shown, spread over a clip, in seconds from its first frame."""
    places = set()
    with VideoReader(path) as reader:
        stream, container = reader.stream, reader.container
        first = (stream.start_time or 0) * reader.time_base
        length = Fraction(container.duration or 0, av.time_base)
        for number in range(_PLACES):
            target = first + length * (2 * number + 1) / (2 * _PLACES)
            with suppress(FFmpegError, OSError):
                container.seek(int(target / reader.time_base), stream=stream)
                key = next(
                    (p for p in container.demux(stream) if p.is_keyframe and p.pts is not None),
                    None,
                )
                if key is not None and key.pts is not None:
                    places.add(max(0.0, float(key.pts * reader.time_base - first)))
    return sorted(places) or [0.0]


def _frames_from(path: str | PathLike[str], seconds: float, count: int) -> list[Frame]:
    """Successive frames of one size from a time on, without those that repeat the one before."""
    frames: list[Frame] = []
    with VideoReader(path, start=seconds or None) as reader:
        for item in reader:
            if not isinstance(item, Frame):
                continue
            if frames and item.upright_size != frames[0].upright_size:
                break
            if frames and np.array_equal(frames[-1].planes[0], item.planes[0]):
                continue
            frames.append(item)
            if len(frames) == count:
                break
    return frames


def _taken_out(restorer: Restorer, window: Sequence[Frame]) -> NDArray[np.int8]:
    """How much darker the network makes a picture, in levels of 8 bits, 127 at most, `[H, W]`."""
    # in the middle, as files have it: those who see far back alone change dry pictures more
    middle = len(window) // 2
    source = window[middle]
    restorer.forget()  # the window before may be of another place
    restored = on_host(restorer.restore_frame(window, middle))
    difference = source.planes[0].astype(np.int32) - restored.planes[0]
    levels = np.fix(difference / (1 << (source.layout.bits - 8)))
    return levels.clip(-127, 127).astype(np.int8)


def _share_standing(changes: Sequence[NDArray[np.int8]]) -> float:
    """Share of the pixels that the network changes in most windows, 0 to 1."""
    if not changes or len({change.shape for change in changes}) > 1:
        return 0.0
    return float(np.mean(np.median(np.stack(changes), axis=0) >= 1))
