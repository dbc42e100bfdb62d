"""Many files: each is restored by one of several processes, and what is done is not done again."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhnet_video.batch.discovery import OWN_FOLDER, check_sources
from mhnet_video.batch.jobs import Share, share_machine, usable_cores, visible_gpus
from mhnet_video.batch.manifest import Manifest
from mhnet_video.batch.planning import Looks, make_plan
from mhnet_video.batch.recipe import recipe_of
from mhnet_video.batch.rows import Row, Status, row_of, rows_of
from mhnet_video.batch.watching import SETTLED_SECONDS, FolderWatch
from mhnet_video.batch.work import Shard, Work
from mhnet_video.batch.workers import Job, WorkerPool, WorkPosition
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.media.output_file import why_unwritable
from mhnet_video.pipelines.batch_job import load_job, row_before
from mhnet_video.pipelines.batch_ray import RayJob, run_on_ray
from mhnet_video.pipelines.restore import restorer_of

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

_TICK_SECONDS = 0.2
"""How often a stop is looked for and progress told."""


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """How far a batch has come."""

    works: int
    """Works that are done, of `total_works`."""
    total_works: int
    seconds: float
    """Footage that is done, in seconds, of `total_seconds`."""
    total_seconds: float
    current: tuple[tuple[str, float, float], ...]
    """What is being restored: key, footage done and footage in all, in seconds."""


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What a batch has done."""

    rows: tuple[Row, ...]
    seconds: float
    """Duration of the run, in seconds."""
    jobs: int
    """Files that were restored at the same time, at most."""
    interrupted: bool
    """Whether the run was ended before its end."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.interrupted and all(row.status.is_done for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {
            "seconds": self.seconds,
            "jobs": self.jobs,
            "interrupted": self.interrupted,
            "rows": [row.to_dict() for row in self.rows],
        }


def run_batch(
    sources: Sequence[str],
    out_folder: str | os.PathLike[str],
    config: RestoreConfig | None = None,
    batch: BatchConfig | None = None,
    *,
    on_row: Callable[[Row], None] | None = None,
    on_progress: Callable[[BatchProgress], None] | None = None,
    stop: threading.Event | None = None,
    make_restorer: "Callable[[RestoreConfig], Restorer]" = restorer_of,
) -> BatchReport:
    """Restore many files into a folder, in the tree that they have.

    A file that cannot be restored is a row, and not the end. Outputs get their names when they are
    complete. What earlier runs have done is not done again, as long as sources, outputs, settings
    and weights are the same.

    Args:
        sources: Files, folders and patterns.
        out_folder: Folder of the outputs, which is created.
        config: Settings of restoring; the defaults if None.
        batch: Settings of the batch; the defaults if None.
        on_row: Called with each row as it comes.
        on_progress: Called now and then.
        stop: Ends the run when set; files at hand end at a frame, and have no output.
        make_restorer: Makes the restorer of each worker, in its process and once; picklable.

    Returns:
        A row for each work, and for each source that becomes none.

    Raises:
        ConfigError: A setting does not fit these sources or this machine.
        WeightsError: The model's weights cannot be loaded.
        WriteError: The folder of outputs cannot be written.
    """
    config, batch = config or RestoreConfig(), batch or BatchConfig()
    if batch.join and (config.gpx or config.evidence):
        raise ConfigError("positions and evidence are of single files; leave --join or them.")
    out = Path(out_folder)
    if batch.ray is not None:  # other machines have other working folders
        out = Path(os.path.abspath(out))
        sources = [os.path.abspath(source) for source in sources]
    _prepare(out)
    check_sources(sources, out)
    config, recipe, share = _resolve(config, batch)
    load = partial(load_job, make_restorer, config, recipe, out, share.threads)
    run = _BatchRun(out, recipe, load, share, on_row, on_progress, stop or threading.Event())
    if batch.watch:
        return run.through_watch(sources, Shard(number=batch.shard[0], count=batch.shard[1]))
    plan = make_plan(
        sources,
        out,
        is_joined=batch.join,
        shard=Shard(number=batch.shard[0], count=batch.shard[1]),
    )
    if batch.ray is not None:
        job = RayJob(make_restorer=make_restorer, config=config, recipe=recipe, out=out, threads=1)
        return run.through_ray(plan.works, rows_of(plan.left_out), job, batch)
    return run.through(plan.works, rows_of(plan.left_out))


def _prepare(out: Path) -> None:
    """Make the folder of outputs, and see that it can be written."""
    own = out / OWN_FOLDER
    try:
        own.mkdir(parents=True, exist_ok=True)
        probe = own / f"probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise WriteError(f"{out} cannot be written: {why_unwritable(error)}.") from error


def _resolve(
    config: RestoreConfig, batch: BatchConfig
) -> tuple[RestoreConfig, dict[str, Any], Share]:
    """The same model for all workers, what decides about outputs, and a share for each worker."""
    import torch

    from mhnet_video.model.weights import (
        DEFAULTS,
        locate_weights,
        resolve_device,
    )

    is_elsewhere = batch.ray is not None and config.device.startswith("cuda")
    device = torch.device("cuda") if is_elsewhere else resolve_device(config.device)
    if config.model == "auto":
        kind = "cuda" if device.type == "cuda" else "cpu"
        config = replace(config, model=DEFAULTS[config.task][kind])
    gpus: tuple[str, ...] = ()
    if device.type == "cuda":
        gpus = visible_gpus(torch.cuda)
        if config.device.startswith("cuda:"):
            gpus = gpus[device.index or 0 :][:1]
        config = replace(config, device="cuda")
    recipe = recipe_of(config, locate_weights(config.weights or config.model))
    recipe["dry"] = batch.dry
    return config, recipe, share_machine(batch.jobs, cores=usable_cores(), gpus=gpus)


class _BatchRun:
    """One run: works wait, workers take them, and rows come back."""

    def __init__(
        self,
        out: Path,
        recipe: dict[str, Any],
        load: Callable[[], Job],
        share: Share,
        on_row: Callable[[Row], None] | None,
        on_progress: Callable[[BatchProgress], None] | None,
        stop: threading.Event,
    ) -> None:
        self._out = out
        self._recipe = recipe
        self._load = load
        self._share = share
        self._on_row = on_row
        self._on_progress = on_progress
        self._stop = stop
        self._begin = time.monotonic()
        self._waiting: deque[Work] = deque()
        self._positions: dict[str, float] = {}
        self._rows: list[Row] = []
        self._total_works = self._done_works = 0
        self._total_seconds = self._done_seconds = 0.0
        self._end_reason = ""

    def through(self, works: Sequence[Work], rows: Sequence[Row]) -> BatchReport:
        """Do some works."""
        self._take(works, rows)
        return self._go_on(lambda: False)

    def through_watch(self, sources: Sequence[str], shard: Shard) -> BatchReport:
        """Do what there is, and what comes, until it is stopped."""
        looks = Looks(SETTLED_SECONDS)
        seen: set[object] = set()

        def look(watch: FolderWatch) -> bool:
            if not watch.is_due():
                return True
            looks.is_waiting = False
            plan = make_plan(sources, self._out, shard=shard, looks=looks)
            if looks.is_waiting:
                watch.look_again()
            works = [work for work in plan.works if _is_new((work.key, *_versions(work)), seen)]
            left_out = [item for item in plan.left_out if _is_new(item, seen)]
            self._take(works, rows_of(left_out))
            return True

        with FolderWatch(sources) as watch:
            return self._go_on(lambda: look(watch))

    def through_ray(
        self, works: Sequence[Work], rows: Sequence[Row], job: RayJob, batch: BatchConfig
    ) -> BatchReport:
        """Do some works on a cluster."""
        self._take(works, rows)
        left = []
        with Manifest(self._out / OWN_FOLDER) as manifest:
            manifest.refresh()
            for work in works:
                row = row_before(work, manifest, self._recipe)
                if row is None:
                    left.append(work)
                else:
                    self._finish(row)
        self._waiting.clear()
        if left:
            ended = run_on_ray(
                left,
                job,
                address=batch.ray or "",
                jobs=batch.jobs,
                is_on_gpu=job.config.device.startswith("cuda"),
                stop=self._stop,
            )
            for row in ended:
                self._finish(row)
                self._tell([])
        return self._report()

    def _take(self, works: Sequence[Work], rows: Sequence[Row]) -> None:
        self._waiting += works
        self._total_works += len(works)
        self._total_seconds += sum(work.seconds for work in works)
        for row in rows:
            self._add(row)

    def _go_on(self, is_more: Callable[[], bool]) -> BatchReport:
        """Until nothing waits, and nothing more will come."""
        with ExitStack() as stack:
            pool = stack.enter_context(WorkerPool(self._load, self._share.environments))
            manifest = stack.enter_context(Manifest(self._out / OWN_FOLDER))
            manifest.refresh()
            is_stopping = False
            while True:
                if not is_stopping and (self._stop.is_set() or self._end_reason):
                    is_stopping = True
                    pool.stop()
                    self._drop_waiting()
                goes_on = not is_stopping and is_more()
                self._feed(pool, manifest)
                if not (goes_on or self._waiting or pool.works):
                    break
                if not pool.works:
                    self._stop.wait(_TICK_SECONDS)
                for news in pool.poll(_TICK_SECONDS):
                    if isinstance(news, WorkPosition):
                        self._positions[news.work.key] = news.seconds
                    else:
                        self._finish(news)
                self._tell(pool.works)
            self._tell([])
        return self._report()

    def _report(self) -> BatchReport:
        return BatchReport(
            rows=tuple(self._rows),
            seconds=time.monotonic() - self._begin,
            jobs=len(self._share.environments),
            interrupted=self._stop.is_set(),
        )

    def _feed(self, pool: WorkerPool, manifest: Manifest) -> None:
        """Give the workers that have none a work; what is done needs no worker."""
        while self._waiting and not self._stop.is_set():
            work = self._waiting[0]
            row = row_before(work, manifest, self._recipe)
            if row is not None:
                self._finish(row)
            elif not pool.give(work):
                return
            self._waiting.popleft()

    def _drop_waiting(self) -> None:
        reason = self._end_reason or "it was not begun."
        while self._waiting:
            self._finish(row_of(self._waiting.popleft(), Status.UNFINISHED, reason))

    def _finish(self, row: Row) -> None:
        """A work has ended."""
        self._positions.pop(row.output, None)
        self._done_works += 1
        if row.status is Status.DONE:
            self._done_seconds += row.footage_seconds
        else:  # which tells nothing of the speed
            self._total_seconds -= row.footage_seconds
        if row.is_fatal and not self._end_reason:
            self._end_reason = f"it was not begun, as the run ended: {row.reason}"
        self._add(row)

    def _add(self, row: Row) -> None:
        self._rows.append(row)
        if self._on_row is not None:
            self._on_row(row)

    def _tell(self, works: Sequence[Work]) -> None:
        if self._on_progress is None:
            return
        current = [(work.key, self._positions.get(work.key, 0.0), work.seconds) for work in works]
        self._on_progress(
            BatchProgress(
                works=self._done_works,
                total_works=self._total_works,
                seconds=self._done_seconds + sum(position for _, position, _ in current),
                total_seconds=self._total_seconds,
                current=tuple(current),
            )
        )


def _is_new(key: object, seen: set[object]) -> bool:
    is_new = key not in seen
    seen.add(key)
    return is_new


def _versions(work: Work) -> list[tuple[int, int]]:
    """The sizes and times of a work's sources."""
    versions = []
    for path in work.sources:
        try:
            status = path.stat()
        except OSError:
            continue  # whoever reads it says so
        versions.append((status.st_size, status.st_mtime_ns))
    return versions
