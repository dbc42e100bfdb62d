"""What a connection to a live source reports, in the order in which it happens."""

from dataclasses import dataclass, field
from fractions import Fraction

from mhnet_video.frame import Frame
from mhnet_video.live.reconnection import State

TIME_BASE = Fraction(1, 1_000_000)
"""Unit of the times of live frames, in seconds."""


@dataclass(frozen=True)
class Opened:
    """The source is open."""

    fps: float
    """Frames a second, as it says."""
    is_exact: bool
    """Whether the rate is that of a file, which need not be measured."""


@dataclass(frozen=True, eq=False)
class FirstFrame:
    """A first frame to measure with; it comes again as `FrameArrived` once a file may begin."""

    frame: Frame


@dataclass(frozen=True)
class Waiting:
    """The connection holds a frame of a file back until it is due."""

    until: float
    """On the clock of `time.monotonic`, in seconds."""


@dataclass(frozen=True, eq=False)
class FrameArrived:
    """A frame."""

    frame: Frame
    arrival: float
    """When its packet was read, or when it was due, on the clock of `time.monotonic`."""
    stream_time: float | None
    """When it was taken, by the stream's clock, in seconds; None without such a clock."""
    is_new_run: bool
    """Whether it has nothing to do with the frame before."""


@dataclass(frozen=True)
class SoundFormat:
    """How sound is coded."""

    codec: str
    """FFmpeg's name."""
    header: bytes = field(repr=False)
    """A NUT file of no sound, whose stream is coded likewise; the same for each connection."""
    template: bytes = field(repr=False, compare=False)
    """A NUT file of the first packet; of none where that is not known."""
    first: bytes = field(repr=False, compare=False)
    """The first packet; empty where it is not known."""


@dataclass(frozen=True)
class SoundAnnounced:
    """There will be sound; comes before the first frame."""

    format: SoundFormat


@dataclass(frozen=True, eq=False)
class SoundArrived:
    """A packet of sound."""

    format: SoundFormat
    data: bytes
    time: float
    """When it is heard, in seconds."""
    duration: float
    """How long, in seconds; 0 where the source does not say."""
    has_stream_time: bool
    """Whether the time is by the stream's clock, not by that of `time.monotonic`."""


@dataclass(frozen=True)
class PacketsDamaged:
    """Packets could not be decoded."""

    count: int


@dataclass(frozen=True)
class Over:
    """The connection is over."""

    state: State
    """`ENDED`, `CHANGED` or `FAILED`."""
    error: Exception | None
    """Why; None where a file was read to its end."""


Event = (
    Opened
    | FirstFrame
    | Waiting
    | FrameArrived
    | SoundAnnounced
    | SoundArrived
    | PacketsDamaged
    | Over
)
"""Whatever a connection reports; `Over` is the last event."""
