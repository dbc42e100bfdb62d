"""Measure the pipeline's two figures on this machine; not collected by pytest.

Wall time of the whole over that of its slowest stage alone, and how much higher the resident
memory is after 3,000 frames than after 300:

    python tests/measure_pipeline.py [--frames 3000] [--size 640x360] [--work 0.03] [--network]

Or whether a long run holds its speed and memory, by its first and last thousand frames:

    python tests/measure_pipeline.py --steady --network --frames 10000 --size 128x96
"""
# ruff: noqa: T201 - it is there to print

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from clips import Audio, Clip, Video, every
from standin import StandIn

from mhnet_video.config import RestoreConfig
from mhnet_video.frame import Frame, Pair
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.pipelines.restore import Progress, restore_video

CONFIG = RestoreConfig()


class Working(StandIn):
    """Takes some of one core for each frame, as a small network does."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._work = seconds

    def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
        for item in super().pairs(items, **how):
            if isinstance(item, Pair):
                time.sleep(self._work)
            yield item


def make_restorer(work: float, network: bool) -> Any:
    if not network:
        return Working(work)
    from mhnet_video.restoration.restorer import Restorer

    return Restorer()


def time_reader(source: Path) -> float:
    begin = time.monotonic()
    with VideoReader(source) as reader:
        for _ in reader:
            pass
    return time.monotonic() - begin


def time_restorer(source: Path, restorer: Any, count: int) -> float:
    """The restorer alone, over a second of the clip again and again."""
    with VideoReader(source) as reader:
        frames = [item for item in itertools.islice(reader, 40) if isinstance(item, Frame)]
    begin = time.monotonic()
    for _ in restorer.stream(itertools.islice(itertools.cycle(frames), count)):
        pass
    return time.monotonic() - begin


def time_whole(source: Path, output: Path, restorer: Any) -> float:
    begin = time.monotonic()
    restore_video(source, output, CONFIG, restorer=restorer)
    return time.monotonic() - begin


def resident_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no /proc here")


def measure_memory(source: Path, output: Path, restorer: Any, count: int) -> tuple[float, float]:
    """The resident megabytes after a tenth of the frames, and the most until the last one."""
    told: list[tuple[int, float]] = []

    def listen(progress: Progress) -> None:
        told.append((progress.frames, resident_megabytes()))

    restore_video(source, output, CONFIG, restorer=restorer, on_progress=listen)
    early = [megabytes for frames, megabytes in told if frames >= count // 10]
    return early[0], max(early)


def measure_steadiness(source: Path, output: Path, restorer: Any, count: int) -> list[str]:
    """Speed, processor time and memory of the first and of the last tenth of the frames."""
    told: list[tuple[int, float, float, float]] = []

    def listen(progress: Progress) -> None:
        told.append((progress.frames, time.monotonic(), time.process_time(), resident_megabytes()))

    restore_video(source, output, CONFIG, restorer=restorer, on_progress=listen)
    tenth = count // 10
    lines = []
    # the start, with what is made once, is not counted
    for first, last in ((min(50, tenth // 2), tenth), (count - tenth, count)):
        part = [each for each in told if first <= each[0] <= last]
        begin, end = part[0], part[-1]
        frames = end[0] - begin[0]
        lines.append(
            f"frames {begin[0]:>6} to {end[0]:>6}: {frames / (end[1] - begin[1]):6.1f} a second, "
            f"{(end[2] - begin[2]) / frames * 1e3:6.2f} ms of processor time each, "
            f"{max(each[3] for each in part):.0f} MB"
        )
    return lines


class Replayed(StandIn):
    """Gives the writer frames that are decoded already: the reader and the network cost nothing."""

    def __init__(self, frames: list[Frame], count: int) -> None:
        super().__init__()
        self._frames = frames
        self._count = count

    def stream(self, items: Iterable[Any]) -> Iterator[Any]:
        step = self._frames[1].pts - self._frames[0].pts
        for index, frame in enumerate(itertools.islice(itertools.cycle(self._frames), self._count)):
            yield replace(frame, pts=index * step)


def time_writer(source: Path, output: Path, count: int) -> float:
    with VideoReader(source) as reader:
        frames = [item for item in itertools.islice(reader, 100) if isinstance(item, Frame)]
    return time_whole(source, output, Replayed(frames, count))


def make_clip(folder: Path, count: int, size: tuple[int, int]) -> Path:
    video = Video(times=every(40, count), width=size[0], height=size[1], gop=50, period=50)
    sound = Audio(codec="ac3", seconds=count / 25)
    return Clip(name=f"{count}.mp4", video=(video,), audio=(sound,)).make(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--work", type=float, default=0.03, help="seconds the stand-in takes")
    parser.add_argument("--network", action="store_true", help="the real network, not a stand-in")
    parser.add_argument("--steady", action="store_true", help="compare the beginning and the end")
    options = parser.parse_args()
    width, height = (int(number) for number in options.size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make_clip(folder, options.frames, (width, height))
        if options.steady:
            restorer = make_restorer(options.work, options.network)
            output = folder / "steady.mp4"
            print("\n".join(measure_steadiness(source, output, restorer, options.frames)))
            return
        stages = {
            "reader": time_reader(source),
            "restorer": time_restorer(
                source, make_restorer(options.work, options.network), options.frames
            ),
            "writer": time_writer(source, folder / "writer.mp4", options.frames),
        }
        whole = time_whole(
            source, folder / "whole.mp4", make_restorer(options.work, options.network)
        )
        for stage, seconds in stages.items():
            print(f"{stage:<9} alone {seconds:7.2f} s")
        print(f"the whole       {whole:7.2f} s, {whole / max(stages.values()):.3f} of the slowest")
        early, late = measure_memory(
            source,
            folder / "memory.mp4",
            make_restorer(0, options.network),
            options.frames,
        )
        print(f"resident after {options.frames // 10} frames: {early:.0f} MB")
        print(f"resident after {options.frames} frames: {late:.0f} MB, {late - early:.0f} higher")


if __name__ == "__main__":
    main()
