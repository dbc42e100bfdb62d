"""How batches do on this machine: `python tests/measure_batch.py [FILES [WIDTHxHEIGHT [FRAMES]]]`.

Prints, for one job and for two, the frames a second over all files and the memory of each worker
after some of its files and after the last one. Let nothing else run meanwhile.
"""
# ruff: noqa: T201 - it is there to print

import shutil
import sys
import tempfile
import time
from pathlib import Path

from clips import Audio, Clip, Video, every

from mhnet_video.batch.rows import Row
from mhnet_video.config import BatchConfig
from mhnet_video.pipelines.batch import run_batch

MARKS = (10, 20, 60, 110, 150)
"""After how many of a worker's files its memory is told."""


def memory_mb(pid: str) -> int:
    """What a process holds, in megabytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    width, height = map(int, (sys.argv[2] if len(sys.argv) > 2 else "640x480").split("x"))
    frames = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "card").mkdir()
        video = Video(times=every(40, frames), width=width, height=height, period=10)
        clip = Clip(video=(video,), audio=(Audio(seconds=frames * 0.04),)).make(folder)
        for index in range(files):
            shutil.copyfile(clip, folder / "card" / f"{index:04}.mp4")
        for jobs in (1, 2):
            sizes: dict[str, list[int]] = {}

            def on_row(row: Row, sizes: dict[str, list[int]] = sizes) -> None:
                pid = row.worker.rpartition(":")[2]
                sizes.setdefault(pid, []).append(memory_mb(pid))

            begin = time.monotonic()
            report = run_batch(
                [str(folder / "card")],
                folder / f"out-{jobs}",
                batch=BatchConfig(jobs=jobs),
                on_row=on_row,
            )
            assert report.is_done
            fps = files * frames / (time.monotonic() - begin)
            print(f"{jobs} jobs: {fps:.1f} frames a second, {len(sizes)} loads")
            for each in sizes.values():
                marks = (*(mark for mark in MARKS if mark < len(each)), len(each))
                print(", ".join(f"{each[mark - 1]} MB after {mark}" for mark in marks))


if __name__ == "__main__":
    main()
