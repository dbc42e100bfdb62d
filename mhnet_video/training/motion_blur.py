"""Motion blur: what a shutter that is open for a while makes of a moving view.

A frame is the mean of many views, taken in steps of about a pixel while the shutter is open. The
mean is that of light, not of levels: levels are brought to linear light first, what is nearly white
is made brighter than white, and the mean is clipped. So lamps become trails instead of grey smears.
Source of both: Rim et al., "Realistic Blur Synthesis for Learning Image Deblurring", ECCV 2022,
sections 4.1 and 4.2. Cameras with a rolling shutter read their rows one after the other, so that a
moving view is sheared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.model.align import SHRINK, estimate, shrunken_luma
from mhnet_video.training.footage import Image, grade

STEP = 1.6
"""Motion between two views of an exposure, in pixels."""
MOST_VIEWS = 32
"""Most views of an exposure."""
MOST_WHITE = 0.02
"""Share of a picture's samples that may be lamps: more white than that is walls or the sky."""
MOST_ROLL = 0.3
"""Most roll in a window, in radians."""
MOST_ZOOM = 0.2
"""Most logarithm of the zoom in a window."""
FASTEST = 2.2
"""Most of the blur of one frame, relative to the mean of the window's frames."""

Light = NDArray[Any]
"""`[H, W, 4]` float32: linear light of red, green and blue, 1 for white, times opacity; opacity."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """How levels and light belong together."""

    gamma: float = 2.2
    """Exponent from levels to light."""
    excess: float = 0.0
    """How much brighter than white a white pixel is."""
    toe: float = 0.94
    """Level from which on pixels are brighter than they are drawn."""
    grading: int | None = None
    """Seed of exposure, contrast and mist, see `grade`; None for none."""

    def light(self, picture: Image, opacity: NDArray[Any] | None = None) -> Light:
        """The light of a picture, `[H, W, 3]` uint8; opaque without an opacity `[H, W]`."""
        levels = torch.arange(256).view(1, 1, 1, 256) / 255
        if self.grading is not None:
            levels = grade(levels, np.random.default_rng(self.grading))
        table = levels**self.gamma
        if self.excess and float((picture > 255 * self.toe).mean()) < MOST_WHITE:
            share = ((levels - self.toe) / (1 - self.toe)).clamp(0, 1)
            table = table * (1 + self.excess * share.square())
        light = cv2.LUT(picture, table.flatten().numpy())
        if opacity is None:
            return np.dstack([light, np.ones(picture.shape[:2], np.float32)])
        cover = opacity.astype(np.float32)[..., None]
        return np.concatenate([light * cover, cover], 2)

    def picture(self, light: Light) -> NDArray[Any]:
        """Levels of a light, `[H, W, 3]` float32 in [0, 1]."""
        return np.clip(light[..., :3], 0, 1) ** np.float32(1 / self.gamma)


class Wave(NamedTuple):
    """A part of a trembling: right, down, turn and zoom swing at one period."""

    size: NDArray[Any]
    """`[4]`."""
    period: float
    """In frames."""
    phase: NDArray[Any]
    """`[4]`, in radians."""


@dataclass(frozen=True, kw_only=True)
class ViewMotion:
    """A motion: where the view is at each time.

    Positions are `[N, 4]`: pixels to the right and down, radians of roll, and the logarithm of the
    zoom, at times `[N]` in frames.
    """

    speed: NDArray[Any] = field(default_factory=lambda: np.zeros(4))
    """Steady motion in a frame, `[4]`."""
    waves: tuple[Wave, ...] = ()
    """Trembling."""

    def at(self, times: NDArray[Any]) -> NDArray[Any]:
        """Positions at some times, relative to that at time 0."""
        place = np.outer(times, self.speed)
        for wave in self.waves:
            turns = 2 * math.pi * times[:, None] / wave.period + wave.phase
            place = place + wave.size * (np.sin(turns) - np.sin(wave.phase))
        return np.asarray(place)

    def times(self, factor: float) -> "ViewMotion":
        """The same on a way so many times as long."""
        waves = tuple(wave._replace(size=wave.size * factor) for wave in self.waves)
        return ViewMotion(speed=self.speed * factor, waves=waves)

    def plus(self, other: "ViewMotion") -> "ViewMotion":
        """Both at once."""
        return ViewMotion(speed=self.speed + other.speed, waves=self.waves + other.waves)

    def length(self, begin: float, end: float, radius: float) -> float:
        """Way between two times, in pixels, where roll and zoom act at a radius."""
        steps = np.diff(self.at(np.linspace(begin, end, 12)), axis=0)
        steps[:, 2:] *= radius
        return float(np.sqrt((steps**2).sum(1)).sum())


def draw_motion(random: np.random.Generator, side: int) -> ViewMotion:
    """Draw a motion of any size: a pan, a trembling hand, or both; with roll and zoom.

    Args:
        random: Generator.
        side: Side of the picture, in pixels, which roll and zoom are measured by.
    """
    direction = random.uniform(0, 2 * math.pi)
    pan = random.choice([0.0, 0.4, 1.0, 1.0])
    speed = pan * np.array([math.cos(direction), 0.6 * math.sin(direction), 0, 0])
    kind = random.random()
    if kind < 0.25:  # rolls
        speed[2] = random.normal(0, 1.5) / side
    elif kind < 0.5:  # drives, or zooms
        speed[3] = random.normal(0, 2.5) / side
    waves = []
    tremble = random.choice([0.0, 0.3, 1.0]) if pan else 1.0
    for _ in range(int(random.integers(2, 5)) if tremble else 0):
        period = math.exp(random.uniform(math.log(1.5), math.log(25)))
        # slow waves are wide: a hand's speed is about the same at all periods
        size = random.normal(0, 1, 4) * tremble * period / (2 * math.pi)
        size *= np.array([1, 1, 1.2 / side, 0.5 / side])
        waves.append(Wave(size, period, random.uniform(0, 2 * math.pi, 4)))
    return ViewMotion(speed=speed, waves=tuple(waves))


def scaled(
    motion: ViewMotion, length: float, times: Sequence[float], share: float, side: int
) -> ViewMotion:
    """A motion of a wanted length; shorter where it would turn or zoom too far.

    Args:
        motion: The motion.
        length: Its way while the shutter is open, in pixels, as a mean over the times.
        times: Middles of exposures.
        share: How long the shutter is open, in frames.
        side: Side of the picture, in pixels.
    """
    lengths = [motion.length(t - share / 2, t + share / 2, 0.4 * side) for t in times]
    factor = length / max(float(np.mean(lengths)), max(lengths) / FASTEST, 1e-6)
    whole = np.linspace(min(times) - share / 2, max(times) + share / 2, 24)
    roll, zoom = np.abs(motion.at(whole)[:, 2:]).max(0)
    return motion.times(min(factor, MOST_ROLL / max(roll, 1e-9), MOST_ZOOM / max(zoom, 1e-9)))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Something that is seen, and how it moves in the view."""

    light: Light | Sequence[Light]
    """One for all times, or one for each time of `moments`."""
    centre: tuple[float, float]
    """Pixel of the light that is in the middle of the view at time 0."""
    motion: ViewMotion
    moments: NDArray[Any] | None = None
    """Times of the lights, sorted; None for one light."""

    def at(self, time: float) -> Light:
        """The light at a time: the nearest one."""
        if self.moments is None:
            return self.light  # type: ignore[return-value]
        return self.light[int(np.abs(self.moments - time).argmin())]


@dataclass(frozen=True, kw_only=True)
class Shutter:
    """When and for how long light falls on the sensor."""

    share: float
    """How long it is open, in frames, 0 to 1; 0 for sharp frames."""
    readout: float = 0.0
    """Time from the first row's exposure to the last row's, in frames."""


def exposed(
    layers: Sequence[Layer], times: Sequence[float], shutter: Shutter, film: Film, side: int
) -> tuple[Tensor, Tensor]:
    """Expose frames.

    Args:
        layers: What is seen, the farthest first, which is opaque.
        times: Middles of the exposures, in frames.
        shutter: How long each is.
        film: How levels and light belong together.
        side: Side of the frames, in pixels.

    Returns:
        The frames, and what a shutter as short as possible would have shown in the middle of each
        exposure, `[N, 3, side, side]` each, RGB in [0, 1].
    """
    blurred, sharp = [], []
    for time in times:
        instant = _view(layers, time, shutter.readout, side)
        sharp.append(film.picture(instant))
        begin, end = time - shutter.share / 2, time + shutter.share / 2
        ways = [_way(layer, begin, end, side) for layer in layers]
        count = 2 * math.ceil(min(max(ways) / STEP, MOST_VIEWS) / 2) + 1
        if count == 1:
            blurred.append(sharp[-1])
            continue
        total = np.zeros_like(instant)
        for moment in np.linspace(begin, end, count):
            cv2.accumulate(_view(layers, float(moment), shutter.readout, side), total)
        blurred.append(film.picture(total / count))
    pair = (torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2) for each in (blurred, sharp))
    first, second = (each.contiguous() for each in pair)
    return first, second


def _way(layer: Layer, begin: float, end: float, side: int) -> float:
    way = layer.motion.length(begin, end, 0.7 * side)
    if layer.moments is not None:
        inside = (layer.moments >= begin) & (layer.moments <= end)
        way = max(way, STEP * (int(inside.sum()) - 1))
    return way


def _view(layers: Sequence[Layer], time: float, readout: float, side: int) -> Light:
    """All layers at a time, `[side, side, 4]`."""
    view: Light | None = None
    for layer in layers:
        matrix = _matrix(layer, time, readout, side)
        seen = cv2.warpAffine(
            layer.at(time),
            matrix,
            (side, side),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101 if view is None else cv2.BORDER_CONSTANT,
        )
        view = seen if view is None else seen + (1 - seen[..., 3:]) * view
    assert view is not None
    return view


def _matrix(layer: Layer, time: float, readout: float, side: int) -> NDArray[Any]:
    """From pixels of the view to pixels of a layer, `[2, 3]`."""
    here, soon = layer.motion.at(np.array([time, time + 0.01]))
    right, down, roll, zoom = here
    cosine, sine = math.exp(-zoom) * math.cos(roll), math.exp(-zoom) * math.sin(roll)
    matrix = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
    # later rows see the view where it is later
    velocity = (soon - here)[:2] / 0.01 * readout
    middle = np.array([side / 2 + right, side / 2 + down])
    shear = matrix[:, :2] @ (-velocity / side)
    matrix[:, 2] = np.array(layer.centre) - matrix[:, :2] @ middle - shear * side / 2
    matrix[:, 1] += shear
    return matrix


def between_frames(
    frames: Image, times: NDArray[Any], film: Film, exposures: Sequence[tuple[float, float]]
) -> tuple[list[Light], NDArray[Any]]:
    """Light of a clip between its frames too, in steps of about a pixel where something moves.

    A view between two frames is the mean of both, each moved by its part of the motion between
    them, as `model/align.py` estimates it.

    Args:
        frames: `[N, H, W, 3]` uint8, RGB.
        times: When they were taken, `[N]`, sorted.
        film: How levels and light belong together.
        exposures: When the shutter is open: begin and end.

    Returns:
        Lights, and their times.
    """
    whole = [film.light(frame) for frame in frames]
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    lumas = shrunken_luma(pixels)
    motions = SHRINK * estimate(lumas[:-1], lumas[1:, None])[:, 0]
    height, width = frames.shape[1:3]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    lights, moments = [], []
    for index, motion in enumerate(motions):
        first, last = float(times[index]), float(times[index + 1])
        lights.append(whole[index])
        moments.append(first)
        fastest = float(motion.norm(dim=0).flatten().quantile(0.98))
        count = math.ceil(min(fastest / STEP, MOST_VIEWS))
        flow = [cv2.resize(each, (width, height)) for each in motion.numpy()]
        for part in range(1, count):
            share = part / count
            moment = first + share * (last - first)
            if not any(begin <= moment <= end for begin, end in exposures):
                continue
            pair = (whole[index], -share), (whole[index + 1], 1 - share)
            moved = [
                cv2.remap(
                    light,
                    columns + way * flow[0],
                    rows + way * flow[1],
                    cv2.INTER_LINEAR,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                for light, way in pair
            ]
            lights.append(cv2.addWeighted(moved[0], 1 - share, moved[1], share, 0))
            moments.append(moment)
    lights.append(whole[-1])
    moments.append(float(times[-1]))
    return lights, np.array(moments)
