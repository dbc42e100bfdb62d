"""The temporal average as a graph: the samples of the one that decides on the host, and no wait."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from launch_count import LaunchCount
from test_gpu_pipeline import FakeBackend
from test_hwaccel import device_frame
from test_temporal_average import clip, frame, scene, with_chroma

import mhnet_video.restoration.temporal_average
from mhnet_video.config import Box, Settings
from mhnet_video.frame import DeviceFrame, Pair
from mhnet_video.restoration.gpu_backend import CudaBackend
from mhnet_video.restoration.graph_average import GraphAverage
from mhnet_video.restoration.temporal_average import FrameAverage
from mhnet_video.restoration.temporal_filter import TemporalFilter


@pytest.fixture
def backend(device, monkeypatch):
    """A GPU, or a device that does its work when it likes."""
    # tensors on the CPU, too: OpenCV rounds what it shrinks
    monkeypatch.setattr(mhnet_video.restoration.temporal_average, "opencv", lambda: None)
    return CudaBackend(device) if device.type == "cuda" else FakeBackend(1)


def pictures():
    """What stands still, then moves, is dry, shows another scene, and stands still again."""
    before, after, _ = clip()
    moving = [part[:4] for part in clip(speed=3)[:2]]
    before, after = before + moving[0], after + moving[1]
    before, after = before + after[:3], after + after[:3]
    other = np.rint(scene(seed=7)).clip(0, 255).astype(np.uint8)
    rain = np.random.default_rng(2)
    for _ in range(6):
        before.append((other // 2 + 20 * (rain.random(other.shape) < 0.1)).astype(np.uint8))
        after.append((other // 2 + rain.integers(0, 6, other.shape)).astype(np.uint8))
    return before, after


def frames(kind, bits):
    """Both sides of the clip."""
    make = {
        "gray": lambda p: (p,),
        "yuv": with_chroma,
        "rgb": lambda p: (p, p[::-1].copy(), 255 - p if bits == 8 else p),
    }[kind]
    dtype = np.uint8 if bits == 8 else np.uint16
    return [
        [
            frame(make(np.left_shift(p, bits - 8, dtype=dtype)), kind, bits, tags={"number": i})
            for i, p in enumerate(side)
        ]
        for side in pictures()
    ]


def through(average, device, before, restored, settings):
    """A clip through the filter, one more pair on its way than the average needs."""
    found = TemporalFilter(torch.device("cuda"), average)
    pairs = []
    for pair in map(Pair, before, restored):
        pairs += found.push(pair, settings)
        assert len(found._running) <= 1
    pairs += found.flush()
    assert [pair.source for pair in pairs] == list(before)
    return [pair.restored for pair in pairs]


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize(("kind", "bits"), [("gray", 8), ("yuv", 8), ("yuv", 10), ("rgb", 16)])
def test_it_gives_what_the_average_gives_that_decides_on_the_host(
    backend, device, kind, bits, share
):
    before, restored = frames(kind, bits)
    for old, new in zip(before, restored, strict=True):  # which the restorer has kept
        for source, plane in zip(old.planes, new.planes, strict=True):
            plane[30:50, 40:90] = source[30:50, 40:90]
    restored.insert(7, replace(restored[6], pts=1))  # a copy
    before.insert(7, replace(before[6], pts=1))
    restored[11] = before[11]  # one that was not restored
    settings = Settings(strength=share, keep=(Box(40, 30, 50, 20),))
    expected = through(FrameAverage(device), device, before, restored, settings)
    found = through(GraphAverage(backend), device, before, restored, settings)
    for a, b in zip(found, expected, strict=True):
        assert all(map(np.array_equal, a.planes, b.planes))
    changed = [
        not np.array_equal(a.planes[0], r.planes[0]) for a, r in zip(found, restored, strict=True)
    ]
    # still, moving, dry, and another scene
    assert all(changed[2:6]) and not any(changed[14:20]) and all(changed[-4:])
    assert found[7].planes[0] is found[6].planes[0] and found[11] is before[11]


@pytest.mark.parametrize("bits_down", [0, 6])
def test_what_a_gpu_has_decoded_is_averaged_in_place(backend, device, bits_down):
    sides = frames("yuv", 10 if bits_down else 8)
    ours, theirs = (
        [[_placed(device_frame(each, bits_down, row=6), device) for each in side] for side in sides]
        for _ in range(2)
    )
    expected = through(FrameAverage(device), device, *ours, Settings())
    found = through(GraphAverage(backend), device, *theirs, Settings())
    for a, b, given in zip(found, expected, theirs[1], strict=True):
        assert isinstance(a, DeviceFrame) and a.luma is given.luma
        assert torch.equal(a.luma, b.luma)


def _placed(made, device):
    return replace(made, luma=made.luma.to(device), chroma=made.chroma.to(device))


def test_another_size_or_scene_begins_anew(backend, device):
    before, restored = frames("yuv", 8)
    small = [
        [replace(each, planes=with_chroma(each.planes[0][:100, :90].copy())) for each in side]
        for side in (before, restored)
    ]
    average = GraphAverage(backend)
    for sides in ((before, restored), small, (before, restored)):
        expected = through(FrameAverage(device), device, *sides, Settings())
        for a, b in zip(through(average, device, *sides, Settings()), expected, strict=True):
            np.testing.assert_array_equal(a.planes[0], b.planes[0])


def test_the_host_starts_a_few_things_a_frame_and_waits_for_none():
    before, restored = frames("yuv", 8)
    backend = FakeBackend()
    backend.random.randrange = lambda _: 0  # nothing is done until somebody waits
    work = []

    def recorded(step):
        work.append(step)

        def replay():
            with LaunchCount() as in_graph:
                step()
            graphs.append(in_graph)

        return replay

    graphs, backend.recorded = [], recorded
    average = GraphAverage(backend)
    late = []
    for index in range(6):
        syncs = backend.syncs
        with LaunchCount() as at_start:
            late.append(average.start(before[index], restored[index], restored[index + 1]))
        # only for the frame two before, whose memory it takes
        assert backend.syncs - syncs <= (index >= 2) and at_start.waits == 0
        while index and late:
            late.pop(0).result()
    late = average.start(before[6], restored[6], restored[7])
    with LaunchCount() as all_of_it:
        late.result()
    graph = graphs[-1]
    assert len(work) == 1 and graph.waits == all_of_it.waits == 0
    assert 100 < graph.launches < 160
    # copies of three planes, of the strength and of the result
    assert all_of_it.launches - graph.launches <= 6


def test_results_may_be_taken_late(backend, device):
    """Whose memory is used again by then."""
    before, restored = frames("yuv", 8)
    average = GraphAverage(backend)
    aheads = [*restored[1:], None]
    late = [average.start(*each) for each in zip(before, restored, aheads, strict=True)]
    expected = through(FrameAverage(device), device, before, restored, Settings())
    for a, b in zip(late, expected, strict=True):
        np.testing.assert_array_equal(a.result().planes[0], b.planes[0])


def test_want_of_memory_ends_nothing_and_is_not_asked_for_again():
    before, restored = frames("yuv", 8)
    backend = FakeBackend(room=10_000)
    average = GraphAverage(backend)
    found = through(average, None, before, restored, Settings())
    assert all(a is b for a, b in zip(found, restored, strict=True))
    left = backend.bytes_left
    assert through(average, None, before, restored, Settings()) == restored
    assert backend.bytes_left == left


def test_closing_waits_for_what_is_changed_in_place(backend, device):
    sides = frames("yuv", 8)
    made = [[_placed(device_frame(each), device) for each in side] for side in sides]
    found = TemporalFilter(torch.device("cuda"), GraphAverage(backend))
    for pair in map(Pair, *made):
        list(found.push(pair, Settings()))
    found.close()
    if device.type != "cuda":
        assert not any(queue.work for queue in backend.queues[1:])
