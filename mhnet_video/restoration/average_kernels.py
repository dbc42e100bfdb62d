"""The temporal average of 8-bit planes by compiled kernels, where there are any.

temporal_average.py is the reference implementation, by OpenCV and NumPy, operation by operation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhnet_video.restoration.host_kernels import HostKernel, compiled

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class AverageKernels:
    """Kernels for 8-bit planes."""

    lanes: int
    """Pixels of a vector."""
    _shown: HostKernel
    _unseen: HostKernel
    _taken: HostKernel

    def average(
        self, picture: NDArray[np.uint8], mean: Floats, weight: Floats, shown: Floats | None
    ) -> NDArray[np.uint8] | None:
        """Take the next picture into a running mean.

        Args:
            picture: `[H, W]`, levels.
            mean: `[H, W]`, changed in place.
            weight: Weight of the picture in the mean, `[h, W]`; between two rows it is linear.
            shown: Weight of the mean in the result, `[h', W]`, likewise; None where nothing of it
                is shown.

        Returns:
            The result, rounded, `[H, W]`; None where nothing is shown.
        """
        height, width = picture.shape
        # held here while the kernel reads them
        above, share = rows_between(len(weight), height)
        arguments = {
            "picture": picture.ctypes.data,
            "mean": mean.ctypes.data,
            "weight": weight.ctypes.data,
            "weight_above": above.ctypes.data,
            "weight_share": share.ctypes.data,
            "width": width,
            "height": height,
        }
        if shown is None:
            self._unseen(**arguments)
            return None
        out = np.empty_like(picture)
        shown_above, shown_share = rows_between(len(shown), height)
        self._shown(
            **arguments,
            shown=shown.ctypes.data,
            shown_above=shown_above.ctypes.data,
            shown_share=shown_share.ctypes.data,
            out=out.ctypes.data,
        )
        return out

    def taken_out(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Floats:
        """How much of each block of 4x4 pixels was changed, `[H // 4, W // 4]`."""
        height, width = after.shape
        out = np.empty((height // 4, width // 4), np.float32)
        self._taken(
            before=before.ctypes.data,
            after=after.ctypes.data,
            out=out.ctypes.data,
            width=width,
            columns=width // 4,
            rows=height // 4,
        )
        return out


@lru_cache(maxsize=8)
def rows_between(count: int, height: int) -> tuple[NDArray[np.int64], Floats]:
    """Where the rows of a picture are between those of a map with fewer.

    Args:
        count: Rows of the map, 2 at least.
        height: Rows of the picture.

    Returns:
        For each row of the picture that of the map above it, and the weight of the next one.
    """
    position = ((np.arange(height) + 0.5) * (count / height) - 0.5).clip(0, count - 1)
    above = position.astype(np.int64).clip(0, count - 2)
    return above, (position - above).astype(np.float32)


def kernels_for(*planes: Any) -> AverageKernels | None:
    """Kernels that can do planes of one size; None where there are none."""
    for plane in planes:
        if not isinstance(plane, np.ndarray) or plane.dtype != np.uint8:
            return None
        if not plane.flags.c_contiguous:
            return None
    kernels = _compiled()
    return kernels if kernels and planes[0].shape[1] // 4 >= kernels.lanes else None


@cache
def _compiled() -> AverageKernels | None:
    found = compiled(_makers)
    return None if found is None else AverageKernels(found.lanes, *found.kernels)


def _makers() -> Sequence[Callable[..., Any]]:
    from mhnet_video.kernels.llvm_average import mean_unseen, running_mean, taken_out

    return running_mean, mean_unseen, taken_out
