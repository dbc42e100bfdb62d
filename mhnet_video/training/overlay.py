"""Text burnt into clips, which must stay: its strokes are as thin and as bright as streaks."""

import cv2
import numpy as np
import torch
from torch import Tensor

PALE_SHARE = 0.4
"""Share of burnt-in texts that are translucent, as watermarks are."""


def draw_text(random: np.random.Generator, side: int, scale: float) -> Tensor:
    """Draw one to three lines of text, as clocks and camera names.

    Args:
        random: Generator.
        side: Side of the picture, in pixels.
        scale: Size of the letters, relative to a picture of 360 to 720 rows.

    Returns:
        `[4, side, side]`, RGB and opacity in [0, 1].
    """
    characters = list("0123456789" * 4 + "ABCDEFGHIKLMNOPRSTUVXYZ" + "/:-. " * 3)
    level = int(random.integers(170, 256))
    colour = (level, level, int(random.integers(255)) if random.random() < 0.2 else level)
    picture = np.zeros((side, side, 3), np.uint8)
    cover = np.zeros((side, side), np.uint8)
    face = int(random.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN]))
    size = random.uniform(0.3, 1.1) * (2 if face == cv2.FONT_HERSHEY_PLAIN else 1)
    stroke = round((1 if size < 0.6 or random.random() < 0.6 else 2) * scale)
    size *= scale
    outlined = random.random() < 0.4
    for _ in range(1 + int(random.integers(3))):
        line = "".join(random.choice(characters, int(random.integers(4, 24))))
        origin = [int(random.integers(-side // 4, side * 3 // 4))]
        origin.append(int(random.integers(12, side)))
        for width, shade in [(stroke + 2, (0, 0, 0))] * outlined + [(stroke, colour)]:
            cv2.putText(picture, line, origin, face, size, shade, width, cv2.LINE_AA)
            cv2.putText(cover, line, origin, face, size, 255, width, cv2.LINE_AA)
    # antialiased strokes over black are already multiplied by their opacity
    if not outlined:
        picture[:] = colour
    opacity = cover * random.uniform(0.35, 1) if random.random() < PALE_SHARE else cover
    layers = np.concatenate([picture, np.asarray(opacity)[..., None]], axis=2)
    return torch.from_numpy(layers).permute(2, 0, 1).float() / 255


def burnt_in(clips: list[Tensor], text: Tensor | None) -> list[Tensor]:
    """Blend the same text over each clip `[K, 3, H, W]`; no change without text."""
    return clips if text is None else [torch.lerp(clip, text[:3], text[3]) for clip in clips]
