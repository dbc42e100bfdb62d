"""Frames through a GPU: upload, network and download overlap, on three queues ordered by events.

A frame's samples go into a pinned buffer, from there into a slot of a ring on the device, once
whatever the length of the window; the network reads the ring and writes restored samples; these
come back into a pinned buffer. No step waits for another frame's: the processor only waits where
all buffers are taken, which is also what holds the reader back.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mhnet_video.frame import Frame, Plane
from mhnet_video.model.window import is_alone
from mhnet_video.restoration.gpu_backend import DeviceBackend, DeviceEvent
from mhnet_video.restoration.gpu_buffers import ResultBuffers, UploadRing
from mhnet_video.restoration.gpu_layout import MISSING, FrameFormat
from mhnet_video.restoration.scene_changes import MAX_RUN
from mhnet_video.restoration.temporal_window import FrameWindow

DEPTH = 3
"""Batches in flight: one in transfer, one in the network, one being packed or unpacked."""


@dataclass(eq=False)
class Restored:
    """A window on its way through the device, and its result."""

    window: FrameWindow
    slots: list[int]
    """Slots of its frames in the ring; `MISSING` for a missing neighbour."""
    frames: list[Frame]
    """Its frame, and following frames with the same result."""
    is_done: bool = False
    """Whether the device has finished it."""
    planes: tuple[Plane, ...] | None = None
    """The restored samples. None if they stay on the device, if the residual is not finite, or if
    the frame has no neighbours, whose self-ensemble does not run here."""
    samples: tuple[Tensor, Tensor] | None = None
    """The restored samples on the device, luma and chroma."""


@dataclass
class _Batch:
    """A batch in flight."""

    number: int
    windows: list[Restored]
    done: DeviceEvent
    stayed: list[Tensor]
    """`[batch, size]` on the device, once the work is done, where results stay there."""


class DeviceBuffers(NamedTuple):
    """The memory of the device that the network's step reads and writes, at fixed addresses."""

    ring: Tensor
    """`[slots, size]`, samples of frames."""
    colors: Tensor
    """`[slots, NUM_COLORS]` float32."""
    slots: Tensor
    """`[batch, T]` int32, where the frames of each window are; `MISSING` where there is none."""
    out: Tensor
    """`[batch, size]`, restored samples."""
    flags: Tensor
    """`[batch]` int32, not 0 where a residual is not finite."""


class FramePipeline:
    """Frames of one format through a device.

    Args:
        backend: The device.
        form: How the frames lie in its memory.
        frames: T, the input frames of the network.
        make_step: Gives what computes `out` and `flags` from the rest of the buffers.
        batch: Windows at once.
        depth: Batches under way.
        stays: Whether results stay on the device; of semi-planar formats only.

    Raises:
        torch.OutOfMemoryError: The device has too little memory.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        form: FrameFormat,
        frames: int,
        make_step: Callable[[DeviceBuffers], Callable[[], None]],
        *,
        batch: int = 1,
        depth: int = DEPTH,
        stays: bool = False,
    ) -> None:
        self.form, self.batch, self.depth = form, batch, depth
        self.stays = stays
        """Whether results stay on the device where the format allows it."""
        # a window's frames and their copies, those of a batch that is not full, and as many that
        # are going up
        slots = (frames * (1 + MAX_RUN) if frames > 1 else 1) + 2 * batch
        self._ring = UploadRing(backend, form, slots=slots, staging=min(slots, 2 * batch + 2))
        self._results = ResultBuffers(
            backend, form, batch=batch, depth=depth, stays=stays and form.is_semi_planar
        )
        self._buffers = DeviceBuffers(
            ring=self._ring.samples,
            colors=self._ring.colors,
            slots=backend.allocate(batch, frames, dtype=torch.int32),
            out=backend.allocate(batch, form.size, dtype=form.sample_dtype),
            flags=backend.allocate(batch, dtype=torch.int32),
        )
        self._host_slots = backend.pinned(depth, batch, frames, dtype=torch.int32)
        # the last one made: it waits until all of the memory above is filled
        self._compute = backend.queue()
        self._submitted = 0
        self._waiting: list[Restored] = []
        self._running: deque[_Batch] = deque()
        self._last: Restored | None = None
        self._step = make_step(self._buffers)

    def repeat(self, window: FrameWindow) -> Restored | None:
        """Let a frame share the result of the one before.

        Returns:
            What the window's frame shares: it comes out with that, or is to be taken from it where
            it is done; None where the windows differ.
        """
        last = self._last
        if last is None or not window.is_restored_as(last.window):
            return None
        if not last.is_done:
            last.frames.append(window.frame)
        return last

    def push(self, window: FrameWindow) -> list[Restored]:
        """Take the next window, and return the windows that are done, in order.

        Args:
            window: A window whose frames all have this format. Its strength is uploaded with the
                samples.
        """
        restored: list[Restored] = []
        slots: list[int] = []
        for picture in window.images:
            slot = MISSING
            if picture is not None:
                key = picture, window.settings.strength
                known = self._ring.find(key)
                slot = self._ring.free_slot(slots) if known is None else known
                if known is None:
                    if any(slot in each.slots for each in self._waiting):
                        restored += self._submit()  # it is still to be read
                    self._ring.put(slot, key)
            slots.append(slot)
        self._last = Restored(window, slots, [window.frame])
        self._waiting.append(self._last)
        if len(self._waiting) == self.batch:
            restored += self._submit()
        return restored + self._ready()

    def flush(self) -> list[Restored]:
        """Everything that is missing, waited for."""
        restored: list[Restored] = []
        if self._waiting:
            restored += self._submit()
        while self._running:
            restored += self._finish()
        return restored

    def close(self) -> None:
        """Wait until the device is done with the buffers; results are dropped."""
        for batch in self._running:
            batch.done.synchronize()
        self._ring.synchronize()
        self._running.clear()
        self._waiting.clear()

    def _submit(self) -> list[Restored]:
        """Start what waits; first wait for the oldest batch if all buffers are taken."""
        restored = self._finish() if len(self._running) == self.depth else []
        windows, self._waiting = self._waiting, []
        number = self._submitted % self.depth
        self._submitted += 1
        slots = [window.slots for window in windows]
        # a batch that is not full computes its last window again
        slots += slots[-1:] * (self.batch - len(slots))
        self._host_slots[number] = torch.tensor(slots, dtype=torch.int32)
        used = sorted({slot for window in slots for slot in window} - {MISSING})
        self._ring.wait_in(self._compute, used)
        buffers = self._buffers

        def compute() -> None:
            buffers.slots.copy_(self._host_slots[number], non_blocking=True)
            self._step()
            # the step writes to one buffer, which the next one overwrites before this is downloaded
            self._results.keep(number, buffers.out, buffers.flags)

        self._compute.run(compute)
        computed = self._compute.record()
        self._ring.see_read(used, computed)
        done, stayed = self._results.download(number, computed)
        self._running.append(_Batch(number, windows, done, stayed))
        return restored

    def _ready(self) -> list[Restored]:
        restored: list[Restored] = []
        while self._running and self._running[0].done.query():
            restored += self._finish()
        return restored

    def _finish(self) -> list[Restored]:
        """The results of the oldest batch, waited for."""
        batch = self._running.popleft()
        batch.done.synchronize()
        for index, restored in enumerate(batch.windows):
            restored.is_done = True
            is_finite = self._results.is_finite(batch.number, index)
            if is_alone(restored.window.images) or not is_finite:
                continue  # whoever asked is to do it again
            if batch.stayed:
                restored.samples = self.form.planes_in(batch.stayed[0][index])
            else:
                samples = self._results.samples(batch.number, index)
                restored.planes = self.form.unpack(samples, restored.window.frame)
        return batch.windows
