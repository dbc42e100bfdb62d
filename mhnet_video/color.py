"""The way from planes to the network's RGB, and the residual's way back into the planes.

The network adds a residual to RGB. What is written is the source's own planes plus that residual,
taken through the same matrix: no sample goes through RGB and back, so that a zero residual leaves
the picture bit for bit as it was.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.config import Box
from mhnet_video.frame import Frame, PixelLayout, Plane

LUMA_WEIGHTS = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
}
"""Weights of red and blue in luma. Source: ITU-T H.273, table 4."""

# green, blue, red: the order of FFmpeg's planar RGB
_GBR = (1, 2, 0)


def rgb_to_yuv(matrix: str) -> Tensor:
    """The matrix from RGB in [0, 1] to Y in [0, 1] and both chroma in [-0.5, 0.5], `[3, 3]`.

    Source: ITU-T H.273, equations 38 to 40 and, for `ycgco`, 46 to 48.

    Raises:
        ValueError: There is no such matrix.
    """
    if matrix == "ycgco":
        rows = [[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]]
        return torch.tensor(rows, dtype=torch.float64)
    if matrix not in LUMA_WEIGHTS:
        raise ValueError(f"matrix must be ycgco or one of {sorted(LUMA_WEIGHTS)}, not {matrix!r}")
    red, blue = LUMA_WEIGHTS[matrix]
    luma = torch.tensor([red, 1 - red - blue, blue], dtype=torch.float64)
    cb = (torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) - luma) / (2 * (1 - blue))
    cr = (torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64) - luma) / (2 * (1 - red))
    return torch.stack([luma, cb, cr])


def _scales(layout: PixelLayout, full_range: bool) -> tuple[float, float, float, float]:
    """Black level and span of luma, middle and span of chroma, in sample values."""
    step = 2 ** (layout.bits - 8)
    if full_range or layout.kind == "rgb":
        top = 2**layout.bits - 1
        return 0.0, float(top), 128.0 * step, float(top)
    return 16.0 * step, 219.0 * step, 128.0 * step, 224.0 * step


def _to_tensor(plane: Plane, device: torch.device) -> Tensor:
    """A plane as float32 on the device."""
    if device.type == "cpu":
        return torch.from_numpy(plane.astype(np.float32))
    return torch.from_numpy(np.array(plane)).to(device, non_blocking=True).float()


def to_rgb(frame: Frame, device: torch.device) -> Tensor:
    """The picture as the network sees it.

    Args:
        frame: The picture.
        device: Where to compute.

    Returns:
        `[3, H, W]` float32, RGB in [0, 1], clamped; not rotated.
    """
    layout = frame.layout
    black, span, middle, chroma_span = _scales(layout, frame.full_range)
    luma = (_to_tensor(frame.planes[0], device) - black) / span
    if layout.kind == "gray":
        return luma.clamp_(0, 1).expand(3, -1, -1)
    if layout.kind == "rgb":
        blue, red = (_to_tensor(plane, device) / span for plane in frame.planes[1:3])
        return torch.stack([red, luma, blue])
    chroma = torch.stack([_to_tensor(plane, device) for plane in frame.planes[1:3]])
    chroma = (chroma - middle) / chroma_span
    repeat = (1 << layout.chroma_shift_y, 1 << layout.chroma_shift_x)
    if repeat != (1, 1):
        rows, columns = chroma.shape[1] * repeat[0], chroma.shape[2] * repeat[1]
        chroma = F.interpolate(chroma[None], (rows, columns), mode="bilinear")[0]
    inverse = rgb_to_yuv(frame.matrix).inverse().float().to(device)
    # the first column is all ones but for rounding: luma is added to every colour
    rgb = torch.tensordot(inverse[:, 1:], chroma[:, : frame.height, : frame.width], dims=1)
    return rgb.add_(luma).clamp_(0, 1)


def add_residual(
    frame: Frame, residual: Tensor, *, strength: float = 1.0, keep: Sequence[Box] = ()
) -> tuple[Plane, ...]:
    """The planes of the restored picture.

    Luma gets the residual's luma, rounded; chroma likewise, from the residual averaged over the
    pixels that share a sample. Alpha stays. So does every sample that touches a box to keep.

    Args:
        frame: The picture as it was decoded.
        residual: `[3, H, W]` float32, to be added to RGB in [0, 1].
        strength: Factor of the residual.
        keep: Boxes in which nothing changes; what is outside the picture is ignored.

    Returns:
        Planes like `frame.planes`; new ones but for alpha.
    """
    layout = frame.layout
    _, span, _, chroma_span = _scales(layout, frame.full_range)
    top = float(2**layout.bits - 1)
    changes: list[Tensor] = []
    if layout.kind == "rgb":
        changes = [residual[channel] * (span * strength) for channel in _GBR]
    else:
        matrix = rgb_to_yuv(frame.matrix).float().to(residual.device) * strength
        changes = [torch.tensordot(matrix[0] * span, residual, dims=1)]
        if layout.kind == "yuv":
            averaged = _average(residual, 1 << layout.chroma_shift_y, 1 << layout.chroma_shift_x)
            changes.extend(torch.tensordot(matrix[1:] * chroma_span, averaged, dims=1))
    restored: list[Plane] = []
    for index, change in enumerate(changes):
        plane = frame.planes[index]
        value = _to_tensor(plane, change.device).add_(change).round_().clamp_(0, top)
        kind = torch.uint8 if plane.dtype == np.uint8 else torch.int32
        samples = value.to(kind).cpu().numpy().astype(plane.dtype, copy=False)
        subsampled = layout.kind == "yuv" and index > 0
        for box in keep:
            rows, columns = _samples_of(
                box,
                layout.chroma_shift_x if subsampled else 0,
                layout.chroma_shift_y if subsampled else 0,
            )
            samples[rows, columns] = plane[rows, columns]
        restored.append(samples)
    return (*restored, *frame.planes[len(restored) :])


def _average(residual: Tensor, rows: int, columns: int) -> Tensor:
    """The mean over blocks of pixels, `[3, ceil(H / rows), ceil(W / columns)]`."""
    if rows == columns == 1:
        return residual
    height, width = residual.shape[1:]
    if height % rows or width % columns:
        # the last blocks are cut: their means are those of the pixels that exist
        return F.avg_pool2d(
            residual[None], (rows, columns), ceil_mode=True, count_include_pad=False
        )[0]
    # six times as fast as pooling on a CPU
    parts = [residual[:, y::rows, x::columns] for y in range(rows) for x in range(columns)]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total.div_(rows * columns)


def _samples_of(box: Box, shift_x: int, shift_y: int) -> tuple[slice, slice]:
    """Rows and columns of all samples that share a pixel with a box."""
    return (
        slice(box.y >> shift_y, ((box.y + box.height - 1) >> shift_y) + 1),
        slice(box.x >> shift_x, ((box.x + box.width - 1) >> shift_x) + 1),
    )
