"""What passes after a cheap look, and whether full work would have restored it.

    MHNET_DATA=... python tests/measure_dry.py [--model realtime]

Drawn rain of several strengths before panned Kodak pictures, with noise and half of them coded; the
same without rain; footage without rain; footage in rain. Windows of three frames, of which the
middle one counts. Prints how many pass, and the most that full work gains on one that passes.
"""

# ruff: noqa: T201 - it is there to print

import argparse
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from measure_scales import Pictures, coded, decibels, pan

from mhnet_video.restoration import dry_look
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.training.rain import rain_on

STRENGTHS = 34, 38, 42, 46
"""PSNR of the drawn rain on Y, in decibels."""
NOISE = 2
"""Noise of the drawn clips, in levels of 8 bits."""
CRF = 23
"""Quality of x264 of half of the drawn clips."""
CUT = 720, 1280
"""Rows and columns of footage, at most."""
SKIPPED = 2, 14, 40, 100
"""Frames of footage before each window."""
FRAMES = 3
"""Frames of a window."""

Clip = tuple[str, Pictures, Pictures | None]
"""Kind, frames, and the same without rain where that is known."""


def main() -> None:
    """Measure, and print a row for each kind of clip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="realtime")
    options = parser.parse_args()
    data = Path(os.environ["MHNET_DATA"])
    looking, full = (Restorer(options.model, device="cpu") for _ in range(2))
    dry_look.LOOK_PERIOD = 1  # each frame is looked at
    full._steps[0]._new_look = lambda: None  # type: ignore[method-assign]
    print("| clips | windows | pass | full work gains at most | or changes it to, at least |")
    print("| --- | ---: | ---: | ---: | ---: |")
    clips = itertools.chain(drawn(data), footage(data / "train/clips"), footage(data / "dev/real"))
    for kind, group in itertools.groupby(clips, key=lambda clip: clip[0]):
        gains, changes, count = [0.0], [120.0], 0
        passed = 0
        for _, wet, dry in group:
            count += 1
            middle = FRAMES // 2
            outcome = np.stack(list(looking.restore(list(wet))))[middle:][:1]
            if not np.array_equal(outcome, wet[middle:][:1]) or not looking.dry:
                continue
            passed += 1
            restored = np.stack(list(full.restore(list(wet))))[middle:][:1]
            changes.append(decibels(restored, wet[middle:][:1]))
            if dry is not None:
                after, before = (decibels(each, dry[middle:][:1]) for each in (restored, outcome))
                gains.append(min(after, 60) - min(before, 60))
        print(
            f"| {kind} | {count} | {passed} | {max(gains):.2f} dB | {min(changes):.0f} dB |",
            flush=True,
        )


def drawn(data: Path) -> Iterator[Clip]:
    """Panned pictures in rain and without it."""
    pan.SIDES = 480, 352
    clips = []
    for index, (_, picture) in enumerate(pan.read(data / "dev/kodak")):
        clean = pan.pan(picture, 3.3 * (index % 2), FRAMES)
        for number, strength in enumerate((*STRENGTHS, None)):
            generator = torch.Generator().manual_seed(100 * index + number)
            rainy = clean
            if strength is not None:
                rainy = pan.scaled(rain_on(clean, generator), clean, strength)
            grain = torch.randn(clean.shape, generator=generator) * NOISE / 255
            wet, dry = (
                np.ascontiguousarray(
                    ((each + grain).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
                )
                for each in (rainy, clean)
            )
            if (index // 2 + number) % 2:
                wet, dry = coded(wet, CRF), coded(dry, CRF)
            what = "none" if strength is None else f"{strength} dB"
            clips.append((f"drawn rain, {what}", wet, dry))
    yield from sorted(clips, key=lambda clip: clip[0])


def footage(folder: Path) -> Iterator[Clip]:
    """Windows of the clips of a folder, by the first word of their names."""
    for path in sorted(folder.glob("*.mp4")):
        for skipped in SKIPPED:
            with av.open(str(path)) as container:
                decoded = container.decode(video=0)
                frames = list(itertools.islice(decoded, skipped, skipped + FRAMES))
                if len(frames) < FRAMES:
                    break
                pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
            if path.parent.name == "real":
                kind = f"rain, {path.stem}"
            else:
                kind = f"dry, {path.stem.split('_')[0]}"
            yield kind, np.ascontiguousarray(pictures[:, : CUT[0], : CUT[1]]), None


if __name__ == "__main__":
    main()
