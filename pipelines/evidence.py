"""Evidence of a restoration: a JSON beside the output that says what was done to each frame.

Frames are written as they pass, so that a film of a day takes no memory. When the output is
complete, it is decoded once beside the source, so that `verify` can compare without a tolerance.
"""

import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mhnet_video import __version__
from mhnet_video.closing import Closing
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, ReadError, WeightsError, WriteError
from mhnet_video.frame import Frame, Pair
from mhnet_video.locator import shown
from mhnet_video.media.formats.containers import picture_encoder
from mhnet_video.media.frames.device_frames import on_host
from mhnet_video.media.output_file import OutputFile, check_destination, why_unwritable
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.tasks import TASKS, steps_of

T = TypeVar("T")

FORMAT = "mhnet-video evidence 1"
"""What the file calls itself."""
COLUMNS = {
    "frames": ("source", "pts", "changed", "mean"),
    "decoded": ("pts", "changed", "mean"),
}
"""Of a frame as it was restored, and as the output decodes: the number of its source, from 0; its
time in ticks of its file, as the file has it; the share of pixels whose luma (green of RGB) differs
from the source's, and the mean of that difference in levels of 8 bits, both null where the output
has other samples than the source."""


class Change(NamedTuple):
    """How far a picture is from the source's."""

    changed: float
    """Share of the pixels, 0 to 1."""
    mean: float
    """Mean of all pixels, in levels of 8 bits."""


def remark_of(task: str) -> str:
    """What the output's comment says."""
    return f"Restored by mhnet-video {__version__}: taken out was {TASKS[task].removes}."


def evidence_path(destination: str | PathLike[str]) -> Path:
    """Where the evidence of an output is."""
    return Path(f"{os.fspath(destination)}.evidence.json")


def change_between(source: Frame, other: Frame) -> Change | None:
    """How far a picture is from the source's; None where it has other samples.

    Args:
        source: The source's picture.
        other: The restored one, or what the output decodes to.
    """
    one, two = on_host(source), on_host(other)
    a, b = one.planes[0], two.planes[0]
    if a.shape != b.shape or (one.layout.kind == "rgb") != (two.layout.kind == "rgb"):
        return None
    if a is b:
        return Change(0.0, 0.0)
    bits = max(one.layout.bits, two.layout.bits)
    if one.layout.bits != two.layout.bits:
        a = a.astype(np.uint16) << (bits - one.layout.bits)
        b = b.astype(np.uint16) << (bits - two.layout.bits)
    difference = np.maximum(a, b) - np.minimum(a, b)
    changed = np.count_nonzero(difference) / difference.size
    mean = float(difference.mean(dtype=np.float64)) / (1 << (bits - 8))
    return Change(round(changed, 6), round(mean, 4))


class Origin(NamedTuple):
    """Where a frame is from."""

    source: int
    """The number of its source, from 0."""
    pts: int
    """Its time in ticks of the source, as the file has it."""


def changes_of(
    sources: Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    start: float | None,
    duration: float | None,
) -> Iterator[tuple[Origin | None, int | None, Change | None]]:
    """Decode sources and their output side by side.

    Args:
        sources: The source, or those that follow one another.
        output: The output.
        start: Where the output begins in the source, in seconds; None for its beginning.
        duration: How much of the source it shows, in seconds; None for all.

    Yields:
        For each frame where it is from and its PTS in the output, None where there is none any
        more, and how far they are from each other.

    Raises:
        ReadError: One of them cannot be read.
    """
    with (
        closing(_frames_of(sources, start, duration)) as ones,
        closing(_frames_of([output], None, None)) as others,
    ):
        for _, two in others:
            index, one = next(ones, (0, None))
            if one is None:
                yield None, two.pts, None
            else:
                yield origin_of(index, one), two.pts, change_between(one, two)
        index, one = next(ones, (0, None))
        if one is not None:
            yield origin_of(index, one), None, None


def origin_of(source: int, frame: Frame) -> Origin:
    """Where a decoded frame is from.

    Args:
        source: The number of its source.
        frame: The frame.
    """
    return Origin(source, frame.tags.get("source_pts", frame.pts))


def _frames_of(
    paths: Sequence[str | PathLike[str]], start: float | None, duration: float | None
) -> Generator[tuple[int, Frame]]:
    """The frames of files, one file after the other, each with its file's number."""
    for index, path in enumerate(paths):
        with VideoReader(path, start=start, duration=duration) as reader:
            for item in reader:
                if isinstance(item, Frame):
                    yield index, item


def sha256_of(path: str | PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        ReadError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ReadError(f"{shown(path)} cannot be read: {error.strerror}.") from error


class Digest:
    """SHA-256 of evidence, of its rows and then of all else, however the file is laid out."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, value: Any) -> None:
        """Take the next row, or what stands behind the rows."""
        self._hash.update(json.dumps(value, sort_keys=True).encode() + b"\n")

    @property
    def shown(self) -> str:
        """In hexadecimal."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Restoration:
    """What is restored into a file, and how."""

    sources: Sequence[str | PathLike[str]]
    """One, or files that follow one another."""
    destination: str | PathLike[str]
    """The output, beside which its companions are."""
    config: RestoreConfig
    home: str | PathLike[str] | None = None
    """Where output and companions will be moved to; None for nowhere."""
    taken_out: str = ""
    """What a restorer that was passed takes out; empty for what the settings say."""

    @cached_property
    def task(self) -> str:
        """What is taken out, one of `TASKS`.

        Raises:
            WeightsError: The weights that the settings name do not exist, or are damaged.
        """
        if self.taken_out:
            return self.taken_out
        from mhnet_video.model.weights import task_done  # imports PyTorch

        return task_done(self.config.task, self.config.model, self.config.weights)

    @property
    def is_of_files(self) -> bool:
        """Whether it is from files to a file, none of them a stream."""
        return all(map(os.path.isfile, self.sources)) and os.fspath(self.destination) != "-"


class EvidenceWriter(Closing):
    """The evidence of one run, which appears under its name when it is complete.

    Args:
        restoration: What the run does.

    Raises:
        ConfigError: There is no evidence of this kind of source or output.
        WriteError: There is a file of its name, or none can be created.
    """

    def __init__(self, restoration: Restoration) -> None:
        destination = Path(restoration.destination)
        if not restoration.is_of_files or picture_encoder(str(destination)) is not None:
            raise ConfigError(
                "evidence is written of a video file that becomes another; leave --evidence out."
            )
        config = restoration.config
        self.path = evidence_path(destination)
        for source in restoration.sources:
            check_destination(self.path, source=source, overwrite=config.overwrite)
        self._sources = [Path(source) for source in restoration.sources]
        self._destination, self._config = destination, config
        self._restoration = restoration
        self._home = Path(restoration.home or destination)
        self._identities = [_identity(source) for source in self._sources]
        self._file: OutputFile | None = None
        self._digest = Digest()
        self._is_complete = False
        self._is_first = True

    def watch(self, pairs: Generator[Pair | T]) -> Generator[Pair | T]:
        """Note each pair as it passes.

        Args:
            pairs: Frames as they were and restored, and anything else.
        """
        try:
            for item in pairs:
                if isinstance(item, Pair):
                    self.add([evidence_row(0, item)])
                yield item
        finally:
            pairs.close()

    def add(self, rows: Iterable[list[Any]]) -> None:
        """Take the rows of the next frames, as `evidence_row` makes them.

        Raises:
            WriteError: The disk refuses.
        """
        for row in rows:
            self._row(row)

    def complete(self, told: dict[str, Any]) -> Path:
        """Write what is known at the end, once the output has its name.

        Args:
            told: What the run tells of itself, such as `interrupted`; `model` is the name or
                file of the weights.

        Returns:
            Where the evidence is.

        Raises:
            ReadError: The source has changed meanwhile, or a file cannot be read.
            WriteError: The disk refuses.
        """
        self._write('],\n"decoded": [')
        self._is_first = True
        start, duration = self._config.start, self._config.duration
        pairs = changes_of(self._sources, self._destination, start=start, duration=duration)
        for _, pts, change in pairs:
            if pts is not None:
                self._row([pts, *(change or (None, None))])
        from mhnet_video.pipelines.info import versions  # imports PyTorch

        folder, task = os.path.realpath(self._home.parent), self._restoration.task
        weights = _weights(told["model"], task, folder)
        settings = {**asdict(self._config), "task": task}
        for name in ("model", "weights"):
            if settings[name] is not None:
                settings[name] = _told_name(settings[name])
        del settings["overwrite"]
        rest = {
            **told,
            "sources": [_described(source, source, folder) for source in self._sources],
            "output": _described(self._destination, self._home, folder),
            "model": weights["name"],
            "weights": weights,
            "versions": versions(),
            "settings": settings,
        }
        for source, before in zip(self._sources, self._identities, strict=True):
            if _identity(source) != before:
                raise ReadError(
                    f"{shown(source)} was changed while it was read, so there is no evidence; "
                    "do it again from a file that stays as it is."
                )
        self._digest.add(rest)
        rest["digest"] = self._digest.shown
        self._write("],\n" + json.dumps(rest, indent=1, sort_keys=True)[2:] + "\n")
        self._opened().commit()
        self._is_complete = True
        return self.path

    def close(self) -> None:
        """Leave nothing unless it was completed."""
        if not self._is_complete and self._file is not None:
            self._file.discard()

    def _opened(self) -> OutputFile:
        """The file, with its beginning: it is there as soon as there is something to say."""
        if self._file is None:
            self._file = OutputFile(self.path, overwrite=self._config.overwrite)
            head = {"format": FORMAT, "columns": COLUMNS}
            self._write(json.dumps(head)[:-1] + ',\n"frames": [')
        return self._file

    def _row(self, row: list[Any]) -> None:
        self._digest.add(row)
        self._opened()
        self._write(("\n" if self._is_first else ",\n") + json.dumps(row))
        self._is_first = False

    def _write(self, text: str) -> None:
        try:
            self._opened().write(text.encode())
        except OSError as error:
            raise WriteError(
                f"{shown(self.path)} cannot be written: {why_unwritable(error)}."
            ) from error


def evidence_row(source: int, pair: Pair) -> list[Any]:
    """The row of a frame as it was restored.

    Args:
        source: The number of its source, from 0.
        pair: The frame as it was, and restored.
    """
    return [*origin_of(source, pair.source), *(change_between(*pair) or (None, None))]


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _described(path: Path, home: Path, folder: str) -> dict[str, Any]:
    """A file: where it will be from the evidence's folder, its size and its hash."""
    size, sha256 = path.stat().st_size, sha256_of(path)
    return {"path": _seen_from(folder, home), "bytes": size, "sha256": sha256}


def _seen_from(folder: str, path: Path) -> str:
    """Where a file is, from a folder without links in its path."""
    # `..` leads out of what a link points to, not out of the folder that has the link
    where = os.path.join(os.path.realpath(path.parent), path.name)
    with suppress(ValueError):  # on another drive
        where = os.path.relpath(where, folder)
    return where


def _weights(name: str, task: str, folder: str) -> dict[str, Any]:
    """Names and hashes of the weights, with a plus between those of networks in turn.

    Args:
        name: Models, files or repositories.
        task: What they take out.
        folder: Of the evidence, without links in its path.

    Returns:
        Also where the files are, from the folder; None for what a name finds everywhere.
    """
    from mhnet_video.model.weights import MODELS, locate_weights, weights_in_turn  # imports PyTorch

    names = name.split("+") if len(steps_of(task)) > 1 else weights_in_turn(name)
    try:
        files = [locate_weights(each) for each in names]
    except WeightsError:  # a network that was passed in
        return {"name": name, "sha256": None}
    paths: list[str | None] = []
    for each, file in zip(names, files, strict=True):
        is_found = file.parent == MODELS or not os.path.exists(each)
        paths.append(None if is_found else _seen_from(folder, file))
    hashes = "+".join(map(sha256_of, files))
    return {"name": "+".join(map(_told_name, names)), "sha256": hashes, "paths": paths}


def _told_name(name: str) -> str:
    """The name of a model or repository; of a file or folder, the last part of its path."""
    return Path(os.path.abspath(name)).name if os.path.exists(name) else name
