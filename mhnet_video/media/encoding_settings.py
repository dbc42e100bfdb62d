"""How a source is to be written: which encoder, how it is set up, and what the tracks need."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
from av.stream import Discard

from mhnet_video.color_spaces import FULL_RANGE, LIMITED_RANGE, MATRIX_NUMBERS, usual_matrix
from mhnet_video.frame import Frame
from mhnet_video.media.containers import Format
from mhnet_video.media.encoder import (
    BOTTOM_FIRST,
    TOP_FIRST,
    EncoderSettings,
    clock_of,
    find_settings,
    option_names,
    pixel_formats,
)
from mhnet_video.media.pixel_formats import layout_of, planar_twin
from mhnet_video.media.reader import VideoReader
from mhnet_video.media.side_data import has_user_data
from mhnet_video.media.source import COVER

_COLOR_TAGS = ("color_range", "colorspace", "color_primaries", "color_trc")
_PICTURE_SAMPLES = {"mjpeg": ("bt601", True), "libwebp": ("bt601", False)}
"""Matrix and whether the range is full, by the encoder of a picture: its files say nothing about
them, and every viewer takes them to be so."""
# viewers disagree about TIFF's YUV
_PICTURE_FORMATS = {"mjpeg": re.compile("yuvj"), "tiff": re.compile("(?!yuv)")}
_ANY = re.compile("")
_MAX_FPS = 1000
"""A rate beyond this is a clock mistaken for one, and would make encoders reserve for it."""
# a track that begins later than the video by more would delay the index of an MP4
_LATE_SECONDS = 2
_LATE_WITHOUT_TIMES_SECONDS = Fraction(1, 10)
NEED_A_PACKET = ("ac3", "eac3")
"""Codecs of which MP4 cannot write anything before the first packet."""


def usual_encoder(kind: Format, reader: VideoReader) -> str:
    """The encoder that a format gets where a person names none."""
    layout = layout_of(planar_twin(reader.stream.pix_fmt or "yuv420p"))
    if kind.video == "libvpx-vp9" and layout is not None and layout.bits > 8:
        return "libsvtav1"  # the VP9 encoder at hand knows 8 bits only
    return kind.video


def choose_settings(
    encoder: str,
    options: Mapping[str, str],
    *,
    kind: Format | None,
    reader: VideoReader,
    frame: Frame,
) -> EncoderSettings:
    """An encoder set up for a source, with the pixel format that loses least.

    Args:
        encoder: FFmpeg's name.
        options: Of the encoder.
        kind: The output's format; None for a picture.
        reader: The source.
        frame: Its first frame.

    Raises:
        WriteError: The encoder does not open.
    """
    fps = reader.fps if 0 < reader.fps <= _MAX_FPS else Fraction(25)
    time_base = frame.time_base
    if kind is not None and kind.is_constant_rate:
        time_base = 1 / fps
    elif kind is not None:
        time_base = kind.clock(time_base, reader.longest_pause(reader.stream))
    merged = dict(options)
    if kind is not None and has_cues(kind, reader):
        merged.setdefault("g", str(max(1, round(fps))))
    if has_user_data(frame) and "udu_sei" in option_names(encoder):
        merged.setdefault("udu_sei", "1")
    source = str(frame.tags.get("pixel_format", frame.layout.name))
    formats = pixel_formats(encoder, frame.layout, source, is_full=frame.full_range)
    samples = _PICTURE_SAMPLES.get(encoder) if kind is None else None
    if kind is None:
        formats = [name for name in formats if _PICTURE_FORMATS.get(encoder, _ANY).match(name)]

    aspect = reader.stream.sample_aspect_ratio
    if aspect and frame.tags.get("is_quarter_turned"):
        aspect = 1 / aspect

    def make(pixel_format: str) -> EncoderSettings:
        return EncoderSettings(
            encoder=encoder,
            width=frame.width,
            height=frame.height,
            pixel_format=pixel_format,
            fps=fps,
            time_base=clock_of(encoder, time_base, fps),
            options=merged,
            sample_aspect_ratio=aspect,
            color=_color(frame, pixel_format, samples),
            samples=samples,
            chroma_location=_chroma_location(reader, frame, pixel_format),
            field_order=_field_order(reader, frame),
            tag="hvc1" if kind and kind.is_mp4 and _is_hevc(encoder) else None,
        )

    # formats that lose little, should a size or an encoder rule the first one out
    return find_settings(make, formats[:8])


def has_cues(kind: Format, reader: VideoReader) -> bool:
    """Whether an MP4 gets subtitles."""
    return kind.is_mp4 and any(s.type == "subtitle" for s in reader.container.streams)


def late_tracks(reader: VideoReader, kind: Format) -> set[int]:
    """The numbers of streams that begin much later than the video, or have nothing at all.

    By more than a tenth of a second in a format without times.
    """
    most = _LATE_WITHOUT_TIMES_SECONDS if kind.is_constant_rate else _LATE_SECONDS
    first = (reader.stream.start_time or 0) * reader.time_base
    late = set()
    for stream in reader.container.streams:
        if stream.type not in ("audio", "video", "data") or stream.discard == Discard.all:
            continue
        if stream.disposition & COVER:
            continue
        if stream.type != "data" and stream.codec_context is None:
            continue  # of a kind that FFmpeg does not know, which is not carried over
        begin = stream.start_time
        if begin is None or begin * Fraction(stream.time_base or 0) > first + most:
            late.add(stream.index)
    return late


def has_late_track(reader: VideoReader, kind: Format) -> bool:
    """Whether the index of an MP4 would have to wait for a late stream."""
    streams = reader.container.streams
    return any(streams[index].name not in NEED_A_PACKET for index in late_tracks(reader, kind))


def _is_hevc(encoder: str) -> bool:
    return "265" in encoder or "hevc" in encoder


def _color(frame: Frame, pixel_format: str, samples: tuple[str, bool] | None) -> dict[str, int]:
    """The colour tags of the output: the source's, unless its samples had to be converted."""
    color = {name: int(frame.tags.get(name, 0)) for name in _COLOR_TAGS if name in frame.tags}
    is_rgb = av.VideoFormat(pixel_format, 16, 16).is_rgb
    if samples is not None and not is_rgb:
        color["colorspace"] = MATRIX_NUMBERS[samples[0]]
        color["color_range"] = FULL_RANGE if samples[1] else LIMITED_RANGE
    elif frame.layout.kind == "rgb" and not is_rgb:
        color["colorspace"] = MATRIX_NUMBERS[usual_matrix(frame.height)]
        color["color_range"] = FULL_RANGE if "yuvj" in pixel_format else LIMITED_RANGE
    return color


def _chroma_location(reader: VideoReader, frame: Frame, pixel_format: str) -> str:
    """Where the source's chroma samples lie, where that is not said by the output's format."""
    twin = layout_of(planar_twin(pixel_format))
    shifts = [each and (each.chroma_shift_x, each.chroma_shift_y) for each in (frame.layout, twin)]
    if shifts != [(1, 1), (1, 1)] or frame.tags.get("is_quarter_turned"):
        return ""
    # what is taken for granted where nothing is said
    return "" if reader.chroma_location == "left" else reader.chroma_location


def _field_order(reader: VideoReader, frame: Frame) -> int:
    """FFmpeg's number of the order of fields; 0 for frames that are not interlaced."""
    if not frame.tags.get("interlaced"):
        return 0
    context: Any = reader.stream.codec_context
    order = int(context.field_order)
    if order > 1:
        # what QuickTime tells apart by how the fields are stored; they are woven here
        return {4: TOP_FIRST, 5: BOTTOM_FIRST}.get(order, order)
    return BOTTOM_FIRST if context.codec.name == "dvvideo" else TOP_FIRST
