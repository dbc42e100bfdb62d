"""The kernels of the GPU benchmark, each with its reference implementation and their arguments."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.engines.triton.weight_packing import padded_channels
from mhnet_video.kernels import map_ops, motion_ops, motion_reference, ops
from mhnet_video.kernels import map_reference as reference
from mhnet_video.kernels import reference as plane_reference
from mhnet_video.model.align import LUMA, SAME, SHRINK, UNLIKE
from mhnet_video.pipelines.bench_scene import make_frames
from mhnet_video.restoration.gpu_layout import FrameFormat, colors_of

PICTURE = 3
"""The number of channels that marks a size of pictures, for the kernels of frames."""
_FRAMES = 3
"""Frames of the networks whose first and last passes are measured."""
_PATCH = 2
"""Patch of these networks."""
_CHANNELS = 3 * _FRAMES * _PATCH**2
"""Channels of these networks' inputs that come from frames; zeros follow them."""
_MULTIPLE = 32
"""The sides of these networks' inputs are multiples of this, in pixels."""


class Case(NamedTuple):
    """A kernel and its arguments."""

    op: str
    """The public function that starts it."""
    name: str
    """What it does; no other case of that size has it."""
    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    """The same in plain PyTorch."""
    inputs: list[Tensor]
    """Arguments of both."""
    is_exact: bool = False
    """Whether the reference, too, is timed on them unchanged; else all have the maps' type."""
    moved: int | None = None
    """Bytes that are read and written; None if they are those of the kernels' tensors."""

    def expected(self) -> Any:
        """The result of the reference in float32."""
        return self.reference(*(x.float() if x.is_floating_point() else x for x in self.inputs))

    def plain(
        self,
        dtype: torch.dtype,
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda call: call,
    ) -> Callable[[], Any]:
        """The reference as PyTorch would run it.

        Args:
            dtype: Type of the maps.
            compiled: Makes another function of it.
        """
        inputs = self.inputs if self.is_exact else [x.to(dtype) for x in self.inputs]
        reference = self.reference
        # a function, because compilers do not take every callable
        return partial(compiled(lambda *arguments: reference(*arguments)), *inputs)


def kernel_cases(
    channels: int, height: int, width: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Case]:
    """Every kernel that runs on maps of a size.

    Args:
        channels: Of the maps; `PICTURE` for what runs on frames.
        height: Of the maps, or of the frames.
        width: Likewise.
        dtype: Type of the maps.
        device: Where they are.
    """
    draw = _Draw(dtype, device)
    if channels == PICTURE:
        yield from _picture_cases(height, width, draw)
        return
    yield from _plane_cases(channels, height, width, draw)
    yield from _map_cases(channels, height, width, draw)
    yield from _mean_cases(channels, height, width, draw)
    if channels <= 64:  # wider ones are not at full resolution, where a network begins and ends
        yield from _end_cases(channels, height, width, draw)


class _Draw:
    """Draws numbers, always the same."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self._generator = torch.Generator(device).manual_seed(1)

    def exact(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self._generator, device=self.device)

    def maps(self, *size: int, scale: float = 1.0) -> Tensor:
        return (self.exact(*size) * scale).to(self.dtype)


def _plane_cases(c: int, height: int, width: int, draw: _Draw) -> Iterator[Case]:
    """What runs where PyTorch does the rest."""
    x = draw.maps(1, c, height, width)
    yield Case(
        "layer_norm_2d",
        "LayerNorm of planes",
        ops.layer_norm_2d,
        partial(plane_reference.layer_norm_2d, eps=1e-6),
        [x, draw.maps(c), draw.maps(c)],
    )
    yield Case(
        "gate_pool",
        "gate and mean of planes",
        ops.gate_pool,
        plane_reference.gate_pool,
        [draw.maps(1, 2 * c, height, width)],
    )
    yield Case(
        "scaled_residual",
        "residual of planes",
        ops.scaled_residual,
        plane_reference.scaled_residual,
        [x, draw.maps(1, c, height, width), draw.maps(1, c, 1, 1)],
    )


def _map_cases(c: int, height: int, width: int, draw: _Draw) -> Iterator[Case]:
    """What a network does at every level."""
    maps, exact = draw.maps, draw.exact
    spread = c**-0.5
    x = maps(1, height, width, c)
    weight, bias = maps(2 * c, c, scale=spread), exact(2 * c)
    yield Case(
        "linear",
        "LayerNorm + 1x1",
        partial(map_ops.linear, norm=True, weight_sums=map_ops.linear_weight_sums(weight)),
        lambda x, w, b: reference.linear(x, w, b, True, False, None, [], 1e-6),
        [x, weight, bias],
    )
    yield Case(
        "depthwise",
        "depthwise 3x3 + gate",
        partial(map_ops.depthwise, gate=True),
        lambda x, w, b: reference.depthwise(x, w, b, True),
        [maps(1, height, width, 2 * c), exact(9, 2 * c) / 3, bias],
    )
    if c <= 64:
        yield Case(
            "block_front",
            "first half of a block, dense",
            map_ops.block_front,
            partial(reference.block_front, eps=1e-6),
            [x, maps(9, 2 * c, c, scale=spread / 3), exact(9, 2 * c), bias],
        )
    if map_ops.block_front_rows_fits(c, draw.dtype):
        yield Case(
            "block_front_rows",
            "first half of a block, rows",
            map_ops.block_front_rows,
            lambda x, w, b, taps, bias: reference.depthwise(
                reference.linear(x, w, b, True, False, None, [], 1e-6), taps, bias, True
            ),
            [x, weight, bias, exact(9, 2 * c) / 3, exact(2 * c)],
        )
    if map_ops.block_back_fits(c, draw.dtype):
        weights = [w for rows in (c, 2 * c, c) for w in (maps(rows, c, scale=spread), exact(rows))]
        yield Case(
            "block_back",
            "second half of a block",
            lambda gated, x, gain, *w: map_ops.block_back(gated, x, gain, w),
            lambda gated, x, gain, *w: reference.block_back(gated, x, gain, w, None, 1e-6),
            [maps(1, height, width, c), x, exact(1, c), *weights],
        )
    half = [maps(1, height // 2, width // 2, 2 * c) for _ in range(2)]
    matrices = [maps(4 * c, 2 * c, scale=spread) for _ in range(2)]
    yield Case(
        "fuse",
        "fusion",
        lambda x, low, high, a, b, shares, scale, shift: map_ops.fuse(
            x, low, high, a, b, shares=shares, scale=scale, shift=shift
        ),
        partial(reference.fuse, eps=1e-6),
        [x, *half, *matrices, exact(1, 3, c), exact(c), exact(c)],
    )
    yield Case(
        "halve",
        "2x2 stride 2",
        map_ops.halve,
        lambda x, w, b: reference.linear(reference.halve(x), w, b, False, False, None, [], 1e-6),
        [x, maps(2 * c, 4 * c, scale=spread / 2), bias],
    )
    yield Case(
        "double",
        "1x1, pixel shuffle + skip",
        map_ops.double,
        lambda low, w, skip: (
            reference.double(reference.linear(low, w, None, False, False, None, [], 1e-6)) + skip
        ),
        [half[0], matrices[0], x],
    )


def _mean_cases(c: int, height: int, width: int, draw: _Draw) -> Iterator[Case]:
    """What a network does with the means of its maps."""
    exact = draw.exact
    sums = map_ops.depthwise_sums(torch.empty(1, height, width, c, dtype=draw.dtype, device="meta"))
    pixels = height * width
    yield Case(
        "mean",
        "mean from partial sums",
        lambda sums: map_ops.mean(sums, pixels),
        lambda sums: sums.sum(1) / pixels,
        [exact(*sums.shape)],
        is_exact=True,
    )
    matrix = exact(c, c) * c**-0.5
    yield Case(
        "attend",
        "gains of a block",
        lambda sums, matrix, bias: map_ops.attend(sums, pixels, matrix, bias),
        lambda sums, matrix, bias: (sums.sum(1) / pixels) @ matrix.t() + bias,
        [exact(*sums.shape), matrix, exact(c)],
        is_exact=True,
    )
    reduced = max(c // 8, 4)
    wide = [exact(c, 2 * c) * c**-0.5 for _ in range(2)]
    yield Case(
        "shares",
        "shares of a fusion",
        map_ops.shares,
        reference.shares,
        [
            *(exact(1, c), exact(1, 2 * c), exact(1, 2 * c), *wide),
            *(exact(reduced, c) * c**-0.5, exact(3, c, reduced // 2)),
        ],
        is_exact=True,
    )


def _end_cases(c: int, height: int, width: int, draw: _Draw) -> Iterator[Case]:
    """What a network does once: at its beginning, at its bottom and at its end."""
    maps, exact = draw.maps, draw.exact
    inputs = padded_channels(_CHANNELS)
    yield Case(
        "conv_to_maps",
        "first convolutions",
        map_ops.conv_to_maps,
        lambda x, w, b: reference.conv(x, w, b).chunk(2, -1),
        [maps(1, height, width, inputs), maps(9, 2 * c, inputs, scale=1 / 18), exact(2 * c)],
    )
    yield Case(
        "conv_to_picture",
        "last convolution, to pictures",
        lambda x, w: map_ops.conv_to_picture(x, w, _PATCH),
        lambda x, w: F.pixel_shuffle(reference.conv(x, w, None).permute(0, 3, 1, 2), _PATCH),
        [maps(1, height, width, c), maps(9, 3 * _PATCH**2, c, scale=c**-0.5 / 3)],
    )
    yield Case(
        "attention",
        "attention",
        map_ops.attention,
        lambda x, temperature, gains: reference.attention(x.float(), temperature, gains),
        # four steps down, where there are 16 times the channels
        [maps(1, max(1, height // 16), max(1, width // 16), 48 * c), exact(8), exact(4)],
        is_exact=True,
    )
    yield Case(
        "project",
        "attention x last 1x1",
        partial(map_ops.project, dtype=draw.dtype),
        lambda combined, last: reference.project(combined, last).to(draw.dtype),
        [exact(1, 8, 2 * c, 2 * c), exact(8, 16 * c, 2 * c)],
        is_exact=True,
    )


def _picture_cases(height: int, width: int, draw: _Draw) -> Iterator[Case]:
    """The way from frames to a network's input, and the residual's way back."""
    (frame,) = make_frames(1, 16, 16)
    shallow = frame.layout
    deep = replace(shallow, name="yuv420p10le", bits=10)
    for name, layout, form in (
        ("yuv420p", shallow, FrameFormat.planar(shallow, height, width)),
        ("nv12", shallow, FrameFormat.semi_planar(8, height, width, width)),
        ("yuv420p10le", deep, FrameFormat.planar(deep, height, width)),
    ):
        colors = torch.from_numpy(colors_of(replace(frame, layout=layout), 1.0))
        yield from _form_cases(name, form, colors.repeat(_FRAMES, 1).to(draw.device), draw)
    yield from _align_cases(height, width, draw)


def _align_cases(height: int, width: int, draw: _Draw) -> Iterator[Case]:
    """Frames in a network's input, moved to one another."""
    rows, columns = height + -height % _MULTIPLE, width + -width % _MULTIPLE
    channels = padded_channels(_CHANNELS)
    folded = draw.maps(1, rows // _PATCH, columns // _PATCH, channels)
    motion = draw.exact(1, _FRAMES - 1, 2, rows // SHRINK, columns // SHRINK)
    limits = _PATCH, SHRINK, SAME, UNLIKE
    yield Case(
        "shrunken_luma",
        "luma of frames",
        lambda x: map_ops.shrunken_luma(x, _FRAMES, _PATCH, SHRINK, LUMA),
        lambda x: reference.shrunken_luma(x[..., :_CHANNELS].float(), _PATCH, SHRINK, LUMA),
        [folded],
        is_exact=True,
    )
    yield from _motion_cases(rows // SHRINK, columns // SHRINK, draw)
    yield Case(
        "move",
        "frames moved",
        lambda x, motion: map_ops.move(x, motion, *limits)[..., :_CHANNELS],
        lambda x, motion: reference.move(x[..., :_CHANNELS].float(), motion, *limits).to(x.dtype),
        [folded, motion],
        is_exact=True,
    )


def _motion_cases(height: int, width: int, draw: _Draw) -> Iterator[Case]:
    """The way to the motion between frames, at its finest resolution."""
    exact = draw.exact
    luma = exact(1, _FRAMES, height, width)
    motion = exact(1, _FRAMES - 1, 2, height, width)
    other = motion / 2
    plane = exact(1, _FRAMES - 1, 2, 3)
    levels = 3
    _, gradients, _, inverse = motion_reference.prepared(luma, 1, 5, 1e-3)[0]
    coarse = motion[..., ::2, ::2].contiguous()
    # large pictures are fitted by many programs, small ones by one
    large, small = (
        motion_reference.prepared(exact(1, _FRAMES, *size), 1, 5, 1e-3)[0][:3]
        for size in ((max(height, 40), max(width, 60)), (24, 40))
    )
    errors = motion_reference.both_errors(luma, other, motion, 0.1)
    gate = 5, 0.95, 0.2, 0.002
    for op, name, inputs, constants in (
        ("prepared", "luma halved, gradients", [luma], (levels, 5, 1e-3)),
        ("fitted", "plane fitted", [*large, plane], (1.0, 0.1, 3, 2, 1e-3, 2.0)),
        ("fitted", "small plane fitted", [*small, plane], (2.0, 0.4, 1, 4, 1e-3, 2.0)),
        ("kept", "plane kept", [luma, plane], (0.1, 0.98, 0.002)),
        ("begun", "motion begun", [luma, gradients, plane, coarse], (1.0, 0.1)),
        (
            "improved",
            "motion improved",
            [luma, gradients, inverse, motion, motion / 10],
            (0.1, 5, 1.5, True),
        ),
        ("smoothed", "motion smoothed", [luma, other, motion], (0.1, 4)),
        ("chosen", "motion chosen", [luma, other, motion, errors], (*gate, 0.1)),
    ):
        kernel, reference_op = (getattr(module, op) for module in (motion_ops, motion_reference))

        def run(
            *inputs: Tensor,
            call: Callable[..., Any] = kernel,
            constants: tuple[float, ...] = constants,
        ) -> Any:
            return call(*inputs, *constants)

        yield Case(op, name, run, partial(run, call=reference_op), inputs, is_exact=True)


def _form_cases(name: str, form: FrameFormat, colors: Tensor, draw: _Draw) -> Iterator[Case]:
    """The same for one format, of noise."""
    device = draw.device
    ring = (torch.rand(_FRAMES, form.size, device=device) * 2**form.bits).to(form.sample_dtype)
    slots = torch.arange(_FRAMES, dtype=torch.int32, device=device)[None]
    size = form.height + -form.height % _MULTIPLE, form.width + -form.width % _MULTIPLE
    sides = size[0] // _PATCH, size[1] // _PATCH
    channels = padded_channels(_CHANNELS)
    # which the kernel leaves as they are
    folded = torch.zeros((1, *sides, channels), dtype=draw.dtype, device=device)
    # a slot's end, which no plane reaches, stays as it is
    restored = torch.zeros_like(ring[:1])
    flags = torch.empty(1, dtype=torch.int32, device=device)
    residual = draw.exact(1, 3, form.height, form.width) / 5

    def read(ring: Tensor, slots: Tensor, colors: Tensor) -> Tensor:
        form.read(ring, slots, colors, folded, _PATCH)
        return folded[..., :_CHANNELS]

    def apply(ring: Tensor, slots: Tensor, colors: Tensor, residual: Tensor) -> Tensor:
        form.apply(ring, slots, colors, residual, restored, flags)
        return restored

    yield Case(
        "frames_to_input",
        f"{name} to input",
        read,
        partial(frames_to_input, form, size, draw.dtype),
        [ring, slots, colors],
        is_exact=True,
    )
    yield Case(
        "residual_to_frames",
        f"residual to {name}",
        apply,
        partial(residual_to_frames, form),
        [ring, slots, colors, residual],
        is_exact=True,
        # the residual once for each plane, and the samples of one frame in and out
        moved=3 * residual.nbytes + 2 * restored.nbytes,
    )


def _planes(form: FrameFormat, ring: Tensor) -> tuple[Tensor, Tensor]:
    """Luma `[slots, H, W]` and chroma `[slots, 2, H / 2, W / 2]` of a ring, float32."""
    luma = ring[:, : form.starts[1]].view(-1, form.height, form.luma_row)
    rows, columns = form.plane_size(1)
    chroma = ring[:, form.starts[1] : form.starts[1] + 2 * rows * columns]
    if form.is_semi_planar:
        return luma.float(), chroma.view(-1, rows, columns, 2).permute(0, 3, 1, 2).float()
    return luma.float(), chroma.view(-1, 2, rows, columns).float()


def frames_to_input(
    form: FrameFormat,
    size: tuple[int, int],
    dtype: torch.dtype,
    ring: Tensor,
    slots: Tensor,
    colors: Tensor,
) -> Tensor:
    """What `FrameFormat.read` means, on the device: `color.to_rgb`, padded and folded.

    Args:
        form: 4:2:0, with nothing between the rows, up to 15 bits.
        size: Height and width of the padded pictures.
        dtype: Type of the result.
        ring: `[slots, size]` uint8 or int16.
        slots: `[1, T]` int32.
        colors: `[slots, NUM_COLORS]` float32.
    """
    index = slots[0].long()
    luma, chroma = (planes[index] for planes in _planes(form, ring))
    numbers = colors[index][..., None, None, None]
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
    chroma = (chroma[..., : form.height, : form.width] - numbers[:, 2]) / numbers[:, 3]
    way = colors[index][:, 4:10].view(-1, 3, 2)
    rgb = (luma[:, None] - numbers[:, 0]) / numbers[:, 1]
    rgb = (rgb + torch.einsum("tck,tkhw->tchw", way, chroma)).clamp(0, 1)
    padding = (0, size[1] - form.width, 0, size[0] - form.height)
    rgb = F.pad(rgb.flatten(0, 1)[None], padding, mode="replicate")
    return F.pixel_unshuffle(rgb, _PATCH).permute(0, 2, 3, 1).to(dtype).contiguous()


def residual_to_frames(
    form: FrameFormat, ring: Tensor, slots: Tensor, colors: Tensor, residual: Tensor
) -> Tensor:
    """What `FrameFormat.apply` means, on the device: `color.add_residual`.

    Args:
        form: As for `frames_to_input`.
        ring: Likewise.
        slots: Likewise.
        colors: Likewise.
        residual: `[1, 3, H, W]` float32.
    """
    index = slots[:, slots.shape[1] // 2].long()
    luma, chroma = (planes[index] for planes in _planes(form, ring))
    way = colors[index][:, 10:19].view(-1, 3, 3)
    luma = luma + torch.einsum("nk,nkhw->nhw", way[:, 0], residual)
    # the last blocks are cut: their means are those of the pixels that exist
    mean = F.avg_pool2d(residual, 2, ceil_mode=True, count_include_pad=False)
    chroma = chroma + torch.einsum("nck,nkhw->nchw", way[:, 1:], mean)
    if form.is_semi_planar:
        chroma = chroma.permute(0, 2, 3, 1)
    samples = torch.cat([luma.flatten(1), chroma.flatten(1)], 1)
    samples = samples.round().clamp(0, 2**form.bits - 1)
    return F.pad(samples, (0, form.size - samples.shape[1])).to(ring.dtype)
