"""A network on a device, applied to one window: scale, self-ensemble, tiles, and float32 again."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mhnet_video.engines.base import Engine, TorchEngine
from mhnet_video.errors import ConfigError, ShortageError
from mhnet_video.frame import Frame, Plane
from mhnet_video.memory import give_back_device_memory, is_shortage
from mhnet_video.model.network import MHNet
from mhnet_video.model.window import Window, is_alone, middle_of
from mhnet_video.restoration.color import add_residual, write_rgb
from mhnet_video.restoration.glass import pictures_of_glass
from mhnet_video.restoration.resize import enlarged_strips, shrunk
from mhnet_video.restoration.self_ensemble import COARSE_TRANSFORMS, TRANSFORMS, ensemble_residual
from mhnet_video.restoration.temporal_window import FrameWindow, NetworkImage
from mhnet_video.restoration.tiling import MIN_TILE_PIXELS, tiled_residual

MAX_PIXELS = 80_000_000
"""Largest picture, in pixels. A window of three larger ones would not fit a small machine's
memory."""


def check_size(height: int, width: int) -> None:
    """Refuse a picture that is too large.

    Raises:
        ConfigError: It has more than `MAX_PIXELS`.
    """
    if height * width > MAX_PIXELS:
        raise ConfigError(
            f"a picture of {width}x{height} is too large to restore: at most "
            f"{MAX_PIXELS // 1_000_000} megapixels"
        )


class WindowNetwork:
    """Restores the middle frame of a window by any engine.

    Args:
        network: The network, on its device.
        device: Device of the network.
    """

    def __init__(self, network: MHNet, device: torch.device) -> None:
        self.network = network
        self.device = device

    def prepare(self, window: FrameWindow) -> Window:
        """What the network sees of each picture; made once for each."""
        seen = [None if each is None else self._rgb(each) for each in window.images]
        return self._between(window, seen) if self.network.config.glass else seen

    @torch.inference_mode()
    def _between(self, window: FrameWindow, frames: Sequence[Tensor | None]) -> Window:
        """Put the frames of a window between the pictures of its glass."""
        if is_alone(frames):
            return [None, *frames, None]
        of_frames = [image.glass for image in window.images if image is not None]
        for image in window.images:
            if image is not None and image.rgb is not None:
                image.glass.remember(image.rgb)
        seen = dict.fromkeys([*of_frames, *window.seen])
        mean, difference = pictures_of_glass(window.middle.glass, list(seen))
        return [mean, *frames, difference]

    def _rgb(self, picture: NetworkImage) -> Tensor:
        if picture.rgb is None:
            picture.rgb = self.seen(picture.host_frame, picture.scale)
        return picture.rgb

    def seen(self, frame: Frame, scale: float = 1.0) -> Tensor:
        """What the network sees of a frame: upright RGB, padded, `[3, H, W]` in [0, 1].

        Args:
            frame: The frame, on the host.
            scale: Working scale.
        """
        width, height = frame.upright_size
        rows, columns = _working_size(height, width, scale)
        multiple = self.network.config.multiple
        padded = torch.empty(
            3, rows + -rows % multiple, columns + -columns % multiple, device=self.device
        )
        if scale > 1:
            whole = upright_rgb(frame, 1.0, self.device)
            for strip, pixels in enlarged_strips(whole, rows, columns):
                padded[:, strip, :columns] = pixels.clamp(0, 1)
        else:
            _write_upright(frame, padded[:, :rows, :columns])
        # its edge repeated, as by `_padded`
        padded[:, :rows, columns:] = padded[:, :rows, columns - 1 : columns]
        padded[:, rows:] = padded[:, rows - 1 : rows]
        return padded

    def _padded(self, rgb: Tensor) -> Tensor:
        """The picture with its edge repeated until its sides are the network's multiples.

        The network sees a scene that goes on; zeros would be a black bar.
        """
        height, width = rgb.shape[1:]
        multiple = self.network.config.multiple
        padding = (0, -width % multiple, 0, -height % multiple)
        return F.pad(rgb[None], padding, mode="replicate")[0] if any(padding) else rgb

    @torch.inference_mode()  # in a lane's thread as in the caller's
    def planes(
        self,
        engine: Engine,
        window: FrameWindow,
        seen: Window,
    ) -> tuple[Plane, ...] | None:
        """Restore the planes of a window's frame.

        Args:
            engine: Engine that runs the network.
            window: The window.
            seen: Result of `prepare` for the window.

        Returns:
            The planes; None if the residual is not finite.

        Raises:
            ShortageError: The device has too little memory even for small tiles.
        """
        frame, settings, scale = window.host_frame, window.settings, window.middle.scale
        width, height = frame.upright_size
        is_ensemble = is_alone(seen) and not settings.is_live
        residual = self._residual(engine, seen, height, width, scale, is_ensemble)
        if not _is_finite(residual):
            if isinstance(engine, TorchEngine) and not engine.bfloat16:
                return None  # it would be the same again
            exact = self.exact_engine()
            residual = self._residual(exact, seen, height, width, scale, is_ensemble)
        if not _is_finite(residual):
            return None
        residual = _turned(residual, frame.rotation)
        return add_residual(frame, residual, strength=settings.strength, keep=settings.keep)

    def exact_engine(self) -> Engine:
        """An engine that runs the network in float32."""
        return TorchEngine(self.network)

    def _residual(
        self,
        engine: Engine,
        seen: Window,
        height: int,
        width: int,
        scale: float,
        is_ensemble: bool,
    ) -> Tensor:
        """What is to be added to a middle picture of this size, at the working scale or at 1."""
        rows, columns = _working_size(height, width, scale)
        residual_of = partial(self._whole_residual, engine)
        if is_ensemble:
            residual = ensemble_residual(
                seen,
                residual_of,
                self.network.config.multiple,
                transforms=TRANSFORMS if self.network.task == "derain" else COARSE_TRANSFORMS,
            )
        else:
            residual = residual_of(seen)
        residual = residual[:, :rows, :columns]
        return shrunk(residual, height, width) if scale > 1 else residual

    def _whole_residual(self, engine: Engine, seen: Window) -> Tensor:
        """What the network adds to the middle picture of a window, as large as that."""
        pixels = middle_of(seen)[0].numel()
        while True:
            try:
                # at every try from the window itself: one that is aligned must not be once more
                aligns = self.network.config.align
                if pixels > engine.max_pixels:
                    window = engine.align(seen) if aligns else seen
                    return tiled_residual(window, engine.residual, self._padded, engine.max_pixels)
                return (engine.aligned_residual if aligns else engine.residual)(seen)
            except RuntimeError as error:
                if not is_shortage(error):
                    raise
                failure = error.with_traceback(None)  # a traceback would keep tensors alive
            self._shrink_tiles(engine, pixels, failure)

    def _shrink_tiles(self, engine: Engine, pixels: int, error: Exception) -> None:
        """Halve the largest tile of an engine.

        Raises:
            ShortageError: The tiles are at their smallest.
        """
        engine.max_pixels = min(engine.max_pixels, pixels) // 2
        if engine.max_pixels < MIN_TILE_PIXELS:
            raise ShortageError(
                f"{self.device} has too little memory left for this network; take --device cpu, a "
                "smaller model, or end what else uses it"
            ) from error
        give_back_device_memory()


def upright_rgb(frame: Frame, scale: float, device: torch.device) -> Tensor:
    """A frame as it is shown, at a working scale.

    Args:
        frame: The frame, on the host.
        scale: Working scale, above 0 to 1.
        device: Where to compute.

    Returns:
        `[3, height, width]` float32, RGB in [0, 1].
    """
    width, height = frame.upright_size
    rgb = torch.empty(3, *_working_size(height, width, scale), device=device)
    _write_upright(frame, rgb)
    return rgb


def _write_upright(frame: Frame, out: Tensor) -> None:
    """Write a frame as it is shown to `[3, h, w]`, of any smaller size."""
    if frame.rotation % 360 == 0:
        write_rgb(frame, out)
        return
    height, width = out.shape[1:]
    if frame.rotation % 180:
        height, width = width, height
    rgb = out.new_empty(3, height, width)
    write_rgb(frame, rgb)
    out.copy_(_turned(rgb, -frame.rotation))


def _is_finite(x: Tensor) -> bool:
    """Whether the sum of all elements is finite, which it is not if one of them is not.

    It is quicker to find, and no residual is so large that only its sum is not finite.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32:
        # PyTorch would wait for its threads, for longer than this takes, while others use the cores
        with np.errstate(invalid="ignore", over="ignore"):  # of infinities of both signs
            return math.isfinite(np.add.reduce(x.numpy(), axis=None))
    return bool(x.sum().isfinite())


def _working_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width at which the network works."""
    if scale == 1:
        return height, width
    return max(1, round(height * scale)), max(1, round(width * scale))


def _turned(picture: Tensor, degrees: int) -> Tensor:
    """`[3, H, W]` turned counterclockwise by a multiple of 90 degrees; itself if by none."""
    return torch.rot90(picture, degrees // 90, (1, 2)) if degrees % 360 else picture
