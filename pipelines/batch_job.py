"""What a worker does with a work: restore it beside its place, and move it there when whole."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhnet_video.batch.claim import Claim, staged_path
from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.manifest import Entry, Manifest, check_unchanged, identify
from mhnet_video.batch.rows import Row, Status, row_of
from mhnet_video.batch.work import Work
from mhnet_video.batch.workers import Job
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import MHNetVideoError, WriteError, first_line
from mhnet_video.media.output_file import why_unwritable
from mhnet_video.media.segment_writer import check_format
from mhnet_video.pipelines.restore import Progress, Report, restore_video
from mhnet_video.pipelines.segments import SEGMENT_SECONDS, restore_in_segments
from mhnet_video.restoration.dryness import copy_dry, is_dry

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

_LONG_SECONDS = 3 * SEGMENT_SECONDS
"""Footage, in seconds, from which on a file is restored in segments, so that a killed run goes on
where it was."""
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""What no other work would get round."""


def row_before(work: Work, manifest: Manifest, recipe: dict[str, Any]) -> Row | None:
    """The row of a work that needs not be begun; None for one that is to be done.

    Args:
        work: The work.
        manifest: What has been done.
        recipe: What decides about the outputs.
    """
    try:
        is_done = manifest.is_done(work, recipe)
    except OSError as error:
        return row_of(work, Status.FAILED, f"{error.filename} cannot be read: {error.strerror}.")
    return row_of(work, Status.BEFORE) if is_done else None


def load_job(
    make_restorer: "Callable[[RestoreConfig], Restorer]",
    config: RestoreConfig,
    recipe: dict[str, Any],
    out: Path,
    threads: int,
) -> Job:
    """What a worker does once: load the model, and find what has been done.

    Args:
        make_restorer: Makes the restorer.
        config: Settings of restoring.
        recipe: What decides about the outputs.
        out: The folder of outputs.
        threads: Threads of PyTorch and of the engine.

    Returns:
        What restores a work, and tells of every error in its row.
    """
    import torch

    torch.set_num_threads(threads)
    return RestoringJob(make_restorer(config), Manifest(out / OWN_FOLDER), config, recipe, out)


@dataclass(frozen=True)
class RestoringJob:
    """Restores works, one after another; tells of every error in the row of its work."""

    restorer: "Restorer"
    manifest: Manifest
    """What has been done."""
    config: RestoreConfig
    recipe: dict[str, Any]
    """What decides about the outputs."""
    out: Path
    """The folder of outputs."""

    def __call__(self, work: Work, tell: Callable[[float], None], stop: threading.Event) -> Row:
        """Do a work, whatever happens.

        Args:
            work: The work.
            tell: Called with the seconds of footage that are done.
            stop: Ends it at a frame when set.
        """
        begin = time.monotonic()
        try:
            row = self._restore(work, tell, stop)
        except (MHNetVideoError, OSError, MemoryError) as error:
            # of where it grew nothing is left, and nobody knows that name
            reason = _said(error, work).replace(str(staged_path(self.out, work)), str(work.output))
            row = row_of(work, Status.FAILED, reason, is_fatal=_is_fatal(error))
        except Exception as error:
            reason = f"a fault in this program, {type(error).__name__}: {first_line(error)}"
            row = row_of(work, Status.FAILED, reason)
        return replace(
            row,
            seconds=round(time.monotonic() - begin, 3),
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )

    def _restore(self, work: Work, tell: Callable[[float], None], stop: threading.Event) -> Row:
        manifest, recipe = self.manifest, self.recipe
        try:
            claim = Claim(self.out, work)
        except BlockingIOError:
            return row_of(work, Status.ELSEWHERE, "another run is at it; run it again to see.")
        with claim:
            manifest.refresh()
            if manifest.is_done(work, recipe):
                return row_of(work, Status.BEFORE)
            if work.output.exists() and not self.config.overwrite and not manifest.has_made(work):
                raise WriteError(
                    f"{work.output} exists already, and is not as a batch has left it; "
                    "move it away, or add --overwrite."
                )
            work.output.parent.mkdir(parents=True, exist_ok=True)  # or there is no use in restoring
            before = tuple(identify(path) for path in work.sources)
            report = None
            dry = _dryness(work, recipe["dry"], self.restorer)
            if dry and recipe["dry"] == "skip":
                return row_of(work, Status.SKIPPED, dry)
            if dry:
                copy_dry(work.sources[0], claim.staged)
            else:
                report = self._restored(work, claim.staged, tell, stop)
                if report.interrupted:
                    return row_of(work, Status.UNFINISHED, "it was ended before its end.")
            if changed := check_unchanged(work.sources, before):
                return row_of(work, Status.FAILED, changed)
            result = identify(claim.staged)
            manifest.add(Entry(output=work.key, result=result, sources=before, recipe=recipe))
            claim.commit()
        if report is None:
            return row_of(work, Status.COPIED, dry)
        return row_of(
            work,
            Status.DONE,
            frames=report.frames,
            damaged=report.damaged,
            lost=report.lost,
            model=report.model,
        )

    def _restored(
        self, work: Work, staged: Path, tell: Callable[[float], None], stop: threading.Event
    ) -> Report:
        """Restore the sources of a work into one file."""
        config = self.config

        def on_progress(progress: Progress) -> None:
            tell(progress.position_seconds)

        is_long = work.seconds >= _LONG_SECONDS and not (config.gpx or config.evidence)
        is_long = is_long and _has_segments(work.output)
        how: dict[str, Any] = {"restorer": self.restorer, "on_progress": on_progress, "stop": stop}
        if len(work.sources) > 1 or is_long:
            return restore_in_segments(work.sources, staged, config, **how)
        return restore_video(work.sources[0], staged, config, **how, home=work.output)


def _has_segments(output: Path) -> bool:
    """Whether an output of this name can be joined of segments."""
    try:
        check_format(output)
    except MHNetVideoError:
        return False
    return True


def _dryness(work: Work, policy: str, restorer: "Restorer") -> str:
    """Why a clip is dry, where that changes what becomes of it; empty if it is to be restored.

    A trip is joined whether it is dry or not. A clip whose output has another format cannot be the
    output itself.
    """
    if policy == "restore" or len(work.sources) > 1:
        return ""
    source = work.sources[0]
    if policy == "copy" and source.suffix.lower() != work.output.suffix.lower():
        return ""
    dryness = is_dry(source, restorer)
    return f"it is dry: {dryness.reason}." if dryness.is_dry else ""


def _said(error: BaseException, work: Work) -> str:
    """Why a work has no output."""
    if isinstance(error, MemoryError):
        return "the memory of this machine is not enough for pictures of this size."
    if isinstance(error, OSError):
        what = error.filename or work.output
        return f"{what} cannot be used: {why_unwritable(error)}."
    # which says nothing of a part that is left
    cause = error.__cause__
    return str(cause if isinstance(cause, MHNetVideoError) else error)


def _is_fatal(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FATAL:
            return True
        cause = cause.__cause__
    return False
