"""Pictures of nature, drawn: sharp ones, and soft ones as after enlargement."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 512, 640
"""Rows and columns, of which the sharpness is measured."""


def scenery(enlarge: float = 1.0, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """A picture as of nature through a lens, enlarged.

    Its power falls with the square of the frequency, and a lens leaves a third of the finest
    contrast.

    Args:
        enlarge: How many times.
        size: Rows and columns.
        seed: Another one shows another scene.

    Returns:
        `[H, W]`, levels of 8 bits.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = (round(side / enlarge) for side in size)
    spectrum = torch.fft.rfft2(torch.randn(height, width, generator=generator))
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    radius[0, 0] = 1
    spectrum[0, 0] = 0
    lens = (1 / 3) ** (2 * radius).square()
    picture = torch.fft.irfft2(spectrum / radius * lens, (height, width))
    picture = 128 + 40 * picture / picture.std()
    if enlarge != 1:
        picture = F.interpolate(picture[None, None], size, mode="bicubic")[0, 0]
    return picture.clamp(0, 255)
