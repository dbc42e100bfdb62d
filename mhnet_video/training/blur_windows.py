"""Clean footage to windows of blurred frames, and what a fast shutter would have shown."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mhnet_video.training.dataset import seen_of
from mhnet_video.training.footage import Footage, Image
from mhnet_video.training.motion_blur import (
    Film,
    Layer,
    Shutter,
    ViewMotion,
    between_frames,
    draw_motion,
    exposed,
    scaled,
)
from mhnet_video.training.overlay import burnt_in, draw_text
from mhnet_video.training.rain import coded, lens

RUN_FRAMES = 15
"""Passed to `load_footage` as `frames`: runs for windows of every third frame."""
RUN_EVERY = 60
"""Passed to `load_footage` as `every`."""
RUN_ROWS = 540
"""Passed to `load_footage` as `rows`, which bounds the memory."""

ALONE_SHARE = 0.3
"""Share of single pictures, without neighbours."""
SHARP_SHARE = 0.08
"""Share of windows that are sharp and must stay as they are, early in a run."""
LATE_SHARP_SHARE = 0.2
"""The same late in a run."""
DETAIL_SHARE = 0.8
"""Share of places that are the richest in detail of `DETAIL_PLACES`. Without a choice half of the
windows are sky, walls and the dark, where blur cannot be seen, and teach nothing."""
DETAIL_PLACES = 5
CODED_SHARE = 0.5
"""Share of windows with a camera's noise and compression: what these hide no network brings back,
and a network that sees little else learns to leave blur as it is."""
SHORTEST, LONGEST = 4.0, 40.0
"""Mean blur of the frames of a window, in pixels. Drawn so that every doubling is as likely: a
network that is trained on pairs that are hardly blurred leaves single pictures as they are."""
MOST_SPEED = 0.45
"""Most motion from frame to frame, in sides of the picture: neighbours must show the same."""
CLIP_SHARE = 0.3
"""Share of windows of clips; most of these are less sharp than photographs."""
LEAST_ROWS = 400
"""Rows from which on a clip is drawn as often as it is long; smaller ones are seldom sharp."""
DEFOCUS_SHARE = 0.25
"""Share of photographs that are out of focus, and stay so: what is behind somebody is to be left
soft. A network that has never seen it takes it for motion."""
DEFOCUS = 1.2, 8.0
"""How soft they are, in pixels."""
FRONT_SHARE = 0.35
"""Share of windows of photographs with something that moves before them in its own way."""
LAMP_SHARE = 0.35
"""Share of windows whose white is brighter than white."""
READOUT_SHARE = 0.4
"""Share of windows of a rolling shutter."""
END_SHARE = 0.06
"""Share of windows at the ends of a clip, with fewer frames."""
STRANGER_SHARE = 0.05
"""Share of windows whose neighbours show another scene."""
COPY_SHARE = 0.05
"""Share of windows in which a neighbour is a copy of the middle frame."""
TEXT_SHARE = 0.12
"""Share of windows with burnt-in text, which no motion blurs."""


class BlurWindow(NamedTuple):
    """Frames as they were exposed, before the camera's processing."""

    blurred: Tensor
    """`[K, 3, crop, crop]`, RGB in [0, 1]; K is less than T where frames are missing."""
    sharp: Tensor
    """Of all of them what a fast shutter would have shown, likewise."""
    middle: int
    """Index of the frame to restore."""
    order: tuple[int, ...]
    """Which frames the camera records: some may be copies."""
    seed: int
    """Of the camera's processing."""
    text: Tensor | None = None
    """Text burnt into every frame, `[4, crop, crop]`, RGB and opacity; None for none."""


class BlurWindows(Dataset[BlurWindow]):
    """Windows of blurred frames; every index is another.

    A seed and an index determine a sample, so that a run can be resumed exactly.

    Args:
        footage: Clips and photographs to draw from.
        frames: Frames of a window, T, odd.
        crop: Side of the frames, in pixels, a multiple of 32.
        seed: Seed of all samples.
        is_late: Whether to draw by the shares of the end of a run.
    """

    def __init__(
        self, footage: Footage, *, frames: int, crop: int, seed: int = 0, is_late: bool = False
    ) -> None:
        self.footage, self.frames, self.crop, self.seed = footage, frames, crop, seed
        self._sharp_share = LATE_SHARP_SHARE if is_late else SHARP_SHARE
        weights = [
            math.sqrt(len(runs)) * min(1.0, runs[0].shape[1] / LEAST_ROWS) ** 4
            for runs in footage.clips
        ]
        self._weights = np.array(weights) / max(sum(weights), 1e-9)

    def __len__(self) -> int:
        """A number that no run reaches."""
        return 1 << 40

    def __getitem__(self, index: int) -> BlurWindow:
        """Draw the sample of an index."""
        random = np.random.default_rng([self.seed, index])
        uniform = random.random()
        count = 1 if random.random() < ALONE_SHARE else self.frames
        middle = count // 2
        blurred, sharp = self._exposed(random, count)
        order = list(range(count))
        if count > 1 and uniform < END_SHARE:
            middle = int(random.integers(count))
            first = int(random.integers(middle + 1))
            last = int(random.integers(middle, count))
            order, middle = order[first : last + 1], middle - first
        elif count > 1 and uniform < END_SHARE + STRANGER_SHARE:
            others, _ = self._exposed(random, count)
            blurred[:middle], blurred[middle + 1 :] = others[:middle], others[middle + 1 :]
        elif count > 1 and uniform < END_SHARE + STRANGER_SHARE + COPY_SHARE:
            order[middle + 1 - 2 * int(random.integers(2))] = middle
        if random.random() < 0.5:
            blurred, sharp = blurred.flip(3), sharp.flip(3)
        if random.random() < 0.25:
            blurred, sharp = blurred.rot90(1, (2, 3)), sharp.rot90(1, (2, 3))
        text = draw_text(random, self.crop, 1) if random.random() < TEXT_SHARE else None
        return BlurWindow(
            blurred=blurred.contiguous(),
            sharp=sharp.contiguous(),
            middle=middle,
            order=tuple(order),
            seed=int(random.integers(1 << 62)),
            text=text,
        )

    def _exposed(self, random: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Expose frames of a scene: blurred and sharp, `[count, 3, crop, crop]`."""
        times = [float(index - count // 2) for index in range(count)]
        shutter = Shutter(
            share=0.2 + 0.8 * random.random() ** 0.6,
            readout=random.uniform(-0.7, 0.7) if random.random() < READOUT_SHARE else 0.0,
        )
        film = Film(
            gamma=random.uniform(1.8, 2.4) if random.random() < 0.8 else 1.0,
            excess=math.exp(random.uniform(0, 2.5)) if random.random() < LAMP_SHARE else 0.0,
            grading=int(random.integers(1 << 62)),
        )
        length = math.exp(random.uniform(math.log(SHORTEST), math.log(LONGEST)))
        length = min(length, MOST_SPEED * self.crop * shutter.share)
        motion = draw_motion(random, self.crop)
        motion = scaled(motion, length, times, shutter.share, self.crop)
        if random.random() < self._sharp_share:
            shutter = Shutter(share=0.0, readout=shutter.readout)
        footage = self.footage
        if footage.clips and (not footage.photos or random.random() < CLIP_SHARE):
            layers = [self._clip(random, times, shutter, film, motion)]
        else:
            layers = [self._photo(random, film, motion)]
            if random.random() < FRONT_SHARE:
                layers.append(self._front(random, film, motion, length, shutter, times))
        return exposed(layers, times, shutter, film, self.crop)

    def _photo(self, random: np.random.Generator, film: Film, motion: ViewMotion) -> Layer:
        photo, centre = self._shrunken(random)
        if random.random() < DEFOCUS_SHARE:
            softness = math.exp(random.uniform(*np.log(DEFOCUS)))
            photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), softness))
        return Layer(light=film.light(photo), centre=centre, motion=motion)

    def _shrunken(self, random: np.random.Generator) -> tuple[Image, tuple[float, float]]:
        """A photograph at some size, and a place in it."""
        photos = self.footage.photos
        photo = photos[random.integers(len(photos))]
        largest = min(photo.shape[:2]) / (1.25 * self.crop)
        shrink = random.uniform(1, max(1.0, min(2.5, largest)))
        if shrink > 1:
            size = round(photo.shape[1] / shrink), round(photo.shape[0] / shrink)
            photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        return photo, _place(random, photo, self.crop)

    def _front(
        self,
        random: np.random.Generator,
        film: Film,
        motion: ViewMotion,
        length: float,
        shutter: Shutter,
        times: Sequence[float],
    ) -> Layer:
        """A piece of a photograph that moves before the scene, or stands still in the view."""
        photo, centre = self._shrunken(random)
        crop = self.crop
        y, x = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float32)
        place = np.array(centre) + random.uniform(-0.35, 0.35, 2) * crop
        radii = random.uniform(0.08, 0.4, 2) * crop
        shape = 2 * random.integers(1, 4)  # from an ellipse to nearly a rectangle
        away = (
            np.abs((x - place[0]) / radii[0]) ** shape + np.abs((y - place[1]) / radii[1]) ** shape
        )
        opacity = np.clip((1 - away) * radii.min() / 2, 0, 1)
        own = draw_motion(random, crop)
        own = scaled(own, length * random.uniform(0.3, 1.5), times, max(shutter.share, 0.2), crop)
        kind = random.random()
        moves = own.plus(motion) if kind < 0.5 else own if kind < 0.8 else motion.times(0)
        return Layer(light=film.light(photo, opacity), centre=centre, motion=moves)

    def _clip(
        self,
        random: np.random.Generator,
        times: Sequence[float],
        shutter: Shutter,
        film: Film,
        motion: ViewMotion,
    ) -> Layer:
        """Frames of a clip under its own motion, and that of the camera."""
        runs = self.footage.clips[random.choice(len(self._weights), p=self._weights)]
        run = runs[random.integers(len(runs))]
        every = int(random.integers(1, 4))
        half = max(1, math.ceil((len(times) // 2 + shutter.share / 2) * every))
        while every > 1 and 2 * half + 1 > len(run):
            every -= 1
            half = math.ceil((len(times) // 2 + shutter.share / 2) * every)
        centre = int(
            random.integers(min(half, len(run) // 2), max(len(run) - half, len(run) // 2 + 1))
        )
        frames = run[max(0, centre - half) : centre + half + 1]
        moments = (np.arange(len(frames)) - min(centre, half)) / every
        if random.random() < 0.5:
            frames, moments = frames[::-1], -moments[::-1]
        height, width = frames.shape[1:3]
        shrink = random.uniform(1, max(1.0, min(2.5, min(height, width) / (1.1 * self.crop))))
        reach = round(0.85 * self.crop * shrink)
        x, y = _place(random, frames[0], round(self.crop * shrink))
        top, left = max(0, round(y) - reach), max(0, round(x) - reach)
        cut = frames[:, top : round(y) + reach, left : round(x) + reach]
        size = round(cut.shape[2] / shrink), round(cut.shape[1] / shrink)
        small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in cut]
        open_for = [(t - shutter.share / 2, t + shutter.share / 2) for t in times]
        lights, moments = between_frames(np.stack(small), moments, film, open_for)
        moving = motion if random.random() < 0.75 else motion.times(0)
        place = (x - left) / shrink, (y - top) / shrink
        return Layer(light=lights, centre=place, motion=moving, moments=moments)


def _place(random: np.random.Generator, picture: Image, side: int) -> tuple[float, float]:
    """Where a view of so many pixels may be in a picture; mostly where there is much to see."""
    height, width = picture.shape[:2]
    count = DETAIL_PLACES if random.random() < DETAIL_SHARE else 1
    lowest = min(side / 2, width / 2), min(side / 2, height / 2)
    highest = max(width - side / 2, width / 2), max(height - side / 2, height / 2)
    places = [(float(x), float(y)) for x, y in random.uniform(lowest, highest, (count, 2))]
    return max(places, key=lambda place: _detail(picture, place, side)) if count > 1 else places[0]


def _detail(picture: Image, place: tuple[float, float], side: int) -> float:
    """How much there is to see around a place: the mean step from pixel to pixel, in levels."""
    left, top = (max(0, round(middle - side / 2)) for middle in place)
    view = picture[top : top + side, left : left + side, 1].astype(np.int16)
    return float(np.abs(np.diff(view, axis=0)).mean() + np.abs(np.diff(view, axis=1)).mean())


def blurred_pair(
    window: BlurWindow, *, frames: int, device: torch.device | str, aligns: bool = True
) -> tuple[Tensor, Tensor]:
    """Pass a window through the camera.

    Args:
        window: From `BlurWindows`.
        frames: Frames of a window, T.
        device: Where to.
        aligns: Whether to align the neighbours to the middle frame.

    Returns:
        The blurred window, `[3T, crop, crop]`, and its sharp middle frame, `[3, crop, crop]`, RGB
        in [0, 1]; black neighbours around a single picture.
    """
    generator = torch.Generator().manual_seed(window.seed)
    order = list(window.order)
    text = None if window.text is None else window.text.to(device)
    clips = [each[order].to(device) for each in (window.blurred, window.sharp)]
    clips = lens(burnt_in(clips, text), generator)
    is_coded = float(torch.rand((), generator=generator)) < CODED_SHARE
    blurred, sharp = coded(clips, generator) if is_coded else [x.clamp(0, 1) for x in clips]
    seen = seen_of(blurred, window.middle, frames=frames, aligns=aligns)
    return seen, sharp[window.middle]


def blurred_batch(
    windows: Sequence[BlurWindow],
    *,
    frames: int,
    device: torch.device | str,
    aligns: bool = True,
) -> tuple[Tensor, Tensor]:
    """The pairs of several windows: `[N, 3T, crop, crop]` and `[N, 3, crop, crop]`."""
    pairs = [blurred_pair(each, frames=frames, device=device, aligns=aligns) for each in windows]
    return torch.stack([seen for seen, _ in pairs]), torch.stack([sharp for _, sharp in pairs])
