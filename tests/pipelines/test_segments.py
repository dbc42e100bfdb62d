"""Segments are joined to what one run gives, whatever ended the runs before."""

import errno
import os
import sys
import threading
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import probe
import processes
import promises
import pytest
import rainy_road
from av.codec.context import Flags
from clips import Audio, Clip, Video, every, join
from filelock import FileLock
from sounds import tones
from standin import StandIn, inverted
from test_inventory import CAPTIONS, unit_packets
from test_kept_pictures import PICTURE
from test_kept_sound import AUDIO
from test_kept_streams import OTHER_STREAMS
from test_kept_tags import TAGS
from test_kept_times import TIMES
from test_sound import with_edits
from waiting import SECONDS, wait_until

import mhnet_video.pipelines.segmented_work as segmented_work
import mhnet_video.pipelines.segments as segments
from mhnet_video.cli.main import main
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ConfigError, MHNetVideoError, ReadError, WriteError
from mhnet_video.frame import Frame, Pair
from mhnet_video.media.output_file import OutputFile
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.segments.segment_encoding import header_of
from mhnet_video.media.segments.segment_plan import LeadIn, plan_segments
from mhnet_video.media.segments.segment_reader import SegmentReader
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.pipelines.restore import restore_video
from mhnet_video.pipelines.segments import restore_in_segments
from mhnet_video.restoration import frame_chain
from mhnet_video.restoration.working_scale import ScaleReason, WorkingScale

HERE = Path(__file__).parents[1]
CLIP = Clip(
    video=(Video(times=every(40, 100), gop=10, b_frames=2),),
    audio=(Audio(seconds=4),),
    chapters=((0, 1, "dry"), (1, 4, "wet")),
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Segments of a second."""
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", 1.0)


@pytest.fixture
def source(tmp_path):
    return CLIP.make(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.9, 2.3, 4.0, 10.8])
def test_segments_of_any_length_are_what_one_run_gives(road, tmp_path, monkeypatch, seconds):
    """With cuts, copies and a frozen picture before, behind and across the seams."""
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", seconds)
    film, wanted = road
    restore_in_segments(
        [film], tmp_path / "out.mkv", rainy_road.EXACT, restorer=rainy_road.restorer()
    )
    rainy_road.assert_as_one_run(tmp_path / "out.mkv", wanted)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.3, 4.0])
def test_segments_see_the_glass_as_one_run_does(pane_road, tmp_path, monkeypatch, seconds):
    """While the camera moves now faster, now slower, and neighbours are as far apart as it asks."""
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", seconds)
    film, wanted = pane_road
    restorer = rainy_road.restorer(sees_glass=True)
    restore_in_segments([film], tmp_path / "out.mkv", rainy_road.EXACT, restorer=restorer)
    rainy_road.assert_as_one_run(tmp_path / "out.mkv", wanted)


def test_segments_begin_in_the_scene_of_the_clip(source, tmp_path, monkeypatch):
    asked, scales = [], set()

    def first_scene_scale(frames, device):
        asked.append(next(frames).pts)
        return 0.5

    monkeypatch.setattr(frame_chain, "first_scene_scale", first_scene_scale)

    def noted(frame):
        scales.add(restorer.scene_scale)
        return frame

    restorer = StandIn(noted)
    restore_in_segments([source], tmp_path / "out.mp4", restorer=restorer)
    assert (asked, scales, restorer.scene_scale) == ([0], {0.5}, None)


def test_the_report_has_the_scales_of_all_segments(source, tmp_path):
    class Soft(StandIn):
        """Works at half the scale in the last second."""

        def pairs(self, items, **how):
            self.scales = Counter()
            for item in super().pairs(items, **how):
                if isinstance(item, Pair):
                    is_last = item.source.pts * item.source.time_base >= 3
                    scale = (0.5, ScaleReason.SOFT) if is_last else (1.0, ScaleReason.FULL)
                    self.scales[WorkingScale(*scale)] += 1
                yield item

    report = restore_in_segments([source], tmp_path / "out.mp4", restorer=Soft())
    shares = [(each.scale, each.share, each.reason) for each in report.scales]
    assert shares == [(1.0, 0.75, "full size"), (0.5, 0.25, "soft picture")]
    assert report.scale == 1.0


def test_the_report_counts_the_frames_of_each_segment_once(source, tmp_path):
    class Passing(StandIn):
        """Passes all frames as they are, and has no numbers for those of the last second."""

        def pairs(self, items, **how):
            self.dry = self.passed_through = 0
            for item in super().pairs(items, **how):
                if isinstance(item, Pair):
                    self.dry += 1
                    self.passed_through += item.source.pts * item.source.time_base >= 3
                yield item

    report = restore_in_segments([source], tmp_path / "out.mp4", restorer=Passing())
    assert report.dry == 100
    assert report.lost == ("25 frames are as they were: the network gave no numbers",)


PROMISES = [
    promise
    for promise in (*PICTURE, *AUDIO, *OTHER_STREAMS, *TAGS, *TIMES)
    if "start" not in promise.config
]


@pytest.mark.parametrize("promise", PROMISES[::9], ids=lambda promise: promise.name)
def test_what_is_kept_by_one_run_is_kept_in_segments(promise, tmp_path, monkeypatch):
    def in_segments(source, output, config, *, restorer):
        return restore_in_segments([source], output, config, restorer=restorer)

    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", 0.1)
    monkeypatch.setattr(promises, "restore_video", in_segments)
    if promise.output.endswith(".avi"):
        with pytest.raises(ConfigError, match="AVI has no times"):
            promises.keep(promise, tmp_path)
    else:
        promises.keep(promise, tmp_path)


@pytest.mark.parametrize("extension", ["mp4", "mkv", "ts"])
def test_the_report_is_that_of_one_run(source, tmp_path, extension):
    one, other = tmp_path / f"one.{extension}", tmp_path / f"other.{extension}"
    wanted = restore_video(source, one, restorer=StandIn()).to_dict()
    found = restore_in_segments([source], other, restorer=StandIn()).to_dict()
    own = ("seconds", "destination")
    assert {k: v for k, v in found.items() if k not in own} == {
        k: v for k, v in wanted.items() if k not in own
    }
    for stream in probe.probe(one).streams:
        times = [[p.pts for p in probe.packets(each, stream.index)] for each in (one, other)]
        assert times[0] == times[1]


def test_what_frames_carry_is_told_as_by_one_run(tmp_path):
    unit = bytes((6, 4, len(CAPTIONS))) + CAPTIONS + b"\x80"
    path = unit_packets(tmp_path, "h264", unit, "camera.mp4")
    config = RestoreConfig(encoder="ffv1")
    wanted = restore_video(path, tmp_path / "one.mkv", config, restorer=StandIn())
    found = restore_in_segments([path], tmp_path / "other.mkv", config, restorer=StandIn())
    assert found.losses == wanted.losses
    assert [loss.what for loss in wanted.losses] == ["captions"]


def test_before_and_after_are_side_by_side_as_of_one_run(source, tmp_path):
    one, other = tmp_path / "one.mp4", tmp_path / "other.mp4"
    config = RestoreConfig(compare=True)
    wanted = restore_video(source, one, config, restorer=StandIn(inverted))
    found = restore_in_segments([source], other, config, restorer=StandIn(inverted))
    assert found.lost == wanted.lost == ()
    assert [probe.probe(path).video.width for path in (one, other)] == [128, 128]


def test_damage_is_counted_once(tmp_path):
    path = Clip(name="in.ts", video=(Video(times=every(40, 100), gop=10),)).make(tmp_path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 188 * 188
    content[middle : middle + 188 * 5] = bytes(188 * 5)
    path.write_bytes(content)
    wanted = restore_video(path, tmp_path / "one.mkv", restorer=StandIn())
    found = restore_in_segments([path], tmp_path / "other.mkv", restorer=StandIn())
    assert (found.frames, found.damaged) == (wanted.frames, wanted.damaged)
    assert wanted.damaged


def test_a_transport_stream_of_more_than_a_turn_of_its_clock_is_joined(tmp_path):
    """Which is 26 hours."""
    times = tuple(50_000_000 * part + time for part in range(3) for time in every(40, 3))
    path = Clip(name="in.mkv", video=(Video(times=times),)).make(tmp_path)
    restore_video(path, tmp_path / "one.ts", restorer=StandIn())
    assert restore_in_segments([path], tmp_path / "other.ts", restorer=StandIn()).frames == 9
    assert probe.probe(tmp_path / "other.ts").video.times == (
        probe.probe(tmp_path / "one.ts").video.times
    )


def test_a_source_whose_clock_jumps_is_one_segment(tmp_path):
    parts = [
        Clip(name=f"{n}.ts", video=(Video(times=every(40, 50), seed=n, gop=10),)).make(tmp_path)
        for n in range(2)
    ]
    path = join(tmp_path / "in.ts", parts)
    assert len(plan_segments([path], 0.5).segments) == 1
    wanted = restore_video(path, tmp_path / "one.mkv", restorer=StandIn())
    found = restore_in_segments([path], tmp_path / "other.mkv", restorer=StandIn())
    assert found.lost == wanted.lost
    assert probe.probe(tmp_path / "other.mkv").video.times == (
        probe.probe(tmp_path / "one.mkv").video.times
    )


def test_a_plan_has_every_frame_of_a_clock_that_begins_again(tmp_path):
    parts = [
        Clip(name=f"{n}.ts", video=(Video(times=every(40, 50), seed=n, gop=10),)).make(tmp_path)
        for n in range(2)
    ]
    plan = plan_segments([join(tmp_path / "in.ts", parts), parts[0]], 0.5)
    assert [source.pictures for source in plan.sources] == [100, 50]
    assert [source.shift for source in plan.sources] == [0, 4]
    # as many frames are passed over as there are before the lead-in
    assert plan.segments[1].leads[0] == LeadIn(source=0, begin=None, skip=36)


def test_pictures_that_an_edit_list_hides_are_not_planned(tmp_path):
    path = tones(tmp_path / "clip.mov", [400, 800, 1200], rate=48000)
    path.write_bytes(with_edits(path.read_bytes(), [(1.5, 1)]))
    with VideoReader(path) as reader:
        assert sum(isinstance(item, Frame) for item in reader) == 25
    assert plan_segments([path], 1.0).sources[0].pictures == 25


def test_segments_begin_on_key_frames(source):
    plan = plan_segments([source], 1.0)
    with av.open(str(source)) as container:
        keys = {packet.pts for packet in container.demux(video=0) if packet.is_keyframe}
    begins = [segment.begin for segment in plan.segments]
    assert begins[0] is None
    assert set(begins[1:]) <= keys
    assert [segment.end for segment in plan.segments] == [*begins[1:], None]
    assert len(begins) == 4


@pytest.mark.parametrize("name", ["in.mp4", "in.ts"])
def test_a_lead_in_is_as_long_as_planned(name, tmp_path):
    """Also where the clock of a recording begins later than at zero."""
    video = Video(times=every(40, 150), gop=10, b_frames=2, period=10)
    path = Clip(name=name, video=(video,)).make(tmp_path)
    plan = plan_segments([path], 4.0)
    segment = plan.segments[1]
    with SegmentReader([path], plan, segment, segment.leads[0]) as reader:
        frames = sum(1 for _ in reader.ahead())
    assert (reader.num_lead, reader.num_own, frames) == (64, 50, 114)


KILLED = """
import sys, threading
from pathlib import Path
sys.path[:0] = [sys.argv[3], sys.argv[3] + "/.."]
from standin import StandIn, inverted
import mhnet_video.pipelines.segmented_work as segmented_work
import mhnet_video.pipelines.segments as segments

def held(frame):
    if Path(sys.argv[4]).exists():
        threading.Event().wait()
    return inverted(frame)

segmented_work.SEGMENT_SECONDS = 1.0
segments.restore_in_segments([sys.argv[1]], sys.argv[2], restorer=StandIn(held))
"""


@pytest.mark.slow
@pytest.mark.parametrize("extension", ["mp4", "ts", "mkv"])
def test_a_run_that_is_killed_twice_gives_the_very_same_file(source, tmp_path, extension):
    wanted, output = tmp_path / f"wanted.{extension}", tmp_path / f"out.{extension}"
    restore_in_segments([source], wanted, restorer=StandIn(inverted))
    parts = SegmentStore(output).folder
    for begun in ("000001.partial.nut", "000003.partial.nut"):
        # where the file of the segment is, the frames in the queue are too few to complete it
        command = [sys.executable, "-c", KILLED, source, output, HERE, parts / begun]
        process = processes.start(command)
        wait_until((parts / begun).exists)
        process.kill()
        process.wait(SECONDS)
        assert (parts / begun).exists()
        assert not output.exists()
    done = {
        path: path.stat().st_mtime_ns for path in parts.glob("*.nut") if "part" not in path.name
    }
    assert len(done) == 3
    messages = []
    restore_in_segments([source], output, restorer=StandIn(inverted), on_message=messages.append)
    assert messages == ["going on: 3 of 4 segments are done already."]
    if extension != "mkv":
        assert output.read_bytes() == wanted.read_bytes()
    for stream in probe.probe(wanted).streams:
        # FFmpeg gives each Matroska a random number to tell it by
        assert probe.packets(output, stream.index) == probe.packets(wanted, stream.index)
    assert not parts.exists()


def stopped(source, output, after=1, **config):
    """What is left of a run that was stopped in a segment."""
    stop = threading.Event()

    class Stopping(StandIn):
        def pairs(self, items, **how):
            if len(list(SegmentStore(output).folder.glob("*.json"))) > after:
                stop.set()
            return super().pairs(items, **how)

    config = RestoreConfig(**config)
    return restore_in_segments([source], output, config, restorer=Stopping(), stop=stop)


def test_a_stop_keeps_the_segments_and_says_where(source, tmp_path):
    output = tmp_path / "out.mp4"
    report = stopped(source, output, after=2)
    assert report.interrupted
    assert report.parts == str(tmp_path / ".out.mp4.parts")
    assert report.frames == 2 * 25 + 5 + 5
    assert not output.exists()
    progress = []
    report = restore_in_segments([source], output, restorer=StandIn(), on_progress=progress.append)
    assert (report.interrupted, report.parts, report.frames) == (False, "", 100)
    assert progress[0].frames >= 60
    assert progress[-1].total == 100
    assert progress[-1].position_seconds == pytest.approx(3.96)
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "out.mp4"]


def test_other_settings_begin_anew_and_say_so(source, tmp_path):
    output = tmp_path / "out.mp4"
    stopped(source, output)
    messages = []
    config = RestoreConfig(crf=30)
    restore_in_segments([source], output, config, restorer=StandIn(), on_message=messages.append)
    assert len(messages) == 1
    assert messages[0].startswith("beginning anew")
    wanted = tmp_path / "wanted.mp4"
    restore_in_segments([source], wanted, config, restorer=StandIn())
    assert output.read_bytes() == wanted.read_bytes()


def test_another_strength_of_the_restorer_begins_anew(source, tmp_path):
    stopped(source, tmp_path / "out.mp4")
    messages, other = [], StandIn()
    other.strength = 0.5
    restore_in_segments(source, tmp_path / "out.mp4", restorer=other, on_message=messages.append)
    assert messages[0].startswith("beginning anew")


def test_what_changes_no_picture_does_not_begin_anew(source, tmp_path):
    output = tmp_path / "out.mp4"
    stopped(source, output)
    messages, config = [], RestoreConfig(gpx=True, overwrite=True)
    restore_in_segments(source, output, config, restorer=StandIn(), on_message=messages.append)
    assert messages == ["going on: 1 of 4 segments are done already."]


def test_a_source_that_changed_begins_anew(source, tmp_path):
    output = tmp_path / "out.mp4"
    stopped(source, output)
    os.utime(source, ns=(1, 1))
    messages = []
    restore_in_segments([source], output, restorer=StandIn(), on_message=messages.append)
    assert messages[0].startswith("beginning anew")


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_source_that_changes_in_the_middle_is_told(source, tmp_path, is_gone):
    class Meddling(StandIn):
        def pairs(self, items, **how):
            if (tmp_path / ".out.mp4.parts/000000.json").exists():
                if is_gone:
                    source.rename(tmp_path / "away.mp4")
                else:
                    os.utime(source, ns=(1, 1))
            return super().pairs(items, **how)

    with pytest.raises(ReadError, match=r"1 segment is kept in .*\.out\.mp4\.parts"):
        restore_in_segments([source], tmp_path / "out.mp4", restorer=Meddling())
    assert sorted(os.listdir(tmp_path / ".out.mp4.parts")) == [
        *("000000.json", "000000.nut", "plan.json")
    ]


def test_a_full_disk_keeps_the_segments(source, tmp_path, monkeypatch):
    plain = OutputFile.write

    def write(self, data):
        if "segment 3" in self.name:
            self.error = OSError(errno.ENOSPC, "full")
            raise self.error
        return plain(self, data)

    monkeypatch.setattr(OutputFile, "write", write)
    with pytest.raises(WriteError, match=r"disk is full.* 2 segments are kept"):
        restore_in_segments([source], tmp_path / "out.mp4", restorer=StandIn())
    monkeypatch.undo()
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", 1.0)
    messages = []
    restore_in_segments(
        [source], tmp_path / "out.mp4", restorer=StandIn(), on_message=messages.append
    )
    assert messages == ["going on: 2 of 4 segments are done already."]


def test_a_segment_that_was_cut_short_is_made_again(source, tmp_path):
    output = tmp_path / "out.mp4"
    stopped(source, output, after=2)
    part = tmp_path / ".out.mp4.parts/000000.nut"
    part.write_bytes(part.read_bytes()[:-1])
    messages = []
    report = restore_in_segments([source], output, restorer=StandIn(), on_message=messages.append)
    assert messages == ["going on: 1 of 4 segments are done already."]
    assert report.frames == 100


def test_a_join_that_is_not_what_it_should_be_keeps_the_segments(source, tmp_path, monkeypatch):
    records = SegmentStore.records

    def wrong(self, source=None):
        for record in records(self, source):
            if source is not None:
                record.frames[3][0] += 30
            yield record

    monkeypatch.setattr(SegmentStore, "records", wrong)
    plain = SegmentStore.packets

    def moved(self, index):
        for number, packet in enumerate(plain(self, index)):
            if (index, number) == (1, 5):
                continue
            yield packet

    monkeypatch.setattr(SegmentStore, "packets", moved)
    with pytest.raises(MHNetVideoError, match=r"\.parts"):
        restore_in_segments([source], tmp_path / "out.mp4", restorer=StandIn())
    assert len(list((tmp_path / ".out.mp4.parts").glob("*.nut"))) == 4
    assert not (tmp_path / "out.mp4").exists()


def test_segments_of_another_encoder_are_not_joined(source, tmp_path, monkeypatch):
    records = SegmentStore.record

    def wrong(self, index):
        record = records(self, index)
        return replace(record, header="other") if index == 2 else record

    monkeypatch.setattr(SegmentStore, "record", wrong)
    with pytest.raises(WriteError, match="encoded by another encoder"):
        restore_in_segments([source], tmp_path / "out.mp4", restorer=StandIn())
    assert not (tmp_path / "out.mp4").exists()


def opened(encoder, *, threads=1, width=64):
    """The fingerprint of an encoder's header."""
    context = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = width, 64, "yuv420p"
    context.time_base, context.thread_count = Fraction(1, 25), threads
    context.flags |= Flags.global_header
    context.options = {"x265-params": "log-level=error"} if encoder == "libx265" else {}
    context.open()
    return header_of(context)


@pytest.mark.parametrize("extension", ["mp4", "mkv"])
def test_hevc_in_segments_has_the_tag_and_the_light_of_one_run(tmp_path, monkeypatch, extension):
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", 0.4)
    screen = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    light = f"keyint=5:max-cll=1000,400:master-display={screen}"
    video = Video(
        codec="libx265",
        pixel_format="yuv420p10le",
        times=every(40, 15),
        options=(("x265-params", f"log-level=none:{light}"),),
        color=(1, 9, 9, 16),
    )
    source = Clip(name="clip.mp4", video=(video,)).make(tmp_path)
    output = tmp_path / f"out.{extension}"
    report = restore_in_segments([source], output, RestoreConfig(), restorer=StandIn())
    assert (report.encoder, report.losses, report.frames) == ("libx265", (), 15)
    with av.open(str(output)) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "hevc" and (extension == "mkv" or context.codec_tag == "hvc1")
        frames = list(container.decode(video=0))
        assert len(frames) == 15
        kinds = {data.type.name for data in frames[0].side_data}
        assert {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"} <= kinds


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_on_how_many_cores_a_segment_was_encoded_does_not_matter(encoder):
    assert opened(encoder) == opened(encoder, threads=8)
    assert opened(encoder) != opened(encoder, width=128)


def test_an_output_that_another_run_makes_is_left_to_it(source, tmp_path):
    lock = FileLock(tmp_path / ".out.mp4.lock")
    with lock, pytest.raises(WriteError, match="is made by another run now"):
        restore_in_segments([source], tmp_path / "out.mp4", restorer=StandIn())
    assert restore_in_segments([source], tmp_path / "out.mp4", restorer=StandIn()).frames
    assert not lock.is_locked and not Path(lock.lock_file).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "out.mp4"], "standard input can be read once only"),
        (["http://example.org/a.mp4", "out.mp4"], "can be read once only"),
        ([".", "out.mp4"], "is a folder"),
        (["clip.mp4", "-"], "standard output cannot be written in segments"),
        (["clip.mp4", "out.avi"], "AVI has no times"),
        (["clip.mp4", "out.png"], "is a picture"),
        (["clip.mp4", "out.mp4", "--start", "1"], "neither --start nor --duration"),
        (["clip.mp4", "out.mp4", "--duration", "1"], "neither --start nor --duration"),
    ],
)
def test_what_has_no_segments_is_refused(source, arguments, said, monkeypatch, capsys):
    monkeypatch.chdir(source.parent)
    assert main([*arguments, "--resume"]) == 2
    assert said in capsys.readouterr().err
    assert os.listdir(source.parent) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("encoder", "name", "label"),
    [
        ("libvpx-vp9", "out.ts", "MPEG-TS"),
        ("libvpx-vp9", "out.mov", "MOV"),
        ("libsvtav1", "out.mov", "MOV"),
        ("mpeg4", "out.flv", "FLV"),
        ("ffv1", "out.webm", "WebM"),
    ],
)
def test_an_encoder_that_the_format_does_not_hold_is_refused_before_the_work(
    encoder, name, label, source, tmp_path
):
    config = RestoreConfig(encoder=encoder)
    restorer = StandIn()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(WriteError, match=f"{label} cannot hold .* {encoder} makes; .*mkv"):
        restore_in_segments(source, tmp_path / name, config, restorer=restorer)
    assert not restorer.seen
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("after", [0, 1])
def test_a_run_that_fails_before_its_first_segment_leaves_no_folder(after, source, tmp_path):
    class Failing(StandIn):
        def pairs(self, items, **others):
            if self.count == after:
                raise WriteError("no more.")
            self.count += 1
            return super().pairs(items, **others)

    restorer = Failing()
    restorer.count = 0
    output = tmp_path / "out.mkv"
    with pytest.raises(WriteError, match=r"no more\."):
        restore_in_segments([source], output, restorer=restorer)
    assert (tmp_path / ".out.mkv.parts").exists() == bool(after)


def test_a_disk_that_is_full_from_the_beginning_keeps_no_folder(source, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"plan\.json cannot be written: the disk is full"):
        restore_in_segments([source], tmp_path / "out.mkv", restorer=StandIn())
    assert sorted(os.listdir(tmp_path)) == before


def test_nothing_is_overwritten(source, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(WriteError, match="exists already"):
        restore_in_segments([source], tmp_path / "out.mp4", restorer=StandIn())
    with pytest.raises(WriteError, match="is the input itself"):
        restore_in_segments([source], source, restorer=StandIn())
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_no_source_of_several_is_overwritten(source, tmp_path):
    second = replace(CLIP, name="second.mp4").make(tmp_path)
    before = second.read_bytes()
    with pytest.raises(WriteError, match="is the input itself"):
        restore_in_segments(
            [source, second], second, RestoreConfig(overwrite=True), restorer=StandIn()
        )
    assert second.read_bytes() == before


def test_the_command_goes_on_and_says_where_it_was(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(segments, "restorer_of", lambda config: StandIn())
    output = tmp_path / "out.mp4"
    stopped(source, output, after=2)
    assert main([str(source), str(output), "--resume"]) == 0
    told = capsys.readouterr()
    assert "mhnet-video: going on: 2 of 4 segments are done already." in told.err
    assert told.out.startswith(f"{output}: 100 frames")


def test_the_report_names_the_output_as_it_was_asked_for(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("target.mp4", "link.mp4")
    for name in ("out.mp4", "link.mp4"):
        assert restore_in_segments([source], name, restorer=StandIn()).destination == name
    assert os.path.isfile("target.mp4")
