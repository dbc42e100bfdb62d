"""Where the bytes of an output go: a partial file beside the destination, or standard output.

A file appears under its own name only when it is complete. Until then it grows under a name of
its own with the same extension, so that players open what a killed run has left.
"""

import contextlib
import errno
import os
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from av.error import FFmpegError

from mhnet_video.errors import WriteError
from mhnet_video.locator import is_address, shown
from mhnet_video.system import open_special, replace_file

if TYPE_CHECKING:
    from filelock import FileLock

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or name another disk",
    errno.EDQUOT: "the disk quota is used up; free some space or name another disk",
    errno.EFBIG: "the file is larger than this file system allows; name another disk",
    errno.EACCES: "the folder may not be written to; name another one",
    errno.EPERM: "the folder may not be written to; name another one",
    errno.EROFS: "the file system is read-only; name another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOTDIR: "a part of its path is a file and no folder; name another folder",
    errno.ENXIO: "no program reads from it; start the reader first",
    errno.EPIPE: "the program that reads it has ended",
    errno.EIO: "the disk reports an error; name another one",
}
"""Why a file cannot be written and what to do, by the system's error number."""
_MAX_NAME_BYTES = 255
"""What the usual file systems allow."""


def why_unwritable(error: OSError) -> str:
    """What is wrong with the disk and what to do, as the end of a sentence."""
    return _REASONS.get(error.errno or 0, (error.strerror or str(error)).lower())


class _Closes(Protocol):
    def close(self) -> object: ...


class OutputFile:
    """A file for FFmpeg to write: it keeps the first error, and swallows writes after it.

    After a full disk the bytes on it must stay as they are: they play. FFmpeg would go on to
    overwrite the file's beginning when it is closed.

    Args:
        destination: File to create, or `-` for standard output.
        overwrite: Whether an existing file may be replaced.

    Raises:
        WriteError: The file cannot be created, or exists.
    """

    def __init__(self, destination: str | PathLike[str], *, overwrite: bool = False) -> None:
        self.name = shown(destination)
        self.error: OSError | None = None
        self.partial: Path | None = None
        """The growing file; None where there is none of its own (standard output, a pipe)."""
        self._overwrite = overwrite
        self._is_frozen = False
        self._path = Path(destination)
        self._file: IO[bytes]
        if self.name == "-":
            self.name = "standard output"
            self._file = os.fdopen(os.dup(1), "wb", buffering=0)
            self.is_seekable = False
            return
        check_destination(destination, overwrite=overwrite)
        try:
            if self._path.exists() and not self._path.is_file():
                self._file = open_special(self._path)
                self.is_seekable = False
            else:
                self._file = self._create_partial()
                self.is_seekable = True
        except OSError as error:
            raise WriteError(f"{self.name} cannot be written: {why_unwritable(error)}.") from error

    def _create_partial(self) -> IO[bytes]:
        """A new file beside the destination; one that exists is never touched."""
        # a link is followed, so that what it points to is replaced and not the link
        self._path = Path(os.path.realpath(self._path))
        number = 1
        while True:
            mark = ".partial" if number == 1 else f".partial-{number}"
            ending = mark + self._path.suffix
            stem = os.fsencode(self._path.stem)[: _MAX_NAME_BYTES - len(os.fsencode(ending))]
            partial = self._path.with_name(os.fsdecode(stem) + ending)
            try:
                file = open(partial, "xb", buffering=0)  # noqa: SIM115
            except FileExistsError:
                number += 1
                continue
            self.partial = partial
            return file

    def write(self, data: bytes) -> int:
        """Write all of the bytes, or keep the error and raise it."""
        if not self._is_frozen:
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = self.error or error
                self._is_frozen = True
                raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, as a file does."""
        return offset if self._is_frozen else self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position, as a file tells it."""
        return 0 if self._is_frozen else self._file.tell()

    def fileno(self) -> int:
        """The descriptor of the file."""
        return self._file.fileno()

    def seekable(self) -> bool:
        """Whether FFmpeg may go back and fill in sizes."""
        return self.is_seekable

    def freeze(self, container: _Closes | None = None) -> None:
        """Let nothing more reach the file.

        Args:
            container: What has written into it; it is closed.
        """
        self._is_frozen = True
        if container is not None:
            with contextlib.suppress(FFmpegError, OSError, ValueError):
                container.close()

    @property
    def closed(self) -> bool:
        """Whether PyAV is to leave out the end of the file, as one that was closed has none."""
        return self._is_frozen

    def close(self) -> None:
        """Close the file under the name it has."""
        with contextlib.suppress(OSError):
            self._file.close()

    def commit(self) -> None:
        """Close the file and give it its own name.

        Raises:
            WriteError: The name has been taken meanwhile, or the disk refuses.
        """
        if self.partial is None:
            self.close()
            return
        try:
            # on the disk before it has the name: a power cut must not leave an empty file
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            self.error = self.error or error
            raise WriteError(f"{self.name} cannot be written: {why_unwritable(error)}.") from error
        # a complete file is not removed, whoever discards it
        partial, self.partial = self.partial, None
        said = f"the result is complete in {partial}."
        if not self._overwrite and self._path.exists():
            raise WriteError(f"{self.name} was created by another program in the meantime; {said}")
        try:
            replace_file(partial, self._path)
        except OSError as error:
            reason = f"{why_unwritable(error)}; {said}"
            if not partial.exists():
                reason = f"{partial} was removed before it was complete; run it again."
            raise WriteError(f"{self.name} cannot be written: {reason}") from error

    def discard(self) -> None:
        """Close the file and remove it, unless it is complete."""
        self.close()
        if self.partial is not None:
            with contextlib.suppress(OSError):
                self.partial.unlink()
            self.partial = None


def locked(path: Path, *, taken: str) -> "FileLock":
    """The right to write a file, which no other run has until it is released.

    Args:
        path: The file; the lock's own is beside it, and `system.release` removes that.
        taken: What is said of it where another run has it, as the end of a sentence.

    Raises:
        WriteError: Another run has it, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # not at the start of every run

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise WriteError(f"{shown(path)} {taken}.") from error
    except OSError as error:
        raise WriteError(f"{shown(path)} cannot be written: {why_unwritable(error)}.") from error
    return lock


def check_destination(
    destination: str | PathLike[str],
    *,
    source: str | PathLike[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Find out what can be found out before any work is done.

    Raises:
        WriteError: The destination is a folder, in none or in one that may not be written to,
            exists, or is the source.
    """
    path, name = os.fspath(destination), shown(destination)
    if path == "-":
        return
    # os.path, as it takes what cannot even be a name for what does not exist; not `abspath`, as
    # `..` behind a link leads elsewhere
    folder = os.path.dirname(os.path.join(os.getcwd(), path))
    if is_address(path) and not os.path.isdir(folder):
        raise WriteError(
            f"{name} is an address, and files are written only; "
            "`mhnet-video live --output URL` sends pictures on."
        )
    if os.path.isdir(path) or not os.path.basename(path):
        raise WriteError(f"{name} is a folder; name the file to create in it.")
    if not os.path.isdir(folder):
        said = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise WriteError(
            f"{name} cannot be written: the folder {shown(folder)} {said}; create it first."
        )
    if source is not None and os.path.exists(path) and os.path.exists(source):
        with contextlib.suppress(OSError):
            if os.path.samefile(path, source):
                raise WriteError(f"{name} is the input itself; name another output.")
    if os.path.isfile(path) and not overwrite:
        raise WriteError(f"{name} exists already; name another one, or add --overwrite.")
    # a pipe is written itself; a file is created where a link leads to
    is_created = os.path.isfile(path) or not os.path.exists(path)
    if is_created and not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK | os.X_OK):
        raise WriteError(f"{name} cannot be written: {_REASONS[errno.EACCES]}.")
