"""The folder of this program in the user's folder for caches."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path | None:
    """Where files may be kept that can be made again; None if the user has no home."""
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "mhnet-video"
