"""What is reported about an output: what it kept of the source, and what it could not."""

from collections.abc import Iterable
from dataclasses import dataclass, field

MOST_SHOWN = 6
"""How many things of one kind are named to a person."""


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, such as `1 frame` and `2 frames`.

    Args:
        number: How many.
        one: What there is one of.
        many: What there are several of; `one` with an s if empty.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One thing of the source that is not in the output, or not as it was."""

    kind: str
    """Its kind in a word or two: `stream`, `box`, `tag`, `side data`, `times`, `pixels`, ..."""
    what: str
    """The thing itself, such as `sound in stream 1 (aac, eng)`."""
    why: str = ""
    """Why it is lost, or what became of it; empty where nothing is known."""
    where: str = ""
    """Where it is in the source, such as `moov/udta`, `stream 1`; empty for the file as a whole."""
    bytes: int | None = None
    """Its size; None where that means nothing or is not known."""


def lines_of(losses: Iterable[Loss]) -> list[str]:
    """Losses as they are reported: one line for those of one kind and reason, sizes shown.

    Args:
        losses: In the order in which they are reported.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for loss in losses:
        size = "" if loss.bytes is None else f" ({counted(loss.bytes, 'byte')})"
        shown = groups.setdefault((loss.kind, loss.why), [])
        if f"{loss.what}{size}" not in shown:
            shown.append(f"{loss.what}{size}")
    lines = []
    for (_, why), shown in groups.items():
        if (more := len(shown) - MOST_SHOWN) > 1:
            shown[MOST_SHOWN:] = [f"and {more} more"]
        lines.append(", ".join(shown) + (f": {why}" if why else ""))
    return lines


def printable(text: str) -> str:
    """A text from a file as a terminal can show it."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass
class Notes:
    """What is reported of an output."""

    kept: list[str] = field(default_factory=list)
    """What else of the source is in the output, a line each."""
    losses: list[Loss] = field(default_factory=list)
    """What of the source is not in the output, or not as it was."""

    @property
    def lost(self) -> list[str]:
        """The losses in a person's words, a line for those of one kind and reason."""
        return lines_of(self.losses)

    def lose(
        self, kind: str, what: str, why: str = "", *, where: str = "", bytes: int | None = None
    ) -> None:
        """Note a loss; the arguments are the fields of `Loss`."""
        self.losses.append(Loss(kind=kind, what=what, why=why, where=where, bytes=bytes))
