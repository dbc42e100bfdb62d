"""Soak the live pipeline, and tell whether memory and latency stay flat; not collected by pytest.

A file as a camera, restored, recorded in segments, and served to visitors who read the page's
stream all the time:

    python tests/measure_live.py samples/rain.mp4 [--minutes 20] [--visitors 20] [--scale S]
"""
# ruff: noqa: T201 - it is there to print

import argparse
import contextlib
import re
import socket
import tempfile
import threading
import time
from pathlib import Path

import av
from measure_pipeline import resident_megabytes

from mhnet_video.config import LiveConfig, LiveOutputs
from mhnet_video.live.statistics import LiveStatistics
from mhnet_video.pipelines.live import run_live


class Visitor(threading.Thread):
    """Reads the stream and counts its pictures."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.pictures = 0

    def run(self) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._port), 30) as connection,
        ):
            connection.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while data := connection.recv(1 << 18):
                self.pictures += data.count(b"Content-Length")


def packets_of(name: str) -> int:
    with av.open(name) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--scale", type=float)
    options = parser.parse_args()
    visitors: list[Visitor] = []
    told: list[tuple[float, LiveStatistics, float]] = []
    begin = time.monotonic()

    def on_message(text: str) -> None:
        print(text, flush=True)
        if match := re.search(r"http://127\.0\.0\.1:(\d+)/", text):
            visitors.extend(Visitor(int(match[1])) for _ in range(options.visitors))
            for visitor in visitors:
                visitor.start()

    def on_statistics(statistics: LiveStatistics) -> None:
        now = time.monotonic() - begin
        told.append((now, statistics, resident_megabytes()))
        if len(told) % 15 == 0:
            print(
                f"{now:6.0f} s  {statistics.fps:5.1f} fps  dropped {statistics.dropped:6d}  "
                f"latency {1000 * statistics.latency_seconds:4.0f} ms  "
                f"{1000 * statistics.network_seconds:4.0f} ms {statistics.level}  "
                f"{told[-1][2]:5.0f} MB",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        report = run_live(
            options.source,
            LiveConfig(loop=True, seconds=60 * options.minutes, scale=options.scale),
            LiveOutputs(
                has_window=False, serve="0", record=str(Path(folder) / "out.mp4"), segment=60.0
            ),
            on_message=on_message,
            on_statistics=on_statistics,
        )
        recorded = sum(packets_of(name) for name in report.recorded)
    steady = [each for each in told if each[1].frames > 100]
    tenth = max(1, len(steady) // 10)
    for name, part in (("first", steady[:tenth]), ("last", steady[-tenth:])):
        latency = sorted(1000 * each[1].latency_seconds for each in part)[len(part) // 2]
        print(f"{name} tenth: latency {latency:.0f} ms, {max(each[2] for each in part):.0f} MB")
    frames, dropped = report.statistics.frames, report.statistics.dropped
    print(f"{frames} frames restored, {dropped} dropped")
    print(f"{recorded} frames in {len(report.recorded)} recordings, {report.missed} missed")
    seen = sorted(visitor.pictures for visitor in visitors)
    if seen:
        print(f"{len(seen)} visitors saw {seen[0]} to {seen[-1]} pictures")


if __name__ == "__main__":
    main()
