"""What the names of recordings tell: when they begin, which camera made them, which chapter.

Names as cameras of VIOFO, 70mai, BlackVue, Thinkware, Nextbase, Vantrue, Garmin, Tesla and GoPro
give them, and any other that holds a date and a time.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

_TIME = re.compile(
    r"(?<!\d)(20\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)[-_ T.]?([0-2]\d)[-_.:h]?([0-5]\d)[-_.:m]?"
    r"([0-5]\d)(?:\d{3})?(?!\d)"
)
# Nextbase's, whose year has two digits
_SHORT_TIME = re.compile(r"(?<!\d)(\d\d)([01]\d)([0-3]\d)_([0-2]\d)([0-5]\d)([0-5]\d)(?=_\d{3}_)")
_NUMBER = re.compile(r"(\d+)\D*$")
# a recording that a GoPro cuts: codec, chapter, number of the recording; before the HERO6 the first
# chapter has another name. Source: GoPro's article "GoPro Camera File Naming Convention"
_GOPRO = re.compile(r"G[HXP](\d\d)(\d{4})", re.IGNORECASE)
_GOPRO_FIRST = re.compile(r"GOPR(\d{4})", re.IGNORECASE)
# the letter behind the time: VIOFO ..._0001F and ..._0001PR, 70mai ...-000001B, BlackVue ..._NF and
# ..._ERL, Thinkware ..._F, Nextbase ..._FH and ..._RL; the one before it says why it was recorded
_LETTER = re.compile(r"(?:^|[-_\d])[A-Z]?([FRBIT])[HLS]?$", re.ASCII | re.IGNORECASE)
# Vantrue ..._N_A: of three cameras B looks inside, of two it is the other one
_VANTRUE = re.compile(r"_[A-Z]_([ABC])$", re.IGNORECASE)
_VANTRUE_VIEWS = {"A": "front", "B": "inside", "C": "rear"}
# why something was recorded, which is no part of the camera's name
_OCCASION = re.compile(
    r"(?<![a-z])(?:no|nor|norm|normal|rec|loop|grmn|ev|evt|evnt|event|mot|motion|emr|emer|emergency|"
    r"sos|lock|locked|pa|park|parking|man|manual|[nemp])(?![a-z])",
    re.IGNORECASE,
)
_VIEWS = {
    "F": "front",
    "R": "rear",
    "B": "rear",
    "I": "inside",
    "T": "telephoto",
    "front": "front",
    "rear": "rear",
    "back": "rear",
    "inside": "inside",
    "interior": "inside",
    "cabin": "inside",
    "left": "left",
    "right": "right",
    "left_repeater": "left",
    "right_repeater": "right",
    "left_pillar": "left pillar",
    "right_pillar": "right pillar",
}
_WORD = re.compile(
    r"(?:^|[-_ .])(front|rear|back|inside|interior|cabin|(?:left|right)(?:_repeater|_pillar)?)$",
    re.IGNORECASE,
)
_FOLDER = re.compile(
    r"(?:^|.*[-_ .])(front|rear|back|inside|interior|cabin|left|right|[FRBI])$", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class ClipName:
    """What a name tells."""

    time: datetime | None
    """When the recording begins by the camera's clock; None where the name does not tell."""
    view: str
    """Which camera made it, such as `front`; empty where neither name nor folder tell."""
    form: str
    """How the time is written, with a zero for each digit: each maker writes it in its own way."""
    series: str
    """What names of one camera have in common: the letters, and the number of a channel before the
    time; empty where the view or the chapter tells more."""
    chapter: tuple[str, int] | None
    """The recording that it is a chapter of, and which one, from 1; None where it is none."""
    number: int | None
    """The last number in the name; None where there is none."""


def read_name(relative: PurePosixPath) -> ClipName:
    """Read a file's name, and its folders' for which camera it is of.

    Args:
        relative: Its place below the source.
    """
    stem = relative.stem
    chapter = None
    if match := _GOPRO.fullmatch(stem):
        chapter = match[2], int(match[1])
        if match[0][1] in "Pp":  # which counts from 1 behind the one named GOPR
            chapter = match[2], int(match[1]) + 1
    elif match := _GOPRO_FIRST.fullmatch(stem):
        chapter = match[1], 1
    number = _NUMBER.search(stem)
    time, form, before, behind = _around_time(stem)
    view = _view_in(stem, behind if time else "") or _view_of_folders(relative)
    return ClipName(
        time=time,
        view=view,
        form=form,
        series="" if view or chapter else _series(before, behind),
        chapter=chapter,
        number=int(number[1]) if number else None,
    )


def _around_time(stem: str) -> tuple[datetime | None, str, str, str]:
    """The time in a name, how it is written, and what stands before it and behind it.

    Where there is no time, the last number takes its place.
    """
    for match in (*_TIME.finditer(stem), *_SHORT_TIME.finditer(stem)):
        try:
            year, month, day, hour, minute, second = map(int, match.groups())
            time = datetime(2000 + year % 100, month, day, hour, minute, second)
        except ValueError:
            continue
        form = re.sub(r"[0-9]", "0", match[0])
        return time, form, stem[: match.start()], stem[match.end() :]
    number = _NUMBER.search(stem)
    return None, "", *((stem[: number.start()], stem[number.end(1) :]) if number else (stem, ""))


def _view_in(stem: str, behind: str) -> str:
    """Which camera a name tells.

    Args:
        stem: The name.
        behind: What stands behind the time in it.
    """
    if match := _WORD.search(stem):
        return _VIEWS[match[1].lower()]
    if match := _VANTRUE.search(behind):
        return _VANTRUE_VIEWS[match[1].upper()]
    match = _LETTER.search(behind)
    return _VIEWS[match[1].upper()] if match else ""


def _series(before: str, behind: str) -> str:
    # what is left of dates, and running numbers; that of a channel stands behind letters
    before = re.sub(r"(?<![a-z])[0-9]+", " ", before, flags=re.IGNORECASE)
    words = f"{before} {re.sub(r'[0-9]', ' ', behind)}"
    return " ".join(re.findall(r"[^\W_]+", _OCCASION.sub("", words).lower()))


def _view_of_folders(relative: PurePosixPath) -> str:
    for folder in reversed(relative.parts[:-1]):
        if match := _FOLDER.fullmatch(folder):
            return _VIEWS.get(match[1].lower()) or _VIEWS[match[1].upper()]
    return ""
