"""A cheap look at each frame: where it shows nothing to take out, the frame passes as it is.

The network itself looks: at a picture of a quarter of the rows, which shows most rain, and where
that shows nothing at one of half of them, which shows faint rain too. Each of their pixels is the
brightest of those that it covers: a streak of one pixel stays as bright as it is, where a mean
would lose it. What is bright and fine without being rain is found too, and costs time only.

The limits were measured with `tests/measure_dry.py`; `docs/benchmarks.md` has the table.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mhnet_video.color_spaces import LUMA_WEIGHTS
from mhnet_video.engines.base import Engine
from mhnet_video.frame import Frame, Plane
from mhnet_video.memory import is_shortage
from mhnet_video.model.window import middle_of
from mhnet_video.restoration.temporal_window import FrameWindow, NetworkImage
from mhnet_video.restoration.window_network import WindowNetwork

LEAST_ROWS = 240
"""Shorter side at the working scale, in pixels, from which on frames are looked at."""
_FACTORS = 4, 2
"""Rows at the working scale for each row of a look, look by look: they take a sixteenth and a
quarter of the network's work."""
_LEVEL = 0.25 / 255
"""How much darker the network makes a pixel of a look in which there is something."""
_FEW_PIXELS = 8
"""Pixels of a look in which there is something, from which on there is something to take out. A
streak of thirty pixels has as many in the first look."""
LOOK_PERIOD = 4
"""In rain one frame of so many is looked at, as looks are for nothing there. Which one goes by its
number, so that it is the same one where only a part of the clip is restored."""


class DryLook:
    """Marks the windows whose frame shows nothing to take out.

    Args:
        network: The network.
        engine: Runs it; not at the same time for anything else.
    """

    def __init__(self, network: WindowNetwork, engine: Engine) -> None:
        self._network = network
        self._engine = engine
        self._number = 0
        self._rains = False
        self._last: FrameWindow | None = None

    def marked(self, window: FrameWindow) -> FrameWindow:
        """The next window, marked as dry where its frame shows nothing."""
        number, self._number = self._number, self._number + 1
        last, is_dry = self._last, False
        if last is not None and window.is_restored_as(last):
            is_dry = last.is_dry
        elif not self._rains or number % LOOK_PERIOD == 0:
            is_dry = self._shows_nothing(window)
            self._rains = not is_dry
        self._last = replace(window, is_dry=True) if is_dry else window
        return self._last

    @torch.inference_mode()
    def prepare(self, window: FrameWindow) -> None:
        """Run every look once, as an engine may compile kernels for its size."""
        if _can_be_looked_at(window):
            for factor in _FACTORS:
                self._shows_something(window, factor)

    @torch.inference_mode()
    def _shows_nothing(self, window: FrameWindow) -> bool:
        return _can_be_looked_at(window) and not any(
            self._shows_something(window, factor) for factor in _FACTORS
        )

    def _shows_something(self, window: FrameWindow, factor: int) -> bool:
        seen = [None if image is None else self._look(image, factor) for image in window.images]
        engine = self._engine
        if middle_of(seen)[0].numel() > engine.max_pixels:
            return True
        aligns = self._network.network.config.align
        try:
            residual = (engine.aligned_residual if aligns else engine.residual)(seen)
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            return True  # full work can do with less memory
        luma = torch.tensor(LUMA_WEIGHTS["bt601"]) @ residual.flatten(1)
        return int((luma <= -_LEVEL).sum()) >= _FEW_PIXELS

    def _look(self, image: NetworkImage, factor: int) -> Tensor:
        if factor not in image.looks:
            small = _brightest(image.host_frame, round(factor / image.scale))
            image.looks[factor] = self._network.seen(small)
        return image.looks[factor]


def _can_be_looked_at(window: FrameWindow) -> bool:
    """Whether the frame has neighbours, and rows enough."""
    width, height = window.host_frame.upright_size
    is_alone = sum(image is not None for image in window.images) == 1
    return not is_alone and min(width, height) * window.middle.scale >= LEAST_ROWS


def _brightest(frame: Frame, factor: int) -> Frame:
    """A frame of fewer pixels, each the brightest of those that it covers.

    Args:
        frame: The frame.
        factor: Rows of it for each that is left, and columns.
    """
    planes = list(frame.planes)
    for index, plane in enumerate(planes):
        if frame.layout.kind == "yuv" and index in (1, 2):
            planes[index] = plane[::factor, ::factor]
        else:
            planes[index] = _maximum(_maximum(plane, factor).T, factor).T
    return replace(frame, planes=tuple(map(np.ascontiguousarray, planes)))


def _maximum(plane: Plane, factor: int) -> Plane:
    """A plane whose rows are the maximum of as many; the last ones of as many as there are."""
    rows = plane[::factor].copy()
    for first in range(1, factor):
        others = plane[first::factor]
        np.maximum(rows[: len(others)], others, out=rows[: len(others)])
    return rows
