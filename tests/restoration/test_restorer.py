"""Windows, sizes, tiles and rotation around the network."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from test_llvm_engine import make_network
from test_self_ensemble import answers, wanted_of

import mhnet_video.restoration.resize
import mhnet_video.restoration.restorer
from mhnet_video.config import Box
from mhnet_video.engines.base import TorchEngine
from mhnet_video.engines.select import SelectedEngine
from mhnet_video.errors import ConfigError
from mhnet_video.frame import Frame, PixelLayout
from mhnet_video.model.align import align
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.weights import load_model
from mhnet_video.restoration import working_scale
from mhnet_video.restoration.color import to_rgb
from mhnet_video.restoration.restorer import Restorer
from mhnet_video.restoration.rgb_frames import frame_of
from mhnet_video.restoration.self_ensemble import TRANSFORMS
from mhnet_video.restoration.working_scale import ScaleReason

LAYOUT = PixelLayout("yuv444p", "yuv", 8, 0, 0)


class Spy(MHNet):
    """A network that darkens by the mean of its window's first pixel, and notes its windows."""

    def __init__(self, frames=3, *, align=False):
        sizes = {"width": 8, "encoder_blocks": (0,) * 4}
        super().__init__(NetworkConfig(**sizes, frames=frames, align=align))
        self.windows = []

    def residual(self, x):
        self.windows.append(x.clone())
        return -0.25 * x[:, 3 * (self.config.frames // 2) :][:, :3]


def gray_frame(level, index=0, size=(6, 8), **options):
    planes = (
        np.full(size, level, np.uint8),
        np.full(size, 128, np.uint8),
        np.full(size, 128, np.uint8),
    )
    return Frame(planes, LAYOUT, pts=index, time_base=Fraction(1, 25), full_range=True, **options)


def levels(spy):
    """The gray level of each frame of each window; 0 where there is none.

    A picture on its own is looked at several times.
    """
    return [(window[0, ::3, 0, 0] * 255).round().int().tolist() for window in spy.windows]


@pytest.mark.parametrize(
    ("count", "frames", "expected"),
    [
        (1, 3, [[0, 10, 0]] * len(TRANSFORMS)),
        (2, 3, [[10, 10, 20], [10, 20, 20]]),
        (4, 3, [[30, 10, 20], [10, 20, 30], [20, 30, 40], [30, 40, 20]]),
        (3, 5, [[10, 10, 10, 20, 30], [10, 10, 20, 30, 30], [10, 20, 30, 30, 30]]),
        (1, 5, [[0, 0, 10, 0, 0]] * len(TRANSFORMS)),
        (3, 1, [[10], [20], [30]]),
        (0, 3, []),
    ],
)
def test_windows_at_the_ends_and_of_few_frames_and_of_one(count, frames, expected):
    spy = Spy(frames)
    numbers = range(1, count + 1)
    out = list(Restorer(spy, device="cpu").stream(gray_frame(10 * i, i) for i in numbers))
    assert levels(spy) == expected
    assert [frame.pts for frame in out] == list(numbers)
    assert [int(frame.planes[0][0, 0]) for frame in out] == [round(7.5 * i) for i in numbers]


@pytest.mark.parametrize("size", [(32, 64), (45, 37)])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_picture_on_its_own_is_seen_from_several_sides_and_distances(frames, size):
    """What is added is what they agree on; where no neighbours are ever seen, it is seen once."""
    blocks = {"encoder_blocks": (1,) * 4, "group_blocks": (1,) * 4}
    network = make_network(width=4, heads=4, frames=frames, patch=2, **blocks)
    restorer = Restorer(network, device="cpu")
    restorer.engine = SelectedEngine(TorchEngine(network), "torch", "a test")  # float32
    pictures = np.random.default_rng(3).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    picture = torch.from_numpy(pictures[0]).permute(2, 0, 1) / 255
    bottom, right = (-side % network.config.multiple for side in size)
    picture = torch.nn.functional.pad(picture[None], (0, right, 0, bottom), mode="replicate")[0]

    def residual_of(seen):
        black = seen.new_zeros(1, 3 * (frames // 2), *seen.shape[1:])
        return network.residual(torch.cat([black, seen[None], black], dim=1))[0]

    with torch.inference_mode():
        once = residual_of(picture)
        sides = list(answers(picture, network.config.multiple, residual_of, TRANSFORMS))
    assert all(float((once - side).abs().max()) > 0.02 for side in sides[1:])
    residual = wanted_of(sides) if frames > 1 else once
    expected = (picture + residual)[:, : size[0], : size[1]] * 255
    (out,) = restorer.restore(pictures)
    assert np.abs(out - expected.clamp(0, 255).permute(1, 2, 0).numpy()).max() <= 0.51


def test_no_window_across_a_change_of_size():
    spy = Spy()
    frames = [gray_frame(10 * i, i, size=(6, 8) if i < 4 else (4, 4)) for i in range(1, 6)]
    out = list(Restorer(spy, device="cpu").stream(frames))
    assert levels(spy) == [[30, 10, 20], [10, 20, 30], [20, 30, 10], [40, 40, 50], [40, 50, 50]]
    assert [frame.planes[0].shape for frame in out] == [(6, 8)] * 3 + [(4, 4)] * 2


def test_no_window_across_a_cut():
    spy, random = Spy(), np.random.default_rng(0)
    scenes = random.integers(20, 200, (2, 40, 64), dtype=np.uint8)
    frames = [gray_frame(scenes[i // 8] + i, i, size=(40, 64)) for i in range(16)]
    assert len(list(Restorer(spy, device="cpu").stream(frames))) == 16
    one, other = (int(scene[0, 0]) for scene in scenes)
    assert levels(spy)[6:10] == [
        [one + 5, one + 6, one + 7],
        [one + 6, one + 7, one + 5],
        [other + 10, other + 8, other + 9],
        [other + 8, other + 9, other + 10],
    ]


def test_other_items_pass_at_once():
    # the first frames wait until a raised frame rate would be known, later ones for a neighbour,
    # and until it is known whether the next one is restored to the same
    frames = [gray_frame(10 * index, index) for index in range(16)]
    items = ["a", *frames[:2], "b", *frames[2:15], "c", frames[15], "d"]
    out = list(Restorer(Spy(), device="cpu").stream(items))
    order = [item if isinstance(item, str) else item.pts for item in out]
    assert order == ["a", "b", *range(13), "c", 13, "d", 14, 15]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_pictures_among_frames_are_refused(as_tensor):
    picture = np.zeros((32, 32, 3), np.uint8)
    item = torch.from_numpy(picture) if as_tensor else picture
    with pytest.raises(ValueError, match="restore"):
        list(Restorer("realtime", device="cpu").stream([item]))


def test_strength_zero_hands_on_the_very_frames():
    frames = [gray_frame(10 * i, i) for i in range(4)]
    spy = Spy()
    out = list(Restorer(spy, device="cpu", strength=0).stream(frames))
    assert all(a is b for a, b in zip(out, frames, strict=True))
    assert spy.windows == []


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_the_network_sees_the_picture_upright(rotation):
    """A mark in the corner that is top left for the viewer; only it is to be darkened."""
    corner = {0: (0, 0), 90: (-1, 0), 180: (-1, -1), 270: (0, -1)}[rotation]
    frame = gray_frame(200, size=(16, 32), rotation=rotation)
    frame.planes[0][corner] = 100

    class Corner(Spy):
        def residual(self, x):
            assert x.shape[-2:] == ((16, 32) if rotation % 180 == 0 else (32, 16))
            assert round(float(x[0, 0, 0, 0]) * 255) == 100
            residual = torch.zeros_like(x[:, :3])
            residual[..., 0, 0] = -0.2
            return residual

    (out,) = Restorer(Corner(1), device="cpu").stream([frame])
    changed = np.argwhere(out.planes[0] != frame.planes[0])
    assert changed.tolist() == [[corner[0] % 16, corner[1] % 32]]


@pytest.mark.parametrize("numbers", [(float("nan"),), (float("inf"), float("-inf"))])
def test_frames_without_finite_numbers_pass_through(numbers):
    class Broken(Spy):
        def residual(self, x):
            residual = torch.zeros_like(x[:, :3])
            residual[..., 0, : len(numbers)] = torch.tensor(numbers)
            return residual

    restorer = Restorer(Broken(), device="cpu")
    frames = [gray_frame(10, i) for i in range(3)]
    assert [a is b for a, b in zip(restorer.stream(frames), frames, strict=True)] == [True] * 3
    assert restorer.passed_through == 3


def test_equal_frames_are_not_paid_for_twice():
    frames = [gray_frame(10 if i < 5 else 20, i) for i in range(10)]
    spy = Spy()
    restorer = Restorer(spy, device="cpu")
    out = list(restorer.stream(frames))
    # a copy is no neighbour: the network sees what comes after all of them
    assert levels(spy) == [[10, 10, 20], [10, 20, 20]]
    assert restorer.repeated == 8
    assert [frame.pts for frame in out] == list(range(10))
    assert [int(frame.planes[0][0, 0]) for frame in out] == [8] * 5 + [15] * 5
    list(restorer.stream(frames[:1]))
    assert restorer.repeated == 0  # of one stream, not of all


def test_copies_that_were_coded_anew_are_no_neighbours_either():
    """Each frame twice: its neighbours are those before and behind both."""
    spy = Spy()
    frames = [gray_frame(40 * (i // 2 % 4) + 10 + i % 2, i) for i in range(40)]
    out = list(Restorer(spy, device="cpu", engine="torch").stream(frames))
    assert [frame.pts for frame in out] == list(range(40))
    grey = [int(frame.planes[0][0, 0]) for frame in frames]
    first = [2 * (i // 2) for i in range(40)]
    expected = [[grey[first[i] - 2], grey[i], grey[first[i] + 2]] for i in range(14, 38)]
    assert levels(spy)[14:38] == expected


def test_a_still_picture_does_not_wait_for_ever():
    spy = Spy()
    restorer = Restorer(spy, device="cpu")
    stream = restorer.stream(gray_frame(10, i) for i in range(100))
    begun = [next(stream) for _ in range(60)]
    assert [frame.pts for frame in begun] == list(range(60))
    assert [frame.pts for frame in stream] == list(range(60, 100))
    # a picture, no scene at rest
    assert (levels(spy), restorer.repeated) == ([[0, 10, 0]] * len(TRANSFORMS), 99)


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": 180},
        {"full_range": False},
        {"matrix": "bt709"},
        {"planes": (np.full((6, 8), 10, np.uint8), *[np.full((6, 8), 127, np.uint8)] * 2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_frames_that_differ_in_anything_are_not_equal(change):
    spy = Spy(1)
    restorer = Restorer(spy, device="cpu")
    frames = [gray_frame(10, 0), gray_frame(10, 1), replace(gray_frame(10, 2), **change)]
    list(restorer.stream(frames))
    assert (len(spy.windows), restorer.repeated) == (2, 1)


def test_a_change_of_strength_counts_from_the_next_frame_on():
    restorer = Restorer(Spy(1), device="cpu")

    def frames():
        for index in range(4):
            restorer.strength = 1.0 if index < 2 else 0.4
            yield gray_frame(100, index)

    assert [int(frame.planes[0][0, 0]) for frame in restorer.stream(frames())] == [75, 75, 90, 90]


def test_tiles_equal_the_whole(monkeypatch):
    """A network that looks one pixel around gives the same in tiles, seams included."""

    sizes = set()

    class Local(Spy):
        def residual(self, x):
            sizes.add(tuple(x.shape[2:]))
            return torch.nn.functional.avg_pool2d(x[:, :3], 3, 1, 1) - x[:, :3]

    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (301, 403, 3)).astype(np.uint8)
    restorer = Restorer(Local(1), device="cpu")
    (whole,) = restorer.restore([picture])
    sizes.clear()
    monkeypatch.setattr(restorer.engine.engine, "max_pixels", 9000)
    (tiled,) = restorer.restore([picture])
    assert len(sizes) == 1  # one plan of an engine's serves all
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert not np.array_equal(whole, picture)


def test_pictures_of_both_kinds():
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (7, 9, 3)).astype(np.uint8) for _ in range(3)]
    restorer = Restorer(Spy(), device="cpu", keep=[Box(0, 0, 4, 2)])
    arrays = list(restorer.restore(pictures))
    tensors = list(restorer.restore(torch.from_numpy(p) for p in pictures))
    for picture, array, tensor in zip(pictures, arrays, tensors, strict=True):
        expected = np.round(picture * np.float32(0.75)).astype(np.uint8)
        expected[:2, :4] = picture[:2, :4]
        assert np.abs(array.astype(int) - expected).max() <= 1
        assert isinstance(tensor, torch.Tensor) and np.array_equal(tensor.numpy(), array)
    with pytest.raises(ValueError, match=r"expected \[H, W, 3\] uint8, got \[7, 9\]"):
        list(restorer.restore([np.zeros((7, 9), np.uint8)]))
    with pytest.raises(ValueError, match="float32"):
        list(restorer.restore([np.zeros((7, 9, 3), np.float32)]))


def test_one_by_one_is_the_same_as_an_iterator():
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (7, 9, 3)).astype(np.uint8) for _ in range(4)]
    restorer = Restorer(Spy(), device="cpu")
    expected = list(restorer.restore(pictures))
    for _ in range(2):  # a second clip begins anew
        counts = [restorer.push(picture) for picture in pictures] + [restorer.flush()]
        assert [len(ready) for ready in counts] == [0, 0, 0, 0, 4]
        assert all(map(np.array_equal, [p for ready in counts for p in ready], expected))
    assert restorer.flush() == []


@pytest.mark.parametrize("options", [{}, {"scale": 0.5}, {"keep": [(0, 0, 4, 2)]}], ids=str)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_who_gives_a_picture_may_write_into_it(options, as_tensor):
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (8, 12, 3)).astype(np.uint8) for _ in range(5)]
    kind = torch.from_numpy if as_tensor else np.asarray
    restorer = Restorer(Spy(), device="cpu", **options)
    expected = list(restorer.restore(kind(picture) for picture in pictures))

    def from_one_buffer():
        buffer = np.empty_like(pictures[0])
        for picture in pictures:
            buffer[:] = picture
            yield kind(buffer)

    for got, wanted in zip(restorer.restore(from_one_buffer()), expected, strict=True):
        assert np.array_equal(got, wanted)
    # and what comes out is nobody's but the caller's
    twice = list(restorer.restore([kind(pictures[0]), kind(pictures[0].copy())]))
    twice[0][:] = 0
    assert not np.array_equal(*twice)


def test_pictures_may_lie_in_memory_in_any_way():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    restorer = Restorer(Spy(), device="cpu")
    (expected,) = restorer.restore([picture])
    bgr = np.ascontiguousarray(picture[..., ::-1])
    read_only = np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.shape)
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, ::2] = picture
    for same in (bgr[..., ::-1], read_only, wide[:, ::2], np.asfortranarray(picture)):
        (got,) = restorer.restore([same])
        assert np.array_equal(got, expected)
    for wrong in (picture.tolist(), picture[:0], picture[:, :0]):
        with pytest.raises(ValueError, match="expected"):
            restorer.push(wrong)


def test_pushed_clips_are_counted_one_by_one():
    restorer = Restorer(Spy(), device="cpu")
    for levels_given, repeated in (([10] * 5 + [20] * 5, 8), ([10, 20, 20], 1), ([30], 0)):
        for level in levels_given:
            restorer.push(np.full((6, 8, 3), level, np.uint8))
        restorer.flush()
        assert restorer.repeated == repeated


@pytest.mark.parametrize("as_tensor", [False, True])
def test_equal_pictures_are_not_paid_for_twice(as_tensor):
    kind = torch.from_numpy if as_tensor else np.asarray
    spy = Spy()
    restorer = Restorer(spy, device="cpu")
    levels_given = [10] * 5 + [20] * 5
    out = list(restorer.restore(kind(np.full((6, 8, 3), n, np.uint8)) for n in levels_given))
    # a copy is no neighbour: the network sees what comes after all of them
    assert levels(spy) == [[10, 10, 20], [10, 20, 20]]
    assert restorer.repeated == 8
    assert [int(picture[0, 0, 0]) for picture in out] == [8] * 5 + [15] * 5


def test_another_scale_begins_another_clip():
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (16, 24, 3)).astype(np.uint8) for _ in range(6)]
    parts = []
    for scale, part in ((0.5, pictures[:3]), (1.0, pictures[3:])):
        parts += list(Restorer(Spy(), device="cpu", scale=scale).restore(part))
    for one, other in ((0.5, 1.0), (1.0, 0.5)):
        spy = Spy()
        restorer = Restorer(spy, device="cpu", scale=one)
        got = []
        for index, picture in enumerate(pictures):
            restorer.scale = one if index < 3 else other
            got += restorer.push(picture)
        got += restorer.flush()
        expected = []
        for scale, part in ((one, pictures[:3]), (other, pictures[3:])):
            expected += list(Restorer(Spy(), device="cpu", scale=scale).restore(part))
        assert all(map(np.array_equal, got, expected)) and len(got) == 6
    frames = [gray_frame(40 * i, i, size=(16, 24)) for i in range(4)]
    restorer = Restorer(Spy(), device="cpu", scale=0.5)
    stream = restorer.stream(frames)
    out = [next(stream), next(stream)]
    restorer.scale = 1.0
    out += list(stream)
    assert [int(frame.planes[0][0, 0]) for frame in out] == [0, 30, 60, 90]


def test_settings_are_checked_whenever_they_are_set():
    restorer = Restorer(Spy(), device="cpu", keep=[[0, 0, 4, 2]])
    assert restorer.keep == (Box(0, 0, 4, 2),)
    for name, value in [
        ("strength", 5),
        ("scale", 0),
        ("keep", [(-5, -5, 20, 20)]),
        ("keep", [(0, 0, 0, 0)]),
        ("keep", [(0.5, 0, 10, 10)]),
        ("keep", [(1, 2, 3)]),
        ("keep", (1, 2, 3, 4)),
        ("keep", 7),
        ("strength", "0.5"),
        ("scale", "half"),
    ]:
        with pytest.raises(ConfigError):
            setattr(restorer, name, value)
    with pytest.raises(IndexError):
        restorer.restore_frame([gray_frame(0)], -1)


@pytest.mark.parametrize("rotation", [0, 90])
def test_small_pictures_with_motion_blur_are_seen_enlarged(rotation):
    smooth = np.linspace(40, 200, 64).round().astype(np.uint8)
    planes = (np.broadcast_to(smooth, (32, 64)).copy(), *([np.full((32, 64), 128, np.uint8)] * 2))
    frames = [
        replace(gray_frame(0, index, size=(32, 64)), planes=planes, rotation=rotation)
        for index in range(3)
    ]
    frames[1] = replace(frames[1], planes=(planes[0] + 1, *planes[1:]))
    spy = Spy()
    spy.task = "deblur"
    restorer = Restorer(spy, device="cpu")
    out = list(restorer.stream(frames))
    rows, columns = (56, 112) if rotation == 0 else (112, 56)
    multiple = spy.config.multiple
    seen = [-(-side // multiple) * multiple for side in (rows, columns)]
    assert {tuple(window.shape[2:]) for window in spy.windows} == {tuple(seen)}
    ((scale, count),) = restorer.scales.items()
    assert (scale.scale, scale.reason, count) == (1.75, ScaleReason.SMALL, 3)
    assert restorer.scale_at(32, 64).scale == 1.75 and restorer.scale_at(480, 640).scale == 1
    for before, after in zip(frames, out, strict=True):
        difference = after.planes[0] - 0.75 * before.planes[0]
        assert np.abs(difference[:, 2:-2]).max() < 1.5
    alone = restorer.restore_frame(frames, 1)
    assert np.abs(alone.planes[0].astype(int) - out[1].planes[0]).max() <= 1
    spy.windows.clear()
    restorer.scale = 1
    list(restorer.stream(frames))
    assert {tuple(window.shape[2:]) for window in spy.windows} <= {(32, 64), (64, 32)}


@pytest.mark.parametrize("count", [4, 20])
def test_settings_of_a_frame_are_those_of_when_it_was_pushed(count):
    """The temporal filter comes later, and must not take the settings of then."""
    random = np.random.default_rng(4)
    clip = [(100 + random.integers(-3, 4, (32, 48, 3))).astype(np.uint8) for _ in range(count)]
    restorer = Restorer(Spy(), device="cpu", keep=[[0, 0, 24, 32]])
    got = []
    for picture in clip:
        got += restorer.push(picture)
    restorer.keep, restorer.strength = (), 0
    got += restorer.flush()
    assert len(got) == count
    for before, after in zip(clip, got, strict=True):
        assert np.array_equal(before[:, :24], after[:, :24])
        assert after[:, 24:].mean() < before[:, 24:].mean() - 10


@pytest.mark.parametrize("task", ["derain", "derain+deblur"])
def test_frames_before_one_that_is_too_large_come_restored(task):
    frames = [gray_frame(8 * index, index, size=(32, 48)) for index in range(30)]
    huge = (np.broadcast_to(np.uint8(0), (10_000, 10_000)),) * 3
    restorer, got = Restorer(task=task, device="cpu"), []
    with pytest.raises(ConfigError, match="too large"):
        for frame in restorer.stream([*frames, replace(frames[0], planes=huge)]):
            got.append(frame.pts)
    assert got == list(range(30))


def test_a_network_in_half_precision_runs_in_float32():
    for engine in ("auto", "torch"):
        network = load_model("realtime").half()
        picture = np.random.default_rng(3).integers(0, 256, (32, 48, 3), np.uint8)
        (got,) = Restorer(network, device="cpu", engine=engine).restore([picture])
        assert got.shape == picture.shape


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match="strength"):
        Restorer(Spy(), strength=1.5)
    for build in (
        lambda name: Restorer(Spy(), device=name),
        lambda name: load_model("realtime", name),
    ):
        with pytest.raises(ConfigError, match="must be auto, cpu, cuda"):
            build("tpu")
        with pytest.raises(ConfigError, match="is not on this machine"):
            build(f"cuda:{torch.cuda.device_count()}")
    huge = replace(gray_frame(0), planes=(np.broadcast_to(np.uint8(0), (10_000, 10_000)),) * 3)
    with pytest.raises(ConfigError, match="too large"):
        list(Restorer(Spy(), device="cpu").stream([huge]))


@pytest.mark.parametrize("rotation", [0, 90])
def test_a_working_scale_keeps_the_picture_sharp(rotation):
    """The network sees a small picture; the full one gets what it answers, no pixel blurred."""
    random = np.random.default_rng(0)
    sharp = random.integers(100, 200, (36, 60)).astype(np.uint8)
    frame = gray_frame(0, size=(36, 60), rotation=rotation)
    frame = replace(frame, planes=(sharp, *frame.planes[1:]))

    class Darker(Spy):
        def residual(self, x):
            super().residual(x)
            return torch.full_like(x[:, :3], -20 / 255)

    spy = Darker()
    restorer = Restorer(spy, device="cpu", scale=0.5)
    (out,) = restorer.stream([frame])
    shape = (18, 30) if rotation == 0 else (30, 18)
    assert spy.windows[0][0, 3, : shape[0], : shape[1]].mean() * 255 == pytest.approx(
        sharp.mean(), abs=0.1
    )
    multiple = spy.config.multiple
    assert spy.windows[0].shape[2:] == tuple(-(-side // multiple) * multiple for side in shape)
    assert np.array_equal(out.planes[0], sharp - 20)
    picture = sharp[..., None].repeat(3, axis=2)
    (restored,) = restorer.restore([picture])
    assert np.array_equal(restored, picture - 20)


@pytest.mark.parametrize("has_opencv", [True, False])
def test_what_is_added_to_a_large_picture_is_enlarged_in_place(has_opencv, monkeypatch):
    """A ramp comes out as a ramp, and nothing as nothing, whatever the sides are."""
    if not has_opencv:
        monkeypatch.setattr(mhnet_video.restoration.resize, "opencv", lambda: None)
    for size in ((36, 60), (37, 61)):

        class Ramp(Spy):
            def residual(self, x):
                ramp = torch.arange(x.shape[3]) / 255 * 4
                return torch.where(ramp < 10 * 4 / 255, 0, ramp).expand_as(x[:, :3]).clone()

        picture = np.random.default_rng(0).integers(10, 60, (*size, 3)).astype(np.uint8)
        pictures = [picture, picture + 1, picture + 2]
        added = list(Restorer(Ramp(), device="cpu", scale=0.5).restore(pictures))[1] - pictures[1]
        assert added.shape == picture.shape and not added[:, :16].any()
        columns = (np.arange(28, size[1] - 4) + 0.5) * round(size[1] / 2) / size[1] - 0.5
        assert np.abs(added[:, 28:-4] - 4 * columns[:, None]).max() <= 1


def test_the_working_scale_may_change_between_frames():
    spy = Spy()
    restorer = Restorer(spy, device="cpu")
    frames = [gray_frame(10 * i, i, size=(64, 64)) for i in range(7)]
    for index, scale in enumerate([1.0, 1.0, 0.5, 0.5, 1.0]):
        restorer.scale = scale
        out = restorer.restore_frame(frames[index : index + 3], 1)
        assert int(out.planes[0][5, 5]) == round(7.5 * (index + 1))
    assert [window.shape[-1] for window in spy.windows] == [64, 64, 32, 32, 64]
    with pytest.raises(ConfigError, match="scale must be above 0"):
        Restorer(Spy(), scale=0)


def test_large_pictures_are_looked_at_as_smaller_ones(monkeypatch):
    """Those of which a side is not one of 1080p; each way in, and upright or turned."""
    restorer = Restorer(Spy(), device="cpu")
    sizes = {(1080, 1920): 1, (1200, 4000): 1, (1440, 2560): 0.75, (3840, 2160): 0.5}
    assert {size: restorer.scale_at(*size).scale for size in sizes} == sizes
    assert Restorer(Spy(), device="cpu", scale=1.0).scale_at(2160, 3840).scale == 1
    monkeypatch.setattr(working_scale, "MOST_ROWS", 40)
    monkeypatch.setattr(working_scale, "WORKING_ROWS", 32)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (64, 96, 3)).astype(np.uint8) for _ in range(3)]
    spy = Spy()
    restorer = Restorer(spy, device="cpu")
    got = list(restorer.restore(pictures))
    half = list(Restorer(Spy(), device="cpu", scale=0.5).restore(pictures))
    assert all(map(np.array_equal, got, half))
    frames = [gray_frame(40 * i, i, size=(64, 96), rotation=90 * (i == 2)) for i in range(3)]
    out = list(restorer.stream(frames))
    assert [int(frame.planes[0][0, 0]) for frame in out] == [0, 30, 60]
    assert all(max(window.shape[2:]) <= 1.5 * 48 for window in spy.windows)  # by the looks' most
    restorer.restore_frame(frames[:2], 1)
    assert spy.windows[-1].shape[2:] == (32, 48)
    restorer.scale = 1.0
    restorer.restore_frame(frames[:2], 1)
    assert spy.windows[-1].shape[2:] == (64, 96)


def test_one_frame_of_several():
    """As the stream restores it, whichever of them it is; a frame is converted once."""
    frames = [gray_frame(10 * (i + 1), i) for i in range(5)]
    spy = Spy()
    restorer = Restorer(spy, device="cpu")
    expected = list(restorer.stream(frames))
    for index, frame in enumerate(expected):
        out = restorer.restore_frame(frames, index)
        assert all(map(np.array_equal, out.planes, frame.planes)) and out.pts == index
    assert levels(spy)[5:] == levels(spy)[:5]
    spy.windows.clear()
    assert restorer.restore_frame(frames[:1], 0).planes[0][0, 0] == 8
    copies = [frames[1], gray_frame(20, 9), gray_frame(20, 9)]
    restorer.restore_frame(copies, 1)
    restorer.restore_frame([*copies[1:], frames[0]], 1)
    assert levels(spy) == [[0, 10, 0]] * len(TRANSFORMS) + [[0, 20, 0]] * len(TRANSFORMS) + [
        [20, 20, 10]
    ]
    restorer.strength = 0
    assert restorer.restore_frame(frames, 2) is frames[2]


def test_a_live_frame_without_neighbours_is_restored_once():
    """In the dark cameras repeat frames: a self-ensemble of every third one would make it halt."""
    spy = Spy()
    restorer = Restorer(spy, device="cpu")
    restorer.restore_frame([gray_frame(20, index) for index in range(3)], 1, is_live=True)
    assert levels(spy) == [[0, 20, 0]]


def test_neighbours_are_aligned():
    blobs = np.random.default_rng(0).integers(0, 256, (16, 24), dtype=np.uint8)
    scene = np.kron(blobs, np.ones((12, 12), np.uint8))
    scene = (scene.astype(float) + np.roll(scene, 5, 0) + np.roll(scene, 3, 1)) // 3
    pictures = [np.repeat(scene[32:160, 40 + x : 232 + x, None], 3, 2) for x in (0, 7, 14)]
    pictures = [np.ascontiguousarray(each, np.uint8) for each in pictures]
    seen = {}
    for aligns in (False, True):
        spy = Spy(align=aligns)
        for _ in Restorer(spy, device="cpu").restore(pictures):
            pass
        seen[aligns] = [window[0].unflatten(0, (3, 3)) for window in spy.windows]
    for plain, aligned in zip(seen[False], seen[True], strict=True):
        # at the ends the picture stands for the missing one, and is where it should be
        torch.testing.assert_close(aligned, align(plain[None])[0], rtol=0, atol=1e-4)
        assert torch.equal(aligned[1], plain[1])
    apart, together = (
        float((window[1][0] - window[1][1])[:, 20:-20, 20:-20].abs().mean())
        for window in (seen[False], seen[True])
    )
    assert together < apart / 4


def test_tiles_are_cut_from_aligned_frames():
    pictures = [np.random.default_rng(i).integers(0, 256, (96, 160, 3)) for i in range(3)]
    pictures = [each.astype(np.uint8) for each in pictures]
    spy = Spy(align=True)
    restorer = Restorer(spy, device="cpu")
    restorer.engine.engine.max_pixels = 64 * 64
    for _ in restorer.restore(pictures):
        pass
    window = torch.stack([to_rgb(frame_of(each, 0), torch.device("cpu")) for each in pictures])
    expected = align(window[None])[0].flatten(0, 1)
    tiles = spy.windows[len(spy.windows) // 3 : 2 * len(spy.windows) // 3]
    assert len(tiles) > 1
    corner = tiles[0][0]
    size = corner.shape[1:]
    torch.testing.assert_close(corner, expected[:, : size[0], : size[1]], rtol=0, atol=1e-4)


def test_alignment_without_memory_is_told(monkeypatch):
    restorer = Restorer(Spy(align=True), device="cpu")

    def align(frames):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(restorer.engine.engine, "align", align)
    pictures = [np.full((300, 300, 3), i, np.uint8) for i in range(3)]
    with pytest.raises(ConfigError, match="too little memory"):
        list(restorer.restore(pictures))


def test_tiles_from_the_middle_of_a_clip_on(monkeypatch):
    """Frames from before and after it are of one size, whatever their own."""
    restorer = Restorer(Spy(align=True), device="cpu")
    engine = restorer.engine.engine
    plain, calls = engine.residual, []

    def residual(frames):
        calls.append(frames[0].shape)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("no room")
        return plain(frames)

    monkeypatch.setattr(engine, "residual", residual)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (570, 610, 3), dtype=np.uint8) for _ in range(5)]
    restored = list(restorer.restore(pictures))
    assert len(restored) == 5 and len(calls) > 6
    for picture, found in zip(pictures, restored, strict=True):
        assert np.abs(found - (picture * 0.75)).max() <= 1


def test_a_second_try_aligns_what_was_seen(monkeypatch):
    """Where the memory runs out behind the alignment: frames that are aligned are not once more."""
    restorer = Restorer(Spy(align=True), device="cpu")
    monkeypatch.setattr(restorer._steps[0], "_new_look", lambda **_: None)
    engine = restorer.engine.engine
    plain, given = engine.align, []

    def align(frames):
        given.append(list(frames))
        return plain(frames)

    def residual(frames):
        if len(given) == 1:
            raise torch.OutOfMemoryError("no room")
        return 0 * frames[1]

    monkeypatch.setattr(engine, "align", align)
    monkeypatch.setattr(engine, "residual", residual)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (570, 610, 3), dtype=np.uint8) for _ in range(2)]
    assert len(list(restorer.restore(pictures))) == 2
    assert all(a is b for a, b in zip(*given[:2], strict=True))
