"""Drops of water on the glass before a camera, and what else a wet pane does to a clip.

A pane is a height map of water. Where there is water, light is bent along its gradient, so that a
drop shows a wide, inverted view of the scene: road above, sky below. The glass is nearer than what
the lens is focused on, so that all of it is blurred by one circle of confusion, and drops smaller
than that circle become faint discs. Blurred water is drawn at a lower resolution.

Sources of the model: Roser and Geiger, "Video-based raindrop detection for improved image
registration", ICCV Workshops 2009, section 3; Halimeh and Roser, "Raindrop detection on car
windshields using geometric-photometric environment construction and intensity-based correlation",
IV 2009, section III; von Bernuth et al., "Simulating photo-realistic snow and fog on existing
images", ITSC 2019, and the same authors' rendering of drops, IV 2018. No code of theirs.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

STEEPEST = 1.6
"""Slope of the water's surface from which on it bends light as far as it can."""
SHARPEST_DISC = 2.5
"""Largest circle of confusion, as a radius in pixels, that is drawn at one resolution; larger ones
are drawn at half of it, or a quarter, or an eighth."""
MOST_SHRINK = 8
"""The lowest resolution of blurred water is that of the picture divided by this."""
SHAPES = 24
"""Outlines of drops, from round to lobed, that are drawn from."""
LEAST_RADIUS = 0.7
"""Smallest radius of a drop that is drawn, in pixels of the resolution at which it is."""
RADIUS_STEP = 1.13
"""Ratio of the radii of two successive stamps."""
FOREVER = 1e9
"""A time after the end of every clip, in frames."""


class Drop(NamedTuple):
    """A drop on the glass, in pixels of the frame and in frames of the clip."""

    x: float
    y: float
    """Its centre at time 0."""
    radius: float
    shape: int
    """Its outline, 0 to `SHAPES` - 1."""
    speed: float = 0.0
    """How far it slides down in a frame."""
    begin: float = -FOREVER
    """When it falls onto the glass."""
    end: float = FOREVER
    """When a wiper takes it away."""

    @property
    def is_static(self) -> bool:
        """Whether it is the same in all frames."""
        return not self.speed and self.begin == -FOREVER and self.end == FOREVER


@dataclass(frozen=True, kw_only=True)
class Pane:
    """The glass before a camera during a clip."""

    drops: tuple[Drop, ...] = ()
    merges: bool = False
    """Whether drops that touch run together."""
    defocus: float = 0.5
    """Radius of the circle of confusion, in pixels."""
    bend: float = 0.4
    """How far the steepest water bends the view, in widths of the whole frame."""
    opacity: float = 1.0
    """Share of the light behind a drop that the drop replaces, 0 to 1."""
    gain: float = 1.0
    """Factor on the light in drops."""
    milk: float = 0.0
    """Share of the light in drops that comes from everywhere, 0 to 1."""
    rim: float = 0.4
    """How dark the steepest water is, 0 (as bright as the rest) to 1 (black)."""
    hollow: float = 0.0
    """How clear level water is, 0 to 1: the scene is seen through the middle of a flat drop, and
    only its edge bends the light."""
    glint: float = 0.0
    """Brightness of highlights."""
    light: tuple[float, float] = (-0.3, -0.5)
    """Slope of the surface that shows the highlight, right and down."""
    sky: float = 0.2
    """How much brighter than the top of the frame it is above, as a share."""
    ground: float = 0.4
    """How much darker than the bottom of the frame it is below, 0 to 1."""
    lamps: float = 0.0
    """How much brighter than white the lights of a dark scene are."""
    tremble: float = 0.0
    """Standard deviation of the whole pane's position in a frame, in pixels."""
    film: float = 0.0
    """How far a film of water displaces the scene, in pixels; 0 for none."""
    film_speed: float = 0.0
    """How far the film runs down in a frame, in pixels."""
    smear: float = 0.0
    """The same displacement along the arcs that a wiper leaves."""
    fog: float = 0.0
    """Share of the light that fog on the glass scatters where it is thickest."""
    dirt: float = 0.0
    """Opacity of dirt on the glass where it is thickest."""
    seed: int = field(default=0, repr=False)
    """Of what is noise: film, fog, dirt and trembling."""


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return math.exp(random.uniform(math.log(low), math.log(high)))


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A way in which drops are seen: ranges to draw from."""

    radius: tuple[float, float]
    """Of the median radius, in pixels of a picture of about 480 rows."""
    spread: tuple[float, float]
    """Of the standard deviation of the radii's logarithm."""
    cover: tuple[float, float]
    """Of the share of the picture that drops cover."""
    defocus: tuple[float, float]
    """Of the circle of confusion's radius, in pixels; of near drops, in median radii."""
    bend: tuple[float, float]
    opacity: tuple[float, float] = (0.85, 1.0)
    gain: tuple[float, float] = (0.85, 1.15)
    milk: tuple[float, float] = (0.0, 0.15)
    rim: tuple[float, float] = (0.0, 0.95)
    hollow: tuple[float, float] | None = None
    """None for drops that are clear nowhere."""
    merges: float = 0.3
    """Share of panes on which drops run together."""
    clusters: float = 0.25
    """Share of panes on which drops lie beside each other."""
    is_near: bool = False


KINDS = {
    "windscreen": _Kind(
        radius=(1.2, 4.0),
        spread=(0.3, 0.7),
        cover=(0.03, 0.35),
        defocus=(0.35, 2.2),
        bend=(0.12, 0.7),
    ),
    "pane": _Kind(
        radius=(1.6, 6.0),
        spread=(0.4, 0.8),
        cover=(0.03, 0.3),
        defocus=(0.3, 1.0),
        bend=(0.3, 0.9),
    ),
    "mixed": _Kind(
        radius=(3.0, 14.0),
        spread=(0.3, 0.9),
        cover=(0.04, 0.35),
        defocus=(0.6, 5.0),
        bend=(0.08, 0.6),
    ),
    "near": _Kind(
        radius=(4.0, 26.0),
        spread=(0.2, 0.6),
        cover=(0.06, 0.7),
        defocus=(0.4, 2.4),
        bend=(0.1, 1.2),
        opacity=(0.45, 1.0),
        gain=(0.9, 1.45),
        milk=(0.1, 0.95),
        rim=(0.0, 0.3),
        merges=0.5,
        is_near=True,
    ),
    "blot": _Kind(
        radius=(8.0, 32.0),
        spread=(0.3, 0.8),
        cover=(0.01, 0.4),
        defocus=(0.3, 1.1),
        bend=(0.02, 0.35),
        opacity=(0.75, 1.0),
        gain=(0.5, 1.15),
        milk=(0.0, 0.25),
        rim=(0.0, 0.8),
        merges=0.8,
        clusters=0.7,
        is_near=True,
    ),
    "ring": _Kind(
        radius=(3.0, 12.0),
        spread=(0.2, 0.6),
        cover=(0.02, 0.2),
        defocus=(0.4, 2.5),
        bend=(0.02, 0.4),
        gain=(0.6, 1.1),
        rim=(0.3, 1.0),
        hollow=(0.6, 1.0),
        merges=0.2,
    ),
}
"""Small drops on a windscreen in heavy rain; sharp ones on a pane; drops of all sizes; near ones,
far out of focus; thick water that has run together, out of focus, and about as bright as the scene
beside it; and flat drops, of which only the edge is seen."""
SHARES = (0.26, 0.1, 0.16, 0.31, 0.13, 0.04)
"""How often each of `KINDS` is drawn."""
LEAST_NEAR_DISC = 4.0
"""Smallest circle of confusion of near drops, as a radius in pixels: what is thick and sharper than
that on the glass may be a sticker."""
LARGEST_NEAR_DISC = 45.0
"""Their largest one: the faintest of the drops before a camera that looks through a near pane."""
MOST_DROPS = 3000
"""Drops of a pane at most: what is smaller is not seen one by one."""
LARGEST_RADIUS = 60.0
"""Radius of the largest drop, in pixels: a fifth of the frame is about this in diameter."""


def draw_pane(
    random: np.random.Generator,
    *,
    height: int,
    width: int,
    times: tuple[float, float] = (0, 0),
    scale: float = 1.0,
    kind: str | None = None,
) -> Pane:
    """Draw a pane at random.

    Args:
        random: Where the randomness comes from.
        height: Rows of the picture.
        width: Its columns.
        times: The first and the last moment of the clip, in frames.
        scale: Size of the frames against such of 480 rows; drops grow with it.
        kind: One of `KINDS`; None to draw it as well.
    """
    name = kind or str(random.choice(list(KINDS), p=SHARES))
    of = KINDS[name]
    median = _log_uniform(random, *of.radius) * scale
    spread = random.uniform(*of.spread)
    defocus = _log_uniform(random, *of.defocus) * (median if of.is_near else scale)
    if of.is_near:
        defocus = min(max(defocus, LEAST_NEAR_DISC * scale), LARGEST_NEAR_DISC * scale)
    wanted = _log_uniform(random, *of.cover) * height * width
    moves = times[1] > times[0]
    slides = random.uniform(0.01, 0.12) if moves and random.random() < 0.4 else 0.0
    arrives = random.uniform(0.02, 0.25) if moves and random.random() < 0.35 else 0.0
    upright = random.random() < 0.6
    clusters = random.uniform(0.3, 0.9) if random.random() < of.clusters else 0.0
    drops: list[Drop] = []
    while wanted > 0 and len(drops) < MOST_DROPS:
        radius = min(LARGEST_RADIUS * scale, median * math.exp(random.normal(0, spread)))
        radius = max(radius, 0.5 * scale)
        wanted -= 0.8 * math.pi * radius**2
        shape = int(random.integers(SHAPES // 2 if upright else SHAPES))
        x, y = random.uniform(-radius, width + radius), random.uniform(-radius, height + radius)
        if drops and random.random() < clusters:  # beside the one before
            away = (radius + drops[-1].radius) * random.normal(0, 0.9, 2)
            x, y = drops[-1].x + away[0], drops[-1].y + away[1]
        drop = Drop(x, y, radius, shape)
        if slides and random.random() < slides:
            drop = drop._replace(speed=_log_uniform(random, 0.3, 9) * scale)
            drops.extend(_trail(drop, random, times))
        if arrives and random.random() < arrives:
            drop = drop._replace(begin=random.uniform(*times))
        drops.append(drop)
    smear = 0.0
    if moves and random.random() < 0.12:
        drops = _wiped(drops, random, width, times)
        smear = _log_uniform(random, 0.5, 3) if random.random() < 0.7 else 0.0
    elif random.random() < 0.05:
        smear = _log_uniform(random, 0.5, 3)
    is_night = random.random() < 0.4
    angle = random.normal(-math.pi / 2, 0.8)
    reach = random.uniform(0.2, 0.8)
    hollow = random.uniform(*of.hollow) if of.hollow else 0.0
    return Pane(
        drops=tuple(drops),
        merges=random.random() < of.merges,
        defocus=defocus,
        bend=_log_uniform(random, *of.bend),
        opacity=random.uniform(*of.opacity),
        gain=random.uniform(*of.gain),
        milk=random.uniform(*of.milk),
        rim=random.uniform(*of.rim),
        hollow=hollow,
        glint=_log_uniform(random, 0.15, 1.5) if random.random() < 0.45 else 0.0,
        light=(reach * math.cos(angle), reach * math.sin(angle)),
        sky=random.uniform(0, 0.7),
        ground=random.uniform(0, 0.8),
        lamps=_log_uniform(random, 0.5, 6) if is_night else 0.0,
        tremble=_log_uniform(random, 0.15, 1.2) if moves and random.random() < 0.2 else 0.0,
        film=_log_uniform(random, 0.5, 4) * scale if random.random() < 0.1 else 0.0,
        film_speed=_log_uniform(random, 0.3, 6) if moves and random.random() < 0.5 else 0.0,
        smear=smear,
        fog=random.uniform(0.1, 0.5) if random.random() < 0.1 else 0.0,
        dirt=random.uniform(0.1, 0.7) if random.random() < 0.15 else 0.0,
        seed=int(random.integers(1 << 62)),
    )


def _trail(drop: Drop, random: np.random.Generator, times: tuple[float, float]) -> list[Drop]:
    """The beads that a sliding drop leaves where it has been."""
    if random.random() < 0.4:
        return []
    beads: list[Drop] = []
    y = drop.y + drop.speed * times[1]
    top = drop.y + drop.speed * times[0] - random.uniform(4, 30) * drop.radius
    while y > top and len(beads) < 60:
        radius = drop.radius * random.uniform(0.15, 0.4)
        beads.append(
            Drop(
                drop.x + random.normal(0, 0.25) * drop.radius,
                y,
                radius,
                int(random.integers(SHAPES // 2)),
                begin=(y - drop.y) / drop.speed,
            )
        )
        y -= radius * random.uniform(2, 7)
    return beads


def _wiped(
    drops: list[Drop], random: np.random.Generator, width: int, times: tuple[float, float]
) -> list[Drop]:
    """The same drops when a wiper passes between two frames, and new ones after it."""
    when = random.uniform(*times)
    reach = sorted(random.uniform(-0.5, 1.5, 2) * width)
    left = random.uniform(0, 0.1)
    wiped = []
    for drop in drops:
        if not reach[0] < drop.x < reach[1]:
            wiped.append(drop)
        elif random.random() > left:
            wiped.append(drop._replace(end=when))
            if random.random() < 0.3:
                begin = random.uniform(when, max(times[1], when) + 1)
                wiped.append(drop._replace(begin=begin, x=random.uniform(*reach)))
        else:
            wiped.append(drop)
    return wiped


def pane_on(
    clean: Tensor,
    pane: Pane,
    *,
    times: NDArray[Any],
    view: Tensor,
    place: tuple[float, float, float],
) -> tuple[Tensor, Tensor]:
    """Put a pane before a clip.

    Args:
        clean: `[T, 3, H, W]`, RGB in [0, 1], on any device.
        pane: The pane.
        times: When the frames were taken, `[T]`, in frames.
        view: The whole frames that `clean` is cut from, `[T, 3, h, w]` or `[1, 3, h, w]`, coarse.
        place: Where the cut begins and how wide a pixel of it is, in widths of the whole frame:
            left, top and pixel.

    Returns:
        The frames behind the pane, `[T, 3, H, W]` in [0, 1]; and how much of each pixel is water,
        fog or dirt, `[T, 1, H, W]` in [0, 1].
    """
    random = np.random.default_rng(pane.seed)
    height, width = clean.shape[-2:]
    wet = _filmed(clean, pane, times, random)
    cover = clean.new_zeros(len(clean), 1, height, width)
    if pane.drops:
        water, share = _drawn(pane, height, width, times, view, place, random)
        wet = wet * (1 - share) + water
        cover = cover + share
    if pane.fog:
        mask = pane.fog * _noise(random, (height, width), (60, 60), clean).sigmoid()
        soft = F.interpolate(
            F.avg_pool2d(clean, 8, ceil_mode=True), (height, width), mode="bilinear"
        )
        veil = soft.mean((2, 3), keepdim=True).lerp(soft, 0.6) * 0.9 + 0.08
        wet = torch.lerp(wet, veil, mask)
        cover = torch.maximum(cover, mask.expand_as(cover))
    if pane.dirt:
        mask = _noise(random, (height, width), (5, 5), clean) + 0.6 * _noise(
            random, (height, width), (30, 30), clean
        )
        mask = pane.dirt * (1.5 * mask - random.uniform(1.0, 3.0)).clamp(0, 1)
        tone = random.uniform(0.05, 0.75)
        colour = clean.new_tensor([1, random.uniform(0.85, 1), random.uniform(0.6, 1)]) * tone
        wet = torch.lerp(wet, colour[:, None, None], mask)
        cover = torch.maximum(cover, mask.expand_as(cover))
    return wet.clamp(0, 1), cover.clamp(0, 1)


@cache
def _stamp(step: int, shape: int) -> NDArray[Any]:
    """The height map of a drop, in pixels, its centre in the middle."""
    radius = LEAST_RADIUS * RADIUS_STEP**step
    random = np.random.default_rng([shape, 7])
    reach = math.ceil(1.6 * radius) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    # the first half hang upright, and are heavier below
    turn = random.normal(0, 0.15) if shape < SHAPES // 2 else random.uniform(0, math.pi)
    long = 1 + abs(random.normal(0, 0.18))
    cosine, sine = math.cos(turn), math.sin(turn)
    across, along = (cosine * x + sine * y) * long**0.5, (cosine * y - sine * x) / long**0.5
    along = along - 0.18 * radius * (shape < SHAPES // 2) * (1 - np.hypot(x, y) / radius)
    angle = np.arctan2(along, across)
    lobes = 1 + sum(
        amount * random.normal() * np.cos(order * angle + random.uniform(0, 2 * math.pi))
        for order, amount in ((2, 0.07), (3, 0.06), (4, 0.035), (5, 0.025))
    )
    squared = (across**2 + along**2) / (radius * np.clip(lobes, 0.6, 1.5)) ** 2
    # a spherical cap is steep at its edge, a flattened drop is not
    power, aspect = random.uniform(0.45, 1.0), random.uniform(0.5, 1.1)
    cap = aspect * radius * np.clip(1 - squared, 0, None) ** power
    return np.asarray(cap, np.float32)


def _stamped(
    heights: NDArray[Any], drops: list[tuple[float, float, float, int]], merges: bool
) -> None:
    """Add drops (x, y, radius, shape) to a height map."""
    rows, columns = heights.shape
    for x, y, radius, shape in drops:
        if radius < 0.5 * LEAST_RADIUS:
            continue
        step = max(0, round(math.log(radius / LEAST_RADIUS) / math.log(RADIUS_STEP)))
        stamp = _stamp(step, shape)
        reach = len(stamp) // 2
        top, left = round(y) - reach, round(x) - reach
        y0, x0 = max(0, top), max(0, left)
        y1, x1 = min(rows, top + len(stamp)), min(columns, left + len(stamp))
        if y0 >= y1 or x0 >= x1:
            continue
        part = heights[y0:y1, x0:x1]
        piece = stamp[y0 - top : y1 - top, x0 - left : x1 - left]
        if merges:  # the squares add up: the seam of two drops is filled
            np.sqrt(part * part + piece * piece, out=part)
        else:
            np.maximum(part, piece, out=part)


def _heights(
    pane: Pane, rows: int, columns: int, shrink: int, times: NDArray[Any], margin: int
) -> NDArray[Any]:
    """The height of the water, in pixels of that resolution: `[T or 1, rows, columns]`."""

    def at(drop: Drop, time: float) -> tuple[float, float, float, int]:
        y = (drop.y + drop.speed * time) / shrink + margin
        return drop.x / shrink + margin, y, drop.radius / shrink, drop.shape

    base = np.zeros((rows, columns), np.float32)
    _stamped(base, [at(drop, 0) for drop in pane.drops if drop.is_static], pane.merges)
    others = [drop for drop in pane.drops if not drop.is_static]
    if not others:
        return base[None]
    maps = []
    for time in times:
        heights = base.copy()
        present = [at(d, float(time)) for d in others if d.begin <= time < d.end]
        _stamped(heights, present, pane.merges)
        maps.append(heights)
    return np.stack(maps)


def _drawn(
    pane: Pane,
    height: int,
    width: int,
    times: NDArray[Any],
    view: Tensor,
    place: tuple[float, float, float],
    random: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """The light of the drops, `[T, 3, H, W]`, and how much they cover, `[T or 1, 1, H, W]`."""
    shrink = 1
    while pane.defocus / shrink > SHARPEST_DISC and shrink < MOST_SHRINK:
        shrink *= 2
    disc = pane.defocus / shrink
    margin = math.ceil(disc) + 1
    rows, columns = (-(-side // shrink) + 2 * margin for side in (height, width))
    heights = torch.from_numpy(_heights(pane, rows, columns, shrink, times, margin)).to(view.device)
    slopes = torch.stack(
        [
            F.pad(heights[:, :, 2:] - heights[:, :, :-2], (1, 1)) / 2,
            F.pad(heights[:, 2:] - heights[:, :-2], (0, 0, 1, 1)) / 2,
        ],
        dim=1,
    )
    steep = slopes.square().sum(1, keepdim=True).sqrt()
    slopes = slopes / steep.clamp(min=STEEPEST)
    steep = (steep / STEEPEST).clamp(max=1)
    mask = pane.opacity * (2.5 * heights[:, None]).clamp(0, 1)
    if pane.hollow:
        mask = mask * (1 - pane.hollow * (1 - steep**2))
    shade = pane.gain * (1 - pane.rim * steep**4)
    frames = max(len(view), len(times))
    # where each pixel looks, in widths of the whole frame
    left, top, pixel = place
    ys = top + pixel * shrink * (torch.arange(rows, device=view.device) - margin + 0.5)
    xs = left + pixel * shrink * (torch.arange(columns, device=view.device) - margin + 0.5)
    looks_x = xs[None, None] + pane.bend * slopes[:, 0]
    looks_y = ys[None, :, None] + pane.bend * slopes[:, 1]
    tall = view.shape[-2] / view.shape[-1]
    down = looks_y / tall  # in heights of the frame
    grid = torch.stack([2 * looks_x - 1, 2 * down - 1], dim=-1)
    if view.shape[0] == 1 and len(grid) > 1:
        view = view.expand(len(grid), -1, -1, -1)
    if pane.lamps:
        dark = (1 - view.mean() / 0.45).clamp(0, 1)  # by day what is white is no lamp
        view = view + dark * pane.lamps * ((view - 0.85) / 0.15).clamp(0, 1) ** 2
    light = F.grid_sample(
        view,
        grid.expand(len(view), -1, -1, -1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    shade = (
        shade * (1 + pane.sky * (-down).clamp(0, 1) - pane.ground * (down - 1).clamp(0, 1))[:, None]
    )
    if pane.milk:
        light = light.lerp(view.mean((2, 3), keepdim=True), pane.milk)
    light = light * shade
    if pane.glint:
        distance = (slopes - slopes.new_tensor(pane.light)[:, None, None]).square().sum(1, True)
        light = light + pane.glint * torch.exp(distance / -0.02)
    light = light * mask
    light, mask = (disc_blurred(each, disc) for each in (light, mask))
    if pane.tremble:
        shifts = random.normal(0, pane.tremble / shrink, (frames, 2))
        light, mask = (_shifted(each, shifts) for each in (light, mask))
    inner = slice(margin, -margin)
    light, mask = light[..., inner, inner], mask[..., inner, inner]
    if shrink > 1:
        size = (shrink * light.shape[-2], shrink * light.shape[-1])
        light, mask = (
            F.interpolate(each, size, mode="bilinear", align_corners=False)
            for each in (light, mask)
        )
    return light[..., :height, :width], mask[..., :height, :width]


def disc_blurred(x: Tensor, radius: float) -> Tensor:
    """`[N, C, H, W]` blurred by a disc, as a lens does it."""
    reach = math.ceil(radius)
    if radius < 0.4:
        return x
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    taps = (radius + 0.5 - torch.hypot(offsets[:, None], offsets[None])).clamp(0, 1)
    taps = taps / taps.sum()
    if x.device.type == "cpu":
        # of planes one after another: PyTorch's convolution of one channel is ten times slower
        planes = np.ascontiguousarray(x.flatten(0, 1).numpy())
        kernel = taps.numpy()
        blurred = np.stack(
            [cv2.filter2D(plane, -1, kernel, borderType=cv2.BORDER_REPLICATE) for plane in planes]
        )
        return torch.from_numpy(blurred).view(x.shape)
    maps = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(maps, taps[None, None]).view(x.shape)


def _shifted(x: Tensor, shifts: NDArray[Any]) -> Tensor:
    """Each frame of `[T or 1, C, H, W]` moved by its own `[T, 2]` pixels."""
    x = x.expand(len(shifts), -1, -1, -1)
    height, width = x.shape[-2:]
    theta = torch.zeros(len(shifts), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, :, 2] = torch.from_numpy(shifts * [2 / width, 2 / height]).float()
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _noise(
    random: np.random.Generator, size: tuple[int, int], cell: tuple[float, float], like: Tensor
) -> Tensor:
    """Smooth normal noise, `[1, 1, H, W]`, whose features have about the size of a cell."""
    cells = [2 + round(side / each) for side, each in zip(size, cell, strict=True)]
    coarse = torch.from_numpy(random.normal(0, 1, (1, 1, *cells))).to(like)
    return F.interpolate(coarse, size, mode="bicubic", align_corners=True)


def _filmed(clean: Tensor, pane: Pane, times: NDArray[Any], random: np.random.Generator) -> Tensor:
    """The scene behind a film of water, and behind what a wiper leaves."""
    if not pane.film and not pane.smear:
        return clean
    frames, _, height, width = clean.shape
    shifts = clean.new_zeros(1, 2, height, width)
    if pane.film:
        travel = pane.film_speed * (times - times.min())
        taller = height + math.ceil(float(travel.max())) + 1
        size = _log_uniform(random, 4, 30)
        film = _noise(random, (taller, width), (size * random.uniform(1, 4), size), clean)
        where = _noise(random, (height, width), (80, 40), clean).mul(3).sigmoid()
        starts = [taller - height - int(each) for each in travel]
        if not pane.film_speed:
            starts = starts[:1]
        maps = torch.cat([film[..., start : start + height, :] for start in starts])
        shifts = shifts + _gradient(maps) * (pane.film * size / 2) * where
    if pane.smear:
        pivot = random.uniform(-0.5, 1.5) * width, height * random.uniform(1.1, 2.5)
        y = torch.arange(height, device=clean.device, dtype=clean.dtype)[:, None] - pivot[1]
        x = torch.arange(width, device=clean.device, dtype=clean.dtype)[None] - pivot[0]
        distance = torch.hypot(y, x)
        outwards = torch.stack([x.expand_as(distance), y.expand_as(distance)]) / distance
        profile = _noise(random, (1, 4 * (height + width)), (1, random.uniform(2, 8)), clean)
        arcs = profile[0, 0, 0][distance.long().clamp(max=profile.shape[-1] - 1)][None, None]
        where = _noise(random, (height, width), (60, 60), clean).mul(3).sigmoid()
        shifts = shifts + pane.smear * arcs * where * outwards
    size_of = shifts.new_tensor([width, height])[:, None, None]
    theta = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]).to(clean)
    grid = F.affine_grid(theta, [1, 3, height, width], align_corners=False)
    grid = grid + (2 * shifts / size_of).permute(0, 2, 3, 1)
    return F.grid_sample(
        clean,
        grid.expand(frames, -1, -1, -1),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )


def _gradient(maps: Tensor) -> Tensor:
    """`[T, 1, H, W]` to its slopes right and down, `[T, 2, H, W]`."""
    right = F.pad(maps[..., 2:] - maps[..., :-2], (1, 1)) / 2
    down = F.pad(maps[:, :, 2:] - maps[:, :, :-2], (0, 0, 1, 1)) / 2
    return torch.cat([right, down], dim=1)
