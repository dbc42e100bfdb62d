"""Evidence of a restoration: a JSON beside the output that says what was done to each frame.

Frames are written as they pass, so that a film of a day takes no memory. When the output is
complete, it is decoded once beside the source, so that `verify` can compare without a tolerance.
"""

import hashlib
import json
import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
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
from mhnet_video.media.containers import picture_encoder
from mhnet_video.media.device_frames import on_host
from mhnet_video.media.output_file import OutputFile, check_destination, why_unwritable
from mhnet_video.media.reader import VideoReader
from mhnet_video.model.weights import locate_weights
from mhnet_video.pipelines.info import versions

T = TypeVar("T")

FORMAT = "mhnet-video evidence 1"
"""What the file calls itself."""
COLUMNS = ("pts", "changed", "mean")
"""Of a frame: its time in ticks of its file, the share of pixels whose luma (green of RGB) differs
from the source's, and the mean of that difference in levels of 8 bits; null where the output has
other samples than the source."""
REMARK = f"Restored by mhnet-video {__version__}: rain was taken out of the pictures."
"""What the output's comment says."""


class Change(NamedTuple):
    """How far a picture is from the source's."""

    changed: float
    """Share of the pixels, 0 to 1."""
    mean: float
    """Mean of all pixels, in levels of 8 bits."""


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


def changes_of(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    start: float | None,
    duration: float | None,
) -> Iterator[tuple[int | None, int | None, Change | None]]:
    """Decode a source and its output side by side.

    Args:
        source: The source.
        output: The output.
        start: Where the output begins in the source, in seconds; None for its beginning.
        duration: How much of the source it shows, in seconds; None for all.

    Yields:
        For each frame the source's PTS and the output's, None where there is none any more, and
        how far they are from each other.

    Raises:
        ReadError: One of them cannot be read.
    """
    with (
        VideoReader(source, start=start, duration=duration) as before,
        VideoReader(output) as after,
    ):
        ones = (item for item in before if isinstance(item, Frame))
        for two in (item for item in after if isinstance(item, Frame)):
            one = next(ones, None)
            if one is None:
                yield None, two.pts, None
            else:
                yield one.pts, two.pts, change_between(one, two)
        if (one := next(ones, None)) is not None:
            yield one.pts, None, None


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
    """A file that is restored into another, and how."""

    source: str | PathLike[str]
    destination: str | PathLike[str]
    """The output, beside which its companions are."""
    config: RestoreConfig
    home: str | PathLike[str] | None = None
    """Where output and companions will be moved to; None for nowhere."""

    @property
    def is_of_files(self) -> bool:
        """Whether it is from a file to a file, neither of them a stream."""
        return os.path.isfile(self.source) and os.fspath(self.destination) != "-"


class EvidenceWriter(Closing):
    """The evidence of one run, which appears under its name when it is complete.

    Args:
        restoration: What the run does.

    Raises:
        ConfigError: There is no evidence of this kind of source or output.
        WriteError: There is a file of its name, or none can be created.
    """

    def __init__(self, restoration: Restoration) -> None:
        source, destination = Path(restoration.source), Path(restoration.destination)
        if not restoration.is_of_files or picture_encoder(str(destination)) is not None:
            raise ConfigError(
                "evidence is written of a video file that becomes another; leave --evidence out."
            )
        config = restoration.config
        self.path = evidence_path(destination)
        check_destination(self.path, source=source, overwrite=config.overwrite)
        self._source, self._destination, self._config = source, destination, config
        self._home = Path(restoration.home or destination)
        self._identity = _identity(self._source)
        self._file = OutputFile(self.path, overwrite=config.overwrite)
        self._digest = Digest()
        self._is_complete = False
        head = {"format": FORMAT, "columns": COLUMNS}
        self._write(json.dumps(head)[:-1] + ',\n"frames": [')
        self._is_first = True

    def watch(self, pairs: Generator[Pair | T]) -> Generator[Pair | T]:
        """Note each pair as it passes.

        Args:
            pairs: Frames as they were and restored, and anything else.
        """
        try:
            for item in pairs:
                if isinstance(item, Pair):
                    change = change_between(*item)
                    self._row(item.source.pts, change)
                yield item
        finally:
            pairs.close()

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
        pairs = changes_of(self._source, self._destination, start=start, duration=duration)
        for _, pts, change in pairs:
            if pts is not None:
                self._row(pts, change)
        rest = {
            **told,
            "source": _described(self._source, self._source, self._home.parent),
            "output": _described(self._destination, self._home, self._home.parent),
            "weights": _weights(told["model"]),
            "versions": versions(),
            "settings": {k: v for k, v in asdict(self._config).items() if k != "overwrite"},
        }
        if _identity(self._source) != self._identity:
            raise ReadError(
                f"{shown(self._source)} was changed while it was read, so there is no evidence; "
                "do it again from a file that stays as it is."
            )
        self._digest.add(rest)
        rest["digest"] = self._digest.shown
        self._write("],\n" + json.dumps(rest, indent=1, sort_keys=True)[2:] + "\n")
        self._file.commit()
        self._is_complete = True
        return self.path

    def close(self) -> None:
        """Leave nothing unless it was completed."""
        if not self._is_complete:
            self._file.discard()

    def _row(self, pts: int, change: Change | None) -> None:
        row = [pts, *(change or (None, None))]
        self._digest.add(row)
        self._write(("\n" if self._is_first else ",\n") + json.dumps(row))
        self._is_first = False

    def _write(self, text: str) -> None:
        try:
            self._file.write(text.encode())
        except OSError as error:
            raise WriteError(
                f"{shown(self.path)} cannot be written: {why_unwritable(error)}."
            ) from error


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _described(path: Path, home: Path, folder: Path) -> dict[str, Any]:
    """A file: where it will be from the evidence's folder, its size and its hash."""
    where = os.path.abspath(home)
    with suppress(ValueError):  # on another drive
        where = os.path.relpath(home, folder)
    return {"path": where, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _weights(name: str) -> dict[str, Any]:
    try:
        path = locate_weights(name)
    except WeightsError:  # a network that was passed in
        return {"name": name, "sha256": None}
    return {"name": name, "sha256": sha256_of(path)}
