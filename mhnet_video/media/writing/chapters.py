"""The chapters of a source at their times in an output."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from mhnet_video.media.reading.reader import VideoReader


def chapters_of(reader: VideoReader, origin: Fraction) -> list[Any]:
    """The chapters of the part that was asked for, as PyAV has them.

    Args:
        reader: The source.
        origin: Time of the source that becomes zero in the output, in seconds.
    """
    chapters: list[Any] = []
    for chapter in reader.chapters():
        unit = Fraction(chapter["time_base"] or Fraction(1, 1000))
        begin = chapter["start"] * unit - origin
        end = chapter["end"] * unit - origin
        if reader.end is not None:
            end = min(end, reader.end - origin)
        if reader.start:
            begin = max(begin, Fraction(0))
        if end > begin:
            moved = {"start": round(begin / unit), "end": round(end / unit)}
            chapters.append(chapter | {"time_base": unit} | moved)
    return chapters


def edges_of(chapters: Iterable[Any]) -> list[Fraction]:
    """When chapters begin and end, in seconds, in order."""
    return sorted(
        chapter[edge] * chapter["time_base"] for chapter in chapters for edge in ("start", "end")
    )


def titles_of(chapters: Iterable[Any]) -> list[str]:
    """The titles of chapters; empty for one that has none."""
    return [chapter["metadata"].get("title", "") for chapter in chapters]
