"""Clips to evaluate on, made of pictures: a camera pans over each, in rain and without it.

    python samples/pan.py PICTURES OUT [--speed 3.3] [--streaks RAINY CLEAN] [--noise 2] [--crf 20]
    mhnet-video evaluate OUT/rainy OUT/clean --model realtime

Writes `OUT/rainy/NAME.mkv` and `OUT/clean/NAME.mkv` for every picture, 352x256 or 256x352 pixels of
it, lossless, or both coded by x264. The rain is that of `mhnet_video/training/rain.py`, or that of
pairs of pictures: the positive difference of a pair, shifted at random for every frame. With
`--dry` there is none, and the metrics measure the damage to dry clips. Clips of one frame
(`--frames 1`) are single pictures. With `--enlarge 3` scene and streaks are enlarged three times,
which makes them as soft as most footage of 1080 rows and more.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.training.rain import camera, rain_on

Named = tuple[str, NDArray[Any]]
"""A picture's name, and the picture."""

SIDES = 352, 256
"""Longer and shorter side of the clips, in pixels."""
SLANT = 0.25
"""Pixels down for each to the right."""


def main() -> None:
    """Make the clips."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("pictures", type=Path, help="folder of pictures without rain")
    add("out", type=Path, help="folder to make; it must not exist")
    add("--speed", type=float, default=0, help="pixels to the right, a frame (default: 0)")
    add("--frames", type=int, default=7, help="of each clip (default: 7)")
    add("--times", type=int, default=1, help="show each frame N times, as at a raised rate")
    add("--every", type=int, default=1, help="take every N-th picture only")
    rain = parser.add_mutually_exclusive_group()
    rain.add_argument(
        "--streaks", type=Path, nargs=2, metavar=("RAINY", "CLEAN"), help="folders of such pairs"
    )
    rain.add_argument("--dry", action="store_true", help="no rain")
    add("--psnr", type=float, metavar="DB", help="make the rain so strong, on Y, in each clip")
    add("--enlarge", type=float, default=1, help="so many times, rain and all (default: 1)")
    add("--letters", action="store_true", help="burn a clock into both, as recorders do")
    add("--noise", type=float, default=0, help="of the camera, in levels of 8 bits (default: 0)")
    add("--crf", type=int, help="code both by x264 at this quality")
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists; name a new folder")
    found = []
    for folder in [options.pictures, *(options.streaks or [])]:
        found.append(read(folder) if folder.is_dir() else [])
        if not found[-1]:
            parser.error(f"{folder} is no folder of pictures")
    pictures = found[0][:: options.every]
    layers = list(streaks(*found[1:])) if options.streaks else []
    for side in ("rainy", "clean"):
        (options.out / side).mkdir(parents=True)
    for index, (name, picture) in enumerate(pictures):
        clean = pan(picture, options.speed, options.frames)
        generator = torch.Generator().manual_seed(index)
        if options.dry:
            rainy = clean
        elif layers:
            layer = layers[index * len(layers) // len(pictures)]
            rainy = torch.stack([laid_over(frame, layer, generator) for frame in clean])
        else:
            rainy = rain_on(clean, generator)
        if options.psnr and not options.dry:
            rainy = scaled(rainy, clean, options.psnr)
        if options.enlarge != 1:
            rainy, clean = (enlarged(frames, options.enlarge) for frames in (rainy, clean))
        if not options.dry and not layers:
            rainy, clean = camera([rainy, clean], generator)
        if options.letters:
            rainy, clean = (burnt_in(frames, f"CAM {index:02}") for frames in (rainy, clean))
        noise = torch.randn(clean.shape, generator=generator) * options.noise / 255
        for side, frames in (("rainy", rainy), ("clean", clean)):
            shown = (frames + noise).repeat_interleave(options.times, 0)
            save(options.out / side / f"{name}.mkv", shown, options.crf)


def read(folder: Path) -> list[Named]:
    """The pictures of a folder and their names, `[H, W, 3]` uint8, RGB."""
    found = [(path.stem, cv2.imread(str(path))) for path in sorted(folder.iterdir())]
    return [(name, each[..., ::-1]) for name, each in found if each is not None]


def streaks(rainy: list[Named], clean: list[Named]) -> Iterator[Tensor]:
    """What is brighter in each rainy picture than in its clean twin, `[3, H, W]`."""
    for (_, wet), (_, dry) in zip(rainy, clean, strict=True):
        difference = (wet.astype(np.float32) - dry) / 255
        yield torch.from_numpy(difference).permute(2, 0, 1).clamp(min=0)


def pan(picture: NDArray[Any], speed: float, frames: int) -> Tensor:
    """What a camera sees that moves over a picture, `[frames, 3, H, W]` in [0, 1]."""
    height, width = picture.shape[:2]
    sides = SIDES if width > height else SIDES[::-1]
    views = []
    for step in range(frames):
        way = speed * (step - frames // 2)
        x, y = (width - sides[0]) / 2 + way, (height - sides[1]) / 2 + SLANT * way
        matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        views.append(
            cv2.warpAffine(picture, matrix, sides, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        )
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255


def laid_over(frame: Tensor, layer: Tensor, generator: torch.Generator) -> Tensor:
    """A frame with streaks that begin anywhere."""
    height, width = frame.shape[1:]
    while layer.shape[1] < height or layer.shape[2] < width:
        layer = torch.cat([layer, layer.flip(1)], 1)
        layer = torch.cat([layer, layer.flip(2)], 2)
    down, right = (int(torch.randint(side, (1,), generator=generator)) for side in layer.shape[1:])
    return (frame + layer.roll((down, right), (1, 2))[:, :height, :width]).clamp(0, 1)


def scaled(rainy: Tensor, clean: Tensor, decibels: float) -> Tensor:
    """Scale the rain of `[T, 3, H, W]` so that the PSNR of Y over all frames is `decibels`."""
    weights = torch.tensor([65.481, 128.553, 24.966])[:, None, None] / 255
    gain, strong = 1.0, rainy
    for _ in range(20):
        error = float(((strong - clean) * weights).sum(1).square().mean())
        if error == 0:  # no rain at all
            break
        gain *= 10 ** (-decibels / 20) / max(error, 1e-12) ** 0.5
        strong = (clean + gain * (rainy - clean)).clamp(0, 1)
    return strong


def enlarged(frames: Tensor, factor: float) -> Tensor:
    """Frames of so many times the sides, of multiples of 16 pixels, as compressing asks."""
    height, width = (16 * max(1, round(side * factor / 16)) for side in frames.shape[2:])
    return F.interpolate(frames, (height, width), mode="bicubic").clamp(0, 1)


def burnt_in(frames: Tensor, name: str) -> Tensor:
    """Frames with a camera's name and a clock before them, `[T, 3, H, W]` in [0, 1]."""
    shown = []
    for index, frame in enumerate(frames):
        picture = np.ascontiguousarray((frame * 255).round().byte().permute(1, 2, 0).numpy())
        clock = f"2026-11-26 20:{index // 25 // 60:02}:{index // 25 % 60:02}"
        for text, origin in ((name, (8, 20)), (clock, (8, picture.shape[0] - 10))):
            cv2.putText(
                picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255,) * 3, 1, cv2.LINE_AA
            )
        shown.append(torch.from_numpy(picture).permute(2, 0, 1).float() / 255)
    return torch.stack(shown)


def save(path: Path, frames: Tensor, crf: int | None) -> None:
    """Write a clip, 25 frames a second."""
    pictures = (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    with av.open(str(path), "w") as container:
        if crf is None:
            stream = container.add_stream("ffv1", rate=25)
            stream.pix_fmt = "bgr0"  # all bits of RGB
        else:
            # with its tree of macroblocks the same clip is coded in another way each time
            options = {"crf": str(crf), "x264-params": "mbtree=0"}
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.pix_fmt = "yuv420p"
        stream.height, stream.width = pictures.shape[1:3]
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
