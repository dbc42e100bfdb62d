"""Which pixel format of an encoder loses least of a frame."""

import re

import av

from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.media.encoders.encoder import choices
from mhnet_video.media.frames.pixel_formats import layout_of, planar_twin

_COARSE = re.compile(r"(rgb|bgr)(4|8|4_byte|(444|555|565)..)|pal8|mono.|.*f(16|32)[bl]e")
"""Pixel formats of few colours, and of floating-point numbers."""


def formats_of(encoder: str, frame: Frame) -> list[str]:
    """Pixel formats of an encoder, the one that loses least of a frame first.

    Raises:
        WriteError: It takes none that the frame can be converted to.
    """
    source = str(frame.tags.get("pixel_format", frame.layout.name))
    return pixel_formats(encoder, frame.layout, source, is_full=frame.full_range)


def pixel_formats(encoder: str, layout: PixelLayout, source: str, *, is_full: bool) -> list[str]:
    """Pixel formats of an encoder, the one that loses least of a layout first.

    Args:
        encoder: FFmpeg's name.
        layout: The layout of the frames.
        source: FFmpeg's name of the source's pixel format, taken where the encoder has it.
        is_full: Whether the samples span the full range.

    Raises:
        WriteError: It takes none that this layout can be converted to.
    """
    formats = av.Codec(encoder, "w").video_formats
    if not formats:
        return [layout.name]
    names = [pixel_format.name for pixel_format in formats]
    rated = {name: _loss(layout, name, is_full) for name in names}
    for name in (layout.name, source):
        if name in rated and _loss(layout, name, is_full) is not None:
            rated[name] = (-1,)
    if source in rated and "yuvj" in source and is_full:
        rated[source] = (-2,)
    fitting = sorted((n for n in names if rated[n] is not None), key=lambda n: rated[n] or ())
    if not fitting:
        raise WriteError(f"the encoder {encoder} takes none of this video's pixels; {choices()}.")
    return fitting


def _loss(layout: PixelLayout, name: str, is_full: bool) -> tuple[int, ...] | None:
    """What a format takes away from a layout, most important first; None if it cannot be made."""
    try:
        twin = layout_of(planar_twin(name))
    except ValueError:
        twin = None
    if twin is None or _COARSE.fullmatch(name):
        return None
    kind = "gray" if name.startswith("ya") else twin.kind
    if kind == "gray" and layout.kind != "gray":
        return None
    # grey has no chroma to lose: it takes the usual 4:2:0 where it must have some
    shift_x, shift_y = {
        "gray": (1, 1),
        "rgb": (0, 0),
        "yuv": (layout.chroma_shift_x, layout.chroma_shift_y),
    }[layout.kind]
    return (
        max(0, twin.chroma_shift_x - shift_x),
        max(0, twin.chroma_shift_y - shift_y),
        int("yuvj" in name and not is_full),
        max(0, layout.bits - twin.bits),
        int(layout.has_alpha and not twin.has_alpha),
        int(kind != layout.kind) + int(kind == "rgb" != layout.kind),
        int(twin.has_alpha and not layout.has_alpha),
        twin.bits - layout.bits,
        shift_x - twin.chroma_shift_x + shift_y - twin.chroma_shift_y,
        int(name != twin.name),
    )
