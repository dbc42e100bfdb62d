"""The folder in which uploads and results lie while the page is served."""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mhnet_video.closing import Closing
from mhnet_video.errors import WriteError
from mhnet_video.media.output_file import why_unwritable

_PREFIX = ".mhnet-video-app-"
"""Prefix of the folder's name."""
_LOCK = "lock"
"""A file in the folder, which is locked as long as the folder is in use."""


class Workspace(Closing):
    """A folder of its own, which is removed at the end, as are those that killed runs have left.

    Args:
        parent: Folder to create it in, which is created too; None for the system's temporary
            folder.

    Raises:
        WriteError: It cannot be created.
    """

    def __init__(self, parent: Path | None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_left(parent)
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).resolve()
        except FileExistsError as error:
            said = f"{parent} cannot be written: it is a file and no folder; name another folder."
            raise WriteError(said) from error
        except OSError as error:
            raise WriteError(f"{parent} cannot be written: {why_unwritable(error)}.") from error
        self._lock = FileLock(self.path / _LOCK)
        self._lock.acquire()

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_left(parent: Path) -> None:
    """Remove the folders of runs that were killed."""
    for path in parent.glob(f"{_PREFIX}*"):
        # in a folder that all users write to, others may have laid one that leads elsewhere
        if not _is_own_folder(path):
            continue
        with suppress(Timeout, OSError), FileLock(path / _LOCK, blocking=False):
            shutil.rmtree(path, ignore_errors=True)


def _is_own_folder(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    is_ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return stat.S_ISDIR(status.st_mode) and is_ours
