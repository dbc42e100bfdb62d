"""What can be typed: the arguments of each command. Imports nothing heavy."""

import argparse
import re
from dataclasses import MISSING, fields

from mhnet_video import __version__
from mhnet_video.config import Box, RestoreConfig, TrainConfig

_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+\.?\d*|\.\d+)")

_TRAIN_HELP = {
    "data": "folder with photos/ and clips/ without rain",
    "output": "folder for the checkpoint, the log, pictures and the weights",
    "minutes": "time to train",
    "width": "channels at full resolution",
    "encoder_blocks": "blocks of each encoder level",
    "decoder_blocks": "blocks of each decoder level",
    "group_blocks": "blocks of each group of the full-resolution net",
    "frames": "frames that the network sees at once, odd",
    "patch": "side of the pixel blocks folded into channels",
    "batch": "pictures of a step",
    "crop": "side of the training pictures, in pixels, at first",
    "final_crop": "side of the training pictures later on",
    "learning_rate": "of AdamW, at its highest",
    "seed": "of the weights and of the rain",
    "device": "auto, cpu, cuda or cuda:N",
    "init": "weights file to begin with",
    "description": "what the weights file says of itself",
}

_COMMANDS_HELP = """\
other commands, each with a --help of its own:
  mhnet-video evaluate RAINY CLEAN   PSNR and SSIM of folders of pictures, or of two clips
  mhnet-video train ...              train a network
  mhnet-video info                   versions, devices, models and encoders of this machine

TIME is seconds or H:MM:SS.mmm. A file named like a command is ./evaluate. The exit status is
0, 1 after an error, 2 for wrong usage, and 130 after an interrupt, which leaves a playable file.
"""


def restore_parser() -> argparse.ArgumentParser:
    """The arguments of the main job."""
    defaults = RestoreConfig()
    parser = argparse.ArgumentParser(
        prog="mhnet-video",
        description="Take the rain out of a video, and change nothing else about the file.",
        epilog=_COMMANDS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="INPUT", help="video or image; - for standard input")
    add("destination", metavar="OUTPUT", help="file to create; - for Matroska on standard output")
    _add_model_arguments(parser, default=defaults.model)
    add(
        "--strength",
        type=float,
        default=defaults.strength,
        metavar="0..1",
        help="share of the restoration that is applied (default: %(default)s)",
    )
    add("--start", type=_time, metavar="TIME", help="where to begin")
    add("--duration", type=_time, metavar="TIME", help="how much to restore")
    add(
        "--keep",
        type=_box,
        action="append",
        default=[],
        metavar="X,Y,W,H",
        help="leave this box of the coded picture untouched; may be repeated",
    )
    add("--encoder", metavar="NAME", help="FFmpeg's name of a video encoder, such as libx265")
    add("--crf", type=int, metavar="N", help="the encoder's quality, lower is better")
    add("--preset", metavar="P", help="the encoder's speed, such as medium")
    add(
        "--encoder-option",
        type=_pair,
        action="append",
        default=[],
        metavar="K=V",
        help="any other option of the encoder; may be repeated",
    )
    add("--compare", action="store_true", help="write before and after side by side")
    add("--sheet", metavar="PNG", help="also save a contact sheet of moments before and after")
    add("--overwrite", action="store_true", help="replace an existing OUTPUT")
    add("--quiet", action="store_true", help="print errors only")
    add(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar, or none (default: on a terminal)",
    )
    add("--json", action="store_true", help="print the result for programs")
    add("--version", action="version", version=f"mhnet-video {__version__}")
    return parser


def evaluate_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video evaluate`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video evaluate",
        description="PSNR and SSIM, on Y and on RGB, of each picture and of all on average.",
        epilog="Pictures of two folders are matched by name, or by order where no name matches.",
    )
    parser.add_argument("rainy", metavar="RAINY", help="folder of pictures, picture or clip")
    parser.add_argument("clean", metavar="CLEAN", help="the same without rain")
    _add_model_arguments(parser, default=None)
    parser.add_argument("--json", action="store_true", help="print the result for programs")
    return parser


def train_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video train`: those of TrainConfig."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video train",
        description="Train a network on clean pictures and clips with synthetic rain, for a time.",
        epilog="Run it again with the same arguments to go on where it stopped.",
    )
    for field in fields(TrainConfig):
        is_needed = field.default is MISSING
        is_tuple = isinstance(field.default, tuple)
        said = "" if is_needed or field.default is None else " (default: %(default)s)"
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            required=is_needed,
            type=_counts if is_tuple else str if is_needed else type(field.default or ""),
            default=None if is_needed else field.default,
            metavar="N,N,..." if is_tuple else field.name.upper(),
            help=_TRAIN_HELP.get(field.name, "") + said,
        )
    return parser


def info_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video info`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video info",
        description="Tell versions, devices, models, and the video encoders that open here.",
    )
    parser.add_argument("--json", action="store_true", help="print it for programs")
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser, default: str | None) -> None:
    said = "default: the one for the device" if default else "default: the pictures as they are"
    parser.add_argument(
        "--model", default=default, metavar="NAME", help=f"`mhnet-video info` lists them ({said})"
    )
    parser.add_argument("--weights", metavar="FILE", help="weights file to use instead of a model")
    parser.add_argument(
        "--device",
        type=_device,
        default=RestoreConfig().device,
        metavar="auto|cpu|cuda|cuda:N",
        help="where the network runs (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "llvm"),
        default=RestoreConfig().engine,
        help="what runs it: PyTorch, or kernels compiled for this CPU (default: %(default)s)",
    )


def parse_time(text: str) -> float:
    """Seconds of a time written as seconds, `MM:SS` or `H:MM:SS`, each with decimals or without.

    Raises:
        ValueError: It is written in another way.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a time: {text}")
    hours, minutes = int(match["hours"] or 0), int(match["minutes"] or 0)
    seconds = float(match["seconds"])
    if (match["hours"] and minutes > 59) or (match["minutes"] and seconds >= 60):
        raise ValueError(f"not a time: {text}")
    return hours * 3600 + minutes * 60 + seconds


def parse_box(text: str) -> Box:
    """A box written as `X,Y,W,H`.

    Raises:
        ValueError: It is written in another way.
    """
    x, y, width, height = (int(part) for part in text.split(","))
    return Box(x, y, width, height)


def _device(text: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"a device is auto, cpu, cuda or cuda:N, not {text}")
    return text


def _time(text: str) -> float:
    try:
        return parse_time(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a time is seconds or H:MM:SS.mmm, not {text}") from None


def _box(text: str) -> Box:
    try:
        return parse_box(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a box is X,Y,W,H in pixels, not {text}") from None


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"counts are N,N,..., not {text}") from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"an option of the encoder is K=V, not {text}")
    return key, value
