"""Frames through a GPU: upload, network and download overlap, on three queues ordered by events.

A frame's samples go into a pinned buffer, from there into a slot of a ring on the device, once
whatever the length of the window; the network reads the ring and writes restored samples; these
come back into a pinned buffer. No step waits for another frame's: the processor only waits where
all buffers are taken, which is also what holds the reader back.
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from mhnet_video.align import align_maps, is_alone, window_of
from mhnet_video.cuda_engine import Forward, TritonEngine
from mhnet_video.cuda_frames import MISSING, NUM_COLORS, FrameFormat, colors_of, format_of
from mhnet_video.errors import first_line
from mhnet_video.frame import DeviceFrame, Frame, Plane
from mhnet_video.hardware import with_planes
from mhnet_video.memory import is_shortage
from mhnet_video.neighbours import MAX_COPIES, MAX_RUN, Neighbours, Step, with_steps

T = TypeVar("T")

_log = logging.getLogger(__name__)

DEPTH = 3
"""Batches under way: one going up or down, one in work, one being packed or unpacked."""
MAX_BATCH = 8
_FULL_PIXELS = 400_000
"""Pixels at the network's resolution that keep a large GPU busy; less of them share a batch."""


class Event(Protocol):
    """A point in a queue's work."""

    def query(self) -> bool:
        """Whether the work up to there is done."""

    def synchronize(self) -> None:
        """Wait until it is."""


class Queue(Protocol):
    """Work of a device that is done in order, at some time."""

    def run(self, work: Callable[[], None]) -> None:
        """Add work."""

    def wait(self, event: Any) -> None:
        """Let what is added from now on wait for another queue's work."""

    def wait_for_decoder(self) -> None:
        """Let what is added from now on wait for all that decoders have begun to write."""

    def record(self) -> Event:
        """The point behind what has been added."""


class Machine(Protocol):
    """A device with queues, and memory on both sides of the bus."""

    def pinned(self, *size: int, kind: torch.dtype) -> Tensor:
        """Memory of the host that the device can read and write by itself."""

    def room(self, *size: int, kind: torch.dtype) -> Tensor:
        """Memory of the device."""

    def queue(self) -> Queue:
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

    def record(self) -> Event:
        event: Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)  # type: ignore[attr-defined]
        return event


class CudaMachine:
    """A CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def pinned(self, *size: int, kind: torch.dtype) -> Tensor:
        """Memory of the host that the device can read and write by itself."""
        with torch.cuda.device(self.device):  # or another one would get a context for it
            return torch.zeros(size, dtype=kind, pin_memory=True)

    def room(self, *size: int, kind: torch.dtype) -> Tensor:
        """Memory of the device."""
        return torch.zeros(size, dtype=kind, device=self.device)

    def queue(self) -> Queue:
        """Another queue."""
        return _CudaQueue(self.device)


class Restored(NamedTuple):
    """A frame that has been through the network."""

    frames: list[Frame]
    """The frame, and those behind it that repeat it."""
    window: list[Frame | None]
    """The frames that the network saw, this one in the middle; None where there was none."""
    planes: tuple[Plane, ...] | None
    """Its new samples; None where they are on the device, the network gave no finite numbers, or
    the frame has no neighbours: a picture is looked at several times, no matter of streams."""
    samples: tuple[Tensor, Tensor] | None = None
    """Its new samples on the device, luma and chroma."""


@dataclass
class _Item:
    """A frame in the ring, and those that repeat it."""

    frames: list[Frame]
    slot: int
    picture: int
    """The same for frames that repeat one another, where there are too many to wait."""


@dataclass
class _Batch:
    """What is under way."""

    number: int
    windows: list[list[_Item | None]]
    done: Event
    samples: list[Tensor] = field(default_factory=list)
    """`[batch, size]` on the device, once the work is done, where results stay there."""


class Room(NamedTuple):
    """The memory of the device that the network's step reads and writes, at fixed places."""

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
        machine: The device.
        form: How the frames lie in its memory.
        frames: T, how many the network looks at.
        strength: Share of the restoration that is applied.
        make_step: Gives what computes `out` and `flags` from the rest of the room.
        batch: Windows at once.
        depth: Batches under way.
        stays: Whether results stay on the device; of semi-planar formats only.

    Raises:
        torch.OutOfMemoryError: The device has too little memory.
    """

    def __init__(
        self,
        machine: Machine,
        form: FrameFormat,
        frames: int,
        strength: float,
        make_step: Callable[[Room], Callable[[], None]],
        *,
        batch: int = 1,
        depth: int = DEPTH,
        stays: bool = False,
    ) -> None:
        self.form, self.batch, self.depth = form, batch, depth
        self._stays = stays and form.is_semi_planar
        self._strength, self._frames = strength, frames
        samples, size = form.kind_of_samples, form.size
        # a window's frames and their copies, those of a batch that is not full, and as many that
        # are going up
        slots = (frames * (1 + MAX_RUN) if frames > 1 else 1) + 2 * batch
        self._room = Room(
            ring=machine.room(slots, size, kind=samples),
            colors=machine.room(slots, NUM_COLORS, kind=torch.float32),
            slots=machine.room(batch, frames, kind=torch.int32),
            out=machine.room(batch, size, kind=samples),
            flags=machine.room(batch, kind=torch.int32),
        )
        self._results = machine.room(depth, batch, size, kind=samples)
        self._result_flags = machine.room(depth, batch, kind=torch.int32)
        # frames stay there only until they are up; what a GPU has decoded is there already
        staging = min(slots, 2 * batch + 2)
        self._host_ring = machine.pinned(0 if form.is_semi_planar else staging, size, kind=samples)
        self._host_colors = machine.pinned(staging, NUM_COLORS, kind=torch.float32)
        self._host_slots = machine.pinned(depth, batch, frames, kind=torch.int32)
        self._host_results = machine.pinned(0 if self._stays else depth, batch, size, kind=samples)
        self._host_flags = machine.pinned(depth, batch, kind=torch.int32)
        self._upload, self._compute, self._download = (machine.queue() for _ in range(3))
        self._staged: list[Event | None] = [None] * staging
        self._uploaded: list[Event | None] = [None] * slots
        self._used: list[Event | None] = [None] * slots
        self._neighbours: Neighbours[_Item] = Neighbours(frames)
        self._pushed = self._pictures = self._submitted = 0
        self._waiting: list[list[_Item | None]] = []
        self._running: deque[_Batch] = deque()
        self._step = make_step(self._room)

    def push_copy(self, frame: Frame) -> bool:
        """Take a frame that repeats the one before; it comes out with that one.

        A copy is no neighbour: it would tell the network that the rain stands still.

        Returns:
            Whether it was taken; it is not where the frame before has gone on already, or has many
            copies.
        """
        last = self._neighbours.last
        if self._frames == 1 or last is None or len(last.frames) >= MAX_COPIES:
            return False
        last.frames.append(frame)
        return True

    def push(
        self, frame: Frame, step: Step = Step.NEXT, *, is_equal: bool = False
    ) -> list[Restored]:
        """Take the next frame; what is done by now, in order.

        Args:
            frame: Of this format.
            step: What it is to the one before; what repeats it to the bit is none of its copies.
            is_equal: Whether it is the one before again, which had too many copies already.
        """
        slot, stage = self._pushed % len(self._uploaded), self._pushed % len(self._staged)
        self._pushed += 1
        earlier = self._staged[stage]
        if earlier is not None:
            earlier.synchronize()  # the pinned buffer may still be on its way
        if isinstance(frame, DeviceFrame):
            self._upload.wait_for_decoder()
        else:
            self.form.pack(frame, self._host_ring[stage].numpy())
        self._host_colors[stage] = torch.from_numpy(colors_of(frame, self._strength))
        user = self._used[slot]
        if user is not None:
            self._upload.wait(user)  # a window that has not been read yet
        room = self._room

        def upload() -> None:
            if isinstance(frame, DeviceFrame):
                self.form.place(frame, room.ring[slot])
            else:
                room.ring[slot].copy_(self._host_ring[stage], non_blocking=True)
            room.colors[slot].copy_(self._host_colors[stage], non_blocking=True)

        self._upload.run(upload)
        self._staged[stage] = self._uploaded[slot] = self._upload.record()
        restored: list[Restored] = []
        self._pictures += not is_equal
        item = _Item([frame], slot, self._pictures)
        for window in self._neighbours.push(item, step):
            self._waiting.append(window_of(window, _is_same))
            if len(self._waiting) == self.batch:
                restored += self._submit()
        return restored + self._ready()

    def flush(self) -> list[Restored]:
        """End the run: everything that is missing, waited for."""
        restored: list[Restored] = []
        for window in self._neighbours.flush():
            self._waiting.append(window_of(window, _is_same))
            if len(self._waiting) == self.batch:
                restored += self._submit()
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
        slots = [[MISSING if item is None else item.slot for item in window] for window in windows]
        # a batch that is not full computes its last window again
        slots += slots[-1:] * (self.batch - len(slots))
        self._host_slots[number] = torch.tensor(slots, dtype=torch.int32)
        used = sorted({slot for window in slots for slot in window} - {MISSING})
        for slot in used:
            self._compute.wait(self._uploaded[slot])
        room = self._room

        def compute() -> None:
            room.slots.copy_(self._host_slots[number], non_blocking=True)
            self._step()
            # the step writes to one place, which the next one needs before this has gone down
            self._results[number].copy_(room.out)
            self._result_flags[number].copy_(room.flags)

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
        restored = []
        for index, window in enumerate(batch.windows):
            middle = cast(_Item, window[len(window) // 2])
            planes, samples = None, None
            if is_alone(window) or int(self._host_flags[batch.number, index]) != 0:
                pass  # whoever asked is to do it again
            elif self._stays:
                samples = self.form.planes_in(batch.samples[0][index])
            else:
                room = self._host_results[batch.number, index].numpy()
                planes = self.form.unpack(room, middle.frames[0])
            seen = [None if item is None else item.frames[0] for item in window]
            restored.append(Restored(middle.frames, seen, planes, samples))
        return restored


def _is_same(a: _Item, b: _Item) -> bool:
    return a.picture == b.picture


def network_step(engine: TritonEngine, form: FrameFormat, room: Room) -> Callable[[], None]:
    """The way from the samples of a ring to restored ones: on CUDA, one graph.

    Raises:
        torch.OutOfMemoryError: The buffers do not fit.
    """
    with torch.inference_mode():
        plan = engine.plan(room.slots.shape[0], *form.shown)
        height, width = form.shown
        residual = plan.residual[:, :, :height, :width]
        patch, frames = engine.config.patch, engine.config.frames
        aligns = engine.config.align and frames > 1
        seen = torch.empty_like(plan.input) if aligns else plan.input

        def before() -> None:
            form.read(room.ring, room.slots, room.colors, seen, patch)
            if aligns:
                align_maps(seen, frames, patch, plan.input)

        def after() -> None:
            form.apply(room.ring, room.slots, room.colors, residual, room.out, room.flags)

        return Forward(plan, before, after).run


def batch_of(form: FrameFormat, patch: int) -> int:
    """How many windows fill a GPU that one does not."""
    pixels = form.height * form.width // patch**2
    batch = 1
    while batch < MAX_BATCH and batch * pixels < _FULL_PIXELS:
        batch *= 2
    return batch


class PipedFrames:
    """A stream of frames of any formats through an engine.

    Args:
        engine: The network.
        strength: Share of the restoration that is applied.
        finish: Makes the frame from the source's and its new planes.
        again: Restores the middle frame of a window in float32, where numbers came out that are
            not finite, or it has no neighbours.
        plain: Restores a stream without a pipeline, where the memory does not suffice for one.
        fail: Called ahead of `plain` where the engine cannot run at all.
        is_copy: Whether a frame repeats the one before it.
        machine: The device; the engine's if None.
        is_live: Whether frames are wanted as soon as can be: then they share no batch.
        stays: Whether frames that a GPU has decoded are to come out in its memory too.
    """

    def __init__(
        self,
        engine: TritonEngine,
        strength: float,
        *,
        finish: Callable[[Frame, tuple[Plane, ...]], Frame],
        again: Callable[[Sequence[Frame | None]], Frame],
        plain: Callable[[Iterable[Any]], Iterator[Any]],
        fail: Callable[[], None],
        is_copy: Callable[[Frame, Frame], bool],
        machine: Machine | None = None,
        is_live: bool = False,
        stays: bool = False,
    ) -> None:
        self._stays = stays
        self._engine, self._strength = engine, strength
        self._finish, self._again = finish, again
        self._plain, self._fail, self._is_copy = plain, fail, is_copy
        self._machine = machine or CudaMachine(engine.kind.device)
        self._most = 1 if is_live else MAX_BATCH
        self.repeated = 0
        """Frames that took the result of the one before."""

    def stream(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """Restore frames in order, one out for each one in; other items pass through at once.

        A frame comes out when its neighbours are known and the device is done with it, but at the
        latest when `DEPTH` batches are waiting.
        """
        pipeline: FramePipeline | None = None
        before: Frame | None = None
        iterator = with_steps(items)
        try:
            for item, step in iterator:
                if not isinstance(item, Frame):
                    yield item
                    continue
                if pipeline is None or format_of(item) != pipeline.form:
                    if pipeline is not None:
                        yield from self._frames_of(pipeline.flush())
                    pipeline, before = None, None  # its memory first
                    pipeline = self._pipeline(format_of(item))
                    if pipeline is None:
                        rest = (each for each, _ in iterator)
                        yield from self._plain(itertools.chain([item], rest))
                        return
                is_equal = before is not None and self._is_copy(before, item)
                before = item
                if not (is_equal and pipeline.push_copy(item)):
                    yield from self._frames_of(
                        pipeline.push(item, Step.NEXT if is_equal else step, is_equal=is_equal)
                    )
            if pipeline is not None:
                yield from self._frames_of(pipeline.flush())
        finally:
            if pipeline is not None:
                pipeline.close()

    def _frames_of(self, results: Sequence[Restored]) -> Iterator[Frame]:
        for result in results:
            if result.samples is not None:
                luma, chroma = result.samples
                for frame in result.frames:
                    yield replace(cast(DeviceFrame, frame), luma=luma, chroma=chroma)
            elif result.planes is None:
                # a copy's own time is all that it has for itself
                planes = self._again(result.window).planes
                yield from (with_planes(frame, planes) for frame in result.frames)
            else:
                for frame in result.frames:
                    yield self._finish(frame, result.planes)
            self.repeated += len(result.frames) - 1

    def _pipeline(self, form: FrameFormat) -> FramePipeline | None:
        """A pipeline as large as the memory allows; None if there is too little for any."""
        batch = min(self._most, batch_of(form, self._engine.config.patch))
        while True:
            try:
                return FramePipeline(
                    self._machine,
                    form,
                    self._engine.config.frames,
                    self._strength,
                    lambda room: network_step(self._engine, form, room),
                    batch=batch,
                    stays=self._stays,
                )
            except Exception as error:
                said, is_full = first_line(error), is_shortage(error)
            # only now nothing holds what was made until then
            self._engine.release()
            if not is_full:
                _log.warning(
                    "the GPU's kernels fail for pictures of %dx%d (%s): PyTorch restores them",
                    form.width,
                    form.height,
                    said,
                )
                self._fail()
                return None
            if batch == 1:
                _log.warning(
                    "the GPU's memory does not hold pictures of %dx%d: they are restored in tiles",
                    form.width,
                    form.height,
                )
                return None
            batch //= 2
            self._most = batch
            _log.warning("the GPU's memory holds %d pictures at once, not more", batch)
