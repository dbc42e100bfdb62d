"""Frames moved to one another by compiled kernels, on this processor.

align.py is the reference implementation.
"""

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mhnet_video.engines.llvm.inputs import Folds, no_frame
from mhnet_video.engines.llvm.motion_graph import MotionGraph
from mhnet_video.engines.llvm.scheduler import Kernels
from mhnet_video.model import align
from mhnet_video.model.window import Window, middle_of

_FAR_SLOTS = 41
"""Frames whose luma is kept where neighbours are several frames apart. A frame is then in windows
that do not follow one another, the first and the last of them 40 frames apart at most."""


class Motion:
    """The motion in windows of one size, from run to run.

    Args:
        kernels: The engine's kernels.
        height: Of the frames, in pixels.
        width: Of the frames, in pixels.
        frames: T.
        threads: How many threads work.
        moves_all: See `align.align`; neighbours are then several frames apart.
        int8: Whether frames are folded in bytes.
    """

    def __init__(
        self,
        kernels: Kernels,
        height: int,
        width: int,
        frames: int,
        threads: int,
        *,
        moves_all: bool = False,
        int8: bool = False,
    ) -> None:
        slots = max(frames, _FAR_SLOTS) if moves_all else frames
        self._graph = MotionGraph(
            kernels,
            height,
            width,
            frames,
            threads,
            slots=slots,
            moves_all=moves_all,
            int8=int8,
        )
        self.program = self._graph.program
        """What is run after `prepare`."""
        self.can_fold = self._graph.folded_moves is not None
        """Whether frames of this size can be folded as they are moved."""
        self._moved = torch.zeros(frames - 1, 3, height, width)
        self._known: list[Callable[[], Tensor | None]] = [no_frame] * slots
        """The frame of which each slot of the graph has the luma."""
        self._used = [0] * slots
        """The run that has used each slot last."""
        self._runs = 0

    def run(self, frames: Window, pool: ThreadPoolExecutor | None) -> list[Tensor | None]:
        """Move the neighbours to where the middle frame shows the same things.

        Args:
            frames: As for `prepare`.
            pool: Threads besides this one.

        Returns:
            As many, to be read before the next run. The middle frame, and where it stands for
            others that are missing, is that one.
        """
        middle = middle_of(frames)
        # other tensors each time, over the same memory: fresh memory costs as much as the move
        moved = [target.view(target.shape) for target in self._moved]
        held = self.prepare(frames, moved)
        self.program.run(pool)
        del held
        moved.insert(len(frames) // 2, middle)
        return [
            frame if frame is None or frame is middle else target
            for frame, target in zip(frames, moved, strict=True)
        ]

    def prepare(self, frames: Window, to: Folds | Sequence[Tensor]) -> list[Tensor]:
        """Set what the next run of the program reads and writes.

        Args:
            frames: T of `[3, H, W]` float32. The luma of a tensor that was passed the last time is
                not read again.
            to: Where the neighbours are moved to, `[3, H, W]` each, or folded if `can_fold`. Those
                that are missing are left out, and those that are the middle frame.

        Returns:
            The frames as the kernels read them, to be kept until the run is over.
        """
        graph = self._graph
        middle, fixed = len(frames) // 2, middle_of(frames)
        there = [fixed if frame is None else frame for frame in frames]
        plain = [frame.float().contiguous() for frame in there]
        addresses = [frame.data_ptr() for frame in plain]
        self._assign(there, addresses)
        graph.planes.zero_()
        moves, folded = graph.moves, graph.folded_moves
        moves["end"] = 0  # no rows
        if folded is not None:
            folded["end"] = 0
        if isinstance(to, Folds):
            if folded is None:
                raise ValueError("frames of this size cannot be folded as they are moved")
            moves, targets = folded, list(to.addresses)
            moves["plane"], moves["planes_row"] = to.plane, to.row
            del targets[middle]
        else:
            targets = [target.data_ptr() for target in to]
        moves["fixed"], moves["out"] = addresses.pop(middle), targets
        moves["x"] = addresses
        are_others = [frame is not fixed for frame in there]
        del are_others[middle]
        moves["end"] = np.where(are_others, graph.ends[:, None], 0)
        return plain

    def _assign(self, frames: Sequence[Tensor], addresses: Sequence[int]) -> None:
        """Assign slots to frames, so that luma is computed only for new ones."""
        self._runs += 1
        shrinks, ends, halves, copies = self._graph.lumas
        shrinks["end"] = 0  # no rows
        for _, calls in halves:
            calls["end"] = 0
        for position, (frame, address) in enumerate(zip(frames, addresses, strict=True)):
            known = enumerate(self._known)
            slot = next((index for index, each in known if each() is frame), None)
            if slot is None:
                slot = self._free_slot(frames)
                self._known[slot] = weakref.ref(frame)
                shrinks["x"][slot], shrinks["end"][slot] = address, ends
                for height, calls in halves:
                    calls["end"][slot] = height
            self._used[slot] = self._runs
            copies["x"][position] = self._graph.slots[slot].data_ptr()

    def _free_slot(self, frames: Sequence[Tensor]) -> int:
        """One whose frame is gone, or else the one that has not been used for longest."""
        held = [known() for known in self._known]
        free = (
            slot
            for slot, each in enumerate(held)
            if each is None or not any(each is frame for frame in frames)
        )
        return min(free, key=lambda slot: (held[slot] is not None, self._used[slot]))


def fits(height: int, width: int, lanes: int) -> bool:
    """Whether the kernels take frames of a size."""
    whole = not (height % align.SHRINK or width % align.SHRINK or width % lanes)
    return whole and width >= align.SHRINK * lanes
