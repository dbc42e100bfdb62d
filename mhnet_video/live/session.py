"""Restores live frames as they come: the newest one each time, with statistics."""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhnet_video.closing import Closing
from mhnet_video.config import LiveConfig
from mhnet_video.frame import Frame
from mhnet_video.live.adaptive_quality import Level, Pacer, models_at_hand
from mhnet_video.live.browser_camera import Visitors
from mhnet_video.live.capture import Camera
from mhnet_video.live.frame_buffer import Selection
from mhnet_video.live.rates import ThroughputMeter
from mhnet_video.live.rendering import Painter
from mhnet_video.live.source_address import VISITOR, resolve_address
from mhnet_video.model.weights import list_models
from mhnet_video.restoration.glass import LIVE_DISTANCE
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.temporal_filter import FrameAverage

_TICK_SECONDS = 0.2
"""How long to wait for a frame before looking whether the run is over."""
_RATE_SECONDS = 2.0
"""Over how long the rates of the statistics are measured."""


@dataclass(frozen=True, kw_only=True)
class LiveStatistics:
    """The state of a live restoration."""

    source: str
    width: int
    """Of the frames as they are shown, in pixels; 0 before the first."""
    height: int
    frames: int
    """Restored so far."""
    dropped: int
    """Frames of the source that were not restored because newer ones were there."""
    reconnects: int
    """How often the source came back."""
    damaged: int
    """Packets that could not be decoded."""
    source_fps: float
    """Frames a second that the source gives."""
    fps: float
    """Frames a second that are shown, over the last two seconds."""
    latency_seconds: float
    """From the arrival of a frame until it is shown, the median of the last frames."""
    network_seconds: float
    """Time that the last frame took to restore."""
    model: str
    scale: float
    """Working scale of the network."""
    strength: float
    device: str
    engine: str
    trouble: str
    """What is wrong with the source, in a sentence; empty if nothing is."""

    @property
    def level(self) -> str:
        """Model and working scale, in words; empty before they are chosen."""
        return str(Level(self.model, self.scale))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


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

    @property
    def latency_seconds(self) -> float:
        """How long ago it arrived."""
        return time.monotonic() - self.arrival

    def rgb(self) -> NDArray[np.uint8]:
        """The restored frame, upright: `[H, W, 3]`, 8-bit RGB."""
        return np.ascontiguousarray(Painter("rgb24").paint(self.after)[0])


class Live(Closing):
    """Restored frames of a live source, the newest each time one is asked for.

    Iterating waits for the next frame and restores it on the caller's thread; a caller that is
    slow gets fewer frames, not older ones. It ends when a file does, after `config.seconds`, or
    when it is closed, which any thread may do.

    Args:
        source: A camera's number or device, an address (`rtsp://`, `http://`, `udp://`, `tcp://`
            or `srt://`), or a file, which is played at its own speed; `visitor` for what is put
            into `visitors`; None for the first camera.
        config: Settings; the defaults if None.

    Raises:
        ReadError: There is no such camera or file.
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit this machine.
    """

    def __init__(
        self,
        source: str | int | PathLike[str] | None = None,
        config: LiveConfig | None = None,
    ) -> None:
        self.config = config = config or LiveConfig()
        self._models = (
            [config.weights] if config.weights else models_at_hand(config.model, config.task)
        )
        address = resolve_address(source, size=config.size, fps=config.fps)
        self.source = address.name
        self.visitors = Visitors() if address.kind == VISITOR else None
        """Takes the pictures of visitors' cameras; None for other sources."""
        # errors of a model or the device come before the camera is opened
        self._spare: dict[str, Restorer] = {}
        self._first = self._make(self._models[-1])
        self._spare[self._models[-1]] = self._first
        sizes = self._first.network.config
        half = sizes.frames // 2
        behind = max(half, *(info.config.frames // 2 for info in list_models()))
        self._camera = Camera(
            address,
            size=config.size,
            fps=config.fps,
            loop=config.loop,
            # neighbours that are several frames away are not waited for
            ahead=0 if sizes.glass else half,
            # larger models see more frames before this one; later frames are not waited for
            behind=(sizes.frames - 1) * LIVE_DISTANCE if sizes.glass else behind,
            visitors=self.visitors,
        )
        self._pacer: Pacer | None = None
        # the pacer, also while it measures
        self._measuring: Pacer | None = None
        self._is_closed = False
        self.strength = config.strength
        """Share of the restoration that is applied, 0 to 1; may be changed at any time."""
        self._average = FrameAverage()
        self._filter_seconds = 0.0
        """Seconds a frame that the temporal filter takes, a running mean."""
        self._wanted_models: list[str] | None = None
        self._size = (0, 0)
        self._frames = 0
        self._dropped = 0
        self._end: float | None = None
        self._is_late = False
        self._restored_meter = ThroughputMeter(_RATE_SECONDS)
        self._shown_meter = ThroughputMeter(_RATE_SECONDS)
        self._shown_number = -1
        self._lock = threading.Lock()

    # for the thread that restores

    def __iter__(self) -> Iterator[LiveFrame]:
        """Return itself."""
        return self

    def __next__(self) -> LiveFrame:
        """The newest frame, restored.

        Raises:
            ReadError: The source cannot be opened, and trying again would not help.
        """
        while True:
            if self._pacer is None:
                self._start()
                continue
            is_late = self._end is not None and time.monotonic() >= self._end
            if is_late and self._is_late:
                raise StopIteration
            # a last look: frames that came before the end belong to the run
            self._is_late = is_late
            selection = self._camera.newest(0 if is_late else _TICK_SECONDS)
            if selection is not None:
                return self._restored(self._pacer, selection)

    def _start(self) -> None:
        """Measure the machine with the first frame, once there is one."""
        frame = self._camera.sample(_TICK_SECONDS)
        if frame is None:
            return
        pacer = Pacer(
            self._make,
            self._models,
            budget_seconds=1 / self._camera.fps,
            scale=self.config.scale,
        )
        self._measuring = pacer
        if self._is_closed:
            raise StopIteration
        pacer.measure(frame)
        self._pacer = pacer
        self._camera.release()
        if self.config.seconds is not None:
            self._end = time.monotonic() + self.config.seconds

    def _restored(self, pacer: Pacer, selection: Selection) -> LiveFrame:
        frame = selection.frames[selection.index]
        if self._frames:
            # frames that came while the machine was measured do not count
            self._dropped += selection.skipped
        if self._wanted_models is not None:
            self._models, self._wanted_models = self._wanted_models, None
            pacer.use(self._models, frame)
        # the rate of a camera may change: in the dark, or after a reconnect
        interval = 1 / self._camera.fps
        pacer.governor.budget_seconds = max(interval - self._filter_seconds, interval / 4)
        after = pacer.restore(selection.frames, selection.index, self.strength)
        begin = time.monotonic()
        after = self._average.push(frame, after, share=self.strength, keep=self.config.keep)
        if self._frames:  # the first frame also loads OpenCV
            self._filter_seconds += (time.monotonic() - begin - self._filter_seconds) / 10
        self._frames += 1
        self._size = after.upright_size
        captured = selection.captured
        taken = self._camera.wall_begin + float(frame.pts * frame.time_base)
        live = LiveFrame(
            frame, after, captured.number, taken, captured.arrival, selection.skipped_frames
        )
        self._restored_meter.note(time.monotonic(), live.latency_seconds)
        return live

    def _make(self, model: str) -> Restorer:
        config = self.config
        if model in self._spare:
            return self._spare.pop(model)
        return Restorer(
            "auto" if config.weights else model,
            task=config.task,
            weights=config.weights,
            device=config.device,
            engine=config.engine,
            keep=config.keep,
        )

    @property
    def wall_begin(self) -> float:
        """The time of day at which the times of frames begin, in seconds since 1970."""
        return self._camera.wall_begin

    def shown(self, frame: LiveFrame) -> None:
        """Note that a frame is on a screen now; any number of screens may show it.

        Rate and latency of the statistics are those of the first screen that shows each frame.
        Without a screen they are those of restoration.
        """
        with self._lock:
            if frame.number <= self._shown_number:
                return
            self._shown_number = frame.number
        self._shown_meter.note(time.monotonic(), frame.latency_seconds)

    def next_model(self) -> str:
        """Switch to the next model, and after the last one to automatic choice.

        Returns:
            What was chosen, for people.
        """
        if self.config.weights:
            return "one model only: the weights file"
        every = models_at_hand(task=self.config.task)
        using = self._wanted_models or self._models
        choices = [every, *([name] for name in every)]
        if len(every) == 1:
            return f"one model only: {every[0]}"
        place = choices.index(using) if using in choices else 0
        self._wanted_models = choices[(place + 1) % len(choices)]
        return ", ".join(self._wanted_models)

    @property
    def statistics(self) -> LiveStatistics:
        """The present state, for any thread."""
        camera, pacer = self._camera, self._pacer
        level = pacer.level if pacer is not None else None
        now = time.monotonic()
        meter = self._shown_meter
        if not (fps := meter.rate(now)):
            meter = self._restored_meter
            fps = meter.rate(now)
        return LiveStatistics(
            source=self.source,
            width=self._size[0],
            height=self._size[1],
            frames=self._frames,
            dropped=self._dropped,
            reconnects=camera.reconnects,
            damaged=camera.damaged,
            source_fps=camera.fps,
            fps=fps,
            latency_seconds=meter.median_seconds,
            network_seconds=pacer.seconds if pacer is not None else 0.0,
            model=level.model if level is not None else "",
            scale=level.scale if level is not None else 1.0,
            strength=self.strength,
            device=str(self._first.device),
            engine=self._first.engine.name,
            trouble=camera.trouble,
        )

    def close(self) -> None:
        """End the run, from any thread."""
        self._is_closed = True
        self._camera.close()
        if self._measuring is not None:
            self._measuring.close()
