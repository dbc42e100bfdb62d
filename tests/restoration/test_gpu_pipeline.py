"""The ring, its events and its back-pressure, on a device that does its work when it likes.

The fake device runs the queues' work in a random order that the events allow, and nothing more:
what lacks an event is read too early or overwritten too soon for some seed.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_gpu_layout import make_frame
from test_llvm_engine import make_network
from test_self_ensemble import answers, wanted_of

from mhnet_video.config import Settings
from mhnet_video.engines.triton.engine import TritonEngine
from mhnet_video.frame import Pair
from mhnet_video.kernels import dispatch, map_ops, motion_ops
from mhnet_video.model.window import window_indices
from mhnet_video.restoration import gpu_buffers, gpu_executor
from mhnet_video.restoration.color import add_residual, to_rgb
from mhnet_video.restoration.frame_chain import FrameChain
from mhnet_video.restoration.gpu_executor import GpuExecutor, batch_of
from mhnet_video.restoration.gpu_layout import MISSING, format_of
from mhnet_video.restoration.gpu_pipeline import FramePipeline
from mhnet_video.restoration.scene_changes import Transition
from mhnet_video.restoration.self_ensemble import TRANSFORMS
from mhnet_video.restoration.temporal_window import WindowAssembler
from mhnet_video.restoration.window_network import WindowNetwork
from mhnet_video.restoration.working_scale import ScaleChooser

pytest.importorskip("triton")

SMALL = {"encoder_blocks": (1, 1, 1, 1), "group_blocks": (1,) * 4}


class FakeEvent:
    def __init__(self, backend):
        self.backend = backend
        self.is_done = False

    def query(self):
        for _ in range(self.backend.random.randrange(4)):
            self.backend.step()
        return self.is_done

    def synchronize(self):
        self.backend.syncs += 1
        while not self.is_done:
            self.backend.step()


class FakeQueue:
    def __init__(self, backend):
        self.backend = backend
        self.work = []

    def run(self, work):
        self.work.append(("run", work))

    def wait(self, event):
        self.work.append(("wait", event))

    def wait_for_decoder(self):
        self.work.append(("wait", self.backend.decoder.record()))

    def record(self):
        event = FakeEvent(self.backend)
        self.work.append(("record", event))
        return event


class FakeBackend:
    """Its clock moves only when somebody looks."""

    def __init__(self, seed=0, room=None):
        self.random = random.Random(seed)
        self.queues = []
        self.syncs = 0
        self.bytes_left = room
        # what a GPU decodes with, whose work is not the pipeline's
        self.decoder = self.queue()

    def pinned(self, *size, dtype):
        return torch.zeros(size, dtype=dtype)

    def allocate(self, *size, dtype):
        made = torch.zeros(size, dtype=dtype)
        if self.bytes_left is not None:
            self.bytes_left -= made.numel() * made.element_size()
            if self.bytes_left < 0:
                raise torch.OutOfMemoryError("no room")
        return made

    def queue(self):
        self.queues.append(FakeQueue(self))
        return self.queues[-1]

    def recorded(self, work):
        return work

    def step(self):
        able = [
            queue
            for queue in self.queues
            if queue.work and (queue.work[0][0] != "wait" or queue.work[0][1].is_done)
        ]
        assert able, "the queues wait for each other"
        what, value = self.random.choice(able).work.pop(0)
        if what == "run":
            value()
        elif what == "record":
            value.is_done = True


def mixed(buffers):
    """Stands for the network: the window's frames, each with a weight of its own."""

    def step():
        for index, slots in enumerate(buffers.slots.tolist()):
            total = sum(
                (number + 1) * buffers.ring[slot].int()
                for number, slot in enumerate(slots)
                if slot != MISSING
            )
            buffers.out[index] = (total % 251).to(torch.uint8)
            # the brightness of the colours that came with the frame in the middle
            buffers.flags[index] = int(buffers.colors[slots[len(slots) // 2], 1] > 240)

    return step


def frames_of(count, height=4, width=6):
    frames = []
    for index in range(count):
        frame = make_frame("yuv444p", height, width, full_range=index % 3 == 2)
        planes = tuple((plane.astype(int) + 7 * index).astype(np.uint8) for plane in frame.planes)
        frames.append(replace(frame, planes=planes, pts=index))
    return frames


def expected_of(frames, width):
    """What `mixed` gives, computed in one go."""
    for centre in range(len(frames)):
        window = [frames[place] for place in window_indices(centre, len(frames), width)]
        is_alone = len(frames) == 1 < width
        if is_alone:
            window = [None] * (width // 2) + frames + [None] * (width // 2)
        there = [(n + 1, frame.planes) for n, frame in enumerate(window) if frame is not None]
        planes = [sum(n * given[i].astype(int) for n, given in there) % 251 for i in range(3)]
        yield window, None if is_alone or frames[centre].full_range else planes


def windows_of(frames, width, step_of=lambda index: Transition.NEXT):
    """The windows of a clip, to its end."""
    assembler = WindowAssembler(width)
    for index, frame in enumerate(frames):
        yield from assembler.push(frame, Settings(), step_of(index), 1.0)
    yield from assembler.flush()


def times(window):
    return [None if picture is None else picture.frame.pts for picture in window.images]


def check_results(results, frames, width):
    assert len(results) == len(frames)
    for result, (window, planes) in zip(results, expected_of(frames, width), strict=True):
        assert times(result.window) == [None if frame is None else frame.pts for frame in window]
        assert (result.planes is None) == (planes is None)
        for a, b in zip(result.planes or (), planes or (), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("count", "width", "batch", "depth"),
    [
        (25, 3, 1, 3),
        (25, 1, 1, 1),
        (25, 1, 1, 4),
        (23, 5, 4, 2),
        (2, 5, 2, 3),
        (1, 3, 8, 2),
        (40, 3, 2, 2),
    ],
)
def test_any_order_that_events_allow_gives_the_same(count, width, batch, depth, seed):
    frames = frames_of(count)
    backend = FakeBackend(seed)
    pipeline = FramePipeline(backend, format_of(frames[0]), width, mixed, batch=batch, depth=depth)
    results = []
    for window in windows_of(frames, width):
        results += pipeline.push(window)
        assert len(pipeline._running) <= depth
    results += pipeline.flush()
    check_results(results, frames, width)
    assert not any(queue.work for queue in backend.queues[2:])


def test_a_slow_device_holds_the_caller_back_and_an_idle_one_does_not():
    frames = frames_of(12)
    backend = FakeBackend()
    backend.random.randrange = lambda _: 0  # nothing is done until somebody waits
    pipeline = FramePipeline(backend, format_of(frames[0]), 1, mixed, depth=3)
    counts = [len(pipeline.push(window)) for window in windows_of(frames, 1)]
    # three batches are under way, then one has to end for each that begins
    assert counts == [0, 0, 0] + [1] * 9
    assert len(pipeline.flush()) == 3

    backend = FakeBackend()
    backend.random.randrange = lambda _: 50
    backend.step = lambda: FakeBackend.step(backend) if any(q.work for q in backend.queues) else 0
    pipeline = FramePipeline(backend, format_of(frames[0]), 1, mixed, depth=3)
    assert [len(pipeline.push(window)) for window in windows_of(frames, 1)] == [1] * 12


def test_close_waits_for_the_device():
    frames = frames_of(5)
    backend = FakeBackend()
    backend.random.randrange = lambda _: 0
    pipeline = FramePipeline(backend, format_of(frames[0]), 3, mixed)
    for window in windows_of(frames, 3):
        pipeline.push(window)
    pipeline.close()
    assert not any(queue.work for queue in backend.queues)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("width", "batch"), [(3, 1), (5, 4), (1, 2)])
def test_copies_that_differ_are_restored_each_with_the_same_neighbours(width, batch, seed):
    frames = [replace(frame, full_range=False) for frame in frames_of(40)]
    order = random.Random(seed)
    firsts = []  # where each frame's run of copies begins
    while len(firsts) < 40:
        firsts += [len(firsts)] * order.randrange(1, 5)
    firsts = firsts[:40]
    cuts = {first for first in firsts if first and order.random() < 0.2}
    pipeline = FramePipeline(
        FakeBackend(seed), format_of(frames[0]), width, mixed, batch=batch, depth=2
    )

    def step_of(index):
        is_copy = index > 0 and firsts[index] == firsts[index - 1]
        return Transition.COPY if is_copy else Transition.CUT if index in cuts else Transition.NEXT

    results = []
    for window in windows_of(frames, width, step_of):
        results += pipeline.push(window)
    results += pipeline.flush()
    assert [result.frames[0].pts for result in results] == list(range(40))
    half = width // 2
    for index, result in enumerate(results):
        begin = max((cut for cut in cuts if cut <= index), default=0)
        end = min((cut for cut in cuts if cut > index), default=40)
        every = [i for i in sorted(set(firsts)) if begin <= i < end] if width > 1 else range(40)
        place = every.index(firsts[index] if width > 1 else index)
        places = window_indices(place, len(every), width)
        seen = [index if each == place else every[each] for each in places]
        if width > 1 and len(every) == 1:  # nothing beside it: a picture on its own
            assert times(result.window) == [None] * half + [index] + [None] * half
            assert result.planes is None
            continue
        assert times(result.window) == seen
        total = sum(
            (n + 1) * frames[i].planes[0].astype(int) for n, i in enumerate(seen) if i is not None
        )
        np.testing.assert_array_equal(result.planes[0], total % 251)


def test_small_pictures_share_a_batch():
    assert batch_of(format_of(make_frame("yuv420p", 1080, 1920)), 1) == 1
    assert batch_of(format_of(make_frame("yuv420p", 1080, 1920)), 2) == 1
    assert batch_of(format_of(make_frame("yuv420p", 480, 640)), 2) == 8
    assert batch_of(format_of(make_frame("yuv420p", 1, 1)), 2) == 8


class Quiet:
    """An engine that has room for so many windows of so many pixels, and adds nothing."""

    def __init__(self, monkeypatch, most):
        self.network = make_network(width=4, frames=3, patch=2, **SMALL)
        self.config, self.map_type = self.network.config, TritonEngine(self.network).map_type
        self.released = 0
        self.batches = []

        def network_step(engine, form, buffers):
            if buffers.slots.shape[0] * form.height * form.width > most:
                raise torch.OutOfMemoryError("too many")
            self.batches.append(buffers.slots.shape[0])
            return mixed(buffers)

        monkeypatch.setattr(gpu_executor, "network_step", network_step)

    def release(self):
        self.released += 1


class Plain(WindowNetwork):
    """What restores a window without the pipeline: by a number that tells which."""

    def __init__(self, network):
        super().__init__(network, torch.device("cpu"))
        self.windows = []

    def prepare(self, window):
        self.windows.append(window)
        for each in window.images:
            if each is not None:
                each.rgb = torch.zeros(3, *each.frame.planes[0].shape)
        return [None if each is None else each.rgb for each in window.images]

    def planes(self, engine, window, seen):
        self.engine = engine
        return tuple(plane // 2 for plane in window.frame.planes)


class Piped:
    """Frames through an executor on a GPU that the CPU plays."""

    def __init__(self, engine, backend, network=None, strength=1.0, stays=False):
        self.network = network or Plain(engine.network)
        self.settings = Settings(strength=strength)
        how = {"backend": backend, "stays": stays}
        self.executor = GpuExecutor(engine, self.network, **how)
        self.width = engine.config.frames

    def stream(self, items):
        scales = ScaleChooser(torch.device("cuda"))
        chain = FrameChain(self.width, self.executor, scales)
        for item in items:
            yield from chain.push(item, self.settings)
        yield from chain.flush()
        chain.close()


def restored(pairs):
    pairs = list(pairs)
    assert all(isinstance(pair, Pair) and pair.source.pts == pair.restored.pts for pair in pairs)
    return [pair.restored for pair in pairs]


def test_out_of_memory_makes_batches_smaller_and_says_so_once(monkeypatch, caplog):
    engine = Quiet(monkeypatch, most=2 * 24)
    piped = Piped(engine, FakeBackend())
    frames = [replace(frame, full_range=False) for frame in frames_of(9)]
    out = restored(piped.stream(frames))
    assert [frame.pts for frame in out] == list(range(9))
    assert engine.batches == [2]
    assert engine.released == 2
    assert len(list(piped.stream(frames))) == 9
    assert engine.batches == [2, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "the GPU's memory holds 4 pictures at once, not more",
        "the GPU's memory holds 2 pictures at once, not more",
    ]


def are_halves(frames, sources):
    return all(
        np.array_equal(plane, source // 2)
        for a, b in zip(frames, sources, strict=True)
        for plane, source in zip(a.planes, b.planes, strict=True)
    )


def test_out_of_memory_for_one_frame_goes_on_without_the_pipeline(monkeypatch, caplog):
    engine = Quiet(monkeypatch, most=0)
    engine.lanes = lambda pixels: (engine,)
    frames = frames_of(16)
    piped = Piped(engine, FakeBackend())
    assert are_halves(restored(piped.stream(frames)), frames)
    assert piped.network.engine is engine and not piped.executor.has_failed
    assert "tiles" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("kind", "text", "is_full"),
    [
        (RuntimeError, "Triton Error [CUDA]: out of memory", True),
        (RuntimeError, "CUDA error: operation not permitted when stream is capturing", False),
        (ValueError, "no such kernel\nin this version", False),
    ],
)
def test_kernels_that_fail_for_a_size_do_not_end_the_film(monkeypatch, caplog, kind, text, is_full):
    engine = Quiet(monkeypatch, most=10**9)
    engine.lanes = lambda pixels: (engine,)

    def network_step(engine, form, buffers):
        raise kind(text)

    monkeypatch.setattr(gpu_executor, "network_step", network_step)
    frames = frames_of(16)
    piped = Piped(engine, FakeBackend())
    assert are_halves(restored(piped.stream(frames)), frames)
    assert piped.executor.has_failed is not is_full
    assert (piped.network.engine is engine) is is_full
    said = caplog.records[-1].getMessage()
    assert ("tiles" in said) is is_full and ("PyTorch" in said) is not is_full
    assert "\n" not in said


def test_frames_that_are_not_finite_are_done_again(monkeypatch):
    engine = Quiet(monkeypatch, most=10**9)
    piped = Piped(engine, FakeBackend(3))
    out = restored(piped.stream(frames_of(9)))
    assert [frame.pts for frame in out] == list(range(9))
    assert [times(window) for window in piped.network.windows] == [[1, 2, 3], [4, 5, 6], [7, 8, 6]]


def test_frames_without_finite_numbers_pass_through(monkeypatch):
    engine = Quiet(monkeypatch, most=10**9)
    piped = Piped(engine, FakeBackend(3))
    piped.network.planes = lambda *_, **__: None
    frames = frames_of(9)
    out = restored(piped.stream(frames))
    assert [a is b for a, b in zip(out, frames, strict=True)] == [i % 3 == 2 for i in range(9)]
    assert piped.executor.counts.passed_through == 3


def test_a_strength_that_changes_reaches_the_frames_that_follow(monkeypatch):
    engine = Quiet(monkeypatch, most=10**9)
    strengths = []
    real = gpu_buffers.colors_of

    def colors_of(frame, strength):
        strengths.append((frame.pts, strength))
        return real(frame, strength)

    monkeypatch.setattr(gpu_buffers, "colors_of", colors_of)
    piped = Piped(engine, FakeBackend(3))
    frames = [replace(frame, full_range=False) for frame in frames_of(30)]

    def changing():
        for frame in frames:
            if frame.pts == 20:
                piped.settings = Settings(strength=0.5)
            yield frame

    assert [frame.pts for frame in restored(piped.stream(changing()))] == list(range(30))
    assert {strength for pts, strength in strengths if pts < 18} == {1.0}
    assert {strength for pts, strength in strengths if pts > 20} == {0.5}


def test_another_format_ends_a_run(monkeypatch):
    engine = Quiet(monkeypatch, most=10**9)
    first = [replace(frame, full_range=False) for frame in frames_of(3)]
    second = [replace(frame, full_range=False) for frame in frames_of(4, 6, 4)]
    out = restored(Piped(engine, FakeBackend(5)).stream([*first, *second]))
    expected = [*expected_of(first, 3), *expected_of(second, 3)]
    for frame, (_, planes) in zip(out, expected, strict=True):
        for a, b in zip(frame.planes, planes, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_frame_that_repeats_the_one_before_is_no_neighbour(monkeypatch):
    engine = Quiet(monkeypatch, most=10**9)
    kinds = [replace(frame, full_range=False) for frame in frames_of(4)]
    order = [0, 0, 1, 2, 2, 2, 3, 3]
    frames = [replace(kinds[kind], pts=index) for index, kind in enumerate(order)]
    piped = Piped(engine, FakeBackend(2))
    out = restored(piped.stream(frames))
    expected = list(expected_of(kinds, 3))
    assert [frame.pts for frame in out] == list(range(8))
    assert piped.executor.counts.repeated == 4
    for frame, kind in zip(out, order, strict=True):
        for a, b in zip(frame.planes, expected[kind][1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_raised_rate_is_found(monkeypatch):
    """Each frame twice, coded anew: its neighbours are those before and behind both."""
    engine = Quiet(monkeypatch, most=10**9)
    frames = []
    for index, frame in enumerate(frames_of(20, 8, 8)):
        for again in range(2):
            planes = tuple(np.clip(plane + again, 0, 255) for plane in frame.planes)
            pts = 2 * index + again
            frames.append(replace(frame, planes=planes, pts=pts, full_range=False))
    out = restored(Piped(engine, FakeBackend(4)).stream(frames))
    assert [frame.pts for frame in out] == list(range(40))
    for index in range(14, 38):
        first = index // 2 * 2
        seen = [frames[first - 2], frames[index], frames[first + 2]]
        total = sum((n + 1) * frame.planes[0].astype(int) for n, frame in enumerate(seen))
        np.testing.assert_array_equal(out[index].planes[0], total % 251)


def test_many_copies_are_a_picture_on_its_own(monkeypatch):
    """Not all of them wait, and those that do not are no neighbours either.

    They are restored as what the network gives no numbers for is.
    """
    engine = Quiet(monkeypatch, most=10**9)
    kinds = [replace(frame, full_range=False) for frame in frames_of(2)]
    frames = [replace(kinds[index == 30], pts=index) for index in range(31)]
    alone = [plane // 2 for plane in kinds[0].planes]
    piped = Piped(engine, FakeBackend(2))
    out = restored(piped.stream(frames))
    assert [frame.pts for frame in out] == list(range(31))
    # all of them share one window, which is restored once
    assert [times(window) for window in piped.network.windows] == [[None, 0, None]]
    (_, before), _ = expected_of(kinds, 3)
    *_, (_, last) = expected_of([kinds[0], *kinds], 3)  # both neighbours show what was before it
    # of the copies only those that the last eight wait with see what comes after them
    found = [frame.planes[0].tolist() for frame in out]
    expected = [alone[0].tolist()] * 24 + [before[0].tolist()] * 6 + [last[0].tolist()]
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize(("aligns", "count"), [(False, 3), (True, 3), (True, 1)])
def test_the_whole_way_is_that_of_the_plain_network(aligns, count, device, monkeypatch):
    """Samples to samples: what color.py, align.py and the network give."""
    network = make_network(width=4, frames=3, patch=2, heads=4, align=aligns, **SMALL).to(device)
    first = make_frame("yuv420p", 40, 7, rotation=90)
    frames = []
    for index in range(count):
        planes = tuple(np.roll(plane, index, axis=0) for plane in first.planes)
        frames.append(replace(first, planes=planes, pts=index))
    backend = None
    if device.type == "cpu":
        # the frames' kernels are interpreted; those of the network and of its alignment are, in
        # test_triton_engine.py and test_motion_kernels.py
        backend = FakeBackend()
        for each in (map_ops, motion_ops):
            monkeypatch.setattr(each, "use_triton", lambda *tensors: False)
    piped = Piped(
        TritonEngine(network, torch.float32),
        backend,
        WindowNetwork(network, device),
        strength=0.5,
    )
    with dispatch.on_cpu():
        out = restored(piped.stream(frames))
    assert len(out) == count
    for index, frame in enumerate(out):
        window = [frames[place] for place in window_indices(index, count, 3)]
        seen = [torch.rot90(to_rgb(each, torch.device("cpu")), -1, (1, 2)) for each in window]
        x = torch.nn.functional.pad(torch.cat(seen)[None], (0, 24, 0, 25), mode="replicate")

        def alone(picture):
            black = torch.zeros_like(picture)
            return network.residual(torch.cat([black, picture, black])[None].to(device))[0].cpu()

        with torch.inference_mode():
            if count == 1:
                residual = wanted_of(answers(x[0, 3:6], network.config.multiple, alone, TRANSFORMS))
            else:
                residual = (network(x.to(device)).cpu() - x[:, 3:6])[0]
        residual = residual[:, :7, :40]
        expected = add_residual(frames[index], torch.rot90(residual, 1, (1, 2)), strength=0.5)
        assert any((a != b).any() for a, b in zip(expected, frames[index].planes, strict=True))
        for a, b in zip(frame.planes, expected, strict=True):
            assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
            assert (a != b).mean() < 0.05
