"""The temporal average on a GPU: nothing is decided on the host, and nobody waits for it.

Its reference implementation is `temporal_average.PlaneAverage`. The steps of a frame are one graph,
on a queue of its own behind the network's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mhnet_video.config import Box
from mhnet_video.frame import DeviceFrame, Frame, PixelLayout, Plane
from mhnet_video.restoration.gpu_backend import DeviceBackend, DeviceEvent
from mhnet_video.restoration.temporal_average import (
    MIN_SIDE,
    Averaged,
    FrameAverage,
    averaged_plane,
    begun_plane,
    finished,
    samples_of,
)

DEPTH = 2
"""Frames on their way: one at work, one that is being packed or unpacked."""


@dataclass(frozen=True)
class PlaneFormat:
    """How a plane's samples lie in memory."""

    height: int
    width: int
    bits: int
    bits_down: int
    """Unused bits below a sample's."""

    @classmethod
    def of(cls, frame: Frame) -> "PlaneFormat":
        """That of a frame's luma, or of its planes of RGB."""
        down = frame.bits_down if isinstance(frame, DeviceFrame) else 0
        return cls(frame.height, frame.width, frame.layout.bits, down)

    @property
    def sample_dtype(self) -> torch.dtype:
        """Of the samples: int16 stands for uint16, which PyTorch hardly knows."""
        return torch.uint8 if self.bits == 8 else torch.int16

    def levels(self, samples: Tensor) -> Tensor:
        """Samples in levels of 8 bits, `[H, W]` float32."""
        if self.bits == 8:
            return samples.float()
        return ((samples.int() & 0xFFFF) >> self.bits_down).float() / 2.0 ** (self.bits - 8)

    def samples(self, levels: Tensor) -> Tensor:
        """The way back, rounded, `[H, W]`."""
        found = levels * 2.0 ** (self.bits - 8) + 0.5 if self.bits > 8 else levels + 0.5
        whole = found.clip(0, 2.0**self.bits - 1).int()
        return (whole << self.bits_down).to(self.sample_dtype)


@dataclass(eq=False)
class _PlaneRun:
    """A plane on its way."""

    done: DeviceEvent
    pinned: Tensor | None
    """Where its samples are once it is done, until the slot's next run; None where nothing changes
    or they stay on the device."""
    dtype: Any
    """The type of the samples on the host."""
    plane: Plane | None = None

    def finish(self) -> Plane | None:
        """Wait, and take the samples; None where they are as they were, or on the device."""
        self.done.synchronize()
        if self.pinned is not None:
            self.plane, self.pinned = self.pinned.numpy().view(self.dtype).copy(), None
        return self.plane


class PlaneGraph:
    """The running mean of a plane: memory at fixed addresses, and one graph for each frame.

    Args:
        backend: The device.
        form: The plane.

    Raises:
        torch.OutOfMemoryError: The device has too little memory.
    """

    def __init__(self, backend: DeviceBackend, form: PlaneFormat) -> None:
        self._form = form
        size, dtype = (form.height, form.width), form.sample_dtype
        self._before, self._after, self._ahead, self._out = (
            backend.allocate(*size, dtype=dtype) for _ in range(4)
        )
        self._share = backend.allocate(1, dtype=torch.float32)
        self._host_share = backend.pinned(DEPTH, 1, dtype=torch.float32)
        # before, after, ahead and out
        self._host = backend.pinned(DEPTH, 4, *size, dtype=dtype)
        self._mean, self._halves, self._count = begun_plane(
            backend.allocate(*size, dtype=torch.float32)
        )
        # what is in the memory yet does not matter: the first frame replaces it
        self._go = backend.recorded(self._step)
        # made last: it waits until all of the memory above is filled
        self._queue = backend.queue()
        self._known: Any = None
        self._has_begun = False
        self._slots: list[_PlaneRun | None] = [None] * DEPTH
        self._pushed = 0

    def forget(self) -> None:
        """Begin anew with the next frame."""
        self._known, self._has_begun = None, False

    def start(self, before: Any, after: Any, ahead: Any, share: float) -> _PlaneRun:
        """Start what the next frame needs.

        Args:
            before: Its samples as they were decoded, an array or a tensor of the device.
            after: The same, restored. A tensor is changed in place once the run is done.
            ahead: The next frame's, restored; None where it is not known.
            share: Weight of the mean in the result, 0 to 1.
        """
        slot = self._pushed % DEPTH
        self._pushed += 1
        earlier = self._slots[slot]
        if earlier is not None:
            earlier.finish()  # its memory is used again
        host, has_begun = self._host[slot], self._has_begun
        is_known, self._known, self._has_begun = self._known is after, ahead, True
        self._host_share[slot] = share
        copies: list[Callable[[], object]] = []
        if is_known:
            copies.append(lambda: self._after.copy_(self._ahead))
        given = [(0, before, self._before)] if has_begun else []
        given += [] if is_known else [(1, after, self._after)]
        given += [] if ahead is None else [(2, ahead, self._ahead)]
        for place, samples, target in given:
            copies.append(_copy(samples, host[place], target))
        stays = isinstance(after, Tensor)

        def work() -> None:
            for copy in copies:
                copy()
            if not has_begun:
                self._begin()
                return
            self._share.copy_(self._host_share[slot], non_blocking=True)
            if ahead is None:
                self._step(has_ahead=False)
            else:
                self._go()
            target = after if stays else host[3]
            target.copy_(self._out, non_blocking=True)

        if stays:
            self._queue.wait_for_decoder()
        self._queue.run(work)
        pinned = host[3] if has_begun and not stays else None
        run = _PlaneRun(self._queue.record(), pinned, None if stays else after.dtype)
        self._slots[slot] = run
        return run

    def _begin(self) -> None:
        """Let the mean begin with what is in `_after`."""
        state = begun_plane(self._form.levels(self._after))
        for target, value in zip((self._mean, self._halves, self._count), state, strict=True):
            target.copy_(value)

    def _step(self, *, has_ahead: bool = True) -> None:
        """Compute `_out` and the next state from the memory."""
        state = self._mean, self._halves, self._count
        levels = self._form.levels
        found, picture = averaged_plane(
            state,
            levels(self._before),
            levels(self._after),
            levels(self._ahead) if has_ahead else None,
            self._share,
        )
        for target, value in zip(state, found, strict=True):
            target.copy_(value)
        self._out.copy_(self._form.samples(picture))


class GraphAverage(FrameAverage):
    """Averages the frames of a stream on a GPU, as `FrameAverage` does.

    Args:
        backend: The GPU.
    """

    def __init__(self, backend: DeviceBackend) -> None:
        super().__init__()
        self._backend = backend
        self._graphs: list[PlaneGraph] = []
        self._form: tuple[PlaneFormat, PixelLayout] | None = None
        self._refused: tuple[PlaneFormat, PixelLayout] | None = None

    def _started(
        self, before: Frame, after: Frame, ahead: Frame | None, share: float, keep: Sequence[Box]
    ) -> Averaged:
        form = PlaneFormat.of(after), after.layout
        if min(after.height, after.width) < MIN_SIDE or form == self._refused:
            return Averaged(lambda: after)
        if form != self._form:
            self._graphs, self._form = [], None  # their memory is free before others are made
            count = 3 if after.layout.kind == "rgb" else 1
            try:
                self._graphs = [PlaneGraph(self._backend, form[0]) for _ in range(count)]
            except RuntimeError:
                self._refused = form
                raise
            self._form = form
        runs = [
            graph.start(
                samples_of(before, index),
                samples_of(after, index),
                None if ahead is None else samples_of(ahead, index),
                share,
            )
            for index, graph in enumerate(self._graphs)
        ]

        def finish() -> Frame:
            planes = [run.finish() for run in runs]
            return finished(before, after, planes, keep)

        return Averaged(finish)

    def _forget(self) -> None:
        super()._forget()
        for graph in self._graphs:
            graph.forget()


def _copy(samples: Any, pinned: Tensor, target: Tensor) -> Callable[[], object]:
    """What copies a plane to the device; one on the host is in pinned memory at once."""
    if isinstance(samples, Tensor):
        return lambda: target.copy_(samples, non_blocking=True)
    kind = pinned.numpy().dtype
    np.copyto(pinned.numpy(), samples.view(kind))
    return lambda: target.copy_(pinned, non_blocking=True)
