"""Recording of CUDA graphs, with a stand-in for CUDA."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from mhnet_video.engines.triton.cuda_graph import recorded
from mhnet_video.memory import RECORDING

DEVICE = torch.device("cuda", 0)


class FakeCuda:
    """Notes what happens on which stream."""

    def __init__(self, monkeypatch, error=None):
        self.error = error
        self.done = []
        self.stream = "the thread's"
        self.is_recording = False
        fakes = {
            "CUDAGraph": lambda: self,
            "Stream": lambda device: self,
            "current_stream": lambda device: self.stream,
            "device": nullcontext,
            "graph": self.graph,
            "set_stream": self.set_stream,
            "stream": self.context,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    device = DEVICE

    def wait_stream(self, other):
        self.done.append(f"wait for {other}")

    def synchronize(self):
        self.done.append("synchronize")

    def replay(self):
        self.done.append("replay")

    def set_stream(self, stream):
        self.stream = stream

    @contextmanager
    def context(self, what):
        assert what is self
        before, self.stream = self.stream, "its own"
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def graph(self, graph, *, stream, capture_error_mode):
        assert graph is stream is self and capture_error_mode == "thread_local"
        assert RECORDING.locked()
        self.stream, self.is_recording = "its own", True  # a recording that fails leaves it so
        yield
        self.is_recording = False
        self.stream = "the thread's"

    def work(self):
        assert self.stream == "its own" and torch.is_inference_mode_enabled()
        if self.is_recording and self.error is not None:
            raise self.error
        self.done.append("record" if self.is_recording else "run")


def test_work_runs_once_and_is_then_recorded(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    replay = recorded(cuda.work, DEVICE, lambda: cuda.done.append(f"prepare on {cuda.stream}"))
    expected = ["wait for the thread's", "prepare on its own", "run", "synchronize", "record"]
    assert cuda.done == expected
    replay()
    assert cuda.done == [*expected, "replay"]
    assert not RECORDING.locked() and cuda.stream == "the thread's"


def test_a_first_run_that_fails_is_waited_for(monkeypatch):
    """Others get its memory, in which kernels may still be at work."""
    cuda = FakeCuda(monkeypatch)

    def work():
        cuda.work()
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        recorded(work, DEVICE)
    assert cuda.done[-2:] == ["run", "synchronize"]
    assert cuda.stream == "the thread's"


def test_work_that_cannot_be_recorded_is_none(monkeypatch, caplog):
    cuda = FakeCuda(monkeypatch, RuntimeError("operation not permitted\nmore"))
    assert recorded(cuda.work, DEVICE) is None
    assert cuda.done[-2:] == ["run", "synchronize"]
    assert "no CUDA graph (operation not permitted): steps are started one by one" in caplog.text
    assert not RECORDING.locked() and cuda.stream == "the thread's"


def test_too_little_memory_is_an_error(monkeypatch):
    cuda = FakeCuda(monkeypatch, RuntimeError("CUDA error: out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        recorded(cuda.work, DEVICE)
    assert not RECORDING.locked() and cuda.stream == "the thread's"
