"""Show a window of X11 anew where it stays black; run as a process of its own.

On a machine whose cores are all busy Qt may miss that its window has come onto the screen, and then
draws nothing into it. Xlib ends a process at its first error, such as a window that is closed
meanwhile, which is why the program does not do it itself.

    python unveil.py TITLE
"""

import ctypes
import ctypes.util
import sys
import time
from collections.abc import Iterator
from typing import Any

# how long to wait before each look, in seconds; the first one is the last where all is well
_PAUSES = (1.0, 1.0, 2.0, 4.0, 8.0)
_COLORS, _Z_PIXMAP = 0xFFFFFF, 2


class _Image(ctypes.Structure):
    """The beginning of Xlib's `XImage`."""

    _fields_ = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("offset", ctypes.c_int),
        ("format", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_char)),
        ("orders", ctypes.c_int * 5),
        ("line_bytes", ctypes.c_int),
    )


def _load() -> Any:
    x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
    pointer, window = ctypes.c_void_p, ctypes.c_ulong
    x11.XOpenDisplay.restype = pointer
    x11.XDefaultRootWindow.restype = window
    x11.XDefaultRootWindow.argtypes = [pointer]
    x11.XQueryTree.argtypes = [pointer, window, *[pointer] * 4]
    x11.XFetchName.argtypes = [pointer, window, pointer]
    x11.XFree.argtypes = [pointer]
    x11.XGetGeometry.argtypes = [pointer, window, *[pointer] * 7]
    sizes = [ctypes.c_int] * 2 + [ctypes.c_uint] * 2
    x11.XGetImage.argtypes = [pointer, window, *sizes, ctypes.c_ulong, ctypes.c_int]
    x11.XGetImage.restype = ctypes.POINTER(_Image)
    x11.XUnmapWindow.argtypes = x11.XMapWindow.argtypes = [pointer, window]
    x11.XSync.argtypes = [pointer, ctypes.c_int]
    return x11


def _windows(x11: Any, display: int, parent: int) -> Iterator[int]:
    """All windows in another one, at any depth."""
    root, above = ctypes.c_ulong(), ctypes.c_ulong()
    children, count = ctypes.POINTER(ctypes.c_ulong)(), ctypes.c_uint()
    given = (root, above, children, count)
    if not x11.XQueryTree(display, parent, *map(ctypes.byref, given)) or not children:
        return
    found = children[: count.value]
    x11.XFree(children)
    for each in found:
        yield each
        yield from _windows(x11, display, each)


def _title(x11: Any, display: int, window: int) -> str:
    name = ctypes.c_char_p()
    if not x11.XFetchName(display, window, ctypes.byref(name)):
        return ""
    title = (name.value or b"").decode(errors="replace")
    x11.XFree(name)
    return title


def _is_black(x11: Any, display: int, window: int) -> bool:
    """Whether no pixel of a window has any colour."""
    root, x, y, width, height, border, depth = (
        kind() for kind in (ctypes.c_ulong, *[ctypes.c_int] * 2, *[ctypes.c_uint] * 4)
    )
    given = (root, x, y, width, height, border, depth)
    x11.XGetGeometry(display, window, *map(ctypes.byref, given))
    image = x11.XGetImage(
        display, window, 0, 0, width.value, height.value, _COLORS, _Z_PIXMAP
    ).contents
    return not any(image.data[: image.line_bytes * image.height])


def main(title: str) -> None:
    """Look some times, until there is something in the window."""
    x11 = _load()
    display = x11.XOpenDisplay(None)
    if not display:
        return
    for pause in _PAUSES:
        time.sleep(pause)
        every = _windows(x11, display, x11.XDefaultRootWindow(display))
        window = next((each for each in every if _title(x11, display, each) == title), None)
        if window is None:
            continue
        if not _is_black(x11, display, window):
            return
        print("shown anew", flush=True)  # noqa: T201 - for whoever starts it
        x11.XUnmapWindow(display, window)
        x11.XMapWindow(display, window)
        x11.XSync(display, 0)


if __name__ == "__main__":
    main(sys.argv[1])
