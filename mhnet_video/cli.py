"""The command line: read the arguments, run a pipeline, tell how it went.

Exit status: 0, 1 after an error, 2 for wrong usage, 130 after an interrupt.
"""

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mhnet_video import __version__
from mhnet_video.config import Box, RestoreConfig
from mhnet_video.errors import ConfigError, MHNetVideoError
from mhnet_video.terminal import progress_bar, stop_on_signals

if TYPE_CHECKING:
    from mhnet_video.pipelines.evaluate import Evaluation
    from mhnet_video.pipelines.restore import Report

_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+\.?\d*|\.\d+)")

_COMMANDS_HELP = """\
other commands, each with a --help of its own:
  mhnet-video evaluate RAINY CLEAN   PSNR and SSIM of folders of pictures, or of two clips
  mhnet-video train ...              train a network
  mhnet-video info                   versions, devices, models and encoders of this machine

TIME is seconds or H:MM:SS.mmm. A file named like a command is ./evaluate. The exit status is
0, 1 after an error, 2 for wrong usage, and 130 after an interrupt, which leaves a playable file.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What was typed after the program's name; None for the process's own.

    Returns:
        The exit status. Wrong usage and `--help` raise SystemExit, as argparse does.
    """
    _open_missing_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = _COMMANDS.get(words[0] if words else "")
    try:
        return command(words[1:]) if command else _restore(words)
    except ConfigError as error:
        return _fail(str(error), 2)
    except MHNetVideoError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return 1  # nobody reads any more, so there is nobody to tell
    except MemoryError:
        return _fail("the memory of this machine is not enough for a picture of this size")
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if os.environ.get("MHNET_DEBUG") == "1":
            raise
        cause = str(error).strip().partition("\n")[0]
        return _fail(
            f"a fault in this program, {type(error).__name__}: {cause} "
            "(MHNET_DEBUG=1 shows where; please report it)"
        )
    finally:
        _flush_stdout()


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


def _restore(words: list[str]) -> int:
    parser = _restore_parser()
    options = parser.parse_args(words)
    if options.source == "-" and sys.stdin.isatty():
        parser.error("standard input is the keyboard; pipe a video into it")
    if options.destination == "-" and sys.stdout.isatty():
        parser.error("standard output is the terminal; pipe it into a file or a program")
    config = RestoreConfig(
        model=options.model,
        weights=options.weights,
        device=options.device,
        strength=options.strength,
        start=options.start,
        duration=options.duration,
        keep=tuple(options.keep),
        encoder=options.encoder,
        crf=options.crf,
        preset=options.preset,
        encoder_options=tuple(options.encoder_option),
        compare=options.compare,
        overwrite=options.overwrite,
    )
    shown = options.progress
    if shown is None:
        shown = sys.stderr.isatty() and not options.quiet
    stop = threading.Event()
    with stop_on_signals(stop), progress_bar(shown) as on_progress:
        from mhnet_video.pipelines.restore import restore_video  # PyTorch loads here

        report = restore_video(
            options.source, options.destination, config, on_progress=on_progress, stop=stop
        )
    # a clip on standard output must stay a clip
    out = sys.stderr if options.destination == "-" else sys.stdout
    sheet = None
    if options.sheet and report.frames:
        from mhnet_video.contact import save_contact_sheet

        sheet = options.sheet
        save_contact_sheet(report.source, report.destination, sheet, start=config.start or 0.0)
    if options.json:
        print(_to_json(report.to_dict() | ({"sheet": sheet} if sheet else {})), file=out)
    elif not options.quiet:
        print("\n".join(_summary(report, sheet)), file=out)
    return 130 if report.interrupted else 0


def _summary(report: "Report", sheet: str | None) -> list[str]:
    name = "standard output" if report.destination == "-" else report.destination
    speed = f", {report.frames / report.seconds:.1f} a second" if report.seconds > 0 else ""
    lines = [
        f"{name}: {report.frames} frames in {report.seconds:.1f} s{speed}",
        f"  model {report.model} on {report.device}, {report.encoder} {report.pixel_format}",
    ]
    if report.kept:
        lines.append("  kept: " + ", ".join(report.kept))
    if report.lost:
        lines.append("  not kept: " + "; ".join(report.lost))
    if report.damaged:
        lines.append(f"  damaged: {report.damaged} packets or frames could not be decoded")
    if report.interrupted:
        lines.append("  interrupted: the file is complete up to the last frame above")
    if sheet:
        lines.append(f"  before and after: {sheet}")
    return lines


def _evaluate(words: list[str]) -> int:
    options = _evaluate_parser().parse_args(words)
    from mhnet_video.pipelines.evaluate import evaluate

    with progress_bar(sys.stderr.isatty() and not options.json) as on_progress:
        result = evaluate(
            options.rainy,
            options.clean,
            model=options.model,
            weights=options.weights,
            device=options.device,
            on_progress=on_progress,
        )
    print(_to_json(result.to_dict()) if options.json else "\n".join(_table(result)))
    return 0


def _table(result: "Evaluation") -> list[str]:
    width = max(len("mean"), *(len(row.name) for row in result.rows))
    figures = "{:>8} {:>7} {:>8} {:>8}"
    kinds = ["input"] if result.model is None else ["input", result.model]
    lines = [
        "  ".join([" " * width, *(f"{kind:^34}" for kind in kinds)]).rstrip(),
        "  ".join(
            [
                " " * width,
                *(figures.format("PSNR-Y", "SSIM-Y", "PSNR-RGB", "SSIM-RGB") for _ in kinds),
            ]
        ),
    ]
    for row in [*result.rows, result.mean]:
        cells = [
            figures.format(
                f"{scores.psnr_y:.2f}",
                f"{scores.ssim_y:.4f}",
                f"{scores.psnr_rgb:.2f}",
                f"{scores.ssim_rgb:.4f}",
            )
            for scores in (row.rainy, row.restored)
            if scores is not None
        ]
        lines.append("  ".join([f"{row.name:<{width}}", *cells]))
    return lines


def _train(words: list[str]) -> int:
    from mhnet_video.pipelines import train

    parser = argparse.ArgumentParser(prog="mhnet-video train", description="Train a network.")
    train.add_arguments(parser)
    return train.run(parser.parse_args(words))


def _info(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="mhnet-video info",
        description="Tell versions, devices, models, and the video encoders that open here.",
    )
    parser.add_argument("--json", action="store_true", help="print it for programs")
    options = parser.parse_args(words)
    from mhnet_video.pipelines.info import collect_info

    info = collect_info()
    print(_to_json(info.to_dict()) if options.json else "\n".join(info.lines()))
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "evaluate": _evaluate,
    "train": _train,
    "info": _info,
}


def _restore_parser() -> argparse.ArgumentParser:
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
        help="leave this box of pixels untouched; may be repeated",
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


def _evaluate_parser() -> argparse.ArgumentParser:
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


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"an option of the encoder is K=V, not {text}")
    return key, value


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _fail(message: str, status: int = 1) -> int:
    with suppress(OSError):
        print(f"mhnet-video: {message}", file=sys.stderr)
    return status


def _open_missing_streams() -> None:
    """Give closed standard streams a place to go.

    Otherwise the first file opened would take the number of a closed one, and messages for the
    terminal would be written into the clip.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _flush_stdout() -> None:
    """Write out what is printed; when nobody reads, keep Python from complaining at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
