"""What each operation on channels-last maps means, in plain PyTorch. Simple and right.

Nothing here imports another module of this folder: a kernel is judged by this file.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHARES = ((1, 2), (2, 3), (3, 4), (4, 5))


def normalize(x: Tensor, eps: float) -> Tensor:
    """Remove the mean of each pixel's channels and divide by their deviation."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution, with weights for all pictures or for each."""
    return torch.einsum("nhwk,nmk->nhwm" if weight.ndim == 3 else "nhwk,mk->nhwm", x, weight)


def _gated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return first * second


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: bool,
    gate: bool,
    gain: Tensor | None,
    residuals: Sequence[Tensor],
    eps: float,
) -> Tensor:
    """A 1x1 convolution with what stands around it."""
    x = normalize(x, eps) if norm else x
    x = x if gain is None else x * gain[:, None, None]
    x = _product(x, weight)
    x = x if bias is None else x + bias
    x = _gated(x) if gate else x
    for each in residuals:
        x = x + each
    return x


def statistics(x: Tensor, size: int) -> Tensor:
    """Mean of each pixel's channels, `size` at a time, and the sum of the squares around it."""
    found = []
    for part in x.split(size, 3):
        mean = part.mean(3)
        found.append(torch.stack([mean, (part - mean[..., None]).square().sum(3)], 1))
    return torch.stack(found, 1)


def halve(x: Tensor) -> Tensor:
    """Two by two pixels as one: top left, top right, bottom left, bottom right."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def double(x: Tensor) -> Tensor:
    """One pixel as two by two, the other way round."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, gate: bool) -> Tensor:
    """A 3x3 convolution of each channel by itself, zeros around the picture."""
    channels = x.shape[-1]
    kernel = weight.t().reshape(channels, 1, 3, 3)
    x = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=1, groups=channels)
    x = x.permute(0, 2, 3, 1)
    return _gated(x) if gate else x


def conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution, zeros around the picture."""
    kernel = weight.permute(1, 2, 0).reshape(*weight.shape[1:], 3, 3)
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=1).permute(0, 2, 3, 1)


def block_front(x: Tensor, weight: Tensor, tap_bias: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm, 3x3 convolution with a bias that each pixel of the picture brings, and gate."""
    ones = torch.ones_like(x[..., :1])
    x = conv(normalize(x, eps), weight, bias) + conv(ones, tap_bias[..., None], None)
    return _gated(x)


def block_back(
    gated: Tensor,
    x: Tensor,
    gain: Tensor,
    weights: Sequence[Tensor],
    more: Tensor | None,
    eps: float,
) -> Tensor:
    """The second half of a NAFBlock."""
    w3, b3, w4, b4, w5, b5 = weights
    x = linear(gated, w3, b3, False, False, gain, [x], eps)
    mixed = linear(x, w4, b4, True, True, None, [], eps)
    return linear(mixed, w5, b5, False, False, None, [x] if more is None else [x, more], eps)


def attention(maps: Tensor, temperature: Tensor, gains: Tensor) -> Tensor:
    """The matrix that selective attention multiplies v by. Source: Gao and Dang, section 3.3."""
    batch, height, width, channels = maps.shape
    heads = temperature.shape[0]
    maps = maps.reshape(batch, height * width, 3, heads, channels // 3 // heads)
    q, k = (F.normalize(maps[:, :, i].permute(0, 2, 3, 1), dim=-1) for i in (0, 1))
    scores = q @ k.transpose(-2, -1) * temperature[:, None, None]
    size = scores.shape[-1]
    # of equals the first counts as larger
    order = scores.argsort(dim=-1, descending=True, stable=True)
    result = torch.zeros_like(scores)
    for (part, whole), gain in zip(SHARES, gains, strict=True):
        kept = size * part // whole
        if kept:
            chosen = torch.full_like(scores, -torch.inf)
            index = order[..., :kept]
            chosen.scatter_(-1, index, scores.gather(-1, index))
            result = result + gain * chosen.softmax(dim=-1)
    return result


def project(combined: Tensor, last: Tensor) -> Tensor:
    """A 1x1 convolution behind the product with the attention, as one matrix for each picture."""
    return torch.einsum("hci,nhij->nchj", last, combined).flatten(2)


def shares(
    mean: Tensor,
    low: Tensor,
    high: Tensor,
    low_matrix: Tensor,
    high_matrix: Tensor,
    squeeze: Tensor,
    expand: Tensor,
) -> Tensor:
    """The weights of the three maps of a fusion."""
    total = mean + low @ low_matrix.t() + high @ high_matrix.t()
    summary = _gated(total @ squeeze.t())
    return torch.einsum("scr,nr->nsc", expand, summary).softmax(dim=-1)


def fuse(
    x: Tensor,
    low: Tensor,
    high: Tensor | None,
    low_weight: Tensor,
    high_weight: Tensor | None,
    shares: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
) -> Tensor:
    """The weighted sum of three maps, two of them through 1x1 convolutions, and LayerNorm."""
    maps = [x, _product(low, low_weight)]
    if high is not None and high_weight is not None:
        maps.append(_product(high, high_weight))
    if low.shape[1] != x.shape[1]:
        maps[1:] = [double(each) for each in maps[1:]]
    if shares is not None:
        maps = [each * shares[:, i, None, None] for i, each in enumerate(maps)]
    x = torch.stack(maps).sum(0)
    if scale is None or shift is None:
        return x
    return normalize(x, eps) * scale + shift


def unfold(x: Tensor, patch: int) -> Tensor:
    """Folded frames as pictures, `[N, T, 3, H, W]`."""
    return F.pixel_shuffle(x.permute(0, 3, 1, 2), patch).unflatten(1, (-1, 3))


def shrunken_luma(x: Tensor, patch: int, shrink: int, luma: tuple[float, float, float]) -> Tensor:
    """The mean luma of squares of pixels, that of the middle frame first."""
    pictures = torch.einsum("ntchw,c->nthw", unfold(x, patch), x.new_tensor(luma))
    half = pictures.shape[1] // 2
    before, middle, after = pictures.split([half, 1, half], 1)
    return F.avg_pool2d(torch.cat([middle, before, after], 1), shrink)


def move(x: Tensor, motion: Tensor, patch: int, shrink: int, same: float, unlike: float) -> Tensor:
    """Sample frames where a motion says, beyond their edges the edge, but for still pixels."""
    pictures = unfold(x, patch)
    _, frames, _, height, width = pictures.shape
    middle = frames // 2
    moved = pictures.clone()
    rows = torch.arange(height, device=x.device)[:, None]
    columns = torch.arange(width, device=x.device)
    for index, number in enumerate(i for i in range(frames) if i != middle):
        offset = shrink * F.interpolate(motion[:, index], (height, width), mode="bilinear")
        position = torch.stack([columns + offset[:, 0], rows + offset[:, 1]], -1)
        position = (2 * position + 1) / position.new_tensor([width, height]) - 1
        here = pictures[:, number]
        there = F.grid_sample(here, position, padding_mode="border", align_corners=False)
        difference = (here - pictures[:, middle]).abs().amax(1, keepdim=True)
        share = ((difference - same) / (unlike - same)).clamp(0, 1)
        moved[:, number] = here + share * (there - here)
    return F.pixel_unshuffle(moved.flatten(1, 2), patch).permute(0, 2, 3, 1)
