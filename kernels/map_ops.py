"""The network's operations on channels-last maps: their contracts, and kernel or reference.

A map is `[N, H, W, C]`, float16, bfloat16 or float32, contiguous unless said otherwise; weights of
large products have the maps' type, everything else is float32. Sums are kept in float32. Every
operation can write into a tensor passed as `out`; these are for inference and have no gradient.

With LayerNorm before a product, the norm's own weight and bias stand in the product's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mhnet_video.kernels import map_reference as reference
from mhnet_video.kernels.dispatch import expect, use_triton

EPS = 1e-6


def _put(result: Tensor, out: Tensor | None) -> Tensor:
    return result.contiguous() if out is None else out.copy_(result)


def _total(result: Tensor, sums: Tensor | None) -> None:
    """Put the sums of a map where a kernel puts them in parts."""
    if sums is not None:
        sums.zero_()
        sums[:, 0] = result.float().sum((1, 2))


def _describe(result: Tensor, statistics: Tensor | None) -> None:
    """Put the statistics of a map where a kernel puts them."""
    if statistics is not None:
        from mhnet_video.kernels.linear_kernel import part_channels

        statistics.copy_(reference.statistics(result.float(), part_channels(result.element_size())))


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: bool = False,
    weight_sums: Tensor | None = None,
    gate: bool = False,
    gain: Tensor | None = None,
    residuals: Sequence[Tensor] = (),
    sums: Tensor | None = None,
    statistics: Tensor | None = None,
    statistics_out: Tensor | None = None,
    out: Tensor | None = None,
    eps: float = EPS,
) -> Tensor:
    """Apply a 1x1 convolution, with LayerNorm or a gain before it, gate and residuals after it.

    Args:
        x: `[N, H, W, K]`; a slice of the channels of a larger map will do.
        weight: `[M, K]`, `[2M, K]` with a gate, or one for each picture, `[N, M, K]`.
        bias: `[M]` or `[2M]` float32.
        norm: Whether each pixel is normalized first; not with weights for each picture, nor sums.
        weight_sums: From `linear_weight_sums`, for `norm`; computed in every call if None.
        gate: Whether the two halves of the outputs are multiplied.
        gain: `[N, K]` float32, multiplies the inputs.
        residuals: Up to two maps to add, like the result.
        sums: Where to put partial sums of the result, from `linear_sums`.
        statistics: Of `x`, for `norm`, as another call has put them; computed if None.
        statistics_out: Where to put those of the result, from `linear_statistics_room`.
        out: `[N, H, W, M]`.
        eps: Added to the variance.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = x.ndim == 4 and x.shape[3] == weight.shape[-1]
    fits = fits and not (norm and (weight.ndim == 3 or sums is not None))
    expect(fits, "x [N, H, W, K], weight", x, weight)
    if statistics is not None:
        fits = norm and statistics.shape == linear_statistics_room(x).shape
        expect(fits, "statistics [N, parts, 2, H, W] with norm", statistics, x)
    if not use_triton(x, weight):
        converted = None if bias is None else bias.to(x.dtype)
        gain = None if gain is None else gain.to(x.dtype)
        result = reference.linear(x, weight, converted, norm, gate, gain, residuals, eps)
        _total(result, sums)
        _describe(result, statistics_out)
        return _put(result, out)
    from mhnet_video.kernels.linear_kernel import launch_linear

    if out is None:
        out = x.new_empty(*x.shape[:3], weight.shape[-2] // (2 if gate else 1))
    if norm and weight_sums is None:
        weight_sums = linear_weight_sums(weight)
    launch_linear(
        x,
        weight,
        bias,
        out,
        weight_sums=weight_sums if norm else None,
        eps=eps,
        gate=gate,
        gain=gain,
        residuals=tuple(residuals),
        sums=sums,
        statistics=statistics,
        statistics_out=statistics_out,
    )
    return out


def linear_statistics_room(out: Tensor) -> Tensor:
    """Room for what a LayerNorm of a map needs: `[N, parts, 2, H, W]` float32.

    For each part of the channels, a pixel's mean and the sum of its squares around that.
    """
    from mhnet_video.kernels.linear_kernel import empty_statistics

    return empty_statistics(out)


def linear_weight_sums(weight: Tensor) -> Tensor:
    """The sum of each row of a weight: what a product has too much of before its mean is removed.

    Args:
        weight: `[M, K]`, rounded to the maps' type already, so that it cancels exactly.

    Returns:
        `[M]` float32.
    """
    return weight.float().sum(1)


def linear_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a result of `linear`, `[N, parts, M]` float32."""
    from mhnet_video.kernels.linear_kernel import empty_sums

    return empty_sums(out)


def halve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    statistics_out: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Apply a 2x2 convolution with stride 2.

    Args:
        x: `[N, 2H, 2W, C]`.
        weight: `[M, 4C]`, inputs in the order top left, top right, bottom left, bottom right.
        bias: `[M]` float32.
        statistics_out: As for `linear`.
        out: `[N, H, W, M]`.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = x.shape[1] % 2 == x.shape[2] % 2 == 0 and weight.shape[1] == 4 * x.shape[3]
    expect(fits, "x [N, 2H, 2W, C], weight [M, 4C]", x, weight)
    if not use_triton(x, weight):
        converted = None if bias is None else bias.to(x.dtype)
        x = reference.halve(x)
        result = reference.linear(x, weight, converted, False, False, None, [], EPS)
        _describe(result, statistics_out)
        return _put(result, out)
    from mhnet_video.kernels.linear_kernel import HALVE, launch_linear

    if out is None:
        out = x.new_empty(x.shape[0], x.shape[1] // 2, x.shape[2] // 2, weight.shape[0])
    launch_linear(x, weight, bias, out, mode=HALVE, statistics_out=statistics_out)
    return out


def double(
    x: Tensor, weight: Tensor, skip: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """Apply a 1x1 convolution and a pixel shuffle by 2, and add a map.

    Args:
        x: `[N, H, W, K]`.
        weight: `[4M, K]`, outputs in the order top left, top right, bottom left, bottom right.
        skip: `[N, 2H, 2W, M]`.
        out: `[N, 2H, 2W, M]`.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = x.shape[3] == weight.shape[1] and weight.shape[0] % 4 == 0
    expect(fits, "x [N, H, W, K], weight [4M, K]", x, weight)
    if not use_triton(x, weight):
        result = reference.double(reference.linear(x, weight, None, False, False, None, [], EPS))
        return _put(result if skip is None else result + skip, out)
    from mhnet_video.kernels.linear_kernel import DOUBLE, launch_linear

    if out is None:
        out = x.new_empty(x.shape[0], 2 * x.shape[1], 2 * x.shape[2], weight.shape[0] // 4)
    residuals = () if skip is None else (skip,)
    launch_linear(x, weight, None, out, mode=DOUBLE, residuals=residuals)
    return out


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    gate: bool = False,
    sums: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Apply a depthwise 3x3 convolution, and multiply the halves of its channels.

    Args:
        x: `[N, H, W, C]`, or `[N, H, W, 2C]` with a gate.
        weight: `[9, C]` or `[9, 2C]` float32, row by row.
        bias: `[C]` or `[2C]` float32.
        gate: Whether the two halves of the channels are multiplied.
        sums: Where to put partial sums of the result, from `depthwise_sums`.
        out: `[N, H, W, C]`.

    Raises:
        ValueError: A shape does not fit.
    """
    expect(weight.shape == (9, x.shape[3]), "x [N, H, W, C], weight [9, C]", x, weight)
    if not use_triton(x, weight):
        converted = None if bias is None else bias.to(x.dtype)
        result = reference.depthwise(x, weight.to(x.dtype), converted, gate)
        _total(result, sums)
        return _put(result, out)
    from mhnet_video.kernels.depthwise_kernel import launch_depthwise

    if out is None:
        out = x.new_empty(*x.shape[:3], x.shape[3] // (2 if gate else 1))
    launch_depthwise(x, weight, bias, out, gate=gate, sums=sums)
    return out


def depthwise_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a result of `depthwise`, `[N, parts, C]` float32."""
    from mhnet_video.kernels.depthwise_kernel import empty_sums

    return empty_sums(out)


def conv_to_maps(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    out: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Apply a 3x3 convolution whose outputs are two maps.

    Args:
        x: `[N, H, W, K]`.
        weight: `[9, 2M, K]`, row by row.
        bias: `[2M]` float32.
        out: Two maps `[N, H, W, M]`.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = weight.shape[::2] == (9, x.shape[3]) and weight.shape[1] % 2 == 0
    expect(fits, "x [N, H, W, K], weight [9, 2M, K]", x, weight)
    num_outputs = weight.shape[1] // 2
    if out is None:
        out = (x.new_empty(*x.shape[:3], num_outputs), x.new_empty(*x.shape[:3], num_outputs))
    if not use_triton(x, weight):
        converted = None if bias is None else bias.to(x.dtype)
        for each, part in zip(out, reference.conv(x, weight, converted).chunk(2, -1), strict=True):
            each.copy_(part)
        return out
    from mhnet_video.kernels.conv_kernel import launch_conv

    launch_conv(x, weight, bias, *out)
    return out


def conv_to_picture(x: Tensor, weight: Tensor, patch: int, *, out: Tensor | None = None) -> Tensor:
    """Apply a 3x3 convolution and a pixel shuffle that ends in pictures.

    Args:
        x: `[N, H, W, K]`.
        weight: `[9, 3 * patch**2, K]`, row by row.
        patch: How much larger the pictures' sides are.
        out: `[N, 3, H * patch, W * patch]` float32.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = weight.shape == (9, 3 * patch * patch, x.shape[3])
    expect(fits, "x [N, H, W, K], weight [9, 3 * patch**2, K]", x, weight)
    batch, height, width, _ = x.shape
    if out is None:
        size = (batch, 3, height * patch, width * patch)
        out = torch.empty(size, dtype=torch.float32, device=x.device)
    if not use_triton(x, weight):
        maps = reference.conv(x, weight, None).permute(0, 3, 1, 2)
        return out.copy_(torch.nn.functional.pixel_shuffle(maps, patch))
    from mhnet_video.kernels.conv_kernel import launch_conv

    launch_conv(x, weight, None, out, patch=patch)
    return out


def block_front(
    x: Tensor,
    weight: Tensor,
    tap_bias: Tensor,
    bias: Tensor,
    *,
    sums: Tensor | None = None,
    out: Tensor | None = None,
    eps: float = EPS,
) -> Tensor:
    """Do the first half of a NAFBlock in one pass: LayerNorm, 1x1, depthwise 3x3 and gate.

    Args:
        x: `[N, H, W, C]`.
        weight: `[9, 2C, C]`: for each tap, the rows of the 1x1 times those of the depthwise one.
        tap_bias: `[9, 2C]` float32: the bias of the 1x1 times the taps.
        bias: `[2C]` float32, of the depthwise convolution.
        sums: Where to put partial sums of the result, from `block_front_sums`.
        out: `[N, H, W, C]`.
        eps: Added to the variance.

    Raises:
        ValueError: A shape does not fit.
    """
    fits = weight.shape == (9, 2 * x.shape[3], x.shape[3])
    expect(fits, "x [N, H, W, C], weight [9, 2C, C]", x, weight)
    if not use_triton(x, weight):
        dtype = x.dtype
        result = reference.block_front(x, weight, tap_bias.to(dtype), bias.to(dtype), eps)
        _total(result, sums)
        return _put(result, out)
    from mhnet_video.kernels.conv_kernel import launch_conv

    out = torch.empty_like(x) if out is None else out
    launch_conv(x, weight, bias, out, gate=True, tap_bias=tap_bias, eps=eps, sums=sums)
    return out


def block_front_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a result of `block_front`, `[N, parts, C]` float32."""
    from mhnet_video.kernels.conv_kernel import empty_sums

    return empty_sums(out)


def block_front_rows(
    x: Tensor,
    weight: Tensor,
    weight_bias: Tensor,
    taps: Tensor,
    bias: Tensor,
    *,
    sums: Tensor | None = None,
    out: Tensor | None = None,
    eps: float = EPS,
) -> Tensor:
    """Do what `block_front` does, with a third of its arithmetic, row by row.

    Args:
        x: `[N, H, W, C]`.
        weight: `[2C, C]`, of the 1x1.
        weight_bias: `[2C]` float32, likewise.
        taps: `[9, 2C]` float32, of the depthwise convolution, row by row.
        bias: `[2C]` float32, likewise.
        sums: Where to put partial sums of the result, from `block_front_rows_sums`.
        out: `[N, H, W, C]`; not `x`.
        eps: Added to the variance.

    Raises:
        ValueError: A shape does not fit.
    """
    channels = x.shape[3]
    fits = weight.shape == (2 * channels, channels) and taps.shape == (9, 2 * channels)
    expect(fits, "x [N, H, W, C], weight [2C, C], taps [9, 2C]", x, weight, taps)
    if not use_triton(x, weight):
        dtype = x.dtype
        wide = reference.linear(x, weight, weight_bias.to(dtype), True, False, None, [], eps)
        result = reference.depthwise(wide, taps.to(dtype), bias.to(dtype), True)
        _total(result, sums)
        return _put(result, out)
    from mhnet_video.kernels.front_kernel import launch_front

    out = torch.empty_like(x) if out is None else out
    launch_front(x, weight, weight_bias, taps, bias, out, sums=sums, eps=eps)
    return out


def block_front_rows_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a result of `block_front_rows`, `[N, parts, C]` float32."""
    from mhnet_video.kernels.front_kernel import empty_sums

    return empty_sums(out)


def block_front_rows_fits(channels: int, dtype: torch.dtype) -> bool:
    """Whether `block_front_rows` takes that many channels."""
    from mhnet_video.kernels.front_kernel import fits

    return fits(channels, dtype.itemsize)


def block_back(
    gated: Tensor,
    x: Tensor,
    gain: Tensor,
    weights: tuple[Tensor, ...],
    *,
    more: Tensor | None = None,
    sums: Tensor | None = None,
    out: Tensor | None = None,
    eps: float = EPS,
) -> Tensor:
    """Do the second half of a NAFBlock: gain, 1x1, residual, LayerNorm, 1x1, gate, 1x1, residual.

    Args:
        gated: `[N, H, W, C]`, the result of the first half.
        x: `[N, H, W, C]`, the block's input.
        gain: `[N, C]` float32, of the channel attention.
        weights: `[C, C]`, `[C]`, `[2C, C]`, `[2C]`, `[C, C]` and `[C]`: weight and bias of the
            three convolutions, the block's own gains in the first and the last.
        more: A map to add, like `x`.
        sums: Where to put partial sums of the result, from `block_back_sums`.
        out: `[N, H, W, C]`; may be `x` or `gated`.
        eps: Added to the variance.

    Raises:
        ValueError: A shape does not fit.
    """
    channels = x.shape[3]
    fits = gated.shape == x.shape and weights[2].shape == (2 * channels, channels)
    expect(fits, "gated and x [N, H, W, C], weight [2C, C]", gated, x, weights[2])
    if not use_triton(gated, x):
        dtype = x.dtype
        result = reference.block_back(
            gated, x, gain.to(dtype), [each.to(dtype) for each in weights], more, eps
        )
        _total(result, sums)
        return _put(result, out)
    from mhnet_video.kernels.block_kernel import launch_block_back

    out = torch.empty_like(x) if out is None else out
    launch_block_back(gated, x, gain, weights, out, more=more, sums=sums, eps=eps)
    return out


def block_back_sums(out: Tensor) -> Tensor:
    """Room for the partial sums of a result of `block_back`, `[N, parts, C]` float32."""
    from mhnet_video.kernels.block_kernel import empty_sums

    return empty_sums(out)


def block_back_fits(channels: int, dtype: torch.dtype) -> bool:
    """Whether `block_back` takes that many channels; else three `linear` do the same."""
    from mhnet_video.kernels.block_kernel import fits

    return fits(channels, dtype.itemsize)


def mean(
    sums: Tensor,
    num_pixels: int,
    *,
    room: tuple[Tensor, Tensor] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Turn partial sums into means.

    Args:
        sums: `[N, parts, C]` float32.
        num_pixels: How many were summed.
        room: From `mean_room`; new in every call if None.
        out: `[N, C]` float32.
    """
    if not use_triton(sums):
        return _put(sums.sum(1) / num_pixels, out)
    from mhnet_video.kernels.fusion_kernel import launch_mean

    out = sums.new_empty(sums.shape[0], sums.shape[2]) if out is None else out
    launch_mean(sums, num_pixels, *(room or mean_room(sums)), out)
    return out


def mean_room(sums: Tensor, done: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What `mean` needs besides: a place for its programs' results, and the count of those done.

    Args:
        sums: As for `mean`.
        done: A count from elsewhere, `[N]` int32 zeros; several operations that follow one another
            may have the same one.
    """
    from mhnet_video.kernels.fusion_kernel import empty_mean_partial

    return empty_mean_partial(sums), _zeros(sums) if done is None else done


def attend(
    sums: Tensor,
    num_pixels: int,
    matrix: Tensor,
    bias: Tensor,
    *,
    room: tuple[Tensor, Tensor] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Compute the gains of the channel attention, `mean @ matrix.T + bias`.

    Args:
        sums: `[N, parts, C]` float32, of a map.
        num_pixels: How many were summed.
        matrix: `[C, C]` float32.
        bias: `[C]` float32.
        room: From `attend_room`; new in every call if None.
        out: `[N, C]` float32.
    """
    if not use_triton(sums, matrix):
        return _put((sums.sum(1) / num_pixels) @ matrix.t() + bias, out)
    from mhnet_video.kernels.fusion_kernel import launch_attend

    out = sums.new_empty(sums.shape[0], sums.shape[2]) if out is None else out
    launch_attend(sums, num_pixels, matrix, bias, *(room or attend_room(sums)), out)
    return out


def attend_room(sums: Tensor, done: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What `attend` needs besides; see `mean_room`."""
    from mhnet_video.kernels.fusion_kernel import empty_attend_partial

    return empty_attend_partial(sums), _zeros(sums) if done is None else done


def _zeros(sums: Tensor) -> Tensor:
    return torch.zeros(len(sums), dtype=torch.int32, device=sums.device)


def attention(
    maps: Tensor, temperature: Tensor, gains: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """Compute the matrix of the selective attention: what multiplies v.

    Args:
        maps: `[N, H, W, 3C]`: q, k and v.
        temperature: `[heads]` float32.
        gains: `[4]` float32, of the softmaxes over the largest 1/2, 2/3, 3/4 and 4/5 of a row.
        out: `[N, heads, C / heads, C / heads]` float32.

    Raises:
        ValueError: The channels cannot be shared among the heads.
    """
    heads = temperature.shape[0]
    expect(maps.shape[3] % (3 * heads) == 0, "maps [N, H, W, 3C]", maps, temperature)
    if not use_triton(maps):
        return _put(reference.attention(maps.float(), temperature, gains), out)
    from mhnet_video.kernels.attention_kernel import attention_buffers, launch_attention

    buffers = attention_buffers(maps, heads)
    out = torch.empty_like(buffers[2]) if out is None else out
    launch_attention(maps, temperature, gains, out, *buffers)
    return out


def project(
    combined: Tensor, last: Tensor, dtype: torch.dtype, *, out: Tensor | None = None
) -> Tensor:
    """Multiply the matrix of the selective attention by the convolution behind it.

    Args:
        combined: `[N, heads, c, c]` float32, from `attention`.
        last: `[heads, C, c]` float32, the convolution's columns for each head, C = heads * c.
        dtype: Type of the result.
        out: `[N, C, C]`.

    Returns:
        Of type `dtype`, the weight with which `linear` turns v into the result.

    Raises:
        ValueError: A shape does not fit.
    """
    heads, size = combined.shape[1:3]
    fits = last.shape == (heads, heads * size, size)
    expect(fits, "combined [N, heads, c, c], last [heads, C, c]", combined, last)
    if not use_triton(combined, last):
        return _put(reference.project(combined, last).to(dtype), out)
    from mhnet_video.kernels.attention_kernel import launch_project

    if out is None:
        out = combined.new_empty(len(combined), heads * size, heads * size, dtype=dtype)
    launch_project(combined.contiguous(), last.contiguous(), out)
    return out


def shares(
    mean: Tensor,
    low: Tensor,
    high: Tensor,
    low_matrix: Tensor,
    high_matrix: Tensor,
    squeeze: Tensor,
    expand: Tensor,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Compute the weights of the three maps of a fusion.

    Args:
        mean: `[N, C]` float32, of the first map.
        low: `[N, A]` float32, of what the second map is made from.
        high: `[N, B]` float32, of what the third map is made from.
        low_matrix: `[C, A]` float32, from there to the second map's mean.
        high_matrix: `[C, B]` float32, likewise.
        squeeze: `[2R, C]` float32.
        expand: `[3, C, R]` float32.
        out: `[N, 3, C]` float32.
    """
    inputs = (mean, low, high, low_matrix, high_matrix, squeeze, expand)
    if not use_triton(*inputs):
        return _put(reference.shares(*inputs), out)
    from mhnet_video.kernels.fusion_kernel import launch_shares

    out = mean.new_empty(mean.shape[0], 3, mean.shape[1]) if out is None else out
    launch_shares(*inputs, out)
    return out


def fuse(
    x: Tensor,
    low: Tensor,
    high: Tensor | None,
    low_weight: Tensor,
    high_weight: Tensor | None,
    *,
    shares: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    out: Tensor | None = None,
    eps: float = EPS,
) -> Tensor:
    """Add two maps, each through a 1x1 convolution, to a third, and normalize the sum.

    Args:
        x: `[N, H, W, C]`.
        low: `[N, H, W, A]`, or `[N, H / 2, W / 2, A]` before a pixel shuffle.
        high: Like `low`, or None.
        low_weight: `[C, A]`, or `[4C, A]` before a pixel shuffle, in the order top left, top
            right, bottom left, bottom right.
        high_weight: Like `low_weight`, or None.
        shares: `[N, 3, C]` float32, weights of the three; all ones if None.
        scale: `[C]` float32, of the LayerNorm after the sum; none if None.
        shift: `[C]` float32, likewise.
        out: `[N, H, W, C]`; may be `x`.
        eps: Added to the variance.

    Raises:
        ValueError: A shape does not fit.
    """
    times = 1 if low.shape[1] == x.shape[1] else 4
    fits = low_weight.shape == (times * x.shape[3], low.shape[3])
    fits = fits and low.shape[1] * low.shape[2] * times == x.shape[1] * x.shape[2]
    expect(fits, "x [N, H, W, C], low [N, H, W, A], weight [C, A]", x, low, low_weight)
    if not use_triton(x, low):
        converted = (None if each is None else each.to(x.dtype) for each in (shares, scale, shift))
        weight, gain, bias = converted
        result = reference.fuse(x, low, high, low_weight, high_weight, weight, gain, bias, eps)
        return _put(result, out)
    from mhnet_video.kernels.fusion_kernel import launch_fuse

    out = torch.empty_like(x) if out is None else out
    launch_fuse(x, low, high, low_weight, high_weight, shares, scale, shift, out, eps)
    return out


def shrunken_luma(
    x: Tensor, frames: int, patch: int, shrink: int, luma: tuple[float, float, float]
) -> Tensor:
    """The mean luma of squares of pixels of folded frames.

    Args:
        x: `[N, H / patch, W / patch, 3 * frames * patch**2]`, H and W multiples of `shrink`; more
            channels do not matter.
        frames: T.
        patch: Side of the blocks that are folded into channels.
        shrink: Side of the squares, in pixels.
        luma: Shares of red, green and blue.

    Returns:
        `[N, T, H / shrink, W / shrink]` float32, the middle frame first, then the others in order.

    Raises:
        ValueError: A shape does not fit.
    """
    rows, columns = x.shape[1] * patch, x.shape[2] * patch
    channels = 3 * frames * patch**2
    fits = x.shape[3] >= channels and not (rows % shrink or columns % shrink)
    expect(fits, "x [N, H / patch, W / patch, 3 * frames * patch**2]", x)
    if not use_triton(x):
        return reference.shrunken_luma(x[..., :channels].float(), patch, shrink, luma)
    from mhnet_video.kernels.align_kernel import launch_shrunken_luma

    size = (len(x), frames, rows // shrink, columns // shrink)
    out = torch.empty(size, dtype=torch.float32, device=x.device)
    launch_shrunken_luma(x, out, patch=patch, shrink=shrink, luma=luma)
    return out


def move(
    x: Tensor,
    motion: Tensor,
    patch: int,
    shrink: int,
    same: float,
    unlike: float,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Warp folded frames by a motion, with bilinear interpolation; middle frames are copied.

    Pixels whose largest difference from the middle frame is below `same` are copied too. Above
    `unlike` they are warped, and between the two they are blended.

    Args:
        x: `[N, H / patch, W / patch, 3 * T * patch**2]`, H and W multiples of `shrink`; more
            channels do not matter.
        motion: `[N, T - 1, 2, H / shrink, W / shrink]` float32, right and down, of all frames but
            the middle one, in pixels of its own.
        patch: Side of the blocks that are folded into channels.
        shrink: How much smaller the motion's sides are than the pictures'.
        same: See above.
        unlike: See above.
        out: Another map like `x`; what channels it has beyond those of frames stay as they are.

    Raises:
        ValueError: A shape does not fit.
    """
    sides = tuple(side * patch // shrink for side in x.shape[1:3])
    channels = 3 * (motion.shape[1] + 1) * patch**2
    fits = motion.shape == (len(x), motion.shape[1], 2, *sides) and x.shape[3] >= channels
    fits = fits and (out is None or out.shape == x.shape)
    expect(fits, "x, motion [N, T - 1, 2, H / shrink, W / shrink]", x, motion, out)
    if not use_triton(x, motion):
        moved = reference.move(x[..., :channels].float(), motion, patch, shrink, same, unlike)
        out = torch.empty_like(x) if out is None else out
        out[..., :channels].copy_(moved)
        return out
    from mhnet_video.kernels.align_kernel import launch_move

    out = torch.empty_like(x) if out is None else out
    limits = same, unlike
    launch_move(x, motion.contiguous(), out, patch=patch, shrink=shrink, limits=limits)
    return out
