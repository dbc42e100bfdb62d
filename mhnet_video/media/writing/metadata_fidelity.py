"""Which information about a file, its streams and its chapters an output does not have."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from mhnet_video.media.fidelity import MOST_SHOWN, Notes, printable
from mhnet_video.media.formats.containers import Format
from mhnet_video.media.formats.inventory import unseen_in
from mhnet_video.media.formats.inventory_base import Found
from mhnet_video.media.frames.image_metadata import OF_FRAMES, descriptions_in, further_items_in
from mhnet_video.media.location.telemetry import Carried

_NO_TAGS = ("handler_name", "vendor_id", "encoder", "creation_time", "duration")
"""Names that muxers give to their tracks and what they count, true of one file only; and what is
told apart from the tags."""
_TIME_LETTERS = 19
"""Of a time: to the second, as MP4 has it."""
_SHORT_LETTERS = 3
"""A value as short as this may stand in another tag by chance."""
_MOST_LETTERS = 40
"""Of a chapter's title, to a person."""
_READ_ONCE = "not looked for, as the source can be read once only; name a file"
_LOOKED_INTO = ("mov", "matroska", "avi")
"""Formats that are looked into, by FFmpeg's names."""


class OutputStream(NamedTuple):
    """A stream of the output, as it was set up."""

    stream: int
    """The source's number of it."""
    name: str
    """The source's, in a few words."""
    type: str
    number: int
    """Which one of its type; formats number streams in orders of their own."""
    tags: dict[str, str]
    disposition: int


def report_descriptions(notes: Notes, source: bytes, encoded: bytes, written: bytes) -> None:
    """Report what a picture's file said about it and the output's does not.

    Args:
        notes: What it is added to.
        source: The bytes of its file; empty where they are not at hand.
        encoded: Those of the output's, with all that could be copied.
        written: Likewise without what is not true of it.
    """
    if not source:
        notes.lose("metadata", "what the picture's file says about it", _READ_ONCE)
    copied, kept = descriptions_in(encoded), descriptions_in(written)
    for what in descriptions_in(source):
        if what in copied and what not in kept:
            notes.lose("metadata", what, "it would not be true of the output")
        elif what not in kept:
            notes.lose("metadata", what, "not written into this kind of picture")


def report_texts(notes: Notes, source: bytes, container_format: Format) -> None:
    """Report what a picture's file said about it, where the output is a video.

    Args:
        notes: What it is added to, which has what frames carry already.
        source: The bytes of the picture's file.
        container_format: The output's format.
    """
    for what in descriptions_in(source):
        if not what.startswith(OF_FRAMES):
            notes.lose("metadata", what, f"{container_format.label} has no place for it")


def report_further_pictures(notes: Notes, source: bytes, *, num_streams: int = 1) -> None:
    """Report that a picture's file holds others behind the one that is restored.

    Args:
        notes: What it is added to.
        source: The bytes of its file; empty where they are not at hand.
        num_streams: Streams of it that are pictures, and of which the output has one.
    """
    found = further_items_in(source)
    if num_streams > 1:
        found.setdefault("further pictures of the file", "the first one is restored")
    for what, why in found.items():
        notes.lose("picture", what, why)


def report_hidden(
    notes: Notes,
    container: InputContainer,
    stream: VideoStream,
    result: Path | None,
    carried: Carried,
    *,
    is_joined: bool = False,
) -> None:
    """Report what a camera wrote into its file past FFmpeg, and how players would crop it.

    Args:
        notes: What it is added to.
        container: The source.
        stream: Its stream that is restored.
        result: The output as a file; None where it is none.
        carried: What of the source's telemetry is in it.
        is_joined: Whether it has that of several files, so that its boxes are of other sizes.
    """
    name = container.name
    if not os.path.isfile(name):
        if container.format.name.split(",")[0] in _LOOKED_INTO:
            notes.lose("box", "what cameras hide from FFmpeg", _READ_ONCE)
        return
    # a note is no reason to lose what has been written
    with suppress(OSError, FFmpegError, ValueError):
        kept: set[tuple[object, ...]] = set()
        told = -1 if is_joined else None
        if result is not None and carried.num_bytes:
            with av.open(str(result), metadata_errors="surrogateescape") as written:
                kept = {each[:told] for each in _hidden_in(written, -1) if each.kind == "box"}
        for found in _hidden_in(container, stream.index):
            if found[:told] in kept:
                continue
            what, why = found.what, carried.why or "FFmpeg does not show it"
            if found.kind == "cropping":
                if what == f"{stream.width}x{stream.height}":
                    continue
                what, why = f"cropping ({what})", "the output has the whole picture"
            notes.lose(found.kind, what, why, where=found.where, bytes=found.bytes)


def _hidden_in(container: InputContainer, stream: int) -> list[Found]:
    """What FFmpeg does not show of a file that it has opened."""
    streams = list(container.streams)
    tags = {key.lower() for each in streams for key in each.metadata}
    tags |= {key.lower() for key in container.metadata}
    used = 0
    for each in streams:
        entries = each.index_entries
        used = max(used, entries[-1].pos + entries[-1].size if len(entries) else 0)
    return unseen_in(container.name, stream=stream, tags=tags, used=used)


def report_units(notes: Notes, found: Mapping[str, int], where: str) -> None:
    """Report what of a stream its decoder has passed over, and how many bytes of it."""
    for what, size in found.items():
        notes.lose("side data", what, "FFmpeg does not decode it", where=where, bytes=size)


def report_metadata(
    notes: Notes,
    source: Mapping[str, str],
    wanted: dict[str, str],
    result: Path,
    streams: Iterable[OutputStream],
    titles: Sequence[str],
) -> None:
    """Compare what a finished file says about itself with what it was to say.

    Args:
        notes: What it is added to.
        source: Tags of the source as a whole.
        wanted: Those that the file is to have.
        result: The file.
        streams: Its streams.
        titles: Those of its chapters.
    """
    try:
        with av.open(str(result), metadata_errors="surrogateescape") as container:
            found = dict(container.metadata)
            found_streams: dict[str, list[tuple[dict[str, str], int]]] = {}
            for stream in container.streams:
                described = dict(stream.metadata), int(stream.disposition)
                found_streams.setdefault(stream.type, []).append(described)
            became = [c["metadata"].get("title", "") for c in container.chapters()]
    except (FFmpegError, OSError, ValueError):
        return
    gone = _gone(wanted, found)
    # what the program says of itself is no information of the source's
    kept = [key for key in wanted if key in source and not _gone({key: wanted[key]}, found)]
    if (more := len(kept) - MOST_SHOWN) > 1:
        kept[MOST_SHOWN:] = [f"and {more} more"]
    if kept:
        notes.kept.append(f"information about the file ({printable(', '.join(kept))})")
    if gone:
        notes.lose("tag", f"information about the file: {', '.join(gone)}")
    for each in streams:
        same = found_streams.get(each.type, [])[each.number :]
        tags, flags = same[0] if same else ({}, 0)
        # a camera's time code belongs to all streams, and is the video's in the output
        left_out = _NO_TAGS if each.type == "video" else (*_NO_TAGS, "timecode")
        wanted_tags = {k: v for k, v in each.tags.items() if k.lower() not in left_out}
        gone = _gone(wanted_tags, tags)
        lacking = Disposition(each.disposition & ~flags & ~Disposition.default)
        gone += [flag.name for flag in Disposition if flag & lacking and flag.name]
        if gone:
            what = f"information about {each.name}: {', '.join(gone)}"
            notes.lose("tag", what, where=f"stream {each.stream}")
    changed = [title for title, new in zip(titles, became, strict=False) if title != new]
    if changed:
        shown = ", ".join(printable(title[:_MOST_LETTERS]) for title in changed[:MOST_SHOWN])
        notes.lose("chapters", f"whole titles of chapters: {shown}")


def report_timecodes(
    notes: Notes, sources: Sequence[Stream], result: Path | None, container_format: Format
) -> None:
    """Report whether the time code of a source's own streams is in the output.

    Args:
        notes: What it is added to.
        sources: The streams.
        result: The output; None where it is no file.
        container_format: Its format.
    """
    if not sources:
        return
    found: set[str] = set()
    with suppress(FFmpegError, OSError, ValueError), av.open(str(result)) as container:
        tags = [stream.metadata for stream in container.streams.video]
        found = {v for each in tags for k, v in each.items() if k.lower() == "timecode"}
    notes.kept += [f"timecode {timecode}" for timecode in sorted(found)]
    for stream in () if found else sources:
        why = f"{container_format.label} has no place for it"
        notes.lose("stream", "timecode", why, where=f"stream {stream.index}")


def _gone(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The tags that are not in a file, or not with their whole value, in a person's words."""
    has = {key.lower(): value for key, value in found.items()}
    gone = []
    for key, value in wanted.items():
        became = has.get(key.lower())
        if became == value or _is_same(key.lower(), value, became, found):
            continue
        cut = "" if became is None else f" (changed, {len(became)} of {len(value)} letters)"
        gone.append(printable(key) + cut)
    return gone


def _is_same(key: str, value: str, became: str | None, found: Mapping[str, str]) -> bool:
    """Whether a value of a tag stands in a file in another form, or under another name."""
    if not value.strip() or (key == "language" and value in ("und", "XXX")):
        return True
    if became is None:
        # MP4 has a track's title in another place
        is_name = key == "title" and value == found.get("name")
        return is_name or (len(value) > _SHORT_LETTERS and value in found.values())
    if key == "language":
        # the same language has two codes
        return len(value) == len(became)
    if key == "creation_time":
        return became[:_TIME_LETTERS] == value[:_TIME_LETTERS]
    return became.strip() == value.strip()
