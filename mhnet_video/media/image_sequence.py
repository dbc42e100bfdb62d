"""A folder of pictures: read as the frames of a clip, written as pictures of the same names."""

import contextlib
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Set
from dataclasses import replace
from os import PathLike
from pathlib import Path

from mhnet_video.closing import Closing
from mhnet_video.errors import ReadError, WriteError
from mhnet_video.frame import Frame
from mhnet_video.locator import shown
from mhnet_video.media.fidelity import Loss, Notes, counted
from mhnet_video.media.formats.containers import format_of, picture_encoder
from mhnet_video.media.formats.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from mhnet_video.media.output_file import check_destination, why_unwritable
from mhnet_video.media.prefetch import Prefetcher
from mhnet_video.media.reading.decoder import Item
from mhnet_video.media.reading.reader import VideoReader, decoded_ahead
from mhnet_video.media.writing.writer import VideoWriter


def files_in(folder: Path, suffixes: Set[str]) -> list[Path]:
    """The files of a folder that have one of some suffixes, 2 before 10; no hidden ones.

    Raises:
        ReadError: There is none.
    """
    # macOS keeps what belongs to 0.jpg in ._0.jpg, where the disk is not its own
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and path.name[0] != "." and path.is_file()
    ]
    if not found:
        kinds = {"pictures": suffixes & PICTURE_SUFFIXES, "videos": suffixes & VIDEO_SUFFIXES}
        said = " or ".join(f"{kind} ({', '.join(sorted(of))})" for kind, of in kinds.items() if of)
        raise ReadError(f"{folder} holds no {said}")
    return in_order(found)


def in_order(paths: list[Path]) -> list[Path]:
    """Paths by their names, 2 before 10."""
    return sorted(
        paths,
        key=lambda path: [
            (part.isdecimal(), int(part) if part.isdecimal() else 0, part)
            for part in re.split(r"(\d+)", path.name)
        ],
    )


def still_of(reader: VideoReader) -> Frame:
    """The picture of a file, marked as a file of its own.

    Raises:
        ReadError: There is none, or there are more.
    """
    if not reader.is_picture:
        raise ReadError(f"{reader.name} is a video, not a picture.")
    frame = next(item for item in reader if isinstance(item, Frame))
    return replace(frame, is_still=True)


class FolderReader:
    """The pictures of a folder in the order of their names, as frames.

    Those that show one scene are frames of a clip to whoever restores them, and the others are
    on their own (`restoration.scene_changes` tells them apart). A picture that cannot be read is
    skipped and counted.

    Args:
        folder: The pictures are in it, not in folders of it.

    Raises:
        ReadError: There is no picture in it.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.name = os.fspath(folder)
        try:
            self.paths = files_in(Path(folder), PICTURE_SUFFIXES)
        except ReadError:
            raise ReadError(
                f"{self.name} is a folder without pictures; name a video or a folder of frames."
            ) from None
        self.losses: list[Loss] = []
        """What of the folder is not restored."""
        if others := _count_others(Path(folder), self.paths):
            what = counted(others, "file or folder", "files and folders")
            self.losses.append(Loss(kind="file", what=f"{what} beside the pictures"))
        self.damaged = 0
        """Pictures that could not be read so far."""
        self.size = (0, 0)
        """Width and height of the first picture, once it is read."""
        self.opened: deque[tuple[Path, VideoReader]] = deque()
        """The files of the frames that came out, in their order; whoever takes one closes it."""
        self._prefetcher: Prefetcher[Item] | None = None

    def _lose(self, path: Path, why: str) -> None:
        self.losses.append(Loss(kind="damage", what=path.name, why=why, where=path.name))

    @property
    def num_frames(self) -> int:
        """Pictures there will be, as far as is known."""
        return len(self.paths) - self.damaged

    def ahead(self) -> Prefetcher[Item]:
        """The frames, decoded ahead; the same prefetcher each time it is asked for."""
        if self._prefetcher is None:
            self._prefetcher = decoded_ahead(self._frames())
        return self._prefetcher

    def _frames(self) -> Iterator[Frame]:
        why = ""
        for path in self.paths:
            try:
                reader = VideoReader(path)
                try:
                    frame = still_of(reader)
                except BaseException:
                    reader.close()
                    raise
            except ReadError as error:
                why = why or str(error)
                self.damaged += 1
                self._lose(path, _reason_of(error, path))
                continue
            if self.size == (0, 0):
                self.size = frame.upright_size
            if reader.damaged:
                self._lose(path, "a part of it cannot be read")
            self.opened.append((path, reader))
            yield frame
        if self.damaged == len(self.paths):
            raise ReadError(f"none of the pictures in {self.name} can be read: {why}")

    def close(self) -> None:
        """End the thread and close the files."""
        if self._prefetcher is not None:
            self._prefetcher.close(timeout_seconds=5)
        while self.opened:
            self.opened.popleft()[1].close()


def _reason_of(error: ReadError, path: Path) -> str:
    """What an error says of a picture, as a part of a sentence without its name."""
    said = str(error).removeprefix(shown(path))
    return "it cannot be read" if said == str(error) else f"it{said.rstrip('.')}"


def _is_a_files_name(name: str) -> bool:
    """Whether a name ends as those of videos or pictures do."""
    with contextlib.suppress(WriteError):
        format_of(name)
        return True
    return picture_encoder(name) is not None


def written_name(path: Path) -> str:
    """The name of a picture's output: its own, or that of a PNG where its kind is only read."""
    return path.name if picture_encoder(path.name) else f"{path.stem}.png"


def _count_others(folder: Path, pictures: list[Path]) -> int:
    """What else is in a folder, but for what is hidden."""
    seen = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return len(set(seen) - set(pictures))


class FolderWriter(Closing):
    """A folder with the same pictures, restored: each appears when it is complete.

    Args:
        folder: Where to; it is made if there is none.
        reader: Where the frames come from, for what they do not carry and for their names.
        open_writer: Opens a file for one picture.
        overwrite: Whether existing pictures may be replaced.

    Raises:
        WriteError: A picture cannot be created, exists, or is of a kind that is not written.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        reader: FolderReader,
        open_writer: Callable[[Path, VideoReader], VideoWriter],
        *,
        overwrite: bool = False,
    ) -> None:
        self._folder, self._reader = Path(folder), reader
        self._open_writer = open_writer
        self.frames = 0
        """Pictures written."""
        self.notes = Notes()
        """The report, complete at the end."""
        self._kept: Counter[str] = Counter()
        self._lost: Counter[Loss] = Counter()
        self._encoders: Counter[str] = Counter()
        self._pixel_formats: Counter[str] = Counter()
        self._check(overwrite)
        self._is_new = not self._folder.exists()
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise WriteError(f"{folder} cannot be made: {why_unwritable(error)}.") from error

    def _check(self, overwrite: bool) -> None:
        """Find out what can be found out before any work is done."""
        name, source = os.fspath(self._folder), self._reader.name
        if name == "-":
            raise WriteError(f"{source} is a folder; name a folder to create, not a pipe.")
        if self._folder.exists() and not self._folder.is_dir():
            raise WriteError(f"{name} is a file, but {source} a folder; name a folder to create.")
        if not self._folder.exists():
            check_destination(self._folder)
            if _is_a_files_name(name):
                raise WriteError(f"{name} is a file's name, but {source} a folder; name a folder.")
        elif os.path.samefile(self._folder, source):
            raise WriteError(f"{name} is the input itself; name another output.")
        names = Counter(written_name(path) for path in self._reader.paths)
        for path in self._reader.paths:
            place = self._folder / written_name(path)
            if names[place.name] > 1:
                raise WriteError(
                    f"two pictures of {source} would both become {place.name}; rename one of them."
                )
            if not overwrite and place.exists():
                raise WriteError(
                    f"{place} exists already; name another folder, or add --overwrite."
                )

    @property
    def encoder(self) -> str:
        """FFmpeg's names of the encoders that were needed."""
        return ", ".join(self._encoders)

    @property
    def pixel_format(self) -> str:
        """FFmpeg's names of the outputs' pixel formats."""
        return ", ".join(self._pixel_formats)

    @property
    def has_frames(self) -> bool:
        """Whether a frame was passed to it."""
        return self.frames > 0

    def write(self, item: Item) -> None:
        """Write the next picture, complete.

        Raises:
            WriteError: The disk refuses.
        """
        path, reader = self._reader.opened.popleft()
        try:
            name = written_name(path)
            with self._open_writer(self._folder / name, reader) as writer:
                writer.write(item)
                writer.finish()
            if name != path.name:
                what = path.suffix.lstrip(".").upper()
                self._lost[Loss(kind="format", what=what, why="read only, written as PNG")] += 1
        finally:
            reader.close()
        self.frames += 1
        self._kept.update(writer.notes.kept)
        self._lost.update(writer.notes.losses)
        self._encoders[writer.encoder] += 1
        self._pixel_formats[writer.pixel_format] += 1

    def finish(self) -> None:
        """Complete the notes.

        Raises:
            WriteError: There was no picture.
        """
        if not self.frames:
            raise WriteError(f"there is no picture to write to {self._folder}.")
        self.notes.kept += [line + self._share(count) for line, count in self._kept.items()]
        for loss, count in self._lost.items():
            self.notes.losses.append(replace(loss, what=loss.what + self._share(count)))
        self.notes.losses += self._reader.losses

    def _share(self, count: int) -> str:
        return "" if count == self.frames else f" ({counted(count, 'picture')})"

    def abandon(self, *, is_quick: bool = False) -> Path | None:
        """End without finishing; the pictures that are complete stay.

        Args:
            is_quick: Nothing is left to do in any case.

        Returns:
            The folder, None if nothing is in it.
        """
        if self.frames:
            return self._folder
        if self._is_new:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
        return None

    def close(self) -> None:
        """Leave what is complete."""
        self.abandon()
