"""Night scenes with lamps, and the light in which rain is seen there.

By night rain has no sky to refract. A drop scatters the light of the lamps near it: its streak has
their colour, falls off with the distance from them, and is invisible elsewhere. Exposures are long,
so that streaks are long or overlap to a shimmering veil. Sources of the model: Garg and Nayar,
"Vision and Rain", IJCV 2007, section 6 (light sources near the rain); Narasimhan and Nayar,
"Shedding Light on the Weather", CVPR 2003 (glow around lamps).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COLOURS = (
    (1.0, 0.56, 0.16),
    (1.0, 0.74, 0.42),
    (0.9, 0.96, 1.0),
    (1.0, 0.93, 0.8),
    (1.0, 0.15, 0.12),
    (0.2, 1.0, 0.55),
    (0.35, 0.45, 1.0),
)
"""Light of lamps, RGB in [0, 1]: sodium, old bulbs, cold LED, headlights; red, green, blue neon."""
COLOUR_SHARES = (0.28, 0.14, 0.2, 0.2, 0.1, 0.04, 0.04)
"""How often each is drawn."""
FOUND_SHARE = 0.35
"""Share of night scenes in whose own bright parts the rain shines, besides the drawn lamps."""
CONE_SHARE = 0.4
"""Share of lamps with a shade, whose light falls down in a cone."""
HEADLIGHT_SHARE = 0.15
"""Share of night scenes before the headlights of one's own car: rain shines from the lower edge."""
VEIL_SHARE = 0.35
"""Share of night scenes whose light is a glow around the lamps as well: wet air."""


class Night(NamedTuple):
    """A scene by night."""

    clean: Tensor
    """The scene with its lamps, `[T, 3, H, W]`, RGB in [0, 1]."""
    light: Tensor
    """Light that falls on the drops at each pixel, `[1, 3, H, W]`, 0 (dark) or more."""


def nightfall(clean: Tensor, generator: torch.Generator) -> Night:
    """Turn a scene into one by night.

    The scene is darkened, and lit by the lamps that are drawn into it. Lamps stand still in the
    picture, as before a fixed camera or at the side of a straight road.

    Args:
        clean: `[T, 3, H, W]`, RGB in [0, 1], on any device.
        generator: Random generator, on the CPU.

    Returns:
        The night scene and its light, on the device of `clean`.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def log_uniform(low: float, high: float) -> float:
        return math.exp(uniform(math.log(low), math.log(high)))

    height, width = clean.shape[-2:]
    side = min(height, width)
    y = torch.arange(height, device=clean.device, dtype=clean.dtype)[:, None]
    x = torch.arange(width, device=clean.device, dtype=clean.dtype)[None]
    dark = clean.clamp(0, 1) ** uniform(1.0, 1.8) * log_uniform(0.12, 0.7)
    dark = (
        dark
        * dark.new_tensor([uniform(0.7, 1.1), uniform(0.75, 1.0), uniform(0.75, 1.2)])[
            :, None, None
        ]
    )
    light = clean.new_zeros(1, 3, height, width)
    glow = torch.zeros_like(light)
    is_veiled = uniform(0, 1) < VEIL_SHARE
    for _ in range(1 + int(uniform(0, 1) ** 2 * 4)):
        index = int(torch.multinomial(torch.tensor(COLOUR_SHARES), 1, generator=generator))
        colour = clean.new_tensor(COLOURS[index])[:, None, None]
        radius = log_uniform(0.008, 0.16) * side
        centre = uniform(-0.2, 1.2) * width, uniform(-0.3, 1.0) * height
        distance = torch.hypot(x - centre[0], y - centre[1])
        disc = torch.sigmoid((radius - distance) / max(0.8, uniform(0.05, 0.4) * radius))
        # what the lens and wet air make of a lamp: far wider than the lamp, and far weaker
        halo = 1 / (1 + (distance / (radius * uniform(1.2, 3))) ** uniform(1.8, 3))
        reach = radius * log_uniform(3, 25)
        falloff = 1 / (1 + (distance / reach) ** 2) ** uniform(0.8, 2)
        if uniform(0, 1) < CONE_SHARE:
            angle = torch.atan2(x - centre[0], y - centre[1])
            half = uniform(0.5, 1.3)
            falloff = falloff * torch.sigmoid((half - angle.abs()) / uniform(0.05, 0.3))
        power = log_uniform(0.5, 3)
        light = light + power * colour * falloff
        veil = uniform(0.02, 0.25) * falloff if is_veiled else 0.0
        white = colour + (1 - colour) * uniform(0.3, 1)  # the middle of a lamp is overexposed
        glow = glow + 1.6 * disc * white + colour * (uniform(0.05, 0.5) * halo + veil)
    if uniform(0, 1) < HEADLIGHT_SHARE:
        near = torch.exp(((y - height) / (uniform(0.2, 0.9) * height)).expand(height, width))
        light = light + log_uniform(0.3, 1.5) * near * clean.new_tensor(COLOURS[3])[:, None, None]
    lit = clean * (0.25 * uniform(0, 1)) * light.clamp(0, 1)
    night = (dark + lit + glow).clamp(0, 1)
    if uniform(0, 1) < FOUND_SHARE:
        around = F.avg_pool2d(night.mean(0, keepdim=True), 8, ceil_mode=True)
        around = F.avg_pool2d(around, 5, 1, 2, count_include_pad=False)
        light = light + uniform(0.5, 2) * F.interpolate(around, (height, width), mode="bilinear")
    return Night(night, light)
