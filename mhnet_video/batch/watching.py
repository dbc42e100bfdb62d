"""Watching folders for new files."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mhnet_video.closing import Closing
from mhnet_video.errors import ConfigError, MHNetVideoError, first_line

_log = logging.getLogger(__name__)

SETTLED_SECONDS = 10.0
"""A file that has not changed for so long is taken as complete."""
_RESCAN_SECONDS = 60.0
"""Interval at which folders are listed anyway: network file systems do not report changes."""
_STEP_MS = 1000


class FolderWatch(Closing):
    """Tells when folders may hold new files.

    Args:
        folders: The folders to watch, and all below them.

    Raises:
        ConfigError: One is not a folder.
        MHNetVideoError: The extra `batch` is not installed.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        try:
            from watchfiles import watch
        except ImportError as error:
            raise MHNetVideoError(
                "--watch needs the extra `batch`: pip install 'mhnet-video[batch]'"
            ) from error
        for folder in folders:
            if not Path(folder).is_dir():
                raise ConfigError(f"{folder} is not a folder; --watch takes folders only")
        self._stop = threading.Event()
        self._due = time.monotonic()
        self._has_news = threading.Event()

        def listen() -> None:
            try:
                for _ in watch(
                    *folders,
                    stop_event=self._stop,
                    rust_timeout=_STEP_MS,
                    raise_interrupt=False,
                    watch_filter=None,
                ):
                    self._has_news.set()
            except FileNotFoundError:
                pass  # a folder is gone, which its next listing tells
            except (OSError, RuntimeError) as error:
                # as where there are more folders than the system watches
                _log.warning("new files are looked for once a minute only (%s)", first_line(error))

        self._thread = threading.Thread(target=listen, name="mhnet-video watch", daemon=True)
        self._thread.start()

    def is_due(self) -> bool:
        """Whether to list the folders now; it is asked again and again."""
        if self._has_news.is_set():
            self._has_news.clear()
            self.look_again()
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + _RESCAN_SECONDS
        return True

    def look_again(self) -> None:
        """Have the folders listed when what grows now may be complete."""
        self._due = min(self._due, time.monotonic() + SETTLED_SECONDS)

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join(2 * _STEP_MS / 1000)
