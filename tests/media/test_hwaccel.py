"""Frames that a GPU decodes and encodes, on a GPU that the CPU plays."""

import contextlib
import logging
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from clips import Audio, Clip, Video, every, rotation
from fake_gpu import Gpu, Surfaces
from test_gpu_layout import make_frame
from test_gpu_pipeline import FakeBackend, Piped, frames_of, mixed, restored
from test_llvm_engine import make_network

from mhnet_video.config import Box, RestoreConfig, Settings
from mhnet_video.engines.select import SelectedEngine
from mhnet_video.engines.triton.engine import TritonEngine
from mhnet_video.frame import DeviceFrame, Frame
from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.media.encoders import encoder_surfaces
from mhnet_video.media.encoders.encoder import EncoderSettings
from mhnet_video.media.encoders.encoder_surfaces import open_surfaces
from mhnet_video.media.frames import device_frames
from mhnet_video.media.frames.device_frames import on_host, planes_of_two
from mhnet_video.media.frames.side_data import side_data_of
from mhnet_video.media.reading import hardware_decoder
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.model.window import window_indices
from mhnet_video.pipelines.restore import restore_video
from mhnet_video.restoration import gpu_executor
from mhnet_video.restoration.gpu_layout import FrameFormat, format_of
from mhnet_video.restoration.gpu_pipeline import FramePipeline
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.temporal_window import (
    FrameWindow,
    Neighbours,
    NetworkImage,
    have_equal_samples,
)

pytest.importorskip("triton")
# with a GPU, test_gpu.py has the real ones
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU plays the GPU")

SMALL = {"encoder_blocks": (1, 1, 1, 1), "group_blocks": (1,) * 4}


@pytest.fixture
def gpu(monkeypatch):
    made = Gpu()
    monkeypatch.setattr(hardware_decoder, "_open_on_gpu", made.open)
    for module in ("reading.frame_maker", "frames.device_frames", "frames.side_data"):
        # PyAV makes its container for pictures of its own only
        monkeypatch.setattr(
            f"mhnet_video.media.{module}.side_data_of",
            lambda picture, codec="": side_data_of(getattr(picture, "inner", picture), codec),
        )
    return made


def items_of(path, on_gpu, **part):
    with VideoReader(path, **part) as reader:
        if on_gpu:
            reader.decode_on_gpu(0)
        # the decoder's memory goes with the reader: samples are looked at before
        return [on_host(item) if isinstance(item, Frame) else item for item in reader], reader


def assert_same_frames(found, expected):
    found, expected = ([i for i in items if isinstance(i, Frame)] for items in (found, expected))
    assert [frame.pts for frame in found] == [frame.pts for frame in expected]
    for a, b in zip(found, expected, strict=True):
        kept = ("layout", "matrix", "full_range", "rotation", "duration", "time_base")
        assert [getattr(a, name) for name in kept] == [getattr(b, name) for name in kept]
        assert {**a.tags, "decoded": 0} == {**b.tags, "decoded": 0}
        for x, y in zip(a.planes, b.planes, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


UNEVEN = tuple(np.cumsum([40, 7, 120, 33, 40, 1] * 8).tolist())
CLIPS = {
    "b-frames": Video(times=every(40, 40), b_frames=3, gop=10),
    "uneven": Video(times=UNEVEN, matrix=rotation(90), color=(1, 9, 9, 16)),
    "10 bits": Video(pixel_format="yuv420p10le", times=every(40, 9), color=(2, 1, 1, 1)),
    "full range": Video(pixel_format="yuvj420p", times=every(40, 9), width=50, height=38),
}


@pytest.mark.parametrize("video", CLIPS.values(), ids=CLIPS)
def test_what_a_gpu_decodes_is_what_the_cpu_decodes(video, gpu, tmp_path, caplog):
    path = Clip(video=(video,), audio=(Audio(),)).make(tmp_path)
    with VideoReader(path) as reader:
        reader.decode_on_gpu(0)
        frames = [item for item in reader if isinstance(item, Frame)]
        assert all(isinstance(frame, DeviceFrame) and frame.planes == () for frame in frames)
        assert {(frame.width, frame.height) for frame in frames} == {(video.width, video.height)}
        assert frames[0].num_bytes == sum(plane.nbytes for plane in on_host(frames[0]).planes)
    found, reader = items_of(path, True)
    expected, _ = items_of(path, False)
    assert_same_frames(found, expected)
    sound = ([i.dts for i in items if not isinstance(i, Frame)] for items in (found, expected))
    assert next(sound) == next(sound) != []
    assert gpu.opened[0].streams[0].codec_context.thread_count == 1
    assert all(container.is_closed for container in gpu.opened)
    assert reader.damaged == 0
    assert caplog.records == []


@pytest.mark.parametrize("fails_at", [1, 2, 9, 13, 21, 22, 40, 41])
@pytest.mark.parametrize("name", ["b-frames", "uneven"])
def test_the_cpu_takes_over_where_the_gpu_fails(fails_at, name, gpu, tmp_path, caplog):
    path = Clip(video=(CLIPS[name],), audio=(Audio(),)).make(tmp_path)
    expected, _ = items_of(path, False)
    with VideoReader(path) as reader:
        reader.decode_on_gpu(0)
        gpu.fails_at = fails_at
        found = [on_host(item) if isinstance(item, Frame) else item for item in reader]
        assert reader.damaged == 0
    assert_same_frames(found, expected)
    assert ["no surface is left" in each.getMessage() for each in caplog.records] == [True]


def test_every_picture_a_key_frame(gpu, tmp_path):
    """A decoder may hold pictures back for longer than from one key frame to the next."""
    path = Clip(video=(Video(times=every(40, 60), gop=1),)).make(tmp_path)
    expected, _ = items_of(path, False)
    with VideoReader(path) as reader:
        reader.decode_on_gpu(0)
        gpu.fails_at = 50
        kept = reader._decoder._hardware
        found = []
        for item in reader:
            found.append(on_host(item))
            assert len(kept._parts) <= hardware_decoder._MIN_KEPT + 2
    assert_same_frames(found, expected)


def test_a_search_begins_afresh(gpu, tmp_path):
    path = Clip(video=(Video(times=every(40, 60), gop=10, b_frames=2),)).make(tmp_path)
    found, _ = items_of(path, True, start=1.3, duration=0.5)
    expected, _ = items_of(path, False, start=1.3, duration=0.5)
    assert_same_frames(found, expected)
    assert len(gpu.opened) == 1


@pytest.mark.parametrize(
    ("name", "video", "said"),
    [
        ("clip.mkv", Video(codec="ffv1"), "not asked for ffv1"),
        ("clip.mp4", Video(pixel_format="yuv422p"), "64x48 yuv422p stays on the CPU"),
        ("clip.mkv", Video(codec="libx264", pixel_format="yuv444p"), "yuv444p stays"),
    ],
)
def test_what_no_gpu_is_asked_for(name, video, said, gpu, tmp_path, caplog):
    caplog.set_level(logging.INFO, "mhnet_video.media.reading.hardware_decoder")
    path = Clip(name=name, video=(video,)).make(tmp_path)
    found, _ = items_of(path, True)
    assert_same_frames(found, items_of(path, False)[0])
    assert [said in each.getMessage() for each in caplog.records] == [True]
    assert gpu.opened == []


def test_it_can_be_turned_off(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("MHNET_HWACCEL", "0")
    path = Clip().make(tmp_path)
    with VideoReader(path) as reader:
        reader.decode_on_gpu(0)
        assert not any(isinstance(item, DeviceFrame) for item in reader)
    assert gpu.opened == []
    assert not encoder_surfaces.takes_surfaces("h264_nvenc")


def refused(reason):
    def open_on_gpu(name, index):
        raise reason

    return open_on_gpu


@pytest.mark.parametrize("wrong", ["samples", "format", "interlaced", "nothing", "opens not"])
def test_a_gpu_that_does_not_do_is_told_once(wrong, gpu, tmp_path, monkeypatch, caplog):
    path = Clip(video=(Video(times=every(40, 9)),)).make(tmp_path)

    def spoil(picture):
        np.frombuffer(memoryview(picture.inner.planes[0]), np.uint8)[7] ^= 1

    if wrong == "samples":
        gpu.touch = spoil
    elif wrong == "format":
        gpu.twin = "nv16"
    elif wrong == "interlaced":
        gpu.touch = lambda picture: setattr(picture, "interlaced_frame", True)
    elif wrong == "nothing":
        monkeypatch.setattr("fake_gpu.Context.decode", lambda self, packet: [])
    else:
        error = PermissionError(1, "Operation not permitted", "avcodec_open2")
        monkeypatch.setattr(hardware_decoder, "_open_on_gpu", refused(error))
    found, _ = items_of(path, True)
    assert_same_frames(found, items_of(path, False)[0])
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("video is decoded on the CPU: ")
    assert all(container.is_closed for container in gpu.opened)


def test_what_ffmpeg_says_without_a_gpu(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hardware_decoder, "context_of", lambda index: contextlib.nullcontext())
    with VideoReader(Clip().make(tmp_path)) as reader:
        reader.decode_on_gpu(0)
        assert reader._decoder._hardware is None
    assert len(caplog.records) == 1


def device_frame(frame, bits_down=0, row=0):
    """A frame as a GPU would have decoded it, rows `row` samples longer than they need be."""
    luma, u, v = frame.planes
    kind = luma.dtype
    made = np.full((len(luma) * 3 // 2, luma.shape[1] + row), 5, kind)
    made[: len(luma), : luma.shape[1]] = luma << bits_down
    made[len(luma) :, 0 : luma.shape[1] : 2] = u << bits_down
    made[len(luma) :, 1 : luma.shape[1] : 2] = v << bits_down
    both = torch.from_numpy(made.view(np.uint8 if kind == np.uint8 else np.int16))
    inner = av.VideoFrame(luma.shape[1], len(luma), "nv12" if kind == np.uint8 else "p010le")
    return DeviceFrame(
        planes=(),
        layout=frame.layout,
        pts=frame.pts,
        time_base=frame.time_base,
        matrix=frame.matrix,
        full_range=frame.full_range,
        rotation=frame.rotation,
        luma=both[: len(luma), : luma.shape[1]],
        chroma=both[len(luma) :, : luma.shape[1]].unflatten(1, (-1, 2)),
        bits_down=bits_down,
        picture=inner,
    )


@pytest.mark.parametrize(("name", "bits_down"), [("yuv420p", 0), ("yuv420p10le", 6)])
@pytest.mark.parametrize("width", [854, 1080, 1366, 426])
def test_rows_begin_where_nvenc_wants_them(name, bits_down, width):
    """It reads results where they are, and ends the whole context where a row begins elsewhere."""
    form = format_of(device_frame(make_frame(name, 12, width), bits_down))
    results = torch.zeros(3, form.size, dtype=form.sample_dtype)
    for slot in results:
        luma, chroma = form.planes_in(slot)
        bytes_of_row = luma.stride(0) * luma.element_size()
        assert bytes_of_row % 16 == 0 and chroma.stride(0) == luma.stride(0)
        begin = luma.data_ptr() - results.data_ptr()
        assert begin % 16 == 0 and chroma.data_ptr() - luma.data_ptr() == 12 * bytes_of_row


def small_frames(name, count=4, height=12, width=16):
    frames = [make_frame(name, height, width, rotation=90) for _ in range(count)]
    return [
        replace(f, planes=tuple(np.roll(p, i, 1) for p in f.planes), pts=i)
        for i, f in enumerate(frames)
    ]


@pytest.mark.parametrize(("name", "bits_down"), [("yuv420p", 0), ("yuv420p10le", 6)])
@pytest.mark.parametrize("stays", [False, True])
def test_the_way_through_the_network(name, bits_down, stays, monkeypatch):
    """Frames in two planes come out as their twins in three do, wherever they come out."""
    network = make_network(width=4, frames=3, heads=4, **SMALL)
    monkeypatch.setattr(map_ops, "use_triton", lambda *tensors: False)
    engine = TritonEngine(network, torch.float32)
    frames = small_frames(name)
    with dispatch.on_cpu():
        expected = restored(Piped(engine, FakeBackend(1)).stream(frames))
        piped = Piped(engine, FakeBackend(2), stays=stays)
        found = restored(piped.stream([device_frame(f, bits_down, row=6) for f in frames]))
    assert all(isinstance(frame, DeviceFrame) == stays for frame in found)
    assert [frame.pts for frame in found] == [frame.pts for frame in frames]
    for frame, twin, source in zip(found, expected, frames, strict=True):
        planes = frame.planes
        if stays:
            planes = planes_of_two(frame.luma, frame.chroma, frame.bits_down)
        for a, b, c in zip(planes, twin.planes, source.planes, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == c.dtype
            assert (a != c).any()


@pytest.mark.parametrize("seed", range(8))
def test_samples_are_read_when_the_decoder_has_written_them(seed):
    sources = frames_of(12, height=4, width=6)
    backend = FakeBackend(seed)
    form = FrameFormat.semi_planar(8, 4, 6, 6)
    pipeline = FramePipeline(backend, form, 3, mixed, batch=2, stays=seed % 2 == 1)
    # not of `windows_of`, which compares samples before they are written
    neighbours = Neighbours(3)
    results, made = [], []
    for source in sources:
        chroma = tuple(plane[:2, :3] for plane in source.planes[1:])
        frame = device_frame(replace(source, planes=(source.planes[0], *chroma)))
        samples = frame.luma.clone()
        frame.luma.fill_(255)
        # the decoder's own queue, which fills the picture at some time
        backend.decoder.run(lambda to=frame.luma, what=samples: to.copy_(what))
        made.append((frame, samples))
        assert format_of(frame).is_semi_planar
        for items in neighbours.push(NetworkImage(frame, 1.0)):
            results += pipeline.push(FrameWindow(items[1].frame, Settings(), items))
    for items in neighbours.flush():
        results += pipeline.push(FrameWindow(items[1].frame, Settings(), items))
    results += pipeline.flush()
    assert len(results) == 12
    for index, result in enumerate(results):
        if sources[index].full_range:
            assert result.planes is None
            assert result.samples is None
            continue
        places = window_indices(index, 12, 3)
        window = sum((n + 1) * made[p][1].int() for n, p in enumerate(places)) % 251
        luma = result.samples[0] if result.samples else torch.from_numpy(result.planes[0])
        np.testing.assert_array_equal(luma, window)


def test_equal_frames_of_a_gpu_are_seen():
    first, second = (device_frame(f, row=2 * i) for i, f in enumerate(small_frames("yuv420p", 2)))
    again = device_frame(small_frames("yuv420p", 1)[0], row=4)
    assert have_equal_samples(first, again)
    assert not have_equal_samples(first, second)
    assert not have_equal_samples(first, small_frames("yuv420p", 1)[0])
    again.chroma[-1, -1, 1] += 1
    assert not have_equal_samples(first, again)


def make_restorer(monkeypatch, keep=()):
    """A restorer on a GPU that the CPU plays."""
    network = make_network(width=4, heads=4, frames=3, **SMALL)
    made = Restorer(network, device="cpu", keep=keep)
    made.engine = SelectedEngine(TritonEngine(network, torch.float32), "triton", "a test")
    monkeypatch.setattr(gpu_executor, "CudaBackend", lambda device: FakeBackend())
    monkeypatch.setattr(map_ops, "use_triton", lambda *tensors: False)
    return made


def test_lanes_download_each_frame_once(gpu, tmp_path, monkeypatch):
    path = Clip(video=(Video(times=every(40, 9)),)).make(tmp_path)
    downloads = []
    plain = device_frames.downloaded

    def counted(picture):
        downloads.append(picture.pts)
        return plain(picture)

    monkeypatch.setattr(device_frames, "downloaded", counted)
    restorer = Restorer(
        make_network(width=4, heads=4, frames=3, **SMALL), device="cpu", engine="torch"
    )
    with VideoReader(path) as reader:
        reader.decode_on_gpu(0)
        frames = [item for item in reader if isinstance(item, Frame)]
    downloads.clear()
    found = list(restorer.stream(frames))
    assert all(isinstance(frame, DeviceFrame) for frame in frames)
    assert sorted(downloads) == [frame.pts for frame in frames]
    assert_same_frames(found, list(restorer.stream(items_of(path, False)[0])))


@pytest.fixture
def surfaces(monkeypatch):
    """libx264 plays an encoder on a GPU."""
    monkeypatch.setattr(Surfaces, "given", 0)
    monkeypatch.setattr(encoder_surfaces, "Surfaces", Surfaces)
    for module in ("media.encoders.encoder_surfaces", "pipelines.restore"):
        monkeypatch.setattr(f"mhnet_video.{module}.takes_surfaces", lambda encoder: True)
    return Surfaces


def pictures_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        tags = [
            getattr(stream.codec_context, name)
            for name in ("color_range", "colorspace", "color_primaries", "color_trc")
        ]
        frames = [(f.pts * f.time_base, f.to_ndarray()) for f in container.decode(stream)]
    return tags, frames


FILM = Clip(
    video=(Video(times=UNEVEN[:9], matrix=rotation(180), color=(2, 1, 1, 1), width=16, height=16),),
    audio=(Audio(seconds=0.3),),
)
LOSSLESS = {"crf": 0, "preset": "ultrafast", "encoder": "libx264"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A film, and what comes of it where the CPU decodes and encodes; by the boxes to keep."""
    folder = tmp_path_factory.mktemp("plain")
    path = FILM.make(folder)
    known = {}

    def restored(restorer):
        if restorer.keep not in known:
            config = RestoreConfig(**LOSSLESS, overwrite=True)
            with dispatch.on_cpu(), pytest.MonkeyPatch.context() as cpu_only:
                cpu_only.setattr(VideoReader, "decode_on_gpu", lambda self, index: None)
                report = restore_video(path, folder / "out.mp4", config, restorer=restorer)
            known[restorer.keep] = report, *pictures_of(folder / "out.mp4")
        return known[restorer.keep]

    return path, restored


@pytest.mark.slow
@pytest.mark.parametrize("case", ["to the end", "through the host", "boxes", "extras", "mixed"])
def test_from_file_to_file(case, plain, gpu, surfaces, tmp_path, monkeypatch, caplog):
    keep = (Box(2, 1, 6, 4),) if case == "boxes" else ()
    restorer = make_restorer(monkeypatch, keep)
    path, restored = plain
    expected_report, expected_tags, expected = restored(restorer)
    surfaces.given = 0
    if case == "through the host":
        monkeypatch.setattr("mhnet_video.pipelines.restore.takes_surfaces", lambda name: False)
    elif case == "extras":
        number = iter(range(100))
        # the first is the one that is tried
        gpu.touch = lambda picture: setattr(picture, "interlaced_frame", next(number) > 2)
    elif case == "mixed":
        monkeypatch.setattr(hardware_decoder, "_MIN_KEPT", 1000)
        opened = gpu.open

        def failing(name, index):
            made = opened(name, index)
            made.streams[0].codec_context.flush_buffers = lambda: setattr(gpu, "fails_at", 6)
            return made

        monkeypatch.setattr(hardware_decoder, "_open_on_gpu", failing)
    with dispatch.on_cpu():
        config = RestoreConfig(**LOSSLESS)
        report = restore_video(path, tmp_path / "out.mp4", config, restorer=restorer)
    assert len(gpu.opened) == 1
    assert report.kept == expected_report.kept
    lost = [loss for loss in report.losses if loss.kind != "fields"]
    assert (lost, len(report.losses) - len(lost)) == ([], case == "extras")
    assert expected_report.losses == ()
    assert report.pixel_format == expected_report.pixel_format
    tags, found = pictures_of(tmp_path / "out.mp4")
    assert tags == expected_tags
    assert [time for time, _ in found] == [time for time, _ in expected]
    given = {"to the end": 9 + 2, "extras": 2 + 2}
    if case in given:  # one for a try, and one to open the encoder with
        assert surfaces.given == given[case] - 1
    elif case != "mixed":
        assert surfaces.given == 0
    differing = [not np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True)]
    # where a run ends and another begins, two frames lack a neighbour
    assert sum(differing) <= 2 * (case == "mixed")
    assert len(caplog.records) == (case == "mixed")


def test_surfaces_are_for_frames_that_they_suit(surfaces, caplog):
    frames = small_frames("yuv420p", 2, height=48, width=64)
    frame = device_frame(frames[0])

    def encoding(**changes):
        values = {
            "encoder": "libx264",
            "width": 64,
            "height": 48,
            "pixel_format": "yuv420p",
            "fps": Fraction(25),
            "time_base": Fraction(1, 25),
            "options": {},
        }
        return EncoderSettings(**{**values, **changes})

    found = open_surfaces(frame, encoding())
    assert found is not None
    assert found.takes(frame)
    assert not found.takes(frames[0])
    assert not found.takes(device_frame(small_frames("yuv420p", 1, height=20, width=64)[0]))
    assert open_surfaces(frames[0], encoding()) is None
    deep = device_frame(small_frames("yuv420p10le", 1, height=48, width=64)[0], 6)
    assert open_surfaces(deep, encoding()) is None
    assert caplog.records == []
    assert open_surfaces(frame, encoding(options={"preset": "no such"})) is None
    assert ["go through the host" in each.getMessage() for each in caplog.records] == [True]
