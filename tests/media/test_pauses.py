"""Times across long pauses, as motion-triggered cameras make them: any clock, any container.

Each clip is a few frames, a pause of up to a day, and a few frames again.
"""

from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import av
import pytest
from clips import Audio, Clip, Subtitles, Video

from mhnet_video.errors import ReadError, WriteError
from mhnet_video.media.formats.containers import format_of
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.writing.write_errors import muxer_error
from mhnet_video.media.writing.writer import VideoWriter

DAY = 86_400
HALF_MILLISECOND = Fraction(1, 2000)
NANOSECONDS, MICROSECONDS = Fraction(1, 10**9), Fraction(1, 10**6)
CLOCKS = [
    NANOSECONDS,
    Fraction(11_111, 10**9),  # a Matroska's with a TimestampScale of its own
    MICROSECONDS,
    Fraction(1, 90_000),
    Fraction(1001, 30_000),
    Fraction(1, 48_000),
    Fraction(1, 15_360),
    Fraction(1, 1000),
]
PAUSES = [0, 5, 3000, 7 * 3600, DAY]
TIMED = ["mp4", "mov", "3gp", "mkv", "webm", "ts", "m2ts", "flv"]


def pausing(pause, clock=Fraction(1, 1000), *, first=4, then=4, step=Fraction(1, 25)):
    """Times of frames in ticks, with a pause between two of them."""
    seconds = [step * index for index in range(first)]
    seconds += [seconds[-1] + max(pause, step) + step * index for index in range(then)]
    return tuple(round(time / clock) for time in seconds)


def video(pause, clock=Fraction(1, 1000), **options):
    times = pausing(pause, clock, **options)
    return Video(codec="mjpeg", pixel_format="yuvj420p", times=times, time_base=clock)


def write(source, destination, *, start=None, duration=None, **options):
    """Carry a clip over without a network; gives the writer's notes."""
    reader = VideoReader(source, start=start, duration=duration)
    with reader, VideoWriter(destination, reader, overwrite=True, **options) as writer:
        for item in reader:
            writer.write(item)
        writer.finish()
    return writer.notes


def times(path, index=0):
    """When the packets of a stream are shown, in seconds."""
    with av.open(str(path)) as container:
        is_avi = container.format.name == "avi"
        return [
            (packet.dts if is_avi else packet.pts) * packet.time_base
            for packet in container.demux(container.streams[index])
            if packet.size
        ]


def farthest(one, other):
    """How far times differ at the most, in seconds."""
    assert len(one) == len(other)
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def in_nanoseconds(source, path):
    """A Matroska of a clip's streams whose clock counts nanoseconds."""
    with av.open(str(source)) as given, av.open(str(path), "w", format="matroska") as taken:
        streams = [taken.add_stream_from_template(stream) for stream in given.streams]
        for packet in given.demux():
            if packet.size:
                scale = packet.time_base / NANOSECONDS
                packet.pts, packet.dts = round(packet.pts * scale), round(packet.dts * scale)
                packet.duration = round(packet.duration * scale)
                packet.time_base, packet.stream = Fraction(1, 1000), streams[packet.stream_index]
                taken.mux_one(packet)
    content = path.read_bytes()
    millisecond, nanosecond = b"\x2a\xd7\xb1\x83\x0f\x42\x40", b"\x2a\xd7\xb1\x83\x00\x00\x01"
    assert content.count(millisecond) == 1
    path.write_bytes(content.replace(millisecond, nanosecond))
    return path


# the video


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("unit", CLOCKS, ids=str)
def test_frames_keep_their_times(unit, pause, tmp_path):
    source = Clip(name="clip.nut", video=(video(pause, unit),)).make(tmp_path)
    wanted = times(source)
    for extension in TIMED:
        result = tmp_path / f"out.{extension}"
        notes = write(source, result)
        assert farthest(wanted, times(result)) <= HALF_MILLISECOND, extension
        assert not notes.lost


@pytest.mark.parametrize("pause", [5, 3000, DAY])
def test_frames_of_a_nanosecond_matroska_keep_their_times(pause, tmp_path):
    clip = Clip(name="clip.mkv", video=(video(pause),)).make(tmp_path)
    source = in_nanoseconds(clip, tmp_path / "ns.mkv")
    for extension in ("mp4", "mov", "mkv"):
        write(source, tmp_path / f"out.{extension}")
        assert times(tmp_path / f"out.{extension}") == times(clip)


def test_frames_of_a_microsecond_mp4_keep_their_times(tmp_path):
    """Its average rate says nothing: a frame in minutes."""
    clip = Clip(video=(video(2000, MICROSECONDS),)).make(tmp_path)
    with VideoReader(clip) as reader:
        assert reader.fps == 25
    for extension in ("mp4", "avi"):
        write(clip, tmp_path / f"out.{extension}")
        assert times(tmp_path / f"out.{extension}") == times(clip)


@pytest.mark.parametrize("extension", ["mp4", "mov"])
def test_uneven_frames_keep_their_times_beside_sound(extension, tmp_path):
    """Its packets end fragments between two pictures."""
    shown = tuple(accumulate([40] * 8 + [280, 240, 200] * 12 + [40] * 5, initial=0))
    clip = Clip(name="clip.mkv", video=(Video(times=shown),), audio=(Audio(seconds=9),))
    write(clip.make(tmp_path), tmp_path / f"out.{extension}", preset="ultrafast")
    assert times(tmp_path / f"out.{extension}") == [Fraction(time, 1000) for time in shown]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_pictures_out_of_order_in_an_avi_are_shown_evenly(codec, tmp_path):
    """It does not say when they are shown."""
    frames = Video(codec=codec, times=tuple(range(30)), time_base=Fraction(1, 25), b_frames=2)
    source = Clip(name="clip.avi", video=(frames,)).make(tmp_path)
    notes = write(source, tmp_path / "out.mkv")
    shown = sorted(times(tmp_path / "out.mkv"))
    assert {after - before for before, after in pairwise(shown)} == {Fraction(1, 25)}
    assert not any("moved" in line for line in notes.lost)


@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_what_comes_before_the_first_sound_moves_no_frame_in_an_avi(codec, tmp_path):
    frames = video(0, first=10, then=10)
    source = Clip(name="clip.mkv", video=(frames,), audio=(Audio(codec=codec),)).make(tmp_path)
    write(source, tmp_path / "out.avi")
    assert times(tmp_path / "out.avi") == times(source)


@pytest.mark.parametrize(
    ("unit", "step"),
    [
        (Fraction(1, 90_000), 3003),
        (Fraction(1, 15_360), 512),
        (Fraction(1001, 30_000), 1),
        (Fraction(1, 600), 20),
        (MICROSECONDS, 33_367),
        (NANOSECONDS, 33_366_667),
    ],
    ids=str,
)
@pytest.mark.parametrize("extension", ["mp4", "mov"])
def test_times_of_ordinary_files_are_exact(unit, step, extension, tmp_path):
    ticks = tuple(step * index for index in range(8))
    clip = Clip(name="clip.nut", video=(Video(times=ticks, time_base=unit),)).make(tmp_path)
    result = tmp_path / f"out.{extension}"
    write(clip, result)
    assert times(result) == times(clip) == [tick * unit for tick in ticks]


@pytest.mark.parametrize(
    ("unit", "pause", "chosen"),
    [
        (NANOSECONDS, 1, NANOSECONDS),
        (NANOSECONDS, 5, Fraction(1, 9_000_000)),
        (MICROSECONDS, 2000, MICROSECONDS),
        (MICROSECONDS, 3000, Fraction(1, 90_000)),
        (Fraction(1001, 30_000), 19 * 3600, Fraction(1001, 30_000)),
        (Fraction(1, 90_000), 6 * 3600, Fraction(1, 90_000)),
        (Fraction(1, 90_000), 7 * 3600, Fraction(1, 30_000)),
        (Fraction(1, 90_000), DAY, Fraction(1, 24_000)),
        (Fraction(1, 15_360), DAY, Fraction(1, 15_360)),
    ],
    ids=str,
)
def test_a_clock_is_as_fine_as_the_pause_allows(unit, pause, chosen):
    assert format_of("a.mp4").clock(unit, Fraction(pause)) == chosen


def test_the_last_frame_is_shown_for_hours(tmp_path):
    ticks = (0, 3600, 7200)
    last = Video(
        times=ticks, durations=(3600, 3600, 20_000 * 90_000), time_base=Fraction(1, 90_000)
    )
    clip = Clip(video=(last,)).make(tmp_path)
    for extension in ("mp4", "mov"):
        result = tmp_path / f"out.{extension}"
        write(clip, result)
        with av.open(str(result)) as container:
            stream = container.streams.video[0]
            assert stream.duration * stream.time_base == 20_000 + Fraction(2, 25)


@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "ts"])
def test_the_pause_is_at_the_beginning(extension, tmp_path):
    late = video(0, NANOSECONDS)
    late = replace(late, times=tuple(tick + DAY * 10**9 for tick in late.times))
    clip = Clip(name="clip.nut", video=(late,), audio=(Audio(),)).make(tmp_path)
    result = tmp_path / f"out.{extension}"
    write(clip, result)
    assert farthest(times(clip), times(result)) <= HALF_MILLISECOND
    assert farthest(times(clip, 1), times(result, 1)) <= HALF_MILLISECOND


def test_a_killed_run_leaves_what_was_after_the_pause(tmp_path):
    clip = Clip(name="clip.nut", video=(video(DAY, NANOSECONDS, then=90),)).make(tmp_path)
    wanted = times(clip)
    for extension in ("mp4", "mkv", "ts"):
        with VideoReader(clip) as reader:
            writer = VideoWriter(tmp_path / f"out.{extension}", reader)
            for item in reader:
                writer.write(item)
            left = tmp_path / f"left.{extension}"
            left.write_bytes(writer.partial.read_bytes())
            writer.abandon()
        found = times(left)
        assert found[-1] > DAY
        assert farthest(wanted[: len(found)], found) <= HALF_MILLISECOND


def test_a_source_that_does_not_say_how_long_it_is(tmp_path, monkeypatch):
    """The picture before is shown again where a clock that was taken is too fine."""
    unit = Fraction(1, 90_000)
    clip = Clip(name="clip.nut", video=(video(DAY, unit),)).make(tmp_path)
    monkeypatch.setattr(VideoReader, "longest_pause", lambda *_: Fraction(0))
    notes = write(clip, tmp_path / "out.mp4")
    found = times(tmp_path / "out.mp4")
    added = set(found) - set(times(clip))
    assert set(times(clip)) < set(found)
    assert len(added) == 3
    assert notes.lost == [
        "times: 3 frames were added in pauses, the same as before: MP4 knows no pause so long"
    ]


@pytest.mark.parametrize("pause", [5, 3000, DAY])
def test_avi_keeps_pauses_in_frames(pause, tmp_path):
    clip = Clip(name="clip.nut", video=(video(pause, NANOSECONDS),)).make(tmp_path)
    result = tmp_path / "out.avi"
    notes = write(clip, result)
    assert set(times(clip)) <= set(times(result))
    assert len(times(result)) == len(times(clip)) + (pause * 25 - 1) // 60_000
    assert bool(notes.lost) == (pause > 2400)
    assert result.stat().st_size < 100 << 20


@pytest.mark.parametrize(
    "encoder", ["libx264", "libx265", "libsvtav1", "libvpx-vp9", "libvpx", "ffv1", "mpeg4", "mjpeg"]
)
def test_encoders_take_the_clock(encoder, tmp_path):
    for unit, pause in ((NANOSECONDS, 1), (NANOSECONDS, DAY), (MICROSECONDS, 2000)):
        clip = Clip(name="clip.nut", video=(video(pause, unit),)).make(tmp_path)
        extension = "mkv" if encoder in ("ffv1", "libvpx") else "mp4"
        result = tmp_path / f"out.{extension}"
        write(clip, result, encoder=encoder)
        assert farthest(times(clip), times(result)) <= HALF_MILLISECOND


def test_mpeg4_counts_a_day(tmp_path):
    ticks = (0, 960, 1000 + DAY * 1000, 1040 + DAY * 1000)
    clip = Clip(name="clip.mkv", video=(Video(times=ticks),)).make(tmp_path)
    notes = write(clip, tmp_path / "out.mkv", encoder="mpeg4")
    assert set(times(clip)) < set(times(tmp_path / "out.mkv"))
    assert notes.lost == [
        "times: 1 frame was added in pauses, the same as before: mpeg4 knows no pause so long"
    ]


def test_an_encoder_of_one_rate_is_told(tmp_path):
    clip = Clip(video=(Video(times=(0, 40, 55, 120, 160)),)).make(tmp_path)
    notes = write(clip, tmp_path / "out.mkv", encoder="mpeg2video")
    assert "times: mpeg2video knows one frame rate only" in notes.lost


def test_what_a_container_refuses_is_not_the_encoders_fault(tmp_path):
    clip = Clip().make(tmp_path)
    with pytest.raises(WriteError, match=r"MOV cannot hold what .* libvpx-vp9 .* end .* \.mkv\.$"):
        write(clip, tmp_path / "out.mov", encoder="libvpx-vp9")
    # what no trial foresees
    output = OutputFile(tmp_path / "out.mov")
    error = muxer_error(output, "libx265", format_of("out.mov"), ValueError("no such tag"))
    output.discard()
    assert "as MOV does not take what comes from the encoder libx265 (no such tag)" in str(error)


@pytest.mark.parametrize("extension", ["mp4", "avi"])
def test_a_damaged_time_is_no_pause_of_years(extension, tmp_path):
    ticks = (0, 40, 80, 10**14, 10**14 + 40)
    clip = Clip(name="clip.nut", video=(Video(times=ticks),)).make(tmp_path)
    result = tmp_path / f"out.{extension}"
    notes = write(clip, result)
    assert len(times(result)) == len(ticks)
    assert any("the recording's clock jumped" in line for line in notes.lost)
    assert result.stat().st_size < 10 << 20


# parts


def test_parts_across_and_inside_a_pause(tmp_path):
    clip = Clip(video=(video(20_000, Fraction(1, 90_000)),)).make(tmp_path)
    result = tmp_path / "out.mp4"
    write(clip, result, start=0.08)
    assert [round(time, 2) for time in map(float, times(result))] == [
        *(0, 0.04, 20_000.04, 20_000.08, 20_000.12, 20_000.16),
    ]
    write(clip, result, start=0.08, duration=10_000)
    assert len(times(result)) == 2
    with av.open(str(result)) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == 10_000
    write(clip, result, start=15_000)
    assert farthest(times(result), [Fraction(index, 25) for index in range(4)]) == 0
    with pytest.raises(ReadError, match="but a pause; choose a longer part"):
        write(clip, result, start=15_000, duration=10)


@pytest.mark.parametrize("start", [None, 5])
def test_a_part_has_its_last_frames_where_sound_comes_long_before_them(start, tmp_path):
    """A time-lapse has seconds of sound between two frames, and B-frames come later still."""
    every_five = Video(times=tuple(range(0, 60_000, 5000)), b_frames=3)
    clip = Clip(name="clip.ts", video=(every_five,), audio=(Audio(seconds=60),)).make(tmp_path)
    result = tmp_path / "out.mp4"
    write(clip, result, start=start, duration=20)
    shown = times(result)
    assert [round(time - shown[0]) for time in shown] == [0, 5, 10, 15]
    with av.open(str(result)) as container:
        sound = container.streams.audio[0]
        assert abs(sound.duration * sound.time_base - 20) < 0.1


@pytest.mark.parametrize(
    ("name", "codec"), [("clip.mkv", "aac"), ("clip.mkv", "pcm_s16le"), ("clip.ts", "aac")]
)
def test_a_part_has_its_sound_where_that_stands_before_all_pictures(name, codec, tmp_path):
    """Encoders hold pictures back, and muxers do not wait for minutes."""
    every_five = Video(times=tuple(range(0, 60_000, 5000)), b_frames=3)
    tracks = Audio(codec=codec, seconds=60), Audio(codec=codec, seconds=60)
    clip = Clip(name="even.mkv", video=(every_five,), audio=tracks).make(tmp_path)
    uneven = tmp_path / name
    with av.open(str(clip)) as given, av.open(str(uneven), "w") as taken:
        streams = [taken.add_stream_from_template(stream) for stream in given.streams]
        packets = [packet for packet in given.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.stream.type):
            packet.stream = streams[packet.stream_index]
            taken.mux(packet)
    result = tmp_path / "out.mkv"
    write(uneven, result, start=5, duration=20)
    assert [round(time) for time in times(result)] == [0, 5, 10, 15]
    for index in (1, 2):
        heard = times(result, index)
        assert abs(heard[0]) < 0.1 and abs(heard[-1] - 20) < 0.1


@pytest.mark.parametrize(
    ("start", "said"), [(None, "copied"), (10, "copied (empty)"), (2, "copied")]
)
def test_a_part_behind_the_end_of_the_sound_says_so(start, said, tmp_path):
    seconds = Video(times=tuple(range(0, 30_000, 1000)))
    clip = Clip(name="clip.mkv", video=(seconds,), audio=(Audio(seconds=5),)).make(tmp_path)
    notes = write(clip, tmp_path / "out.mkv", start=start)
    assert notes.kept == [f"sound in stream 1 (aac): {said}"]


# the other streams


def long_clip(folder, pause, codec="aac"):
    """Two videos, sound and subtitles with one pause."""
    half = pausing(pause)
    return Clip(
        name="clip.mkv",
        video=(video(pause), Video(times=half, time_base=Fraction(1, 1000))),
        audio=(Audio(codec=codec, pause=float(pause), seconds=0.4),),
        subtitles=(Subtitles(cues=((0.1, 0.1, "a"), (pause + 0.25, 0.1, "b"))),),
    ).make(folder)


@pytest.mark.parametrize("pause", [5, 3000, 12 * 3600, DAY])
@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "webm", "ts", "flv"])
def test_other_streams_keep_their_times(extension, pause, tmp_path):
    clip = long_clip(tmp_path, pause)
    for source in (clip, in_nanoseconds(clip, tmp_path / "ns.mkv")):
        result = tmp_path / f"out.{extension}"
        write(source, result)
        with av.open(str(source)) as container:
            names = [stream.type for stream in container.streams]
        # FLV begins at zero with what comes first, sound's lead-in
        shift = times(result)[0] - times(source)[0] if extension == "flv" else 0
        with av.open(str(result)) as container:
            for stream in container.streams:
                index = names.index(stream.type)
                if stream.type == "video":
                    index += stream.index > 0
                wanted = [time + shift for time in times(source, index)]
                found = times(result, stream.index)
                # sound that is encoded again is cut anew, and an MP4's subtitles are also ended;
                # a day of sound is more than an MP4 counts at once
                near = Fraction(1, 40) if stream.type == "audio" else HALF_MILLISECOND
                for time in wanted:
                    assert min(abs(time - other) for other in found) <= near, stream.type


def test_a_day_of_silence_is_none_in_an_mp4(tmp_path):
    """It counts samples in 32 bits: twelve hours at 48 kHz."""
    notes = write(long_clip(tmp_path, DAY), tmp_path / "out.mp4")
    assert any("MP4 knows none so long" in line for line in notes.lost)
    assert times(tmp_path / "out.mp4", 2)[-1] > DAY


@pytest.mark.parametrize("extension", ["mp4", "mkv", "ts", "flv"])
def test_a_pause_in_converted_sound_is_no_silence(extension, tmp_path):
    """A day of it would be a million packets, and more than 32 bits of samples."""
    clip = Clip(
        name="clip.mkv",
        video=(video(DAY),),
        audio=(Audio(codec="flac", pause=float(DAY), seconds=0.4),),
    ).make(tmp_path)
    result = tmp_path / f"out.{extension}"
    write(clip, result)
    found = times(result, 1)
    assert len(found) < 60
    assert abs(found[-1] - times(clip, 1)[-1]) < Fraction(1, 10)


@pytest.mark.parametrize(
    ("extension", "codec"),
    [("mov", "pcm_s16le"), ("avi", "pcm_s16le"), ("avi", "pcm_u8"), ("mov", "pcm_alaw")],
)
def test_a_pause_in_counted_samples_is_silence(extension, codec, tmp_path):
    clip = Clip(
        name="clip.nut",
        video=(video(5),),
        audio=(Audio(codec=codec, pause=5.0, seconds=0.4),),
    ).make(tmp_path)
    result = tmp_path / f"out.{extension}"
    notes = write(clip, result)
    assert not notes.lost
    with av.open(str(result)) as container:
        samples = [frame.to_ndarray().astype(int) for frame in container.decode(audio=0)]
    middle = 128 if codec == "pcm_u8" else 0
    # the A-law has no zero
    most = 8 if codec == "pcm_alaw" else 0
    silence = [part.size for part in samples if abs(part - middle).max() <= most]
    assert abs(sum(part.size for part in samples) - 5.4 * 48_000) < 100
    assert sum(silence) > 4.9 * 48_000
    assert abs(samples[-3] - middle).max() > 8


@pytest.mark.parametrize(
    ("extension", "codec", "pause"),
    [("mov", "pcm_s16le", DAY), ("avi", "pcm_s16le", DAY), ("avi", "ac3", 5), ("avi", "flac", DAY)],
)
def test_what_sound_cannot_pause_is_said(extension, codec, pause, tmp_path):
    clip = Clip(
        name="clip.mkv",
        video=(video(pause),),
        audio=(Audio(codec=codec, pause=float(pause), seconds=0.4),),
    ).make(tmp_path)
    result = tmp_path / f"out.{extension}"
    notes = write(clip, result)
    (told,) = [loss for loss in notes.losses if loss.where == "stream 1" and loss.kind == "times"]
    assert told.why.endswith(f"{pause}.0 s too early")
    assert times(result, 1)[-1] < 1
    assert result.stat().st_size < 100 << 20


# chapters


@pytest.mark.parametrize("unit", [NANOSECONDS, Fraction(1, 90_000), Fraction(1, 1000)], ids=str)
@pytest.mark.parametrize("extension", ["mp4", "mov", "mkv", "webm"])
def test_chapters_keep_their_times(unit, extension, tmp_path):
    edges = (0, DAY / 2, DAY + 0.2)
    clip = Clip(
        name="clip.mkv",
        video=(video(DAY),),
        audio=(Audio(rate=44_100),),
        chapters=((edges[0], edges[1], "one"), (edges[1], edges[2], "two")),
    ).make(tmp_path)
    source = tmp_path / "source.nut"
    _with_clock(clip, source, unit)
    result = tmp_path / f"out.{extension}"
    write(source, result)
    with av.open(str(result)) as container:
        for chapter, begin, end in zip(container.chapters(), edges[:2], edges[1:], strict=True):
            assert abs(float(chapter["start"] * chapter["time_base"]) - begin) < 0.001
            assert abs(float(chapter["end"] * chapter["time_base"]) - end) < 0.001


def _with_clock(clip: Path, path: Path, unit: Fraction) -> None:
    """The clip as NUT, its video counted in another unit."""
    with av.open(str(clip)) as given, av.open(str(path), "w", format="nut") as taken:
        streams = [taken.add_stream_from_template(stream) for stream in given.streams]
        streams[0].time_base = unit
        taken.set_chapters(given.chapters())
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                taken.mux(packet)
