"""The GPU's benchmark, as far as it goes without one."""

import inspect
import json
import math
import os
import sys
from contextlib import closing, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import waiting
from test_llvm_engine import make_network
from waiting import wait_until

from mhnet_video import kernels
from mhnet_video.cli.main import main
from mhnet_video.model.network import NetworkConfig
from mhnet_video.model.weights import list_models
from mhnet_video.restoration.color import add_residual, to_rgb

pytest.importorskip("triton")

from triton.runtime import KernelInterface

from mhnet_video.kernels import dispatch, map_ops, motion_ops, ops
from mhnet_video.pipelines import (
    bench_cases,
    bench_compile,
    bench_gpu,
    bench_kernels,
    bench_networks,
)
from mhnet_video.pipelines.bench_cases import PICTURE, Case, kernel_cases
from mhnet_video.pipelines.bench_compile import Compiler, add_compiled
from mhnet_video.pipelines.bench_kernels import Clock, checked, decibels, measure_kernels
from mhnet_video.pipelines.bench_networks import network_of, networks
from mhnet_video.pipelines.bench_scene import make_frames
from mhnet_video.pipelines.bench_table import row_line, to_lines
from mhnet_video.restoration.gpu_layout import FrameFormat, colors_of

CPU = torch.device("cpu")
MACHINE = {"copy_gbs": 10.0}
SPREAD = {"median": 1.5, "low": 1.25, "high": 2.0}


def all_cases():
    """What the GPU would be given, on tiny maps."""
    for channels in {size[0] for size in bench_gpu.KERNEL_SIZES}:
        yield from kernel_cases(channels, 4, 6, torch.bfloat16, CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it would run")
def test_without_a_gpu_it_says_so(capsys):
    assert main(["bench", "--gpu"]) == 2
    assert "no GPU that PyTorch can use" in capsys.readouterr().err


def test_all_shipped_models_are_measured_and_the_papers_network():
    found = networks()
    assert {m.name for m in list_models() if not m.config.glass} < set(found)
    assert found["paper"] == NetworkConfig()
    assert any(16 < config.width < 64 for config in found.values())
    for name in list(found)[:-1]:
        assert network_of(name, CPU).config == found[name]


def test_every_public_operation_has_a_row():
    wanted = {"frames_to_input", "residual_to_frames"}
    for module in (ops, map_ops, motion_ops):
        for name, value in vars(module).items():
            is_own = inspect.isfunction(value) and value.__module__ == module.__name__
            # what tells of room, or whether a kernel takes so many channels, runs none
            if (
                is_own
                and not name.startswith("_")
                and not name.endswith(("_sums", "_room", "_fits"))
            ):
                wanted.add(name)
    assert set(kernels.__all__) < wanted
    assert {case.op for case in all_cases()} == wanted


def test_every_kernel_has_a_row():
    wanted = set()
    for path in Path(kernels.__file__).parent.glob("*_kernel.py"):
        module = import_module(f"mhnet_video.kernels.{path.stem}")
        found = [value for value in vars(module).values() if isinstance(value, KernelInterface)]
        wanted |= {each.__name__ for each in found if each.__name__.endswith("_kernel")}
    started = set()
    for case in all_cases():
        with dispatch.recording() as launches:
            case.kernel(*case.inputs)
        assert launches, case.name
        started |= {each.name for each in launches}
    assert len(wanted) > 15
    assert started == wanted


def test_names_tell_rows_apart():
    for channels, *_ in bench_gpu.KERNEL_SIZES:
        names = [case.name for case in kernel_cases(channels, 4, 6, torch.bfloat16, CPU)]
        assert len(set(names)) == len(names) > 5


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuv420p10le"])
def test_what_is_meant_by_the_way_from_frames_and_back(name):
    """The benchmark's reference is the CPU's pipeline."""
    height, width = 5, 10
    frames = make_frames(3, height, width)
    if name == "yuv420p10le":
        layout = replace(frames[0].layout, name=name, bits=10)
        planes = [tuple(p.astype(np.uint16) * 4 + 1 for p in frame.planes) for frame in frames]
        frames = [replace(f, layout=layout, planes=p) for f, p in zip(frames, planes, strict=True)]
    form = FrameFormat.planar(frames[0].layout, height, width)
    ring = torch.zeros(3, form.size, dtype=form.sample_dtype)
    if name == "nv12":
        form = FrameFormat.semi_planar(8, height, width, width)
        ring = torch.zeros(3, form.size, dtype=form.sample_dtype)
        for room, frame in zip(ring, frames, strict=True):
            luma, chroma = form.planes_in(room)
            luma.copy_(torch.from_numpy(frame.planes[0]))
            chroma.copy_(torch.from_numpy(np.stack(frame.planes[1:], -1)))
    else:
        for room, frame in zip(ring, frames, strict=True):
            form.pack(frame, room.numpy())
    colors = torch.from_numpy(np.stack([colors_of(frame, 1.0) for frame in frames]))
    slots = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    given = ring, slots, colors

    found = bench_cases.frames_to_input(form, (8, 12), torch.float32, *given)
    rgb = torch.cat([to_rgb(frame, CPU) for frame in frames])[None]
    expected = F.pixel_unshuffle(F.pad(rgb, (0, 2, 0, 3), mode="replicate"), 2)
    torch.testing.assert_close(found.permute(0, 3, 1, 2), expected, rtol=0, atol=2e-6)

    residual = torch.randn(1, 3, height, width) / 5
    out = bench_cases.residual_to_frames(form, *given, residual)
    restored = form.unpack(out[0].numpy(), frames[1])
    for a, b in zip(restored, add_residual(frames[1], residual[0]), strict=True):
        # sums in another order may round a half the other way
        assert (a != b).mean() <= 0.02
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def test_plain_pytorch_in_bfloat16_is_right():
    """Else the kernels would be compared with nothing."""
    for channels in (16, 512):
        for case in kernel_cases(channels, 16, 32, torch.bfloat16, CPU):
            near = decibels(case.plain(torch.bfloat16)(), case.expected())
            assert near > bench_kernels.LEAST_DECIBELS + 3, case.name


def test_decibels_are_of_the_worst():
    x = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    expected = pytest.approx(40 + 20 * math.log10(float(x.std())))
    assert decibels(x + 0.01, x) == expected
    assert decibels((x, x + 0.01), (x, x)) == expected
    assert decibels(x * math.nan, x) == decibels(x * math.inf, x) == -300


def test_a_wrong_result_has_no_time(monkeypatch):
    x = torch.randn(100)

    def broken():
        raise RuntimeError("\nno image for this device\nmore")

    clock = Clock(CPU, 0.0)
    assert checked(clock, lambda: x, x)["ms"]["median"] > 0
    assert checked(clock, lambda: x + 0.1, x)["failed"] == "wrong result"
    assert checked(clock, broken, x) == {"failed": "RuntimeError: no image for this device"}

    def cases(*_):
        for name, kernel in (("right", 0.0), ("wrong", 0.1)):
            yield Case("op", name, lambda x, by=kernel: x + by, lambda x: x, [x])

    monkeypatch.setattr(bench_kernels, "kernel_cases", cases)
    right, wrong = measure_kernels(clock, [(16, 4, 6)], MACHINE, math.inf)
    assert {"ms", "eager_ms", "against_eager", "of_copy"} < set(right)
    assert not {"ms", "eager_ms"} & set(wrong)
    assert list(measure_kernels(clock, [(16, 4, 6)], MACHINE, -math.inf)) == []


class CountingTimer:
    """A GPU's clock on which each call takes two milliseconds."""

    def __init__(self, records):
        self.records, self.calls, self.captured_calls = records, [], []

    def captured(self, work):
        before = len(self.calls)
        work()
        self.captured_calls = self.calls[before:]
        del self.calls[before:]
        return (lambda: self.calls.extend(self.captured_calls)) if self.records else None

    def milliseconds(self, work):
        before = len(self.calls)
        work()
        return 2.0 * (len(self.calls) - before)


@pytest.mark.parametrize("records", [True, False])
def test_a_gpu_is_timed_by_ten_calls_in_turn(records):
    timer = CountingTimer(records)
    clock = Clock(CPU, 0.0, timer)
    works = [lambda name=name: timer.calls.append(name) for name in "abc"]
    assert clock.milliseconds(*works) == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert timer.captured_calls == list("abcabcabca")
    # before and behind the recording everything is ten calls
    assert len(timer.calls) % 10 == 0 and timer.calls[:4] == list("abca")


def test_only_a_gpu_has_caches_to_pass_by():
    given = [torch.zeros(3)]
    assert bench_kernels.rotated(given) == [given]


def test_a_frame_that_never_comes_back_ends_its_row(monkeypatch):
    monkeypatch.setattr(bench_gpu, "_RESULT_SECONDS", 0.05)
    stuck = SimpleNamespace(push=lambda window: [], _ready=list)
    with pytest.raises(TimeoutError, match="no frame came back"):
        bench_gpu._latency(Clock(CPU, 0.0), stuck, make_frames(4, 16, 16), 3)


ANSWERS = """
import json, subprocess, sys
for line in sys.stdin:
    name = json.loads(line)["kernel"]
    if name == "dies":
        sys.exit("no room on the device")
    if name == "hangs":
        # holds whatever it has inherited open
        helper = subprocess.Popen(["sleep", "3600"])
        with open(sys.argv[1], "w") as file:
            print(helper.pid, file=file)
        helper.wait()
    told = {"failed": "E: no"} if name == "fails" else {"ms": {"median": 3.0}}
    print(json.dumps(told), flush=True)
"""


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """A compiler that does what a row's name says, and where it notes its helper."""
    monkeypatch.setattr(bench_compile, "_LEAST_SECONDS", 0.5)
    with closing(Compiler([sys.executable, "-c", ANSWERS, str(tmp_path / "helper")])) as made:
        yield made, tmp_path / "helper"


def is_running(process):
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_what_is_compiled_ends_with_its_time(answers, monkeypatch):
    asked, helper = answers
    told = [asked.ask({"kernel": name}, 60) for name in ("works", "dies", "works", "fails")]
    assert [each.get("failed") for each in told] == [None, "no room on the device", None, "E: no"]
    asked.ask({"kernel": "works"}, 60)

    def select(*_):
        """Its time is up when it hangs."""
        wait_until(lambda: helper.exists() and helper.read_text().endswith("\n"))
        return [], [], []

    with monkeypatch.context() as patch:
        patch.setattr(bench_compile, "select", SimpleNamespace(select=select))
        assert asked.ask({"kernel": "hangs"}, 60) == {"failed": "not done after 60 s"}
    wait_until(lambda: not is_running(int(helper.read_text())))
    # and the next one gets another process
    assert asked.ask({"kernel": "works"}, 60) == {"ms": {"median": 3.0}}


def test_nothing_is_compiled_without_time(answers):
    asked, _ = answers
    assert asked.ask({"kernel": "works"}, 0.1) == {"failed": "no time was left"}
    assert asked._process is None


def test_a_row_has_a_share_of_the_time(monkeypatch):
    monkeypatch.setattr(bench_compile, "time", SimpleNamespace(monotonic=waiting.Clock(100.0)))
    asked = []

    class Slow:
        def ask(self, row, seconds):
            asked.append((row["kernel"], seconds))
            return {"failed": "no"} if row["kernel"] == "b" else {"ms": {"median": 3.0}}

    rows = [{"kernel": name, "ms": {"median": 1.5}} for name in "abc"]
    wrong = {"kernel": "wrong"}
    for _ in add_compiled([rows[0], wrong, *rows[1:]], Slow(), 0.25, 300.0):
        pass
    assert asked == [("a", 50), ("b", 50), ("c", 200)]
    assert [row.get("against_compiled") for row in rows] == [2.0, None, 2.0]
    assert rows[1]["compiled_failed"] == "no"
    assert wrong == {"kernel": "wrong"}


def test_the_compiler_has_no_helpers():
    """Inductor's would hold the output open when their parent is gone."""
    code = "import json, os, sys; sys.stdin.readline(); print(json.dumps(dict(os.environ)))"
    with closing(Compiler([sys.executable, "-c", code])) as asked:
        told = asked.ask({}, 60)
        assert told["TORCHINDUCTOR_COMPILE_THREADS"] == "1"
        assert os.getpgid(asked._process.pid) != os.getpgid(0)


def test_compiled_references_are_checked_and_timed():
    clock, options = Clock(CPU, 0.0), {"backend": "eager"}
    row = {"kernel": "2x2 stride 2", "channels": 16, "size": [6, 4]}
    told = bench_compile.compiled(row, clock, options)
    assert told["decibels"] > 100 and told["ms"]["median"] > 0 and told["compile_seconds"] > 0

    def off(graph, example):
        return lambda *given: [each + 1 for each in graph(*given)]

    told = bench_compile.compiled(row, clock, {"backend": off})
    assert told["failed"] == "wrong result" and "ms" not in told
    torch._dynamo.reset()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here Triton does not interpret")
@pytest.mark.slow
def test_a_dry_run(tmp_path, monkeypatch):
    """All of it but the network, which takes the interpreter a minute, and streams: see below."""
    for each in ("measure_networks", "measure_streams"):
        monkeypatch.setattr(bench_gpu, each, lambda *_: iter(()))
    # two frames at a time would be interpreted in two threads, which Triton cannot
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    path = tmp_path / "gpu.json"
    with dispatch.on_cpu():
        bench_gpu.bench_gpu(path, dry=True, seconds=3600)
    figures = json.loads(path.read_text())
    (file,) = figures["files"]
    slowest = min(file[f"{stage}_fps"] for stage in ("decode", "restore", "encode"))
    assert file["overlap"] == pytest.approx(file["fps"] / slowest)
    channels = {row["channels"] for row in figures["kernels"]}
    assert channels == {PICTURE, 16}
    for row in figures["kernels"]:
        assert {"ms", "eager_ms", "compiled_ms", "compiled_compile_seconds"} < set(row), row
        assert row["ms"]["low"] <= row["ms"]["median"] <= row["ms"]["high"]


def test_a_film_that_is_wrong_has_no_time(monkeypatch):
    case, clock = ("realtime", 16, 16), Clock(CPU, 0.0)
    real = bench_gpu.Restorer.stream

    def stream(self, items):
        for frame in real(self, items):
            yield replace(frame, planes=(frame.planes[0] ^ 8, *frame.planes[1:]))

    (right,) = bench_gpu.measure_files(clock, [case], 4, math.inf)
    assert right["fps"] > 0 and right["overlap"] > 0
    monkeypatch.setattr(bench_gpu.Restorer, "stream", stream)
    (wrong,) = bench_gpu.measure_files(clock, [case], 4, math.inf)
    assert wrong == {"network": "realtime", "size": [16, 16], "failed": "wrong result"}
    assert not bench_gpu.is_right(None, make_frames(3, 16, 16), 2, network_of("realtime", CPU))


def test_each_kernel_of_a_network_has_its_time(monkeypatch):
    small = {"encoder_blocks": (1,) * 4, "group_blocks": (1,) * 4}
    network = make_network(width=4, heads=4, frames=1, patch=2, **small)
    monkeypatch.setattr(bench_networks, "network_of", lambda name, device: network)
    with dispatch.off():
        (row,) = bench_networks.measure_programs(Clock(CPU, 0.0), ("small", 32, 32), runs=2)
    times = [each["ms"] for each in row["by_kernel"].values()]
    assert times == sorted(times, reverse=True) and times[-1] > 0
    assert row["sum_ms"] == pytest.approx(sum(times))
    assert all(each["launches"] >= 0.5 for each in row["by_kernel"].values())
    line = row_line(row)
    assert line.startswith("small, by kernel 32x32: ") and " ms in " in line
    # a profiler that sees nothing says so
    monkeypatch.setattr(torch.profiler.profile, "key_averages", lambda self: [])
    with dispatch.off():
        (row,) = bench_networks.measure_programs(Clock(CPU, 0.0), ("small", 32, 32), runs=1)
    assert row["failed"] == "the profiler saw no kernel"


@pytest.mark.slow
def test_streams_run_dry(monkeypatch):
    small = {"encoder_blocks": (1,) * 4, "group_blocks": (1,) * 4}
    network = make_network(width=4, heads=4, frames=3, patch=2, align=True, **small)
    monkeypatch.setattr(bench_gpu, "network_of", lambda name, device: network)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    # with kernels on: only the network has PyTorch's in their place
    with dispatch.on_cpu():
        (row,) = bench_gpu.measure_streams(Clock(CPU, 0.0), [("small", 16, 32)], 5, float("inf"))
    assert "failed" not in row and row["batch"] == 1
    assert row["fps"] > 0 and row["latency_ms"]["median"] > 0


def test_a_line_for_each_row():
    figures = {
        "machine": {"device": "X", "copy_gbs": 10.0, "product_tflops": 20.0, "torch": "2"},
        "networks": [
            {"network": "a", "size": [4, 2], "ms": SPREAD, "against_eager": 6.5},
            {"network": "b", "size": [4, 2], "compiled_failed": "not done after 9 s"},
        ],
        "streams": [{"network": "a", "size": [4, 2], "fps": 120.0, "overlap": 0.96}],
        "files": [{"network": "a", "size": [4, 2], "encoder": "e", "log": ["on the CPU"]}],
        "kernels": [
            {"kernel": "k", "channels": 8, "size": [4, 2], "decibels": 12.0, "failed": "wrong"},
            {"kernel": "k", "channels": 8, "size": [4, 2], "compiled_ms": SPREAD},
        ],
    }
    assert to_lines(figures) == [
        "X: copy 10 GB/s, product 20 TFLOP/s; PyTorch 2",
        "networks: a 4x2: 1.500 (1.250 to 2.000) ms, 6.5 times eager",
        "networks: b 4x2: not done after 9 s (compiled)",
        "streams: a 4x2: 120 frames a second, 0.96 overlap",
        "files: a 4x2: e, ['on the CPU']",
        "kernels: k, 8 channels 4x2: 12 dB, wrong",
        "kernels: k, 8 channels 4x2: 1.500 (1.250 to 2.000) ms compiled",
    ]
