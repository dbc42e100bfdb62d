"""One network on a device, with its engine: what restores the frames of a clip once."""

import copy
from collections.abc import Sequence
from typing import cast

import torch

from mhnet_video.config import Settings
from mhnet_video.engines.base import Engine, TorchEngine
from mhnet_video.engines.select import SelectedEngine, resolve_engine
from mhnet_video.errors import ConfigError
from mhnet_video.frame import Frame
from mhnet_video.model.network import MHNet
from mhnet_video.restoration.dry_look import DryLook
from mhnet_video.restoration.executors import (
    Counts,
    EnginePool,
    Executor,
    InlineExecutor,
    LaneExecutor,
)
from mhnet_video.restoration.frame_chain import FrameChain, Look
from mhnet_video.restoration.glass import LIVE_DISTANCE
from mhnet_video.restoration.temporal_window import WindowPicker
from mhnet_video.restoration.window_network import WindowNetwork
from mhnet_video.restoration.working_scale import ScaleChooser
from mhnet_video.tasks import DEFAULT, TASKS


class TaskStep:
    """A network and its engine. Not thread-safe.

    Args:
        network: The network, on its device, in evaluation mode.
        device: That device.
        engine: What runs it, see `Restorer`.
        others: Further devices, which share the frames of clips with that one.
        like: The engine of the same network on another device, see `resolve_engine`.
        is_filtered: Whether restored frames may go through the temporal filter; they do where the
            network's task wants it.
        shrink: How many times smaller than at the working scale it sees pictures, from 1 on.

    Raises:
        ConfigError: The engine is not available, or the network must see every frame.
    """

    def __init__(
        self,
        network: MHNet,
        device: torch.device,
        engine: str,
        *,
        others: Sequence[torch.device] = (),
        like: Engine | None = None,
        is_filtered: bool,
        shrink: float = 1.0,
    ) -> None:
        if others and network.config.glass:
            raise ConfigError(
                f"to take out {TASKS[network.task].removes}, one device must see every frame; "
                "name one with --device"
            )
        self.network, self.device = network, device
        self.engine: SelectedEngine = resolve_engine(network, engine, like)
        self.shrink = shrink
        self.is_filtered = is_filtered and TASKS[network.task].is_filtered
        """Whether what it has restored goes through the temporal filter."""
        self._windows = WindowNetwork(network, device)
        self._picker = WindowPicker(network.config.frames, sees_glass=network.config.glass)
        self._pool: EnginePool | None = None
        self._inline: tuple[SelectedEngine, InlineExecutor] | None = None
        self._inline_look: DryLook | None = None
        self._others = [
            TaskStep(
                copy.deepcopy(network).to(other),
                other,
                engine,
                like=self.engine.engine,
                is_filtered=is_filtered,
            )
            for other in others
        ]

    @property
    def ahead(self) -> int:
        """Frames after the one to restore that it sees where not every frame is restored.

        Neighbours that may be several frames away are then all frames before it.
        """
        config = self.network.config
        return 0 if config.glass else config.frames // 2

    @property
    def behind(self) -> int:
        """The same before it."""
        config = self.network.config
        return (config.frames - 1) * LIVE_DISTANCE if config.glass else config.frames // 2

    @property
    def enlarges(self) -> bool:
        """Whether it sees small pictures enlarged, see `scale_by_size`."""
        return self.network.task == "deblur"

    def chain(
        self, executor: Executor, *, scene_scale: float | None, look: Look | None = None
    ) -> FrameChain:
        """The way of the frames of a clip over an executor of this step, as far as the network.

        Args:
            executor: One that `executor` or `new_inline` has made.
            scene_scale: See `Restorer`.
            look: Marks the windows whose frame passes as it is; None for that of the task.
        """
        config = self.network.config
        # what is measured of sharpness is true of streaks alone
        is_measured = self.network.task == DEFAULT
        return FrameChain(
            config.frames,
            executor,
            ScaleChooser(
                self.device,
                measures=is_measured,
                scene_scale=scene_scale,
                enlarges=self.enlarges,
                shrink=self.shrink,
            ),
            look or self._new_look(),
            sees_glass=config.glass,
        )

    def _new_look(self) -> DryLook | None:
        """None on a GPU, which has the time, and where the limits were not measured."""
        if self.device.type != "cpu" or self.network.task != DEFAULT:
            return None
        return DryLook(self._windows, self.engine.engine)

    def executor(self, *, on_gpu: bool, stays_on_gpu: bool) -> Executor:
        """The executor with the highest throughput, for all frames of a clip.

        Args:
            on_gpu: Whether the kernels of a GPU restore.
            stays_on_gpu: Whether frames that a GPU has decoded come out in its memory; with one
                device only.
        """
        if self._others:
            from mhnet_video.restoration.spread_executor import SpreadExecutor

            return SpreadExecutor(
                [
                    (each.device, each._own_executor(on_gpu=on_gpu, stays_on_gpu=False))
                    for each in (self, *self._others)
                ]
            )
        return self._own_executor(on_gpu=on_gpu, stays_on_gpu=stays_on_gpu)

    def _own_executor(self, *, on_gpu: bool, stays_on_gpu: bool) -> Executor:
        """The executor of this device alone."""
        if on_gpu and self.engine.name == "triton":
            from mhnet_video.engines.triton.engine import TritonEngine
            from mhnet_video.restoration.gpu_executor import GpuExecutor

            engine = cast(TritonEngine, self.engine.engine)
            return GpuExecutor(engine, self._windows, stays=stays_on_gpu)
        if self._pool is None or self._pool.engine is not self.engine.engine:
            self._pool = EnginePool(self.engine.engine)
        return LaneExecutor(self._windows, self._pool)

    def new_inline(self) -> InlineExecutor:
        """An executor with the lowest latency."""
        return InlineExecutor(self._windows, self.engine.engine)

    def restore_frame(
        self,
        frames: Sequence[Frame],
        index: int,
        settings: Settings,
        scale: float,
        *,
        passes_dry: bool = False,
    ) -> tuple[Frame, Counts]:
        """Restore one of some successive frames, and what was counted so far.

        Args:
            frames: Successive frames of one size.
            index: Which of them.
            settings: How.
            scale: Working scale.
            passes_dry: Whether it passes as it is where a look shows nothing to take out.
        """
        executor = self._own_inline()
        window = self._picker.window(frames, index, settings, scale)
        if passes_dry and self._inline_look is not None:
            window = self._inline_look.marked(window)
        (pair,) = executor.push(window)
        return pair.restored, executor.counts

    def prepare_looks(
        self, frames: Sequence[Frame], index: int, settings: Settings, scale: float
    ) -> None:
        """Make the looks of `restore_frame` ready, which takes what it does."""
        self._own_inline()
        if self._inline_look is not None:
            self._inline_look.prepare(self._picker.window(frames, index, settings, scale))

    def _own_inline(self) -> InlineExecutor:
        """That of single frames, made anew with its look where the engine is another one."""
        if self._inline is None or self._inline[0] is not self.engine:
            self._inline = self.engine, self.new_inline()
            self._inline_look = self._new_look()
        return self._inline[1]

    def forget(self) -> None:
        """Take the next frames of `restore_frame` for those of another clip."""
        config = self.network.config
        self._picker = WindowPicker(config.frames, sees_glass=config.glass)
        self._inline_look = self._new_look()

    def free(self) -> None:
        """Give back the host's memory that engines keep; no frame is in work."""
        self.engine.engine.free()
        for other in self._others:
            other.free()

    def use_torch(self) -> None:
        """Have PyTorch run the network from now on."""
        self.engine = SelectedEngine(TorchEngine(self.network), "torch", "the triton engine failed")
        for other in self._others:
            other.use_torch()
