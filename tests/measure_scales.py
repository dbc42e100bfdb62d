"""What the working scale is worth, by how sharp a picture is.

    MHNET_DATA=... python tests/measure_scales.py [--model realtime] [--every 4] [--enlarge 1 3]

Clips as those of `samples/pan.py`, of every fourth Kodak picture, in rain that is drawn and in the
streaks of Rain12; thin streaks are as wide as before, in front of the enlarged picture. Prints PSNR
on Y at fixed working scales and at the one that is chosen, which is fixed for a clip of one scene.
"""

# ruff: noqa: T201 - it is there to print

import argparse
import io
import os
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from mhnet_video.restoration.restorer import Restorer
from mhnet_video.training.rain import camera, rain_on

sys.path.insert(0, str(Path(__file__).parents[1] / "samples"))
import pan

Pictures = NDArray[np.uint8]
"""`[T, H, W, 3]`."""
SCALES = 1.0, 0.75, 0.5, 0.375
"""Fixed working scales."""
ENLARGED = 1.0, 1.3, 2.0, 3.0, 4.0
"""How many times the clips are enlarged."""
FRAMES = 3
"""Frames of a clip."""
CONDITIONS = {"clean": (0.0, None), "noisy": (3.0, None), "coded": (3.0, 26)}
"""Noise in levels of 8 bits, and quality of x264."""


def main() -> None:
    """Measure, and print a row for each kind of clip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="realtime")
    add("--every", type=int, default=4, help="take every N-th picture (default: 4)")
    add("--first", type=int, default=0, help="first picture to take (default: 0)")
    add("--enlarge", type=float, nargs="+", default=ENLARGED)
    options = parser.parse_args()
    data = Path(os.environ["MHNET_DATA"]) / "dev"
    pictures = [picture for _, picture in pan.read(data / "kodak")]
    layers = list(pan.streaks(pan.read(data / "rain12/input"), pan.read(data / "rain12/target")))
    restorer = Restorer(options.model, device="cpu")
    heads = ["enlarged", "rain", "clips", *map(str, SCALES), "chosen", "of it", "worst"]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|", flush=True)
    for enlarge in options.enlarge:
        for rain in ("drawn", "Rain12", "thin"):
            if rain == "thin" and enlarge == 1:
                continue
            for condition, (noise, crf) in CONDITIONS.items():
                rows = []
                for index in range(options.first, len(pictures), options.every):
                    layer = None if rain == "drawn" else layers[index % len(layers)]
                    clip = made(pictures[index], layer, enlarge, rain == "thin", noise, crf, index)
                    rows.append(measured(restorer, *clip))
                print(row_of(f"{enlarge:g} | {rain} | {condition}", rows), flush=True)


def row_of(name: str, rows: list[tuple[list[float], int]]) -> str:
    """Means over clips, how often each scale was chosen, and the worst loss to scale 1."""
    means = np.mean([levels for levels, _ in rows], 0)
    got = [levels[chosen] for levels, chosen in rows]
    worst = min(levels[chosen] - levels[0] for levels, chosen in rows)
    times = np.bincount([chosen for _, chosen in rows], minlength=len(SCALES))
    share = ", ".join(f"{n} at {s:g}" for s, n in zip(SCALES, times, strict=True) if n)
    cells = [*(f"{mean:.2f}" for mean in means), f"{np.mean(got):.2f}", share, f"{worst:+.2f}"]
    return f"| {name} | " + " | ".join(cells) + " |"


def made(
    picture: NDArray[Any],
    layer: torch.Tensor | None,
    enlarge: float,
    is_thin: bool,
    noise: float,
    crf: int | None,
    seed: int,
) -> tuple[Pictures, Pictures]:
    """A rainy clip and its clean twin."""
    generator = torch.Generator().manual_seed(seed)
    clean = pan.pan(picture, 3.3, FRAMES)
    if is_thin:
        clean = pan.enlarged(clean, enlarge)
    if layer is None:
        rainy = rain_on(clean, generator)
    else:
        rainy = torch.stack([pan.laid_over(frame, layer, generator) for frame in clean])
    if enlarge != 1 and not is_thin:
        rainy, clean = (pan.enlarged(frames, enlarge) for frames in (rainy, clean))
    if layer is None:
        rainy, clean = camera([rainy, clean], generator)
    grain = torch.randn(clean.shape, generator=generator) * noise / 255
    shown = [((frames + grain).clamp(0, 1) * 255).round().byte() for frames in (rainy, clean)]
    rainy_pictures, clean_pictures = (
        np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy()) for frames in shown
    )
    if crf is None:
        return rainy_pictures, clean_pictures
    return coded(rainy_pictures, crf), coded(clean_pictures, crf)


def coded(pictures: Pictures, crf: int) -> Pictures:
    """What x264 makes of a clip."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        options = {"crf": str(crf), "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = pictures.shape[1:3]
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def measured(restorer: Restorer, rainy: Pictures, clean: Pictures) -> tuple[list[float], int]:
    """PSNR at each fixed scale, and the index of the one that is chosen."""

    def level(scale: float | None) -> float:
        restorer.scale = scale
        return decibels(np.stack(list(restorer.restore(list(rainy)))), clean)

    got = level(None)
    ((chosen, _),) = restorer.scales.items()
    return [got if s == chosen.scale else level(s) for s in SCALES], SCALES.index(chosen.scale)


def decibels(pictures: Pictures, clean: Pictures) -> float:
    """PSNR on Y over all frames of a clip."""
    weights = np.array([65.481, 128.553, 24.966], np.float32) / 255
    error = ((pictures.astype(np.float32) - clean) @ weights).astype(np.float64)
    return float(10 * np.log10(255**2 / max(np.square(error).mean(), 1e-9)))


if __name__ == "__main__":
    main()
