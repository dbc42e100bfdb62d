"""Every kernel on motion between frames against its reference implementation in float64.

Without CUDA, Triton's interpreter runs the kernels.
"""

import pytest
import torch
from test_align import scene

from mhnet_video.kernels import dispatch, map_reference, motion_ops
from mhnet_video.kernels import motion_reference as reference
from mhnet_video.model.align import align_maps, estimate, shrunken_luma

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("kernels_run")

# pictures, neighbours, height, width
SHAPES = [(1, 2, 9, 17), (2, 4, 5, 30), (1, 1, 1, 1)]


def drawn(shape, device):
    """Fixed pictures with their neighbours, and a motion that leads out of some."""
    batch, count, height, width = shape
    generator = torch.Generator().manual_seed(0)
    luma = torch.rand(batch, 1 + count, height, width, generator=generator)
    motion = 3 * torch.randn(batch, count, 2, height, width, generator=generator)
    plane = torch.randn(batch, count, 2, 3, generator=generator)
    return [each.to(device) for each in (luma, motion, plane)]


def wide(each):
    return each.double() if isinstance(each, torch.Tensor) else each


def check(name, given, constants=(), **room):
    """The results of an operation, each compared with its reference implementation's."""
    assert dispatch.use_triton(*given)
    with dispatch.recording() as launches:
        getattr(motion_ops, name)(*given, *constants, **room)
    assert launches
    found = getattr(motion_ops, name)(*given, *constants, **room)
    expected = getattr(reference, name)(*map(wide, given), *constants)
    for mine, wanted in zip(listed(found), listed(expected), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), wanted.double(), rtol=2e-4, atol=2e-5)
    return found


def listed(found):
    """Tensors one by one, however they come."""
    if isinstance(found, torch.Tensor):
        return [found]
    return [tensor for each in found for tensor in listed(each)]


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_levels(levels, device):
    """All levels of a picture in few launches, one of them to count the programs of each level."""
    luma, _, _ = drawn((2, 2, 37, 21), device)
    done = motion_ops.done_room(luma, levels)
    for _ in range(2):
        found = check("prepared", [luma], (levels, 2, 1e-3), done=done)
        assert not done.any()
    assert [each.luma.shape[2:] for each in found] == [(37 >> n, 21 >> n) for n in range(levels)]
    with dispatch.recording() as launches:
        motion_ops.prepared(luma, levels, 2, 1e-3, done=done)
    names = [each.name for each in launches]
    pyramids = [0, 1, 1, 1, 2][levels - 1]
    assert names == ["pyramid_kernel"] * pyramids + ["gradients_kernel", "inverse_kernel"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.slow
def test_windows(shape, device):
    luma, motion, plane = drawn(shape, device)
    (_, gradients, _, inverse), *_ = motion_ops.prepared(luma, 1, 5, 1e-3)
    coarse = motion[..., : (shape[2] + 1) // 2, : (shape[3] + 1) // 2]
    common, begun, slopes = check("begun", [luma, gradients, plane, coarse], (0.5, 0.1))
    check("begun", [luma, gradients, plane, None], (1.0, 0.1))
    given = [luma, gradients, inverse, motion, slopes]
    check("improved", given, (0.1, 5, 1.5, True))
    given[-1] = 50 * slopes
    again = check("improved", given, (0.1, 2, 0.5, False))
    assert again[1] is given[-1]
    smoothed, errors = check("smoothed", [luma, common, motion], (0.4, 4))
    moved, _ = check("chosen", [luma, common, smoothed, errors], (1, 0.95, 0.2, 0.002, 0.1))
    if luma.shape[-1] > 1:
        # both are chosen, here and there
        assert bool((moved == common).any()) and bool((moved != common).any())
    still = check("chosen", [luma, None, begun, errors], (1, 0.95, 0.2, 0.002, None))
    assert still[1] is errors


@pytest.mark.parametrize("shape", [*SHAPES, (1, 2, 41, 53)], ids=str)
@pytest.mark.parametrize("terms", [1, 3])
def test_planes(shape, terms, device):
    """Large pictures by many programs, of which the last one makes the step; small ones by one."""
    luma, _, plane = drawn(shape, device)
    (_, gradients, moments, _), *_ = motion_ops.prepared(luma, 1, 5, 1e-3)
    done = motion_ops.done_room(luma, 1)
    given = [luma, gradients, moments, plane]
    fitted = check("fitted", given, (2.0, 0.2, terms, 2, 1e-3, 0.35), done=done)
    assert terms == 3 or torch.equal(fitted[..., 1:], 2 * plane[..., 1:])
    # a step may be cut, and another one not
    assert float((fitted - 2 * plane).abs().max()) < 0.71
    assert torch.equal(fitted, 2 * plane) == (shape[2:] == (1, 1))
    with dispatch.recording() as launches:
        motion_ops.fitted(*given, 2.0, 0.2, terms, 2, 1e-3, 0.35, done=done)
    is_large = shape[2] * shape[3] > 2048
    assert len(launches) == (2 if is_large else 1)
    for gain in (0.0, 0.98, 9.0):
        kept = check("kept", [luma, plane], (0.1, gain, 0.002), done=done)
        assert gain > 0 or not kept.any()
    assert torch.equal(kept, plane)
    assert not done.any()


def test_any_strides(device):
    luma, motion, plane = drawn((2, 2, 7, 9), device)
    gradients = reference.gradients(luma[:, 0])
    turned = motion.transpose(3, 4).contiguous().transpose(3, 4)
    for one, other in zip(
        motion_ops.smoothed(luma.flip(0), turned.flip(0), turned.flip(0), 0.1, 2),
        motion_ops.smoothed(luma, motion, motion, 0.1, 2),
        strict=True,
    ):
        assert torch.equal(one.flip(0), other)
    for one, other in zip(
        motion_ops.begun(luma, gradients, plane, turned[..., ::2, ::2], 0.5, 0.1),
        motion_ops.begun(luma, gradients, plane, motion[..., ::2, ::2].contiguous(), 0.5, 0.1),
        strict=True,
    ):
        assert torch.equal(one, other)


LUMA, MOTION, PLANE = (1, 3, 4, 5), (1, 2, 2, 4, 5), (1, 2, 2, 3)
GRADIENTS, INVERSE, MOMENTS = (1, 2, 4, 5), (1, 3, 4, 5), (1, 3, 6)


@pytest.mark.parametrize(
    ("name", "shapes", "constants"),
    [
        ("prepared", [(3, 4, 5)], (1, 5, 1e-3)),
        ("prepared", [LUMA], (4, 5, 1e-3)),
        ("fitted", [LUMA, GRADIENTS, (1, 3, 5), PLANE], (1.0, 0.1, 3, 2, 0.0, 1.0)),
        ("fitted", [LUMA, GRADIENTS, MOMENTS, PLANE], (1.0, 0.1, 2, 2, 0.0, 1.0)),
        ("fitted", [LUMA, INVERSE, MOMENTS, PLANE], (1.0, 0.1, 3, 2, 0.0, 1.0)),
        ("kept", [LUMA, (1, 3, 2, 3)], (0.1, 0.98, 0.002)),
        ("kept", [(1, 1, 4, 5), (1, 0, 2, 3)], (0.1, 0.98, 0.002)),
        ("begun", [LUMA, (2, 2, 4, 5), PLANE, MOTION], (1.0, 0.1)),
        ("begun", [LUMA, GRADIENTS, PLANE, (1, 1, 2, 2, 3)], (1.0, 0.1)),
        ("improved", [LUMA, GRADIENTS, GRADIENTS, MOTION, MOTION], (0.1, 5, 1.5, True)),
        ("improved", [LUMA, GRADIENTS, INVERSE, (1, 2, 2, 4, 6), MOTION], (0.1, 5, 1.5, True)),
        ("smoothed", [LUMA, (1, 2, 3, 4, 5), MOTION], (0.1, 4)),
        ("chosen", [LUMA, (1, 1, 2, 4, 5), MOTION, MOTION], (5, 0.95, 0.2, 0.002, None)),
        ("chosen", [LUMA, MOTION, MOTION, (1, 2, 1, 4, 5)], (5, 0.95, 0.2, 0.002, None)),
    ],
)
def test_shapes_that_do_not_fit(name, shapes, constants):
    with pytest.raises(ValueError, match="expected"):
        getattr(motion_ops, name)(*(torch.zeros(shape) for shape in shapes), *constants)


def test_launches_of_an_alignment():
    """Each follows the other, so that their number is the time that alignment takes."""
    folded = torch.empty(1, 544, 960, 64, device="meta")
    with dispatch.recording() as launches:
        align_maps(folded, 5, 2, torch.empty_like(folded))
    assert len(launches) == 52


@pytest.mark.slow
def test_the_whole_way_from_folded_frames(device):
    """A picture that moves is found by kernels alone as it is by PyTorch."""
    picture = scene(0, (160, 200))
    window = torch.stack([picture[:, 40:104, 40 + x : 136 + x] for x in (0, 5, 10)])[None]
    folded = torch.nn.functional.pixel_unshuffle(window.flatten(1, 2), 2).permute(0, 2, 3, 1)
    folded = folded.contiguous().to(device)
    out = torch.full_like(folded, float("nan"))
    align_maps(folded, 3, 2, out)
    with dispatch.off():
        expected = torch.empty_like(out)
        align_maps(folded, 3, 2, expected)
        luma = shrunken_luma(window[0].to(device))
        assert float(estimate(luma[None, 1], luma[None, [0, 2]]).abs().max()) > 1
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-3)
    moved = map_reference.unfold(out, 2)[0, 0].cpu() - window[0, 1]
    assert float(moved[:, 16:-16, 16:-16].abs().mean()) < 0.02
