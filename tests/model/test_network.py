"""The network against a second, literal reading of its description, and its sizes."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mhnet_video.model.network import UNUSED, MHNet, NetworkConfig

PUBLISHED = json.loads((Path(__file__).parents[1] / "assets" / "mhnet_state_dict.json").read_text())
SMALL = NetworkConfig(width=8, encoder_blocks=(1, 1, 1, 2), group_blocks=(1, 2, 1, 1), heads=4)


def randomize(network):
    """Weights at which every branch counts: beta and gamma would start at zero."""
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.5 / max(1, parameter[0].numel()) ** 0.5)
    for name, parameter in network.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.data.add_(1)
    return network.eval()


def literal(state, image):
    """MHNet written out operation by operation, from a state dict of the published names."""

    def conv(name, x, **options):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)

    def norm(name, x):
        mean = x.mean(1, keepdim=True)
        variance = ((x - mean) ** 2).mean(1, keepdim=True)
        scaled = (x - mean) / torch.sqrt(variance + 1e-6)
        weight, bias = (state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
        return scaled * weight + bias

    def gate(x):
        half = x.shape[1] // 2
        return x[:, :half] * x[:, half:]

    def block(name, x):
        y = conv(f"{name}.conv1", norm(f"{name}.norm1", x))
        y = gate(conv(f"{name}.conv2", y, padding=1, groups=y.shape[1]))
        y = conv(f"{name}.conv3", y * conv(f"{name}.sca.1", F.adaptive_avg_pool2d(y, 1)))
        x = x + y * state[f"{name}.beta"]
        y = gate(conv(f"{name}.conv4", norm(f"{name}.norm2", x)))
        return x + conv(f"{name}.conv5", y) * state[f"{name}.gamma"]

    def blocks(name, x):
        index = 0
        while f"{name}.{index}.beta" in state:
            x, index = block(f"{name}.{index}", x), index + 1
        return x

    def attention(name, x):
        n, c, h, w = x.shape
        y = conv(f"{name}.qkv", x)
        y = conv(f"{name}.qkv_dwconv", y, padding=1, groups=3 * c)
        temperature = state[f"{name}.temperature"]
        heads = temperature.shape[0]
        q, k, v = (part.reshape(n, heads, c // heads, h * w) for part in y.split(c, dim=1))
        q = q / q.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        k = k / k.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        scores = torch.einsum("nhcp,nhdp->nhcd", q, k) * temperature
        out = 0
        for number, share in enumerate((1 / 2, 2 / 3, 3 / 4, 4 / 5), start=1):
            kept = int((c // heads) * share)
            largest = scores.topk(kept, dim=-1).indices
            mask = torch.zeros_like(scores).scatter(-1, largest, 1.0)
            probability = scores.masked_fill(mask == 0, -math.inf).softmax(dim=-1)
            out = out + (probability @ v) * state[f"{name}.attn{number}"]
        return conv(f"{name}.project_out", out.reshape(n, c, h, w))

    def up(name, x):
        return F.pixel_shuffle(conv(name, x), 2)

    def fuse(name, inputs):
        summary = gate(conv(f"{name}.conv_du.0", F.adaptive_avg_pool2d(sum(inputs), 1)))
        return sum(
            x * torch.softmax(conv(f"{name}.fcs.{index}", summary), dim=1)
            for index, x in enumerate(inputs)
        )

    height, width = image.shape[-2:]
    padded = F.pad(image, (0, (16 - width % 16) % 16, 0, (16 - height % 16) % 16))
    x = conv("stage1.intro", padded, padding=1)
    encoded, decoded = [], []
    for level in range(4):
        encoded.append(blocks(f"stage1.encoders.{level}", x))
        x = conv(f"stage1.downs.{level}", encoded[-1], stride=2)
    x = attention("stage1.middle_blks.0", x)
    for level in range(4):
        x = up(f"stage1.ups.{level}.0", x) + encoded[3 - level]
        x = blocks(f"stage1.decoders.{level}", x)
        decoded.insert(0, x)
    x = conv("concat12", torch.cat([conv("intro2", padded, padding=1), decoded[0]], 1))
    for group in range(4):
        low, high = encoded[group], decoded[group]
        chains = {
            0: [],
            1: [".up.0"],
            2: [".0.up.0", ".1.up.0"],
            3: [".0.up.0", ".1.up.0", ".2.up.0"],
        }
        for link in chains[group]:
            low = up(f"stage2.up_enc{group}{link}", low)
            high = up(f"stage2.up_dec{group}{link}", high)
        x = norm(f"stage2.norm{group + 1}", x)
        x = x + blocks(f"stage2.CABG{group + 1}", x)
        features = [x, conv(f"stage2.conv_enc{group + 1}", low), conv("stage2.conv_dnc1", high)]
        x = fuse(f"stage2.skff{group + 1}", features)
    return image + conv("ending", x, padding=1)[..., :height, :width]


@pytest.mark.parametrize("size", [(32, 48), (16, 16), (37, 53), (1, 1), (1, 40), (17, 2)], ids=str)
def test_network_is_its_description(size):
    network = randomize(MHNet(SMALL)).double()
    image = torch.rand(2, 3, *size).double()
    # one pixel at the lowest level makes all scores plus or minus one: which of equals are the
    # largest is then anybody's choice
    tolerance = 1e-3 if max(size) <= 16 else 1e-7
    with torch.inference_mode():
        torch.testing.assert_close(
            network(image), literal(network.state_dict(), image), rtol=tolerance, atol=tolerance
        )


def test_published_sizes_and_names():
    with torch.device("meta"):
        network = MHNet()
    ours = {name: list(value.shape) for name, value in network.state_dict().items()}
    used = {name: shape for name, shape in PUBLISHED.items() if not UNUSED.fullmatch(name)}
    assert ours == used
    unused = sum(math.prod(PUBLISHED[name]) for name in PUBLISHED.keys() - used.keys())
    assert sum(value.numel() for value in network.parameters()) + unused == 67_543_311


def test_published_arithmetic():
    """125.8 GMACs at 256x256, counted on shapes alone."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network, image = MHNet(), torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() / 2e9 == pytest.approx(125.8, abs=0.15)


def test_sizes_are_read_off_the_shapes():
    assert NetworkConfig.from_shapes(PUBLISHED) == NetworkConfig()
    for config in (
        SMALL,
        NetworkConfig(
            width=16, encoder_blocks=(1, 1, 1, 4), group_blocks=(1,) * 4, patch=2, frames=3
        ),
        NetworkConfig(width=24, encoder_blocks=(0, 2, 1, 0), frames=5, heads=2),
    ):
        shapes = {name: value.shape for name, value in MHNet(config).state_dict().items()}
        assert NetworkConfig.from_shapes(shapes) == config


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 64), (47, 33)], ids=str)
def test_windows_and_patches(size, frames, patch):
    config = NetworkConfig(
        width=8, encoder_blocks=(1,) * 4, group_blocks=(1,) * 4, frames=frames, patch=patch
    )
    network = randomize(MHNet(config))
    x = torch.rand(1, 3 * frames, *size)
    with torch.inference_mode():
        restored = network(x)
        middle = x[:, 3 * (frames // 2) :][:, :3]
        torch.testing.assert_close(restored, middle + network.residual(x))
    assert restored.shape == (1, 3, *size)
    assert not torch.equal(restored, middle)


def test_zero_output_convolution_is_the_identity_on_the_middle_frame():
    network = MHNet(
        NetworkConfig(width=8, encoder_blocks=(1,) * 4, group_blocks=(1,) * 4, frames=3, patch=2)
    )
    torch.nn.init.zeros_(network.ending.weight)
    x = torch.rand(1, 9, 19, 23)
    with torch.inference_mode():
        assert torch.equal(network(x), x[:, 3:6])


def test_gradients_reach_every_parameter():
    network = randomize(MHNet(SMALL))
    network(torch.rand(1, 3, 32, 32)).square().mean().backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match=r"expected x \[N, 3, H, W\]"):
        MHNet(SMALL)(torch.rand(1, 9, 16, 16))
    with pytest.raises(ValueError, match="odd"):
        NetworkConfig(frames=2)
    with pytest.raises(ValueError, match="no network of these sizes"):
        NetworkConfig(width=3, heads=7)
