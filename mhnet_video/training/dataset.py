"""Clean footage and photographs to pairs of rainy windows and clean middle frames."""

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
from mhnet_video.training.rain import camera, rain_on

ALONE_SHARE = 0.43
"""Share of single pictures, without neighbours, early in a run. With few of them the network learns
to compare frames and nothing else: it does nothing for a picture, and paints ghosts where the
camera moves fast."""
LATE_ALONE_SHARE = 0.5
"""The same late in a run."""
END_SHARE = 0.04
"""Share of windows at the ends of a clip."""
SHORT_SHARE = 0.3
"""Share of these whose clip has fewer frames than a window."""
CUT_SHARE = 0.03
"""Share of windows whose scene changes after the middle frame."""
STRANGER_SHARE = 0.1
"""Share of windows whose neighbours both show another scene, as where everything moves too fast:
only the middle frame helps to remove their rain."""
COPY_SHARE = 0.1
"""Share of windows in which a neighbour is a copy of the middle frame, including its rain, as where
the frame rate was raised. Without them a streak that appears twice is taken for scenery."""
RECODED_SHARE = 0.6
"""Share of these whose copy has noise and compression of its own. The program itself finds exact
copies."""
MOSAIC_SHARE = 0.75
"""Share of samples composed of four windows of half the side, each with its own rain or none. The
channel attention's means cover a whole frame, in which rain is more visible in some parts than in
others. A network trained on evenly rainy pictures takes a frame with a dry half for dry, and leaves
the rain in the other half."""
TURNED_SHARE = 0.2
"""Share of windows rotated by 90 degrees."""
TEXT_SHARE = 0.12
"""Share of windows with burnt-in letters. These are as thin and as bright as streaks, and must
stay."""
ALONE_TEXT_SHARE = 0.25
"""The same of dry single pictures, in which no motion of the scene behind tells letters apart."""
PALE_SHARE = 0.4
"""Share of burnt-in letters that are translucent, as watermarks are."""
DRY_SHARE = 0.2
"""Share of windows of several frames without rain, early in a run: road markings must not pass for
streaks."""
LATE_DRY_SHARE = 0.28
"""The same late in a run. More, because the network soon forgets what dry pictures teach."""
DRY_ALONE_SHARE = 0.24
"""Share of single pictures without rain, early in a run."""
LATE_DRY_ALONE_SHARE = 0.37
"""The same late in a run."""
LARGE_SHARE = 0.3
"""Share of windows that stand for pictures of more than 720 rows, with longer and wider streaks."""
LARGEST = 3.0
"""Largest scale of such pictures against one of 360 to 720 rows."""
SOFT_SHARE = 0.6
"""Share of these that are as soft as lenses and encoders leave large pictures."""
MOST_TRIES = 6
"""A dry picture is the most rain-like of up to so many. A twentieth of the area of photographs
causes nine tenths of what a trained network does to dry ones: grates, lit windows, white paint.
Bright, upright, narrow structures find them."""

Image = NDArray[Any]
"""`[H, W, 3]` uint8, RGB."""


@dataclass(frozen=True, kw_only=True)
class Footage:
    """What pairs are made from, in memory."""

    photos: list[Image]
    clips: list[list[NDArray[Any]]]
    """For each clip its runs of consecutive frames, each `[run, H, W, 3]`."""


def load_footage(
    folder: Path, *, frames: int = 3, every: int = 15, rows: int | None = None
) -> Footage:
    """Read `photos/` and `clips/` of a folder.

    Args:
        folder: Where the two folders are; one of them may be missing.
        frames: Frames of a window; runs are two frames longer, so that windows can start anew.
        every: One run is kept of so many frames.
        rows: Larger clips are shrunk to so many rows; None to keep their sizes.

    Raises:
        ReadError: There is nothing in them, or a clip is none.
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
    """Clean frames, and the seed of their rain."""

    clean: Tensor
    """`[K, 3, crop, crop]`, RGB in [0, 1]; K is less than T where frames are missing."""
    middle: int
    """Index of the frame that is to be restored."""
    seed: int
    is_dry: bool
    """Whether it is not to rain."""
    copies: tuple[int, ...] = ()
    """Indices of the frames that are to be copies of the middle one, its rain too."""
    is_recoded: bool = False
    """Whether the copies were taken before the camera's noise and compression."""
    scale: float = 1
    """How many times as long and as wide streaks are as in a picture of 360 to 720 rows."""
    is_soft: bool = False
    """Whether the scene is enlarged with its streaks."""
    text: Tensor | None = None
    """What is burnt into every frame, rainy and clean: `[4, crop, crop]`, RGB and opacity in
    [0, 1]; None for nothing."""
    text_is_soft: bool = False
    """Whether it is enlarged with the scene."""


Sample = tuple[ClipWindow, ...]
"""One window, or four of half the side: upper left, upper right, lower left, lower right."""


class CleanWindows(Dataset[Sample]):
    """Windows of consecutive frames without rain, alone or in mosaics; every index is another.

    An index always gives the same sample for the same seed, so that a run can be resumed exactly.

    Args:
        footage: What to draw from.
        frames: Frames of a window, T, odd.
        crop: Side of the pictures, in pixels, a multiple of 32.
        seed: Changes all samples.
        is_late: Whether to give what the end of a run is to see, with more dry pictures.
    """

    def __init__(
        self, footage: Footage, *, frames: int, crop: int, seed: int = 0, is_late: bool = False
    ) -> None:
        self.seed = seed
        self._whole = _Windows(footage, frames, crop, is_late)
        self._half = _Windows(footage, frames, crop // 2, is_late)

    def __len__(self) -> int:
        """As many as anyone could use."""
        return 1 << 40

    def __getitem__(self, index: int) -> Sample:
        """The sample of an index."""
        random = np.random.default_rng([self.seed, index])
        if random.random() < MOSAIC_SHARE:
            return tuple(self._half.draw(random) for _ in range(4))
        return (self._whole.draw(random),)


class _Windows:
    """Draws windows of one size.

    Args:
        footage: What to draw from.
        frames: Frames of a window, T, odd.
        crop: Side of the pictures, in pixels.
        is_late: See `CleanWindows`.
    """

    def __init__(self, footage: Footage, frames: int, crop: int, is_late: bool) -> None:
        self.frames, self.crop = frames, crop
        self._scenes, self._pictures = (_Scenes(footage, count, crop) for count in (frames, 1))
        self._alone_share = LATE_ALONE_SHARE if is_late else ALONE_SHARE
        self._dry_share = LATE_DRY_SHARE if is_late else DRY_SHARE
        self._dry_alone_share = LATE_DRY_ALONE_SHARE if is_late else DRY_ALONE_SHARE

    def draw(self, random: np.random.Generator) -> ClipWindow:
        """A window."""
        kind, middle = random.random(), self.frames // 2
        copies: tuple[int, ...] = ()
        kinds = [self._alone_share, END_SHARE, CUT_SHARE, STRANGER_SHARE, COPY_SHARE]
        ends = np.cumsum(kinds)
        is_alone = kind < ends[0] or self.frames == 1
        is_dry = random.random() < (self._dry_alone_share if is_alone else self._dry_share)
        tries = 1 + int(random.integers(MOST_TRIES)) if is_alone and is_dry else 1
        scenes = self._pictures if is_alone else self._scenes
        clean = max((scenes.draw(random) for _ in range(tries)), key=rain_likeness)
        if is_alone:
            middle = 0
        elif kind < ends[1]:
            middle, first, end = int(random.integers(self.frames)), 0, self.frames
            if random.random() < SHORT_SHARE:
                first, end = int(random.integers(middle + 1)), int(random.integers(middle, end)) + 1
            clean, middle = clean[first:end], middle - first
        elif kind < ends[2]:
            clean[middle + 1 :] = self._pictures.draw(random)
        elif kind < ends[3]:
            for neighbours in (slice(0, middle), slice(middle + 1, None)):
                clean[neighbours] = self._pictures.draw(random)
        elif kind < ends[4] and middle:
            sides = [(middle - 1,), (middle + 1,), (middle - 1, middle + 1)]
            # of three frames that are one there is nothing left to compare
            copies = sides[random.integers(3 if middle > 1 else 2)]
        # phones held sideways whose files do not say so; and boards and rails that lie are made
        # upright ones, which must not pass for streaks
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
        )

    def _text(self, random: np.random.Generator, scale: float) -> Tensor:
        """One to three lines of letters and digits, as of clocks and names of cameras."""
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
            place = [int(random.integers(-self.crop // 4, self.crop * 3 // 4))]
            place.append(int(random.integers(12, self.crop)))
            for width, shade in [(stroke + 2, (0, 0, 0))] * outlined + [(stroke, colour)]:
                cv2.putText(picture, line, place, face, size, shade, width, cv2.LINE_AA)
                cv2.putText(cover, line, place, face, size, 255, width, cv2.LINE_AA)
        # a stroke that is drawn over black is its colour times its cover
        if not outlined:
            picture[:] = colour
        opacity = cover * random.uniform(0.35, 1) if random.random() < PALE_SHARE else cover
        layers = np.concatenate([picture, np.asarray(opacity)[..., None]], axis=2)
        return torch.from_numpy(layers).permute(2, 0, 1).float() / 255


class _Scenes:
    """Draws scenes without rain of one length and size.

    Args:
        footage: What to draw from.
        frames: Frames of a scene, T, odd.
        crop: Side of the pictures, in pixels.
    """

    def __init__(self, footage: Footage, frames: int, crop: int) -> None:
        self.footage, self.frames, self.crop = footage, frames, crop

    def draw(self, random: np.random.Generator) -> Tensor:
        """A scene, `[T, 3, crop, crop]` in [0, 1]."""
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
        weights = np.sqrt([len(runs) * runs[0].shape[1] for runs in self.footage.clips])
        runs = self.footage.clips[random.choice(len(weights), p=weights / weights.sum())]
        run = runs[random.integers(len(runs))]
        first = random.integers(len(run) - self.frames + 1)
        frames = run[first : first + self.frames]
        if random.random() < 0.5:
            frames = frames[::-1]
        if (missing := self.crop - min(frames.shape[1:3])) > 0:  # the clip, with its mirror image
            sides = ((0, 0), (0, missing), (0, missing), (0, 0))
            frames = np.pad(frames, sides, mode="symmetric")
        height, width = frames.shape[1:3]
        shrink = random.uniform(1, min(2.2, min(height, width) / self.crop))
        if min(height, width) < 500 and random.random() < 0.6:
            shrink = 1.0
        side = min(round(self.crop * shrink), height, width)
        path = np.zeros((self.frames, 2), int)
        if random.random() < 0.4:  # a camera that shakes or turns, where the clip's is fixed
            path = np.rint(self._path(random) * shrink).astype(int)
        top = random.integers(height - side + 1) + path[:, 1]
        left = random.integers(width - side + 1) + path[:, 0]
        cuts = []
        for index, frame in enumerate(frames):
            y = min(max(int(top[index]), 0), height - side)
            x = min(max(int(left[index]), 0), width - side)
            cut = frame[y : y + side, x : x + side]
            if side != self.crop:
                cut = cv2.resize(cut, (self.crop, self.crop), interpolation=cv2.INTER_AREA)
            cuts.append(cut)
        return np.stack(cuts)

    def _from_photo(self, random: np.random.Generator) -> NDArray[Any]:
        """A photograph under camera motion, at times with a piece of another moving over it."""
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
        """Offsets of the frames from the middle one, in pixels, `[T, 2]`.

        From rest to a hand-held sweep, faster than the network can follow: there the neighbours
        are of no use, and it must not trust them.
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
        if scale > 1.3:  # what a smaller scale cannot show must not alias
            cut = max(0, int(centre[1] - span)), max(0, int(centre[0] - span))
            piece = photo[cut[0] : int(centre[1] + span), cut[1] : int(centre[0] + span)]
            photo = cv2.GaussianBlur(piece, (0, 0), 0.4 * scale)
            centre = [centre[0] - cut[1], centre[1] - cut[0]]
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
    """Exposure, contrast and mist, which the restored picture keeps."""
    if random.random() < 0.5:
        clean = clean ** float(random.uniform(0.75, 1.6))
        clean = clean * float(random.uniform(0.5, 1.1))
    if random.random() < 0.25:
        veil = float(random.uniform(0, 0.45))
        clean = clean * (1 - veil) + veil * float(random.uniform(0.4, 0.85))
    return clean.clamp(0, 1)


def rain_likeness(clean: Tensor) -> float:
    """How much of a picture is bright, upright and narrow, `[1, 3, H, W]` in [0, 1].

    Source: the opening and the top-hat of grey levels of mathematical morphology (Serra, 1982).
    What is wider than eight pixels or lower than seven is taken out of it.
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
    """Let it rain on a sample, on a device.

    Args:
        sample: From `CleanWindows`.
        frames: Frames of a window, T.
        device: Where to render.
        aligns: Whether to align the windows.
        glass: Whether the windows stand between their `glass_statistics`.

    Returns:
        The rainy window `[3T, crop, crop]`, black around a picture without neighbours, and its
        clean middle frame `[3, crop, crop]`, RGB in [0, 1].
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
    generator = torch.Generator().manual_seed(window.seed)
    clean = window.clean.to(device)
    scale = 1 if window.is_soft else window.scale
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
    """The clips with the same text before each, if there is one."""
    return clips if text is None else [torch.lerp(clip, text[:3], text[3]) for clip in clips]


def _enlarged(clips: list[Tensor], scale: float, generator: torch.Generator) -> list[Tensor]:
    """The same part of each clip, as large as the whole was."""
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
    """The pairs of several samples: `[N, 3T, crop, crop]` and `[N, 3, crop, crop]`."""
    pairs = [rainy_pair(sample, frames=frames, device=device, aligns=aligns) for sample in samples]
    return torch.stack([rainy for rainy, _ in pairs]), torch.stack([clean for _, clean in pairs])
