"""Whether drops stand on the glass before the camera while another network restores a clip.

A few windows of the clip are kept on their way. At the end a network that takes out drops restores
them too. What it makes brighter at the same place in most of them, and the other network does not,
are drops. Streaks are elsewhere in the next window, and what it mistakes in a scene mostly moves
on. Only what was darkened counts: a drop shows the scene upside down, and so darkens much of what
is behind it. Rain in the air and wet leaves that shine only add light.
"""

import logging
from collections.abc import Callable, Generator
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mhnet_video.color_spaces import LUMA_WEIGHTS
from mhnet_video.errors import first_line
from mhnet_video.frame import Frame, Pair
from mhnet_video.media.frames.device_frames import on_host
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.rgb_frames import frame_of
from mhnet_video.restoration.window_network import upright_rgb

T = TypeVar("T")

_log = logging.getLogger(__name__)

MODEL = "windscreen-realtime"
"""The network that is asked."""
LEAST_SHARE = 0.015
"""Share of the picture darkened from which on there are drops. docs/training.md has clips' own."""
_LEVELS = 4.0
"""Levels of 8 bits by which the network brightens what a drop has darkened, at least."""
_KNOWN_LEVELS = 2.0
"""Levels from which on the other network has changed something itself."""
_NEAR = 2
"""How far around that is taken for changed by it, too, in pixels."""
_ROWS = 480
"""Shorter side, in pixels, to which larger pictures are shrunk: drops have the size that the
network knows from training."""
_LEAST_ROWS = 144
"""Shorter side of the smallest pictures that are looked at."""
_FRAMES = 5
"""Frames of a window."""
_DISTANCE = 4
"""Frames from one of a window to the next."""
_FIRST_STEP = 8
"""Frames from the beginning of a window to that of the next; doubled as the clip goes on."""
_MOST_WINDOWS = 4
"""Windows that are kept. With 854x480 pixels each takes 6 MB."""
_LEAST_WINDOWS = 3
"""Of fewer windows nothing can be said."""

Picture = NDArray[np.uint8]
"""RGB, `[h, w, 3]`."""


class _Window:
    """Frames of a window, and the luma that was added to the middle one."""

    def __init__(self) -> None:
        self.sources: list[Picture] = []
        self.added: NDArray[np.float32] | None = None


class DropWatch:
    """Keeps a few windows of a clip whose pairs pass, and judges them.

    Args:
        make_room: Called before another network is loaded, to give back memory.
    """

    def __init__(self, make_room: Callable[[], None] = lambda: None) -> None:
        self._make_room = make_room
        self._step = _FIRST_STEP
        self._count = 0
        self._open: dict[int, _Window] = {}
        self._kept: dict[int, _Window] = {}

    def watch(self, pairs: Generator[Pair | T]) -> Generator[Pair | T]:
        """Take note of pairs as they pass.

        Args:
            pairs: Frames as they were and restored, and anything else.
        """
        self._open.clear()  # another part of the clip begins
        try:
            for item in pairs:
                if isinstance(item, Pair):
                    self._note(item)
                yield item
        finally:
            pairs.close()

    def share(self) -> float | None:
        """Share of the picture that drops darken, 0 to 1.

        Returns:
            None where nothing can be said: the clip is too short or too small.

        Raises:
            MHNetVideoError: There is no network that takes out drops, or too little memory.
        """
        windows = list(self._kept.values())
        if len(windows) < _LEAST_WINDOWS:
            return None
        self._make_room()
        restorer = Restorer(MODEL, device="cpu", scale=1.0, is_filtered=False)
        beyond = np.stack([_beyond(restorer, window) for window in windows])
        return float(np.mean(np.median(beyond, axis=0) >= _LEVELS))

    def sees_drops(self) -> bool:
        """Whether there are many; False where that cannot be told, which the log says."""
        try:
            share = self.share()
        except Exception as error:  # the clip is restored, and nobody has asked for this look
            _log.warning("not looked for drops on the glass (%s)", first_line(error))
            return False
        return share is not None and share >= LEAST_SHARE

    def _note(self, pair: Pair) -> None:
        index, self._count = self._count, self._count + 1
        frame = pair.source
        if min(frame.height, frame.width) < _LEAST_ROWS:
            return
        if index % self._step == 0:
            self._open[index] = _Window()
        picture: Picture | None = None
        for begin, window in list(self._open.items()):
            if (index - begin) % _DISTANCE:
                continue
            if picture is None:
                picture = _picture(pair.source)
            window.sources.append(picture)
            if len(window.sources) == _FRAMES // 2 + 1:
                window.added = _luma(_picture(pair.restored)) - _luma(picture)
            if len(window.sources) == _FRAMES:
                self._keep(begin, self._open.pop(begin))

    def _keep(self, begin: int, window: _Window) -> None:
        sizes = {picture.shape for picture in window.sources}
        sizes |= {each.sources[0].shape for each in self._kept.values()}
        if len(sizes) > 1:  # the clip goes on in another size
            self._kept.clear()
        if len({picture.shape for picture in window.sources}) > 1:
            return
        self._kept[begin] = window
        if len(self._kept) > _MOST_WINDOWS:
            self._step *= 2
            for windows in (self._kept, self._open):
                for each in [begin for begin in windows if begin % self._step]:
                    del windows[each]


def _beyond(restorer: Restorer, window: _Window) -> NDArray[np.float32]:
    """The luma that the network adds to a window's middle frame where the other adds none."""
    frames = [frame_of(picture, index) for index, picture in enumerate(window.sources)]
    middle = _FRAMES // 2
    green, blue, red = restorer.restore_frame(frames, middle).planes
    found = _luma(np.stack([red, green, blue], axis=2)) - _luma(window.sources[middle])
    known = window.added
    assert known is not None
    # the edges of what the other one changed are its own as well
    changed = torch.from_numpy((np.abs(known) >= _KNOWN_LEVELS).astype(np.float32))
    near = F.max_pool2d(changed[None, None], 2 * _NEAR + 1, stride=1, padding=_NEAR)[0, 0]
    return np.where(near.numpy() > 0, np.float32(0), found)


def _picture(frame: Frame) -> Picture:
    """A frame as it is shown, its shorter side `_ROWS` pixels at most."""
    scale = min(1.0, _ROWS / min(frame.height, frame.width))
    rgb = upright_rgb(on_host(frame), scale, torch.device("cpu"))
    return (rgb * 255).round_().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _luma(picture: Picture) -> NDArray[np.float32]:
    """The luma of a picture, in levels of 8 bits, `[h, w]`."""
    return picture.astype(np.float32) @ np.array(LUMA_WEIGHTS["bt601"], np.float32)
