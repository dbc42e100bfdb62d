"""The desktop window of live mode: the picture, its divider, keys and statistics."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhnet_video.live.display import screen_size
from mhnet_video.live.live_frame import LiveFrame
from mhnet_video.live.rendering import Painter, View, fit

_TITLE = "mhnet-video live"
"""Title of the window, by which OpenCV knows it."""
_SCREEN_SHARE = 0.9
"""Share of the screen's sides that the window has at most."""
_KEYS = {
    27: "escape",
    65361: "left",
    65363: "right",
    2424832: "left",
    2555904: "right",
    63234: "left",
    63235: "right",
}
"""OpenCV's key codes on X11, Windows and macOS."""
_FONT_SIZE = 0.48
"""Scale of OpenCV's font."""
_EDGE = 8
"""Pixels between text and the edges."""
_ABOVE_LABELS = 37
"""Height of the labels in the lower corners, in pixels."""
_RED, _WHITE = (60, 60, 235), (255, 255, 255)
"""BGR."""


class LiveWindow:
    """A window of OpenCV, for the main thread only.

    Args:
        view: What is shown; keys and mouse change it.
    """

    def __init__(self, view: View) -> None:
        import cv2

        self._cv2: Any = cv2
        self.view = view
        self._painter = Painter("bgr24")
        self._is_open = False
        self._frame: LiveFrame | None = None
        self._shape = (0, 0)
        self._left, self._width = 0, 1
        self._is_dragging = False

    def show(self, frame: LiveFrame | None, lines: Sequence[str], banner: str) -> None:
        """Draw.

        Args:
            frame: The newest frame; ignored while the picture is frozen; None before the first.
            lines: The statistics.
            banner: What is wrong with the source; empty if nothing is.
        """
        if self._is_closed():
            return  # showing would open it again
        if frame is not None and (not self.view.is_frozen or self._frame is None):
            self._frame = frame
        width, height = (640, 360) if self._frame is None else self._frame.after.upright_size
        self._open(width, height)
        if self._frame is None:
            picture = np.full((360, 640, 3), 24, np.uint8)
        else:
            picture = self._picture(self._frame)
        width = picture.shape[1]
        if self.view.has_statistics:
            wrapped = [part for line in lines for part in _wrapped(line, width)]
            self._write(picture, wrapped, _EDGE, _EDGE)
        if banner:
            self._write(picture, _wrapped(banner, width), _EDGE, -_EDGE - _ABOVE_LABELS, _RED)
        self._cv2.imshow(_TITLE, picture)

    def pump(self) -> None:
        """Handle keys and mouse; closing the window is a wish to quit."""
        self._take_keys()
        if self._is_closed():
            self.view.wishes.append("quit")

    def _take_keys(self) -> None:
        while (code := self._cv2.waitKeyEx(1)) != -1:
            key = _KEYS.get(code) or (chr(code & 0xFF) if 0 < (code & 0xFFFF) < 0x100 else "")
            self.view.press(key.lower() if len(key) == 1 else key)

    def close(self) -> None:
        """Close the window."""
        if self._is_open:
            self._cv2.destroyAllWindows()
            self._cv2.waitKey(1)

    def _is_closed(self) -> bool:
        """Whether somebody has closed the window."""
        if not self._is_open:
            return False
        try:
            return self._cv2.getWindowProperty(_TITLE, self._cv2.WND_PROP_VISIBLE) < 1
        except self._cv2.error:
            return True

    def _open(self, width: int, height: int) -> None:
        if not self._is_open:
            flags = self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_GUI_NORMAL
            self._cv2.namedWindow(_TITLE, flags | self._cv2.WINDOW_FREERATIO)
            self._cv2.setMouseCallback(_TITLE, self._mouse)
            self._is_open = True
        wanted = (width * self.view.parts, height)
        if wanted != self._shape:
            self._shape = wanted
            screen = screen_size()
            limit = (round(screen[0] * _SCREEN_SHARE), round(screen[1] * _SCREEN_SHARE))
            # at most twice the size of the frame
            size = fit(*wanted, (min(limit[0], 2 * wanted[0]), min(limit[1], 2 * wanted[1])))
            self._cv2.resizeWindow(_TITLE, *size)

    def _client_size(self) -> tuple[int, int]:
        """Width and height of the window without its frame, in pixels."""
        _, _, width, height = self._cv2.getWindowImageRect(_TITLE)
        return max(64, width), max(48, height)

    def _picture(self, frame: LiveFrame) -> NDArray[np.uint8]:
        """The frame as shown, centred on a picture of the window's size."""
        width, height = frame.after.upright_size
        parts = self.view.parts
        client = self._client_size()
        size = fit(width * parts, height, client)
        size = (max(2, size[0] // parts // 2 * 2), size[1])
        before, after = (self._painter.paint(each, size)[0] for each in (frame.before, frame.after))
        composed = self.view.compose(before, after)
        whole = np.full((client[1], client[0], 3), 16, np.uint8)
        top = max(0, (client[1] - composed.shape[0]) // 2)
        left = max(0, (client[0] - composed.shape[1]) // 2)
        self._left, self._width = left, composed.shape[1]
        composed = composed[: client[1], : client[0]]
        whole[top : top + composed.shape[0], left : left + composed.shape[1]] = composed
        self._label(whole, left, top, composed.shape)
        return whole

    def _label(
        self, picture: NDArray[np.uint8], left: int, top: int, shape: tuple[int, ...]
    ) -> None:
        """Label the sides in the lower corners."""
        lower = top + shape[0] - picture.shape[0] - _EDGE
        if self.view.mode != "after":
            self._write(picture, ["before"], left + _EDGE, lower)
        if self.view.mode != "before":
            width = self._width_of(["after"])
            self._write(picture, ["after"], left + shape[1] - width - _EDGE, lower)

    def _width_of(self, lines: Sequence[str]) -> int:
        """Width of a text box, in pixels."""
        cv2 = self._cv2
        font = cv2.FONT_HERSHEY_SIMPLEX
        return max(cv2.getTextSize(line, font, _FONT_SIZE, 1)[0][0] for line in lines) + 16

    def _mouse(self, event: int, x: int, y: int, flags: int, _: object) -> None:
        if event == self._cv2.EVENT_LBUTTONDOWN:
            self._is_dragging = True
        elif event == self._cv2.EVENT_LBUTTONUP:
            self._is_dragging = False
        if self._is_dragging and self.view.mode == "split":
            self.view.drag((x - self._left) / self._width)

    def _write(
        self,
        picture: NDArray[np.uint8],
        lines: Sequence[str],
        x: int,
        y: int,
        color: tuple[int, int, int] | None = None,
    ) -> None:
        """Draw text on a dark box, relative to the lower edge where y is negative."""
        cv2, font = self._cv2, self._cv2.FONT_HERSHEY_SIMPLEX
        step = 19
        height = step * len(lines) + 10
        if not lines:
            return
        top = y if y >= 0 else picture.shape[0] + y - height
        width = self._width_of(lines)
        box = picture[max(0, top) : top + height, x : x + width]
        if color is None:
            box[:] = box // 3
        else:
            box[:] = np.array(color, np.uint8) // 2
        for index, line in enumerate(lines):
            origin = (x + 8, top + step * (index + 1))
            cv2.putText(picture, line, origin, font, _FONT_SIZE, _WHITE, 1, cv2.LINE_AA)


def _wrapped(text: str, width: int) -> list[str]:
    """A sentence, broken into lines of a width in pixels."""
    return textwrap.wrap(text, max(20, (width - 40) // 9))
