"""Many files on a cluster: Ray moves paths and rows, never frames.

The folder of outputs is on a file system that all machines have. What is in it is the checkpoint:
the manifest knows the outputs that are done, and the folders of segments what is done of long
files. A plan holds only what is missing. What runs twice, as after the loss of a machine, finds
what the first run has left.
"""

import json
import logging
import os
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.jobs import worker_bytes
from mhnet_video.batch.rows import Row, Status, row_of
from mhnet_video.batch.work import Unit, Work
from mhnet_video.batch.workers import WorkPosition
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import MHNetVideoError, first_line
from mhnet_video.pipelines import segmented_work
from mhnet_video.pipelines.batch_job import BatchJob
from mhnet_video.pipelines.batch_tally import Tally
from mhnet_video.pipelines.batch_units import in_order, missing_units
from mhnet_video.tasks import DEFAULT

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

_PLAN = "plan.parquet"
_PASSES = 3
"""How often what is missing is planned and done: what was lost with a machine, and the outputs of
which nobody saw all segments, as file systems may show the last ones late."""
_RETRIES = 1
"""How often in a pass a unit is done again that was lost; it may be what kills processes."""
_LOST = (
    "its workers were lost each time, as when machines fail or memory runs out; run it again, or "
    "with fewer --jobs."
)
"""What is told of a work whose units were given up."""
_MOST_CORES = 8
"""Cores of an actor where there are more cores than units."""
_MOST_UNITS = 10_000
"""Most units of a plan, about: those of large archives have several segments each."""


@dataclass(frozen=True, kw_only=True)
class RayJob:
    """What each actor loads; it travels to all machines."""

    make_restorer: "Callable[[RestoreConfig], Restorer]"
    config: RestoreConfig
    recipe: dict[str, Any]
    out: Path
    """The folder of outputs, absolute, and the same on all machines."""


class Actor:
    """Does one unit after the other; Ray Data starts as many as the cluster holds.

    Args:
        job: What to load, once.
        threads: Threads of PyTorch and of the engine.
    """

    def __init__(self, job: RayJob, threads: int) -> None:
        self._job = BatchJob(job.make_restorer, job.config, job.recipe, job.out, threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Do a batch of one unit; the row of its work is there if it has ended, also by an error.

        Args:
            batch: Has `unit`.

        Returns:
            `key` of the work, the unit's `seconds`, and the work's `row`, which is empty if other
            units are left of it.
        """
        begin = time.monotonic()
        unit = _unit_of(batch["unit"][0])
        if unit.step:
            row = self._job.part(unit)
        else:
            row = self._job(unit.work, lambda seconds: None, threading.Event())
        return {
            "key": [unit.work.key],
            "seconds": [time.monotonic() - begin],
            "row": ["" if row is None else json.dumps(asdict(row))],
        }


def run_on_ray(
    tally: Tally, job: RayJob, *, address: str, jobs: int | None, stop: threading.Event
) -> int:
    """Do on a cluster what waits.

    Args:
        tally: Has the works, whose paths are absolute, and the same on all machines.
        job: What each actor loads.
        address: Of the cluster; empty for the one that runs here, or else a new one of this
            machine alone.
        jobs: The most units at the same time; None for as many as there is room for.
        stop: Ends the run when set.

    Returns:
        How many units were done at the same time, at most.

    Raises:
        MHNetVideoError: The extra `ray` is not installed, there is no such cluster, or it is lost.
    """
    left = {work.key: work for work in tally.waiting}
    tally.waiting.clear()
    if not left:
        return 0
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MHNetVideoError(
            "--ray needs the extra `ray`: pip install 'mhnet-video[ray]', on all machines"
        ) from error
    footage = sum(work.seconds for work in left.values())
    least = max(segmented_work.SEGMENT_SECONDS, footage / _MOST_UNITS)
    most = 0
    spent: dict[str, float] = defaultdict(float)

    def is_ended() -> bool:
        return stop.is_set() or bool(tally.end_reason)

    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(address=address or None, log_to_driver=False, logging_level="ERROR")
        for passes_left in reversed(range(_PASSES)):
            if is_ended() or not left:
                break
            works = left.values()
            units = in_order([missing_units(work, job.config, job.out, least) for work in works])
            room = _Room(
                ray.nodes(),
                len(units),
                jobs,
                job.config.device.startswith("cuda"),
                worker_bytes(job.config.task or DEFAULT),
            )
            most = max(most, room.jobs)
            totals = Counter(unit.work.key for unit in units)
            ahead = Counter(totals)
            try:
                with closing(_through(units, job, room)) as news:
                    for key, seconds, row in news:
                        ahead[key] -= 1
                        spent[key] += seconds
                        if key in left and row is not None:
                            del left[key]
                            tally.hear(replace(row, seconds=round(spent[key], 3)))
                        elif key in left:
                            done = left[key].seconds * (1 - ahead[key] / totals[key])
                            tally.hear(WorkPosition(left[key], done))
                        begun = [key for key in left if 0 < ahead[key] < totals[key]]
                        tally.tell([left[key] for key in begun])
                        if is_ended():
                            break
            except ray.exceptions.RayError:  # a row was lost with its machine
                if not passes_left:
                    raise
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise MHNetVideoError(f"the Ray cluster fails: {first_line(error)}") from error
    finally:
        ray.shutdown()
    if is_ended():
        tally.waiting.extend(left.values())
        tally.drop_waiting()
        return most
    for work in left.values():
        tally.finish(row_of(work, Status.FAILED, _LOST))
    return most


class _Room:
    """What of a cluster each actor takes.

    Args:
        nodes: The machines, as Ray describes them.
        units: How many units there are to be done.
        jobs: The most actors; None for as many as there is room for.
        is_on_gpu: Whether each takes a GPU.
        num_bytes: Memory that each is taken to need.
    """

    def __init__(
        self,
        nodes: Sequence[dict[str, Any]],
        units: int,
        jobs: int | None,
        is_on_gpu: bool,
        num_bytes: int,
    ) -> None:
        found = [node["Resources"] for node in nodes if node["Alive"]]
        found = [each for each in found if each.get("CPU", 0) >= 1]
        total = sum(int(each["CPU"]) for each in found)
        smallest = min((int(each["CPU"]) for each in found), default=1)
        self.max_actors = jobs
        self.gpus = int(is_on_gpu)
        self.cores = max(1, min(total // (jobs or units), smallest, _MOST_CORES))
        self.memory = min([num_bytes, *(int(each.get("memory", 1e18)) for each in found)])
        places = (
            sum(int(each.get("GPU", 0)) for each in found) if is_on_gpu else total // self.cores
        )
        self.jobs = max(1, min(filter(None, (places, units, jobs))))


def _through(
    units: Sequence[Unit], job: RayJob, room: _Room
) -> Generator[tuple[str, float, Row | None]]:
    """Have the cluster do units: the key of each one's work, its seconds, and the row, if any."""
    import pyarrow
    import ray.data
    from pyarrow import parquet

    plan = job.out / OWN_FOLDER / f"{os.getpid()}-{_PLAN}"
    rows = [{"key": each.work.key, "first": each.first, "unit": _told(each)} for each in units]
    parquet.write_table(pyarrow.Table.from_pylist(rows), plan)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # units that are lost are told of in rows
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        # another actor is started when all have a unit; by default Ray waits until they have two
        context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
        # a unit that is lost with its machine is done by another
        context.max_errored_blocks = -1
        # an actor takes a block at a time, and a file is one block however small its row groups are
        read = ray.data.read_parquet(str(plan)).repartition(target_num_rows_per_block=1)
        # whole, before the actors take all cores that there are
        read = read.materialize()
        with warnings.catch_warnings():
            # Ray Data 2.60 has no other name for the number of retries
            warnings.simplefilter("ignore")
            done = read.map_batches(
                Actor,
                fn_constructor_args=[job, room.cores],
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=room.max_actors, max_tasks_in_flight_per_actor=1
                ),
                num_cpus=room.cores,
                num_gpus=room.gpus,
                memory=room.memory,
                max_task_retries=_RETRIES,
            )
        for told in done.iter_rows():
            row = _row_of(told["row"]) if told["row"] else None
            yield told["key"], told["seconds"], row
    finally:
        plan.unlink(missing_ok=True)


def _told(unit: Unit) -> str:
    work = unit.work
    values = asdict(work) | {"sources": list(map(str, work.sources)), "output": str(work.output)}
    return json.dumps({"work": values, "first": unit.first, "step": unit.step})


def _unit_of(told: str) -> Unit:
    values = json.loads(told)
    work = values["work"]
    sources = tuple(map(Path, work["sources"]))
    return Unit(
        work=Work(**work | {"sources": sources, "output": Path(work["output"])}),
        first=values["first"],
        step=values["step"],
    )


def _row_of(told: str) -> Row:
    values = json.loads(told)
    values |= {name: tuple(values[name]) for name in ("sources", "lost")}
    return Row(**values | {"status": Status(values["status"])})
