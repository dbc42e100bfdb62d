"""Whether there is a screen to open a window on, and how large it is.

Import it before PyAV: both PyAV's and OpenCV's wheels bring libraries of the X window system along,
some under the same names, and a window hangs where PyAV's were loaded first.
"""

import contextlib
import ctypes
import ctypes.util
import os
import subprocess
import sys

from mhnet_video.errors import MHNetVideoError

_USUAL_SIZE = (1280, 720)
"""Size of a screen whose system does not report it, in pixels."""
_PROBE_SECONDS = 20
"""How long a process may take to open a window."""
_PROBE = "import cv2; cv2.namedWindow('mhnet-video', cv2.WINDOW_NORMAL)"
"""Opens a window in a process of its own."""

_IS_LATE = sys.platform == "linux" and "av" in sys.modules and "cv2" not in sys.modules
"""Whether PyAV was imported before OpenCV, so that a window would hang."""

# of fonts, which nothing here uses
os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
with contextlib.suppress(ImportError):
    import cv2  # noqa: F401 - here for the order


def has_screen() -> bool:
    """Whether the system says that there is one."""
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def check_screen() -> None:
    """Find out whether a window can be opened; where it cannot, Qt would end the process.

    Raises:
        MHNetVideoError: It cannot.
    """
    if not has_screen():
        raise MHNetVideoError(_without("there is no screen here"))
    if _IS_LATE:
        raise MHNetVideoError("a program that opens a window must import cv2 before av.")
    code = _PROBE if sys.platform == "linux" else "import cv2"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        raise MHNetVideoError(_without("the screen does not answer")) from None
    if "ImportError" in tried.stderr:
        missing = tried.stderr.strip().splitlines()[-1].partition(": ")[2]
        raise MHNetVideoError(
            _without(f"OpenCV does not load here ({missing}; on Debian: apt install libgl1)")
        )
    if tried.returncode:
        raise MHNetVideoError(_without("no window can be opened on this screen"))


def _without(why: str) -> str:
    return f"{why}; --serve 8080 shows the picture in a browser instead."


def screen_size() -> tuple[int, int]:
    """Width and height of the screen in pixels; a usual size where the system reports none."""
    try:
        if sys.platform == "win32":
            user = ctypes.windll.user32
            return int(user.GetSystemMetrics(0)), int(user.GetSystemMetrics(1))
        if sys.platform == "darwin":
            graphics = ctypes.CDLL(ctypes.util.find_library("CoreGraphics"))
            display = graphics.CGMainDisplayID()
            return int(graphics.CGDisplayPixelsWide(display)), int(
                graphics.CGDisplayPixelsHigh(display)
            )
        x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
        x11.XOpenDisplay.restype = ctypes.c_void_p
        x11.XDisplayWidth.argtypes = x11.XDisplayHeight.argtypes = [ctypes.c_void_p, ctypes.c_int]
        x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
        display = x11.XOpenDisplay(None)
        if not display:
            return _USUAL_SIZE
        try:
            return int(x11.XDisplayWidth(display, 0)), int(x11.XDisplayHeight(display, 0))
        finally:
            x11.XCloseDisplay(display)
    except (OSError, AttributeError):
        return _USUAL_SIZE
