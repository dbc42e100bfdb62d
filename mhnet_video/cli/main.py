"""The command line: read the arguments, run a pipeline, tell how it went.

Exit status: 0, 1 after an error, 2 for wrong usage, 130 after an interrupt.
"""

import io
import json
import os
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhnet_video.cli.arguments import (
    bench_parser,
    evaluate_parser,
    info_parser,
    live_parser,
    restore_parser,
    train_parser,
)
from mhnet_video.cli.terminal import progress_bar, stop_on_signals
from mhnet_video.config import LiveConfig, LiveOutputs, RestoreConfig, TrainConfig
from mhnet_video.errors import ConfigError, MHNetVideoError
from mhnet_video.locator import clean, hide, learn

if TYPE_CHECKING:
    from argparse import Namespace

    from mhnet_video.live.session import LiveStatistics
    from mhnet_video.pipelines.evaluate import Evaluation
    from mhnet_video.pipelines.info import Info
    from mhnet_video.pipelines.live import LiveReport
    from mhnet_video.pipelines.restore import Report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What was typed after the program's name; None for the process's own.

    Returns:
        The exit status. Wrong usage and `--help` raise SystemExit, as argparse does.
    """
    _prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    # with its value after an option's equals sign, too
    learn(*words, *(word.partition("=")[2] for word in words if word.startswith("--")))
    with redirect_stderr(_Discreet(sys.stderr)):
        return _run(words)


def _run(words: list[str]) -> int:
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
            clean(error)
            raise
        cause = str(error).strip().partition("\n")[0]
        return _fail(
            f"a fault in this program, {type(error).__name__}: {cause} "
            "(MHNET_DEBUG=1 shows where; please report it)"
        )
    finally:
        _flush_stdout()


def _restore(words: list[str]) -> int:
    parser = restore_parser()
    options = parser.parse_args(words)
    if options.source == "-" and sys.stdin.isatty():
        parser.error("standard input is the keyboard; pipe a video into it")
    if options.destination == "-" and sys.stdout.isatty():
        parser.error("standard output is the terminal; pipe it into a file or a program")
    if options.sheet and "-" in (options.source, options.destination):
        parser.error("a contact sheet is made from files, not from a pipe")
    if options.sheet:
        from mhnet_video.media.contact_sheet import check_sheet

        paths = options.source, options.destination
        check_sheet(options.sheet, paths, overwrite=options.overwrite)
    config = RestoreConfig(
        model=options.model,
        weights=options.weights,
        device=options.device,
        engine=options.engine,
        strength=options.strength,
        scale=options.scale,
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
    if options.json:
        print(_to_json(report.to_dict()), file=out)
    elif not options.quiet:
        print("\n".join(_summary(report)), file=out)
    if options.sheet and report.frames:
        from mhnet_video.media.contact_sheet import save_contact_sheet

        save_contact_sheet(
            options.source,
            options.destination,
            options.sheet,
            start=config.start or 0.0,
            is_compared=config.compare,
        )
        if not (options.json or options.quiet):
            print(f"  before and after: {options.sheet}")
    return 130 if report.interrupted else 0


def _summary(report: "Report") -> list[str]:
    from mhnet_video.media.fidelity import counted

    name = "standard output" if report.destination == "-" else report.destination
    speed = f", {report.frames / report.seconds:.1f} a second" if report.seconds > 0 else ""
    scale = f" at {report.scale:.0%} scale" if report.scale < 1 else ""
    lines = [
        f"{name}: {counted(report.frames, 'frame')} in {report.seconds:.1f} s{speed}",
        f"  model {report.model} on {report.device}{scale}, {report.encoder} {report.pixel_format}",
    ]
    if report.kept:
        lines.append("  kept: " + ", ".join(report.kept))
    if report.lost:
        lines.append("  not kept: " + "; ".join(report.lost))
    if report.damaged:
        what = counted(report.damaged, "packet or frame", "packets or frames")
        lines.append(f"  damaged: {what} could not be decoded")
    if report.interrupted:
        what = "folder" if os.path.isdir(report.destination) else "file"
        done = f"the {what} is complete up to the last frame above"
        lines.append(f"  interrupted: {done if report.frames else 'nothing was written'}")
    return lines


def _live(words: list[str]) -> int:
    options = live_parser().parse_args(words)
    if options.list:
        return _list_cameras()
    config = LiveConfig(
        model=options.model,
        weights=options.weights,
        device=options.device,
        engine=options.engine,
        scale=options.scale,
        strength=options.strength,
        keep=tuple(options.keep),
        size=options.size,
        fps=options.fps,
        loop=options.loop,
        seconds=options.seconds,
    )
    outputs = LiveOutputs(
        has_window=_wants_window(options),
        view=options.view,
        serve=options.serve,
        record=options.record,
        segment=options.segment,
        overwrite=options.overwrite,
        output=options.output,
    )
    stop = threading.Event()
    with stop_on_signals(stop, "mhnet-video: ending (Ctrl-C again: abort)"):
        from mhnet_video.pipelines.live import run_live  # PyTorch loads here

        report = run_live(
            options.source,
            config,
            outputs,
            on_message=lambda text: print(f"mhnet-video: {text}", file=sys.stderr, flush=True),
            on_statistics=_print_statistics if options.stats else None,
            stop=stop,
        )
    print("\n".join(_live_summary(report)))
    return 130 if report.interrupted else 0


def _wants_window(options: Any) -> bool:
    """A window, unless there is no screen and the pictures have another way to go."""
    from mhnet_video.live.display import has_screen

    if options.serve is not None:
        return False
    return has_screen() or not (options.record or options.output)


def _list_cameras() -> int:
    from mhnet_video.live.source_address import list_cameras

    cameras = list_cameras()
    for camera in cameras:
        print(f"{camera.source}  {camera.description}")
        print("".join(f"  {line}\n" for line in camera.formats), end="")
    if not cameras:
        return _fail("there is no camera on this machine; plug one in, or name an address or file")
    return 0


def _print_statistics(statistics: "LiveStatistics") -> None:
    print(
        f"{statistics.frames} frames, {statistics.fps:.1f} of {statistics.source_fps:.1f} fps, "
        f"latency {1000 * statistics.latency_seconds:.0f} ms, dropped {statistics.dropped}, "
        f"{statistics.level or 'measuring'} {1000 * statistics.network_seconds:.0f} ms",
        file=sys.stderr,
        flush=True,
    )


def _live_summary(report: "LiveReport") -> list[str]:
    statistics = report.statistics
    lines = [
        f"{statistics.source}: {statistics.frames} frames restored, {statistics.dropped} dropped",
    ]
    if statistics.level:
        lines.append(
            f"  model {statistics.level} on {statistics.device}, "
            f"latency {1000 * statistics.latency_seconds:.0f} ms"
        )
    if statistics.reconnects:
        lines.append(f"  the source was lost and came back {statistics.reconnects} times")
    if statistics.damaged:
        lines.append(f"  damaged: {statistics.damaged} packets could not be decoded")
    if report.recorded:
        lines.append(f"  recorded: {', '.join(report.recorded)}")
    if report.missed:
        lines.append(f"  not recorded: {report.missed} frames, this machine was too slow")
    if report.forwarded:
        lines.append(f"  sent: {report.forwarded} frames")
    return lines


def _evaluate(words: list[str]) -> int:
    parser = evaluate_parser()
    options = parser.parse_args(words)
    if options.clean is None and options.sheet:
        parser.error("--sheet needs CLEAN; `mhnet-video IN OUT --sheet PNG` makes one without")
    is_restored = options.model or options.weights
    if not is_restored and (options.scale is not None or options.engine != "auto"):
        parser.error("--scale and --engine need --model or --weights: nothing is restored else")
    if options.clean is None:
        return _steadiness(options)
    from mhnet_video.pipelines.evaluate import evaluate

    with progress_bar(sys.stderr.isatty() and not options.json) as on_progress:
        result = evaluate(
            options.rainy,
            options.clean,
            model=options.model,
            weights=options.weights,
            device=options.device,
            engine=options.engine,
            scale=options.scale,
            on_progress=on_progress,
            sheet=options.sheet,
            overwrite=options.overwrite,
        )
    print(_to_json(result.to_dict()) if options.json else "\n".join(_table(result)))
    return 0


def _steadiness(options: "Namespace") -> int:
    from mhnet_video.pipelines.steadiness import steadiness

    restorer = None
    if options.model or options.weights:
        from mhnet_video.restoration.restorer import Restorer

        restorer = Restorer(
            options.model or "auto",
            weights=options.weights,
            device=options.device,
            engine=options.engine,
            scale=options.scale,
        )
    with progress_bar(sys.stderr.isatty() and not options.json) as on_progress:
        clips = steadiness(options.rainy, restorer=restorer, on_progress=on_progress)
    if options.json:
        print(_to_json([clip.to_dict() for clip in clips]))
        return 0
    heads = ["input", "cut at median", "median", "restored" if restorer is None else restorer.name]
    lines = [["flicker", *heads, "taken out", "at rest"]]
    for clip in clips:
        levels = (clip.rainy, clip.cut, clip.median, clip.restored, clip.taken_out)
        cells = ["-" if level is None else f"{level:.3f}" for level in levels]
        lines.append([clip.name, *cells, f"{clip.at_rest:.0%}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([f"{first:<{widths[0]}}", *cells]))
    return 0


def _table(result: "Evaluation") -> list[str]:
    width = max(len("mean"), *(len(row.name) for row in result.rows))
    flickers = result.mean.rainy.flicker is not None
    names = ("PSNR-Y", "SSIM-Y", "PSNR-RGB", "SSIM-RGB") + ("flicker",) * flickers
    figures = "{:>8} {:>7} {:>8} {:>8}" + " {:>7}" * flickers
    kinds = ["input"] if result.model is None else ["input", result.model]
    lines = [
        "  ".join([" " * width, *(f"{kind:^{34 + 8 * flickers}}" for kind in kinds)]).rstrip(),
        "  ".join([" " * width, *(figures.format(*names) for _ in kinds)]),
    ]
    for row in [*result.rows, result.mean]:
        cells = [
            figures.format(
                f"{scores.psnr_y:.2f}",
                f"{scores.ssim_y:.4f}",
                f"{scores.psnr_rgb:.2f}",
                f"{scores.ssim_rgb:.4f}",
                "-" if scores.flicker is None else f"{scores.flicker:.3f}",
            )
            for scores in (row.rainy, row.restored)
            if scores is not None
        ]
        lines.append("  ".join([f"{row.name:<{width}}", *cells]))
    if result.equal:
        lines.append(f"equal to the clean ones, and not in the mean PSNR: {result.equal}")
    return lines


def _train(words: list[str]) -> int:
    options = vars(train_parser().parse_args(words))
    config = TrainConfig(**options)
    try:
        from mhnet_video.pipelines.train import train
    except ImportError as error:  # opencv-python needs libraries that a bare system lacks
        raise MHNetVideoError(
            f"training needs OpenCV, which does not load here ({error}); "
            "on Debian and Ubuntu: apt install libgl1 libglib2.0-0"
        ) from error

    def tell(step: int, minutes: float, loss_db: float, input_db: float) -> None:
        line = f"{minutes:7.1f} of {config.minutes:g} min, step {step}: "
        line += f"error {loss_db:.2f} dB, of the input {input_db:.2f} dB"
        print(line, file=sys.stderr, flush=True)

    stop = threading.Event()
    with stop_on_signals(stop, "mhnet-video: saving, to go on later (Ctrl-C again: abort)"):
        print(train(config, on_log=tell, stop=stop))
    return 130 if stop.is_set() else 0


def _info(words: list[str]) -> int:
    options = info_parser().parse_args(words)
    from mhnet_video.pipelines.info import collect_info

    info = collect_info()
    print(_to_json(info.to_dict()) if options.json else "\n".join(_info_lines(info)))
    return 0


def _info_lines(info: "Info") -> list[str]:
    lines = [f"{name:<14} {version}" for name, version in info.versions.items()]
    lines += ["", *(f"{name:<14} {what}" for name, what in info.devices.items())]
    lines += [f"{'engine':<14} {info.engine}", ""]
    for model in info.models:
        size = f"{model.size_bytes / 1e6:.1f} MB"
        lines.append(f"{model.name:<14} {size}, {model.description}")
        if model.training:
            lines.append(f"{'':<14} {_history(model.training)}")
    if not info.models:
        lines.append("no models: give --weights FILE")
    encoders = ", ".join(info.encoders)
    lines += ["", *textwrap.wrap(f"encoders that open here: {encoders}", 100)]
    return lines


def _history(training: dict[str, Any]) -> str:
    """How weights were trained, over all stages of which each began with the one before."""
    from mhnet_video.media.fidelity import counted

    stages = [training]
    while before := stages[-1].get("before"):
        stages.append(before)
    minutes, steps = (sum(stage.get(key, 0) for stage in stages) for key in ("minutes", "steps"))
    what = counted(len(stages), "stage")
    return f"trained for {minutes:.0f} minutes, {steps:,} steps in {what}; --json has the settings"


def _bench(words: list[str]) -> int:
    options = bench_parser().parse_args(words)
    if options.json:
        from mhnet_video.media.output_file import check_destination

        check_destination(options.json, overwrite=options.overwrite)
    if options.gpu:
        return _bench_gpu(options.json)
    from mhnet_video.pipelines.bench import bench, to_lines

    def tell(text: str) -> None:
        print(f"measuring {text}", file=sys.stderr, flush=True)

    result = bench(
        model=options.model,
        weights=options.weights,
        sizes=options.size or [(640, 480)],
        frames=options.frames,
        isa=options.isa,
        on_log=tell,
    )
    print("\n".join(to_lines(result)))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.write(_to_json(result.to_dict()) + "\n")
    return 0


def _bench_gpu(path: str | None) -> int:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("there is no GPU that PyTorch can use; leave --gpu out")
    from mhnet_video.pipelines.bench_gpu import bench_gpu
    from mhnet_video.pipelines.bench_table import to_lines

    print("\n".join(to_lines(bench_gpu(Path(path) if path else None))))
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "evaluate": _evaluate,
    "live": _live,
    "train": _train,
    "bench": _bench,
    "info": _info,
}


def _to_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _fail(message: str, status: int = 1) -> int:
    with suppress(OSError):
        print(f"mhnet-video: {message}", file=sys.stderr)
    return status


class _Discreet:
    """Standard error without the secrets of addresses, whoever writes to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what may be seen."""
        self._stream.write(hide(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Everything else is as it was."""
        return getattr(self._stream, name)


def _prepare_streams() -> None:
    """Give closed standard streams a place to go, and let any file's name be printed.

    Otherwise the first file opened would take the number of a closed one, and messages for the
    terminal would be written into the clip.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _flush_stdout() -> None:
    """Write out what is printed; when nobody reads, keep Python from complaining at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
