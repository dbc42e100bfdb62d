"""Every kernel on channels-last maps against its reference implementation in float64.

Without CUDA, Triton's interpreter runs the kernels. Outputs are poisoned: what a kernel leaves
unwritten stays not a number.
"""

import pytest
import torch
import torch.nn.functional as F

from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.kernels import map_reference as reference

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures("kernels_run")

TOLERANCE = {
    torch.float32: (2e-5, 2e-5),
    torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (3e-2, 3e-2),
}  # (rtol, atol)
KINDS = list(TOLERANCE)
# batch, height, width, channels
SHAPES = [
    pytest.param((1, 8, 16, 16), id="powers of two"),
    pytest.param((2, 5, 7, 24), id="odd sizes, two pictures"),
    pytest.param((1, 11, 13, 20), id="primes, two blocks of pixels"),
    pytest.param((1, 1, 1, 4), id="one pixel"),
]


def rand(*shape, kind=torch.float32, device="cpu", std=1.0):
    return (torch.randn(shape, device=device) * std).to(kind)


def poison(*shape, kind=torch.float32, device="cpu"):
    return torch.full(shape, float("nan"), dtype=kind, device=device)


def poisoned_sums(sums):
    return sums.fill_(float("nan"))


def check(actual, expected, kind, scale=1.0):
    rtol, atol = TOLERANCE[kind]
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=atol * scale)


def check_sums(sums, expected, kind):
    """Partial sums, as means: bfloat16 inputs round the same way for both."""
    num_pixels = expected.shape[1] * expected.shape[2]
    check(sums.sum(1) / num_pixels, expected.mean((1, 2)), kind)


def wide(*tensors):
    return [None if each is None else each.double() for each in tensors]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", ["norm gate", "gain two residuals sums", "plain"])
def test_linear(shape, kind, options, device):
    batch, _height, _width, channels = shape
    outputs = channels + 3
    gate = "gate" in options
    x = rand(*shape, kind=kind, device=device) + 2 * ("norm" in options)
    weight = rand(outputs * (1 + gate), channels, kind=kind, device=device, std=channels**-0.5)
    bias = None if options == "plain" else rand(weight.shape[0], device=device)
    gain = rand(batch, channels, device=device) if "gain" in options else None
    count = 2 if "residuals" in options else 0
    residuals = [rand(*shape[:3], outputs, kind=kind, device=device) for _ in range(count)]
    out = poison(*shape[:3], outputs, kind=kind, device=device)
    sums = poisoned_sums(map_ops.linear_sums(out)) if "sums" in options else None

    map_ops.linear(
        x,
        weight,
        bias,
        norm="norm" in options,
        gate=gate,
        gain=gain,
        residuals=residuals,
        sums=sums,
        out=out,
    )

    x, weight, bias, gain, *residuals = wide(x, weight, bias, gain, *residuals)
    expected = reference.linear(x, weight, bias, "norm" in options, gate, gain, residuals, 1e-6)
    check(out, expected, kind, 2.0)
    if sums is not None:
        check_sums(sums, expected, kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_linear_with_more_inputs_than_fit(kind, device):
    """Means that are large beside deviations must not cancel, over several parts of the inputs."""
    offset = 100.0 if kind == torch.float32 else 3.0
    x = rand(1, 3, 5, 200, kind=kind, device=device) + offset
    weight = rand(2 * 150, 200, kind=kind, device=device, std=0.07)
    bias = rand(2 * 150, device=device)
    out = poison(1, 3, 5, 150, kind=kind, device=device)
    map_ops.linear(x, weight, bias, norm=True, gate=True, out=out)
    expected = reference.linear(*wide(x, weight, bias), True, True, None, [], 1e-6)
    check(out, expected, kind, 8.0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("channels", [24, 64, 150])
def test_statistics_from_the_pass_before(channels, kind, device):
    """They are those of the stored map, in parts, and LayerNorm needs no others."""
    from mhnet_video.kernels.linear_kernel import part_channels

    x = rand(1, 6, 10, 20, kind=kind, device=device)
    bias = 30 * rand(1, device=device).expand(channels) + rand(channels, device=device)
    first = rand(channels, 20, kind=kind, device=device, std=0.2)
    halving = rand(channels, 80, kind=kind, device=device, std=0.1)
    second = rand(2 * 40, channels, kind=kind, device=device, std=channels**-0.5)
    for is_halved in (False, True):
        size = (1, 3, 5, channels) if is_halved else (1, 6, 10, channels)
        middle = poison(*size, kind=kind, device=device)
        statistics = poisoned_sums(map_ops.linear_statistics_room(middle))
        options = {"statistics_out": statistics, "out": middle}
        if is_halved:
            map_ops.halve(x, halving, bias.contiguous(), **options)
        else:
            map_ops.linear(x, first, bias.contiguous(), **options)
        part = part_channels(middle.element_size())
        assert statistics.shape == (1, -(-channels // part), 2, *size[1:3])
        expected = reference.statistics(middle.double(), part)
        torch.testing.assert_close(statistics.double(), expected, rtol=1e-4, atol=1e-4)
        out = poison(*size[:3], 40, kind=kind, device=device)
        map_ops.linear(middle, second, norm=True, gate=True, statistics=statistics, out=out)
        expected = reference.linear(*wide(middle, second), None, True, True, None, [], 1e-6)
        check(out, expected, kind, 8.0)
    with pytest.raises(ValueError, match="statistics"):
        map_ops.linear(middle, second, norm=True, statistics=statistics[:, :, :1], out=out)
    with pytest.raises(ValueError, match="statistics"):
        map_ops.linear(middle, second, statistics=statistics)


def test_linear_of_a_slice_with_weights_for_each_picture(device):
    maps = rand(2, 3, 5, 60, device=device)
    x = maps[..., 40:]
    weight = rand(2, 20, 20, device=device)
    out = poison(2, 3, 5, 20, device=device)
    map_ops.linear(x, weight, out=out)
    expected = reference.linear(*wide(x, weight), None, False, False, None, [], 1e-6)
    check(out, expected, torch.float32, 5.0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_halve(shape, kind, device):
    batch, height, width, channels = shape
    x = rand(batch, 2 * height, 2 * width, channels, kind=kind, device=device)
    kernel = rand(2 * channels, channels, 2, 2, kind=kind, device=device, std=channels**-0.5)
    bias = rand(2 * channels, device=device)
    out = poison(batch, height, width, 2 * channels, kind=kind, device=device)
    map_ops.halve(x, kernel.permute(0, 2, 3, 1).flatten(1).contiguous(), bias, out=out)
    expected = F.conv2d(x.double().permute(0, 3, 1, 2), kernel.double(), bias.double(), stride=2)
    check(out, expected.permute(0, 2, 3, 1), kind, 3.0)


@pytest.mark.parametrize("has_skip", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_double(shape, kind, has_skip, device):
    batch, height, width, channels = shape
    x = rand(*shape, kind=kind, device=device)
    matrix = rand(2 * channels, channels, kind=kind, device=device, std=channels**-0.5)
    skip = None
    if has_skip:
        skip = rand(batch, 2 * height, 2 * width, channels // 2, kind=kind, device=device)
    out = poison(batch, 2 * height, 2 * width, channels // 2, kind=kind, device=device)
    ordered = matrix.reshape(channels // 2, 2, 2, channels).permute(1, 2, 0, 3)
    map_ops.double(x, ordered.reshape(-1, channels).contiguous(), skip, out=out)
    expected = F.conv2d(x.double().permute(0, 3, 1, 2), matrix.double()[..., None, None])
    expected = F.pixel_shuffle(expected, 2).permute(0, 2, 3, 1)
    check(out, expected if skip is None else expected + skip.double(), kind, 2.0)


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, pytest.param((1, 70, 3, 72), id="many rows")])
def test_depthwise(shape, kind, gate, device):
    _batch, _height, _width, channels = shape
    times = 2 if gate else 1
    x = rand(*shape[:3], times * channels, kind=kind, device=device)
    weight = rand(9, times * channels, device=device, std=0.3)
    bias = rand(times * channels, device=device) if gate else None
    out = poison(*shape, kind=kind, device=device)
    sums = poisoned_sums(map_ops.depthwise_sums(out)) if gate else None
    map_ops.depthwise(x, weight, bias, gate=gate, sums=sums, out=out)
    expected = reference.depthwise(*wide(x, weight, bias), gate)
    check(out, expected, kind, 2.0)
    if sums is not None:
        check_sums(sums, expected, kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_conv_to_maps(shape, kind, device):
    channels = shape[3]
    x = rand(*shape, kind=kind, device=device)
    weight = rand(9, 10, channels, kind=kind, device=device, std=channels**-0.5 / 3)
    bias = rand(10, device=device)
    out = tuple(poison(*shape[:3], 5, kind=kind, device=device) for _ in range(2))
    map_ops.conv_to_maps(x, weight, bias, out=out)
    expected = reference.conv(*wide(x, weight, bias))
    check(torch.cat(out, -1), expected, kind, 2.0)


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_conv_to_picture(kind, patch, device):
    x = rand(2, 5, 7, 72, kind=kind, device=device)
    weight = rand(9, 3 * patch**2, 72, kind=kind, device=device, std=0.04)
    out = poison(2, 3, 5 * patch, 7 * patch, device=device)
    map_ops.conv_to_picture(x, weight, patch, out=out)
    expected = reference.conv(*wide(x, weight), None).permute(0, 3, 1, 2)
    check(out, F.pixel_shuffle(expected, patch), kind, 2.0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_block_front(shape, kind, device):
    channels = shape[3]
    x = rand(*shape, kind=kind, device=device) + 1
    weight = rand(9, 2 * channels, channels, kind=kind, device=device, std=channels**-0.5 / 3)
    tap_bias, bias = rand(9, 2 * channels, device=device), rand(2 * channels, device=device)
    out = poison(*shape, kind=kind, device=device)
    sums = poisoned_sums(map_ops.block_front_sums(out))
    map_ops.block_front(x, weight, tap_bias, bias, sums=sums, out=out)
    expected = reference.block_front(*wide(x, weight, tap_bias, bias), 1e-6)
    check(out, expected, kind, 10.0)
    check_sums(sums, expected, kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 9, 16, 16), (2, 5, 67, 32), pytest.param((1, 1, 1, 16), id="one pixel")]
)
def test_block_front_rows(shape, kind, device):
    channels = shape[3]
    x = rand(*shape, kind=kind, device=device) + 1
    weight = rand(2 * channels, channels, kind=kind, device=device, std=channels**-0.5)
    weight_bias, bias = rand(2 * channels, device=device), rand(2 * channels, device=device)
    taps = rand(9, 2 * channels, device=device, std=0.3)
    out = poison(*shape, kind=kind, device=device)
    sums = poisoned_sums(map_ops.block_front_rows_sums(out))
    map_ops.block_front_rows(x, weight, weight_bias, taps, bias, sums=sums, out=out)
    x, weight, weight_bias, taps, bias = wide(x, weight, weight_bias, taps, bias)
    expanded = reference.linear(x, weight, weight_bias, True, False, None, [], 1e-6)
    expected = reference.depthwise(expanded, taps, bias, True)
    check(out, expected, kind, 10.0)
    check_sums(sums, expected, kind)


@pytest.mark.parametrize("has_more", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_block_back(shape, kind, has_more, device):
    channels = shape[3]
    gated, x, more = (rand(*shape, kind=kind, device=device) for _ in range(3))
    gain = rand(shape[0], channels, device=device)
    weights = []
    for rows in (channels, 2 * channels, channels):
        weights.append(rand(rows, channels, kind=kind, device=device, std=channels**-0.5))
        weights.append(rand(rows, device=device))
    more = more if has_more else None
    out = poison(*shape, kind=kind, device=device)
    sums = poisoned_sums(map_ops.block_back_sums(out))
    map_ops.block_back(gated, x, gain, tuple(weights), more=more, sums=sums, out=out)
    gated, x, gain, more, *weights = wide(gated, x, gain, more, *weights)
    expected = reference.block_back(gated, x, gain, weights, more, 1e-6)
    check(out, expected, kind, 8.0)
    check_sums(sums, expected, kind)


@pytest.mark.parametrize(("parts", "channels"), [(1, 13), (300, 16), (1100, 21), (70, 130)])
def test_mean_and_attend(parts, channels, device):
    """In one launch each; what it counts is zero again, so that the next one needs no other."""
    sums = rand(2, parts, channels, device=device)
    wanted = sums.double().sum(1) / 77
    done = torch.zeros(2, dtype=torch.int32, device=device)
    partial, _ = room = map_ops.mean_room(sums, done)
    for _ in range(2):
        partial.fill_(float("nan"))
        mean = map_ops.mean(sums, 77, room=room, out=poison(2, channels, device=device))
        check(mean, wanted, torch.float32)
    assert done.tolist() == [0, 0]
    matrix, bias = rand(channels, channels, device=device), rand(channels, device=device)
    partial, _ = room = map_ops.attend_room(sums, done)
    partial.fill_(float("nan"))
    out = poison(2, channels, device=device)
    gain = map_ops.attend(sums, 77, matrix, bias, room=room, out=out)
    check(gain, wanted @ matrix.double().t() + bias.double(), torch.float32, 2.0)
    assert done.tolist() == [0, 0]
    with dispatch.recording() as launches:
        map_ops.attend(sums, 77, matrix, bias, room=room, out=out)
        map_ops.mean(sums, 77, out=out)
    assert [each.name for each in launches] == ["attend_kernel", "mean_kernel"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    ("shape", "heads"), [((2, 5, 7, 20), 4), ((1, 3, 23, 10), 1), ((1, 1, 1, 3), 3)]
)
def test_attention(shape, heads, kind, device):
    batch, height, width, channels = shape
    maps = rand(batch, height, width, 3 * channels, kind=kind, device=device)
    temperature = rand(heads, device=device) + 3
    gains = rand(4, device=device)
    size = channels // heads
    out = poison(batch, heads, size, size, device=device)
    map_ops.attention(maps, temperature, gains, out=out)
    # products are summed in float32, so the scores and their order are right for every type
    check(out, reference.attention(*wide(maps, temperature, gains)), torch.float32)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("batch", "heads", "size"), [(1, 8, 32), (2, 2, 5), (1, 1, 1), (1, 3, 67)])
def test_project(batch, heads, size, kind, device):
    channels = heads * size
    combined = rand(batch, heads, size, size, device=device)
    last = rand(heads, channels, size, device=device, std=channels**-0.5)
    out = poison(batch, channels, channels, kind=kind, device=device)
    map_ops.project(combined, last, kind, out=out)
    expected = reference.project(*wide(combined, last))
    check(out, expected, kind)
    # it is the attention and the convolution behind it, one after the other
    v = rand(batch, 3, heads, size, device=device).double()
    mixed = torch.einsum("nhij,nphj->nphi", combined.double(), v)
    mixed = torch.einsum("hci,nphi->npc", last.double(), mixed)
    torch.testing.assert_close(torch.einsum("ncj,npj->npc", expected, v.flatten(2)), mixed)


def test_attention_of_equal_scores(device):
    """A map without anything in it has no largest entries: the first ones are taken."""
    maps = torch.zeros(1, 2, 3, 24, device=device)
    out = map_ops.attention(maps, torch.ones(2, device=device), torch.ones(4, device=device))
    expected = [1 / 2 + 1 / 2 + 1 / 3 + 1 / 3, 1 / 2 + 1 / 2 + 1 / 3 + 1 / 3, 2 / 3, 0]
    torch.testing.assert_close(out.cpu(), torch.tensor(expected).expand(1, 2, 4, 4))


def test_shares(device):
    batch, channels, low, high, reduced = 2, 20, 40, 20, 3
    given = [
        rand(batch, channels, device=device),
        rand(batch, low, device=device),
        rand(batch, high, device=device),
        rand(channels, low, device=device, std=0.2),
        rand(channels, high, device=device, std=0.2),
        rand(2 * reduced, channels, device=device, std=0.2),
        rand(3, channels, reduced, device=device, std=0.5),
    ]
    out = map_ops.shares(*given, out=poison(batch, 3, channels, device=device))
    check(out, reference.shares(*wide(*given)), torch.float32)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_fuse(shape, kind, times, is_last, device):
    batch, height, width, channels = shape
    inputs = 5 * channels
    x = rand(batch, times * height, times * width, channels, kind=kind, device=device)
    low, high = (rand(*shape[:3], inputs, kind=kind, device=device) for _ in range(2))
    rows = times * times * channels
    weights = [rand(rows, inputs, kind=kind, device=device, std=inputs**-0.5) for _ in range(2)]
    options = {} if is_last else {"scale": rand(channels, device=device) + 2}
    if not is_last:
        options["shift"] = rand(channels, device=device)
    shares = rand(batch, 3, channels, device=device)
    out = torch.full_like(x, float("nan"))
    map_ops.fuse(x, low, high, *weights, shares=shares, **options, out=out)
    x, low, high, shares, *weights = wide(x, low, high, shares, *weights)
    scale, shift = wide(options.get("scale"), options.get("shift"))
    expected = reference.fuse(x, low, high, *weights, shares, scale, shift, 1e-6)
    check(out, expected, kind, 6.0)


def test_fuse_of_two(device):
    x, low = rand(1, 3, 5, 16, device=device), rand(1, 3, 5, 16, device=device)
    weight, scale, shift = (
        rand(16, 16, device=device),
        rand(16, device=device),
        rand(16, device=device),
    )
    out = torch.full_like(x, float("nan"))
    map_ops.fuse(x, low, None, weight, None, scale=scale, shift=shift, out=out)
    x, low, weight, scale, shift = wide(x, low, weight, scale, shift)
    expected = reference.fuse(x, low, None, weight, None, None, scale, shift, 1e-6)
    check(out, expected, torch.float32, 5.0)


def test_wrong_shapes_are_refused():
    x = torch.randn(1, 4, 4, 8)
    with pytest.raises(ValueError, match=r"got \[1, 4, 4, 8\], \[8, 7\]"):
        map_ops.linear(x, torch.randn(8, 7))
    with pytest.raises(ValueError, match=r"expected x \[N, H, W, K\]"):
        map_ops.linear(x, torch.randn(8, 8), norm=True, sums=torch.empty(1, 1, 8))
    with pytest.raises(ValueError, match=r"last \[heads, C, c\]"):
        map_ops.project(torch.randn(1, 2, 4, 4), torch.randn(2, 4, 8), torch.float32)
    with pytest.raises(ValueError, match=r"got \[1, 3, 4, 8\]"):
        map_ops.halve(x[:, :3], torch.randn(8, 32))
    with pytest.raises(ValueError, match=r"\[9, 3 \* patch\*\*2, K\]"):
        map_ops.conv_to_picture(x, torch.randn(9, 4, 8), 1)


def test_launches_can_be_recorded_without_memory():
    x = torch.empty(1, 1080, 1920, 64, dtype=torch.bfloat16, device="meta")
    weight = torch.empty(128, 64, dtype=torch.bfloat16, device="meta")
    with dispatch.recording() as launches:
        out = map_ops.linear(x, weight, norm=True)
    assert [launch.name for launch in launches] == ["linear_kernel"]
    maps = 2 * (x.numel() + weight.numel() + out.numel())
    assert launches[0].num_bytes == maps + 4 * 128  # and the weight's sums


def test_a_kernel_starts_where_its_tensors_are(monkeypatch):
    """Triton starts kernels on the current GPU, whatever their arguments say."""

    class OnSecond(torch.Tensor):
        device = property(lambda self: torch.device("cuda", 1))
        is_cuda = property(lambda self: True)

    class Kernel:
        def __getitem__(self, grid):
            return lambda **arguments: started.append((grid, current[-1]))

    class Current:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            current.append(self.device)

        def __exit__(self, *error):
            current.pop()

    started, current = [], [None]
    monkeypatch.setattr(torch.cuda, "device", Current)
    for x in (torch.empty(2).as_subclass(OnSecond), torch.empty(2)):
        launch = dispatch.Launch(
            kernel=Kernel(),
            grid=(3,),
            arguments={"a": None, "n": 2, "x_ptr": x},
            constants={},
            num_warps=4,
        )
        launch.run()
    assert started == [((3,), torch.device("cuda", 1)), ((3,), None)]
    assert current == [None]


def test_kernels_can_be_turned_off(device):
    x, weight = torch.randn(1, 2, 2, 8, device=device), torch.randn(8, 8, device=device)
    with dispatch.recording() as launches:
        with dispatch.off():
            map_ops.linear(x, weight)
        assert launches == []
        map_ops.linear(x, weight)
        assert len(launches) == 1


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("batch", "frames", "patch"), [(1, 3, 2), (2, 5, 1)])
def test_shrunken_luma(batch, frames, patch, kind, device):
    channels = 3 * frames * patch**2
    x = rand(batch, 24 // patch, 40 // patch, channels + 4, kind=kind, device=device)
    x[..., channels:] = float("nan")
    shares = (0.299, 0.587, 0.114)
    found = map_ops.shrunken_luma(x, frames, patch, 4, shares)
    assert found.shape == (batch, frames, 6, 10) and found.dtype == torch.float32
    expected = reference.shrunken_luma(*wide(x[..., :channels]), patch, 4, shares)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("batch", "frames", "patch"), [(1, 3, 2), (2, 5, 1)])
def test_move(batch, frames, patch, kind, device):
    channels = 3 * frames * patch**2
    x = rand(batch, 24 // patch, 40 // patch, channels + 4, kind=kind, device=device)
    x[..., channels:] = 0
    seen = x[..., :channels]
    # some of it leads out of the picture
    motion = rand(batch, frames - 1, 2, 6, 10, device=device, std=2.0)
    out = poison(*x.shape, kind=kind, device=device)
    out[..., channels:] = 0
    for same, unlike in ((0.02, 0.04), (0.5, 1.5)):  # nearly all of noise moves, or some stays
        map_ops.move(x, motion, patch, 4, same, unlike, out=out)
        expected = reference.move(*wide(seen, motion), patch, 4, same, unlike)
        check(out[..., :channels], expected, kind)
        assert not out[..., channels:].any()
        middle = slice(frames // 2 * 3 * patch**2, (frames // 2 + 1) * 3 * patch**2)
        assert torch.equal(out[..., middle], x[..., middle])
    map_ops.move(x, torch.zeros_like(motion), patch, 4, 0.02, 0.04, out=out)
    assert torch.equal(out, x)
