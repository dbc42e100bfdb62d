"""Training pairs from clean clips and photographs: a rainy window and its clean middle frame."""

import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mhnet_video.errors import ReadError
from mhnet_video.model.align import align
from mhnet_video.model.window import between, glass_statistics, window_indices
from mhnet_video.training.night import nightfall
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
PALE_SHARE = 0.4
"""Share of burnt-in texts that are translucent, as watermarks are."""
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
"""Share of windows by night, whose rain shines in the light of lamps."""
MOST_TRIES = 6
"""Candidates for a dry single picture: up to this many are drawn, and the most rain-like is taken.
A twentieth of the area of photographs causes nine tenths of the changes that a trained network
makes to dry ones: grates, lit windows, white paint. `rain_likeness` finds them."""

Image = NDArray[Any]
"""`[H, W, 3]` uint8, RGB."""


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Clean photographs and clips, decoded in memory."""

    photos: list[Image]
    """Photographs of any sizes."""
    clips: list[list[NDArray[Any]]]
    """Runs of consecutive frames for each clip, each `[run, H, W, 3]` uint8, RGB."""


def load_footage(
    folder: Path, *, frames: int = 3, every: int = 15, rows: int | None = None
) -> Footage:
    """Read `photos/` and `clips/` of a folder.

    Args:
        folder: Parent of both folders; one of them may be missing.
        frames: Frames of a window. Runs are two frames longer, so that a window can begin at
            three frames of a run.
        every: Frames from the beginning of one run to the beginning of the next.
        rows: Most rows of a clip, to which larger ones are shrunk; None to keep their sizes.

    Raises:
        ReadError: Both folders are empty or missing, or a clip cannot be decoded.
    """
    import av

    from mhnet_video.media.source import filled_packets

    photos = []
    for path in sorted((folder / "photos").glob("*")):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            photos.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    clips = []
    for path in sorted((folder / "clips").glob("*")):
        if path.is_dir() or path.name.startswith("."):
            continue
        runs: list[NDArray[Any]] = []
        run: list[Image] = []
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                pictures = (stream.decode(each) for each in filled_packets(container, stream))
                for index, frame in enumerate(chain.from_iterable(pictures)):
                    if index % every < frames + 2:
                        size = _shrunk_size(frame.height, frame.width, rows)
                        run.append(frame.to_ndarray(format="rgb24", interpolation="AREA", **size))
                        if len(run) == frames + 2:
                            runs.append(np.stack(run))
                            run = []
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            raise ReadError(f"{path} is no video, or damaged; take it out of clips/.") from error
        if runs:
            clips.append(runs)
    if not photos and not clips:
        raise ReadError(
            f"no photos/ or clips/ to train on in {folder}; --data names the folder of both."
        )
    return Footage(photos=photos, clips=clips)


def _shrunk_size(height: int, width: int, rows: int | None) -> dict[str, Any]:
    """The size of a frame that is to have so many rows at most, if it has more."""
    if rows is None or height <= rows:
        return {}
    return {"height": rows, "width": 2 * round(width * rows / height / 2)}


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
    """

    def __init__(
        self, footage: Footage, *, frames: int, crop: int, seed: int = 0, is_late: bool = False
    ) -> None:
        self.seed = seed
        self._whole = _Windows(footage, frames, crop, is_late)
        self._half = _Windows(footage, frames, crop // 2, is_late)

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
    """

    def __init__(self, footage: Footage, frames: int, crop: int, is_late: bool) -> None:
        self.frames, self.crop = frames, crop
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
            text = self._text(random, 1 if text_is_soft else random.uniform(1, scale))
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
            is_night=random.random() < NIGHT_SHARE,
        )

    def _text(self, random: np.random.Generator, scale: float) -> Tensor:
        """Draw one to three lines of text, as clocks and camera names: `[4, crop, crop]`."""
        characters = list("0123456789" * 4 + "ABCDEFGHIKLMNOPRSTUVXYZ" + "/:-. " * 3)
        level = int(random.integers(170, 256))
        colour = (level, level, int(random.integers(255)) if random.random() < 0.2 else level)
        picture = np.zeros((self.crop, self.crop, 3), np.uint8)
        cover = np.zeros((self.crop, self.crop), np.uint8)
        face = int(random.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN]))
        size = random.uniform(0.3, 1.1) * (2 if face == cv2.FONT_HERSHEY_PLAIN else 1)
        stroke = round((1 if size < 0.6 or random.random() < 0.6 else 2) * scale)
        size *= scale
        outlined = random.random() < 0.4
        for _ in range(1 + int(random.integers(3))):
            line = "".join(random.choice(characters, int(random.integers(4, 24))))
            origin = [int(random.integers(-self.crop // 4, self.crop * 3 // 4))]
            origin.append(int(random.integers(12, self.crop)))
            for width, shade in [(stroke + 2, (0, 0, 0))] * outlined + [(stroke, colour)]:
                cv2.putText(picture, line, origin, face, size, shade, width, cv2.LINE_AA)
                cv2.putText(cover, line, origin, face, size, 255, width, cv2.LINE_AA)
        # antialiased strokes over black are already multiplied by their opacity
        if not outlined:
            picture[:] = colour
        opacity = cover * random.uniform(0.35, 1) if random.random() < PALE_SHARE else cover
        layers = np.concatenate([picture, np.asarray(opacity)[..., None]], axis=2)
        return torch.from_numpy(layers).permute(2, 0, 1).float() / 255


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
        return _grade(pixels.float() / 255, random)

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


def _grade(clean: Tensor, random: np.random.Generator) -> Tensor:
    """Vary exposure, contrast and mist of `[T, 3, H, W]`; they are part of the clean picture."""
    if random.random() < 0.5:
        clean = clean ** float(random.uniform(0.75, 1.6))
        clean = clean * float(random.uniform(0.5, 1.1))
    if random.random() < 0.25:
        veil = float(random.uniform(0, 0.45))
        clean = clean * (1 - veil) + veil * float(random.uniform(0.4, 0.85))
    return clean.clamp(0, 1)


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
        clean, rainy = _burnt_in([clean, rainy], text)
    if window.is_soft and window.scale > 1:
        clean, rainy = _enlarged([clean, rainy], window.scale, generator)
    if not window.text_is_soft:
        clean, rainy = _burnt_in([clean, rainy], text)
    order = [window.middle if i in window.copies else i for i in range(len(clean))]
    if window.is_recoded:
        rainy, clean = rainy[order], clean[order]
    rainy, clean = camera([rainy, clean], generator)
    if not window.is_recoded:
        rainy = rainy[order]
    if len(rainy) == 1:
        half = frames // 2
        statistics = torch.zeros_like(rainy).expand(2, -1, -1, -1)
        rainy = F.pad(rainy, (0, 0, 0, 0, 0, 0, half, half))
    else:
        statistics = glass_statistics(rainy, rainy[window.middle])
        rainy = rainy[window_indices(window.middle, len(rainy), frames)]
        if aligns:
            rainy = align(rainy[None], moves_all=glass)[0]
    if glass:
        rainy = between(statistics, rainy)
    return rainy.flatten(0, 1), clean[window.middle]


def _burnt_in(clips: list[Tensor], text: Tensor | None) -> list[Tensor]:
    """Blend the same text over each clip `[K, 3, H, W]`; no change without text."""
    return clips if text is None else [torch.lerp(clip, text[:3], text[3]) for clip in clips]


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
