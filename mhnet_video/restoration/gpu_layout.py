"""How a frame's samples lie in the memory of a GPU, and the kernels that read and write them there.

The reference implementations are `color.to_rgb`, with the edge repeated up to a multiple of the
network's, and `color.add_residual`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.frame import DeviceFrame, Frame, PixelLayout, Plane
from mhnet_video.media.frames.device_frames import planes_of_two
from mhnet_video.restoration.color import rgb_to_yuv, sample_scales

_KINDS = {"yuv": 0, "gray": 1, "rgb": 2}
"""Numbers of `PixelLayout.kind` in the kernels."""
MISSING = -1
"""The slot of a missing neighbour, which is black."""
NUM_COLORS = 24
"""Parameters per frame that the kernels read: matrix, range and strength."""


@dataclass(frozen=True)
class FrameFormat:
    """Where the samples of a frame are in a slot of a ring."""

    kind: str
    bits: int
    height: int
    width: int
    shift_y: int
    shift_x: int
    rotation: int
    """Degrees clockwise by which the network sees the picture turned."""
    luma_row: int
    """Samples from one row to the next."""
    starts: tuple[int, ...]
    """Where each plane begins, in samples."""
    chroma_row: int
    chroma_step: int
    """Samples from one column to the next: 2 where both chroma planes are one."""
    bits_down: int
    """Unused bits below a sample's."""
    size: int
    """Samples of a slot."""

    @classmethod
    def planar(
        cls, layout: PixelLayout, height: int, width: int, rotation: int = 0
    ) -> "FrameFormat":
        """Planes one after the other, without alpha."""
        chroma_height = -(-height >> layout.chroma_shift_y)
        chroma_width = -(-width >> layout.chroma_shift_x)
        luma = height * width
        sizes = {"gray": [luma], "rgb": [luma] * 3}.get(
            layout.kind, [luma, chroma_height * chroma_width, chroma_height * chroma_width]
        )
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        return cls(
            kind=layout.kind,
            bits=layout.bits,
            height=height,
            width=width,
            shift_y=layout.chroma_shift_y,
            shift_x=layout.chroma_shift_x,
            rotation=rotation,
            luma_row=width,
            starts=tuple(starts),
            chroma_row=chroma_width,
            chroma_step=1,
            bits_down=0,
            # slots begin at multiples of 16 bytes, as vector loads want it
            size=-(-sum(sizes) // 16) * 16,
        )

    @classmethod
    def semi_planar(
        cls, bits: int, height: int, width: int, row: int, rotation: int = 0
    ) -> "FrameFormat":
        """NV12 (8 bits) and P010 (10 bits in the upper part of 16), as decoders on GPUs give them.

        Args:
            bits: 8 or 10.
            height: In pixels.
            width: In pixels.
            row: Samples from one row to the next, of both planes.
            rotation: As of a frame.
        """
        chroma = row * height
        return cls(
            kind="yuv",
            bits=bits,
            height=height,
            width=width,
            shift_y=1,
            shift_x=1,
            rotation=rotation,
            luma_row=row,
            starts=(0, chroma, chroma + 1),
            chroma_row=row,
            chroma_step=2,
            bits_down=0 if bits == 8 else 16 - bits,
            size=-(-row * (height + (height + 1) // 2) // 16) * 16,
        )

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of the picture as the network sees it."""
        turned = self.rotation in (90, 270)
        return (self.width, self.height) if turned else (self.height, self.width)

    @property
    def sample_dtype(self) -> torch.dtype:
        """Of a ring: int16 stands for uint16, which PyTorch hardly knows."""
        return torch.uint8 if self.bits == 8 else torch.int16

    def plane_size(self, index: int) -> tuple[int, int]:
        """Rows and columns of a plane."""
        if self.kind != "yuv" or index == 0:
            return self.height, self.width
        return -(-self.height >> self.shift_y), -(-self.width >> self.shift_x)

    @property
    def is_semi_planar(self) -> bool:
        """Whether both chroma planes are one, as those that GPUs decode."""
        return self.chroma_step == 2

    def place(self, frame: DeviceFrame, slot: Tensor) -> None:
        """Copy a frame's planes into a slot, both in the GPU's memory; semi-planar formats only.

        Args:
            frame: Of this format.
            slot: `[size]`, uint8 or int16.
        """
        for target, samples in zip(self.planes_in(slot), (frame.luma, frame.chroma), strict=True):
            target.copy_(samples, non_blocking=True)

    def planes_in(self, slot: Tensor) -> tuple[Tensor, Tensor]:
        """Luma `[H, W]` and chroma `[H / 2, W / 2, 2]` of a slot, as views; semi-planar formats.

        Args:
            slot: `[size]`, uint8 or int16.
        """
        height, row = self.height, self.luma_row
        luma = slot[: height * row].view(height, row)[:, : self.width]
        rows, columns = self.plane_size(1)
        chroma = slot[height * row : (height + rows) * row].view(rows, row)[:, : 2 * columns]
        return luma, chroma.view(rows, columns, 2)

    def pack(self, frame: Frame, slot: NDArray[Any]) -> None:
        """Copy a frame's planes into a slot; planar formats only.

        Args:
            frame: Of this format.
            slot: `[size]`, uint8 or int16.
        """
        for index, start in enumerate(self.starts):
            rows, columns = self.plane_size(index)
            plane = frame.planes[index]
            part = slot[start : start + rows * columns].reshape(rows, columns)
            np.copyto(part.view(plane.dtype), plane)

    def unpack(self, slot: NDArray[Any], like: Frame) -> tuple[Plane, ...]:
        """Copy the planes out of a slot; what else the frame has follows them."""
        if self.is_semi_planar:
            return planes_of_two(*self.planes_in(torch.from_numpy(slot)), self.bits_down)
        planes = []
        for index, start in enumerate(self.starts):
            rows, columns = self.plane_size(index)
            part = slot[start : start + rows * columns].reshape(rows, columns)
            planes.append(part.view(like.planes[index].dtype).copy())
        return (*planes, *like.planes[len(planes) :])

    def read(self, ring: Tensor, slots: Tensor, colors: Tensor, out: Tensor, patch: int) -> None:
        """Turn frames of a ring into the network's input.

        Args:
            ring: `[slots, size]` uint8 or int16.
            slots: `[N, T]` int32, where the frames of each window are; `MISSING` for a black one.
            colors: `[slots, NUM_COLORS]` float32, from `colors_of`.
            out: `[N, H / patch, W / patch, 3 * T * patch**2]` or more channels, which stay as they
                are; H and W at least the picture's.
            patch: Side of the blocks that are folded into channels.
        """
        from mhnet_video.kernels.frame_kernel import launch_frames_to_input

        rows, columns = self.plane_size(1)
        starts = (*self.starts, 0, 0)
        shown_height, shown_width = self.shown
        launch_frames_to_input(
            ring,
            slots,
            colors,
            out,
            patch=patch,
            geometry={
                "shown_height": shown_height,
                "shown_width": shown_width,
                "luma_row": self.luma_row,
                "first_chroma": starts[1],
                "second_chroma": starts[2],
                "chroma_row": self.chroma_row,
                "chroma_step": self.chroma_step,
                "chroma_height": rows,
                "chroma_width": columns,
            },
            constants={"KIND": _KINDS[self.kind], **self._constants(self.shift_y, self.shift_x)},
        )

    def apply(
        self,
        ring: Tensor,
        slots: Tensor,
        colors: Tensor,
        residual: Tensor,
        out: Tensor,
        flags: Tensor,
    ) -> None:
        """Add residuals to the frames in the middle of their windows.

        Args:
            ring: As for `read`.
            slots: As for `read`.
            colors: As for `read`.
            residual: `[N, 3, H, W]` float32, of the turned picture.
            out: `[N, size]`, like the ring.
            flags: `[N]` int32; 1 where a residual is not finite, whose samples stay as they are.
        """
        from mhnet_video.kernels.frame_kernel import launch_residual_to_frames

        flags.zero_()
        for index, start in enumerate(self.starts):
            rows, columns = self.plane_size(index)
            is_chroma = self.kind == "yuv" and index > 0
            launch_residual_to_frames(
                ring,
                slots,
                colors,
                residual,
                out,
                flags,
                geometry={
                    "plane_start": start,
                    "plane_height": rows,
                    "plane_width": columns,
                    "plane_row": self.chroma_row if is_chroma else self.luma_row,
                    "plane_step": self.chroma_step if is_chroma else 1,
                    "height": self.height,
                    "width": self.width,
                    "top": float(2**self.bits - 1),
                    "coefficients": 10 + 3 * index,
                },
                constants=self._constants(
                    self.shift_y if is_chroma else 0, self.shift_x if is_chroma else 0
                ),
            )

    def _constants(self, shift_y: int, shift_x: int) -> dict[str, int]:
        return {
            "BITS_DOWN": self.bits_down,
            "SHIFT_Y": shift_y,
            "SHIFT_X": shift_x,
            "ROTATION": self.rotation,
        }


_ROW = 128
"""Alignment of the rows of a GPU's picture, in samples."""


def format_of(frame: Frame) -> FrameFormat:
    """The format in which a frame is uploaded, or copied where a GPU has decoded it."""
    if isinstance(frame, DeviceFrame):
        # NVENC reads the results where they are, and wants rows that begin at multiples of 16 bytes
        row = -(-frame.width // _ROW) * _ROW
        return FrameFormat.semi_planar(
            frame.layout.bits, frame.height, frame.width, row, frame.rotation
        )
    return FrameFormat.planar(frame.layout, frame.height, frame.width, frame.rotation)


def colors_of(frame: Frame, strength: float) -> NDArray[np.float32]:
    """What the kernels must know of a frame's colours, `[NUM_COLORS]` float32.

    Black level and span of luma; middle and span of chroma; the way from chroma to red, green and
    blue; then for each plane the way from the residual's red, green and blue to its samples. Not to
    be changed: frames of the same kind share it.
    """
    return _colors(frame.layout, frame.matrix, frame.full_range, strength)


@lru_cache(16)
def _colors(
    layout: PixelLayout, name: str, full_range: bool, strength: float
) -> NDArray[np.float32]:
    black, span, middle, chroma_span = sample_scales(layout, full_range)
    numbers = np.zeros(NUM_COLORS, np.float32)
    numbers[:4] = black, span, middle, chroma_span
    if layout.kind == "rgb":
        for plane, channel in enumerate((1, 2, 0)):
            numbers[10 + 3 * plane + channel] = span * strength
        return numbers
    matrix = rgb_to_yuv(name)
    numbers[4:10] = matrix.inverse()[:, 1:].float().flatten().numpy()
    way = matrix.float() * strength
    numbers[10:13] = (way[0] * span).numpy()
    numbers[13:19] = (way[1:] * chroma_span).flatten().numpy()
    return numbers
