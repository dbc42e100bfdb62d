"""Restorers for the workers of a batch, importable in processes of their own."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from batch_jobs import note
from standin import StandIn, inverted

from mhnet_video.config import RestoreConfig
from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame


class Inverter(StandIn):
    """Turns the luma upside down, which a test sees in the output."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(inverted, seconds=seconds)


class Meddler(Inverter):
    """Does something at the third frame of each clip."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
        count = 0
        for item in super().pairs(items, **how):
            count += not isinstance(item, Frame)
            if count == 3:
                self._act()
            yield item


def counted(notes: Path, config: RestoreConfig) -> StandIn:
    note(notes)
    return Inverter()


def slow(notes: Path, config: RestoreConfig) -> StandIn:
    note(notes)
    return Inverter(seconds=0.02)


def held(notes: Path, out: Path, pattern: str, most: int, config: RestoreConfig) -> StandIn:
    """Waits for ever in a clip that is begun when there are more files than so many."""
    note(notes)

    def act() -> None:
        if len(list(out.glob(pattern))) > most:
            threading.Event().wait()

    return Meddler(act)


def appending(path: Path, config: RestoreConfig) -> StandIn:
    """Writes to a source while it is read."""

    def act() -> None:
        with open(path, "ab") as file:
            file.write(b"more")

    return Meddler(act)


def removing(path: Path, config: RestoreConfig) -> StandIn:
    return Meddler(lambda: path.unlink(missing_ok=True))


def on_a_full_disk(config: RestoreConfig) -> StandIn:
    def act() -> None:
        raise WriteError("out.mp4 cannot be written: the disk is full.") from OSError(
            errno.ENOSPC, "No space left on device"
        )

    return Meddler(act)


def killed_by(name: str, config: RestoreConfig) -> StandIn:
    """Dies once: of a file of a name, which it removes before."""

    def act() -> None:
        if os.path.exists(name):
            os.unlink(name)
            os.kill(os.getpid(), signal.SIGKILL)

    return Meddler(act)
