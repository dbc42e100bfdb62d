"""The arithmetic of a network, against one that is run."""

import pytest
import torch
from torch import nn

from mhnet_video.model.cost import count_bytes, count_macs
from mhnet_video.model.network import MHNet, NetworkConfig, SelectiveAttention

REALTIME = NetworkConfig(
    width=16, encoder_blocks=(1, 1, 1, 4), group_blocks=(1, 1, 1, 1), frames=3, patch=2
)


def run_and_count(config, height, width):
    """Multiplications seen while a network of that size runs on tensors without data."""
    total = 0

    def convolution(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    def attention(module, inputs, output):
        nonlocal total
        (x,) = inputs
        batch, channels, height, width = x.shape
        total += 2 * batch * channels * (channels // module.heads) * height * width

    with torch.device("meta"):
        network = MHNet(config).eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(convolution)
            elif isinstance(module, SelectiveAttention):
                module.register_forward_hook(attention)
        network(torch.zeros(1, 3 * config.frames, height, width))
    return total


@pytest.mark.parametrize(
    ("config", "height", "width"),
    [
        (NetworkConfig(), 256, 256),
        (REALTIME, 480, 640),
        (REALTIME, 270, 481),
        (NetworkConfig(width=24, encoder_blocks=(2, 0, 1, 3), decoder_blocks=(1, 2, 3, 0),
                       group_blocks=(2, 0, 1, 3), heads=4, frames=5), 33, 17),
    ],
    ids=["paper", "realtime", "padded", "uneven"],
)  # fmt: skip
def test_multiplications_are_those_of_the_network(config, height, width):
    assert count_macs(config, height, width) == run_and_count(config, height, width)


def test_the_papers_network_costs_what_was_published():
    assert count_macs(NetworkConfig(), 256, 256) / 1e9 == pytest.approx(125.8, abs=0.1)


def test_bytes_grow_with_blocks_pixels_and_elements():
    one = NetworkConfig(width=8, encoder_blocks=(1, 0, 0, 0), group_blocks=(1, 1, 1, 1))
    two = NetworkConfig(width=8, encoder_blocks=(2, 0, 0, 0), group_blocks=(1, 1, 1, 1))
    full_map = 8 * 64 * 64
    more = count_bytes(two, 64, 64, 2) - count_bytes(one, 64, 64, 2)
    assert more == 5 * full_map * 2
    assert count_bytes(one, 128, 64, 2) == 2 * count_bytes(one, 64, 64, 2)
    pictures = 6 * 64 * 64 * 4
    assert count_bytes(one, 64, 64, 4) == 2 * count_bytes(one, 64, 64, 2) - pictures
    assert count_bytes(one, 49, 50, 2) == count_bytes(one, 64, 64, 2)
