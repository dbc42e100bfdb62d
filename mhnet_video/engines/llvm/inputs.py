"""The frames that the CPU engine reads, and the planes that they are folded into.

A frame of the last run keeps its slot: the weights of the first convolution are rotated, not the
frames.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.engines.llvm.arena import Resolution
from mhnet_video.engines.llvm.int8_weights import MOST_DIFFERENCE
from mhnet_video.engines.llvm.scheduler import Kernels, Program
from mhnet_video.engines.llvm.weight_packing import starts_in_int8
from mhnet_video.kernels import llvm_images, llvm_int8
from mhnet_video.model.network import NetworkConfig
from mhnet_video.model.window import Window


def no_frame() -> None:
    """Return None, as a weak reference to a deleted frame does."""


class Folds(NamedTuple):
    """Where a network reads the frames of a window.

    They are folded as by `llvm_images.fold` at patch 2, or by `llvm_int8.fold_int8`.
    """

    addresses: Sequence[int]
    """The address of each frame's first plane, at its first row; not those of the glass."""
    plane: int
    """Elements of a row of a plane."""
    row: int
    """Elements of a row of all planes."""


class Inputs:
    """The frames of a window, and the step that folds them.

    Args:
        program: Where the step is added.
        kernels: The engine's kernels.
        config: The network's.
        at: The highest resolution.
    """

    def __init__(
        self, program: Program, kernels: Kernels, config: NetworkConfig, at: Resolution
    ) -> None:
        machine, patch = kernels.machine, config.patch
        pictures = 3 * config.pictures
        self.are_int8 = starts_in_int8(machine, config)
        """Whether the planes are of bytes."""
        group = 4 if self.are_int8 else machine.group
        per_picture = patch * patch // group if patch == 2 else 1
        self.planes = pictures * per_picture if patch == 2 else -(-pictures // group)
        """Planes of all frames."""
        self.padded_width = at.row_blocks * machine.lanes * patch
        """Columns of the frames, with those of whole vectors."""
        self.plane = (at.row_blocks + at.tile.blocks + 2) * machine.lanes
        """Elements of a row of a plane."""
        self._rows = at.height
        self.window = torch.zeros(config.pictures, 3, at.height * patch, self.padded_width)
        """Memory for frames that cannot be read where they are."""
        self._black = torch.zeros_like(self.window[0])
        # that the last tile of the last row may read, and a last step of planes
        beyond = 4 * 6 * machine.lanes + 16 * self.plane
        size = (at.height + 2) * self.planes * self.plane
        self.folded = torch.zeros(size + beyond, dtype=torch.int32)
        """The planes."""
        self.folds: Folds | None = None
        """Where the frames are folded to, if motion kernels can do that."""
        if patch == 2:
            firsts = [
                self.folded[3 * i * per_picture * self.plane :] for i in range(config.pictures)
            ]
            frames = slice(config.glass, config.pictures - config.glass)
            addresses = [first.data_ptr() for first in firsts[frames]]
            self.folds = Folds(addresses, self.plane, self.planes * self.plane)
        # at patch 1 the channels of a pair are two pictures, at patch 2 two neighbours of one
        self._fold_pictures = machine.group if patch == 1 else 1
        folds = -(-pictures // self._fold_pictures)
        more: dict[str, Any] = {"other": 0, "plane": self.plane}
        if self.are_int8:
            levels = torch.full((folds,), float(llvm_int8.LEVELS))
            if config.glass:
                levels[-3:] /= MOST_DIFFERENCE
            kernel, more = kernels.kernel(llvm_int8.fold_int8), {"one": levels.unbind()}
        else:
            kernel = kernels.kernel(llvm_images.fold, patch)
        self._calls: NDArray[np.void] = program.add(
            kernel,
            [(0, at.height)] * folds,
            x=0,
            out=[self.folded[index * per_picture * self.plane :] for index in range(folds)],
            width=self.padded_width,
            row=self.planes * self.plane,
            row_blocks=at.row_blocks,
            **more,
        )
        can_turn = self._fold_pictures == 1 and not config.glass
        self.turns = config.pictures if can_turn else 1
        """Number of rotations of the frames, none included. The pictures of the glass stay."""
        self._known: list[Callable[[], Tensor | None]] = [no_frame] * config.pictures
        self._glass = config.glass

    def prepare(self, window: Window, *, are_folded: bool) -> int:
        """Set what the next run reads.

        Args:
            window: `[3, H, W]` each, of this size or smaller, see `LLVMEngine.residual`.
            are_folded: Whether motion kernels fold the neighbours, without rotation.

        Returns:
            By how many slots the frames are rotated.
        """
        frames = [self._black if frame is None else frame for frame in window]
        if are_folded:
            turn, slots = 0, self._assign_middle(frames)
        else:
            turn, slots = self._assign(frames)
        # beyond the last picture stands a black one
        pictures = [channel.data_ptr() for each in [*slots, self._black] for channel in each]
        end = 3 * len(slots)
        self._calls["x"] = pictures[0 : end : self._fold_pictures]
        if not self.are_int8:
            self._calls["other"] = pictures[1 : end + 1 : self._fold_pictures]
        for index, frame in enumerate(frames):
            if not are_folded:
                self._known[(index + turn) % len(frames)] = weakref.ref(frame)
        return turn

    def _assign_middle(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """Fold what is not moved: the middle frame, black ones and the pictures of the glass.

        Motion kernels write the other slots. These hold moved frames, which no later one equals.

        Returns:
            The picture of each slot.
        """
        middle = frames[len(frames) // 2]
        self._known = [no_frame] * len(frames)
        slots = []
        for index, frame in enumerate(frames):
            is_frame = self._glass <= index < len(frames) - self._glass
            is_read = frame is middle or frame is self._black or not is_frame
            self._fold(index, is_read)
            # slots that the kernels skip may hold any tensor of that size
            slots.append(self._readable(index, frame if is_read else middle))
        return slots

    def _fold(self, slot: int, is_read: bool) -> None:
        """Set whether the next run folds the frame of a slot."""
        self._calls["end"][3 * slot : 3 * slot + 3] = self._rows if is_read else 0

    def _readable(self, slot: int, frame: Tensor) -> Tensor:
        """A frame as the kernels read it: itself, or a copy of this size."""
        copy = self.window[slot]
        if frame.shape == copy.shape and frame.dtype == torch.float32 and frame.is_contiguous():
            return frame
        copy[:, : frame.shape[1], : frame.shape[2]] = frame
        return copy

    def _assign(self, frames: Sequence[Tensor]) -> tuple[int, list[Tensor]]:
        """Assign slots to frames: those of the last run keep theirs, and only new ones are folded.

        Returns:
            By how many slots the frames are rotated, and the frame of each slot, `[3, H, W]`
            float32 of this size (for frames that are folded already, any of that kind).
        """
        count = len(frames)

        def known(turn: int) -> int:
            return sum(self._known[(i + turn) % count]() is each for i, each in enumerate(frames))

        turn = max(range(self.turns), key=known)
        slots = list(self.window[:count])
        for index, frame in enumerate(frames):
            slot = (index + turn) % count
            is_new = self._known[slot]() is not frame or self._fold_pictures > 1
            if self._fold_pictures == 1:
                self._fold(slot, is_new)
            if not is_new:
                continue
            self._known[slot] = no_frame  # until it is there
            slots[slot] = self._readable(slot, frame)
        return turn, slots
