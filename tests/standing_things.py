"""Things that stand still before a moving scene without being drops, drawn for measurements.

Each function draws one over a frame of any size: RGB `[H, W, 3]` uint8 and its opacity, `[H, W]`
in [0, 1]. Nothing here is what training draws.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Opacity = NDArray[np.float32]
Thing = tuple[Picture, Opacity]
_FACES = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX


def _canvas(height: int, width: int) -> Thing:
    return np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32)


def _write(
    picture: Picture,
    text: str,
    corner: tuple[float, float],
    size: float,
    colour: tuple[int, int, int],
    face: int = _FACES[0],
) -> None:
    """Write a line whose lower left corner is at shares of the width and the height."""
    height, width = picture.shape[:2]
    place = round(corner[0] * width), round(corner[1] * height)
    stroke = max(1, round(2 * size * height / 480))
    cv2.putText(picture, text, place, face, size * height / 480, colour, stroke, cv2.LINE_AA)


def bonnet(height: int, width: int) -> Thing:
    """A red bonnet along the lower edge, with the sky in its paint and a washer's nozzle."""
    picture, opacity = _canvas(height, width)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    edge = 0.82 + 0.35 * (x - 0.5) ** 2
    shine = np.exp(-(((y - edge - 0.05) / 0.02) ** 2)) + 0.4 * np.exp(-(((x - 0.35) / 0.05) ** 2))
    paint = np.array([130, 22, 26]) * (0.55 + 0.4 * y[..., None])
    picture[:] = np.clip(paint + 120 * shine[..., None], 0, 255)
    for side in (0.4, 0.62):
        centre = round(side * width), round(0.92 * height)
        cv2.ellipse(picture, centre, (width // 60, height // 120), 0, 0, 360, (12, 12, 14), -1)
    opacity[:] = np.clip((y - edge) * height / 1.5, 0, 1)
    return picture, opacity


def dashboard(height: int, width: int) -> Thing:
    """A dark dashboard with an air vent and a lit display with small letters."""
    picture, opacity = _canvas(height, width)
    top = round(0.76 * height)
    y = np.linspace(0, 1, height)[:, None, None]
    picture[:] = np.broadcast_to(np.array([52, 50, 54]) * (1.35 - 0.6 * y), picture.shape)
    opacity[top:] = 1
    for slat in range(6):
        row = round((0.81 + 0.025 * slat) * height)
        cv2.line(picture, (width // 12, row), (width // 4, row), (18, 18, 20), 3, cv2.LINE_AA)
    box = (round(0.55 * width), round(0.8 * height)), (round(0.9 * width), round(0.97 * height))
    cv2.rectangle(picture, *box, (8, 12, 18), -1)
    _write(picture, "62 km/h   08:41", (0.57, 0.86), 0.55, (180, 220, 255), _FACES[1])
    _write(picture, "RADIO 4  93.5 MHz", (0.57, 0.905), 0.4, (230, 150, 60))
    _write(picture, "outside 7.5 C  range 412 km", (0.57, 0.945), 0.36, (120, 200, 140))
    return picture, cv2.GaussianBlur(opacity, (0, 0), 0.8)


def stickers(height: int, width: int) -> Thing:
    """A round toll sticker, a permit with letters, and a small dark sensor, on the glass."""
    picture, opacity = _canvas(height, width)
    centre, radius = (round(0.12 * width), round(0.16 * height)), round(0.075 * height)
    cv2.circle(picture, centre, radius, (60, 150, 90), -1, cv2.LINE_AA)
    cv2.circle(picture, centre, round(0.8 * radius), (235, 235, 225), -1, cv2.LINE_AA)
    cv2.circle(opacity, centre, radius, 1.0, -1, cv2.LINE_AA)
    _write(picture, "26", (0.097, 0.185), 0.9, (20, 30, 40), _FACES[1])
    box = (round(0.8 * width), round(0.7 * height)), (round(0.95 * width), round(0.86 * height))
    cv2.rectangle(picture, *box, (225, 215, 150), -1)
    cv2.rectangle(opacity, *box, 1.0, -1)
    _write(picture, "PERMIT", (0.81, 0.75), 0.6, (30, 40, 120))
    _write(picture, "ZONE 4  No 20718", (0.81, 0.79), 0.36, (40, 40, 40))
    _write(picture, "until 31.12.2026", (0.81, 0.83), 0.36, (40, 40, 40))
    spot = round(0.5 * width), round(0.1 * height)
    cv2.circle(picture, spot, round(0.03 * height), (14, 14, 16), -1, cv2.LINE_AA)
    cv2.circle(opacity, spot, round(0.03 * height), 1.0, -1, cv2.LINE_AA)
    soft = [cv2.GaussianBlur(each, (0, 0), 0.9) for each in (picture, opacity)]
    # a blurred picture over black is multiplied by its opacity already
    plain = soft[0] / np.maximum(soft[1], 1e-3)[..., None]
    return np.clip(plain, 0, 255).astype(np.uint8), soft[1]


def reflection(height: int, width: int) -> Thing:
    """A dashboard that is mirrored by the glass, with a sheet of paper on it."""
    picture, opacity = _canvas(height, width)
    picture[:] = (70, 72, 78)
    sheet = np.array([[0.3, 0.62], [0.52, 0.58], [0.58, 0.8], [0.27, 0.84]]) * [width, height]
    cv2.fillPoly(picture, [sheet.round().astype(np.int32)], (250, 250, 245), cv2.LINE_AA)
    for slat in range(7):
        x = round((0.66 + 0.03 * slat) * width)
        ends = (x, round(0.6 * height)), (x + width // 50, round(0.8 * height))
        cv2.line(picture, *ends, (235, 235, 240), max(2, width // 200), cv2.LINE_AA)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    opacity[:] = 0.2 * np.clip((y - 0.4) / 0.15, 0, 1)
    return cv2.GaussianBlur(picture, (0, 0), 2.0), opacity


def overlay(height: int, width: int) -> Thing:
    """What dashcams write: date and speed on a dark bar, a name, and a pale watermark."""
    picture, opacity = _canvas(height, width)
    top = round(0.935 * height)
    opacity[top:] = 0.55
    text = np.zeros_like(picture)
    _write(
        text, "2026-11-29 08:41:07   62KM/H   N50.0813 E14.4280", (0.02, 0.985), 0.62, (255,) * 3
    )
    _write(text, "REAR CAM", (0.03, 0.07), 0.55, (255,) * 3)
    pale = np.zeros_like(picture)
    _write(pale, "www.dashcam.example", (0.64, 0.07), 0.6, (255,) * 3, _FACES[1])
    cover = np.maximum(text[..., 0] / 255, 0.4 * pale[..., 0] / 255).astype(np.float32)
    both = cover + opacity * (1 - cover)
    # letters are white before the bar, which is black
    picture[:] = np.clip(255 * cover / np.maximum(both, 1e-6), 0, 255)[..., None]
    return picture, both


THINGS: Mapping[str, Callable[[int, int], Thing]] = {
    "bonnet": bonnet,
    "dashboard": dashboard,
    "stickers": stickers,
    "reflection": reflection,
    "overlay": overlay,
}
"""All of them by name."""
