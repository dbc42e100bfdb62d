"""Restorers without a network, for tests of everything around it."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from waiting import SECONDS

from mhnet_video.frame import Frame, Pair
from mhnet_video.restoration.working_scale import ScaleReason, WorkingScale


class StandIn:
    """Holds a frame back as a window of three does, and gives it on as it is."""

    name = "stand-in"
    device = torch.device("cpu")
    devices = (device,)
    gpu = None
    fingerprint = "none"
    passed_through = 0
    tasks: tuple[str, ...] = ("deblur",)
    strength = 1.0
    scale: float | None = None
    keep: tuple[Any, ...] = ()
    dry = 0
    scene_scale: float | None = None
    scales: Mapping[WorkingScale, int] = MappingProxyType({WorkingScale(1.0, ScaleReason.FULL): 1})

    def __init__(
        self,
        change: Callable[[Frame], Frame] = lambda frame: frame,
        *,
        seconds: float = 0.0,
        fail_at: int | None = None,
    ) -> None:
        self._change = change
        self._seconds = seconds
        self._fail_at = fail_at
        self.seen = 0

    def scale_at(self, height: int, width: int) -> WorkingScale:
        """It works on whole pictures."""
        return WorkingScale(1.0, ScaleReason.FULL)

    def stream(self, items: Iterable[Any]) -> Iterator[Any]:
        """One frame out for each in; other items pass through at once."""
        for item in self.pairs(items):
            yield item.restored if isinstance(item, Pair) else item

    def pairs(self, items: Iterable[Any], *, stays_on_gpu: bool = False) -> Iterator[Any]:
        """One pair for each frame; other items pass through at once."""
        held = None
        for item in items:
            if not isinstance(item, Frame):
                yield item
                continue
            if self.seen == self._fail_at:
                raise RuntimeError("the restorer broke")
            self.seen += 1
            time.sleep(self._seconds)
            if held is not None:
                yield held
            held = Pair(item, self._change(item))
        if held is not None:
            yield held


class Held(StandIn):
    """Waits at a frame until it may go on.

    Args:
        at: The number of the frame, from 0. Those before it are given on, but for the last.
        go_on: What it waits for; an event of its own if None.
        change: As for `StandIn`.
    """

    def __init__(
        self,
        at: int,
        go_on: threading.Event | None = None,
        change: Callable[[Frame], Frame] = lambda frame: frame,
    ) -> None:
        super().__init__(change)
        self.reached = threading.Event()
        self.go_on = go_on or threading.Event()
        self._at = at

    def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
        """As `StandIn`, once it may go on."""
        return super().pairs(map(self._held, items), **how)

    def _held(self, item: Any) -> Any:
        if isinstance(item, Frame) and self.seen == self._at:
            self.reached.set()
            assert self.go_on.wait(SECONDS)
        return item


class LiveStandIn:
    """What `Live` takes for a restorer: turns luma upside down, in no time or in some.

    Args:
        seconds: Time that a frame takes at full scale.
    """

    ahead = behind = 1
    device = torch.device("cpu")
    engine = SimpleNamespace(name="stand-in")
    tasks = ("derain",)
    dry = repeated = 0

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.strength = 1.0
        self.scale = 1.0
        self.windows: list[tuple[int, int]] = []

    def prepare_looks(self, frames: Any, index: int) -> None:
        """It has none."""

    def restore_frame(self, frames: Any, index: int, *, is_live: bool = False) -> Frame:
        self.windows.append((len(frames), index))
        if self.seconds:
            time.sleep(self.seconds * self.scale**2)
        return inverted(frames[index]) if self.strength else frames[index]


def inverted(frame: Frame) -> Frame:
    """The frame with its luma upside down, so that no one takes it for the source's."""
    first, *others = frame.planes
    top = first.dtype.type((1 << frame.layout.bits) - 1)
    return replace(frame, planes=(np.subtract(top, first), *others))
