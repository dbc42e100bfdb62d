"""What a file holds and FFmpeg passes over: boxes (MP4), elements (Matroska), chunks (AVI).

Each format has an inventory of its own, with a table of what is standard: FFmpeg carries it, or it
says nothing about another file. Everything else is found by its name and size. Pictures and sound
are never read.
"""

import os
import struct
from contextlib import suppress

from mhnet_video.media.formats.avi_inventory import AviInventory
from mhnet_video.media.formats.inventory_base import Found, Inventory
from mhnet_video.media.formats.matroska_inventory import MatroskaInventory
from mhnet_video.media.formats.mp4_inventory import FIRST_BOXES, Mp4Inventory


def unseen_in(
    path: str | os.PathLike[str], *, stream: int, tags: set[str], used: int = 0
) -> list[Found]:
    """What FFmpeg passes over in an MP4, MOV, Matroska, WebM or AVI; nothing for other formats.

    Args:
        path: The file.
        stream: The number of its stream that is restored; what describes others goes with them.
        tags: The names of tags that FFmpeg shows, in lower case.
        used: Where the last packet ends that FFmpeg knows of, whatever sizes the file names.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            reader: Inventory = AviInventory(file, stream, tags, used)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            reader = MatroskaInventory(file, stream, tags, used)
        elif head[4:8] in FIRST_BOXES:
            reader = Mp4Inventory(file, stream, tags, used)
        else:
            return []
        # of a damaged file, what was found before the damage is returned
        with suppress(ValueError, ArithmeticError, IndexError, struct.error):
            reader.read()
        return reader.all()
