"""What can be typed: the arguments of each command. Imports nothing heavy."""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from mhnet_video import __version__
from mhnet_video.config import (
    ENGINES,
    VIEWS,
    AppConfig,
    Box,
    LiveConfig,
    LiveOutputs,
    RestoreConfig,
    TrainConfig,
)
from mhnet_video.tasks import DEFAULT, TASKS, TRAINED

T = TypeVar("T")

_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+\.?\d*|\.\d+)")
"""A time as seconds, `M:SS` or `H:MM:SS`, with decimals."""


def _removed(names: Iterable[str]) -> Iterator[str]:
    """What tasks take out, for a help text."""
    return (f"{name}, {TASKS[name].removes}" for name in names)


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
    "align": "move neighbours to where the middle frame shows the same, before the network",
    "task": f"what to take out: {'; '.join(_removed(TRAINED))}",
    "batch": "pictures of a step",
    "crop": "side of the training pictures, in pixels, at first",
    "final_crop": "side of the training pictures later on",
    "learning_rate": "at its highest",
    "seed": "of the weights and of the rain",
    "device": "auto, cpu, cuda, cuda:N or mps",
    "init": "model or weights file to begin with, of these sizes or smaller",
    "description": "what the weights file says of itself",
}

_NETWORK_SETTINGS = ("model", "task", "weights", "device", "engine", "scale")

_COMMANDS_HELP = """\
other commands, each with a --help of its own:
  mhnet-video batch SOURCE... FOLDER  many files: folders, cards, trips, archives
  mhnet-video live [SOURCE]           a camera, restored as it comes: window, browser, recording
  mhnet-video app                     a page for files: drop clips on it, compare, download
  mhnet-video evaluate RAINY CLEAN    PSNR and SSIM of folders of pictures or clips, or two clips
  mhnet-video train ...               train a network
  mhnet-video export MODEL OUT.onnx   a model as an ONNX file, for other engines
  mhnet-video bench                   how fast this machine is, by engine and stage
  mhnet-video verify FILE.json        whether files are what --evidence wrote of them
  mhnet-video info                    versions, devices, models and encoders of this machine

TIME is seconds or H:MM:SS.mmm. A file named like a command is ./evaluate. The exit status is
0, 1 after an error, 2 for wrong usage, and 130 after an interrupt, which leaves a playable file,
or with --resume segments to go on from.
"""


_LIVE_HELP = """\
keys, in the window and on the page:
  space  freeze             +, -    strength
  s      next view          m       next model
  r      record             i       statistics
  drag the line between before and after with the mouse, or with the left and right keys;
  q or Esc quits the window
"""


def from_options(settings: type[T], options: argparse.Namespace, **others: Any) -> T:
    """Settings from the options of their names.

    Args:
        settings: A dataclass.
        options: What was typed; options of other names are passed over.
        others: Fields that no option has the value of.

    Raises:
        ConfigError: A value is out of range.
    """
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(options).items()
        if name in {field.name for field in fields(settings)}  # type: ignore[arg-type]
    }
    return settings(**values | others)


def take_defaults(parser: argparse.ArgumentParser, settings: type) -> None:
    """Give the options of a parser the defaults of the settings of their names."""
    for field in fields(settings):
        # argparse appends to a copy, which must be a list
        default = [] if field.default == () else field.default
        parser.set_defaults(**{field.name: default})


def restore_parser() -> argparse.ArgumentParser:
    """The arguments of the main job."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video",
        description="Take the rain out of a video, and change nothing else about the file.",
        epilog=_COMMANDS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="INPUT", help="video, picture or folder of pictures; - for stdin")
    add("destination", metavar="OUTPUT", help="file or folder to create; - for Matroska on stdout")
    add_model_arguments(parser)
    add_strength(parser)
    add("--start", type=_time, metavar="TIME", help="where to begin")
    add("--duration", type=_time, metavar="TIME", help="how much to restore")
    add_keep(parser)
    add_encoding(parser)
    add("--compare", action="store_true", help="write before and after side by side")
    add("--sheet", metavar="PNG", help="also save a contact sheet of moments before and after")
    add_companions(parser)
    add("--overwrite", action="store_true", help="replace existing files")
    add(
        "--resume",
        action="store_true",
        help="work in segments, and go on from those that a run before has left beside OUTPUT",
    )
    add_reporting(parser, "show a progress bar, or none (default: on a terminal)")
    add("--version", action="version", version=f"mhnet-video {__version__}")
    take_defaults(parser, RestoreConfig)
    return parser


def live_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video live`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video live",
        description="Restore a camera, a stream or a file as it comes, and show it in a window.",
        epilog=_LIVE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="camera number or /dev/videoN, rtsp://, http://, udp://, tcp:// or srt:// address, "
        "a file, played at its own speed, or `visitor`: the camera of whoever opens the page of "
        "--serve (default: the first camera)",
    )
    add("--list", action="store_true", help="list the cameras with their formats, and end")
    add_model_arguments(parser, scale="what holds the source's rate here", takes_several=False)
    add(
        "--size",
        type=_size,
        metavar="WxH",
        help="ask the camera for this size; shrink other sources to fit into it",
    )
    add(
        "--fps",
        type=float,
        metavar="N",
        help="ask the camera for N frames a second; take no more of other sources",
    )
    add("--loop", action="store_true", help="begin a file again at its end")
    add_strength(parser)
    add_keep(parser)
    add(
        "--view",
        choices=VIEWS,
        help="how the picture is shown at first (default: %(default)s)",
    )
    add(
        "--serve",
        metavar="[HOST:]PORT",
        help="show it in browsers instead of a window (default host: this machine only)",
    )
    add("--record", metavar="FILE", help="record to this file, at the times of the camera")
    add(
        "--segment",
        type=_time,
        metavar="TIME",
        help="begin another recording after this time: FILE-0001, FILE-0002 and so on",
    )
    add("--overwrite", action="store_true", help="replace existing recordings")
    add(
        "--output",
        metavar="URL",
        help="send it to an rtsp://, rtmp://, srt://, udp://, tcp:// or http:// address, or write "
        "it to standard output (-), both with the source's sound; or be a camera, v4l2:/dev/videoN",
    )
    add(
        "--format",
        metavar="NAME",
        help="what standard output gets: mpegts, nut, h264 or mjpeg, the last two without sound "
        "(default: %(default)s)",
    )
    add("--seconds", type=_time, metavar="TIME", help="end this long after the first is shown")
    add("--stats", action="store_true", help="print a line of statistics every second")
    take_defaults(parser, LiveConfig)
    take_defaults(parser, LiveOutputs)
    return parser


def app_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video app`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video app",
        description="Serve a page for files: drop clips on it, draw what is to be left alone, "
        "compare before and after, and download the results.",
        epilog="What was uploaded is removed when the page ends, and so are results without "
        "--folder. Both are on the disk that TMPDIR names, with --folder in that folder.",
    )
    add = parser.add_argument
    add(
        "--serve",
        metavar="[HOST:]PORT",
        help="where the page is (default: %(default)s; default host: this machine only)",
    )
    add("--folder", metavar="FOLDER", help="keep results in this folder, which is created")
    add(
        "--device",
        type=_device,
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="where the network runs (default: %(default)s)",
    )
    take_defaults(parser, AppConfig)
    parser.set_defaults(device=RestoreConfig.device)
    return parser


def evaluate_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video evaluate`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video evaluate",
        description="PSNR and SSIM, on Y and on RGB, of each picture, frame, or clip of a folder, "
        "and of all on average; of clips also the flicker: how much the difference from CLEAN "
        "changes from one frame to the next, in levels of Y. Without CLEAN: how much clips of a "
        "fixed camera, of eight frames and more, flicker where nothing moves, and how much is "
        "removed from them.",
        epilog="Files of two folders are matched by name, or by order where no name matches. "
        "Successive pictures of a folder that show one scene are restored as a clip's frames.",
    )
    parser.add_argument(
        "rainy", metavar="RAINY", help="picture, clip, or folder of either or of folders"
    )
    parser.add_argument("clean", metavar="CLEAN", nargs="?", help="the same without rain")
    parser.add_argument(
        "--mask",
        metavar="MASK",
        help="picture, clip or folder of either, white where drops are: also PSNR of Y inside and "
        "outside; a picture holds for all frames of a clip",
    )
    add_model_arguments(parser, model="that of --task; without both and --weights, no restoration")
    parser.set_defaults(device=RestoreConfig.device, engine=RestoreConfig.engine)
    parser.add_argument(
        "--sheet", metavar="PNG", help="also save some of the pictures, side by side"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the sheet if it exists")
    _add_json(parser)
    return parser


def _type_of(default: object) -> type:
    """The type of a setting's argument: that of its default, or text without one."""
    return str if default is None or default is MISSING else type(default)


def train_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video train`: those of TrainConfig."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video train",
        description="Train a network on clean pictures and clips with synthetic rain, for a time.",
        epilog="Run it again with the same arguments to go on where it stopped.",
    )
    for field in fields(TrainConfig):
        option, said = "--" + field.name.replace("_", "-"), _TRAIN_HELP[field.name]
        if isinstance(field.default, bool):
            parser.add_argument(option, action="store_true", help=said)
            continue
        usual: Any = field.default
        parse: Callable[[str], Any]
        if isinstance(usual, tuple):
            parse, metavar, usual = _counts, "N,N,...", ",".join(map(str, usual))
        else:
            parse, metavar = _type_of(usual), field.name.upper()
        has_usual = usual is not MISSING and usual is not None
        parser.add_argument(
            option,
            required=usual is MISSING,
            type=parse,
            metavar=metavar,
            help=f"{said} (default: {usual})" if has_usual else said,
        )
    take_defaults(parser, TrainConfig)
    return parser


def verify_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video verify`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video verify",
        description="Check what --evidence wrote: hashes of source, output and weights, the number "
        "of frames and their PTS, and that the output decodes to the changes that are told.",
        epilog="The exit status is 1 if anything differs.",
    )
    parser.add_argument("evidence", metavar="FILE.json", help="what --evidence wrote")
    _add_json(parser)
    return parser


def export_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video export`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video export",
        description="Write a model as an ONNX file. ONNX Runtime runs it first, and the largest "
        "difference from PyTorch is printed.",
        epilog="It takes a minute or more, most of it for the alignment.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="model, weights file or folder, or OWNER/NAME")
    add("destination", metavar="OUT.onnx", help="file to create")
    add(
        "--size",
        type=_any_size,
        default=(640, 480),
        metavar="WxH",
        help="size of the frames, or dynamic for any multiples of 32 (default: 640x480)",
    )
    add(
        "--no-align",
        dest="aligns",
        action="store_false",
        help="leave the alignment out: the file takes windows that are aligned already",
    )
    add("--overwrite", action="store_true", help="replace an existing file")
    _add_json(parser)
    return parser


def info_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video info`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video info",
        description="Print versions, devices, models, and the video encoders that open here.",
    )
    _add_json(parser)
    return parser


def bench_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video bench`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video bench",
        description="Measure this machine: engines side by side, each stage, and file to file.",
        epilog="An engine whose result differs from that of PyTorch in float32 has no time. "
        "For reliable figures, run nothing else meanwhile.",
    )
    from mhnet_video.pipelines.bench import DEFAULT_FRAMES, DEFAULT_SIZE, ISAS

    add = parser.add_argument
    _add_network_arguments(parser, "the one for the CPU")
    parser.set_defaults(model=RestoreConfig.model)
    add(
        "--size",
        type=_size,
        action="append",
        metavar="WxH",
        help="size of the pictures; may be repeated (default: {}x{})".format(*DEFAULT_SIZE),
    )
    add(
        "--frames",
        type=int,
        default=DEFAULT_FRAMES,
        metavar="N",
        help="length of the synthetic clips (default: %(default)s)",
    )
    add("--isa", choices=ISAS, help="forbid all instructions beyond these")
    add(
        "--gpu",
        action="store_true",
        help="measure the GPU instead: kernels, networks, streams and files, up to ten minutes",
    )
    add("--json", metavar="FILE", help="also save the figures for programs")
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    return parser


def add_companions(parser: argparse.ArgumentParser) -> None:
    """The files that stand beside an output."""
    parser.add_argument(
        "--gpx",
        action="store_true",
        help="also save where the camera was, beside the output as .gpx",
    )
    parser.add_argument(
        "--evidence",
        action="store_true",
        help="also save hashes, settings and what was done to each frame, beside the output as "
        ".evidence.json",
    )


def add_reporting(parser: argparse.ArgumentParser, progress: str) -> None:
    """What is printed of a run.

    Args:
        parser: Takes the arguments.
        progress: What `--progress` shows.
    """
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help=progress)
    _add_json(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result for programs")


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Add the options of the encoder."""
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="FFmpeg's name of a video encoder, such as libx265 or h264_nvenc",
    )
    parser.add_argument(
        "--crf", type=int, metavar="N", help="the encoder's quality, lower is better"
    )
    parser.add_argument("--preset", metavar="P", help="the encoder's speed, such as medium")
    parser.add_argument(
        "--encoder-option",
        type=_pair,
        action="append",
        dest="encoder_options",
        metavar="K=V",
        help="any other option of the encoder; may be repeated",
    )


def add_strength(parser: argparse.ArgumentParser) -> None:
    """Add `--strength`."""
    parser.add_argument(
        "--strength",
        type=float,
        metavar="0..1",
        help="share of the restoration that is applied (default: %(default)s)",
    )


def add_keep(parser: argparse.ArgumentParser) -> None:
    """Add `--keep`."""
    parser.add_argument(
        "--keep",
        type=_box,
        action="append",
        metavar="X,Y,W,H",
        help="leave this box of the coded picture untouched; may be repeated",
    )


def _add_network_arguments(parser: argparse.ArgumentParser, model: str) -> None:
    parser.add_argument(
        "--model", metavar="NAME", help=f"`mhnet-video info` lists them (default: {model})"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights to use instead of a model: a file, a folder or OWNER/NAME on Hugging Face",
    )


def add_model_arguments(
    parser: argparse.ArgumentParser,
    model: str = "the one for the device",
    scale: str = "1; on a CPU as many rows as a scene is sharp, and 1080 of more than 1200",
    *,
    takes_several: bool = True,
) -> None:
    """Add the options of the network.

    Args:
        parser: Where to.
        model: The default model, as the help says it.
        scale: The default scale, likewise.
        takes_several: Whether GPUs may share the work.
    """
    several = "; several GPUs as in cuda:0,cuda:1" if takes_several else ""
    _add_network_arguments(parser, model)
    parser.add_argument(
        "--task",
        choices=tuple(TASKS),
        help=f"what to take out: {'; '.join(_removed(TASKS))} (default: what the model or weights "
        f"that are named are for, {DEFAULT} without)",
    )
    parser.add_argument(
        "--device",
        type=_device,
        metavar="auto|cpu|cuda|cuda:N|mps",
        help=f"where the network runs{several} (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        help="what runs it: PyTorch, or kernels for this CPU or GPU (default: %(default)s)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        metavar="0..1",
        help=f"working scale of the network (default: {scale})",
    )


def network_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options about the network, by the names that `Restorer` and `evaluate` have for them."""
    return {name: getattr(options, name) for name in _NETWORK_SETTINGS}


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
    if re.fullmatch(r"auto|cpu|mps|cuda|cuda:\d+(,cuda:\d+)*", text) is None:
        raise argparse.ArgumentTypeError(f"a device is auto, cpu, cuda, cuda:N or mps, not {text}")
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


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"a size is WxH in pixels, such as 1280x720, not {text}")
    return int(match[1]), int(match[2])


def _any_size(text: str) -> tuple[int, int] | None:
    return None if text == "dynamic" else _size(text)


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
