"""Net2Net growth: a larger network initialized from a trained smaller one."""

import re

import torch
from torch import Tensor

from mhnet_video.errors import ConfigError
from mhnet_video.model.network import MHNet, NetworkConfig

_SHUFFLED = re.compile(r"stage1\.ups\.|\.up\.0\.weight$")
"""Weights of convolutions before a pixel shuffle, which makes one channel of four outputs."""
_COPIED = re.compile(r"\.temperature$|\.attn[1-4]$")
"""Parameters whose size does not depend on the width."""


def grow(network: MHNet, config: NetworkConfig) -> MHNet:
    """Build a larger network that computes what a smaller one does.

    Every channel is copied several times. The layers that read it distribute their weights over
    the copies at random, so that training can separate them. Added blocks and frames have no
    effect at first. The result differs slightly where the attention's top-k share of channels is
    not a whole number. Source: Chen, Goodfellow and Shlens, "Net2Net", ICLR 2016.

    Args:
        network: The smaller network.
        config: Sizes of the larger network: a multiple of the width, and at least as many blocks
            and frames. Patch and heads must be the same.

    Returns:
        A new network, on the CPU, with gradients.

    Raises:
        ConfigError: The smaller network cannot grow to these sizes.
    """
    old = network.config
    times, rest = divmod(config.width, old.width)
    counts = ("encoder_blocks", "decoder_blocks", "group_blocks")
    fits = not rest and (config.patch, config.heads) == (old.patch, old.heads)
    fits &= config.frames >= old.frames and config.glass >= old.glass
    if old.align and not config.align:
        raise ConfigError("weights of a network of aligned frames begin such a one: take --align")
    for name in counts:
        fits &= all(a >= b for a, b in zip(getattr(config, name), getattr(old, name), strict=True))
    larger = MHNet(config)
    source = {name: value.detach().float().cpu() for name, value in network.state_dict().items()}
    grown = larger.state_dict()
    for name, value in source.items():
        if not fits:
            break
        if _COPIED.search(name):
            grown[name] = value
        elif value.shape[0] == 1:  # beta and gamma of a block, [1, C, 1, 1]
            grown[name] = _repeat(value, 1, grown[name].shape[1])
        elif value.ndim == 4:
            reads_frames = name in ("intro2.weight", "stage1.intro.weight")
            if reads_frames:
                value = _more_frames(value, old, config)
            fits &= not (grown[name].shape[0] % value.shape[0])
            value = _repeat_outputs(value, grown[name].shape[0], bool(_SHUFFLED.search(name)))
            if not reads_frames and value.shape[1] > 1:
                value = _share_inputs(value, grown[name].shape[1])
            if name == "ending.weight":  # the last fusion's softmax divides by more channels
                value = value * times
            grown[name] = value
        else:
            grown[name] = _repeat(value, 0, grown[name].shape[0])
    if not fits:
        raise ConfigError(
            f"weights of {_sizes(old)} cannot begin a network of {_sizes(config)}: the width must "
            "be a multiple, blocks and frames as many or more, the patch the same"
        )
    larger.load_state_dict(grown)
    return larger


def _sizes(config: NetworkConfig) -> str:
    """The sizes of a network, for a message."""
    blocks = config.encoder_blocks, config.decoder_blocks, config.group_blocks
    return (
        f"width {config.width}, blocks {' '.join(map(str, blocks))}, frames {config.frames}, "
        f"patch {config.patch}"
    )


def _repeat(value: Tensor, dim: int, size: int) -> Tensor:
    """Repeat each entry of a dimension in succession, up to `size` entries."""
    return value.repeat_interleave(size // value.shape[dim], dim)


def _repeat_outputs(value: Tensor, size: int, shuffled: bool) -> Tensor:
    """Repeat output channels: `[O, I, h, w]` to `[size, I, h, w]`."""
    if shuffled:
        groups = value.reshape(-1, 4, *value.shape[1:])
        return _repeat(groups, 0, size // 4).flatten(0, 1)
    return _repeat(value, 0, size)


def _share_inputs(value: Tensor, size: int) -> Tensor:
    """Split input weights into random shares: `[O, I, h, w]` to `[O, size, h, w]`.

    The shares of a weight add up to it.
    """
    times = size // value.shape[1]
    if times == 1:
        return value
    outputs, inputs = value.shape[:2]
    shares = torch.rand(outputs, inputs, times) + 0.25
    shares = (shares / shares.sum(dim=2, keepdim=True)).flatten(1)
    return value.repeat_interleave(times, 1) * shares[:, :, None, None]


def _more_frames(value: Tensor, old: NetworkConfig, new: NetworkConfig) -> Tensor:
    """Pad the inputs of `[O, I, h, w]` with zeros for the added pictures."""
    per_picture = 3 * old.patch**2
    zeros = value.new_zeros(
        value.shape[0], (new.frames - old.frames) // 2 * per_picture, *value.shape[2:]
    )
    edge = per_picture * old.glass
    before, frames, after = value.tensor_split([edge, value.shape[1] - edge], dim=1)
    if new.glass and not old.glass:
        before = after = value.new_zeros(value.shape[0], per_picture, *value.shape[2:])
    return torch.cat([before, zeros, frames, zeros, after], dim=1)
