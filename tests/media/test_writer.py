"""The writer: where the bytes go, which encoder, and what is told."""

import errno
import os
import resource
import signal
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from clips import Audio, Clip, Subtitles, Video, copy, every, join, picture
from standin import StandIn

from mhnet_video.config import Box, RestoreConfig
from mhnet_video.errors import WriteError
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.media.encoders.encoder import clock_of, open_encoder
from mhnet_video.media.encoders.encoder_options import encoder_options
from mhnet_video.media.encoders.encoder_pixel_formats import pixel_formats
from mhnet_video.media.encoders.encoding_settings import _field_order
from mhnet_video.media.fidelity import Notes
from mhnet_video.media.formats.containers import format_of
from mhnet_video.media.formats.mp4_boxes import add_cover, lacks_index
from mhnet_video.media.frames.converter import Converter
from mhnet_video.media.frames.pixel_formats import layout_of
from mhnet_video.media.frames.side_data import side_data_of
from mhnet_video.media.output_file import OutputFile, check_destination
from mhnet_video.media.reading.frame_maker import FrameMaker
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.media.reading.source import COVER
from mhnet_video.media.writing.frame_fidelity import FrameChanges
from mhnet_video.media.writing.writer import VideoWriter, working_encoders
from mhnet_video.pipelines.restore import restore_video

# the file


def test_a_file_has_its_name_only_when_complete(tmp_path: Path) -> None:
    path = Clip(video=(Video(times=every(40, 40)),)).make(tmp_path)
    output = tmp_path / "out.mp4"
    with VideoReader(path) as reader, VideoWriter(output, reader) as writer:
        for item in reader:
            writer.write(item)
            assert not output.exists()
            assert writer.partial is not None
            assert writer.partial.suffix == ".mp4"
        writer.finish()
        assert writer.partial is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_a_partial_file_of_another_is_left_alone(tmp_path: Path) -> None:
    path = Clip().make(tmp_path)
    (tmp_path / "out.partial.mp4").write_bytes(b"somebody's")
    copy(path, tmp_path / "out.mp4")
    assert (tmp_path / "out.partial.mp4").read_bytes() == b"somebody's"
    assert (tmp_path / "out.mp4").exists()


def test_an_abandoned_file_is_kept_only_if_it_plays(tmp_path: Path) -> None:
    path = Clip(video=(Video(times=every(40, 60)),)).make(tmp_path)
    with VideoReader(path) as reader:
        writer = VideoWriter(tmp_path / "none.mp4", reader)
        assert writer.abandon() is None
        assert not list(tmp_path.glob("none*"))
        writer = VideoWriter(tmp_path / "some.mp4", reader)
        for item in reader:
            writer.write(item)
        partial = writer.abandon()
    assert partial is not None
    with av.open(str(partial)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60


def test_a_long_name_has_room_for_its_partial(tmp_path: Path) -> None:
    name = "x" * 251 + ".mp4"
    copy(Clip().make(tmp_path), tmp_path / name)
    assert (tmp_path / name).exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path = Clip().make(tmp_path)
    target = tmp_path / "folder" / "real.mp4"
    target.parent.mkdir()
    target.write_bytes(b"old")
    (tmp_path / "link.mp4").symlink_to(target)
    copy(path, tmp_path / "link.mp4", overwrite=True)
    assert (tmp_path / "link.mp4").is_symlink()
    assert target.stat().st_size > 100


def test_a_name_with_colons_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Clip(name="http:12:30.mp4").make(tmp_path)
    copy(Path("http:12:30.mp4"), Path("file:out.mp4"))
    assert (tmp_path / "file:out.mp4").exists()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 40 kB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.ts"])
def test_what_a_full_disk_holds_plays(name: str, tmp_path: Path, small_files: None) -> None:
    video = Video(times=every(40, 100), options=(("crf", "40"),))
    path = Clip(video=(video,)).make(tmp_path)
    with pytest.raises(WriteError, match=r"cannot be written: .*out\.partial") as caught:
        restore_video(path, tmp_path / name, RestoreConfig(crf=1), restorer=StandIn())
    assert str(caught.value).endswith(".")
    (partial,) = tmp_path.glob("out.partial*")
    # the last frame may be cut
    with VideoReader(partial) as reader:
        assert sum(isinstance(item, Frame) for item in reader) > 0
    assert not (tmp_path / name).exists()


def test_after_an_error_an_output_file_stays_as_it_is(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "out.bin")
    assert output.write(b"good") == 4

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "full")

        def close(self) -> None: ...

    file, output._file = output._file, Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="full"):
        output.write(b"bad")
    output._file = file
    output.seek(0)
    assert output.write(b"later") == 5
    output.close()
    assert output.partial is not None
    assert output.partial.read_bytes() == b"good"


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "out.mp4")
    output.write(b"result")
    partial = output.partial
    assert partial is not None
    (tmp_path / "out.mp4").write_bytes(b"another's")
    with pytest.raises(WriteError, match="another program"):
        output.commit()
    assert (tmp_path / "out.mp4").read_bytes() == b"another's"
    output.discard()
    assert partial.read_bytes() == b"result"  # as was said


def test_what_the_disk_did_not_take_is_not_said_to_be_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    output = OutputFile(tmp_path / "out.mp4")
    output.write(b"result")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="the disk quota is used up") as caught:
        output.commit()
    assert "complete" not in str(caught.value) and output.error is not None
    output.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_removed_while_it_grew_is_not_said_to_be_complete(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "out.mp4")
    output.write(b"result")
    assert output.partial is not None
    output.partial.unlink()
    with pytest.raises(WriteError, match=r"out\.partial\.mp4 was removed before it was complete"):
        output.commit()


def test_a_picture_whose_name_was_taken_meanwhile_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(picture("png"))
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.png", reader) as writer:
        for item in reader:
            writer.write(item)
        (tmp_path / "out.png").write_bytes(b"another's")
        with pytest.raises(WriteError, match=r"complete in .*out.partial.png"):
            writer.finish()
    assert (tmp_path / "out.partial.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out.png").read_bytes() == b"another's"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "folder"),
        ("none/out.mp4", "does not exist"),
        ("clip.mp4/out.mp4", "not a folder"),
        ("clip.mp4", "input itself"),
        ("other.mp4", "exists already"),
    ],
)
def test_destinations_that_cannot_be(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (tmp_path / "other.mp4").write_bytes(b"x")
    with pytest.raises(WriteError, match=words):
        check_destination(os.path.join(tmp_path, name), source=tmp_path / "clip.mp4")


# MP4 boxes


def test_an_mp4_without_its_index_is_known(tmp_path: Path) -> None:
    whole = Clip().make(tmp_path).read_bytes()
    index = whole.rindex(b"moov") - 4
    cut = tmp_path / "cut.mp4"
    for content, expected in [
        (whole, False),
        (whole[:index], True),
        (whole[: index + 100], True),
        (b"RIFF" + whole, False),
        (b"", False),
    ]:
        cut.write_bytes(content)
        assert lacks_index(cut) is expected


@pytest.mark.parametrize("has_tags", [False, True])
def test_covers_go_into_a_finished_file(has_tags: bool, tmp_path: Path) -> None:
    metadata = {"title": "T", "com.example.key": "K"} if has_tags else {}
    path = Clip(metadata=metadata, options=(("movflags", "use_metadata_tags"),)).make(tmp_path)
    assert add_cover(path, [picture("png"), picture("mjpeg")])
    with av.open(str(path)) as container:
        covers = [s for s in container.streams.video if s.disposition & COVER]
        assert [s.name for s in covers] == ["png", "mjpeg"]
        assert sum(1 for _ in container.decode(video=0)) == 10
        for key, value in metadata.items():
            assert container.metadata[key] == value


def test_a_cover_needs_the_index_at_the_end(tmp_path: Path) -> None:
    path = Clip(options=(("movflags", "faststart"),)).make(tmp_path)
    assert not add_cover(path, [picture("png")])


# encoders


@pytest.mark.parametrize(
    ("encoder", "source", "expected"),
    [
        ("libx264", "yuv420p", "yuv420p"),
        ("libx264", "yuvj420p", "yuvj420p"),
        ("libx264", "yuv422p10le", "yuv422p10le"),
        ("libx264", "yuv444p12le", "yuv444p10le"),
        ("libx264", "gray", "gray"),
        ("libx264", "gbrp", "yuv444p"),
        ("libx264", "yuv440p", "yuv444p"),
        ("libx264", "yuva420p", "yuv420p"),
        ("ffv1", "yuvj422p", "yuv422p"),
        ("ffv1", "gbrp", "bgr0"),
        ("ffv1", "gbrap16le", "gbrap16le"),
        ("libvpx-vp9", "gray", "yuv420p"),
        ("libsvtav1", "yuv420p10le", "yuv420p10le"),
        ("prores_ks", "yuv420p", "yuv422p10le"),
        ("png", "gbrp", "rgb24"),
        ("png", "gbrp16le", "rgb48be"),
        ("png", "gray16le", "gray16be"),
        ("mjpeg", "yuvj420p", "yuvj420p"),
        ("mjpeg", "yuv420p", "yuv420p"),
    ],
)
def test_the_pixel_format_that_loses_least(encoder: str, source: str, expected: str) -> None:
    layout = layout_of(source)
    assert layout is not None
    assert pixel_formats(encoder, layout, source, is_full="yuvj" in source)[0] == expected


def test_an_encoder_that_takes_none_of_the_pixels_is_named() -> None:
    layout = layout_of("yuv420p")
    assert layout is not None
    with pytest.raises(WriteError, match="the encoder gif takes none of this video's pixels"):
        pixel_formats("gif", layout, "yuv420p", is_full=False)


def test_options_are_those_of_the_encoder() -> None:
    assert encoder_options("libx264", crf=30, preset="slow")["crf"] == "30"
    assert encoder_options("libx264", preset="5")["preset"] == "5"
    assert encoder_options("h264_nvenc", crf=30)["cq"] == "30"
    joined = encoder_options("libx265", options=(("x265-params", "aq-mode=1"),))["x265-params"]
    assert joined.startswith("log-level=none")
    assert joined.endswith(":aq-mode=1")
    assert encoder_options("libx264")["partitions"] == "i8x8,i4x4"
    # a preset determines the search
    assert "partitions" not in encoder_options("libx264", preset="slow")
    assert "partitions" not in encoder_options("libx264", options=(("preset", "slow"),))
    # who sets the bit rate is not outvoted by our quality
    assert "crf" not in encoder_options("libx264", options=(("b", "1M"),))
    for encoder, name, settings in [
        ("libx264", "crf", {"crf": 20}),
        ("h264_nvenc", "cq", {"crf": 20}),
        ("libx264", "preset", {"preset": "slow"}),
    ]:
        with pytest.raises(WriteError, match=f"--encoder-option {name} set the same; leave one"):
            encoder_options(encoder, options=((name, "5"),), **settings)
    assert encoder_options("libx264", crf=20, options=(("b", "1M"),))["crf"] == "20"
    assert encoder_options("libx264", options=(("refs", "2"),))["crf"] == "17"
    assert encoder_options("mpeg4", options=(("b", "1M"),)) == {"b": "1M"}
    for wrong in (
        {"encoder": "nothing"},
        {"encoder": "libx264", "preset": "nonsense"},
        {"encoder": "ffv1", "crf": 20},
        {"encoder": "ffv1", "preset": "fast"},
        {"encoder": "libx264", "options": (("colour", "red"),)},
    ):
        with pytest.raises(WriteError):
            encoder_options(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ["mjpeg", "mpeg4", "mpeg2video", "mpeg1video"])
def test_a_quality_that_is_asked_for_is_that_of_the_file(encoder: str, tmp_path: Path) -> None:
    """FFmpeg's encoders of this kind ask each frame for it, which PyAV does not set."""
    clip = Clip(video=(Video(seed=1, times=every(40, 4)),)).make(tmp_path)

    def size(*options: tuple[str, str]) -> int:
        path = tmp_path / "out.mkv"
        with (
            VideoReader(clip) as reader,
            VideoWriter(path, reader, encoder=encoder, options=options, overwrite=True) as writer,
        ):
            for item in reader:
                if isinstance(item, Frame):
                    writer.write(item)
            writer.finish()
        return path.stat().st_size

    best, good, middle, worst = (size(("global_quality", str(118 * q))) for q in (1, 2, 10, 31))
    assert best > 1.1 * good > 1.2 * middle > 1.3 * worst, (best, good, middle, worst)
    if encoder != "mpeg1video":  # which has no default here
        assert abs(size() - good) < 0.01 * good
    with pytest.raises(WriteError, match=r"global_quality of the encoder .* not 'high'"):
        size(("global_quality", "high"))


def test_old_codecs_count_in_coarse_units() -> None:
    fine = Fraction(1, 90000)
    assert clock_of("libx264", fine, Fraction(25)) == fine
    assert clock_of("mpeg4", fine, Fraction(25)).denominator <= 65535
    assert clock_of("mpeg2video", fine, Fraction(25)) == Fraction(1, 25)


def test_working_encoders_are_probed(capfd: pytest.CaptureFixture[str]) -> None:
    working = working_encoders()
    assert working[0] == "libx264"
    assert "ffv1" in working
    assert capfd.readouterr() == ("", "")


def test_formats_by_name() -> None:
    assert format_of("a.MP4").name == "mp4"
    assert format_of("-").name == "matroska"
    assert format_of("a.mts").options["mpegts_m2ts_mode"] == "1"
    for name in ("a", "a.xyz", ".mp4", "a.mp3"):
        with pytest.raises(WriteError, match=r"\.mkv"):
            format_of(name)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(63, 48, "yuv444p"), (64, 47, "yuv422p"), (1, 1, "yuv444p"), (64, 48, "yuv420p")],
)
def test_odd_sizes_stay_as_they_are(width: int, height: int, expected: str, tmp_path: Path) -> None:
    video = Video(codec="ffv1", width=width, height=height, times=every(40, 3))
    path = Clip(name="clip.mkv", video=(video,)).make(tmp_path)
    writer = copy(path, tmp_path / "out.mp4")
    assert writer.pixel_format == expected
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (width, height)


def test_a_late_track_of_an_unknown_kind_is_left_out(tmp_path: Path) -> None:
    late = Video(codec="mpeg4", times=every(40, 5, start=3000))
    path = Clip(
        name="clip.mkv",
        video=(Video(), late),
        finish=lambda content: content.replace(b"V_MPEG4/ISO/ASP", b"V_NOBODY/HAS/IT"),
    ).make(tmp_path)
    report = restore_video(path, tmp_path / "out.mp4", restorer=StandIn())
    assert report.frames == len(Video().times)
    assert "a kind that this FFmpeg does not know" in "\n".join(report.lost)


LATE = {
    "late sound": Clip(
        video=(Video(times=every(40, 100)),), audio=(Audio(start=3.0, seconds=0.9),)
    ),
    "no cues": Clip(
        video=(Video(times=every(40, 100)),), subtitles=(Subtitles(codec="mov_text", cues=()),)
    ),
    "a late cue": Clip(
        name="clip.mkv",
        video=(Video(times=every(40, 100)),),
        subtitles=(Subtitles(cues=((3.5, 0.2, "late"),)),),
    ),
}


@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_track_that_begins_late_keeps_nothing_back(
    name: str, ending: str, tmp_path: Path
) -> None:
    """Else all of the file would be in memory until it comes, and lost with a kill."""
    path = LATE[name].make(tmp_path)
    output = tmp_path / f"out{ending}"
    with VideoReader(path) as reader, VideoWriter(output, reader) as writer:
        sizes = []
        for item in reader:
            writer.write(item)
            if isinstance(item, Frame):
                assert writer.partial is not None
                sizes.append(writer.partial.stat().st_size)
        # the header waits for sound, but for no more than forty frames
        assert sizes[70] > sizes[50] > 0
        writer.finish()
    for file in (path, output):
        with av.open(str(file)) as container:
            shown = [f.pts * f.time_base for f in container.decode(video=0)]
            assert shown == [Fraction(t, 1000) for t in every(40, 100)]
    before, after = (_first_sound(file) for file in (path, output))
    assert before is None or abs(before - after) < 0.001


def _first_sound(path: Path) -> float | None:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        packet = next(container.demux(container.streams.audio[0]))
        return float(packet.pts * packet.time_base)


@pytest.mark.parametrize("name", LATE)
def test_a_run_that_ends_right_after_its_header(name: str, tmp_path: Path) -> None:
    path = LATE[name].make(tmp_path)
    with VideoReader(path) as reader, VideoWriter(tmp_path / "out.mp4", reader) as writer:
        frame = next(item for item in reader if isinstance(item, Frame))
        writer.write(frame)
        writer.abandon(is_quick=True)
    assert not list(tmp_path.glob("out*"))


def test_unchanged_frames_go_to_the_encoder_as_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sample is copied where none has changed."""
    path = Clip().make(tmp_path)
    seen = []
    original = Converter.convert

    def watch(self: Converter, frame: Frame) -> av.VideoFrame:
        result = original(self, frame)
        seen.append(result is frame.tags["decoded"].picture)
        return result

    monkeypatch.setattr(Converter, "convert", watch)
    copy(path, tmp_path / "out.mp4")
    assert seen == [True] * 10


def test_times_that_repeat_move_by_a_tick(tmp_path: Path) -> None:
    video = Video(codec="mpeg4", times=(0, 40, 40, 40, 80))
    path = Clip(name="clip.mkv", video=(video,)).make(tmp_path)
    writer = copy(path, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [f.pts for f in container.decode(video=0)] == [0, 40, 41, 42, 80]
    assert any("moved" in line for line in writer.notes.lost)


def test_sound_that_begins_late_in_an_flv(tmp_path: Path) -> None:
    path = Clip(audio=(Audio(start=0.1),)).make(tmp_path)
    copy(path, tmp_path / "out.flv")
    with av.open(str(tmp_path / "out.flv")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10


def test_boxes_that_make_no_sense_cost_nothing(tmp_path: Path) -> None:
    path = Clip().make(tmp_path)
    huge = struct.pack(">I4sQ", 1, b"moov", 1 << 62) + struct.pack(
        ">I4sQ", 1, b"udta", (1 << 63) - 1
    )
    with path.open("ab") as file:
        file.write(huge + struct.pack(">I4sQ", 1, b"uuid", 1 << 62))
    assert copy(path, tmp_path / "out.mp4").frames == 10


def test_sound_is_told(tmp_path: Path) -> None:
    path = Clip(name="clip.mov", audio=(Audio(codec="pcm_s16le"), Audio())).make(tmp_path)
    writer = copy(path, tmp_path / "out.mp4")
    assert any("AAC" in line and "stream 1" in line for line in writer.notes.lost)
    assert any("copied" in line and "stream 2" in line for line in writer.notes.kept)


def test_one_of_a_kind_is_told_as_one() -> None:
    for number, ends in ((1, "1 frame of another size was scaled to 6x4"),
                         (2, "2 frames of another size were scaled to 6x4")):  # fmt: skip
        layout = PixelLayout("gray", "gray", 8)
        first, other = (
            Frame((np.zeros(shape, np.uint8),), layout, pts=0, time_base=Fraction(1, 25))
            for shape in ((4, 6), (5, 6))
        )
        notes, changes = Notes(), FrameChanges(first, "libx264", marks_fields=True)
        for _ in range(number):
            changes.see(other)
        changes.report(notes)
        assert notes.lost == [f"size: {ends}"]


def changing(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> Path:
    """A transport stream of ten frames and ten more of another kind."""
    parts = []
    for number, values in enumerate((first, second)):
        video = Video(times=every(40, 10, 400 * number), gop=5, seed=number, **values)
        parts.append(Clip(name=f"part{number}.ts", video=(video,)).make(folder))
    return join(folder / "clip.ts", parts)


FULL, LIMITED = {"color": (2, 1, 1, 1)}, {"color": (1, 1, 1, 1)}
FIELDS = {"options": (("x264-params", "tff=1"),)}
ONE = "the output has one for all frames, that of the first"
CHANGES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({}, {}, []),
    (LIMITED, FULL, ["10 frames of full range: converted to limited range"]),
    (FULL, LIMITED, ["10 frames of limited range: converted to full range"]),
    (
        LIMITED,
        {"color": (1, 9, 9, 16)},
        [
            "10 frames with the matrix of bt2020: converted to bt709",
            f"10 frames with primaries bt2020: {ONE}, bt709",
            f"10 frames with the transfer smpte2084: {ONE}, bt709",
        ],
    ),
    (
        {},
        {"pixel_format": "yuv420p10le"},
        ["10 frames of yuv420p10le: stored as those of yuv420p that come first"],
    ),
    (
        {"aspect": Fraction(1)},
        {"aspect": Fraction(4, 3)},
        [f"10 frames with samples of the shape 4:3: {ONE}, 1:1"],
    ),
    (
        {},
        FIELDS,
        ["10 frames with fields: libx264 marks fields in all frames or in none, as in the first"],
    ),
    (FIELDS, {}, []),
]


@pytest.mark.parametrize(("first", "second", "said"), CHANGES, ids=range(len(CHANGES)))
def test_what_changes_after_the_first_picture_is_told(
    first: dict[str, Any], second: dict[str, Any], said: list[str], tmp_path: Path
) -> None:
    writer = copy(changing(tmp_path, first, second), tmp_path / "out.mkv")
    losses = [loss for loss in writer.notes.losses if loss.kind not in ("times", "damage")]
    assert [f"{loss.what}: {loss.why}" for loss in losses] == said


@pytest.mark.parametrize(
    "values", [(LIMITED, FULL), (FULL, LIMITED)], ids=["to full", "to limited"]
)
def test_another_range_looks_the_same(values: tuple[dict[str, Any], ...], tmp_path: Path) -> None:
    """Where a player goes by what the output says of all its frames."""
    source = changing(tmp_path, *values)
    copy(source, tmp_path / "out.mkv", crf=0)
    seen = []
    for path in (source, tmp_path / "out.mkv"):
        with VideoReader(path) as reader:
            frames = [item for item in reader if isinstance(item, Frame)]
        assert len(frames) == 20
        planes = [frame.planes[0].astype(float) for frame in frames]
        ends = [(0, 255) if frame.full_range else (16, 235) for frame in frames]
        shown = [(y - low) / (high - low) for y, (low, high) in zip(planes, ends, strict=True)]
        seen.append(np.clip(shown, 0, 1))
    assert np.abs(seen[0] - seen[1]).max() < 2 / 255


def test_a_name_of_pixels_is_no_range() -> None:
    """FFmpeg goes on to call them full where a stream's range becomes limited."""
    picture = av.VideoFrame(64, 48, "yuvj420p")
    for plane in picture.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = 180
    picture.color_range, picture.colorspace = 1, 1
    frame = FrameMaker(Fraction(1, 25), Fraction(25)).frame(picture)
    assert not frame.full_range
    converted = Converter("yuvj420p", 64, 48, samples=("bt709", True)).convert(frame)
    assert converted.to_ndarray()[0, 0] == round((180 - 16) * 255 / 219)


# what hides


def trimmed(folder: Path, seconds: float) -> Path:
    """An MP4 whose edit list hides the beginning of its sound, as a cut without loss leaves it."""
    whole = Clip(audio=(Audio(),)).make(folder)
    path = folder / "trimmed.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        tracks = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size and packet.stream.type == "audio":
                packet.pts -= round(seconds / packet.time_base)
                packet.dts = packet.pts
            if packet.size:
                packet.stream = tracks[packet.stream.index]
                target.mux(packet)
    return path


def sound_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(audio=0)]


def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path: Path) -> None:
    source = trimmed(tmp_path, 0.3)
    with av.open(str(source)) as container:
        hidden = sum(packet.is_discard for packet in container.demux(audio=0))
    assert hidden > 8
    wanted = len(sound_of(source))
    for name in ("out.mp4", "out.mkv", "out.ts", "out.avi"):
        copy(source, tmp_path / name)
        # but for what a decoder needs before it gives the right sound
        assert wanted <= len(sound_of(tmp_path / name)) <= wanted + 2


def test_a_cameras_own_data_stays_in_the_stream(tmp_path: Path) -> None:
    number, said = "086f3693-b7b3-4f2c-9653-21492feee5b8", "52.1 N 4.3 E"
    whole = Clip().make(tmp_path)
    path = tmp_path / "camera.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        insert = BitStreamFilterContext(f"h264_metadata=sei_user_data='{number}+{said}'", stream)
        for packet in source.demux(video=0):
            for changed in insert.filter(packet if packet.size else None):
                changed.stream = stream
                target.mux(changed)
    for source_path, is_there in ((path, True), (whole, False)):
        copy(source_path, tmp_path / "out.mp4", overwrite=True)
        assert (said.encode() in (tmp_path / "out.mp4").read_bytes()) is is_there
        # what one encoder has said about itself is false of another's work
        with av.open(str(tmp_path / "out.mp4")) as container:
            found = [bytes(each) for each in side_data_of(next(container.decode(video=0)))]
        assert sum(b"x264" in each for each in found) == 1 + is_there


def test_transparency_that_is_not_decoded_is_told(tmp_path: Path) -> None:
    video = Video(codec="libvpx-vp9", pixel_format="yuva420p")
    path = Clip(name="clip.webm", video=(video,)).make(tmp_path)
    writer = copy(path, tmp_path / "out.webm")
    assert "transparency: it is not decoded from this codec" in writer.notes.lost
    with av.open(str(path)) as source, av.open(str(tmp_path / "out.webm")) as output:
        tags = [each.streams.video[0].metadata.get("alpha_mode") for each in (source, output)]
    assert tags == ["1", None]


def test_a_box_outside_the_picture_is_told(tmp_path: Path) -> None:
    path = Clip().make(tmp_path)
    restorer = StandIn()
    restorer.keep = Box(20, 1030, 600, 40), Box(0, 0, 8, 8)
    report = restore_video(path, tmp_path / "out.mp4", restorer=restorer)
    assert report.lost == ("the box 20,1030,600,40: it lies outside the picture of 64x48",)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no priorities to look at")
def test_no_encoder_makes_threads_real_time_ones():
    """As root, SVT-AV1 would, and hold up the machine."""
    if "libsvtav1" not in working_encoders():
        pytest.skip("no SVT-AV1 here")
    context = av.CodecContext.create("libsvtav1", "w")
    context.width, context.height, context.pix_fmt = 64, 64, "yuv420p"
    context.time_base = Fraction(1, 25)
    open_encoder(context)
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    assert len(tasks) > 1
    assert {os.sched_getscheduler(task) for task in tasks} == {os.SCHED_OTHER}


def test_fields_keep_their_order_and_are_marked(tmp_path):
    """The decoder of DV says of its pictures that they are interlaced, and no order."""
    video = Video(codec="dvvideo", width=720, height=576, times=every(40, 3))
    clip = Clip(name="clip.avi", video=(video,)).make(tmp_path)
    restore_video(clip, tmp_path / "out.mp4", restorer=StandIn())
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = list(container.decode(video=0))
        assert len(frames) == 3 and all(frame.interlaced_frame for frame in frames)
        assert container.streams.video[0].codec_context.field_order == 3


@pytest.mark.parametrize(
    ("said", "codec", "expected"),
    [
        *((2, "h264", 2), (3, "h264", 3), (4, "prores", 2), (5, "dvvideo", 3)),
        *((0, "dvvideo", 3), (0, "mpeg2video", 2), (1, "mpeg2video", 2)),
    ],
)
def test_the_order_of_fields(said, codec, expected):
    context = SimpleNamespace(field_order=said, codec=SimpleNamespace(name=codec))
    reader = SimpleNamespace(stream=SimpleNamespace(codec_context=context))
    for is_interlaced in (True, False):
        frame = SimpleNamespace(tags={"interlaced": is_interlaced})
        assert _field_order(reader, frame) == (expected if is_interlaced else 0)


@pytest.mark.parametrize(("said", "expected"), [("deu", "ger"), ("zho", "chi"), ("jpn", "jpn")])
def test_languages_in_quicktime(tmp_path, said, expected):
    """It numbers them; FFmpeg finds the number by one code of two."""
    sound = Audio(codec="aac", seconds=0.3, metadata={"language": said})
    clip = Clip(video=(Video(times=every(40, 3)),), audio=(sound,)).make(tmp_path)
    restore_video(clip, tmp_path / "out.mov", restorer=StandIn())
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.audio[0].metadata["language"] == expected


def test_six_channels_stay_six_in_webm(tmp_path):
    """Opus has 5.1 and no 5.1(side)."""
    sound = Audio(codec="ac3", seconds=0.3, layout="5.1(side)")
    clip = Clip(name="clip.mkv", video=(Video(times=every(40, 3)),), audio=(sound,)).make(tmp_path)
    restore_video(clip, tmp_path / "out.webm", restorer=StandIn())
    with av.open(str(tmp_path / "out.webm")) as container:
        assert container.streams.audio[0].codec_context.layout.nb_channels == 6


INTERLACED = Clip(
    name="clip.mkv",
    video=(Video(options=(("x264-params", "tff=1"), ("flags", "+ildct+ilme"))),),
)


@pytest.mark.parametrize(
    ("encoder", "name", "are_marked"),
    [
        ("libx264", "out.mp4", True),
        ("ffv1", "out.mkv", True),
        ("libx265", "out.mp4", False),
        ("libsvtav1", "out.mkv", False),
        ("jpeg2000", "out.mkv", False),
        ("mjpeg", "out.avi", False),
    ],
)
def test_fields_that_an_encoder_does_not_mark_are_told(encoder, name, are_marked, tmp_path):
    source = INTERLACED.make(tmp_path)
    config = RestoreConfig(encoder=encoder)
    report = restore_video(source, tmp_path / name, config, restorer=StandIn())
    with av.open(tmp_path / name) as container:
        frames = list(container.decode(video=0))
    assert frames and all(frame.interlaced_frame == are_marked for frame in frames)
    assert any(line.startswith("fields:") for line in report.lost) != are_marked
