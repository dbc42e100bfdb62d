import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest
import tqdm.std
from waiting import SECONDS, Clock

import mhnet_video.pipelines.restore
from mhnet_video import errors
from mhnet_video.cli.arguments import parse_time, restore_parser
from mhnet_video.cli.main import main
from mhnet_video.cli.reports import live_summary
from mhnet_video.cli.terminal import interrupt_on_signals, progress_bar, stop_on_signals
from mhnet_video.config import Box, LiveConfig, LiveOutputs, RestoreConfig
from mhnet_video.errors import ConfigError
from mhnet_video.live.source_address import resolve_address
from mhnet_video.live.statistics import LiveStatistics
from mhnet_video.media.fidelity import Loss, counted
from mhnet_video.model.weights import list_models
from mhnet_video.pipelines.info import without_home
from mhnet_video.pipelines.live import LiveReport
from mhnet_video.pipelines.restore import Progress, Report

REPORT = Report(
    source="in.mp4",
    destination="out.mp4",
    frames=100,
    seconds=4.0,
    model="realtime",
    device="cpu",
    scale=1.0,
    encoder="libx264",
    pixel_format="yuv420p",
    kept=("audio 1 (aac)", "3 chapters"),
    losses=(Loss(kind="stream", what="telemetry", why="MP4 has no place for it"),),
    damaged=2,
    interrupted=False,
)


@pytest.fixture
def calls(monkeypatch):
    """What the command line asks of the pipeline, which does nothing."""
    seen = []

    def restore_video(source, destination, config, *, on_progress=None, stop=None):
        seen.append((source, destination, config))
        return REPORT

    monkeypatch.setattr(mhnet_video.pipelines.restore, "restore_video", restore_video)
    return seen


@pytest.fixture
def failing(monkeypatch):
    """Makes the pipeline raise an error."""

    def fail_with(error):
        def restore_video(*_, **__):
            raise error

        monkeypatch.setattr(mhnet_video.pipelines.restore, "restore_video", restore_video)

    return fail_with


def run(*words, **options):
    command = [sys.executable, "-m", "mhnet_video", *words]
    return processes.run(command, **options)


@pytest.mark.parametrize(
    "words",
    [["--help"], *([name, "--help"] for name in ("evaluate", "live", "bench", "train"))],
    ids=str,
)
def test_help_does_not_wait_for_pytorch(words):
    code = (
        "import sys; from mhnet_video.cli.main import main\n"
        f"try: main({words})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'av', 'numpy', 'tqdm'} & set(sys.modules), 'heavy imports'"
    )
    processes.run([sys.executable, "-c", code], check=True)


def test_a_source_that_is_not_there_does_not_wait_for_pytorch(tmp_path):
    """Which therefore loads within the run, so that the report's seconds have it."""
    words = [str(tmp_path / "none.mp4"), str(tmp_path / "out.mp4")]
    code = (
        "import sys; from mhnet_video.cli.main import main\n"
        f"status = main({words})\n"
        "assert status == 1 and 'torch' not in sys.modules, status"
    )
    done = processes.run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert "none.mp4" in done.stderr and "Traceback" not in done.stderr


def test_an_interrupt_while_modules_load_is_a_sentence():
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'mhnet_video.cli.arguments':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from mhnet_video.__main__ import main\n"
        "raise SystemExit(main())"
    )
    done = processes.run([sys.executable, "-c", code])
    assert (done.returncode, done.stderr) == (130, "mhnet-video: interrupted\n")


def test_help_answers_at_once():
    """It takes the processor hardly longer than Python's own parser of arguments does."""

    def seconds(*words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        processes.run([sys.executable, *words], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    words = ["-c", "import argparse"]
    help_seconds, least = (
        min(seconds(*each) for _ in range(5)) for each in (["-m", "mhnet_video", "--help"], words)
    )
    assert help_seconds < 5 * least


def test_a_working_scale_is_told(calls, monkeypatch, capsys):
    monkeypatch.setattr(
        mhnet_video.pipelines.restore,
        "restore_video",
        lambda *_, **__: replace(REPORT, scale=0.503),
    )
    assert main(["in.mp4", "out.mp4"]) == 0
    assert "model realtime on cpu at 50% scale, libx264" in capsys.readouterr().out


def test_every_option_reaches_the_pipeline(calls, tmp_path):
    words = """in.mkv out.mkv --model large --weights w.safetensors --strength 0.5
        --device cuda:1,cuda:0 --scale 0.25 --start 0:01:30.5 --duration 10
        --keep 1,2,3,4 --keep 5,6,7,8
        --encoder libx265 --crf 20 --preset slow --encoder-option tune=grain
        --encoder-option x265-params=a=b --compare --overwrite --quiet"""
    assert main(words.split()) == 0
    config = RestoreConfig(
        model="large",
        weights="w.safetensors",
        device="cuda:1,cuda:0",
        strength=0.5,
        scale=0.25,
        start=90.5,
        duration=10,
        keep=(Box(1, 2, 3, 4), Box(5, 6, 7, 8)),
        encoder="libx265",
        crf=20,
        preset="slow",
        encoder_options=(("tune", "grain"), ("x265-params", "a=b")),
        compare=True,
        overwrite=True,
    )
    assert calls == [("in.mkv", "out.mkv", config)]


def test_defaults_are_those_of_the_settings(calls):
    assert main(["in.mp4", "out.mp4"]) == 0
    assert calls == [("in.mp4", "out.mp4", RestoreConfig())]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1:30", 90),
        ("90:00", 5400),
        ("1:02:03.250", 3723.25),
    ],
)
def test_times(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "x", "1:", "1:60", "1:60:00", "-1", "nan", "inf", "1e3", "1:2:3:4"]
)
def test_what_is_not_a_time(text):
    with pytest.raises(ValueError, match="not a time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "required: INPUT, OUTPUT"),
        ("in.mp4", "required: OUTPUT"),
        ("restore a b", "unrecognized arguments: b; it takes one INPUT and one OUTPUT"),
        ("--overwrite batch a b", "and a command comes before its options"),
        ("a b --strenght 1", "unrecognized arguments: --strenght 1\n"),
        ("a b --start noon", "a time is seconds or H:MM:SS.mmm, not noon"),
        ("a b --keep 1,2,3", "a box is X,Y,W,H in pixels, not 1,2,3"),
        ("a b --device cuda:0,cpu", "a device is auto, cpu, cuda, cuda:N or mps, not cuda:0,cpu"),
        ("a b --device tpu", "a device is auto, cpu, cuda, cuda:N or mps, not tpu"),
        ("a b --encoder-option x", "an option of the encoder is K=V, not x"),
        ("a b --crf high", "invalid int value"),
        ("a - --sheet c.png", "a contact sheet is made from files"),
        ("bench --gpu --size 640x480", "leave --size out"),
        ("bench --gpu --model quality", "leave --model out"),
        ("train --data x", "required: --output"),
        ("train --data x --output y --group-blocks 1,a", "counts are N,N,..., not 1,a"),
        ("evaluate", "required: RAINY"),
        ("evaluate a --sheet b.png", "--sheet needs CLEAN"),
    ],
)
def test_wrong_usage_exits_with_2(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(words.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a b --strength 2", "strength must be between 0 and 1, not 2.0"),
        ("a b --start=-1", "a time is"),
        ("a b --duration 0", "duration must be greater than 0"),
        ("a b --crf 99", "crf must be between 0 and 63, not 99"),
        ("a b --keep 0,0,0,5", "a box to keep is X,Y,W,H"),
        ("train --data x --output y --minutes 0", "minutes must be greater than 0"),
    ],
)
def test_settings_out_of_range_exit_with_2(words, message, capsys):
    try:
        status = main(words.split())
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_a_sheet_is_refused_before_the_work(calls, tmp_path, capsys):
    assert main(["in.mp4", "out.mp4", "--sheet", "in.mp4"]) == 1
    assert "which is a PNG; end it in .png" in capsys.readouterr().err
    (tmp_path / "s.png").write_text("mine")
    sheet = str(tmp_path / "s.png")
    assert main(["in.mp4", "out.mp4", "--sheet", sheet]) == 1
    assert main(["in.mp4", sheet, "--sheet", sheet, "--overwrite"]) == 1
    assert not calls and (tmp_path / "s.png").read_text() == "mine"


@pytest.mark.parametrize("words", [["bench"], ["train", "--data", "d", "--output", "o"]])
def test_what_draws_rain_says_that_opencv_does_not_load(words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(words) == 1
    assert "needs OpenCV, which does not load here" in capsys.readouterr().err


def test_figures_replace_nothing(tmp_path, capsys):
    path = tmp_path / "keep.json"
    path.write_text("mine")
    assert main(["bench", "--json", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err and path.read_text() == "mine"
    assert main(["bench", "--json", str(tmp_path / "no" / "x.json")]) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: RestoreConfig(keep=((1, 2, 3),)),
        lambda: RestoreConfig(keep=((-1, 0, 3, 3),)),
        lambda: LiveConfig(keep=((0, 0, 0, 3),)),
        lambda: RestoreConfig(start=float("inf")),
        lambda: RestoreConfig(duration=float("nan")),
    ],
)
def test_settings_of_a_program_are_checked_too(make):
    with pytest.raises(ConfigError):
        make()


def test_settings_of_a_program_may_be_plain():
    assert RestoreConfig(keep=[[1, 2, 3, 4]]).keep == (Box(1, 2, 3, 4),)
    assert LiveOutputs(serve=8080).serve == "8080"
    assert resolve_address(Path("/dev/video3")).kind == "camera"
    assert resolve_address(2).url == resolve_address("2").url


def test_summary_says_what_was_kept_and_what_was_not(calls, capsys):
    assert main(["in.mp4", "out.mp4"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "out.mp4: 100 frames in 4.0 s, 25.0 a second",
        "  model realtime on cpu, libx264 yuv420p",
        "  kept: audio 1 (aac), 3 chapters",
        "  not kept: telemetry: MP4 has no place for it",
        "  damaged: 2 packets or frames could not be decoded",
    ]
    assert err == ""


def test_quiet_prints_nothing(calls, capsys):
    assert main(["in.mp4", "out.mp4", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_json_is_for_programs(calls, capsys):
    assert main(["in.mp4", "out.mp4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["frames"] == 100
    assert found["kept"] == ["audio 1 (aac)", "3 chapters"]
    assert found["interrupted"] is False


def test_standard_output_stays_a_clip(calls, capsys, monkeypatch):
    monkeypatch.setattr(
        mhnet_video.pipelines.restore,
        "restore_video",
        lambda *_, **__: replace(REPORT, destination="-"),
    )
    for words in (["in.mp4", "-"], ["in.mp4", "-", "--json"]):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert "100" in err


@pytest.mark.parametrize(
    ("frames", "said"),
    [(5, "the file is complete up to the last frame"), (0, "nothing was written")],
)
def test_an_interrupted_run_exits_with_130_and_says_so(capsys, monkeypatch, frames, said):
    monkeypatch.setattr(
        mhnet_video.pipelines.restore,
        "restore_video",
        lambda *_, **__: replace(REPORT, interrupted=True, frames=frames),
    )
    assert main(["in.mp4", "out.mp4"]) == 130
    assert f"interrupted: {said}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.ReadError("in.mp4 is empty"), 1, "mhnet-video: in.mp4 is empty\n"),
        (errors.ConfigError("no CUDA here"), 2, "mhnet-video: no CUDA here\n"),
        (KeyboardInterrupt(), 130, "mhnet-video: interrupted\n"),
        (MemoryError(), 1, "mhnet-video: the memory of this machine is not enough"),
        (OSError(28, "No space left on device", "x.mp4"), 1, "x.mp4: No space left on device\n"),
        (BrokenPipeError(), 1, ""),
        (ZeroDivisionError("division\nby zero"), 1, "a fault in this program, ZeroDivisionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_become_one_sentence_and_a_status(error, status, message, failing, capsys):
    failing(error)
    assert main(["in.mp4", "out.mp4"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert err.count("\n") <= 1


def test_names_in_messages_do_not_steer_the_terminal(failing, capsys):
    failing(errors.ReadError("a\x1b[2J\nb\u202e.mp4 is empty"))
    assert main(["in.mp4", "out.mp4"]) == 1
    assert capsys.readouterr().err == "mhnet-video: a\\x1b[2J\\nb\\u202e.mp4 is empty\n"


def test_a_fault_can_be_looked_at(failing, monkeypatch):
    failing(ZeroDivisionError())
    monkeypatch.setenv("MHNET_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["in.mp4", "out.mp4"])


def test_nobody_reads_the_output():
    process = processes.start(
        [sys.executable, "-m", "mhnet_video", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(processes.SECONDS)


def test_closed_standard_streams_do_not_end_in_a_traceback(tmp_path):
    command = f"{sys.executable} -m mhnet_video none.mp4 out.mp4 <&- >&- 2>&-"
    process = processes.run(["sh", "-c", command], cwd=tmp_path)
    assert process.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mhnet-video {mhnet_video.__version__}\n"


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (1, ("frame",), "1 frame"),
        (0, ("frame",), "0 frames"),
        (1, ("packet was", "packets were"), "1 packet was"),
        (3, ("packet was", "packets were"), "3 packets were"),
    ],
)
def test_numbers_agree_with_their_nouns(number, words, said):
    assert counted(number, *words) == said


def test_a_live_run_of_one_of_each_agrees_with_its_nouns():
    statistics = LiveStatistics(
        source="0",
        width=64,
        height=48,
        frames=1,
        dropped=0,
        reconnects=1,
        damaged=1,
        source_fps=25.0,
        fps=25.0,
        latency_seconds=0.1,
        network_seconds=0.01,
        model="",
        scale=1.0,
        strength=1.0,
        device="cpu",
        engine="llvm",
        trouble="",
    )
    report = LiveReport(
        statistics=statistics, recorded=(), missed=1, forwarded=1, lost=(), interrupted=False
    )
    assert live_summary(report) == [
        "0: 1 frame restored, 0 dropped",
        "  the source was lost and came back 1 time",
        "  damaged: 1 packet could not be decoded",
        "  not recorded: 1 frame, this machine was too slow",
        "  sent: 1 frame",
    ]


def test_info_lists_what_is_here(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["mhnet-video"] == mhnet_video.__version__
    assert "cpu" in found["devices"]
    assert "libx264" in found["encoders"]
    assert {"os", "processor", "instructions", "cores", "memory"} <= found["system"].keys()
    for model in list_models():
        told = next(each for each in found["models"] if each["name"] == model.name)
        assert told["sha256"] == hashlib.sha256(model.path.read_bytes()).hexdigest()
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "encoders that open here: " in out
    width = max(len(model["name"]) for model in found["models"])
    for model in found["models"]:
        assert f"\n{model['name']:<{width}} {model['size_bytes'] / 1e6:.1f} MB, " in out
        steps, stage = 0, model["training"]
        while stage:
            steps, stage = steps + stage["steps"], stage.get("before")
        assert f"{steps:,} steps" in out


def test_info_names_nobody(monkeypatch, tmp_path, capsys):
    """Paths begin with ~ where they are in the home folder, whose name is often a person's."""
    home = tmp_path / "jane.doe"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("MHNET_CPU_ISA", "avx2")
    monkeypatch.setenv("MHNET_SECRET", "secret")
    values = {"a": [f"{home}/x", f"in {home}", f"{home}-2"], "b": (1, str(home), None)}
    assert without_home(values) == {"a": ["~/x", "in ~", f"{home}-2"], "b": (1, "~", None)}
    for words in (["info", "--json"], ["info"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert "~/cache/mhnet-video" in said and "avx2" in said
        assert "jane.doe" not in said and "secret" not in said


def test_progress_bar_counts_and_guesses(capsys):
    with progress_bar(True) as show:
        for frames in range(1, 5):
            show(Progress(frames=frames, total=4, seconds=frames, position_seconds=frames * 60))
    err = capsys.readouterr().err
    assert "100% |" in err
    assert "4/4 frames" in err
    assert "frames/s" in err
    assert "at 0:04:00" in err


def test_the_time_left_counts_from_the_first_frame(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    with progress_bar(True) as show:
        now[0] += 10  # a network is loaded and compiled
        show(Progress(frames=1, total=1000, seconds=10, position_seconds=0))
        now[0] += 4
        show(Progress(frames=21, total=1000, seconds=14, position_seconds=1))
    rates = re.findall(r"21/1000 frames, +([\d.]+) frames/s", capsys.readouterr().err)
    assert rates[-1:] == ["5.00"]  # 20 frames in 4 s, not 21 in 14 s


def test_no_bar_where_nothing_begins(capsys):
    with pytest.raises(ValueError), progress_bar(True):
        raise ValueError
    assert capsys.readouterr().err == ""


def test_progress_bar_where_the_count_is_unknown_or_wrong(capsys):
    with progress_bar(True) as show:
        show(Progress(frames=3, total=None, seconds=1, position_seconds=1))
        show(Progress(frames=5, total=4, seconds=1, position_seconds=1))
    err = capsys.readouterr().err
    assert "5 frames" in err
    assert "time left unknown" in err
    assert "125%" not in err


@pytest.mark.parametrize("total", [1, None])
def test_the_bar_of_one_frame_says_no_more_than_is_known(total, capsys):
    with progress_bar(True) as show:
        for each in (total, 1):
            show(Progress(frames=1, total=each, seconds=1, position_seconds=0))
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if line]
    assert "?" not in "".join(lines) and not any("unknown" in line for line in lines)
    assert all("1/1 frames, at 0:00:00" in line or line == "1 frame, at 0:00:00" for line in lines)
    assert "100% |" in lines[-1]


def test_no_bar_gives_nothing_to_call(capsys):
    with progress_bar(False) as show:
        assert show is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_ask_the_run_to_stop(number, capfd):
    stop = threading.Event()
    outer = signal.signal(number, signal.default_int_handler)  # under nohup SIGHUP is ignored
    try:
        with stop_on_signals(stop):
            os.kill(os.getpid(), number)
            assert stop.wait(SECONDS)
            os.kill(os.getpid(), number)  # as `timeout` does, to the process and to its group
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, outer)
    assert "finishing the file" in capfd.readouterr().err


def test_a_hangup_that_is_ignored_stays_so():
    outer = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = threading.Event()
        with stop_on_signals(stop):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, outer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_what_has_no_end_of_its_own(number, monkeypatch):
    """One within half a second is the same one: `timeout` sends it twice."""
    clock = Clock()
    monkeypatch.setattr("mhnet_video.cli.terminal.time", SimpleNamespace(monotonic=clock))
    outer = signal.signal(number, signal.SIG_DFL)
    try:
        with interrupt_on_signals():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            clock.now += 0.4
            signal.raise_signal(number)
            clock.now += 0.2
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)
        with interrupt_on_signals():
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, outer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_temporary_folder_of_a_measurement(
    number, tmp_path, monkeypatch, capsys
):
    def child(*args, **others):
        assert len(list(tmp_path.iterdir())) == 1
        signal.raise_signal(number)

    monkeypatch.setattr("mhnet_video.pipelines.bench._child", child)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["bench"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_press_aborts(number, monkeypatch):
    """One within half a second is the same press."""
    clock, stop = Clock(), threading.Event()
    monkeypatch.setattr("mhnet_video.cli.terminal.time", SimpleNamespace(monotonic=clock))
    with stop_on_signals(stop):
        os.kill(os.getpid(), number)
        assert stop.wait(SECONDS)
        clock.now += 0.4
        signal.raise_signal(number)
        clock.now += 0.2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL


def test_the_help_names_every_setting():
    text = restore_parser().format_help()
    for field in RestoreConfig.__dataclass_fields__:
        assert "--" + field.replace("_options", "_option").replace("_", "-") in text


def test_a_terminal_that_tells_no_size_has_a_bar_too():
    code = (
        "from types import SimpleNamespace; from mhnet_video.cli.terminal import progress_bar\n"
        "with progress_bar(True) as show:\n"
        "    show(SimpleNamespace(frames=1, total=2, position_seconds=0))"
    )
    master, slave = os.openpty()
    try:
        processes.run([sys.executable, "-c", code], stderr=slave, check=True)
        os.set_blocking(master, False)
        assert b"1/2 frames" in os.read(master, 4096)
    finally:
        os.close(master)
        os.close(slave)
