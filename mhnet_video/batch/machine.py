"""What this process may use of its machine, also where a container or a scheduler limits it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mhnet_video.system import usable_processors

_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_MEMORY = Path("/proc/meminfo")


def usable_cores() -> int:
    """Cores that this process may use; a part of one counts as one."""
    cores = usable_processors()
    for quota, period in (text.split() for text in _limits("cpu.max")):
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    return max(1, cores)


def usable_bytes() -> int | None:
    """Memory that this process may use, in bytes; None where the system does not tell."""
    found = [int(text) for text in _limits("memory.max") if text != "max"]
    with suppress(OSError):
        for line in _MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
    return min(found, default=None)


def _limits(name: str) -> Iterator[str]:
    """What a file of this process's control group says, and those of the groups around it.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst.
    """
    with suppress(OSError):
        for line in _GROUP.read_text().splitlines():
            if line.startswith("0::/"):
                group = _GROUPS / line.removeprefix("0::/")
                for folder in (group, *group.parents):
                    with suppress(OSError):
                        yield (folder / name).read_text().strip()
                    if folder == _GROUPS:
                        return
