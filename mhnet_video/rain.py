"""Synthetic rain: streaks of several depths, new in every frame, of one storm over a clip.

A layer of streaks is a sparse field of points, each as bright as its drop, convolved with the
picture of one falling drop: a line as long as the fall during the exposure and as wide as the drop
and its defocus. Streaks cover the scene with the light of the sky they refract, so they are bright
before dark things and vanish before a bright sky. Source of that model: Garg and Nayar, "Vision
and Rain", IJCV 2007, sections 3 and 4.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StreakLayer:
    """Streaks at about one distance from the camera."""

    density: float
    """Drops in a pixel of one frame."""
    length: float
    """Fall of a drop during the exposure, in pixels."""
    sigma: float
    """Half width of a streak (standard deviation of its profile), in pixels."""
    taper: float
    """Softness of a streak's ends, as a share of its length."""
    angle: float
    """Direction of fall, in radians from straight down, positive to the right."""
    opacity: float
    """Share of the scene that the brightest streaks cover, 0 to 1."""
    spread: float
    """Spread of the streaks' opacities, 0 (all alike) to 1."""


@dataclass(frozen=True, kw_only=True)
class Storm:
    """The rain of one clip."""

    layers: tuple[StreakLayer, ...]
    gust: float
    """Standard deviation of the frames' common angle, in radians."""
    light: tuple[float, float, float]
    """Colour of the streaks, RGB in [0, 1]."""


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _log_uniform(generator: torch.Generator, low: float, high: float) -> float:
    return math.exp(_uniform(generator, math.log(low), math.log(high)))


def _normal(generator: torch.Generator, sigma: float) -> float:
    return sigma * float(torch.randn((), generator=generator))


def draw_storm(generator: torch.Generator, *, scale: float = 1.0) -> Storm:
    """Draw a storm at random: mostly thin and sparse, at times near, wide, heavy or slanted.

    Args:
        generator: Where the randomness comes from, on the CPU.
        scale: Size of the picture against one of 360 to 720 rows; lengths and widths grow with it.
    """
    slanted = _uniform(generator, 0, 1) < 0.25
    angle = _normal(generator, math.radians(22 if slanted else 7))
    angle = max(-0.9, min(0.9, angle))
    layers = []
    for _ in range(1 + int(_uniform(generator, 0, 4))):
        kind = _uniform(generator, 0, 1)
        if kind < 0.45:  # crisp and thin, at the distance that is in focus
            density = _log_uniform(generator, 1e-4, 6e-3)
            length, sigma = _log_uniform(generator, 4, 45), _uniform(generator, 0.3, 0.9)
            opacity, taper = _uniform(generator, 0.2, 0.95), _uniform(generator, 0.03, 0.2)
        elif kind < 0.7:  # far: short, faint and many
            density = _log_uniform(generator, 5e-4, 1.5e-2)
            length, sigma = _log_uniform(generator, 3, 16), _uniform(generator, 0.35, 0.8)
            opacity, taper = _uniform(generator, 0.06, 0.4), _uniform(generator, 0.1, 0.3)
        elif kind < 0.92:  # near: long, wide and out of focus
            density = _log_uniform(generator, 5e-5, 1.2e-3)
            length, sigma = _log_uniform(generator, 20, 110), _uniform(generator, 0.8, 2.8)
            opacity, taper = _uniform(generator, 0.06, 0.55), _uniform(generator, 0.1, 0.35)
        else:  # blobs: short exposures freeze near drops
            density = _log_uniform(generator, 5e-5, 1e-3)
            sigma = _uniform(generator, 0.7, 2.2)
            length = sigma * _uniform(generator, 1, 5)
            opacity, taper = _uniform(generator, 0.1, 0.8), 0.3
        depth_angle = angle + _normal(generator, math.radians(2))
        spread = _uniform(generator, 0.3, 1)
        # the drops of one distance still differ: two lengths and widths stand for them
        for share, factor in ((0.65, 1.0), (0.35, _uniform(generator, 0.45, 0.8))):
            layers.append(
                StreakLayer(
                    density=density * share,
                    length=length * factor * scale,
                    sigma=sigma * factor**0.5 * scale,
                    taper=taper,
                    angle=depth_angle + _normal(generator, math.radians(1)),
                    opacity=opacity,
                    spread=spread,
                )
            )
    level = _uniform(generator, 0.7, 1.05)
    red, green, blue = (level + _normal(generator, 0.02) for _ in range(3))
    return Storm(
        layers=tuple(layers),
        gust=math.radians(_uniform(generator, 0, 2.5)),
        light=(red, green, blue),
    )


def _streak_spectra(
    layer: StreakLayer, angles: Tensor, phases: Tensor, height: int, width: int
) -> Tensor:
    """The spectrum of one streak of peak 1 around the origin, `[T, H, W // 2 + 1]`."""
    device = angles.device
    y = torch.fft.fftfreq(height, 1 / height, device=device)[None, :, None]
    x = torch.fft.fftfreq(width, 1 / width, device=device)[None, None, :]
    x, y = x - phases[:, 0, None, None], y - phases[:, 1, None, None]
    sine, cosine = angles.sin()[:, None, None], angles.cos()[:, None, None]
    along, across = x * sine + y * cosine, x * cosine - y * sine
    # longer than the field, a streak would meet its own other end
    length = min(layer.length, 0.85 * height)
    softness = math.sqrt(2) * max(layer.sigma, layer.taper * length)
    half = length / 2
    profile = torch.erf((along + half) / softness) - torch.erf((along - half) / softness)
    peak = 2 * math.erf(half / softness)
    profile = profile / peak * torch.exp(across.square() / (-2 * layer.sigma**2))
    spectra: Tensor = torch.fft.rfft2(profile)
    return spectra


def render_streaks(
    storm: Storm,
    generator: torch.Generator,
    *,
    frames: int,
    height: int,
    width: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """How much of every pixel the streaks cover.

    The field wraps round: what leaves at the bottom enters at the top.

    Args:
        storm: The rain.
        generator: Where the randomness comes from, on the CPU.
        frames: Number of frames, T; the drops of each are new.
        height: Rows.
        width: Columns.
        device: Where to render.

    Returns:
        `[T, 1, H, W]` float32, in [0, 1).
    """
    cover = torch.zeros(frames, height, width, device=device)
    gusts = torch.randn(frames, generator=generator) * storm.gust
    for layer in storm.layers:
        angles = (layer.angle + gusts).to(device)
        phases = (torch.rand(frames, 2, generator=generator) - 0.5).to(device)
        mean = torch.full((frames,), layer.density * height * width)
        counts = torch.poisson(mean, generator=generator).long()
        if not int(counts.sum()):
            continue
        frame = torch.repeat_interleave(torch.arange(frames), counts)
        place = (torch.rand(len(frame), generator=generator) * height * width).long()
        place = place.clamp_(max=height * width - 1)
        bright = 1 - layer.spread * torch.rand(len(frame), generator=generator)
        points = torch.zeros(frames * height * width)
        points.index_add_(0, frame * height * width + place, bright * layer.opacity)
        field = torch.fft.rfft2(points.to(device).reshape(frames, height, width))
        field = field * _streak_spectra(layer, angles, phases, height, width)
        streaks = torch.fft.irfft2(field, s=(height, width)).clamp_(0, 0.98)
        cover = 1 - (1 - cover) * (1 - streaks)
    return cover[:, None]


def fall(clean: Tensor, cover: Tensor, light: tuple[float, float, float] | Tensor) -> Tensor:
    """Let rain fall on clean frames.

    Args:
        clean: `[T, 3, H, W]`, RGB in [0, 1].
        cover: `[T, 1, H, W]` in [0, 1], as `render_streaks` gives it.
        light: Colour of the streaks, RGB in [0, 1].

    Returns:
        The rainy frames, `[T, 3, H, W]` in [0, 1]. Streaks brighten only: where the scene is
        brighter than they are, they cannot be seen.
    """
    colour = torch.as_tensor(light, dtype=clean.dtype, device=clean.device).reshape(-1, 3, 1, 1)
    return (clean + cover * (colour - clean).clamp(min=0)).clamp(0, 1)
