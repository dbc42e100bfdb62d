"""A restored frame of a live source, as threads of live mode and callers of `Live` get it."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mhnet_video.frame import Frame
from mhnet_video.live.connection_events import SoundFormat
from mhnet_video.live.rendering import Painter
from mhnet_video.live.sound import SoundPacket


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A frame of a live source, as it was and restored."""

    before: Frame
    after: Frame
    number: int
    """Counts the frames of the source, from 0; those left out were dropped."""
    time: float
    """When it was taken, in seconds since 1970."""
    arrival: float
    """When it arrived, on the clock of `time.monotonic`, in seconds."""
    skipped: tuple[Frame, ...] = ()
    """The frames between the one before and this one, as they came, for which there was no time;
    where more than 256 MiB came, the last of them."""

    sound_format: SoundFormat | None = None
    """How the source's sound is coded; None as long as there is none."""
    sound: tuple[SoundPacket, ...] = ()
    """The sound that has come since the frame before was returned. It may be ahead of this frame,
    as it need not be restored."""

    @property
    def restored(self) -> tuple[Frame | SoundPacket, ...]:
        """What an output gets of it: the restored frame, then the sound."""
        return (self.after, *self.sound)

    @property
    def latency_seconds(self) -> float:
        """How long ago it arrived."""
        return time.monotonic() - self.arrival

    def rgb(self) -> NDArray[np.uint8]:
        """The restored frame, upright: `[H, W, 3]`, 8-bit RGB."""
        return np.ascontiguousarray(Painter("rgb24").paint(self.after)[0])
