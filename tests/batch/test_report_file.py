"""The rows of a batch as JSON Lines and as Parquet."""

import errno
import json
import sys

import pytest

from mhnet_video.batch import report_file
from mhnet_video.batch.report_file import ReportFile
from mhnet_video.batch.rows import Row, Status
from mhnet_video.errors import ConfigError, MHNetVideoError, WriteError

ROWS = [
    Row(status=Status.DONE, output="a.mp4", sources=("in/a.mp4",), frames=3, lost=("a font",)),
    Row(status=Status.FAILED, output="", sources=("in/\udcff.mp4",), reason="is empty."),
]


def test_json_lines_are_there_as_soon_as_they_come(tmp_path):
    path = tmp_path / "r.jsonl"
    with ReportFile(str(path)) as report:
        for count, row in enumerate(ROWS, 1):
            report.add(row)
            assert len(path.read_text().splitlines()) == count
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["status"] == "done"
    assert rows[1]["sources"] == ["in/\udcff.mp4"]
    assert "is_fatal" not in rows[0]


def test_parquet_has_typed_columns_also_without_a_row(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = [tmp_path / "full.parquet", tmp_path / "none.PARQUET"]
    for path, rows in zip(paths, (ROWS, []), strict=True):
        with ReportFile(str(path)) as report:
            for row in rows:
                report.add(row)
    full, none = map(parquet.read_table, paths)
    assert full.schema.equals(none.schema)
    assert full.column("frames").to_pylist() == [3, 0]
    assert full.column("lost").to_pylist() == [["a font"], []]
    assert full.column("status").to_pylist() == ["done", "failed"]
    assert not list(tmp_path.glob("*.partial"))


def test_other_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in \.jsonl or \.parquet"):
        ReportFile("r.csv")


def test_an_existing_report_is_not_replaced(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("precious")
    with pytest.raises(WriteError, match="exists already"):
        ReportFile(str(path))
    assert path.read_text() == "precious"
    with ReportFile(str(path), overwrite=True):
        pass
    assert path.read_text() == ""


@pytest.fixture(params=["r.jsonl", "r.parquet"])
def path(request, tmp_path):
    """Where a report is to be, of each kind."""
    if request.param.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    return tmp_path / request.param


def test_an_earlier_report_is_replaced_with_the_first_row(path):
    with ReportFile(str(path)) as report:
        report.add(ROWS[0])
        report.add(ROWS[1])
    before = path.read_bytes()
    with pytest.raises(ConfigError), ReportFile(str(path)):
        raise ConfigError("there is no such model")
    assert path.read_bytes() == before
    for rows in (ROWS[1:], []):
        with ReportFile(str(path)) as report:
            for row in rows:
                report.add(row)
        with ReportFile(str(path.with_name(f"other {path.name}")), overwrite=True) as report:
            for row in rows:
                report.add(row)
        assert path.read_bytes() == (path.with_name(f"other {path.name}")).read_bytes()


@pytest.mark.parametrize("content", ["{}", "[1]", '{"status": "done"}', "\0\xff"])
def test_a_run_that_fails_leaves_what_is_no_report(path, content):
    path.write_text(content)
    with pytest.raises(WriteError, match="exists already"):
        ReportFile(str(path))
    with pytest.raises(ConfigError), ReportFile(str(path), overwrite=True):
        raise ConfigError("there is no such model")
    assert path.read_text() == content


def test_what_a_run_without_a_row_has_left_is_replaced(path):
    path.touch()
    with ReportFile(str(path)) as report:
        report.add(ROWS[0])
    assert path.stat().st_size


def test_a_report_that_cannot_be_opened_leaves_no_lock(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "r.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(report_file, "open", refuse, raising=False)
        with pytest.raises(WriteError, match=r"r\.jsonl cannot be written: the disk is full"):
            ReportFile(str(path))
    assert [*tmp_path.iterdir()] == []
    with ReportFile(str(path)) as report:
        report.add(ROWS[0])


def test_without_pyarrow_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MHNetVideoError, match=r"pip install 'mhnet-video\[batch\]'"):
        ReportFile(str(tmp_path / "r.parquet"))


def test_a_report_that_another_run_writes_is_left_alone(path):
    with ReportFile(str(path)) as report:
        report.add(ROWS[0])
        with pytest.raises(WriteError, match="is written by another run now"):
            ReportFile(str(path))
        report.add(ROWS[1])
    assert [*path.parent.iterdir()] == [path]
    if path.suffix == ".jsonl":
        assert len(path.read_text().splitlines()) == 2
    with ReportFile(str(path)) as report:
        report.add(ROWS[0])


def test_a_full_disk_is_told_at_the_end_and_ends_no_run(tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    row = Row(status=Status.DONE, output="a.mp4", sources=("a.mp4",))
    report = ReportFile(str(tmp_path / "report.jsonl"))
    report.add(row)
    report._file.flush = full
    report.add(row)
    report.add(row)
    with pytest.raises(WriteError, match="jsonl cannot be written: the disk is full"):
        report.close()
