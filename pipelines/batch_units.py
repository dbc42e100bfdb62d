"""Into which units a work is cut that several machines share."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from mhnet_video.batch.claim import staged_path
from mhnet_video.batch.work import Unit, Work
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import MHNetVideoError
from mhnet_video.media.segments.segment_encoding import check_format
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.pipelines import segmented_work

_LONG_SEGMENTS = 3
"""A file that has so many times the footage of a segment is restored in segments, so that a killed
run goes on where it was."""


def has_segments(work: Work) -> bool:
    """Whether a work is done in segments."""
    if len(work.sources) > 1:
        return True
    try:
        check_format(work.output)
    except MHNetVideoError:
        return False  # an output of that name cannot be joined
    return work.seconds >= _LONG_SEGMENTS * segmented_work.SEGMENT_SECONDS


def missing_units(work: Work, config: RestoreConfig, out: Path, seconds: float) -> list[Unit]:
    """What is to be done of a work that several machines share.

    Args:
        work: The work.
        config: Settings of restoring.
        out: The folder of outputs.
        seconds: Footage that a unit has at least, in seconds.

    Returns:
        Units of segments, of those that are not there yet; one for all of a work that is not done
        in segments, or of which all segments are there.
    """
    step = int(work.seconds // seconds) + 1
    if step == 1 or not has_segments(work):
        return [Unit(work=work)]
    store = SegmentStore(staged_path(out, work))
    # that segments are of other weights is found by whoever has loaded the model
    weights = store.made_of().get("weights", "")
    try:
        plan = store.load(segmented_work.work_of(work.sources, config, weights))
    except MHNetVideoError:
        return [Unit(work=work)]  # whoever does it says what is wrong with the source
    firsts = list(range(step))
    if plan is not None:
        missing = {index % step for index in range(store.count) if not store.has(index)}
        firsts = sorted(missing)
    return [Unit(work=work, first=first, step=step) for first in firsts] or [Unit(work=work)]


def in_order(units: Sequence[Sequence[Unit]]) -> list[Unit]:
    """The units of all works, one work after the other.

    The first unit of each comes before the others of the work before it, because it plans the
    segments, for which those behind it wait.

    Args:
        units: Those of each work.
    """
    order = list(units[0][:1]) if units else []
    for each, following in zip_longest(units, units[1:], fillvalue=()):
        order += [*following[:1], *each[1:]]
    return order
