"""Take the newest restored frame of a camera, an address or a file, again and again.

python examples/live_frames.py 0              # the first camera
python examples/live_frames.py in.mp4         # a file, at its own speed
"""

import sys

from mhnet_video import Live, LiveConfig


def main(source: str, seconds: float | None = None) -> int:
    """Print what comes until the source ends; the number of frames."""
    frames = 0
    with Live(source, LiveConfig(seconds=seconds)) as live:
        for frame in live:
            picture = frame.rgb()  # [H, W, 3] uint8, upright
            statistics = live.statistics
            print(
                f"frame {frame.number}: {picture.shape[1]}x{picture.shape[0]}, "
                f"{1000 * frame.latency_seconds:.0f} ms old, dropped {statistics.dropped}"
            )
            frames += 1
    return frames


if __name__ == "__main__":
    main(sys.argv[1])
