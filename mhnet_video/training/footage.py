"""Clean photographs and clips, from which windows are cut for training."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.errors import ReadError

Image = NDArray[Any]
"""`[H, W, 3]` uint8, RGB."""


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Clean photographs and clips, decoded in memory."""

    photos: list[Image]
    """Photographs of any sizes."""
    clips: list[list[NDArray[Any]]]
    """Runs of consecutive frames for each clip, each `[run, H, W, 3]` uint8, RGB."""


def load_footage(
    folder: Path, *, frames: int = 3, every: int = 15, rows: int | None = None
) -> Footage:
    """Read `photos/` and `clips/` of a folder.

    Args:
        folder: Parent of both folders; one of them may be missing.
        frames: Frames of a window. Runs are two frames longer, so that a window can begin at
            three frames of a run.
        every: Frames from the beginning of one run to the beginning of the next.
        rows: Most rows of a clip, to which larger ones are shrunk; None to keep their sizes.

    Raises:
        ReadError: Both folders are empty or missing, or what is in them cannot be read.
    """
    import av

    from mhnet_video.media.formats.suffixes import PICTURE_SUFFIXES
    from mhnet_video.media.reading.source import filled_packets

    photos = []
    for path in _files_in(folder / "photos"):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            photos.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            raise ReadError(
                f"{path} is damaged, or of a kind that OpenCV does not read; take it out of "
                "photos/, or save it as PNG."
            )
    clips = []
    clip_files = _files_in(folder / "clips")
    for path in clip_files:
        runs: list[NDArray[Any]] = []
        run: list[Image] = []
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                pictures = (stream.decode(each) for each in filled_packets(container, stream))
                for index, frame in enumerate(chain.from_iterable(pictures)):
                    if index % every < frames + 2:
                        size = _shrunk_size(frame.height, frame.width, rows)
                        run.append(frame.to_ndarray(format="rgb24", interpolation="AREA", **size))
                        if len(run) == frames + 2:
                            runs.append(np.stack(run))
                            run = []
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            raise ReadError(f"{path} is no video, or damaged; take it out of clips/.") from error
        if runs:
            clips.append(runs)
    if not photos and not clips:
        least = f" A clip has {frames + 2} frames at least." if clip_files else ""
        raise ReadError(
            f"no photos/ or clips/ to train on in {folder}; --data names the folder of both.{least}"
        )
    return Footage(photos=photos, clips=clips)


def _files_in(folder: Path) -> list[Path]:
    """The files of a folder by their names, without hidden ones; none if it is not there.

    Raises:
        ReadError: It cannot be read.
    """
    try:
        found = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ReadError(f"{folder} cannot be read: {error.strerror}.") from error
    return [path for path in found if not path.is_dir() and not path.name.startswith(".")]


def _shrunk_size(height: int, width: int, rows: int | None) -> dict[str, Any]:
    """The size of a frame that is to have so many rows at most, if it has more."""
    if rows is None or height <= rows:
        return {}
    return {"height": rows, "width": 2 * round(width * rows / height / 2)}


def grade(clean: Tensor, random: np.random.Generator) -> Tensor:
    """Vary exposure, contrast and mist of `[T, 3, H, W]`; they are part of the clean picture."""
    if random.random() < 0.5:
        clean = clean ** float(random.uniform(0.75, 1.6))
        clean = clean * float(random.uniform(0.5, 1.1))
    if random.random() < 0.25:
        veil = float(random.uniform(0, 0.45))
        clean = clean * (1 - veil) + veil * float(random.uniform(0.4, 0.85))
    return clean.clamp(0, 1)


def pixels_of(frames: NDArray[Any]) -> Tensor:
    """`[N, H, W, 3]` uint8 as `[N, 3, H, W]` in [0, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    return pixels.float() / 255
