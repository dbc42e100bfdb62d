"""File to file: decode, restore and encode, each on a thread of its own."""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, MHNetVideoError
from mhnet_video.frame import Frame, Pair
from mhnet_video.locator import shown
from mhnet_video.media.decoder import Item, Packet
from mhnet_video.media.fidelity import Loss, counted, lines_of
from mhnet_video.media.hwaccel import takes_surfaces
from mhnet_video.media.image_sequence import FolderReader, FolderWriter
from mhnet_video.media.output_file import check_destination
from mhnet_video.media.pixel_formats import beside
from mhnet_video.media.prefetch import Prefetcher
from mhnet_video.media.reader import VideoReader, size_in_bytes
from mhnet_video.media.writer import VideoWriter

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer


_Reader = VideoReader | FolderReader
_Writer = VideoWriter | FolderWriter

_MAX_WAITING = 16
_MAX_WAITING_BYTES = 48 << 20
# glibc's names of options, from which size on blocks are the system's own, and how much of what is
# free of smaller ones is kept: pictures come and go, and fresh memory costs a fault a page
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1
_LARGE_BLOCK_BYTES = 8 << 20
_KEPT_BYTES = 64 << 20
# how often a stop is looked for and progress told, in seconds
_TICK_SECONDS = 0.1
# how long an error, and a person in a hurry, wait for the threads to end, in seconds
_PATIENCE_SECONDS = 30.0
_HURRY_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come."""

    frames: int
    """Frames written."""
    total: int | None
    """Frames there will be, an estimate; None where the source does not tell."""
    seconds: float
    """Time since the run began, in seconds."""
    position_seconds: float
    """Time in the clip of the last frame written, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run has done, for a person and (`to_dict`) for a program."""

    source: str
    """What was read, as a person may see it: of an address without what is secret."""
    destination: str
    frames: int
    """Frames written."""
    seconds: float
    """Duration of the run, in seconds."""
    model: str
    device: str
    scale: float
    """Working scale of the network, above 0 to 1."""
    encoder: str
    pixel_format: str
    """Of the output, as FFmpeg names it."""
    kept: tuple[str, ...]
    """What else of the source is in the output, a line each."""
    losses: tuple[Loss, ...]
    """What of the source is not in the output, or not as it was."""
    damaged: int
    """Packets and frames that could not be decoded."""
    interrupted: bool
    """Whether the run was ended before the end of the source."""

    @property
    def lost(self) -> tuple[str, ...]:
        """The losses in a person's words, a line for those of one kind and reason."""
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
) -> Report:
    """Take the rain out of a video; everything else about the file stays as it is.

    Args:
        source: Any video file FFmpeg can decode, a picture, or a folder of pictures, of which
            those that show one scene are restored as frames of a clip; `-` for standard input.
        destination: File to create, its container by its name, or, of a folder, a folder for
            pictures of the same names; `-` for Matroska on standard output.
        config: Settings; the defaults if None.
        on_progress: Called now and then on the caller's thread, and once at the end.
        stop: Ends the run early when set: the file is finished up to the last restored frame,
            and there is none if there was no frame yet.
        restorer: One to use instead of the one that the settings describe.

    Returns:
        What was done, kept and lost.

    Raises:
        ReadError: The source cannot be opened or decoded.
        WriteError: The destination cannot be created, encoded or written.
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit this source or this machine.
    """
    config = config or RestoreConfig()
    _give_back_large_blocks()
    run = _Run(source, destination, config, stop or threading.Event(), on_progress)
    how: dict[str, Any] = {
        "encoder": config.encoder,
        "crf": config.crf,
        "preset": config.preset,
        "options": config.encoder_options,
        "overwrite": config.overwrite,
    }
    if os.path.isdir(source):
        if config.start is not None or config.duration is not None:
            raise ConfigError("pictures of a folder have no times; leave out start and duration.")
        with (
            closing(FolderReader(source)) as pictures,
            FolderWriter(destination, pictures, **how) as folder,
        ):
            return run.through(pictures, restorer or _restorer_of(config), folder)
    check_destination(destination, source=source, overwrite=config.overwrite)
    with (
        VideoReader(source, start=config.start, duration=config.duration) as reader,
        VideoWriter(destination, reader, **how) as writer,
    ):
        restorer = restorer or _restorer_of(config)
        stays_on_gpu = False
        if restorer.gpu is not None and not config.compare:
            # decoded where they are restored, and encoded there, as far as can be
            reader.decode_on_gpu(restorer.gpu)
            stays_on_gpu = takes_surfaces(writer.encoder)
        return run.through(reader, restorer, writer, stays_on_gpu=stays_on_gpu)


def _give_back_large_blocks() -> None:
    """Have the system take large blocks of memory back as soon as they are free.

    glibc keeps blocks of up to 32 MB once it has seen one freed, each thread for itself: at
    1920x1080 that is half a gigabyte that nobody uses.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _restorer_of(config: RestoreConfig) -> "Restorer":
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


class _Run:
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

    def through(
        self,
        reader: _Reader,
        restorer: "Restorer",
        writer: _Writer,
        *,
        stays_on_gpu: bool = False,
    ) -> Report:
        """Run to the end, or to a graceful one when interrupted."""
        decoded = reader.ahead()
        pairs = restorer.pairs(self._until_stopped(decoded), stays_on_gpu=stays_on_gpu)
        restored = Prefetcher(
            _shown(pairs, is_compared=self._config.compare),
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
            # cancelled prefetchers end like finished ones; the writer must not take it for the end
            self._is_failed = True
            for prefetcher in (decoded, restored, written):
                prefetcher.cancel()
            # a thread in the middle of a long step is left to end by itself
            is_hurried = isinstance(error, KeyboardInterrupt)
            patience = _HURRY_SECONDS if is_hurried else _PATIENCE_SECONDS
            partial = None
            if written.close(patience):
                partial = writer.abandon(is_quick=is_hurried)
            restored.close(patience)
            is_told = partial is None or str(partial) in str(error)
            if isinstance(error, MHNetVideoError) and not is_told:
                raise type(error)(f"{error} What was done until then is in {partial}.") from error
            raise
        if interrupt is not None:
            raise interrupt
        return self._report(reader, restorer, writer)

    def _watch(self, written: Prefetcher[float], reader: _Reader, writer: _Writer) -> bool:
        """Report progress until something happens; False when all is written."""
        position = 0.0
        told = 0.0
        while True:
            try:
                news = written.poll(_TICK_SECONDS)
            except StopIteration:
                # now it is known how many there were
                self._tell(writer, position, writer.frames)
                return False
            now = time.monotonic()
            if news is not None:
                position = news[0]
                if now - told >= _TICK_SECONDS:
                    told = now
                    self._tell(writer, position, reader.num_frames)

    def _tell(self, writer: _Writer, position: float, total: int | None) -> None:
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
        """The decoded items until a stop is asked for, also while none comes."""
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
        """Write all items and finish the file; the time of each frame as it is written."""
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
        losses = list(writer.notes.losses)
        if passed := restorer.passed_through:
            frames = counted(passed, "frame is as it was", "frames are as they were")
            losses.append(Loss(kind="frames", what=frames, why="the network gave no numbers"))
        size = reader.size
        for box in self._config.keep:
            if box[0] >= size[0] or box[1] >= size[1]:
                label = ",".join(map(str, box))
                why = f"it lies outside the picture of {size[0]}x{size[1]}"
                losses.append(Loss(kind="setting", what=f"the box {label}", why=why))
        return Report(
            source=shown(self._source),
            destination=shown(self._destination),
            frames=writer.frames,
            seconds=time.monotonic() - self._begin,
            model=restorer.name,
            device=str(restorer.device),
            scale=restorer.scale_at(size[1], size[0]),
            encoder=writer.encoder,
            pixel_format=writer.pixel_format,
            kept=tuple(writer.notes.kept),
            losses=tuple(losses),
            damaged=reader.damaged,
            interrupted=self._is_interrupted,
        )


def _shown(items: Generator[Pair | Packet], *, is_compared: bool) -> Iterator[Item]:
    """The restored frames; with those before at their left where they are compared."""
    with closing(items):  # its threads end where they ran
        for item in items:
            if not isinstance(item, Pair):
                yield item
            else:
                yield beside(*item) if is_compared else item.restored
