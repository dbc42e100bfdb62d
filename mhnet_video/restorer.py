"""Run a network over frames: windows of neighbours in, restored planes out."""

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from operator import is_
from os import PathLike
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.align import Window, is_alone, middle_of, window_of
from mhnet_video.color import add_residual, keep_boxes, to_rgb
from mhnet_video.config import Box, check_boxes, check_scale, check_strength
from mhnet_video.engines import Choice, Engine, TorchEngine, resolve_engine
from mhnet_video.errors import ConfigError, ShortageError
from mhnet_video.frame import DeviceFrame, Frame, Plane
from mhnet_video.hardware import on_host, with_planes
from mhnet_video.looks import agreed_residual
from mhnet_video.memory import is_shortage
from mhnet_video.neighbours import Neighbours, Step, places_of, with_steps
from mhnet_video.network import MHNet
from mhnet_video.resize import enlarged, shrunk
from mhnet_video.steady import FrameSteadier
from mhnet_video.weights import DEFAULT_CPU, DEFAULT_CUDA, load_model, resolve_device

if TYPE_CHECKING:
    from mhnet_video.cuda_engine import TritonEngine
    from mhnet_video.cuda_stream import PipedFrames

T = TypeVar("T")
Picture = TypeVar("Picture", NDArray[np.uint8], Tensor)
TILE_MARGIN = 64
"""Pixels around a tile that the network sees as well, so that seams do not show."""
MIN_TILE_PIXELS = 256 * 256
"""Smaller tiles would be margin, for the most part."""
MOST_ROWS, WORKING_ROWS = 1200, 1080
"""On a CPU, pictures with more rows than the former, or columns where these are fewer, are looked
at as if they had the latter: at 3840x2160 in a quarter of the time. Streaks are as large there as
the network knows them from training."""
MAX_PIXELS = 80_000_000
"""Largest picture, in pixels; a window of three would not fit a small machine's memory."""


@dataclass(frozen=True)
class _Seen(Generic[T]):
    """A picture on its way."""

    item: T
    rgb: Tensor
    """What the network sees of it; the same tensor where the picture is the same."""


class _Windows(Generic[T]):
    """The neighbours of each picture, in runs of pictures of one size."""

    def __init__(self, frames: int) -> None:
        self._neighbours: Neighbours[_Seen[T]] = Neighbours(frames)
        self._size: tuple[float, ...] = ()

    @property
    def last(self) -> _Seen[T] | None:
        """The picture that was pushed last; None for none."""
        return self._neighbours.last

    def push(
        self, item: T, rgb: Tensor, size: tuple[float, ...], step: Step = Step.NEXT
    ) -> list[tuple[T, Window]]:
        """Take the next picture; give what has all its neighbours now.

        Args:
            item: The picture.
            rgb: What the network sees of it; the same tensor again where the picture is the same.
            size: The picture's own, and its scale: where one changes, another run begins.
            step: What it is to the one before; a copy also where its tensor is the same.
        """
        ready = self.flush() if size != self._size else []
        self._size = size
        last = self._neighbours.last
        step = Step.COPY if last is not None and last.rgb is rgb else step
        return ready + _ready(self._neighbours.push(_Seen(item, rgb), step))

    def flush(self) -> list[tuple[T, Window]]:
        """End the run; give the rest."""
        return _ready(self._neighbours.flush())


def _ready(windows: list[list[_Seen[T]]]) -> list[tuple[T, Window]]:
    """The middle picture of each window, and what the network sees of all."""
    return [(seen[len(seen) // 2].item, window_of([each.rgb for each in seen])) for seen in windows]


class _UpToAnError(Iterator[T]):
    """Items up to the end or an error, which waits until what was there before it is given."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self.error: Exception | None = None

    def __next__(self) -> T:
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from None


class _Lanes:
    """Frames of a stream on their way through the lanes of an engine, in order.

    Args:
        restorer: Whose engine it is.
    """

    def __init__(self, restorer: "Restorer") -> None:
        self._restorer = restorer
        self._count = 1
        self._pool: ThreadPoolExecutor | None = None
        # the last window, the strength, and what comes of it
        self._last: tuple[Window, float, Future[tuple[Plane, ...] | None]] | None = None
        self._waiting: deque[tuple[Frame, Future[tuple[Plane, ...] | None], bool]] = deque()

    def put(self, frame: Frame, window: Window, scale: float) -> Iterator[Frame]:
        """Take a frame; give those that are ready, or for which there is no room any more."""
        restorer = self._restorer
        strength, keep = restorer.strength, restorer.keep
        # equal frames share one tensor: with the same ones around it the result is the same
        last = self._last
        is_known = last is not None and last[1] == strength and all(map(is_, last[0], window))
        if last is None or not is_known:
            planes = self._submit(frame, window, scale, strength, keep)
            self._last = last = (window, strength, planes)
        self._waiting.append((frame, last[2], is_known))
        # one more than there are lanes, so that none is without work while a frame is written
        most = self._count + 1 if self._count > 1 else 0
        while len(self._waiting) > most:
            yield self._take()

    def rest(self) -> Iterator[Frame]:
        """Give all that are still on their way."""
        while self._waiting:
            yield self._take()

    def close(self) -> None:
        """Wait for what is being worked on, and leave the rest."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _submit(
        self, frame: Frame, window: Window, scale: float, strength: float, keep: Sequence[Box]
    ) -> Future[tuple[Plane, ...] | None]:
        restorer = self._restorer
        rows, columns = middle_of(window).shape[1:]
        engines = restorer.engine.engine.lanes(rows * columns)
        self._count = len(engines)
        given = frame, window, scale, strength, keep
        if self._count == 1:
            done: Future[tuple[Plane, ...] | None] = Future()
            done.set_result(restorer._planes(engines[0], *given))
            return done
        if restorer._idle is None or restorer._idle[0] is not engines:
            restorer._idle = engines, SimpleQueue()
            for engine in engines:
                restorer._idle[1].put(engine)
        if self._pool is None:
            # of all processors, and no more are started than there are frames on their way
            self._pool = ThreadPoolExecutor(thread_name_prefix="mhnet-video lane")
        return self._pool.submit(_on_idle, restorer, restorer._idle[1], *given)

    def _take(self) -> Frame:
        frame, future, is_known = self._waiting.popleft()
        planes = future.result()
        if planes is None:
            self._restorer.passed_through += 1
            return frame
        self._restorer.repeated += is_known
        return replace(frame, planes=planes)


def _on_idle(
    restorer: "Restorer", idle: SimpleQueue[Engine], *given: Any
) -> tuple[Plane, ...] | None:
    """A frame's planes, by an engine that has nothing else to do."""
    engine = idle.get()
    try:
        return restorer._planes(engine, *given)
    finally:
        idle.put(engine)


class Restorer:
    """A network on a device, fed with frames one after another.

    Not for several threads at once.

    Args:
        model: A shipped model's name, `auto` for the one that suits the device, or a network.
        weights: A weights file to use instead; None for the model's own.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:<index>`.
        engine: What runs the network: `auto` (the fastest that can), `torch`, `llvm` or
            `triton`.
        strength: Share of the restoration that is applied, 0 (none) to 1 (all).
        keep: Boxes left as they are.
        scale: Share of the width and height at which the network works, above 0 to 1. Below 1 it
            sees the picture shrunk, and what it answers is enlarged before it is added: the time
            falls with the square, and the picture stays as sharp as it is. None for 1, and on a
            CPU for what makes 1080 rows of more than 1200.

    Raises:
        ConfigError: There is no such device or engine, the strength or scale is out of range, or
            there are weights for a network that has its own.
        WeightsError: The weights cannot be loaded.
    """

    name: str
    """The model's name, or the weights file's."""
    device: torch.device
    """Where the network runs."""
    engine: Choice
    """What runs the network, and why."""
    passed_through: int
    """Frames of the latest stream left as they were because the network gave no finite numbers
    for them."""
    repeated: int
    """Frames of the latest stream that took no time: they were the ones before them again."""
    steadies: bool
    """Whether streams are steadied where nothing moves, see `mhnet_video/steady.py`; True."""
    stays_on_gpu: bool
    """Whether frames that a GPU has decoded come out of a stream in its memory, where they can."""

    def __init__(
        self,
        model: str | MHNet = "auto",
        *,
        weights: str | PathLike[str] | None = None,
        device: str = "auto",
        engine: str = "auto",
        strength: float = 1.0,
        keep: Sequence[Sequence[int]] = (),
        scale: float | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.strength = strength
        self.scale = scale
        self.keep = keep
        self.passed_through = self.repeated = 0
        self.steadies = True
        self.stays_on_gpu = False
        if isinstance(model, MHNet):
            if weights is not None:
                raise ConfigError(
                    "a network has its weights; name a model or a weights file, not both"
                )
            self.name, network = "custom", model.to(self.device).eval()
        else:
            if model == "auto":
                model = DEFAULT_CUDA if self.device.type == "cuda" else DEFAULT_CPU
            self.name = str(weights or model)
            network = load_model(weights or model, self.device)
        self.network = network
        self.engine = resolve_engine(network, engine)
        self._windows: _Windows[_Given] = _Windows(network.config.frames)
        self._seen: list[tuple[Frame, float, Tensor]] = []
        self._last: tuple[Window, float, tuple[Plane, ...]] | None = None
        self._idle: tuple[Sequence[Engine], SimpleQueue[Engine]] | None = None
        self._last_picture: tuple[Window, tuple[Any, ...], Tensor] | None = None

    @property
    def strength(self) -> float:
        """Share of the restoration that is applied, 0 to 1; may be changed at any time."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        check_strength(value)
        self._strength = value

    @property
    def scale(self) -> float | None:
        """Working scale, above 0 to 1; from where it changes, another clip begins.

        None for what suits each picture's size.
        """
        return self._scale

    @scale.setter
    def scale(self, value: float | None) -> None:
        check_scale(value)
        self._scale = value

    def scale_at(self, height: int, width: int) -> float:
        """Working scale for pictures of a size, above 0 to 1."""
        if self.scale is not None:
            return self.scale
        rows = min(height, width)
        is_large = self.device.type == "cpu" and rows > MOST_ROWS
        return WORKING_ROWS / rows if is_large else 1.0

    @property
    def keep(self) -> tuple[Box, ...]:
        """Boxes left as they are."""
        return self._keep

    @keep.setter
    def keep(self, boxes: Sequence[Sequence[int]]) -> None:
        self._keep = check_boxes(boxes)

    def stream(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """Restore frames in order, one out for each one in.

        A frame comes out when its neighbours are known, half a window later; at both ends, and
        where the size or the scene changes, the next ones of the other side stand for those that
        are missing. Frames that repeat the one before come out with it: they are no neighbours, as
        they show the same rain. So do those of a raised frame rate that an encoder has changed a
        little; a clip's first dozen frames wait until that is known of them. A picture without any
        neighbour is looked at several times, and what these looks agree on is taken out.

        Args:
            items: Frames, and anything else, which passes through at once.

        Yields:
            The frames with new planes, and everything else as it was.

        Raises:
            ConfigError: A picture is too large.
        """
        self.passed_through = self.repeated = 0
        if not self.steadies:
            yield from self._unsteadied(items)
            return
        waiting: deque[Frame] = deque()
        steadier = FrameSteadier(self.device)
        last: tuple[Frame, Frame] | None = None

        def steadied(ahead: Frame | None) -> Frame:
            before, after = cast("tuple[Frame, Frame]", last)
            return steadier.push(before, after, ahead, share=self.strength, keep=self.keep)

        def remembered() -> Iterator[Frame | T]:
            for item in items:
                if isinstance(item, Frame):
                    waiting.append(item)
                yield item

        with closing(self._unsteadied(remembered())) as unsteadied:
            restored = _UpToAnError(unsteadied)
            for item in restored:
                if not isinstance(item, Frame):
                    yield item
                    continue
                if last is not None:
                    yield steadied(item)
                last = waiting.popleft(), item
        if last is not None:
            yield steadied(None)
        if restored.error is not None:
            raise restored.error

    def _unsteadied(self, items: Iterable[Frame | T]) -> Generator[Frame | T]:
        """The items as the network restores them."""
        piped = self._piped()
        if piped is None:
            yield from self._plain(items)
            return
        for item in piped.stream(self._checked(items)):
            self.repeated = piped.repeated
            yield item

    def _checked(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """The items, as long as none is too large."""
        for item in items:
            if isinstance(item, Frame):
                self._check_size(item.height, item.width)
            yield item

    @property
    def gpu(self) -> int | None:
        """The number of the GPU whose kernels restore streams; None where others do."""
        is_whole = self.scale is None or self.scale == 1
        if self.engine.name != "triton" or not is_whole or self.strength == 0:
            return None
        return self.device.index or 0

    def _piped(self) -> "PipedFrames | None":
        """What restores streams where the network is on a GPU and its kernels run."""
        if self.gpu is None:
            return None
        from mhnet_video.cuda_stream import PipedFrames

        return PipedFrames(
            cast("TritonEngine", self.engine.engine),
            self.strength,
            finish=self._finished,
            again=self._again,
            plain=self._plain,
            fail=self._fall_back,
            is_copy=_looks_equal,
            # boxes are put back on the host
            stays=self.stays_on_gpu and not self.keep,
        )

    def _fall_back(self) -> None:
        """Let PyTorch run the network from now on."""
        reason = "the triton engine failed"
        self.engine = Choice(TorchEngine(self.network), "torch", reason)

    def _finished(self, frame: Frame, planes: tuple[Plane, ...]) -> Frame:
        """A frame with the planes that came from the GPU."""
        # alpha is the source's own, and stays
        if self.keep:
            frame = on_host(frame)
            keep_boxes(frame, planes[: len(planes) - frame.layout.has_alpha], self.keep)
        return with_planes(frame, planes)

    def _again(self, window: Sequence[Frame | None]) -> Frame:
        """The middle frame of a window, in float32."""
        self._last = None
        frames = [None if frame is None else on_host(frame) for frame in window]
        seen = [None if frame is None else self._upright(frame) for frame in frames]
        middle = cast(Frame, frames[len(frames) // 2])
        return self._restored(middle, seen, 1.0, is_exact=True)

    def _plain(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """Restore a stream by the engine's lanes."""
        lanes = _Lanes(self)
        try:
            yield from self._through(lanes, self._checked(items))
        finally:
            lanes.close()

    def _through(self, lanes: _Lanes, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        windows: _Windows[tuple[Frame, float]] = _Windows(self.network.config.frames)
        last: tuple[Frame, float, Tensor] | None = None
        given = _UpToAnError(with_steps(items))
        for item, step in given:
            if not isinstance(item, Frame):
                yield item
                continue
            if self.strength == 0:
                for (frame, then), window in windows.flush():
                    yield from lanes.put(frame, window, then)
                yield from lanes.rest()
                yield item
                continue
            item = on_host(item)
            scale = self.scale_at(item.height, item.width)
            if last is not None and last[1] == scale and _looks_equal(last[0], item):
                rgb = last[2]
            else:
                rgb = self._upright(item)
            last = (item, scale, rgb)
            size = (*item.upright_size, scale)
            for (frame, then), window in windows.push((item, scale), rgb, size, step):
                yield from lanes.put(frame, window, then)
        if given.error is None:
            for (frame, then), window in windows.flush():
                yield from lanes.put(frame, window, then)
        yield from lanes.rest()
        if given.error is not None:
            raise given.error

    def restore_frame(self, frames: Sequence[Frame], index: int) -> Frame:
        """Restore one of some successive frames, where not every frame of a stream is wanted.

        Args:
            frames: Successive frames of one size.
            index: Which of them to restore.

        Raises:
            ConfigError: The picture is too large.
            IndexError: There is no such frame.
        """
        if not 0 <= index < len(frames):
            raise IndexError(f"index must be from 0 to {len(frames) - 1}, not {index}")
        if self.strength == 0:
            return frames[index]
        places = places_of(index, len(frames), self.network.config.frames)
        first = min(places)
        seen: list[tuple[Frame, float, Tensor]] = []
        for frame in frames[first : max(places) + 1]:
            self._check_size(frame.height, frame.width)
            scale = self.scale_at(frame.height, frame.width)
            known = (rgb for old, then, rgb in self._seen if old is frame and then == scale)
            rgb = next(known, None)
            if rgb is None and seen and _looks_equal(seen[-1][0], frame):
                rgb = seen[-1][2]
            seen.append((frame, scale, self._upright(frame) if rgb is None else rgb))
        self._seen = seen
        window = window_of([seen[place - first][2] for place in places])
        return self._restored(frames[index], window, seen[index - first][1])

    def restore(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """Restore RGB pictures in order, one out for each one in.

        Args:
            pictures: `[H, W, 3]` uint8, arrays or tensors.

        Yields:
            Restored pictures of the same kind and size, half a window later.

        Raises:
            ValueError: A picture has another shape or type.
            ConfigError: A picture is too large.
        """
        windows: _Windows[_Given] = _Windows(self.network.config.frames)
        self.passed_through = self.repeated = 0
        for picture in pictures:
            yield from cast("Iterator[Picture]", self._pushed(windows, picture))
        for given, window in windows.flush():
            yield self._restored_picture(given, window)

    def push(self, picture: Picture) -> list[Picture]:
        """Take one picture of a clip, where the next one is not known yet.

        Args:
            picture: `[H, W, 3]` uint8, RGB, an array or a tensor.

        Returns:
            The restored pictures that are ready, in order: none for the first ones of a clip,
            until half a window is there, then one for each.

        Raises:
            ValueError: The picture has another shape or type.
            ConfigError: The picture is too large.
        """
        return cast("list[Picture]", list(self._pushed(self._windows, picture)))

    def flush(self) -> list[Any]:
        """End the clip that was pushed: the restored pictures that are still missing."""
        return [self._restored_picture(*ready) for ready in self._windows.flush()]

    def _pushed(self, windows: "_Windows[_Given]", picture: Any) -> Iterator[Any]:
        if not isinstance(picture, (np.ndarray, Tensor)):
            raise ValueError(f"expected an array or a tensor, got {type(picture).__name__}")
        is_picture = picture.ndim == 3 and picture.shape[2] == 3 and min(picture.shape) > 0
        if not is_picture or str(picture.dtype)[-5:] != "uint8":
            raise ValueError(f"expected [H, W, 3] uint8, got {list(picture.shape)} {picture.dtype}")
        height, width = picture.shape[:2]
        self._check_size(height, width)
        scale = self.scale_at(height, width)
        given = _Given(_own(picture), isinstance(picture, Tensor), scale)
        last = windows.last
        if last is not None and last.item.scale == given.scale and _are_equal(last.item, given):
            rgb = last.rgb
        else:
            rgb = self._prepared(self._rgb(given.samples))
        for ready, window in windows.push(given, rgb, (height, width, given.scale)):
            yield self._restored_picture(ready, window)

    def _rgb(self, samples: Tensor) -> Tensor:
        """A picture of `[H, W, 3]` as `[3, H, W]` in [0, 1]."""
        return samples.to(self.device).permute(2, 0, 1).float() / 255

    def _upright(self, frame: Frame) -> Tensor:
        """What the network sees of a frame, `[3, H, W]`."""
        return self._prepared(_turned(to_rgb(frame, self.device), -frame.rotation))

    def _prepared(self, rgb: Tensor) -> Tensor:
        """The picture at the working scale, and as large as the network needs it."""
        height, width = rgb.shape[1:]
        height, width = _working_size(height, width, self.scale_at(height, width))
        if (height, width) != rgb.shape[1:]:
            rgb = shrunk(rgb, height, width)
        return self._padded(rgb).contiguous()

    def _padded(self, rgb: Tensor) -> Tensor:
        """The picture with its edge repeated until its sides are the network's multiples.

        The network sees a scene that goes on; zeros would be a black bar.
        """
        height, width = rgb.shape[1:]
        multiple = self.network.config.multiple
        padding = (0, -width % multiple, 0, -height % multiple)
        return F.pad(rgb[None], padding, mode="replicate")[0] if any(padding) else rgb

    def _restored(
        self, frame: Frame, window: Window, scale: float, *, is_exact: bool = False
    ) -> Frame:
        # equal frames share one tensor: with the same ones around it the result is the same
        if self._last is not None:
            seen, strength, planes = self._last
            if strength == self.strength and all(map(is_, seen, window)):
                self.repeated += 1
                return replace(frame, planes=planes)
        self._last = None
        engine = TorchEngine(self.network) if is_exact else self.engine.engine
        found = self._planes(engine, frame, window, scale, self.strength, self.keep)
        if found is None:
            self.passed_through += 1
            return frame
        self._last = window, self.strength, found
        return replace(frame, planes=found)

    @torch.inference_mode()  # in a lane's thread as in the caller's
    def _planes(
        self,
        engine: Engine,
        frame: Frame,
        window: Window,
        scale: float,
        strength: float,
        keep: Sequence[Box],
    ) -> tuple[Plane, ...] | None:
        """A frame's new planes; None where the network gives no finite numbers."""
        width, height = frame.upright_size
        residual = self._finite_residual(engine, window, height, width, scale)
        if residual is None:
            return None
        residual = _turned(residual, frame.rotation)
        return add_residual(frame, residual, strength=strength, keep=keep)

    def _restored_picture(self, given: "_Given", window: Window) -> Any:
        samples = given.samples
        known = self._last_picture
        settings = (self.strength, self.keep)
        if known is not None and known[1] == settings and all(map(is_, known[0], window)):
            # equal pictures share one tensor: with the same ones around it the result is the same
            self.repeated += 1
            return given.returned(known[2].clone())
        self._last_picture = None
        height, width = samples.shape[:2]
        seen = self._rgb(samples) if given.scale < 1 else middle_of(window)
        middle = seen[:, :height, :width]
        engine = self.engine.engine
        residual = self._finite_residual(engine, window, height, width, given.scale)
        if residual is None:
            self.passed_through += 1
            return given.returned(samples)
        value = (middle + residual * self.strength).mul_(255).round_().clamp_(0, 255)
        restored = value.permute(1, 2, 0).to(torch.uint8).contiguous()
        for box in self.keep:
            rows = slice(box.y, box.y + box.height)
            columns = slice(box.x, box.x + box.width)
            restored[rows, columns] = samples[rows, columns].to(restored.device)
        self._last_picture = window, settings, restored
        return given.returned(restored.clone())

    def _finite_residual(
        self, engine: Engine, window: Window, height: int, width: int, scale: float
    ) -> Tensor | None:
        """The residual, once more in float32 if it is not finite; None if that is not either."""
        residual = self._residual(engine, window, height, width, scale)
        if _is_finite(residual):
            return residual
        if isinstance(engine, TorchEngine) and not engine.bfloat16:
            return None  # it would be the same again
        residual = self._residual(TorchEngine(self.network), window, height, width, scale)
        return residual if _is_finite(residual) else None

    @torch.inference_mode()
    def _residual(
        self, engine: Engine, window: Window, height: int, width: int, scale: float
    ) -> Tensor:
        """What is to be added to a middle picture of this size, `[3, height, width]`."""
        rows, columns = _working_size(height, width, scale)
        seen = partial(self._seen_residual, engine)
        if is_alone(window):
            residual = agreed_residual(window, seen, self.network.config.multiple)
        else:
            residual = seen(window)
        residual = residual[:, :rows, :columns]
        if (rows, columns) != (height, width):
            residual = enlarged(residual, height, width)
        return residual

    def _seen_residual(self, engine: Engine, window: Window) -> Tensor:
        """What the network adds to the middle picture of a window, as large as that."""
        pixels = middle_of(window)[0].numel()
        while True:
            try:
                # at every try from the window itself: one that is aligned must not be once more
                aligns = self.network.config.align
                if pixels > engine.max_pixels:
                    return self._tiled(engine, engine.align(window) if aligns else window)
                return (engine.aligned_residual if aligns else engine.residual)(window)
            except RuntimeError as error:
                if not is_shortage(error):
                    raise
                failure = error.with_traceback(None)  # which would hold what was made until then
            self._shrink_tiles(engine, pixels, failure)

    def _shrink_tiles(self, engine: Engine, pixels: int, error: Exception) -> None:
        """Halve the pictures that an engine is given.

        Raises:
            ShortageError: They are small already.
        """
        engine.max_pixels = min(engine.max_pixels, pixels) // 2
        if engine.max_pixels < MIN_TILE_PIXELS:
            raise ShortageError(
                f"{self.device} has too little memory left for this network; take --device cpu, a "
                "smaller model, or end what else uses it"
            ) from error
        torch.cuda.empty_cache()

    def _tiled(self, engine: Engine, window: Window) -> Tensor:
        """What the network adds to a large picture, `[3, H, W]`, in tiles that overlap."""
        height, width = middle_of(window).shape[1:]
        most = engine.max_pixels
        rows = -(-height // max(64, min(height, round(most**0.5))))
        columns = -(-width * -(-height // rows) // most)
        cuts = _cuts(height, rows), _cuts(width, columns)
        # all of one size, for which engines plan once
        tall, wide = (
            min(length, max(end - begin for begin, end in parts) + 2 * TILE_MARGIN)
            for length, parts in zip((height, width), cuts, strict=True)
        )
        residual = torch.empty_like(middle_of(window))
        for top, bottom in cuts[0]:
            for left, right in cuts[1]:
                y = min(max(0, top - TILE_MARGIN), height - tall)
                x = min(max(0, left - TILE_MARGIN), width - wide)
                tile = [
                    None if frame is None else self._padded(frame[:, y : y + tall, x : x + wide])
                    for frame in window
                ]
                found = engine.residual(tile)
                part = found[:, top - y : bottom - y, left - x : right - x]
                residual[:, top:bottom, left:right] = part
        return residual

    @staticmethod
    def _check_size(height: int, width: int) -> None:
        if height * width > MAX_PIXELS:
            raise ConfigError(
                f"a picture of {width}x{height} is too large to restore: at most "
                f"{MAX_PIXELS // 1_000_000} megapixels"
            )


def _is_finite(x: Tensor) -> bool:
    """Whether all elements are numbers: one that is not makes their sum none, and that is quick."""
    return bool(x.sum().isfinite())


def _looks_equal(a: Frame, b: Frame) -> bool:
    """Whether two frames are the same picture, sample by sample."""
    if isinstance(a, DeviceFrame) or isinstance(b, DeviceFrame):
        return (
            isinstance(a, DeviceFrame)
            and isinstance(b, DeviceFrame)
            and (a.matrix, a.full_range, a.rotation) == (b.matrix, b.full_range, b.rotation)
            and torch.equal(a.luma, b.luma)
            and torch.equal(a.chroma, b.chroma)
        )
    return (a.layout, a.matrix, a.full_range, a.rotation) == (
        b.layout,
        b.matrix,
        b.full_range,
        b.rotation,
    ) and all(map(np.array_equal, a.planes, b.planes))


@dataclass(frozen=True, eq=False)
class _Given:
    """A picture as it was when it was given: whoever gave it may write into it afterwards."""

    samples: Tensor
    """`[H, W, 3]` uint8, where it was given."""
    is_tensor: bool
    scale: float
    """Working scale at that time."""

    def returned(self, samples: Tensor) -> Any:
        """Samples as a picture of the kind that was given."""
        return samples.to(self.samples.device) if self.is_tensor else samples.cpu().numpy()


def _own(picture: Any) -> Tensor:
    """A copy; of an array with any strides, and one that may not be written to."""
    if isinstance(picture, Tensor):
        return picture.detach().clone(memory_format=torch.contiguous_format)
    return torch.from_numpy(np.array(picture, order="C"))


def _are_equal(a: _Given, b: _Given) -> bool:
    if a.samples.shape != b.samples.shape or a.samples.device != b.samples.device:
        return False
    return torch.equal(a.samples, b.samples)


def _working_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width at which the network works."""
    if scale == 1:
        return height, width
    return max(1, round(height * scale)), max(1, round(width * scale))


def _turned(picture: Tensor, degrees: int) -> Tensor:
    """`[3, H, W]` turned counterclockwise by a multiple of 90 degrees; itself if by none."""
    return torch.rot90(picture, degrees // 90, (1, 2)) if degrees % 360 else picture


def _cuts(length: int, parts: int) -> list[tuple[int, int]]:
    """Nearly equal ranges that cover 0 to length, beginning at even places."""
    edges = [round(length * part / parts / 2) * 2 for part in range(parts)] + [length]
    return list(itertools.pairwise(edges))
