"""PSNR, SSIM and flicker of pictures and clips against clean references, rainy and restored."""

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from mhnet_video.color_spaces import MATRIX_NUMBERS
from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.locator import learn
from mhnet_video.media.contact_sheet import check_sheet, save_pictures
from mhnet_video.media.frames.pixel_formats import picture_of
from mhnet_video.media.image_sequence import PICTURE_SUFFIXES, files_in, in_order, still_of
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.pipelines.restore import Progress
from mhnet_video.tasks import DEFAULT
from mhnet_video.training.metrics import Image, Scores, flicker, luma, mean_scores, score

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

CLIP_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".ts", ".mts"}
"""Suffixes of files in a folder that count as clips, lower case."""
FILE_SUFFIXES = PICTURE_SUFFIXES | CLIP_SUFFIXES
"""Suffixes of files in a folder that are evaluated, lower case."""


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """Metrics of one picture or frame, or means over several."""

    name: str
    """The file's name, a frame's time in seconds, or `mean`."""
    rainy: Scores
    """The rainy picture against the clean one."""
    restored: Scores | None
    """The restored picture against the clean one; None without a restorer."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of all pictures or clips."""

    rows: tuple[ScoreRow, ...]
    mean: ScoreRow
    """Means of the rows; infinite PSNR is left out, see `mean_scores`."""
    equal: int
    """Number of results that are equal to the clean ones: restored, or rainy without a restorer."""
    model: str | None
    """Name of the model; None without a restorer."""
    device: str | None
    """Device of the model; None without a restorer."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; an infinite PSNR, of equal pictures, is None."""
        found: dict[str, Any] = asdict(self)
        for row in [*found["rows"], found["mean"]]:
            for scores in (row["rainy"], row["restored"] or {}):
                scores.update({k: None for k, v in scores.items() if v == math.inf})
        return found


def evaluate(
    rainy: str | PathLike[str],
    clean: str | PathLike[str],
    *,
    model: str | None = None,
    task: str | None = None,
    weights: str | PathLike[str] | None = None,
    device: str = "auto",
    engine: str = "auto",
    scale: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    sheet: str | PathLike[str] | None = None,
    overwrite: bool = False,
    restorer: "Restorer | None" = None,
) -> Evaluation:
    """Compute PSNR and SSIM on Y and on RGB, and the flicker of clips.

    Pictures of a folder that show one scene are restored as the frames of a clip, as in
    `restore_video`.

    Args:
        rainy: A picture, a clip, a folder of these, or a folder of such folders.
        clean: The same without rain, with as many pictures or frames of the same sizes.
        model: Name of the model; None, without task and weights, to evaluate only the rainy
            pictures.
        task: What to remove, one of `tasks.TASKS`; without a model, its defaults are used.
        weights: A weights file to use instead of a model's.
        device: `auto`, `cpu`, `cuda`, `cuda:<index>` or `mps`.
        engine: Engine of the network: `auto`, `torch`, `llvm` or `triton`.
        scale: Working scale of the network, above 0 to 1; None chooses by the picture's size.
        on_progress: Called after each row.
        sheet: PNG file for a contact sheet of some pictures: rainy, restored and clean.
        overwrite: Whether to replace an existing sheet.
        restorer: A restorer to use instead of `model` and the settings after it.

    Returns:
        A row for each picture or frame; for a folder of clips or folders, one for each of them.

    Raises:
        ReadError: A picture cannot be read, or has no clean reference of its size.
        WeightsError: The model's weights cannot be loaded.
        WriteError: The contact sheet cannot be written, or exists.
    """
    learn(rainy, clean)
    pairs = _pairs(Path(rainy), Path(clean))
    if sheet is not None:
        check_sheet(sheet, [path for pair in pairs for path in pair], overwrite=overwrite)
    if restorer is None and (model or task or weights):
        from mhnet_video.restoration.restorer import Restorer

        restorer = Restorer(
            model or "auto",
            task=task or DEFAULT,
            weights=weights,
            device=device,
            engine=engine,
            scale=scale,
        )
    begin = time.monotonic()
    rows: list[ScoreRow] = []
    shown = _Sheet()
    is_one_file = len(pairs) == 1 and not pairs[0][0].is_dir()
    found = _rows(*pairs[0], restorer) if is_one_file else _of_files(pairs, restorer)
    for row, label, total, pictures in found:
        if sheet is not None:
            shown.add(label, pictures)
        rows.append(row)
        if on_progress is not None:
            on_progress(
                Progress(
                    frames=len(rows),
                    total=total,
                    seconds=time.monotonic() - begin,
                    position_seconds=0.0,
                )
            )
    if sheet is not None:
        save_pictures(shown.rows, sheet)
    return Evaluation(
        rows=tuple(rows),
        mean=_mean("mean", rows),
        equal=sum((row.restored or row.rainy).psnr_rgb == math.inf for row in rows),
        model=None if restorer is None else restorer.name,
        device=None if restorer is None else str(restorer.device),
    )


def _pairs(rainy: Path, clean: Path) -> list[tuple[Path, Path]]:
    """Pair each rainy file with its clean reference: by name, or in order if no name matches.

    Raises:
        ReadError: A file is missing, or has no reference.
    """
    for path in (rainy, clean):
        if not path.exists():
            raise ReadError(f"there is no {path}; name two pictures, clips or folders of them")
    if rainy.is_dir() != clean.is_dir():
        raise ReadError(f"{rainy} and {clean} must both be folders, or both be files")
    if rainy.is_file():
        return [(rainy, clean)]
    rainy_paths, clean_paths = _entries(rainy), _entries(clean)
    by_stem = {path.stem: path for path in clean_paths}
    matched = [path for path in rainy_paths if path.stem in by_stem]
    if matched == rainy_paths:
        return [(path, by_stem[path.stem]) for path in rainy_paths]
    if not matched and len(rainy_paths) == len(clean_paths):
        return list(zip(rainy_paths, clean_paths, strict=True))
    unmatched = next(path for path in rainy_paths if path.stem not in by_stem)
    raise ReadError(f"{unmatched} has no twin of its name in {clean}; name both alike")


def _entries(folder: Path) -> list[Path]:
    """The pictures and clips of a folder, or its folders if it has none.

    Raises:
        ReadError: The folder has neither.
    """
    entries = list(folder.iterdir())
    folders = [path for path in entries if path.is_dir() and path.name[0] != "."]
    if folders and not any(path.suffix.lower() in FILE_SUFFIXES for path in entries):
        return in_order(folders)
    return files_in(folder, FILE_SUFFIXES)


class _Sheet:
    """Keeps 5 to 8 pictures of any number, evenly spread."""

    def __init__(self) -> None:
        self.rows: list[list[tuple[str, Image]]] = []
        self._count, self._every = 0, 1

    def add(self, name: str, pictures: dict[str, Image]) -> None:
        if self._count % self._every == 0:
            self.rows.append([(f"{label} {name}", each) for label, each in pictures.items()])
        self._count += 1
        if len(self.rows) > 8:
            self.rows, self._every = self.rows[::2], 2 * self._every


class _Evaluated(NamedTuple):
    """The result of a picture or a clip."""

    row: ScoreRow
    label: str
    """Label on a contact sheet."""
    total: int | None
    """Number of results to expect; None if unknown."""
    pictures: dict[str, Image]
    """Rainy, restored and clean picture by label; those of a clip's middle frame."""


def _of_files(pairs: list[tuple[Path, Path]], restorer: "Restorer | None") -> Iterator[_Evaluated]:
    """Evaluate several files."""
    index = 0
    for are_pictures, group in itertools.groupby(pairs, key=_are_pictures):
        if are_pictures:
            for row, pictures in _of_pictures(group, restorer):
                index += 1
                yield _Evaluated(row, str(index), len(pairs), pictures)
            continue
        for pair in group:
            index += 1
            yield _of_clip(index, *pair, len(pairs), restorer)


def _are_pictures(pair: tuple[Path, Path]) -> bool:
    return all(path.suffix.lower() in PICTURE_SUFFIXES for path in pair)


def _of_pictures(
    pairs: Iterable[tuple[Path, Path]], restorer: "Restorer | None"
) -> Iterator[tuple[ScoreRow, dict[str, Image]]]:
    """Evaluate pictures; those of one scene are restored as the frames of a clip."""
    rgb = ToRgb()
    waiting: deque[tuple[Path, Path, Image, Image]] = deque()

    def frames() -> Iterator[Frame]:
        for pair in pairs:
            with VideoReader(pair[0]) as rainy, VideoReader(pair[1]) as clean:
                frame, reference = still_of(rainy), still_of(clean)
                waiting.append((*pair, rgb(frame), rgb(reference)))
            yield frame

    for frame in restorer.stream(frames()) if restorer is not None else frames():
        rainy, clean, picture, truth = waiting.popleft()
        restored = None if restorer is None else rgb(frame)
        with _naming(rainy, clean):
            found = _compared(rainy.name, picture, restored, truth)
        yield found


def _compared(
    name: str,
    picture: Image,
    restored: Image | None,
    truth: Image,
    judges: Sequence[Callable[[Image, Image], Scores]] = (score, score),
) -> tuple[ScoreRow, dict[str, Image]]:
    """Metrics of a picture, and its pictures for a contact sheet by label."""
    scores = judges[0](picture, truth)
    if restored is None:
        return ScoreRow(name=name, rainy=scores, restored=None), {"RAINY": picture, "CLEAN": truth}
    row = ScoreRow(name=name, rainy=scores, restored=judges[1](restored, truth))
    return row, {"RAINY": picture, "RESTORED": restored, "CLEAN": truth}


@contextmanager
def _naming(rainy: Path, clean: Path) -> Iterator[None]:
    """Add the names of both files to the error of a comparison."""
    try:
        yield
    except ValueError as error:
        raise ReadError(f"{rainy} cannot be compared with {clean}: {error}") from error


def _of_clip(
    index: int, rainy: Path, clean: Path, total: int, restorer: "Restorer | None"
) -> _Evaluated:
    """Evaluate one clip or folder of frames among several: the mean over its frames."""
    rows: list[ScoreRow] = []
    pictures: dict[str, Image] = {}
    are_folders = rainy.is_dir() and clean.is_dir()
    frames = _of_files(_pairs(rainy, clean), restorer) if are_folders else None
    for each in frames or _rows(rainy, clean, restorer):
        if len(rows) <= (each.total or 1) // 2:
            pictures = each.pictures
        rows.append(each.row)
    if not rows:
        raise ReadError(f"{rainy} has no frames")
    return _Evaluated(_mean(rainy.name, rows), str(index), total, pictures)


def _mean(name: str, rows: Sequence[ScoreRow]) -> ScoreRow:
    """Average each metric over rows."""
    restored = [row.restored for row in rows if row.restored is not None]
    return ScoreRow(
        name=name,
        rainy=mean_scores([row.rainy for row in rows]),
        restored=mean_scores(restored) if restored else None,
    )


def _rows(rainy: Path, clean: Path, restorer: "Restorer | None") -> Iterator[_Evaluated]:
    """Evaluate each frame of a clip, or a picture."""
    rgb = ToRgb()
    waiting: deque[tuple[Image, Image]] = deque()
    judges = _Judge(), _Judge()
    with VideoReader(rainy) as rainy_reader, VideoReader(clean) as clean_reader:
        clean_frames = (item for item in clean_reader if isinstance(item, Frame))

        def frames() -> Iterator[Frame]:
            for item in rainy_reader:
                if isinstance(item, Frame):
                    reference = next(clean_frames, None)
                    if reference is None:
                        raise ReadError(f"{clean} has fewer frames than {rainy}")
                    waiting.append((rgb(item), rgb(reference)))
                    yield item
            if next(clean_frames, None) is not None:
                raise ReadError(f"{clean} has more frames than {rainy}")

        for frame in restorer.stream(frames()) if restorer is not None else frames():
            picture, truth = waiting.popleft()
            restored = None if restorer is None else rgb(frame)
            name = f"{float(frame.pts * frame.time_base):.3f}"
            with _naming(rainy, clean):
                row, pictures = _compared(name, picture, restored, truth, judges)
            yield _Evaluated(row, name, rainy_reader.num_frames, pictures)


class _Judge:
    """Scores the frames of a clip in order, with flicker from the second one on."""

    def __init__(self) -> None:
        self._last: tuple[Image, Image] | None = None

    def __call__(self, picture: Image, clean: Image) -> Scores:
        scores, last = score(picture, clean), self._last
        self._last = luma(picture), luma(clean)
        if last is None or last[0].shape != self._last[0].shape:
            return scores
        return replace(scores, flicker=flicker(*last, *self._last))


class ToRgb:
    """Converts frames to RGB, with accurate rounding and bicubic chroma."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Frame) -> Image:
        """Convert a frame to RGB: `[H, W, 3]` uint8."""
        yuv = {
            "src_colorspace": MATRIX_NUMBERS.get(frame.matrix, MATRIX_NUMBERS["bt709"]),
            "src_color_range": ColorRange.JPEG if frame.full_range else ColorRange.MPEG,
        }
        flags = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
        picture = self._reformatter.reformat(
            picture_of(frame),
            format="rgb24",
            interpolation=Interpolation.BICUBIC | flags,
            threads=1,
            **(yuv if frame.layout.kind == "yuv" else {}),
        )
        return picture.to_ndarray().astype(np.uint8, copy=True)
