"""Shows live frames as a camera of this machine, which other programs open; the extra `camera`."""

import threading
from typing import Any

import numpy as np

from mhnet_video.errors import ConfigError, MHNetVideoError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.live.exchange import Latest
from mhnet_video.live.rendering import Painter, even_size, fit, letterboxed
from mhnet_video.live.sound import SoundPacket

_MOST = (3840, 2160)
"""Largest picture, width and height in pixels; larger ones are shrunk."""


class VirtualCamera:
    """Frames as a device that others take for a camera; begins with the first frame.

    Programs that have opened the device hold nobody up: it always has the newest frame.

    Args:
        device: Its name, such as `/dev/video9`.
        fps: Frames a second that are to be expected.

    Raises:
        ConfigError: The extra is not installed.
    """

    trouble = ""
    """What is wrong while it goes on: never anything."""
    has_ended = False
    """Whether nobody takes frames any more: never, as programs open and close it as they like."""

    def __init__(self, device: str, *, fps: float) -> None:
        check_camera_extra()
        self._device = device
        self._fps = fps
        self.frames = 0
        """Frames shown."""
        self.lost: list[str] = []
        """Sound, which a camera does not have, in a line."""
        self.error: MHNetVideoError | None = None
        """Why it has ended; None while it goes on."""
        self._newest: Latest[Frame] = Latest()
        self._thread = threading.Thread(
            target=self._run, name="mhnet-video virtual camera", daemon=True
        )
        self._thread.start()

    def put(self, item: Frame | SoundPacket) -> None:
        """Show a frame; returns at once. Sound is left out."""
        if isinstance(item, Frame):
            self._newest.put(item)
        elif not self.lost:
            self.lost = [f"sound ({item.format.codec}): a camera has no place for it"]

    def close(self) -> None:
        """Let go of the device."""
        self._newest.close()
        self._thread.join()

    def _run(self) -> None:
        number, camera = 0, None
        painter, size = Painter("yuv420p"), (0, 0)
        try:
            while not self._newest.is_closed:
                got = self._newest.get(number, 1.0)
                if got is None:
                    continue
                number, frame = got
                if camera is None:
                    size = even_size(frame, _MOST)
                    camera = _open(self._device, size, self._fps)
                planes = painter.paint(frame, fit(*frame.upright_size, size))
                # the planes behind each other, as I420 has them
                whole = [plane.ravel() for plane in letterboxed(planes, size, 16)]
                camera.send(np.concatenate(whole))
                self.frames += 1
        except Exception as error:  # whatever it is, nobody else could tell of it
            said = str(error).partition("backend: ")[2] or str(error)
            self.error = WriteError(
                f"{self._device} cannot be made a camera ({said.strip().rstrip('.')}); load the "
                "module v4l2loopback, and see that no other program writes to the device."
            )
        finally:
            if camera is not None:
                camera.close()


def _open(device: str, size: tuple[int, int], fps: float) -> Any:
    """Open the device.

    Raises:
        RuntimeError: There is none, or it cannot be had.
    """
    import pyvirtualcam

    return pyvirtualcam.Camera(*size, fps, device=device, fmt=pyvirtualcam.PixelFormat.I420)


def check_camera_extra() -> None:
    """Find out whether the extra `camera` is installed.

    Raises:
        ConfigError: It is not.
    """
    try:
        import pyvirtualcam  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "a virtual camera needs the extra camera: pip install 'mhnet-video[camera]'"
        ) from error
