"""Frames turned upright, and two frames side by side."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mhnet_video.frame import Frame
from mhnet_video.media.frames.converter import finer
from mhnet_video.media.frames.pixel_formats import layout_of


def upright(frame: Frame) -> Frame:
    """The frame as a player shows it: its samples turned and mirrored, and nothing left to do.

    Where chroma is shared by more samples of a row than of a column, or the other way round, it is
    repeated, should the picture have to be turned by a quarter.
    """
    matrix = frame.tags.get("display_matrix")
    if matrix is None:
        return frame
    tags = {k: v for k, v in frame.tags.items() if k not in ("decoded", "display_matrix")}
    is_quarter, down, right = _directions(matrix)
    layout = frame.layout
    if is_quarter and layout.chroma_shift_x != layout.chroma_shift_y:
        finest = layout_of(re.sub(r"4\d\d", "444", layout.name))
        frame = finer(frame, finest) if finest is not None else frame
    planes = []
    for plane in frame.planes:
        turned = plane.T if is_quarter else plane
        turned = turned[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
        planes.append(np.ascontiguousarray(turned))
    tags["is_quarter_turned"] = is_quarter
    return replace(frame, planes=tuple(planes), rotation=0, tags=tags)


def _directions(matrix: Sequence[int]) -> tuple[bool, int, int]:
    """Whether a display matrix turns by a quarter, and the signs of what is then down and right."""
    # a sample at (x, y) is shown at (a x + c y, b x + d y)
    a, b, _, c, d = matrix[:5]
    is_quarter = abs(b) > abs(a)
    return (is_quarter, b, c) if is_quarter else (is_quarter, d, a)


def beside(before: Frame, after: Frame) -> Frame:
    """Two frames in one, the first one on the left as a player shows them.

    Where the size is odd and chroma is shared by two columns or rows, the edge is repeated.
    """
    is_turned, is_reversed = after.rotation in (90, 270), after.rotation in (180, 90)
    if matrix := after.tags.get("display_matrix"):
        is_turned, _, right = _directions(matrix)
        is_reversed = right < 0
    pair = (after, before) if is_reversed else (before, after)
    axis = 0 if is_turned else 1
    shift = after.layout.chroma_shift_y if is_turned else after.layout.chroma_shift_x
    planes = []
    for index in range(len(after.planes)):
        halves = [frame.planes[index] for frame in pair]
        is_chroma = after.layout.kind == "yuv" and index in (1, 2)
        missing = 0 if is_chroma else -halves[0].shape[axis] % (1 << shift)
        widths = [(0, missing) if i == axis else (0, 0) for i in (0, 1)]
        planes.append(np.concatenate([np.pad(h, widths, mode="edge") for h in halves], axis))
    tags = {name: value for name, value in after.tags.items() if name != "decoded"}
    return replace(after, planes=tuple(planes), tags=tags)
