"""`mhnet-video batch`: what can be typed, what is printed, and the exit status."""

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import processes
import pytest
import tqdm.std

import mhnet_video.pipelines.batch
from mhnet_video.batch.rows import Row, Status
from mhnet_video.cli.batch_arguments import batch_parser
from mhnet_video.cli.batch_progress import batch_progress
from mhnet_video.cli.batch_reports import batch_table, row_line
from mhnet_video.cli.main import main
from mhnet_video.config import BatchConfig, Box, RestoreConfig
from mhnet_video.pipelines.batch_tally import BatchProgress, BatchReport

DONE = Row(
    status=Status.DONE,
    output="sub/a.mp4",
    sources=("card/sub/a.mp4",),
    footage_seconds=60.0,
    frames=1800,
    seconds=90.0,
    damaged=2,
    lost=("a font",),
)
BEFORE = Row(status=Status.BEFORE, output="b.mp4", sources=("card/b.mp4",))
FAILED = Row(
    status=Status.FAILED,
    output="",
    sources=("card/c.mp4",),
    reason="card/c.mp4 is empty; copy it again from where it was recorded.",
)
NOTES = Row(
    status=Status.LEFT_OUT, output="", sources=("card/n.txt",), reason="card/n.txt is not a video."
)


@pytest.fixture
def calls(monkeypatch):
    """What the command asks of the pipeline, and what it gets."""
    seen = []

    def run_batch(sources, out_folder, config, batch, *, on_row, on_progress, stop):
        seen.append((sources, out_folder, config, batch, on_progress))
        for row in seen[0]:
            on_row(row)
        is_interrupted = not seen[0]
        return BatchReport(rows=tuple(seen[0]), seconds=90.0, jobs=1, interrupted=is_interrupted)

    monkeypatch.setattr(mhnet_video.pipelines.batch, "run_batch", run_batch)
    return seen


def test_every_option_reaches_the_pipeline(calls):
    calls.append([DONE])
    words = "batch a b/*.mp4 out --jobs 3 --shard 2/8 --join --ray=10.0.0.1:6379 --model quality"
    words += " --scale 0.5 --strength 0.5 --keep 1,2,3,4 --encoder libx265 --crf 20 --preset slow"
    words += " --encoder-option tune=grain --overwrite --device cpu --engine torch --quiet"
    assert main(words.split()) == 0
    sources, out_folder, config, batch, on_progress = calls[1]
    assert (sources, out_folder) == (["a", "b/*.mp4"], "out")
    assert batch == BatchConfig(jobs=3, shard=(2, 8), join=True, ray="10.0.0.1:6379")
    assert config == RestoreConfig(
        model="quality",
        scale=0.5,
        strength=0.5,
        keep=(Box(1, 2, 3, 4),),
        encoder="libx265",
        crf=20,
        preset="slow",
        encoder_options=(("tune", "grain"),),
        overwrite=True,
        device="cpu",
        engine="torch",
    )
    assert on_progress is None


def test_defaults_are_those_of_the_settings(calls):
    calls.append([DONE])
    assert main(["batch", "a", "out"]) == 0
    assert calls[1][2:4] == (RestoreConfig(), BatchConfig())
    assert main(["batch", "a", "out", "--watch", "--ray"]) == 2


@pytest.mark.parametrize(
    ("rows", "status"),
    [([DONE, BEFORE, NOTES], 0), ([DONE, FAILED], 1), ([], 130)],
)
def test_the_status_is_that_of_all_files(calls, rows, status):
    calls.append(rows)
    assert main(["batch", "a", "out", "--quiet"]) == status


@pytest.mark.parametrize(
    "words",
    [
        ["a"],
        ["a", "out", "--jobs", "0"],
        ["a", "out", "--shard", "0/2"],
        ["a", "out", "--shard", "3/2"],
        ["a", "out", "--shard", "x"],
        ["a", "out", "--join", "--watch"],
        ["a", "out", "--report", "r.csv"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(words):
    try:
        status = main(["batch", *words])
    except SystemExit as end:
        status = end.code
    assert status == 2


def test_a_file_in_place_of_the_folder_is_said(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"")
    assert main(["batch", str(tmp_path / "nothing"), str(tmp_path / "a.mp4")]) == 1
    said = f"{tmp_path / 'a.mp4'} cannot be written: a part of its path is a file and no folder;"
    assert said in capsys.readouterr().err


def test_the_table_has_a_row_for_each_file_that_matters():
    report = BatchReport(rows=(DONE, BEFORE, FAILED, NOTES), seconds=90, jobs=1, interrupted=False)
    lines = batch_table(report)
    assert [line.split()[0] for line in lines[:3]] == ["file", "sub/a.mp4", "card/c.mp4"]
    assert "0:01:00  0:01:30" in lines[1]
    assert lines[1].endswith("2 damaged, not kept: a font")
    assert lines[2].endswith("  is empty; copy it again from where it was recorded.")
    assert "1 done, 1 done before, 1 failed, 1 left out; 0:01:00 of footage" in lines[-1]


def test_a_reason_before_other_remarks_ends_in_one_comma():
    copied = replace(DONE, status=Status.COPIED, reason="it is dry.", damaged=0, has_drops=True)
    for lost, said in [((), ""), (("evidence: none",), ", not kept: evidence: none")]:
        rows = (replace(copied, lost=lost),)
        lines = batch_table(BatchReport(rows=rows, seconds=9, jobs=1, interrupted=False))
        assert lines[1].endswith(f"  it is dry{said}, drops on the glass before the camera")


def test_drops_that_are_left_are_told_with_what_takes_them_out():
    rows = (replace(DONE, has_drops=True, lost=(), damaged=0), BEFORE)
    lines = batch_table(BatchReport(rows=rows, seconds=90, jobs=1, interrupted=False))
    assert lines[1].endswith("drops on the glass before the camera")
    assert lines[-1].endswith("in 1 file; add --task raindrop")
    assert row_line(rows[0]).endswith("drops on the glass before the camera")


def test_works_that_were_not_begun_are_counted_and_not_listed():
    unbegun = Row(status=Status.UNFINISHED, output="d.mp4", sources=("card/d.mp4",), reason="why.")
    ended = replace(unbegun, output="e.mp4", worker="host:1")
    report = BatchReport(rows=(unbegun,) * 9 + (ended,), seconds=9, jobs=1, interrupted=True)
    lines = batch_table(report)
    assert [line.split()[0] for line in lines[:-2]] == ["file", "e.mp4"]
    assert lines[-2].startswith("10 unfinished;")


def test_a_run_that_a_full_disk_ended_says_why():
    unbegun = Row(status=Status.UNFINISHED, output="d.mp4", sources=("card/d.mp4",), reason="why.")
    why = "out/c.mp4 cannot be written: the disk is full."
    fatal = replace(FAILED, output="c.mp4", reason=why, is_fatal=True)
    for rows, is_early in (((DONE, fatal), False), ((DONE, fatal, unbegun, unbegun), True)):
        lines = batch_table(BatchReport(rows=rows, seconds=9, jobs=1, interrupted=False))
        said = f"ended early: {why} Run the same command again to go on."
        assert (lines[-1] == said) is is_early


def test_a_batch_of_nothing_says_why():
    report = BatchReport(rows=(NOTES,) * 9, seconds=1.0, jobs=1, interrupted=False)
    lines = batch_table(report)
    assert lines[:-1] == ["left out: card/n.txt is not a video."] * 3
    assert lines[-1].startswith("9 left out;")


def test_results_for_programs(calls, capsys, tmp_path):
    calls.append([DONE, FAILED])
    report = tmp_path / "r.jsonl"
    assert main(["batch", "a", "out", "--json", "--report", str(report)]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert [json.loads(line) for line in report.read_text().splitlines()] == rows


def test_a_file_is_a_calm_line_where_there_is_no_terminal(calls, capsys):
    calls.append([DONE, BEFORE, FAILED])
    main(["batch", "a", "out"])
    assert capsys.readouterr().err.splitlines() == [row_line(DONE), row_line(FAILED)]
    assert row_line(FAILED) == f"failed: {FAILED.reason}"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress(done, *, of=180.0, works=1, current=(("sub/a.mp4", 30.0, 60.0),)):
    return BatchProgress(
        works=works, total_works=3, seconds=done, total_seconds=of, current=current
    )


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard error a terminal of 100 columns, whose clock goes on by ten seconds."""
    times = iter(range(0, 10_000, 10))
    monkeypatch.setattr("mhnet_video.cli.batch_progress.time.monotonic", lambda: next(times))
    monkeypatch.setattr(tqdm.std, "_screen_shape_wrapper", lambda: lambda _: (100, 24))

    def show():
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return show


def test_a_terminal_shows_all_and_each_with_the_time_left(terminal):
    screen = terminal()
    with batch_progress(True) as (on_row, on_progress):
        for done in (0, 0, 10, 35, 60):
            on_progress(progress(done))
        on_row(FAILED)
    said = screen.getvalue()
    # 50 of 180 s took 20 s: 48 s are left for 120 s
    assert "all  33% |" in said and "| 1/3 files, 0:01:00 of 0:03:00, 0:00:48 left" in said
    assert "a.mp4  50% |" in said and "| 0:00:30 of 0:01:00" in said
    assert row_line(FAILED) in said


def test_the_time_left_counts_neither_the_start_nor_waiting_for_files(terminal):
    screen = terminal()
    with batch_progress(True) as (_, on_progress):
        for _ in range(100):  # workers start
            on_progress(progress(0))
        on_progress(progress(1))
        on_progress(progress(11))
        assert "0:02:49 left" in screen.getvalue()
        for _ in range(100):  # a watched folder without new files
            on_progress(progress(180, works=3, current=()))
        on_progress(progress(180, of=240))
        on_progress(progress(190, of=240))
        screen.seek(screen.truncate(0))
        on_progress(progress(200, of=240))
        # nothing of the pause, and of the rest a little faster than at first
        assert "0:00:" in screen.getvalue().partition("0:04:00, ")[2][:5]


def test_bars_of_works_that_have_ended_go_away(terminal):
    screen = terminal()
    with batch_progress(True) as (_, on_progress):
        on_progress(progress(60))
        screen.seek(screen.truncate(0))
        on_progress(progress(60, current=()))
        assert "a.mp4" not in screen.getvalue() and "- " not in screen.getvalue()


def test_no_name_steers_the_terminal_or_fills_it(terminal, capsys, calls):
    screen = terminal()
    name = "new\nline \x1b[2J \u202e" + "k" * 200 + ".mp4"
    with batch_progress(True) as (on_row, on_progress):
        on_progress(progress(60, current=((name, 30.0, 60.0),)))
        on_row(replace(FAILED, reason=f"{name} is empty."))
    said = screen.getvalue()
    assert "new\\nline \\x1b..." in said and " 50% |" in said
    assert "\x1b[2J" not in said and "\nline" not in said
    calls.append([replace(DONE, output=name), replace(FAILED, reason=f"{name} is empty.")])
    main(["batch", "a", "out"])
    shown = capsys.readouterr().out
    assert "new\\nline \\x1b[2J \\u202ekkk" in shown and len(shown.splitlines()) == 4


def test_the_table_fits_the_terminal():
    long = replace(DONE, output="k" * 90 + ".mp4")
    report = BatchReport(rows=(long, DONE, FAILED), seconds=9, jobs=1, interrupted=False)
    head, name, *lines = batch_table(report, columns=64)
    assert name == long.output
    assert all(len(line) <= 64 for line in [head, *lines])
    # its figures stand in their columns, and what is too long below them
    assert [line.find("done") for line in lines[:4]] == [head.find("status"), -1] * 2
    assert lines[1] == "    2 damaged, not kept: a font"
    assert "\n".join(lines).count("recorded.") == 1


def test_help_loads_neither_pytorch_nor_ray():
    code = (
        "import sys; from mhnet_video.cli.main import main\n"
        "try: main(['batch', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'av', 'numpy', 'tqdm', 'ray', 'pyarrow'} & set(sys.modules)"
    )
    processes.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_ray_is_loaded_only_when_it_is_asked_for():
    code = (
        "import sys, mhnet_video.pipelines.batch\n"
        "assert not {'ray', 'pyarrow', 'watchfiles', 'pandas'} & set(sys.modules)"
    )
    processes.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["mhnet-video-batch.service", "compose.yaml"])
def test_the_examples_of_services_say_what_the_command_understands(name):
    text = (Path(__file__).parents[2] / "examples" / name).read_text()
    found = re.search(r"^(?:ExecStart=|    command: )(.*)$", text, re.MULTILINE)[1]
    program, command, *words = json.loads(found) if found[0] == "[" else found.split()
    assert program.rpartition("/")[2] == "mhnet-video"
    assert command == "batch"
    assert batch_parser().parse_args(words).watch
