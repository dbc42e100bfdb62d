"""The restorer on a GPU: its stream, float32 once more, and tiles where the memory is small."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_gpu_layout import make_frame
from test_gpu_pipeline import FakeBackend
from test_llvm_engine import make_network

from mhnet_video.config import Box
from mhnet_video.engines import select
from mhnet_video.engines.base import TorchEngine
from mhnet_video.engines.select import SelectedEngine, resolve_engine
from mhnet_video.engines.triton.engine import TritonEngine
from mhnet_video.errors import ConfigError
from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.model.align import align_frames
from mhnet_video.restoration import gpu_executor
from mhnet_video.restoration.restorer import Restorer

pytest.importorskip("triton")

SMALL = {"encoder_blocks": (1, 1, 1, 1), "group_blocks": (1,) * 4}


@pytest.fixture
def restorer(device, monkeypatch):
    """Without CUDA: a fake device, and the frames' kernels in the interpreter."""
    network = make_network(width=4, heads=4, frames=3, patch=2, **SMALL).to(device)
    made = Restorer(network, device=device.type, keep=[Box(2, 1, 3, 2)])
    made.engine = SelectedEngine(TritonEngine(network, torch.float32), "triton", "a test")
    if device.type == "cuda":
        yield made
        return
    monkeypatch.setattr(gpu_executor, "CudaBackend", lambda device: FakeBackend())
    monkeypatch.setattr(map_ops, "use_triton", lambda *tensors: False)
    with dispatch.on_cpu():
        yield made


def plain_of(restorer):
    """The same in float32, one frame after the other."""
    plain = Restorer(restorer.network, device=restorer.device.type, keep=restorer.keep)
    plain.engine = SelectedEngine(TorchEngine(restorer.network), "torch", "a test")
    return plain


def clip():
    frames = [make_frame("yuva420p", 6, 40) for _ in range(4)]
    for index, frame in enumerate(frames):
        planes = tuple((p.astype(int) + 9 * index).astype(np.uint8) for p in frame.planes)
        frames[index] = replace(frame, planes=planes, pts=index)
    # the third repeats the second
    frames[2] = replace(frames[1], pts=2)
    return frames


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.pts == b.pts
        for x, y in zip(a.planes, b.planes, strict=True):
            assert np.abs(x.astype(int) - y.astype(int)).max() <= 1
            assert (x != y).mean() < 0.05


@pytest.mark.slow
def test_the_stream_gives_what_the_plain_one_gives(restorer):
    frames = clip()
    plain = plain_of(restorer)
    out = list(restorer.stream(["a", *frames, "b"]))
    assert [item for item in out if isinstance(item, str)] == ["a", "b"]
    out = [item for item in out if not isinstance(item, str)]
    assert_close(out, list(plain.stream(frames)))
    assert restorer.repeated == 1
    for source, frame in zip(frames, out, strict=True):
        assert (source.planes[0] != frame.planes[0]).any()
        np.testing.assert_array_equal(source.planes[0][1:3, 2:5], frame.planes[0][1:3, 2:5])


@pytest.mark.slow
def test_what_is_not_finite_is_done_in_float32(restorer, monkeypatch):
    frames = clip()
    plain = plain_of(restorer)
    expected = list(plain.stream(frames))
    restorer.engine.engine.maps.ending.fill_(float("nan"))
    assert_close(restorer.stream(frames), expected)
    assert_close([restorer.restore_frame([frames[0], frames[1], frames[3]], 1)], expected[1:2])
    assert restorer.passed_through == 0
    monkeypatch.setattr(type(restorer.network), "residual", lambda self, x: x[:, :3] * float("nan"))
    out = list(restorer.stream(frames))
    assert all(a.planes[0] is b.planes[0] for a, b in zip(out, frames, strict=True))
    assert restorer.passed_through == 4


class Small:
    """An engine without room for more than so many pixels."""

    def __init__(self, network, most):
        self.network, self.most = network, most
        self.max_pixels = 2**31

    def lanes(self, pixels):
        return (self,)

    def residual(self, frames):
        if frames[0].shape[1] * frames[0].shape[2] > self.most:
            raise torch.OutOfMemoryError("no room")
        return -0.25 * frames[len(frames) // 2]


def test_out_of_memory_ends_in_tiles(device):
    network = make_network(width=4, heads=4, frames=1, patch=2, **SMALL).to(device)
    restorer = Restorer(network, device=device.type)
    restorer.engine = SelectedEngine(Small(network, 700 * 700), "small", "a test")
    picture = torch.randint(0, 256, (1200, 900, 3), dtype=torch.uint8)
    (restored,) = restorer.restore([picture])
    expected = (picture.double() * 0.75).round()
    assert (restored.double() - expected).abs().max() <= 1
    assert restorer.engine.engine.max_pixels < 1200 * 900
    restorer.engine = SelectedEngine(Small(network, 100), "small", "a test")
    with pytest.raises(ConfigError, match="too little memory"):
        list(restorer.restore([picture]))


def test_which_engine_a_gpu_gets(monkeypatch):
    network = make_network(width=4, heads=4, **SMALL)
    with pytest.raises(ConfigError, match="runs on GPUs"):
        resolve_engine(network, "triton")
    away = network.to("meta")
    with pytest.raises(ConfigError, match="no kernels for meta"):
        resolve_engine(away, "triton")
    monkeypatch.setattr(select, "_kind_obstacle", lambda device: "")
    assert resolve_engine(away, "triton").name == "triton"
    monkeypatch.setattr(select, "failure", lambda engine, network: None)
    assert resolve_engine(away).name == "triton"
    # another GPU computes as the first one does, and not in a variant that is faster there
    first = TritonEngine(away, torch.bfloat16, {4: "split", 8: "rows"})
    other = resolve_engine(away, like=first).engine
    assert (other.fronts, other.map_type.dtype) == (first.fronts, torch.bfloat16)
    fault = select.Fault("RuntimeError: no image", is_wrong=False)
    monkeypatch.setattr(select, "failure", lambda engine, network: fault)
    selected = resolve_engine(away)
    assert (selected.name, selected.fault) == ("torch", fault) and "no image" in selected.reason
    assert resolve_engine(away, "torch").reason == "asked for"
    old = make_network(width=4, heads=4, **SMALL)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    choice = select._on_gpu(old, torch.device("cuda"), "auto")
    assert choice.name == "torch" and "8.0" in choice.reason
    monkeypatch.setattr(dispatch, "_DISABLED", True)
    assert "MHNET_TRITON=0" in resolve_engine(away).reason
    with pytest.raises(ConfigError, match="MHNET_TRITON=0"):
        resolve_engine(away, "triton")


def test_pytorch_needs_no_kernel(monkeypatch):
    """It takes over where they fail, so it must not start one."""
    network = make_network(width=4, frames=3, patch=2, **SMALL)
    engine = TorchEngine(network)
    frames = [torch.rand(3, 32, 32) for _ in range(3)]
    expected = engine.aligned_residual(frames)

    def run(launch):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(dispatch.Launch, "run", run)
    with dispatch.on_cpu():
        torch.testing.assert_close(engine.aligned_residual(frames), expected)
        with pytest.raises(RuntimeError, match="no compiler"):
            align_frames(frames)


def test_what_one_thread_turns_off_others_have():
    seen = []
    with dispatch.off():
        thread = threading.Thread(target=lambda: seen.append(dispatch.has_kernels()))
        thread.start()
        thread.join()
        assert not dispatch.has_kernels()
    assert seen == [dispatch.has_kernels()] == [dispatch.HAS_TRITON]
