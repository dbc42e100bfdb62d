"""The interface of engines, and the engine that is PyTorch itself."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from mhnet_video.kernels.dispatch import off
from mhnet_video.model.align import align_frames
from mhnet_video.model.network import MHNet
from mhnet_video.model.window import Window, stacked


class Engine(Protocol):
    """Runs a network."""

    max_pixels: int
    """Largest picture in one piece; larger ones are passed in tiles, which bounds memory."""

    def lanes(self, pixels: int) -> "Sequence[Engine]":
        """Engines that may run concurrently, each in its own thread, for pictures of a size.

        Args:
            pixels: Pixels of a picture.

        Returns:
            Engines that share this one's threads, or only this one.
        """

    def free(self) -> None:
        """Give back the host's memory that is kept for pictures of a size; no frame is in work."""

    def residual(self, frames: Window) -> Tensor:
        """The residual of the middle frame, `[3, H, W]` float32, in memory of its own.

        Args:
            frames: The input frames of the network, `[3, H, W]` float32 each, RGB in [0, 1].
        """

    def align(self, frames: Window) -> Window:
        """Move the neighbours to where the middle frame shows the same things, see align.py.

        The pictures of the glass stay as they are.

        Args:
            frames: As for `residual`.

        Returns:
            As many, valid until the next call; the middle frame is the same tensor.
        """

    def aligned_residual(self, frames: Window) -> Tensor:
        """Align the frames, then compute the residual, `[3, H, W]` float32, in memory of its own.

        Args:
            frames: As for `residual`, not aligned.
        """


class TorchEngine:
    """PyTorch without this package's kernels, so that it works where those fail."""

    max_pixels = 2560 * 1600

    def __init__(self, network: MHNet, *, bfloat16: bool = False) -> None:
        """Take a network.

        Args:
            network: On any device.
            bfloat16: Whether convolutions are done in bfloat16.
        """
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bfloat16 = bfloat16

    def lanes(self, pixels: int) -> Sequence[Engine]:
        """Only this engine."""
        return (self,)

    def free(self) -> None:
        """Nothing is kept."""

    @torch.inference_mode()
    def residual(self, frames: Window) -> Tensor:
        """The residual of the middle frame, `[3, H, W]` float32."""
        window = stacked(frames).flatten(0, 1)[None]
        window = window.contiguous(memory_format=torch.channels_last)
        with off(), torch.autocast(window.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.network.residual(window)[0].float()

    @torch.inference_mode()
    def align(self, frames: Window) -> Window:
        """Move the neighbours to where the middle frame shows the same things."""
        with off():
            return align_frames(frames, glass=self.network.config.glass)

    def aligned_residual(self, frames: Window) -> Tensor:
        """The residual of frames that are aligned first, `[3, H, W]` float32."""
        return self.residual(self.align(frames))
