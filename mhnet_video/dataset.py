"""Clean footage and photographs to pairs of rainy windows and clean middle frames."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mhnet_video.errors import ReadError
from mhnet_video.rain import draw_storm, fall, render_streaks

STILL_SHARE = 0.5
"""Windows that repeat one frame. With few of them the network learns to compare frames and no more:
it then does nothing for a picture, and paints ghosts where the camera moves fast."""

Picture = NDArray[Any]
"""`[H, W, 3]` uint8, RGB."""


@dataclass(frozen=True, kw_only=True)
class Footage:
    """What pairs are made from, in memory."""

    photos: list[Picture]
    clips: list[list[NDArray[Any]]]
    """For each clip its runs of consecutive frames, each `[run, H, W, 3]`."""


def load_footage(folder: Path, *, frames: int = 3, every: int = 15) -> Footage:
    """Read `photos/` and `clips/` of a folder.

    Args:
        folder: Where the two folders are; one of them may be missing.
        frames: Frames of a window; runs are two frames longer, so that windows can start anew.
        every: One run is kept of so many frames.

    Raises:
        ReadError: There is nothing in them.
    """
    import av

    photos = []
    for path in sorted((folder / "photos").glob("*")):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            photos.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    clips = []
    for path in sorted((folder / "clips").glob("*")):
        runs: list[NDArray[Any]] = []
        run: list[Picture] = []
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for index, frame in enumerate(container.decode(video=0)):
                if index % every < frames + 2:
                    run.append(frame.to_ndarray(format="rgb24"))
                    if len(run) == frames + 2:
                        runs.append(np.stack(run))
                        run = []
        if runs:
            clips.append(runs)
    if not photos and not clips:
        raise ReadError(f"no photos/ or clips/ to train on in {folder}: set MHNET_DATA or --data")
    return Footage(photos=photos, clips=clips)


class RainyWindows(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of a rainy window and its clean middle frame; every index is another pair.

    An index always gives the same pair for the same seed, so that a run can be resumed exactly.

    Args:
        footage: What to draw from.
        frames: Frames of a window, T, odd.
        crop: Side of the pictures, in pixels.
        seed: Changes all pairs.
    """

    def __init__(self, footage: Footage, *, frames: int, crop: int, seed: int = 0) -> None:
        self.footage, self.frames, self.crop, self.seed = footage, frames, crop, seed

    def __len__(self) -> int:
        """As many as anyone could use."""
        return 1 << 40

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The pair: `[3T, crop, crop]` and `[3, crop, crop]`, RGB in [0, 1]."""
        random = np.random.default_rng([self.seed, index])
        clean = self._grade(self._scene(random), random)
        generator = torch.Generator().manual_seed(int(random.integers(1 << 62)))
        kind = random.random()
        still, cut = kind < STILL_SHARE, STILL_SHARE <= kind < STILL_SHARE + 0.03
        if cut:  # the scene changes: the neighbours show something else
            clean[self.frames // 2 + 1 :] = self._grade(self._scene(random), random)[:1]
        if still:  # a picture, or a clip's end: the window repeats one frame, its rain too
            clean = clean[:1]
        rainy = clean if random.random() < 0.1 else self._rain(clean, generator, random)
        rainy, clean = self._camera(rainy, clean, random)
        if still:
            rainy = rainy.expand(self.frames, -1, -1, -1)
        middle = clean[len(clean) // 2]
        return rainy.reshape(-1, self.crop, self.crop), middle

    def _scene(self, random: np.random.Generator) -> Tensor:
        """A clean window, `[T, 3, crop, crop]` in [0, 1]."""
        footage = self.footage
        if footage.clips and (not footage.photos or random.random() < 0.5):
            frames = self._from_clip(random)
        else:
            frames = self._from_photo(random)
        if random.random() < 0.5:
            frames = frames[:, :, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        return pixels.float() / 255

    def _from_clip(self, random: np.random.Generator) -> NDArray[Any]:
        weights = np.sqrt([len(runs) * runs[0].shape[1] for runs in self.footage.clips])
        runs = self.footage.clips[random.choice(len(weights), p=weights / weights.sum())]
        run = runs[random.integers(len(runs))]
        first = random.integers(len(run) - self.frames + 1)
        frames = run[first : first + self.frames]
        if random.random() < 0.5:
            frames = frames[::-1]
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

    def _grade(self, clean: Tensor, random: np.random.Generator) -> Tensor:
        """Exposure, contrast and mist, which the restored picture keeps."""
        if random.random() < 0.5:
            clean = clean ** float(random.uniform(0.75, 1.6))
            clean = clean * float(random.uniform(0.5, 1.1))
        if random.random() < 0.25:
            veil = float(random.uniform(0, 0.45))
            clean = clean * (1 - veil) + veil * float(random.uniform(0.4, 0.85))
        return clean.clamp(0, 1)

    def _rain(
        self, clean: Tensor, generator: torch.Generator, random: np.random.Generator
    ) -> Tensor:
        storm = draw_storm(generator, scale=float(random.choice([0.7, 1.0, 1.0, 1.4])))
        cover = render_streaks(
            storm, generator, frames=len(clean), height=self.crop, width=self.crop
        )
        light = torch.tensor(storm.light)
        if random.random() < 0.5:
            # the light of the sky follows the exposure: dark scenes have darker streaks
            bright = float(np.percentile(clean[:, :, ::3, ::3], 95))
            light = light * min(1.0, max(0.35, bright * float(random.uniform(1.0, 1.5))))
        if random.random() < 0.15:
            # at night streaks shine around lamps only
            around = torch.from_numpy(
                np.stack([cv2.blur(f, (31, 31)) for f in clean.mean(dim=1).numpy()])[:, None]
            )
            cover = cover * (around * 2.5).clamp(0.05, 1)
        if random.random() < 0.3:  # the focus is elsewhere, or the lens is wet
            cover = _blur(cover, float(random.uniform(0.4, 1.0)))
        rainy = fall(clean, cover, (float(light[0]), float(light[1]), float(light[2])))
        wanted = 10 ** (-np.clip(random.normal(28, 5), 15, 40) / 10)
        error = float((rainy - clean).square().mean())
        if error > 0:
            gain = min(2.5, max(0.25, math.sqrt(wanted / error)))
            cover = (cover * gain).clamp(0, 0.97)
            rainy = fall(clean, cover, (float(light[0]), float(light[1]), float(light[2])))
        return rainy

    def _camera(
        self, rainy: Tensor, clean: Tensor, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """What a camera adds after the rain; the same for both, since it is to stay."""
        if random.random() < 0.3:
            amount = float(random.uniform(0.2, 0.9))
            rainy, clean = (x + amount * (x - _blur(x, 1.0)) for x in (rainy, clean))
        if random.random() < 0.35:
            sigma = float(random.uniform(0.002, 0.02))
            noise = torch.from_numpy(random.standard_normal(clean.shape, np.float32)) * sigma
            rainy, clean = rainy + noise, clean + noise
        rainy, clean = rainy.clamp(0, 1), clean.clamp(0, 1)
        if random.random() < 0.4:
            quality = int(random.integers(40, 96))
            rainy, clean = _jpeg(rainy, quality), _jpeg(clean, quality)
        return rainy, clean


def _blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `[N, C, H, W]`."""
    maps = x.reshape(-1, *x.shape[2:]).numpy()
    blurred = np.stack([cv2.GaussianBlur(m, (0, 0), sigma) for m in maps])
    return torch.from_numpy(blurred).reshape(x.shape)


def _jpeg(frames: Tensor, quality: int) -> Tensor:
    """Compress and decompress `[T, 3, H, W]` in [0, 1], frame by frame."""
    pixels = (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    decoded: list[Any] = []
    for picture in pixels:
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
