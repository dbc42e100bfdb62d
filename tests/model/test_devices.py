"""The GPU of a Mac, faked: it is taken where it is named and passes its check."""

import logging

import pytest
import torch

from mhnet_video.engines.select import resolve_engine
from mhnet_video.errors import ConfigError
from mhnet_video.model import weights
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.weights import deviation, models_of, resolve_device

MPS = torch.device("mps")


@pytest.fixture
def mac(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_elsewhere_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="GPU of a Mac"):
        resolve_device("mps")


def test_it_is_taken_where_it_is_named(mac, monkeypatch):
    monkeypatch.setattr(weights, "deviation", lambda device: "")
    assert resolve_device("mps") == MPS
    assert resolve_device("auto") == torch.device("cpu")


def test_one_that_cannot_run_the_network_is_left_alone(mac, monkeypatch, caplog):
    monkeypatch.setattr(MHNet, "to", lambda *_, **__: missing_operation())
    with caplog.at_level(logging.WARNING):
        assert resolve_device("mps") == torch.device("cpu")
    assert "mps cannot be used (no border: the CPU restores" not in caplog.text
    assert "mps cannot be used (no border padding): the CPU restores" in caplog.text


def missing_operation():
    raise NotImplementedError("no border padding.\nTry the fallback.")


def test_a_device_with_another_result_is_noticed(monkeypatch):
    cpu = torch.device("cpu")
    assert deviation(cpu) == ""
    forward = MHNet.forward
    moved = []

    def to(network, device):
        moved.append(device)
        return network

    def wrong(network, window):
        return forward(network, window) + (0.01 if moved else 0.0)

    monkeypatch.setattr(MHNet, "to", to)
    monkeypatch.setattr(MHNet, "forward", wrong)
    assert "differs from the CPU's by 0.01" in deviation(cpu)


def test_it_has_the_models_of_the_cpu():
    assert models_of("derain", kind="mps") == models_of("derain", kind="cpu") == ("realtime",)


def test_pytorch_runs_the_network_there(monkeypatch):
    """Triton has no kernels for it, wherever it is installed."""
    network = MHNet(NetworkConfig(width=8, heads=4, encoder_blocks=(1, 1, 1, 1)))
    monkeypatch.setattr(torch.Tensor, "device", MPS)
    assert resolve_engine(network).name == "torch"
    for engine in ("triton", "llvm"):
        with pytest.raises(ConfigError):
            resolve_engine(network, engine)
