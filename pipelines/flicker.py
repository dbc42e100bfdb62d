"""Flicker of clips without a clean reference, and the rain removed from them."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.locator import learn
from mhnet_video.media.formats.suffixes import VIDEO_SUFFIXES
from mhnet_video.media.image_sequence import files_in
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.pipelines.evaluate import ToRgb
from mhnet_video.pipelines.restore import Progress
from mhnet_video.training.metrics import Flicker, Image, luma

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer


@dataclass(frozen=True, kw_only=True)
class ClipFlicker:
    """Flicker of a clip.

    Flicker is the mean absolute change of static pixels from frame to frame, in levels of 8-bit Y
    (16 to 235). It is None for a clip without static pixels.
    """

    name: str
    """The file's name."""
    at_rest: float
    """Static share of the clip's pixels, 0 to 1."""
    rainy: float | None
    """Flicker of the rainy clip."""
    cut: float | None
    """Flicker of the rainy clip, clipped to the temporal median of seven frames: without rain, but
    with noise."""
    median: float | None
    """Flicker of the temporal median of seven rainy frames, which has neither rain nor noise."""
    restored: float | None
    """Flicker of the restored clip; None without a restorer."""
    taken_out: float | None
    """Mean levels of Y by which the restored clip is darker; None without a restorer."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def measure_flicker(
    rainy: str | PathLike[str],
    *,
    restorer: "Restorer | None" = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[ClipFlicker]:
    """Measure the flicker of clips in static parts, and the levels that restoration removes.

    Only for fixed cameras: where the camera moves, pixels are static by chance.

    Args:
        rainy: A clip, or a folder of clips.
        restorer: Restores the clips; None to measure only the rainy ones.
        on_progress: Called after each frame.

    Returns:
        The flicker of each clip.

    Raises:
        ReadError: A clip cannot be read, or has fewer than eight frames.
    """
    learn(rainy)
    source = Path(rainy)
    if not source.exists():
        raise ReadError(f"there is no {source}; name a clip or a folder of clips")
    found, count, begin = [], 0, time.monotonic()
    for path in files_in(source, VIDEO_SUFFIXES) if source.is_dir() else [source]:
        flicker, taken_out = Flicker(1 if restorer is None else 2), []
        for seen, total in _frames(path, restorer):
            flicker.push(seen)
            taken_out.append(float(np.mean(seen[0].astype(np.int16) - seen[-1])))
            count += 1
            if on_progress is not None:
                on_progress(
                    Progress(
                        frames=count,
                        total=None if source.is_dir() else total,
                        seconds=time.monotonic() - begin,
                        position_seconds=0.0,
                    )
                )
        if len(taken_out) < 8:
            raise ReadError(f"{path} is shorter than eight frames, too short to measure flicker")
        levels = [None if math.isnan(level) else level for level in flicker.levels]
        found.append(
            ClipFlicker(
                name=path.name,
                at_rest=flicker.share,
                rainy=levels[0],
                cut=levels[-2],
                median=levels[-1],
                restored=None if restorer is None else levels[1],
                taken_out=None if restorer is None else float(np.mean(taken_out)),
            )
        )
    return found


def _frames(
    path: Path, restorer: "Restorer | None"
) -> Iterator[tuple[tuple[Image, ...], int | None]]:
    """Y of each frame, rainy and restored, with the number of frames, None if unknown."""
    rgb = ToRgb()
    waiting: deque[Image] = deque()
    with VideoReader(path) as reader:

        def frames() -> Iterator[Frame]:
            for item in reader:
                if isinstance(item, Frame):
                    waiting.append(luma(rgb(item)))
                    yield item

        for frame in frames() if restorer is None else restorer.stream(frames()):
            before = waiting.popleft()
            after = () if restorer is None else (luma(rgb(frame)),)
            yield (before, *after), reader.num_frames
