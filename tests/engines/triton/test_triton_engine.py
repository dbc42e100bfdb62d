"""The GPU engine against the plain network.

Without CUDA the engine runs on the CPU: once with the reference implementations, which
proves the graph and the folded weights, and on tiny pictures with Triton's interpreter.
"""

import itertools
from pathlib import Path

import pytest
import torch
from test_llvm_engine import make_network

from mhnet_video.engines.triton import autotune
from mhnet_video.engines.triton.engine import TritonEngine
from mhnet_video.engines.triton.weight_packing import MapType, obstacle, pack_block
from mhnet_video.frame import Frame
from mhnet_video.kernels import dispatch, map_ops
from mhnet_video.media.reading.reader import VideoReader
from mhnet_video.model.align import align_frames
from mhnet_video.model.weights import list_models, load_model
from mhnet_video.restoration.color import to_rgb

pytest.importorskip("triton")

ROOT = Path(__file__).parents[3]
SAMPLES = {
    "derain": ("rain.mp4", "dry.mp4", 2),
    "deblur": ("blur.mp4", "sharp.mp4", 40),
}
"""A sample for each task, its truth, and a frame on which its networks gain a decibel."""
SMALL = {"encoder_blocks": (1, 1, 1, 2), "group_blocks": (1,) * 4}
CONFIGS = {
    "realtime": {"width": 16, "patch": 2, "frames": 3, **SMALL},
    "plain": {"width": 16, "patch": 1, "frames": 1, **SMALL},
    "narrow": {"width": 4, "patch": 2, "frames": 1, **SMALL},
    "window": {"width": 8, "patch": 1, "frames": 3, **SMALL},
    "odd width": {"width": 20, "patch": 2, "frames": 3, **SMALL},
    "patch of three": {"width": 8, "patch": 3, "frames": 1, **SMALL},
    "five frames": {"width": 24, "patch": 1, "frames": 5, **SMALL},
    "quality": {
        "width": 32,
        "patch": 2,
        "frames": 5,
        "encoder_blocks": (1, 2, 2, 6),
        "group_blocks": (1, 1, 1, 1),
    },
    "wide": {"width": 48, "patch": 2, "frames": 1, **SMALL},
    "heads": {"width": 8, "heads": 4, **SMALL},
    "blocks": {
        "width": 8,
        "patch": 2,
        "frames": 5,
        "encoder_blocks": (2, 3, 1, 1),
        "decoder_blocks": (3, 1, 2, 1),
        "group_blocks": (2, 1, 3, 2),
    },
}


def compare(network, engine, window, bound, runs=2):
    with torch.inference_mode():
        expected = network.residual(window)
    scale = expected.square().mean().sqrt()
    for _ in range(runs):  # the second run finds what the first one left
        found = engine.residuals(window)
        assert found.shape == expected.shape
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        error = (found - expected).square().mean().sqrt() / scale
        assert error < bound, float(error)


@pytest.mark.parametrize("sizes", CONFIGS.values(), ids=CONFIGS)
def test_gives_what_the_network_gives(sizes, device):
    network = make_network(**sizes).to(device)
    window = torch.rand(2, 3 * network.config.frames, 70, 101, device=device)
    compare(network, TritonEngine(network, torch.float32), window, 5e-5)


@pytest.mark.parametrize(
    ("name", "kind", "size", "bound", "runs"),
    [
        # in float32 the smallest map has two pixels: of a single one all scores are equal
        ("realtime", torch.float32, (5, 33), 5e-5, 2),
        ("plain", torch.float32, (5, 17), 5e-5, 1),
        ("quality", torch.bfloat16, (9, 5), 0.03, 1),
    ],
)
@pytest.mark.slow
def test_kernels_give_what_the_network_gives(name, kind, size, bound, runs, device):
    network = make_network(**CONFIGS[name] | SMALL).to(device)
    window = torch.rand(1, 3 * network.config.frames, *size, device=device)
    with dispatch.on_cpu():
        compare(network, TritonEngine(network, kind), window, bound, runs)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_types_stay_close(kind, device):
    network = make_network(**CONFIGS["realtime"]).to(device)
    window = torch.rand(1, 9, 64, 96, device=device)
    compare(network, TritonEngine(network, kind), window, 0.03)


def check_loss(network, engine):
    """What an engine restores is as near to the truth as what float32 does, to 0.02 dB."""
    half = network.config.frames // 2
    device = next(network.parameters()).device
    sample, truth, middle = SAMPLES[network.task]
    frames = seen_of(sample, middle - half, middle + half + 1)
    (clean,) = seen_of(truth, middle, middle + 1)
    window, clean = torch.cat(align_frames(frames))[None].to(device), clean.to(device)

    def psnr(residual):
        restored = (frames[half].to(device) + residual[0]).mul(255).round().clamp(0, 255) / 255
        return -10 * torch.log10((restored - clean).square().mean())

    with torch.inference_mode():
        exact = psnr(network.residual(window))
        nothing = psnr(torch.zeros_like(window[:, :3]))
    assert exact > nothing + 1
    assert abs(psnr(engine.residuals(window)) - exact) < 0.02


def seen_of(name, begin, end):
    """The middle of some frames of a sample, `[3, 180, 320]` each."""
    with VideoReader(ROOT / "samples" / name) as reader:
        frames = (item for item in reader if isinstance(item, Frame))
        pictures = [to_rgb(f, torch.device("cpu")) for f in itertools.islice(frames, begin, end)]
    top, left = (pictures[0].shape[1] - 180) // 2, (pictures[0].shape[2] - 320) // 2
    return [picture[:, top : top + 180, left : left + 320] for picture in pictures]


@pytest.mark.parametrize("name", [m.name for m in list_models() if m.task in SAMPLES])
def test_shipped_models_lose_nothing_by_narrow_maps(name):
    """In PyTorch's bfloat16, which rounds more often than the kernels do."""
    network = load_model(name)
    check_loss(network, TritonEngine(network, torch.bfloat16))


@pytest.mark.parametrize("size", [(1, 1), (33, 16), (32, 65)])
def test_any_size_one_engine(size, device):
    network = make_network(width=8, patch=2, frames=1, **SMALL).to(device)
    engine = TritonEngine(network, torch.float32)
    for height, width in (size, (40, 50), size, (7, 90)):
        # of one pixel at the bottom all scores are 1 or -1: rounding says which of equals is kept
        bound = 0.2 if (height, width) == (1, 1) else 5e-5
        compare(network, engine, torch.rand(1, 3, height, width, device=device), bound)


def test_every_pixel_is_written_and_none_leaks(monkeypatch, device):
    """What buffers hold before must not matter, even if it is not a number."""
    empty = torch.empty

    def poisoned(*arguments, **options):
        made = empty(*arguments, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    network = make_network(**CONFIGS["blocks"]).to(device)
    monkeypatch.setattr(torch, "empty", poisoned)
    engine = TritonEngine(network, torch.float32)
    compare(network, engine, torch.rand(1, 15, 50, 75, device=device), 5e-5)


def test_frames_one_by_one(device):
    network = make_network(**CONFIGS["window"]).to(device)
    frames = [torch.rand(3, 20, 30, device=device) for _ in range(3)]
    found = TritonEngine(network, torch.float32).residual(frames)
    with torch.inference_mode():
        expected = network.residual(torch.cat(frames)[None])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_first_loads_have_16_bytes(device):
    """The first convolution reads whole vectors, of which the last values are zero."""
    network = make_network(**CONFIGS["realtime"]).to(device)  # 36 channels
    engine = TritonEngine(network, torch.bfloat16)
    graph = engine.graph(1, 32, 32)
    with dispatch.recording() as launches:
        graph.run()
    first = launches[0]
    assert first.name == "conv_kernel" and first.arguments["num_inputs"] == 48
    graph.input.fill_(float("nan"))
    engine._fill(graph.input, torch.rand(1, 9, 32, 32, device=device))
    assert graph.input[..., :36].isfinite().all()
    assert graph.input[..., 36:].isnan().all()
    assert not engine.maps.intro[..., 36:].any()


def test_result_is_the_callers_own(device):
    network = make_network(width=8, patch=2, frames=1, **SMALL).to(device)
    engine = TritonEngine(network, torch.float32)
    first = engine.residuals(torch.rand(1, 3, 32, 32, device=device))
    kept = first.clone()
    engine.residuals(torch.rand(1, 3, 32, 32, device=device))
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


def test_buffers_are_planned_once(device):
    """Every run of a graph writes its maps where the first one did."""
    network = make_network(width=8, patch=2, frames=1, **SMALL).to(device)
    graph = TritonEngine(network, torch.float32).graph(1, 64, 64)
    places = []
    with dispatch.recording() as launches:
        for _ in range(2):
            graph.run()
            arguments = [launch.arguments.get("out_ptr") for launch in launches]
            places.append([each.data_ptr() for each in arguments if each is not None])
            launches.clear()
    # but for the few sums of parts that are made on the way
    assert len(places[0]) > 30
    assert sum(a == b for a, b in zip(*places, strict=True)) >= len(places[0]) - 2


def test_first_half_in_one_pass_is_that_in_two(device):
    network = make_network(width=8, **SMALL).to(device)
    block = network.stage2.CABG1[0]
    kind = MapType(torch.float32, device)
    x = torch.randn(2, 5, 7, 8, device=device)
    dense, split = pack_block(block, kind, "dense"), pack_block(block, kind, "split")
    assert split.dense is None
    with torch.inference_mode():
        expanded = map_ops.linear(x, *split.first, norm=True)
        expected = map_ops.depthwise(expanded, *split.depthwise, gate=True)
        found = (
            map_ops.block_front(x, *dense.dense),
            map_ops.block_front_rows(x, *split.first, *split.depthwise),
        )
    for each in found:
        torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("front", ["dense", "rows", "split"])
def test_every_way_of_first_halves(front, device):
    network = make_network(width=16, patch=2, frames=1, **SMALL).to(device)
    fronts = {16: front, 32: front}
    engine = TritonEngine(network, torch.float32, fronts)
    compare(network, engine, torch.rand(1, 3, 40, 50, device=device), 5e-5)
    with dispatch.recording() as launches:
        engine.graph(1, 64, 64).run()
    names = [launch.name for launch in launches]
    assert names.count("front_kernel") == (0 if front != "rows" else 4 + 4)


@pytest.mark.parametrize("fastest", ["split", "dense", "rows"])
def test_the_fastest_way_is_taken(fastest, monkeypatch, device):
    kind = MapType(torch.float32, device)
    monkeypatch.setattr(autotune, "_known", {})
    monkeypatch.setattr(autotune, "_ROWS", 4)
    monkeypatch.setattr(autotune, "_COLUMNS", 6)
    kernels = {"split": "depthwise_kernel", "dense": "conv_kernel", "rows": "front_kernel"}
    asked = []

    def milliseconds(work):
        with dispatch.recording() as launches:
            work()
        asked.append(launches[-1].name)
        return 1.0 if asked[-1] == kernels[fastest] else 2.0

    assert autotune.fastest_front(16, kind, milliseconds) == fastest
    assert sorted(asked) == sorted(kernels.values())
    assert autotune.fastest_front(16, kind, milliseconds) == fastest
    assert len(asked) == 3  # found once
    assert autotune.fastest_front(128, kind, milliseconds) == "split"


def test_a_way_that_is_wrong_or_fails_is_not_taken(monkeypatch, device, caplog):
    kind = MapType(torch.float32, device)
    monkeypatch.setattr(autotune, "_known", {})
    monkeypatch.setattr(autotune, "_ROWS", 4)
    monkeypatch.setattr(autotune, "_COLUMNS", 6)
    wrong = map_ops.block_front_rows

    def rows(x, *given, **options):
        return wrong(x, *given, **options).mul_(1.1)

    monkeypatch.setattr(map_ops, "block_front_rows", rows)
    times = iter([2.0, 1.0, 0.5])
    assert autotune.fastest_front(16, kind, lambda work: next(times)) == "dense"

    def failing(work):
        raise RuntimeError("out of resources")

    assert autotune.fastest_front(32, kind, failing) == "split"
    assert "out of resources" in caplog.text


def test_networks_that_it_cannot_run():
    assert "multiple of 4" in obstacle(make_network(width=6, heads=6, **SMALL))
    assert "no blocks" in obstacle(make_network(width=8, encoder_blocks=(0, 1, 1, 1)))
    assert obstacle(make_network(width=12, **SMALL)) == ""


def test_pictures_that_kernels_cannot_count():
    network = make_network(width=4, **SMALL).to("meta")
    engine = TritonEngine(network, torch.float32)
    with pytest.raises(torch.OutOfMemoryError, match="100000x80000"):
        engine.graph(1, 80000, 100000)
