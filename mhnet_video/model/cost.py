"""Cost of a network by its sizes: multiply-adds, and bytes that must be moved."""

from mhnet_video.model.network import LEVELS, NetworkConfig


def count_macs(config: NetworkConfig, height: int, width: int) -> int:
    """Multiplications with an addition of one run, those of convolutions and of the attention.

    Args:
        config: The sizes of the network.
        height: Of the pictures, in pixels; padded as the network pads them.
        width: Likewise.
    """
    pixels = _pixels(config, height, width)
    widths = [config.width * 2**level for level in range(LEVELS + 1)]
    first, full = config.width, pixels[0]
    inputs = 3 * config.pictures * config.patch**2
    total = 2 * 9 * inputs * first * full + 2 * first * first * full
    for level in range(LEVELS):
        blocks = config.encoder_blocks[level] + config.decoder_blocks[LEVELS - 1 - level]
        total += blocks * _block_macs(widths[level], pixels[level])
        total += 4 * widths[level] * widths[level + 1] * pixels[level + 1]
        total += _double_macs(widths[level + 1], pixels[level + 1])
    lowest, bottom = widths[-1], pixels[-1]
    # to queries, keys and values, their 3x3; the two products of every head; the projection
    total += (4 * lowest**2 + 27 * lowest + 2 * lowest * (lowest // config.heads)) * bottom
    reduced = max(first // 8, 4)
    for group, blocks in enumerate(config.group_blocks):
        total += blocks * _block_macs(first, full)
        total += sum(2 * _double_macs(widths[i], pixels[i]) for i in range(1, group + 1))
        total += 2 * first * first * full + first * reduced + 3 * (reduced // 2) * first
    return total + 9 * first * 3 * config.patch**2 * full


def count_bytes(config: NetworkConfig, height: int, width: int, element_bytes: int) -> int:
    """Bytes that one run reads and writes at the least, if no map stays in a cache.

    A mean over the whole picture stands in every block and fusion, so that nothing can be merged
    across it: between two of them each map is read once and written once. A block reads its input
    and writes the gated map, reads both and writes its result: five times its size.

    Args:
        config: The sizes of the network.
        height: Of the pictures, in pixels; padded as the network pads them.
        width: Likewise.
        element_bytes: Size of a map's element; pictures are float32, and weights not counted.
    """
    pixels = _pixels(config, height, width)
    maps = [config.width * 2**level * count for level, count in enumerate(pixels)]
    # both first convolutions write a map; the second one's is read with D1, and their mix written
    total = 2 * maps[0] + 3 * maps[0]
    for level in range(LEVELS):
        blocks = config.encoder_blocks[level] + config.decoder_blocks[LEVELS - 1 - level]
        total += 5 * blocks * maps[level]
        # down: read and written; up: read, written, and the encoder's map read
        total += maps[level] + maps[level + 1] + maps[level + 1] + 2 * maps[level]
    # the attention's scores need all pixels before the values are weighted
    total += 3 * maps[LEVELS]
    for group, blocks in enumerate(config.group_blocks):
        # the last block also adds the group's input; the fusion reads three maps and writes one
        total += (5 * blocks + 1 if blocks else 0) * maps[0] + 2 * maps[0] + 2 * maps[group]
    total += maps[0]
    pictures = 3 * (config.pictures + 1) * pixels[0] * config.patch**2
    return total * element_bytes + pictures * 4


def _pixels(config: NetworkConfig, height: int, width: int) -> list[int]:
    """Pixels of the maps of each level."""
    rows, columns = (-(-side // config.multiple) * 2**LEVELS for side in (height, width))
    return [(rows >> level) * (columns >> level) for level in range(LEVELS + 1)]


def _block_macs(channels: int, pixels: int) -> int:
    return (6 * channels**2 + 18 * channels) * pixels + channels**2


def _double_macs(channels: int, pixels: int) -> int:
    """Of a 1x1 convolution that doubles the channels, before a pixel shuffle."""
    return 2 * channels**2 * pixels
