"""The GPU's benchmark, as far as it goes without one."""

import json
import subprocess
import time

import pytest
import torch

from mhnet_video.cli import main
from mhnet_video.network import NetworkConfig
from mhnet_video.weights import list_models

pytest.importorskip("triton")

from mhnet_video.pipelines import bench_gpu
from mhnet_video.pipelines.bench_table import to_lines


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would run")
def test_without_a_gpu_it_says_so(capsys):
    assert main(["bench", "--gpu"]) == 2
    assert "no GPU that PyTorch can use" in capsys.readouterr().err


def test_all_shipped_models_are_measured_and_the_papers_network():
    found = bench_gpu.networks()
    assert {model.name for model in list_models()} < set(found)
    assert found["paper"] == NetworkConfig()
    assert any(16 < config.width < 64 for config in found.values())
    for name in list(found)[:-1]:
        assert bench_gpu.network_of(name, torch.device("cpu")).config == found[name]


def test_what_is_compiled_ends_with_the_time(monkeypatch):
    asked = []

    def run(command, *, timeout, **_):
        asked.append((command[-3:], timeout))
        if command[-3] == "paper":
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0, json.dumps({"compile_seconds": 3}), "")

    monkeypatch.setattr(subprocess, "run", run)
    cases = [("paper", 1080, 1920), ("realtime", 1080, 1920)]
    rows = list(bench_gpu._compiled(cases, time.monotonic() + 100))
    assert [command for command, _ in asked] == [[n, "1080", "1920"] for n in ("paper", "realtime")]
    assert [round(left) for _, left in asked] == [75, 100]
    assert rows[0]["failed"] == "not compiled after 75 s"
    assert rows[1]["compile_seconds"] == 3
    assert list(bench_gpu._compiled(cases, time.monotonic() + 5)) == []


def test_a_line_for_each_row():
    spread = {"median": 1.5, "low": 1.25, "high": 2.0}
    figures = {
        "machine": {"device": "X", "copy_gbs": 10.0, "product_tflops": 20.0, "torch": "2"},
        "networks": [{"network": "a", "size": [4, 2], "ms": spread, "against_eager": 6.5}],
        "streams": [{"network": "a", "size": [4, 2], "fps": 120.0, "overlap": 0.96}],
        "files": [{"network": "a", "size": [4, 2], "encoder": "e", "log": ["on the CPU"]}],
        "kernels": [{"kernel": "k", "channels": 8, "size": [4, 2], "decibels": 12.0}],
        "compiled": [{"network": "a", "size": [4, 2], "failed": "no time"}],
    }
    assert to_lines(figures) == [
        "X: copy 10 GB/s, product 20 TFLOP/s; PyTorch 2",
        "networks: a 4x2: 1.500 (1.250 to 2.000) ms, 6.5 times eager",
        "streams: a 4x2: 120 frames a second, 0.96 overlap",
        "files: a 4x2: e, ['on the CPU']",
        "kernels: k, 8 channels 4x2: 12 dB",
        "compiled: a 4x2: no time",
    ]
