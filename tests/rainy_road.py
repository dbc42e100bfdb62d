"""Footage of a fixed camera in rain, with everything that the way of a frame remembers."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import probe
import torch

from mhnet_video.config import RestoreConfig
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.restoration.restorer import Restorer

STEP = Fraction(1, 25)
CUTS = (95, 310)
"""Where another scene begins."""
DOUBLED = range(150, 200)
"""Frames of which every other one is the one before."""
FROZEN = range(205, 300)
"""Frames that show one picture."""
TURNS = {0: 0.2, 60: 1.1, 130: 0.3, 195: 0.6, 340: 0.15}
"""Pixels per frame at which a camera that moves pans, from which frame on."""

EXACT = RestoreConfig(encoder="ffv1")
"""Settings with which pictures can be compared sample by sample."""


class Mixing(MHNet):
    """A network that takes the mean of its window, so that every neighbour can be seen."""

    def __init__(self) -> None:
        super().__init__(NetworkConfig(width=8, encoder_blocks=(0,) * 4, frames=3))

    def residual(self, x):
        frames = x.reshape(len(x), 3, 3, *x.shape[2:])
        # black ones are none
        is_there = frames.amax((2, 3, 4), keepdim=True) > 0
        frames = torch.where(is_there, frames, frames[:, 1:2])
        return 0.7 * (frames.mean(1) - frames[:, 1])


class GlassMixing(MHNet):
    """The same of five frames, and of both pictures of the glass."""

    def __init__(self) -> None:
        super().__init__(NetworkConfig(width=8, encoder_blocks=(0,) * 4, frames=5, glass=True))

    def residual(self, x):
        pictures = x.reshape(len(x), 7, 3, *x.shape[2:])
        is_there = pictures.amax((2, 3, 4), keepdim=True) > 0
        middle = pictures[:, 3]
        pictures = torch.where(is_there, pictures, pictures[:, 3:4])
        mean, frames, difference = pictures[:, 0], pictures[:, 1:6].mean(1), pictures[:, 6]
        return 0.4 * (frames - middle) + 0.4 * (mean - middle) + 0.1 * (difference - middle)


def restorer(*, sees_glass: bool = False) -> Restorer:
    """One with that network, and with the temporal filter."""
    network = GlassMixing() if sees_glass else Mixing()
    return Restorer(network, device="cpu", engine="torch")


def assert_as_one_run(output: Path, wanted) -> None:
    """See that an output is within one level of the pictures that are wanted."""
    found = probe.pictures(output).astype(int)
    assert found.shape == wanted.shape
    apart = np.abs(found - wanted)
    assert apart.max() <= 1
    # where rounding goes the other way, and no more
    assert (apart > 0).mean(1).max() < 0.01


def film(path: Path, count: int = 360, *, gop: int = 10, moves: bool = False) -> Path:
    """Write it, without a loss.

    Args:
        path: Where to.
        count: Frames.
        gop: Frames from one key frame to the next.
        moves: Whether the camera pans.
    """
    height, width = 80, 96
    noise = np.random.default_rng(1)
    y, x = np.mgrid[0:height, 0:width]
    texture = 110 + 60 * np.sin(x / 9) * np.cos(y / 7)
    scenes = [texture + noise.normal(0, 6, texture.shape) for _ in range(len(CUTS) + 1)]
    place = 0.0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "0", "preset": "ultrafast", "sc_threshold": "0"}
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, 0
        picture = texture
        for index in range(count):
            is_copy = (index in DOUBLED and index % 2) or index in FROZEN
            place += next(TURNS[begin] for begin in reversed(TURNS) if index >= begin)
            if not is_copy:
                scene = scenes[sum(index >= cut for cut in CUTS)]
                if moves:
                    scene = _panned(scene, place)
                picture = _rainy(scene, np.random.default_rng(index))
            container.mux(stream.encode(_frame(picture, index)))
        container.mux(stream.encode(None))
    return path


def _panned(scene, columns):
    whole = int(columns)
    here, next_one = (np.roll(scene, -each, axis=1) for each in (whole, whole + 1))
    return here + (columns - whole) * (next_one - here)


def _rainy(scene, drops):
    picture = scene + drops.normal(0, 1, scene.shape)
    for _ in range(25):
        top, left = drops.integers(scene.shape[0]), drops.integers(scene.shape[1])
        picture[top : top + 14, left] += 60
    return picture


def _frame(picture, index):
    height, width = picture.shape
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    planes[:height] = np.clip(picture, 0, 255)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts, frame.time_base = index, STEP
    return frame


def cut(source: Path, folder: Path, edges: Sequence[int]) -> list[Path]:
    """The packets of a film in files of their own, each with a clock of its own.

    Args:
        source: The film.
        folder: Where to write.
        edges: The frames at which files begin, which are key frames.
    """
    files = []
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        for number, (first, last) in enumerate(zip(edges, [*edges[1:], len(packets)], strict=True)):
            path = folder / f"loop{number}.mp4"
            with av.open(str(path), "w") as output:
                target = output.add_stream_from_template(stream)
                begin = packets[first].pts
                for packet in packets[first:last]:
                    packet.stream = target
                    packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
                    output.mux(packet)
            files.append(path)
    return files
