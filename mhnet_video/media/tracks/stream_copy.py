"""Adds a stream to an output for packets that are copied."""

import io
import wave
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.stream import Stream

from mhnet_video.media.formats.audio_headers import (
    aac_config,
    is_aac_without_config,
    probed_aac_config,
)


def add_copy(container: OutputContainer, stream: Stream, first: bytes) -> Stream:
    """A stream of the output that is coded as the source's.

    Args:
        container: The output.
        stream: The source's.
        first: Its first packet, empty where it is not known.

    Raises:
        ValueError: The container does not take its codec.
    """
    try:
        copy: Any = container.add_stream_from_template(stream, opaque=True)
        if stream.codec_context is not None and is_aac_without_config(stream):
            # the header has the configuration, and is written before the first packet
            copy.codec_context.extradata = aac_config(first) or probed_aac_config(stream)
        _name_layout(container, copy)
        return copy
    except ValueError:
        # PyAV asks by the strictest rules: Matroska takes any sound, but does not say so
        if stream.type != "audio" or container.format.name != "matroska":
            raise
    with av.open(io.BytesIO(_silent_wave())) as silence:
        target = container.add_stream_from_template(silence.streams.audio[0])
    BitStreamFilterContext("null", stream, target)
    target.codec_context.codec_tag = "\0\0\0\0"
    target.time_base = stream.time_base
    return target


def _name_layout(container: OutputContainer, copy: Any) -> None:
    """Give one or two channels of a sound that goes into FLV the name that they have there.

    FFmpeg 8.1 takes channels without a name for an arrangement that only newer codecs can have,
    and ends the process where it has no number for the codec.
    """
    if container.format.name == "flv" and copy.type == "audio":
        context = copy.codec_context
        context.layout = {1: "mono", 2: "stereo"}.get(context.layout.nb_channels, context.layout)


def _silent_wave() -> bytes:
    """A file of PCM, whose stream every container takes as a template."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(bytes(320))
    return file.getvalue()
