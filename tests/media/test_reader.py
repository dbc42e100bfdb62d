"""The reader: times, the part asked for, damage; and the clock and threads it stands on."""

import errno
import gc
import os
import threading
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from clips import Audio, Clip, Subtitles, Video, every, picture, rotation
from test_footage import WRAP_SECONDS, recording
from waiting import is_waiting_in, wait_until

from mhnet_video.errors import ReadError
from mhnet_video.frame import Frame
from mhnet_video.live.source_address import resolve_address
from mhnet_video.media.frames.converter import Converter
from mhnet_video.media.frames.device_frames import has_extras
from mhnet_video.media.frames.frame_geometry import beside, upright
from mhnet_video.media.frames.pixel_formats import layout_of, picture_of, planar_twin, planes_of
from mhnet_video.media.output_file import check_destination
from mhnet_video.media.prefetch import Prefetcher, codec_threads
from mhnet_video.media.reading.discontinuities import DiscontinuityCorrector
from mhnet_video.media.reading.reader import VideoReader

SECOND = Fraction(1)


def frames_of(path: Path, **part: float) -> list[Frame]:
    with VideoReader(path, **part) as reader:
        return [item for item in reader if isinstance(item, Frame)]


def times_of(frames: list[Frame]) -> list[float]:
    return [round(float(frame.pts * frame.time_base), 4) for frame in frames]


def test_frames_carry_the_samples_of_the_decoder(tmp_path: Path) -> None:
    path = Clip(video=(Video(width=50, height=38),)).make(tmp_path)
    frames = frames_of(path)
    with av.open(str(path)) as container:
        for frame, decoded in zip(frames, container.decode(video=0), strict=True):
            expected = decoded.to_ndarray()[: frame.height, : frame.width]
            assert np.array_equal(frame.planes[0], expected)
            assert frame.pts == decoded.pts
    assert frames[0].layout == layout_of("yuv420p")


def test_a_path_may_lead_out_of_a_folder_that_is_a_link(tmp_path: Path) -> None:
    """Where `..` is the folder of what the link points to: reading, live and writing."""
    (tmp_path / "deep" / "folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "folder", target_is_directory=True)
    path = Clip().make(tmp_path / "deep").name
    assert len(frames_of(tmp_path / "link" / ".." / path)) == len(
        frames_of(tmp_path / "deep" / path)
    )
    url = resolve_address(f"{tmp_path}/link/../{path}").url
    assert os.path.samefile(url, tmp_path / "deep" / path)
    (tmp_path / "deep" / "out").mkdir()
    check_destination(tmp_path / "link" / ".." / "out" / "new.mp4")


def test_samples_outlive_the_reader(tmp_path: Path) -> None:
    """Planes are views of the decoder's memory, which must stay while they do."""
    frames = frames_of(Clip(video=(Video(times=every(40, 30)),)).make(tmp_path))
    copies = [frame.planes[0].copy() for frame in frames_of(tmp_path / "clip.mp4")]
    assert all(np.array_equal(f.planes[0], c) for f, c in zip(frames, copies, strict=True))


def test_pictures_go_with_their_frames(tmp_path: Path) -> None:
    """The garbage collector looks at them so late that hundreds would lie about."""
    path = Clip(video=(Video(times=every(40, 50)),)).make(tmp_path)
    gc.collect()
    gc.disable()
    try:
        with VideoReader(path) as reader:
            for item in reader:
                if isinstance(item, Frame):
                    has_extras(item.tags["decoded"].picture)
            kept = sum(type(each) is av.VideoFrame for each in gc.get_objects())
    finally:
        gc.enable()
    assert kept <= 5


def test_packets_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = Clip(audio=(Audio(),), subtitles=(Subtitles(codec="mov_text"),)).make(tmp_path)
    with VideoReader(path) as reader:
        items = list(reader)
        kinds = {type(item).__name__ for item in items}
        assert kinds == {"Frame", "Packet"}
        sound = [i for i in items if not isinstance(i, Frame) and i.stream.type == "audio"]
        assert [p.dts for p in sound] == sorted(p.dts for p in sound)


@pytest.mark.parametrize(
    ("start", "duration", "expected"),
    [
        (None, None, every(40, 50)),
        (0.5, None, every(40, 37, 520)),
        (0.52, None, every(40, 37, 520)),
        (None, 0.2, every(40, 5)),
        (0.8, 0.12, every(40, 3, 800)),
        (1.96, 5.0, (1960,)),
    ],
)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_a_part(
    name: str,
    start: float | None,
    duration: float | None,
    expected: tuple[int, ...],
    tmp_path: Path,
) -> None:
    path = Clip(name=name, video=(Video(times=every(40, 50), gop=20, b_frames=2),)).make(tmp_path)
    first = times_of(frames_of(path))[0]
    part = {k: v for k, v in (("start", start), ("duration", duration)) if v is not None}
    with VideoReader(path, **part) as reader:
        frames = [item for item in reader if isinstance(item, Frame)]
        assert reader.num_frames is None or abs(reader.num_frames - len(expected)) <= 1
    shown = [round(t - first, 3) for t in times_of(frames)]
    assert shown == [t / 1000 for t in expected]


def test_a_part_of_a_recording_that_starts_late(tmp_path: Path) -> None:
    """The start counts from the first frame, not from the clock's zero."""
    path = Clip(name="clip.ts", video=(Video(times=every(40, 50, 90_000), gop=10),)).make(tmp_path)
    with VideoReader(path, start=1.0) as reader:
        frames = [item for item in reader if isinstance(item, Frame)]
        assert reader.origin == pytest.approx(91.0, abs=1e-3)
    assert len(frames) == 25


def test_a_recording_across_the_turn_of_its_clock_begins_at_zero(tmp_path: Path) -> None:
    path = recording(tmp_path, "clip.ts", WRAP_SECONDS - 1)
    with VideoReader(path) as reader:
        first = next(item for item in reader if isinstance(item, Frame))
        assert reader.origin == first.pts * first.time_base < 0


def test_a_start_behind_the_end_is_told(tmp_path: Path) -> None:
    path = Clip().make(tmp_path)
    with pytest.raises(ReadError, match=r"ends before 5 s"):
        frames_of(path, start=5.0)
    with pytest.raises(ReadError, match=r"ends before 1e\+20 s"):
        frames_of(path, start=1e20)


def test_one_tile_of_a_picture_is_not_taken_for_it() -> None:
    with pytest.raises(ReadError, match="is a picture made of tiles"):
        VideoReader(Path(__file__).parents[1] / "assets" / "tiles.heic")


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (None, 0),
        (rotation(90), 90),
        (rotation(180), 180),
        (rotation(270), 270),
        # mirrored from left to right: what is up stays up
        ((-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), 0),
        # mirrored from top to bottom
        ((65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30), 180),
    ],
)
def test_rotation_tells_where_up_is(
    matrix: tuple[int, ...] | None, expected: int, tmp_path: Path
) -> None:
    path = Clip(video=(Video(matrix=matrix),)).make(tmp_path)
    upright = frames_of(path)[0].rotation
    # a player turns clockwise by as much as the file's matrix says counter-clockwise
    assert upright in (expected, (360 - expected) % 360)
    if matrix is not None and matrix[1]:
        # x grows downwards on the screen exactly where the matrix says so
        assert upright == (90 if matrix[1] > 0 else 270)


@pytest.mark.parametrize(
    ("height", "color", "expected"),
    [(48, None, "bt601"), (720, None, "bt709"), (48, (1, 1, 1, 1), "bt709")],
)
def test_the_matrix_for_rgb(
    height: int, color: tuple[int, int, int, int] | None, expected: str, tmp_path: Path
) -> None:
    video = Video(times=(0,), height=height, color=color, options=(("preset", "ultrafast"),))
    frame = frames_of(Clip(video=(video,)).make(tmp_path))[0]
    assert frame.matrix == expected
    assert not frame.full_range


def test_frames_are_estimated_where_no_header_tells(tmp_path: Path) -> None:
    source = tmp_path / "in.h264"
    random = np.random.default_rng(0)
    with av.open(str(source), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(200):
            noise = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    with VideoReader(source) as reader:
        assert reader.num_frames is None
        frames = [next(reader.ahead()) for _ in range(100)]
        assert 180 <= (reader.num_frames or 0) <= 220
        assert len([*frames, *reader]) == 200
        assert 195 <= (reader.num_frames or 0) <= 205


def test_a_picture_is_one_frame(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("png"))
    with VideoReader(tmp_path / "a.png") as reader:
        assert reader.is_picture
        assert reader.num_frames == 1
        (frame,) = [item for item in reader if isinstance(item, Frame)]
    assert frame.layout.kind == "rgb"


def test_leaving_early_ends_the_thread(tmp_path: Path) -> None:
    path = Clip(video=(Video(times=every(40, 100)),)).make(tmp_path)
    before = threading.active_count()
    with VideoReader(path) as reader:
        next(iter(reader))
    assert threading.active_count() == before


# pixel formats


@pytest.mark.parametrize(
    ("name", "kind", "bits", "shifts", "has_alpha"),
    [
        ("yuv420p", "yuv", 8, (1, 1), False),
        ("yuvj422p", "yuv", 8, (1, 0), False),
        ("yuv444p12le", "yuv", 12, (0, 0), False),
        ("yuv411p", "yuv", 8, (2, 0), False),
        ("yuva420p", "yuv", 8, (1, 1), True),
        ("gray", "gray", 8, (0, 0), False),
        ("gray10le", "gray", 10, (0, 0), False),
        ("gbrp16le", "rgb", 16, (0, 0), False),
        ("gbrap", "rgb", 8, (0, 0), True),
    ],
)
def test_layouts(name: str, kind: str, bits: int, shifts: tuple[int, int], has_alpha: bool) -> None:
    layout = layout_of(name)
    assert layout is not None
    assert (layout.kind, layout.bits, layout.has_alpha) == (kind, bits, has_alpha)
    assert (layout.chroma_shift_x, layout.chroma_shift_y) == shifts


@pytest.mark.parametrize("name", ["nv12", "rgb24", "gray16be", "pal8", "gbrpf32le", "yuyv422"])
def test_formats_without_a_layout_have_a_twin(name: str) -> None:
    assert layout_of(name) is None
    assert layout_of(planar_twin(name)) is not None


def test_every_format_that_ffmpeg_knows_has_a_planar_twin() -> None:
    names = {
        f.name
        for codec in ("rawvideo", "ffv1", "png", "libx264", "tiff", "bmp")
        for f in av.Codec(codec, "w").video_formats or ()
    }
    for name in names:
        assert layout_of(planar_twin(name)) is not None, name


def frame_in(name: str, width: int = 6, height: int = 4, seed: int = 0) -> Frame:
    layout = layout_of(name)
    assert layout is not None
    random = np.random.default_rng(seed)
    dtype = np.uint8 if layout.bits == 8 else np.uint16
    shapes = [(height, width)] * (len(av.VideoFrame(width, height, name).planes))
    if layout.kind == "yuv":
        small = (-(-height >> layout.chroma_shift_y), -(-width >> layout.chroma_shift_x))
        shapes[1:3] = [small, small]
    planes = tuple(random.integers(0, 1 << layout.bits, s).astype(dtype) for s in shapes)
    return Frame(planes=planes, layout=layout, pts=0, time_base=Fraction(1, 25))


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p10le", "gray", "gbrap16le", "yuv440p"])
def test_planes_survive_the_way_into_ffmpeg(name: str) -> None:
    frame = frame_in(name, 7, 5)
    planes = planes_of(picture_of(frame))
    assert all(np.array_equal(a, b) for a, b in zip(planes, frame.planes, strict=True))


def test_chroma_is_repeated_where_an_encoder_wants_more() -> None:
    frame = frame_in("yuv420p", 5, 3)
    picture = Converter("yuv444p", 5, 3).convert(frame)
    luma, first, _ = planes_of(picture)
    assert np.array_equal(luma, frame.planes[0])
    assert np.array_equal(first, frame.planes[1].repeat(2, 0).repeat(2, 1)[:3, :5])


def test_grey_keeps_its_range_where_an_encoder_wants_chroma() -> None:
    frame = frame_in("gray", 6, 4)
    luma, first, _ = planes_of(Converter("yuv420p", 6, 4).convert(frame))
    assert np.array_equal(luma, frame.planes[0])
    assert (first == 128).all()


def test_a_frame_of_another_size_is_scaled() -> None:
    picture = Converter("yuv420p", 12, 8).convert(frame_in("yuv420p", 6, 4))
    assert (picture.width, picture.height) == (12, 8)


@pytest.mark.parametrize(("turned", "first"), [(0, "left"), (180, "right"), (90, "bottom")])
def test_before_is_on_the_left_as_shown(turned: int, first: str) -> None:
    before = frame_in("yuv420p", 5, 3, seed=1)
    after = frame_in("yuv420p", 5, 3, seed=2)
    both = beside(before, Frame(after.planes, after.layout, 0, after.time_base, rotation=turned))
    luma, chroma = both.planes[:2]
    if first == "left":
        assert luma.shape == (3, 12)
        assert chroma.shape == (2, 6)
        assert np.array_equal(luma[:, :5], before.planes[0])
        assert np.array_equal(chroma[:, :3], before.planes[1])
    elif first == "right":
        assert np.array_equal(luma[:, 6:11], before.planes[0])
    else:
        assert luma.shape == (8, 5)
        assert np.array_equal(luma[4:7], before.planes[0])


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_before_is_on_the_left_of_a_mirrored_picture_too(quarters: int, is_mirrored: bool) -> None:
    matrices = [(1, 0, 0, 0, 1), (0, 1, 0, -1, 0), (-1, 0, 0, 0, -1), (0, -1, 0, 1, 0)]
    a, b, u, c, d = matrices[quarters]
    matrix = (-a, b, u, -c, d, 0, 0, 0, 1) if is_mirrored else (a, b, u, c, d, 0, 0, 0, 1)
    dark, light = (
        replace(
            frame_in("yuv444p", 6, 4),
            planes=tuple(np.full((4, 6), level, np.uint8) for _ in range(3)),
            rotation=90 * quarters,
            tags={"display_matrix": matrix},
        )
        for level in (20, 200)
    )
    shown = upright(beside(dark, light)).planes[0]
    half = shown.shape[1] // 2
    assert (shown[:, :half] == 20).all() and (shown[:, half:] == 200).all()


# a clock that jumps


def test_a_part_of_a_file_whose_clock_begins_again_is_the_right_one(tmp_path: Path) -> None:
    """Loop files of a camera, joined byte by byte: each has the times of the others."""
    parts = [
        Clip(name=f"{seed}.ts", video=(Video(seed=seed, times=every(40, 50)),)).make(tmp_path)
        for seed in range(3)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    whole = [frame.planes[0] for frame in frames_of(path)]
    assert len(whole) == 150
    for start in (0.4, 2.4, 4.4):
        first = round(25 * start)
        found = frames_of(path, start=start, duration=0.2)
        assert len(found) == 5
        assert all(map(np.array_equal, [f.planes[0] for f in found], whole[first : first + 5]))


def test_a_part_of_a_stream_without_times(tmp_path: Path) -> None:
    """FFmpeg cannot seek in it."""
    path = Clip(name="clip.h264", video=(Video(times=every(40, 20)),)).make(tmp_path)
    whole = frames_of(path)
    found = frames_of(path, start=0.4, duration=0.2)
    assert len(whole) == 20 and len(found) == 5
    assert np.array_equal(found[0].planes[0], whole[10].planes[0])


def place(
    times: list[int], duration: int = 1, stream: int = 0, *, leaps: bool = True
) -> list[Fraction]:
    corrector: DiscontinuityCorrector[int] = DiscontinuityCorrector(leaps=leaps)
    placed = []
    for time_seconds in times:
        placed += corrector.push(stream, Fraction(time_seconds), Fraction(duration), time_seconds)
    placed += corrector.flush()
    return [time_seconds - shift for time_seconds, shift in placed]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        # a pause in a recording stays
        ([0, 1, 60, 61, 62], [0, 1, 60, 61, 62]),
        # a number that was damaged does not move what follows
        ([0, 1, 5000, 3, 4], [0, 1, 2, 3, 4]),
        # one recording after the other
        ([100, 101, 0, 1, 2], [100, 101, 102, 103, 104]),
        # a clock set to another day
        ([0, 1, 86400, 86401], [0, 1, 2, 3]),
        ([0, 1, 5000], [0, 1, 2]),
    ],
)
def test_the_clock_may_jump(times: list[int], expected: list[int]) -> None:
    assert place(times) == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        # a pause of a day, and one picture an hour
        ([0, 1, 86400, 86401], [0, 1, 86400, 86401]),
        ([0, 3600, 7200, 10800], [0, 3600, 7200, 10800]),
        # one recording after the other, the second one of a single picture
        ([100, 101, 0, 1, 2], [100, 101, 102, 103, 104]),
        ([100, 101, 0], [100, 101, 102]),
        # a time out of order, which is the writer's to tell
        ([0, 1, 2, 0, 4, 5], [0, 1, 2, 0, 4, 5]),
    ],
)
def test_a_clock_that_does_not_count_in_a_circle_may_only_begin_again(
    times: list[int], expected: list[int]
) -> None:
    assert place(times, leaps=False) == expected


def appended(name: str, parts: list[Path]) -> Path:
    """One recording after the other, as `cat` makes it and as cameras append to a file."""
    path = parts[0].parent / name
    # the second header of an FLV is none of its tags
    rest = [part.read_bytes()[13 if name.endswith("flv") else 0 :] for part in parts[1:]]
    path.write_bytes(parts[0].read_bytes() + b"".join(rest))
    return path


@pytest.mark.parametrize("extension", ["flv", "mkv", "ts"])
def test_a_clock_that_begins_again_follows_on(extension: str, tmp_path: Path) -> None:
    audio, videos = Audio(seconds=1.2), [Video(times=every(40, 30), gop=5, seed=s) for s in (0, 1)]
    if extension == "flv":
        videos = [replace(video, b_frames=2) for video in videos]
    parts = [
        Clip(name=f"part{number}.{extension}", video=(video,), audio=(audio,)).make(tmp_path)
        for number, video in enumerate(videos)
    ]
    frames = frames_of(appended(f"clip.{extension}", parts))
    times = times_of(frames)
    steps = [round(two - one, 3) for one, two in pairwise(times)]
    assert len(frames) == 60
    assert {*steps[:29], *steps[30:]} == {0.04}
    assert 0.03 < steps[29] < 0.2  # the sound of the first part is as long as it is
    with VideoReader(tmp_path / f"clip.{extension}") as reader:
        sound = [float(p.dts * p.time_base) for p in reader if not isinstance(p, Frame)]
        assert reader.jumps == 1
    assert all(0 < two - one < 0.1 for one, two in pairwise(sound))
    assert abs(sound[-1] - times[-1]) < 0.2


def test_subtitles_follow_a_clock_that_begins_again(tmp_path: Path) -> None:
    """Their own times may go back and forth, so that they tell nothing of a clock."""
    video, text = (
        Video(times=every(40, 30), gop=5),
        Subtitles(cues=((0.2, 0.1, "a"), (1, 0.1, "b"))),
    )
    parts = [
        Clip(name=f"part{number}.mkv", video=(video,), subtitles=(text,)).make(tmp_path)
        for number in range(2)
    ]
    with VideoReader(appended("clip.mkv", parts)) as reader:
        cues = [float(p.pts * p.time_base) for p in reader if not isinstance(p, Frame)]
    assert cues == pytest.approx([0.2, 1.0, 1.4, 2.2], abs=0.01)


def test_what_says_that_it_lasts_longer_is_no_jump() -> None:
    """As FFmpeg says of MP4's last stored picture where B-frames are shown after it."""
    assert place([0, 1, 2, 3, 4], duration=5, leaps=False) == [0, 1, 2, 3, 4]
    assert place([0, 1, 2, 3, 4], duration=5) == [0, 1, 2, 3, 4]


def test_streams_jump_together() -> None:
    corrector: DiscontinuityCorrector[str] = DiscontinuityCorrector()
    shifts = {}
    for stream, clock in [(0, 50), (1, 50), (0, 51), (1, 51), (0, 0), (1, 0), (0, 1), (1, 1)]:
        for name, shift in corrector.push(stream, Fraction(clock), SECOND, f"{stream}"):
            shifts[name] = shift
    assert shifts["0"] == shifts["1"] == -52
    assert corrector.jumps == 1


def test_a_copied_track_with_b_frames_has_no_jumps(tmp_path: Path) -> None:
    videos = tuple(Video(times=every(100, 30), rate=10, b_frames=3, seed=s) for s in (0, 1))
    path = Clip(name="clip.ts", video=videos).make(tmp_path)
    with av.open(str(path)) as container:
        other = container.streams.video[1]
        wanted = [(p.pts, p.dts) for p in container.demux(other) if p.size]
    with VideoReader(path) as reader:
        packets = [item for item in reader if not isinstance(item, Frame)]
        assert reader.jumps == 0
    assert [(p.pts, p.dts) for p in packets] == wanted
    assert any(b < a for (a, _), (b, _) in pairwise(wanted))


# threads


def is_full(prefetcher: Prefetcher[int]) -> bool:
    return is_waiting_in(prefetcher._thread, Prefetcher._put)


def test_a_stage_runs_ahead_by_so_much_and_no_more() -> None:
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    with Prefetcher(items(), name="test", max_items=4) as prefetcher:
        wait_until(lambda: not prefetcher._thread.is_alive() or is_full(prefetcher))
        assert len(made) == 4 + 1
        assert next(prefetcher) == 0
        wait_until(lambda: len(made) == 1 + 4 + 1)
        assert list(prefetcher) == list(range(1, 100))


def test_codecs_take_the_cores_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Clip(video=(Video(times=every(40, 2)),)).make(tmp_path)
    for cores, expected in ((1, 1), (3, 3), (64, 8)):
        monkeypatch.setattr(
            "os.sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False
        )
        assert codec_threads() == expected
        with VideoReader(source) as reader:
            assert reader.stream.codec_context.thread_count == expected
            assert len([item for item in reader if isinstance(item, Frame)]) == 2


def test_a_stage_is_bounded_by_weight() -> None:
    made = []

    def items():
        for number in range(10):
            made.append(number)
            yield number

    with Prefetcher(
        items(), name="test", max_items=100, max_size=25, size_of=lambda item: 10
    ) as prefetcher:
        wait_until(lambda: not prefetcher._thread.is_alive() or is_full(prefetcher))
        assert len(made) == 3
        assert list(prefetcher) == list(range(10))


def test_a_heavy_item_passes_alone() -> None:
    with Prefetcher(
        [1, 2], name="test", max_items=9, max_size=1, size_of=lambda item: 9
    ) as prefetcher:
        assert list(prefetcher) == [1, 2]


def test_an_error_comes_after_the_items_before_it() -> None:
    def items():
        yield 1
        yield 2
        raise KeyError("broken")

    prefetcher = Prefetcher(items(), name="test", max_items=9)
    assert [next(prefetcher), next(prefetcher)] == [1, 2]
    with pytest.raises(KeyError, match="broken"):
        next(prefetcher)
    assert prefetcher.close()


def test_closing_a_stage_closes_its_generator() -> None:
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    prefetcher = Prefetcher(items(), name="test", max_items=2)
    next(prefetcher)
    assert prefetcher.close()
    assert closed.is_set()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "may not be read; check its perm"),
        (OSError(errno.EIO, "Input/output error"), r"cannot be read: Input/output error\."),
    ],
)
def test_a_file_that_cannot_be_looked_at_is_not_said_to_be_missing(
    error: OSError, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Clip(video=(Video(width=50, height=38),)).make(tmp_path)

    def refuse(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refuse)
        with pytest.raises(ReadError, match=said):
            VideoReader(path)


def test_a_file_that_goes_away_while_it_is_opened_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Clip(video=(Video(width=50, height=38),)).make(tmp_path)
    plain = av.open

    def open_late(*source: str, **options: object) -> object:
        path.unlink()
        return plain(*source, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(av, "open", open_late)
    with pytest.raises(ReadError, match=r"does not exist; check the path\."):
        VideoReader(path)


def test_a_start_behind_the_end_is_no_damage_where_no_header_tells_the_length(tmp_path):
    clip = Clip(name="clip.mkv", options=(("live", "1"),)).make(tmp_path)
    with VideoReader(clip, start=5) as reader:
        assert reader.num_frames is None
        with pytest.raises(ReadError, match=r"ends before 5 s; choose an earlier start\."):
            list(reader)
