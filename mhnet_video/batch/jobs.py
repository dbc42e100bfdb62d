"""How many files to restore at the same time, and what of the machine each worker gets."""

import os
from dataclasses import dataclass
from typing import Any

from mhnet_video.tasks import DEFAULT

_WORKER_BYTES = {"raindrop": 4500 << 20}
"""Memory that a worker is taken to need, by task: what one holds at most at 3840x2160, see
docs/batch.md."""
_USUAL_WORKER_BYTES = 1750 << 20
"""The same of all other tasks."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What of the machine the workers get."""

    environments: tuple[dict[str, str], ...]
    """What each worker has in its environment besides; one worker for each."""
    threads: int
    """Threads of PyTorch and of the engine in each worker."""


def share_machine(
    jobs: int | None,
    *,
    cores: int,
    gpus: tuple[str, ...] = (),
    works: int | None = None,
    memory_bytes: int | None = None,
    task: str = DEFAULT,
) -> Share:
    """Divide a machine among workers.

    Args:
        jobs: How many workers; None for one for each GPU, or for each core, yet no more than there
            are works, and on CPUs than the memory holds.
        cores: Cores that this process may use.
        gpus: The GPUs to use by the names that CUDA_VISIBLE_DEVICES has for them; empty where
            CPUs restore.
        works: How many works there are; None if more may come.
        memory_bytes: Memory that this process may use, in bytes; None where nobody tells.
        task: What is taken out.
    """
    if jobs is None:
        jobs = len(gpus) or cores
        if works is not None:
            jobs = min(jobs, works)
        if memory_bytes is not None and not gpus:
            jobs = min(jobs, memory_bytes // worker_bytes(task))
        jobs = max(1, jobs)
    environments: list[dict[str, str]] = [{} for _ in range(jobs)]
    if gpus:
        # workers beyond the number of GPUs share them
        environments = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]
    # a core for which two threads wait is better used than one for which none does
    return Share(environments=tuple(environments), threads=-(-cores // jobs))


def worker_bytes(task: str) -> int:
    """Memory that a worker is taken to need for a task, in bytes."""
    return _WORKER_BYTES.get(task, _USUAL_WORKER_BYTES)


def visible_gpus(torch_cuda: Any) -> tuple[str, ...]:
    """The names of all GPUs that may be used, as CUDA_VISIBLE_DEVICES has them.

    Args:
        torch_cuda: `torch.cuda`.
    """
    count = torch_cuda.device_count()
    said = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in said.split(",") if name.strip()]
    return tuple(names[:count] or map(str, range(count)))
