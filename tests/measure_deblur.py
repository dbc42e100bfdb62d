"""How well weights take motion blur out: dev pictures and sequences; sharp ones must stay.

    python tests/measure_deblur.py data WEIGHTS... [--strips FOLDER]
    python tests/measure_deblur.py data WEIGHTS... --order [--derain realtime]

`data` has `dev/`, as CONTRIBUTING.md says. Each set gets a line for what came, and one for each
file of weights: PSNR on Y, as a mean and at least. The networks run as they are: no self-ensemble.
At the ends of a sequence the missing neighbours are frames of the other side, as in a clip. With
`--order`, rain falls before the sequences, and rain and blur are taken out in both orders, by the
program's own restorers.
"""

# ruff: noqa: T201 - it is there to print

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure_windscreen import padded, picture, psnr
from torch import Tensor

from mhnet_video.engines.base import TorchEngine
from mhnet_video.media.contact_sheet import save_pictures
from mhnet_video.model.align import align_frames
from mhnet_video.model.network import MHNet
from mhnet_video.model.weights import load_model
from mhnet_video.model.window import window_indices
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.training.rain import rain_on

EQUAL = 100
"""PSNR of equal frames, in dB."""
CAME = "as it came"
"""Of which a line tells that the frames have not been restored."""


class Clip(NamedTuple):
    """Successive frames, or a single picture, and what they should be."""

    name: str
    frames: list[Tensor]
    """`[3, H, W]` each, RGB in [0, 1]."""
    truth: list[Tensor]
    """The same, sharp."""


def pictures(folder: Path, step: int = 1) -> list[Tensor]:
    """Every so many pictures of a folder, in the order of their names."""
    return [picture(path) for path in sorted(folder.glob("*.png"))[::step]]


def pairs(dev: Path) -> list[Clip]:
    """Single pictures with their sharp twins."""
    folder = dev / "blur" / "pairs"
    both = zip(pictures(folder / "blurred"), pictures(folder / "sharp"), strict=True)
    return [Clip(f"pair {i}", [blurred], [sharp]) for i, (blurred, sharp) in enumerate(both)]


def sequences(dev: Path) -> list[Clip]:
    """Blurred sequences with their sharp twins."""
    folder = dev / "blur" / "sequences"
    return [
        Clip(f"sequence {path.name}", pictures(path), pictures(folder / "sharp" / path.name))
        for path in sorted((folder / "blurred").iterdir())
    ]


def sharp_of(clips: list[Clip]) -> list[Clip]:
    """The sharp halves, which must come out as they are."""
    return [Clip(f"{name}, sharp", truth, truth) for name, _, truth in clips]


def sets(data: Path) -> Iterator[tuple[str, list[Clip]]]:
    """Names and clips of all sets."""
    dev = data / "dev"
    single, moving = pairs(dev), sequences(dev)
    yield "blur/pairs, single", single
    yield "blur/sequences", moving
    yield "blur/pairs, sharp halves", sharp_of(single)
    yield "blur/sequences, sharp halves", sharp_of(moving)
    kodak = pictures(dev / "kodak", 3)
    yield "kodak", [Clip("kodak", [each], [each]) for each in kodak]


def restored(network: MHNet, frames: list[Tensor], index: int) -> Tensor:
    """A frame as the network gives it, in 8 bits."""
    count = network.config.frames
    height, width = frames[index].shape[1:]
    whole = [padded(network, frame) for frame in frames]
    seen: list[Tensor | None] = [None] * count
    seen[count // 2] = whole[index]
    if len(frames) > 1:
        seen = [whole[each] for each in window_indices(index, len(frames), count)]
    if network.config.align:
        seen = align_frames(seen)
    residual = TorchEngine(network).residual(seen)[:, :height, :width]
    return ((frames[index] + residual).clamp(0, 1) * 255).round() / 255


def told(title: str, name: str, figures: list[float]) -> None:
    """Print a line."""
    print(f"{title:32} {name:28} {np.mean(figures):6.2f} dB, least {min(figures):6.2f}", flush=True)


def rgb(frame: Tensor) -> np.ndarray:
    """`[3, H, W]` as `[H, W, 3]` uint8."""
    return np.ascontiguousarray((frame * 255).round().byte().permute(1, 2, 0).numpy())


def measure(data: Path, weights: list[str], strips: Path | None) -> None:
    """Measure the sets; strips show the middle frame of each clip."""
    networks = {name: load_model(name) for name in weights}
    for title, clips in sets(data):
        came = [scores(clip.frames, clip.truth) for clip in clips]
        if min(min(each) for each in came) < EQUAL:  # else they came as they should be
            told_of_set(title, CAME, clips, came)
        for name, network in networks.items():
            figures = []
            for number, (_, frames, truth) in enumerate(clips):
                results = [restored(network, frames, index) for index in range(len(frames))]
                figures.append(scores(results, truth))
                if strips:
                    middle = len(frames) // 2
                    row = zip(("CAME", "RESTORED", "SHARP"), (frames, results, truth), strict=True)
                    file = f"{short(name)}-{title}-{number}.png".replace("/", "-")
                    save_pictures(
                        [[(text, rgb(each[middle])) for text, each in row]], strips / file
                    )
            told_of_set(title, short(name), clips, figures)


def scores(frames: list[Tensor], truth: list[Tensor]) -> list[float]:
    """PSNR of each frame."""
    return [psnr(*each) for each in zip(frames, truth, strict=True)]


def told_of_set(title: str, name: str, clips: list[Clip], figures: list[list[float]]) -> None:
    """Print a line of a set, and one of each of its sequences."""
    told(title, name, [each for clip in figures for each in clip])
    for clip, each in zip(clips, figures, strict=True):
        if len(each) > 1:
            told(f"  {clip.name}", name, each)


def short(name: str) -> str:
    """A model's name, or a file's with its folder's."""
    path = Path(name)
    return f"{path.parent.name}/{path.stem}" if path.suffix else name


def rained_on(frames: list[Tensor], seed: int) -> list[Tensor]:
    """Frames with rain before them."""
    return list(rain_on(torch.stack(frames), torch.Generator().manual_seed(seed)))


def measure_order(data: Path, weights: list[str], derain: str) -> None:
    """Take rain and blur out in both orders, of sequences with both, and with one of them."""
    kinds: dict[str, list[tuple[list[Tensor], list[Tensor]]]]
    kinds = {"blur and rain": [], "blur only": [], "rain only": []}
    for seed, (_, frames, truth) in enumerate(sequences(data / "dev")):
        kinds["blur and rain"].append((rained_on(frames, seed), truth))
        kinds["blur only"].append((frames, truth))
        kinds["rain only"].append((rained_on(truth, seed), truth))
    rain = Restorer(weights=derain) if Path(derain).suffix else Restorer(derain)
    for kind, clips in kinds.items():
        came = [each for clip in clips for each in scores(*clip)]
        told(kind, CAME, came)
        for name in weights:
            blur = Restorer(weights=name)
            ways = {"rain, then blur": (rain, blur), "blur, then rain": (blur, rain)}
            ways |= {"rain": (rain,), "blur": (blur,)}
            for way, restorers in ways.items():
                figures = []
                for frames, truth in clips:
                    shown = [rgb(frame) for frame in frames]
                    for restorer in restorers:
                        shown = list(restorer.restore(shown))
                    back = [torch.from_numpy(each).permute(2, 0, 1) / 255 for each in shown]
                    figures += scores(back, truth)
                told(kind, way, figures)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--strips", type=Path, help="folder for pictures: came, restored, sharp")
    parser.add_argument("--order", action="store_true", help="rain and blur, in both orders")
    parser.add_argument("--derain", default="realtime", help="what takes rain out")
    options = parser.parse_args()
    if options.order:
        measure_order(options.data, options.weights, options.derain)
    else:
        measure(options.data, options.weights, options.strips)


if __name__ == "__main__":
    main()
