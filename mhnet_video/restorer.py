"""Run a network over frames: windows of neighbours in, restored planes out."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mhnet_video.color import add_residual, to_rgb
from mhnet_video.config import Box
from mhnet_video.engines import Choice, resolve_engine
from mhnet_video.errors import ConfigError
from mhnet_video.frame import Frame
from mhnet_video.network import MHNet
from mhnet_video.weights import DEFAULT_CPU, DEFAULT_CUDA, load_model

T = TypeVar("T")
Picture = TypeVar("Picture", NDArray[np.uint8], Tensor)

MAX_TILE_PIXELS = 2560 * 1600
"""Larger pictures are restored in tiles, which bounds the memory of the network's maps."""
TILE_MARGIN = 64
"""Pixels around a tile that the network sees as well, so that seams do not show."""
MAX_PIXELS = 80_000_000
"""Largest picture, in pixels; a window of three would not fit a small machine's memory."""


def resolve_device(name: str) -> torch.device:
    """Turn a device setting into a device; `auto` takes CUDA where there is one.

    Raises:
        ConfigError: There is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, not {name}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(
            f"device {name} is not on this machine, which has {found or 'no'} CUDA device"
            f"{'' if found == 1 else 's'} that PyTorch can use; take --device cpu or auto"
        )
    return device


class _Windows(Generic[T]):
    """The neighbours of each picture, the edge ones repeated at both ends of a run."""

    def __init__(self, frames: int) -> None:
        self._half = frames // 2
        self._held: deque[tuple[T, Tensor]] = deque(maxlen=frames)
        self._pushed = 0

    def push(self, item: T, rgb: Tensor) -> Iterator[tuple[T, Tensor]]:
        """Take the next picture; give what has all its neighbours now."""
        if self._held and self._held[-1][1].shape != rgb.shape:
            yield from self.flush()
        self._held.append((item, rgb))
        self._pushed += 1
        if self._pushed > self._half:
            yield self._window(self._pushed - 1 - self._half)

    def flush(self) -> Iterator[tuple[T, Tensor]]:
        """End the run; give the rest."""
        for index in range(max(0, self._pushed - self._half), self._pushed):
            yield self._window(index)
        self._held.clear()
        self._pushed = 0

    def _window(self, centre: int) -> tuple[T, Tensor]:
        """A picture's item, and its window, `[1, 3T, H, W]`."""
        first = self._pushed - len(self._held)
        neighbours = range(centre - self._half, centre + self._half + 1)
        indices = [min(max(index, 0), self._pushed - 1) - first for index in neighbours]
        window = torch.cat([self._held[index][1] for index in indices])
        return self._held[centre - first][0], window[None]


class Restorer:
    """A network on a device, fed with frames one after another.

    Not for several threads at once.

    Args:
        model: A shipped model's name, `auto` for the one that suits the device, or a network.
        weights: A weights file to use instead; None for the model's own.
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:<index>`.
        engine: What runs the network: `auto` (the fastest that can), `torch` or `llvm`.
        strength: Share of the restoration that is applied, 0 (none) to 1 (all).
        keep: Boxes left as they are.

    Raises:
        ConfigError: There is no such device or engine, or the strength is out of range.
        WeightsError: The weights cannot be loaded.
    """

    name: str
    """The model's name, or the weights file's."""
    device: torch.device
    """Where the network runs."""
    engine: Choice
    """What runs the network, and why."""
    passed_through: int
    """Frames left as they were because the network gave no finite numbers for them."""

    def __init__(
        self,
        model: str | MHNet = "auto",
        *,
        weights: str | PathLike[str] | None = None,
        device: str = "auto",
        engine: str = "auto",
        strength: float = 1.0,
        keep: Sequence[Box] = (),
    ) -> None:
        if not 0 <= strength <= 1:
            raise ConfigError(f"strength must be between 0 and 1, not {strength}")
        self.device = resolve_device(device)
        self.strength = strength
        self.keep = tuple(Box(*box) for box in keep)
        self.passed_through = 0
        if isinstance(model, MHNet):
            self.name, network = "custom", model.to(self.device).eval()
        else:
            if model == "auto":
                model = DEFAULT_CUDA if self.device.type == "cuda" else DEFAULT_CPU
            self.name = str(weights or model)
            network = load_model(weights or model, self.device)
        self.network = network
        self.engine = resolve_engine(network, engine)
        self._windows: _Windows[Any] = _Windows(network.config.frames)

    def stream(self, items: Iterable[Frame | T]) -> Iterator[Frame | T]:
        """Restore frames in order, one out for each one in.

        A frame comes out when its neighbours are known, half a window later; at both ends, and
        where the size changes, the edge frame stands for those that are missing.

        Args:
            items: Frames, and anything else, which passes through at once.

        Yields:
            The frames with new planes, and everything else as it was.

        Raises:
            ConfigError: A picture is too large.
        """
        windows: _Windows[Frame] = _Windows(self.network.config.frames)
        for item in items:
            if not isinstance(item, Frame) or self.strength == 0:
                yield item
            else:
                self._check_size(item.height, item.width)
                rgb = torch.rot90(to_rgb(item, self.device), -item.rotation // 90, (1, 2))
                for frame, window in windows.push(item, rgb):
                    yield self._restored(frame, window)
        for frame, window in windows.flush():
            yield self._restored(frame, window)

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
        windows: _Windows[Picture] = _Windows(self.network.config.frames)
        for picture in pictures:
            yield from self._pushed(windows, picture)
        for source, window in windows.flush():
            yield self._restored_picture(source, window)

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
        return list(self._pushed(self._windows, picture))

    def flush(self) -> list[Any]:
        """End the clip that was pushed: the restored pictures that are still missing."""
        return [self._restored_picture(*ready) for ready in self._windows.flush()]

    def _pushed(self, windows: "_Windows[Picture]", picture: Picture) -> Iterator[Picture]:
        if picture.ndim != 3 or picture.shape[2] != 3 or str(picture.dtype)[-5:] != "uint8":
            raise ValueError(f"expected [H, W, 3] uint8, got {list(picture.shape)} {picture.dtype}")
        self._check_size(*picture.shape[:2])
        rgb = torch.as_tensor(picture).to(self.device).permute(2, 0, 1).float() / 255
        for source, window in windows.push(picture, rgb):
            yield self._restored_picture(source, window)

    def _restored(self, frame: Frame, window: Tensor) -> Frame:
        residual = torch.rot90(self._residual(window)[0], frame.rotation // 90, (1, 2))
        if not bool(residual.isfinite().all()):
            self.passed_through += 1
            return frame
        planes = add_residual(frame, residual, strength=self.strength, keep=self.keep)
        return replace(frame, planes=planes)

    def _restored_picture(self, source: Picture, window: Tensor) -> Picture:
        middle = window[0, window.shape[1] // 6 * 3 :][:3]
        residual = self._residual(window)[0]
        if not bool(residual.isfinite().all()):
            self.passed_through += 1
            return source
        value = (middle + residual * self.strength).mul_(255).round_().clamp_(0, 255)
        samples = value.permute(1, 2, 0).to(torch.uint8).contiguous()
        given = torch.as_tensor(source)
        for box in self.keep:
            rows = slice(box.y, box.y + box.height)
            columns = slice(box.x, box.x + box.width)
            samples[rows, columns] = given[rows, columns].to(samples.device)
        if isinstance(source, Tensor):
            return samples.to(source.device)
        return samples.cpu().numpy()

    @torch.inference_mode()
    def _residual(self, window: Tensor) -> Tensor:
        """What the network adds to the middle picture, `[1, 3, H, W]`."""
        height, width = window.shape[-2:]
        if height * width <= MAX_TILE_PIXELS:
            return self._run(window)
        rows = -(-height // max(64, min(height, round(MAX_TILE_PIXELS**0.5))))
        columns = -(-width * -(-height // rows) // MAX_TILE_PIXELS)
        residual = window.new_empty(1, 3, height, width)
        for top, bottom in _cuts(height, rows):
            for left, right in _cuts(width, columns):
                outer_top, outer_left = max(0, top - TILE_MARGIN), max(0, left - TILE_MARGIN)
                tile = window[
                    :, :, outer_top : bottom + TILE_MARGIN, outer_left : right + TILE_MARGIN
                ]
                residual[:, :, top:bottom, left:right] = self._run(tile)[
                    :,
                    :,
                    top - outer_top : bottom - outer_top,
                    left - outer_left : right - outer_left,
                ]
        return residual

    def _run(self, window: Tensor) -> Tensor:
        height, width = window.shape[-2:]
        multiple = self.network.config.multiple
        # repeating the edge shows the network a scene that goes on; zeros would be a black bar
        padding = (0, -width % multiple, 0, -height % multiple)
        if any(padding):
            window = F.pad(window, padding, mode="replicate")
        return self.engine.engine.residual(window)[..., :height, :width]

    @staticmethod
    def _check_size(height: int, width: int) -> None:
        if height * width > MAX_PIXELS:
            raise ConfigError(
                f"a picture of {width}x{height} is too large to restore: at most "
                f"{MAX_PIXELS // 1_000_000} megapixels"
            )


def _cuts(length: int, parts: int) -> list[tuple[int, int]]:
    """Nearly equal ranges that cover 0 to length, beginning at even places."""
    edges = [round(length * part / parts / 2) * 2 for part in range(parts)] + [length]
    return list(itertools.pairwise(edges))
