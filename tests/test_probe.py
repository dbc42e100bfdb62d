"""The judge of files says the same with ffprobe and without."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import probe
import pytest
from clips import Audio, Clip, Data, rotation
from promises import BOTH, CHAPTERS, HDR, JPEG, TEXT, video


@pytest.mark.skipif(not probe.HAS_FFMPEG, reason="no ffprobe on this machine")
@pytest.mark.parametrize(
    "clip",
    [
        Clip(video=video(b_frames=2, durations=(40,) * 10), audio=BOTH, cover=JPEG),
        Clip(name="clip.mov", video=video(matrix=rotation(90), aspect=Fraction(4, 3), color=HDR)),
        Clip(name="clip.mkv", subtitles=TEXT, chapters=CHAPTERS),
        Clip(name="clip.ts", audio=(Audio(),), data=(Data(),)),
    ],
    ids=lambda clip: clip.name,
)
def test_both_ways_to_look_agree(clip: Clip, tmp_path: Path) -> None:
    path = clip.make(tmp_path)
    one, other = probe._probe_with_ffprobe(path), probe._probe_with_pyav(path)
    assert one.chapters == other.chapters
    for before, after in zip(one.streams, other.streams, strict=True):
        for name in ("kind", "time_base", "dispositions", "matrix", "times", "aspect", "color"):
            assert getattr(before, name) == getattr(after, name), name
        assert [item.md5 for item in before.packets] == [item.md5 for item in after.packets]
        assert [item.pts for item in before.packets] == [item.pts for item in after.packets]
    index = one.video.index
    assert np.array_equal(probe.pictures(path), probe._pictures_with_pyav(path, index, None))
