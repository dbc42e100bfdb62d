"""The benchmark: what is measured is what the program runs, and a wrong result has no time."""

import json
import math

import av
import numpy as np
import pytest

from mhnet_video.cli.main import main
from mhnet_video.engines.base import TorchEngine
from mhnet_video.errors import ConfigError, MHNetVideoError
from mhnet_video.model.weights import load_model
from mhnet_video.pipelines import bench as bench_module
from mhnet_video.pipelines import measure
from mhnet_video.pipelines.bench import (  # fmt: skip
    BenchResult,
    EngineRow,
    Peak,
    SizeResult,
    Spread,
    WholeRow,
    bench,
    to_lines,
)
from mhnet_video.pipelines.bench_runtimes import WINDOWS, Runtime, jobs, runtimes_obstacle

STAGES = [
    "decode",
    "to RGB, and the residual",
    "restore",
    "restore at half scale",
    "restore, dry",
    "encode",
]
STAGES += ["network, frames as they are", "network, frames aligned"]
PEAKS = [{"threads": 1, "gflops": {"float32": 100.0, "bfloat16": 200.0}, "copy_gbs": 10.0}]


def luma(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


def test_the_clip_is_rainy_and_always_the_same(tmp_path):
    clips = [str(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    for clip in clips:
        measure._make_clip(clip, 128, 96, 12)
    first, second = (luma(clip).astype(int) for clip in clips)
    assert first.shape == (12, 96, 128)
    assert np.array_equal(first, second)
    # without rain a frame is the one before, moved by a pixel
    change = np.abs(first[1:, :, :-1] - first[:-1, :, 1:])
    assert all(each.max() > 25 and np.median(each) < 6 for each in change)


@pytest.fixture
def one_round(monkeypatch):
    """Each contender is timed once."""
    monkeypatch.setattr(measure, "_MIN_ROUNDS", 1)
    monkeypatch.setattr(measure, "_MAX_ROUNDS", 1)


def test_a_wrong_result_has_no_time(tmp_path, monkeypatch, one_round):
    clip = str(tmp_path / "a.mp4")
    measure._make_clip(clip, 64, 64, 3)

    class Off(TorchEngine):
        def __init__(self, network, by):
            super().__init__(network)
            self.by = by

        def residual(self, frames):
            return super().residual(frames) + self.by

    def contenders(network, counts):
        for name, by in (("torch float32", 0), ("near", 1e-3), ("far", 1e-2), ("broken", math.nan)):
            yield measure._Contender(name, "", 1, "float32", Off(network, by))
        yield measure._Contender("absent", "not here", 1, "float32", None)

    monkeypatch.setattr(measure, "_contenders", contenders)
    rows = measure._measure_network(clip, "realtime", PEAKS)["rows"]
    assert [bool(row["times"]) for row in rows] == [True, True, False, False, False]
    assert [row["psnr"] and round(row["psnr"]) for row in rows] == [None, 60, 40, None, None]
    assert rows[0]["speedup"] == 1.0
    assert rows[2]["detail"] == "wrong result: less than 50 dB"
    assert rows[4]["detail"] == "not here"


def test_a_wrong_result_of_a_runtime_has_no_time(tmp_path, monkeypatch, one_round):
    clip = str(tmp_path / "a.mp4")
    measure._make_clip(clip, 64, 64, 6)

    def contenders(network, windows, threads):
        for name, by in (("torch", 0.0), ("near", 1e-3), ("far", 1e-2), ("broken", math.nan)):
            for count in (1, 3):

                def run(by=by, count=count):
                    engine = TorchEngine(network)
                    return [engine.residual(windows[index]) + by for index in jobs(count)]

                yield Runtime(name, "", count, run)

    monkeypatch.setattr(measure, "runtimes_obstacle", lambda: "")
    monkeypatch.setattr(measure, "runtimes", contenders)
    rows = measure._measure_runtimes(clip, "realtime")["rows"]
    assert [bool(row["times"]) for row in rows] == [True] * 4 + [False] * 4
    assert [row["psnr"] and round(row["psnr"]) for row in rows[::2]] == [None, 60, 40, None]
    assert rows[4]["detail"] == "wrong result: less than 50 dB"


def test_nothing_in_flight_gets_the_same_window_twice_in_succession():
    for count in range(1, 9):
        order = jobs(count)
        assert all(order[lane] != order[lane + count] for lane in range(count))
        assert max(order) < WINDOWS


def test_ratios_are_of_torch_one_at_a_time_and_of_the_fastest_llvm():
    def row(runtime, concurrency, *times):
        return {
            "runtime": runtime,
            "detail": "",
            "concurrency": concurrency,
            "psnr": 70.0,
            "times": list(times),
        }

    rows = [row("torch", 1, 80.0), row("llvm", 1, 20.0), row("llvm", 2, 10.0)]
    rows += [row("OpenVINO", 1, 39.0, 40.0, 41.0), row("OpenVINO", 2)]
    found = list(bench_module._runtime_rows(rows))
    assert [each.speedup for each in found] == [1, 4, 8, 2, None]
    assert [each.of_llvm for each in found] == [8, 2, 1, 4, None]
    assert bench_module._runtime_cells(found[3])[2:] == [
        "40.0",
        "39.4 to 40.6",
        "2.0",
        "4.00",
        "70 dB",
    ]


@pytest.mark.slow
@pytest.mark.skipif(bool(runtimes_obstacle()), reason=runtimes_obstacle())
def test_every_runtime_gets_the_result_of_pytorch(tmp_path, monkeypatch):
    clip = str(tmp_path / "a.mp4")
    measure._make_clip(clip, 64, 64, 6)
    monkeypatch.setattr(measure, "_SECONDS", 0.0)
    rows = measure._measure_runtimes(clip, "realtime")["rows"]
    assert {row["runtime"] for row in rows} >= {"torch", "OpenVINO", "ONNX Runtime"}
    assert all(row["times"] for row in rows)
    assert all(row["psnr"] is None or row["psnr"] > 60 for row in rows)


def test_shares_are_of_the_peak_for_the_element(tmp_path, monkeypatch):
    clip = str(tmp_path / "a.mp4")
    measure._make_clip(clip, 64, 64, 3)
    network = load_model("realtime")

    def contenders(_, counts):
        for element in ("float32", "bfloat16"):
            yield measure._Contender("torch float32", "", 1, element, TorchEngine(network))

    monkeypatch.setattr(measure, "_contenders", contenders)
    told = measure._measure_network(clip, "realtime", PEAKS)
    for row, rate, element_bytes in zip(told["rows"], (100, 200), (4, 2), strict=True):
        seconds = sorted(row["times"])[len(row["times"]) // 2] / 1e3
        assert row["of_peak"] * rate * 1e9 * seconds == pytest.approx(2 * told["macs"], rel=0.2)
        moved = row["of_copy"] * 10e9 * seconds
        assert moved == pytest.approx(
            measure.count_bytes(network.config, 64, 64, element_bytes), rel=0.2
        )


def test_every_engine_is_there():
    counts = [1]
    names = [each.name for each in measure._contenders(load_model("realtime"), counts)]
    assert names[0] == "torch float32"
    assert "llvm" in names


def test_spread():
    assert Spread.of([3.0]) == (3, 3, 3)
    assert Spread.of([float(i) for i in range(11)][::-1]) == (5, 2, 8)


def test_a_network_that_sees_the_glass_is_measured(tmp_path, one_round):
    clip = str(tmp_path / "clip.mp4")
    # of a picture of 64x64 bfloat16 may choose other channels than float32, and lose 50 dB
    measure._make_clip(clip, 192, 144, 5)
    rows = measure._measure_network(clip, "windscreen-realtime", PEAKS)["rows"]
    assert rows and all(row["times"] for row in rows if row["engine"].startswith("torch"))


def test_the_table_tells_why_there_is_no_time():
    row = EngineRow(
        engine="llvm",
        detail="no LLVM",
        device="cpu",
        threads=1,
        psnr=None,
        ms=None,
        speedup=None,
        of_peak=None,
        of_copy=None,
    )
    size = SizeResult(
        width=64,
        height=48,
        macs=10**9,
        engines=(row,),
        runtimes=(),
        runtimes_obstacle="openvino not installed",
        stages={"decode": Spread(1.25, 1.0, 2.0)},
        whole=(
            WholeRow(
                cores=2,
                engine="torch",
                fps=Spread(20.0, 19.0, 21.0),
                first_frame_seconds=1.5,
                peak_bytes=None,
                overlap=0.8,
            ),
        ),
    )
    peak = Peak(threads=1, gflops={"float32": 100.0}, copy_gbs=9.6)
    result = BenchResult(
        model="m", machine={"a": "one", "b": "two"}, frames=10, peaks=(peak,), sizes=(size,)
    )
    lines = to_lines(result)
    assert lines[0] == "m on one, two"
    assert lines[2] == "- peak of 1 thread: float32 100 GFLOP/s, copy 10 GB/s"
    assert any(line.startswith("| llvm (no LLVM) |       1 | ") for line in lines)
    assert "no other runtimes: openvino not installed" in lines
    assert "| decode      |        1.2 | 1.0 to 2.0 |" in lines
    assert lines[-1].endswith("1.5 s |        |    0.80 |")
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frames": 3}, "at least 10"),
        ({"sizes": [(63, 64)]}, "63x64"),
        ({"isa": "sse"}, "avx2"),
    ],
    ids=str,
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(ConfigError, match=said):
        bench(**settings)


@pytest.mark.slow
def test_what_fails_in_a_process_of_its_own_is_told():
    with pytest.raises(MHNetVideoError, match=r"no-such-model"):
        bench(model="no-such-model")


def test_what_hangs_is_told(monkeypatch):
    monkeypatch.setattr(bench_module, "_MOST_SECONDS", 0.01)
    with pytest.raises(MHNetVideoError, match=r"measuring \(machine\) was not done"):
        bench()


def test_overlap_is_that_of_the_slowest_stage(monkeypatch):
    """Alone, the slowest stage takes 40 ms of the 50 that a frame takes."""
    ran = {"engine": "e", "fps": 20.0, "first_frame_seconds": 1.0, "peak_bytes": None}
    monkeypatch.setattr(bench_module, "_child", lambda job, environment, **_: ran)
    medians = {"decode": 3.0, "restore": 40.0, "restore, dry": 70.0, "encode": 5.0}
    medians["network, frames aligned"] = 90.0  # a part of a stage, measured in another way
    stages = {name: Spread(ms, ms, ms) for name, ms in medians.items()}
    one, two = bench_module._measure_whole({}, {}, [1, 2], stages)
    assert (one.overlap, two.overlap) == (None, pytest.approx(0.8))


def test_stages_alone(tmp_path, monkeypatch):
    clip = str(tmp_path / "a.mp4")
    measure._make_clip(clip, 64, 64, 6)
    monkeypatch.setattr(measure, "_STAGE_ROUNDS", 2)
    stages = measure._measure_stages(clip, "realtime")
    assert list(stages) == STAGES
    assert all(len(times) == 2 and min(times) > 0 for times in stages.values())
    # the network does more than what leads to it and away from it
    assert min(stages["restore"]) > min(stages["to RGB, and the residual"])


@pytest.mark.slow
def test_bench_on_avx2(tmp_path, capsys):
    figures = tmp_path / "bench.json"
    words = ["bench", "--size", "64x48", "--frames", "10", "--isa", "avx2", "--json", str(figures)]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "64x48, " in told.out and "measuring 64x48: the network" in told.err
    result = json.loads(figures.read_text())
    assert "AVX2" in result["machine"]["torch"]  # what this one may use does not matter
    (size,) = result["sizes"]
    assert {row["engine"] for row in size["engines"]} == {"torch float32", "llvm"}
    assert size["engines"][0]["ms"][0] > 0
    assert all("AVX-512" not in row["detail"] for row in size["engines"])
    assert list(size["stages"]) == STAGES
    assert size["whole"][-1]["overlap"] > 0
    assert all(row["fps"][0] > 0 and row["peak_bytes"] > 50e6 for row in size["whole"])
