"""Temporal averaging of restored frames where nothing moves.

A network with few input frames leaves a remainder of every streak, and an encoder recodes what a
streak has crossed. Both flicker where nothing moves. A running mean of the restored frames removes
both. It is used only where nothing moves: neither the camera by a tenth of a pixel, nor an object.
It is shown only around what the network removed, or everywhere where it rains everywhere. Dry
pictures stay bit-identical.

Source: the motion of a part of the picture is that of Lucas and Kanade (1981), of one step. The
rest is this project's own. Its limits were chosen on clips of `samples/pan.py` that stand still or
creep by 0.25, 0.5 and 1 pixels a frame, and on footage of roads, crowds and hands in drawn rain:
`docs/training.md` has what was tried.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.config import Box
from mhnet_video.frame import DeviceFrame, Frame, Plane
from mhnet_video.memory import is_shortage
from mhnet_video.restoration.average_kernels import kernels_for, rows_between
from mhnet_video.restoration.color import keep_boxes
from mhnet_video.restoration.resize import opencv

Array = Any
"""A tensor, or an array where OpenCV is there: on a CPU it does this in a quarter of the time."""
MIN_SIDE = 64
"""Smallest side of a plane that is averaged, in pixels."""
_MOST_FRAMES = 8.0
"""Largest weight of the past: the running mean covers about so many frames."""
_STRIP_PIXELS = 1 << 15
"""Pixels that are worked on at a time on a CPU. Arrays of a whole picture would take 70 MB more at
3840x2160, fresh memory at every frame."""
_SQUARE = 4
"""Side in pixels of the blocks in which changes are measured."""
_PART = 16
"""Side in pixels of the larger blocks in which motion is measured."""
_CHANGE = 2.0, 5.0
"""Change of a block or its neighbours, in 8-bit levels beyond what the network removed there. Up to
the first it is at rest; from the second on it is not."""
_PASSING = 8.0, 16.0
"""The same limits where the next frame equals the past: a remainder of a streak, or its glow."""
_LASTING = 2.0, 4.0
"""Limits of a change around a block that persists in the next frame, in 8-bit levels. What the
network removed does not count: remainders of streaks come and go, a faint object persists."""
_CHANGED_SHARE = 0.1, 0.4
"""Limits of the share of moving blocks around a larger block, from which on it moves too."""
_MOTION = 0.05, 0.15
"""Limits of the motion of a larger block, in pixels."""
_DRIFT = 1.0, 2.0
"""Limits of the signed mean change of a larger block, in 8-bit levels: light that fades."""
_FLAT = 20.0
"""Added to squared gradients: with less texture a larger block shows no motion."""
_TAKEN_OUT = 0.05
"""Mean change by the network around a larger block, in 8-bit levels, from which on the mean is
shown in full."""


class PlaneAverage:
    """A running mean of successive restored planes, and the mask in which it is shown."""

    def __init__(self) -> None:
        self._mean: Array = None
        self._halves: Array = None
        self._count: Array = None
        self._ahead: tuple[Array, Array] | None = None
        self._result: Array = None

    def push(self, before: Array, after: Array, ahead: Array = None, *, share: float = 1) -> Array:
        """Take the next picture of a clip.

        Args:
            before: `[H, W]`, levels of 8 bits, as it was decoded; an array, or a tensor.
            after: The same, restored.
            ahead: The next one, restored; None where it is not known.
            share: Weight of the mean in the result, 0 to 1.

        Returns:
            The averaged picture, `[H, W]`: rounded to uint8 where `after` is an array of that type,
            else float32, until the next call and to be changed at will. None where there is nothing
            to average.
        """
        if min(after.shape) < MIN_SIDE:
            return None
        if ahead is not None and ahead.shape != after.shape:
            ahead = None
        known, self._ahead = self._ahead, None if ahead is None else (ahead, _shrunk(ahead, 2))
        halves = known[1] if known is not None and known[0] is after else _shrunk(after, 2)
        mean, old = self._mean, self._halves
        if mean is None or mean.shape != after.shape:
            self._begin(after, halves)
            return None
        later = None if self._ahead is None else self._ahead[1] - old
        found = _Blocks(before, after, old, halves - old, later)
        if not found.rests.any():
            self._begin(after, halves)
            return None
        weight, self._count = found.weight_of(self._count)
        weight_of = _enlarger(weight, old.shape)
        for rows in _strips(old):
            old[rows] += found.change[rows] * weight_of(rows)
        shown = found.shown * share if found.taken.any() else None
        kernels = kernels_for(after)
        if kernels is not None:
            wide = _resized(weight, mean.shape[1], len(weight), "INTER_LINEAR")
            if shown is not None:
                shown = _resized(shown, mean.shape[1], len(shown), "INTER_LINEAR")
            return kernels.average(after, mean, wide, shown)
        weight_of = _enlarger(weight, mean.shape)
        if shown is None:
            for rows in _strips(mean):
                mean[rows] += (_floats(after[rows]) - mean[rows]) * weight_of(rows)
            return None
        shown_of = _enlarger(shown, mean.shape)
        if self._result is None or self._result.shape != mean.shape:
            self._result = 0 * mean
        for rows in _strips(mean):
            new, past = _floats(after[rows]), mean[rows]
            past += (new - past) * weight_of(rows)
            step = past - new
            step *= shown_of(rows)
            step += new
            self._result[rows] = step
        if _are_bytes(after):
            return _rounded(self._result, 8).astype(np.uint8)
        return self._result

    def _begin(self, picture: Array, halves: Array) -> None:
        """Restart the mean with a plane that shows something else."""
        self._mean, self._halves, self._count = begun_plane(_floats(picture), halves)


def begun_plane(picture: Array, halves: Array = None) -> tuple[Array, Array, Array]:
    """Mean, mean in half of the size, and weights of the past, where a plane shows something else.

    Args:
        picture: `[H, W]` float32, levels of 8 bits.
        halves: The same in half of its size; None to compute it.
    """
    halves = _shrunk(picture, 2) if halves is None else halves
    return picture + 0, halves, 1 + 0 * _shrunk(halves, _SQUARE // 2)


def averaged_plane(
    state: tuple[Tensor, Tensor, Tensor],
    before: Tensor,
    after: Tensor,
    ahead: Tensor | None,
    share: Tensor,
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """What `PlaneAverage.push` does to a plane, without a decision.

    None is needed but for the time of a CPU. Where nothing rests, the weight of the plane is 1, so
    that the mean begins anew; where nothing was removed, nothing of the mean is shown.

    Args:
        state: From the plane before, as `begun_plane` has it.
        before: `[H, W]` float32, levels of 8 bits, as it was decoded.
        after: The same, restored.
        ahead: The next one, restored; None where it is not known.
        share: Weight of the mean in the result, 0 to 1.

    Returns:
        The state for the next plane, and the averaged plane, `[H, W]` float32.
    """
    mean, old, count = state
    later = None if ahead is None else _shrunk(ahead, 2) - old
    found = _Blocks(before, after, old, _shrunk(after, 2) - old, later)
    weight, count = found.weight_of(count)
    mean = mean + (after - mean) * _enlarged(weight, mean.shape)
    state = mean, old + found.change * _enlarged(weight, old.shape), count
    return state, (mean - after) * _enlarged(found.shown * share, mean.shape) + after


class _Blocks:
    """What is measured of a plane in blocks.

    Args:
        before: `[H, W]`, levels of 8 bits, as it was decoded.
        after: The same, restored.
        old: The running mean, in half of the size.
        change: That of the plane from it.
        later: The same of the next plane; None where it is not known.
    """

    def __init__(
        self, before: Array, after: Array, old: Array, change: Array, later: Array = None
    ) -> None:
        self.old, self.change = old, change
        self.taken = _taken(before, after)
        """How much the network removed from each block."""
        self.still = _still(change, later, self.taken)
        """How far each block is at rest, 0 to 1."""
        still = _around(_shrunk(1 - self.still, _PART // _SQUARE), 5)
        self.rests = _ramp(still, *_CHANGED_SHARE)
        """The same of larger blocks, but for their motion."""

    def weight_of(self, count: Array) -> tuple[Array, Array]:
        """The weight of the plane in the mean, and that of the past for the next one.

        Args:
            count: That of the past, for each block.
        """
        motion, drift = _motion(self.old, self.change)
        rests = self.rests * _ramp(motion, *_MOTION)
        rests = rests * _ramp(drift, *_DRIFT)
        still = self.still * _enlarged(rests, self.still.shape)
        count = (count * still).clip(0, _MOST_FRAMES - 1) + 1
        return 1 / count, count

    @property
    def shown(self) -> Array:
        """How far the mean is shown, 0 to 1, for each larger block."""
        taken = _shrunk(self.taken, _PART // _SQUARE)
        # in rain all over the picture, recoded blocks are all over it
        shown = (_around(taken, 9) + (taken.mean() - _TAKEN_OUT / 2).clip(0)) / _TAKEN_OUT
        return shown.clip(0, 1)


class Averaged:
    """A frame on its way through the average.

    Args:
        finish: Waits for it, and gives it.
    """

    def __init__(self, finish: Callable[[], Frame]) -> None:
        self._finish: Callable[[], Frame] | None = finish
        self._frame: Frame | None = None

    @torch.inference_mode()
    def result(self) -> Frame:
        """The averaged frame."""
        if self._finish is not None:
            finish, self._finish = self._finish, None
            self._frame = finish()
        assert self._frame is not None
        return self._frame


class FrameAverage:
    """Averages the frames of a stream: their luma, or the three planes of RGB.

    Args:
        device: Where to compute; None for a CPU.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")
        self._planes: list[PlaneAverage] = []
        self._last: tuple[Frame, Averaged] | None = None
        # what was made of the next frame's samples
        self._known: dict[int, tuple[Any, Array]] = {}

    def push(
        self,
        before: Frame,
        after: Frame,
        ahead: Frame | None = None,
        *,
        share: float = 1.0,
        keep: Sequence[Box] = (),
    ) -> Frame:
        """Take the next frame of a stream, and wait for it; otherwise as `start`."""
        return self.start(before, after, ahead, share=share, keep=keep).result()

    @torch.inference_mode()
    def start(
        self,
        before: Frame,
        after: Frame,
        ahead: Frame | None = None,
        *,
        share: float = 1.0,
        keep: Sequence[Box] = (),
    ) -> Averaged:
        """Take the next frame of a stream.

        Args:
            before: The frame as it was decoded.
            after: The restored frame. The samples of a `DeviceFrame` are changed in place.
            ahead: The next restored frame; None if unknown.
            share: Weight of the mean in the result, 0 to 1.
            keep: Boxes in which nothing changes; for frames on the host only.

        Returns:
            The averaged frame, which may be waited for; `after` without anything to average.
        """
        if self._last is not None and not _are_alike(after, self._last[0]):
            self._forget()
        if after is before or before.is_still:  # nothing was done, or nothing came before
            self._forget()
            return Averaged(lambda: after)
        if self._last is not None and _share_samples(after, self._last[0]):
            # a copy of the one before; on a GPU it has that one's samples already
            last, is_on_gpu = self._last[1], isinstance(after, DeviceFrame)
            return Averaged(
                lambda: after if is_on_gpu else replace(after, planes=last.result().planes)
            )
        if ahead is not None and not _are_alike(after, ahead):
            ahead = None
        try:
            out = self._started(before, after, ahead, share, keep)
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            # a network in tiles may leave no memory for the filter
            self._forget()
            return Averaged(lambda: after)
        self._last = after, out
        return out

    def _started(
        self, before: Frame, after: Frame, ahead: Frame | None, share: float, keep: Sequence[Box]
    ) -> Averaged:
        planes = 3 if after.layout.kind == "rgb" else 1
        while len(self._planes) < planes:
            self._planes.append(PlaneAverage())
        averaged: list[Plane | None] = [None] * planes
        for index, average in enumerate(self._planes[:planes]):
            new = self._levels(after, index)
            self._known.pop(index, None)
            later = None
            if ahead is not None:
                later = self._levels(ahead, index)
                self._known[index] = samples_of(ahead, index), later
            levels = average.push(self._levels(before, index), new, later, share=share)
            if levels is None:
                continue
            samples = levels
            if not _are_bytes(levels):
                if after.layout.bits > 8:
                    levels *= 2.0 ** (after.layout.bits - 8)
                samples = _rounded(levels, after.layout.bits)
            if isinstance(after, DeviceFrame):
                after.luma.copy_(torch.as_tensor(samples).int() << after.bits_down)
            else:
                if isinstance(samples, Tensor):
                    # as small as can be, for the way from a GPU
                    kind = torch.uint8 if after.layout.bits == 8 else torch.int32
                    samples = samples.to(kind).cpu().numpy()
                averaged[index] = samples.astype(after.planes[index].dtype, copy=False)
        frame = finished(before, after, averaged, keep)
        return Averaged(lambda: frame)

    def _forget(self) -> None:
        """Reset for another clip."""
        self._planes, self._last, self._known = [], None, {}

    def _levels(self, frame: Frame, index: int) -> Array:
        """A plane in levels of 8 bits, `[H, W]`; uint8 where it has no more bits."""
        known = self._known.get(index)
        if known is not None and known[0] is samples_of(frame, index):
            return known[1]
        samples: Array
        if isinstance(frame, DeviceFrame):
            samples = frame.luma.to(self._device)
            if samples.element_size() == 2:
                samples = (samples.int() & 0xFFFF) >> frame.bits_down
        else:
            samples = np.ascontiguousarray(frame.planes[index])
        if frame.layout.bits > 8:
            samples = _floats(samples) / 2.0 ** (frame.layout.bits - 8)
        if self._device.type == "cpu" and opencv() is not None:
            return samples.numpy() if isinstance(samples, Tensor) else samples
        return torch.as_tensor(samples).to(self._device)


def finished(
    before: Frame, after: Frame, planes: Sequence[Plane | None], keep: Sequence[Box]
) -> Frame:
    """A frame with averaged planes.

    Args:
        before: The frame as it was decoded.
        after: The restored frame.
        planes: Its first planes, averaged; None for those that stay as they are.
        keep: Boxes in which nothing changes.
    """
    if all(plane is None for plane in planes):
        return after
    averaged = [old if new is None else new for old, new in zip(after.planes, planes, strict=False)]
    keep_boxes(before, averaged, keep)
    return replace(after, planes=(*averaged, *after.planes[len(averaged) :]))


def _are_alike(a: Frame, b: Frame) -> bool:
    """Whether two frames have one size, layout and colour matrix."""
    return (a.height, a.width, a.layout, a.matrix, a.full_range) == (
        b.height,
        b.width,
        b.layout,
        b.matrix,
        b.full_range,
    )


def samples_of(frame: Frame, index: int) -> Any:
    """The array or tensor of a plane; of a `DeviceFrame` that of luma."""
    return frame.luma if isinstance(frame, DeviceFrame) else frame.planes[index]


def _share_samples(a: Frame, b: Frame) -> bool:
    """Whether two frames hold the same arrays."""
    return all(samples_of(a, index) is samples_of(b, index) for index in range(len(a.planes) or 1))


def _still(change: Array, later: Array, taken: Array) -> Array:
    """How far each block is at rest, 0 to 1.

    Args:
        change: Of a picture in half of its size, in levels.
        later: The same of the next picture; None where it is not known.
        taken: What the network removed from each block; a remainder may be as large.
    """
    change = _shrunk(change, _SQUARE // 2)
    later = None if later is None else _shrunk(later, _SQUARE // 2)
    allowed = _largest(taken, 3)
    first = (_largest(abs(change), 3) - allowed).clip(0)
    still = _ramp(first, *_CHANGE)
    around = _around(change, 3)
    lasting = abs(around)
    if later is not None:
        second = (_largest(abs(later), 3) - allowed).clip(0)
        passing = _ramp(second, *_CHANGE) * _ramp(first, *_PASSING)
        still = still + (passing - still).clip(0)
        # changes of one sign in both frames: half of |sum| - |difference|
        then = _around(later, 3)
        lasting = ((abs(around + then) - abs(around - then)) / 2).clip(0)
    return still * _ramp(_largest(lasting, 3), *_LASTING)


def _taken(before: Array, after: Array) -> Array:
    """The mean of what the network removed from each block, in levels.

    Every other row suffices to estimate it.
    """
    kernels = kernels_for(before, after)
    if kernels is not None:
        return kernels.taken_out(before, after)
    parts = []
    for rows in _strips(after, _SQUARE):
        every = slice(rows.start, rows.stop, 2)
        removed = abs(_floats(before[every]) - _floats(after[every]))
        parts.append(_shrunk(removed, _SQUARE // 2, _SQUARE))
    return _joined(parts)


def _motion(picture: Array, change: Array) -> tuple[Array, Array]:
    """Estimate the motion of each part, in pixels, and how far its light has changed, in levels.

    Args:
        picture: The earlier luma, at half size.
        change: Its difference to the current luma.
    """
    strips = [_gradient_products(picture, change, rows) for rows in _strips(change, _PART // 2)]
    products = [_joined(each) for each in zip(*strips, strict=True)]
    a, b, c, p, q, light = _all_around([*products, _shrunk(change, _PART // 2)], 5)
    a, c = a + _FLAT, c + _FLAT
    x, y, determinant = c * p - b * q, a * q - b * p, a * c - b * b
    return 2 * (x * x + y * y) ** 0.5 / determinant, abs(light)


def _gradient_products(picture: Array, change: Array, rows: slice) -> list[Array]:
    """Products of the gradients and the change, as means of the parts in some rows."""
    moved = change[rows]
    across, down = 0 * moved, 0 * moved
    across[:, 1:-1] = (picture[rows, 2:] - picture[rows, :-2]) / 2
    first, end = max(rows.start, 1), min(rows.stop, len(picture) - 1)
    vertical = picture[first + 1 : end + 1] - picture[first - 1 : end - 1]
    down[first - rows.start : end - rows.start] = vertical / 2
    pairs = (across, across), (across, down), (down, down), (across, moved), (down, moved)
    return [_shrunk(a * b, _PART // 2) for a, b in pairs]


def _ramp(x: Array, low: float, high: float) -> Array:
    """Linear ramp: 1 up to the lower limit, 0 from the higher one on."""
    return ((high - x) / (high - low)).clip(0, 1)


# operations that differ between arrays and tensors


def _strips(x: Array, unit: int = 1) -> Iterator[slice]:
    """Rows that are worked on together, so that what lies between stays in the cache.

    Args:
        x: `[H, W]`; a tensor is one strip.
        unit: Strips begin at multiples of it, and rows that fill none are dropped.
    """
    height = len(x) // unit * unit
    step = height
    if not isinstance(x, Tensor):
        step = max(_STRIP_PIXELS // (x.shape[1] * unit), 1) * unit
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def _joined(parts: Sequence[Array]) -> Array:
    """Strips below each other."""
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else np.concatenate(parts)


def _enlarger(x: Array, size: Sequence[int]) -> Callable[[slice], Array]:
    """What returns rows of `_enlarged`, which are new."""
    if isinstance(x, Tensor):
        whole = _enlarged(x, size)
        return lambda rows: whole[rows]
    wide = _resized(x, size[1], len(x), "INTER_LINEAR")
    above, share = rows_between(len(x), size[0])

    def enlarged(rows: slice) -> Array:
        low, high = wide[above[rows]], wide[above[rows] + 1]
        high -= low
        high *= share[rows, None]
        high += low
        return high

    return enlarged


def _are_bytes(x: Array) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == np.uint8


def _rounded(x: Array, bits: int) -> Array:
    """Levels as what is cut to whole samples of so many bits, in place."""
    x += 0.5
    top = 2.0**bits - 1
    return x.clip_(0, top) if isinstance(x, Tensor) else np.clip(x, 0, top, out=x)


def _floats(x: Array) -> Array:
    """Convert to float32; no copy if it is."""
    return x.float() if isinstance(x, Tensor) else x.astype(np.float32, copy=False)


def _shrunk(x: Array, rows: int, columns: int | None = None) -> Array:
    """Means of rectangles; incomplete ones at the right and at the bottom are dropped."""
    columns = columns or rows
    height, width = x.shape[0] // rows, x.shape[1] // columns
    if isinstance(x, Tensor):
        return F.avg_pool2d(x[None, None].float(), (rows, columns))[0, 0]
    return _resized(x[: height * rows, : width * columns], width, height, "INTER_AREA")


def _around(x: Array, side: int) -> Array:
    """Means over squares around each pixel; the edge is repeated."""
    if isinstance(x, Tensor):
        padded = F.pad(x[None, None], [side // 2] * 4, mode="replicate")
        return F.avg_pool2d(padded, side, stride=1)[0, 0]
    cv2: Any = opencv()
    return cv2.blur(x, (side, side), borderType=cv2.BORDER_REPLICATE)


def _all_around(maps: Sequence[Array], side: int) -> Sequence[Array]:
    """Means over squares around each pixel of several maps; of tensors all at once."""
    if not isinstance(maps[0], Tensor):
        return [_around(each, side) for each in maps]
    padded = F.pad(torch.stack(tuple(maps))[None], [side // 2] * 4, mode="replicate")
    return F.avg_pool2d(padded, side, stride=1)[0].unbind(0)


def _largest(x: Array, side: int) -> Array:
    """Maxima over squares around each pixel."""
    if isinstance(x, Tensor):
        return F.max_pool2d(x[None, None], side, stride=1, padding=side // 2)[0, 0]
    cv2: Any = opencv()
    return cv2.dilate(x, np.ones((side, side), np.uint8))


def _enlarged(x: Array, size: Sequence[int]) -> Array:
    """Enlarge a map by bilinear interpolation."""
    if isinstance(x, Tensor):
        return F.interpolate(x[None, None], tuple(size), mode="bilinear")[0, 0]
    return _resized(x, size[1], size[0], "INTER_LINEAR")


def _resized(x: Array, width: int, height: int, how: str) -> Array:
    cv2: Any = opencv()
    return _floats(cv2.resize(x, (width, height), interpolation=getattr(cv2, how)))
