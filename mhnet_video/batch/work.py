"""What a batch is made of: works, sources that are none, and the settings of a run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Work:
    """One output, and the source files that it is made of."""

    sources: tuple[Path, ...]
    """One file, or those of a trip in the order of their time."""
    output: Path
    """The file to create."""
    key: str
    """The output's path in the folder of outputs, with `/`; names the work in manifest and
    report."""
    seconds: float = 0.0
    """Footage of the sources, in seconds; 0 where they do not tell."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What is done at a time where machines share a work: all of it, or some of its segments."""

    work: Work
    first: int = 0
    """Index of the first segment."""
    step: int = 0
    """From one segment to the next; 0 for all of the work."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A source, or a part of one, that becomes no work."""

    path: Path
    reason: str
    """Why, as a sentence without a subject that fits behind the path."""
    is_error: bool
    """Whether somebody expects a result of it."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of several equal parts of all works."""

    number: int = 1
    """From 1 to `count`."""
    count: int = 1

    def holds(self, key: str) -> bool:
        """Whether a work belongs to this part, which its key alone decides."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1
