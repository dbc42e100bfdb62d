"""Find the files of a batch: folders, files and patterns become found files, each once."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from mhnet_video.batch.work import LeftOut
from mhnet_video.errors import ConfigError

OWN_FOLDER = ".mhnet-video"
"""The folder in a folder of outputs where a batch keeps what it knows."""
_MAGIC = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file that may be a video."""

    path: Path
    relative: PurePosixPath
    """Its place below the source, which its output has in the folder of outputs."""
    root: Path
    """The source that it was found in; of a file that was named, its folder."""
    is_named: bool
    """Whether it was named itself."""


def check_sources(sources: Sequence[str], out_folder: Path) -> None:
    """Find out what can be found out before any work is done.

    Raises:
        ConfigError: A source is the folder of outputs, or lies in it.
    """
    out = Path(os.path.realpath(out_folder))
    for source in sources:
        path = Path(os.path.realpath(source))
        if path.is_relative_to(out):
            what = "is" if path == out else "lies in"
            raise ConfigError(
                f"{source} {what} the folder of outputs; name another folder for the outputs."
            )


def discover(sources: Sequence[str], out_folder: Path) -> Iterator[FoundFile | LeftOut]:
    """The files of all sources, in an order that depends on their names only.

    A file and a folder come once, however many names and links lead to them, and under the one
    that is no link. Hidden ones are passed over, and so is any folder of outputs.

    Args:
        sources: Files, folders, and patterns of either (`*`, `?`, `[...]`, `**`).
        out_folder: Where the outputs go; nothing in it is a source.
    """
    walk = _Walk(Path(os.path.realpath(out_folder)))
    for source in sources:
        if not os.path.lexists(source) and _MAGIC & set(source):
            yield from walk.pattern(source)
        elif os.path.isdir(source):
            yield from walk.folder(Path(source), Path(source))
        else:
            path = Path(source)
            yield from walk.file(path, path.parent, is_named=True)


class _Walk:
    """What has been seen, so that no link leads there again."""

    def __init__(self, out_folder: Path) -> None:
        self._out_folder = out_folder
        self._seen: dict[tuple[int, int], Path] = {}
        self._tried: set[tuple[int, int, tuple[str, ...]]] = set()
        """Folders by their numbers, and what was looked for in them."""

    def pattern(self, pattern: str) -> Iterator[FoundFile | LeftOut]:
        parts = Path(pattern).parts
        fixed = next(index for index, part in enumerate(parts) if _MAGIC & set(part))
        root = Path(*parts[:fixed])
        self._tried.clear()
        found = [*self._fitting(root, parts[fixed:], root)]
        if pattern.endswith(("/", os.sep)):
            found = [path for path in found if isinstance(path, LeftOut) or os.path.isdir(path)]
        if not found:
            reason = "is a pattern that no file fits; check it, and put quotes around it."
            yield LeftOut(path=Path(pattern), reason=reason, is_error=True)
        for path in found:
            if isinstance(path, LeftOut):
                yield path
            else:
                yield from self._anything(path, root)

    def _fitting(
        self, folder: Path, parts: tuple[str, ...], root: Path
    ) -> Iterator[Path | LeftOut]:
        """What fits the rest of a pattern in a folder, links in a circle once."""
        if not parts:
            yield folder
            return
        try:
            status = folder.stat()
            if not stat.S_ISDIR(status.st_mode):
                return
            key = status.st_dev, status.st_ino, parts
            if status.st_ino and key in self._tried:
                return
            self._tried.add(key)
            if folder != root and self._is_for_outputs(folder):
                return
            entries = _entries(folder)
        except OSError as error:
            if folder == root:
                yield _unlisted(folder, error)
            return  # of another one nobody knows whether anything in it fits
        part, *rest = parts
        if part == "**":
            yield from self._fitting(folder, tuple(rest), root)
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") and not part.startswith("."):
                continue
            if part == "**" and os.path.isdir(path):
                yield from self._fitting(path, parts, root)
            elif part != "**" and fnmatch(entry.name, part):
                yield from self._fitting(path, tuple(rest), root)

    def folder(self, folder: Path, root: Path) -> Iterator[FoundFile | LeftOut]:
        try:
            status = folder.stat()
            if self._met_as(status, folder) is not None:
                return
            if folder != root and self._is_for_outputs(folder):
                return
            entries = _entries(folder)
        except OSError as error:
            yield _unlisted(folder, error)
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            yield from self._anything(Path(entry.path), root)

    def _anything(self, path: Path, root: Path) -> Iterator[FoundFile | LeftOut]:
        # not `Path.is_dir`, which raises where the path may not be looked at
        yield from self.folder(path, root) if os.path.isdir(path) else self.file(path, root)

    def file(
        self, path: Path, root: Path, *, is_named: bool = False
    ) -> Iterator[FoundFile | LeftOut]:
        try:
            status = path.stat()
        except FileNotFoundError:
            reason = "does not exist; check the path."
            if path.is_symlink():
                reason = f"is a link to {os.readlink(path)}, which does not exist."
            yield LeftOut(path=path, reason=reason, is_error=True)
            return
        except OSError as error:
            reason = f"cannot be opened: {error.strerror}."
            yield LeftOut(path=path, reason=reason, is_error=True)
            return
        if not stat.S_ISREG(status.st_mode):
            reason = "is a pipe or a device, and no file."
            yield LeftOut(path=path, reason=reason, is_error=is_named)
        elif (first := self._met_as(status, path)) is not None:
            if first != path:
                yield LeftOut(path=path, reason=f"is the same file as {first}.", is_error=False)
        else:
            relative = PurePosixPath(path.relative_to(root).as_posix())
            yield FoundFile(path=path, relative=relative, root=root, is_named=is_named)

    def _met_as(self, status: os.stat_result, path: Path) -> Path | None:
        """The path under which a file or a folder was met before; None if it was not."""
        if not status.st_ino:  # a file system without such numbers
            return None
        identity = status.st_dev, status.st_ino
        first = self._seen.get(identity)
        self._seen.setdefault(identity, path)
        return first

    def _is_for_outputs(self, folder: Path) -> bool:
        return Path(os.path.realpath(folder)) == self._out_folder or (folder / OWN_FOLDER).is_dir()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder by its names: a link comes last, as it may be a second name of a file."""
    return sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))


def _unlisted(folder: Path, error: OSError) -> LeftOut:
    reason = f"cannot be listed: {error.strerror}."
    return LeftOut(path=folder, reason=reason, is_error=True)
