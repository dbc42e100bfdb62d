"""Frames through a GPU: upload, network and download overlap, on three queues ordered by events.

A frame's samples go into a pinned buffer, from there into a slot of a ring on the device, once
whatever the length of the window; the network reads the ring and writes restored samples; these
come back into a pinned buffer. No step waits for another frame's: the processor only waits where
all buffers are taken, which is also what holds the reader back.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from mhnet_video.config import Settings
from mhnet_video.engines.triton.engine import Forward, TritonEngine
from mhnet_video.errors import first_line
from mhnet_video.frame import DeviceFrame, Frame, Pair, Plane
from mhnet_video.media.device_frames import on_host, with_planes
from mhnet_video.memory import is_shortage
from mhnet_video.model.align import align_maps
from mhnet_video.model.window import is_alone
from mhnet_video.restoration.color import keep_boxes
from mhnet_video.restoration.executors import Counts, EnginePool, LaneExecutor
from mhnet_video.restoration.gpu_layout import (
    MISSING,
    NUM_COLORS,
    FrameFormat,
    colors_of,
    format_of,
)
from mhnet_video.restoration.scene_changes import MAX_RUN
from mhnet_video.restoration.temporal_window import FrameWindow, NetworkImage
from mhnet_video.restoration.window_network import WindowNetwork

_log = logging.getLogger(__name__)

DEPTH = 3
"""Batches under way: one going up or down, one in work, one being packed or unpacked."""
MAX_BATCH = 8
_FULL_PIXELS = 400_000
"""Pixels at the network's resolution that keep a large GPU busy; less of them share a batch."""


class DeviceEvent(Protocol):
    """A point in a queue's work."""

    def query(self) -> bool:
        """Whether the work up to there is done."""

    def synchronize(self) -> None:
        """Wait until it is."""


class DeviceQueue(Protocol):
    """Work of a device that is done in order, at some time."""

    def run(self, work: Callable[[], None]) -> None:
        """Add work."""

    def wait(self, event: Any) -> None:
        """Let what is added from now on wait for another queue's work."""

    def wait_for_decoder(self) -> None:
        """Let what is added from now on wait for all that decoders have begun to write."""

    def record(self) -> DeviceEvent:
        """The point behind what has been added."""


class DeviceBackend(Protocol):
    """A device with queues, and memory on both sides of the bus."""

    def pinned(self, *size: int, kind: torch.dtype) -> Tensor:
        """Memory of the host that the device can read and write by itself."""

    def allocate(self, *size: int, kind: torch.dtype) -> Tensor:
        """Memory of the device."""

    def queue(self) -> DeviceQueue:
        """Another queue."""


class _CudaQueue:
    """A CUDA stream."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # memory that was made until now is filled on another one
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def run(self, work: Callable[[], None]) -> None:
        with torch.cuda.stream(self._stream), torch.inference_mode():
            work()

    def wait(self, event: Any) -> None:
        self._stream.wait_event(event)

    def wait_for_decoder(self) -> None:
        # FFmpeg fills its pictures on the context's own stream, which is PyTorch's default one
        self._stream.wait_stream(torch.cuda.default_stream(self._stream.device))

    def record(self) -> DeviceEvent:
        event: DeviceEvent = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)  # type: ignore[attr-defined]
        return event


class CudaBackend:
    """A CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def pinned(self, *size: int, kind: torch.dtype) -> Tensor:
        """Memory of the host that the device can read and write by itself."""
        with torch.cuda.device(self.device):  # or another one would get a context for it
            return torch.zeros(size, dtype=kind, pin_memory=True)

    def allocate(self, *size: int, kind: torch.dtype) -> Tensor:
        """Memory of the device."""
        return torch.zeros(size, dtype=kind, device=self.device)

    def queue(self) -> DeviceQueue:
        """Another queue."""
        return _CudaQueue(self.device)


@dataclass(eq=False)
class Restored:
    """A window on its way through the device, and what came of it."""

    window: FrameWindow
    slots: list[int]
    """Where its pictures are in the ring; `MISSING` where there is none."""
    frames: list[Frame]
    """Its frame, and those behind it that are restored as it is."""
    is_done: bool = False
    """Whether the device is done with it."""
    planes: tuple[Plane, ...] | None = None
    """The frame's new samples; None where they are on the device, the network gave no finite
    numbers, or the frame has no neighbours: the self-ensemble that such a one needs is not made
    here."""
    samples: tuple[Tensor, Tensor] | None = None
    """The frame's new samples on the device, luma and chroma."""


@dataclass
class _Batch:
    """What is under way."""

    number: int
    windows: list[Restored]
    done: DeviceEvent
    samples: list[Tensor] = field(default_factory=list)
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
        self._stays = stays and form.is_semi_planar
        samples, size = form.kind_of_samples, form.size
        # a window's frames and their copies, those of a batch that is not full, and as many that
        # are going up
        slots = (frames * (1 + MAX_RUN) if frames > 1 else 1) + 2 * batch
        self._buffers = DeviceBuffers(
            ring=backend.allocate(slots, size, kind=samples),
            colors=backend.allocate(slots, NUM_COLORS, kind=torch.float32),
            slots=backend.allocate(batch, frames, kind=torch.int32),
            out=backend.allocate(batch, size, kind=samples),
            flags=backend.allocate(batch, kind=torch.int32),
        )
        self._results = backend.allocate(depth, batch, size, kind=samples)
        self._result_flags = backend.allocate(depth, batch, kind=torch.int32)
        # frames stay there only until they are up; what a GPU has decoded is there already
        staging = min(slots, 2 * batch + 2)
        self._host_ring = backend.pinned(0 if form.is_semi_planar else staging, size, kind=samples)
        self._host_colors = backend.pinned(staging, NUM_COLORS, kind=torch.float32)
        self._host_slots = backend.pinned(depth, batch, frames, kind=torch.int32)
        self._host_results = backend.pinned(0 if self._stays else depth, batch, size, kind=samples)
        self._host_flags = backend.pinned(depth, batch, kind=torch.int32)
        self._upload, self._compute, self._download = (backend.queue() for _ in range(3))
        self._staged: list[DeviceEvent | None] = [None] * staging
        self._uploaded: list[DeviceEvent | None] = [None] * slots
        self._used: list[DeviceEvent | None] = [None] * slots
        # the pictures whose samples are in the ring, and the strength that went up with them
        self._slots: dict[tuple[NetworkImage, float], int] = {}
        self._held: list[tuple[NetworkImage, float] | None] = [None] * slots
        self._uploads = self._submitted = 0
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
        """Take the next window; what is done by now, in order.

        Args:
            window: Its pictures are all of this format. Its strength goes up with the samples.
        """
        restored: list[Restored] = []
        slots: list[int] = []
        for picture in window.images:
            slot = MISSING
            if picture is not None:
                key = picture, window.settings.strength
                known = self._slots.get(key)
                slot = self._free_slot(slots) if known is None else known
                if known is None:
                    if any(slot in each.slots for each in self._waiting):
                        restored += self._submit()  # it is still to be read
                    self._put(slot, key)
            slots.append(slot)
        self._last = Restored(window, slots, [window.frame])
        self._waiting.append(self._last)
        if len(self._waiting) == self.batch:
            restored += self._submit()
        return restored + self._ready()

    def _free_slot(self, taken: list[int]) -> int:
        """The slot that was filled longest ago and is not one of this window's."""
        while (slot := self._uploads % len(self._held)) in taken:
            self._uploads += 1
        return slot

    def _put(self, slot: int, key: tuple[NetworkImage, float]) -> None:
        """Start the upload of a picture into a slot of the ring."""
        stage = self._uploads % len(self._staged)
        self._uploads += 1
        old = self._held[slot]
        if old is not None:
            del self._slots[old]
        self._held[slot], self._slots[key] = key, slot
        picture, strength = key
        frame = picture.frame
        earlier = self._staged[stage]
        if earlier is not None:
            earlier.synchronize()  # the pinned buffer may still be on its way
        if isinstance(frame, DeviceFrame):
            self._upload.wait_for_decoder()
        else:
            self.form.pack(frame, self._host_ring[stage].numpy())
        self._host_colors[stage] = torch.from_numpy(colors_of(frame, strength))
        user = self._used[slot]
        if user is not None:
            self._upload.wait(user)  # a window that has not been read yet
        buffers = self._buffers

        def upload() -> None:
            if isinstance(frame, DeviceFrame):
                self.form.place(frame, buffers.ring[slot])
            else:
                buffers.ring[slot].copy_(self._host_ring[stage], non_blocking=True)
            buffers.colors[slot].copy_(self._host_colors[stage], non_blocking=True)

        self._upload.run(upload)
        self._staged[stage] = self._uploaded[slot] = self._upload.record()

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
        for event in self._uploaded:
            if event is not None:
                event.synchronize()
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
        for slot in used:
            self._compute.wait(self._uploaded[slot])
        buffers = self._buffers

        def compute() -> None:
            buffers.slots.copy_(self._host_slots[number], non_blocking=True)
            self._step()
            # the step writes to one buffer, which the next one overwrites before this is downloaded
            self._results[number].copy_(buffers.out)
            self._result_flags[number].copy_(buffers.flags)

        samples: list[Tensor] = []

        def download() -> None:
            if self._stays:
                samples.append(self._results[number].clone())
            else:
                self._host_results[number].copy_(self._results[number], non_blocking=True)
            self._host_flags[number].copy_(self._result_flags[number], non_blocking=True)

        self._compute.run(compute)
        computed = self._compute.record()
        for slot in used:
            self._used[slot] = computed
        self._download.wait(computed)
        self._download.run(download)
        self._running.append(_Batch(number, windows, self._download.record(), samples))
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
            is_finite = int(self._host_flags[batch.number, index]) == 0
            if is_alone(restored.window.images) or not is_finite:
                continue  # whoever asked is to do it again
            if self._stays:
                restored.samples = self.form.planes_in(batch.samples[0][index])
            else:
                samples = self._host_results[batch.number, index].numpy()
                restored.planes = self.form.unpack(samples, restored.window.frame)
        return batch.windows


def network_step(
    engine: TritonEngine, form: FrameFormat, buffers: DeviceBuffers
) -> Callable[[], None]:
    """The way from the samples of a ring to restored ones: on CUDA, one graph.

    Raises:
        torch.OutOfMemoryError: The buffers do not fit.
    """
    with torch.inference_mode():
        graph = engine.graph(buffers.slots.shape[0], *form.shown)
        height, width = form.shown
        residual = graph.residual[:, :, :height, :width]
        patch, frames = engine.config.patch, engine.config.frames
        aligns = engine.config.align and frames > 1
        seen = torch.empty_like(graph.input) if aligns else graph.input

        def before() -> None:
            form.read(buffers.ring, buffers.slots, buffers.colors, seen, patch)
            if aligns:
                align_maps(seen, frames, patch, graph.input)

        def after() -> None:
            form.apply(
                buffers.ring, buffers.slots, buffers.colors, residual, buffers.out, buffers.flags
            )

        return Forward(graph, before, after).run


def batch_of(form: FrameFormat, patch: int) -> int:
    """How many windows fill a GPU that one does not."""
    pixels = form.height * form.width // patch**2
    batch = 1
    while batch < MAX_BATCH and batch * pixels < _FULL_PIXELS:
        batch *= 2
    return batch


class GpuExecutor:
    """Restores windows by an engine on a GPU; uploads, network and downloads overlap.

    Windows that do not fit a pipeline (a scale below 1, frames of several formats) are restored one
    by one. Where the memory does not suffice for a pipeline, all are from then on, in tiles; and by
    PyTorch where the engine's kernels fail. The log says so.

    Args:
        engine: The engine.
        network: The network, for what the pipeline does not restore.
        backend: The device; the engine's if None.
        stays: Whether frames that a GPU has decoded are to come out in its memory too. Not those
            with boxes to keep, which are put back on the host.
    """

    def __init__(
        self,
        engine: TritonEngine,
        network: WindowNetwork,
        *,
        backend: DeviceBackend | None = None,
        stays: bool = False,
    ) -> None:
        self.counts = Counts()
        self.has_failed = False
        """Whether the engine's kernels have failed, so that PyTorch runs the network."""
        self._engine = engine
        self._network = network
        self._backend = backend or CudaBackend(engine.kind.device)
        self._most = MAX_BATCH
        self._stays = stays
        self._pipeline: FramePipeline | None = None
        self._is_given_up = False
        self._one_by_one = LaneExecutor(network, EnginePool(engine), self.counts)

    def push(self, window: FrameWindow) -> Iterator[Pair]:
        """Take the next window; yield the pairs that are done."""
        pipeline = None
        if not self._is_given_up and _is_uniform(window):
            form, stays = format_of(window.frame), self._stays and not window.settings.keep
            pipeline = self._pipeline
            if pipeline is None or (pipeline.form, pipeline.stays) != (form, stays):
                yield from self._end_pipeline()
                pipeline = self._pipeline = self._new_pipeline(form, stays)
        if pipeline is None:
            yield from self._end_pipeline()
            yield from self._one_by_one.push(window)
            yield from self._one_by_one.flush()
            return
        shared = pipeline.repeat(window)
        if shared is None:
            yield from self._pairs(pipeline.push(window))
        elif shared.is_done:
            self.counts.repeated += 1
            yield from self._pairs_of(shared, [window.frame])

    def flush(self) -> Iterator[Pair]:
        """The pairs of all frames in flight."""
        if self._pipeline is not None:
            yield from self._pairs(self._pipeline.flush())

    def close(self) -> None:
        """Wait until the device is done with the buffers; results are dropped."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None
        self._one_by_one.close()

    def _end_pipeline(self) -> Iterator[Pair]:
        """Finish what is in the pipeline, and give back its memory."""
        if self._pipeline is not None:
            yield from self._pairs(self._pipeline.flush())
            self._pipeline.close()
            self._pipeline = None

    def _pairs(self, results: list[Restored]) -> Iterator[Pair]:
        for result in results:
            yield from self._pairs_of(result, result.frames)
            self.counts.repeated += len(result.frames) - 1

    def _pairs_of(self, result: Restored, frames: list[Frame]) -> Iterator[Pair]:
        if result.samples is not None:
            luma, chroma = result.samples
            for frame in frames:
                yield Pair(frame, replace(cast(DeviceFrame, frame), luma=luma, chroma=chroma))
            return
        if result.planes is None:
            result.planes = self._exact_planes(result)
        for frame in frames:
            if result.planes is None:
                self.counts.passed_through += 1
                yield Pair(frame, frame)
            else:
                yield Pair(frame, _finished(frame, result.planes, result.window.settings))

    def _exact_planes(self, result: Restored) -> tuple[Plane, ...] | None:
        """The planes of a frame in float32, by the self-ensemble where it has no neighbours."""
        seen = self._network.prepare(result.window)
        return self._network.planes(self._network.exact_engine(), result.window, seen)

    def _new_pipeline(self, form: FrameFormat, stays: bool) -> FramePipeline | None:
        """A pipeline as large as the memory allows; None if there is too little for any."""
        batch = min(self._most, batch_of(form, self._engine.config.patch))
        while True:
            try:
                return FramePipeline(
                    self._backend,
                    form,
                    self._engine.config.frames,
                    lambda buffers: network_step(self._engine, form, buffers),
                    batch=batch,
                    stays=stays,
                )
            except Exception as error:
                said, is_full = first_line(error), is_shortage(error)
            # only now nothing holds what was made until then
            self._engine.release()
            size = f"{form.width}x{form.height}"
            if not is_full:
                _log.warning(
                    "the GPU's kernels fail for pictures of %s (%s): PyTorch restores them",
                    size,
                    said,
                )
                self._is_given_up = self.has_failed = True
                pool = EnginePool(self._network.exact_engine())
                self._one_by_one = LaneExecutor(self._network, pool, self.counts)
                return None
            if batch == 1:
                _log.warning(
                    "the GPU's memory does not hold pictures of %s: they are restored in tiles",
                    size,
                )
                self._is_given_up = True
                return None
            batch //= 2
            self._most = batch
            _log.warning("the GPU's memory holds %d pictures at once, not more", batch)


def _is_uniform(window: FrameWindow) -> bool:
    """Whether a window can be read from one ring: full scale, and one format."""
    form = format_of(window.frame)
    return all(
        each is None or (each.scale == 1 and format_of(each.frame) == form)
        for each in window.images
    )


def _finished(frame: Frame, planes: tuple[Plane, ...], settings: Settings) -> Frame:
    """A frame with the planes that came from the GPU."""
    # alpha is the source's own, and stays
    if settings.keep:
        frame = on_host(frame)
        keep_boxes(frame, planes[: len(planes) - frame.layout.has_alpha], settings.keep)
    return with_planes(frame, planes)
