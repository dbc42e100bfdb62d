"""An output of which one process at a time has the making, and where it grows until it is whole."""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.work import Work
from mhnet_video.closing import Closing
from mhnet_video.system import replace_file

_PARTS = "work"


def staged_path(out_folder: Path, work: Work) -> Path:
    """Where an output grows, on the file system of its place, until it gets its name."""
    name = hashlib.sha256(work.key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return out_folder / OWN_FOLDER / _PARTS / name / work.output.name


class Claim(Closing):
    """The right to make an output, until it is closed or the process ends, however it ends.

    Args:
        out_folder: The folder of outputs.
        work: What is to be done.

    Raises:
        BlockingIOError: Another process has it.
        OSError: The folder cannot be written.
    """

    def __init__(self, out_folder: Path, work: Work) -> None:
        self.staged = staged_path(out_folder, work)
        """Where the output grows."""
        self._folder = self.staged.parent
        self._output = work.output
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self._folder.with_suffix(".lock"))
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise BlockingIOError(f"{work.output} is being made by another process") from error
        try:
            self._folder.mkdir(exist_ok=True)
            self._remove_files()
        except OSError:
            self._lock.release()
            raise

    def commit(self) -> None:
        """Give the output its own name, and then the files that are named after it.

        Raises:
            OSError: Its folder is gone or cannot be written.
        """
        replace_file(self.staged, self._output)
        for path in self._folder.iterdir():
            if path.is_file():
                replace_file(path, self._output.with_name(path.name))
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what has not become an output, and let others have it."""
        with suppress(OSError):
            self._remove_files()
            self._folder.rmdir()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def _remove_files(self) -> None:
        """Remove what a killed run has left; segments are in folders, and of use to the next."""
        for path in self._folder.iterdir():
            if not path.is_dir():
                path.unlink()
