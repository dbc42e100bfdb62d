"""The segments of one output: which there are, how each is made, and how they are joined."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av

from mhnet_video import __version__
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, MHNetVideoError, ReadError
from mhnet_video.frame import Frame, Pair
from mhnet_video.locator import shown
from mhnet_video.media.encoders.encoder_surfaces import takes_surfaces
from mhnet_video.media.fidelity import counted
from mhnet_video.media.frames.frame_geometry import beside
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.segments.joined_reader import JoinedReader
from mhnet_video.media.segments.joined_writer import JoinedWriter
from mhnet_video.media.segments.segment_encoding import SegmentEncoding
from mhnet_video.media.segments.segment_plan import (
    LEAD_INS,
    SegmentPlan,
    SourceIdentity,
    plan_segments,
)
from mhnet_video.media.segments.segment_reader import SegmentReader
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.media.segments.segment_writer import SegmentWriter
from mhnet_video.pipelines.companions import Companions
from mhnet_video.pipelines.evidence import evidence_row
from mhnet_video.pipelines.own_pairs import LEAST_DIFFERENT, ColdStart, OwnPairs
from mhnet_video.pipelines.restore import (
    Pairs,
    Progress,
    Report,
    Run,
    drop_watch_of,
    with_companions,
)
from mhnet_video.pipelines.segment_progress import SegmentProgress
from mhnet_video.pipelines.segment_report import report_of

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

SEGMENT_SECONDS = 60.0
"""Least length of a segment, in seconds of footage: what a killed run loses at the most, and long
beside a lead-in, which is about two seconds."""
_NOT_OF_THE_WORK = ("overwrite", "start", "duration", "model", "task", "weights", "gpx")
"""Settings that change no picture, or of which the weights tell."""
_WAIT_SECONDS = 0.5
"""Between looks at a segment that another process makes."""


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
    from mhnet_video.restoration.dry_look import LOOK_PERIOD
    from mhnet_video.restoration.glass import GLASS_LEAD, GLASS_LEAST_DIFFERENT, GLASS_PERIOD

    if "raindrop" in restorer.tasks:
        return _Memory((GLASS_LEAD, *LEAD_INS[1:]), GLASS_PERIOD, GLASS_LEAST_DIFFERENT)
    return _Memory(multiple=LOOK_PERIOD)


def work_of(sources: Iterable[Path], config: RestoreConfig, weights: str) -> dict[str, Any]:
    """What segments are made of, as plain values: where it is the same, they are still good.

    Args:
        sources: The files.
        config: The settings.
        weights: The fingerprint of the restorer.

    Raises:
        ReadError: A source is gone.
    """
    return {
        "program": __version__,
        "ffmpeg": [list(version) for version in av.library_versions.values()],
        "sources": [asdict(SourceIdentity.of(source)) for source in sources],
        "settings": {k: v for k, v in asdict(config).items() if k not in _NOT_OF_THE_WORK},
        "weights": weights,
        # lead-ins that are longer, of networks that see the glass, follow from the weights
        "segments": [SEGMENT_SECONDS, *LEAD_INS],
    }


class SegmentedWork:
    """The segments of one output, which several processes may make together.

    Args:
        sources: The files, in order.
        output: The output.
        config: The settings, those of the restorer among them, see `settings_of`.
        restorer: What restores.

    Raises:
        ReadError: A source cannot be opened.
        ConfigError: A source is a picture.
    """

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
        self._begin = time.monotonic()
        for source in sources:
            with VideoReader(source) as reader:  # which says what is wrong with it
                name = reader.container.format.name
                if name == "image2" or name.endswith("_pipe"):
                    raise ConfigError(
                        f"{shown(source)} is a picture, which has no segments; leave --resume out."
                    )
        self._identities = [SourceIdentity.of(source) for source in sources]
        self._work = work_of(sources, config, restorer.fingerprint)

    @property
    def num_done(self) -> int:
        """Segments that are complete."""
        return sum(map(self.store.has, range(self.store.count)))

    def load(self) -> bool:
        """Take the plan that another run has made; False where there is none of the same work."""
        plan = self.store.load(self._work)
        if plan is not None:
            self._plan = plan
        return plan is not None

    def prepare(self, on_message: Callable[[str], None] = lambda text: None) -> None:
        """Find out what is to be done, and what a run before has done of it.

        Nobody else may prepare the same output meanwhile.

        Args:
            on_message: Called with a sentence about what a run before has left.

        Raises:
            ReadError: A source cannot be read.
            ConfigError: The sources cannot be joined.
            WriteError: The format does not hold what the encoder makes, or the folder of the
                segments cannot be created.
        """
        was_there = self.store.is_there()
        if self.load():
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
        _ = self._encoding  # what cannot be encoded so is refused before anything is on the disk
        self.store.begin(self._work, self._plan)

    def restore(
        self,
        indices: Iterable[int],
        on_progress: Callable[[Progress], None] | None,
        stop: threading.Event,
    ) -> None:
        """Make those of some segments that are missing, or wait until somebody else has.

        Args:
            indices: Which.
            on_progress: As for `restore_video`.
            stop: Ends it when set; what is done of the current segment is given up.

        Raises:
            MHNetVideoError: A segment cannot be made.
        """
        left = deque(index for index in indices if not self.store.has(index))
        if not left:
            return
        progress = SegmentProgress(self._plan, self.store, self._encoding, on_progress, self._begin)
        try:
            # a segment may begin in a scene, and does not see how sharp its first frames are
            self._restorer.scene_scale = self._scene_scale
            while left and not stop.is_set():
                index = left.popleft()
                with self.store.claim(index) as is_ours:
                    if not is_ours:
                        left.append(index)
                        stop.wait(_WAIT_SECONDS)
                    elif not self.store.has(index):
                        self._restore(index, progress, stop)
                progress.done()
        finally:
            self._restorer.scene_scale = None

    def join(
        self, companions: Companions, stop: threading.Event, *, is_final: bool = True
    ) -> Report:
        """Make the output of the segments; they are removed then.

        Args:
            companions: What is asked for beside the output.
            stop: Ends it when set; the segments stay.
            is_final: Whether the output stays where it is. Where it is moved when all is complete,
                segments stay if what is asked for beside it cannot be completed.

        Returns:
            What was done. There is no output where it was interrupted.

        Raises:
            MHNetVideoError: The output cannot be made, or is not what it should be.
        """
        if stop.is_set():
            return self._report(None)
        with (
            JoinedReader(self._sources, self.store, self._encoding.first) as joined,
            JoinedWriter(
                self._output,
                joined,
                self.store,
                overwrite=self._config.overwrite,
                remark=companions.remark,
                **self._how(),
            ) as writer,
        ):
            for item in joined:
                if stop.is_set():
                    return self._report(None)
                writer.write(item)
            self._check_sources()
            writer.finish()
            report = self._report((joined, writer))
        companions.add(
            [record.source, *row] for record in self.store.records() for row in record.changes
        )
        try:
            report = with_companions(report, companions, is_final=is_final)
        except MHNetVideoError:
            if is_final:  # the output has its name, and nothing goes on from them
                self.store.remove()
            raise
        self.store.remove()
        return replace(report, has_drops=self._drops is not None and self._drops.sees_drops())

    @cached_property
    def _scene_scale(self) -> float:
        """The working scale of the scene with which the first source begins, by its softness."""
        from mhnet_video.restoration.frame_chain import first_scene_scale

        with VideoReader(self._sources[0]) as reader:
            frames = (item for item in reader.items() if isinstance(item, Frame))
            return first_scene_scale(frames, self._restorer.device)

    @cached_property
    def _encoding(self) -> SegmentEncoding:
        """As one run would encode them all."""
        with VideoReader(self._sources[0]) as reader:
            first = next(item for item in reader.items() if isinstance(item, Frame))
            if self._config.compare:
                first = beside(first, first)
            return SegmentEncoding(self._output, reader, first, **self._how())

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
        progress: SegmentProgress,
        stop: threading.Event,
    ) -> None:
        """Make one segment, with as long a lead-in as it needs."""
        planned, encoding = self._plan.segments[index], self._encoding
        leads = planned.leads or (None,)
        is_evident = self._config.evidence
        gpu = None if self._config.compare or is_evident else self._restorer.gpu
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
                run.watch = partial(self._watched, writer.changes if is_evident else None)
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

    def _watched(self, changes: list[list[Any]] | None, pairs: Pairs) -> Pairs:
        """Pairs, of which all is noted that the output or its evidence tells."""
        if changes is not None:
            pairs = _noted(changes, pairs)
        return pairs if self._drops is None else self._drops.watch(pairs)

    def _report(self, joined: tuple[JoinedReader, JoinedWriter] | None) -> Report:
        return report_of(
            self._sources,
            self._output,
            self._config,
            self._restorer,
            self.store,
            self._encoding,
            seconds=time.monotonic() - self._begin,
            joined=joined,
        )


def _noted(changes: list[list[Any]], pairs: Pairs) -> Pairs:
    """Note how far each frame is from the source's, as it passes."""
    with closing(pairs):
        for item in pairs:
            if isinstance(item, Pair):
                # which source it is of, the record says
                changes.append(evidence_row(0, item)[1:])
            yield item
