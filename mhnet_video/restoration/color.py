"""Conversion of planes to the network's RGB, and of its residual to the planes.

The residual is converted by the frame's matrix, and added to the source's own planes. No sample is
converted to RGB and back, so that a zero residual leaves the picture bit for bit the same.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.color_spaces import LUMA_WEIGHTS
from mhnet_video.config import Box
from mhnet_video.frame import Frame, PixelLayout, Plane
from mhnet_video.restoration.resize import STRIP_ROWS, enlarged_strips, scaled_strips, shrink
from mhnet_video.restoration.yuv import kernels_for

_STRIP_PIXELS = 1 << 15
"""Pixels of a strip that a CPU converts at a time. Its intermediates stay in the cache, and PyTorch
does not split so small a tensor over threads, which would wait for each other on busy cores."""
_GBR = (1, 2, 0)
"""Channels in the order of FFmpeg's planar RGB: green, blue, red."""


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
    red, _, blue = LUMA_WEIGHTS[matrix]
    luma = torch.tensor([red, 1 - red - blue, blue], dtype=torch.float64)
    cb = (torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) - luma) / (2 * (1 - blue))
    cr = (torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64) - luma) / (2 * (1 - red))
    return torch.stack([luma, cb, cr])


def sample_scales(layout: PixelLayout, full_range: bool) -> tuple[float, float, float, float]:
    """Black level and span of luma, middle and span of chroma, in sample values."""
    step = 2 ** (layout.bits - 8)
    if full_range or layout.kind == "rgb":
        top = 2**layout.bits - 1
        return 0.0, float(top), 128.0 * step, float(top)
    return 16.0 * step, 219.0 * step, 128.0 * step, 224.0 * step


def _strips(rows: slice, width: int, device: torch.device) -> Iterator[slice]:
    """Rows that are worked on together."""
    step = rows.stop - rows.start
    if device.type == "cpu":
        step = max(_STRIP_PIXELS // width // STRIP_ROWS, 1) * STRIP_ROWS
    for top in range(rows.start, rows.stop, step):
        yield slice(top, min(top + step, rows.stop))


def _to_tensor(plane: Plane, device: torch.device) -> Tensor:
    """A plane as float32 on the device."""
    if device.type != "cuda":
        # on a Mac's GPU, copies that are not waited for read memory that is free by then, and
        # PyTorch may lack uint16
        return torch.from_numpy(plane.astype(np.float32)).to(device)
    return torch.from_numpy(np.array(plane)).to(device, non_blocking=True).float()


def to_rgb(frame: Frame, device: torch.device) -> Tensor:
    """The picture as the network sees it.

    Args:
        frame: The picture.
        device: Where to compute.

    Returns:
        `[3, H, W]` float32, RGB in [0, 1], clamped; not rotated.
    """
    rgb = torch.empty(3, frame.height, frame.width, device=device)
    write_rgb(frame, rgb)
    return rgb


def write_rgb(frame: Frame, out: Tensor) -> None:
    """Write what `to_rgb` returns, at the size of `out`.

    A smaller picture is made strip by strip, so that the whole one is never in memory.

    Args:
        frame: The picture.
        out: `[3, h, w]` float32, on the device where to compute; no more pixels than the frame's.
    """
    whole, size = (frame.height, frame.width), (out.shape[1], out.shape[2])
    if size == whole:
        _write_rows(frame, slice(0, frame.height), out)
        return
    strips = list(scaled_strips(*whole, out.shape[1], out.device))
    spare = out.new_empty(3, max(large.stop - large.start for large, _ in strips), frame.width)
    for large, small in strips:
        part = spare[:, : large.stop - large.start]
        _write_rows(frame, large, part)
        shrink(part, out[:, small])


def _write_rows(frame: Frame, all_rows: slice, out: Tensor) -> None:
    """Write rows of `to_rgb`, of the frame's width."""
    layout, device = frame.layout, out.device
    black, span, middle, chroma_span = sample_scales(layout, frame.full_range)
    gains: list[list[float]] = []
    if layout.kind == "yuv":
        # the first column is all ones but for rounding: luma is added to every colour
        gains = (rgb_to_yuv(frame.matrix).inverse()[:, 1:] / chroma_span).tolist()
    kernels = kernels_for(frame) if device.type == "cpu" else None
    if kernels is not None:
        constants = [1 / span, -black / span, middle, *itertools.chain(*gains)]
        kernels.write_rgb(frame, constants, all_rows, out)
        return
    for rows in _strips(all_rows, frame.width, device):
        part = out[:, rows.start - all_rows.start : rows.stop - all_rows.start]
        if layout.kind == "rgb":
            for channel, plane in zip(_GBR, frame.planes, strict=False):
                torch.mul(_to_tensor(plane[rows], device), 1 / span, out=part[channel])
            continue
        luma = _to_tensor(frame.planes[0][rows], device).sub_(black).mul_(1 / span)
        if layout.kind == "gray":
            part.copy_(luma.clamp_(0, 1))
            continue
        chroma = _chroma_of(frame, rows, device).sub_(middle)
        for channel, gain in zip(part, gains, strict=True):
            source = luma
            for samples, factor in zip(chroma, gain, strict=True):
                if factor:
                    source = torch.add(source, samples, alpha=factor, out=channel)
            channel.clamp_(0, 1)


def _chroma_of(frame: Frame, rows: slice, device: torch.device) -> Tensor:
    """Both chroma planes at all pixels of some rows, `[2, h, W]`, in sample values."""
    shift_x, shift_y = frame.layout.chroma_shift_x, frame.layout.chroma_shift_y
    planes = frame.planes[1:3]
    # one more row at either side, where there is one, for the samples between two
    first = max(0, (rows.start >> shift_y) - 1)
    end = min(len(planes[0]), -(-rows.stop >> shift_y) + 1)
    if not shift_x and not shift_y:
        first, end = rows.start, rows.stop
    chroma = torch.stack([_to_tensor(plane[first:end], device) for plane in planes])
    if max(shift_x, shift_y) > 1:
        size = (end - first) << shift_y, chroma.shape[2] << shift_x
        chroma = F.interpolate(chroma[None], size, mode="bilinear")[0]
    else:
        chroma = _doubled(chroma, 2) if shift_x else chroma
        chroma = _doubled(chroma, 1) if shift_y else chroma
    above = rows.start - (first << shift_y)
    return chroma[:, above : above + rows.stop - rows.start, : frame.width]


def _doubled(x: Tensor, dim: int) -> Tensor:
    """Bilinear interpolation to twice the size along one axis, faster than PyTorch's.

    The new samples stand a quarter of the old distance from the old ones; the edge is repeated.
    """
    length = x.shape[dim]
    out = x.new_empty([side * (1 + (axis == dim)) for axis, side in enumerate(x.shape)])
    pairs = out.view(*x.shape[:dim], length, 2, *x.shape[dim + 1 :])
    left, right = pairs.select(dim + 1, 0), pairs.select(dim + 1, 1)
    quarter, rest = x * 0.25, x * 0.75
    left.narrow(dim, 0, 1).copy_(x.narrow(dim, 0, 1))
    right.narrow(dim, length - 1, 1).copy_(x.narrow(dim, length - 1, 1))
    before, after = (0, length - 1), (1, length - 1)
    torch.add(rest.narrow(dim, *after), quarter.narrow(dim, *before), out=left.narrow(dim, *after))
    torch.add(
        rest.narrow(dim, *before), quarter.narrow(dim, *after), out=right.narrow(dim, *before)
    )
    return out


def add_residual(
    frame: Frame, residual: Tensor, *, strength: float = 1.0, keep: Sequence[Box] = ()
) -> tuple[Plane, ...]:
    """The planes of the restored picture.

    Luma gets the residual's luma, rounded; chroma likewise, from the residual averaged over the
    pixels that share a sample. Alpha stays. So does every sample that touches a box to keep.
    A smaller residual is enlarged strip by strip, so that the whole one is never in memory.

    Args:
        frame: The picture as it was decoded.
        residual: `[3, H, W]` float32, to be added to RGB in [0, 1], or of fewer pixels.
        strength: Factor of the residual.
        keep: Boxes in which nothing changes; parts outside the picture are ignored.

    Returns:
        Planes like `frame.planes`; new ones but for alpha.
    """
    layout = frame.layout
    _, span, _, chroma_span = sample_scales(layout, frame.full_range)
    top = float(2**layout.bits - 1)
    # what each plane takes of red, green and blue
    if layout.kind == "rgb":
        gains = [[strength * span * (channel == each) for channel in range(3)] for each in _GBR]
    else:
        spans = torch.tensor([span, chroma_span, chroma_span]).double()[:, None]
        gains = (rgb_to_yuv(frame.matrix) * spans * strength).tolist()
        gains = gains[: 3 if layout.kind == "yuv" else 1]
    kernels = kernels_for(frame) if residual.device.type == "cpu" else None
    restored = [np.empty(plane.shape, plane.dtype) for plane in frame.planes[: len(gains)]]
    for rows, part in enlarged_strips(residual, frame.height, frame.width):
        if kernels is not None:
            constants = [top, *itertools.chain(*gains)]
            kernels.add_residual(frame, part.float(), constants, rows, restored)
        else:
            _add_rows(frame, part, gains, top, rows, restored)
    keep_boxes(frame, restored, keep)
    return (*restored, *frame.planes[len(restored) :])


def _add_rows(
    frame: Frame,
    residual: Tensor,
    gains: Sequence[Sequence[float]],
    top: float,
    all_rows: slice,
    restored: Sequence[Plane],
) -> None:
    """Write rows of the planes but alpha with a residual, operation by operation.

    Args:
        frame: The picture.
        residual: `[3, h, W]` float32, of these rows.
        gains: What each plane takes of red, green and blue.
        top: The largest sample.
        all_rows: The rows, which share no sample of chroma with others.
        restored: The planes.
    """
    layout = frame.layout
    for rows in _strips(all_rows, frame.width, residual.device):
        part = residual[:, rows.start - all_rows.start : rows.stop - all_rows.start]
        averaged = part
        if layout.kind == "yuv":
            averaged = _average(part, 1 << layout.chroma_shift_y, 1 << layout.chroma_shift_x)
        for index, (gain, plane) in enumerate(zip(gains, frame.planes, strict=False)):
            is_chroma = layout.kind == "yuv" and index > 0
            part_rows = rows
            if is_chroma:
                part_rows = slice(
                    rows.start >> layout.chroma_shift_y, -(-rows.stop >> layout.chroma_shift_y)
                )
            value = _to_tensor(plane[part_rows], residual.device)
            value.add_(_mixed(averaged if is_chroma else part, gain)).round_().clamp_(0, top)
            restored[index][part_rows] = value.cpu().numpy()


def keep_boxes(frame: Frame, planes: Sequence[Plane], keep: Sequence[Box]) -> None:
    """Put the source's samples back wherever they touch a box.

    Args:
        frame: The picture as it was decoded.
        planes: The new ones, which are changed in place; alpha may be missing.
        keep: What is outside the picture is ignored.
    """
    layout = frame.layout
    for index, samples in enumerate(planes):
        subsampled = layout.kind == "yuv" and index in (1, 2)
        for box in keep:
            inside = _samples_of(
                box,
                layout.chroma_shift_x if subsampled else 0,
                layout.chroma_shift_y if subsampled else 0,
            )
            samples[inside] = frame.planes[index][inside]


def _mixed(channels: Tensor, gains: Sequence[float]) -> Tensor:
    """The sum of channels, each times its gain."""
    used = [(channel, gain) for channel, gain in zip(channels, gains, strict=True) if gain]
    if not used:
        return torch.zeros_like(channels[0])
    total = used[0][0] * used[0][1]
    for channel, gain in used[1:]:
        total.add_(channel, alpha=gain)
    return total


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
    # many times as fast as pooling on a CPU
    total = residual[:, ::rows]
    for row in range(1, rows):
        total = total + residual[:, row::rows]
    mean = total[..., ::columns] / (rows * columns)
    for column in range(1, columns):
        mean.add_(total[..., column::columns], alpha=1 / (rows * columns))
    return mean


def _samples_of(box: Box, shift_x: int, shift_y: int) -> tuple[slice, slice]:
    """Rows and columns of all samples that share a pixel with a box."""
    return (
        slice(box.y >> shift_y, ((box.y + box.height - 1) >> shift_y) + 1),
        slice(box.x >> shift_x, ((box.x + box.width - 1) >> shift_x) + 1),
    )
