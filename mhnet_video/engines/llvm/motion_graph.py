"""The execution graph of the motion between frames, for windows of one size."""

import itertools
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.engines.llvm.scheduler import Argument, Kernels, Program
from mhnet_video.kernels import (
    llvm_motion_affine,
    llvm_motion_maps,
    llvm_motion_pyramid,
    llvm_motion_warp,
    llvm_motion_windows,
)
from mhnet_video.kernels.llvm_signature import Signature
from mhnet_video.model import align

_MOVE_ROWS = 32
"""Rows of a part of the move."""


class PyramidLevel(NamedTuple):
    """A resolution at which motion is estimated."""

    height: int
    width: int
    stride: int
    """Elements from a row to the next, whole vectors."""
    start: int
    """Where it begins among all levels of a picture."""

    @property
    def shape(self) -> dict[str, int]:
        """The arguments for the shape of its maps."""
        return {"width": self.width, "height": self.height, "stride": self.stride}


def _pyramid(rows: int, columns: int, lanes: int) -> tuple[list[PyramidLevel], int]:
    """The levels of a picture, from the finest on, and the elements of all."""
    levels, size = [], 0
    while True:
        stride = -(-columns // lanes) * lanes
        levels.append(PyramidLevel(rows, columns, stride, size))
        size += rows * stride + 2 * lanes  # halving reads beyond the end
        if min(rows, columns) < 2 * align.LEAST_SIDE:
            return levels, size
        rows, columns = rows // 2, columns // 2


class LumaCalls(NamedTuple):
    """The calls that make luma, to be changed before each run."""

    shrinks: NDArray[np.void]
    """`[slots, cuts]`."""
    ends: NDArray[np.int64]
    """The ends of the cuts."""
    halves: list[tuple[int, NDArray[np.void]]]
    """The height of each level but the first, and `[slots]`."""
    copies: NDArray[np.void]
    """`[T]`."""


_MOVE_ALL = -2.0, -1.0
"""Limits in place of `align.SAME` and `align.UNLIKE` that every difference is beyond."""


class MotionGraph:
    """The maps and the program of the motion between frames.

    Args:
        kernels: The engine's kernels.
        height: Of the frames, in pixels.
        width: Of the frames, in pixels.
        frames: T.
        threads: How many threads work.
        slots: Frames whose luma is kept, T at least.
        moves_all: See `align.align`.
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
        slots: int,
        moves_all: bool = False,
        int8: bool = False,
    ) -> None:
        self._moves_all = moves_all
        self._kernels, lanes = kernels, kernels.machine.lanes
        self._count = frames - 1
        self._levels, size = _pyramid(height // align.SHRINK, width // align.SHRINK, lanes)
        finest = self._levels[0]
        self._fixed, self._moving = torch.zeros(size), torch.zeros(self._count, size)
        self.slots = [torch.zeros(size) for _ in range(slots)]
        """Memory for the luma of frames at all levels, each a slot; none is taken before it is
        used."""
        spare = llvm_motion_maps.spare_size(finest.stride, 3)
        self._spares = torch.zeros(self._count * max(1, threads), spare)
        # of the middle frame: its gradients, their products, and the inverses; of each neighbour:
        # errors or slopes, the motion in work, and that of the whole picture
        self._of_middle, self._of_each = torch.zeros(8, size), torch.zeros(self._count, 6, size)
        self.planes = torch.zeros(self._count, 6)
        """The shared motion of each neighbour; zero before each run."""
        self._still = torch.zeros(finest.height * finest.stride)
        self._motion = torch.zeros(self._count, 2, size)
        self._chosen = torch.zeros(self._count, 2, finest.height * finest.stride)
        self.program = Program(kernels, threads)
        """What is run after its calls are set."""
        self.lumas = self._add_lumas(size)
        """The calls that make luma."""
        self._add_fit()
        self._add_estimate()
        # a few rows at a time: what all neighbours are compared with is then read once
        self._cuts = list(itertools.pairwise([*range(0, height, _MOVE_ROWS), height]))
        self.ends = np.array([end for _, end in self._cuts])
        """The ends of the parts of a move."""
        self.moves = self._add_move(height, width)
        """The calls that move neighbours, `[parts, T - 1]`."""
        self.folded_moves: NDArray[np.void] | None = None
        """The same for frames that are folded as they are moved; None if they cannot be."""
        if width % (2 * lanes) == 0:
            options = {"int8": int8}
            self.folded_moves = self._add_move(height, width, options, plane=0, planes_row=0)
        self.program.finish()

    # -- luma

    def _add_lumas(self, size: int) -> LumaCalls:
        """Add the way from new frames to their luma at all levels, and from all to the window's."""
        kernel, program, slots = self._kernels.kernel, self.program, self.slots
        finest = self._levels[0]
        cuts = program.parts(finest.height)
        shrinks = program.add(
            kernel(llvm_motion_pyramid.shrink),
            cuts * len(slots),
            x=0,
            out=[slot for slot in slots for _ in cuts],
            shares=torch.tensor(align.LUMA) / align.SHRINK**2,
            **finest.shape,
        )
        halves = []
        for above, level in itertools.pairwise(self._levels):
            calls = program.add(
                kernel(llvm_motion_pyramid.halve),
                [(0, level.height)] * len(slots),
                x=[slot[above.start :] for slot in slots],
                x_stride=above.stride,
                out=[slot[level.start :] for slot in slots],
                stride=level.stride,
            )
            halves.append((level.height, calls))
        middle = self._count // 2
        targets = [*self._moving[:middle], self._fixed, *self._moving[middle:]]
        copies = program.add(
            kernel(llvm_motion_pyramid.copy), [(0, size)] * len(targets), x=0, out=targets
        )
        ends = np.array([end for _, end in cuts])
        return LumaCalls(shrinks.reshape(len(slots), len(cuts)), ends, halves, copies)

    # -- the motion of the whole picture

    def _add_fit(self) -> None:
        """Add the way from the levels of all frames to the motion that the whole picture shares."""
        kernel = self._kernels.kernel
        for number, level in reversed(list(enumerate(self._levels))):
            fixed = self._fixed[level.start :]
            right, down, a, b, c = self._of_middle[:5, level.start :]
            gradients = kernel(llvm_motion_pyramid.gradients)
            self._add(level, gradients, x=fixed, right=right, down=down, a=a, b=b, c=c)
            self._add_fit_of_level(number, level)
        finest, (old, new) = self._levels[0], self._of_each[:, :2].unbind(1)
        common = self._of_each[:, 2:4]
        self._add_spread(0, common)
        self._add_errors(finest, align.CLIP, None, common)
        self.program.add(
            kernel(llvm_motion_affine.accept, align.PLANE_GAIN, align.FLOOR),
            [(0, 1)] * self._count,
            old=old.unbind(),
            new=new.unbind(),
            plane=self.planes.unbind(),
            **finest.shape,
        )

    def _add_fit_of_level(self, number: int, level: PyramidLevel) -> None:
        """Add the steps of least squares at a level."""
        kernel, program = self._kernels.kernel, self.program
        fixed, moving = self._fixed[level.start :], self._moving[:, level.start :]
        right, down, a, b, c = self._of_middle[:5, level.start :]
        cuts = program.parts(level.height, each=1)
        moments = torch.zeros(len(cuts), llvm_motion_affine.MOMENTS)
        program.add(
            kernel(llvm_motion_affine.moments),
            cuts,
            a=a,
            b=b,
            c=c,
            out=moments.unbind(),
            **level.shape,
        )
        sums = torch.zeros(self._count, len(cuts), llvm_motion_affine.SLOPES)
        is_coarse = number >= len(self._levels) - align.SHIFT_LEVELS
        steps = align.SHIFT_STEPS if is_coarse else align.PLANE_STEPS
        for step in range(steps):
            program.add(
                kernel(llvm_motion_affine.fit, _clip(number)),
                cuts * self._count,
                fixed=fixed,
                moving=[each for each in moving for _ in cuts],
                right=right,
                down=down,
                plane=[each for each in self.planes for _ in cuts],
                out=sums.flatten(0, 1).unbind(),
                **level.shape,
            )
            terms = 1 if is_coarse else 3
            # in pixels of the next level
            factor = 2.0 if number and step == steps - 1 else 1.0
            program.add(
                kernel(
                    llvm_motion_affine.solve,
                    terms,
                    align.PLANE_DAMPING,
                    align.PLANE_STRIDE,
                    factor,
                ),
                [(0, 1)] * self._count,
                moments=moments,
                slopes=sums.unbind(),
                plane=self.planes.unbind(),
                parts=len(cuts),
                pixels=level.height * level.width,
            )

    def _add_spread(self, number: int, out: Tensor) -> None:
        """Add the shared motion's way to each pixel of a level, `[T - 1, 2, size]`."""
        kernel = self._kernels.kernel(llvm_motion_affine.spread, 0.5**number)
        self._add(self._levels[number], kernel, plane=self.planes, **_axes("out", out))

    # -- the motion of windows

    def _add_estimate(self) -> None:
        """Add the way from the shared motion to the motion at the finest level."""
        kernel = self._kernels.kernel
        for number, level in reversed(list(enumerate(self._levels))):
            fixed, moving = self._fixed[level.start :], self._moving[:, level.start :]
            right, down, a, b, c, p, q, r = self._of_middle[:, level.start :]
            of_each = self._of_each[..., level.start :]
            slopes, smoothed, common = of_each[:, :2], of_each[:, 2:4], of_each[:, 4:]
            motion = self._motion[..., level.start :]
            add = partial(self._add, level)
            invert = kernel(llvm_motion_windows.invert, align.REACH, align.DAMPING)
            add(invert, a=a, b=b, c=c, p=p, q=q, r=r)
            self._add_spread(number, common)
            if number + 1 < len(self._levels):
                self._add_enlarge(self._levels[number + 1], level)
            else:
                self._add_spread(number, motion)
            for _ in range(align.COARSE_STEPS if number else align.STEPS):
                add(
                    kernel(llvm_motion_windows.slopes, _clip(number)),
                    fixed=fixed,
                    moving=moving,
                    right=right,
                    down=down,
                    **_axes("motion", motion),
                    **_axes("out", slopes),
                )
                add(
                    kernel(llvm_motion_windows.improve, align.REACH, align.STRIDE),
                    p=p,
                    q=q,
                    r=r,
                    **_axes("slope", slopes),
                    **_axes("motion", motion),
                )
            add(
                kernel(llvm_motion_windows.smooth, align.SMOOTH_REACH),
                **_axes("motion", motion),
                **_axes("out", smoothed),
            )
            self._add_errors(level, _clip(number), common, smoothed)
            self._add_choice(level, align.SLOPE, common, smoothed, motion)
        if self._moves_all:
            return
        finest = self._levels[0]
        self._add_errors(finest, align.CLIP, None, self._motion)
        self._add_choice(finest, align.STILL_SLOPE, None, self._motion, self._chosen)

    def _add_errors(
        self, level: PyramidLevel, clip: float, old: Tensor | None, new: Tensor
    ) -> None:
        """Add the errors of two motions, `[T - 1, 2, size]`; of none if there is no old one."""
        first, second = self._of_each[:, :2, level.start :].unbind(1)
        self._add(
            level,
            self._kernels.kernel(llvm_motion_windows.errors, clip),
            fixed=self._fixed[level.start :],
            moving=self._moving[:, level.start :],
            out_old=first,
            out_new=second,
            **self._axes_or_still("old", old),
            **_axes("new", new),
        )

    def _add_choice(
        self, level: PyramidLevel, slope: float, old: Tensor | None, new: Tensor, out: Tensor
    ) -> None:
        """Add the choice between two motions by their errors."""
        first, second = self._of_each[:, :2, level.start :].unbind(1)
        self._add(
            level,
            self._kernels.kernel(
                llvm_motion_windows.choose, align.GATE_REACH, align.GAIN, slope, align.FLOOR
            ),
            old_errors=first,
            new_errors=second,
            **self._axes_or_still("old", old),
            **_axes("new", new),
            **_axes("out", out),
        )

    def _axes_or_still(self, name: str, motion: Tensor | None) -> dict[str, Tensor]:
        if motion is None:
            return {f"{name}_x": self._still, f"{name}_y": self._still}
        return _axes(name, motion)

    def _add_enlarge(self, small: PyramidLevel, large: PyramidLevel) -> None:
        """Add the motion's way from a level to the next finer one."""
        axes = self._motion.flatten(0, 1)
        rows, row_shares = _tables(small.height, large.height)
        columns, column_shares = _padded(_tables(small.width, large.width), large.stride)
        cuts = self.program.parts(large.height, each=1)
        self.program.add(
            self._kernels.kernel(llvm_motion_windows.enlarge, 2.0),
            cuts * len(axes),
            x=[axis[small.start :] for axis in axes for _ in cuts],
            x_stride=small.stride,
            rows=rows,
            row_shares=row_shares,
            columns=columns,
            column_shares=column_shares,
            out=[axis[large.start :] for axis in axes for _ in cuts],
            spare=[torch.zeros(small.stride) for _ in axes for _ in cuts],
            height=large.height,
            stride=large.stride,
        )

    def _add(self, level: PyramidLevel, kernel: Signature, **maps: Tensor) -> None:
        """Add a step of one resolution.

        Args:
            level: The resolution.
            kernel: The kernel.
            maps: `[size]` of the middle frame, `[T - 1, size]` of the neighbours; with one of
                these the kernel is run for each neighbour.
        """
        cuts = self.program.parts(level.height, each=1)
        count = self._count if any(each.ndim > 1 for each in maps.values()) else 1
        given: dict[str, Argument] = {
            name: [each for each in x for _ in cuts] if x.ndim > 1 else x
            for name, x in maps.items()
        }
        spares = self._spares[: count * len(cuts)].unbind()
        self.program.add(kernel, cuts * count, spare=spares, **given, **level.shape)

    # -- the move

    def _add_move(
        self, height: int, width: int, options: Mapping[str, bool] | None = None, **folds: int
    ) -> NDArray[np.void]:
        """Add a way from the motion to moved frames.

        Args:
            height: Of the frames.
            width: Of the frames.
            options: Of the kernel that folds them; None for the one that does not.
            folds: That kernel's further arguments.

        Returns:
            Its calls, `[parts, T - 1]`.
        """
        level, cuts = self._levels[0], self._cuts
        size = llvm_motion_maps.spare_size(level.stride, 2)
        spares = torch.zeros(len(cuts) * self._count, size)
        rows, row_shares = _tables(level.height, height)
        move = llvm_motion_warp.move if options is None else llvm_motion_warp.move_folded
        motion = self._motion[:, :, level.start :] if self._moves_all else self._chosen
        motion_x, motion_y = motion.unbind(1)
        limits = _MOVE_ALL if self._moves_all else (align.SAME, align.UNLIKE)
        calls = self.program.add(
            self._kernels.kernel(move, *limits, align.SHRINK, **(options or {})),
            [cut for cut in cuts for _ in range(self._count)],
            x=0,
            fixed=0,
            motion_x=[*motion_x] * len(cuts),
            motion_y=[*motion_y] * len(cuts),
            spare=spares.unbind(),
            out=0,
            rows=rows,
            row_shares=row_shares,
            height=height,
            width=width,
            stride=level.stride,
            **folds,
        )
        return calls.reshape(len(cuts), self._count)


def _clip(number: int) -> float:
    """Where errors are clipped at a level."""
    return min(align.MOST_CLIP, align.CLIP * 2**number)


def _axes(name: str, motion: Tensor) -> dict[str, Tensor]:
    """The arguments for both axes of a motion, `[T - 1, 2, size]`."""
    x, y = motion.unbind(1)
    return {f"{name}_x": x, f"{name}_y": y}


def _tables(small: int, large: int) -> tuple[Tensor, Tensor]:
    """Between which of the smaller ones the larger ones lie, as `F.interpolate` has it.

    Returns:
        `[2, large]` int32, the one before and the one behind, and `[large]` float32, how much of
        the one behind.
    """
    position = ((torch.arange(large) + 0.5) * (small / large) - 0.5).clamp_(min=0)
    before = position.int()
    return torch.stack([before, (before + 1).clamp_(max=small - 1)]), position - before


def _padded(tables: tuple[Tensor, Tensor], stride: int) -> tuple[Tensor, Tensor]:
    """Tables with rows of whole vectors."""
    missing = (0, stride - len(tables[1]))
    positions, shares = (torch.nn.functional.pad(each, missing) for each in tables)
    return positions.contiguous(), shares.contiguous()
