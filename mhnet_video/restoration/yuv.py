"""YUV planes to RGB and the residual's way back by compiled kernels, where there are any.

color.py is the reference implementation, by PyTorch, operation by operation, for all layouts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from mhnet_video.frame import Frame, Plane
from mhnet_video.restoration.host_kernels import HostKernel, compiled

_SHIFTS = (0, 1)
"""Chroma shifts that the kernels support."""


@dataclass(frozen=True)
class YuvKernels:
    """Kernels for a kind of planes."""

    lanes: int
    """Pixels of a vector."""
    _shift_y: int
    """1 where two rows share a sample of chroma, else 0."""
    _rgb: HostKernel
    _residual: HostKernel

    def write_rgb(self, frame: Frame, constants: Sequence[float], rows: slice, out: Tensor) -> None:
        """Write rows of the picture as RGB.

        Args:
            frame: The picture.
            constants: See `llvm_color.RGB_CONSTANTS`.
            rows: The rows.
            out: `[3, h, W]` float32, these rows; pixels of a row follow each other.
        """
        planes = frame.planes[:3]
        numbers = np.array(constants, np.float32)
        spare = np.empty((2, planes[1].shape[1] + 2 * self.lanes), np.float32)
        self._rgb(
            **_arguments(planes),
            constants=numbers.ctypes.data,
            spare=spare.ctypes.data,
            out=_first_row(out, rows),
            color_size=out.stride(0),
            row_size=out.stride(1),
            width=frame.width,
            height=frame.height,
            first=rows.start,
            end=rows.stop,
        )

    def add_residual(
        self,
        frame: Frame,
        residual: Tensor,
        constants: Sequence[float],
        rows: slice,
        restored: Sequence[Plane],
    ) -> None:
        """Write rows of the planes with a residual.

        Args:
            frame: The picture.
            residual: `[3, h, W]` float32, of these rows.
            constants: See `llvm_color.RESIDUAL_CONSTANTS`.
            rows: The rows, which share no sample of chroma with others.
            restored: The planes.
        """
        planes = frame.planes[:3]
        numbers = np.array(constants, np.float32)
        if residual.stride(2) != 1:
            residual = residual.contiguous()
        self._residual(
            **_arguments(planes),
            **_arguments(restored, "_out"),
            residual=_first_row(residual, rows),
            color_size=residual.stride(0),
            row_size=residual.stride(1),
            constants=numbers.ctypes.data,
            width=frame.width,
            first=rows.start >> self._shift_y,
            end=rows.stop >> self._shift_y,
        )


def _first_row(picture: Tensor, rows: slice) -> int:
    """Where the first row of a picture would be in memory, of which there are some rows."""
    return picture.data_ptr() - picture.element_size() * rows.start * picture.stride(1)


def _arguments(planes: Sequence[Plane], suffix: str = "") -> dict[str, int]:
    """Where three planes are in memory, and the bytes from a row to the next, by parameter."""
    arguments = {}
    for name, plane in zip(("luma", "cb", "cr"), planes, strict=True):
        arguments[f"{name}{suffix}"] = plane.ctypes.data
        arguments[f"{name}{suffix}_row"] = plane.strides[0]
    return arguments


def kernels_for(frame: Frame) -> YuvKernels | None:
    """Kernels that can do a frame; None where there are none."""
    layout = frame.layout
    shift_x, shift_y = layout.chroma_shift_x, layout.chroma_shift_y
    if layout.kind != "yuv" or shift_x not in _SHIFTS or shift_y not in _SHIFTS:
        return None
    if frame.width % (1 << shift_x) or frame.height % (1 << shift_y):
        return None
    sample_bytes = frame.planes[0].itemsize
    if any(plane.strides[1] != sample_bytes for plane in frame.planes[:3]):
        return None
    kernels = _compiled(sample_bytes, shift_x, shift_y)
    return kernels if kernels and frame.width >= kernels.lanes << shift_x else None


@cache
def _compiled(sample_bytes: int, shift_x: int, shift_y: int) -> YuvKernels | None:
    found = compiled(_makers, sample_bytes, shift_x, shift_y)
    return None if found is None else YuvKernels(found.lanes, shift_y, *found.kernels)


def _makers() -> Sequence[Callable[..., Any]]:
    from mhnet_video.kernels.llvm_color import planes_to_rgb, residual_to_planes

    return planes_to_rgb, residual_to_planes
