"""What networks of each task are trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mhnet_video.training import blur_windows, windscreen
from mhnet_video.training.dataset import CleanWindows, rainy_batch
from mhnet_video.training.footage import Footage, load_footage


class Lesson(NamedTuple):
    """What the networks of a task are trained on."""

    windows: Any
    """A data set of windows, see `CleanWindows`."""
    batch: Any
    """Makes pairs of several of them, see `rainy_batch`."""
    runs: Mapping[str, int] = {}
    """Further arguments of `load_footage`; none for runs of one window."""
    sees_glass: bool = False
    """Whether the network sees two pictures of the glass."""
    borrows_means: bool = True
    """Whether global means are blended with those of another picture, which networks that take out
    rain need. How a whole picture is blurred is worth knowing."""

    def footage(self, folder: Path, frames: int) -> Footage:
        """Load what windows of so many frames are cut from; errors as of `load_footage`."""
        return load_footage(folder, **{"frames": frames, **self.runs})


LESSONS = {
    "derain": Lesson(CleanWindows, rainy_batch),
    "raindrop": Lesson(
        windscreen.GlassWindows,
        windscreen.glass_batch,
        {
            "frames": windscreen.RUN_FRAMES,
            "every": windscreen.RUN_EVERY,
            "rows": windscreen.RUN_ROWS,
        },
        sees_glass=True,
    ),
    "deblur": Lesson(
        blur_windows.BlurWindows,
        blur_windows.blurred_batch,
        {
            "frames": blur_windows.RUN_FRAMES,
            "every": blur_windows.RUN_EVERY,
            "rows": blur_windows.RUN_ROWS,
        },
        borrows_means=False,
    ),
}
"""The lesson of each task."""
