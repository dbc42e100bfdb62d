"""What is told of an output that was made in segments."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mhnet_video.config import RestoreConfig
from mhnet_video.locator import shown
from mhnet_video.media.fidelity import Loss, Notes, counted
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.segments.joined_reader import JoinedReader
from mhnet_video.media.segments.joined_writer import JoinedWriter
from mhnet_video.media.segments.segment_encoding import SegmentEncoding
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.media.writing.metadata_fidelity import report_hidden
from mhnet_video.pipelines.restore import Report, losses_of_network, shares_of

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer


def report_of(
    sources: Sequence[Path],
    output: Path,
    config: RestoreConfig,
    restorer: "Restorer",
    store: SegmentStore,
    encoding: SegmentEncoding,
    *,
    seconds: float,
    joined: tuple[JoinedReader, JoinedWriter] | None,
) -> Report:
    """What was done; of an interrupted run how far it has come.

    Args:
        sources: The files, in order.
        output: The output.
        config: The settings.
        restorer: What restored them.
        store: The segments.
        encoding: How they are encoded.
        seconds: What it took.
        joined: What was joined, and into what; None of an interrupted run.
    """
    from mhnet_video.restoration.working_scale import ScaleReason, WorkingScale

    kept: list[str] = []
    losses: list[Loss] = []
    frames = passed = dry = damaged = 0
    counts: Counter[WorkingScale] = Counter()
    for index in range(store.count):
        if store.has(index):
            record = store.record(index)
            frames += len(record.frames)
            passed += record.passed_through
            dry += record.dry
            damaged += record.damaged
            for scale, reason, number in record.scales:
                counts[WorkingScale(scale, ScaleReason(reason))] += number
    size = encoding.first.width, encoding.first.height
    if joined is not None:
        reader, writer = joined
        kept, losses = list(writer.notes.kept), list(writer.notes.losses)
        losses += losses_of_network(passed, config, reader.size)
        size, damaged = reader.size, reader.damaged
        if len(sources) > 1:
            kept, losses = _about_files(sources, output, reader, writer, kept, losses)
    scales = shares_of(counts)
    others = len(sources) - 1
    more = f" and {counted(others, 'file')} more" if others else ""
    return Report(
        source=f"{shown(sources[0])}{more}",
        destination=shown(output),
        frames=frames,
        seconds=seconds,
        model=restorer.name,
        device=",".join(map(str, restorer.devices)),
        scale=scales[0].scale if scales else restorer.scale_at(size[1], size[0]).scale,
        encoder=encoding.encoder,
        pixel_format=encoding.settings.pixel_format,
        kept=tuple(kept),
        losses=tuple(losses),
        damaged=damaged,
        interrupted=joined is None,
        parts="" if joined is not None else store.name,
        scales=scales,
        dry=dry,
    )


def _about_files(
    sources: Sequence[Path],
    output: Path,
    reader: JoinedReader,
    writer: JoinedWriter,
    kept: list[str],
    losses: list[Loss],
) -> tuple[list[str], list[Loss]]:
    """Add what is to be told of several files beside what is told of the first one."""
    kept = [f"{counted(len(sources), 'file')} one after another", *kept]
    notes = Notes(losses=losses)
    if reader.overlap_seconds:
        sound = f"{float(reader.overlap_seconds):.3f} s of sound where files meet"
        notes.lose("times", sound, "the file before has sound at that time")
    own_chapters = 0
    for source in sources:
        with VideoReader(source) as each:
            own_chapters += len(each.chapters())
            if source is not sources[0]:
                hidden = each.container, each.stream, output, writer.telemetry
                report_hidden(notes, *hidden, is_joined=True)
    if own_chapters:
        what = counted(own_chapters, "chapter")
        notes.lose("chapters", what, "the output has one for each file instead")
    return kept, notes.losses
