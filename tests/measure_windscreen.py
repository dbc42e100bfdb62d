"""How well weights take drops off the glass: dev pictures, and clips drawn over held-out scenes.

    python tests/measure_windscreen.py data WEIGHTS...

`data` has `dev/` and `train/`, as CONTRIBUTING.md says. Each file of weights gets a line per set:
PSNR on Y of what came and of what was restored, and of drawn clips the same inside of water and
outside of it. Dry clips with a bonnet, stickers and the like before them, which must stay, have the
inside of these instead. The networks run as they are: no self-ensemble, no temporal filter.
"""

# ruff: noqa: T201 - it is there to print

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from standing_things import THINGS
from torch import Tensor

from mhnet_video.color_spaces import LUMA_WEIGHTS
from mhnet_video.engines.base import TorchEngine
from mhnet_video.model.align import align_frames
from mhnet_video.model.network import MHNet
from mhnet_video.model.weights import load_model
from mhnet_video.model.window import Window, glass_statistics, window_indices
from mhnet_video.training.drops import KINDS, draw_pane, pane_on

HELD_OUT = {"udacity_vehicle.mp4": 4, "gopro_coast.mp4": 6, "intel_car.mp4": 4}
"""Clips that no raindrop training sees: a car's, one from the air, and a fixed camera's; with the
frames from one neighbour to the next."""
ROWS = 480
"""Rows to which larger clips are shrunk."""
CLIP_FRAMES = 33
"""Frames of a drawn clip."""

Case = tuple[list[Tensor], int, int, Tensor, Tensor | None]
"""Frames `[3, H, W]`, the index of the one to restore, the distance of its neighbours, the clean
one, and where the water is, or something that must stay, `[H, W]` in [0, 1]."""


def picture(path: Path) -> Tensor:
    """A picture, `[3, H, W]`."""
    pixels = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def folder_cases(folder: Path, *, clip: bool = False) -> Iterator[Case]:
    """The pairs of a folder, as single pictures or as a clip."""
    first, second = ("rainy", "clean") if (folder / "rainy").is_dir() else ("input", "target")
    names = sorted(path.name for path in (folder / first).glob("*.png"))
    rainy = [picture(folder / first / name) for name in names]
    for index, name in enumerate(names):
        frames, at = (rainy, index) if clip else ([rainy[index]], 0)
        yield frames, at, 1, picture(folder / second / name), None


def dry_cases(folder: Path) -> Iterator[Case]:
    """Dry pictures, which must stay."""
    for path in sorted(folder.glob("*.png"))[::3]:
        clean = picture(path)
        yield [clean], 0, 1, clean, None


def clip_frames(path: Path) -> list[np.ndarray]:
    """The first frames of a clip, shrunk to `ROWS`."""
    with av.open(str(path)) as container:
        frames = []
        for frame in itertools.islice(container.decode(video=0), CLIP_FRAMES):
            height = min(frame.height, ROWS)
            width = 2 * round(frame.width * height / frame.height / 2)
            frames.append(frame.to_ndarray(format="rgb24", width=width, height=height))
        return frames


def drawn_cases(path: Path, distance: int, kind: str | None) -> Iterator[Case]:
    """The middle frame of a clip behind panes of each kind; dry if `kind` is None."""
    pixels = clip_frames(path)
    height, width = pixels[0].shape[:2]
    small = [cv2.resize(each, (96, round(96 * height / width))) for each in pixels]
    clean, view = (
        torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2).float() / 255
        for each in (pixels, small)
    )
    middle = len(clean) // 2
    if kind is None:
        yield list(clean), middle, distance, clean[middle], None
        return
    times = np.arange(len(clean)) - middle
    for seed in range(2):
        random = np.random.default_rng(seed)
        span = float(times[0]), float(times[-1])
        pane = draw_pane(random, height=height, width=width, times=span, kind=kind)
        place = (0.0, 0.0, 1 / width)
        wet, cover = pane_on(clean, pane, times=times, view=view, place=place)
        wet = (wet * 255).round() / 255
        yield list(wet), middle, distance, clean[middle], cover[middle, 0]


def standing_before(pixels: list[np.ndarray], kind: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames behind one of `THINGS`, in whole levels, and where it is, `[H, W]` in [0, 1]."""
    thing, opacity = THINGS[kind](*pixels[0].shape[:2])
    cover = opacity[..., None]
    return [((1 - cover) * each + cover * thing).round() for each in pixels], opacity


def standing_cases(path: Path, distance: int, kind: str) -> Iterator[Case]:
    """Frames of a dry clip behind something that stands still; they must stay as they are."""
    frames, opacity = standing_before(clip_frames(path), kind)
    seen = [torch.from_numpy(each).permute(2, 0, 1).float() / 255 for each in frames]
    for index in (len(seen) // 2, len(seen) - 1):
        yield seen, index, distance, seen[index], torch.from_numpy(opacity)


def window(network: MHNet, frames: list[Tensor], index: int, distance: int) -> Window:
    """What a network sees."""
    count = network.config.frames
    seen: list[Tensor | None]
    if len(frames) == 1:
        seen = [None] * network.config.pictures
        seen[network.config.pictures // 2] = frames[0]
        return seen
    if not network.config.glass:
        distance = 1
    run = list(range(index % distance, len(frames), distance))
    indices = window_indices(run.index(index), len(run), count)
    seen = [frames[run[i]] for i in indices]
    if network.config.glass:
        mean, difference = glass_statistics(torch.stack(frames), frames[index])
        seen = [mean, *seen, difference]
    return seen


def luma(x: Tensor) -> Tensor:
    """`[3, H, W]` to `[H, W]`."""
    return torch.tensordot(torch.tensor(LUMA_WEIGHTS["bt601"]), x, 1)


def psnr(a: Tensor, b: Tensor, weights: Tensor | None = None) -> float:
    """In dB, on Y in studio range; of the pixels that weights choose."""
    error = (luma(a - b) * 219 / 255).square()
    weights = torch.ones_like(error) if weights is None else weights
    mean = float((error * weights).sum() / weights.sum().clamp(min=1))
    return 100.0 if mean < 1e-10 else -10 * float(np.log10(mean))


def padded(network: MHNet, frame: Tensor) -> Tensor:
    """A frame of a size that the network takes, its edge repeated as in the program."""
    height, width = frame.shape[1:]
    multiple = network.config.multiple
    return F.pad(frame[None], (0, -width % multiple, 0, -height % multiple), mode="replicate")[0]


def restored(network: MHNet, case: Case) -> Tensor:
    """The frame of a case, restored."""
    frames, index, distance, _, _ = case
    height, width = frames[index].shape[1:]
    seen = window(network, [padded(network, frame) for frame in frames], index, distance)
    if network.config.align:
        seen = align_frames(seen, glass=network.config.glass)
    residual = TorchEngine(network).residual(seen)[:, :height, :width]
    return ((frames[index] + residual).clamp(0, 1) * 255).round() / 255


def sets(data: Path) -> Iterator[tuple[str, Callable[[], Iterator[Case]]]]:
    """Names of all sets, and what makes their cases."""
    dev, clips = data / "dev", data / "train" / "clips"
    yield "drops/pairs, single", partial(folder_cases, dev / "drops" / "pairs")
    yield "drops/windscreen", partial(folder_cases, dev / "drops" / "windscreen", clip=True)
    yield "rain12, single", partial(folder_cases, dev / "rain12")
    yield "kodak, dry, single", partial(dry_cases, dev / "kodak")
    for name, distance in HELD_OUT.items():
        path, short = clips / name, name.split(".")[0]
        for kind in (*KINDS, None):
            yield f"{short}, {kind or 'dry'}", partial(drawn_cases, path, distance, kind)
        for kind in THINGS:
            yield f"{short}, dry, {kind}", partial(standing_cases, path, distance, kind)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--strips", type=Path, help="folder for pictures: before, after, clean")
    parser.add_argument("--only", default="", help="sets whose names have this in them")
    options = parser.parse_args()
    networks = [load_model(name) for name in options.weights]
    for title, make in sets(options.data):
        if options.only not in title:
            continue
        cases = list(make())
        for name, network in zip(options.weights, networks, strict=True):
            rows = []
            for number, case in enumerate(cases):
                frames, index, _, clean, cover = case
                result = restored(network, case)
                row = [psnr(frames[index], clean), psnr(result, clean)]
                if cover is not None:
                    inside = (cover > 0.1).float()
                    for part in (inside, 1 - inside):
                        row += [psnr(frames[index], clean, part), psnr(result, clean, part)]
                rows.append(row)
                if options.strips:
                    strip = torch.cat([frames[index], result, clean], 2).permute(1, 2, 0)
                    file = f"{title.replace('/', '-').replace(', ', '-')}-{number}.jpg"
                    bgr = (strip * 255).round().byte().numpy()[..., ::-1]
                    cv2.imwrite(str(options.strips / file), bgr)
            means = np.mean(rows, axis=0)
            text = f"{title:32} {Path(name).parent.name}/{Path(name).stem:12}"
            text += f" {means[0]:6.2f} -> {means[1]:6.2f} (least {min(r[1] for r in rows):6.2f})"
            if len(means) > 2:
                text += f"   inside {means[2]:6.2f} -> {means[3]:6.2f}"
                text += f" (least {min(r[3] for r in rows):6.2f})"
                text += f"   outside {means[4]:6.2f} -> {means[5]:6.2f}"
            print(text, flush=True)


if __name__ == "__main__":
    main()
