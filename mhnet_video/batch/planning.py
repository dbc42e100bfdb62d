"""From sources to works: which outputs there will be, and which files are left out."""

import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mhnet_video.batch.discovery import OWN_FOLDER, FoundFile, discover
from mhnet_video.batch.footage import (
    PictureError,
    VideoFacts,
    is_named_like_preview,
    is_named_like_video,
    look_at,
)
from mhnet_video.batch.trips import Clip, group_trips, paths_of
from mhnet_video.batch.work import LeftOut, Shard, Work
from mhnet_video.errors import ReadError, WriteError
from mhnet_video.media.formats.containers import format_of
from mhnet_video.media.location.gpx import track_path


@dataclass
class _SeenFile:
    """A file as it was found last."""

    version: tuple[int, int]
    """Its size in bytes, and its time of modification in nanoseconds."""
    since: float
    """When it was first found so, in seconds of the monotonic clock."""
    facts: VideoFacts | LeftOut | None = None
    """None until it has been opened."""


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The works of a batch, and the files that it leaves out."""

    works: tuple[Work, ...]
    left_out: tuple[LeftOut, ...]


class FootageCache:
    """Facts about the video of files, kept as long as size and time of a file stay the same.

    Args:
        settled_seconds: How long a file must have stayed the same before it is opened.
    """

    def __init__(self, settled_seconds: float = 0.0) -> None:
        self.is_waiting = False
        """Whether a file was too young to be opened since this was set to False."""
        self._settled_seconds = settled_seconds
        self._seen: dict[Path, _SeenFile] = {}

    def of(self, found: FoundFile) -> VideoFacts | LeftOut | None:
        """Facts about a file, or why it is left out; None if it may still be growing."""
        try:
            status = found.path.stat()
        except OSError as error:
            reason = f"is gone since it was found ({error.strerror}); run it again."
            return LeftOut(path=found.path, reason=reason, is_error=True)
        version, now = (status.st_size, status.st_mtime_ns), time.monotonic()
        seen = self._seen.get(found.path)
        if seen is None or seen.version != version:
            seen = self._seen[found.path] = _SeenFile(version, now)
        if now - seen.since < self._settled_seconds:
            self.is_waiting = True
            return None
        if seen.facts is None:
            seen.facts = _look(found)
        return seen.facts


def _look(found: FoundFile) -> VideoFacts | LeftOut:
    if is_named_like_preview(found.path) and not found.is_named:
        reason = "is a small copy that the camera keeps of a recording; name it to restore it."
        return LeftOut(path=found.path, reason=reason, is_error=False)
    is_error = found.is_named or is_named_like_video(found.path)
    try:
        return look_at(found.path)
    except PictureError:
        reason = "is a picture; `mhnet-video INPUT OUTPUT` restores pictures."
        return LeftOut(path=found.path, reason=reason, is_error=found.is_named)
    except ReadError as error:
        reason = str(error).removeprefix(f"{found.path} ")
        return LeftOut(path=found.path, reason=reason, is_error=is_error)


def make_plan(
    sources: Sequence[str],
    out_folder: Path,
    *,
    is_joined: bool = False,
    has_tracks: bool = False,
    shard: Shard | None = None,
    footage_cache: FootageCache | None = None,
) -> BatchPlan:
    """Find the works of some sources.

    Args:
        sources: Files, folders and patterns.
        out_folder: Where the outputs go, in the tree that the sources have; it has its folder
            `OWN_FOLDER` already.
        is_joined: Whether files that follow one another become one output.
        has_tracks: Whether each output has a track of positions beside it.
        shard: The part of the works to take; all if None.
        footage_cache: Keeps what files hold, so that none is opened twice.

    Returns:
        The works in the order of the sources, or of their time if they are joined, and the files
        that are left out.
    """
    footage_cache = footage_cache or FootageCache()
    clips: list[Clip] = []
    left_out: list[LeftOut] = []
    for found in discover(sources, out_folder):
        seen = footage_cache.of(found) if isinstance(found, FoundFile) else found
        if isinstance(found, FoundFile) and isinstance(seen, VideoFacts):
            clips.append(Clip(found=found, footage=seen))
        elif isinstance(seen, LeftOut):
            left_out.append(seen)
    trips = group_trips(clips) if is_joined else [[clip] for clip in clips]
    fold = _folded if ignores_case(out_folder) else str
    works = [_work_of(trip, out_folder) for trip in trips]
    works = _without_clashes(works, left_out, fold, has_tracks=has_tracks)
    shard = shard or Shard()
    return BatchPlan(
        works=tuple(work for work in works if shard.holds(work.key)), left_out=tuple(left_out)
    )


def _work_of(trip: Sequence[Clip], out_folder: Path) -> Work:
    key = trip[0].found.relative
    try:
        format_of(key.name)
    except WriteError:  # a format that is read only
        key = key.with_name(f"{key.name}.mkv")
    return Work(
        sources=paths_of(trip),
        output=out_folder / key,
        key=key.as_posix(),
        seconds=sum(clip.footage.seconds for clip in trip),
    )


def _without_clashes(
    works: Sequence[Work],
    left_out: list[LeftOut],
    fold: Callable[[str], str],
    *,
    has_tracks: bool,
) -> list[Work]:
    """The works whose files no other one has; those that share one are left out."""

    def files(work: Work) -> list[str]:
        tracks = [track_path(work.key).as_posix()] if has_tracks else []
        return [fold(name) for name in (work.key, *tracks)]

    groups: dict[str, list[Work]] = {}
    for work in works:
        for name in files(work):
            groups.setdefault(name, []).append(work)
    kept = []
    for work in works:
        others = [other for name in files(work) for other in groups[name] if other is not work]
        if not others:
            kept.append(work)
            continue
        twin = others[0]
        how = "have the same track"
        if fold(twin.key) == fold(work.key):
            is_same = twin.key == work.key
            how = f"become {'the same output' if is_same else 'an output of the same letters'}"
        reason = f"would {how} as {twin.sources[0]}; restore them into different folders."
        left_out += [LeftOut(path=path, reason=reason, is_error=True) for path in work.sources]
    return kept


def _folded(key: str) -> str:
    return unicodedata.normalize("NFC", key).casefold()


def ignores_case(out_folder: Path) -> bool:
    """Whether names in the folder of outputs that differ by case only are one file there."""
    return (out_folder / OWN_FOLDER.upper()).exists()
