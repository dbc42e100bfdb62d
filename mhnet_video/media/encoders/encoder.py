"""How a video encoder is set up and opened, and which ones work on this machine."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction

import av
from av.codec.context import CodecContext, Flags
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame
from mhnet_video.media.prefetch import codec_threads

_TASKS = "/proc/self/task"
"""Linux's folder of a process's threads."""
COLOR_TAGS = ("color_range", "colorspace", "color_primaries", "color_trc")
"""Tags of a frame that an encoder writes."""
# a lookahead of ten frames: what a killed run has not yet written stays below a second
# x264 without partitions of P frames: two thirds of the time, 0 to 4 % more bytes, 0 to 0.2 dB
DEFAULTS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "17", "preset": "veryfast", "rc-lookahead": "10"}
    | {"partitions": "i8x8,i4x4"},
    "libx265": {"crf": "19", "preset": "faster", "x265-params": "log-level=none:rc-lookahead=10"},
    "libsvtav1": {"crf": "20", "preset": "8"},
    "libvpx-vp9": {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
    | {"lag-in-frames": "10"},
    "libvpx": {"crf": "6", "b": "100M", "deadline": "good", "cpu-used": "4"},
    "ffv1": {"level": "3", "slicecrc": "1", "g": "1"},
    "mpeg4": {"flags": "+qscale", "qmin": "2"},
    "mpeg2video": {"flags": "+qscale", "qmin": "2"},
    # the JPEG standard knows full range only; what has a limited one keeps it
    "mjpeg": {"flags": "+qscale", "qmin": "2", "strict": "unofficial"},
    # four percent larger than at FFmpeg's own level, in a sixth of the time
    "png": {"compression_level": "2"},
    "h264_nvenc": {"rc": "vbr", "cq": "19", "b": "0", "preset": "p5"},
    "hevc_nvenc": {"rc": "vbr", "cq": "21", "b": "0", "preset": "p5"},
    "av1_nvenc": {"rc": "vbr", "cq": "24", "b": "0", "preset": "p5"},
    "h264_qsv": {"global_quality": "19", "preset": "medium"},
    "hevc_qsv": {"global_quality": "21", "preset": "medium"},
    "av1_qsv": {"global_quality": "24", "preset": "medium"},
    "utvideo": {},
    "prores_ks": {},
    "h264_amf": {"usage": "transcoding", "quality": "quality"},
    "hevc_amf": {"usage": "transcoding", "quality": "quality"},
    "av1_amf": {"usage": "transcoding", "quality": "quality"},
    "h264_videotoolbox": {"q": "65"},
    "hevc_videotoolbox": {"q": "65"},
    "h264_v4l2m2m": {},
}
"""Options by encoder, of those worth naming to a person, the most usual first."""
TOP_FIRST = 2
"""FFmpeg's AV_FIELD_TT: interlaced, the top field first."""
BOTTOM_FIRST = 3
"""FFmpeg's AV_FIELD_BB: interlaced, the bottom field first."""
_MARKING = re.compile("264|ffv1|mpeg4|mpeg2video|prores|dvvideo|rawvideo|^png$")
"""Encoders that mark interlaced frames; others open for them, and do not."""
_MAX_SHORT_CLOCK = 65535
"""Ticks of a second that MPEG-4 part 2 can count."""
_SHORT_CLOCKS = ("mpeg4", "msmpeg4", "h263", "h263p", "flv", "libxvid")
"""Encoders of MPEG-4 part 2 and its kin."""
_LONGEST_SECONDS = {"mpeg4": 86_400, "libxvid": 86_400}
"""MPEG-4 part 2 counts the seconds of a pause up to a day."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Everything that an encoder must know before it opens."""

    encoder: str
    """FFmpeg's name."""
    width: int
    """In pixels."""
    height: int
    """In pixels."""
    pixel_format: str
    """FFmpeg's name."""
    fps: Fraction
    """Nominal frame rate."""
    time_base: Fraction
    """Length of one unit of timestamps, in seconds."""
    options: Mapping[str, str]
    """Options of the encoder."""
    sample_aspect_ratio: Fraction | None = None
    """Width of a sample over its height; None for unknown."""
    color: Mapping[str, int] = field(default_factory=dict)
    """Values of `COLOR_TAGS`, as FFmpeg's numbers."""
    chroma_location: str = ""
    """Where chroma samples lie, as FFmpeg names it; empty for where each format has them."""
    field_order: int = 0
    """FFmpeg's number; 0 for unknown, 1 for progressive, more for interlaced."""
    samples: tuple[str, bool] | None = None
    """Matrix and whether the range is full, where YUV must be so; None for as it is."""
    tag: str | None = None
    """Codec tag in the container; None for its usual one."""

    @property
    def marks_fields(self) -> bool:
        """Whether frames are marked as interlaced."""
        return self.field_order > 1 and bool(_MARKING.search(self.encoder))

    def apply(self, context: VideoCodecContext) -> None:
        """Set up an encoder that is not open yet."""
        options = dict(self.options)
        context.width = self.width
        context.height = self.height
        context.pix_fmt = self.pixel_format
        context.framerate = self.fps
        context.time_base = self.time_base
        if self.sample_aspect_ratio:
            context.sample_aspect_ratio = self.sample_aspect_ratio
        for name, value in self.color.items():
            setattr(context, name, value)
        if self.chroma_location:
            options.setdefault("chroma_sample_location", self.chroma_location)
        if self.field_order > 1:
            context.field_order = self.field_order
            if self.encoder == "libx264" and self.field_order == BOTTOM_FIRST:
                params = options.get("x264-params", "")
                options["x264-params"] = f"bff=1:{params}".strip(":")
            context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        context.flags |= Flags.frame_duration
        # frames stored in the order they are shown: FFmpeg 8.1 forgets the end of an MP4 that it
        # cuts between two that are not, and no container shifts its times for them
        context.max_b_frames = 0
        # slices, PyAV's default, cost x264 quality
        context.thread_type = "AUTO"
        context.thread_count = codec_threads()
        if self.tag is not None:
            context.codec_tag = self.tag
        context.options = options


def choices() -> str:
    """The encoders that a person may choose instead, for an error."""
    return "these work here: " + ", ".join(working_encoders())


def clock_of(encoder: str, time_base: Fraction, fps: Fraction) -> Fraction:
    """The unit of time an encoder can count in, as near as possible to the wished one."""
    if encoder in ("mpeg1video", "mpeg2video"):
        return 1 / fps
    if encoder in _SHORT_CLOCKS and time_base.denominator > _MAX_SHORT_CLOCK:
        return Fraction(1, 1000)
    return time_base


def longest_step(encoder: str, clock: Fraction) -> int | None:
    """The most ticks from a frame to the next that an encoder can count; None for any number."""
    seconds = _LONGEST_SECONDS.get(encoder)
    return None if seconds is None else int(seconds / clock)


def frame_settings(
    encoder: str, options: Mapping[str, str], frame: Frame, *, fps: Fraction, time_base: Fraction
) -> EncoderSettings:
    """Settings for frames of one size; the pixel format is left to the caller.

    Args:
        encoder: FFmpeg's name.
        options: Of the encoder.
        frame: The first frame.
        fps: Nominal frame rate.
        time_base: The wished unit of timestamps, in seconds.
    """
    return EncoderSettings(
        encoder=encoder,
        width=frame.width,
        height=frame.height,
        pixel_format="",
        fps=fps,
        time_base=clock_of(encoder, time_base, fps),
        options=options,
    )


def find_settings(candidates: Sequence[EncoderSettings]) -> EncoderSettings:
    """The first of some settings with which their encoder opens.

    Raises:
        WriteError: It opens with none.
        ValueError: There are none.
    """
    if not candidates:
        raise ValueError("no settings to choose from")
    first_error: Exception | None = None
    # some encoders know whole frames only, and do not open for others
    progressive = [replace(each, field_order=0) for each in candidates if each.field_order > 1]
    for settings in [*candidates, *progressive]:
        context = av.CodecContext.create(settings.encoder, "w")
        if not isinstance(context, VideoCodecContext):
            break
        try:
            settings.apply(context)
            _quiet()
            open_encoder(context)
        except (FFmpegError, OSError, ValueError, OverflowError) as error:
            first_error = first_error or error
            continue
        return settings
    raise WriteError(_why_not_open(candidates[0])) from first_error


def open_encoder(context: CodecContext) -> None:
    """Open an encoder, and leave threads the priority that they have.

    Where it may, as root in a container, SVT-AV1 makes itself and the thread that opens it
    real-time ones, which hold up everything else on the machine.

    Raises:
        FFmpegError: It does not open.
    """
    if not hasattr(os, "sched_getscheduler") or not os.path.isdir(_TASKS):
        context.open()
        return
    before = {}
    for task in os.listdir(_TASKS):
        with suppress(OSError):
            before[task] = os.sched_getscheduler(int(task))
    mine = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        context.open()
    finally:
        for task in os.listdir(_TASKS):
            # a thread may end at any time, and what may not be changed stays
            with suppress(OSError):
                if os.sched_getscheduler(int(task)) != before.get(task, mine[0]):
                    os.sched_setscheduler(int(task), *mine)


def _why_not_open(settings: EncoderSettings) -> str:
    encoder = settings.encoder
    size = f"{settings.width}x{settings.height}"
    if _opens(encoder):
        return (
            f"the encoder {encoder} does not open for {size} pixels with these options "
            f"({_as_text(settings.options)}); change them, or choose another encoder."
        )
    return f"the encoder {encoder} does not open on this machine; {choices()}."


def _as_text(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _quiet() -> None:
    # SVT-AV1 reports to the terminal past FFmpeg's logging; 0 leaves fatal errors
    os.environ.setdefault("SVT_LOG", "0")


def _opens(encoder: str) -> bool:
    """Whether an encoder makes a packet from a small grey picture."""
    try:
        formats = av.Codec(encoder, "w").video_formats or ()
        names = [pixel_format.name for pixel_format in formats] or ["yuv420p"]
        settings = EncoderSettings(
            encoder=encoder,
            width=256,
            height=144,
            pixel_format="yuv420p" if "yuv420p" in names else names[0],
            fps=Fraction(25),
            time_base=Fraction(1, 25),
            options=DEFAULTS.get(encoder, {}),
        )
        context = av.CodecContext.create(encoder, "w")
        if not isinstance(context, VideoCodecContext):
            return False
        settings.apply(context)
        _quiet()
        open_encoder(context)
        picture = av.VideoFrame(settings.width, settings.height, settings.pixel_format)
        picture.pts = 0
        return bool(context.encode(picture) + context.encode(None))
    except (FFmpegError, OSError, ValueError):
        return False


def working_encoders() -> list[str]:
    """Video encoders that really work on this machine, each tried with a small picture."""
    av.logging.set_level(None)
    return [encoder for encoder in DEFAULTS if _opens(encoder)]
