"""Serves the page for files: each clip is a batch of its own, one after the other."""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mhnet_video.app.clips import Clips, Outcome, Quota, UploadedClip
from mhnet_video.app.restoring import RestoringQueue
from mhnet_video.app.workspace import Workspace
from mhnet_video.batch.rows import Status
from mhnet_video.config import AppConfig, BatchConfig, RestoreConfig
from mhnet_video.pipelines.batch import run_batch
from mhnet_video.pipelines.batch_tally import BatchProgress
from mhnet_video.pipelines.restore import restorer_of
from mhnet_video.tasks import TASKS
from mhnet_video.web.access import check_installed, parse_listen_address

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

_TICK_SECONDS = 0.5
"""How often a stop is looked for, where waiting for it would hold back signals."""


def run_app(
    config: RestoreConfig | None = None,
    app: AppConfig | None = None,
    *,
    on_message: Callable[[str], None] = lambda text: None,
    stop: threading.Event | None = None,
    make_restorer: "Callable[[RestoreConfig], Restorer]" = restorer_of,
    quota: Quota | None = None,
) -> None:
    """Serve the page until it is stopped.

    Uploads are removed at the end, and results that no folder is named for.

    Args:
        config: How clips are restored, but for what is chosen on the page; the defaults if None.
        app: Settings of the page; the defaults if None.
        on_message: Told what a person should know, a line each.
        stop: Ends the page when set; what is being restored ends at a frame, without a result.
        make_restorer: As for `run_batch`.
        quota: What clips may take up; the defaults if None.

    Raises:
        ConfigError: The address is none, the extra is not installed, or the device that is named is
            not on this machine.
        WriteError: The address cannot be listened at, or the folder cannot be written.
    """
    config, app = config or RestoreConfig(), app or AppConfig()
    address = parse_listen_address(app.serve)
    check_installed()
    if config.device not in ("auto", "cpu"):
        # loads PyTorch, for which the page does not wait otherwise
        from mhnet_video.engines.self_check import usable_devices

        usable_devices(config.device)
    # an extra, which all else does without
    from mhnet_video.app.routes import AppServer

    stop = stop or threading.Event()
    keep_in = Path(os.path.abspath(app.folder)) if app.folder is not None else None
    with ExitStack() as ends:
        workspace = ends.enter_context(Workspace(keep_in))
        clips = Clips(workspace.path, config, quota)
        ends.enter_context(RestoringQueue(clips, partial(_restore, make_restorer), keep_in))
        server = ends.enter_context(AppServer(address, clips, keep_in))
        on_message(f"the page is at {server.link}")
        while not stop.wait(_TICK_SECONDS):
            pass


def _restore(
    make_restorer: "Callable[[RestoreConfig], Restorer]",
    clip: UploadedClip,
    on_position: Callable[[float], None],
) -> Outcome:
    """Restore a clip by a batch that is of it alone, with all of the machine."""

    def on_progress(progress: BatchProgress) -> None:
        for _, seconds, _ in progress.current:
            on_position(seconds)

    out = clip.folder / "restored"
    report = run_batch(
        [str(clip.source)],
        out,
        clip.config,
        BatchConfig(jobs=1),
        on_progress=on_progress,
        stop=clip.stop,
        make_restorer=make_restorer,
    )
    row = report.rows[-1]
    if row.status is Status.BEFORE:
        # nothing was asked for that the result is not already, and this row says nothing of it
        return Outcome(result=out / row.output, lost=clip.result_lost)
    if row.status.is_done and row.output:
        hint = f"drops are left on the glass; choose {TASKS['raindrop'].removes} for these"
        lost = (*row.lost, hint) if row.has_drops else row.lost
        return Outcome(result=out / row.output, lost=lost)
    if row.status is Status.UNFINISHED or clip.stop.is_set():
        return Outcome(is_cancelled=True)
    reason = row.reason
    for path in (clip.source, out / row.output):
        reason = reason.replace(str(path), clip.name)
    return Outcome(reason=reason)
