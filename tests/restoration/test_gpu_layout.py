"""The frame kernels against color.py, sample for sample."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mhnet_video.frame import Frame
from mhnet_video.media.frames.pixel_formats import layout_of
from mhnet_video.restoration.color import add_residual, to_rgb
from mhnet_video.restoration.gpu_layout import NUM_COLORS, FrameFormat, colors_of, format_of

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("kernels_run")


def make_frame(name, height, width, **options):
    layout = layout_of(name)
    rng = np.random.default_rng(height * width)
    sizes = [(height, width)] * (1 if layout.kind == "gray" else 3)
    if layout.kind == "yuv":
        chroma = (-(-height >> layout.chroma_shift_y), -(-width >> layout.chroma_shift_x))
        sizes[1:] = [chroma, chroma]
    sizes += [(height, width)] * layout.has_alpha
    kind = np.uint8 if layout.bits == 8 else np.uint16
    planes = tuple(rng.integers(0, 1 << layout.bits, size).astype(kind) for size in sizes)
    return Frame(planes, layout, pts=0, time_base=Fraction(1, 25), **options)


def ring_of(frames, device, slots=7, strength=1.0):
    """A ring with frames in every second slot, and where they are."""
    form = format_of(frames[0])
    ring = torch.full((slots, form.size), 99, dtype=form.sample_dtype)
    colors = torch.full((slots, NUM_COLORS), float("nan"))
    places = [(2 * index + 1) % slots for index in range(len(frames))]
    for place, frame in zip(places, frames, strict=True):
        form.pack(frame, ring[place].numpy())
        colors[place] = torch.from_numpy(colors_of(frame, strength))
    return form, ring.to(device), colors.to(device), places


FRAMES = [
    ("yuv420p", 6, 10, {}),
    ("yuv420p", 5, 7, {"matrix": "bt709", "rotation": 90}),
    ("yuv422p10le", 5, 9, {"matrix": "bt2020", "full_range": True}),
    ("yuv444p", 3, 4, {"matrix": "ycgco", "rotation": 180}),
    ("yuv420p16le", 7, 5, {"rotation": 270}),
    ("yuv411p", 4, 9, {}),
    ("yuva420p", 4, 6, {}),
    ("gray10le", 5, 6, {}),
    ("gbrp", 4, 5, {}),
    ("yuv420p", 1, 1, {}),
]


@pytest.mark.parametrize(("name", "height", "width", "options"), FRAMES)
def test_frames_to_input(name, height, width, options, device):
    frames = [make_frame(name, height, width, **options) for _ in range(3)]
    frames[1] = make_frame(name, height, width, **{**options, "full_range": True})
    form, ring, colors, places = ring_of(frames, device)
    windows = [[0, 0, 1], [0, 1, 2]]
    slots = torch.tensor([[places[i] for i in w] for w in windows], dtype=torch.int32).to(device)
    shown_height, shown_width = form.shown
    for patch in (1, 2):
        high, wide = -(-shown_height // (2 * patch)) * 2, -(-shown_width // (2 * patch)) * 2
        room = torch.full((2, high, wide, 9 * patch**2 + 3), float("nan"), device=device)
        room[..., -3:] = 5
        form.read(ring, slots, colors, room, patch)
        out, rest = room.split([9 * patch**2, 3], 3)
        assert bool((rest == 5).all())
        for index, window in enumerate(windows):
            pictures = [
                torch.rot90(to_rgb(frames[i], torch.device("cpu")), -form.rotation // 90, (1, 2))
                for i in window
            ]
            expected = torch.cat(pictures)[None]
            padding = (0, wide * patch - shown_width, 0, high * patch - shown_height)
            expected = F.pixel_unshuffle(F.pad(expected, padding, mode="replicate"), patch)
            found = out[index].permute(2, 0, 1).cpu()
            torch.testing.assert_close(found, expected[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize(("name", "height", "width", "options"), FRAMES)
def test_residual_to_frames(name, height, width, options, strength, device):
    frames = [make_frame(name, height, width, **options) for _ in range(2)]
    form, ring, colors, places = ring_of(frames, device, strength=strength)
    slots = torch.tensor([[places[0]], [places[1]]], dtype=torch.int32, device=device)
    room = torch.randn(2, 3, form.shown[0] + 3, form.shown[1] + 2, device=device) / 5
    residual = room[:, :, : form.shown[0], : form.shown[1]]
    out = torch.full((2, form.size), 77, dtype=form.sample_dtype, device=device)
    flags = torch.full((2,), 5, dtype=torch.int32, device=device)
    form.apply(ring, slots, colors, residual, out, flags)
    assert flags.tolist() == [0, 0]
    for index, frame in enumerate(frames):
        turned = torch.rot90(residual[index].cpu(), frame.rotation // 90, (1, 2))
        expected = add_residual(frame, turned, strength=strength)
        found = form.unpack(out[index].cpu().numpy(), frame)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            # sums in another order may round a half the other way
            differing = a != b
            assert differing.mean() <= 0.02
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_no_residual_changes_no_sample(device):
    frame = make_frame("yuv420p10le", 5, 7)
    form, ring, colors, places = ring_of([frame], device)
    slots = torch.tensor([[places[0]]], dtype=torch.int32, device=device)
    out = torch.zeros(1, form.size, dtype=torch.int16, device=device)
    flags = torch.zeros(1, dtype=torch.int32, device=device)
    form.apply(ring, slots, colors, torch.zeros(1, 3, 5, 7, device=device), out, flags)
    for a, b in zip(form.unpack(out[0].cpu().numpy(), frame), frame.planes, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_told_and_left_out(wrong, device):
    frames = [make_frame("yuv420p", 20, 30) for _ in range(2)]
    form, ring, colors, places = ring_of(frames, device)
    slots = torch.tensor([[places[0]], [places[1]]], dtype=torch.int32, device=device)
    residual = torch.zeros(2, 3, 20, 30, device=device)
    residual[1, 2, 19, 29] = wrong
    out = torch.zeros(2, form.size, dtype=torch.uint8, device=device)
    flags = torch.zeros(2, dtype=torch.int32, device=device)
    form.apply(ring, slots, colors, residual, out, flags)
    assert flags.tolist() == [0, 1]
    for a, b in zip(form.unpack(out[1].cpu().numpy(), frames[1]), frames[1].planes, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bits", [8, 10])
def test_nv12_and_p010_are_their_planar_twins(bits, device):
    frame = make_frame("yuv420p" if bits == 8 else "yuv420p10le", 5, 6)
    form, ring, colors, places = ring_of([frame], device)
    other = FrameFormat.semi_planar(bits, 5, 6, row=16)
    kind = np.uint8 if bits == 8 else np.uint16
    packed = np.full((8, 16), 3, kind)
    packed[:5, :6] = frame.planes[0] << other.bits_down
    packed[5:, 0:6:2] = frame.planes[1] << other.bits_down
    packed[5:, 1:6:2] = frame.planes[2] << other.bits_down
    room = packed.reshape(1, -1).view(np.uint8 if bits == 8 else np.int16)
    semi = torch.from_numpy(room).to(device)
    slot = torch.zeros(1, 1, dtype=torch.int32, device=device)
    first = torch.full((1, 6, 6, 3), float("nan"), device=device)
    second = first.clone()
    form.read(ring, slot + places[0], colors, first, 1)
    other.read(semi, slot, colors[places[0]][None].contiguous(), second, 1)
    torch.testing.assert_close(first, second, rtol=0, atol=0)

    residual = torch.randn(1, 3, 5, 6, device=device) / 5
    flags = torch.zeros(1, dtype=torch.int32, device=device)
    out, out_semi = torch.zeros_like(ring[:1]), torch.zeros_like(semi)
    form.apply(ring, slot + places[0], colors, residual, out, flags)
    other.apply(semi, slot, colors[places[0]][None].contiguous(), residual, out_semi, flags)
    planes = form.unpack(out[0].cpu().numpy(), frame)
    written = out_semi.cpu().numpy().reshape(8, 16).view(kind) >> other.bits_down
    np.testing.assert_array_equal(written[:5, :6], planes[0])
    np.testing.assert_array_equal(written[5:, 0:6:2], planes[1])
    np.testing.assert_array_equal(written[5:, 1:6:2], planes[2])
