"""Synthetic rain: streaks at several depths, drawn anew for every frame of a clip.

A layer of streaks is a sparse field of points convolved with the image of one falling drop. This
image is a line. Its length is the fall during the exposure, its width that of the drop and of its
defocus. Streaks refract the light of the sky: they are bright in front of dark objects, and vanish
in front of a bright sky. Source of the model: Garg and Nayar, "Vision and Rain", IJCV 2007,
sections 3 and 4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.color_spaces import LUMA_WEIGHTS
from mhnet_video.model.align import SHRINK, estimate, move, shrunken_luma


@dataclass(frozen=True, kw_only=True)
class StreakLayer:
    """Streaks at about one distance from the camera."""

    density: float
    """Drops per pixel of a frame."""
    length: float
    """Fall of a drop during the exposure, in pixels."""
    sigma: float
    """Standard deviation of a streak's cross profile, in pixels."""
    taper: float
    """Softness of a streak's ends, as a share of its length."""
    angle: float
    """Direction of fall, in radians from straight down, positive to the right."""
    opacity: float
    """Opacity of the brightest streaks, 0 to 1."""
    spread: float
    """Spread of the streaks' opacities, 0 (all equal) to 1."""
    edge: float = 1.0
    """Steepness of the cross profile: 1 is a Gaussian, 3 nearly a bar."""


@dataclass(frozen=True, kw_only=True)
class Storm:
    """The rain of one clip."""

    layers: tuple[StreakLayer, ...]
    gust: float
    """Standard deviation of the angle from frame to frame, in radians."""
    light: tuple[float, float, float]
    """Colour of the streaks, RGB in [0, 1]."""
    blend: str = "brighten"
    """How streaks are blended with the scene, one of `BLENDS`."""
    patches: float = 0.0
    """Amplitude of the variation of opacity over the picture, 0 (even) to 1."""
    fan: float = 0.0
    """Difference of the streaks' angle between the left edge and the right one, in radians. They
    fan out where the camera moves into the rain, or looks up or down."""
    share: float = 1.0
    """Share of the picture in which rain is visible, 0 to 1. It is invisible in front of a bright
    wall or under a roof."""


BLENDS = ("brighten", "paint", "add")
"""Modes of blending. `brighten` is sky light, invisible in front of brighter pixels. `paint` also
darkens a bright sky, as blurred water does. `add` is light added, as by lit drops and in most
published pairs."""


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _log_uniform(generator: torch.Generator, low: float, high: float) -> float:
    return math.exp(_uniform(generator, math.log(low), math.log(high)))


def _normal(generator: torch.Generator, sigma: float) -> float:
    return sigma * float(torch.randn((), generator=generator))


def draw_storm(generator: torch.Generator, *, scale: float = 1.0) -> Storm:
    """Draw a storm at random.

    Three fifths have several depths: mostly nearly vertical, thin and sparse streaks, sometimes
    near, wide, heavy or slanted ones. The others have long, dense streaks of one depth and one
    direction all over the picture, as seen from a moving car and in most published pairs.

    Args:
        generator: Random generator, on the CPU.
        scale: Size of the picture relative to one of 360 to 720 rows; scales lengths and widths.
    """
    uniform = _uniform(generator, 0, 1)
    driven = uniform < 0.4
    if driven:
        angle = math.radians(_uniform(generator, -60, 60))
        layers = _driven_layers(generator, angle, scale)
    else:
        slanted = uniform < 0.6
        angle = _normal(generator, math.radians(25 if slanted else 7))
        angle = max(-1.05, min(1.05, angle))
        layers = _deep_layers(generator, angle, scale)
    blend = _blend(_uniform(generator, 0, 1), (0.3, 0.7) if driven else (0.6, 0.8))
    level = _uniform(generator, 0.55 if driven else 0.7, 1.05)
    if blend == "paint":  # drops refract all their surroundings, which are darker than the sky
        level *= _uniform(generator, 0.6, 1)
    red, green, blue = (level + _normal(generator, 0.02) for _ in range(3))
    return Storm(
        layers=tuple(layers),
        gust=math.radians(_uniform(generator, 0, 1.0 if driven else 2.5)),
        light=(red, green, blue),
        blend=blend,
        patches=_uniform(generator, 0.2, 1) if _uniform(generator, 0, 1) < 0.4 else 0.0,
        fan=_normal(generator, math.radians(20)) if _uniform(generator, 0, 1) < 0.35 else 0.0,
        share=_uniform(generator, 0.15, 0.85) if _uniform(generator, 0, 1) < 0.3 else 1.0,
    )


def _blend(share: float, limits: tuple[float, float]) -> str:
    """Choose the first of `BLENDS` up to the first limit, the second up to the second."""
    return BLENDS[sum(share > limit for limit in limits)]


def _deep_layers(generator: torch.Generator, angle: float, scale: float) -> list[StreakLayer]:
    """Draw up to four depths of rain, two layers each."""
    layers = []
    for _ in range(1 + int(_uniform(generator, 0, 4))):
        uniform = _uniform(generator, 0, 1)
        edge = 1.0
        if uniform < 0.42:  # in focus: sharp and thin
            density = _log_uniform(generator, 1e-4, 6e-3)
            length, sigma = _log_uniform(generator, 4, 45), _uniform(generator, 0.3, 0.9)
            opacity, taper = _uniform(generator, 0.2, 0.95), _uniform(generator, 0.03, 0.2)
        elif uniform < 0.66:  # far: short, faint and many
            density = _log_uniform(generator, 5e-4, 1.5e-2)
            length, sigma = _log_uniform(generator, 3, 16), _uniform(generator, 0.35, 0.8)
            opacity, taper = _uniform(generator, 0.06, 0.4), _uniform(generator, 0.1, 0.3)
        elif uniform < 0.86:  # near: long, wide and out of focus
            density = _log_uniform(generator, 5e-5, 1.2e-3)
            length, sigma = _log_uniform(generator, 20, 110), _uniform(generator, 0.8, 2.8)
            opacity, taper = _uniform(generator, 0.06, 0.55), _uniform(generator, 0.1, 0.35)
        elif uniform < 0.94:  # near and sharp: few broad bars
            density = _log_uniform(generator, 2e-5, 2e-4)
            length, sigma = _log_uniform(generator, 25, 110), _uniform(generator, 1.2, 2.6)
            opacity, taper = _uniform(generator, 0.15, 0.7), _uniform(generator, 0.02, 0.1)
            edge = 3.0
        else:  # blobs: near drops in a short exposure
            density = _log_uniform(generator, 5e-5, 1e-3)
            sigma = _uniform(generator, 0.7, 2.2)
            length = sigma * _uniform(generator, 1, 5)
            opacity, taper = _uniform(generator, 0.1, 0.8), 0.3
        depth_angle = angle + _normal(generator, math.radians(2))
        spread = _uniform(generator, 0.3, 1)
        # drops at one distance differ in size: two lengths and widths approximate that
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
                    edge=edge,
                )
            )
    return layers


def _driven_layers(generator: torch.Generator, angle: float, scale: float) -> list[StreakLayer]:
    """Draw two layers of long streaks of one direction."""
    length, sigma = _log_uniform(generator, 10, 90), _uniform(generator, 0.4, 1.5)
    # rain looks light or heavy by the area that streaks cover, not by their number
    covered = _log_uniform(generator, 0.01, 0.6)
    opacity, taper = _uniform(generator, 0.15, 0.9), _uniform(generator, 0.03, 0.35)
    spread = _uniform(generator, 0.4, 1)
    layers = []
    for share, factor in ((0.5, 1.0), (0.5, _uniform(generator, 0.4, 0.9))):
        layers.append(
            StreakLayer(
                density=min(3e-2, share * covered / (2.5 * length * sigma * factor**1.5)),
                length=length * factor * scale,
                sigma=sigma * factor**0.5 * scale,
                taper=taper,
                angle=angle + _normal(generator, math.radians(1)),
                opacity=opacity,
                spread=spread,
            )
        )
    return layers


def _streak_spectra(
    layer: StreakLayer, angles: Tensor, phases: Tensor, height: int, width: int
) -> Tensor:
    """Fourier transform of one streak of peak 1 at the origin: `[T, H, W // 2 + 1]` complex."""
    device = angles.device
    y = torch.fft.fftfreq(height, 1 / height, device=device)[None, :, None]
    x = torch.fft.fftfreq(width, 1 / width, device=device)[None, None, :]
    x, y = x - phases[:, 0, None, None], y - phases[:, 1, None, None]
    sine, cosine = angles.sin()[:, None, None], angles.cos()[:, None, None]
    along, across = x * sine + y * cosine, x * cosine - y * sine
    # the field wraps round: a longer streak would overlap itself
    length = min(layer.length, 0.85 * height)
    softness = math.sqrt(2) * max(layer.sigma, layer.taper * length)
    half = length / 2
    profile = torch.erf((along + half) / softness) - torch.erf((along - half) / softness)
    peak = 2 * math.erf(half / softness)
    squared = across.square() / (2 * layer.sigma**2)
    profile = profile / peak * torch.exp(-squared if layer.edge == 1 else -(squared**layer.edge))
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
    """Render the opacity of the streaks at each pixel.

    The field wraps round: a streak that leaves at the bottom enters at the top.

    Args:
        storm: The rain.
        generator: Random generator, on the CPU.
        frames: Number of frames, T; the drops of each are new.
        height: Rows, H.
        width: Columns, W.
        device: Device to render on.

    Returns:
        Opacity `[T, 1, H, W]` float32, in [0, 1).
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
        pixel = (torch.rand(len(frame), generator=generator) * height * width).long()
        pixel = pixel.clamp_(max=height * width - 1)
        bright = 1 - layer.spread * torch.rand(len(frame), generator=generator)
        points = torch.zeros(frames * height * width)
        points.index_add_(0, frame * height * width + pixel, bright * layer.opacity)
        field = torch.fft.rfft2(points.to(device).reshape(frames, height, width))
        field = field * _streak_spectra(layer, angles, phases, height, width)
        streaks = torch.fft.irfft2(field, s=(height, width)).clamp_(0, 0.98)
        if storm.patches:
            streaks = streaks * _patches(storm.patches, generator, streaks)
        cover = 1 - (1 - cover) * (1 - streaks)
    if storm.fan:
        cover = _fan_out(storm.fan, cover)
    if storm.share < 1:
        cover = cover * _region(storm.share, generator, cover)
    return cover[:, None]


def _fan_out(turn: float, cover: Tensor) -> Tensor:
    """Shear `[T, H, W]`, in proportion to a column's distance from the middle one."""
    frames, height, width = cover.shape
    y = torch.linspace(-1, 1, height, device=cover.device)[:, None]
    x = torch.linspace(-1, 1, width, device=cover.device)[None]
    sheared = x - y * x * math.tan(turn / 2) * height / width
    grid = torch.stack([sheared, y.expand(height, width)], dim=-1)
    grid = grid.expand(frames, -1, -1, -1)
    turned = F.grid_sample(
        cover[:, None], grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )
    return turned[:, 0]


def _region(share: float, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw a smooth mask, 1 in about `share` of the picture and 0 elsewhere: `[1, H, W]`."""
    height, width = like.shape[1:]
    cells = 2 + int(_uniform(generator, 0, 3)), 2 + int(_uniform(generator, 0, 3))
    noise = torch.rand(1, 1, *cells, generator=generator).to(like.device)
    noise = F.interpolate(noise, size=(height, width), mode="bilinear", align_corners=True)[0]
    limit = noise[:, ::4, ::4].flatten().quantile(1 - share)
    return torch.sigmoid((noise - limit) * _log_uniform(generator, 10, 100))


def _patches(amount: float, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw smooth noise in [1 - amount, 1], of random scale: `[T, H, W]`."""
    frames, height, width = like.shape
    size = _log_uniform(generator, 8, 64)
    cells = frames, 1, 2 + round(height / size), 2 + round(width / size)
    noise = torch.rand(cells, generator=generator).to(like.device)
    noise = F.interpolate(noise, size=(height, width), mode="bilinear", align_corners=True)
    return 1 - amount * noise[:, 0]


def fall(clean: Tensor, cover: Tensor, storm: Storm, light: Tensor | None = None) -> Tensor:
    """Blend streaks into clean frames.

    Args:
        clean: `[T, 3, H, W]`, RGB in [0, 1].
        cover: Opacity of the streaks, `[T, 1, H, W]` in [0, 1], from `render_streaks`.
        storm: Mode of blending and colour of the streaks.
        light: Colour of the streaks, RGB `[3]` in [0, 1], or at each pixel `[1, 3, H, W]`; None
            for the storm's.

    Returns:
        The rainy frames, `[T, 3, H, W]` in [0, 1].
    """
    colour = torch.as_tensor(storm.light) if light is None else light
    colour = colour.to(clean).reshape(1, 3, *colour.shape[2:] or (1, 1))
    if storm.blend == "add":
        change = cover * colour
    elif storm.blend == "paint":
        change = cover * (colour - clean)
    else:
        change = cover * (colour - clean).clamp(min=0)
    return (clean + change).clamp(0, 1)


def rain_by_night(
    clean: Tensor, light: Tensor, generator: torch.Generator, *, scale: float = 1.0
) -> Tensor:
    """Draw a storm that lamps light, and blend it into the frames of a clip.

    Near lamps it is dense, and elsewhere invisible. The opacity is scaled so that the PSNR of most
    clips is 26 to 42 dB.

    Args:
        clean: `[T, 3, H, W]`, RGB in [0, 1], on any device, from `nightfall`.
        light: Light on the drops, `[1, 3, H, W]`, from `nightfall`.
        generator: Random generator, on the CPU.
        scale: Size of the picture relative to one of 360 to 720 rows, see `draw_storm`.

    Returns:
        The rainy frames, `[T, 3, H, W]` in [0, 1], on the device of `clean`.
    """
    frames, _, height, width = clean.shape
    storm = draw_storm(generator, scale=scale * _log_uniform(generator, 0.6, 1.5))
    if _uniform(generator, 0, 1) < 0.5:  # far: short, and so many that they overlap
        layer = StreakLayer(
            density=_log_uniform(generator, 3e-3, 4e-2),
            length=_log_uniform(generator, 4, 32) * scale,
            sigma=_uniform(generator, 0.4, 1.1) * scale,
            taper=_uniform(generator, 0.05, 0.3),
            angle=_normal(generator, math.radians(20)),
            opacity=_uniform(generator, 0.1, 0.8),
            spread=_uniform(generator, 0.3, 1),
        )
        storm = replace(storm, layers=(layer,))
    storm = replace(storm, blend="add", share=1.0)
    cover = render_streaks(
        storm, generator, frames=frames, height=height, width=width, device=clean.device
    )
    if _uniform(generator, 0, 1) < 0.3:
        cover = blur(cover, _uniform(generator, 0.4, 1.2))
    error = float((fall(clean, cover, storm, light) - clean).square().mean())
    wanted = 10 ** (-_uniform(generator, 26, 42) / 10)
    gain = min(8.0, max(0.2, math.sqrt(wanted / error))) if error > 0 else 1.0
    return fall(clean, (cover * gain).clamp(0, 0.97), storm, light)


def rain_on(clean: Tensor, generator: torch.Generator, *, scale: float = 1.0) -> Tensor:
    """Draw a storm, and blend it into the frames of a clip.

    In half of the clips the streaks' brightness follows the scene's. In some they shine near lamps
    only. The opacity is scaled so that the PSNR of most clips is 20 to 36 dB; about a third have
    16 to 26 dB.

    Args:
        clean: `[T, 3, H, W]`, RGB in [0, 1], on any device.
        generator: Random generator, on the CPU.
        scale: Size of the picture relative to one of 360 to 720 rows, see `draw_storm`.

    Returns:
        The rainy frames, `[T, 3, H, W]` in [0, 1], on the device of `clean`.
    """
    frames, _, height, width = clean.shape
    scale *= (0.7, 1.0, 1.0, 1.4)[int(_uniform(generator, 0, 4))]
    storm = draw_storm(generator, scale=scale)
    cover = render_streaks(
        storm, generator, frames=frames, height=height, width=width, device=clean.device
    )
    light = torch.tensor(storm.light)
    if _uniform(generator, 0, 1) < 0.5:
        # sky light follows the exposure: dark scenes have darker streaks
        bright = float(clean[:, :, ::4, ::4].flatten().quantile(0.95))
        light = light * min(1.0, max(0.35, bright * _uniform(generator, 1.0, 1.5)))
    if _uniform(generator, 0, 1) < 0.12:
        # at night streaks shine around lamps only
        around = F.avg_pool2d(clean.mean(dim=1, keepdim=True), 8, ceil_mode=True)
        around = F.avg_pool2d(around, 5, 1, 2, count_include_pad=False)
        around = F.interpolate(around, (height, width), mode="bilinear")
        cover = cover * (around * 2.5).clamp(0.05, 1)
    if _uniform(generator, 0, 1) < 0.3:  # out of focus, or a wet lens
        cover = blur(cover, _uniform(generator, 0.4, 1.0))
    heavy = _uniform(generator, 0, 1) < 0.35
    decibels = _uniform(generator, 16, 26) if heavy else 28 + _normal(generator, 4)
    wanted = 10 ** (-max(15.0, min(40.0, decibels)) / 10)
    rainy = fall(clean, cover, storm, light)
    error = float((rainy - clean).square().mean())
    if error > 0:
        gain = min(5.0, max(0.2, math.sqrt(wanted / error)))
        rainy = fall(clean, (cover * gain).clamp(0, 0.97), storm, light)
    return rainy


def camera(frames: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Apply a random camera model: tone curve, sharpening, noise, compression.

    All clips get the same tone curve, noise and codec settings. These are no rain, and must stay.

    Args:
        frames: Clips of one shape, `[T, 3, H, W]`, RGB in [0, 1]; the last one is clean.
        generator: Random generator, on the CPU.

    Returns:
        The clips, in [0, 1].
    """
    return coded(lens(frames, generator), generator)


def lens(frames: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """The first half of `camera`: tone and sharpening; the clips may differ in length."""
    clips = list(frames)
    if _uniform(generator, 0, 1) < 0.25:  # gamma and contrast make streaks more visible
        gamma, contrast = _log_uniform(generator, 0.75, 1.35), _uniform(generator, -0.1, 0.5)
        tone = [x.clamp(0, 1) ** gamma for x in clips]
        clips = [x + contrast * (x * x * (3 - 2 * x) - x) for x in tone]
    if _uniform(generator, 0, 1) < 0.35:
        amount, sigma = _uniform(generator, 0.2, 1.3), _uniform(generator, 0.7, 1.3)
        clips = [x + amount * (x - blur(x, sigma)) for x in clips]
    return clips


def coded(frames: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """The second half of `camera`: noise and compression."""
    clips = list(frames)
    if _uniform(generator, 0, 1) < 0.35:
        sigma = _log_uniform(generator, 0.002, 0.025)
        noise = torch.randn(clips[0].shape, generator=generator).to(clips[0]) * sigma
        clips = [x + noise for x in clips]
    clips = [x.clamp(0, 1) for x in clips]
    if _uniform(generator, 0, 1) < 0.6:
        flat = _uniform(generator, 0, 1) < 0.5
        is_video = len(clips[-1]) > 1 and _uniform(generator, 0, 1) < INTER_SHARE
        quality = _uniform(generator, 30, 96)
        shift = int(_uniform(generator, 0, 16)), int(_uniform(generator, 0, 16))
        motion = coded_motion(clips[-1]) if is_video else None
        clips = [
            compress(x, quality, flat=flat or is_video, shift=shift, motion=motion) for x in clips
        ]
    return clips


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `[N, C, H, W]` by `sigma` pixels."""
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(offsets.square() / (-2 * sigma**2))
    taps = taps / taps.sum()
    if x.device.type == "cpu":  # PyTorch's convolution of single planes is many times slower
        planes, row = x.reshape(-1, *x.shape[2:]).contiguous().numpy(), taps.numpy()
        border = cv2.BORDER_REPLICATE
        blurred = [cv2.sepFilter2D(plane, -1, row, row, borderType=border) for plane in planes]
        return torch.from_numpy(np.stack(blurred)).view(x.shape)
    maps = x.reshape(-1, 1, *x.shape[2:])
    maps = F.pad(maps, (radius, radius, radius, radius), mode="replicate")
    maps = F.conv2d(maps, taps.reshape(1, 1, 1, -1))
    return F.conv2d(maps, taps.reshape(1, 1, -1, 1)).reshape(x.shape)


_LUMA_STEPS = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""Quantization steps for luma. Source: ITU-T T.81, table K.1."""


INTER_SHARE = 0.6
"""Share of compressed clips that are coded by inter prediction, as nearly all video is."""
INTER_ROUNDING = 1 / 6
"""Rounding offset of inter-coded residuals, in quantization steps, as encoders of H.264 use it.
Residuals below 1 - 1/6 of a step become zero: noise and remains of rain stay from the frame
before."""


def coded_motion(clip: Tensor) -> Tensor:
    """Estimate the motion vectors by which an encoder predicts each frame from the one before.

    Args:
        clip: `[T, 3, H, W]`, RGB in [0, 1].

    Returns:
        `[T - 1, 2, h, w]`, right and down, in pixels, rounded to quarters; h and w are smaller
        than H and W.
    """
    luma = shrunken_luma(clip)
    motion = SHRINK * estimate(luma[1:], luma[:-1, None])[:, 0]
    return (4 * motion).round() / 4


def compress(
    x: Tensor,
    quality: float,
    *,
    flat: bool,
    shift: tuple[int, int] = (0, 0),
    motion: Tensor | None = None,
) -> Tensor:
    """Apply the quantization of a codec, without entropy coding and deblocking.

    The cosine transform of 8x8 blocks of YCbCr 4:2:0 is rounded to the codec's steps.

    Args:
        x: `[N, 3, H, W]`, RGB in [0, 1]; H and W are multiples of 16.
        quality: Quality on libjpeg's scale, 1 to 100.
        flat: Whether all frequencies have the same step, as in H.264, instead of JPEG's table.
        shift: Offset of the block grid, down and right, in pixels.
        motion: Motion vectors of a clip from `coded_motion`: every frame but the first is
            predicted from the one before. None for intra coding.

    Returns:
        `[N, 3, H, W]` in [0, 1].
    """
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    steps = torch.tensor(_LUMA_STEPS, device=x.device, dtype=x.dtype).reshape(8, 8)
    if flat:
        steps = torch.full_like(steps, 24)
    steps = (steps * scale).round().clamp(min=1) / 255
    red, green, blue = x.unbind(1)
    of_red, of_green, of_blue = LUMA_WEIGHTS["bt601"]
    luma = of_red * red + of_green * green + of_blue * blue
    chroma = torch.stack([(blue - luma) * 0.564, (red - luma) * 0.713], dim=1)
    luma = _coded(luma[:, None], steps, shift, motion)[:, 0]
    half = None if motion is None else motion / 2
    coarse = 1.3 * steps.clamp(max=steps[0, 7])
    chroma = _coded(F.avg_pool2d(chroma, 2), coarse, (shift[0] // 2, shift[1] // 2), half)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    blue, red = luma + chroma[:, 0] / 0.564, luma + chroma[:, 1] / 0.713
    green = (luma - of_red * red - of_blue * blue) / of_green
    return torch.stack([red, green, blue], dim=1).clamp(0, 1)


def _coded(planes: Tensor, steps: Tensor, shift: tuple[int, int], motion: Tensor | None) -> Tensor:
    """Quantize planes `[N, C, H, W]`, with inter prediction where there is motion."""
    if motion is None:
        return _quantize(planes, steps, shift)
    coded = [_quantize(planes[0], steps, shift)]
    for plane, each in zip(planes[1:], motion, strict=True):
        expected = move(coded[-1][None], each[None])[0]
        coded.append(expected + _quantize(plane - expected, steps, shift, INTER_ROUNDING))
    return torch.stack(coded)


def _quantize(x: Tensor, steps: Tensor, shift: tuple[int, int], rounding: float = 0.5) -> Tensor:
    """Round the cosine transform of the 8x8 blocks of `[..., H, W]` to multiples of `steps`."""
    index = torch.arange(8, device=x.device, dtype=x.dtype)
    basis = torch.cos(math.pi / 8 * (index[None] + 0.5) * index[:, None]) / 2
    basis[0] /= math.sqrt(2)
    height, width = x.shape[-2:]
    blocks = x.roll(shift, (-2, -1)).reshape(-1, height // 8, 8, width // 8, 8).transpose(2, 3)
    coefficients = basis @ blocks @ basis.T
    coefficients = coefficients.sign() * (coefficients.abs() / steps + rounding).floor() * steps
    blocks = basis.T @ coefficients @ basis
    rounded = blocks.transpose(2, 3).reshape(x.shape)
    return rounded.roll((-shift[0], -shift[1]), (-2, -1))
