"""What a worker does with a work: restore it beside its place, and move it there when whole."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhnet_video.batch.claim import Claim, staged_path
from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.manifest import Entry, Identity, Manifest, check_unchanged, identify
from mhnet_video.batch.rows import Row, Status, row_of
from mhnet_video.batch.work import Unit, Work
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import MHNetVideoError, WriteError, unforeseen
from mhnet_video.media.fidelity import Loss, lines_of
from mhnet_video.media.output_file import why_unwritable
from mhnet_video.memory import give_back_large_blocks
from mhnet_video.pipelines.batch_units import has_segments
from mhnet_video.pipelines.companions import Companions, companion_paths
from mhnet_video.pipelines.evidence import Restoration
from mhnet_video.pipelines.restore import Progress, Report, restore_video
from mhnet_video.pipelines.segmented_work import SegmentedWork
from mhnet_video.pipelines.segments import restore_in_segments
from mhnet_video.restoration.dryness import copy_dry, is_dry

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

_PLANNING_SECONDS = 600.0
"""How long to wait for another process that plans the segments of a work."""
_WAIT_SECONDS = 0.2
"""Between looks at whether it has."""
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


class BatchJob:
    """What a worker does: it loads the model once, and tells of every error in the work's row.

    Args:
        make_restorer: Makes the restorer.
        config: Settings of restoring.
        recipe: What decides about the outputs.
        out: The folder of outputs.
        threads: Threads of PyTorch and of the engine.

    Raises:
        MHNetVideoError: The model cannot be loaded.
    """

    def __init__(
        self,
        make_restorer: "Callable[[RestoreConfig], Restorer]",
        config: RestoreConfig,
        recipe: dict[str, Any],
        out: Path,
        threads: int,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._restorer = make_restorer(config)
        self._manifest = Manifest(out / OWN_FOLDER)
        self._config = config
        self._recipe = recipe
        self._out = out

    def __call__(self, work: Work, tell: Callable[[float], None], stop: threading.Event) -> Row:
        """Do a work, whatever happens.

        Args:
            work: The work.
            tell: Called with the seconds of footage that are done.
            stop: Ends it at a frame when set.
        """
        row = self._guarded(work, lambda: self._restore(work, tell, stop))
        assert row is not None
        return row

    def part(self, unit: Unit) -> Row | None:
        """Make some segments of a work, and the output if all the others are there.

        Several processes may do so at the same time, and a unit may be done twice.

        Args:
            unit: The work, and which of its segments.

        Returns:
            The work's row if it has ended; None if others have to do something of it.
        """
        return self._guarded(unit.work, lambda: self._part(unit))

    def _guarded(self, work: Work, act: Callable[[], Row | None]) -> Row | None:
        begin = time.monotonic()
        try:
            row = act()
        except (MHNetVideoError, OSError, MemoryError) as error:
            # of where it grew nothing is left, and nobody knows that name
            staged = str(staged_path(self._out, work))
            reason = _said(error, work).replace(staged, str(work.output))
            row = row_of(work, Status.FAILED, reason, is_fatal=_is_fatal(error))
        except Exception as error:
            row = row_of(work, Status.FAILED, unforeseen(error))
        if row is None:
            return None
        return replace(
            row,
            seconds=round(time.monotonic() - begin, 3),
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )

    def _restore(self, work: Work, tell: Callable[[float], None], stop: threading.Event) -> Row:
        try:
            claim = Claim(self._out, work)
        except BlockingIOError:
            return _elsewhere(work)
        with claim:
            ended = self._begin(work, claim)
            if ended is not None:
                return ended
            before = tuple(identify(path) for path in work.sources)
            try:
                report = self._restored(work, claim.staged, tell, stop)
            except (MHNetVideoError, OSError) as error:
                # whoever reads it next fails, with a sentence about what it was after
                changed = "" if _is_fatal(error) else check_unchanged(work.sources, before)
                if not changed:
                    raise
                return row_of(work, Status.FAILED, changed)
            if report.interrupted:
                return row_of(work, Status.UNFINISHED, "it was ended before its end.")
            done = row_of(
                work,
                Status.DONE,
                frames=report.frames,
                damaged=report.damaged,
                lost=report.lost,
                has_drops=report.has_drops,
                model=report.model,
            )
            return self._end(work, claim, before, done)

    def _begin(self, work: Work, claim: Claim) -> Row | None:
        """The row of a work that needs not be restored, which is seen now; None for the others."""
        self._manifest.refresh()
        if self._manifest.is_done(work, self._recipe):
            return row_of(work, Status.BEFORE)
        self._check_places(work)
        work.output.parent.mkdir(parents=True, exist_ok=True)  # or there is no use in restoring
        before = tuple(identify(path) for path in work.sources)
        dry = _dryness(work, self._recipe["dry"], self._restorer)
        if not dry:
            return None
        if self._recipe["dry"] == "skip":
            if work.output.exists():
                dry = f"{dry.removesuffix('.')}; an earlier output stays."
            return row_of(work, Status.SKIPPED, dry)
        copy_dry(work.sources[0], claim.staged)
        lost = self._beside_copy(work, claim.staged)
        return self._end(work, claim, before, row_of(work, Status.COPIED, dry, lost=lost))

    def _check_places(self, work: Work) -> None:
        """Refuse to replace what no batch has made.

        Raises:
            WriteError: It stands where the output or a file beside it is to be.
        """
        for path in (work.output, *companion_paths(work.output, self._config)):
            is_ours = self._config.overwrite or self._manifest.has_made(work, path)
            if path.exists() and not is_ours:
                raise WriteError(
                    f"{path} exists already, and is not as a batch has left it; "
                    "move it away, or add --overwrite."
                )
        if self._config.overwrite or not work.output.exists():
            return
        if not self._manifest.may_replace_output(work):
            raise WriteError(
                f"{work.output} exists already, made of footage that is not all there any more, or "
                "has changed; move it away to keep it, or add --overwrite."
            )

    def _beside_copy(self, work: Work, copy: Path) -> tuple[str, ...]:
        """Write the track of a copy, where it is asked for, and tell what there is not."""
        config = replace(self._config, evidence=False)
        with Companions(Restoration(work.sources, copy, config)) as companions:
            _, losses = companions.complete({})
        if self._config.evidence:
            why = "a copy has none, as nothing was done to it"
            losses.append(Loss(kind="evidence", what="evidence", why=why))
        return tuple(lines_of(losses))

    def _end(self, work: Work, claim: Claim, before: tuple[Identity, ...], row: Row) -> Row:
        """Give an output its name, and return its row, unless a source has changed meanwhile."""
        if changed := check_unchanged(work.sources, before):
            return row_of(work, Status.FAILED, changed)
        self._check_places(work)  # restoring may have taken hours
        entry = Entry(
            output=work.key,
            result=identify(claim.staged),
            sources=before,
            recipe=self._recipe,
            companions={path.name: identify(path) for path in claim.companions()},
        )
        # evidence and tracks of an output before would tell of another one
        every = replace(self._config, gpx=True, evidence=True, compare=False)
        beside = companion_paths(work.output, every)
        outdated = [path for path in beside if self._manifest.has_made(work, path)]
        self._manifest.add(entry)
        claim.commit(outdated)
        return row

    def _restored(
        self, work: Work, staged: Path, tell: Callable[[float], None], stop: threading.Event
    ) -> Report:
        """Restore the sources of a work into one file."""

        def on_progress(progress: Progress) -> None:
            tell(progress.position_seconds)

        how: dict[str, Any] = {
            "restorer": self._restorer,
            "on_progress": on_progress,
            "stop": stop,
            "home": work.output,
        }
        if has_segments(work):
            return restore_in_segments(work.sources, staged, self._config, **how)
        return restore_video(work.sources[0], staged, self._config, **how)

    def _part(self, unit: Unit) -> Row | None:
        work, stop = unit.work, threading.Event()
        self._manifest.refresh()
        if self._manifest.is_done(work, self._recipe):
            return row_of(work, Status.BEFORE)
        give_back_large_blocks()
        staged = Path(os.path.realpath(staged_path(self._out, work)))
        segmented = SegmentedWork(list(work.sources), staged, self._config, self._restorer)
        ended = self._planned(work, segmented)
        if ended is not None:
            return ended
        count = segmented.store.count
        segmented.restore(range(unit.first, count, unit.step), None, stop)
        if not segmented.store.is_complete:
            return None
        # whoever comes last joins them; if that one dies, so does whoever does its unit again
        row = self._restore(work, lambda seconds: None, stop)
        return None if row.status is Status.ELSEWHERE else row

    def _planned(self, work: Work, segmented: SegmentedWork) -> Row | None:
        """See that there is a plan of the segments, which one process makes for all.

        Returns:
            The row of a work that needs no segments; None for the others.
        """
        end = time.monotonic() + _PLANNING_SECONDS
        while not segmented.load():
            try:
                claim = Claim(self._out, work)
            except BlockingIOError:
                if time.monotonic() > end:
                    return _elsewhere(work)
                time.sleep(_WAIT_SECONDS)
                continue
            with claim:
                ended = self._begin(work, claim)
                if ended is None:
                    segmented.prepare()
                return ended
        return None


def _elsewhere(work: Work) -> Row:
    return row_of(work, Status.ELSEWHERE, "another run is at it; run it again to see.")


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
