"""Many files on a cluster: Ray moves paths and rows, never frames.

The folder of outputs is on a file system that all machines have. Its manifest is the checkpoint: a
plan holds only what is not done, and a work that runs twice, as after the loss of a machine, finds
what the first run has left.
"""

import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.rows import Row, Status, row_of
from mhnet_video.batch.work import Work
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import MHNetVideoError, first_line
from mhnet_video.pipelines.batch_job import load_job

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

_PLAN = "plan.parquet"
_RETRIES = 2
"""How often a work is done again whose machine or process was lost; it may be what kills them."""


@dataclass(frozen=True, kw_only=True)
class RayJob:
    """What each actor loads; it travels to all machines."""

    make_restorer: "Callable[[RestoreConfig], Restorer]"
    config: RestoreConfig
    recipe: dict[str, Any]
    out: Path
    """The folder of outputs, absolute, and the same on all machines."""
    threads: int
    """Threads of each actor."""


class Actor:
    """Restores one work after the other; Ray Data starts as many as the cluster holds.

    Args:
        job: What to load, once.
    """

    def __init__(self, job: RayJob) -> None:
        self._job = load_job(job.make_restorer, job.config, job.recipe, job.out, job.threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Do a batch of one work, and return its row; errors are in it."""
        (told,) = batch["work"]
        row = self._job(_work_of(told), lambda seconds: None, threading.Event())
        return {"row": [json.dumps(asdict(row))]}


def run_on_ray(
    works: Sequence[Work],
    job: RayJob,
    *,
    address: str,
    jobs: int | None,
    is_on_gpu: bool,
    stop: threading.Event,
) -> Iterator[Row]:
    """Do works on a cluster.

    Args:
        works: What is to be done; their paths are absolute, and the same on all machines.
        job: What each actor loads; its threads are set here.
        address: Of the cluster; empty for the one that runs here, or else a new one of this
            machine alone.
        jobs: The most works at the same time; None for as many as there is room for.
        is_on_gpu: Whether each work takes a GPU.
        stop: Ends the run when set.

    Yields:
        A row for each work, as they end.

    Raises:
        MHNetVideoError: The extra `ray` is not installed, there is no such cluster, or it is lost.
    """
    try:
        import pyarrow
        import ray
        import ray.data
        from pyarrow import parquet
    except ImportError as error:
        raise MHNetVideoError(
            "--ray needs the extra `ray`: pip install 'mhnet-video[ray]', on all machines"
        ) from error
    plan = job.out / OWN_FOLDER / f"{os.getpid()}-{_PLAN}"
    rows = [{"key": work.key, "work": _told(work)} for work in works]
    parquet.write_table(pyarrow.Table.from_pylist(rows), plan)
    left = {work.key: work for work in works}
    try:
        cores = _connect(ray, address)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # a work that is lost with its machine is done by another
        context.max_errored_blocks = -1
        # read whole, before the actors take all cores that there are
        read = ray.data.read_parquet(str(plan), override_num_blocks=len(works)).materialize()
        with warnings.catch_warnings():
            # Ray Data 2.60 has no other name for the number of retries
            warnings.simplefilter("ignore")
            done = read.map_batches(
                Actor,
                fn_constructor_args=[replace(job, threads=cores)],
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=jobs, max_tasks_in_flight_per_actor=1
                ),
                num_cpus=cores,
                num_gpus=1 if is_on_gpu else 0,
                max_task_retries=_RETRIES,
            )
        for told in done.iter_rows():
            row = _row_of(told["row"])
            left.pop(row.output, None)
            yield row
            if stop.is_set():
                break
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise MHNetVideoError(f"the Ray cluster fails: {first_line(error)}") from error
    finally:
        ray.shutdown()
        plan.unlink(missing_ok=True)
    ended = "it was not begun." if stop.is_set() else "the cluster has lost it; run it again."
    status = Status.UNFINISHED if stop.is_set() else Status.FAILED
    for work in left.values():
        yield row_of(work, status, ended)


def _connect(ray: Any, address: str) -> int:
    """Join or start a cluster; the cores that each actor takes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address=address or None, log_to_driver=False, logging_level="ERROR")
    counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return min([1, *filter(None, counts)])


def _told(work: Work) -> str:
    values = asdict(work) | {"sources": [str(path) for path in work.sources]}
    return json.dumps(values | {"output": str(work.output)})


def _work_of(told: str) -> Work:
    values = json.loads(told)
    sources = tuple(map(Path, values.pop("sources")))
    return Work(**values | {"sources": sources, "output": Path(values["output"])})


def _row_of(told: str) -> Row:
    values = json.loads(told)
    values |= {name: tuple(values[name]) for name in ("sources", "lost")}
    return Row(**values | {"status": Status(values["status"])})
