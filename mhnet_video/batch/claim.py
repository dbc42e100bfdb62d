"""The lock by which one process makes an output, and the folder in which the output grows."""

import hashlib
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mhnet_video.batch.discovery import OWN_FOLDER
from mhnet_video.batch.work import Work
from mhnet_video.closing import Closing
from mhnet_video.system import release, replace_file

_PARTS = "work"


def staged_path(out_folder: Path, work: Work) -> Path:
    """Path of an output that is being made, on the file system of its folder."""
    name = hashlib.sha256(work.key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return out_folder / OWN_FOLDER / _PARTS / name / work.output.name


class Claim(Closing):
    """The exclusive right to make an output, until it is closed or the process ends.

    Args:
        out_folder: The folder of outputs.
        work: The work whose output is made.

    Raises:
        BlockingIOError: Another process has it.
        OSError: The folder cannot be written.
    """

    def __init__(self, out_folder: Path, work: Work) -> None:
        self.staged = staged_path(out_folder, work)
        """Path of the output while it is being made."""
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

    def companions(self) -> list[Path]:
        """The files that were made beside the output, where they grew."""
        files = filter(Path.is_file, self._folder.iterdir())
        return [path for path in files if path != self.staged]

    def commit(self, outdated: Iterable[Path] = ()) -> None:
        """Give the output its own name, and then the files that are named after it.

        Args:
            outdated: Files beside the output before, which go with it where they are not replaced.

        Raises:
            OSError: Its folder cannot be written.
        """
        companions = self.companions()
        new = {path.name for path in companions}
        for path in outdated:
            if path.name not in new:
                path.unlink(missing_ok=True)
        # it was empty, perhaps for hours, and programs that tidy up remove such folders
        self._output.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.staged, *companions):
            replace_file(path, self._output.with_name(path.name))
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what has not become an output, and release the lock."""
        with suppress(OSError):
            self._remove_files()
            self._folder.rmdir()
        release(self._lock)

    def _remove_files(self) -> None:
        """Remove files of a killed run. Its segments are in folders, and stay for the next run."""
        for path in self._folder.iterdir():
            if not path.is_dir():
                path.unlink()
