"""The memory through which frames go up to a device and come back, ordered by events.

What another queue reads or writes is guarded by the event behind that work, so that no step waits
for more than it needs.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.frame import DeviceFrame
from mhnet_video.restoration.gpu_backend import DeviceBackend, DeviceEvent, DeviceQueue
from mhnet_video.restoration.gpu_layout import NUM_COLORS, FrameFormat, colors_of
from mhnet_video.restoration.temporal_window import NetworkImage

ImageKey = tuple[NetworkImage, float]
"""A picture, and the strength that goes up with its samples."""


@dataclass
class _Slot:
    """What is in a slot of the ring, and the work that must be done before it is used."""

    key: ImageKey | None = None
    uploaded: DeviceEvent | None = None
    """Behind its upload."""
    read: DeviceEvent | None = None
    """Behind the last window that reads it."""


class UploadRing:
    """Samples of frames on the device; each is uploaded once, however many windows see it.

    Args:
        backend: The device.
        form: How the frames lie in its memory.
        slots: Frames on the device.
        staging: Frames on their way there; what a GPU has decoded is there already.
    """

    def __init__(
        self, backend: DeviceBackend, form: FrameFormat, *, slots: int, staging: int
    ) -> None:
        self._form = form
        samples, size = form.sample_dtype, form.size
        self.samples = backend.allocate(slots, size, dtype=samples)
        """`[slots, size]`."""
        self.colors = backend.allocate(slots, NUM_COLORS, dtype=torch.float32)
        """`[slots, NUM_COLORS]` float32."""
        self._host_samples = backend.pinned(
            0 if form.is_semi_planar else staging, size, dtype=samples
        )
        self._host_colors = backend.pinned(staging, NUM_COLORS, dtype=torch.float32)
        self._queue = backend.queue()
        self._staged: list[DeviceEvent | None] = [None] * staging
        self._slots = [_Slot() for _ in range(slots)]
        self._slot_of: dict[ImageKey, int] = {}
        self._count = 0

    def find(self, key: ImageKey) -> int | None:
        """The slot of a picture that is in the ring; None if it is not."""
        return self._slot_of.get(key)

    def free_slot(self, taken: Collection[int]) -> int:
        """The slot that was filled longest ago and is not taken."""
        while (slot := self._count % len(self._slots)) in taken:
            self._count += 1
        return slot

    def put(self, number: int, key: ImageKey) -> None:
        """Start the upload of a picture into a slot, after the windows that still read it."""
        stage = self._count % len(self._staged)
        self._count += 1
        slot = self._slots[number]
        if slot.key is not None:
            del self._slot_of[slot.key]
        slot.key, self._slot_of[key] = key, number
        picture, strength = key
        frame = picture.frame
        earlier = self._staged[stage]
        if earlier is not None:
            earlier.synchronize()  # the pinned buffer may still be on its way
        if isinstance(frame, DeviceFrame):
            self._queue.wait_for_decoder()
        else:
            self._form.pack(frame, self._host_samples[stage].numpy())
        self._host_colors[stage] = torch.from_numpy(colors_of(frame, strength))
        if slot.read is not None:
            self._queue.wait(slot.read)

        def upload() -> None:
            if isinstance(frame, DeviceFrame):
                self._form.place(frame, self.samples[number])
            else:
                self.samples[number].copy_(self._host_samples[stage], non_blocking=True)
            self.colors[number].copy_(self._host_colors[stage], non_blocking=True)

        self._queue.run(upload)
        self._staged[stage] = slot.uploaded = self._queue.record()

    def wait_in(self, queue: DeviceQueue, numbers: Collection[int]) -> None:
        """Let what is added to a queue from now on wait for the uploads of slots."""
        for number in numbers:
            queue.wait(self._slots[number].uploaded)

    def see_read(self, numbers: Collection[int], event: DeviceEvent) -> None:
        """Note the event behind the work that reads slots."""
        for number in numbers:
            self._slots[number].read = event

    def synchronize(self) -> None:
        """Wait until all uploads are done."""
        for slot in self._slots:
            if slot.uploaded is not None:
                slot.uploaded.synchronize()


class ResultBuffers:
    """Results of batches on their way back, or in the device's memory where they stay there.

    Args:
        backend: The device.
        form: How the frames lie in its memory.
        batch: Windows at once.
        depth: Batches under way.
        stays: Whether samples stay on the device.
    """

    def __init__(
        self, backend: DeviceBackend, form: FrameFormat, *, batch: int, depth: int, stays: bool
    ) -> None:
        samples, size = form.sample_dtype, form.size
        self._stays = stays
        self._results = backend.allocate(depth, batch, size, dtype=samples)
        self._flags = backend.allocate(depth, batch, dtype=torch.int32)
        self._host_results = backend.pinned(0 if stays else depth, batch, size, dtype=samples)
        self._host_flags = backend.pinned(depth, batch, dtype=torch.int32)
        self._queue = backend.queue()

    def keep(self, number: int, samples: Tensor, flags: Tensor) -> None:
        """Copy a batch's results, on the queue that computes, before they are overwritten."""
        self._results[number].copy_(samples)
        self._flags[number].copy_(flags)

    def download(self, number: int, computed: DeviceEvent) -> tuple[DeviceEvent, list[Tensor]]:
        """Start the download of a batch once it is computed.

        Returns:
            The event behind it, and a list that has `[batch, size]` by then where samples stay.
        """
        stayed: list[Tensor] = []

        def download() -> None:
            if self._stays:
                stayed.append(self._results[number].clone())
            else:
                self._host_results[number].copy_(self._results[number], non_blocking=True)
            self._host_flags[number].copy_(self._flags[number], non_blocking=True)

        self._queue.wait(computed)
        self._queue.run(download)
        return self._queue.record(), stayed

    def is_finite(self, number: int, index: int) -> bool:
        """Whether a window's residual was finite, once its batch is downloaded."""
        return int(self._host_flags[number, index]) == 0

    def samples(self, number: int, index: int) -> NDArray[np.generic]:
        """A window's samples on the host, until the buffer's next batch."""
        return self._host_results[number, index].numpy()
