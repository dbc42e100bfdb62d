"""Every kernel compiles for GPUs that are not here, and keeps its values in registers."""

import json
import os
import sys
from pathlib import Path

import processes
import pytest
from test_memory_traffic import QUALITY, REALTIME

pytest.importorskip("triton")
TESTS = Path(__file__).parents[1]

SHARED = {80: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""Shared memory of a block, in bytes. Source: CUDA C++ programming guide, compute capabilities.
80 has 163 KB; what is compiled for one of 80 and 89 is to fit the other."""

PLANS = {
    "realtime": {"config": REALTIME, "height": 1080, "width": 1920},
    "quality": {"config": QUALITY, "height": 1080, "width": 1920},
    "paper": {"config": {}, "height": 1080, "width": 1920},
    "float16": {"config": QUALITY, "height": 2160, "width": 3840, "kind": "float16"},
    "float32": {"config": REALTIME, "height": 480, "width": 640, "kind": "float32"},
    "odd": {"config": {"width": 20, "patch": 1}, "height": 77, "width": 130},
    "rows": {"config": {"width": 16}, "height": 1080, "width": 1920, "front": "rows"},
    "exact rows": {
        "config": REALTIME,
        "height": 480,
        "width": 640,
        "front": "rows",
        "kind": "float32",
    },
    # what is tried on a GPU before one way is chosen
    "dense": {"config": {}, "height": 1080, "width": 1920, "front": "dense"},
    "split": {"config": QUALITY, "height": 1080, "width": 1920, "front": "split"},
    # one pixel is left at the bottom: sizes of one are constants to the compiler
    "small": {"config": REALTIME, "height": 32, "width": 32, "batch": 8},
}
ONLY = {"rows": ["front_kernel"], "exact rows": ["front_kernel"]}
ONLY |= {"dense": ["conv_kernel"], "split": ["linear_kernel", "depthwise_kernel"]}
ONLY |= {"small": ["linear_kernel", "depthwise_kernel", "gram_kernel", "mean_kernel"]}
"""Kernels of a graph that are worth their time; all of the others."""


COUNTING = ("mean_kernel", "attend_kernel", "gradients_kernel", "fit_kernel", "kept_kernel")
"""Kernels of which the last program adds what the others have stored."""


def compiled(plans, capability):
    """Registers, spills and shared memory of all the kernels of some plans."""
    cases = [
        {"plan": PLANS[name], "capabilities": [capability], "only": ONLY.get(name)}
        for name in plans
    ]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "PYTHONPATH": os.pathsep.join(
            [*filter(None, [os.environ.get("PYTHONPATH")]), str(TESTS.parent)]
        ),
    }
    result = processes.run(
        [sys.executable, TESTS / "aot.py", json.dumps(cases)], env=environment, seconds=240
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "plans"),
    [
        # Triton gives 80 and 89 the same PTX
        (80, ["paper", "rows"]),
        (89, ["realtime", "rows"]),
        # in parts, for two processes
        (90, ["realtime", "rows", "float16", "small"]),
        (90, ["quality", "exact rows", "float32", "split"]),
        (90, ["paper", "odd", "rows", "dense"]),
    ],
)
def test_kernels_compile_without_spills(capability, plans):
    rows = compiled(plans, capability)
    names = {row["kernel"] for row in rows}
    assert {
        "front_kernel",
        "linear_kernel",
        "conv_kernel",
        "block_back_kernel",
        "fuse_kernel",
    } <= names
    for row in rows:
        assert row["spilled"] == 0, row
        assert not row["overwritten"], row
        assert (row["products_from_registers"] > 0) == row["has_factors"], row
        assert row["ordered"] is not False, row
        assert row["ordered"] or row["kernel"] not in COUNTING, row
        assert row["shared"] <= SHARED[capability], row
        # 65536 registers of a multiprocessor hold at least one block
        assert row["registers"] * row["warps"] * 32 <= 65536, row
        if row["kernel"] in (
            "linear_kernel",
            "conv_kernel",
            "block_back_kernel",
            "fuse_kernel",
            "front_kernel",
        ):
            assert row["tensor_cores"], row
    # some products are of the kind that ptxas gets wrong; else nothing was looked at
    assert any(row["has_factors"] for row in rows) == (capability == 90)
