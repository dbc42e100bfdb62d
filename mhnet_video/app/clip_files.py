"""Names of uploads: what is shown of one, and what files are called after it."""

import os
import re
import unicodedata
from pathlib import Path

_MAX_SHOWN = 120
"""Characters of a name that are shown."""
_MAX_STEM_BYTES = 180
"""Of a result's name before its ending; with that it fits every file system."""


def shown_name(name: str) -> str:
    """A name as it is shown: without folders, and in one line."""
    last = re.split(r"[/\\]", name)[-1]
    # what cannot be seen may turn the text around it
    text = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in last)
    text = " ".join(text.split())
    if len(text) > _MAX_SHOWN:
        stem, suffix = os.path.splitext(text)
        suffix = suffix[:12]
        text = stem[: _MAX_SHOWN - len(suffix) - 1] + "…" + suffix
    return text or "clip"


def upload_name(name: str) -> str:
    """What an upload is called on disk: of its name only the ending is used, if it is harmless."""
    match = re.search(r"\.[A-Za-z0-9]{1,8}$", name)
    return "clip" + (match[0].lower() if match else "")


def result_name(name: str, suffix: str) -> str:
    """What the result of an upload is called.

    Args:
        name: As it is shown.
        suffix: The ending of the result.
    """
    stem = re.sub(r'[<>:"/\\|?*]', "_", os.path.splitext(name)[0]).strip(" .") or "clip"
    stem = stem.encode("utf-8", "replace")[:_MAX_STEM_BYTES].decode("utf-8", "ignore")
    return f"{stem}-restored{suffix}"


def move_beside_others(path: Path, folder: Path, name: str) -> Path:
    """Move a file into a folder of its file system, where it replaces nothing.

    Args:
        path: The file.
        folder: Where to.
        name: What to call it; a number is added where that is taken.

    Returns:
        Where it is.

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
        os.replace(path, target)
        return target
