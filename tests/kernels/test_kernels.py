"""Every kernel against its reference implementation in float64.

Without CUDA, Triton's interpreter runs them.
"""

import pytest
import torch

from mhnet_video import kernels
from mhnet_video.kernels import reference

TOLERANCE = {
    torch.float32: (1e-5, 1e-5),
    torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (1.6e-2, 1.6e-2),
}  # (rtol, atol)
SHAPES = [
    pytest.param((1, 64, 16, 16), id="powers of two"),
    pytest.param((2, 48, 7, 13), id="odd sizes, two pictures"),
    pytest.param((1, 5, 53, 61), id="primes, two blocks of pixels"),
    pytest.param((1, 3, 1, 1), id="one pixel"),
]


def check(actual, expected, dtype):
    rtol, atol = TOLERANCE[dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=atol)


@pytest.fixture
def launch():
    """The launchers; the whole test is about Triton, so it must be there."""
    pytest.importorskip("triton")
    from mhnet_video.kernels import gate_kernel, layer_norm_kernel

    return {
        "layer_norm_2d": layer_norm_kernel.launch_layer_norm_2d,
        "gate_pool": gate_kernel.launch_gate_pool,
        "scaled_residual": gate_kernel.launch_scaled_residual,
    }


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_2d(shape, dtype, device, launch):
    x = torch.randn(shape, device=device).to(dtype) + 3
    weight = torch.randn(shape[1], device=device).to(dtype)
    bias = torch.randn(shape[1], device=device).to(dtype)
    out = torch.full_like(x, float("nan"))  # a pixel left unwritten stays nan

    launch["layer_norm_2d"](x, weight, bias, 1e-6, out=out)

    expected = reference.layer_norm_2d(x.double(), weight.double(), bias.double(), 1e-6)
    check(out, expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_gate_pool(shape, dtype, device, launch):
    batch, channels, height, width = shape
    x = torch.randn(batch, 2 * channels, height, width, device=device).to(dtype)
    out = torch.full(shape, float("nan"), dtype=dtype, device=device)

    product, mean = launch["gate_pool"](x, out=out)

    expected_product, expected_mean = reference.gate_pool(x.double())
    assert product is out
    check(product, expected_product, dtype)
    check(mean, expected_mean, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_scaled_residual(shape, dtype, device, launch):
    x, branch = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    scale = torch.randn(1, shape[1], 1, 1, device=device).to(dtype)
    out = torch.full_like(x, float("nan"))

    launch["scaled_residual"](x, branch, scale, out=out)

    expected = reference.scaled_residual(x.double(), branch.double(), scale.double())
    check(out, expected, dtype)


def test_reference_layer_norm_is_its_formula():
    x, weight, bias = torch.randn(2, 8, 5, 7).double(), torch.randn(8).double(), torch.randn(8)
    centered = x - x.mean(1, keepdim=True)
    expected = centered / (centered.square().mean(1, keepdim=True) + 1e-6).sqrt()
    expected = expected * weight[:, None, None] + bias.double()[:, None, None]
    torch.testing.assert_close(
        reference.layer_norm_2d(x, weight, bias.double(), 1e-6), expected, rtol=1e-9, atol=1e-9
    )


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \[2, 8, 5, 7\], \[7\], \[7\]"):
        kernels.layer_norm_2d(torch.randn(2, 8, 5, 7), torch.ones(7), torch.zeros(7))
    with pytest.raises(ValueError, match=r"got \[1, 3, 4, 4\]"):
        kernels.gate_pool(torch.randn(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"got \[1, 2, 4, 4\]"):
        kernels.scaled_residual(
            torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4), torch.ones(1, 3, 1, 1)
        )


def test_gradients_keep_the_reference():
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    product, mean = kernels.gate_pool(x)
    (product.sum() + mean.sum()).backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
