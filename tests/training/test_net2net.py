"""A larger network that begins as a smaller one."""

import pytest
import torch

from mhnet_video.errors import ConfigError
from mhnet_video.model.network import MHNet, NetworkConfig, SelectiveAttention
from mhnet_video.training.net2net import grow

SMALL = {"width": 8, "heads": 2, "frames": 3, "patch": 2}
BLOCKS = {
    "encoder_blocks": (1, 1, 1, 2),
    "decoder_blocks": (1, 1, 1, 1),
    "group_blocks": (1, 1, 1, 1),
}


def alive(config):
    """A network none of whose parameters is at rest, as after training."""
    torch.manual_seed(0)
    network = MHNet(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def test_a_grown_network_computes_the_same(monkeypatch):
    # shares that divide evenly, twice over
    monkeypatch.setattr(SelectiveAttention, "SHARES", ((1, 2), (1, 4), (3, 4), (1, 2)))
    small = alive(NetworkConfig(**SMALL, **BLOCKS))
    sizes = {"width": 32, "heads": 2, "frames": 5, "patch": 2}
    blocks = {**BLOCKS, "encoder_blocks": (1, 2, 1, 4), "group_blocks": (2, 1, 1, 1)}
    large = grow(small, NetworkConfig(**sizes, **blocks))
    window = torch.rand(2, 15, 50, 34)
    with torch.no_grad():
        narrow, wide = small.residual(window[:, 3:12]), large.residual(window)
        torch.testing.assert_close(wide, narrow, rtol=1e-3, atol=1e-4 * float(narrow.abs().max()))
        # what are twins at first is told apart by its gradients
    large.residual(window).square().mean().backward()
    first, second = large.stage2.CABG1[0].conv1.weight.grad[:2]
    assert not torch.allclose(first, second, rtol=1e-3)


def test_the_same_sizes_give_the_same_network():
    small = alive(NetworkConfig(**SMALL, **BLOCKS))
    again = grow(small, small.config)
    for name, value in small.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert all(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 12},
        {"width": 4},
        {"frames": 1},
        {"patch": 1},
        {"encoder_blocks": (1, 1, 1, 1)},
        {"width": 48},  # the fusion's gate would have three channels for two
    ],
)
def test_sizes_that_cannot_be_reached_are_refused(changes):
    small = MHNet(
        NetworkConfig(**{**SMALL, **BLOCKS, "width": 16 if 48 in changes.values() else 8})
    )
    with pytest.raises(ConfigError, match="cannot begin a network of"):
        grow(small, NetworkConfig(**{**SMALL, **BLOCKS, **changes}))


def test_aligned_frames_stay_aligned():
    sizes = {"width": 8, "encoder_blocks": (1, 0, 0, 0), "group_blocks": (0,) * 4, "frames": 3}
    aligned = NetworkConfig(**sizes, align=True)
    with pytest.raises(ConfigError, match="--align"):
        grow(MHNet(aligned), NetworkConfig(**sizes))
    assert grow(MHNet(NetworkConfig(**sizes)), aligned).config == aligned
