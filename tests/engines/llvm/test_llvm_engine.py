"""The CPU engine against the plain network."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch

import mhnet_video.engines.select
from mhnet_video.config import ENGINES
from mhnet_video.engines.base import TorchEngine
from mhnet_video.engines.select import failure, llvm_obstacle, resolve_engine
from mhnet_video.errors import ConfigError
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.restoration.restorer import Restorer

needs_llvm = pytest.mark.skipif(bool(llvm_obstacle()), reason=llvm_obstacle())

SMALL = {"encoder_blocks": (1, 1, 1, 2), "group_blocks": (1,) * 4}
CONFIGS = {
    "realtime": {"width": 16, "patch": 2, "frames": 3, **SMALL},
    "narrow": {"width": 8, "patch": 2, "frames": 1, **SMALL},
    "plain": {"width": 8, "patch": 1, "frames": 1, **SMALL},
    "window": {"width": 8, "patch": 1, "frames": 3, **SMALL},
    "odd width": {"width": 24, "patch": 2, "frames": 3, **SMALL},
    "wide": {"width": 32, "patch": 2, "frames": 1, **SMALL},
    "glass": {"width": 16, "patch": 2, "frames": 5, "glass": True, **SMALL},
    "large": {
        "width": 32,
        "patch": 2,
        "frames": 5,
        "encoder_blocks": (1, 1, 2, 6),
        "group_blocks": (2, 1, 2, 1),
    },
    "blocks": {
        "width": 8,
        "patch": 2,
        "frames": 5,
        "encoder_blocks": (2, 3, 1, 1),
        "decoder_blocks": (3, 1, 2, 1),
        "group_blocks": (2, 1, 3, 2),
    },
}


def make_network(**sizes):
    """A network whose every parameter matters, with maps of the size of trained ones."""
    network = MHNet(NetworkConfig(**sizes))
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            torch.nn.init.normal_(parameter, std=0.3)
        elif "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(
                parameter, mean=float("norm" in name and "weight" in name), std=0.2
            )
    return network.requires_grad_(False).eval()


def machines():
    """The element types that this processor can use, and vectors of all lengths."""
    from mhnet_video.kernels.llvm_machine import Machine, host_machine

    found = {
        "host f32": host_machine(bfloat16=False),
        "host bf16": host_machine(tiles=False, int8=False),
        "host int8": host_machine(tiles=False),
        "host tiles": host_machine(),
    }
    found["8 lanes"] = Machine(lanes=8, registers=16, bfloat16=False, name="8 lanes")
    found["4 lanes"] = Machine(lanes=4, registers=32, bfloat16=False, name="4 lanes")
    return found


def make_engine(network, machine, threads=1):
    from mhnet_video.engines.llvm.engine import LLVMEngine

    return LLVMEngine(network, machine, threads)


def compare(engine, network, window, is_exact):
    with torch.inference_mode():
        expected = network.residual(window)
    scale = expected.square().mean().sqrt()
    for _ in range(2):  # the second run finds what the first one left
        found = engine.residual(window[0].split(3))[None]
        assert found.shape == expected.shape
        assert found.isfinite().all()
        error = (found - expected).square().mean().sqrt() / scale
        assert error < (2e-5 if is_exact else 0.03), float(error)


@needs_llvm
@pytest.mark.parametrize("machine", ["host f32", "host bf16", "host tiles"])
@pytest.mark.parametrize("sizes", CONFIGS.values(), ids=CONFIGS)
def test_gives_what_the_network_gives(sizes, machine):
    network = make_network(**sizes)
    machine = machines()[machine]
    window = torch.rand(1, 3 * network.config.pictures, 70, 101)
    compare(make_engine(network, machine), network, window, not machine.bfloat16)


@needs_llvm
@pytest.mark.parametrize("machine", ["8 lanes", "4 lanes"])
@pytest.mark.parametrize("patch", [1, 2])
def test_shorter_vectors(machine, patch):
    network = make_network(width=8, patch=patch, frames=1, **SMALL)
    window = torch.rand(1, 3, 61, 90)
    compare(make_engine(network, machines()[machine]), network, window, True)


@needs_llvm
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 640), (129, 31), (96, 512), (64, 352)])
def test_any_size_one_engine(size):
    network = make_network(width=8, patch=2, frames=1, **SMALL)
    for machine in (machines()[f"host {kind}"] for kind in ("f32", "bf16", "tiles")):
        engine = make_engine(network, machine)
        for height, width in (size, (40, 50), size):
            window = torch.rand(1, 3, height, width)
            compare(engine, network, window, not machine.bfloat16)


@needs_llvm
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_nothing(threads):
    network = make_network(width=8, patch=2, frames=3, **SMALL)
    window = torch.rand(1, 9, 70, 101)
    machine = machines()["host f32"]
    one = make_engine(network, machine, 1).residual(window[0].split(3))
    several = make_engine(network, machine, threads).residual(window[0].split(3))
    torch.testing.assert_close(several, one, rtol=1e-4, atol=1e-5)


@needs_llvm
def test_threads_that_come_late_are_not_waited_for():
    """They find the run over, even where its maps are gone and another one is going on."""
    network = make_network(width=8, patch=2, frames=3, **SMALL)
    machine = machines()["host f32"]
    windows = [torch.rand(9, *size).split(3) for size in ((70, 101), (40, 64), (96, 33))]
    expected = [make_engine(network, machine, 1).residual(window) for window in windows]
    engine = make_engine(network, machine, 2)
    engine.residual(windows[0])  # compiled, so that little is left to do but the run
    hold = threading.Event()
    held = engine._pool.submit(hold.wait, 60)
    alone = [engine.residual(window) for window in windows]
    assert not held.done()
    hold.set()
    together = [engine.residual(window) for window in windows]
    for found in (alone, together):
        for each, right in zip(found, expected, strict=True):
            torch.testing.assert_close(each, right, rtol=1e-4, atol=1e-5)


@needs_llvm
def test_instructions_can_be_forbidden(monkeypatch):
    from mhnet_video.kernels.llvm_machine import host_machine

    free = host_machine()
    if free.lanes < 16:
        pytest.skip("this processor has no AVX-512 to forbid")
    monkeypatch.setenv("MHNET_CPU_ISA", "avx512bf16")
    assert not host_machine().tiles
    assert host_machine().bfloat16 == free.bfloat16
    monkeypatch.setenv("MHNET_CPU_ISA", "avx512")
    assert not host_machine().bfloat16
    monkeypatch.setenv("MHNET_CPU_ISA", "avx2")
    machine = host_machine()
    assert (machine.lanes, machine.registers) == (8, 16)
    network = make_network(width=16, patch=2, frames=1, **SMALL)
    compare(make_engine(network, machine), network, torch.rand(1, 3, 50, 75), True)


@needs_llvm
def test_tiles_need_the_systems_permission(monkeypatch):
    from mhnet_video.kernels import llvm_machine

    if not llvm_machine.host_machine().tiles:
        pytest.skip("this processor has no AMX")
    monkeypatch.setattr(llvm_machine, "_tiles_granted", lambda: False)
    machine = llvm_machine.host_machine()
    assert machine.bfloat16 and not machine.tiles
    network = make_network(width=8, patch=2, frames=1, **SMALL)
    compare(make_engine(network, machine), network, torch.rand(1, 3, 40, 50), False)


@needs_llvm
def test_tiles_that_others_set_up_do_not_matter():
    """PyTorch's own kernels use tiles of other sizes in the same threads."""
    machine = machines()["host tiles"]
    network = make_network(width=16, patch=2, frames=1, **SMALL)
    engine = make_engine(network, machine, 2)
    window = torch.rand(1, 3, 64, 96)
    x = torch.rand(1, 64, 40, 40).bfloat16()
    weight = torch.rand(96, 64, 3, 3).bfloat16()
    before = torch.nn.functional.conv2d(x, weight)
    compare(engine, network, window, not machine.bfloat16)
    torch.testing.assert_close(torch.nn.functional.conv2d(x, weight), before, rtol=0, atol=0)
    compare(engine, network, window, not machine.bfloat16)


@needs_llvm
def test_every_pixel_is_written_and_none_leaks(monkeypatch):
    """What buffers hold before must not matter, even if it is not a number."""
    from mhnet_video.engines.llvm import arena as module

    network = make_network(width=8, patch=2, frames=1, **SMALL)
    window = torch.rand(1, 3, 50, 75)
    plain = module.Map.__init__

    def poisoned(self, *arguments):
        plain(self, *arguments)
        self.data.view(torch.float32).fill_(float("nan"))

    monkeypatch.setattr(module.Map, "__init__", poisoned)
    for machine in (machines()[f"host {kind}"] for kind in ("f32", "bf16", "tiles")):
        compare(make_engine(network, machine), network, window, not machine.bfloat16)


@needs_llvm
def test_result_is_the_callers_own():
    network = make_network(width=8, patch=2, frames=1, **SMALL)
    engine = make_engine(network, machines()["host f32"])
    first = engine.residual([torch.rand(3, 32, 32)])
    kept = first.clone()
    engine.residual([torch.rand(3, 32, 32)])
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


@needs_llvm
def test_frames_for_whose_result_there_was_no_memory_are_read_again(monkeypatch):
    network = make_network(width=8, patch=2, frames=3, **SMALL)
    engine = make_engine(network, machines()["host f32"])
    earlier, frames = (torch.rand(1, 9, 64, 96) for _ in range(2))
    engine.residual(earlier[0].split(3))
    parts = frames[0].split(3)

    def full(x):
        raise RuntimeError("can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty_like", full)
        with pytest.raises(RuntimeError):
            engine.residual(parts)
    with torch.inference_mode():
        expected = network.residual(frames)[0]
    torch.testing.assert_close(engine.residual(parts), expected, rtol=1e-3, atol=1e-4)


@needs_llvm
def test_memory_is_given_back_and_taken_again():
    engine = make_engine(make_network(**CONFIGS["window"]), machines()["host f32"], threads=2)
    frames = [torch.rand(3, 32, 48) for _ in range(3)]
    lane = engine.lanes(32 * 48)[0]
    expected = [each.aligned_residual(frames).clone() for each in (engine, lane)]
    kept = [weakref.ref(graph) for each in (engine, lane) for graph in each._graphs.values()]
    engine.free()
    gc.collect()
    assert len(kept) == 2 and not any(each() for each in kept)
    for each, before in zip((engine, lane), expected, strict=True):
        assert torch.equal(each.aligned_residual(frames), before)


@needs_llvm
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("machine", ["host f32", "host tiles"])
def test_frames_that_were_there_before(machine, patch):
    """A window that moves on, stands still, repeats its edge, jumps, goes back, and is alone."""
    network = make_network(width=8, patch=patch, frames=3, **SMALL)
    machine = machines()[machine]
    engine = make_engine(network, machine)
    clip = [torch.rand(3, 40, 50) for _ in range(5)]
    clip.append(None)
    turns = [(0, 1, 2), (1, 2, 3), (1, 2, 3), (3, 4, 4), (0, 1, 2), (2, 1, 0), (5, 4, 5), (0, 0, 1)]
    for places in [(0, 0, 1), *turns]:
        window = [clip[place] for place in places]
        black = [torch.zeros(3, 40, 50) if frame is None else frame for frame in window]
        with torch.inference_mode():
            expected = network.residual(torch.cat(black)[None])[0]
        error = (engine.residual(window) - expected).square().mean().sqrt()
        relative = float(error / expected.square().mean().sqrt())
        assert relative < (0.03 if machine.bfloat16 else 2e-5), (places, relative)


@needs_llvm
def test_views_of_larger_tensors():
    network = make_network(width=8, patch=2, frames=1, **SMALL)
    engine = make_engine(network, machines()["host f32"])
    window = torch.rand(1, 32, 32, 3).permute(0, 3, 1, 2)
    compare(engine, network, window, True)
    compare(engine, network, torch.rand(1, 5, 64, 80)[:, 1:4, 16:48, 16:48], True)


@needs_llvm
def test_auto_takes_it_and_the_restorer_runs_it():
    network = make_network(width=8, patch=2, frames=1, **SMALL)
    restorer = Restorer(network, device="cpu")
    assert restorer.engine.name == "llvm"
    picture = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    found = next(restorer.restore([picture]))
    expected = next(Restorer(network, device="cpu", engine="torch").restore([picture]))
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 0.6


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"width": 12}, "width 12"),
        ({"width": 8, "patch": 4}, "patch 4"),
        ({"width": 8, "encoder_blocks": (0, 1, 1, 1)}, "no blocks"),
    ],
)
def test_other_networks_fall_back(sizes, reason, monkeypatch):
    monkeypatch.setattr(mhnet_video.engines.select, "llvm_obstacle", str)
    network = make_network(**{**SMALL, **sizes})
    choice = resolve_engine(network)
    assert choice.name == "torch"
    assert reason in choice.reason
    with pytest.raises(ConfigError, match=reason):
        resolve_engine(network, "llvm")
    assert choice.engine.residual([torch.rand(3, 16, 16)]).dtype == torch.float32


def test_an_engine_that_fails_is_found_out():
    network = make_network(width=8, patch=2, frames=3, **SMALL)

    class Broken(TorchEngine):
        def residual(self, frames):
            raise RuntimeError("no kernel image\nand more")

    class Wrong(TorchEngine):
        def residual(self, frames):
            return super().residual(frames).roll(1, 2)

    assert failure(TorchEngine(network), network) is None
    assert failure(TorchEngine(network, bfloat16=True), network) is None
    assert failure(Broken(network), network) == ("RuntimeError: no kernel image", False)
    assert failure(Wrong(network), network) == ("its result differs from PyTorch's", True)


def test_an_engine_whose_alignment_fails_is_found_out(monkeypatch):
    network = make_network(width=8, patch=2, frames=3, align=True, **SMALL)

    class Wrong(TorchEngine):
        def align(self, frames):
            return [frame.roll(8, 2) for frame in frames]

    class NoNumber(TorchEngine):
        def align(self, frames):
            return [torch.full_like(frame, torch.nan) for frame in frames]

    assert failure(TorchEngine(network), network) is None
    for kind in (Wrong, NoNumber):
        fault = failure(kind(network), network)
        assert "its alignment differs" in fault.reason and fault.is_wrong

    def broken(*given):
        raise RuntimeError("ptxas: no image")

    monkeypatch.setattr(mhnet_video.engines.select, "align_maps", broken)
    assert failure(TorchEngine(network), network) == ("RuntimeError: ptxas: no image", False)


def test_without_llvm(monkeypatch):
    monkeypatch.setattr(
        mhnet_video.engines.select, "llvm_obstacle", lambda: "llvmlite is not installed"
    )
    network = make_network(width=8, **SMALL)
    assert resolve_engine(network).reason.startswith("llvmlite is not installed")
    with pytest.raises(ConfigError, match="not installed"):
        resolve_engine(network, "llvm")
    with pytest.raises(ConfigError, match="one of auto"):
        resolve_engine(network, "fastest")
    assert ENGINES[0] == "auto"
