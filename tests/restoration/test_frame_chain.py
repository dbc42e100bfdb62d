"""One way for a frame: a file, an iterator and single pictures come out the same."""

from dataclasses import replace
from typing import ClassVar

import av
import cv2
import numpy as np
import pytest
import torch
from launch_count import LaunchCount
from test_hwaccel import device_frame
from test_temporal_average import frame

from mhnet_video import RestoreConfig, Restorer, restore_video
from mhnet_video.config import Settings
from mhnet_video.restoration import temporal_window
from mhnet_video.restoration.executors import Counts
from mhnet_video.restoration.frame_chain import FrameChain
from mhnet_video.restoration.working_scale import ScaleChooser

NETWORK = {"model": "realtime", "device": "cpu", "engine": "torch"}


def film():
    """RGB pictures: rain before a camera at rest, copies coded anew, a cut, a camera that pans."""
    random = np.random.default_rng(0)

    def scene(seed):
        coarse = np.random.default_rng(seed).uniform(40, 200, (12, 20, 3)).astype(np.float32)
        return cv2.resize(coarse, (320, 96), interpolation=cv2.INTER_CUBIC)

    def rain(picture):
        picture = picture.copy()
        for _ in range(12):
            x, y = random.integers(0, 128), random.integers(0, 80)
            picture[y : y + 14, x : x + 1] += 70
        return np.clip(picture + random.normal(0, 1, picture.shape), 0, 255).astype(np.uint8)

    at_rest = [rain(scene(1)[:, :128]) for _ in range(16)]
    panned = [rain(scene(2)[:, 6 * i : 6 * i + 128]) for i in range(16)]
    # the last ones twice, as a raised frame rate has them
    return at_rest + [each for picture in panned for each in (picture, picture)]


@pytest.fixture(scope="module")
def pictures():
    return film()


@pytest.fixture(scope="module")
def restored_file(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    with av.open(str(folder / "in.avi"), "w") as container:
        stream = container.add_stream("utvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "gbrp"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    # of one lane, so that what comes out is the same to the bit
    config = RestoreConfig(**NETWORK, encoder="utvideo")
    report = restore_video(folder / "in.avi", folder / "out.avi", config)
    assert report.pixel_format == "gbrp"
    with av.open(str(folder / "out.avi")) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def differences(found, expected):
    return [int(np.abs(a.astype(int) - b).max()) for a, b in zip(found, expected, strict=True)]


@pytest.mark.slow
def test_pushed_pictures_come_out_as_those_of_a_file(pictures, restored_file):
    restorer = Restorer(**NETWORK)
    pushed = [out for picture in pictures for out in restorer.push(picture)] + restorer.flush()
    assert max(differences(pushed, restored_file)) == 0
    assert max(differences(restorer.restore(pictures), restored_file)) == 0


@pytest.mark.slow
def test_cuts_copies_and_the_temporal_filter_count_for_pushed_pictures(pictures, restored_file):
    """What a detector would get without each of them is something else."""
    assert min(differences(pictures, restored_file)) > 20
    unfiltered = Restorer(**NETWORK, is_filtered=False)
    assert max(differences(unfiltered.restore(pictures), restored_file)[:16]) > 1
    # one by one there are no neighbours
    alone = [next(iter(unfiltered.restore([picture]))) for picture in pictures[:3]]
    assert min(differences(alone, restored_file[:3])) > 1
    # beyond the cut, and as neighbours of each other
    restorer = Restorer(**NETWORK)
    second = list(restorer.restore(pictures[16:]))
    assert max(differences(second, restored_file[16:])) == 0
    single = list(restorer.restore(pictures[16::2]))
    assert max(differences(single, restored_file[16::2])) == 0


def test_whole_pictures_are_compared_only_where_some_samples_are_equal(monkeypatch):
    """Every comparison of frames that a GPU has decoded waits for it."""
    compared = []

    def have_equal_samples(a, b):
        compared.append(b.pts)
        return real(a, b)

    real = temporal_window.have_equal_samples
    monkeypatch.setattr(temporal_window, "have_equal_samples", have_equal_samples)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 96), np.uint8) for _ in range(20)]
    pictures[7] = pictures[6].copy()
    pictures[9] = pictures[8].copy()
    pictures[9][1, 1] ^= 1  # not one of those that are looked at first
    restored = []
    for index, picture in enumerate(pictures):
        planes = picture, picture[::2, ::2].copy(), picture[::2, ::2].copy()
        restored.append(replace(device_frame(frame(planes, "yuv")), pts=index))

    class Counting:
        counts = Counts()
        windows: ClassVar = []

        def push(self, window):
            self.windows.append(window)
            return iter(())

        def flush(self):
            return iter(())

    chain = FrameChain(3, Counting(), ScaleChooser(torch.device("cuda")))
    with LaunchCount() as count:
        for each in restored:
            list(chain.push(each, Settings()))
    list(chain.flush())
    assert compared == [7, 9]
    # for each frame its difference to the one before, and for these two all samples
    assert count.waits <= len(pictures) - 1 + 2 * 2
    middles = [window.middle for window in Counting.windows]
    assert len({id(each) for each in middles}) == 19
    assert middles[7] is middles[6] and middles[9] is not middles[8]
