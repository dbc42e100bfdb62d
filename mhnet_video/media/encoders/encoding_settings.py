"""How a source is written: which encoder, its settings, and what the tracks need."""

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError
from av.stream import Discard

from mhnet_video.color_spaces import FULL_RANGE, LIMITED_RANGE, MATRIX_NUMBERS, usual_matrix
from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder import (
    BOTTOM_FIRST,
    COLOR_TAGS,
    TOP_FIRST,
    EncoderSettings,
    find_settings,
    frame_settings,
)
from mhnet_video.media.encoders.encoder_options import option_names
from mhnet_video.media.encoders.encoder_pixel_formats import formats_of
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.frames.pixel_formats import layout_of, planar_twin
from mhnet_video.media.frames.side_data import has_user_data, hdr_params
from mhnet_video.media.nowhere import Nowhere
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import COVER

_PICTURE_SAMPLES = {"mjpeg": ("bt601", True), "libwebp": ("bt601", False)}
"""Matrix and whether the range is full, by the encoder of a picture: its files say nothing about
them, and every viewer takes them to be so."""
_PICTURE_FORMATS = {"mjpeg": re.compile("yuvj"), "tiff": re.compile("(?!yuv)")}
"""Pixel formats by the encoder of a picture; viewers disagree about TIFF's YUV."""
_ANY = re.compile("")
"""Every pixel format."""
_MAX_FORMATS = 8
"""Pixel formats to try, should a size or an encoder rule the first one out; more lose too much."""
_MAX_FPS = 1000
"""A rate beyond this is a clock mistaken for one, and would make encoders reserve for it."""
_LATE_SECONDS = 2
"""A track that begins later than the video by more would delay the index of an MP4."""
_LATE_WITHOUT_TIMES_SECONDS = Fraction(1, 10)
"""Likewise in a format without times, which would play it too early."""
NEED_A_PACKET = ("ac3", "eac3")
"""Codecs of which MP4 cannot write anything before the first packet."""
_DEEP_CODECS = ("hevc", "av1", "vp9")
"""Codecs of which whoever plays more than 8 bits plays HEVC, and seldom such H.264."""
_HEVC_FORMATS = ("mp4", "mov", "matroska", "mpegts")
"""FFmpeg's names of the formats in which players look for HEVC."""
_LEAST_HEVC = 32
"""Pixels of each side that x265 takes, at least."""


def usual_encoder(container_format: Format, reader: VideoReader) -> str:
    """The encoder that a format gets where a person names none."""
    layout = layout_of(planar_twin(reader.stream.pix_fmt or "yuv420p"))
    if container_format.video == "libvpx-vp9" and layout is not None and layout.bits > 8:
        return "libsvtav1"  # the VP9 encoder at hand knows 8 bits only
    if container_format.video == "libx264" and layout is not None and layout.bits > 8:
        context: Any = reader.stream.codec_context
        is_deep = context.codec.name in _DEEP_CODECS and int(context.field_order) <= 1
        has_room = min(context.width, context.height) >= _LEAST_HEVC
        if is_deep and has_room and container_format.name in _HEVC_FORMATS:
            return "libx265"
    return container_format.video


def choose_settings(
    encoder: str,
    options: Mapping[str, str],
    *,
    container_format: Format | None,
    reader: VideoReader,
    frame: Frame,
) -> EncoderSettings:
    """An encoder set up for a source, with the pixel format that loses least.

    Args:
        encoder: FFmpeg's name.
        options: Of the encoder.
        container_format: The output's format; None for a picture.
        reader: The source.
        frame: Its first frame.

    Raises:
        WriteError: The encoder does not open, or the format does not hold what it makes.
    """
    fps = reader.fps if 0 < reader.fps <= _MAX_FPS else Fraction(25)
    time_base = frame.time_base
    if container_format is not None and container_format.is_constant_rate:
        time_base = 1 / fps
    elif container_format is not None:
        time_base = container_format.clock(time_base, reader.longest_pause(reader.stream))
    merged = dict(options)
    if container_format is not None and has_cues(container_format, reader):
        merged.setdefault("g", str(max(1, round(fps))))
    if has_user_data(frame) and "udu_sei" in option_names(encoder):
        merged.setdefault("udu_sei", "1")
    if encoder == "libx265" and (params := hdr_params(frame)):
        # what a person has set stands behind it, and holds
        merged["x265-params"] = f"{params}:{merged.get('x265-params', '')}".strip(":")
    formats = formats_of(encoder, frame)
    samples = _PICTURE_SAMPLES.get(encoder) if container_format is None else None
    if container_format is None:
        formats = [name for name in formats if _PICTURE_FORMATS.get(encoder, _ANY).match(name)]

    aspect = reader.stream.sample_aspect_ratio
    if aspect and frame.tags.get("is_quarter_turned"):
        aspect = 1 / aspect

    if container_format is not None:
        _check_format(container_format, encoder, frame)
    base = frame_settings(encoder, merged, frame, fps=fps, time_base=time_base)
    base = replace(
        base,
        sample_aspect_ratio=aspect,
        samples=samples,
        field_order=_field_order(reader, frame),
        tag="hvc1" if container_format and container_format.is_mp4 and _is_hevc(encoder) else None,
    )
    return find_settings(
        [
            replace(
                base,
                pixel_format=name,
                color=_color(frame, name, samples),
                chroma_location=_chroma_location(reader, frame, name),
            )
            for name in formats[:_MAX_FORMATS]
        ]
    )


def _check_format(container_format: Format, encoder: str, frame: Frame) -> None:
    """Refuse an encoder that makes what a format does not hold, before there is any of it."""
    codecs, codec = container_format.video_codecs, av.Codec(encoder, "w").canonical_name
    is_held = not codecs or codec in codecs
    nowhere = Nowhere()
    with av.open(nowhere, "w", format=container_format.name) as container:
        try:
            stream = container.add_mux_stream(
                codec, rate=25, width=frame.width, height=frame.height
            )
            stream.time_base = Fraction(1, 1000)
            # only the header tells of some, as of AV1 in MOV; Matroska's holds more than is known
            if container_format.name not in ("matroska", "webm"):
                container.start_encoding()
        except (FFmpegError, ValueError):
            is_held = False
        finally:
            # FFmpeg 8.1 may crash when it ends a file with nothing in it
            nowhere.closed = True
    if not is_held:
        label = container_format.label
        way = "" if label == "Matroska" else ", or end the output in .mkv"
        raise WriteError(
            f"{label} cannot hold what the encoder {encoder} makes; choose another one{way}."
        )


def has_cues(container_format: Format, reader: VideoReader) -> bool:
    """Whether an MP4 gets subtitles."""
    return container_format.is_mp4 and any(s.type == "subtitle" for s in reader.container.streams)


def late_tracks(reader: VideoReader, container_format: Format) -> set[int]:
    """The numbers of streams that begin much later than the video, or have nothing at all.

    By more than a tenth of a second in a format without times.
    """
    most = _LATE_WITHOUT_TIMES_SECONDS if container_format.is_constant_rate else _LATE_SECONDS
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


def has_late_track(reader: VideoReader, container_format: Format) -> bool:
    """Whether the index of an MP4 would have to wait for a late stream."""
    streams = reader.container.streams
    return any(
        streams[index].name not in NEED_A_PACKET for index in late_tracks(reader, container_format)
    )


def _is_hevc(encoder: str) -> bool:
    return "265" in encoder or "hevc" in encoder


def _color(frame: Frame, pixel_format: str, samples: tuple[str, bool] | None) -> dict[str, int]:
    """The colour tags of the output: the source's, unless its samples had to be converted."""
    color = {name: int(frame.tags.get(name, 0)) for name in COLOR_TAGS if name in frame.tags}
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
    # the default of every format
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
