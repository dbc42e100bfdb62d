"""Draw the sample clips: a tram passes a row of houses at dusk, in the rain and without it.

Everything is computed from seeds: `python samples/render.py` makes all of them again, in this
folder or in the one named. Colours are display values in [0, 1]; the scene
is drawn at twice its size, in layers that pass by at speeds of their own, and scaled down.
"""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from mhnet_video.training import motion_blur
from mhnet_video.training.drops import Pane, draw_pane, pane_on
from mhnet_video.training.rain import Storm, StreakLayer, fall, render_streaks

Array = NDArray[np.float32]

WIDTH, HEIGHT = 640, 360
"""Size of the clip, in pixels."""
FPS, SECONDS = 25, 4
"""Frames a second, and duration, of the clip."""
W, H = 2 * WIDTH, 2 * HEIGHT
"""Size at which the scene is drawn, in pixels; all following lengths are in these pixels."""
PAN = 150
"""Motion of the camera along the street."""
CURB, ROAD = 492, 530
"""Rows where the houses and the pavement end."""
TRACK, TRAM_LENGTH = 590, 620
"""Row of the far rail, and length of the tram."""
LAMPS = (250, 1010)
"""Columns of the lamp posts in front."""
WALKERS = (
    (330.0, 34.0, (0.13, 0.15, 0.24), (0.62, 0.13, 0.12)),
    (1010.0, -30.0, (0.20, 0.16, 0.13), (0.16, 0.30, 0.36)),
)
"""Column, speed a second, and colours of the coat and the umbrella, RGB in [0, 1]."""
SOUND_RATE = 48_000
"""Samples of sound a second."""
STORM = Storm(
    layers=(
        StreakLayer(  # far
            density=2.2e-3, length=9, sigma=0.42, taper=0.2, angle=0.10, opacity=0.30, spread=0.8
        ),
        StreakLayer(
            density=5.5e-4, length=20, sigma=0.55, taper=0.12, angle=0.12, opacity=0.55, spread=0.7
        ),
        StreakLayer(
            density=1.6e-4, length=38, sigma=0.8, taper=0.15, angle=0.13, opacity=0.5, spread=0.7
        ),
        StreakLayer(  # near, out of focus
            density=3.5e-5, length=75, sigma=1.7, taper=0.25, angle=0.15, opacity=0.26, spread=0.6
        ),
    ),
    gust=0.02,
    light=(0.80, 0.83, 0.90),
)
"""The rain, at the size of the clip."""
PANE_SEED = 2
"""Seed of the drops on the pane that the street is seen through."""
HAND = motion_blur.ViewMotion(
    waves=(
        motion_blur.Wave(np.array([2.6, 1.8, 0.004, 0.002]), 7.3, np.array([0.3, 2.1, 1.0, 4.0])),
        motion_blur.Wave(np.array([7.0, 5.0, 0.009, 0.004]), 17.0, np.array([1.7, 0.2, 3.0, 2.0])),
        motion_blur.Wave(np.array([20.0, 9.0, 0.012, 0.006]), 41.0, np.array([4.4, 3.0, 0.5, 1.0])),
    )
)
"""How the hand that films `blur.mp4` trembles, in pixels of the clip."""
SHUTTER = motion_blur.Shutter(share=0.8, readout=0.1)
"""That of the camera in this hand."""
FILM = motion_blur.Film(excess=3.0)
"""Its levels and light."""
HAND_WIDTH, HAND_HEIGHT = 480, 270
"""Size of the clip that it films, in pixels: the middle of the street."""
DUSK = np.array([0.50, 0.52, 0.68], np.float32)
"""Colour of the light of the sky, RGB in [0, 1]."""
WARM = np.array([1.0, 0.74, 0.40], np.float32)
"""Colour of lamps, RGB in [0, 1]."""


def noise(height: int, width: int, cell: float, rng: np.random.Generator) -> Array:
    """Smooth noise in [0, 1] with features of about `cell` pixels."""
    rows, columns = int(height / cell) + 3, int(width / cell) + 3
    grid = rng.random((rows, columns)).astype(np.float32)
    y, x = np.arange(height) / cell, np.arange(width) / cell
    top, left = y.astype(int), x.astype(int)
    v, u = (y - top)[:, None], (x - left)[None]
    v, u = v * v * (3 - 2 * v), u * u * (3 - 2 * u)
    upper = grid[top][:, left] * (1 - u) + grid[top][:, left + 1] * u
    lower = grid[top + 1][:, left] * (1 - u) + grid[top + 1][:, left + 1] * u
    return (upper * (1 - v) + lower * v).astype(np.float32)


def fractal(height: int, width: int, cell: float, rng: np.random.Generator, octaves: int) -> Array:
    """Noise of several sizes, each half as strong as the one before; about 0.5 on average."""
    total = sum(noise(height, width, cell / 2**i, rng) / 2**i for i in range(octaves))
    return np.asarray(total / sum(2.0**-i for i in range(octaves)), np.float32)


def blur(picture: Array, sigma_y: float, sigma_x: float) -> Array:
    """Gaussian blur of `[H, W, ...]`, by its spectrum; the edges wrap round."""
    fy = np.fft.fftfreq(picture.shape[0])[:, None]
    fx = np.fft.rfftfreq(picture.shape[1])[None]
    pass_band = np.exp(-2 * np.pi**2 * ((fy * sigma_y) ** 2 + (fx * sigma_x) ** 2))
    extra = (1,) * (picture.ndim - 2)
    spectrum = np.fft.rfft2(picture, axes=(0, 1)) * pass_band.reshape(*pass_band.shape, *extra)
    return np.fft.irfft2(spectrum, s=picture.shape[:2], axes=(0, 1)).astype(np.float32)


class Layer:
    """Colours `[H, W, 3]` with an opacity `[H, W]`, wider than the picture."""

    def __init__(self, width: int) -> None:
        self.rgb = np.zeros((H, width, 3), np.float32)
        self.alpha = np.zeros((H, width), np.float32)

    def box(self, x: float, y: float, w: float, h: float, colour: object) -> None:
        """Paint a rectangle, with one colour or a picture of its size."""
        y0, x0, y1, x1 = round(y), round(x), round(y + h), round(x + w)
        paint = np.broadcast_to(np.asarray(colour, np.float32), (y1 - y0, x1 - x0, 3))
        top, left = max(0, y0), max(0, x0)
        bottom, right = min(H, y1), min(self.alpha.shape[1], x1)
        if bottom > top and right > left:
            self.rgb[top:bottom, left:right] = paint[top - y0 : bottom - y0, left - x0 : right - x0]
            self.alpha[top:bottom, left:right] = 1

    def shape(self, mask: Array, colour: object) -> None:
        """Paint where a mask of the layer's size says, softly where it is between 0 and 1."""
        mask3 = mask[..., None]
        self.rgb = self.rgb * (1 - mask3) + np.asarray(colour, np.float32) * mask3
        self.alpha = np.maximum(self.alpha, mask)

    def shifted(self, offset: float) -> tuple[Array, Array]:
        """The part that the camera sees at an offset, in between pixels too."""
        whole = int(np.floor(offset))
        part = np.float32(offset - whole)

        def cut(of: Array) -> Array:
            first, second = of[:, whole : whole + W], of[:, whole + 1 : whole + 1 + W]
            return first * (1 - part) + second * part

        return cut(self.rgb * self.alpha[..., None]), cut(self.alpha)


def ellipse(width: int, cx: float, cy: float, rx: float, ry: float, soft: float = 1.0) -> Array:
    """A filled ellipse as a mask `[H, width]`; `soft` is the width of its edge in pixels."""
    y, x = np.ogrid[:H, :width]
    distance = (np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) - 1) * min(rx, ry)
    return np.clip(0.5 - distance / soft, 0, 1).astype(np.float32)


def limb(width: int, x0: float, y0: float, x1: float, y1: float, r0: float, r1: float) -> Array:
    """A line that goes from one thickness to another, as a mask `[H, width]`."""
    y, x = np.ogrid[:H, :width]
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    distance = np.hypot(x - x0 - along * dx, y - y0 - along * dy)
    return np.clip(r0 + (r1 - r0) * along - distance + 0.5, 0, 1).astype(np.float32)


def draw_sky(rng: np.random.Generator) -> Layer:
    """Dusk: blue above, a warm rim below, thin clouds lit from beneath."""
    sky = Layer(W + 64)
    width = sky.alpha.shape[1]
    height = np.linspace(0, 1, H, dtype=np.float32)[:, None, None] * 2.1
    top, middle, rim = ([0.16, 0.22, 0.40], [0.42, 0.42, 0.56], [0.93, 0.62, 0.42])
    low = np.clip(height * 2, 0, 1) * (np.array(middle) - top) + top
    colours = low + np.clip(height * 2 - 1, 0, 1) ** 1.3 * (np.array(rim) - middle)
    clouds = fractal(H * 3, width, 300, rng, 6)[::3]
    clouds = np.clip((clouds - 0.47) * 4, 0, 1)[..., None]
    lit = np.array([0.86, 0.58, 0.50]) * np.clip(height * 1.4, 0.35, 1)
    sky.rgb = (colours * (1 - 0.6 * clouds) + lit * 0.6 * clouds).astype(np.float32)
    sky.alpha[:] = 1
    return sky


def draw_skyline(rng: np.random.Generator) -> Layer:
    """Far roofs and a church, hazy, with a few lights."""
    layer = Layer(W + PAN)
    width = layer.alpha.shape[1]
    haze = np.array([0.42, 0.38, 0.47], np.float32)
    x = 0.0
    while x < width:
        w, top = rng.uniform(40, 120), rng.uniform(250, 330)
        layer.box(x, top, w, CURB - top, haze * rng.uniform(0.82, 1.0))
        for _ in range(rng.integers(2, 9)):
            layer.box(x + rng.uniform(4, w - 8), rng.uniform(top + 8, 420), 4, 6, WARM * 0.85)
        x += w
    spire = 690
    layer.box(spire, 190, 46, 240, haze * 0.8)
    for row in range(90, 190):
        half = 23 * (row - 90) / 100
        layer.box(spire + 23 - half, row, 2 * half, 1, haze * 0.74)
    layer.box(spire + 16, 215, 13, 26, haze * 0.5)
    return layer


def lit_window(h: int, w: int, rng: np.random.Generator) -> Array:
    """What is behind a window at dusk: a warm room with curtains, or the sky in dark glass."""
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    if rng.random() < 0.5:
        sky = np.array([0.30, 0.34, 0.46]) * (1 - y) + np.array([0.12, 0.13, 0.19]) * y
        streak = fractal(h, w, 14, rng, 3)[..., None]
        return (sky * (0.7 + 0.6 * streak)).astype(np.float32)
    warmth = rng.uniform(0.65, 1.0)
    room = WARM * warmth * (1.05 - 0.45 * y) * (0.85 + 0.3 * fractal(h, w, 12, rng, 3)[..., None])
    x = np.abs(np.linspace(-1, 1, w, dtype=np.float32))[None, :, None]
    folds = 0.7 + 0.15 * np.sin(np.linspace(0, w * 0.9, w))[None, :, None]
    curtain = np.clip((x - rng.uniform(0.45, 0.95) - 0.25 * (y - 0.5) ** 2) * 8, 0, 1)
    room = room * (1 - curtain) + room * folds * np.array([0.85, 0.72, 0.66]) * curtain
    if rng.random() < 0.3:  # somebody's plant
        room[-h // 4 :, w // 3 : w // 3 + w // 4] *= 0.35
    return room.astype(np.float32)


def draw_house(
    layer: Layer, x: int, w: int, roof: int, colour: tuple[float, float, float], seed: int
) -> None:
    """One front with its roof, windows and shop, from column `x` on."""
    rng = np.random.default_rng(seed)
    tall = CURB - roof
    stain = fractal(tall, w, 60, rng, 6)[..., None]
    runs = noise(1, w, 7, rng)[..., None]
    grain = rng.normal(0, 0.012, (tall, w, 1))
    wall = np.array(colour) * DUSK * (0.98 + 0.55 * (stain - 0.5) + 0.10 * (runs - 0.5)) * 1.15
    if seed % 3 == 0:  # bricks
        rows, columns = np.arange(tall)[:, None], np.arange(w)[None]
        joint = (rows % 9 < 1) | ((columns + rows // 9 % 2 * 11) % 22 < 1)
        tone = rng.normal(1, 0.07, (tall // 9 + 1, w // 22 + 2))
        tone = tone[rows // 9, (columns + rows // 9 % 2 * 11) // 22]
        wall = wall * tone[..., None] * np.where(joint, 1.22, 1)[..., None]
    layer.box(x, roof, w, tall, wall + grain)
    draw_roof(layer, x, w, roof, rng)

    trim = np.clip(np.array(colour) * DUSK * 1.5, 0, 0.62)
    for offset, thick, shade in ((-2, 7, 1.0), (5, 3, 0.45), (12, 4, 0.9)):
        layer.box(x, roof + offset, w, thick, trim * shade)
    for edge in (x, x + w - 5):
        layer.box(edge, roof + 16, 5, tall - 16, wall[16:, :5] * 0.72)

    count = max(2, round(w / 68))
    pitch = w / count
    for row in range(roof + 34, CURB - 150, 92):
        for column in range(count):
            left = round(x + pitch * (column + 0.5) - 17)
            layer.box(left - 5, row - 6, 44, 72, trim * 0.9)
            layer.box(left - 7, row - 10, 48, 5, trim * 1.1)
            layer.box(left, row, 34, 60, lit_window(60, 34, rng))
            layer.box(left + 15, row, 3, 60, trim * 0.85)
            layer.box(left, row + 21, 34, 3, trim * 0.85)
            layer.box(left - 7, row + 62, 48, 6, trim * 1.15)
            layer.box(left - 5, row + 68, 44, 4, wall[:4, :44] * 0.5)
    draw_shop(layer, x, w, rng)


def draw_roof(layer: Layer, x: int, w: int, roof: int, rng: np.random.Generator) -> None:
    """A slated mansard with dormers and a chimney, above row `roof`."""
    tall = int(rng.integers(44, 66))
    slate = np.array([0.20, 0.20, 0.27]) * rng.uniform(0.85, 1.2)
    chimney = x + int(rng.integers(20, max(21, w - 50)))
    layer.box(chimney, roof - tall - 34, 26, 40, np.array([0.26, 0.19, 0.19]))
    layer.box(chimney - 3, roof - tall - 38, 32, 6, np.array([0.30, 0.24, 0.24]))
    for row in range(tall):
        inset = 14 * (tall - row) / tall
        left, right = round(x + inset), round(x + w - inset)
        tone = np.repeat(rng.normal(1, 0.05, (right - left) // 9 + 1), 9)[: right - left]
        shade = 0.75 if row % 8 == 0 else 1.0 + 0.25 * (1 - row / tall)
        layer.box(left, roof - tall + row, right - left, 1, slate * shade * tone[None, :, None])
    for position in np.arange(0.25, 1, 0.5 if w < 190 else 0.25):
        left = round(x + w * position - 15)
        layer.box(left - 4, roof - tall + 10, 38, 34, np.array([0.36, 0.35, 0.42]))
        layer.box(left - 7, roof - tall + 6, 44, 6, slate * 1.3)
        layer.box(left + 2, roof - tall + 16, 26, 28, lit_window(28, 26, rng))
        layer.box(left + 14, roof - tall + 16, 2, 28, np.array([0.36, 0.35, 0.42]))


def draw_shop(layer: Layer, x: int, w: int, rng: np.random.Generator) -> None:
    """A ground floor: a lit shop window under an awning, and a door."""
    wood = np.array([[0.20, 0.13, 0.12], [0.10, 0.17, 0.16], [0.13, 0.14, 0.22]])[rng.integers(3)]
    top = CURB - 118
    layer.box(x + 6, top, w - 12, 118, wood * (0.9 + 0.2 * noise(118, w - 12, 5, rng)[..., None]))
    door = round(x + w - 62)
    glass_w = w - 92
    goods = fractal(78, glass_w, 26, rng, 4)[..., None]
    depth = np.linspace(1.15, 0.7, 78)[:, None, None]
    window = WARM * np.array([0.92, 0.94, 1.05]) * depth * (0.45 + 0.75 * goods)
    shelf = np.arange(78) % 26 > 22
    window[shelf] *= 0.5
    for _ in range(glass_w // 7):  # what is on the shelves
        left, level = int(rng.integers(0, glass_w - 8)), int(rng.integers(1, 4)) * 26 - 4
        size = int(rng.integers(6, 18))
        hue = rng.uniform(0.25, 1.0, 3)
        window[max(0, level - size) : level, left : left + int(rng.integers(4, 9))] *= hue
    layer.box(x + 18, CURB - 92, glass_w, 78, window)
    for post in np.linspace(x + 18, x + 18 + glass_w, 4)[1:3]:
        layer.box(post, CURB - 92, 3, 78, wood * 0.8)
    layer.box(door, CURB - 100, 44, 100, wood * 0.7)
    layer.box(door + 6, CURB - 92, 32, 56, lit_window(56, 32, rng))
    layer.box(x + 10, top - 4, w - 20, 20, wood * 1.5)
    for letter in range(int(rng.integers(5, 10))):  # a sign, too far to be read
        left = x + w / 2 - 60 + letter * 14
        layer.box(left, top + 2, rng.uniform(5, 10), 9, WARM * 0.75)
    if rng.random() < 0.7:
        hue = np.array([[0.52, 0.16, 0.14], [0.18, 0.34, 0.26], [0.20, 0.26, 0.42]])[
            rng.integers(3)
        ]
        for row in range(24):
            stripes = (np.arange(glass_w + 16) // 13 % 2)[None, :, None]
            cloth = hue * (1 - stripes) + np.array([0.62, 0.60, 0.60]) * stripes
            layer.box(x + 10, top + 16 + row, glass_w + 16, 1, cloth * (0.62 + 0.018 * row))


def draw_houses(rng: np.random.Generator) -> Layer:
    """The row of houses, with a gap through which the town is seen, and the lamps' light on it."""
    layer = Layer(W + PAN)
    width = layer.alpha.shape[1]
    palette = [(0.72, 0.62, 0.45), (0.62, 0.34, 0.27), (0.66, 0.66, 0.62), (0.45, 0.56, 0.55),
               (0.74, 0.50, 0.38), (0.60, 0.55, 0.66), (0.70, 0.66, 0.50)]  # fmt: skip
    x, index = -30, 0
    while x < width:
        if index == 4:  # a side street
            x += 150
        w, roof = int(rng.integers(160, 250)), int(rng.integers(120, 200))
        draw_house(layer, x, w, roof, palette[index % len(palette)], 40 + index)
        x, index = x + w, index + 1
    layer.box(0, CURB, width, ROAD - CURB, slabs(ROAD - CURB, width, rng))
    y, xs = np.ogrid[:H, :width]
    for lamp in range(90, width, 330):  # pools of light on the walls
        pool = np.exp(-(((xs - lamp) / 120) ** 2 + ((y - 400) / 130) ** 2))[..., None]
        layer.rgb *= 1 + 0.6 * pool * WARM
    return layer


def slabs(height: int, width: int, rng: np.random.Generator) -> Array:
    """Pavement, wet enough to shine a little."""
    tone = 0.23 + 0.10 * (fractal(height, width, 40, rng, 5) - 0.5)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    joint = (rows % 13 == 0) | ((columns + rows // 13 * 17) % 46 == 0)
    tone = np.where(joint, tone * 0.7, tone)
    tone[-5:] = 0.34 + 0.06 * rng.random((5, width))
    return (tone[..., None] * np.array([0.95, 0.97, 1.12])).astype(np.float32)


def draw_tram() -> Layer:
    """A two-axle tram of the old kind, lit, in side view; its wheels stand on row TRACK."""
    layer = Layer(TRAM_LENGTH + 40)
    width = layer.alpha.shape[1]
    x0, x1, top, sill, floor = 20, 20 + TRAM_LENGTH, 372, 470, 560
    rng = np.random.default_rng(3)
    y, x = np.ogrid[:H, :width]
    # a rounded box: the ends lean in towards the roof
    lean = np.clip((sill - y) / (sill - top), 0, 1) ** 3 * 26
    body = (x > x0 + lean) & (x < x1 - lean) & (y >= top) & (y < floor)
    sheen = (
        1.1 - 0.35 * np.clip((y - sill) / (floor - sill), 0, 1) + 0.06 * noise(H, width, 90, rng)
    )
    red, cream = np.array([0.50, 0.11, 0.10]), np.array([0.66, 0.60, 0.50])
    colours = np.where((y < sill + 8)[..., None], cream, red) * sheen[..., None] * 0.9
    layer.shape(body.astype(np.float32), colours)
    roof = (x > x0 + 34) & (x < x1 - 34) & (y >= top - 16) & (y < top + 2)
    layer.shape(roof.astype(np.float32), np.array([0.30, 0.31, 0.37]))
    layer.box(x0 + 120, top - 30, 150, 15, np.array([0.24, 0.25, 0.30]))
    layer.shape(limb(width, x0 + 400, top - 14, x0 + 440, top - 52, 2, 2), [0.16, 0.16, 0.2])
    layer.shape(limb(width, x0 + 440, top - 52, x0 + 390, top - 92, 2, 2), [0.16, 0.16, 0.2])
    layer.box(x0 + 355, top - 94, 72, 4, np.array([0.16, 0.16, 0.2]))

    for index, left in enumerate(np.arange(x0 + 34, x1 - 60, 62)):
        left = round(left)
        is_door = index in (0, 4, 8)
        tall = 150 if is_door else 74
        inside = np.linspace(1.0, 0.72, tall)[:, None, None] * np.array([1.0, 0.86, 0.60])
        inside = np.broadcast_to(inside, (tall, 50, 3)).copy()
        inside *= 0.88 + 0.2 * fractal(tall, 50, 20, rng, 3)[..., None]
        if not is_door and rng.random() < 0.75:  # a passenger
            py, px = np.ogrid[:tall, :50]
            head = np.hypot(py - 40, px - 25 + rng.integers(-8, 8)) < 10
            coat = np.hypot((py - 84) / 1.6, px - 25) < 21
            inside[head | coat] *= rng.uniform(0.18, 0.4)
        layer.box(left - 3, top + 17, 56, tall + 6, red * 0.55)
        layer.box(left, top + 20, 50, tall, inside)
        if is_door:
            layer.box(left + 24, top + 20, 2, tall, red * 0.5)
            layer.box(left, top + 96, 50, 60, red * 0.8)
    layer.box(x0 + 12, sill + 30, TRAM_LENGTH - 24, 3, np.array([0.74, 0.62, 0.34]))
    layer.box(x0 + 190, top + 1, 130, 13, np.array([0.07, 0.07, 0.08]))
    for letter in range(9):
        layer.box(x0 + 200 + 12 * letter, top + 4, 7, 7, np.array([1.0, 0.66, 0.2]))
    skirt = (x > x0 + 6) & (x < x1 - 6) & (y >= floor) & (y < floor + 12)
    layer.shape(skirt.astype(np.float32), np.array([0.09, 0.08, 0.09]))
    for wheel in (0.17, 0.29, 0.71, 0.83):
        centre = x0 + TRAM_LENGTH * wheel
        layer.shape(ellipse(width, centre, TRACK - 17, 18, 18), [0.07, 0.07, 0.08])
        layer.shape(ellipse(width, centre, TRACK - 17, 8, 8), [0.17, 0.17, 0.19])
    layer.shape(ellipse(width, x0 + 10, sill + 48, 7, 9), [1.0, 0.95, 0.82])
    return layer


def draw_front(rng: np.random.Generator) -> Layer:
    """What stands between the camera and the road: lamp posts, and a tree in autumn."""
    layer = Layer(W + 2 * PAN)
    width = layer.alpha.shape[1]
    iron = np.array([0.055, 0.06, 0.075])
    for post in LAMPS:
        layer.shape(limb(width, post, 735, post, 205, 6, 4), iron)
        layer.shape(limb(width, post, 735, post, 610, 11, 8), iron)
        layer.shape(limb(width, post, 206, post + 46, 190, 4, 3), iron)
        layer.shape(limb(width, post + 46, 190, post + 46, 202, 3, 3), iron)
        layer.shape(ellipse(width, post + 46, 224, 15, 20), [1.0, 0.90, 0.70])
        layer.shape(limb(width, post + 34, 203, post + 58, 203, 4, 4), iron)
    trunk = 1215
    bark = np.array([0.075, 0.062, 0.062])
    tips = []

    def grow(x: float, y: float, angle: float, size: float, thick: float) -> None:
        if thick < 1.2:
            tips.append((x, y))
            return
        nx, ny = x + size * np.sin(angle), y - size * np.cos(angle)
        layer.shape(limb(width, x, y, nx, ny, thick, thick * 0.72), bark)
        for side in (-1, 1):
            turn = side * rng.uniform(0.2, 0.6)
            grow(
                nx, ny, angle + turn, size * rng.uniform(0.68, 0.86), thick * rng.uniform(0.5, 0.74)
            )

    grow(trunk, 740, -0.04, 190, 21)
    leaves = np.zeros((H, width), np.float32)
    tone = np.zeros((H, width), np.float32)
    for x, y in tips:
        for _ in range(34):
            cx, cy = x + rng.normal(0, 22), y + rng.normal(0, 19)
            r, shade = rng.uniform(1.6, 4.6), rng.uniform(0.25, 1.2)
            top, left = int(max(0, cy - 9)), int(max(0, cx - 9))
            ys, xs = np.ogrid[top : int(max(top, min(H, cy + 9))), left : int(min(width, cx + 9))]
            spot = np.clip(r - np.hypot((ys - cy) * 1.3, xs - cx) + 0.5, 0, 1)
            part = np.s_[top : top + spot.shape[0], left : left + spot.shape[1]]
            tone[part] = tone[part] * (1 - spot) + shade * spot
            leaves[part] = np.maximum(leaves[part], spot)
    layer.shape(leaves, tone[..., None] * np.array([0.40, 0.24, 0.11]))
    return layer


def walker(x: float, phase: float, coat: tuple[float, float, float], hood: object) -> Layer:
    """Somebody under an umbrella on the pavement, in the middle of a step."""
    layer = Layer(W + PAN)
    width = layer.alpha.shape[1]
    feet, hip, neck = 520, 478, 440
    for swing in (np.sin(phase), -np.sin(phase)):
        layer.shape(limb(width, x, hip, x + 13 * swing, feet, 5, 4), [0.06, 0.06, 0.08])
    layer.shape(limb(width, x, neck + 6, x, hip + 8, 9, 12), coat)
    layer.shape(ellipse(width, x + 1, neck - 8, 7, 8), [0.42, 0.30, 0.25])
    layer.shape(limb(width, x + 4, neck - 44, x + 9, neck + 18, 1.2, 1.2), [0.05, 0.05, 0.06])
    dome = ellipse(width, x + 4, neck - 16, 40, 31)
    dome[neck - 17 :] = 0
    y, xs = np.ogrid[:H, :width]
    ribs = 0.85 + 0.25 * np.cos((xs - x - 4) / 6.0) - (y - (neck - 46)) / 110
    layer.shape(dome, np.asarray(hood) * ribs[..., None])
    return layer


class Street:
    """The scene, drawn once; `frame` gives it at any moment."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.sky, self.skyline = draw_sky(rng), draw_skyline(rng)
        self.houses, self.front = draw_houses(rng), draw_front(rng)
        self.tram = draw_tram()
        self.asphalt = fractal(512, 4096, 120, rng, 7) + rng.normal(0, 0.02, (512, 4096))
        self.puddles = fractal(512, 4096, 420, rng, 4)
        self.ripple = noise(H, W, 5, rng) - 0.5

    def frame(self, seconds: float) -> Array:
        """The picture `[HEIGHT, WIDTH, 3]` at a time, in [0, 1]."""
        ease = seconds / SECONDS
        camera = PAN * (0.9 * ease + 0.1 * ease * ease)
        picture = np.zeros((H, W, 3), np.float32)
        for layer, speed in ((self.sky, 0.05), (self.skyline, 0.3), (self.houses, 0.7)):
            picture = over(picture, *layer.shifted(camera * speed))
        for x, pace, coat, hood in WALKERS:
            position = x + pace * seconds
            layer = walker(position, position / 9, coat, hood)
            picture = over(picture, *layer.shifted(camera * 0.7))
        picture = self.road(picture, camera)
        picture = self.pass_tram(picture, camera, seconds)
        picture[60:62] *= 0.55  # the wire
        picture = over(picture, *self.front.shifted(camera * 1.3))
        return finish(picture)

    def road(self, picture: Array, camera: float) -> Array:
        """Wet asphalt with rails, from row ROAD down; it mirrors what stands behind it."""
        rows = np.arange(ROAD, H, dtype=np.float32)[:, None]
        near = 0.7 + 0.6 * (rows - CURB) / (H - CURB)  # speed of a row, which is its nearness
        u = (np.arange(W) / near + camera + 600).astype(int) % 4096
        v = (27000 / (rows - 226)).astype(int) % 512
        ground = self.asphalt[v, u][..., None] * np.array([0.15, 0.155, 0.19]) + 0.02
        wet = np.clip((self.puddles[v, u] - 0.36) * 3.2, 0.12, 0.85)[..., None]
        ripple = self.ripple[ROAD:]
        above = np.clip(2 * (CURB + 12) - rows + 14 * ripple, 0, H - 1).astype(int)
        beside = np.clip(np.arange(W) + 9 * np.roll(ripple, 37, 1), 0, W - 1).astype(int)
        road = ground + blur(picture, 7, 1.5)[above, beside] * wet * 0.62
        for rail in (TRACK - 4 - ROAD, TRACK + 34 - ROAD):
            road[rail - 3 : rail + 3] *= 0.6
            road[rail - 1 : rail + 1] += 0.16
        return np.concatenate([picture[:ROAD], road]).astype(np.float32)

    def pass_tram(self, picture: Array, camera: float, seconds: float) -> Array:
        """The tram, and its light on the wet road."""
        left = 1010 - 290 * seconds - camera * 0.85
        rgb = np.zeros((H, W, 3), np.float32)
        alpha = np.zeros((H, W), np.float32)
        columns = np.arange(W) - left
        whole = np.floor(columns).astype(int)
        part = (columns - whole).astype(np.float32)
        inside = (whole >= 0) & (whole < self.tram.alpha.shape[1] - 1)
        first, last = whole[inside], whole[inside] + 1
        share = part[inside]
        solid = self.tram.rgb * self.tram.alpha[..., None]
        rgb[:, inside] = solid[:, first] * (1 - share[:, None]) + solid[:, last] * share[:, None]
        alpha[:, inside] = (
            self.tram.alpha[:, first] * (1 - share) + self.tram.alpha[:, last] * share
        )
        shadow = blur(alpha, 5, 18)
        rows = np.clip(2 * TRACK - np.arange(H), 0, H - 1)
        ripple = np.clip(rows[:, None] + 18 * self.ripple, 0, H - 1).astype(int)
        mirrored, there = blur(rgb, 9, 1.5), blur(alpha, 9, 1.5)
        mirrored = np.take_along_axis(mirrored, ripple[..., None], axis=0)
        there = np.take_along_axis(there, ripple, axis=0)[..., None]
        below = (np.arange(H) >= TRACK - 6)[:, None, None]
        fade = np.clip(1.1 - (np.arange(H) - TRACK) / 190, 0, 1)[:, None, None]
        picture = np.where(below, picture * (1 - 0.75 * there) + 0.42 * fade * mirrored, picture)
        picture *= 1 - 0.5 * (shadow * (np.abs(np.arange(H) - TRACK) < 14)[:, None])[..., None]
        return over(picture.astype(np.float32), rgb, alpha)


def over(picture: Array, rgb: Array, alpha: Array) -> Array:
    """Colours already multiplied by their opacity, laid over a picture."""
    return picture * (1 - alpha[..., None]) + rgb


def finish(picture: Array) -> Array:
    """Let lights bloom, darken the corners, and scale down to the clip's size."""
    bright = np.clip(picture - 0.62, 0, 1) * 1.6
    picture = picture + 0.45 * blur(bright, 10, 10) + 0.4 * blur(bright, 42, 42)
    y, x = np.ogrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    picture = picture * (1 - 0.22 * (x * x + y * y) / 2)[..., None]
    small = picture.reshape(HEIGHT, 2, WIDTH, 2, 3).mean(axis=(1, 3))
    small = 1.12 * np.clip(small, 0, None) ** 1.06
    # as on film, highlights bend instead of clipping
    bent = np.where(small > 0.7, 0.7 + 0.3 * (1 - np.exp((0.7 - small) / 0.3)), small)
    return bent.astype(np.float32)


def make_sound(rng: np.random.Generator) -> Array:
    """A hush of rain over a soft chord, `[samples]` in [-1, 1]."""
    count = SOUND_RATE * SECONDS
    time = np.arange(count) / SOUND_RATE
    frequency = np.fft.rfftfreq(count, 1 / SOUND_RATE)
    hush = np.fft.rfft(rng.normal(0, 1, count))
    hush *= np.clip(frequency / 400, 0, 1) / np.sqrt(1 + (frequency / 2500) ** 2)
    rain = np.fft.irfft(hush, count)
    tones = (110.0, 164.81, 220.0, 277.18, 329.63)  # A major, wide
    chord = sum(
        np.sin(2 * np.pi * tone * time + i)
        * (0.7 + 0.3 * np.sin(2 * np.pi * (0.25 + 0.1 * i) * time))
        for i, tone in enumerate(tones)
    )
    fade = np.clip(np.minimum(time, SECONDS - time) / 0.4, 0, 1)
    sound = (0.035 * rain / rain.std() + 0.025 * chord) * fade
    return np.asarray(sound, np.float32)


def write_clip(path: Path, frames: list[Array], sound: Array, title: str) -> None:
    """Encode frames `[H, W, 3]` and sound as H.264 and AAC in MP4."""
    with av.open(path, "w") as container:
        container.metadata["title"] = title
        video = container.add_stream(
            "libx264", rate=FPS, options={"crf": "25", "preset": "veryslow"}
        )
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 12800)
        tags = video.codec_context
        tags.colorspace, tags.color_primaries, tags.color_trc, tags.color_range = 1, 1, 1, 1
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        audio.bit_rate = 48_000
        reformatter = av.video.reformatter.VideoReformatter()
        for index, picture in enumerate(frames):
            pixels = np.rint(picture * 255).astype(np.uint8)
            frame = reformatter.reformat(
                av.VideoFrame.from_ndarray(pixels, format="rgb24"),
                format="yuv420p",
                dst_colorspace="ITU709",
                dst_color_range="MPEG",
            )
            frame.pts, frame.time_base = index * 12800 // FPS, Fraction(1, 12800)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts = SOUND_RATE, 0
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))


def behind_glass(clean: torch.Tensor) -> torch.Tensor:
    """The clip `[T, 3, H, W]` through a pane with drops, some of which slide."""
    frames = len(clean)
    random = np.random.default_rng(PANE_SEED)
    pane: Pane = draw_pane(
        random, height=HEIGHT, width=WIDTH, times=(0, frames - 1), scale=0.9, kind="pane"
    )
    view = torch.nn.functional.interpolate(clean, scale_factor=0.25, mode="area")
    wet, _ = pane_on(clean, pane, times=np.arange(frames), view=view, place=(0.0, 0.0, 1 / WIDTH))
    return wet


def by_hand(street: NDArray[np.uint8]) -> tuple[list[Array], list[Array]]:
    """The street `[T, H, W, 3]` by a trembling hand: blurred, and as a short exposure has it."""
    clips: tuple[list[Array], list[Array]] = [], []
    top = (HAND_WIDTH - HAND_HEIGHT) // 2
    for time in range(len(street)):
        near = np.arange(max(0, time - 1), min(len(street), time + 2))
        opened = time - SHUTTER.share / 2, time + SHUTTER.share / 2
        lights, moments = motion_blur.between_frames(street[near], near, FILM, [opened])
        middle = WIDTH / 2, HEIGHT / 2
        seen = motion_blur.Layer(light=lights, centre=middle, motion=HAND, moments=moments)
        pair = motion_blur.exposed([seen], [time], SHUTTER, FILM, HAND_WIDTH)
        for clip, frames in zip(clips, pair, strict=True):
            clip.append(frames[0, :, top : top + HAND_HEIGHT].permute(1, 2, 0).numpy())
    return clips


def main(folder: Path) -> None:
    """Render the clips into a folder."""
    street = Street()
    dry = [street.frame(index / FPS) for index in range(FPS * SECONDS)]
    generator = torch.Generator().manual_seed(11)
    cover = render_streaks(STORM, generator, frames=len(dry), height=HEIGHT, width=WIDTH)
    clean = torch.from_numpy(np.stack(dry)).permute(0, 3, 1, 2)
    rainy = list(fall(clean, cover, STORM).permute(0, 2, 3, 1).numpy())
    wet = list(behind_glass(clean).permute(0, 2, 3, 1).numpy())
    sound = make_sound(np.random.default_rng(5))
    write_clip(folder / "rain.mp4", rainy, sound, "A street at dusk, in the rain")
    write_clip(folder / "drops.mp4", wet, sound, "A street at dusk, through a wet pane")
    write_clip(folder / "dry.mp4", dry, sound, "A street at dusk")
    blurred, sharp = by_hand(np.rint(np.stack(dry) * 255).astype(np.uint8))
    write_clip(folder / "blur.mp4", blurred, sound, "A street at dusk, by a trembling hand")
    write_clip(folder / "sharp.mp4", sharp, sound, "A street at dusk, by a trembling hand, sharp")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
