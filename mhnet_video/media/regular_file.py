"""Opening a source's file beside FFmpeg, for what FFmpeg does not tell of it."""

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import BinaryIO


def opened(path: str | os.PathLike[str]) -> AbstractContextManager[BinaryIO | None]:
    """A file, open to be read.

    Args:
        path: Of a file, or what is none: a pipe is not opened, as it can be read once only.

    Returns:
        The file; None where it is none, or has gone away since.
    """
    if os.path.isfile(path):
        with suppress(OSError):
            return open(path, "rb")
    return nullcontext()
