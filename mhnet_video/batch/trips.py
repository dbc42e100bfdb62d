"""Loop files that follow one another become the trip that they are parts of."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from mhnet_video.batch.clip_names import ClipName, read_name
from mhnet_video.batch.discovery import FoundFile
from mhnet_video.batch.footage import VideoFacts

MOST_GAP_SECONDS = 2.0
"""A longer pause between two files begins another trip."""
_MOST_OVERLAP_SECONDS = 3.0
"""Cameras begin a file a little before the one before it ends, and names count whole seconds."""
_MOST_OVERLAP = 0.5
"""Share of a file that the next one may have, too: one that begins sooner is a copy of it, or of
another camera."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A found file, and what it holds."""

    found: FoundFile
    footage: VideoFacts

    @cached_property
    def name(self) -> ClipName:
        """What its name tells."""
        return read_name(self.found.relative)


def group_trips(clips: Iterable[Clip]) -> list[list[Clip]]:
    """The trips that clips are parts of, each in the order of its clips.

    A clip follows another of the same source, camera and kind that ends where it begins, by the
    times in their names, or else in their containers. Cameras of two makers write the time in
    two ways. Where no view is known, the names are to be alike but for times and numbers.
    Chapters follow one another by their numbers. In which folders they are does not matter:
    locked and event files are in folders of their own. A clip that nothing is known of is a
    trip of its own.
    """
    clips = sorted(clips, key=_order)
    trips: dict[object, list[list[Clip]]] = {}
    for clip in clips:
        camera = clip.found.root, clip.name.view, clip.name.series, clip.name.form
        key = *camera, clip.footage.kind, clip.found.path.suffix.lower()
        group = trips.setdefault(key, [])
        before = [trip for trip in group if _follows(trip[-1], clip)]
        # copies of the same minute are in several folders: each goes on in its own
        folder = clip.found.path.parent
        before.sort(key=lambda trip: trip[-1].found.path.parent != folder)
        if before:
            before[0].append(clip)
        else:
            group.append([clip])
    found = [trip for group in trips.values() for trip in group]
    return sorted(found, key=lambda trip: _order(trip[0]))


def _order(clip: Clip) -> tuple[str, datetime, int, str]:
    """By time; where one clock is missing, chapters and names decide."""
    time = clip.name.time or _local(clip.footage.created) or datetime.min
    chapter = clip.name.chapter or ("", 0)
    # chapters may have the time of their recording, all the same one
    return chapter[0], time, chapter[1], str(clip.found.relative)


def _local(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=None)


def _follows(before: Clip, clip: Clip) -> bool:
    if before.name.chapter and clip.name.chapter:
        (recording, number), (other, following) = before.name.chapter, clip.name.chapter
        is_next = recording == other and following == number + 1
        return is_next and before.found.path.parent == clip.found.path.parent
    if before.name.time and clip.name.time:
        pause = (clip.name.time - before.name.time).total_seconds()
        return _is_next(pause, before.footage.seconds)
    if before.footage.created and clip.footage.created and not clip.name.time:
        pause = (clip.footage.created - before.footage.created).total_seconds()
        # cameras write there when the recording began, or when it ended
        return _is_next(pause, before.footage.seconds) or (
            _is_next(pause, clip.footage.seconds) and _is_next_number(before, clip)
        )
    return False


def _is_next_number(before: Clip, clip: Clip) -> bool:
    number, following = before.name.number, clip.name.number
    return number is not None and following == number + 1


def _is_next(pause: float, seconds: float) -> bool:
    """Whether one file goes on where another ends.

    Args:
        pause: Seconds from the beginning of one to that of the other.
        seconds: Length of the first.
    """
    least = max(seconds - _MOST_OVERLAP_SECONDS, seconds * _MOST_OVERLAP)
    return pause > 0 and least <= pause <= seconds + MOST_GAP_SECONDS


def paths_of(trip: Iterable[Clip]) -> tuple[Path, ...]:
    """The files of a trip in their order."""
    return tuple(clip.found.path for clip in trip)
