"""File to file in segments, so that a run that was killed goes on where it was.

Each segment is restored by itself, with frames before and behind it, such that it is what one run
over everything would make of it. At the end the segments are joined, without encoding anything
again, with all else that the sources hold. Several sources become one output.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av

from mhnet_video import __version__
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, MHNetVideoError, ReadError
from mhnet_video.frame import Frame
from mhnet_video.locator import is_address, shown
from mhnet_video.media.encoder_surfaces import takes_surfaces
from mhnet_video.media.fidelity import Loss, Notes, counted
from mhnet_video.media.frame_geometry import beside
from mhnet_video.media.joined_reader import JoinedReader
from mhnet_video.media.joined_writer import JoinedWriter
from mhnet_video.media.metadata_fidelity import report_hidden
from mhnet_video.media.output_file import check_destination
from mhnet_video.media.reader import VideoReader
from mhnet_video.media.segment_plan import LEAD_INS, SegmentPlan, SourceIdentity, plan_segments
from mhnet_video.media.segment_reader import SegmentReader
from mhnet_video.media.segment_store import SegmentStore
from mhnet_video.media.segment_writer import SegmentEncoding, SegmentWriter, check_format
from mhnet_video.media.telemetry import Carried
from mhnet_video.memory import give_back_large_blocks
from mhnet_video.pipelines.own_pairs import LEAST_DIFFERENT, ColdStart, OwnPairs
from mhnet_video.pipelines.restore import (
    Progress,
    Report,
    Run,
    drop_watch_of,
    losses_of_network,
    restorer_of,
    shares_of,
)
from mhnet_video.pipelines.segment_progress import SegmentProgress

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

SEGMENT_SECONDS = 60.0
"""Least length of a segment, in seconds of footage: what a killed run loses at the most, and long
beside a lead-in, which is about two seconds."""
_NOT_OF_THE_WORK = ("overwrite", "start", "duration", "model", "weights")
"""Settings that change no picture, or of which the weights tell."""


def restore_in_segments(
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    config: RestoreConfig | None = None,
    *,
    restorer: "Restorer | None" = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Take the rain out of a video, or of several that follow one another, in segments.

    What is done so far is in the folder `.NAME.parts` beside the output. The same call goes on from
    there, however the run before ended.

    Args:
        sources: Video files, of which each begins where the one before ends; all of one camera.
        output: File to create, its format by its name.
        config: Settings; the defaults if None.
        restorer: One to use instead of the one that the settings describe.
        on_progress: As for `restore_video`.
        on_message: Called with a sentence about what a run before has left.
        stop: Ends the run early when set; what is done of the current segment is given up.

    Returns:
        What was done, kept and lost. There is no output where it was interrupted.

    Raises:
        ReadError: A source cannot be opened or decoded, or is not any more what it was.
        WriteError: The output or a segment cannot be created, encoded or written, or is not what
            it should be.
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit, or sources cannot be joined.
    """
    config = config or RestoreConfig()
    paths, target = _checked(sources, output, config)
    give_back_large_blocks()
    restorer = restorer or restorer_of(config)
    work = _SegmentedOutput(paths, target, config, restorer)
    work.prepare(on_message or (lambda text: None))
    measures_scale = restorer.measures_scale
    try:
        # a segment may begin in a scene, and does not see how sharp its first frames are
        restorer.measures_scale = False
        return work.run(on_progress, stop or threading.Event())
    except MHNetVideoError as error:
        done = work.num_done
        if not done or work.store.name in str(error):
            raise
        kept = counted(done, "segment is", "segments are")
        raise type(error)(
            f"{error} {kept} kept in {work.store.name}: the same command goes on from there."
        ) from error
    finally:
        restorer.measures_scale = measures_scale


def _checked(
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    config: RestoreConfig,
) -> tuple[list[Path], Path]:
    """The paths, once it is known that they can be worked on in segments."""
    if not sources:
        raise ConfigError("there is no source; name a video file.")
    for source in sources:
        name = "standard input" if os.fspath(source) == "-" else shown(source)
        if name == "standard input" or is_address(os.fspath(source)):
            raise ConfigError(
                f"{name} can be read once only, and not from where a run has ended; save "
                "it as a file, or leave --resume out."
            )
        if os.path.isdir(source):
            raise ConfigError(
                f"{shown(source)} is a folder, whose pictures have no segments; leave --resume out."
            )
        if os.path.exists(source) and not os.path.isfile(source):
            raise ConfigError(f"{shown(source)} is no file; save it as one, or leave --resume out.")
    if os.fspath(output) == "-":
        raise ConfigError("standard output cannot be written in segments; name a file.")
    if config.start is not None or config.duration is not None:
        raise ConfigError(
            "segments are of whole files: --resume goes with neither --start nor --duration."
        )
    if config.gpx or config.evidence:
        raise ConfigError("segments have neither positions nor evidence; leave --resume or them.")
    for source in sources:
        check_destination(output, source=source, overwrite=config.overwrite)
    check_format(Path(output))
    # where a link points to, as the output itself
    return [Path(source) for source in sources], Path(os.path.realpath(output))


class _Memory(NamedTuple):
    """What of the frames before a segment changes it."""

    lead_ins: tuple[int, ...] = LEAD_INS
    """See `plan_segments`."""
    multiple: int = 1
    """Likewise."""
    least_different: int = LEAST_DIFFERENT
    """See `OwnPairs`."""


def _memory_of(restorer: "Restorer") -> _Memory:
    """What a restorer remembers."""
    from mhnet_video.restoration.glass import GLASS_LEAD, GLASS_LEAST_DIFFERENT, GLASS_PERIOD
    from mhnet_video.restoration.restorer import Restorer

    if isinstance(restorer, Restorer) and restorer.network.config.glass:
        return _Memory((GLASS_LEAD, *LEAD_INS[1:]), GLASS_PERIOD, GLASS_LEAST_DIFFERENT)
    return _Memory()


class _SegmentedOutput:
    """The segments of one output."""

    def __init__(
        self, sources: list[Path], output: Path, config: RestoreConfig, restorer: "Restorer"
    ) -> None:
        self.store = SegmentStore(output)
        self._sources = sources
        self._output = output
        self._config = config
        self._restorer = restorer
        self._drops = drop_watch_of(restorer)
        self._memory = _memory_of(restorer)
        self._plan = SegmentPlan(sources=(), segments=())
        self._identities: list[SourceIdentity] = []

    @property
    def num_done(self) -> int:
        """Segments that are complete."""
        return sum(map(self.store.has, range(self.store.count)))

    def prepare(self, on_message: Callable[[str], None]) -> None:
        """Find out what is to be done, and what a run before has done of it."""
        for source in self._sources:
            with VideoReader(source) as reader:  # which says what is wrong with it
                name = reader.container.format.name
                if name == "image2" or name.endswith("_pipe"):
                    raise ConfigError(
                        f"{shown(source)} is a picture, which has no segments; leave --resume out."
                    )
        self._identities = [SourceIdentity.of(source) for source in self._sources]
        settings = asdict(self._config)
        work = {
            "program": __version__,
            "ffmpeg": [list(version) for version in av.library_versions.values()],
            "sources": [asdict(identity) for identity in self._identities],
            "settings": {k: v for k, v in settings.items() if k not in _NOT_OF_THE_WORK},
            "weights": self._restorer.fingerprint,
            "segments": [SEGMENT_SECONDS, *self._memory.lead_ins],
        }
        was_there = self.store.is_there()
        plan = self.store.load(work)
        if plan is not None:
            self._plan = plan
            total = counted(self.store.count, "segment")
            on_message(f"going on: {self.num_done} of {total} are done already.")
            return
        if was_there:
            on_message(
                f"beginning anew: what is in {self.store.name} was made of other sources, with "
                "other settings, or by another version."
            )
        self._plan = plan_segments(
            self._sources,
            SEGMENT_SECONDS,
            lead_ins=self._memory.lead_ins,
            multiple=self._memory.multiple,
        )
        self.store.begin(work, self._plan)

    def run(self, on_progress: Callable[[Progress], None] | None, stop: threading.Event) -> Report:
        """Restore the segments that are missing, and join all."""
        begin = time.monotonic()
        with VideoReader(self._sources[0]) as reader:
            first = next(item for item in reader.items() if isinstance(item, Frame))
            if self._config.compare:
                first = beside(first, first)
            encoding = SegmentEncoding(self._output, reader, first, **self._how())
            progress = SegmentProgress(self._plan, self.store, encoding, on_progress, begin)
            for index in range(self.store.count):
                if not self.store.has(index) and not stop.is_set():
                    self._restore(index, encoding, progress, stop)
                    progress.done()
        if stop.is_set():
            return self._report(begin, encoding, None)
        with (
            JoinedReader(self._sources, self.store, first) as joined,
            JoinedWriter(
                self._output,
                joined,
                self.store,
                overwrite=self._config.overwrite,
                **self._how(),
            ) as writer,
        ):
            for item in joined:
                if stop.is_set():
                    return self._report(begin, encoding, None)
                writer.write(item)
            self._check_sources()
            writer.finish()
            report = self._report(begin, encoding, (joined, writer))
        self.store.remove()
        return report

    def _how(self) -> dict[str, Any]:
        config = self._config
        return {
            "encoder": config.encoder,
            "crf": config.crf,
            "preset": config.preset,
            "options": config.encoder_options,
        }

    def _check_sources(self) -> None:
        """Find out whether the sources are still what they were.

        Raises:
            ReadError: One is not.
        """
        for source, before in zip(self._sources, self._identities, strict=True):
            if SourceIdentity.of(source) != before:
                raise ReadError(
                    f"{shown(source)} was changed while it was read; wait until it is complete, "
                    "and begin again."
                )

    def _restore(
        self,
        index: int,
        encoding: SegmentEncoding,
        progress: "SegmentProgress",
        stop: threading.Event,
    ) -> None:
        """Make one segment, with as long a lead-in as it needs."""
        planned = self._plan.segments[index]
        leads = planned.leads or (None,)
        gpu = None if self._config.compare else self._restorer.gpu
        stays_on_gpu = gpu is not None and takes_surfaces(encoding.encoder)

        def is_whole() -> bool:
            self._check_sources()
            return not stop.is_set()

        for lead in leads:
            with (
                SegmentReader(self._sources, self._plan, planned, lead, gpu=gpu) as reader,
                SegmentWriter(
                    self.store, index, planned.source, reader, encoding, is_whole=is_whole
                ) as writer,
            ):
                tell = partial(progress.tell, reader)
                run = Run(self._sources[0], self._output, self._config, stop, tell)
                if self._drops is not None:
                    run.watch = self._drops.watch
                own = OwnPairs(
                    reader,
                    writer,
                    self._restorer,
                    least_different=self._memory.least_different,
                    is_last_try=lead is leads[-1],
                )
                try:
                    run.work(
                        reader,
                        self._restorer,
                        writer,
                        stays_on_gpu=stays_on_gpu,
                        select=own.of,
                    )
                except ColdStart:
                    continue
                return

    def _report(
        self,
        begin: float,
        encoding: SegmentEncoding,
        joined: tuple[JoinedReader, JoinedWriter] | None,
    ) -> Report:
        """What was done; of an interrupted run how far it has come."""
        kept: list[str] = []
        losses: list[Loss] = []
        frames = passed = damaged = 0
        for index in range(self.store.count):
            if self.store.has(index):
                record = self.store.record(index)
                frames += len(record.frames)
                passed += record.passed_through
                damaged += record.damaged
        size = encoding.first.width, encoding.first.height
        if joined is not None:
            reader, writer = joined
            kept, losses = list(writer.notes.kept), list(writer.notes.losses)
            losses += losses_of_network(passed, self._config, reader.size)
            size, damaged = reader.size, reader.damaged
            kept, losses = self._about_files(reader, writer.telemetry, kept, losses)
        scale = self._restorer.scale_at(size[1], size[0])
        others = len(self._sources) - 1
        more = f" and {counted(others, 'file')} more" if others else ""
        return Report(
            source=f"{shown(self._sources[0])}{more}",
            destination=shown(self._output),
            frames=frames,
            seconds=time.monotonic() - begin,
            model=self._restorer.name,
            device=str(self._restorer.device),
            scale=scale.scale,
            encoder=encoding.encoder,
            pixel_format=encoding.settings.pixel_format,
            kept=tuple(kept),
            losses=tuple(losses),
            damaged=damaged,
            interrupted=joined is None,
            has_drops=self._drops is not None and self._drops.sees_drops(),
            parts="" if joined is not None else self.store.name,
            scales=shares_of({scale: 1}),
        )

    def _about_files(
        self, reader: JoinedReader, telemetry: Carried, kept: list[str], losses: list[Loss]
    ) -> tuple[list[str], list[Loss]]:
        """Add what is to be told of several files beside what is told of the first one."""
        if len(self._sources) == 1:
            return kept, losses
        kept = [f"{counted(len(self._sources), 'file')} one after another", *kept]
        notes = Notes(losses=losses)
        if reader.overlap_seconds:
            sound = f"{float(reader.overlap_seconds):.3f} s of sound where files meet"
            notes.lose("times", sound, "the file before has sound at that time")
        own_chapters = 0
        for source in self._sources:
            with VideoReader(source) as each:
                own_chapters += len(each.chapters())
                if source is not self._sources[0]:
                    hidden = each.container, each.stream, self._output, telemetry
                    report_hidden(notes, *hidden, is_joined=True)
        if own_chapters:
            what = counted(own_chapters, "chapter")
            notes.lose("chapters", what, "the output has one for each file instead")
        return kept, notes.losses
