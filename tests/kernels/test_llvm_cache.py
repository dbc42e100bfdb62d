"""Compiled kernels on disk: found again, never wrong, never in the way."""

import ctypes
import multiprocessing
import os
import time

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from test_llvm_values import clamped

from mhnet_video.engines.llvm.scheduler import Kernels
from mhnet_video.kernels import llvm_cache
from mhnet_video.kernels.llvm_cache import KEPT_SECONDS, KernelCache
from mhnet_video.kernels.llvm_machine import host_machine

MACHINE = host_machine()


def never(*_):
    raise AssertionError("a kernel that is on disk is written again")


never.__name__ = "clamped"


def kernels_of(folder, make=clamped, limit=1.5):
    """Kernels with one of them compiled, or loaded."""
    kernels = Kernels(MACHINE, KernelCache(MACHINE, folder))
    kernels.kernel(make, limit)
    kernels.compile()
    return kernels


def sum_of(kernels, limit=1.5):
    """What the compiled kernel makes of four rows of 0.25."""
    x, out = np.full((4, MACHINE.lanes), 0.25, np.float32), np.zeros(MACHINE.lanes, np.float32)
    signature = kernels.kernel(never, limit)
    call = signature.bind(
        {
            "x": x.ctypes.data,
            "out": out.ctypes.data,
            "rows": 4,
            "width": MACHINE.lanes,
            "first": 0,
            "end": MACHINE.lanes,
        }
    )
    address = kernels.address(signature.name)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(call.ctypes.data)
    return out[1]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kernels"


def test_a_second_process_writes_and_compiles_no_kernel(folder):
    first = sum_of(kernels_of(folder))
    assert first == sum_of(kernels_of(folder, never)) == 0.5


def test_kernels_of_several_files_are_found_together(folder):
    kernels_of(folder)
    kernels = Kernels(MACHINE, KernelCache(MACHINE, folder))
    for limit in (1.5, 2.5):
        kernels.kernel(clamped, limit)
    kernels.compile()
    assert len(list(folder.iterdir())) == 2
    both = Kernels(MACHINE, KernelCache(MACHINE, folder))
    for limit in (1.5, 2.5):
        both.kernel(never, limit)
    both.compile()
    assert sum_of(both, 1.5) == sum_of(both, 2.5) == 0.5


@pytest.mark.parametrize("damage", ["cut off", "changed", "empty", "no header"])
def test_a_damaged_file_is_made_anew(folder, damage):
    kernels_of(folder)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "cut off": whole[:middle],
            "changed": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "empty": b"",
            "no header": whole.partition(b"\n")[2],
        }[damage]
    )
    assert KernelCache(MACHINE, folder).signature("clamped_1.5") is None
    assert sum_of(kernels_of(folder)) == 0.5
    assert path.read_bytes() == whole


def test_kernels_of_another_source_are_not_taken(folder, monkeypatch):
    kernels_of(folder)
    monkeypatch.setattr(llvm_cache, "_source", lambda: "another")
    assert KernelCache(MACHINE, folder).signature("clamped_1.5") is None


def test_kernels_of_another_processor_are_not_taken(folder, monkeypatch):
    kernels_of(folder)
    monkeypatch.setattr(llvm_cache.llvm, "get_host_cpu_name", lambda: "another")
    assert KernelCache(MACHINE, folder).signature("clamped_1.5") is None


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_folder_in_which_others_may_write_is_not_trusted(folder):
    kernels_of(folder)
    folder.chmod(0o777)
    assert KernelCache(MACHINE, folder).signature("clamped_1.5") is None


@pytest.mark.parametrize("obstacle", ["a file in its place", "no space", "no home"])
def test_a_folder_that_cannot_be_written_is_no_error(folder, monkeypatch, obstacle):
    def fail(*_):
        raise OSError(28, "No space left on device")

    if obstacle == "a file in its place":
        folder.write_bytes(b"")
    elif obstacle == "no space":
        monkeypatch.setattr(llvm_cache.Path, "write_bytes", fail)
    else:
        monkeypatch.setattr(llvm_cache, "user_folder", lambda: None)
        folder = None
    assert sum_of(kernels_of(folder)) == 0.5
    assert folder is None or not folder.is_dir() or not list(folder.iterdir())


def test_files_that_nobody_makes_any_more_go(folder):
    kernels_of(folder)
    (path,) = folder.iterdir()
    old, young = folder / "old", folder / "young"
    for other in (path, old, young):
        other.touch()
    for other in (path, old):
        os.utime(other, (0, time.time() - KEPT_SECONDS - 1))
    kernels_of(folder, limit=2.5)
    assert path.exists() and young.exists() and not old.exists()


@pytest.mark.slow
def test_processes_that_start_together_get_whole_kernels(folder):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_start, [folder] * 6) == [0.5] * 6
    assert len(list(folder.iterdir())) == 1


def _start(folder):
    return float(sum_of(kernels_of(folder)))
