"""What only a GPU can show: graphs, real streams and real sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_cuda_frames import make_frame
from test_engine import make_network

from mhnet_video.cuda_engine import TritonEngine
from mhnet_video.cuda_frames import format_of
from mhnet_video.cuda_stream import CudaMachine, FramePipeline, network_step
from mhnet_video.network import MHNet, NetworkConfig

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
            CudaMachine(torch.device("cuda")),
            form,
            3,
            1.0,
            lambda room: network_step(engine, form, room),
            batch=batch,
        )
        run = []
        for frame in frames:
            run += pipeline.push(frame)
        run += pipeline.flush()
        assert [result.frames[0].pts for result in run] == list(range(40))
        results.append(run)
    for a, b in zip(*results, strict=True):
        for x, y in zip(a.planes, b.planes, strict=True):
            np.testing.assert_array_equal(x, y)


def test_memory_at_1080p():
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    network = MHNet(NetworkConfig(**REALTIME)).cuda().eval().requires_grad_(False)
    engine = TritonEngine(network)
    engine.residuals(torch.rand(1, 9, 1080, 1920, device="cuda"))
    assert torch.cuda.max_memory_allocated() < 4e9
