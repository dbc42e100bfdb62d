"""What batches have done in a folder of outputs: lines of JSON that are only ever added to.

Each process writes a file of its own, so that none waits for another on any file system, and reads
those of all. A line counts only if its output is there and is the one it tells of: so a line may be
written before its output gets its name, and a killed run leaves nothing that looks finished.
"""

import errno
import hashlib
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mhnet_video.batch.work import Work
from mhnet_video.closing import Closing

_SAMPLE_BYTES = 16 << 10
"""What is read of a file's beginning, of its middle and of its end."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells a file from another of its name, cheaply."""

    size: int
    """In bytes."""
    mtime_ns: int
    """When it was changed last, in nanoseconds since 1970."""
    digest: str
    """SHA-256 of its beginning, middle and end."""

    @property
    def content(self) -> tuple[int, str]:
        """Without its time: files are moved and copied, and their times with them or not.

        A card's times are those of another hour where summer time has ended.
        """
        return self.size, self.digest


def identify(path: Path) -> Identity:
    """The identity of a file; three short pieces of it are read.

    Raises:
        OSError: It is gone, or cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        for start in (0, status.st_size // 2, max(0, status.st_size - _SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return Identity(size=status.st_size, mtime_ns=status.st_mtime_ns, digest=digest.hexdigest())


def hash_of(path: Path) -> str:
    """SHA-256 of a whole file.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A finished work."""

    output: str
    """Its key."""
    result: Identity
    """Of the output."""
    sources: tuple[Identity, ...]
    recipe: dict[str, Any]
    """The settings and the weights' hash: what decides what becomes of the sources."""
    companions: dict[str, Identity] = field(default_factory=dict)
    """Of the files beside the output that were made with it, by their names."""

    @property
    def files(self) -> dict[str, Identity]:
        """The output and its companions, by their names."""
        return {PurePosixPath(self.output).name: self.result} | self.companions


class Manifest(Closing):
    """The finished works of a folder of outputs.

    Args:
        folder: Where the lines are, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_bytes: dict[Path, int] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._descriptor: int | None = None

    def refresh(self) -> None:
        """Read what has been added since the last time, by whomever.

        Raises:
            OSError: The folder cannot be read.
        """
        for path in sorted(self._folder.glob("*.jsonl")):
            with open(path, "rb") as file:
                file.seek(self._read_bytes.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # somebody is writing it, or was killed
                    self._read_bytes[path] = self._read_bytes.get(path, 0) + len(line)
                    entry = _entry_of(line)
                    if entry is not None:
                        self._entries.setdefault(entry.output, []).append(entry)

    def is_done(self, work: Work, recipe: dict[str, Any]) -> bool:
        """Whether a work's output and its companions are there, made of these sources in this way.

        Raises:
            OSError: A source cannot be read.
        """
        entries = [
            entry
            for entry in self._entries.get(work.key, ())
            if entry.recipe == recipe and _are_there(entry.files, work.output.parent)
        ]
        if not entries:
            return False
        sources = [identify(path).content for path in work.sources]
        return any([each.content for each in entry.sources] == sources for entry in entries)

    def has_made(self, work: Work, path: Path) -> bool:
        """Whether what is there now is what a batch has made, and nobody else.

        Args:
            work: The work.
            path: Its output, or a companion of that.
        """
        return bool(self._makers(work, path))

    def may_replace_output(self, work: Work) -> bool:
        """Whether the output that is there was made of sources that a work has all, too.

        Raises:
            OSError: A source cannot be read.
        """
        contents = {identify(path).content for path in work.sources}
        makers = self._makers(work, work.output)
        return any(contents >= {each.content for each in entry.sources} for entry in makers)

    def _makers(self, work: Work, path: Path) -> list[Entry]:
        """The entries of a work that tell of what is there now."""
        return [
            entry
            for entry in self._entries.get(work.key, ())
            if path.name in entry.files
            and _are_there({path.name: entry.files[path.name]}, path.parent)
        ]

    def add(self, entry: Entry) -> None:
        """Write down a work whose output is about to get its name.

        Raises:
            OSError: The line cannot be written.
        """
        # the one before may have been cut off by a full disk
        line = b"\n" + json.dumps(asdict(entry), separators=(",", ":")).encode() + b"\n"
        if self._descriptor is None:
            name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{_host()}-{os.getpid()}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._descriptor = os.open(self._folder / name, flags, 0o666)
        if os.write(self._descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file of this process."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _are_there(files: dict[str, Identity], folder: Path) -> bool:
    """Whether a folder holds files of these names that are as they were."""
    try:
        found = [identify(folder / name) for name in files]
    except OSError:
        return False
    return [told.content for told in files.values()] == [now.content for now in found]


def check_unchanged(paths: Sequence[Path], before: Sequence[Identity]) -> str:
    """Why what was read of some files is not what they hold now; empty if nothing has changed."""
    for path, told in zip(paths, before, strict=True):
        try:
            now = identify(path)
        except OSError as error:
            return (
                f"{path} cannot be read any more ({error.strerror}), as when a card is pulled out; "
                "put it back and run it again."
            )
        if now != told:
            return f"{path} was changed while it was read; run it again when it is complete."
    return ""


def _entry_of(line: bytes) -> Entry | None:
    try:
        told = json.loads(line)
        return Entry(
            output=told["output"],
            result=Identity(**told["result"]),
            sources=tuple(Identity(**each) for each in told["sources"]),
            recipe=told["recipe"],
            companions={
                name: Identity(**each) for name, each in told.get("companions", {}).items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # damaged, or of another version: what it tells of is done anew


def _host() -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in socket.gethostname())
