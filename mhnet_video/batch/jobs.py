"""How many files to restore at the same time, and what of the machine each worker gets."""

import os
from dataclasses import dataclass
from typing import Any

CORES_PER_JOB = 8
"""Cores that one worker keeps busy; see docs/batch.md for the measurement."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What of the machine the workers get."""

    environments: tuple[dict[str, str], ...]
    """What each worker has in its environment besides; one worker for each."""
    threads: int
    """Threads of PyTorch and of the engine in each worker."""


def share_machine(jobs: int | None, *, cores: int, gpus: tuple[str, ...] = ()) -> Share:
    """Divide a machine among workers.

    Args:
        jobs: How many workers; None for one for each GPU, or for each `CORES_PER_JOB` cores.
        cores: Cores that this process may use.
        gpus: The GPUs to use by the names that CUDA_VISIBLE_DEVICES has for them; empty where
            CPUs restore.
    """
    jobs = jobs or len(gpus) or max(1, cores // CORES_PER_JOB)
    environments: list[dict[str, str]] = [{} for _ in range(jobs)]
    if gpus:
        # workers beyond the number of GPUs share them
        environments = [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]
    return Share(environments=tuple(environments), threads=max(1, cores // jobs))


def visible_gpus(torch_cuda: Any) -> tuple[str, ...]:
    """The names of all GPUs that may be used, as CUDA_VISIBLE_DEVICES has them.

    Args:
        torch_cuda: `torch.cuda`.
    """
    count = torch_cuda.device_count()
    said = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in said.split(",") if name.strip()]
    return tuple(names[:count] or map(str, range(count)))


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
