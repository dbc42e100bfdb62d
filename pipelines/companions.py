"""The files that are asked for beside an output: positions, and evidence."""

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

from mhnet_video.closing import Closing
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError
from mhnet_video.frame import Pair
from mhnet_video.media.fidelity import Loss
from mhnet_video.media.location.gpx import check_gpx, save_gpx, track_path
from mhnet_video.media.output_file import check_destination
from mhnet_video.pipelines.evidence import EvidenceWriter, Restoration, evidence_path, remark_of

T = TypeVar("T")


def companion_paths(destination: Path, config: RestoreConfig) -> list[Path]:
    """Where the files are to be that are asked for beside an output.

    Args:
        destination: The output.
        config: The settings.
    """
    paths = [track_path(destination)] if config.gpx else []
    return [*paths, evidence_path(destination)] if config.evidence else paths


class Companions(Closing):
    """What settings ask for beside an output; what can be checked is, before any work.

    Args:
        restoration: What is restored, and how.

    Raises:
        ConfigError: The source or the output is not of a kind that has such files.
        WriteError: One of them exists, or cannot be created.
        MHNetVideoError: The extra `gpx` is not installed.
    """

    def __init__(self, restoration: Restoration) -> None:
        sources, config = restoration.sources, restoration.config
        self._sources, self._config = sources, config
        self._restoration = restoration
        self._gpx: Path | None = None
        self._evidence: EvidenceWriter | None = None
        if config.gpx:
            if not restoration.is_of_files:
                raise ConfigError("positions go from a file to one beside another; leave gpx out.")
            check_gpx()
            self._gpx = track_path(restoration.destination)
            for source in sources:
                check_destination(self._gpx, source=source, overwrite=config.overwrite)
        if config.evidence:
            self._evidence = EvidenceWriter(restoration)

    @property
    def remark(self) -> str:
        """What the output's comment says besides what the source's says; empty for nothing."""
        if self._evidence is None:
            return ""
        return remark_of(self._restoration.task)

    def watch(self, pairs: Generator[Pair | T]) -> Generator[Pair | T]:
        """Take note of the pairs on their way, where that is asked for.

        Args:
            pairs: Frames as they were and restored, and anything else.
        """
        return pairs if self._evidence is None else self._evidence.watch(pairs)

    def add(self, rows: Iterable[list[Any]]) -> None:
        """Take rows of evidence of frames that passed in other runs, where it is asked for.

        Args:
            rows: As `pipelines.evidence.evidence_row` makes them.
        """
        if self._evidence is not None:
            self._evidence.add(rows)

    def complete(self, told: dict[str, Any]) -> tuple[dict[str, str], list[Loss]]:
        """Write the files, once the output has its name.

        Args:
            told: What the run tells of itself; `model` is the name or file of the weights.

        Returns:
            What was written and where it is, and what could not be.

        Raises:
            ReadError: The source cannot be read again, or was changed meanwhile.
            WriteError: The disk refuses.
        """
        config, losses = self._config, []
        files: dict[str, str] = {}
        if self._gpx is not None:
            if save_gpx(self._sources, self._gpx, overwrite=config.overwrite):
                is_part = config.start is not None or config.duration is not None
                files["positions of the whole source" if is_part else "positions"] = str(self._gpx)
            else:
                what = "a track of positions"
                losses.append(Loss(kind="positions", what=what, why="none can be read"))
        if self._evidence is not None:
            files["evidence"] = str(self._evidence.complete(told))
        return files, losses

    def close(self) -> None:
        """Leave no evidence of a run that was not completed."""
        if self._evidence is not None:
            self._evidence.close()
