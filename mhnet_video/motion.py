"""Frames moved to one another by compiled kernels, on this processor; align.py is the meaning."""

import itertools
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video import align
from mhnet_video.frame_window import Window, middle_of
from mhnet_video.kernels import llvm_motion
from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.program import Kernels, Program, nothing

_MOVE_ROWS = 32
"""Of a part of the move."""


class _Level(NamedTuple):
    """A resolution."""

    height: int
    width: int
    stride: int
    """Elements from a row to the next, whole vectors."""
    start: int
    """Where it begins among all levels of a picture."""


class _Lumas(NamedTuple):
    """The parts that make luma, to be changed before each run."""

    shrinks: NDArray[np.int64]
    """`[slots, cuts, arguments]`."""
    ends: NDArray[np.int64]
    """Of the cuts."""
    halves: list[tuple[int, NDArray[np.int64]]]
    """The height of each level but the first, and `[slots, arguments]`."""
    copies: NDArray[np.int64]
    """`[T, arguments]`."""


class Folds(NamedTuple):
    """Where a network reads the frames of a window, folded as by `llvm_images.fold` at patch 2."""

    places: Sequence[int]
    """The address of each frame's first plane, at its first row."""
    plane: int
    """Elements of a row of a plane."""
    row: int
    """Elements of a row of all planes."""


class Motion:
    """Everything for windows of one size: maps, and the kernels in their order.

    Args:
        kernels: The engine's kernels.
        height: Of the frames, in pixels.
        width: Likewise.
        frames: T.
        threads: How many threads work.
    """

    def __init__(
        self, kernels: Kernels, height: int, width: int, frames: int, threads: int
    ) -> None:
        self.kernels, self.threads, self.lanes = kernels, threads, kernels.machine.lanes
        self.count = frames - 1
        self.levels: list[_Level] = []
        rows, columns, size = height // align.SHRINK, width // align.SHRINK, 0
        while True:
            stride = -(-columns // self.lanes) * self.lanes
            self.levels.append(_Level(rows, columns, stride, size))
            size += rows * stride + 2 * self.lanes  # halving reads beyond the end
            if min(rows, columns) < 2 * align.LEAST_SIDE:
                break
            rows, columns = rows // 2, columns // 2
        self._fixed, self._moving = torch.zeros(size), torch.zeros(self.count, size)
        # of the frames that were there the last time
        self._slots: list[tuple[Callable[[], Tensor | None], Tensor]] = [
            (nothing, torch.zeros(size)) for _ in range(frames)
        ]
        parts = self.count * max(1, threads)
        spare = llvm_motion.spare_size(self.levels[0].stride, 3)
        self._spares = torch.zeros(parts, spare)
        # of the middle frame: its gradients, their products, and the inverses; of each neighbour:
        # errors or slopes, the motion in work, and that of the whole picture
        self._of_middle, self._of_each = torch.zeros(8, size), torch.zeros(self.count, 6, size)
        self._plane = torch.zeros(self.count, 6)
        self._still = torch.zeros(self.levels[0].height * self.levels[0].stride)
        self._motion = torch.zeros(self.count, 2, size)
        self._chosen = torch.zeros(self.count, 2, self.levels[0].height * self.levels[0].stride)
        self._moved = torch.zeros(self.count, 3, height, width)
        self.program = program = Program(kernels, threads)
        """What is run after `prepare`."""
        self._lumas = self._add_lumas(program, size)
        self._add_fit(program)
        self._add_estimate(program)
        # a few rows at a time: what all neighbours are compared with is then read once
        self._cuts = list(itertools.pairwise([*range(0, height, _MOVE_ROWS), height]))
        self._ends = np.array([end for _, end in self._cuts])
        self._ways = [self._add_move(program, height, width, llvm_motion.move)]
        self.folds = width % (2 * self.lanes) == 0
        """Whether frames of this size can be folded as they are moved."""
        if self.folds:
            move = llvm_motion.move_folded
            self._ways.append(self._add_move(program, height, width, move, [0, 0]))
        program.finish()

    # -- the programs

    def _add_lumas(self, program: Program, size: int) -> _Lumas:
        """Add the way from new frames to their luma at all levels, and from all to the window's."""
        name = self.kernels.name
        first, rooms = self.levels[0], [room for _, room in self._slots]
        shares = torch.tensor(align.LUMA) / align.SHRINK**2
        cuts = program.parts(first.height)
        shrink = program.add(
            name(llvm_motion.shrink),
            [0, 0, shares, first.width, first.height, first.stride],
            cuts * len(rooms),
            [{1: room} for room in rooms for _ in cuts],
        )
        halves = []
        for above, level in itertools.pairwise(self.levels):
            calls = program.add(
                name(llvm_motion.halve),
                [0, above.stride, 0, level.stride],
                [(0, level.height)] * len(rooms),
                [{0: room[above.start :], 2: room[level.start :]} for room in rooms],
            )
            halves.append((level.height, calls))
        targets = [*self._moving[: self.count // 2], self._fixed, *self._moving[self.count // 2 :]]
        copies = program.add(
            name(llvm_motion.copy),
            [0, 0],
            [(0, size)] * len(targets),
            [{1: target} for target in targets],
        )
        ends = np.array([end for _, end in cuts])
        return _Lumas(shrink.reshape(len(rooms), len(cuts), -1), ends, halves, copies)

    def _add_fit(self, program: Program) -> None:
        """Add the way from the levels of all frames to the motion that the whole picture shares."""
        name = self.kernels.name
        for number, level in reversed(list(enumerate(self.levels))):
            clip = min(align.MOST_CLIP, align.CLIP * 2**number)
            fixed, moving = self._fixed[level.start :], self._moving[:, level.start :]
            right, down, a, b, c = self._of_middle[:5, level.start :]
            self._add(program, level, name(llvm_motion.gradients), [fixed, right, down, a, b, c])
            cuts = program.parts(level.height, each=1)
            sizes = [level.width, level.height, level.stride]
            moments = torch.zeros(len(cuts), llvm_motion.MOMENTS)
            private = [{3: own} for own in moments]
            program.add(name(llvm_motion.moments), [a, b, c, 0, *sizes], cuts, private)
            sums = torch.zeros(self.count, len(cuts), llvm_motion.SLOPES)
            fits = [
                {1: moving[neighbour], 4: self._plane[neighbour], 5: sums[neighbour, part]}
                for neighbour in range(self.count)
                for part in range(len(cuts))
            ]
            solves = [{1: own, 2: plane} for own, plane in zip(sums, self._plane, strict=True)]
            is_coarse = number >= len(self.levels) - align.SHIFT_LEVELS
            steps = align.SHIFT_STEPS if is_coarse else align.PLANE_STEPS
            for step in range(steps):
                given = [fixed, 0, right, down, 0, 0, *sizes]
                program.add(name(llvm_motion.fit, clip), given, cuts * self.count, fits)
                constants = 1 if is_coarse else 3, align.PLANE_DAMPING, align.PLANE_STRIDE
                # in pixels of the next level
                factor = 2.0 if number and step == steps - 1 else 1.0
                program.add(
                    name(llvm_motion.solve, *constants, factor),
                    [moments, 0, 0, len(cuts), level.height * level.width],
                    [(0, 1)] * self.count,
                    solves,
                )
        common = self._of_each[:, 2:4].unbind(1)
        self._add_spread(program, 0, common)
        given = [self._fixed, self._moving, self._still, self._still, *common, *self._errors()]
        self._add(program, self.levels[0], name(llvm_motion.errors, align.CLIP), given)
        level, errors = self.levels[0], self._errors()
        program.add(
            name(llvm_motion.accept, align.PLANE_GAIN, align.FLOOR),
            [0, 0, 0, level.width, level.height, level.stride],
            [(0, 1)] * self.count,
            [dict(enumerate(each)) for each in zip(*errors, self._plane, strict=True)],
        )

    def _errors(self) -> tuple[Tensor, ...]:
        return self._of_each[:, :2].unbind(1)

    def _add_spread(self, program: Program, number: int, out: Sequence[Tensor]) -> None:
        """Add the shared motion's way to each pixel of a level."""
        name = self.kernels.name(llvm_motion.spread, 0.5**number)
        self._add(program, self.levels[number], name, [self._plane, *out])

    def _add_estimate(self, program: Program) -> None:
        """Add the way from the shared motion to the motion at the finest level."""
        name = self.kernels.name
        gate = align.GATE_REACH, align.GAIN
        for number, level in reversed(list(enumerate(self.levels))):
            clip = min(align.MOST_CLIP, align.CLIP * 2**number)
            fixed, moving = self._fixed[level.start :], self._moving[:, level.start :]
            right, down, a, b, c, p, q, r = self._of_middle[:, level.start :]
            first, second, third, fourth, *common = self._of_each[..., level.start :].unbind(1)
            motion = self._motion[..., level.start :].unbind(1)
            add = partial(self._add, program, level)
            add(name(llvm_motion.invert, align.REACH, align.DAMPING), [a, b, c, p, q, r])
            self._add_spread(program, number, common)
            if number + 1 < len(self.levels):
                self._enlarge(program, self.levels[number + 1], level)
            else:
                self._add_spread(program, number, motion)
            for _ in range(align.COARSE_STEPS if number else align.STEPS):
                given = [fixed, moving, *motion, right, down, first, second]
                add(name(llvm_motion.slopes, clip), given)
                given = [first, second, p, q, r, *motion]
                add(name(llvm_motion.improve, align.REACH, align.STRIDE), given)
            add(name(llvm_motion.smooth, align.SMOOTH_REACH), [*motion, third, fourth])
            given = [fixed, moving, *common, third, fourth, first, second]
            add(name(llvm_motion.errors, clip), given)
            given = [first, second, *common, third, fourth, *motion]
            add(name(llvm_motion.choose, *gate, align.SLOPE, align.FLOOR), given)
        still, chosen = [self._still, self._still], self._chosen.unbind(1)
        given = [self._fixed, self._moving, *still, *motion, first, second]
        add(name(llvm_motion.errors, align.CLIP), given)
        given = [first, second, *still, *motion, *chosen]
        add(name(llvm_motion.choose, *gate, align.STILL_SLOPE, align.FLOOR), given)

    def _add(self, program: Program, level: _Level, name: str, maps: Sequence[Tensor]) -> None:
        """Add a step of one resolution.

        Args:
            program: Where to.
            level: The resolution.
            name: The kernel.
            maps: What it is given first: `[size]` of the middle frame, `[T - 1, size]` of the
                neighbours; with one of these it is run for each neighbour.
        """
        cuts = program.parts(level.height, each=1)
        count = self.count if any(each.ndim > 1 for each in maps) else 1
        private = [
            {
                **{place: x[neighbour] for place, x in enumerate(maps) if x.ndim > 1},
                len(maps): self._spares[neighbour * len(cuts) + part],
            }
            for neighbour in range(count)
            for part in range(len(cuts))
        ]
        program.add(
            name, [*maps, 0, level.width, level.height, level.stride], cuts * count, private
        )

    def _enlarge(self, program: Program, small: _Level, large: _Level) -> None:
        """Add the motion's way from a level to the next finer one."""
        given = [
            (motion[axis, small.start :], motion[axis, large.start :])
            for motion in self._motion
            for axis in (0, 1)
        ]
        rows = _tables(small.height, large.height)
        columns = _padded(_tables(small.width, large.width), large.stride)
        cuts = program.parts(large.height, each=1)
        private = [
            {0: source, 6: target, 7: torch.zeros(small.stride)}
            for source, target in given
            for _ in cuts
        ]
        program.add(
            self.kernels.name(llvm_motion.enlarge, 2.0),
            [0, small.stride, *rows, *columns, 0, 0, large.height, large.stride],
            cuts * len(given),
            private,
        )

    def _add_move(
        self,
        program: Program,
        height: int,
        width: int,
        move: Callable[..., Emitter],
        more: Sequence[int] = (),
    ) -> NDArray[np.int64]:
        """Add a way from the motion to moved frames; gives its `[parts, T - 1, arguments]`."""
        level, cuts = self.levels[0], self._cuts
        spares = torch.zeros(len(cuts), self.count, llvm_motion.spare_size(level.stride, 2))
        private = [
            {2: motion[0], 3: motion[1], 4: spare}
            for part in spares
            for motion, spare in zip(self._chosen, part, strict=True)
        ]
        calls = program.add(
            self.kernels.name(move, align.SAME, align.UNLIKE, align.SHRINK),
            [*[0] * 6, *_tables(level.height, height), height, width, level.stride, *more],
            [cut for cut in cuts for _ in range(self.count)],
            private,
        )
        return calls.reshape(len(cuts), self.count, -1)

    # -- running

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
        moved = [room.view(room.shape) for room in self._moved]
        held = self.prepare(frames, moved)
        self.program.run(pool)
        del held
        moved.insert(len(frames) // 2, middle)
        return [
            frame if frame is None or frame is middle else room
            for frame, room in zip(frames, moved, strict=True)
        ]

    def prepare(self, frames: Window, to: Folds | Sequence[Tensor]) -> list[Tensor]:
        """Set what the next run of the program reads and writes.

        Args:
            frames: T of `[3, H, W]` float32. The luma of a tensor that was given the last time is
                not read again.
            to: Where the neighbours are moved to, `[3, H, W]` each, or folded by `folds`. Those
                that are missing are left out, and those that are the middle frame.

        Returns:
            The frames as the kernels read them, to be kept until the run is over.
        """
        middle, fixed = len(frames) // 2, middle_of(frames)
        there = [fixed if frame is None else frame for frame in frames]
        plain = [frame.float().contiguous() for frame in there]
        addresses = [frame.data_ptr() for frame in plain]
        self._place(there, addresses)
        self._plane.zero_()
        for way in self._ways:
            way[..., -1] = 0  # no rows
        if isinstance(to, Folds):
            moves, rooms = self._ways[1], list(to.places)
            moves[..., -4], moves[..., -3] = to.plane, to.row
            del rooms[middle]
        else:
            moves, rooms = self._ways[0], [room.data_ptr() for room in to]
        moves[..., 1], moves[..., 5] = addresses.pop(middle), rooms
        moves[..., 0] = addresses
        are_others = [frame is not fixed for frame in there]
        del are_others[middle]
        moves[..., -1] = np.where(are_others, self._ends[:, None], 0)
        return plain

    def _place(self, frames: Sequence[Tensor], addresses: Sequence[int]) -> None:
        """Have the luma made of those frames alone that are new."""
        rest = [
            index
            for index, (known, _) in enumerate(self._slots)
            if not any(known() is frame for frame in frames)
        ]
        shrinks, ends, halves, copies = self._lumas
        shrinks[..., -1] = 0  # no rows
        for _, calls in halves:
            calls[:, -1] = 0
        for place, (frame, address) in enumerate(zip(frames, addresses, strict=True)):
            slots = enumerate(self._slots)
            slot = next((index for index, (known, _) in slots if known() is frame), None)
            if slot is None:
                slot = rest.pop()
                self._slots[slot] = (weakref.ref(frame), self._slots[slot][1])
                shrinks[slot, :, 0], shrinks[slot, :, -1] = address, ends
                for height, calls in halves:
                    calls[slot, -1] = height
            copies[place, 0] = self._slots[slot][1].data_ptr()


def fits(height: int, width: int, lanes: int) -> bool:
    """Whether the kernels take frames of a size."""
    whole = not (height % align.SHRINK or width % align.SHRINK or width % lanes)
    return whole and width >= align.SHRINK * lanes


def _tables(small: int, large: int) -> tuple[Tensor, Tensor]:
    """Between which of the smaller ones the larger ones lie, as `F.interpolate` has it.

    Returns:
        `[2, large]` int32, the one before and the one behind, and `[large]` float32, how much of
        the one behind.
    """
    place = ((torch.arange(large) + 0.5) * (small / large) - 0.5).clamp_(min=0)
    before = place.int()
    return torch.stack([before, (before + 1).clamp_(max=small - 1)]), place - before


def _padded(tables: tuple[Tensor, Tensor], stride: int) -> tuple[Tensor, Tensor]:
    """Tables with rows of whole vectors."""
    missing = (0, stride - len(tables[1]))
    places, shares = (torch.nn.functional.pad(each, missing) for each in tables)
    return places.contiguous(), shares.contiguous()
