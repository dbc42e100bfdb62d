"""Every frame keeps its time, in whole files and in parts of them."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import probe
import pytest
from clips import Audio, Clip, Subtitles, every, uneven
from promises import (
    ALL,
    JPEG,
    MP3,
    VP9,
    Promise,
    audio,
    audio_starts,
    keep,
    last_duration,
    luma,
    nudged_times,
    pictures,
    run,
    shifted_times,
    video,
)
from standin import StandIn

from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ReadError
from mhnet_video.pipelines.restore import restore_video

NTSC = Fraction(1, 30000)
TICK = Fraction(1, 90000)


TIMES = [
    Promise("constant rate, MP4", Clip(), "out.mp4", ALL),
    Promise("constant rate, MP4 to MKV", Clip(), "out.mkv", ALL),
    Promise("constant rate, MP4 to MOV", Clip(), "out.mov", ALL),
    Promise("constant rate, MP4 to TS", Clip(), "out.ts", ALL),
    Promise("constant rate, MP4 to AVI", Clip(), "out.avi", ALL),
    Promise("constant rate, MP4 to WebM", Clip(), "out.webm", ALL),
    Promise("constant rate, MOV", Clip(name="clip.mov"), "out.mov", ALL),
    Promise("constant rate, MKV", Clip(name="clip.mkv"), "out.mkv", ALL),
    Promise("constant rate, MKV to MP4", Clip(name="clip.mkv"), "out.mp4", ALL),
    Promise("constant rate, TS", Clip(name="clip.ts"), "out.ts", ALL),
    Promise("constant rate, TS to MP4", Clip(name="clip.ts"), "out.mp4", ALL),
    Promise(
        "constant rate, AVI", Clip(name="clip.avi", video=video(codec="mpeg4")), "out.avi", ALL
    ),
    Promise(
        "constant rate, AVI to MP4",
        Clip(name="clip.avi", video=video(codec="mpeg4")),
        "out.mp4",
        ALL,
    ),
    Promise(
        "constant rate, AVI to MKV",
        Clip(name="clip.avi", video=video(codec="mjpeg", pixel_format="yuvj420p")),
        "out.mkv",
        ALL,
    ),
    Promise("constant rate, WebM", Clip(name="clip.webm", video=(VP9,)), "out.webm", ALL),
    Promise("constant rate, WebM to MP4", Clip(name="clip.webm", video=(VP9,)), "out.mp4", ALL),
    Promise(
        "NTSC rate, MP4",
        Clip(video=video(times=every(1001, 12), time_base=NTSC, rate=30)),
        "out.mp4",
        ALL,
    ),
    Promise(
        "NTSC rate, MP4 to MKV",
        Clip(video=video(times=every(1001, 12), time_base=NTSC, rate=30)),
        "out.mkv",
        ALL,
    ),
    Promise("variable rate, MP4", Clip(video=video(times=uneven(12))), "out.mp4", ALL),
    Promise(
        "variable rate in 1/90000 s, MP4",
        Clip(video=video(times=tuple(89 * time + 1 for time in uneven(12)), time_base=TICK)),
        "out.mp4",
        ALL,
    ),
    Promise(
        "variable rate in microseconds, MOV",
        Clip(
            name="clip.mov",
            video=video(
                times=tuple(997 * time for time in uneven(12)), time_base=Fraction(1, 10**6)
            ),
        ),
        "out.mp4",
        ALL,
    ),
    Promise(
        "variable rate, MKV",
        Clip(name="clip.mkv", video=video(times=uneven(12))),
        "out.mkv",
        ALL,
    ),
    Promise(
        "variable rate, MKV to MP4",
        Clip(name="clip.mkv", video=video(times=uneven(12))),
        "out.mp4",
        ALL,
    ),
    Promise(
        "variable rate, TS to MP4",
        Clip(name="clip.ts", video=video(times=uneven(12))),
        "out.mp4",
        ALL,
    ),
    Promise("variable rate, MP4 to WebM", Clip(video=video(times=uneven(12))), "out.webm", ALL),
    Promise("variable rate, MP4 to TS", Clip(video=video(times=uneven(12))), "out.ts", ALL),
    Promise("B-frames, MP4", Clip(video=video(b_frames=2)), "out.mp4", ALL),
    Promise("B-frames, MKV", Clip(name="clip.mkv", video=video(b_frames=3)), "out.mkv", ALL),
    Promise("B-frames, TS to MP4", Clip(name="clip.ts", video=video(b_frames=2)), "out.mp4", ALL),
    Promise(
        "B-frames, AVI to MP4",
        Clip(name="clip.avi", video=video(codec="mpeg4", b_frames=2)),
        "out.mp4",
        ALL,
    ),
    Promise(
        "B-frames at a variable rate, MP4",
        Clip(video=video(b_frames=2, times=uneven(12))),
        "out.mp4",
        ALL,
    ),
    Promise(
        "offset start, MP4",
        Clip(video=video(times=every(40, 10, start=480)), audio=(Audio(codec=MP3),)),
        "out.mp4",
        (*ALL, audio),
    ),
    Promise("offset start alone, MP4", Clip(video=video(times=uneven(9, 480))), "out.mp4", ALL),
    Promise(
        "offset start in thirds of a second, MP4",
        Clip(
            video=video(times=every(1, 10, start=10), time_base=Fraction(1, 30), rate=30),
            options=(("movie_timescale", "30"),),
        ),
        "out.mp4",
        ALL,
    ),
    Promise(
        "offset start alone, MKV",
        Clip(name="clip.mkv", video=video(times=uneven(9, 480))),
        "out.mkv",
        ALL,
    ),
    Promise(
        "offset start, TS",
        Clip(name="clip.ts", video=video(times=every(40, 10, start=1400))),
        "out.ts",
        ALL,
    ),
    Promise(
        "offset start, TS to MP4",
        Clip(name="clip.ts", video=video(times=every(40, 10, start=1400)), audio=(Audio(start=1),)),
        "out.mp4",
        (*ALL, audio_starts),
    ),
    Promise(
        "start after hours of broadcast, TS to MP4",
        Clip(
            name="clip.ts",
            video=video(times=every(40, 10, start=7_200_000)),
            audio=(Audio(start=7200),),
        ),
        "out.mp4",
        (shifted_times, pictures),
    ),
    Promise(
        "video after the audio, MP4",
        Clip(video=video(times=uneven(10, 333)), audio=(Audio(codec="ac3", seconds=1.2),)),
        "out.mp4",
        (*ALL, audio),
    ),
    Promise(
        "audio after the video, MP4",
        Clip(audio=(Audio(codec="ac3", start=0.25, seconds=0.5),)),
        "out.mp4",
        (*ALL, audio),
    ),
    Promise(
        "audio after the video, MKV",
        Clip(name="clip.mkv", audio=(Audio(codec="ac3", start=0.25, seconds=0.5),)),
        "out.mkv",
        (*ALL, audio),
    ),
    Promise(
        "a gap of an hour, MP4",
        Clip(video=video(times=(*every(40, 6), *every(40, 6, start=3_600_000)))),
        "out.mp4",
        ALL,
    ),
    Promise(
        "repeated times, MKV",
        Clip(
            name="clip.mkv",
            video=video(
                codec="mjpeg", pixel_format="yuvj420p", times=(0, 40, 40, 80, 120, 120, 160, 200)
            ),
        ),
        "out.mkv",
        (nudged_times, pictures),
    ),
    Promise(
        "repeated times, MKV to MP4",
        Clip(
            name="clip.mkv",
            video=video(
                codec="mjpeg", pixel_format="yuvj420p", times=(0, 40, 40, 40, 80, 120, 160, 160)
            ),
        ),
        "out.mp4",
        (nudged_times, pictures),
    ),
    Promise(
        "backward times, MKV to MP4",
        Clip(
            name="clip.mkv",
            video=video(
                codec="mjpeg", pixel_format="yuvj420p", times=(0, 40, 80, 60, 120, 160, 140, 200)
            ),
        ),
        "out.mp4",
        (nudged_times, pictures),
    ),
    Promise(
        "an edit list that hides the first frames, MP4",
        Clip(video=video(times=every(40, 16, start=-200)), options=(("avoid_negative_ts", "0"),)),
        "out.mp4",
        ALL,
    ),
    Promise(
        "the last frame's duration, MP4",
        Clip(video=video(times=every(40, 8), durations=(40,) * 7 + (120,))),
        "out.mp4",
        (*ALL, last_duration),
    ),
    Promise(
        "the last frame's duration, MKV",
        Clip(name="clip.mkv", video=video(times=every(40, 8), durations=(40,) * 7 + (120,))),
        "out.mkv",
        (*ALL, last_duration),
    ),
    Promise("a single frame, MP4", Clip(video=video(times=(0,))), "out.mp4", ALL),
    Promise("two frames, MKV", Clip(name="clip.mkv", video=video(times=(0, 500))), "out.mkv", ALL),
    Promise(
        "a thousand frames a second, MP4",
        Clip(video=video(times=every(1, 20), rate=1000)),
        "out.mp4",
        ALL,
    ),
]


@pytest.mark.parametrize("promise", TIMES, ids=lambda promise: promise.name)
def test_times_stay(promise: Promise, tmp_path: Path) -> None:
    keep(promise, tmp_path)


SCENES = ((0.0, 0.3, "One"), (0.3, 0.5, "Two"), (0.5, 0.8, "Three"))
PARTS = [
    ("mp4", 0.2, 0.2, every(40, 20), 0),
    ("mp4", 0.13, None, every(40, 20), 2),
    ("mp4", None, 0.3, every(40, 20), 2),
    ("mp4", 0.3, 0.4, uneven(20), 2),
    ("mkv", 0.2, 0.2, every(40, 20), 0),
    ("mkv", 0.3, 0.4, uneven(20), 2),
    ("ts", 0.2, 0.2, every(40, 20), 0),
    ("ts", 0.3, 0.4, uneven(20, 1400), 2),
    ("avi", 0.2, 0.2, every(40, 20), 0),
    ("mp4", 0.2, 0.2, every(40, 20, 3_600_000), 0),
    ("mkv", 0.76, None, every(40, 20), 0),
    ("mp4", 0.0, 10.0, every(40, 20), 0),
]


@pytest.mark.parametrize(("extension", "start", "duration", "shown", "b_frames"), PARTS)
def test_a_part(
    extension: str,
    start: float | None,
    duration: float | None,
    shown: tuple[int, ...],
    b_frames: int,
    tmp_path: Path,
) -> None:
    """The frames of the part and no others, the first at 0, and all else cut alike."""
    is_avi, is_ts = extension == "avi", extension == "ts"
    begin = shown[0] / 1000
    scenes = tuple((a + begin, b + begin, title) for a, b, title in SCENES)
    clip = Clip(
        name=f"clip.{extension}",
        video=video(codec="mpeg4" if is_avi else "libx264", times=shown, b_frames=b_frames, gop=8),
        audio=(Audio(codec="ac3", seconds=0.9, start=begin),),
        chapters=() if is_avi or is_ts else scenes,
    )
    config = {"start": start, "duration": duration}
    case = run(Promise("", clip, "out.mp4", (), config), tmp_path)
    first = case.source.video.times[0]
    low = first + Fraction(start or 0).limit_denominator(1000)
    high = low + Fraction(duration or 1000).limit_denominator(1000)
    half = Fraction(1, 2000)
    wanted = [
        index for index, at in enumerate(case.source.video.times) if low - half <= at < high - half
    ]
    assert len(wanted) > 0
    assert case.report.frames == len(wanted) == len(case.output.video.times)
    moved = first if start is None else case.source.video.times[wanted[0]]
    if start is not None or first > 10:
        assert case.output.video.times[0] == 0
    for index, at in zip(wanted, case.output.video.times, strict=True):
        expected = case.source.video.times[index] - (
            moved if start is not None or first > 10 else 0
        )
        assert abs(at - expected) <= half
    before, after = luma(case.source)[wanted], luma(case.output)
    for one, other in zip(before, after, strict=True):
        assert probe.psnr(one, other) > 30
    sound = case.output.of("audio")[0].packets
    known = {packet.md5: packet.pts for packet in case.source.of("audio")[0].packets}
    shift = moved if start is not None or first > 10 else 0
    assert len(sound) >= min(0.9 - (start or 0), duration or 1) / 0.032 - 2
    for packet in sound:
        # the tone repeats itself nowhere, so each packet is known by its bytes
        assert abs(packet.pts - (known[packet.md5] - shift)) <= Fraction(1, 1000)
        assert packet.pts > -0.04
        assert duration is None or packet.pts <= duration
    if clip.chapters:
        inside = [
            (max(a - (start or 0), 0), min(b - (start or 0), duration or 1000), title)
            for a, b, title in SCENES
        ]
        inside = [chapter for chapter in inside if chapter[1] - chapter[0] > 0.001]
        assert [chapter[2] for chapter in case.output.chapters] == [item[2] for item in inside]
        for chapter, (a, b, _) in zip(case.output.chapters, inside, strict=True):
            assert abs(chapter[0] - a) < 0.05
            assert abs(chapter[1] - b) < 0.05


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
@pytest.mark.parametrize("start", [None, 0.2])
def test_a_cue_ends_with_its_part(start: float | None, name: str, tmp_path: Path) -> None:
    text = Subtitles(cues=((0.1, 5.0, "Long"),))
    clip = Clip(name="clip.mkv", video=video(times=every(40, 20)), subtitles=(text,))
    case = run(Promise("", clip, name, (), {"start": start, "duration": 0.2}), tmp_path)
    cues = [packet for packet in case.output.of("subtitle")[0].packets if packet.size > 2]
    ends = [float(packet.pts + packet.duration) for packet in cues]
    assert max(ends) == pytest.approx(0.2, abs=0.002)
    with av.open(str(tmp_path / name)) as container:
        assert container.duration <= 0.25 * av.time_base


COVERED = Clip(video=video(times=every(40, 20), gop=5), cover=JPEG)
ATTACHED = replace(
    COVERED, name="clip.mkv", cover=None, attachments=(("cover.jpg", "image/jpeg", JPEG),)
)


@pytest.mark.parametrize("clip", [COVERED, ATTACHED], ids=lambda clip: clip.name)
@pytest.mark.parametrize("start", [None, 0.4])
def test_a_part_has_the_cover(start: float | None, clip: Clip, tmp_path: Path) -> None:
    case = run(Promise("", clip, "out.mkv", (), {"start": start, "duration": 0.2}), tmp_path)
    assert case.report.lost == ()
    assert JPEG in (tmp_path / "out.mkv").read_bytes()


def test_a_part_behind_the_end(tmp_path: Path) -> None:
    source = Clip().make(tmp_path)
    with pytest.raises(ReadError, match=r"clip\.mp4 ends before 7 s"):
        restore_video(source, tmp_path / "out.mp4", RestoreConfig(start=7.0), restorer=StandIn())
    assert not (tmp_path / "out.mp4").exists()
