"""A network on a device, fed with frames or RGB pictures: the doors to the one way of a frame."""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from os import PathLike
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.config import Box, Settings, check_boxes, check_scale, check_strength, check_task
from mhnet_video.engines.base import TorchEngine
from mhnet_video.engines.select import SelectedEngine, resolve_engine
from mhnet_video.errors import ConfigError
from mhnet_video.frame import Frame, Pair
from mhnet_video.model.network import MHNet
from mhnet_video.model.weights import DEFAULTS, load_model, resolve_device, task_of
from mhnet_video.restoration.executors import (
    Counts,
    EnginePool,
    Executor,
    InlineExecutor,
    LaneExecutor,
)
from mhnet_video.restoration.frame_chain import FrameChain
from mhnet_video.restoration.rgb_frames import frame_of, picture_of
from mhnet_video.restoration.temporal_window import WindowPicker
from mhnet_video.restoration.window_network import WindowNetwork, check_size
from mhnet_video.restoration.working_scale import ScaleChooser, WorkingScale, scale_by_size

T = TypeVar("T")
RgbImage = TypeVar("RgbImage", NDArray[np.uint8], Tensor)


class Restorer:
    """A network on a device that restores the frames of a clip in order. Not thread-safe.

    Args:
        model: A shipped model's name, `auto` for the default of task and device, or a network.
        task: `derain` removes streaks of rain in the air; `raindrop` also removes drops on the
            glass before the camera.
        weights: A weights file to use instead; None for the model's own.
        device: `auto` (CUDA if available), `cpu`, `cuda` or `cuda:<index>`.
        engine: Engine of the network: `auto` (the fastest that can run it), `torch`, `llvm` or
            `triton`.
        strength: Share of the residual that is added, 0 (none) to 1 (all).
        keep: Boxes in which nothing changes.
        scale: Working scale of the network, above 0 to 1. Below 1 it sees a smaller picture, and
            its residual is enlarged. The time falls with the square, and the picture stays as
            sharp as the source. None to choose it: 1, and on a CPU as many rows as the picture is
            sharp, 1080 at most where there are more than 1200.
        is_filtered: Whether restored frames of a clip go through the temporal filter.

    Raises:
        ConfigError: The device, engine or task is not available, the strength or scale is out of
            range, the network is not for the task, or weights are passed with a network.
        WeightsError: The weights cannot be loaded.
    """

    name: str
    """The model's name, or the weights file's."""
    device: torch.device
    """Device of the network."""
    engine: SelectedEngine
    """Engine of the network, and the reason for it."""
    measures_scale: bool
    """Whether the working scale follows the sharpness of each scene, where none is set; False
    where a clip's frames are restored in parts that do not see a scene's first ones."""

    def __init__(
        self,
        model: str | MHNet = "auto",
        *,
        task: str = "derain",
        weights: str | PathLike[str] | None = None,
        device: str = "auto",
        engine: str = "auto",
        strength: float = 1.0,
        keep: Sequence[Sequence[int]] = (),
        scale: float | None = None,
        is_filtered: bool = True,
    ) -> None:
        check_task(task)
        self.device = resolve_device(device)
        self._settings = Settings()
        self.strength, self.scale, self.keep = strength, scale, keep
        self._is_filtered = is_filtered
        self.measures_scale = True
        if isinstance(model, MHNet):
            if weights is not None:
                raise ConfigError(
                    "a network has its weights; name a model or a weights file, not both"
                )
            self.name, network = "custom", model.to(self.device).eval()
        else:
            if model == "auto":
                model = DEFAULTS[task][self.device.type]
            self.name = str(weights or model)
            network = load_model(weights or model, self.device)
        if task == "raindrop" and task_of(network.config) != task:
            raise ConfigError(
                f"{self.name} takes out streaks only; leave --task out, or name weights for drops"
            )
        self.network = network
        self.engine = resolve_engine(network, engine)
        self._windows = WindowNetwork(network, self.device)
        self._picker = WindowPicker(network.config.frames, sees_glass=network.config.glass)
        self._pool: EnginePool | None = None
        self._inline: tuple[SelectedEngine, InlineExecutor] | None = None
        self._counts = Counts()
        self._pushed: tuple[FrameChain, int] | None = None

    @property
    def strength(self) -> float:
        """Share of the restoration that is applied, 0 to 1; may be changed at any time."""
        return self._settings.strength

    @strength.setter
    def strength(self, value: float) -> None:
        check_strength(value)
        self._settings = self._settings._replace(strength=value)

    @property
    def scale(self) -> float | None:
        """Working scale, above 0 to 1; from where it changes, another clip begins.

        None for what suits each scene.
        """
        return self._settings.scale

    @scale.setter
    def scale(self, value: float | None) -> None:
        check_scale(value)
        self._settings = self._settings._replace(scale=value)

    @property
    def keep(self) -> tuple[Box, ...]:
        """Boxes in which nothing changes."""
        return self._settings.keep

    @keep.setter
    def keep(self, boxes: Sequence[Sequence[int]]) -> None:
        self._settings = self._settings._replace(keep=check_boxes(boxes))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, and of what they are called, in hexadecimal."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def passed_through(self) -> int:
        """Frames of the latest clip left as they were, as the network gave no finite numbers."""
        return self._counts.passed_through

    @property
    def repeated(self) -> int:
        """Frames of the latest clip that took no time: they were the ones before them again."""
        return self._counts.repeated

    @property
    def scales(self) -> Mapping[WorkingScale, int]:
        """Frames of the latest clip at each working scale, and why each was chosen."""
        return self._counts.scales

    @property
    def gpu(self) -> int | None:
        """The number of the GPU whose kernels restore clips; None where others do."""
        is_whole = self.scale is None or self.scale == 1
        if self.engine.name != "triton" or not is_whole or self.strength == 0:
            return None
        return self.device.index or 0

    def scale_at(self, height: int, width: int) -> WorkingScale:
        """The largest working scale for pictures of a size."""
        return scale_by_size(self.scale, height, width, self.device)

    def pairs(
        self, items: Iterable[Frame | T], *, stays_on_gpu: bool = False
    ) -> Generator[Pair | T]:
        """Restore frames in order, one pair (source, restored) for each one in.

        A frame comes out when its neighbours are known and the one behind it is restored; at both
        ends, and where the size or the scene changes, the next frames of the other side stand for
        neighbours that are missing. Frames that repeat the one before come out with it: they are no
        neighbours, as they show the same rain. So do those of a raised frame rate that an encoder
        has changed a little; a clip's first dozen frames wait until that is known of them. A frame
        without any neighbour is restored by a self-ensemble.

        Args:
            items: Frames, and anything else, which passes through at once.
            stays_on_gpu: Whether frames that a GPU has decoded come out in its memory, where they
                can.

        Yields:
            The pairs, and everything else as it was.

        Raises:
            ConfigError: A picture is too large.
            ShortageError: The device has too little memory even for small tiles.
        """
        executor = self._executor(stays_on_gpu=stays_on_gpu)
        chain = self._new_chain(executor)
        iterator, error = iter(items), None
        try:
            while True:
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                except Exception as caught:
                    error = caught  # what was there before it is restored first
                    break
                if isinstance(item, Frame):
                    yield from chain.push(item, self._settings)
                else:
                    yield item
            yield from chain.flush(self._settings)
        except Exception:
            yield from chain.release(self._settings)
            raise
        finally:
            chain.close()
            if executor.has_failed:
                self._use_torch()
        if error is not None:
            raise error

    def stream(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """Restore frames in order, one out for each one in: the restored halves of `pairs`."""
        with closing(self.pairs(items)) as pairs:
            for item in pairs:
                yield item.restored if isinstance(item, Pair) else item

    def restore(self, pictures: Iterable[RgbImage]) -> Iterator[RgbImage]:
        """Restore RGB pictures of a clip in order, as the frames of a file are.

        Args:
            pictures: `[H, W, 3]` uint8, arrays or tensors.

        Yields:
            Restored pictures of the same type and size, one for each input, with the delay of
            `pairs`.

        Raises:
            ValueError: A picture has another shape or type.
            ConfigError: A picture is too large.
        """
        frames = (frame_of(picture, index) for index, picture in enumerate(pictures))
        for frame in self.stream(frames):
            yield picture_of(frame)

    def push(self, picture: RgbImage) -> list[RgbImage]:
        """Take one picture of a clip, where the next one is not known yet.

        Args:
            picture: `[H, W, 3]` uint8, RGB, an array or a tensor.

        Returns:
            The restored pictures that are ready, in order: none for the first dozen of a clip, by
            which it is known whether its frame rate was raised, then all of these, then one for
            each, a frame and half a window later.

        Raises:
            ValueError: The picture has another shape or type.
            ConfigError: The picture is too large.
        """
        # an executor for each clip, which counts its frames alone
        chain, index = self._pushed or (self._new_chain(self._new_inline()), 0)
        frame = frame_of(picture, index)
        self._pushed = chain, index + 1
        return [picture_of(pair.restored) for pair in chain.push(frame, self._settings)]

    def flush(self) -> list[Any]:
        """End the clip that was pushed: the restored pictures that are still missing."""
        if self._pushed is None:
            return []
        (chain, _), self._pushed = self._pushed, None
        return [picture_of(pair.restored) for pair in chain.flush(self._settings)]

    def restore_frame(self, frames: Sequence[Frame], index: int) -> Frame:
        """Restore one of some successive frames, where not every frame of a clip is wanted.

        Where none is set, the working scale is that of the picture's size.
        The temporal filter is left to whoever knows which frames came before.

        Args:
            frames: Successive frames of one size.
            index: Which of them to restore.

        Raises:
            ConfigError: The picture is too large.
            IndexError: The index is out of range.
        """
        if not 0 <= index < len(frames):
            raise IndexError(f"index must be from 0 to {len(frames) - 1}, not {index}")
        frame = frames[index]
        if self.strength == 0:
            return frame
        check_size(frame.height, frame.width)
        scale = self.scale_at(frame.height, frame.width).scale
        window = self._picker.window(frames, index, self._settings, scale)
        executor = self._whole()
        self._counts = executor.counts
        (pair,) = executor.push(window)
        return pair.restored

    def _new_chain(self, executor: Executor) -> FrameChain:
        self._counts = executor.counts
        config = self.network.config
        return FrameChain(
            config.frames,
            executor,
            self.device,
            ScaleChooser(self.device, measures=self.measures_scale and not config.glass),
            is_filtered=self._is_filtered,
            sees_glass=config.glass,
        )

    def _executor(self, *, stays_on_gpu: bool) -> Executor:
        """The executor with the highest throughput, for all frames of a clip."""
        if self.gpu is not None:
            from mhnet_video.engines.triton.engine import TritonEngine
            from mhnet_video.restoration.gpu_executor import GpuExecutor

            engine = cast(TritonEngine, self.engine.engine)
            return GpuExecutor(engine, self._windows, stays=stays_on_gpu)
        if self._pool is None or self._pool.engine is not self.engine.engine:
            self._pool = EnginePool(self.engine.engine)
        return LaneExecutor(self._windows, self._pool)

    def _whole(self) -> InlineExecutor:
        """The executor with the lowest latency, for single frames."""
        if self._inline is None or self._inline[0] is not self.engine:
            self._inline = self.engine, self._new_inline()
        return self._inline[1]

    def _new_inline(self) -> InlineExecutor:
        return InlineExecutor(self._windows, self.engine.engine)

    def _use_torch(self) -> None:
        self.engine = SelectedEngine(TorchEngine(self.network), "torch", "the triton engine failed")
