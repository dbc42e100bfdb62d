"""Check evidence: that files are those it names, and that they show what it says."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from mhnet_video.errors import ReadError, WeightsError
from mhnet_video.frame import Frame
from mhnet_video.locator import shown
from mhnet_video.media.fidelity import counted
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.model.weights import locate_weights
from mhnet_video.pipelines.evidence import (
    COLUMNS,
    FORMAT,
    Change,
    Digest,
    Origin,
    changes_of,
    sha256_of,
)

_TOLERANCES = (0.001, 0.01)
"""Of shares and means: decoders of some codecs round differently on other machines."""

_COLUMNS = {name: list(columns) for name, columns in COLUMNS.items()}
"""As JSON has them."""
_NOT_BEHIND_THE_ROWS = ("format", "columns", "frames", "decoded", "digest")
"""Of the evidence's keys, those that are no part of what its digest has at the end."""


class Verification(NamedTuple):
    """What became of a check."""

    lines: tuple[str, ...]
    """What holds, and what could not be checked, in sentences."""
    mismatches: tuple[str, ...]
    """What does not hold, in sentences."""


def verify(path: str | PathLike[str]) -> Verification:
    """Check all that evidence says.

    Args:
        path: The evidence, as `--evidence` wrote it.

    Raises:
        ReadError: It cannot be read, or is none.
    """
    return _Check(Path(path)).run()


class _Check:
    """One check, and what it has found so far."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._told = _load(path)
        self._lines: list[str] = []
        self._mismatches: list[str] = []

    def run(self) -> Verification:
        """Check files, weights and frames."""
        told = self._told
        # `format`, the other key outside the digest, has been looked at before
        if _digest_of(told) != told["digest"] or told.get("columns") != _COLUMNS:
            self._mismatches.append("The evidence itself was altered: its digest differs.")
        if told["interrupted"]:
            self._lines.append("The run was interrupted: the output is a part of what was asked.")
        found = [self._file("source", each) for each in told["sources"]]
        sources = [path for path in found if path is not None]
        output = self._file("output", told["output"])
        self._check_weights()
        if len(sources) < len(found):
            where = told["sources"][found.index(None)]["path"]
            which = "The source" if len(found) == 1 else f"The source {shown(where)}"
            sources = []
            self._lines.append(f"{which} is not there: it and the changes were not checked.")
        if output is None:
            self._mismatches.append("The output is neither where it was nor beside the evidence.")
        else:
            self._check_frames(sources, output)
        return Verification(tuple(self._lines), tuple(self._mismatches))

    def _file(self, name: str, told: dict[str, Any]) -> Path | None:
        """The file where it was, or beside the evidence; None where it is not there."""
        path = self._found(Path(told["path"]))
        if path is not None:
            self._compare(f"The {name} {shown(path)}", path, told.get("sha256"))
        return path

    def _found(self, where: Path) -> Path | None:
        paths = self._folder / where, self._folder / where.name
        return next((path for path in paths if path.is_file()), None)

    def _check_weights(self) -> None:
        name, told = self._told["weights"]["name"], self._told["weights"].get("sha256")
        hashes = str(told).split("+")  # those of networks in turn
        names = name.split("+", len(hashes) - 1)
        paths = self._told["weights"].get("paths")
        if not isinstance(paths, list):  # of the first versions
            paths = []
        for each, expected, where in zip_longest(names, hashes, paths[: len(hashes)]):
            path = None
            if isinstance(where, str) and "\0" not in where:
                path = self._found(Path(where))
            else:
                with suppress(WeightsError):
                    # evidence may come from anybody, and is to make nobody fetch anything
                    path = locate_weights(each or name, is_offline=True)
            if told is None or path is None:
                self._lines.append(f"The weights {each} are not here: they were not checked.")
            else:
                self._compare(f"The weights file {shown(path)}", path, expected)

    def _compare(self, what: str, path: Path, told: object) -> None:
        if sha256_of(path) == told:
            self._lines.append(f"{what} is the one of the evidence.")
        else:
            self._mismatches.append(f"{what} is another one than that of the evidence.")

    def _check_frames(self, sources: list[Path], output: Path) -> None:
        """Compare every frame with its rows; of each kind of mismatch the first is told.

        Args:
            sources: All of them; empty where one is not there.
            output: The output.
        """
        restored, decoded = self._told["frames"], self._told["decoded"]
        wrong: dict[str, list[int]] = {}
        count = 0
        try:
            for number, (before, after, change) in enumerate(self._frames(sources, output)):
                if after is None:
                    if not self._told["interrupted"]:
                        self._mismatches.append("The source goes on behind the output's end.")
                    break
                count += 1
                if number >= min(len(restored), len(decoded)):
                    continue
                if after != decoded[number][0]:
                    wrong.setdefault("PTS in the output", []).append(number)
                if sources and before != tuple(restored[number][:2]):
                    wrong.setdefault("PTS in the source", []).append(number)
                if sources and not _is_near(change, decoded[number][1:]):
                    wrong.setdefault("change", []).append(number)
        except ReadError as error:
            self._mismatches.append(f"The frames cannot be compared: {error}")
            return
        for told, what in ((restored, "restored"), (decoded, "decoded")):
            if count != len(told):
                frames = counted(count, "frame")
                said = f"The output has {frames}, and the evidence names {len(told)} {what}."
                self._mismatches.append(said)
        for what, numbers in wrong.items():
            others = counted(len(numbers) - 1, "further one")
            more = f", and that of {others}" if len(numbers) > 1 else ""
            self._mismatches.append(f"The {what} of frame {numbers[0]} differs{more}.")
        if not wrong and count == len(restored) == len(decoded):
            what = "PTS and changes" if sources else "PTS"
            self._lines.append(f"{what} are those of the evidence: {counted(count, 'frame')}.")

    def _frames(
        self, sources: list[Path], output: Path
    ) -> Iterator[tuple[Origin | None, int | None, Change | None]]:
        if sources:
            settings = self._told["settings"]
            part = {key: settings[key] for key in ("start", "duration")}
            yield from changes_of(sources, output, **part)
            return
        with VideoReader(output) as reader:
            for item in reader:
                if isinstance(item, Frame):
                    yield None, item.pts, None


def _is_near(change: Change | None, told: list[float | None]) -> bool:
    if change is None:
        return told == [None, None]
    return all(
        isinstance(value, int | float) and abs(found - value) <= tolerance
        for found, value, tolerance in zip(change, told, _TOLERANCES, strict=True)
    )


def _digest_of(told: dict[str, Any]) -> str:
    digest = Digest()
    for row in (*told["frames"], *told["decoded"]):
        digest.add(row)
    digest.add({key: value for key, value in told.items() if key not in _NOT_BEHIND_THE_ROWS})
    return digest.shown


def _load(path: Path) -> dict[str, Any]:
    """The evidence, of which all is there that is asked for.

    Raises:
        ReadError: It cannot be read, or is none.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{shown(path)} is no evidence: it is no JSON, or cut off.") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ReadError(f"{shown(path)} is no evidence of this version; name a FILE.evidence.json.")
    if not _is_whole(told):
        raise ReadError(
            f"{shown(path)} is damaged: something is missing in it, or of another kind."
        )
    return told


def _is_whole(told: dict[str, Any]) -> bool:
    sources = told.get("sources")
    if not isinstance(sources, list) or not sources:
        return False
    texts = [
        told_file.get(key) if isinstance(told_file, dict) else None
        for told_file, key in (
            *((source, "path") for source in sources),
            (told.get("output"), "path"),
            (told.get("weights"), "name"),
        )
    ]
    settings = told.get("settings")
    return (
        all(isinstance(text, str) and "\0" not in text for text in texts)
        and isinstance(settings, dict)
        and all(_is_time(settings.get(key, -1)) for key in ("start", "duration"))
        and all(name in told for name in ("interrupted", "digest"))
        and all(_are_rows(told.get(name), len(columns)) for name, columns in COLUMNS.items())
    )


def _is_time(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value < 1e9)


def _are_rows(value: object, length: int) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == length for row in value
    )
