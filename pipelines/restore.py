"""Restoration from file to file: decode, restore and encode, each on a thread of its own.

PyTorch loads with the restorer, not with this module: a source that is not there is reported a
second sooner, and the time of a run counts all that the user waits for.
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, MHNetVideoError
from mhnet_video.frame import Frame, Pair
from mhnet_video.locator import shown
from mhnet_video.media.encoders.encoder_surfaces import takes_surfaces
from mhnet_video.media.fidelity import Loss, counted, lines_of
from mhnet_video.media.frames.frame_geometry import beside
from mhnet_video.media.image_sequence import FolderReader, FolderWriter
from mhnet_video.media.output_file import check_destination
from mhnet_video.media.prefetch import Prefetcher
from mhnet_video.media.reading.decoder import Item
from mhnet_video.media.reading.reader import VideoReader, size_in_bytes
from mhnet_video.media.reading.source import Packet
from mhnet_video.media.segments.segment_reader import SegmentReader
from mhnet_video.media.segments.segment_writer import SegmentWriter
from mhnet_video.media.writing.writer import VideoWriter
from mhnet_video.memory import give_back_large_blocks
from mhnet_video.pipelines.companions import Companions
from mhnet_video.pipelines.evidence import Restoration

if TYPE_CHECKING:
    from mhnet_video.restoration.drop_watch import DropWatch
    from mhnet_video.restoration.restorer import Restorer
    from mhnet_video.restoration.working_scale import WorkingScale


_Reader = VideoReader | FolderReader | SegmentReader
_Writer = VideoWriter | FolderWriter | SegmentWriter
Pairs = Generator[Pair | Packet]
"""What a restorer gives."""

_EVIDENT = (
    "model",
    "device",
    "scale",
    "scales",
    "dry",
    "encoder",
    "pixel_format",
    "damaged",
    "interrupted",
)
"""What of a report is evidence."""

_MAX_WAITING = 16
"""Most restored frames that wait for the writer."""
_MAX_WAITING_BYTES = 48 << 20
"""Most bytes of restored frames that wait for the writer."""
_TICK_SECONDS = 0.1
"""Seconds between checks for a stop, and between reports of progress."""
_PATIENCE_SECONDS = 30.0
"""Seconds to wait for the threads to end after an error."""
_HURRY_SECONDS = 1.0
"""Seconds to wait for the threads to end after a second interrupt."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run."""

    frames: int
    """Frames written."""
    total: int | None
    """Estimated frames of the whole run; None if the source does not state their number."""
    seconds: float
    """Time since the run began, in seconds."""
    position_seconds: float
    """Time of the last written frame in the clip, in seconds."""


@dataclass(frozen=True, kw_only=True)
class ScaleShare:
    """A working scale of the network, and how much of a clip was restored at it."""

    scale: float
    """Above 0 to 1; of small pictures with motion blur up to 1.75."""
    share: float
    """Share of the frames, 0 to 1."""
    reason: str
    """Why this scale, for people."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of a run."""

    source: str
    """The source; secrets of an address are hidden."""
    destination: str
    frames: int
    """Frames written."""
    seconds: float
    """Duration of the call, in seconds. Loading PyTorch, the weights and the engine is part of it,
    as it is of the user's wait."""
    model: str
    device: str
    """PyTorch's name of it; of several, names with commas between."""
    scale: float
    """Working scale of the network for most frames, see `ScaleShare`."""
    encoder: str
    pixel_format: str
    """Pixel format of the output, by FFmpeg's name."""
    kept: tuple[str, ...]
    """Other content of the source that the output has, a line each."""
    losses: tuple[Loss, ...]
    """Content of the source that the output lacks or has changed."""
    damaged: int
    """Packets and frames that could not be decoded."""
    interrupted: bool
    """Whether the run was ended before the end of the source."""
    files: dict[str, str] = field(default_factory=dict)
    """Other files that were written: what is in them, and where they are."""
    has_drops: bool = False
    """Whether drops stand on the glass before the camera, which the task `raindrop` takes out, and
    `derain` has left."""
    parts: str = ""
    """Where the segments wait of an output that is not complete; empty where there are none."""
    scales: tuple["ScaleShare", ...] = ()
    """All working scales, that of most frames first."""
    dry: int = 0
    """Frames that passed as they are: a cheap look showed nothing to take out."""

    @property
    def lost(self) -> tuple[str, ...]:
        """The losses as sentences, one for those of the same kind and reason."""
        return tuple(lines_of(self.losses))

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, and `lost`."""
        return asdict(self) | {"lost": self.lost}


def restore_video(
    source: str | PathLike[str],
    destination: str | PathLike[str],
    config: RestoreConfig | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    restorer: "Restorer | None" = None,
    home: str | PathLike[str] | None = None,
) -> Report:
    """Remove the rain from a video, and keep everything else about the file.

    Args:
        source: A video file that FFmpeg can decode, a picture, or a folder of pictures; `-` for
            standard input. Pictures of one scene are restored as frames of a clip.
        destination: File to create, with the container of its suffix; `-` for Matroska on
            standard output. For a folder of pictures, a folder for pictures of the same names.
        config: Settings; None for the defaults.
        on_progress: Called on the caller's thread at most every 0.1 seconds, and at the end.
        stop: Ends the run early when set. The file is completed up to the last restored frame;
            before the first one no file is created.
        restorer: A restorer to use instead of that of the settings, with its own strength, scale
            and boxes.
        home: Where the output will be moved to; evidence names that place. None for nowhere.

    Returns:
        Frames written, content kept, and losses.

    Raises:
        ReadError: The source cannot be opened or decoded.
        WriteError: The destination cannot be created, encoded or written.
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit this source or this machine.
    """
    config = config or RestoreConfig()
    taken_out = ""
    if restorer is not None:
        config = settings_of(restorer, config)
        taken_out = "+".join(restorer.tasks)
    give_back_large_blocks()
    run = Run(source, destination, config, stop or threading.Event(), on_progress)
    open_writer = partial(
        VideoWriter,
        encoder=config.encoder,
        crf=config.crf,
        preset=config.preset,
        options=config.encoder_options,
        overwrite=config.overwrite,
    )
    if os.path.isdir(source):
        if config.start is not None or config.duration is not None:
            raise ConfigError("pictures of a folder have no times; leave out start and duration.")
        if config.gpx or config.evidence:
            raise ConfigError("a folder has no positions and no evidence; leave these out.")
        with (
            closing(FolderReader(source)) as pictures,
            FolderWriter(destination, pictures, open_writer, overwrite=config.overwrite) as folder,
        ):
            return run.through(pictures, restorer or restorer_of(config), folder)
    check_destination(destination, source=source, overwrite=config.overwrite)
    with (
        Companions(Restoration([source], destination, config, home, taken_out)) as companions,
        VideoReader(source, start=config.start, duration=config.duration) as reader,
        open_writer(destination, reader, remark=companions.remark) as writer,
    ):
        restorer = restorer or restorer_of(config)
        stays_on_gpu = False
        if restorer.gpu is not None and not (config.compare or config.evidence):
            # decoded and encoded on the GPU that restores, where it can
            reader.decode_on_gpu(restorer.gpu)
            stays_on_gpu = takes_surfaces(writer.encoder)
        drops = drop_watch_of(restorer)
        run.watch = companions.watch
        if drops is not None:
            run.watch = lambda pairs: drops.watch(companions.watch(pairs))
        report = run.through(reader, restorer, writer, stays_on_gpu=stays_on_gpu)
        if not report.frames:
            return report
        report = with_companions(report, companions, is_final=home is None)
    # the file is complete, and the memory of its decoder and encoder is free
    if drops is None or report.interrupted:
        return report
    return replace(report, has_drops=drops.sees_drops())


def with_companions(report: Report, companions: Companions, *, is_final: bool) -> Report:
    """The report of an output, once what is asked for beside it is there.

    Args:
        report: Of the output, which has its name.
        companions: What is asked for.
        is_final: Whether the output stays there, whatever becomes of the companions.

    Raises:
        ReadError: The source cannot be read again, or was changed meanwhile.
        WriteError: The disk refuses.
    """
    told = asdict(report)
    try:
        files, losses = companions.complete({key: told[key] for key in _EVIDENT})
    except MHNetVideoError as error:
        if not is_final:
            raise
        raise type(error)(f"{error} The output itself is complete.") from error
    return replace(report, files=files, losses=(*report.losses, *losses))


def losses_of_network(passed: int, config: RestoreConfig, size: tuple[int, int]) -> list[Loss]:
    """What the network could not do as it was asked.

    Args:
        passed: Frames for which it gave no numbers.
        config: The settings.
        size: Width and height of the source, in pixels.
    """
    losses = []
    if passed:
        frames = counted(passed, "frame is as it was", "frames are as they were")
        losses.append(Loss(kind="frames", what=frames, why="the network gave no numbers"))
    for box in config.keep:
        if box[0] >= size[0] or box[1] >= size[1]:
            label = ",".join(map(str, box))
            why = f"it lies outside the picture of {size[0]}x{size[1]}"
            losses.append(Loss(kind="setting", what=f"the box {label}", why=why))
    return losses


def shares_of(scales: "Mapping[WorkingScale, int]") -> tuple[ScaleShare, ...]:
    """The working scales of a clip, that of most frames first.

    Args:
        scales: Frames at each.
    """
    total = sum(scales.values())
    by_frames = sorted(scales.items(), key=lambda item: item[1], reverse=True)
    return tuple(
        ScaleShare(scale=each.scale, share=frames / total, reason=each.reason.value)
        for each, frames in by_frames
    )


def settings_of(restorer: "Restorer", config: RestoreConfig) -> RestoreConfig:
    """The settings by which a restorer restores, whatever those that are passed with it say.

    Args:
        restorer: The restorer.
        config: The settings for all else.
    """
    return replace(
        config,
        model=restorer.name,
        task="+".join(restorer.tasks),
        weights=None,
        strength=restorer.strength,
        scale=restorer.scale,
        keep=restorer.keep,
    )


def restorer_of(config: RestoreConfig) -> "Restorer":
    """The restorer that settings describe.

    Raises:
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit this machine.
    """
    from mhnet_video.restoration.restorer import Restorer

    return Restorer(
        config.model,
        task=config.task,
        weights=config.weights,
        device=config.device,
        engine=config.engine,
        strength=config.strength,
        keep=config.keep,
        scale=config.scale,
    )


def drop_watch_of(restorer: "Restorer") -> "DropWatch | None":
    """What finds out whether a restorer leaves drops on the glass; None where it takes them out."""
    from mhnet_video.restoration.drop_watch import DropWatch

    return DropWatch(restorer.free) if "derain" in restorer.tasks else None


class Run:
    """One run: three threads, watched by the caller's."""

    def __init__(
        self,
        source: str | PathLike[str],
        destination: str | PathLike[str],
        config: RestoreConfig,
        stop: threading.Event,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._source = source
        self._destination = destination
        self._config = config
        self._stop = stop
        self._on_progress = on_progress
        self._begin = time.monotonic()
        self._is_interrupted = False
        self._is_failed = False
        self.watch: Callable[[Pairs], Pairs] = lambda pairs: pairs
        """Takes note of the pairs on their way."""

    def through(
        self,
        reader: _Reader,
        restorer: "Restorer",
        writer: _Writer,
        *,
        stays_on_gpu: bool = False,
    ) -> Report:
        """Run to the end, or to a graceful one when interrupted."""
        self.work(reader, restorer, writer, stays_on_gpu=stays_on_gpu)
        return self._report(reader, restorer, writer)

    def work(
        self,
        reader: _Reader,
        restorer: "Restorer",
        writer: _Writer,
        *,
        stays_on_gpu: bool = False,
        select: Callable[[Pairs], Pairs] = lambda pairs: pairs,
    ) -> None:
        """Do all but the report.

        Args:
            reader: Gives the frames.
            restorer: Restores them.
            writer: Takes those that are wanted.
            stays_on_gpu: As for `Restorer.pairs`.
            select: Passes on the pairs that are wanted; at its end nothing more is restored.
        """
        decoded = reader.ahead()
        pairs = select(restorer.pairs(self._until_stopped(decoded), stays_on_gpu=stays_on_gpu))
        restored = Prefetcher(
            _shown(self.watch(pairs), is_compared=self._config.compare),
            name="mhnet-video restorer",
            max_items=_MAX_WAITING,
            max_size=_MAX_WAITING_BYTES,
            size_of=size_in_bytes,
        )
        written = Prefetcher(
            self._written(restored, writer), name="mhnet-video writer", max_items=1 << 30
        )
        interrupt: KeyboardInterrupt | None = None
        try:
            while True:
                try:
                    if not self._watch(written, reader, writer):
                        break
                except KeyboardInterrupt as caught:
                    # the first one finishes the file, the second one does not wait for it
                    if interrupt is not None or self._stop.is_set():
                        raise
                    interrupt = caught
                    self._stop.set()
        except BaseException as error:
            # the writer cannot tell a cancelled prefetcher from a finished one
            self._is_failed = True
            for prefetcher in (decoded, restored, written):
                prefetcher.cancel()
            # a thread in a long step is not waited for
            is_hurried = isinstance(error, KeyboardInterrupt)
            patience = _HURRY_SECONDS if is_hurried else _PATIENCE_SECONDS
            partial = None
            if written.close(patience):
                partial = writer.abandon(is_quick=is_hurried)
            restored.close(patience)
            is_named = partial is None or str(partial) in str(error)
            if isinstance(error, MHNetVideoError) and not is_named:
                raise type(error)(f"{error} What was done until then is in {partial}.") from error
            raise
        if interrupt is not None:
            raise interrupt

    def _watch(self, written: Prefetcher[float], reader: _Reader, writer: _Writer) -> bool:
        """Report progress until everything is written; returns False then."""
        position = 0.0
        reported = 0.0
        while True:
            try:
                news = written.poll(_TICK_SECONDS)
            except StopIteration:
                # the number of frames is exact now
                self._report_progress(writer, position, writer.frames)
                return False
            now = time.monotonic()
            if news is not None:
                position = news[0]
                if now - reported >= _TICK_SECONDS:
                    reported = now
                    self._report_progress(writer, position, reader.num_frames)

    def _report_progress(self, writer: _Writer, position: float, total: int | None) -> None:
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    frames=writer.frames,
                    total=total,
                    seconds=time.monotonic() - self._begin,
                    position_seconds=position,
                )
            )

    def _until_stopped(self, decoded: Prefetcher[Item]) -> Iterator[Item]:
        """The decoded items until a stop, which is also noticed while none arrives."""
        while True:
            if self._stop.is_set():
                self._is_interrupted = True
                return
            try:
                item = decoded.poll(_TICK_SECONDS)
            except StopIteration:
                return
            if item is not None:
                yield item[0]

    def _written(self, items: Iterable[Item], writer: _Writer) -> Iterator[float]:
        """Write all items and finish the file; yields each written frame's time in seconds."""
        origin: float | None = None
        for item in items:
            writer.write(item)
            if isinstance(item, Frame):
                time_seconds = float(item.pts * item.time_base)
                origin = time_seconds if origin is None else origin
                yield time_seconds - origin
        if self._is_interrupted and not writer.has_frames:
            writer.abandon()
        elif not self._is_failed:
            writer.finish()

    def _report(self, reader: _Reader, restorer: "Restorer", writer: _Writer) -> Report:
        size = reader.size
        losses = list(writer.notes.losses)
        losses += losses_of_network(restorer.passed_through, self._config, size)
        scales = shares_of(restorer.scales)
        return Report(
            source=shown(self._source),
            destination=shown(self._destination),
            frames=writer.frames,
            seconds=time.monotonic() - self._begin,
            model=restorer.name,
            device=",".join(map(str, restorer.devices)),
            scale=scales[0].scale if scales else restorer.scale_at(size[1], size[0]).scale,
            encoder=writer.encoder,
            pixel_format=writer.pixel_format,
            kept=tuple(writer.notes.kept),
            losses=tuple(losses),
            damaged=reader.damaged,
            interrupted=self._is_interrupted,
            scales=scales,
            dry=restorer.dry,
        )


def _shown(items: Generator[Pair | Packet], *, is_compared: bool) -> Iterator[Item]:
    """The restored frames, or source and restored frames side by side."""
    with closing(items):  # ends the threads of the restorer
        for item in items:
            if not isinstance(item, Pair):
                yield item
            else:
                yield beside(*item) if is_compared else item.restored
