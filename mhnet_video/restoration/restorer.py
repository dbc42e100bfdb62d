"""A network on a device, fed with frames or RGB pictures: the doors to the one way of a frame."""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import reduce
from os import PathLike
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.config import Box, Settings, check_boxes, check_scale, check_strength
from mhnet_video.engines.select import SelectedEngine
from mhnet_video.engines.self_check import usable_devices
from mhnet_video.errors import ConfigError
from mhnet_video.frame import Frame, Pair
from mhnet_video.model.network import MHNet
from mhnet_video.model.weights import load_model, models_of
from mhnet_video.restoration.coarse_pass import SHRINK, CoarseAfter, StandingDrops
from mhnet_video.restoration.executors import Counts, Executor
from mhnet_video.restoration.frame_chain import Chain, ChainsInTurn, FilteredChain
from mhnet_video.restoration.rgb_frames import frame_of, picture_of
from mhnet_video.restoration.single_frames import SingleFrames
from mhnet_video.restoration.task_step import TaskStep
from mhnet_video.restoration.window_network import check_size
from mhnet_video.restoration.working_scale import WorkingScale, scale_by_size
from mhnet_video.tasks import TASKS, check_task

T = TypeVar("T")
RgbImage = TypeVar("RgbImage", NDArray[np.uint8], Tensor)


class Restorer:
    """Networks on a device that restore the frames of a clip in order. Not thread-safe.

    Args:
        model: A shipped model's name, `auto` for the default of task and device, or a network. A
            network is put on the device as it is, in float32 and for evaluation, and must not
            change any more.
        task: `derain` removes streaks of rain in the air; `raindrop` also removes drops on the
            glass before the camera; `deblur` removes motion blur; `derain+deblur` removes rain,
            then motion blur. None for what a model, network or file that is named was trained for,
            and `derain` where none is.
        weights: A weights file to use instead; None for the model's own.
        device: `auto` (CUDA after a self-check), `cpu`, `cuda`, `cuda:<index>` or `mps`. Several
            GPUs, as in `cuda:0,cuda:1`, share the frames of each clip; `push` and `restore_frame`
            use the first.
        engine: Engine of the network: `auto` (the fastest that can run it), `torch`, `llvm` or
            `triton`.
        strength: Share of the residual that is added, 0 (none) to 1 (all).
        keep: Boxes in which nothing changes.
        scale: Working scale of the network, above 0 to 1. Below 1 it sees a smaller picture, and
            its residual is enlarged. The time falls with the square, and the picture stays as
            sharp as the source. None to choose it: 1, and on a CPU as many rows as the picture is
            sharp, 1080 at most where there are more than 1200; above 1 for small pictures with
            motion blur.
        is_filtered: Whether restored frames of a clip go through the temporal filter.

    Raises:
        ConfigError: The device, engine or task is not available, the strength or scale is out of
            range, the network is not for the task or for several devices, or weights are passed
            with a network.
        WeightsError: The weights cannot be loaded.
    """

    name: str
    """The model's name, or the weights file's."""
    device: torch.device
    """Device of the network; of several the first."""
    devices: tuple[torch.device, ...]
    """All devices that share the frames of clips."""
    scene_scale: float | None
    """Where clips begin within a scene, how much smaller its pictures are restored than by their
    size, see `ScaleChooser`; None where a clip begins with a scene."""

    def __init__(
        self,
        model: str | MHNet = "auto",
        *,
        task: str | None = None,
        weights: str | PathLike[str] | None = None,
        device: str = "auto",
        engine: str = "auto",
        strength: float = 1.0,
        keep: Sequence[Sequence[int]] = (),
        scale: float | None = None,
        is_filtered: bool = True,
    ) -> None:
        if task is not None:
            check_task(task)
        self.devices = usable_devices(str(device))
        self.device, *others = self.devices
        self._settings = Settings()
        self.strength, self.scale, self.keep = strength, scale, keep
        self.scene_scale = None
        if isinstance(model, MHNet):
            if weights is not None:
                raise ConfigError(
                    "a network has its weights; name a model or a weights file, not both"
                )
            if task not in (None, model.task):
                raise ConfigError(
                    f"the network takes out {TASKS[model.task].removes}; leave task out"
                )
            self.name, networks = "custom", [model.to(self.device, torch.float32).eval()]
        else:
            names = models_of(task, model, weights, self.device.type)
            self.name = "+".join(names)
            networks = [load_model(name, self.device) for name in names]
        self._steps = [
            TaskStep(network, self.device, engine, others=others, is_filtered=is_filtered)
            for network in networks
        ]
        self._passes = [each for step in self._steps for each in self._passes_of(step, engine)]
        """What the frames of a clip go through, in turn."""
        self._counts: Counts | Chain = Counts()
        self._pushed: tuple[Chain, int] | None = None
        self._single = SingleFrames(self._steps, self.device)

    def _passes_of(self, step: TaskStep, engine: str) -> Sequence[TaskStep]:
        """The passes of a step: one, and for drops another over smaller pictures."""
        if not step.network.config.glass:
            return (step,)
        like = step.engine.engine
        coarse = TaskStep(
            step.network, self.device, engine, like=like, is_filtered=False, shrink=SHRINK
        )
        return step, coarse

    @property
    def network(self) -> MHNet:
        """The network; of several in turn the first one."""
        return self._steps[0].network

    @property
    def engine(self) -> SelectedEngine:
        """Engine of the network, and the reason for it; of several in turn that of the first."""
        return self._steps[0].engine

    @engine.setter
    def engine(self, engine: SelectedEngine) -> None:
        for each in self._passes:
            if each.network is self.network:
                each.engine = engine

    @property
    def tasks(self) -> tuple[str, ...]:
        """What its networks take out, in turn: of `tasks.TRAINED`."""
        return tuple(step.network.task for step in self._steps)

    @property
    def ahead(self) -> int:
        """Frames after the one to restore that `restore_frame` sees."""
        return sum(step.ahead for step in self._steps)

    @property
    def behind(self) -> int:
        """Frames before the one to restore that `restore_frame` sees."""
        return sum(step.behind for step in self._steps)

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
        for step in self._steps:
            for name, tensor in sorted(step.network.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def passed_through(self) -> int:
        """Frames of the latest clip left as they were, as the network gave no finite numbers."""
        return self._seen.passed_through

    @property
    def repeated(self) -> int:
        """Frames of the latest clip that took no time: they were the ones before them again."""
        return self._seen.repeated

    @property
    def dry(self) -> int:
        """Frames of the latest clip that passed as they are: a look showed nothing to take out."""
        return self._seen.dry

    @property
    def scales(self) -> Mapping[WorkingScale, int]:
        """Frames of the latest clip at each working scale, and why each was chosen."""
        return self._seen.scales

    @property
    def gpu(self) -> int | None:
        """The number of the GPU whose kernels restore clips; None where others or several do."""
        # several passes or GPUs hand frames on through the host's memory
        is_one = len(self._passes) == len(self.devices) == 1
        return (self.device.index or 0) if is_one and self._is_on_gpu(self._passes[0]) else None

    def _is_on_gpu(self, step: TaskStep) -> bool:
        is_whole = step.shrink == 1 and self.scale in (None, 1)
        return step.engine.name == "triton" and is_whole and self.strength != 0

    @property
    def _seen(self) -> Counts:
        """What was counted in the latest clip."""
        return self._counts if isinstance(self._counts, Counts) else self._counts.counts

    def scale_at(self, height: int, width: int) -> WorkingScale:
        """The largest working scale for pictures of a size."""
        enlarges = self._steps[0].enlarges
        return scale_by_size(self.scale, height, width, self.device, enlarges=enlarges)

    def pairs(
        self, items: Iterable[Frame | T], *, stays_on_gpu: bool = False
    ) -> Generator[Pair | T]:
        """Restore frames in order, one pair (source, restored) for each one in.

        A frame comes out when its neighbours are known and the one behind it is restored; at both
        ends, and where the size or the scene changes, the next frames of the other side stand for
        neighbours that are missing. Frames that repeat the one before come out with it: they are no
        neighbours, as they show the same rain. So do those of a raised frame rate that an encoder
        has changed a little; a clip's first dozen frames wait until that is known of them. With
        `raindrop`, where neighbours are up to ten frames away and frames go through two passes, a
        frame waits for up to 42 more. A frame without any neighbour is restored by a self-ensemble.

        Args:
            items: Frames, and anything else, which passes through at once.
            stays_on_gpu: Whether frames that a GPU has decoded come out in its memory, where they
                can.

        Yields:
            The pairs, and everything else as it was.

        Raises:
            ValueError: An array or a tensor is passed, which `restore` and `push` take.
            ConfigError: A picture is too large.
            ShortageError: The device has too little memory even for small tiles.
        """
        executors = [
            each.executor(on_gpu=self._is_on_gpu(each), stays_on_gpu=stays_on_gpu)
            for each in self._passes
        ]
        chain = self._new_chain(executors)
        iterator, error = iter(items), None
        try:
            while True:
                try:
                    item = next(iterator)
                    if isinstance(item, Frame):
                        check_size(item.height, item.width)
                except StopIteration:
                    break
                except Exception as caught:
                    error = caught  # what was there before it is restored first
                    break
                if isinstance(item, Frame):
                    yield from chain.push(item, self._settings)
                elif isinstance(item, np.ndarray | Tensor):
                    # it would come out unrestored
                    raise ValueError("got a picture: restore() and push() take pictures")
                else:
                    yield item
            yield from chain.flush()
        except Exception:
            yield from chain.release()
            raise
        finally:
            chain.close()
            for each, executor in zip(self._passes, executors, strict=True):
                if executor.has_failed:
                    each.use_torch()
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
            each, a frame and half a window later. With `raindrop` the first come out after some
            sixty frames, and the others some forty later.

        Raises:
            ValueError: The picture has another shape or type.
            ConfigError: The picture is too large.
        """
        # an executor for each clip, which counts its frames alone
        if self._pushed is None:
            self._pushed = self._new_chain([each.new_inline() for each in self._passes]), 0
        chain, index = self._pushed
        frame = frame_of(picture, index)
        check_size(frame.height, frame.width)
        self._pushed = chain, index + 1
        return [picture_of(pair.restored) for pair in chain.push(frame, self._settings)]

    def flush(self) -> list[Any]:
        """End the clip that was pushed: the restored pictures that are still missing."""
        if self._pushed is None:
            return []
        (chain, _), self._pushed = self._pushed, None
        return [picture_of(pair.restored) for pair in chain.flush()]

    def restore_frame(self, frames: Sequence[Frame], index: int, *, is_live: bool = False) -> Frame:
        """Restore one of some successive frames, where not every frame of a clip is wanted.

        Where none is set, the working scale is that of the picture's size. Drops are looked for
        once, at that scale. The temporal filter is left to whoever knows which frames came before.

        Args:
            frames: Successive frames of one size.
            index: Which of them to restore.
            is_live: Whether it is one of a stream that does not wait. Without neighbours it then
                has no self-ensemble, which takes four to ten times as long as a frame. And where a
                cheap look shows nothing to take out it passes as it is, as frames of a clip do: on
                a CPU, by one network that takes out streaks.

        Raises:
            ConfigError: The picture is too large.
            IndexError: The index is out of range.
            ValueError: The frames are of several sizes.
        """
        if not 0 <= index < len(frames):
            raise IndexError(f"index must be from 0 to {len(frames) - 1}, not {index}")
        frame = frames[index]
        if self.strength == 0:
            return frame
        check_size(frame.height, frame.width)
        settings = self._settings._replace(is_live=is_live)
        restored, self._counts = self._single.restore(frames, index, settings)
        return restored

    def prepare_looks(self, frames: Sequence[Frame], index: int) -> None:
        """Make ready what `restore_frame` needs to let dry frames pass.

        The first look of a size takes seconds where an engine compiles kernels for it.

        Args:
            frames: As for `restore_frame`.
            index: Likewise.
        """
        self._single.prepare_looks(frames, index, self._settings)

    def forget(self) -> None:
        """Forget what `restore_frame` has seen: what comes next is of another clip or place."""
        self._single.forget()

    def free(self) -> None:
        """Give back the host's memory that is kept for pictures of a size; no clip is in work."""
        for each in self._passes:
            each.free()

    def _new_chain(self, executors: Sequence[Executor]) -> Chain:
        chains: list[Chain] = []
        for each, executor in zip(self._passes, executors, strict=True):
            if each.shrink == 1:
                chains.append(each.chain(executor, scene_scale=self.scene_scale))
            else:
                drops = StandingDrops()
                second = each.chain(executor, scene_scale=self.scene_scale, look=drops)
                chains[-1] = CoarseAfter(chains[-1], second, drops)
        for index, step in enumerate(self._steps):
            if step.is_filtered:
                chains[index] = FilteredChain(chains[index], self.device)
        chain = reduce(ChainsInTurn, chains)
        self._counts = chain
        return chain
