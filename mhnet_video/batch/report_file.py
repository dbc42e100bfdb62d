"""The rows of a batch in a file for programs: JSON Lines as they come, or Parquet at the end."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from mhnet_video.batch.rows import Row, Status
from mhnet_video.closing import Closing
from mhnet_video.errors import ConfigError, MHNetVideoError, WriteError
from mhnet_video.media.fidelity import printable
from mhnet_video.media.output_file import check_destination, locked, why_unwritable
from mhnet_video.system import release, replace_file

_FIELDS = {"status", "output", "sources"}
"""What every row has, in all versions."""
_LONGEST_ROW = 1 << 20
"""Characters of a row that are read to know it."""


class ReportFile(Closing):
    """Takes the rows, and is complete when it is closed.

    What stands there before is replaced with the first row, and without one at the end of a run
    that has not failed.

    Args:
        path: File to create, by its name JSON Lines (`.jsonl`) or Parquet (`.parquet`).
        overwrite: Whether an existing file may be replaced that is no report.

    Raises:
        ConfigError: The name says neither.
        MHNetVideoError: The extra `batch` is not installed.
        WriteError: The file cannot be written, exists and is no report, or another run writes it.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self._path = Path(path)
        self._rows: list[dict[str, Any]] = []
        self._is_parquet = self._path.suffix.lower() == ".parquet"
        if self._path.suffix.lower() not in (".jsonl", ".parquet"):
            raise ConfigError(f"{path} must end in .jsonl or .parquet.")
        if self._is_parquet:
            _pyarrow()
        check_destination(path, overwrite=overwrite or self._is_report())
        self._lock = locked(self._path, taken="is written by another run now; name another one")
        self._has_begun = False
        self._error: OSError | None = None
        self._file = None
        if not self._is_parquet:
            try:
                # which leaves what is there
                self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
            except OSError as error:
                release(self._lock)
                raise WriteError(f"{path} cannot be written: {why_unwritable(error)}.") from error

    def _is_report(self) -> bool:
        """Whether a report stands there, or an empty file, as a run without a row leaves it."""
        names: Any = ()
        try:
            if not self._path.stat().st_size:
                return True
            if self._is_parquet:
                names = _pyarrow()[1].read_schema(self._path).names
            else:
                with open(self._path, encoding="utf-8") as file:
                    first = json.loads(file.readline(_LONGEST_ROW))
                names = first if isinstance(first, dict) else ()
        except (OSError, ValueError):
            return False
        return set(names) >= _FIELDS

    def _begin(self) -> None:
        """Give up what stood there."""
        if not self._has_begun and self._file is not None and self._file.seekable():
            self._file.truncate(0)
        self._has_begun = True

    def add(self, row: Row) -> None:
        """Take a row; where it cannot be written, the run goes on, and `close` says so."""
        if self._error is not None:
            return
        try:
            self._begin()
            if self._file is None:
                self._rows.append(row.to_dict())
            else:
                self._file.write(json.dumps(row.to_dict()) + "\n")
                self._file.flush()
        except OSError as error:
            self._error = error

    def close(self) -> None:
        """Complete the file.

        Raises:
            WriteError: It cannot be written, or a row could not be.
        """
        try:
            if self._file is not None:
                self._file.close()
            elif self._has_begun:
                write_parquet(self._path, self._rows)
            if self._error is not None:
                raise self._error
        except OSError as error:
            raise WriteError(f"{self._path} cannot be written: {why_unwritable(error)}.") from error
        finally:
            release(self._lock)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; a run that has failed before its first row leaves what stood there."""
        if kind is None:
            self._begin()
        super().__exit__(kind, error, trace)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of a report as Parquet.

    Args:
        path: File to create or replace.
        rows: As `Row.to_dict` gives them.

    Raises:
        OSError: It cannot be written.
    """
    pyarrow, parquet = _pyarrow()
    kinds = {
        bool: pyarrow.bool_(),
        str: pyarrow.string(),
        float: pyarrow.float64(),
        int: pyarrow.int64(),
        tuple: pyarrow.list_(pyarrow.string()),
    }
    # typed by the fields and not by the values, so that reports without a row fit others
    empty = Row(status=Status.DONE, output="", sources=()).to_dict()
    schema = pyarrow.schema([(name, kinds[type(value)]) for name, value in empty.items()])
    partial = path.with_name(path.name + ".partial")
    table = pyarrow.Table.from_pylist([_printable(row) for row in rows], schema=schema)
    parquet.write_table(table, partial)
    replace_file(partial, path)


def _printable(row: dict[str, Any]) -> dict[str, Any]:
    """The row without bytes of names that are no text, which Parquet does not hold."""
    return {
        name: printable(value)
        if isinstance(value, str)
        else [printable(each) for each in value]
        if isinstance(value, tuple)
        else value
        for name, value in row.items()
    }


def _pyarrow() -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MHNetVideoError(
            "a Parquet report needs the extra `batch`: pip install 'mhnet-video[batch]', "
            "or name a .jsonl file."
        ) from error
    return pyarrow, parquet
