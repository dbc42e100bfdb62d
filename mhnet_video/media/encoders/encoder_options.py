"""The options of an encoder: defaults, and what a person asks for."""

import av

from mhnet_video.errors import WriteError
from mhnet_video.media.encoders.encoder import DEFAULTS, choices

_X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
"""Presets of x264 and x265, from the fastest."""
_QUALITY = {"nvenc": "cq", "qsv": "global_quality"}
"""Names of the quality option where it is not `crf`, by the end of the encoder's name."""
_RATES = ("b", "qp", "rc")
"""Options that set the bit rate."""
_SEARCH = ("partitions",)
"""Our defaults of the search, which a preset that a person names determines."""
_QUALITIES = ("crf", "cq", "q", "b", "rc", "global_quality", "flags", "qmin")
"""Our defaults of quality, which would outrank a bit rate."""
_SCALED = (
    *("mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2"),
    *("h263", "h263p", "flv", "rv10", "rv20", "speedhq"),
)
"""Encoders that take their quality from each frame, where `ffmpeg` writes the one asked for and
PyAV nothing: they have the best scale of `qmin` to `qmax`, whatever `global_quality` says."""
_SCALE_UNIT = 118
"""FFmpeg's FF_QP2LAMBDA: `global_quality` is the scale times this."""


def encoder_options(
    encoder: str,
    *,
    crf: int | None = None,
    preset: str | None = None,
    options: tuple[tuple[str, str], ...] = (),
) -> dict[str, str]:
    """The options of an encoder: its defaults here, then the person's.

    Raises:
        WriteError: There is no such encoder, it has no such option, or one is set twice.
    """
    _check_encoder(encoder)
    merged = dict(DEFAULTS.get(encoder, {}))
    known = option_names(encoder)
    if crf is not None:
        quality = next((q for kind, q in _QUALITY.items() if encoder.endswith(kind)), "crf")
        if quality not in known:
            raise WriteError(f"the encoder {encoder} has no crf; leave --crf out.")
        _check_once(quality, "--crf", options)
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
        _check_once("preset", "--preset", options)
        merged["preset"] = preset
    if preset is not None or any(name == "preset" for name, _ in options):
        merged = {name: value for name, value in merged.items() if name not in _SEARCH}
    if crf is None and any(name in _RATES for name, _ in options):
        # a bit rate determines the quality
        merged = {name: value for name, value in merged.items() if name not in _QUALITIES}
    for name, value in options:
        if name not in known:
            raise WriteError(f"the encoder {encoder} has no option {name!r}; check its spelling.")
        if name in ("x264-params", "x265-params"):
            value = f"{merged.get(name, '')}:{value}".strip(":")
        if name == "global_quality" and encoder in _SCALED:
            merged |= dict.fromkeys(("qmin", "qmax"), _scale(encoder, value))
            continue
        merged[name] = value
    return merged


def _check_once(name: str, flag: str, options: tuple[tuple[str, str], ...]) -> None:
    """Check that an option is not set in two ways.

    Raises:
        WriteError: It is.
    """
    if any(name == other for other, _ in options):
        raise WriteError(f"{flag} and --encoder-option {name} set the same; leave one of them out.")


def _scale(encoder: str, quality: str) -> str:
    """The scale of a `global_quality`, from 1, the best, to 31.

    Raises:
        WriteError: It is no number.
    """
    try:
        return str(round(float(quality) / _SCALE_UNIT))
    except (ValueError, OverflowError) as error:
        raise WriteError(
            f"the global_quality of the encoder {encoder} is a number, {_SCALE_UNIT} (the best) "
            f"to {31 * _SCALE_UNIT}, and not {quality!r}."
        ) from error


def _check_encoder(encoder: str) -> None:
    try:
        codec = av.Codec(encoder, "w")
        is_video = codec.type == "video" and codec.name == encoder
    except ValueError:
        is_video = False
    if not is_video:
        raise WriteError(f"there is no video encoder {encoder!r}; {choices()}.")


def option_names(encoder: str) -> set[str]:
    """The names of an encoder's options."""
    options = av.CodecContext.create(encoder, "w").supported_options
    return {option.name for option in (*options.generic, *options.private)}
