"""Scenes of shallow focus: something sharp before a background far out of focus.

Lights in such a background become bright discs with sharp rims, which look like drops on the glass
and must stay. Source of the model: light is averaged over the circle of confusion in linear
intensities, beyond the white level of the camera (Potmesil and Chakravarty, "A lens and aperture
camera model for synthetic image generation", SIGGRAPH 1981).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.training.drops import disc_blurred

GAMMA = 2.2
"""Exponent from levels to light."""
LEAST_DISC, MOST_DISC = 0.012, 0.07
"""Radius of the circle of confusion, in sides of the picture."""
MOST_LIGHTS = 40
"""Most lights drawn into a background."""


def shallow_focus(frames: Tensor, random: np.random.Generator) -> Tensor:
    """Put the background of a scene far out of focus, with lights in it.

    Args:
        frames: `[N, 3, H, W]`, RGB in [0, 1], on the CPU.
        random: Generator.

    Returns:
        The scene, `[N, 3, H, W]` in [0, 1]; what stays sharp stands still.
    """
    height, width = frames.shape[-2:]
    side = min(height, width)
    light = frames**GAMMA
    bright = ((frames.amax(1, keepdim=True) - 0.7) / 0.3).clamp(0, 1)
    light = light * (1 + random.uniform(0, 8) * bright)
    radius = side * math.exp(random.uniform(math.log(LEAST_DISC), math.log(MOST_DISC)))
    lights = torch.zeros(1, 3, height, width)
    for _ in range(int(MOST_LIGHTS * random.random() ** 2)):
        x, y = int(random.integers(width)), int(random.integers(height))
        colour = torch.from_numpy(random.uniform(0.3, 1, 3)).float()
        # spread over the disc, a light has the level of white or a part of it
        lights[0, :, y, x] += colour * (math.pi * radius**2 * random.uniform(0.1, 1.2))
    background = disc_blurred(light + lights, radius).clamp(0, 1) ** (1 / GAMMA)
    cells = int(random.integers(2, 5))
    relief = torch.from_numpy(random.normal(0, 1, (1, 1, cells, cells))).float()
    relief = F.interpolate(relief, (height, width), mode="bicubic", align_corners=True)
    cover = (relief - random.uniform(-0.3, 0.8)) * (side / cells) / random.uniform(1, 4)
    return background.lerp(frames.flip(-1), cover.clamp(0, 1)).clamp(0, 1)
