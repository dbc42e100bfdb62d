"""The share of the picture that drops on the glass darken and `realtime` leaves so, by clip.

    python tests/measure_drop_watch.py CLIP... [--frames 65]

The shares are those by which a run tells at its end that drops are left
(`mhnet_video/restoration/drop_watch.py`), here of a clip's first frames.
"""

# ruff: noqa: T201 - it is there to print

import argparse
import itertools
from pathlib import Path

from mhnet_video.frame import Frame
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.restoration.drop_watch import LEAST_SHARE, DropWatch
from mhnet_video.restoration.restorer import Restorer


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", metavar="CLIP", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=65)
    options = parser.parse_args()
    restorer = Restorer("realtime", device="cpu")
    print(f"drops are told from {LEAST_SHARE:.1%} on")
    for clip in options.clips:
        watch = DropWatch()
        with VideoReader(clip) as reader:
            frames = (item for item in reader if isinstance(item, Frame))
            for _ in watch.watch(restorer.pairs(itertools.islice(frames, options.frames))):
                pass
        share = watch.share()
        print(f"{clip.name:28} {'-' if share is None else format(share, '.2%')}", flush=True)


if __name__ == "__main__":
    main()
