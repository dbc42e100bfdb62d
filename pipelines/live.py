"""Runs live mode: one source to a window, a page, a recording and an address."""

import glob
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhnet_video.config import LiveConfig, LiveOutputs
from mhnet_video.errors import ConfigError, ReadError, WriteError
from mhnet_video.live import display  # before what imports PyAV
from mhnet_video.live.exchange import Latest
from mhnet_video.live.forwarder import Forwarder, check_forwarding
from mhnet_video.live.recorder import Recorder, check_recording
from mhnet_video.live.rendering import View
from mhnet_video.live.session import Live, LiveFrame, LiveStatistics
from mhnet_video.live.source_address import VISITOR, resolve_address
from mhnet_video.live.web.access import check_installed, parse_address

if TYPE_CHECKING:
    from mhnet_video.live.web.server import PageServer

_KEY_SECONDS = 0.008
"""How long the window waits for a frame before it handles keys.

OpenCV reports two keys within that time as one. Each look takes a millisecond of a core.
"""
_DRAW_SECONDS = 0.015
"""Longest time between two drawings of the window: the divider moves, the statistics change."""
_TICK_SECONDS = 0.1
"""How often the state is checked without a window."""
_TELL_SECONDS = 1.0
"""Time from one report of the statistics to the next."""
_MESSAGE_SECONDS = 4.0
"""How long a message stays on the screen."""
_HINT = "space freeze   s view   + - strength   m model   r record   i statistics   q quit"
_HINT_SECONDS = 12.0
"""How long the keys stay on the screen, from the first frame on."""


@dataclass(frozen=True, kw_only=True)
class LiveReport:
    """The outcome of a live run."""

    statistics: LiveStatistics
    """At the end of the run."""
    recorded: tuple[str, ...]
    """The files that were recorded."""
    missed: int
    """Frames that were not recorded because this machine was too slow."""
    forwarded: int
    """Frames that were sent on."""
    interrupted: bool
    """Whether it was stopped from outside."""


def run_live(
    source: str | int | PathLike[str] | None = None,
    config: LiveConfig | None = None,
    outputs: LiveOutputs | None = None,
    *,
    on_message: Callable[[str], None] = lambda text: None,
    on_statistics: Callable[[LiveStatistics], None] | None = None,
    stop: threading.Event | None = None,
) -> LiveReport:
    """Show, serve, record and forward a live source, restored.

    With a window it must be called on the main thread.

    Args:
        source: What `Live` takes.
        config: Settings of the restoration; the defaults if None.
        outputs: Where pictures go; a window if None.
        on_message: Told what a person should know, a line each.
        on_statistics: Told how it goes, once a second.
        stop: Ends the run when set; recordings are completed.

    Raises:
        ReadError: There is no such source, or it never gave a picture.
        WriteError: A recording or the page cannot begin, or a recording has failed.
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit this machine.
        MHNetVideoError: There is no screen for the window.
    """
    config, outputs = config or LiveConfig(), outputs or LiveOutputs()
    address = resolve_address(source, size=config.size, fps=config.fps)
    if address.kind == VISITOR:
        _check_visitor(outputs)
    if outputs.serve is not None:
        parse_address(str(outputs.serve))
        check_installed()
    if outputs.output is not None:
        check_forwarding(outputs.output)
    if outputs.record is not None:
        check_recording(outputs.record, outputs.segment, outputs.overwrite)
    if outputs.has_window:
        display.check_screen()
    with Live(source, config) as live:
        run = _Run(live, outputs, on_message, on_statistics, stop or threading.Event())
        return run.to_the_end()


def _check_visitor(outputs: LiveOutputs) -> None:
    """Refuse outputs that would show the pictures of visitors to others."""
    if outputs.serve is None:
        raise ConfigError("a visitor's camera comes in over the page; say --serve PORT too")
    if outputs.record is not None or outputs.output is not None or outputs.has_window:
        raise ConfigError(
            "the pictures of visitors are for themselves: there is no window, recording or "
            "forwarding of them"
        )


class _Run:
    """One run: a thread restores, and the caller's thread shows."""

    def __init__(
        self,
        live: Live,
        outputs: LiveOutputs,
        on_message: Callable[[str], None],
        on_statistics: Callable[[LiveStatistics], None] | None,
        stop: threading.Event,
    ) -> None:
        self._live = live
        self._outputs = outputs
        self._on_message = on_message
        self._on_statistics = on_statistics
        self._stop = stop
        self._frames: Latest[LiveFrame] = Latest()
        self._error: Exception | None = None
        self._message, self._message_until = "", 0.0
        self._view = View(mode=outputs.view, strength=live.config.strength)
        self._recorders: list[Recorder] = []
        self._recorder: Recorder | None = None
        self._is_to_record = outputs.record is not None
        self._lost = 0
        """Frames that a recording lacks because there was no memory to keep them."""
        self._forwarder: Forwarder | None = None
        self._page: PageServer | None = None
        self._hint_until = float("inf")
        self._level = ""
        self._trouble = ""
        self._told_at = 0.0
        self._is_quit = False
        self._lock = threading.Lock()

    def to_the_end(self) -> LiveReport:
        outputs = self._outputs
        if outputs.serve is not None:
            self._page = self._serve(str(outputs.serve))
            self._say(f"the picture is at {self._page.link}")
        window = None
        if outputs.has_window:
            from mhnet_video.live.window import LiveWindow

            window = LiveWindow(self._view)
        thread = threading.Thread(target=self._restore, name="mhnet-video live", daemon=True)
        thread.start()
        try:
            self._show(window)
        finally:
            # from here on a second interrupt must not leave a recording without its end
            self._live.close()
            thread.join()
            if window is not None:
                window.close()
            if self._page is not None:
                self._page.close()
            if self._forwarder is not None:
                self._forwarder.close()
            self._stop_recording()
        if self._error is not None:
            raise self._error
        return self._report()

    def _serve(self, address: str) -> "PageServer":
        # an extra, which runs without a page do without
        from mhnet_video.live.web.page import Page
        from mhnet_video.live.web.server import PageServer

        has_window = self._outputs.has_window
        page = Page(
            frames=self._frames,
            statistics=lambda: self._live.statistics,
            press=self._press_on_page,
            shown=lambda frame: None if has_window else self._live.shown(frame),
            view=self._outputs.view,
            state=self._state,
            cameras=self._live.visitors,
            camera_size=self._live.config.size,
            camera_fps=self._live.config.fps,
        )
        return PageServer(parse_address(address), page)

    def _report(self) -> LiveReport:
        statistics = self._live.statistics
        is_interrupted = self._stop.is_set()
        if not statistics.frames and not is_interrupted and not self._is_quit:
            raise ReadError(statistics.trouble or f"no picture came from {statistics.source}.")
        for recorder in self._recorders:
            if recorder.error is not None:
                raise recorder.error
        return LiveReport(
            statistics=statistics,
            recorded=tuple(name for each in self._recorders for name in each.files),
            missed=self._lost + sum(recorder.missed for recorder in self._recorders),
            forwarded=self._forwarder.frames if self._forwarder is not None else 0,
            interrupted=is_interrupted,
        )

    # the thread that restores

    def _restore(self) -> None:
        next_number = 0
        try:
            for frame in self._live:
                self._frames.put(frame)
                with self._lock:
                    if self._is_to_record and self._recorder is None:
                        self._begin_recording()
                    recorder = self._recorder
                if recorder is not None:
                    # frames that there was no time to restore are recorded as they came
                    for each in (*frame.skipped, frame.after):
                        recorder.put(each)
                    self._lost += frame.number - next_number - len(frame.skipped)
                next_number = frame.number + 1
                if self._outputs.output is not None and self._forwarder is None:
                    fps = self._live.statistics.source_fps
                    self._forwarder = Forwarder(self._outputs.output, fps=fps)
                if self._forwarder is not None:
                    self._forwarder.put(frame.after)
        except Exception as error:
            self._error = error
        finally:
            self._frames.close()

    def _begin_recording(self) -> None:
        """Begin the recording of the command line, or a later one."""
        outputs = self._outputs
        is_first = not self._recorders and outputs.record is not None
        try:
            self._recorder = Recorder(
                outputs.record if is_first and outputs.record else self._free_name(),
                fps=self._live.statistics.source_fps,
                wall_begin=self._live.wall_begin,
                segment_seconds=outputs.segment,
                overwrite=outputs.overwrite and is_first,
            )
        except WriteError as error:
            if is_first:
                raise
            # the run goes on without it
            self._is_to_record = False
            self._say(str(error))
            return
        self._recorders.append(self._recorder)

    def _free_name(self) -> str:
        """The name of a recording that a key begins, which must not replace another one."""
        path = Path(self._outputs.record or "mhnet-video.mp4")
        now = datetime.now().strftime("%Y%m%d-%H%M%S")
        name = path.with_name(f"{path.stem}-{now}{path.suffix}")
        number = 2
        while any(name.parent.glob(f"{glob.escape(name.stem)}*")):
            name = path.with_name(f"{path.stem}-{now}-{number}{path.suffix}")
            number += 1
        return str(name)

    # the caller's thread

    def _show(self, window: Any) -> None:
        number, drawn_at = 0, 0.0
        while not self._stop.is_set() and not self._is_quit:
            got = self._frames.get(number, _KEY_SECONDS if window is not None else _TICK_SECONDS)
            frame = None
            if got is not None:
                number, frame = got
            elif self._frames.is_closed:
                return
            self._look_after(time.monotonic())
            if window is None:
                continue
            window.pump()
            if frame is not None or time.monotonic() - drawn_at >= _DRAW_SECONDS:
                window.show(frame, self._lines(), self._trouble)
                drawn_at = time.monotonic()
                window.pump()
            if frame is not None:
                self._live.shown(frame)
                self._hint_until = min(self._hint_until, time.monotonic() + _HINT_SECONDS)
            self._handle_wishes()

    def _look_after(self, now: float) -> None:
        """Report what has changed."""
        if now - self._told_at < _TICK_SECONDS:
            return
        statistics = self._live.statistics
        before, self._trouble = self._trouble, statistics.trouble
        if self._trouble and not before:
            # the screen shows it for as long as it lasts
            self._on_message(self._trouble)
        elif before and not self._trouble:
            self._say(f"{statistics.source} is back")
        level = statistics.level
        if level and level != self._level:
            self._level = level
            milliseconds = f"{1000 * statistics.network_seconds:.0f} ms a frame"
            wanted = f"the source gives {statistics.source_fps:.3g} a second"
            self._say(f"restoring with {level}: {milliseconds}, {wanted}")
        for recorder in self._recorders:
            if recorder.error is not None and recorder is self._recorder:
                self._say(str(recorder.error))
                self._stop_recording()
        forwarder = self._forwarder
        if forwarder is not None and forwarder.error is not None:
            raise forwarder.error
        if self._on_statistics is not None and now - self._told_at >= _TELL_SECONDS:
            self._on_statistics(statistics)
        if now - self._told_at >= _TELL_SECONDS or self._on_statistics is None:
            self._told_at = now

    def _say(self, text: str) -> None:
        self._message, self._message_until = text, time.monotonic() + _MESSAGE_SECONDS
        self._on_message(text)

    def _handle_wishes(self) -> None:
        wishes, self._view.wishes = self._view.wishes, []
        for wish in wishes:
            if wish == "quit":
                self._is_quit = True
            elif wish == "strength":
                self._live.strength = self._view.strength
            elif wish == "model":
                self._say(self._live.next_model())
            elif wish == "record":
                self._toggle_recording()

    def _press_on_page(self, key: str) -> None:
        """Handle a key of the page, which may write files only where the command line says so."""
        if key == "r" and self._outputs.record is None:
            self._say("recording from the page needs --record FILE")
            return
        with self._lock:
            view = View(strength=self._live.strength)
        view.press(key)
        for wish in view.wishes:
            if wish == "strength":
                self._live.strength = self._view.strength = view.strength
            elif wish == "model":
                self._say(self._live.next_model())
            elif wish == "record":
                self._toggle_recording()

    def _toggle_recording(self) -> None:
        if self._is_to_record:
            recorder = self._recorder
            self._stop_recording()
            if recorder is not None and recorder.error is None:
                self._say(f"recorded {', '.join(recorder.files) or 'nothing'}")
        else:
            self._is_to_record = True
            self._say("recording")

    def _stop_recording(self) -> None:
        with self._lock:
            self._is_to_record = False
            recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()

    def _state(self) -> dict[str, Any]:
        recorder = self._recorder
        forwarder = self._forwarder
        message = self._message if time.monotonic() < self._message_until else ""
        if not message and forwarder is not None:
            message = forwarder.trouble
        return {
            "recording": recorder.destination if recorder is not None else "",
            "message": message,
        }

    def _lines(self) -> list[str]:
        """The statistics, for the window."""
        statistics, state = self._live.statistics, self._state()
        level = statistics.level or "measuring this machine"
        lines = [
            f"{statistics.fps:.1f} of {statistics.source_fps:.1f} fps   "
            f"latency {1000 * statistics.latency_seconds:.0f} ms   dropped {statistics.dropped}",
            f"{level}, {statistics.device}, {statistics.engine}   "
            f"{1000 * statistics.network_seconds:.0f} ms   strength {statistics.strength:.0%}",
        ]
        if self._view.is_frozen:
            lines.append("frozen: space goes on")
        if state["recording"]:
            lines.append(f"recording {state['recording']}")
        if state["message"]:
            lines.append(state["message"])
        if time.monotonic() < self._hint_until:
            lines.append(_HINT)
        return lines
