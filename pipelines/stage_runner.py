"""Stages of a check as processes of their own, whose rows are on disk as soon as they are found.

A stage is a command that appends rows to a file, a line of JSON each. The runner starts each in a
process group of its own, ends it with all that it has started when its time is up, and rewrites one
JSON file after every row. Whoever is killed, stage or runner, leaves what was found.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mhnet_video.system import replace_file

_POLL_SECONDS = 0.1
"""Seconds between two looks at the processes and their rows."""


@dataclass(frozen=True, kw_only=True)
class CheckStage:
    """A part of a check."""

    name: str
    """A file name, unique in the check."""
    command: Sequence[str]
    """Appends its rows to the file that follows the argument `--rows`, which is added."""
    seconds: float
    """Time limit."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides those of the runner."""


class StageProcess:
    """A stage that runs.

    Args:
        stage: What to run.
        folder: Where its rows, `NAME.rows`, and its output, `NAME.log`, go.
        seconds: Time limit.
    """

    def __init__(self, stage: CheckStage, folder: Path, seconds: float) -> None:
        self._begin = time.monotonic()
        self._seconds = seconds
        self._rows = folder / f"{stage.name}.rows"
        self._rows.write_bytes(b"")
        self._position = 0
        self.result: dict[str, Any] = {"stage": stage.name, "status": "running"}
        self.result |= {"seconds": 0.0, "log": f"{stage.name}.log", "rows": []}
        self._log: IO[bytes] = (folder / f"{stage.name}.log").open("wb")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                [*stage.command, "--rows", str(self._rows)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **stage.environment},
                start_new_session=True,  # a group of its own, to be ended as one
            )
        except OSError as error:
            self._end(f"not started: {error}")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return bool(self.result["status"] == "running")

    def poll(self) -> bool:
        """Take its new rows, and end it if its time is up; whether anything has changed."""
        if self._process is None or not self.is_running:
            return False
        status = self._process.poll()
        has_rows = self._take_rows()
        if status is not None:
            if status < 0:
                self._end(f"killed by {signal.Signals(-status).name}")
            else:
                self._end("done" if status == 0 else f"exit status {status}")
        elif time.monotonic() - self._begin > self._seconds:
            self._end(f"not done after {self._seconds:.0f} s")
        return has_rows or not self.is_running

    def stop(self, status: str) -> None:
        """End it, if it runs, for another reason."""
        if self.is_running:
            self._end(status)

    def _take_rows(self) -> bool:
        with self._rows.open("rb") as file:
            file.seek(self._position)
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]  # the last line may still be written
        self._position += len(whole)
        for line in whole.splitlines():
            try:
                self.result["rows"].append(json.loads(line))
            except ValueError:
                self.result["rows"].append({"failed": f"not a row: {line[:100]!r}"})
        return bool(whole)

    def _end(self, status: str) -> None:
        if self._process is not None:
            # the group too where the process has ended: its children may not have
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._take_rows()
        self._log.close()
        self.result |= {"status": status, "seconds": time.monotonic() - self._begin}


def run_stages(
    steps: Sequence[Sequence[CheckStage]],
    folder: Path,
    *,
    seconds: float,
    jobs: int,
    facts: Mapping[str, Any] | None = None,
    on_end: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run stages, and write `results.json` after each row of any of them.

    Args:
        steps: One after the other; the stages of each step beside one another.
        folder: Where everything goes; is made.
        seconds: Time limit of all. Stages that have not begun by then never do.
        jobs: Most stages at once.
        facts: What else the file is to say.
        on_end: Is told the result of each stage when that has ended.

    Returns:
        What the file says: `seconds`, and in `stages` for each its `status` (`done` if all is
        well), `seconds`, `log` and `rows`.

    Raises:
        OSError: The folder cannot be written.
    """
    begin = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {**(facts or {}), "seconds": 0.0, "stages": []}
    running: list[StageProcess] = []

    def save() -> None:
        figures["seconds"] = time.monotonic() - begin
        write_json(folder / "results.json", figures)

    try:
        save()
        for step in steps:
            waiting = list(step)
            while waiting or running:
                has_changed = False
                while waiting and len(running) < jobs:
                    stage = waiting.pop(0)
                    left = begin + seconds - time.monotonic()
                    if left <= 0:
                        row = {"stage": stage.name, "status": "no time was left"}
                        figures["stages"].append(row | {"seconds": 0.0, "rows": []})
                    else:
                        process = StageProcess(stage, folder, min(stage.seconds, left))
                        running.append(process)
                        figures["stages"].append(process.result)
                    has_changed = True
                for process in list(running):
                    has_changed |= process.poll()
                    if not process.is_running:
                        running.remove(process)
                        if on_end is not None:
                            on_end(process.result)
                if has_changed:
                    save()
                if running:
                    time.sleep(_POLL_SECONDS)
    finally:
        # whatever ends the runner ends them, and their rows stay
        for process in running:
            process.stop("stopped")
        save()
    return figures


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    """Replace a JSON file by another one at once: nobody sees a part of it."""
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        partial.write_text(json.dumps(figures, indent=1), encoding="utf-8")
        replace_file(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def part_of(number: int, count: int, items: Sequence[Any]) -> list[Any]:
    """Every `count`-th item from the `number`-th on, which counts from 1."""
    return list(items[number - 1 :: count])
