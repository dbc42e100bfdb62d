"""How much of the rain in a lamp's light is taken out of a clip of a fixed camera.

    python tests/measure_night.py data/dev/real/night_lamp_720p.mp4 560 400 200 240 realtime ...

The four numbers are the box to look at: left, top, width and height, in pixels; it must hold
nothing that moves but rain. Streaks are what is brighter than the clip's temporal median there, by
more than `VISIBLE` levels. Each model gets a line: the share of their light that is gone, and what
it changes where there is no streak, in grey levels.
"""

# ruff: noqa: T201 - it is there to print

import argparse
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from mhnet_video.color_spaces import LUMA_WEIGHTS
from mhnet_video.config import RestoreConfig
from mhnet_video.pipelines.restore import restore_video

VISIBLE = 6
"""Grey levels above the median from which a pixel counts as one of a streak."""
SECONDS = 2.4
"""How much of the clip is looked at."""

Levels = NDArray[np.float32]


def luma(path: Path, box: tuple[int, int, int, int]) -> Levels:
    """The luma of a box in the first frames of a clip, `[T, height, width]`, in grey levels."""
    left, top, width, height = box
    weights = np.array(LUMA_WEIGHTS["bt601"], np.float32)
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24")[top : top + height, left : left + width]
            if frame.time >= SECONDS:
                break
            frames.append(pixels.astype(np.float32) @ weights)
    return np.stack(frames)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("box", type=int, nargs=4)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--keep", type=Path, help="folder for the restored clips, to look at")
    options = parser.parse_args()
    before = luma(options.video, tuple(options.box))
    median = np.median(before, axis=0)
    excess = before - median
    streaks = excess > VISIBLE
    if not streaks.any():
        sys.exit(f"no streaks in this box of {options.video}; choose another one.")
    print(f"streaks: {streaks.mean():.3f} of the box, {excess[streaks].mean():.1f} levels bright")
    scratch = tempfile.TemporaryDirectory()
    folder = options.keep or Path(scratch.name)
    for model in options.models:
        output = folder / f"night-{Path(model).stem}.mkv"
        is_file = Path(model).is_file()
        config = RestoreConfig(
            model="auto" if is_file else model,
            weights=model if is_file else None,
            duration=SECONDS,
            encoder="ffv1",
            overwrite=True,
        )
        restore_video(options.video, output, config)
        after = luma(output, tuple(options.box))
        gone = 1 - np.maximum(after - median, 0)[streaks].sum() / excess[streaks].sum()
        beside = np.abs(after - before)[~streaks].mean()
        print(f"{model}: {100 * gone:.1f} % of the streaks' light gone, {beside:.2f} beside them")


if __name__ == "__main__":
    main()
