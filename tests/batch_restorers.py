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
from waiting import wait_until

import mhnet_video.pipelines.segmented_work as segmented_work
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame, Pair

SHORT_SECONDS = 0.39
"""Length of segments where clips are as short as those of tests."""


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


class OnBothNodes(Inverter):
    """Waits with large pictures until two nodes have loaded, and notes who restores them."""

    def __init__(self, notes: Path) -> None:
        super().__init__(seconds=0.005)
        self._notes = notes
        import ray

        self._node = ray.get_runtime_context().get_node_id()
        (notes / f"{self._node}.loaded").touch()

    def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
        for item in super().pairs(items, **how):
            if isinstance(item, Pair) and item.source.width > 64:
                wait_until(lambda: len(list(self._notes.glob("*.loaded"))) == 2)
                (self._notes / f"{self._node}.large").touch()
            yield item


def on_both_nodes(notes: Path, config: RestoreConfig) -> StandIn:
    segmented_work.SEGMENT_SECONDS = SHORT_SECONDS
    return OnBothNodes(notes)


class Troubled(Inverter):
    """Dies of pictures of 48 pixels a row, and writes to the source of those of 80."""

    def __init__(self, source: Path) -> None:
        super().__init__()
        self._source = source

    def pairs(self, items: Iterable[Any], **how: Any) -> Iterator[Any]:
        for item in super().pairs(items, **how):
            if isinstance(item, Pair) and item.source.width == 48:
                os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(item, Pair) and item.source.width == 80:
                with open(self._source, "ab") as file:
                    file.write(b"more")
            yield item


def troubled(source: Path, config: RestoreConfig) -> StandIn:
    segmented_work.SEGMENT_SECONDS = SHORT_SECONDS
    return Troubled(source)


def appending(path: Path, config: RestoreConfig) -> StandIn:
    """Writes to a source while it is read."""

    def act() -> None:
        with open(path, "ab") as file:
            file.write(b"more")

    return Meddler(act)


def removing(path: Path, config: RestoreConfig) -> StandIn:
    return Meddler(lambda: path.unlink(missing_ok=True))


def failing_without(path: Path, config: RestoreConfig) -> StandIn:
    def act() -> None:
        if path.exists():
            path.unlink()
            path.stat()

    return Meddler(act)


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
