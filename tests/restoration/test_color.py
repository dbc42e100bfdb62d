"""Planes to RGB and the residual's way back, against FFmpeg's own conversion and by hand."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from mhnet_video.color_spaces import LUMA_WEIGHTS
from mhnet_video.config import Box
from mhnet_video.engines.select import llvm_obstacle
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.restoration import color, resize, yuv
from mhnet_video.restoration.color import add_residual, rgb_to_yuv, to_rgb, write_rgb

CPU = torch.device("cpu")
LAYOUTS = [
    PixelLayout("yuv420p", "yuv", 8, 1, 1),
    PixelLayout("yuv422p", "yuv", 8, 1, 0),
    PixelLayout("yuv444p", "yuv", 8, 0, 0),
    PixelLayout("yuv410p", "yuv", 8, 2, 2),
    PixelLayout("yuv420p10le", "yuv", 10, 1, 1),
    PixelLayout("yuv444p12le", "yuv", 12, 0, 0),
    PixelLayout("yuva420p", "yuv", 8, 1, 1, has_alpha=True),
    PixelLayout("gray", "gray", 8),
    PixelLayout("gray10le", "gray", 10),
    PixelLayout("gbrp", "rgb", 8),
    PixelLayout("gbrap16le", "rgb", 16, has_alpha=True),
]


def make_frame(layout, height=14, width=18, **options):
    random = np.random.default_rng(0)
    top = 2**layout.bits
    sizes = [(height, width)]
    if layout.kind == "yuv":
        chroma = -(-height >> layout.chroma_shift_y), -(-width >> layout.chroma_shift_x)
        chroma = tuple(
            -(-side // (1 << shift))
            for side, shift in ((height, layout.chroma_shift_y), (width, layout.chroma_shift_x))
        )
        sizes += [chroma] * 2
    elif layout.kind == "rgb":
        sizes *= 3
    if layout.has_alpha:
        sizes.append((height, width))
    kind = np.uint8 if layout.bits == 8 else np.uint16
    planes = tuple(random.integers(0, top, size).astype(kind) for size in sizes)
    return Frame(planes, layout, pts=0, time_base=Fraction(1, 25), **options)


@pytest.mark.parametrize("matrix", [*LUMA_WEIGHTS, "ycgco"])
def test_matrices(matrix):
    weights = rgb_to_yuv(matrix)
    white, gray = torch.ones(3).double(), torch.full((3,), 0.25).double()
    torch.testing.assert_close(
        weights @ white, torch.tensor([1.0, 0, 0]).double(), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(
        weights @ gray, torch.tensor([0.25, 0, 0]).double(), atol=1e-12, rtol=0
    )
    # each chroma reaches exactly one half
    corners = torch.tensor([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)]).double()
    assert (corners @ weights.T)[:, 1:].amax(0).tolist() == pytest.approx([0.5, 0.5])


def test_unknown_matrix_is_refused():
    with pytest.raises(ValueError, match="not 'bt123'"):
        rgb_to_yuv("bt123")


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("name", ["yuv444p", "yuv420p10le"])
def test_rgb_is_ffmpegs(name, matrix, full_range):
    """A smooth picture through swscale and through ours."""
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    size = 64
    y, x = np.mgrid[:size, :size] / size
    step = 2 ** (layout.bits - 8)
    planes = [(60 + 120 * x) * step, (110 + 30 * y) * step, (140 - 20 * x) * step]
    kind = np.uint8 if layout.bits == 8 else np.uint16
    stride = 1 << layout.chroma_shift_x
    planes = [
        planes[0],
        *(plane[stride // 2 :: stride, stride // 2 :: stride] for plane in planes[1:]),
    ]
    planes = tuple(np.ascontiguousarray(plane.round().astype(kind)) for plane in planes)
    ours = to_rgb(Frame(planes, layout, 0, Fraction(1), matrix=matrix, full_range=full_range), CPU)

    picture = av.VideoFrame(size, size, name)
    for plane, samples in zip(picture.planes, planes, strict=True):
        view = np.frombuffer(plane, kind).reshape(plane.height, -1)
        view[:, : samples.shape[1]] = samples
    picture.colorspace = {"bt601": 5, "bt709": 1, "bt2020": 9}[matrix]
    picture.color_range = 2 if full_range else 1
    theirs = picture.to_ndarray(
        format="rgb24" if layout.bits == 8 else "rgb48le", src_colorspace=picture.colorspace
    )
    theirs = theirs.astype(float) / (1 if layout.bits == 8 else 257)
    inner = (slice(2, -2), slice(2, -2))  # swscale and we differ in how chroma meets the edge
    difference = ours.permute(1, 2, 0).numpy() * 255 - theirs
    # swscale rounds down, and takes the nearest chroma sample
    assert np.abs(difference[inner]).max() < 2
    assert np.abs(difference[inner].mean((0, 1))).max() < 0.8


@pytest.mark.parametrize("size", [(42, 50), (41, 51), (4, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_strips_do_not_show(layout, size, monkeypatch):
    """A picture in one piece, and in strips of four rows."""
    frame = make_frame(layout, *size)
    residual = (torch.rand(3, *size) - 0.5) * 0.2
    results = []
    for pixels in (1 << 30, 4 * size[1]):
        monkeypatch.setattr(color, "_STRIP_PIXELS", pixels)
        results.append([to_rgb(frame, CPU).numpy(), *add_residual(frame, residual)])
    assert all(map(np.array_equal, *results))


@pytest.mark.parametrize("small", [(36, 32), (54, 48)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_smaller_pictures_are_those_of_the_whole_one(layout, small, monkeypatch):
    monkeypatch.setattr(resize, "_STRIP_PIXELS", 8 * 64)
    size = 72, 64
    frame = make_frame(layout, *size)
    room = torch.full((3, small[0] + 3, small[1] + 5), float("nan"))
    write_rgb(frame, room[:, : small[0], : small[1]])
    expected = resize.shrunk(to_rgb(frame, CPU), *small)
    torch.testing.assert_close(room[:, : small[0], : small[1]], expected, rtol=0, atol=1e-6)
    assert room[:, small[0] :].isnan().all() and room[..., small[1] :].isnan().all()

    residual = (torch.rand(3, *small) - 0.5) * 0.2
    restored = add_residual(frame, residual)
    monkeypatch.setattr(resize, "_STRIP_PIXELS", 1 << 30)
    ((_, whole),) = resize.enlarged_strips(residual, *size)
    for plane, expected in zip(restored, add_residual(frame, whole), strict=True):
        assert np.abs(plane.astype(int) - expected.astype(int)).max() <= 1
        assert (plane != expected).mean() < 2e-3


@pytest.mark.skipif(bool(llvm_obstacle()), reason=llvm_obstacle())
@pytest.mark.parametrize("matrix", ["bt709", "ycgco"])
@pytest.mark.parametrize("size", [(42, 50), (2, 64), (64, 32), (6, 98)], ids=str)
@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv422p", "yuv444p", "yuva420p", "yuv420p10le", "yuv444p12le"]
)
def test_compiled_kernels_give_the_same(name, size, matrix, monkeypatch):
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    # planes as FFmpeg gives them: rows lie further apart than they are long
    wide = make_frame(layout, size[0], size[1] + 64, matrix=matrix)
    planes = [
        plane[:, : size[1] >> (layout.chroma_shift_x if index in (1, 2) else 0)]
        for index, plane in enumerate(wide.planes)
    ]
    frame = replace(wide, planes=tuple(planes))
    residual = (torch.rand(3, size[0], size[1] + 5) - 0.5)[..., : size[1]] * 0.5
    assert yuv.kernels_for(frame) is not None
    rgb, restored = to_rgb(frame, CPU), add_residual(frame, residual, strength=0.7)
    turned = residual.transpose(1, 2).contiguous().transpose(1, 2)
    assert all(map(np.array_equal, restored, add_residual(frame, turned, strength=0.7)))
    monkeypatch.setattr(color, "kernels_for", lambda frame: None)
    torch.testing.assert_close(rgb, to_rgb(frame, CPU), rtol=0, atol=1e-6)
    plain = add_residual(frame, residual, strength=0.7)
    for compiled, expected in zip(restored, plain, strict=True):
        assert compiled.dtype == expected.dtype
        difference = np.abs(compiled.astype(int) - expected.astype(int))
        # the order of sums decides where a value lies halfway between two samples
        assert difference.max() <= 1
        assert (difference > 0).mean() < 2e-3


def test_what_the_kernels_cannot_do():
    for layout in LAYOUTS:
        is_fit = layout.kind == "yuv" and max(layout.chroma_shift_x, layout.chroma_shift_y) < 2
        fits = yuv.kernels_for(make_frame(layout, 42, 50)) is not None
        assert fits == (is_fit and not llvm_obstacle())
    assert yuv.kernels_for(make_frame(LAYOUTS[0], 41, 50)) is None
    assert yuv.kernels_for(make_frame(LAYOUTS[0], 42, 51)) is None
    assert yuv.kernels_for(make_frame(LAYOUTS[0], 42, 2)) is None
    frame = make_frame(LAYOUTS[2], 42, 50)
    assert yuv.kernels_for(replace(frame, planes=tuple(p[:, ::2] for p in frame.planes))) is None


@pytest.mark.parametrize("size", [(14, 18), (13, 17), (1, 1)], ids=str)
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv410p"])
def test_chroma_lies_between_its_samples(name, size):
    """Red goes with V alone: PyTorch's own bilinear interpolation of it."""
    frame = make_frame(next(layout for layout in LAYOUTS if layout.name == name), *size)
    luma, _, v = (torch.from_numpy(plane.astype(np.float32)) for plane in frame.planes)
    size = [side << shift for side, shift in zip(v.shape, (
        frame.layout.chroma_shift_y, frame.layout.chroma_shift_x), strict=True)]  # fmt: skip
    v = torch.nn.functional.interpolate(v[None, None], size, mode="bilinear")[0, 0]
    v = v[: frame.height, : frame.width]
    red = ((luma - 16) / 219 + 1.402 * (v - 128) / 224).clamp(0, 1)
    torch.testing.assert_close(to_rgb(frame, CPU)[0], red, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [(14, 18), (13, 17), (1, 1), (1, 5)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_no_residual_changes_nothing(layout, size):
    frame = make_frame(layout, *size)
    planes = add_residual(frame, torch.zeros(3, *size))
    assert len(planes) == len(frame.planes)
    for before, after in zip(frame.planes, planes, strict=True):
        assert before.dtype == after.dtype
        assert np.array_equal(before, after)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_a_gray_residual_moves_luma_only(layout):
    frame = make_frame(layout)
    planes = add_residual(frame, torch.full((3, frame.height, frame.width), -0.1))
    span = 255 if layout.kind == "rgb" else 219
    change = -0.1 * (2**layout.bits - 1 if layout.kind == "rgb" else span * 2 ** (layout.bits - 8))
    expected = np.clip(np.round(frame.planes[0] + np.float32(change)), 0, None)
    assert np.abs(planes[0].astype(int) - expected).max() <= (0 if layout.bits == 8 else 1)
    if layout.kind == "yuv":
        assert all(np.array_equal(planes[i], frame.planes[i]) for i in (1, 2))
    if layout.has_alpha:
        assert planes[-1] is frame.planes[-1]


def test_chroma_takes_the_mean_of_its_pixels():
    layout = LAYOUTS[0]
    frame = make_frame(layout, 3, 3, full_range=True)
    frame = Frame(
        tuple(np.full_like(p, 128) for p in frame.planes), layout, 0, Fraction(1), full_range=True
    )
    residual = torch.zeros(3, 3, 3)
    residual[2, 0, 0] = 0.4  # blue, one pixel of the four of the first chroma sample
    residual[2, 2, 2] = 0.4  # the only pixel of the last one
    chroma = add_residual(frame, residual)[1].astype(int) - 128
    assert chroma.tolist() == [[round(0.1 * 0.5 * 255), 0], [0, round(0.4 * 0.5 * 255)]]


def test_results_stay_in_the_samples_range():
    for layout in LAYOUTS:
        frame = make_frame(layout)
        for amount in (-5.0, 5.0):
            planes = add_residual(frame, torch.full((3, 14, 18), amount))
            assert planes[0].max() == (0 if amount < 0 else 2**layout.bits - 1)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize(
    "box", [Box(3, 5, 4, 3), Box(0, 0, 1, 1), Box(15, 11, 40, 40), Box(90, 0, 2, 2)]
)
def test_boxes_keep_every_sample_that_they_touch(layout, box):
    frame = make_frame(layout)
    residual = torch.rand(3, 14, 18) - 0.7
    planes = add_residual(frame, residual, keep=[box])
    free = add_residual(frame, residual)
    inside = np.zeros((14, 18), bool)
    inside[box.y : box.y + box.height, box.x : box.x + box.width] = True
    for index, (before, after, without) in enumerate(zip(frame.planes, planes, free, strict=True)):
        sub = layout.kind == "yuv" and index in (1, 2)
        rows = np.arange(14) >> (layout.chroma_shift_y if sub else 0)
        columns = np.arange(18) >> (layout.chroma_shift_x if sub else 0)
        touched = np.zeros(before.shape, bool)
        np.logical_or.at(touched, (rows[:, None], columns[None]), inside)
        assert np.array_equal(after[touched], before[touched])
        assert np.array_equal(after[~touched], without[~touched])


def test_strength_scales_the_residual():
    frame = make_frame(LAYOUTS[2])
    residual = (torch.rand(3, 14, 18) - 0.5) * 0.2
    half = add_residual(frame, residual, strength=0.5)
    assert all(map(np.array_equal, half, add_residual(frame, residual * 0.5)))
    assert all(map(np.array_equal, add_residual(frame, residual, strength=0), frame.planes))


def test_samples_reach_a_macs_gpu_as_floats_that_are_waited_for(monkeypatch):
    """PyTorch may lack uint16 there, and does not keep what it copies without waiting."""
    copies = []

    def to(x, device, **options):
        copies.append((x.dtype, device.type, options))
        return x

    monkeypatch.setattr(torch.Tensor, "to", to)
    plane = np.array([[0, 1023], [4, 65535]], np.uint16)[:, ::-1]
    samples = color._to_tensor(plane, torch.device("mps"))
    assert samples.tolist() == plane.tolist()
    assert copies == [(torch.float32, "mps", {})]
