"""Give a detector restored frames as they come, each with the time at which it was taken.

python examples/frames_for_a_detector.py in.mp4
"""

import sys
from collections import deque
from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from mhnet_video import Restorer


def detect(picture: NDArray[np.uint8]) -> str:
    """Stand for a detector."""
    return f"mean brightness {picture.mean():.1f}"


def restored_frames(source: str) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield the time in seconds and the RGB picture, `[H, W, 3]` uint8, of each frame."""
    restorer = Restorer()
    # frames come out in order, one for each one in, yet later: their times wait here
    times: deque[float] = deque()
    with av.open(source) as container:
        for frame in container.decode(video=0):
            times.append(frame.time or 0.0)
            rainy = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            for picture in restorer.push(rainy):
                yield times.popleft(), picture
    for picture in restorer.flush():
        yield times.popleft(), picture


if __name__ == "__main__":
    for time, picture in restored_frames(sys.argv[1]):
        print(f"{time:.3f} s: {detect(picture)}")
