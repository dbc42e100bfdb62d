"""Evidence and positions of what is made in segments, of one file or of several."""

import hashlib
import json
import threading
from dataclasses import replace

import av
import gpxpy
import numpy as np
import pytest
from clips import Clip, Video, every
from standin import StandIn
from test_positions import box, sentence

import mhnet_video.pipelines.segmented_work as segmented_work
from mhnet_video.config import RestoreConfig
from mhnet_video.errors import ReadError, WriteError
from mhnet_video.media.segments.segment_store import SegmentStore
from mhnet_video.pipelines.evidence import EvidenceWriter, evidence_path, remark_of
from mhnet_video.pipelines.restore import restore_video
from mhnet_video.pipelines.segments import restore_in_segments
from mhnet_video.pipelines.verify import verify

EVIDENCE = RestoreConfig(evidence=True, encoder="ffv1")
LONG = Clip(name="long.mp4", video=(Video(times=every(40, 100), gop=10, b_frames=2),))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Segments of a second."""
    monkeypatch.setattr(segmented_work, "SEGMENT_SECONDS", 1.0)


def later_darker(frame):
    """The frame, the darker the later it is, so that no row is as another."""
    luma = frame.planes[0].copy()
    luma -= np.minimum(luma, 1 + frame.tags["source_pts"] // 2000)
    return replace(frame, planes=(luma, *frame.planes[1:]))


def restorer():
    found = StandIn(later_darker)
    found.name = "realtime"
    return found


def loops(folder):
    """Three files that follow one another."""
    return [
        Clip(name=f"{n}.mp4", video=(Video(times=every(40, 30), gop=10, seed=n),)).make(folder)
        for n in range(3)
    ]


def told_of(output):
    return json.loads(evidence_path(output).read_text())


def test_evidence_that_cannot_be_completed_leaves_a_complete_output_alone(tmp_path, monkeypatch):
    def refuse(self, told):
        raise WriteError("the disk is full.")

    monkeypatch.setattr(EvidenceWriter, "complete", refuse)
    source = LONG.make(tmp_path)
    for restore, output in (
        (restore_in_segments, tmp_path / "a.mkv"),
        (restore_video, tmp_path / "b.mkv"),
    ):
        with pytest.raises(WriteError, match=r"^the disk is full. The output itself is complete.$"):
            restore(source, output, EVIDENCE, restorer=restorer())
        with av.open(str(output)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "b.mkv", "long.mp4"]


def test_evidence_of_segments_is_that_of_one_run_however_often_it_was_stopped(tmp_path):
    source, output = LONG.make(tmp_path), tmp_path / "out.mkv"
    restore_video(source, tmp_path / "one.mkv", EVIDENCE, restorer=restorer())
    for done in (1, 2):
        stop = threading.Event()

        class Stopping(StandIn):
            def pairs(self, items, done=done, stop=stop, **how):
                if len(list(SegmentStore(output).folder.glob("*.json"))) > done:
                    stop.set()
                return super().pairs(items, **how)

        report = restore_in_segments(
            [source], output, EVIDENCE, restorer=Stopping(later_darker), stop=stop
        )
        assert report.interrupted and report.files == {}
        assert len(list(SegmentStore(output).folder.glob("*.json"))) == 1 + done
        assert not evidence_path(output).exists()
    report = restore_in_segments([source], output, EVIDENCE, restorer=restorer())
    assert report.files == {"evidence": str(evidence_path(output))}
    wanted, found = told_of(tmp_path / "one.mkv"), told_of(output)
    assert found["frames"] == wanted["frames"]
    assert len({tuple(row[2:]) for row in found["frames"]}) > 10
    assert found["decoded"] == wanted["decoded"]
    assert found.keys() == wanted.keys()
    assert verify(evidence_path(output)).mismatches == ()
    with av.open(str(output)) as container:
        assert container.metadata["COMMENT"] == remark_of("deblur")


def test_evidence_of_a_trip_names_every_source_and_the_source_of_every_frame(tmp_path):
    files, output = loops(tmp_path), tmp_path / "out.mkv"
    restore_in_segments(files, output, EVIDENCE, restorer=restorer())
    told = told_of(output)
    assert [each["sha256"] for each in told["sources"]] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    ]
    ticks = [row[1] for row in told["frames"][:30]]
    assert [row[:2] for row in told["frames"]] == [[n, pts] for n in range(3) for pts in ticks]
    assert [row[0] for row in told["decoded"]] == [40 * number for number in range(90)]
    result = verify(evidence_path(output))
    assert result.mismatches == ()
    assert result.lines[-1].endswith("90 frames.")


def test_another_source_in_the_middle_of_a_trip_is_told(tmp_path):
    files, output = loops(tmp_path), tmp_path / "out.mkv"
    restore_in_segments(files, output, EVIDENCE, restorer=restorer())
    Clip(name="1.mp4", video=(Video(times=every(40, 30), seed=9),)).make(tmp_path)
    told = verify(evidence_path(output)).mismatches
    assert any(str(files[1]) in each and "another one" in each for each in told)
    assert any(each.startswith("The change of frame 30 differs") for each in told)
    files[1].unlink()
    result = verify(evidence_path(output))
    assert result.mismatches == ()
    assert any("The source 1.mp4 is not there" in line for line in result.lines)


def test_a_frame_that_is_said_to_be_of_another_source_is_told(tmp_path):
    output = tmp_path / "out.mkv"
    restore_in_segments(loops(tmp_path), output, EVIDENCE, restorer=restorer())
    told = told_of(output)
    told["frames"][30][0] = 0
    evidence_path(output).write_text(json.dumps(told))
    mismatches = verify(evidence_path(output)).mismatches
    assert "The PTS in the source of frame 30 differs." in mismatches


def test_a_source_that_changes_before_the_end_leaves_no_evidence(tmp_path, monkeypatch):
    files, output = loops(tmp_path), tmp_path / "out.mkv"
    plain = SegmentStore.records

    def records(self, source=None):
        if output.exists():
            files[2].write_bytes(files[2].read_bytes() + b"\0")
        return plain(self, source)

    monkeypatch.setattr(SegmentStore, "records", records)
    with pytest.raises(ReadError, match=r"2\.mp4 was changed while it was read, so there is no"):
        restore_in_segments(files, output, EVIDENCE, restorer=restorer())
    assert not evidence_path(output).exists()


def test_what_exists_beside_the_output_stops_the_run_before_its_work(tmp_path):
    files, output = loops(tmp_path), tmp_path / "out.mkv"
    evidence_path(output).write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        restore_in_segments(files, output, EVIDENCE, restorer=restorer())
    output.with_suffix(".gpx").write_text("mine")
    with pytest.raises(WriteError, match=r"out\.gpx exists already"):
        restore_in_segments(files, output, RestoreConfig(gpx=True), restorer=restorer())
    assert not SegmentStore(output).folder.exists()


def test_positions_of_a_trip_are_one_track(tmp_path):
    files, output = loops(tmp_path), tmp_path / "out.mp4"
    for path, clock in zip(files, ("120000", "120001", "121500"), strict=True):
        path.write_bytes(path.read_bytes() + box(b"free", box(b"gps ", sentence(clock))))
    report = restore_in_segments(files, output, RestoreConfig(gpx=True), restorer=StandIn())
    assert report.files == {"positions": str(tmp_path / "out.gpx")}
    (track,) = gpxpy.parse((tmp_path / "out.gpx").read_text()).tracks
    assert [len(segment.points) for segment in track.segments] == [2, 1]
