"""Which video encoder a container gets, which pixel format of it loses least, and how it opens."""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction

import av
from av.codec.context import CodecContext, Flags
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from mhnet_video.errors import WriteError
from mhnet_video.frame import PixelLayout
from mhnet_video.media.pixel_formats import layout_of, planar_twin
from mhnet_video.media.prefetch import codec_threads

_TASKS = "/proc/self/task"
# options of the encoders worth naming to a person, the most usual first;
# a lookahead of ten frames: what a killed run has not yet written stays below a second
_DEFAULTS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "17", "preset": "veryfast", "rc-lookahead": "10"},
    "libx265": {"crf": "19", "preset": "faster", "x265-params": "log-level=none:rc-lookahead=10"},
    "libsvtav1": {"crf": "20", "preset": "8"},
    "libvpx-vp9": {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
    | {"lag-in-frames": "10"},
    "libvpx": {"crf": "6", "b": "100M", "deadline": "good", "cpu-used": "4"},
    "ffv1": {"level": "3", "slicecrc": "1", "g": "1"},
    "mpeg4": {"flags": "+qscale", "global_quality": "236"},
    "mpeg2video": {"flags": "+qscale", "global_quality": "236"},
    # the JPEG standard knows full range only; what has a limited one keeps it
    "mjpeg": {"flags": "+qscale", "global_quality": "236", "strict": "unofficial"},
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
_X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_QUALITY = {"nvenc": "cq", "qsv": "global_quality"}
"""Encoders whose quality has another name."""
# what sets the number of bits, and our defaults of quality, which would outrank it
_RATES = ("b", "qp", "rc")
_QUALITIES = ("crf", "cq", "q", "b", "rc", "global_quality", "flags")
TOP_FIRST, BOTTOM_FIRST = 2, 3  # AV_FIELD_TT, AV_FIELD_BB
_MARKING = re.compile("264|ffv1|mpeg4|mpeg2video|prores|dvvideo|rawvideo|^png$")
"""Encoders that mark interlaced frames; others open for them, and do not."""
_COARSE = re.compile(r"(rgb|bgr)(4|8|4_byte|(444|555|565)..)|pal8|mono.|.*f(16|32)[bl]e")
"""Pixel formats of few colours, and of floating-point numbers."""
# the range of times that MPEG-4 part 2 and its kin can count in
_MAX_SHORT_CLOCK = 65535
_SHORT_CLOCKS = ("mpeg4", "msmpeg4", "h263", "h263p", "flv", "libxvid")
_LONGEST_SECONDS = {"mpeg4": 86_400, "libxvid": 86_400}
"""MPEG-4 part 2 counts the seconds of a pause up to a day."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Everything an encoder must be told before it opens."""

    encoder: str
    width: int
    height: int
    pixel_format: str
    fps: Fraction
    time_base: Fraction
    options: Mapping[str, str]
    sample_aspect_ratio: Fraction | None = None
    color: Mapping[str, int] = field(default_factory=dict)
    """`color_range`, `colorspace`, `color_primaries` and `color_trc`, as FFmpeg's numbers."""
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


def encoder_options(
    encoder: str,
    *,
    crf: int | None = None,
    preset: str | None = None,
    options: tuple[tuple[str, str], ...] = (),
) -> dict[str, str]:
    """The options of an encoder: its defaults here, then the person's.

    Raises:
        WriteError: There is no such encoder, or it has no such option.
    """
    _check_encoder(encoder)
    merged = dict(_DEFAULTS.get(encoder, {}))
    known = option_names(encoder)
    if crf is not None:
        quality = next((q for kind, q in _QUALITY.items() if encoder.endswith(kind)), "crf")
        if quality not in known:
            raise WriteError(
                f"the encoder {encoder} has no crf; leave --crf out or choose libx264."
            )
        merged[quality] = str(crf)
    if preset is not None:
        if "preset" not in known:
            raise WriteError(f"the encoder {encoder} has no presets; leave --preset out.")
        is_number = preset in [str(number) for number in range(len(_X_PRESETS))]
        if encoder in ("libx264", "libx265") and not is_number and preset not in _X_PRESETS:
            raise WriteError(
                f"the encoder {encoder} has no preset {preset!r}; "
                f"choose one of {', '.join(_X_PRESETS)}."
            )
        merged["preset"] = preset
    if crf is None and any(name in _RATES for name, _ in options):
        # who says how many bits there are, says how good they can be
        merged = {name: value for name, value in merged.items() if name not in _QUALITIES}
    for name, value in options:
        if name not in known:
            raise WriteError(f"the encoder {encoder} has no option {name!r}; check its spelling.")
        if name in ("x264-params", "x265-params"):
            value = f"{merged.get(name, '')}:{value}".strip(":")
        merged[name] = value
    return merged


def _check_encoder(encoder: str) -> None:
    try:
        codec = av.Codec(encoder, "w")
        is_video = codec.type == "video" and codec.name == encoder
    except ValueError:
        is_video = False
    if not is_video:
        raise WriteError(f"there is no video encoder {encoder!r}; {_choices()}.")


def _choices() -> str:
    return "these work here: " + ", ".join(working_encoders())


def option_names(encoder: str) -> set[str]:
    """The names of an encoder's options."""
    options = av.CodecContext.create(encoder, "w").supported_options
    return {option.name for option in (*options.generic, *options.private)}


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


def pixel_formats(encoder: str, layout: PixelLayout, source: str, *, is_full: bool) -> list[str]:
    """Pixel formats of an encoder, the one that loses least of a layout first.

    Args:
        encoder: FFmpeg's name.
        layout: The layout of the frames.
        source: FFmpeg's name of the source's pixel format, taken where the encoder has it.
        is_full: Whether the samples span the full range.

    Raises:
        WriteError: It takes none that this layout can be turned into.
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
        raise WriteError(f"the encoder {encoder} takes none of this video's pixels; {_choices()}.")
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


def find_settings(make: Callable[[str], EncoderSettings], formats: list[str]) -> EncoderSettings:
    """The first of the pixel formats with which the encoder opens.

    Raises:
        WriteError: It opens with none.
        ValueError: There are none.
    """
    if not formats:
        raise ValueError("no pixel formats to choose from")
    first_error: Exception | None = None
    candidates = [make(pixel_format) for pixel_format in formats]
    # some encoders know whole frames only, and do not open for others
    candidates += [replace(each, field_order=0) for each in candidates if each.field_order > 1]
    for settings in candidates:
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
    return f"the encoder {encoder} does not open on this machine; {_choices()}."


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
            options=_DEFAULTS.get(encoder, {}),
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
    return [encoder for encoder in _DEFAULTS if _opens(encoder)]
