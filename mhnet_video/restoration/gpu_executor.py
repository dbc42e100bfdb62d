"""Restores windows on a GPU: by a pipeline where they fit one, else one by one."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import torch

from mhnet_video.config import Settings
from mhnet_video.engines.triton.engine import Forward, TritonEngine
from mhnet_video.errors import first_line
from mhnet_video.frame import DeviceFrame, Frame, Pair, Plane
from mhnet_video.media.frames.device_frames import on_host, with_planes
from mhnet_video.memory import is_shortage
from mhnet_video.model.align import align_maps
from mhnet_video.restoration.color import keep_boxes
from mhnet_video.restoration.executors import Counts, EnginePool, LaneExecutor
from mhnet_video.restoration.gpu_backend import CudaBackend, DeviceBackend
from mhnet_video.restoration.gpu_layout import FrameFormat, format_of
from mhnet_video.restoration.gpu_pipeline import DeviceBuffers, FramePipeline, Restored
from mhnet_video.restoration.temporal_window import MAX_COPIES, FrameWindow
from mhnet_video.restoration.window_network import WindowNetwork

_log = logging.getLogger(__name__)

MAX_BATCH = 8
"""Windows at once, at most."""
_FULL_PIXELS = 400_000
"""Pixels at the network's resolution that keep a large GPU busy; less of them share a batch."""


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
        self._backend = backend or CudaBackend(engine.map_type.device)
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
        elif len(shared.frames) > MAX_COPIES:
            # a picture that stands still must not wait for others that fill its batch
            yield from self._pairs(pipeline.flush())

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
