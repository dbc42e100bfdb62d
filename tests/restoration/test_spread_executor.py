"""One clip on several devices, which the CPU plays: the results of one, and its order."""

import queue
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_gpu_pipeline import FakeBackend, Plain, Quiet, frames_of, windows_of
from test_llvm_engine import make_network
from test_restorer import gray_frame
from waiting import SECONDS, is_waiting_in, wait_until

from mhnet_video.config import LiveConfig
from mhnet_video.errors import ConfigError, MHNetVideoError
from mhnet_video.frame import Pair
from mhnet_video.restoration import restorer as restorer_module
from mhnet_video.restoration.executors import Counts
from mhnet_video.restoration.gpu_executor import GpuExecutor
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.spread_executor import SpreadExecutor

CPU = torch.device("cpu")
SMALL = {"encoder_blocks": (1, 1, 1, 1), "group_blocks": (1,) * 4}


def threads():
    return [each for each in threading.enumerate() if each.name.startswith("mhnet-video cpu")]


def through(executor, windows):
    pairs = []
    for window in windows:
        pairs += executor.push(window)
    pairs += executor.flush()
    executor.close()
    assert not threads()
    return pairs


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [2, 3])
def test_several_devices_give_what_one_gives(monkeypatch, count, seed):
    order = random.Random(seed)
    frames = frames_of(40)
    for index in range(1, 40):
        if order.random() < 0.3:  # some repeat the one before
            frames[index] = replace(frames[index - 1], pts=index)
    engine = Quiet(monkeypatch, most=10**9)

    def piped(number):
        # each on a device of its own, which does its work when it likes
        return GpuExecutor(engine, Plain(engine.network), backend=FakeBackend(seed + number))

    one = piped(0)
    expected = through(one, windows_of(frames, 3))
    several = SpreadExecutor([(CPU, piped(number)) for number in range(count)])
    found = through(several, windows_of(frames, 3))
    assert [pair.source.pts for pair in found] == list(range(40))
    for a, b in zip(found, expected, strict=True):
        assert a.source is b.source
        assert all(map(np.array_equal, a.restored.planes, b.restored.planes))
    assert several.counts == one.counts and one.counts.repeated > 0


def test_a_restorer_on_several_devices_filters_one_clip(monkeypatch):
    network = make_network(width=4, heads=4, frames=3, patch=2, **SMALL)
    rain, slope = np.random.default_rng(0), 90 + np.arange(96)
    frames = []
    for index in range(14):
        frame = gray_frame(128, index, size=(64, 96))
        luma = (slope + rain.integers(0, 9, (64, 96))).astype(np.uint8)
        frames.append(replace(frame, planes=(luma, *frame.planes[1:])))
    expected = list(Restorer(network, device="cpu", engine="torch").stream(frames))
    unfiltered = Restorer(network, device="cpu", engine="torch", is_filtered=False)
    assert any(
        (a.planes[0] != b.planes[0]).any()
        for a, b in zip(expected, unfiltered.stream(frames), strict=True)
    )
    monkeypatch.setattr(restorer_module, "usable_devices", lambda name: (CPU,) * 3)
    several = Restorer(network, device="three", engine="torch")
    for _ in range(2):
        found = list(several.stream(frames))
        assert [frame.pts for frame in found] == list(range(14))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.planes[0], b.planes[0])
    assert several.gpu is None and several.devices == (CPU,) * 3
    assert not threads()


class Device:
    """An executor that does what a test wants at each window."""

    has_failed = False

    def __init__(self, work=lambda window: None):
        self.counts = Counts()
        self.images, self.work, self.flushed = [], work, 0

    def push(self, window):
        self.images.append(window.images)
        self.work(window)
        yield Pair(window.frame, window.frame)

    def flush(self):
        self.flushed += 1
        return iter(())

    def close(self):
        pass


def test_devices_work_side_by_side_and_share_nothing():
    meeting = threading.Barrier(2, timeout=SECONDS)
    devices = [Device(lambda window: meeting.wait()) for _ in range(2)]
    frames = frames_of(12)
    pairs = through(SpreadExecutor([(CPU, each) for each in devices]), windows_of(frames, 3))
    assert [pair.source.pts for pair in pairs] == list(range(12))
    # every frame is on both, as a picture that is kept for the next window
    seen = [{id(i): i.frame.pts for images in d.images for i in images} for d in devices]
    assert not seen[0].keys() & seen[1].keys()
    assert [sorted(each.values()) for each in seen] == [list(range(12))] * 2


def test_an_error_of_one_ends_all_after_the_frames_before_it():
    def fails(window):
        if window.frame.pts == 5:
            raise RuntimeError("CUDA error: an illegal memory access\nmore")

    executor = SpreadExecutor([(CPU, Device(fails)), (CPU, Device(fails))])
    found = []
    with pytest.raises(MHNetVideoError) as caught:
        for window in windows_of(frames_of(60), 3):
            found.extend(executor.push(window))
        found.extend(executor.flush())
    assert str(caught.value) == (
        "cpu failed (CUDA error: an illegal memory access); leave it out of --device."
    )
    assert [pair.source.pts for pair in found] == list(range(len(found)))
    assert len(found) <= 5
    with pytest.raises(MHNetVideoError):
        list(executor.flush())
    executor.close()
    executor.close()
    assert not threads()


def test_errors_for_people_stay_what_they_are():
    def fails(window):
        raise ConfigError("the picture is too large.")

    executor = SpreadExecutor([(CPU, Device()), (CPU, Device(fails))])
    with pytest.raises(ConfigError, match="too large"):
        through(executor, windows_of(frames_of(9), 3))
    executor.close()


def test_a_slow_device_holds_the_caller_back():
    gate, taken = threading.Event(), []

    def wait(window):
        assert gate.wait(SECONDS)

    executor = SpreadExecutor([(CPU, Device()), (CPU, Device(wait))])
    pairs = []

    def push():
        for window in windows_of(frames_of(40), 3):
            taken.append(window)
            pairs.extend(executor.push(window))
        pairs.extend(executor.flush())

    caller = threading.Thread(target=push)
    caller.start()
    wait_until(lambda: is_waiting_in(caller, queue.Queue.put))
    # one at work, two that wait, one that is to be put, and as many on the other device
    assert len(taken) <= 8 and len(pairs) <= 1
    gate.set()
    caller.join(SECONDS)
    executor.close()
    assert [pair.source.pts for pair in pairs] == list(range(40))


@pytest.mark.parametrize("count", [1, 2])
def test_a_picture_that_stands_still_does_not_wait_for_ever(monkeypatch, count):
    engine = Quiet(monkeypatch, most=10**9)
    made = [GpuExecutor(engine, Plain(engine.network), backend=FakeBackend(n)) for n in range(2)]
    executor = made[0] if count == 1 else SpreadExecutor([(CPU, each) for each in made])
    frames = [replace(frame, full_range=False) for frame in frames_of(5)]
    windows = list(windows_of(frames, 1))
    pushed, found = 0, 0
    for window in windows:
        found += len(list(executor.push(window)))
        pushed += 1

    def waits_for_few():
        nonlocal pushed, found
        pushed += 1
        found += len(list(executor.push(windows[-1])))
        return pushed > 50 and pushed - found < 20

    wait_until(waits_for_few)
    assert found + len(list(executor.flush())) == pushed
    executor.close()


def test_what_several_devices_do_not_do(monkeypatch):
    monkeypatch.setattr(restorer_module, "usable_devices", lambda name: (CPU, CPU))
    network = make_network(width=4, heads=4, frames=3, patch=2, glass=True, **SMALL)
    network.task = "raindrop"
    with pytest.raises(ConfigError, match=r"drops on the glass.* one device must see every frame"):
        Restorer(network, task="raindrop", engine="torch")
    with pytest.raises(ConfigError, match="on one device; name one of cuda:0,cuda:1"):
        LiveConfig(device="cuda:0,cuda:1")
