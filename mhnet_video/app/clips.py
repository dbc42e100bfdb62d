"""The clips on the page: their states, the quota, and the queue of those that wait."""

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
from mhnet_video.config import Box, RestoreConfig, check_boxes, check_strength
from mhnet_video.errors import ConfigError, MHNetVideoError, ReadError, WriteError, unforeseen

SILENCE_SECONDS = 60.0
"""An upload of which no data arrives for so long is given up."""
_MAX_BOXES = 50
"""Boxes that may be kept in one clip."""


class ClipState(StrEnum):
    """The state of a clip."""

    UPLOADING = "uploading"
    CHECKING = "checking"
    """The upload is complete, and is being opened."""
    READY = "ready"
    """It may be restored."""
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It is no video, or could not be restored."""


@dataclass(frozen=True, kw_only=True)
class Quota:
    """Limits of what may be uploaded."""

    max_clips: int = 100
    """Clips on the page at a time."""
    max_bytes: int = 32 << 30
    """Size of a clip."""
    min_free_bytes: int = 1 << 30
    """Space on the disk that stays free."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Duration and picture size of a clip."""

    seconds: float
    """Duration; 0 where the file does not tell."""
    size: tuple[int, int]
    """Width and height as it is shown, in pixels."""
    rotation: int
    """Degrees clockwise by which it is turned to show it."""


@dataclass(kw_only=True, eq=False)
class UploadedClip:
    """A clip on the page. Only `Clips` changes it, under its lock."""

    id: str
    name: str
    """The name that is shown; no file on disk has it."""
    size_bytes: int
    """Size that was announced."""
    folder: Path
    """Folder of its files."""
    state: ClipState = ClipState.UPLOADING
    received_bytes: int = 0
    last_received: float = field(default_factory=time.monotonic)
    """When data of the upload last arrived, in seconds of the monotonic clock."""
    shape: Shape | None = None
    """None until the upload has been opened."""
    config: RestoreConfig | None = None
    """Settings that it was or will be restored with; None before the first time."""
    keep: tuple[Box, ...] = ()
    """Boxes that stay unchanged, in pixels of the picture as it is shown."""
    position_seconds: float = 0.0
    """Seconds of footage that are restored."""
    begin: float = 0.0
    """When restoring began, in seconds of the monotonic clock."""
    reason: str = ""
    """Why it failed, in a sentence."""
    result: Path | None = None
    """The restored clip; None where there is none."""
    result_config: RestoreConfig | None = None
    """Settings of the result, which stays while the clip is restored again."""
    result_lost: tuple[str, ...] = ()
    """What the result lacks, a line each."""
    runs: int = 0
    """Number of times that it was restored."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Ends the upload or the restoration when set."""
    is_removed: bool = False
    """Whether its files are removed as soon as they are no longer in use."""

    @property
    def source(self) -> Path:
        """The upload on disk."""
        return self.folder / upload_name(self.name)

    @property
    def result_name(self) -> str:
        """File name of the result: where it is kept, or in a download."""
        if self.result is not None and not self.result.is_relative_to(self.folder):
            return self.result.name
        return result_name(self.name, self.result.suffix if self.result is not None else "")

    def to_dict(self) -> dict[str, Any]:
        """The fields that the page shows."""
        shape = self.shape
        is_again = self.state in (ClipState.WAITING, ClipState.RUNNING)
        shows_result = self.result is not None and not is_again
        config = self.result_config if shows_result else self.config
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
            "lost": self.result_lost if shows_result else (),
            "task": config.task if config is not None else None,
            "strength": config.strength if config is not None else None,
            "runs": self.runs,
            "result": self.result_name if self.result is not None else None,
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How restoring a clip ended."""

    result: Path | None = None
    """None where there is none."""
    reason: str = ""
    """Why there is none, in a sentence."""
    lost: tuple[str, ...] = ()
    """What the result lacks, a line each."""
    is_cancelled: bool = False


class Clips:
    """All clips on the page. Thread-safe.

    Args:
        folder: Folder of their files, which exists.
        config: Settings of restoring, except those that are chosen on the page.
        quota: Limits of what may be uploaded.
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
        """The clips as the page shows them, in the order of their uploads."""
        with self._changed:
            self._drop_silent()
            return [clip.to_dict() for clip in self._clips.values() if not clip.is_removed]

    def get(self, clip_id: str) -> UploadedClip | None:
        """The clip with an ID; None if there is none."""
        with self._changed:
            clip = self._clips.get(clip_id)
            return None if clip is None or clip.is_removed else clip

    def announce(self, name: str, size_bytes: int) -> UploadedClip:
        """Add a clip, whose upload follows.

        Args:
            name: Its file name, as the visitor sends it.
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
        """Count bytes of an upload that were written to the disk."""
        with self._changed:
            clip.received_bytes += count
            clip.last_received = time.monotonic()

    def check(self, clip: UploadedClip) -> None:
        """Open a clip whose upload is complete. Its state is then ready or failed."""
        with self._changed:
            clip.state = ClipState.CHECKING
        try:
            footage = look_at(clip.source)
            frame = frame_at(clip.source, 0.0)
        except MHNetVideoError as error:
            self.fail(clip, str(error).replace(str(clip.source), clip.name))
            return
        except Exception as error:  # or it would stay so, and could not be removed
            self.fail(clip, unforeseen(error))
            return
        shape = Shape(seconds=footage.seconds, size=frame.upright_size, rotation=frame.rotation)
        with self._changed:
            clip.shape = shape
            clip.state = ClipState.READY
            self._let_go(clip)

    def fail(self, clip: UploadedClip, reason: str) -> None:
        """Mark a clip as failed, and remove its files."""
        shutil.rmtree(clip.folder, ignore_errors=True)
        with self._changed:
            clip.state = ClipState.FAILED
            clip.reason = reason
            self._let_go(clip)

    def enqueue(self, clip: UploadedClip, task: Any, strength: Any, keep: Any) -> None:
        """Put a clip at the end of the queue.

        Args:
            clip: The clip.
            task: What is to be removed, by its name.
            strength: Share of the restoration that is applied, 0 to 1.
            keep: Boxes `[x, y, width, height]` that stay unchanged, in pixels of the picture as it
                is shown.

        Raises:
            ConfigError: A setting is out of range, or the clip cannot be restored now.
        """
        if not isinstance(task, str):
            raise ConfigError("task must be a name.")
        if not isinstance(strength, int | float) or isinstance(strength, bool):
            raise ConfigError("strength must be a number.")
        check_strength(strength)
        if not isinstance(keep, list) or len(keep) > _MAX_BOXES:
            raise ConfigError(f"at most {_MAX_BOXES} boxes can stay unchanged.")
        if not all(isinstance(box, list) for box in keep):
            raise ConfigError("a box must be four numbers.")
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
            clip.state, clip.reason = ClipState.WAITING, ""
            clip.position_seconds = 0.0
            clip.stop.clear()
            self._waiting.append(clip)
            self._changed.notify_all()

    def cancel(self, clip: UploadedClip) -> None:
        """End an upload, take a clip out of the queue, or end its restoration."""
        with self._changed:
            if clip.state is ClipState.UPLOADING:
                self._remove(clip)
            elif clip.state is ClipState.WAITING:
                self._waiting.remove(clip)
                clip.state = _rest_state(clip)
            elif clip.state is ClipState.RUNNING:
                clip.stop.set()

    def remove(self, clip: UploadedClip) -> None:
        """Remove a clip with its files, as soon as they are no longer in use."""
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
        """Remove a clip that was marked for removal, as its files are no longer in use."""
        if clip.is_removed:
            self._clips.pop(clip.id, None)
            shutil.rmtree(clip.folder, ignore_errors=True)

    def drop(self, clip: UploadedClip) -> None:
        """Remove a clip whose upload broke off."""
        with self._changed:
            clip.is_removed = True
            self._let_go(clip)

    def _drop_silent(self) -> None:
        """Remove clips whose upload has stalled."""
        for clip in list(self._clips.values()):
            is_silent = time.monotonic() - clip.last_received > SILENCE_SECONDS
            if clip.state is ClipState.UPLOADING and is_silent:
                clip.is_removed = True
                clip.stop.set()
                self._let_go(clip)

    def take(self) -> UploadedClip | None:
        """Wait for the next clip of the queue, and mark it as running; None once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            clip = self._waiting.popleft()
            clip.state = ClipState.RUNNING
            return clip

    def progressed(self, clip: UploadedClip, seconds: float) -> None:
        """Record how many seconds of a clip's footage are restored."""
        with self._changed:
            if not clip.position_seconds:
                clip.begin = time.monotonic()
            clip.position_seconds = seconds

    def finish(self, clip: UploadedClip, outcome: Outcome) -> None:
        """Record how restoring a clip ended."""
        with self._changed:
            if outcome.result is not None:
                clip.state, clip.result = ClipState.DONE, outcome.result
                clip.result_config, clip.result_lost = clip.config, outcome.lost
                clip.runs += 1
            elif outcome.is_cancelled:
                clip.state = _rest_state(clip)
            else:
                clip.state, clip.reason = ClipState.FAILED, outcome.reason
            self._let_go(clip)

    def close(self) -> None:
        """End the restoration that is running, and start no other."""
        with self._changed:
            self._is_closed = True
            for clip in self._clips.values():
                clip.stop.set()
            self._changed.notify_all()


def _rest_state(clip: UploadedClip) -> ClipState:
    """The state of a clip whose restoration was cancelled."""
    return ClipState.DONE if clip.result is not None else ClipState.READY


Restore = Callable[[UploadedClip, Callable[[float], None]], Outcome]
"""Restores a clip, and reports the seconds of footage that are restored. It ends early when
`clip.stop` is set."""
