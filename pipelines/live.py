"""Runs live mode: one source to a window, a page, a recording, an address or a pipe."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from typing import Any

from mhnet_video.config import LiveConfig, LiveOutputs
from mhnet_video.errors import ConfigError, ReadError
from mhnet_video.live import display  # before what imports PyAV
from mhnet_video.live.controls import Controls
from mhnet_video.live.exchange import Latest
from mhnet_video.live.forwarding import Forwarding
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.messages import ChangeReporter, Messages
from mhnet_video.live.overlay import Overlay
from mhnet_video.live.recorder import check_recording
from mhnet_video.live.recordings import Recordings
from mhnet_video.live.rendering import View
from mhnet_video.live.restoring_thread import LiveOutput, RestoringThread
from mhnet_video.live.session import Live
from mhnet_video.live.source_address import VISITOR, resolve_address
from mhnet_video.live.statistics import LiveStatistics
from mhnet_video.live.stream_formats import CAMERA, check_forwarding, check_piped
from mhnet_video.live.virtual_camera import check_camera_extra
from mhnet_video.web.access import check_installed, parse_listen_address

_KEY_SECONDS = 0.008
"""How long the window waits for a frame before it handles keys.

OpenCV reports two keys within that time as one. Each look takes a millisecond of a core.
"""
_DRAW_SECONDS = 0.015
"""Longest time between two drawings of the window: the divider moves, the statistics change."""
_TICK_SECONDS = 0.1
"""How often the state is checked without a window."""


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
    lost: tuple[str, ...]
    """What recordings and streams lack of the sound, or have in another way, a line each."""
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
        WriteError: A recording or the page cannot begin, a recording has failed, or who takes the
            frames refuses them.
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit this machine.
        MHNetVideoError: There is no screen for the window.
    """
    config, outputs = config or LiveConfig(), outputs or LiveOutputs()
    address = resolve_address(source, size=config.size, fps=config.fps)
    if address.kind == VISITOR:
        _check_visitor(outputs)
    if outputs.serve is not None:
        parse_listen_address(str(outputs.serve))
        check_installed()
    if outputs.output == "-":
        check_piped(outputs.format)
    elif str(outputs.output).startswith(CAMERA):
        check_camera_extra()
    elif outputs.output is not None:
        check_forwarding(outputs.output)
    if outputs.record is not None:
        source_file = address.url if address.kind == "file" else None
        check_recording(outputs.record, outputs.segment, outputs.overwrite, source_file)
    if outputs.has_window:
        display.check_screen()
    with Live(source, config) as live:
        run = _LiveRun(live, outputs, Messages(on_message), stop or threading.Event())
        return run.to_the_end(on_statistics)


def _check_visitor(outputs: LiveOutputs) -> None:
    """Refuse outputs that would show the pictures of visitors to others."""
    if outputs.serve is None:
        raise ConfigError("a visitor's camera comes in over the page; say --serve PORT too")
    if outputs.record is not None or outputs.output is not None or outputs.has_window:
        raise ConfigError(
            "the pictures of visitors are for themselves: there is no window, recording or "
            "forwarding of them"
        )


class _LiveRun:
    """One run: a thread restores, and the caller's thread shows."""

    def __init__(
        self, live: Live, outputs: LiveOutputs, messages: Messages, stop: threading.Event
    ) -> None:
        self._live = live
        self._outputs = outputs
        self._messages = messages
        self._stop = stop
        self._frames: Latest[LiveFrame] = Latest()
        self._view = View(mode=outputs.view, strength=live.config.strength)
        self._recordings = Recordings(live, outputs, messages)
        self._forwarding = Forwarding(live, outputs) if outputs.output is not None else None
        self._untaken = ""
        """Why the receiver takes nothing, as it was last reported."""
        self._controls = Controls(
            live,
            self._view,
            self._recordings,
            messages,
            may_page_record=outputs.record is not None,
        )

    def to_the_end(self, on_statistics: Callable[[LiveStatistics], None] | None) -> LiveReport:
        sinks: list[LiveOutput] = [self._recordings]
        if self._forwarding is not None:
            sinks.append(self._forwarding)
        # whatever interrupts one of these ends, the others follow, and no recording lacks its end
        with ExitStack() as ends:
            for sink in sinks:
                ends.callback(sink.close)
            if self._outputs.serve is not None:
                self._serve(str(self._outputs.serve), ends)
            window = None
            if self._outputs.has_window:
                from mhnet_video.live.window import LiveWindow

                window = LiveWindow(self._view)
                ends.callback(window.close)
            thread = RestoringThread(self._live, self._frames, sinks)
            ends.callback(thread.close)
            self._show(window, sinks, ChangeReporter(self._messages, on_statistics))
        if thread.error is not None:
            raise thread.error
        return self._report()

    def _serve(self, address: str, ends: ExitStack) -> None:
        # an extra, which runs without a page do without
        from mhnet_video.live.web.page import Page
        from mhnet_video.live.web.server import PageServer

        has_window = self._outputs.has_window
        page = Page(
            frames=self._frames,
            statistics=lambda: self._live.statistics,
            press=self._controls.press_on_page,
            shown=lambda frame: None if has_window else self._live.shown(frame),
            view=self._outputs.view,
            state=self._state,
            recording_trouble=lambda: self._recordings.trouble,
            cameras=self._live.visitors,
            camera_size=self._live.config.size,
            camera_fps=self._live.config.fps,
        )
        server = PageServer(parse_listen_address(address), page)
        ends.callback(server.close)
        self._messages.say(f"the picture is at {server.link}")

    def _show(self, window: Any, sinks: list[LiveOutput], reporter: ChangeReporter) -> None:
        """Show frames until the source ends, somebody quits, or the run is stopped."""
        number, drawn_at = 0, 0.0
        overlay = Overlay()
        while not self._stop.is_set() and not self._controls.has_quit:
            got = self._frames.get(number, _KEY_SECONDS if window is not None else _TICK_SECONDS)
            frame = None
            if got is not None:
                number, frame = got
            elif self._frames.is_closed:
                return
            reporter.report(lambda: self._live.statistics)
            if not all(sink.check() for sink in sinks):
                return
            if self._forwarding is not None:
                self._report_forwarding(self._forwarding)
            if window is None:
                continue
            window.pump()
            if frame is not None or time.monotonic() - drawn_at >= _DRAW_SECONDS:
                lines = overlay.lines(
                    self._live.statistics, is_frozen=self._view.is_frozen, **self._state()
                )
                window.show(frame, lines, reporter.trouble)
                drawn_at = time.monotonic()
                window.pump()
            if frame is not None:
                self._live.shown(frame)
                overlay.begin()
            self._controls.follow_window()

    def _report_forwarding(self, forwarding: Forwarding) -> None:
        """Report the changes of the receiver; the screen shows its trouble while it lasts."""
        before, self._untaken = self._untaken, forwarding.trouble
        if self._untaken and not before:
            self._messages.say(self._untaken, is_on_screen=False)
        elif before and not self._untaken:
            self._messages.say("the receiver takes the stream")

    def _state(self) -> dict[str, str]:
        """The recording and the message, for the window and the page."""
        message = self._messages.on_screen
        if not message and self._forwarding is not None:
            message = self._forwarding.trouble
        return {"recording": self._recordings.destination, "message": message}

    def _report(self) -> LiveReport:
        statistics = self._live.statistics
        is_interrupted = self._stop.is_set()
        if not statistics.frames and not is_interrupted and not self._controls.has_quit:
            raise ReadError(statistics.trouble or f"no picture came from {statistics.source}.")
        if self._recordings.error is not None:
            raise self._recordings.error
        lost = self._recordings.lost
        if self._forwarding is not None:
            self._forwarding.check()
            lost += [line for line in self._forwarding.lost if line not in lost]
        return LiveReport(
            statistics=statistics,
            recorded=self._recordings.files,
            missed=self._recordings.missed,
            forwarded=self._forwarding.frames if self._forwarding is not None else 0,
            lost=tuple(lost),
            interrupted=is_interrupted,
        )
