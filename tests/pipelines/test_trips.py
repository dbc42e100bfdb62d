"""Files that follow one another become one, and nothing shows where they meet."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import probe
import pytest
import rainy_road
from clips import Audio, Clip, Data, Video, every, join
from standin import StandIn
from test_inventory import NOISE, unit_packets
from test_telemetry import block, named_by, with_index

import mhnet_video.pipelines.segmented_work as segmented_work
from mhnet_video.errors import ConfigError
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.pipelines.restore import restore_video
from mhnet_video.pipelines.segments import restore_in_segments

PACKET_SECONDS = Fraction(1024, 48000)
TICK = Fraction(2, 1000)
FRAME_SECONDS = Fraction(1, 25)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.0, 60.0])
def test_windows_and_the_filter_reach_across_files(road, tmp_path, monkeypatch, seconds):
    """The joined film is what one run makes of the film before it was cut."""
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", seconds)
    film, wanted = road
    files = rainy_road.cut(film, tmp_path, [0, 40, 90, 170, 250, 310])
    restore_in_segments(
        files, tmp_path / "out.mkv", rainy_road.EXACT, restorer=rainy_road.restorer()
    )
    rainy_road.assert_as_one_run(tmp_path / "out.mkv", wanted)


@pytest.mark.slow
def test_what_is_seen_of_the_glass_reaches_across_files(pane_road, tmp_path):
    film, wanted = pane_road
    files = rainy_road.cut(film, tmp_path, [0, 50, 170, 250, 310, 370])
    restorer = rainy_road.restorer(sees_glass=True)
    restore_in_segments(files, tmp_path / "out.mkv", rainy_road.EXACT, restorer=restorer)
    rainy_road.assert_as_one_run(tmp_path / "out.mkv", wanted)


@pytest.mark.slow
def test_windows_and_the_filter_reach_across_a_clock_that_begins_again(road, tmp_path):
    """Before the jump, across it, and in the file behind it, whose lead-in begins before it."""
    film, wanted = road
    parts = []
    for file in rainy_road.cut(film, tmp_path, [0, 90, 170, 250, 290]):
        parts.append(file.with_suffix(".ts"))
        with av.open(str(file)) as source, av.open(str(parts[-1]), "w") as output:
            target = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = target
                    output.mux(packet)
    files = [parts[0], join(tmp_path / "joined.ts", parts[1:4]), parts[4]]
    restore_in_segments(
        files, tmp_path / "out.mkv", rainy_road.EXACT, restorer=rainy_road.restorer()
    )
    rainy_road.assert_as_one_run(tmp_path / "out.mkv", wanted)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_whose_clock_begins_again_is_joined_like_the_others(tmp_path, place):
    parts = [
        Clip(name=f"{n}.ts", video=(Video(times=every(40, 25), seed=n),)).make(tmp_path)
        for n in range(4)
    ]
    jumping = join(tmp_path / "jumps.ts", parts[place : place + 2])
    files = [*parts[:place], jumping, *parts[place + 2 :]]
    report = restore_in_segments(files, tmp_path / "out.mp4", restorer=StandIn())
    assert [line for line in report.lost if "the recording's clock jumped (1 time)" in line]
    assert probe.probe(tmp_path / "out.mp4").video.times == tuple(
        FRAME_SECONDS * number for number in range(100)
    )
    with av.open(str(tmp_path / "out.mp4")) as container:
        begins = [chapter["start"] * chapter["time_base"] for chapter in container.chapters()]
    assert begins == [number + (number > place) for number in range(3)]


def test_sound_stays_with_its_pictures_where_a_clock_begins_again(tmp_path):
    parts = loops(tmp_path, 4, "ts")
    files = [parts[0], join(tmp_path / "jumps.ts", parts[1:3]), parts[3]]
    restore_in_segments(files, tmp_path / "out.mp4", restorer=StandIn())
    shown = [time for time, _ in packets(tmp_path / "out.mp4", "video")]
    heard = packets(tmp_path / "out.mp4", "audio")
    for number, part in enumerate(parts):
        shift = shown[30 * number] - packets(part, "video")[0][0]
        sound = packets(part, "audio")
        assert sum(is_heard(time + shift, each, heard) for time, each in sound) > len(sound) - 4


def test_a_long_pause_within_a_file_of_a_trip_stays(tmp_path):
    hours = 2 * 3600
    late = every(40, 15, 1000 * hours)
    files = [
        Clip(name="0.mp4", video=(Video(times=every(40, 15) + late, gop=15),)).make(tmp_path),
        Clip(name="1.mp4", video=(Video(times=every(40, 15), seed=1),)).make(tmp_path),
    ]
    report = restore_in_segments(files, tmp_path / "out.mp4", restorer=StandIn())
    shown = probe.probe(tmp_path / "out.mp4").video.times
    assert shown[15:] == tuple(hours + FRAME_SECONDS * number for number in range(30))
    assert report.lost == ()


def loops(folder, count, extension="mp4", *, seconds=1.2, **audio):
    """Files whose sound is a little longer or shorter than their pictures."""
    return [
        Clip(
            name=f"loop{number:02}.{extension}",
            video=(Video(times=every(40, round(25 * seconds)), gop=10, seed=number),),
            audio=(Audio(seconds=seconds + (number % 5 - 2) / 100, **audio),),
        ).make(folder)
        for number in range(count)
    ]


def packets(path, kind):
    """Time and content of each packet."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extension", "output", "count"),
    [("mp4", "mp4", 50), ("mp4", "mkv", 8), ("ts", "mp4", 8), ("mkv", "ts", 8)],
)
def test_sound_stays_with_its_pictures_over_fifty_files(tmp_path, extension, output, count):
    """Each packet of sound is as far from its file's first picture as it was there."""
    files = loops(tmp_path, count, extension, seconds=0.4)
    path = tmp_path / f"out.{output}"
    report = restore_in_segments(files, path, restorer=StandIn())
    assert report.frames == 10 * count
    shown = [time for time, _ in packets(path, "video")]
    heard = packets(path, "audio")
    matched = 0
    for number, file in enumerate(files):
        shift = shown[10 * number] - packets(file, "video")[0][0]
        sound = packets(file, "audio")
        kept = [each for each in sound if is_heard(each[0] + shift, each[1], heard)]
        # what is left out is what the file before has at the same time
        assert len(sound) - len(kept) <= 3
        matched += len(kept)
    assert matched == len(heard)
    steps = [after[0] - before[0] for before, after in pairwise(heard)]
    assert min(steps) > PACKET_SECONDS / 2 - TICK
    assert max(steps) < 5 * PACKET_SECONDS / 2


def is_heard(time, content, heard):
    """Whether a packet is among those of an output, at its time; in TS it has a header besides."""
    return any(
        abs(time - other) < TICK and (each.endswith(content) or content.endswith(each))
        for other, each in heard
    )


@pytest.mark.parametrize("output", ["mp4", "mkv"])
def test_each_file_is_a_chapter(tmp_path, output):
    files = loops(tmp_path, 3)
    path = tmp_path / f"out.{output}"
    report = restore_in_segments(files, path, restorer=StandIn())
    with av.open(str(path)) as container:
        chapters = [
            (float(c["start"] * c["time_base"]), c["metadata"]["title"])
            for c in container.chapters()
        ]
    assert chapters == [(0.0, "loop00"), (1.2, "loop01"), (2.4, "loop02")]
    assert report.kept[:2] == ("3 files one after another", "3 chapters")
    assert report.source == f"{files[0]} and 2 files more"
    assert probe.probe(path).video.times == tuple(FRAME_SECONDS * i for i in range(90))


def test_records_are_read_as_often_in_a_long_trip_as_in_a_short_one(tmp_path, monkeypatch):
    files = loops(tmp_path, 6, seconds=0.4)
    read: Counter[int] = Counter()
    plain = SegmentStore.record

    def record(store, index):
        read[index] += 1
        return plain(store, index)

    monkeypatch.setattr(SegmentStore, "record", record)
    most = []
    for count in (3, 6):
        read.clear()
        restore_in_segments(files[:count], tmp_path / f"{count}.mp4", restorer=StandIn())
        most.append(max(read.values()))
    assert most[0] == most[1]


def test_sound_that_two_files_have_is_left_out_of_the_second_and_told(tmp_path):
    files = loops(tmp_path, 4, "ts")
    report = restore_in_segments(files, tmp_path / "out.ts", restorer=StandIn())
    assert any("s of sound where files meet" in line for line in report.lost)


def test_sound_that_an_edit_list_hides_is_none_that_two_files_have(tmp_path):
    """Each file begins with what an encoder puts before the first sound."""
    report = restore_in_segments(loops(tmp_path, 2), tmp_path / "out.mp4", restorer=StandIn())
    assert report.lost == ()


def test_sound_that_is_encoded_again_stays_with_its_pictures(tmp_path):
    files = loops(tmp_path, 20, "mov", seconds=0.4, codec="pcm_mulaw", rate=8000)
    path = tmp_path / "out.mp4"
    restore_in_segments(files, path, restorer=StandIn())
    last = packets(path, "audio")[-1][0]
    assert abs(last - packets(path, "video")[-1][0]) < 3 * FRAME_SECONDS


def test_other_packets_follow_their_file(tmp_path):
    files = [
        Clip(name=f"{n}.ts", video=(Video(times=every(40, 15), seed=n),), data=(Data(),)).make(
            tmp_path
        )
        for n in range(3)
    ]
    path = tmp_path / "out.ts"
    restore_in_segments(files, path, restorer=StandIn())
    with av.open(str(path)) as container:
        times = [p.pts * p.time_base for p in container.demux(container.streams.data[0]) if p.size]
        first = container.streams.video[0].start_time * container.streams.video[0].time_base
    wanted = [Fraction(6, 10) * file + Fraction(n, 10) for file in range(3) for n in range(6)]
    assert (
        np.abs(np.array([t - first for t in times], float) - np.array(wanted, float)).max() < 0.05
    )


def test_what_later_files_have_lost_is_told(tmp_path):
    """A hole, what decoders pass over, and an end that is missing."""
    files = [
        Clip(name=f"{n}.mkv", video=(Video(times=every(40, 50), seed=n, gop=10),)).make(tmp_path)
        for n in range(3)
    ]
    files.append(unit_packets(tmp_path, "h264", bytes((26,)) + NOISE, "camera.mkv"))
    whole = files[1].read_bytes()
    middle = len(whole) // 2
    files[1].write_bytes(whole[:middle] + bytes(700) + whole[middle + 700 :])
    files[2].write_bytes(files[2].read_bytes()[: len(whole) * 6 // 10])
    alone = [
        restore_video(file, file.with_suffix(".mp4"), restorer=StandIn()).damaged for file in files
    ]
    assert alone[1] and not alone[0]
    report = restore_in_segments(files, tmp_path / "out.mp4", restorer=StandIn())
    assert report.damaged == sum(alone)
    assert any("the source says that it is longer" in line for line in report.lost)
    assert any("unknown units of type 26" in line for line in report.lost)


def test_chapters_of_the_files_are_told(tmp_path):
    scenes = ((0.0, 0.2, "One"), (0.2, 0.4, "Two"))
    files = [Clip(name=f"{n}.mp4", chapters=scenes).make(tmp_path) for n in range(2)]
    report = restore_in_segments(files, tmp_path / "out.mp4", restorer=StandIn())
    assert report.lost == ("4 chapters: the output has one for each file instead",)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Clip(name="b.mp4", video=(Video(width=96),), audio=(Audio(),)), "size is another"),
        (Clip(name="b.mp4", audio=(Audio(rate=44100),)), "sound or other streams are others"),
        (Clip(name="b.mp4"), "kinds of streams are others"),
        (Clip(name="b.mp4", video=(Video(pixel_format="yuv444p"),), audio=(Audio(),)), "pixel"),
    ],
)
def test_a_file_of_another_kind_is_not_joined(tmp_path, other, said):
    first = Clip(name="a.mp4", audio=(Audio(),)).make(tmp_path)
    second = other.make(tmp_path)
    with pytest.raises(ConfigError, match=f"cannot be joined to .*{said}.*restore it by itself"):
        restore_in_segments([first, second], tmp_path / "out.mp4", restorer=StandIn())
    assert not list(tmp_path.glob(".*"))


def test_positions_of_all_files_are_carried(tmp_path):
    wanted = [[block(1), block(2)], [block(3), block(4)], [block(5)]]
    files = [
        with_index(Clip(name=f"{n}.mp4", video=(Video(seed=n),)).make(tmp_path), blocks)
        for n, blocks in enumerate(wanted)
    ]
    report = restore_in_segments(files, tmp_path / "out.mp4", restorer=StandIn())
    assert named_by(tmp_path / "out.mp4") == [each for blocks in wanted for each in blocks]
    assert any("positions and sensors" in line for line in report.kept)
    assert report.lost == ()
    elsewhere = restore_in_segments(files, tmp_path / "out.mkv", restorer=StandIn())
    assert any("positions (GPS)" in line for line in elsewhere.lost)
