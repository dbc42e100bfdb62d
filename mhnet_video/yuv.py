"""YUV planes to RGB and the residual's way back by compiled kernels, where there are any.

color.py is the meaning: it does the same by PyTorch, operation by operation, and for all layouts.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.frame import Frame, Plane

_SHIFTS = (0, 1)


@dataclass(frozen=True)
class YuvKernels:
    """Kernels for a kind of planes."""

    lanes: int
    _rgb: Callable[[ctypes.c_void_p], None]
    _residual: Callable[[ctypes.c_void_p], None]
    _library: Any
    """What the functions belong to."""

    def to_rgb(self, frame: Frame, constants: Sequence[float]) -> Tensor:
        """The picture as RGB.

        Args:
            frame: The picture.
            constants: See `llvm_color.RGB_CONSTANTS`.

        Returns:
            `[3, H, W]` float32.
        """
        height, width = frame.height, frame.width
        rgb = torch.empty(3, height, width)
        planes = frame.planes[:3]
        numbers = np.array(constants, np.float32)
        spare = np.empty((2, planes[1].shape[1] + 2 * self.lanes), np.float32)
        _call(
            self._rgb,
            [
                *(plane.ctypes.data for plane in planes),
                *(plane.strides[0] for plane in planes),
                numbers.ctypes.data,
                spare.ctypes.data,
                rgb.data_ptr(),
                width,
                height,
                0,
                height,
            ],
        )
        return rgb

    def add_residual(
        self, frame: Frame, residual: Tensor, constants: Sequence[float]
    ) -> list[Plane]:
        """The planes with a residual.

        Args:
            frame: The picture.
            residual: `[3, H, W]` float32.
            constants: See `llvm_color.RESIDUAL_CONSTANTS`.
        """
        planes = frame.planes[:3]
        restored = [np.empty(plane.shape, plane.dtype) for plane in planes]
        numbers = np.array(constants, np.float32)
        if residual.stride(2) != 1:
            residual = residual.contiguous()
        _call(
            self._residual,
            [
                *(plane.ctypes.data for plane in planes),
                *(plane.strides[0] for plane in planes),
                *(plane.ctypes.data for plane in restored),
                *(plane.strides[0] for plane in restored),
                residual.data_ptr(),
                residual.stride(0),
                residual.stride(1),
                numbers.ctypes.data,
                frame.width,
                0,
                planes[1].shape[0],
            ],
        )
        return restored


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
    try:
        from mhnet_video.kernels.llvm_color import planes_to_rgb, residual_to_planes
        from mhnet_video.kernels.llvm_ir import Library, host_machine
    except (ImportError, OSError):
        return None  # llvmlite is not installed
    machine = host_machine(bfloat16=False)
    if machine is None:
        return None
    makers = {"rgb": planes_to_rgb, "residual": residual_to_planes}
    library = Library(
        machine,
        [make(machine, name, sample_bytes, shift_x, shift_y) for name, make in makers.items()],
    )
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    rgb, residual = (kind(library.addresses[name]) for name in makers)
    return YuvKernels(machine.lanes, rgb, residual, library)


def _call(function: Callable[[ctypes.c_void_p], None], arguments: Sequence[int]) -> None:
    given: NDArray[np.int64] = np.array(arguments, np.int64)
    function(ctypes.c_void_p(given.ctypes.data))
