"""A virtual camera, by a stand-in for the module that has the device."""

import sys
import types

import numpy as np
import pytest
from test_session import QUIET, live_frame, make_clip
from waiting import wait_until

from mhnet_video.config import LiveConfig
from mhnet_video.errors import ConfigError, WriteError
from mhnet_video.live.virtual_camera import VirtualCamera
from mhnet_video.pipelines.live import run_live

pytestmark = pytest.mark.beside


@pytest.fixture
def shown(monkeypatch):
    """What the device shows: its size, then pictures, then that it is closed."""
    said = []

    class Camera:
        def __init__(self, width, height, fps, *, device, fmt):
            if device != "/dev/video9":
                raise RuntimeError(f"'v4l2loopback' backend: Device {device} does not exist.")
            assert fmt == "I420"
            self.num_bytes = width * height * 3 // 2
            said.append((width, height, fps))

        def send(self, picture):
            assert picture.dtype == np.uint8 and picture.shape == (self.num_bytes,)
            said.append(picture)

        def close(self):
            said.append("closed")

    module = types.ModuleType("pyvirtualcam")
    module.Camera, module.PixelFormat = Camera, types.SimpleNamespace(I420="I420")
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    return said


def test_frames_are_shown_at_the_size_of_the_first(shown):
    camera = VirtualCamera("/dev/video9", fps=25)
    camera.put(live_frame(0, 60))
    wait_until(lambda: camera.frames == 1)
    camera.put(live_frame(0.04, 200, size=(128, 48)))
    wait_until(lambda: camera.frames == 2)
    camera.close()
    size, first, second, closed = shown
    assert size == (64, 48, 25) and closed == "closed" and camera.error is None
    luma = first[: 64 * 48].reshape(48, 64)
    assert np.abs(luma.astype(int) - 60).max() <= 1 and set(first[64 * 48 :]) == {128}
    luma = second[: 64 * 48].reshape(48, 64).astype(int)
    assert set(luma[:8].flat) == {16} and np.abs(luma[16:32] - 200).max() <= 4


def test_a_device_that_is_none_ends_the_run(tmp_path, standin, shown):
    clip = make_clip(tmp_path, range(0, 2000, 40))
    outputs = type(QUIET)(has_window=False, output="v4l2:/dev/video7")
    with pytest.raises(WriteError) as caught:
        run_live(clip, LiveConfig(loop=True, scale=1.0), outputs)
    assert str(caught.value) == (
        "/dev/video7 cannot be made a camera (Device /dev/video7 does not exist); load the module "
        "v4l2loopback, and see that no other program writes to the device."
    )


def test_without_the_extra_it_says_what_to_install(tmp_path, standin, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    clip = make_clip(tmp_path, range(0, 400, 40))
    outputs = type(QUIET)(has_window=False, output="v4l2:/dev/video9")
    with pytest.raises(ConfigError, match=r"pip install 'mhnet-video\[camera\]'"):
        run_live(clip, LiveConfig(scale=1.0), outputs)
