"""Ask a window to close, as its close button does. It imports little, as a test waits for it.

python tests/close_window.py NUMBER
"""

import ctypes
import ctypes.util
import sys


def ask_to_close(window):
    """Send WM_DELETE_WINDOW: there is no window manager on the virtual screen."""
    x11 = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(None))

    class Message(ctypes.Structure):
        _fields_ = (
            ("kind", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("is_sent", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5),
            ("rest", ctypes.c_long * 24),
        )

    message = Message(kind=33, window=window, format=32)
    message.message = x11.XInternAtom(display, b"WM_PROTOCOLS", 0)
    message.data[0] = x11.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
    x11.XSendEvent(display, ctypes.c_ulong(window), 0, 0, ctypes.byref(message))
    x11.XSync(display, 0)


if __name__ == "__main__":
    ask_to_close(int(sys.argv[1]))
