"""Frames and a clip for the GPU benchmark."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F

from mhnet_video.frame import Frame, PixelLayout

_LAYOUT = PixelLayout("yuv420p", "yuv", 8, 1, 1)
"""Layout of the frames."""


def _scene(height: int, width: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Planes of something that codecs meet: large shapes, and some grain."""
    generator = torch.Generator().manual_seed(0)
    planes = []
    for rows, columns in [(height, width)] + [(-(-height // 2), -(-width // 2))] * 2:
        grid = torch.rand(1, 1, 2 + rows // 24, 2 + columns // 24, generator=generator)
        plane = F.interpolate(grid, (rows, columns), mode="bicubic")[0, 0]
        plane += torch.randn(plane.shape, generator=generator) / 100
        planes.append((plane * 219 + 16).clamp(16, 235).to(torch.uint8).numpy())
    return tuple(planes)


def make_frames(number: int, height: int, width: int) -> list[Frame]:
    """Frames of a scene that moves; their number, and their size in pixels."""
    planes = _scene(height, width)
    return [
        Frame(
            tuple(np.roll(plane, 2 * index, 1) for plane in planes),
            _LAYOUT,
            pts=index,
            time_base=Fraction(1, 25),
        )
        for index in range(number)
    ]


def write_clip(path: Path, number: int, height: int, width: int) -> None:
    """Write these frames as H.264."""
    frames = make_frames(number, height, width)
    with av.open(str(path), "w") as container:
        options = {"crf": "20", "preset": "ultrafast"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame(width, height, "yuv420p")
            for plane, samples in zip(picture.planes, frame.planes, strict=True):
                memory = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
                memory[: samples.shape[0], : samples.shape[1]] = samples
            picture.pts = frame.pts
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
