"""File to file: decode, restore and encode, each on a thread of its own."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from mhnet_video.config import RestoreConfig
from mhnet_video.frame import Frame
from mhnet_video.reader import Item, VideoReader, size_in_bytes
from mhnet_video.stage import Stage
from mhnet_video.writer import VideoWriter

if TYPE_CHECKING:
    from mhnet_video.restorer import Restorer


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
    destination: str
    frames: int
    """Frames written."""
    seconds: float
    """Duration of the run, in seconds."""
    model: str
    device: str
    encoder: str
    pixel_format: str
    """Of the output, as FFmpeg names it."""
    kept: tuple[str, ...]
    """What else of the source is in the output, a line each."""
    lost: tuple[str, ...]
    """What of the source is not in the output, or not as it was, a line each."""
    damaged: int
    """Packets and frames that could not be decoded."""
    interrupted: bool
    """Whether the run was ended before the end of the source."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


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
        source: Any video file FFmpeg can decode, or a picture; `-` for standard input.
        destination: File to create, its container by its name; `-` for Matroska on standard
            output.
        config: Settings; the defaults if None.
        on_progress: Called now and then on the caller's thread, and once at the end.
        stop: Ends the run early when set: the file is finished up to the last restored frame.
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
    stop = stop or threading.Event()
    begin = time.monotonic()
    reader = VideoReader(source, start=config.start, duration=config.duration)
    writer = VideoWriter(
        destination,
        reader,
        encoder=config.encoder,
        crf=config.crf,
        preset=config.preset,
        options=config.encoder_options,
        overwrite=config.overwrite,
    )
    if restorer is None:
        from mhnet_video.restorer import Restorer

        restorer = Restorer(
            config.model,
            weights=config.weights,
            device=config.device,
            strength=config.strength,
            keep=config.keep,
        )
    restored = Stage(
        restorer.stream(_until(stop, reader)),
        name="mhnet-video restorer",
        max_items=16,
        max_size=48 << 20,
        size_of=size_in_bytes,
    )
    written = Stage(_write(restored, writer), name="mhnet-video writer", max_items=1 << 30)
    position = 0.0
    with reader, writer, restored, written:
        for position in written:
            if on_progress is not None:
                on_progress(
                    Progress(
                        frames=writer.frames,
                        total=reader.num_frames,
                        seconds=time.monotonic() - begin,
                        position_seconds=position,
                    )
                )
    return Report(
        source=os.fspath(source),
        destination=os.fspath(destination),
        frames=writer.frames,
        seconds=time.monotonic() - begin,
        model=getattr(restorer, "name", ""),
        device=str(getattr(restorer, "device", "cpu")),
        encoder=writer.encoder,
        pixel_format=writer.pixel_format,
        kept=tuple(writer.kept),
        lost=tuple(writer.lost),
        damaged=reader.damaged,
        interrupted=stop.is_set(),
    )


def _until(stop: threading.Event, items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        if stop.is_set():
            break
        yield item


def _write(items: Iterable[Item], writer: VideoWriter) -> Iterator[float]:
    for item in items:
        writer.write(item)
        if isinstance(item, Frame):
            yield float(item.pts * item.time_base)
    writer.finish()
