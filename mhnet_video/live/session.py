"""Restores live frames as they come: the newest one each time, with statistics."""

import time
from collections.abc import Callable, Iterator
from os import PathLike

from mhnet_video.closing import Closing
from mhnet_video.config import LiveConfig, check_strength
from mhnet_video.live.adaptive_restorer import AdaptiveRestorer
from mhnet_video.live.browser_camera import Visitors
from mhnet_video.live.capture import Camera
from mhnet_video.live.frame_buffer import Selection
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.source_address import VISITOR, resolve_address
from mhnet_video.live.statistics import DisplayMeter, LiveStatistics

_TICK_SECONDS = 0.2
"""How long to wait for a frame before looking whether the run is over."""


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
        address = resolve_address(source, size=config.size, fps=config.fps)
        self.source = address.name
        self.visitors = Visitors() if address.kind == VISITOR else None
        """Takes the pictures of visitors' cameras; None for other sources."""
        self._strength = config.strength
        self._restorer = AdaptiveRestorer(config)
        self._camera = Camera(
            address,
            size=config.size,
            fps=config.fps,
            loop=config.loop,
            ahead=self._restorer.ahead,
            # larger models see more frames before this one; later frames are not waited for
            behind=self._restorer.behind,
            visitors=self.visitors,
        )
        self._deadline: _Deadline | None = None
        self._meter = DisplayMeter()
        self._size = (0, 0)
        self._frames = 0
        self._dropped = 0

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
            if self._deadline is None:
                self._deadline = self._start()
                continue
            selection = self._camera.newest(self._deadline.next_wait())
            if selection is not None:
                return self._restored(selection)

    def _start(self) -> "_Deadline | None":
        """Measure the machine with the first frame, once there is one; when the run ends."""
        frame = self._camera.sample(_TICK_SECONDS)
        if frame is None:
            return None
        self._restorer.measure(frame, self._camera.fps)
        self._camera.release()
        return _Deadline(self.config.seconds)

    def _restored(self, selection: Selection) -> LiveFrame:
        frame, captured = selection.frames[selection.index], selection.captured
        if self._frames:
            # frames that came while the machine was measured do not count
            self._dropped += selection.skipped
        after = self._restorer.restore(
            selection.frames, selection.index, fps=self._camera.fps, strength=self.strength
        )
        self._frames += 1
        self._size = after.upright_size
        taken = self._camera.wall_begin + float(frame.pts * frame.time_base)
        live = LiveFrame(
            frame,
            after,
            captured.number,
            taken,
            captured.arrival,
            selection.skipped_frames,
            self._camera.sound_format,
            self._camera.take_sound(),
        )
        self._meter.restored(live)
        return live

    # for any thread

    @property
    def strength(self) -> float:
        """Share of the restoration that is applied, 0 to 1; may be changed at any time."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        check_strength(value)
        self._strength = value

    @property
    def wall_begin(self) -> float:
        """The time of day at which the times of frames begin, in seconds since 1970."""
        return self._camera.wall_begin

    def shown(self, frame: LiveFrame) -> None:
        """Note that a frame is on a screen now; any number of screens may show it.

        Rate and latency of the statistics are those of the first screen that shows each frame.
        Without a screen they are those of restoration.
        """
        self._meter.shown(frame)

    def next_model(self) -> str:
        """Switch to the next model, and after the last one to automatic choice.

        Returns:
            What was chosen, for people.
        """
        return self._restorer.next_model()

    @property
    def statistics(self) -> LiveStatistics:
        """The present state, for any thread."""
        camera, restorer = self._camera, self._restorer
        fps, latency_seconds = self._meter.read()
        level = restorer.level
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
            latency_seconds=latency_seconds,
            network_seconds=restorer.seconds,
            model=level.model,
            scale=level.scale,
            strength=self.strength,
            device=restorer.device,
            engine=restorer.engine,
            trouble=camera.trouble,
        )

    def close(self) -> None:
        """End the run, from any thread."""
        self._camera.close()
        self._restorer.close()


class _Deadline:
    """When a run ends, and how long it may wait for its next frame.

    Args:
        seconds: Length of the run from now on; None for no end.
        clock: A clock that never goes back, in seconds.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = float("inf") if seconds is None else clock() + seconds
        self._is_last = False

    def next_wait(self) -> float:
        """How long to wait for a frame, in seconds; 0 once after the end.

        Frames that came before the end belong to the run.

        Raises:
            StopIteration: The run is over.
        """
        if self._clock() < self._end:
            return _TICK_SECONDS
        if self._is_last:
            raise StopIteration
        self._is_last = True
        return 0.0
