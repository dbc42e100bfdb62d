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
    """Fixed pictures, neighbours, and a motion that leads out of some."""
    batch, count, height, width = shape
    generator = torch.Generator().manual_seed(0)
    fixed = torch.rand(batch, height, width, generator=generator)
    moving = torch.rand(batch, count, height, width, generator=generator)
    motion = 3 * torch.randn(batch, count, 2, height, width, generator=generator)
    return [each.to(device) for each in (fixed, moving, motion)]


def check(name, given, constants=()):
    assert dispatch.use_triton(*given)
    found = getattr(motion_ops, name)(*given, *constants)
    expected = getattr(reference, name)(*(each.double() for each in given), *constants)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=2e-4, atol=2e-5)
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels(shape, device):
    fixed, moving, motion = drawn(shape, device)
    gradients = check("gradients", [fixed])
    inverse = check("inverse", [gradients], (5, 1e-3))
    slopes = check("slopes", [fixed, moving, motion, gradients], (0.1,))
    check("improved", [motion, slopes, inverse], (5, 1.5))
    check("improved", [motion, 50 * slopes, inverse], (2, 0.5))
    check("smoothed", [motion], (4,))
    other = motion.flip(0, 1)
    errors = check("errors", [fixed, moving, other, motion], (0.4,))
    found = check("chosen", [other, motion, errors], (1, 0.95, 0.2, 0.002))
    if fixed.shape[-1] > 1:
        # both are chosen, here and there
        assert bool((found == other).any()) and bool((found != other).any())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("terms", [1, 3])
def test_kernels_of_planes(shape, terms, device):
    fixed, moving, _ = drawn(shape, device)
    generator = torch.Generator().manual_seed(1)
    plane = torch.randn(*moving.shape[:2], 2, 3, generator=generator).to(device)
    found = motion_ops.spread(plane, *fixed.shape[1:])
    expected = reference.spread(plane.double(), *fixed.shape[1:])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    gradients = reference.gradients(fixed)
    moments = check("moments", [gradients])
    constants = (0.2, terms, 1e-3, 0.7)
    fitted = check("fitted", [fixed, moving, plane, gradients, moments], constants)
    assert terms == 3 or torch.equal(fitted[..., 1:], plane[..., 1:])
    # a step may be cut, and another one not
    assert float((fitted - plane).abs().max()) < 0.71


def test_any_strides(device):
    fixed, moving, motion = drawn((2, 2, 7, 9), device)
    turned = motion.transpose(3, 4).contiguous().transpose(3, 4)
    assert torch.equal(motion_ops.smoothed(turned, 2), motion_ops.smoothed(motion, 2))
    found = motion_ops.errors(fixed.flip(0), moving.flip(0), turned.flip(0), motion.flip(0), 0.1)
    assert torch.equal(found, motion_ops.errors(fixed, moving, motion, motion, 0.1).flip(0))


@pytest.mark.parametrize(
    ("name", "shapes", "constants"),
    [
        ("gradients", [(2, 3)], ()),
        ("inverse", [(1, 3, 4, 5)], (5, 1e-3)),
        ("slopes", [(1, 4, 5), (1, 2, 4, 5), (1, 2, 2, 4, 5), (1, 3, 4, 5)], (0.1,)),
        ("slopes", [(1, 4, 5), (1, 2, 4, 6), (1, 2, 2, 4, 5), (1, 2, 4, 5)], (0.1,)),
        ("improved", [(1, 2, 2, 4, 5), (1, 2, 2, 4, 5), (1, 2, 4, 5)], (5, 1.5)),
        ("smoothed", [(1, 2, 3, 4, 5)], (4,)),
        ("errors", [(2, 4, 5), (1, 2, 4, 5), (1, 2, 2, 4, 5), (1, 2, 2, 4, 5)], (0.1,)),
        ("errors", [(1, 4, 5), (1, 2, 4, 5), (1, 2, 2, 4, 5), (1, 2, 2, 4, 6)], (0.1,)),
        ("chosen", [(1, 2, 2, 4, 5), (1, 2, 2, 4, 5), (1, 1, 2, 4, 5)], (5, 0.95, 0.2, 0.002)),
        ("spread", [(1, 2, 2, 2)], (4, 5)),
        ("moments", [(1, 3, 4, 5)], ()),
        (
            "fitted",
            [(1, 4, 5), (1, 2, 4, 5), (1, 2, 2, 3), (1, 2, 4, 5), (1, 3, 5)],
            (0.1, 3, 0, 1),
        ),
    ],
)
def test_shapes_that_do_not_fit(name, shapes, constants):
    with pytest.raises(ValueError, match="expected"):
        getattr(motion_ops, name)(*(torch.zeros(shape) for shape in shapes), *constants)


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
