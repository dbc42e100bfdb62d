"""What the second pass over smaller pictures does to drops, and to what must stay.

    python tests/measure_coarse_pass.py data [--only NAME] [--model MODEL] [--strips FOLDER]

`data` has `train/`, as CONTRIBUTING.md says. Clips of 33 frames are restored as in the program,
behind drawn panes and, dry, behind stickers and the like. Each line has the PSNR of RGB from the
ninth frame on: of what came, after one pass, after both, and after both where the second one
counted everywhere.
"""

# ruff: noqa: T201 - it is there to print

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from measure_windscreen import clip_frames, standing_before
from numpy.typing import NDArray
from standing_things import THINGS

from mhnet_video import Restorer
from mhnet_video.restoration.coarse_pass import StandingChange
from mhnet_video.training.drops import draw_pane, pane_on

PANES = (("near", 0), ("near", 1), ("near", 13), ("windscreen", 10), ("mixed", 11))
"""Kinds of drops and seeds."""
FIRST = 8
"""The first frame that counts: the temporal means begin to know the glass."""
Pictures = list[NDArray[np.uint8]]


def behind(clean: Pictures, kind: str, seed: int) -> Pictures:
    """A clip behind a pane."""
    height, width = clean[0].shape[:2]
    frames = torch.from_numpy(np.stack(clean)).permute(0, 3, 1, 2).float() / 255
    size = (round(96 * height / width), 96)
    view = torch.nn.functional.interpolate(frames, size, mode="area")
    random = np.random.default_rng(seed)
    times = np.arange(len(clean))
    span = (0.0, float(times[-1]))
    pane = draw_pane(random, height=height, width=width, times=span, kind=kind)
    wet, _ = pane_on(frames, pane, times=times, view=view, place=(0.0, 0.0, 1 / width))
    return list((wet * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy())


def cases(clean: Pictures) -> Iterator[tuple[str, Pictures, Pictures]]:
    """Name, frames as they come, and as they should be."""
    for kind, seed in PANES:
        yield f"{kind} {seed}", behind(clean, kind, seed), clean
    for name in THINGS:
        dry = [each.astype(np.uint8) for each in standing_before(clean, name)[0]]
        yield f"dry, {name}", dry, dry


def restored(pictures: Pictures, model: str, *, passes: int, everywhere: bool) -> Pictures:
    """The clip, restored."""
    restorer = Restorer(model, device="cpu")
    restorer._passes = restorer._passes[:passes]
    push = StandingChange.push
    if everywhere:
        StandingChange.push = lambda *_: torch.ones(1, 1, 4, 4)  # type: ignore[method-assign]
    try:
        return list(restorer.restore(pictures))
    finally:
        StandingChange.push = push  # type: ignore[method-assign]


def psnr(found: Pictures, wanted: Pictures) -> float:
    """In dB, at most 99."""
    error = np.stack(found[FIRST:]).astype(np.float32) - np.stack(wanted[FIRST:])
    return min(99.0, -10 * float(np.log10(np.square(error).mean() / 255**2 + 1e-12)))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="", help="clips whose names have this in them")
    parser.add_argument("--model", default="windscreen-realtime")
    parser.add_argument("--strips", type=Path, help="folder: came, one pass, both, clean")
    options = parser.parse_args()
    for path in sorted((options.data / "train" / "clips").glob(f"*{options.only}*.mp4")):
        clean: Pictures = clip_frames(path)
        for name, came, wanted in cases(clean):
            found = [
                restored(came, options.model, passes=passes, everywhere=everywhere)
                for passes, everywhere in ((1, False), (2, False), (2, True))
            ]
            figures = [psnr(each, wanted) for each in (came, *found)]
            text = "  ".join(f"{figure:6.2f}" for figure in figures)
            print(f"{path.stem:24} {name:18} {text}", flush=True)
            if options.strips:
                strip = np.hstack([each[-6] for each in (came, *found[:2], wanted)])
                file = options.strips / f"{path.stem}-{name.replace(', ', '-')}.png"
                cv2.imwrite(str(file), strip[..., ::-1])


if __name__ == "__main__":
    main()
