"""Settings of a run: plain values, checked once, then frozen. Imports nothing heavy."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from operator import index
from typing import NamedTuple

from mhnet_video.errors import ConfigError
from mhnet_video.tasks import TRAINED, check_task


class Box(NamedTuple):
    """A rectangle of the coded picture, in pixels from its top left corner."""

    x: int
    y: int
    width: int
    height: int


def check_boxes(boxes: Sequence[Sequence[int]]) -> tuple[Box, ...]:
    """Boxes to keep, from anything that is four whole numbers.

    Raises:
        ConfigError: One has no four whole numbers, or begins outside the picture.
    """
    if not isinstance(boxes, Iterable):
        raise ConfigError(f"boxes to keep are a list of X,Y,W,H in pixels, got {boxes!r}")
    checked = []
    for box in boxes:
        try:
            x, y, width, height = map(index, box)
        except (TypeError, ValueError):
            x = -1
        if x < 0 or y < 0 or width < 1 or height < 1:
            said = tuple(box) if isinstance(box, Iterable) else box
            raise ConfigError(f"a box to keep is X,Y,W,H in pixels, got {said}")
        checked.append(Box(x, y, width, height))
    return tuple(checked)


def _check_numbers(**values: object) -> None:
    """Check what must be a number or None, by the names of the settings.

    Raises:
        ConfigError: One is something else.
    """
    for name, value in values.items():
        if value is not None and not isinstance(value, Real):
            raise ConfigError(f"{name} must be a number, not {value!r}")


def check_strength(strength: float) -> None:
    """Check the share of the restoration that is applied.

    Raises:
        ConfigError: It is not between 0 and 1.
    """
    _check_numbers(strength=strength)
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength must be between 0 and 1, not {strength}")


def check_scale(scale: float | None) -> None:
    """Check the working scale; None for the one that suits the scene is valid.

    Raises:
        ConfigError: It is not above 0 and at most 1.
    """
    _check_numbers(scale=scale)
    if scale is not None and not 0 < scale <= 1:
        raise ConfigError(f"scale must be above 0 and at most 1, not {scale}")


class Settings(NamedTuple):
    """How frames are restored; may change from frame to frame."""

    strength: float = 1.0
    """Share of the restoration that is applied, 0 to 1."""
    keep: tuple[Box, ...] = ()
    """Boxes left as they are."""
    scale: float | None = None
    """Working scale of the network, above 0 to 1; None for what suits each scene."""
    is_live: bool = False
    """Whether the next frame is coming already, so that one without neighbours, too, has to do with
    the time of one run: no self-ensemble."""


@dataclass(frozen=True, kw_only=True)
class RestoreConfig:
    """Settings of the restore pipeline."""

    model: str = "auto"
    """A model's name (`mhnet-video info` lists them); `auto` takes the one for task and device."""
    task: str | None = None
    """What is taken out, one of `tasks.TASKS`; None for what weights that are named take out, and
    rain where none are."""
    weights: str | None = None
    """A weights file to use instead of a shipped model's; None for the shipped ones."""
    device: str = "auto"
    """`auto` (CUDA after a self-check), `cpu`, `cuda`, `cuda:<index>` or `mps`; several GPUs as in
    `cuda:0,cuda:1`."""
    engine: str = "auto"
    """What runs the network: `auto` (the fastest that can), `torch`, `llvm` or `triton`."""
    strength: float = 1.0
    """Share of the restoration that is applied, 0 (none) to 1 (all)."""
    scale: float | None = None
    """Working scale of the network, above 0 to 1; None for what suits each scene."""
    start: float | None = None
    """Where to begin, in seconds from the first frame of the clip; None for its beginning."""
    duration: float | None = None
    """How much to restore, in seconds; None for all there is."""
    keep: tuple[Box, ...] = ()
    """Boxes left as they are in the source."""
    encoder: str | None = None
    """FFmpeg's name of the video encoder; None for the container's usual one."""
    crf: int | None = None
    """Quality of encoders that have a `crf`, lower is better; None for the default."""
    preset: str | None = None
    """Speed preset of encoders that have one; None for the default."""
    encoder_options: tuple[tuple[str, str], ...] = ()
    """Further options of the encoder, name and value."""
    compare: bool = False
    """Whether to write the picture before and after, side by side."""
    gpx: bool = False
    """Whether to write the camera's positions, too, under the destination's name in `.gpx`."""
    evidence: bool = False
    """Whether to write what was done to each frame, beside the destination; `verify` checks it."""
    overwrite: bool = False
    """Whether an existing destination may be replaced."""

    def __post_init__(self) -> None:
        """Check what can be checked without touching the machine."""
        if self.task is not None:
            check_task(self.task)
        check_strength(self.strength)
        check_scale(self.scale)
        _check_numbers(start=self.start, duration=self.duration, crf=self.crf)
        if self.start is not None and not 0 <= self.start < math.inf:
            raise ConfigError(f"start must not be negative, and finite, got {self.start}")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise ConfigError(f"duration must be greater than 0, and finite, got {self.duration}")
        object.__setattr__(self, "keep", check_boxes(self.keep))
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise ConfigError(f"crf must be between 0 and 63, not {self.crf}")
        if self.evidence and self.compare:
            raise ConfigError("evidence is of the restored picture alone; leave compare out")


DRY_CLIPS = ("restore", "copy", "skip")
"""What can become of a clip without rain in a batch: it is restored as all others, copied bit for
bit, or left out."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Settings of a batch beside those of restoring."""

    join: bool = False
    """Whether files that follow one another become one output."""
    watch: bool = False
    """Whether to go on with files that appear later."""
    dry: str = "restore"
    """What becomes of dry clips: one of `DRY_CLIPS`."""
    jobs: int | None = None
    """Files that are restored at the same time; None for what serves this machine."""
    shard: tuple[int, int] = (1, 1)
    """Which part of the works to take, from 1, and of how many."""
    ray: str | None = None
    """The Ray cluster to do it on by its address; empty for the one that runs here, or a new one;
    None for none."""

    def __post_init__(self) -> None:
        """Check what can be checked without touching the machine."""
        if self.dry not in DRY_CLIPS:
            raise ConfigError(f"dry must be one of {', '.join(DRY_CLIPS)}, not {self.dry}")
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"jobs must be at least 1, not {self.jobs}")
        number, count = self.shard
        if not 1 <= number <= count:
            raise ConfigError(f"a shard is I/N with I from 1 to N, not {number}/{count}")
        if self.join and self.watch:
            raise ConfigError("a trip is joined when all of it is there; leave --watch or --join")
        if self.ray is not None and self.watch:
            raise ConfigError("a cluster works through what is there; leave --watch or --ray")


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """Settings of the page for files."""

    serve: str = "8080"
    """Port, or host and port, to serve it at."""
    folder: str | None = None
    """Folder that keeps results; None for none, so that they end with the page."""


ENGINES = ("auto", "torch", "llvm", "triton")
"""What can run the network; `auto` is the fastest that can."""

VIEWS = ("split", "side", "after", "before")
"""How the picture before and after can be shown."""


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """Settings of the live pipeline."""

    model: str = "auto"
    """A model's name; `auto` takes the task's best one that holds the source's rate."""
    task: str | None = None
    """What is taken out, one of `tasks.TASKS`; None for what weights that are named take out, and
    rain where none are."""
    weights: str | None = None
    """A weights file to use instead of a shipped model's; None for the shipped ones."""
    device: str = "auto"
    """`auto` (CUDA after a self-check), `cpu`, `cuda`, `cuda:<index>` or `mps`."""
    engine: str = "auto"
    """What runs the network: `auto` (the fastest that can), `torch`, `llvm` or `triton`."""
    scale: float | None = None
    """Working scale of the network, above 0 to 1; None for what the machine can do at the
    source's rate, changed with the load."""
    strength: float = 1.0
    """Share of the restoration that is applied, 0 (none) to 1 (all)."""
    keep: tuple[Box, ...] = ()
    """Boxes left as they are in the source."""
    size: tuple[int, int] | None = None
    """Width and height, in pixels, to ask of a camera; other sources are shrunk to fit into it."""
    fps: float | None = None
    """Frames a second to ask of a camera; of other sources no more are taken."""
    loop: bool = False
    """Whether a file begins again at its end."""
    seconds: float | None = None
    """How long to run, from when pictures are first shown; None for as long as there are any."""

    def __post_init__(self) -> None:
        """Check what can be checked without touching the machine."""
        if self.task is not None:
            check_task(self.task)
        check_strength(self.strength)
        check_scale(self.scale)
        _check_numbers(fps=self.fps, seconds=self.seconds)
        object.__setattr__(self, "keep", check_boxes(self.keep))
        if self.size is not None:
            try:
                width, height = map(index, self.size)
            except (TypeError, ValueError):
                width = height = 0
            if min(width, height) < 16:
                raise ConfigError(f"size must be at least 16x16 pixels, got {self.size}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError(f"fps must be above 0 and at most 1000, not {self.fps}")
        if "," in self.device:
            raise ConfigError(
                f"live mode restores one frame at a time, on one device; name one of {self.device}"
            )
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"seconds must be greater than 0, got {self.seconds}")


@dataclass(frozen=True, kw_only=True)
class LiveOutputs:
    """Where live pictures go."""

    has_window: bool = True
    """Whether to open a window on this machine's screen."""
    view: str = "split"
    """How the window and the page begin: one of `VIEWS`."""
    serve: str | int | None = None
    """Port, or host and port, of a page for browsers; None for none."""
    record: str | None = None
    """File to record to; None for none."""
    segment: float | None = None
    """Seconds after which the recording goes on in a new file; None for one file."""
    output: str | None = field(default=None, repr=False)  # which may hold a password
    """Address to forward to, such as `rtsp://` or `rtmp://`, `-` for standard output, or a virtual
    camera such as `v4l2:/dev/video9`; None for none."""
    format: str = "mpegts"
    """What standard output gets: `mpegts`, `nut`, `h264` or `mjpeg`, the last two without sound."""
    overwrite: bool = False
    """Whether an existing recording may be replaced."""

    def __post_init__(self) -> None:
        """Check what can be checked without touching the machine."""
        if self.serve is not None:
            object.__setattr__(self, "serve", str(self.serve))
        if self.view not in VIEWS:
            raise ConfigError(f"view must be one of {', '.join(VIEWS)}, not {self.view}")
        _check_numbers(segment=self.segment)
        if self.segment is not None and not self.segment > 0:
            raise ConfigError(f"segment must be greater than 0, got {self.segment}")
        if self.segment is not None and self.record is None:
            raise ConfigError("a segment is a part of a recording; say --record too")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the training pipeline; the sizes are those of the real-time weights.

    Those were trained with `align`, and at lower rates for all but the first stages.
    """

    data: str
    """Folder with `photos/` and `clips/`."""
    output: str
    """Folder for the checkpoint, the log, the pictures and the weights."""
    minutes: float = 90.0
    """Time to train, in minutes; a resumed run continues the same budget."""
    width: int = 16
    encoder_blocks: tuple[int, ...] = (1, 1, 1, 4)
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    group_blocks: tuple[int, ...] = (1, 1, 1, 1)
    frames: int = 3
    patch: int = 2
    align: bool = False
    """Whether to move the neighbours to where the middle frame shows the same."""
    task: str = "derain"
    """What the network is to take out: one of `tasks.TRAINED`. One that takes out drops sees two
    more pictures of what stands still on the glass."""
    batch: int = 2
    """Pictures of a step, at `crop` pixels; larger crops take fewer, yet two where it can be."""
    crop: int = 256
    """Side of the training pictures, in pixels, for the first 60 % of the time."""
    final_crop: int = 320
    """Side for the rest, which brings the global means closer to those of whole frames."""
    learning_rate: float = 1e-3
    seed: int = 0
    device: str = "auto"
    init: str | None = None
    """Weights to begin with, of these sizes or smaller ones; None for fresh ones."""
    description: str = "real-time model for CPUs"
    """What the weights file says of itself."""

    def __post_init__(self) -> None:
        """Check what can be checked without touching the machine."""
        check_task(self.task, TRAINED)
        if not self.minutes > 0:
            raise ConfigError(f"minutes must be greater than 0, got {self.minutes}")
        for name in ("batch", "crop", "final_crop", "width", "patch", "frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.frames % 2 == 0:
            raise ConfigError(f"frames must be odd, got {self.frames}")
        for name in ("encoder_blocks", "decoder_blocks", "group_blocks"):
            counts = getattr(self, name)
            if len(counts) != 4 or min(counts) < 0:
                raise ConfigError(f"{name} must be four numbers, none negative, got {counts}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate must be greater than 0, got {self.learning_rate}")
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        # crops of a mosaic hold whole blocks of a codec, its sides are multiples of the network's
        multiple = math.lcm(32, 16 * self.patch)
        if self.crop % multiple or self.final_crop % multiple:
            raise ConfigError(f"crops must be multiples of {multiple} at patch {self.patch}")
