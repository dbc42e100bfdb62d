"""The clips of the page: how far each is, what they may take up, and which comes next."""

import math
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from mhnet_video.app.clip_files import result_name, shown_name, upload_name
from mhnet_video.app.pictures import coded_box, frame_at
from mhnet_video.batch.footage import look_at
from mhnet_video.config import Box, RestoreConfig, check_boxes
from mhnet_video.errors import ConfigError, MHNetVideoError, ReadError, WriteError

SILENCE_SECONDS = 60.0
"""After which an upload of which nothing comes is given up."""
_MAX_BOXES = 50
"""Boxes that may be kept in one clip."""


class ClipState(StrEnum):
    """How far a clip is."""

    UPLOADING = "uploading"
    CHECKING = "checking"
    """All of it is there, and is being opened."""
    READY = "ready"
    """It may be restored."""
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It is no video, or could not be restored."""


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What clips may take up."""

    max_clips: int = 100
    """Clips on the page at a time."""
    max_bytes: int = 32 << 30
    """Size of one."""
    min_free_bytes: int = 1 << 30
    """What stays free of the disk."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The picture of a clip."""

    seconds: float
    """Duration; 0 where the file does not tell."""
    size: tuple[int, int]
    """Width and height as it is shown, in pixels."""
    rotation: int
    """Degrees clockwise by which it is turned to show it."""


@dataclass(kw_only=True, eq=False)
class UploadedClip:
    """A clip. Only `Clips` changes it, under its lock."""

    id: str
    name: str
    """As it is shown; no file has it."""
    size_bytes: int
    """As it was announced."""
    folder: Path
    """Where its files are."""
    state: ClipState = ClipState.UPLOADING
    received_bytes: int = 0
    heard: float = field(default_factory=time.monotonic)
    """When something of the upload came last, of the monotonic clock."""
    shape: Shape | None = None
    """None until it was opened."""
    config: RestoreConfig | None = None
    """How it was or will be restored; None before anybody has chosen."""
    keep: tuple[Box, ...] = ()
    """The boxes as they were drawn."""
    position_seconds: float = 0.0
    """Footage that is restored."""
    begin: float = 0.0
    """When the first of it was restored, of the monotonic clock."""
    reason: str = ""
    """Why it failed, or was not restored, in a sentence."""
    lost: tuple[str, ...] = ()
    """What the result lacks, a line each."""
    result: Path | None = None
    """The restored clip; None where there is none."""
    runs: int = 0
    """How many times it was restored."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Ends its upload or its restoration."""
    is_removed: bool = False
    """Whether it goes away as soon as nobody works on it."""

    @property
    def source(self) -> Path:
        """The upload on disk."""
        return self.folder / upload_name(self.name)

    @property
    def result_name(self) -> str:
        """What the result is called by those who download it."""
        return result_name(self.name, self.result.suffix if self.result is not None else "")

    def to_dict(self) -> dict[str, Any]:
        """What the page shows."""
        shape, config = self.shape, self.config
        return {
            "id": self.id,
            "name": self.name,
            "state": str(self.state),
            "bytes": self.size_bytes,
            "received": self.received_bytes,
            "seconds": shape.seconds if shape is not None else 0.0,
            "size": shape.size if shape is not None else None,
            "position": self.position_seconds,
            "elapsed": time.monotonic() - self.begin if self.position_seconds else 0.0,
            "is_ending": self.state is ClipState.RUNNING and self.stop.is_set(),
            "reason": self.reason,
            "lost": self.lost,
            "task": config.task if config is not None else None,
            "strength": config.strength if config is not None else None,
            "runs": self.runs,
            "result": self.result_name if self.result is not None else None,
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a clip that was restored."""

    result: Path | None = None
    """None where there is none."""
    reason: str = ""
    """Why there is none, in a sentence."""
    lost: tuple[str, ...] = ()
    """What the result lacks, a line each."""
    is_cancelled: bool = False


class Clips:
    """All clips of the page; for several threads.

    Args:
        folder: Where their files go, which exists.
        config: How clips are restored but for what is chosen on the page.
        quota: What they may take up.
    """

    def __init__(self, folder: Path, config: RestoreConfig, quota: Quota | None = None) -> None:
        self.quota = quota or Quota()
        self._folder = folder
        self._config = config
        self._clips: dict[str, UploadedClip] = {}
        self._waiting: deque[UploadedClip] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def to_dict(self) -> list[dict[str, Any]]:
        """What the page shows of all, in the order of their uploads."""
        with self._changed:
            self._drop_silent()
            return [clip.to_dict() for clip in self._clips.values() if not clip.is_removed]

    def get(self, clip_id: str) -> UploadedClip | None:
        """A clip by its ID; None if there is no such."""
        with self._changed:
            clip = self._clips.get(clip_id)
            return None if clip is None or clip.is_removed else clip

    def announce(self, name: str, size_bytes: int) -> UploadedClip:
        """A new clip, whose upload follows.

        Args:
            name: What its visitor calls it.
            size_bytes: Its size.

        Raises:
            ReadError: It is empty.
            WriteError: It is too large, or there is no room for it.
        """
        shown = shown_name(name)
        with self._changed:
            self._drop_silent()
            self._check_quota(shown, size_bytes)
            clip_id = secrets.token_urlsafe(12)
            folder = self._folder / clip_id
            clip = UploadedClip(id=clip_id, name=shown, size_bytes=size_bytes, folder=folder)
            folder.mkdir()
            self._clips[clip_id] = clip
            return clip

    def _check_quota(self, name: str, size_bytes: int) -> None:
        if size_bytes <= 0:
            raise ReadError(f"{name} is empty; copy it again from where it was recorded.")
        if size_bytes > self.quota.max_bytes:
            most = self.quota.max_bytes >> 30
            raise WriteError(f"{name} is too large: {most} GiB may be uploaded; cut it first.")
        if len(self._clips) >= self.quota.max_clips:
            count = self.quota.max_clips
            raise WriteError(f"{name} is one too many: remove one of the {count} clips first.")
        coming = sum(
            clip.size_bytes - clip.received_bytes
            for clip in self._clips.values()
            if clip.state is ClipState.UPLOADING
        )
        free = shutil.disk_usage(self._folder).free - coming
        if size_bytes + self.quota.min_free_bytes > free:
            raise WriteError(
                f"{name} is too large for the disk, which has {max(0, free) / 1e9:.1f} GB left; "
                "remove clips, or free some space."
            )

    def received(self, clip: UploadedClip, count: int) -> None:
        """So many more bytes of an upload are on the disk."""
        with self._changed:
            clip.received_bytes += count
            clip.heard = time.monotonic()

    def check(self, clip: UploadedClip) -> None:
        """Open a clip whose upload is complete; it is ready then, or has failed."""
        with self._changed:
            clip.state = ClipState.CHECKING
        try:
            footage = look_at(clip.source)
            frame = frame_at(clip.source, 0.0)
        except MHNetVideoError as error:
            self.fail(clip, str(error).replace(str(clip.source), clip.name))
            return
        shape = Shape(seconds=footage.seconds, size=frame.upright_size, rotation=frame.rotation)
        with self._changed:
            clip.shape = shape
            clip.state = ClipState.READY
            self._let_go(clip)

    def fail(self, clip: UploadedClip, reason: str) -> None:
        """An upload that is of no use: of its files nothing stays."""
        shutil.rmtree(clip.folder, ignore_errors=True)
        with self._changed:
            clip.state = ClipState.FAILED
            clip.reason = reason
            self._let_go(clip)

    def choose(self, clip: UploadedClip, task: Any, strength: Any, keep: Any) -> None:
        """Have a clip restored, behind those that wait.

        Args:
            clip: The clip.
            task: What is to be taken out.
            strength: Share of the restoration that is applied.
            keep: Boxes `[x, y, width, height]` of the picture as it is shown, to be left alone.

        Raises:
            ConfigError: A setting is out of range, or the clip cannot be restored now.
        """
        if not isinstance(task, str):
            raise ConfigError("a task is a name.")
        if not isinstance(strength, int | float) or not math.isfinite(strength):
            raise ConfigError("strength is a number.")
        if not isinstance(keep, list) or len(keep) > _MAX_BOXES:
            raise ConfigError(f"up to {_MAX_BOXES} boxes can be kept.")
        if not all(isinstance(box, list) for box in keep):
            raise ConfigError("a box is four numbers.")
        boxes = check_boxes(keep)
        with self._changed:
            busy = (ClipState.WAITING, ClipState.RUNNING)
            if clip.shape is None or clip.state in busy or clip.is_removed:
                raise ConfigError(f"{clip.name} cannot be restored now.")
            width, height = clip.shape.size
            if any(x + w > width or y + h > height for x, y, w, h in boxes):
                raise ConfigError(f"a box to keep lies outside the picture of {width}x{height}.")
            coded = tuple(coded_box(box, (width, height), clip.shape.rotation) for box in boxes)
            clip.config = replace(self._config, task=task, strength=strength, keep=coded)
            clip.keep = boxes
            clip.state, clip.reason, clip.lost = ClipState.WAITING, "", ()
            clip.position_seconds = 0.0
            clip.stop.clear()
            self._waiting.append(clip)
            self._changed.notify_all()

    def cancel(self, clip: UploadedClip) -> None:
        """Do not restore a clip that waits or is being restored; end an upload."""
        with self._changed:
            if clip.state is ClipState.UPLOADING:
                self._remove(clip)
            elif clip.state is ClipState.WAITING:
                self._waiting.remove(clip)
                clip.state = _rest_state(clip)
            elif clip.state is ClipState.RUNNING:
                clip.stop.set()

    def remove(self, clip: UploadedClip) -> None:
        """Remove a clip with its files, now or as soon as nobody works on it."""
        with self._changed:
            self._remove(clip)

    def _remove(self, clip: UploadedClip) -> None:
        clip.is_removed = True
        clip.stop.set()
        if clip.state is ClipState.WAITING:
            self._waiting.remove(clip)
        if clip.state not in (ClipState.UPLOADING, ClipState.CHECKING, ClipState.RUNNING):
            self._let_go(clip)

    def _let_go(self, clip: UploadedClip) -> None:
        """Nobody works on a clip any more: if it was to be removed, it is now."""
        if clip.is_removed:
            self._clips.pop(clip.id, None)
            shutil.rmtree(clip.folder, ignore_errors=True)

    def drop(self, clip: UploadedClip) -> None:
        """An upload has ended before its end: nothing stays of it."""
        with self._changed:
            clip.is_removed = True
            self._let_go(clip)

    def _drop_silent(self) -> None:
        """Remove what was announced and never came."""
        for clip in list(self._clips.values()):
            is_silent = time.monotonic() - clip.heard > SILENCE_SECONDS
            if clip.state is ClipState.UPLOADING and is_silent:
                clip.is_removed = True
                clip.stop.set()
                self._let_go(clip)

    def take(self) -> UploadedClip | None:
        """Wait for a clip to restore, which is running then; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            clip = self._waiting.popleft()
            clip.state = ClipState.RUNNING
            return clip

    def progressed(self, clip: UploadedClip, seconds: float) -> None:
        """So many seconds of a clip's footage are restored."""
        with self._changed:
            if not clip.position_seconds:
                clip.begin = time.monotonic()
            clip.position_seconds = seconds

    def finish(self, clip: UploadedClip, outcome: Outcome) -> None:
        """A clip has been restored, or has not."""
        with self._changed:
            if outcome.result is not None:
                clip.state, clip.result, clip.lost = ClipState.DONE, outcome.result, outcome.lost
                clip.runs += 1
            elif outcome.is_cancelled:
                clip.state = _rest_state(clip)
            else:
                clip.state, clip.reason = ClipState.FAILED, outcome.reason
            self._let_go(clip)

    def close(self) -> None:
        """End what is being restored, and begin nothing more."""
        with self._changed:
            self._is_closed = True
            for clip in self._clips.values():
                clip.stop.set()
            self._changed.notify_all()


def _rest_state(clip: UploadedClip) -> ClipState:
    """The state of a clip that is not to be restored after all."""
    return ClipState.DONE if clip.result is not None else ClipState.READY


Restore = Callable[[UploadedClip, Callable[[float], None]], Outcome]
"""Restores a clip: tells seconds of footage that are done, and ends when `clip.stop` is set."""
