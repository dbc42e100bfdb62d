"""What only a GPU can show: graphs, real streams and real sizes."""

from dataclasses import replace

import av
import numpy as np
import pytest
import test_temporal_average
import torch
from clips import Clip, Video, every
from test_gpu_layout import make_frame
from test_gpu_pipeline import windows_of
from test_hwaccel import device_frame
from test_llvm_engine import make_network
from test_triton_engine import SAMPLES, check_loss

from mhnet_video.config import RestoreConfig
from mhnet_video.engines.triton.engine import TritonEngine
from mhnet_video.model.weights import list_models, load_model
from mhnet_video.pipelines.restore import restore_video
from mhnet_video.restoration.gpu_backend import CudaBackend
from mhnet_video.restoration.gpu_executor import network_step
from mhnet_video.restoration.gpu_layout import format_of
from mhnet_video.restoration.gpu_pipeline import FramePipeline
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.tasks import default_model

pytestmark = pytest.mark.cuda

REALTIME = {
    "width": 16,
    "patch": 2,
    "frames": 3,
    "encoder_blocks": (1, 1, 1, 4),
    "group_blocks": (1, 1, 1, 1),
}


def test_there_is_a_gpu():
    assert torch.cuda.is_available(), "MHNET_REQUIRE_CUDA=1, and PyTorch finds no GPU"


@pytest.mark.parametrize(
    ("sizes", "kind", "least"),
    [
        (REALTIME, torch.bfloat16, 28),
        (REALTIME, torch.float16, 45),
        (REALTIME, torch.float32, 75),
        ({}, torch.bfloat16, 28),
    ],
)
def test_networks_at_1080p(sizes, kind, least):
    network = make_network(**sizes).cuda()
    window = torch.rand(1, 3 * network.config.frames, 1080, 1920, device="cuda")
    with torch.inference_mode():
        expected = network.residual(window)
    found = TritonEngine(network, kind).residuals(window)
    # in dB below the residual's own deviation
    error = (found - expected).square().mean().sqrt() / expected.std()
    assert float(-20 * torch.log10(error)) > least


def test_a_graph_reads_new_input():
    network = make_network(**REALTIME).cuda()
    engine = TritonEngine(network, torch.float32)
    for _ in range(3):
        window = torch.rand(1, 9, 90, 130, device="cuda")
        with torch.inference_mode():
            expected = network.residual(window)
        torch.testing.assert_close(engine.residuals(window), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 4])
def test_real_streams_give_the_same_in_every_run(batch):
    network = make_network(**REALTIME).cuda()
    engine = TritonEngine(network, torch.bfloat16)
    first = make_frame("yuv420p", 360, 640)
    frames = [
        replace(first, planes=tuple(np.roll(p, 5 * index, 1) for p in first.planes), pts=index)
        for index in range(40)
    ]
    form = format_of(frames[0])
    results = []
    for _ in range(2):
        pipeline = FramePipeline(
            CudaBackend(torch.device("cuda")),
            form,
            3,
            lambda buffers: network_step(engine, form, buffers),
            batch=batch,
        )
        run = []
        for window in windows_of(frames, 3):
            run += pipeline.push(window)
        run += pipeline.flush()
        assert [result.frames[0].pts for result in run] == list(range(40))
        results.append(run)
    for a, b in zip(*results, strict=True):
        for x, y in zip(a.planes, b.planes, strict=True):
            np.testing.assert_array_equal(x, y)


def test_memory_at_1080p():
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    network = load_model(default_model("derain", "cuda"), "cuda")
    engine = TritonEngine(network)
    engine.residuals(torch.rand(1, 3 * network.config.frames, 1080, 1920, device="cuda"))
    assert torch.cuda.max_memory_allocated() - before < 4e9


@pytest.mark.parametrize("name", [m.name for m in list_models() if m.task in SAMPLES])
def test_shipped_models_lose_nothing_by_narrow_maps(name):
    network = load_model(name, "cuda")
    check_loss(network, TritonEngine(network, torch.bfloat16))


def test_a_film_decoded_on_the_gpu_or_not(tmp_path, caplog, monkeypatch):
    """Whether there is a decoder or not: what comes out is the same."""
    path = Clip(video=(Video(times=every(40, 40), width=256, height=144, b_frames=2),)).make(
        tmp_path
    )
    found = []
    for hardware in ("1", "0"):
        monkeypatch.setenv("MHNET_HWACCEL", hardware)
        restorer = Restorer("realtime", device="cuda")
        config = RestoreConfig(crf=0, overwrite=True)
        report = restore_video(path, tmp_path / "out.mp4", config, restorer=restorer)
        assert (report.frames, report.lost) == (40, ())
        assert restorer.engine.name == "triton"
        with av.open(str(tmp_path / "out.mp4")) as container:
            found.append([frame.to_ndarray() for frame in container.decode(video=0)])
    for a, b in zip(*found, strict=True):
        # chroma is read from two planes or three, by the same arithmetic
        np.testing.assert_array_equal(a, b)
    assert len(caplog.records) <= 1, caplog.text


@pytest.mark.parametrize("is_on_gpu", [False, True])
def test_temporal_filtering_is_that_of_a_cpu(is_on_gpu):
    before, after, _ = test_temporal_average.clip()
    host = [
        [test_temporal_average.frame(test_temporal_average.with_chroma(p), "yuv") for p in pictures]
        for pictures in (before, after)
    ]
    expected = test_temporal_average.through(*host)
    device = torch.device("cuda", torch.cuda.current_device())
    given = host
    if is_on_gpu:
        given = [[device_frame(each, row=32) for each in side] for side in host]
        given = [[replace(each, luma=each.luma.to(device)) for each in side] for side in given]
    for found, wanted in zip(
        test_temporal_average.through(*given, device=device), expected, strict=True
    ):
        luma = found.luma.cpu().numpy() if is_on_gpu else found.planes[0]
        # OpenCV rounds what it shrinks
        assert np.abs(luma.astype(int) - wanted.planes[0]).mean() < 0.1
