"""Every kernel compiles for GPUs that are not here, and keeps its values in registers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
TESTS = Path(__file__).parent

REALTIME = {"width": 16, "patch": 2, "frames": 3, "encoder_blocks": [1, 1, 1, 4]}
REALTIME["group_blocks"] = [1, 1, 1, 1]
MIDDLE = {"width": 32, "patch": 2, "frames": 3}
SHARED = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""Shared memory of a block, in bytes. Source: CUDA C++ programming guide, compute capabilities."""

CASES = {
    "realtime": [{"plan": {"config": REALTIME, "height": 1080, "width": 1920}}],
    "paper": [{"plan": {"config": {}, "height": 1080, "width": 1920}}],
    "float16": [{"plan": {"config": MIDDLE, "height": 2160, "width": 3840, "kind": "float16"}}],
    "float32": [{"plan": {"config": REALTIME, "height": 480, "width": 640, "kind": "float32"}}],
    "odd": [{"plan": {"config": {"width": 20, "patch": 1}, "height": 77, "width": 130}}],
}


def compiled(cases, *capabilities):
    """Registers, spills and shared memory of all the kernels of a plan."""
    cases = [{**case, "capabilities": capabilities} for case in cases]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "PYTHONPATH": os.pathsep.join(
            [*filter(None, [os.environ.get("PYTHONPATH")]), str(TESTS.parent)]
        ),
    }
    result = subprocess.run(
        [sys.executable, TESTS / "aot.py", json.dumps(cases)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("realtime", 80),
        ("realtime", 89),
        ("realtime", 90),
        ("paper", 80),
        ("paper", 89),
        ("paper", 90),
        ("float16", 90),
        ("float32", 90),
        ("odd", 90),
    ],
)
def test_kernels_compile_without_spills(name, capability):
    rows = compiled(CASES[name], capability)
    names = {row["kernel"] for row in rows}
    assert {"linear_kernel", "conv_kernel", "block_back_kernel", "fuse_kernel"} <= names
    for row in rows:
        assert row["spilled"] == 0, row
        assert row["shared"] <= SHARED[capability], row
        # 65536 registers of a multiprocessor hold at least one block
        assert row["registers"] * row["warps"] * 32 <= 65536, row
        if row["kernel"] in ("linear_kernel", "conv_kernel", "block_back_kernel", "fuse_kernel"):
            assert row["tensor_cores"], row
