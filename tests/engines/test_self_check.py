"""Whether `auto` takes a GPU, which pretended ones decide."""

import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest
import torch

from mhnet_video.engines import self_check
from mhnet_video.engines.base import TorchEngine
from mhnet_video.engines.select import Fault, SelectedEngine, trial_frames
from mhnet_video.engines.self_check import fault, usable_device, usable_devices, verdict
from mhnet_video.errors import ConfigError
from mhnet_video.model.weights import load_model
from mhnet_video.restoration.restorer import Restorer

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """What a GPU's verdict depends on."""
    found = ["H200", "driver 1", "torch", "triton", "1"]
    monkeypatch.setattr(self_check, "_machine", lambda device: found)
    return found


def checker(tmp_path, code):
    """A check that does what it says, and notes each of its runs."""
    note = f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); import json, os, sys, time; "
    return [sys.executable, "-c", note + code]


def runs(tmp_path):
    return len((tmp_path / "runs").read_text())


def test_a_verdict_is_kept_for_one_machine(tmp_path, machine):
    good = checker(tmp_path, "print('noise'); print(json.dumps(None))")
    folder = tmp_path / "cache"
    assert [verdict(GPU, folder, good) for _ in range(3)] == [None] * 3
    assert runs(tmp_path) == 1
    machine[1] = "driver 2"
    bad = checker(tmp_path, "print(json.dumps(['it is wrong', True]))")
    assert [verdict(GPU, folder, bad) for _ in range(2)] == [Fault("it is wrong", True)] * 2
    assert runs(tmp_path) == 2
    assert len(list(folder.iterdir())) == 2
    # a file that is damaged is none
    for count, damaged in enumerate(["{", '{"fault": "a sentence"}', '{"fault": 3}'], start=3):
        for path in folder.iterdir():
            path.write_text(damaged)
        assert verdict(GPU, folder, good) is None
        assert runs(tmp_path) == count


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("os.kill(os.getpid(), 6)", "its process ended: "),
        ("sys.exit('illegal memory access')", "its process ended: illegal memory access"),
        (r"os.write(2, b'pas m\xe9moire'); sys.exit(1)", "its process ended: pas m\ufffdmoire"),
        ("time.sleep(60)", "it did not end within 2 s"),
        ("print('no JSON')", "its process ended: exit status 0"),
        ("print('3')", "its process ended: exit status 0"),
        ("print(json.dumps(['OutOfMemoryError: CUDA', False]))", "OutOfMemoryError: CUDA"),
    ],
)
def test_a_check_without_a_result_is_a_fault_for_this_time(tmp_path, machine, code, told):
    folder = tmp_path / "cache"
    for count in (1, 2):
        found = verdict(GPU, folder, checker(tmp_path, code), 2.0)
        assert found.reason.startswith(told) and not found.is_wrong
        assert runs(tmp_path) == count
    # the GPU is free again
    assert verdict(GPU, folder, checker(tmp_path, "print(json.dumps(None))")) is None


def test_a_check_that_cannot_be_started_or_kept(tmp_path, machine):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    found = verdict(GPU, folder, [str(tmp_path / "no")])
    assert found.reason.startswith("it could not be started")


def test_auto_takes_a_gpu_that_has_passed(monkeypatch, caplog):
    monkeypatch.setattr(self_check, "resolve_device", lambda name: CPU if name == "cpu" else GPU)
    monkeypatch.setattr(self_check, "verdict", lambda device: None)
    assert usable_device("auto") == GPU
    for found in (Fault("its result differs from the CPU's", True), Fault("CUDA: busy", False)):
        monkeypatch.setattr(self_check, "verdict", lambda device, found=found: found)
        with caplog.at_level(logging.WARNING):
            assert usable_device("auto") == CPU
        (said,) = caplog.messages
        assert found.reason in said and "--device cuda" in said
        assert ("this time" in said) == (not found.is_wrong)
        caplog.clear()
    # whoever names it has it
    assert usable_device("cuda") == GPU and usable_device("cpu") == CPU
    assert not caplog.messages
    assert Restorer("realtime").device == CPU


def test_several_gpus_are_named_once_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(self_check, "resolve_device", torch.device)
    assert usable_devices("cpu") == (CPU,)
    two = torch.device("cuda", 1), torch.device("cuda", 0)
    assert usable_devices("cuda:1,cuda:0") == two
    for names in ("cuda:0,cuda:0", "cuda:0,cpu", "cuda,cuda:1", "cuda:0,"):
        with pytest.raises(ConfigError, match=f"each named once, as in .*; not {names}"):
            usable_devices(names)


@pytest.mark.parametrize("name", ["realtime", "quality"])
def test_networks_change_what_they_are_tried_on(name):
    """Else nothing but rounding would be compared, as with noise, which they leave as it is."""
    network = load_model(name, "cpu")
    frames = trial_frames(network.config.pictures, 96, 96)
    with torch.inference_mode():
        expected = TorchEngine(network).residual(frames)
        found = TorchEngine(load_model(name, "cpu"), bfloat16=True).residual(frames)
    assert float(expected.square().mean().sqrt()) > 0.005
    assert float((found - expected).square().mean() / expected.square().mean()) < 0.01


def test_an_engine_that_is_wrong_is_found(monkeypatch):
    monkeypatch.setattr(self_check, "_SIZES", [(32, 64)])
    assert fault(CPU) is None
    real = self_check.resolve_engine
    count = iter(range(100))

    def wrong(change):
        def resolve(network):
            engine = real(network).engine
            made = SimpleNamespace(residual=lambda frames: change(engine.residual(frames)))
            return SelectedEngine(made, "triton", "a test")

        monkeypatch.setattr(self_check, "resolve_engine", resolve)
        return fault(CPU)

    assert wrong(lambda found: found) is None
    assert wrong(lambda found: found + 0.1) == ("its result for 64x32 differs from the CPU's", True)
    assert wrong(lambda found: found * float("nan")).reason.startswith("equal frames")
    different = wrong(lambda found: found + 1e-6 * next(count))
    assert "different results" in different.reason and different.is_wrong

    def fails(found):
        raise RuntimeError("no kernel image\nmore")

    assert wrong(fails) == ("RuntimeError: no kernel image", False)
    for is_wrong in (True, False):
        selected = SelectedEngine(None, "torch", "it fails here: no", Fault("no", is_wrong))
        monkeypatch.setattr(
            self_check, "resolve_engine", lambda network, selected=selected: selected
        )
        assert fault(CPU) == ("it fails here: no", is_wrong)


@pytest.mark.slow
def test_the_check_as_a_process():
    command = [sys.executable, "-m", "mhnet_video.engines.self_check", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = processes.run(command, env=environment, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) is None
