"""The name of an upload as it is shown, and the names of its files."""

import os
import re
import unicodedata
from pathlib import Path

from mhnet_video.system import replace_file

_MAX_SHOWN = 120
"""Characters of a name that are shown."""
_MAX_STEM_BYTES = 180
"""Length of a result's name without its extension, so that every file system takes it."""


def shown_name(name: str) -> str:
    """The name of an upload as it is shown: without folders, and in one line."""
    last = re.split(r"[/\\]", name)[-1]
    # control and format characters may reverse the text around them
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in last)
    text = " ".join(text.split())
    if len(text) > _MAX_SHOWN:
        stem, suffix = os.path.splitext(text)
        suffix = suffix[:12]
        text = stem[: _MAX_SHOWN - len(suffix) - 1] + "…" + suffix
    return text or "clip"


def upload_name(name: str) -> str:
    """Name of an upload on disk. Only its extension is taken over, if that is harmless."""
    match = re.search(r"\.[A-Za-z0-9]{1,8}$", name)
    return "clip" + (match[0].lower() if match else "")


def result_name(name: str, suffix: str) -> str:
    """File name of the result of an upload.

    Args:
        name: The upload's name, as it is shown.
        suffix: The result's extension, with the dot.
    """
    stem = re.sub(r'[<>:"/\\|?*]', "_", os.path.splitext(name)[0]).strip(" .") or "clip"
    stem = stem.encode("utf-8", "replace")[:_MAX_STEM_BYTES].decode("utf-8", "ignore")
    return f"{stem}-restored{suffix}"


def move_beside_others(path: Path, folder: Path, name: str) -> Path:
    """Move a file into a folder of the same file system, without replacing another.

    Args:
        path: The file.
        folder: The folder to move it into.
        name: Its new name; a number is added where that is taken.

    Returns:
        Its new path.

    Raises:
        OSError: The folder cannot be written.
    """
    stem, suffix = os.path.splitext(name)
    number = 1
    while True:
        target = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        try:
            with open(target, "xb"):
                pass
        except FileExistsError:
            number += 1
            continue
        replace_file(path, target)
        return target
