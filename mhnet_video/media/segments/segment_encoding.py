"""How segments are encoded, so that their packets can be joined as those of one run."""

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.format import ContainerFormat

from mhnet_video.errors import ConfigError
from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder_options import encoder_options
from mhnet_video.media.encoders.encoder_surfaces import open_surfaces
from mhnet_video.media.encoders.encoding_settings import choose_settings, usual_encoder
from mhnet_video.media.formats.containers import format_of, picture_encoder
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.frame_encoder import FrameEncoder
from mhnet_video.media.writing.output_clock import OutputClock

_GLOBAL_HEADER = 0x40
"""FFmpeg's AVFMT_GLOBALHEADER."""
_EXACT = "cpu-independent=1"
"""With AVX-512, x264's macroblock tree reads memory beyond a row of other than 16 n macroblocks, so
that the same pictures become other bytes each time. This option takes its code in C."""
_START = b"\0\0\1"
"""What each NAL unit of a byte stream begins with."""
_HEVC_SEI = 39
"""Type of a NAL unit of supplemental information. Rec. ITU-T H.265, table 7-1."""


def header_of(context: Any) -> str:
    """A fingerprint of what an open encoder puts into the header of its container.

    Left out is what x265 adds about itself, which has the threads and the processor: other machines
    make segments of the same output.
    """
    header = context.extradata or b""
    if context.name == "libx265":
        units = header.split(_START)
        header = _START.join(unit for unit in units if not unit or unit[0] >> 1 != _HEVC_SEI)
    return hashlib.sha256(header).hexdigest()


class SegmentEncoding:
    """How the segments of a work are encoded: as one run would encode them all.

    Args:
        output: The output that the segments are for, its format by its name.
        reader: The first source.
        first: Its first frame, as it will be written.
        encoder: FFmpeg's name of the video encoder; None for the format's usual one.
        crf: Quality of the encoder; None for the default.
        preset: Speed preset of the encoder; None for the default.
        options: Further options of the encoder, name and value.

    Raises:
        ConfigError: The output is a picture, or of a format without times.
        WriteError: The name of the output stands for no format, or the encoder does not open.
    """

    def __init__(
        self,
        output: Path,
        reader: VideoReader,
        first: Frame,
        *,
        encoder: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        options: tuple[tuple[str, str], ...] = (),
    ) -> None:
        check_format(output)
        kind = format_of(str(output))
        self.encoder = encoder or usual_encoder(kind, reader)
        self.first = first
        merged = encoder_options(self.encoder, crf=crf, preset=preset, options=options)
        if self.encoder == "libx264":
            merged["x264-params"] = f"{_EXACT}:{merged.get('x264-params', '')}".strip(":")
        self.settings = choose_settings(
            self.encoder,
            merged,
            container_format=kind,
            reader=reader,
            frame=first,
        )
        self.has_global_header = bool(ContainerFormat(kind.name, "w").flags & _GLOBAL_HEADER)
        """Whether the output has in its header what decoders must know, not in its packets."""
        self._origin = reader.origin or Fraction(0)
        self._fps = reader.fps

    def new_encoder(self, first: Frame, output: OutputFile) -> FrameEncoder:
        """An encoder for a segment.

        Args:
            first: The segment's first frame.
            output: Where its packets go.
        """
        clock = OutputClock(self.settings.time_base, origin=self._origin, fps=self._fps, end=None)
        surfaces = open_surfaces(first, self.settings)
        # that of the container in which the segments are joined, and none of their own
        settings = replace(self.settings, tag=None)
        return FrameEncoder(settings, self.first, clock, output, surfaces)


def check_format(output: Path) -> None:
    """Refuse an output that cannot be joined of segments.

    Raises:
        ConfigError: It is a picture, or of a format that has no times.
        WriteError: Its name stands for no format.
    """
    if picture_encoder(str(output)) is not None:
        raise ConfigError(f"{output} is a picture, which has no segments; leave --resume out.")
    kind = format_of(str(output))
    if kind.is_constant_rate:
        raise ConfigError(
            f"{kind.label} has no times, and is not written in segments; end the output in .mp4 "
            "or .mkv, or leave --resume out."
        )
