"""Clean footage to windows of frames behind wet glass, and clean middle frames."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mhnet_video.model.align import align
from mhnet_video.model.window import between, glass_statistics, window_indices
from mhnet_video.training.dataset import CleanWindows, Sample, rainy_pair
from mhnet_video.training.drops import Pane, draw_pane, pane_on
from mhnet_video.training.footage import Footage, Image, grade, pixels_of
from mhnet_video.training.overlay import draw_text
from mhnet_video.training.rain import blur, coded, lens, rain_on
from mhnet_video.training.shallow_focus import shallow_focus

RUN_FRAMES = 46
"""Passed to `load_footage` as `frames`: runs long enough for neighbours far apart."""
RUN_EVERY = 96
"""Passed to `load_footage` as `every`."""
RUN_ROWS = 540
"""Passed to `load_footage` as `rows`, which bounds the memory."""

STREAK_SHARE = 0.32
"""Share of samples with streaks only, or with nothing, as other models are trained on."""
NIGHT_SHARE = 0.4
"""Share of nights among these: twice that of other models, of whose samples all have streaks, or
nothing."""
ALONE_SHARE = 0.42
"""Share of single pictures, without neighbours, among the others."""
DRY_SHARE = 0.3
"""Share of dry glass among the windows of several frames."""
DRY_ALONE_SHARE = 0.3
"""The same of single pictures."""
DRY_REST_SHARE = 0.55
"""The same of windows before which the camera rests: there a sticker and a drop both stand still
before a still scene, and differ by their looks alone."""
NEAR_ALONE_SHARE = 0.35
"""Share of single pictures whose drops are near, besides those drawn so among all kinds: a drop in
focus hides what is behind it, and no neighbour shows it; one out of focus lets it through."""
SECOND_SHARE = 0.2
"""Share of panes with a second layer of drops, drawn on its own: small drops beside large ones."""
LARGEST = 2.3
"""Largest size of the drops against those of a picture of 480 rows: those of one of 1080."""
RAIN_SHARE = 0.3
"""Share of windows with rain in the air as well."""
LIVE_SHARE = 0.25
"""Share of windows whose middle frame is the last one, as in live mode."""
START_SHARE = 0.05
"""Share of windows whose middle frame is the first one."""
FURTHEST = 10
"""Most frames from one neighbour to the next."""
MOST_SEEN = 12
"""Most frames besides those of the window that the pictures of the glass are made from."""
SOFT_SHARE = 0.2
"""Share of scenes that are a little out of focus, whatever the glass."""
SHALLOW_SHARE = 0.15
"""Share of single pictures whose background is far out of focus, with lights in it. Without them
such lights are taken for drops."""
FOCUSED_SHARE = 0.35
"""Share of windows on whose glass the lens is focused: sharp drops before a scene far out of focus,
as through the window of a room; or a dry pane, half of them before a sharp scene."""
FOCUSED_SOFTNESS = 1.2, 7.0
"""Blur of their scene, in pixels of a picture of about 480 rows."""
REST_SHARE = 0.8
"""Share of these before which the camera rests. Without dry ones among them a network takes all
that stands still before a fixed camera for water."""
FIXTURE_SHARE = 0.4
"""Share of windows with something that stands still before the scene and must stay: a bonnet, a
sticker, a reflection, letters, a recorder's bar. Two of eight are edges that the glass reflects and
such bars."""
DRY_FIXTURE_SHARE = 0.85
"""The same where the glass is dry, or the camera rests."""
VIEW_WIDTH = 96
"""Columns of the coarse picture of the whole frame that drops show."""


class Fixture(NamedTuple):
    """Something that stands still in the picture and belongs to it."""

    picture: Tensor
    """`[3, H, W]`, RGB in [0, 1]."""
    opacity: Tensor
    """`[1, H, W]` in [0, 1]."""
    is_behind: bool
    """Whether the glass is before it, as before a bonnet."""


class GlassWindow(NamedTuple):
    """Clean frames of a clip, and what is before them."""

    clean: Tensor
    """`[N, 3, crop, crop]`, RGB in [0, 1]: those of the window first, the middle one among them;
    then further ones."""
    times: NDArray[Any]
    """When they were taken, `[N]`, in frames from the middle one."""
    view: Tensor
    """The whole frames, coarse, `[N, 3, h, w]`."""
    place: tuple[float, float, float]
    """Where `clean` is in the whole frames, see `pane_on`."""
    order: tuple[int, ...]
    """Indices of the frames of the window; the middle one alone for a single picture."""
    panes: tuple[Pane, ...]
    """The wet glass, as one layer of drops or two on each other; none for a dry one."""
    rains: bool
    softness: float
    """Blur of the scene, in pixels."""
    fixtures: tuple[Fixture, ...]
    seed: int
    """Of the rain and of the camera."""


class GlassWindows(Dataset[GlassWindow | Sample]):
    """Windows seen through glass, and such with streaks only; every index is another.

    An index always gives the same sample for the same seed, so that a run can be resumed exactly.

    Args:
        footage: What to draw from, its runs at least `4 * FURTHEST + 1` frames long where the
            neighbours are to be that far away.
        frames: Frames of a window, T, odd.
        crop: Side of the pictures, in pixels, a multiple of 32.
        seed: Changes all samples.
        is_late: See `CleanWindows`.
    """

    def __init__(
        self, footage: Footage, *, frames: int, crop: int, seed: int = 0, is_late: bool = False
    ) -> None:
        self.seed, self.frames, self.crop = seed, frames, crop
        self.footage = footage
        self._streaks = CleanWindows(
            footage,
            frames=frames,
            crop=crop,
            seed=seed + 1,
            is_late=is_late,
            night_share=NIGHT_SHARE,
        )
        weights = [
            math.sqrt(len(runs) * runs[0].shape[1]) * (0.3 + min(1.0, _motion(runs) / 0.05))
            for runs in footage.clips
        ]
        self._weights = np.array(weights) / max(sum(weights), 1e-9)

    def __len__(self) -> int:
        """As many as anyone could use."""
        return 1 << 40

    def __getitem__(self, index: int) -> GlassWindow | Sample:
        """The sample of an index."""
        random = np.random.default_rng([self.seed, index])
        if random.random() < STREAK_SHARE:
            return self._streaks[index]
        return self._draw(random)

    def _draw(self, random: np.random.Generator) -> GlassWindow:
        is_alone = random.random() < ALONE_SHARE or self.frames == 1
        is_focused = random.random() < FOCUSED_SHARE
        rests = is_focused and random.random() < REST_SHARE
        dry_share = DRY_ALONE_SHARE if is_alone else DRY_REST_SHARE if rests else DRY_SHARE
        is_dry = random.random() < dry_share
        times = np.zeros(1, int) if is_alone else self._times(random)
        order = (0,) if is_alone else tuple(range(self.frames))
        footage = self.footage
        if footage.clips and (not footage.photos or random.random() < 0.5):
            clean, view, place, times = self._from_clip(random, times, rests=rests)
        else:
            clean, view, place = self._from_photo(random, times, rests=rests)
        if random.random() < 0.5:
            clean, view = clean[:, :, ::-1], view[:, :, ::-1]
            left, top, pixel = place
            place = (1 - left - pixel * self.crop, top, pixel)
        seed = int(random.integers(1 << 62))
        scene, whole = (grade(pixels_of(x), np.random.default_rng(seed)) for x in (clean, view))
        # sharp drops of a focused pane stand before a scene that is out of focus as a whole
        may_be_shallow = is_alone and (is_dry or not is_focused)
        is_shallow = may_be_shallow and random.random() < SHALLOW_SHARE
        if is_shallow:
            scene = shallow_focus(scene, random)
        share = DRY_FIXTURE_SHARE if is_dry or rests else FIXTURE_SHARE
        fixtures = self._fixtures(random) if random.random() < share else ()
        panes: list[Pane] = []
        softness = random.uniform(0.5, 2.5) if random.random() < SOFT_SHARE else 0.0
        scale = math.exp(random.uniform(math.log(0.7), math.log(LARGEST)))
        if not is_dry:
            is_near = is_alone and random.random() < NEAR_ALONE_SHARE
            kinds = ["pane" if is_focused else "near" if is_near else None]
            if not is_focused and random.random() < SECOND_SHARE:
                kinds.append(None)
            panes = [
                draw_pane(
                    random,
                    kind=kind,
                    height=self.crop,
                    width=self.crop,
                    times=(float(times.min()), float(times.max())),
                    scale=scale,
                )
                for kind in kinds
            ]
        if is_focused and not is_shallow and (not is_dry or random.random() < 0.5):
            least, most = np.log(FOCUSED_SOFTNESS)
            softness = scale * math.exp(random.uniform(least, most))
        return GlassWindow(
            clean=scene,
            times=times,
            view=whole,
            place=place,
            order=order,
            panes=tuple(panes),
            rains=random.random() < RAIN_SHARE,
            softness=softness,
            fixtures=fixtures,
            seed=seed,
        )

    def _times(self, random: np.random.Generator) -> NDArray[Any]:
        """When the frames of a window were taken, then those of further ones."""
        distance = round(math.exp(random.uniform(0, math.log(FURTHEST + 0.49))))
        kind = random.random()
        count = self.frames
        centre = count // 2
        if kind < LIVE_SHARE:
            centre = count - 1
        elif kind < LIVE_SHARE + START_SHARE:
            centre = 0
        indices = window_indices(centre, count, count)
        window = [distance * (index - centre) for index in indices]
        further = 0 if random.random() < 0.15 else int(random.integers(1, MOST_SEEN + 1))
        step = math.exp(random.uniform(0, math.log(6)))
        first = -further if centre == count - 1 else -int(random.integers(further + 1))
        seen = {round(step * (first + i)) for i in range(further + 1)}
        if centre == 0:
            seen = {abs(time) for time in seen}
        return np.array([*window, *sorted(seen - set(window))])

    def _from_clip(
        self, random: np.random.Generator, times: NDArray[Any], *, rests: bool
    ) -> tuple[NDArray[Any], NDArray[Any], tuple[float, float, float], NDArray[Any]]:
        runs = self.footage.clips[random.choice(len(self._weights), p=self._weights)]
        run = runs[random.integers(len(runs))]
        last = len(run) - 1
        span = int(times[: self.frames].max() - times[: self.frames].min()) if len(times) > 1 else 0
        if span > last:  # as far apart as the clip allows
            times = np.trunc(times * (last / span)).astype(int)
        window = times[: self.frames]
        middle = int(random.integers(-min(window.min(), 0), last - max(window.max(), 0) + 1))
        keep = (times + middle >= 0) & (times + middle <= last)
        times = times[keep]
        if random.random() < 0.5:
            run = run[::-1]
        frames = [middle + int(time) for time in times]
        height, width = run.shape[1:3]
        if min(height, width) < self.crop:
            missing = self.crop - min(height, width)
            run = np.pad(run, ((0, 0), (0, missing), (0, missing), (0, 0)), mode="symmetric")
            height, width = run.shape[1:3]
        shrink = random.uniform(1, min(2.2, min(height, width) / self.crop))
        if min(height, width) < 500 and random.random() < 0.6:
            shrink = 1.0
        side = min(round(self.crop * shrink), height, width)
        path = np.zeros((len(times), 2))
        if (
            not rests and random.random() < 0.35
        ):  # a camera that shakes or turns, where the clip's is fixed
            path = _path(random, times) * shrink
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        cuts, views = [], []
        small = VIEW_WIDTH, max(1, round(VIEW_WIDTH * height / width))
        for index, (dx, dy) in zip(frames, path, strict=True):
            y = min(max(round(top + dy), 0), height - side)
            x = min(max(round(left + dx), 0), width - side)
            cut = run[index, y : y + side, x : x + side]
            if side != self.crop:
                cut = cv2.resize(cut, (self.crop, self.crop), interpolation=cv2.INTER_AREA)
            cuts.append(cut)
            views.append(cv2.resize(run[index], small, interpolation=cv2.INTER_AREA))
        place = (left / width, top / width, side / self.crop / width)
        return np.stack(cuts), np.stack(views), place, times

    def _from_photo(
        self, random: np.random.Generator, times: NDArray[Any], *, rests: bool
    ) -> tuple[NDArray[Any], NDArray[Any], tuple[float, float, float]]:
        """A photograph under camera motion, at times with a piece of another moving over it."""
        whole = self.crop * random.uniform(1.5, 4)
        size = VIEW_WIDTH, round(VIEW_WIDTH * random.uniform(0.5, 0.8))
        left = random.uniform(0, max(0.0, whole - self.crop))
        top = random.uniform(0, max(0.0, whole * size[1] / size[0] - self.crop))
        moments = np.zeros_like(times) if rests else times
        back, views = self._moving_photo(random, moments, whole, size, (left, top))
        if random.random() < 0.3:
            front, _ = self._moving_photo(random, times, whole, size, (left, top))
            path = _path(random, times)
            y, x = np.mgrid[: self.crop, : self.crop].astype(np.float32)
            centre = random.uniform(0, self.crop, 2)
            radii = random.uniform(0.08, 0.4, 2) * self.crop
            for index, (dx, dy) in enumerate(path):
                distance = np.hypot(
                    (x - centre[0] - dx) / radii[0], (y - centre[1] - dy) / radii[1]
                )
                mask = np.clip((1 - distance) * radii.min() / 1.5, 0, 1)[..., None]
                back[index] = (back[index] * (1 - mask) + front[index] * mask).astype(np.uint8)
        return back, views, (left / whole, top / whole, 1 / whole)

    def _moving_photo(
        self,
        random: np.random.Generator,
        times: NDArray[Any],
        whole: float,
        size: tuple[int, int],
        corner: tuple[float, float],
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        photo = self._photo(random)
        height, width = photo.shape[:2]
        largest = min(height, width) / (self.crop + 24)
        scale = random.uniform(1, max(1.0, min(2.5, largest)))
        if scale > 1.3:
            photo = cv2.GaussianBlur(photo, (0, 0), 0.4 * scale)
        span = self.crop * scale
        centre = [
            random.uniform(min(span / 2, side / 2), max(side - span / 2, side / 2))
            for side in (width, height)
        ]
        path = _path(random, times)
        # a car's way: the scene grows around a point
        zoom = _nearest_neighbour(times) ** -0.7 * random.normal(0, 0.02)
        turn = random.normal(0, 0.002)
        pivot = random.uniform(-0.5, 1.5, 2) * self.crop
        coarse = max(1, round(whole * scale / size[0]))
        small = cv2.resize(photo, (max(1, width // coarse), max(1, height // coarse)),
                           interpolation=cv2.INTER_AREA)  # fmt: skip
        cuts, views = [], []
        grow = whole / size[0]
        for time, (dx, dy) in zip(times, path, strict=True):
            factor, angle = scale * math.exp(-zoom * time), turn * time
            cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
            matrix = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
            matrix[:, 2] = np.array(centre) - matrix[:, :2] @ (pivot - np.array([dx, dy]))
            matrix[:, 2] += (pivot - self.crop / 2) * scale
            cuts.append(_warped(photo, matrix, (self.crop, self.crop)))
            # a pixel of the coarse frame is one of the cut, and that one of the photograph
            seen = matrix.copy()
            seen[:, :2] *= grow
            seen[:, 2] += matrix[:, :2] @ (grow / 2 - 0.5 - np.array(corner))
            seen[:, 2] = (seen[:, 2] + 0.5) / coarse - 0.5
            seen[:, :2] /= coarse
            views.append(_warped(small, seen, size))
        return np.stack(cuts), np.stack(views)

    def _photo(self, random: np.random.Generator) -> Image:
        photos = self.footage.photos
        return photos[random.integers(len(photos))]

    def _fixtures(self, random: np.random.Generator) -> tuple[Fixture, ...]:
        """One or two things that stand still and must stay."""
        makers = (
            self._bonnet,
            self._sticker,
            self._sticker,
            self._sticker,
            self._reflection,
            self._slats,
            self._letters,
            self._bar,
        )
        count = 1 + int(random.random() < 0.35)
        return tuple(makers[random.integers(len(makers))](random) for _ in range(count))

    def _piece(self, random: np.random.Generator, height: int, width: int) -> NDArray[Any]:
        """A piece of a photograph, at some size."""
        if not self.footage.photos:
            return np.full((height, width, 3), int(random.integers(20, 220)), np.uint8)
        photo = self._photo(random)
        rows, columns = photo.shape[:2]
        zoom = random.uniform(1, max(1.0, min(4.0, rows / height, columns / width)))
        inner = min(rows, round(height * zoom)), min(columns, round(width * zoom))
        top = random.integers(rows - inner[0] + 1)
        left = random.integers(columns - inner[1] + 1)
        piece = photo[top : top + inner[0], left : left + inner[1]]
        return cv2.resize(piece, (width, height), interpolation=cv2.INTER_AREA)

    def _bonnet(self, random: np.random.Generator) -> Fixture:
        """What fills the lower edge: a bonnet, a dashboard, handlebars."""
        crop = self.crop
        piece = self._piece(random, crop, crop)
        soft = random.uniform(0.3, 12)
        piece = np.asarray(cv2.GaussianBlur(piece, (0, 0), soft)) * random.uniform(0.25, 1.1)
        y, x = np.mgrid[:crop, :crop].astype(np.float32) / crop
        rise = random.uniform(0.06, 0.45)
        bend, tilt, middle = random.uniform(0, 0.5), random.normal(0, 0.12), random.uniform(0, 1)
        edge = 1 - rise + bend * (x - middle) ** 2 + tilt * (x - middle)
        sharp = crop / random.uniform(0.7, 4)
        return _fixture(piece, np.clip((y - edge) * sharp, 0, 1), is_behind=random.random() < 0.7)

    def _sticker(self, random: np.random.Generator) -> Fixture:
        """A sticker, a badge, a mirror, a mount: a shape with a texture, or plain."""
        crop = self.crop
        height, width = (round(crop * random.uniform(0.04, 0.3)) for _ in range(2))
        canvas = np.zeros((crop, crop, 3), np.float32)
        mask: NDArray[Any] = np.zeros((crop, crop), np.float32)
        y, x = (int(random.integers(-side // 2, crop - side // 2)) for side in (height, width))
        piece = self._piece(random, height, width).astype(np.float32)
        if random.random() < 0.5:
            # half of the plain ones dark, as sensors and mounts are
            piece[:] = random.uniform(0, 50) if random.random() < 0.5 else random.uniform(0, 255, 3)
            if random.random() < 0.6:
                _letter(piece, random)
        if random.random() < 0.5:
            shape = np.ones((height, width), np.float32)
        else:
            v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
            shape = (np.hypot(u, v) < 1).astype(np.float32)
        y0, x0, y1, x1 = max(0, y), max(0, x), min(crop, y + height), min(crop, x + width)
        canvas[y0:y1, x0:x1] = piece[y0 - y : y1 - y, x0 - x : x1 - x]
        mask[y0:y1, x0:x1] = shape[y0 - y : y1 - y, x0 - x : x1 - x]
        soft = math.exp(random.uniform(math.log(0.4), math.log(2.2)))
        weighted = cv2.GaussianBlur(canvas * mask[..., None], (0, 0), soft)
        mask = cv2.GaussianBlur(mask, (0, 0), soft)
        piece = weighted / np.maximum(mask, 1e-3)[..., None]
        opacity = random.uniform(0.3, 1) if random.random() < 0.3 else 1.0
        return _fixture(piece, opacity * mask, is_behind=False)

    def _reflection(self, random: np.random.Generator) -> Fixture:
        """A dashboard that is reflected by the glass."""
        piece = self._piece(random, self.crop, self.crop)
        piece = cv2.GaussianBlur(piece, (0, 0), random.uniform(0.8, 8))
        mask = np.full((self.crop, self.crop), random.uniform(0.04, 0.25))
        return _fixture(piece, mask, is_behind=False)

    def _slats(self, random: np.random.Generator) -> Fixture:
        """A dashboard with edges that is reflected: slats of a vent, rims, a sheet of paper."""
        crop = self.crop
        cover = np.zeros((crop, crop), np.uint8)
        centre, angle = random.uniform(0, crop, 2), random.uniform(0, math.pi)
        along = np.array([math.cos(angle), math.sin(angle)])
        across = np.array([-along[1], along[0]]) * crop * random.uniform(0.02, 0.12)
        half = along * crop * random.uniform(0.03, 0.35)
        thick = max(1, round(crop * math.exp(random.uniform(math.log(0.005), math.log(0.03)))))
        for number in range(int(random.integers(1, 9))):
            middle = centre + number * across + random.normal(0, 0.002 * crop, 2)
            begin, end = (
                np.rint(each).astype(int).tolist() for each in (middle - half, middle + half)
            )
            cv2.line(cover, begin, end, int(random.integers(150, 256)), thick, cv2.LINE_AA)
        if random.random() < 0.5:
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * random.uniform(0.05, 0.4, 2)
            corners = random.uniform(0, 1, 2) + corners + random.normal(0, 0.03, (4, 2))
            sheet = np.rint(corners * crop).astype(np.int32)
            cv2.fillPoly(cover, [sheet], int(random.integers(100, 256)), cv2.LINE_AA)
        soft = cv2.GaussianBlur(cover, (0, 0), random.uniform(0.5, 4))
        colour = np.broadcast_to(
            random.uniform(150, 255) * random.uniform(0.85, 1, 3), (crop, crop, 3)
        )
        return _fixture(colour, random.uniform(0.06, 0.45) / 255 * soft, is_behind=False)

    def _bar(self, random: np.random.Generator) -> Fixture:
        """A dark or pale bar on which a recorder writes date and speed."""
        layers = draw_text(random, self.crop, 1)
        text = layers[3:]
        rows = text[0].amax(1).nonzero().flatten().tolist() or [self.crop - 1]
        margin = round(self.crop * random.uniform(0.01, 0.06))
        bar = torch.zeros_like(text)
        bar[:, max(0, rows[0] - margin) : rows[-1] + margin + 1] = random.uniform(0.3, 1)
        opacity = text + bar * (1 - text)
        shade = torch.full_like(layers[:3], float(random.choice([0.0, 0.1, 0.9])))
        picture = torch.lerp(shade, layers[:3], text / opacity.clamp(min=1e-6))
        return Fixture(picture, opacity, is_behind=False)

    def _letters(self, random: np.random.Generator) -> Fixture:
        """A clock, a camera's name, a watermark."""
        layers = draw_text(random, self.crop, 1)
        return Fixture(layers[:3], layers[3:], is_behind=False)


def _letter(piece: NDArray[Any], random: np.random.Generator) -> None:
    """Write on a sticker, `[H, W, 3]` in 0 to 255, in place: bold letters, at times in a ring."""
    height, width = piece.shape[:2]
    is_bright = piece.mean() > random.uniform(90, 160)
    low, high = (0, 70) if is_bright else (185, 255)
    colour = random.uniform(low, high, 3)
    cover: NDArray[Any] = np.zeros((height, width), np.uint8)
    rows = int(random.integers(1, 3))
    if random.random() < 0.3:
        middle, reach = (width // 2, height // 2), max(2, round(0.45 * min(height, width)))
        cv2.circle(cover, middle, reach, 255, max(1, reach // 6), cv2.LINE_AA)
    for row in range(rows):
        letters = "".join(random.choice(list("0123456789ABEHKPRSTZ-"), int(random.integers(1, 6))))
        face = int(random.choice([0, 2, 3, 4]))  # fonts of OpenCV
        (wide, tall), _ = cv2.getTextSize(letters, face, 1, 2)
        size = random.uniform(0.6, 0.9) * min(width / wide, height / rows / tall)
        left = round((width - size * wide) / 2)
        base = round((row + 0.5) * height / rows + size * tall / 2)
        stroke = max(1, round(size * random.uniform(1, 4)))
        cv2.putText(cover, letters, (left, base), face, size, 255, stroke, cv2.LINE_AA)
    piece += cover[..., None] / np.float32(255) * (colour - piece)


def _motion(runs: Sequence[NDArray[Any]]) -> float:
    """How much a clip changes in eight frames, as a mean difference in [0, 1]."""
    run = runs[len(runs) // 2]
    first, later = (run[i, ::8, ::8].astype(np.float32) for i in (0, min(8, len(run) - 1)))
    return float(np.abs(first - later).mean()) / 255


def _nearest_neighbour(times: NDArray[Any]) -> float:
    """Frames from the middle one to the nearest other one of the window."""
    others = np.abs(times[times != 0])
    return float(others.min()) if len(others) else 1.0


def _path(random: np.random.Generator, times: NDArray[Any]) -> NDArray[Any]:
    """Where the picture is at those times, in pixels from where it is at time 0, `[N, 2]`."""
    direction = random.uniform(0, 2 * math.pi)
    # as far in the time to the next neighbour, however long that is
    speed = math.exp(random.uniform(math.log(0.3), math.log(50))) / _nearest_neighbour(times)
    if random.random() < 0.2:
        speed = 0.0
    shake = math.exp(random.uniform(math.log(0.05), math.log(5)))
    sway, period = random.normal(0, 8, 2), random.uniform(15, 120)
    phase = random.uniform(0, 2 * math.pi)
    path = np.outer(times, speed * np.array([math.cos(direction), 0.6 * math.sin(direction)]))
    path = path + np.outer(np.sin(2 * math.pi * times / period + phase) - math.sin(phase), sway)
    path = path + (times != 0)[:, None] * random.normal(0, shake, (len(times), 2))
    return np.asarray(path)


def _warped(photo: Image, matrix: NDArray[Any], size: tuple[int, int]) -> Image:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photo, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _fixture(picture: NDArray[Any], opacity: NDArray[Any], *, is_behind: bool) -> Fixture:
    pixels = torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1) / 255
    return Fixture(
        pixels.clamp(0, 1).contiguous(),
        torch.from_numpy(np.asarray(opacity, np.float32))[None],
        is_behind,
    )


def _with(frames: Tensor, fixtures: Sequence[Fixture], *, behind: bool) -> Tensor:
    for each in fixtures:
        if each.is_behind == behind:
            frames = torch.lerp(
                frames, each.picture.to(frames.device), each.opacity.to(frames.device)
            )
    return frames


def glass_pair(
    sample: GlassWindow | Sample, *, frames: int, device: torch.device | str, aligns: bool = True
) -> tuple[Tensor, Tensor]:
    """Put the glass of a sample before it, on a device.

    Args:
        sample: From `GlassWindows`.
        frames: Frames of a window, T.
        device: Where to render.
        aligns: Whether to align the windows.

    Returns:
        What the network sees, `[3 * (T + 2), crop, crop]`: the window between its
        `glass_statistics`, black around a picture without neighbours; and the clean middle
        frame, `[3, crop, crop]`, RGB in [0, 1].
    """
    if not isinstance(sample, GlassWindow):
        return rainy_pair(sample, frames=frames, device=device, aligns=aligns, glass=True)
    generator = torch.Generator().manual_seed(sample.seed)
    order = list(sample.order)
    middle = order[len(order) // 2]
    clean = sample.clean.to(device)
    if sample.softness:
        clean = blur(clean, sample.softness)
    clean = _with(clean, sample.fixtures, behind=True)
    wet = clean
    if sample.rains:
        wet = wet.clone()
        wet[order] = rain_on(wet[order], generator)
    view = sample.view.to(device)
    for pane in sample.panes:
        wet, _ = pane_on(wet, pane, times=sample.times, view=view, place=sample.place)
    wet, clean = (_with(each, sample.fixtures, behind=False) for each in (wet, clean[order]))
    wet, clean = (each.clamp(0, 1) for each in lens([wet, clean], generator))
    # a codec meets the frames in their order
    ranks = sorted(range(len(order)), key=lambda i: sample.times[order[i]])
    coded_wet, clean = coded([wet[[order[i] for i in ranks]], clean[ranks]], generator)
    wet[[order[i] for i in ranks]] = coded_wet
    target = clean[ranks.index(len(order) // 2)]
    if len(order) == 1:
        seen = F.pad(wet[order], (0, 0, 0, 0, 0, 0, frames // 2 + 1, frames // 2 + 1))
        return seen.flatten(0, 1), target
    window = wet[order]
    statistics = glass_statistics(wet, wet[middle])
    if aligns:
        window = align(window[None], moves_all=True)[0]
    return between(statistics, window).flatten(0, 1), target


def glass_batch(
    samples: list[GlassWindow | Sample],
    *,
    frames: int,
    device: torch.device | str,
    aligns: bool = True,
) -> tuple[Tensor, Tensor]:
    """The pairs of several samples: `[N, 3 * (T + 2), crop, crop]` and `[N, 3, crop, crop]`."""
    pairs = [glass_pair(sample, frames=frames, device=device, aligns=aligns) for sample in samples]
    return torch.stack([seen for seen, _ in pairs]), torch.stack([clean for _, clean in pairs])
