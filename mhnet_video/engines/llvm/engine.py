"""The CPU engine: the network as kernels made for this processor when it starts."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from mhnet_video.engines.llvm.graph import Graph
from mhnet_video.engines.llvm.motion import Motion, fits
from mhnet_video.engines.llvm.scheduler import Kernels
from mhnet_video.engines.llvm.weight_packing import starts_in_int8
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.model.align import align_frames
from mhnet_video.model.network import MHNet
from mhnet_video.model.window import Window, middle_of

_MAX_PIXELS = 4096 * 2304
"""Largest picture in one piece where elements are pairs; its maps take some 1.5 GB."""

_LANE_THREADS = 2
"""Threads that share a small picture without waiting much for each other.

With twice as many a tenth of the time is waiting: small maps have few rows.
"""

_LANE_THREADS_OF_A_MILLION = 3
"""How many more threads do for each million pixels."""

_MAX_PAIR_PIXELS = 1280 * 736
"""Largest picture, in pixels, of which two are in flight with any number of threads."""

_MAX_LANES_PIXELS = 2 * 1920 * 1088
"""Pixels of all pictures that are worked on at the same time: maps take some 200 bytes each."""

_GRAPHS = 3
"""Sizes of pictures for which maps are kept: that of a clip, and those of two looks at it."""


def lane_count(threads: int, pixels: int) -> int:
    """How many pictures of a size are best worked on at the same time."""
    enough = _LANE_THREADS + _LANE_THREADS_OF_A_MILLION * pixels / 1e6
    least = min(2, threads) if pixels <= _MAX_PAIR_PIXELS else 1
    return max(least, min(math.ceil(threads / enough), _MAX_LANES_PIXELS // pixels))


class LLVMEngine:
    """The network on this processor. Not for several threads at once.

    Args:
        network: An MHNet on the CPU, which must not change any more.
        machine: What to make kernels for.
        threads: How many threads work; PyTorch's number if None.
        kernels: Those of an engine for that machine, to go on with.
    """

    def __init__(
        self,
        network: MHNet,
        machine: Machine,
        threads: int | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.network = network
        self.threads = threads or torch.get_num_threads()
        self.max_pixels = _MAX_PIXELS * machine.group // 2
        self._kernels = kernels or Kernels(machine)
        self._lanes: list[LLVMEngine] = []
        self._graphs: dict[tuple[int, int], Graph] = {}
        self._motions: dict[tuple[int, int], Motion] = {}
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def lanes(self, pixels: int) -> Sequence["LLVMEngine"]:
        """Engines that share this one's threads, each for a picture; this one where one is best.

        Threads that share a picture wait for each other after each of some 200 steps, and where a
        decoder or an encoder holds one up, all do: several pictures at a time take less time than
        one after the other, and more memory.
        """
        count = lane_count(self.threads, pixels)
        if count == 1:
            return (self,)
        if len(self._lanes) != count:
            share, more = divmod(self.threads, count)
            self._lanes = [
                LLVMEngine(
                    self.network, self._kernels.machine, share + (index < more), self._kernels
                )
                for index in range(count)
            ]
        return self._lanes

    def free(self) -> None:
        """Give back the maps of all sizes, which the next picture makes anew."""
        self._graphs.clear()
        self._motions.clear()
        for lane in self._lanes:
            lane.free()

    @torch.inference_mode()
    def align(self, frames: Window) -> Window:
        """Move the neighbours to where the middle frame shows the same things.

        Args:
            frames: As for `residual`.

        Returns:
            As many, to be read before the next call; the middle frame is that one.

        Raises:
            ValueError: As for `middle_of`.
        """
        motion, glass = self._motion(frames), self.network.config.glass
        if motion is None:
            return align_frames(frames, glass=glass)
        end = len(frames) - glass
        return [*frames[:glass], *motion.run(frames[glass:end], self._pool), *frames[end:]]

    @torch.inference_mode()
    def aligned_residual(self, frames: Window) -> Tensor:
        """The residual of frames that are aligned first.

        Args:
            frames: As for `residual`, not aligned.

        Returns:
            `[3, H, W]` float32.

        Raises:
            ValueError: As for `middle_of`.
        """
        size = middle_of(frames).shape
        motion, graph = self._motion(frames), self._graph(*size[1:])
        folds, is_whole = graph.inputs.folds, size == graph.inputs.window.shape[1:]
        if motion is None or not motion.can_fold or folds is None or not is_whole:
            return self.residual(self.align(frames))
        # only the network reads moved frames: they are folded as they are moved
        residual = graph.prepare(frames, are_folded=True)
        glass = self.network.config.glass
        held = motion.prepare(frames[glass : len(frames) - glass], folds)
        motion.program.run_with(graph.program, self._pool)
        del held
        return residual

    def _motion(self, frames: Window) -> Motion | None:
        """The kernels for a window; None where there are none for its size, or nothing moves.

        Raises:
            ValueError: As for `middle_of`.
        """
        middle = middle_of(frames)
        height, width = middle.shape[1:]
        glass = self.network.config.glass
        moving = frames[glass : len(frames) - glass]
        is_still = all(frame is None or frame is middle for frame in moving)
        if is_still or not fits(height, width, self._kernels.machine.lanes):
            return None
        motion = self._motions.pop((height, width), None)
        if motion is None:
            while len(self._motions) >= _GRAPHS:
                self._motions.pop(next(iter(self._motions)))
            with self._kernels.lock:
                motion = Motion(
                    self._kernels,
                    height,
                    width,
                    len(moving),
                    self.threads,
                    moves_all=self.network.config.glass,
                    int8=starts_in_int8(self._kernels.machine, self.network.config),
                )
        self._motions[height, width] = motion
        return motion

    @torch.inference_mode()
    def residual(self, frames: Window) -> Tensor:
        """What is to be added to the middle frame, as `MHNet.residual` computes it.

        Args:
            frames: The input frames of the network, `[3, H, W]` float32 each; those whose sides
                are multiples of `network.config.multiple` are read where they are. A tensor that
                was passed the last time must not have changed since: it is not read again.

        Returns:
            `[3, H, W]` float32.
        """
        height, width = middle_of(frames).shape[1:]
        graph = self._graph(height, width)
        return graph.run(frames, self._pool)[:, :height, :width]

    def _graph(self, height: int, width: int) -> Graph:
        """The graph for pictures of a size."""
        graph = self._graphs.pop((height, width), None)
        if graph is None:
            while len(self._graphs) >= _GRAPHS:
                self._graphs.pop(next(iter(self._graphs)))
            multiple = self.network.config.multiple
            rows, columns = height + -height % multiple, width + -width % multiple
            with self._kernels.lock:
                graph = Graph(self.network, self._kernels, rows, columns, self.threads)
        self._graphs[height, width] = graph
        return graph
