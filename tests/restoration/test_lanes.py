"""Two frames at a time: in order, each paid for once, and nothing left behind."""

import threading
import time
from contextlib import contextmanager
from functools import partialmethod
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_llvm_engine import make_network, needs_llvm
from test_restorer import LAYOUT, Spy, gray_frame, levels
from waiting import SECONDS

from mhnet_video.engines.base import TorchEngine
from mhnet_video.engines.select import SelectedEngine
from mhnet_video.frame import Frame
from mhnet_video.model.window import middle_of, window_indices
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.window_network import WindowNetwork


class Lane(TorchEngine):
    """An engine that is done with a frame when it may be."""

    def __init__(self, network, watch):
        super().__init__(network)
        self.watch = watch

    def residual(self, frames):
        with self.watch.working(int(middle_of(frames)[0, 0, 0] * 255 + 0.5)):
            return super().residual(frames)


class Watch(TorchEngine):
    """Two lanes, and how many of them work.

    Args:
        network: What both run.
        after: Frames that end after others, by their gray levels; both are at work then.
    """

    def __init__(self, network, after):
        super().__init__(network)
        self.pair = [Lane(network, self), Lane(network, self)]
        self.now, self.most = 0, 0
        self.begun, self.ended = ([threading.Event() for _ in range(256)] for _ in range(2))
        self._after = after
        self._lock = threading.Lock()

    def lanes(self, pixels):
        return self.pair

    @contextmanager
    def working(self, level):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.begun[level].set()
        try:
            for later, other in self._after.items():
                assert other != level or self.begun[later].wait(SECONDS)
            yield
            assert level not in self._after or self.ended[self._after[level]].wait(SECONDS)
        finally:
            with self._lock:
                self.now -= 1
            self.ended[level].set()


def in_lanes(spy, after=None):
    restorer = Restorer(spy, device="cpu", engine="torch")
    watch = Watch(spy, after or {})
    restorer.engine = SelectedEngine(watch, "torch", "for a test")
    return restorer, watch


def first_samples(frames):
    return [int(frame.planes[0][0, 0]) for frame in frames]


def test_frames_come_in_order_whichever_is_done_first():
    spy = Spy()
    restorer, watch = in_lanes(spy, {0: 10, 20: 30, 50: 60})
    found = list(restorer.stream(gray_frame(10 * i, i) for i in range(9)))
    assert [frame.pts for frame in found] == list(range(9))
    assert first_samples(found) == [round(7.5 * i) for i in range(9)]
    assert watch.most == 2
    wanted = [[10 * place for place in window_indices(i, 9, 3)] for i in range(9)]
    assert sorted(levels(spy)) == sorted(wanted)


def test_equal_frames_are_paid_for_once():
    spy = Spy()
    restorer, _ = in_lanes(spy, {0: 50})
    found = list(restorer.stream(gray_frame(level, i) for i, level in enumerate([0, 50, 50, 90])))
    assert first_samples(found) == [0, 38, 38, 68]
    assert len(spy.windows) == 3 and restorer.repeated == 1


def test_frames_without_finite_numbers_pass_in_their_place():
    class Broken(Spy):
        def residual(self, x):
            found = super().residual(x)
            return found * float("nan") if int(x[0, 3, 0, 0] * 255 + 0.5) == 20 else found

    restorer, _ = in_lanes(Broken(), {10: 20})
    found = list(restorer.stream(gray_frame(10 * i, i) for i in range(5)))
    assert first_samples(found) == [0, 8, 20, 22, 30]
    assert restorer.passed_through == 1


def test_what_was_decoded_before_an_error_is_given():
    def broken():
        yield from (gray_frame(10 * i, i) for i in range(6))
        raise OSError("gone")

    restorer, _ = in_lanes(Spy(), {0: 10, 20: 30})
    stream, found = restorer.stream(broken()), []
    with pytest.raises(OSError, match="gone"):
        found.extend(stream)
    assert [frame.pts for frame in found] == [0, 1, 2, 3, 4, 5]


def test_an_error_of_a_lane_comes_after_the_frames_before_it():
    class Failing(Spy):
        def residual(self, x):
            if int(x[0, 3, 0, 0] * 255 + 0.5) == 30:
                raise ArithmeticError("no")
            return super().residual(x)

    restorer, watch = in_lanes(Failing(), {0: 30})
    stream, found = restorer.stream(gray_frame(10 * i, i) for i in range(9)), []
    with pytest.raises(ArithmeticError):
        found.extend(stream)
    assert [frame.pts for frame in found] == [0, 1, 2]
    # both lanes are there for the next stream
    found = list(restorer.stream(gray_frame(7 * i, i) for i in range(3)))
    assert len(found) == 3 and watch.now == 0


def test_a_stream_that_is_closed_leaves_no_lane_at_work(monkeypatch):
    """The frames in the lanes end only when somebody waits for the threads."""
    restorer, watch = in_lanes(Spy(), {20: 200, 30: 200})
    stream = restorer.stream(gray_frame(10 * i, i) for i in range(100))
    next(stream)
    assert watch.begun[20].wait(SECONDS) and watch.begun[30].wait(SECONDS)
    real = threading.Thread.join

    def join(thread, *given):
        watch.ended[200].set()
        real(thread, *given)

    monkeypatch.setattr(threading.Thread, "join", join)
    stream.close()
    left = watch.now
    watch.ended[200].set()
    assert left == 0
    assert not [each for each in threading.enumerate() if each.name.startswith("mhnet-video lane")]
    assert len(list(restorer.stream(gray_frame(7 * i, i) for i in range(3)))) == 3


def test_frames_that_are_left_as_they_are_wait_for_those_before():
    restorer, _ = in_lanes(Spy(), {0: 10})

    def frames():
        for index in range(6):
            restorer.strength = float(index < 4)
            yield gray_frame(10 * index, index)

    found = list(restorer.stream(frames()))
    assert [frame.pts for frame in found] == list(range(6))
    assert first_samples(found)[-2:] == [40, 50]


@needs_llvm
@pytest.mark.parametrize(
    ("threads", "size", "count"),
    [
        (1, (64, 64), 1),
        (2, (640, 480), 2),
        (2, (1280, 720), 2),
        (2, (1920, 1080), 1),
        (3, (640, 480), 2),
        (4, (640, 480), 2),
        (8, (640, 480), 3),
        (16, (640, 480), 6),
        (8, (1280, 720), 2),
        (16, (1280, 720), 4),
        (64, (1280, 720), 4),  # for want of memory
        (8, (1920, 1080), 1),
        (16, (1920, 1080), 2),
        (64, (3840, 2160), 1),
    ],
    ids=str,
)
def test_as_many_frames_at_a_time_as_pay(threads, size, count):
    from mhnet_video.engines.llvm.engine import lane_count

    assert lane_count(threads, size[0] * size[1]) == count


@needs_llvm
def test_a_stream_whose_size_changes_changes_lanes(monkeypatch):
    """Eight threads, three frames at a time, then two, then three: in order, none left out."""
    from mhnet_video.engines.llvm import engine as module

    torch.manual_seed(0)
    network = make_network(width=16, patch=2, frames=3)
    restorer = Restorer(network, device="cpu", engine="llvm")
    engine = type(restorer.engine.engine)(network, restorer.engine.engine._kernels.machine, 8)
    restorer.engine = SelectedEngine(engine, "llvm", "for a test")
    counts = {64 * 96: 3, 96 * 128: 2}
    monkeypatch.setattr(module, "lane_count", lambda threads, pixels: counts[pixels])
    random = np.random.default_rng(0)
    frames = []
    for index in range(12):
        height, width = (96, 128) if 4 <= index < 8 else (64, 96)
        noise = tuple(random.integers(0, 255, (3, height, width), np.uint8))
        frames.append(Frame(noise, LAYOUT, pts=index, time_base=1, full_range=True))
    threads = set()
    real = WindowNetwork.planes

    def planes(self, engine, *given):
        threads.add(engine.threads)
        return real(self, engine, *given)

    monkeypatch.setattr(WindowNetwork, "planes", planes)
    found = list(restorer.stream(frames))
    assert [frame.pts for frame in found] == list(range(12))
    assert threads == {3, 2, 4}
    for a, b in zip(frames, found, strict=True):
        assert a.planes[0].shape == b.planes[0].shape
        assert not np.array_equal(a.planes[0], b.planes[0])


@needs_llvm
def test_lanes_of_unlike_numbers_of_threads_have_the_same_frames_in_every_run(monkeypatch):
    """What a frame's last bits are depends on its lane, and must not on which one is quicker."""
    torch.manual_seed(0)
    network = make_network(width=8, patch=2, frames=1)
    restorer = Restorer(network, device="cpu", engine="llvm", is_filtered=False)
    engine = type(restorer.engine.engine)(network, restorer.engine.engine._kernels.machine, 3)
    restorer.engine = SelectedEngine(engine, "llvm", "for a test")
    random = np.random.default_rng(0)
    planes = random.integers(0, 255, (9, 3, 64, 96), np.uint8)
    frames = [
        Frame(tuple(each), LAYOUT, pts=index, time_base=1, full_range=True, is_still=True)
        for index, each in enumerate(planes)
    ]
    real, lanes = WindowNetwork.planes, {}

    def slowed(self, engine, window, seen, *, slow):
        lanes[window.frame.pts] = engine.threads
        time.sleep(0.1 * (engine.threads == slow))
        return real(self, engine, window, seen)

    for slow in (1, 2):
        monkeypatch.setattr(WindowNetwork, "planes", partialmethod(slowed, slow=slow))
        assert len(list(restorer.stream(frames))) == len(frames)
        # one of three threads has a third of the frames
        assert [lanes[index] for index in range(9)] == [2, 1, 2, 2, 1, 2, 2, 1, 2]


@needs_llvm
def test_the_engine_has_two_lanes_that_restore_as_it_does():
    torch.manual_seed(0)
    sizes = {"width": 16, "patch": 2, "frames": 3, "align": True}
    network = make_network(**sizes, encoder_blocks=(1,) * 4, group_blocks=(1,) * 4)
    torch.nn.init.normal_(network.ending.weight, std=0.02)
    restorer = Restorer(network, device="cpu", engine="llvm")
    kind, machine = type(restorer.engine.engine), restorer.engine.engine._kernels.machine
    engine, alone = kind(network, machine, 3), kind(network, machine, 1)
    restorer.engine = SelectedEngine(engine, "llvm", "for a test")
    assert engine.lanes(1 << 24) == (engine,) and alone.lanes(96 * 128) == (alone,)
    lanes = engine.lanes(96 * 128)
    assert [lane.threads for lane in lanes] == [2, 1] and engine.lanes(64 * 64) is lanes
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (3, 96, 140), np.uint8)
    frames = [
        Frame(tuple(noise[:, :, 2 * i : 2 * i + 128]), LAYOUT, pts=i, time_base=1, full_range=True)
        for i in range(6)
    ]
    with torch.inference_mode():  # which is a thread's own
        found = list(restorer.stream(frames))
    for index, frame in enumerate(found):
        wanted = restorer.restore_frame(frames, index)
        for plane, other in zip(frame.planes, wanted.planes, strict=True):
            assert np.abs(plane.astype(int) - other).max() <= 1
    changes = [np.abs(a.planes[0].astype(int) - b.planes[0]).mean() for a, b in pairwise(found)]
    assert min(changes) > 1
