"""Training pairs from clean clips and photographs: a rainy window and its clean middle frame."""

import math
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
from mhnet_video.training.footage import Footage, grade
from mhnet_video.training.night import nightfall
from mhnet_video.training.overlay import burnt_in, draw_text
from mhnet_video.training.rain import camera, rain_by_night, rain_on

ALONE_SHARE = 0.43
"""Share of single pictures, without neighbours, early in a run. With a smaller share the network
learns to compare frames and nothing else. It then leaves single pictures unchanged, and paints
ghosts where the camera moves fast."""
LATE_ALONE_SHARE = 0.5
"""Share of single pictures late in a run."""
END_SHARE = 0.04
"""Share of windows at the ends of a clip."""
SHORT_SHARE = 0.3
"""Share of the windows at ends whose clip has fewer frames than a window."""
CUT_SHARE = 0.03
"""Share of windows with a cut after the middle frame."""
STRANGER_SHARE = 0.1
"""Share of windows whose neighbours both show another scene, as after very fast motion. Only the
middle frame helps to remove their rain."""
COPY_SHARE = 0.1
"""Share of windows in which a neighbour is a copy of the middle frame, including its rain, as in
clips whose frame rate was raised. Without them a streak that appears twice is taken for scenery."""
RECODED_SHARE = 0.6
"""Share of the windows with a copy whose copy has its own noise and compression. Bit-identical
copies are found before the network sees them."""
MOSAIC_SHARE = 0.75
"""Share of samples that are mosaics of four windows of half the side, each dry or with its own
rain. The channel attention averages over the whole frame. A network that was trained on evenly
rainy pictures takes a half-dry frame for dry, and leaves the rain in the other half."""
TURNED_SHARE = 0.2
"""Share of windows rotated by 90 degrees."""
TEXT_SHARE = 0.12
"""Share of windows with burnt-in text. Its strokes are as thin and as bright as streaks, and must
stay."""
ALONE_TEXT_SHARE = 0.25
"""Share of dry single pictures with burnt-in text. Larger than `TEXT_SHARE`, because no motion
behind the text sets it apart."""
DRY_SHARE = 0.2
"""Share of dry windows among those of several frames, early in a run. Without them road markings
are taken for streaks."""
LATE_DRY_SHARE = 0.28
"""Share of dry windows late in a run. Larger, because the network soon forgets what dry pictures
teach."""
DRY_ALONE_SHARE = 0.24
"""Share of dry pictures among single ones, early in a run."""
LATE_DRY_ALONE_SHARE = 0.37
"""Share of dry pictures among single ones, late in a run."""
LARGE_SHARE = 0.3
"""Share of windows that represent pictures of more than 720 rows, with longer and wider streaks."""
LARGEST = 3.0
"""Largest scale of these pictures, relative to one of 360 to 720 rows."""
SOFT_SHARE = 0.6
"""Share of the large windows that are enlarged, to be as soft as lenses and encoders leave large
pictures."""
NIGHT_SHARE = 0.2
"""Share of windows by night, whose rain shines in the light of lamps, unless another is wanted."""
MOST_TRIES = 6
"""Candidates for a dry single picture: up to this many are drawn, and the most rain-like is taken.
A twentieth of the area of photographs causes nine tenths of the changes that a trained network
makes to dry ones: grates, lit windows, white paint. `rain_likeness` finds them."""


class ClipWindow(NamedTuple):
    """Clean frames, and the random choices by which rain is rendered into them."""

    clean: Tensor
    """`[K, 3, crop, crop]`, RGB in [0, 1]; K is less than T where frames are missing."""
    middle: int
    """Index of the frame to restore."""
    seed: int
    """Seed of the rain and of the camera model."""
    is_dry: bool
    """Whether no rain is rendered."""
    copies: tuple[int, ...] = ()
    """Indices of the frames that become copies of the middle one, including its rain."""
    is_recoded: bool = False
    """Whether frames are copied before the camera model, so that each has its own noise."""
    scale: float = 1
    """Length and width of streaks, relative to a picture of 360 to 720 rows."""
    is_soft: bool = False
    """Whether the scene is enlarged together with its streaks."""
    text: Tensor | None = None
    """Text burnt into every frame, rainy and clean: `[4, crop, crop]`, RGB and opacity in [0, 1];
    None for no text."""
    text_is_soft: bool = False
    """Whether the text is enlarged together with the scene."""
    is_night: bool = False
    """Whether the scene is turned into one by night, with lamps."""


Sample = tuple[ClipWindow, ...]
"""One window, or four of half the side: upper left, upper right, lower left, lower right."""


class CleanWindows(Dataset[Sample]):
    """Clean windows of consecutive frames, single or as mosaics of four.

    A seed and an index determine a sample, so that a run can be resumed exactly.

    Args:
        footage: Clips and photographs to draw from.
        frames: Frames of a window, T, odd.
        crop: Side of the samples, in pixels, a multiple of 32.
        seed: Seed of all samples.
        is_late: Whether to draw by the shares of the end of a run, with more dry pictures.
        night_share: Share of windows by night, whose rain shines in the light of lamps;
            `NIGHT_SHARE` if None.
    """

    def __init__(
        self,
        footage: Footage,
        *,
        frames: int,
        crop: int,
        seed: int = 0,
        is_late: bool = False,
        night_share: float | None = None,
    ) -> None:
        self.seed = seed
        if night_share is None:
            night_share = NIGHT_SHARE
        self._whole = _Windows(footage, frames, crop, is_late, night_share)
        self._half = _Windows(footage, frames, crop // 2, is_late, night_share)

    def __len__(self) -> int:
        """A number that no run reaches."""
        return 1 << 40

    def __getitem__(self, index: int) -> Sample:
        """Draw the sample of an index."""
        random = np.random.default_rng([self.seed, index])
        if random.random() < MOSAIC_SHARE:
            return tuple(self._half.draw(random) for _ in range(4))
        return (self._whole.draw(random),)


class _Windows:
    """Draws windows of one size.

    Args:
        footage: Clips and photographs to draw from.
        frames: Frames of a window, T, odd.
        crop: Side of the windows, in pixels.
        is_late: See `CleanWindows`.
        night_share: See `CleanWindows`.
    """

    def __init__(
        self, footage: Footage, frames: int, crop: int, is_late: bool, night_share: float
    ) -> None:
        self.frames, self.crop, self._night_share = frames, crop, night_share
        self._scenes, self._pictures = (_Scenes(footage, count, crop) for count in (frames, 1))
        self._alone_share = LATE_ALONE_SHARE if is_late else ALONE_SHARE
        self._dry_share = LATE_DRY_SHARE if is_late else DRY_SHARE
        self._dry_alone_share = LATE_DRY_ALONE_SHARE if is_late else DRY_ALONE_SHARE

    def draw(self, random: np.random.Generator) -> ClipWindow:
        """Draw a window."""
        uniform, middle = random.random(), self.frames // 2
        copies: tuple[int, ...] = ()
        shares = [self._alone_share, END_SHARE, CUT_SHARE, STRANGER_SHARE, COPY_SHARE]
        limits = np.cumsum(shares)
        is_alone = uniform < limits[0] or self.frames == 1
        is_dry = random.random() < (self._dry_alone_share if is_alone else self._dry_share)
        tries = 1 + int(random.integers(MOST_TRIES)) if is_alone and is_dry else 1
        scenes = self._pictures if is_alone else self._scenes
        clean = max((scenes.draw(random) for _ in range(tries)), key=rain_likeness)
        if is_alone:
            middle = 0
        elif uniform < limits[1]:
            middle, first, end = int(random.integers(self.frames)), 0, self.frames
            if random.random() < SHORT_SHARE:
                first, end = int(random.integers(middle + 1)), int(random.integers(middle, end)) + 1
            clean, middle = clean[first:end], middle - first
        elif uniform < limits[2]:
            clean[middle + 1 :] = self._pictures.draw(random)
        elif uniform < limits[3]:
            for neighbours in (slice(0, middle), slice(middle + 1, None)):
                clean[neighbours] = self._pictures.draw(random)
        elif uniform < limits[4] and middle:
            sides = [(middle - 1,), (middle + 1,), (middle - 1, middle + 1)]
            # three frames that are all the same would leave nothing to compare
            copies = sides[random.integers(3 if middle > 1 else 2)]
        # phones film sideways without rotation metadata; and horizontal boards and rails become
        # upright ones, which must not be taken for streaks
        if random.random() < TURNED_SHARE:
            clean = clean.rot90(2 * int(random.integers(2)) - 1, (2, 3))
        seed = int(random.integers(1 << 62))
        is_recoded = random.random() < RECODED_SHARE
        scale = 1.0
        if random.random() < LARGE_SHARE:
            scale = math.exp(random.uniform(math.log(1.2), math.log(LARGEST)))
        is_soft = random.random() < SOFT_SHARE
        text, text_is_soft = None, is_soft and random.random() < 0.5
        if random.random() < (ALONE_TEXT_SHARE if is_alone and is_dry else TEXT_SHARE):
            text = draw_text(random, self.crop, 1 if text_is_soft else random.uniform(1, scale))
        return ClipWindow(
            clean.contiguous(),
            middle,
            seed,
            is_dry,
            copies,
            is_recoded,
            scale,
            is_soft,
            text,
            text_is_soft,
            is_night=random.random() < self._night_share,
        )


class _Scenes:
    """Draws clean scenes of one length and size.

    Args:
        footage: Clips and photographs to draw from.
        frames: Frames of a scene, T, odd.
        crop: Side of the frames, in pixels.
    """

    def __init__(self, footage: Footage, frames: int, crop: int) -> None:
        self.footage, self.frames, self.crop = footage, frames, crop

    def draw(self, random: np.random.Generator) -> Tensor:
        """Draw a scene: `[T, 3, crop, crop]`, RGB in [0, 1]."""
        footage = self.footage
        if footage.clips and (not footage.photos or random.random() < 0.5):
            frames = self._from_clip(random)
        else:
            frames = self._from_photo(random)
        if random.random() < 0.5:
            frames = frames[:, :, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        return grade(pixels.float() / 255, random)

    def _from_clip(self, random: np.random.Generator) -> NDArray[Any]:
        """Crop consecutive frames of a clip: `[T, crop, crop, 3]` uint8."""
        weights = np.sqrt([len(runs) * runs[0].shape[1] for runs in self.footage.clips])
        runs = self.footage.clips[random.choice(len(weights), p=weights / weights.sum())]
        run = runs[random.integers(len(runs))]
        first = random.integers(len(run) - self.frames + 1)
        frames = run[first : first + self.frames]
        if random.random() < 0.5:
            frames = frames[::-1]
        if (missing := self.crop - min(frames.shape[1:3])) > 0:
            sides = ((0, 0), (0, missing), (0, missing), (0, 0))
            frames = np.pad(frames, sides, mode="symmetric")
        height, width = frames.shape[1:3]
        shrink = random.uniform(1, min(2.2, min(height, width) / self.crop))
        if min(height, width) < 500 and random.random() < 0.6:
            shrink = 1.0
        side = min(round(self.crop * shrink), height, width)
        path = np.zeros((self.frames, 2), int)
        if random.random() < 0.4:  # adds camera motion, which fixed cameras lack
            path = np.rint(self._path(random) * shrink).astype(int)
        top = random.integers(height - side + 1) + path[:, 1]
        left = random.integers(width - side + 1) + path[:, 0]
        crops = []
        for index, frame in enumerate(frames):
            y = min(max(int(top[index]), 0), height - side)
            x = min(max(int(left[index]), 0), width - side)
            crop = frame[y : y + side, x : x + side]
            if side != self.crop:
                crop = cv2.resize(crop, (self.crop, self.crop), interpolation=cv2.INTER_AREA)
            crops.append(crop)
        return np.stack(crops)

    def _from_photo(self, random: np.random.Generator) -> NDArray[Any]:
        """Pan over a photograph, sometimes with an ellipse of another moving over it."""
        back = self._moving_photo(random, moving=random.random() < 0.8)
        if random.random() < 0.3:
            front = self._moving_photo(random, moving=True)
            path = self._path(random)
            y, x = np.mgrid[: self.crop, : self.crop].astype(np.float32)
            centre = random.uniform(0, self.crop, 2)
            radii = random.uniform(0.08, 0.4, 2) * self.crop
            for index in range(self.frames):
                dx, dy = path[index]
                distance = np.hypot(
                    (x - centre[0] - dx) / radii[0], (y - centre[1] - dy) / radii[1]
                )
                mask = np.clip((1 - distance) * radii.min() / 1.5, 0, 1)[..., None]
                back[index] = (back[index] * (1 - mask) + front[index] * mask).astype(np.uint8)
        return back

    def _path(self, random: np.random.Generator) -> NDArray[Any]:
        """Draw offsets of the frames from the middle one, (x, y) in pixels: `[T, 2]`.

        Speeds range from rest to hand-held sweeps that alignment cannot follow. In those the
        network must learn not to trust the neighbours.
        """
        direction = random.uniform(0, 2 * math.pi)
        speed = math.exp(random.uniform(math.log(0.2), math.log(45)))
        shake = math.exp(random.uniform(math.log(0.05), math.log(6)))
        steps = np.arange(self.frames)[:, None] - self.frames // 2
        velocity = speed * np.array([math.cos(direction), 0.6 * math.sin(direction)])
        if random.random() < 0.3:
            velocity *= 0
        path: NDArray[Any] = steps * velocity + random.normal(0, shake, (self.frames, 2))
        return path - path[self.frames // 2]

    def _moving_photo(self, random: np.random.Generator, *, moving: bool) -> NDArray[Any]:
        """Crop a photograph along a path, with zoom and rotation: `[T, crop, crop, 3]` uint8."""
        photos = self.footage.photos
        photo = photos[random.integers(len(photos))]
        height, width = photo.shape[:2]
        largest = min(height, width) / (self.crop + 24)
        scale = random.uniform(1, max(1.0, min(2.5, largest)))
        span = self.crop * scale
        centre = [
            random.uniform(min(span / 2, side / 2), max(side - span / 2, side / 2))
            for side in (width, height)
        ]
        path = self._path(random) if moving else np.zeros((self.frames, 2))
        zoom = random.normal(0, 0.006) if moving else 0.0
        turn = random.normal(0, 0.004) if moving else 0.0
        if scale > 1.3:  # low-pass filter against aliasing
            top, left = max(0, int(centre[1] - span)), max(0, int(centre[0] - span))
            crop = photo[top : int(centre[1] + span), left : int(centre[0] + span)]
            photo = cv2.GaussianBlur(crop, (0, 0), 0.4 * scale)
            centre = [centre[0] - left, centre[1] - top]
        frames = []
        for index in range(self.frames):
            step = index - self.frames // 2
            factor, angle = scale * (1 + zoom * step), turn * step
            cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
            matrix = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
            middle = np.array([self.crop / 2, self.crop / 2]) - path[index]
            matrix[:, 2] = np.array(centre) - matrix[:, :2] @ middle
            frames.append(
                cv2.warpAffine(
                    photo,
                    matrix,
                    (self.crop, self.crop),
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_REFLECT_101,
                )
            )
        return np.stack(frames)


def rain_likeness(clean: Tensor) -> float:
    """Measure bright, upright, narrow structures, which look like streaks.

    A horizontal top-hat removes structures wider than eight pixels. A vertical opening removes
    those lower than seven. Source: Serra, "Image Analysis and Mathematical Morphology", 1982.

    Args:
        clean: `[1, 3, H, W]`, RGB in [0, 1].

    Returns:
        The mean of the remaining grey levels, 0 to 255.
    """
    grey: NDArray[Any] = (clean[0].mean(0) * 255).byte().numpy()
    narrow = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((1, 9), np.uint8))
    upright = cv2.morphologyEx(narrow, cv2.MORPH_OPEN, np.ones((7, 1), np.uint8))
    return float(upright.mean())


def rainy_pair(
    sample: Sample,
    *,
    frames: int,
    device: torch.device | str,
    aligns: bool = False,
    glass: bool = False,
) -> tuple[Tensor, Tensor]:
    """Render the rain of a sample.

    Args:
        sample: From `CleanWindows`.
        frames: Frames of a window, T.
        device: Device to render on.
        aligns: Whether to align the neighbours to the middle frame.
        glass: Whether to put the windows between their `glass_statistics`.

    Returns:
        The rainy window `[3T, crop, crop]` and its clean middle frame `[3, crop, crop]`, RGB in
        [0, 1]. Missing neighbours of single pictures are black.
    """
    pairs = [_rainy_window(window, frames, device, aligns, glass) for window in sample]
    if len(pairs) == 1:
        return pairs[0]
    rainy, clean = (
        torch.cat([torch.cat(side[row : row + 2], dim=2) for row in (0, 2)], dim=1)
        for side in zip(*pairs, strict=True)
    )
    return rainy, clean


def _rainy_window(
    window: ClipWindow, frames: int, device: torch.device | str, aligns: bool, glass: bool
) -> tuple[Tensor, Tensor]:
    """Render the rain of one window: `[3T, side, side]` and `[3, side, side]`."""
    generator = torch.Generator().manual_seed(window.seed)
    clean = window.clean.to(device)
    scale = 1 if window.is_soft else window.scale
    if window.is_night:
        night = nightfall(clean, generator)
        rainy = clean = night.clean
        if not window.is_dry:
            rainy = rain_by_night(clean, night.light, generator, scale=scale)
    else:
        rainy = clean if window.is_dry else rain_on(clean, generator, scale=scale)
    text = None if window.text is None else window.text.to(device)
    if window.text_is_soft:
        clean, rainy = burnt_in([clean, rainy], text)
    if window.is_soft and window.scale > 1:
        clean, rainy = _enlarged([clean, rainy], window.scale, generator)
    if not window.text_is_soft:
        clean, rainy = burnt_in([clean, rainy], text)
    order = [window.middle if i in window.copies else i for i in range(len(clean))]
    if window.is_recoded:
        rainy, clean = rainy[order], clean[order]
    rainy, clean = camera([rainy, clean], generator)
    if not window.is_recoded:
        rainy = rainy[order]
    seen = seen_of(rainy, window.middle, frames=frames, aligns=aligns, glass=glass)
    return seen, clean[window.middle]


def seen_of(run: Tensor, middle: int, *, frames: int, aligns: bool, glass: bool = False) -> Tensor:
    """What a network sees of a run of frames.

    Args:
        run: `[K, 3, side, side]`, RGB in [0, 1].
        middle: Index of the frame to restore.
        frames: Frames of a window, T.
        aligns: Whether to align the neighbours to the middle frame.
        glass: Whether to put the window between its `glass_statistics`.

    Returns:
        The window, `[3T, side, side]`; black neighbours around a single picture.
    """
    if len(run) == 1:
        half = frames // 2
        statistics = torch.zeros_like(run).expand(2, -1, -1, -1)
        seen = F.pad(run, (0, 0, 0, 0, 0, 0, half, half))
    else:
        statistics = glass_statistics(run, run[middle])
        seen = run[window_indices(middle, len(run), frames)]
        if aligns:
            seen = align(seen[None], moves_all=glass)[0]
    if glass:
        seen = between(statistics, seen)
    return seen.flatten(0, 1)


def _enlarged(clips: list[Tensor], scale: float, generator: torch.Generator) -> list[Tensor]:
    """Enlarge one random crop of all clips `[K, 3, H, W]` to their size."""
    size = clips[0].shape[-2:]
    inner = [round(side / scale) for side in size]
    top, left = (
        int(torch.randint(whole - part + 1, (1,), generator=generator))
        for whole, part in zip(size, inner, strict=True)
    )
    return [
        F.interpolate(
            clip[..., top : top + inner[0], left : left + inner[1]],
            size=size,
            mode="bicubic",
        ).clamp(0, 1)
        for clip in clips
    ]


def rainy_batch(
    samples: list[Sample], *, frames: int, device: torch.device | str, aligns: bool = False
) -> tuple[Tensor, Tensor]:
    """Render the rain of several samples; arguments as for `rainy_pair`.

    Returns:
        Rainy windows `[N, 3T, crop, crop]` and clean middle frames `[N, 3, crop, crop]`.
    """
    pairs = [rainy_pair(sample, frames=frames, device=device, aligns=aligns) for sample in samples]
    return torch.stack([rainy for rainy, _ in pairs]), torch.stack([clean for _, clean in pairs])
