"""Many files: each is restored by one of several processes, and what is done is not done again."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhnet_video.batch.discovery import OWN_FOLDER, check_sources
from mhnet_video.batch.jobs import share_machine, visible_gpus
from mhnet_video.batch.machine import usable_bytes, usable_cores
from mhnet_video.batch.manifest import Manifest
from mhnet_video.batch.planning import BatchPlan, FootageCache, make_plan
from mhnet_video.batch.recipe import recipe_of
from mhnet_video.batch.rows import Row, rows_of
from mhnet_video.batch.watching import SETTLED_SECONDS, FolderWatch
from mhnet_video.batch.work import Shard, Work
from mhnet_video.batch.workers import WorkerPool
from mhnet_video.config import BatchConfig, RestoreConfig
from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.media.output_file import why_unwritable
from mhnet_video.pipelines.batch_job import BatchJob, row_before
from mhnet_video.pipelines.batch_ray import RayJob, run_on_ray
from mhnet_video.pipelines.batch_tally import BatchProgress, BatchReport, Tally
from mhnet_video.pipelines.restore import restorer_of
from mhnet_video.tasks import DEFAULT, TASKS

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

_TICK_SECONDS = 0.2
"""How often a stop is looked for and progress told."""


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
    out = Path(out_folder)
    if batch.ray is not None:  # other machines have other working folders
        out = Path(os.path.abspath(out))
        sources = [os.path.abspath(source) for source in sources]
    check_sources(sources, out)
    _prepare(out)
    config, recipe, gpus = _resolve(config, batch)
    stop = stop or threading.Event()
    with Manifest(out / OWN_FOLDER) as manifest:
        manifest.refresh()
        before = partial(row_before, manifest=manifest, recipe=recipe)
        tally = Tally(before, on_row, on_progress)
        find = partial(make_plan, sources, out, has_tracks=config.gpx, shard=_shard(batch))
        if not batch.watch:
            plan = find(is_joined=batch.join)
            tally.take(plan.works, rows_of(plan.left_out))
        if batch.ray is not None:
            job = RayJob(make_restorer=make_restorer, config=config, recipe=recipe, out=out)
            jobs = run_on_ray(tally, job, address=batch.ray, jobs=batch.jobs, stop=stop)
            return tally.report(jobs=jobs, is_interrupted=stop.is_set())
        share = share_machine(
            batch.jobs,
            cores=usable_cores(),
            gpus=gpus,
            works=None if batch.watch else len(tally.waiting),
            memory_bytes=usable_bytes(),
            task=config.task or DEFAULT,
        )
        load = partial(BatchJob, make_restorer, config, recipe, out, share.threads)
        with WorkerPool(load, share.environments) as pool:
            if batch.watch:
                _watch(tally, pool, stop, sources, find)
            else:
                _go_on(tally, pool, stop, lambda: False)
        return tally.report(jobs=len(share.environments), is_interrupted=stop.is_set())


def _shard(batch: BatchConfig) -> Shard:
    return Shard(number=batch.shard[0], count=batch.shard[1])


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
) -> tuple[RestoreConfig, dict[str, Any], tuple[str, ...]]:
    """The same model for all workers, what decides about outputs, and the GPUs to use."""
    import torch

    from mhnet_video.engines.self_check import usable_devices
    from mhnet_video.model.weights import locate_weights, models_of, task_done

    done = task_done(config.task, config.model, config.weights)
    task = TASKS[done]
    if batch.dry != BatchConfig.dry and not task.is_rain:
        raise ConfigError(
            f"a clip without rain is no reason to leave {task.removes} in it; leave --dry out."
        )
    is_elsewhere = batch.ray is not None and config.device.startswith("cuda")
    devices = (torch.device("cuda"),) if is_elsewhere else usable_devices(config.device)
    kind = "cuda" if devices[0].type == "cuda" else "cpu"
    names = models_of(config.task, config.model, config.weights, kind)
    if config.model == "auto" and config.weights is None:
        config = replace(config, model="+".join(names))
    config = replace(config, task=done)
    gpus: tuple[str, ...] = ()
    if kind == "cuda":
        gpus = visible_gpus(torch.cuda)
        if config.device.startswith("cuda:"):
            named = [each.index or 0 for each in devices]
            gpus = tuple(gpus[index] for index in named if index < len(gpus))
        config = replace(config, device="cuda")
    elif config.device == "auto" and batch.ray is None:
        # workers are not to check a GPU each for itself
        config = replace(config, device=devices[0].type)
    recipe = recipe_of(config, *map(locate_weights, names))
    recipe["dry"] = batch.dry
    return config, recipe, gpus


def _watch(
    tally: Tally,
    pool: WorkerPool,
    stop: threading.Event,
    sources: Sequence[str],
    find: Callable[..., BatchPlan],
) -> None:
    """Do what there is, and what comes, until it is stopped."""
    footage_cache = FootageCache(SETTLED_SECONDS)
    seen: set[object] = set()

    def look(watch: FolderWatch) -> bool:
        if not watch.is_due():
            return True
        footage_cache.is_waiting = False
        plan = find(footage_cache=footage_cache)
        if footage_cache.is_waiting:
            watch.look_again()
        works = [work for work in plan.works if _is_new((work.key, *_versions(work)), seen)]
        left_out = [item for item in plan.left_out if _is_new(item, seen)]
        tally.take(works, rows_of(left_out))
        return True

    with FolderWatch(sources) as watch:
        _go_on(tally, pool, stop, lambda: look(watch))


def _go_on(
    tally: Tally, pool: WorkerPool, stop: threading.Event, is_more: Callable[[], bool]
) -> None:
    """Have the workers do what waits, until nothing does, and nothing more will come."""
    is_stopping = False
    while True:
        if not is_stopping and (stop.is_set() or tally.end_reason):
            is_stopping = True
            pool.stop()
            tally.drop_waiting()
        goes_on = not is_stopping and is_more()
        while tally.waiting and not stop.is_set() and pool.give(tally.waiting[0]):
            tally.waiting.popleft()
        if not (goes_on or tally.waiting or pool.works):
            break
        if not pool.works:
            stop.wait(_TICK_SECONDS)
        for news in pool.poll(_TICK_SECONDS):
            tally.hear(news)
        tally.tell(pool.works)
    tally.tell([])


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
