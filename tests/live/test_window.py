"""What is shown and what keys do, and a real window on a virtual screen with real events."""

import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import processes
import pytest
from clips import Clip, Video, every
from standin import inverted
from test_session import live_frame
from waiting import SECONDS

from mhnet_video.config import VIEWS
from mhnet_video.live.rendering import JpegEncoder, Painter, View, fit

HERE = Path(__file__).parents[1]

# without a screen


def test_views():
    before, after = np.full((4, 10, 3), 50, np.uint8), np.full((4, 10, 3), 200, np.uint8)
    view = View()
    picture = view.compose(before, after)
    assert (picture[:, :4] == 50).all() and (picture[:, 6:] == 200).all()
    assert (picture[:, 4:6] == 255).all()
    view.drag(0.2)
    assert (view.compose(before, after)[:, 3:] == 200).all()
    seen = [view.mode]
    for _ in range(4):
        view.press("s")
        seen.append(view.mode)
    assert seen == [*VIEWS, VIEWS[0]]
    sides = View(mode="side").compose(before, after)
    assert sides.shape == (4, 20, 3) and sides[0, 9, 0] == 50 and sides[0, 10, 0] == 200
    assert (View(mode="before").compose(before, after) == 50).all()
    assert (View(mode="after").compose(before, after) == 200).all()
    assert (before == 50).all() and (after == 200).all()


def test_keys():
    view = View()
    for key in ("-", "-", "+", "r", "m"):
        assert view.press(key)
    assert view.strength == 0.9
    assert view.wishes == ["strength", "strength", "strength", "record", "model"]
    for _ in range(20):
        view.press("-")
    assert view.strength == 0
    view.press(" ")
    view.press("i")
    assert view.is_frozen and not view.has_statistics
    for _ in range(40):
        view.press("left")
    assert view.divider == 0
    view.drag(7)
    assert view.divider == 1
    assert not view.press("x") and not view.press("")
    for key in ("q", "escape"):
        quitting = View()
        quitting.press(key)
        assert quitting.wishes == ["quit"]


@pytest.mark.parametrize(
    ("size", "into", "expected"),
    [
        ((640, 480), (1280, 720), (960, 720)),
        ((1080, 1920), (1280, 720), (404, 720)),
        ((3840, 2160), (1280, 720), (1280, 720)),
        ((16, 16), (2, 2), (2, 2)),
    ],
)
def test_the_aspect_is_kept(size, into, expected):
    assert fit(*size, into) == expected


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_frames_are_painted_upright(rotation):
    """The corner that a player shows top left is dark in all of them."""
    frame = live_frame(0, 200, rotation=rotation)
    corner = {0: (0, 0), 90: (-1, 0), 180: (-1, -1), 270: (0, -1)}[rotation]
    rows = slice(0, 12) if corner[0] == 0 else slice(-12, None)
    columns = slice(0, 12) if corner[1] == 0 else slice(-12, None)
    frame.planes[0][rows, columns] = 30
    size = frame.upright_size
    assert size == ((64, 48) if rotation % 180 == 0 else (48, 64))
    (picture,) = Painter("bgr24").paint(frame)
    assert picture.shape == (size[1], size[0], 3)
    assert picture[:10, :10].max() < 40 and picture[20:, 20:].min() > 190
    planes = Painter("yuvj420p").paint(frame, (32, 32))
    assert [plane.shape for plane in planes] == [(32, 32), (16, 16), (16, 16)]
    assert planes[0][:4, :4].max() < 50


def test_colours_are_those_of_the_source():
    """A saturated red through both matrices and ranges, to RGB and to JPEG."""
    for matrix, full in [("bt601", False), ("bt709", False), ("bt601", True)]:
        red, blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
        y, cb, cr = red, -red / (2 * (1 - blue)), 0.5
        scale = (0, 255, 255) if full else (16, 219, 224)
        samples = [scale[0] + scale[1] * y, 128 + scale[2] * cb, 128 + scale[2] * cr]
        frame = live_frame(0)
        planes = tuple(
            np.full(plane.shape, min(255, round(value)), np.uint8)
            for plane, value in zip(frame.planes, samples, strict=True)
        )
        frame = replace(frame, planes=planes, matrix=matrix, full_range=full)
        (rgb,) = Painter("rgb24").paint(frame)
        assert np.abs(rgb[20, 20].astype(int) - [255, 0, 0]).max() <= 4
        jpeg = JpegEncoder().encode([frame, inverted(frame)], (64, 48))
        codec = av.CodecContext.create("mjpeg", "r")
        (picture,) = codec.decode(av.Packet(jpeg))
        shown = picture.to_ndarray(format="rgb24")
        assert shown.shape == (48, 128, 3)
        assert np.abs(shown[20, 20].astype(int) - [255, 0, 0]).max() <= 8


# with one

needs_screen = pytest.mark.skipif(
    not all(map(shutil.which, ("Xvfb", "xdotool", "import"))),
    reason="no Xvfb, xdotool and ImageMagick",
)


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    """A virtual screen; gives its environment."""
    read, write = os.pipe()
    server = processes.start(
        # -r: on a busy machine a key may be let go late, and would repeat itself
        ["Xvfb", "-displayfd", str(write), "-noreset", "-r", "-screen", "0", "1024x768x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
        is_lasting=True,
    )
    os.close(write)
    try:
        with os.fdopen(read) as told:
            assert select.select([told], [], [], 60)[0], "Xvfb does not start"
            number = told.readline().strip()
        assert number, "Xvfb has ended"
        yield os.environ | {"DISPLAY": f":{number}"}
    finally:
        server.terminate()  # it takes its lock away
        server.wait(30)
        processes.end(server)


class Shown:
    """The program with a window on the virtual screen."""

    def __init__(self, screen, folder, *words):
        code = (
            "import sys; import mhnet_video.live.display; sys.path.insert(0, sys.argv[1])\n"
            "import mhnet_video.live.adaptive_restorer; from standin import LiveStandIn\n"
            "mhnet_video.live.adaptive_restorer.Restorer = lambda *_, **__: LiveStandIn()\n"
            "from mhnet_video.cli.main import main; sys.exit(main(['live', *sys.argv[2:]]))\n"
        )
        self.screen, self.folder = screen, folder
        self.process = processes.start(
            [sys.executable, "-c", code, str(HERE), *words, "--scale", "1"],
            env=screen | {"PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.window = self.wait_for(lambda: self.tool("search", "--name", "mhnet-video live"))
        self.wait_for(self.is_drawn)
        self.tool("windowfocus", self.window)

    def is_drawn(self):
        """Whether the window is not black.

        On a busy machine Qt may miss that its window was mapped, and then draws nothing until the
        window is mapped again. There is no window manager here, which would let a person do so.
        """
        if self.picture().any():
            return True
        time.sleep(1)
        if self.picture().any():
            return True
        self.tool("windowunmap", self.window, "windowmap", self.window)
        return False

    def tool(self, *words):
        done = subprocess.run(
            ["xdotool", *words], env=self.screen, capture_output=True, text=True, timeout=20
        )
        return done.stdout.strip()

    def key(self, name):
        """Press a key; what it does is to be waited for before the next one.

        OpenCV knows only the last of the keys that come between two looks at them, and a machine
        with much to do may look late.
        """
        self.tool("key", name)

    def press_until(self, name, what):
        """Press a key every so often, until something has come about."""

        def pressed():
            self.key(name)
            time.sleep(0.15)
            return what()

        self.wait_for(pressed)

    def close(self):
        """Press the window's close button, as a window manager tells it."""
        command = [sys.executable, HERE / "close_window.py", self.window]
        subprocess.run(command, env=self.screen, check=True, timeout=60)

    def picture(self):
        """What is in the window, RGB."""
        path = self.folder / "shot.png"
        subprocess.run(
            ["import", "-window", self.window, str(path)], env=self.screen, check=True, timeout=20
        )
        with av.open(str(path)) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)

    def wait_for(self, what, seconds=SECONDS):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(self.process.communicate(timeout=SECONDS))
            if result := what():
                return result
            time.sleep(0.1)
        raise AssertionError("it did not come about")

    def halves(self):
        """The mean of the picture's left and right parts, without statistics and labels."""
        picture = self.picture()
        rows = slice(picture.shape[0] // 2, picture.shape[0] - 45)
        width = picture.shape[1]
        left = picture[rows, width // 10 : width // 3].mean()
        return left, picture[rows, 2 * width // 3 : -width // 10].mean()


def dark_clip(folder):
    """Dark pictures, which the stand-in makes bright."""
    path = folder / "dark.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 40, np.uint8), "rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return str(path)


@needs_screen
@pytest.mark.slow
def test_a_window_with_keys_and_mouse(screen, tmp_path):
    shown = Shown(screen, tmp_path, dark_clip(tmp_path), "--loop")
    try:
        # split: dark before, bright after
        shown.wait_for(lambda: shown.halves()[0] < 60 < 190 < shown.halves()[1])
        geometry = dict(
            line.split("=")
            for line in shown.tool("getwindowgeometry", "--shell", shown.window).split()
        )
        width, height = int(geometry["WIDTH"]), int(geometry["HEIGHT"])
        assert abs(width / height - 320 / 240) < 0.05 and width <= 1024 and height <= 768
        # the line goes where it is dragged
        middle = str(height // 2)
        drag = ["mousemove", "--window", shown.window]
        shown.tool(*drag, str(width // 2), middle, "mousedown", "1", "sleep", "0.2")
        shown.tool(*drag, str(width - 5), middle, "sleep", "0.2", "mouseup", "1")
        shown.wait_for(lambda: max(shown.halves()) < 60)
        # side by side, then after alone, then before alone
        shown.key("s")
        shown.wait_for(lambda: shown.halves()[0] < 60 < 190 < shown.halves()[1])
        shown.key("s")
        shown.wait_for(lambda: min(shown.halves()) > 190)
        # the statistics are bright text on a dark box, and go away
        statistics = slice(8, 40), slice(8, 150)
        assert shown.picture()[statistics].min() < 100
        shown.key("i")
        shown.wait_for(lambda: shown.picture()[statistics].min() > 190)
        # a frozen picture does not change, and the statistics have a third line that says so
        third = slice(58, 62), slice(8, 150)
        shown.key("i")
        shown.wait_for(lambda: shown.picture()[statistics].min() < 100)
        # what was said at the start has stood there for its time
        shown.wait_for(lambda: shown.picture()[third].min() > 190)
        shown.key("space")
        shown.wait_for(lambda: shown.picture()[third].min() < 100)
        # without strength nothing is done
        for _ in range(12):
            shown.key("minus")
            time.sleep(0.15)
        assert min(shown.halves()) > 190
        shown.key("space")
        shown.press_until("minus", lambda: max(shown.halves()) < 60)
        assert shown.picture()[third].max() < 100
        shown.key("space")
        shown.wait_for(lambda: shown.picture()[third].max() > 100)
        for _ in range(12):
            shown.key("plus")
            time.sleep(0.15)
        assert max(shown.halves()) < 60  # frozen
        shown.key("space")
        shown.wait_for(lambda: min(shown.halves()) > 190)
        shown.key("r")
        shown.wait_for(lambda: list(tmp_path.glob("mhnet-video-*.partial.mp4")))
        shown.key("r")
        shown.wait_for(lambda: list(tmp_path.glob("mhnet-video-*[0-9].mp4")))
        shown.key("q")
        out, err = shown.process.communicate(timeout=SECONDS)
        assert shown.process.returncode == 0 and "frames restored" in out
        assert "Traceback" not in err and "QFont" not in err
    finally:
        processes.end(shown.process)


@needs_screen
@pytest.mark.slow
def test_closing_the_window_ends_it(screen, tmp_path):
    clip = Clip(video=(Video(times=every(40, 25), width=160, height=120),)).make(tmp_path)
    shown = Shown(screen, tmp_path, str(clip), "--loop", "--view", "after")
    try:
        time.sleep(1)
        shown.close()
        shown.process.communicate(timeout=SECONDS)
        assert shown.process.returncode == 0
    finally:
        processes.end(shown.process)


def test_a_screen_that_is_not_there(monkeypatch):
    from mhnet_video.errors import MHNetVideoError
    from mhnet_video.live.display import check_screen

    monkeypatch.setattr("mhnet_video.live.display._IS_LATE", False)
    monkeypatch.setenv("DISPLAY", ":4242")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(MHNetVideoError, match="--serve 8080 shows the picture in a browser"):
        check_screen()
