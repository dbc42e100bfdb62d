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
from numpy.typing import NDArray

from mhnet_video.color_spaces import MATRIX_NUMBERS
from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.locator import learn
from mhnet_video.media.contact_sheet import check_sheet, save_pictures
from mhnet_video.media.formats.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from mhnet_video.media.frames.pixel_formats import picture_of
from mhnet_video.media.image_sequence import files_in, in_order, still_of
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.pipelines.restore import Progress
from mhnet_video.training.metrics import Image, Scores, flicker, luma, mean_scores, score

if TYPE_CHECKING:
    from mhnet_video.restoration.restorer import Restorer

FILE_SUFFIXES = PICTURE_SUFFIXES | VIDEO_SUFFIXES
"""Suffixes of files in a folder that are evaluated, lower case."""
_INSIDE = 128
"""Level of the brightest channel from which on a pixel of a mask counts as inside."""

Mask = NDArray[np.bool_]
"""Pixels that are inside, `[H, W]`."""


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
    mask: str | PathLike[str] | None = None,
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
        mask: A picture, a clip, or a folder of these, matched as `clean` is: white where drops are,
            black elsewhere. PSNR of Y is computed inside and outside, too. A picture holds for all
            frames of a clip.
        model: Name of the model; None, without task and weights, to evaluate only the rainy
            pictures.
        task: What to remove, one of `tasks.TASKS`; without a model, its defaults are used. None
            for what model or weights take out.
        weights: A weights file to use instead of a model's.
        device: `auto`, `cpu`, `cuda`, `cuda:<index>` or `mps`.
        engine: Engine of the network: `auto`, `torch`, `llvm` or `triton`.
        scale: Working scale of the network, above 0 to 1; None to choose it, as `Restorer` does.
        on_progress: Called after each row.
        sheet: PNG file for a contact sheet of some pictures: rainy, restored and clean.
        overwrite: Whether to replace an existing sheet.
        restorer: A restorer to use instead of `model` and the settings after it.

    Returns:
        A row for each picture or frame; for a folder of clips or folders, one for each of them.

    Raises:
        ReadError: A picture cannot be read, or has no clean reference or mask of its size.
        WeightsError: The model's weights cannot be loaded.
        WriteError: The contact sheet cannot be written, or exists.
    """
    learn(rainy, clean, mask)
    twins = _twins_of(Path(rainy), Path(clean), None if mask is None else Path(mask))
    if sheet is not None:
        sources = [path for files in twins for path in files if path is not None]
        check_sheet(sheet, sources, overwrite=overwrite)
    if restorer is None and (model or task or weights):
        from mhnet_video.restoration.restorer import Restorer

        restorer = Restorer(
            model or "auto",
            task=task,
            weights=weights,
            device=device,
            engine=engine,
            scale=scale,
        )
    begin = time.monotonic()
    rows: list[ScoreRow] = []
    shown = _Sheet()
    is_one_file = len(twins) == 1 and not twins[0].rainy.is_dir()
    found = _rows(twins[0], restorer) if is_one_file else _of_files(twins, restorer)
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
        device=None if restorer is None else ",".join(map(str, restorer.devices)),
    )


class _Twins(NamedTuple):
    """Files to compare, or folders of the frames of a clip."""

    rainy: Path
    clean: Path
    mask: Path | None
    """None without masks."""

    @property
    def are_pictures(self) -> bool:
        """Whether both are pictures."""
        return all(path.suffix.lower() in PICTURE_SUFFIXES for path in self[:2])


def _twins_of(rainy: Path, clean: Path, mask: Path | None) -> list[_Twins]:
    """Rainy files with their clean references, and with their masks.

    Raises:
        ReadError: A file is missing, or has no reference or mask.
    """
    pairs = _pairs(rainy, clean)
    masks: Iterable[Path | None] = itertools.repeat(mask, len(pairs))
    if mask is not None and mask.is_dir():
        masks = [found for _, found in _pairs(rainy, mask)]
    elif mask is not None and not mask.exists():
        raise ReadError(f"there is no {mask}; name a picture, a clip or a folder of masks")
    return [_Twins(*pair, own) for pair, own in zip(pairs, masks, strict=True)]


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
    by_stem: dict[str, list[Path]] = {}
    for path in clean_paths:
        by_stem.setdefault(path.stem, []).append(path)
    if len(rainy_paths) == len(clean_paths) and not any(p.stem in by_stem for p in rainy_paths):
        return list(zip(rainy_paths, clean_paths, strict=True))
    return [(path, _twin(path, by_stem.get(path.stem, []), clean)) for path in rainy_paths]


def _twin(rainy: Path, candidates: list[Path], clean: Path) -> Path:
    """The reference of a rainy file: that of its full name, or the only one of its stem.

    Raises:
        ReadError: There is none, or more than one.
    """
    found = [path for path in candidates if path.name == rainy.name] or candidates
    if not found:
        raise ReadError(f"{rainy} has no twin of its name in {clean}; name both alike")
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ReadError(f"{rainy} has several twins in {clean}, {names}; leave one of them")
    return found[0]


def _entries(folder: Path) -> list[Path]:
    """The pictures and clips of a folder, or its folders if it has none.

    Raises:
        ReadError: The folder has neither.
    """
    try:
        return files_in(folder, FILE_SUFFIXES)
    except ReadError:
        folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
        if not folders:
            raise
        return in_order(folders)


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


def _of_files(twins: list[_Twins], restorer: "Restorer | None") -> Iterator[_Evaluated]:
    """Evaluate several files."""
    index = 0
    for are_pictures, group in itertools.groupby(twins, key=lambda files: files.are_pictures):
        if are_pictures:
            for row, pictures in _of_pictures(group, restorer):
                index += 1
                yield _Evaluated(row, str(index), len(twins), pictures)
            continue
        for files in group:
            index += 1
            yield _of_clip(index, files, len(twins), restorer)


def _of_pictures(
    twins: Iterable[_Twins], restorer: "Restorer | None"
) -> Iterator[tuple[ScoreRow, dict[str, Image]]]:
    """Evaluate pictures; those of one scene are restored as the frames of a clip."""
    rgb = ToRgb()
    waiting: deque[tuple[_Twins, Image, _Truth]] = deque()

    def frames() -> Iterator[Frame]:
        for files in twins:
            with (
                VideoReader(files.rainy) as rainy,
                VideoReader(files.clean) as clean,
                _masks(files.mask) as masks,
            ):
                frame, reference = still_of(rainy), still_of(clean)
                waiting.append((files, rgb(frame), _Truth(rgb(reference), next(masks))))
            yield frame

    for frame in restorer.stream(frames()) if restorer is not None else frames():
        files, picture, truth = waiting.popleft()
        restored = None if restorer is None else rgb(frame)
        with _naming(files):
            found = _compared(files.rainy.name, picture, restored, truth)
        yield found


class _Truth(NamedTuple):
    """What a picture is compared with."""

    clean: Image
    mask: Mask | None

    def score(self, picture: Image) -> Scores:
        """Metrics of a picture."""
        return score(picture, self.clean, self.mask)


@contextmanager
def _masks(path: Path | None) -> Iterator[Iterator[Mask | None]]:
    """The masks of the frames of a clip, or of a picture; that of a picture for all of them.

    Raises:
        ReadError: The file cannot be read, or ends too early.
    """
    if path is None:
        yield itertools.repeat(None)
        return
    rgb = ToRgb()

    def masks(reader: VideoReader) -> Iterator[Mask]:
        for item in reader:
            if isinstance(item, Frame):
                mask = rgb(item).max(axis=2) >= _INSIDE
                yield mask
                if path.suffix.lower() in PICTURE_SUFFIXES:
                    yield from itertools.repeat(mask)
        raise ReadError(f"{path} has fewer frames than the clip that it is the mask of")

    with VideoReader(path) as reader:
        yield masks(reader)


def _compared(
    name: str,
    picture: Image,
    restored: Image | None,
    truth: _Truth,
    judges: Sequence[Callable[[Image, _Truth], Scores]] | None = None,
) -> tuple[ScoreRow, dict[str, Image]]:
    """Metrics of a picture, and its pictures for a contact sheet by label."""
    before, after = judges or (lambda each, truth: truth.score(each),) * 2
    scores = before(picture, truth)
    if restored is None:
        row = ScoreRow(name=name, rainy=scores, restored=None)
        return row, {"RAINY": picture, "CLEAN": truth.clean}
    row = ScoreRow(name=name, rainy=scores, restored=after(restored, truth))
    return row, {"RAINY": picture, "RESTORED": restored, "CLEAN": truth.clean}


@contextmanager
def _naming(files: _Twins) -> Iterator[None]:
    """Add the names of the files to the error of a comparison."""
    try:
        yield
    except ValueError as error:
        by = "" if files.mask is None else f" by the mask {files.mask}"
        raise ReadError(
            f"{files.rainy} cannot be compared with {files.clean}{by}: {error}"
        ) from error


def _of_clip(index: int, files: _Twins, total: int, restorer: "Restorer | None") -> _Evaluated:
    """Evaluate one clip or folder of frames among several: the mean over its frames."""
    rows: list[ScoreRow] = []
    pictures: dict[str, Image] = {}
    are_folders = files.rainy.is_dir() and files.clean.is_dir()
    frames = _of_files(_twins_of(*files), restorer) if are_folders else None
    for each in frames or _rows(files, restorer):
        if len(rows) <= (each.total or 1) // 2:
            pictures = each.pictures
        rows.append(each.row)
    if not rows:
        raise ReadError(f"{files.rainy} has no frames")
    return _Evaluated(_mean(files.rainy.name, rows), str(index), total, pictures)


def _mean(name: str, rows: Sequence[ScoreRow]) -> ScoreRow:
    """Average each metric over rows."""
    restored = [row.restored for row in rows if row.restored is not None]
    return ScoreRow(
        name=name,
        rainy=mean_scores([row.rainy for row in rows]),
        restored=mean_scores(restored) if restored else None,
    )


def _rows(files: _Twins, restorer: "Restorer | None") -> Iterator[_Evaluated]:
    """Evaluate each frame of a clip, or a picture."""
    rgb = ToRgb()
    waiting: deque[tuple[Image, _Truth]] = deque()
    judges = _Judge(), _Judge()
    rainy, clean, mask = files
    with (
        VideoReader(rainy) as rainy_reader,
        VideoReader(clean) as clean_reader,
        _masks(mask) as masks,
    ):
        clean_frames = (item for item in clean_reader if isinstance(item, Frame))

        def frames() -> Iterator[Frame]:
            for item in rainy_reader:
                if isinstance(item, Frame):
                    reference = next(clean_frames, None)
                    if reference is None:
                        raise ReadError(f"{clean} has fewer frames than {rainy}")
                    waiting.append((rgb(item), _Truth(rgb(reference), next(masks))))
                    yield item
            if next(clean_frames, None) is not None:
                raise ReadError(f"{clean} has more frames than {rainy}")

        for frame in restorer.stream(frames()) if restorer is not None else frames():
            picture, truth = waiting.popleft()
            restored = None if restorer is None else rgb(frame)
            name = f"{float(frame.pts * frame.time_base):.3f}"
            with _naming(files):
                row, pictures = _compared(name, picture, restored, truth, judges)
            yield _Evaluated(row, name, rainy_reader.num_frames, pictures)


class _Judge:
    """Scores the frames of a clip in order, with flicker from the second one on."""

    def __init__(self) -> None:
        self._last: tuple[Image, Image] | None = None

    def __call__(self, picture: Image, truth: _Truth) -> Scores:
        scores, last = truth.score(picture), self._last
        self._last = luma(picture), luma(truth.clean)
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
