"""How many bytes a forward pass moves, checked without a GPU."""

import pytest
import torch

from mhnet_video.engines.triton.memory_traffic import count, launches, memory, symbolic_graph
from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.media.frames.pixel_formats import layout_of
from mhnet_video.model.align import align_maps
from mhnet_video.model.network import NetworkConfig
from mhnet_video.restoration.gpu_layout import NUM_COLORS, FrameFormat

pytest.importorskip("triton")

REALTIME = {"width": 16, "patch": 2, "frames": 3, "encoder_blocks": [1, 1, 1, 4]}
REALTIME["group_blocks"] = [1, 1, 1, 1]
QUALITY = {**REALTIME, "width": 32, "frames": 5, "encoder_blocks": [1, 2, 2, 6], "align": True}
PAPER = {}


def graph_of(config, height, width, kind="bfloat16", batch=1, front=None):
    kind = getattr(torch, kind)
    fits = map_ops.block_front_rows_fits
    fronts = {channels: front for channels in (16, 32, 64) if front and fits(channels, kind)}
    return symbolic_graph(NetworkConfig(**config), height, width, kind, batch, fronts)


def launches_of(config, height, width, **options):
    """The kernels of a forward pass; tests/aot.py compiles them."""
    graph = graph_of(config, height, width, **options)
    return [launch for _, launch in launches(graph)] + frame_launches(graph, height, width)


def frame_launches(graph, height, width):
    """The kernels before and behind a forward pass, for frames of 8 and of 10 bits."""
    config, found = graph.maps.config, []
    with dispatch.recording() as launched:
        for name in ("yuv420p", "yuv422p10le"):
            form = FrameFormat.planar(layout_of(name), height, width)
            ring = torch.empty(5, form.size, dtype=form.sample_dtype, device="meta")
            colors = torch.empty(5, NUM_COLORS, device="meta")
            slots = torch.empty(1, config.frames, dtype=torch.int32, device="meta")
            flags = torch.empty(1, dtype=torch.int32, device="meta")
            form.read(ring, slots, colors, graph.input, config.patch)
            if config.align:
                room = torch.empty_like(graph.input)
                align_maps(room, config.frames, config.patch, graph.input)
            form.apply(ring, slots, colors, graph.residual, ring[:1], flags)
        found += launched
    return found


@pytest.mark.parametrize(
    ("config", "gigabytes", "ratio"),
    [
        # width 16: a block is two kernels, which move what is ideal
        pytest.param(REALTIME, 1.45, 1.16, id="realtime"),
        # width 32: the same at full resolution, where most of it is
        pytest.param(QUALITY, 3.5, 1.35, id="quality"),
        # width 64: the first half of a block is two kernels, which makes nine maps of five
        pytest.param(PAPER, 111.0, 1.83, id="paper"),
    ],
)
def test_traffic_at_1080p(config, gigabytes, ratio):
    rows = count(graph_of(config, 1080, 1920))
    moved, ideal = sum(row.moved for row in rows), sum(row.ideal for row in rows)
    assert moved / ideal < ratio
    assert moved < gigabytes * 1e9


@pytest.mark.parametrize(
    ("config", "number"),
    [
        pytest.param(REALTIME, 96, id="realtime"),
        pytest.param(QUALITY, 128, id="quality"),
        pytest.param(PAPER, 374, id="paper"),
    ],
)
def test_launches_at_1080p(config, number):
    assert len(launches(graph_of(config, 1080, 1920))) == number


def test_a_block_moves_five_maps_or_nine():
    pixels = 1088 * 1920
    for width, maps, front in ((32, 5, None), (64, 9, None), (64, 5, "rows")):
        config = {"width": width, "group_blocks": [2, 1, 1, 1]}
        rows = {row.part: row.moved for row in count(graph_of(config, 1080, 1920, front=front))}
        block = rows["group 1"] - rows["group 2"]
        assert block / (pixels * width * 2) == pytest.approx(maps, rel=0.03)


def test_memory_at_1080p():
    assert memory(graph_of(REALTIME, 1080, 1920)) < 0.25e9
    assert memory(graph_of(QUALITY, 1080, 1920)) < 0.6e9
    assert memory(graph_of(PAPER, 1080, 1920)) < 3.6e9


def test_every_step_is_a_kernel_of_this_project():
    """A product of cuBLAS would share its workspace with the graphs of other threads."""
    graph = graph_of(REALTIME, 64, 64)
    for part, step in graph.parts():
        with torch.inference_mode(), dispatch.recording() as launched:
            step()
        assert launched, (part, step)


def test_parts_are_those_of_the_network():
    parts = [row.part for row in count(graph_of(REALTIME, 64, 64))]
    assert parts[0] == "first convolutions"
    assert parts[-1] == "last convolution"
    assert len(parts) == 2 + 4 + 1 + 4 + 1 + 8
