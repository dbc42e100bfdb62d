"""What a container or a scheduler leaves of a machine counts, not what the machine has."""

import os
from pathlib import Path

import pytest

import mhnet_video.batch.machine as machine


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A machine of 64 cores and 100 GB, with control groups in a folder."""
    group = tmp_path / "group"
    group.write_text("4:memory:/old\n0::/pods/this\n")
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 999999999 kB\nMemAvailable: 100000000 kB\n")
    folder = tmp_path / "groups"
    (folder / "pods/this").mkdir(parents=True)
    for name, path in (("_GROUP", group), ("_MEMORY", memory), ("_GROUPS", folder)):
        monkeypatch.setattr(machine, name, path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    return folder


def test_without_limits_all_is_usable(groups):
    (groups / "pods/this/cpu.max").write_text("max 100000\n")
    (groups / "pods/this/memory.max").write_text("max\n")
    assert machine.usable_cores() == 64
    assert machine.usable_bytes() == 100_000_000 << 10


def test_the_closest_limit_of_all_groups_counts(groups):
    (groups / "pods/this/cpu.max").write_text("650000 100000\n")
    (groups / "pods/cpu.max").write_text("1600000 100000\n")
    (groups / "pods/this/memory.max").write_text("max\n")
    (groups / "pods/memory.max").write_text(f"{8 << 30}\n")
    assert machine.usable_cores() == 7
    assert machine.usable_bytes() == 8 << 30


def test_a_system_that_tells_nothing_is_taken_as_it_is(monkeypatch):
    for name in ("_GROUP", "_MEMORY", "_GROUPS"):
        monkeypatch.setattr(machine, name, Path("/nowhere"))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert machine.usable_cores() == 12
    assert machine.usable_bytes() is None


def test_info_tells_what_is_left(groups):
    from mhnet_video.pipelines import info

    (groups / "pods/this/cpu.max").write_text("200000 100000\n")
    assert info._system()["cores"].endswith(", 2 of them for this process")
