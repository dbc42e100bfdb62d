"""Measure live mode from pipe to pipe: latency, and the time to the first byte; not for pytest.

A camera on the loopback shows the number of each frame as bars. The frames that come out of
`mhnet-video live --output -` tell when each was sent:

    python tests/measure_pipe.py [--size 640x480] [--fps 25] [--seconds 30] [--format mpegts] ...

Further arguments are those of `mhnet-video live`.
"""
# ruff: noqa: T201 - it is there to print

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

BITS = 12


def picture_of(number: int, width: int, height: int) -> av.VideoFrame:
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    noise = np.random.default_rng(number % 50)
    planes[:height] = noise.integers(60, 180, (height // 8, width // 8)).repeat(8, 0).repeat(8, 1)
    bar = width // BITS
    for bit in range(BITS):
        planes[: height // 2, bit * bar : (bit + 1) * bar] = 40 + 170 * (number >> bit & 1)
    return av.VideoFrame.from_ndarray(planes, "yuv420p")


def number_of(picture: av.VideoFrame) -> int:
    luma = picture.to_ndarray(format="gray")[: picture.height // 2]
    bar = picture.width // BITS
    middle = [luma[:, bit * bar + bar // 4 : (bit + 1) * bar - bar // 4] for bit in range(BITS)]
    return sum((each.mean() > 125) << bit for bit, each in enumerate(middle))


def send(url: str, size: tuple[int, int], fps: int, sent: dict[int, float], seconds: float) -> None:
    with av.open(url, "w", format="mpegts", container_options={"flush_packets": "1"}) as container:
        extra = {"preset": "ultrafast", "tune": "zerolatency"}
        stream: Any = container.add_stream("libx264", rate=fps, options=extra)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = fps
        stream.codec_context.thread_count = 1
        pictures = [picture_of(number, *size) for number in range(fps)]
        begin = time.monotonic()
        number = 0
        while time.monotonic() - begin < seconds:
            picture = pictures[number] if number < fps else picture_of(number % 2**BITS, *size)
            picture.pts, picture.time_base = number, Fraction(1, fps)
            sent[number % 2**BITS] = time.monotonic()
            for packet in stream.encode(picture):
                with contextlib.suppress(OSError):  # nobody listens yet
                    container.mux_one(packet)
            number += 1
            time.sleep(max(0.0, begin + number / fps - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--format", default="mpegts")
    parser.add_argument("--port", type=int, default=18321)
    options, further = parser.parse_known_args()
    width, height = (int(side) for side in options.size.split("x"))
    url = f"udp://127.0.0.1:{options.port}"
    sent: dict[int, float] = {}
    sender = threading.Thread(
        target=send,
        args=(f"{url}?pkt_size=1316", (width, height), options.fps, sent, options.seconds),
        daemon=True,
    )
    sender.start()
    begin = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mhnet_video", "live", url, "--output", "-"),
            *("--format", options.format, "--seconds", str(options.seconds * 0.6), *further),
        ],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    latencies: list[float] = []
    first = process.stdout.read(1)
    print(f"first byte after {time.monotonic() - begin:.2f} s")

    class Rest:
        """The pipe, with the byte that was read."""

        def __init__(self) -> None:
            self._before = first

        def read(self, size: int) -> bytes:
            before, self._before = self._before, b""
            return before or os.read(process.stdout.fileno(), size)

    options_in = {"probesize": "32768", "analyzeduration": "0", "fflags": "nobuffer"}
    with av.open(Rest(), format=options.format, options=options_in, buffer_size=4096) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "SLICE", 1
        for packet in container.demux(stream):
            frames: list[av.VideoFrame] = []
            with contextlib.suppress(FFmpegError):  # before the first key frame
                frames = packet.decode()
            for frame in frames:
                number = number_of(frame)
                if number in sent:
                    latencies.append(time.monotonic() - sent[number])
    steady = sorted(latencies[len(latencies) // 3 :])
    print(
        f"{len(latencies)} frames; latency over the last two thirds: "
        f"median {1000 * steady[len(steady) // 2]:.0f} ms, "
        f"95 % {1000 * steady[len(steady) * 95 // 100]:.0f} ms"
    )
    process.wait(30)


if __name__ == "__main__":
    main()
