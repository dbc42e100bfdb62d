"""Programs are few, none is for one size, and all are compiled beside one another."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest

from mhnet_video.engines.triton import programs

triton = pytest.importorskip("triton")
ROOT = Path(__file__).parents[3]

# Triton decides when it is imported whether it interprets, and asks the driver for the GPU
CODE = """
import json, sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver


class Driver:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


driver.set_active(Driver())
from test_memory_traffic import PAPER, QUALITY, REALTIME, launches_of
from mhnet_video.engines.triton.programs import compile_programs, distinct, program_key

told = {}
sizes = [(1080, 1920), (2160, 3840), (720, 1280), (480, 640)]
for name, config in (("realtime", REALTIME), ("quality", QUALITY), ("paper", PAPER)):
    first = {program_key(each) for each in launches_of(config, *sizes[0])}
    every = {program_key(each) for size in sizes for each in launches_of(config, *size)}
    told[name] = len(first), len(every)

chosen = [each for each in launches_of(REALTIME, 480, 640) if each.name in sys.argv[1].split()]
told["compiled"] = compile_programs(chosen, threads=2), len(distinct(chosen))
kernels = {id(each.kernel): each.kernel for each in chosen}.values()
told["held"] = sum(len(each.device_caches[0][0]) for each in kernels)
# another size finds them all
other = [each for each in launches_of(REALTIME, 720, 1280) if each.name in sys.argv[1].split()]
compile_programs(other)
told["held_then"] = sum(len(each.device_caches[0][0]) for each in kernels)
print(json.dumps(told))
"""


@pytest.mark.slow
def test_programs(tmp_path):
    paths = [ROOT, ROOT / "tests", ROOT / "tests/engines/triton"]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    few = "gradients_kernel mean_kernel attend_kernel"
    done = processes.run([sys.executable, "-c", CODE, few], env=environment, seconds=200)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    for name, most in (("realtime", 50), ("quality", 70), ("paper", 44)):
        first, every = told[name]
        assert first == every <= most, told
    assert told["compiled"][0] == told["compiled"][1] == told["held"] > 3
    assert told["held_then"] == told["held"]


def test_they_are_compiled_where_the_system_tells_no_processors(monkeypatch):
    """As Windows, which has a Triton of its own."""
    compiled = []
    monkeypatch.setattr(programs, "IS_INTERPRETED", False)
    monkeypatch.setattr(programs, "distinct", list)
    monkeypatch.setattr(triton, "AsyncCompileMode", lambda pool: nullcontext())
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    launches = [SimpleNamespace(compile=lambda number=i: compiled.append(number)) for i in range(3)]
    assert programs.compile_programs(launches) == 3
    assert compiled == [0, 1, 2]
