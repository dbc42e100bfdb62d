"""What the CPU engine does in int8."""

import pytest
import torch
import torch.nn.functional as F
from test_llvm_engine import CONFIGS, compare, make_network

pytest.importorskip("llvmlite")

from mhnet_video.engines.llvm.arena import Resolution
from mhnet_video.engines.llvm.engine import LLVMEngine
from mhnet_video.engines.llvm.int8_weights import MOST_DIFFERENCE, error_shares, round_weights
from mhnet_video.engines.llvm.layers import Layers
from mhnet_video.engines.llvm.scheduler import Kernels, Program
from mhnet_video.engines.llvm.weight_packing import Layout, matrix_of, pack_int8, starts_in_int8
from mhnet_video.kernels import llvm_int8
from mhnet_video.kernels.llvm_machine import Machine, host_machine
from mhnet_video.kernels.llvm_product import Tile
from mhnet_video.model.network import NetworkConfig
from mhnet_video.model.weights import load_model

MACHINE = host_machine(tiles=False)
needs_int8 = pytest.mark.skipif(
    MACHINE is None or not MACHINE.int8, reason="this processor has no VNNI beside bfloat16"
)


def scene(frames, height, width):
    """Frames of a soft picture, some of whose samples are 0 and 1, and a little noise."""
    coarse = torch.rand(1, 3, height // 8, width // 8)
    picture = F.interpolate(coarse, (height, width), mode="bicubic")
    noise = 0.01 * torch.randn(frames, 3, height, width)
    return (picture + noise).clamp(0, 1).flatten(0, 1)[None].double()


def convolved(window, weight):
    return F.conv2d(F.pixel_unshuffle(window, 2), weight, padding=1)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("realtime", 1),
        ("quality", 1),
        ("deblur-realtime", 1),
        ("windscreen-realtime", 1.6),
        ("windscreen", 1.6),
    ],
)
def test_rounded_weights_give_pictures_what_bfloat16_gives_them(name, most):
    network = load_model(name)
    pictures, glass = network.config.pictures, network.config.glass
    weight = network.stage1.intro.weight.detach().double()
    scaled = weight.clone()
    if glass:
        scaled[:, -12:] *= MOST_DIFFERENCE
    rounded, units = round_weights(scaled, error_shares(pictures, 2, glass=glass))
    assert torch.equal(rounded, rounded.round())
    assert rounded.abs().max() == 127
    window = scene(pictures, 96, 128)
    if glass:  # the last picture is of differences, which are small in most places
        window[:, -3:] = scene(1, 96, 128) ** 4
    exact = convolved(window, weight)
    found = rounded * units[:, None, None, None]
    if glass:
        found[:, -12:] /= MOST_DIFFERENCE
    error = convolved(window, found) - exact
    usual = convolved(window, weight.bfloat16().double()) - exact
    assert error.square().mean() < most * usual.square().mean()


def test_weights_that_are_zero_stay_zero():
    weight = torch.randn(4, 12, 3, 3)
    weight[1] = 0
    rounded, units = round_weights(weight, error_shares(1, 2, glass=False))
    assert not rounded[1].any() and units.isfinite().all()


@needs_int8
@pytest.mark.parametrize("tile", [Tile(4, 4), Tile(3, 8), Tile(5, 4), Tile(2, 8)], ids=str)
def test_first_maps_are_those_of_whole_numbers(tile):
    """Sums are exact, so only the maps are rounded; samples that bytes do not hold are clamped."""
    height, row_blocks, channels, lanes = 6, 5, 8, 16
    picture = torch.rand(3, 2 * height, 2 * row_blocks * lanes) * 1.2 - 0.1
    weight = torch.randint(-127, 128, (2 * channels, 12, 3, 3)).double()
    one = torch.tensor([255.0, 255.0, 127.5])
    scales, bias = torch.rand(2 * channels) * 1e-5, torch.randn(2 * channels)
    plane = (row_blocks + tile.blocks + 2) * lanes
    planes = torch.zeros((height + 2) * 3 * plane + 4 * 6 * lanes, dtype=torch.int32)
    maps = [torch.zeros(height, row_blocks, channels // 2, lanes, 2).bfloat16() for _ in range(2)]
    kernels = Kernels(MACHINE)
    program = Program(kernels, 1)
    program.add(
        kernels.kernel(llvm_int8.fold_int8),
        [(0, height)] * 3,
        x=picture.unbind(),
        one=one.split(1),
        out=[planes[index * plane :] for index in range(3)],
        width=picture.shape[2],
        row=3 * plane,
        row_blocks=row_blocks,
    )
    program.add(
        kernels.kernel(llvm_int8.convolve_int8_to_maps, 3, channels, tile),
        [(0, 2), (2, height)],
        planes=planes,
        w=pack_int8(weight, Layout(MACHINE, tile.outputs)),
        scales=scales,
        bias=bias,
        out=maps[0],
        side=maps[1],
        plane=plane,
        row_blocks=row_blocks,
    )
    program.finish()
    program.run(None)
    levels = (picture * one[:, None, None]).double().clamp(0, 255).round()
    sums = convolved(levels[None], weight)[0]
    expected = sums * scales[:, None, None].double() + bias[:, None, None].double()
    found = torch.stack(maps).permute(0, 3, 5, 1, 2, 4).reshape(expected.shape)
    torch.testing.assert_close(found.double(), expected, rtol=1 / 256, atol=1e-6)


def nearest(matrix):
    """Weights rounded to eight bits, in units of each output."""
    units = matrix.abs().amax(1, keepdim=True) / 127
    return (matrix / units).round() * units


def rounded(x):
    """Pixels `[1, C, H, W]` whose channels are rounded to eight bits, in units of the largest."""
    units = x.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    return (x / units).round() * units


def multiplied(matrix, x):
    return F.conv2d(rounded(x), nearest(matrix)[:, :, None, None])


def halves(block, x):
    """A NAFBlock whose 1x1 convolutions are in int8, in float64."""

    def normed(convolution, norm, x):
        matrix = matrix_of(convolution) * norm.weight.double()
        centred = multiplied(matrix - matrix.mean(1, keepdim=True), x)
        scale = (x.var(1, unbiased=False, keepdim=True) + 1e-6).rsqrt()
        bias = convolution.bias.double() + matrix_of(convolution) @ norm.bias.double()
        return centred * scale + bias[:, None, None]

    def ended(convolution, factor, x):
        factor = factor.double().flatten()[:, None]
        bias = convolution.bias.double()[:, None] * factor
        return multiplied(matrix_of(convolution) * factor, x) + bias[:, :, None]

    wide = F.conv2d(
        normed(block.conv1, block.norm1, x),
        block.conv2.weight.double(),
        block.conv2.bias.double(),
        padding=1,
        groups=x.shape[1] * 2,
    )
    gated = block.gate(wide)
    mean = gated.mean((2, 3))[0]
    attention = matrix_of(block.sca[1]) @ mean + block.sca[1].bias.double()
    x = x + ended(block.conv3, block.beta, gated * attention[:, None, None])
    return x + ended(block.conv5, block.gamma, block.gate(normed(block.conv4, block.norm2, x)))


def filled(at, x):
    """A map of a resolution that holds `[C, H, W]`."""
    channels, height, width = x.shape
    of = at.take()
    padded = F.pad(x, (0, -width % 16)).reshape(channels // 2, 2, height, -1, 16)
    elements = padded.permute(2, 3, 0, 4, 1).bfloat16().contiguous().view(torch.int32).flatten()
    of.data[: len(elements)] = elements
    return of


def contents(of):
    """What a map holds, `[C, H, W]` float64."""
    elements = of.data[: of.blocks * of.channels // 2 * 16].view(torch.bfloat16)
    shape = (of.height, of.row_blocks, of.channels // 2, 16, 2)
    found = elements.reshape(shape).permute(2, 4, 0, 1, 3).flatten(0, 1).flatten(2)
    return found[..., : of.width].double()


def relative(found, expected):
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@needs_int8
@pytest.mark.parametrize("channels", [32, 64, 128])
@pytest.mark.parametrize("width", [16, 90])
def test_blocks_are_those_of_rounded_channels(channels, width):
    kernels = Kernels(MACHINE)
    program = Program(kernels, 2)
    layers, at = Layers(program, kernels), Resolution(MACHINE, channels, 8, width)
    network = make_network(width=channels, patch=2, frames=1, group_blocks=(1,) * 4)
    block = network.stage1.encoders[0][0]
    x = torch.randn(channels, 8, width).bfloat16().double()
    x[:, 2, 3] = 0
    found, mean = layers.naf_blocks(at, [block], filled(at, x))
    program.finish()
    program.run(None)
    assert at.is_int8
    expected = halves(block, x[None])[0]
    # 0.0017 of it comes of the map's bfloat16
    assert relative(contents(found), expected) < 0.0019
    assert relative(mean[:channels].double(), expected.mean((1, 2))) < 0.001


@needs_int8
@pytest.mark.parametrize("skip", [False, True])
def test_steps_up_are_those_of_rounded_channels(skip):
    kernels = Kernels(MACHINE)
    program = Program(kernels, 1)
    small, large = Resolution(MACHINE, 64, 4, 40), Resolution(MACHINE, 32, 8, 80)
    convolution = torch.nn.Conv2d(64, 128, 1, bias=False).requires_grad_(False)
    x = torch.randn(64, 4, 40).bfloat16().double()
    other = torch.randn(32, 8, 80).bfloat16().double() if skip else None
    out = large.take()
    Layers(program, kernels).double(
        small, large, convolution, filled(small, x), out, filled(large, other) if skip else None
    )
    program.finish()
    program.run(None)
    expected = F.pixel_shuffle(multiplied(matrix_of(convolution), x[None]), 2)[0]
    if skip:
        expected = expected + other
    assert relative(contents(out), expected) < 0.003


@needs_int8
def test_steps_down_are_those_of_rounded_channels():
    kernels = Kernels(MACHINE)
    program = Program(kernels, 1)
    large, small = Resolution(MACHINE, 32, 8, 80), Resolution(MACHINE, 64, 4, 40)
    convolution = torch.nn.Conv2d(32, 64, 2, stride=2).requires_grad_(False)
    x, out = torch.randn(32, 8, 80).bfloat16().double(), small.take()
    Layers(program, kernels).halve(large, small, convolution, filled(large, x), out)
    program.finish()
    program.run(None)
    squares = F.pixel_unshuffle(x[None], 2)
    expected = multiplied(convolution.weight.double().flatten(1), squares)[0]
    expected = expected + convolution.bias.double()[:, None, None]
    assert relative(contents(out), expected) < 0.003


@needs_int8
def test_a_pixel_that_is_no_number_stays_none():
    """The restorer restores such a frame by PyTorch."""
    network = make_network(width=16, patch=2, frames=1, group_blocks=(1,) * 4)
    network.stage1.encoders[2][0].conv4.bias[3] = float("nan")
    residual = LLVMEngine(network, MACHINE, 1).residual([torch.rand(3, 64, 96)])
    assert residual.isnan().any()


@needs_int8
@pytest.mark.parametrize("sizes", CONFIGS.values(), ids=CONFIGS)
def test_gives_what_the_network_gives(sizes):
    network = make_network(**sizes)
    window = torch.rand(1, 3 * network.config.pictures, 70, 101)
    compare(LLVMEngine(network, MACHINE, 2), network, window, False)


@needs_int8
def test_large_differences_on_the_glass_count():
    network = make_network(**CONFIGS["glass"])
    window = torch.rand(1, 3 * network.config.pictures, 64, 96)
    window[:, -3:] *= MOST_DIFFERENCE
    engine = LLVMEngine(network, MACHINE, 1)
    compare(engine, network, window, False)
    window[:, -3:, 20:40] = MOST_DIFFERENCE
    most = engine.residual(window[0].split(3)).clone()
    window[:, -3:, 20:40] = 2 * MOST_DIFFERENCE
    assert torch.equal(engine.residual(window.clone()[0].split(3)), most)


@needs_int8
def test_frames_look_the_same_in_every_slot():
    """A window that moves on rotates the weights, which are rounded once for all slots."""
    engine, fresh = (LLVMEngine(make_network(**CONFIGS["realtime"]), MACHINE, 1) for _ in range(2))
    fresh.network.load_state_dict(engine.network.state_dict())
    clip = [torch.rand(3, 64, 96) for _ in range(5)]
    for first in range(3):
        window = clip[first : first + 3]
        expected = fresh.residual([frame.clone() for frame in window])
        torch.testing.assert_close(engine.residual(window), expected, rtol=0, atol=0)


def test_only_where_it_pays():
    config = NetworkConfig(width=16, patch=2, frames=3)
    wide = {"lanes": 16, "registers": 32, "name": ""}
    assert starts_in_int8(Machine(**wide, bfloat16=True, int8=True), config)
    assert not starts_in_int8(Machine(**wide, bfloat16=True), config)
    plain = NetworkConfig(width=16, patch=1, frames=3)
    assert not starts_in_int8(Machine(**wide, bfloat16=True, int8=True), plain)


@needs_int8
def test_int8_goes_with_bfloat16(monkeypatch):
    assert not host_machine(tiles=False, int8=False).int8
    assert not host_machine(bfloat16=False).int8
    monkeypatch.setenv("MHNET_CPU_ISA", "avx512bf16")
    assert host_machine().int8
    monkeypatch.setenv("MHNET_CPU_ISA", "avx512")
    assert not host_machine().int8


def test_tiles_stay_in_bfloat16(monkeypatch):
    from mhnet_video.kernels import llvm_machine

    features = dict.fromkeys(
        ["avx512f", "avx512bw", "avx512vl", "avx512bf16", "avx512vnni", "amx-tile", "amx-bf16"],
        True,
    )
    monkeypatch.delenv("MHNET_CPU_ISA", raising=False)
    monkeypatch.setattr(llvm_machine.llvm, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(llvm_machine, "_tiles_granted", lambda: True)
    assert host_machine().tiles and not host_machine().int8
    assert host_machine(tiles=False).int8
    features["avx512vnni"] = False
    assert not host_machine(tiles=False).int8 and host_machine(tiles=False).bfloat16
