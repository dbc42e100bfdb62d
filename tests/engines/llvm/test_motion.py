"""Compiled kernels move frames to one another as align.py does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from test_align import rained_on, scene
from test_llvm_engine import machines, make_network

from mhnet_video.model.align import align_frames

pytest.importorskip("llvmlite")

from mhnet_video.engines.llvm.engine import LLVMEngine
from mhnet_video.engines.llvm.motion import Motion, fits
from mhnet_video.engines.llvm.scheduler import Kernels
from mhnet_video.kernels.llvm_machine import Machine, host_machine


def views(count, height, width, step, *, seed=0):
    """What a camera that moves sees of a scene, in rain."""
    picture = scene(seed, (height + 160, width + 160))
    x, y = step
    return [
        rained_on(
            picture[:, 80 + y * i : 80 + y * i + height, 80 + x * i : 80 + x * i + width], i
        ).contiguous()
        for i in range(-(count // 2), count - count // 2)
    ]


def check(found, frames):
    expected = align_frames(frames)
    assert len(found) == len(frames)
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None
            continue
        # where a motion's sum rounds another way, the picture differs by a hair
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)
        assert float((a - b).abs().mean()) < 2e-5


@pytest.mark.parametrize(("name", "machine"), machines().items(), ids=list(machines()))
def test_as_align_has_it(name, machine):
    kernels = Kernels(machine)
    for count, height, width, step in (
        (3, 96, 128, (5, -2)),
        (5, 64, 80, (0, 0)),
        (3, 160, 336, (-21, 3)),
    ):
        if not fits(height, width, machine.lanes):
            continue
        frames = views(count, height, width, step)
        with torch.inference_mode():
            check(Motion(kernels, height, width, count, 1).run(frames, None), frames)


@pytest.mark.parametrize("lanes", [16, 8], ids="{} lanes".format)
def test_what_is_looked_up_is_what_would_be_gathered(lanes, monkeypatch):
    """Bit for bit: zooming, where vectors come from several rows, near the edges, and in noise."""
    machine = machines()["8 lanes"] if lanes == 8 else machines()["host f32"]
    if machine.lanes != lanes:
        pytest.skip("this processor has no vectors of 16")
    views_of_each = []
    picture = scene(3, (400, 480))[None]
    for zooms in ((0.7, 1, 1.5), (1, 1, 1.1), (2.5, 1, 0.5)):
        sides = [(round(192 * zoom), round(256 * zoom)) for zoom in zooms]
        cuts = [picture[..., :height, :width] for height, width in sides]
        views_of_each.append([F.interpolate(cut, (192, 256))[0] for cut in cuts])
    views_of_each.append([torch.rand(3, 192, 256) for _ in range(3)])
    for count in (3, 5):
        views_of_each.append(views(count, 192, 256, (37, -11)))
    found = []
    for looks_up in (True, False):
        monkeypatch.setattr(Machine, "looks_up", looks_up)
        kernels = Kernels(machine)
        with torch.inference_mode():
            for frames in views_of_each:
                given = [frame.contiguous() for frame in frames]
                moved = Motion(kernels, 192, 256, len(frames), 1).run(given, None)
                found.append(torch.stack([frame.clone() for frame in moved]))
    half = len(views_of_each)
    for looked_up, gathered, frames in zip(found[:half], found[half:], views_of_each, strict=True):
        assert torch.equal(looked_up, gathered)
        assert not torch.equal(looked_up, torch.stack(list(frames)))


def test_frames_that_were_there_before_are_known():
    frames = views(7, 96, 128, (6, 1))
    motion = Motion(Kernels(host_machine()), 96, 128, 3, 2)
    with torch.inference_mode(), ThreadPoolExecutor(1) as pool:
        for first in (0, 1, 2, 0, 4, 3):
            window = frames[first : first + 3]
            check(motion.run(window, pool), window)
        # at an end the picture stands for one that is missing, and stays that one
        window = [frames[0], frames[0], frames[1]]
        found = motion.run(window, pool)
        check(found, window)
        assert found[0] is frames[0] and found[1] is frames[0]
        window = [frames[2], frames[3], None]
        check(motion.run(window, pool), window)


def test_luma_of_far_neighbours_is_computed_once():
    """Windows that do not follow one another share frames; there are more frames than slots."""
    kernels, distance = Kernels(host_machine()), 3
    frames = views(60, 64, 80, (1, 1))
    motion, fresh = (Motion(kernels, 64, 80, 5, 1, moves_all=True) for _ in range(2))
    computed = []
    with torch.inference_mode():
        for centre in range(2 * distance, 60 - 2 * distance):
            window = frames[centre - 2 * distance : centre + 2 * distance + 1 : distance]
            found = [each.clone() for each in motion.run(window, None)]
            computed.append(int((motion._graph.lumas.shrinks["end"].sum(1) > 0).sum()))
            anew = [each.clone() for each in window]
            for a, b in zip(found, fresh.run(anew, None), strict=True):
                assert torch.equal(a, b)
    # none of the first few windows is there yet
    assert sum(computed) == len(frames) and set(computed[4 * distance :]) == {1}


def test_frames_that_are_turned_or_not_exact():
    turned = [frame.permute(0, 2, 1) for frame in views(3, 128, 96, (2, 5))]
    motion = Motion(Kernels(host_machine()), 96, 128, 3, 1)
    with torch.inference_mode():
        check(motion.run(turned, None), [frame.contiguous() for frame in turned])


@pytest.mark.parametrize("size", [(96, 128), (32, 320), (50, 70), (32, 32)], ids=str)
def test_the_engine_aligns_any_size(size):
    sizes = {"width": 16, "frames": 3, "align": True, "patch": 2}
    network = make_network(**sizes, encoder_blocks=(1,) * 4, group_blocks=(1,) * 4)
    engine = LLVMEngine(network, host_machine(), 2)
    frames = views(3, *size, (4, 1))
    check(engine.align(frames), frames)
    assert engine.align(frames[:1] * 3)[0] is frames[0]
    assert engine.align([None, frames[0], None]) == [None, frames[0], None]
    check(engine.align(frames[::-1]), frames[::-1])


def test_frames_that_were_moved_are_never_taken_for_those_before():
    """Moved frames lie where others have lain: the engine must read them anew."""
    sizes = {"width": 16, "frames": 3, "align": True, "patch": 2}
    network = make_network(**sizes, encoder_blocks=(1,) * 4, group_blocks=(1,) * 4)
    engine, fresh = (LLVMEngine(network, host_machine(), 1) for _ in range(2))
    frames = views(6, 96, 128, (5, 2))
    for first in (0, 1, 2, 3, 1):
        aligned = engine.align(frames[first : first + 3])
        expected = fresh.residual([frame.clone() for frame in aligned])
        assert torch.equal(engine.residual(aligned), expected)


@pytest.mark.parametrize(("name", "machine"), machines().items(), ids=list(machines()))
def test_frames_are_folded_as_they_are_moved(name, machine):
    """In one go or in two, the network sees the same; also at a clip's ends, and in between."""
    sizes = {"width": 16, "frames": 5, "align": True, "patch": 2}
    network = make_network(**sizes, encoder_blocks=(1,) * 4, group_blocks=(1,) * 4)
    engine, plain = (LLVMEngine(network, machine, 2) for _ in range(2))
    frames = views(7, 96, 128, (5, -2))
    windows = [(0, 1, 2, 3, 4), (1, 2, 3, 4, 5), (0, 0, 0, 1, 2), (4, 5, 6, 6, 6), (3,) * 5]
    frames.append(None)
    for places in [*windows, (-1, 2, 3, 4, 5), (-1, -1, 3, -1, -1), windows[1]]:
        window = [frames[place] for place in places]
        aligned = [None if frame is None else frame.clone() for frame in plain.align(window)]
        expected = plain.residual(aligned)
        torch.testing.assert_close(engine.aligned_residual(window), expected, rtol=0, atol=0)
        # what lies folded there is not taken for these
        fresh = [None if frame is None else frame.clone() for frame in window]
        torch.testing.assert_close(engine.residual(fresh), plain.residual(fresh), rtol=0, atol=0)
    assert engine._graph(96, 128).inputs.folds is not None


@pytest.mark.parametrize("patch", [1, 2])
def test_pictures_of_the_glass_stay_where_they_are(patch):
    """Folded as frames are moved or not: what the network sees is what align.py gives."""
    sizes = {"width": 16, "frames": 5, "align": True, "patch": patch, "glass": True}
    network = make_network(**sizes, encoder_blocks=(1,) * 4, group_blocks=(1,) * 4)
    engine, plain = (LLVMEngine(network, host_machine(bfloat16=False), 2) for _ in range(2))
    frames = views(9, 96, 128, (5, -2))
    glass = [torch.rand(3, 96, 128) for _ in range(4)]
    for turn, first in enumerate((0, 1, 3, 3)):
        window = [glass[turn], *frames[first : first + 5], glass[(turn + 1) % 4]]
        expected = align_frames(window, glass=True)
        found = engine.align(window)
        assert found[0] is window[0] and found[6] is window[6]
        for moved, wanted in zip(found[1:6], expected[1:6], strict=True):
            assert float((moved - wanted).abs().mean()) < 2e-5
        assert not torch.equal(found[1], window[1])
        residual = plain.residual([frame.clone() for frame in expected])
        error = (engine.aligned_residual(window) - residual).square().mean().sqrt()
        assert error < 0.01 * residual.square().mean().sqrt()
    alone = [None, None, None, frames[0], None, None, None]
    black = torch.cat([torch.zeros(9, 96, 128), frames[0], torch.zeros(9, 96, 128)])
    with torch.inference_mode():
        expected = network.residual(black[None])[0]
    error = (engine.aligned_residual(alone) - expected).square().mean().sqrt()
    assert error < 1e-3 * expected.square().mean().sqrt()


def test_frames_of_two_sizes_are_refused():
    network = make_network(
        width=16, frames=3, align=True, encoder_blocks=(1,) * 4, group_blocks=(1,) * 4
    )
    frames = [torch.rand(3, 96, 128), torch.rand(3, 96, 128), torch.rand(3, 64, 64)]
    engine = LLVMEngine(network, host_machine(), 1)
    for align in (engine.align, engine.aligned_residual, align_frames):
        with pytest.raises(ValueError, match="one size"):
            align(frames)
