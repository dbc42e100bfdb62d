"""Loop files that follow one another become the trip that they are parts of."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
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
    groups: dict[object, list[Clip]] = {}
    for clip in sorted(clips, key=_order):
        camera = clip.found.root, clip.name.view, clip.name.series, clip.name.form
        key = *camera, clip.footage.kind, clip.found.path.suffix.lower()
        groups.setdefault(key, []).append(clip)
    found = [trip for group in groups.values() for trip in _chained(group)]
    return sorted(found, key=lambda trip: _order(trip[0]))


def _chained(clips: list[Clip]) -> list[list[Clip]]:
    """The trips of one camera's clips.

    Where several clips may follow one, as copies of a minute in several folders and files of
    another drive whose clock was not set, those that go on the most plainly are joined first.
    """
    longest = timedelta(seconds=MOST_GAP_SECONDS + max(clip.footage.seconds for clip in clips))
    pairs = []
    for index, clip in enumerate(clips):
        for other in range(index - 1, -1, -1):
            before = clips[other]
            is_timed = not (before.name.chapter or clip.name.chapter)
            if is_timed and _time(clip) - _time(before) > longest:
                break  # and so are all before it
            if _follows(before, clip):
                pairs.append((_unlikeness(before, clip), other, index))
    following: dict[int, int] = {}
    follows: set[int] = set()
    for _, other, index in sorted(pairs):
        if other not in following and index not in follows:
            following[other] = index
            follows.add(index)
    trips = []
    for first in range(len(clips)):
        if first not in follows:
            trip = [first]
            while trip[-1] in following:
                trip.append(following[trip[-1]])
            trips.append([clips[index] for index in trip])
    return trips


def _unlikeness(before: Clip, clip: Clip) -> tuple[bool, bool, float]:
    """How little one clip looks like what follows another; less is better."""
    pause = (_time(clip) - _time(before)).total_seconds()
    return (
        before.found.path.parent != clip.found.path.parent,
        not _is_next_number(before, clip),
        abs(pause - before.footage.seconds),
    )


def _time(clip: Clip) -> datetime:
    return clip.name.time or _local(clip.footage.created) or datetime.min


def _order(clip: Clip) -> tuple[str, datetime, int, str]:
    """By time; where one clock is missing, chapters and names decide."""
    chapter = clip.name.chapter or ("", 0)
    # chapters may have the time of their recording, all the same one
    return chapter[0], _time(clip), chapter[1], str(clip.found.relative)


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
