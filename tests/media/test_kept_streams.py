"""Subtitles, telemetry, covers, attachments, chapters and other videos stay."""

from fractions import Fraction
from pathlib import Path

import av
import probe
import pytest
from clips import (
    Clip,
    Data,
    Subtitles,
    Video,
    as_telemetry,
    copy,
    cover_first,
    every,
    rotation,
    uneven,
)
from promises import (
    BOTH,
    CHAPTERS,
    JPEG,
    PNG,
    REAL,
    TEXT,
    VP9,
    Case,
    Check,
    Promise,
    aspect_stays,
    attachments,
    audio,
    chapters,
    color,
    cover,
    data,
    dispositions,
    keep,
    lost,
    matrix,
    no,
    nothing_lost,
    restored,
    second_pictures,
    second_video,
    size,
    stream_count,
    stream_tags,
    subtitles,
    subtitles_become,
    tags,
    times,
    video,
)
from standin import StandIn, inverted

from mhnet_video.config import RestoreConfig
from mhnet_video.media.tracks.timecode import later
from mhnet_video.pipelines.restore import restore_video

REORDERED = Video(seed=1, width=32, height=32, b_frames=2, times=every(40, 20))
MOVED_TEXT = (Subtitles(codec="mov_text", metadata={"language": "jpn"}),)
FONT = ("rain.ttf", "application/x-truetype-font", bytes(range(256)))

TIMECODE = Clip(name="clip.mov", video=video(metadata={"timecode": "01:02:03:20"}))


def test_in_an_mp4_text_is_shown_no_longer_than_it_was(tmp_path: Path) -> None:
    cues = ((0.1, 0.1, "one"), (0.5, 0.1, "two"), (0.6, 0.1, "three"))
    clip = Clip(
        name="clip.mkv",
        video=(Video(times=every(40, 25)),),
        subtitles=(Subtitles(codec="subrip", cues=cues),),
    ).make(tmp_path)
    restore_video(clip, tmp_path / "out.mp4", RestoreConfig(strength=0.0))
    with av.open(str(tmp_path / "out.mp4")) as container:
        packets = [packet for packet in container.demux(subtitles=0) if packet.size]
        shown = {
            bytes(p)[2:].decode(): (
                round(float(p.pts * p.time_base), 3),
                round(float((p.pts + p.duration) * p.time_base), 3),
            )
            for p in packets
            if bytes(p) != b"\0\0"
        }
    assert shown == {"one": (0.1, 0.2), "two": (0.5, 0.6), "three": (0.6, 0.7)}


def timecode_becomes(wanted: str) -> Check:
    """The first picture's, in the video's tags and, in MOV, as a track."""

    def check(case: Case) -> None:
        tracks = case.output.of("data")
        assert len(tracks) == (case.output.path.suffix == ".mov")
        for stream in (case.output.video, *tracks):
            assert {key.lower(): value for key, value in stream.tags.items()}["timecode"] == wanted
        assert f"timecode {wanted}" in case.report.kept
        nothing_lost(case)

    return check


OTHER_STREAMS = [
    Promise("text, MP4", Clip(subtitles=MOVED_TEXT), "out.mp4", (times, subtitles, stream_tags)),
    Promise(
        "text and styled text, MKV",
        Clip(name="clip.mkv", subtitles=TEXT),
        "out.mkv",
        (times, subtitles, stream_tags, dispositions),
    ),
    Promise(
        "text, MKV to MP4",
        Clip(name="clip.mkv", subtitles=TEXT[:1]),
        "out.mp4",
        (times, subtitles_become("mov_text"), stream_tags),
    ),
    Promise(
        "styled text, MKV to MP4",
        Clip(name="clip.mkv", subtitles=TEXT[1:]),
        "out.mp4",
        (times, subtitles_become("mov_text"), stream_tags),
    ),
    Promise(
        "text, MP4 to MKV",
        Clip(subtitles=MOVED_TEXT),
        "out.mkv",
        (times, subtitles_become("subrip"), stream_tags),
    ),
    Promise(
        "WebVTT, WebM",
        Clip(name="clip.webm", video=(VP9,), subtitles=(Subtitles(codec="webvtt"),)),
        "out.webm",
        (times, subtitles),
    ),
    Promise(
        "text, MKV to WebM",
        Clip(name="clip.mkv", subtitles=TEXT[:1]),
        "out.webm",
        (times, subtitles_become("webvtt")),
    ),
    Promise(
        "text, MKV to AVI: no place",
        Clip(name="clip.mkv", subtitles=TEXT[:1]),
        "out.avi",
        (times, no("subtitle"), lost("subtitle")),
    ),
    Promise(
        "pictures of text, TS",
        Clip(name="clip.ts", subtitles=(Subtitles(codec="dvb_subtitle"),)),
        "out.ts",
        (times, subtitles),
    ),
    Promise(
        "pictures of text, TS to MP4: no place",
        Clip(name="clip.ts", subtitles=(Subtitles(codec="dvb_subtitle"),)),
        "out.mp4",
        (times, no("subtitle"), lost("subtitle")),
    ),
    Promise("telemetry, TS", Clip(name="clip.ts", data=(Data(),)), "out.ts", (times, data)),
    Promise(
        "telemetry, TS to MP4: no place",
        Clip(name="clip.ts", data=(Data(),)),
        "out.mp4",
        (times, no("data"), lost("klv")),
    ),
    Promise(
        "a camera's telemetry, MP4",
        Clip(subtitles=(Subtitles(codec="mov_text"),), finish=as_telemetry),
        "out.mp4",
        (times, data),
    ),
    Promise(
        "a camera's telemetry, MP4 to MKV: no place",
        Clip(subtitles=(Subtitles(codec="mov_text"),), finish=as_telemetry),
        "out.mkv",
        (times, no("data"), lost("data")),
    ),
    Promise(
        "timecode, MOV",
        Clip(name="clip.mov", video=video(metadata={"timecode": "01:02:03:04"})),
        "out.mov",
        (times, stream_tags, stream_count),
    ),
    Promise("timecode, MOV to MKV", TIMECODE, "out.mkv", (timecode_becomes("01:02:03:20"),)),
    *(
        Promise(
            f"timecode of a part, {name}",
            TIMECODE,
            name,
            (timecode_becomes("01:02:04:00"),),
            config={"start": 0.2},
        )
        for name in ("out.mov", "out.mkv")
    ),
    Promise(
        "timecode, MOV to 3GP: no place",
        TIMECODE,
        "out.3gp",
        (times, no("data"), lost("timecode", "no place")),
    ),
    Promise(
        "an attachment, MKV",
        Clip(name="clip.mkv", attachments=(FONT,)),
        "out.mkv",
        (times, attachments),
    ),
    Promise(
        "an attachment, MKV to MP4: no place",
        Clip(name="clip.mkv", attachments=(FONT,)),
        "out.mp4",
        (times, lost("attachment")),
    ),
    Promise("a JPEG cover, MP4", Clip(cover=JPEG), "out.mp4", (times, cover)),
    Promise("a PNG cover, MP4", Clip(cover=PNG), "out.mp4", (times, cover)),
    Promise(
        "a cover before the video, MP4",
        Clip(cover=JPEG, finish=cover_first),
        "out.mp4",
        (times, cover, restored),
        restorer=lambda: StandIn(inverted),
    ),
    Promise(
        "a cover, MKV",
        Clip(name="clip.mkv", attachments=(("cover.jpg", "image/jpeg", JPEG),)),
        "out.mkv",
        (times, cover),
    ),
    Promise(
        "a cover, MKV to MP4",
        Clip(name="clip.mkv", attachments=(("cover.png", "image/png", PNG),)),
        "out.mp4",
        (times, cover),
    ),
    Promise("a cover, MP4 to MKV", Clip(cover=JPEG), "out.mkv", (times, cover)),
    Promise(
        "a second camera, MP4",
        Clip(video=(Video(), Video(seed=1, width=32, height=32, times=uneven(8, 20)))),
        "out.mp4",
        (times, second_video, restored),
        restorer=lambda: StandIn(inverted),
    ),
    Promise(
        "a second camera, MKV",
        Clip(name="clip.mkv", video=(Video(), Video(seed=1, width=32, height=32))),
        "out.mkv",
        (times, second_video),
    ),
    *(
        Promise(
            f"a second camera with pictures out of order, MKV to {name}",
            Clip(name="clip.mkv", video=(Video(), REORDERED)),
            name,
            (times, second_video),
        )
        for name in ("out.mkv", "out.mp4")
    ),
    Promise(
        "a second camera, TS to MP4",
        Clip(name="clip.ts", video=(Video(), Video(seed=1, width=32, height=32))),
        "out.mp4",
        (times, second_pictures),
    ),
    Promise(
        "a second camera's pictures, MKV to TS: no place",
        Clip(name="clip.mkv", video=(Video(), Video(codec="ffv1", seed=1, width=32, height=32))),
        "out.ts",
        (times, lost("ffv1", "no place")),
    ),
    Promise("chapters, MP4", Clip(chapters=CHAPTERS), "out.mp4", (times, chapters, stream_count)),
    Promise(
        "chapters, MKV", Clip(name="clip.mkv", chapters=CHAPTERS), "out.mkv", (times, chapters)
    ),
    Promise("chapters, MP4 to MKV", Clip(chapters=CHAPTERS), "out.mkv", (times, chapters)),
    Promise(
        "chapters, MKV to MP4", Clip(name="clip.mkv", chapters=CHAPTERS), "out.mp4", (chapters,)
    ),
    Promise(
        "chapters, MP4 to TS: no place", Clip(chapters=CHAPTERS), "out.ts", (times, lost("chapter"))
    ),
    Promise(
        "all at once, MKV",
        Clip(
            name="clip.mkv",
            video=video(times=uneven(12), b_frames=2),
            audio=BOTH,
            subtitles=TEXT,
            attachments=(FONT, ("cover.jpg", "image/jpeg", JPEG)),
            chapters=CHAPTERS,
            metadata={"title": "Sous la pluie ☔", "comment": "a\nb"},
        ),
        "out.mkv",
        (
            *(times, audio, subtitles, attachments, cover, chapters),
            *(tags, stream_tags, dispositions, nothing_lost),
        ),
    ),
    Promise(
        "all at once, MP4",
        Clip(
            video=video(times=uneven(12), b_frames=2, matrix=rotation(90)),
            audio=BOTH,
            subtitles=MOVED_TEXT,
            cover=JPEG,
            chapters=CHAPTERS,
            metadata={"title": "Sous la pluie ☔", "comment": "a b"},
        ),
        "out.mp4",
        (
            *(times, audio, subtitles, cover, chapters, stream_count),
            *(tags, stream_tags, dispositions, matrix, nothing_lost),
        ),
    ),
]


@pytest.mark.parametrize("promise", OTHER_STREAMS, ids=lambda promise: promise.name)
def test_streams_stay(promise: Promise, tmp_path: Path) -> None:
    keep(promise, tmp_path)


@pytest.mark.parametrize("degrees", [0, 90])
@pytest.mark.parametrize(
    ("name", "is_kept"), [("out.ts", False), ("out.flv", False), ("out.mkv", True)]
)
def test_the_rotation_of_another_video_is_kept_or_told(name, is_kept, degrees, tmp_path):
    turned = Video(matrix=rotation(degrees) if degrees else None, seed=1)
    source = Clip(video=(Video(), turned)).make(tmp_path)
    losses = copy(source, tmp_path / name).notes.losses
    told = [(loss.what, loss.where) for loss in losses if loss.kind == "rotation"]
    is_told = degrees and not is_kept
    assert told == ([("rotation of video in stream 1 (h264)", "stream 1")] if is_told else [])


def counted_on(timecode: tuple[int, ...], rate: int) -> tuple[int, ...]:
    """The time code of the next picture where numbers are left out."""
    hours, minutes, seconds, pictures = timecode
    number = (60 * minutes + seconds) * rate + pictures + 1
    minutes, rest = divmod(number, 60 * rate)
    seconds, pictures = divmod(rest, rate)
    if not seconds and minutes % 10 and pictures < rate // 15:
        pictures = rate // 15
    return (hours + minutes // 60) % 24, minutes % 60, seconds, pictures


@pytest.mark.parametrize("rate", [30, 60])
def test_timecodes_leave_numbers_out(rate: int) -> None:
    fps = Fraction(rate * 1000, 1001)
    timecode = (23, 58, 0, rate // 15)
    for number in range(22 * 60 * rate):
        if timecode[3] < 8 or not number % 7:
            wanted = "{:02}:{:02}:{:02};{:02}".format(*timecode)
            begin = f"23:58:00;{rate // 15:02}"
            assert later(begin, number / fps, fps) == wanted
        timecode = counted_on(timecode, rate)


def test_timecodes_are_counted_or_stay() -> None:
    assert later("23:59:59:24", Fraction(1, 25), Fraction(25)) == "00:00:00:00"
    assert later("00:00:01:00", Fraction(2), Fraction(30000, 1001)) == "00:00:03:00"
    assert later("01:00:00:0", Fraction(9, 2), Fraction(10)) == "01:00:04:5"
    assert later("half past two", Fraction(2), Fraction(25)) == "half past two"


@pytest.mark.parametrize("name", REAL)
def test_a_real_clip_keeps_all_streams(name: str, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "dev" / "real" / name
    output = tmp_path / "out.mp4"
    config = RestoreConfig(preset="ultrafast", crf=30)
    report = restore_video(source, output, config, restorer=StandIn())
    case = Case(probe.probe(source), probe.probe(output), report)
    for check in (times, dispositions, color, size, aspect_stays, nothing_lost):
        check(case)
    if case.source.of("audio"):
        audio(case)
