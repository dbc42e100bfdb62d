"""What is reported of an output at its beginning and at its end."""

from contextlib import suppress
from pathlib import Path

from mhnet_video.frame import Frame
from mhnet_video.media.encoders.encoder_options import option_names
from mhnet_video.media.fidelity import Notes, counted
from mhnet_video.media.frames.side_data import TIMECODE, FrameSideData, carried_by
from mhnet_video.media.location.telemetry import Carried
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.chapters import titles_of
from mhnet_video.media.writing.frame_fidelity import report_look, report_pixels, report_rotation
from mhnet_video.media.writing.metadata_fidelity import (
    report_further_pictures,
    report_hidden,
    report_metadata,
    report_texts,
    report_timecodes,
    report_units,
)
from mhnet_video.media.writing.muxer import Muxer
from mhnet_video.media.writing.picture_file import PictureFile

_TOLD_OF_PICTURES = {"EXIF", "colour profile"}
"""Side data that `report_descriptions` covers in full."""


def report_beginning(
    notes: Notes, reader: VideoReader, target: Muxer | PictureFile, first: Frame
) -> None:
    """Report what is known of the output once it is open.

    Args:
        notes: What it is added to.
        reader: The source.
        target: The output.
        first: The source's first frame.
    """
    settings = target.frames.settings
    container_format = target.format if isinstance(target, Muxer) else None
    if isinstance(target, Muxer) and target.chapters:
        what = counted(len(target.chapters), "chapter")
        if target.format.has_chapters:
            notes.kept.append(what)
        else:
            notes.lose("chapters", what, f"{target.format.label} has no place for chapters")
    report_pixels(notes, first, settings.pixel_format, settings.encoder)
    if reader.stream.metadata.get("alpha_mode") == "1" and not first.layout.has_alpha:
        notes.lose("pixels", "transparency", "it is not decoded from this codec")
    report_rotation(notes, first, container_format)
    if first.tags.get("interlaced") and not settings.marks_fields:
        why = f"{settings.encoder} does not mark frames as interlaced"
        notes.lose("fields", "fields", why)


def report_end(
    notes: Notes,
    reader: VideoReader,
    target: Muxer | PictureFile,
    side_data: FrameSideData,
    result: Path | None,
) -> None:
    """Complete what was kept and what was lost, once everything is written.

    Args:
        notes: What it is added to.
        reader: The source.
        target: The output.
        side_data: What the source's frames carried.
        result: The output as a file; None where it is none.
    """
    muxer = target if isinstance(target, Muxer) else None
    clock, encoder = target.frames.clock, target.frames.settings.encoder
    if muxer is not None:
        notes.kept += muxer.tracks.kept
        notes.losses += muxer.tracks.losses
    is_even = muxer is not None and muxer.format.is_constant_rate
    holder = muxer.format.label if muxer is not None and is_even else encoder
    shift = None if reader.start else clock.origin
    clock.report(notes, holder=holder, shift=shift, jumps=reader.jumps)
    target.frames.changes.report(notes)
    if muxer is not None and (refused := muxer.refused + muxer.tracks.refused):
        of_streams = ("packet of another stream was", "packets of other streams were")
        notes.lose("damage", f"{counted(refused, *of_streams)} damaged")
    if reader.shortfall is not None:
        notes.lose("damage", reader.shortfall)
    carried = set(_TOLD_OF_PICTURES) if muxer is None else set()
    if muxer is not None and result is not None:
        number = muxer.streams[reader.stream.index].number
        carried = carried_by(result, number)
        report_look(notes, result, number, target.frames.settings, muxer.format)
    if "timecode" in reader.stream.metadata:
        carried.add(TIMECODE)  # reported as a tag where it is not kept as one
    where = f"stream {reader.stream.index}"
    side_data.report(notes, encoder, carried, option_names(encoder), where)
    if muxer is None:
        return
    if reader.is_picture:
        with suppress(OSError):  # a note is no reason to lose what has been written
            content = reader.picture_bytes()
            report_further_pictures(notes, content)
            report_texts(notes, content, muxer.format)
    report_timecodes(notes, muxer.tracks.timecodes, result, muxer.format)
    report_units(notes, reader.passed_over, where)
    report_hidden(
        notes,
        reader.container,
        reader.stream,
        result,
        muxer.telemetry,
        is_joined=len(reader.files) > 1,
    )
    _report_telemetry(notes, muxer.telemetry, is_part=bool(reader.start or reader.duration))
    if result is not None:
        titles = titles_of(muxer.chapters) if muxer.format.has_chapters else []
        report_metadata(
            notes,
            reader.container.metadata,
            muxer.metadata,
            result,
            muxer.streams.values(),
            titles,
        )


def _report_telemetry(notes: Notes, carried: Carried, *, is_part: bool) -> None:
    """Report the positions and sensors that were copied beside the tracks."""
    if carried.num_bytes:
        size = counted(carried.num_bytes, "byte")
        part = ", of the whole source" if is_part else ""
        notes.kept.append(f"positions and sensors beside the tracks ({size}{part})")
    if carried.missing:
        what = counted(carried.missing, "block of positions", "blocks of positions")
        notes.lose("damage", what, "the camera's index names them, and the source has them not")
