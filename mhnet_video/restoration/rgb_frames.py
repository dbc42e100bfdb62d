"""RGB pictures as frames, and back: how arrays and tensors of a detector enter the chain."""

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mhnet_video.frame import Frame, PixelLayout

_LAYOUT = PixelLayout("gbrp", "rgb", 8)
"""Layout of frames that were RGB pictures."""
_DEVICE = "device"
"""Tag of a frame that was a tensor: where it was."""


def frame_of(picture: Any, index: int) -> Frame:
    """A frame with a copy of a picture's samples: its memory may be written to afterwards.

    Args:
        picture: `[H, W, 3]` uint8, RGB, an array or a tensor, with any strides.
        index: Its number in the clip, which becomes its presentation time.

    Raises:
        ValueError: The picture has another shape or type.
    """
    if not isinstance(picture, (np.ndarray, Tensor)):
        raise ValueError(f"expected an array or a tensor, got {type(picture).__name__}")
    is_picture = picture.ndim == 3 and picture.shape[2] == 3 and min(picture.shape) > 0
    if not is_picture or str(picture.dtype)[-5:] != "uint8":
        raise ValueError(f"expected [H, W, 3] uint8, got {list(picture.shape)} {picture.dtype}")
    tags: dict[str, Any] = {}
    if isinstance(picture, Tensor):
        tags = {_DEVICE: picture.device}
        picture = picture.detach().cpu().numpy()
    red, green, blue = np.array(np.moveaxis(picture, 2, 0), order="C")
    return Frame((green, blue, red), _LAYOUT, index, Fraction(1), full_range=True, tags=tags)


def picture_of(frame: Frame) -> Any:
    """The picture of a frame that `frame_of` made: `[H, W, 3]` uint8 of its own, of that kind."""
    green, blue, red = frame.planes
    picture = np.stack([red, green, blue], axis=2)
    device = frame.tags.get(_DEVICE)
    return picture if device is None else torch.from_numpy(picture).to(device)
