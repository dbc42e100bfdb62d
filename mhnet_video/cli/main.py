"""The command line: read the arguments, run a pipeline, report its result.

Exit status: 0, 1 after an error, 2 for wrong usage, 130 after an interrupt.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mhnet_video.cli import arguments, reports
from mhnet_video.cli.terminal import (
    WithoutSecrets,
    flush_stdout,
    interrupt_on_signals,
    one_line,
    prepare_streams,
    progress_bar,
    stop_on_signals,
    terminal_columns,
)
from mhnet_video.config import (
    AppConfig,
    BatchConfig,
    LiveConfig,
    LiveOutputs,
    RestoreConfig,
    TrainConfig,
)
from mhnet_video.errors import ConfigError, MHNetVideoError, unforeseen
from mhnet_video.locator import clean, learn

if TYPE_CHECKING:
    from argparse import Namespace

    from mhnet_video.batch.rows import Row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What was typed after the program's name; None for the process's own.

    Returns:
        The exit status. Wrong usage and `--help` raise SystemExit, as argparse does.
    """
    prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    # with its value after an option's equals sign, too
    learn(*words, *(word.partition("=")[2] for word in words if word.startswith("--")))
    with redirect_stderr(WithoutSecrets(sys.stderr)), interrupt_on_signals():
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
        return 1  # the reader has gone, so that a message would not arrive
    except MemoryError:
        return _fail("the memory of this machine is not enough for a picture of this size")
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if os.environ.get("MHNET_DEBUG") == "1":
            clean(error)
            raise
        return _fail(f"{unforeseen(error)} (MHNET_DEBUG=1 shows where; please report it)")
    finally:
        flush_stdout()


def _restore(words: list[str]) -> int:
    parser = arguments.restore_parser()
    options, others = parser.parse_known_args(words)
    if others:
        said = f"unrecognized arguments: {' '.join(others)}"
        if not any(word.startswith("-") for word in others):
            said += (
                "; it takes one INPUT and one OUTPUT, with names that have spaces in quotes; "
                "`mhnet-video batch` restores many files, and a command comes before its options"
            )
        parser.error(said)
    if options.source == "-" and sys.stdin.isatty():
        parser.error("standard input is the keyboard; pipe a video into it")
    if options.destination == "-" and sys.stdout.isatty():
        parser.error("standard output is the terminal; pipe it into a file or a program")
    if options.sheet and "-" in (options.source, options.destination):
        parser.error("a contact sheet is made from files, not from a pipe")
    if options.sheet:
        from mhnet_video.media.contact_sheet import check_sheet_of

        paths = options.source, options.destination
        check_sheet_of(*paths, options.sheet, overwrite=options.overwrite)
    config = arguments.from_options(RestoreConfig, options)
    shown = options.progress
    if shown is None:
        shown = sys.stderr.isatty() and not options.quiet
    stop = threading.Event()
    if options.resume:
        said = "mhnet-video: ending; the same command goes on (Ctrl-C again: abort)"
        with stop_on_signals(stop, said), progress_bar(shown) as on_progress:
            from mhnet_video.pipelines.segments import restore_in_segments

            report = restore_in_segments(
                [options.source],
                options.destination,
                config,
                on_progress=on_progress,
                on_message=None if options.quiet else lambda text: _tell(f"mhnet-video: {text}"),
                stop=stop,
            )
    else:
        with stop_on_signals(stop), progress_bar(shown) as on_progress:
            from mhnet_video.pipelines.restore import restore_video

            report = restore_video(
                options.source, options.destination, config, on_progress=on_progress, stop=stop
            )
    # a clip on standard output must stay a clip
    out = sys.stderr if options.destination == "-" else sys.stdout
    if options.json:
        print(reports.to_json(report.to_dict()), file=out)
    elif not options.quiet:
        _show(reports.restore_summary(report), file=out)
    if options.sheet and report.frames and not report.parts:
        from mhnet_video.media.contact_sheet import save_contact_sheet

        save_contact_sheet(
            options.source,
            options.destination,
            options.sheet,
            start=config.start or 0.0,
            is_compared=config.compare,
        )
        if not (options.json or options.quiet):
            _show([f"  before and after: {options.sheet}"])
    return 130 if report.interrupted else 0


def _batch(words: list[str]) -> int:
    from mhnet_video.cli.batch_arguments import batch_parser
    from mhnet_video.cli.batch_progress import batch_progress
    from mhnet_video.cli.batch_reports import batch_table

    options = batch_parser().parse_args(words)
    config = arguments.from_options(RestoreConfig, options)
    settings = arguments.from_options(BatchConfig, options)
    is_shown = not options.quiet if options.progress is None else options.progress
    stop = threading.Event()
    said = "mhnet-video: ending at the frames at hand (Ctrl-C again: abort)"
    with stop_on_signals(stop, said), ExitStack() as stack:
        from mhnet_video.batch.report_file import ReportFile
        from mhnet_video.pipelines.batch import run_batch  # PyTorch loads here

        listeners: list[Callable[[Row], None]] = []
        if options.report:
            file = stack.enter_context(ReportFile(options.report, overwrite=options.overwrite))
            listeners.append(file.add)

        def hear(row: "Row") -> None:
            for listener in listeners:
                listener(row)

        with batch_progress(is_shown) as (show, on_progress):
            listeners.append(show)
            report = run_batch(
                options.sources,
                options.out_folder,
                config,
                settings,
                on_row=hear,
                on_progress=on_progress,
                stop=stop,
            )
        # before the file of the rows is complete, which may fail
        if options.json:
            print(reports.to_json(report.to_dict()))
        elif not options.quiet:
            _show(batch_table(report, columns=terminal_columns(sys.stdout)))
    return 130 if report.interrupted else 0 if report.is_done else 1


def _live(words: list[str]) -> int:
    parser = arguments.live_parser()
    options = parser.parse_args(words)
    if options.list:
        return _list_cameras()
    is_piped = options.output == "-"
    if is_piped and sys.stdout.isatty():
        parser.error("standard output is the terminal; pipe it into a file or a program")
    config = arguments.from_options(LiveConfig, options)
    outputs = arguments.from_options(LiveOutputs, options, has_window=_wants_window(options))
    stop = threading.Event()
    with stop_on_signals(stop, "mhnet-video: ending (Ctrl-C again: abort)"):
        from mhnet_video.pipelines.live import run_live  # PyTorch loads here

        report = run_live(
            options.source,
            config,
            outputs,
            on_message=lambda text: _tell(f"mhnet-video: {text}"),
            on_statistics=(
                (lambda statistics: _tell(reports.statistics_line(statistics)))
                if options.stats
                else None
            ),
            stop=stop,
        )
    # a stream on standard output must stay a stream
    _show(reports.live_summary(report), file=sys.stderr if is_piped else sys.stdout)
    return 130 if report.interrupted else 0


def _wants_window(options: "Namespace") -> bool:
    """A window, unless there is no screen and the pictures have another way to go."""
    from mhnet_video.live.display import has_screen

    if options.serve is not None or options.output == "-":
        return False
    return has_screen() or not (options.record or options.output)


def _list_cameras() -> int:
    from mhnet_video.live.source_address import list_cameras

    cameras = list_cameras()
    for camera in cameras:
        _show(reports.camera_lines(camera))
    if not cameras:
        return _fail("there is no camera on this machine; plug one in, or name an address or file")
    return 0


def _app(words: list[str]) -> int:
    options = arguments.app_parser().parse_args(words)
    settings = arguments.from_options(AppConfig, options)
    config = arguments.from_options(RestoreConfig, options)
    stop = threading.Event()
    with stop_on_signals(stop, "mhnet-video: ending (Ctrl-C again: abort)"):
        from mhnet_video.pipelines.app import run_app  # PyTorch loads here

        run_app(config, settings, on_message=lambda text: _tell(f"mhnet-video: {text}"), stop=stop)
    return 130


def _evaluate(words: list[str]) -> int:
    parser = arguments.evaluate_parser()
    options = parser.parse_args(words)
    if options.clean is None and options.sheet:
        parser.error("--sheet needs CLEAN; `mhnet-video IN OUT --sheet PNG` makes one without")
    if options.clean is None and options.mask:
        parser.error("--mask needs CLEAN to compare with")
    is_restored = options.model or options.task or options.weights
    network = (options.scale, options.engine, options.device)
    if not is_restored and network != (None, RestoreConfig.engine, RestoreConfig.device):
        parser.error(
            "--scale, --engine and --device need --model, --task or --weights: "
            "nothing is restored else"
        )
    if options.clean is None:
        return _flicker(options)
    from mhnet_video.pipelines.evaluate import evaluate

    with progress_bar(sys.stderr.isatty() and not options.json) as on_progress:
        result = evaluate(
            options.rainy,
            options.clean,
            mask=options.mask,
            **arguments.network_settings(options),
            on_progress=on_progress,
            sheet=options.sheet,
            overwrite=options.overwrite,
        )
    if options.json:
        print(reports.to_json(result.to_dict()))
    else:
        _show(reports.evaluation_table(result))
    return 0


def _flicker(options: "Namespace") -> int:
    from mhnet_video.pipelines.flicker import measure_flicker

    restorer = None
    if options.model or options.task or options.weights:
        from mhnet_video.restoration.restorer import Restorer

        settings = arguments.network_settings(options)
        settings["model"] = options.model or RestoreConfig.model
        restorer = Restorer(**settings)
    with progress_bar(sys.stderr.isatty() and not options.json) as on_progress:
        clips = measure_flicker(options.rainy, restorer=restorer, on_progress=on_progress)
    if options.json:
        print(reports.to_json([clip.to_dict() for clip in clips]))
    else:
        name = None if restorer is None else restorer.name
        _show(reports.flicker_table(clips, name))
    return 0


def _train(words: list[str]) -> int:
    config = arguments.from_options(TrainConfig, arguments.train_parser().parse_args(words))
    _check_opencv("training")
    from mhnet_video.pipelines.train import train

    stop = threading.Event()
    with stop_on_signals(stop, "mhnet-video: saving, to go on later (Ctrl-C again: abort)"):
        print(
            train(
                config, on_log=lambda *each: _tell(reports.training_line(config, *each)), stop=stop
            )
        )
    return 130 if stop.is_set() else 0


def _info(words: list[str]) -> int:
    options = arguments.info_parser().parse_args(words)
    from mhnet_video.pipelines.info import collect_info

    info = collect_info()
    print(reports.to_json(info.to_dict()) if options.json else "\n".join(reports.info_lines(info)))
    return 0


def _export(words: list[str]) -> int:
    options = arguments.export_parser().parse_args(words)
    from mhnet_video.pipelines.export import export_model

    report = export_model(
        options.model,
        options.destination,
        size=options.size,
        aligns=options.aligns,
        overwrite=options.overwrite,
    )
    if options.json:
        print(reports.to_json(report.to_dict()))
    else:
        _show(reports.export_lines(report))
    return 0


def _verify(words: list[str]) -> int:
    options = arguments.verify_parser().parse_args(words)
    from mhnet_video.pipelines.verify import verify

    result = verify(options.evidence)
    if options.json:
        print(reports.to_json(result._asdict()))
    else:
        _show((*result.lines, *result.mismatches))
    return 1 if result.mismatches else 0


def _bench(words: list[str]) -> int:
    parser = arguments.bench_parser()
    options = parser.parse_args(words)
    for name in ("model", "weights", "size", "frames", "isa") if options.gpu else ():
        if getattr(options, name) != parser.get_default(name):
            parser.error(f"--gpu has models and sizes of its own; leave --{name} out")
    if options.json:
        from mhnet_video.media.output_file import check_destination

        check_destination(options.json, overwrite=options.overwrite)
    _check_opencv("bench")
    if options.gpu:
        return _bench_gpu(options.json)
    from mhnet_video.pipelines.bench import DEFAULT_SIZE, bench, to_lines

    result = bench(
        model=options.model,
        weights=options.weights,
        sizes=options.size or [DEFAULT_SIZE],
        frames=options.frames,
        isa=options.isa,
        on_log=lambda text: _tell(f"measuring {text}"),
    )
    print("\n".join(to_lines(result)))
    if options.json:
        Path(options.json).write_text(reports.to_json(result.to_dict()) + "\n", encoding="utf-8")
    return 0


def _check_opencv(what: str) -> None:
    """Refuse what draws rain where opencv-python lacks libraries of the screen."""
    try:
        import cv2  # noqa: F401 - whether it loads
    except ImportError as error:
        raise MHNetVideoError(
            f"{what} needs OpenCV, which does not load here ({error}); "
            "on Debian and Ubuntu: apt install libgl1 libglib2.0-0"
        ) from error


def _bench_gpu(path: str | None) -> int:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("there is no GPU that PyTorch can use; leave --gpu out")
    from mhnet_video.pipelines.bench_gpu import bench_gpu
    from mhnet_video.pipelines.bench_table import to_lines

    print("\n".join(to_lines(bench_gpu(Path(path) if path else None))))
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "app": _app,
    "batch": _batch,
    "evaluate": _evaluate,
    "export": _export,
    "live": _live,
    "train": _train,
    "bench": _bench,
    "info": _info,
    "verify": _verify,
}


def _show(lines: Iterable[str], file: TextIO | None = None) -> None:
    """Print lines, on standard output if nothing else is said."""
    print("\n".join(map(one_line, lines)), file=file)


def _tell(line: str) -> None:
    print(one_line(line), file=sys.stderr, flush=True)


def _fail(message: str, status: int = 1) -> int:
    with suppress(OSError):
        print(f"mhnet-video: {one_line(message)}", file=sys.stderr)
    return status
