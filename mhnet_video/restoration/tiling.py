"""Large pictures in overlapping tiles, which bounds the memory of the network's maps."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from mhnet_video.model.window import Window, middle_of

TILE_HALO = 64
"""Halo around a tile, in pixels, so that seams do not show."""
MIN_TILE_PIXELS = 256 * 256
"""Smallest tile, in pixels; smaller ones would be mostly halo."""


def tiled_residual(
    window: Window,
    residual_of: Callable[[Window], Tensor],
    padded: Callable[[Tensor], Tensor],
    most_pixels: int,
) -> Tensor:
    """The residual of a window, tile by tile.

    Args:
        window: `[3, H, W]` each, aligned already where the network wants it so.
        residual_of: Computes the residual of a window of tiles, `[3, h, w]`.
        padded: Pads the sides of a tile to multiples of the network's.
        most_pixels: Largest tile without its halo, in pixels.

    Returns:
        `[3, H, W]`.
    """
    height, width = middle_of(window).shape[1:]
    rows = -(-height // max(64, min(height, round(most_pixels**0.5))))
    columns = -(-width * -(-height // rows) // most_pixels)
    cuts = _cuts(height, rows), _cuts(width, columns)
    # all of one size, so that engines build one execution graph
    tall, wide = (
        min(length, max(end - begin for begin, end in parts) + 2 * TILE_HALO)
        for length, parts in zip((height, width), cuts, strict=True)
    )
    residual = torch.empty_like(middle_of(window))
    for top, bottom in cuts[0]:
        for left, right in cuts[1]:
            y = min(max(0, top - TILE_HALO), height - tall)
            x = min(max(0, left - TILE_HALO), width - wide)
            tile = [
                None if frame is None else padded(frame[:, y : y + tall, x : x + wide])
                for frame in window
            ]
            part = residual_of(tile)[:, top - y : bottom - y, left - x : right - x]
            residual[:, top:bottom, left:right] = part
    return residual


def _cuts(length: int, parts: int) -> list[tuple[int, int]]:
    """Nearly equal ranges that cover 0 to length, beginning at even offsets."""
    edges = [round(length * part / parts / 2) * 2 for part in range(parts)] + [length]
    return list(itertools.pairwise(edges))
