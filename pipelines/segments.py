"""File to file in segments, so that a run that was killed goes on where it was.

Each segment is restored by itself, with frames before and behind it, such that it is what one run
over everything would make of it. At the end the segments are joined, without encoding anything
again, with all else that the sources hold. Several sources become one output.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, MHNetVideoError
from mhnet_video.locator import is_address, shown
from mhnet_video.media.fidelity import counted
from mhnet_video.media.output_file import check_destination, locked
from mhnet_video.media.segments.segment_encoding import check_format
from mhnet_video.memory import give_back_large_blocks
from mhnet_video.pipelines.companions import Companions
from mhnet_video.pipelines.evidence import Restoration
from mhnet_video.pipelines.restore import Progress, Report, restorer_of, settings_of
from mhnet_video.pipelines.segmented_work import SegmentedWork
from mhnet_video.system import release

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer


def restore_in_segments(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    config: RestoreConfig | None = None,
    *,
    restorer: "Restorer | None" = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    home: str | os.PathLike[str] | None = None,
) -> Report:
    """Take the rain out of a video, or of several that follow one another, in segments.

    What is done so far is in the folder `.NAME.parts` beside the output. The same call goes on from
    there, however the run before ended.

    Args:
        sources: A video file, or several, of which each begins where the one before ends; all of
            one camera.
        output: File to create, its format by its name.
        config: Settings; the defaults if None.
        restorer: As for `restore_video`.
        on_progress: As for `restore_video`.
        on_message: Called with a sentence about what a run before has left.
        stop: Ends the run early when set; what is done of the current segment is given up.
        home: As for `restore_video`.

    Returns:
        What was done, kept and lost. There is no output where it was interrupted.

    Raises:
        ReadError: A source cannot be opened or decoded, or is not any more what it was.
        WriteError: The output or a segment cannot be created, encoded or written, or is not what
            it should be.
        WeightsError: The model's weights cannot be loaded.
        ConfigError: A setting does not fit, or sources cannot be joined.
    """
    begin = time.monotonic()
    config = config or RestoreConfig()
    sources = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    taken_out = ""
    if restorer is not None:
        config = settings_of(restorer, config)
        taken_out = "+".join(restorer.tasks)
    paths, target = _checked(sources, output, config)
    give_back_large_blocks()
    stop = stop or threading.Event()
    # a batch has the right to its outputs already
    alone = _only_run(target) if home is None else nullcontext()
    with alone, Companions(Restoration(sources, output, config, home, taken_out)) as companions:
        work = SegmentedWork(paths, target, config, restorer or restorer_of(config))
        work.prepare(on_message or (lambda text: None))
        try:
            work.restore(range(work.store.count), on_progress, stop)
            report = work.join(companions, stop, is_final=home is None)
            # under the name it was asked for, as without segments, be that a link
            return replace(report, destination=shown(output), seconds=time.monotonic() - begin)
        except MHNetVideoError as error:
            done = work.num_done
            if not done:
                work.store.remove_if_empty()
            if not done or work.store.name in str(error):
                raise
            kept = counted(done, "segment is", "segments are")
            raise type(error)(
                f"{error} {kept} kept in {work.store.name}: the same command goes on from there."
            ) from error


@contextmanager
def _only_run(target: Path) -> Iterator[None]:
    """Have the right to make an output, which no other run has meanwhile.

    Raises:
        WriteError: Another one has it, or the folder cannot be written.
    """
    lock = locked(target, taken="is made by another run now; wait for it to end")
    try:
        yield
    finally:
        release(lock)


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
    for source in sources:
        check_destination(output, source=source, overwrite=config.overwrite)
    check_format(Path(output))
    # where a link points to, as the output itself
    return [Path(source) for source in sources], Path(os.path.realpath(output))
